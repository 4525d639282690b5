//! How candidates that are about as quick share the load.
//!
//! A p95 covers many seconds. A policy that follows it alone sends everything to one provider until that one is slow, then everything
//! to the next one: the requests move as a herd, and each provider in turn gets more than it bears. So the candidates in a band above
//! the best score share the load, by what is known at once: the attempts that this worker waits for.
//!
//! - **Who gets a request.** Two candidates of the band are drawn, each with a probability that falls with its score. The first one
//!   drawn gets the request, unless fewer attempts are under way at the other one and its score times those attempts (and this
//!   one) is lower. This is the power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
//!   TPDS 12(10), 2001): workers that know only their own attempts, and that always took the best one, would all take the same. The
//!   product is that of Finagle's Peak EWMA (<https://twitter.github.io/finagle/guide/Clients.html>).
//! - **Who helps.** The quickest one by what was measured may be overloaded by now. Then most of its attempts take longer than its
//!   p95, and until it has recovered, all whose usual time is shorter than that share the load with it. Of these, the one
//!   with the lowest product gets the request. They are compared by their medians: a p95 would tell of the load that a candidate
//!   had when it was measured.
//! - **With few requests there is nothing to share.** While less than one is under way on average, the first one drawn is the best
//!   one, so that conversations stay where their beginning is in a cache.
//! - **If one cannot be tried.** The policy does not know whose breaker is open or who is on hold. So it draws the whole order: each
//!   further place is given among the candidates that are left, as if those before them did not exist.
//! - **Sticky requests stay.** Those with the same number always get the same candidate of the band, whatever is under way there. Of
//!   the candidates it is the one with the highest hash of both ("rendezvous hashing", Thaler and Ravishankar, IEEE/ACM ToN 6(1),
//!   1998), so that only those move whose candidate leaves the band, or that belong to one that enters it.

use super::settled::{Settled, INTERVAL};
use super::{Candidate, Chance, Entry, Measured, MILLION, UNKNOWN};
use crate::base::clock::{millis, Timestamp};
use crate::routing::policy::weighted::mix;

/// The attempts that a worker waits for at one candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Their number.
    pub waiting: u32,
    /// When the one in the middle of them began. A mean would tell of a single one that has waited for very long.
    middle: Timestamp,
}

/// As many attempts are added that have not waited at all, so that few attempts do not make a provider slow at once.
const CALM: u64 = 1;

impl Load {
    /// The load of attempts that began at these moments, the oldest first.
    pub fn of(begun: &[Timestamp]) -> Self {
        let waiting = u32::try_from(begun.len()).unwrap_or(u32::MAX);
        Self { waiting, middle: begun.get(begun.len() / 2).copied().unwrap_or_default() }
    }

    /// How long most of the attempts will have waited in the end, in milliseconds. The one in the middle has half of its time behind it.
    pub fn slowness(self, now: Timestamp) -> u64 {
        let waiting = u64::from(self.waiting);
        let waited = millis(now.since(self.middle)).saturating_mul(waiting);
        waited.saturating_mul(2) / waiting.saturating_add(CALM)
    }
}

/// How a group of candidates shares the load.
pub(super) struct Share {
    band: u32,
    /// If the quickest one by what was measured is overloaded: the score that it has now.
    overloaded: Option<u64>,
    /// Whether more than one request is under way on average, in all workers together.
    is_busy: bool,
}

impl Share {
    pub(super) fn new(all: &[(usize, Candidate)], band: u32, chance: Chance) -> Self {
        let may_be = band > 0 && chance.sticky.is_none();
        let known = all.iter().map(|(_, candidate)| candidate).filter(|one| one.is_known());
        let latest = |one: &Candidate| one.score(one.measured.settled.latest.into());
        let first = known.min_by_key(|one| latest(one)).filter(|_| may_be);
        let overloaded = first
            .map(|first| (first.score(first.measured.load.slowness(chance.now)), latest(first)))
            .filter(|(now, latest)| now > latest);
        // The times of all answers in ten seconds, in milliseconds.
        let busy =
            |measured: &Measured| millis(measured.median).saturating_mul(measured.settled.count.into());
        let busy = all.iter().map(|(_, candidate)| busy(&candidate.measured));
        Self {
            band,
            overloaded: overloaded.map(|(now, _)| now),
            is_busy: busy.fold(0, u64::saturating_add) >= INTERVAL,
        }
    }

    /// The time by which a candidate is ordered, in milliseconds; 0 if too little is known.
    pub(super) fn time(&self, measured: &Measured, chance: Chance) -> u64 {
        match measured.settled {
            Settled { time: 0, .. } => 0,
            // What the quickest one takes now on average is compared with what others take on average.
            _ if self.overloaded.is_some() => millis(measured.median),
            Settled { time, .. } if self.band == 0 || chance.sticky.is_some() => time.into(),
            Settled { latest, .. } => latest.into(),
        }
    }

    /// The place of the candidate that gets the request, if several share the load. `queue` is in the order of the scores.
    pub(super) fn choose(&self, queue: &[Entry], chance: Chance) -> Option<usize> {
        let best = queue.first().map(|entry| entry.score).filter(|best| *best < UNKNOWN)?;
        let best = self.overloaded.unwrap_or(best);
        let limit = limit(best, self.band);
        let is_member = |entry: &Entry| entry.score < UNKNOWN && u128::from(entry.score) <= limit;
        let members = queue.get(..queue.partition_point(is_member))?;
        if self.band == 0 || members.len() < 2 {
            return None;
        }
        if let Some(sticky) = chance.sticky {
            let chosen = members.iter().max_by_key(|entry| mix(sticky ^ entry.candidate.id))?;
            return Some(chosen.place);
        }
        let waiting = |entry: &Entry| entry.candidate.measured.load.waiting;
        let cost = |entry: &Entry| u128::from(entry.score) * u128::from(waiting(entry).saturating_add(1));
        if self.overloaded.is_some() {
            return members.iter().min_by_key(|entry| cost(entry)).map(|entry| entry.place);
        }
        // The random number has decided already whether a candidate is tried.
        let point = mix(chance.random);
        let drawn = if self.is_busy { draw(members, None, point)? } else { members.first()? };
        let other = draw(members, Some(drawn.place), mix(point))?;
        let is_better = waiting(other) < waiting(drawn) && cost(other) < cost(drawn);
        Some(if is_better { other.place } else { drawn.place })
    }
}

/// The highest score in the band.
fn limit(best: u64, band: u32) -> u128 {
    u128::from(best) * u128::from(MILLION.saturating_add(band)) / u128::from(MILLION)
}

/// Draws one of the members, but not the one at the place `but`. One with twice the score is drawn half as often.
fn draw(members: &[Entry], but: Option<usize>, point: u64) -> Option<&Entry> {
    let others = || members.iter().filter(|entry| Some(entry.place) != but);
    let weight = |entry: &Entry| 1.0 / entry.score.max(1) as f64;
    let mut point = others().map(weight).sum::<f64>() * (point as f64 / u64::MAX as f64);
    let mut last = None;
    for entry in others() {
        last = Some(entry);
        point -= weight(entry);
        if point < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;
