//! OpenAI's API as the gateway's clients see it: requests as they come in, and errors as they go out.

pub mod errors;
pub mod request;
