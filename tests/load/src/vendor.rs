//! The fake upstream's answers, in the form of each vendor that it can imitate.
//!
//! They have every field that the vendor sends, because a proxy that makes all answers alike has more to do
//! where one is missing.

use std::str::FromStr;

use serde_json::{json, Value};

use crate::payload::push_prose;

/// Whose form an answer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    #[default]
    OpenAi,
    DeepSeek,
    Anthropic,
}

impl FromStr for Vendor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "openai" => Ok(Self::OpenAi),
            "deepseek" => Ok(Self::DeepSeek),
            "anthropic" => Ok(Self::Anthropic),
            _ => Err("not openai, deepseek or anthropic".to_owned()),
        }
    }
}

impl Vendor {
    /// A whole answer of exactly `size` bytes, unless that is too small for any.
    pub fn whole(self, size: usize) -> String {
        let (before, after) = match self {
            Self::OpenAi => (
                concat!(
                    r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"#,
                    r#""model":"bench-model","choices":[{"index":0,"message":{"role":"assistant","content":""#
                ),
                concat!(
                    r#"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"#,
                    r#""usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120,"#,
                    r#""prompt_tokens_details":{"cached_tokens":16},"#,
                    r#""completion_tokens_details":{"reasoning_tokens":0}}}"#
                ),
            ),
            // Cached tokens are beside the details, which are left out.
            Self::DeepSeek => (
                concat!(
                    r#"{"id":"bench","object":"chat.completion","created":1700000000,"#,
                    r#""model":"bench-model","choices":[{"index":0,"message":{"role":"assistant","#,
                    r#""reasoning_content":"A thought.","content":""#
                ),
                concat!(
                    r#""},"logprobs":null,"finish_reason":"stop"}],"#,
                    r#""usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120,"#,
                    r#""prompt_cache_hit_tokens":16,"prompt_cache_miss_tokens":4}}"#
                ),
            ),
            Self::Anthropic => (
                concat!(
                    r#"{"id":"msg_bench","type":"message","role":"assistant","model":"bench-model","#,
                    r#""content":[{"type":"text","text":""#
                ),
                concat!(
                    r#""}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":4,"#,
                    r#""cache_creation_input_tokens":0,"cache_read_input_tokens":16,"output_tokens":100}}"#
                ),
            ),
        };
        let mut answer = before.to_owned();
        push_prose(&mut answer, size.saturating_sub(before.len() + after.len()));
        answer + after
    }

    /// The events of a streamed answer: `count` with content, and what the vendor sends around them. `usage`:
    /// the request asks for it, which only OpenAI heeds.
    pub fn events(self, count: usize, usage: bool) -> Vec<String> {
        match self {
            Self::OpenAi => openai_events(count, usage),
            Self::DeepSeek => deepseek_events(count),
            Self::Anthropic => anthropic_events(count),
        }
    }
}

const DONE: &str = "data: [DONE]\n\n";

fn word(index: usize) -> String {
    format!("word {index} ")
}

fn chunk(delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "bench-model",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
    })
}

fn openai_events(count: usize, usage: bool) -> Vec<String> {
    let first = json!({"role": "assistant", "content": word(0)});
    let mut chunks = vec![chunk(first, None)];
    chunks.extend((1..count).map(|index| chunk(json!({"content": word(index)}), None)));
    chunks.push(chunk(json!({}), Some("stop")));
    if usage {
        // Then every chunk has the field.
        chunks.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
        let mut last = chunk(Value::Null, None);
        last["choices"] = json!([]);
        last["usage"] = json!({
            "prompt_tokens": 20,
            "completion_tokens": count,
            "total_tokens": 20 + count,
            "prompt_tokens_details": {"cached_tokens": 16},
            "completion_tokens_details": {"reasoning_tokens": 0},
        });
        chunks.push(last);
    }
    let mut events: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    events.push(DONE.to_owned());
    events
}

