//! The life of a request in APISIX: route, plugins in their phases, upstream, filters, log.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde_json::json;

use crate::call::{write_head, Previous};
use crate::checks::{Health, Report};
use crate::config::{self, Apisix, Kind, Route, Static};
use crate::counts::Ledger;
use crate::faults::Faults;
use crate::http1::{self, wait_readable, Conn, Head, Headers};
use crate::http2;
use crate::lua::Scripts;
use crate::proxy::{self, Failure, Picker, Upstreamed};
use crate::request::{CallAnswer, Request};
use crate::vm::{Stage, Vm, Wish};

/// How long a client may keep a connection that it does not use.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The `Server` header of every response.
const SERVER: &[u8] = b"APISIX/3.18.0";

/// What all workers share.
pub struct Server {
    pub config: Arc<Static>,
    pub routes_file: PathBuf,
    pub apisix: RwLock<Arc<Apisix>>,
    pub filter_loaded: bool,
    pub health: Health,
    pub access_log: Option<Mutex<File>>,
    pub active: Active,
    pub counts: Ledger,
    pub faults: Arc<Faults>,
    /// `proxy-buffering` leaves the request its wasm context; nginx does not.
    pub keep_contexts: bool,
    pub requests: AtomicU64,
}

/// The number of clients' requests under way, and the file that tells it.
pub struct Active(Mutex<(u64, Option<File>)>);

impl Active {
    pub fn new(path: Option<&std::path::Path>) -> io::Result<Active> {
        let active = Active(Mutex::new((0, path.map(File::create).transpose()?)));
        active.change(0);
        Ok(active)
    }

    fn change(&self, by: i64) {
        let (count, file) = &mut *lock(&self.0);
        *count = count.wrapping_add_signed(by);
        if let Some(file) = file {
            let _ = file.write_all_at(&count.to_le_bytes(), 0);
        }
    }
}

/// One worker: what runs here runs one at a time, and waits for no socket meanwhile.
pub struct Worker {
    pub server: Arc<Server>,
    pub vm: Option<Mutex<Vm>>,
    pub scripts: Mutex<Scripts>,
    pub previous_call: Mutex<Previous>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A response that APISIX makes itself.
struct Exit {
    status: u16,
    /// The pieces of its body, each with whether it is the last.
    pieces: Vec<(Vec<u8>, bool)>,
}

impl Exit {
    /// A text; the end of the body comes behind it.
    fn text(status: u16, body: Vec<u8>) -> Exit {
        Exit { status, pieces: vec![(body, false), (Vec::new(), true)] }
    }

    fn json(request: &mut Request, status: u16, body: &serde_json::Value) -> Exit {
        http1::set(&mut request.response.headers, "Content-Type", b"application/json");
        Exit::text(status, format!("{body}\n").into_bytes())
    }

