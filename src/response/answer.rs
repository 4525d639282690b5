//! Watching one provider's response: hold it, judge it, release it, and see how it ends.
//!
//! A response is withheld until it can be judged: an error until its body tells what kind, a whole answer until it is
//! complete, a stream until its first content (or, with `complete`, its end). What the client gets is OpenAI's schema: a
//! body is changed where it differs, and passes as it came where it does not. After the release of a stream the watch goes
//! on; [`stream`](super::stream) says what passes then.

use std::time::Duration;

use super::asked::Asked;
use super::stream::{Relay, Stream};
use crate::dialects::anthropic;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::{self, WholeAnswer};
use crate::health::outcome::{of_error_in_answer, of_status, ErrorBody, Outcome, Verdict};
use crate::spend::usage::Tally;

/// An error body is read up to here: envelopes are short, an endless one must not be waited for.
pub const LONGEST_ERROR: usize = 64 << 10;

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
    tally: Tally,
}

#[derive(Debug)]
enum Kind {
    /// An error status; its body says more.
    Error,
    /// One JSON document. `fits` says that the client asked for one; otherwise even a good one is no answer.
    Whole { asked: Box<Asked>, fits: bool },
    /// An event stream.
    Stream(Box<Stream>),
}

/// What the watch needs to see of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Every piece as it comes.
    Pieces,
    /// Everything at once when it is complete, or when it has grown beyond so many bytes.
    Everything(usize),
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the response came to.
    pub verdict: Verdict,
    /// What the client gets in place of the body that is held; `None`: that body as it is.
    pub body: Option<Vec<u8>>,
    /// The error that it told.
    pub error: Option<ErrorBody>,
}

/// What to do with a response that is withheld.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold on to it.
    Hold,
    /// It is judged. An answered stream goes on to [`Watch::release`] and [`Watch::relay`].
    Judged(Judged),
}

impl Watch {
    /// Begins to watch a response.
    pub fn new(head: &Head<'_>, asked: Asked) -> Self {
        let kind = if !(200..300).contains(&head.status) {
            Kind::Error
        } else if !asked.stream {
            Kind::Whole { asked: Box::new(asked), fits: true }
        } else if head.content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
            Kind::Whole { asked: Box::new(asked), fits: false }
        } else {
            // Whatever it calls itself: a stream is known by its events.
            Kind::Stream(Box::new(Stream::new(asked)))
        };
        Self { status: head.status, retry_after: head.retry_after, kind, tally: Tally::default() }
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

    /// The tokens so far.
    pub fn tally(&self) -> Tally {
        match &self.kind {
            Kind::Stream(stream) => stream.tally(),
            Kind::Error | Kind::Whole { .. } => self.tally,
        }
    }

    /// Judges a body that was held as a whole. `complete` says that it is all there.
    pub fn judge(&mut self, body: &[u8], complete: bool) -> Judged {
        match &self.kind {
            Kind::Error => {
                let body = body.get(..body.len().min(LONGEST_ERROR)).unwrap_or(body);
                let error = ErrorBody::read(body);
                self.judged(of_status(self.status, &error), None, Some(error))
            }
            Kind::Stream(_) => self.judged(Outcome::ServerError, None, None),
            // Too long to be held: it has flowed well so far. One that must be translated cannot be passed on in part.
            Kind::Whole { asked, fits: true } if !complete && asked.wire == Wire::OpenAi => {
                self.judged(Outcome::Answered, None, None)
            }
            Kind::Whole { .. } if !complete => self.judged(Outcome::ServerError, None, None),
            Kind::Whole { asked, fits } => {
                let fits = *fits;
                let read = read_whole(body, asked);
                self.tally = read.tally;
                match (read.error, read.answered) {
                    (Some(error), _) => self.judged(of_error_in_answer(&error), None, Some(error)),
                    (None, true) if fits => self.judged(Outcome::Answered, read.body, None),
                    _ => self.judged(Outcome::ServerError, None, None),
                }
            }
        }
    }

    /// Reads the next piece of a stream that is withheld. `held` counts all that is held so far, this piece included.
    pub fn withhold(&mut self, piece: &[u8], end: bool, held: usize, max_held: usize) -> Step {
        let Kind::Stream(stream) = &mut self.kind else { return Step::Judged(self.judge(piece, end)) };
        match stream.withhold(piece, end, held > max_held) {
            Some((outcome, error)) => Step::Judged(self.judged(outcome, None, error)),
            None => Step::Hold,
        }
    }

    /// Releases a stream that was withheld and answered: what goes to the client in place of all that is held; `None`: that,
    /// as it is. `end` says that the provider is through.
    pub fn release(&mut self, end: bool, provider: &str) -> Option<Vec<u8>> {
        let Kind::Stream(stream) = &mut self.kind else { return None };
        stream.release(end, provider)
    }

    /// Whether nothing more of the stream passes: its end was read.
    pub fn is_closed(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.is_closed())
    }

    /// Whether the stream's answer is finished, as far as whole events tell.
    pub fn is_finished(&self) -> bool {
        matches!(&self.kind, Kind::Stream(stream) if stream.is_finished())
    }

    /// Reads the next piece of a stream that was released.
    pub fn relay(&mut self, piece: &[u8], end: bool, provider: &str) -> Relay {
        let Kind::Stream(stream) = &mut self.kind else { return Relay { replace: None, ended: None } };
        stream.relay(piece, end, provider)
    }

    fn judged(&self, outcome: Outcome, body: Option<Vec<u8>>, error: Option<ErrorBody>) -> Judged {
        let verdict = Verdict { outcome, status: Some(self.status), retry_after: self.retry_after };
        Judged { verdict, body, error }
    }
}

/// A whole answer, in whatever format it came.
fn read_whole(body: &[u8], asked: &Asked) -> WholeAnswer {
    match asked.wire {
        Wire::OpenAi => schema::read(body, asked.endpoint, &asked.defaults),
        Wire::Anthropic => match anthropic::answer(body, asked.defaults.created) {
            Some(answer) => {
                let read = schema::read(&answer, asked.endpoint, &asked.defaults);
                WholeAnswer { body: read.body.or(Some(answer)), ..read }
            }
            None => WholeAnswer { error: ErrorBody::from_json(body), ..WholeAnswer::default() },
        },
    }
}

#[cfg(test)]
mod tests;
