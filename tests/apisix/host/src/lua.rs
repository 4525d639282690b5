//! The Lua lines of apisix.yaml, run in LuaJIT as APISIX runs them, with as much of `ngx` as they may use. What is not
//! there is a Lua error, and that ends the stand-in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use mlua::{Function, Lua, MultiValue, Table, Value};

use crate::http1::{self, text};
use crate::request::{NotSet, Request};
use crate::vm::{fatal, LUA_ERROR};

/// A worker's Lua state.
pub struct Scripts {
    lua: Lua,
    slot: Arc<Mutex<Slot>>,
    /// Functions by their source.
    loaded: HashMap<String, Function>,
}

/// What `ngx` is about while a function runs.
#[derive(Default)]
struct Slot {
    request: Option<Box<Request>>,
    phase: &'static str,
    /// `ngx.arg`: a piece of the body, and whether it is the last.
    piece: Option<(Vec<u8>, bool)>,
}

type Shared = Arc<Mutex<Slot>>;

impl Scripts {
    pub fn new() -> Scripts {
        let lua = Lua::new();
        let slot: Shared = Arc::default();
        let ready = ngx(&lua, &slot).and_then(|ngx| lua.globals().set("ngx", ngx));
        if let Err(error) = ready {
            fatal(LUA_ERROR, &error.to_string());
        }
        Scripts { lua, slot, loaded: HashMap::new() }
    }

    /// Runs one function of a serverless plugin. `piece` is `ngx.arg` in the phase `body_filter`: a piece, and whether it is the
    /// last. It does not come back if the function raised an error.
    pub fn run(
        &mut self,
        source: &str,
        phase: &'static str,
        request: Box<Request>,
        piece: Option<(Vec<u8>, bool)>,
    ) -> (Box<Request>, Option<(Vec<u8>, bool)>) {
        let mut request = request;
        request.counts.lua_runs += 1;
        *lock(&self.slot) = Slot { request: Some(request), phase, piece };
        if let Err(error) = self.call(source) {
            // Raised by the line itself, and not by what the stand-in lacks: in this phase it ends the response.
            if phase != "body_filter" || !matches!(error, mlua::Error::RuntimeError(_)) {
                fatal(LUA_ERROR, &format!("a Lua line failed in the phase {phase}: {error}"));
            }
            let mut slot = lock(&self.slot);
            if let Some(request) = &slot.request {
                request.log("error", &format!("failed to run body_filter_by_lua*: {error}"));
            }
            slot.piece = None;
        }
        let Slot { request, piece, .. } = std::mem::take(&mut *lock(&self.slot));
        let Some(request) = request else { fatal(LUA_ERROR, "a Lua line lost its request") };
        (request, piece)
    }

    fn call(&mut self, source: &str) -> mlua::Result<()> {
        let function = match self.loaded.get(source) {
            Some(function) => function.clone(),
            None => {
                let function: Function = self.lua.load(source).eval()?;
                self.loaded.insert(source.to_owned(), function.clone());
                function
            }
        };
        let results: MultiValue = function.call((self.lua.create_table()?, self.lua.create_table()?))?;
        if results.is_empty() {
            return Ok(());
        }
        Err(problem("the stand-in does not know what a result of a function would do"))
    }
}

fn lock(slot: &Shared) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn problem(text: &str) -> mlua::Error {
    mlua::Error::RuntimeError(text.to_owned())
}

/// Runs `work` on the request.
fn with<T>(slot: &Shared, work: impl FnOnce(&mut Request) -> mlua::Result<T>) -> mlua::Result<T> {
    let mut slot = lock(slot);
    let request = slot.request.as_deref_mut().ok_or_else(|| problem("no request found"))?;
    work(request)
}

fn in_phases(slot: &Shared, phases: &[&str]) -> mlua::Result<()> {
    let phase = lock(slot).phase;
    if phases.contains(&phase) {
        return Ok(());
    }
    Err(problem(&format!("API disabled in the context of {phase}_by_lua*")))
}

/// A text, or a number as Lua makes a text of it.
fn bytes(lua: &Lua, value: Value) -> mlua::Result<Vec<u8>> {
    match lua.coerce_string(value.clone())? {
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => Err(problem(&format!("a text was wanted, not {}", value.type_name()))),
    }
}

