//! HTTP/1 on plain sockets: heads, body framings, and waiting for one side while the other may leave.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Header lines in their order. Names keep the case that they came with; values are bytes.
pub type Headers = Vec<(String, Vec<u8>)>;

/// More than nginx takes (`large_client_header_buffers`); a test never means to send more.
const MAX_HEAD: usize = 1 << 20;

/// The first value of a header.
pub fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

pub fn remove(headers: &mut Headers, name: &str) {
    headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
}

/// Sets a header to one value, in the place where it was first.
pub fn set(headers: &mut Headers, name: &str, value: &[u8]) {
    let place = headers.iter().position(|(key, _)| key.eq_ignore_ascii_case(name));
    remove(headers, name);
    let place = place.unwrap_or(headers.len()).min(headers.len());
    headers.insert(place, (name.to_owned(), value.to_vec()));
}

/// Whether a header that is a list (`Connection`) has this word.
fn has_word(headers: &Headers, name: &str, word: &str) -> bool {
    headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .any(|(_, value)| text(value).split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
}

pub fn wants_close(headers: &Headers) -> bool {
    has_word(headers, "connection", "close")
}

/// Bytes as text for comparing and logging.
pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A first line and the header lines under it.
pub struct Head {
    pub first: String,
    pub headers: Headers,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    pub fn of_request(headers: &Headers) -> io::Result<Framing> {
        if has_word(headers, "transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        Ok(length(headers)?.map_or(Framing::Empty, Framing::Length))
    }

    pub fn of_response(method: &str, status: u16, headers: &Headers) -> io::Result<Framing> {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Framing::Empty);
        }
        if has_word(headers, "transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        Ok(length(headers)?.map_or(Framing::UntilClose, Framing::Length))
    }
}

fn length(headers: &Headers) -> io::Result<Option<u64>> {
    let Some(value) = find(headers, "content-length") else { return Ok(None) };
    text(value).trim().parse().map(Some).map_err(|_| bad("content-length is not a number"))
}

pub fn bad(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.to_owned())
}

/// How a response begins.
pub enum Start {
    /// With a status line, which had this status.
    Head(u16, Headers),
    /// With other bytes. They are still to be read: nginx takes them for the body of an answer of HTTP/0.9.
    Bare,
}

/// What nginx reads from the first bytes of a response. An error: they are no status line. `None`: more bytes are needed.
fn status_line(bytes: &[u8]) -> Result<Option<u16>, ()> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_whole = line.len() < bytes.len();
    let line = line.strip_suffix(b"\r").filter(|_| is_whole).unwrap_or(line);
    let mut rest = line.iter().copied().peekable();
    let mut next = || rest.next();
    // Each of these is a byte that must be there, or not be there yet.
    let mut expected = |is_right: &dyn Fn(u8) -> bool| match next() {
        Some(byte) if is_right(byte) => Ok(Some(byte)),
        None if !is_whole => Ok(None),
        Some(_) | None => Err(()),
    };
    for letter in *b"HTTP/" {
        let Some(_) = expected(&|byte| byte == letter)? else { return Ok(None) };
    }
    let digit = |byte: u8| byte.is_ascii_digit();
    let Some(_) = expected(&|byte| digit(byte) && byte != b'0')? else { return Ok(None) };
    let Some(_) = expected(&|byte| byte == b'.')? else { return Ok(None) };
    let Some(_) = expected(&digit)? else { return Ok(None) };
    let Some(_) = expected(&|byte| byte == b' ')? else { return Ok(None) };
    let mut status = 0;
    for _ in 0..3 {
        let Some(digit) = expected(&digit)? else { return Ok(None) };
        status = status * 10 + u16::from(digit - b'0');
    }
    match line.get(12) {
        Some(b' ' | b'.') | None => Ok(is_whole.then_some(status)),
        Some(b'\r') if !is_whole && line.len() == 13 => Ok(None),
        Some(_) => Err(()),
    }
}

/// A socket and what was read from it too early.
pub struct Conn {
    pub stream: TcpStream,
    pub unread: Vec<u8>,
    /// What `stream` cannot tell if it stands for one stream of a connection of HTTP/2.
    pub http2: Option<Http2>,
}

