//! What the filter needs to know of a request: endpoint, model, stream, size, tokens. No tree is built of the body.
//!
//! The body is run through once: the JSON is checked, the few top-level values that decide something are kept with their
//! place, and everything else is skipped. Changing one of them later is a splice at that place.

mod body;
mod capabilities;
mod input;

pub use body::{Body, Entry};
pub use capabilities::{Feature, Features, Needs, Quirk};
pub use input::Input;

use crate::client_api::errors::Rejection;

/// The request header that asks for a policy of the route; in an answer, the policy that ordered the candidates.
pub const POLICY_OPTION: &str = "x-shunt-policy";

/// The client asks for `complete` with this header on one request.
pub const STREAM_OPTION: &str = "x-shunt-stream";

/// What a path asks for. The path of a route ends with one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/chat/completions`.
    Chat,
    /// `/completions`: the legacy text completions.
    Completions,
    /// `/embeddings`.
    Embeddings,
    /// `/responses`.
    Responses,
}

impl Endpoint {
    /// Every endpoint, the longer suffix before the shorter one that it ends with.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses];

    /// The end of its path.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
        }
    }

    /// The endpoint of a path, by its end.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| path.ends_with(endpoint.suffix()))
    }

    /// The operation's name in OpenTelemetry's GenAI conventions.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// The head of a request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The path without the query.
    pub path: String,
    /// The client asked, with `x-shunt-stream: complete`, to get its stream only when it is complete.
    pub complete: bool,
    /// The policy that the client asked for, with `x-shunt-policy`.
    pub policy: Option<String>,
}

impl Head {
    /// The path of a `:path` header: without the query, which may carry a client's secret and never crosses.
    pub fn path(header: &str) -> &str {
        header.split_once(['?', '#']).map_or(header, |(path, _)| path)
    }

    /// Whether a path means what it says: no segment that goes up, and no separator in disguise, which a provider might
    /// resolve to a path that nobody let through.
    pub fn is_plain(path: &str) -> bool {
        let lower = path.to_ascii_lowercase();
        let hidden = ["%2e", "%2f", "%5c", "\\", "//"];
        !hidden.iter().any(|hidden| lower.contains(hidden))
            && !path.split('/').any(|segment| matches!(segment, "." | ".."))
    }

    /// Reads the value of [`STREAM_OPTION`]: whether the stream is wanted complete.
    ///
    /// # Errors
    /// A [`Rejection`] for a word that does not exist.
    pub fn parse_stream_option(value: Option<&[u8]>) -> Result<bool, Rejection> {
        match value {
            None | Some(b"first_token") => Ok(false),
            Some(b"complete") => Ok(true),
            Some(other) => Err(Rejection::option(STREAM_OPTION, &String::from_utf8_lossy(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_goes_up_in_any_disguise_is_not_plain() {
        for path in ["/v1/files", "/v1/files/a..b/c.d", "/v1/files/%20"] {
            assert!(Head::is_plain(path), "{path}");
        }
        for path in [
            "/v1/files/../x",
            "/v1/./x",
            "/v1/files/%2E%2e/x",
            "/v1/..%2Fx",
            "/v1/a%5cb",
            "/v1/a\\b",
            "/v1//x",
            "/v1/..",
        ] {
            assert!(!Head::is_plain(path), "{path}");
        }
    }
}
