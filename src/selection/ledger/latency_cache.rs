//! One worker's memory of the latencies of models. The worker writes the latencies that it measured in batches, and reads what all
//! workers measured at most once a second. A route whose policy does not use latencies reads and writes nothing.

use std::time::Duration;

use super::waiting::SharedLoad;
use super::Ledger;
use crate::base::clock::Timestamp;
use crate::base::store::{fingerprint, update, Store};
use crate::routing::policy::latency::{interval, Bucket, Load, Measured, Record, ENOUGH};

/// How long a percentile that was read is used. It covers minutes and hardly changes within a second.
const FRESH: Duration = Duration::from_secs(1);

/// The number of latencies after which the collected ones are written.
const MAX_NOTED: usize = 32;
/// How long a latency waits to be written, if requests still come.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The number of series remembered. More appear only after many changes of the configuration; then the memory starts anew.
const MAX_SERIES: usize = 1024;

/// Names a series of latencies: of one model of one provider, for streams or for whole answers, over one length of window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its key in the [store](crate::base::store).
    key: String,
    /// The provider's fingerprint.
    fingerprint: u64,
    window: Duration,
}

impl Series {
    /// The series of a provider's model. `identity` is the provider's fingerprint. `model` is the model's name in the configuration,
    /// so all models that are served through `*` share one series. `live` means that a stream is released at its first content.
    pub fn new(provider: &str, identity: u64, model: &str, live: bool, window: Duration) -> Self {
        let kind = if live { ".first." } else { ".whole." };
        let window_ms = window.as_millis().to_string();
        let key = ["shunt.latency.", provider, kind, &window_ms, ".", model].concat();
        Self { key, fingerprint: identity, window }
    }

    /// The key in this memory.
    fn number(&self) -> u64 {
        fingerprint([self.key.as_str(), &self.fingerprint.to_string()])
    }
}

/// What this worker remembers of a series.
#[derive(Debug)]
pub(super) struct CachedSeries {
    series: u64,
    known: Measured,
    /// The attempts that are under way.
    load: SharedLoad,
    read: Timestamp,
    /// Latencies that are not yet written.
    noted: Vec<Bucket>,
    /// When the first of them was measured.
    since: Timestamp,
}

impl Ledger {
    /// The latencies that all workers measured in a series.
    pub fn latency(&mut self, series: &Series, store: &mut dyn Store, now: Timestamp) -> Measured {
        let number = series.number();
        if let Some(measured) = self.latencies.iter().find(|measured| measured.series == number) {
            // All candidates of a request must be compared as of the same interval.
            let is_of_this_interval = interval(measured.read) == interval(now);
            if is_of_this_interval && measured.read <= now && now.since(measured.read) < FRESH {
                return Measured { load: measured.load.get(), ..measured.known };
            }
            if !measured.noted.is_empty() && now.since(measured.since) >= MAX_WAIT {
                return self.write(series, number, store, now);
            }
        }
        let mut record = Record::read(&store.load(&series.key).0, series.fingerprint);
        if record.settle(now, series.window) {
            return self.write(series, number, store, now);
        }
        self.remember(series, number, &record, now)
    }

    /// Notes how long an answer took. It is written together with others, unless only few are known: then it is written at once.
    pub fn note_latency(&mut self, series: &Series, took: Duration, store: &mut dyn Store, now: Timestamp) {
        let number = series.number();
        if !self.latencies.iter().any(|measured| measured.series == number) {
            self.remember(series, number, &Record::new(series.fingerprint), Timestamp::ZERO);
        }
        let Some(measured) = self.latencies.iter_mut().find(|measured| measured.series == number) else {
            return;
        };
        if measured.noted.is_empty() {
            measured.since = now;
        }
        measured.noted.push(Bucket::of(took));
        let is_calm = measured.known.samples >= 2 * ENOUGH;
        if !is_calm || measured.noted.len() >= MAX_NOTED || now.since(measured.since) >= MAX_WAIT {
            self.write(series, number, store, now);
        }
    }

    /// Writes, for all workers, the collected latencies and the time that is settled by them.
    fn write(&mut self, series: &Series, number: u64, store: &mut dyn Store, now: Timestamp) -> Measured {
        let measured = self.latencies.iter_mut().find(|measured| measured.series == number);
        let (met, noted) = measured
            .map(|measured| (measured.since, std::mem::take(&mut measured.noted)))
            .unwrap_or_default();
        let written = update(store, &series.key, |bytes| {
            let mut record = Record::read(bytes, series.fingerprint);
            if !noted.is_empty() {
                record.count(&noted, met, series.window);
            }
            let is_settled = record.settle(now, series.window);
            let is_changed = is_settled || !noted.is_empty();
            (is_changed.then(|| record.encode()), record)
        });
        // If the record cannot be written, a few latencies are lost, which changes a percentile little.
        let record = written.unwrap_or(Record::new(series.fingerprint));
        self.remember(series, number, &record, now)
    }

    fn remember(&mut self, series: &Series, number: u64, record: &Record, now: Timestamp) -> Measured {
        let (samples, p95) = record.p95(now, series.window);
        let median = record.median(now, series.window);
        let known = Measured { samples, p95, median, settled: record.settled, load: Load::default() };
        let load = match self.latencies.iter_mut().find(|measured| measured.series == number) {
            Some(measured) => {
                measured.known = known;
                measured.read = now;
                measured.load.get()
            }
            None => {
                if self.latencies.len() >= MAX_SERIES {
                    self.latencies.clear();
                }
                self.latencies.push(CachedSeries {
                    series: number,
                    known,
                    load: SharedLoad::default(),
                    read: now,
                    noted: Vec::new(),
                    since: now,
                });
                Load::default()
            }
        };
        Measured { load, ..known }
    }

