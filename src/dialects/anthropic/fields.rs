//! JSON objects read and written field by field, each value as its own text.
//!
//! A tree would sort the properties of a schema, and models write the properties of an answer in the schema's order:
//! a reasoning that is asked for before a verdict must stay before it. Values that only pass through are not decoded.
//!
//! What is called from many places is kept out of line: inlined everywhere, it would double this module.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of one object, borrowed from its text.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// `None` if the text is no JSON object.
    #[inline(never)]
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The text of a field, unless it is absent or null. Of several with the same name the last one counts.
    #[inline(never)]
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let (_, raw) = self.0.iter().rfind(|(key, _)| key == name)?;
        Some(raw.get()).filter(|raw| *raw != "null")
    }

    /// The fields of a field that is an object.
    #[inline(never)]
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.get(name)?.as_bytes())
    }

    /// A string; empty if it is absent or something else. `None` if it cannot be decoded (half of a surrogate pair).
    #[inline(never)]
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(json) if json.starts_with('"') => serde_json::from_str(json).ok(),
            _ => Some(String::new()),
        }
    }

    /// A whole number, if it is one.
    #[inline(never)]
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The names and texts in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), raw.get()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(InOrder).map(Fields)
    }
}

/// The elements of a list, each as its own text; `None` if the text is no list. The text must be known to be JSON, as
/// the value of a field is; of anything else the pieces are wrong, but still pieces of it.
#[inline(never)]
pub(super) fn elements(json: &str) -> Option<Vec<&str>> {
    let inner = json.strip_prefix('[')?.strip_suffix(']')?;
    let mut found = Vec::new();
    let (mut start, mut depth, mut in_text, mut escaped) = (0, 0_usize, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(inner.get(start..at)?.trim_ascii());
                start = at.saturating_add(1);
            }
            _ => {}
        }
    }
    let last = inner.get(start..)?.trim_ascii();
    if !(found.is_empty() && last.is_empty()) {
        found.push(last);
    }
    Some(found)
}

/// Writes an object field by field, or a list element by element.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
    closing: char,
}

impl Writer {
    #[inline(never)]
    pub(super) fn object() -> Self {
        Self { out: "{".to_owned(), closing: '}' }
    }

    #[inline(never)]
    pub(super) fn list() -> Self {
        Self { out: "[".to_owned(), closing: ']' }
    }

    /// A field of an object, its value in JSON.
    #[inline(never)]
    pub(super) fn field(&mut self, name: &str, json: &str) {
        self.element(&quoted(name));
        self.out.push(':');
        self.out.push_str(json);
    }

    /// A field that is a string.
    #[inline(never)]
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.field(name, &quoted(text));
    }

    /// A field that is a number.
    #[inline(never)]
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.field(name, &number.to_string());
    }

    /// An element of a list, in JSON.
    #[inline(never)]
    pub(super) fn element(&mut self, json: &str) {
        if !self.is_empty() {
            self.out.push(',');
        }
        self.out.push_str(json);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.out.len() <= 1
    }

    /// What is written so far, without an end.
    pub(super) fn open(self) -> String {
        self.out
    }

    #[inline(never)]
    pub(super) fn finish(mut self) -> String {
        self.out.push(self.closing);
        self.out
    }
}

/// A text as a JSON string.
#[inline(never)]
pub(super) fn quoted(text: &str) -> String {
    // A text: this cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_parted_by_the_commas_of_their_list_only() {
        for (list, expected) in [
            ("[]", &[][..]),
            ("[ ]", &[]),
            ("[1]", &["1"]),
            (r#"[ "a,b" , [1,2],{"c":[3,"]"]} ]"#, &[r#""a,b""#, "[1,2]", r#"{"c":[3,"]"]}"#]),
            (r#"["\"","\\",","]"#, &[r#""\"""#, r#""\\""#, r#"",""#]),
        ] {
            assert_eq!(elements(list).unwrap(), expected, "{list}");
            let tree: Vec<serde_json::Value> = serde_json::from_str(list).unwrap();
            assert_eq!(tree.len(), expected.len(), "{list}");
        }
        assert_eq!(elements("{}"), None);
    }

    #[test]
    fn a_field_is_the_last_of_its_name_and_null_is_none() {
        let fields = Fields::read(br#"{"a":1,"b":null,"a": [2] }"#).unwrap();
        assert_eq!(fields.get("a"), Some("[2]"));
        assert_eq!(fields.get("b"), None);
        assert_eq!(fields.text("c").unwrap(), "");
        assert_eq!(Fields::read(br#"{"a":"\ud83d"}"#).unwrap().text("a"), None);
        for text in ["", "[]", "{", "{} {}", "null"] {
            assert!(Fields::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = Writer::object();
        out.text("a\"", "\n");
        out.number("b", 3);
        assert_eq!(out.finish(), r#"{"a\"":"\n","b":3}"#);
        let mut out = Writer::list();
        assert!(out.is_empty());
        out.element("1");
        out.element("{}");
        assert_eq!(out.finish(), "[1,{}]");
    }
}
