//! The attempts of one request: those that are over, and the one that is under way.
//!
//! ```text
//!                choose                 begin                answered
//!   NotAsking ──────────► Chosen ────────────────► Trying ─────────────► Delivering
//!       ▲                   │  ▲                     │  │                    │
//!       │     the gateway   │  │  failed: the same   │  │ failed, and no     │ the stream
//!       │     goes on by    │  └──  provider again,  │  │ candidate is left, │ has ended
//!       │     itself        │       or the next one ─┤  │ or the client gets ▼
//!       └───────────────────┼────────────────────────┘  └─ the error ────► Over
//!                           └────── never began ────────────────────────────▲
//! ```

use std::fmt;
use std::time::Duration;

use super::candidates::CandidateId;
use crate::base::clock::Timestamp;
use crate::health::breaker::Permit;
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::ledger::Waiting;
use crate::spend::usage::Tally;

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The candidate that was tried.
    pub(super) candidate: CandidateId,
    /// Its outcome.
    pub(super) verdict: Verdict,
    /// How long it took.
    pub(super) took: Duration,
    /// When it was judged.
    pub(super) ended: Timestamp,
    /// Its tokens.
    pub(super) tally: Tally,
}

/// The attempt that was chosen or is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    /// The candidate that is tried.
    pub(super) candidate: CandidateId,
    /// The permit with which it was sent, and with which its outcome is reported.
    pub(super) permit: Permit,
    /// When it began; until then, when it was chosen.
    pub(super) started: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No candidate is chosen: before the first attempt or, on APISIX, between two tries of nginx.
    NotAsking,
    /// A candidate was chosen, and its attempt has not begun.
    Chosen(Current),
    /// Its attempt is under way, and nothing of an answer has been released.
    Trying(Current),
    /// Its answer goes to the client, or its error, of which only the head is known.
    Delivering(Current),
    /// Nothing more will be tried. `delivered`: an answer of a provider went to the client.
    Over { delivered: bool },
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::NotAsking => "no candidate is chosen",
            Self::Chosen(_) => "the attempt has not begun",
            Self::Trying(_) => "the attempt is under way",
            Self::Delivering(_) => "an answer is delivered",
            Self::Over { .. } => "the request is over",
        }
    }
}

/// A method of an [`Exchange`](super::Exchange) was called when the exchange was not ready for it. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// The method.
    pub call: &'static str,
    /// The state of the exchange.
    pub state: &'static str,
}

impl fmt::Display for OutOfOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call {:?} came out of order: {}", self.call, self.state)
    }
}

/// All attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The provider of the attempt under way has had the request twice: the second time to read its error.
    pub(super) had_twice: bool,
    over: Vec<Attempt>,
    phase: Phase,
    /// What is known of the answer under way.
    pub(super) tally: Tally,
    /// When the answer under way had its first content.
    pub(super) first_token: Option<Timestamp>,
    /// Counts the attempt under way among those of its candidate, while it is waited for.
    pub(super) waiting: Option<Waiting>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            had_twice: false,
            over: Vec::new(),
            phase: Phase::NotAsking,
            tally: Tally::default(),
            first_token: None,
            waiting: None,
        }
    }
}

impl Attempts {
    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The attempt that was chosen, is under way, or delivers its answer.
    pub(super) const fn current(&self) -> Option<Current> {
        match self.phase {
            Phase::Chosen(current) | Phase::Trying(current) | Phase::Delivering(current) => Some(current),
            Phase::NotAsking | Phase::Over { .. } => None,
        }
    }

    /// The attempt that was chosen or is under way, and of which nothing was released.
    pub(super) const fn undecided(&self) -> Option<Current> {
        match self.phase {
            Phase::Chosen(current) | Phase::Trying(current) => Some(current),
            Phase::NotAsking | Phase::Delivering(_) | Phase::Over { .. } => None,
        }
    }

    /// The same for the method `call`, which needs one.
    pub(super) fn expect_undecided(&self, call: &'static str) -> Result<Current, OutOfOrder> {
        self.undecided().ok_or_else(|| self.out_of_order(call))
    }

