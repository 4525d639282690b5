//! `config.yaml` and `apisix.yaml`: what of them APISIX does for the filter. What the stand-in does not know is an
//! error, so that no test passes because something was ignored.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{json, Value as Json};

use crate::nginx::Nginx;
use crate::yaml;

/// `config.yaml`
pub struct Static {
    pub listeners: Vec<SocketAddr>,
    /// Of the control API; `None` if it is switched off.
    pub control: Option<SocketAddr>,
    /// The names in `plugins`; `None` if there is no such list, and APISIX's own counts.
    plugins: Option<HashSet<String>>,
    /// `apisix.enable_http2`: a client may speak HTTP/2 on each listener, if it does so from its first byte on.
    pub http2: bool,
    pub wasm: Wasm,
    pub nginx: Nginx,
    /// Names of `nginx_config.envs`.
    pub environment: Vec<String>,
}

/// The entry of `wasm.plugins`.
pub struct Wasm {
    pub name: String,
    pub priority: i64,
    pub file: PathBuf,
    /// `http_request_phase: access`; otherwise `rewrite`.
    pub in_access: bool,
}

/// `apisix.yaml`, with everything that is referred to by an id in its place.
pub struct Apisix {
    /// Counts up with each edit.
    pub version: u64,
    /// In whole seconds: APISIX takes no notice of an edit within the second of the one before.
    pub modified: u64,
    /// By priority, then by length of the path: the order in which they are tried.
    pub routes: Vec<std::sync::Arc<Route>>,
    /// Key of `key-auth` to the consumer's name.
    pub consumers: HashMap<String, String>,
    /// The upstreams that have checks, in the order in which the control API lists them.
    pub checked: Vec<Upstream>,
}

pub struct Route {
    pub id: String,
    pub version: u64,
    uris: Vec<String>,
    methods: Vec<String>,
    vars: Vec<Json>,
    priority: i64,
    pub plugins: Vec<Plugin>,
    pub upstream: Upstream,
    /// Each request gets this page: what the route refers to is not there, or was refused.
    pub page: Option<u16>,
}

/// A plugin of a route. Sorted by priority, highest first.
#[derive(Clone)]
pub struct Plugin {
    pub priority: i64,
    pub kind: Kind,
}

#[derive(Clone)]
pub enum Kind {
    /// `serverless-pre-function`, `serverless-post-function`.
    Serverless {
        phase: String,
        functions: Vec<String>,
    },
    KeyAuth {
        header: String,
    },
    /// The filter, with its configuration as it gets it.
    Wasm {
        conf: String,
    },
    ProxyBuffering {
        disable: bool,
    },
    /// Does nothing that the filter could notice.
    Silent,
}

#[derive(Clone)]
pub struct Upstream {
    /// What APISIX calls it: the same for the same upstream in every version of the file.
    pub key: String,
    /// Of the file that it is from.
    pub version: u64,
    pub nodes: Vec<Node>,
    pub retries: usize,
    pub pass_host: PassHost,
    pub connect: Duration,
    pub send: Duration,
    pub read: Duration,
    pub checks: Option<Checks>,
}

