//! What every host does with a client's request until it is an [`Exchange`].

use std::rc::Rc;

use proxy_wasm::types::MapType;

use super::sys;
use crate::bytes::ascii;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Body, Endpoint, Head, POLICY_OPTION, STREAM_OPTION};
use crate::config::Config;
use crate::exchange::{Exchange, Pass};
use crate::routing::provider::ProviderId;
use crate::routing::rewrite::TRACE;
use crate::selection::evaluations;
use crate::selection::models;

/// Reads one header of the request.
pub(super) type Reader<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// What a request is for, by its path and method.
pub(super) enum RequestKind {
    /// A model is to be called. The body says which.
    Completion(Endpoint),
    /// It is forwarded to this provider unchanged.
    Passthrough(ProviderId),
    /// The gateway replies itself.
    Reply(Reply),
    /// It asks for the scores of models.
    Scores,
    /// Its body has new scores of models.
    NewScores,
}

/// A body that is read before anything is done with the request.
#[derive(Clone, Copy)]
pub(super) enum ExpectedBody {
    /// A request to this endpoint.
    Request(Endpoint),
    /// Scores of models.
    Scores,
}

impl ExpectedBody {
    /// The longest body, in bytes, that is accepted.
    pub(super) const fn limit(self, config: &Config) -> usize {
        match self {
            Self::Request(_) => config.sizes.max_request,
            Self::Scores => evaluations::LONGEST,
        }
    }
}

/// What a request with this `:path` is for.
pub(super) fn classify(config: &Config, full: &str, header: Reader<'_>) -> RequestKind {
    let path = Head::path(full);
    if let Some(endpoint) = config.endpoint(path) {
        // The same path may be passed through for the other methods: `GET` of it lists what the provider has stored.
        return match config.passthrough(path).filter(|_| text(header(":method")) != "POST") {
            Some(provider) if Head::is_plain(path) => RequestKind::Passthrough(provider),
            _ => RequestKind::Completion(endpoint),
        };
    }
    let method = text(header(":method"));
    if config.evaluations.as_ref().is_some_and(|evaluations| evaluations.path == path) {
        return match evaluations::authorize(config, header("authorization").as_deref()) {
            Err(rejection) => RequestKind::Reply(rejection.reply()),
            Ok(()) if method == "POST" => RequestKind::NewScores,
            Ok(()) if method == "GET" => RequestKind::Scores,
            Ok(()) => RequestKind::Reply(Rejection::method(&method, path).reply()),
        };
    }
    if let Some(reply) =
        Some(&method).filter(|method| *method == "GET").and_then(|_| models::reply(config, path))
    {
        return RequestKind::Reply(reply);
    }
    match config.passthrough(path).filter(|_| Head::is_plain(path)) {
        Some(provider) => RequestKind::Passthrough(provider),
        None => RequestKind::Reply(Rejection::path(&method, path).reply()),
    }
}

/// Reads a body. Headers are read only where they matter, because each costs a call of the host.
///
/// # Errors
/// A [`Rejection`] for a request that cannot be read.
pub(super) fn read(
    config: &Config,
    endpoint: Endpoint,
    path: String,
    bytes: Vec<u8>,
    header: Reader<'_>,
) -> Result<(Head, Body), Rejection> {
    let body = Body::read(bytes, endpoint, &config.parameters).map_err(|rejection| {
        match header("content-encoding") {
            Some(encoding) if !ascii::is_same(&encoding, "identity") => {
                Rejection::encoded(&String::from_utf8_lossy(&encoding))
            }
            _ => rejection,
        }
    })?;
    let complete = body.stream && Head::parse_stream_option(header(STREAM_OPTION).as_deref())?;
    let policy = header(POLICY_OPTION).map(|name| String::from_utf8_lossy(&name).into_owned());
    Ok((Head { path, complete, policy }, body))
}

/// The exchange of a request that is forwarded to one provider unchanged.
pub(super) fn passthrough(
    config: &Rc<Config>,
    provider: ProviderId,
    path: String,
    header: Reader<'_>,
) -> Exchange {
    Exchange::passing(Rc::clone(config), provider, Pass { method: text(header(":method")), path })
}

/// Notes what the headers say of the client. `id` is the gateway's id of the request.
pub(super) fn identify(exchange: &mut Exchange, config: &Config, id: String) {
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

/// A header's value as text; empty if there is none, or if it is not UTF-8.
pub(super) fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// The trace context of the request. Envoy may have changed it since the client sent it.
pub(super) fn trace(header: Reader<'_>) -> [Option<Vec<u8>>; 2] {
    let [parent, state] = TRACE;
    let parent = header(parent).filter(|value| !value.is_empty());
    let state = parent.as_ref().and_then(|_| header(state));
    [parent, state]
}
