//! APISIX's wasm host: one VM of a worker, its contexts, and what happens when a callback does what it must not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use wasmtime::{Instance, InstancePre, Store};

use crate::compiled;
use crate::config::Route;
use crate::faults::Faults;
use crate::imports::{self, Host};
use crate::request::Request;

/// The exit status that stands for "the worker segfaults".
pub const SEGFAULT: i32 = 70;
/// The exit status that stands for "the worker aborts": a trap in a warm VM.
pub const ABORT: i32 = 71;
/// The exit status for a Lua line that does what the stand-in does not know.
pub const LUA_ERROR: i32 = 72;

/// Ends the stand-in as the real worker would end, with every request in flight.
pub fn fatal(status: i32, why: &str) -> ! {
    eprintln!("FATAL: {why}");
    std::process::exit(status);
}

/// The compiled filter with everything that it imports, for all workers.
pub struct Filter(InstancePre<Host>);

impl Filter {
    /// An error if the filter does not load: not wasm, or an import that APISIX's host does not have.
    pub fn load(wasm: &[u8]) -> Result<Filter, String> {
        let load = || {
            let engine = compiled::engine()?;
            let module = compiled::module(&engine, wasm, compiled::folder())?;
            imports::linker(&engine)?.instantiate_pre(&module)
        };
        load().map(Filter).map_err(|error: wasmtime::Error| format!("{error:#}"))
    }
}

/// What a callback asked for.
pub enum Wish {
    /// The request goes on.
    Continue,
    /// A response of the filter's own.
    Answer { status: u16, body: Vec<u8> },
    /// The dispatched call is to be performed.
    Call,
    /// HTML 503: the filter is not configured.
    Unavailable,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Stage {
    Outside,
    RequestHeaders,
    RequestBody,
    CallAnswered,
    ResponseHeaders,
    ResponseBody,
}

/// One plugin context: that of a route, for one version of its configuration.
struct PluginContext {
    id: u32,
    conf: Arc<str>,
    /// Ids of request contexts that may be used again, the oldest first.
    free: VecDeque<u32>,
    occupied: usize,
    /// The last body that a callback was about.
    body: Option<Vec<u8>>,
    /// Its configuration is no longer used.
    done: bool,
}

/// A worker's VM.
pub struct Vm {
    store: Store<Host>,
    instance: Option<Instance>,
    /// A configuration was accepted: from then on a trap ends the worker.
    warm: bool,
    contexts: HashMap<(String, u64), PluginContext>,
    free_plugins: VecDeque<u32>,
    last_id: u32,
}

impl Vm {
    pub fn new(filter: &Filter, plugin: &str, environment: Vec<String>, faults: Arc<Faults>) -> Vm {
        let mut store = Store::new(filter.0.module().engine(), Host::new(plugin, environment, faults));
        let instance = filter.0.instantiate(&mut store);
        let mut vm = Vm {
            store,
            instance: None,
            warm: false,
            contexts: HashMap::new(),
            free_plugins: VecDeque::new(),
            last_id: 0,
        };
        match instance {
            Ok(instance) => {
                vm.instance = Some(instance);
                if instance.get_func(&mut vm.store, "_initialize").is_some() {
                    vm.call("_initialize", &[]);
                }
            }
            Err(error) => vm.trapped(&format!("{error:?}")),
        }
        vm
    }

    /// Runs an export. `None` if the VM is dead.
    fn call(&mut self, name: &str, arguments: &[i32]) -> Option<i32> {
        let instance = self.instance?;
        let function = match instance.get_func(&mut self.store, name) {
            Some(function) => function,
            // The host logs it and goes on.
            None => return Some(0),
        };
        let arguments: Vec<wasmtime::Val> =
            arguments.iter().map(|number| wasmtime::Val::I32(*number)).collect();
        let mut results = vec![wasmtime::Val::I32(0); function.ty(&self.store).results().len()];
        match function.call(&mut self.store, &arguments, &mut results) {
            Ok(()) => Some(results.first().and_then(wasmtime::Val::i32).unwrap_or(0)),
            Err(error) => {
                self.trapped(&format!("{name}: {error:?}"));
                None
            }
        }
    }

    fn trapped(&mut self, error: &str) {
        if self.warm {
            fatal(ABORT, &format!("a trap in a warm VM, the worker aborts: {error}"));
        }
        eprintln!("TRAP (cold), every route with the plugin answers 503 from now on: {error}");
        self.instance = None;
    }

    /// The plugin context of a route, configured at its first request; `None` if the configuration was refused.
    fn plugin_context(&mut self, route: &Route, request: &Request) -> Option<(String, u64)> {
        self.instance?;
        let key = (route.id.clone(), route.version);
        if self.contexts.contains_key(&key) {
            return Some(key);
        }
        let conf: Arc<str> = route.wasm_conf()?.into();
        let id = self.free_plugins.pop_front().unwrap_or_else(|| {
            self.last_id += 1;
            self.last_id
        });
        self.call("proxy_on_context_create", &[id as i32, 0])?;
        self.store.data_mut().conf = Some(conf.clone());
        let accepted = self.call("proxy_on_configure", &[id as i32, conf.len() as i32]);
        self.store.data_mut().conf = None;
        if accepted? <= 0 {
            let route = &route.id;
            request.log("error", &format!("failed to configure plugin context {id} of route {route}"));
            self.delete_plugin_context(id);
            return None;
        }
        self.warm = true;
        let context = PluginContext { id, conf, free: VecDeque::new(), occupied: 0, body: None, done: false };
        self.contexts.insert(key.clone(), context);
        for (_, old) in self.contexts.iter_mut().filter(|((id, version), _)| *id == key.0 && *version < key.1)
        {
            old.done = true;
        }
        self.collect();
        Some(key)
    }

