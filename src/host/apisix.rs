//! The shell for Apache APISIX, whose wasm host can do little: it has no shared data, and cannot withhold responses or rewrite
//! bodies.
//!
//! A request goes through APISIX in hops. In the outer hop, on the route that clients see, the filter is the router. Its plan
//! travels in headers to the inner hops, on the routes of the providers, where the filter is the attempt. nginx itself proxies a
//! live stream to the inner routes, and tries one inner listener after another; for all other requests the filter calls the inner
//! routes. `apisix/README.md` has the picture.
//!
//! The host may use another context for a request's response than for the request itself (it does after an internal redirect). So
//! the state of a hop is kept here under a number, and an nginx variable has the number.

mod calls;
mod inner;
mod outer;
mod state;

use std::cell::Cell;
use std::rc::Rc;

use proxy_wasm::types::{Action, MapType};

use super::client_request::{header, text};
use super::sys;
use crate::bytes::ascii;
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::client_api::request::Head;
use crate::config::Config;
use crate::routing::rewrite::{NOT_FORWARDED, VENDOR_HEADERS};
use inner::InnerHop;
use outer::OuterHop;
pub(super) use state::shared_config;
use state::HopNumber;

/// The variable that says which hop this is: the provider of an inner listener, or `-` on all other listeners. A `map` in
/// `apisix/config.yaml` sets it.
const HOP: &str = "shunt_hop";
/// The value of [`HOP`] in an outer hop.
const PUBLIC: &str = "-";
/// The variable with the number of the hop.
const NUMBER: &str = "shunt_ticket";
/// The request header that tells the inner hops the number of the outer hop.
const OUTER_NUMBER: &str = "x-shunt-ticket";
/// The variable with the path and the query that nginx sends.
const URI: &str = "upstream_uri";
/// The variable that makes the host call the filter with the body of the request.
const WITH_REQUEST_BODY: &str = "wasm_process_req_body";
/// The variable that makes the host call the filter with the body of the response.
const WITH_RESPONSE_BODY: &str = "wasm_process_resp_body";
/// The variable with the bytes that take the place of the piece of a response that the filter was called with.
const CHUNK: &str = "shunt_chunk";
/// The variable that says that [`CHUNK`] is used for this piece.
const CHUNKS: &str = "shunt_chunks";
/// The variable with the audit record of the request.
const AUDIT: &str = "shunt_audit";
const YES: &[u8] = b"1";

/// One pass of a request through APISIX.
enum Hop {
    Outer(OuterHop),
    Inner(InnerHop),
}

/// One context of the host: some of the callbacks of one hop.
pub(super) struct Stream {
    /// `None`: the document has problems, which were logged, or the request was answered for want of nginx's variables.
    config: Option<Rc<Config>>,
    /// The hop that began in this context, and ends with it.
    owns: Option<HopNumber>,
    /// The hop of an earlier context, once it was looked up: every callback of this context is about the same one.
    found: Cell<Option<HopNumber>>,
    /// The body that takes the place of a response's, where the filter has not seen the request.
    replacement: Option<Vec<u8>>,
}

impl Stream {
    pub(super) const fn new(config: Option<Rc<Config>>) -> Self {
        Self { config, owns: None, found: Cell::new(None), replacement: None }
    }

    /// Calls `work` with the hop of this callback.
    fn with_hop<T>(&self, work: impl FnOnce(&mut Hop) -> T) -> Option<T> {
        let number = self.owns.or_else(|| self.found.get()).or_else(HopNumber::read)?;
        self.found.set(Some(number));
        state::with_hop(number, work)
    }

    pub(super) fn on_http_request_headers(&mut self) -> Action {
        let Some(config) = &self.config else {
            return reply(
                &Rejection::misconfigured("the gateway's log names the problems of its configuration")
                    .reply(),
            );
        };
        let number = HopNumber::new();
        let (Some(hop), true) = (sys::property(HOP), number.write()) else {
            // nginx would write a key in the query into the log, too.
            if !Head::has_key(&text(header(":path"))) {
                log_missing_variables("$shunt_hop, $shunt_ticket");
            }
            self.config = None;
            return reply(&Rejection::misconfigured("nginx lacks the variables of Shunt").reply());
        };
        let (hop, action) = if hop == PUBLIC.as_bytes() {
            let mut outer = OuterHop::new(number, Rc::clone(config));
            let action = outer.on_request_headers();
            (Hop::Outer(outer), action)
        } else {
            let provider = String::from_utf8_lossy(&hop).into_owned();
            let mut inner = InnerHop::new(number, Rc::clone(config), provider);
            let action = inner.on_request_headers();
            (Hop::Inner(inner), action)
        };
        self.owns = Some(number);
        state::insert(number, hop);
        action
    }

