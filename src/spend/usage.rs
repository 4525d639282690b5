//! The tokens that a request used, and whether the provider reported them or Shunt estimated them.

use std::rc::Rc;

use super::reported::{Reconciled, Reported};

/// The tokens that one attempt used. Some vendors count cached or cache-written tokens beside the input; their numbers are
/// converted, so that here a part is always included in its total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the request, including those read from or written to the prompt cache.
    pub input: u64,
    /// The part of `input` that was read from the provider's prompt cache.
    pub cached: u64,
    /// The part of `input` that was written into the provider's prompt cache.
    pub cache_write: u64,
    /// All tokens of the answer, including reasoning.
    pub output: u64,
    /// The part of `output` that was reasoning.
    pub reasoning: u64,
    /// What only some price lists tell apart.
    pub details: Details,
}

/// Counts beside the five usual ones. A price list that has no words for them prices the whole that they are part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The part of the tokens written into the cache that the provider keeps for an hour.
    pub cache_write_1h: u64,
    /// The part of the input that was audio.
    pub audio_input: u64,
    /// The part of the output that was audio.
    pub audio_output: u64,
    /// How often the provider ran each of its own tools for the answer.
    pub calls: Calls,
}

/// How often a provider ran each of its own tools for an answer. Providers charge each call, in addition to the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Searches in the web.
    pub web_search: u32,
    /// Searches in stored files.
    pub file_search: u32,
    /// Sessions of a code interpreter.
    pub code_interpreter: u32,
    /// Pictures drawn.
    pub image_generation: u32,
}

impl Details {
    /// The larger of each pair of counts: two reports of one answer.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            audio_input: self.audio_input.max(other.audio_input),
            audio_output: self.audio_output.max(other.audio_output),
            calls: Calls {
                web_search: self.calls.web_search.max(other.calls.web_search),
                file_search: self.calls.file_search.max(other.calls.file_search),
                code_interpreter: self.calls.code_interpreter.max(other.calls.code_interpreter),
                image_generation: self.calls.image_generation.max(other.calls.image_generation),
            },
        }
    }

    /// The sum of the counts of two attempts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            audio_input: self.audio_input.saturating_add(other.audio_input),
            audio_output: self.audio_output.saturating_add(other.audio_output),
            calls: Calls {
                web_search: self.calls.web_search.saturating_add(other.calls.web_search),
                file_search: self.calls.file_search.saturating_add(other.calls.file_search),
                code_interpreter: self.calls.code_interpreter.saturating_add(other.calls.code_interpreter),
                image_generation: self.calls.image_generation.saturating_add(other.calls.image_generation),
            },
        }
    }
}

/// What a provider says about who answered, and on which terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The model that answered, by its name at the provider. It may be another one than was asked.
    pub model: Option<Rc<str>>,
    /// The service tier (`service_tier`).
    pub tier: Option<Rc<str>>,
}

/// Where a usage comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The provider reported it.
    Reported,
    /// The provider did not report it; it was [estimated](crate::spend::tokens).
    Estimated,
}

impl Source {
    /// The name in the audit record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
        }
    }
}

/// The tokens of an answer and how its reading went, updated while the answer arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The usage that the provider has reported so far.
    pub usage: Option<Usage>,
    /// What the provider says about who answered, and on which terms.
    pub served: Served,
    /// How the reported counts were reconciled, if they did not fit together.
    pub reconciled: Option<Reconciled>,
    /// The estimated tokens of the content that has arrived so far.
    pub estimated_output: u64,
    /// Some content has arrived.
    pub begun: bool,
    /// The number of events that could not be read.
    pub malformed: u32,
    /// The answer was too long to be read: it was only checked while it was forwarded.
    pub unread: bool,
    /// The fingerprint of the id of a response that its provider stores; 0 if it stores none.
    pub stored: u64,
}

impl Tally {
    /// The tally of an answer whose provider reported these counts, if it reported any.
    pub fn of(reported: Option<Reported>) -> Self {
        let Some((usage, reconciled)) = reported.map(|reported| reported.reconcile()) else {
            return Self::default();
        };
        Self { usage: Some(usage), reconciled, ..Self::default() }
    }

    /// The usage and its source: what the provider reported, or else an estimate from the request's tokens (`input`) and
    /// the content of the answer.
    pub fn settle(&self, input: impl FnOnce() -> u64) -> (Usage, Source) {
        match self.usage {
            Some(usage) => (usage, Source::Reported),
            None => (
                Usage { input: input(), output: self.estimated_output, ..Usage::default() },
                Source::Estimated,
            ),
        }
    }
}
