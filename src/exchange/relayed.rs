//! An exchange whose attempts the gateway moves by itself: planned in the router, resumed in each attempt, and told to the
//! router when all is over.

use std::rc::Rc;
use std::time::Duration;

use super::{Exchange, Next, Note, Phase};
use crate::base::clock::{millis, Timestamp};
use crate::client_api::errors::Rejection;
use crate::client_api::request::{Body, Head};
use crate::config::Config;
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::relay::{FinishedTry, Try};
use crate::selection::plan::{self, Env};
use crate::spend::cost::Money;

/// Whether only the body of an error with this status tells what follows: a refusal stops, a key that is refused does not.
const fn needs_body(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 401 | 402 | 404 | 405 | 408 | 425 | 429)
}

/// Whose turn it is in a plan.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The names of the plan's providers, with commas between them.
    pub plan: &'a str,
    /// The tries so far.
    pub tries: &'a [Try],
    /// The provider that is asked.
    pub asked: &'a str,
    /// When it is asked.
    pub now: Timestamp,
}

impl Exchange {
    /// Nobody can wait for a provider: what would be a wait is the next provider.
    pub fn never_wait(&mut self) {
        self.waits = false;
    }

    /// The providers in the order in which they are asked if each fails: the one that was chosen, who else is free, and
    /// then who is free first.
    pub fn line_up(&mut self, env: &mut Env<'_>) -> Vec<String> {
        let Phase::Asking { candidate: first, .. } = self.phase else { return Vec::new() };
        let mut free = vec![first];
        let mut later: Vec<(Timestamp, usize)> = Vec::new();
        for place in (0..self.candidates.len()).filter(|place| *place != first) {
            let is_unsuitable = self.unsuitable.iter().any(|(known, _)| *known == place);
            if is_unsuitable || self.guarded(place).is_some() || self.spent(place, env).is_some() {
                continue;
            }
            if let Err(why) = self.translate(place) {
                self.unsuitable.push((place, why));
                continue;
            }
            let found = self.provider_of(place).zip(self.candidates.get(place));
            let Some((provider, candidate)) = found else { continue };
            match plan::exclusion(provider, &candidate.model.name, env) {
                None if plan::is_closed(provider, env) => free.push(place),
                excluded => {
                    let until = excluded.map_or(env.now, |exclusion| exclusion.until);
                    later.insert(later.partition_point(|(known, _)| *known <= until), (until, place));
                }
            }
        }
        // What was translated last is not what is asked first.
        self.translated = None;
        free.into_iter()
            .chain(later.into_iter().map(|(_, place)| place))
            .map(|place| self.name_of(place).to_owned())
            .collect()
    }

    /// Takes up in an attempt what a router planned.
    ///
    /// # Errors
    /// A [`Rejection`] if the plan does not fit the configuration, or the provider cannot be asked this.
    pub fn resume(config: Rc<Config>, head: &Head, body: Body, turn: Turn<'_>) -> Result<Self, Rejection> {
        let Turn { plan, tries, asked, now } = turn;
        let mut exchange = Self::new(config, head, body, |_| true)?;
        let place_of = |exchange: &Self, name: &str| {
            (0..exchange.candidates.len()).find(|place| exchange.name_of(*place) == name)
        };
        let planned = plan.split(',').filter_map(|name| place_of(&exchange, name));
        let ordered: Vec<_> = planned.filter_map(|place| exchange.candidates.get(place).cloned()).collect();
        exchange.candidates = ordered;
        exchange.waits = false;
        for one in tries.iter().filter(|one| !one.is_error_lookup()) {
            let Some(candidate) = place_of(&exchange, &one.provider) else { continue };
            exchange.push(candidate, one.verdict.clone(), now, now);
            if one.verdict.outcome == Outcome::TooLong {
                exchange.too_small =
                    exchange.too_small.max(Some(exchange.context(candidate).unwrap_or(u64::MAX)));
            }
        }
        let candidate = place_of(&exchange, asked)
            .ok_or_else(|| Rejection::misconfigured("the plan lacks the provider"))?;
        exchange.translates = exchange.may_translate();
        exchange.translate(candidate).map_err(|why| Rejection::unsupported(&why))?;
        exchange.phase = Phase::Asking { candidate, permit: Permit::Free, started: now, begun: true };
        Ok(exchange)
    }

    /// The provider that is to be asked now: the one that the last try named, or else the first of the plan that was not asked.
    /// Where a try told nothing, the gateway goes on by the place in the plan alone, which may be another one's. `None`: nobody
    /// is left.
    pub fn due(&self, named: Option<&str>) -> Option<String> {
        let first = (0..self.candidates.len()).find(|place| !self.tried(*place));
        named.or_else(|| first.map(|place| self.name_of(place))).map(str::to_owned)
    }

