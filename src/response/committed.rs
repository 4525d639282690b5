//! An answer whose status and headers the client has already: not every host can withhold them.
//!
//! Its body is still judged and changed as any other; but its status is fixed, and failover is not possible any more. A stream's events
//! are held until its first content, so that what comes before it, or instead of it, is judged as a whole.

use super::answer::{Judged, Step, Wants, Watch, LONGEST_ERROR};
use super::stream::Forward;
use crate::client_api::errors::{error_envelope, error_event, is_envelope};
use crate::health::outcome::{ErrorBody, Outcome, Verdict};
use crate::spend::usage::Tally;

/// An answer whose head the client has.
#[derive(Debug)]
pub struct Committed {
    watch: Watch,
    phase: Phase,
    /// What has come and was not forwarded.
    held: Vec<u8>,
    max_held: usize,
    provider: String,
    key: String,
    status: u16,
    /// What the body of an error has said.
    refusal: Option<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of the body has gone to the client.
    Withheld,
    /// The answer flows to the client and is watched.
    Relayed,
    /// Nothing more is forwarded.
    Over,
}

impl Committed {
    /// Begins to watch an answer of `provider`, of which the client has `status`. `key` is the provider's.
    pub fn new(mut watch: Watch, max_held: usize, provider: &str, key: String, status: u16) -> Self {
        watch.commit();
        let provider = provider.to_owned();
        let (phase, held) = (Phase::Withheld, Vec::new());
        Self { watch, phase, held, max_held, provider, key, status, refusal: None }
    }

    /// The tokens so far.
    pub fn tally(&self) -> Tally {
        self.watch.tally()
    }

    /// Whether the client has a part of what turned out to be broken.
    pub fn is_torn(&self) -> bool {
        self.watch.is_torn()
    }

    /// What an error with an error status has turned out to be; once, as soon as its body was read.
    pub fn take_refusal(&mut self) -> Option<Verdict> {
        self.refusal.take()
    }

    /// Takes the next piece; `end` says that nothing follows.
    pub fn take(&mut self, piece: &[u8], end: bool) -> Forward {
        match self.phase {
            Phase::Withheld => self.withheld(piece, end),
            Phase::Relayed => {
                let mut forward = self.watch.relay(piece, end, &self.provider);
                if forward.ended.is_some() {
                    self.phase = Phase::Over;
                    if self.is_torn() && self.watch.is_stream() {
                        let mut bytes = forward.replace.take().unwrap_or_default();
                        bytes.extend(self.end_of_half());
                        forward.replace = Some(bytes);
                    }
                }
                forward
            }
            Phase::Over => Forward { replace: Some(Vec::new()), ended: None },
        }
    }

    fn withheld(&mut self, piece: &[u8], end: bool) -> Forward {
        self.held.extend_from_slice(piece);
        let size = self.held.len();
        let judged = match self.watch.wants(self.max_held) {
            Wants::Pieces => match self.watch.withhold(piece, end, size, self.max_held) {
                Step::Hold => return Forward { replace: Some(Vec::new()), ended: None },
                Step::Judged(judged) => judged,
            },
            Wants::Everything(_) if end => self.watch.judge(&self.held, true),
            Wants::Everything(most) if size > most => self.watch.judge(&self.held, false),
            Wants::Everything(_) => return Forward { replace: Some(Vec::new()), ended: None },
        };
        let held = std::mem::take(&mut self.held);
        self.judged(judged, held, end)
    }

    fn judged(&mut self, judged: Judged, held: Vec<u8>, end: bool) -> Forward {
        let outcome = judged.verdict.outcome;
        let streams = self.watch.is_stream();
        if outcome == Outcome::Answered {
            let bytes = if streams { self.watch.release(end, &self.provider) } else { judged.body };
            let mut bytes = bytes.unwrap_or(held);
            let over = end || (streams && (self.watch.is_closed() || self.watch.is_torn()));
            if streams && self.watch.is_torn() {
                bytes.extend(self.end_of_half());
            }
            self.phase = if over { Phase::Over } else { Phase::Relayed };
            return Forward { replace: Some(bytes), ended: over.then(|| self.watch.outcome()) };
        }
        self.phase = Phase::Over;
        self.refusal = self.watch.is_error().then_some(judged.verdict);
        let error = judged.error.unwrap_or_default();
        let bytes = if !streams {
            self.error_body(&error, held)
        } else if error == ErrorBody::default() {
            self.watch.broken_end(&self.provider)
        } else {
            error_event(&error, &self.key)
        };
        Forward { replace: Some(bytes), ended: Some(outcome) }
    }

    /// What follows half of an event that is at the client: its end, so that whoever reads it fails, and an error for whoever skips it.
    fn end_of_half(&mut self) -> Vec<u8> {
        [b"\n\n", &*self.watch.broken_end(&self.provider)].concat()
    }

    /// The body of an error: the provider's own if that is an envelope, else one that is written here.
    fn error_body(&self, error: &ErrorBody, held: Vec<u8>) -> Vec<u8> {
        if self.watch.is_error() && held.len() <= LONGEST_ERROR && is_envelope(&held, &self.key) {
            return held;
        }
        error_envelope(error, self.status, &self.key)
    }
}

#[cfg(test)]
mod tests;
