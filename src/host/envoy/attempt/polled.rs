//! The answer to a request that reads a response in the background: it is forwarded unchanged, and what it says of the usage is read.

use proxy_wasm::types::{Action, BufferType};

use super::Shared;
use crate::host::envoy::with_env;
use crate::host::sys;

/// The body so far.
#[derive(Default)]
pub(super) struct Polled(Vec<u8>);

impl Polled {
    /// Begins to read an answer with this status, if there is something to learn from it.
    pub(super) fn new(exchange: &Shared, status: u16) -> Option<Self> {
        (status == 200 && with_env(|env| exchange.borrow().reads_queued(env))).then(Self::default)
    }

    /// A piece of the body. One that is longer than what may be held is not read.
    pub(super) fn take(&mut self, exchange: Option<&Shared>, size: usize, end: bool) -> Action {
        let Some(exchange) = exchange else { return Action::Continue };
        let most = exchange.borrow().max_held();
        if size > 0 && self.0.len().saturating_add(size) <= most {
            self.0.extend(sys::buffer(BufferType::HttpResponseBody, 0, size).unwrap_or_default());
        }
        if end {
            with_env(|env| exchange.borrow_mut().read_response(&self.0, env));
        }
        Action::Continue
    }
}