/// Of a request over HTTP/2: the ends of its connection, and how its body is passed on.
pub struct Http2 {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub framing: Framing,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        // Events of a stream must not wait for each other.
        let _ = stream.set_nodelay(true);
        Conn { stream, unread: Vec::new(), http2: None }
    }

    /// The client's end of the connection and the own one.
    pub fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        match &self.http2 {
            Some(http2) => Ok((http2.remote, http2.local)),
            None => Ok((self.stream.peer_addr()?, self.stream.local_addr()?)),
        }
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// One read; 0 is the end.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.unread.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// A head; `None` if the other side closed before its first byte. Leaves `UnexpectedEof` for a close inside.
    pub fn read_head(&mut self, mut wait: impl FnMut(&Conn) -> io::Result<()>) -> io::Result<Option<Head>> {
        loop {
            // An empty line before a request is nothing.
            while self.unread.starts_with(b"\r\n") {
                self.unread.drain(..2);
            }
            let end = place(&self.unread, b"\r\n\r\n");
            if let Some(end) = end.filter(|end| *end <= MAX_HEAD) {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return parse_head(&head[..end]).map(Some);
            }
            if self.unread.len() > MAX_HEAD {
                return Err(bad("head too long"));
            }
            wait(self)?;
            if self.fill()? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The start of a response; `None` if the other side closed before its first byte. Leaves `UnexpectedEof` for a close in
    /// its head.
    pub fn read_response_start(
        &mut self,
        mut wait: impl FnMut(&Conn) -> io::Result<()>,
    ) -> io::Result<Option<Start>> {
        loop {
            match status_line(&self.unread) {
                Err(()) => return Ok(Some(Start::Bare)),
                Ok(Some(status)) => {
                    let head = self.read_head(wait)?;
                    return Ok(head.map(|head| Start::Head(status, head.headers)));
                }
                Ok(None) if self.unread.len() > MAX_HEAD => return Err(bad("head too long")),
                Ok(None) => {}
            }
            wait(self)?;
            if self.fill()? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

pub fn place(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = text(lines.next().unwrap_or_default()).into_owned();
    let headers = lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').filter(|place| *place > 0);
            let colon = colon.ok_or_else(|| bad("a header line without a name"))?;
            Ok((text(&line[..colon]).into_owned(), line[colon + 1..].trim_ascii().to_vec()))
        })
        .collect::<io::Result<Headers>>()?;
    Ok(Head { first, headers })
}

/// Reads a body piece by piece, as it arrives.
pub struct Body {
    framing: Framing,
    /// Of the body, or of the current chunk.
    left: u64,
    state: Chunk,
}

#[derive(PartialEq)]
enum Chunk {
    Size,
    Data,
    DataEnd,
    Trailer,
    Done,
}

impl Body {
    pub fn new(framing: Framing) -> Body {
        let (left, state) = match framing {
            Framing::Empty | Framing::Length(0) => (0, Chunk::Done),
            Framing::Length(length) => (length, Chunk::Data),
            Framing::Chunked => (0, Chunk::Size),
            Framing::UntilClose => (u64::MAX, Chunk::Data),
        };
        Body { framing, left, state }
    }

    pub fn is_done(&self) -> bool {
        self.state == Chunk::Done
    }

    /// What the next read brought; `None` at the body's end. A close before the end is `UnexpectedEof`.
    pub fn next(
        &mut self,
        conn: &mut Conn,
        mut wait: impl FnMut(&Conn) -> io::Result<()>,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            let piece = self.decode(&mut conn.unread)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if self.is_done() {
                return Ok(None);
            }
            wait(conn)?;
            if conn.fill()? == 0 {
                if self.framing == Framing::UntilClose {
                    self.state = Chunk::Done;
                    return Ok(None);
                }
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes what `unread` has of the body.
    pub fn decode(&mut self, unread: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        loop {
            match self.state {
                Chunk::Done => return Ok(piece),
                Chunk::Data => {
                    let count = unread.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    piece.extend(unread.drain(..count));
                    if self.framing != Framing::UntilClose {
                        self.left -= count as u64;
                    }
                    if self.left > 0 {
                        return Ok(piece);
                    }
                    self.state = if self.framing == Framing::Chunked { Chunk::DataEnd } else { Chunk::Done };
                }
                Chunk::Size | Chunk::DataEnd | Chunk::Trailer => {
                    let Some(end) = place(unread, b"\r\n") else { return Ok(piece) };
                    let line: Vec<u8> = unread.drain(..end + 2).collect();
                    self.line(&line[..end])?;
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self.state {
            Chunk::Size => {
                let line = text(line);
                let size = line.split(';').next().unwrap_or_default().trim();
                self.left = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk without a size"))?;
                self.state = if self.left == 0 { Chunk::Trailer } else { Chunk::Data };
            }
            Chunk::DataEnd if line.is_empty() => self.state = Chunk::Size,
            Chunk::DataEnd => return Err(bad("a chunk longer than its size")),
            Chunk::Trailer if line.is_empty() => self.state = Chunk::Done,
            Chunk::Trailer | Chunk::Data | Chunk::Done => {}
        }
        Ok(())
    }
}

/// Waits until `conn` can be read: `TimedOut` after `limit`, `ConnectionAborted` when `client` has left meanwhile.
pub fn wait_readable(conn: &TcpStream, client: Option<&TcpStream>, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let mut client = client;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let watch =
            |stream: &TcpStream| libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut watched = vec![watch(conn)];
        watched.extend(client.map(watch));
        let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: the pointer and the length are those of a live vector of pollfd.
        let count = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, milliseconds) };
        if count < 0 && io::Error::last_os_error().kind() != ErrorKind::Interrupted {
            return Err(io::Error::last_os_error());
        }
        if watched[0].revents != 0 {
            return Ok(());
        }
        if let Some(stream) = client.filter(|_| watched[1].revents != 0) {
            if has_left(stream) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            // It sent its next request already; that it leaves is seen when it is written to.
            client = None;
        }
    }
}

fn has_left(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0) | Err(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_as_nginx_reads_it() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", 200),
            ("HTTP/1.0 404 Not Found\n", 404),
            ("HTTP/1.1 200\r\n", 200),
            ("HTTP/3.0 200 OK\r\n", 200),
            ("HTTP/1.1 000 OK\r\n", 0),
        ] {
            assert_eq!(status_line(line.as_bytes()), Ok(Some(status)), "{line:?}");
            for end in 0..line.len() {
                assert_eq!(status_line(&line.as_bytes()[..end]), Ok(None), "{:?}", &line[..end]);
            }
        }
        for other in [
            "<html>",
            "SSH-2.0-x\r\n",
            "ICY 200 OK\r\n",
            "\r\nHTTP/1.1 200 OK\r\n",
            "HTTP/2 200\r\n",
            "HTTP/0.9 200 OK\r\n",
            "HTTP/1.1 abc\r\n",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1\r\n",
            "HTTX",
            "\0\0\x12\x04",
        ] {
            assert_eq!(status_line(other.as_bytes()), Err(()), "{other:?}");
        }
    }
}
