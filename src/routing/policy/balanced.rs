//! Times, costs and qualities in one: the quickest first, where the time of who is dearer or worse than another counts for more.
//!
//! A candidate's time is multiplied by how many times it costs what the cheapest does, and by how many times better the best one is,
//! each to the power of its weight against that of the time. That orders by the weighted geometric mean of the three, which is
//! the mean that does not depend on what they are normalised by (Fleming and Wallace, "How not to lie with statistics",
//! CACM 29(3), 1986). The rest, that equals do not flap and the unknown is tried, is [`latency`](super::latency)'s.

use crate::routing::provider::Score;
use crate::spend::cost::Money;

/// How much each of the three counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Of times. At least 1.
    pub latency: u32,
    /// Of expected costs.
    pub cost: u32,
    /// Of scores.
    pub quality: u32,
}

impl Default for Weights {
    /// All the same.
    fn default() -> Self {
        Self { latency: 1, cost: 1, quality: 1 }
    }
}

/// What is known of a candidate beside its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostAndQuality {
    /// What this request is expected to cost there.
    pub cost: Option<Money>,
    /// Its score.
    pub score: Option<Score>,
    /// It is not good enough, and comes behind all that are.
    pub below: bool,
}

/// A time is not multiplied by more: nobody is infinitely worse, and a time in thousandths still has room for it.
const MOST: f64 = 1e6;

/// Who costs nothing counts as if it cost this share of what the cheapest does who costs anything: far ahead, and what the others
/// cost still says something.
const FREE: f64 = 0.01;

/// What each candidate's time is multiplied by, in thousandths. Who is unknown in something counts as the worst of those that are
/// known. Those that are good enough and those that are not are held against their like: no order mixes them.
pub fn handicaps(all: &[CostAndQuality], weights: Weights) -> Vec<u32> {
    let mut found = vec![1000; all.len()];
    for below in [false, true] {
        let group: Vec<CostAndQuality> =
            all.iter().copied().filter(|candidate| candidate.below == below).collect();
        let places = found.iter_mut().zip(all).filter(|(_, candidate)| candidate.below == below);
        places.zip(of_group(&group, weights)).for_each(|((place, _), handicap)| *place = handicap);
    }
    found
}

fn of_group(all: &[CostAndQuality], weights: Weights) -> Vec<u32> {
    let costs: Vec<Option<f64>> =
        all.iter().map(|candidate| Some(candidate.cost?.as_pico() as f64)).collect();
    let lacks: Vec<Option<f64>> =
        all.iter().map(|candidate| Some(1.0 / f64::from(candidate.score?.as_millionths().max(1)))).collect();
    let exponent = |weight: u32| f64::from(weight) / f64::from(weights.latency.max(1));
    let costs = ratios(&costs, exponent(weights.cost));
    let lacks = ratios(&lacks, exponent(weights.quality));
    let product = |(cost, lack): (f64, f64)| ((cost * lack).clamp(1.0, MOST) * 1000.0 + 0.5) as u32;
    costs.into_iter().zip(lacks).map(product).collect()
}

/// How many times the least each is, to a power.
fn ratios(all: &[Option<f64>], exponent: f64) -> Vec<f64> {
    let known = || all.iter().flatten().copied();
    let worst = known().fold(0.0, f64::max);
    // If nobody has any, nobody has more than another.
    let free = known().filter(|value| *value > 0.0).reduce(f64::min).unwrap_or(1.0) * FREE;
    let priced = |value: f64| if value > 0.0 { value } else { free };
    let least = known().map(priced).reduce(f64::min).unwrap_or(free);
    let ratio = |value: f64| (priced(value) / least).powf(exponent).min(MOST);
    all.iter().map(|value| ratio(value.unwrap_or(worst))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pico: impl Into<Option<u64>>, score: impl Into<Option<f64>>) -> CostAndQuality {
        CostAndQuality {
            cost: pico.into().map(Money::from_pico),
            score: score.into().map(Score::new),
            below: false,
        }
    }

    fn weights(latency: u32, cost: u32, quality: u32) -> Weights {
        Weights { latency, cost, quality }
    }

    #[test]
    fn who_costs_more_or_is_worse_needs_to_be_quicker_by_as_much() {
        let all = [candidate(200, 0.9), candidate(100, 0.45), candidate(400, 0.9)];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [2000, 2000, 4000]);
        assert_eq!(handicaps(&all, weights(1, 1, 0)), [2000, 1000, 4000]);
        assert_eq!(handicaps(&all, weights(1, 0, 1)), [1000, 2000, 1000]);
        assert_eq!(handicaps(&all, weights(2, 1, 0)), [1414, 1000, 2000], "by the root");
        assert_eq!(handicaps(&all, weights(1, 2, 0)), [4000, 1000, 16_000]);
    }

    #[test]
    fn who_is_unknown_is_the_worst_and_if_nobody_is_known_nothing_counts() {
        assert_eq!(
            handicaps(&[candidate(100, None), candidate(300, None), candidate(None, None)], weights(1, 1, 1)),
            [1000, 3000, 3000]
        );
        assert_eq!(handicaps(&[candidate(None, 0.5), candidate(None, 1.0)], weights(1, 1, 1)), [2000, 1000]);
        assert_eq!(handicaps(&[CostAndQuality::default(); 2], weights(1, 5, 5)), [1000, 1000]);
        assert_eq!(handicaps(&[], weights(1, 1, 1)), [0_u32; 0]);
    }

    #[test]
    fn who_costs_nothing_does_not_hide_what_the_others_cost() {
        let all = [candidate(0, None), candidate(100, None), candidate(300, None)];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [1000, 100_000, 300_000]);
    }

    #[test]
    fn who_is_not_good_enough_is_measured_by_its_like() {
        let below = |candidate| CostAndQuality { below: true, ..candidate };
        let all =
            [below(candidate(1, 0.1)), candidate(100, 0.8), candidate(200, 0.8), below(candidate(3, 0.1))];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [1000, 1000, 2000, 3000]);
    }

    #[test]
    fn nothing_is_infinitely_better() {
        let most = (MOST * 1000.0) as u32;
        assert_eq!(handicaps(&[candidate(0, 1.0), candidate(7, 0.0)], weights(1, 1, 1)), [1000, most]);
        assert_eq!(handicaps(&[candidate(0, 1.0), candidate(7, 1.0)], weights(1, 100, 100)), [1000, most]);
        assert_eq!(handicaps(&[candidate(0, 0.0), candidate(0, 0.0)], weights(1, 1000, 1000)), [1000, 1000]);
        assert_eq!(
            handicaps(&[candidate(u64::MAX, 1.0), candidate(1, 1.0)], weights(1, 1000, 0)),
            [most, 1000]
        );
    }
}
