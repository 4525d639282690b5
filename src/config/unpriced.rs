//! Warns of models without a price where money decides: such a model adds nothing to a budget, and has no place in an order by cost.

use super::{Config, ModelPattern, Route};
use crate::routing::policy::cost::Caps;
use crate::routing::policy::Kind;
use crate::routing::provider::{Model, Provider, ProviderId};

/// How many models a warning names.
const MOST_NAMED: usize = 8;

/// One sentence about each budget, and about each route that orders or limits by price, that meets a model without a price.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for budget in &config.budgets {
        let mut models = Models::default();
        for route in &config.routes {
            models.add(config, route, &route.providers, &|provider, model| {
                budget.scope.may_cover(&route.name, provider, model)
            });
        }
        models.warn(&["budget \"", &budget.name, "\" does not count what these models cost"], &mut found);
    }
    for route in &config.routes {
        let name = ["route \"", &route.name, "\""].concat();
        let mut models = Models::default();
        models.add(config, route, &route.providers, &|_, _| true);
        if route.policy.cost != Caps::default() {
            models.warn(&[&name, " skips these models where it orders by cost (\"max_price\")"], &mut found);
        } else if route.policy.may_be(Kind::Cost) {
            models.warn(&[&name, " puts these models last where it orders by cost"], &mut found);
        }
        if let Some(shadow) = &route.shadow {
            let mut models = Models::default();
            models.add(config, route, &[shadow.provider], &|_, _| true);
            models.warn(
                &["the limit of the shadow of ", &name, " does not count what these models cost"],
                &mut found,
            );
        }
    }
    found
}

/// Models without a price, each with its provider.
#[derive(Default)]
struct Models(Vec<String>);

impl Models {
    /// Adds the models of these providers that the route may use, and that meet a condition on the provider's and the model's name.
    fn add(
        &mut self,
        config: &Config,
        route: &Route,
        providers: &[ProviderId],
        is_meant: &dyn Fn(&str, &str) -> bool,
    ) {
        for provider in providers.iter().filter_map(|id| config.provider(*id)) {
            for model in unpriced(provider, &route.model) {
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
        let mut text = [&what.concat(), ", because they have no price: ", &named.join(", ")].concat();
        let rest = self.0.len().saturating_sub(named.len());
        if rest > 0 {
            text.extend([" and ", &rest.to_string(), " more"]);
        }
        found.push(text);
    }
}

/// The provider's models without a price that serve names that the pattern matches. `*` stands for every name that a client may send.
fn unpriced(provider: &Provider, pattern: &ModelPattern) -> Vec<String> {
    if let ModelPattern::Exactly(name) = pattern {
        let model = provider.resolve(name).filter(|model| model.price.is_none());
        return model.into_iter().map(|model| model.name).collect();
    }
    let serves =
        |model: &Model| model.alias == "*" || pattern.matches(&model.alias) || pattern.matches(&model.name);
    let has_price = |model: &Model| {
        // A price list is no proof for names that are not known yet, but whoever has one has thought of them.
        let listed = |model: &Model| match model.name.as_str() {
            "*" => !provider.prices.is_empty(),
            name => provider.prices.iter().any(|list| list.find(name).is_some()),
        };
        model.price.is_some() || listed(model)
    };
    let models = provider.models.iter().filter(|model| serves(model) && !has_price(model));
    models.map(|model| model.name.clone()).collect()
}
