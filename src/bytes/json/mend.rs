//! Puts right what a strict reader of JSON refuses although its meaning is clear: raw control characters within strings, and the numbers
//! that JSON does not have.

use super::scan::Scanner;

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It is JSON now. Nothing but the named faults was changed.
    Json(Vec<u8>),
    /// It is the beginning of a JSON text.
    Beginning,
    /// It is no JSON, whatever may follow.
    Broken,
}

/// How numbers that JSON does not have are written, and whether it is the negative infinity.
const NO_NUMBERS: [(&[u8], bool); 10] = [
    (b"NaN", false),
    (b"-NaN", false),
    (b"nan", false),
    (b"-nan", false),
    (b"Infinity", false),
    (b"inf", false),
    (b"Inf", false),
    (b"-Infinity", true),
    (b"-inf", true),
    (b"-Inf", true),
];

/// OpenAI's own value for a logarithm of a probability that is zero.
const LOWEST_LOGPROB: &[u8] = b"-9999.0";

/// Fields whose values are no texts but words, which their reader compares.
const WORDS: [&[u8]; 8] =
    [b"type", b"status", b"role", b"id", b"call_id", b"name", b"finish_reason", b"stop_reason"];

/// Reads a text, and puts it right where its meaning is clear: a raw control character within a string becomes its escape, `-Infinity`
/// within logprobs becomes -9999.0, and any other number that is none becomes null. A control character in the name of a field, or in a
/// word, is not put right, because nobody would find the field, or know the word.
#[inline(never)]
pub fn mend(text: &[u8]) -> Mended {
    let mut scanner = Scanner::default();
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text.trim_ascii();
    // Where the name begins that was read last, and for each open object or list whether it is about logprobs.
    let (mut name, mut about) = (0, Vec::<bool>::new());
    let mut escape = [0; 6];
    while let [first, behind @ ..] = rest {
        let depth = scanner.depth();
        about.truncate(depth);
        if about.len() < depth {
            let outer = about.last() == Some(&true);
            about.push(outer || is_about_logprobs(&out, name));
        }
        let (len, bytes) = match scanner.in_text() {
            Some(true) if *first < b' ' => return Mended::Broken,
            Some(false) if *first < b' ' && WORDS.contains(&name_at(&out, name)) => return Mended::Broken,
            Some(false) if *first < b' ' => (1, escaped(*first, &mut escape)),
            None if scanner.expects_value() && matches!(first, b'N' | b'n' | b'I' | b'i' | b'-') => {
                let inner = about.last() == Some(&true) || is_about_logprobs(&out, name);
                match no_number(rest, inner) {
                    NoNumber::Is(len, instead) => (len, instead),
                    NoNumber::Begins => return Mended::Beginning,
                    NoNumber::Not => (1, std::slice::from_ref(first)),
                }
            }
            _ => (1, std::slice::from_ref(first)),
        };
        let was_outside = scanner.in_text().is_none();
        if !scanner.feed(bytes) {
            return Mended::Broken;
        }
        if was_outside && scanner.in_text() == Some(true) {
            name = out.len() + 1;
        }
        out.extend_from_slice(bytes);
        rest = if len == 1 { behind } else { rest.get(len..).unwrap_or_default() };
    }
    if scanner.is_complete() {
        Mended::Json(out)
    } else {
        Mended::Beginning
    }
}

/// The name of a field that begins at this place.
fn name_at(out: &[u8], name: usize) -> &[u8] {
    let name = out.get(name..).unwrap_or_default();
    name.split(|byte| *byte == b'"').next().unwrap_or_default()
}

/// Whether the name that begins at this place is one of logprobs.
fn is_about_logprobs(out: &[u8], name: usize) -> bool {
    name_at(out, name).windows(7).any(|part| part == b"logprob")
}

