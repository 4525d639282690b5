//! A minimal HTTP/1.1 message reader.
//!
//! Both sides of a benchmark are under our control, so this reads what HTTP/1.1 allows on a keep-alive
//! connection and keeps nothing: a body is handed on piece by piece as it lies in the buffer. It is
//! written by hand because a general client spends more on a request than the proxy that is measured.

use std::fmt;
use std::io;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Also the limit of a message head, which has to fit in whole.
const BUFFER_BYTES: usize = 64 * 1024;

/// Asks the fake upstream to keep a stream open behind its first content, in milliseconds. A header,
/// because a proxy passes on those that it does not know, while it may rewrite the body.
pub const HOLD_HEADER: &str = "x-shunt-load-hold-ms";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Error {
    Io(io::ErrorKind),
    /// The peer closed the connection between two messages.
    Closed,
    /// The peer closed the connection inside a message.
    ClosedInside,
    Malformed(&'static str),
    BodyTooLarge,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Closed => f.write_str("connection closed before the message"),
            Self::ClosedInside => f.write_str("connection closed inside the message"),
            Self::Malformed(what) => write!(f, "malformed HTTP: {what}"),
            Self::BodyTooLarge => f.write_str("body too large"),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    pub path: String,
    pub hold_ms: u64,
    pub framing: Framing,
    pub keep_alive: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub framing: Framing,
    pub keep_alive: bool,
}

/// Reads messages off one connection. What came in behind the current message stays for the next.
pub struct Reader<R> {
    io: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R) -> Self {
        Self { io, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Whether nothing has come in that was not yet read.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Waits for the first byte of the next message, for the sake of who measures when it came.
    pub async fn wait(&mut self) -> Result<(), Error> {
        if self.is_empty() && self.fill().await? == 0 {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub async fn request_head(&mut self) -> Result<RequestHead, Error> {
        let end = self.head_end().await?;
        let head = parse_request(&self.buffer[self.start..end]);
        self.start = end;
        head
    }

    pub async fn response_head(&mut self) -> Result<ResponseHead, Error> {
        let end = self.head_end().await?;
        let head = parse_response(&self.buffer[self.start..end]);
        self.start = end;
        head
    }

    /// Reads one body to its end and hands it to `sink` as it comes.
    pub async fn body(
        &mut self,
        framing: Framing,
        limit: u64,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        match framing {
            Framing::Length(length) if length > limit => Err(Error::BodyTooLarge),
            Framing::Length(length) => self.exactly(length, &mut sink).await,
            Framing::Chunked => self.chunks(limit, &mut sink).await,
        }
    }

    async fn chunks(&mut self, limit: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        let mut left = limit;
        loop {
            let size = chunk_size(self.line().await?)?;
            if size == 0 {
                break;
            }
            left = left.checked_sub(size).ok_or(Error::BodyTooLarge)?;
            self.exactly(size, sink).await?;
            if !self.line().await?.is_empty() {
                return Err(Error::Malformed("chunk longer than its size"));
            }
        }
        // Trailers, which nothing here has a use for, up to the empty line.
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    /// The next `length` bytes.
    async fn exactly(&mut self, mut length: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        while length > 0 {
            if self.is_empty() {
                self.need().await?;
            }
            let here = self.end - self.start;
            let take = usize::try_from(length).map_or(here, |length| length.min(here));
            sink(&self.buffer[self.start..self.start + take]);
            self.start += take;
            length -= take as u64;
        }
        Ok(())
    }

    /// The next line, without its line break.
    async fn line(&mut self) -> Result<&[u8], Error> {
        let length = self.find(b"\r\n").await?;
        let line = self.start..self.start + length;
        self.start = line.end + 2;
        Ok(&self.buffer[line])
    }

    /// Where in the buffer the next message's head ends, its empty line included.
    async fn head_end(&mut self) -> Result<usize, Error> {
        self.wait().await?;
        let length = self.find(b"\r\n\r\n").await?;
        Ok(self.start + length + 4)
    }

    /// How far off `needle` is, reading until it has come.
    async fn find(&mut self, needle: &[u8]) -> Result<usize, Error> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = memmem::find(&unread[searched..], needle) {
                return Ok(searched + at);
            }
            searched = unread.len().saturating_sub(needle.len() - 1);
            self.need().await?;
        }
    }

    /// Reads more; here the end of the connection is an error.
    async fn need(&mut self) -> Result<(), Error> {
        match self.fill().await? {
            0 => Err(Error::ClosedInside),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> Result<usize, Error> {
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.buffer.len() {
            if self.start == 0 {
                return Err(Error::Malformed("head or line too long"));
            }
            self.buffer.copy_within(self.start.., 0);
            self.end -= self.start;
            self.start = 0;
        }
        let read = self.io.read(&mut self.buffer[self.end..]).await;
        let read = read.map_err(|error| Error::Io(error.kind()))?;
        self.end += read;
        Ok(read)
    }
}

fn parse_request(head: &[u8]) -> Result<RequestHead, Error> {
    let (start, headers) = split_head(head)?;
    let mut words = start.split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Error::Malformed("request line"));
    };
    let headers = Headers::parse(headers)?;
    Ok(RequestHead {
        method: method.to_owned(),
        path: path.to_owned(),
        hold_ms: headers.hold_ms,
        // A request without a length has no body.
        framing: headers.framing.unwrap_or(Framing::Length(0)),
        keep_alive: headers.keep_alive(version)?,
    })
}

fn parse_response(head: &[u8]) -> Result<ResponseHead, Error> {
    let (start, headers) = split_head(head)?;
    let mut words = start.splitn(3, ' ');
    let (Some(version), Some(status)) = (words.next(), words.next()) else {
        return Err(Error::Malformed("status line"));
    };
    let Ok(status @ 100..=999) = status.parse() else {
        return Err(Error::Malformed("status"));
    };
    let headers = Headers::parse(headers)?;
    let framing = match (status, headers.framing) {
        (100..=199 | 204 | 304, _) => Framing::Length(0),
        (_, Some(framing)) => framing,
        // It would end with the connection, and then no one can tell whether it is complete.
        (_, None) => return Err(Error::Malformed("response without a length")),
    };
    Ok(ResponseHead { status, framing, keep_alive: headers.keep_alive(version)? })
}

fn split_head(head: &[u8]) -> Result<(&str, &str), Error> {
    std::str::from_utf8(head).ok().and_then(|head| head.split_once("\r\n")).ok_or(Error::Malformed("head"))
}

/// The headers that matter to where a message ends.
#[derive(Default)]
struct Headers {
    framing: Option<Framing>,
    close: bool,
    hold_ms: u64,
}

impl Headers {
    fn parse(lines: &str) -> Result<Self, Error> {
        let mut headers = Self::default();
        for line in lines.split_terminator("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(Error::Malformed("header"))?;
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.parse().map_err(|_| Error::Malformed("content-length"))?;
                // With a transfer coding, the length does not count (RFC 9112, section 6.3).
                headers.framing.get_or_insert(Framing::Length(length));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(Error::Malformed("transfer-encoding"));
                }
                headers.framing = Some(Framing::Chunked);
            } else if name.eq_ignore_ascii_case("connection") {
                headers.close |= value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case(HOLD_HEADER) {
                headers.hold_ms = value.parse().map_err(|_| Error::Malformed(HOLD_HEADER))?;
            }
        }
        Ok(headers)
    }

    fn keep_alive(&self, version: &str) -> Result<bool, Error> {
        match version {
            "HTTP/1.1" => Ok(!self.close),
            "HTTP/1.0" => Ok(false),
            _ => Err(Error::Malformed("version")),
        }
    }
}

/// The size in a chunk's first line, without its extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split(';').next())
        .and_then(|size| u64::from_str_radix(size.trim_ascii(), 16).ok())
        .ok_or(Error::Malformed("chunk size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
        4\r\nWiki\r\n6;name=value\r\npedia \r\nC\r\nin\r\n\r\nchunks\r\n0\r\nx-trailer: 1\r\n\r\n";
    const WHOLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length:5\r\n\
        connection: close\r\n\r\nsorry";

    async fn response<R: AsyncRead + Unpin>(reader: &mut Reader<R>) -> Result<(ResponseHead, String), Error> {
        let head = reader.response_head().await?;
        let mut body = Vec::new();
        let sink = |piece: &[u8]| body.extend_from_slice(piece);
        reader.body(head.framing, u64::MAX, sink).await?;
        Ok((head, String::from_utf8(body).expect("the tests' bodies are text")))
    }

    /// Two messages and the end of the connection, through whatever `io` makes of them.
    async fn expect_both<R: AsyncRead + Unpin>(io: R, case: &str) {
        let mut reader = Reader::new(io);
        let (head, body) = response(&mut reader).await.expect(case);
        assert_eq!((head.status, head.keep_alive), (200, true), "{case}");
        assert_eq!(body, "Wikipedia in\r\n\r\nchunks", "{case}");
        let (head, body) = response(&mut reader).await.expect(case);
        assert_eq!((head.status, head.keep_alive), (503, false), "{case}");
        assert_eq!(body, "sorry", "{case}");
        assert_eq!(reader.response_head().await, Err(Error::Closed), "{case}");
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_split() {
        let wire = [CHUNKED, WHOLE].concat();
        let wire = wire.as_bytes();
        for cut in 0..=wire.len() {
            let io = (&wire[..cut]).chain(&wire[cut..]);
            expect_both(io, &format!("cut at {cut}")).await;
        }
    }

    #[tokio::test]
    async fn messages_are_read_byte_by_byte() {
        let (mut near, far) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            near.write_all([CHUNKED, WHOLE].concat().as_bytes()).await
        });
        expect_both(far, "byte by byte").await;
        writer.await.expect("no panic").expect("all was read");
    }

    #[tokio::test]
    async fn a_cut_message_is_never_a_whole_one() {
        for wire in [CHUNKED, WHOLE] {
            for cut in 1..wire.len() {
                let mut reader = Reader::new(&wire.as_bytes()[..cut]);
                let result = response(&mut reader).await;
                assert_eq!(result, Err(Error::ClosedInside), "cut at {cut} of {wire:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_larger_than_the_buffer_comes_in_pieces() {
        let body = "x".repeat(3 * BUFFER_BYTES + 17);
        let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (first, second) = body.split_at(BUFFER_BYTES - 90);
        let chunked = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        );
        for wire in [length, chunked] {
            let mut reader = Reader::new(wire.as_bytes());
            let (_, read) = response(&mut reader).await.expect("a whole message");
            assert!(read == body);
            assert!(reader.is_empty());
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let wire = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\n";
        let mut reader = Reader::new(&wire[..]);
        let head = reader.request_head().await.expect("a head");
        let result = reader.body(head.framing, 9, |_| {}).await;
        assert_eq!(result, Err(Error::BodyTooLarge));
        let result = reader.body(Framing::Length(10), 9, |_| {}).await;
        assert_eq!(result, Err(Error::BodyTooLarge));
    }

    #[tokio::test]
    async fn requests_are_read() {
        let wire = b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n\
            POST /v1 HTTP/1.1\r\ncontent-length: 2\r\nX-Shunt-Load-Hold-Ms: 40\r\n\r\n{}";
        let mut reader = Reader::new(&wire[..]);
        let head = reader.request_head().await.expect("a head");
        assert_eq!((head.method.as_str(), head.path.as_str()), ("GET", "/stats"));
        assert_eq!(head.framing, Framing::Length(0));
        let head = reader.request_head().await.expect("a head");
        assert_eq!((head.framing, head.hold_ms), (Framing::Length(2), 40));
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for wire in [
            "HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 abc\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            let result = response(&mut Reader::new(wire.as_bytes())).await;
            assert!(matches!(result, Err(Error::Malformed(_))), "{wire:?}: {result:?}");
        }
        let endless = vec![b'a'; 2 * BUFFER_BYTES];
        let result = Reader::new(&endless[..]).response_head().await;
        assert!(matches!(result, Err(Error::Malformed(_))));
    }
}
