//! The shell around the core, for the wasm target only: entry point, roles, and what a VM remembers.
//!
//! Callbacks here are boring: read, call one core function, carry out what it returned. [`sys`] is the only file that
//! names host calls.

mod apisix;
mod client_request;
mod envoy;
mod root;
mod sys;
mod worker;

proxy_wasm::main! {{
    sys::set_logger();
    proxy_wasm::set_root_context(|_| Box::<root::Root>::default());
}}

/// Writes a note of the core to the log.
fn log_note(note: crate::exchange::Note) {
    if let Some(text) = note {
        log::warn!("{text}");
    }
}
