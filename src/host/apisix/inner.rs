//! An inner hop, in which the filter is the attempt: it rewrites the request for its provider, and gives the response the status by which
//! nginx tries the next provider or stops.

mod request;
mod routed;

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::calls::{self, CallResult};
use super::outer::{note_attempt, AttemptState};
use super::{
    hide_headers, reply, response_status, state, HopNumber, OUTER_NUMBER, WITH_REQUEST_BODY,
    WITH_RESPONSE_BODY, YES,
};
use crate::base::clock::Timestamp;
use crate::bytes::ascii;
use crate::bytes::headers::Headers;
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{Exchange, Next, Steering, Turn};
use crate::health::outcome::{doubt, of_status, retry_after_of, ErrorBody, Outcome, Verdict};
use crate::host::client_request::{self, header, text, RequestKind};
use crate::host::{in_order, sys, worker};
use crate::relay::{self, Try, DEADLINE, INNER, MAKERS, PLAN, STOP, TRIES, TRY};
use crate::routing::provider::Provider;
use request::Received;
use routed::{cannot_rewrite, is_of_router, write_passthrough, write_request};

/// The variable with the body that the provider gets. A line of Lua gives it to nginx.
const BODY: &str = "shunt_body";
/// The variable that makes a line of Lua break the response off, or put other bytes in its place.
const CUT: &str = "shunt_cut";
/// The first status of an answer. nginx gives a lower one to bytes that are not HTTP, and to a status line that has one.
const FIRST_STATUS: u16 = 200;
/// The longest answer to a call, in bytes. The host holds it, and then this filter.
const LONGEST_CALLED: usize = 32 << 20;

/// The inner hop of one try or call.
pub(super) struct InnerHop {
    number: HopNumber,
    config: Rc<Config>,
    provider: String,
    endpoint: Endpoint,
    path: String,
    /// The headers of the request, until it is sent.
    received: Received,
    exchange: Option<Exchange>,
    /// The number of the outer hop. Another worker may have it.
    outer: Option<HopNumber>,
    response: Response,
    /// A call had no answer, and `inner` is asked if anybody answers there.
    is_doubted: bool,
    /// How many bytes the request keeps in the worker's memory.
    kept: usize,
}

/// The response that this hop waits for.
enum Response {
    /// The response to a try. nginx goes on by its status.
    OfTry,
    /// The response to a call: it must end by `deadline`. The outer hop judges it.
    OfCall { deadline: Timestamp },
    /// The body of that response. `received` bytes have come.
    CallBody { deadline: Timestamp, received: usize },
    /// A reply of this filter.
    Own,
}

impl InnerHop {
    pub(super) fn new(number: HopNumber, config: Rc<Config>, provider: String) -> Self {
        Self {
            number,
            config,
            provider,
            endpoint: Endpoint::Chat,
            path: String::new(),
            received: Received::default(),
            exchange: None,
            outer: None,
            response: Response::OfTry,
            is_doubted: false,
            kept: 0,
        }
    }

    /// The time at which the request fails, which the outer hop has sent.
    fn deadline(&self) -> Option<Timestamp> {
        let told = self.value(DEADLINE)?;
        Some(Timestamp::from_millis(ascii::whole(std::str::from_utf8(&told).ok()?)?))
    }

    fn refuse(&self, rejection: &Rejection) -> Action {
        log::error!("the inner route of {} refused a request: {}", self.provider, rejection.message);
        answer(&rejection.reply())
    }

