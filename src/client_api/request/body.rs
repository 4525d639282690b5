//! The body of a request, read in one scan.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::capabilities::features_of_options;
use super::input::{Input, Parts};
use super::limits::{answer_limits, AnswerLimit};
use super::Endpoint;
use crate::bytes::json::{fields, place, Raw};
use crate::client_api::errors::Rejection;

/// The values that were read from a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The model that the client requests.
    pub model: String,
    /// The byte range of the model's JSON text in the body, including the quotes.
    pub model_span: Range<usize>,
    /// The request has `"stream": true`.
    pub stream: bool,
    /// The byte range and the JSON text of `stream_options`.
    pub stream_options: Option<(Range<usize>, String)>,
    /// The top-level entries that a provider's dialect may change, in the order of the body.
    pub entries: Vec<Entry>,
    /// The limit on output tokens (the largest of `max_tokens` and its later names) multiplied by the number of choices.
    pub max_output: Option<u64>,
    /// The limits of the answer that the request names. They are read only if their entries are recorded.
    pub limits: Vec<AnswerLimit>,
    /// The number of choices that the client requests (`n`).
    pub choices: u64,
    /// The number of answers that are written and paid: for each prompt as many as the client requests (`n`), or more of which it gets
    /// the best (`best_of`).
    pub answers: u64,
    /// The client requests that the response is written in the background (`background` of the Responses API).
    pub background: bool,
    /// The body itself, and which parts of it are input of the model.
    pub input: Rc<Input>,
    /// The id of the stored object that the request continues: a response (`previous_response_id`) or a `conversation`. Only the
    /// provider that stores it can serve the request.
    pub stored: Option<String>,
    /// The size of the body, in bytes.
    pub len: usize,
}

/// The id of a stored object, which is either a string or an object with an `id`.
fn id(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    let [inner] = fields(raw, &["id"]);
    let id: String = serde_json::from_str(inner.value().unwrap_or(raw)).ok()?;
    (!id.is_empty()).then_some(id)
}

/// Reads a number in any notation, such as `2e4` or `"20000"`: some providers accept these, so they must count here, too.
pub(super) fn number(text: &str) -> Option<u64> {
    let number: f64 = serde_json::from_str(text.trim_matches('"')).ok()?;
    (number >= 0.0).then_some(number as u64)
}

fn is_larger(one: &RawValue, other: &RawValue) -> bool {
    number(one.get()) > number(other.get())
}

/// The most choices of an answer, and answers of which the client gets the best. OpenAI allows no more.
const MOST_CHOICES: u64 = 128;
/// The most prompts of one request. OpenAI allows no more.
const MOST_PROMPTS: usize = 2048;

/// The number of prompts of a text completion. A list of numbers is a single prompt.
fn prompts(raw: Option<&RawValue>) -> u64 {
    let list = Raw(raw.map(RawValue::get)).elements();
    let is_tokens = list.first().is_some_and(|first| !first.starts_with(['"', '[']));
    if is_tokens {
        1
    } else {
        list.len().clamp(1, MOST_PROMPTS) as u64
    }
}

/// A top-level key and its value. All positions are byte offsets into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// The number of top-level entries before it.
    pub number: usize,
    /// The byte range of the key, including the quotes.
    pub key: Range<usize>,
    /// The byte range of the value.
    pub value: Range<usize>,
    /// The position of the comma before the key, if there is one.
    pub comma_before: Option<usize>,
    /// The position of the comma after the value, if there is one.
    pub comma_after: Option<usize>,
}

