//! The `router` role: an HTTP filter of the listener. Reads the request, plans, names the first provider; replaces
//! failures that no provider could repair by an error in the envelope.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::steer::{Ticket, RETRY};
use super::{registry, sys, with_env};
use crate::config::Config;
use crate::exchange::Exchange;
use crate::report::{of_gateway, Rejection, Reply};
use crate::request::{Body, Head, STREAM_OPTION};

/// Envoy's limit of one attempt, in milliseconds. Setting a header also has Envoy choose the route again.
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// One client request at the listener.
pub(super) struct RouterFilter {
    id: u64,
    config: Rc<Config>,
    path: String,
    body_len: usize,
    exchange: Option<registry::Shared>,
    /// The client has its answer from the gateway itself.
    replied: bool,
}

impl RouterFilter {
    pub(super) fn new(context: u32, config: Rc<Config>) -> Self {
        Self {
            id: registry::number(context),
            config,
            path: String::new(),
            body_len: 0,
            exchange: None,
            replied: false,
        }
    }

    /// Answers the request instead of a provider.
    fn reply(&mut self, reply: &Reply) -> Action {
        self.replied = true;
        // Envoy's `local_reply_config` leaves a reply with this mark alone.
        sys::set_property("shunt_replied", b"1");
        if !sys::send(reply) {
            log::error!("the gateway refused a reply with status {}", reply.status);
        }
        Action::Pause
    }

    fn reject(&mut self, rejection: &Rejection) -> Action {
        self.reply(&rejection.reply())
    }

    /// The body is complete: plan, and hand the request to Envoy's router.
    fn plan(&mut self) -> Action {
        let bytes = sys::buffer(BufferType::HttpRequestBody, 0, self.body_len).unwrap_or_default();
        if bytes.is_empty() {
            return self.reject(&Rejection::no_body());
        }
        let planned = self.exchange(&bytes);
        drop(bytes);
        let mut exchange = match planned {
            Ok(exchange) => exchange,
            Err(rejection) => return self.reject(&rejection),
        };
        let Some(start) = with_env(|env| exchange.start(env)) else {
            return self.reject(&Rejection::misconfigured("no provider could be chosen"));
        };
        let ticket = Ticket { id: self.id, live: start.live };
        let limit = start.per_try.as_millis().to_string();
        if !ticket.steer(&start.provider) || !sys::set_header(MapType::HttpRequestHeaders, PER_TRY, &limit) {
            return self.reject(&Rejection::misconfigured("the gateway refused to route the request"));
        }
        let exchange = Rc::new(RefCell::new(exchange));
        registry::insert(self.id, Rc::clone(&exchange));
        self.exchange = Some(exchange);
        Action::Continue
    }

    /// The plan for a body. Headers are asked for only where they matter: each costs a call.
    fn exchange(&mut self, bytes: &[u8]) -> Result<Exchange, Rejection> {
        let body = Body::read(bytes).map_err(|rejection| match header("content-encoding") {
            Some(encoding) if !encoding.eq_ignore_ascii_case(b"identity") => {
                Rejection::encoded(&String::from_utf8_lossy(&encoding))
            }
            _ => rejection,
        })?;
        let complete = body.stream && Head::option(header(STREAM_OPTION).as_deref())?;
        let head = Head { path: std::mem::take(&mut self.path), complete };
        let reachable = |provider: &str| registry::is_reachable(provider, sys::now);
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, reachable)?;
        if exchange.wants_headers() {
            exchange.keep_headers(sys::headers(MapType::HttpRequestHeaders));
        }
        Ok(exchange)
    }
}

fn header(name: &str) -> Option<Vec<u8>> {
    sys::header(MapType::HttpRequestHeaders, name)
}

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// The status of the response that Envoy is about to send.
fn response_status() -> u16 {
    text(sys::header(MapType::HttpResponseHeaders, ":status")).parse().unwrap_or(500)
}

impl Context for RouterFilter {}

impl HttpContext for RouterFilter {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "test-trap")]
        if header("x-shunt-trap").is_some() {
            trap();
        }
        let path = text(header(":path"));
        let path = Head::path(&path);
        if !self.config.has_path(path) {
            return self.reject(&Rejection::path(&text(header(":method")), path));
        }
        if end_of_stream {
            let method = text(header(":method"));
            return self.reject(&if method == "POST" {
                Rejection::no_body()
            } else {
                Rejection::method(&method, path)
            });
        }
        self.path = path.to_owned();
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.replied {
            return Action::Pause;
        }
        self.body_len = size;
        if size > self.config.sizes.max_request {
            return self.reject(&Rejection::too_large(self.config.sizes.max_request));
        }
        if end_of_stream {
            self.plan()
        } else {
            Action::Pause
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // No allowlist names a trailer.
        sys::clear_headers(MapType::HttpRequestTrailers);
        if self.replied {
            Action::Pause
        } else {
            self.plan()
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.replied {
            return Action::Continue;
        }
        if let Some(exchange) = &self.exchange {
            // Other statuses are about the request: a method that no route takes. And a response that was marked is one
            // that Envoy would not retry (a 1xx came before it, say): the next provider has no part in that.
            let reached =
                || response_status() != 503 || sys::header(MapType::HttpResponseHeaders, RETRY).is_some();
            if let Some(provider) = exchange.borrow().awaited().filter(|_| !reached()) {
                if registry::note_unreachable(provider, sys::now()) {
                    log::error!(
                        "provider {provider:?} is passed over: the gateway answered before its cluster was reached \
                         (it is missing, or its circuit_breakers are full)"
                    );
                }
            }
        }
        let reply = match &self.exchange {
            Some(exchange) if exchange.borrow().is_delivered() => return Action::Continue,
            Some(exchange) if exchange.borrow().was_tried() => with_env(|env| exchange.borrow().failure(env)),
            // Envoy answers itself: a body beyond its buffer, a slow upload, no route for the method.
            _ => of_gateway(response_status()),
        };
        self.reply(&reply)
    }
}

impl Drop for RouterFilter {
    fn drop(&mut self) {
        registry::remove(self.id);
        if let Some(exchange) = self.exchange.take().filter(|exchange| exchange.borrow().awaited().is_some())
        {
            with_env(|env| exchange.borrow_mut().abandon(env));
        }
    }
}

/// Traps on purpose; only in the build that measures what a trap costs.
#[cfg(feature = "test-trap")]
fn trap() {
    std::process::abort();
}
