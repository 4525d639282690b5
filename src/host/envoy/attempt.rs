//! The `attempt` role: an upstream HTTP filter of one provider's cluster. Rewrites the request for this provider, withholds
//! and judges its answer, and tells Envoy's router whether and where to try again.

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::filter_state::{Ticket, RETRY, WHOLE};
use super::request::{Applied, Change};
use super::response::{
    change, change_error, deliver, header, number, reply, was_reused, Response, DOWNSTREAM_GONE,
};
use super::{registry, with_env};
use crate::client_api::errors::{error_envelope, is_envelope, json_type, Rejection, Reply};
use crate::exchange::{Next, NotBegun};
use crate::health::outcome::{retry_after, ErrorBody, Outcome, Verdict};
use crate::host::client_request::trace;
use crate::host::{decided, in_order, log_line, sys};
use crate::response::answer::{Head, Judged, Step, Wants, Watch};
use crate::routing::rewrite::{empty_request, passthrough_headers, request_headers};

/// The response header from which Envoy's retry policy reads how long to wait, in whole seconds.
const WAIT: &str = "x-shunt-wait";

/// One try at one provider.
pub(in crate::host) struct AttemptFilter {
    /// The plugin's name: the provider whose cluster this is.
    name: Rc<str>,
    ticket: Ticket,
    exchange: Option<registry::Shared>,
    change: Change,
    phase: Phase,
}

enum Phase {
    /// No response yet.
    Asked,
    /// The route led to a cluster that is not the provider's.
    Misrouted,
    /// The response is held back.
    Withheld(Held),
    /// A stream flows to the client.
    Released(Watch),
    /// An error was written in place of the provider's, of which nothing more passes.
    Replaced,
    /// Judged, and nothing more to see.
    Over,
}

/// A response that is held back.
struct Held {
    watch: Watch,
    response: Response,
    /// How much of the body there is, in bytes.
    size: usize,
    /// How much of it was shown to a watch that reads pieces.
    seen: usize,
}

impl Held {
    /// Takes the body out of Envoy's buffer, from a byte on.
    fn body(&self, from: usize) -> Vec<u8> {
        match self.size.saturating_sub(from) {
            0 => Vec::new(),
            len => sys::buffer(BufferType::HttpResponseBody, from, len).unwrap_or_default(),
        }
    }
}

impl AttemptFilter {
    pub(in crate::host) const fn new(name: Rc<str>) -> Self {
        Self {
            name,
            ticket: Ticket { id: 0, route: WHOLE },
            exchange: None,
            change: Change::Nothing,
            phase: Phase::Asked,
        }
    }

    /// The request could not be rewritten: it must not leave as it is.
    fn refuse(&mut self) -> Action {
        log::error!("cluster of {}: the gateway refused a change of the request; it is not sent", self.name);
        self.phase = Phase::Over;
        if let Some(exchange) = &self.exchange {
            // Not the provider's failure. What follows is the client's answer, not another attempt.
            in_order(with_env(|env| exchange.borrow_mut().misrouted(env)), Next::Fail);
        }
        sys::send(&Rejection::misconfigured("the request could not be rewritten for its provider").reply());
        Action::Pause
    }

