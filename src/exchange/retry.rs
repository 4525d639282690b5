//! What follows a failed attempt: the same provider, the next one, the provider's own answer, or nothing.

use std::time::Duration;

use super::{Exchange, Next, Phase};
use crate::base::clock::seconds_up;
use crate::dialects::anthropic;
use crate::dialects::dialect::Wire;
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::plan::{self, Choice, Env};

/// What a probe may take beyond its limit before its permit lapses: the gateway's own time.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// What Envoy's route allows (`num_retries: 30` in `envoy/`, and the first attempt).
const MOST_ATTEMPTS: u32 = 31;

impl Exchange {
    /// What follows a failed attempt.
    pub(super) fn follow(
        &mut self,
        candidate: usize,
        verdict: &Verdict,
        reused: bool,
        env: &mut Env<'_>,
    ) -> Next {
        if self.pass.is_some() {
            // No other could serve it, and its route does not retry.
            self.phase = Phase::Over { delivered: false };
            return Next::Fail;
        }
        match verdict.outcome {
            Outcome::Answered | Outcome::Refused | Outcome::BadRequest => self.deliver(candidate, env),
            Outcome::ClientGone => {
                self.phase = Phase::Over { delivered: false };
                Next::Drop
            }
            Outcome::TooLong => {
                // Without a known context there is nothing that could be larger.
                self.too_small = self.too_small.max(Some(self.context(candidate).unwrap_or(u64::MAX)));
                match self.next(env) {
                    // Nobody has more room: the client must hear why.
                    Next::Fail => self.deliver(candidate, env),
                    next => next,
                }
            }
            Outcome::ServerError => {
                let again = self.config.retry.same_provider;
                self.same(candidate, Outcome::ServerError, again, 0, env).unwrap_or_else(|| self.next(env))
            }
            Outcome::Unreachable if reused => {
                self.same(candidate, Outcome::Unreachable, 1, 0, env).unwrap_or_else(|| self.next(env))
            }
            Outcome::RateLimited => {
                let asked = verdict.retry_after.filter(|_| self.waits);
                let wait = asked.map(seconds_up).filter(|seconds| {
                    // Envoy waits up to half as long again.
                    Duration::from_millis(seconds.saturating_mul(1500)) <= self.config.retry.wait
                });
                let same = wait.and_then(|wait| self.same(candidate, Outcome::RateLimited, 1, wait, env));
                same.unwrap_or_else(|| self.next(env))
            }
            Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::OutOfQuota
            | Outcome::BadKey
            | Outcome::NoSuchModel => self.next(env),
        }
    }

