//! Each candidate is first for the share of requests that its weight gives, for A/B tests and canaries.
//!
//! Imagine a line on which every candidate has a segment as long as its weight; a point on the line selects the first candidate.
//! The point is random, or, for sticky routing, a hash of the tenant or of a header. With a hash the same tenant always goes to
//! the same candidate, and a canary whose weight grows keeps the tenants that it already has.

use super::Ranked;
use crate::routing::provider::ProviderId;

/// Which requests always go to the same candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sticky {
    /// None: the candidate is drawn for each request.
    #[default]
    No,
    /// Those of the same tenant.
    Tenant,
    /// Those with the same value of this header.
    Header(String),
}

/// The weights of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The weights of its providers. A provider that is missing has the weight 0 and comes last.
    pub weights: Vec<(ProviderId, u32)>,
    /// Which requests always go to the same candidate.
    pub sticky: Sticky,
}

impl Rules {
    /// The weight of a provider.
    pub fn weight(&self, provider: ProviderId) -> u32 {
        self.weights.iter().find(|(id, _)| *id == provider).map_or(0, |(_, weight)| *weight)
    }
}

/// The order that a point selects. Each following candidate is drawn among the rest in the same way, so that the load of an
/// excluded one is shared according to the weights. Candidates of weight 0 come last and keep their order.
pub fn order(weights: &[u32], mut point: u64) -> Vec<Ranked> {
    let mut left: Vec<(usize, u32)> = weights.iter().copied().enumerate().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        point = mix(point);
        let place = segment_at(&left, point);
        let (place, weight) = left.remove(place);
        ordered.push(Ranked { place, why: ["weight ", &weight.to_string()].concat() });
    }
    ordered
}

/// The index of the segment that contains the point, which is a fraction of the whole line; 0 if all weights are 0.
fn segment_at(left: &[(usize, u32)], point: u64) -> usize {
    let total: u64 = left.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut point = ((u128::from(point) * u128::from(total)) >> 64) as u64;
    for (place, (_, weight)) in left.iter().enumerate() {
        let weight = u64::from(*weight);
        if point < weight {
            return place;
        }
        point -= weight;
    }
    0
}

/// Spreads a hash over all 64 bits: the finalizer of `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>).
pub(super) const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::fingerprint;

    fn places(weights: &[u32], point: u64) -> Vec<usize> {
        order(weights, point).iter().map(|ranked| ranked.place).collect()
    }

    /// How often each candidate is at this rank of the order, for 10,000 tenants with similar names.
    fn shares(weights: &[u32], rank: usize) -> Vec<usize> {
        let mut counts = vec![0; weights.len()];
        for tenant in 0..10_000 {
            counts[places(weights, fingerprint([format!("team-{tenant}").as_str()]))[rank]] += 1;
        }
        counts
    }

    #[test]
    fn each_candidate_is_first_as_often_as_its_weight_says() {
        for (weights, expected) in
            [([1, 1, 2], [2500, 2500, 5000]), ([90, 0, 10], [9000, 0, 1000]), ([0, 0, 7], [0, 0, 10_000])]
        {
            for (found, expected) in shares(&weights, 0).into_iter().zip(expected) {
                assert!(usize::abs_diff(found, expected) < 200, "{weights:?}: {found} of {expected}");
                assert_eq!(found == 0, expected == 0);
            }
        }
    }

    #[test]
    fn the_load_of_an_excluded_candidate_is_shared_according_to_the_weights() {
        let mut second = [0; 3];
        for point in 0..30_000 {
            let order = places(&[2, 1, 6], point);
            if order[0] == 2 {
                second[order[1]] += 1;
            }
        }
        assert!((second[0] as f64 / second[1] as f64 - 2.0).abs() < 0.1, "{second:?}");
    }

    #[test]
    fn the_same_point_gives_the_same_order_and_every_order_has_all_candidates() {
        for point in 0..1000 {
            let order = places(&[3, 0, 5, 0, 1], point);
            assert_eq!(order, places(&[3, 0, 5, 0, 1], point));
            assert_eq!(order[3..], [1, 3], "without a weight");
            let mut all = order;
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
        }
        assert!(places(&[], 1).is_empty());
        assert_eq!(places(&[0, 0], u64::MAX), [0, 1]);
        assert_eq!(places(&[u32::MAX; 3], u64::MAX).len(), 3);
    }

    #[test]
    fn a_canary_that_grows_keeps_the_tenants_that_it_has() {
        for tenant in 0..10_000_u64 {
            let is_canary = |weight: u32| places(&[100 - weight, weight], tenant)[0] == 1;
            assert!(!is_canary(5) || is_canary(10), "{tenant}");
            assert!(!is_canary(10) || is_canary(50), "{tenant}");
            assert_eq!(is_canary(5), places(&[1900, 100], tenant)[0] == 1, "only shares count");
        }
    }
}
