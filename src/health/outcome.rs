//! What an attempt came to: a status, an error code and the start of a body become one [`Outcome`].
//!
//! This is the only file that reads a status. Everything that follows (breaker, hold, next candidate, header, log)
//! reads the outcome. The vendors' codes are data here, with the vendor named beside them.

mod error_text;

use std::time::Duration;

use serde_json::Value;

use crate::base::clock::{days_from_civil, parse_duration, Timestamp};
use error_text::{details_text, visible_text};

/// What one try at one provider came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A 2xx with content.
    Answered,
    /// The provider failed: a 5xx, a timeout status, a redirect, a 2xx without a usable answer.
    ServerError,
    /// The provider says that it has too much to do. Trying it again at once makes it worse.
    Overloaded,
    /// No answer to read: refused, reset, TLS, DNS, no healthy host.
    Unreachable,
    /// No content within the limit, whatever else it sent.
    TooSlow,
    /// The answer broke off: no finish reason, or the connection ended within it.
    Truncated,
    /// Too many requests for this key; better later.
    RateLimited,
    /// No money or no quota; later does not help.
    OutOfQuota,
    /// The provider refuses our key.
    BadKey,
    /// The provider does not have this model (or this path).
    NoSuchModel,
    /// The conversation does not fit the model's context.
    TooLong,
    /// The provider's content filter refused the request.
    Refused,
    /// The request itself is wrong: every provider would say so.
    BadRequest,
    /// The client left. Nobody's failure.
    ClientGone,
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Answered,
        Self::ServerError,
        Self::Overloaded,
        Self::Unreachable,
        Self::TooSlow,
        Self::Truncated,
        Self::RateLimited,
        Self::OutOfQuota,
        Self::BadKey,
        Self::NoSuchModel,
        Self::TooLong,
        Self::Refused,
        Self::BadRequest,
        Self::ClientGone,
    ];

    /// The name in headers, messages and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ServerError => "server_error",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::TooSlow => "too_slow",
            Self::Truncated => "truncated",
            Self::RateLimited => "rate_limited",
            Self::OutOfQuota => "out_of_quota",
            Self::BadKey => "bad_key",
            Self::NoSuchModel => "no_such_model",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
            Self::BadRequest => "bad_request",
            Self::ClientGone => "client_gone",
        }
    }

    /// What the outcome means for the provider's record.
    pub const fn effect(self) -> Effect {
        match self {
            Self::Answered => Effect::Success,
            Self::ServerError | Self::Overloaded | Self::Unreachable | Self::TooSlow | Self::Truncated => {
                Effect::Failure
            }
            Self::RateLimited => Effect::Hold(HoldReason::RateLimited),
            Self::OutOfQuota => Effect::Hold(HoldReason::OutOfQuota),
            Self::BadKey => Effect::Hold(HoldReason::BadKey),
            Self::NoSuchModel => Effect::HoldModel,
            Self::TooLong | Self::Refused | Self::BadRequest | Self::ClientGone => Effect::Neutral,
        }
    }

    /// Whether the same request may do better a little later. Decides `x-should-retry` when every provider failed.
    pub const fn passes(self) -> bool {
        match self {
            Self::ServerError
            | Self::Overloaded
            | Self::Unreachable
            | Self::TooSlow
            | Self::Truncated
            | Self::RateLimited => true,
            Self::Answered
            | Self::OutOfQuota
            | Self::BadKey
            | Self::NoSuchModel
            | Self::TooLong
            | Self::Refused
            | Self::BadRequest
            | Self::ClientGone => false,
        }
    }
}

/// What an outcome does to the provider's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Counts as a success; closes a half-open breaker.
    Success,
    /// Counts as a failure; opens or re-opens the breaker.
    Failure,
    /// Sets the provider aside for a time. Not a failure: the provider works.
    Hold(HoldReason),
    /// Sets the provider aside for this model only.
    HoldModel,
    /// Says nothing about the provider.
    Neutral,
}

/// Why a provider is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// 429.
    RateLimited,
    /// 402 or a billing code.
    OutOfQuota,
    /// 401 or 403.
    BadKey,
}

