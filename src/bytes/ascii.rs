//! Names and numbers as text in ASCII. The functions are never inlined: each is called from dozens of places, and the copies of the
//! standard library's loops would be a thirtieth of the module's size.

/// Whether two texts are the same but for the capitals of ASCII letters.
#[inline]
pub fn is_same(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> bool {
    let (one, other) = (one.as_ref(), other.as_ref());
    // Most names that are compared differ in length.
    one.len() == other.len() && is_same_name(one, other)
}

#[inline(never)]
fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The text with its ASCII letters in lower case.
#[inline(never)]
pub fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The text as a whole number; `None` if it is none, or more than the type holds.
#[inline]
pub fn whole<T: TryFrom<u64>>(text: &str) -> Option<T> {
    whole_number(text).and_then(|number| number.try_into().ok())
}

#[inline(never)]
fn whole_number(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_of_ascii_letters_do_not_matter() {
        assert!(is_same("Content-Type", "content-type") && is_same(b"", ""));
        assert!(!is_same("a", "ab") && !is_same("É", "é") && !is_same("a", "b"));
        assert_eq!(lower("ÉA-b"), "Éa-b");
    }

    #[test]
    fn a_number_that_the_type_cannot_hold_is_none() {
        assert_eq!(
            (whole::<u16>("65535"), whole::<u16>("65536"), whole::<u64>("+7")),
            (Some(65535), None, Some(7))
        );
        assert_eq!(
            (whole::<u64>("18446744073709551616"), whole::<u8>("-1"), whole::<u8>("")),
            (None, None, None)
        );
    }
}
