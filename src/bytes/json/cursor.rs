//! The walk over a JSON text that all readers share.

use std::ops::Range;

use memchr::{memchr2, memchr3};
use serde_json::value::RawValue;

/// The text of one complete JSON object, without the white space around it; `None` if the bytes are anything else.
pub fn object(bytes: &[u8]) -> Option<&str> {
    let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
    Some(raw.get()).filter(|text| text.starts_with('{'))
}

/// The range of `base` in which `raw` stands. `raw` must be a part of `base`: the range is the distance between the two.
pub fn place(base: &[u8], raw: &str) -> Range<usize> {
    let start = (raw.as_ptr() as usize).wrapping_sub(base.as_ptr() as usize);
    start..start.saturating_add(raw.len())
}

/// The elements of a list, each as its own text; `None` if the text is no list. `text` must be valid JSON.
#[inline(never)]
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let mut cursor = Cursor(text.as_bytes());
    if cursor.peek() != Some(b'[') {
        return None;
    }
    cursor.step();
    let mut found = Vec::new();
    while cursor.next(b']') {
        found.push(cursor.value(text)?.trim_end());
    }
    Some(found)
}

/// The rest of a JSON text that is known to be valid. If the text is not valid after all, the walk ends early; it never
/// goes back and never runs for ever.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// Skips white space and returns the byte behind it.
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

    /// Skips one byte.
    pub fn step(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    /// Moves to the next element or field of a list or object that ends with `end`: skips a comma, if one stands here.
    /// Returns false at the end, which is skipped too.
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

    /// Skips a string; returns what stands between its quotes, still escaped. `None` if no string begins here.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let inner = self.0.strip_prefix(b"\"")?;
        let mut end = 0_usize;
        while let Some(found) = inner.get(end..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            end += found;
            if inner.get(end) == Some(&b'"') {
                self.0 = inner.get(end + 1..).unwrap_or_default();
                return inner.get(..end);
            }
            end += 2;
        }
        self.0 = &[];
        Some(inner)
    }

    /// Skips one value, and the white space before it; returns the value's length in bytes. The length of a number includes
    /// the white space behind it.
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
        before - self.0.len()
    }

    /// Skips an object or a list. Brackets of one kind match each other whatever the brackets of the other kind do, so only
    /// one kind is counted.
    fn skip_nested(&mut self, open: u8, close: u8) {
        let mut depth = 0_usize;
        while let Some(at) = memchr3(b'"', open, close, self.0) {
            self.0 = self.0.get(at..).unwrap_or_default();
            match self.0.first() {
                Some(b'"') => {
                    self.string();
                    continue;
                }
                Some(byte) if *byte == open => depth += 1,
                // The first bracket that is found is the opening one, so the depth is not zero here.
                _ => depth -= 1,
            }
            self.step();
            if depth == 0 {
                return;
            }
        }
        self.0 = &[];
    }

    /// Skips one value, and returns it as a part of the `text` that this cursor walks over. Behind a number there may be white
    /// space.
    #[inline]
    pub(super) fn value<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        self.peek();
        let start = text.len() - self.0.len();
        let len = self.skip();
        text.get(start..start + len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_object_is_one() {
        for text in ["", "[]", "1", "{", "{} {}", "<html>", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(object(b" \n{} "), Some("{}"));
    }

    #[test]
    fn elements_are_separated_by_the_commas_of_their_own_list_only() {
        for (list, expected) in [
            ("[]", &[][..]),
            ("[ ]", &[]),
            ("[1]", &["1"]),
            ("[ 1 , -2.5e3\n]", &["1", "-2.5e3"]),
            (r#"[ "a,b" , [1,2],{"c":[3,"]"]} ]"#, &[r#""a,b""#, "[1,2]", r#"{"c":[3,"]"]}"#]),
            (r#"["\"","\\",","]"#, &[r#""\"""#, r#""\\""#, r#"",""#]),
        ] {
            assert_eq!(elements(list).unwrap(), expected, "{list}");
            let tree: Vec<serde_json::Value> = serde_json::from_str(list).unwrap();
            assert_eq!(tree.len(), expected.len(), "{list}");
        }
        for text in ["{}", "1", "\"[]\"", "null"] {
            assert_eq!(elements(text), None, "{text}");
        }
    }

    #[test]
    fn a_walk_over_anything_ends() {
        for text in ["[", "[1", "[\"", "[\"\\", "[{", "[}", "[]]", "[,,", "[:", "[{]}", "[é"] {
            let _ = elements(text);
            let mut cursor = Cursor(text.as_bytes());
            while !cursor.0.is_empty() {
                cursor.skip();
            }
        }
    }
}
