//! Time, cost and quality in one score; the candidate with the lowest is first:
//!
//! `score = p95 × (cost / cheapest)^(w_cost / w_latency) × (best / quality)^(w_quality / w_latency)`
//!
//! This file computes the two factors beside the p95, together called the handicap. [`latency`](super::latency) multiplies each
//! candidate's time by it and then orders them as it always does: by times that change only every few seconds, with load that is
//! shared, and with trials of candidates that have few samples.
//!
//! The order is that of the weighted geometric mean of the three ratios, which does not depend on the values by which
//! they are normalised (Fleming and Wallace, "How not to lie with statistics", CACM 29(3), 1986).

use crate::routing::provider::Score;
use crate::spend::cost::Money;

/// How much time, cost and quality count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// The weight of the time. At least 1.
    pub latency: u32,
    /// The weight of the expected cost.
    pub cost: u32,
    /// The weight of the quality score.
    pub quality: u32,
}

impl Default for Weights {
    /// All three count the same.
    fn default() -> Self {
        Self { latency: 1, cost: 1, quality: 1 }
    }
}

/// The expected cost and the quality of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostAndQuality {
    /// The expected cost of this request; `None` if the price is unknown.
    pub cost: Option<Money>,
    /// The quality score of its model, if it has one.
    pub score: Option<Score>,
    /// Its score is below the route's `min_quality`, so it comes after all candidates that reach it.
    pub below: bool,
}

/// The largest handicap, so that no candidate is infinitely worse and the handicap in thousandths fits into 32 bits.
const MAX_HANDICAP: f64 = 1e6;

/// A free candidate counts as costing this share of the cheapest candidate that is not free. So it is far ahead, but the ratios
/// between the others' costs still matter.
const FREE_SHARE: f64 = 0.01;

/// The handicap of each candidate: the factor by which its time is multiplied, in thousandths. An unknown cost or score counts as
/// the worst known one. Candidates below the minimum quality are compared only with each other, and the others likewise,
/// because the order never mixes the two groups.
pub fn handicaps(all: &[CostAndQuality], weights: Weights) -> Vec<u32> {
    let mut result = vec![1000; all.len()];
    for below in [false, true] {
        let group: Vec<CostAndQuality> =
            all.iter().copied().filter(|candidate| candidate.below == below).collect();
        let places = result.iter_mut().zip(all).filter(|(_, candidate)| candidate.below == below);
        places.zip(handicaps_of_group(&group, weights)).for_each(|((place, _), handicap)| *place = handicap);
    }
    result
}

fn handicaps_of_group(all: &[CostAndQuality], weights: Weights) -> Vec<u32> {
    let costs: Vec<Option<f64>> =
        all.iter().map(|candidate| Some(candidate.cost?.as_pico() as f64)).collect();
    let inverse_scores: Vec<Option<f64>> =
        all.iter().map(|candidate| Some(1.0 / f64::from(candidate.score?.as_millionths().max(1)))).collect();
    let exponent = |weight: u32| f64::from(weight) / f64::from(weights.latency.max(1));
    let costs = ratios(&costs, exponent(weights.cost));
    let inverse_scores = ratios(&inverse_scores, exponent(weights.quality));
    let product = |(cost, inverse_score): (f64, f64)| {
        ((cost * inverse_score).clamp(1.0, MAX_HANDICAP) * 1000.0 + 0.5) as u32
    };
    costs.into_iter().zip(inverse_scores).map(product).collect()
}

/// The ratio of each value to the smallest one, raised to a power.
fn ratios(all: &[Option<f64>], exponent: f64) -> Vec<f64> {
    let known = || all.iter().flatten().copied();
    let worst = known().fold(0.0, f64::max);
    // If every value is zero, all ratios are 1.
    let free = known().filter(|value| *value > 0.0).reduce(f64::min).unwrap_or(1.0) * FREE_SHARE;
    let priced = |value: f64| if value > 0.0 { value } else { free };
    let least = known().map(priced).reduce(f64::min).unwrap_or(free);
    let ratio = |value: f64| (priced(value) / least).powf(exponent).min(MAX_HANDICAP);
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
    fn the_handicap_is_the_cost_ratio_times_the_quality_ratio_each_to_its_weight() {
        let all = [candidate(200, 0.9), candidate(100, 0.45), candidate(400, 0.9)];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [2000, 2000, 4000]);
        assert_eq!(handicaps(&all, weights(1, 1, 0)), [2000, 1000, 4000]);
        assert_eq!(handicaps(&all, weights(1, 0, 1)), [1000, 2000, 1000]);
        assert_eq!(
            handicaps(&all, weights(2, 1, 0)),
            [1414, 1000, 2000],
            "the square root, because time counts twice"
        );
        assert_eq!(handicaps(&all, weights(1, 2, 0)), [4000, 1000, 16_000]);
    }

    #[test]
    fn an_unknown_value_counts_as_the_worst_known_one_and_if_all_are_unknown_none_counts() {
        assert_eq!(
            handicaps(&[candidate(100, None), candidate(300, None), candidate(None, None)], weights(1, 1, 1)),
            [1000, 3000, 3000]
        );
        assert_eq!(handicaps(&[candidate(None, 0.5), candidate(None, 1.0)], weights(1, 1, 1)), [2000, 1000]);
        assert_eq!(handicaps(&[CostAndQuality::default(); 2], weights(1, 5, 5)), [1000, 1000]);
        assert_eq!(handicaps(&[], weights(1, 1, 1)), [0_u32; 0]);
    }

    #[test]
    fn a_free_candidate_does_not_level_the_costs_of_the_others() {
        let all = [candidate(0, None), candidate(100, None), candidate(300, None)];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [1000, 100_000, 300_000]);
    }

    #[test]
    fn candidates_below_the_minimum_quality_are_compared_only_with_each_other() {
        let below = |candidate| CostAndQuality { below: true, ..candidate };
        let all =
            [below(candidate(1, 0.1)), candidate(100, 0.8), candidate(200, 0.8), below(candidate(3, 0.1))];
        assert_eq!(handicaps(&all, weights(1, 1, 1)), [1000, 1000, 2000, 3000]);
    }

    #[test]
    fn a_handicap_has_a_largest_value() {
        let most = (MAX_HANDICAP * 1000.0) as u32;
        assert_eq!(handicaps(&[candidate(0, 1.0), candidate(7, 0.0)], weights(1, 1, 1)), [1000, most]);
        assert_eq!(handicaps(&[candidate(0, 1.0), candidate(7, 1.0)], weights(1, 100, 100)), [1000, most]);
        assert_eq!(handicaps(&[candidate(0, 0.0), candidate(0, 0.0)], weights(1, 1000, 1000)), [1000, 1000]);
        assert_eq!(
            handicaps(&[candidate(u64::MAX, 1.0), candidate(1, 1.0)], weights(1, 1000, 0)),
            [most, 1000]
        );
    }
}
