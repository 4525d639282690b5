//! The headers that a provider receives and the headers that the client receives, written anew for every attempt.
//!
//! Requests use an allowlist: a header that is not named here is not forwarded, whether the client or the gateway set it. On
//! Envoy all attempts of a request share one header map, so each attempt replaces everything that the one before wrote.

use crate::bytes::ascii;
use crate::bytes::headers::{HeaderWriter, Headers};
use crate::client_api::redaction::contains_key;
use crate::client_api::request::Endpoint;
use crate::routing::provider::Provider;

/// Request headers that no configuration can allow: they carry an identity or a length, or control the gateway.
const NEVER_FORWARDED: [&str; 25] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "openai-organization",
    "openai-project",
    "forwarded",
    "x-real-ip",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "content-encoding",
    "accept-encoding",
    // Each attempt writes these itself.
    "content-type",
    "accept",
    "user-agent",
];
const NEVER_FORWARDED_PREFIXES: [&str; 4] = [":", "x-shunt-", "x-envoy-", "x-forwarded-"];

/// Whether a provider's `allow_headers` must not name this header (in lower case).
pub fn is_never_forwarded(name: &str) -> bool {
    NEVER_FORWARDED.contains(&name) || NEVER_FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What the headers of one attempt depend on.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRequest<'a> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The provider's name of the model.
    pub model: &'a str,
    /// Whether a stream is requested.
    pub stream: bool,
    /// The length of the body, in bytes.
    pub body_len: usize,
}

/// The path at a provider: its prefix and its path for the endpoint. The client's query is not forwarded.
pub fn path(provider: &Provider, endpoint: Endpoint, model: &str) -> String {
    let path = provider.dialect.path(endpoint);
    if path.contains(MODEL_IN_PATH) {
        // With `*`, the client's text becomes part of the path here. It must stay a single segment.
        let segment =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '~');
        let safe: String = model.chars().map(|letter| if segment(letter) { letter } else { '-' }).collect();
        let safe = if matches!(safe.as_str(), "." | "..") { "-" } else { &safe };
        return [provider.path_prefix.as_str(), &path.replace(MODEL_IN_PATH, safe)].concat();
    }
    [provider.path_prefix.as_str(), path].concat()
}

/// The placeholder for the model's name in a path, which Azure needs.
pub(super) const MODEL_IN_PATH: &str = "{model}";

/// The headers of the W3C trace context.
pub const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// All request headers of one attempt, serialized for the host. `client` are the client's headers; they are only used for a
/// provider with `allow_headers` and may be empty otherwise. `trace` are the current values of [`TRACE`].
pub fn request_headers(
    client: &Headers,
    provider: &Provider,
    request: UpstreamRequest<'_>,
    trace: &[Option<Vec<u8>>; 2],
) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.add(":authority", &provider.host);
    out.add(":path", path(provider, request.endpoint, request.model));
    out.add(":method", "POST");
    // Providers are contacted over HTTPS, whatever scheme the client used.
    out.add(":scheme", "https");
    out.add(&provider.dialect.key_header, provider.api_key.header());
    out.add("content-type", "application/json");
    out.add("content-length", request.body_len.to_string());
    add_own(&mut out, provider, request.stream, trace);
    if !provider.allow_headers.is_empty() {
        let allowed = |name: &[u8]| is_allowed(name, provider, trace);
        out.extend(client.iter().filter(|(name, _)| allowed(name)));
    }
    out.finish()
}

/// The headers that every attempt writes itself and that do not depend on its body.
fn add_own(out: &mut HeaderWriter, provider: &Provider, stream: bool, trace: &[Option<Vec<u8>>; 2]) {
    out.add("accept", if stream { "text/event-stream" } else { "application/json" });
    // The filter could not read a compressed answer.
    out.add("accept-encoding", "identity");
    out.add("user-agent", concat!("shunt/", env!("CARGO_PKG_VERSION")));
    out.extend(provider.dialect.headers.iter().map(|(name, value)| (name, value)));
    for (name, value) in TRACE.iter().zip(trace) {
        if let Some(value) = value {
            out.add(name, value);
        }
    }
}

