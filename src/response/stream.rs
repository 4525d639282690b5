//! An event stream on its way to the client.
//!
//! Only whole events pass, in OpenAI's schema. Comments pass once the answer has begun, events that cannot be read do not;
//! one that never ends breaks the stream off.
//! The usage chunk passes if the client asked for it. `[DONE]` stands behind a finished answer and behind no other: a
//! stream that ends cleanly in the middle gets a typed error event instead.

use super::asked::Asked;
use crate::bytes::sse::{Block, Reader};
use crate::client_api::errors::{broken_response_event, broken_stream_event, error_event, redact};
use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::anthropic::Translator;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::chat::{Calls, ChunkSummary, Form, Reading};
use crate::dialects::schema::{responses, Defaults};
use crate::health::outcome::{of_error_in_answer, ErrorBody, Outcome};
use crate::routing::provider::ApiKey;
use crate::spend::tokens::Estimator;
use crate::spend::usage::Tally;

const DONE: &[u8] = b"[DONE]";
const BLANK: &[u8] = b"\n\n";

/// One event stream.
#[derive(Debug)]
pub struct Stream {
    /// For a provider that speaks another format: what turns its bytes into OpenAI's.
    translation: Option<Box<Translation>>,
    reader: Reader,
    talk: Talk,
    /// While withheld: what the client will get of what is held.
    held: Vec<u8>,
    /// While withheld: that is not a beginning of what the provider sent.
    changed: bool,
    /// While withheld: so many bytes the provider has sent.
    received: usize,
}

#[derive(Debug)]
struct Translation {
    reader: Reader,
    translator: Translator,
}

/// What has been said so far.
#[derive(Debug)]
struct Talk {
    endpoint: Endpoint,
    form: Form,
    defaults: Defaults,
    release: Release,
    /// The client asked for the usage.
    asks_usage: bool,
    told_usage: bool,
    summary: ChunkSummary,
    text: Estimator,
    /// The calls of tools that were begun.
    calls: Calls,
    /// The events of the Responses API that passed.
    events: u64,
    malformed: u32,
    withheld: bool,
    /// The last event, or comment, passed as it came.
    passed: bool,
    /// The end was seen or made; what follows does not pass.
    closed: bool,
    /// An error event has been written for the client.
    told_error: bool,
    /// The provider's key, which no error may echo.
    key: ApiKey,
}

