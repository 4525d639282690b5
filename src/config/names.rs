//! Names in the configuration: the names of the providers, and the characters of a name.

/// The names of the configured providers.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) all: Vec<&'a str>,
    /// The optional ones that are left out because they have no key.
    pub(super) left_out: Vec<&'a str>,
}

/// Whether a text can be a name. Names stand in keys of the store, in metrics and in headers.
pub(super) fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}
