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
    /// The provider did not say; this is the [estimate].
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
