//! A request that the router has routed here: whether it did, and what the provider gets of it.

use super::request::Received;
use super::BODY;
use crate::bytes::headers::Headers;
use crate::client_api::errors::Rejection;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::host::apisix::calls::sent_body;
use crate::host::client_request::trace;
use crate::host::sys;
use crate::relay::secret;
use crate::routing::provider::Provider;
use crate::routing::rewrite::{passthrough_headers, request_headers};

/// Whether a request comes from the router: it proves so by the secret of some provider, most often of this one. A call was made for one
/// provider, so only that one's secret counts.
pub(super) fn is_of_router(config: &Config, provider: &str, told: &str, is_call: bool) -> bool {
    let is_secret = |known: &Provider| told == secret(known.api_key.secret());
    let own = config.providers.iter().find(|known| known.name == provider);
    own.is_some_and(is_secret) || !is_call && config.providers.iter().any(is_secret)
}

/// Writes the headers and the body that the provider of the exchange gets.
pub(super) fn write_request(exchange: &Exchange, received: &Received) -> Result<(), Rejection> {
    let provider =
        exchange.provider().ok_or_else(|| Rejection::misconfigured("the plan lacks the provider"))?;
    let splices = exchange.splices();
    let trace = if exchange.traces() { trace(&|name| received.value(name)) } else { [None, None] };
    let block = request_headers(received.headers(), provider, exchange.ask(&splices), &trace);
    let is_changed = exchange.translated().is_some() || !splices.is_empty();
    let body =
        if is_changed { Some(sent_body(exchange, &splices).ok_or_else(cannot_rewrite)?) } else { None };
    let is_written =
        received.replace(&Headers::new(block)) && body.is_none_or(|body| sys::set_property(BODY, &body));
    is_written.then_some(()).ok_or_else(cannot_rewrite)
}

/// Writes the headers that the provider gets of a request of a passthrough path. `asked` is the provider of this route.
pub(super) fn write_passthrough(
    exchange: &Exchange,
    asked: &str,
    received: &Received,
) -> Result<(), Rejection> {
    let provider = exchange.provider().filter(|provider| provider.name == asked);
    let (provider, pass) = provider
        .zip(exchange.pass())
        .ok_or_else(|| Rejection::misconfigured("the path belongs to another provider"))?;
    let trace = trace(&|name| received.value(name));
    let block = passthrough_headers(received.headers(), provider, &pass.method, &pass.path, &trace);
    received.replace(&Headers::new(block)).then_some(()).ok_or_else(cannot_rewrite)
}

pub(super) fn cannot_rewrite() -> Rejection {
    Rejection::misconfigured("the request could not be rewritten for its provider")
}