    /// nginx's own page, in one piece.
    fn page(request: &mut Request, status: u16) -> Exit {
        http1::set(&mut request.response.headers, "Content-Type", b"text/html; charset=utf-8");
        let reason = reason(status);
        let page = format!(
            "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n\
             <hr><center>openresty</center>\r\n</body>\r\n</html>\r\n"
        );
        Exit { status, pieces: vec![(page.into_bytes(), true)] }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Request Entity Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "",
    }
}

/// Why nothing more can be done for a request: its client is gone, or the upstream broke inside the body.
struct Cut;

impl Worker {
    /// Serves one connection to its end.
    pub fn serve(self: &Arc<Self>, stream: TcpStream) {
        let mut conn = Conn::new(stream);
        if self.server.config.http2 && http2::is_spoken(&mut conn, KEEPALIVE) {
            return http2::serve(self, conn);
        }
        loop {
            let wait = |conn: &Conn| wait_readable(&conn.stream, None, KEEPALIVE);
            let head = match conn.read_head(wait) {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        bad_request(conn);
                    }
                    return;
                }
            };
            match self.serve_request(conn, head) {
                Some(kept) => conn = kept,
                None => return,
            }
        }
    }

    /// Serves one request; the connection, if it can be used again.
    pub fn serve_request(&self, conn: Conn, head: Head) -> Option<Conn> {
        let close = http1::wants_close(&head.headers);
        let id = self.server.requests.fetch_add(1, Ordering::Relaxed);
        let undefined = self.server.faults.has("variables=undefined");
        let mut request = match Request::new(self.server.config.clone(), conn, head, id, undefined) {
            Ok(request) => Box::new(request),
            Err((conn, _)) => {
                bad_request(conn);
                return None;
            }
        };
        let close = close || request.http_1_0;
        let kept;
        (request, kept) = self.handle(request, close);
        // A body that nobody read is in the way of the next request.
        if !kept || close || request.read_body().is_err() {
            return None;
        }
        Some(request.client)
    }

    /// One request; and whether its connection can be used again.
    fn handle(&self, mut request: Box<Request>, close: bool) -> (Box<Request>, bool) {
        let apisix = self.server.current();
        let is_clients =
            self.server.config.listeners.first().is_some_and(|first| first.port() == request.local.port());
        self.server.active.change(i64::from(is_clients));
        let mut kept = false;
        match find_route(&apisix, &request) {
            None => {
                let exit = Exit::json(&mut request, 404, &json!({"error_msg": "404 Route Not Found"}));
                let (after, sent) = self.answer(request, exit, close);
                request = after;
                kept = sent.is_ok();
            }
            Some(route) if route.page.is_some() => {
                eprintln!("[error] the plugin config or the service of route {} is not there", route.id);
                let exit = Exit::page(&mut request, route.page.unwrap_or(503));
                let (after, sent) = self.answer(request, exit, close);
                request = after;
                kept = sent.is_ok();
            }
            Some(route) => {
                request.route = Some(route.clone());
                let (after, result) = self.run(request, &route, &apisix, close);
                request = after;
                kept |= result.is_ok();
                request = self.lua_phase(request, &route, "log", "log");
            }
        }
        proxy::end_try(&mut request);
        // Passive checks are about the status with which the request ended here, not about the upstream's.
        if let (Some(route), Some(node)) = (&request.route, &request.node) {
            self.server.health.report(&route.upstream, node, Report::Status(request.response.status));
        }
        self.log(&request);
        let contexts = std::mem::take(&mut request.wasm.contexts);
        // `proxy_on_done` and `proxy_on_delete`, once the request has gone.
        request.counts.callbacks += 2 * contexts.len() as u64;
        let route = request.route.as_ref().map_or("", |route| &route.id);
        self.server.counts.add(route, &request.counts);
        if let (Some(vm), false) = (&self.vm, contexts.is_empty()) {
            lock(vm).end(contexts);
        }
        request.upstream = None;
        self.server.active.change(-i64::from(is_clients));
        (request, kept)
    }

    fn run(
        &self,
        request: Box<Request>,
        route: &Route,
        apisix: &Apisix,
        close: bool,
    ) -> (Box<Request>, Result<(), Cut>) {
        let mut request = request;
        for phase in ["rewrite", "access"] {
            let exit;
            (request, exit) = self.request_phase(request, route, apisix, phase);
            match exit {
                Ok(None) => {}
                Ok(Some(exit)) => return self.answer(request, exit, close),
                Err(Cut) => return (request, Err(Cut)),
            }
        }
        self.proxy(request, route, close)
    }

    /// Runs the plugins of one phase; `Some` if one of them answered.
    fn request_phase(
        &self,
        mut request: Box<Request>,
        route: &Route,
        apisix: &Apisix,
        phase: &'static str,
    ) -> (Box<Request>, Result<Option<Exit>, Cut>) {
        let wasm_phase = if self.server.config.wasm.in_access { "access" } else { "rewrite" };
        for plugin in &route.plugins {
            match &plugin.kind {
                Kind::Serverless { phase: own, functions } if own == phase => {
                    for source in functions {
                        (request, _) = lock(&self.scripts).run(source, "access", request, None);
                    }
                }
                Kind::KeyAuth { header } if phase == "rewrite" => {
                    let key = http1::find(&request.headers, header).map(|key| http1::text(key).into_owned());
                    let message = match key.map(|key| apisix.consumers.get(&key)) {
                        Some(Some(consumer)) => {
                            http1::set(&mut request.headers, "X-Consumer-Username", consumer.as_bytes());
                            continue;
                        }
                        Some(None) => "Invalid API key in request",
                        None => "Missing API key in request",
                    };
                    let exit = Exit::json(&mut request, 401, &json!({ "message": message }));
                    return (request, Ok(Some(exit)));
                }
                Kind::Wasm { .. }
                    if phase == wasm_phase && !self.server.faults.has("request-callbacks=none") =>
                {
                    let (after, exit) = self.wasm_request(request);
                    request = after;
                    match exit {
                        Ok(None) => {}
                        other => return (request, other),
                    }
                }
                _ => {}
            }
        }
        (request, Ok(None))
    }

    /// The filter's request phase: headers, the body if it asked for it, and its calls.
    fn wasm_request(&self, request: Box<Request>) -> (Box<Request>, Result<Option<Exit>, Cut>) {
        let Some(vm) = &self.vm else { return (request, Ok(None)) };
        let (request, wish) = lock(vm).callback(request, Stage::RequestHeaders, None, true);
        let (mut request, exit) = self.fulfil(vm, request, wish);
        if exit.is_some() || request.variable("wasm_process_req_body").unwrap_or_default().is_empty() {
            return (request, Ok(exit));
        }
        // APISIX reads no body over HTTP/2 whose length was not told: its Lua module could not wait for it.
        if request.http_2 && request.variable("content_length").is_none() {
            eprintln!(
                "[error] {}: failed to get request body: HTTP2/HTTP3 request without a Content-Length header",
                self.server.config.wasm.name
            );
            let exit = Exit::page(&mut request, 503);
            return (request, Ok(Some(exit)));
        }
        if request.read_body().is_err() {
            return (request, Err(Cut));
        }
        let body = request.body.clone().unwrap_or_default();
        let (request, wish) = lock(vm).callback(request, Stage::RequestBody, Some(&body), true);
        let (request, exit) = self.fulfil(vm, request, wish);
        (request, Ok(exit))
    }

    /// Does what a request callback wished, call after call.
    fn fulfil(&self, vm: &Mutex<Vm>, request: Box<Request>, wish: Wish) -> (Box<Request>, Option<Exit>) {
        let (mut request, mut wish) = (request, wish);
        loop {
            match wish {
                Wish::Continue => return (request, None),
                Wish::Unavailable => {
                    let exit = Exit::page(&mut request, 503);
                    return (request, Some(exit));
                }
                Wish::Answer { status, body } if body.is_empty() && status >= 300 => {
                    let exit = Exit::page(&mut request, status);
                    return (request, Some(exit));
                }
                Wish::Answer { status, body } => return (request, Some(Exit::text(status, body))),
                Wish::Call => {
                    if let Some(call) = request.wasm.callout.take() {
                        let ready = lock(&self.previous_call).complete(call);
                        request.count_request(ready.authority());
                        let answer = ready.perform(self.server.faults.has("calls=fail"));
                        request.wasm.answer = Some(answer.unwrap_or_else(|problem| {
                            request.log("error", &problem);
                            CallAnswer::default()
                        }));
                    }
                    (request, wish) = lock(vm).callback(request, Stage::CallAnswered, None, true);
                }
            }
        }
    }

    fn lua_phase(
        &self,
        request: Box<Request>,
        route: &Route,
        own: &str,
        nginx: &'static str,
    ) -> Box<Request> {
        let mut request = request;
        for plugin in &route.plugins {
            if let Kind::Serverless { phase, functions } = &plugin.kind {
                for source in functions.iter().filter(|_| phase == own) {
                    (request, _) = lock(&self.scripts).run(source, nginx, request, None);
                }
            }
        }
        request
    }

    // The upstream.

    fn proxy(&self, request: Box<Request>, route: &Route, close: bool) -> (Box<Request>, Result<(), Cut>) {
        let mut request = request;
        let health = &self.server.health;
        let mut picker = Picker::new(&route.upstream, health);
        let Some(mut node) = picker.pick() else {
            let exit = Exit::page(&mut request, 503);
            return self.answer(request, exit, close);
        };
        if let Some(host) = proxy::passed_host(route, &node) {
            let _ = request.set_variable("upstream_host", host.as_bytes());
        }
        request = self.lua_phase(request, route, "before_proxy", "access");
        if route.leaves_location() && !self.server.keep_contexts {
            // nginx forgets what its modules kept with the request: the filter's next callback is in a new context.
            request.wasm.left = request.wasm.contexts.len();
        }
        if request.read_body().is_err() {
            return (request, Err(Cut));
        }
        let mut bytes = proxy::build(&request);
        let mut more = route.upstream.retries;
        loop {
            request.node = Some(node.clone());
            let (result, sent) = proxy::attempt(&mut request, &route.upstream, &node, &bytes);
            let failure = match result {
                Ok(response) => {
                    let failure = Failure::Status(response.status);
                    if more == 0 || !proxy::moves_on(&request, &failure, sent) {
                        return self.relay(request, response, route, close);
                    }
                    failure
                }
                Err(failure) => {
                    if let Some(last) = request.tries.last_mut() {
                        last.status = Some(failure.status());
                    }
                    if let Some(line) = failure.line(sent) {
                        request.log("error", line);
                    }
                    failure
                }
            };
            if matches!(failure, Failure::ClientGone) {
                request.response.status = 499;
                return (request, Err(Cut));
            }
            let next =
                if more > 0 && proxy::moves_on(&request, &failure, sent) { picker.pick() } else { None };
            let Some(next) = next else {
                let status = if matches!(failure, Failure::Status(_)) { 502 } else { failure.status() };
                let exit = Exit::page(&mut request, status);
                return self.answer(request, exit, close);
            };
            // APISIX hears of a failure when it is asked for the next node, so the last one is not reported here.
            health.report(&route.upstream, &node, failure.report());
            more -= 1;
            node = next;
            let has_function = route.plugins.iter().any(
                |plugin| matches!(&plugin.kind, Kind::Serverless { phase, .. } if phase == "before_proxy"),
            );
            let before = request.variable("upstream_host");
            if let Some(host) = proxy::passed_host(route, &node) {
                let _ = request.set_variable("upstream_host", host.as_bytes());
            }
            request = self.lua_phase(request, route, "before_proxy", "balancer");
            if has_function || before != request.variable("upstream_host") {
                bytes = proxy::build(&request);
            }
        }
    }

    /// Passes a response on, piece by piece.
    fn relay(
        &self,
        request: Box<Request>,
        response: Upstreamed,
        route: &Route,
        close: bool,
    ) -> (Box<Request>, Result<(), Cut>) {
        let Upstreamed { mut conn, mut body, status, headers } = response;
        let mut request = request;
        request.response.take_up(status, proxy::passed_back(&headers));
        request.bare = status == proxy::BARE;
        let (after, downstream) = self.send_head(request, close);
        request = after;
        let Ok(mut downstream) = downstream else { return (request, Err(Cut)) };
        loop {
            let client = &request.client.stream;
            let wait = |conn: &Conn| wait_readable(&conn.stream, Some(client), route.upstream.read);
            let (piece, end) = match body.next(&mut conn, wait) {
                Ok(Some(piece)) => (piece, false),
                Ok(None) => (Vec::new(), true),
                // It broke, or was silent for too long, or the client left: no end of the stream for anybody.
                Err(error) => {
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        request.log("error", "upstream prematurely closed connection while reading upstream");
                    }
                    request.upstream = Some(conn);
                    return (request, Err(Cut));
                }
            };
            if end {
                proxy::end_try(&mut request);
            }
            let result;
            (request, result) = self.send_piece(request, &mut downstream, piece, end);
            match result {
                Ok(()) if end => return (request, downstream.finished()),
                Ok(()) => {}
                Err(Cut) => {
                    request.upstream = Some(conn);
                    return (request, Err(Cut));
                }
            }
        }
    }

    // The response.

    fn answer(&self, request: Box<Request>, exit: Exit, close: bool) -> (Box<Request>, Result<(), Cut>) {
        let mut request = request;
        request.response.status = exit.status;
        // How long the body is, is known of a page only.
        if let [(page, true)] = exit.pieces.as_slice() {
            http1::set(&mut request.response.headers, "Content-Length", page.len().to_string().as_bytes());
        }
        let (after, downstream) = self.send_head(request, close);
        request = after;
        let Ok(mut downstream) = downstream else { return (request, Err(Cut)) };
        for (piece, end) in exit.pieces {
            if piece.is_empty() && !end {
                continue;
            }
            let result;
            (request, result) = self.send_piece(request, &mut downstream, piece, end);
            if result.is_err() {
                return (request, Err(Cut));
            }
        }
        (request, downstream.finished())
    }

    /// Header filters, then the head.
    fn send_head(&self, request: Box<Request>, close: bool) -> (Box<Request>, Result<Downstream, Cut>) {
        let mut request = request;
        http1::set(&mut request.response.headers, "Server", SERVER);
        if let Some(statuses) = request.variable("upstream_status") {
            // The last try of the upstream failed by a server error.
            if http1::text(&statuses).rsplit(", ").next().is_some_and(|last| last.starts_with('5')) {
                http1::set(&mut request.response.headers, "X-APISIX-Upstream-Status", &statuses);
            }
        }
        if let Some(route) = request.route.clone() {
            for plugin in &route.plugins {
                match &plugin.kind {
                    Kind::Serverless { phase, functions } if phase == "header_filter" => {
                        for source in functions {
                            (request, _) = lock(&self.scripts).run(source, "header_filter", request, None);
                        }
                    }
                    Kind::Wasm { .. } => {
                        if let Some(vm) = &self.vm {
                            (request, _) = lock(vm).callback(request, Stage::ResponseHeaders, None, true);
                        }
                    }
                    _ => {}
                }
            }
        }
        request.head_sent = true;
        let status = request.response.status;
        if request.bare {
            // No head is written, whatever the filters have set. nginx closes the connection only if they have set a status.
            let close = close || status >= 200;
            return (request, Ok(Downstream { framing: Form::Bare, written: 0, close, ended: false }));
        }
        let mut headers: Headers = request.response.written();
        let framing = http1::Framing::of_response(&request.method, status, &headers);
        let mut downstream = Downstream { framing: Form::Raw(None), written: 0, close, ended: false };
        match framing {
            Ok(http1::Framing::Empty) => downstream.framing = Form::None,
            Ok(http1::Framing::Length(length)) => downstream.framing = Form::Raw(Some(length)),
            _ if request.http_1_0 => downstream.close = true,
            _ => {
                headers.push(("Transfer-Encoding".to_owned(), b"chunked".to_vec()));
                downstream.framing = Form::Chunked;
            }
        }
        if http1::find(&headers, "date").is_none() {
            headers.push(("Date".to_owned(), b"Thu, 01 Jan 1970 00:00:00 GMT".to_vec()));
        }
        let connection: &[u8] = if downstream.close { b"close" } else { b"keep-alive" };
        headers.push(("Connection".to_owned(), connection.to_vec()));
        let head = write_head(&format!("HTTP/1.1 {status} {}", reason(status)), &headers);
        let written = request.client.write(&head).map(|()| downstream).map_err(|_| Cut);
        (request, written)
    }

    /// Body filters, then the piece.
    fn send_piece(
        &self,
        request: Box<Request>,
        downstream: &mut Downstream,
        piece: Vec<u8>,
        end: bool,
    ) -> (Box<Request>, Result<(), Cut>) {
        let (mut request, mut piece, mut end) = (request, piece, end);
        if downstream.ended {
            return (request, Ok(()));
        }
        request.counts.pieces += 1;
        if let Some(route) = request.route.clone() {
            for plugin in &route.plugins {
                match &plugin.kind {
                    Kind::Serverless { phase, functions } if phase == "body_filter" => {
                        for source in functions {
                            let changed;
                            (request, changed) =
                                lock(&self.scripts).run(source, "body_filter", request, Some((piece, end)));
                            match changed {
                                Some(changed) => (piece, end) = changed,
                                None => return (request, Err(Cut)),
                            }
                        }
                    }
                    Kind::Wasm { .. } => {
                        let asked =
                            !request.variable("wasm_process_resp_body").unwrap_or_default().is_empty();
                        if let Some(vm) = self.vm.as_ref().filter(|_| asked) {
                            (request, _) = lock(vm).callback(request, Stage::ResponseBody, Some(&piece), end);
                        }
                    }
                    _ => {}
                }
            }
        }
        downstream.ended = end;
        let result = downstream.write(&mut request.client, &piece, end).map_err(|_| Cut);
        (request, result)
    }

    fn log(&self, request: &Request) {
        let nginx = &self.server.config.nginx;
        let (Some(format), Some(file)) = (&nginx.log_format, &self.server.access_log) else { return };
        let condition = nginx
            .log_if
            .as_ref()
            .map(|value| value.expand(|name| request.variable(name).unwrap_or_default()));
        if condition.is_some_and(|value| value.is_empty() || value == b"0") {
            return;
        }
        let mut line = format.expand(|name| request.variable(name).unwrap_or_default());
        line.push(b'\n');
        let _ = lock(file).write_all(&line);
    }
}

