//! Reads a JSON document value by value and collects every problem, each with its path.
//!
//! This is not done with `serde_json::Value`, because that silently keeps the last of two equal keys, nor with a typed
//! deserialisation, because that stops at its first error. Here an object is read with the list of its known keys, and every
//! other key is a problem.
//!
//! The readers are never inlined. Each is called from dozens of places, once per load, and the copies would be a fiftieth of the
//! module's size.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{did_you_mean, Problem};
use crate::base::clock::{parse_duration, NotADuration};
use crate::bytes::json::Writer;

/// A JSON value. Objects keep the order of their keys, and keys that appear twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Json::List(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Json::Object(entries))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl Json {
    /// The value as JSON text.
    pub(super) fn to_json(&self) -> String {
        let mut out = Writer::default();
        self.write(&mut out);
        out.into_text()
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Null => out.value("null"),
            Self::Bool(value) => out.value(if *value { "true" } else { "false" }),
            Self::Number(value) => out.value(&number(*value)),
            Self::Text(text) => out.string(text),
            Self::List(values) => {
                out.open_list();
                values.iter().for_each(|value| value.write(out));
                out.close_list();
            }
            Self::Object(entries) => {
                out.open_object();
                for (key, value) in entries {
                    out.key(key);
                    value.write(out);
                }
                out.close_object();
            }
        }
    }
}

impl fmt::Display for Json {
    /// The value for a message: in full if it is short, else only its kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Text(text) if text.chars().count() > LONGEST_SHOWN => f.write_str("a long text"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

/// A number as JSON writes it. The standard library's formatting of floats would be a tenth of the module's size.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return (value as i64).to_string();
    }
    serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// The number of characters of a text that a message shows.
const LONGEST_SHOWN: usize = 60;

/// Collects the problems while the document is read.
#[derive(Debug, Default)]
pub(super) struct Sink(RefCell<Vec<Problem>>);

impl Sink {
    #[inline(never)]
    pub(super) fn report(&self, path: &str, what: impl Into<String>) {
        self.0.borrow_mut().push(Problem { path: path.to_owned(), what: what.into() });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A value with its path, and with the sink for its problems.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) json: &'a Json,
    pub(super) path: String,
    pub(super) sink: &'a Sink,
}

impl<'a> Node<'a> {
    /// Reports that `what` was expected here, and what was found.
    #[inline(never)]
    pub(super) fn expected(&self, what: &str) {
        // This repeats the value. The reader of secrets writes its own message, because a literal key must not be repeated.
        self.sink.report(&self.path, format!("expected {what}, found {}", self.json));
    }

    #[inline(never)]
    pub(super) fn report(&self, what: impl Into<String>) {
        self.sink.report(&self.path, what);
    }

