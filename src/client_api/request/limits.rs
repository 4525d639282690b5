//! How long an answer may become: the limits that a request names, and the longest answer of a model.

use std::ops::Range;

use super::body::{number, Entry};
use super::Endpoint;

/// The parameters that limit an answer, in the order in which OpenAI introduced them.
pub const ANSWER_LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// A limit that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerLimit {
    /// The parameter.
    pub name: &'static str,
    /// The byte range of its value in the body.
    pub place: Range<usize>,
    /// The most tokens of one answer.
    pub tokens: u64,
}

/// The limits among the recorded entries of a body.
pub(super) fn answer_limits(body: &str, entries: &[Entry], endpoint: Endpoint) -> Vec<AnswerLimit> {
    let limit = |entry: &Entry| {
        let name = ANSWER_LIMITS.into_iter().find(|name| *name == entry.name)?;
        let tokens = number(body.get(entry.value.clone())?)?;
        Some(AnswerLimit { name, place: entry.value.clone(), tokens })
    };
    if endpoint == Endpoint::Embeddings {
        return Vec::new();
    }
    entries.iter().filter_map(limit).collect()
}

/// The longest answer that a model gives, and what becomes of a request that allows a longer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestAnswer {
    /// In tokens; `None` if it is not known.
    pub tokens: Option<u64>,
    /// The limit of the request is lowered to it.
    pub is_clamped: bool,
}

impl LongestAnswer {
    /// Whether the model would refuse this limit.
    pub fn refuses(self, limit: u64) -> bool {
        !self.is_clamped && self.tokens.is_some_and(|most| limit > most)
    }

    /// What is sent in place of this limit, if it is lowered.
    pub fn lowered(self, limit: u64) -> Option<u64> {
        self.tokens.filter(|most| self.is_clamped && limit > *most)
    }
}