    fn delete(&mut self, id: u32) {
        self.store.data_mut().ending = true;
        if self.instance.is_some() && self.call("proxy_on_done", &[id as i32]).is_none_or(|done| done <= 0) {
            eprintln!("[error] failed to mark context {id} as done");
        }
        self.call("proxy_on_delete", &[id as i32]);
        self.store.data_mut().ending = false;
    }

    fn delete_plugin_context(&mut self, id: u32) {
        self.delete(id);
        self.free_plugins.push_back(id);
    }

    /// Deletes the plugin contexts that nobody uses any more.
    fn collect(&mut self) {
        let unused = |context: &PluginContext| context.done && context.occupied == 0;
        let ids: Vec<u32> = self.contexts.values().filter(|one| unused(one)).map(|one| one.id).collect();
        self.contexts.retain(|_, context| !unused(context));
        for id in ids {
            self.delete_plugin_context(id);
        }
    }

    /// Runs a callback of a request in its context, which is created if the request has none (any more).
    pub fn callback(
        &mut self,
        request: Box<Request>,
        stage: Stage,
        body: Option<&[u8]>,
        end: bool,
    ) -> (Box<Request>, Wish) {
        let Some(route) = request.route.clone() else { return (request, Wish::Unavailable) };
        let Some(key) = self.plugin_context(&route, &request) else { return (request, Wish::Unavailable) };
        let Some(plugin) = self.contexts.get_mut(&key) else { return (request, Wish::Unavailable) };
        let plugin_id = plugin.id;
        let mut request = request;
        let known =
            request.wasm.contexts[request.wasm.left..].iter().find(|(plugin, _)| *plugin == plugin_id);
        let (id, new) = match known {
            Some((_, id)) => (*id, false),
            None => {
                let id = plugin.free.pop_front().unwrap_or_else(|| {
                    self.last_id += 1;
                    self.last_id
                });
                plugin.occupied += 1;
                request.wasm.contexts.push((plugin_id, id));
                (id, true)
            }
        };
        request.counts.callbacks += 1 + u64::from(new);
        request.counts.contexts += u64::from(new);
        let token = request.wasm.token;
        let answer = request.wasm.answer.as_ref().map_or((0, 0), |one| (one.headers.len(), one.body.len()));
        let host = self.store.data_mut();
        host.conf = Some(plugin.conf.clone());
        host.request = Some(request);
        host.stage = stage;
        // A request without a body leaves the buffer as it was: another request's. An empty piece does not.
        if let Some(body) = body.filter(|body| stage == Stage::ResponseBody || !body.is_empty()) {
            plugin.body = Some(body.to_vec());
        }
        host.body = plugin.body.clone().filter(|_| stage != Stage::CallAnswered);
        if new {
            self.call("proxy_on_context_create", &[id as i32, plugin_id as i32]);
        }
        let size = body.map_or(0, <[u8]>::len) as i32;
        let id = id as i32;
        let result = match stage {
            Stage::RequestHeaders => self.call("proxy_on_request_headers", &[id, 0, 1]),
            Stage::RequestBody => self.call("proxy_on_request_body", &[id, size, i32::from(end)]),
            Stage::ResponseHeaders => self.call("proxy_on_response_headers", &[id, 0, 1]),
            Stage::ResponseBody => self.call("proxy_on_response_body", &[id, size, i32::from(end)]),
            // With the id of the plugin's context, not of the request's: which request it is, the token says.
            Stage::CallAnswered => self.call(
                "proxy_on_http_call_response",
                &[plugin_id as i32, token as i32, answer.0 as i32, answer.1 as i32, 0],
            ),
            Stage::Outside => None,
        };
        let host = self.store.data_mut();
        host.conf = None;
        host.stage = Stage::Outside;
        host.body = None;
        let code = std::mem::take(&mut host.code);
        let Some(request) = host.request.take() else { fatal(ABORT, "a callback lost its request") };
        let Some(result) = result else { return (request, Wish::Unavailable) };
        let wish = match stage {
            Stage::ResponseHeaders | Stage::ResponseBody | Stage::Outside => Wish::Continue,
            _ if request.wasm.callout.is_some() => Wish::Call,
            _ if code >= 100 => Wish::Answer { status: code as u16, body: host.local_body.clone() },
            Stage::RequestHeaders | Stage::RequestBody if result == 1 => fatal(
                SEGFAULT,
                &format!("Pause from {stage:?} with no call and no response, the worker segfaults"),
            ),
            Stage::RequestHeaders | Stage::RequestBody | Stage::CallAnswered => Wish::Continue,
        };
        (request, wish)
    }

    /// The request is over: its contexts go, without it.
    pub fn end(&mut self, contexts: Vec<(u32, u32)>) {
        for (plugin_id, id) in contexts.into_iter().rev() {
            self.delete(id);
            if let Some(plugin) = self.contexts.values_mut().find(|plugin| plugin.id == plugin_id) {
                plugin.free.push_back(id);
                plugin.occupied -= 1;
            }
        }
        self.collect();
    }
}
