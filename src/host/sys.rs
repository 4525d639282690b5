//! Every call of the host. Every status that the host returns becomes a value.
//!
//! The SDK's wrappers panic on a status that they do not expect. A panic is a trap, which ends every request of the worker. So the
//! functions are declared here, as the proxy-wasm ABI 0.2.1 has them. This is the only unsafe code.

#![expect(unsafe_code, reason = "the ABI is raw pointers; each block says why it is sound")]

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_wasm::types::{BufferType, LogLevel, MapType};

use crate::base::clock::Timestamp;
use crate::base::store::{Swap, Version};
use crate::bytes::headers::{HeaderWriter, Headers};
use crate::client_api::errors::Reply;
use crate::record::metrics::{Kind, Sink};

const OK: u32 = 0;

#[link(wasm_import_module = "env")]
extern "C" {
    fn proxy_log(level: u32, message: *const u8, len: usize) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(kind: u32, start: usize, size: usize, data: *const u8, len: usize) -> u32;
    fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(kind: u32, data: *const u8, len: usize) -> u32;
    fn proxy_get_header_map_value(
        kind: u32,
        name: *const u8,
        name_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        kind: u32,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: u32, name: *const u8, name_len: usize) -> u32;
    fn proxy_http_call(
        address: *const u8,
        address_len: usize,
        headers: *const u8,
        headers_len: usize,
        body: *const u8,
        body_len: usize,
        trailers: *const u8,
        trailers_len: usize,
        timeout: u32,
        call: *mut u32,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_len: usize, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_len: usize, data: *const u8, len: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_len: usize, data: *const u8, len: usize, cas: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_close_stream(kind: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
}

/// Runs a call that returns bytes, and takes them over; `None` for every status but OK.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut len: usize = 0;
    if call(&mut data, &mut len) != OK {
        return None;
    }
    if data.is_null() || len == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the host allocated `len` bytes with the SDK's `proxy_on_memory_allocate`, which makes a boxed slice of that length, and
    // does not use them any more.
    Some(unsafe { Vec::from_raw_parts(data, len, len) })
}

/// The bytes of a buffer from `start`, at most `max`; `None` if the host has none.
pub(super) fn buffer(kind: BufferType, start: usize, max: usize) -> Option<Vec<u8>> {
    // SAFETY: both pointers are to live locals.
    taken(|data, len| unsafe { proxy_get_buffer_bytes(kind as u32, start, max, data, len) })
}

/// Replaces `size` bytes of a buffer from `start`. Envoy can do so at the beginning of a buffer, and add bytes after its end.
pub(super) fn set_buffer(kind: BufferType, start: usize, size: usize, bytes: &[u8]) -> bool {
    // SAFETY: the host copies the slice before it returns.
    unsafe { proxy_set_buffer_bytes(kind as u32, start, size, bytes.as_ptr(), bytes.len()) == OK }
}

/// A whole header map; empty if the host has none.
pub(super) fn headers(kind: MapType) -> Headers {
    // SAFETY: both pointers are to live locals.
    let block = taken(|data, len| unsafe { proxy_get_header_map_pairs(kind as u32, data, len) });
    Headers::new(block.unwrap_or_default())
}

/// Replaces a whole header map by a block of [`HeaderWriter`].
pub(super) fn set_headers(kind: MapType, block: &[u8]) -> bool {
    // SAFETY: the host copies the slice before it returns.
    unsafe { proxy_set_header_map_pairs(kind as u32, block.as_ptr(), block.len()) == OK }
}

/// Empties a header map.
pub(super) fn clear_headers(kind: MapType) {
    set_headers(kind, &HeaderWriter::default().finish());
}

/// One header's value.
#[inline(never)]
pub(super) fn header(kind: MapType, name: &str) -> Option<Vec<u8>> {
    // SAFETY: both pointers are to live locals, the name is copied by the host.
    taken(|data, len| unsafe {
        proxy_get_header_map_value(kind as u32, name.as_ptr(), name.len(), data, len)
    })
}

/// Sets one header. All lines that it had are replaced.
pub(super) fn set_header(kind: MapType, name: &str, value: impl AsRef<[u8]>) -> bool {
    let value = value.as_ref();
    // SAFETY: the host copies both slices before it returns.
    unsafe {
        proxy_replace_header_map_value(kind as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
            == OK
    }
}

/// Removes all lines of a header.
pub(super) fn remove_header(kind: MapType, name: &str) -> bool {
    // SAFETY: the host copies the name before it returns.
    unsafe { proxy_remove_header_map_value(kind as u32, name.as_ptr(), name.len()) == OK }
}

/// Calls `address`; on APISIX that is a host with a port. Returns the number by which the host reports the end of the call. Connecting,
/// sending and each read may take `limit`.
pub(super) fn call(address: &str, headers: &[u8], body: &[u8], limit: Duration) -> Option<u32> {
    let mut call: u32 = 0;
    let trailers = HeaderWriter::default().finish();
    let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: the pointer is to a live local, the host copies all slices before it returns.
    let status = unsafe {
        proxy_http_call(
            address.as_ptr(),
            address.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            limit,
            &mut call,
        )
    };
    (status == OK).then_some(call)
}

/// The host's callback at the end of a call. The build exports it instead of the SDK's (`scripts/replace-exports.py`), which traps
/// for every call that was not made through the SDK.
#[no_mangle]
extern "C" fn shunt_on_http_call_response(_: u32, call: u32, _headers: usize, size: usize, _trailers: usize) {
    match ON_CALL_RESPONSE.get() {
        Some(handle) => handle(call, size),
        None => log::warn!(
            "the host reported the end of a call, but this role makes no calls; the report is ignored"
        ),
    }
}

/// What is done at the end of a call. The arguments are the number of the call, and the size of its answer's body in bytes.
pub(super) type CallHandler = fn(u32, usize);

thread_local! {
    static ON_CALL_RESPONSE: Cell<Option<CallHandler>> = const { Cell::new(None) };
}

/// Sets the function that is called at the end of a [`call`].
pub(super) fn on_call_response(handle: CallHandler) {
    ON_CALL_RESPONSE.set(Some(handle));
}

/// A property. NUL separates the parts of its `path`.
pub(super) fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: both pointers are to live locals, the path is copied by the host.
    taken(|data, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) })
}

