//! One client request as nginx has it: head, body, variables, tries of the upstream, and the response so far.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::{Node, Route, Static};
use crate::counts::Counts;
use crate::http1::{self, text, Body, Conn, Framing, Headers};

/// How long nginx waits for more of a request's body (`client_body_timeout`).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Request {
    pub config: Arc<Static>,
    pub route: Option<Arc<Route>>,
    pub client: Conn,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub method: String,
    /// The request's target as it came.
    pub target: String,
    /// The first line as it came: nginx ends each line of its error log with it.
    line: String,
    pub http_1_0: bool,
    pub http_2: bool,
    pub headers: Headers,
    unread: Body,
    /// Complete once it was read; `None` before.
    pub body: Option<Vec<u8>>,
    /// The variables that can be set.
    variables: HashMap<String, Vec<u8>>,
    /// What a `map` was evaluated with: nginx keeps these for the whole request.
    indexed: RefCell<HashMap<String, Vec<u8>>>,
    pub tries: Vec<Try>,
    /// The node of the last try.
    pub node: Option<Node>,
    pub response: Response,
    /// The response goes to the client, or has gone.
    pub head_sent: bool,
    /// The upstream sent no status line. nginx takes that for HTTP/0.9, and the client gets no head either.
    pub bare: bool,
    /// The upstream's connection, once nothing more is read from it. The other side hears of its end after the filter does.
    pub upstream: Option<Conn>,
    pub wasm: WasmState,
    pub counts: Counts,
    id: u64,
}

/// What the wasm host keeps with a request.
#[derive(Default)]
pub struct WasmState {
    /// The contexts that live, in the order of their creation: id of the plugin's context, and their own.
    pub contexts: Vec<(u32, u32)>,
    /// How many of them belong to a location that the request has left.
    pub left: usize,
    /// A dispatched call that is not performed yet.
    pub callout: Option<Callout>,
    /// Of the last call.
    pub token: u32,
    pub answer: Option<CallAnswer>,
}

pub struct Callout {
    pub authority: String,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub timeout: Duration,
}

/// The answer to a call; no headers if it failed.
#[derive(Default)]
pub struct CallAnswer {
    pub headers: Headers,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    /// The character set that the upstream's content type names. nginx keeps it beside the content type.
    charset: Vec<u8>,
}

impl Response {
    /// Takes what an upstream has sent.
    pub fn take_up(&mut self, status: u16, headers: Headers) {
        self.status = status;
        self.headers = headers;
        let kind = http1::find(&self.headers, "content-type").unwrap_or_default();
        let mut parameters = kind.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii_start);
        let is_charset =
            |one: &&[u8]| one.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"charset="));
        let charset = parameters.find(is_charset).map(|one| &one[8..]).unwrap_or_default();
        let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
        self.charset = charset.strip_suffix(b"\"").unwrap_or(charset).to_vec();
    }

    /// The headers as they are written. Where somebody has put another content type in the place of the upstream's, the character set
    /// of that one is written behind it, unless the new one has a parameter itself. Without a content type nothing is written.
    pub fn written(&self) -> Headers {
        let mut headers = self.headers.clone();
        let kind = http1::find(&headers, "content-type").map(<[u8]>::to_vec);
        if let Some(kind) = kind.filter(|kind| !kind.contains(&b';') && !self.charset.is_empty()) {
            http1::set(&mut headers, "Content-Type", &[&kind, &b"; charset="[..], &self.charset].concat());
        }
        headers
    }
}

/// One try of the upstream.
pub struct Try {
    pub address: String,
    pub started: Instant,
    pub status: Option<u16>,
    pub header_time: Option<Duration>,
    pub response_time: Option<Duration>,
    pub headers: Headers,
}

/// Why a variable could not be set.
#[derive(Debug, PartialEq)]
pub enum NotSet {
    /// "not found for writing"
    Undefined,
    /// "not changeable"
    Fixed,
}

/// What APISIX's own template sets in the location.
const TEMPLATE: [(&str, &str); 12] = [
    ("upstream_mirror_host", ""),
    ("upstream_mirror_uri", ""),
    ("upstream_upgrade", ""),
    ("upstream_connection", ""),
    ("upstream_scheme", "http"),
    ("upstream_uri", ""),
    ("ctx_ref", ""),
    ("wasm_process_req_body", ""),
    ("wasm_process_resp_body", ""),
    ("var_x_forwarded_proto", "http"),
    ("var_x_forwarded_host", ""),
    ("var_x_forwarded_port", ""),
];