#[derive(Clone, PartialEq)]
pub enum PassHost {
    Pass,
    Node,
    Rewrite(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub host: String,
    pub port: u16,
    pub priority: i64,
}

/// Health checks: `active` by TCP, `passive` by what live requests came to.
#[derive(Clone, Debug)]
pub struct Checks {
    pub active: Active,
    pub passive: Option<Passive>,
}

#[derive(Clone, Debug)]
pub struct Active {
    pub timeout: Duration,
    /// Between two checks of a node that is up.
    pub healthy_interval: Duration,
    /// Between two checks of a node that is not.
    pub unhealthy_interval: Duration,
    pub successes: u64,
    pub tcp_failures: u64,
    pub timeouts: u64,
}

#[derive(Clone, Debug)]
pub struct Passive {
    pub healthy: Vec<u64>,
    pub successes: u64,
    pub unhealthy: Vec<u64>,
    pub http_failures: u64,
    pub tcp_failures: u64,
    pub timeouts: u64,
}

/// APISIX's priorities of the plugins that are known here.
const PRE_FUNCTION: i64 = 10000;
const KEY_AUTH: i64 = 2500;
const POST_FUNCTION: i64 = -2000;
const PROXY_BUFFERING: i64 = 21991;

impl Static {
    pub fn read(path: &Path) -> Result<Static, String> {
        let file = read_yaml(path)?;
        let listeners = match &file["apisix"]["node_listen"] {
            Json::Array(all) => all.iter().map(listener).collect::<Result<_, _>>()?,
            one => vec![listener(one)?],
        };
        let http2 = match &file["apisix"]["enable_http2"] {
            Json::Null => true,
            one => one.as_bool().ok_or("apisix.enable_http2: not a boolean")?,
        };
        let [plugin] = file["wasm"]["plugins"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err("wasm.plugins: the stand-in wants exactly one".to_owned());
        };
        known(plugin, "wasm.plugins", &["name", "priority", "http_request_phase", "file"])?;
        let phase = plugin["http_request_phase"].as_str().unwrap_or("access");
        if !["access", "rewrite"].contains(&phase) {
            return Err(format!("http_request_phase: {phase:?}"));
        }
        known(
            &file["apisix"],
            "apisix",
            &["node_listen", "ssl", "enable_control", "control", "enable_http2"],
        )?;
        let control = json!({
            "ip": file["apisix"]["control"]["ip"].as_str().unwrap_or("127.0.0.1"),
            "port": file["apisix"]["control"]["port"].as_u64().unwrap_or(9090),
        });
        let settings = &file["nginx_config"];
        let snippet = |name: &str| settings[name].as_str().unwrap_or_default();
        Ok(Static {
            listeners,
            control: (file["apisix"]["enable_control"] != false).then(|| listener(&control)).transpose()?,
            plugins: file["plugins"].as_array().map(|_| strings(&file["plugins"]).into_iter().collect()),
            http2,
            wasm: Wasm {
                name: string(&plugin["name"], "wasm.plugins.name")?,
                priority: plugin["priority"].as_i64().ok_or("wasm.plugins.priority: missing")?,
                file: string(&plugin["file"], "wasm.plugins.file")?.into(),
                in_access: phase == "access",
            },
            nginx: Nginx::parse(
                snippet("http_configuration_snippet"),
                snippet("http_server_configuration_snippet"),
                snippet("http_server_location_configuration_snippet"),
                settings["http"]["access_log_format"].as_str(),
            )?,
            environment: strings(&settings["envs"]),
        })
    }
}

fn listener(entry: &Json) -> Result<SocketAddr, String> {
    let (ip, port) = match entry {
        Json::Number(port) => ("127.0.0.1", port.as_u64()),
        entry => (entry["ip"].as_str().unwrap_or("127.0.0.1"), entry["port"].as_u64()),
    };
    let ip: IpAddr = ip.parse().map_err(|_| format!("node_listen: {entry}"))?;
    let port = port.and_then(|port| u16::try_from(port).ok()).ok_or(format!("node_listen: {entry}"))?;
    Ok(SocketAddr::new(ip, port))
}

impl Apisix {
    /// Reads the file. `loaded`: the filter is there.
    pub fn read(path: &Path, version: u64, config: &Static, loaded: bool) -> Result<Apisix, String> {
        let modified = modified(path)?;
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        // APISIX looks at the last ten bytes.
        let last = text.get(text.len().saturating_sub(10)..).unwrap_or_default();
        if !last.trim_end().ends_with("#END") {
            return Err("missing valid end flag: apisix.yaml does not end with #END".to_owned());
        }
        let file = yaml::load(&text)?;
        known(
            &file,
            "apisix.yaml",
            &["routes", "plugin_configs", "upstreams", "services", "consumers", "global_rules"],
        )?;
        let items = |name: &str| file[name].as_array().cloned().unwrap_or_default();
        let by_id = |name: &str| -> HashMap<String, Json> {
            items(name).into_iter().map(|item| (id(&item["id"]), item)).collect()
        };
        let mut shared = Shared {
            plugin_configs: by_id("plugin_configs"),
            upstreams: by_id("upstreams"),
            services: by_id("services"),
            config,
            version,
        };
        // An entry with a plugin that is not there is refused as a whole.
        let unknown = |item: &Json| unknown_plugin(&item["plugins"], config, loaded);
        for (kind, all) in
            [("plugin_configs", &mut shared.plugin_configs), ("services", &mut shared.services)]
        {
            all.retain(|_, item| keeps(kind, unknown(item)));
        }
        let (mut routes, mut checked) = (Vec::new(), Vec::new());
        for entry in items("routes") {
            if keeps("routes", unknown(&entry)) {
                let route = shared.route(&entry)?;
                if entry.get("upstream").is_some() {
                    checked.push(route.upstream.clone());
                }
                routes.push(std::sync::Arc::new(route));
            }
        }
        for (kind, inner) in [("services", true), ("upstreams", false)] {
            for item in items(kind) {
                let entry = if inner { item.get("upstream") } else { Some(&item) };
                if let Some(entry) = entry {
                    checked.push(shared.upstream(entry, &format!("/{kind}/{}", id(&item["id"])))?);
                }
            }
        }
        checked.retain(|upstream| upstream.checks.is_some());
        let length = |route: &Route| route.uris.iter().map(String::len).max().unwrap_or(0);
        routes.sort_by_key(|route| std::cmp::Reverse((route.priority, length(route))));
        let consumers = items("consumers")
            .iter()
            .filter_map(|consumer| {
                let key = consumer["plugins"]["key-auth"]["key"].as_str()?;
                Some((key.to_owned(), consumer["username"].as_str()?.to_owned()))
            })
            .collect();
        Ok(Apisix { version, modified, routes, consumers, checked })
    }
}

/// When a file was edited last, in whole seconds, as APISIX compares it.
pub fn modified(path: &Path) -> Result<u64, String> {
    let since = std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(|error| format!("{}: {error}", path.display()))?
        .duration_since(SystemTime::UNIX_EPOCH);
    Ok(since.unwrap_or_default().as_secs())
}

/// A plugin that APISIX does not know: it is missing from `plugins` in config.yaml, or its filter did not load.
fn unknown_plugin(plugins: &Json, config: &Static, loaded: bool) -> Option<String> {
    let is_known = |name: &str| match &config.plugins {
        _ if name == config.wasm.name => loaded,
        Some(all) => all.contains(name),
        None => true,
    };
    plugins.as_object()?.keys().find(|name| !is_known(name)).cloned()
}

fn keeps(kind: &str, unknown: Option<String>) -> bool {
    if let Some(name) = &unknown {
        eprintln!("[error] failed to check item data of [{kind}] err:unknown plugin [{name}]");
    }
    unknown.is_none()
}

struct Shared<'a> {
    plugin_configs: HashMap<String, Json>,
    upstreams: HashMap<String, Json>,
    services: HashMap<String, Json>,
    config: &'a Static,
    version: u64,
}

