//! The `router` role: an HTTP filter of the listener. It reads and plans the request and names the first provider. If no provider could
//! answer, it replies with an error in the envelope.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::filter_state::{self, Routing, AUDIT, PASS, RETRY};
use super::response::{self, number, DOWNSTREAM_GONE, RESET, UNREACHED};
use super::{detour, registry, with_env};
use crate::bytes::ascii;
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{End, Exchange, Shadows};
use crate::host::client_request::{self, header, text, ExpectedBody, RequestKind};
use crate::host::{in_order, log_lines, sys, worker};
use crate::record::audit::Facts;
use crate::routing::provider::ProviderId;
use crate::selection::evaluations;
use crate::selection::plan::Env;

/// The request header with the time limit of one attempt, in milliseconds. Setting a header also makes Envoy choose the route again.
pub(super) const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";

/// Who knows the scores that were sent to the gateway: Envoy's workers share them.
const SCOPE: &str = "gateway";

/// The header with the gateway's id of the request.
const REQUEST_ID: &str = "x-request-id";

/// One client request at the listener.
pub(in crate::host) struct RouterFilter {
    /// Its [number](registry::number).
    number: u64,
    config: Rc<Config>,
    exchange: Option<registry::Shared>,
    /// How many bytes it keeps in the VM's memory.
    kept: usize,
    state: State,
}

/// Where the request is.
enum State {
    /// The request has not reached this filter: a filter in front of it may have answered. Envoy calls `on_log` for these, too.
    Unread,
    /// The body is arriving: `size` bytes so far.
    Receiving { path: String, body: ExpectedBody, size: usize },
    /// The request is at Envoy's router.
    Forwarded,
    /// The gateway itself has replied with this status.
    Replied(u16),
}

impl RouterFilter {
    pub(in crate::host) fn new(context: u32, config: Rc<Config>) -> Self {
        Self { number: registry::number(context), config, exchange: None, kept: 0, state: State::Unread }
    }

    /// Replies to the request in place of a provider.
    fn reply(&mut self, reply: &Reply) -> Action {
        self.state = State::Replied(reply.status);
        response::reply(reply);
        Action::Pause
    }

    fn reject(&mut self, rejection: &Rejection) -> Action {
        self.reply(&rejection.reply())
    }

    /// The status that the gateway itself has replied with.
    const fn replied(&self) -> Option<u16> {
        match self.state {
            State::Replied(status) => Some(status),
            State::Unread | State::Receiving { .. } | State::Forwarded => None,
        }
    }

    /// The body is complete: plans the request, and hands it to Envoy's router.
    fn plan(&mut self) -> Action {
        let State::Receiving { path, body, size } = std::mem::replace(&mut self.state, State::Forwarded)
        else {
            return Action::Continue;
        };
        let bytes = sys::buffer(BufferType::HttpRequestBody, 0, size).unwrap_or_default();
        if bytes.is_empty() {
            return self.reject(&Rejection::no_body());
        }
        let endpoint = match body {
            ExpectedBody::Request(endpoint) => endpoint,
            ExpectedBody::Scores => {
                let replace =
                    |env: &mut Env<'_>| evaluations::replace(&self.config, &bytes, SCOPE, env.now, env.store);
                let reply = with_env(replace);
                return self.reply(&reply);
            }
        };
        match self.exchange(endpoint, path, bytes) {
            Ok(exchange) => self.start(exchange, size),
            Err(rejection) => self.reject(&rejection),
        }
    }

    /// Hands a request that is forwarded to one provider unchanged to Envoy's router.
    fn pass(&mut self, provider: ProviderId, path: String) -> Action {
        // The client's key is not the provider's, which would get the query as it came.
        if Head::has_key(&path) {
            return self.reject(&Rejection::key_in_query());
        }
        let mut exchange = client_request::passthrough(&self.config, provider, path, &header);
        client_request::identify(&mut exchange, &self.config, text(header(REQUEST_ID)));
        exchange.keep_headers(sys::headers(MapType::HttpRequestHeaders));
        self.state = State::Forwarded;
        self.start(exchange, 0)
    }

