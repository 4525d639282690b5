//! How router and attempts find each other and choose the next cluster: one text in the request's filter state.
//!
//! `openai/live/17`: the provider of the next attempt, which the route's cluster matcher reads by its prefix; the route,
//! which the virtual host matches; and the number under which the [registry](super::registry) has the exchange. Filter
//! state is out of every client's reach, no provider sees it, and it can be set when an attempt has ended without any
//! response, when request headers cannot.

use super::registry;
use crate::host::sys;

/// The filter state; `wasm.shunt_next` to the rest of Envoy.
const NEXT: &str = "shunt_next";
/// The filter state that carries the record of the request; `wasm.shunt_audit` to the rest of Envoy.
pub(super) const AUDIT: &str = "shunt_audit";
/// The filter state that marks a reply of the gateway itself.
pub(super) const REPLIED: &str = "shunt_replied";
/// The response header that Envoy's retry policy looks for.
pub(super) const RETRY: &str = "x-shunt-retry";
/// A provider's name that none has, and so no map: nobody is asked again.
const NOBODY: &str = "-";

/// The request that this context belongs to, and its route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// The request's [number](registry::number).
    pub(super) id: u64,
    /// Its route: a word of the virtual host's.
    pub(super) route: &'static str,
}

/// The route of streams that are released while they run.
const LIVE: &str = "live";
/// The route of answers that are held to their end.
pub(super) const WHOLE: &str = "whole";
/// The same routes for requests of which the gateway sends itself a copy.
const LIVE_SHADOWED: &str = "live_mirrored";
const WHOLE_SHADOWED: &str = "whole_mirrored";
/// The route of requests that go to one provider as they are.
pub(super) const PASS: &str = "pass";

/// The route of a request.
pub(super) const fn route(live: bool, shadowed: bool) -> &'static str {
    match (live, shadowed) {
        (true, false) => LIVE,
        (false, false) => WHOLE,
        (true, true) => LIVE_SHADOWED,
        (false, true) => WHOLE_SHADOWED,
    }
}

impl Ticket {
    /// Reads the ticket that the router left.
    pub(super) fn read() -> Option<Self> {
        let text = sys::property(NEXT)?;
        let mut parts = std::str::from_utf8(&text).ok()?.rsplit('/');
        let id = parts.next()?.parse().ok()?;
        let word = parts.next()?;
        let route =
            [LIVE, WHOLE, PASS, LIVE_SHADOWED, WHOLE_SHADOWED].into_iter().find(|route| *route == word)?;
        Some(Self { id, route })
    }

    /// Names the provider that the next attempt goes to.
    pub(super) fn steer(self, provider: &str) -> bool {
        let done = sys::set_property(
            NEXT,
            [provider, "/", self.route, "/", &self.id.to_string()].concat().as_bytes(),
        );
        if !done {
            log::error!("the gateway refused to be steered to {provider}");
        }
        done
    }

    /// Nobody is asked again: should the gateway retry all the same, it gets nowhere.
    pub(super) fn stop(self) {
        self.steer(NOBODY);
    }

    /// The exchange of the request.
    pub(super) fn exchange(self) -> Option<registry::Shared> {
        registry::find(self.id)
    }
}