/// Whether a text begins with a number that is none.
enum NoNumber {
    /// It does: the length of that number, and what takes its place.
    Is(usize, &'static [u8]),
    /// The text ends within what may be one.
    Begins,
    /// It does not.
    Not,
}

fn no_number(rest: &[u8], in_logprobs: bool) -> NoNumber {
    let is_longest = |text: &[u8]| !rest.get(text.len()).is_some_and(u8::is_ascii_alphanumeric);
    if let Some((text, lowest)) =
        NO_NUMBERS.iter().find(|(text, _)| rest.starts_with(text) && is_longest(text))
    {
        return NoNumber::Is(text.len(), if *lowest && in_logprobs { LOWEST_LOGPROB } else { b"null" });
    }
    // `n` and `-` begin other values, too, and the scanner reads those.
    match NO_NUMBERS.iter().any(|(text, _)| rest.len() < text.len() && text.starts_with(rest)) {
        true => NoNumber::Begins,
        false => NoNumber::Not,
    }
}

/// The escape of a control character.
fn escaped(byte: u8, escape: &mut [u8; 6]) -> &[u8] {
    match byte {
        b'\t' => b"\\t",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digit = |value: u8| HEX.get(usize::from(value & 15)).copied().unwrap_or(b'0');
            *escape = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)];
            escape
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(text: &str) -> String {
        match mend(text.as_bytes()) {
            Mended::Json(json) => String::from_utf8(json).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_json_stays_as_it_is() {
        for text in [r#"{"a":[1,"\u0001",null,-1,nul]}"#, r#"{"a":[1,"\t",null,-1,true],"n":null,"N":"NaN"}"#]
        {
            let json = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(mended(text), if json { text } else { "Broken" });
        }
    }

    #[test]
    fn control_characters_become_their_escapes_in_values_only() {
        assert_eq!(
            mended("{\"a\":\"x\ty\nz\r\u{0}\u{1f}\u{7f}\"}"),
            "{\"a\":\"x\\ty\\nz\\r\\u0000\\u001f\u{7f}\"}"
        );
        assert_eq!(mended("{\"a\tb\":1}"), "Broken");
        for word in WORDS.map(|word| std::str::from_utf8(word).unwrap()) {
            assert_eq!(mended(&format!("{{\"{word}\":\"tool_\tuse\"}}")), "Broken", "nobody knows this word");
        }
        assert_eq!(mended("{\"type\":\"x\",\"a\":\"y\t\"}"), "{\"type\":\"x\",\"a\":\"y\\t\"}");
        assert_eq!(mended("{\"a\":\"\\\t\"}"), "Broken", "a backslash before it is no escape");
        assert_eq!(mended("{\"a\":\u{1}1}"), "Broken");
    }

    #[test]
    fn numbers_that_are_none_become_what_openai_writes() {
        for (text, expected) in [
            (
                r#"{"logprobs":{"content":[{"logprob":-Infinity,"top_logprobs":[{"logprob":NaN}]}]}}"#,
                r#"{"logprobs":{"content":[{"logprob":-9999.0,"top_logprobs":[{"logprob":null}]}]}}"#,
            ),
            (
                r#"{"token_logprobs":[-0.5,-Infinity,-inf],"x":-Infinity}"#,
                r#"{"token_logprobs":[-0.5,-9999.0,-9999.0],"x":null}"#,
            ),
            (
                r#"{"top_logprobs":[{" a":-Infinity}],"usage":{"cost":Infinity}}"#,
                r#"{"top_logprobs":[{" a":-9999.0}],"usage":{"cost":null}}"#,
            ),
            (r#"{"logprobs":{"a":1},"b":[-Infinity , -nan]}"#, r#"{"logprobs":{"a":1},"b":[null , null]}"#),
            (r#"{"logprob":-Infinityx}"#, "Broken"),
            (r#"{"a":+1}"#, "Broken"),
            (r#"{"a":Nan}"#, "Broken"),
        ] {
            assert_eq!(mended(text), expected);
        }
    }

    #[test]
    fn a_beginning_is_told_from_what_is_broken() {
        let text = "{\"a\":[\"é\ty\",-Infinity,1.5],\"b\":{\"c\":null}}";
        for end in 0..text.len() {
            assert_eq!(mend(&text.as_bytes()[..end]), Mended::Beginning, "{end}");
        }
        for text in ["{\"a\":1,}", "{\"a\":1}}", "{\"a\":01", "{a", "\u{feff}{}", "{\"a\":\"\\x"] {
            assert_eq!(mended(text), "Broken", "{text}");
        }
        assert_eq!(mend(b"{\"a\":\"\xff"), Mended::Broken);
    }
}
