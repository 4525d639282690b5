//! The `router` role: an HTTP filter of the listener. Reads the request, plans, names the first provider; replaces
//! failures that no provider could repair by an error in the envelope.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::filter_state::{self, Ticket, AUDIT, PASS, RETRY};
use super::response::{self, number, DOWNSTREAM_GONE, RESET, UNREACHED};
use super::{registry, with_env};
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{End, Exchange};
use crate::host::client_request::{self, header, text, Intake};
use crate::host::{in_order, sys, worker};
use crate::record::audit::Facts;
use crate::routing::provider::ProviderId;
use crate::selection::evaluations;
use crate::selection::plan::Env;

/// Envoy's limit of one attempt, in milliseconds. Setting a header also has Envoy choose the route again.
const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// Who knows of scores that came in: Envoy's workers share them.
const SCOPE: &str = "gateway";

/// The gateway's number of the request.
const REQUEST_ID: &str = "x-request-id";

/// One client request at the listener.
pub(in crate::host) struct RouterFilter {
    id: u64,
    config: Rc<Config>,
    path: String,
    endpoint: Endpoint,
    body_len: usize,
    exchange: Option<registry::Shared>,
    /// The bytes that it keeps in the VM's memory.
    kept: usize,
    /// The request goes to its provider as it is.
    passes: bool,
    /// The request brings scores of models.
    evaluates: bool,
    /// The client has its answer from the gateway itself, with this status.
    replied: Option<u16>,
    /// The request came here: Envoy logs also those that it, or a filter in front, has answered.
    read: bool,
}

impl RouterFilter {
    pub(in crate::host) fn new(context: u32, config: Rc<Config>) -> Self {
        Self {
            id: registry::number(context),
            config,
            path: String::new(),
            endpoint: Endpoint::Chat,
            body_len: 0,
            exchange: None,
            kept: 0,
            passes: false,
            evaluates: false,
            replied: None,
            read: false,
        }
    }

    /// Answers the request instead of a provider.
    fn reply(&mut self, reply: &Reply) -> Action {
        self.replied = Some(reply.status);
        response::reply(reply);
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
        if self.evaluates {
            let replace =
                |env: &mut Env<'_>| evaluations::replace(&self.config, &bytes, SCOPE, env.now, env.store);
            let told = with_env(replace);
            return self.reply(&told);
        }
        match self.exchange(bytes) {
            Ok(exchange) => self.start(exchange),
            Err(rejection) => self.reject(&rejection),
        }
    }

    /// Hands a request that goes to its provider as it is to Envoy's router.
    fn pass(&mut self, provider: ProviderId, path: String) -> Action {
        let mut exchange = client_request::passing(&self.config, provider, path);
        client_request::name(&mut exchange, &self.config, text(header(REQUEST_ID)));
        exchange.keep_headers(sys::headers(MapType::HttpRequestHeaders));
        self.passes = true;
        self.start(exchange)
    }

    /// Chooses the first provider, and has the gateway ask it.
    fn start(&mut self, mut exchange: Exchange) -> Action {
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let (started, shadowed) = with_env(|env| {
            let started = exchange.start(env);
            let shadowed = started.is_ok() && exchange.sample_shadow(env);
            (started, shadowed)
        });
        exchange.take_notes().iter().for_each(|note| log::warn!("{note}"));
        let exchange = Rc::new(RefCell::new(exchange));
        self.exchange = Some(Rc::clone(&exchange));
        let start = match started {
            Ok(start) => start,
            Err(reply) => return self.reply(&reply),
        };
        let route = if self.passes { PASS } else { filter_state::route(start.live, shadowed) };
        let ticket = Ticket { id: self.id, route };
        let limit = start.per_try.as_millis().to_string();
        if !ticket.steer(&start.provider) || !sys::set_header(MapType::HttpRequestHeaders, PER_TRY, &limit) {
            return self.reject(&Rejection::misconfigured("the gateway refused to route the request"));
        }
        registry::insert(self.id, exchange);
        Action::Continue
    }

    /// The plan for a body.
    fn exchange(&mut self, bytes: Vec<u8>) -> Result<Exchange, Rejection> {
        let (head, body) =
            client_request::read(&self.config, self.endpoint, std::mem::take(&mut self.path), bytes)?;
        let reachable = |provider: &str| registry::is_reachable(provider, sys::now);
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, reachable)?;
        // An attempt replaces all headers, so this is the time to read it.
        client_request::name(&mut exchange, &self.config, text(header(REQUEST_ID)));
        exchange.keep_body(worker::room(), false);
        if exchange.wants_headers() {
            exchange.keep_headers(sys::headers(MapType::HttpRequestHeaders));
        }
        Ok(exchange)
    }
}

