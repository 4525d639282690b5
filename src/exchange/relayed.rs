//! An exchange whose request the gateway moves from attempt to attempt by itself: it is planned in the router, resumed in each
//! attempt, and the router learns of the attempts afterwards.

use std::rc::Rc;
use std::time::Duration;

use super::candidates::CandidateId;
use super::{Current, Exchange, Next, OutOfOrder, Phase};
use crate::base::clock::{millis, Timestamp};
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Body, Head};
use crate::config::Config;
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::relay::{FinishedTry, Try};
use crate::selection::plan::{self, Env};
use crate::spend::cost::Money;

/// Whether the meaning of an error with this status is in its body. A 400, for example, may be a bad request, which is not retried, or
/// a vendor's way to refuse a key, which leads to failover. The other statuses lead to the same provider whatever their bodies say.
const fn needs_body(status: u16) -> bool {
    matches!(status, 400..=499)
        && !matches!(status, 401 | 402 | 404 | 405 | 408 | 410 | 413 | 425 | 429 | 498)
}

/// Which provider of a plan is tried now.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The names of the plan's providers, with commas between them.
    pub plan: &'a str,
    /// The tries so far.
    pub tries: &'a [Try],
    /// The provider that is tried.
    pub asked: &'a str,
    /// The time.
    pub now: Timestamp,
    /// When the request fails if no answer has been released by then.
    pub deadline: Option<Timestamp>,
    /// Who made the request's reasoning items, as the router has [told](Exchange::told_makers) it.
    pub makers: Option<&'a str>,
}

/// What the gateway does after an attempt of which only the head is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The provider that is tried next.
    pub next: Option<String>,
    /// The client gets the error of this provider. If that is the next one as well, the error's meaning is in its body: whoever forwards
    /// it reads it.
    pub delivers: bool,
}

impl Exchange {
    /// The gateway cannot wait before a retry: the next provider is tried instead.
    pub fn never_wait(&mut self) {
        self.request.can_wait = false;
    }

    /// The providers in the order in which they are tried if each fails: first the one that was chosen, then the others that are
    /// available, and then those that are excluded, in the order in which their exclusions end.
    pub fn line_up(&mut self, env: &mut Env<'_>) -> Vec<String> {
        let Some(Current { candidate: first, .. }) = self.attempts.undecided() else { return Vec::new() };
        let mut free = vec![first];
        let mut later: Vec<(Timestamp, CandidateId)> = Vec::new();
        for id in self.candidates.ids().filter(|id| *id != first) {
            let is_skipped = !self.candidates.is_suitable(id)
                || self.misfit(id).is_some()
                || self.spent(id, env).is_some();
            if is_skipped {
                continue;
            }
            if let Err(why) = self.prepare(id) {
                self.candidates.rule_out(id, why);
                continue;
            }
            let Some(provider) = self.provider_of(id) else { continue };
            match plan::exclusion(provider, self.candidates.model(id), self.request.endpoint, env) {
                None if plan::is_closed(provider, env) => free.push(id),
                excluded => {
                    let until = excluded.map_or(env.now, |exclusion| exclusion.until);
                    later.insert(later.partition_point(|(known, _)| *known <= until), (until, id));
                }
            }
        }
        // The candidate that was prepared last is not the one that is tried first.
        self.body.unprepare();
        let all = free.into_iter().chain(later.into_iter().map(|(_, id)| id));
        all.map(|id| self.name_of(id).to_owned()).collect()
    }

