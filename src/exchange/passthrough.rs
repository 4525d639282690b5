//! Requests that go to one provider as they are: no other could serve them, and nothing is read of them.

use std::rc::Rc;

use super::order::Ranking;
use super::{Exchange, Phase};
use crate::client_api::request::{Endpoint, Features};
use crate::config::{Config, Limits};
use crate::health::outcome::{of_status, ErrorBody, Outcome, Verdict};
use crate::routing::policy::{Kind, Policy};
use crate::routing::provider::{ProviderId, Resolved};
use crate::selection::plan::{Candidate, Env};

/// A request that goes to its provider as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The method.
    pub method: String,
    /// The path with the query, as the client sent it.
    pub path: String,
}

impl Exchange {
    /// A request that goes to one provider as it is, and to no other.
    pub fn passing(config: Rc<Config>, provider: ProviderId, pass: Pass) -> Self {
        let model = Resolved {
            name: String::new(),
            entry: 0,
            context: None,
            price: None,
            lacks: Features::default(),
        };
        let limits = Limits { first_token: config.limits.answer, ..config.limits };
        let ranking = Ranking::new(Rc::new(Policy::priority()), Kind::Priority);
        let candidates = vec![Candidate { provider, model }];
        let exchange =
            Self::unasked(config, Endpoint::Chat, "passthrough".into(), candidates, limits, ranking);
        Self { pass: Some(pass), ..exchange }
    }

    /// The request, if it goes to its provider as it is.
    pub const fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// The answer to a request that goes as it is has begun, and goes to the client whatever it is. Returns the headers that it
    /// gets.
    pub fn passed(&mut self, status: u16, env: &mut Env<'_>) -> Vec<(&'static str, String)> {
        let Phase::Asking { candidate, permit, started, .. } = self.phase else { return Vec::new() };
        let outcome = match status {
            ..400 => Outcome::Answered,
            _ => of_status(status, &ErrorBody::default()),
        };
        let verdict = Verdict { outcome, status: Some(status), retry_after: None };
        self.push(candidate, verdict, started, env.now);
        // What these paths answer says nothing about chats; but a probe must give its permit back.
        let _ = self.report(candidate, Outcome::ClientGone, permit, None, env);
        self.phase = Phase::Over { delivered: true };
        self.headers(candidate, env.now)
    }
}
