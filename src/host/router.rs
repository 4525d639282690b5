//! The `router` role: an HTTP filter of the listener. Reads the request, plans, names the first provider; replaces
//! failures that no provider could repair by an error in the envelope.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::{registry, sys, with_env};
use crate::config::Config;
use crate::exchange::{Exchange, Start};
use crate::headers::{HeaderWriter, Headers};
use crate::report::{of_gateway, Rejection, Reply};
use crate::request::{Body, Head};

/// Filter state that names the cluster of the next attempt. The route's cluster matcher reads it.
pub(super) const NEXT: &str = "shunt_next";
/// Filter state by which an attempt finds its request: the router's context as text.
pub(super) const REQUEST: &str = "shunt_request";
/// Which of the two routes serves: `live` streams have an idle limit, everything else is `whole`.
const MODE: &str = "x-shunt-mode";
/// Envoy's bound on retries of this request.
const MAX_RETRIES: &str = "x-envoy-max-retries";
/// Envoy's limit of one attempt, in milliseconds.
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// One client request at the listener.
pub(super) struct RouterFilter {
    id: u32,
    config: Rc<Config>,
    head: Option<(Head, Headers)>,
    body_len: usize,
    exchange: Option<registry::Shared>,
    /// The client has its answer from the gateway itself.
    replied: bool,
}

impl RouterFilter {
    pub(super) const fn new(id: u32, config: Rc<Config>) -> Self {
        Self { id, config, head: None, body_len: 0, exchange: None, replied: false }
    }

    /// Answers the request instead of a provider.
    fn reply(&mut self, reply: &Reply) -> Action {
        self.replied = true;
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
        let Some((head, headers)) = self.head.take() else { return Action::Continue };
        let bytes = sys::buffer(BufferType::HttpRequestBody, 0, self.body_len).unwrap_or_default();
        if bytes.is_empty() {
            return self.reject(&Rejection::no_body());
        }
        let planned = Body::read(&bytes)
            .and_then(|body| Exchange::new(Rc::clone(&self.config), &head, body, registry::is_mapped));
        drop(bytes);
        let mut exchange = match planned {
            Ok(exchange) => exchange,
            Err(rejection) => return self.reject(&rejection),
        };
        let Some(start) = with_env(|env| exchange.start(env)) else {
            return self.reject(&Rejection::misconfigured("no provider could be chosen"));
        };
        let routed = sys::set_headers(MapType::HttpRequestHeaders, &routing_headers(&headers, &start))
            && sys::set_property(NEXT, start.provider.as_bytes())
            && sys::set_property(REQUEST, self.id.to_string().as_bytes());
        if !routed {
            return self.reject(&Rejection::misconfigured("the gateway refused to route the request"));
        }
        let exchange = Rc::new(RefCell::new(exchange));
        registry::insert(self.id, Rc::clone(&exchange));
        self.exchange = Some(exchange);
        Action::Continue
    }
}

/// The client's headers without any that steer a gateway, and the ones that do. The body's length is not told: it changes
/// with the model's name.
fn routing_headers(client: &Headers, start: &Start) -> Vec<u8> {
    let steers = |name: &[u8]| name.starts_with(b"x-shunt-") || name.starts_with(b"x-envoy-");
    let mut out = HeaderWriter::default();
    out.extend(client.iter().filter(|(name, _)| !steers(name)));
    out.add(MODE, if start.live { "live" } else { "whole" });
    out.add(MAX_RETRIES, start.max_retries.to_string());
    out.add(PER_TRY, start.per_try.as_millis().to_string());
    out.finish()
}

impl Context for RouterFilter {}

impl HttpContext for RouterFilter {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let headers = sys::headers(MapType::HttpRequestHeaders);
        #[cfg(feature = "test-trap")]
        if headers.value("x-shunt-trap").is_some() {
            trap();
        }
        let head = Head::read(&headers, self.config.sizes.max_request).and_then(|head| {
            if self.config.has_path(&head.path) {
                Ok(head)
            } else {
                Err(Rejection::path("POST", &head.path))
            }
        });
        match head {
            Err(rejection) => self.reject(&rejection),
            Ok(_) if end_of_stream => self.reject(&Rejection::no_body()),
            Ok(head) => {
                self.head = Some((head, headers));
                Action::Pause
            }
        }
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
        let Some(exchange) = &self.exchange else {
            // Envoy answers before there was a plan: a body beyond its buffer, a slow upload.
            let status = sys::header(MapType::HttpResponseHeaders, ":status");
            let status = status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()).unwrap_or(500);
            return self.reply(&of_gateway(status));
        };
        let exchange = exchange.borrow();
        if exchange.is_delivered() {
            return Action::Continue;
        }
        let reply = if exchange.was_tried() {
            with_env(|env| exchange.failure(env))
        } else {
            let status = sys::header(MapType::HttpResponseHeaders, ":status");
            of_gateway(status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()).unwrap_or(503))
        };
        drop(exchange);
        self.reply(&reply)
    }

    fn on_log(&mut self) {
        registry::remove(self.id);
    }
}

impl Drop for RouterFilter {
    fn drop(&mut self) {
        // A host that never logs must not leave the exchange behind.
        registry::remove(self.id);
    }
}

/// Traps on purpose; only in the build that measures what a trap costs.
#[cfg(feature = "test-trap")]
fn trap() {
    std::process::abort();
}
