//! Where state is kept between requests: a small compare-and-swap map behind one trait.
//!
//! On Envoy it is the host's shared data, which all workers see; elsewhere, and in tests, it is [`Memory`]. Callers do not loop
//! themselves: [`update`] retries a bounded number of times, and returns an error value if it lost every race.

use hashbrown::HashMap;

/// The version of a stored value, as the store counts it. `None` means that the key was absent.
pub type Version = Option<u32>;

/// The result of [`Store::compare_and_swap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The value is stored.
    Done,
    /// The value is not stored, because somebody else wrote since the version was read.
    Lost,
}

/// A map from short names to small records.
pub trait Store {
    /// Reads a value and its version. If the key is absent, or the host cannot answer, the value is empty.
    fn load(&mut self, key: &str) -> (Vec<u8>, Version);

    /// Writes `value` if the key still has `version`.
    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap;
}

/// The error of [`update`]: other writers came first in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contended;

/// How often [`update`] tries. With W workers at most W - 1 other writers can come first, and each of them has made progress
/// then; sixteen lost races in a row mean that something else is wrong.
const ROUNDS: usize = 16;

/// Reads a record, calls `change` with it, and writes the bytes that it returns. If another writer came between, all of it is
/// repeated.
///
/// `change` must be pure, because it may run several times. It returns the new bytes (`None` to leave the record as it is) and a
/// result for the caller.
///
/// # Errors
/// [`Contended`] when another writer came first in every round; nothing is written then.
pub fn update<T>(
    store: &mut dyn Store,
    key: &str,
    mut change: impl FnMut(&[u8]) -> (Option<Vec<u8>>, T),
) -> Result<T, Contended> {
    for _ in 0..ROUNDS {
        let (old, version) = store.load(key);
        let (new, answer) = change(&old);
        let Some(new) = new else { return Ok(answer) };
        match store.compare_and_swap(key, &new, version) {
            Swap::Done => return Ok(answer),
            Swap::Lost => {}
        }
    }
    Err(Contended)
}

/// A 64-bit FNV-1a hash over texts, never zero. Unlike a seeded hash it is the same in every VM and after every restart.
pub fn fingerprint<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        // The byte 0xFF is in no UTF-8 text, so that ("ab", "c") and ("a", "bc") have different hashes.
        for byte in text.bytes().chain([0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash.max(1)
}

/// The most records that one worker keeps. Their names come from the configuration, so this bounds what many configurations leave
/// behind, one after another.
const MOST_RECORDS: usize = 16_384;

/// A [`Store`] in this VM's own memory: no other worker sees what is stored here. When it is full it forgets everything, as a restart
/// does.
#[derive(Debug, Default)]
pub struct Memory {
    entries: HashMap<String, (Vec<u8>, u32)>,
}

#[cfg(test)]
impl Memory {
    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

impl Store for Memory {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        match self.entries.get(key) {
            Some((value, version)) => (value.clone(), Some(*version)),
            None => (Vec::new(), None),
        }
    }

    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        let current = self.entries.get(key).map(|(_, version)| *version);
        if current != version {
            return Swap::Lost;
        }
        if current.is_none() && self.entries.len() >= MOST_RECORDS {
            self.entries.clear();
        }
        let next = current.unwrap_or(0).wrapping_add(1);
        self.entries.insert(key.to_owned(), (value.to_vec(), next));
        Swap::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that loses the first `losses` races, as if another worker had always been quicker.
    struct Busy {
        inner: Memory,
        losses: usize,
    }

    impl Store for Busy {
        fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
            self.inner.load(key)
        }
        fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
            if self.losses > 0 {
                self.losses -= 1;
                return Swap::Lost;
            }
            self.inner.compare_and_swap(key, value, version)
        }
    }

    fn count(store: &mut dyn Store) -> Result<u8, Contended> {
        update(store, "k", |old| {
            let next = old.first().copied().unwrap_or(0) + 1;
            (Some(vec![next]), next)
        })
    }

    #[test]
    fn an_update_runs_again_after_a_lost_race() {
        let mut store = Busy { inner: Memory::default(), losses: 3 };
        assert_eq!(count(&mut store), Ok(1));
        assert_eq!(count(&mut store), Ok(2));
    }

    #[test]
    fn a_race_lost_for_ever_is_a_value_and_writes_nothing() {
        let mut store = Busy { inner: Memory::default(), losses: usize::MAX };
        assert_eq!(count(&mut store), Err(Contended));
        assert_eq!(store.load("k"), (Vec::new(), None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut store = Memory::default();
        for number in 0..=MOST_RECORDS {
            assert_eq!(store.compare_and_swap(&number.to_string(), b"x", None), Swap::Done);
            assert!(store.entries.len() <= MOST_RECORDS);
        }
        assert_eq!(store.load(&MOST_RECORDS.to_string()).0, b"x", "the newest is there");
    }

    #[test]
    fn a_stale_version_loses() {
        let mut store = Memory::default();
        assert_eq!(store.compare_and_swap("k", b"a", None), Swap::Done);
        assert_eq!(store.compare_and_swap("k", b"b", None), Swap::Lost);
        let (_, version) = store.load("k");
        assert_eq!(store.compare_and_swap("k", b"b", version), Swap::Done);
        assert_eq!(store.compare_and_swap("k", b"c", version), Swap::Lost);
    }
}
