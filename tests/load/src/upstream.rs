//! The `upstream` subcommand: a fake vendor that is fast enough not to be what a benchmark measures. Its
//! answers are made once, before the first request, and are the same whatever path is asked.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{signal, SignalKind};
use tokio::time::{sleep, Instant};

use crate::cli::UpstreamOptions;
use crate::http::{self, Reader, RequestHead};
use crate::payload;
use crate::search::{Needles, Search};
use crate::vendor::Vendor;
use crate::Error;

const MAX_BODY_BYTES: u64 = 64 << 20;

/// A test that opens thousands of connections at once must not wait for a SYN to be sent again.
const BACKLOG: u32 = 4096;

pub async fn serve(options: UpstreamOptions) -> Result<(), Error> {
    let listener = listen(options.listen)?;
    let mut ready = json!({"port": port(&listener)?});
    let status_listener = options.status_listen.map(listen).transpose()?;
    if let Some(listener) = &status_listener {
        ready["status_port"] = json!(port(listener)?);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("cannot await SIGTERM"))?;

    let exit_with_parent = options.exit_with_parent;
    let upstream = Arc::new(Upstream::new(options));
    if let Some(listener) = status_listener {
        tokio::spawn(accept(listener, Arc::clone(&upstream)));
    }
    tokio::spawn(accept(listener, upstream));
    println!("{ready}");
    if exit_with_parent {
        exit_with_stdin();
    }
    terminate.recv().await;
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(Error::io(format!("cannot listen on {address}")))
}

fn port(listener: &TcpListener) -> Result<u16, Error> {
    let address = listener.local_addr().map_err(Error::io("cannot tell the port"))?;
    Ok(address.port())
}

/// Ends this process when stdin does, that is when whoever holds its other end is gone, however that
/// came about. On a thread of its own, because a read of stdin cannot be given up.
fn exit_with_stdin() {
    std::thread::spawn(|| {
        let mut stdin = io::stdin().lock();
        let mut ignored = [0; 256];
        loop {
            match stdin.read(&mut ignored) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => std::process::exit(0),
                Ok(_) => {}
            }
        }
    });
}

