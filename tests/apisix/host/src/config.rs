//! `config.yaml` and `apisix.yaml`: what of them APISIX does for the filter. What the stand-in does not know is an
//! error, so that no test passes because something was ignored.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;

use crate::nginx::Nginx;

/// `config.yaml`
pub struct Static {
    pub listeners: Vec<SocketAddr>,
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
    pub modified: SystemTime,
    /// By priority, then by length of the path: the order in which they are tried.
    pub routes: Vec<std::sync::Arc<Route>>,
    /// Key of `key-auth` to the consumer's name.
    pub consumers: HashMap<String, String>,
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
    /// The same for the same upstream in every version of the file.
    pub key: String,
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
    pub active: Option<Active>,
    pub passive: Option<Passive>,
}

#[derive(Clone, Debug)]
pub struct Active {
    pub timeout: Duration,
    pub interval: Duration,
    pub successes: u64,
    pub failures: u64,
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
        let settings = &file["nginx_config"];
        let snippet = |name: &str| settings[name].as_str().unwrap_or_default();
        Ok(Static {
            listeners,
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
    /// Reads the file. `wasm` is `None` if the filter did not load: its routes are not there then.
    pub fn read(path: &Path, version: u64, wasm: &Wasm, loaded: bool) -> Result<Apisix, String> {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if text.trim_end().lines().last() != Some("#END") {
            return Err("apisix.yaml does not end with #END".to_owned());
        }
        let file = parse_yaml(&text)?;
        known(
            &file,
            "apisix.yaml",
            &["routes", "plugin_configs", "upstreams", "services", "consumers", "global_rules"],
        )?;
        let items = |name: &str| file[name].as_array().cloned().unwrap_or_default();
        let by_id = |name: &str| -> HashMap<String, Json> {
            items(name).into_iter().map(|item| (id(&item["id"]), item)).collect()
        };
        let shared = Shared {
            plugin_configs: by_id("plugin_configs"),
            upstreams: by_id("upstreams"),
            services: by_id("services"),
            wasm,
            loaded,
        };
        let mut routes = Vec::new();
        for entry in items("routes") {
            if let Some(route) = shared.route(&entry, version)? {
                routes.push(std::sync::Arc::new(route));
            }
        }
        let length = |route: &Route| route.uris.iter().map(String::len).max().unwrap_or(0);
        routes.sort_by_key(|route| std::cmp::Reverse((route.priority, length(route))));
        let consumers = items("consumers")
            .iter()
            .filter_map(|consumer| {
                let key = consumer["plugins"]["key-auth"]["key"].as_str()?;
                Some((key.to_owned(), consumer["username"].as_str()?.to_owned()))
            })
            .collect();
        Ok(Apisix {
            version,
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            routes,
            consumers,
        })
    }
}

struct Shared<'a> {
    plugin_configs: HashMap<String, Json>,
    upstreams: HashMap<String, Json>,
    services: HashMap<String, Json>,
    wasm: &'a Wasm,
    loaded: bool,
}

impl Shared<'_> {
    /// A route; `None` if APISIX drops it because it has a plugin that did not load.
    fn route(&self, entry: &Json, version: u64) -> Result<Option<Route>, String> {
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
        let service = match entry.get("service_id") {
            Some(name) => self.services.get(&self::id(name)).ok_or(format!("{at}: no service {name}"))?,
            None => &Json::Null,
        };
        let config = match entry.get("plugin_config_id") {
            Some(name) => {
                self.plugin_configs.get(&self::id(name)).ok_or(format!("{at}: no plugin_config {name}"))?
            }
            None => &Json::Null,
        };
        // The route's own win, then those of the plugin_config, then the service's.
        let mut merged = serde_json::Map::new();
        for source in [service, config, entry] {
            for (name, conf) in source["plugins"].as_object().into_iter().flatten() {
                merged.insert(name.clone(), conf.clone());
            }
        }
        if merged.contains_key(&self.wasm.name) && !self.loaded {
            return Ok(None);
        }
        let mut plugins = merged
            .iter()
            .map(|(name, conf)| self.plugin(name, conf).map_err(|error| format!("{at}: {name}: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        plugins.sort_by_key(|plugin| std::cmp::Reverse(plugin.priority));
        let upstream = [entry, service]
            .iter()
            .find_map(|source| match source.get("upstream_id") {
                Some(name) => {
                    Some(self.upstreams.get(&self::id(name)).ok_or(format!("{at}: no upstream {name}")))
                }
                None => source.get("upstream").map(Ok),
            })
            .ok_or(format!("{at}: no upstream"))??;
        let mut upstream =
            self.upstream(upstream, &id).map_err(|error| format!("{at}: upstream: {error}"))?;
        if let Some(timeout) = entry.get("timeout") {
            upstream.timeouts(timeout);
        }
        let mut uris = strings(&entry["uris"]);
        uris.extend(entry["uri"].as_str().map(str::to_owned));
        let vars = entry["vars"].as_array().cloned().unwrap_or_default();
        Ok(Some(Route {
            id,
            version,
            uris,
            methods: strings(&entry["methods"]),
            vars,
            priority: entry["priority"].as_i64().unwrap_or(0),
            plugins,
            upstream,
        }))
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
            name if name == self.wasm.name => {
                known(conf, name, &["conf"])?;
                let conf = match &conf["conf"] {
                    Json::String(text) if !text.is_empty() => text.clone(),
                    conf @ Json::Object(_) => lua_json(conf),
                    _ => return Err("conf: neither an object nor a text".to_owned()),
                };
                (self.wasm.priority, Kind::Wasm { conf })
            }
            _ => return Err("the stand-in does not know this plugin".to_owned()),
        };
        Ok(Plugin { priority, kind })
    }

    fn upstream(&self, entry: &Json, route: &str) -> Result<Upstream, String> {
        known(
            entry,
            "upstream",
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
            return Err("the stand-in speaks no TLS: scheme must be http".to_owned());
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
            key: entry
                .get("id")
                .map_or_else(|| format!("route {route}"), |id| format!("upstream {}", self::id(id))),
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
    let seconds = |value: &Json, default: f64| Duration::from_secs_f64(value.as_f64().unwrap_or(default));
    let numbers =
        |value: &Json| value.as_array().into_iter().flatten().filter_map(Json::as_u64).collect::<Vec<_>>();
    let active = match entry.get("active") {
        Some(active) if active["type"] == "tcp" => {
            let (good, bad) = (&active["healthy"], &active["unhealthy"]);
            Some(Active {
                timeout: seconds(&active["timeout"], 1.0),
                interval: seconds(&bad["interval"], 1.0).min(seconds(&good["interval"], 1.0)),
                successes: good["successes"].as_u64().unwrap_or(2),
                failures: bad["tcp_failures"].as_u64().unwrap_or(2),
            })
        }
        Some(_) => return Err("the stand-in knows active checks of type tcp".to_owned()),
        None => None,
    };
    let passive = entry.get("passive").map(|passive| Passive {
        healthy: numbers(&passive["healthy"]["http_statuses"]),
        successes: passive["healthy"]["successes"].as_u64().unwrap_or(5),
        unhealthy: numbers(&passive["unhealthy"]["http_statuses"]),
        http_failures: passive["unhealthy"]["http_failures"].as_u64().unwrap_or(5),
        tcp_failures: passive["unhealthy"]["tcp_failures"].as_u64().unwrap_or(2),
        timeouts: passive["unhealthy"]["timeouts"].as_u64().unwrap_or(7),
    });
    Ok(Checks { active, passive })
}

/// JSON as Lua writes it: the order of keys is arbitrary (here: the last first), and a slash is escaped.
fn lua_json(value: &Json) -> String {
    match value {
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
    parse_yaml(&text)
}

fn parse_yaml(text: &str) -> Result<Json, String> {
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}
