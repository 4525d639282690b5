//! The quickest candidate first, by the 95th percentile (p95) of the times measured within a sliding window.
//!
//! The measured time is what a client waits for: the time to the first content of a stream that is released at its first token,
//! and the whole time of any other answer. The two kinds are never compared. A failed attempt has no time; it counts in the
//! circuit breaker instead.
//!
//! **The leader stays first** for at least ten seconds (`MIN_LEAD`), and then until another candidate is more than a fifth quicker.
//! So the first place cannot change more often than that; and for it to change there and back, the ratio of two times must
//! change by more than half (5/4 times 5/4), which the times of two equal candidates do not. The candidates' own records say
//! which one leads: the one with the latest `first_since`.
//!
//! **Candidates with few samples are tried.** Those with fewer than twenty times (`ENOUGH`) in the window get a small share of the
//! requests until they have that many, and all requests while the candidates have on average less than half of it. So a
//! provider that has recovered is found again, and one that has not costs twenty slow requests per window. A candidate can
//! lead from five times (`FEW`) on, but the fewer it has the quicker it must be, because the p95 of a handful
//! is easily low by chance.

mod record;

use std::time::Duration;

use super::Ranked;
use crate::base::clock::{millis, Timestamp};
use crate::routing::provider::ProviderId;

pub use record::{Bucket, Record};

/// The number of times from which a p95 is trusted. With fewer than twenty, the 95th percentile is the slowest.
pub const ENOUGH: u32 = 20;
/// The number of times below which a candidate counts as unknown.
const FEW: u32 = 5;

/// How long the leader stays at least: long enough for several batches of the workers' measurements to arrive.
const MIN_LEAD: Duration = Duration::from_secs(10);

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
    /// When it last became the leader; zero if it never did.
    pub first_since: Timestamp,
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

/// Whether `a` is more than a fifth quicker than `b`, both in milliseconds. A person would notice this difference, and it is larger
/// than the error of the histogram.
const fn quicker(a: u64, b: u64) -> bool {
    a.saturating_mul(5) < b.saturating_mul(4)
}

/// The order of the candidates, and those that become leaders by it, which must be noted in their records. `draw` is a random
/// number that decides about trials.
pub fn order(candidates: &[Candidate], explore: u32, draw: u64, now: Timestamp) -> (Vec<Ranked>, Vec<usize>) {
    let (mut ordered, mut new_leaders) = (Vec::with_capacity(candidates.len()), Vec::new());
    for (below, preferred) in [(false, true), (false, false), (true, true), (true, false)] {
        let all = candidates.iter().copied().enumerate();
        let is_member = |(_, candidate): &(usize, Candidate)| {
            (candidate.below, candidate.preferred) == (below, preferred)
        };
        let group = Group(all.filter(is_member).collect());
        new_leaders.extend(group.order(explore, draw, now, &mut ordered));
    }
    (ordered, new_leaders)
}

/// Candidates that are ordered by their times alone, each with its place in the caller's list. Each group has its own leader and
/// its own trials: a candidate that comes after all others must neither be tried before them nor count as their leader.
struct Group(Vec<(usize, Candidate)>);

impl Group {
    /// The candidate that became the leader last, among those that still have a time in the window, and since when it leads.
    fn leader(&self) -> Option<(usize, Timestamp)> {
        let mut leader = None;
        let mut latest = Timestamp::ZERO;
        for (place, Candidate { measured, .. }) in &self.0 {
            if measured.samples > 0 && measured.first_since > latest {
                latest = measured.first_since;
                leader = Some((*place, latest));
            }
        }
        leader
    }

