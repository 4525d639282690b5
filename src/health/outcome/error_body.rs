//! Reads a provider's error body, whatever form the vendor gives it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::error_text::{details_text, visible_text};
use super::retry_after::duration;
use crate::bytes::ascii;

/// The parts of a vendor's error body that say what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `error.code`, also if it is a number; without one, Anthropic's `error.details.error_code`.
    pub code: String,
    /// `error.type`.
    pub kind: String,
    /// `error.message`.
    pub message: String,
    /// `error.param`: the request parameter that the error is about.
    pub param: Option<String>,
    /// What vendors say in other places. The client does not get it.
    pub hints: Box<Hints>,
}

/// What some vendors say of an error outside OpenAI's four fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Further codes: Google's `status` and the reasons in its `details`, OpenRouter's `metadata.error_type`, Azure's `innererror.code`.
    pub codes: Vec<String>,
    /// The HTTP status that NVIDIA and others write into `status`.
    pub status: Option<u16>,
    /// Whether OpenRouter's `metadata` says that a moderation flagged the input.
    pub is_flagged: bool,
    /// Whether the message was a list of faults of the request, each behind the name of its field, which may be a client's word.
    pub is_list: bool,
    /// How long Google asks not to be called, in `details`.
    pub retry_after: Option<Duration>,
    /// The error of the server behind this one, in OpenRouter's `metadata.raw`.
    pub cause: Option<Box<ErrorBody>>,
}

impl ErrorBody {
    /// Reads an error out of a JSON body: OpenAI's envelope, a bare object with `message` or `detail`, an `error` that is a
    /// text, or vLLM's `{"object": "error"}`. `None` if the body is not a JSON object or holds no error. An `error` without any
    /// text or number is none: some vendors send it beside a good answer.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        // Gemini puts its envelope into a list.
        if let Value::Array(list) = value {
            value =
                list.into_iter().next().filter(|first| first.get("error").is_some_and(Value::is_object))?;
        }
        let Value::Object(top) = value else { return None };
        match top.get("error").filter(|error| !is_blank(error)) {
            Some(Value::Object(error)) => Some(Self::from_fields(error)),
            Some(Value::String(text)) => {
                let mut error = Self::from_fields(&top);
                error.message.clone_from(text);
                Some(error)
            }
            None => {
                let is_bare_error = top.get("object").and_then(Value::as_str) == Some("error")
                    || (!top.contains_key("choices")
                        && (top.contains_key("message") || top.contains_key("detail")));
                is_bare_error.then(|| Self::from_fields(&top))
            }
            Some(_) => Some(Self::default()),
        }
    }

    /// Whether the JSON text of a field `error` reports one.
    pub fn is_reported(field: &str) -> bool {
        serde_json::from_slice(field.as_bytes()).map_or(true, |error| !is_blank(&error))
    }

    /// Reads an error out of any body: JSON, or the text of a page. A body that cannot be read is an error without a message.
    pub fn read(body: &[u8]) -> Self {
        Self::from_json(body).unwrap_or_else(|| Self { message: visible_text(body), ..Self::default() })
    }

    fn from_fields(fields: &Map<String, Value>) -> Self {
        let text = |key: &str| match fields.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        // FastAPI's `detail` is a list of validation errors, and Mistral sends such a list as `message`.
        let message_text = |key: &str| match fields.get(key) {
            Some(Value::Array(details)) => details_text(details),
            Some(Value::Object(object)) => serde_json::to_string(object).unwrap_or_default(),
            _ => text(key),
        };
        let (mut code, message) = (text("code"), message_text("message"));
        // Anthropic puts its code into `details`.
        let details = fields.get("details").and_then(|details| details.get("error_code"));
        if let (true, Some(Value::String(detail))) = (code.is_empty(), details) {
            code.clone_from(detail);
        }
        Self {
            code,
            kind: text("type"),
            message: if message.is_empty() { message_text("detail") } else { message },
            param: Some(text("param")).filter(|param| !param.is_empty()),
            hints: Box::new(Hints::of(fields)),
        }
    }

    /// Whether the code, the type or a further code is one of these. Capitals do not matter.
    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        let own = [&self.code, &self.kind].into_iter().chain(&self.hints.codes);
        own.into_iter().any(|own| codes.iter().any(|code| ascii::is_same(own, code)))
    }

    /// The HTTP status that some vendors write into `code` or `status`.
    pub(super) fn status(&self) -> Option<u16> {
        ascii::whole(&self.code).filter(is_error).or(self.hints.status)
    }
}

impl Hints {
    fn of(fields: &Map<String, Value>) -> Self {
        let is_list = ["message", "detail"].iter().any(|key| fields.get(*key).is_some_and(Value::is_array));
        let mut hints = Self { is_list, ..Self::default() };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        match fields.get("status") {
            Some(Value::String(word)) => hints.codes.push(word.clone()),
            status => {
                let number = status.and_then(Value::as_u64);
                hints.status = number.and_then(|number| number.try_into().ok()).filter(is_error);
            }
        }
        hints.codes.extend(text(fields.get("innererror").and_then(|inner| inner.get("code"))));
        for detail in fields.get("details").and_then(Value::as_array).into_iter().flatten() {
            hints.codes.extend(text(detail.get("reason")));
            let delay = detail.get("retryDelay").and_then(Value::as_str).and_then(duration);
            hints.retry_after = hints.retry_after.max(delay);
        }
        if let Some(metadata) = fields.get("metadata") {
            hints.codes.extend(text(metadata.get("error_type")));
            hints.is_flagged = ["reasons", "flagged_input"]
                .iter()
                .any(|key| metadata.get(key).is_some_and(|value| !is_blank(value)));
            hints.cause = match metadata.get("raw") {
                Some(Value::String(raw)) => Some(Box::new(ErrorBody::read(raw.as_bytes()))),
                _ => None,
            };
        }
        hints
    }
}

