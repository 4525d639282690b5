//! APISIX's control API, as far as the checks go: `/v1/healthcheck`, and one entry of it by its kind and id.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value as Json};

use crate::config::{Apisix, Upstream};
use crate::http1::{wait_readable, Conn};
use crate::phases::Server;

/// Answers on `listener` for as long as the stand-in runs.
pub fn serve(listener: &TcpListener, server: &Arc<Server>) {
    for stream in listener.incoming().flatten() {
        let server = server.clone();
        std::thread::spawn(move || answer(stream, &server));
    }
}

fn answer(stream: TcpStream, server: &Server) {
    let mut conn = Conn::new(stream);
    let wait = |conn: &Conn| wait_readable(&conn.stream, None, Duration::from_secs(60));
    let Ok(Some(head)) = conn.read_head(wait) else { return };
    let mut words = head.first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match method {
        "GET" => get(path, server),
        _ => (404, json!({"error_msg": "404 Not Found"})),
    };
    let body = format!("{body}\n");
    let _ = conn.write(
        format!(
            "HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
}

fn get(path: &str, server: &Server) -> (u16, Json) {
    let apisix = server.current();
    let list = |upstream: &Upstream| json!({"name": upstream.key, "nodes": server.health.listed(upstream), "type": "tcp"});
    match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
        ["v1", "healthcheck"] => {
            let all: Vec<Json> = apisix.checked.iter().map(list).collect();
            // An empty list is an empty table of Lua, which is written as an object.
            (200, if all.is_empty() { json!({}) } else { Json::Array(all) })
        }
        ["v1", "healthcheck", kind @ ("routes" | "services" | "upstreams"), id] => {
            match one(&apisix, &format!("/{kind}/{id}")) {
                Some(upstream) => (200, list(upstream)),
                None => (404, json!({"error_msg": format!("{kind}[{id}] not found")})),
            }
        }
        ["v1", "healthcheck", kind, _] => (400, json!({"error_msg": format!("invalid src type {kind}")})),
        _ => (404, json!({"error_msg": "404 Not Found"})),
    }
}

fn one<'a>(apisix: &'a Apisix, key: &str) -> Option<&'a Upstream> {
    apisix.checked.iter().find(|upstream| upstream.key == key)
}
