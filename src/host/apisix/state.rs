//! What one worker of nginx remembers: its requests, the calls that it waits for, the store of the health records, and its
//! configurations.
//!
//! Workers are processes that share no data, so each learns for itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;

use super::{Hop, NUMBER};
use crate::base::store::{fingerprint, Memory, Store, Swap, Version};
use crate::bytes::ascii;
use crate::config::Config;
use crate::host::{sys, worker};
use crate::selection::plan::Env;

thread_local! {
    static HOPS: RefCell<HashMap<u64, Rc<RefCell<Hop>>>> = RefCell::new(HashMap::new());
    static CALLS: RefCell<Vec<(u32, HopNumber)>> = const { RefCell::new(Vec::new()) };
    static STORE: RefCell<Memory> = RefCell::new(Memory::default());
    static CONFIGS: RefCell<Vec<(u64, Option<Rc<Config>>)>> = const { RefCell::new(Vec::new()) };
    static LAST: Cell<u64> = const { Cell::new(0) };
    static INNER: RefCell<Inner> = const { RefCell::new(Inner::UNKNOWN) };
}

/// What this worker has seen of the address to which its calls go.
#[derive(Debug)]
pub(super) struct Inner {
    address: String,
    /// A call was answered there.
    pub(super) has_answered: bool,
    /// The port on which the try of a stream has come in, once that was compared with the address.
    pub(super) came_in: Option<u16>,
}

impl Inner {
    const UNKNOWN: Self = Self { address: String::new(), has_answered: false, came_in: None };
}

/// Calls `work` with what is known of an address. Of another address than the last one nothing is known.
#[inline(never)]
pub(super) fn with_inner(address: &str, work: &mut dyn FnMut(&mut Inner)) {
    INNER.with_borrow_mut(|inner| {
        if inner.address != address {
            *inner = Inner { address: address.to_owned(), ..Inner::UNKNOWN };
        }
        work(inner);
    });
}

/// The number under which this worker keeps a hop. The first one is random, so that no other worker has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HopNumber(u64);

impl HopNumber {
    /// A new number.
    pub(super) fn new() -> Self {
        let last = match LAST.get() {
            0 => worker::with_memory(|random, _| random.u64(..)),
            last => last,
        };
        let next = last.wrapping_add(1).max(1);
        LAST.set(next);
        Self(next)
    }

    /// The number of the hop that this callback is about.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&sys::property(NUMBER)?)
    }

    /// Reads a number as [`Self::text`] writes it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        ascii::whole(std::str::from_utf8(text).ok()?).map(Self)
    }

    /// Writes the number for the callbacks that follow; false if nginx lacks the variable.
    pub(super) fn write(self) -> bool {
        sys::set_property(NUMBER, self.text().as_bytes())
    }

    pub(super) fn text(self) -> String {
        self.0.to_string()
    }
}

/// Keeps a hop until [`remove`].
pub(super) fn insert(number: HopNumber, hop: Hop) {
    HOPS.with_borrow_mut(|all| all.insert(number.0, Rc::new(RefCell::new(hop))));
}

/// Forgets a hop.
pub(super) fn remove(number: HopNumber) -> Option<Hop> {
    let hop = HOPS.with_borrow_mut(|all| all.remove(&number.0))?;
    Rc::into_inner(hop).map(RefCell::into_inner)
}

/// Calls `work` with a hop of this worker; `None` if there is no such hop, or if it is in use.
pub(super) fn with_hop<T>(number: HopNumber, work: impl FnOnce(&mut Hop) -> T) -> Option<T> {
    let hop = HOPS.with_borrow(|all| all.get(&number.0).cloned())?;
    let mut hop = hop.try_borrow_mut().ok()?;
    Some(work(&mut hop))
}

/// Notes which hop has made a call.
pub(super) fn insert_call(call: u32, hop: HopNumber) {
    CALLS.with_borrow_mut(|all| all.push((call, hop)));
}

/// The hop that has made a call, which has ended.
pub(super) fn remove_call(call: u32) -> Option<HopNumber> {
    CALLS.with_borrow_mut(|all| {
        let place = all.iter().position(|(known, _)| *known == call)?;
        Some(all.swap_remove(place).1)
    })
}

/// Calls `work` with the clock, the store and the memory that the core needs.
pub(super) fn with_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    STORE.with_borrow_mut(|store| {
        worker::with_memory(|random, ledger| work(&mut Env { now: sys::now(), store, random, ledger }))
    })
}

/// The same as [`with_env`], but nothing is written into the store: the router, not the attempt, reports the outcome of the attempt.
pub(super) fn with_frozen_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    STORE.with_borrow_mut(|store| {
        worker::with_memory(|random, _| {
            let (store, ledger) = (&mut Frozen(store), &mut Default::default());
            work(&mut Env { now: sys::now(), store, random, ledger })
        })
    })
}

/// [`with_env`] as a function pointer.
pub(super) fn in_env(work: &mut dyn FnMut(&mut Env<'_>)) {
    with_env(work);
}

/// [`with_frozen_env`] as a function pointer.
pub(super) fn in_frozen_env(work: &mut dyn FnMut(&mut Env<'_>)) {
    with_frozen_env(work);
}

/// A store that drops what is written into it.
struct Frozen<'a>(&'a mut Memory);

impl Store for Frozen<'_> {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.0.load(key)
    }

    fn compare_and_swap(&mut self, _: &str, _: &[u8], _: Version) -> Swap {
        Swap::Done
    }
}

/// How many configurations a worker keeps: the present one, and those of requests that are still under way.
const MOST_CONFIGS: usize = 4;

/// The configuration of a document. Every route has the same document, which each worker parses once. `None` if it has problems; `parse`
/// has logged them.
pub(in crate::host) fn shared_config(
    text: &str,
    parse: impl FnOnce() -> Option<Rc<Config>>,
) -> Option<Rc<Config>> {
    let id = fingerprint([text]);
    let known = CONFIGS
        .with_borrow(|all| all.iter().find(|(known, _)| *known == id).map(|(_, config)| config.clone()));
    known.unwrap_or_else(|| {
        let config = parse();
        CONFIGS.with_borrow_mut(|all| {
            all.truncate(MOST_CONFIGS - 1);
            all.insert(0, (id, config.clone()));
        });
        config
    })
}
