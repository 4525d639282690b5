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
//! | `rate_limited`  | 429, a rate-limit code                                 | the same after a short wait, or the next (3) | hold (3)          |
//! | `out_of_quota`  | 402, a billing code or opening                         | the next provider                            | hold              |
//! | `bad_key`       | 401, 403, a key code or opening                        | the next provider                            | hold (5)          |
//! | `no_such_model` | 404 about the model, 405, 410, a model code or opening | the next provider                            | model's hold (5)  |
//! | `too_long`      | 413, a context-length code or phrase                   | the next provider with a larger context (4)  | unchanged         |
//! | `unwilling`     | 412, 423, 499                                          | the next provider                            | unchanged (5)     |
//! | `refused`       | a content-filter code, phrase or metadata              | the provider's error is delivered            | unchanged         |
//! | `bad_request`   | every other 4xx                                        | the provider's error is delivered (6)        | unchanged (5)     |
//! | `client_gone`   | the client closed its connection                       | nothing                                      | unchanged         |
//!
//! 1. The same provider is tried once more if the connection that broke had served a request before.
//! 2. Once a part of the answer is at the client, no other provider can be tried.
//! 3. The provider says in its headers, or Gemini in its body, how long to wait ([`retry_after()`]). If that fits `retry.wait`, the
//!    same provider is tried again. The hold is as long as the provider says, or `holds.rate_limited`.
//! 4. Then one with an unknown context. If there is none, the provider's error is delivered.
//! 5. A refusal that no list explains ([`Verdict::doubt`]) holds nobody by itself, but as evidence in a row of several, a model at one
//!    endpoint or the key (`breaker/evidence.rs`).
//! 6. If no list explains it, if it is about what this provider takes, or if another provider has failed before, the next one is asked
//!    before (`exchange/second_opinion.rs`).
//!
//! A failed server that says when it is back is asked again only if no other candidate is left. A 409 is tried once more before it is
//! delivered.
//!
//! A failure counts towards opening the provider's breaker, and a success closes a half-open breaker. A hold makes requests
//! skip the provider for a time, and does not count as a failure (`breaker.rs`). `exchange/retry.rs` does what the third column says.
//!
//! [`judge()`] is where the status of a provider's error gets its meaning. A code or phrase outweighs the status, because it
//! is more precise: a 429 with `insufficient_quota` is no rate limit. The vendors' words are the lists in `outcome/words.rs`. A
//! refusal that none of them explains has a [`Doubt`].

mod error_body;
mod error_text;
mod judge;
mod retry_after;
mod words;

use std::time::Duration;

pub use error_body::{ErrorBody, Hints};
pub use judge::{doubt, judge, judge_in_answer, of_error_in_answer, of_status};
pub use retry_after::{retry_after, retry_after_of};

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
        matches!(self, Self::OutOfQuota | Self::BadKey | Self::NoSuchModel | Self::Unwilling)
    }

    /// Whether it is about the request: the client gets the provider's own error.
    pub const fn is_about_request(self) -> bool {
        matches!(self, Self::TooLong | Self::Refused | Self::BadRequest)
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
    /// The refusal may be about this request or about the provider. `None` if the outcome is certain.
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

/// A refusal that may be the request's fault or the provider's, by what can be compared with other refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The error's code, or else its type: at most 64 printable bytes of it. Never the message, which may repeat the prompt.
    pub code: String,
    /// The words are known: the refusal is about what this provider takes, such as its longest answer. Another may take the request.
    pub others_may_accept: bool,
}

impl Doubt {
    /// The most bytes of a code that are kept.
    const LONGEST_CODE: usize = 64;

    #[inline(never)]
    fn new(error: &ErrorBody) -> Self {
        let code = if error.code.is_empty() { &error.kind } else { &error.code };
        let code = code.chars().filter(char::is_ascii_graphic).take(Self::LONGEST_CODE).collect();
        Self { code, others_may_accept: false }
    }
}

#[cfg(test)]
mod tests;
