//! The `http10` role: a network filter of the internal listener of the detour. It makes each request one of HTTP/1.0, which Envoy's own
//! client cannot speak.

use proxy_wasm::types::{Action, BufferType};

use crate::bytes::version::first_line_as_http_1_0;
use crate::host::sys;

/// The longest first line that is read. A longer one goes on as it is, and Envoy refuses it.
const LONGEST_LINE: usize = 64 << 10;

/// A connection of the internal listener. It has one request, because HTTP/1.0 ends an answer by closing the connection.
#[derive(Default)]
pub(in crate::host) struct Http10Filter {
    is_rewritten: bool,
}

/// Envoy's callbacks.
impl Http10Filter {
    pub(in crate::host) fn on_downstream_data(&mut self, size: usize) -> Action {
        const DATA: BufferType = BufferType::DownstreamData;
        if self.is_rewritten || size == 0 {
            return Action::Continue;
        }
        let start = sys::buffer(DATA, 0, size.min(LONGEST_LINE)).unwrap_or_default();
        match first_line_as_http_1_0(&start) {
            Some(line) => {
                sys::set_buffer(DATA, 0, line.len(), &line);
            }
            None if size < LONGEST_LINE => return Action::Pause,
            None => {}
        }
        self.is_rewritten = true;
        Action::Continue
    }
}
