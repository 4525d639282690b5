//! The stream of a provider with a format of its own, as it becomes OpenAI's.

use super::events::BLANK;
use super::integrity::{is_noise_name, Found, Integrity, Stray, DONE};
use super::is_complete;
use crate::bytes::sse::{Block, Reader};
use crate::dialects::anthropic::Translator;
use crate::spend::usage::Served;
use crate::spend::usage::Tally;

/// What turns a provider's bytes into OpenAI's.
#[derive(Debug)]
pub(super) struct Translation {
    reader: Reader,
    translator: Translator,
    integrity: Integrity,
    /// A part of the answer is lost, and nothing more is read.
    lost: bool,
}

/// What became of a piece.
#[derive(Debug, Default)]
pub(super) struct Translated {
    /// The events in OpenAI's format.
    pub(super) bytes: Vec<u8>,
    /// How many events were noise.
    pub(super) noise: u32,
    /// Whether a part of the answer is lost behind these events.
    pub(super) is_cut: bool,
}

impl Translation {
    /// Begins a stream. `created` is in seconds since 1970.
    pub(super) fn new(created: u64) -> Self {
        Self {
            reader: Reader::default(),
            translator: Translator::new(created),
            integrity: Integrity::default(),
            lost: false,
        }
    }

    /// The reader of the provider's bytes.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Who answered, as far as the provider has said.
    pub(super) const fn served(&self) -> &Served {
        self.translator.served()
    }

    /// The usage that the provider has told so far, although its stream has not come to where OpenAI's tells one.
    pub(super) fn told(&self) -> Option<Tally> {
        let (reported, uncounted) = self.translator.reported()?;
        Some(Tally { uncounted, ..Tally::of(Some(reported)) })
    }

    /// Translates a piece. An event that is longer than `longest` is lost, because it cannot be translated in pieces.
    pub(super) fn take(&mut self, piece: &[u8], end: bool, longest: usize) -> Translated {
        let mut done = Translated::default();
        if self.lost {
            return done;
        }
        let Self { reader, translator, integrity, lost } = self;
        let mut translate = |block: &Block<'_>| {
            if !*lost && !translator.is_over() {
                *lost = !block_is_read(translator, integrity, block, &mut done);
            }
        };
        reader.feed(piece, |block| translate(&block));
        if end && !reader.rest().is_empty() {
            reader.feed(BLANK, |block| {
                if is_complete(&block) {
                    translate(&block);
                }
            });
        }
        let is_too_long = reader.take_longer_than(longest).is_some();
        if !translator.is_over() {
            *lost |= is_too_long || (end && integrity.holds_beginning());
        }
        done.is_cut = *lost;
        done
    }
}

/// Translates one block; false if a part of the answer is lost with it.
fn block_is_read(
    translator: &mut Translator,
    integrity: &mut Integrity,
    block: &Block<'_>,
    done: &mut Translated,
) -> bool {
    let out = &mut done.bytes;
    if !block.stray.is_empty() {
        return match integrity.stray(block) {
            Stray::Unknown => true,
            Stray::Hole => false,
            Stray::Error => {
                translator.event("error", block.stray, out);
                true
            }
        };
    }
    let Some(data) = block.data else { return true };
    if data.trim_ascii() == DONE {
        // Some relays end with OpenAI's end, with or without Anthropic's own.
        return !integrity.holds_beginning();
    }
    // An error is no part of an event.
    let is_whole = !integrity.holds_beginning() || block.name == "error";
    if is_whole && (translator.event(block.name, data, out) || translator.is_over()) {
        return !integrity.hear();
    }
    // The name of several events in one is that of the last.
    if is_noise_name(block.name) && !data.contains(&b'\n') {
        return true;
    }
    match integrity.look_at(data) {
        Found::Noise => {
            done.noise = done.noise.saturating_add(1);
            true
        }
        Found::Beginning => true,
        Found::Hole => false,
        Found::Error(_) => {
            translator.event("error", data, out);
            true
        }
        // Two events in one have two names, and each has its type.
        Found::Events(events) => {
            let mut all = events.iter().map(Vec::as_slice).filter(|data| *data != DONE);
            all.all(|data| translator.is_over() || translator.event("", data, out)) && !integrity.hear()
        }
    }
}
