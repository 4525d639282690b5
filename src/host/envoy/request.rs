//! An attempt's request as the host has it: what is read of it, and what is written into its body.

use proxy_wasm::types::BufferType;

use crate::bytes::splice::Splices;
use crate::exchange::Exchange;
use crate::host::sys;

/// What is still to be done to the request's body.
pub(super) enum Change {
    Nothing,
    Splice(Splices),
    /// All of it is written anew.
    Whole,
    /// It was written anew; nothing more of the old one goes on.
    Rest,
}

/// What came of a change.
pub(super) enum Applied {
    /// The body goes on.
    Done,
    /// More of it must be there first.
    Later,
    /// The host does not take it, or the body ended too soon: it must not go on.
    Refused,
}

impl Change {
    /// Changes the `size` bytes of the body that are there; `end` says that they are all.
    pub(super) fn apply(&mut self, exchange: &Exchange, size: usize, end: bool) -> Applied {
        const BODY: BufferType = BufferType::HttpRequestBody;
        let written = match self {
            Self::Nothing => true,
            // The first piece brings the new one, nothing of the others goes on: trailers may be all that follows.
            Self::Whole => {
                *self = Self::Rest;
                sys::set_buffer(BODY, 0, size, exchange.translated().unwrap_or_default())
            }
            Self::Rest => size == 0 || sys::set_buffer(BODY, 0, size, b""),
            // The last place is not there yet.
            Self::Splice(splices) if size < splices.prefix_len() => {
                return if end { Applied::Refused } else { Applied::Later };
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