/// A table whose fields are functions: read and written by `get` and `set`.
fn magic(
    lua: &Lua,
    get: impl Fn(&Lua, String) -> mlua::Result<Value> + Send + 'static,
    set: impl Fn(&Lua, String, Value) -> mlua::Result<()> + Send + 'static,
) -> mlua::Result<Table> {
    let (table, meta) = (lua.create_table()?, lua.create_table()?);
    meta.set("__index", lua.create_function(move |lua, (_, key): (Value, String)| get(lua, key))?)?;
    meta.set(
        "__newindex",
        lua.create_function(move |lua, (_, key, value): (Value, String, Value)| set(lua, key, value))?,
    )?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

fn optional(lua: &Lua, value: Option<Vec<u8>>) -> mlua::Result<Value> {
    value.map_or(Ok(Value::Nil), |value| Ok(Value::String(lua.create_string(value)?)))
}

fn ngx(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let ngx = {
        let (get, set) = (slot.clone(), slot.clone());
        magic(
            lua,
            move |_, key| match key.as_str() {
                "status" => with(&get, |request| Ok(Value::Integer(request.response.status.into()))),
                key => Err(problem(&format!("the stand-in has no ngx.{key}"))),
            },
            move |lua, key, value| match key.as_str() {
                "status" => {
                    let status =
                        text(&bytes(lua, value)?).parse().map_err(|_| problem("ngx.status: no number"))?;
                    with(&set, |request| {
                        request.response.status = status;
                        Ok(())
                    })
                }
                key => Err(problem(&format!("the stand-in has no ngx.{key}"))),
            },
        )?
    };
    // Past the metatable, which knows only what is computed.
    ngx.raw_set("var", variables(lua, slot)?)?;
    ngx.raw_set("arg", arguments(lua, slot)?)?;
    ngx.raw_set("req", request_functions(lua, slot)?)?;
    ngx.raw_set("header", response_headers(lua, slot)?)?;
    ngx.raw_set("resp", response_functions(lua, slot)?)?;
    let (phase, logged) = (slot.clone(), slot.clone());
    ngx.raw_set("get_phase", lua.create_function(move |_, ()| Ok(lock(&phase).phase))?)?;
    ngx.raw_set(
        "log",
        lua.create_function(move |lua, values: MultiValue| {
            let mut values = values.into_iter();
            let level = values.next().unwrap_or(Value::Nil);
            let level = format!("lua {}", text(&bytes(lua, level)?));
            let mut line = String::new();
            for value in values {
                line += &match value {
                    Value::Nil => "nil".to_owned(),
                    Value::Boolean(value) => value.to_string(),
                    value => text(&bytes(lua, value)?).into_owned(),
                };
            }
            with(&logged, |request| {
                request.log(&level, &line);
                Ok(())
            })
        })?,
    )?;
    for (level, number) in
        ["STDERR", "EMERG", "ALERT", "CRIT", "ERR", "WARN", "NOTICE", "INFO", "DEBUG"].iter().zip(0..)
    {
        ngx.raw_set(*level, number)?;
    }
    Ok(ngx)
}

fn variables(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let (get, set) = (slot.clone(), slot.clone());
    magic(
        lua,
        move |lua, key| {
            let value = with(&get, |request| {
                let value = request.variable(&key);
                request.counts.took_over(value.as_ref().map_or(0, Vec::len));
                Ok(value)
            })?;
            optional(lua, value)
        },
        move |lua, key, value| {
            let value = match value {
                Value::Nil => Vec::new(),
                value => bytes(lua, value)?,
            };
            with(&set, |request| {
                request.counts.took_over(value.len());
                request.set_variable(&key, &value).map_err(|why| match why {
                    NotSet::Undefined => problem(&format!("variable \"{key}\" not found for writing")),
                    NotSet::Fixed => problem(&format!("variable \"{key}\" not changeable")),
                })
            })
        },
    )
}

fn arguments(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let (table, meta) = (lua.create_table()?, lua.create_table()?);
    let get = slot.clone();
    meta.set(
        "__index",
        lua.create_function(move |lua, (_, index): (Value, usize)| {
            let mut slot = lock(&get);
            let length = slot.piece.as_ref().map_or(0, |(piece, _)| piece.len());
            if let (Some(request), 1) = (&mut slot.request, index) {
                request.counts.lua_bytes += length as u64;
            }
            match (&slot.piece, index) {
                (Some((piece, _)), 1) => Ok(Value::String(lua.create_string(piece)?)),
                (Some((_, end)), 2) => Ok(Value::Boolean(*end)),
                _ => Err(problem("ngx.arg: API disabled in the current context")),
            }
        })?,
    )?;
    let set = slot.clone();
    meta.set(
        "__newindex",
        lua.create_function(move |lua, (_, index, value): (Value, usize, Value)| {
            let mut slot = lock(&set);
            if let (Some(request), 1, Value::String(text)) = (&mut slot.request, index, &value) {
                request.counts.lua_bytes += text.as_bytes().len() as u64;
            }
            match (&mut slot.piece, index, value) {
                (Some((piece, _)), 1, Value::Nil) => piece.clear(),
                (Some((piece, _)), 1, value) => *piece = bytes(lua, value)?,
                // Nothing that comes later is sent any more.
                (Some((_, end)), 2, Value::Boolean(true)) => *end = true,
                _ => return Err(problem(
                    "ngx.arg: the stand-in lets ngx.arg[1] be set, and ngx.arg[2] to true, in body_filter",
                )),
            }
            Ok(())
        })?,
    )?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

fn request_functions(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let shared = slot.clone();
    table.set(
        "get_headers",
        lua.create_function(move |lua, ()| {
            let headers = with(&shared, |request| Ok(request.headers.clone()))?;
            let all = lua.create_table()?;
            // The real table finds names in any case; this one has them in lower case.
            for (name, value) in headers {
                all.set(name.to_ascii_lowercase(), lua.create_string(value)?)?;
            }
            Ok(all)
        })?,
    )?;
    let shared = slot.clone();
    table.set(
        "set_header",
        lua.create_function(move |lua, (name, value): (String, Value)| {
            let value = bytes(lua, value)?;
            with(&shared, |request| {
                http1::set(&mut request.headers, &name, &value);
                Ok(())
            })
        })?,
    )?;
    let shared = slot.clone();
    table.set(
        "clear_header",
        lua.create_function(move |_, name: String| {
            with(&shared, |request| {
                http1::remove(&mut request.headers, &name);
                Ok(())
            })
        })?,
    )?;
    let shared = slot.clone();
    table.set(
        "read_body",
        lua.create_function(move |_, ()| {
            in_phases(&shared, &["access"])?;
            with(&shared, |request| request.read_body().map_err(mlua::Error::external))
        })?,
    )?;
    let shared = slot.clone();
    table.set(
        "get_body_data",
        lua.create_function(move |lua, ()| {
            in_phases(&shared, &["access", "balancer", "log"])?;
            optional(lua, with(&shared, |request| Ok(request.body.clone().filter(|body| !body.is_empty())))?)
        })?,
    )?;
    let shared = slot.clone();
    table.set(
        "set_body_data",
        lua.create_function(move |lua, body: Value| {
            in_phases(&shared, &["access", "balancer"])?;
            let body = bytes(lua, body)?;
            with(&shared, |request| {
                if request.body.is_none() {
                    return Err(problem("request body not read yet"));
                }
                request.counts.lua_bytes += body.len() as u64;
                request.set_body(body);
                Ok(())
            })
        })?,
    )?;
    Ok(table)
}

fn response_functions(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let shared = slot.clone();
    table.set(
        "get_headers",
        lua.create_function(move |lua, most: Option<usize>| {
            if most != Some(0) {
                return Err(problem("ngx.resp.get_headers: the real one stops at 100 headers; ask for 0"));
            }
            let headers = with(&shared, |request| Ok(request.response.headers.clone()))?;
            let all = lua.create_table()?;
            for (name, value) in headers {
                all.set(name.to_ascii_lowercase(), lua.create_string(value)?)?;
            }
            Ok(all)
        })?,
    )?;
    Ok(table)
}

fn response_headers(lua: &Lua, slot: &Shared) -> mlua::Result<Table> {
    let (get, set) = (slot.clone(), slot.clone());
    magic(
        lua,
        move |lua, key| {
            let name = key.replace('_', "-");
            let value =
                with(&get, |request| Ok(http1::find(&request.response.headers, &name).map(<[u8]>::to_vec)))?;
            optional(lua, value)
        },
        move |lua, key, value| {
            in_phases(&set, &["access", "header_filter"])?;
            let name = key.replace('_', "-");
            let value = if value.is_nil() { None } else { Some(bytes(lua, value)?) };
            with(&set, |request| {
                match value {
                    Some(value) => http1::set(&mut request.response.headers, &name, &value),
                    None => http1::remove(&mut request.response.headers, &name),
                }
                Ok(())
            })
        },
    )
}
