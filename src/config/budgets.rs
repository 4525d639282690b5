//! The `tenant` and the `budgets` of the configuration.

use super::names::is_name;
use super::raw::{Json, Node, Object};
use super::Tenant;
use crate::bytes::ascii;
use crate::routing::rewrite::is_never_forwarded;
use crate::spend::budget::{Action, Budget, Period, Scope, Select, PICO_PER_MICRO};

/// Ten million USD: more than any budget, and its pico-USD still fit into 64 bits.
const HIGHEST_LIMIT: f64 = 10_000_000.0;
/// Four fifths: early enough to react before the budget is spent.
const ALERT_AT: f64 = 0.8;
/// 64 slots of about 100 bytes: enough for about thirty tenants.
const SLOTS: u64 = 64;
/// 4096: budgets with more owners belong into a database, not into the gateway.
const MOST_SLOTS: u64 = 4096;

/// Reads which header names the tenant. `None` if there is none, or if there is a problem.
pub(super) fn tenant(node: Option<&Node<'_>>) -> Option<Tenant> {
    let fields = node?.object(&["header", "known"]);
    let header = fields.required("header", "a header name").and_then(header);
    let mut known: Vec<String> = Vec::new();
    for node in fields.optional("known").map(|node| node.list("a list of tenants")).unwrap_or_default() {
        match tenant_name(&node) {
            Some(name) if known.iter().any(|other| other == name) => node.report("appears twice"),
            name => known.extend(name.map(str::to_owned)),
        }
    }
    Some(Tenant { header: header?, known })
}

fn header(node: &Node<'_>) -> Option<String> {
    let name = ascii::lower(node.text("a header name")?);
    if !is_name(&name) {
        node.expected("a header name");
        return None;
    }
    // Records and metrics show the tenant, and a header that carries a secret must not be shown.
    if is_never_forwarded(&name) {
        node.report(format!("the header {name:?} has a meaning of its own and cannot name the tenant"));
        return None;
    }
    Some(name)
}

/// The name of a tenant, which must fit into a header and into a metric's label.
fn tenant_name<'a>(node: &Node<'a>) -> Option<&'a str> {
    const WHAT: &str = "a tenant: at most 64 visible ASCII characters";
    let text = node.text(WHAT)?;
    if text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        node.expected(WHAT);
        return None;
    }
    Some(text)
}

/// Reads the budgets.
pub(super) fn budgets(top: &Object<'_>, providers: &[&str]) -> Vec<Budget> {
    let Some(node) = top.optional("budgets") else { return Vec::new() };
    let known = DeclaredNames {
        tenants: top.optional("tenant").is_some(),
        routes: route_names(top.optional("routes")),
        providers,
    };
    let mut budgets = Vec::new();
    let mut names = Vec::new();
    for node in node.list("a list of budgets") {
        budgets.push(budget(&node, &known));
        let Some(name) = node.member("name") else { continue };
        if names.contains(&name) {
            node.report("another budget has the same name");
        }
        names.push(name);
    }
    budgets
}

/// What a budget may name.
struct DeclaredNames<'a> {
    /// Whether tenants have a header.
    tenants: bool,
    routes: Vec<&'a str>,
    providers: &'a [&'a str],
}

/// The names of all routes, also of those with problems, so that no problem is reported twice.
fn route_names<'a>(routes: Option<&Node<'a>>) -> Vec<&'a str> {
    let Some(Json::List(routes)) = routes.map(|node| node.json) else { return Vec::new() };
    let entries = routes.iter().filter_map(|route| match route {
        Json::Object(entries) => entries.iter().find(|(key, _)| key == "name"),
        _ => None,
    });
    entries
        .filter_map(|(_, name)| if let Json::Text(name) = name { Some(name.as_str()) } else { None })
        .collect()
}

