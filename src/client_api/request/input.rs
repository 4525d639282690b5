//! The body as the client sent it, and the parts of it that are the model's input.

use std::cell::OnceCell;
use std::ops::Range;

use super::capabilities::{Features, Needs};
use super::Endpoint;
use crate::spend::tokens;

/// The body of a request. Its tokens and needs are computed only when they are first used, because most requests need neither:
/// most providers report the tokens themselves, and counting costs more than keeping the text. The text is also what the next
/// provider gets after a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The body, which is valid JSON; empty after [`Self::drop_text`].
    body: String,
    /// The byte range of `messages`, `prompt` or `input`.
    text: Range<usize>,
    tools: Range<usize>,
    /// The counterpart of a chat's system message in the Responses API.
    instructions: Range<usize>,
    endpoint: Option<Endpoint>,
    /// The features that the request's options (all but its messages) need.
    options: Features,
    tokens: OnceCell<u64>,
    needs: OnceCell<Needs>,
    batch: OnceCell<bool>,
}

/// The byte ranges of the input in a body; a missing part is an empty range.
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

    /// An input without a text, whose number of tokens is known. For tests.
    pub fn with_tokens(tokens: u64) -> Self {
        Self { tokens: OnceCell::from(tokens), ..Self::default() }
    }

    /// The whole body; empty after it was dropped.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Frees the text of the body, after computing everything that is read from it.
    pub(super) fn drop_text(&mut self) {
        self.tokens();
        self.needs();
        self.is_batch();
        self.body = String::new();
    }

    /// The position in the body at which the text of the input begins.
    pub const fn start(&self) -> usize {
        self.text.start
    }

    /// The text of the input (`messages`, `prompt` or `input`); empty after the body was dropped.
    pub fn text(&self) -> &str {
        self.part(&self.text)
    }

    fn part(&self, place: &Range<usize>) -> &str {
        self.body.get(place.clone()).unwrap_or_default()
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.unwrap_or(Endpoint::Chat)
    }

    /// The tokens of the input, estimated at the first call.
    pub fn tokens(&self) -> u64 {
        *self.tokens.get_or_init(|| {
            let text = self.part(&self.text);
            let input = match self.endpoint() {
                Endpoint::Chat => tokens::of_messages(text),
                Endpoint::Completions | Endpoint::Embeddings | Endpoint::Responses => tokens::of_input(text),
            };
            input + tokens::of_tools(self.part(&self.tools)) + tokens::of_input(self.part(&self.instructions))
        })
    }

    /// Whether it is a list of separate inputs, each of which may fill the model's context.
    pub fn is_batch(&self) -> bool {
        *self.batch.get_or_init(|| {
            matches!(self.endpoint(), Endpoint::Completions | Endpoint::Embeddings)
                && self.part(&self.text).starts_with('[')
        })
    }

    /// What the messages need, read at the first call.
    pub fn needs(&self) -> &Needs {
        self.needs.get_or_init(|| {
            let text = self.part(&self.text);
            match self.endpoint() {
                Endpoint::Chat => Needs::read(text),
                // The Responses API has no prefill: a last item of the assistant is not continued.
                Endpoint::Responses => {
                    Needs { features: Needs::read(text).features.without_prefill(), ..Needs::default() }
                }
                // Their input is only text.
                Endpoint::Completions | Endpoint::Embeddings => Needs::default(),
            }
        })
    }

    /// All features that the model must have to serve the request.
    pub fn features(&self) -> Features {
        self.options.and(self.needs().features)
    }
}
