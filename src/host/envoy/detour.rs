//! The `detour` role, and what the router does for a live stream that takes the detour.
//!
//! If a provider's connection breaks while its stream is released, Envoy resets the stream of the client, and no filter of the client's
//! listener learns of it. So a live stream whose route says `on_break: "event"` goes from the listener through an internal listener, where
//! Envoy makes the attempts:
//!
//! ```text
//!   client ─► [ router ] ─► cluster shunt_detour ─► listener shunt_detour: [ http10 ] [ detour ] ─► Envoy's router ─► [ attempt ] ─► provider
//! ```
//!
//! Between the two the request is HTTP/1.0 (`http10.rs`), where a stream ends when its connection is closed. So both a break and an end
//! reach the router as an end, and it adds what the attempt has left for the client: an error event, if the stream broke off.

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::filter_state::{Routing, DETOUR};
use super::registry::Shared;
use super::router::{note_unreached, PER_TRY};
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::exchange::Exchange;
use crate::host::sys;

/// The request header with the route and the number of a request on its detour (`live/17`). It names no provider. The router writes it
/// over whatever a client sent, and nobody but the router reaches the internal listener.
const TAKEN: &str = "x-shunt-detour";

/// Has Envoy send a request of which `size` bytes have arrived to the internal listener; false if Envoy refuses.
pub(super) fn take(routing: Routing, provider: &str, size: usize) -> bool {
    let length = size.to_string();
    // HTTP/1.0 has no chunks, and the body is complete. The first attempt replaces all headers anyway.
    sys::remove_header(MapType::HttpRequestHeaders, "transfer-encoding");
    Routing { route: DETOUR, ..routing }.set_provider(provider)
        && sys::set_header(MapType::HttpRequestHeaders, "content-length", &length)
        && sys::set_header(MapType::HttpRequestHeaders, TAKEN, routing.text())
}

/// The reply to a request that did not arrive at the internal listener, because Envoy answered with this status.
pub(super) fn missing(status: u16) -> Reply {
    if status == 503 {
        log::warn!(
            "Envoy could not send a request to the cluster shunt_detour: its circuit_breakers allow too few requests, or there is no \
             listener shunt_detour"
        );
    }
    // Without the route `detour`, another one answers: with 404, or with 405 as the shipped routes do.
    if !matches!(status, 404 | 405) {
        return of_gateway(status);
    }
    log::error!(
        "a stream with on_break \"event\" was refused, because Envoy has no route \"detour\" for it; envoy/listeners.yaml and \
         envoy/clusters.yaml show the route, the listener and the cluster that it needs"
    );
    Rejection::misconfigured("the gateway has no route for streams with on_break \"event\"").reply()
}

/// The end of a response has come to the router, together with `size` bytes: adds what the client must still get.
pub(super) fn finish(exchange: &mut Exchange, size: usize) -> Action {
    if !exchange.detours() {
        return Action::Continue;
    }
    match exchange.take_ending() {
        Some(ending) if !ending.is_empty() => {
            sys::set_buffer(BufferType::HttpResponseBody, size, 0, &ending);
        }
        None if exchange.is_over() || !exchange.is_delivered() => {}
        // The attempt has not said how the answer ended, or half of an event is at the client: it must not look whole. Envoy resets a
        // stream that gets a reply after its head has left.
        _ => {
            sys::send(&of_gateway(502));
            return Action::Pause;
        }
    }
    Action::Continue
}

/// A request at the internal listener.
#[derive(Default)]
pub(in crate::host) struct DetourFilter {
    exchange: Option<Shared>,
}

impl DetourFilter {
    /// Has Envoy send the request to its first provider; false if it did not come from the router, or if Envoy refuses.
    fn pass_on(&mut self) -> bool {
        let taken = sys::header(MapType::HttpRequestHeaders, TAKEN).and_then(|text| Routing::parse(&text));
        let Some((routing, exchange)) = taken.and_then(|routing| Some((routing, routing.exchange()?))) else {
            return false;
        };
        self.exchange = Some(Rc::clone(&exchange));
        let mut exchange = exchange.borrow_mut();
        let Some((provider, limit)) = exchange.reach_detour() else { return false };
        let limit = limit.as_millis().to_string();
        routing.set_provider(provider) && sys::set_header(MapType::HttpRequestHeaders, PER_TRY, limit)
    }
}

/// Envoy's callbacks.
impl DetourFilter {
    pub(in crate::host) fn on_http_request_headers(&mut self) -> Action {
        if !self.pass_on() {
            log::error!("the listener shunt_detour: a request is refused, because it did not come through a router filter of the same VM");
            let refused = Rejection::misconfigured("the request did not come through the shunt router");
            sys::send(&refused.reply());
        }
        // Every attempt gets the whole body at once, as without the detour.
        Action::Pause
    }

    pub(in crate::host) fn on_http_request_body(&mut self, end_of_stream: bool) -> Action {
        if end_of_stream {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    pub(in crate::host) fn on_http_response_headers(&self) -> Action {
        if let Some(exchange) = &self.exchange {
            note_unreached(&exchange.borrow());
        }
        Action::Continue
    }
}
