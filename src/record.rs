//! What is recorded of a finished request: its audit record and its metrics.

pub mod audit;
pub mod metrics;
