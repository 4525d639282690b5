//! Reads and changes JSON, event streams and header maps as bytes, without building a tree of values.

pub mod ascii;
pub mod headers;
pub mod json;
pub mod splice;
pub mod sse;
pub mod version;
