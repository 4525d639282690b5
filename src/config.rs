//! The configuration: valid by construction. A [`Config`] that exists can be used without another check.
//!
//! [`Config::parse`] reads the JSON document that both gateways share, with the environment as an argument, and reports
//! every problem at once. `docs/configuration.md` describes each key for the user; the defaults are the constants below.

mod error;
mod raw;

use std::time::Duration;

use crate::breaker::{HoldPolicy, Policy as BreakerPolicy};
use crate::policy::Policy;
use crate::provider::{ApiKey, Model, Provider, ProviderId};
use error::Problem;
pub use error::Problems;
use raw::{Json, Node, Object, Sink};

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

/// 15 s: slower first tokens exist (long reasoning), but a user has given up by then.
const FIRST_TOKEN: Duration = Duration::from_secs(15);
/// 5 min: what long answers of reasoning models take whole.
const ANSWER: Duration = Duration::from_secs(300);
/// 20 MiB: a chat with several images in base64.
const MAX_REQUEST: u64 = 20 << 20;
/// 8 MiB: far above any text answer; audio and images in an answer pass unjudged beyond it.
const MAX_HELD: u64 = 8 << 20;
/// Envoy's limits in `envoy/` are 32 MiB; a bound above that would be answered by Envoy instead.
const LARGEST: u64 = 32 << 20;
/// 5: linkerd's and Envoy's outlier detection use the same.
const CONSECUTIVE_FAILURES: u64 = 5;
/// Half of the requests: below it, trying is still worth more than not trying.
const ERROR_RATE: f64 = 0.5;
/// 20: with fewer, one bad moment would be a rate.
const MINIMUM_REQUESTS: u64 = 20;
/// 30 s: long enough for a rate at one request a second.
const WINDOW: Duration = Duration::from_secs(30);
/// 10 s: a restart of a provider's instance.
const OPEN: Duration = Duration::from_secs(10);
/// 5 min: no recovery goes unnoticed for longer.
const MAX_OPEN: Duration = Duration::from_secs(300);
/// One probe closes it: the next failures would open it again, for longer.
const PROBES: u64 = 1;
/// Once: a single bad instance behind the provider's balancer is left that way, more would be a retry storm.
const SAME_PROVIDER: u64 = 1;
/// 3 s: a wait that a person does not notice in a chat answer.
const WAIT: Duration = Duration::from_secs(3);
/// 5 s, growing: most 429 without a time are a matter of seconds.
const RATE_LIMITED: Duration = Duration::from_secs(5);
/// 10 min, growing: somebody must pay first.
const OUT_OF_QUOTA: Duration = Duration::from_secs(600);
/// 5 min, growing: somebody must change a key, and a key may also be refused by mistake.
const BAD_KEY: Duration = Duration::from_secs(300);
/// 5 min, growing: a model appears or a name is corrected.
const NO_SUCH_MODEL: Duration = Duration::from_secs(300);
/// One hour: the longest that a mistake of a provider's header can cost.
const MAX_HOLD: Duration = Duration::from_secs(3600);

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The endpoint that is understood; a route's path ends with it.
pub const CHAT: &str = "/chat/completions";

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
        let config = Self::read(&root, environment);
        let problems = sink.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    /// Reads the whole document, with defaults in the place of what is wrong, so that everything is looked at.
    fn read(root: &Node<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let top = root.object(&["providers", "routes", "limits", "breaker", "retry", "holds"]);
        let mut warnings = Vec::new();
        let (providers, names) = providers(&top, environment, &mut warnings);
        let (limits, sizes) = limits(top.optional("limits"));
        let routes = routes(&top, &providers, &names, limits);
        Self {
            providers,
            routes,
            sizes,
            breaker: breaker(top.optional("breaker")),
            holds: holds(top.optional("holds")),
            retry: retry(top.optional("retry")),
            warnings,
        }
    }

    /// The provider of an id.
    pub fn provider(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(id.0)
    }

    /// The route for a path and model; `Err(true)` if only the model is unknown.
    ///
    /// # Errors
    /// Whether the path at least has a route.
    pub fn route(&self, path: &str, model: &str) -> Result<&Route, bool> {
        let mut on_path = self.routes.iter().filter(|route| route.path == path).peekable();
        if on_path.peek().is_none() {
            return Err(false);
        }
        on_path.find(|route| route.model.matches(model)).ok_or(true)
    }

    /// Whether any route has this path.
    pub fn has_path(&self, path: &str) -> bool {
        self.routes.iter().any(|route| route.path == path)
    }
}

