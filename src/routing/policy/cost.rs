//! The cheapest candidate first, by the expected cost of the request at the prices of the current hour.

use super::Ranked;
use crate::spend::cost::Money;

/// Price caps. A candidate above one of them is excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// The cap on the price of an input token.
    pub input: Option<Money>,
    /// The cap on the price of an output token.
    pub output: Option<Money>,
    /// The cap on the expected cost of the request.
    pub request: Option<Money>,
}

/// The prices of a request at a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The expected cost of the whole request.
    pub cost: Money,
    /// The price of an input token.
    pub input: Money,
    /// The price of an output token.
    pub output: Money,
}

/// The reason for excluding a candidate whose price is above a cap.
const TOO_EXPENSIVE: &str = "too_expensive";
/// The reason for excluding a candidate whose price is unknown although there is a cap. In an order without caps, the reason for
/// its last position.
pub const UNPRICED: &str = "unpriced";

impl Caps {
    /// The reason for excluding a candidate, if it is to be excluded. An unknown price is not below any cap.
    fn exclusion(&self, offer: Option<&Offer>) -> Option<&'static str> {
        let Some(offer) = offer else { return (*self != Self::default()).then_some(UNPRICED) };
        [(self.input, offer.input), (self.output, offer.output), (self.request, offer.cost)]
            .into_iter()
            .any(|(cap, price)| cap.is_some_and(|cap| price > cap))
            .then_some(TOO_EXPENSIVE)
    }
}

/// The order: cheapest first, those with an unknown price last; equal candidates keep their order. Then the candidates that the caps
/// exclude, each with the reason.
pub fn order(offers: &[Option<Offer>], caps: &Caps) -> (Vec<Ranked>, Vec<(usize, &'static str)>) {
    let mut ordered: Vec<(Option<Money>, usize)> = Vec::with_capacity(offers.len());
    let mut excluded = Vec::new();
    for (place, offer) in offers.iter().enumerate() {
        if let Some(why) = caps.exclusion(offer.as_ref()) {
            excluded.push((place, why));
            continue;
        }
        let cost = offer.map(|offer| offer.cost);
        let sort_key = |cost: Option<Money>| (cost.is_none(), cost);
        let at = ordered.partition_point(|(other, _)| sort_key(*other) <= sort_key(cost));
        ordered.insert(at, (cost, place));
    }
    let rank = |(cost, place): (Option<Money>, usize)| Ranked {
        place,
        why: cost.map_or_else(|| UNPRICED.to_owned(), |cost| [&cost.to_string(), " USD"].concat()),
    };
    (ordered.into_iter().map(rank).collect(), excluded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(cost: u64, input: u64, output: u64) -> Option<Offer> {
        let [cost, input, output] = [cost, input, output].map(Money::from_pico);
        Some(Offer { cost, input, output })
    }

    fn places(ranked: &[Ranked]) -> Vec<usize> {
        ranked.iter().map(|ranked| ranked.place).collect()
    }

    #[test]
    fn the_cheapest_is_first_equals_keep_their_order_and_unknown_prices_are_last() {
        let offers = [None, offer(30, 1, 1), offer(10, 9, 9), None, offer(30, 2, 2), offer(0, 0, 0)];
        let (ranked, excluded) = order(&offers, &Caps::default());
        assert_eq!(places(&ranked), [5, 2, 1, 4, 0, 3]);
        assert_eq!(ranked[1].why, "0.00000000001 USD");
        assert_eq!((ranked[0].why.as_str(), ranked[5].why.as_str()), ("0 USD", "unpriced"));
        assert_eq!(excluded, []);
    }

    #[test]
    fn every_candidate_is_ordered_or_excluded_once_and_costs_only_rise() {
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..5000 {
            let mut any = || Some(random.u64(0..4)).filter(|pico| *pico > 0).map(Money::from_pico);
            let caps = Caps { input: any(), output: any(), request: any() };
            let offers: Vec<Option<Offer>> = (0..6)
                .map(|_| Some(Offer { cost: any()?, input: any()?, output: any().unwrap_or_default() }))
                .collect();
            let (ranked, excluded) = order(&offers, &caps);
            let costs: Vec<Option<Money>> =
                ranked.iter().map(|one| offers[one.place].map(|offer| offer.cost)).collect();
            assert!(costs
                .windows(2)
                .all(|pair| pair[1].is_none() || (pair[0].is_some() && pair[0] <= pair[1])));
            let mut all = places(&ranked);
            all.extend(excluded.iter().map(|(place, _)| *place));
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_candidate_above_a_cap_is_excluded_and_one_at_the_cap_is_not() {
        let offers = [offer(30, 3, 5), offer(10, 4, 4), None, offer(20, 3, 6)];
        let cap = |pico| Some(Money::from_pico(pico));
        for (caps, left) in [
            (Caps { input: cap(3), ..Caps::default() }, vec![3, 0]),
            (Caps { output: cap(5), ..Caps::default() }, vec![1, 0]),
            (Caps { request: cap(20), ..Caps::default() }, vec![1, 3]),
            (Caps { input: cap(3), output: cap(5), request: cap(30) }, vec![0]),
            (Caps { input: cap(0), ..Caps::default() }, vec![]),
        ] {
            let (ranked, excluded) = order(&offers, &caps);
            assert_eq!(places(&ranked), left, "{caps:?}");
            assert_eq!(excluded.len(), offers.len() - left.len());
            for (place, why) in excluded {
                assert_eq!(why, if place == 2 { UNPRICED } else { TOO_EXPENSIVE });
            }
        }
    }
}
