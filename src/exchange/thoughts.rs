//! The reasoning items of a Responses request, which only the account that made them can read: who made each, and that nobody else is
//! sent it. Chat completions have their thoughts in the open; there the [dialect](crate::dialects::history) says who takes them.
//!
//! An item whose maker is not known, because the gateway was restarted or the conversation began elsewhere, goes to the first candidate
//! of the request's order alone.

use super::candidates::Candidates;
use super::Exchange;
use crate::base::store::fingerprint;
use crate::bytes::splice::Splices;
use crate::client_api::request::Endpoint;
use crate::config::Config;
use crate::dialects::items::PrivateItems;
use crate::routing::provider::{Provider, ProviderId};
use crate::selection::plan::Env;
use crate::selection::stored;

/// The reasoning items of a request, and who made each; `None` if that is none of the providers.
#[derive(Debug, Default)]
pub(super) struct Thoughts {
    items: PrivateItems,
    makers: Vec<Option<ProviderId>>,
}

/// Stands for the first provider of the configuration; the next letter for the next one.
const FIRST_MAKER: u8 = b'0';

/// Stands for a maker that is none of the providers.
const NOBODY: u8 = b'-';

/// The most makers that are looked up, and told to an attempt: a header is not long.
const MOST_TOLD: usize = 2048;

impl Exchange {
    /// Finds out who made the reasoning items of the request, after its candidates were put into their order.
    pub(super) fn find_makers(&mut self, env: &mut Env<'_>) {
        self.read_thoughts();
        if self.body.thoughts.items.is_empty() {
            return;
        }
        // Each is a look into shared data.
        let looked_up = self.body.thoughts.items.marks().take(MOST_TOLD);
        let mut keepers: Vec<Option<u64>> = looked_up.map(|mark| stored::keeper(mark, env.store)).collect();
        keepers.resize(self.body.thoughts.items.marks().count(), None);
        let first = self.first_maker();
        let mut rest = keepers.as_slice();
        while let Some(place) = keepers.len().checked_sub(rest.len()).filter(|_| !rest.is_empty()) {
            // All items of one answer have one maker; of an answer with many, only the last ones are remembered.
            let len = self.body.thoughts.items.same_answer(place).len().clamp(1, rest.len());
            let (answer, later) = rest.split_at(len);
            let by_another = answer.iter().copied().flatten().next();
            for keeper in answer {
                let maker = keeper.or(by_another).map_or(first, |keeper| self.provider_with(keeper));
                self.body.thoughts.makers.push(maker);
            }
            rest = later;
        }
    }

    /// The provider whose name has this fingerprint.
    fn provider_with(&self, keeper: u64) -> Option<ProviderId> {
        let is_it = |provider: &Provider| fingerprint([&*provider.name]) == keeper;
        self.config.providers.iter().position(is_it).map(ProviderId)
    }

    /// Takes over what the router has found out: the [told](Self::told_makers) makers.
    pub(super) fn take_makers(&mut self, told: Option<&str>) {
        self.read_thoughts();
        let items = self.body.thoughts.items.marks().count();
        let unknown = if told.is_some() { None } else { self.first_maker() };
        let maker = |letter: u8| letter.checked_sub(FIRST_MAKER).map(|number| ProviderId(number.into()));
        self.body.thoughts.makers = told.unwrap_or_default().bytes().take(items).map(maker).collect();
        self.body.thoughts.makers.resize(items, unknown);
    }

    /// The makers of the reasoning items, for an attempt that reads the request anew: one letter for each, which counts the providers
    /// of the configuration. `None` if the request has no such items.
    pub fn told_makers(&self) -> Option<String> {
        let letter = |maker: &Option<ProviderId>| {
            let number = maker.and_then(|ProviderId(number)| u8::try_from(number).ok());
            number
                .and_then(|number| number.checked_add(FIRST_MAKER))
                .filter(u8::is_ascii_graphic)
                .unwrap_or(NOBODY)
        };
        let told = self.body.thoughts.makers.iter().take(MOST_TOLD).map(letter).map(char::from);
        (!self.body.thoughts.makers.is_empty()).then(|| told.collect())
    }

    /// Adds the removal of the reasoning items that a provider cannot read.
    pub(super) fn hide_thoughts(&self, provider: &Provider, splices: &mut Splices) {
        let config: &Config = &self.config;
        let reads = |maker: &Option<ProviderId>| {
            maker.and_then(|maker| config.provider(maker)).is_some_and(|maker| maker.shares_account(provider))
        };
        self.body.thoughts.items.splices(self.body.thoughts.makers.iter().map(reads), splices);
    }

    /// Reads the reasoning items, if the text of the body is still there.
    pub(super) fn read_thoughts(&mut self) {
        let input = &self.body.said.input;
        if self.request.endpoint == Endpoint::Responses && !input.text().is_empty() {
            self.body.thoughts.items = PrivateItems::read(input.text(), input.start());
        }
    }

    /// Who is taken for the maker of an item whose maker is not known. The provider of a shadow request has hardly made it.
    fn first_maker(&self) -> Option<ProviderId> {
        let first = self.candidates.get(Candidates::FIRST).map(|candidate| candidate.provider);
        first.filter(|_| !self.config.is_shadow)
    }
}
