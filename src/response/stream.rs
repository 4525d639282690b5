//! An event stream on its way to the client.
//!
//! Only whole events are forwarded, in OpenAI's schema; `events.rs` says which of them. `[DONE]` ends a finished answer and no other
//! stream: one that ends cleanly in the middle of its answer gets an error event instead. An event that is too long to be held is
//! forwarded in pieces (`passing.rs`); if it turns out to be broken, half of it is at the client, and only a reset can say so.

mod events;
mod integrity;
mod passing;
mod translation;
mod usage;

use super::asked::Asked;
use crate::bytes::sse::{Block, Reader, LONGEST_EVENT};
use crate::dialects::dialect::Wire;
use crate::health::outcome::{of_error_in_answer, ErrorBody, Outcome};
use crate::spend::usage::Tally;
use events::{Events, Fate, BLANK};
use integrity::is_readable;
use passing::{Passing, Progress};
use translation::Translation;

/// One event stream.
#[derive(Debug)]
pub struct Stream {
    /// For a provider with a format of its own: what turns its bytes into OpenAI's.
    translation: Option<Box<Translation>>,
    reader: Reader,
    events: Events,
    /// What is withheld; empty after the release.
    held: Held,
    /// The most bytes of one event that are held.
    longest: usize,
    /// An event that is too long to be held, and of which a part was forwarded.
    passing: Option<Box<Passing>>,
    /// An event broke of which a part was forwarded: the client's stream must be reset.
    torn: bool,
}

/// What the client will get of a stream that is withheld.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// How many bytes the provider has sent, while every whole event of them is in `bytes` unchanged; `None` from the first change on.
    received: Option<usize>,
}

/// What is forwarded of a piece of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// What the client gets in place of the piece; `None`: the piece unchanged.
    pub replace: Option<Vec<u8>>,
    /// How the response ended, once it has.
    pub ended: Option<Outcome>,
}

impl Stream {
    pub(super) fn new(asked: Asked) -> Self {
        let translation =
            (asked.wire == Wire::Anthropic).then(|| Box::new(Translation::new(asked.defaults.created)));
        Self {
            translation,
            reader: Reader::default(),
            events: Events::new(asked),
            held: Held { bytes: Vec::new(), received: Some(0) },
            longest: LONGEST_EVENT,
            passing: None,
            torn: false,
        }
    }

    /// Whether a part of a broken event is at the client, so that nothing but a reset can tell it.
    pub(super) const fn is_torn(&self) -> bool {
        self.torn
    }

    /// The client has the head of the answer: no other provider can be asked.
    pub(super) fn commit(&mut self) {
        self.events.commit();
    }

