//! The root context of a plugin: its role and its configuration.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, BufferType, ContextType};

use super::apisix::{on_call_response, shared_config, Stream};
use super::envoy::{end_overdue, AttemptFilter, DetourFilter, Http10Filter, RouterFilter};
use super::{sys, worker};
use crate::config::{Config, OnBreak};

/// How often the metrics that were counted are given to the host.
const FLUSH: Duration = Duration::from_secs(1);

/// One plugin of the host.
#[derive(Default)]
pub(super) struct Root {
    role: Role,
}

#[derive(Clone, Default)]
enum Role {
    /// It has no configuration, or a wrong one.
    #[default]
    None,
    /// A `router`, or a `shadow`, which is a router of shadow requests.
    Router(Rc<Config>),
    /// The `attempt` of the provider with this name, which is the name of the plugin.
    Attempt(Rc<str>),
    /// The `detour`, which hands a live stream on to the attempts in the internal listener that it takes.
    Detour,
    /// The network filter `http10` of the same listener.
    Http10,
    /// On APISIX each request says which role it needs. Without a valid configuration each request gets an error in the envelope; if the
    /// plugin refused to start, APISIX would reply with an HTML page.
    Either(Option<Rc<Config>>),
}

impl Root {
    /// The configuration document of this plugin.
    fn document(size: usize) -> String {
        let bytes = sys::buffer(BufferType::PluginConfiguration, 0, size).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The configuration where many plugins have the same document.
    fn configure_once(size: usize) -> Option<Rc<Config>> {
        let text = Self::document(size);
        shared_config(&text, || Self::configure(&text).inspect(|config| warn(config)))
    }

    /// The configuration of a document. Its problems go to the log.
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

/// Writes what the operator should know of a configuration into the log.
fn warn(config: &Config) {
    if is_apisix() && config.routes.iter().any(|route| route.shadow.is_some()) {
        log::warn!("the shadow of a route is ignored: APISIX cannot send a request a second time");
    }
    if is_apisix() && config.routes.iter().any(|route| route.on_break == OnBreak::Event) {
        log::warn!("the on_break of a route is ignored: on APISIX a stream that breaks off is reset");
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
}

/// Whether the host is APISIX. Envoy always has a `plugin_name`; APISIX has no properties before the first request.
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
            // Shadow requests read the same document in another way. Its warnings are left to the router.
            "shadow" => match Self::configure(&Self::document(size)) {
                Some(config) => Role::Router(Rc::new(config.for_shadow())),
                None => return false,
            },
            "attempt" => Role::Attempt(text("plugin_name").unwrap_or_default().into()),
            "detour" => Role::Detour,
            "http10" => Role::Http10,
            other => {
                log::error!(
                    "the root_id of this plugin is {other:?}; it must be \"router\", \"attempt\", \"shadow\", \"detour\" or \
                     \"http10\""
                );
                return false;
            }
        };
        true
    }

    fn on_tick(&mut self) {
        match &self.role {
            Role::Attempt(_) => end_overdue(),
            Role::Router(_) | Role::Either(_) | Role::Detour | Role::Http10 | Role::None => {
                worker::with_book(|book| book.flush(&mut sys::Metrics));
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(match self.role {
            Role::Http10 => ContextType::StreamContext,
            _ => ContextType::HttpContext,
        })
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Filter::Http10(Http10Filter::default())))
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(match &self.role {
            Role::Router(config) => Filter::Router(RouterFilter::new(id, Rc::clone(config))),
            Role::Attempt(name) => Filter::Attempt(Box::new(AttemptFilter::new(id, Rc::clone(name)))),
            Role::Either(config) => Filter::Apisix(Stream::new(config.clone())),
            Role::Detour => Filter::Detour(DetourFilter::default()),
            Role::Http10 | Role::None => Filter::None,
        }))
    }
}

/// One request, or one connection, in one of the roles. All roles are one type, because the SDK's traits add some ninety functions for
/// each type.
enum Filter {
    Router(RouterFilter),
    Attempt(Box<AttemptFilter>),
    Detour(DetourFilter),
    Http10(Http10Filter),
    Apisix(Stream),
    /// The configuration of the plugin is wrong. Envoy does not send requests to it, and a host that does must not cause a trap.
    None,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::Detour(filter) => filter.on_http_request_headers(),
            Self::Apisix(filter) => filter.on_http_request_headers(),
            Self::Http10(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::Detour(filter) => filter.on_http_request_body(end_of_stream),
            Self::Apisix(filter) => filter.on_http_request_body(size),
            Self::Http10(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_trailers(count),
            Self::Attempt(_) | Self::Detour(_) | Self::Apisix(_) | Self::Http10(_) | Self::None => {
                Action::Continue
            }
        }
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::Detour(filter) => filter.on_http_response_headers(),
            Self::Apisix(filter) => filter.on_http_response_headers(),
            Self::Http10(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Apisix(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Router(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Detour(_) | Self::Http10(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_trailers(count),
            Self::Router(_) | Self::Detour(_) | Self::Apisix(_) | Self::Http10(_) | Self::None => {
                Action::Continue
            }
        }
    }

    fn on_log(&mut self) {
        if let Self::Router(filter) = self {
            filter.on_log();
        }
    }
}

impl StreamContext for Filter {
    fn on_downstream_data(&mut self, size: usize, _: bool) -> Action {
        match self {
            Self::Http10(filter) => filter.on_downstream_data(size),
            _ => Action::Continue,
        }
    }
}
