//! OpenAI's API as clients of the gateway use it: how requests are read, and the errors that clients get.

pub mod errors;
pub mod request;