fn bad_request(mut conn: Conn) {
    let _ = conn.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn find_route(apisix: &Apisix, request: &Request) -> Option<Arc<Route>> {
    let matches = |route: &&Arc<Route>| {
        route.matches(&request.method, request.path(), |name| request.variable(name)).unwrap_or_else(
            |problem| {
                eprintln!("FATAL: {problem}");
                std::process::exit(1)
            },
        )
    };
    apisix.routes.iter().find(matches).cloned()
}

impl Server {
    /// The routes, read again if the file was edited. A file that cannot be used changes nothing.
    pub fn current(&self) -> Arc<Apisix> {
        let now = self.apisix.read().unwrap_or_else(PoisonError::into_inner).clone();
        if config::modified(&self.routes_file).map_or(true, |modified| modified == now.modified) {
            return now;
        }
        match Apisix::read(&self.routes_file, now.version + 1, &self.config, self.filter_loaded) {
            Ok(next) => {
                let mut place = self.apisix.write().unwrap_or_else(PoisonError::into_inner);
                if place.version == now.version {
                    *place = Arc::new(next);
                }
                place.clone()
            }
            Err(problem) => {
                eprintln!("[error] apisix.yaml is not used: {problem}");
                now
            }
        }
    }
}

enum Form {
    None,
    Chunked,
    /// Bytes as they are; how many were told.
    Raw(Option<u64>),
    /// Bytes as they are, without a head before them.
    Bare,
}

/// How a response's body is written to the client.
struct Downstream {
    framing: Form,
    written: u64,
    close: bool,
    /// The last piece was written, as a line of Lua may have said before the upstream's end.
    ended: bool,
}

impl Downstream {
    fn write(&mut self, client: &mut Conn, piece: &[u8], end: bool) -> io::Result<()> {
        match self.framing {
            Form::None => Ok(()),
            Form::Raw(_) | Form::Bare => {
                self.written += piece.len() as u64;
                client.write(piece)
            }
            Form::Chunked => {
                let mut bytes = Vec::new();
                if !piece.is_empty() {
                    bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                    bytes.extend(piece);
                    bytes.extend(b"\r\n");
                }
                if end {
                    bytes.extend(b"0\r\n\r\n");
                }
                client.write(&bytes)
            }
        }
    }

    /// Whether the connection can be used again: not if another length was told than was written.
    fn finished(&self) -> Result<(), Cut> {
        match self.framing {
            _ if self.close => Err(Cut),
            Form::Raw(told) if told != Some(self.written) => Err(Cut),
            _ => Ok(()),
        }
    }
}