    /// The response is judged: tells Envoy what to do with it. `end` says that it is complete.
    fn judged(&mut self, judged: Judged, end: bool) -> Action {
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let Phase::Withheld(held) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Action::Continue;
        };
        let Judged { verdict, body, error } = judged;
        let answered = verdict.outcome == Outcome::Answered;
        let streams = answered && held.watch.is_stream();
        // An answer that was not held to its end is delivered unjudged; only a stream is watched further.
        let over = end || !streams || held.watch.is_closed();
        let key = exchange.borrow().key();
        let decision = with_env(|env| {
            let mut exchange = exchange.borrow_mut();
            exchange.progress(held.watch.tally(), || env.now);
            exchange.judge(verdict, false, over, env)
        });
        match decided(decision) {
            Next::Deliver(extra) if answered => self.deliver(held, body, end, extra),
            Next::Deliver(extra) => self.deliver_error(held, &error.unwrap_or_default(), end, &key, extra),
            Next::Retry { provider, wait } => {
                self.ticket.steer(&provider);
                let mut extra = vec![(RETRY, "1".to_owned())];
                if wait > 0 {
                    extra.push((WAIT, wait.to_string()));
                }
                change(held.response.headers, &key, extra);
                Action::Continue
            }
            Next::Fail | Next::Drop => {
                self.ticket.stop();
                change(held.response.headers, &key, Vec::new());
                Action::Continue
            }
        }
    }

    /// Lets an answer go to the client, with `body` in place of what is held if there is one.
    fn deliver(
        &mut self,
        held: Held,
        body: Option<Vec<u8>>,
        end: bool,
        extra: Vec<(&'static str, String)>,
    ) -> Action {
        let Held { mut watch, response, size, .. } = held;
        let streams = watch.is_stream();
        let body = if streams { watch.release(end, &self.name) } else { body };
        let len = body.as_ref().map_or(size, Vec::len);
        deliver(&response, streams, end.then_some(len), extra);
        if let Some(body) = body {
            sys::set_buffer(BufferType::HttpResponseBody, 0, size, &body);
        }
        if streams && !end {
            self.phase = Phase::Released(watch);
        }
        Action::Continue
    }

    /// Lets the provider's own error be the client's answer, in the envelope. One that came as a success becomes an error.
    fn deliver_error(
        &mut self,
        held: Held,
        told: &ErrorBody,
        end: bool,
        key: &str,
        extra: Vec<(&'static str, String)>,
    ) -> Action {
        let came_as_error = held.watch.is_error();
        if came_as_error && end && is_envelope(&held.body(0), key) {
            change(held.response.headers, key, extra);
            return Action::Continue;
        }
        let status = if came_as_error { held.response.status } else { 400 };
        let body = error_envelope(told, status, key);
        if end && held.size == 0 {
            // Envoy has no body that could be written: the gateway answers in the provider's place.
            let headers = std::iter::once(json_type()).chain(extra).collect();
            reply(&Reply { status, headers, body });
            return Action::Pause;
        }
        change_error(status, &held.response.headers.unwrap_or_default(), key, body.len(), extra);
        sys::set_buffer(BufferType::HttpResponseBody, 0, held.size, &body);
        if !end {
            self.phase = Phase::Replaced;
        }
        Action::Continue
    }

    /// More of a withheld body is there: `size` bytes in all.
    fn withheld(&mut self, size: usize, end: bool) -> Action {
        let Some(max_held) = self.exchange.as_ref().map(|exchange| exchange.borrow().max_held()) else {
            return Action::Continue;
        };
        let Phase::Withheld(held) = &mut self.phase else { return Action::Continue };
        held.size = size;
        let judged = match held.watch.wants(max_held) {
            Wants::Pieces => {
                let piece = held.body(held.seen);
                held.seen = size;
                match held.watch.withhold(&piece, end, size, max_held) {
                    Step::Hold => {
                        // Should the client leave, or the answer break off, its record tells what was there.
                        let tally = held.watch.tally();
                        if let Some(exchange) = self.exchange.as_ref().filter(|_| tally.begun) {
                            exchange.borrow_mut().progress(tally, sys::now);
                        }
                        return Action::Pause;
                    }
                    Step::Judged(judged) => judged,
                }
            }
            Wants::Everything(_) if end => {
                let body = held.body(0);
                held.watch.judge(&body, true)
            }
            // Longer than anything that is held: the beginning of an error says enough, an answer is not read.
            Wants::Everything(most) if size > most => {
                let start = if held.watch.is_error() { held.body(0) } else { Vec::new() };
                held.watch.judge(&start, false)
            }
            Wants::Everything(_) => return Action::Pause,
        };
        self.judged(judged, end)
    }

    /// A piece of a released stream.
    fn relay(&mut self, size: usize, end: bool) -> Action {
        let Phase::Released(watch) = &mut self.phase else { return Action::Continue };
        let piece = if size == 0 {
            Vec::new()
        } else {
            sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default()
        };
        let relay = watch.relay(&piece, end, &self.name);
        let tally = watch.tally();
        if let Some(bytes) = relay.replace {
            sys::set_buffer(BufferType::HttpResponseBody, 0, size, &bytes);
        }
        if let Some(exchange) = &self.exchange {
            // The record of a client that leaves is written before this filter hears of it.
            exchange.borrow_mut().progress(tally, sys::now);
            if let Some(outcome) = relay.ended {
                log_line(in_order(with_env(|env| exchange.borrow_mut().ended(outcome, env)), None));
            }
        }
        if end {
            self.phase = Phase::Over;
        }
        Action::Continue
    }

    /// A released stream ended with trailers. Envoy has no body then that could be added to, so a stream that broke off is
    /// not let end at all: the route's idle limit resets the client's.
    fn relay_trailers(&mut self) -> Action {
        let Phase::Released(watch) = &mut self.phase else { return Action::Continue };
        let finished = watch.is_finished();
        // An end that only the last, unfinished event tells is lost with that event.
        let ended = watch.relay(&[], true, &self.name).ended;
        let ended = ended.map(|outcome| if finished { outcome } else { Outcome::Truncated });
        let tally = watch.tally();
        self.phase = Phase::Over;
        let (Some(outcome), Some(exchange)) = (ended, &self.exchange) else { return Action::Continue };
        exchange.borrow_mut().progress(tally, sys::now);
        log_line(in_order(with_env(|env| exchange.borrow_mut().ended(outcome, env)), None));
        if outcome == Outcome::Answered {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    /// The attempt is over without a judgement: a transport failure, a timeout, or a client that left.
    fn broke(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let heard = match self.phase {
            Phase::Over | Phase::Replaced => return,
            Phase::Misrouted => {
                let next = with_env(|env| exchange.borrow_mut().misrouted(env));
                return self.go_on(in_order(next, Next::Fail));
            }
            // Its end was read, and what broke came after it.
            Phase::Released(_) if exchange.borrow().is_over() => return,
            Phase::Released(_) => {
                let flags = sys::property("response\0flags").unwrap_or_default();
                let gone = number(&flags) & DOWNSTREAM_GONE != 0;
                let outcome = if gone { Outcome::ClientGone } else { Outcome::Truncated };
                log_line(in_order(with_env(|env| exchange.borrow_mut().ended(outcome, env)), None));
                return;
            }
            Phase::Asked => false,
            Phase::Withheld(_) => true,
        };
        // Before anything was released, Envoy deletes the router's context first only if the request itself is over: the
        // client left, or the gateway's idle limit passed.
        let gone = self.ticket.exchange().is_none();
        let outcome = if gone { Outcome::ClientGone } else { exchange.borrow().silence(heard, sys::now()) };
        let reused = outcome == Outcome::Unreachable && was_reused();
        let verdict = Verdict::without_response(outcome);
        let decision = with_env(|env| exchange.borrow_mut().judge(verdict, reused, true, env));
        self.go_on(decided(decision));
    }

    /// Steers to what follows an attempt that had no response.
    fn go_on(&self, next: Next) {
        match next {
            Next::Retry { provider, .. } => {
                self.ticket.steer(&provider);
            }
            Next::Fail | Next::Drop | Next::Deliver(_) => self.ticket.stop(),
        }
    }
}

impl Drop for AttemptFilter {
    /// The context is deleted: the last moment at which the host can be steered, and before it retries.
    fn drop(&mut self) {
        self.broke();
    }
}

/// What Envoy calls.
impl AttemptFilter {
    pub(in crate::host) fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let ticket = Ticket::read();
        let found = ticket.and_then(|ticket| Some((ticket, ticket.exchange()?)));
        let Some((ticket, exchange)) = found else {
            log::error!("cluster of {}: the request did not come through a router of the same VM", self.name);
            self.phase = Phase::Over;
            sys::send(&Rejection::misconfigured("the request did not come through the shunt router").reply());
            return Action::Pause;
        };
        self.ticket = ticket;
        let begun = exchange.borrow_mut().begin(&self.name, sys::now);
        if let Err(why) = begun {
            self.phase = Phase::Misrouted;
            match why {
                NotBegun::Misrouted(meant) => {
                    if registry::note_unreachable(&meant, sys::now()) {
                        log::error!(
                            "provider {meant:?} is passed over: the route's map leads to {:?} instead of its cluster",
                            self.name
                        );
                    }
                }
                NotBegun::OutOfOrder(error) => in_order(Err(error), ()),
            }
            self.exchange = Some(exchange);
            // Whatever this cluster is, it gets nothing of the request.
            if !sys::set_headers(MapType::HttpRequestHeaders, &empty_request()) {
                return self.refuse();
            }
            return Action::Continue;
        }
        let shared = exchange.borrow();
        let mut written = false;
        let trace = if shared.traces() { trace() } else { [None, None] };
        if let (Some(provider), Some(pass)) = (shared.provider(), shared.pass()) {
            let block =
                passthrough_headers(shared.client_headers(), provider, &pass.method, &pass.path, &trace);
            written = sys::set_headers(MapType::HttpRequestHeaders, &block);
        } else if let Some(provider) = shared.provider() {
            let splices = shared.splices();
            let block = request_headers(shared.client_headers(), provider, shared.ask(&splices), &trace);
            written = sys::set_headers(MapType::HttpRequestHeaders, &block);
            self.change = match shared.translated() {
                Some(_) => Change::Whole,
                None if splices.is_empty() => Change::Nothing,
                None => Change::Splice(splices),
            };
        }
        drop(shared);
        self.exchange = Some(exchange);
        if written {
            Action::Continue
        } else {
            self.refuse()
        }
    }

    pub(in crate::host) fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if matches!(self.phase, Phase::Misrouted) {
            if size > 0 && !sys::set_buffer(BufferType::HttpRequestBody, 0, size, b"") {
                return self.refuse();
            }
            return Action::Continue;
        }
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let applied = self.change.apply(&exchange.borrow(), size, end_of_stream);
        match applied {
            Applied::Done => Action::Continue,
            Applied::Later => Action::Pause,
            Applied::Refused => self.refuse(),
        }
    }

    pub(in crate::host) fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        if matches!(self.phase, Phase::Misrouted) {
            self.phase = Phase::Over;
            match in_order(with_env(|env| exchange.borrow_mut().misrouted(env)), Next::Fail) {
                Next::Retry { provider, .. } => {
                    self.ticket.steer(&provider);
                    change(None, "", vec![(RETRY, "1".to_owned())]);
                }
                Next::Fail | Next::Drop | Next::Deliver(_) => self.ticket.stop(),
            }
            return Action::Continue;
        }
        let status =
            header(":status").and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()).unwrap_or(0);
        if exchange.borrow().pass().is_some() {
            self.phase = Phase::Over;
            let extra = in_order(with_env(|env| exchange.borrow_mut().passed(status, env)), Vec::new());
            change(None, &exchange.borrow().key(), extra);
            return Action::Continue;
        }
        let shared = exchange.borrow();
        let Some(asked) = shared.asked() else { return Action::Continue };
        let (watch, headers) = if (200..300).contains(&status) {
            let content_type =
                if shared.stream() { header("content-type").unwrap_or_default() } else { Vec::new() };
            let content_type = String::from_utf8_lossy(&content_type);
            let head = Head { status, content_type: &content_type, retry_after: None };
            (Watch::new(&head, asked), None)
        } else {
            let headers = sys::headers(MapType::HttpResponseHeaders);
            let header = |name: &str| headers.text(name).map(str::to_owned);
            let retry_after = retry_after(&header, sys::now());
            let head = Head { status, content_type: "", retry_after };
            (Watch::new(&head, asked), Some(headers))
        };
        drop(shared);
        self.phase =
            Phase::Withheld(Held { watch, response: Response { status, headers }, size: 0, seen: 0 });
        if end_of_stream {
            return self.withheld(0, true);
        }
        Action::Pause
    }

    pub(in crate::host) fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.phase {
            Phase::Withheld(_) => self.withheld(size, end_of_stream),
            Phase::Released(_) => self.relay(size, end_of_stream),
            Phase::Replaced => {
                sys::set_buffer(BufferType::HttpResponseBody, 0, size, b"");
                Action::Continue
            }
            Phase::Asked | Phase::Misrouted | Phase::Over => Action::Continue,
        }
    }

    pub(in crate::host) fn on_http_response_trailers(&mut self, _: usize) -> Action {
        sys::clear_headers(MapType::HttpResponseTrailers);
        match self.phase {
            Phase::Withheld(Held { size, .. }) => self.withheld(size, true),
            Phase::Released(_) => self.relay_trailers(),
            Phase::Asked | Phase::Misrouted | Phase::Replaced | Phase::Over => Action::Continue,
        }
    }
}
