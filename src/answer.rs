//! Watching one provider's response: hold it, judge it, release it, and see how it ends.
//!
//! A response is withheld until it can be judged: an error until its body tells what kind, a whole answer until it is
//! complete, a stream until its first content (or, with `complete`, its end). After the release of a stream the watch
//! goes on: only whole events pass, `[DONE]` stands only behind a finished answer, and a stream that ends cleanly in the
//! middle gets a typed error event.

use std::time::Duration;

use crate::chat::Glance;
use crate::config::Release;
use crate::outcome::{of_error_in_answer, of_status, ErrorBody, Outcome, Verdict};
use crate::report::broken_stream_event;
use crate::sse::{Event, Reader};

/// An error body is read up to here: envelopes are short, an endless one must not be waited for.
const LONGEST_ERROR: usize = 64 << 10;

/// The part of a response's head that decides how it is watched.
#[derive(Clone, Debug, Default)]
pub struct Head<'a> {
    /// The status.
    pub status: u16,
    /// `content-type`, of an answer to a request for a stream.
    pub content_type: &'a str,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// The watch over one response.
#[derive(Debug)]
pub struct Watch {
    status: u16,
    retry_after: Option<Duration>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// An error status; its body says more.
    Error,
    /// One JSON document. `asked` says that the client asked for one; otherwise even a good one is no answer.
    Whole { asked: bool },
    /// An event stream.
    Stream(Box<Stream>),
}

#[derive(Debug)]
struct Stream {
    reader: Reader,
    glance: Glance,
    release: Release,
    /// The end was seen or made; what follows does not pass.
    closed: bool,
    /// While withheld: so many bytes at the end belong to no event that passes.
    unreleased: usize,
    /// While withheld: what completes the last event.
    padding: &'static [u8],
}

/// What the watch needs to see of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Every piece as it comes.
    Pieces,
    /// Everything at once when it is complete, or when it has grown beyond so many bytes.
    Everything(usize),
}

/// What to do with a response that is withheld.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold on to it.
    Hold,
    /// It is judged. An answered stream goes on to [`Watch::release`] and [`Watch::relay`].
    Judged(Verdict),
}

/// What to do with a piece of a stream that was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// What to pass on in place of the piece; `None`: the piece as it is.
    pub replace: Option<Vec<u8>>,
    /// How the stream ended, once it has.
    pub ended: Option<Outcome>,
}

impl Watch {
    /// Begins to watch a response. `stream` says what the client asked for.
    pub fn new(head: &Head<'_>, stream: bool, release: Release) -> Self {
        let kind = if !(200..300).contains(&head.status) {
            Kind::Error
        } else if !stream {
            Kind::Whole { asked: true }
        } else if head.content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
            Kind::Whole { asked: false }
        } else {
            // Whatever it calls itself: a stream is known by its events.
            Kind::Stream(Box::new(Stream {
                reader: Reader::default(),
                glance: Glance::default(),
                release,
                closed: false,
                unreleased: 0,
                padding: b"",
            }))
        };
        Self { status: head.status, retry_after: head.retry_after, kind }
    }

    /// What to feed it. `max_held` bounds what is held back, in bytes.
    pub fn wants(&self, max_held: usize) -> Wants {
        match self.kind {
            Kind::Error => Wants::Everything(LONGEST_ERROR),
            Kind::Whole { .. } => Wants::Everything(max_held),
            Kind::Stream(_) => Wants::Pieces,
        }
    }

    /// Whether it is an event stream, which goes on to be watched after its release.
    pub const fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Whether the status was an error.
    pub const fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error)
    }

    /// Judges a body that was held as a whole. `complete` says that it is all there.
    pub fn judge(&self, body: &[u8], complete: bool) -> Verdict {
        let outcome = match &self.kind {
            Kind::Error => {
                let body = body.get(..body.len().min(LONGEST_ERROR)).unwrap_or(body);
                of_status(self.status, &ErrorBody::from_json(body).unwrap_or_default())
            }
            Kind::Stream(_) => Outcome::ServerError,
            // Too long to be held: it has flowed well so far.
            Kind::Whole { asked: true } if !complete => Outcome::Answered,
            Kind::Whole { asked } => match Glance::read(body) {
                Ok(Glance { error: Some(error), .. }) => of_error_in_answer(&error),
                Ok(glance) if *asked && glance.has_begun() => Outcome::Answered,
                _ => Outcome::ServerError,
            },
        };
        self.verdict(outcome)
    }

    /// Reads the next piece of a stream that is withheld. `held` counts all that is held so far, this piece included.
    pub fn withhold(&mut self, piece: &[u8], end: bool, held: usize, max_held: usize) -> Step {
        let Kind::Stream(stream) = &mut self.kind else { return Step::Judged(self.judge(piece, end)) };
        let total = stream.reader.rest().len().saturating_add(piece.len());
        // JSON in a stream's clothes has no event in it, and may say what is wrong.
        let document = (end && !stream.glance.has_begun()).then(|| [stream.reader.rest(), piece].concat());
        let Read { keep, padding } = stream.read(piece, end);
        stream.unreleased = total.saturating_sub(keep);
        stream.padding = padding;
        let over = end || stream.closed;
        let outcome = match &stream.glance.error {
            Some(error) => of_error_in_answer(error),
            None if over && stream.glance.is_finished() => Outcome::Answered,
            None if over && stream.glance.seen != 0 => Outcome::Truncated,
            None if over => document
                .and_then(|document| ErrorBody::from_json(&document))
                .map_or(Outcome::ServerError, |error| of_error_in_answer(&error)),
            None if stream.release == Release::FirstToken && stream.glance.has_begun() => Outcome::Answered,
            None if held > max_held || stream.reader.is_lost() => Outcome::Answered,
            None => return Step::Hold,
        };
        Step::Judged(self.verdict(outcome))
    }

    /// How a stream that was withheld and answered is released: so many bytes at the end of what is held are not passed
    /// on, and what goes behind the rest. `end` says that the provider is through.
    pub fn release(&mut self, end: bool, provider: &str) -> (usize, Vec<u8>) {
        let Kind::Stream(stream) = &mut self.kind else { return (0, Vec::new()) };
        let mut behind = stream.padding.to_vec();
        if end || stream.closed {
            behind.extend(stream.close(provider));
        }
        (stream.unreleased, behind)
    }

    /// Whether nothing more of the stream passes: `[DONE]` was read.
    pub fn is_closed(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.closed)
    }

    /// Reads the next piece of a stream that was released.
    pub fn relay(&mut self, piece: &[u8], end: bool, provider: &str) -> Relay {
        let Kind::Stream(stream) = &mut self.kind else { return Relay { replace: None, ended: None } };
        if stream.closed {
            let replace = (!piece.is_empty()).then(Vec::new);
            return Relay { replace, ended: None };
        }
        // Only a line end can complete an event; without one, what is held need not be copied, unless it is given up.
        let line_end = piece.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        let completes = end || line_end || stream.reader.overflows(piece.len());
        let held = if completes { stream.reader.rest().to_vec() } else { Vec::new() };
        let Read { keep, padding } = stream.read(piece, end);
        let over = end || stream.closed;
        let suffix = if over { stream.close(provider) } else { Vec::new() };
        let ended = over.then(|| stream.ended());
        let untouched = held.is_empty() && keep == piece.len() && padding.is_empty() && suffix.is_empty();
        if untouched {
            return Relay { replace: None, ended };
        }
        let mut out = [held.as_slice(), piece].concat();
        out.truncate(keep);
        out.extend_from_slice(padding);
        out.extend(suffix);
        // A `[DONE]` that was true is written again as it was.
        let replace = (out != piece).then_some(out);
        Relay { replace, ended }
    }

    fn verdict(&self, outcome: Outcome) -> Verdict {
        Verdict { outcome, status: Some(self.status), retry_after: self.retry_after }
    }
}

