//! Tokens and money: what an attempt used, what it costs, and what may still be spent.

pub mod budget;
pub mod cost;
pub mod tokens;
pub mod usage;
