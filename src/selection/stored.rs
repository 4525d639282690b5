//! Remembers which provider keeps a stored response or conversation, so that a request that continues it
//! (`previous_response_id`, `conversation`) goes to that provider; and which provider made a reasoning item, so that nobody else is sent
//! it.
//!
//! A hash of the id selects one of a fixed number of records, and each record holds the last ids that belong to it: about sixteen
//! thousand in all. Ids that newer ones replaced, or that a restart of the gateway removed, are unknown.

use crate::base::store::{fingerprint, update, Store};

/// The number of records.
const RECORDS: u64 = 1024;
/// The number of ids in a record.
const RING: usize = 16;
/// The bytes of an entry: the hash of the id, and the hash of the name of the provider that keeps it.
const ENTRY: usize = 16;

fn key(id: u64) -> String {
    ["shunt.stored.", &(id % RECORDS).to_string()].concat()
}

/// Remembers that a provider keeps an object. `id` is the [`fingerprint`] of the object's id, `provider` the provider's name.
pub fn remember(id: u64, provider: &str, store: &mut dyn Store) {
    let id_bytes = id.to_le_bytes();
    let entry = [id_bytes, fingerprint([provider]).to_le_bytes()].concat();
    // If the record cannot be written, one id is forgotten.
    let _ = update(store, &key(id), |ring| {
        if ring.chunks_exact(ENTRY).find(|known| known.starts_with(&id_bytes)) == Some(&entry) {
            return (None, ());
        }
        let kept = ring.get(..ring.len().min(ENTRY * (RING - 1))).unwrap_or_default();
        (Some([entry.as_slice(), kept].concat()), ())
    });
}

/// The one of the named providers that keeps the object with this id; `None` if that is unknown.
pub fn find<'a>(
    id: &str,
    mut providers: impl Iterator<Item = &'a str>,
    store: &mut dyn Store,
) -> Option<&'a str> {
    let keeper = keeper(fingerprint([id]), store)?;
    providers.find(|name| fingerprint([*name]) == keeper)
}

/// The [`fingerprint`] of the name of the provider that keeps, or made, the object with this fingerprint; `None` if that is unknown.
pub fn keeper(id: u64, store: &mut dyn Store) -> Option<u64> {
    let (ring, _) = store.load(&key(id));
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let entry = ring.chunks_exact(ENTRY).find(|entry| number(entry) == Some(id))?;
    number(entry.get(8..)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::Memory;

    const ALL: [&str; 2] = ["one", "two"];

    #[test]
    fn the_provider_of_a_response_is_found_until_many_others_were_stored() {
        let mut store = Memory::default();
        let id = |number: usize| format!("resp_{number}");
        for number in 0..1000 {
            remember(fingerprint([id(number).as_str()]), ALL[number % 2], &mut store);
        }
        let found = (0..1000).filter(|number| {
            let found = find(&id(*number), ALL.into_iter(), &mut store);
            assert!(found.is_none_or(|name| name == ALL[number % 2]));
            found.is_some()
        });
        assert!(found.count() > 990);
        for number in 1000..100_000 {
            remember(fingerprint([id(number).as_str()]), "two", &mut store);
        }
        assert_eq!(find(&id(0), ALL.into_iter(), &mut store), None);
        assert_eq!(find(&id(99_999), ALL.into_iter(), &mut store), Some("two"));
        assert_eq!(
            find(&id(99_999), ["one"].into_iter(), &mut store),
            None,
            "its provider is no longer configured"
        );
    }

    #[test]
    fn an_id_that_is_known_already_replaces_no_other() {
        let mut store = Memory::default();
        let record = |id: &String| key(fingerprint([id.as_str()]));
        let ids = (0..).map(|number| format!("conv_{number}"));
        let mut same = ids.filter(|id| record(id) == record(&"conv_0".to_owned())).take(2);
        let [first, second] = [(); 2].map(|()| same.next().unwrap());
        remember(fingerprint([first.as_str()]), "one", &mut store);
        for _ in 0..100 {
            remember(fingerprint([second.as_str()]), "two", &mut store);
        }
        assert_eq!(find(&first, ALL.into_iter(), &mut store), Some("one"));
        // An object that moves is found at its last provider.
        for keeper in ["one", "two", "one"] {
            remember(fingerprint([second.as_str()]), keeper, &mut store);
            assert_eq!(find(&second, ALL.into_iter(), &mut store), Some(keeper));
        }
    }
}
