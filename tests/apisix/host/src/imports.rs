//! The host functions that APISIX's wasm host gives to a filter: proxy-wasm 0.2.1 as far as it knows it, and the few of
//! WASI that a filter in Rust imports. Not here, because not there: `proxy_get_log_level`, `proxy_get_metric`.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::{Caller, Engine, Extern, Linker};

use crate::abi::{self, Pairs};
use crate::counts::Counts;
use crate::faults::Faults;
use crate::http1::{self, text};
use crate::request::{Callout, NotSet, Request};
use crate::vm::{fatal, Stage, SEGFAULT};

/// Response header lines above which the whole map is garbage.
const MAX_RESPONSE_LINES: usize = 20;
/// Where the whole request map is cut.
const MAX_REQUEST_LINES: usize = 100;

/// What the host functions see: the request that a callback is about, if it is about one.
pub struct Host {
    plugin: String,
    environment: Vec<String>,
    faults: Arc<Faults>,
    pub conf: Option<Arc<str>>,
    pub request: Option<Box<Request>>,
    pub stage: Stage,
    /// The body or the piece of it that a body callback is about.
    pub body: Option<Vec<u8>>,
    /// What `proxy_send_local_response` was given.
    pub code: u32,
    pub local_body: Vec<u8>,
    next_token: u32,
    /// `proxy_on_done` and `proxy_on_delete` run: nothing is known any more.
    pub ending: bool,
}

impl Host {
    pub fn new(plugin: &str, environment: Vec<String>, faults: Arc<Faults>) -> Host {
        Host {
            plugin: plugin.to_owned(),
            environment,
            faults,
            conf: None,
            request: None,
            stage: Stage::Outside,
            body: None,
            code: 0,
            local_body: Vec::new(),
            next_token: 0,
            ending: false,
        }
    }

    /// The status that a fault gives to a call. Faults are about requests: a filter that was never configured shows
    /// nothing.
    fn forced(&self, call: &str) -> Option<i32> {
        self.request.as_ref().and_then(|_| self.faults.status(call))
    }
}

/// How a host function ends early.
enum Stop {
    Status(i32),
    Trap(wasmtime::Error),
}

type Answer = Result<(), Stop>;

fn status(answer: Answer) -> Result<i32, wasmtime::Error> {
    match answer {
        Ok(()) => Ok(abi::OK),
        Err(Stop::Status(status)) => Ok(status),
        Err(Stop::Trap(error)) => Err(error),
    }
}

type Context<'a> = Caller<'a, Host>;

fn memory(context: &mut Context<'_>) -> Result<wasmtime::Memory, Stop> {
    context.get_export("memory").and_then(Extern::into_memory).ok_or(Stop::Status(abi::INVALID_MEMORY))
}

fn read(context: &mut Context<'_>, address: i32, length: i32) -> Result<Vec<u8>, Stop> {
    let memory = memory(context)?;
    let (from, length) = (address as u32 as usize, length as u32 as usize);
    let bytes = memory.data(&*context).get(from..from.saturating_add(length));
    let bytes = bytes.map(<[u8]>::to_vec).ok_or(Stop::Status(abi::INVALID_MEMORY))?;
    count(context, |counts| counts.from_filter += bytes.len() as u64);
    Ok(bytes)
}

/// Counts for the request that the callback is about, if it is about one.
fn count(context: &mut Context<'_>, add: impl FnOnce(&mut Counts)) {
    if let Some(request) = &mut context.data_mut().request {
        add(&mut request.counts);
    }
}

fn write(context: &mut Context<'_>, address: i32, bytes: &[u8]) -> Answer {
    let memory = memory(context)?;
    memory.write(context, address as u32 as usize, bytes).map_err(|_| Stop::Status(abi::INVALID_MEMORY))
}

fn write_number(context: &mut Context<'_>, address: i32, number: u32) -> Answer {
    write(context, address, &number.to_le_bytes())
}

