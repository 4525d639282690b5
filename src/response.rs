//! A provider's response on its way to the client: withheld, judged, released, and relayed.

pub mod answer;
pub mod asked;
pub mod committed;
pub mod stream;
