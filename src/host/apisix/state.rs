//! What one worker remembers: its requests, the calls that it waits for, the providers' records, and its configurations.
//!
//! Workers share nothing, so each learns alone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;

use super::{Hop, TICKET};
use crate::base::store::{fingerprint, Memory, Store, Swap, Version};
use crate::config::Config;
use crate::host::{sys, worker};
use crate::selection::plan::Env;

thread_local! {
    static HOPS: RefCell<HashMap<u64, Rc<RefCell<Hop>>>> = RefCell::new(HashMap::new());
    static CALLS: RefCell<HashMap<u32, Ticket>> = RefCell::new(HashMap::new());
    static STORE: RefCell<Memory> = RefCell::new(Memory::default());
    static CONFIGS: RefCell<Vec<(u64, Option<Rc<Config>>)>> = const { RefCell::new(Vec::new()) };
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// A request's number: counted from a random one, so that no other worker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Ticket {
    /// The number of the request of this callback.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&sys::property(TICKET)?)
    }

    /// Reads a number as [`Self::text`] writes it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?.parse().ok().map(Self)
    }

    /// Leaves the number for the other callbacks; false if nginx has no such variable.
    pub(super) fn write(self) -> bool {
        sys::set_property(TICKET, self.text().as_bytes())
    }

    pub(super) fn text(self) -> String {
        self.0.to_string()
    }
}

/// A new number.
pub(super) fn ticket() -> Ticket {
    let last = match LAST.get() {
        0 => worker::with_memory(|random, _| random.u64(..)),
        last => last,
    };
    let next = last.wrapping_add(1).max(1);
    LAST.set(next);
    Ticket(next)
}

/// Keeps a request until [`remove`].
pub(super) fn insert(ticket: Ticket, hop: Hop) {
    HOPS.with_borrow_mut(|all| all.insert(ticket.0, Rc::new(RefCell::new(hop))));
}

/// Forgets a request.
pub(super) fn remove(ticket: Ticket) -> Option<Hop> {
    let hop = HOPS.with_borrow_mut(|all| all.remove(&ticket.0))?;
    Rc::into_inner(hop).map(RefCell::into_inner)
}

/// Works on a request of this worker.
pub(super) fn with_hop<T>(ticket: Ticket, work: impl FnOnce(&mut Hop) -> T) -> Option<T> {
    let hop = HOPS.with_borrow(|all| all.get(&ticket.0).cloned())?;
    let mut hop = hop.try_borrow_mut().ok()?;
    Some(work(&mut hop))
}

/// Notes whose call it is.
pub(super) fn calls(call: u32, ticket: Ticket) {
    CALLS.with_borrow_mut(|all| all.insert(call, ticket));
}

/// Whose call it was.
pub(super) fn called(call: u32) -> Option<Ticket> {
    CALLS.with_borrow_mut(|all| all.remove(&call))
}

/// Calls `work` with what the core needs of the world.
pub(super) fn with_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    STORE.with_borrow_mut(|store| {
        worker::with_memory(|random, ledger| work(&mut Env { now: sys::now(), store, random, ledger }))
    })
}

/// As [`with_env`], but nothing is written: what an attempt comes to, its router will report.
pub(super) fn with_frozen_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    STORE.with_borrow_mut(|store| {
        worker::with_memory(|random, _| {
            let (store, ledger) = (&mut Frozen(store), &mut Default::default());
            work(&mut Env { now: sys::now(), store, random, ledger })
        })
    })
}

/// [`with_env`] as a [`World`](super::calls::World).
pub(super) fn in_env(work: &mut dyn FnMut(&mut Env<'_>)) {
    with_env(work);
}

/// [`with_frozen_env`] as a [`World`](super::calls::World).
pub(super) fn in_frozen_env(work: &mut dyn FnMut(&mut Env<'_>)) {
    with_frozen_env(work);
}

/// A store that takes what is written for written, and forgets it.
struct Frozen<'a>(&'a mut Memory);

impl Store for Frozen<'_> {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.0.load(key)
    }

    fn compare_and_swap(&mut self, _: &str, _: &[u8], _: Version) -> Swap {
        Swap::Done
    }
}

/// So many documents a worker keeps: that of now, and those of requests still under way.
const MOST_CONFIGS: usize = 4;

/// The configuration of a document: every route brings it, once per worker. `None` if it has problems, which are logged.
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
