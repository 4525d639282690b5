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

pub mod answer;
pub mod anthropic;
pub mod audit;
pub mod breaker;
pub mod budget;
pub mod chain;
pub mod clock;
pub mod config;
pub mod cost;
pub mod dialect;
pub mod digits;
pub mod evaluations;
pub mod exchange;
pub mod headers;
pub mod json;
pub mod ledger;
pub mod metrics;
pub mod models;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod provider;
pub mod report;
pub mod request;
pub mod rewrite;
pub mod schema;
pub mod splice;
pub mod sse;
pub mod store;
pub mod stored;
pub mod tokens;
pub mod usage;

#[cfg(target_arch = "wasm32")]
mod host;
