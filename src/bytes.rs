//! Texts and bytes: reading and changing JSON, event streams and header maps in place, without a tree.

pub mod headers;
pub mod json;
pub mod splice;
pub mod sse;