    /// Resumes in an attempt what the router has planned.
    ///
    /// # Errors
    /// A [`Rejection`] if the plan does not fit the configuration, or the provider's API cannot express the request.
    pub fn resume(config: Rc<Config>, head: &Head, body: Body, turn: Turn<'_>) -> Result<Self, Rejection> {
        let Turn { plan, tries, asked, now, deadline, makers } = turn;
        let mut exchange = Self::new(config, head, body, |_| true)?;
        let planned: Vec<CandidateId> =
            plan.split(',').filter_map(|name| exchange.candidate_named(name)).collect();
        exchange.candidates.arrange(planned.into_iter());
        exchange.take_makers(makers);
        exchange.request.can_wait = false;
        // nginx moves the request by a status, and keeps no refusal until others were asked.
        exchange.second_opinion.never_keep();
        exchange.attempts.had_twice = tries.last().is_some_and(Try::is_error_lookup);
        exchange.keep_deadline(deadline);
        for one in tries.iter().filter(|one| !one.is_error_lookup()) {
            let Some(candidate) = exchange.candidate_named(&one.provider) else { continue };
            let current = Current { candidate, permit: Permit::Free, started: now };
            exchange.attempts.end(current, one.verdict.clone(), now);
            exchange.candidates.note_outcome(candidate, one.verdict.outcome);
            exchange.note_refusal_before(candidate, &one.verdict);
        }
        let candidate = exchange
            .candidate_named(asked)
            .ok_or_else(|| Rejection::misconfigured("the plan lacks the provider"))?;
        exchange.body.allow_translation(exchange.may_translate(), usize::MAX);
        exchange.prepare(candidate).map_err(|why| Rejection::unsupported(&why))?;
        exchange.attempts.begin(Current { candidate, permit: Permit::Free, started: now });
        Ok(exchange)
    }

    /// The provider that is due now: the one that the last try `named`, or else the first of the plan that was not tried. The
    /// gateway itself goes on by the place in the plan, which may lead to another provider. `None`: no candidate is left.
    pub fn due(&self, named: Option<&str>) -> Option<String> {
        let first = self.candidates.ids().find(|id| !self.attempts.tried(*id));
        named.or_else(|| first.map(|id| self.name_of(id))).map(str::to_owned)
    }

    /// The provider of the attempt under way has answered with an error, of which only the head is known.
    ///
    /// # Errors
    /// [`OutOfOrder`]: no attempt is under way.
    pub fn steer(&mut self, verdict: &mut Verdict, env: &mut Env<'_>) -> Result<Steering, OutOfOrder> {
        let current = self.attempts.expect_undecided("steer")?;
        if verdict.status.is_some_and(needs_body) {
            // Where the body decides what follows, the provider is sent the request again, and its body is read this time: it is still
            // the same attempt.
            let asks_again = self.may_follow(current.candidate, verdict, env);
            verdict.outcome = Outcome::BadRequest;
            let same = self.name_of(current.candidate).to_owned();
            return Ok(Steering { next: Some(same), delivers: !asks_again });
        }
        Ok(match self.judge(verdict.clone(), false, true, env)?.next {
            Next::Retry { provider, .. } => Steering { next: Some(provider), delivers: false },
            Next::Deliver(_) => Steering { next: None, delivers: true },
            Next::Fail | Next::Drop => Steering { next: None, delivers: false },
        })
    }

    /// A try that the gateway made is over; another one followed, or no candidate is left. Returns a line for the log, if there is one.
    pub fn tried_by_gateway(&mut self, done: FinishedTry, env: &mut Env<'_>) -> Option<String> {
        let FinishedTry { report, took, is_misrouted, .. } = done;
        if report.is_error_lookup() {
            return None;
        }
        let current = self.take_up(&report.provider, took, env)?;
        if is_misrouted {
            let _ = self.misrouted(env);
            return None;
        }
        let verdict = report.verdict.clone();
        let log = self.end_attempt(current, report.verdict, env);
        self.note_refusal_before(current.candidate, &verdict);
        self.attempts.unchoose();
        log
    }

    /// The response broke off, or the client left: the request is over. `outcome` is that of an answer that was being delivered. If none
    /// was, the client has left, and no provider is blamed. Returns a line for the log, if there is one.
    pub fn broke_off(&mut self, outcome: Outcome, env: &mut Env<'_>) -> Option<String> {
        match self.attempts.phase() {
            Phase::Delivering(_) => {
                let error = self.attempts.last().map(|last| &last.verdict);
                let error = error.filter(|error| error.outcome != Outcome::Answered).cloned();
                return match error.filter(|_| outcome != Outcome::ClientGone) {
                    // Of an error that broke off, the status has said what it is.
                    Some(error) => self.refusal_read(error, env).1,
                    None => self.ended(outcome, env).ok().flatten(),
                };
            }
            Phase::Chosen(_) => {
                let _ = self.abandon(env);
            }
            Phase::Trying(current) => {
                self.end_attempt(current, Verdict::without_response(Outcome::ClientGone), env);
                self.attempts.finish(false);
            }
            Phase::NotAsking | Phase::Over { .. } => {}
        }
        None
    }