/// What of the bytes in hand (those held before and the new piece) belongs to events that pass.
struct Read {
    /// So many bytes from the beginning.
    keep: usize,
    /// What completes the last event, where the provider left its blank line out.
    padding: &'static [u8],
}

const DONE: &[u8] = b"[DONE]";
const BLANK: &[u8] = b"\n\n";

impl Stream {
    /// Reads a piece. At the end, an event without its blank line counts if it can be read.
    fn read(&mut self, piece: &[u8], end: bool) -> Read {
        let total = self.reader.rest().len().saturating_add(piece.len());
        let mut cut = None;
        let Self { reader, glance, closed, .. } = self;
        let rest = reader
            .feed(piece, |event| {
                note(event, glance, closed, &mut cut);
            })
            .len();
        let whole = total.saturating_sub(rest);
        if end && rest > 0 && !*closed {
            // What is left is one event at most; if it is a `[DONE]` or cannot be read, it does not pass.
            let (mut readable, mut left_out, mut after) = (false, None, glance.clone());
            reader.feed(BLANK, |event| readable = note(event, &mut after, closed, &mut left_out));
            if readable {
                *glance = after;
                if left_out.is_none() {
                    return Read { keep: total, padding: BLANK };
                }
            }
        }
        Read { keep: cut.map_or(whole, |cut: usize| cut.min(whole)), padding: b"" }
    }

    /// How a released stream ended.
    fn ended(&self) -> Outcome {
        if self.reader.is_lost() || (self.glance.is_finished() && self.glance.error.is_none()) {
            Outcome::Answered
        } else {
            Outcome::Truncated
        }
    }

    /// Ends the stream: what the client must still get. An error event of the provider has been passed on already.
    fn close(&mut self, provider: &str) -> Vec<u8> {
        self.closed = true;
        if self.reader.is_lost() || self.glance.error.is_some() {
            Vec::new()
        } else if self.glance.is_finished() {
            [b"data: ", DONE, BLANK].concat()
        } else {
            broken_stream_event(provider)
        }
    }
}

/// Takes note of one event, and returns whether it could be read. From a `[DONE]` on nothing passes (`cut` is its place):
/// whether the client gets one is for [`Stream::close`] to say.
fn note(event: Event<'_>, glance: &mut Glance, closed: &mut bool, cut: &mut Option<usize>) -> bool {
    if *closed {
        return true;
    }
    if event.data.trim_ascii() == DONE {
        *closed = true;
        *cut = Some(event.start);
        return true;
    }
    let named_error = event.name == "error";
    match Glance::read(event.data) {
        Ok(mut chunk) => {
            if named_error && chunk.error.is_none() {
                chunk.error = Some(ErrorBody::from_json(event.data).unwrap_or_default());
            }
            glance.add(chunk);
            true
        }
        Err(_) => {
            if named_error {
                glance.error = Some(ErrorBody::default());
            }
            false
        }
    }
}

#[cfg(test)]
mod tests;