    #[inline(never)]
    pub(super) fn text(&self, what: &str) -> Option<&'a str> {
        match self.json {
            Json::Text(text) if !text.is_empty() => Some(text),
            _ => {
                self.expected(what);
                None
            }
        }
    }

    #[inline(never)]
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.json {
            Json::Bool(value) => Some(*value),
            _ => {
                self.expected("true or false");
                None
            }
        }
    }

    /// A duration between two bounds.
    #[inline(never)]
    pub(super) fn duration(&self, least: Duration, most: Duration) -> Option<Duration> {
        let Json::Text(text) = self.json else {
            self.expected(&NotADuration.to_string());
            return None;
        };
        match parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Some(duration),
            Ok(_) => {
                self.expected(&format!("a duration from {} to {}", shown(least), shown(most)));
                None
            }
            Err(error) => {
                self.expected(&error.to_string());
                None
            }
        }
    }

    /// A whole number between two bounds.
    #[inline(never)]
    pub(super) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        match self.json {
            Json::Number(number)
                if number.fract() == 0.0 && (least as f64..=most as f64).contains(number) =>
            {
                Some(*number as u64)
            }
            _ => {
                self.expected(&format!("a whole number from {least} to {most}"));
                None
            }
        }
    }

    /// A number between two bounds.
    #[inline(never)]
    pub(super) fn number(&self, least: f64, most: f64) -> Option<f64> {
        match self.json {
            Json::Number(number) if (least..=most).contains(number) => Some(*number),
            _ => {
                self.expected(&format!("a number from {} to {}", number(least), number(most)));
                None
            }
        }
    }

    /// The value of one of a few words.
    #[inline(never)]
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let place = self.one_of(&names)?;
        words.get(place).map(|(_, value)| *value)
    }

    /// The index of one of a few names.
    #[inline(never)]
    pub(super) fn one_of(&self, names: &[&str]) -> Option<usize> {
        let Json::Text(text) = self.json else {
            self.expected(&format!("one of {}", list(names)));
            return None;
        };
        let found = names.iter().position(|name| name == text);
        if found.is_none() {
            self.report(unknown(text, names));
        }
        found
    }

    /// Whether this is a list. An empty object is one, too: Lua has one empty table for both, and APISIX writes it as an object.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.json, Json::List(_)) || matches!(self.json, Json::Object(entries) if entries.is_empty())
    }

    /// The elements of a list.
    #[inline(never)]
    pub(super) fn list(&self, what: &str) -> Vec<Node<'a>> {
        let values: &[Json] = match self.json {
            Json::List(values) => values,
            _ => &[],
        };
        if !self.is_list() {
            self.expected(what);
        }
        let element = |(index, json)| Node { json, path: format!("{}[{index}]", self.path), sink: self.sink };
        values.iter().enumerate().map(element).collect()
    }

    /// The entries of an object whose keys are the user's choice.
    #[inline(never)]
    pub(super) fn entries(&self, what: &str) -> Vec<(&'a str, Node<'a>)> {
        let Json::Object(entries) = self.json else {
            self.expected(what);
            return Vec::new();
        };
        let mut seen: Vec<&str> = Vec::new();
        let mut nodes = Vec::new();
        for (key, json) in entries {
            let node = Node { json, path: self.child_path(key), sink: self.sink };
            if seen.contains(&key.as_str()) {
                node.report("appears twice");
            } else {
                seen.push(key);
                nodes.push((key.as_str(), node));
            }
        }
        nodes
    }

    /// The member of an object with this key, without checking anything.
    #[inline(never)]
    pub(super) fn member(&self, key: &str) -> Option<&'a Json> {
        match self.json {
            Json::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, json)| json),
            _ => None,
        }
    }

    /// Reads an object that may have only these keys. What is not an object is reported and reads as an empty one.
    #[inline(never)]
    pub(super) fn object(&self, keys: &[&str]) -> Object<'a> {
        let entries = self.entries("an object");
        for (key, node) in entries.iter().filter(|(key, _)| !keys.contains(key)) {
            node.report(unknown(key, keys));
        }
        Object {
            entries,
            path: self.path.clone(),
            sink: self.sink,
            is_object: matches!(self.json, Json::Object(_)),
        }
    }

    #[inline(never)]
    fn child_path(&self, key: &str) -> String {
        // The user chose the key, so it may be long.
        let shown = match key.char_indices().nth(LONGEST_SHOWN) {
            Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
            None => key.to_owned(),
        };
        if self.path.is_empty() {
            shown
        } else {
            format!("{}.{shown}", self.path)
        }
    }
}

/// An object whose keys are known.
pub(super) struct Object<'a> {
    entries: Vec<(&'a str, Node<'a>)>,
    path: String,
    sink: &'a Sink,
    is_object: bool,
}

impl<'a> Object<'a> {
    /// The value of a key that may be absent.
    #[inline(never)]
    pub(super) fn optional(&self, key: &str) -> Option<&Node<'a>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| node)
    }

    /// The value of a key that must be present.
    #[inline(never)]
    pub(super) fn required(&self, key: &str, what: &str) -> Option<&Node<'a>> {
        let node = self.optional(key);
        // If this is no object, that has been reported, and messages about missing keys would add nothing.
        if node.is_none() && self.is_object {
            let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
            self.sink.report(&path, format!("expected {what}, found nothing"));
        }
        node
    }
}

/// A duration as the configuration writes it.
#[inline(never)]
pub(super) fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        millis if millis % 3_600_000 == 0 => format!("{}h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

#[inline(never)]
fn unknown(found: &str, known: &[&str]) -> String {
    let shown = Json::Text(found.to_owned());
    match did_you_mean(found, known) {
        Some(word) => format!("unknown {shown}; did you mean {word:?}?"),
        None => format!("unknown {shown}; expected one of {}", list(known)),
    }
}

#[inline(never)]
fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}
