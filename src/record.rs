//! What is recorded about a finished request: its audit record and the metrics.

pub mod audit;
pub mod bill;
pub mod metrics;
