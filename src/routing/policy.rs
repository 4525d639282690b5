//! How a route orders its candidates. A policy only orders them, except that a price cap excludes some; all other exclusions are
//! made by the breaker, by holds and by budgets.
//!
//! Each policy is a pure function of the candidates' prices, times, scores or weights, and of a random number.

pub mod balanced;
pub mod cost;
pub mod latency;
pub mod quality;
pub mod weighted;

use crate::routing::provider::Score;

/// The kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The order of the configuration.
    Priority,
    /// The cheapest one for this request first.
    Cost,
    /// The quickest one first.
    Latency,
    /// Each is first for the share of requests that its weight gives.
    Weighted,
    /// The one with the highest quality score first.
    Quality,
    /// By time, cost and quality together.
    Balanced,
}

impl Kind {
    /// All kinds.
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
    /// The kind for requests that choose none.
    pub kind: Kind,
    /// The other kinds that a request may choose.
    pub allow: Vec<Kind>,
    /// The price caps, for `cost`.
    pub cost: cost::Caps,
    /// The window, trials and preferences, for `latency` and `balanced`.
    pub latency: latency::Rules,
    /// The weights, for `weighted`.
    pub weighted: weighted::Rules,
    /// How much time, cost and quality count, for `balanced`.
    pub balance: balanced::Weights,
    /// The lowest score for `cost`, `latency` and `balanced`. Candidates below it come last.
    pub min_quality: Option<Score>,
}

impl Policy {
    /// The policy that keeps the order of the configuration.
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

    /// The kind for a request that chooses one by its name, or none. `None` if the name is unknown or not allowed.
    pub fn requested(&self, name: Option<&str>) -> Option<Kind> {
        let Some(name) = name else { return Some(self.kind) };
        Kind::ALL.into_iter().find(|kind| kind.name() == name && self.may_be(*kind))
    }

    /// Whether requests of the route can be ordered by this kind.
    pub fn may_be(&self, kind: Kind) -> bool {
        self.kind == kind || self.allow.contains(&kind)
    }
}

/// A candidate in the order that a policy made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its index in the list before it was ordered.
    pub place: usize,
    /// The reason for its position, in a few words for the audit record.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_choose_a_policy_that_its_route_allows() {
        let policy = Policy { allow: vec![Kind::Cost], ..Policy::priority() };
        for (name, expected) in [
            (None, Some(Kind::Priority)),
            (Some("priority"), Some(Kind::Priority)),
            (Some("cost"), Some(Kind::Cost)),
            (Some("latency"), None),
            (Some("Cost"), None),
            (Some(""), None),
        ] {
            assert_eq!(policy.requested(name), expected, "{name:?}");
        }
    }
}
