//! The response to a request that nginx has sent to the providers: the router learns the outcome of every try, and rewrites what
//! the last one sent for the client.

use std::time::Duration;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Answer, AttemptState, OuterHop, Phase};
use crate::base::clock::Timestamp;
use crate::client_api::errors::{json_type, of_gateway, Reply};
use crate::exchange::{Exchange, Next};
use crate::health::outcome::{judge, ErrorBody, Outcome, Verdict};
use crate::host::apisix::{
    hide_headers, replaces_body, response_status, state, write_head, CHUNK, CHUNKS, YES,
};
use crate::host::client_request::{header, text};
use crate::host::{decided, in_order, log_lines, sys};
use crate::relay::{self, FinishedTry, NginxLists, Try, TRY};
use crate::response::answer::{Head as AnswerHead, Watch};
use crate::response::committed::Committed;
use crate::spend::usage::Tally;

/// How often the audit record is written while an answer flows. If the answer breaks off, the filter is not called again before
/// nginx logs.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Notes a try that nginx has made and that is over.
fn note_try(exchange: &mut Exchange, done: FinishedTry) {
    log_lines(state::with_env(|env| exchange.tried_by_gateway(done, env)));
}

/// The watch over an answer of the provider that is tried, of which the client has the head.
#[inline(never)]
fn committed(exchange: &Exchange, head: &AnswerHead, provider: &str) -> Option<Committed> {
    let watch = Watch::new(head, exchange.asked()?);
    Some(Committed::new(watch, exchange.max_held(), provider, exchange.key(), head.status))
}

impl OuterHop {
    pub(in crate::host::apisix) fn on_response_headers(&mut self) -> Action {
        if self.is_over() {
            return Action::Continue;
        }
        let value = |name| text(sys::property(name));
        let (statuses, heads) = (value("upstream_status"), value("upstream_header_time"));
        // The last try has not ended, and there is no try before the first.
        let is_first = !statuses.contains([',', ':']);
        let before = |name| if is_first { String::new() } else { value(name) };
        let (tries, times) = (before("shunt_tries"), before("upstream_response_time"));
        let last = sys::header(MapType::HttpResponseHeaders, TRY).map(|last| text(Some(last)));
        let seen = NginxLists {
            plan: &self.plan,
            tries: &tries,
            statuses: &statuses,
            times: &times,
            heads: &heads,
            last: last.as_deref(),
        };
        let mut all = relay::tries(&seen);
        let Some(last) = all.pop() else {
            // Another plugin or APISIX itself answered before any provider was contacted.
            return self.replace(&of_gateway(self.early_status()));
        };
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        for done in all {
            note_try(exchange, done);
        }
        let FinishedTry { report: Try { provider, verdict, .. }, took, is_reported, .. } = last.clone();
        if let Some(status) = verdict.status.filter(|_| exchange.pass().is_some() && is_reported) {
            return self.forward(&provider, status, took);
        }
        if self.attempt_at != provider {
            // What is known is about a try before this one, which runs in another worker.
            self.attempt = AttemptState::Unknown;
        }
        let is_answer = is_reported && verdict.outcome == Outcome::Answered;
        if !is_answer && relay::is_retried(response_status()) {
            // nginx should have made another try, so that the attempt has not removed its provider's headers.
            hide_headers(true);
        }
        match verdict.outcome {
            _ if is_answer => self.release(&provider, &verdict, took),
            outcome if is_reported && outcome.is_about_request() => self.refused(last.report, took),
            _ => {
                note_try(exchange, last);
                let failure = state::with_env(|env| exchange.failure(env));
                self.replace(&failure)
            }
        }
    }

    /// The status of a response that came before any provider was contacted.
    fn early_status(&self) -> u16 {
        let status = response_status().max(400);
        // APISIX reads no body over HTTP/2 or HTTP/3 whose length its head does not tell. After its own 503 clients would try again.
        let is_unread = status == 503 && matches!(self.phase, Phase::Receiving(_));
        if !is_unread || header("content-length").is_some() {
            return status;
        }
        if text(sys::property("server_protocol")).starts_with("HTTP/1") {
            status
        } else {
            411
        }
    }

    /// Forwards the response to a request of a passthrough path.
    fn forward(&mut self, provider: &str, status: u16, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let headers = state::with_env(|env| {
            exchange.taken_up(provider, took, env);
            in_order(exchange.passed(status, env), Vec::new())
        });
        if response_status() != status {
            sys::set_header(MapType::HttpResponseHeaders, ":status", status.to_string());
        }
        for name in [TRY, "x-apisix-upstream-status"] {
            sys::remove_header(MapType::HttpResponseHeaders, name);
        }
        for (name, value) in &headers {
            sys::set_header(MapType::HttpResponseHeaders, name, value);
        }
        if status == 200 && state::with_env(|env| exchange.reads_queued(env)) && replaces_body(false) {
            self.answer = Answer::Polled(Vec::new());
            self.note();
        } else {
            self.finish(None);
        }
        Action::Continue
    }