impl HoldReason {
    /// The name in headers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RateLimited => Outcome::RateLimited.name(),
            Self::OutOfQuota => Outcome::OutOfQuota.name(),
            Self::BadKey => Outcome::BadKey.name(),
        }
    }
}

/// An outcome with what else the response said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it came to.
    pub outcome: Outcome,
    /// The provider's status; `None` if there was no response.
    pub status: Option<u16>,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    /// A verdict without a response.
    pub const fn without_response(outcome: Outcome) -> Self {
        Self { outcome, status: None, retry_after: None }
    }
}

/// The part of a vendor's error body that matters, whatever its form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `error.code`, as text also when it was a number; else Anthropic's `error.details.error_code`.
    pub code: String,
    /// `error.type`.
    pub kind: String,
    /// `error.message`.
    pub message: String,
    /// `error.param`.
    pub param: Option<String>,
}

impl ErrorBody {
    /// Reads an error out of a JSON body: OpenAI's envelope, a bare object with `message` or `detail`, an error that is
    /// only a text, or vLLM's `{"object": "error"}`. `None` if the body is no JSON object or holds no error.
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
                let bare = top.get("object").and_then(Value::as_str) == Some("error")
                    || (!top.contains_key("choices")
                        && (top.contains_key("message") || top.contains_key("detail")));
                bare.then(|| Self::from_fields(&top))
            }
            Some(_) => Some(Self::default()),
        }
    }

    /// Reads an error out of any body: JSON, or the text of a page. What cannot be read is an error without a message.
    pub fn read(body: &[u8]) -> Self {
        Self::from_json(body).unwrap_or_else(|| Self { message: visible_text(body), ..Self::default() })
    }

    fn from_fields(fields: &serde_json::Map<String, Value>) -> Self {
        let text = |key: &str| match fields.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        // FastAPI's `detail` is a list of what is wrong, and Mistral puts that into `message`.
        let words = |key: &str| match fields.get(key) {
            Some(Value::Array(details)) => details_text(details),
            Some(value @ Value::Object(_)) => value.to_string(),
            _ => text(key),
        };
        let (mut code, message) = (text("code"), words("message"));
        // Anthropic's place for it.
        let details = fields.get("details").and_then(|details| details.get("error_code"));
        if let (true, Some(Value::String(detail))) = (code.is_empty(), details) {
            code.clone_from(detail);
        }
        Self {
            code,
            kind: text("type"),
            message: if message.is_empty() { words("detail") } else { message },
            param: Some(text("param")).filter(|param| !param.is_empty()),
        }
    }

    fn named(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.code == *name || self.kind == *name)
    }

    /// OpenAI's for a stored object that the request names: `"param": "input"`, or only words.
    fn is_about_stored(&self) -> bool {
        match self.param.as_deref() {
            None | Some("") => STORED_IN_WORDS.iter().any(|words| self.message.contains(words)),
            Some(param) => param != "model",
        }
    }

    /// The status that a vendor wrote into `code` as a number.
    fn status(&self) -> Option<u16> {
        self.code.parse().ok().filter(|status| (400..600).contains(status))
    }
}

/// OpenAI's billing codes, and the words other vendors use for an empty account.
const BILLING: [&str; 11] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    // Anthropic's: its 402, and two of its 429s.
    "billing_error",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
];
/// OpenAI's and Anthropic's words for "too much to do".
const OVERLOAD: [&str; 5] =
    ["server_is_overloaded", "slow_down", "overloaded", "overloaded_error", "engine_overloaded"];
