//! The shell around the core, for the wasm target only: entry point, roles, and what a VM remembers.
//!
//! Callbacks here are boring: read, call one core function, carry out what it returned. [`sys`] is the only file that
//! names host calls.

mod apisix;
mod attempt;
mod intake;
mod registry;
mod request;
mod response;
mod root;
mod router;
mod shared_data;
mod steer;
mod sys;

use crate::selection::plan::Env;

proxy_wasm::main! {{
    sys::set_logger();
    proxy_wasm::set_root_context(|_| Box::<root::Root>::default());
}}

/// Calls `work` with what the core needs of the world.
fn with_env<T>(work: impl FnOnce(&mut Env<'_>) -> T) -> T {
    let mut store = shared_data::SharedData;
    registry::with_memory(|random, ledger| {
        work(&mut Env { now: sys::now(), store: &mut store, random, ledger })
    })
}

/// Writes a note of the core to the log.
fn log_note(note: crate::exchange::Note) {
    if let Some(text) = note {
        log::warn!("{text}");
    }
}