/// The providers with a key, and the names of all that are configured.
fn providers<'a>(
    top: &Object<'a>,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> (Vec<Provider>, Vec<&'a str>) {
    let Some(node) = top.required("providers", "an object of providers") else { return Default::default() };
    let entries = node.entries("an object of providers");
    if entries.is_empty() && matches!(node.json, Json::Object(_)) {
        node.report("expected at least one provider, found none");
    }
    let mut providers = Vec::new();
    for (name, node) in &entries {
        if !is_name(name) {
            node.report("expected a name of lower-case letters, digits, \"-\" and \"_\", at most 64");
        }
        providers.extend(provider(name, node, environment, warnings));
    }
    (providers, entries.iter().map(|(name, _)| *name).collect())
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}

/// `None` if it is optional and has no key, or if something is wrong with it.
fn provider(
    name: &str,
    node: &Node<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Option<Provider> {
    const KEYS: [&str; 7] = ["host", "path_prefix", "api_key", "dialect", "models", "optional", "allow_headers"];
    let fields = node.object(&KEYS);
    let host = fields.required("host", "a host name").and_then(host);
    let path_prefix = fields.optional("path_prefix").map_or(Some("/v1".to_owned()), path_prefix);
    // The vendors whose words are known. All speak OpenAI's format, and are read alike.
    if let Some(dialect) = fields.optional("dialect") {
        dialect.word(&[("openai", ()), ("deepseek", ())]);
    }
    let models = fields.required("models", "an object of models").map(models);
    let optional = fields.optional("optional").and_then(Node::boolean).unwrap_or(false);
    let allow_headers = fields.optional("allow_headers").map(allow_headers).unwrap_or_default();
    let key = fields
        .required("api_key", "the name of an environment variable, such as \"$OPENAI_API_KEY\"")
        .map(|node| api_key(node, environment, optional))?;
    if let Key::LeftOut(variable) = &key {
        warnings.push(format!("provider {name:?} is left out: {variable} is not set, and it is optional"));
    }
    let Key::Found(api_key) = key else { return None };
    let name = name.to_owned();
    Some(Provider { name, host: host?, path_prefix: path_prefix?, api_key, models: models?, allow_headers })
}

enum Key {
    Found(ApiKey),
    /// Not set, and that is allowed; with the variable's name.
    LeftOut(String),
    Wrong,
}

fn api_key(node: &Node<'_>, environment: &dyn Fn(&str) -> Option<String>, optional: bool) -> Key {
    let variable = match node.json {
        Json::Text(text) => text.strip_prefix('$').filter(|name| is_variable(name)),
        _ => None,
    };
    // What was found is not shown: it may be the key itself.
    let Some(variable) = variable else {
        node.report("expected the name of an environment variable, such as \"$OPENAI_API_KEY\", found something else (a literal key is refused)");
        return Key::Wrong;
    };
    match environment(variable).filter(|value| !value.trim().is_empty()) {
        Some(value) => match ApiKey::new(&value) {
            Ok(key) => Key::Found(key),
            Err(what) => {
                node.report(format!("the environment variable {variable} {what}"));
                Key::Wrong
            }
        },
        None if optional => Key::LeftOut(variable.to_owned()),
        None => {
            node.report(format!(
                "the environment variable {variable} is not set (set it where the gateway starts and let it through to the filter, or make the provider \"optional\": true)"
            ));
            Key::Wrong
        }
    }
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn host(node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "a host name, with a port if it is not the default, such as \"api.openai.com\"";
    let text = node.text(WHAT)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !text.bytes().all(allowed) {
        node.expected(WHAT);
        return None;
    }
    Some(text.to_owned())
}

/// `/` and nothing are the same: no prefix.
fn path_prefix(node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "a path such as \"/v1\" or \"/\"";
    let text = node.text(WHAT)?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'\\');
    if !text.starts_with('/') || !text.bytes().all(allowed) {
        node.expected(WHAT);
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// Headers that carry a client's identity or steer the gateway never cross, whatever the configuration says.
fn allow_headers(node: &Node<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for node in node.list("a list of header names") {
        let Some(text) = node.text("a header name") else { continue };
        let name = text.to_ascii_lowercase();
        if !is_name(&name) {
            node.expected("a header name");
        } else if crate::rewrite::never_crosses(&name) {
            node.report(format!("the header {name:?} never reaches a provider"));
        } else {
            names.push(name);
        }
    }
    names
}

fn models(node: &Node<'_>) -> Vec<Model> {
    let entries = node.entries("an object of models");
    if entries.is_empty() && matches!(node.json, Json::Object(_)) {
        node.report("expected at least one model, such as {\"*\": \"*\"}, found none");
    }
    entries.iter().filter_map(|(alias, node)| model(alias, node)).collect()
}

fn model(alias: &str, node: &Node<'_>) -> Option<Model> {
    const WHAT: &str = "the provider's name for the model, or an object with it";
    let alias = alias.to_owned();
    if let Json::Object(_) = node.json {
        let fields = node.object(&["name", "context", "quality", "price"]);
        let name = fields.required("name", WHAT)?.text(WHAT)?.to_owned();
        let context = fields.optional("context").and_then(|node| node.whole(1, 100_000_000));
        // Kept for policies and cost accounting, which read them; checked here so that a mistake is found today.
        if let Some(quality) = fields.optional("quality") {
            quality.number(0.0, 1.0);
        }
        if let Some(price) = fields.optional("price") {
            let price = price.object(&["input", "cached_input", "output"]);
            for key in ["input", "cached_input", "output"] {
                if let Some(node) = price.optional(key) {
                    node.number(0.0, 1_000_000.0);
                }
            }
        }
        return Some(Model { alias, name, context });
    }
    Some(Model { alias, name: node.text(WHAT)?.to_owned(), context: None })
}

fn routes(top: &Object<'_>, providers: &[Provider], configured: &[&str], limits: Limits) -> Vec<Route> {
    let Some(node) = top.required("routes", "a list of routes") else { return Vec::new() };
    let nodes = node.list("a list of routes");
    if nodes.is_empty() && matches!(node.json, Json::List(_)) {
        node.report("expected at least one route, found none");
    }
    let mut routes: Vec<Route> = Vec::new();
    for node in &nodes {
        let route = route(node, providers, configured, limits);
        if routes.iter().any(|other| Some(&other.name) == route.as_ref().map(|route| &route.name)) {
            node.report("another route has the same name");
        }
        routes.extend(route);
    }
    routes
}

fn route(node: &Node<'_>, providers: &[Provider], configured: &[&str], limits: Limits) -> Option<Route> {
    let fields = node.object(&["name", "match", "providers", "policy", "stream", "limits"]);
    let name = fields.required("name", "a name").and_then(|node| node.text("a name"));
    let matching = fields.required("match", "an object with a path").map(|node| node.object(&["path", "model"]));
    let path = matching.as_ref().and_then(|matching| matching.required("path", PATH)).and_then(route_path);
    let model = matching.as_ref().and_then(|matching| matching.optional("model")).map_or_else(
        || Some(ModelPattern::StartsWith(String::new())),
        |node| Some(model_pattern(node.text("a model, or the beginning of one with \"*\" at its end")?)),
    );
    let candidates = fields
        .required("providers", "a list of providers")
        .map(|node| candidates(node, providers, configured));
    let policy = fields.optional("policy").map_or(Some(Policy::Priority), |node| {
        let fields = node.object(&["type"]);
        fields.required("type", "a policy")?.word(&[("priority", Policy::Priority)])
    });
    let release = fields.optional("stream").map_or(Some(Release::FirstToken), |node| {
        let fields = node.object(&["release"]);
        fields.optional("release").map_or(Some(Release::FirstToken), |node| {
            node.word(&[("first_token", Release::FirstToken), ("complete", Release::Complete)])
        })
    });
    let limits = fields.optional("limits").map_or(limits, |node| {
        let fields = node.object(&["first_token", "answer"]);
        attempt_limits(&fields, limits)
    });
    Some(Route {
        name: name?.to_owned(),
        path: path?,
        model: model?,
        providers: candidates?,
        policy: policy?,
        release: release?,
        limits,
    })
}

const PATH: &str = "a path that ends with \"/chat/completions\", such as \"/v1/chat/completions\"";

fn route_path(node: &Node<'_>) -> Option<String> {
    let text = node.text(PATH)?;
    if !text.starts_with('/') || !text.ends_with(CHAT) || text.contains(['?', '#']) {
        node.expected(PATH);
        return None;
    }
    Some(text.to_owned())
}

fn model_pattern(text: &str) -> ModelPattern {
    match text.strip_suffix('*') {
        Some(start) => ModelPattern::StartsWith(start.to_owned()),
        None => ModelPattern::Exactly(text.to_owned()),
    }
}

fn candidates(node: &Node<'_>, providers: &[Provider], configured: &[&str]) -> Vec<ProviderId> {
    let nodes = node.list("a list of providers");
    let mut ids = Vec::new();
    let mut sound = true;
    for node in &nodes {
        let words: Vec<(&str, ())> = configured.iter().map(|name| (*name, ())).collect();
        sound &= node.word(&words).is_some();
        let Json::Text(name) = node.json else { continue };
        // A configured provider that is not among those with a key was left out or reported already.
        let Some(place) = providers.iter().position(|provider| provider.name == *name) else { continue };
        if ids.contains(&ProviderId(place)) {
            node.report("is there twice");
        } else {
            ids.push(ProviderId(place));
        }
    }
    let left_out = nodes.iter().all(|node| matches!(node.json, Json::Text(name) if configured.contains(&name.as_str())));
    if nodes.is_empty() && matches!(node.json, Json::List(_)) {
        node.report("expected at least one provider, found none");
    } else if ids.is_empty() && sound && left_out {
        node.report("none of these providers has a key: the route could serve nobody");
    }
    ids
}

fn limits(node: Option<&Node<'_>>) -> (Limits, Sizes) {
    let defaults = Limits { first_token: FIRST_TOKEN, answer: ANSWER };
    let Some(node) = node else {
        return (defaults, Sizes { max_request: MAX_REQUEST as usize, max_held: MAX_HELD as usize });
    };
    let fields = node.object(&["first_token", "answer", "max_request_bytes", "max_held_bytes"]);
    let size = |key: &str, default: u64| {
        fields.optional(key).and_then(|node| node.whole(1024, LARGEST)).unwrap_or(default) as usize
    };
    let sizes = Sizes {
        max_request: size("max_request_bytes", MAX_REQUEST),
        max_held: size("max_held_bytes", MAX_HELD),
    };
    (attempt_limits(&fields, defaults), sizes)
}

fn attempt_limits(fields: &Object<'_>, defaults: Limits) -> Limits {
    let limit = |key: &str, default| {
        fields.optional(key).and_then(|node| node.duration(MILLISECOND, DAY)).unwrap_or(default)
    };
    Limits { first_token: limit("first_token", defaults.first_token), answer: limit("answer", defaults.answer) }
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
    // A short `open` alone, or a long one, must not contradict the default of the other.
    policy.max_open = time("max_open").unwrap_or(MAX_OPEN.max(policy.open));
    if let Some(value) = whole("probes", u8::MAX.into()) {
        policy.probes = value as u8;
    }
    if policy.max_open < policy.open {
        if let Some(node) = fields.optional("max_open") {
            node.report(format!("expected at least {:?} (the value of \"open\"), found {:?}", policy.open, policy.max_open));
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

fn retry(node: Option<&Node<'_>>) -> Retry {
    let mut retry = Retry { attempts: None, same_provider: SAME_PROVIDER as u32, wait: WAIT };
    let Some(node) = node else { return retry };
    let fields = node.object(&["attempts", "same_provider", "wait"]);
    retry.attempts = fields.optional("attempts").and_then(|node| node.whole(1, 100)).map(|value| value as u32);
    if let Some(value) = fields.optional("same_provider").and_then(|node| node.whole(0, 10)) {
        retry.same_provider = value as u32;
    }
    if let Some(value) = fields.optional("wait").and_then(|node| node.duration(Duration::ZERO, DAY)) {
        retry.wait = value;
    }
    retry
}
