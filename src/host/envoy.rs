//! The shell for Envoy: the router in the listener, the attempt in the upstream filters of every provider's cluster, and how
//! the two find each other.

mod attempt;
mod filter_state;
mod registry;
mod request;
mod response;
mod router;
mod shared_data;

pub(super) use attempt::AttemptFilter;
pub(super) use router::RouterFilter;

use super::{sys, worker};
use crate::selection::plan::Env;

/// Calls `work` with what the core needs of the world.
fn with_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    let mut store = shared_data::SharedData;
    worker::with_memory(|random, ledger| {
        work(&mut Env { now: sys::now(), store: &mut store, random, ledger })
    })
}