    /// The same provider once more, if this outcome was met there at most `times` times, its breaker is still closed, and
    /// enough attempts remain for everybody who was not asked yet.
    fn same(
        &mut self,
        candidate: usize,
        outcome: Outcome,
        times: u32,
        wait: u64,
        env: &mut Env<'_>,
    ) -> Option<Next> {
        let met = self
            .attempts
            .iter()
            .filter(|attempt| attempt.candidate == candidate && attempt.verdict.outcome == outcome)
            .count();
        let untried = (0..self.candidates.len()).filter(|place| !self.tried(*place)).count();
        if met > times as usize || self.remaining() as usize <= untried {
            return None;
        }
        let provider = self.provider_of(candidate)?;
        if !plan::is_closed(provider, env) || self.spent(candidate, env).is_some() {
            return None;
        }
        let name = provider.name.clone();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.waited = wait > 0;
        }
        if !self.reserve_candidate(candidate, env) {
            return None;
        }
        self.phase = Phase::Asking { candidate, permit: Permit::Free, started: env.now, begun: false };
        Some(Next::Retry { provider: name, wait })
    }

    /// The next candidate that was not tried, and that has more room than any for which the request was too long.
    pub(super) fn next(&mut self, env: &mut Env<'_>) -> Next {
        if self.remaining() > 0 {
            let fits = |place: usize| self.too_small.is_none() || self.context(place) > self.too_small;
            let eligible: Vec<bool> =
                (0..self.candidates.len()).map(|place| !self.tried(place) && fits(place)).collect();
            if let Some(provider) = self.choose(|place| eligible.get(place) == Some(&true), env) {
                return Next::Retry { provider, wait: 0 };
            }
        }
        self.phase = Phase::Over { delivered: false };
        Next::Fail
    }

    pub(super) fn context(&self, place: usize) -> Option<u64> {
        self.candidates.get(place).and_then(|candidate| candidate.model.context)
    }

    fn deliver(&mut self, candidate: usize, env: &Env<'_>) -> Next {
        self.phase = Phase::Over { delivered: true };
        Next::Deliver(self.headers(candidate, env.now))
    }

    pub(super) fn choose(&mut self, eligible: impl Fn(usize) -> bool, env: &mut Env<'_>) -> Option<String> {
        // A probe is given up only after its attempt must have ended.
        let lease = self.limit().saturating_add(LEASE_SLACK);
        let mut spent: Vec<bool> =
            (0..self.candidates.len()).map(|place| self.spent(place, env).is_some()).collect();
        loop {
            let can = |place: usize| {
                eligible(place)
                    && spent.get(place) != Some(&true)
                    && !self.unsuitable.iter().any(|(known, _)| *known == place)
                    && self.guarded(place).is_none()
            };
            let choice = if self.config.is_shadow {
                // Nobody's breaker is asked, and nobody's probe taken.
                let candidate = (0..self.candidates.len()).find(|place| can(*place))?;
                Choice { candidate, permit: Permit::Free, passed_over: Vec::new() }
            } else {
                plan::choose(&self.config, &self.candidates, can, lease, env)?
            };
            let candidate = choice.candidate;
            let without_money = (0..candidate).filter(|place| spent.get(*place) == Some(&true));
            let passed_over = choice.passed_over.iter().map(|(place, reason)| (*place, reason.name()));
            let without_money = without_money.map(|place| (place, "budget_spent"));
            for (place, reason) in passed_over.chain(without_money) {
                if !self.degraded.iter().any(|(known, _)| *known == place) {
                    self.degraded.push((place, reason));
                }
            }
            self.note_guarded(candidate);
            self.phase = Phase::Asking { candidate, permit: choice.permit, started: env.now, begun: false };
            if let Err(why) = self.translate(candidate) {
                // Nobody's failure, but a probe must give its permit back.
                let _ = self.report(candidate, Outcome::ClientGone, choice.permit, None, env);
                self.unsuitable.push((candidate, why));
                self.phase = Phase::Over { delivered: false };
                continue;
            }
            if !self.reserve_candidate(candidate, env) {
                // Others took what was left since it was looked at.
                let _ = self.report(candidate, Outcome::ClientGone, choice.permit, None, env);
                self.phase = Phase::Over { delivered: false };
                spent.get_mut(candidate).into_iter().for_each(|spent| *spent = true);
                continue;
            }
            return self.provider_of(candidate).map(|provider| provider.name.clone());
        }
    }

    /// Puts the request into the format of a candidate that speaks another one.
    pub(super) fn translate(&mut self, candidate: usize) -> Result<(), String> {
        self.translated = None;
        if self.pass.is_some() || self.wire_of(candidate) == Wire::OpenAi {
            return Ok(());
        }
        let found = self.candidates.get(candidate).filter(|_| self.translates);
        let Some(found) = found else { return Err("the request was not kept".to_owned()) };
        let translated = anthropic::request(self.body(), &found.model.name).map_err(|no| no.message)?;
        self.translated = Some(translated);
        Ok(())
    }

    /// Attempts in all. A wait for a Retry-After, or a stale connection, asks the same provider again as well.
    fn allowed(&self) -> u32 {
        let retry = &self.config.retry;
        let each = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        retry.attempts.unwrap_or_else(|| each.saturating_add(retry.same_provider.max(1)).min(MOST_ATTEMPTS))
    }

    fn remaining(&self) -> u32 {
        self.allowed().saturating_sub(u32::try_from(self.attempts.len()).unwrap_or(u32::MAX))
    }
}
