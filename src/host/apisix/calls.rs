//! Calls: the filter itself sends a request to one provider, and judges the whole answer. A call goes through the provider's inner
//! route, so that the provider's address, TLS and health checks are declared in one place.
//!
//! All calls go to one address, the `inner` of the configuration. The host tells nothing of a call that was refused and of an answer
//! that broke off, so where no call of this worker was answered yet, a [question](asks_inner) to the same address tells them apart.

use std::borrow::Cow;
use std::time::Duration;

use proxy_wasm::types::{BufferType, MapType};

use super::{state, HopNumber};
use crate::bytes::ascii;
use crate::bytes::headers::HeaderWriter;
use crate::bytes::splice::Splices;
use crate::client_api::errors::{error_envelope, is_envelope, json_type, Rejection, Reply};
use crate::config::Config;
use crate::exchange::{Exchange, Next, Refused};
use crate::health::outcome::{retry_after_of, Outcome, Verdict};
use crate::host::client_request::{header, text, trace};
use crate::host::{decided, in_order, sys};
use crate::relay::{call_proof, read_proof, secret, Try, INNER, PLAN, TRY};
use crate::response::answer::{Head, Judged, Step, Wants, Watch};
use crate::routing::provider::Provider;
use crate::routing::rewrite::{add_call_headers, path, UpstreamRequest};
use crate::selection::plan::Env;

/// How the core is called: with [`state::with_env`], or, in an attempt whose outcome the router reports, with
/// [`state::with_frozen_env`].
pub(super) type WithEnv = fn(&mut dyn FnMut(&mut Env<'_>));

/// What follows a call that has ended.
pub(super) enum CallResult {
    /// The client gets this.
    Reply(Reply, Verdict),
    /// The client gets nothing yet.
    Next(Next, Verdict),
}

/// How long the answer to a question to `inner` is waited for. Nobody but APISIX has to do anything for it.
const LONGEST_QUESTION: Duration = Duration::from_secs(5);

/// A call has ended. Returns whether this call or an earlier one of this worker was answered by whoever listens at `inner`.
pub(super) fn inner_answers(config: &Config) -> bool {
    let mut answers = false;
    state::with_inner(&config.inner, &mut |inner| {
        inner.has_answered =
            inner.has_answered || sys::header(MapType::HttpCallResponseHeaders, ":status").is_some();
        answers = inner.has_answered;
    });
    answers
}

/// Asks at `inner` for a path that nobody has; false if the host refuses. APISIX itself answers, and no provider hears of it.
pub(super) fn asks_inner(hop: HopNumber, config: &Config) -> bool {
    let mut out = HeaderWriter::default();
    out.add(":method", "GET");
    out.add(":scheme", "http");
    out.add(":authority", &config.inner);
    out.add(":path", "/");
    out.add("connection", "close");
    let call = sys::call(&config.inner, &out.finish(), &[], LONGEST_QUESTION);
    call.inspect(|call| state::insert_call(*call, hop)).is_some()
}

/// Whether a request on a listener for clients is a call of this filter, which has come back because `inner` names that listener.
pub(super) fn has_come_back(config: &Config) -> bool {
    let proof = text(header(INNER));
    let (sent, ends) = read_proof(&proof);
    let is_call =
        ends.is_some() && config.providers.iter().any(|known| secret(known.api_key.secret()) == sent);
    if is_call {
        log_inner(config, "a call to it has come back on a listener for clients");
    }
    is_call
}

/// The reply if nobody answers at `inner`. The log says where that is.
pub(super) fn inner_is_wrong(config: &Config) -> Rejection {
    log_inner(config, "nobody answers there");
    Rejection::misconfigured(
        "the gateway cannot reach its own inner routes: its log names the mistake in `inner`",
    )
}

/// The try of a stream has come in, after the others in `tries`: says in the log if calls go somewhere else, once.
pub(super) fn compare_inner(config: &Config, tries: &str) {
    let mut is_known = false;
    state::with_inner(&config.inner, &mut |inner| is_known = inner.has_answered || inner.came_in.is_some());
    if !is_known {
        compare_port(config, tries);
    }
}

#[cold]
#[inline(never)]
fn compare_port(config: &Config, tries: &str) {
    let port = |text: &str| ascii::whole::<u16>(text);
    let first = config.inner.rsplit_once(':').and_then(|(_, first)| port(first));
    let Some((here, first)) = port(&text(sys::property("server_port"))).zip(first) else { return };
    state::with_inner(&config.inner, &mut |inner| inner.came_in = Some(here));
    // Each try may come in on the listener behind that of the one before.
    let before = tries.bytes().filter(|byte| *byte == b',').count() + usize::from(!tries.is_empty());
    if here.checked_sub(first).is_none_or(|place| usize::from(place) > before) {
        log_inner(config, &["the try of a stream has come in on port ", &here.to_string()].concat());
    }
}

#[cold]
#[inline(never)]
fn log_inner(config: &Config, what: &str) {
    let address = &config.inner;
    log::error!(
        "whole answers are sent to {address}, the `inner` of the configuration, but {what}; `inner` must be the first inner listener of \
         node_listen in config.yaml"
    );
}

/// Calls the provider of the attempt under way for a hop; false if the host refuses. The call is the request that the provider gets: only
/// what the inner route alone may say is missing, so that the body passes through the inner hop unread.
pub(super) fn call(hop: HopNumber, config: &Config, exchange: &Exchange) -> bool {
    let Some(provider) = exchange.provider() else { return false };
    let address = &config.inner;
    // No time at all would be no limit for the host.
    let limit = exchange.limit().max(Duration::from_millis(1));
    let splices = exchange.splices();
    let headers = call_headers(config, provider, exchange.ask(&splices), exchange.traces(), limit);
    let call = sent_body(exchange, &splices).and_then(|body| sys::call(address, &headers, &body, limit));
    match call {
        Some(call) => state::insert_call(call, hop),
        None => {
            let provider = &provider.name;
            log::error!("APISIX refused a call to {address}, the `inner` of the configuration; provider {provider} was not reached");
            return false;
        }
    }
    true
}

/// The body that the provider of the attempt under way gets; `None` if it cannot be made.
pub(super) fn sent_body<'a>(exchange: &'a Exchange, splices: &Splices) -> Option<Cow<'a, [u8]>> {
    match exchange.translated() {
        Some(translated) => Some(Cow::Borrowed(translated)),
        None if splices.is_empty() => Some(Cow::Borrowed(exchange.body())),
        None => splices.apply(exchange.body()).map(Cow::Owned),
    }
}