/// Gives bytes to the filter, in memory that the filter allocates. With nothing to give, only the length is written.
fn give(context: &mut Context<'_>, bytes: &[u8], address: i32, size_address: i32) -> Answer {
    write_number(context, size_address, bytes.len() as u32)?;
    if bytes.is_empty() {
        return Ok(());
    }
    if context.data().faults.has("memory=none") && context.data().request.is_some() {
        return Err(Stop::Status(abi::INTERNAL_FAILURE));
    }
    let malloc =
        ["proxy_on_memory_allocate", "malloc"].iter().find_map(|name| context.get_export(name)?.into_func());
    let malloc = malloc.ok_or(Stop::Status(abi::INTERNAL_FAILURE))?;
    let malloc = malloc.typed::<i32, i32>(&*context).map_err(Stop::Trap)?;
    count(context, |counts| {
        counts.blocks += 1;
        counts.to_filter += bytes.len() as u64;
    });
    let place = malloc.call(&mut *context, bytes.len() as i32).map_err(Stop::Trap)?;
    if place == 0 {
        return Err(Stop::Status(abi::INTERNAL_FAILURE));
    }
    write(context, place, bytes)?;
    write_number(context, address, place as u32)
}

fn request<'a>(context: &'a mut Context<'_>) -> Result<&'a mut Request, Stop> {
    context.data_mut().request.as_deref_mut().ok_or(Stop::Status(abi::BAD_ARGUMENT))
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

// Properties: nginx variables.

fn get_property(context: &mut Context<'_>, path: i32, length: i32, address: i32, size: i32) -> Answer {
    let name = read(context, path, length)?;
    if name == b"plugin_root_id" && !context.data().ending {
        let plugin = context.data().plugin.clone();
        return give(context, plugin.as_bytes(), address, size);
    }
    count(context, |counts| counts.variable_reads += 1);
    let value = request(context)?.variable(&text(&name)).ok_or(Stop::Status(abi::NOT_FOUND))?;
    count(context, |counts| counts.variable_bytes += value.len() as u64);
    give(context, &value, address, size)
}

fn set_property(context: &mut Context<'_>, path: i32, length: i32, data: i32, size: i32) -> Answer {
    request(context)?;
    let name = read(context, path, length)?;
    let value = read(context, data, size)?;
    count(context, |counts| {
        counts.variable_writes += 1;
        counts.variable_bytes += value.len() as u64;
    });
    request(context)?.set_variable(&text(&name), &value).map_err(|problem| {
        Stop::Status(match problem {
            NotSet::Undefined => abi::NOT_FOUND,
            NotSet::Fixed => abi::INTERNAL_FAILURE,
        })
    })
}

// Buffers.

fn get_buffer(
    context: &mut Context<'_>,
    kind: i32,
    start: i32,
    size: i32,
    address: i32,
    size_address: i32,
) -> Answer {
    count(context, |counts| counts.buffer_reads += 1);
    let host = context.data();
    let missing = |what: &str| host.request.is_some() && host.faults.has(&format!("body={what}:missing"));
    let bytes = match kind {
        abi::CONFIGURATION if host.faults.has("configuration=missing") => None,
        abi::CONFIGURATION => host.conf.as_ref().map(|conf| conf.as_bytes().to_vec()),
        abi::REQUEST_BODY if missing("request") => None,
        abi::RESPONSE_BODY if missing("response") => None,
        // One buffer for both: whichever body the callback is about.
        abi::REQUEST_BODY | abi::RESPONSE_BODY => host.body.clone(),
        abi::CALL_BODY if missing("call") => None,
        abi::CALL_BODY => {
            let request = request(context)?;
            request.wasm.answer.as_ref().map(|answer| answer.body.clone())
        }
        _ => return Err(Stop::Status(abi::UNIMPLEMENTED)),
    };
    let mut bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(Stop::Status(abi::NOT_FOUND))?;
    if kind != abi::CONFIGURATION {
        // Signed numbers: `usize::MAX` is -1.
        if start < 0 || size <= 0 || start as usize >= bytes.len() {
            return Err(Stop::Status(abi::BAD_ARGUMENT));
        }
        let end = bytes.len().min(start as usize + size as usize);
        bytes = bytes[start as usize..end].to_vec();
    }
    give(context, &bytes, address, size_address)
}

// Header maps.

fn header_pairs(context: &mut Context<'_>, kind: i32, address: i32, size: i32) -> Answer {
    count(context, |counts| counts.map_reads += 1);
    let request = request(context)?;
    let lower = |(name, value): &(String, Vec<u8>)| (name.to_ascii_lowercase().into_bytes(), value.clone());
    let mut garbled = false;
    let (what, pairs) = match kind {
        abi::REQUEST_HEADERS => {
            let Some(host) = http1::find(&request.headers, "host").map(<[u8]>::to_vec) else {
                fatal(SEGFAULT, "the whole request map of a request without Host, the worker segfaults");
            };
            let mut pairs: Pairs = request.headers.iter().take(MAX_REQUEST_LINES).map(lower).collect();
            pairs.push((b":path".to_vec(), request.target.clone().into_bytes()));
            pairs.push((b":method".to_vec(), request.method.clone().into_bytes()));
            pairs.push((b":scheme".to_vec(), b"http".to_vec()));
            pairs.push((b":authority".to_vec(), host));
            ("request", pairs)
        }
        abi::RESPONSE_HEADERS => {
            let mut pairs: Pairs = request.response.headers.iter().map(lower).collect();
            garbled = pairs.len() > MAX_RESPONSE_LINES;
            pairs.push((b"connection".to_vec(), b"keep-alive".to_vec()));
            pairs.push((b":status".to_vec(), request.response.status.to_string().into_bytes()));
            ("response", pairs)
        }
        abi::CALL_HEADERS => {
            let headers = request.wasm.answer.as_ref().map(|answer| &answer.headers);
            let headers =
                headers.filter(|headers| !headers.is_empty()).ok_or(Stop::Status(abi::NOT_FOUND))?;
            ("call", headers.iter().map(lower).collect())
        }
        _ => return Err(Stop::Status(abi::UNIMPLEMENTED)),
    };
    let mut bytes = abi::write_map(&pairs);
    if garbled || context.data().faults.has(&format!("map={what}:garbled")) {
        bytes = abi::garble(&bytes);
    }
    give(context, &bytes, address, size)
}

fn header_value(
    context: &mut Context<'_>,
    kind: i32,
    name: i32,
    length: i32,
    address: i32,
    size: i32,
) -> Answer {
    request(context)?;
    count(context, |counts| counts.header_reads += 1);
    let name = read(context, name, length)?;
    let request = request(context)?;
    let value = match kind {
        abi::REQUEST_HEADERS if is(&name, ":path") => Some(request.target.clone().into_bytes()),
        abi::REQUEST_HEADERS if is(&name, ":method") => Some(request.method.clone().into_bytes()),
        abi::REQUEST_HEADERS if is(&name, ":scheme") => Some(b"http".to_vec()),
        abi::REQUEST_HEADERS if is(&name, ":authority") => match http1::find(&request.headers, "host") {
            Some(host) => Some(host.to_vec()),
            None => fatal(SEGFAULT, ":authority of a request without Host, the worker segfaults"),
        },
        abi::REQUEST_HEADERS => http1::find(&request.headers, &text(&name)).map(<[u8]>::to_vec),
        abi::RESPONSE_HEADERS if is(&name, ":status") => {
            Some(request.response.status.to_string().into_bytes())
        }
        abi::RESPONSE_HEADERS => http1::find(&request.response.headers, &text(&name)).map(<[u8]>::to_vec),
        abi::CALL_HEADERS => {
            let answer = request.wasm.answer.as_ref();
            answer.and_then(|answer| http1::find(&answer.headers, &text(&name))).map(<[u8]>::to_vec)
        }
        _ => return Err(Stop::Status(abi::UNIMPLEMENTED)),
    };
    give(context, &value.ok_or(Stop::Status(abi::NOT_FOUND))?, address, size)
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Add,
    Replace,
    Remove,
}

fn change_header(
    context: &mut Context<'_>,
    change: Change,
    kind: i32,
    name: (i32, i32),
    value: (i32, i32),
) -> Answer {
    request(context)?;
    let name = read(context, name.0, name.1)?;
    let value = read(context, value.0, value.1)?;
    let stage = context.data().stage;
    let request = request(context)?;
    let name = text(&name).into_owned();
    if change == Change::Remove {
        let headers = if kind == abi::REQUEST_HEADERS { &request.headers } else { &request.response.headers };
        let is_idle = http1::find(headers, &name).is_none();
        request.counts.header_removals += 1;
        request.counts.idle_removals += u64::from(is_idle);
    } else {
        request.counts.header_writes += 1;
    }
    match kind {
        abi::REQUEST_HEADERS => change_request_header(request, change, &name, &value),
        abi::RESPONSE_HEADERS => change_response_header(request, stage, change, &name, &value),
        _ => Err(Stop::Status(abi::UNIMPLEMENTED)),
    }
}

/// Request headers of which nginx keeps one, so that adding replaces.
const SINGLE_REQUEST: [&str; 8] = [
    "authorization",
    "content-type",
    "content-length",
    "host",
    "user-agent",
    "range",
    "if-modified-since",
    "expect",
];
const SINGLE_RESPONSE: [&str; 8] = [
    "content-type",
    "content-length",
    "server",
    "date",
    "location",
    "etag",
    "last-modified",
    "content-encoding",
];

fn change_request_header(request: &mut Request, change: Change, name: &str, value: &[u8]) -> Answer {
    match (name.to_ascii_lowercase().as_str(), change) {
        // The path is taken as a path: a query is escaped into it.
        (":path", Change::Add | Change::Replace) => request.target = text(value).replace('?', "%3F"),
        // Writes over what lies next to it.
        (":authority", Change::Add | Change::Replace) => request.method = text(value).into_owned(),
        (":method", Change::Add | Change::Replace) => request.method = text(value).into_owned(),
        (name, _) if name.starts_with(':') => {}
        (_, Change::Remove) => http1::remove(&mut request.headers, name),
        (lower, Change::Add) if !SINGLE_REQUEST.contains(&lower) => {
            request.headers.push((name.to_owned(), value.to_vec()));
        }
        (_, Change::Add | Change::Replace) => http1::set(&mut request.headers, name, value),
    }
    Ok(())
}

fn change_response_header(
    request: &mut Request,
    stage: Stage,
    change: Change,
    name: &str,
    value: &[u8],
) -> Answer {
    // Once the head was written, nginx takes no more.
    if stage == Stage::ResponseBody {
        return Err(Stop::Status(abi::BAD_ARGUMENT));
    }
    let headers = &mut request.response.headers;
    match (name.to_ascii_lowercase().as_str(), change) {
        (":status", Change::Add | Change::Replace) => match text(value).parse() {
            Ok(status @ 100..=599) => request.response.status = status,
            _ => return Err(Stop::Status(abi::BAD_ARGUMENT)),
        },
        (name, _) if name.starts_with(':') => return Err(Stop::Status(abi::BAD_ARGUMENT)),
        (_, Change::Remove) => http1::remove(headers, name),
        (lower, Change::Add) if !SINGLE_RESPONSE.contains(&lower) => {
            headers.push((name.to_owned(), value.to_vec()))
        }
        (_, Change::Add | Change::Replace) => http1::set(headers, name, value),
    }
    Ok(())
}

// Responses and calls.

fn send_local_response(
    context: &mut Context<'_>,
    code: i32,
    body: (i32, i32),
    headers: (i32, i32),
) -> Answer {
    request(context)?.counts.replies += 1;
    context.data_mut().code = code as u32;
    if headers.1 > 0 {
        let bytes = read(context, headers.0, headers.1)?;
        let pairs = abi::read_map(&bytes).ok_or(Stop::Status(abi::BAD_ARGUMENT))?;
        let stage = context.data().stage;
        let request = request(context)?;
        for (name, value) in pairs {
            change_response_header(request, stage, Change::Add, &text(&name), &value)?;
        }
    }
    let body = read(context, body.0, body.1)?;
    context.data_mut().local_body = body;
    Ok(())
}

struct CallArguments {
    upstream: (i32, i32),
    headers: (i32, i32),
    body: (i32, i32),
    timeout: i32,
    token: i32,
}

fn http_call(context: &mut Context<'_>, arguments: &CallArguments) -> Answer {
    request(context)?.counts.dispatches += 1;
    if !matches!(context.data().stage, Stage::RequestHeaders | Stage::RequestBody | Stage::CallAnswered) {
        return Err(Stop::Status(abi::BAD_ARGUMENT));
    }
    let authority = text(&read(context, arguments.upstream.0, arguments.upstream.1)?).into_owned();
    if !is_authority(&authority) {
        request(context)?.log("error", &format!("http call gets invalid host: {authority}"));
        return Err(Stop::Status(abi::BAD_ARGUMENT));
    }
    let headers = read(context, arguments.headers.0, arguments.headers.1)?;
    let body = read(context, arguments.body.0, arguments.body.1)?;
    if context.data().faults.has("dispatch=refused")
        || arguments.timeout < 0
        || request(context)?.wasm.callout.is_some()
    {
        return Err(Stop::Status(abi::INTERNAL_FAILURE));
    }
    let Some(headers) = abi::read_map(&headers) else {
        fatal(SEGFAULT, "a call whose headers are no map, the worker segfaults");
    };
    let token = context.data().next_token;
    context.data_mut().next_token += 1;
    let timeout = Duration::from_millis(arguments.timeout as u64);
    let wasm = &mut request(context)?.wasm;
    wasm.callout = Some(Callout { authority, headers, body, timeout });
    wasm.token = token;
    write_number(context, arguments.token, token)
}

/// `host` or `host:port`, nothing else.
fn is_authority(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn log(context: &mut Context<'_>, level: i32, address: i32, length: i32) -> Answer {
    let message = read(context, address, length)?;
    count(context, |counts| counts.log_lines += 1);
    let level = match level {
        5 => "emerg",
        4 | 6.. => "error",
        3 => "warn",
        2 => "info",
        _ => "debug",
    };
    let host = context.data();
    let message = format!("{}: {}", host.plugin, text(&message));
    match &host.request {
        Some(request) => request.log(level, &message),
        None => eprintln!("[{level}] {message}"),
    }
    Ok(())
}

/// Everything that a filter may import.
pub fn linker(engine: &Engine) -> Result<Linker<Host>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    // A host function whose work returns an `Answer`.
    macro_rules! host {
        ($name:literal, |$context:ident $(, $argument:ident)*| $work:expr) => {
            linker.func_wrap(
                "env",
                $name,
                |mut caller: Caller<'_, Host> $(, $argument: i32)*| -> Result<i32, wasmtime::Error> {
                    if let Some(forced) = caller.data().forced($name) {
                        return Ok(forced);
                    }
                    let $context = &mut caller;
                    status($work)
                },
            )?;
        };
    }
    // One that always gives the same status.
    macro_rules! always {
        ($status:expr, $name:literal, $($argument:ty),*) => {
            linker.func_wrap("env", $name, |caller: Caller<'_, Host> $(, _: $argument)*| -> i32 {
                caller.data().forced($name).unwrap_or($status)
            })?;
        };
    }
    host!("proxy_log", |context, level, data, size| log(context, level, data, size));
    host!("proxy_get_property", |context, path, path_size, data, size| get_property(
        context, path, path_size, data, size
    ));
    host!("proxy_set_property", |context, path, path_size, data, size| set_property(
        context, path, path_size, data, size
    ));
    host!("proxy_get_buffer_bytes", |context, kind, start, max, data, size| get_buffer(
        context, kind, start, max, data, size
    ));
    host!("proxy_get_header_map_pairs", |context, kind, data, size| header_pairs(context, kind, data, size));
    host!("proxy_get_header_map_value", |context, kind, name, name_size, data, size| header_value(
        context, kind, name, name_size, data, size
    ));
    host!("proxy_add_header_map_value", |context, kind, name, name_size, value, size| change_header(
        context,
        Change::Add,
        kind,
        (name, name_size),
        (value, size)
    ));
    host!("proxy_replace_header_map_value", |context, kind, name, name_size, value, size| change_header(
        context,
        Change::Replace,
        kind,
        (name, name_size),
        (value, size)
    ));
    host!("proxy_remove_header_map_value", |context, kind, name, name_size| change_header(
        context,
        Change::Remove,
        kind,
        (name, name_size),
        (name, 0)
    ));
    host!("proxy_send_local_response", |context,
                                        code,
                                        _details,
                                        _details_size,
                                        body,
                                        body_size,
                                        headers,
                                        headers_size,
                                        _grpc| send_local_response(
        context,
        code,
        (body, body_size),
        (headers, headers_size)
    ));
    host!("proxy_http_call", |context,
                              upstream,
                              upstream_size,
                              headers,
                              headers_size,
                              body,
                              body_size,
                              _trailers,
                              _trailers_size,
                              timeout,
                              token| http_call(
        context,
        &CallArguments {
            upstream: (upstream, upstream_size),
            headers: (headers, headers_size),
            body: (body, body_size),
            timeout,
            token,
        }
    ));
    host!("proxy_define_metric", |context, _kind, _name, _size, id| write_number(context, id, 0));
    always!(abi::OK, "proxy_increment_metric", i32, i64);
    always!(abi::OK, "proxy_record_metric", i32, i64);
    always!(abi::OK, "proxy_set_effective_context", i32);
    always!(abi::OK, "proxy_continue_stream", i32);
    always!(abi::OK, "proxy_close_stream", i32);
    always!(abi::OK, "proxy_continue_request",);
    always!(abi::OK, "proxy_continue_response",);
    always!(abi::UNIMPLEMENTED, "proxy_clear_route_cache",);
    always!(abi::UNIMPLEMENTED, "proxy_set_tick_period_milliseconds", i32);
    always!(abi::UNIMPLEMENTED, "proxy_get_current_time_nanoseconds", i32);
    always!(abi::UNIMPLEMENTED, "proxy_set_buffer_bytes", i32, i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_set_header_map_pairs", i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_get_shared_data", i32, i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_set_shared_data", i32, i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_register_shared_queue", i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_resolve_shared_queue", i32, i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_dequeue_shared_queue", i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_enqueue_shared_queue", i32, i32, i32);
    always!(
        abi::UNIMPLEMENTED,
        "proxy_grpc_call",
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32
    );
    always!(abi::UNIMPLEMENTED, "proxy_grpc_stream", i32, i32, i32, i32, i32, i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_grpc_send", i32, i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_grpc_cancel", i32);
    always!(abi::UNIMPLEMENTED, "proxy_grpc_close", i32);
    always!(abi::UNIMPLEMENTED, "proxy_get_status", i32, i32, i32);
    always!(abi::UNIMPLEMENTED, "proxy_done",);
    always!(abi::UNIMPLEMENTED, "proxy_call_foreign_function", i32, i32, i32, i32, i32, i32);
    wasi(&mut linker)?;
    Ok(linker)
}

