//! nginx's side of proxying: which node is tried, what is sent to it, and when the next one is tried.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::call::{connect, write_head};
use crate::checks::{Health, Report};
use crate::config::{Node, PassHost, Route, Upstream};
use crate::http1::{self, Body, Conn, Framing, Headers, Start};
use crate::request::{Request, Try};

/// The nodes of one request, as APISIX's balancer hands them out.
pub struct Picker {
    nodes: Vec<Node>,
    next: usize,
    single: bool,
}

impl Picker {
    /// Nodes that are up, by priority; all of them if none is. A single node is used whatever the checks say.
    pub fn new(upstream: &Upstream, health: &Health) -> Picker {
        let single = upstream.nodes.len() == 1;
        let mut nodes = health.up(upstream);
        if nodes.is_empty() {
            nodes = upstream.nodes.clone();
        }
        nodes.sort_by_key(|node| std::cmp::Reverse(node.priority));
        Picker { nodes, next: 0, single }
    }

    pub fn pick(&mut self) -> Option<Node> {
        let node = self.nodes.get(if self.single { 0 } else { self.next }).cloned();
        self.next += 1;
        node
    }
}

/// The status that nginx's modules find where an upstream sent no status line.
pub const BARE: u16 = 9;

/// The response of the try that counts, its body still to come.
pub struct Upstreamed {
    pub conn: Conn,
    pub body: Body,
    pub status: u16,
    pub headers: Headers,
}

/// How a try ended without a response that is passed on.
pub enum Failure {
    Error,
    Timeout,
    InvalidHeader,
    /// A status that the next node is tried for.
    Status(u16),
    /// The client left.
    ClientGone,
}

impl Failure {
    /// nginx's word for it in `proxy_next_upstream`.
    fn word(&self) -> String {
        match self {
            Failure::Error | Failure::ClientGone => "error".to_owned(),
            Failure::Timeout => "timeout".to_owned(),
            Failure::InvalidHeader => "invalid_header".to_owned(),
            Failure::Status(status) => format!("http_{status}"),
        }
    }

    /// The status that nginx gives the try, and the client if it was the last.
    pub fn status(&self) -> u16 {
        match self {
            Failure::Timeout => 504,
            Failure::Status(status) => *status,
            Failure::ClientGone => 499,
            Failure::Error | Failure::InvalidHeader => 502,
        }
    }

    /// What nginx writes into its error log. `sent`: some of the request was sent.
    pub fn line(&self, sent: bool) -> Option<&'static str> {
        Some(match (self, sent) {
            (Failure::Error, false) => {
                "connect() failed (111: Connection refused) while connecting to upstream"
            }
            (Failure::Error, true) => {
                "upstream prematurely closed connection while reading response header from upstream"
            }
            (Failure::Timeout, false) => {
                "upstream timed out (110: Connection timed out) while connecting to upstream"
            }
            (Failure::Timeout, true) => {
                "upstream timed out (110: Connection timed out) while reading response header from upstream"
            }
            (Failure::InvalidHeader, _) => {
                "upstream sent invalid header while reading response header from upstream"
            }
            (Failure::Status(_) | Failure::ClientGone, _) => return None,
        })
    }

    pub fn report(&self) -> Report {
        match self {
            Failure::Timeout => Report::Timeout,
            Failure::Status(status) => Report::Status(*status),
            _ => Report::TcpFailure,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::Timeout,
            ErrorKind::ConnectionAborted => Failure::ClientGone,
            ErrorKind::InvalidData => Failure::InvalidHeader,
            _ => Failure::Error,
        }
    }
}

/// Whether a failure is followed by another try, as `proxy_next_upstream` says. `sent`: some of the request was sent.
pub fn moves_on(request: &Request, failure: &Failure, sent: bool) -> bool {
    let words = &request.config.nginx.next_upstream;
    let allowed = |word: &str| words.iter().any(|one| one == word);
    let idempotent = !["POST", "LOCK", "PATCH"].contains(&request.method.as_str());
    !matches!(failure, Failure::ClientGone)
        && allowed(&failure.word())
        && (idempotent || !sent || allowed("non_idempotent"))
}

/// `$upstream_host` for a node.
pub fn host_of(node: &Node) -> String {
    if node.port == 80 {
        node.host.clone()
    } else {
        format!("{}:{}", node.host, node.port)
    }
}

/// What `pass_host` says about a node; `None`: what is there stays.
pub fn passed_host(route: &Route, node: &Node) -> Option<String> {
    match &route.upstream.pass_host {
        PassHost::Pass => None,
        PassHost::Node => Some(host_of(node)),
        PassHost::Rewrite(host) => Some(host.clone()),
    }
}

