//! What is written down of a finished request: its audit record, and the counts.

pub mod audit;
pub mod metrics;
