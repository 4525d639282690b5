//! The attempt on an inner route: rewrites the request for its provider, and lets the answer out with a status that has nginx
//! go on to the next try or stop.

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::calls::{self, Heard};
use super::{
    outer, reply, response_status, state, Ticket, OUTER, WITH_REQUEST_BODY, WITH_RESPONSE_BODY, YES,
};
use crate::base::clock::Timestamp;
use crate::bytes::headers::Headers;
use crate::client_api::errors::{of_gateway, Rejection, Reply};
use crate::client_api::request::{Endpoint, Head};
use crate::config::Config;
use crate::exchange::{Exchange, Next, Steering, Turn};
use crate::health::outcome::{of_status, retry_after, ErrorBody, Outcome, Verdict};
use crate::host::client_request::trace;
use crate::host::client_request::{self, header, text, Intake};
use crate::host::{in_order, sys, worker};
use crate::relay::{self, Try, CALL, INNER, PLAN, STOP, TRIES, TRY, WAY};
use crate::routing::rewrite::{passthrough_headers, request_headers, NOT_FORWARDED, VENDOR_HEADERS};

/// The request's path and query for nginx.
const URI: &str = "upstream_uri";
/// The host for nginx, also the name in TLS.
const HOST: &str = "upstream_host";
/// The body that the provider gets; a Lua line hands it to nginx.
const BODY: &str = "shunt_body";
/// Has a Lua line break the answer off.
const CUT: &str = "shunt_cut";
/// The longest answer to a call: it is held by the host, and then here.
const MOST_CALLED: usize = 32 << 20;

/// One try at one provider.
pub(super) struct Inner {
    ticket: Ticket,
    config: Rc<Config>,
    provider: String,
    endpoint: Endpoint,
    path: String,
    exchange: Option<Exchange>,
    /// The filter calls, and judges the answer itself.
    called: bool,
    /// The router's number of the request, if it is of this worker.
    outer: Option<Ticket>,
    /// The answer is the filter's own.
    replied: bool,
    /// When the answer to a call must be there.
    until: Option<Timestamp>,
    /// The bytes of it so far.
    received: usize,
    kept: usize,
}

impl Inner {
    pub(super) fn new(ticket: Ticket, config: Rc<Config>, provider: String) -> Self {
        Self {
            ticket,
            config,
            provider,
            endpoint: Endpoint::Chat,
            path: String::new(),
            exchange: None,
            called: false,
            outer: None,
            replied: false,
            until: None,
            received: 0,
            kept: 0,
        }
    }

    fn refuse(&self, rejection: &Rejection) -> Action {
        log::error!("inner route of {}: {}", self.provider, rejection.message);
        answer(&rejection.reply())
    }

    pub(super) fn on_request_headers(&mut self) -> Action {
        let full = text(header(":path"));
        if !self.config.providers.iter().any(|known| header_is(INNER, &relay::secret(known.api_key.secret())))
        {
            return self.refuse(&Rejection::path(&text(header(":method")), Head::path(&full)));
        }
        self.called = header_is(WAY, CALL);
        self.outer = header(OUTER).and_then(|ticket| Ticket::parse(&ticket));
        if let Some(outer) = self.outer {
            outer::note_inner(outer, &self.provider, outer::InnerIs::Alive);
        }
        match client_request::of_path(&self.config, &full) {
            Intake::Asks(endpoint) => {
                self.endpoint = endpoint;
                self.path = Head::path(&full).to_owned();
                if sys::set_property(WITH_REQUEST_BODY, YES) {
                    return Action::Continue;
                }
                self.refuse(&Rejection::misconfigured("the gateway does not hand out bodies"))
            }
            Intake::Passes(provider) => {
                let mut exchange = client_request::passing(&self.config, provider, full);
                state::with_frozen_env(|env| {
                    exchange.taken_up(&self.provider, std::time::Duration::ZERO, env)
                });
                let action = self.pass(&exchange);
                self.exchange = Some(exchange);
                action
            }
            Intake::Scores | Intake::Evaluates => {
                self.refuse(&Rejection::path(&text(header(":method")), Head::path(&full)))
            }
            Intake::Answered(told) => answer(&told),
        }
    }

