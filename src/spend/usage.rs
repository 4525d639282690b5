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

impl Calls {
    /// The larger of each pair of counts: two reports of one answer.
    #[must_use]
    #[inline(never)]
    pub fn max(self, other: Self) -> Self {
        self.each(other, u32::max)
    }

    /// The sum of the counts.
    #[must_use]
    #[inline(never)]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u32::saturating_add)
    }

    fn each(self, other: Self, join: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            web_search: join(self.web_search, other.web_search),
            file_search: join(self.file_search, other.file_search),
            code_interpreter: join(self.code_interpreter, other.code_interpreter),
            image_generation: join(self.image_generation, other.image_generation),
        }
    }
}

impl Details {
    /// The larger of each pair of counts: two reports of one answer.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            audio_input: self.audio_input.max(other.audio_input),
            audio_output: self.audio_output.max(other.audio_output),
            calls: self.calls.max(other.calls),
        }
    }

    /// The sum of the counts of two attempts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            audio_input: self.audio_input.saturating_add(other.audio_input),
            audio_output: self.audio_output.saturating_add(other.audio_output),
            calls: self.calls.plus(other.calls),
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

/// The longest answer that is expected of a model, in tokens, where nothing more is known. Without this bound the limit that one request
/// names, or the length of one answer that was not read, could use up a whole budget.
pub const MOST_OUTPUT: u64 = 128_000;

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
    /// How often the provider ran its own tools, by what is in the answer. They are part of the usage, too, if that is reported.
    pub calls: Calls,
    /// Content came that this usage cannot count, because it was told before it: it is not final.
    pub uncounted: bool,
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
    /// The fingerprints of reasoning items that only its provider can read.
    pub thoughts: Marks,
    /// The response was only accepted: its provider writes it later, in the background.
    pub queued: bool,
}

/// A few fingerprints; 0 is none. Of more than fit, the last ones are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks([u64; 8]);

impl Marks {
    /// Adds a fingerprint, unless it is 0.
    pub fn add(&mut self, mark: u64) {
        if mark != 0 {
            self.0.rotate_right(1);
            if let Some(first) = self.0.first_mut() {
                *first = mark;
            }
        }
    }

    /// The fingerprints.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied().filter(|mark| *mark != 0)
    }
}

impl Tally {
    /// The tally of an answer whose provider reported these counts, if it reported any.
    pub fn of(reported: Option<Reported>) -> Self {
        let Some(reported) = reported else { return Self::default() };
        let (usage, reconciled) = reported.reconcile();
        Self { usage: Some(usage), uncounted: reported.lacks_output, reconciled, ..Self::default() }
    }

    /// Notes the calls of the provider's own tools that are in the answer. The usage may tell them, too, or not.
    pub fn note_calls(&mut self, calls: Calls) {
        if let Some(usage) = &mut self.usage {
            usage.details.calls = usage.details.calls.max(calls);
        }
        self.calls = calls;
    }

    /// The usage and its source: what the provider reported, or else an estimate from the request's tokens (`input`) and
    /// the content of the answer. Of a usage that is not final, an input that was told stays, and the output is the larger of the two.
    pub fn settle(&self, input: impl FnOnce() -> u64) -> (Usage, Source) {
        let told = self.usage.unwrap_or_default();
        let is_final = self.usage.is_some() && !self.uncounted;
        if is_final || (told.input > 0 && told.output >= self.estimated_output) {
            return (told, Source::Reported);
        }
        let input = if told.input > 0 { told.input } else { input() };
        let details = Details { calls: told.details.calls.max(self.calls), ..told.details };
        (Usage { input, output: told.output.max(self.estimated_output), details, ..told }, Source::Estimated)
    }
}
