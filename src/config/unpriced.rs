//! Warns of models without a price where money decides: such a model adds nothing to a budget, and has no place in an order by cost. Also
//! of models whose price has no factor for the service tier that their provider's dialect asks for.

use super::{Config, ModelPattern, Route};
use crate::routing::policy::cost::Caps;
use crate::routing::policy::Kind;
use crate::routing::provider::{Model, Provider, ProviderId};
use crate::spend::cost::Price;

const NO_PRICE: &str = ", because they have no price: ";
const NO_FACTOR: &str = ", because it has no factor for the service tier that their dialect sets: ";

/// How many models a warning names.
const MOST_NAMED: usize = 8;

/// One sentence about each budget, and about each route that orders or limits by price, that meets a model without a price.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for budget in &config.budgets {
        let (mut models, mut tierless) = (Models::default(), Models::default());
        for route in &config.routes {
            let is_meant = |provider: &str, model: &str| budget.scope.may_cover(&route.name, provider, model);
            models.add(config, route, &route.providers, &is_meant, unpriced);
            tierless.add(config, route, &route.providers, &is_meant, without_factor);
        }
        let name = ["budget \"", &budget.name, "\""].concat();
        models.warn(&[&name, " does not count what these models cost", NO_PRICE], &mut found);
        tierless.warn(&[&name, " counts the usual price of these models", NO_FACTOR], &mut found);
    }
    for route in &config.routes {
        let name = ["route \"", &route.name, "\""].concat();
        let mut models = Models::default();
        models.add(config, route, &route.providers, &|_, _| true, unpriced);
        if route.policy.cost != Caps::default() {
            let what = " skips these models where it orders by cost (\"max_price\")";
            models.warn(&[&name, what, NO_PRICE], &mut found);
        } else if route.policy.may_be(Kind::Cost) {
            models.warn(&[&name, " puts these models last where it orders by cost", NO_PRICE], &mut found);
        }
        if let Some(shadow) = &route.shadow {
            let mut models = Models::default();
            models.add(config, route, &[shadow.provider], &|_, _| true, unpriced);
            let what = " does not count what these models cost";
            models.warn(&["the limit of the shadow of ", &name, what, NO_PRICE], &mut found);
        }
    }
    found
}

/// Models that a warning names, each with its provider.
#[derive(Default)]
struct Models(Vec<String>);

impl Models {
    /// Adds the models of these providers that the route may use, that are `of` the kind that is warned of, and that meet a condition on
    /// the provider's and the model's name.
    fn add(
        &mut self,
        config: &Config,
        route: &Route,
        providers: &[ProviderId],
        is_meant: &dyn Fn(&str, &str) -> bool,
        of: fn(&Provider, &ModelPattern) -> Vec<String>,
    ) {
        for provider in providers.iter().filter_map(|id| config.provider(*id)) {
            for model in of(provider, &route.model) {
                let name = [&provider.name, "/", &model].concat();
                if is_meant(&provider.name, &model) && !self.0.contains(&name) {
                    self.0.push(name);
                }
            }
        }
    }

    fn warn(&self, what: &[&str], found: &mut Vec<String>) {
        if self.0.is_empty() {
            return;
        }
        let named: Vec<&str> = self.0.iter().take(MOST_NAMED).map(String::as_str).collect();
        let mut text = [&what.concat(), named.join(", ").as_str()].concat();
        let rest = self.0.len().saturating_sub(named.len());
        if rest > 0 {
            text.extend([" and ", &rest.to_string(), " more"]);
        }
        found.push(text);
    }
}

/// The provider's models without a price that serve names that the pattern matches. `*` stands for every name that a client may send.
fn unpriced(provider: &Provider, pattern: &ModelPattern) -> Vec<String> {
    models(provider, pattern, &|price| price.is_none())
}

/// The provider's models that serve names that the pattern matches, and whose price has no factor for the service tier that the dialect
/// sets, if it sets one.
fn without_factor(provider: &Provider, pattern: &ModelPattern) -> Vec<String> {
    let tier = provider.dialect.set.iter().find(|(name, _)| name == "service_tier");
    // The value is kept as JSON.
    let Some(tier) = tier.and_then(|(_, value)| value.strip_prefix('"')?.strip_suffix('"')) else {
        return Vec::new();
    };
    models(provider, pattern, &|price| price.is_some_and(|price| !price.has_tier(tier)))
}

/// The provider's models that serve names that the pattern matches, and whose price meets a condition.
fn models(
    provider: &Provider,
    pattern: &ModelPattern,
    is_meant: &dyn Fn(Option<&Price>) -> bool,
) -> Vec<String> {
    if let ModelPattern::Exactly(name) = pattern {
        let model = provider.resolve(name).filter(|model| is_meant(model.price.as_deref()));
        return model.into_iter().map(|model| model.name).collect();
    }
    let is_meant = |model: &&Model| {
        let serves = model.alias == "*" || pattern.matches(&model.alias) || pattern.matches(&model.name);
        // A price list is no proof for names that are not known yet, but whoever has one has thought of them.
        let is_open = model.name == "*" && model.price.is_none() && !provider.prices.is_empty();
        let price = model.price.clone().or_else(|| provider.listed(&model.name));
        serves && !is_open && is_meant(price.as_deref())
    };
    provider.models.iter().filter(is_meant).map(|model| model.name.clone()).collect()
}
