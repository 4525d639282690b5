//! What the filter reads from a request: endpoint, model, whether it streams, size, tokens. No JSON tree is built.
//!
//! The body is scanned once. The scan validates the JSON, keeps the few top-level values that matter together with their
//! byte ranges, and skips everything else. A value is changed later by splicing new text into its range.

mod body;
mod capabilities;
mod input;
mod kept;
mod limits;

pub use body::{Body, Entry};
pub use capabilities::{Feature, Features, Needs};
pub use input::Input;
pub use kept::names_kept_object;
pub use limits::{AnswerLimit, LongestAnswer, ANSWER_LIMITS};

use crate::bytes::ascii;
use crate::client_api::errors::Rejection;

/// In a request: the header that chooses one of the policies that the route allows. In an answer: the policy that ordered the
/// candidates.
pub const POLICY_OPTION: &str = "x-shunt-policy";

/// The request header with which a client chooses when its stream is released: `first_token` (the default) or `complete`.
pub const STREAM_OPTION: &str = "x-shunt-stream";

/// The endpoint of OpenAI's API that a request is for. The path of a route ends with the suffix of one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/chat/completions`.
    Chat,
    /// `/completions`, the legacy text completions.
    Completions,
    /// `/embeddings`.
    Embeddings,
    /// `/responses`.
    Responses,
}

impl Endpoint {
    /// All endpoints. Chat comes before completions, because its suffix ends with the other's.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses];

    /// The suffix of its path.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
        }
    }

    /// The endpoint of a path, by its suffix.
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

/// The parts of a request's head that the filter uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The path without the query.
    pub path: String,
    /// The client wants its stream held until it is complete (`x-shunt-stream: complete`).
    pub complete: bool,
    /// The policy that the client chose with `x-shunt-policy`.
    pub policy: Option<String>,
}

impl Head {
    /// The path in a `:path` header, without the query. The query may contain a client's secret and is never forwarded.
    pub fn path(header: &str) -> &str {
        header.split_once(['?', '#']).map_or(header, |(path, _)| path)
    }

    /// Whether the query of a `:path` header has a parameter whose name says that it is a key. Some gateways log the query as it came,
    /// so a key does not belong there.
    #[inline(never)]
    pub fn has_key(header: &str) -> bool {
        let query = header.as_bytes().get(Self::path(header).len()..).unwrap_or_default();
        query.split(|byte| matches!(byte, b'?' | b'#' | b'&' | b';')).any(is_key)
    }

    /// Whether a path has neither `.` or `..` segments nor encoded or doubled separators. A provider might resolve these to
    /// a path that the configuration does not allow.
    pub fn is_plain(path: &str) -> bool {
        let lower = ascii::lower(path);
        let ambiguous = ["%2e", "%2f", "%5c", "\\", "//"];
        !ambiguous.iter().any(|part| lower.contains(part))
            && !path.split('/').any(|segment| matches!(segment, "." | ".."))
    }

    /// Reads the value of [`STREAM_OPTION`]. True for `complete`.
    ///
    /// # Errors
    /// A [`Rejection`] for any other value.
    pub fn parse_stream_option(value: Option<&[u8]>) -> Result<bool, Rejection> {
        match value {
            None | Some(b"first_token") => Ok(false),
            Some(b"complete") => Ok(true),
            Some(other) => Err(Rejection::option(STREAM_OPTION, &String::from_utf8_lossy(other))),
        }
    }
}

/// The parameters of a query that are keys. The last one is where APISIX's `jwt-auth` looks.
const KEY_PARAMETERS: [&[u8]; 6] = [b"key", b"apikey", b"xapikey", b"token", b"accesstoken", b"jwt"];

/// Whether a parameter of a query is a key, by its name: decoded, in lower case, and without anything but letters and digits. So
/// `API%5FKey=x` is `apikey`.
fn is_key(parameter: &[u8]) -> bool {
    let mut keys = KEY_PARAMETERS;
    let mut rest = parameter;
    while let Some(letter) = next_letter(&mut rest) {
        for key in &mut keys {
            *key = match key.split_first() {
                Some((first, rest)) if *first == letter => rest,
                // A byte that no name has.
                _ => b"=",
            };
        }
    }
    keys.iter().any(|key| key.is_empty())
}

/// Takes the next letter or digit off the name of a parameter.
fn next_letter(rest: &mut &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    loop {
        let (first, after) = rest.split_first()?;
        *rest = after;
        let mut byte = *first;
        if let (b'%', [high, low, after @ ..]) = (byte, after) {
            if let (Some(high), Some(low)) = (digit(*high), digit(*low)) {
                byte = u8::try_from(high << 4 | low).unwrap_or_default();
                *rest = after;
            }
        }
        if byte == b'=' {
            return None;
        }
        if byte.is_ascii_alphanumeric() {
            return Some(byte.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_known_by_its_name_however_it_is_written() {
        for query in [
            "key=sk-1",
            "api_key=sk-1",
            "api-key=sk-1",
            "token=sk-1",
            "access_token=sk-1",
            "apikey=sk-1",
            "x-api-key=sk-1",
            "jwt=a.b.c",
            "KEY=sk-1",
            "Api_Key=sk-1",
            "%6bey=sk-1",
            "%6B%65%79=sk-1",
            "api%5Fkey=sk-1",
            "api%2dkey=sk-1",
            "k%65y",
            "key",
            "key=",
            "a=b&key=sk-1",
            "a=b;key=sk-1",
            "key=&key=sk-1",
            "&&key",
            "a?key=sk-1",
            "a#key=sk-1",
            "+key=sk-1",
            "key[]=sk-1",
            "key%3Dsk-1",
            "%20key%00=sk-1",
        ] {
            assert!(Head::has_key(&format!("/v1/models?{query}")), "{query}");
        }
        for path in [
            "/v1/models",
            "/v1/models?",
            "/v1/models/a;key=1&token=2",
            "/key=1",
            "/v1/key/token",
            "/v1/files?after=key&limit=2",
            "/v1/files?keys=1",
            "/v1/files?monkey=1",
            "/v1/files?a=key=1",
            "/v1/files?max_tokens=1",
            "/v1/files?page_token=1",
            "/v1/files?%256bey=1",
            "/v1/files?k%6=1&%=%",
            "/v1/x?include[]=a&metadata[key]=1",
            "",
            "?",
            "/v1/files?é%c3%a9=key",
        ] {
            assert!(!Head::has_key(path), "{path}");
        }
    }

    #[test]
    fn a_path_with_parent_segments_or_encoded_separators_is_not_plain() {
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