    /// Chooses the first provider, and has Envoy send the request there. Its body has `size` bytes.
    fn start(&mut self, mut exchange: Exchange, size: usize) -> Action {
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let is_pass = exchange.pass().is_some();
        let (started, shadowed) = with_env(|env| {
            let started = exchange.start(env);
            let shadowed =
                started.is_ok() && registry::with_shadows(|shadows| exchange.sample_shadow(shadows, env));
            (started, shadowed)
        });
        log_lines(exchange.take_notes());
        let exchange = Rc::new(RefCell::new(exchange));
        self.exchange = Some(Rc::clone(&exchange));
        let start = match started {
            Ok(start) => start,
            Err(reply) => return self.reply(&reply),
        };
        let route = if is_pass { PASS } else { filter_state::route(start.live, shadowed) };
        let routing = Routing { number: self.number, route };
        let is_routed = if exchange.borrow().detours() {
            detour::take(routing, &start.provider, size)
        } else {
            let limit = start.per_try.as_millis().to_string();
            routing.set_provider(&start.provider)
                && sys::set_header(MapType::HttpRequestHeaders, PER_TRY, &limit)
        };
        if !is_routed {
            return self.reject(&Rejection::misconfigured("the gateway refused to route the request"));
        }
        registry::insert(self.number, exchange);
        Action::Continue
    }

    /// The plan for a request with this body.
    fn exchange(&self, endpoint: Endpoint, path: String, bytes: Vec<u8>) -> Result<Exchange, Rejection> {
        let (head, body) = client_request::read(&self.config, endpoint, path, bytes, &header)?;
        let reachable = |provider: &str| registry::is_reachable(provider, sys::now);
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, reachable)?;
        // The headers are read now, because the first attempt replaces them all.
        client_request::identify(&mut exchange, &self.config, text(header(REQUEST_ID)));
        exchange.keep_body(worker::room(), false);
        if exchange.wants_headers() {
            exchange.keep_headers(sys::headers(MapType::HttpRequestHeaders));
        }
        Ok(exchange)
    }
}

/// Notes that Envoy could not reach the provider that was chosen, if that is why it replies itself.
pub(super) fn note_unreached(exchange: &Exchange) {
    let Some(provider) = exchange.awaited() else { return };
    let flags = number(&sys::property("response\0flags").unwrap_or_default());
    // Only these flags say that the cluster was not reached. All others are about the request, or about an attempt after which Envoy
    // does not retry (a 1xx came before its response, or too many retries are under way): the next provider has no part in that.
    let is_unreached = flags & UNREACHED != 0
        && flags & RESET == 0
        && sys::header(MapType::HttpResponseHeaders, RETRY).is_none();
    if is_unreached && registry::note_unreachable(provider, sys::now()) {
        log::error!(
            "provider {provider:?} is skipped for a few seconds: Envoy could not send a request to its cluster; check that \
             the cluster exists and has a healthy host, and that its circuit_breakers allow enough requests"
        );
    }
}

/// The status of the response that Envoy is about to send.
fn response_status() -> u16 {
    ascii::whole(&text(sys::header(MapType::HttpResponseHeaders, ":status"))).unwrap_or(500)
}

