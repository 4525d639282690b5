//! What the error of a provider comes to, by its status and its words.

use super::words::{
    of_zhipu, ANSWER_LIMITS, BILLING_CODES, BILLING_OPENINGS, KEY_CODES, KEY_OPENINGS, MODEL_CODES,
    MODEL_OPENINGS, NO_HEALTHY_HOST, OVERLOAD_CODES, PARTICULAR_CODES, PARTICULAR_PHRASES, RATE_LIMIT_CODES,
    REFUSAL_CODES, REFUSAL_PHRASES, REQUEST_CODES, STATUSES, STORED_OBJECT_PHRASES, TOO_LARGE_OPENING,
    TOO_LONG_CODES, TOO_LONG_PHRASES,
};
use super::{Doubt, ErrorBody, Outcome};
use crate::bytes::ascii;

/// The outcome of a response that is no answer, and whether it leaves open if the error is about the request or about the provider.
/// Call it for a 2xx only if its body has no usable answer.
pub fn judge(status: u16, error: &ErrorBody) -> (Outcome, Option<Doubt>) {
    if let Some((outcome, is_certain)) = explained(status, error) {
        return (outcome, (!is_certain).then(|| Doubt::new(error)));
    }
    let outcome = match status {
        408 | 425 => Outcome::ServerError,
        498 | 503 | 529 => Outcome::Overloaded,
        429 => Outcome::RateLimited,
        402 => Outcome::OutOfQuota,
        401 | 403 => Outcome::BadKey,
        404 if is_about_stored_object(error) => Outcome::BadRequest,
        404 | 405 | 410 => Outcome::NoSuchModel,
        412 | 423 | 499 => Outcome::Unwilling,
        400..=499 => Outcome::BadRequest,
        // A 1xx is never final, a 2xx has no answer here, a 3xx is not followed, and a 5xx or more is a failure.
        _ => Outcome::ServerError,
    };
    let has_one_meaning =
        !matches!(status, 400..=499) || matches!(status, 401 | 402 | 408 | 409 | 413 | 424 | 425 | 429 | 498);
    let others_may_accept = outcome == Outcome::BadRequest && is_particular(error);
    (outcome, (!has_one_meaning).then(|| Doubt { others_may_accept, ..Doubt::new(error) }))
}

/// The same for an error that is found inside an answer with a 2xx status. It is judged by its words as one with the status 400;
/// else under the status that it names; and an error that says nothing known is the provider's failure.
pub fn judge_in_answer(error: &ErrorBody) -> (Outcome, Option<Doubt>) {
    if let Some((outcome, is_certain)) = explained(400, error) {
        return (outcome, (!is_certain).then(|| Doubt::new(error)));
    }
    if let Some(status) = error.status() {
        return judge(status, error);
    }
    if error.has_code(REQUEST_CODES) || is_particular(error) {
        return judge(400, error);
    }
    match STATUSES.iter().find(|(code, _)| error.has_code(&[code])) {
        Some((_, status)) => judge(*status, error),
        None => (Outcome::ServerError, None),
    }
}

/// The outcome of [`judge`].
pub fn of_status(status: u16, error: &ErrorBody) -> Outcome {
    judge(status, error).0
}

/// The outcome of [`judge_in_answer`].
pub fn of_error_in_answer(error: &ErrorBody) -> Outcome {
    judge_in_answer(error).0
}

/// The doubt of [`judge`].
pub fn doubt(status: u16, error: &ErrorBody) -> Option<Doubt> {
    judge(status, error).1
}

/// The outcome that an error's words name, and whether that is certain; `None` if the status must decide. How a message begins is not
/// certain: it may be a client's word, such as a field or a model that it named.
fn explained(status: u16, error: &ErrorBody) -> Option<(Outcome, bool)> {
    if status < 400 {
        return None;
    }
    if status == TOO_LARGE {
        return Some((Outcome::TooLong, true));
    }
    let found = named(status, error)?;
    // A 424 is about a tool server of the client's, whatever else it says.
    (status != FAILED_DEPENDENCY || matches!(found.0, Outcome::Refused | Outcome::TooLong)).then_some(found)
}

/// The status of a request that is too long. It means that whatever the error says: Groq's names the limit for a minute.
const TOO_LARGE: u16 = 413;

/// The status that OpenAI uses for a client's own tool server.
const FAILED_DEPENDENCY: u16 = 424;

