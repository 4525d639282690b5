//! A response as Envoy has it: what is read of it, and what is written into it.

use proxy_wasm::types::MapType;

use super::filter_state::REPLIED;
use crate::bytes::ascii;
use crate::bytes::headers::{HeaderWriter, Headers};
use crate::client_api::errors::Reply;
use crate::host::sys;
use crate::routing::rewrite::{answer_headers, response_headers};

/// A connection that is ready in less time comes from the pool: a new one takes at least a round trip, which even on loopback is
/// ten times longer.
const REUSED_WITHIN_NANOS: i64 = 100_000;

/// Envoy's response flags of a client that left: it closed its connection (DC), or reset its HTTP/2 stream (DR).
pub(super) const DOWNSTREAM_GONE: u64 = 1 << 14 | 1 << 28;
/// The flags of an attempt that was not sent: there is no healthy host (UH) or no such cluster (NC), or the cluster's circuit
/// breakers are full (UO).
pub(super) const UNREACHED: u64 = 1 << 1 | 1 << 7 | 1 << 24;
/// The flags of an attempt that was sent and broke: it was reset by Envoy (LR) or by the provider (UR), or its connection failed
/// (UF) or was closed (UC).
pub(super) const RESET: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6;

/// The head of a response, as far as it is needed.
pub(super) struct Response {
    pub(super) status: u16,
    /// All headers, if the status is an error. Those of an answer are not needed.
    pub(super) headers: Option<Headers>,
}

/// One header of the response.
pub(super) fn header(name: &str) -> Option<Vec<u8>> {
    sys::header(MapType::HttpResponseHeaders, name)
}

/// Replies to the client in place of a provider.
pub(super) fn reply(reply: &Reply) {
    // Envoy's `local_reply_config` does not change a reply with this mark.
    sys::set_property(REPLIED, b"1");
    if !sys::send(reply) {
        log::error!("Envoy refused to send a reply with status {} of this filter", reply.status);
    }
}

/// Writes the headers of an answer. `len` is the length of its body, if that was held to its end.
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
        // It was too long to be held, and was not read: its type and length are what the provider says.
        let kind = header("content-type").unwrap_or_default();
        let len = header("content-length").and_then(|len| ascii::whole(std::str::from_utf8(&len).ok()?));
        answer_headers(response.status, &String::from_utf8_lossy(&kind), len, id.as_deref(), extra)
    };
    sys::set_headers(MapType::HttpResponseHeaders, &block);
}

/// Writes the headers of a response that is not an answer: the provider's, as far as clients may see them, and `extra`. A header
/// that contains `key`, the provider's, is removed.
pub(super) fn change(headers: Option<Headers>, key: &str, extra: Vec<(&'static str, String)>) {
    let headers = headers.unwrap_or_else(|| sys::headers(MapType::HttpResponseHeaders));
    sys::set_headers(MapType::HttpResponseHeaders, &response_headers(&headers, key, extra));
}

/// Writes the headers of an error whose body this filter has written.
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
            .any(|known| ascii::is_same(name, known))
    };
    let mut kept = HeaderWriter::default();
    kept.add(":status", status.to_string());
    kept.add("content-type", "application/json");
    kept.add("content-length", len.to_string());
    kept.extend(headers.iter().filter(|(name, _)| !rewritten(name)));
    let kept = Headers::new(kept.finish());
    sys::set_headers(MapType::HttpResponseHeaders, &response_headers(&kept, key, extra));
}

/// Whether the connection of this attempt came from the pool.
pub(super) fn was_reused() -> bool {
    let nanos = sys::property("upstream\0cx_pool_ready_duration").map(|bytes| number(&bytes) as i64);
    let connected = sys::property("upstream\0local_address").is_some_and(|address| !address.is_empty());
    connected && nanos.is_some_and(|nanos| (0..REUSED_WITHIN_NANOS).contains(&nanos))
}

/// The value of a property that is a number: eight bytes, little endian.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
