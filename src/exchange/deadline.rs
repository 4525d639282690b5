//! How long the attempts of a request may take: each one for itself, and all of them together (`limits.total`).

use std::time::Duration;

use super::{Current, Decision, Exchange};
use crate::base::clock::{millis, Timestamp};
use crate::health::outcome::{Outcome, Verdict};
use crate::selection::plan::Env;

impl Exchange {
    /// How long the attempt under way may take before its answer is released: as long as [its limit](Self::own_limit) says, but not
    /// longer than the request.
    #[inline(never)]
    pub fn limit(&self) -> Duration {
        match (self.deadline(), self.attempts.undecided()) {
            (Some(deadline), Some(current)) => self.own_limit().min(deadline.since(current.started)),
            _ => self.own_limit(),
        }
    }

    /// How long an attempt may take if the request is not limited: a live stream until its first content, everything else until its
    /// end.
    pub(super) fn own_limit(&self) -> Duration {
        if self.live() {
            self.request.limits.first_token
        } else {
            self.request.limits.answer
        }
    }

    /// When the request fails if no answer has been released by then.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.request.limits.total.map(|total| self.request.started.after(total))
    }

    /// The deadline of a request that was planned elsewhere.
    pub(super) fn keep_deadline(&mut self, deadline: Option<Timestamp>) {
        let total = self.request.limits.total.zip(deadline);
        self.request.limits.total = total.map(|(total, _)| total);
        if let Some((total, deadline)) = total {
            let started = deadline.as_millis().saturating_sub(millis(total));
            self.request.started = Timestamp::from_millis(started);
        }
    }

    /// Whether no attempt may begin any more. The last fiftieth of the time is too short for one: an attempt that a timer ends at the
    /// deadline may end a moment before it by this clock.
    #[inline(never)]
    pub fn is_late(&self, now: Timestamp) -> bool {
        let is_over = |total: Duration| now.since(self.request.started) >= total.saturating_sub(total / 50);
        self.request.limits.total.is_some_and(is_over)
    }

    /// The time at which the attempt under way must be ended although its own limit has not passed. `None` if the gateway's timer for each
    /// attempt, which is set once for all attempts of a request, ends it early enough.
    pub fn cut_at(&self) -> Option<Timestamp> {
        let deadline = self.deadline()?;
        let current = self.attempts.undecided()?;
        self.is_cut_short(current).then_some(deadline)
    }

    /// Whether an attempt gets less time than its limit says because others have used up the time of the request. It says nothing about
    /// its provider if it takes too long.
    pub(super) fn is_cut_short(&self, current: Current) -> bool {
        let Some(total) = self.request.limits.total else { return false };
        let left = self.request.started.after(total).since(current.started);
        self.was_tried() && left < self.own_limit().min(total)
    }

    /// The time of the request is over: ends the attempt under way. `None` if there is none, or if there is still time.
    #[inline(never)]
    pub fn run_out(&mut self, env: &mut Env<'_>) -> Option<Decision> {
        self.attempts.undecided()?;
        if !self.is_late(env.now) {
            return None;
        }
        self.judge(Verdict::without_response(Outcome::TooSlow), false, true, env).ok()
    }
}
