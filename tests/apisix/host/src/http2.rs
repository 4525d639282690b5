//! HTTP/2 from clients, without TLS and by prior knowledge: nginx speaks it on every listener with `http2 on`.
//!
//! A request is served as one over HTTP/1.1 is, by a thread of its own: what stands for its client's socket is one end of a pair,
//! and at the other end the response is taken apart into frames. So a client that resets its stream has closed a socket, and a
//! client that does not read holds the writer back.

use std::future::{pending, poll_fn};
use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{header, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::call::status_of;
use crate::http1::{self, wait_readable, Body, Conn, Framing, Head, Headers, Http2};
use crate::phases::Worker;

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// nginx's limits: streams at a time (`http2_max_concurrent_streams`), bytes of a body that nobody reads yet
/// (`http2_body_preread_size`), bytes for all bodies of a connection, and bytes of a frame.
const STREAMS: u32 = 128;
const PREREAD: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const FRAME: u32 = (1 << 24) - 1;

/// Whether the client begins with HTTP/2. Waits for as many bytes as it takes to tell.
pub fn is_spoken(conn: &mut Conn, limit: Duration) -> bool {
    loop {
        let count = conn.unread.len().min(PREFACE.len());
        if conn.unread[..count] != PREFACE[..count] {
            return false;
        }
        if count == PREFACE.len() {
            return true;
        }
        if wait_readable(&conn.stream, None, limit).is_err() || !matches!(conn.fill(), Ok(1..)) {
            return false;
        }
    }
}

/// Serves one connection to its end.
pub fn serve(worker: &Arc<Worker>, conn: Conn) {
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .and_then(|runtime| runtime.block_on(connection(worker, conn)));
    if let Err(error) = served {
        eprintln!("[info] a connection of HTTP/2 ended: {error}");
    }
}

async fn connection(worker: &Arc<Worker>, conn: Conn) -> io::Result<()> {
    let (remote, local) = conn.ends()?;
    conn.stream.set_nonblocking(true)?;
    let (read, write) = tokio::net::TcpStream::from_std(conn.stream)?.into_split();
    let socket = tokio::io::join(Cursor::new(conn.unread).chain(read), write);
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(PREREAD)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        // There is room for more of a stream only when nothing of it waits any more: `all_sent` relies on it.
        .max_send_buffer_size(1)
        .handshake::<_, Bytes>(socket)
        .await
        .map_err(io::Error::other)?;
    while let Some(stream) = connection.accept().await {
        let (request, respond) = stream.map_err(io::Error::other)?;
        tokio::spawn(stream_of(worker.clone(), remote, local, request, respond));
    }
    Ok(())
}

/// One request: its thread, and what goes to and fro.
async fn stream_of(
    worker: Arc<Worker>,
    remote: SocketAddr,
    local: SocketAddr,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let is_head = request.method() == http::Method::HEAD;
    let (head, framing) = head_of(&request);
    let (ours, theirs) = match pair() {
        Ok(pair) => pair,
        Err(error) => {
            eprintln!("FATAL: no pair of sockets for a stream of HTTP/2: {error}");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    std::thread::spawn(move || {
        let mut conn = Conn::new(theirs);
        conn.http2 = Some(Http2 { remote, local, framing });
        worker.serve_request(conn, head);
    });
    let mut ours = ours;
    let (from, to) = ours.split();
    tokio::select! {
        // The client has reset its stream, or the connection: its end of the pair closes.
        () = upload(request.into_body(), to, framing) => {}
        () = download(from, respond, is_head) => {}
    }
}

/// Two ends of one connection: for the tasks here, and for the thread that serves the request.
fn pair() -> io::Result<(UnixStream, TcpStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // To read, to write and to poll, all that is done with it there, the kind of socket makes no difference.
    Ok((UnixStream::from_std(ours)?, TcpStream::from(OwnedFd::from(theirs))))
}

/// The request line and the header lines as nginx makes them, and how the body is passed on.
fn head_of(request: &Request<RecvStream>) -> (Head, Framing) {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let mut headers = Headers::new();
    if let Some(authority) = uri.authority() {
        headers.push(("host".to_owned(), authority.as_str().into()));
    }
    // A client may send each cookie by itself.
    let mut cookies = Vec::new();
    for (name, value) in request.headers() {
        if name == header::COOKIE {
            cookies.push(value.as_bytes());
        } else {
            headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
        }
    }
    if !cookies.is_empty() {
        headers.push(("cookie".to_owned(), cookies.join(&b"; "[..])));
    }
    let framing = if request.body().is_end_stream() {
        Framing::Empty
    } else {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        length.map_or(Framing::Chunked, Framing::Length)
    };
    (Head { first: format!("{} {target} HTTP/2.0", request.method()), headers }, framing)
}

/// Passes the body on; trailers are dropped. Returns only if the client leaves before the body is whole.
async fn upload(mut body: RecvStream, mut to: impl AsyncWriteExt + Unpin, framing: Framing) {
    let chunked = framing == Framing::Chunked;
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return };
        let sent = async {
            if chunked {
                to.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            to.write_all(&piece).await?;
            if chunked {
                to.write_all(b"\r\n").await?;
            }
            io::Result::Ok(())
        };
        if sent.await.is_err() {
            // The request is over, and the rest of its body is not asked for.
            return pending().await;
        }
        let _ = body.flow_control().release_capacity(piece.len());
    }
    if chunked {
        let _ = to.write_all(b"0\r\n\r\n").await;
    }
    pending().await
}

/// Takes the response apart. Returns when the stream is over, however it ended.
async fn download(mut from: impl AsyncReadExt + Unpin, mut respond: SendResponse<Bytes>, is_head: bool) {
    let mut unread = Vec::new();
    let head = loop {
        if let Some(end) = http1::place(&unread, b"\r\n\r\n") {
            let head = unread.drain(..end + 4).collect::<Vec<u8>>();
            break http1::parse_head(&head[..end]).and_then(|head| response_of(head, is_head));
        }
        let read = from.read_buf(&mut unread);
        tokio::select! {
            read = read => if !matches!(read, Ok(1..)) {
                return respond.send_reset(Reason::INTERNAL_ERROR);
            },
            _ = poll_fn(|context| respond.poll_reset(context)) => return,
        }
    };
    let (head, mut body) = match head {
        Ok(head) => head,
        Err(error) => {
            eprintln!("FATAL: a response that is none of HTTP/1.1: {error}");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    let Ok(mut send) = respond.send_response(head, body.is_done()) else { return };
    // The head leaves before anything else happens to the stream.
    tokio::task::yield_now().await;
    while !body.is_done() {
        let piece = body.decode(&mut unread);
        match piece {
            Ok(piece) if body.is_done() => {
                let _ = send.send_data(piece.into(), true);
                return;
            }
            Ok(piece) if !piece.is_empty() => {
                if send.send_data(piece.into(), false).is_err() || !all_sent(&mut send).await {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("FATAL: a response's body that is none of HTTP/1.1: {error}");
                return send.send_reset(Reason::INTERNAL_ERROR);
            }
        }
        tokio::select! {
            read = from.read_buf(&mut unread) => if !matches!(read, Ok(1..)) {
                // It broke off: so does the stream.
                return send.send_reset(Reason::INTERNAL_ERROR);
            },
            _ = poll_fn(|context| send.poll_reset(context)) => return,
        }
    }
}

/// Waits until the last piece has left: a reset would overtake it. False if the stream is over.
async fn all_sent(send: &mut SendStream<Bytes>) -> bool {
    send.reserve_capacity(1);
    while send.capacity() == 0 {
        match poll_fn(|context| send.poll_capacity(context)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
    true
}

/// The head as it goes into a frame, without what is about one connection; and the body that follows.
fn response_of(head: Head, is_head: bool) -> io::Result<(Response<()>, Body)> {
    let status = status_of(&head.first)?;
    let method = if is_head { "HEAD" } else { "" };
    let framing = Framing::of_response(method, status, &head.headers)?;
    let mut response = Response::builder().status(status);
    for (name, value) in head.headers {
        let of_connection = ["connection", "keep-alive", "transfer-encoding"];
        if !of_connection.iter().any(|one| name.eq_ignore_ascii_case(one)) {
            response = response.header(name, value);
        }
    }
    let response = response.body(()).map_err(|error| http1::bad(&error.to_string()))?;
    Ok((response, Body::new(framing)))
}
