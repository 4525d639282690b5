//! An event stream on its way to the client.
//!
//! Only whole events are forwarded, in OpenAI's schema; `events.rs` says which of them. `[DONE]` ends a finished answer and no other
//! stream: one that ends cleanly in the middle of its answer gets an error event instead.

mod events;
mod usage;

use super::asked::Asked;
use crate::bytes::sse::{Block, Reader};
use crate::dialects::anthropic::Translator;
use crate::dialects::dialect::Wire;
use crate::health::outcome::{of_error_in_answer, ErrorBody, Outcome};
use crate::spend::usage::Tally;
use events::{Events, Fate, BLANK, DONE};

/// One event stream.
#[derive(Debug)]
pub struct Stream {
    /// For a provider with a format of its own: what turns its bytes into OpenAI's.
    translation: Option<Box<Translation>>,
    reader: Reader,
    events: Events,
    /// What is withheld; empty after the release.
    held: Held,
}

#[derive(Debug)]
struct Translation {
    reader: Reader,
    translator: Translator,
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
        let translation = (asked.wire == Wire::Anthropic).then(|| {
            let translator = Translator::new(asked.defaults.created);
            Box::new(Translation { reader: Reader::default(), translator })
        });
        Self {
            translation,
            reader: Reader::default(),
            events: Events::new(asked),
            held: Held { bytes: Vec::new(), received: Some(0) },
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.events.tally()
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.events.summary().is_finished()
    }

    /// Whether the end was read. (Not the phase `Closed`: the client may still lack its own end.)
    pub(super) const fn is_closed(&self) -> bool {
        self.events.end_was_read()
    }

    /// Reads a piece of a stream that is withheld. Returns its outcome as soon as that is known.
    pub(super) fn withhold(&mut self, piece: &[u8], end: bool) -> Option<(Outcome, Option<ErrorBody>)> {
        // A JSON document that calls itself a stream has no event in it, and may be an error.
        let document =
            (end && !self.events.summary().has_begun()).then(|| [self.source().rest(), piece].concat());
        let mut bytes = std::mem::take(&mut self.held.bytes);
        let fate = self.take(piece, end, &mut bytes);
        let received = self.held.received.filter(|_| fate == Fate::Unchanged);
        self.held = Held { bytes, received: received.map(|received| received.saturating_add(piece.len())) };
        let over = end || self.events.end_was_read();
        let summary = self.events.summary();
        let outcome = match &summary.error {
            Some(error) => return Some((of_error_in_answer(error), Some(error.clone()))),
            None if over && summary.is_finished() => Outcome::Answered,
            None if over && summary.seen != 0 => Outcome::Truncated,
            None if over => {
                let error = document.and_then(|document| ErrorBody::from_json(&document));
                let outcome = error.as_ref().map_or(Outcome::ServerError, of_error_in_answer);
                return Some((outcome, error));
            }
            None if self.events.is_live() && summary.has_begun() => Outcome::Answered,
            None => return None,
        };
        Some((outcome, None))
    }

    /// Releases what is withheld. Returns the bytes that the client gets in place of everything that the provider has sent so far;
    /// `None` if the client gets exactly that.
    pub(super) fn release(&mut self, end: bool, provider: &str) -> Option<Vec<u8>> {
        let Held { mut bytes, received } =
            std::mem::replace(&mut self.held, Held { bytes: Vec::new(), received: None });
        self.events.release();
        if end || self.events.end_was_read() {
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
        let Self { translation, reader, events, .. } = self;
        let mut fate = Fate::Unchanged;
        let mut read = |bytes: &[u8], out: &mut Vec<u8>| {
            reader.feed(bytes, |block| fate = fate.and(events.block(&block, out)));
            if end && !reader.rest().is_empty() {
                fate = Fate::Altered;
                reader.feed(BLANK, |block| {
                    if is_complete(&block) {
                        events.block(&block, out);
                    }
                });
            }
        };
        let Some(translation) = translation else {
            read(piece, out);
            if reader.is_lost() {
                events.reach_end();
            }
            return fate;
        };
        let Translation { reader: source, translator } = &mut **translation;
        let mut translated = Vec::new();
        let mut malformed = 0;
        let mut translate = |block: Block<'_>| match block.data {
            Some(data) => translator.event(block.name, data, &mut translated),
            None => true,
        };
        source.feed(piece, |block| malformed += u32::from(!translate(block)));
        if end && !source.rest().is_empty() {
            source.feed(BLANK, |block| {
                if is_complete(&block) {
                    translate(block);
                }
            });
        }
        read(&translated, out);
        events.note_malformed(malformed);
        if source.is_lost() || reader.is_lost() {
            events.reach_end();
        }
        Fate::Altered
    }

    /// The reader of the provider's own bytes.
    fn source(&self) -> &Reader {
        self.translation.as_ref().map_or(&self.reader, |translation| &translation.reader)
    }
}

/// Whether the last event of a stream is whole although no blank line follows it. Half an event means that the stream broke off, and
/// is not counted as malformed. A name without data would be an empty event to some clients.
fn is_complete(block: &Block<'_>) -> bool {
    block.data.is_some_and(|data| {
        data.trim_ascii() == DONE || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
    })
}
