//! The errors that clients get, in OpenAI's error envelope.

use super::redaction::redact;
use crate::bytes::json::{self, fields, quoted, Raw};
use crate::health::outcome::ErrorBody;

/// A complete response that the gateway itself sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, including `content-type`.
    pub headers: Vec<(&'static str, String)>,
    /// The body: OpenAI's error envelope, or other JSON.
    pub body: Vec<u8>,
}

/// OpenAI's error envelope: an object `error` with `message`, `type`, `param` and `code`.
pub fn envelope(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Vec<u8> {
    let text = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), quoted);
    let (message, kind, param, code) = (quoted(message), quoted(kind), text(param), text(code));
    format!("{{\"error\":{{\"message\":{message},\"type\":{kind},\"param\":{param},\"code\":{code}}}}}")
        .into_bytes()
}

/// The reason why the gateway rejects a request before it contacts a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status.
    pub status: u16,
    /// `error.message`.
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

    /// No route matches the path.
    pub fn path(method: &str, path: &str) -> Self {
        let message = format!("Invalid URL ({} {})", printable(method), printable(path));
        Self::invalid(404, Some("unknown_url"), message)
    }

    /// A route matches the path, but routes only accept POST.
    pub fn method(method: &str, path: &str) -> Self {
        let message = format!("Method not allowed: {} {}; use POST", printable(method), printable(path));
        Self::invalid(405, Some("method_not_allowed"), message)
    }

    /// The body is not a valid JSON object. `what` is the parser's message.
    pub fn body(what: &str) -> Self {
        Self::invalid(400, Some("invalid_json"), format!("The body of the request is not valid JSON: {what}"))
    }

    /// The request has no body at all.
    pub fn no_body() -> Self {
        Self::invalid(400, Some("invalid_json"), "The request has no body; expected a JSON object".to_owned())
    }

    /// `model` is missing, empty or not a string.
    pub fn no_model() -> Self {
        let message = "You must provide a model parameter: a string that is not empty".to_owned();
        Self { param: Some("model"), ..Self::invalid(400, None, message) }
    }

    /// `stream` is not true, false or null.
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

    /// The body exceeds the limit.
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

    /// The request cannot be translated into the format of any candidate.
    pub fn unsupported(why: &str) -> Self {
        Self::invalid(400, Some("unsupported_parameter"), why.to_owned())
    }

    /// The query has a key. Neither its name nor its value is repeated.
    #[cold]
    #[inline(never)]
    pub fn key_in_query() -> Self {
        let message = "Send the API key in the header authorization, not in the query".to_owned();
        Self::invalid(400, Some("api_key_in_query"), message)
    }

    /// A request header of Shunt has a value that does not exist.
    pub fn option(name: &str, value: &str) -> Self {
        let message = format!("The header {name} cannot be {:?}", printable(value));
        Self::invalid(400, Some("invalid_option"), message)
    }

    /// Every candidate's price is above the route's cap.
    pub fn price_cap() -> Self {
        let message = "No provider serves this request within the prices that its route allows".to_owned();
        Self::invalid(400, Some("price_cap_exceeded"), message)
    }

    /// A budget refuses responses in the background.
    pub fn background(budget: &str) -> Self {
        let why = " takes no background responses, because their cost is not known when they are accepted";
        let message = ["The budget ", budget, why].concat();
        Self { param: Some("background"), ..Self::invalid(400, Some("background_refused"), message) }
    }

    /// The scores in the request are invalid, so none was stored.
    pub fn scores(problems: &str) -> Self {
        Self::invalid(400, Some("invalid_scores"), ["No score was replaced. ", problems].concat())
    }

    /// Other workers won every race to write a score.
    pub fn contended() -> Self {
        let message = "Some of the scores were replaced, and others not; send them again".to_owned();
        Self { kind: "server_error", ..Self::invalid(503, Some("contended"), message) }
    }

    /// The request does not carry the gateway's own token.
    pub fn token() -> Self {
        let message = "This path needs the gateway's own token in the header authorization".to_owned();
        Self::invalid(401, Some("invalid_api_key"), message)
    }

    /// The gateway's own configuration is wrong, so it cannot serve the request.
    #[cold]
    #[inline(never)]
    pub fn misconfigured(message: &str) -> Self {
        Self {
            status: 500,
            message: message.to_owned(),
            kind: "server_error",
            param: None,
            code: Some("gateway_misconfigured"),
        }
    }

    /// The response to send.
    pub fn reply(&self) -> Reply {
        Reply {
            status: self.status,
            headers: vec![json_type()],
            body: envelope(&self.message, self.kind, self.param, self.code),
        }
    }
}

/// The envelope for a response that the gateway itself generated, chosen by its status. On Envoy it is used for local replies that
/// come after the filter has forwarded the request (earlier ones get their envelope from `local_reply_config` in
/// `envoy/listeners.yaml`), on APISIX also for earlier ones.
pub fn of_gateway(status: u16) -> Reply {
    let (kind, code, message) = match status {
        401 | 403 => (INVALID, "invalid_api_key", "The gateway does not accept this API key"),
        405 => (INVALID, "method_not_allowed", "Method not allowed; use POST"),
        411 => (INVALID, "length_required", "Over HTTP/2 and HTTP/3 a request needs a content-length here"),
        429 => ("rate_limit_error", "rate_limit_exceeded", "The rate limit of the gateway is exceeded"),
        400..=499 => (INVALID, "gateway_refused", "The gateway refused the request"),
        _ => ("server_error", "gateway_unavailable", "The gateway could not serve the request"),
    };
    Reply { status, headers: vec![json_type()], body: envelope(message, kind, None, Some(code)) }
}

