//! Watching one provider's response: it is held, judged and released, and then watched to its end.
//!
//! A response is withheld until it can be judged: an error until its body says what kind it is, a whole answer until it is
//! complete, a stream until its first content (or, with `complete`, its end). What the client gets is OpenAI's schema: a
//! body is changed where it differs, and forwarded unchanged where it does not. A stream is watched after its release, too;
//! [`stream`](super::stream) says what is forwarded then.

use std::time::Duration;

use super::asked::Asked;
use super::document::read_whole;
use super::stream::{Forward, Stream};
use super::tail::{self, Tail};
use crate::bytes::json::Scanner;
use crate::client_api::request::Endpoint;
use crate::dialects::dialect::Wire;
use crate::health::outcome::{judge, judge_in_answer, Doubt, ErrorBody, Outcome, Verdict};
use crate::spend::tokens::BYTES_PER_TOKEN;
use crate::spend::usage::{Tally, MOST_OUTPUT};

/// No more bytes of an error body are read: envelopes are short, and an endless body must not be waited for.
pub const LONGEST_ERROR: usize = 64 << 10;

/// The part of a response's head that decides how it is watched. The `content-type` does not: whoever calls an event stream something
/// else still sends events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// How long the provider asks not to be called.
    pub retry_after: Option<Duration>,
}

/// The watch over one response.
#[derive(Debug)]
pub struct Watch {
    status: u16,
    retry_after: Option<Duration>,
    kind: Kind,
    tally: Tally,
}

#[derive(Debug)]
enum Kind {
    /// An error status; its body says more.
    Error,
    /// One JSON document, which is what the client asked for.
    Whole(Box<Asked>),
    /// One JSON document that is too long to be held: it is only checked while it is relayed, and its usage is read from its end.
    Unread(Box<Unread>),
    /// An event stream.
    Stream(Box<Stream>),
}

/// A document that is not read, but checked.
#[derive(Debug)]
struct Unread {
    scanner: Scanner,
    tail: Tail,
    /// There is text in it, and not only vectors.
    has_output: bool,
    /// How much of it has come.
    bytes: u64,
    is_broken: bool,
}

/// What the watch needs to see of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Every piece as it comes.
    Pieces,
    /// Everything at once when it is complete, or when it is longer than this many bytes.
    Everything(usize),
}

/// What is known of a response once it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its outcome.
    pub verdict: Verdict,
    /// What the client gets in place of the body that is held; `None`: that body unchanged.
    pub body: Option<Vec<u8>>,
    /// The error in its body, if there is one.
    pub error: Option<ErrorBody>,
}

/// What to do with a response that is withheld.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep holding it.
    Hold,
    /// It is judged. An answered stream goes on to [`Watch::release`] and [`Watch::relay`].
    Judged(Judged),
}

impl Watch {
    /// Begins to watch a response.
    pub fn new(head: &Head, asked: Asked) -> Self {
        let kind = if !(200..300).contains(&head.status) {
            Kind::Error
        } else if !asked.stream {
            Kind::Whole(Box::new(asked))
        } else {
            // Its content type may be any: a stream is recognized by its events.
            Kind::Stream(Box::new(Stream::new(asked)))
        };
        Self { status: head.status, retry_after: head.retry_after, kind, tally: Tally::default() }
    }

    /// The client has the head of the response: from the first content on, a stream is forwarded whatever follows.
    pub fn commit(&mut self) {
        if let Kind::Stream(stream) = &mut self.kind {
            stream.commit();
        }
    }

    /// What to feed it. `max_held` limits what is withheld, in bytes.
    pub fn wants(&self, max_held: usize) -> Wants {
        match self.kind {
            Kind::Error => Wants::Everything(LONGEST_ERROR),
            Kind::Whole(_) => Wants::Everything(max_held),
            Kind::Stream(_) | Kind::Unread(_) => Wants::Pieces,
        }
    }

    /// Whether it is an event stream, which is watched after its release, too.
    pub const fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Whether it is watched after its release: an event stream is, and an answer that was too long to be read before.
    pub const fn goes_on(&self) -> bool {
        matches!(self.kind, Kind::Stream(_) | Kind::Unread(_))
    }

    /// Whether the client has a part of what turned out to be broken, and nothing but a reset can tell it.
    pub fn is_torn(&self) -> bool {
        match &self.kind {
            Kind::Stream(stream) => stream.is_torn(),
            Kind::Unread(unread) => unread.is_broken,
            Kind::Error | Kind::Whole(_) => false,
        }
    }

