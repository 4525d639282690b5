//! The error for a request that cannot be translated to Anthropic's API.

/// A request that cannot be translated to Anthropic's API. Another provider may be able to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The reason, for the client's developer.
    pub message: String,
    /// The parameter of OpenAI's request that has no equivalent.
    pub param: &'static str,
}

impl Unsupported {
    /// The error for a parameter; `what` says which value of it is not supported.
    #[inline(never)]
    pub(super) fn new(param: &'static str, what: &str) -> Self {
        Self { message: ["Anthropic cannot serve ", param, " with ", what].concat(), param }
    }
}