/// 32 hexadecimal digits, as nginx draws them.
fn request_id(id: u64) -> String {
    static DRAWN: OnceLock<RandomState> = OnceLock::new();
    let drawn = DRAWN.get_or_init(RandomState::new);
    format!("{:016x}{:016x}", drawn.hash_one((id, 1)), drawn.hash_one((id, 2)))
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

impl Request {
    /// Takes the request line and the headers; an error is what nginx answers 400 to.
    pub fn new(
        config: Arc<Static>,
        client: Conn,
        head: http1::Head,
        id: u64,
        undefined: bool,
    ) -> Result<Request, (Conn, io::Error)> {
        let parts: Vec<&str> = head.first.split(' ').collect();
        let http_2 = client.http2.is_some();
        let framing = match &client.http2 {
            Some(http2) => Ok(http2.framing),
            None => Framing::of_request(&head.headers),
        };
        let ([method, target, version @ ("HTTP/1.0" | "HTTP/1.1" | "HTTP/2.0")], Ok(framing)) =
            (parts.as_slice(), framing)
        else {
            return Err((client, http1::bad("bad request")));
        };
        if http_2 != (*version == "HTTP/2.0") {
            return Err((client, http1::bad("bad request")));
        }
        let http_1_0 = *version == "HTTP/1.0";
        if !target.starts_with('/') || (!http_1_0 && http1::find(&head.headers, "host").is_none()) {
            return Err((client, http1::bad("bad request")));
        }
        let (remote, local) = match client.ends() {
            Ok(ends) => ends,
            Err(error) => return Err((client, error)),
        };
        let mut request = Request {
            route: None,
            remote,
            local,
            method: (*method).to_owned(),
            target: (*target).to_owned(),
            line: head.first.clone(),
            http_1_0,
            http_2,
            headers: head.headers,
            unread: Body::new(framing),
            body: (framing == Framing::Empty).then(Vec::new),
            variables: HashMap::new(),
            indexed: RefCell::default(),
            tries: Vec::new(),
            node: None,
            response: Response { status: 200, ..Response::default() },
            head_sent: false,
            bare: false,
            upstream: None,
            wasm: WasmState::default(),
            counts: Counts::default(),
            id,
            client,
            config,
        };
        for (name, value) in TEMPLATE {
            request.variables.insert(name.to_owned(), value.into());
        }
        for (name, source) in [
            ("upstream_host", "http_host"),
            ("var_x_forwarded_host", "host"),
            ("var_x_forwarded_port", "server_port"),
        ] {
            let value = request.variable(source).unwrap_or_default();
            request.variables.insert(name.to_owned(), value);
        }
        let config = request.config.clone();
        for (name, value) in config.nginx.sets.iter().filter(|_| !undefined) {
            let value = value.expand(|name| request.variable(name).unwrap_or_default());
            request.variables.insert(name.clone(), value);
        }
        Ok(request)
    }

    /// Counts a request that this one causes, by where it goes.
    pub fn count_request(&mut self, address: &str) {
        let is_own = |own: &SocketAddr| Some(own.port()) == port_of(address);
        if self.config.listeners.iter().any(is_own) {
            self.counts.loopback += 1;
        } else {
            self.counts.upstream += 1;
        }
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn arguments(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, arguments)| arguments)
    }

    /// Writes a line into nginx's error log. Whoever writes it, nginx adds what it knows of the request: its first line as it
    /// came, and what is sent to the upstream.
    pub fn log(&self, level: &str, message: &str) {
        let header = |name| http1::find(&self.headers, name).map(text).unwrap_or_default();
        let mut line = format!("[{level}] {message}, client: {}, server: _", self.remote.ip());
        line += &format!(", request: \"{}\"", self.line);
        if let Some(last) = self.tries.last() {
            line += &format!(", upstream: \"http://{}{}\"", last.address, self.upstream_target());
        }
        for (what, value) in [("host", header("host")), ("referrer", header("referer"))] {
            if !value.is_empty() {
                line += &format!(", {what}: \"{value}\"");
            }
        }
        eprintln!("{line}");
    }

    /// The path and the query that an upstream gets.
    pub fn upstream_target(&self) -> String {
        match self.variable("upstream_uri").unwrap_or_default() {
            uri if uri.is_empty() => self.target.clone(),
            uri => text(&uri).into_owned(),
        }
    }

    /// Reads the whole body, if it was not read yet.
    pub fn read_body(&mut self) -> io::Result<()> {
        if self.body.is_some() {
            return Ok(());
        }
        let expected = http1::find(&self.headers, "expect")
            .is_some_and(|value| text(value).eq_ignore_ascii_case("100-continue"));
        // nginx sends no interim response over HTTP/2.
        if expected && !self.http_1_0 && !self.http_2 && !self.client.has_unread() {
            self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut all = Vec::new();
        let wait = |conn: &Conn| http1::wait_readable(&conn.stream, None, BODY_TIMEOUT);
        while let Some(piece) = self.unread.next(&mut self.client, wait)? {
            all.extend(piece);
        }
        self.body = Some(all);
        Ok(())
    }

    /// A new body; `Content-Length` follows it.
    pub fn set_body(&mut self, body: Vec<u8>) {
        http1::remove(&mut self.headers, "transfer-encoding");
        http1::set(&mut self.headers, "Content-Length", body.len().to_string().as_bytes());
        self.body = Some(body);
    }

    /// A variable; `None` if nginx calls it "not found".
    pub fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let name = name.to_ascii_lowercase();
        if let Some(value) = self.variables.get(&name) {
            return Some(value.clone());
        }
        if let Some(map) = self.config.nginx.maps.get(&name) {
            let source = map.source.expand(|name| {
                if let Some(value) = self.indexed.borrow().get(name) {
                    return value.clone();
                }
                // It may be a map's as well.
                let value = self.variable(name).unwrap_or_default();
                self.indexed.borrow_mut().insert(name.to_owned(), value.clone());
                value
            });
            return Some(map.look_up(&source, |name| self.variable(name).unwrap_or_default()));
        }
        let known = |text: String| Some(text.into_bytes());
        match name.as_str() {
            "server_addr" => known(self.local.ip().to_string()),
            "server_port" => known(self.local.port().to_string()),
            "remote_addr" => known(self.remote.ip().to_string()),
            "remote_port" => known(self.remote.port().to_string()),
            "scheme" => known("http".to_owned()),
            "request_method" => known(self.method.clone()),
            "request_uri" => known(self.target.clone()),
            "uri" => known(self.path().to_owned()),
            "is_args" => known(if self.target.contains('?') { "?" } else { "" }.to_owned()),
            "args" | "query_string" => self.target.split_once('?').map(|(_, all)| all.into()),
            "host" => known(self.host()),
            "nginx_version" => known("1.29.2".to_owned()),
            "server_protocol" => known(self.protocol().to_owned()),
            "request" => known(format!("{} {} {}", self.method, self.target, self.protocol())),
            "request_id" => known(request_id(self.id)),
            "status" => known(format!("{:03}", self.response.status)),
            "content_length" | "content_type" => self.header_joined(&self.headers, &name),
            "upstream_addr" | "upstream_status" | "upstream_header_time" | "upstream_response_time" => {
                self.of_tries(&name)
            }
            _ => {
                if let Some(name) = name.strip_prefix("upstream_http_") {
                    return self.tries.last().and_then(|last| self.header_joined(&last.headers, name));
                }
                if let Some(name) = name.strip_prefix("sent_http_") {
                    return self.header_joined(&self.response.headers, name);
                }
                if let Some(name) = name.strip_prefix("http_") {
                    return self.header_joined(&self.headers, name);
                }
                if let Some(name) = name.strip_prefix("arg_") {
                    let argument =
                        |one: &str| Some(one.strip_prefix(name)?.strip_prefix('=')?.as_bytes().to_vec());
                    return self.arguments().split('&').find_map(argument);
                }
                None
            }
        }
    }

    pub fn set_variable(&mut self, name: &str, value: &[u8]) -> Result<(), NotSet> {
        let name = name.to_ascii_lowercase();
        if let Some(place) = self.variables.get_mut(&name) {
            *place = value.to_vec();
            return Ok(());
        }
        // What is found but was not `set` is built in.
        if self.variable(&name).is_some() {
            return Err(NotSet::Fixed);
        }
        Err(NotSet::Undefined)
    }

    fn protocol(&self) -> &'static str {
        match (self.http_2, self.http_1_0) {
            (true, _) => "HTTP/2.0",
            (_, true) => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    fn host(&self) -> String {
        let host = http1::find(&self.headers, "host").map(text).unwrap_or("_".into()).to_lowercase();
        host.rsplit_once(':').map_or(host.clone(), |(name, _)| name.to_owned())
    }

    /// All values of a header whose name is in the form of a variable.
    fn header_joined(&self, headers: &Headers, name: &str) -> Option<Vec<u8>> {
        let values: Vec<&[u8]> = headers
            .iter()
            .filter(|(key, _)| key.to_ascii_lowercase().replace('-', "_") == name)
            .map(|(_, value)| value.as_slice())
            .collect();
        (!values.is_empty()).then(|| values.join(&b", "[..]))
    }

    fn of_tries(&self, name: &str) -> Option<Vec<u8>> {
        let seconds = |time: Option<Duration>| match time {
            Some(time) => format!("{:.3}", time.as_secs_f64()),
            None => "-".to_owned(),
        };
        let one = |one: &Try| match name {
            "upstream_addr" => one.address.clone(),
            "upstream_status" => one.status.map_or("-".to_owned(), |status| status.to_string()),
            "upstream_header_time" => seconds(one.header_time),
            _ => seconds(one.response_time),
        };
        if self.tries.is_empty() {
            return None;
        }
        Some(self.tries.iter().map(one).collect::<Vec<_>>().join(", ").into_bytes())
    }
}
