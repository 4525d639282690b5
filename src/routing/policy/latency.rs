//! The quickest first: by the 95th percentile of what was met within a sliding window.
//!
//! What is measured is what a client waits for: the first content of a stream that is released then, the whole of any other
//! answer; the two are never compared. An attempt that failed is no time: it counts through the breaker.
//!
//! **Who is first stays first** until another is quicker by [a fifth](quicker), and for [`SETTLE`] at least. So the first cannot
//! change more often than once in that time; and between two changes back and forth their ratio has changed by more than a half
//! (5/4 by 5/4), which two equals do not do. Which one it is, the candidates' own records say: that which was made the first last.
//!
//! **Who is not known is tried.** Candidates with fewer than [`ENOUGH`] times in the window get a small share of the requests until
//! they have them, and all of them while there is half of that on average. So a provider that has recovered is found again, and one that has not costs
//! [`ENOUGH`] slow requests in a window. With [`FEW`] times it can be the first already, if these are better by as much more as
//! they are fewer: the slowest of a handful is quick by chance.

mod record;

use std::time::Duration;

use super::Ranked;
use crate::base::clock::{millis, Timestamp};
use crate::routing::provider::ProviderId;

pub use record::{Bucket, Record, LENGTH};

/// Twenty: of fewer, the 95th percentile is the slowest.
pub const ENOUGH: u32 = 20;
/// Five: with fewer, nothing is known.
pub const FEW: u32 = 5;

/// So long the first stays: several batches of what all workers met.
pub const SETTLE: Duration = Duration::from_secs(10);

/// 15 min: with one request in four seconds, the share of those that try is enough to know two candidates.
const WINDOW: Duration = Duration::from_secs(900);
/// One in twenty.
const EXPLORE: u32 = MILLION / 20;
/// All requests, in the unit of [`Rules::explore`].
pub const MILLION: u32 = 1_000_000;

/// How a route measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The length of the window.
    pub window: Duration,
    /// The share of requests that try who is not known, in millionths.
    pub explore: u32,
    /// Providers that come before all others, however quick these are.
    pub prefer: Vec<ProviderId>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { window: WINDOW, explore: EXPLORE, prefer: Vec::new() }
    }
}

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Times in the window.
    pub samples: u32,
    /// Their 95th percentile.
    pub p95: Duration,
    /// When it was last made the first; zero if it never was.
    pub first_since: Timestamp,
}

/// A candidate to be ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// What is known of it.
    pub measured: Measured,
    /// It comes before those that are not preferred.
    pub preferred: bool,
    /// It is not good enough, and comes behind all that are, preferred or not.
    pub below: bool,
    /// What its time is multiplied by, in thousandths; `None`: nothing else counts than times.
    pub handicap: Option<u32>,
}

/// Whether `a` is quicker by a fifth, in milliseconds: what a person would notice, and more than the histogram's error.
pub const fn quicker(a: u64, b: u64) -> bool {
    a.saturating_mul(5) < b.saturating_mul(4)
}

/// The order, and who is made the first by it and was not before: its record must say so. `draw` is a random number.
pub fn order(candidates: &[Candidate], explore: u32, draw: u64, now: Timestamp) -> (Vec<Ranked>, Vec<usize>) {
    let (mut ordered, mut risen) = (Vec::with_capacity(candidates.len()), Vec::new());
    for (below, preferred) in [(false, true), (false, false), (true, true), (true, false)] {
        let all = candidates.iter().copied().enumerate();
        let is_one = |(_, candidate): &(usize, Candidate)| {
            (candidate.below, candidate.preferred) == (below, preferred)
        };
        let group = Group(all.filter(is_one).collect());
        risen.extend(group.order(explore, draw, now, &mut ordered));
    }
    (ordered, risen)
}

/// Candidates of which none comes before another whatever their times are, with their places. Each group has its own first, and tries
/// its own: who waits behind all others must not be tried in their place, nor keep one of them from staying.
struct Group(Vec<(usize, Candidate)>);

