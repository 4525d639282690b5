//! Tokens: what a request used, and how that is known.

/// What one attempt used, in tokens. Vendors that count cached or written tokens beside the input are converted, so
/// that the parts are always contained in their whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the request, cached and written ones included.
    pub input: u64,
    /// Of the input: read from the provider's prompt cache.
    pub cached: u64,
    /// Of the input: written into the provider's prompt cache.
    pub cache_write: u64,
    /// All tokens of the answer, reasoning included.
    pub output: u64,
    /// Of the output: reasoning.
    pub reasoning: u64,
}

/// How a usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The provider said so.
    Reported,
    /// The provider did not say; this is the estimate of `tokens`.
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

/// What is known of the tokens of an answer, while it runs and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the provider reported last.
    pub usage: Option<Usage>,
    /// The tokens of the content so far, estimated.
    pub said: u64,
    /// Content has come.
    pub begun: bool,
    /// Events that could not be read, and were left out.
    pub malformed: u32,
    /// The fingerprint of a response that its provider keeps; 0 if there is none.
    pub stored: u64,
}

impl Tally {
    /// The usage and how it is known: what was reported, or an estimate from the tokens of the request and
    /// from what was said.
    pub fn settle(&self, input: impl FnOnce() -> u64) -> (Usage, Source) {
        match self.usage {
            Some(usage) => (usage, Source::Reported),
            None => (Usage { input: input(), output: self.said, ..Usage::default() }, Source::Estimated),
        }
    }
}
