//! The recent successes and failures of a provider.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::window::Window as Ring;

/// Ten parts: the window moves in steps of a tenth of its length, which is fine enough for a rate, and small enough for a
/// record that every attempt writes.
pub(super) const PARTS: usize = 10;

/// The results within one part of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) successes: u32,
    pub(super) failures: u32,
}

/// The window. Results that come later than by one window mean that the clock went back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window(pub(super) Ring<Counts, PARTS, 1>);

/// The results within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The number of attempts that succeeded.
    pub(crate) successes: u64,
    /// The number of attempts that failed.
    pub(crate) failures: u64,
}

impl Tally {
    /// The number of all attempts.
    pub(crate) const fn total(self) -> u64 {
        self.successes + self.failures
    }
}

impl Window {
    /// Counts attempts that ended `then`, unless that time has left the window. `length` is the window's length.
    pub fn count(&mut self, successes: u32, failures: u32, then: Timestamp, length: Duration) {
        if let Some(counts) = self.0.at(then, length) {
            counts.successes = counts.successes.saturating_add(successes);
            counts.failures = counts.failures.saturating_add(failures);
        }
    }

    /// The results within `length` before `now`.
    pub(crate) fn tally(&self, now: Timestamp, length: Duration) -> Tally {
        let mut tally = Tally::default();
        for counts in self.0.within(now, length) {
            // Ten counts of 32 bits fit into 64.
            tally.successes += u64::from(counts.successes);
            tally.failures += u64::from(counts.failures);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    #[test]
    fn successes_and_failures_are_counted_apart_and_leave_with_the_window() {
        let mut window = Window::default();
        window.count(0, 1, at(0), LENGTH);
        window.count(1, 0, at(20), LENGTH);
        assert_eq!(window.tally(at(20), LENGTH), Tally { successes: 1, failures: 1 });
        assert_eq!(window.tally(at(31), LENGTH), Tally { successes: 1, failures: 0 });
        assert_eq!(window.tally(at(300), LENGTH), Tally::default());
    }

    #[test]
    fn what_comes_late_is_counted_where_it_belongs() {
        let mut window = Window::default();
        window.count(0, 1, at(20), LENGTH);
        window.count(5, 0, at(0), LENGTH);
        assert_eq!(window.tally(at(20), LENGTH), Tally { successes: 5, failures: 1 });
        assert_eq!(window.tally(at(31), LENGTH), Tally { successes: 0, failures: 1 });
        window.count(0, 1, at(30), LENGTH);
        window.count(5, 0, at(0), LENGTH);
        assert_eq!(window.tally(at(31), LENGTH), Tally { successes: 0, failures: 2 });
    }

    #[test]
    fn counts_stop_at_the_largest_number() {
        let mut window = Window::default();
        for _ in 0..2 {
            window.count(u32::MAX, u32::MAX, at(0), LENGTH);
        }
        let most = u64::from(u32::MAX);
        assert_eq!(window.tally(at(0), LENGTH), Tally { successes: most, failures: most });
        assert_eq!(window.tally(at(0), LENGTH).total(), 2 * most);
    }
}
