//! A filter with Shunt's two roles that decides nothing. It makes the calls without which no filter could do what Shunt
//! does in these two places of Envoy, with a fixed answer in place of every decision: the request goes to `openai`, whose
//! answer is good. The benchmark compares it with plain Envoy, too; the rest of what Shunt costs is its own.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

/// The filter state by which Envoy chooses the route and the cluster.
const NEXT: &str = "shunt_next";

/// As long as a usual record.
const RECORD: [u8; 700] = [b'-'; 700];

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root { is_router: false }));
}}

struct Root {
    is_router: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.is_router = self.get_property(vec!["plugin_root_id"]).is_some_and(|role| role == b"router");
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(if self.is_router { Box::new(Router) } else { Box::new(Attempt) })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// At the listener: holds the request, names the provider, leaves a record.
struct Router;

impl Context for Router {}

impl HttpContext for Router {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.get_http_request_header(":path");
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        self.get_http_request_body(0, size);
        self.set_property(vec![NEXT], Some(b"openai/whole/1"));
        self.set_http_request_header("x-envoy-upstream-rq-per-try-timeout-ms", Some("60000"));
        Action::Continue
    }

    fn on_log(&mut self) {
        self.set_property(vec!["shunt_audit"], Some(&RECORD));
    }
}

/// At the cluster: writes the request for the provider, holds its answer.
struct Attempt;

impl Context for Attempt {}

impl HttpContext for Attempt {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.get_property(vec![NEXT]);
        self.set_http_request_headers(vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            (":scheme", "https"),
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-0000000000000000"),
            ("accept-encoding", "identity"),
        ]);
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, _: bool) -> Action {
        if size > 0 {
            // JSON may begin with a blank.
            self.set_http_request_body(0, 0, b" ");
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.get_http_response_header(":status");
        Action::Pause
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        self.get_http_response_body(0, size);
        self.set_http_response_headers(vec![
            (":status", "200"),
            ("content-type", "application/json"),
            ("content-length", &size.to_string()),
            ("x-shunt-provider", "openai"),
            ("x-shunt-model", "gpt-5.4-mini"),
            ("x-shunt-attempts", "1"),
        ]);
        Action::Continue
    }
}