    /// Appends the group to the order. Returns the candidate that becomes the leader, if the leader changes.
    fn order(self, explore: u32, draw: u64, now: Timestamp, ordered: &mut Vec<Ranked>) -> Option<usize> {
        let samples: u32 = self.0.iter().map(|(_, candidate)| candidate.measured.samples.min(ENOUGH)).sum();
        let is_cold = (samples as usize) < self.0.len() * (ENOUGH as usize / 2);
        let leader = self.leader();
        let mut queue: Vec<Entry> = Vec::with_capacity(self.0.len());
        let mut few: Vec<usize> = Vec::new();
        for (place, Candidate { measured, handicap, .. }) in self.0 {
            let is_leader = leader.is_some_and(|(leader, _)| leader == place);
            if measured.samples < ENOUGH && (is_cold || !is_leader) {
                few.push(place);
            }
            let time = compared_time(measured, handicap, is_leader);
            let entry = Entry { place, measured, handicap, time };
            queue.insert(queue.partition_point(|other| other.time <= entry.time), entry);
        }
        let best = queue.first().map(|entry| (entry.place, entry.time));
        let (mut stays, mut new_leader) = (None, None);
        if let Some((best, time)) = best.filter(|(_, time)| *time < UNKNOWN) {
            match leader {
                Some((leader, _)) if leader == best => {}
                Some((leader, since)) if !may_change(since, now) || !is_quicker(time, leader, &queue) => {
                    to_front(&mut queue, leader);
                    stays = Some(leader);
                }
                // No candidate becomes the leader before the others have been measured, too.
                _ if is_cold => {}
                _ => new_leader = Some(best),
            }
        }
        // The upper half of the random number decides whether one is tried, the lower half which one.
        let is_trial = is_cold || ((draw >> 32) * u64::from(MILLION)) >> 32 < u64::from(explore);
        let picked = (draw as u32 as usize).checked_rem(few.len()).filter(|_| is_trial);
        let tried = picked.and_then(|picked| few.get(picked).copied());
        if let Some(tried) = tried {
            to_front(&mut queue, tried);
        }
        for Entry { place, measured, handicap, .. } in queue {
            let why = why(measured, handicap, tried == Some(place), stays == Some(place));
            ordered.push(Ranked { place, why });
        }
        new_leader
    }
}

/// A candidate while it is being ordered.
struct Entry {
    place: usize,
    measured: Measured,
    handicap: Option<u32>,
    /// The time that is compared, in milliseconds.
    time: u64,
}

/// The compared time of a candidate that is unknown.
const UNKNOWN: u64 = u64::MAX;

/// The time that is compared, in milliseconds. The leader's own p95 always counts, because it is measured all the time. The p95 of
/// another candidate is raised the fewer samples it has, to less than twice its value; with too few samples, it is unknown.
fn compared_time(measured: Measured, handicap: Option<u32>, is_leader: bool) -> u64 {
    let p95 = millis(measured.p95).saturating_mul(handicap.unwrap_or(1000).into()) / 1000;
    let (missing, enough) = (ENOUGH.saturating_sub(measured.samples).into(), u64::from(ENOUGH));
    match measured.samples {
        _ if is_leader => p95,
        ..FEW => UNKNOWN,
        _ => p95.saturating_add(p95.saturating_mul(missing) / enough),
    }
}

/// Whether a candidate that leads since then may be replaced. It may if the clock was put back, or it might lead for ever.
fn may_change(since: Timestamp, now: Timestamp) -> bool {
    now < since || now.since(since) >= MIN_LEAD
}

fn is_quicker(time: u64, leader: usize, queue: &[Entry]) -> bool {
    queue.iter().any(|entry| entry.place == leader && quicker(time, entry.time))
}

fn to_front(queue: &mut Vec<Entry>, place: usize) {
    if let Some(at) = queue.iter().position(|entry| entry.place == place) {
        let entry = queue.remove(at);
        queue.insert(0, entry);
    }
}

/// The reason in the audit record: `p95 812 ms`, `p95 812 ms, stays`, `p95 812 ms of 7`, `tried, 3 times`, `p95 812 ms x 1.51`.
fn why(measured: Measured, handicap: Option<u32>, tried: bool, stays: bool) -> String {
    let Measured { samples, p95, .. } = measured;
    let (number, p95) = (samples.to_string(), millis(p95).to_string());
    let tried = if tried { "tried, " } else { "" };
    let stays = if stays { ", stays" } else { "" };
    if samples < FEW {
        return [tried, &number, " times", stays].concat();
    }
    let of = if samples < ENOUGH { [" of ", &number].concat() } else { String::new() };
    let times = handicap.map_or_else(String::new, |handicap| [" x ", &hundredths(handicap)].concat());
    [tried, "p95 ", &p95, " ms", &of, &times, stays].concat()
}

/// Thousandths as a number with two decimals.
fn hundredths(thousandths: u32) -> String {
    let rounded = thousandths.saturating_add(5) / 10;
    format!("{}.{:02}", rounded / 100, rounded % 100)
}

#[cfg(test)]
mod tests;