impl Shared<'_> {
    /// What an id refers to; `Err` with the status of the page that is in its place.
    fn referred<'a>(
        entry: &Json,
        key: &str,
        all: &'a HashMap<String, Json>,
        page: u16,
    ) -> Result<&'a Json, u16> {
        match entry.get(key) {
            Some(name) => all.get(&id(name)).ok_or(page),
            None => Ok(&Json::Null),
        }
    }

    fn route(&self, entry: &Json) -> Result<Route, String> {
        let id = id(&entry["id"]);
        let at = format!("route {id}");
        known(
            entry,
            &at,
            &[
                "id",
                "name",
                "desc",
                "labels",
                "uri",
                "uris",
                "methods",
                "vars",
                "priority",
                "plugin_config_id",
                "plugins",
                "upstream",
                "upstream_id",
                "service_id",
                "timeout",
            ],
        )?;
        if entry.get("plugin_config_id").is_some() && entry["upstream"].get("checks").is_some() {
            return Err(format!(
                "{at}: its checks would never start. With plugin_config_id APISIX gives the route a version of its own \
                 (\"current version: {version}#{version} requested version: {version}\"). Use upstream_id.",
                version = self.version
            ));
        }
        // APISIX looks for the plugin config first.
        let config = Self::referred(entry, "plugin_config_id", &self.plugin_configs, 503);
        let service = Self::referred(entry, "service_id", &self.services, 404);
        let page = config.err().or(service.err());
        let (config, service) = (config.unwrap_or(&Json::Null), service.unwrap_or(&Json::Null));
        // The route's own win, then those of the plugin_config, then the service's.
        let mut merged = serde_json::Map::new();
        for source in [service, config, entry] {
            for (name, conf) in source["plugins"].as_object().into_iter().flatten() {
                merged.insert(name.clone(), conf.clone());
            }
        }
        let mut plugins = merged
            .iter()
            .map(|(name, conf)| self.plugin(name, conf).map_err(|error| format!("{at}: {name}: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        plugins.sort_by_key(|plugin| std::cmp::Reverse(plugin.priority));
        let mut upstream = self.upstream_of(entry, service, &id, page.is_some())?;
        if let Some(timeout) = entry.get("timeout") {
            upstream.timeouts(timeout);
        }
        let mut uris = strings(&entry["uris"]);
        uris.extend(entry["uri"].as_str().map(str::to_owned));
        let vars = entry["vars"].as_array().cloned().unwrap_or_default();
        Ok(Route {
            id,
            version: self.version,
            uris,
            methods: strings(&entry["methods"]),
            vars,
            priority: entry["priority"].as_i64().unwrap_or(0),
            plugins,
            upstream,
            page,
        })
    }

    /// The upstream of a route: its own, then its service's. `broken`: the route comes to no upstream.
    fn upstream_of(
        &self,
        entry: &Json,
        service: &Json,
        route: &str,
        broken: bool,
    ) -> Result<Upstream, String> {
        let at = format!("route {route}");
        for (source, kind) in [(entry, "routes"), (service, "services")] {
            if let Some(name) = source.get("upstream_id").map(id) {
                let upstream = self.upstreams.get(&name).ok_or(format!("{at}: no upstream {name}"))?;
                return self.upstream(upstream, &format!("/upstreams/{name}"));
            }
            if let Some(upstream) = source.get("upstream") {
                let id = if kind == "routes" { route.to_owned() } else { id(&source["id"]) };
                return self.upstream(upstream, &format!("/{kind}/{id}"));
            }
        }
        match broken {
            true => self.upstream(&json!({"nodes": []}), "none"),
            false => Err(format!("{at}: no upstream")),
        }
    }

    fn plugin(&self, name: &str, conf: &Json) -> Result<Plugin, String> {
        let (priority, kind) = match name {
            "serverless-pre-function" => (PRE_FUNCTION, serverless(conf)?),
            "serverless-post-function" => (POST_FUNCTION, serverless(conf)?),
            "key-auth" => {
                known(conf, name, &["header", "hide_credentials", "query"])?;
                (KEY_AUTH, Kind::KeyAuth { header: conf["header"].as_str().unwrap_or("apikey").to_owned() })
            }
            "proxy-buffering" => {
                known(conf, name, &["disable_proxy_buffering"])?;
                let disable = conf["disable_proxy_buffering"].as_bool().unwrap_or(false);
                (PROXY_BUFFERING, Kind::ProxyBuffering { disable })
            }
            "prometheus" | "http-logger" | "file-logger" => (0, Kind::Silent),
            name if name == self.config.wasm.name => {
                known(conf, name, &["conf"])?;
                let conf = match &conf["conf"] {
                    Json::String(text) if !text.is_empty() => text.clone(),
                    conf @ Json::Object(_) => lua_json(conf),
                    _ => return Err("conf: neither an object nor a text".to_owned()),
                };
                (self.config.wasm.priority, Kind::Wasm { conf })
            }
            _ => return Err("the stand-in does not know this plugin".to_owned()),
        };
        Ok(Plugin { priority, kind })
    }

    fn upstream(&self, entry: &Json, key: &str) -> Result<Upstream, String> {
        known(
            entry,
            key,
            &[
                "id",
                "name",
                "type",
                "scheme",
                "nodes",
                "retries",
                "timeout",
                "keepalive_pool",
                "pass_host",
                "upstream_host",
                "checks",
            ],
        )?;
        if entry["scheme"].as_str().unwrap_or("http") != "http" {
            return Err(format!("{key}: the stand-in speaks no TLS: scheme must be http"));
        }
        let nodes = match &entry["nodes"] {
            Json::Array(all) => all.iter().map(node).collect::<Result<Vec<_>, _>>()?,
            Json::Object(all) => {
                all.iter().map(|(address, _)| node_of(address)).collect::<Result<Vec<_>, _>>()?
            }
            _ => return Err("nodes: missing".to_owned()),
        };
        let pass_host = match entry["pass_host"].as_str().unwrap_or("pass") {
            "pass" => PassHost::Pass,
            "node" => PassHost::Node,
            "rewrite" => PassHost::Rewrite(string(&entry["upstream_host"], "upstream_host")?),
            other => return Err(format!("pass_host: {other}")),
        };
        let minute = Duration::from_secs(60);
        let mut upstream = Upstream {
            key: key.to_owned(),
            version: self.version,
            // Without the attribute, each other node is tried once.
            retries: entry["retries"].as_u64().map_or(nodes.len().saturating_sub(1), |count| count as usize),
            nodes,
            pass_host,
            connect: minute,
            send: minute,
            read: minute,
            checks: entry.get("checks").map(checks).transpose()?,
        };
        upstream.timeouts(&entry["timeout"]);
        Ok(upstream)
    }
}

impl Upstream {
    fn timeouts(&mut self, entry: &Json) {
        for (name, field) in
            [("connect", &mut self.connect), ("send", &mut self.send), ("read", &mut self.read)]
        {
            if let Some(seconds) = entry[name].as_f64() {
                *field = Duration::from_secs_f64(seconds);
            }
        }
    }
}

impl Route {
    pub fn wasm_conf(&self) -> Option<&str> {
        self.plugins.iter().find_map(|plugin| match &plugin.kind {
            Kind::Wasm { conf } => Some(conf.as_str()),
            _ => None,
        })
    }

    /// `proxy-buffering` moves the request to another location of nginx.
    pub fn leaves_location(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(plugin.kind, Kind::ProxyBuffering { disable: true }))
    }

    pub fn matches(
        &self,
        method: &str,
        path: &str,
        variable: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<bool, String> {
        let uri = self.uris.iter().any(|uri| match uri.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == uri,
        });
        let method = self.methods.is_empty() || self.methods.iter().any(|one| one == method);
        if !uri || !method {
            return Ok(false);
        }
        all(&self.vars, &variable)
    }
}

fn all(expressions: &[Json], variable: &impl Fn(&str) -> Option<Vec<u8>>) -> Result<bool, String> {
    for expression in expressions {
        if !holds(expression, variable)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One expression of `vars`, in the language of lua-resty-expr.
fn holds(expression: &Json, variable: &impl Fn(&str) -> Option<Vec<u8>>) -> Result<bool, String> {
    let parts = expression.as_array().ok_or(format!("vars: {expression} is no list"))?;
    match parts.as_slice() {
        [Json::String(word), rest @ ..] if word == "OR" => {
            for one in rest {
                if holds(one, variable)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        [Json::String(word), rest @ ..] if word == "AND" => all(rest, variable),
        [Json::String(name), Json::String(operator), wanted] => {
            let value = variable(name).map(|value| String::from_utf8_lossy(&value).into_owned());
            let same = |wanted: &Json| match (wanted, &value) {
                (Json::String(wanted), Some(value)) => wanted == value,
                (Json::Number(wanted), Some(value)) => wanted.to_string() == *value,
                (Json::Null, None) => true,
                _ => false,
            };
            match operator.as_str() {
                "==" => Ok(same(wanted)),
                "~=" => Ok(!same(wanted)),
                "~~" | "~*" => {
                    let flags = if operator == "~*" { "(?i)" } else { "" };
                    let pattern = format!("{flags}{}", wanted.as_str().unwrap_or_default());
                    let pattern = regex::Regex::new(&pattern).map_err(|error| format!("vars: {error}"))?;
                    Ok(value.is_some_and(|value| pattern.is_match(&value)))
                }
                "in" => Ok(wanted.as_array().is_some_and(|all| all.iter().any(same))),
                other => Err(format!("vars: the stand-in knows no operator {other:?}")),
            }
        }
        _ => Err(format!("vars: the stand-in does not know {expression}")),
    }
}

fn serverless(conf: &Json) -> Result<Kind, String> {
    known(conf, "serverless", &["phase", "functions"])?;
    let phase = conf["phase"].as_str().unwrap_or("access").to_owned();
    if !["rewrite", "access", "header_filter", "body_filter", "log", "before_proxy"].contains(&phase.as_str())
    {
        return Err(format!("phase: {phase:?}"));
    }
    Ok(Kind::Serverless { phase, functions: strings(&conf["functions"]) })
}

fn node(entry: &Json) -> Result<Node, String> {
    known(entry, "nodes", &["host", "port", "weight", "priority"])?;
    let port = entry["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(80);
    Ok(Node {
        host: string(&entry["host"], "host")?,
        port,
        priority: entry["priority"].as_i64().unwrap_or(0),
    })
}

fn node_of(address: &str) -> Result<Node, String> {
    let (host, port) = address.split_once(':').unwrap_or((address, "80"));
    Ok(Node {
        host: host.to_owned(),
        port: port.parse().map_err(|_| format!("node {address}"))?,
        priority: 0,
    })
}

fn checks(entry: &Json) -> Result<Checks, String> {
    known(entry, "checks", &["active", "passive"])?;
    let seconds = |value: &Json, default: f64| Duration::from_secs_f64(value.as_f64().unwrap_or(default));
    let numbers =
        |value: &Json| value.as_array().into_iter().flatten().filter_map(Json::as_u64).collect::<Vec<_>>();
    let count = |value: &Json, default: u64| value.as_u64().unwrap_or(default);
    let active = entry.get("active").ok_or("checks: APISIX refuses passive checks without active ones")?;
    if active["type"] != "tcp" {
        return Err("the stand-in knows active checks of type tcp".to_owned());
    }
    let (good, bad) = (&active["healthy"], &active["unhealthy"]);
    let active = Active {
        timeout: seconds(&active["timeout"], 1.0),
        healthy_interval: seconds(&good["interval"], 1.0),
        unhealthy_interval: seconds(&bad["interval"], 1.0),
        successes: count(&good["successes"], 2),
        tcp_failures: count(&bad["tcp_failures"], 2),
        timeouts: count(&bad["timeouts"], 3),
    };
    let passive = entry.get("passive").map(|passive| Passive {
        healthy: numbers(&passive["healthy"]["http_statuses"]),
        successes: count(&passive["healthy"]["successes"], 5),
        unhealthy: numbers(&passive["unhealthy"]["http_statuses"]),
        http_failures: count(&passive["unhealthy"]["http_failures"], 5),
        tcp_failures: count(&passive["unhealthy"]["tcp_failures"], 2),
        timeouts: count(&passive["unhealthy"]["timeouts"], 7),
    });
    Ok(Checks { active, passive })
}

/// JSON as Lua writes it: the order of keys is arbitrary (here: the last first), and a slash is escaped. Lua knows no empty
/// list but only an empty table, which is written as an object; YAML's null is such a table, too.
fn lua_json(value: &Json) -> String {
    match value {
        Json::Null => "{}".to_owned(),
        Json::Array(items) if items.is_empty() => "{}".to_owned(),
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .rev()
                .map(|(key, value)| format!("{}:{}", lua_json(&Json::String(key.clone())), lua_json(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(lua_json).collect::<Vec<_>>().join(",")),
        Json::String(_) => value.to_string().replace('/', "\\/"),
        other => other.to_string(),
    }
}

fn known(entry: &Json, at: &str, keys: &[&str]) -> Result<(), String> {
    for key in entry.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !keys.contains(&key.as_str()) {
            return Err(format!("{at}: the stand-in does not know {key:?}"));
        }
    }
    Ok(())
}

fn id(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn string(value: &Json, at: &str) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or(format!("{at}: missing"))
}

fn strings(value: &Json) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn read_yaml(path: &Path) -> Result<Json, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    yaml::load(&text)
}
