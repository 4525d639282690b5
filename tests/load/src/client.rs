//! The load generator's end of one connection.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::TcpStream;
use tokio::time::{timeout, Instant};

use crate::cli::Target;
use crate::http::{self, Reader, ResponseHead};
use crate::search::{Needles, Search};
use crate::sse::{Defect, StreamCheck};
use crate::vendor::Vendor;

/// What is sent, again and again, and what a good answer to it is.
pub struct Request {
    /// Head and body.
    pub wire: Vec<u8>,
    pub stream: bool,
    /// Whose form the answer has.
    pub vendor: Vendor,
    pub expect_status: u16,
    pub timeout: Duration,
}

/// When the parts of an answer came, counted from the moment that the caller gave.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub first_byte: Duration,
    /// Of a stream only.
    pub first_content: Option<Duration>,
    pub end: Duration,
}

/// Why a request does not count as answered. Its text is the key that failures are counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    Connect(io::ErrorKind),
    Send(io::ErrorKind),
    Receive(http::Error),
    Timeout,
    Status(u16),
    NoChoices,
    Stream(Defect),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(kind) => write!(f, "connect: {kind}"),
            Self::Send(kind) => write!(f, "send: {kind}"),
            Self::Receive(error) => write!(f, "receive: {error}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NoChoices => f.write_str("answer without choices"),
            Self::Stream(Defect::NoContent) => f.write_str("stream without content"),
            Self::Stream(Defect::NoFinishReason) => f.write_str("stream without finish_reason"),
            Self::Stream(Defect::NoDone) => f.write_str("stream without [DONE]"),
            Self::Stream(Defect::DataBehindDone) => f.write_str("stream with data behind [DONE]"),
        }
    }
}

/// Sends requests to one target, one at a time, over one connection that is kept while it can be.
pub struct Client {
    target: Target,
    connection: Option<Connection>,
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    /// Sends `request` and reads its answer. Nothing is sent a second time: a proxy that closes a
    /// connection on a request has failed it.
    ///
    /// `on_content` is called when a stream's first content is there.
    pub async fn exchange(
        &mut self,
        request: &Request,
        began: Instant,
        on_content: impl FnMut(),
    ) -> Result<Timing, Failure> {
        let whole = async {
            // Taken out, so that whatever ends this early ends the connection too: no one knows what
            // would come over it next.
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open(&self.target).await?,
            };
            let answer = connection.exchange(request, began, on_content).await?;
            if answer.reusable {
                self.connection = Some(connection);
            }
            answer.verdict.map(|()| answer.timing)
        };
        timeout(request.timeout, whole).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// A complete answer, good or not.
struct Answer {
    timing: Timing,
    verdict: Result<(), Failure>,
    reusable: bool,
}

struct Connection {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, Failure> {
        let open = async {
            let socket = TcpStream::connect(target.address).await?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let socket = open.await.map_err(|error: io::Error| Failure::Connect(error.kind()))?;
        let (read, writer) = socket.into_split();
        Ok(Self { reader: Reader::new(read), writer })
    }

