//! The router on the outer route: reads a request, plans, and has APISIX or the filter itself ask the providers. [`response`] is
//! what the client gets, where APISIX asked.

mod response;

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::calls::{self, Heard};
use super::{reply, state, Hop, Ticket, AUDIT, OUTER, WITH_REQUEST_BODY, YES};
use crate::base::clock::Timestamp;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{End, Exchange, Next};
use crate::health::outcome::Outcome;
use crate::host::client_request::{self, header, text, Intake};
use crate::host::{in_order, log_line, sys, worker};
use crate::record::audit::Facts;
use crate::relay::{self, INNER, PLAN, TRIES, WAY};
use crate::response::committed::Committed;
use crate::routing::provider::ProviderId;
use crate::selection::evaluations;

/// Who knows of scores that came in: each worker of APISIX remembers for itself.
const SCOPE: &str = "worker";

/// What is known of the attempt whose answer the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InnerIs {
    /// It runs in another worker, or not at all.
    Unknown,
    /// It runs in this worker.
    Alive,
    /// It ran in this worker, and has ended.
    Over,
}

/// One client request.
pub(super) struct Outer {
    ticket: Ticket,
    config: Rc<Config>,
    path: String,
    endpoint: Endpoint,
    exchange: Option<Exchange>,
    plan: String,
    answer: Answer,
    /// The request brings scores of models.
    evaluates: bool,
    /// The client has its answer from the gateway itself, with this status.
    replied: Option<u16>,
    kept: usize,
    inner: InnerIs,
    /// Whose attempt that is.
    inner_of: String,
    started: Timestamp,
    noted: Timestamp,
    /// When the last piece of the answer came.
    heard: Timestamp,
    finished: bool,
}

/// What becomes of the response's body.
enum Answer {
    Untouched,
    Committed(Box<Committed>),
    /// This stands in its place.
    Instead(Vec<u8>),
}

/// Tells a request of this worker how its attempt does.
pub(super) fn note_inner(outer: Ticket, provider: &str, inner: InnerIs) {
    state::with_hop(outer, |hop| {
        if let Hop::Outer(outer) = hop {
            outer.inner = inner;
            provider.clone_into(&mut outer.inner_of);
        }
    });
}

impl Outer {
    pub(super) fn new(ticket: Ticket, config: Rc<Config>) -> Self {
        Self {
            ticket,
            config,
            path: String::new(),
            endpoint: Endpoint::Chat,
            exchange: None,
            plan: String::new(),
            answer: Answer::Untouched,
            evaluates: false,
            replied: None,
            kept: 0,
            inner: InnerIs::Unknown,
            inner_of: String::new(),
            started: sys::now(),
            noted: Timestamp::default(),
            heard: Timestamp::default(),
            finished: false,
        }
    }

    // The request

    pub(super) fn on_request_headers(&mut self) -> Action {
        let full = text(header(":path"));
        match client_request::of_path(&self.config, &full) {
            Intake::Scores => {
                let told = state::with_env(|env| evaluations::list(&self.config, SCOPE, env.store));
                self.reply(&told)
            }
            Intake::Evaluates => {
                self.evaluates = true;
                self.with_body()
            }
            Intake::Asks(endpoint) => {
                let (method, path) = (text(header(":method")), Head::path(&full));
                if method != "POST" {
                    return self.reject(&Rejection::method(&method, path));
                }
                self.endpoint = endpoint;
                self.path = path.to_owned();
                self.with_body()
            }
            Intake::Passes(provider) => self.pass(provider, full),
            Intake::Answered(answer) => self.reply(&answer),
        }
    }

    /// Has the host hand out the body.
    fn with_body(&mut self) -> Action {
        if sys::set_property(WITH_REQUEST_BODY, YES) {
            return Action::Continue;
        }
        self.reject(&Rejection::misconfigured("the gateway does not hand out bodies"))
    }

    fn pass(&mut self, provider: ProviderId, path: String) -> Action {
        let mut exchange = client_request::passing(&self.config, provider, path);
        client_request::name(&mut exchange, &self.config, request_id());
        self.start(exchange)
    }

    pub(super) fn on_request_body(&mut self, size: usize) -> Action {
        if self.replied.is_some() {
            return Action::Continue;
        }
        if size == 0 {
            // The host would hand out the body of another request.
            return self.reject(&Rejection::no_body());
        }
        let most = if self.evaluates { evaluations::LONGEST } else { self.config.sizes.max_request };
        if size > most {
            return self.reject(&Rejection::too_large(most));
        }
        let bytes = sys::buffer(BufferType::HttpRequestBody, 0, size).unwrap_or_default();
        if bytes.is_empty() {
            return self.reject(&Rejection::no_body());
        }
        if self.evaluates {
            let told =
                state::with_env(|env| evaluations::replace(&self.config, &bytes, SCOPE, env.now, env.store));
            return self.reply(&told);
        }
        match self.exchange(bytes) {
            Ok(exchange) => self.start(exchange),
            Err(rejection) => self.reject(&rejection),
        }
    }

