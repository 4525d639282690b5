//! Names in the configuration: which providers there are, and what can be a name.

/// The names of the configured providers.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) all: Vec<&'a str>,
    /// Those that are left out for want of a key.
    pub(super) left_out: Vec<&'a str>,
}

/// Whether a text can be a name: in a key of the store, a metric, a header.
pub(super) fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}