/// What to do with a piece of a stream that was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// What to pass on in place of the piece; `None`: the piece as it is.
    pub replace: Option<Vec<u8>>,
    /// How the stream ended, once it has.
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
            talk: Talk {
                endpoint: asked.endpoint,
                form: if asked.endpoint == Endpoint::Completions { Form::TextChunk } else { Form::ChatChunk },
                defaults: asked.defaults,
                release: asked.release,
                asks_usage: asked.usage,
                told_usage: false,
                summary: ChunkSummary::default(),
                text: Estimator::default(),
                calls: Calls::default(),
                events: 0,
                malformed: 0,
                withheld: true,
                passed: false,
                closed: false,
                told_error: false,
                key: asked.key,
            },
            held: Vec::new(),
            changed: false,
            received: 0,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            usage: self.talk.summary.usage,
            estimated_output: self.talk.text.tokens(),
            begun: self.talk.summary.has_begun(),
            malformed: self.talk.malformed,
            stored: self.talk.summary.stored,
        }
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.talk.summary.is_finished()
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.talk.closed
    }

    /// Reads a piece of a stream that is withheld, and judges it if it can. `full`: no more can be held.
    pub(super) fn withhold(
        &mut self,
        piece: &[u8],
        end: bool,
        full: bool,
    ) -> Option<(Outcome, Option<ErrorBody>)> {
        // JSON in a stream's clothes has no event in it, and may say what is wrong.
        let document =
            (end && !self.talk.summary.has_begun()).then(|| [self.source().rest(), piece].concat());
        self.received = self.received.saturating_add(piece.len());
        let mut out = std::mem::take(&mut self.held);
        let untouched = self.take(piece, end, &mut out);
        self.held = out;
        self.changed |= !untouched;
        let over = end || self.talk.closed;
        let summary = &self.talk.summary;
        let outcome = match &summary.error {
            Some(error) => return Some((of_error_in_answer(error), Some(error.clone()))),
            None if over && summary.is_finished() => Outcome::Answered,
            None if over && summary.seen != 0 => Outcome::Truncated,
            None if over => {
                let error = document.and_then(|document| ErrorBody::from_json(&document));
                let outcome = error.as_ref().map_or(Outcome::ServerError, of_error_in_answer);
                return Some((outcome, error));
            }
            None if self.talk.release == Release::FirstToken && summary.has_begun() => Outcome::Answered,
            None if full => Outcome::Answered,
            None => return None,
        };
        Some((outcome, None))
    }

    pub(super) fn release(&mut self, end: bool, provider: &str) -> Option<Vec<u8>> {
        self.talk.withheld = false;
        let mut out = std::mem::take(&mut self.held);
        if end || self.talk.closed {
            self.close(provider, &mut out);
        }
        // Nothing but whole events of the provider, all of them: it is there already.
        let same = !self.changed && out.len() == self.received;
        (!same).then_some(out)
    }

    /// Reads a piece of a stream that was released.
    pub(super) fn relay(&mut self, piece: &[u8], end: bool, provider: &str) -> Relay {
        if self.talk.closed {
            let replace = (!piece.is_empty()).then(Vec::new);
            return Relay { replace, ended: None };
        }
        let mut out = Vec::with_capacity(piece.len().saturating_add(64));
        let begins = self.reader.rest().is_empty();
        let untouched = self.take(piece, end, &mut out);
        let over = end || self.talk.closed;
        if !over && untouched && begins && self.reader.rest().is_empty() {
            // Whole events, and all of them pass.
            return Relay { replace: None, ended: None };
        }
        if over {
            self.close(provider, &mut out);
        }
        let ended = over.then(|| self.ended());
        // A `[DONE]` that was true is written again as it was.
        let replace = (out != piece).then_some(out);
        Relay { replace, ended }
    }

    /// Reads a piece, writes what passes of it, and returns whether that is all of it, unchanged. At the end, an event
    /// without its blank line counts if it can be read.
    fn take(&mut self, piece: &[u8], end: bool, out: &mut Vec<u8>) -> bool {
        let Self { translation, reader, talk, .. } = self;
        let mut untouched = true;
        let mut read = |bytes: &[u8], out: &mut Vec<u8>| {
            reader.feed(bytes, |block| untouched &= talk.block(&block, out));
            if end && !reader.rest().is_empty() {
                untouched = false;
                reader.feed(BLANK, |block| {
                    if is_complete(&block) {
                        talk.block(&block, out);
                    }
                });
            }
        };
        let Some(translation) = translation else {
            read(piece, out);
            talk.closed |= reader.is_lost();
            return untouched;
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
        talk.malformed = talk.malformed.saturating_add(malformed);
        talk.closed |= source.is_lost() || reader.is_lost();
        false
    }

    fn source(&self) -> &Reader {
        self.translation.as_ref().map_or(&self.reader, |translation| &translation.reader)
    }

    /// How a released stream ended.
    fn ended(&self) -> Outcome {
        let summary = &self.talk.summary;
        if summary.is_finished() && summary.error.is_none() {
            Outcome::Answered
        } else {
            Outcome::Truncated
        }
    }

    /// Ends the stream: what the client must still get.
    fn close(&mut self, provider: &str, out: &mut Vec<u8>) {
        self.talk.closed = true;
        if self.talk.told_error {
            return;
        }
        let talk = &self.talk;
        if !talk.summary.is_finished() {
            out.extend(match talk.endpoint {
                Endpoint::Responses => broken_response_event(provider, talk.events),
                _ => broken_stream_event(provider),
            });
            return;
        }
        if talk.endpoint == Endpoint::Responses {
            return;
        }
        if let Some(usage) = talk.summary.usage.filter(|_| talk.asks_usage && !talk.told_usage) {
            out.extend(talk.form.usage_chunk(&talk.defaults, &usage));
        }
        out.extend([b"data: ", DONE, BLANK].concat());
    }
}

