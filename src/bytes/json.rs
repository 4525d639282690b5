//! Reading JSON in place: the few values that matter, as they stand in the text, without a tree and without a copy.
//!
//! A text is checked once ([`object`]); everything else here runs over text that is known to be valid, and so can pass
//! over what does not matter by its quotes and brackets alone.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr2, memchr3};
use serde_json::value::RawValue;

/// The text of one complete JSON object, without the white space around it; `None` if the bytes are anything else.
pub fn object(bytes: &[u8]) -> Option<&str> {
    let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
    Some(raw.get()).filter(|text| text.starts_with('{'))
}

/// The values of an object's fields, by their names; of a name that is there twice, the last. `text` is valid JSON; what is no
/// object has no fields.
pub fn fields<'a, const N: usize>(text: &'a str, names: &[&str; N]) -> [Raw<'a>; N] {
    let mut values = [Raw(None); N];
    collect(text, names, &mut values);
    values
}

fn collect<'a>(text: &'a str, names: &[&str], values: &mut [Raw<'a>]) {
    let mut cursor = Cursor(text.as_bytes());
    if cursor.peek() != Some(b'{') {
        return;
    }
    cursor.step();
    while cursor.next(b'}') {
        let key = cursor.string();
        cursor.peek();
        cursor.step();
        cursor.peek();
        let start = text.len().saturating_sub(cursor.0.len());
        let len = cursor.skip();
        let Some(key) = key else { return };
        let place = names.iter().position(|name| is_same(name.as_bytes(), key));
        if let Some(slot) = place.and_then(|place| values.get_mut(place)) {
            *slot = Raw(text.get(start..start.saturating_add(len)).map(str::trim_end));
        }
    }
}

/// Whether two names are the same; most differ in their length or their first letter already.
fn is_same(name: &[u8], key: &[u8]) -> bool {
    name.len() == key.len() && name.first() == key.first() && name == key
}

/// Where a value stands in the text that it was read from: it borrows from it, so that is the distance between the two.
pub fn place(base: &[u8], raw: &str) -> Range<usize> {
    let start = (raw.as_ptr() as usize).wrapping_sub(base.as_ptr() as usize);
    start..start.saturating_add(raw.len())
}

/// The elements of a list. `text` is valid JSON; what is no list has no elements.
pub fn elements(text: &str) -> Vec<&str> {
    let mut cursor = Cursor(text.as_bytes());
    let mut found = Vec::new();
    if cursor.peek() != Some(b'[') {
        return found;
    }
    cursor.step();
    while cursor.next(b']') {
        let start = text.len().saturating_sub(cursor.0.len());
        let len = cursor.skip();
        found.extend(text.get(start..start.saturating_add(len)).map(str::trim_end));
    }
    found
}

/// A text as a JSON string, with its quotes and escapes.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Declares a struct of the raw values of an object's fields.
macro_rules! raw_object {
    ($(#[$doc:meta])* struct $name:ident { $($(#[$note:meta])* $field:ident: $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        struct $name<'a> {
            $($(#[$note])* $field: $crate::bytes::json::Raw<'a>,)*
        }

        impl<'a> $name<'a> {
            /// Reads them out of valid JSON.
            fn read(text: &'a str) -> Self {
                let [$($field),*] = $crate::bytes::json::fields(text, &[$($key),*]);
                Self { $($field),* }
            }
        }
    };
}
pub(crate) use raw_object;

/// No answer has a quadrillion tokens, and one that says so must not spend a budget.
const MOST_COUNTED: u64 = 1_000_000_000_000_000;

/// A value that may be anything. Its text is not decoded unless somebody asks: vendors cut tokens within an emoji, and
/// half of a surrogate pair is no reason to throw an answer away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw<'a>(pub Option<&'a str>);

impl<'a> Raw<'a> {
    /// The JSON text, unless it is absent or null.
    pub fn value(&self) -> Option<&'a str> {
        self.0.filter(|raw| *raw != "null")
    }

    /// Whether it is there and not empty.
    pub fn is_filled(&self) -> bool {
        let Some(raw) = self.value() else { return false };
        let inner = |open, close| raw.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
        let empty_list =
            inner('[', ']').or_else(|| inner('{', '}')).is_some_and(|inner| inner.trim().is_empty());
        !empty_list && raw != "\"\""
    }

    /// What stands between the quotes, still escaped; anything else as it is.
    pub fn inner(&self) -> &'a [u8] {
        self.word().or(self.value()).unwrap_or_default().as_bytes()
    }

    /// A string's inner text, still escaped.
    pub fn word(&self) -> Option<&'a str> {
        self.0?.strip_prefix('"')?.strip_suffix('"')
    }

    /// A string, decoded; `None` for anything else, and for halves of surrogate pairs.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let word = self.word()?;
        if word.contains('\\') {
            return serde_json::from_str(self.0?).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(word))
    }

    /// Whether it is a number without a fraction or an exponent.
    pub fn is_whole(&self) -> bool {
        self.0.is_some_and(|raw| !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// A number that may have a fraction, which is cut off; none below zero, and none that counts nothing real.
    pub fn number(&self) -> Option<u64> {
        let raw = self.value()?;
        let number = || {
            serde_json::from_str::<f64>(raw).ok().filter(|number| (0.0..MOST_COUNTED as f64).contains(number))
        };
        let whole = raw.parse().ok().filter(|number| *number < MOST_COUNTED);
        whole.or_else(|| number().map(|number| number as u64))
    }

    /// The elements, if it is a list.
    pub fn elements(&self) -> Vec<&'a str> {
        self.value().map(elements).unwrap_or_default()
    }
}

