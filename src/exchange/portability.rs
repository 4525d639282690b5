//! The portability guard: a conversation does not go to a candidate that would refuse it, while another would not.
//!
//! What a model takes is said in the configuration; what is not said, is taken. What can be put right instead (reasoning in
//! the history, the role `developer`) is the [dialect](crate::dialects::dialect)'s to put right.

use super::candidates::CandidateId;
use super::Exchange;
use crate::routing::provider::Resolved;

/// The reason of a candidate in whose context the request does not fit, as far as is known.
const TOO_LONG: &str = "context";

impl Exchange {
    /// Why a candidate is not tried while another could be: the feature that it lacks, or its context.
    pub(super) fn guarded(&self, candidate: CandidateId) -> Option<&'static str> {
        let why = self.misfit(candidate)?;
        // A guess beats a certain failure: what was configured of a model may be old, and its own answer is the better error.
        let serves = |other: CandidateId| self.candidates.is_suitable(other) && self.misfit(other).is_none();
        self.candidates.ids().any(serves).then_some(why)
    }

    /// Notes which candidates before this one the guard leaves out.
    pub(super) fn note_guarded(&mut self, candidate: CandidateId) {
        for id in self.candidates.before(candidate) {
            if let Some(why) = self.guarded(id) {
                self.candidates.skip(id, why);
            }
        }
    }

    /// Why a candidate would refuse this conversation.
    fn misfit(&self, candidate: CandidateId) -> Option<&'static str> {
        self.refuses(&self.candidates.get(candidate)?.model)
    }

    /// Why a model would refuse it.
    pub(super) fn refuses(&self, model: &Resolved) -> Option<&'static str> {
        if !model.lacks.is_empty() {
            if let Some(lacking) = self.body.said.input.features().first_in(model.lacks) {
                return Some(lacking.name());
            }
        }
        model.context.filter(|context| !self.fits(*context)).map(|_| TOO_LONG)
    }

    /// Whether the request and its answer fit into a context of so many tokens. In doubt they do: the provider knows better.
    fn fits(&self, context: u64) -> bool {
        // A provider counts what the answer may have, not what it will.
        let output = self.body.said.max_output.unwrap_or(0) / self.body.said.choices.max(1);
        let room = context.saturating_sub(output);
        // No text has more tokens than bytes, and most requests are far from any limit: these are not counted.
        (self.body.said.len as u64) < room
            || self.body.said.input.is_batch()
            || certain(self.body.said.input.tokens()) <= room
    }
}

/// What is left of an estimate that may be wrong by so much: 15 percent is what its tests allow.
const fn certain(tokens: u64) -> u64 {
    tokens.saturating_mul(85) / 100
}
