//! What goes to a provider, and what comes back to the client, written anew for every attempt.
//!
//! A request is an allowlist: a header that is not named here does not cross, whoever set it. All attempts of a request
//! share one header map on Envoy, so everything that one attempt wrote is replaced by the next.

use crate::bytes::headers::{HeaderWriter, Headers};
use crate::client_api::errors::contains_key;
use crate::client_api::request::Endpoint;
use crate::routing::provider::Provider;

/// Headers that carry an identity, a length or the gateway's own steering. No configuration lets them cross.
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
    // Written by every attempt itself.
    "content-type",
    "accept",
    "user-agent",
];
const NEVER_FORWARDED_PREFIXES: [&str; 4] = [":", "x-shunt-", "x-envoy-", "x-forwarded-"];

/// Whether a header (in lower case) may not be let through by a provider's `allow_headers`.
pub fn is_never_forwarded(name: &str) -> bool {
    NEVER_FORWARDED.contains(&name) || NEVER_FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What one attempt asks for.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRequest<'a> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The provider's name of the model.
    pub model: &'a str,
    /// A stream.
    pub stream: bool,
    /// The length of the body, in bytes.
    pub body_len: usize,
}

/// The path at a provider: its prefix and the endpoint's path there. The client's query does not cross.
pub fn path(provider: &Provider, endpoint: Endpoint, model: &str) -> String {
    let path = provider.dialect.path(endpoint);
    if path.contains(MODEL_IN_PATH) {
        // What a client asks for may stand here through `*`, and must not become more than one segment.
        let segment =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '~');
        let safe: String = model.chars().map(|letter| if segment(letter) { letter } else { '-' }).collect();
        let safe = if matches!(safe.as_str(), "." | "..") { "-" } else { &safe };
        return [provider.path_prefix.as_str(), &path.replace(MODEL_IN_PATH, safe)].concat();
    }
    [provider.path_prefix.as_str(), path].concat()
}

/// Stands for the provider's name of the model in a path, as Azure has it.
const MODEL_IN_PATH: &str = "{model}";

/// The W3C trace context.
pub const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// The request headers for one attempt, in the host's form: all that the provider receives. `client` is what the client
/// sent; it is looked at only for a provider with `allow_headers`, and may be empty otherwise. `trace` are the values of
/// [`TRACE`] as they stand now.
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
    // HTTP/2 sends it; providers speak HTTPS, whatever the client's scheme was.
    out.add(":scheme", "https");
    out.add(&provider.dialect.key_header, provider.api_key.header());
    out.add("content-type", "application/json");
    out.add("content-length", request.body_len.to_string());
    out.add("accept", if request.stream { "text/event-stream" } else { "application/json" });
    // A compressed answer could not be judged.
    out.add("accept-encoding", "identity");
    out.add("user-agent", concat!("shunt/", env!("CARGO_PKG_VERSION")));
    out.extend(provider.dialect.headers.iter().map(|(name, value)| (name, value)));
    for (name, value) in TRACE.iter().zip(trace) {
        if let Some(value) = value {
            out.add(name, value);
        }
    }
    if !provider.allow_headers.is_empty() {
        let allowed = |name: &[u8]| is_allowed(name, provider, trace);
        out.extend(client.iter().filter(|(name, _)| allowed(name)));
    }
    out.finish()
}

/// Whether a header of the client is on the provider's allowlist, and not one that is written here anyway.
fn is_allowed(name: &[u8], provider: &Provider, trace: &[Option<Vec<u8>>; 2]) -> bool {
    let dialect = &provider.dialect;
    let written = |known: &str| {
        known == dialect.key_header
            || dialect.headers.iter().any(|(own, _)| own == known)
            || TRACE.iter().zip(trace).any(|(own, value)| value.is_some() && *own == known)
    };
    let same = |known: &String| name.eq_ignore_ascii_case(known.as_bytes()) && !written(known);
    provider.allow_headers.iter().any(same)
}

/// The request headers of a request that goes to its provider as it is: its own method, path and kind of body, the
/// provider's host and key, and what the allowlist names.
pub fn passthrough_headers(
    client: &Headers,
    provider: &Provider,
    method: &str,
    path: &str,
    trace: &[Option<Vec<u8>>; 2],
) -> Vec<u8> {
    // The provider's prefix stands in the place of the gateway's `/v1`.
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
        ["content-type", "content-length", "accept", "range"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    };
    let allowed = |name: &[u8]| own(name) || is_allowed(name, provider, trace);
    out.extend(client.iter().filter(|(name, _)| allowed(name)));
    out.finish()
}

/// The request for a cluster that turned out to be no provider's: nothing of the client's, and nobody's key.
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

/// Headers of a provider that do not cross, whatever its response is.
pub const NOT_FORWARDED: [&str; 19] = [
    "set-cookie",
    "openai-organization",
    "openai-project",
    "alt-svc",
    "strict-transport-security",
    "clear-site-data",
    // The gateway's own, which a host cannot list by their beginning.
    "x-shunt-provider",
    "x-shunt-model",
    "x-shunt-attempts",
    "x-shunt-degraded",
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

/// What vendors add to their answers, by name, for a host that does not list a response's headers: limits of the account, and
/// what their own gateways say.
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

/// What a provider's response may not tell the client: the gateway's own names, the vendor's cookies, account and
/// transport advice, which would be taken for the gateway's.
fn is_withheld(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 2] = [b"x-shunt-", b"x-envoy-"];
    NOT_FORWARDED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// The response headers of an answer, in the host's form: an allowlist, too. A vendor's rate limits, cookies and account
/// would mislead a client that is served by several vendors.
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
    // The vendor's own number for the request: its support asks for it.
    if let Some(id) = request_id {
        out.add("x-request-id", id);
    }
    out.extend(extra);
    out.finish()
}

/// The response headers of anything but an answer: the provider's without what stays behind and what has its `key` in it, and the
/// given ones.
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
    fn only_the_allowlist_and_the_providers_own_headers_cross() {
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
    fn a_provider_cannot_speak_with_the_gateways_voice() {
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
