//! A provider's response as the host has it: what is read of it, and what is written into it.

use proxy_wasm::types::{BufferType, MapType};

use super::sys;
use crate::headers::Headers;
use crate::rewrite::{answer_headers, response_headers};

/// A new connection takes at least a round trip to be ready, one from the pool takes none; even on loopback the two are
/// apart by an order of magnitude.
const REUSED_WITHIN_NANOS: i64 = 100_000;

/// What is known of a response's head.
pub(super) struct Response {
    pub(super) status: u16,
    /// All headers, if the status was an error; an answer's are not needed.
    pub(super) headers: Option<Headers>,
}

/// One header of the response.
pub(super) fn header(name: &str) -> Option<Vec<u8>> {
    sys::header(MapType::HttpResponseHeaders, name)
}

/// Writes the headers of an answer. `len` is the length of a body that was held whole and goes on as it came.
pub(super) fn deliver(
    response: &Response,
    stream: bool,
    len: Option<usize>,
    extra: Vec<(&'static str, String)>,
) {
    let id = header("x-request-id");
    let block = if stream {
        answer_headers(response.status, "text/event-stream", None, id.as_deref(), extra)
    } else if len.is_some() {
        answer_headers(response.status, "application/json", len, id.as_deref(), extra)
    } else {
        // Released unjudged: whatever it is, and as long as it says.
        let kind = header("content-type").unwrap_or_default();
        let len = header("content-length").and_then(|len| std::str::from_utf8(&len).ok()?.parse().ok());
        answer_headers(response.status, &String::from_utf8_lossy(&kind), len, id.as_deref(), extra)
    };
    sys::set_headers(MapType::HttpResponseHeaders, &block);
}

/// Writes the headers of a response that is no answer: the provider's, cleaned, with what the gateway adds.
pub(super) fn change(headers: Option<Headers>, extra: Vec<(&'static str, String)>) {
    let headers = headers.unwrap_or_else(|| sys::headers(MapType::HttpResponseHeaders));
    sys::set_headers(MapType::HttpResponseHeaders, &response_headers(&headers, extra));
}

/// Changes the end of the held body: `cut` bytes go, `behind` comes.
pub(super) fn edit(size: usize, cut: usize, behind: &[u8]) {
    let kind = BufferType::HttpResponseBody;
    if cut == 0 {
        sys::set_buffer(kind, size, 0, behind);
        return;
    }
    let mut bytes = sys::buffer(kind, 0, size.saturating_sub(cut)).unwrap_or_default();
    bytes.extend_from_slice(behind);
    sys::set_buffer(kind, 0, size, &bytes);
}

/// Whether the connection of this attempt came ready from the pool.
pub(super) fn was_reused() -> bool {
    let nanos = sys::property("upstream\0cx_pool_ready_duration").map(|bytes| number(&bytes) as i64);
    let connected = sys::property("upstream\0local_address").is_some_and(|address| !address.is_empty());
    connected && nanos.is_some_and(|nanos| (0..REUSED_WITHIN_NANOS).contains(&nanos))
}

/// A number property: eight bytes, little endian.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
