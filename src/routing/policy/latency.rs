//! The quickest candidate first, by the 95th percentile (p95) of the times measured within a sliding window.
//!
//! The measured time is what a client waits for: the time to the first content of a stream that is released at its first token,
//! and the whole time of any other answer. The two kinds are never compared. A failed attempt has no time; it counts in the
//! circuit breaker instead.
//!
//! **The order is stable.** The candidates are ordered by a damped p95, the [settled] time, which says what is remembered.
//!
//! **Candidates that are about as quick share the load** (`share.rs`), so that none gets more than it bears.
//!
//! **Candidates with few samples are tried.** Those with fewer than twenty times (`ENOUGH`) in the window get a small share of the
//! requests until they have that many, and all requests while the candidates have on average less than half of it. So a
//! provider that has recovered is found again, and one that has not costs twenty slow requests per window. A candidate can
//! be first from five times (`FEW`) on, but the fewer it has the quicker it must be.

mod record;
mod settled;
mod share;

use std::time::Duration;

use super::weighted::mix;
use super::Ranked;
use crate::base::clock::{millis, Timestamp};
use crate::routing::provider::ProviderId;

pub use record::{Bucket, Record};
pub use settled::{interval, ENOUGH};
use settled::{Settled, FEW};
pub use share::Load;
use share::Share;

/// 15 min. With one request in four seconds, the share of requests for trials is then enough to measure two candidates.
const WINDOW: Duration = Duration::from_secs(900);
/// One request in twenty.
const EXPLORE: u32 = MILLION / 20;
/// A fifth. A person would hardly notice this difference.
const BAND: u32 = MILLION / 5;
/// One, in the unit of [`Rules::explore`] and [`Rules::band`].
pub const MILLION: u32 = 1_000_000;

/// The configuration of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The length of the window.
    pub window: Duration,
    /// The share of requests that try a candidate with few samples, in millionths.
    pub explore: u32,
    /// Candidates whose score is at most this much above that of the first share the load with it, in millionths. With 0 none does.
    pub band: u32,
    /// Providers that come before all others, however quick these are.
    pub prefer: Vec<ProviderId>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { window: WINDOW, explore: EXPLORE, band: BAND, prefer: Vec::new() }
    }
}

/// What was measured of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The number of times in the window.
    pub samples: u32,
    /// Their 95th percentile.
    pub p95: Duration,
    /// The median of the whole window.
    pub median: Duration,
    /// The times by which it is ordered.
    pub settled: Settled,
    /// What this worker has under way there.
    pub load: Load,
}

/// A candidate to be ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// A number by which its provider is known, whatever the order.
    pub id: u64,
    /// What was measured of it.
    pub measured: Measured,
    /// It comes before all that are not preferred.
    pub preferred: bool,
    /// Its score is below the route's `min_quality`: it comes after all others, even if it is preferred.
    pub below: bool,
    /// The factor by which its time is multiplied, in thousandths. `None` if the policy compares only times.
    pub handicap: Option<u32>,
}

impl Candidate {
    const fn is_known(&self) -> bool {
        self.measured.settled.time > 0
    }

    fn score(&self, time: u64) -> u64 {
        time.saturating_mul(self.handicap.unwrap_or(1000).into())
    }
}

/// What decides between candidates beside their scores.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// A random number.
    pub random: u64,
    /// The same for all requests that stay at one of the candidates that share the load.
    pub sticky: Option<u64>,
    /// The present moment.
    pub now: Timestamp,
}

/// The order of the candidates.
pub fn order(candidates: &[Candidate], rules: &Rules, chance: Chance) -> Vec<Ranked> {
    let mut ordered = Vec::with_capacity(candidates.len());
    for (below, preferred) in [(false, true), (false, false), (true, true), (true, false)] {
        let all = candidates.iter().copied().enumerate();
        let is_member = |(_, candidate): &(usize, Candidate)| {
            (candidate.below, candidate.preferred) == (below, preferred)
        };
        Group(all.filter(is_member).collect()).order(rules, chance, &mut ordered);
    }
    ordered
}

/// Candidates that are ordered by their times alone, each with its place in the caller's list. Each group has its own trials: a candidate
/// that comes after all others must not be tried before them.
struct Group(Vec<(usize, Candidate)>);

