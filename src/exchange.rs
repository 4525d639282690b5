//! One client request from its plan to its last byte: a state machine that is told what happened and says what to do.
//!
//! The `router` role creates it, the `attempt` roles of the providers' clusters share it. It keeps the attempts, decides
//! what follows each outcome, and writes every outcome into the provider's record exactly once.

mod account;
mod client_headers;
mod order;
mod passthrough;
mod portability;
mod relayed;
mod retry;
mod shadow;
mod upstream_request;

use std::rc::Rc;
use std::time::Duration;

use crate::base::clock::{seconds_up, Timestamp};
use crate::bytes::headers::Headers;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Body, Endpoint, Head};
use crate::config::{Config, Limits, NoRoute, Release};
use crate::dialects::dialect::Wire;
use crate::health::breaker::{fingerprint, Permit, Report};
use crate::health::outcome::{Outcome, Verdict};
use crate::routing::provider::{Provider, ProviderId};
use crate::selection::plan::{self, Candidate, Change, Env};
use crate::spend::cost::Money;
use crate::spend::usage::Tally;
use account::Account;
pub use account::End;
use order::{candidates, Ranking};
pub use passthrough::Pass;
pub use relayed::Turn;

/// One client request.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    endpoint: Endpoint,
    route: Rc<str>,
    body: Body,
    /// There is room for the body in another format.
    translates: bool,
    /// The body for the candidate that is asked, if it speaks another format.
    translated: Option<Vec<u8>>,
    /// Candidates that cannot be asked this, and why.
    unsuitable: Vec<(usize, String)>,
    /// The request goes to its provider as it is.
    pass: Option<Pass>,
    /// Somebody can wait for a provider that asked for it.
    waits: bool,
    /// The client's headers, if a candidate may receive any of them.
    client: Headers,
    release: Release,
    limits: Limits,
    ranking: Ranking,
    candidates: Vec<Candidate>,
    attempts: Vec<Attempt>,
    /// Candidates that were passed over, with the reason.
    degraded: Vec<(usize, &'static str)>,
    /// The largest context for which the request was too long.
    too_small: Option<u64>,
    phase: Phase,
    /// The answer under way, as far as it is known.
    tally: Tally,
    account: Account,
    /// The provider that gets a copy of it.
    shadowed: Option<ProviderId>,
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
    /// Its tokens.
    pub tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A candidate was chosen; its attempt has not begun, or is under way.
    Asking { candidate: usize, permit: Permit, started: Timestamp, begun: bool },
    /// An answer goes to the client. `permit` is what its end must still be reported on.
    Delivering { candidate: usize, permit: Permit, started: Timestamp },
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
    /// A [`Rejection`] if no route or no provider serves it, or not in the order that it asks for.
    pub fn new(
        config: Rc<Config>,
        head: &Head,
        body: Body,
        usable: impl Fn(&str) -> bool,
    ) -> Result<Self, Rejection> {
        let route = config.route(&head.path, &body.model).map_err(|missing| match missing {
            NoRoute::Model => Rejection::model(&body.model),
            NoRoute::Path => Rejection::path("POST", &head.path),
        })?;
        let mut found = candidates(&config, route, &body.model, usable);
        if found.is_empty() {
            // None can be reached, as far as is known: what is known may be old.
            found = candidates(&config, route, &body.model, |_| true);
        }
        if found.is_empty() {
            return Err(Rejection::model(&body.model));
        }
        let asked = head.policy.as_deref();
        let kind = route
            .policy
            .requested(asked)
            .ok_or_else(|| Rejection::option(client_headers::POLICY, asked.unwrap_or_default()))?;
        let release = if head.complete { Release::Complete } else { route.release };
        let ranking = Ranking::new(Rc::clone(&route.policy), kind);
        let (endpoint, name, limits) = (route.endpoint, Rc::clone(&route.name), route.limits);
        Ok(Self {
            body,
            release,
            waits: true,
            ..Self::unasked(config, endpoint, name, found, limits, ranking)
        })
    }

    /// A request of which nobody was asked yet, without a body, and released when its answer is complete.
    fn unasked(
        config: Rc<Config>,
        endpoint: Endpoint,
        route: Rc<str>,
        candidates: Vec<Candidate>,
        limits: Limits,
        ranking: Ranking,
    ) -> Self {
        Self {
            config,
            endpoint,
            route,
            body: Body::default(),
            translates: false,
            translated: None,
            unsuitable: Vec::new(),
            pass: None,
            waits: false,
            client: Headers::default(),
            release: Release::Complete,
            limits,
            ranking,
            candidates,
            attempts: Vec::new(),
            degraded: Vec::new(),
            too_small: None,
            phase: Phase::Over { delivered: false },
            tally: Tally::default(),
            account: Account::default(),
            shadowed: None,
        }
    }

    /// Chooses the first provider.
    ///
    /// # Errors
    /// The reply to a request that nobody can be asked, or at no price that is allowed, or for which there is no money.
    pub fn start(&mut self, env: &mut Env<'_>) -> Result<Start, Box<Reply>> {
        self.open_account(env);
        self.stay(env);
        self.order(env)?;
        self.admit(env)?;
        match self.choose(|_| true, env) {
            Some(provider) => Ok(Start { provider, per_try: self.limit(), live: self.live() }),
            None => Err(Box::new(self.nobody(env))),
        }
    }

    /// Begins the attempt that the gateway routed to `provider`. `now` reads the clock, if it is needed.
    ///
    /// # Errors
    /// The provider that was meant, if it is another one: the route's map or the cluster's filter is wrong. Nothing of
    /// the meant provider may be sent there.
    pub fn begin(&mut self, provider: &str, now: impl FnOnce() -> Timestamp) -> Result<(), String> {
        let Phase::Asking { candidate, started, begun, .. } = &mut self.phase else {
            return Err(String::new());
        };
        *begun = true;
        // The first attempt follows its plan at once; a later one may have waited.
        if !self.attempts.is_empty() {
            *started = now();
        }
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
            Phase::Asking { candidate, .. } | Phase::Delivering { candidate, .. } => {
                self.provider_of(candidate)
            }
            Phase::Over { .. } => None,
        }
    }

    /// The provider whose attempt should begin and has not: asked when the gateway answers instead.
    pub fn awaited(&self) -> Option<&str> {
        match self.phase {
            Phase::Asking { candidate, begun: false, .. } => Some(self.name_of(candidate)),
            Phase::Asking { .. } | Phase::Delivering { .. } | Phase::Over { .. } => None,
        }
    }

    /// The request is over although its attempt never began. Nobody's failure, but a probe gives its permit back.
    pub fn abandon(&mut self, env: &mut Env<'_>) {
        if let Phase::Asking { candidate, permit, begun: false, .. } = self.phase {
            let _ = self.report(candidate, Outcome::ClientGone, permit, None, env);
            self.settle_candidate(Money::ZERO, env);
            self.phase = Phase::Over { delivered: false };
        }
    }

    /// Whether an answer of a provider goes, or went, to the client.
    pub const fn is_delivered(&self) -> bool {
        matches!(self.phase, Phase::Delivering { .. } | Phase::Over { delivered: true })
    }

    /// Whether nothing more will be tried or delivered.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    /// Whether any attempt has ended.
    pub fn was_tried(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// What is known of the answer under way. `now` reads the clock, if it is needed.
    pub fn progress(&mut self, tally: Tally, now: impl FnOnce() -> Timestamp) {
        if tally.begun && self.account.first_token.is_none() {
            self.account.first_token = Some(now());
        }
        self.tally = tally;
    }

    /// An attempt was judged before anything of it reached the client; [`Self::progress`] has told what was in it.
    /// `reused` says that its connection had served another request before; `over` that its answer has ended.
    pub fn judge(&mut self, verdict: Verdict, reused: bool, over: bool, env: &mut Env<'_>) -> (Next, Note) {
        let Phase::Asking { candidate, permit, started, .. } = self.phase else { return (Next::Drop, None) };
        let outcome = verdict.outcome;
        if outcome == Outcome::Answered {
            self.measure(candidate, started, over, env);
        }
        self.push(candidate, verdict.clone(), started, env.now);
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
            let headers = self.headers(candidate, env.now);
            self.phase = if over {
                Phase::Over { delivered: true }
            } else {
                Phase::Delivering { candidate, permit, started }
            };
            return (Next::Deliver(headers), note);
        }
        let cost = self.last_cost();
        self.settle_candidate(cost, env);
        // What listed paths come to says nothing about chats; but a probe must give its permit back.
        let counted = if self.pass.is_some() { Outcome::ClientGone } else { outcome };
        let note = self.report(candidate, counted, permit, verdict.retry_after, env);
        let next = self.follow(candidate, &verdict, reused, env);
        (next, note)
    }

    /// An answer that was being delivered has ended so.
    pub fn ended(&mut self, outcome: Outcome, env: &mut Env<'_>) -> Note {
        let Phase::Delivering { candidate, permit, started } = self.phase else { return None };
        self.phase = Phase::Over { delivered: true };
        let tally = std::mem::take(&mut self.tally);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.verdict.outcome = outcome;
            attempt.took = env.now.since(started);
            if tally != Tally::default() {
                attempt.tally = tally;
            }
        }
        self.report(candidate, outcome, permit, None, env)
    }

    /// What the attempt that has just failed is billed.
    fn last_cost(&self) -> Money {
        let last = self.attempts.last();
        let bill = last.and_then(|last| self.bill(last.candidate, last.verdict.outcome, &last.tally, false));
        bill.and_then(|bill| bill.cost).unwrap_or_default()
    }

    fn push(&mut self, candidate: usize, verdict: Verdict, started: Timestamp, now: Timestamp) {
        if verdict.outcome != Outcome::Answered {
            self.account.first_token = None;
        }
        let tally = std::mem::take(&mut self.tally);
        self.attempts.push(Attempt { candidate, verdict, took: now.since(started), waited: false, tally });
    }

    /// The attempt landed on a cluster that is not its provider's: nothing was sent, the next one is asked.
    pub fn misrouted(&mut self, env: &mut Env<'_>) -> Next {
        let Phase::Asking { candidate, permit, .. } = self.phase else { return Next::Fail };
        // Nobody's failure, but a probe must give its permit back.
        let _ = self.report(candidate, Outcome::ClientGone, permit, None, env);
        self.settle_candidate(Money::ZERO, env);
        self.tally = Tally::default();
        self.push(candidate, Verdict::without_response(Outcome::Unreachable), env.now, env.now);
        self.next(env)
    }

    /// What an attempt that ended without a judgement came to: nothing but its end is known. `heard` says that response
    /// headers had arrived.
    pub fn silence(&self, heard: bool, now: Timestamp) -> Outcome {
        let Phase::Asking { started, .. } = self.phase else { return Outcome::Truncated };
        // Timers fire late, never early; but the clock that measures is not the timer's.
        let limit = self.limit().mul_f64(0.98);
        if now.since(started) >= limit {
            Outcome::TooSlow
        } else if heard {
            Outcome::Truncated
        } else {
            Outcome::Unreachable
        }
    }

    fn report(
        &self,
        candidate: usize,
        outcome: Outcome,
        permit: Permit,
        retry_after: Option<Duration>,
        env: &mut Env<'_>,
    ) -> Note {
        if self.config.is_shadow {
            // What becomes of a copy must change nothing for anybody.
            return None;
        }
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

    fn tried(&self, place: usize) -> bool {
        self.attempts.iter().any(|attempt| attempt.candidate == place)
    }

    /// How long an attempt may take before its answer is released: a live stream until its first content, everything else
    /// until its end.
    pub fn limit(&self) -> Duration {
        if self.live() {
            self.limits.first_token
        } else {
            self.limits.answer
        }
    }

    /// Whether the answer is released while it runs.
    pub fn live(&self) -> bool {
        self.body.stream && self.release == Release::FirstToken
    }

    fn provider_of(&self, candidate: usize) -> Option<&Provider> {
        let id: ProviderId = self.candidates.get(candidate)?.provider;
        self.config.provider(id)
    }

    fn wire_of(&self, candidate: usize) -> Wire {
        self.provider_of(candidate).map_or(Wire::OpenAi, |provider| provider.dialect.wire)
    }

    fn name_of(&self, candidate: usize) -> &str {
        self.provider_of(candidate).map_or("?", |provider| &provider.name)
    }
}

#[cfg(test)]
mod tests;