async fn accept(listener: TcpListener, upstream: Arc<Upstream>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let upstream = Arc::clone(&upstream);
                tokio::spawn(async move {
                    // The client went away, or does not speak HTTP: its own report tells.
                    let _ = upstream.connection(socket).await;
                });
            }
            // Out of file descriptors, most likely: wait for some to come free.
            Err(error) => {
                eprintln!("shunt-load: cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Upstream {
    stream_flag: Needles,
    usage_flag: Needles,
    answers: Answers,
    answer_delay: Duration,
    event_gap: Duration,
    requests: AtomicU64,
    busy_ns: AtomicU64,
}

/// Complete responses, as they go over the wire.
enum Answers {
    Good { whole: Vec<u8>, stream: Stream, with_usage: Stream },
    Failure(Vec<u8>),
}

struct Stream {
    head: Vec<u8>,
    /// Each is one chunk and one write; the last has the end of the body with it.
    events: Vec<Vec<u8>>,
}

/// What a request asks for.
#[derive(Clone, Copy)]
enum Asked {
    Whole,
    Stream,
    StreamWithUsage,
}

enum End {
    Keep,
    Close,
}

impl Upstream {
    fn new(options: UpstreamOptions) -> Self {
        let answers = match options.fail_status {
            Some(status) => {
                let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
                Answers::Failure(response(status, &payload::error("This upstream always fails.", kind)))
            }
            None => Answers::Good {
                whole: response(200, &options.vendor.whole(options.answer_bytes)),
                stream: Stream::new(options.vendor, options.events, false),
                with_usage: Stream::new(options.vendor, options.events, true),
            },
        };
        Self {
            stream_flag: Needles::new(&["\"stream\":true", "\"stream\": true"]),
            // As we and Shunt write it: every further spelling is a search through all of a large body.
            usage_flag: Needles::new(&["\"include_usage\":true"]),
            answers,
            answer_delay: options.answer_delay,
            event_gap: options.event_gap,
            requests: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
        }
    }

    async fn connection(&self, socket: TcpStream) -> Result<(), http::Error> {
        socket.set_nodelay(true).map_err(io_error)?;
        let (read, mut writer) = socket.into_split();
        let mut reader = Reader::new(read);
        loop {
            let head = reader.request_head().await?;
            let mut stream_flag = Search::new(&self.stream_flag);
            let mut usage_flag = Search::new(&self.usage_flag);
            let sink = |piece: &[u8]| {
                stream_flag.push(piece);
                usage_flag.push(piece);
            };
            match reader.body(head.framing, MAX_BODY_BYTES, sink).await {
                Ok(()) => {}
                Err(http::Error::BodyTooLarge) => {
                    let body = payload::error("The body is too large.", "invalid_request_error");
                    return writer.write_all(&response(413, &body)).await.map_err(io_error);
                }
                Err(error) => return Err(error),
            }
            let asked = match (stream_flag.found(), usage_flag.found()) {
                (false, _) => Asked::Whole,
                (true, false) => Asked::Stream,
                (true, true) => Asked::StreamWithUsage,
            };
            let end = self.respond(&mut writer, &head, asked).await;
            if matches!(end.map_err(io_error)?, End::Close) {
                return Ok(());
            }
        }
    }

    async fn respond<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        head: &RequestHead,
        asked: Asked,
    ) -> io::Result<End> {
        match (head.method.as_str(), head.path.as_str()) {
            ("GET", "/stats") => writer.write_all(&response(200, &self.stats())).await?,
            ("POST", _) => {
                let began = Instant::now();
                self.requests.fetch_add(1, Ordering::Relaxed);
                let hold = Duration::from_millis(head.hold_ms);
                let written = self.complete(writer, asked, hold).await;
                let busy = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.busy_ns.fetch_add(busy, Ordering::Relaxed);
                written?;
            }
            _ => {
                let body = payload::error("There is nothing here.", "invalid_request_error");
                writer.write_all(&response(404, &body)).await?;
            }
        }
        Ok(if head.keep_alive { End::Keep } else { End::Close })
    }

    /// Answers a chat completion request.
    async fn complete<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        asked: Asked,
        hold: Duration,
    ) -> io::Result<()> {
        // Even a sleep of nothing takes a turn of the timer.
        if !self.answer_delay.is_zero() {
            sleep(self.answer_delay).await;
        }
        let stream = match (&self.answers, asked) {
            (Answers::Failure(whole), _) | (Answers::Good { whole, .. }, Asked::Whole) => {
                return writer.write_all(whole).await;
            }
            (Answers::Good { stream, .. }, Asked::Stream) => stream,
            (Answers::Good { with_usage, .. }, Asked::StreamWithUsage) => with_usage,
        };
        writer.write_all(&stream.head).await?;
        for (index, event) in stream.events.iter().enumerate() {
            let pause = match index {
                0 => Duration::ZERO,
                1 => self.event_gap + hold,
                _ => self.event_gap,
            };
            if !pause.is_zero() {
                sleep(pause).await;
            }
            writer.write_all(event).await?;
        }
        Ok(())
    }

    fn stats(&self) -> String {
        json!({
            "requests": self.requests.load(Ordering::Relaxed),
            "busy_ns": self.busy_ns.load(Ordering::Relaxed),
        })
        .to_string()
    }
}

impl Stream {
    fn new(vendor: Vendor, events: usize, usage: bool) -> Self {
        let chunk = |event: String| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
        let mut events: Vec<Vec<u8>> = vendor.events(events, usage).into_iter().map(chunk).collect();
        if let Some(last) = events.last_mut() {
            last.extend_from_slice(b"0\r\n\r\n");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
            cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
        Self { head: head.into(), events }
    }
}

/// A response with a JSON body. The reason phrase means nothing and may be empty.
fn response(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn io_error(error: io::Error) -> http::Error {
    http::Error::Io(error.kind())
}
