//! How a route orders its candidates. A policy only orders, but for a cap on prices; who is left out is the business of
//! breaker, holds and budgets.
//!
//! Each policy is a pure function of what is known of the candidates: prices, times, weights, and a random number.

pub mod balanced;
pub mod cost;
pub mod latency;
pub mod quality;
pub mod weighted;

use crate::routing::provider::Score;

/// The policies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The order of the configuration.
    Priority,
    /// The cheapest for this request first.
    Cost,
    /// The quickest first.
    Latency,
    /// Each first as often as its weight says.
    Weighted,
    /// The best first.
    Quality,
    /// By times, costs and qualities together.
    Balanced,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Priority, Self::Cost, Self::Latency, Self::Weighted, Self::Quality, Self::Balanced];

    /// The name in the configuration and in `x-shunt-policy`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Cost => "cost",
            Self::Latency => "latency",
            Self::Weighted => "weighted",
            Self::Quality => "quality",
            Self::Balanced => "balanced",
        }
    }
}

/// How a route orders its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What orders them if the request does not say.
    pub kind: Kind,
    /// What a request may ask for instead.
    pub allow: Vec<Kind>,
    /// For `cost`.
    pub cost: cost::Caps,
    /// For `latency` and `balanced`.
    pub latency: latency::Rules,
    /// For `weighted`.
    pub weighted: weighted::Rules,
    /// For `balanced`.
    pub balance: balanced::Weights,
    /// For `cost`, `latency` and `balanced`: who is not as good comes last.
    pub min_quality: Option<Score>,
}

impl Policy {
    /// The order of the configuration, and nothing else.
    pub fn priority() -> Self {
        Self {
            kind: Kind::Priority,
            allow: Vec::new(),
            cost: cost::Caps::default(),
            latency: latency::Rules::default(),
            weighted: weighted::Rules::default(),
            balance: balanced::Weights::default(),
            min_quality: None,
        }
    }

    /// The policy of a request that asks for one by its name, or does not. `None`: it is unknown, or not allowed.
    pub fn requested(&self, name: Option<&str>) -> Option<Kind> {
        let Some(name) = name else { return Some(self.kind) };
        Kind::ALL.into_iter().find(|kind| kind.name() == name && self.may_be(*kind))
    }

    /// Whether a request may be ordered so.
    pub fn may_be(&self, kind: Kind) -> bool {
        self.kind == kind || self.allow.contains(&kind)
    }
}

/// A candidate in its place of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its place among the candidates before they were ordered.
    pub place: usize,
    /// Why it stands there, for the record: a few words.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_ask_for_what_its_route_allows() {
        let policy = Policy { allow: vec![Kind::Cost], ..Policy::priority() };
        for (asked, expected) in [
            (None, Some(Kind::Priority)),
            (Some("priority"), Some(Kind::Priority)),
            (Some("cost"), Some(Kind::Cost)),
            (Some("latency"), None),
            (Some("Cost"), None),
            (Some(""), None),
        ] {
            assert_eq!(policy.requested(asked), expected, "{asked:?}");
        }
    }
}
