//! The error of a translation: what OpenAI's request says and Anthropic's API cannot.

/// A request that cannot be asked of Anthropic. Another provider may be able to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What stands in the way, for the client's developer.
    pub message: String,
    /// The parameter of OpenAI's request.
    pub param: &'static str,
}

impl Unsupported {
    /// `what` stands in the way in that parameter.
    #[inline(never)]
    pub(super) fn new(param: &'static str, what: &str) -> Self {
        Self { message: ["Anthropic cannot serve ", param, " with ", what].concat(), param }
    }
}
