//! One worker's memory of the shared health records, which saves most requests a call to the host's store.
//!
//! A shared record is read again when the remembered one is older than [`FRESH`]. Successes that only add to a count are
//! collected here and written together. Everything else (a failure, a permit, a hold, the first success after any of them) is
//! read and written at once. There is one entry per provider, and at most [`MAX_PROVIDERS`].

mod latency_cache;
mod scores;
mod waiting;

use std::time::Duration;

use hashbrown::HashMap;

use crate::base::clock::Timestamp;
use crate::base::store::Store;
use crate::health::breaker::Record;
use crate::routing::provider::Identity;

use latency_cache::CachedSeries;
pub use latency_cache::Series;
#[cfg(test)]
pub(crate) use scores::evaluate;
use scores::Scored;
pub use waiting::Waiting;

/// How long a record that was read is used without reading it again. This worker sees what another one writes with this delay.
/// It is shorter than any attempt: when a breaker opens, more requests are under way already than are admitted too late.
const FRESH: Duration = Duration::from_millis(5);

/// The number of successes after which the collected ones are written.
const MAX_NOTED: u32 = 32;

/// The number of providers remembered. More appear only after many changes of the configuration; then the memory starts anew.
const MAX_PROVIDERS: usize = 256;

/// The memory of one worker.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<u64, Entry>,
    latencies: Vec<CachedSeries>,
    scores: Vec<Scored>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    read: Timestamp,
    /// Successes that are not yet written.
    noted: u32,
    /// When the first of them was noted.
    since: Timestamp,
}

impl Ledger {
    /// The provider's health record: from memory if that is fresh, else from the store.
    pub fn record(&mut self, id: &Identity, store: &mut dyn Store, now: Timestamp) -> Record {
        if let Some(entry) = self.entries.get(&id.fingerprint) {
            if entry.read <= now && now.since(entry.read) < FRESH {
                return entry.record;
            }
        }
        let (bytes, _) = store.load(&id.record);
        let record = Record::read(&bytes, id.fingerprint);
        self.learn(id, record, now);
        record
    }

    /// Remembers a record that was just read or written.
    pub fn learn(&mut self, id: &Identity, record: Record, now: Timestamp) {
        if self.entries.len() >= MAX_PROVIDERS && !self.entries.contains_key(&id.fingerprint) {
            self.entries.clear();
        }
        let entry = self.entries.entry(id.fingerprint);
        let entry = entry.or_insert(Entry { record, read: now, noted: 0, since: now });
        entry.record = record;
        entry.read = now;
    }

    /// Notes a success if it only adds to a count and need not be written yet; returns whether it did. `window` is the length of
    /// the breaker's window.
    pub fn note_success(
        &mut self,
        id: &Identity,
        model: u64,
        store: &mut dyn Store,
        now: Timestamp,
        window: Duration,
    ) -> bool {
        // The record that was read when the request came is old by now. Another worker may have counted a failure since then, and
        // this success must end that run of failures.
        let calm = self.record(id, store, now).is_calm(model);
        let Some(entry) = self.entries.get_mut(&id.fingerprint) else { return false };
        if entry.noted == 0 {
            entry.since = now;
        }
        // All noted successes are counted in the window's bucket of the first one, and a bucket is a tenth of the window.
        let due = entry.noted >= MAX_NOTED || now.since(entry.since) > window / 10;
        if due || !calm {
            return false;
        }
        entry.noted += 1;
        true
    }

    /// Takes the successes that were noted, and when the first of them was. The caller must write them.
    pub fn take_successes(&mut self, id: &Identity) -> (u32, Timestamp) {
        self.entries
            .get_mut(&id.fingerprint)
            .map_or((0, Timestamp::ZERO), |entry| (std::mem::take(&mut entry.noted), entry.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::Memory;
    use crate::routing::provider::ApiKey;

    const WINDOW: Duration = Duration::from_secs(30);

    fn identity(name: &str) -> Identity {
        Identity::of(name, "h", "/v1", &ApiKey::new("", "sk-1").unwrap())
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn a_record_is_read_again_when_it_is_not_fresh() {
        let (mut ledger, mut store, id) = (Ledger::default(), Memory::default(), identity("p"));
        let empty = ledger.record(&id, &mut store, at(0));
        let mut other = empty;
        other.count_successes(7, at(0), WINDOW);
        store.compare_and_swap(&id.record, &other.encode(), None);
        assert_eq!(ledger.record(&id, &mut store, at(4)), empty);
        assert_eq!(ledger.record(&id, &mut store, at(5)), other);
        assert_eq!(ledger.record(&id, &mut store, at(0)), other, "a clock that went back");
    }

    #[test]
    fn successes_are_noted_up_to_a_number_and_a_time() {
        let (mut ledger, mut store, id) = (Ledger::default(), Memory::default(), identity("p"));
        ledger.record(&id, &mut store, at(0));
        let noted = (0..100).take_while(|_| ledger.note_success(&id, 1, &mut store, at(0), WINDOW)).count();
        assert_eq!(noted, MAX_NOTED as usize);
        assert_eq!(ledger.take_successes(&id), (MAX_NOTED, at(0)));
        assert!(ledger.note_success(&id, 1, &mut store, at(0), WINDOW));
        assert!(
            !ledger.note_success(&id, 1, &mut store, at(3001), WINDOW),
            "older than a tenth of the window"
        );
    }

    #[test]
    fn the_memory_does_not_grow_with_every_configuration() {
        let (mut ledger, mut store) = (Ledger::default(), Memory::default());
        for number in 0..500 {
            ledger.record(&identity(&number.to_string()), &mut store, at(0));
            assert!(ledger.entries.len() <= MAX_PROVIDERS);
        }
    }
}
