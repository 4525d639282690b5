//! What the filter needs to know of a request: path, model, stream, size. No tree is built of the body.
//!
//! The body is run through once: the JSON is checked, the top-level `model` and `stream` are kept with their place, and
//! everything else is skipped. Changing the model later is a splice at that place.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::report::Rejection;

/// The endpoint that is understood; a route's path ends with it.
pub const CHAT: &str = "/chat/completions";

/// The client asks for `complete` with this header on one request.
pub const STREAM_OPTION: &str = "x-shunt-stream";

/// The head of a request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The path without the query.
    pub path: String,
    /// The client asked, with `x-shunt-stream: complete`, to get its stream only when it is complete.
    pub complete: bool,
}

impl Head {
    /// The path of a `:path` header: without the query, which may carry a client's secret and never crosses.
    pub fn path(header: &str) -> &str {
        header.split_once(['?', '#']).map_or(header, |(path, _)| path)
    }

    /// Reads the value of [`STREAM_OPTION`]: whether the stream is wanted complete.
    ///
    /// # Errors
    /// A [`Rejection`] for a word that does not exist.
    pub fn option(value: Option<&[u8]>) -> Result<bool, Rejection> {
        match value {
            None | Some(b"first_token") => Ok(false),
            Some(b"complete") => Ok(true),
            Some(other) => Err(Rejection::option(STREAM_OPTION, &String::from_utf8_lossy(other))),
        }
    }
}

/// What the body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The model that the client asks for.
    pub model: String,
    /// The place of the model's JSON text in the body, quotes included.
    pub model_span: Range<usize>,
    /// `"stream": true`.
    pub stream: bool,
    /// The size of the body, in bytes.
    pub len: usize,
    /// The beginning of the body to the end of the model, if it is short: what a splice needs, without asking the host.
    pub prefix: Option<Box<[u8]>>,
}

/// Up to here it is cheaper to keep the beginning of a body than to ask the host for it again.
const SHORT_PREFIX: usize = 4096;

impl Body {
    /// Reads the body of a chat request.
    ///
    /// # Errors
    /// A [`Rejection`] to send: not JSON, no model, or a key that decides and is there twice.
    pub fn read(body: &[u8]) -> Result<Self, Rejection> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let fields = json
            .deserialize_map(Fields)
            .and_then(|fields| json.end().map(|()| fields))
            .map_err(|error| Rejection::body(&error.to_string()))?;
        let raw = fields.model.ok_or_else(Rejection::no_model)?.get();
        let model: String = serde_json::from_str(raw).map_err(|_| Rejection::no_model())?;
        if model.is_empty() {
            return Err(Rejection::no_model());
        }
        // The raw value borrows from the body, so its place is the distance between the two.
        let start = (raw.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
        let stream = match fields.stream.map(RawValue::get) {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => return Err(Rejection::stream()),
        };
        let model_span = start..start.saturating_add(raw.len());
        let prefix = body.get(..model_span.end).filter(|prefix| prefix.len() <= SHORT_PREFIX).map(Box::from);
        Ok(Self { model, model_span, stream, len: body.len(), prefix })
    }
}

/// The top-level keys that decide something. A second one is an error: JSON readers disagree on which of two counts, so
/// one of them would be served another model than the one that was checked.
struct Fields;

#[derive(Default)]
struct Found<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        use serde::de::Error;
        let mut found = Found::default();
        while let Some(key) = map.next_key::<Key>()? {
            let (slot, name) = match key {
                Key::Model => (&mut found.model, "model"),
                Key::Stream => (&mut found.stream, "stream"),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if slot.is_some() {
                return Err(A::Error::custom(format_args!("the key \"{name}\" is there twice")));
            }
            *slot = Some(map.next_value()?);
        }
        Ok(found)
    }
}

/// A key, compared without being copied.
enum Key {
    Model,
    Stream,
    Other,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "model" => Key::Model,
                    "stream" => Key::Stream,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        for (text, model, stream) in [
            (r#"{"model":"a","messages":[]}"#, "a", false),
            (
                r#" { "messages" : [{"model":"no","stream":true}] , "model" : "a\u0062" , "stream" : true } "#,
                "ab",
                true,
            ),
            (r#"{"stream":null,"model":"é"}"#, "é", false),
            (r#"{"m\u006fdel":"escaped key","stream":false}"#, "escaped key", false),
        ] {
            let body = Body::read(text.as_bytes()).unwrap();
            assert_eq!((body.model.as_str(), body.stream), (model, stream), "{text}");
            let span = text.get(body.model_span.clone()).unwrap();
            assert_eq!(serde_json::from_str::<String>(span).unwrap(), model, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_told_with_its_reason() {
        for (text, status, words) in [
            ("", 400, "EOF"),
            ("<xml>", 400, "line 1 column 1"),
            ("[]", 400, "JSON object"),
            (r#"{"model":"a""#, 400, "EOF"),
            (r#"{"model":"a"} x"#, 400, "trailing"),
            (r#"{"messages":[]}"#, 400, "model"),
            (r#"{"model":5}"#, 400, "model"),
            (r#"{"model":""}"#, 400, "model"),
            (r#"{"model":"a","model":"b"}"#, 400, "twice"),
            (r#"{"model":"a","stream":"yes"}"#, 400, "stream"),
            (r#"{"model":"a","stream":true,"stream":false}"#, 400, "twice"),
        ] {
            let rejection = Body::read(text.as_bytes()).unwrap_err();
            assert_eq!(rejection.status, status, "{text}");
            assert!(rejection.message.contains(words), "{text}: {}", rejection.message);
        }
    }

    #[test]
    fn deep_nesting_and_bytes_that_are_not_utf8_pass() {
        let deep = format!(r#"{{"x":{}{},"model":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Body::read(deep.as_bytes()).unwrap().model, "a");
        let bytes = [&b"{\"messages\":\""[..], &[0xFF, 0xFE], b"\",\"model\":\"a\"}"].concat();
        assert_eq!(Body::read(&bytes).unwrap().model, "a");
    }
}