/// The headers of a call to the provider's inner route (APISIX), which adds the provider's host and key: all others that the provider
/// gets. `client` reads a header of the client.
pub fn add_call_headers(
    out: &mut HeaderWriter,
    provider: &Provider,
    stream: bool,
    trace: &[Option<Vec<u8>>; 2],
    client: fn(&str) -> Option<Vec<u8>>,
) {
    out.add("content-type", "application/json");
    add_own(out, provider, stream, trace);
    for name in provider.allow_headers.iter().filter(|name| is_allowed(name.as_bytes(), provider, trace)) {
        if let Some(value) = client(name) {
            out.add(name, value);
        }
    }
}

/// Whether [`add_call_headers`] may have written this header. `traces`: the trace context goes to providers.
pub fn is_of_call(name: &[u8], provider: &Provider, traces: bool) -> bool {
    const OWN: [&str; 4] = ["content-type", "accept", "accept-encoding", "user-agent"];
    let trace = if traces { &TRACE[..] } else { &[] };
    let dialect = provider.dialect.headers.iter().map(|(name, _)| name.as_str());
    let mut all = OWN.iter().chain(trace).copied().chain(dialect);
    all.any(|own| ascii::is_same(name, own))
        || provider.allow_headers.iter().any(|own| ascii::is_same(name, own))
}

/// Whether a header of the client is on the provider's allowlist and is not written here anyway.
fn is_allowed(name: &[u8], provider: &Provider, trace: &[Option<Vec<u8>>; 2]) -> bool {
    let dialect = &provider.dialect;
    let is_written = |allowed: &str| {
        allowed == dialect.key_header
            || dialect.headers.iter().any(|(own, _)| own == allowed)
            || TRACE.iter().zip(trace).any(|(own, value)| value.is_some() && *own == allowed)
    };
    let matches = |allowed: &String| ascii::is_same(name, allowed) && !is_written(allowed);
    provider.allow_headers.iter().any(matches)
}

/// The request headers of a passthrough request, whose body is forwarded unchanged: the client's method, path and body headers, the
/// provider's host and key, and the headers on the allowlist.
pub fn passthrough_headers(
    client: &Headers,
    provider: &Provider,
    method: &str,
    path: &str,
    trace: &[Option<Vec<u8>>; 2],
) -> Vec<u8> {
    // The provider's prefix replaces the gateway's `/v1`.
    let path = match path.strip_prefix("/v1/") {
        Some(rest) => [provider.path_prefix.as_str(), "/", rest].concat(),
        None => path.to_owned(),
    };
    let mut out = HeaderWriter::default();
    out.add(":authority", &provider.host);
    out.add(":path", path);
    out.add(":method", method);
    out.add(":scheme", "https");
    out.add(&provider.dialect.key_header, provider.api_key.header());
    out.add("user-agent", concat!("shunt/", env!("CARGO_PKG_VERSION")));
    out.extend(provider.dialect.headers.iter().map(|(name, value)| (name, value)));
    for (name, value) in TRACE.iter().zip(trace) {
        if let Some(value) = value {
            out.add(name, value);
        }
    }
    let own = |name: &[u8]| {
        ["content-type", "content-length", "accept", "range"].iter().any(|own| ascii::is_same(name, own))
    };
    let allowed = |name: &[u8]| own(name) || is_allowed(name, provider, trace);
    out.extend(client.iter().filter(|(name, _)| allowed(name)));
    out.finish()
}

/// The request headers for a cluster that turns out to belong to no provider: nothing of the client's, and no key.
pub fn empty_request() -> Vec<u8> {
    let mut out = HeaderWriter::default();
    for (name, value) in [
        (":authority", "shunt"),
        (":path", "/"),
        (":method", "POST"),
        (":scheme", "http"),
        ("content-length", "0"),
    ] {
        out.add(name, value);
    }
    out.finish()
}

