//! Which requests the shadow of their route gets, too.

use super::Exchange;
use crate::selection::plan::{self, Env};
use crate::spend::budget::State;

/// [`Shadow::share`](crate::config::Shadow::share) is in millionths; this is the share of all requests.
const MILLION: u32 = 1_000_000;

impl Exchange {
    /// Draws whether the gateway sends this request to itself a second time, for the route's shadow. It is called once, when the
    /// request has started.
    ///
    /// The shadow gets no request if it is the provider that is tried first, if it is excluded, if it lacks what the conversation
    /// needs, or if its price is not known, because its budget could not be kept then.
    pub fn sample_shadow(&mut self, env: &mut Env<'_>) -> bool {
        let Some(current) = self.attempts.undecided() else { return false };
        let config = std::rc::Rc::clone(&self.config);
        let route = config.routes.iter().find(|route| route.name == self.request.route);
        let Some(shadow) = route.and_then(|route| route.shadow.as_ref()) else { return false };
        if env.random.u32(..MILLION) >= shadow.share
            || self.body.said.stored.is_some()
            || self.body.said.background
        {
            return false;
        }
        let tried = self.candidates.get(current.candidate).map(|candidate| candidate.provider);
        let Some(provider) = config.provider(shadow.provider).filter(|_| tried != Some(shadow.provider))
        else {
            return false;
        };
        let Some(model) = provider.resolve(&self.body.said.model).filter(|model| model.price.is_some())
        else {
            return false;
        };
        if self.refuses(&model).is_some()
            || plan::exclusion(provider, &model.name, self.request.endpoint, env).is_some()
            || !plan::is_closed(provider, env)
        {
            return false;
        }
        let owner = shadow.budget.owner(self.subject(None));
        let standing = owner.map(|owner| shadow.budget.standing(owner, env.now, env.store));
        let has_money = standing.is_some_and(|standing| standing.state == State::Open);
        self.shadow = has_money.then_some(shadow.provider);
        has_money
    }
}
