//! The portability guard: a conversation does not go to a candidate that would refuse it if another candidate would not.
//!
//! The configuration says which features a model lacks, how long its context is, and how long its answers are. It is taken to have what
//! the configuration does not mention. Differences that can be corrected in the request (reasoning in the history, the role `developer`)
//! are corrected by the [dialect](crate::dialects::dialect) instead.

use super::candidates::CandidateId;
use super::Exchange;
use crate::routing::provider::{ProviderId, Resolved};

/// The reason of a candidate whose context is too short for the request, as far as is known.
const TOO_LONG: &str = "context";
/// The reason of a candidate whose answers are shorter than what the request allows.
const TOO_MUCH: &str = "max_output";

impl Exchange {
    /// Why a candidate is skipped while another one could be tried: the feature that it lacks, its longest answer, or its context.
    pub(super) fn misfit(&self, candidate: CandidateId) -> Option<&'static str> {
        let why = self.expected_refusal(candidate)?;
        // If no candidate fits, they are tried all the same: the configuration may be outdated, and the provider's own error says more.
        let serves =
            |other: CandidateId| self.candidates.is_suitable(other) && self.expected_refusal(other).is_none();
        self.candidates.ids().any(serves).then_some(why)
    }

    /// Notes which candidates before this one are skipped because the conversation does not fit them.
    pub(super) fn skip_misfits_before(&mut self, candidate: CandidateId) {
        for id in self.candidates.before(candidate) {
            if let Some(why) = self.misfit(id) {
                self.candidates.skip(id, why);
            }
        }
    }

    /// Why a candidate would refuse this conversation.
    fn expected_refusal(&self, candidate: CandidateId) -> Option<&'static str> {
        let found = self.candidates.get(candidate)?;
        self.refuses(found.provider, &found.model)
    }

    /// Why a model of a provider would refuse this conversation.
    pub(super) fn refuses(&self, provider: ProviderId, model: &Resolved) -> Option<&'static str> {
        if !model.lacks.is_empty() {
            if let Some(lacking) = self.body.said.input.features().first_in(model.lacks) {
                return Some(lacking.name());
            }
        }
        if model.max_output.is_some() && self.allows_too_much(provider, model) {
            return Some(TOO_MUCH);
        }
        model.context.filter(|context| !self.fits(*context, model)).map(|_| TOO_LONG)
    }

    /// Whether the request and its answer fit into a context of this many tokens. In doubt they do, because the provider knows better.
    fn fits(&self, context: u64, model: &Resolved) -> bool {
        // A provider counts the longest answer that the request allows, not the answer that it gives.
        let output = self.body.said.max_output.unwrap_or(0) / self.body.said.choices.max(1);
        let output = self.longest_answer(model).lowered(output).unwrap_or(output);
        let room = context.saturating_sub(output);
        // No text has more tokens than bytes. So most requests, which are far from the limit, need not be counted.
        (self.body.said.len as u64) < room
            || self.body.said.input.is_batch()
            || certain_part(self.body.said.input.tokens()) <= room
    }
}

/// The part of an estimate of tokens that is certain. The estimator's tests allow it to be wrong by 15 percent.
const fn certain_part(tokens: u64) -> u64 {
    tokens.saturating_mul(85) / 100
}
