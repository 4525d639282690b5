//! Reading answers, and repairing those that do not follow OpenAI's schema.
//!
//! Each endpoint has its own reader. A reader returns what it found and what must be changed; an answer that follows the schema
//! is not copied.

pub mod chat;
pub mod embeddings;
pub mod responses;
mod tools;

use std::rc::Rc;

use crate::bytes::json;
use crate::client_api::request::{Endpoint, Input};
use crate::dialects::usage;
use crate::health::outcome::ErrorBody;
use crate::spend::tokens::Estimator;
use crate::spend::usage::{Served, Tally};
use chat::{Form, Reading};
pub use tools::ToolCalls;

/// Values for required fields that a provider left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `id`.
    pub id: String,
    /// `created`, in seconds since the epoch.
    pub created: u64,
    /// `model`: the model that was requested from the provider.
    pub model: String,
    /// The input of the request, whose tokens are estimated if the schema requires a usage and the provider reports none.
    pub input: Rc<Input>,
    /// Who answered, as far as the chunks of a stream have said.
    pub served: Served,
}

/// What was read from a whole (not streamed) answer of any endpoint.
#[derive(Debug, Default)]
pub struct WholeAnswer {
    /// The body is an answer, not an error and not something else.
    pub answered: bool,
    /// The error that it is or contains.
    pub error: Option<ErrorBody>,
    /// The repaired body for the client; `None` if the original needs no change.
    pub body: Option<Vec<u8>>,
    /// The tokens that it used.
    pub tally: Tally,
}

/// Reads a whole answer of an endpoint.
pub fn read(body: &[u8], endpoint: Endpoint, defaults: &Defaults) -> WholeAnswer {
    match endpoint {
        Endpoint::Chat => completion(body, Form::Chat, defaults),
        Endpoint::Completions => completion(body, Form::Text, defaults),
        Endpoint::Embeddings => embeddings::read(body, defaults),
        Endpoint::Responses => responses::read(body),
    }
}

/// Reads the usage of an answer of an endpoint, of which nothing else is known. `object` is the usage.
pub fn read_usage(object: &[u8], endpoint: Endpoint) -> Tally {
    match json::object(object) {
        Some(object) if endpoint == Endpoint::Embeddings => embeddings::usage(object),
        Some(object) => Tally::of(usage::read(object)),
        None => Tally::default(),
    }
}

fn completion(body: &[u8], form: Form, defaults: &Defaults) -> WholeAnswer {
    let Ok(mut reading) = Reading::new(body, form, defaults, &mut Estimator::idle()) else {
        return WholeAnswer { error: ErrorBody::from_json(body), ..WholeAnswer::default() };
    };
    let mut text = Estimator::default();
    if reading.summary.usage.is_none() && reading.summary.has_begun() {
        // The provider reports no usage, so the answer is read a second time to count its tokens.
        let _ = Reading::new(body, form, defaults, &mut text);
    }
    let error = reading.summary.error.take();
    let begun = reading.summary.has_begun();
    let served = reading.stream_fields.take().map(|fields| fields.served).unwrap_or_default();
    let mut tally =
        Tally { estimated_output: text.tokens(), begun, served, ..Tally::of(reading.summary.usage) };
    if let Some(calls) = &reading.summary.calls {
        tally.note_calls(calls.calls());
    }
    // DeepSeek sends blank lines before the answer while a request waits.
    let padded = body.first() != Some(&b'{');
    let changed = if reading.splices.is_empty() {
        padded.then(|| body.trim_ascii().to_vec())
    } else {
        reading.splices.apply(body).map(|body| body.trim_ascii().to_vec())
    };
    WholeAnswer { answered: begun && error.is_none(), error, body: changed, tally }
}
