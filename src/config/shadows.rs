//! The `shadow` of a route: a provider that gets copies of a share of the route's requests, to measure how it would serve them.
//!
//! A copy is a request of its own that the gateway sends to itself. It is served by a configuration of its own
//! ([`Config::for_shadow`]).

use std::rc::Rc;

use super::budgets::limit;
use super::policies::{id, Declarations};
use super::raw::Node;
use super::{Config, OnBreak, Retry, Route, Shadow};
use crate::routing::policy::{Kind, Policy};
use crate::spend::budget::{Action, Budget, Scope, Select};

/// The share of all requests, in the unit of [`Shadow::share`].
const MILLION: f64 = 1_000_000.0;

/// The shadow of the route with the name `route`. `None` if its provider is left out because it has no key, or if there is a problem.
#[inline(never)]
pub(super) fn shadow(node: &Node<'_>, route: &str, known: &Declarations<'_>) -> Option<Shadow> {
    let fields = node.object(&["provider", "share", "limit", "per"]);
    let provider = fields
        .required("provider", "the name of a provider")
        .and_then(|node| node.one_of(&known.names.all))
        .and_then(|place| known.names.all.get(place));
    let share = fields.required("share", "a number from 0 to 1").and_then(|node| node.number(0.0, 1.0));
    let (limit_pico, alert_pico, period) = limit(&fields);
    let route_only = Scope {
        tenant: Select::All,
        route: Select::Only(route.to_owned()),
        provider: Select::All,
        model: Select::All,
    };
    // No budget of the configuration can have a name with a colon.
    let name = ["shadow:", route].concat();
    let budget = Budget::new(&name, route_only, limit_pico?, alert_pico?, period?, Action::Block, 0);
    let share = (share? * MILLION + 0.5) as u32;
    Some(Shadow { provider: id(provider?, known)?, share, budget })
}

impl Config {
    /// The configuration for copies of requests: only the routes with a shadow, each with the shadow's provider alone and with one
    /// attempt, and only the budgets of the shadows.
    #[must_use]
    pub fn for_shadow(&self) -> Self {
        let shadowed = self.routes.iter().filter_map(|route| Some((route, route.shadow.as_ref()?)));
        let route = |(route, shadow): (&Route, &Shadow)| Route {
            providers: vec![shadow.provider],
            // A copy has the headers of its request, which may ask for a policy. With one candidate every policy is the same.
            policy: Rc::new(Policy { allow: Kind::ALL.to_vec(), ..Policy::priority() }),
            shadow: None,
            // No client sees how the stream of a copy ends.
            on_break: OnBreak::Reset,
            ..route.clone()
        };
        let budgets = shadowed.clone().map(|(_, shadow)| shadow.budget.clone()).collect();
        let routes = shadowed.map(route).collect();
        let retry = Retry { attempts: Some(1), ..self.retry };
        Self { routes, budgets, passthrough: Vec::new(), retry, is_shadow: true, ..self.clone() }
    }
}
