//! How router and attempts find each other and choose the next cluster: by one text in the request's filter state.
//!
//! The text `openai/live/17` has three parts:
//!
//! 1. the provider of the next attempt, by which the cluster matcher of Envoy's route chooses the cluster;
//! 2. the name of Envoy's route, by which the virtual host chooses the route;
//! 3. the number under which the [registry](super::registry) has the exchange.
//!
//! Clients cannot reach filter state, and providers do not see it. It can be set even when an attempt has ended without a response;
//! request headers cannot be set then.

use super::registry;
use crate::bytes::ascii;
use crate::host::sys;

/// The filter state with that text. The rest of Envoy knows it as `wasm.shunt_next`.
const NEXT: &str = "shunt_next";
/// The filter state with the request's audit record. The rest of Envoy knows it as `wasm.shunt_audit`.
pub(super) const AUDIT: &str = "shunt_audit";
/// The filter state that marks a reply of the gateway itself.
pub(super) const REPLIED: &str = "shunt_replied";
/// The response header that makes Envoy's retry policy retry.
pub(super) const RETRY: &str = "x-shunt-retry";
/// Stands for a provider where there is none. No cluster has this name.
const NO_PROVIDER: &str = "-";

/// How Envoy routes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routing {
    /// The request's [number](registry::number).
    pub(super) number: u64,
    /// The name of Envoy's route.
    pub(super) route: &'static str,
}

/// The route of streams that are released at their first token.
const LIVE: &str = "live";
/// The route of answers that are released at their end.
pub(super) const WHOLE: &str = "whole";
/// The same routes for requests that Envoy sends to itself a second time, for the shadow.
const LIVE_SHADOWED: &str = "live_mirrored";
const WHOLE_SHADOWED: &str = "whole_mirrored";
/// The route of live streams that take the detour (`detour.rs`). Behind it they have the route that they would have had without.
pub(super) const DETOUR: &str = "detour";
/// The route of requests that are forwarded to one provider unchanged.
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

impl Routing {
    /// Reads what the router has written.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&sys::property(NEXT)?)
    }

    /// Reads a route and a number, whatever stands before them.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.rsplit('/');
        let number = ascii::whole(parts.next()?)?;
        let word = parts.next()?;
        let route =
            [LIVE, WHOLE, PASS, LIVE_SHADOWED, WHOLE_SHADOWED].into_iter().find(|route| *route == word)?;
        Some(Self { number, route })
    }

    /// The route and the number as text.
    pub(super) fn text(self) -> String {
        [self.route, "/", &self.number.to_string()].concat()
    }

    /// Has Envoy send the next attempt to this provider; false if Envoy refuses.
    pub(super) fn set_provider(self, provider: &str) -> bool {
        let text = [provider, "/", &self.text()].concat();
        let is_set = sys::set_property(NEXT, text.as_bytes());
        if !is_set {
            log::error!("Envoy did not take the name of the next provider ({provider}), so the request cannot reach it");
        }
        is_set
    }

    /// There is no next provider. Should Envoy retry all the same, it finds no cluster.
    pub(super) fn set_no_provider(self) {
        self.set_provider(NO_PROVIDER);
    }

    /// The exchange of the request.
    pub(super) fn exchange(self) -> Option<registry::Shared> {
        registry::find(self.number)
    }
}
