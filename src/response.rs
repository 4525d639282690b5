//! A provider's response on its way to the client: it is withheld until its outcome is known, then released and relayed.

pub mod answer;
pub mod asked;
pub mod committed;
mod document;
pub mod stream;
mod tail;