    /// The provider of the attempt under way has answered with an error, of which only the head is known. Returns the next
    /// provider, if one is to be asked, and whether the error is what the client gets otherwise.
    pub fn steer(&mut self, verdict: &mut Verdict, env: &mut Env<'_>) -> (Option<String>, bool) {
        let Phase::Asking { candidate, .. } = self.phase else { return (None, false) };
        if verdict.status.is_some_and(needs_body) {
            // Asked again, and heard whole this time: the same attempt still.
            verdict.outcome = Outcome::BadRequest;
            return (Some(self.name_of(candidate).to_owned()), false);
        }
        match self.judge(verdict.clone(), false, true, env).0 {
            Next::Retry { provider, .. } => (Some(provider), false),
            Next::Deliver(_) => (None, true),
            Next::Fail | Next::Drop => (None, false),
        }
    }

    /// A try that the gateway made is over, and another followed or nobody is left.
    pub fn tried_by_gateway(&mut self, done: FinishedTry, env: &mut Env<'_>) -> Note {
        let FinishedTry { report, took, is_misrouted, .. } = done;
        if report.is_error_lookup() || !self.take_up(&report.provider, took, env) {
            return None;
        }
        if is_misrouted {
            let _ = self.misrouted(env);
            return None;
        }
        let note = self.close_attempt(report.verdict, env);
        self.phase = Phase::Over { delivered: false };
        note
    }

    /// The client left before an answer began: nobody's failure, and a probe gives its permit back.
    pub fn left(&mut self, env: &mut Env<'_>) {
        self.abandon(env);
        let _ = self.close_attempt(Verdict::without_response(Outcome::ClientGone), env);
        if matches!(self.phase, Phase::Asking { .. }) {
            self.phase = Phase::Over { delivered: false };
        }
    }

    /// The try that the gateway made ended with an error of the provider that the client gets. Returns the headers that it gets.
    pub fn refused_by_gateway(
        &mut self,
        provider: &str,
        verdict: Verdict,
        took: Duration,
        env: &mut Env<'_>,
    ) -> (Vec<(&'static str, String)>, Note) {
        if !self.take_up(provider, took, env) {
            return (Vec::new(), None);
        }
        let Phase::Asking { candidate, .. } = self.phase else { return (Vec::new(), None) };
        let note = self.close_attempt(verdict, env);
        self.phase = Phase::Over { delivered: true };
        (self.headers(candidate, env.now), note)
    }

    /// The gateway asks, or has asked, this provider, since `took`; false if it is none of the plan.
    pub fn take_up(&mut self, provider: &str, took: Duration, env: &mut Env<'_>) -> bool {
        let Some(candidate) = (0..self.candidates.len()).find(|place| self.name_of(*place) == provider)
        else {
            return false;
        };
        let permit = match self.phase {
            Phase::Asking { candidate: meant, permit, .. } if meant == candidate => permit,
            Phase::Asking { candidate: meant, permit, .. } => {
                // It was not asked after all.
                let _ = self.report(meant, Outcome::ClientGone, permit, None, env);
                self.settle_candidate(Money::ZERO, env);
                self.join(candidate, env)
            }
            Phase::Delivering { .. } | Phase::Over { .. } => self.join(candidate, env),
        };
        self.note_guarded(candidate);
        let started = Timestamp::from_millis(env.now.as_millis().saturating_sub(millis(took)));
        self.phase = Phase::Asking { candidate, permit, started, begun: true };
        true
    }

    /// A candidate was asked without leave: its budgets count it now, and if it was not free, it was a guess.
    fn join(&mut self, candidate: usize, env: &mut Env<'_>) -> Permit {
        self.charge_candidate(candidate, env);
        let found = self.provider_of(candidate).zip(self.candidates.get(candidate));
        let free = found.is_some_and(|(provider, candidate)| {
            plan::exclusion(provider, &candidate.model.name, env).is_none() && plan::is_closed(provider, env)
        });
        if free {
            Permit::Free
        } else {
            Permit::Forced
        }
    }

    fn close_attempt(&mut self, verdict: Verdict, env: &mut Env<'_>) -> Note {
        let Phase::Asking { candidate, permit, started, .. } = self.phase else { return None };
        self.push(candidate, verdict.clone(), started, env.now);
        let cost = self.last_cost();
        self.settle_candidate(cost, env);
        self.report(candidate, verdict.outcome, permit, verdict.retry_after, env)
    }
}
