//! One client request from its plan to its last byte: a state machine that is told what happened and says what to do.
//!
//! The `router` role creates it, the `attempt` roles of the providers' clusters share it. It keeps the attempts, decides
//! what follows each outcome, and writes every outcome into the provider's record exactly once.

use std::rc::Rc;
use std::time::Duration;

use crate::breaker::{fingerprint, Permit, Reason, Report};
use crate::clock::{millis, seconds_up, Timestamp};
use crate::config::{Config, Limits, Release, Route};
use crate::outcome::{Outcome, Verdict};
use crate::plan::{self, Candidate, Change, Env};
use crate::policy::Policy;
use crate::provider::{Provider, ProviderId};
use crate::report::{self, envelope, json_type, printable, Rejection, Reply};
use crate::request::{Body, Head};
use crate::rewrite::Splice;

/// One client request.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    body: Body,
    release: Release,
    limits: Limits,
    policy: Policy,
    candidates: Vec<Candidate>,
    attempts: Vec<Attempt>,
    /// Candidates that were passed over, with the reason.
    degraded: Vec<(usize, Reason)>,
    phase: Phase,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The place in the candidates.
    pub candidate: usize,
    /// What it came to.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// It waited for the provider's Retry-After afterwards.
    pub waited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A candidate was chosen; its attempt has not begun, or is under way.
    Asking { candidate: usize, permit: Permit, started: Timestamp },
    /// An answer goes to the client. `permit` is what its end must still be reported on.
    Delivering { candidate: usize, permit: Permit },
    /// Nothing more will be tried.
    Over { delivered: bool },
}

/// What to do after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The response goes to the client, with these headers more.
    Deliver(Vec<(&'static str, String)>),
    /// Try again: this provider, after so many whole seconds.
    Retry {
        /// The provider's name, for the route.
        provider: String,
        /// How long to wait before, in seconds; 0 is at once.
        wait: u64,
    },
    /// Nobody is left: the client gets [`Exchange::failure`].
    Fail,
    /// Nobody waits any more.
    Drop,
}

/// How the gateway must be set up for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first provider's name.
    pub provider: String,
    /// How often the gateway may retry.
    pub max_retries: u32,
    /// The longest time of one attempt before its response is released.
    pub per_try: Duration,
    /// The stream is released while it runs, so a stall must be found by an idle limit.
    pub live: bool,
}

/// What the operator should read in the log.
pub type Note = Option<String>;

impl Exchange {
    /// Plans a request. `usable` says which providers the gateway can reach at all.
    ///
    /// # Errors
    /// A [`Rejection`] if no route or no provider serves it.
    pub fn new(
        config: Rc<Config>,
        head: &Head,
        body: Body,
        usable: impl Fn(&str) -> bool,
    ) -> Result<Self, Rejection> {
        let route = config.route(&head.path, &body.model).map_err(|known| {
            if known { Rejection::model(&body.model) } else { Rejection::path("POST", &head.path) }
        })?;
        let candidates = candidates(&config, route, &body.model, usable);
        if candidates.is_empty() {
            return Err(Rejection::model(&body.model));
        }
        let release = if head.complete { Release::Complete } else { route.release };
        let (limits, policy) = (route.limits, route.policy);
        Ok(Self {
            candidates: policy.order(candidates),
            body,
            release,
            limits,
            policy,
            attempts: Vec::new(),
            degraded: Vec::new(),
            phase: Phase::Over { delivered: false },
            config,
        })
    }

    /// Chooses the first provider.
    pub fn start(&mut self, env: &mut Env<'_>) -> Option<Start> {
        let provider = self.choose(|_| true, env)?;
        Some(Start {
            provider,
            max_retries: self.allowed().saturating_sub(1),
            per_try: self.per_try(),
            live: self.live(),
        })
    }

    /// Begins the attempt that the gateway routed to `provider`.
    ///
    /// # Errors
    /// The provider that was meant, if it is another one: the route's map or the cluster's filter is wrong. Nothing of
    /// the meant provider may be sent there.
    pub fn begin(&mut self, provider: &str, now: Timestamp) -> Result<(), String> {
        let Phase::Asking { candidate, started, .. } = &mut self.phase else { return Err(String::new()) };
        *started = now;
        let candidate = *candidate;
        match self.provider_of(candidate) {
            Some(meant) if meant.name == provider => Ok(()),
            Some(meant) => Err(meant.name.clone()),
            None => Err(String::new()),
        }
    }

    /// The provider that is asked or answers now.
    pub fn provider(&self) -> Option<&Provider> {
        match self.phase {
            Phase::Asking { candidate, .. } | Phase::Delivering { candidate, .. } => self.provider_of(candidate),
            Phase::Over { .. } => None,
        }
    }

