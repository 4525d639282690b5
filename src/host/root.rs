//! The root context of a plugin: which role it has, and its configuration.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType};

use super::apisix::{on_call_response, shared_config, Stream};
use super::envoy::{AttemptFilter, RouterFilter};
use super::{sys, worker};
use crate::config::Config;

/// How often what was counted goes to the host's metrics.
const FLUSH: Duration = Duration::from_secs(1);

/// One plugin: a `router`, or the `attempt` of one provider.
#[derive(Default)]
pub(super) struct Root {
    role: Role,
}

#[derive(Clone, Default)]
enum Role {
    /// Not configured, or wrongly.
    #[default]
    None,
    Router(Rc<Config>),
    /// With the name of its provider, which is the name of the plugin.
    Attempt(Rc<str>),
    /// On APISIX a request says which role it needs. Without a configuration every request is told so: to refuse it here would
    /// have the host answer with a page.
    Either(Option<Rc<Config>>),
}

impl Root {
    /// The document that the host has for this plugin.
    fn document(size: usize) -> String {
        let bytes = sys::buffer(BufferType::PluginConfiguration, 0, size).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The configuration where many plugins bring the same document.
    fn configure_once(size: usize) -> Option<Rc<Config>> {
        let text = Self::document(size);
        shared_config(&text, || Self::configure(&text).inspect(|config| warn(config)))
    }

    /// The router's configuration; every problem goes to the log.
    fn configure(text: &str) -> Option<Rc<Config>> {
        match Config::parse(text, &sys::variable) {
            Ok(config) => Some(Rc::new(config)),
            Err(problems) => {
                log::error!("{problems}");
                None
            }
        }
    }
}

/// Tells the log what the operator should know.
fn warn(config: &Config) {
    if is_apisix() && config.routes.iter().any(|route| route.shadow.is_some()) {
        log::warn!("a route's shadow is ignored: this host has no way to send copies");
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
}

/// Whether the host is APISIX's. Envoy always tells a plugin its name; there, nothing is told before the first request.
fn is_apisix() -> bool {
    sys::property("plugin_name").is_none() || sys::property("nginx_version").is_some()
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = |name| sys::property(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if is_apisix() {
            sys::on_call_response(on_call_response);
            self.role = Role::Either(Self::configure_once(size));
            return true;
        }
        let role = text("plugin_root_id").unwrap_or_default();
        self.role = match role.as_str() {
            "router" => match Self::configure(&Self::document(size)) {
                Some(config) => {
                    warn(&config);
                    sys::set_tick(FLUSH);
                    Role::Router(config)
                }
                None => return false,
            },
            // Copies of requests: the same document means something else for them. What is to be told of it the router tells.
            "shadow" => match Self::configure(&Self::document(size)) {
                Some(config) => Role::Router(Rc::new(config.for_shadow())),
                None => return false,
            },
            "attempt" => Role::Attempt(text("plugin_name").unwrap_or_default().into()),
            other => {
                log::error!("root_id: expected \"router\", \"attempt\" or \"shadow\", found {other:?}");
                return false;
            }
        };
        true
    }

    fn on_tick(&mut self) {
        worker::with_book(|book| book.flush(&mut sys::Metrics));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(match &self.role {
            Role::Router(config) => Filter::Router(RouterFilter::new(id, Rc::clone(config))),
            Role::Attempt(name) => Filter::Attempt(AttemptFilter::new(Rc::clone(name))),
            Role::Either(config) => Filter::Apisix(Stream::new(config.clone())),
            Role::None => Filter::None,
        }))
    }
}

/// One stream, in one of the roles. One type for all of them: the SDK's traits bring some ninety functions for each.
enum Filter {
    Router(RouterFilter),
    Attempt(AttemptFilter),
    Apisix(Stream),
    /// Of a plugin whose configuration failed. Envoy does not make one; a host that does gets no trap.
    None,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::Apisix(filter) => filter.on_http_request_headers(),
            Self::None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::Apisix(filter) => filter.on_http_request_body(size),
            Self::None => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_trailers(count),
            Self::Attempt(_) | Self::Apisix(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::Apisix(filter) => filter.on_http_response_headers(),
            Self::None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Apisix(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Router(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_trailers(count),
            Self::Router(_) | Self::Apisix(_) | Self::None => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        if let Self::Router(filter) = self {
            filter.on_log();
        }
    }
}
