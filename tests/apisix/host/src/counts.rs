//! What is done for one request: callbacks into the filter, calls of the host by kind, bytes that are copied, and runs of
//! Lua. Unlike times, these are the same on every machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{json, Value};

/// The counts of one request, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Callbacks into the filter, those included by which its contexts begin and end.
    pub callbacks: u64,
    /// Contexts of the filter.
    pub contexts: u64,
    /// Blocks of memory that the filter gives the host for what it reads: each is one more call into the filter.
    pub blocks: u64,
    pub header_reads: u64,
    pub map_reads: u64,
    pub header_writes: u64,
    pub header_removals: u64,
    /// Those that found no such header.
    pub idle_removals: u64,
    pub variable_reads: u64,
    pub variable_writes: u64,
    /// The values of variables, read and written by the filter or by Lua.
    pub variable_bytes: u64,
    pub buffer_reads: u64,
    pub log_lines: u64,
    /// Calls over HTTP, and responses of the filter's own.
    pub dispatches: u64,
    pub replies: u64,
    pub clock_reads: u64,
    /// Bytes that the host copies out of the filter's memory, and into it.
    pub from_filter: u64,
    pub to_filter: u64,
    pub lua_runs: u64,
    /// Bytes that Lua takes over into strings of its own, and hands back.
    pub lua_bytes: u64,
    /// Requests that this one has sent to listeners of the gateway itself.
    pub loopback: u64,
    /// Requests that it has sent to anybody else.
    pub upstream: u64,
    /// Pieces of the response.
    pub pieces: u64,
}

impl Counts {
    /// Lua has read or written a variable of this length.
    pub fn took_over(&mut self, length: usize) {
        self.variable_bytes += length as u64;
        self.lua_bytes += length as u64;
    }

    fn json(&self) -> Value {
        json!({
            "callbacks": self.callbacks,
            "contexts": self.contexts,
            "blocks": self.blocks,
            "header_reads": self.header_reads,
            "map_reads": self.map_reads,
            "header_writes": self.header_writes,
            "header_removals": self.header_removals,
            "idle_removals": self.idle_removals,
            "variable_reads": self.variable_reads,
            "variable_writes": self.variable_writes,
            "variable_bytes": self.variable_bytes,
            "buffer_reads": self.buffer_reads,
            "log_lines": self.log_lines,
            "dispatches": self.dispatches,
            "replies": self.replies,
            "clock_reads": self.clock_reads,
            "from_filter": self.from_filter,
            "to_filter": self.to_filter,
            "lua_runs": self.lua_runs,
            "lua_bytes": self.lua_bytes,
            "loopback": self.loopback,
            "upstream": self.upstream,
            "pieces": self.pieces,
        })
    }
}

/// The file of `--counts`, with a line of JSON for each request that is over.
pub struct Ledger(Option<Mutex<File>>);

impl Ledger {
    pub fn new(path: Option<&Path>) -> io::Result<Ledger> {
        Ok(Ledger(path.map(File::create).transpose()?.map(Mutex::new)))
    }

    /// Writes the line of a request on the route `route`.
    pub fn add(&self, route: &str, counts: &Counts) {
        let Some(file) = &self.0 else { return };
        let mut line = counts.json();
        line["route"] = json!(route);
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes());
    }
}
