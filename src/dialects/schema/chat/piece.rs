//! One piece of a tool call, and what is kept of a call that has not begun for the client.

use std::borrow::Cow;
use std::ops::Range;

use super::{Call, Function};
use crate::base::store::fingerprint;
use crate::bytes::json::{members, quoted, raw_object, Raw};

raw_object! {
    /// The `custom` of a call of a custom tool.
    struct Custom {
        name: "name",
        input: "input",
    }
}

/// One element of the `tool_calls` of a delta. Its texts are as they stand in JSON, without quotes.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) raw: &'a str,
    pub(super) call: Call<'a>,
    pub(super) function: Function<'a>,
    /// It is of a custom tool, whose input is any text.
    pub(super) is_custom: bool,
    /// The provider's index.
    pub(super) index: Option<u64>,
    /// The provider's id; empty if there is none.
    pub(super) id: &'a str,
    /// The name or a part of it; empty if there is none.
    pub(super) name: &'a str,
    /// A part of the arguments, or of a custom tool's input; empty if there is none.
    pub(super) arguments: Cow<'a, str>,
    /// The field with the name.
    pub(super) name_field: Raw<'a>,
    /// The field with the arguments.
    pub(super) text: Raw<'a>,
}

impl<'a> Piece<'a> {
    pub(super) fn read(raw: &'a str) -> Self {
        let call = Call::read(raw);
        let function = Function::read(call.function.value().unwrap_or_default());
        let custom = Custom::read(call.custom.value().unwrap_or_default());
        let is_custom = call.custom.value().is_some() && call.function.value().is_none();
        let (name, text) =
            if is_custom { (custom.name, custom.input) } else { (function.name, function.arguments) };
        let arguments = match (text.word(), text.value()) {
            (Some(word), _) => Cow::Borrowed(word),
            // Some vendors send the arguments as an object. An empty one may only announce them.
            (None, Some(json)) if text.is_filled() => Cow::Owned(unquoted(&quoted(json)).to_owned()),
            _ => Cow::Borrowed(""),
        };
        let number = || call.id.0.filter(|_| call.id.is_whole());
        Self {
            raw,
            index: call.index.0.filter(|_| call.index.is_whole()).and_then(|raw| raw.parse().ok()),
            id: call.id.word().or_else(number).unwrap_or_default(),
            name: name.word().unwrap_or_default(),
            name_field: name,
            call,
            function,
            is_custom,
            arguments,
            text,
        }
    }

    /// The field with the name and the arguments.
    pub(super) fn body(&self) -> Raw<'a> {
        if self.is_custom {
            self.call.custom
        } else {
            self.call.function
        }
    }

    /// The fingerprint of its id; 0 if it has none.
    pub(super) fn id_print(&self) -> u64 {
        print(self.id)
    }

    /// Whether it is the first piece of a call as OpenAI's schema has it, without arguments.
    pub(super) fn begins_as_openais(&self) -> bool {
        matches!(self.call.kind.word(), Some("function" | "custom"))
            && self.call.id.word().is_some_and(|id| !id.is_empty())
            && matches!(self.text.word(), Some("" | "{}"))
    }

    /// Whether it has arguments that are not blank.
    pub(super) fn has_arguments(&self) -> bool {
        !substance(&self.arguments).is_empty()
    }

    /// Whether its arguments are whole by themselves.
    pub(super) fn is_whole(&self) -> bool {
        match self.text.text() {
            Some(text) => serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(),
            None => self.has_arguments(),
        }
    }

    /// The fields that OpenAI's schema does not have, each with a comma before it: those of the call and those of its function.
    pub(super) fn others(&self) -> [String; 2] {
        let call = others(self.raw, &["index", "id", "type", "function", "custom"]);
        [call, others(self.body().value().unwrap_or_default(), &["name", "arguments", "input"])]
    }
}

/// The fingerprint of a text; 0 if it is empty.
pub(super) fn print(text: &str) -> u64 {
    if text.is_empty() {
        0
    } else {
        fingerprint([text])
    }
}

fn others(object: &str, known: &[&str]) -> String {
    let mut found = String::new();
    for (name, member, _) in members(object) {
        if !known.iter().any(|known| known.as_bytes() == name) {
            found.push(',');
            found.push_str(object.get(member).unwrap_or_default());
        }
    }
    found
}

