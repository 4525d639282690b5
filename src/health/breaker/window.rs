//! A sliding window of successes and failures: a ring of buckets, so that old results leave without a timer.

use std::time::Duration;

use crate::base::clock::{millis, Timestamp};

/// Ten buckets: the window moves in steps of a tenth of its length, fine enough for a rate, small enough for a record
/// that every attempt writes.
pub(super) const BUCKETS: usize = 10;

/// The results of one tenth of the window. `epoch` numbers the tenths since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) epoch: u32,
    pub(super) successes: u32,
    pub(super) failures: u32,
}

/// The window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub(super) buckets: [Bucket; BUCKETS],
}

/// What the window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that succeeded.
    pub successes: u64,
    /// Attempts that failed.
    pub failures: u64,
}

impl Tally {
    /// All attempts.
    pub const fn total(self) -> u64 {
        self.successes.saturating_add(self.failures)
    }
}

impl Window {
    /// Counts attempts that ended `then`. Those that have left the window already are nowhere counted.
    pub fn count(&mut self, successes: u32, failures: u32, then: Timestamp, length: Duration) {
        let epoch = epoch(then, length);
        let Some(bucket) = self.buckets.get_mut(epoch as usize % BUCKETS) else { return };
        if bucket.epoch.checked_sub(epoch).is_some_and(|newer| newer == BUCKETS as u32) {
            return;
        }
        if bucket.epoch != epoch {
            *bucket = Bucket { epoch, ..Bucket::default() };
        }
        bucket.successes = bucket.successes.saturating_add(successes);
        bucket.failures = bucket.failures.saturating_add(failures);
    }

    /// What was counted within `length` before `now`.
    pub fn tally(&self, now: Timestamp, length: Duration) -> Tally {
        let newest = epoch(now, length);
        let oldest = newest.saturating_sub(BUCKETS as u32 - 1);
        let mut tally = Tally::default();
        for bucket in self.buckets.iter().filter(|bucket| (oldest..=newest).contains(&bucket.epoch)) {
            tally.successes = tally.successes.saturating_add(bucket.successes.into());
            tally.failures = tally.failures.saturating_add(bucket.failures.into());
        }
        tally
    }
}

/// The number of the tenth that `now` falls into. It wraps after 2^32 tenths: 13 years for a window of a second.
fn epoch(now: Timestamp, length: Duration) -> u32 {
    let tenth = (millis(length) / BUCKETS as u64).max(1);
    (now.as_millis() / tenth) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    #[test]
    fn results_leave_when_they_are_older_than_the_window() {
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
    fn a_bucket_is_emptied_before_it_is_used_again() {
        let mut window = Window::default();
        for second in 0..300 {
            window.count(1, 0, at(second), LENGTH);
            assert!(window.tally(at(second), LENGTH).total() <= 30);
        }
        assert!((28..=30).contains(&window.tally(at(299), LENGTH).total()));
    }
}