    /// The provider's answer begins: its head goes to the client.
    fn release(&mut self, provider: &str, verdict: &Verdict, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = verdict.status.unwrap_or(200);
        let head = AnswerHead { status, retry_after: None };
        let begun = state::with_env(|env| {
            exchange.taken_up(provider, took, env);
            let committed = committed(exchange, &head, provider)?;
            match decided(exchange.judge(verdict.clone(), false, false, env)) {
                Next::Deliver(headers) => Some((committed, headers)),
                Next::Retry { .. } | Next::Fail | Next::Drop => None,
            }
        });
        let Some((committed, mut headers)) = begun else {
            return self.replace(&of_gateway(502));
        };
        let kind = if exchange.stream() { "text/event-stream" } else { "application/json" };
        headers.push(("content-type", kind.to_owned()));
        write_head(status, &headers);
        if replaces_body(false) {
            self.answer = Answer::Committed(Box::new(committed));
        }
        self.last_piece = sys::now();
        self.note();
        Action::Continue
    }

    /// The client gets the provider's error. If its meaning is in its body, that is read on its way: no other candidate is left.
    fn refused(&mut self, report: Try, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let is_unread = report.is_error_lookup();
        let Try { provider, mut verdict, .. } = report;
        let status = verdict.status.unwrap_or(400);
        if is_unread {
            (verdict.outcome, verdict.doubt) = judge(status, &ErrorBody::default());
        }
        let head = AnswerHead { status, retry_after: verdict.retry_after };
        let begun = state::with_env(|env| {
            exchange.taken_up(&provider, took, env);
            let committed = committed(exchange, &head, &provider)?;
            Some((committed, exchange.deliver_refusal(&provider, verdict.clone(), took, env)?))
        });
        let Some((committed, mut headers)) = begun else {
            return self.replace(&of_gateway(502));
        };
        headers.push(json_type());
        write_head(status, &headers);
        self.last_piece = sys::now();
        let is_replaced = replaces_body(false);
        if is_replaced {
            self.answer = Answer::Committed(Box::new(committed));
        }
        if is_unread && is_replaced {
            self.note();
        } else {
            self.refusal_read(verdict);
        }
        Action::Continue
    }

    /// It is known what the error that the client gets means. Returns what takes the place of its body, if the error is not about the request.
    fn refusal_read(&mut self, verdict: Verdict) -> Option<Vec<u8>> {
        let exchange = self.exchange.as_mut().filter(|_| !matches!(self.phase, Phase::Over))?;
        let (reply, line) = state::with_env(|env| exchange.refusal_read(verdict, env));
        log_lines(line);
        self.finish(reply.as_ref().map(|reply| reply.status));
        reply.map(|reply| reply.body)
    }

    /// Replaces the response by a reply of the gateway itself.
    fn replace(&mut self, answer: &Reply) -> Action {
        write_head(answer.status, &answer.headers);
        if replaces_body(true) {
            self.answer = Answer::Replaced(answer.body.clone());
        }
        self.finish(Some(answer.status));
        Action::Continue
    }

    pub(in crate::host::apisix) fn on_response_body(&mut self, size: usize, end: bool) {
        let now = sys::now();
        self.last_piece = now;
        let piece = || {
            // If there is no piece, the host would give one of another response.
            if size > 0 {
                sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default()
            } else {
                Vec::new()
            }
        };
        match &mut self.answer {
            Answer::Unchanged => {}
            Answer::Replaced(body) => {
                sys::set_property(CHUNK, &std::mem::take(body));
            }
            Answer::Polled(body) => {
                let piece = piece();
                let Some(exchange) = &mut self.exchange else { return };
                if body.len().saturating_add(piece.len()) <= exchange.max_held() {
                    body.extend(piece);
                }
                if end {
                    state::with_env(|env| exchange.read_response(body, env));
                    self.finish(None);
                }
            }
            Answer::Committed(committed) => {
                let piece = piece();
                let mut forward = committed.take(&piece, end);
                let tally = committed.tally();
                if let Some(verdict) = committed.take_refusal() {
                    forward.replace = self.refusal_read(verdict).or(forward.replace);
                }
                self.replace_piece(forward.replace.as_deref());
                self.progress(tally, forward.ended, now);
            }
        }
    }

    /// Puts bytes in the place of the piece; `None`: it is forwarded unchanged.
    fn replace_piece(&mut self, bytes: Option<&[u8]>) {
        if self.replaces != bytes.is_some() {
            self.replaces = bytes.is_some();
            sys::set_property(CHUNKS, if self.replaces { YES } else { b"" });
        }
        if let Some(bytes) = bytes {
            sys::set_property(CHUNK, bytes);
        }
    }

    /// A piece of the answer was forwarded.
    fn progress(&mut self, tally: Tally, ended: Option<Outcome>, now: Timestamp) {
        let Some(exchange) = self.exchange.as_mut().filter(|_| !matches!(self.phase, Phase::Over)) else {
            return;
        };
        let begun = tally.begun;
        exchange.progress(tally, || now);
        if begun && !self.is_measured {
            self.is_measured = true;
            state::with_env(|env| exchange.measure_late(env));
        }
        if let Some(outcome) = ended {
            log_lines(in_order(state::with_env(|env| exchange.ended(outcome, env)), None));
            self.finish(None);
        } else if begun && now.since(self.noted) >= NOTE_EVERY {
            self.note();
        }
    }
}