impl Body {
    /// Reads the body of a request and keeps it. `names` are the keys whose entries are recorded in `entries`.
    ///
    /// # Errors
    /// A [`Rejection`] to send if the body is not JSON, has no model, or repeats a key that must be unique.
    pub fn read(body: impl Into<Vec<u8>>, endpoint: Endpoint, names: &[String]) -> Result<Self, Rejection> {
        let body = String::from_utf8(body.into())
            .map_err(|error| Rejection::body(&format!("not UTF-8: {}", error.utf8_error())))?;
        let mut json = serde_json::Deserializer::from_str(&body);
        let found = json
            .deserialize_map(Fields { body: body.as_bytes(), names, endpoint })
            .and_then(|found| json.end().map(|()| found))
            .map_err(|error| Rejection::body(&error.to_string()))?;
        let raw = found.model.ok_or_else(Rejection::no_model)?.get();
        let model: String = serde_json::from_str(raw).map_err(|_| Rejection::no_model())?;
        if model.is_empty() {
            return Err(Rejection::no_model());
        }
        let stream = match found.stream.map(RawValue::get) {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => return Err(Rejection::stream()),
        };
        let at = |raw: &RawValue| place(body.as_bytes(), raw.get());
        let number = |raw: &RawValue| number(raw.get());
        let count = |raw: Option<&RawValue>| raw.and_then(number).unwrap_or(1).clamp(1, MOST_CHOICES);
        let choices = count(found.n);
        let prompts = if endpoint == Endpoint::Completions { prompts(found.input) } else { 1 };
        let [text, tools, instructions] =
            [found.input, found.tools, found.instructions].map(|raw| raw.map(at).unwrap_or_default());
        let [format, modalities, offered] =
            [found.format, found.modalities, found.tools].map(|raw| raw.map(RawValue::get));
        let options = features_of_options(format, modalities, offered);
        Ok(Self {
            model,
            model_span: place(body.as_bytes(), raw),
            stream: stream && endpoint != Endpoint::Embeddings,
            stream_options: found.stream_options.map(|raw| (at(raw), raw.get().to_owned())),
            max_output: found.max_output.and_then(number).map(|most| most.saturating_mul(choices)),
            choices,
            limits: answer_limits(&body, &found.entries, endpoint),
            answers: choices.max(count(found.best_of)) * prompts,
            background: found.background.is_some_and(|raw| raw.get() == "true"),
            entries: found.entries,
            stored: id(found.previous).or_else(|| id(found.conversation)),
            len: body.len(),
            input: Rc::new(Input::new(body, Parts { text, tools, instructions }, endpoint, options)),
        })
    }

    /// Frees the text of the body, after computing everything that is read from it later.
    pub fn drop_text(&mut self) {
        Rc::make_mut(&mut self.input).drop_text();
    }

    /// Whether the client requests the usage of its stream (`stream_options.include_usage`).
    pub fn wants_usage(&self) -> bool {
        let options = self.stream_options.as_ref();
        options.is_some_and(|(_, raw)| {
            let [usage] = fields(raw, &["include_usage"]);
            usage.0 == Some("true")
        })
    }
}

/// Reads the top-level keys that the gateway uses. Some of them must be unique: JSON parsers disagree on which of two equal
/// keys counts, so the provider might serve another model than the one that the gateway checked.
struct Fields<'a> {
    body: &'a [u8],
    names: &'a [String],
    endpoint: Endpoint,
}

#[derive(Default)]
struct Found<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    /// `messages`, `prompt` or `input`.
    input: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    /// The counterpart of a chat's system message in the Responses API.
    instructions: Option<&'a RawValue>,
    max_output: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    best_of: Option<&'a RawValue>,
    background: Option<&'a RawValue>,
    /// `response_format`, or `text` of the Responses API.
    format: Option<&'a RawValue>,
    modalities: Option<&'a RawValue>,
    previous: Option<&'a RawValue>,
    conversation: Option<&'a RawValue>,
    entries: Vec<Entry>,
}

/// A limit on entries that a dialect changes. Only a request that repeats keys reaches it.
const MAX_ENTRIES: usize = 256;

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        use serde::de::Error;
        let mut found = Found::default();
        let mut number = 0_usize;
        let mut other = None;
        let reader = KeyReader { names: self.names, endpoint: self.endpoint };
        while let Some(KeyMatch { key, own }) = map.next_key_seed(reader)? {
            let position = number;
            number += 1;
            let slot = match key {
                Key::Model => &mut found.model,
                Key::Stream => &mut found.stream,
                Key::StreamOptions => &mut found.stream_options,
                Key::Input => &mut found.input,
                Key::Tools => &mut found.tools,
                Key::Instructions => &mut found.instructions,
                Key::MaxOutput => &mut found.max_output,
                Key::N => &mut found.n,
                Key::BestOf => &mut found.best_of,
                Key::Background => &mut found.background,
                Key::Format => &mut found.format,
                Key::Modalities => &mut found.modalities,
                Key::Previous => &mut found.previous,
                Key::Conversation => &mut found.conversation,
                Key::Other if own.is_some() => &mut other,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if let Some(name) = key.must_be_unique(self.endpoint).filter(|_| slot.is_some()) {
                return Err(A::Error::custom(format_args!("the key {name:?} occurs twice")));
            }
            let value: &RawValue = map.next_value()?;
            // Which of several limits counts depends on the provider.
            let is_less = slot.is_some_and(|known| matches!(key, Key::MaxOutput) && is_larger(known, value));
            if !is_less {
                *slot = Some(value);
            }
            if let Some(key) = own {
                if found.entries.len() >= MAX_ENTRIES {
                    return Err(A::Error::custom(format_args!("the key {key:?} occurs too often")));
                }
                found.entries.push(self.entry(key, position, value));
            }
        }
        Ok(found)
    }
}

