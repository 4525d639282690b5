//! The outcome of an attempt: a status, an error code and the start of a body become one [`Outcome`].
//!
//! | outcome         | recognised by                                          | what follows                                 | health record     |
//! | --------------- | ------------------------------------------------------ | -------------------------------------------- | ----------------- |
//! | `answered`      | 2xx with content                                       | the answer is delivered                      | success           |
//! | `server_error`  | 408, 425, 3xx, other 5xx; 2xx without a usable answer  | the same provider once more, then the next   | failure           |
//! | `overloaded`    | 498, 503, 529, an overload code                        | the next provider                            | failure           |
//! | `unreachable`   | no response: refused, reset, TLS, DNS, no healthy host | the next provider (1)                        | failure           |
//! | `too_slow`      | no content within the limit                            | the next provider                            | failure           |
//! | `truncated`     | no finish reason, or a connection that ends too early  | the next provider (2)                        | failure           |
//! | `garbled`       | a part of the answer that cannot be read               | the next provider (2)                        | failure           |
//! | `rate_limited`  | 429                                                    | the same after a short wait, or the next (3) | hold (3)          |
//! | `out_of_quota`  | 402, a billing code or phrase                          | the next provider                            | hold              |
//! | `bad_key`       | 401, 403, a key code or phrase                         | the next provider                            | hold (5)          |
//! | `no_such_model` | 404 about the model, 405, 410, a model code            | the next provider                            | model's hold (5)  |
//! | `too_long`      | a context-length code or phrase                        | the next provider with a larger context (4)  | unchanged         |
//! | `unwilling`     | 412, 423, 499                                          | the next provider                            | unchanged (5)     |
//! | `refused`       | a content-filter code                                  | the provider's error is delivered            | unchanged         |
//! | `bad_request`   | every other 4xx                                        | the provider's error is delivered (6)        | unchanged (5)     |
//! | `client_gone`   | the client closed its connection                       | nothing                                      | unchanged         |
//!
//! 1. The same provider is tried once more if the connection that broke had served a request before.
//! 2. Once a part of the answer is at the client, no other provider can be tried.
//! 3. The provider says in its headers how long to wait ([`retry_after()`]). If that fits `retry.wait`, the same provider is
//!    tried again. The hold is as long as the provider says, or `holds.rate_limited`.
//! 4. Then one with an unknown context. If there is none, the provider's error is delivered.
//! 5. A refusal that no list explains ([`Verdict::doubt`]) holds nobody by itself, but as evidence in a row of several, a model at one
//!    endpoint or the key (`breaker/evidence.rs`).
//! 6. If no list explains it, another provider is asked before (`exchange/second_opinion.rs`).
//!
//! A failure counts towards opening the provider's breaker, and a success closes a half-open breaker. A hold makes requests
//! skip the provider for a time, and does not count as a failure (`breaker.rs`). `exchange/retry.rs` does what the third column says.
//!
//! [`of_status`] is where the status of a provider's error gets its meaning. A code or phrase outweighs the status, because it
//! is more precise: a 429 with `insufficient_quota` is no rate limit. The vendors' codes and phrases are the lists below.

mod error_body;
mod error_text;
mod retry_after;

use std::time::Duration;

pub use error_body::ErrorBody;
pub use retry_after::retry_after;

