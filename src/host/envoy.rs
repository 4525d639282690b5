//! The shell for Envoy: the router is an HTTP filter of the listener, and an attempt is an upstream HTTP filter of a provider's cluster.

mod attempt;
mod deadlines;
mod detour;
mod filter_state;
mod http10;
mod registry;
mod request;
mod response;
mod router;
mod shared_data;

pub(super) use attempt::AttemptFilter;
pub(super) use deadlines::end_overdue;
pub(super) use detour::DetourFilter;
pub(super) use http10::Http10Filter;
pub(super) use router::RouterFilter;

use super::{sys, worker};
use crate::selection::plan::Env;

/// Calls `work` with the clock, the store and the memory that the core needs.
fn with_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    let mut store = shared_data::SharedData;
    worker::with_memory(|random, ledger| {
        work(&mut Env { now: sys::now(), store: &mut store, random, ledger })
    })
}
