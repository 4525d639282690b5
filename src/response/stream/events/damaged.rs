//! What becomes of blocks that cannot be read as they are, and of events that pass unread.

use super::{Endpoint, ErrorBody, Events, Fate};
use crate::bytes::sse::Block;
use crate::response::stream::integrity::{is_noise_name, Found, Stray, DONE};

impl Events {
    /// Counts events that could not be read.
    pub(in crate::response::stream) fn note_malformed(&mut self, events: u32) {
        self.malformed = self.malformed.saturating_add(events);
    }

    /// An event that is too long to be held has passed. Of it is known only that it is JSON, and whether it finishes the answer.
    pub(in crate::response::stream) fn passed(&mut self, finishes: bool) {
        self.summary.content = true;
        self.summary.uncounted = true;
        self.summary.seen |= 1;
        self.summary.finished |= u64::from(finishes);
        self.forwarded = self.forwarded.saturating_add(1);
        self.last = Fate::Unchanged;
        self.release_begun();
    }

    /// A part of the answer is lost: what follows is not read, and the client is told.
    pub(in crate::response::stream) fn lose(&mut self) {
        self.note_malformed(1);
        if !self.end_was_read() {
            self.garbled = true;
            self.reach_end();
        }
    }

    /// The provider sends nothing more. An event of which only the beginning has come is lost.
    pub(in crate::response::stream) fn provider_ended(&mut self) {
        if self.integrity.holds_beginning() && !self.end_was_read() {
            self.lose();
        }
    }

    /// Reads a block with lines that belong to no event. The lines themselves are never forwarded.
    pub(super) fn stray(&mut self, block: &Block<'_>, out: &mut Vec<u8>) -> Fate {
        match self.integrity.stray(block) {
            Stray::Unknown => {}
            Stray::Hole => self.lose(),
            Stray::Error => {
                if let Some(data) = block.data {
                    self.event(&Block { foul: true, ..*block }, data, out);
                }
                if !self.end_was_read() {
                    self.bare_error(block.stray, out);
                }
            }
        }
        Fate::Altered
    }

    /// Reads an error that is a document of its own.
    fn bare_error(&mut self, json: &[u8], out: &mut Vec<u8>) {
        let error = ErrorBody::read(json);
        if self.endpoint == Endpoint::Responses {
            self.summary.error = Some(error);
            self.reach_end();
        } else {
            self.fail(error, out);
        }
    }

    /// Reads an event that cannot be read as it is.
    #[inline(never)]
    pub(super) fn unread_event(&mut self, block: &Block<'_>, data: &[u8], out: &mut Vec<u8>) {
        // The name of several events in one is that of the last.
        if is_noise_name(block.name) && !data.contains(&b'\n') {
            return;
        }
        match self.integrity.look_at(data) {
            Found::Noise => self.note_malformed(1),
            Found::Beginning => {}
            Found::Error(json) => self.bare_error(&json, out),
            Found::Hole => self.lose(),
            Found::Events(events) => {
                for data in events {
                    if self.end_was_read() {
                        return;
                    }
                    if data == DONE {
                        self.reach_end();
                    } else if self.object(None, "", &data, out).is_none() {
                        return self.lose();
                    }
                }
            }
        }
    }
}
