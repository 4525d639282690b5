//! A provider's response that is withheld: it is read until it can be judged, and then an answer or an error goes to the client.

use proxy_wasm::types::{BufferType, MapType};

use crate::client_api::errors::{error_envelope, is_envelope, json_type, Reply};
use crate::exchange::{Exchange, Refused};
use crate::health::outcome::{retry_after_of, ErrorBody};
use crate::host::envoy::response::{change, change_error, deliver, header, reply, Response};
use crate::host::sys;
use crate::response::answer::{Head, Judged, Step, Wants, Watch};

/// Headers that the client's response gets in addition.
pub(super) type Extra = Vec<(&'static str, String)>;

/// A response that is withheld.
pub(super) struct Withheld {
    pub(super) watch: Watch,
    pub(super) response: Response,
    /// How many bytes of the body Envoy holds.
    size: usize,
    /// How many of these bytes the watch has read, if it reads piece by piece.
    read: usize,
}

/// How the provider's error reaches the client.
pub(super) enum ErrorSent {
    /// As the body of the response, which is complete.
    Whole,
    /// As the body of the response. What the provider still sends must be dropped.
    Begun,
    /// As a reply of the gateway.
    Reply,
}

impl Withheld {
    /// Begins to withhold the response whose headers have arrived.
    pub(super) fn new(exchange: &Exchange, status: u16) -> Option<Self> {
        let asked = exchange.asked()?;
        let (watch, headers) = if (200..300).contains(&status) {
            let head = Head { status, retry_after: None };
            (Watch::new(&head, asked), None)
        } else {
            let headers = sys::headers(MapType::HttpResponseHeaders);
            let header = |name: &str| headers.text(name).map(str::to_owned);
            let retry_after = retry_after_of(status, &header, sys::now());
            let head = Head { status, retry_after };
            (Watch::new(&head, asked), Some(headers))
        };
        Some(Self { watch, response: Response { status, headers }, size: 0, read: 0 })
    }

    /// How many bytes of the body Envoy holds.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// A copy of the body in Envoy's buffer, from a byte on.
    fn body(&self, from: usize) -> Vec<u8> {
        match self.size.saturating_sub(from) {
            0 => Vec::new(),
            len => sys::buffer(BufferType::HttpResponseBody, from, len).unwrap_or_default(),
        }
    }

    /// Envoy holds `size` bytes now. At most `max_held` may be held. Returns `None` until the response can be judged.
    pub(super) fn grow(&mut self, size: usize, end: bool, max_held: usize) -> Option<Judged> {
        self.size = size;
        match self.watch.wants(max_held) {
            Wants::Pieces => {
                let piece = self.body(self.read);
                self.read = size;
                match self.watch.withhold(&piece, end, size, max_held) {
                    Step::Hold => None,
                    Step::Judged(judged) => Some(judged),
                }
            }
            Wants::Everything(_) if end => {
                let body = self.body(0);
                Some(self.watch.judge(&body, true))
            }
            // It is longer than what may be withheld: the beginning of an error says enough, and that of an answer is checked.
            Wants::Everything(most) if size > most => {
                let start = self.body(0);
                Some(self.watch.judge(&start, false))
            }
            Wants::Everything(_) => None,
        }
    }

    /// Keeps a refusal for the client before Envoy drops the response.
    pub(super) fn keep_refusal(&self, exchange: &mut Exchange, error: &ErrorBody, key: &str) {
        let request_id = header("x-request-id").and_then(|id| String::from_utf8(id).ok());
        let (status, body) = (self.response.status, self.body(0));
        exchange.keep_refusal(Refused { status, body: &body, error, request_id }, key);
    }

    /// Releases an answer, with `body` in place of what is held, if there is one. Returns the watch over an answer that goes on.
    pub(super) fn release(
        self,
        body: Option<Vec<u8>>,
        end: bool,
        provider: &str,
        extra: Extra,
    ) -> Option<Watch> {
        let Self { mut watch, response, size, .. } = self;
        let (streams, goes_on) = (watch.is_stream(), watch.goes_on());
        let body = if streams { watch.release(end, provider) } else { body };
        let len = body.as_ref().map_or(size, Vec::len);
        deliver(&response, streams, end.then_some(len), extra);
        if let Some(body) = body {
            sys::set_buffer(BufferType::HttpResponseBody, 0, size, &body);
        }
        (goes_on && !end).then_some(watch)
    }

    /// Releases the provider's own error in the envelope. An error that came with a success status gets an error status.
    pub(super) fn release_error(self, error: &ErrorBody, end: bool, key: &str, extra: Extra) -> ErrorSent {
        let came_as_error = self.watch.is_error();
        if came_as_error && end && is_envelope(&self.body(0), key) {
            change(self.response.headers, key, extra);
            return ErrorSent::Whole;
        }
        let status = if came_as_error { self.response.status } else { 400 };
        let body = error_envelope(error, status, key);
        if end && self.size == 0 {
            // Envoy cannot write into a body that does not exist.
            let headers = std::iter::once(json_type()).chain(extra).collect();
            reply(&Reply { status, headers, body });
            return ErrorSent::Reply;
        }
        change_error(status, &self.response.headers.unwrap_or_default(), key, body.len(), extra);
        sys::set_buffer(BufferType::HttpResponseBody, 0, self.size, &body);
        if end {
            ErrorSent::Whole
        } else {
            ErrorSent::Begun
        }
    }
}