    /// Whether the status was an error.
    pub const fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error)
    }

    /// The tokens so far.
    pub fn tally(&self) -> Tally {
        match &self.kind {
            Kind::Stream(stream) => stream.tally(),
            Kind::Error | Kind::Whole(_) | Kind::Unread(_) => self.tally.clone(),
        }
    }

    /// Judges a body that was held as a whole. `complete` says that it is all there.
    pub fn judge(&mut self, body: &[u8], complete: bool) -> Judged {
        match &self.kind {
            Kind::Error => {
                let body = body.get(..body.len().min(LONGEST_ERROR)).unwrap_or(body);
                let error = ErrorBody::read(body);
                self.refused(judge(self.status, &error), error)
            }
            Kind::Stream(_) | Kind::Unread(_) => self.judged(Outcome::ServerError, None),
            // An answer that must be translated cannot be forwarded in part.
            Kind::Whole(asked) if !complete && asked.wire != Wire::OpenAi => {
                self.judged(Outcome::ServerError, None)
            }
            Kind::Whole(asked) if !complete => {
                let endpoint = asked.endpoint;
                self.judge_beginning(body, endpoint)
            }
            Kind::Whole(asked) => {
                let read = read_whole(body, asked);
                self.tally = read.answer.tally;
                match (read.answer.error, read.answer.answered) {
                    (Some(error), _) => self.refused(judge_in_answer(&error), error),
                    (None, true) => self.judged(Outcome::Answered, read.answer.body),
                    (None, false) if read.garbled => self.judged(Outcome::Garbled, None),
                    (None, false) => self.judged(Outcome::ServerError, None),
                }
            }
        }
    }

    /// Judges an answer that is too long to be held by its beginning: nothing has gone wrong so far if that can become JSON.
    fn judge_beginning(&mut self, body: &[u8], endpoint: Endpoint) -> Judged {
        let mut unread = Unread {
            scanner: Scanner::default(),
            tail: Tail::new(endpoint),
            has_output: endpoint != Endpoint::Embeddings,
            bytes: 0,
            is_broken: false,
        };
        // A byte order mark stays: it counts in the length that the provider said.
        let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        if !unread.scanner.feed(text) {
            return self.judged(Outcome::Garbled, None);
        }
        // Some vendors tell the usage before the answer.
        unread.tail.feed(text.get(..text.len().min(tail::KEPT)).unwrap_or_default());
        self.tally = Tally { unread: true, ..unread.tail.tally() };
        unread.feed(text, &mut self.tally);
        self.kind = Kind::Unread(Box::new(unread));
        self.judged(Outcome::Answered, None)
    }

    /// Reads the next piece of a stream that is withheld. `held` counts all that is held so far, this piece included.
    pub fn withhold(&mut self, piece: &[u8], end: bool, held: usize, max_held: usize) -> Step {
        let Kind::Stream(stream) = &mut self.kind else { return Step::Judged(self.judge(piece, end)) };
        match stream.withhold(piece, end, held > max_held, max_held) {
            Some((_, Some(error))) => Step::Judged(self.refused(judge_in_answer(&error), error)),
            Some((outcome, None)) => Step::Judged(self.judged(outcome, None)),
            None => Step::Hold,
        }
    }

    /// Releases a stream that was withheld and answered. Returns what the client gets in place of all that is held; `None`: that,
    /// unchanged. `end` says that the provider sends nothing more.
    pub fn release(&mut self, end: bool, provider: &str) -> Option<Vec<u8>> {
        let Kind::Stream(stream) = &mut self.kind else { return None };
        stream.release(end, provider)
    }

    /// The end that the client of a stream gets in place of an answer, or of the rest of one, that is not finished or lost a part.
    pub fn broken_end(&mut self, provider: &str) -> Vec<u8> {
        match &mut self.kind {
            Kind::Stream(stream) => stream.broken_end(provider),
            Kind::Error | Kind::Whole(_) | Kind::Unread(_) => Vec::new(),
        }
    }

    /// Whether the end of the stream was read: nothing more of it is forwarded.
    pub fn is_closed(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.is_closed())
    }

    /// How a released stream ended.
    pub fn outcome(&self) -> Outcome {
        match &self.kind {
            Kind::Stream(stream) => stream.outcome(),
            Kind::Error | Kind::Whole(_) | Kind::Unread(_) => Outcome::Answered,
        }
    }

    /// Whether the answer is finished, as far as a stream's whole events say, or the document itself.
    pub fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::Stream(stream) => stream.is_finished(),
            Kind::Unread(unread) => !unread.is_broken && unread.scanner.is_complete(),
            Kind::Error | Kind::Whole(_) => false,
        }
    }

    /// Reads the next piece of an answer that was released and [goes on](Self::goes_on).
    pub fn relay(&mut self, piece: &[u8], end: bool, provider: &str) -> Forward {
        match &mut self.kind {
            Kind::Stream(stream) => stream.relay(piece, end, provider),
            Kind::Unread(unread) => {
                let forward = unread.relay(piece, end, &mut self.tally);
                let told = if end { unread.tail.tally() } else { Tally::default() };
                if told.usage.is_some() {
                    let Tally { usage, uncounted, reconciled, .. } = told;
                    self.tally = Tally { usage, uncounted, reconciled, ..std::mem::take(&mut self.tally) };
                }
                forward
            }
            Kind::Error | Kind::Whole(_) => Forward { replace: None, ended: None },
        }
    }

    fn judged(&self, outcome: Outcome, body: Option<Vec<u8>>) -> Judged {
        let verdict =
            Verdict { retry_after: self.retry_after, ..Verdict::certain(outcome, Some(self.status)) };
        Judged { verdict, body, error: None }
    }

    /// A response with an error in it. Where the headers ask for no wait, the error may.
    fn refused(&self, (outcome, doubt): (Outcome, Option<Doubt>), error: ErrorBody) -> Judged {
        let retry_after = self.retry_after.or(error.hints.retry_after);
        let verdict = Verdict { retry_after, doubt, ..Verdict::certain(outcome, Some(self.status)) };
        Judged { verdict, body: None, error: Some(error) }
    }
}

impl Unread {
    /// Takes the next piece. Of what is not read, the length tells the tokens, about.
    fn feed(&mut self, piece: &[u8], tally: &mut Tally) {
        self.tail.feed(piece);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.has_output {
            tally.estimated_output = (self.bytes / BYTES_PER_TOKEN).min(MOST_OUTPUT);
        }
    }

    fn relay(&mut self, piece: &[u8], end: bool, tally: &mut Tally) -> Forward {
        let was_broken = self.is_broken;
        self.feed(piece, tally);
        self.is_broken |= !self.scanner.feed(piece) || (end && !self.scanner.is_complete());
        let ended = match self.is_broken {
            true => (!was_broken).then_some(Outcome::Garbled),
            false => end.then_some(Outcome::Answered),
        };
        Forward { replace: self.is_broken.then(Vec::new), ended }
    }
}

#[cfg(test)]
mod tests;
