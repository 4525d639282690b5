//! The providers' APIs: how they differ from OpenAI's, and how their answers are corrected or translated to follow it.

pub mod anthropic;
pub mod dialect;
pub mod schema;