    /// The change that this attempt's provider needs in the body.
    pub fn splice(&self) -> Option<Splice> {
        let Phase::Asking { candidate, .. } = self.phase else { return None };
        let name = &self.candidates.get(candidate)?.model.name;
        Splice::model(&self.body.model, name, &self.body.model_span)
    }

    /// The length of the client's body.
    pub const fn body_len(&self) -> usize {
        self.body.len
    }

    /// Whether the client asked for a stream.
    pub const fn stream(&self) -> bool {
        self.body.stream
    }

    /// When a stream is released.
    pub const fn release(&self) -> Release {
        self.release
    }

    /// How much of an answer may be held back, in bytes.
    pub fn max_held(&self) -> usize {
        self.config.sizes.max_held
    }

    /// Whether an answer of a provider goes, or went, to the client.
    pub const fn is_delivered(&self) -> bool {
        matches!(self.phase, Phase::Delivering { .. } | Phase::Over { delivered: true })
    }

    /// Whether any attempt has ended.
    pub fn was_tried(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// An attempt was judged before anything of it reached the client. `reused` says that its connection had served
    /// another request before; `over` that its answer has ended.
    pub fn judge(&mut self, verdict: Verdict, reused: bool, over: bool, env: &mut Env<'_>) -> (Next, Note) {
        let Phase::Asking { candidate, permit, started } = self.phase else { return (Next::Drop, None) };
        let outcome = verdict.outcome;
        let took = env.now.since(started);
        self.attempts.push(Attempt { candidate, verdict: verdict.clone(), took, waited: false });
        if outcome == Outcome::Answered {
            // One attempt is one outcome in the window, counted at its end; but a probe that has content has proved
            // what it had to.
            let (permit, note) = match permit {
                Permit::Free if !over => (Permit::Free, None),
                Permit::Free => (Permit::Free, self.report(candidate, outcome, permit, None, env)),
                Permit::Probe(_) | Permit::Forced => {
                    (Permit::Free, self.report(candidate, outcome, permit, None, env))
                }
            };
            let headers = self.headers(candidate);
            self.phase =
                if over { Phase::Over { delivered: true } } else { Phase::Delivering { candidate, permit } };
            return (Next::Deliver(headers), note);
        }
        let note = self.report(candidate, outcome, permit, verdict.retry_after, env);
        let next = self.follow(candidate, &verdict, reused, env);
        (next, note)
    }

    /// An answer that was being delivered has ended so.
    pub fn ended(&mut self, outcome: Outcome, env: &mut Env<'_>) -> Note {
        let Phase::Delivering { candidate, permit } = self.phase else { return None };
        self.phase = Phase::Over { delivered: true };
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.verdict.outcome = outcome;
        }
        self.report(candidate, outcome, permit, None, env)
    }

    /// The attempt landed on a cluster that is not its provider's: nothing was sent, the next one is asked.
    pub fn misrouted(&mut self, env: &mut Env<'_>) -> Next {
        let Phase::Asking { candidate, permit, .. } = self.phase else { return Next::Fail };
        // Nobody's failure, but a probe must give its permit back.
        let _ = self.report(candidate, Outcome::ClientGone, permit, None, env);
        self.attempts.push(Attempt {
            candidate,
            verdict: Verdict::without_response(Outcome::Unreachable),
            took: Duration::ZERO,
            waited: false,
        });
        self.next(|_| true, env)
    }

    /// What an attempt that ended without a judgement came to: nothing but its end is known. `heard` says that response
    /// headers had arrived.
    pub fn silence(&self, heard: bool, now: Timestamp) -> Outcome {
        let Phase::Asking { started, .. } = self.phase else { return Outcome::Truncated };
        // Timers fire late, never early; but the clock that measures is not the timer's.
        let limit = self.per_try().mul_f64(0.98);
        if now.since(started) >= limit {
            Outcome::TooSlow
        } else if heard {
            Outcome::Truncated
        } else {
            Outcome::Unreachable
        }
    }

