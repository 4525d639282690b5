//! The shell around the core, for the wasm target only: entry point, roles, and what a VM remembers.
//!
//! Callbacks here are boring: read, call one core function, carry out what it returned. [`sys`] is the only file that
//! names host calls.

mod apisix;
mod client_request;
mod envoy;
mod root;
mod sys;
mod worker;

use std::cell::Cell;

use crate::exchange::{Decision, Next, OutOfOrder};

proxy_wasm::main! {{
    sys::set_logger();
    proxy_wasm::set_root_context(|_| Box::<root::Root>::default());
}}

/// Writes a line of the core to the log, if there is one.
fn log_line(line: Option<String>) {
    if let Some(text) = line {
        log::warn!("{text}");
    }
}

/// The value of a call into the core; `otherwise` if the call came out of order. Such a call is a fault of this filter, and the log says
/// so once: a fault that repeats with every request must not fill it.
fn in_order<T>(result: Result<T, OutOfOrder>, otherwise: T) -> T {
    thread_local! {
        static IS_LOGGED: Cell<bool> = const { Cell::new(false) };
    }
    result.unwrap_or_else(|error| {
        if !IS_LOGGED.replace(true) {
            log::error!("a fault in the filter: {error}; please report it");
        }
        otherwise
    })
}

/// What follows an attempt; what the operator should read of it goes to the log.
fn decided(decision: Result<Decision, OutOfOrder>) -> Next {
    let Decision { next, log } = in_order(decision, Decision { next: Next::Drop, log: None });
    log_line(log);
    next
}
