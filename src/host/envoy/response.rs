//! A provider's response as the host has it: what is read of it, and what is written into it.

use proxy_wasm::types::MapType;

use super::filter_state::REPLIED;
use crate::bytes::headers::{HeaderWriter, Headers};
use crate::client_api::errors::Reply;
use crate::host::sys;
use crate::routing::rewrite::{answer_headers, response_headers};

/// A new connection takes at least a round trip to be ready, one from the pool takes none; even on loopback the two are
/// apart by an order of magnitude.
const REUSED_WITHIN_NANOS: i64 = 100_000;

/// Envoy's response flags for a client that left: it closed its connection (DC), or reset its HTTP/2 stream (DR).
pub(super) const DOWNSTREAM_GONE: u64 = 1 << 14 | 1 << 28;
/// Those for an attempt that was not made: no healthy host (UH), circuit breakers full (UO), no such cluster (NC).
pub(super) const UNREACHED: u64 = 1 << 1 | 1 << 7 | 1 << 24;
/// Those for an attempt that was made and broke: reset by Envoy (LR) or by the provider (UR), not connected (UF), closed (UC).
pub(super) const RESET: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6;

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

/// Answers the client in place of a provider.
pub(super) fn reply(reply: &Reply) {
    // Envoy's `local_reply_config` leaves a reply with this mark alone.
    sys::set_property(REPLIED, b"1");
    if !sys::send(reply) {
        log::error!("the gateway refused a reply with status {}", reply.status);
    }
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
/// `key` is the provider's.
pub(super) fn change(headers: Option<Headers>, key: &str, extra: Vec<(&'static str, String)>) {
    let headers = headers.unwrap_or_else(|| sys::headers(MapType::HttpResponseHeaders));
    sys::set_headers(MapType::HttpResponseHeaders, &response_headers(&headers, key, extra));
}

/// Writes the headers of an error whose body the filter wrote itself.
pub(super) fn change_error(
    status: u16,
    headers: &Headers,
    key: &str,
    len: usize,
    extra: Vec<(&'static str, String)>,
) {
    let rewritten = |name: &[u8]| {
        [&b":status"[..], b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    let mut kept = HeaderWriter::default();
    kept.add(":status", status.to_string());
    kept.add("content-type", "application/json");
    kept.add("content-length", len.to_string());
    kept.extend(headers.iter().filter(|(name, _)| !rewritten(name)));
    let kept = Headers::new(kept.finish());
    sys::set_headers(MapType::HttpResponseHeaders, &response_headers(&kept, key, extra));
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
