//! The candidates of one request in the order in which they are tried. One that is skipped has the reason beside it.

use super::Exchange;
use crate::dialects::dialect::Wire;
use crate::health::outcome::Outcome;
use crate::routing::policy::Ranked;
use crate::routing::provider::{Provider, ProviderId};
use crate::selection::plan::Candidate;

/// The place of a candidate in the order. The order is settled before the first attempt, so that it names the same candidate from
/// then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CandidateId(usize);

/// Whether a candidate takes more than those for which the request was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It is not larger than one of them.
    None,
    /// Its context is known, and not known to be too small.
    Larger,
    /// Its context is unknown.
    Unknown,
}

/// The ordered candidates of one request.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    all: Vec<Entry>,
    /// The request was too long for a candidate.
    is_too_long: bool,
    /// The largest known context, in tokens, for which it was too long.
    too_small: Option<u64>,
    /// A candidate was skipped because its breaker is open, it is on hold, or a budget is spent.
    was_passed_over: bool,
    /// How many exclusions were noted.
    exclusions: u32,
}

#[derive(Debug)]
struct Entry {
    candidate: Candidate,
    exclusion: Option<Exclusion>,
}

/// Why a candidate is skipped, and how many exclusions were noted before this one.
#[derive(Clone, Debug)]
struct Exclusion {
    why: Why,
    turn: u32,
}

