//! The detour of a live stream whose route says `stream.on_break: "event"`, on Envoy: the request goes through an internal listener, so
//! that a break reaches the router as an end, to which an error event can be added.
//!
//! The attempt that broke off leaves here what the client must still get; the router adds it when the end arrives.

use std::time::Duration;

use super::Exchange;
use crate::client_api::request::Endpoint;
use crate::config::OnBreak;

/// How far a request has come on its detour.
#[derive(Debug)]
pub(super) struct Detour {
    /// What the route says.
    on_break: OnBreak,
    /// The internal listener has received the request.
    is_reached: bool,
    /// What the client must still get of an answer that has ended.
    ending: Option<Vec<u8>>,
}

impl Default for Detour {
    fn default() -> Self {
        Self::new(OnBreak::Reset)
    }
}

impl Detour {
    /// For a request of a route that says `on_break`.
    pub(super) const fn new(on_break: OnBreak) -> Self {
        Self { on_break, is_reached: false, ending: None }
    }
}

impl Exchange {
    /// Whether the request takes the detour. A whole answer never does: there the end of the connection is the end of the answer, and
    /// would make one that was cut look whole.
    pub fn detours(&self) -> bool {
        self.detour.on_break == OnBreak::Event && self.live() && self.request.endpoint != Endpoint::Embeddings
    }

    /// The request has arrived at the internal listener. Returns the provider of the first attempt, and how long an attempt may take;
    /// `None` if the request takes no detour, or has arrived there before.
    pub fn reach_detour(&mut self) -> Option<(&str, Duration)> {
        if !self.detours() || std::mem::replace(&mut self.detour.is_reached, true) {
            return None;
        }
        let limit = self.limit();
        Some((self.awaited()?, limit))
    }

    /// Whether the request should have arrived at the internal listener and has not.
    pub fn misses_detour(&self) -> bool {
        self.detours() && !self.detour.is_reached
    }

    /// Keeps what the client must still get of the answer that has ended. Nothing: half of an event is at the client, and only a reset
    /// can tell it.
    pub fn leave_ending(&mut self, ending: Vec<u8>) {
        self.detour.ending = Some(ending);
    }

    /// What the client must still get at the end of its stream.
    pub fn take_ending(&mut self) -> Option<Vec<u8>> {
        self.detour.ending.take()
    }
}
