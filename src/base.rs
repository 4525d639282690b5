//! The time and the shared store, as values and traits, so that the core never calls the host.

pub mod clock;
pub mod store;
