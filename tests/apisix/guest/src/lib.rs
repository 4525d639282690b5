//! A tiny filter, without the SDK, that does what the request header `x-guest` says; among it what a filter must not do.
//!
//! Every response tells in headers what the host did: the context (`x-guest-context`), whether this context saw the
//! request (`x-guest-saw-request`), the configuration and a variable of the environment.

use std::cell::RefCell;
use std::collections::HashMap;

#[link(wasm_import_module = "env")]
extern "C" {
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        kind: u32,
        name: *const u8,
        length: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        kind: u32,
        name: *const u8,
        length: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        kind: u32,
        name: *const u8,
        length: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: u32, name: *const u8, length: usize) -> u32;
    fn proxy_get_property(path: *const u8, length: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, length: usize, value: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc: i32,
    ) -> u32;
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_set_buffer_bytes(kind: u32, start: usize, size: usize, data: *const u8, length: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
}

const REQUEST: u32 = 0;
const RESPONSE: u32 = 2;
const CALL: u32 = 6;
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;

thread_local! {
    static CONFIGURATION: RefCell<String> = RefCell::default();
    /// What each context was told to do in its request.
    static TOLD: RefCell<HashMap<u32, String>> = RefCell::default();
    static CONFIGURED: RefCell<u32> = RefCell::default();
}

type Bytes = Result<Vec<u8>, u32>;

fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Bytes {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    match call(&mut data, &mut size) {
        0 if data.is_null() => Ok(Vec::new()),
        // SAFETY: the host took `size` bytes from `proxy_on_memory_allocate` and gives them to us for good.
        0 => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

fn header(kind: u32, name: &str) -> Bytes {
    // SAFETY: here and below, pointers are to live values, and the host copies what it reads.
    taken(|data, size| unsafe { proxy_get_header_map_value(kind, name.as_ptr(), name.len(), data, size) })
}

fn text(bytes: Bytes) -> String {
    bytes.map_or_else(
        |status| format!("status {status}"),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn set(kind: u32, name: &str, value: &str) -> u32 {
    unsafe { proxy_replace_header_map_value(kind, name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

fn property(name: &str) -> Bytes {
    taken(|data, size| unsafe { proxy_get_property(name.as_ptr(), name.len(), data, size) })
}

fn set_property(name: &str, value: &[u8]) -> u32 {
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

fn buffer(kind: u32, size: usize) -> Bytes {
    taken(|data, length| unsafe { proxy_get_buffer_bytes(kind, 0, size, data, length) })
}

fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Whether the lengths in a map lead to its end.
fn is_map(bytes: &[u8]) -> bool {
    let number =
        |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let Some(count) = number(0) else { return false };
    let lengths: Option<Vec<usize>> = (0..count * 2).map(|index| number(4 + index * 4)).collect();
    lengths.is_some_and(|all| {
        4 + all.len() * 4 + all.iter().map(|one| one.saturating_add(1)).sum::<usize>() == bytes.len()
    })
}

fn answer(status: u32, headers: &[(&str, &str)], body: &[u8]) {
    let headers = map(headers);
    unsafe {
        proxy_send_local_response(
            status,
            [].as_ptr(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    };
}

fn call(address: &str, headers: &[(&str, &str)]) -> u32 {
    let headers = map(headers);
    let mut token = 0;
    let body = b"from the guest";
    unsafe {
        proxy_http_call(
            address.as_ptr(),
            address.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            [].as_ptr(),
            0,
            300,
            &mut token,
        )
    }
}

#[no_mangle]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[no_mangle]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut bytes = Vec::with_capacity(size);
    let data = bytes.as_mut_ptr();
    std::mem::forget(bytes);
    data
}

#[no_mangle]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

#[no_mangle]
pub extern "C" fn proxy_on_configure(_context: u32, size: usize) -> u32 {
    let conf = text(buffer(7, size));
    let accepted = match conf.as_str() {
        "trap" => std::process::abort(),
        conf => u32::from(conf != "refuse"),
    };
    CONFIGURATION.set(conf);
    CONFIGURED.set(CONFIGURED.take() + 1);
    accepted
}

#[no_mangle]
pub extern "C" fn proxy_on_request_headers(context: u32, _count: u32, _end: u32) -> u32 {
    let told = header(REQUEST, "x-guest")
        .map(|told| String::from_utf8_lossy(&told).into_owned())
        .unwrap_or_default();
    TOLD.with_borrow_mut(|all| all.insert(context, told.clone()));
    match told.as_str() {
        "trap" => std::process::abort(),
        "pause" => return PAUSE,
        "authority" => drop(header(REQUEST, ":authority")),
        "pairs" => {
            let pairs = taken(|data, size| unsafe { proxy_get_header_map_pairs(REQUEST, data, size) });
            set(REQUEST, "x-seen-count", &pairs.map_or(0, |bytes| bytes[0]).to_string());
        }
        "answer" => {
            answer(201, &[("x-own", "yes"), ("content-type", "text/plain")], b"made here");
            return PAUSE;
        }
        "call" | "calls" | "twice" => {
            let address = text(header(REQUEST, "x-call"));
            let pseudo =
                [(":method", "POST"), (":path", "/v1/called"), (":scheme", "http"), (":authority", "called")];
            let first = call(&address, &pseudo);
            if told == "twice" {
                let second = call(&address, &pseudo);
                answer(200, &[], format!("{first} {second}").as_bytes());
            }
            return PAUSE;
        }
        "rewrite" => {
            set_property("upstream_uri", b"/elsewhere?x=1");
            set_property("upstream_host", b"other.test");
            set(REQUEST, "x-set", "1");
            unsafe { proxy_add_header_map_value(REQUEST, b"authorization".as_ptr(), 13, b"new".as_ptr(), 3) };
            unsafe { proxy_remove_header_map_value(REQUEST, b"x-drop".as_ptr(), 6) };
            // None of these reaches the upstream.
            set(REQUEST, "host", "nowhere.test");
        }
        "statuses" => {
            let mut time = 0;
            let statuses = [
                unsafe { proxy_get_current_time_nanoseconds(&mut time) },
                unsafe { proxy_set_buffer_bytes(0, 0, 0, b"x".as_ptr(), 1) },
                set_property("nobody_set_this", b"x"),
                set_property("remote_addr", b"x"),
                property("http_x_absent").err().unwrap_or(0),
                property("nginx_version").err().unwrap_or(0),
                buffer(0, usize::MAX).err().unwrap_or(0),
                call("http://a/b", &[(":path", "/")]),
            ];
            answer(200, &[], format!("{statuses:?}").as_bytes());
            return PAUSE;
        }
        "body" | "body-max" | "body-stale" | "body-pause" => {
            set_property("wasm_process_req_body", b"1");
        }
        _ => {}
    }
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
    let told = TOLD.with_borrow(|all| all.get(&context).cloned().unwrap_or_default());
    if told == "body-pause" {
        return PAUSE;
    }
    let wanted = match told.as_str() {
        "body-max" => usize::MAX,
        "body-stale" => 3,
        _ => size,
    };
    let body = text(buffer(0, wanted));
    set(REQUEST, "x-seen-body", &format!("{size} {end} {body}"));
    set_property("shunt_body", format!("<{body}>").as_bytes());
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_http_call_response(
    _context: u32,
    token: u32,
    headers: u32,
    size: usize,
    _trailers: u32,
) {
    let status = header(CALL, ":status");
    let body = buffer(4, size);
    let seen =
        format!("token {token}, {headers} headers, :status {}, {size} bytes: {}", text(status), text(body));
    // A second call says nothing but its path: the rest is as in the call before.
    if text(header(REQUEST, "x-guest")) == "calls" {
        set(REQUEST, "x-guest", "call");
        call(&text(header(REQUEST, "x-call")), &[(":path", "/v1/again")]);
        return;
    }
    answer(200, &[], seen.as_bytes());
}

#[no_mangle]
pub extern "C" fn proxy_on_response_headers(context: u32, _count: u32, _end: u32) -> u32 {
    let saw = TOLD.with_borrow(|all| all.contains_key(&context));
    set(RESPONSE, "x-guest-context", &context.to_string());
    set(RESPONSE, "x-guest-saw-request", if saw { "yes" } else { "no" });
    set(RESPONSE, "x-guest-conf", &CONFIGURATION.with_borrow(Clone::clone));
    set(RESPONSE, "x-guest-configured", &CONFIGURED.with_borrow(u32::to_string));
    set(RESPONSE, "x-guest-key", &std::env::var("GUEST_KEY").unwrap_or("none".to_owned()));
    set(RESPONSE, "x-guest-other", &std::env::var("GUEST_OTHER").unwrap_or("none".to_owned()));
    set(RESPONSE, "x-guest-tries", &text(property("upstream_status")));
    match text(header(REQUEST, "x-guest")).as_str() {
        "status" => {
            set(RESPONSE, ":status", &text(header(REQUEST, "x-status")));
        }
        "map" => {
            let map = taken(|data, size| unsafe { proxy_get_header_map_pairs(RESPONSE, data, size) });
            set(
                RESPONSE,
                "x-guest-map",
                if map.is_ok_and(|bytes| is_map(&bytes)) { "whole" } else { "garbage" },
            );
        }
        "chunks" => {
            unsafe { proxy_remove_header_map_value(RESPONSE, b"content-length".as_ptr(), 14) };
            set_property("wasm_process_resp_body", b"1");
            set_property("shunt_chunks", b"1");
        }
        _ => {}
    }
    // Ignored in the response.
    PAUSE
}

#[no_mangle]
pub extern "C" fn proxy_on_response_body(_context: u32, size: usize, end: u32) -> u32 {
    let chunk = if size == 0 { String::new() } else { text(buffer(1, size)) };
    let chunk = if end == 1 { format!("{chunk}(end)") } else { chunk.to_uppercase() };
    set_property("shunt_chunk", chunk.as_bytes());
    set_property("shunt_audit", b"{\"guest\":true}");
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_done(context: u32) -> u32 {
    // Without a request, nothing is known.
    if property("request_method") != Err(2) {
        std::process::abort();
    }
    TOLD.with_borrow_mut(|all| all.remove(&context));
    1
}

#[no_mangle]
pub extern "C" fn proxy_on_delete(_context: u32) {}