/// Sets a property. On Envoy it becomes filter state of the request, named `wasm.` and the path; on APISIX it sets an nginx variable.
pub(super) fn set_property(path: &str, value: &[u8]) -> bool {
    // SAFETY: the host copies both slices before it returns.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) == OK }
}

/// A shared value and its version.
pub(super) fn shared_data(key: &str) -> (Vec<u8>, Version) {
    let mut cas: u32 = 0;
    // SAFETY: all pointers are to live locals, the key is copied by the host.
    let value =
        taken(|data, len| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &mut cas) });
    match value {
        Some(value) => (value, Some(cas)),
        None => (Vec::new(), None),
    }
}

/// Writes a shared value. Envoy overwrites any version if it is given 0, so a value that is not there gets a version that no value has.
pub(super) fn set_shared_data(key: &str, value: &[u8], version: Version) -> Swap {
    let cas = version.unwrap_or(u32::MAX);
    // SAFETY: the host copies both slices before it returns.
    let status = unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    if status == OK {
        Swap::Done
    } else {
        Swap::Lost
    }
}

/// Replies to the request. The client gets this instead of any other response.
pub(super) fn send(reply: &Reply) -> bool {
    let mut writer = HeaderWriter::default();
    writer.extend(reply.headers.iter().map(|(name, value)| (name, value.as_bytes())));
    let headers = writer.finish();
    const DETAILS: &str = "shunt";
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: the host copies all slices before it returns.
    unsafe {
        proxy_send_local_response(
            reply.status.into(),
            DETAILS.as_ptr(),
            DETAILS.len(),
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        ) == OK
    }
}

/// Resets the stream of the response: the client sees that it broke.
pub(super) fn reset_response() -> bool {
    const RESPONSE: u32 = 1;
    // SAFETY: a number only.
    unsafe { proxy_close_stream(RESPONSE) == OK }
}

/// The host's metrics.
pub(super) struct Metrics;

impl Sink for Metrics {
    fn define(&mut self, kind: Kind, name: &str) -> Option<u32> {
        let kind = match kind {
            Kind::Counter => 0,
            Kind::Histogram => 2,
        };
        let mut id: u32 = 0;
        // SAFETY: the name is copied by the host, the pointer is to a live local.
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
        (status == OK).then_some(id)
    }

    fn add(&mut self, id: u32, by: u64) {
        // SAFETY: numbers only.
        let _ = unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) };
    }

    fn record(&mut self, id: u32, value: u64) {
        // SAFETY: numbers only.
        let _ = unsafe { proxy_record_metric(id, value) };
    }
}

/// Makes the host call `on_tick` of this plugin in this period.
pub(super) fn set_tick(period: Duration) {
    // SAFETY: a number only.
    let _ = unsafe { proxy_set_tick_period_milliseconds(period.as_millis() as u32) };
}

/// Makes the calls that follow count for another context of this VM; false if there is no such context any more.
pub(super) fn act_for(context: u32) -> bool {
    // SAFETY: a number only.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(crate::base::clock::millis(since))
}

/// A variable of the environment that the gateway gives to the filter.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => LogLevel::Error,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Info => LogLevel::Info,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Trace => LogLevel::Trace,
        };
        let text = record.args().to_string();
        // SAFETY: the host copies the text before it returns.
        let _ = unsafe { proxy_log(level as u32, text.as_ptr(), text.len()) };
    }

    fn flush(&self) {}
}

/// Sends the `log` macros to the gateway's log.
pub(super) fn set_logger() {
    static LOGGER: Logger = Logger;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