    /// The reply when every provider failed.
    pub fn failure(&self, env: &mut Env<'_>) -> Reply {
        let last = self.attempts.last();
        let status = last.map_or(503, |attempt| status_for(&attempt.verdict));
        let kind = match status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "api_error",
        };
        let told: Vec<String> = self.attempts.iter().map(|attempt| self.tell(attempt)).collect();
        let message = format!("Every provider failed: {}", told.join(", "));
        let mut headers = vec![json_type(), (report::ATTEMPTS, self.attempts_header())];
        headers.push((report::POLICY, self.policy.name().to_owned()));
        headers.extend(self.degraded_header());
        if let Some(wait) = self.free_in(env) {
            headers.push(("retry-after", seconds_up(wait).max(1).to_string()));
        }
        if !self.attempts.iter().any(|attempt| attempt.verdict.outcome.passes()) {
            headers.push(("x-should-retry", "false".to_owned()));
        }
        Reply { status, headers, body: envelope(&message, kind, None, Some("all_providers_failed")) }
    }

    /// What follows a failed attempt.
    fn follow(&mut self, candidate: usize, verdict: &Verdict, reused: bool, env: &mut Env<'_>) -> Next {
        match verdict.outcome {
            Outcome::Answered | Outcome::Refused | Outcome::BadRequest => self.deliver(candidate),
            Outcome::ClientGone => {
                self.phase = Phase::Over { delivered: false };
                Next::Drop
            }
            Outcome::TooLong => {
                let context = |place: usize| self.candidates.get(place).and_then(|c| c.model.context);
                let too_small = context(candidate);
                let larger: Vec<bool> =
                    (0..self.candidates.len()).map(|place| context(place) > too_small && too_small.is_some()).collect();
                match self.next(|place| larger.get(place) == Some(&true), env) {
                    // Nobody has more room: the client must hear why.
                    Next::Fail => self.deliver(candidate),
                    next => next,
                }
            }
            Outcome::ServerError => {
                let again = self.config.retry.same_provider;
                self.same(candidate, Outcome::ServerError, again, 0, env).unwrap_or_else(|| self.next(|_| true, env))
            }
            Outcome::Unreachable if reused => {
                self.same(candidate, Outcome::Unreachable, 1, 0, env).unwrap_or_else(|| self.next(|_| true, env))
            }
            Outcome::RateLimited => {
                let wait = verdict.retry_after.map(seconds_up).filter(|seconds| {
                    // Envoy waits up to half as long again.
                    Duration::from_millis(seconds.saturating_mul(1500)) <= self.config.retry.wait
                });
                let same = wait.and_then(|wait| self.same(candidate, Outcome::RateLimited, 1, wait, env));
                same.unwrap_or_else(|| self.next(|_| true, env))
            }
            Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::OutOfQuota
            | Outcome::BadKey
            | Outcome::NoSuchModel => self.next(|_| true, env),
        }
    }

    /// The same provider once more, if this outcome was met there at most `times` times, its breaker is still closed, and
    /// enough attempts remain for everybody who was not asked yet.
    fn same(&mut self, candidate: usize, outcome: Outcome, times: u32, wait: u64, env: &mut Env<'_>) -> Option<Next> {
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
        if !plan::is_closed(provider, env) {
            return None;
        }
        let name = provider.name.clone();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.waited = wait > 0;
        }
        self.phase = Phase::Asking { candidate, permit: Permit::Free, started: env.now };
        Some(Next::Retry { provider: name, wait })
    }

    /// The next candidate that was not tried and that `eligible` lets through.
    fn next(&mut self, eligible: impl Fn(usize) -> bool, env: &mut Env<'_>) -> Next {
        if self.remaining() > 0 {
            let tried: Vec<bool> = (0..self.candidates.len()).map(|place| self.tried(place)).collect();
            let open = |place: usize| tried.get(place) == Some(&false) && eligible(place);
            if let Some(provider) = self.choose(open, env) {
                return Next::Retry { provider, wait: 0 };
            }
        }
        self.phase = Phase::Over { delivered: false };
        Next::Fail
    }

    fn deliver(&mut self, candidate: usize) -> Next {
        self.phase = Phase::Over { delivered: true };
        Next::Deliver(self.headers(candidate))
    }

    fn choose(&mut self, eligible: impl Fn(usize) -> bool, env: &mut Env<'_>) -> Option<String> {
        // A probe is given up only after its attempt must have ended.
        let lease = self.per_try().saturating_add(LEASE_SLACK);
        let choice = plan::choose(&self.config, &self.candidates, eligible, lease, env)?;
        for (place, reason) in choice.passed_over {
            if !self.degraded.iter().any(|(known, _)| *known == place) {
                self.degraded.push((place, reason));
            }
        }
        self.phase = Phase::Asking { candidate: choice.candidate, permit: choice.permit, started: env.now };
        self.provider_of(choice.candidate).map(|provider| provider.name.clone())
    }

    fn report(
        &self,
        candidate: usize,
        outcome: Outcome,
        permit: Permit,
        retry_after: Option<Duration>,
        env: &mut Env<'_>,
    ) -> Note {
        let provider = self.provider_of(candidate)?;
        let model = fingerprint([self.candidates.get(candidate)?.model.name.as_str()]);
        let report = Report { outcome, permit, retry_after, model };
        match plan::report(&self.config, provider, report, env) {
            Ok(Change::Nothing) => None,
            Ok(Change::Excluded(exclusion)) => {
                let seconds = seconds_up(exclusion.until.since(env.now));
                let (name, why) = (&provider.name, exclusion.reason.name());
                Some(format!("provider {name} is left out for {seconds} s: {why}, after {}", outcome.name()))
            }
            Ok(Change::Closed) => Some(format!("provider {} is back: its breaker is closed", provider.name)),
            Err(plan_lost) => Some(format!("a report on {} was lost: {plan_lost:?}", provider.name)),
        }
    }

    /// Attempts in all.
    fn allowed(&self) -> u32 {
        let each = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        self.config.retry.attempts.unwrap_or_else(|| each.saturating_add(self.config.retry.same_provider))
    }

    fn remaining(&self) -> u32 {
        self.allowed().saturating_sub(u32::try_from(self.attempts.len()).unwrap_or(u32::MAX))
    }

    fn tried(&self, place: usize) -> bool {
        self.attempts.iter().any(|attempt| attempt.candidate == place)
    }

    /// A stream that is released at its first content has a limit for that; everything else must be whole in time.
    fn per_try(&self) -> Duration {
        if self.live() {
            self.limits.first_token
        } else {
            self.limits.answer
        }
    }

    fn live(&self) -> bool {
        self.body.stream && self.release == Release::FirstToken
    }

    fn provider_of(&self, candidate: usize) -> Option<&Provider> {
        let id: ProviderId = self.candidates.get(candidate)?.provider;
        self.config.provider(id)
    }

    fn name_of(&self, candidate: usize) -> &str {
        self.provider_of(candidate).map_or("?", |provider| &provider.name)
    }

    fn headers(&self, candidate: usize) -> Vec<(&'static str, String)> {
        let model = self.candidates.get(candidate).map_or("", |candidate| &candidate.model.name);
        let mut headers = vec![
            (report::PROVIDER, self.name_of(candidate).to_owned()),
            (report::MODEL, printable(model)),
            (report::ATTEMPTS, self.attempts_header()),
            (report::POLICY, self.policy.name().to_owned()),
        ];
        headers.extend(self.degraded_header());
        headers
    }

    fn attempts_header(&self) -> String {
        let each = |attempt: &Attempt| {
            [self.name_of(attempt.candidate), ":", attempt.verdict.outcome.name()].concat()
        };
        self.attempts.iter().map(each).collect::<Vec<_>>().join(",")
    }

    /// Providers that were passed over and did not serve after all.
    fn degraded_header(&self) -> Option<(&'static str, String)> {
        let left_out = self.degraded.iter().filter(|(place, _)| !self.tried(*place));
        let each: Vec<String> =
            left_out.map(|(place, reason)| [self.name_of(*place), ":", reason.name()].concat()).collect();
        (!each.is_empty()).then(|| (report::DEGRADED, each.join(",")))
    }

    fn tell(&self, attempt: &Attempt) -> String {
        let name = self.name_of(attempt.candidate);
        let outcome = attempt.verdict.outcome.name();
        let took = millis(attempt.took);
        match attempt.verdict.status {
            Some(status) => format!("{name}: {outcome} ({status}) after {took} ms"),
            None => format!("{name}: {outcome} after {took} ms"),
        }
    }

    /// In how long the first candidate is free again, if all are set aside, or what the last one asked for.
    fn free_in(&self, env: &mut Env<'_>) -> Option<Duration> {
        let mut first: Option<Timestamp> = None;
        for candidate in &self.candidates {
            let provider = self.config.provider(candidate.provider)?;
            let Some(exclusion) = plan::exclusion(provider, &candidate.model.name, env) else {
                return self.attempts.last().and_then(|attempt| attempt.verdict.retry_after);
            };
            first = Some(first.map_or(exclusion.until, |first| first.min(exclusion.until)));
        }
        first.map(|first| first.since(env.now))
    }
}

/// What a probe may take beyond its limit before its permit lapses: the gateway's own time.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// The client's status for the last failure: the provider's own if it was an error.
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

/// The providers of a route that have the model, as far as the gateway can reach them.
fn candidates(config: &Config, route: &Route, model: &str, usable: impl Fn(&str) -> bool) -> Vec<Candidate> {
    let resolve = |id: &ProviderId| {
        let provider = config.provider(*id).filter(|provider| usable(&provider.name))?;
        Some(Candidate { provider: *id, model: provider.resolve(model)? })
    };
    route.providers.iter().filter_map(resolve).collect()
}

#[cfg(test)]
mod tests;
