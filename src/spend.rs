//! Tokens and money: what an attempt used, what it costs, and how much its budgets still allow.

pub mod budget;
pub mod cost;
pub mod queued;
pub mod reported;
pub mod tokens;
pub mod usage;
