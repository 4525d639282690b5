//! The tool calls of one chunk, in all its choices: what of them the client gets now.

use super::calls::{Calls, Delta, Earlier, Fate, Output, Unusable};
use super::shape::{Finish, Shape};
use super::{Choice, Form, Message, Reading};
use crate::bytes::json::{members, quoted, Raw};
use crate::dialects::schema::Defaults;
use crate::health::outcome::ErrorBody;

impl Reading {
    /// Reads the tool calls of a chunk, after all else in it: the number of each choice that has calls or a finish reason, the choice,
    /// and its calls. `object` is the chunk's JSON, if it has one choice.
    pub(super) fn tell_calls(
        &mut self,
        calls: &mut Calls,
        deltas: &[(usize, &Choice<'_>, &str)],
        object: Option<&str>,
        shape: &mut Shape<'_>,
        defaults: &Defaults,
    ) {
        let mut earlier = Vec::new();
        match self.tell_each(calls, deltas, object, shape, &mut earlier) {
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
        deltas: &[(usize, &Choice<'_>, &str)],
        object: Option<&str>,
        shape: &mut Shape<'_>,
        earlier: &mut Vec<Earlier>,
    ) -> Result<bool, Unusable> {
        for (number, choice, list) in deltas {
            let list = if list.starts_with('[') { *list } else { "" };
            let finishes = matches!(Finish::of(&choice.finish_reason), Finish::OpenAi | Finish::Vendor(_));
            if list.is_empty() && !(finishes && calls.are_in(*number)) {
                continue;
            }
            // The chunk, if it has nothing but this delta, and nothing in that but calls.
            let object = object.filter(|_| !finishes && !self.has_usage_object);
            let alone = || object.filter(|_| is_alone(choice));
            let is_good = shape.splices.is_empty();
            let chunk = &|| alone().filter(|_| is_good);
            let delta = Delta { choice: *number, list, finishes, chunk };
            let out = Output { shape: &mut *shape, earlier: &mut *earlier, stays: None };
            match calls.read(&delta, out)? {
                Fate::Kept => return Ok(true),
                Fate::Gone if !shape.tells_role && alone().is_some() => return Ok(true),
                Fate::Gone => shape.splices.add(shape.place(list), "[]"),
                Fate::Stay => {}
            }
        }
        Ok(false)
    }
}

impl Message<'_> {
    /// Whether its content is a text or a list of parts, and its calls are a list of calls. Anything else would be dropped, and a part
    /// of the answer with it.
    pub(super) fn has_types(&self) -> bool {
        let is_list = |list: &Raw<'_>| {
            list.value().is_some_and(|raw| raw.starts_with('['))
                && list.elements().into_iter().all(|element| element.starts_with('{') || element == "null")
        };
        let is_content = !self.content.is_filled() || self.content.word().is_some() || is_list(&self.content);
        is_content && (!self.tool_calls.is_filled() || is_list(&self.tool_calls))
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
