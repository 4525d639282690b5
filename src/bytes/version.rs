//! The version of HTTP in the first line of a request.

/// The first line of a request of HTTP/1.1, with the version 1.0 and without its line end. It is as long as before. `None` if its end has
/// not arrived.
pub fn first_line_as_http_1_0(start: &[u8]) -> Option<Vec<u8>> {
    let end = start.windows(2).position(|two| two == b"\r\n")?;
    let mut line = start.get(..end)?.to_vec();
    if line.ends_with(b" HTTP/1.1") {
        line.pop();
        line.push(b'0');
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_request_is_changed_and_nothing_else() {
        for (start, line) in [
            (
                &b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n{}"[..],
                Some(&b"POST /v1/chat/completions HTTP/1.0"[..]),
            ),
            (b"POST / HTTP/1.0\r\n", Some(b"POST / HTTP/1.0")),
            (b"POST /a?b=HTTP/1.1 HTTP/1.1\r\n", Some(b"POST /a?b=HTTP/1.1 HTTP/1.0")),
            (b"nonsense\r\nHTTP/1.1\r\n", Some(b"nonsense")),
            (b"POST / HTTP/1.1\r", None),
            (b"POST / HTTP/1.1", None),
            (b"", None),
        ] {
            assert_eq!(first_line_as_http_1_0(start).as_deref(), line);
        }
    }
}
