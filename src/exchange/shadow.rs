//! Which requests the shadow of their route gets, too, and how many shadow requests are under way.

use std::time::Duration;

use super::Exchange;
use crate::base::clock::Timestamp;
use crate::base::store::fingerprint;
use crate::selection::plan::{self, Env};
use crate::spend::budget::State;

/// [`Shadow::share`](crate::config::Shadow::share) is in millionths; this is the share of all requests.
const MILLION: u32 = 1_000_000;

/// The most shadow requests that are under way in one worker.
const MOST: usize = 64;

/// A shadow request that has not arrived after so long does not come any more: the gateway could not send it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// The shadow requests of one worker.
#[derive(Debug, Default)]
pub struct Shadows {
    /// Those that were drawn and have not arrived at the gateway again: a hash of the request's id, and when it was drawn.
    drawn: Vec<(u64, Timestamp)>,
    /// How many have arrived and are not over.
    arrived: usize,
}

impl Shadows {
    /// Whether another one may be drawn.
    pub fn has_room(&mut self, now: Timestamp) -> bool {
        self.drawn.retain(|(_, drawn)| now.since(*drawn) < ARRIVES_WITHIN);
        self.drawn.len().saturating_add(self.arrived) < MOST
    }

    /// The request with this id was drawn.
    pub fn draw(&mut self, id: &str, now: Timestamp) {
        self.drawn.push((fingerprint([id]), now));
    }

    /// The shadow request of the request with this id has arrived. It must be [ended](Self::end) once.
    pub fn arrive(&mut self, id: &str) {
        let id = fingerprint([id]);
        if let Some(place) = self.drawn.iter().position(|(drawn, _)| *drawn == id) {
            self.drawn.swap_remove(place);
        }
        self.arrived = self.arrived.saturating_add(1);
    }

    /// A shadow request that had arrived is over.
    pub fn end(&mut self) {
        self.arrived = self.arrived.saturating_sub(1);
    }
}

impl Exchange {
    /// Draws whether the gateway sends this request to itself a second time, for the route's shadow. It is called once, when the
    /// request has started.
    ///
    /// The shadow gets no request if too many are under way in `shadows`, if it is the provider that is tried first, if it is excluded, if
    /// it lacks what the conversation needs, or if its price is not known, because its budget could not be kept then.
    pub fn sample_shadow(&mut self, shadows: &mut Shadows, env: &mut Env<'_>) -> bool {
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
        if self.refuses(shadow.provider, &model).is_some()
            || plan::exclusion(provider, &model.name, self.request.endpoint, env).is_some()
            || !plan::is_closed(provider, env)
        {
            return false;
        }
        let owner = shadow.budget.owner(self.subject(None));
        let standing = owner.map(|owner| shadow.budget.standing(owner, env.now, env.store));
        let has_money = standing.is_some_and(|standing| standing.state == State::Open);
        if !has_money || !shadows.has_room(env.now) {
            return false;
        }
        shadows.draw(&self.request.id, env.now);
        self.shadow = Some(shadow.provider);
        true
    }
}