/// Response headers of a provider that are never forwarded to the client.
pub const NOT_FORWARDED: [&str; 20] = [
    "set-cookie",
    "openai-organization",
    "openai-project",
    "alt-svc",
    "strict-transport-security",
    "clear-site-data",
    // The gateway's own headers, by name: a host that removes headers by name cannot match the prefix.
    "x-shunt-provider",
    "x-shunt-model",
    "x-shunt-attempts",
    "x-shunt-degraded",
    "x-shunt-adapted",
    "x-shunt-policy",
    "x-shunt-budget",
    "x-shunt-retry",
    "x-shunt-wait",
    "x-shunt-try",
    "x-envoy-ratelimited",
    "x-envoy-overloaded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-upstream-service-time",
];

/// Headers that vendors add to answers, such as rate limits of the account and headers of their own gateways. They are listed for a
/// host that cannot enumerate the headers of a response and so must remove them by name.
pub const VENDOR_HEADERS: [&str; 32] = [
    "openai-processing-ms",
    "openai-version",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "anthropic-organization-id",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
    "request-id",
    "apim-request-id",
    "azureml-model-session",
    "x-ms-region",
    "x-ds-trace-id",
    "x-groq-region",
    "cf-ray",
    "cf-cache-status",
    "server-timing",
    "via",
    "nel",
    "report-to",
    "x-powered-by",
];

/// Whether a provider's response header is kept from the client: headers with the gateway's own names, and the vendor's cookies,
/// account and transport settings, which the client would take for the gateway's.
fn is_withheld(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 2] = [b"x-shunt-", b"x-envoy-"];
    NOT_FORWARDED.iter().any(|withheld| ascii::is_same(name, withheld))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| ascii::is_same(start, prefix)))
}

/// The response headers of an answer, serialized for the host. This is an allowlist, too: the rate limits, cookies and account of one
/// vendor would mislead a client that is served by several.
pub fn answer_headers<'a>(
    status: u16,
    content_type: &str,
    content_length: Option<usize>,
    request_id: Option<&[u8]>,
    extra: impl IntoIterator<Item = (&'a str, String)>,
) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.add(":status", status.to_string());
    out.add("content-type", content_type);
    if let Some(length) = content_length {
        out.add("content-length", length.to_string());
    }
    // The vendor's id of the request, which its support asks for.
    if let Some(id) = request_id {
        out.add("x-request-id", id);
    }
    out.extend(extra);
    out.finish()
}

