//! What follows a failed attempt: the same provider, the next one, the provider's own answer, or nothing.

use std::time::Duration;

use super::candidates::{CandidateId, Room};
use super::{Current, Exchange, Next};
use crate::base::clock::seconds_up;
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::plan::{self, Choice, Env, Need};

/// How much longer than its limit a probe may take before its permit lapses. The gateway itself needs some time.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// The most attempts that Envoy's route allows: `num_retries: 30` in `envoy/`, and the first attempt.
const MOST_ATTEMPTS: u32 = 31;

impl Exchange {
    /// What follows a failed attempt.
    pub(super) fn after_failure(
        &mut self,
        candidate: CandidateId,
        verdict: &Verdict,
        reused: bool,
        env: &mut Env<'_>,
    ) -> Next {
        if self.request.pass.is_some() {
            // No other provider could serve it, and its route does not retry.
            self.attempts.finish(false);
            return Next::Fail;
        }
        match verdict.outcome {
            Outcome::Answered | Outcome::Refused | Outcome::BadRequest => {
                self.after_refusal(candidate, verdict, env)
            }
            Outcome::ClientGone => {
                self.attempts.finish(false);
                Next::Drop
            }
            Outcome::TooLong => self.after_too_long(candidate, env),
            Outcome::ServerError => {
                let again = self.config.retry.same_provider;
                self.retry_same(candidate, Outcome::ServerError, again, 0, env)
                    .unwrap_or_else(|| self.next(env))
            }
            Outcome::Unreachable if reused => {
                self.retry_same(candidate, Outcome::Unreachable, 1, 0, env).unwrap_or_else(|| self.next(env))
            }
            Outcome::RateLimited => {
                let asked = verdict.retry_after.filter(|_| self.request.can_wait);
                let wait = asked.map(seconds_up).filter(|seconds| {
                    // Envoy waits up to half as long again.
                    Duration::from_millis(seconds.saturating_mul(1500)) <= self.config.retry.wait
                });
                let same =
                    wait.and_then(|wait| self.retry_same(candidate, Outcome::RateLimited, 1, wait, env));
                same.unwrap_or_else(|| self.next(env))
            }
            Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::Garbled
            | Outcome::Unwilling
            | Outcome::OutOfQuota
            | Outcome::BadKey
            | Outcome::NoSuchModel => self.next(env),
        }
    }

    /// Retries the same provider, if it had this outcome at most `times` times (this one included), its breaker is still closed, and
    /// enough attempts remain for the candidates that were not tried.
    fn retry_same(
        &mut self,
        candidate: CandidateId,
        outcome: Outcome,
        times: u32,
        wait: u64,
        env: &mut Env<'_>,
    ) -> Option<Next> {
        let before = self.attempts.count(candidate, outcome);
        let untried = self.candidates.ids().filter(|id| !self.attempts.tried(*id)).count();
        if before > times as usize || self.remaining() as usize <= untried {
            return None;
        }
        let provider = self.provider_of(candidate)?;
        if !plan::is_closed(provider, env) || self.spent(candidate, env).is_some() {
            return None;
        }
        let name = provider.name.clone();
        if !self.reserve_attempt(candidate, env) {
            return None;
        }
        self.attempts.choose(candidate, Permit::Free, env.now);
        Some(Next::Retry { provider: name, wait })
    }

    /// Chooses the next candidate that was not tried.
    pub(super) fn next(&mut self, env: &mut Env<'_>) -> Next {
        if self.remaining() > 0 {
            if let Some(provider) = self.choose_untried(env) {
                return Next::Retry { provider, wait: 0 };
            }
        }
        self.attempts.finish(false);
        Next::Fail
    }

