//! One value as it stands in a JSON text.

use std::borrow::Cow;

use super::cursor::elements;

/// No answer has a quadrillion tokens, and an answer that claims to must not spend a budget.
const MOST_COUNTED: u64 = 1_000_000_000_000_000;

/// A value that may be absent, or of any kind. A string is not decoded before its text is needed: vendors cut tokens within an
/// emoji, and half of a surrogate pair is no reason to discard an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw<'a>(pub Option<&'a str>);

impl<'a> Raw<'a> {
    /// The JSON text, unless the value is absent or null.
    pub fn value(&self) -> Option<&'a str> {
        self.0.filter(|raw| *raw != "null")
    }

    /// Whether the value is neither absent nor null, nor an empty string, list or object.
    pub fn is_filled(&self) -> bool {
        let Some(raw) = self.value() else { return false };
        let inner = |open, close| raw.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
        let empty_list =
            inner('[', ']').or_else(|| inner('{', '}')).is_some_and(|inner| inner.trim().is_empty());
        !empty_list && raw != "\"\""
    }

    /// The text between the quotes of a string, still escaped; the JSON text of any other value.
    pub fn inner(&self) -> &'a [u8] {
        self.word().or(self.value()).unwrap_or_default().as_bytes()
    }

    /// The text between the quotes of a string, still escaped; `None` for anything else.
    pub fn word(&self) -> Option<&'a str> {
        self.0?.strip_prefix('"')?.strip_suffix('"')
    }

    /// A string, decoded; `None` for anything else, and for a string with half of a surrogate pair.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let word = self.word()?;
        if word.contains('\\') {
            return serde_json::from_str(self.0?).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(word))
    }

    /// Whether the value is a number without a sign, a fraction or an exponent.
    pub fn is_whole(&self) -> bool {
        self.0.is_some_and(|raw| !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// A count: a number whose fraction is cut off. `None` for anything else, for a number below zero, and for one that is
    /// too large to count anything real.
    pub fn number(&self) -> Option<u64> {
        let raw = self.value()?;
        let number = || {
            serde_json::from_str::<f64>(raw).ok().filter(|number| (0.0..MOST_COUNTED as f64).contains(number))
        };
        let whole = raw.parse().ok().filter(|number| *number < MOST_COUNTED);
        whole.or_else(|| number().map(|number| number as u64))
    }

    /// A count, which may also stand in a string.
    pub fn count(&self) -> Option<u64> {
        self.number().or_else(|| Raw(self.word()).number())
    }

    /// The elements of a list; none if the value is anything else.
    pub fn elements(&self) -> Vec<&'a str> {
        self.0.and_then(elements).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_count_may_stand_in_a_string() {
        let count = |text| Raw(Some(text)).count();
        assert_eq!(["7", "7.9", "\"12\"", "\"12.0\""].map(count), [7, 7, 12, 12].map(Some));
        for text in ["\"-1\"", "\"many\"", "\"\"", "\"null\"", "\"1e300\"", "null", "[1]", "true"] {
            assert_eq!(count(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_has_no_elements() {
        assert_eq!(Raw(Some("[1,[2]]")).elements(), ["1", "[2]"]);
        for text in [None, Some("null"), Some("{}"), Some("\"[1]\"")] {
            assert_eq!(Raw(text).elements(), [""; 0], "{text:?}");
        }
    }
}
