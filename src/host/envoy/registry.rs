//! What a VM remembers between callbacks: the requests under way, and which providers the gateway cannot reach.
//!
//! Router and attempts of one request run in the same VM (same `vm_id`, same `vm_config`, same worker), so they share
//! the exchange itself; only its number travels, as filter state of the request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::base::clock::Timestamp;
use crate::exchange::Exchange;
use crate::host::worker;

/// An exchange that router and attempts share.
pub(super) type Shared = Rc<RefCell<Exchange>>;

thread_local! {
    static EXCHANGES: RefCell<HashMap<u64, Shared>> = RefCell::new(HashMap::new());
    static UNREACHABLE: RefCell<Vec<Unreachable>> = const { RefCell::new(Vec::new()) };
    static VM: Cell<Option<u32>> = const { Cell::new(None) };
}

/// A provider whose cluster the gateway does not have, or has no line for in the route's map.
struct Unreachable {
    provider: String,
    noted: Timestamp,
    told: Timestamp,
}

/// Then it is tried again: the map or the clusters may have changed, and the filter is not told. A try in vain costs a
/// detour of a millisecond where the map lacks it, and a request where its cluster is missing.
const PASS_OVER: Duration = Duration::from_secs(3);
/// The log is reminded this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The number of a request: the router's context, and a random number of this VM. After a trap contexts are counted from
/// the beginning, and an attempt of the VM before must not find a request of this one.
pub(super) fn number(context: u32) -> u64 {
    let vm = VM.get().unwrap_or_else(|| worker::with_memory(|random, _| random.u32(..)));
    VM.set(Some(vm));
    u64::from(vm) << 32 | u64::from(context)
}

/// Keeps an exchange until [`remove`]; `id` is its [`number`].
pub(super) fn insert(id: u64, exchange: Shared) {
    EXCHANGES.with_borrow_mut(|all| all.insert(id, exchange));
}

/// The exchange of a [`number`].
pub(super) fn find(id: u64) -> Option<Shared> {
    EXCHANGES.with_borrow(|all| all.get(&id).cloned())
}

/// Forgets an exchange; attempts that still run keep it alive.
pub(super) fn remove(id: u64) {
    EXCHANGES.with_borrow_mut(|all| all.remove(&id));
}

/// Notes that the gateway cannot reach a provider's cluster: it is passed over for a while. Returns whether the log should
/// tell.
pub(super) fn note_unreachable(provider: &str, now: Timestamp) -> bool {
    UNREACHABLE.with_borrow_mut(|all| {
        let place = all.iter().position(|known| known.provider == provider);
        let Some(known) = place.and_then(|place| all.get_mut(place)) else {
            all.push(Unreachable { provider: provider.to_owned(), noted: now, told: now });
            return true;
        };
        known.noted = now;
        let due = now.since(known.told) >= TELL_EVERY;
        if due {
            known.told = now;
        }
        due
    })
}

/// Whether the gateway can reach a provider's cluster, as far as is known. `now` reads the clock, if there is any doubt.
pub(super) fn is_reachable(provider: &str, now: impl Fn() -> Timestamp) -> bool {
    let passed_over =
        |known: &Unreachable| known.provider == provider && now().since(known.noted) < PASS_OVER;
    UNREACHABLE.with_borrow(|all| !all.iter().any(passed_over))
}