/// The first half of the content is reasoning; the last chunk with a choice tells the usage, asked or not.
fn deepseek_events(count: usize) -> Vec<String> {
    let thoughts = count / 2;
    let delta = |index| {
        let (name, other) = if index < thoughts {
            ("reasoning_content", "content")
        } else {
            ("content", "reasoning_content")
        };
        let mut delta = json!({name: word(index), other: null});
        if index == 0 {
            delta["role"] = json!("assistant");
        }
        delta
    };
    let mut chunks: Vec<Value> = (0..count).map(|index| chunk(delta(index), None)).collect();
    let mut last = chunk(json!({"content": "", "reasoning_content": null}), Some("stop"));
    last["usage"] = json!({
        "prompt_tokens": 20,
        "completion_tokens": count,
        "total_tokens": 20 + count,
        "prompt_cache_hit_tokens": 16,
        "prompt_cache_miss_tokens": 4,
    });
    chunks.push(last);
    // What keeps the connection alive while a request waits its turn.
    let mut events = vec![": keep-alive\n\n".to_owned(); 2];
    events.extend(chunks.iter().map(|chunk| format!("data: {chunk}\n\n")));
    events.push(DONE.to_owned());
    events
}

fn anthropic_events(count: usize) -> Vec<String> {
    let usage = |output: usize| {
        json!({
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 16,
            "output_tokens": output,
        })
    };
    let message = json!({
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench-model",
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(1),
    });
    let mut events = vec![
        ("message_start", json!({"message": message})),
        ("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
        ("ping", json!({})),
    ];
    events.extend((0..count).map(|index| {
        let delta = json!({"type": "text_delta", "text": word(index)});
        ("content_block_delta", json!({"index": 0, "delta": delta}))
    }));
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    events.extend([
        ("content_block_stop", json!({"index": 0})),
        ("message_delta", json!({"delta": delta, "usage": usage(count)})),
        ("message_stop", json!({})),
    ]);
    let written = events.into_iter().map(|(name, mut data)| {
        data["type"] = json!(name);
        format!("event: {name}\ndata: {data}\n\n")
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamCheck;

    const ALL: [Vendor; 3] = [Vendor::OpenAi, Vendor::DeepSeek, Vendor::Anthropic];

    #[test]
    fn a_whole_answer_is_json_of_the_size_asked_for() {
        for vendor in ALL {
            for size in [0, 450, 451, 452, 453, 600, 70_000] {
                let body = vendor.whole(size);
                assert!(size == 0 || body.len() == size, "{size}: {}", body.len());
                let json: Value = serde_json::from_str(&body).expect("valid JSON");
                let ended = match vendor {
                    Vendor::Anthropic => json["stop_reason"] == "end_turn",
                    _ => json["choices"][0]["finish_reason"] == "stop",
                };
                assert!(ended, "{body}");
            }
        }
    }

    #[test]
    fn a_streamed_answer_passes_our_own_check() {
        for vendor in ALL {
            for (count, usage) in [(1, false), (50, false), (1, true), (50, true)] {
                let mut check = StreamCheck::of(vendor);
                let events = vendor.events(count, usage);
                events.iter().for_each(|event| check.push(event.as_bytes()));
                assert_eq!(check.finish(), Ok(()), "{vendor:?}");
                let said = events.iter().filter(|event| event.contains("word ")).count();
                assert_eq!(said, count, "{vendor:?}");
            }
        }
    }

    #[test]
    fn openai_tells_usage_in_a_chunk_of_its_own_if_asked() {
        let silent = Vendor::OpenAi.events(3, false).concat();
        assert!(!silent.contains("usage"));
        let events = Vendor::OpenAi.events(3, true);
        let [chunks @ .., last, _] = events.as_slice() else { panic!("too few events") };
        assert!(chunks.iter().all(|chunk| chunk.contains(r#""usage":null"#)));
        assert!(last.contains(r#""choices":[]"#) && last.contains(r#""total_tokens":23"#));
    }
}
