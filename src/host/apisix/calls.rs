//! Calls of the filter's own: one provider is asked, and its answer judged whole. They go through the inner routes, so that a
//! provider's address, TLS and checks are declared in one place.

use proxy_wasm::types::{BufferType, MapType};

use super::{state, Ticket};
use crate::bytes::headers::HeaderWriter;
use crate::client_api::errors::{error_envelope, is_envelope, json_type, Reply};
use crate::config::Config;
use crate::exchange::{Exchange, Next};
use crate::health::outcome::{retry_after, Outcome, Verdict};
use crate::host::client_request::{header, text};
use crate::host::{decided, in_order, sys};
use crate::relay::{secret, Try, CALL, INNER, PLAN, TRY, WAY};
use crate::response::answer::{Head, Judged, Step, Wants, Watch};
use crate::routing::rewrite::TRACE;
use crate::selection::plan::Env;

/// Where an exchange's state is: with everybody's, or, in an attempt whose router reports, nowhere.
pub(super) type World = fn(&mut dyn FnMut(&mut Env<'_>));

/// What the answer to a call has come to.
pub(super) enum Heard {
    /// The client gets this.
    Answer(Reply, Verdict),
    /// Something else follows.
    Next(Next, Verdict),
}

/// Calls a provider for a request; false if the host refuses.
pub(super) fn call(ticket: Ticket, config: &Config, exchange: &Exchange, path: &str, provider: &str) -> bool {
    let address = &config.inner;
    let headers = call_headers(config, path, provider);
    match sys::call(address, &headers, exchange.body(), exchange.limit()) {
        Some(call) => state::calls(call, ticket),
        None => {
            log::error!("the gateway refused a call to {address}");
            return false;
        }
    }
    true
}

/// The request headers of a call: all four pseudo-headers, since the host keeps the last call's in the place of missing ones.
fn call_headers(config: &Config, path: &str, provider: &str) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.add(":method", "POST");
    out.add(":scheme", "http");
    out.add(":authority", &config.inner);
    out.add(":path", path);
    out.add("content-type", "application/json");
    // A kept connection could be closed by the other side just when it is used again.
    out.add("connection", "close");
    out.add(PLAN, provider);
    out.add(WAY, CALL);
    let found = config.providers.iter().find(|known| known.name == provider);
    out.add(INNER, found.map_or_else(String::new, |provider| secret(provider.api_key.secret())));
    let allowed = found.into_iter().flat_map(|provider| &provider.allow_headers).map(String::as_str);
    for name in TRACE.into_iter().chain(allowed) {
        if let Some(value) = header(name) {
            out.add(name, value);
        }
    }
    out.finish()
}

fn value(name: &str) -> Option<String> {
    sys::header(MapType::HttpCallResponseHeaders, name).map(|value| text(Some(value)))
}

/// A call has ended; its answer has `size` bytes.
pub(super) fn heard(exchange: &mut Exchange, size: usize, world: World) -> Option<Heard> {
    let told = value(TRY).and_then(|told| Try::decode(&told));
    let status: Option<u16> = value(":status").and_then(|status| status.parse().ok());
    match (status, told) {
        // An inner route always answers, whatever becomes of its provider: this answer broke off, or took too long.
        (None, _) => Some(unheard(exchange, exchange.silence(true, sys::now()), world)),
        (Some(_), Some(told)) if told.verdict.status.is_none() => {
            Some(unheard(exchange, told.verdict.outcome, world))
        }
        (Some(status), Some(_)) => judged(exchange, status, size, world),
        // The gateway itself has answered: no inner route is there, or it does not know this router. Nobody's failure.
        (Some(status), None) => {
            let provider = exchange.provider().map(|provider| provider.name.as_str()).unwrap_or_default();
            log::error!("the inner route of provider {provider:?} is missing: APISIX answered {status}");
            let mut next = Next::Drop;
            world(&mut |env| next = in_order(exchange.misrouted(env), Next::Fail));
            Some(Heard::Next(next, Verdict::without_response(Outcome::Unreachable)))
        }
    }
}

/// There is no answer that could be read.
pub(super) fn unheard(exchange: &mut Exchange, outcome: Outcome, world: World) -> Heard {
    let verdict = Verdict::without_response(outcome);
    Heard::Next(judge(exchange, &verdict, world), verdict)
}

fn judge(exchange: &mut Exchange, verdict: &Verdict, world: World) -> Next {
    let mut next = Next::Drop;
    world(&mut |env| {
        next = decided(exchange.judge(verdict.clone(), false, true, env));
    });
    next
}

/// Judges a whole answer.
fn judged(exchange: &mut Exchange, status: u16, size: usize, world: World) -> Option<Heard> {
    let body = if size > 0 { sys::buffer(BufferType::HttpCallResponseBody, 0, size) } else { None };
    let body = body.unwrap_or_default();
    let kind = if exchange.stream() { value("content-type").unwrap_or_default() } else { String::new() };
    let is_error = !(200..300).contains(&status);
    let retry_after = if is_error { retry_after(&value, sys::now()) } else { None };
    let head = Head { status, content_type: &kind, retry_after };
    let mut watch = Watch::new(&head, exchange.asked()?);
    let Judged { verdict, body: changed, error } = match watch.wants(body.len()) {
        Wants::Pieces => match watch.withhold(&body, true, body.len(), usize::MAX) {
            Step::Judged(judged) => judged,
            Step::Hold => return None,
        },
        Wants::Everything(_) => watch.judge(&body, true),
    };
    let key = exchange.key();
    let provider = exchange.provider().map(|provider| provider.name.clone()).unwrap_or_default();
    exchange.progress(watch.tally(), sys::now);
    let next = judge(exchange, &verdict, world);
    let Next::Deliver(mut headers) = next else { return Some(Heard::Next(next, verdict)) };
    headers.extend(value("x-request-id").map(|id| ("x-request-id", id)));
    let (status, body) = if verdict.outcome == Outcome::Answered {
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
    Some(Heard::Answer(Reply { status, headers, body }, verdict))
}
