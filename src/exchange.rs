//! One client request from its plan to its last byte: a state machine. Its methods report what happened, and return what to do next.
//!
//! On Envoy the `router` role creates it, and the `attempt` roles of the providers' clusters share it. It decides what follows each
//! outcome, and writes it into the provider's health record when the attempt ends. Its parts have types of their own: [`candidates`] are the
//! providers that can serve the request, [`attempts`] what was tried and is under way, [`billing`] the money that is reserved, and
//! [`upstream_body`] what is sent.
//!
//! The order of the calls, where Envoy moves the request (`attempts.rs` has the states):
//!
//! 1. [`Exchange::new`] or [`Exchange::passing`], then what is known of the request: `set_tenant`, `keep_body`, `keep_headers`, …
//! 2. [`Exchange::start`] chooses the first provider, or returns the reply to a request that cannot be served.
//! 3. For each attempt: [`Exchange::begin`], then what it sends (`upstream_request.rs`), then one of [`Exchange::judge`],
//!    [`Exchange::passed`] and [`Exchange::misrouted`]. [`Next`] says what follows; [`Exchange::progress`] may come at any time.
//! 4. [`Exchange::ended`], if an answer was released before its end was known.
//! 5. [`Exchange::abandon`], if the attempt that was chosen last never began.
//! 6. [`Exchange::finish`] settles the budgets and returns what the record says.
//!
//! Where the gateway moves the request by itself, `relayed.rs` has what takes the place of 3 and 4. A call that comes out of this order
//! changes nothing and returns [`OutOfOrder`].

mod answer_limit;
mod attempts;
mod background;
mod billing;
mod candidates;
mod client_headers;
mod deadline;
mod detour;
mod facts;
mod health_record;
mod order;
mod passthrough;
mod portability;
mod relayed;
mod retry;
mod second_opinion;
mod shadow;
mod thoughts;
mod upstream_body;
mod upstream_request;

use std::rc::Rc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::client_api::errors::{Rejection, Reply};
use crate::client_api::request::{Body, Endpoint, Head, POLICY_OPTION};
use crate::config::{Config, Limits, NoRoute, Release};
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::routing::provider::{Provider, ProviderId};
use crate::selection::plan::{Candidate, Env};
use crate::spend::cost::Money;
use crate::spend::usage::Tally;
pub use attempts::OutOfOrder;
use attempts::{Attempts, Current, Phase};
use billing::Billing;
use candidates::Candidates;
use detour::Detour;
pub use facts::End;
use order::{serving, Ranking};
pub use passthrough::Pass;
pub use relayed::{Steering, Turn};
pub use second_opinion::Refused;
use second_opinion::SecondOpinion;
pub use shadow::Shadows;
use upstream_body::UpstreamBody;

/// One client request.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    request: Request,
    body: UpstreamBody,
    candidates: Candidates,
    ranking: Ranking,
    attempts: Attempts,
    billing: Billing,
    detour: Detour,
    second_opinion: SecondOpinion,
    /// The provider that gets a shadow request.
    shadow: Option<ProviderId>,
}

/// What is known of the client's request beside its body.
#[derive(Debug)]
struct Request {
    endpoint: Endpoint,
    /// The name of its route.
    route: Rc<str>,
    release: Release,
    limits: Limits,
    /// The gateway can wait for a provider that asks for it.
    can_wait: bool,
    /// The request goes to its provider unchanged.
    pass: Option<Pass>,
    /// A random number, from which the `id` of an answer that has none is made.
    number: u64,
    /// The gateway's own id of the request, such as Envoy's `x-request-id`; empty if it has none.
    id: String,
    /// The tenant; empty if none was named.
    tenant: String,
    started: Timestamp,
}

impl Request {
    fn new(endpoint: Endpoint, route: Rc<str>, limits: Limits) -> Self {
        Self {
            endpoint,
            route,
            release: Release::Complete,
            limits,
            can_wait: false,
            pass: None,
            number: 0,
            id: String::new(),
            tenant: String::new(),
            started: Timestamp::ZERO,
        }
    }
}

/// What to do after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The response goes to the client, with these additional headers.
    Deliver(Vec<(&'static str, String)>),
    /// Send another attempt.
    Retry {
        /// The provider's name, by which the gateway chooses where to send it.
        provider: String,
        /// How long to wait before, in seconds; 0 is at once.
        wait: u64,
    },
    /// No candidate is left: the client gets [`Exchange::failure`].
    Fail,
    /// The client has left: nothing is sent.
    Drop,
}

/// What to do after an attempt, and what the operator should read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub next: Next,
    /// A line for the log: a provider is excluded now, or is back.
    pub log: Option<String>,
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

/// Why an attempt must not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// The gateway routed it to the wrong provider, because the route's map or the name of the cluster's filter is wrong. This is the
    /// provider that was chosen; nothing of it, such as its key, may be sent to the other one.
    Misrouted(String),
    /// No attempt is due.
    OutOfOrder(OutOfOrder),
}

