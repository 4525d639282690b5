//! The fields of an object: a few of them by their names, or all of them in their order.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

use super::cursor::{object, place, Cursor};
use super::raw::Raw;
use super::surrogates::lossy;

/// The fields of an object one after the other: each name as it stands between its quotes, and each value.
struct Members<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
}

impl<'a> Members<'a> {
    /// `text` must be valid JSON. A value that is no object has no fields.
    #[inline]
    fn of(text: &'a str) -> Self {
        let mut cursor = Cursor(text.as_bytes());
        let is_object = cursor.peek() == Some(b'{');
        cursor.step();
        Self { text, cursor: if is_object { cursor } else { Cursor(&[]) } }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if !self.cursor.next(b'}') {
            return None;
        }
        let key = self.cursor.string()?;
        // The colon.
        self.cursor.peek();
        self.cursor.step();
        Some((key, self.cursor.value(self.text)?))
    }
}

/// The fields of an object: the name as it stands between its quotes, the range of the field in `text`, and the value. `text` must
/// be valid JSON; what is no object has no fields.
pub fn members(text: &str) -> impl Iterator<Item = (&[u8], Range<usize>, &str)> {
    Members::of(text).map(move |(name, value)| {
        let value = value.trim_end();
        // Behind the quote that opens the name.
        let start = (name.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        (name, start.saturating_sub(1)..place(text.as_bytes(), value).end, value)
    })
}

/// The values of a few of an object's fields, in the order of `names`. Of several fields with the same name the last one
/// counts. A name with escapes in the text is not recognised. `text` must be valid JSON; what is no object has no fields.
pub fn fields<'a, const N: usize>(text: &'a str, names: &[&str; N]) -> [Raw<'a>; N] {
    let mut values = [Raw(None); N];
    collect(text, names, &mut values);
    values
}

/// The same; `None` if a name cannot be meant so: it has a comma or a colon in it, or stands twice with different values. A quote was
/// lost then, and a field with it. Null before a value is none: every reader takes the last one.
pub fn plausible_fields<'a, const N: usize>(text: &'a str, names: &[&str; N]) -> Option<[Raw<'a>; N]> {
    let mut values = [Raw(None); N];
    collect(text, names, &mut values).then_some(values)
}

/// Returns whether the names are plausible. Never inlined: [`fields`] is called from many places, and the copies would add a hundredth to
/// the size of the filter.
#[inline(never)]
fn collect<'a>(text: &'a str, names: &[&str], values: &mut [Raw<'a>]) -> bool {
    let mut plausible = true;
    for (key, value) in Members::of(text) {
        let place = names.iter().position(|name| is_same(name.as_bytes(), key));
        if let Some(slot) = place.and_then(|place| values.get_mut(place)) {
            let value = value.trim_end();
            plausible &= slot.0.is_none_or(|before| before == value || before == "null");
            *slot = Raw(Some(value));
        } else {
            plausible &= memchr2(b',', b':', key).is_none();
        }
    }
    plausible
}

/// Whether two names are the same; most differ in their length or their first letter already.
fn is_same(name: &[u8], key: &[u8]) -> bool {
    name.len() == key.len() && name.first() == key.first() && name == key
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
            /// Reads the values out of valid JSON.
            #[allow(dead_code, reason = "some objects are only read if their names are plausible")]
            fn read(text: &'a str) -> Self {
                let [$($field),*] = $crate::bytes::json::fields(text, &[$($key),*]);
                Self { $($field),* }
            }

            /// Reads the values out of valid JSON; `None` if its names are not plausible.
            #[allow(dead_code, reason = "not every object is a part of an answer")]
            fn plausible(text: &'a str) -> Option<Self> {
                let [$($field),*] = $crate::bytes::json::plausible_fields(text, &[$($key),*])?;
                Some(Self { $($field),* })
            }
        }
    };
}
pub(crate) use raw_object;

