//! What follows a failed attempt: the same provider, the next one, the provider's own answer, or nothing.

use std::time::Duration;

use super::attempts::Attempt;
use super::candidates::{CandidateId, Room};
use super::{Current, Exchange, Next};
use crate::base::clock::{seconds_up, Timestamp};
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::plan::{self, Choice, Env, Need};

/// How much longer than its limit a probe may take before its permit lapses. The gateway itself needs some time.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// The most attempts that Envoy's route allows: `num_retries: 30` in `envoy/`, and the first attempt.
const MOST_ATTEMPTS: u32 = 31;

/// The status of a conflict.
const CONFLICT: u16 = 409;
/// The status of a client's own tool server that failed. Only a conversation that is too long moves on after it.
const FAILED_DEPENDENCY: u16 = 424;

/// How long a provider that has failed asks not to be called.
fn said_when_back(attempt: &Attempt) -> Option<Duration> {
    let has_failed = matches!(attempt.verdict.outcome, Outcome::ServerError | Outcome::Overloaded);
    attempt.verdict.retry_after.filter(|_| has_failed)
}

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
            Outcome::BadRequest if verdict.status == Some(CONFLICT) => self
                .repeat_conflict(candidate, verdict, env)
                .unwrap_or_else(|| self.after_refusal(candidate, verdict, env)),
            Outcome::Answered | Outcome::Refused | Outcome::BadRequest => {
                self.after_refusal(candidate, verdict, env)
            }
            Outcome::ClientGone => {
                self.attempts.finish(false);
                Next::Drop
            }
            Outcome::TooLong => self.after_too_long(candidate, verdict, env),
            // A server that says when it is back is not asked before that.
            Outcome::ServerError if verdict.retry_after.is_none() && !self.second_opinion.is_sought() => {
                let again = self.config.retry.same_provider;
                self.retry_same(candidate, Outcome::ServerError, again, 0, env)
                    .unwrap_or_else(|| self.next_or_wait(verdict, env))
            }
            Outcome::Unreachable if reused => self
                .retry_same(candidate, Outcome::Unreachable, 1, 0, env)
                .unwrap_or_else(|| self.next_or_wait(verdict, env)),
            Outcome::RateLimited => {
                let may_wait = self.request.can_wait && !self.second_opinion.is_sought();
                let asked = verdict.retry_after.filter(|_| may_wait);
                let wait = asked.and_then(|asked| self.short_wait(asked, env.now));
                let same =
                    wait.and_then(|wait| self.retry_same(candidate, Outcome::RateLimited, 1, wait, env));
                same.unwrap_or_else(|| self.next_or_wait(verdict, env))
            }
            Outcome::ServerError
            | Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::Garbled
            | Outcome::Unwilling
            | Outcome::OutOfQuota
            | Outcome::BadKey
            | Outcome::NoSuchModel => self.next_or_wait(verdict, env),
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
        if before > times as usize || !self.has_spare() {
            return None;
        }
        self.again(candidate, wait, env)
    }

    /// Whether more attempts remain than there are candidates that were not tried.
    fn has_spare(&self) -> bool {
        let untried = self.candidates.ids().filter(|id| !self.attempts.tried(*id)).count();
        self.remaining() as usize > untried
    }

    /// Retries the same provider, if its breaker is still closed and there is time and money for it.
    #[inline(never)]
    fn again(&mut self, candidate: CandidateId, wait: u64, env: &mut Env<'_>) -> Option<Next> {
        if self.remaining() == 0 || self.is_late(env.now) {
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
        if wait == 0 {
            self.count_waiting(candidate, env);
        }
        Some(Next::Retry { provider: name, wait })
    }

    /// A 409 is a conflict at the provider, such as a lock that was not free, and says nothing about any other. The same provider is tried
    /// once more.
    fn repeat_conflict(
        &mut self,
        candidate: CandidateId,
        verdict: &Verdict,
        env: &mut Env<'_>,
    ) -> Option<Next> {
        let is_conflict = |one: &&Attempt| one.candidate == candidate && one.verdict.status == Some(CONFLICT);
        if self.attempts.had_twice || self.attempts.all().iter().filter(is_conflict).count() > 1 {
            return None;
        }
        // After a failure the others are asked about it, too, and one of them may need the last attempt.
        if self.has_failed_before(candidate) && !self.has_spare() {
            return None;
        }
        let wait = match verdict.retry_after {
            Some(asked) => self.short_wait(asked, env.now)?,
            None => 0,
        };
        self.again(candidate, wait, env)
    }

    /// Whether another attempt may follow the one under way, for one meaning or another of its error, of which only the head is known.
    pub(super) fn may_follow(&self, candidate: CandidateId, verdict: &Verdict, env: &mut Env<'_>) -> bool {
        // The attempt under way is not counted yet.
        if self.remaining() <= 1 || self.is_late(env.now) {
            return false;
        }
        let repeats =
            verdict.status == Some(CONFLICT) && verdict.retry_after.is_none_or(|wait| wait.is_zero());
        if repeats && self.provider_of(candidate).is_some_and(|provider| plan::is_closed(provider, env)) {
            return true;
        }
        let needs_room = verdict.status == Some(FAILED_DEPENDENCY) && !self.has_failed_before(candidate);
        let full = self.candidates.context(candidate).filter(|_| needs_room);
        let fits = |id: CandidateId| {
            let room = self.candidates.context(id);
            room.zip(full).is_none_or(|(room, full)| room > full)
        };
        self.candidates.ids().any(|id| {
            id != candidate
                && !self.attempts.tried(id)
                && self.candidates.is_suitable(id)
                && self.misfit(id).is_none()
                && fits(id)
                && self.spent(id, env).is_none()
        })
    }

    /// A wait in whole seconds, if it is short enough and the gateway can wait.
    #[inline(never)]
    fn short_wait(&self, asked: Duration, now: Timestamp) -> Option<u64> {
        let seconds = seconds_up(asked);
        // Envoy waits up to half as long again.
        let most = Duration::from_millis(seconds.saturating_mul(1500));
        let can_wait = self.request.can_wait || seconds == 0;
        let fits = can_wait && most <= self.config.retry.wait && !self.is_late(now.after(most));
        fits.then_some(seconds)
    }

    /// Chooses the next candidate that was not tried. If there is none, a provider that has failed and said when it is back is waited
    /// for, once, if the wait is short enough.
    #[inline(never)]
    pub(super) fn next_or_wait(&mut self, verdict: &Verdict, env: &mut Env<'_>) -> Next {
        match self.next(env) {
            // Envoy waits only after a response. Nobody is waited for only to hear what it thinks of another one's refusal.
            Next::Fail if verdict.status.is_some() && !self.second_opinion.is_sought() => {
                self.wait_for_failed(env).unwrap_or(Next::Fail)
            }
            next => next,
        }
    }

    fn wait_for_failed(&mut self, env: &mut Env<'_>) -> Option<Next> {
        let mut first: Option<(u64, CandidateId)> = None;
        for attempt in self.attempts.all() {
            let Some(asked) = said_when_back(attempt) else { continue };
            let mut at_it = self.attempts.all().iter().filter(|one| one.candidate == attempt.candidate);
            let is_first = at_it.clone().filter(|one| said_when_back(one).is_some()).count() == 1
                && at_it.next_back() == Some(attempt);
            let left = asked.saturating_sub(env.now.since(attempt.ended));
            let wait = self.short_wait(left, env.now);
            let fits = is_first && self.candidates.room(attempt.candidate) != Room::None;
            if let Some(wait) = wait.filter(|wait| fits && first.is_none_or(|(least, _)| *wait < least)) {
                first = Some((wait, attempt.candidate));
            }
        }
        let (wait, candidate) = first?;
        // Another candidate was prepared last.
        self.prepare(candidate).ok()?;
        self.again(candidate, wait, env)
    }

    /// Chooses the next candidate that was not tried.
    pub(super) fn next(&mut self, env: &mut Env<'_>) -> Next {
        if self.remaining() > 0 && !self.is_late(env.now) {
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
                self.candidates.pass_over(id, reason.name());
            }
            for id in self.candidates.before(candidate).filter(|id| spent.contains(id)) {
                self.candidates.pass_over(id, "budget_spent");
            }
            self.skip_misfits_before(candidate);
            let current = Current { candidate, permit, started: env.now };
            if let Err(why) = self.prepare(candidate) {
                self.release_permit(current, env);
                self.candidates.rule_out(candidate, why);
            } else if !self.reserve_attempt(candidate, env) {
                // Other requests have spent the rest of the budget in the meantime, or it has no room for this candidate's price.
                self.release_permit(current, env);
                if self.is_refused() {
                    self.attempts.unchoose();
                    return None;
                }
                self.candidates.skip(candidate, "budget_spent");
                spent.push(candidate);
            } else {
                self.attempts.choose(candidate, permit, env.now);
                self.count_waiting(candidate, env);
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
