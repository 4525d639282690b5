//! Warns of parts of a valid configuration that can never take effect. They do no harm, but whoever wrote them expects an effect.

use super::{Config, ModelPattern, Route};
use crate::routing::provider::{Model, Provider, ProviderId};

/// One sentence about each part that is never used.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for (place, route) in config.routes.iter().enumerate() {
        if let Some(first) = config.routes.iter().take(place).find(|first| takes_all_of(first, route)) {
            found.push(format!(
                "route {:?} is never chosen: route {:?} before it takes all of its requests",
                route.name, first.name
            ));
            continue;
        }
        for provider in route.providers.iter().filter_map(|id| config.provider(*id)) {
            if !offers_any(provider, &route.model) {
                found.push(format!(
                    "provider {:?} is never used by route {:?}: it has no model that the route is for",
                    provider.name, route.name
                ));
            }
        }
    }
    for route in config.routes.iter().filter(|route| route.limits.clamps_output) {
        let has_longest =
            |provider: &Provider| provider.models.iter().any(|model| model.max_output.is_some());
        if !route.providers.iter().filter_map(|id| config.provider(*id)).any(has_longest) {
            let why = "\" lowers no limit: no model of its providers has a \"max_output\"";
            found.push(["route \"", &route.name, why].concat());
        }
    }
    for (place, provider) in config.providers.iter().enumerate() {
        if !is_named(config, ProviderId(place)) {
            found.push(format!("provider {:?} is never used: no route names it", provider.name));
        }
    }
    found
}

fn takes_all_of(first: &Route, route: &Route) -> bool {
    first.path == route.path
        && match (&first.model, &route.model) {
            (first, ModelPattern::Exactly(name)) => first.matches(name),
            (ModelPattern::StartsWith(short), ModelPattern::StartsWith(long)) => {
                long.starts_with(short.as_str())
            }
            (ModelPattern::Exactly(_), ModelPattern::StartsWith(_)) => false,
        }
}

/// Whether the provider has a model for some name that the pattern matches: by its alias, by the vendor's own name, or through `*`.
fn offers_any(provider: &Provider, pattern: &ModelPattern) -> bool {
    let offers =
        |model: &Model| model.alias == "*" || pattern.matches(&model.alias) || pattern.matches(&model.name);
    provider.models.iter().any(offers)
}

fn is_named(config: &Config, id: ProviderId) -> bool {
    let by = |route: &Route| {
        route.providers.contains(&id) || route.shadow.as_ref().is_some_and(|shadow| shadow.provider == id)
    };
    config.routes.iter().any(by) || config.passthrough.iter().any(|entry| entry.provider == id)
}
