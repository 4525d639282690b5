//! The `attempt` role: an upstream HTTP filter of one provider's cluster. It rewrites the request for this provider, withholds and judges
//! its response, and tells Envoy's router whether to retry, and at which provider.

mod polled;
mod withheld;

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::deadlines;
use super::filter_state::{Routing, RETRY, WHOLE};
use super::registry::{self, Shared};
use super::request::{Applied, Change};
use super::response::{change, header, number, was_reused, DOWNSTREAM_GONE};
use super::with_env;
use crate::bytes::ascii;
use crate::client_api::errors::Rejection;
use crate::exchange::{Exchange, Next, NotBegun};
use crate::health::outcome::{Outcome, Verdict};
use crate::host::client_request::{self, trace};
use crate::host::{decided, in_order, log_lines, sys};
use crate::response::answer::{Judged, Watch};
use crate::routing::rewrite::{empty_request, passthrough_headers, request_headers};
use polled::Polled;
use withheld::{ErrorSent, Withheld};

/// The response header that says to Envoy's retry policy how many seconds to wait.
const WAIT: &str = "x-shunt-wait";

/// One attempt at one provider.
pub(in crate::host) struct AttemptFilter {
    /// The plugin's name: the provider whose cluster this is.
    name: Rc<str>,
    context: u32,
    routing: Routing,
    exchange: Option<Shared>,
    change: Change,
    phase: Phase,
}

enum Phase {
    /// The request is sent, and no response has come.
    Requested,
    /// Envoy's route led to the cluster of another provider: nothing of the request is sent.
    Misrouted,
    /// The response is withheld.
    Withheld(Withheld),
    /// An answer flows to the client, and is watched to its end.
    Released(Watch),
    /// The client gets an error that this filter has written. What the provider still sends of its own is dropped.
    Replaced,
    /// The client reads a response in the background.
    Polled(Polled),
    /// The response is judged, and nothing more of it is read.
    Over,
}

/// Notes that Envoy's route leads to another cluster than that of the provider that was chosen. Returns what follows.
#[inline(never)]
fn misrouted(exchange: &Shared) -> Next {
    in_order(with_env(|env| exchange.borrow_mut().misrouted(env)), Next::Fail)
}

/// Reports how a released answer ended.
#[inline(never)]
fn ended(exchange: &Shared, outcome: Outcome) {
    log_lines(in_order(with_env(|env| exchange.borrow_mut().ended(outcome, env)), None));
}

/// A released stream ended on the detour: leaves what the client must still get to the router. The stream broke off unless all of its
/// answer has come.
#[inline(never)]
fn end_on_detour(exchange: &Shared, watch: &mut Watch, provider: &str) {
    let forward = watch.relay(&[], true, provider);
    let Some(outcome) = forward.ended else { return };
    {
        let mut exchange = exchange.borrow_mut();
        exchange.progress(watch.tally(), sys::now);
        if let Some(ending) = forward.replace {
            exchange.leave_ending(ending);
        }
    }
    ended(exchange, outcome);
}

/// Judges a response by what the watch over it has read. `over`: nothing more of it is read.
fn judge(exchange: &Shared, watch: &Watch, verdict: Verdict, over: bool) -> Next {
    decided(with_env(|env| {
        let mut exchange = exchange.borrow_mut();
        exchange.progress(watch.tally(), || env.now);
        exchange.judge(verdict, false, over, env)
    }))
}

/// Judges an attempt that got no response. `reused`: its connection had served another request before.
fn judge_without_response(exchange: &Shared, outcome: Outcome, reused: bool) -> Next {
    let verdict = Verdict::without_response(outcome);
    decided(with_env(|env| exchange.borrow_mut().judge(verdict, reused, true, env)))
}

impl AttemptFilter {
    pub(in crate::host) const fn new(context: u32, name: Rc<str>) -> Self {
        Self {
            name,
            context,
            routing: Routing { number: 0, route: WHOLE },
            exchange: None,
            change: Change::Nothing,
            phase: Phase::Requested,
        }
    }

