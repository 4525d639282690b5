//! The JSON that goes to and fro: requests of a given size, and the fake upstream's answers.

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
    let stream = if options.stream { ",\"stream\":true" } else { "" };
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
fn push_prose(text: &mut String, size: usize) {
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

/// A whole answer of exactly `size` bytes, unless that is too small for any.
pub fn completion(size: usize) -> String {
    const BEFORE: &str = concat!(
        r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"#,
        r#""model":"bench-model","choices":[{"index":0,"message":{"role":"assistant","content":""#
    );
    const AFTER: &str = concat!(
        r#"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"#,
        r#""usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120}}"#
    );
    let mut completion = BEFORE.to_owned();
    push_prose(&mut completion, size.saturating_sub(BEFORE.len() + AFTER.len()));
    completion + AFTER
}

/// The events of a streamed answer: `count` with content, one with the finish reason, and the end mark.
pub fn events(count: usize) -> Vec<String> {
    let chunk = |delta: Value, finish_reason: Value| {
        let data = json!({
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "bench-model",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
        });
        format!("data: {data}\n\n")
    };
    let first = json!({"role": "assistant", "content": "word 0 "});
    let mut events = vec![chunk(first, Value::Null)];
    for index in 1..count {
        events.push(chunk(json!({"content": format!("word {index} ")}), Value::Null));
    }
    events.push(chunk(json!({}), Value::from("stop")));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// OpenAI's error envelope.
pub fn error(message: &str, kind: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamCheck;
    use std::time::Duration;

    fn options(body_bytes: usize, stream: bool, model_first: bool) -> RequestOptions {
        RequestOptions {
            path: "/v1/chat/completions".to_owned(),
            model: "assistant".to_owned(),
            model_first,
            body_bytes,
            stream,
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
    fn the_model_comes_where_it_is_asked_for() {
        let body = request_body(&options(300, true, false));
        assert!(body.starts_with("{\"messages\":["));
        assert!(body.ends_with("],\"model\":\"assistant\",\"stream\":true}"));
        let body = request_body(&options(300, false, true));
        assert!(body.starts_with("{\"model\":\"assistant\",\"messages\":["));
        assert!(body.ends_with("\"}]}"));
    }

    #[test]
    fn a_completion_is_json_of_the_size_asked_for() {
        for size in [0, 400, 401, 402, 403, 600, 70_000] {
            let body = completion(size);
            assert!(size == 0 || body.len() == size, "{size}: {}", body.len());
            let json: Value = serde_json::from_str(&body).expect("valid JSON");
            assert_eq!(json["choices"][0]["finish_reason"], "stop");
        }
    }

    #[test]
    fn a_streamed_answer_passes_our_own_check() {
        for count in [1, 50] {
            let mut check = StreamCheck::default();
            let events = events(count);
            assert_eq!(events.len(), count + 2);
            events.iter().for_each(|event| check.push(event.as_bytes()));
            assert_eq!(check.finish(), Ok(()));
        }
    }
}
