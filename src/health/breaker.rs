//! What is known of one provider: breaker, holds, and how both follow from outcomes. Pure transitions on one record.
//!
//! The breaker is the one of Nygard's *Release It!*: closed, open for a time, then half-open, where one request at a time
//! may try. It opens after `consecutive_failures` in a row, or when `error_rate` of at least `minimum_requests` within
//! `window` failed. The open time doubles with every trip in succession up to `max_open`, and is stretched by up to a
//! tenth at random, so that gateways do not come back in step.
//!
//! A *hold* is not a failure: the provider said when to come back (429), or that it will not serve this key (401, 402,
//! 403) or this model (404). It ends by itself, is never shortened, and doubles while it repeats.
//!
//! ```text
//!            failures                    open time over, permit taken
//!   Closed ───────────► Open ────────────────────────────────► HalfOpen
//!     ▲                  ▲  a failed probe: twice as long          │
//!     │                  └─────────────────────────────────────────┤
//!     └────────────────────────────────────── `probes` successes ──┘
//! ```

mod record;
mod window;

use std::time::Duration;

use crate::base::clock::Timestamp;
pub use crate::base::store::fingerprint;
use crate::health::outcome::{Effect, HoldReason, Outcome};

pub use window::Window;

/// When a breaker opens, for how long, and how it closes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Failures in a row that open it.
    pub consecutive_failures: u16,
    /// The share of failures, 0 to 1, that opens it.
    pub error_rate: f64,
    /// How many attempts the window must hold before the rate counts.
    pub minimum_requests: u32,
    /// The length of the window.
    pub window: Duration,
    /// How long it stays open the first time.
    pub open: Duration,
    /// The longest open time.
    pub max_open: Duration,
    /// Successful probes in a row that close it.
    pub probes: u8,
}

/// How long providers are set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldPolicy {
    /// A 429 that does not say when to come back.
    pub rate_limited: Duration,
    /// An empty account.
    pub out_of_quota: Duration,
    /// A refused key.
    pub bad_key: Duration,
    /// A model that the provider does not have.
    pub no_such_model: Duration,
    /// The longest hold of all, whatever a header says and however often it repeats.
    pub max: Duration,
}

impl HoldPolicy {
    const fn base(&self, reason: HoldReason) -> Duration {
        match reason {
            HoldReason::RateLimited => self.rate_limited,
            HoldReason::OutOfQuota => self.out_of_quota,
            HoldReason::BadKey => self.bad_key,
        }
    }
}

/// Closed, open or half-open, each with its own data only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests flow.
    Closed {
        /// Failures in a row.
        consecutive: u16,
        /// Recent results.
        window: Window,
        /// How often it has opened in succession; forgiven after `max_open` without a trip.
        trips: u8,
        /// Since when it is closed.
        since: Timestamp,
    },
    /// No request flows.
    Open {
        /// Until when.
        until: Timestamp,
        /// How often it has opened in succession, this time included.
        trips: u8,
    },
    /// One request at a time tries.
    HalfOpen {
        /// The permit that is out; 0 if none is.
        permit: u32,
        /// When that permit lapses.
        lapses: Timestamp,
        /// As in `Open`.
        trips: u8,
        /// Probes that succeeded so far.
        successes: u8,
    },
}

/// A provider set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: HoldReason,
    /// How often in succession.
    pub streak: u8,
}

/// One model of the provider set aside. The model is kept as a hash: clients choose names, records stay small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelHold {
    /// [`fingerprint`] of the model's name; 0 if the slot is free.
    pub model: u64,
    /// Until when.
    pub until: Timestamp,
    /// How often in succession.
    pub streak: u8,
}

/// How many models of one provider can be set aside at once. With more, the one that would be free first makes room.
pub const MODEL_SLOTS: usize = 4;

/// Everything known of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// [`fingerprint`] of the provider's configuration: another one's record does not apply.
    pub fingerprint: u64,
    /// The breaker.
    pub state: State,
    /// The hold, also when it is over: its streak counts until a success.
    pub hold: Option<Hold>,
    /// Models set aside.
    pub models: [ModelHold; MODEL_SLOTS],
}

/// Leave to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The breaker is closed.
    Free,
    /// The one probe of a half-open breaker.
    Probe(u32),
    /// Nobody was free, so this one was tried against the breaker's advice.
    Forced,
}

/// Why a provider is left out, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// When it may be asked again.
    pub until: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// Why a provider is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The breaker is open, or half-open with its permit out.
    Open,
    /// A hold.
    Held(HoldReason),
    /// A hold on the model asked for.
    ModelHeld,
}

impl Reason {
    /// The name in headers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held(reason) => reason.name(),
            Self::ModelHeld => Outcome::NoSuchModel.name(),
        }
    }
}