/// The response headers of anything but an answer: the provider's, without those that are withheld and those whose value contains its
/// `key`, and the `extra` ones.
pub fn response_headers<'a>(
    provider: &Headers,
    key: &str,
    extra: impl IntoIterator<Item = (&'a str, String)>,
) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.extend(provider.iter().filter(|(name, value)| !is_withheld(name) && !contains_key(value, key)));
    out.extend(extra);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::dialect::{Dialect, Vendor};
    use crate::routing::provider::ApiKey;

    fn request(stream: bool, body_len: usize) -> UpstreamRequest<'static> {
        UpstreamRequest { endpoint: Endpoint::Chat, model: "m", stream, body_len }
    }

    fn provider(allow_headers: &[&str]) -> Provider {
        Provider {
            name: "p".to_owned(),
            host: "api.p.com".to_owned(),
            region: String::new(),
            path_prefix: "/v9".to_owned(),
            api_key: ApiKey::new("Bearer ", "sk-p").unwrap(),
            identity: crate::routing::provider::Identity { fingerprint: 1, record: String::new() },
            models: Vec::new(),
            dialect: Dialect::of(Vendor::OpenAi),
            prices: Vec::new(),
            allow_headers: allow_headers.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let mut writer = HeaderWriter::default();
        writer.extend(pairs.iter().copied());
        Headers::new(writer.finish())
    }

    fn read(block: Vec<u8>) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Headers::new(block).iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn a_call_and_the_key_of_its_inner_route_are_together_the_headers_of_an_attempt() {
        let client = |name: &str| match name {
            "openai-beta" | "accept" | "authorization" => Some(b"the client's".to_vec()),
            "tracestate" => Some(b"of the client".to_vec()),
            _ => None,
        };
        let mut provider = provider(&["openai-beta", "x-absent", "tracestate"]);
        provider.dialect.headers = vec![("anthropic-version".to_owned(), "2023-06-01".to_owned())];
        let all =
            headers(&[("openai-beta", "the client's"), ("tracestate", "of the client"), ("x-other", "1")]);
        for trace in [
            [None, None],
            [Some(b"00-a-b-01".to_vec()), None],
            [Some(b"00-a-b-01".to_vec()), Some(b"k=v".to_vec())],
        ] {
            let mut call = HeaderWriter::default();
            call.add("authorization", "Bearer sk-p");
            add_call_headers(&mut call, &provider, true, &trace, client);
            let call = read(call.finish());
            let attempt = read(request_headers(&all, &provider, request(true, 7), &trace));
            let is_told = |(name, _): &(String, String)| !name.starts_with(':') && name != "content-length";
            assert_eq!(call, attempt.into_iter().filter(is_told).collect::<Vec<_>>());
            let traces = trace[0].is_some();
            for (name, _) in call.iter().filter(|(name, _)| name != "authorization") {
                assert!(is_of_call(name.as_bytes(), &provider, traces), "{name}");
            }
        }
        for name in [
            "authorization",
            "cookie",
            "x-shunt-plan",
            "x-shunt-inner",
            "x-request-id",
            "traceparent",
            "forwarded",
        ] {
            assert!(!is_of_call(name.as_bytes(), &provider, false), "{name}");
        }
        assert!(is_of_call(b"TraceParent", &provider, true));
    }

    #[test]
    fn only_headers_on_the_allowlist_and_the_providers_own_reach_the_provider() {
        let client = headers(&[
            (":authority", "gateway"),
            (":path", "/v1/chat/completions?key=secret"),
            (":method", "POST"),
            (":scheme", "http"),
            ("authorization", "Bearer sk-client"),
            ("Cookie", "a=b"),
            ("x-api-key", "k"),
            ("openai-organization", "o"),
            ("x-shunt-cluster", "q"),
            ("x-envoy-attempt-count", "2"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-length", "999"),
            ("accept-encoding", "gzip"),
            ("user-agent", "client"),
            ("traceparent", "00-1-2-01"),
            ("openai-beta", "x=1"),
        ]);
        let trace = [Some(b"00-3-4-01".to_vec()), None];
        let sent = read(request_headers(
            &client,
            &provider(&["openai-beta", "traceparent"]),
            request(true, 12),
            &trace,
        ));
        let expected = [
            (":authority", "api.p.com"),
            (":path", "/v9/chat/completions"),
            (":method", "POST"),
            (":scheme", "https"),
            ("authorization", "Bearer sk-p"),
            ("content-type", "application/json"),
            ("content-length", "12"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", concat!("shunt/", env!("CARGO_PKG_VERSION"))),
            ("traceparent", "00-3-4-01"),
            ("openai-beta", "x=1"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_another_attempt_wrote_does_not_reach_the_next_provider() {
        let first = request_headers(&headers(&[]), &provider(&[]), request(false, 1), &[None, None]);
        let other = Provider { api_key: ApiKey::new("Bearer ", "sk-other").unwrap(), ..provider(&[]) };
        let second = read(request_headers(&Headers::new(first), &other, request(false, 2), &[None, None]));
        let keys: Vec<_> = second.iter().filter(|(name, _)| name == "authorization").collect();
        assert_eq!(keys, [&("authorization".to_owned(), "Bearer sk-other".to_owned())]);
        assert_eq!(second.iter().filter(|(name, _)| name == "content-length").count(), 1);
    }

    #[test]
    fn a_providers_response_cannot_set_the_gateways_headers_or_reveal_its_key() {
        let response = headers(&[
            (":status", "400"),
            ("X-Shunt-Retry", "1"),
            ("x-envoy-ratelimited", "true"),
            ("set-cookie", "__cf_bm=1"),
            ("openai-organization", "org"),
            ("x-ratelimit-remaining-requests", "9"),
            ("content-length", "5"),
            ("www-authenticate", "Bearer sk-0123456789 is not known"),
        ]);
        let sent = read(response_headers(&response, "sk-0123456789", [("x-shunt-provider", "p".to_owned())]));
        let expected = [
            (":status", "400"),
            ("x-ratelimit-remaining-requests", "9"),
            ("content-length", "5"),
            ("x-shunt-provider", "p"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
