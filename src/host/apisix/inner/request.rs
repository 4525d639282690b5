//! The request of an inner hop: its headers as they came, and those that the provider gets in their place.
//!
//! Each call of the host costs more than the work on what it returns. So all headers are read at once, and only those are written or
//! removed for which it makes a difference.

use proxy_wasm::types::MapType;

use crate::bytes::ascii;
use crate::bytes::headers::Headers;
use crate::host::apisix::URI;
use crate::host::client_request::header;
use crate::host::sys;
use crate::routing::provider::Provider;
use crate::routing::rewrite::is_of_call;

/// The variable with the host that nginx sends, also in TLS.
const HOST: &str = "upstream_host";
/// The headers that nginx itself writes, for the body and the connection.
const NGINX: [&[u8]; 4] = [b"host", b"content-length", b"transfer-encoding", b"connection"];
/// The host gives at most this many headers of a map.
const MOST_SHOWN: usize = 100;
/// How often the whole map is read at most.
const MOST_ROUNDS: usize = 16;

const MAP: MapType = MapType::HttpRequestHeaders;

/// The headers of the request as they came.
#[derive(Default)]
pub(super) struct Received {
    headers: Headers,
    /// Whether these are certainly all of them.
    is_whole: bool,
}

impl Received {
    /// Reads them all at once. Only for a request of the router: the host ends the worker if the header `host` is missing. nginx and the
    /// filter's calls always send it; others may not.
    pub(super) fn read() -> Self {
        let headers = sys::headers(MAP);
        // Every request has headers. If the host gives none, or as many as it gives at most, there may be others.
        let is_whole = (1..MOST_SHOWN).contains(&headers.iter().count());
        Self { headers, is_whole }
    }

    /// All of them, as far as the host gives them.
    pub(super) const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The first value of a header.
    pub(super) fn value(&self, name: &str) -> Option<Vec<u8>> {
        match self.headers.value(name) {
            Some(value) => Some(value.to_vec()),
            None if self.is_whole => None,
            None => header(name),
        }
    }

    /// Sets the headers of the request to `wanted`, and removes all others. Returns whether that is certain.
    pub(super) fn replace(&self, wanted: &Headers) -> bool {
        // They are written first: that leaves one line of a header that came many times, so that its lines hide no other header.
        let written = wanted.iter().all(|(name, value)| {
            let Ok(name) = std::str::from_utf8(name) else { return false };
            match name {
                ":authority" => sys::set_property(HOST, value),
                ":path" => sys::set_property(URI, value),
                ":method" | ":scheme" | "content-length" => true,
                _ => self.has(name, value) || sys::set_header(MAP, name, value),
            }
        });
        self.remove(&|name| wanted.iter().any(|(wanted, _)| ascii::is_same(wanted, name))) && written
    }

    /// Adds to a call what only the inner hop says: the provider's host and key. All headers are removed that no call has. Returns whether
    /// that is certain.
    pub(super) fn complete(&self, provider: &Provider, traces: bool) -> bool {
        let key = provider.dialect.key_header.as_str();
        self.remove(&|name| ascii::is_same(name, key) || is_of_call(name, provider, traces))
            && sys::set_property(HOST, provider.host.as_bytes())
            && sys::set_header(MAP, key, provider.api_key.header())
    }

    /// Whether this header came once, with this value.
    fn has(&self, name: &str, value: &[u8]) -> bool {
        let mut lines = self.headers.iter().filter(|(found, _)| ascii::is_same(found, name));
        self.is_whole && lines.next().is_some_and(|(_, found)| found == value) && lines.next().is_none()
    }

    /// Removes all headers but those that nginx itself writes and those that stay. Returns whether that is certain.
    fn remove(&self, stays: &dyn Fn(&[u8]) -> bool) -> bool {
        let is_stranger = |name: &[u8]| {
            !name.starts_with(b":") && !NGINX.iter().any(|known| ascii::is_same(name, known)) && !stays(name)
        };
        // What the host has not given comes to light when what it gave is removed.
        let mut next;
        let mut seen = self;
        for _ in 0..MOST_ROUNDS {
            let mut is_changed = false;
            for (name, _) in seen.headers.iter().filter(|(name, _)| is_stranger(name)) {
                is_changed = true;
                if !std::str::from_utf8(name).is_ok_and(|name| sys::remove_header(MAP, name)) {
                    return false;
                }
            }
            if seen.is_whole || !is_changed {
                return seen.is_whole;
            }
            next = Self::read();
            seen = &next;
        }
        false
    }
}
