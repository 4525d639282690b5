//! The response to a request that nginx has sent to the providers: the router learns the outcome of every try, and rewrites what
//! the last one sent for the client.

use std::time::Duration;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Answer, AttemptState, OuterHop, Phase};
use crate::client_api::errors::{json_type, of_gateway, Reply};
use crate::exchange::{Exchange, Next};
use crate::health::outcome::{Outcome, Verdict};
use crate::host::apisix::{replaces_body, response_status, state, write_head, CHUNK};
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

impl OuterHop {
    pub(in crate::host::apisix) fn on_response_headers(&mut self) -> Action {
        if self.is_over() {
            return Action::Continue;
        }
        let value = |name| text(sys::property(name));
        let (tries, statuses) = (value("shunt_tries"), value("upstream_status"));
        let (times, heads) = (value("upstream_response_time"), value("upstream_header_time"));
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
        match verdict.outcome {
            Outcome::Answered if is_reported => self.release(&provider, &verdict, took),
            Outcome::BadRequest | Outcome::Refused | Outcome::TooLong if is_reported => {
                self.refused(&provider, verdict, took)
            }
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
        if status == 200 && state::with_env(|env| exchange.reads_queued(env)) && replaces_body() {
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
            let watch = Watch::new(&head, exchange.asked()?);
            let committed = Committed::new(watch, exchange.max_held(), provider, exchange.key(), status);
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
        if replaces_body() {
            self.answer = Answer::Committed(Box::new(committed));
        }
        self.last_piece = sys::now();
        self.note();
        Action::Continue
    }

    /// The client gets the provider's error.
    fn refused(&mut self, provider: &str, verdict: Verdict, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = verdict.status.unwrap_or(400);
        let head = AnswerHead { status, retry_after: None };
        let (committed, mut headers, line) = state::with_env(|env| {
            exchange.taken_up(provider, took, env);
            let key = exchange.key();
            let committed = exchange.asked().map(|asked| {
                Committed::new(Watch::new(&head, asked), exchange.max_held(), provider, key, status)
            });
            let (headers, line) = exchange.refused_by_gateway(provider, verdict, took, env);
            (committed, headers, line)
        });
        log_lines(line);
        headers.push(json_type());
        write_head(status, &headers);
        if let Some(committed) = committed.filter(|_| replaces_body()) {
            self.answer = Answer::Committed(Box::new(committed));
        }
        self.finish(None);
        Action::Continue
    }

    /// Replaces the response by a reply of the gateway itself.
    fn replace(&mut self, answer: &Reply) -> Action {
        write_head(answer.status, &answer.headers);
        if replaces_body() {
            self.answer = Answer::Replaced(answer.body.clone());
        }
        self.finish(Some(answer.status));
        Action::Continue
    }

    pub(in crate::host::apisix) fn on_response_body(&mut self, size: usize, end: bool) {
        self.last_piece = sys::now();
        let piece = || {
            // If there is no piece, the host would give one of another response.
            if size > 0 {
                sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default()
            } else {
                Vec::new()
            }
        };
        match &mut self.answer {
            Answer::Unchanged => {
                sys::set_property(CHUNK, &piece());
            }
            Answer::Replaced(body) => {
                sys::set_property(CHUNK, &std::mem::take(body));
            }
            Answer::Polled(body) => {
                let piece = piece();
                sys::set_property(CHUNK, &piece);
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
                let forward = committed.take(&piece, end);
                let tally = committed.tally();
                sys::set_property(CHUNK, forward.replace.as_deref().unwrap_or(&piece));
                self.progress(tally, forward.ended);
            }
        }
    }

    /// A piece of the answer was forwarded.
    fn progress(&mut self, tally: Tally, ended: Option<Outcome>) {
        let Some(exchange) = self.exchange.as_mut().filter(|_| !matches!(self.phase, Phase::Over)) else {
            return;
        };
        let begun = tally.begun;
        exchange.progress(tally, sys::now);
        if begun {
            state::with_env(|env| exchange.measure_late(env));
        }
        if let Some(outcome) = ended {
            log_lines(in_order(state::with_env(|env| exchange.ended(outcome, env)), None));
            self.finish(None);
        } else if begun && sys::now().since(self.noted) >= NOTE_EVERY {
            self.note();
        }
    }
}
