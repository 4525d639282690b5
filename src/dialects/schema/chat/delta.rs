//! The tool calls of one chunk, in all its choices: what of them the client gets now.

use super::calls::{Calls, Delta, Earlier, Fate, Output, Unusable};
use super::shape::{Finish, Shape};
use super::{Choice, Form, Reading};
use crate::bytes::json::{members, quoted, Raw};
use crate::dialects::schema::Defaults;
use crate::health::outcome::ErrorBody;

impl Reading {
    /// Reads the tool calls of a chunk, after all else in it. `object` is its JSON.
    pub(super) fn tell_calls(
        &mut self,
        calls: &mut Calls,
        choices: &[Choice<'_>],
        object: &str,
        shape: &mut Shape<'_>,
        defaults: &Defaults,
    ) {
        let mut earlier = Vec::new();
        match self.tell_each(calls, choices, object, shape, &mut earlier) {
            Ok(is_kept) => self.is_kept = is_kept,
            Err(message) => {
                self.summary.error = Some(ErrorBody {
                    code: "server_error".to_owned(),
                    kind: "server_error".to_owned(),
                    message: message.to_owned(),
                    ..ErrorBody::default()
                });
            }
        }
        let defaults = self.stream_fields.as_deref().unwrap_or(defaults);
        for piece in earlier {
            let json = match piece {
                Earlier::Chunk(json) => json,
                Earlier::Piece(choice, piece) => chunk(choice, &piece, defaults),
            };
            self.earlier.extend([b"data: ", json.as_bytes(), b"\n\n"].concat());
        }
    }

    /// Returns whether nothing of the chunk is forwarded now.
    fn tell_each(
        &self,
        calls: &mut Calls,
        choices: &[Choice<'_>],
        object: &str,
        shape: &mut Shape<'_>,
        earlier: &mut Vec<Earlier>,
    ) -> Result<bool, Unusable> {
        for (place, choice) in choices.iter().enumerate() {
            let number = choice.number(place);
            let list = choice.message(Form::ChatChunk).and_then(|message| message.tool_calls.value());
            let list = list.filter(|list| list.starts_with('['));
            let finishes = matches!(Finish::of(&choice.finish_reason), Finish::OpenAi | Finish::Vendor(_));
            if list.is_none() && !(finishes && calls.are_in(number)) {
                continue;
            }
            // Whether the chunk has nothing but this delta, and nothing in that but calls.
            let is_alone = choices.len() == 1 && !finishes && !self.has_usage_object && is_alone(choice);
            let chunk = Some(object).filter(|_| is_alone && shape.splices.is_empty());
            let delta = Delta { choice: number, list: list.unwrap_or_default(), finishes, chunk };
            let out = Output { shape: &mut *shape, earlier: &mut *earlier, stays: None };
            match (calls.read(delta, out)?, list) {
                (Fate::Kept, _) => return Ok(true),
                (Fate::Gone, _) if is_alone && !shape.tells_role => return Ok(true),
                (Fate::Gone, Some(list)) => shape.splices.add(shape.place(list), "[]"),
                (Fate::Gone | Fate::Stay, _) => {}
            }
        }
        Ok(false)
    }
}

/// Whether nothing but its role and its tool calls is in a choice's delta.
fn is_alone(choice: &Choice<'_>) -> bool {
    let is_empty = |(name, _, value): (&[u8], _, &str)| {
        matches!(name, b"role" | b"tool_calls") || !Raw(Some(value)).is_filled()
    };
    members(choice.delta.value().unwrap_or_default()).all(is_empty)
}

/// A chunk with a piece of a tool call.
fn chunk(choice: usize, piece: &str, defaults: &Defaults) -> String {
    let (id, model) = (quoted(&defaults.id), quoted(&defaults.model));
    let (created, choice) = (defaults.created.to_string(), choice.to_string());
    let head =
        ["{\"id\":", &id, ",\"object\":\"", Form::ChatChunk.object(), "\",\"created\":", &created].concat();
    let body = [",\"model\":", &model, ",\"choices\":[{\"index\":", &choice, ",\"delta\":{\"tool_calls\":["]
        .concat();
    [&head, &body, piece, "]},\"logprobs\":null,\"finish_reason\":null}]}"].concat()
}
