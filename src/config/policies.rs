//! The `policy` of a route.

use std::time::Duration;

use super::names::{is_name, Names};
use super::prices::{per_million, per_request};
use super::raw::{Json, Node, Object};
use crate::bytes::ascii;
use crate::routing::policy::balanced::Weights;
use crate::routing::policy::cost::Caps;
use crate::routing::policy::latency::{self, MILLION};
use crate::routing::policy::weighted::Sticky;
use crate::routing::policy::{Kind, Policy};
use crate::routing::provider::Score;
use crate::routing::provider::{Provider, ProviderId};

/// 10 s: a shorter window would hold too few requests for a percentile.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);
/// Half of the requests. With more, the policy would explore more often than it follows what it measured.
const MOST_EXPLORE: f64 = 0.5;
/// Candidates that are more than twice as slow as the first one are not about as quick.
const MOST_BAND: f64 = 1.0;
/// With this, weights can express shares of one millionth.
const MOST_WEIGHT: u64 = 1_000_000;

/// 100: at the hundredth power of a ratio, every other factor would be negligible.
const MOST_BALANCE: u64 = 100;

/// What a policy may name.
pub(super) struct Declarations<'a> {
    /// All providers with a key.
    pub(super) providers: &'a [Provider],
    /// The names of all that are configured.
    pub(super) names: &'a Names<'a>,
    /// Whether tenants have a header.
    pub(super) tenants: bool,
}

/// Reads the policy of a route. `None` if there is a problem with a key that has no default. `route` is the list of its providers.
#[inline(never)]
pub(super) fn policy(
    node: Option<&Node<'_>>,
    route: Option<&Node<'_>>,
    known: &Declarations<'_>,
) -> Option<Policy> {
    let Some(node) = node else { return Some(Policy::priority()) };
    let fields = node.object(&[
        "type",
        "allow",
        "max_price",
        "window",
        "explore",
        "band",
        "prefer",
        "weights",
        "sticky",
        "balance",
        "min_quality",
    ]);
    let kinds = Kind::ALL.map(|kind| (kind.name(), kind));
    let kind = fields.optional("type").map_or(Some(Kind::Priority), |node| node.word(&kinds));
    let mut allow = Vec::new();
    for node in elements(&fields, "allow", "a list of policies") {
        match node.word(&kinds) {
            Some(kind) if allow.contains(&kind) => node.report("appears twice"),
            found => allow.extend(found),
        }
    }
    let route: Vec<&str> = match route.map(|node| node.json) {
        Some(Json::List(names)) => names.iter().filter_map(text).collect(),
        _ => Vec::new(),
    };
    let mut policy = Policy { kind: kind?, allow, ..Policy::priority() };
    settings_have_their_policy(&fields, &policy);
    if let Some(node) = fields.optional("max_price") {
        policy.cost = caps(node);
    }
    latency(&fields, &route, known, &mut policy.latency);
    if policy.may_be(Kind::Weighted) {
        policy.weighted.weights = weights(&fields, &route, known);
    }
    if let Some(node) = fields.optional("sticky") {
        policy.weighted.sticky = sticky(node, known.tenants)?;
    }
    if let Some(node) = fields.optional("balance") {
        policy.balance = balance(node);
    }
    let floor = fields.optional("min_quality").and_then(|node| node.number(0.0, 1.0));
    policy.min_quality = floor.map(Score::new);
    Some(policy)
}

/// The elements of a list that may be absent.
#[inline(never)]
fn elements<'a>(fields: &Object<'a>, key: &str, what: &str) -> Vec<Node<'a>> {
    fields.optional(key).map(|node| node.list(what)).unwrap_or_default()
}

fn text(json: &Json) -> Option<&str> {
    if let Json::Text(text) = json {
        Some(text)
    } else {
        None
    }
}

/// Reports settings of policies that no request of the route can have.
#[inline(never)]
fn settings_have_their_policy(fields: &Object<'_>, policy: &Policy) {
    const TIMED: &[Kind] = &[Kind::Latency, Kind::Balanced];
    const SETTINGS: [(&str, &[Kind]); 9] = [
        ("max_price", &[Kind::Cost]),
        ("window", TIMED),
        ("explore", TIMED),
        ("band", TIMED),
        ("prefer", TIMED),
        ("weights", &[Kind::Weighted]),
        ("sticky", &[Kind::Weighted, Kind::Latency, Kind::Balanced]),
        ("balance", &[Kind::Balanced]),
        ("min_quality", &[Kind::Cost, Kind::Latency, Kind::Balanced]),
    ];
    for (key, kinds) in SETTINGS {
        let is_unused = !kinds.iter().any(|kind| policy.may_be(*kind));
        if let Some(node) = fields.optional(key).filter(|_| is_unused) {
            let names: Vec<String> = kinds.iter().map(|kind| format!("{:?}", kind.name())).collect();
            let names = names.join(" or ");
            node.report(format!("is for the policy {names}, which is neither \"type\" nor in \"allow\""));
        }
    }
}