/// How one attempt at one provider ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider answered: a 2xx with content.
    Answered,
    /// The provider failed: a 5xx, a timeout status, a redirect, or a 2xx without a usable answer.
    ServerError,
    /// The provider says that it has too much load. An immediate second attempt would make that worse.
    Overloaded,
    /// No response came: the connection was refused or reset, TLS or DNS failed, or no host is healthy.
    Unreachable,
    /// No content came within the limit, whatever else was sent.
    TooSlow,
    /// The answer is incomplete: it has no finish reason, or the connection ended within it.
    Truncated,
    /// A part of the answer cannot be read, so that what remains is not the answer.
    Garbled,
    /// This key has sent too many requests. It works again later.
    RateLimited,
    /// The account has no money or no quota left. Waiting does not help.
    OutOfQuota,
    /// The provider refuses our key.
    BadKey,
    /// The provider does not have this model, or this path.
    NoSuchModel,
    /// The conversation does not fit the model's context.
    TooLong,
    /// The provider refuses, and its status does not say whether because of the request or because of itself.
    Unwilling,
    /// The provider's content filter refused the request.
    Refused,
    /// The request itself is wrong: every provider would refuse it.
    BadRequest,
    /// The client left, which is no provider's failure.
    ClientGone,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 16] = [
        Self::Answered,
        Self::ServerError,
        Self::Overloaded,
        Self::Unreachable,
        Self::TooSlow,
        Self::Truncated,
        Self::Garbled,
        Self::RateLimited,
        Self::OutOfQuota,
        Self::BadKey,
        Self::NoSuchModel,
        Self::TooLong,
        Self::Unwilling,
        Self::Refused,
        Self::BadRequest,
        Self::ClientGone,
    ];

    /// The name in headers, messages, logs and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ServerError => "server_error",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::TooSlow => "too_slow",
            Self::Truncated => "truncated",
            Self::Garbled => "garbled",
            Self::RateLimited => "rate_limited",
            Self::OutOfQuota => "out_of_quota",
            Self::BadKey => "bad_key",
            Self::NoSuchModel => "no_such_model",
            Self::TooLong => "too_long",
            Self::Unwilling => "unwilling",
            Self::Refused => "refused",
            Self::BadRequest => "bad_request",
            Self::ClientGone => "client_gone",
        }
    }

    /// What the outcome changes in the provider's health record.
    pub const fn effect(self) -> Effect {
        match self {
            Self::Answered => Effect::Success,
            Self::ServerError
            | Self::Overloaded
            | Self::Unreachable
            | Self::TooSlow
            | Self::Truncated
            | Self::Garbled => Effect::Failure,
            Self::RateLimited => Effect::Hold(HoldReason::RateLimited),
            Self::OutOfQuota => Effect::Hold(HoldReason::OutOfQuota),
            Self::BadKey => Effect::Hold(HoldReason::BadKey),
            Self::NoSuchModel => Effect::HoldModel,
            Self::TooLong | Self::Unwilling | Self::Refused | Self::BadRequest | Self::ClientGone => {
                Effect::Neutral
            }
        }
    }

    /// Whether a refusal with this outcome, if no list explains it, holds a key or a model once several requests in a row had it.
    pub const fn needs_evidence(self) -> bool {
        matches!(self, Self::BadKey | Self::NoSuchModel | Self::Unwilling)
    }

    /// Whether the same request may succeed a little later. Decides `x-should-retry` when every provider failed.
    pub const fn is_temporary(self) -> bool {
        match self {
            Self::ServerError
            | Self::Overloaded
            | Self::Unreachable
            | Self::TooSlow
            | Self::Truncated
            | Self::Garbled
            | Self::RateLimited => true,
            Self::Answered
            | Self::OutOfQuota
            | Self::BadKey
            | Self::NoSuchModel
            | Self::TooLong
            | Self::Unwilling
            | Self::Refused
            | Self::BadRequest
            | Self::ClientGone => false,
        }
    }
}

/// What an outcome changes in the provider's health record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It counts as a success, and closes a half-open breaker.
    Success,
    /// It counts as a failure, and may open the breaker.
    Failure,
    /// It excludes the provider for a time. It is not a failure, because the provider works.
    Hold(HoldReason),
    /// It excludes the provider for this model only.
    HoldModel,
    /// It changes nothing, because it says nothing about the provider.
    Neutral,
}

/// Why a provider is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// See [`Outcome::RateLimited`].
    RateLimited,
    /// See [`Outcome::OutOfQuota`].
    OutOfQuota,
    /// See [`Outcome::BadKey`].
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

/// An outcome, with the status and the wait that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// The provider's status; `None` if there was no response.
    pub status: Option<u16>,
    /// How long the provider asks not to be called.
    pub retry_after: Option<Duration>,
    /// The refusal names no reason that is known: it may be about this request or about the provider. `None` if the outcome is certain.
    pub doubt: Option<Doubt>,
}

impl Verdict {
    /// A verdict that is certain, on an attempt whose provider did not ask for a wait.
    pub const fn certain(outcome: Outcome, status: Option<u16>) -> Self {
        Self { outcome, status, retry_after: None, doubt: None }
    }

    /// The verdict on an attempt that got no response.
    pub const fn without_response(outcome: Outcome) -> Self {
        Self::certain(outcome, None)
    }
}

/// A refusal for a reason that is not known, by what can be compared with other refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The error's code, or else its type: at most 64 printable bytes of it. Never the message, which may repeat the prompt.
    pub code: String,
}

impl Doubt {
    /// The most bytes of a code that are kept.
    const LONGEST_CODE: usize = 64;

    fn new(error: &ErrorBody) -> Self {
        let code = if error.code.is_empty() { &error.kind } else { &error.code };
        Self { code: code.chars().filter(char::is_ascii_graphic).take(Self::LONGEST_CODE).collect() }
    }
}

/// Whether an error with this status leaves open if it is about the request or about the provider: no code, type or phrase is known,
/// and the status has more than one meaning.
pub fn doubt(status: u16, error: &ErrorBody) -> Option<Doubt> {
    let has_one_meaning =
        !matches!(status, 400..=499) || matches!(status, 401 | 402 | 408 | 409 | 424 | 425 | 429);
    (!has_one_meaning && of_code(status, error).is_none()).then(|| Doubt::new(error))
}

/// The outcome of a response that is no answer. Call it for a 2xx only if its body has no usable answer.
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
        404 if is_about_stored_object(error) => Outcome::BadRequest,
        404 | 405 | 410 => Outcome::NoSuchModel,
        412 | 423 | 499 => Outcome::Unwilling,
        498 => Outcome::Overloaded,
        400..=499 => Outcome::BadRequest,
        // A 1xx is never final, a 2xx has no answer here, a 3xx is not followed, and a 5xx or more is a failure.
        _ => Outcome::ServerError,
    }
}

