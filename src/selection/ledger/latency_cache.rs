//! What one worker remembers of how long models take: times that it met are written in batches, what all workers met is read
//! now and then. Nothing is read or written for a route whose policy does not ask.

use std::time::Duration;

use super::Ledger;
use crate::base::clock::Timestamp;
use crate::base::store::{fingerprint, update, Store};
use crate::routing::policy::latency::{Bucket, Measured, Record, ENOUGH};

/// For so long what was read is taken for the truth: a percentile over minutes does not change sooner.
const FRESH: Duration = Duration::from_secs(1);

/// So many times are written in one go at most, and so long they wait at most, if requests still come.
const NOTED: usize = 32;
const OLDEST: Duration = Duration::from_secs(1);

/// Series remembered. Beyond it (many configurations, one after another) everything is read anew.
const MOST: usize = 1024;

/// A record of times: one model of one provider, streams or whole answers, over one length of window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its key in the [store](crate::base::store).
    key: String,
    /// The provider's fingerprint.
    fingerprint: u64,
    window: Duration,
}

impl Series {
    /// The series of a provider's model. `model` is its name in the configuration: what comes through `*` is one series.
    pub fn new(
        provider: &str,
        identity: u64,
        model: &str,
        live: bool,
        balanced: bool,
        window: Duration,
    ) -> Self {
        let policy = if balanced { "shunt.balanced." } else { "shunt.latency." };
        let kind = if live { ".first." } else { ".whole." };
        let window_ms = window.as_millis().to_string();
        Self { key: [policy, provider, kind, &window_ms, ".", model].concat(), fingerprint: identity, window }
    }

    /// A number for the memory.
    fn number(&self) -> u64 {
        fingerprint([self.key.as_str(), &self.fingerprint.to_string()])
    }
}

/// What is remembered of a series.
#[derive(Debug)]
pub(super) struct Pace {
    series: u64,
    known: Measured,
    read: Timestamp,
    /// Not yet written, and since when.
    noted: Vec<Bucket>,
    since: Timestamp,
}

impl Ledger {
    /// What is known of a series.
    pub fn pace(&mut self, series: &Series, store: &mut dyn Store, now: Timestamp) -> Measured {
        let number = series.number();
        if let Some(pace) = self.paces.iter().find(|pace| pace.series == number) {
            if pace.read <= now && now.since(pace.read) < FRESH {
                return pace.known;
            }
            if !pace.noted.is_empty() && now.since(pace.since) >= OLDEST {
                return self.write(series, number, false, store, now);
            }
        }
        let record = Record::read(&store.load(&series.key).0, series.fingerprint);
        self.remember(series, number, &record, now)
    }

    /// Notes how long an answer took. It is written with others, but while too few are known.
    pub fn note_time(&mut self, series: &Series, took: Duration, store: &mut dyn Store, now: Timestamp) {
        let number = series.number();
        if !self.paces.iter().any(|pace| pace.series == number) {
            self.remember(series, number, &Record::new(series.fingerprint), Timestamp::ZERO);
        }
        let Some(pace) = self.paces.iter_mut().find(|pace| pace.series == number) else { return };
        if pace.noted.is_empty() {
            pace.since = now;
        }
        pace.noted.push(Bucket::of(took));
        let is_calm = pace.known.samples >= 2 * ENOUGH;
        if !is_calm || pace.noted.len() >= NOTED || now.since(pace.since) >= OLDEST {
            self.write(series, number, false, store, now);
        }
    }

    /// Notes, for all workers, that a series was made the first of an order.
    pub fn note_first(&mut self, series: &Series, store: &mut dyn Store, now: Timestamp) {
        self.write(series, series.number(), true, store, now);
    }

    fn write(
        &mut self,
        series: &Series,
        number: u64,
        first: bool,
        store: &mut dyn Store,
        now: Timestamp,
    ) -> Measured {
        let pace = self.paces.iter_mut().find(|pace| pace.series == number);
        let (met, noted) = pace.map(|pace| (pace.since, std::mem::take(&mut pace.noted))).unwrap_or_default();
        let written = update(store, &series.key, |bytes| {
            let mut record = Record::read(bytes, series.fingerprint);
            if !noted.is_empty() {
                record.count(&noted, met, series.window);
            }
            if first {
                record.first_since = now;
            }
            (Some(record.encode()), record)
        });
        // A race lost for ever is a few times that nobody knows of.
        let record = written.unwrap_or(Record::new(series.fingerprint));
        self.remember(series, number, &record, now)
    }

