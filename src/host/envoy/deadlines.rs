//! Ends attempts for which `limits.total` leaves less time than Envoy's timer for each attempt.
//!
//! Envoy reads the limit of an attempt once, before the first one. So the filter itself ends a later attempt that must be shorter: on the
//! tick of the attempt's plugin, whose period is the time until the first deadline. Nothing ticks while no attempt must be shorter.

use std::cell::RefCell;
use std::time::Duration;

use super::registry::Shared;
use super::with_env;
use crate::base::clock::Timestamp;
use crate::client_api::errors::of_gateway;
use crate::host::{log_lines, sys};

thread_local! {
    static WATCHED: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) };
}

/// An attempt that is ended at a deadline.
struct Watched {
    deadline: Timestamp,
    /// The context of its filter.
    context: u32,
    exchange: Shared,
}

/// The status of the reply that ends a request. The router replaces it by the reply that names every attempt.
const TOO_LATE: u16 = 504;

/// Has the attempt of this context ended at the deadline. Must be called in that context.
pub(super) fn watch(deadline: Timestamp, context: u32, exchange: Shared) {
    let first = WATCHED.with_borrow_mut(|all| {
        all.push(Watched { deadline, context, exchange });
        all.iter().map(|one| one.deadline).min()
    });
    // Each plugin with such an attempt ticks for the first of all deadlines: another plugin may be gone by then.
    sys::set_tick(until(first.unwrap_or(deadline)));
}

/// The attempt of this context is over.
pub(super) fn forget(context: u32) {
    WATCHED.with_borrow_mut(|all| all.retain(|one| one.context != context));
}

/// Ends the attempts whose deadline has passed, and sets the tick of this plugin to the next deadline. Without one, it does not tick.
pub(in crate::host) fn end_overdue() {
    let now = sys::now();
    let mut due = Vec::new();
    let next = WATCHED.with_borrow_mut(|all| {
        while let Some(place) = all.iter().position(|one| one.deadline <= now) {
            due.push(all.swap_remove(place));
        }
        all.iter().map(|one| one.deadline).min()
    });
    // First of all: the calls below are for other contexts.
    sys::set_tick(next.map_or(Duration::ZERO, until));
    for Watched { context, exchange, .. } in due {
        let Some(decision) = with_env(|env| exchange.borrow_mut().run_out(env)) else { continue };
        log_lines(decision.log);
        if sys::act_for(context) {
            sys::send(&of_gateway(TOO_LATE));
        }
    }
}

/// The time until a deadline; at least a millisecond, because a period of zero is none.
fn until(deadline: Timestamp) -> Duration {
    deadline.since(sys::now()).max(Duration::from_millis(1))
}
