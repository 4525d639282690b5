//! What the client gets where APISIX asked the providers: the router learns of every try, and puts the last answer right.

use std::time::Duration;

use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Answer, InnerIs, Outer};
use crate::client_api::errors::{json_type, of_gateway, Reply};
use crate::exchange::Next;
use crate::health::outcome::{Outcome, Verdict};
use crate::host::apisix::{replaces_body, response_status, state, write_head, CHUNK};
use crate::host::client_request::text;
use crate::host::{decided, in_order, log_line, sys};
use crate::relay::{self, FinishedTry, NginxLists, Try, TRY};
use crate::response::answer::{Head as AnswerHead, Watch};
use crate::response::committed::Committed;
use crate::spend::usage::Tally;

/// While an answer flows, its record is written anew this often: should it break off, nobody is asked again.
const NOTE_EVERY: Duration = Duration::from_secs(1);

impl Outer {
    pub(in crate::host::apisix) fn on_response_headers(&mut self) -> Action {
        if self.replied.is_some() {
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
            // Another plugin answered before anybody was asked.
            return self.replace(&of_gateway(response_status().max(400)));
        };
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        for done in all {
            log_line(state::with_env(|env| exchange.tried_by_gateway(done, env)));
        }
        let FinishedTry { report: Try { provider, verdict, .. }, took, is_reported, .. } = last.clone();
        if let Some(status) = verdict.status.filter(|_| exchange.pass().is_some() && is_reported) {
            return self.passed(&provider, status, took);
        }
        if self.inner_of != provider {
            // That was one of the tries before; this one runs elsewhere.
            self.inner = InnerIs::Unknown;
        }
        match verdict.outcome {
            Outcome::Answered if is_reported => self.release(&provider, &verdict, took),
            Outcome::BadRequest | Outcome::Refused | Outcome::TooLong if is_reported => {
                self.refused(&provider, verdict, took)
            }
            _ => {
                log_line(state::with_env(|env| exchange.tried_by_gateway(last, env)));
                let failure = state::with_env(|env| exchange.failure(env));
                self.replace(&failure)
            }
        }
    }

    /// The answer to a request that goes as it is.
    fn passed(&mut self, provider: &str, status: u16, took: Duration) -> Action {
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
        self.finish();
        Action::Continue
    }

    /// The provider's answer begins: its head leaves now.
    fn release(&mut self, provider: &str, verdict: &Verdict, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = verdict.status.unwrap_or(200);
        let kind = text(sys::header(MapType::HttpResponseHeaders, "content-type"));
        let head = AnswerHead { status, content_type: &kind, retry_after: None };
        let begun = state::with_env(|env| {
            exchange.taken_up(provider, took, env);
            let watch = Watch::new(&head, exchange.asked()?);
            let late = Committed::new(watch, exchange.max_held(), provider, exchange.key(), status);
            match decided(exchange.judge(verdict.clone(), false, false, env)) {
                Next::Deliver(headers) => Some((late, headers)),
                Next::Retry { .. } | Next::Fail | Next::Drop => None,
            }
        });
        let Some((late, mut headers)) = begun else {
            return self.replace(&of_gateway(502));
        };
        let kind = if exchange.stream() { "text/event-stream" } else { "application/json" };
        headers.push(("content-type", kind.to_owned()));
        write_head(status, &headers);
        if replaces_body() {
            self.answer = Answer::Committed(Box::new(late));
        }
        self.heard = sys::now();
        self.note();
        Action::Continue
    }

    /// The provider's error is the answer.
    fn refused(&mut self, provider: &str, verdict: Verdict, took: Duration) -> Action {
        let Some(exchange) = &mut self.exchange else { return Action::Continue };
        let status = verdict.status.unwrap_or(400);
        let head = AnswerHead { status, content_type: "", retry_after: None };
        let (late, mut headers, line) = state::with_env(|env| {
            exchange.taken_up(provider, took, env);
            let key = exchange.key();
            let late = exchange.asked().map(|asked| {
                Committed::new(Watch::new(&head, asked), exchange.max_held(), provider, key, status)
            });
            let (headers, line) = exchange.refused_by_gateway(provider, verdict, took, env);
            (late, headers, line)
        });
        log_line(line);
        headers.push(json_type());
        write_head(status, &headers);
        if let Some(late) = late.filter(|_| replaces_body()) {
            self.answer = Answer::Committed(Box::new(late));
        }
        self.finish();
        Action::Continue
    }

    /// Puts the gateway's own answer in the place of the response.
    fn replace(&mut self, answer: &Reply) -> Action {
        write_head(answer.status, &answer.headers);
        if replaces_body() {
            self.answer = Answer::Instead(answer.body.clone());
        }
        self.replied = Some(answer.status);
        self.finish();
        Action::Continue
    }

    pub(in crate::host::apisix) fn on_response_body(&mut self, size: usize, end: bool) {
        self.heard = sys::now();
        let piece = || {
            // Without a piece the host would hand out one of another response.
            if size > 0 {
                sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default()
            } else {
                Vec::new()
            }
        };
        match &mut self.answer {
            Answer::Untouched => {
                sys::set_property(CHUNK, &piece());
            }
            Answer::Instead(body) => {
                sys::set_property(CHUNK, &std::mem::take(body));
            }
            Answer::Committed(late) => {
                let piece = piece();
                let passed = late.take(&piece, end);
                let tally = late.tally();
                sys::set_property(CHUNK, passed.replace.as_deref().unwrap_or(&piece));
                self.progress(tally, passed.ended);
            }
        }
    }

    fn progress(&mut self, tally: Tally, ended: Option<Outcome>) {
        let Some(exchange) = self.exchange.as_mut().filter(|_| !self.finished) else { return };
        exchange.progress(tally, sys::now);
        if tally.begun {
            state::with_env(|env| exchange.measure_late(env));
        }
        if let Some(outcome) = ended {
            log_line(in_order(state::with_env(|env| exchange.ended(outcome, env)), None));
            self.finish();
        } else if tally.begun && sys::now().since(self.noted) >= NOTE_EVERY {
            self.note();
        }
    }
}
