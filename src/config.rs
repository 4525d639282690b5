//! The configuration: valid by construction. A [`Config`] that exists can be used without another check.
//!
//! [`Config::parse`] reads the JSON document that both gateways share, with the environment as an argument, and reports
//! every problem at once. `docs/configuration.md` describes each key for the user; the defaults are the constants in `config/read.rs`.

mod error;
mod providers;
mod raw;
mod read;

use std::time::Duration;

use crate::breaker::{HoldPolicy, Policy as BreakerPolicy};
use crate::policy::Policy;
use crate::provider::{Provider, ProviderId};
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
    /// Bounds of sizes.
    pub sizes: Sizes,
    /// The breaker of every provider.
    pub breaker: BreakerPolicy,
    /// The holds of every provider.
    pub holds: HoldPolicy,
    /// What one request may try.
    pub retry: Retry,
    /// What the operator should know although it is no error.
    pub warnings: Vec<String>,
}

/// Which requests go to which providers.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in logs and errors.
    pub name: String,
    /// The path that clients ask for.
    pub path: String,
    /// The models that it serves.
    pub model: ModelPattern,
    /// The candidates, in the order of the configuration.
    pub providers: Vec<ProviderId>,
    /// How they are ordered.
    pub policy: Policy,
    /// When a stream is released.
    pub release: Release,
    /// How long one attempt may take.
    pub limits: Limits,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No route has the path.
    Path,
    /// None of the path's routes has the model.
    Model,
}

/// A model's name, or its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPattern {
    /// This name.
    Exactly(String),
    /// Every name that begins so; `*` alone is every name.
    StartsWith(String),
}

impl ModelPattern {
    /// Whether a model's name matches.
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exactly(name) => name == model,
            Self::StartsWith(start) => model.starts_with(start.as_str()),
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
        let config = read::document(&root, environment);
        let problems = sink.into_problems();
        if problems.is_empty() {
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

    /// Whether any route has this path.
    pub fn has_path(&self, path: &str) -> bool {
        self.routes.iter().any(|route| route.path == path)
    }
}

#[cfg(test)]
mod tests;