    /// The request could not be rewritten: it must not be sent as it is.
    fn refuse(&mut self) -> Action {
        log::error!("cluster of {}: Envoy refused to change the request, so it is not sent", self.name);
        self.phase = Phase::Over;
        if let Some(exchange) = &self.exchange {
            // The provider has not failed. The client gets the reply below, and no other attempt follows.
            misrouted(exchange);
        }
        sys::send(&Rejection::misconfigured("the request could not be rewritten for its provider").reply());
        Action::Pause
    }

    /// The response is judged: makes Envoy deliver it, retry or give up. `end` says that the response is complete.
    fn judged(&mut self, judged: Judged, end: bool) -> Action {
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        let Phase::Withheld(held) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Action::Continue;
        };
        let Judged { verdict, body, error } = judged;
        let answered = verdict.outcome == Outcome::Answered;
        let over = end || !answered || held.watch.is_closed();
        let key = exchange.borrow().key();
        match judge(&exchange, &held.watch, verdict, over) {
            Next::Deliver(extra) if answered => {
                if let Some(watch) = held.release(body, end, &self.name, extra) {
                    self.phase = Phase::Released(watch);
                }
            }
            Next::Deliver(extra) => match held.release_error(&error.unwrap_or_default(), end, &key, extra) {
                ErrorSent::Whole => {}
                ErrorSent::Begun => self.phase = Phase::Replaced,
                ErrorSent::Reply => return Action::Pause,
            },
            next => {
                if exchange.borrow().wants_refusal() {
                    held.keep_refusal(&mut exchange.borrow_mut(), &error.unwrap_or_default(), &key);
                }
                let extra = self.route_next(next);
                change(held.response.headers, &key, extra);
            }
        }
        Action::Continue
    }

    /// Tells Envoy to which provider the next attempt goes. Returns the response headers that make Envoy's retry policy retry.
    fn route_next(&self, next: Next) -> Vec<(&'static str, String)> {
        let Next::Retry { provider, wait } = next else {
            self.routing.set_no_provider();
            return Vec::new();
        };
        self.routing.set_provider(&provider);
        let mut extra = vec![(RETRY, "1".to_owned())];
        if wait > 0 {
            extra.push((WAIT, wait.to_string()));
        }
        extra
    }

    /// More of a withheld body has come: `size` bytes in all.
    fn withheld(&mut self, size: usize, end: bool) -> Action {
        let Some(exchange) = &self.exchange else { return Action::Continue };
        let Phase::Withheld(held) = &mut self.phase else { return Action::Continue };
        let max_held = exchange.borrow().max_held();
        if let Some(judged) = held.grow(size, end, max_held) {
            return self.judged(judged, end);
        }
        // Should the client leave, or the answer break off, the audit record says how much of it there was.
        let tally = held.watch.tally();
        if tally.begun || tally.stored != 0 || tally.usage.is_some() {
            exchange.borrow_mut().progress(tally, sys::now);
        }
        Action::Pause
    }

    /// A piece of a released stream.
    fn relay(&mut self, size: usize, end: bool) -> Action {
        let Phase::Released(watch) = &mut self.phase else { return Action::Continue };
        let piece = if size == 0 {
            Vec::new()
        } else {
            sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default()
        };
        let forward = watch.relay(&piece, end, &self.name);
        let tally = watch.tally();
        if let Some(bytes) = forward.replace {
            sys::set_buffer(BufferType::HttpResponseBody, 0, size, &bytes);
        }
        let torn = watch.is_torn();
        if let Some(exchange) = &self.exchange {
            {
                let mut exchange = exchange.borrow_mut();
                // If the client leaves, the audit record is written before this filter learns of it.
                exchange.progress(tally, sys::now);
                if torn {
                    // On the detour the reset reaches the router as an end.
                    exchange.leave_ending(Vec::new());
                }
            }
            if let Some(outcome) = forward.ended {
                ended(exchange, outcome);
            }
        }
        if torn {
            // The client has half of an event, and a clean end would make it look whole.
            self.phase = Phase::Over;
            sys::reset_response();
            return Action::Pause;
        }
        if end {
            self.phase = Phase::Over;
        }
        Action::Continue
    }

    /// A released stream ended with trailers. Nothing can be added to its body any more, so a stream that broke off must not end as
    /// if it were complete: it is paused until the idle limit of Envoy's route resets it. On the detour the router can still add
    /// something.
    fn relay_trailers(&mut self) -> Action {
        let Phase::Released(watch) = &mut self.phase else { return Action::Continue };
        let Some(exchange) = &self.exchange else { return Action::Continue };
        if exchange.borrow().detours() {
            end_on_detour(exchange, watch, &self.name);
            self.phase = Phase::Over;
            return Action::Continue;
        }
        let finished = watch.is_finished() || !watch.is_stream();
        // If only the last event, which has no blank line, says that the answer is finished, the client does not get that event.
        let outcome = watch.relay(&[], true, &self.name).ended;
        let outcome = outcome.map(|outcome| if finished { outcome } else { Outcome::Truncated });
        let tally = watch.tally();
        self.phase = Phase::Over;
        let Some(outcome) = outcome else { return Action::Continue };
        exchange.borrow_mut().progress(tally, sys::now);
        ended(exchange, outcome);
        if outcome == Outcome::Answered {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    /// The attempt ended without a judgement: its connection failed, it took too long, or the client left.
    fn broke_off(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let has_head = match &mut self.phase {
            Phase::Over | Phase::Polled(_) | Phase::Replaced => return,
            Phase::Misrouted => {
                self.route_next(misrouted(&exchange));
                return;
            }
            // The end of the stream was read before the connection broke, or the time of the request was over.
            _ if exchange.borrow().is_over() => return,
            Phase::Released(watch) => {
                let flags = sys::property("response\0flags").unwrap_or_default();
                if number(&flags) & DOWNSTREAM_GONE != 0 {
                    return ended(&exchange, Outcome::ClientGone);
                }
                if exchange.borrow().detours() {
                    return end_on_detour(&exchange, watch, &self.name);
                }
                return ended(&exchange, Outcome::Truncated);
            }
            Phase::Requested => false,
            Phase::Withheld(_) => true,
        };
        // Before anything was released, Envoy deletes the router's context first only if the request itself is over: the
        // client left, or the idle limit of Envoy's route passed.
        let gone = self.routing.exchange().is_none();
        let outcome =
            if gone { Outcome::ClientGone } else { exchange.borrow().silence(has_head, sys::now()) };
        let reused = outcome == Outcome::Unreachable && was_reused();
        self.route_next(judge_without_response(&exchange, outcome, reused));
    }

    /// The attempt cannot begin at this cluster, which gets nothing of the request.
    fn send_nothing(&mut self, why: NotBegun) -> Action {
        self.phase = Phase::Misrouted;
        match why {
            NotBegun::Misrouted(chosen) => {
                if registry::note_unreachable(&chosen, sys::now()) {
                    log::error!(
                        "provider {chosen:?} is skipped for a few seconds: Envoy's route leads to the cluster of {:?} instead \
                         of its own; correct the route's cluster matcher, or the name of that cluster's filter",
                        self.name
                    );
                }
            }
            NotBegun::OutOfOrder(error) => in_order(Err(error), ()),
        }
        if sys::set_headers(MapType::HttpRequestHeaders, &empty_request()) {
            Action::Continue
        } else {
            self.refuse()
        }
    }

    /// Writes the request headers for this provider. Returns what is to be changed in the body; `None` if Envoy refuses.
    fn write_headers(exchange: &Exchange) -> Option<Change> {
        let provider = exchange.provider()?;
        let trace = if exchange.traces() { trace(&client_request::header) } else { [None, None] };
        let client = exchange.client_headers();
        let (block, change) = if let Some(pass) = exchange.pass() {
            (passthrough_headers(client, provider, &pass.method, &pass.path, &trace), Change::Nothing)
        } else {
            let splices = exchange.splices();
            let block = request_headers(client, provider, exchange.ask(&splices), &trace);
            let change = match exchange.translated() {
                Some(_) => Change::Replace,
                None if splices.is_empty() => Change::Nothing,
                None => Change::Splice(splices),
            };
            (block, change)
        };
        sys::set_headers(MapType::HttpRequestHeaders, &block).then_some(change)
    }
}

impl Drop for AttemptFilter {
    /// Envoy deletes the context before it retries: this is the last moment at which the next provider can be named.
    fn drop(&mut self) {
        deadlines::forget(self.context);
        self.broke_off();
    }
}

/// Envoy's callbacks.
impl AttemptFilter {
    pub(in crate::host) fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let routing = Routing::read();
        let found = routing.and_then(|routing| Some((routing, routing.exchange()?)));
        let Some((routing, exchange)) = found else {
            log::error!(
                "cluster of {}: a request is refused, because it did not come through a router filter of the same VM; use this \
                 cluster only in the routes of the router, and give both filters the same vm_config",
                self.name
            );
            self.phase = Phase::Over;
            sys::send(&Rejection::misconfigured("the request did not come through the shunt router").reply());
            return Action::Pause;
        };
        self.routing = routing;
        self.exchange = Some(Rc::clone(&exchange));
        let begun = exchange.borrow_mut().begin(&self.name, sys::now);
        if let Err(why) = begun {
            return self.send_nothing(why);
        }
        let cut_at = exchange.borrow().cut_at();
        if let Some(deadline) = cut_at {
            deadlines::watch(deadline, self.context, Rc::clone(&exchange));
        }
        let change = Self::write_headers(&exchange.borrow());
        match change {
            Some(change) => {
                self.change = change;
                Action::Continue
            }
            None => self.refuse(),
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
            Applied::NeedsMore => Action::Pause,
            Applied::Refused => self.refuse(),
        }
    }

    pub(in crate::host) fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(exchange) = self.exchange.clone() else { return Action::Continue };
        if matches!(self.phase, Phase::Misrouted) {
            self.phase = Phase::Over;
            let extra = self.route_next(misrouted(&exchange));
            if !extra.is_empty() {
                change(None, "", extra);
            }
            return Action::Continue;
        }
        let status = header(":status")
            .and_then(|status| ascii::whole(std::str::from_utf8(&status).ok()?))
            .unwrap_or(0);
        if exchange.borrow().pass().is_some() {
            self.phase = Polled::new(&exchange, status).map_or(Phase::Over, Phase::Polled);
            let extra = in_order(with_env(|env| exchange.borrow_mut().passed(status, env)), Vec::new());
            change(None, &exchange.borrow().key(), extra);
            return Action::Continue;
        }
        let Some(held) = Withheld::new(&exchange.borrow(), status) else { return Action::Continue };
        self.phase = Phase::Withheld(held);
        if end_of_stream {
            return self.withheld(0, true);
        }
        Action::Pause
    }

    pub(in crate::host) fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.phase {
            Phase::Polled(polled) => polled.take(self.exchange.as_ref(), size, end_of_stream),
            Phase::Withheld(_) => self.withheld(size, end_of_stream),
            Phase::Released(_) => self.relay(size, end_of_stream),
            Phase::Replaced => {
                sys::set_buffer(BufferType::HttpResponseBody, 0, size, b"");
                Action::Continue
            }
            Phase::Requested | Phase::Misrouted | Phase::Over => Action::Continue,
        }
    }

    pub(in crate::host) fn on_http_response_trailers(&mut self, _: usize) -> Action {
        sys::clear_headers(MapType::HttpResponseTrailers);
        match &self.phase {
            Phase::Withheld(held) => {
                let size = held.size();
                self.withheld(size, true)
            }
            Phase::Released(_) => self.relay_trailers(),
            Phase::Requested | Phase::Misrouted | Phase::Polled(_) | Phase::Replaced | Phase::Over => {
                Action::Continue
            }
        }
    }
}