    pub(super) fn on_request_headers(&mut self) -> Action {
        let proof = text(header(INNER));
        let (secret, call_ends) = relay::read_proof(&proof);
        if !is_of_router(&self.config, &self.provider, secret, call_ends.is_some()) {
            return self
                .refuse(&Rejection::path(&text(header(":method")), Head::path(&text(header(":path")))));
        }
        self.received = Received::read();
        if let Some(deadline) = call_ends {
            return self.complete_call(deadline);
        }
        let full = text(self.value(":path"));
        self.outer = self.value(OUTER_NUMBER).and_then(|number| HopNumber::parse(&number));
        if let Some(outer) = self.outer {
            note_attempt(outer, &self.provider, AttemptState::UnderWay);
        }
        match client_request::classify(&self.config, &full, &|name| self.value(name)) {
            RequestKind::Completion(endpoint) => {
                self.endpoint = endpoint;
                Head::path(&full).clone_into(&mut self.path);
                if sys::set_property(WITH_REQUEST_BODY, YES) {
                    return Action::Continue;
                }
                self.refuse(&Rejection::misconfigured("the gateway does not hand out bodies"))
            }
            // Its provider is asked once. nginx makes another try where it had to wait too long for the answer.
            RequestKind::Passthrough(_) if self.value(TRIES).is_some_and(|tries| !tries.is_empty()) => {
                self.skip(None)
            }
            RequestKind::Passthrough(provider) => {
                let mut exchange =
                    client_request::passthrough(&self.config, provider, full, &|name| self.value(name));
                state::with_frozen_env(|env| exchange.taken_up(&self.provider, Duration::ZERO, env));
                let written = write_passthrough(&exchange, &self.provider, &self.received);
                self.exchange = Some(exchange);
                written.map_or_else(|rejection| self.refuse(&rejection), |()| Action::Continue)
            }
            RequestKind::Scores | RequestKind::NewScores => {
                self.refuse(&Rejection::path(&text(self.value(":method")), Head::path(&full)))
            }
            RequestKind::Reply(reply) => answer(&reply),
        }
    }

    /// Has nginx go on to another provider, or stop. The provider of this route is not asked.
    fn skip(&mut self, to: Option<&str>) -> Action {
        let status = if to.is_some() { relay::failover_status(Outcome::Unreachable) } else { STOP };
        let mut skips = of_gateway(status);
        skips.headers.push((TRY, relay::skip_to(to)));
        self.response = Response::Own;
        answer(&skips)
    }

    /// The provider of this inner route.
    fn own(&self) -> Option<&Provider> {
        self.config.providers.iter().find(|known| known.name == self.provider)
    }

