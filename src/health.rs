//! How a provider is doing: what an attempt came to, and what the breaker and the holds make of it.

pub mod breaker;
pub mod outcome;