#[inline(never)]
fn caps(node: &Node<'_>) -> Caps {
    let fields = node.object(&["input", "output", "request"]);
    Caps {
        input: fields.optional("input").and_then(per_million),
        output: fields.optional("output").and_then(per_million),
        request: fields.optional("request").and_then(per_request),
    }
}

#[inline(never)]
fn balance(node: &Node<'_>) -> Weights {
    let fields = node.object(&["latency", "cost", "quality"]);
    let weight = |key: &str, least: u64, usual: u32| {
        fields
            .optional(key)
            .and_then(|node| node.whole(least, MOST_BALANCE))
            .map_or(usual, |weight| weight as u32)
    };
    // The latency counts always. Without it, this would be the policy `cost` or `quality`.
    Weights { latency: weight("latency", 1, 1), cost: weight("cost", 0, 0), quality: weight("quality", 0, 0) }
}

#[inline(never)]
fn latency(fields: &Object<'_>, route: &[&str], known: &Declarations<'_>, rules: &mut latency::Rules) {
    if let Some(window) = fields.optional("window").and_then(|node| node.duration(SHORTEST_WINDOW, DAY)) {
        rules.window = window;
    }
    let millionths = |key: &str, most: f64, usual: u32| {
        let found = fields.optional(key).and_then(|node| node.number(0.0, most));
        found.map_or(usual, |share| (share * f64::from(MILLION) + 0.5) as u32)
    };
    rules.explore = millionths("explore", MOST_EXPLORE, rules.explore);
    rules.band = millionths("band", MOST_BAND, rules.band);
    let Some(node) = fields.optional("prefer") else { return };
    let prefer = node.object(&["providers", "regions"]);
    for node in elements(&prefer, "providers", "a list of providers") {
        let name = node.one_of(route).and_then(|place| route.get(place));
        rules.prefer.extend(name.and_then(|name| id(name, known)));
    }
    for node in elements(&prefer, "regions", "a list of regions") {
        let Some(region) = node.text("the name of a region") else { continue };
        let before = rules.prefer.len();
        for name in route {
            let place = id(name, known);
            let provider = place.and_then(|ProviderId(place)| known.providers.get(place));
            rules.prefer.extend(place.filter(|_| provider.is_some_and(|provider| provider.region == region)));
        }
        // The region of a provider that was left out for lack of a key is unknown.
        if rules.prefer.len() == before && !route.iter().any(|name| known.names.left_out.contains(name)) {
            node.report("no provider of the route has this \"region\"");
        }
    }
}

#[inline(never)]
pub(super) fn id(name: &str, known: &Declarations<'_>) -> Option<ProviderId> {
    known.providers.iter().position(|provider| provider.name == name).map(ProviderId)
}

#[inline(never)]
fn weights(fields: &Object<'_>, route: &[&str], known: &Declarations<'_>) -> Vec<(ProviderId, u32)> {
    const WHAT: &str = "an object with the weights of providers";
    let Some(node) = fields.required("weights", WHAT) else { return Vec::new() };
    let weights = node.object(route);
    let (mut found, mut most) = (Vec::new(), 0);
    for name in route {
        let weight = weights.optional(name).and_then(|node| node.whole(0, MOST_WEIGHT)).unwrap_or_default();
        most = most.max(weight);
        found.extend(id(name, known).map(|id| (id, weight as u32)));
    }
    if most == 0 && matches!(node.json, Json::Object(_)) {
        node.report("expected at least one weight above 0");
    }
    found
}

#[inline(never)]
fn sticky(node: &Node<'_>, tenants: bool) -> Option<Sticky> {
    if let Json::Object(_) = node.json {
        let fields = node.object(&["header"]);
        let node = fields.required("header", "a header name")?;
        let name = ascii::lower(node.text("a header name")?);
        if !is_name(&name) {
            node.expected("a header name");
            return None;
        }
        return Some(Sticky::Header(name));
    }
    if text(node.json) != Some("tenant") {
        node.expected("\"tenant\", or an object with a \"header\"");
        return None;
    }
    if !tenants {
        node.report("expected \"tenant\" at the top of the document: nothing says which header names it");
    }
    Some(Sticky::Tenant)
}