/// The status of the response that Envoy is about to send.
fn response_status() -> u16 {
    text(sys::header(MapType::HttpResponseHeaders, ":status")).parse().unwrap_or(500)
}

/// What Envoy calls.
impl RouterFilter {
    pub(in crate::host) fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.read = true;
        #[cfg(feature = "test-trap")]
        if header("x-shunt-trap").is_some() {
            trap();
        }
        let full = text(header(":path"));
        let endpoint = match client_request::of_path(&self.config, &full) {
            Intake::Asks(endpoint) => endpoint,
            Intake::Scores => {
                let told = with_env(|env| evaluations::list(&self.config, SCOPE, env.store));
                return self.reply(&told);
            }
            Intake::Evaluates if end_of_stream => return self.reject(&Rejection::no_body()),
            Intake::Evaluates => {
                self.evaluates = true;
                return Action::Pause;
            }
            Intake::Passes(provider) => return self.pass(provider, full),
            Intake::Answered(reply) => return self.reply(&reply),
        };
        let path = Head::path(&full);
        self.endpoint = endpoint;
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

    pub(in crate::host) fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.passes && self.replied.is_none() {
            return Action::Continue;
        }
        if self.replied.is_some() {
            return Action::Pause;
        }
        self.body_len = size;
        let most = if self.evaluates { evaluations::LONGEST } else { self.config.sizes.max_request };
        if size > most {
            return self.reject(&Rejection::too_large(most));
        }
        if end_of_stream {
            self.plan()
        } else {
            Action::Pause
        }
    }

    pub(in crate::host) fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // No allowlist names a trailer.
        sys::clear_headers(MapType::HttpRequestTrailers);
        if self.passes && self.replied.is_none() {
            return Action::Continue;
        }
        if self.replied.is_some() {
            Action::Pause
        } else {
            self.plan()
        }
    }

    pub(in crate::host) fn on_log(&mut self) {
        self.account();
    }

    pub(in crate::host) fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.replied.is_some() {
            return Action::Continue;
        }
        if let Some(exchange) = &self.exchange {
            // Only these say that the cluster was not reached. Anything else is about the request, or about an attempt that Envoy
            // would not retry (a 1xx came before it, or too many retries are under way): the next provider has no part in that.
            let missed = || {
                let flags = number(&sys::property("response\0flags").unwrap_or_default());
                flags & UNREACHED != 0
                    && flags & RESET == 0
                    && sys::header(MapType::HttpResponseHeaders, RETRY).is_none()
            };
            if let Some(provider) = exchange.borrow().awaited().filter(|_| missed()) {
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

impl RouterFilter {
    /// Writes the record of the request, where access logs find it, and counts it.
    fn account(&self) {
        if !self.read {
            // Without a record Envoy writes a line of its own, which knows the status.
            let facts = Facts::not_read(sys::now());
            return worker::with_book(|book| book.count(&facts, &mut sys::Metrics));
        }
        let gone = || number(&sys::property("response\0flags").unwrap_or_default()) & DOWNSTREAM_GONE != 0;
        let Some(exchange) = &self.exchange else {
            let request_id = text(header(REQUEST_ID));
            let facts =
                Facts::rejected(sys::now(), request_id, self.replied, self.replied.is_none() && gone());
            return tell(&facts);
        };
        let mut exchange = exchange.borrow_mut();
        // Only an answer that nobody ended needs to be asked why it ended.
        let end = End { gone: !exchange.is_over() && gone(), replied: self.replied };
        with_env(|env| tell(&exchange.finish(end, env)));
        exchange.take_notes().iter().for_each(|note| log::warn!("{note}"));
    }
}

/// Hands the facts of a request to the access log and to the metrics.
fn tell(facts: &Facts<'_>) {
    sys::set_property(AUDIT, facts.record().as_bytes());
    worker::with_book(|book| book.count(facts, &mut sys::Metrics));
}

impl Drop for RouterFilter {
    fn drop(&mut self) {
        registry::remove(self.id);
        worker::let_go(self.kept);
        if let Some(exchange) = self.exchange.take().filter(|exchange| exchange.borrow().awaited().is_some())
        {
            in_order(with_env(|env| exchange.borrow_mut().abandon(env)), ());
        }
    }
}

/// Traps on purpose; only in the build that measures what a trap costs.
#[cfg(feature = "test-trap")]
fn trap() {
    std::process::abort();
}