    /// The attempt whose answer is delivered, for the method `call`.
    pub(super) fn expect_delivering(&self, call: &'static str) -> Result<Current, OutOfOrder> {
        match self.phase {
            Phase::Delivering(current) => Ok(current),
            Phase::NotAsking | Phase::Chosen(_) | Phase::Trying(_) | Phase::Over { .. } => {
                Err(self.out_of_order(call))
            }
        }
    }

    /// The error of a method that was called at the wrong time; in tests, a panic.
    pub(super) fn out_of_order(&self, call: &'static str) -> OutOfOrder {
        let error = OutOfOrder { call, state: self.phase.name() };
        debug_assert!(false, "{error}");
        error
    }

    // Transitions

    /// Chooses the candidate of the next attempt.
    pub(super) fn choose(&mut self, candidate: CandidateId, permit: Permit, now: Timestamp) {
        self.phase = Phase::Chosen(Current { candidate, permit, started: now });
    }

    /// The chosen attempt was given up before it began, and another may be chosen.
    pub(super) fn unchoose(&mut self) {
        self.waiting = None;
        self.phase = Phase::NotAsking;
    }

    /// The attempt is under way.
    pub(super) fn begin(&mut self, current: Current) {
        self.phase = Phase::Trying(current);
    }

    /// The attempt is over with this verdict; what follows is still to be decided.
    pub(super) fn end(&mut self, current: Current, verdict: Verdict, now: Timestamp) {
        if verdict.outcome != Outcome::Answered {
            self.first_token = None;
            self.waiting = None;
        }
        let Current { candidate, started, .. } = current;
        let tally = std::mem::take(&mut self.tally);
        self.over.push(Attempt { candidate, verdict, took: now.since(started), ended: now, tally });
    }

    /// More is known of the last attempt, which is over.
    pub(super) fn amend(&mut self, verdict: Verdict) {
        if let Some(attempt) = self.over.last_mut() {
            attempt.verdict = verdict;
        }
    }

    /// The last attempt's answer goes to the client, and its end is still to come.
    pub(super) fn deliver(&mut self, current: Current) {
        self.phase = Phase::Delivering(current);
    }

    /// The answer that was delivered has ended with this outcome.
    pub(super) fn end_delivery(&mut self, current: Current, outcome: Outcome, now: Timestamp) {
        let tally = std::mem::take(&mut self.tally);
        if let Some(attempt) = self.over.last_mut() {
            attempt.verdict.outcome = outcome;
            attempt.took = now.since(current.started);
            if tally != Tally::default() {
                attempt.tally = tally;
            }
        }
        self.finish(true);
    }

    /// Nothing more will be tried.
    pub(super) fn finish(&mut self, delivered: bool) {
        self.waiting = None;
        self.phase = Phase::Over { delivered };
    }

    // What is known

    /// The attempts that are over, in their order.
    pub(super) fn all(&self) -> &[Attempt] {
        &self.over
    }

    pub(super) fn last(&self) -> Option<&Attempt> {
        self.over.last()
    }

    /// Whether any attempt at this candidate is over.
    pub(super) fn tried(&self, candidate: CandidateId) -> bool {
        self.over.iter().any(|attempt| attempt.candidate == candidate)
    }

    /// How many attempts at this candidate had this outcome.
    pub(super) fn count(&self, candidate: CandidateId, outcome: Outcome) -> usize {
        let same = |attempt: &&Attempt| attempt.candidate == candidate && attempt.verdict.outcome == outcome;
        self.over.iter().filter(same).count()
    }

    /// Whether an answer of a provider goes, or went, to the client. An error about the provider is none.
    pub(super) fn is_delivered(&self) -> bool {
        let is_answer = |outcome: Outcome| outcome == Outcome::Answered || outcome.is_about_request();
        match self.phase {
            Phase::Delivering(_) => self.over.last().is_none_or(|last| is_answer(last.verdict.outcome)),
            Phase::Over { delivered } => delivered,
            Phase::NotAsking | Phase::Chosen(_) | Phase::Trying(_) => false,
        }
    }
}
