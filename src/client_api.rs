//! OpenAI's API as the gateway's clients use it: the requests that they send, the errors that they get, and the redaction of keys in those.

pub mod errors;
pub mod redaction;
pub mod request;