/// All fields of one object in their order: names are decoded, values borrow from the text.
///
/// The methods are never inlined: translations call them from very many places, and the copies would double the size of that
/// code.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    /// Checks and reads an object; `None` if the bytes are not JSON or no object.
    #[inline(never)]
    pub fn read(json: &'a [u8]) -> Option<Self> {
        Self::of(object(json)?)
    }

    /// Reads an object in a text that is known to be valid JSON, as the value of a field is; `None` if it is no object, or
    /// has a name that cannot be decoded.
    #[inline(never)]
    pub fn of(json: &'a str) -> Option<Self> {
        if !json.starts_with('{') {
            return None;
        }
        Members::of(json)
            .map(|(key, value)| Some((decoded(key)?, value.trim_end())))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The JSON text of a field, unless the field is absent or null. Of several fields with the same name the last one counts.
    #[inline(never)]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().rfind(|(key, _)| key == name)?;
        Raw(Some(value)).value()
    }

    /// The fields of a field that is an object.
    #[inline(never)]
    pub fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.get(name)?)
    }

    /// A string; empty if the field is absent or of another kind. `None` if the string cannot be decoded (half of a surrogate
    /// pair).
    #[inline(never)]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(json) if json.starts_with('"') => Raw(Some(json)).text().map(Cow::into_owned),
            _ => Some(String::new()),
        }
    }

    /// A string as it can be read: a lone half of a surrogate pair becomes U+FFFD. Empty if the field is absent or of another kind.
    #[inline(never)]
    pub fn lossy(&self, name: &str) -> String {
        self.word(name).map(lossy).unwrap_or_default()
    }

    /// The text between the quotes of a string, still escaped; `None` if the field is absent or of another kind.
    #[inline(never)]
    pub fn word(&self, name: &str) -> Option<&'a str> {
        Raw(self.get(name)).word()
    }

    /// A whole number; `None` if the field is absent or anything else.
    #[inline(never)]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Itself, if its names are [plausible](plausible_fields). Those in `known` have a meaning, and must not stand twice with different
    /// values.
    #[inline(never)]
    pub fn plausible(self, known: &[&str]) -> Option<Self> {
        let is_doubled = |name: &&str| {
            let mut values = self.0.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
            let first = values.next();
            values.any(|value| Some(value) != first)
        };
        let odd = known.iter().any(is_doubled) || self.0.iter().any(|(name, _)| name.contains([',', ':']));
        (!odd).then_some(self)
    }

    /// The names and JSON texts of the fields, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Whether the object has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name whose text between the quotes this is; `None` if it holds half of a surrogate pair.
fn decoded(key: &[u8]) -> Option<Cow<'_, str>> {
    if key.contains(&b'\\') {
        return serde_json::from_slice(&[b"\"", key, b"\""].concat()).ok().map(Cow::Owned);
    }
    std::str::from_utf8(key).ok().map(Cow::Borrowed)
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
        assert_eq!(fields("[1]", &["a"])[0].0, None);
    }

    #[test]
    fn a_field_has_a_range_from_its_name_to_its_value() {
        let text = r#"{ "a" : 1 ,"b\"":[2] }"#;
        let found: Vec<_> =
            members(text).map(|(name, range, value)| (name, text.get(range).unwrap(), value)).collect();
        assert_eq!(found[0], (&b"a"[..], r#""a" : 1"#, "1"));
        assert_eq!(found[1], (&br#"b\""#[..], r#""b\"":[2]"#, "[2]"));
        assert_eq!(found.len(), 2);
        assert_eq!(members("[1]").count(), 0);
    }

    #[test]
    fn a_name_with_a_comma_or_a_colon_and_one_that_stands_twice_are_not_plausible() {
        let is_plausible = |text| plausible_fields(text, &["a", "b"]).is_some();
        for text in [
            r#"{"a":1,"b":{"c,d":1,"c":1,"c":2}}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"x":1,"x":2}"#,
            r#"{"a":null,"a":"x"}"#,
            "{}",
        ] {
            assert!(is_plausible(text), "{text}");
        }
        for text in [r#"{"a:0,[b":1}"#, r#"{"x,a":1}"#, r#"{"a":1,"a":2}"#, r#"{"a":"x","a":null}"#] {
            assert!(!is_plausible(text), "{text}");
        }
    }

    #[test]
    fn a_field_is_the_last_of_its_name_and_null_is_none() {
        let fields = Fields::read(br#"{"a":1,"b":null,"a": [2] , "n": 7 }"#).unwrap();
        assert_eq!(fields.get("a"), Some("[2]"));
        assert_eq!(fields.get("b"), None);
        assert_eq!(fields.number("n"), Some(7));
        assert_eq!(fields.text("c").unwrap(), "");
        assert_eq!(Fields::read(br#"{"a":"\ud83d"}"#).unwrap().text("a"), None);
        for text in ["", "[]", "{", "{} {}", "null"] {
            assert!(Fields::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn names_are_decoded_and_keep_their_order() {
        let fields = Fields::read(br#" { "z\"\u00e9" : 1 , "a" : {"b":"\n"} } "#).unwrap();
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("z\"é", "1"), ("a", r#"{"b":"\n"}"#)]);
        assert_eq!(fields.object("a").unwrap().text("b").unwrap(), "\n");
        assert!(fields.object("z\"é").is_none());
        assert!(Fields::read(br#"{}"#).unwrap().is_empty());
        assert!(Fields::read(br#"{"\ud83d":1}"#).is_none(), "half of a surrogate pair is no name");
    }

    /// The reader that this one is held against: serde_json's own.
    #[test]
    fn all_fields_are_those_of_a_tree() {
        for text in [
            r#"{"a":{},"b":[],"c":"","d":-0.0,"e":true,"f":{"a":[{"b":"]}"}]}}"#,
            "{\"a\"\t:\r\n1\n,\n\"b\" : \"x\" }",
            r#"{"\\":"\\\\","\"":"\"","\u0041":"\u0041"}"#,
        ] {
            let tree: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
            let fields = Fields::read(text.as_bytes()).unwrap();
            assert_eq!(fields.iter().count(), tree.len(), "{text}");
            for (name, value) in fields.iter() {
                assert_eq!(
                    serde_json::from_str::<serde_json::Value>(value).unwrap(),
                    tree[name],
                    "{text}: {name}"
                );
            }
        }
    }
}
