//! What everything above needs of the world: time as a value, and a store behind a trait.

pub mod clock;
pub mod store;