#[derive(Clone, Debug)]
enum Why {
    /// Another one was chosen in its place: its breaker is open, for example. It may still be tried later.
    Skipped(&'static str),
    /// Its API cannot express the request, for this reason. It is never tried.
    Unsuitable(String),
}

/// The reason that the client reads for a candidate whose API cannot express the request.
const UNSUPPORTED: &str = "unsupported";

impl Candidates {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let all = candidates.into_iter().map(|candidate| Entry { candidate, exclusion: None }).collect();
        Self { all, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All candidates in their order.
    pub(super) fn ids(&self) -> impl Iterator<Item = CandidateId> {
        (0..self.all.len()).map(CandidateId)
    }

    /// The candidates before this one.
    pub(super) fn before(&self, id: CandidateId) -> impl Iterator<Item = CandidateId> {
        (0..id.0).map(CandidateId)
    }

    pub(super) fn first(&self) -> Option<&Candidate> {
        self.all.first().map(|entry| &entry.candidate)
    }

    /// The first place, whether or not there is a candidate.
    pub(super) const FIRST: CandidateId = CandidateId(0);

    pub(super) fn get(&self, id: CandidateId) -> Option<&Candidate> {
        self.all.get(id.0).map(|entry| &entry.candidate)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (CandidateId, &Candidate)> {
        self.all.iter().enumerate().map(|(place, entry)| (CandidateId(place), &entry.candidate))
    }

    /// The provider's name for the model of a candidate; empty for one that does not exist.
    pub(super) fn model(&self, id: CandidateId) -> &str {
        self.get(id).map_or("", |candidate| &candidate.model.name)
    }

    /// How many tokens a candidate takes, if that is known.
    pub(super) fn context(&self, id: CandidateId) -> Option<u64> {
        self.get(id)?.model.context
    }

    // Their order

    /// Puts the candidates into this order, and drops those that are not in it.
    pub(super) fn arrange(&mut self, order: impl Iterator<Item = CandidateId>) {
        let mut before: Vec<Option<Entry>> = std::mem::take(&mut self.all).into_iter().map(Some).collect();
        self.all = order.filter_map(|id| before.get_mut(id.0)?.take()).collect();
    }

    /// Puts the candidates into the order of a policy. Returns its reason for each of them.
    pub(super) fn rank(&mut self, ranked: Vec<Ranked>) -> Vec<(ProviderId, String)> {
        let reason =
            |ranked: &Ranked| Some((self.all.get(ranked.place)?.candidate.provider, ranked.why.clone()));
        let why = ranked.iter().filter_map(reason).collect();
        self.arrange(ranked.into_iter().map(|ranked| CandidateId(ranked.place)));
        why
    }

    // Which are skipped

    /// Notes that a candidate behind this one was chosen, and why. The first reason stays.
    pub(super) fn skip(&mut self, id: CandidateId, why: &'static str) {
        self.exclude(id, Why::Skipped(why));
    }

    /// The same for one whose breaker is open, that is on hold, or whose budget is spent: it may have served the conversation before.
    pub(super) fn pass_over(&mut self, id: CandidateId, why: &'static str) {
        self.was_passed_over = true;
        self.skip(id, why);
    }

    /// Whether a candidate was skipped that may have served the conversation before.
    pub(super) const fn was_passed_over(&self) -> bool {
        self.was_passed_over
    }

    /// Notes that a candidate is never tried, because its API cannot express the request.
    pub(super) fn rule_out(&mut self, id: CandidateId, why: String) {
        self.exclude(id, Why::Unsuitable(why));
    }

    fn exclude(&mut self, id: CandidateId, why: Why) {
        let turn = self.exclusions;
        let Some(entry) = self.all.get_mut(id.0) else { return };
        let stays = match (&entry.exclusion, &why) {
            (None, _) => false,
            // A candidate that can never serve the request is not described as one that is only skipped for now.
            (Some(Exclusion { why: Why::Skipped(_), .. }), Why::Unsuitable(_)) => false,
            (Some(_), _) => true,
        };
        if !stays {
            entry.exclusion = Some(Exclusion { why, turn });
            self.exclusions += 1;
        }
    }

    /// Whether a candidate's API can express the request, as far as that was tried.
    pub(super) fn is_suitable(&self, id: CandidateId) -> bool {
        !matches!(self.exclusion(id), Some(Exclusion { why: Why::Unsuitable(_), .. }))
    }

    /// Why the request cannot be expressed, for the first candidate that was ruled out for that.
    pub(super) fn first_unsuitable(&self) -> Option<&str> {
        let found = self.all.iter().filter_map(|entry| entry.exclusion.as_ref());
        let found = found.filter_map(|exclusion| match &exclusion.why {
            Why::Unsuitable(why) => Some((exclusion.turn, why.as_str())),
            Why::Skipped(_) => None,
        });
        found.min().map(|(_, why)| why)
    }

    /// The candidates that were skipped and not `tried` later, each with the reason, in the order in which they were skipped. Those
    /// whose API cannot express the request come last.
    pub(super) fn left_out(&self, tried: impl Fn(CandidateId) -> bool) -> Vec<(CandidateId, &'static str)> {
        let mut found: Vec<(bool, u32, CandidateId, &'static str)> = Vec::new();
        for id in self.ids().filter(|id| !tried(*id)) {
            let Some(Exclusion { why, turn }) = self.exclusion(id) else { continue };
            let (is_last, why) = match why {
                Why::Skipped(why) => (false, *why),
                Why::Unsuitable(_) => (true, UNSUPPORTED),
            };
            let at = found.partition_point(|(last, before, ..)| (*last, *before) < (is_last, *turn));
            found.insert(at, (is_last, *turn, id, why));
        }
        found.into_iter().map(|(.., id, why)| (id, why)).collect()
    }

    fn exclusion(&self, id: CandidateId) -> Option<&Exclusion> {
        self.all.get(id.0)?.exclusion.as_ref()
    }

    // How long the request is

    /// Notes the outcome of an attempt: the request may have been [too long](Outcome::TooLong) for the candidate.
    pub(super) fn note_outcome(&mut self, id: CandidateId, outcome: Outcome) {
        if outcome == Outcome::TooLong {
            self.is_too_long = true;
            self.too_small = self.too_small.max(self.context(id));
        }
    }

    /// Whether the request was too long for a candidate.
    pub(super) const fn is_too_long(&self) -> bool {
        self.is_too_long
    }

    /// Whether a candidate may take more than those for which the request was too long.
    pub(super) fn room(&self, id: CandidateId) -> Room {
        match (self.context(id), self.too_small) {
            (None, _) => Room::Unknown,
            (Some(context), Some(too_small)) if context <= too_small => Room::None,
            // Where the contexts of those are unknown, a known one may be larger.
            (Some(_), _) => Room::Larger,
        }
    }
}

/// What is known of the candidates of an exchange.
impl Exchange {
    // Dozens of places ask for it; inlined, the copies are 10 KB.
    #[inline(never)]
    pub(super) fn provider_of(&self, candidate: CandidateId) -> Option<&Provider> {
        self.config.provider(self.candidates.get(candidate)?.provider)
    }

    pub(super) fn wire_of(&self, candidate: CandidateId) -> Wire {
        self.provider_of(candidate).map_or(Wire::OpenAi, |provider| provider.dialect.wire)
    }

    pub(super) fn name_of(&self, candidate: CandidateId) -> &str {
        self.provider_of(candidate).map_or("?", |provider| &provider.name)
    }

    /// The candidate of this name, if there is one.
    pub(super) fn candidate_named(&self, name: &str) -> Option<CandidateId> {
        self.candidates.ids().find(|id| self.name_of(*id) == name)
    }
}
