//! The events of one stream: what they have said so far, and which of them are forwarded to the client.
//!
//! Comments are forwarded once the answer has begun. An event that cannot be read is dropped if it is noise, and put right or put together
//! if it can be (`integrity.rs`); otherwise a part of the answer is lost, and the stream ends there. The usage is told once, before the
//! end, if the client asked for it. Nothing is forwarded after the end.
//!
//! Where the client has the head of the answer already, nothing is gained by withholding more than the events before the first content:
//! the stream is released within the piece that has it, so that what the client gets does not depend on how the bytes are cut.
//!
//! ```text
//!              release            an error event (Responses API)
//!    Withheld ─────────► Released ──────────────────────────────► ErrorSent
//!       │                   │  │                                      │
//!       │ end was read      │  └─ an error was read, and sent ───┐    │ end was read
//!       ▼                   ▼ end was read                       ▼    ▼
//!  WithheldToEnd ──────► EndRead ─────────────────────────────► Closed
//!              release            the client's end was written
//! ```

mod damaged;

use super::integrity::{is_noise_name, Integrity, DONE};
use super::usage::UsageChunk;
use crate::bytes::splice::Splices;
use crate::bytes::sse::Block;
use crate::client_api::errors::{broken_response_event, broken_stream_event, error_event, BrokenResponse};
use crate::client_api::redaction::redact;
use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::chat::{Calls, ChunkSummary, Form, Reading};
use crate::dialects::schema::{responses, Defaults};
use crate::health::outcome::{of_error_in_answer, Effect, ErrorBody, Outcome};
use crate::response::asked::Asked;
use crate::routing::provider::ApiKey;
use crate::spend::tokens::Estimator;
use crate::spend::usage::{Marks, Tally};

pub(super) const BLANK: &[u8] = b"\n\n";

/// What is forwarded of the provider's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are forwarded unchanged.
    Unchanged,
    /// Something else is forwarded in their place, or nothing.
    Altered,
}

impl Fate {
    /// The fate of two pieces together.
    pub(super) fn and(self, other: Self) -> Self {
        if self == Self::Unchanged {
            other
        } else {
            self
        }
    }
}

/// How far the stream has come. The picture is at the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client has received nothing.
    Withheld,
    /// The client has received nothing, and the end was read: all that it can get is withheld here.
    WithheldToEnd,
    /// Events are forwarded as they come.
    Released,
    /// The client was sent an error event in the course of the stream, and needs no other end.
    ErrorSent,
    /// The end was read, and the client must still be sent its own.
    EndRead,
    /// The client has its end.
    Closed,
}

/// What has been read of the events so far.
#[derive(Debug)]
pub(super) struct Events {
    endpoint: Endpoint,
    form: Form,
    defaults: Defaults,
    release: Release,
    /// The client has the head of the answer: the first content releases the stream.
    is_committed: bool,
    phase: Phase,
    usage_chunk: UsageChunk,
    summary: ChunkSummary,
    thoughts: Marks,
    text: Estimator,
    /// The calls of tools that were begun.
    calls: Calls,
    /// How many events of the Responses API were forwarded.
    forwarded: u64,
    malformed: u32,
    integrity: Integrity,
    /// A part of the answer is lost.
    garbled: bool,
    /// The fate of the last event or comment.
    last: Fate,
    /// The provider's key, which no error may echo.
    key: ApiKey,
}

