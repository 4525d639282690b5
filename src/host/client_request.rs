//! A client's request as the host has it, until it is an [`Exchange`]: the same on every host.

use std::rc::Rc;

use proxy_wasm::types::MapType;

use super::sys;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Body, Endpoint, Head, POLICY_OPTION, STREAM_OPTION};
use crate::config::Config;
use crate::exchange::{Exchange, Pass};
use crate::routing::provider::ProviderId;
use crate::routing::rewrite::TRACE;
use crate::selection::evaluations;
use crate::selection::models;

/// What a request is, by its path.
pub(super) enum Intake {
    /// It asks a provider; its body says more.
    Asks(Endpoint),
    /// It goes to this provider as it is.
    Passes(ProviderId),
    /// The gateway answers it.
    Answered(Reply),
    /// It asks for the scores of models.
    Scores,
    /// It brings scores of models in its body.
    Evaluates,
}

/// What a request with this `:path` is.
pub(super) fn of_path(config: &Config, full: &str) -> Intake {
    let path = Head::path(full);
    if let Some(endpoint) = config.endpoint(path) {
        return Intake::Asks(endpoint);
    }
    let method = text(header(":method"));
    if config.evaluations.as_ref().is_some_and(|evaluations| evaluations.path == path) {
        return match evaluations::authorize(config, header("authorization").as_deref()) {
            Err(rejection) => Intake::Answered(rejection.reply()),
            Ok(()) if method == "POST" => Intake::Evaluates,
            Ok(()) if method == "GET" => Intake::Scores,
            Ok(()) => Intake::Answered(Rejection::method(&method, path).reply()),
        };
    }
    if let Some(reply) =
        Some(&method).filter(|method| *method == "GET").and_then(|_| models::reply(config, path))
    {
        return Intake::Answered(reply);
    }
    match config.passthrough(path).filter(|_| Head::is_plain(path)) {
        Some(provider) => Intake::Passes(provider),
        None => Intake::Answered(Rejection::path(&method, path).reply()),
    }
}

/// Reads a body. Headers are asked for only where they matter: each costs a call.
///
/// # Errors
/// A [`Rejection`] for a request that cannot be read.
pub(super) fn read(
    config: &Config,
    endpoint: Endpoint,
    path: String,
    bytes: Vec<u8>,
) -> Result<(Head, Body), Rejection> {
    let body = Body::read(bytes, endpoint, &config.parameters).map_err(|rejection| {
        match header("content-encoding") {
            Some(encoding) if !encoding.eq_ignore_ascii_case(b"identity") => {
                Rejection::encoded(&String::from_utf8_lossy(&encoding))
            }
            _ => rejection,
        }
    })?;
    let complete = body.stream && Head::parse_stream_option(header(STREAM_OPTION).as_deref())?;
    let policy = header(POLICY_OPTION).map(|name| String::from_utf8_lossy(&name).into_owned());
    Ok((Head { path, complete, policy }, body))
}

/// The exchange of a request that goes to its provider as it is.
pub(super) fn passing(config: &Rc<Config>, provider: ProviderId, path: String) -> Exchange {
    Exchange::passing(Rc::clone(config), provider, Pass { method: text(header(":method")), path })
}

/// Notes whose request it is. `id` is the gateway's number of it.
pub(super) fn name(exchange: &mut Exchange, config: &Config, id: String) {
    exchange.set_request_id(id);
    if let Some(tenant) = &config.tenant {
        exchange.set_tenant(text(header(&tenant.header)));
    }
    if let Some(name) = exchange.sticky_header() {
        exchange.stick_to(header(&name));
    }
}

/// One header of the request.
pub(super) fn header(name: &str) -> Option<Vec<u8>> {
    sys::header(MapType::HttpRequestHeaders, name)
}

/// A header's value as text; what is not there, or no text, is empty.
pub(super) fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// The trace context as it stands in the request now.
pub(super) fn trace() -> [Option<Vec<u8>>; 2] {
    let value = |name| sys::header(MapType::HttpRequestHeaders, name);
    let [parent, state] = TRACE;
    let parent = value(parent).filter(|value| !value.is_empty());
    let state = parent.as_ref().and_then(|_| value(state));
    [parent, state]
}
