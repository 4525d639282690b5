//! The health record of one provider: its breaker and its holds, and how the outcomes of attempts change them. All
//! transitions are pure functions on the record.
//!
//! The breaker is the one of Nygard's *Release It!*: it is closed, then open for a time, then half-open, when one request at a
//! time is let through as a probe. It opens after `consecutive_failures` in a row, or when the share `error_rate` of at least
//! `minimum_requests` within `window` failed. The open time doubles with every trip in succession up to `max_open`. It is
//! stretched by up to a tenth at random, so that several gateways do not send their probes at the same moment.
//!
//! A *hold* is not a failure: the provider said when to come back (429), or that it will not serve this key (401, 402) or this model (a
//! code that says so). A refusal that may be about the one request holds nothing by itself: several in a row are needed (`evidence.rs`).
//! A hold ends by itself and is never shortened. Its length doubles while it repeats (`holds.rs`).
//!
//! ```text
//!            failures                    open time over, probe sent
//!   Closed ───────────► Open ────────────────────────────────► HalfOpen
//!     ▲                  ▲  a failed probe: twice as long          │
//!     │                  └─────────────────────────────────────────┤
//!     └────────────────────────────────────── `probes` successes ──┘
//! ```

mod evidence;
mod holds;
mod record;
mod window;

use std::time::Duration;

use crate::base::clock::Timestamp;
pub use crate::base::store::fingerprint;
use crate::health::outcome::{Effect, HoldReason, Outcome};

pub use evidence::{Evidence, Evidences, Kind as EvidenceKind, Refusal, EVIDENCE_SLOTS, REFUSALS};
use holds::grow;
pub use holds::{Hold, HoldPolicy, ModelHold, ModelHoldReason, MODEL_SLOTS};
pub use window::Window;

/// When a breaker opens, for how long, and how it closes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The number of failures in a row that opens it.
    pub consecutive_failures: u16,
    /// The share of failures, 0 to 1, that opens it.
    pub error_rate: f64,
    /// The number of attempts that the window must hold before the rate counts.
    pub minimum_requests: u32,
    /// The length of the window.
    pub window: Duration,
    /// How long it stays open the first time.
    pub open: Duration,
    /// The longest open time.
    pub max_open: Duration,
    /// The number of successful probes in a row that closes it.
    pub probes: u8,
}

/// The state of the breaker, with the data that this state needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests are sent.
    Closed {
        /// The number of failures in a row.
        consecutive: u16,
        /// Recent results.
        window: Window,
        /// How often the breaker has opened in succession. It counts from zero again after `max_open` without a trip.
        trips: u8,
        /// When the breaker closed.
        since: Timestamp,
    },
    /// No request is sent.
    Open {
        /// When the open time ends.
        until: Timestamp,
        /// How often the breaker has opened in succession, this time included.
        trips: u8,
    },
    /// One request at a time is sent, as a probe.
    HalfOpen {
        /// The permit of the probe that is under way; 0 if there is none.
        permit: u32,
        /// When that permit lapses, so that another probe can be sent.
        lapses: Timestamp,
        /// How often the breaker has opened in succession.
        trips: u8,
        /// The number of probes that succeeded so far.
        successes: u8,
    },
}

/// The health record of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// [`fingerprint`] of the provider's configuration: a record of another configuration does not apply.
    pub fingerprint: u64,
    /// The breaker.
    pub state: State,
    /// The last hold. It stays here when it is over, because its streak counts until a success.
    pub hold: Option<Hold>,
    /// The holds of models.
    pub models: [ModelHold; MODEL_SLOTS],
    /// Refusals that may be about the provider, or about the requests.
    pub evidence: Evidences,
}

/// Permission to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The breaker is closed, so nothing had to be reserved.
    Free,
    /// The one probe of a half-open breaker.
    Probe(u32),
    /// All candidates were excluded, so this provider is tried although it is.
    Forced,
}

/// Why a provider is excluded, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// When it may be tried again.
    pub until: Timestamp,
    /// The reason.
    pub reason: Reason,
}

