//! Which provider is next: the records, measured times and scores that decide it, and who keeps a stored object.

pub mod evaluations;
pub mod ledger;
pub mod models;
pub mod plan;
pub mod stored;
