//! A dispatched HTTP call, performed as lua-resty-http performs it: buffered, one timeout for each operation.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::http1::{self, text, Body, Conn, Framing, Headers};
use crate::request::{CallAnswer, Callout};

/// The pseudo-headers of the worker's last call: what a call does not say is taken from there.
#[derive(Default)]
pub struct Previous {
    method: Option<String>,
    scheme: Option<String>,
    path: Option<String>,
}

/// A call with its pseudo-headers put in place.
pub struct Ready {
    authority: String,
    method: String,
    scheme: String,
    path: String,
    headers: Headers,
    body: Vec<u8>,
    timeout: Duration,
}

impl Previous {
    /// Completes a call by what the last one said.
    pub fn complete(&mut self, call: Callout) -> Ready {
        let mut headers = Headers::new();
        for (name, value) in call.headers {
            let value_text = text(&value).into_owned();
            match &name[..] {
                b":method" => self.method = Some(value_text),
                b":scheme" => self.scheme = Some(value_text),
                b":path" => self.path = Some(value_text),
                b":authority" => headers.push(("host".to_owned(), value)),
                name => headers.push((text(name).into_owned(), value)),
            }
        }
        let path = self.path.clone().unwrap_or_default();
        Ready {
            authority: call.authority,
            method: self.method.clone().unwrap_or("GET".to_owned()),
            scheme: self.scheme.clone().unwrap_or("http".to_owned()),
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers,
            body: call.body,
            timeout: call.timeout,
        }
    }
}

impl Ready {
    /// Where the call goes.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The answer; an error is what the host logs of a call that failed, however it failed.
    pub fn perform(self, fail: bool) -> Result<CallAnswer, String> {
        if fail {
            return Ok(CallAnswer::default());
        }
        let address = self.authority.clone();
        self.exchange().map_err(|error| format!("http call to {address} failed: {error}"))
    }

    fn exchange(self) -> io::Result<CallAnswer> {
        if self.scheme != "http" {
            return Err(http1::bad("the stand-in speaks no TLS"));
        }
        let timeout = self.timeout.max(Duration::from_millis(1));
        let address = if self.authority.contains(':') {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let mut conn = Conn::new(connect(&address, timeout)?);
        conn.stream.set_write_timeout(Some(timeout))?;
        conn.write(&self.head())?;
        conn.write(&self.body)?;
        let wait = |conn: &Conn| http1::wait_readable(&conn.stream, None, timeout);
        loop {
            let Some(head) = conn.read_head(wait)? else { return Err(http1::bad("closed")) };
            let status = status_of(&head.first)?;
            if status == 100 {
                continue;
            }
            let mut body = Body::new(Framing::of_response(&self.method, status, &head.headers)?);
            let mut all = Vec::new();
            while let Some(piece) = body.next(&mut conn, wait)? {
                all.extend(piece);
            }
            let mut headers: Headers = head.headers;
            headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
            // In the order of a Lua table, which is none; the status is the last.
            headers.reverse();
            headers.push((":status".to_owned(), status.to_string().into_bytes()));
            return Ok(CallAnswer { headers, body: all });
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut headers = self.headers.clone();
        if http1::find(&headers, "host").is_none() {
            headers.push(("Host".to_owned(), self.authority.clone().into_bytes()));
        }
        if http1::find(&headers, "user-agent").is_none() {
            headers.push(("User-Agent".to_owned(), b"lua-resty-http/0.17.2 (Lua) ngx_lua/10029".to_vec()));
        }
        if !self.body.is_empty() {
            http1::set(&mut headers, "Content-Length", self.body.len().to_string().as_bytes());
        }
        write_head(&format!("{} {} HTTP/1.1", self.method, self.path), &headers)
    }
}

pub fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = http1::bad("no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub fn write_head(first: &str, headers: &Headers) -> Vec<u8> {
    let mut bytes = first.as_bytes().to_vec();
    bytes.extend(b"\r\n");
    for (name, value) in headers {
        bytes.extend(name.as_bytes());
        bytes.extend(b": ");
        bytes.extend(value);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes
}

/// The status of a response's first line.
pub fn status_of(line: &str) -> io::Result<u16> {
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    status.filter(|status| (100..1000).contains(status)).ok_or_else(|| http1::bad("no status line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(headers: &[(&str, &str)]) -> Callout {
        let pairs: crate::abi::Pairs =
            headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Callout { authority: "a:1".to_owned(), headers: pairs, body: Vec::new(), timeout: Duration::ZERO }
    }

    #[test]
    fn what_a_call_does_not_say_is_what_the_last_one_said() {
        let mut previous = Previous::default();
        previous.complete(call(&[(":method", "POST"), (":path", "/a"), (":scheme", "http")]));
        let next = previous.complete(call(&[(":path", "/b")]));
        assert_eq!((next.method.as_str(), next.path.as_str()), ("POST", "/b"));
    }
}