    /// One header of the request.
    fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.received.value(name)
    }

    /// Forwards a call of the router, with the provider's host and key.
    fn complete_call(&mut self, deadline: Timestamp) -> Action {
        let is_complete =
            self.own().is_some_and(|provider| self.received.complete(provider, self.config.trace_context));
        if is_complete {
            self.response = Response::OfCall { deadline };
            Action::Continue
        } else {
            self.response = Response::Own;
            self.refuse(&cannot_rewrite())
        }
    }

    pub(super) fn on_request_body(&mut self, size: usize) -> Action {
        // If there is no body, the host would give that of another request.
        let bytes = if size > 0 { sys::buffer(BufferType::HttpRequestBody, 0, size) } else { None };
        match self.send(bytes.unwrap_or_default()) {
            Ok(action) => action,
            Err(rejection) => self.refuse(&rejection),
        }
    }

    /// Sends the request to the provider, if it is the provider's turn.
    fn send(&mut self, bytes: Vec<u8>) -> Result<Action, Rejection> {
        let (head, body) =
            client_request::read(&self.config, self.endpoint, self.path.clone(), bytes, &|name| {
                self.value(name)
            })?;
        let (plan, tries) = (text(self.value(PLAN)), text(self.value(TRIES)));
        let before = relay::earlier_tries(&plan, &tries);
        let config = Rc::clone(&self.config);
        if matches!(self.response, Response::OfTry) {
            calls::compare_inner(&config, &tries);
        }
        let deadline = if config.limits_requests() { self.deadline() } else { None };
        let makers = self.value(MAKERS).map(|makers| text(Some(makers)));
        let turn = Turn {
            plan: &plan,
            tries: &before,
            asked: &self.provider,
            now: sys::now(),
            deadline,
            makers: makers.as_deref(),
        };
        let mut exchange = Exchange::resume(config, &head, body, turn)?;
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let named = if tries.is_empty() { plan.split(',').next() } else { relay::next_provider(&tries) };
        // The first try has begun in time, even if it took a moment to get here. Reading an error is part of the attempt before.
        let may_be_late = before.last().is_none_or(Try::is_error_lookup);
        let is_late = !may_be_late && exchange.is_late(turn.now);
        let due = if is_late { None } else { exchange.due(named) };
        if due.as_deref() != Some(self.provider.as_str()) {
            // No candidate is left, or nginx has come to another provider than the next one.
            return Ok(self.skip(due.as_deref()));
        }
        if before.last().is_some_and(Try::is_error_lookup) {
            let is_called = calls::call(self.number, &self.config, &exchange);
            self.exchange = Some(exchange);
            return is_called
                .then_some(Action::Pause)
                .ok_or_else(|| Rejection::misconfigured("the gateway refused a call to the inner routes"));
        }
        write_request(&exchange, &self.received)?;
        self.received = Received::default();
        exchange.body_sent();
        self.exchange = Some(exchange);
        Ok(Action::Continue)
    }

    /// The call has ended that reads the whole body of the provider's error.
    pub(super) fn on_call_response(&mut self, size: usize) {
        let inner_answers = calls::inner_answers(&self.config);
        let Some(exchange) = &mut self.exchange else { return };
        let ended = match (inner_answers, self.is_doubted) {
            (false, true) => {
                self.response = Response::Own;
                self.refuse(&calls::inner_is_wrong(&self.config));
                return;
            }
            (true, true) => {
                let outcome = exchange.silence(true, sys::now());
                Some(calls::judge_without_answer(exchange, outcome, state::in_frozen_env))
            }
            (false, false) if calls::asks_inner(self.number, &self.config) => {
                self.is_doubted = true;
                return;
            }
            _ => calls::ended(exchange, size, state::in_frozen_env),
        };
        let (verdict, next, error) = match ended {
            Some(CallResult::Reply(error, verdict)) => (verdict, None, Some(error)),
            Some(CallResult::Next(Next::Retry { provider, .. }, verdict)) => (verdict, Some(provider), None),
            Some(CallResult::Next(_, verdict)) => (verdict, None, None),
            None => (Verdict::without_response(Outcome::Unreachable), None, None),
        };
        let status = match (&error, &next) {
            (Some(error), _) if !relay::is_retried(error.status) => error.status,
            (_, Some(_)) => relay::failover_status(verdict.outcome),
            _ => STOP,
        };
        let mut response = error.unwrap_or_else(|| of_gateway(status));
        if verdict.outcome == Outcome::Answered {
            // The error has gone. The outer hop reads the answer as it came, with the usage that no client has asked for.
            let body = sys::buffer(BufferType::HttpCallResponseBody, 0, size);
            response.body = body.unwrap_or(response.body);
        }
        response.status = status;
        response.headers.push((TRY, Try { provider: self.provider.clone(), verdict, next }.encode()));
        self.response = Response::Own;
        answer(&response);
    }

    pub(super) fn on_response_headers(&mut self) -> Action {
        match self.response {
            Response::Own => return Action::Continue,
            Response::OfCall { deadline } => return self.on_called_headers(deadline),
            Response::OfTry | Response::CallBody { .. } => {}
        }
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = response_status();
        let is_pass = exchange.pass().is_some();
        let (verdict, next, sent) = if is_pass {
            let verdict = silence(status).unwrap_or_else(|| passed(status));
            let is_kept = !is_bare(status) && !relay::is_retried(status);
            (verdict, None, if is_kept { status } else { STOP })
        } else {
            judge_head(exchange, status)
        };
        if !relay::is_retried(sent) {
            // Of a response that makes nginx try the next provider, nothing is forwarded.
            hide_headers(!is_pass);
        }
        if !is_pass {
            // nginx keeps the character set of a content type beside it, and writes it behind whatever takes the place of that type.
            // The outer hop names the type that the client gets; from here it must learn of none.
            sys::remove_header(MapType::HttpResponseHeaders, "content-type");
        }
        let report = Try { provider: self.provider.clone(), verdict, next }.encode();
        if sent != status {
            let sent = sent.to_string();
            if is_bare(status) {
                replace_with_head(&sent, &report);
            }
            sys::set_header(MapType::HttpResponseHeaders, ":status", sent);
        }
        sys::set_header(MapType::HttpResponseHeaders, TRY, report);
        Action::Continue
    }

    /// The head of the response to a call. The outer hop, which reads of its headers only what it needs, judges it; but only this hop
    /// knows whether it is the provider's. And only this hop can end one that does not end, because the host's limit is for each piece.
    fn on_called_headers(&mut self, deadline: Timestamp) -> Action {
        let status = response_status();
        let verdict = silence(status).unwrap_or_else(|| passed(status));
        let report = Try { provider: self.provider.clone(), verdict, next: None }.encode();
        if is_bare(status) {
            let sent = STOP.to_string();
            replace_with_head(&sent, &report);
            sys::set_header(MapType::HttpResponseHeaders, ":status", sent);
        } else {
            self.response = Response::CallBody { deadline, received: 0 };
            sys::set_property(WITH_RESPONSE_BODY, YES);
        }
        sys::set_header(MapType::HttpResponseHeaders, TRY, report);
        Action::Continue
    }

    /// A piece of the response to a call.
    pub(super) fn on_response_body(&mut self, size: usize) {
        let Response::CallBody { deadline, received } = &mut self.response else { return };
        *received = received.saturating_add(size);
        if *received > LONGEST_CALLED || sys::now() > *deadline {
            sys::set_property(CUT, YES);
        }
    }

    /// The hop is over. Calls of the host have no effect any more.
    pub(super) fn close(self) {
        worker::free(self.kept);
        if let Some(outer) = self.outer {
            note_attempt(outer, &self.provider, AttemptState::Over);
        }
    }
}