/// The request headers of a call. All four pseudo-headers are set, because the host takes those of the call before for missing ones.
fn call_headers(
    config: &Config,
    provider: &Provider,
    ask: UpstreamRequest<'_>,
    traces: bool,
    limit: Duration,
) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.add(":method", "POST");
    out.add(":scheme", "http");
    out.add(":authority", &config.inner);
    out.add(":path", path(provider, ask.endpoint, ask.model));
    // The other side could close a connection that is kept just when it is used again.
    out.add("connection", "close");
    out.add(PLAN, &provider.name);
    out.add(INNER, call_proof(provider.api_key.secret(), sys::now().after(limit)));
    let trace = if traces { trace(&header) } else { [None, None] };
    add_call_headers(&mut out, provider, ask.stream, &trace, header);
    out.finish()
}

fn value(name: &str) -> Option<String> {
    sys::header(MapType::HttpCallResponseHeaders, name).map(|value| text(Some(value)))
}

/// Judges the end of a call. The body of its answer has `size` bytes. `None`: the answer cannot be read.
pub(super) fn ended(exchange: &mut Exchange, size: usize, with_env: WithEnv) -> Option<CallResult> {
    let report = value(TRY).and_then(|report| Try::decode(&report));
    let status: Option<u16> = value(":status").and_then(|status| ascii::whole(&status));
    match (status, report) {
        // An inner route always answers, even if its provider does not. So this answer broke off, or took too long.
        (None, _) => Some(judge_without_answer(exchange, exchange.silence(true, sys::now()), with_env)),
        (Some(_), Some(report)) if report.verdict.status.is_none() => {
            Some(judge_without_answer(exchange, report.verdict.outcome, with_env))
        }
        (Some(status), Some(_)) => judge_answer(exchange, status, size, with_env),
        // APISIX itself has answered: the inner route does not exist, or it has another configuration. The provider has not failed.
        (Some(status), None) => {
            let provider = exchange.provider().map(|provider| provider.name.as_str()).unwrap_or_default();
            log::error!(
                "the inner route of provider {provider:?} was not reached: APISIX itself answered {status}; check that the route exists \
                 and has the same Shunt configuration as the outer route, and that `inner` is the first inner listener"
            );
            let mut next = Next::Drop;
            with_env(&mut |env| next = in_order(exchange.misrouted(env), Next::Fail));
            Some(CallResult::Next(next, Verdict::without_response(Outcome::Unreachable)))
        }
    }
}

/// Judges an attempt whose provider has sent no answer.
pub(super) fn judge_without_answer(
    exchange: &mut Exchange,
    outcome: Outcome,
    with_env: WithEnv,
) -> CallResult {
    let verdict = Verdict::without_response(outcome);
    CallResult::Next(judge(exchange, &verdict, with_env), verdict)
}

fn judge(exchange: &mut Exchange, verdict: &Verdict, with_env: WithEnv) -> Next {
    let mut next = Next::Drop;
    with_env(&mut |env| {
        next = decided(exchange.judge(verdict.clone(), false, true, env));
    });
    next
}

/// Judges an attempt by its provider's answer.
fn judge_answer(exchange: &mut Exchange, status: u16, size: usize, with_env: WithEnv) -> Option<CallResult> {
    let body = if size > 0 { sys::buffer(BufferType::HttpCallResponseBody, 0, size) } else { None };
    let body = body.unwrap_or_default();
    let is_error = !(200..300).contains(&status);
    let retry_after = if is_error { retry_after_of(status, &value, sys::now()) } else { None };
    let head = Head { status, retry_after };
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
    let next = judge(exchange, &verdict, with_env);
    let request_id = value("x-request-id");
    let Next::Deliver(mut headers) = next else {
        if exchange.wants_refusal() {
            let error = error.unwrap_or_default();
            exchange.keep_refusal(Refused { status, body: &body, error: &error, request_id }, &key);
        }
        return Some(CallResult::Next(next, verdict));
    };
    headers.extend(request_id.map(|id| ("x-request-id", id)));
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
    Some(CallResult::Reply(Reply { status, headers, body }, verdict))
}
