//! The outer hop, in which the filter is the router: it reads and plans a request, and sends it to the providers by calls or has
//! nginx send it. [`response`] is what the client gets where nginx has sent it.

mod response;

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::calls::{self, CallResult};
use super::{reply, state, Hop, HopNumber, AUDIT, OUTER_NUMBER, URI, WITH_REQUEST_BODY, YES};
use crate::base::clock::Timestamp;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{End, Exchange, Next};
use crate::health::outcome::Outcome;
use crate::host::client_request::{self, header, text, ExpectedBody, RequestKind};
use crate::host::{in_order, log_lines, sys, worker};
use crate::record::audit::Facts;
use crate::relay::{self, DEADLINE, INNER, MAKERS, PLAN, TRIES};
use crate::response::committed::Committed;
use crate::routing::provider::ProviderId;
use crate::selection::evaluations;

/// Who knows the scores that were sent to the gateway: nginx's workers do not share them.
const SCOPE: &str = "worker";

/// What this worker knows of the attempt whose answer the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptState {
    /// Nothing: its inner hop is in another worker, or there is none.
    Unknown,
    /// Its inner hop is in this worker, and under way.
    UnderWay,
    /// Its inner hop was in this worker, and is over.
    Over,
}

/// The outer hop of one request.
pub(super) struct OuterHop {
    number: HopNumber,
    config: Rc<Config>,
    path: String,
    phase: Phase,
    exchange: Option<Exchange>,
    /// The providers' names in the order in which nginx tries them, with commas between.
    plan: String,
    answer: Answer,
    /// The outcome of a call without an answer, while `inner` is asked if anybody answers there.
    doubted: Option<Outcome>,
    /// Whether the last piece of the answer was replaced.
    replaces: bool,
    /// Whether the time of the answer's first content was noted.
    is_measured: bool,
    /// How many bytes the request keeps in the worker's memory.
    kept: usize,
    attempt: AttemptState,
    /// The provider of that attempt.
    attempt_at: String,
    started: Timestamp,
    /// When the audit record was written last.
    noted: Timestamp,
    /// When the last piece of the answer came.
    last_piece: Timestamp,
}

/// Where the request is.
#[derive(Clone, Copy)]
enum Phase {
    /// Its body is arriving, if it has one that is read.
    Receiving(ExpectedBody),
    /// The providers are tried, or an answer flows to the client.
    Underway,
    /// It is settled, and its audit record is complete.
    Over,
}

/// What becomes of the response's body.
enum Answer {
    /// It is forwarded unchanged.
    Unchanged,
    /// It is forwarded unchanged, and read: it may say what a response in the background has cost.
    Polled(Vec<u8>),
    /// It is judged and rewritten.
    Committed(Box<Committed>),
    /// This takes its place.
    Replaced(Vec<u8>),
}

/// Tells the outer hop, if it is in this worker, the state of its attempt.
pub(super) fn note_attempt(outer: HopNumber, provider: &str, attempt: AttemptState) {
    state::with_hop(outer, |hop| {
        if let Hop::Outer(outer) = hop {
            outer.attempt = attempt;
            provider.clone_into(&mut outer.attempt_at);
        }
    });
}

impl OuterHop {
    pub(super) fn new(number: HopNumber, config: Rc<Config>) -> Self {
        Self {
            number,
            config,
            path: String::new(),
            phase: Phase::Underway,
            exchange: None,
            plan: String::new(),
            answer: Answer::Unchanged,
            doubted: None,
            replaces: false,
            is_measured: false,
            kept: 0,
            attempt: AttemptState::Unknown,
            attempt_at: String::new(),
            started: sys::now(),
            noted: Timestamp::default(),
            last_piece: Timestamp::default(),
        }
    }

    /// Whether the request is settled.
    const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    // The request

    pub(super) fn on_request_headers(&mut self) -> Action {
        let full = text(header(":path"));
        if Head::has_key(&full) {
            // nginx ends each line of its error log with the request's first line. So nothing is logged, and nobody is asked.
            return self.reject(&Rejection::key_in_query());
        }
        match client_request::classify(&self.config, &full, &header) {
            RequestKind::Scores => {
                let reply = state::with_env(|env| evaluations::list(&self.config, SCOPE, env.store));
                self.reply(&reply)
            }
            RequestKind::NewScores => self.receive(ExpectedBody::Scores),
            RequestKind::Completion(endpoint) => {
                let (method, path) = (text(header(":method")), Head::path(&full));
                if method != "POST" {
                    return self.reject(&Rejection::method(&method, path));
                }
                path.clone_into(&mut self.path);
                self.receive(ExpectedBody::Request(endpoint))
            }
            RequestKind::Passthrough(provider) => self.pass(provider, full),
            RequestKind::Reply(reply) => self.reply(&reply),
        }
    }

