//! The reasoning items of a Responses request, which only the account that made them can read: who made each, and that nobody else is
//! sent it. Chat completions have their thoughts in the open; there the [dialect](crate::dialects::history) says who takes them.
//!
//! An item whose maker is not known, because the gateway was restarted or the conversation began elsewhere, goes to the first candidate
//! of the request's order alone.

use super::candidates::Candidates;
use super::Exchange;
use crate::base::store::fingerprint;
use crate::bytes::ascii;
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

/// Stands for a maker that is none of the providers.
const NOBODY: &str = "-";

/// The most makers in a row that are told to an attempt.
const MOST_TOLD: usize = 64;

impl Exchange {
    /// Finds out who made the reasoning items of the request, after its candidates were put into their order.
    pub(super) fn find_makers(&mut self, env: &mut Env<'_>) {
        self.read_thoughts();
        let first = self.first_maker();
        let names: Vec<u64> =
            self.config.providers.iter().map(|provider| fingerprint([&*provider.name])).collect();
        let mut maker = |mark| match stored::keeper(mark, env.store) {
            Some(keeper) => names.iter().position(|name| *name == keeper).map(ProviderId),
            None => first,
        };
        self.thoughts.makers = self.thoughts.items.marks().map(&mut maker).collect();
    }

    /// Takes over what the router has found out: the [told](Self::told_makers) makers.
    pub(super) fn take_makers(&mut self, told: Option<&str>) {
        self.read_thoughts();
        let first = self.first_maker();
        let provider = |name: &str| self.config.providers.iter().position(|provider| provider.name == name);
        let runs = told.into_iter().flat_map(|told| told.split(',')).filter_map(|run| run.split_once('*'));
        let told_makers = runs.flat_map(|(name, count)| {
            let count =
                ascii::whole::<usize>(count).unwrap_or_default().min(self.thoughts.items.marks().count());
            std::iter::repeat_n(provider(name).map(ProviderId), count)
        });
        let unknown = if told.is_some() { None } else { first };
        let makers = told_makers.chain(std::iter::repeat(unknown));
        self.thoughts.makers = self.thoughts.items.marks().zip(makers).map(|(_, maker)| maker).collect();
    }

    /// The makers of the reasoning items, for an attempt that reads the request anew: names, each with how many items in a row it
    /// made. `None` if the request has no such items.
    pub fn told_makers(&self) -> Option<String> {
        let mut told = Vec::new();
        let mut runs = self.thoughts.makers.chunk_by(PartialEq::eq);
        for run in runs.by_ref().take(MOST_TOLD) {
            let maker = run.first().copied().flatten().and_then(|maker| self.config.provider(maker));
            told.push([maker.map_or(NOBODY, |maker| &maker.name), "*", &run.len().to_string()].concat());
        }
        (!told.is_empty()).then(|| told.join(","))
    }

    /// Adds the removal of the reasoning items that a provider cannot read.
    pub(super) fn hide_thoughts(&self, provider: &Provider, splices: &mut Splices) {
        let config: &Config = &self.config;
        let reads = |maker: &Option<ProviderId>| {
            maker.and_then(|maker| config.provider(maker)).is_some_and(|maker| maker.shares_account(provider))
        };
        self.thoughts.items.splices(self.thoughts.makers.iter().map(reads), splices);
    }

    /// Reads the reasoning items, if the text of the body is still there.
    pub(super) fn read_thoughts(&mut self) {
        let input = &self.body.said.input;
        if self.request.endpoint == Endpoint::Responses && !input.text().is_empty() {
            self.thoughts.items = PrivateItems::read(input.text(), input.start());
        }
    }

    /// Who is taken for the maker of an item whose maker is not known. The provider of a shadow request has hardly made it.
    fn first_maker(&self) -> Option<ProviderId> {
        let first = self.candidates.get(Candidates::FIRST).map(|candidate| candidate.provider);
        first.filter(|_| !self.config.is_shadow)
    }
}
