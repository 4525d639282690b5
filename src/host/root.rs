//! The root context of a plugin: which role it has, and its configuration.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType};

use super::attempt::AttemptFilter;
use super::router::RouterFilter;
use super::{registry, sys};
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
}

impl Root {
    /// The router's configuration; every problem goes to the log.
    fn configure(size: usize) -> Option<Rc<Config>> {
        let bytes = sys::buffer(BufferType::PluginConfiguration, 0, size).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        match Config::parse(&text, &sys::variable) {
            Ok(config) => {
                for warning in &config.warnings {
                    log::warn!("{warning}");
                }
                Some(Rc::new(config))
            }
            Err(problems) => {
                log::error!("{problems}");
                None
            }
        }
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = |name| sys::property(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let role = text("plugin_root_id").unwrap_or_default();
        self.role = match role.as_str() {
            "router" => match Self::configure(size) {
                Some(config) => {
                    sys::set_tick(FLUSH);
                    Role::Router(config)
                }
                None => return false,
            },
            "attempt" => Role::Attempt(text("plugin_name").unwrap_or_default().into()),
            other => {
                log::error!("root_id: expected \"router\" or \"attempt\", found {other:?}");
                return false;
            }
        };
        true
    }

    fn on_tick(&mut self) {
        registry::with_book(|book| book.flush(&mut sys::Metrics));
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(match &self.role {
            Role::Router(config) => Filter::Router(RouterFilter::new(id, Rc::clone(config))),
            Role::Attempt(name) => Filter::Attempt(AttemptFilter::new(Rc::clone(name))),
            Role::None => Filter::None,
        }))
    }
}

/// One stream, in one of the roles. One type for all of them: the SDK's traits bring some ninety functions for each.
enum Filter {
    Router(RouterFilter),
    Attempt(AttemptFilter),
    /// Of a plugin whose configuration failed. Envoy does not make one; a host that does gets no trap.
    None,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_headers(count, end_of_stream),
            Self::None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::Attempt(filter) => filter.on_http_request_body(size, end_of_stream),
            Self::None => Action::Continue,
        }
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_request_trailers(count),
            Self::Attempt(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Router(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::Attempt(filter) => filter.on_http_response_headers(count, end_of_stream),
            Self::None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_body(size, end_of_stream),
            Self::Router(_) | Self::None => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Attempt(filter) => filter.on_http_response_trailers(count),
            Self::Router(_) | Self::None => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        if let Self::Router(filter) = self {
            filter.on_log();
        }
    }
}
