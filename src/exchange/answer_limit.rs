//! The limit of an answer where a model's longest one is configured (`max_output`): who would refuse the limit that the request names,
//! and what it is lowered to if the route says so.

use super::candidates::CandidateId;
use super::Exchange;
use crate::client_api::request::{AnswerLimit, LongestAnswer};
use crate::routing::provider::{ProviderId, Resolved};

impl Exchange {
    /// The longest answer of a model.
    pub(super) const fn longest_answer(&self, model: &Resolved) -> LongestAnswer {
        LongestAnswer { tokens: model.max_output, is_clamped: self.request.limits.clamps_output }
    }

    /// The same for the model of a candidate.
    pub(super) fn longest_of(&self, candidate: CandidateId) -> LongestAnswer {
        self.candidates
            .get(candidate)
            .map_or_else(LongestAnswer::default, |found| self.longest_answer(&found.model))
    }

    /// Whether the request allows a longer answer than the model of a provider gives, so that it would be refused.
    pub(super) fn allows_too_much(&self, provider: ProviderId, model: &Resolved) -> bool {
        let longest = self.longest_answer(model);
        self.limits_at(provider).any(|limit| longest.refuses(limit.tokens))
    }

    /// What was changed in a request for the candidate that got it: `max_tokens=8192`.
    pub(super) fn adapted(&self, candidate: CandidateId) -> Option<String> {
        let longest = self.longest_of(candidate);
        let provider = self.candidates.get(candidate)?.provider;
        let mut all = String::new();
        for limit in self.limits_at(provider) {
            if let Some(tokens) = longest.lowered(limit.tokens) {
                let comma = if all.is_empty() { "" } else { "," };
                all.extend([comma, limit.name, "=", &tokens.to_string()]);
            }
        }
        (!all.is_empty()).then_some(all)
    }

    /// The limits that the request names and that a provider receives as they are.
    fn limits_at(&self, provider: ProviderId) -> impl Iterator<Item = &AnswerLimit> {
        let dialect = self.config.provider(provider).map(|provider| &provider.dialect);
        let is_sent = move |limit: &&AnswerLimit| dialect.is_none_or(|dialect| dialect.sends(limit.name));
        self.body.said.limits.iter().filter(is_sent)
    }
}
