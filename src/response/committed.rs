//! An answer whose head has left already: the host lets no head be held back.
//!
//! Its body is still judged as any other's, and put right on its way; only its status cannot change any more, and nobody else
//! can be asked. A stream's events are held until its first content, so that what comes before it, or instead of it, is
//! judged as a whole.

use super::answer::{Judged, Step, Wants, Watch, LONGEST_ERROR};
use crate::client_api::errors::{broken_stream_event, error_envelope, error_event, is_envelope};
use crate::health::outcome::{ErrorBody, Outcome};
use crate::spend::usage::Tally;

/// One such answer.
#[derive(Debug)]
pub struct Committed {
    watch: Watch,
    phase: Phase,
    /// What came and was not passed on.
    held: Vec<u8>,
    max_held: usize,
    provider: String,
    key: String,
    status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Withheld,
    Relayed,
    /// Unjudged, because nobody can hold so much.
    Passing,
    /// Nothing more passes.
    Over,
}

/// What becomes of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What goes on in its place; `None`: the piece as it is.
    pub bytes: Option<Vec<u8>>,
    /// How the answer ended, once it has.
    pub ended: Option<Outcome>,
}

impl Committed {
    /// Begins with an answer of `provider` that the client gets with `status`. `key` is the provider's.
    pub fn new(watch: Watch, max_held: usize, provider: &str, key: String, status: u16) -> Self {
        let provider = provider.to_owned();
        Self { watch, phase: Phase::Withheld, held: Vec::new(), max_held, provider, key, status }
    }

    /// The tokens so far.
    pub fn tally(&self) -> Tally {
        self.watch.tally()
    }

    /// Takes the next piece; `end` says that nothing follows.
    pub fn take(&mut self, piece: &[u8], end: bool) -> Passed {
        match self.phase {
            Phase::Withheld => self.withheld(piece, end),
            Phase::Relayed => {
                let relay = self.watch.relay(piece, end, &self.provider);
                if relay.ended.is_some() {
                    self.phase = Phase::Over;
                }
                Passed { bytes: relay.replace, ended: relay.ended }
            }
            Phase::Passing => Passed { bytes: None, ended: end.then_some(Outcome::Answered) },
            Phase::Over => Passed { bytes: Some(Vec::new()), ended: None },
        }
    }

    fn withheld(&mut self, piece: &[u8], end: bool) -> Passed {
        self.held.extend_from_slice(piece);
        let size = self.held.len();
        let judged = match self.watch.wants(self.max_held) {
            Wants::Pieces => match self.watch.withhold(piece, end, size, self.max_held) {
                Step::Hold => return Passed { bytes: Some(Vec::new()), ended: None },
                Step::Judged(judged) => judged,
            },
            Wants::Everything(_) if end => self.watch.judge(&self.held, true),
            Wants::Everything(most) if size > most => self.watch.judge(&self.held, false),
            Wants::Everything(_) => return Passed { bytes: Some(Vec::new()), ended: None },
        };
        let held = std::mem::take(&mut self.held);
        self.judged(judged, held, end)
    }

    fn judged(&mut self, judged: Judged, held: Vec<u8>, end: bool) -> Passed {
        let outcome = judged.verdict.outcome;
        let streams = self.watch.is_stream();
        if outcome == Outcome::Answered {
            let bytes = if streams { self.watch.release(end, &self.provider) } else { judged.body };
            let over = end || (streams && self.watch.is_closed());
            self.phase = match (over, streams) {
                (true, _) => Phase::Over,
                (false, true) => Phase::Relayed,
                (false, false) => Phase::Passing,
            };
            return Passed { bytes: Some(bytes.unwrap_or(held)), ended: over.then_some(outcome) };
        }
        self.phase = Phase::Over;
        let told = judged.error.unwrap_or_default();
        let bytes = if !streams {
            self.error(&told, held)
        } else if told == ErrorBody::default() {
            broken_stream_event(&self.provider)
        } else {
            error_event(&told, &self.key)
        };
        Passed { bytes: Some(bytes), ended: Some(outcome) }
    }

    fn error(&self, told: &ErrorBody, held: Vec<u8>) -> Vec<u8> {
        if self.watch.is_error() && held.len() <= LONGEST_ERROR && is_envelope(&held, &self.key) {
            return held;
        }
        error_envelope(told, self.status, &self.key)
    }
}

#[cfg(test)]
mod tests;
