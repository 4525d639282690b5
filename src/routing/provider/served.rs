//! What an answer cost by what its provider told of it: the price of the model that served it, which may be another one than was asked.

use super::{Model, Provider, Resolved, ANY};
use crate::base::clock::Timestamp;
use crate::bytes::ascii;
use crate::routing::rewrite::MODEL_IN_PATH;
use crate::spend::cost::{Cost, Part};
use crate::spend::usage::{Served, Usage};

impl Provider {
    /// What an answer to a request that began at `at` cost; `None` if no price is known. Of these prices the first that is known counts:
    ///
    /// 1. that of the model that served, under the name that the provider told;
    /// 2. that of the model that was asked, if the name told is another spelling of it, or if names of models are those of the
    ///    operator's own deployments;
    /// 3. that of the model that served, under its name without the vendor or the date, and that of all models;
    /// 4. that of the model that was asked. This one is not the right one, so the model is a part of the cost that has no price.
    pub fn cost(&self, asked: &Resolved, usage: &Usage, served: &Served, at: Timestamp) -> Option<Cost> {
        let tier = served.tier.as_deref();
        let of_asked = || asked.price.as_ref()?.cost(usage, tier, at);
        let Some(model) = served.model.as_deref().filter(|name| !name.is_empty() && *name != asked.name)
        else {
            return of_asked();
        };
        let of = |name: &str| {
            let is_meant =
                |model: &&Model| (if model.name == ANY { &model.alias } else { &model.name }) == name;
            let own = self.models.iter().filter(is_meant).find_map(|model| model.price.clone());
            own.or_else(|| self.listed(name))?.cost(usage, tier, at)
        };
        let expected = || {
            let is_same = ascii::is_same(plain(model), plain(&asked.name));
            let is_expected = is_same || self.has_deployments();
            is_expected.then(of_asked).flatten()
        };
        let similar = || [undated(model), unprefixed(model), plain(model), ANY].into_iter().find_map(of);
        let wrong = || {
            let mut cost = of_asked()?;
            cost.unpriced.add_if(true, Part::Model);
            Some(cost)
        };
        of(model).or_else(expected).or_else(similar).or_else(wrong)
    }

    /// Whether requests go to deployments that the operator has named, as at Azure: their names stand in the path.
    fn has_deployments(&self) -> bool {
        self.dialect.paths.iter().any(|(_, path)| path.contains(MODEL_IN_PATH))
    }
}

/// The name of a model without what vendors put around it.
fn plain(name: &str) -> &str {
    undated(unversioned(unprefixed(name)))
}

/// The name without the vendor and the region before it: `openai/gpt-5`, `models/gemini-3-pro`, `us.anthropic.claude-sonnet-4`. A dot
/// after a number is part of a name: `gpt-5.4`.
fn unprefixed(name: &str) -> &str {
    let mut name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    while let Some((before, rest)) = name.split_once('.') {
        if before.bytes().any(|byte| !byte.is_ascii_alphabetic()) {
            break;
        }
        name = rest;
    }
    name
}

/// The name without its variant or version: `llama-3.3-70b:free`, `claude-sonnet-4-20250514-v1:0`.
fn unversioned(name: &str) -> &str {
    let Some((name, _)) = name.split_once(':') else { return name };
    match name.rsplit_once("-v") {
        Some((rest, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => name,
    }
}

/// The name without the date or the number of its release: `gpt-5-2026-01-01`, `grok-4-0709`, `gemini-2.0-flash-001`,
/// `claude-sonnet-4@20250514`, `claude-sonnet-4-0`, `mistral-large-latest`. Another short number is part of a name: `claude-sonnet-4-5`.
fn undated(name: &str) -> &str {
    let number = |name| split(name).filter(|(_, last)| last.bytes().all(|byte| byte.is_ascii_digit()));
    let of_length = |name, length| number(name).filter(|(_, last)| last.len() == length);
    let date = match split(name) {
        Some((rest, "latest" | "0")) => Some(rest),
        Some((rest, last)) if number(name).is_some() => match last.len() {
            // A month and a day, perhaps after a year.
            2 => of_length(rest, 2).map(|(rest, _)| of_length(rest, 4).map_or(rest, |(rest, _)| rest)),
            // A year after a month, or a number.
            4 => Some(of_length(rest, 2).map_or(rest, |(rest, _)| rest)),
            0 | 1 => None,
            _ => Some(rest),
        },
        _ => None,
    };
    date.filter(|rest| !rest.is_empty()).unwrap_or(name)
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(['-', '@'])
}

#[cfg(test)]
mod tests;
