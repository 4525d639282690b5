//! The times by which a candidate is ordered: its p95, damped.
//!
//! The p95 of a candidate jitters, and an order by it would flap. So the candidates are ordered by *settled* times, of which there are
//! two. Both change only at the beginning of an [interval](INTERVAL), which is the same moment for all candidates and all workers.
//!
//! - The latest one is the p95 at the beginning of the interval; of the interval before, if it had many times. Such a one falls at once,
//!   and rises by at most a tenth in each interval. By it, candidates share the load if they are about as quick.
//! - Where one must be the only first, the other one counts: it is replaced by the latest one only if that is more than a fifth away
//!   from it (a ratio of 5/4), or rests on more times.
//!
//! A settled time depends on nothing but the measured times of one model of one provider. What a request multiplies it by (its cost
//! and the quality, for `balanced`), and with which weights, is never remembered: so requests of different shapes, and routes with
//! different weights, use the same settled times and do not disturb each other.

use crate::base::clock::Timestamp;

/// The number of times from which a p95 is trusted. With fewer than twenty, the 95th percentile is the slowest.
pub const ENOUGH: u32 = 20;
/// The number of times below which a candidate counts as unknown.
pub(super) const FEW: u32 = 5;
/// 10 s: long enough for several batches of the workers' measurements to arrive.
pub(super) const INTERVAL: u64 = 10_000;

/// The number of the interval that it is now.
pub const fn interval(now: Timestamp) -> u32 {
    (now.as_millis() / INTERVAL) as u32
}

/// Whether `a` is more than a fifth quicker than `b`, both in milliseconds. A person would notice this difference, and it is larger
/// than the error of the histogram.
const fn quicker(a: u64, b: u64) -> bool {
    a.saturating_mul(5) < b.saturating_mul(4)
}

/// The settled times of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The time that stays until the measured one is more than a fifth away, in milliseconds; 0 if nothing is known.
    pub time: u32,
    /// The time as of this interval.
    pub latest: u32,
    /// How many times were noted in the interval before.
    pub count: u32,
    /// The interval in which this was decided.
    pub interval: u32,
    /// On how many measured times it rests, at most [`ENOUGH`].
    pub of: u8,
}

impl Settled {
    /// What this becomes when so many times with this p95, in milliseconds, are in the window. `ended` is the number of times in the interval
    /// that has ended, and their p95 if they are many. `None` if nothing must be written down.
    pub fn next(self, samples: u32, p95: u64, ended: (u32, Option<u64>), now: Timestamp) -> Option<Self> {
        let interval = interval(now);
        let of = samples.min(ENOUGH) as u8;
        // The p95 of a handful is easily low by chance, so it is raised the fewer times there are, to less than twice its value.
        let raised =
            p95.saturating_add(p95.saturating_mul((ENOUGH - u32::from(of)).into()) / u64::from(ENOUGH));
        let time = u64::from(self.time);
        let before = u64::from(self.latest);
        let latest = match ended {
            // It tells of the load as well: one of many equals that had a little more of it would be out of the band for an interval, and
            // the others would bear its share. What has become slow in truth is seen by what is under way there.
            (_, Some(p95)) if before > 0 => p95.min(before.saturating_add(before / 10 + 1)),
            (_, Some(p95)) => p95,
            // Nothing new was measured, though older times may count now.
            (0, None) if before > 0 => raised.min(before),
            _ => raised,
        };
        let moved = match samples {
            0 => Some((0, 0, 0)),
            // Where nothing was known, no order can flap.
            FEW.. if self.time == 0 => Some((raised, latest, of)),
            FEW.. if self.interval == interval => None,
            FEW.. if of > self.of || quicker(raised, time) => Some((raised, latest, of)),
            FEW.. if quicker(time, p95) => Some((p95, latest, of)),
            FEW.. => Some((time, latest, self.of)),
            _ => None,
        };
        let (time, latest, of) = moved.unwrap_or((time, self.latest.into(), self.of));
        let [time, latest] = [time, latest].map(|time| u32::try_from(time).unwrap_or(u32::MAX));
        let count = match interval.wrapping_sub(self.interval) {
            0 => self.count,
            age if age == 1 || self.time == 0 => ended.0,
            // Nothing was noted in the interval before.
            _ => 0,
        };
        let next = Self { time, latest, count, interval, of };
        // The interval of what is not known does not matter.
        (next.time != self.time || (next.time != 0 && next != self)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    /// An interval with few times.
    const QUIET: (u32, Option<u64>) = (1, None);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + seconds * 1000)
    }

    fn settled(samples: u32, p95: u64) -> Settled {
        Settled::default().next(samples, p95, QUIET, NOW).unwrap_or_default()
    }

    /// The time after one more interval in which this was measured.
    fn then(before: Settled, samples: u32, p95: u64) -> u32 {
        before.next(samples, p95, QUIET, at(10)).unwrap_or(before).time
    }

    #[test]
    fn a_settled_time_stays_until_the_measured_one_is_more_than_a_fifth_away() {
        let before = settled(50, 1000);
        for (p95, time) in [(1000, 1000), (1250, 1000), (1251, 1251), (800, 1000), (799, 799), (9000, 9000)] {
            assert_eq!(then(before, 50, p95), time, "{p95}");
        }
    }