impl Group {
    /// Who was made the first last, if anything is known of it still, and when.
    fn present(&self) -> Option<(usize, Timestamp)> {
        let mut present = None;
        let mut latest = Timestamp::ZERO;
        for (place, Candidate { measured, .. }) in &self.0 {
            if measured.samples > 0 && measured.first_since > latest {
                latest = measured.first_since;
                present = Some((*place, latest));
            }
        }
        present
    }

    /// Adds the group to the order; returns who is made the first.
    fn order(self, explore: u32, draw: u64, now: Timestamp, ordered: &mut Vec<Ranked>) -> Option<usize> {
        let met: u32 = self.0.iter().map(|(_, candidate)| candidate.measured.samples.min(ENOUGH)).sum();
        let is_cold = (met as usize) < self.0.len() * (ENOUGH as usize / 2);
        let present = self.present();
        let mut line: Vec<Entry> = Vec::with_capacity(self.0.len());
        let mut few: Vec<usize> = Vec::new();
        for (place, Candidate { measured, handicap, .. }) in self.0 {
            let is_present = present.is_some_and(|(present, _)| present == place);
            if measured.samples < ENOUGH && (is_cold || !is_present) {
                few.push(place);
            }
            let judged = judged(measured, handicap, is_present);
            let entry = Entry { place, measured, handicap, judged };
            line.insert(line.partition_point(|other| other.judged <= entry.judged), entry);
        }
        let best = line.first().map(|entry| (entry.place, entry.judged));
        let (mut stays, mut risen) = (None, None);
        if let Some((best, time)) = best.filter(|(_, time)| *time < UNKNOWN) {
            match present {
                Some((present, _)) if present == best => {}
                Some((present, since)) if !is_due(since, now) || !is_quicker(time, present, &line) => {
                    to_front(&mut line, present);
                    stays = Some(present);
                }
                // Nobody is made the first before the others had a chance.
                _ if is_cold => {}
                _ => risen = Some(best),
            }
        }
        // The upper half of the number says whether, the lower whom.
        let is_trial = is_cold || ((draw >> 32) * u64::from(MILLION)) >> 32 < u64::from(explore);
        let picked = (draw as u32 as usize).checked_rem(few.len()).filter(|_| is_trial);
        let tried = picked.and_then(|picked| few.get(picked).copied());
        if let Some(tried) = tried {
            to_front(&mut line, tried);
        }
        for Entry { place, measured, handicap, .. } in line {
            let why = why(measured, handicap, tried == Some(place), stays == Some(place));
            ordered.push(Ranked { place, why });
        }
        risen
    }
}

/// A candidate on its way into the order.
struct Entry {
    place: usize,
    measured: Measured,
    handicap: Option<u32>,
    /// The time that counts.
    judged: u64,
}

/// Nothing is known.
const UNKNOWN: u64 = u64::MAX;

/// The time that counts, in milliseconds. Of who is first, who is asked all the time or was until a moment ago, whatever is
/// known; of others up to twice their time if that is known from few.
fn judged(measured: Measured, handicap: Option<u32>, is_present: bool) -> u64 {
    let p95 = millis(measured.p95).saturating_mul(handicap.unwrap_or(1000).into()) / 1000;
    let (few, enough) = (ENOUGH.saturating_sub(measured.samples).into(), u64::from(ENOUGH));
    match measured.samples {
        _ if is_present => p95,
        ..FEW => UNKNOWN,
        _ => p95.saturating_add(p95.saturating_mul(few) / enough),
    }
}

/// Whether who is first since then may be replaced. A clock that went back must not keep it for ever.
fn is_due(since: Timestamp, now: Timestamp) -> bool {
    now < since || now.since(since) >= SETTLE
}

fn is_quicker(time: u64, present: usize, line: &[Entry]) -> bool {
    line.iter().any(|entry| entry.place == present && quicker(time, entry.judged))
}

fn to_front(line: &mut Vec<Entry>, place: usize) {
    if let Some(at) = line.iter().position(|entry| entry.place == place) {
        let entry = line.remove(at);
        line.insert(0, entry);
    }
}

/// In the record: `p95 812 ms`, `p95 812 ms, stays`, `p95 812 ms of 7`, `tried, 3 times`, `p95 812 ms x 1.51`.
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
