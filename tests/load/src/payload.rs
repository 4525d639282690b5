//! The JSON that goes to and fro: requests of a given size, and OpenAI's errors.

use serde_json::{json, Value};

use crate::cli::{RequestOptions, Target};

/// What messages and answers are made of, as it is inside a JSON string. Escapes are in it because a
/// proxy that looks into the body has to get by them.
const PROSE: &str = r#"The \"shunt\" of a railway yard moves wagons from one track to another.\nIt does so – quickly – while \\ the main line stays open, and the passengers need not know. "#;

/// A long conversation has many messages and not one very large one.
const MESSAGE_BYTES: usize = 2000;

/// A chat completion request as it goes over the wire, head and body in one, so that a small one is
/// one write.
pub fn request(options: &RequestOptions, target: &Target, extra_headers: &[(&str, String)]) -> Vec<u8> {
    let body = request_body(options);
    let mut wire = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer sk-client\r\n\
         content-type: application/json\r\naccept: {}\r\ncontent-length: {}\r\n",
        options.path,
        target.name,
        if options.stream { "text/event-stream" } else { "application/json" },
        body.len()
    );
    for (name, value) in extra_headers {
        wire.extend([*name, ": ", value, "\r\n"]);
    }
    wire.push_str("\r\n");
    wire.push_str(&body);
    wire.into_bytes()
}

/// The body, of exactly the size asked for unless that is too small for any request.
fn request_body(options: &RequestOptions) -> String {
    // OpenAI's Python client sends the messages before the model, and the other options behind it.
    let model = format!("\"model\":{}", Value::from(options.model.as_str()));
    let stream = match (options.stream, options.include_usage) {
        (true, true) => r#","stream":true,"stream_options":{"include_usage":true}"#,
        (true, false) => r#","stream":true"#,
        (false, _) => "",
    };
    let (before, after) = if options.model_first {
        (format!("{{{model},\"messages\":["), format!("]{stream}}}"))
    } else {
        ("{\"messages\":[".to_owned(), format!("],{model}{stream}}}"))
    };
    let size = options.body_bytes.saturating_sub(before.len() + after.len());
    before + &messages(size) + &after
}

/// A conversation of `size` bytes, or of one empty message if that is larger.
fn messages(size: usize) -> String {
    const USER: &str = "{\"role\":\"user\",\"content\":\"";
    const ASSISTANT: &str = "{\"role\":\"assistant\",\"content\":\"";
    const END: &str = "\"}";
    // The least that a question and an answer take, with the commas in front of them.
    const PAIR: usize = USER.len() + ASSISTANT.len() + 2 * END.len() + 2;

    let mut messages = String::with_capacity(size);
    // Questions and answers, as long as there is room behind them for the last question.
    while messages.len() + PAIR + 2 * MESSAGE_BYTES + USER.len() + END.len() <= size {
        for role in [USER, ASSISTANT] {
            messages.push_str(role);
            push_prose(&mut messages, MESSAGE_BYTES);
            messages.push_str(END);
            messages.push(',');
        }
    }
    messages.push_str(USER);
    let left = size.saturating_sub(messages.len() + END.len());
    push_prose(&mut messages, left);
    messages.push_str(END);
    messages
}

/// Adds exactly `size` bytes of [`PROSE`] that are whole characters and whole escapes.
pub fn push_prose(text: &mut String, size: usize) {
    let end = text.len() + size;
    while text.len() + PROSE.len() <= end {
        text.push_str(PROSE);
    }
    let mut cut = end - text.len();
    while !PROSE.is_char_boundary(cut) || PROSE[..cut].ends_with('\\') {
        cut -= 1;
    }
    text.push_str(&PROSE[..cut]);
    text.extend(std::iter::repeat_n('.', end - text.len()));
}

/// OpenAI's error envelope.
pub fn error(message: &str, kind: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn options(body_bytes: usize, stream: bool, model_first: bool) -> RequestOptions {
        RequestOptions {
            path: "/v1/chat/completions".to_owned(),
            model: "assistant".to_owned(),
            model_first,
            body_bytes,
            stream,
            include_usage: false,
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn a_request_is_json_of_the_size_asked_for() {
        let sizes = (200..600).chain(4000..4500).chain([0, 1, 100_000, 1 << 20]);
        for size in sizes {
            let body = request_body(&options(size, size % 2 == 0, size % 3 == 0));
            assert!(size < 200 || body.len() == size, "{size}: {}", body.len());
            let json: Value = serde_json::from_str(&body).expect("valid JSON");
            assert_eq!(json["model"], "assistant");
            assert_eq!(json["messages"][0]["role"], "user");
        }
    }

    #[test]
    fn the_model_and_the_options_come_where_they_are_asked_for() {
        let body = request_body(&options(300, true, false));
        assert!(body.starts_with("{\"messages\":["));
        assert!(body.ends_with("],\"model\":\"assistant\",\"stream\":true}"));
        let body = request_body(&options(300, false, true));
        assert!(body.starts_with("{\"model\":\"assistant\",\"messages\":["));
        assert!(body.ends_with("\"}]}"));
        let body = request_body(&RequestOptions { include_usage: true, ..options(300, true, true) });
        assert!(body.ends_with("\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}"));
    }
}
