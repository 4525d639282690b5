//! What the client asked for. An answer is judged by it.

use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::routing::provider::ApiKey;

/// What the client asked for, and the provider that was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Whether it asked for a stream.
    pub stream: bool,
    /// Whether it asked for the usage of the stream (`stream_options.include_usage`).
    pub usage: bool,
    /// When a stream is released.
    pub release: Release,
    /// The format that the provider speaks.
    pub wire: Wire,
    /// The values of fields that the provider leaves out.
    pub defaults: Defaults,
    /// The provider's key, which no error may echo.
    pub key: ApiKey,
}
