//! Reads the JSON document into a [`Config`]: every key with its default and its bounds.
//!
//! Each function returns the value that it found. If there was a problem it reports that to the sink and returns a default, so
//! that the rest of the document is read too. A document with problems never becomes a configuration.

use std::time::Duration;

use super::budgets::{budgets, tenant};
use super::evaluations::evaluations;
use super::names::Names;
use super::policies::{policy, Declarations};
use super::prices::price_lists;
use super::providers::{host, providers};
use super::raw::{shown, Json, Node, Object};
use super::{shadows, Config, Limits, ModelPattern, OnBreak, Passthrough, Release, Retry, Route, Sizes};
use crate::client_api::request::{Endpoint, ANSWER_LIMITS};
use crate::health::breaker::{HoldPolicy, Policy as BreakerPolicy};
use crate::routing::provider::{Provider, ProviderId};

/// 15 s: a few first tokens come later (after long reasoning), but then a user has given up already.
const FIRST_TOKEN: Duration = Duration::from_secs(15);
/// 5 min: as long as a reasoning model takes for a long answer.
const ANSWER: Duration = Duration::from_secs(300);
/// 20 MiB: a chat with several images in base64.
const MAX_REQUEST: u64 = 20 << 20;
/// 8 MiB: far above any text answer. Longer answers, with audio or images, are released before they are judged.
const MAX_HELD: u64 = 8 << 20;
/// 32 MiB: the limit of Envoy's buffers in `envoy/`. Envoy itself refuses what is larger.
const LARGEST: u64 = 32 << 20;
/// 5: the default of Envoy's outlier detection (`consecutive_5xx`).
const CONSECUTIVE_FAILURES: u64 = 5;
/// Half of the requests: below that, most attempts still succeed.
const ERROR_RATE: f64 = 0.5;
/// 20: with fewer attempts, one short disturbance would already be a high rate.
const MINIMUM_REQUESTS: u64 = 20;
/// 30 s: at one request per second, that is enough attempts for a rate.
const WINDOW: Duration = Duration::from_secs(30);
/// 10 s: about as long as an instance of a provider takes to restart.
const OPEN: Duration = Duration::from_secs(10);
/// 5 min: the longest time for which a recovery goes unnoticed.
const MAX_OPEN: Duration = Duration::from_secs(300);
/// One probe closes the breaker. If it was too early, the next failures open it again, for longer.
const PROBES: u64 = 1;
/// 31: the number of attempts that Envoy's route allows, the first one and `num_retries: 30` (in `envoy/`).
const MOST_ATTEMPTS: u64 = 31;
/// Once: that avoids a single bad instance behind the provider's load balancer. More would multiply the load on a failing provider.
const SAME_PROVIDER: u64 = 1;
/// 3 s: a person who waits for a chat answer hardly notices it.
const WAIT: Duration = Duration::from_secs(3);
/// 60 s: the longest wait of Envoy's route (`rate_limited_retry_back_off.max_interval` in `envoy/`).
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// 5 s, doubling: most rate limits that come without a time end within seconds.
const RATE_LIMITED: Duration = Duration::from_secs(5);
/// 10 min, doubling: the account must be topped up first.
const OUT_OF_QUOTA: Duration = Duration::from_secs(600);
/// 5 min, doubling: the key must be replaced. It is not longer, because providers also refuse keys by mistake.
const BAD_KEY: Duration = Duration::from_secs(300);
/// 5 min, doubling: the provider must add the model, or the name must be corrected.
const NO_SUCH_MODEL: Duration = Duration::from_secs(300);
/// One hour: the longest time for which a wrong header of a provider can exclude it.
const MAX_HOLD: Duration = Duration::from_secs(3600);