/// The envelope for a provider's error of any form, without the provider's `key`. `fallback` is the status that the client sees; it
/// supplies the type and the message if the provider gave none.
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

/// Whether a body is already OpenAI's envelope, and no field of it contains anything that looks like a key.
pub fn is_envelope(body: &[u8], key: &str) -> bool {
    let Some(text) = json::object(body) else { return false };
    // A key could be hidden in escaped letters.
    if text.contains("\\u00") || redact(text, key) != text {
        return false;
    }
    let [error] = fields(text, &["error"]);
    let texts = fields(error.value().unwrap_or_default(), &["message", "type", "param", "code"]);
    let [message, kind, ..] = texts;
    let clean = |raw: &Raw<'_>| match raw.0 {
        Some("null") => true,
        // A field that is not a string, or that cannot be decoded, is not OpenAI's form.
        Some(_) => raw.text().is_some_and(|text| redact(&text, key) == *text),
        None => false,
    };
    message.is_filled() && kind.is_filled() && texts.iter().all(clean)
}

/// The `content-type` header of JSON responses.
pub fn json_type() -> (&'static str, String) {
    ("content-type", "application/json".to_owned())
}

/// The error event that ends a stream which broke off after content was sent, so that no client takes the answer for complete.
pub fn broken_stream_event(provider: &str) -> Vec<u8> {
    let message = format!("The answer of {provider} broke off before it was finished");
    let body = envelope(&message, "server_error", None, Some("stream_truncated"));
    [b"data: ", body.as_slice(), b"\n\n"].concat()
}

/// A stream of the Responses API, as far as its last event names it.
#[derive(Clone, Copy, Debug)]
pub struct BrokenResponse<'a> {
    /// The `id` of the response.
    pub id: &'a str,
    /// Its `created_at`.
    pub created: u64,
    /// The model.
    pub model: &'a str,
    /// The sequence number of the event.
    pub number: u64,
}

/// The same for the Responses API: `response.failed`. The official clients hand this event to their caller and raise nothing, unless
/// the event itself has an `error`; so it has one, in the form that these clients raise with its message and code.
pub fn broken_response_event(provider: &str, response: BrokenResponse<'_>) -> Vec<u8> {
    let message = ["The answer of ", provider, " broke off before it was finished"].concat();
    let BrokenResponse { id, created, model, number } = response;
    let error = envelope(&message, "server_error", None, Some("stream_truncated"));
    // The envelope is an object, of which the event takes over the one field.
    let error = String::from_utf8_lossy(error.get(1..).unwrap_or_default());
    [
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":",
        &number.to_string(),
        ",\"response\":{\"id\":",
        &quoted(id),
        ",\"object\":\"response\",\"created_at\":",
        &created.to_string(),
        ",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":",
        &quoted(&message),
        "},\"incomplete_details\":null,\"instructions\":null,\"metadata\":{},\"model\":",
        &quoted(model),
        ",\"output\":[],\"parallel_tool_calls\":true,\"temperature\":null,\"tool_choice\":\"auto\",\"tools\":[],\
         \"top_p\":null,\"usage\":null},",
        &error,
        "\n\n",
    ]
    .concat()
    .into_bytes()
}

/// The event that reports a provider's error within a stream.
pub fn error_event(error: &ErrorBody, key: &str) -> Vec<u8> {
    [b"data: ", error_envelope(error, 500, key).as_slice(), b"\n\n"].concat()
}

/// The text made safe for a header or a message: visible ASCII and spaces, other characters as `?`, at most 200 of them.
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
    fn an_envelope_has_all_four_fields_and_escapes_any_text() {
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
    fn a_response_that_broke_off_ends_with_one_event_that_every_client_takes_for_an_error() {
        let response = BrokenResponse { id: "resp_\"1", created: 7, model: "m\n", number: 12 };
        let event = String::from_utf8(broken_response_event("a", response)).unwrap();
        let data = event.strip_prefix("event: response.failed\ndata: ").unwrap();
        assert_eq!(data.find('\n'), Some(data.len() - 2));
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!((&json["type"], &json["sequence_number"]), (&"response.failed".into(), &12.into()));
        let response = &json["response"];
        assert_eq!(
            (&response["id"], &response["created_at"], &response["model"]),
            (&"resp_\"1".into(), &7.into(), &"m\n".into())
        );
        assert_eq!(
            (&response["status"], &response["error"]["code"]),
            (&"failed".into(), &"server_error".into())
        );
        let error = &json["error"];
        assert_eq!((&error["code"], &error["type"]), (&"stream_truncated".into(), &"server_error".into()));
        assert_eq!(error["message"], response["error"]["message"]);
    }

    #[test]
    fn text_that_looks_like_a_key_is_redacted() {
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
        let everywhere = ErrorBody {
            message: key.into(),
            kind: key.into(),
            code: key.into(),
            param: Some(key.into()),
            ..ErrorBody::default()
        };
        let made = error_envelope(&everywhere, 400, key);
        assert!(is_envelope(&made, key), "{}", String::from_utf8_lossy(&made));
    }

    #[test]
    fn a_hostile_model_name_cannot_reach_a_header_line() {
        assert_eq!(printable("a\r\nx-evil: 1é"), "a??x-evil: 1?");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 200);
    }
}
