//! Shunt: a proxy-wasm filter that turns an LLM provider's outage into a routing decision, inside the gateway.
//!
//! ```text
//!  client ──► router ──────► Envoy's router ──► attempt (openai's cluster) ───► openai
//!             reads, plans    picks a cluster,   rewrites, judges,      503 ◄──
//!             names the       retries            says whom to ask next
//!             first provider      │
//!                                 └───────────► attempt (deepseek's cluster) ─► deepseek
//!  client ◄────────────────────────────────────  judges, releases     200 ◄────
//! ```
//!
//! The core (everything but `host`) is pure: time, randomness, state and the environment are arguments, and what
//! to do next is a return value. It builds and is tested natively. `host`, built for wasm only, reads, calls one core
//! function, and carries out what it returned. `ARCHITECTURE.md` is the map.

pub mod base;
pub mod bytes;
pub mod client_api;
pub mod config;
pub mod dialects;
pub mod exchange;
pub mod health;
pub mod record;
pub mod relay;
pub mod response;
pub mod routing;
pub mod selection;
pub mod spend;

#[cfg(target_arch = "wasm32")]
mod host;