impl Events {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            endpoint: asked.endpoint,
            form: if asked.endpoint == Endpoint::Completions { Form::TextChunk } else { Form::ChatChunk },
            defaults: asked.defaults,
            release: asked.release,
            is_committed: false,
            phase: Phase::Withheld,
            usage_chunk: UsageChunk::new(asked.usage),
            summary: ChunkSummary::default(),
            thoughts: Marks::default(),
            text: Estimator::default(),
            // The translation of Anthropic's events never cuts a name.
            calls: Calls::new(asked.wire == Wire::Anthropic),
            forwarded: 0,
            malformed: 0,
            integrity: Integrity::default(),
            garbled: false,
            last: Fate::Altered,
            key: asked.key,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally {
            estimated_output: self.text.tokens(),
            begun: self.summary.has_begun(),
            uncounted: self.summary.is_uncounted(),
            malformed: self.malformed,
            stored: self.summary.stored,
            served: self.defaults.served.clone(),
            thoughts: self.thoughts,
            ..Tally::of(self.summary.usage)
        };
        if let Some(calls) = &self.summary.calls {
            tally.note_calls(calls.calls());
        }
        tally
    }

    pub(super) const fn summary(&self) -> &ChunkSummary {
        &self.summary
    }

    /// Whether the stream is released at its first content.
    pub(super) fn is_live(&self) -> bool {
        self.release == Release::FirstToken
    }

    /// Whether nothing that follows is forwarded.
    pub(super) const fn end_was_read(&self) -> bool {
        matches!(self.phase, Phase::WithheldToEnd | Phase::EndRead | Phase::Closed)
    }

    /// Whether the client has received nothing.
    pub(super) const fn is_withheld(&self) -> bool {
        matches!(self.phase, Phase::Withheld | Phase::WithheldToEnd)
    }

    /// Whether the answer is finished. A call that was begun after the finish reason has neither its end nor gone to the client.
    #[inline(never)]
    pub(super) fn is_finished(&self) -> bool {
        self.summary.is_finished() && !self.calls.are_kept()
    }

    /// How a released stream ended.
    pub(super) fn outcome(&self) -> Outcome {
        if self.garbled {
            return Outcome::Garbled;
        }
        match &self.summary.error {
            None if self.is_finished() => Outcome::Answered,
            None => Outcome::Truncated,
            // A request that is refused in the middle of its answer says nothing about the provider.
            Some(error) => Some(of_error_in_answer(error))
                .filter(|outcome| outcome.effect() == Effect::Neutral)
                .unwrap_or(Outcome::Truncated),
        }
    }

    /// Whether a part of the answer is lost.
    pub(super) const fn is_garbled(&self) -> bool {
        self.garbled
    }

    /// Whether anything of an event stream was read.
    pub(super) fn has_heard(&self) -> bool {
        self.integrity.has_heard()
    }

    /// Whether something is kept that an event which passes unread would come before.
    pub(super) fn keeps(&self) -> bool {
        self.integrity.holds_beginning() || self.calls.are_kept()
    }

    // Transitions

    /// The client has the head of the answer.
    pub(super) fn commit(&mut self) {
        self.is_committed = true;
    }

    /// Content was read: releases a stream of which the client has the head.
    fn release_begun(&mut self) {
        if self.is_committed
            && self.phase == Phase::Withheld
            && self.summary.has_begun()
            && self.summary.error.is_none()
        {
            self.phase = Phase::Released;
        }
    }

    /// What was withheld goes to the client.
    pub(super) fn release(&mut self) {
        self.phase = match self.phase {
            Phase::Withheld => Phase::Released,
            Phase::WithheldToEnd => Phase::EndRead,
            later => later,
        };
    }

    /// The end was read, or nothing more can be read.
    pub(super) fn reach_end(&mut self) {
        self.phase = match self.phase {
            Phase::Withheld | Phase::WithheldToEnd => Phase::WithheldToEnd,
            Phase::Released | Phase::EndRead => Phase::EndRead,
            Phase::ErrorSent | Phase::Closed => Phase::Closed,
        };
    }

    /// Ends the stream for the client: writes what it must still get.
    pub(super) fn close(&mut self, provider: &str, out: &mut Vec<u8>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        if matches!(phase, Phase::ErrorSent | Phase::Closed) {
            return;
        }
        if self.summary.is_uncounted() {
            // What was told before the content is no usage of the answer.
            self.usage_chunk.drop_kept();
        }
        if self.garbled || !self.is_finished() {
            self.usage_chunk.write_event(out);
            out.extend(match self.endpoint {
                Endpoint::Responses => broken_response_event(provider, self.broken_response()),
                _ => broken_stream_event(provider),
            });
            return;
        }
        if self.endpoint == Endpoint::Responses {
            return;
        }
        self.usage_chunk.write(self.form, &self.defaults, out);
        out.extend([b"data: ", DONE, BLANK].concat());
    }

    /// What the last event of a stream of the Responses API says of its response.
    fn broken_response(&self) -> BrokenResponse<'_> {
        let Defaults { id, created, model, .. } = &self.defaults;
        BrokenResponse { id, created: *created, model, number: self.forwarded }
    }

    /// The provider sent an error: the client gets it in the envelope, and nothing more.
    fn fail(&mut self, error: ErrorBody, out: &mut Vec<u8>) {
        if self.is_withheld() {
            self.phase = Phase::WithheldToEnd;
        } else {
            out.extend(error_event(&error, self.key.secret()));
            self.phase = Phase::Closed;
        }
        self.summary.error = Some(error);
    }

    // What is read

    /// Reads one block, and writes to `out` what is forwarded of it.
    pub(super) fn block(&mut self, block: &Block<'_>, out: &mut Vec<u8>) -> Fate {
        if self.end_was_read() {
            return Fate::Altered;
        }
        let is_blank = block.raw.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if is_blank {
            // A spare line end, or one that was separated from its carriage return: it belongs to what stands before it.
            if self.last == Fate::Unchanged {
                out.extend_from_slice(block.raw);
            }
            return self.last;
        }
        self.last = match block.data {
            _ if !block.stray.is_empty() => self.stray(block, out),
            Some(data) => self.event(block, data, out),
            // Comments keep a connection alive. Before the answer has begun, the client has no use for them.
            None if self.is_withheld() && !self.summary.has_begun() => Fate::Altered,
            // A name without data would be an empty event to some clients.
            None if block.foul || !block.raw.starts_with(b":") || !block.name.is_empty() => Fate::Altered,
            None => {
                out.extend_from_slice(block.raw);
                Fate::Unchanged
            }
        };
        self.release_begun();
        self.last
    }

    /// Reads one event, and writes to `out` what is forwarded of it.
    fn event(&mut self, block: &Block<'_>, data: &[u8], out: &mut Vec<u8>) -> Fate {
        if data.trim_ascii() == DONE {
            self.provider_ended();
            self.reach_end();
            return Fate::Altered;
        }
        // An error is no part of an event.
        if !self.integrity.holds_beginning() || block.name == "error" {
            let raw = Some(block.raw).filter(|_| !block.foul);
            if let Some(fate) = self.object(raw, block.name, data, out) {
                return fate;
            }
        }
        self.unread_event(block, data, out);
        Fate::Altered
    }

    /// Reads an event whose data is a JSON object; `None` if it is not, or says nothing. `raw` is the event as it came, if it can be
    /// forwarded so.
    fn object(&mut self, raw: Option<&[u8]>, name: &str, data: &[u8], out: &mut Vec<u8>) -> Option<Fate> {
        let fate = match self.endpoint {
            Endpoint::Responses => self.response_event(raw, data, out),
            _ => self.chunk(raw, name, data, out),
        };
        if fate.is_some() && self.integrity.hear() {
            self.lose();
        }
        fate
    }

    /// Reads one chunk of a chat or text completion.
    fn chunk(&mut self, raw: Option<&[u8]>, name: &str, data: &[u8], out: &mut Vec<u8>) -> Option<Fate> {
        let reading = Reading::after(&mut self.calls, data, self.form, &self.defaults, &mut self.text);
        let mut reading = match reading {
            Ok(reading) => reading,
            Err(_) if name == "error" => {
                self.fail(ErrorBody::read(data), out);
                return Some(Fate::Altered);
            }
            Err(_) => return None,
        };
        if name == "error" && reading.summary.error.is_none() {
            reading.summary.error = Some(ErrorBody::read(data));
        }
        if let Some(defaults) = reading.stream_fields {
            self.defaults = *defaults;
        }
        let error = reading.summary.error.take();
        let usage = reading.summary.usage;
        self.summary.add(reading.summary);
        if let Some(error) = error {
            self.fail(error, out);
            return Some(Fate::Altered);
        }
        if reading.has_no_choices && is_noise_name(name) {
            return Some(Fate::Altered);
        }
        if reading.has_no_choices && !self.usage_chunk.is_asked_for() {
            // Clients that have not asked for the usage look for a choice in every chunk.
            return Some(Fate::Altered);
        }
        if reading.has_no_choices && reading.has_usage_object {
            if !self.usage_chunk.accepts(usage) {
                return Some(Fate::Altered);
            }
            if !self.usage_chunk.is_final(self.summary.is_finished()) {
                // The client gets it at the end: the provider may tell its usage again.
                let mut event = Vec::new();
                write(raw, data, &reading.splices, &mut event);
                self.usage_chunk.keep_event(event);
                return Some(Fate::Altered);
            }
        } else if self.usage_chunk.accepts(usage) {
            self.usage_chunk.keep_object(reading.usage_place.and_then(|place| data.get(place)));
        }
        out.extend_from_slice(&reading.earlier);
        if reading.is_kept {
            return Some(Fate::Altered);
        }
        let fate = write(raw, data, &reading.splices, out);
        Some(if reading.earlier.is_empty() { fate } else { Fate::Altered })
    }

    /// Reads one event of the Responses API, which is forwarded as it came.
    fn response_event(&mut self, raw: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) -> Option<Fate> {
        let (event, kind) = responses::event(data, &mut self.text, &mut self.defaults.served)?;
        self.thoughts.add(event.thought);
        self.summary.add(event);
        if self.forwarded == 0 {
            // The first event names the response. Should the stream break off, its last event must name the same one.
            responses::name(data, &mut self.defaults);
        }
        if self.summary.error.is_none() {
            self.forwarded = self.forwarded.saturating_add(1);
            return Some(match raw {
                Some(raw) => {
                    out.extend_from_slice(raw);
                    Fate::Unchanged
                }
                None => {
                    out.extend(responses::block(kind, data));
                    Fate::Altered
                }
            });
        }
        if !self.is_withheld() {
            // The client of this API expects the error as it is, but for a key that the provider may repeat in it.
            let text = raw.map_or_else(|| responses::block(kind, data), <[u8]>::to_vec);
            out.extend(redact(&String::from_utf8_lossy(&text), self.key.secret()).into_bytes());
            self.phase = Phase::ErrorSent;
        }
        Some(Fate::Altered)
    }
}

/// Writes one event with its changes, or as it came (`raw`), if it has none.
fn write(raw: Option<&[u8]>, data: &[u8], splices: &Splices, out: &mut Vec<u8>) -> Fate {
    if let Some(raw) = raw.filter(|_| splices.is_empty()) {
        out.extend_from_slice(raw);
        return Fate::Unchanged;
    }
    if let Some(mut json) = splices.apply(data) {
        // A line feed would end the data line. Between the tokens of JSON a space means the same.
        json.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        out.extend([b"data: ", json.as_slice(), BLANK].concat());
    }
    Fate::Altered
}