/// The rest of a JSON text that is known to be valid. On one that is not it ends early, and never goes back.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next byte that is no white space.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        match self.0.first() {
            // Machines write JSON without white space.
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => {
                self.0 = self.0.trim_ascii_start();
                self.0.first().copied()
            }
        }
    }

    /// Passes one byte.
    pub fn step(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    /// Passes a comma; false, past `end`, if nothing more comes.
    pub fn next(&mut self, end: u8) -> bool {
        match self.peek() {
            Some(b',') => {
                self.step();
                self.peek().is_some()
            }
            Some(byte) if byte == end => {
                self.step();
                false
            }
            found => found.is_some(),
        }
    }

    /// The raw content of a string, which is passed.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let inner = self.0.strip_prefix(b"\"")?;
        let mut end = 0_usize;
        while let Some(found) = inner.get(end..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            end = end.saturating_add(found);
            if inner.get(end) == Some(&b'"') {
                self.0 = inner.get(end.saturating_add(1)..).unwrap_or_default();
                return inner.get(..end);
            }
            end = end.saturating_add(2);
        }
        self.0 = &[];
        Some(inner)
    }

    /// Passes one value; its length in bytes.
    pub fn skip(&mut self) -> usize {
        let first = self.peek();
        let before = self.0.len();
        match first {
            Some(b'"') => {
                self.string();
            }
            Some(open @ (b'{' | b'[')) => self.skip_nested(open, if open == b'{' { b'}' } else { b']' }),
            _ => {
                let end = self.0.iter().position(|byte| matches!(byte, b',' | b']' | b'}'));
                // At least one byte, so that every loop over values ends.
                self.0 = self.0.get(end.unwrap_or(before).max(1)..).unwrap_or_default();
            }
        }
        before.saturating_sub(self.0.len())
    }

    /// Brackets of one kind match each other, whatever the others do.
    fn skip_nested(&mut self, open: u8, close: u8) {
        let mut depth = 0_usize;
        while let Some(at) = memchr3(b'"', open, close, self.0) {
            self.0 = self.0.get(at..).unwrap_or_default();
            match self.0.first() {
                Some(b'"') => {
                    self.string();
                    continue;
                }
                Some(byte) if *byte == open => depth = depth.saturating_add(1),
                _ => depth = depth.saturating_sub(1),
            }
            self.step();
            if depth == 0 {
                return;
            }
        }
        self.0 = &[];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_wherever_they_stand_and_nothing_within_others() {
        let text =
            r#" { "x" : {"a":1,"]":"}"} , "a" : [ "}" , {"a":2} ] ,"e":"\\\"","n": null ,"b" :-1.5e3 } "#;
        let text = object(text.as_bytes()).unwrap();
        let [a, b, n, e, none] = fields(text, &["a", "b", "n", "e", "none"]);
        assert_eq!(a.0, Some(r#"[ "}" , {"a":2} ]"#));
        assert_eq!(b.0, Some("-1.5e3"));
        assert_eq!((n.0, n.value()), (Some("null"), None));
        assert_eq!(e.text().as_deref(), Some("\\\""));
        assert_eq!(none.0, None);
        assert_eq!(a.elements(), [r#""}""#, r#"{"a":2}"#]);
        assert_eq!(elements("[ ]"), [""; 0]);
        assert_eq!(fields("[1]", &["a"])[0].0, None);
    }

    #[test]
    fn a_text_is_quoted_with_its_escapes() {
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
    }

    #[test]
    fn a_count_that_counts_nothing_real_is_none() {
        let number = |text| Raw(Some(text)).number();
        assert_eq!(
            ["7", "7.9", "1e3", "999999999999999"].map(number),
            [7, 7, 1000, 999_999_999_999_999].map(Some)
        );
        for text in ["-1", "1000000000000000", "18446744073709551615", "1e300", "null", "\"7\""] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_whole_object_is_one() {
        for text in ["", "[]", "1", "{", "{} {}", "<html>", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(object(b" \n{} "), Some("{}"));
    }
}
