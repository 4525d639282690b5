//! The body of an attempt's request as Envoy has it, and the changes that are written into it.

use proxy_wasm::types::BufferType;

use crate::bytes::splice::Splices;
use crate::exchange::Exchange;
use crate::host::sys;

/// What is still to be changed in the request's body.
pub(super) enum Change {
    Nothing,
    Splice(Splices),
    /// Another body takes its place.
    Replace,
    /// Another body has taken its place: the rest of the client's is dropped.
    DropRest,
}

/// What came of a change.
pub(super) enum Applied {
    /// The body can be sent.
    Done,
    /// More of the body must arrive first.
    NeedsMore,
    /// Envoy refused the change, or the body ended too soon: it must not be sent.
    Refused,
}

impl Change {
    /// Changes the `size` bytes of the body that have arrived; `end` says that there are no more.
    pub(super) fn apply(&mut self, exchange: &Exchange, size: usize, end: bool) -> Applied {
        const BODY: BufferType = BufferType::HttpRequestBody;
        let written = match self {
            Self::Nothing => true,
            // The new body takes the place of the first piece and not of the last one, because no piece is marked as the last if trailers
            // follow. All other pieces are dropped.
            Self::Replace => {
                *self = Self::DropRest;
                sys::set_buffer(BODY, 0, size, exchange.translated().unwrap_or_default())
            }
            Self::DropRest => size == 0 || sys::set_buffer(BODY, 0, size, b""),
            // The last place that is changed has not arrived yet.
            Self::Splice(splices) if size < splices.prefix_len() => {
                return if end { Applied::Refused } else { Applied::NeedsMore };
            }
            Self::Splice(splices) => {
                let len = splices.prefix_len();
                let apply = |prefix: &[u8]| splices.apply(prefix.get(..len)?);
                let kept = apply(exchange.body());
                let new = kept.or_else(|| apply(&sys::buffer(BODY, 0, len)?));
                *self = Self::Nothing;
                new.is_some_and(|new| sys::set_buffer(BODY, 0, len, &new))
            }
        };
        if written {
            Applied::Done
        } else {
            Applied::Refused
        }
    }
}
