//! What a VM remembers between callbacks: the requests under way, and which providers the route cannot reach.
//!
//! Router and attempts of one request run in the same VM (same `vm_id`, same `vm_config`, same worker), so they share
//! the exchange itself; only its number travels, as filter state of the request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use fastrand::Rng;
use hashbrown::HashMap;

use crate::exchange::Exchange;
use crate::ledger::Ledger;

/// An exchange that router and attempts share.
pub(super) type Shared = Rc<RefCell<Exchange>>;

thread_local! {
    static EXCHANGES: RefCell<HashMap<u32, Shared>> = RefCell::new(HashMap::new());
    static UNMAPPED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static MEMORY: Cell<Option<(Rng, Ledger)>> = const { Cell::new(None) };
}

/// Keeps an exchange until [`remove`]; `id` is the router's context.
pub(super) fn insert(id: u32, exchange: Shared) {
    EXCHANGES.with_borrow_mut(|all| all.insert(id, exchange));
}

/// The exchange of a router's context.
pub(super) fn find(id: u32) -> Option<Shared> {
    EXCHANGES.with_borrow(|all| all.get(&id).cloned())
}

/// Forgets an exchange; attempts that still run keep it alive.
pub(super) fn remove(id: u32) {
    EXCHANGES.with_borrow_mut(|all| all.remove(&id));
}

/// Notes that the route's map lacks a provider. Returns whether that is news.
pub(super) fn note_unmapped(provider: &str) -> bool {
    UNMAPPED.with_borrow_mut(|all| {
        let news = !all.iter().any(|known| known == provider);
        if news {
            all.push(provider.to_owned());
        }
        news
    })
}

/// Whether the route's map has the provider, as far as is known.
pub(super) fn is_mapped(provider: &str) -> bool {
    UNMAPPED.with_borrow(|all| !all.iter().any(|known| known == provider))
}

/// A new configuration came: the map may be another one.
pub(super) fn forget_unmapped() {
    UNMAPPED.with_borrow_mut(Vec::clear);
}

/// Lends the worker's generator and its memory of the records.
pub(super) fn with_memory<T>(work: impl FnOnce(&mut Rng, &mut Ledger) -> T) -> T {
    let (mut random, mut ledger) = MEMORY.take().unwrap_or_default();
    let result = work(&mut random, &mut ledger);
    MEMORY.set(Some((random, ledger)));
    result
}
