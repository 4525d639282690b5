//! Selects the provider that is tried next, by health records, latencies and scores, and finds the provider that keeps a stored object.

pub mod evaluations;
pub mod ledger;
pub mod models;
pub mod plan;
pub mod stored;
