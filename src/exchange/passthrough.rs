//! Requests of passthrough paths: they are forwarded to one provider unchanged, and nothing is read of them.

use std::rc::Rc;

use super::order::Ranking;
use super::{Exchange, OutOfOrder, Request};
use crate::client_api::request::{Endpoint, Features};
use crate::config::{Config, Limits};
use crate::health::outcome::{of_status, ErrorBody, Outcome, Verdict};
use crate::routing::policy::{Kind, Policy};
use crate::routing::provider::{ProviderId, Resolved};
use crate::selection::plan::{Candidate, Env};

/// A request that is forwarded to its provider unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The method.
    pub method: String,
    /// The path with the query, as the client sent it.
    pub path: String,
}

impl Exchange {
    /// A request that is forwarded to one provider unchanged, and to no other.
    pub fn passing(config: Rc<Config>, provider: ProviderId, pass: Pass) -> Self {
        let model = Resolved {
            name: String::new(),
            entry: 0,
            context: None,
            max_output: None,
            price: None,
            lacks: Features::default(),
        };
        let limits = Limits { first_token: config.limits.answer, total: None, ..config.limits };
        let ranking = Ranking::new(Rc::new(Policy::priority()), Kind::Priority);
        let request =
            Request { pass: Some(pass), ..Request::new(Endpoint::Chat, "passthrough".into(), limits) };
        Self::planned(config, request, vec![Candidate { provider, model }], ranking)
    }

    /// The request, if it is forwarded to its provider unchanged.
    pub const fn pass(&self) -> Option<&Pass> {
        self.request.pass.as_ref()
    }

    /// The answer to a request that is forwarded unchanged has begun, and goes to the client whatever it is. Returns the additional
    /// headers that it gets.
    ///
    /// # Errors
    /// [`OutOfOrder`]: no attempt is under way.
    pub fn passed(
        &mut self,
        status: u16,
        env: &mut Env<'_>,
    ) -> Result<Vec<(&'static str, String)>, OutOfOrder> {
        let current = self.attempts.expect_undecided("passed")?;
        let outcome = match status {
            ..400 => Outcome::Answered,
            _ => of_status(status, &ErrorBody::default()),
        };
        let verdict = Verdict::certain(outcome, Some(status));
        self.attempts.end(current, verdict, env.now);
        // The outcome of a passthrough path says nothing about chats.
        self.release_permit(current, env);
        self.attempts.finish(true);
        Ok(self.headers(current.candidate, env.now))
    }
}
