//! The root context of a plugin: which role it has, and its configuration.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};

use super::attempt::AttemptFilter;
use super::router::RouterFilter;
use super::sys;
use crate::config::Config;

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
                Some(config) => Role::Router(config),
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

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.role {
            Role::Router(config) => Box::new(RouterFilter::new(id, Rc::clone(config))),
            Role::Attempt(name) => Box::new(AttemptFilter::new(Rc::clone(name))),
            Role::None => Box::new(Unconfigured),
        })
    }
}

/// A stream of a plugin whose configuration failed. Envoy does not make one; a host that does gets no trap.
struct Unconfigured;

impl Context for Unconfigured {}
impl HttpContext for Unconfigured {}