/// Envoy's callbacks.
impl RouterFilter {
    pub(in crate::host) fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "test-trap")]
        if header("x-shunt-trap").is_some() {
            trap();
        }
        if self.config.is_shadow {
            registry::with_shadows(|shadows| shadows.arrive(&text(header(REQUEST_ID))));
        }
        let full = text(header(":path"));
        let body = match client_request::classify(&self.config, &full, &header) {
            RequestKind::Completion(endpoint) => ExpectedBody::Request(endpoint),
            RequestKind::NewScores => ExpectedBody::Scores,
            RequestKind::Scores => {
                let reply = with_env(|env| evaluations::list(&self.config, SCOPE, env.store));
                return self.reply(&reply);
            }
            RequestKind::Passthrough(provider) => return self.pass(provider, full),
            RequestKind::Reply(reply) => return self.reply(&reply),
        };
        let path = Head::path(&full);
        if end_of_stream {
            let method = text(header(":method"));
            return self.reject(&if method == "POST" {
                Rejection::no_body()
            } else {
                Rejection::method(&method, path)
            });
        }
        self.state = State::Receiving { path: path.to_owned(), body, size: 0 };
        Action::Pause
    }

    pub(in crate::host) fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let most = match &mut self.state {
            State::Receiving { body, size: received, .. } => {
                *received = size;
                body.limit(&self.config)
            }
            State::Replied(_) => return Action::Pause,
            State::Unread | State::Forwarded => return Action::Continue,
        };
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
        // No provider gets trailers: `allow_headers` does not name any.
        sys::clear_headers(MapType::HttpRequestTrailers);
        match self.state {
            State::Receiving { .. } => self.plan(),
            State::Replied(_) => Action::Pause,
            State::Unread | State::Forwarded => Action::Continue,
        }
    }

    pub(in crate::host) fn on_log(&mut self) {
        self.account();
    }

    pub(in crate::host) fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.replied().is_some() {
            return Action::Continue;
        }
        if let Some(exchange) = self.exchange.as_ref().filter(|exchange| !exchange.borrow().detours()) {
            note_unreached(&exchange.borrow());
        }
        let reply = match &self.exchange {
            Some(exchange) if exchange.borrow().misses_detour() => detour::missing(response_status()),
            Some(exchange) if exchange.borrow().is_delivered() => return Action::Continue,
            Some(exchange) if exchange.borrow().was_tried() => with_env(|env| exchange.borrow().failure(env)),
            // Envoy replies itself: the body is longer than its buffer, the upload is too slow, or no route has this method.
            _ => of_gateway(response_status()),
        };
        self.reply(&reply)
    }

    pub(in crate::host) fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &self.exchange {
            Some(exchange) if end_of_stream => detour::finish(&mut exchange.borrow_mut(), size),
            _ => Action::Continue,
        }
    }
}

impl RouterFilter {
    /// Writes the request's audit record, which Envoy's access log reads, and counts the request.
    fn account(&self) {
        if matches!(self.state, State::Unread) {
            // There is no audit record: Envoy's own line in the access log has the status.
            let facts = Facts::not_read(sys::now());
            return worker::with_book(|book| book.count(&facts, &mut sys::Metrics));
        }
        let gone = || number(&sys::property("response\0flags").unwrap_or_default()) & DOWNSTREAM_GONE != 0;
        let replied = self.replied();
        let Some(exchange) = &self.exchange else {
            let request_id = text(header(REQUEST_ID));
            let facts = Facts::rejected(sys::now(), request_id, replied, replied.is_none() && gone());
            return publish(&facts);
        };
        let mut exchange = exchange.borrow_mut();
        // Envoy is asked whether the client has left only if the exchange does not know how the request ended.
        let end = End { gone: !exchange.is_over() && gone(), replied };
        with_env(|env| publish(&exchange.finish(end, env)));
        log_lines(exchange.take_notes());
    }
}

/// Hands the facts of a request to the access log and to the metrics.
fn publish(facts: &Facts<'_>) {
    sys::set_property(AUDIT, facts.record().as_bytes());
    worker::with_book(|book| book.count(facts, &mut sys::Metrics));
}

impl Drop for RouterFilter {
    fn drop(&mut self) {
        registry::remove(self.number);
        if self.config.is_shadow && !matches!(self.state, State::Unread) {
            registry::with_shadows(Shadows::end);
        }
        worker::free(self.kept);
        if let Some(exchange) = self.exchange.take().filter(|exchange| exchange.borrow().awaited().is_some())
        {
            in_order(with_env(|env| exchange.borrow_mut().abandon(env)), ());
        }
    }
}

/// Traps on purpose. It exists only in the build that measures what a trap costs.
#[cfg(feature = "test-trap")]
fn trap() {
    std::process::abort();
}