    #[test]
    fn within_an_interval_nothing_moves_and_each_interval_decides_once() {
        let before = settled(50, 1000);
        assert_eq!(before.next(50, 9000, QUIET, at(9)), None);
        let kept = before.next(50, 1100, QUIET, at(10)).unwrap();
        assert_eq!(
            (kept.time, kept.latest, kept.interval),
            (1000, 1100, interval(at(10))),
            "the decision is noted"
        );
        assert_eq!(kept.next(50, 9000, QUIET, at(19)), None, "so nothing moves later in this interval");
        assert_eq!(kept.next(50, 9000, QUIET, at(20)).unwrap().time, 9000);
        assert_eq!(
            kept.next(50, 9000, QUIET, NOW).unwrap().time,
            9000,
            "a clock that was put back stops nothing"
        );
    }

    #[test]
    fn a_burst_is_no_load_any_more_when_an_interval_has_passed_without_any() {
        let burst = settled(50, 1000).next(50, 1000, (400, None), at(10)).unwrap();
        assert_eq!((burst.count, burst.next(50, 1000, (9, None), at(20)).unwrap().count), (400, 9));
        let idle = burst.next(50, 1000, (400, None), at(600)).unwrap();
        assert_eq!(idle.count, 0, "they were noted ten minutes ago");
    }

    #[test]
    fn the_fewer_times_it_rests_on_the_higher_it_is() {
        for (samples, time) in
            [(0, 0), (1, 0), (4, 0), (5, 1750), (10, 1500), (19, 1050), (20, 1000), (99, 1000)]
        {
            assert_eq!(settled(samples, 1000).time, time, "{samples}");
        }
    }

    #[test]
    fn one_that_rests_on_more_times_replaces_one_that_rests_on_fewer() {
        assert_eq!(then(settled(16, 1000), 20, 1000), 1000, "though 1200 is within a fifth");
        assert_eq!(then(settled(20, 1000), 16, 1000), 1000, "not the other way round");
        assert_eq!(then(settled(20, 1000), 16, 700), 1000, "840 is not low enough");
        assert_eq!(then(settled(20, 1000), 16, 600), 720);
        assert_eq!(then(settled(20, 1000), 16, 1300), 1300, "a slowdown counts as it is");
    }

    #[test]
    fn the_latest_time_follows_in_each_interval_however_little_has_changed() {
        let mut settled = settled(50, 1000);
        for (interval, p95) in (1..).zip([1010, 990, 1200, 801]) {
            settled = settled.next(50, p95, QUIET, at(interval * 10)).unwrap();
            assert_eq!((settled.time, u64::from(settled.latest)), (1000, p95));
        }
        settled = settled.next(10, 1000, QUIET, at(50)).unwrap();
        assert_eq!((settled.time, settled.latest), (1000, 1500), "with few times it is raised");
        assert_eq!(settled.next(4, 16, QUIET, at(60)).unwrap().latest, 1500);
    }

    #[test]
    fn the_latest_time_is_that_of_the_interval_that_has_ended_if_it_had_many() {
        let after = settled(50, 1000).next(50, 1000, (400, Some(90)), at(10)).unwrap();
        assert_eq!((after.time, after.latest, after.count), (1000, 90, 400));
        assert_eq!(after.next(50, 1000, (7, None), at(20)).unwrap().latest, 1000);
    }

    #[test]
    fn with_fewer_than_five_times_it_stays_and_without_any_it_is_forgotten() {
        assert_eq!(then(settled(50, 1000), 4, 9000), 1000);
        assert_eq!(then(settled(50, 1000), 1, 16), 1000);
        assert_eq!(
            settled(50, 1000).next(0, 0, QUIET, at(1)).unwrap(),
            Settled { count: 1, interval: interval(at(1)), ..Settled::default() }
        );
        assert_eq!(
            settled(3, 1000).next(3, 1000, QUIET, at(50)),
            None,
            "nothing to note of what is not known"
        );
    }

    #[test]
    fn after_an_interval_with_many_times_the_latest_falls_at_once_and_rises_slowly() {
        let before = settled(50, 1000);
        for (p95, latest) in [(300, 300), (1000, 1000), (1101, 1101), (1102, 1101), (9000, 1101)] {
            let next = before.next(500, p95, (500, Some(p95)), at(10)).unwrap();
            assert_eq!(next.latest, latest, "{p95}");
        }
        let first = Settled::default().next(500, 9000, (500, Some(9000)), NOW).unwrap();
        assert_eq!(first.latest, 9000, "nothing was known before");
    }

    #[test]
    fn an_interval_without_any_time_raises_nothing() {
        let before = settled(50, 1000);
        let idle = |p95: u64| before.next(50, p95, (0, None), at(10)).unwrap().latest;
        assert_eq!((idle(9000), idle(300)), (1000, 300));
        assert_eq!(before.next(50, 9000, QUIET, at(10)).unwrap().latest, 9000, "a single time is no load");
    }
}