const RATE: [&str; 2] = ["rate_limit_exceeded", "rate_limit_error"];
const TOO_LONG: [&str; 3] = ["context_length_exceeded", "string_above_max_length", "request_too_large"];
const FILTERED: [&str; 3] = ["content_filter", "content_policy_violation", "responsible_ai_policy_violation"];
const KEY: [&str; 4] = ["invalid_api_key", "account_deactivated", "authentication_error", "permission_error"];
const MODEL: [&str; 2] = ["model_not_found", "not_found_error"];
/// What DeepSeek and vLLM (the first), and Anthropic, say only in words.
const TOO_LONG_IN_WORDS: [&str; 3] = ["maximum context length", "prompt is too long", "exceed context limit"];
/// Anthropic's words for an empty account and for a limit that its owner set, both under 400.
const BILLING_IN_WORDS: [&str; 2] = ["credit balance is too low", "specified API usage limits"];
/// Gemini's and xAI's words for a key that they refuse, under 400.
const KEY_IN_WORDS: [&str; 2] = ["API key not valid", "Incorrect API key"];
/// OpenAI's words for a stored object that does not exist, under 404. Others say the same of a model.
const STORED_IN_WORDS: [&str; 4] =
    ["Conversation with id '", "Item with id '", "Prompt with id '", "esponse with id '"];
/// What the local backup listener in `envoy/` answers for a provider that has no healthy or resolvable host.
const NO_HOST: &str = "no_healthy_upstream";

/// The outcome of a response that is an error by its status.
///
/// Total: every status has an outcome. A 2xx asked of this function had no usable answer in it.
pub fn of_status(status: u16, error: &ErrorBody) -> Outcome {
    if let Some(outcome) = of_code(status, error) {
        return outcome;
    }
    match status {
        408 | 425 => Outcome::ServerError,
        503 | 529 => Outcome::Overloaded,
        429 => Outcome::RateLimited,
        402 => Outcome::OutOfQuota,
        401 | 403 => Outcome::BadKey,
        404 if error.is_about_stored() => Outcome::BadRequest,
        404 | 405 => Outcome::NoSuchModel,
        400..=499 => Outcome::BadRequest,
        // 1xx cannot be a final status, 2xx here had no answer, 3xx is never followed, 5xx and beyond failed.
        _ => Outcome::ServerError,
    }
}

/// The outcome of an error found inside an answer whose status was a success.
pub fn of_error_in_answer(error: &ErrorBody) -> Outcome {
    if let Some(outcome) = of_code(500, error) {
        return outcome;
    }
    match error.status() {
        // A number says who is at fault; only "your request is wrong" is not believed, since the status said 200.
        Some(status) => match of_status(status, &ErrorBody::default()) {
            Outcome::BadRequest => Outcome::ServerError,
            outcome => outcome,
        },
        None => Outcome::ServerError,
    }
}

/// Codes that mean the same under every status that can carry them.
fn of_code(status: u16, error: &ErrorBody) -> Option<Outcome> {
    if status < 400 {
        return None;
    }
    if error.code == NO_HOST {
        return Some(Outcome::Unreachable);
    }
    // An error inside an answer comes as a 500.
    let says =
        |words: &[&str]| matches!(status, 400 | 500) && words.iter().any(|word| error.message.contains(word));
    if error.named(&BILLING) || says(&BILLING_IN_WORDS) {
        return Some(Outcome::OutOfQuota);
    }
    if error.named(&OVERLOAD) {
        return Some(Outcome::Overloaded);
    }
    if error.named(&RATE) && (status == 429 || status == 500) {
        return Some(Outcome::RateLimited);
    }
    if error.named(&TOO_LONG) || says(&TOO_LONG_IN_WORDS) {
        return Some(Outcome::TooLong);
    }
    if error.named(&FILTERED) {
        return Some(Outcome::Refused);
    }
    if error.named(&KEY) || says(&KEY_IN_WORDS) {
        return Some(Outcome::BadKey);
    }
    // DeepSeek's 400 for a model that it does not have.
    if error.named(&MODEL) || (status == 400 && error.message.contains("Model Not Exist")) {
        return Some(Outcome::NoSuchModel);
    }
    None
}

/// How long a provider asks to be left alone; `None` if it did not say, or not in a form that can be read. `header` reads a header of
/// its response: `retry-after-ms`, which is OpenAI's and Azure's finer form; `retry-after`, seconds, also with a fraction, or an HTTP
/// date; or the longer one of `x-ratelimit-reset-requests` and `-tokens`, durations such as `1m3s`.
pub fn retry_after(header: &dyn Fn(&str) -> Option<String>, now: Timestamp) -> Option<Duration> {
    if let Some(ms) = header("retry-after-ms").and_then(|text| text.trim().parse::<u64>().ok()) {
        return Some(Duration::from_millis(ms));
    }
    if let Some(wait) = header("retry-after").and_then(|text| parse_retry_after(text.trim(), now)) {
        return Some(wait);
    }
    let resets = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"].map(header);
    resets.iter().flatten().filter_map(|text| parse_duration(text.trim()).ok()).max()
}

fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = serde_json::from_str::<f64>(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    http_date(text).map(|at| at.since(now))
}

/// Reads the preferred form of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let (_weekday, day, month, year, time, zone) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let day: i64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let year: i64 = year.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = time.split(':').map(|part| part.parse::<i64>().ok().filter(|n| (0..=60).contains(n)));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds).ok().map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> ErrorBody {
        ErrorBody { code: code.to_owned(), ..ErrorBody::default() }
    }

    #[test]
    fn every_status_has_the_outcome_of_the_table() {
        for (statuses, outcome) in [
            (&[500, 501, 502, 504, 520, 530, 408, 425, 301, 302, 307, 204, 599][..], Outcome::ServerError),
            (&[503, 529], Outcome::Overloaded),
            (&[429], Outcome::RateLimited),
            (&[402], Outcome::OutOfQuota),
            (&[401, 403], Outcome::BadKey),
            (&[404, 405], Outcome::NoSuchModel),
            (&[400, 409, 413, 415, 418, 422], Outcome::BadRequest),
        ] {
            for status in statuses {
                assert_eq!(of_status(*status, &ErrorBody::default()), outcome, "{status}");
            }
        }
    }

    #[test]
    fn a_404_about_something_else_than_the_model_is_the_requests_own() {
        for (param, message, outcome) in [
            (Some("input"), "Item with id 'msg_1' not found.", Outcome::BadRequest),
            (None, "Conversation with id 'conv_1' not found.", Outcome::BadRequest),
            (Some("model"), "No model with id 'm'.", Outcome::NoSuchModel),
            (None, "Model with id 'm' not found.", Outcome::NoSuchModel),
            (Some(""), "Not Found", Outcome::NoSuchModel),
            (None, "", Outcome::NoSuchModel),
        ] {
            let param = param.map(str::to_owned);
            let error = ErrorBody { param, message: message.to_owned(), ..ErrorBody::default() };
            assert_eq!(of_status(404, &error), outcome, "{error:?}");
        }
    }

    #[test]
    fn a_code_says_more_than_its_status() {
        for (status, code, outcome) in [
            (429, "insufficient_quota", Outcome::OutOfQuota),
            (429, "project_spend_limit_exceeded", Outcome::OutOfQuota),
            (429, "rate_limit_exceeded", Outcome::RateLimited),
            (429, "slow_down", Outcome::Overloaded),
            (500, "server_is_overloaded", Outcome::Overloaded),
            (400, "context_length_exceeded", Outcome::TooLong),
            (400, "content_filter", Outcome::Refused),
            (400, "model_not_found", Outcome::NoSuchModel),
            (503, "no_healthy_upstream", Outcome::Unreachable),
            (400, "something_else", Outcome::BadRequest),
        ] {
            assert_eq!(of_status(status, &error(code)), outcome, "{status} {code}");
        }
    }

    #[test]
    fn an_error_inside_a_200_is_the_servers_unless_its_code_is_known() {
        for (code, outcome) in [
            ("", Outcome::ServerError),
            ("invalid_request", Outcome::ServerError),
            ("400", Outcome::ServerError),
            ("429", Outcome::RateLimited),
            ("503", Outcome::Overloaded),
            ("insufficient_quota", Outcome::OutOfQuota),
            ("overloaded", Outcome::Overloaded),
        ] {
            assert_eq!(of_error_in_answer(&error(code)), outcome, "{code}");
        }
    }

    #[test]
    fn a_key_that_is_refused_under_400_is_not_the_clients_mistake() {
        for body in [
            r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: x."}"#,
        ] {
            let error = ErrorBody::from_json(body.as_bytes()).unwrap();
            assert_eq!(of_status(400, &error), Outcome::BadKey, "{body}");
        }
    }

    #[test]
    fn anthropics_errors_come_to_what_they_are_by_status_and_within_a_stream() {
        let long = "prompt is too long: 214031 tokens > 200000 maximum";
        let both = "input length and `max_tokens` exceed context limit: 180000 + 32000 > 200000";
        let broke = "Your credit balance is too low to access the Anthropic API.";
        let limit = "You have reached your specified API usage limits.";
        for (status, kind, message, by_status, in_stream) in [
            (400, "invalid_request_error", "no", Outcome::BadRequest, Outcome::ServerError),
            (400, "invalid_request_error", long, Outcome::TooLong, Outcome::TooLong),
            (400, "invalid_request_error", both, Outcome::TooLong, Outcome::TooLong),
            (400, "invalid_request_error", broke, Outcome::OutOfQuota, Outcome::OutOfQuota),
            (400, "invalid_request_error", limit, Outcome::OutOfQuota, Outcome::OutOfQuota),
            (401, "authentication_error", "x", Outcome::BadKey, Outcome::BadKey),
            (402, "billing_error", "x", Outcome::OutOfQuota, Outcome::OutOfQuota),
            (403, "permission_error", "x", Outcome::BadKey, Outcome::BadKey),
            (404, "not_found_error", "model: claude-9", Outcome::NoSuchModel, Outcome::NoSuchModel),
            (413, "request_too_large", "x", Outcome::TooLong, Outcome::TooLong),
            (429, "rate_limit_error", "x", Outcome::RateLimited, Outcome::RateLimited),
            (500, "api_error", "x", Outcome::ServerError, Outcome::ServerError),
            (504, "timeout_error", "x", Outcome::ServerError, Outcome::ServerError),
            (529, "overloaded_error", "Overloaded", Outcome::Overloaded, Outcome::Overloaded),
        ] {
            let body = format!(
                r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"r"}}"#
            );
            let error = ErrorBody::from_json(body.as_bytes()).unwrap();
            assert_eq!(of_status(status, &error), by_status, "{status} {kind} {message}");
            assert_eq!(of_error_in_answer(&error), in_stream, "{kind} {message}");
        }
        let spent = br#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        assert_eq!(of_status(429, &ErrorBody::from_json(spent).unwrap()), Outcome::OutOfQuota);
    }

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
    fn of_an_error_that_was_cut_its_first_message_is_read() {
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

    const AFTER: &str = "retry-after";
    const REQUESTS: &str = "x-ratelimit-reset-requests";
    const TOKENS: &str = "x-ratelimit-reset-tokens";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn wait(headers: &[(&str, &str)], now: u64) -> Option<u64> {
        let header = |name: &str| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        retry_after(&header, Timestamp::from_millis(now)).map(crate::base::clock::millis)
    }

    #[test]
    fn when_to_come_back_is_read_in_every_form() {
        let now = 784_111_770_000; // Sun, 06 Nov 1994 08:49:30 GMT
        for (headers, millis) in [
            (&[(AFTER, "2"), (TOKENS, "1ms")][..], 2000),
            (&[(AFTER, "0.25")], 250),
            (&[(AFTER, DATE)], 7000),
            (&[(AFTER, "9"), ("retry-after-ms", "300")], 300),
            (&[(REQUESTS, "1m3s"), (TOKENS, "1ms")], 63_000),
            (&[(REQUESTS, "1ms"), (TOKENS, "1m3s")], 63_000),
            (&[(AFTER, "soon"), ("retry-after-ms", "-1"), (REQUESTS, "12ms")], 12),
        ] {
            assert_eq!(wait(headers, now), Some(millis), "{headers:?}");
        }
        for text in
            ["", "soon", "-1", "NaN", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(wait(&[(AFTER, text)], now), None, "{text}");
        }
        assert_eq!(wait(&[], now), None);
    }

    #[test]
    fn a_date_in_the_past_is_no_wait() {
        assert_eq!(wait(&[(AFTER, DATE)], 900_000_000_000), Some(0));
    }
}
