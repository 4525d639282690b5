//! What providers speak: where vendors differ from OpenAI's API, and how their answers are made to follow it.

pub mod anthropic;
pub mod dialect;
pub mod schema;
