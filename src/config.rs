//! The configuration: valid by construction. A [`Config`] that exists can be used without another check.
//!
//! [`Config::parse`] reads the JSON document that both gateways share, with the environment as an argument, and reports
//! every problem at once. `docs/configuration.md` describes each key for the user; the defaults are the constants in `config/read.rs`.

mod budgets;
mod dialects;
mod error;
mod evaluations;
mod names;
mod policies;
mod prices;
mod providers;
mod raw;
mod read;
mod shadows;
mod unused;

use std::rc::Rc;
use std::time::Duration;

use crate::client_api::request::Endpoint;
use crate::health::breaker::{HoldPolicy, Policy as BreakerPolicy};
use crate::routing::policy::Policy;
use crate::routing::provider::Score;
use crate::routing::provider::{ApiKey, Provider, ProviderId};
use crate::spend::budget::Budget;
use error::Problem;
pub use error::Problems;
use raw::{Json, Node, Sink};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The providers that have a key.
    pub providers: Vec<Provider>,
    /// The routes, the first that matches serves.
    pub routes: Vec<Route>,
    /// Paths that go to one provider as they are.
    pub passthrough: Vec<Passthrough>,
    /// The parameters of requests that some provider's dialect changes.
    pub parameters: Vec<String>,
    /// How the tenant of a request is known.
    pub tenant: Option<Tenant>,
    /// What may be spent; names are unique.
    pub budgets: Vec<Budget>,
    /// How scores of models are replaced while the gateway runs.
    pub evaluations: Option<Evaluations>,
    /// Providers get the W3C trace context.
    pub trace_context: bool,
    /// How long one attempt may take where no route says otherwise.
    pub limits: Limits,
    /// Bounds of sizes.
    pub sizes: Sizes,
    /// The breaker of every provider.
    pub breaker: BreakerPolicy,
    /// The holds of every provider.
    pub holds: HoldPolicy,
    /// What one request may try.
    pub retry: Retry,
    /// It is for copies of requests ([`Config::for_shadow`]).
    pub is_shadow: bool,
    /// Where the inner routes listen, host and port; only on APISIX.
    pub inner: String,
    /// What the operator should know although it is no error.
    pub warnings: Vec<String>,
}

/// Which requests go to which providers.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in logs, errors and records.
    pub name: Rc<str>,
    /// The path that clients ask for.
    pub path: String,
    /// What the path asks for, by its end.
    pub endpoint: Endpoint,
    /// The models that it serves.
    pub model: ModelPattern,
    /// The candidates, in the order of the configuration.
    pub providers: Vec<ProviderId>,
    /// How they are ordered.
    pub policy: Rc<Policy>,
    /// When a stream is released.
    pub release: Release,
    /// How long one attempt may take.
    pub limits: Limits,
    /// Where copies of its requests go.
    pub shadow: Option<Shadow>,
}

/// How scores of models are replaced while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluations {
    /// The path that takes them.
    pub path: String,
    /// Who may: the value of `authorization`.
    pub token: ApiKey,
}

/// A score that comes in at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewScore {
    /// Whose model.
    pub provider: ProviderId,
    /// The provider's name for it.
    pub model: String,
    /// The score; `None` puts the configured one back.
    pub score: Option<Score>,
}

/// Where copies of a route's requests go, to see how another provider would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The provider.
    pub provider: ProviderId,
    /// The share of the requests that are copied, in millionths.
    pub share: u32,
    /// What the copies may cost. It has one owner.
    pub budget: Budget,
}

/// How the tenant of a request is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The request header with its name, in lower case. The gateway's authentication sets it.
    pub header: String,
    /// The tenants that metrics may show by name.
    pub known: Vec<String>,
}

/// A path that goes to one provider as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// The path, or its beginning.
    pub path: ModelPattern,
    /// The provider.
    pub provider: ProviderId,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route has the path.
    Path,
    /// None of the path's routes has the model.
    Model,
}

/// A name (of a model, or a path), or its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPattern {
    /// This name.
    Exactly(String),
    /// Every name that begins so; `*` alone is every name.
    StartsWith(String),
}

impl ModelPattern {
    /// Whether a name matches.
    pub fn matches(&self, found: &str) -> bool {
        match self {
            Self::Exactly(name) => name == found,
            Self::StartsWith(start) => found.starts_with(start.as_str()),
        }
    }
}

/// When the first byte of a stream goes to the client. After it no failover is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// At the first content.
    FirstToken,
    /// When the stream is complete: the client waits, and no fault of a provider can reach it.
    Complete,
}

/// How long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until the first content of a stream that is released then.
    pub first_token: Duration,
    /// Until the end of every other answer.
    pub answer: Duration,
}

/// Bounds of sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The longest request body.
    pub max_request: usize,
    /// The longest answer that is held back to be judged; a longer one is released unjudged.
    pub max_held: usize,
}

/// What one request may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; `None`: one for each candidate, and `same_provider` more.
    pub attempts: Option<u32>,
    /// How often a provider is asked again after a server error.
    pub same_provider: u32,
    /// The longest wait for a provider that asked for one (Retry-After).
    pub wait: Duration,
}

impl Config {
    /// Reads a configuration. `environment` gives the value of a variable.
    ///
    /// # Errors
    /// All problems, each with its place.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let what = if text.trim().is_empty() {
                "expected a JSON document, found nothing".to_owned()
            } else {
                format!("expected a JSON document, found a mistake: {error}")
            };
            Problems(vec![Problem { path: String::new(), what }])
        })?;
        let sink = Sink::default();
        let root = Node { json: &json, path: String::new(), sink: &sink };
        let mut config = read::document(&root, environment);
        let problems = sink.into_problems();
        if problems.is_empty() {
            config.warnings.extend(unused::warnings(&config));
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    /// The provider of an id.
    pub fn provider(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(id.0)
    }

    /// The route for a path and model.
    ///
    /// # Errors
    /// Which of the two no route has.
    pub fn route(&self, path: &str, model: &str) -> Result<&Route, NoRoute> {
        let mut on_path = self.routes.iter().filter(|route| route.path == path).peekable();
        if on_path.peek().is_none() {
            return Err(NoRoute::Path);
        }
        on_path.find(|route| route.model.matches(model)).ok_or(NoRoute::Model)
    }

    /// The provider that a path goes to as it is.
    pub fn passthrough(&self, path: &str) -> Option<ProviderId> {
        let matches = |pattern: &ModelPattern| match pattern {
            ModelPattern::Exactly(whole) => whole == path,
            // Only whole segments: `/v1/files*` is not `/v1/filesystem`.
            ModelPattern::StartsWith(start) => path
                .strip_prefix(start.as_str())
                .is_some_and(|rest| start.ends_with('/') || rest.is_empty() || rest.starts_with('/')),
        };
        self.passthrough.iter().find(|entry| matches(&entry.path)).map(|entry| entry.provider)
    }

    /// What a path asks for, if any route has it.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.routes.iter().find(|route| route.path == path).map(|route| route.endpoint)
    }
}

#[cfg(test)]
mod tests;