    /// Lets a request through as it is, with the provider's key.
    fn pass(&self, exchange: &Exchange) -> Action {
        let found =
            exchange.provider().filter(|provider| provider.name == self.provider).zip(exchange.pass());
        let Some((provider, pass)) = found else {
            return self.refuse(&Rejection::misconfigured("the path belongs to another provider"));
        };
        let client = sys::headers(MapType::HttpRequestHeaders);
        let block = passthrough_headers(&client, provider, &pass.method, &pass.path, &trace());
        if rewrite(&Headers::new(block)) {
            Action::Continue
        } else {
            self.refuse(&Rejection::misconfigured("the request could not be rewritten for its provider"))
        }
    }

    pub(super) fn on_request_body(&mut self, size: usize) -> Action {
        // Without a body the host would hand out that of another request.
        let bytes = if size > 0 { sys::buffer(BufferType::HttpRequestBody, 0, size) } else { None };
        match self.ask(bytes.unwrap_or_default()) {
            Ok(action) => action,
            Err(rejection) => self.refuse(&rejection),
        }
    }

    fn ask(&mut self, bytes: Vec<u8>) -> Result<Action, Rejection> {
        let (head, body) = client_request::read(&self.config, self.endpoint, self.path.clone(), bytes)?;
        let (plan, tries) = (text(header(PLAN)), text(header(TRIES)));
        let before = relay::earlier_tries(&plan, &tries);
        let config = Rc::clone(&self.config);
        let turn = Turn { plan: &plan, tries: &before, asked: &self.provider, now: sys::now() };
        let mut exchange = Exchange::resume(config, &head, body, turn)?;
        self.kept = exchange.kept();
        worker::keep(self.kept);
        let named = if tries.is_empty() { plan.split(',').next() } else { relay::next_provider(&tries) };
        let due = exchange.due(named);
        if due.as_deref() != Some(self.provider.as_str()) {
            // Nobody is left to be asked, or somebody else is to be.
            let status = if due.is_some() { relay::failover_status(Outcome::Unreachable) } else { STOP };
            let mut skips = of_gateway(status);
            skips.headers.push((TRY, relay::skip_to(due.as_deref())));
            self.replied = true;
            return Ok(answer(&skips));
        }
        if before.last().is_some_and(Try::is_error_lookup) {
            let called = calls::call(self.ticket, &self.config, &exchange, &self.path, &self.provider);
            self.exchange = Some(exchange);
            return called
                .then_some(Action::Pause)
                .ok_or_else(|| Rejection::misconfigured("the gateway refused a call to the inner routes"));
        }
        let provider =
            exchange.provider().ok_or_else(|| Rejection::misconfigured("the plan lacks the provider"))?;
        let splices = exchange.splices();
        let client = if provider.allow_headers.is_empty() {
            Headers::default()
        } else {
            sys::headers(MapType::HttpRequestHeaders)
        };
        let trace = if exchange.traces() { trace() } else { [None, None] };
        let block = request_headers(&client, provider, exchange.ask(&splices), &trace);
        let body = match exchange.translated() {
            Some(translated) => Some(translated.to_vec()),
            None if splices.is_empty() => None,
            None => splices.apply(exchange.body()),
        };
        let changed = body.is_some();
        let written = rewrite(&Headers::new(block)) && body.is_none_or(|body| sys::set_property(BODY, &body));
        if !written || (!changed && !splices.is_empty()) {
            return Err(Rejection::misconfigured("the request could not be rewritten for its provider"));
        }
        exchange.body_sent();
        self.exchange = Some(exchange);
        Ok(Action::Continue)
    }