    fn remember(&mut self, series: &Series, number: u64, record: &Record, now: Timestamp) -> Measured {
        let (samples, p95) = record.p95(now, series.window);
        let known = Measured { samples, p95, first_since: record.first_since };
        match self.paces.iter_mut().find(|pace| pace.series == number) {
            Some(pace) => {
                pace.known = known;
                pace.read = now;
            }
            None => {
                if self.paces.len() >= MOST {
                    self.paces.clear();
                }
                self.paces.push(Pace { series: number, known, read: now, noted: Vec::new(), since: now });
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::{Memory, Swap, Version};

    const WINDOW: Duration = Duration::from_secs(300);

    /// Counts what is asked of it.
    #[derive(Default)]
    struct Counted {
        inner: Memory,
        loads: usize,
        swaps: usize,
    }

    impl Store for Counted {
        fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
            self.loads += 1;
            self.inner.load(key)
        }
        fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
            self.swaps += 1;
            self.inner.compare_and_swap(key, value, version)
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn series(model: &str) -> Series {
        Series::new("p", 1, model, true, false, WINDOW)
    }

    const TOOK: Duration = Duration::from_millis(500);

    #[test]
    fn while_little_is_known_every_time_is_written_and_then_many_at_once() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for number in 1..=40 {
            ledger.note_time(&series("m"), TOOK, &mut store, at(0));
            assert_eq!(ledger.pace(&series("m"), &mut store, at(0)).samples, number);
        }
        assert_eq!((store.loads, store.swaps), (40, 40));
        for _ in 0..320 {
            ledger.note_time(&series("m"), TOOK, &mut store, at(10));
        }
        assert_eq!((store.loads, store.swaps), (50, 50));
    }

    #[test]
    fn what_one_worker_met_another_knows_a_second_later() {
        let (mut one, mut two, mut store) = (Ledger::default(), Ledger::default(), Counted::default());
        for number in 0..50 {
            one.note_time(&series("m"), TOOK, &mut store, at(number));
        }
        assert_eq!(two.pace(&series("m"), &mut store, at(50)).samples, 40, "ten are not written yet");
        assert_eq!(one.pace(&series("m"), &mut store, at(900)).samples, 40, "nor asked for");
        let loads = store.loads;
        for millis in 50..1050 {
            two.pace(&series("m"), &mut store, at(millis));
        }
        assert_eq!(store.loads, loads);
        assert_eq!(one.pace(&series("m"), &mut store, at(1045)).samples, 50, "what waited is written");
        let known = two.pace(&series("m"), &mut store, at(1050));
        assert_eq!(known.samples, 50);
        assert!((400..600).contains(&known.p95.as_millis()));
    }

    #[test]
    fn what_waited_for_an_hour_is_an_hour_old() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for _ in 0..45 {
            ledger.note_time(&series("m"), TOOK, &mut store, at(0));
        }
        assert_eq!(ledger.pace(&series("m"), &mut store, at(3_600_000)).samples, 0);
    }

    #[test]
    fn who_is_first_all_workers_know() {
        let (mut one, mut two, mut store) = (Ledger::default(), Ledger::default(), Counted::default());
        one.note_first(&series("m"), &mut store, at(5));
        assert_eq!(one.pace(&series("m"), &mut store, at(5)).first_since, at(5));
        assert_eq!(two.pace(&series("m"), &mut store, at(6)).first_since, at(5));
    }

    #[test]
    fn another_model_kind_window_or_provider_is_another_series() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        ledger.note_time(&series("m"), TOOK, &mut store, at(0));
        for other in [
            series("m2"),
            Series::new("p", 1, "m", false, false, WINDOW),
            Series::new("p", 1, "m", true, true, WINDOW),
            Series::new("p", 1, "m", true, false, WINDOW * 2),
            Series::new("q", 1, "m", true, false, WINDOW),
            Series::new("p", 2, "m", true, false, WINDOW),
        ] {
            assert_eq!(ledger.pace(&other, &mut store, at(0)).samples, 0, "{other:?}");
        }
    }

    #[test]
    fn a_race_that_is_always_lost_costs_the_times_and_nothing_more() {
        struct Busy(Memory);
        impl Store for Busy {
            fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
                self.0.load(key)
            }
            fn compare_and_swap(&mut self, _: &str, _: &[u8], _: Version) -> Swap {
                Swap::Lost
            }
        }
        let (mut ledger, mut store) = (Ledger::default(), Busy(Memory::default()));
        ledger.note_time(&series("m"), TOOK, &mut store, at(0));
        assert_eq!(ledger.pace(&series("m"), &mut store, at(0)), Measured::default());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for number in 0..3000 {
            ledger.pace(&series(&number.to_string()), &mut store, at(0));
            assert!(ledger.paces.len() <= MOST);
        }
    }
}