    /// The client gets the provider's error: [`Self::refusal_read`] must follow. `verdict` is what is known before its body was read.
    /// Returns the additional headers that the client gets; `None` if the provider is not in the plan.
    pub fn deliver_refusal(
        &mut self,
        provider: &str,
        verdict: Verdict,
        took: Duration,
        env: &mut Env<'_>,
    ) -> Option<Vec<(&'static str, String)>> {
        let current = self.take_up(provider, took, env)?;
        let is_about_request = verdict.outcome.is_about_request();
        self.attempts.end(current, verdict, env.now);
        self.attempts.deliver(current);
        Some(match is_about_request {
            true => self.headers(current.candidate, env.now),
            false => self.failure(env).headers,
        })
    }

    /// It is known what the error that the client gets means. Returns what takes the place of the body if the error is not about the
    /// request but about the provider, and a line for the log, if there is one.
    #[inline(never)]
    pub fn refusal_read(&mut self, verdict: Verdict, env: &mut Env<'_>) -> (Option<Reply>, Option<String>) {
        let Ok(current) = self.attempts.expect_delivering("refusal_read") else { return (None, None) };
        let log = self.report(current, &verdict, env);
        self.note_refusal_after(&verdict, env);
        let is_about_request = verdict.outcome.is_about_request();
        self.attempts.amend(verdict);
        self.settle_attempt(self.last_cost(), env);
        self.attempts.finish(is_about_request);
        ((!is_about_request).then(|| self.failure(env)), log)
    }

    /// The gateway tries, or has tried, this provider; it began `took` ago. False if the provider is not in the plan.
    pub fn taken_up(&mut self, provider: &str, took: Duration, env: &mut Env<'_>) -> bool {
        self.take_up(provider, took, env).is_some()
    }

    fn take_up(&mut self, provider: &str, took: Duration, env: &mut Env<'_>) -> Option<Current> {
        let candidate = self.candidate_named(provider)?;
        let permit = match self.attempts.undecided() {
            Some(current) if current.candidate == candidate => current.permit,
            Some(current) => {
                // The candidate that was chosen was not tried after all.
                self.release_permit(current, env);
                self.settle_attempt(Money::ZERO, env);
                self.permit_afterwards(candidate, env)
            }
            None => self.permit_afterwards(candidate, env),
        };
        self.skip_misfits_before(candidate);
        let started = Timestamp::from_millis(env.now.as_millis().saturating_sub(millis(took)));
        let current = Current { candidate, permit, started };
        self.attempts.begin(current);
        Some(current)
    }

    /// The gateway has tried a candidate for which nothing was asked before: reserves in its budgets, and returns its permit. If its
    /// breaker is not closed, or it is excluded, the attempt was a forced one.
    fn permit_afterwards(&mut self, candidate: CandidateId, env: &mut Env<'_>) -> Permit {
        self.charge_attempt(candidate, env);
        self.count_waiting(candidate, env);
        let free = self.provider_of(candidate).is_some_and(|provider| {
            plan::exclusion(provider, self.candidates.model(candidate), self.request.endpoint, env).is_none()
                && plan::is_closed(provider, env)
        });
        if free {
            Permit::Free
        } else {
            Permit::Forced
        }
    }

    /// Ends an attempt, bills it, and reports its outcome. The caller decides what follows.
    fn end_attempt(&mut self, current: Current, verdict: Verdict, env: &mut Env<'_>) -> Option<String> {
        self.attempts.end(current, verdict.clone(), env.now);
        self.settle_attempt(self.last_cost(), env);
        self.report(current, &verdict, env)
    }
}