    pub(super) fn on_http_request_body(&mut self, size: usize) -> Action {
        let action = self.with_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_request_body(size),
            Hop::Inner(inner) => inner.on_request_body(size),
        });
        action.unwrap_or(Action::Continue)
    }

    pub(super) fn on_http_response_headers(&mut self) -> Action {
        let found = self.with_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_response_headers(),
            Hop::Inner(inner) => inner.on_response_headers(),
        });
        if found.is_none()
            && self.config.is_some()
            && sys::property(HOP).is_some_and(|hop| hop == PUBLIC.as_bytes())
        {
            // Another plugin has answered the request before it came here. Clients expect the envelope from it, too.
            let status = response_status();
            if status >= 400 {
                let Reply { headers, body, .. } = of_gateway(status);
                write_head(status, &headers);
                self.replacement = replaces_body(true).then_some(body);
            }
        }
        Action::Continue
    }

    pub(super) fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if let Some(body) = &mut self.replacement {
            sys::set_property(CHUNK, &std::mem::take(body));
            return Action::Continue;
        }
        self.with_hop(|hop| match hop {
            Hop::Outer(outer) => outer.on_response_body(size, end),
            Hop::Inner(inner) => inner.on_response_body(size),
        });
        Action::Continue
    }
}

impl Drop for Stream {
    /// The hop is over. Calls of the host have no effect any more.
    fn drop(&mut self) {
        match self.owns.and_then(state::remove) {
            Some(Hop::Outer(outer)) => outer.close(),
            Some(Hop::Inner(inner)) => inner.close(),
            None => {}
        }
    }
}

/// A call of this filter has ended. The body of its answer has `size` bytes.
pub(super) fn on_call_response(call: u32, size: usize) {
    let Some(number) = state::remove_call(call) else {
        return log::warn!(
            "APISIX reported the end of a call that this worker has not made; the report is ignored"
        );
    };
    state::with_hop(number, |hop| match hop {
        Hop::Outer(outer) => outer.on_call_response(size),
        Hop::Inner(inner) => inner.on_call_response(size),
    });
}

/// Replies to a request. If the host refuses, the request must go on, because a pause without a reply ends the worker.
fn reply(reply: &Reply) -> Action {
    if sys::send(reply) {
        Action::Pause
    } else {
        log::error!("APISIX refused to send a reply with status {} of this filter", reply.status);
        Action::Continue
    }
}

/// The status of the response.
fn response_status() -> u16 {
    let status = sys::header(MapType::HttpResponseHeaders, ":status");
    status.and_then(|status| ascii::whole(std::str::from_utf8(&status).ok()?)).unwrap_or(0)
}

/// The headers of inner responses that no client gets.
const REPLACED: [&str; 8] = [
    "content-length",
    "content-encoding",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    // APISIX adds this one to the statuses that make nginx try the next provider.
    "x-apisix-upstream-status",
    crate::relay::TRY,
];

/// Removes the headers of a provider that no client gets; those that vendors add to answers, if `vendors`.
fn hide_headers(vendors: bool) {
    for name in NOT_FORWARDED.iter().chain(if vendors { &VENDOR_HEADERS[..] } else { &[] }) {
        sys::remove_header(MapType::HttpResponseHeaders, name);
    }
}

/// Sets the status and the headers of a response whose body will be replaced.
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

/// Has the host call the filter with each piece of the response's body, which it can replace from then on. `all`: it replaces all of them,
/// and says so here once. False if nginx lacks the variables for it.
fn replaces_body(all: bool) -> bool {
    let chunks: &[u8] = if all { YES } else { b"" };
    let done = sys::set_property(CHUNKS, chunks) && sys::set_property(WITH_RESPONSE_BODY, YES);
    if !done {
        log_missing_variables("$shunt_chunks");
    }
    done
}

fn log_missing_variables(names: &str) {
    log::error!("nginx lacks the variables {names}; add the nginx_config of Shunt's apisix/config.yaml to that of APISIX");
}