/// Headers that nginx does not pass on, or writes itself.
const NOT_PASSED: [&str; 13] = [
    "host",
    "connection",
    "keep-alive",
    "upgrade",
    "expect",
    "te",
    "transfer-encoding",
    "content-length",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
];

/// The request as it is sent: APISIX's template adds five headers about the client.
pub fn build(request: &Request) -> Vec<u8> {
    let variable = |name: &str| request.variable(name).unwrap_or_default();
    let mut headers = Headers::new();
    let mut add = |name: &str, value: Vec<u8>| {
        if !value.is_empty() {
            headers.push((name.to_owned(), value));
        }
    };
    let mut forwarded = variable("http_x_forwarded_for");
    if !forwarded.is_empty() {
        forwarded.extend(b", ");
    }
    forwarded.extend(variable("remote_addr"));
    add("Host", variable("upstream_host"));
    add("Upgrade", variable("upstream_upgrade"));
    add("X-Real-IP", variable("remote_addr"));
    add("X-Forwarded-For", forwarded);
    add("X-Forwarded-Proto", variable("var_x_forwarded_proto"));
    add("X-Forwarded-Host", variable("var_x_forwarded_host"));
    add("X-Forwarded-Port", variable("var_x_forwarded_port"));
    let body = request.body.as_deref().unwrap_or_default();
    let told = ["content-length", "transfer-encoding"]
        .iter()
        .any(|name| http1::find(&request.headers, name).is_some());
    if told || !body.is_empty() {
        headers.push(("Content-Length".to_owned(), body.len().to_string().into_bytes()));
    }
    let passed = |name: &str| !NOT_PASSED.iter().any(|one| one.eq_ignore_ascii_case(name));
    headers.extend(request.headers.iter().filter(|(name, _)| passed(name)).cloned());
    let mut bytes =
        write_head(&format!("{} {} HTTP/1.1", request.method, request.upstream_target()), &headers);
    bytes.extend(body);
    bytes
}

/// One try. Returns whether anything was sent, too.
pub fn attempt(
    request: &mut Request,
    upstream: &Upstream,
    node: &Node,
    bytes: &[u8],
) -> (Result<Upstreamed, Failure>, bool) {
    let address = format!("{}:{}", node.host, node.port);
    end_try(request);
    request.count_request(&address);
    request.tries.push(Try {
        address: address.clone(),
        started: Instant::now(),
        status: None,
        header_time: None,
        response_time: None,
        headers: Headers::new(),
    });
    let stream = match connect(&address, upstream.connect) {
        Ok(stream) => stream,
        Err(error) => return (Err(error.into()), false),
    };
    (exchange(request, upstream, Conn::new(stream), bytes), true)
}

fn exchange(
    request: &mut Request,
    upstream: &Upstream,
    mut conn: Conn,
    bytes: &[u8],
) -> Result<Upstreamed, Failure> {
    conn.stream.set_write_timeout(Some(upstream.send))?;
    conn.write(bytes)?;
    let client = &request.client.stream;
    let wait = |conn: &Conn| http1::wait_readable(&conn.stream, Some(client), upstream.read);
    let (status, headers, framing) = loop {
        match conn.read_response_start(wait)?.ok_or(Failure::Error)? {
            Start::Bare => break (BARE, Headers::new(), Framing::UntilClose),
            Start::Head(100..=199, _) => {}
            Start::Head(status, headers) => {
                let framing = Framing::of_response(&request.method, status, &headers)?;
                break (status, headers, framing);
            }
        }
    };
    if let Some(last) = request.tries.last_mut() {
        // In its lists nginx calls a response without a status line a success.
        last.status = Some(if status == BARE { 200 } else { status });
        last.header_time = Some(last.started.elapsed());
        last.headers = headers.clone();
    }
    if status == BARE {
        request.log(
            "error",
            "upstream sent no valid HTTP/1.0 header while reading response header from upstream",
        );
    }
    Ok(Upstreamed { conn, body: Body::new(framing), status, headers })
}

/// The last try is over.
pub fn end_try(request: &mut Request) {
    if let Some(last) = request.tries.last_mut() {
        last.response_time.get_or_insert(last.started.elapsed());
    }
}

/// What of an upstream's headers reaches the client.
pub fn passed_back(headers: &Headers) -> Headers {
    const KEPT_BACK: [&str; 6] =
        ["connection", "keep-alive", "transfer-encoding", "server", "x-pad", "upgrade"];
    headers
        .iter()
        .filter(|(name, _)| {
            !KEPT_BACK.iter().any(|one| one.eq_ignore_ascii_case(name))
                && !name.to_ascii_lowercase().starts_with("x-accel-")
        })
        .cloned()
        .collect()
}