/// The end of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What it came to.
    pub outcome: Outcome,
    /// The permit that it ran on.
    pub permit: Permit,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
    /// [`fingerprint`] of the model's name at the provider.
    pub model: u64,
}

impl Record {
    /// A provider of which nothing is known.
    pub fn new(fingerprint: u64) -> Self {
        Self {
            fingerprint,
            state: State::Closed {
                consecutive: 0,
                window: Window::default(),
                trips: 0,
                since: Timestamp::ZERO,
            },
            hold: None,
            models: [ModelHold::default(); MODEL_SLOTS],
        }
    }

    /// Reads a record; what is absent, damaged, of another version or of another configuration is a new one.
    pub fn read(bytes: &[u8], fingerprint: u64) -> Self {
        match Self::decode(bytes) {
            Some(record) if record.fingerprint == fingerprint => record,
            _ => Self::new(fingerprint),
        }
    }

    /// Why the provider must be left out now, if it must.
    pub fn exclusion(&self, model: u64, now: Timestamp) -> Option<Exclusion> {
        let breaker = match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until),
            State::HalfOpen { permit: 0, .. } => None,
            State::HalfOpen { lapses, .. } => Some(lapses),
        };
        let breaker = breaker.map(|until| Exclusion { until, reason: Reason::Open });
        let hold = self.hold.map(|hold| Exclusion { until: hold.until, reason: Reason::Held(hold.reason) });
        let model = self
            .models
            .iter()
            .find(|hold| hold.model == model && model != 0)
            .map(|hold| Exclusion { until: hold.until, reason: Reason::ModelHeld });
        [breaker, hold, model]
            .into_iter()
            .flatten()
            .filter(|exclusion| exclusion.until > now)
            .max_by_key(|exclusion| exclusion.until)
    }

    /// Whether sending a request needs a permit, that is: a write to the record before it.
    pub const fn needs_permit(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Takes leave to send a request that nothing excludes. `permit` is a number that no other probe has; a probe that
    /// has not come back after `lease` gives it up.
    pub fn admit(&mut self, permit: u32, lease: Duration, now: Timestamp) -> Permit {
        let (trips, successes) = match self.state {
            State::Closed { .. } => return Permit::Free,
            State::Open { trips, .. } => (trips, 0),
            State::HalfOpen { trips, successes, .. } => (trips, successes),
        };
        let permit = permit.max(1);
        self.state = State::HalfOpen { permit, lapses: now.after(lease), trips, successes };
        Permit::Probe(permit)
    }

    /// The record after an attempt. `jitter` is a random number from 0 to 1. Returns whether anything changed.
    pub fn report(&mut self, report: Report, now: Timestamp, jitter: f64, rules: Rules<'_>) -> bool {
        let before = *self;
        match report.outcome.effect() {
            Effect::Success => {
                // A success that began before a hold says nothing about it.
                let over = |until: Timestamp| until <= now || report.permit == Permit::Forced;
                self.hold = self.hold.filter(|hold| !over(hold.until));
                let slot = self.models.iter_mut().find(|slot| slot.model == report.model && over(slot.until));
                if let Some(slot) = slot {
                    *slot = ModelHold::default();
                }
                self.state = after_success(self.state, report.permit, now, rules.breaker);
            }
            Effect::Failure => {
                self.state = after_failure(self.state, report.permit, now, jitter, rules.breaker);
            }
            Effect::Hold(reason) => {
                self.hold = Some(lengthen(self.hold, reason, report.retry_after, now, rules.holds));
                self.state = give_back(self.state, report.permit, now);
            }
            Effect::HoldModel => {
                self.hold_model(report.model, now, rules.holds);
                self.state = give_back(self.state, report.permit, now);
            }
            Effect::Neutral => self.state = give_back(self.state, report.permit, now),
        }
        *self != before
    }

    /// Counts successes that were noted elsewhere; they change nothing else.
    pub fn count_successes(&mut self, number: u32, now: Timestamp, length: Duration) {
        if let State::Closed { window, .. } = &mut self.state {
            window.count(number, 0, now, length);
        }
    }

    /// Whether another success would change nothing but a count: no failure, hold or trip to forget.
    pub fn is_calm(&self, model: u64) -> bool {
        let closed = matches!(self.state, State::Closed { consecutive: 0, trips: 0, .. });
        closed && self.hold.is_none() && !self.models.iter().any(|slot| slot.model == model)
    }

    fn hold_model(&mut self, model: u64, now: Timestamp, holds: &HoldPolicy) {
        let known = self.models.iter().position(|slot| slot.model == model);
        let place = known.or_else(|| {
            self.models.iter().enumerate().min_by_key(|(_, slot)| slot.until).map(|(place, _)| place)
        });
        let Some(slot) = place.and_then(|place| self.models.get_mut(place)) else { return };
        // As in [`lengthen`]: several requests that fail at once are one event.
        let streak = match *slot {
            ModelHold { model: held, until, streak } if held == model && until > now => streak,
            ModelHold { model: held, streak, .. } if held == model => streak.saturating_add(1),
            ModelHold { .. } => 1,
        };
        let until = now.after(grow(holds.no_such_model, streak, holds.max));
        *slot = ModelHold { model, until, streak };
    }
}

