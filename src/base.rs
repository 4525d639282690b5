//! What all other districts stand on: time as a value, a store behind a trait, and a sliding window.

pub mod clock;
pub mod store;
pub mod window;