    fn exchange(&self, bytes: Vec<u8>) -> Result<Exchange, Rejection> {
        let (head, body) = client_request::read(&self.config, self.endpoint, self.path.clone(), bytes)?;
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true)?;
        exchange.never_wait();
        client_request::name(&mut exchange, &self.config, request_id());
        // What APISIX does not send itself, the filter does.
        let calls = !exchange.live();
        exchange.keep_body(worker::room(), calls);
        Ok(exchange)
    }

    /// Chooses the first provider, and has it asked.
    fn start(&mut self, mut exchange: Exchange) -> Action {
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let chained = exchange.live() || exchange.pass().is_some();
        let started = state::with_env(|env| {
            let started = exchange.start(env);
            started.map(|_| chained.then(|| exchange.line_up(env).join(",")))
        });
        exchange.take_notes().iter().for_each(|note| log::warn!("{note}"));
        self.exchange = Some(exchange);
        match started {
            Err(answer) => self.reply(&answer),
            Ok(Some(plan)) => self.chain(plan),
            Ok(None) => self.ask(),
        }
    }

    /// Has APISIX ask one provider of the plan after another.
    fn chain(&mut self, plan: String) -> Action {
        const MAP: MapType = MapType::HttpRequestHeaders;
        self.plan = plan;
        for name in [TRIES, WAY] {
            sys::remove_header(MAP, name);
        }
        let first = self.plan.split(',').next();
        let asked = self.config.providers.iter().find(|known| Some(known.name.as_str()) == first);
        let secret = asked.map_or_else(String::new, |provider| relay::secret(provider.api_key.secret()));
        let marked = sys::set_header(MAP, PLAN, &self.plan)
            && sys::set_header(MAP, INNER, secret)
            && sys::set_header(MAP, OUTER, self.ticket.text());
        if marked {
            // Should the client leave before an answer begins, nobody is asked again.
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

    /// Answers the request instead of a provider.
    fn reply(&mut self, answer: &Reply) -> Action {
        self.replied = Some(answer.status);
        self.finish();
        reply(answer)
    }

    /// Calls the provider that was chosen, or the next one where the host refuses a call.
    fn ask(&mut self) -> Action {
        loop {
            let Some(exchange) = &mut self.exchange else { return Action::Continue };
            let Some(provider) = exchange.awaited().map(str::to_owned) else {
                return self.reject(&Rejection::misconfigured("no provider could be chosen"));
            };
            let _ = exchange.begin(&provider, sys::now);
            if calls::call(self.ticket, &self.config, exchange, &self.path, &provider) {
                return Action::Pause;
            }
            match calls::unheard(exchange, Outcome::Unreachable, state::in_env) {
                Heard::Next(Next::Retry { .. }, _) => {}
                _ => return self.fail(),
            }
        }
    }

    fn fail(&mut self) -> Action {
        let Some(exchange) = &self.exchange else { return Action::Continue };
        let failure = state::with_env(|env| exchange.failure(env));
        self.reply(&failure)
    }

    /// A call has ended; its answer has `size` bytes.
    pub(super) fn on_call_response(&mut self, size: usize) {
        let Some(exchange) = self.exchange.as_mut().filter(|_| self.replied.is_none()) else { return };
        match calls::heard(exchange, size, state::in_env) {
            Some(Heard::Answer(answer, _)) => {
                self.finish();
                self.replied = Some(answer.status);
                reply(&answer);
            }
            Some(Heard::Next(Next::Retry { .. }, _)) => {
                self.ask();
            }
            Some(Heard::Next(..)) | None => {
                self.fail();
            }
        }
    }

    // The record

    /// Writes what the record says if nothing more is heard.
    fn note(&mut self) {
        self.noted = sys::now();
        if let Some(exchange) = &self.exchange {
            sys::set_property(AUDIT, exchange.so_far(self.noted).record().as_bytes());
        }
    }

    /// The request is over: settles its budgets and writes its record.
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let Some(exchange) = &mut self.exchange else {
            let facts = Facts::rejected(self.started, request_id(), self.replied, false);
            sys::set_property(AUDIT, facts.record().as_bytes());
            return;
        };
        let end = End { gone: false, replied: self.replied };
        state::with_env(|env| {
            if exchange.awaited().is_some() {
                in_order(exchange.abandon(env), ());
            }
            let facts = exchange.finish(end, env);
            sys::set_property(AUDIT, facts.record().as_bytes());
        });
        // A client may take its time with the answer.
        exchange.drop_body();
        exchange.take_notes().iter().for_each(|note| log::warn!("{note}"));
    }

    /// The host is through with the request. It answers nothing any more.
    pub(super) fn close(mut self) {
        worker::let_go(self.kept);
        if self.finished {
            return;
        }
        let Some(exchange) = &mut self.exchange else { return };
        // The one that breaks ends first, and after such a silence it was nginx that ended it. Without a sight of both, nobody
        // is blamed.
        // (nginx's clock started a moment before the filter's.)
        let limit = exchange.limit();
        let is_silent = sys::now().since(self.heard) >= limit.saturating_sub(limit / 10);
        let outcome = match self.inner {
            InnerIs::Over => Outcome::Truncated,
            InnerIs::Alive | InnerIs::Unknown if is_silent => Outcome::Truncated,
            InnerIs::Alive | InnerIs::Unknown => Outcome::ClientGone,
        };
        log_line(state::with_env(|env| {
            let line = exchange.broke_off(outcome, env);
            exchange.finish(End { gone: outcome == Outcome::ClientGone, replied: None }, env);
            line
        }));
    }
}

/// nginx's number of the request. The header of that name may be the client's: it would give many requests one number.
fn request_id() -> String {
    text(sys::property("request_id"))
}