/// The rules that a report is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// For the breaker.
    pub breaker: &'a Policy,
    /// For the holds.
    pub holds: &'a HoldPolicy,
}

fn after_success(state: State, permit: Permit, now: Timestamp, policy: &Policy) -> State {
    match state {
        State::Closed { mut window, trips, since, .. } => {
            window.count(1, 0, now, policy.window);
            let trips = if now.since(since) > policy.max_open { 0 } else { trips };
            State::Closed { consecutive: 0, window, trips, since }
        }
        State::HalfOpen { permit: out, trips, successes, .. } if permit == Permit::Probe(out) => {
            let successes = successes.saturating_add(1);
            if successes >= policy.probes {
                closed(trips, now)
            } else {
                State::HalfOpen { permit: 0, lapses: now, trips, successes }
            }
        }
        // Tried because nobody was free, and it worked: that is as good as a probe.
        State::Open { trips, .. } | State::HalfOpen { trips, .. } if permit == Permit::Forced => {
            closed(trips, now)
        }
        // An attempt that began before the breaker opened proves nothing about now.
        State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

/// A new window: the failures that opened the breaker must not open it again.
fn closed(trips: u8, now: Timestamp) -> State {
    State::Closed { consecutive: 0, window: Window::default(), trips, since: now }
}

fn after_failure(state: State, permit: Permit, now: Timestamp, jitter: f64, policy: &Policy) -> State {
    match state {
        State::Closed { consecutive, mut window, trips, since } => {
            window.count(0, 1, now, policy.window);
            let consecutive = consecutive.saturating_add(1);
            let tally = window.tally(now, policy.window);
            let too_many = tally.total() >= policy.minimum_requests.into()
                && tally.failures as f64 >= policy.error_rate * tally.total() as f64;
            if consecutive < policy.consecutive_failures && !too_many {
                return State::Closed { consecutive, window, trips, since };
            }
            let trips = if now.since(since) > policy.max_open { 0 } else { trips };
            open(trips.saturating_add(1), now, jitter, policy)
        }
        State::HalfOpen { permit: out, trips, .. } if permit == Permit::Probe(out) => {
            open(trips.saturating_add(1), now, jitter, policy)
        }
        // Late results of attempts from before, and attempts made for want of anything better, do not lengthen it.
        State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

fn open(trips: u8, now: Timestamp, jitter: f64, policy: &Policy) -> State {
    let time = grow(policy.open, trips, policy.max_open);
    State::Open { until: now.after(time.saturating_add(time.mul_f64(jitter.clamp(0.0, 1.0) / 10.0))), trips }
}

/// A probe that says nothing about the provider (the client left, the request was wrong) gives its permit back.
fn give_back(state: State, permit: Permit, now: Timestamp) -> State {
    match state {
        State::HalfOpen { permit: out, trips, successes, .. } if permit == Permit::Probe(out) => {
            State::HalfOpen { permit: 0, lapses: now, trips, successes }
        }
        State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

/// The hold after one more reason: what the provider asks for, or a time that doubles, never beyond the cap, and never
/// ending before the one that is there.
fn lengthen(
    hold: Option<Hold>,
    reason: HoldReason,
    asked: Option<Duration>,
    now: Timestamp,
    holds: &HoldPolicy,
) -> Hold {
    // Several requests that fail at once are one event: while the hold runs, its streak does not grow.
    let streak = match hold {
        Some(hold) if hold.reason == reason && hold.until > now => hold.streak,
        Some(hold) if hold.reason == reason => hold.streak.saturating_add(1),
        _ => 1,
    };
    let grown = grow(holds.base(reason), streak, holds.max);
    let length = match asked.filter(|_| reason == HoldReason::RateLimited) {
        Some(asked) => asked.min(holds.max),
        None => grown,
    };
    let until = now.after(length);
    match hold {
        // One that ends later stays as it is, whatever the reason for the other.
        Some(hold) if hold.until > until => {
            Hold { streak: if hold.reason == reason { streak } else { hold.streak }, ..hold }
        }
        _ => Hold { until, reason, streak },
    }
}

/// `base` doubled for every time after the first, at most `max`.
fn grow(base: Duration, times: u8, max: Duration) -> Duration {
    let doublings = u32::from(times.saturating_sub(1)).min(20);
    base.saturating_mul(1_u32 << doublings).min(max)
}

#[cfg(test)]
mod tests;