/// WASI's `errno`.
const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const FAULT: i32 = 21;
const INVALID: i32 = 28;

fn errno(answer: Answer) -> Result<i32, wasmtime::Error> {
    match answer {
        Ok(()) => Ok(SUCCESS),
        Err(Stop::Status(_)) => Ok(FAULT),
        Err(Stop::Trap(error)) => Err(error),
    }
}

fn wasi(linker: &mut Linker<Host>) -> Result<(), wasmtime::Error> {
    const WASI: &str = "wasi_snapshot_preview1";
    type Wasi<'a> = Caller<'a, Host>;
    linker.func_wrap(WASI, "environ_sizes_get", |mut caller: Wasi<'_>, count: i32, size: i32| {
        let variables = caller.data().environment.clone();
        let bytes: usize = variables.iter().map(|variable| variable.len() + 1).sum();
        errno(
            write_number(&mut caller, count, variables.len() as u32)
                .and_then(|()| write_number(&mut caller, size, bytes as u32)),
        )
    })?;
    linker.func_wrap(WASI, "environ_get", |mut caller: Wasi<'_>, pointers: i32, buffer: i32| {
        let variables = caller.data().environment.clone();
        let (mut pointer, mut place) = (pointers, buffer);
        for variable in variables {
            let mut bytes = variable.into_bytes();
            bytes.push(0);
            let written = write_number(&mut caller, pointer, place as u32);
            if written.and_then(|()| write(&mut caller, place, &bytes)).is_err() {
                return FAULT;
            }
            pointer += 4;
            place += bytes.len() as i32;
        }
        SUCCESS
    })?;
    linker.func_wrap(WASI, "args_sizes_get", |mut caller: Wasi<'_>, count: i32, size: i32| {
        errno(write_number(&mut caller, count, 0).and_then(|()| write_number(&mut caller, size, 0)))
    })?;
    linker.func_wrap(WASI, "args_get", |_: Wasi<'_>, _: i32, _: i32| SUCCESS)?;
    let start = Instant::now();
    linker.func_wrap(
        WASI,
        "clock_time_get",
        move |mut caller: Wasi<'_>, clock: i32, _: i64, address: i32| {
            let now = match clock {
                0 => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                1 => start.elapsed(),
                _ => return Ok(INVALID),
            };
            count(&mut caller, |counts| counts.clock_reads += 1);
            errno(write(&mut caller, address, &(now.as_nanos() as u64).to_le_bytes()))
        },
    )?;
    linker.func_wrap(WASI, "random_get", |mut caller: Wasi<'_>, address: i32, length: i32| {
        let mut bytes = vec![0; length as u32 as usize];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        if read.is_err() {
            return Ok(FAULT);
        }
        errno(write(&mut caller, address, &bytes))
    })?;
    linker.func_wrap(
        WASI,
        "fd_write",
        |mut caller: Wasi<'_>, file: i32, vectors: i32, count: i32, written: i32| {
            if !(1..=2).contains(&file) {
                return Ok(BAD_DESCRIPTOR);
            }
            let mut all = Vec::new();
            for index in 0..count {
                let piece = read(&mut caller, vectors + index * 8, 8).and_then(|vector| {
                    let number = |at: usize| {
                        i32::from_le_bytes([vector[at], vector[at + 1], vector[at + 2], vector[at + 3]])
                    };
                    read(&mut caller, number(0), number(4))
                });
                match piece {
                    Ok(piece) => all.extend(piece),
                    Err(stop) => return errno(Err(stop)),
                }
            }
            eprint!("{}", text(&all));
            errno(write_number(&mut caller, written, all.len() as u32))
        },
    )?;
    linker.func_wrap(WASI, "fd_close", |_: Wasi<'_>, _: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(WASI, "fd_seek", |_: Wasi<'_>, _: i32, _: i64, _: i32, _: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(WASI, "fd_fdstat_get", |_: Wasi<'_>, _: i32, _: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(WASI, "fd_prestat_get", |_: Wasi<'_>, _: i32, _: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(WASI, "fd_prestat_dir_name", |_: Wasi<'_>, _: i32, _: i32, _: i32| BAD_DESCRIPTOR)?;
    linker.func_wrap(WASI, "sched_yield", |_: Wasi<'_>| SUCCESS)?;
    linker.func_wrap(WASI, "proc_exit", |_: Wasi<'_>, code: i32| -> Result<(), wasmtime::Error> {
        Err(wasmtime::Error::msg(format!("proc_exit({code})")))
    })?;
    Ok(())
}