    /// After a request was too long for a candidate, those with a larger context come first, and then those whose context is unknown.
    fn choose_untried(&mut self, env: &mut Env<'_>) -> Option<String> {
        let with = |rooms: &[Room]| -> Vec<CandidateId> {
            let untried = |id: &CandidateId| !self.attempts.tried(*id);
            self.candidates
                .ids()
                .filter(untried)
                .filter(|id| rooms.contains(&self.candidates.room(*id)))
                .collect()
        };
        let (larger, unknown) = (with(&[Room::Larger]), with(&[Room::Unknown]));
        // An excluded candidate is not tried only to hear what it thinks of another one's refusal.
        let forced = !self.second_opinion.is_sought();
        if !self.candidates.is_too_long() {
            return self.choose(&|id| larger.contains(&id) || unknown.contains(&id), forced, env);
        }
        let found = self.choose(&|id| larger.contains(&id), false, env);
        let found = found.or_else(|| self.choose(&|id| unknown.contains(&id), false, env));
        if found.is_some() || !forced {
            return found;
        }
        self.choose(&|id| larger.contains(&id) || unknown.contains(&id), true, env)
    }

    pub(super) fn deliver(&mut self, candidate: CandidateId, env: &Env<'_>) -> Next {
        self.attempts.finish(true);
        Next::Deliver(self.headers(candidate, env.now))
    }

    /// Chooses the first of the `eligible` candidates that can be tried, and returns its provider's name. `forced`: if all are excluded,
    /// one is tried all the same. `None`: there is none.
    pub(super) fn choose(
        &mut self,
        eligible: &dyn Fn(CandidateId) -> bool,
        forced: bool,
        env: &mut Env<'_>,
    ) -> Option<String> {
        let mut spent: Vec<CandidateId> =
            self.candidates.ids().filter(|id| self.spent(*id, env).is_some()).collect();
        loop {
            let Choice { candidate, permit, passed_over } = self.choice(eligible, &spent, forced, env)?;
            for (id, reason) in passed_over {
                self.candidates.skip(id, reason.name());
            }
            for id in self.candidates.before(candidate).filter(|id| spent.contains(id)) {
                self.candidates.skip(id, "budget_spent");
            }
            self.skip_misfits_before(candidate);
            let current = Current { candidate, permit, started: env.now };
            if let Err(why) = self.prepare(candidate) {
                self.release_permit(current, env);
                self.candidates.rule_out(candidate, why);
            } else if !self.reserve_attempt(candidate, env) {
                // Other requests have spent the rest of the budget in the meantime.
                self.release_permit(current, env);
                spent.push(candidate);
            } else {
                self.attempts.choose(candidate, permit, env.now);
                return self.provider_of(candidate).map(|provider| provider.name.clone());
            }
            self.attempts.unchoose();
        }
    }

    fn choice(
        &self,
        eligible: &dyn Fn(CandidateId) -> bool,
        spent: &[CandidateId],
        forced: bool,
        env: &mut Env<'_>,
    ) -> Option<Choice<CandidateId>> {
        // A probe's permit must not lapse before its attempt has ended.
        let lease = self.limit().saturating_add(LEASE_SLACK);
        let need = Need { endpoint: self.request.endpoint, lease, forced };
        let can = |id: CandidateId| {
            eligible(id)
                && !spent.contains(&id)
                && self.candidates.is_suitable(id)
                && self.misfit(id).is_none()
        };
        let mut candidates = self.candidates.iter().filter(|(id, _)| can(*id));
        if self.config.is_shadow {
            // A shadow request reads no breaker, and takes no probe from other requests.
            let (candidate, _) = candidates.next()?;
            return Some(Choice { candidate, permit: Permit::Free, passed_over: Vec::new() });
        }
        plan::choose(&self.config, candidates, need, env)
    }

    /// How many attempts the request may make. A retry after a Retry-After, or after a stale connection, counts as well.
    fn allowed(&self) -> u32 {
        let retry = &self.config.retry;
        let each = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        retry.attempts.unwrap_or_else(|| each.saturating_add(retry.same_provider.max(1)).min(MOST_ATTEMPTS))
    }

    fn remaining(&self) -> u32 {
        self.allowed().saturating_sub(u32::try_from(self.attempts.all().len()).unwrap_or(u32::MAX))
    }
}
