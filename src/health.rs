//! The health of providers: the outcome of an attempt, and the breaker and the holds that follow from outcomes.

pub mod breaker;
pub mod outcome;
