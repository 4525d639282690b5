//! What goes to a provider, and what comes back to the client, written anew for every attempt.
//!
//! A request is an allowlist: a header that is not named here does not cross, whoever set it. All attempts of a request
//! share one header map on Envoy, so everything that one attempt wrote is replaced by the next.

use std::ops::Range;

use crate::headers::{HeaderWriter, Headers};
use crate::provider::Provider;
use crate::request::CHAT;

/// Headers that carry an identity, a length or the gateway's own steering. No configuration lets them cross.
const NEVER: [&str; 25] = [
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
const NEVER_PREFIXES: [&str; 4] = [":", "x-shunt-", "x-envoy-", "x-forwarded-"];

/// Whether a header (in lower case) may not be let through by a provider's `allow_headers`.
pub fn never_crosses(name: &str) -> bool {
    NEVER.contains(&name) || NEVER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The path at a provider: its prefix and the endpoint. The client's query does not cross.
pub fn path(provider: &Provider) -> String {
    [provider.path_prefix.as_str(), CHAT].concat()
}

/// The request headers for one attempt, in the host's form: all that the provider receives. `client` is what the map
/// holds now; it is looked at only for a provider with `allow_headers`, and may be empty otherwise.
pub fn request_headers(client: &Headers, provider: &Provider, stream: bool, body_len: usize) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.add(":authority", &provider.host);
    out.add(":path", path(provider));
    out.add(":method", "POST");
    // HTTP/2 sends it; providers speak HTTPS, whatever the client's scheme was.
    out.add(":scheme", "https");
    out.add("authorization", provider.api_key.bearer());
    out.add("content-type", "application/json");
    out.add("content-length", body_len.to_string());
    out.add("accept", if stream { "text/event-stream" } else { "application/json" });
    // A compressed answer could not be judged.
    out.add("accept-encoding", "identity");
    out.add("user-agent", concat!("shunt/", env!("CARGO_PKG_VERSION")));
    if !provider.allow_headers.is_empty() {
        let allowed = |name: &[u8]| {
            provider.allow_headers.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        out.extend(client.iter().filter(|(name, _)| allowed(name)));
    }
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

/// A change of the request body: the bytes of `place` become `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// What is replaced.
    pub place: Range<usize>,
    /// By what.
    pub text: String,
}

impl Splice {
    /// The change that asks for another model; `None` if the name stays the same.
    pub fn model(asked: &str, name: &str, place: &Range<usize>) -> Option<Self> {
        let text = serde_json::Value::from(name).to_string();
        (asked != name).then(|| Self { place: place.clone(), text })
    }

    /// The length of the body afterwards.
    pub fn body_len(&self, before: usize) -> usize {
        before.saturating_sub(self.place.len()).saturating_add(self.text.len())
    }

    /// How much of the body's beginning must be read and written back; what follows is not touched.
    pub const fn prefix_len(&self) -> usize {
        self.place.end
    }

    /// The new beginning of the body. `prefix` are its first [`Self::prefix_len`] bytes; `None` if it is shorter.
    pub fn apply(&self, prefix: &[u8]) -> Option<Vec<u8>> {
        (prefix.len() == self.place.end).then_some(())?;
        Some([prefix.get(..self.place.start)?, self.text.as_bytes()].concat())
    }
}

/// What a provider's response may not tell the client: the gateway's own names, the vendor's cookies, account and
/// transport advice, which would be taken for the gateway's.
fn stays_behind(name: &[u8]) -> bool {
    const STAY: [&str; 6] = [
        "set-cookie",
        "openai-organization",
        "openai-project",
        "alt-svc",
        "strict-transport-security",
        "clear-site-data",
    ];
    const PREFIXES: [&[u8]; 2] = [b"x-shunt-", b"x-envoy-"];
    STAY.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
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

/// The response headers of anything but an answer: the provider's without what stays behind, and the given ones.
pub fn response_headers<'a>(
    provider: &Headers,
    extra: impl IntoIterator<Item = (&'a str, String)>,
) -> Vec<u8> {
    let mut out = HeaderWriter::default();
    out.extend(provider.iter().filter(|(name, _)| !stays_behind(name)));
    out.extend(extra);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ApiKey;

    fn provider(allow_headers: &[&str]) -> Provider {
        Provider {
            name: "p".to_owned(),
            host: "api.p.com".to_owned(),
            path_prefix: "/v9".to_owned(),
            api_key: ApiKey::new("sk-p").unwrap(),
            identity: crate::provider::Identity { fingerprint: 1, record: String::new() },
            models: Vec::new(),
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
        let sent = read(request_headers(&client, &provider(&["openai-beta", "traceparent"]), true, 12));
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
            ("traceparent", "00-1-2-01"),
            ("openai-beta", "x=1"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_another_attempt_wrote_does_not_reach_the_next_provider() {
        let first = request_headers(&headers(&[]), &provider(&[]), false, 1);
        let other = Provider { api_key: ApiKey::new("sk-other").unwrap(), ..provider(&[]) };
        let second = read(request_headers(&Headers::new(first), &other, false, 2));
        let keys: Vec<_> = second.iter().filter(|(name, _)| name == "authorization").collect();
        assert_eq!(keys, [&("authorization".to_owned(), "Bearer sk-other".to_owned())]);
        assert_eq!(second.iter().filter(|(name, _)| name == "content-length").count(), 1);
    }

    #[test]
    fn a_splice_changes_the_model_and_nothing_else() {
        let body = br#"{"messages":[1],"model":"assistant","stream":true}"#;
        let place = 24..35;
        assert_eq!(&body[place.clone()], br#""assistant""#);
        let splice = Splice::model("assistant", "gpt \"x\"", &place).unwrap();
        let mut new = splice.apply(&body[..splice.prefix_len()]).unwrap();
        new.extend_from_slice(&body[splice.prefix_len()..]);
        assert_eq!(new, br#"{"messages":[1],"model":"gpt \"x\"","stream":true}"#);
        assert_eq!(new.len(), splice.body_len(body.len()));
        assert_eq!(Splice::model("same", "same", &place), None);
        assert_eq!(splice.apply(b"short"), None);
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
        ]);
        let sent = read(response_headers(&response, [("x-shunt-provider", "p".to_owned())]));
        let expected = [
            (":status", "400"),
            ("x-ratelimit-remaining-requests", "9"),
            ("content-length", "5"),
            ("x-shunt-provider", "p"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