/// Whether a status is one of an error.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "for `Option::filter`")]
fn is_error(status: &u16) -> bool {
    (400..600).contains(status)
}

/// Whether a value holds no text, no truth and no number other than zero.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(is_blank),
        Value::Object(fields) => fields.values().all(is_blank),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_in_every_vendors_form() {
        for (body, code, message) in [
            (r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#, "c", "m"),
            (r#"{"error":{"message":"m","code":429}}"#, "429", "m"),
            (r#"{"error":"m"}"#, "", "m"),
            (r#"{"object":"error","message":"m","code":40}"#, "40", "m"),
            (r#"{"detail":"m"}"#, "", "m"),
            (r#"{"error":[1]}"#, "", ""),
            (r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#, "429", "m"),
            (r#"{"detail":[{"loc":["body"],"msg":"m"},7]}"#, "", "body: m; 7"),
            (r#"{"object":"error","message":{"detail":[]},"code":null}"#, "", r#"{"detail":[]}"#),
            (r#"{"code":"Arrearage","message":"m","request_id":"r"}"#, "Arrearage", "m"),
            (r#"{"type":"about:blank","status":402,"title":"Payment Required","detail":"m"}"#, "", "m"),
            (
                r#"{"object":"error","message":"m","type":"invalid_model","param":null,"code":"1500"}"#,
                "1500",
                "m",
            ),
            (r#"{"error":true}"#, "", ""),
            (r#"{"error":{"message":"","code":"c"}}"#, "c", ""),
            (r#"{"error":{},"message":"m"}"#, "", "m"),
        ] {
            let error = ErrorBody::from_json(body.as_bytes()).unwrap();
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message), "{body}");
        }
        for body in [
            "",
            "<html>",
            "[]",
            "[1]",
            r#"[{"choices":[]}]"#,
            r#"{"choices":[]}"#,
            r#"{"error":null,"choices":[]}"#,
            r#"{"error":{}}"#,
            r#"{"error":"","data":[]}"#,
            r#"{"error":[],"data":[]}"#,
            r#"{"error":false,"data":[]}"#,
            r#"{"error":{"message":"","code":null,"details":{"a":0}},"data":[]}"#,
        ] {
            assert_eq!(ErrorBody::from_json(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn what_stands_outside_openais_fields_is_read_as_hints() {
        let hints = |body: &str| ErrorBody::from_json(body.as_bytes()).unwrap().hints;
        let google = hints(
            r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"q","reason":"RATE_LIMIT_EXCEEDED"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.074824224s"}]}}]"#,
        );
        assert_eq!(google.codes, ["RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"]);
        assert_eq!(google.retry_after, Some(Duration::from_nanos(34_074_824_224)));
        for (delay, seconds) in
            [("34s", Some(34)), ("0s", Some(0)), ("1d", Some(86_400)), ("-1s", None), ("soon", None)]
        {
            let body = format!(r#"{{"error":{{"message":"m","details":[{{"retryDelay":"{delay}"}}]}}}}"#);
            assert_eq!(hints(&body).retry_after, seconds.map(Duration::from_secs), "{delay}");
        }
        let flagged = hints(
            r#"{"error":{"code":403,"message":"m","metadata":{"reasons":["violence"],"flagged_input":"x","error_type":"t","raw":"{\"error\":{\"code\":\"c\"}}"}}}"#,
        );
        assert!(flagged.is_flagged);
        assert_eq!(flagged.codes, ["t"]);
        assert_eq!(flagged.cause.unwrap().code, "c");
        assert!(
            !hints(r#"{"error":{"message":"m","metadata":{"reasons":[],"flagged_input":""}}}"#).is_flagged
        );
        assert_eq!(hints(r#"{"error":{"message":"m","innererror":{"code":"c"}}}"#).codes, ["c"]);
        assert_eq!(hints(r#"{"status":402,"detail":"m"}"#).status, Some(402));
        for strange in [
            r#"{"error":{"message":"m","status":200,"details":7,"metadata":"x","innererror":[]}}"#,
            r#"{"error":{"message":"m","status":99999,"details":[7,{"reason":1,"retryDelay":{}}],"metadata":{"raw":{}}}}"#,
        ] {
            assert_eq!(*hints(strange), Hints::default(), "{strange}");
        }
    }

    #[test]
    fn the_first_message_of_a_truncated_error_is_read() {
        let long = "x".repeat(5000);
        let message = |body: &str| ErrorBody::read(body.as_bytes()).message;
        assert_eq!(message(&format!(r#"{{"error": {{"message" : "a \"b\"", "input": "{long}"#)), "a \"b\"");
        assert_eq!(
            message(&format!(
                r#"{{"detail":[{{"loc":["body"],"msg":"needed","input":{{"messages":[],"message":"{long}"#
            )),
            "needed"
        );
        assert_eq!(message(&format!(r#"{{"error":{{"message":"{long}"#)), "x".repeat(300));
        assert_eq!(message(r#"{"error":{"message":"never ends"#), "");
        assert_eq!(message(r#"{"error":{"message":7,"inp"#), "");
        assert_eq!(message(&format!(r#"{{"input":"{long}","message":"too late"#)), "");
    }
}
