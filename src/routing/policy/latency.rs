//! The quickest candidate first, by the 95th percentile (p95) of the times measured within a sliding window.
//!
//! The measured time is what a client waits for: the time to the first content of a stream that is released at its first token,
//! and the whole time of any other answer. The two kinds are never compared. A failed attempt has no time; it counts in the
//! circuit breaker instead.
//!
//! **The order is stable.** The candidates are ordered by a damped p95, the [settled] time, which says what is remembered.
//!
//! **Candidates with few samples are tried.** Those with fewer than twenty times (`ENOUGH`) in the window get a small share of the
//! requests until they have that many, and all requests while the candidates have on average less than half of it. So a
//! provider that has recovered is found again, and one that has not costs twenty slow requests per window. A candidate can
//! be first from five times (`FEW`) on, but the fewer it has the quicker it must be.

mod record;
mod settled;

use std::time::Duration;

use super::Ranked;
use crate::base::clock::millis;
use crate::routing::provider::ProviderId;

pub use record::{Bucket, Record};
use settled::FEW;
pub use settled::{turn, ENOUGH};

/// 15 min. With one request in four seconds, the share of requests for trials is then enough to measure two candidates.
const WINDOW: Duration = Duration::from_secs(900);
/// One request in twenty.
const EXPLORE: u32 = MILLION / 20;
/// All requests, in the unit of [`Rules::explore`].
pub const MILLION: u32 = 1_000_000;

/// The configuration of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The length of the window.
    pub window: Duration,
    /// The share of requests that try a candidate with few samples, in millionths.
    pub explore: u32,
    /// Providers that come before all others, however quick these are.
    pub prefer: Vec<ProviderId>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { window: WINDOW, explore: EXPLORE, prefer: Vec::new() }
    }
}

/// What was measured of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The number of times in the window.
    pub samples: u32,
    /// Their 95th percentile.
    pub p95: Duration,
    /// The time by which it is ordered, in milliseconds; 0 if too little is known.
    pub settled: u32,
}

/// A candidate to be ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// What was measured of it.
    pub measured: Measured,
    /// It comes before all that are not preferred.
    pub preferred: bool,
    /// Its score is below the route's `min_quality`: it comes after all others, even if it is preferred.
    pub below: bool,
    /// The factor by which its time is multiplied, in thousandths. `None` if the policy compares only times.
    pub handicap: Option<u32>,
}

/// The order of the candidates. `draw` is a random number that decides about trials.
pub fn order(candidates: &[Candidate], explore: u32, draw: u64) -> Vec<Ranked> {
    let mut ordered = Vec::with_capacity(candidates.len());
    for (below, preferred) in [(false, true), (false, false), (true, true), (true, false)] {
        let all = candidates.iter().copied().enumerate();
        let is_member = |(_, candidate): &(usize, Candidate)| {
            (candidate.below, candidate.preferred) == (below, preferred)
        };
        Group(all.filter(is_member).collect()).order(explore, draw, &mut ordered);
    }
    ordered
}

/// Candidates that are ordered by their times alone, each with its place in the caller's list. Each group has its own trials: a candidate
/// that comes after all others must not be tried before them.
struct Group(Vec<(usize, Candidate)>);

impl Group {
    /// Appends the group to the order.
    fn order(self, explore: u32, draw: u64, ordered: &mut Vec<Ranked>) {
        let samples: u32 = self.0.iter().map(|(_, candidate)| candidate.measured.samples.min(ENOUGH)).sum();
        let is_cold = (samples as usize) < self.0.len() * (ENOUGH as usize / 2);
        let mut queue: Vec<Entry> = Vec::with_capacity(self.0.len());
        let mut few: Vec<usize> = Vec::new();
        for (place, Candidate { measured, handicap, .. }) in self.0 {
            if measured.samples < ENOUGH {
                few.push(place);
            }
            let entry = Entry { place, measured, handicap, score: score(measured, handicap) };
            queue.insert(queue.partition_point(|other| other.score <= entry.score), entry);
        }
        if !is_cold {
            // The first one is measured without being tried.
            let first = queue.first().map(|entry| entry.place);
            few.retain(|place| Some(*place) != first);
        }
        // The upper half of the random number decides whether one is tried, the lower half which one.
        let is_trial = is_cold || ((draw >> 32) * u64::from(MILLION)) >> 32 < u64::from(explore);
        let picked = (draw as u32 as usize).checked_rem(few.len()).filter(|_| is_trial);
        let tried = picked.and_then(|picked| few.get(picked).copied());
        if let Some(at) = queue.iter().position(|entry| Some(entry.place) == tried) {
            let entry = queue.remove(at);
            queue.insert(0, entry);
        }
        for Entry { place, measured, handicap, .. } in queue {
            ordered.push(Ranked { place, why: why(measured, handicap, tried == Some(place)) });
        }
    }
}

/// A candidate while it is being ordered.
struct Entry {
    place: usize,
    measured: Measured,
    handicap: Option<u32>,
    /// By this the candidates are ordered.
    score: u64,
}

/// The score of a candidate that is unknown.
const UNKNOWN: u64 = u64::MAX;

/// The settled time times the handicap.
fn score(measured: Measured, handicap: Option<u32>) -> u64 {
    match measured.settled {
        0 => UNKNOWN,
        settled => u64::from(settled).saturating_mul(handicap.unwrap_or(1000).into()),
    }
}

/// The reason in the audit record: `p95 812 ms`, `p95 812 ms of 7`, `tried, 3 times`, `p95 812 ms x 1.51, ordered as 900 ms`.
fn why(measured: Measured, handicap: Option<u32>, tried: bool) -> String {
    let Measured { samples, p95, settled } = measured;
    let (number, p95, settled) = (samples.to_string(), millis(p95).to_string(), settled.to_string());
    let tried = if tried { "tried, " } else { "" };
    if samples < FEW && settled == "0" {
        return [tried, &number, " times"].concat();
    }
    let of = if samples < ENOUGH { [" of ", &number].concat() } else { String::new() };
    let times = handicap.map_or_else(String::new, |handicap| [" x ", &hundredths(handicap)].concat());
    let as_settled = if settled == p95 { String::new() } else { [", ordered as ", &settled, " ms"].concat() };
    [tried, "p95 ", &p95, " ms", &of, &times, &as_settled].concat()
}

/// Thousandths as a number with two decimals.
fn hundredths(thousandths: u32) -> String {
    let rounded = thousandths.saturating_add(5) / 10;
    format!("{}.{:02}", rounded / 100, rounded % 100)
}

#[cfg(test)]
mod tests;
