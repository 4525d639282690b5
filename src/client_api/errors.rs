//! What the client sees of Shunt: errors in OpenAI's envelope, and the names of headers and codes, in one place.

use crate::bytes::json::{self, fields, Raw};
use crate::bytes::splice::json_text;
use crate::health::outcome::ErrorBody;

/// A complete answer of the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, `content-type` included.
    pub headers: Vec<(&'static str, String)>,
    /// The body, OpenAI's envelope.
    pub body: Vec<u8>,
}

/// OpenAI's error envelope with all four fields.
pub fn envelope(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Vec<u8> {
    let text = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), json_text);
    let (message, kind, param, code) = (json_text(message), json_text(kind), text(param), text(code));
    format!("{{\"error\":{{\"message\":{message},\"type\":{kind},\"param\":{param},\"code\":{code}}}}}")
        .into_bytes()
}

/// A request that is answered by the gateway itself, before any provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status.
    pub status: u16,
    /// For the client's developer.
    pub message: String,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.param`.
    pub param: Option<&'static str>,
    /// `error.code`.
    pub code: Option<&'static str>,
}

const INVALID: &str = "invalid_request_error";

impl Rejection {
    fn invalid(status: u16, code: Option<&'static str>, message: String) -> Self {
        Self { status, message, kind: INVALID, param: None, code }
    }

    /// No route has this path.
    pub fn path(method: &str, path: &str) -> Self {
        let message = format!("Invalid URL ({} {})", printable(method), printable(path));
        Self::invalid(404, Some("unknown_url"), message)
    }

    /// The path has a route, but only for POST.
    pub fn method(method: &str, path: &str) -> Self {
        let message = format!("Method not allowed: {} {}; use POST", printable(method), printable(path));
        Self::invalid(405, Some("method_not_allowed"), message)
    }

    /// The body is not a JSON object that can be read. `what` is the reader's message.
    pub fn body(what: &str) -> Self {
        Self::invalid(400, Some("invalid_json"), format!("The body of the request is not valid JSON: {what}"))
    }

    /// The request has no body at all.
    pub fn no_body() -> Self {
        Self::invalid(400, Some("invalid_json"), "The request has no body; expected a JSON object".to_owned())
    }

    /// No `model`, or one that is no text.
    pub fn no_model() -> Self {
        let message = "You must provide a model parameter: a text that is not empty".to_owned();
        Self { param: Some("model"), ..Self::invalid(400, None, message) }
    }

    /// A `stream` that is not true, false or null.
    pub fn stream() -> Self {
        let message = "The parameter stream must be true or false".to_owned();
        Self { param: Some("stream"), ..Self::invalid(400, None, message) }
    }

    /// No provider of the route has the model.
    pub fn model(model: &str) -> Self {
        let message =
            format!("The model `{}` does not exist or you do not have access to it.", printable(model));
        Self { param: Some("model"), ..Self::invalid(404, Some("model_not_found"), message) }
    }

    /// The body is longer than the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::invalid(
            413,
            Some("request_too_large"),
            format!("The body of the request exceeds {limit} bytes"),
        )
    }

    /// The body has a content encoding.
    pub fn encoded(encoding: &str) -> Self {
        let message = format!(
            "The content encoding {:?} is not supported; send the body as it is",
            printable(encoding)
        );
        Self::invalid(415, Some("unsupported_content_encoding"), message)
    }

    /// No candidate speaks a format in which this can be said.
    pub fn unsupported(why: &str) -> Self {
        Self::invalid(400, Some("unsupported_parameter"), why.to_owned())
    }

    /// A request option with a value that does not exist.
    pub fn option(name: &str, value: &str) -> Self {
        let message = format!("The header {name} cannot be {:?}", printable(value));
        Self::invalid(400, Some("invalid_option"), message)
    }

    /// Every candidate is above what the route pays.
    pub fn price_cap() -> Self {
        let message = "No provider serves this request within the prices that its route allows".to_owned();
        Self::invalid(400, Some("price_cap_exceeded"), message)
    }

    /// Scores that cannot be taken.
    pub fn scores(problems: &str) -> Self {
        Self::invalid(400, Some("invalid_scores"), ["No score was replaced. ", problems].concat())
    }

    /// Others wrote at the same moment, again and again.
    pub fn contended() -> Self {
        let message = "Some of the scores were replaced, and others not; send them again".to_owned();
        Self { kind: "server_error", ..Self::invalid(503, Some("contended"), message) }
    }

    /// Not who may ask this.
    pub fn token() -> Self {
        let message = "This path needs the gateway's own token in the header authorization".to_owned();
        Self::invalid(401, Some("invalid_api_key"), message)
    }

    /// The gateway's own configuration keeps it from serving.
    pub fn misconfigured(message: &str) -> Self {
        Self {
            status: 500,
            message: message.to_owned(),
            kind: "server_error",
            param: None,
            code: Some("gateway_misconfigured"),
        }
    }

    /// The reply to send.
    pub fn reply(&self) -> Reply {
        Reply {
            status: self.status,
            headers: vec![json_type()],
            body: envelope(&self.message, self.kind, self.param, self.code),
        }
    }
}

/// The envelope for a reply that the gateway made itself, by its status: Envoy after the filter let the request go (most of its
/// own replies come sooner; `local_reply_config` in `envoy/listeners.yaml` puts those into the envelope), APISIX also before.
pub fn of_gateway(status: u16) -> Reply {
    let (kind, code, message) = match status {
        401 | 403 => (INVALID, "invalid_api_key", "The gateway does not accept this API key"),
        405 => (INVALID, "method_not_allowed", "Method not allowed; use POST"),
        429 => ("rate_limit_error", "rate_limit_exceeded", "The gateway limits how much is asked of it"),
        400..=499 => (INVALID, "gateway_refused", "The gateway refused the request"),
        _ => ("server_error", "gateway_unavailable", "The gateway could not serve the request"),
    };
    Reply { status, headers: vec![json_type()], body: envelope(message, kind, None, Some(code)) }
}

/// The envelope for a provider's error, whatever it looked like. `fallback` is the status that the client sees.
pub fn error_envelope(error: &ErrorBody, fallback: u16, key: &str) -> Vec<u8> {
    let kind = match (error.kind.as_str(), fallback) {
        ("" | "error", 429) => "rate_limit_error",
        ("" | "error", 400..=499) => INVALID,
        ("" | "error", _) => "server_error",
        (kind, _) => kind,
    };
    let message = match error.message.as_str() {
        "" => format!("The provider answered with status {fallback} and did not say why"),
        message => redact(message, key),
    };
    let clean = |text: &str| redact(text, key);
    let code = Some(clean(&error.code)).filter(|code| !code.is_empty());
    let param = error.param.as_deref().map(clean);
    envelope(&message, &clean(kind), param.as_deref(), code.as_deref())
}

/// Whether a body is OpenAI's envelope already, with nothing in it that looks like a key, in whatever field.
pub fn is_envelope(body: &[u8], key: &str) -> bool {
    let Some(text) = json::object(body) else { return false };
    // Letters that are written with escapes could be a key's.
    if text.contains("\\u00") || redact(text, key) != text {
        return false;
    }
    let [error] = fields(text, &["error"]);
    let texts = fields(error.value().unwrap_or_default(), &["message", "type", "param", "code"]);
    let [message, kind, ..] = texts;
    let clean = |raw: &Raw<'_>| match raw.0 {
        Some("null") => true,
        // One that cannot be decoded, or is no text, is not as it should be.
        Some(_) => raw.text().is_some_and(|text| redact(&text, key) == *text),
        None => false,
    };
    message.is_filled() && kind.is_filled() && texts.iter().all(clean)
}

/// A shorter key is a placeholder, and may be a word of any text.
const MIN_KEY_LEN: usize = 8;

/// Whether a provider's `key` stands in these bytes.
pub fn contains_key(bytes: &[u8], key: &str) -> bool {
    key.len() >= MIN_KEY_LEN && bytes.windows(key.len()).any(|part| part == key.as_bytes())
}

/// A provider's text without anything that could be a key: `key`, which is the provider's, and words that look like one.
pub fn redact(text: &str, key: &str) -> String {
    const GONE: &str = "[redacted]";
    let text = if key.len() >= MIN_KEY_LEN { text.replace(key, GONE) } else { text.to_owned() };
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '*' | '.');
    let looks_like_a_key = |word: &str| {
        let known = ["sk-", "sk_", "pk-", "rk-", "key-", "gsk_", "xai-", "AIza"];
        word.len() >= 12 && known.iter().any(|start| word.starts_with(start))
    };
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at_checked(start).unwrap_or((rest, ""));
        let end = from.find(|letter| !is_part(letter)).unwrap_or(from.len());
        let (word, after) = from.split_at_checked(end).unwrap_or((from, ""));
        clean.extend([before, if looks_like_a_key(word) { GONE } else { word }]);
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// The `content-type` of every reply.
pub fn json_type() -> (&'static str, String) {
    ("content-type", "application/json".to_owned())
}

/// The event that ends a stream which broke off after it had begun: typed, so that no client takes the answer for whole.
pub fn broken_stream_event(provider: &str) -> Vec<u8> {
    let message = format!("The answer of {provider} broke off before it was finished");
    let body = envelope(&message, "server_error", None, Some("stream_truncated"));
    [b"data: ", body.as_slice(), b"\n\n"].concat()
}

/// The same for the Responses API, whose error events have no envelope. `number` counts the events before it.
pub fn broken_response_event(provider: &str, number: u64) -> Vec<u8> {
    let message = format!("The answer of {provider} broke off before it was finished");
    let message = serde_json::Value::from(message);
    let body = format!(
        "{{\"type\":\"error\",\"code\":\"stream_truncated\",\"message\":{message},\"param\":null,\
         \"sequence_number\":{number}}}"
    );
    ["event: error\ndata: ", &body, "\n\n"].concat().into_bytes()
}

/// The event by which a stream tells of its provider's error.
pub fn error_event(error: &ErrorBody, key: &str) -> Vec<u8> {
    [b"data: ", error_envelope(error, 500, key).as_slice(), b"\n\n"].concat()
}

/// Text that can stand in a header or a message: visible ASCII and spaces, of limited length.
pub fn printable(text: &str) -> String {
    const MAX_LEN: usize = 200;
    text.chars()
        .take(MAX_LEN)
        .map(|character| if character.is_ascii_graphic() || character == ' ' { character } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_its_four_fields_whatever_the_text() {
        let body = envelope("a \"b\"\n\u{1}é", "t", None, Some("c"));
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = json["error"].as_object().unwrap();
        assert_eq!(error.len(), 4);
        assert_eq!(error["message"], "a \"b\"\n\u{1}é");
        assert!(error["param"].is_null());
    }

    #[test]
    fn an_error_of_any_form_becomes_the_envelope() {
        for (body, message) in [
            (&br#"{"error":{"message":"m","type":"t"}}"#[..], "m"),
            (br#"{"detail":"d"}"#, "d"),
            (b"<html><head><title>502 Bad</title></head><body>\n<h1>Gateway</h1>", "502 Bad Gateway"),
            (b"upstream  said no\n", "upstream said no"),
            (b"", "The provider answered with status 400 and did not say why"),
            (b"[1]", "The provider answered with status 400 and did not say why"),
        ] {
            let made = error_envelope(&ErrorBody::read(body), 400, "");
            let json: serde_json::Value = serde_json::from_slice(&made).unwrap();
            assert_eq!(json["error"]["message"], message);
            assert!(is_envelope(&made, ""));
            assert!(!is_envelope(body, ""));
        }
    }

    #[test]
    fn what_looks_like_a_key_is_taken_out() {
        let key = "0123456789abcdef";
        let text = "Incorrect key: sk-proj-abc123***xyz9 (Bearer 0123456789abcdef), see sk-docs.";
        let clean = redact(text, key);
        assert_eq!(clean, "Incorrect key: [redacted] (Bearer [redacted]), see sk-docs.");
        assert!(!is_envelope(&envelope(text, "t", None, None), key));
        for error in [
            r#"{"message":"m","type":"t","param":null,"code":null,"metadata":{"raw":"KEY"}}"#,
            r#"{"message":"KEY","message":"m","type":"t","param":null,"code":null}"#,
            r#"{"message":"m","type":"t","param":null,"code":null},"debug":"Bearer KEY""#,
            r#"{"message":"m","type":"t","param":null,"code":null},"debug":"\u00306789abcdef""#,
        ] {
            let body = |key| format!(r#"{{"error":{}}}"#, error.replace("KEY", key));
            assert!(!is_envelope(body(key).as_bytes(), key), "{error}");
            assert_eq!(is_envelope(body("none").as_bytes(), key), !error.contains("\\u00"), "{error}");
        }
        let everywhere =
            ErrorBody { message: key.into(), kind: key.into(), code: key.into(), param: Some(key.into()) };
        let made = error_envelope(&everywhere, 400, key);
        assert!(is_envelope(&made, key), "{}", String::from_utf8_lossy(&made));
    }

    #[test]
    fn a_hostile_model_name_cannot_reach_a_header_line() {
        assert_eq!(printable("a\r\nx-evil: 1é"), "a??x-evil: 1?");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 200);
    }
}