/// A text between the quotes of JSON without the white space around it, escaped or not.
pub(super) fn substance(text: &str) -> &str {
    const BLANKS: [&str; 3] = ["\\n", "\\r", "\\t"];
    let mut text = text.trim_ascii();
    while let Some(rest) = BLANKS.iter().find_map(|blank| text.strip_prefix(blank)) {
        text = rest.trim_ascii_start();
    }
    while let Some(rest) = BLANKS.iter().find_map(|blank| text.strip_suffix(blank)) {
        text = rest.trim_ascii_end();
    }
    text
}

fn unquoted(json: &str) -> &str {
    Raw(Some(json)).word().unwrap_or_default()
}

/// A piece of a tool call that only adds to its arguments.
pub(super) fn more(place: usize, arguments: &str) -> String {
    let place = place.to_string();
    ["{\"index\":", &place, ",\"function\":{\"arguments\":\"", arguments, "\"}}"].concat()
}

/// What has come of a call that has not begun for the client. The texts are as they stand in JSON, without quotes.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) name: String,
    arguments: String,
    /// An empty object came as its arguments, which are whole if nothing follows.
    announced: bool,
    others: [String; 2],
    chunk: Option<Chunk>,
}

/// The chunk that began a call.
#[derive(Debug)]
struct Chunk {
    json: String,
    /// The place of the call in it.
    call: Range<usize>,
    /// What would be written in that place, if nothing else were to come.
    alike: String,
}

impl Kept {
    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let chunk = self.chunk.as_ref().map_or(0, |chunk| chunk.json.len() + chunk.alike.len());
        let texts = [&self.id, &self.name, &self.arguments].into_iter().chain(&self.others);
        texts.map(String::len).fold(chunk, usize::saturating_add)
    }

    /// Adds a piece of the name. Vendors send the next piece, or the same again, or all that was sent so far and more.
    pub(super) fn add_name(&mut self, piece: &str) {
        if piece.starts_with(&self.name) {
            piece.clone_into(&mut self.name);
        } else {
            self.name.push_str(piece);
        }
    }

    /// Keeps what else is in a piece, but not an empty object that only `announces` the arguments.
    pub(super) fn add(&mut self, piece: &Piece<'_>, announces: bool) {
        self.announced |= announces;
        // What is blank is no part of any arguments. A custom tool's input is any text.
        if piece.is_custom || !self.arguments.is_empty() || (piece.has_arguments() && !announces) {
            self.arguments.push_str(&piece.arguments);
        }
        for (known, more) in self.others.iter_mut().zip(piece.others()) {
            if !known.contains(&more) {
                known.push_str(&more);
            }
        }
    }

    /// Its arguments, if they are an empty object and nothing follows.
    pub(super) fn announced(&self) -> &'static str {
        if self.announced {
            "{}"
        } else {
            ""
        }
    }

    /// Keeps the chunk that began the call. `index` is the call's index in it, and `call` its place.
    pub(super) fn set_chunk(&mut self, json: &str, call: Range<usize>, index: usize, piece: &Piece<'_>) {
        let alike = self.written(index, &self.id, &piece.arguments, piece.is_custom);
        // A line feed would end the data line. Between the tokens of JSON a space means the same.
        self.chunk = Some(Chunk { json: json.replace('\n', " "), call, alike });
    }

    /// The first piece that the client gets: with the arguments that were kept, or with `arguments` if there are none.
    pub(super) fn written(&self, place: usize, id: &str, arguments: &str, is_custom: bool) -> String {
        let (kind, text) = if is_custom { ("custom", "input") } else { ("function", "arguments") };
        let [of_call, of_function] = &self.others;
        let arguments = if self.arguments.is_empty() { arguments } else { &self.arguments };
        let place = place.to_string();
        let head = ["{\"index\":", &place, ",\"id\":\"", id, "\",\"type\":\"", kind, "\",\""].concat();
        let body = ["\":{\"name\":\"", &self.name, "\",\"", text, "\":\"", arguments, "\""].concat();
        [&head, kind, &body, of_function, "}", of_call, "}"].concat()
    }

    /// The chunk that was kept, with this first piece in it; `None` if no chunk was kept.
    pub(super) fn into_chunk(self, piece: &str) -> Option<String> {
        let Chunk { mut json, call, alike } = self.chunk?;
        if piece != alike {
            let (start, end) = (json.get(..call.start)?, json.get(call.end..)?);
            json = [start, piece, end].concat();
        }
        Some(json)
    }
}
