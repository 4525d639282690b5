//! The shell around the core, for the wasm target only: the entry point, the roles, and what a VM remembers.
//!
//! A callback of the host reads what it needs, calls one function of the core, and carries out what that returns. [`sys`] is the only
//! file that names host calls.

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

/// Writes what the core says to the operator into the log.
fn log_lines(lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(|line| log_line(&line));
}

#[inline(never)]
fn log_line(line: &str) {
    log::warn!("{line}");
}

/// The value of a call into the core; `otherwise` if the call came out of order.
fn in_order<T>(result: Result<T, OutOfOrder>, otherwise: T) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            log_out_of_order(error);
            otherwise
        }
    }
}

/// Logs a call that came out of order, once: it is a defect of this filter, and one that repeats with every request must not fill the
/// log.
#[cold]
#[inline(never)]
fn log_out_of_order(error: OutOfOrder) {
    thread_local! {
        static IS_LOGGED: Cell<bool> = const { Cell::new(false) };
    }
    if !IS_LOGGED.replace(true) {
        log::error!("this filter has a defect, please report it: {error}");
    }
}

/// What follows an attempt. What the operator should read about it goes to the log.
#[inline(never)]
fn decided(decision: Result<Decision, OutOfOrder>) -> Next {
    let Decision { next, log } = in_order(decision, Decision { next: Next::Drop, log: None });
    log_lines(log);
    next
}
