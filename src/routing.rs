//! The providers as data, the policies that order them for a request, and the headers that are forwarded to them.

pub mod policy;
pub mod provider;
pub mod rewrite;