    /// The provider has said, whole, why it refused.
    pub(super) fn on_call_response(&mut self, size: usize) {
        let Some(exchange) = &mut self.exchange else { return };
        let heard = calls::heard(exchange, size, state::in_frozen_env);
        let (verdict, next, told) = match heard {
            Some(Heard::Answer(told, verdict)) => (verdict, None, Some(told)),
            Some(Heard::Next(Next::Retry { provider, .. }, verdict)) => (verdict, Some(provider), None),
            Some(Heard::Next(_, verdict)) => (verdict, None, None),
            None => (Verdict::without_response(Outcome::Unreachable), None, None),
        };
        let out = match (&told, &next) {
            (Some(told), _) if !relay::is_retried(told.status) => told.status,
            (_, Some(_)) => relay::failover_status(verdict.outcome),
            _ => STOP,
        };
        let mut told = told.unwrap_or_else(|| of_gateway(out));
        told.status = out;
        told.headers.push((TRY, Try { provider: self.provider.clone(), verdict, next }.encode()));
        self.replied = true;
        answer(&told);
    }

    pub(super) fn on_response_headers(&mut self) -> Action {
        if self.replied {
            return Action::Continue;
        }
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = response_status();
        let passes = exchange.pass().is_some();
        for name in NOT_FORWARDED.iter().chain(if passes { &[][..] } else { &VENDOR_HEADERS[..] }) {
            sys::remove_header(MapType::HttpResponseHeaders, name);
        }
        if passes {
            let outcome =
                if status < 400 { Outcome::Answered } else { of_status(status, &ErrorBody::default()) };
            let verdict =
                silence(status).unwrap_or(Verdict { outcome, status: Some(status), retry_after: None });
            let out = if relay::is_retried(status) { STOP } else { status };
            leave(&Try { provider: self.provider.clone(), verdict, next: None }, status, out);
            return Action::Continue;
        }
        let mut verdict = verdict(status, exchange.stream());
        if self.called {
            // Who called judges the answer; that there is none, only this side knows. And only this side can end one that
            // comes without an end: the host's limit is for each piece.
            leave(&Try { provider: self.provider.clone(), verdict, next: None }, status, status);
            self.until = Some(sys::now().after(exchange.limit()));
            sys::set_property(WITH_RESPONSE_BODY, YES);
            return Action::Continue;
        }
        if verdict.outcome == Outcome::Answered {
            leave(&Try { provider: self.provider.clone(), verdict, next: None }, status, status);
            return Action::Continue;
        }
        let steering = state::with_frozen_env(|env| exchange.steer(&mut verdict, env));
        let Steering { next, delivers } = in_order(steering, Steering { next: None, delivers: false });
        let out = match &next {
            Some(_) => relay::failover_status(verdict.outcome),
            None if delivers && !relay::is_retried(status) && status >= 400 => status,
            None => STOP,
        };
        leave(&Try { provider: self.provider.clone(), verdict, next }, status, out);
        Action::Continue
    }

    /// A piece of an answer that the filter called for.
    pub(super) fn on_response_body(&mut self, size: usize) {
        self.received = self.received.saturating_add(size);
        let late = self.until.is_some_and(|until| sys::now() > until);
        if late || self.received > MOST_CALLED {
            sys::set_property(CUT, YES);
        }
    }

    pub(super) fn close(self) {
        worker::let_go(self.kept);
        if let Some(outer) = self.outer {
            outer::note_inner(outer, &self.provider, outer::InnerIs::Over);
        }
    }
}

/// Answers in the provider's place. If the host refuses, the request would go on as it came: nothing of it may.
fn answer(told: &Reply) -> Action {
    let action = reply(told);
    if action == Action::Continue {
        rewrite(&Headers::default());
        sys::set_property(BODY, b" ");
    }
    action
}

