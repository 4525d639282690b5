//! A whole answer: one JSON document, in the format of its provider.

use super::asked::Asked;
use crate::bytes::json::{mend, Mended};
use crate::client_api::request::Endpoint;
use crate::dialects::anthropic;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::{self, WholeAnswer};
use crate::health::outcome::ErrorBody;
use crate::spend::usage::{Served, Tally};

/// What was read of a whole answer.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) answer: WholeAnswer,
    /// It is a JSON object that was damaged.
    pub(super) garbled: bool,
}

/// Reads a whole answer in the format of its provider, and puts it right where a strict reader would refuse it although its meaning is
/// clear.
pub(super) fn read_whole(body: &[u8], asked: &Asked) -> Document {
    let answer = read(body, asked);
    if answer.answered || answer.error.is_some() {
        return Document { answer, garbled: false };
    }
    read_damaged(body, asked).unwrap_or(Document { answer, garbled: false })
}

/// Reads a body that is no answer as it is; `None` if it is nothing else either.
#[inline(never)]
fn read_damaged(body: &[u8], asked: &Asked) -> Option<Document> {
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii();
    if text.first() != Some(&b'{') {
        return None;
    }
    let json = match mend(text) {
        // The only thing wrong with it may have been its byte order mark.
        Mended::Json(json) if json != text || text.len() != body.trim_ascii().len() => json,
        // It is JSON, but no answer.
        Mended::Json(_) => return None,
        Mended::Beginning | Mended::Broken => {
            return Some(Document { answer: WholeAnswer::default(), garbled: true })
        }
    };
    // A vector with a number that is none is no vector.
    let garbled = asked.endpoint == Endpoint::Embeddings && json != text;
    let answer = if garbled { WholeAnswer::default() } else { read(&json, asked) };
    let body = answer.body.or(Some(json));
    Some(Document { answer: WholeAnswer { body, ..answer }, garbled })
}

fn read(body: &[u8], asked: &Asked) -> WholeAnswer {
    match asked.wire {
        Wire::OpenAi => schema::read(body, asked.endpoint, &asked.defaults),
        Wire::Anthropic => {
            let mut served = Served::default();
            let Some(answer) = anthropic::answer(body, asked.defaults.created, &mut served) else {
                return WholeAnswer { error: ErrorBody::from_json(body), ..WholeAnswer::default() };
            };
            let read = schema::read(&answer, asked.endpoint, &asked.defaults);
            let tally = Tally { served, ..read.tally };
            WholeAnswer { body: read.body.or(Some(answer)), tally, ..read }
        }
    }
}
