//! The router's own calls: provider after provider, each answer judged whole. They go through the inner routes, so that a
//! provider's address, TLS and checks are declared in one place.

use std::time::Duration;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::outer::Outer;
use super::state;
use crate::answer::{Head, Judged, Step, Wants, Watch};
use crate::chain::{Try, CALL, INNER, PLAN, TRY, WAY};
use crate::exchange::Next;
use crate::headers::HeaderWriter;
use crate::host::intake::{header, text};
use crate::host::{log_note, sys};
use crate::outcome::{Outcome, RetryHints, Verdict};
use crate::report::{error_envelope, is_envelope, json_type, Rejection, Reply};
use crate::rewrite::TRACE;

/// The answer to a call, as the host has it.
struct Answered {
    status: u16,
    kind: String,
    request_id: Option<Vec<u8>>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

fn value(name: &str) -> Option<Vec<u8>> {
    sys::header(MapType::HttpCallResponseHeaders, name)
}

impl Outer {
    /// Calls the provider that was chosen, or the next one where the host refuses a call.
    pub(super) fn ask(&mut self) -> Action {
        loop {
            let Some(exchange) = &mut self.exchange else { return Action::Continue };
            let Some(provider) = exchange.awaited().map(str::to_owned) else {
                return self.reject(&Rejection::misconfigured("no provider could be chosen"));
            };
            let _ = exchange.begin(&provider, sys::now);
            let limit = exchange.limit();
            let headers = self.call_headers(&provider);
            if let Some(call) = sys::call(&self.config.inner.address, &headers, &self.body, limit) {
                state::calls(call, self.ticket);
                self.calling = true;
                return Action::Pause;
            }
            log::error!("the gateway refused a call to {}", self.config.inner.address);
            let verdict = Verdict::without_response(Outcome::Unreachable);
            let Some(exchange) = &mut self.exchange else { return Action::Continue };
            let (next, note) = state::with_env(|env| exchange.judge(verdict, false, true, env));
            log_note(note);
            if !matches!(next, Next::Retry { .. }) {
                return self.fail();
            }
        }
    }

    fn fail(&mut self) -> Action {
        let Some(exchange) = &self.exchange else { return Action::Continue };
        let failure = state::with_env(|env| exchange.failure(env));
        self.reply(&failure)
    }

    /// The request headers of a call: all four pseudo-headers, since the host keeps the last call's in the place of missing
    /// ones.
    fn call_headers(&self, provider: &str) -> Vec<u8> {
        let mut out = HeaderWriter::default();
        out.add(":method", "POST");
        out.add(":scheme", "http");
        out.add(":authority", &self.config.inner.address);
        out.add(":path", &self.path);
        out.add("content-type", "application/json");
        out.add(INNER, &self.config.inner.secret);
        out.add(PLAN, provider);
        out.add(WAY, CALL);
        let found = self.config.providers.iter().find(|known| known.name == provider);
        let allowed = found.into_iter().flat_map(|provider| &provider.allow_headers).map(String::as_str);
        for name in TRACE.into_iter().chain(allowed) {
            if let Some(value) = header(name) {
                out.add(name, value);
            }
        }
        out.finish()
    }

    /// A call has ended; its answer has `size` bytes.
    pub(super) fn on_call_response(&mut self, size: usize) {
        if !std::mem::take(&mut self.calling) {
            return;
        }
        let Some(exchange) = &mut self.exchange else { return };
        let told = value(TRY).and_then(|told| Try::decode(&text(Some(told))));
        let status: Option<u16> = value(":status").and_then(|status| text(Some(status)).parse().ok());
        let unheard = match (status, told) {
            // An inner route always answers, whatever becomes of its provider: this answer broke off, or took too long.
            (None, _) => Some(exchange.silence(true, sys::now())),
            (Some(_), Some(told)) if told.verdict.status.is_none() => Some(told.verdict.outcome),
            (Some(_), _) => None,
        };
        if let Some(outcome) = unheard {
            let verdict = Verdict::without_response(outcome);
            let (next, note) = state::with_env(|env| exchange.judge(verdict, false, true, env));
            log_note(note);
            return self.go_on(next);
        }
        let body = if size > 0 { sys::buffer(BufferType::HttpCallResponseBody, 0, size) } else { None };
        let hint = |name| value(name).map(|value| text(Some(value)));
        let (after, after_ms) = (hint("retry-after"), hint("retry-after-ms"));
        let resets = [hint("x-ratelimit-reset-requests"), hint("x-ratelimit-reset-tokens")];
        let [requests, tokens] = &resets;
        let hints = RetryHints {
            retry_after: after.as_deref(),
            retry_after_ms: after_ms.as_deref(),
            resets: [requests.as_deref(), tokens.as_deref()],
        };
        let answered = Answered {
            status: status.unwrap_or(0),
            kind: text(value("content-type")),
            request_id: value("x-request-id"),
            retry_after: hints.wait(sys::now()),
            body: body.unwrap_or_default(),
        };
        self.judge(answered);
    }

    /// Judges a whole answer, and delivers it or goes on.
    fn judge(&mut self, answered: Answered) {
        let Some(exchange) = &mut self.exchange else { return };
        let Some(asked) = exchange.asked() else { return };
        let Answered { status, kind, request_id, retry_after, body } = answered;
        let content_type = if exchange.stream() { kind.as_str() } else { "" };
        let mut watch = Watch::new(&Head { status, content_type, retry_after }, asked);
        let Judged { verdict, body: changed, error } = match watch.wants(body.len()) {
            Wants::Pieces => match watch.withhold(&body, true, body.len(), usize::MAX) {
                Step::Judged(judged) => judged,
                Step::Hold => return self.go_on(Next::Fail),
            },
            Wants::Everything(_) => watch.judge(&body, true),
        };
        let answers = verdict.outcome == Outcome::Answered;
        let key = exchange.key();
        let provider = exchange.provider().map(|provider| provider.name.clone()).unwrap_or_default();
        exchange.progress(watch.tally(), sys::now);
        let (next, note) = state::with_env(|env| exchange.judge(verdict, false, true, env));
        log_note(note);
        let Next::Deliver(mut headers) = next else { return self.go_on(next) };
        headers.extend(request_id.map(|id| ("x-request-id", text(Some(id)))));
        let (status, body) = if answers {
            let streams = watch.is_stream();
            let kind = if streams { "text/event-stream" } else { "application/json" };
            headers.push(("content-type", kind.to_owned()));
            let changed = if streams { watch.release(true, &provider) } else { changed };
            (status, changed.unwrap_or(body))
        } else {
            headers.push(json_type());
            let status = if watch.is_error() { status } else { 400 };
            let same = watch.is_error() && is_envelope(&body, &key);
            (status, if same { body } else { error_envelope(&error.unwrap_or_default(), status, &key) })
        };
        self.answer(&Reply { status, headers, body });
    }

    fn go_on(&mut self, next: Next) {
        match next {
            Next::Retry { .. } => {
                self.ask();
            }
            Next::Fail | Next::Drop | Next::Deliver(_) => {
                self.fail();
            }
        }
    }
}