/// What it means that no head of a provider came, and nginx answers instead; `None` if one came.
fn silence(status: u16) -> Option<Verdict> {
    // The last of nginx's list; "-" where no head of a provider came.
    let times = text(sys::property("upstream_header_time"));
    let heard = times
        .rsplit([',', ':'])
        .next()
        .is_some_and(|time| time.trim().starts_with(|c: char| c.is_ascii_digit()));
    let outcome = if status == 504 { Outcome::TooSlow } else { Outcome::Unreachable };
    (!heard).then(|| Verdict::without_response(outcome))
}

/// What the head of a response tells.
fn verdict(status: u16, stream: bool) -> Verdict {
    if let Some(silence) = silence(status) {
        return silence;
    }
    let value = |name: &str| {
        sys::header(MapType::HttpResponseHeaders, name)
            .map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    if (200..300).contains(&status) {
        // A stream that is none, is packed, or has nothing in it, is no answer; its head tells.
        let kind = value("content-type").unwrap_or_default().to_ascii_lowercase();
        let is_other =
            stream && ["application/json", "text/html"].iter().any(|other| kind.starts_with(other));
        let is_packed =
            value("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        let is_empty = value("content-length").is_some_and(|len| len == "0") || status == 204;
        let outcome =
            if is_other || is_packed || is_empty { Outcome::ServerError } else { Outcome::Answered };
        return Verdict { outcome, status: Some(status), retry_after: None };
    }
    let outcome = of_status(status, &ErrorBody::default());
    Verdict { outcome, status: Some(status), retry_after: retry_after(&value, sys::now()) }
}

/// Lets a response out with what its try came to.
fn leave(told: &Try, status: u16, out: u16) {
    sys::set_header(MapType::HttpResponseHeaders, TRY, told.encode());
    if out != status {
        sys::set_header(MapType::HttpResponseHeaders, ":status", out.to_string());
    }
}

/// Headers that nginx writes itself, from the body and the connection.
const NGINX: [&[u8]; 4] = [b"host", b"content-length", b"transfer-encoding", b"connection"];

/// The host hands out so many headers of a map at most.
const MOST_SHOWN: usize = 100;
/// So often the whole map is read at most.
const MOST_ROUNDS: usize = 16;

/// Makes the request's headers what `wanted` says, and nothing else.
fn rewrite(wanted: &Headers) -> bool {
    const MAP: MapType = MapType::HttpRequestHeaders;
    for name in [PLAN, TRIES, INNER, WAY, OUTER] {
        sys::remove_header(MAP, name);
    }
    // Written first: of a name that came many times one line is left, and does not hide others.
    let written = wanted.iter().all(|(name, value)| {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        match name {
            ":authority" => sys::set_property(HOST, value),
            ":path" => sys::set_property(URI, value),
            ":method" | ":scheme" | "content-length" => true,
            _ => sys::set_header(MAP, name, value),
        }
    });
    let stays = |name: &[u8]| {
        name.starts_with(b":")
            || NGINX.iter().any(|known| name.eq_ignore_ascii_case(known))
            || wanted.iter().any(|(wanted, _)| wanted.eq_ignore_ascii_case(name))
    };
    for _ in 0..MOST_ROUNDS {
        let present = sys::headers(MAP);
        let shown = present.iter().count();
        let mut strangers = present.iter().map(|(name, _)| name).filter(|name| !stays(name)).peekable();
        if strangers.peek().is_none() {
            // Every request has some: without any, the host did not hand them out, and nobody knows what would cross. Nor
            // does anybody where there may be more.
            return written && shown > 0 && shown < MOST_SHOWN;
        }
        for name in strangers {
            let Ok(name) = std::str::from_utf8(name) else { return false };
            sys::remove_header(MAP, name);
        }
    }
    false
}

/// Whether a header of the request has this value.
fn header_is(name: &str, value: &str) -> bool {
    header(name).is_some_and(|found| found == value.as_bytes())
}
