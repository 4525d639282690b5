//! The attempts for which this worker waits: until the first content of a live stream, until the end of any other answer, as
//! latencies are measured.
//!
//! An attempt holds a [`Waiting`] for as long as it is waited for. Dropping that ends the count, so that it is right however the attempt
//! ends: judged, abandoned, left by the client, or dropped with its request. After a trap the whole memory of the worker begins anew.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Ledger, Series};
use crate::base::clock::Timestamp;
use crate::base::store::Store;
use crate::routing::policy::latency::Load;

/// What is under way in one series: when the attempts began, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLoad(Rc<RefCell<Vec<Timestamp>>>);

impl SharedLoad {
    pub(super) fn get(&self) -> Load {
        self.0.try_borrow().map_or(Load::default(), |begun| Load::of(&begun))
    }

    /// Changes the list at the place that belongs to this moment.
    fn change(&self, moment: Timestamp, change: impl FnOnce(&mut Vec<Timestamp>, usize)) {
        if let Ok(mut begun) = self.0.try_borrow_mut() {
            let place = begun.partition_point(|other| *other < moment);
            change(&mut begun, place);
        }
    }
}

/// One attempt for which is waited.
#[derive(Debug)]
pub struct Waiting {
    load: SharedLoad,
    since: Timestamp,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.load.change(self.since, |begun, place| {
            if place < begun.len() {
                begun.remove(place);
            }
        });
    }
}

impl Ledger {
    /// Counts an attempt among those that are under way in its series.
    pub fn wait(&mut self, series: &Series, store: &mut dyn Store, now: Timestamp) -> Waiting {
        let load = self.load(series, store, now);
        load.change(now, |begun, place| begun.insert(place, now));
        Waiting { load, since: now }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::store::Memory;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn an_attempt_counts_in_its_own_series_until_it_is_dropped() {
        let (mut ledger, mut store) = (Ledger::default(), Memory::default());
        let [one, two] = ["m", "n"].map(|model| Series::new("p", 1, model, true, Duration::from_secs(60)));
        let mut load = |ledger: &mut Ledger, series: &Series| ledger.latency(series, &mut store, at(0)).load;
        let mut other = Memory::default();
        let first = ledger.wait(&one, &mut other, at(0));
        let second = ledger.wait(&one, &mut other, at(300));
        assert_eq!([load(&mut ledger, &one).waiting, load(&mut ledger, &two).waiting], [2, 0]);
        drop(first);
        let left = load(&mut ledger, &one);
        assert_eq!((left.waiting, left), (1, Load::of(&[at(300)])));
        drop(second);
        assert_eq!(load(&mut ledger, &one), Load::default());
    }

    #[test]
    fn attempts_end_in_any_order_and_a_clock_that_is_put_back_leaves_none_behind() {
        let (mut ledger, mut store) = (Ledger::default(), Memory::default());
        let series = Series::new("p", 1, "m", true, Duration::from_secs(60));
        let mut random = fastrand::Rng::with_seed(15);
        let mut held = Vec::new();
        for number in 0..2000_u64 {
            let now = at(if number % 100 < 90 { number } else { random.u64(0..2000) });
            held.push(ledger.wait(&series, &mut store, now));
            if random.bool() || held.len() > 40 {
                drop(held.swap_remove(random.usize(0..held.len())));
            }
            let waiting = ledger.latency(&series, &mut store, at(5)).load.waiting;
            assert_eq!(waiting as usize, held.len());
        }
        drop(held);
        assert_eq!(ledger.latency(&series, &mut store, at(5)).load, Load::default());
    }

    #[test]
    fn what_is_under_way_when_the_memory_begins_anew_leaves_no_count_behind() {
        let mut store = Memory::default();
        let series = |number: u32| Series::new("p", 1, &number.to_string(), true, Duration::from_secs(60));
        let mut ledger = Ledger::default();
        let before = ledger.wait(&series(0), &mut store, at(0));
        for number in 1..3000 {
            ledger.latency(&series(number), &mut store, at(0));
        }
        assert_eq!(ledger.latency(&series(0), &mut store, at(0)).load.waiting, 0);
        let after = ledger.wait(&series(0), &mut store, at(0));
        drop(before);
        assert_eq!(ledger.latency(&series(0), &mut store, at(0)).load.waiting, 1);
        drop(after);
        assert_eq!(ledger.latency(&series(0), &mut store, at(0)).load.waiting, 0);
    }
}