impl Fields<'_> {
    fn entry(&self, key: &str, number: usize, value: &RawValue) -> Entry {
        let inner = place(self.body, key);
        // With the quotes, which stand outside the text of the key.
        let key_place = inner.start.saturating_sub(1)..inner.end + 1;
        let value = place(self.body, value.get());
        let before = self.body.get(..key_place.start).unwrap_or_default();
        let after = self.body.get(value.end..).unwrap_or_default();
        let comma_before = before.iter().rposition(|byte| !byte.is_ascii_whitespace());
        let comma_after = after.iter().position(|byte| !byte.is_ascii_whitespace());
        Entry {
            name: key.to_owned(),
            number,
            comma_before: comma_before.filter(|at| before.get(*at) == Some(&b',')),
            comma_after: comma_after.filter(|at| after.get(*at) == Some(&b',')).map(|at| at + value.end),
            key: key_place,
            value,
        }
    }
}

/// A key that was read, without copying it.
struct KeyMatch<'de> {
    key: Key,
    /// The text of the key, if its entry is to be recorded.
    own: Option<&'de str>,
}

/// The top-level keys that the gateway uses.
#[derive(Clone, Copy)]
enum Key {
    Model,
    Stream,
    StreamOptions,
    Input,
    Tools,
    Instructions,
    MaxOutput,
    N,
    BestOf,
    Background,
    Format,
    Modalities,
    Previous,
    Conversation,
    Other,
}

impl Key {
    fn of(key: &str, endpoint: Endpoint) -> Self {
        match key {
            "model" => Self::Model,
            "stream" => Self::Stream,
            "stream_options" => Self::StreamOptions,
            key if key == input(endpoint) => Self::Input,
            "tools" => Self::Tools,
            "instructions" if endpoint == Endpoint::Responses => Self::Instructions,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Self::MaxOutput,
            "n" => Self::N,
            "best_of" if endpoint == Endpoint::Completions => Self::BestOf,
            "background" if endpoint == Endpoint::Responses => Self::Background,
            "response_format" if endpoint != Endpoint::Responses => Self::Format,
            "text" if endpoint == Endpoint::Responses => Self::Format,
            "modalities" => Self::Modalities,
            "previous_response_id" if endpoint == Endpoint::Responses => Self::Previous,
            "conversation" if endpoint == Endpoint::Responses => Self::Conversation,
            _ => Self::Other,
        }
    }

    /// The name of the key, if it is one that must not be repeated.
    const fn must_be_unique(self, endpoint: Endpoint) -> Option<&'static str> {
        match self {
            Self::Model => Some("model"),
            Self::Stream => Some("stream"),
            Self::StreamOptions => Some("stream_options"),
            Self::Input => Some(input(endpoint)),
            _ => None,
        }
    }
}

/// The key of the model's input at an endpoint. The same names mean something else at other endpoints: at the Responses API,
/// for example, `input` is the question and `prompt` names a template.
const fn input(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "messages",
        Endpoint::Completions => "prompt",
        Endpoint::Embeddings | Endpoint::Responses => "input",
    }
}

#[derive(Clone, Copy)]
struct KeyReader<'a> {
    names: &'a [String],
    endpoint: Endpoint,
}

impl<'de> DeserializeSeed<'de> for KeyReader<'_> {
    type Value = KeyMatch<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KeyMatch<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyReader<'_> {
    type Value = KeyMatch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<KeyMatch<'de>, E> {
        let own = self.names.iter().any(|name| name == key).then_some(key);
        Ok(KeyMatch { key: Key::of(key, self.endpoint), own })
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<KeyMatch<'de>, E> {
        if self.names.iter().any(|name| name == key) {
            // The position of an escaped key is unknown, so a dialect could not remove or rename it for its provider.
            return Err(E::custom(format_args!("the key {key:?} is written with escapes")));
        }
        Ok(KeyMatch { key: Key::of(key, self.endpoint), own: None })
    }
}

#[cfg(test)]
mod tests;
