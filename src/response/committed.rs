//! An answer whose status and headers the client has already: not every host can withhold them.
//!
//! Its body is still judged and changed as any other; but its status is fixed, and failover is not possible any more. A stream's events
//! are held until its first content, so that what comes before it, or instead of it, is judged as a whole.

use super::answer::{Judged, Step, Wants, Watch, LONGEST_ERROR};
use super::stream::Forward;
use crate::client_api::errors::{error_envelope, error_event, is_envelope};
use crate::health::outcome::{ErrorBody, Outcome};
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
    pub fn new(watch: Watch, max_held: usize, provider: &str, key: String, status: u16) -> Self {
        let provider = provider.to_owned();
        Self { watch, phase: Phase::Withheld, held: Vec::new(), max_held, provider, key, status }
    }

    /// The tokens so far.
    pub fn tally(&self) -> Tally {
        self.watch.tally()
    }

    /// Whether the client has a part of what turned out to be broken.
    pub fn is_torn(&self) -> bool {
        self.watch.is_torn()
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
                        // Half of an event is at the client. It is ended here, so that whoever reads it fails, and whoever skips it is told.
                        forward.replace = Some([b"\n\n", &*self.watch.broken_end(&self.provider)].concat());
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
            let over = end || (streams && self.watch.is_closed());
            self.phase = if over { Phase::Over } else { Phase::Relayed };
            return Forward { replace: Some(bytes.unwrap_or(held)), ended: over.then_some(outcome) };
        }
        self.phase = Phase::Over;
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