    /// What is under way in a series.
    pub(super) fn load(&mut self, series: &Series, store: &mut dyn Store, now: Timestamp) -> SharedLoad {
        let number = series.number();
        let find = |all: &[CachedSeries]| {
            all.iter().find(|known| known.series == number).map(|known| SharedLoad::clone(&known.load))
        };
        find(&self.latencies).unwrap_or_else(|| {
            self.latency(series, store, now);
            find(&self.latencies).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::{Memory, Swap, Version};

    const WINDOW: Duration = Duration::from_secs(300);

    /// A store that counts its calls.
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
        Series::new("p", 1, model, true, WINDOW)
    }

    const TOOK: Duration = Duration::from_millis(500);

    #[test]
    fn the_first_latencies_are_written_one_by_one_and_later_ones_in_batches() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for number in 1..=40 {
            ledger.note_latency(&series("m"), TOOK, &mut store, at(0));
            assert_eq!(ledger.latency(&series("m"), &mut store, at(0)).samples, number);
        }
        assert_eq!((store.loads, store.swaps), (40, 40));
        for _ in 0..320 {
            ledger.note_latency(&series("m"), TOOK, &mut store, at(10));
        }
        assert_eq!((store.loads, store.swaps), (50, 50));
    }

    #[test]
    fn a_worker_sees_the_latencies_of_another_one_a_second_later() {
        let (mut one, mut two, mut store) = (Ledger::default(), Ledger::default(), Counted::default());
        for number in 0..50 {
            one.note_latency(&series("m"), TOOK, &mut store, at(number));
        }
        assert_eq!(two.latency(&series("m"), &mut store, at(50)).samples, 40, "ten are not written yet");
        assert_eq!(one.latency(&series("m"), &mut store, at(900)).samples, 40, "what was read is still used");
        let loads = store.loads;
        for millis in 50..1050 {
            two.latency(&series("m"), &mut store, at(millis));
        }
        assert_eq!(store.loads, loads);
        assert_eq!(one.latency(&series("m"), &mut store, at(1045)).samples, 50, "what waited is written");
        let known = two.latency(&series("m"), &mut store, at(1050));
        assert_eq!(known.samples, 50);
        assert!((400..600).contains(&known.p95.as_millis()));
    }

    #[test]
    fn a_latency_that_waited_for_an_hour_is_an_hour_old() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for _ in 0..45 {
            ledger.note_latency(&series("m"), TOOK, &mut store, at(0));
        }
        assert_eq!(ledger.latency(&series("m"), &mut store, at(3_600_000)).samples, 0);
    }

    #[test]
    fn all_workers_use_the_same_settled_time_and_change_it_at_the_same_moment() {
        let (mut one, mut two, mut store) = (Ledger::default(), Ledger::default(), Counted::default());
        let settled = |ledger: &mut Ledger, store: &mut Counted, now: u64| {
            ledger.latency(&series("m"), store, at(now)).settled.time
        };
        for _ in 0..64 {
            one.note_latency(&series("m"), TOOK, &mut store, at(0));
        }
        let before = settled(&mut one, &mut store, 10_000);
        assert!((400..600).contains(&before), "{before}");
        for number in 0..200 {
            one.note_latency(&series("m"), TOOK * 4, &mut store, at(19_000 + number));
        }
        assert_eq!(
            [settled(&mut one, &mut store, 19_999), settled(&mut two, &mut store, 19_999)],
            [before; 2]
        );
        let after = [settled(&mut two, &mut store, 20_000), settled(&mut one, &mut store, 20_000)];
        assert!(after[0] == after[1] && after[0] > 3 * before, "{after:?}, also where the memory is fresh");
        let swaps = store.swaps;
        for now in 20_000..29_999 {
            assert_eq!([settled(&mut one, &mut store, now), settled(&mut two, &mut store, now)], after);
        }
        assert!(store.swaps <= swaps + 1, "an interval is decided once");
    }

    #[test]
    fn another_model_kind_window_or_provider_is_another_series() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        ledger.note_latency(&series("m"), TOOK, &mut store, at(0));
        for other in [
            series("m2"),
            Series::new("p", 1, "m", false, WINDOW),
            Series::new("p", 1, "m", true, WINDOW * 2),
            Series::new("q", 1, "m", true, WINDOW),
            Series::new("p", 2, "m", true, WINDOW),
        ] {
            assert_eq!(ledger.latency(&other, &mut store, at(0)).samples, 0, "{other:?}");
        }
    }

    #[test]
    fn when_the_record_cannot_be_written_only_latencies_are_lost() {
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
        ledger.note_latency(&series("m"), TOOK, &mut store, at(0));
        assert_eq!(ledger.latency(&series("m"), &mut store, at(0)), Measured::default());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut ledger, mut store) = (Ledger::default(), Counted::default());
        for number in 0..3000 {
            ledger.latency(&series(&number.to_string()), &mut store, at(0));
            assert!(ledger.latencies.len() <= MAX_SERIES);
        }
    }
}
