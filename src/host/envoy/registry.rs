//! What a VM remembers between callbacks: the requests under way, and which providers Envoy cannot reach.
//!
//! Router and attempts of one request run in the same VM (they have the same `vm_id` and `vm_config`, and run on the same worker),
//! so they share the exchange itself. Only its number travels, in the request's filter state.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::base::clock::Timestamp;
use crate::exchange::{Exchange, Shadows};
use crate::host::worker;

/// An exchange that router and attempts share.
pub(super) type Shared = Rc<RefCell<Exchange>>;

thread_local! {
    static EXCHANGES: RefCell<HashMap<u64, Shared>> = RefCell::new(HashMap::new());
    static SHADOWS: RefCell<Shadows> = RefCell::default();
    static UNREACHABLE: RefCell<Vec<Unreachable>> = const { RefCell::new(Vec::new()) };
    static VM: Cell<Option<u32>> = const { Cell::new(None) };
}

/// A provider that Envoy has no cluster for, or that the cluster matcher of Envoy's route does not know.
struct Unreachable {
    provider: String,
    noticed: Timestamp,
    logged: Timestamp,
}

/// For this long such a provider is skipped. Then it is tried again, because its cluster may exist by now, and Envoy does not tell
/// the filter. Trying in vain costs a millisecond if the route's map lacks the provider, and fails the request if its cluster
/// is missing.
const SKIP_FOR: Duration = Duration::from_secs(3);
/// The least time between two lines in the log about the same provider.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The number of a request: the id of the router's context, and a random number of this VM. After a trap the ids start again, and
/// an attempt of the VM before must not find a request of this one.
pub(super) fn number(context: u32) -> u64 {
    let vm = VM.get().unwrap_or_else(|| worker::with_memory(|random, _| random.u32(..)));
    VM.set(Some(vm));
    u64::from(vm) << 32 | u64::from(context)
}

/// Keeps an exchange under its [`number`] until [`remove`].
pub(super) fn insert(number: u64, exchange: Shared) {
    EXCHANGES.with_borrow_mut(|all| all.insert(number, exchange));
}

/// The exchange with this [`number`].
pub(super) fn find(number: u64) -> Option<Shared> {
    EXCHANGES.with_borrow(|all| all.get(&number).cloned())
}

/// Forgets an exchange. Attempts that are still under way keep it alive.
pub(super) fn remove(number: u64) {
    EXCHANGES.with_borrow_mut(|all| all.remove(&number));
}

/// The shadow requests of this worker.
pub(super) fn with_shadows<T>(work: impl FnOnce(&mut Shadows) -> T) -> T {
    SHADOWS.with_borrow_mut(work)
}

/// Notes that Envoy cannot reach a provider, which is skipped for a while. Returns whether that should be logged.
pub(super) fn note_unreachable(provider: &str, now: Timestamp) -> bool {
    UNREACHABLE.with_borrow_mut(|all| {
        let place = all.iter().position(|known| known.provider == provider);
        let Some(known) = place.and_then(|place| all.get_mut(place)) else {
            all.push(Unreachable { provider: provider.to_owned(), noticed: now, logged: now });
            return true;
        };
        known.noticed = now;
        let due = now.since(known.logged) >= LOG_EVERY;
        if due {
            known.logged = now;
        }
        due
    })
}

/// Whether Envoy can reach a provider, as far as is known. `now` reads the clock, if that is needed.
pub(super) fn is_reachable(provider: &str, now: impl Fn() -> Timestamp) -> bool {
    let is_skipped =
        |known: &Unreachable| known.provider == provider && now().since(known.noticed) < SKIP_FOR;
    UNREACHABLE.with_borrow(|all| !all.iter().any(is_skipped))
}