    /// How the released stream ended.
    pub(super) fn outcome(&self) -> Outcome {
        self.events.outcome()
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally = self.events.tally();
        let Some(translation) = &self.translation else { return tally };
        // What OpenAI's format has no place for.
        tally.served.clone_from(translation.served());
        match translation.told().filter(|_| tally.usage.is_none()) {
            Some(Tally { usage, uncounted, reconciled, .. }) => {
                Tally { usage, uncounted, reconciled, ..tally }
            }
            None => tally,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.events.is_finished()
    }

    /// Whether the end was read. (Not the phase `Closed`: the client may still lack its own end.)
    pub(super) const fn is_closed(&self) -> bool {
        self.events.end_was_read()
    }

    /// Reads a piece of a stream that is withheld. Returns its outcome as soon as that is known. `is_full`: no more may be withheld;
    /// `max_held` is how much may be.
    pub(super) fn withhold(
        &mut self,
        piece: &[u8],
        end: bool,
        is_full: bool,
        max_held: usize,
    ) -> Option<(Outcome, Option<ErrorBody>)> {
        self.longest = max_held.max(LONGEST_EVENT);
        // A JSON document that calls itself a stream has no event in it, and may be an error.
        let document =
            (end && !self.events.summary().has_begun()).then(|| [self.source().rest(), piece].concat());
        let mut bytes = std::mem::take(&mut self.held.bytes);
        let fate = self.take(piece, end, &mut bytes);
        let received = self.held.received.filter(|_| fate == Fate::Unchanged);
        self.held = Held { bytes, received: received.map(|received| received.saturating_add(piece.len())) };
        if !self.events.is_withheld() {
            // Its content has released it. What came after that, an error too, is written already.
            return Some((Outcome::Answered, None));
        }
        let over = end || self.events.end_was_read();
        let summary = self.events.summary();
        let outcome = match &summary.error {
            Some(error) => return Some((of_error_in_answer(error), Some(error.clone()))),
            None if self.torn || self.events.is_garbled() => Outcome::Garbled,
            None if over && self.events.is_finished() => Outcome::Answered,
            None if over && summary.seen != 0 => Outcome::Truncated,
            None if over => {
                let error = document.and_then(|document| ErrorBody::from_json(&document));
                let outcome = error.as_ref().map_or(Outcome::ServerError, of_error_in_answer);
                return Some((outcome, error));
            }
            None if self.events.is_live() && summary.has_begun() => Outcome::Answered,
            // Nothing has gone wrong so far, if this is an event stream at all.
            None if is_full && (self.events.has_heard() || self.passing.is_some()) => Outcome::Answered,
            None if is_full => match self.source().rest() {
                rest if rest.is_empty() || Passing::new(rest).is_some() => Outcome::Answered,
                _ => Outcome::ServerError,
            },
            None => return None,
        };
        Some((outcome, None))
    }

    /// The end that a client gets to which the answer is not given: it is not finished, or a part of it is lost.
    pub(super) fn broken_end(&mut self, provider: &str) -> Vec<u8> {
        let mut end = Vec::new();
        self.events.close(provider, &mut end);
        end
    }

    /// Releases what is withheld. Returns the bytes that the client gets in place of everything that the provider has sent so far;
    /// `None` if the client gets exactly that.
    pub(super) fn release(&mut self, end: bool, provider: &str) -> Option<Vec<u8>> {
        let Held { mut bytes, received } =
            std::mem::replace(&mut self.held, Held { bytes: Vec::new(), received: None });
        self.events.release();
        if !self.torn && (end || self.events.end_was_read()) {
            self.events.close(provider, &mut bytes);
        }
        // The provider has sent nothing but whole events, and all of them are forwarded: the host has these bytes already.
        let same = received == Some(bytes.len());
        (!same).then_some(bytes)
    }

    /// Reads a piece of a stream that was released.
    pub(super) fn relay(&mut self, piece: &[u8], end: bool, provider: &str) -> Forward {
        if self.events.end_was_read() {
            let replace = (!piece.is_empty()).then(Vec::new);
            return Forward { replace, ended: None };
        }
        let mut out = Vec::with_capacity(piece.len().saturating_add(64));
        let begins = self.reader.rest().is_empty();
        let fate = self.take(piece, end, &mut out);
        let over = end || self.events.end_was_read();
        if !over && fate == Fate::Unchanged && begins && self.reader.rest().is_empty() {
            // The piece is whole events, and all of them are forwarded.
            return Forward { replace: None, ended: None };
        }
        if self.torn {
            return Forward { replace: Some(out), ended: Some(Outcome::Garbled) };
        }
        if over {
            self.events.close(provider, &mut out);
        }
        let ended = over.then(|| self.events.outcome());
        // The provider's `[DONE]` was dropped, and `close` has written one. If the two are the same, nothing has changed.
        let replace = (out != piece).then_some(out);
        Forward { replace, ended }
    }

    /// Reads a piece, and writes to `out` what is forwarded of it. Returns the fate of the whole piece. At the end of the stream, an
    /// event without its blank line counts if it can be read.
    fn take(&mut self, piece: &[u8], end: bool, out: &mut Vec<u8>) -> Fate {
        let fate = if let Some(translation) = &mut self.translation {
            let Self { reader, events, .. } = self;
            let translated = translation.take(piece, end, self.longest);
            reader.feed(&translated.bytes, |block| {
                events.block(&block, out);
            });
            events.note_malformed(translated.noise);
            if translated.is_cut {
                events.lose();
            }
            Fate::Altered
        } else if self.passing.is_some() {
            self.pass(piece, out);
            Fate::Altered
        } else {
            self.read(piece, out)
        };
        if !end || self.torn {
            return fate;
        }
        let is_clean = self.reader.rest().is_empty();
        self.read_last(out);
        self.events.provider_ended();
        if is_clean {
            fate
        } else {
            Fate::Altered
        }
    }

    /// Reads a piece of a stream that needs no translation.
    fn read(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Fate {
        let Self { reader, events, .. } = self;
        let mut fate = Fate::Unchanged;
        reader.feed(piece, |block| fate = fate.and(events.block(&block, out)));
        match reader.take_longer_than(self.longest) {
            Some(_) if events.end_was_read() => Fate::Altered,
            Some(_) if events.keeps() => {
                events.lose();
                Fate::Altered
            }
            Some(begin) => {
                self.passing = Passing::new(&begin).map(Box::new);
                match self.passing {
                    Some(_) => self.pass(&begin, out),
                    // It is no event stream.
                    None if !self.events.has_heard() => self.events.reach_end(),
                    None => self.events.lose(),
                }
                Fate::Altered
            }
            None => fate,
        }
    }

    /// Forwards a piece of an event that is too long to be held, and reads what follows it.
    fn pass(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(passing) = &mut self.passing else { return };
        match passing.take(piece) {
            Progress::GoesOn => out.extend_from_slice(piece),
            Progress::Broken => self.tear(),
            Progress::Whole(at) => {
                self.events.passed(passing.finishes());
                self.passing = None;
                let (event, rest) = piece.split_at_checked(at).unwrap_or((piece, &[]));
                out.extend_from_slice(event);
                self.read(rest, out);
            }
        }
    }

    fn tear(&mut self) {
        self.passing = None;
        self.torn = true;
        self.events.lose();
    }

    /// The provider has sent its last byte.
    fn read_last(&mut self, out: &mut Vec<u8>) {
        if self.passing.is_some() {
            return self.tear();
        }
        let Self { reader, events, .. } = self;
        if !reader.rest().is_empty() {
            reader.feed(BLANK, |block| {
                if is_complete(&block) {
                    events.block(&block, out);
                }
            });
        }
    }

    /// The reader of the provider's own bytes.
    fn source(&self) -> &Reader {
        self.translation.as_ref().map_or(&self.reader, |translation| translation.reader())
    }
}

/// Whether the last event of a stream is whole although no blank line follows it. Half an event means that the stream broke off, and
/// is not counted as malformed. A name without data would be an empty event to some clients. An error may be a bare document.
fn is_complete(block: &Block<'_>) -> bool {
    block.data.is_some_and(is_readable) && block.stray.is_empty()
        || ErrorBody::from_json(block.stray).is_some()
}
