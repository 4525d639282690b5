//! A sliding window of counts, as a ring of parts: old counts leave when their part is used again, without a timer.

use std::time::Duration;

use super::clock::{millis, Timestamp};

/// What was counted in one part of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part<T> {
    /// The number of the part since the Unix epoch.
    pub epoch: u32,
    /// The counts.
    pub counts: T,
}

/// A window of `PARTS` parts. The length of the window is an argument of every call, because it is configuration and not data.
///
/// Counts may come late: those of a part that has left the window are dropped. If the ring holds a part that is newer by more
/// than `LATE` windows, the clock went back instead, and the newer part is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<T, const PARTS: usize, const LATE: u32>([Part<T>; PARTS]);

impl<T: Copy + Default, const PARTS: usize, const LATE: u32> Default for Window<T, PARTS, LATE> {
    fn default() -> Self {
        Self([Part::default(); PARTS])
    }
}

impl<T: Copy + Default, const PARTS: usize, const LATE: u32> Window<T, PARTS, LATE> {
    /// The counts of the part that a moment falls into; `None` if that part has left the window.
    pub fn at(&mut self, then: Timestamp, length: Duration) -> Option<&mut T> {
        let epoch = Self::epoch(then, length);
        let part = self.0.get_mut(epoch as usize % PARTS)?;
        // Two parts with the same place are a multiple of the window apart.
        let newer = part.epoch.wrapping_sub(epoch);
        if newer != 0 && newer <= LATE * PARTS as u32 {
            return None;
        }
        if newer != 0 {
            *part = Part { epoch, counts: T::default() };
        }
        Some(&mut part.counts)
    }

    /// The counts within `length` before `now`, the newest part first. Parts in which nothing was counted are left out.
    pub fn within(&self, now: Timestamp, length: Duration) -> impl Iterator<Item = &T> {
        let newest = Self::epoch(now, length);
        let epochs = (0..PARTS as u32).filter_map(move |age| newest.checked_sub(age));
        epochs.filter_map(|epoch| {
            let part = self.0.get(epoch as usize % PARTS)?;
            (part.epoch == epoch).then_some(&part.counts)
        })
    }

    /// All parts in the order in which the ring holds them, to be written down.
    pub const fn parts(&self) -> &[Part<T>; PARTS] {
        &self.0
    }

    /// A window of parts that were written down.
    pub const fn of_parts(parts: [Part<T>; PARTS]) -> Self {
        Self(parts)
    }

    /// The number of the part that a moment falls into. It wraps after 2^32 parts: 13 years for parts of a tenth of a second.
    fn epoch(moment: Timestamp, length: Duration) -> u32 {
        let part = (millis(length) / PARTS as u64).max(1);
        (moment.as_millis() / part) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    type Ring<const LATE: u32> = Window<u32, 10, LATE>;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn count<const LATE: u32>(ring: &mut Ring<LATE>, seconds: u64) -> bool {
        ring.at(at(seconds), LENGTH).map(|count| *count += 1).is_some()
    }

    fn sum<const LATE: u32>(ring: &Ring<LATE>, seconds: u64) -> u32 {
        ring.within(at(seconds), LENGTH).sum()
    }

    #[test]
    fn counts_leave_when_they_are_older_than_the_window() {
        let mut ring = Ring::<1>::default();
        count(&mut ring, 0);
        count(&mut ring, 20);
        assert_eq!([20, 31, 300].map(|now| sum(&ring, now)), [2, 1, 0]);
    }

    #[test]
    fn the_newest_part_comes_first() {
        let mut ring = Ring::<1>::default();
        for (second, times) in [(0, 1), (9, 2), (27, 3)] {
            (0..times).for_each(|_| assert!(count(&mut ring, second)));
        }
        assert_eq!(ring.within(at(27), LENGTH).copied().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn a_part_is_emptied_before_it_is_used_again() {
        let mut ring = Ring::<1>::default();
        for second in 0..300 {
            count(&mut ring, second);
            assert!(sum(&ring, second) <= 30);
        }
        assert!((28..=30).contains(&sum(&ring, 299)));
    }

    #[test]
    fn what_comes_late_is_counted_in_its_part_or_dropped_with_it() {
        let mut ring = Ring::<1>::default();
        assert!(count(&mut ring, 20) && count(&mut ring, 0));
        assert_eq!((sum(&ring, 20), sum(&ring, 31)), (2, 1));
        assert!(count(&mut ring, 30));
        assert!(!count(&mut ring, 0), "the part of 30 s took its place");
        assert_eq!(sum(&ring, 31), 2);
    }

    #[test]
    fn a_clock_that_went_back_replaces_what_is_newer() {
        let (mut short, mut long) = (Ring::<1>::default(), Ring::<1000>::default());
        count(&mut short, 60);
        count(&mut long, 60);
        assert!(count(&mut short, 0), "two windows later is more than one");
        assert!(!count(&mut long, 0), "two windows later is less than a thousand");
        assert_eq!((sum(&short, 0), sum(&long, 60)), (1, 1));
    }

    #[test]
    fn what_was_written_down_is_the_same_window() {
        let mut ring = Ring::<1>::default();
        count(&mut ring, 5);
        assert_eq!(Ring::<1>::of_parts(*ring.parts()), ring);
    }
}
