//! The tokens that a request used, and whether the provider reported them or Shunt estimated them.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The usage that the provider has reported so far.
    pub usage: Option<Usage>,
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
    /// The response was only accepted: its provider writes it later, in the background.
    pub queued: bool,
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