/// Judges a try by the head of its response. Returns its verdict, the next provider, and the status by which nginx tries it or stops.
fn judge_head(exchange: &mut Exchange, status: u16) -> (Verdict, Option<String>, u16) {
    let mut verdict = verdict(status, exchange.stream());
    if verdict.outcome == Outcome::Answered {
        return (verdict, None, status);
    }
    let steering = state::with_frozen_env(|env| exchange.steer(&mut verdict, env));
    let Steering { next, delivers } = in_order(steering, Steering { next: None, delivers: false });
    let sent = match &next {
        Some(_) if !delivers => relay::failover_status(verdict.outcome),
        _ if delivers && !relay::is_retried(status) && status >= 400 => status,
        _ => STOP,
    };
    (verdict, next, sent)
}

/// Whether bytes that are not HTTP have come in place of an answer.
const fn is_bare(status: u16) -> bool {
    status < FIRST_STATUS
}

/// Has a line of Lua put the head of an answer in the place of bytes that are not HTTP. nginx takes such bytes for an answer of HTTP/0.9, to
/// which it writes no head.
#[cold]
#[inline(never)]
fn replace_with_head(status: &str, report: &str) {
    let head = [
        "HTTP/1.1 ",
        status,
        " -\r\n",
        TRY,
        ": ",
        report,
        "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ];
    sys::set_property(CUT, head.concat().as_bytes());
}

/// Replies in place of the provider. If the host refuses, the request goes on, and nothing of it may reach the provider.
fn answer(response: &Reply) -> Action {
    let action = reply(response);
    if action == Action::Continue {
        Received::read().replace(&Headers::default());
        sys::set_property(BODY, b" ");
    }
    action
}

/// The verdict where the provider has sent no response, or one that is not HTTP; `None` if the provider has sent one.
#[inline(never)]
fn silence(status: u16) -> Option<Verdict> {
    if (200..300).contains(&status) {
        // nginx's own answers are errors.
        return None;
    }
    // The last element of nginx's list is "-" if no head of a response came.
    let times = text(sys::property("upstream_header_time"));
    let has_head = times
        .rsplit([',', ':'])
        .next()
        .is_some_and(|time| time.trim().starts_with(|c: char| c.is_ascii_digit()));
    let outcome = if status == 504 { Outcome::TooSlow } else { Outcome::Unreachable };
    (!has_head || is_bare(status)).then(|| Verdict::without_response(outcome))
}

/// The verdict on the response to a request of a passthrough path.
fn passed(status: u16) -> Verdict {
    let outcome = if status < 400 { Outcome::Answered } else { of_status(status, &ErrorBody::default()) };
    Verdict::certain(outcome, Some(status))
}

/// The verdict on the head of a response.
fn verdict(status: u16, stream: bool) -> Verdict {
    if let Some(silence) = silence(status) {
        return silence;
    }
    let value = |name: &str| {
        sys::header(MapType::HttpResponseHeaders, name)
            .map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    if (200..300).contains(&status) {
        // The head shows a stream that is no answer: it is a document, compressed, or empty.
        let kind = ascii::lower(&value("content-type").unwrap_or_default());
        let is_document =
            stream && ["application/json", "text/html"].iter().any(|document| kind.starts_with(document));
        let is_compressed =
            value("content-encoding").is_some_and(|encoding| !ascii::is_same(encoding, "identity"));
        let is_empty = value("content-length").is_some_and(|len| len == "0") || status == 204;
        let outcome =
            if is_document || is_compressed || is_empty { Outcome::ServerError } else { Outcome::Answered };
        return Verdict::certain(outcome, Some(status));
    }
    let error = ErrorBody::default();
    Verdict {
        outcome: of_status(status, &error),
        status: Some(status),
        retry_after: retry_after_of(status, &value, sys::now()),
        doubt: doubt(status, &error),
    }
}
