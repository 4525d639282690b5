//! The configuration: valid by construction. A [`Config`] that exists can be used without another check.
//!
//! [`Config::parse`] reads the JSON document that both gateways share, with the environment as an argument, and reports
//! every problem at once. `docs/configuration.md` describes each key for the user. The defaults are the constants in `config/read.rs`.

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
mod unpriced;
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
    /// The routes. The first one that matches serves a request.
    pub routes: Vec<Route>,
    /// The paths whose requests are forwarded unchanged to one provider.
    pub passthrough: Vec<Passthrough>,
    /// The request parameters that the dialect of at least one provider changes.
    pub parameters: Vec<String>,
    /// The header that names the tenant of a request.
    pub tenant: Option<Tenant>,
    /// The budgets. Their names are unique.
    pub budgets: Vec<Budget>,
    /// The path where evaluations replace scores of models while the gateway runs.
    pub evaluations: Option<Evaluations>,
    /// Whether providers get the W3C trace context.
    pub trace_context: bool,
    /// How long one attempt may take, for routes without limits of their own.
    pub limits: Limits,
    /// The largest sizes.
    pub sizes: Sizes,
    /// When the breaker of a provider opens and closes.
    pub breaker: BreakerPolicy,
    /// How long a provider is held.
    pub holds: HoldPolicy,
    /// How many attempts one request may make, and for how long it may wait.
    pub retry: Retry,
    /// Whether it is the configuration for copies of requests ([`Config::for_shadow`]).
    pub is_shadow: bool,
    /// The host and port of the inner routes, which only APISIX has.
    pub inner: String,
    /// What the operator should know, although it is valid.
    pub warnings: Vec<String>,
}

/// One route: the requests that match it, and the providers that may serve them.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in logs, errors and records.
    pub name: Rc<str>,
    /// The path of the requests.
    pub path: String,
    /// The endpoint, which is the end of the path.
    pub endpoint: Endpoint,
    /// The models that it serves.
    pub model: ModelPattern,
    /// The providers, in the order of the configuration.
    pub providers: Vec<ProviderId>,
    /// The policy that orders the providers for each request.
    pub policy: Rc<Policy>,
    /// When a stream is released to the client.
    pub release: Release,
    /// What the client sees of a released stream that breaks off.
    pub on_break: OnBreak,
    /// How long its requests may take, and how long their answers may be.
    pub limits: Limits,
    /// Whether another provider is asked about a refusal that no list explains. `None`: as [`Retry::second_opinion`] says.
    pub second_opinion: Option<bool>,
    /// The shadow: another provider that gets copies of its requests.
    pub shadow: Option<Shadow>,
}

/// The path where evaluations replace scores of models while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluations {
    /// The path of the requests that read or replace scores.
    pub path: String,
    /// The secret that such a request has in `authorization`.
    pub token: ApiKey,
}

/// A score that an evaluation sends while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewScore {
    /// The provider of the model.
    pub provider: ProviderId,
    /// The provider's name for it.
    pub model: String,
    /// The score; `None` restores the configured one.
    pub score: Option<Score>,
}

/// A provider that gets copies of a route's requests, to measure how it would serve them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The provider.
    pub provider: ProviderId,
    /// The share of the requests that are copied, in millionths.
    pub share: u32,
    /// What the copies may cost. The budget has one owner, the route.
    pub budget: Budget,
}

/// How the tenant of a request is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The request header with its name, in lower case. The gateway's authentication sets it.
    pub header: String,
    /// The tenants that metrics may show by name.
    pub known: Vec<String>,
}

/// A path whose requests are forwarded unchanged to one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// The path, or the start of it.
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

/// A pattern for names of models and for paths: a whole name, or the start of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPattern {
    /// Matches this name.
    Exactly(String),
    /// Matches every name that starts with this text. The pattern `*` is the empty start, which matches every name.
    StartsWith(String),
}

impl ModelPattern {
    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(whole) => whole == name,
            Self::StartsWith(start) => name.starts_with(start.as_str()),
        }
    }
}

/// When a stream is released, that is, when its first byte goes to the client. From then on no failover is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// At the first content.
    FirstToken,
    /// When the stream is complete. The client waits longer, and never sees a stream that breaks off.
    Complete,
}

/// What the client sees of a stream that breaks off after its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBreak {
    /// Its own stream is reset.
    Reset,
    /// An error event, and then the end of its stream.
    Event,
}

/// How long one attempt may take, and the whole request; and what becomes of a limit of the answer that a model cannot give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time until the first content, for a stream that is released at its first content.
    pub first_token: Duration,
    /// The time until the end of every other answer.
    pub answer: Duration,
    /// The time from the request's arrival until its answer is released, over all attempts. `None`: it is not limited.
    pub total: Option<Duration>,
    /// The limit that a request sets for its answer is lowered for a model that gives only shorter ones. Otherwise the model is skipped.
    pub clamps_output: bool,
}

/// The largest sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The longest request body.
    pub max_request: usize,
    /// The longest answer that is withheld until its outcome is known. A longer one is released before.
    pub max_held: usize,
}

/// How many attempts one request may make, and for how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The most attempts. `None` stands for one per candidate, and `same_provider` more.
    pub attempts: Option<u32>,
    /// How often the same provider is tried again after a server error.
    pub same_provider: u32,
    /// The longest wait that a provider may ask for (`Retry-After`) and still be tried again.
    pub wait: Duration,
    /// Whether another provider is asked about a refusal that no list explains, for routes that do not say so themselves.
    pub second_opinion: bool,
}

impl Config {
    /// Reads a configuration. `environment` returns the value of an environment variable.
    ///
    /// # Errors
    /// All problems, each with its path in the document.
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
            config.warnings.extend(unpriced::warnings(&config));
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    /// The provider with this id.
    pub fn provider(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(id.0)
    }

    /// The route for a path and a model.
    ///
    /// # Errors
    /// Whether no route has the path, or none of them has the model.
    pub fn route(&self, path: &str, model: &str) -> Result<&Route, NoRoute> {
        let mut on_path = self.routes.iter().filter(|route| route.path == path).peekable();
        if on_path.peek().is_none() {
            return Err(NoRoute::Path);
        }
        on_path.find(|route| route.model.matches(model)).ok_or(NoRoute::Model)
    }

    /// The provider to which requests of a path are forwarded unchanged.
    pub fn passthrough(&self, path: &str) -> Option<ProviderId> {
        let matches = |pattern: &ModelPattern| match pattern {
            ModelPattern::Exactly(whole) => whole == path,
            // Only whole segments match: `/v1/files*` does not match `/v1/filesystem`.
            ModelPattern::StartsWith(start) => path
                .strip_prefix(start.as_str())
                .is_some_and(|rest| start.ends_with('/') || rest.is_empty() || rest.starts_with('/')),
        };
        self.passthrough.iter().find(|entry| matches(&entry.path)).map(|entry| entry.provider)
    }

    /// Whether any route limits the time of a request over all of its attempts.
    pub fn limits_requests(&self) -> bool {
        self.routes.iter().any(|route| route.limits.total.is_some())
    }

    /// The endpoint of a path, if any route has the path.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.routes.iter().find(|route| route.path == path).map(|route| route.endpoint)
    }
}

#[cfg(test)]
mod tests;