/// The reason for which a provider is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The breaker is open, or half-open while a probe is under way.
    Open,
    /// The provider is held.
    Held(HoldReason),
    /// The model that was asked for is held at this endpoint.
    ModelHeld(ModelHoldReason),
}

impl Reason {
    /// The name in headers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held(reason) => reason.name(),
            Self::ModelHeld(reason) => reason.name(),
        }
    }
}

/// The end of an attempt, as it is reported to the record.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Its outcome.
    pub outcome: Outcome,
    /// The permit with which it was sent.
    pub permit: Permit,
    /// How long the provider asks to wait before the next request, if it does.
    pub retry_after: Option<Duration>,
    /// [`fingerprint`] of the model's name at the provider and of the endpoint.
    pub model: u64,
    /// What was refused, if no list explains the refusal.
    pub refusal: Option<Refusal>,
}

impl Record {
    /// The record of a provider of which nothing is known.
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
            evidence: Evidences::default(),
        }
    }

    /// Reads a record. One that is absent, damaged, of another version or of another configuration is read as a new one.
    pub fn read(bytes: &[u8], fingerprint: u64) -> Self {
        match Self::decode(bytes) {
            Some(record) if record.fingerprint == fingerprint => record,
            _ => Self::new(fingerprint),
        }
    }

    /// Why the provider must be excluded now, and until when; `None` if it need not be. Of several reasons it is the one that lasts
    /// longest.
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
            .map(|hold| Exclusion { until: hold.until, reason: Reason::ModelHeld(hold.reason) });
        [breaker, hold, model]
            .into_iter()
            .flatten()
            .filter(|exclusion| exclusion.until > now)
            .max_by_key(|exclusion| exclusion.until)
    }

    /// Whether the record must be written before a request is sent, to take a permit.
    pub const fn needs_permit(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Takes the permission to send a request, which must not be excluded. `permit` is a number that no other probe has. If the probe
    /// is not reported within `lease`, its permit lapses.
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

    /// Updates the record after an attempt. `jitter` is a random number from 0 to 1. Returns whether anything changed.
    pub fn report(&mut self, report: Report, now: Timestamp, jitter: f64, rules: Rules<'_>) -> bool {
        let before = *self;
        match report.outcome.effect() {
            Effect::Success => {
                // An attempt that began before a hold may succeed while the hold runs; that does not end it.
                let over = |until: Timestamp| until <= now || report.permit == Permit::Forced;
                self.hold = self.hold.filter(|hold| !over(hold.until));
                let slot = self.models.iter_mut().find(|slot| slot.model == report.model && over(slot.until));
                if let Some(slot) = slot {
                    *slot = ModelHold::default();
                }
                self.evidence.note_success(report.model);
                self.state = after_success(self.state, report.permit, now, rules.breaker);
            }
            Effect::Failure => {
                self.state = after_failure(self.state, report.permit, now, jitter, rules.breaker);
            }
            Effect::Hold(_) | Effect::HoldModel | Effect::Neutral => {
                if self.is_proved(report, now) {
                    self.hold(report, now, rules.holds);
                }
                self.state = return_permit(self.state, report.permit, now);
            }
        }
        *self != before
    }

    /// Whether an outcome that may hold something does so. A refusal that no list explains must have come for several requests in a row.
    fn is_proved(&mut self, report: Report, now: Timestamp) -> bool {
        let refusal = report.refusal.filter(|_| report.outcome.needs_evidence());
        let Some(refusal) = refusal else { return true };
        // A key serves all models: an answer of any of them speaks for it.
        let is_key = matches!(report.outcome, Outcome::BadKey | Outcome::OutOfQuota);
        let model = if is_key { 0 } else { report.model };
        let row = self.evidence.note(model, refusal, EvidenceKind::Unasked, now);
        let is_proved = row.is_some_and(|row| row >= REFUSALS);
        if is_proved {
            self.evidence.use_up(model, refusal.id, EvidenceKind::Unasked);
        }
        is_proved
    }

    fn hold(&mut self, report: Report, now: Timestamp, holds: &HoldPolicy) {
        match (report.outcome.effect(), report.outcome) {
            (Effect::Hold(reason), _) => self.hold_provider(reason, report.retry_after, now, holds),
            (Effect::HoldModel, _) => self.hold_model(report.model, ModelHoldReason::NoSuchModel, now, holds),
            (_, Outcome::Unwilling) if report.refusal.is_some() => {
                self.hold_model(report.model, ModelHoldReason::Unwilling, now, holds);
            }
            _ => {}
        }
    }

    /// Notes what another provider said about a request that this one has refused. If it was answered there, and so were enough requests
    /// in a row, the model is held at its endpoint. Returns whether the log should tell it.
    pub fn note_opinion(
        &mut self,
        model: u64,
        refusal: Refusal,
        is_disproved: bool,
        now: Timestamp,
        rules: Rules<'_>,
    ) -> bool {
        let kind = if is_disproved { EvidenceKind::Disproved } else { EvidenceKind::Confirmed };
        let row = self.evidence.note(model, refusal, kind, now);
        if is_disproved && row.is_some_and(|row| row >= rules.breaker.consecutive_failures) {
            self.evidence.use_up(model, refusal.id, kind);
            self.hold_model(model, ModelHoldReason::BadRequest, now, rules.holds);
        }
        self.evidence.is_news(model, refusal.id, now)
    }

    /// Whether a refusal is the request's fault, as far as other providers have said so often enough not long ago.
    pub fn is_believed(&self, model: u64, refusal: Refusal, now: Timestamp, breaker: &Policy) -> bool {
        self.evidence.is_believed(model, refusal.id, breaker.consecutive_failures, now)
    }

    /// Gives back the permission of a probe that says nothing about the provider. Returns whether the record changed.
    pub fn release_permit(&mut self, permit: Permit, now: Timestamp) -> bool {
        let before = self.state;
        self.state = return_permit(self.state, permit, now);
        self.state != before
    }

    /// Counts successes that were collected outside of the record, because they change nothing else in it.
    pub fn count_successes(&mut self, number: u32, now: Timestamp, length: Duration) {
        if let State::Closed { window, .. } = &mut self.state {
            window.count(number, 0, now, length);
        }
    }

    /// Whether another success would change nothing but a count, since there is no failure, hold, trip or evidence that it would clear.
    pub fn is_calm(&self, model: u64) -> bool {
        let closed = matches!(self.state, State::Closed { consecutive: 0, trips: 0, .. });
        closed
            && self.hold.is_none()
            && !self.models.iter().any(|slot| slot.model == model)
            && !self.evidence.is_against(model)
    }
}

/// The configuration by which a report changes the record.
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
        // A forced attempt that succeeded proves as much as a probe.
        State::Open { trips, .. } | State::HalfOpen { trips, .. } if permit == Permit::Forced => {
            closed(trips, now)
        }
        // An attempt that began before the breaker opened proves nothing about the present.
        State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

/// The closed breaker, with an empty window: the failures that opened it must not open it again.
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
        // Attempts from before the breaker opened, and forced attempts, do not lengthen the open time.
        State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

fn open(trips: u8, now: Timestamp, jitter: f64, policy: &Policy) -> State {
    let time = grow(policy.open, trips, policy.max_open);
    State::Open { until: now.after(time.saturating_add(time.mul_f64(jitter.clamp(0.0, 1.0) / 10.0))), trips }
}

/// The state after an attempt that says nothing about the provider (the client left, the request was wrong): a probe returns its
/// permit.
fn return_permit(state: State, permit: Permit, now: Timestamp) -> State {
    match state {
        State::HalfOpen { permit: out, trips, successes, .. } if permit == Permit::Probe(out) => {
            State::HalfOpen { permit: 0, lapses: now, trips, successes }
        }
        State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => state,
    }
}

#[cfg(test)]
mod tests;
