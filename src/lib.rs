//! Shunt: a proxy-wasm filter that turns an LLM provider's outage into a routing decision, inside the gateway.
//!
//! ```text
//!  client ──► router ──────► Envoy's router ──► attempt (openai's cluster) ───► openai
//!             reads, plans,   picks the          rewrites, judges,      503 ◄──
//!             names the       cluster,           names the next
//!             first provider  retries            provider
//!                                 │
//!                                 └───────────► attempt (deepseek's cluster) ─► deepseek
//!  client ◄────────────────────────────────────  judges, releases     200 ◄────
//! ```
//!
//! The core is everything but `host`, and it is pure: time, randomness, state and the environment are arguments, and what to do
//! next is a return value. It builds natively and is tested natively. `host` is built for wasm only. Each of its callbacks reads
//! what the gateway passes, calls one function of the core, and does what that returned. `ARCHITECTURE.md` describes the parts.

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
