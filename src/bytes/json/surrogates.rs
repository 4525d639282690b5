//! Texts in which letters beyond the first 65,536 are written as two escapes, and what remains if they were torn apart.

/// A string's text between its quotes, decoded. Half of such a letter becomes U+FFFD.
#[inline(never)]
pub fn lossy(word: &str) -> String {
    if !word.contains('\\') {
        return word.to_owned();
    }
    let decode = |word: &str| serde_json::from_str::<String>(&["\"", word, "\""].concat());
    if let Ok(text) = decode(word) {
        return text;
    }
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('\\') {
        let (before, escaped) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let is_pair = half(escaped).is_some_and(|first| first < LOW)
            && escaped.get(ESCAPE..).and_then(half).is_some_and(|second| second >= LOW);
        let len = match (half(escaped), escaped.as_bytes().get(1)) {
            (Some(_), _) if is_pair => 2 * ESCAPE,
            (Some(_), _) => {
                out.push(char::REPLACEMENT_CHARACTER);
                rest = escaped.get(ESCAPE..).unwrap_or_default();
                continue;
            }
            (None, Some(b'u')) => ESCAPE,
            _ => 2,
        };
        let (escape, behind) = escaped.split_at_checked(len).unwrap_or((escaped, ""));
        out.push_str(&decode(escape).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string()));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Splits off the first half of a letter at the end of a string's text, which the next text may complete.
pub fn split_half(word: &str) -> (&str, &str) {
    let at = word.len().saturating_sub(ESCAPE);
    let Some((before, last)) = word.split_at_checked(at) else { return (word, "") };
    let backslashes = before.bytes().rev().take_while(|byte| *byte == b'\\').count();
    match half(last) {
        Some(first) if first < LOW && backslashes % 2 == 0 => (before, last),
        _ => (word, ""),
    }
}

/// The length of an escape with a number.
const ESCAPE: usize = 6;
/// The first number of a second half.
const LOW: u16 = 0xDC00;

/// The number of the half of a letter with which a text begins.
fn half(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let number = u16::from_str_radix(digits, 16).ok()?;
    (0xD800..0xE000).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_halves_become_one_replacement_each_and_all_else_is_decoded() {
        for (word, text) in [
            ("plain", "plain"),
            (r#"a\n\"\\\u00e9"#, "a\n\"\\é"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d", "\u{fffd}"),
            (r"a\ude00b", "a\u{fffd}b"),
            (r"\ud83d\ud83d\ude00\ude00\n", "\u{fffd}😀\u{fffd}\n"),
            (r"\ud83d\\ude00", "\u{fffd}\\ude00"),
            (r"é\ud83d é\t", "é\u{fffd} é\t"),
            (r"\ud83d\u0041", "\u{fffd}A"),
        ] {
            assert_eq!(lossy(word), text, "{word}");
        }
        for broken in [r"\", r"\u", r"\ud8", r"\ud83d\", r"\x\ud83d"] {
            assert!(!lossy(broken).is_empty(), "{broken}");
        }
    }

    #[test]
    fn only_a_first_half_at_the_end_waits_for_the_second() {
        assert_eq!(split_half(r"a\ud83d"), ("a", r"\ud83d"));
        assert_eq!(split_half(r"a\\\ud83d"), (r"a\\", r"\ud83d"));
        for word in ["", "a", r"\ude00", r"\ud83d\ude00", r"\ud83dx", r"\\ud83d", "éééé", r"\u00e9"] {
            assert_eq!(split_half(word), (word, ""), "{word}");
        }
    }
}
