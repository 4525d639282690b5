//! What the client asked for, which an answer is held against.

use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::routing::provider::ApiKey;

/// What the client asked for, and of whom it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// A stream.
    pub stream: bool,
    /// The stream's usage (`stream_options.include_usage`).
    pub usage: bool,
    /// When a stream is released.
    pub release: Release,
    /// The format that the provider speaks.
    pub wire: Wire,
    /// What is filled in where the provider leaves it out.
    pub defaults: Defaults,
    /// The provider's key, which no error may echo.
    pub key: ApiKey,
}
