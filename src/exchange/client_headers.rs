//! What a client learns of an exchange: the headers of its answer, or the reply if every provider failed.

use std::time::Duration;

use super::attempts::Attempt;
use super::candidates::CandidateId;
use super::Exchange;
use crate::base::clock::{millis, seconds_up, Timestamp};
use crate::client_api::errors::{envelope, json_type, printable, Reply};
use crate::client_api::request::POLICY_OPTION;
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::plan::{self, Env};

/// The provider that answered.
pub(super) const PROVIDER: &str = "x-shunt-provider";
/// The model that answered.
pub(super) const MODEL: &str = "x-shunt-model";
/// Every attempt with its outcome: `openai:server_error,deepseek:answered`.
pub(super) const ATTEMPTS: &str = "x-shunt-attempts";
/// The providers that were skipped, and why: `openai:open`.
pub(super) const DEGRADED: &str = "x-shunt-degraded";
/// What was changed in the request for the provider that answered: `max_tokens=8192`.
pub(super) const ADAPTED: &str = "x-shunt-adapted";
/// The policy that ordered the candidates.
pub(super) const POLICY: &str = POLICY_OPTION;
/// How much is left of the budgets that cover the request.
pub(super) const BUDGET: &str = "x-shunt-budget";

/// OpenAI's clients wait this long for a `retry-after`, and newer ones twice as long. If it is longer, the older ones come back within
/// seconds.
const LONGEST_CLIENT_WAIT: Duration = Duration::from_secs(60);

impl Exchange {
    /// The reply when every provider failed.
    pub fn failure(&self, env: &mut Env<'_>) -> Reply {
        if let Some(refusal) = self.first_refusal(env) {
            return refusal;
        }
        let status = self.most_useful().map_or(503, |attempt| status_for(&attempt.verdict));
        let kind = match status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "api_error",
        };
        let each: Vec<String> = self.attempts.all().iter().map(|attempt| self.describe(attempt)).collect();
        let message = format!("Every provider failed: {}", each.join(", "));
        let mut headers = vec![json_type(), (ATTEMPTS, self.attempts_header())];
        headers.push((POLICY, self.ranking.name().to_owned()));
        headers.extend(self.degraded_header());
        headers.extend(self.budget_header(env.now));
        if let Some(wait) = self.available_in(env) {
            headers.push(("retry-after", seconds_up(wait).max(1).to_string()));
        }
        let is_temporary = |attempt: &Attempt| attempt.verdict.outcome.is_temporary();
        let is_held_long = self.first_free(env).is_some_and(|wait| wait > LONGEST_CLIENT_WAIT);
        if is_held_long || !self.attempts.all().iter().any(is_temporary) {
            headers.push(("x-should-retry", "false".to_owned()));
        }
        Reply { status, headers, body: envelope(&message, kind, None, Some("all_providers_failed")) }
    }

    /// The failed attempt that says most to the client: the first that was about the request itself, because it would fail again, or
    /// else the last one.
    fn most_useful(&self) -> Option<&Attempt> {
        let is_about_request = |attempt: &&Attempt| attempt.verdict.outcome.is_about_request();
        self.attempts.all().iter().find(is_about_request).or(self.attempts.last())
    }

    /// The headers that an answer of this candidate gets.
    pub(super) fn headers(&self, candidate: CandidateId, now: Timestamp) -> Vec<(&'static str, String)> {
        let model = self.candidates.model(candidate);
        let mut headers = vec![(PROVIDER, self.name_of(candidate).to_owned())];
        if !model.is_empty() {
            headers.push((MODEL, printable(model)));
        }
        headers.push((ATTEMPTS, self.attempts_header()));
        headers.push((POLICY, self.ranking.name().to_owned()));
        headers.extend(self.degraded_header());
        headers.extend(self.adapted(candidate).map(|adapted| (ADAPTED, adapted)));
        headers.extend(self.budget_header(now));
        headers
    }

    fn attempts_header(&self) -> String {
        let mut text = String::with_capacity(32);
        for attempt in self.attempts.all() {
            let comma = if text.is_empty() { "" } else { "," };
            text.extend([comma, self.name_of(attempt.candidate), ":", attempt.verdict.outcome.name()]);
        }
        text
    }

    /// The providers that were skipped and not tried later, each once, with the reason.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let left_out = self.candidates.left_out(|id| self.attempts.tried(id));
        left_out.into_iter().map(|(id, why)| (self.name_of(id), why))
    }

    fn degraded_header(&self) -> Option<(&'static str, String)> {
        let each: Vec<String> = self.left_out().map(|(name, why)| [name, ":", why].concat()).collect();
        (!each.is_empty()).then(|| (DEGRADED, each.join(",")))
    }

    fn describe(&self, attempt: &Attempt) -> String {
        let name = self.name_of(attempt.candidate);
        let outcome = attempt.verdict.outcome.name();
        let took = millis(attempt.took);
        match attempt.verdict.status {
            Some(status) => format!("{name}: {outcome} ({status}) after {took} ms"),
            None => format!("{name}: {outcome} after {took} ms"),
        }
    }

    /// How long the client should wait: until the first candidate can be tried again, if all are excluded; else as long as the last one
    /// asked.
    fn available_in(&self, env: &mut Env<'_>) -> Option<Duration> {
        self.first_free(env).or_else(|| self.attempts.last().and_then(|attempt| attempt.verdict.retry_after))
    }

    /// How long it takes until the first candidate can be tried again. `None` if one can be tried now.
    fn first_free(&self, env: &mut Env<'_>) -> Option<Duration> {
        let mut first: Option<Timestamp> = None;
        for (_, candidate) in self.candidates.iter() {
            let provider = self.config.provider(candidate.provider)?;
            let exclusion = plan::exclusion(provider, &candidate.model.name, self.request.endpoint, env)?;
            first = Some(first.map_or(exclusion.until, |first| first.min(exclusion.until)));
        }
        first.map(|first| first.since(env.now))
    }
}

/// The status that the client gets for the last failure: the provider's own, if that is an error.
fn status_for(verdict: &Verdict) -> u16 {
    match (verdict.status, verdict.outcome) {
        (Some(status @ 400..=599), _) => status,
        (_, Outcome::TooSlow) => 504,
        (None, Outcome::Unreachable) => 503,
        (_, Outcome::RateLimited | Outcome::OutOfQuota) => 429,
        (_, Outcome::Overloaded) => 503,
        _ => 502,
    }
}