    /// Has the host call the filter with the body.
    fn receive(&mut self, body: ExpectedBody) -> Action {
        self.phase = Phase::Receiving(body);
        if sys::set_property(WITH_REQUEST_BODY, YES) {
            return Action::Continue;
        }
        self.reject(&Rejection::misconfigured("the gateway does not hand out bodies"))
    }

    fn pass(&mut self, provider: ProviderId, path: String) -> Action {
        let mut exchange = client_request::passthrough(&self.config, provider, path, &header);
        client_request::identify(&mut exchange, &self.config, request_id());
        self.start(exchange)
    }

    pub(super) fn on_request_body(&mut self, size: usize) -> Action {
        let Phase::Receiving(expected) = self.phase else { return Action::Continue };
        self.phase = Phase::Underway;
        let most = expected.limit(&self.config);
        if size > most {
            return self.reject(&Rejection::too_large(most));
        }
        // If there is no body, the host would give that of another request.
        let bytes = if size > 0 { sys::buffer(BufferType::HttpRequestBody, 0, size) } else { None };
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return self.reject(&Rejection::no_body());
        };
        let endpoint = match expected {
            ExpectedBody::Request(endpoint) => endpoint,
            ExpectedBody::Scores => {
                let reply = state::with_env(|env| {
                    evaluations::replace(&self.config, &bytes, SCOPE, env.now, env.store)
                });
                return self.reply(&reply);
            }
        };
        match self.exchange(endpoint, bytes) {
            Ok(exchange) => self.start(exchange),
            Err(rejection) => self.reject(&rejection),
        }
    }

    fn exchange(&self, endpoint: Endpoint, bytes: Vec<u8>) -> Result<Exchange, Rejection> {
        let (head, body) = client_request::read(&self.config, endpoint, self.path.clone(), bytes, &header)?;
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true)?;
        exchange.never_wait();
        client_request::identify(&mut exchange, &self.config, request_id());
        // nginx sends live streams. The filter calls for all others, and needs their body.
        let calls = !exchange.live();
        exchange.keep_body(worker::room(), calls);
        Ok(exchange)
    }

    /// Chooses the first provider, and sends the request there or has nginx send it.
    fn start(&mut self, mut exchange: Exchange) -> Action {
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let is_proxied = exchange.live() || exchange.pass().is_some();
        let started = state::with_env(|env| {
            let started = exchange.start(env);
            started.map(|_| is_proxied.then(|| exchange.line_up(env).join(",")))
        });
        log_lines(exchange.take_notes());
        self.exchange = Some(exchange);
        match started {
            Err(reply) => self.reply(&reply),
            Ok(_) if calls::has_come_back(&self.config) => self.reject(&Rejection::misconfigured(
                "the gateway has called itself: its log names the mistake in `inner`",
            )),
            Ok(Some(plan)) => self.proxy(plan),
            Ok(None) => self.call(),
        }
    }

    /// Has nginx try one provider of the plan after another.
    fn proxy(&mut self, plan: String) -> Action {
        const MAP: MapType = MapType::HttpRequestHeaders;
        self.plan = plan;
        for name in [TRIES, MAKERS] {
            sys::remove_header(MAP, name);
        }
        let first = self.plan.split(',').next();
        let first = self.config.providers.iter().find(|known| Some(known.name.as_str()) == first);
        let secret = first.map_or_else(String::new, |provider| relay::secret(provider.api_key.secret()));
        if let Some(deadline) = self.exchange.as_ref().and_then(Exchange::deadline) {
            sys::set_header(MAP, DEADLINE, deadline.as_millis().to_string());
        }
        if let Some(makers) = self.exchange.as_ref().and_then(Exchange::told_makers) {
            sys::set_header(MAP, MAKERS, makers);
        }
        // No provider gets the query of a completion. It is dropped here, because nginx would log it for the inner hop, too.
        let is_marked = (self.path.is_empty() || sys::set_property(URI, self.path.as_bytes()))
            && sys::set_header(MAP, PLAN, &self.plan)
            && sys::set_header(MAP, INNER, secret)
            && sys::set_header(MAP, OUTER_NUMBER, self.number.text());
        if is_marked {
            // The filter is not called if the client leaves before an answer begins. So the attempt begins now.
            if let Some(exchange) = &mut self.exchange {
                let first = exchange.awaited().map(str::to_owned).unwrap_or_default();
                let _ = exchange.begin(&first, sys::now);
            }
            self.note();
            return Action::Continue;
        }
        self.reject(&Rejection::misconfigured("the gateway refused to route the request"))
    }

    fn reject(&mut self, rejection: &Rejection) -> Action {
        self.reply(&rejection.reply())
    }

    /// Replies to the request in place of a provider.
    fn reply(&mut self, answer: &Reply) -> Action {
        self.finish(Some(answer.status));
        reply(answer)
    }

    /// Calls the provider that was chosen. If the host refuses a call, the next provider is called.
    fn call(&mut self) -> Action {
        loop {
            let Some(exchange) = &mut self.exchange else { return Action::Continue };
            let Some(provider) = exchange.awaited().map(str::to_owned) else {
                return self.reject(&Rejection::misconfigured("no provider could be chosen"));
            };
            let _ = exchange.begin(&provider, sys::now);
            if calls::call(self.number, &self.config, exchange) {
                return Action::Pause;
            }
            match calls::judge_without_answer(exchange, Outcome::Unreachable, state::in_env) {
                CallResult::Next(Next::Retry { .. }, _) => {}
                _ => return self.fail(),
            }
        }
    }

    fn fail(&mut self) -> Action {
        let Some(exchange) = &self.exchange else { return Action::Continue };
        let failure = state::with_env(|env| exchange.failure(env));
        self.reply(&failure)
    }

    /// A call has ended. The body of its answer has `size` bytes.
    pub(super) fn on_call_response(&mut self, size: usize) {
        if self.is_over() {
            return;
        }
        let inner_answers = calls::inner_answers(&self.config);
        let Some(exchange) = &mut self.exchange else { return };
        let result = match self.doubted.take() {
            Some(_) if !inner_answers => return self.miss_inner(),
            Some(outcome) => Some(calls::judge_without_answer(exchange, outcome, state::in_env)),
            None if inner_answers => calls::ended(exchange, size, state::in_env),
            None => {
                let outcome = exchange.silence(true, sys::now());
                if outcome != Outcome::TooSlow && calls::asks_inner(self.number, &self.config) {
                    self.doubted = Some(outcome);
                    return;
                }
                calls::ended(exchange, size, state::in_env)
            }
        };
        match result {
            Some(CallResult::Reply(answer, _)) => {
                self.finish(None);
                reply(&answer);
            }
            Some(CallResult::Next(Next::Retry { .. }, _)) => {
                self.call();
            }
            Some(CallResult::Next(..)) | None => {
                self.fail();
            }
        }
    }

    /// Nobody answers at `inner`: no provider could be called, and none has failed.
    fn miss_inner(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        let _ = state::with_env(|env| exchange.misrouted(env));
        let rejection = calls::inner_is_wrong(&self.config);
        self.reject(&rejection);
    }

    // The audit record

    /// Writes what the audit record says if the filter is not called again.
    fn note(&mut self) {
        self.noted = sys::now();
        if let Some(exchange) = &self.exchange {
            sys::set_property(AUDIT, exchange.so_far(self.noted).record().as_bytes());
        }
    }

    /// The request is over: settles its budgets and writes its audit record. `replied` is the status of the gateway's own reply, if
    /// that is what the client gets.
    fn finish(&mut self, replied: Option<u16>) {
        if self.is_over() {
            return;
        }
        self.phase = Phase::Over;
        let Some(exchange) = &mut self.exchange else {
            let facts = Facts::rejected(self.started, request_id(), replied, false);
            sys::set_property(AUDIT, facts.record().as_bytes());
            return;
        };
        let end = End { gone: false, replied };
        state::with_env(|env| {
            if exchange.awaited().is_some() {
                in_order(exchange.abandon(env), ());
            }
            let facts = exchange.finish(end, env);
            sys::set_property(AUDIT, facts.record().as_bytes());
        });
        // The client may take long to read the answer.
        exchange.drop_body();
        log_lines(exchange.take_notes());
    }

    /// The hop is over. Calls of the host have no effect any more.
    pub(super) fn close(mut self) {
        worker::free(self.kept);
        if self.is_over() {
            return;
        }
        let Some(exchange) = &mut self.exchange else { return };
        // Did the provider break off, or did the client leave? The inner hop ends first if the provider broke off. If nothing has
        // come for as long as nginx's read timeout, nginx has ended the answer. In doubt the client left, so that no provider is
        // blamed. (nginx's clock started a moment before the filter's.)
        let limit = exchange.limit();
        let is_silent = sys::now().since(self.last_piece) >= limit.saturating_sub(limit / 10);
        let outcome = match self.attempt {
            AttemptState::Over => Outcome::Truncated,
            AttemptState::UnderWay | AttemptState::Unknown if is_silent => Outcome::Truncated,
            AttemptState::UnderWay | AttemptState::Unknown => Outcome::ClientGone,
        };
        log_lines(state::with_env(|env| {
            let line = exchange.broke_off(outcome, env);
            exchange.finish(End { gone: outcome == Outcome::ClientGone, replied: None }, env);
            line
        }));
    }
}

/// nginx's id of the request. The header `x-request-id` is not used: the client may send it, and the same one with many requests.
fn request_id() -> String {
    text(sys::property("request_id"))
}
