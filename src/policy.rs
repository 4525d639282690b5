//! How a route orders its candidates. A policy only orders; who is left out is the breaker's business.

/// The policy of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The order of the configuration.
    Priority,
}

impl Policy {
    /// The name in the configuration and in `x-shunt-policy`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
        }
    }

    /// The candidates in the order in which they should be asked.
    pub fn order<T>(self, candidates: Vec<T>) -> Vec<T> {
        match self {
            Self::Priority => candidates,
        }
    }
}
