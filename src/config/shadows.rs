//! The `shadow` of a route: a share of its requests goes to another provider as well, to see how it would do.
//!
//! A copy is a request of its own, which the gateway sends to itself, and for which the configuration means something else
//! ([`Config::for_shadow`]).

use std::rc::Rc;

use super::budgets::limit;
use super::policies::{id, Declarations};
use super::raw::Node;
use super::{Config, Retry, Route, Shadow};
use crate::routing::policy::{Kind, Policy};
use crate::spend::budget::{Action, Budget, Scope, Select};

/// All requests, in the unit of [`Shadow::share`].
const MILLION: f64 = 1_000_000.0;

/// `None` also if its provider is left out for want of a key, or if something is wrong. `route` is the route's name.
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
    // A name that no budget of the configuration can have.
    let name = ["shadow:", route].concat();
    let budget = Budget::new(&name, route_only, limit_pico?, alert_pico?, period?, Action::Block, 0);
    let share = (share? * MILLION + 0.5) as u32;
    Some(Shadow { provider: id(provider?, known)?, share, budget })
}

impl Config {
    /// What the configuration means for copies: every route with a shadow has that provider alone, one attempt, and the shadow's
    /// budget in place of all others.
    #[must_use]
    pub fn for_shadow(&self) -> Self {
        let shadowed = self.routes.iter().filter_map(|route| Some((route, route.shadow.as_ref()?)));
        let route = |(route, shadow): (&Route, &Shadow)| Route {
            providers: vec![shadow.provider],
            // A copy brings the headers of its request along; with one candidate no order says anything.
            policy: Rc::new(Policy { allow: Kind::ALL.to_vec(), ..Policy::priority() }),
            shadow: None,
            ..route.clone()
        };
        let budgets = shadowed.clone().map(|(_, shadow)| shadow.budget.clone()).collect();
        let routes = shadowed.map(route).collect();
        let retry = Retry { attempts: Some(1), ..self.retry };
        Self { routes, budgets, passthrough: Vec::new(), retry, is_shadow: true, ..self.clone() }
    }
}
