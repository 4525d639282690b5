//! Changes of a text at known places: a few bytes are replaced, and everything else stays as it came.

use std::ops::Range;

/// One change: the bytes of `place` become `text`. An empty place is an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Splice {
    /// The bytes of the old text that are replaced.
    place: Range<usize>,
    /// The text that replaces them.
    text: String,
}

/// Changes of one text, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splices(Vec<Splice>);

impl Splices {
    /// Adds a change. Changes may be added in any order; insertions at the same place keep the order in which they were added. A
    /// change that overlaps another one is left out.
    pub fn add(&mut self, place: Range<usize>, text: impl Into<String>) {
        let at = self.0.partition_point(|known| known.place.start <= place.start);
        let before = at.checked_sub(1).and_then(|before| self.0.get(before));
        let free = before.is_none_or(|before| before.place.end <= place.start)
            && self.0.get(at).is_none_or(|after| place.end <= after.place.start);
        if free && place.start <= place.end {
            self.0.insert(at, Splice { place, text: text.into() });
        }
    }

    /// Adds an insertion.
    pub fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.add(at..at, text);
    }

    /// Adds all changes of another list.
    pub fn extend(&mut self, others: &Self) {
        for other in &others.0 {
            self.add(other.place.clone(), other.text.as_str());
        }
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length of the changed text, if the old one has `before` bytes.
    pub fn len_after(&self, before: usize) -> usize {
        self.0.iter().fold(before, |len, splice| {
            len.saturating_sub(splice.place.len()).saturating_add(splice.text.len())
        })
    }

    /// The length of the beginning of the text that contains all changes. What follows need not be read or written.
    pub fn prefix_len(&self) -> usize {
        self.0.last().map_or(0, |last| last.place.end)
    }

    /// The changed text. `old` is the whole text or a beginning of it of at least [`Self::prefix_len`] bytes; `None` if it is shorter.
    pub fn apply(&self, old: &[u8]) -> Option<Vec<u8>> {
        let mut new = Vec::with_capacity(self.len_after(old.len()));
        let mut done = 0;
        for splice in &self.0 {
            new.extend_from_slice(old.get(done..splice.place.start)?);
            new.extend_from_slice(splice.text.as_bytes());
            done = splice.place.end;
        }
        new.extend_from_slice(old.get(done..)?);
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_apply_in_the_order_of_their_places() {
        let mut splices = Splices::default();
        splices.add(6..9, "x");
        splices.insert(0, "<");
        splices.add(2..3, "long");
        splices.insert(0, "!");
        assert_eq!(splices.apply(b"0123456789").unwrap(), b"<!01long345x9");
        assert_eq!(splices.len_after(10), 13);
        assert_eq!(splices.prefix_len(), 9);
        assert_eq!(splices.apply(b"012345678").unwrap(), b"<!01long345x");
        assert_eq!(splices.apply(b"01234567"), None);
    }

    #[test]
    fn a_change_within_another_is_left_out() {
        let mut splices = Splices::default();
        splices.add(2..6, "A");
        splices.add(3..4, "B");
        splices.add(5..8, "C");
        splices.add(0..3, "D");
        splices.insert(2, "E");
        splices.insert(6, "F");
        assert_eq!(splices.apply(b"01234567").unwrap(), b"01AF67");
    }
}