impl Group {
    /// Appends the group to the order: first the one that is tried, if there is one, then each time the one that comes first among those
    /// that are left. So if some cannot be tried, the others share the load as if these did not exist.
    fn order(mut self, rules: &Rules, mut chance: Chance, ordered: &mut Vec<Ranked>) {
        let mut may_try = true;
        while !self.0.is_empty() {
            let share = Share::new(&self.0, rules.band, chance);
            let queue = self.queue(&share, chance);
            let tried = if may_try { self.tried(&queue, rules, chance) } else { None };
            let shared = if tried.is_none() { share.choose(&queue, chance) } else { None };
            let chosen = tried.or(shared).and_then(|place| queue.iter().find(|entry| entry.place == place));
            let Some(entry) = chosen.or(queue.first()) else { return };
            let why = why(entry, tried.is_some(), shared.is_some());
            ordered.push(Ranked { place: entry.place, why });
            self.0.retain(|(place, _)| *place != entry.place);
            may_try = false;
            chance.random = mix(chance.random);
        }
    }

    /// The candidates in the order of their scores.
    fn queue(&self, share: &Share, chance: Chance) -> Vec<Entry> {
        let mut queue: Vec<Entry> = Vec::with_capacity(self.0.len());
        for (place, candidate) in &self.0 {
            let entry = Entry::new(*place, *candidate, share.time(&candidate.measured, chance));
            queue.insert(queue.partition_point(|other| other.score <= entry.score), entry);
        }
        queue
    }

    /// The place of the candidate that is tried with this request, if one is.
    fn tried(&self, queue: &[Entry], rules: &Rules, chance: Chance) -> Option<usize> {
        let samples = |candidate: &Candidate| candidate.measured.samples.min(ENOUGH);
        let all: u32 = self.0.iter().map(|(_, candidate)| samples(candidate)).sum();
        let is_cold = (all as usize) < self.0.len() * (ENOUGH as usize / 2);
        // The first one is measured without being tried.
        let first = queue.first().map(|entry| entry.place).filter(|_| !is_cold);
        let has_few =
            |place: usize, candidate: &Candidate| samples(candidate) < ENOUGH && Some(place) != first;
        let few = self.0.iter().filter(|(place, candidate)| has_few(*place, candidate));
        // The upper half of the random number decides whether one is tried, the lower half which one.
        let draw = chance.random;
        let is_trial = is_cold || ((draw >> 32) * u64::from(MILLION)) >> 32 < u64::from(rules.explore);
        let picked = (draw as u32 as usize).checked_rem(few.clone().count()).filter(|_| is_trial)?;
        few.map(|(place, _)| *place).nth(picked)
    }
}

/// A candidate while it is being ordered.
struct Entry {
    place: usize,
    candidate: Candidate,
    /// The time by which it is ordered, in milliseconds; 0 if too little is known.
    time: u64,
    /// The time multiplied by the handicap. By this the candidates are ordered.
    score: u64,
}

/// The score of a candidate that is unknown.
const UNKNOWN: u64 = u64::MAX;

impl Entry {
    fn new(place: usize, candidate: Candidate, time: u64) -> Self {
        let score = if time == 0 { UNKNOWN } else { candidate.score(time) };
        Self { place, candidate, time, score }
    }
}

/// The reason in the audit record: `p95 812 ms`, `p95 812 ms of 7`, `tried, 3 times`, `p95 812 ms x 1.51, ordered as 900 ms, by share`.
fn why(entry: &Entry, tried: bool, shared: bool) -> String {
    let Measured { samples, p95, .. } = entry.candidate.measured;
    let (number, p95, time) = (samples.to_string(), millis(p95).to_string(), entry.time.to_string());
    let tried = if tried { "tried, " } else { "" };
    if samples < FEW && entry.score == UNKNOWN {
        return [tried, &number, " times"].concat();
    }
    let of = if samples < ENOUGH { [" of ", &number].concat() } else { String::new() };
    let times =
        entry.candidate.handicap.map_or_else(String::new, |handicap| [" x ", &hundredths(handicap)].concat());
    let ordered_as = if time == p95 { String::new() } else { [", ordered as ", &time, " ms"].concat() };
    let shared = if shared { ", by share" } else { "" };
    [tried, "p95 ", &p95, " ms", &of, &times, &ordered_as, shared].concat()
}

/// Thousandths as a number with two decimals.
fn hundredths(thousandths: u32) -> String {
    let rounded = thousandths.saturating_add(5) / 10;
    format!("{}.{:02}", rounded / 100, rounded % 100)
}

#[cfg(test)]
mod tests;
