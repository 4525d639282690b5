//! What APISIX may do to a filter, as faults that a test turns on. `--faults` lists them with the reason why each one can
//! happen; `--fault NAME` turns one on. A filter must survive each: nothing here is worse than what the host does.

/// Host calls that can be answered with any status.
pub const CALLS: [&str; 35] = [
    "proxy_log",
    "proxy_get_buffer_bytes",
    "proxy_set_buffer_bytes",
    "proxy_get_header_map_pairs",
    "proxy_set_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_add_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_remove_header_map_value",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_send_local_response",
    "proxy_http_call",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_current_time_nanoseconds",
    "proxy_set_effective_context",
    "proxy_continue_stream",
    "proxy_close_stream",
    "proxy_done",
    "proxy_get_status",
    "proxy_call_foreign_function",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_dequeue_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_grpc_call",
    "proxy_grpc_stream",
    "proxy_grpc_send",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
];

/// Statuses of the ABI that are not OK.
const STATUSES: [i32; 6] = [1, 2, 6, 7, 10, 12];

/// The faults that are not a status of one call.
const NAMED: [(&str, &str); 12] = [
    (
        "map=request:garbled",
        "the whole request map is not to be relied on: it is cut at 100 headers and built from live memory",
    ),
    ("map=response:garbled", "the whole response map is garbage with more than 20 header lines"),
    ("map=call:garbled", "the map of a call's answer is filled by the same code as the others"),
    ("body=request:missing", "a request without a body has no buffer: NOT_FOUND, whatever size was told"),
    ("body=response:missing", "an empty piece has no buffer: NOT_FOUND"),
    ("body=call:missing", "a call that failed, or whose answer was empty, has no body: NOT_FOUND"),
    ("calls=fail", "refused, timed out, closed, name not resolved, TLS not trusted: 0 headers and 0 bytes"),
    ("dispatch=refused", "a second call while one waits, or a timeout below zero: INTERNAL_FAILURE"),
    ("request-callbacks=none", "when authentication fails first, only the response callbacks run"),
    ("variables=undefined", "a config.yaml without the snippet: setting its variables is NOT_FOUND"),
    ("configuration=missing", "the buffer of the configuration has nothing to give"),
    ("memory=none", "the host could not get memory from the filter for what it gives: INTERNAL_FAILURE"),
];

/// The faults that are on.
#[derive(Clone, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    pub fn add(&mut self, name: &str) -> Result<(), String> {
        if !rows().iter().any(|(known, _)| known == name) {
            return Err(format!("no fault is called {name:?}; --faults lists them"));
        }
        self.0.push(name.to_owned());
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|one| one == name)
    }

    /// The status that a host call is answered with, whatever was asked.
    pub fn status(&self, call: &str) -> Option<i32> {
        let name = format!("call={call}:status=");
        self.0.iter().find_map(|one| one.strip_prefix(&name)?.parse().ok())
    }
}

/// Every fault, and why it can happen.
pub fn rows() -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    for call in CALLS {
        for status in STATUSES {
            let why = match status {
                1 => "what was asked for is not there (an unset variable, a header that did not come)",
                2 => "outside a request, or an argument that nginx does not take",
                6 => "the host could not read or write where the filter pointed",
                7 => "nothing there, as other hosts say it",
                10 => "nginx had no memory, or refused what was set",
                _ => "not implemented in APISIX's host",
            };
            rows.push((format!("call={call}:status={status}"), why.to_owned()));
        }
    }
    rows.extend(NAMED.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())));
    rows
}