impl Exchange {
    /// Plans a request. `usable` says which providers the gateway can reach, as far as it knows.
    ///
    /// # Errors
    /// A [`Rejection`] if no route or no provider serves it, or if its route does not allow the policy that it asks for.
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
        let mut found = serving(&config, route, &body.model, usable);
        if found.is_empty() {
            // What the gateway knows of its clusters may be old: all of them are tried rather than none.
            found = serving(&config, route, &body.model, |_| true);
        }
        if found.is_empty() {
            return Err(Rejection::model(&body.model));
        }
        let asked = head.policy.as_deref();
        let kind = route
            .policy
            .requested(asked)
            .ok_or_else(|| Rejection::option(POLICY_OPTION, asked.unwrap_or_default()))?;
        let ranking = Ranking::new(Rc::clone(&route.policy), kind);
        let detour = Detour::new(route.on_break);
        let second_opinion = SecondOpinion::new(route.second_opinion.unwrap_or(config.retry.second_opinion));
        let request = Request {
            release: if head.complete { Release::Complete } else { route.release },
            can_wait: true,
            ..Request::new(route.endpoint, Rc::clone(&route.name), route.limits)
        };
        Ok(Self {
            body: UpstreamBody::new(body),
            detour,
            second_opinion,
            ..Self::planned(config, request, found, ranking)
        })
    }

    /// A request that was planned and of which nothing was sent.
    fn planned(config: Rc<Config>, request: Request, candidates: Vec<Candidate>, ranking: Ranking) -> Self {
        Self {
            config,
            request,
            body: UpstreamBody::default(),
            candidates: Candidates::new(candidates),
            ranking,
            attempts: Attempts::default(),
            billing: Billing::default(),
            detour: Detour::default(),
            second_opinion: SecondOpinion::default(),
            shadow: None,
        }
    }

    /// Names the tenant that the request is for.
    pub fn set_tenant(&mut self, tenant: String) {
        self.request.tenant = tenant;
    }

    /// Notes the gateway's own id of the request.
    pub fn set_request_id(&mut self, id: String) {
        self.request.id = id;
    }

    /// Chooses the first provider.
    ///
    /// # Errors
    /// The reply to the client if no provider can be tried: none can express the request, all are above `max_price`, or a budget is
    /// spent.
    pub fn start(&mut self, env: &mut Env<'_>) -> Result<Start, Box<Reply>> {
        self.request.started = env.now;
        self.request.number = env.random.u64(..);
        let chosen = self.choose_first(env);
        if chosen.is_err() {
            self.attempts.finish(false);
        }
        let provider = chosen?;
        Ok(Start { provider, per_try: self.limit(), live: self.live() })
    }

    fn choose_first(&mut self, env: &mut Env<'_>) -> Result<String, Box<Reply>> {
        self.keep_stored(env);
        self.refuse_background()?;
        self.order(env)?;
        self.find_makers(env);
        self.admit(env);
        match self.choose(&|_| true, true, env) {
            Some(provider) => Ok(provider),
            None => Err(Box::new(self.no_candidate(env))),
        }
    }

    /// Begins the attempt that the gateway routed to `provider`. `now` reads the clock, if it is needed.
    ///
    /// # Errors
    /// [`NotBegun`]: nothing may be sent to this provider.
    pub fn begin(&mut self, provider: &str, now: impl FnOnce() -> Timestamp) -> Result<(), NotBegun> {
        let current = self.attempts.expect_undecided("begin").map_err(NotBegun::OutOfOrder)?;
        // The first attempt follows its plan at once; a later one may have waited.
        let started = if self.was_tried() { now() } else { current.started };
        self.attempts.begin(Current { started, ..current });
        let chosen = self.name_of(current.candidate);
        if chosen == provider {
            Ok(())
        } else {
            Err(NotBegun::Misrouted(chosen.to_owned()))
        }
    }

    /// The provider that is tried, or that answers.
    pub fn provider(&self) -> Option<&Provider> {
        self.provider_of(self.attempts.current()?.candidate)
    }

    /// The provider that was chosen and whose attempt has not begun. Needed if the gateway itself replies in place of this provider.
    pub fn awaited(&self) -> Option<&str> {
        match self.attempts.phase() {
            Phase::Chosen(current) => Some(self.name_of(current.candidate)),
            Phase::NotAsking | Phase::Trying(_) | Phase::Delivering(_) | Phase::Over { .. } => None,
        }
    }

    /// The request is over although the attempt that was chosen never began: there is an [awaited](Self::awaited) one.
    ///
    /// # Errors
    /// [`OutOfOrder`]: the attempt has begun, or none was chosen.
    pub fn abandon(&mut self, env: &mut Env<'_>) -> Result<(), OutOfOrder> {
        let Phase::Chosen(current) = self.attempts.phase() else {
            return Err(self.attempts.out_of_order("abandon"));
        };
        self.release_permit(current, env);
        self.settle_attempt(Money::ZERO, env);
        self.attempts.finish(false);
        Ok(())
    }

    /// Whether an answer of a provider goes, or went, to the client.
    pub fn is_delivered(&self) -> bool {
        self.attempts.is_delivered()
    }

    /// Whether nothing more will be tried or delivered.
    pub const fn is_over(&self) -> bool {
        matches!(self.attempts.phase(), Phase::Over { .. })
    }

    /// Whether any attempt has ended.
    pub fn was_tried(&self) -> bool {
        self.attempts.last().is_some()
    }

    /// Notes how much of the answer has come. `now` reads the clock, if it is needed.
    pub fn progress(&mut self, tally: Tally, now: impl FnOnce() -> Timestamp) {
        if tally.begun && self.attempts.first_token.is_none() {
            self.attempts.first_token = Some(now());
        }
        self.attempts.tally = tally;
    }

    /// An attempt was judged before anything of it reached the client; [`Self::progress`] has said what was in it.
    /// `reused` says that its connection had served another request before; `over` that its answer has ended.
    ///
    /// # Errors
    /// [`OutOfOrder`]: no attempt is under way.
    pub fn judge(
        &mut self,
        verdict: Verdict,
        reused: bool,
        over: bool,
        env: &mut Env<'_>,
    ) -> Result<Decision, OutOfOrder> {
        let current = self.attempts.expect_undecided("judge")?;
        let outcome = verdict.outcome;
        if outcome == Outcome::Answered {
            self.measure(current, over, env);
        }
        // The outcome of a passthrough path says nothing about chats.
        let says_nothing =
            self.request.pass.is_some() || (outcome == Outcome::TooSlow && self.is_cut_short(current));
        self.attempts.end(current, verdict.clone(), env.now);
        if outcome == Outcome::Answered {
            self.note_answer(env);
            return Ok(self.answered(current, over, env));
        }
        self.settle_attempt(self.last_cost(), env);
        let log = if says_nothing {
            self.release_permit(current, env);
            None
        } else {
            self.report(current, &verdict, env)
        };
        let next = self.after_failure(current.candidate, &verdict, reused, env);
        Ok(Decision { next, log })
    }

    /// The answer of an attempt goes to the client. An attempt is counted when its answer ends. But a probe, or a forced attempt,
    /// has proved what it was sent for as soon as its answer has content: it is reported now, and counted once more at the end.
    fn answered(&mut self, current: Current, over: bool, env: &mut Env<'_>) -> Decision {
        let log = match current.permit {
            Permit::Free if !over => None,
            Permit::Free | Permit::Probe(_) | Permit::Forced => {
                self.report(current, &Verdict::without_response(Outcome::Answered), env)
            }
        };
        if over {
            self.attempts.finish(true);
        } else {
            self.attempts.deliver(Current { permit: Permit::Free, ..current });
        }
        Decision { next: Next::Deliver(self.headers(current.candidate, env.now)), log }
    }

    /// The answer that was being delivered has ended with this outcome. Returns a line for the log, if there is one.
    ///
    /// # Errors
    /// [`OutOfOrder`]: no answer is being delivered.
    pub fn ended(&mut self, outcome: Outcome, env: &mut Env<'_>) -> Result<Option<String>, OutOfOrder> {
        let current = self.attempts.expect_delivering("ended")?;
        // To the client, an answer that was refused in its middle is one that broke off, and its tokens were spent.
        let broke_off = matches!(outcome, Outcome::Refused | Outcome::BadRequest | Outcome::TooLong)
            && self.attempts.tally.begun;
        let recorded = if broke_off { Outcome::Truncated } else { outcome };
        self.attempts.end_delivery(current, recorded, env.now);
        Ok(self.report(current, &Verdict::without_response(outcome), env))
    }

    /// The attempt landed on a cluster that is not its provider's: nothing was sent, and another provider is tried.
    ///
    /// # Errors
    /// [`OutOfOrder`]: no attempt is under way.
    pub fn misrouted(&mut self, env: &mut Env<'_>) -> Result<Next, OutOfOrder> {
        let current = self.attempts.expect_undecided("misrouted")?;
        self.release_permit(current, env);
        self.settle_attempt(Money::ZERO, env);
        self.attempts.tally = Tally::default();
        let verdict = Verdict::without_response(Outcome::Unreachable);
        self.attempts.end(Current { started: env.now, ..current }, verdict, env.now);
        Ok(self.next(env))
    }

    /// The outcome of an attempt of which nothing but its end is known. `heard` says that response headers had arrived.
    pub fn silence(&self, heard: bool, now: Timestamp) -> Outcome {
        let Some(current) = self.attempts.undecided() else { return Outcome::Truncated };
        // Timers fire late, never early; but the clock that measures is not the timer's.
        let limit = self.limit().mul_f64(0.98);
        if now.since(current.started) >= limit {
            Outcome::TooSlow
        } else if heard {
            Outcome::Truncated
        } else {
            Outcome::Unreachable
        }
    }

    /// Whether the answer is released while it runs.
    pub fn live(&self) -> bool {
        self.body.said.stream && self.request.release == Release::FirstToken
    }
}

#[cfg(test)]
mod tests;