    async fn exchange(
        &mut self,
        request: &Request,
        began: Instant,
        on_content: impl FnMut(),
    ) -> Result<Answer, Failure> {
        // Both at once: a server may answer a large request before it has come, and stop reading it.
        let send = self.writer.write_all(&request.wire);
        let receive = receive(&mut self.reader, request, began, on_content);
        tokio::pin!(send, receive);
        let (sent, answer) = tokio::select! {
            biased;
            result = &mut send => (result, receive.await),
            answer = &mut receive => {
                return answer.map(|answer| Answer { reusable: false, ..answer });
            }
        };
        match (sent, answer) {
            (Ok(()), answer) => answer,
            // It refused the rest of the request and has said why.
            (Err(_), Ok(answer)) => Ok(Answer { reusable: false, ..answer }),
            (Err(error), Err(_)) => Err(Failure::Send(error.kind())),
        }
    }
}

async fn receive(
    reader: &mut Reader<OwnedReadHalf>,
    request: &Request,
    began: Instant,
    on_content: impl FnMut(),
) -> Result<Answer, Failure> {
    reader.wait().await.map_err(Failure::Receive)?;
    let first_byte = began.elapsed();
    let mut head = reader.response_head().await.map_err(Failure::Receive)?;
    while head.status < 200 {
        head = reader.response_head().await.map_err(Failure::Receive)?;
    }

    let mut first_content = None;
    let verdict = if head.status != request.expect_status {
        discard(reader, &head).await?;
        Err(Failure::Status(head.status))
    } else if !(200..300).contains(&head.status) {
        discard(reader, &head).await
    } else if request.stream {
        let on_content = {
            let mut on_content = on_content;
            let first_content = &mut first_content;
            move || {
                *first_content = Some(began.elapsed());
                on_content();
            }
        };
        stream(reader, &head, request.vendor, on_content).await?
    } else {
        whole(reader, &head, request.vendor).await?
    };

    Ok(Answer {
        timing: Timing { first_byte, first_content, end: began.elapsed() },
        verdict,
        // What lies behind the end of an answer belongs to no request of ours.
        reusable: head.keep_alive && reader.is_empty(),
    })
}

/// Reads a body for its end only.
async fn discard(reader: &mut Reader<OwnedReadHalf>, head: &ResponseHead) -> Result<(), Failure> {
    let read = reader.body(head.framing, u64::MAX, |_| {}).await;
    read.map_err(Failure::Receive)
}

async fn stream(
    reader: &mut Reader<OwnedReadHalf>,
    head: &ResponseHead,
    vendor: Vendor,
    mut on_content: impl FnMut(),
) -> Result<Result<(), Failure>, Failure> {
    let mut check = StreamCheck::of(vendor);
    let sink = |piece: &[u8]| {
        let had_content = check.has_content();
        check.push(piece);
        if check.has_content() && !had_content {
            on_content();
        }
    };
    let read = reader.body(head.framing, u64::MAX, sink).await;
    read.map_err(Failure::Receive)?;
    Ok(check.finish().map_err(Failure::Stream))
}

async fn whole(
    reader: &mut Reader<OwnedReadHalf>,
    head: &ResponseHead,
    vendor: Vendor,
) -> Result<Result<(), Failure>, Failure> {
    static CHOICES: OnceLock<Needles> = OnceLock::new();
    static MESSAGE: OnceLock<Needles> = OnceLock::new();
    let mut choices = Search::new(match vendor {
        Vendor::OpenAi | Vendor::DeepSeek => CHOICES.get_or_init(|| Needles::new(&["\"choices\""])),
        Vendor::Anthropic => MESSAGE.get_or_init(|| Needles::new(&["\"type\":\"message\""])),
    });
    let sink = |piece: &[u8]| choices.push(piece);
    let read = reader.body(head.framing, u64::MAX, sink).await;
    read.map_err(Failure::Receive)?;
    Ok(if choices.found() { Ok(()) } else { Err(Failure::NoChoices) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// Sends one request to a server that reads a little of it, writes `answer` and closes.
    async fn ask(answer: &str, request: &Request) -> Result<Timing, Failure> {
        let answer = answer.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut some = [0; 16];
            let _ = socket.read(&mut some).await;
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
            // Not reset before the answer is read.
            tokio::time::sleep(Duration::from_millis(200)).await;
        });
        let target = Target { name: address.to_string(), address };
        Client::new(target).exchange(request, Instant::now(), || {}).await
    }

    fn request(stream: bool, expect_status: u16) -> Request {
        Request {
            wire: b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            stream,
            vendor: Vendor::OpenAi,
            expect_status,
            timeout: Duration::from_millis(100),
        }
    }

    #[tokio::test]
    async fn answers_are_judged() {
        const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"choices\":[]}";
        const DOWN: &str = "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n";
        let good = ask(GOOD, &request(false, 200)).await.expect("a good answer");
        assert!(good.first_byte <= good.end && good.first_content.is_none());

        for (answer, expected) in [
            (DOWN, Failure::Status(503)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Failure::NoChoices),
            ("", Failure::Receive(http::Error::Closed)),
            (&GOOD[..GOOD.len() - 1], Failure::Receive(http::Error::ClosedInside)),
        ] {
            let result = ask(answer, &request(false, 200)).await.map(|_| ());
            assert_eq!(result, Err(expected), "{answer:?}");
        }
        assert!(ask(DOWN, &request(false, 503)).await.is_ok());
    }

    #[tokio::test]
    async fn streams_are_judged_and_their_first_content_is_timed() {
        let stream = |pieces: &[&str]| {
            let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
        };
        // Events are cut into chunks in no regular way.
        let pieces = [
            "data: {\"delta\":{\"content\":\"a\"}}\n\nda",
            "ta: {\"finish_reason\":\"stop\"}\n\n",
            "data: [DONE]\n\n",
        ];
        let good = stream(&pieces);
        let timing = ask(&good, &request(true, 200)).await.expect("a good stream");
        assert!(timing.first_content.is_some_and(|time| time <= timing.end));

        for (answer, expected) in [
            (&good[..good.len() - 5], Failure::Receive(http::Error::ClosedInside)),
            (&stream(&pieces[..2]), Failure::Stream(Defect::NoDone)),
        ] {
            let result = ask(answer, &request(true, 200)).await.map(|_| ());
            assert_eq!(result, Err(expected), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn an_early_answer_to_a_large_request_is_read() {
        const REFUSED: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
        let mut request = request(false, 413);
        // More than the socket buffers on both sides take.
        request.wire.resize(32 << 20, b' ');
        assert!(ask(REFUSED, &request).await.is_ok());
    }

    #[tokio::test]
    async fn no_answer_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let target = Target { name: address.to_string(), address };
        let mut client = Client::new(target);
        let result = client.exchange(&request(false, 200), Instant::now(), || {}).await;
        assert_eq!(result.map(|_| ()), Err(Failure::Timeout));
    }
}
