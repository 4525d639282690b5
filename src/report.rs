//! What the client sees of Shunt: errors in OpenAI's envelope, and the names of headers and codes, in one place.

use serde::Serialize;

use crate::outcome::Outcome;

/// Who answered.
pub const PROVIDER: &str = "x-shunt-provider";
/// The model that answered.
pub const MODEL: &str = "x-shunt-model";
/// Every attempt with its outcome: `openai:server_error,deepseek:answered`.
pub const ATTEMPTS: &str = "x-shunt-attempts";
/// Providers ahead in the plan that were left out, and why: `openai:open`.
pub const DEGRADED: &str = "x-shunt-degraded";
/// The policy that ordered the candidates.
pub const POLICY: &str = "x-shunt-policy";

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
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: Fields<'a>,
    }
    #[derive(Serialize)]
    struct Fields<'a> {
        message: &'a str,
        r#type: &'a str,
        param: Option<&'a str>,
        code: Option<&'a str>,
    }
    let envelope = Envelope { error: Fields { message, r#type: kind, param, code } };
    // Texts and nothing else: this cannot fail.
    serde_json::to_vec(&envelope).unwrap_or_default()
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

    /// A request option with a value that does not exist.
    pub fn option(name: &str, value: &str) -> Self {
        let message = format!("The header {name} cannot be {:?}", printable(value));
        Self::invalid(400, Some("invalid_option"), message)
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

/// The envelope for a reply that Envoy made itself after the filter let the request go, by its status. Most of Envoy's own
/// replies come sooner; `local_reply_config` in `envoy/listeners.yaml` puts those into the envelope.
pub fn of_gateway(status: u16) -> Reply {
    let (kind, code, message) = match status {
        405 => (INVALID, "method_not_allowed", "Method not allowed; use POST"),
        400..=499 => (INVALID, "gateway_refused", "The gateway refused the request"),
        _ => ("server_error", "gateway_unavailable", "The gateway could not serve the request"),
    };
    Reply { status, headers: vec![json_type()], body: envelope(message, kind, None, Some(code)) }
}

/// The envelope for an error that a provider sent as a success, and that is the client's to hear.
pub fn refusal(outcome: Outcome) -> Vec<u8> {
    let (code, message) = match outcome {
        Outcome::TooLong => ("context_length_exceeded", "The request is too long for the model's context"),
        _ => ("content_filter", "The provider's content filter refused the request"),
    };
    envelope(message, INVALID, None, Some(code))
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

/// Text that can stand in a header or a message: visible ASCII and spaces, of limited length.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars()
        .take(LONGEST)
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
    fn a_hostile_model_name_cannot_reach_a_header_line() {
        assert_eq!(printable("a\r\nx-evil: 1é"), "a??x-evil: 1?");
        assert_eq!(printable(&"x".repeat(10_000)).len(), 200);
    }
}
