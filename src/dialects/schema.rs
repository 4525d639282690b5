//! Answers in OpenAI's schema: what they hold, and what makes another vendor's answer one of them.
//!
//! Each endpoint has its reader. A reader says what it found and what must be changed; an answer that is as it should be
//! is not copied.

pub mod chat;
pub mod embeddings;
pub mod responses;

use std::rc::Rc;

use crate::client_api::request::{Endpoint, Input};
use crate::health::outcome::ErrorBody;
use crate::spend::tokens::Estimator;
use crate::spend::usage::Tally;
use chat::{Form, Reading};

/// What is filled in where a provider left it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `id`.
    pub id: String,
    /// `created`, in seconds since the epoch.
    pub created: u64,
    /// `model`: what the provider was asked for.
    pub model: String,
    /// The tokens of the request: where the schema requires a usage and there is none.
    pub input: Rc<Input>,
}

/// What a whole answer said, whatever its endpoint.
#[derive(Debug, Default)]
pub struct WholeAnswer {
    /// It is an answer.
    pub answered: bool,
    /// It is an error, or has one.
    pub error: Option<ErrorBody>,
    /// What the client gets in its place; `None`: it is as it should be.
    pub body: Option<Vec<u8>>,
    /// Its tokens.
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

fn completion(body: &[u8], form: Form, defaults: &Defaults) -> WholeAnswer {
    let Ok(mut reading) = Reading::new(body, form, defaults, &mut Estimator::idle()) else {
        return WholeAnswer::default();
    };
    let mut text = Estimator::default();
    if reading.summary.usage.is_none() && reading.summary.has_begun() {
        // The provider does not say how much it was, so it is read once more and counted.
        let _ = Reading::new(body, form, defaults, &mut text);
    }
    let error = reading.summary.error.take();
    let begun = reading.summary.has_begun();
    let tally =
        Tally { usage: reading.summary.usage, estimated_output: text.tokens(), begun, ..Tally::default() };
    // DeepSeek sends blank lines while a request waits.
    let padded = body.first() != Some(&b'{');
    let changed = if reading.splices.is_empty() {
        padded.then(|| body.trim_ascii().to_vec())
    } else {
        reading.splices.apply(body).map(|body| body.trim_ascii().to_vec())
    };
    WholeAnswer { answered: begun && error.is_none(), error, body: changed, tally }
}