fn budget(node: &Node<'_>, known: &DeclaredNames<'_>) -> Budget {
    let fields =
        node.object(&["name", "match", "limit", "per", "when_spent", "alert_at", "slots", "background"]);
    let name = fields.required("name", NAME).map(budget_name).unwrap_or_default();
    let scope = scope(fields.optional("match"), known);
    let (limit, period) = limit_per(&fields);
    let when_spent = fields.optional("when_spent");
    let action = when_spent.and_then(|node| {
        node.word(&[
            ("alert", Action::Alert),
            ("cheapest", Action::Cheapest),
            ("skip", Action::Skip),
            ("block", Action::Block),
        ])
    });
    let alert_at = fields.optional("alert_at").and_then(|node| node.number(0.0, 1.0)).unwrap_or(ALERT_AT);
    let slots = fields.optional("slots");
    let number = slots.and_then(|node| node.whole(1, MOST_SLOTS));
    if let Some(node) = slots.filter(|_| number.is_some() && !scope.is_for_each()) {
        node.report("expected a \"*\" in \"match\": this budget has a single slot");
    }
    if let Some(node) = when_spent.filter(|_| action == Some(Action::Skip) && !scope.is_about_candidates()) {
        node.report("expected a \"provider\" or a \"model\" in \"match\": without one, every candidate would be skipped (\"block\" refuses the request)");
    }
    let slots = number.unwrap_or(SLOTS) as u16;
    let limit = limit.unwrap_or_default();
    let (limit_pico, alert_pico) = (pico(limit), pico(limit * alert_at));
    let (period, action) = (period.unwrap_or(Period::Hour), action.unwrap_or(Action::Block));
    let background = fields.optional("background");
    let refuses_background =
        background.and_then(|node| node.word(&[("allow", false), ("refuse", true)])).unwrap_or(false);
    let mut budget = Budget::new(name, scope, limit_pico, alert_pico, period, action, slots);
    budget.refuses_background = refuses_background;
    budget
}

fn limit_per(fields: &Object<'_>) -> (Option<f64>, Option<Period>) {
    let limit = fields.required("limit", "an amount in USD").and_then(|node| node.number(0.0, HIGHEST_LIMIT));
    let period = fields.required("per", "\"hour\", \"day\" or \"month\"").and_then(|node| {
        node.word(&[Period::Hour, Period::Day, Period::Month].map(|period| (period.name(), period)))
    });
    (limit, period)
}

/// Reads the `limit` and `per` of an object that is a budget too: the limit and the alert in pico-USD, and the period.
pub(super) fn limit(fields: &Object<'_>) -> (Option<u64>, Option<u64>, Option<Period>) {
    let (limit, period) = limit_per(fields);
    (limit.map(pico), limit.map(|limit| pico(limit * ALERT_AT)), period)
}

/// An amount in USD as pico-USD, rounded to whole micro-USD. [`HIGHEST_LIMIT`] keeps it below 2^64.
fn pico(usd: f64) -> u64 {
    (usd * 1_000_000.0).round() as u64 * PICO_PER_MICRO
}

const NAME: &str = "a name of lower-case letters, digits, \"-\" and \"_\", at most 64";

fn budget_name<'a>(node: &Node<'a>) -> &'a str {
    let name = node.text(NAME).unwrap_or_default();
    if !name.is_empty() && !is_name(name) {
        node.expected(NAME);
    }
    name
}

/// The texts that a key of `match` can have besides `"*"`.
#[derive(Clone, Copy)]
enum Names<'a> {
    Tenants,
    Models,
    Of(&'a [&'a str]),
}

fn scope(node: Option<&Node<'_>>, known: &DeclaredNames<'_>) -> Scope {
    let fields = node.map(|node| node.object(&["tenant", "route", "provider", "model"]));
    let node = |key| fields.as_ref().and_then(|fields| fields.optional(key));
    let tenant = node("tenant");
    if let Some(node) = tenant.filter(|_| !known.tenants) {
        node.report("expected a \"tenant\" with its \"header\" at the top of the document: nothing says who the tenant is");
    }
    Scope {
        tenant: select(tenant, Names::Tenants),
        route: select(node("route"), Names::Of(&known.routes)),
        provider: select(node("provider"), Names::Of(known.providers)),
        model: select(node("model"), Names::Models),
    }
}

/// A text with a problem reads as `"*"`, which is valid with every other key of a budget, so that it causes no second message.
fn select(node: Option<&Node<'_>>, names: Names<'_>) -> Select {
    let Some(node) = node else { return Select::All };
    if matches!(node.json, Json::Text(text) if text == "*") {
        return Select::Each;
    }
    let text = match names {
        Names::Tenants => tenant_name(node),
        Names::Models => node.text("a model, the beginning of one with \"*\" at its end, or \"*\" for each"),
        // No name could be read, and that was reported already.
        Names::Of([]) => node.text("a name"),
        Names::Of(names) => node.one_of(names).and_then(|place| names.get(place).copied()),
    };
    match (text, names) {
        (None, _) => Select::Each,
        (Some(text), Names::Models) => match text.strip_suffix('*') {
            Some(start) => Select::StartsWith(start.to_owned()),
            None => Select::Only(text.to_owned()),
        },
        (Some(text), _) => Select::Only(text.to_owned()),
    }
}