/// Whether the last event, which has no blank line behind it, is all there. A half one is a break and not a mistake; a name
/// without data would be an event to some clients, and an empty one.
fn is_complete(block: &Block<'_>) -> bool {
    block.data.is_some_and(|data| {
        data.trim_ascii() == DONE || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
    })
}

impl Talk {
    /// Reads one block, writes what passes of it, and returns whether it passed unchanged.
    fn block(&mut self, block: &Block<'_>, out: &mut Vec<u8>) -> bool {
        if self.closed {
            return false;
        }
        let blank = block.raw.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if blank {
            // A spare line end, or one that was cut off its carriage return: it goes with what stands before it.
            out.extend_from_slice(if self.passed { block.raw } else { &[] });
            return self.passed;
        }
        self.passed = match block.data {
            Some(data) => self.event(block, data, out),
            // Comments keep a connection alive; before the answer there is none.
            None => {
                let passes = !self.withheld || self.summary.has_begun();
                out.extend_from_slice(if passes { block.raw } else { &[] });
                passes
            }
        };
        self.passed
    }

    /// Reads one event, as [`Self::block`].
    fn event(&mut self, block: &Block<'_>, data: &[u8], out: &mut Vec<u8>) -> bool {
        if data.trim_ascii() == DONE {
            self.closed = true;
            return false;
        }
        if self.endpoint == Endpoint::Responses {
            return self.response_event(block, data, out);
        }
        let reading = Reading::after(self.calls, data, self.form, &self.defaults, &mut self.text);
        let mut reading = match reading {
            Ok(reading) => reading,
            Err(_) if block.name == "error" => {
                self.fail(ErrorBody::read(data), out);
                return false;
            }
            Err(_) => {
                self.malformed = self.malformed.saturating_add(1);
                return false;
            }
        };
        if block.name == "error" && reading.summary.error.is_none() {
            reading.summary.error = Some(ErrorBody::read(data));
        }
        self.calls = reading.calls;
        if let Some(told) = reading.stream_fields {
            self.defaults = *told;
        }
        let error = reading.summary.error.take();
        let has_usage = reading.summary.usage.is_some();
        self.summary.add(reading.summary);
        if let Some(error) = error {
            self.fail(error, out);
            return false;
        }
        if reading.has_no_choices && reading.has_usage_object {
            if !self.asks_usage || !has_usage {
                return false;
            }
            self.told_usage = true;
        }
        if reading.splices.is_empty() {
            out.extend_from_slice(block.raw);
            return true;
        }
        let Some(mut json) = reading.splices.apply(data) else { return false };
        // Between the tokens of JSON a line feed is a space, and in a data line it would end it.
        json.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        out.extend([b"data: ", json.as_slice(), BLANK].concat());
        false
    }

    /// The provider told of an error: the client gets it in the envelope, and nothing more.
    fn fail(&mut self, error: ErrorBody, out: &mut Vec<u8>) {
        if !self.withheld {
            out.extend(error_event(&error, self.key.secret()));
            self.told_error = true;
        }
        self.summary.error = Some(error);
        self.closed = true;
    }

    /// One event of the Responses API, which passes as it is.
    fn response_event(&mut self, block: &Block<'_>, data: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(event) = responses::event(data, &mut self.text) else {
            self.malformed = self.malformed.saturating_add(1);
            return false;
        };
        self.summary.add(event);
        if self.summary.error.is_none() {
            self.events = self.events.saturating_add(1);
            out.extend_from_slice(block.raw);
            return true;
        }
        if !self.withheld {
            // Already what a client of this API expects, but for a key that it may echo.
            out.extend(redact(&String::from_utf8_lossy(block.raw), self.key.secret()).into_bytes());
            self.told_error = true;
        }
        false
    }
}
