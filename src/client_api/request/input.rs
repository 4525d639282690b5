//! The body as the client sent it, and what of it counts as the model's input.

use std::cell::OnceCell;
use std::ops::Range;

use super::capabilities::{Features, Needs};
use super::Endpoint;
use crate::spend::tokens;

/// A body, kept until somebody wants to know how many tokens it has or what it needs, or until another provider is to get it:
/// most providers report their tokens themselves, and counting costs more than keeping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The body; empty if it was let go of. It is valid JSON.
    body: String,
    /// The place of `messages`, `prompt` or `input`.
    text: Range<usize>,
    tools: Range<usize>,
    /// Of the Responses API: what a system message is in a chat.
    instructions: Range<usize>,
    endpoint: Option<Endpoint>,
    /// What the options of the request need.
    options: Features,
    tokens: OnceCell<u64>,
    needs: OnceCell<Needs>,
    batch: OnceCell<bool>,
}

/// Where in a body the parts of the input stand; what is not there is empty.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) text: Range<usize>,
    pub(super) tools: Range<usize>,
    pub(super) instructions: Range<usize>,
}

impl Input {
    pub(super) fn new(body: String, parts: Parts, endpoint: Endpoint, options: Features) -> Self {
        let Parts { text, tools, instructions } = parts;
        Self { body, text, tools, instructions, endpoint: Some(endpoint), options, ..Self::default() }
    }

    /// So many tokens, known from elsewhere.
    pub fn with_tokens(tokens: u64) -> Self {
        Self { tokens: OnceCell::from(tokens), ..Self::default() }
    }

    /// The whole body; empty if it was let go of.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Lets go of the body; what it says is known from now on.
    pub(super) fn drop_text(&mut self) {
        self.tokens();
        self.needs();
        self.is_batch();
        self.body = String::new();
    }

    /// Where the text of the input begins in the body.
    pub const fn start(&self) -> usize {
        self.text.start
    }

    fn part(&self, place: &Range<usize>) -> &str {
        self.body.get(place.clone()).unwrap_or_default()
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.unwrap_or(Endpoint::Chat)
    }

    /// The tokens, estimated when first asked for.
    pub fn tokens(&self) -> u64 {
        *self.tokens.get_or_init(|| {
            let text = self.part(&self.text);
            let input = match self.endpoint() {
                Endpoint::Chat => tokens::of_messages(text),
                Endpoint::Completions | Endpoint::Embeddings | Endpoint::Responses => tokens::of_input(text),
            };
            input
                .saturating_add(tokens::of_tools(self.part(&self.tools)))
                .saturating_add(tokens::of_input(self.part(&self.instructions)))
        })
    }

    /// Whether it is a list of inputs, each of which has a model's context for itself.
    pub fn is_batch(&self) -> bool {
        *self.batch.get_or_init(|| {
            matches!(self.endpoint(), Endpoint::Completions | Endpoint::Embeddings)
                && self.part(&self.text).starts_with('[')
        })
    }

    /// What the messages need, read when first asked for.
    pub fn needs(&self) -> &Needs {
        self.needs.get_or_init(|| {
            let text = self.part(&self.text);
            match self.endpoint() {
                Endpoint::Chat => Needs::read(text),
                // A last item is nothing to go on with.
                Endpoint::Responses => {
                    Needs { features: Needs::read(text).features.without_prefill(), ..Needs::default() }
                }
                // These have texts only.
                Endpoint::Completions | Endpoint::Embeddings => Needs::default(),
            }
        })
    }

    /// All features that whoever answers must have.
    pub fn features(&self) -> Features {
        self.options.and(self.needs().features)
    }
}
