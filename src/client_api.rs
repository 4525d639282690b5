//! OpenAI's API as the gateway's clients use it: the requests that they send, and the errors that they get.

pub mod errors;
pub mod request;