/// The address of the first inner listener in `apisix/config.yaml`.
const INNER: &str = "127.0.0.1:9081";

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads the whole document.
pub(super) fn document(root: &Node<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Config {
    let top = root.object(&[
        "providers",
        "prices",
        "routes",
        "limits",
        "breaker",
        "retry",
        "holds",
        "tenant",
        "budgets",
        "trace_context",
        "passthrough",
        "inner",
        "evaluations",
    ]);
    let mut warnings = Vec::new();
    let (mut providers, names) = providers(&top, environment, &mut warnings);
    price_lists(top.optional("prices"), &names, &mut providers);
    let (limits, sizes) = limits(top.optional("limits"));
    let routes = routes(&top, &providers, &names, limits);
    let mut parameters: Vec<String> = Vec::new();
    let has_longest = |provider: &Provider| provider.models.iter().any(|model| model.max_output.is_some());
    let answer_limits = if providers.iter().any(has_longest) { &ANSWER_LIMITS[..] } else { &[] };
    let names_of_dialects = providers.iter().flat_map(|provider| provider.dialect.parameter_names());
    for name in names_of_dialects.chain(answer_limits.iter().copied()) {
        if !parameters.iter().any(|known| known == name) {
            parameters.push(name.to_owned());
        }
    }
    let passthrough = passthrough(top.optional("passthrough"), &providers, &names);
    let budgets = budgets(&top, &names.all);
    let inner = top.optional("inner").and_then(|node| host(node)).unwrap_or_else(|| INNER.to_owned());
    let is_taken = |path: &str| {
        let lists_models =
            path.rsplit_once('/').is_some_and(|(_, end)| end == "models") || path.contains("/models/");
        lists_models || routes.iter().any(|route| route.path == path)
    };
    let evaluations = evaluations(&top, &is_taken, environment);
    Config {
        evaluations,
        passthrough,
        limits,
        parameters,
        trace_context: top.optional("trace_context").and_then(Node::boolean).unwrap_or(true),
        providers,
        routes,
        tenant: tenant(top.optional("tenant")),
        budgets,
        sizes,
        breaker: breaker(top.optional("breaker")),
        holds: holds(top.optional("holds")),
        retry: retry(top.optional("retry")),
        is_shadow: false,
        inner,
        warnings,
    }
}

fn routes(top: &Object<'_>, providers: &[Provider], configured: &Names<'_>, limits: Limits) -> Vec<Route> {
    let Some(node) = top.required("routes", "a list of routes") else { return Vec::new() };
    let nodes = node.list("a list of routes");
    if nodes.is_empty() && node.is_list() {
        node.report("expected at least one route, found none");
    }
    let known = Declarations { providers, names: configured, tenants: top.optional("tenant").is_some() };
    let mut routes = Vec::new();
    let mut names = Vec::new();
    for node in &nodes {
        routes.extend(route(node, &known, limits));
        let Some(name) = node.member("name") else { continue };
        if names.contains(&name) {
            node.report("another route has the same name");
        }
        names.push(name);
    }
    routes
}

fn route(node: &Node<'_>, known: &Declarations<'_>, limits: Limits) -> Option<Route> {
    let (providers, configured) = (known.providers, known.names);
    let fields =
        node.object(&["name", "match", "providers", "policy", "stream", "limits", "retry", "shadow"]);
    let name = fields.required("name", "a name").and_then(|node| node.text("a name"));
    let matching =
        fields.required("match", "an object with a path").map(|node| node.object(&["path", "model"]));
    let path = matching.as_ref().and_then(|matching| matching.required("path", PATH)).and_then(route_path);
    let model = matching.as_ref().and_then(|matching| matching.optional("model")).map_or_else(
        || Some(ModelPattern::StartsWith(String::new())),
        |node| Some(model_pattern(node.text("a model, or the beginning of one with \"*\" at its end")?)),
    );
    let candidates = fields
        .required("providers", "a list of providers")
        .map(|node| candidates(node, providers, configured));
    let policy = policy(fields.optional("policy"), fields.optional("providers"), known);
    let stream = fields.optional("stream").map(|node| node.object(&["release", "on_break"]));
    let setting = |key| stream.as_ref().and_then(|fields| fields.optional(key));
    let release = setting("release").map_or(Some(Release::FirstToken), |node| {
        node.word(&[("first_token", Release::FirstToken), ("complete", Release::Complete)])
    });
    let on_break = setting("on_break").map_or(Some(OnBreak::Reset), |node| {
        node.word(&[("reset", OnBreak::Reset), ("event", OnBreak::Event)])
    });
    let limits = route_limits(fields.optional("limits"), limits);
    let retry = fields.optional("retry").map(|node| node.object(&["second_opinion"]));
    let shadow = fields.optional("shadow").zip(name);
    let shadow = shadow.and_then(|(node, name)| shadows::shadow(node, name, known));
    let path = path?;
    let users = candidates.iter().flatten().map(|id| ("providers", id));
    for (key, id) in users.chain(shadow.iter().map(|shadow| ("shadow", &shadow.provider))) {
        let found = fields.optional(key).zip(providers.get(id.0));
        if let Some((node, provider)) = found.filter(|(_, provider)| !provider.dialect.supports(path.1)) {
            node.report(format!(
                "the provider {:?} speaks a format without {}",
                provider.name,
                path.1.suffix()
            ));
        }
    }
    Some(Route {
        name: name?.into(),
        path: path.0,
        endpoint: path.1,
        model: model?,
        providers: candidates?,
        policy: policy?.into(),
        release: release?,
        on_break: on_break?,
        limits,
        second_opinion: retry.as_ref().and_then(second_opinion),
        shadow,
    })
}

/// The limits of a route. The word for the limit of an answer alone is short for the object with it.
fn route_limits(node: Option<&Node<'_>>, limits: Limits) -> Limits {
    const WORDS: [(&str, bool); 2] = [("skip", false), ("clamp", true)];
    let clamps = |node: &Node<'_>| node.word(&WORDS).unwrap_or_default();
    match node {
        None => limits,
        Some(node) if matches!(node.json, Json::Text(_)) => Limits { clamps_output: clamps(node), ..limits },
        Some(node) => {
            let fields = node.object(&["first_token", "answer", "total", "max_output"]);
            let clamps_output = fields.optional("max_output").is_some_and(clamps);
            Limits { clamps_output, ..time_limits(&fields, limits) }
        }
    }
}

const PATH: &str = "a path that ends with \"/chat/completions\", \"/completions\", \"/embeddings\" or \"/responses\", such as \"/v1/chat/completions\"";

fn route_path(node: &Node<'_>) -> Option<(String, Endpoint)> {
    let text = node.text(PATH)?;
    let endpoint = Endpoint::of(text).filter(|_| text.starts_with('/') && !text.contains(['?', '#']));
    if endpoint.is_none() {
        node.expected(PATH);
    }
    Some((text.to_owned(), endpoint?))
}

fn model_pattern(text: &str) -> ModelPattern {
    match text.strip_suffix('*') {
        Some(start) => ModelPattern::StartsWith(start.to_owned()),
        None => ModelPattern::Exactly(text.to_owned()),
    }
}

fn candidates(node: &Node<'_>, providers: &[Provider], configured: &Names<'_>) -> Vec<ProviderId> {
    let nodes = node.list("a list of providers");
    let mut names: Vec<&str> = Vec::new();
    for node in &nodes {
        let known = node.one_of(&configured.all).is_some();
        let Json::Text(name) = node.json else { continue };
        if names.contains(&name.as_str()) {
            node.report("appears twice");
        } else if known {
            names.push(name);
        }
    }
    if nodes.is_empty() && node.is_list() {
        node.report("expected at least one provider, found none");
    } else if !names.is_empty() && names.iter().all(|name| configured.left_out.contains(name)) {
        node.report("none of these providers has a key: the route could serve no request");
    }
    let place = |name: &&str| providers.iter().position(|provider| provider.name == **name);
    names.iter().filter_map(place).map(ProviderId).collect()
}

fn passthrough(node: Option<&Node<'_>>, providers: &[Provider], configured: &Names<'_>) -> Vec<Passthrough> {
    const PATH: &str = "a path such as \"/v1/files\", or the beginning of one with \"*\" at its end";
    let Some(node) = node else { return Vec::new() };
    let mut found = Vec::new();
    for node in node.list("a list of paths with their providers") {
        let fields = node.object(&["path", "provider"]);
        let path = fields.required("path", PATH).and_then(|node| {
            let text = node.text(PATH).filter(|text| text.starts_with('/') && !text.contains(['?', '#']));
            if text.is_none() {
                node.expected(PATH);
            }
            Some(model_pattern(text?))
        });
        let Some(node) = fields.required("provider", "a provider") else { continue };
        let Some(place) = node.one_of(&configured.all) else { continue };
        let name = configured.all.get(place);
        let provider = providers.iter().position(|provider| Some(&provider.name.as_str()) == name);
        // A provider that is left out for lack of a key gets no path.
        found.extend(
            path.zip(provider).map(|(path, place)| Passthrough { path, provider: ProviderId(place) }),
        );
    }
    found
}

fn limits(node: Option<&Node<'_>>) -> (Limits, Sizes) {
    let defaults = Limits { first_token: FIRST_TOKEN, answer: ANSWER, total: None, clamps_output: false };
    let Some(node) = node else {
        return (defaults, Sizes { max_request: MAX_REQUEST as usize, max_held: MAX_HELD as usize });
    };
    let fields = node.object(&["first_token", "answer", "total", "max_request_bytes", "max_held_bytes"]);
    let size = |key: &str, default: u64| {
        fields.optional(key).and_then(|node| node.whole(1024, LARGEST)).unwrap_or(default) as usize
    };
    let sizes = Sizes {
        max_request: size("max_request_bytes", MAX_REQUEST),
        max_held: size("max_held_bytes", MAX_HELD),
    };
    (time_limits(&fields, defaults), sizes)
}

fn time_limits(fields: &Object<'_>, defaults: Limits) -> Limits {
    let limit = |key: &str| fields.optional(key).and_then(|node| node.duration(MILLISECOND, DAY));
    Limits {
        first_token: limit("first_token").unwrap_or(defaults.first_token),
        answer: limit("answer").unwrap_or(defaults.answer),
        total: limit("total").or(defaults.total),
        ..defaults
    }
}

fn breaker(node: Option<&Node<'_>>) -> BreakerPolicy {
    let mut policy = BreakerPolicy {
        consecutive_failures: CONSECUTIVE_FAILURES as u16,
        error_rate: ERROR_RATE,
        minimum_requests: MINIMUM_REQUESTS as u32,
        window: WINDOW,
        open: OPEN,
        max_open: MAX_OPEN,
        probes: PROBES as u8,
    };
    let Some(node) = node else { return policy };
    let fields = node.object(&[
        "consecutive_failures",
        "error_rate",
        "minimum_requests",
        "window",
        "open",
        "max_open",
        "probes",
    ]);
    let whole = |key: &str, most: u64| fields.optional(key).and_then(|node| node.whole(1, most));
    let time = |key: &str| fields.optional(key).and_then(|node| node.duration(MILLISECOND * 100, DAY));
    if let Some(value) = whole("consecutive_failures", u16::MAX.into()) {
        policy.consecutive_failures = value as u16;
    }
    if let Some(value) = fields.optional("error_rate").and_then(|node| node.number(0.01, 1.0)) {
        policy.error_rate = value;
    }
    if let Some(value) = whole("minimum_requests", u32::MAX.into()) {
        policy.minimum_requests = value as u32;
    }
    policy.window = time("window").unwrap_or(policy.window);
    policy.open = time("open").unwrap_or(policy.open);
    // If only one of the two is given, it must not contradict the default of the other.
    policy.max_open = time("max_open").unwrap_or(MAX_OPEN.max(policy.open));
    if let Some(value) = whole("probes", u8::MAX.into()) {
        policy.probes = value as u8;
    }
    if policy.max_open < policy.open {
        if let Some(node) = fields.optional("max_open") {
            node.report(format!(
                "expected at least {} (the value of \"open\"), found {}",
                shown(policy.open),
                shown(policy.max_open)
            ));
        }
    }
    policy
}

fn holds(node: Option<&Node<'_>>) -> HoldPolicy {
    let mut policy = HoldPolicy {
        rate_limited: RATE_LIMITED,
        out_of_quota: OUT_OF_QUOTA,
        bad_key: BAD_KEY,
        no_such_model: NO_SUCH_MODEL,
        max: MAX_HOLD,
    };
    let Some(node) = node else { return policy };
    let fields = node.object(&["rate_limited", "out_of_quota", "bad_key", "no_such_model", "max"]);
    for (key, slot) in [
        ("rate_limited", &mut policy.rate_limited),
        ("out_of_quota", &mut policy.out_of_quota),
        ("bad_key", &mut policy.bad_key),
        ("no_such_model", &mut policy.no_such_model),
        ("max", &mut policy.max),
    ] {
        if let Some(value) = fields.optional(key).and_then(|node| node.duration(MILLISECOND * 100, DAY)) {
            *slot = value;
        }
    }
    policy
}

fn second_opinion(fields: &Object<'_>) -> Option<bool> {
    fields.optional("second_opinion").and_then(Node::boolean)
}

fn retry(node: Option<&Node<'_>>) -> Retry {
    let mut retry =
        Retry { attempts: None, same_provider: SAME_PROVIDER as u32, wait: WAIT, second_opinion: true };
    let Some(node) = node else { return retry };
    let fields = node.object(&["attempts", "same_provider", "wait", "second_opinion"]);
    retry.attempts =
        fields.optional("attempts").and_then(|node| node.whole(1, MOST_ATTEMPTS)).map(|value| value as u32);
    if let Some(value) = fields.optional("same_provider").and_then(|node| node.whole(0, 10)) {
        retry.same_provider = value as u32;
    }
    if let Some(value) = fields.optional("wait").and_then(|node| node.duration(Duration::ZERO, LONGEST_WAIT))
    {
        retry.wait = value;
    }
    retry.second_opinion = second_opinion(&fields).unwrap_or(retry.second_opinion);
    retry
}
