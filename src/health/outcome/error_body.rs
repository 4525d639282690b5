//! Reads a provider's error body, whatever form the vendor gives it.

use serde_json::{Map, Value};

use super::error_text::{details_text, visible_text};

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
}

impl ErrorBody {
    /// Reads an error out of a JSON body: OpenAI's envelope, a bare object with `message` or `detail`, an `error` that is a
    /// text, or vLLM's `{"object": "error"}`. `None` if the body is not a JSON object or holds no error.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        // Gemini puts its envelope into a list.
        if let Value::Array(list) = value {
            value =
                list.into_iter().next().filter(|first| first.get("error").is_some_and(Value::is_object))?;
        }
        let Value::Object(top) = value else { return None };
        match top.get("error") {
            Some(Value::Object(error)) => Some(Self::from_fields(error)),
            Some(Value::String(text)) => {
                let mut error = Self::from_fields(&top);
                error.message.clone_from(text);
                Some(error)
            }
            Some(Value::Null) | None => {
                let is_bare_error = top.get("object").and_then(Value::as_str) == Some("error")
                    || (!top.contains_key("choices")
                        && (top.contains_key("message") || top.contains_key("detail")));
                is_bare_error.then(|| Self::from_fields(&top))
            }
            Some(_) => Some(Self::default()),
        }
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
            Some(value @ Value::Object(_)) => value.to_string(),
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
        }
    }

    /// Whether the code or the type is one of these.
    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.code == *code || self.kind == *code)
    }

    /// Whether the message contains one of these phrases.
    pub(super) fn has_phrase(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.message.contains(phrase))
    }

    /// The HTTP status that some vendors write into `code`.
    pub(super) fn status(&self) -> Option<u16> {
        self.code.parse().ok().filter(|status| (400..600).contains(status))
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
        ] {
            assert_eq!(ErrorBody::from_json(body.as_bytes()), None, "{body}");
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