fn named(status: u16, error: &ErrorBody) -> Option<(Outcome, bool)> {
    let certain = |outcome| Some((outcome, true));
    // Where a server failed, its message may be about anything, and a word such as "rate limit" about another server.
    let is_refusal = status < 500;
    let message = if is_refusal { ascii::lower(&error.message) } else { String::new() };
    let may_open = !error.hints.is_list;
    let opens = |openings: &[&str]| may_open && openings.iter().any(|opening| begins_with(&message, opening));
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    // What another server said to this one says nothing about the account or the key at this one.
    let cause = error.hints.cause.as_deref().filter(|_| is_refusal);
    let caused = |codes: &[&str], phrases: &[&str]| {
        cause.is_some_and(|cause| {
            let message = ascii::lower(&cause.message);
            cause.has_code(codes) || phrases.iter().any(|phrase| message.contains(phrase))
        })
    };
    if error.code == NO_HEALTHY_HOST {
        return certain(Outcome::Unreachable);
    }
    if error.has_code(TOO_LONG_CODES) {
        return certain(Outcome::TooLong);
    }
    if error.hints.is_flagged || error.has_code(REFUSAL_CODES) || says(REFUSAL_PHRASES) {
        return certain(Outcome::Refused);
    }
    if error.has_code(BILLING_CODES) || opens(BILLING_OPENINGS) {
        return Some((Outcome::OutOfQuota, matches!(status, 402 | 429) || error.has_code(BILLING_CODES)));
    }
    if error.has_code(OVERLOAD_CODES) {
        return certain(Outcome::Overloaded);
    }
    // A limit for a minute may be reached although the message names the length, too.
    if opens(&[TOO_LARGE_OPENING]) || (status != 429 && says(TOO_LONG_PHRASES)) {
        return certain(Outcome::TooLong);
    }
    if is_refusal && error.has_code(RATE_LIMIT_CODES) {
        return certain(Outcome::RateLimited);
    }
    if error.has_code(KEY_CODES) || opens(KEY_OPENINGS) {
        return Some((Outcome::BadKey, status == 401 || error.has_code(KEY_CODES)));
    }
    if error.has_code(MODEL_CODES) || opens(MODEL_OPENINGS) || is_anthropics_model(error) {
        return Some((Outcome::NoSuchModel, error.has_code(MODEL_CODES) || is_anthropics_model(error)));
    }
    if caused(REFUSAL_CODES, REFUSAL_PHRASES) {
        return certain(Outcome::Refused);
    }
    if caused(TOO_LONG_CODES, TOO_LONG_PHRASES) {
        return certain(Outcome::TooLong);
    }
    // Numbers mean other things to other vendors, which give a type or a parameter with them.
    let is_bare = error.kind.is_empty() && error.param.is_none();
    of_zhipu(&error.code).filter(|_| is_bare && is_refusal).and_then(certain)
}

/// Whether a message begins as `opening` says, in which `…` stands for any text, but behind a quote for a text without that quote.
fn begins_with(message: &str, opening: &str) -> bool {
    let mut parts = opening.split('…');
    let first = parts.next().unwrap_or_default();
    let quote = first.chars().last().filter(|letter| matches!(letter, '\'' | '"' | '`'));
    let Some(mut rest) = message.trim_start().strip_prefix(first) else { return false };
    for part in parts {
        let Some((any, after)) = rest.split_once(part) else { return false };
        if quote.is_some_and(|quote| any.contains(quote)) {
            return false;
        }
        rest = after;
    }
    true
}

/// Whether a refusal is about what this provider takes: the longest answer that its model gives, or a history that another one made.
#[inline(never)]
fn is_particular(error: &ErrorBody) -> bool {
    let is_limit = |param: &str| ANSWER_LIMITS.iter().any(|limit| param.starts_with(limit));
    let message = ascii::lower(&error.message);
    error.has_code(PARTICULAR_CODES)
        || error.param.as_deref().is_some_and(is_limit)
        || PARTICULAR_PHRASES.iter().any(|phrase| message.contains(phrase))
        || error.hints.cause.as_deref().is_some_and(is_particular)
}

/// Whether this is Anthropic's error for a model that it does not have. Its code alone also means a file or a batch.
fn is_anthropics_model(error: &ErrorBody) -> bool {
    error.has_code(&["not_found_error"]) && error.message.starts_with("model:")
}

/// Whether a 404 is about an object that the provider stores and the request names, and not about the model. OpenAI says so in
/// `param` (`"input"`) or, without one, only in the message.
fn is_about_stored_object(error: &ErrorBody) -> bool {
    match error.param.as_deref() {
        None | Some("") => {
            let message = ascii::lower(&error.message);
            STORED_OBJECT_PHRASES.iter().any(|phrase| message.contains(phrase))
        }
        Some(param) => param != "model",
    }
}
