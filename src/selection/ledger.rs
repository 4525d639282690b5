//! What one worker remembers of the shared records, so that the common request asks the host for them rarely.
//!
//! A shared record is read again when what is remembered is older than [`FRESH`]; and successes that would only be counted
//! are noted here and written in one go. Everything else (a failure, a permit, a hold, the first success after any of
//! them) is read and written at once. One entry per provider, and no more than [`MOST`].

mod latency_cache;
mod scores;

use std::time::Duration;

use hashbrown::HashMap;

use crate::base::clock::Timestamp;
use crate::base::store::Store;
use crate::health::breaker::Record;
use crate::routing::provider::Identity;

use latency_cache::Measured;
pub use latency_cache::Series;
#[cfg(test)]
pub(crate) use scores::evaluate;
use scores::Scored;

/// For so long a record that was read is taken for the truth. What another worker learns is known here that much later:
/// shorter than any attempt, so that requests already under way when a breaker opens outnumber those admitted late.
const FRESH: Duration = Duration::from_millis(5);

/// So many successes are written in one go at most.
const NOTED: u32 = 32;

/// Providers remembered. Beyond it (many configurations, one after another) everything is read anew.
const MOST: usize = 256;

/// The memory.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<u64, Entry>,
    latencies: Vec<Measured>,
    scores: Vec<Scored>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    read: Timestamp,
    /// Successes not yet written, and since when.
    noted: u32,
    since: Timestamp,
}

impl Ledger {
    /// The provider's record, from memory if it is fresh.
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

    /// Takes note of a record that was just read or written.
    pub fn learn(&mut self, id: &Identity, record: Record, now: Timestamp) {
        if self.entries.len() >= MOST && !self.entries.contains_key(&id.fingerprint) {
            self.entries.clear();
        }
        let entry = self.entries.entry(id.fingerprint);
        let entry = entry.or_insert(Entry { record, read: now, noted: 0, since: now });
        entry.record = record;
        entry.read = now;
    }

    /// Notes a success, if it changes nothing but a count and need not be written yet. `window` is the breaker's.
    pub fn note_success(
        &mut self,
        id: &Identity,
        model: u64,
        store: &mut dyn Store,
        now: Timestamp,
        window: Duration,
    ) -> bool {
        // What was read when the request came is old by now: another worker may have counted a failure since, and this
        // success must end that row.
        let calm = self.record(id, store, now).is_calm(model);
        let Some(entry) = self.entries.get_mut(&id.fingerprint) else { return false };
        if entry.noted == 0 {
            entry.since = now;
        }
        // A tenth of the window is a bucket: all of them are counted in that of the first.
        let due = entry.noted >= NOTED || now.since(entry.since) > window / 10;
        if due || !calm {
            return false;
        }
        entry.noted = entry.noted.saturating_add(1);
        true
    }

    /// The successes that were noted, and since when; they are the caller's to write now.
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
        assert_eq!(noted, NOTED as usize);
        assert_eq!(ledger.take_successes(&id), (NOTED, at(0)));
        assert!(ledger.note_success(&id, 1, &mut store, at(0), WINDOW));
        assert!(
            !ledger.note_success(&id, 1, &mut store, at(3001), WINDOW),
            "older than a tenth of the window"
        );
    }

    #[test]
    fn nothing_is_kept_of_the_five_hundredth_configuration() {
        let (mut ledger, mut store) = (Ledger::default(), Memory::default());
        for number in 0..500 {
            ledger.record(&identity(&number.to_string()), &mut store, at(0));
            assert!(ledger.entries.len() <= MOST);
        }
    }
}
