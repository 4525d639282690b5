//! Where requests can go: providers as data, the policies that order them, and the headers that are forwarded to them.

pub mod policy;
pub mod provider;
pub mod rewrite;