/// The outcome of an error that is found inside an answer with a 2xx status.
pub fn of_error_in_answer(error: &ErrorBody) -> Outcome {
    if let Some(outcome) = of_code(IN_ANSWER, error) {
        return outcome;
    }
    // Some vendors write a status into `code`. It says who is at fault, but "the request is wrong" is not believed: the
    // provider had accepted the request with a 2xx.
    match error.status().map(|status| of_status(status, &ErrorBody::default())) {
        None | Some(Outcome::BadRequest) => Outcome::ServerError,
        Some(outcome) => outcome,
    }
}

/// The status by which an error inside an answer is judged, since it has none of its own.
const IN_ANSWER: u16 = 500;

/// The outcome that an error's code, type or message names; `None` if the status must decide.
fn of_code(status: u16, error: &ErrorBody) -> Option<Outcome> {
    if status < 400 {
        return None;
    }
    if error.code == NO_HEALTHY_HOST {
        return Some(Outcome::Unreachable);
    }
    // Vendors that say it only in words do so under 400. Under another status the same words may mean something else.
    let has_phrase = |phrases: &[&str]| matches!(status, 400 | IN_ANSWER) && error.has_phrase(phrases);
    if error.has_code(&BILLING_CODES) || has_phrase(&BILLING_PHRASES) {
        return Some(Outcome::OutOfQuota);
    }
    if error.has_code(&OVERLOAD_CODES) {
        return Some(Outcome::Overloaded);
    }
    if error.has_code(&RATE_LIMIT_CODES) && matches!(status, 429 | IN_ANSWER) {
        return Some(Outcome::RateLimited);
    }
    if error.has_code(&TOO_LONG_CODES) || has_phrase(&TOO_LONG_PHRASES) {
        return Some(Outcome::TooLong);
    }
    if error.has_code(&CONTENT_FILTER_CODES) {
        return Some(Outcome::Refused);
    }
    if error.has_code(&KEY_CODES) || has_phrase(&KEY_PHRASES) {
        return Some(Outcome::BadKey);
    }
    if error.has_code(&MODEL_CODES) || (status == 400 && error.has_phrase(&MODEL_PHRASES)) {
        return Some(Outcome::NoSuchModel);
    }
    None
}

/// Whether a 404 is about an object that the provider stores and the request names, and not about the model. OpenAI says so in
/// `param` (`"input"`) or, without one, only in the message.
fn is_about_stored_object(error: &ErrorBody) -> bool {
    match error.param.as_deref() {
        None | Some("") => error.has_phrase(&STORED_OBJECT_PHRASES),
        Some(param) => param != "model",
    }
}

const BILLING_CODES: [&str; 11] = [
    // OpenAI's.
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    // Other vendors' code for an empty account.
    "insufficient_balance",
    // Anthropic's: the first comes with a 402, the others with a 429.
    "billing_error",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
];
/// Anthropic's, for an empty account and for a limit that the account's owner set.
const BILLING_PHRASES: [&str; 2] = ["credit balance is too low", "specified API usage limits"];
/// OpenAI's and Anthropic's.
const OVERLOAD_CODES: [&str; 5] =
    ["server_is_overloaded", "slow_down", "overloaded", "overloaded_error", "engine_overloaded"];
/// OpenAI's and Anthropic's.
const RATE_LIMIT_CODES: [&str; 2] = ["rate_limit_exceeded", "rate_limit_error"];
/// The first two are OpenAI's, the last is Anthropic's.
const TOO_LONG_CODES: [&str; 3] = ["context_length_exceeded", "string_above_max_length", "request_too_large"];
/// The first is DeepSeek's and vLLM's, the others are Anthropic's.
const TOO_LONG_PHRASES: [&str; 3] = ["maximum context length", "prompt is too long", "exceed context limit"];
/// OpenAI's and Azure's.
const CONTENT_FILTER_CODES: [&str; 3] =
    ["content_filter", "content_policy_violation", "responsible_ai_policy_violation"];
/// The first two are OpenAI's, the others are Anthropic's.
const KEY_CODES: [&str; 4] =
    ["invalid_api_key", "account_deactivated", "authentication_error", "permission_error"];
/// Gemini's and xAI's.
const KEY_PHRASES: [&str; 2] = ["API key not valid", "Incorrect API key"];
/// OpenAI's and Anthropic's.
const MODEL_CODES: [&str; 2] = ["model_not_found", "not_found_error"];
/// DeepSeek's.
const MODEL_PHRASES: [&str; 1] = ["Model Not Exist"];
/// OpenAI's. Other vendors write "Model with id '…' not found" about a model. The last one lacks its first letter so that both
/// "Response" and "response" match.
const STORED_OBJECT_PHRASES: [&str; 4] =
    ["Conversation with id '", "Item with id '", "Prompt with id '", "esponse with id '"];
/// The code of the local backup listener in `envoy/`, which answers for a provider that has no healthy or resolvable host.
const NO_HEALTHY_HOST: &str = "no_healthy_upstream";

#[cfg(test)]
mod tests;
