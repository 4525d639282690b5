//! The shell for Apache APISIX, whose host can do little: no shared data, no withholding, no rewriting of bodies.
//!
//! A request passes APISIX twice. On the *outer* route the filter is the router; what it planned travels in headers to the
//! *inner* routes, one per provider, where the filter is the attempt. A stream goes there by APISIX's own proxying, which
//! tries one inner listener after another; everything else is called by the filter itself. `apisix/README.md` has the picture.
//!
//! The host may answer a request's response callbacks with another context than its request callbacks (it does so after an
//! internal redirect). So what is known of a request is kept here under a number, its ticket, which stands in an nginx
//! variable.

mod calls;
mod inner;
mod outer;
mod state;

use std::rc::Rc;

use proxy_wasm::types::{Action, MapType};

use super::sys;
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::config::Config;
use inner::Inner;
use outer::Outer;
pub(super) use state::shared_config;
use state::Ticket;

/// Who a request is for: `-` on a public listener, or the provider of an inner route. A `map` in `apisix/config.yaml`.
const HOP: &str = "shunt_hop";
/// [`HOP`] on a public listener.
const PUBLIC: &str = "-";
/// The number of the request.
const TICKET: &str = "shunt_ticket";
/// The request header with the router's number of the request.
const OUTER: &str = "x-shunt-ticket";
/// Has the host call the filter with the body of the request.
const WITH_REQUEST_BODY: &str = "wasm_process_req_body";
/// Has the host call the filter with the body of the response.
const WITH_RESPONSE_BODY: &str = "wasm_process_resp_body";
/// What stands for the piece of a response that the filter was called with.
const CHUNK: &str = "shunt_chunk";
/// Says that [`CHUNK`] does.
const CHUNKS: &str = "shunt_chunks";
/// The record of the request.
const AUDIT: &str = "shunt_audit";
const YES: &[u8] = b"1";

/// What a request is on this listener.
enum Hop {
    Outer(Outer),
    Inner(Inner),
}

/// One context of the host: some callbacks of one request.
pub(super) struct Stream {
    /// `None`: the document has problems, which the log names.
    config: Option<Rc<Config>>,
    /// The request that this context has begun, and ends.
    owns: Option<Ticket>,
    /// What stands in the place of a response that the filter has no request for.
    instead: Option<Vec<u8>>,
}

impl Stream {
    pub(super) const fn new(config: Option<Rc<Config>>) -> Self {
        Self { config, owns: None, instead: None }
    }

    /// Works on the request of this callback.
    fn on_hop<T>(&self, work: impl FnOnce(&mut Hop) -> T) -> Option<T> {
        let ticket = self.owns.or_else(Ticket::read)?;
        state::with_hop(ticket, work)
    }

    pub(super) fn on_http_request_headers(&mut self) -> Action {
        let Some(config) = &self.config else {
            return reply(
                &Rejection::misconfigured("the gateway's log names the problems of its configuration")
                    .reply(),
            );
        };
        let ticket = state::ticket();
        let (Some(hop), true) = (sys::property(HOP), ticket.write()) else {
            log::error!("the nginx variables of Shunt's config.yaml are missing ($shunt_hop, $shunt_ticket)");
            return reply(&Rejection::misconfigured("nginx lacks the variables of Shunt").reply());
        };
        let (hop, action) = if hop == PUBLIC.as_bytes() {
            let mut outer = Outer::new(ticket, Rc::clone(config));
            let action = outer.on_request_headers();
            (Hop::Outer(outer), action)
        } else {
            let provider = String::from_utf8_lossy(&hop).into_owned();
            let mut inner = Inner::new(ticket, Rc::clone(config), provider);
            let action = inner.on_request_headers();
            (Hop::Inner(inner), action)
        };
        self.owns = Some(ticket);
        state::insert(ticket, hop);
        action
    }

    pub(super) fn on_http_request_body(&mut self, size: usize) -> Action {
        let action = self.on_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_request_body(size),
            Hop::Inner(inner) => inner.on_request_body(size),
        });
        action.unwrap_or(Action::Continue)
    }

    pub(super) fn on_http_response_headers(&mut self) -> Action {
        let known = self.on_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_response_headers(),
            Hop::Inner(inner) => inner.on_response_headers(),
        });
        if known.is_none()
            && self.config.is_some()
            && sys::property(HOP).is_some_and(|hop| hop == PUBLIC.as_bytes())
        {
            // A plugin in front has answered: its clients expect the envelope from here, too.
            let status = response_status();
            if status >= 400 {
                let Reply { headers, body, .. } = of_gateway(status);
                write_head(status, &headers);
                self.instead = replaces_body().then_some(body);
            }
        }
        Action::Continue
    }

    pub(super) fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if let Some(body) = &mut self.instead {
            sys::set_property(CHUNK, &std::mem::take(body));
            return Action::Continue;
        }
        self.on_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_response_body(size, end),
            Hop::Inner(inner) => inner.on_response_body(size),
        });
        Action::Continue
    }
}

impl Drop for Stream {
    /// The request is over. The host answers nothing here.
    fn drop(&mut self) {
        match self.owns.and_then(state::remove) {
            Some(Hop::Outer(outer)) => outer.close(),
            Some(Hop::Inner(inner)) => inner.close(),
            None => {}
        }
    }
}

/// A call of the filter's own has ended; its answer has `size` bytes.
pub(super) fn on_call_response(call: u32, size: usize) {
    let Some(ticket) = state::called(call) else {
        return log::warn!("an answer came for a call that is not known");
    };
    state::with_hop(ticket, |hop| match hop {
        Hop::Outer(outer) => outer.on_call_response(size),
        Hop::Inner(inner) => inner.on_call_response(size),
    });
}

/// Answers a request. To pause without an answer would end the worker.
fn reply(reply: &Reply) -> Action {
    if sys::send(reply) {
        Action::Pause
    } else {
        log::error!("the gateway refused a reply with status {}", reply.status);
        Action::Continue
    }
}

/// The status of the response as it stands.
fn response_status() -> u16 {
    let status = sys::header(MapType::HttpResponseHeaders, ":status");
    status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()).unwrap_or(0)
}

/// What an inner route let through and no client gets.
const REPLACED: [&str; 8] = [
    "content-length",
    "content-encoding",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    // APISIX's own, of the statuses with which tries leave.
    "x-apisix-upstream-status",
    crate::relay::TRY,
];

/// Sets the status and the headers of a response whose body will be another one.
fn write_head(status: u16, headers: &[(&'static str, String)]) {
    const MAP: MapType = MapType::HttpResponseHeaders;
    if response_status() != status {
        sys::set_header(MAP, ":status", status.to_string());
    }
    for name in REPLACED {
        sys::remove_header(MAP, name);
    }
    for (name, value) in headers {
        sys::set_header(MAP, name, value);
    }
}

/// Has the response's body replaced piece by piece.
fn replaces_body() -> bool {
    let done = sys::set_property(CHUNKS, YES) && sys::set_property(WITH_RESPONSE_BODY, YES);
    if !done {
        log::error!("the nginx variables of Shunt's config.yaml are missing ($shunt_chunks)");
    }
    done
}
