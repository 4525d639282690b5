//! The health of a provider: the outcome of each attempt, and the breaker and the holds that follow from it.

pub mod breaker;
pub mod outcome;
