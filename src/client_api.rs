//! OpenAI's API as the gateway's clients see it: requests as they come in, and errors as they go out.

pub mod report;
pub mod request;
