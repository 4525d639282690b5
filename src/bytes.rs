//! Formats of bytes: JSON, event streams and header maps are read and changed in place, without a tree.

pub mod headers;
pub mod json;
pub mod splice;
pub mod sse;
