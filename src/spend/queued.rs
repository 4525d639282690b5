//! Responses that their provider writes in the background, and that were billed what was expected of them. They are remembered until
//! somebody reads what they used, so that the real cost can take the place of the expected one.
//!
//! A hash of the response's id selects one of a fixed number of records, and each record holds the last responses that belong to it.
//! A response that newer ones replaced, or that a restart of the gateway removed, stays at its expected cost.

use crate::base::clock::Timestamp;
use crate::base::store::{update, Store};
use crate::spend::cost::Money;

/// The number of records.
const RECORDS: u64 = 64;
/// The most bytes of a record: some fifty responses.
const MOST_BYTES: usize = 8 << 10;
/// The most bytes of one response's texts.
const MOST_TEXT: usize = 1024;
/// What stands between the texts. No name, and no header, has it.
const BETWEEN: &str = "\0";

/// What was billed for a response, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// When its request began.
    pub started: Timestamp,
    /// What was billed.
    pub billed: Money,
    /// The tenant.
    pub tenant: String,
    /// The name of the route.
    pub route: String,
    /// The name of the provider.
    pub provider: String,
    /// The model that the client asked for.
    pub model: String,
}

fn key(id: u64) -> String {
    ["shunt.queued.", &(id % RECORDS).to_string()].concat()
}

impl Queued {
    fn encode(&self, id: u64) -> Option<Vec<u8>> {
        let texts = [&*self.tenant, &*self.route, &*self.provider, &*self.model].join(BETWEEN);
        let len = u16::try_from(texts.len()).ok().filter(|len| usize::from(*len) <= MOST_TEXT)?;
        let mut out = Vec::with_capacity(texts.len() + 26);
        for number in [id, self.started.as_millis(), self.billed.as_pico()] {
            out.extend(number.to_le_bytes());
        }
        out.extend(len.to_le_bytes());
        out.extend(texts.into_bytes());
        Some(out)
    }

    /// The first response of a record, with its id, and the rest of the record.
    fn decode(bytes: &[u8]) -> Option<(u64, Self, &[u8])> {
        let mut rest = bytes;
        let mut next = || {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let (id, started, billed) = (next()?, next()?, next()?);
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (texts, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let mut texts = std::str::from_utf8(texts).ok()?.split(BETWEEN).map(str::to_owned);
        let (tenant, route, provider, model) = (texts.next()?, texts.next()?, texts.next()?, texts.next()?);
        let (started, billed) = (Timestamp::from_millis(started), Money::from_pico(billed));
        Some((id, Self { started, billed, tenant, route, provider, model }, rest))
    }
}

/// Remembers what was billed for the response with this id (the fingerprint of its text).
pub fn remember(id: u64, queued: &Queued, store: &mut dyn Store) {
    let Some(entry) = queued.encode(id) else { return };
    // If the record cannot be written, the response stays at its expected cost.
    let _ = update(store, &key(id), |bytes| {
        let mut kept = bytes;
        let mut size = entry.len();
        while let Some((_, _, rest)) = Queued::decode(kept) {
            size += kept.len() - rest.len();
            if size > MOST_BYTES {
                break;
            }
            kept = rest;
        }
        let kept = bytes.get(..bytes.len() - kept.len()).unwrap_or_default();
        (Some([entry.as_slice(), kept].concat()), ())
    });
}

/// Whether the response with this id is remembered.
pub fn is_known(id: u64, store: &mut dyn Store) -> bool {
    split(&store.load(&key(id)).0, id).is_some()
}

/// Takes the response with this id out of the record: only one reader gets it.
pub fn take(id: u64, store: &mut dyn Store) -> Option<Queued> {
    let taken = update(store, &key(id), |bytes| match split(bytes, id) {
        Some((before, queued, after)) => (Some([before, after].concat()), Some(queued)),
        None => (None, None),
    });
    taken.ok().flatten()
}

/// What stands in a record before the response with this id, the response, and what stands behind it.
fn split(bytes: &[u8], id: u64) -> Option<(&[u8], Queued, &[u8])> {
    let mut at = bytes;
    while let Some((found, queued, rest)) = Queued::decode(at) {
        if found == id {
            return Some((bytes.get(..bytes.len() - at.len())?, queued, rest));
        }
        at = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::Memory;

    fn queued(number: u64) -> Queued {
        Queued {
            started: Timestamp::from_millis(number),
            billed: Money::from_pico(number + 7),
            tenant: format!("team-{number}"),
            route: String::new(),
            provider: "openai".to_owned(),
            model: "assistant".to_owned(),
        }
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
        let long = Queued { tenant: "x".repeat(MOST_TEXT), ..queued(5) };
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
            assert_eq!(take(0, &mut store), None, "{len}");
            remember(3 * RECORDS, &queued(3), &mut store);
            assert_eq!(take(3 * RECORDS, &mut store), Some(queued(3)));
        }
    }
}
