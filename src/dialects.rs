//! The APIs of providers: how vendors differ from OpenAI's API, and how requests and answers are converted.

pub mod anthropic;
pub mod dialect;
pub mod history;
pub mod items;
pub mod schema;
mod usage;
