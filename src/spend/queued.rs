//! Responses that their provider writes in the background, and that were billed what was expected of them. They are remembered until
//! somebody reads what they used, so that the real cost can take the place of the expected one.
//!
//! A hash of the response's id selects one of a fixed number of records, and each record holds the last responses that belong to it.
//! A response that newer ones replaced, or that a restart of the gateway removed, stays at its expected cost.

use crate::base::clock::Timestamp;
use crate::base::store::{Store, Swap};
use crate::spend::cost::Money;

/// The number of records.
const RECORDS: u64 = 64;
/// The most bytes of a record: some fifty responses.
const MOST_BYTES: usize = 8 << 10;
/// The most bytes of one response.
const MOST_ENTRY: usize = 1024;
/// How often a record is written anew if others write it at the same time. A response that is lost stays at its expected cost.
const ROUNDS: usize = 8;
/// What stands between the texts. No name, and no header, has it.
const BETWEEN: char = '\0';

/// What was billed for a response, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// When its request began.
    pub started: Timestamp,
    /// When it was billed.
    pub billed_at: Timestamp,
    /// What was billed.
    pub billed: Money,
    texts: String,
}

fn key(id: u64) -> String {
    ["shunt.queued.", &(id % RECORDS).to_string()].concat()
}

/// The first response of a record, and the rest of it. A response is its id, the length of what follows, the two times, the
/// amount and the texts.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = bytes.get(8..)?.first_chunk::<2>()?;
    bytes.split_at_checked(usize::from(u16::from_le_bytes(*len)) + 10)
}

impl Queued {
    /// What was billed, with the times of the request's begin and of the bill. `texts` are the tenant, the route, the provider, and the model that the client asked for.
    pub fn new([started, billed_at]: [Timestamp; 2], billed: Money, texts: [&str; 4]) -> Self {
        let [tenant, route, provider, model] = texts;
        let texts = [tenant, "\0", route, "\0", provider, "\0", model].concat();
        Self { started, billed_at, billed, texts }
    }

    /// The tenant, the route, the provider, and the model that the client asked for.
    pub fn texts(&self) -> [&str; 4] {
        let mut texts = self.texts.split(BETWEEN);
        [(); 4].map(|()| texts.next().unwrap_or_default())
    }

    fn encode(&self, id: u64) -> Vec<u8> {
        let mut out = id.to_le_bytes().to_vec();
        out.extend((self.texts.len() as u16 + 24).to_le_bytes());
        out.extend(self.started.as_millis().to_le_bytes());
        out.extend(self.billed_at.as_millis().to_le_bytes());
        out.extend(self.billed.as_pico().to_le_bytes());
        out.extend(self.texts.as_bytes());
        out
    }

    fn decode(entry: &[u8]) -> Option<Self> {
        let number = |at: usize| entry.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        let [started, billed_at] = [Timestamp::from_millis(number(10)?), Timestamp::from_millis(number(18)?)];
        let texts = std::str::from_utf8(entry.get(34..)?).ok()?.to_owned();
        Some(Self { started, billed_at, billed: Money::from_pico(number(26)?), texts })
    }
}

/// Remembers what was billed for the response with this id (the fingerprint of its text).
pub fn remember(id: u64, queued: &Queued, store: &mut dyn Store) {
    if queued.texts.len() <= MOST_ENTRY {
        write(id, &queued.encode(id), store);
    }
}

/// Whether the response with this id is remembered.
pub fn is_known(id: u64, store: &mut dyn Store) -> bool {
    let (bytes, _) = store.load(&key(id));
    let mut rest = bytes.as_slice();
    while let Some((entry, after)) = split(rest) {
        if entry.starts_with(&id.to_le_bytes()) {
            return true;
        }
        rest = after;
    }
    false
}

/// Takes the response with this id out of its record: only one reader gets it.
pub fn take(id: u64, store: &mut dyn Store) -> Option<Queued> {
    Queued::decode(&write(id, &[], store)?)
}

/// Puts an entry, which may be empty, in the place of what a record has of this id. Returns what it had.
#[inline(never)]
fn write(id: u64, entry: &[u8], store: &mut dyn Store) -> Option<Vec<u8>> {
    let key = key(id);
    for _ in 0..ROUNDS {
        let (bytes, version) = store.load(&key);
        let (mut out, mut before) = (entry.to_vec(), None);
        let mut rest = bytes.as_slice();
        while let Some((known, after)) = split(rest) {
            if known.starts_with(&id.to_le_bytes()) {
                before = Some(known.to_vec());
            } else if out.len() + known.len() <= MOST_BYTES {
                out.extend_from_slice(known);
            }
            rest = after;
        }
        if entry.is_empty() && before.is_none() {
            return None;
        }
        if store.compare_and_swap(&key, &out, version) == Swap::Done {
            return before;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::Memory;

    fn queued(number: u64) -> Queued {
        let texts = [&*format!("team-{number}"), "", "openai", "assistant"];
        let queued = Queued::new(
            [number, number + 3].map(Timestamp::from_millis),
            Money::from_pico(number + 7),
            texts,
        );
        assert_eq!(queued.texts(), texts);
        queued
    }

    #[test]
    fn a_response_is_taken_once_by_whoever_reads_it_first() {
        let mut store = Memory::default();
        // All of them in one record.
        let ids = [1, 1 + RECORDS, 1 + 2 * RECORDS];
        for id in ids {
            remember(id, &queued(id), &mut store);
        }
        for id in [ids[1], ids[0], ids[2]] {
            assert!(is_known(id, &mut store));
            assert_eq!(take(id, &mut store), Some(queued(id)));
            assert!(!is_known(id, &mut store));
            assert_eq!(take(id, &mut store), None);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_is_forgotten() {
        let mut store = Memory::default();
        for number in 0..1000 {
            remember(number * RECORDS, &queued(number), &mut store);
            assert!(store.load("shunt.queued.0").0.len() <= MOST_BYTES);
        }
        assert!(is_known(999 * RECORDS, &mut store) && is_known(900 * RECORDS, &mut store));
        assert!(!is_known(0, &mut store));
        let long = Queued { texts: "x".repeat(MOST_ENTRY + 1), ..queued(5) };
        remember(5, &long, &mut store);
        assert!(!is_known(5, &mut store), "it stays at its expected cost");
    }

    #[test]
    fn a_damaged_record_is_read_as_far_as_it_can_be() {
        let mut store = Memory::default();
        remember(0, &queued(1), &mut store);
        remember(RECORDS, &queued(2), &mut store);
        let (good, _) = store.load("shunt.queued.0");
        for len in 0..good.len() {
            let mut store = Memory::default();
            store.compare_and_swap("shunt.queued.0", &good[..len], None);
            // The older one stands at the end.
            assert_eq!(take(0, &mut store), None, "{len}");
            remember(3 * RECORDS, &queued(3), &mut store);
            assert_eq!(take(3 * RECORDS, &mut store), Some(queued(3)));
        }
    }
}
