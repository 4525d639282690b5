//! Translates a whole answer of the Messages API to a chat completion.

use super::{finish_reason, refusal, Told, KNOWN};
use crate::bytes::json::{elements, lossy, Fields, Writer};
use crate::spend::usage::Served;

/// Translates a whole answer to OpenAI's `chat.completion`. `created` is in seconds since 1970, because Anthropic's answer has no
/// such field. `None` if the body is not a message. Notes in `served` who answered.
///
/// Text blocks are joined, thinking becomes `reasoning_content`, and blocks of the vendor's own tools are left out. A refusal
/// ends with `content_filter`.
pub fn answer(body: &[u8], created: u64, served: &mut Served) -> Option<Vec<u8>> {
    let message = Fields::read(body)?.plausible(&KNOWN)?;
    if message.lossy("type") != "message" {
        return None;
    }
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Writer::list());
    for block in elements(message.get("content")?)? {
        let block = Fields::of(block)?.plausible(&KNOWN)?;
        match block.word("type")? {
            "text" => content.push_str(&lossy(block.word("text")?)),
            "thinking" => reasoning.push_str(&lossy(block.word("thinking")?)),
            "tool_use" => {
                let mut function = Writer::object();
                function.text("name", &block.lossy("name"));
                function.text("arguments", block.get("input").unwrap_or("{}"));
                let mut call = Writer::object();
                call.text("id", &block.lossy("id"));
                call.text("type", "function");
                call.field("function", &function.finish());
                calls.value(&call.finish());
            }
            kind if kind.contains('\\') => return None,
            _ => {}
        }
    }
    let mut out_message = Writer::object();
    out_message.text("role", "assistant");
    let refusal = refusal(&message);
    // Null if there are only tool calls or a refusal. Clients would take an empty string for a text.
    if content.is_empty() && (refusal.is_some() || !calls.is_empty()) {
        out_message.field("content", "null");
    } else {
        out_message.text("content", &content);
    }
    out_message.field("refusal", refusal.unwrap_or("null"));
    if !reasoning.is_empty() {
        out_message.text("reasoning_content", &reasoning);
    }
    if !calls.is_empty() {
        out_message.field("tool_calls", &calls.finish());
    }
    let mut choice = Writer::object();
    choice.number("index", 0);
    choice.field("message", &out_message.finish());
    choice.field("logprobs", "null");
    choice.text("finish_reason", finish_reason(&message.lossy("stop_reason")));
    let mut choices = Writer::list();
    choices.value(&choice.finish());
    let mut told = Told::default();
    told.read(&message);
    let mut out = Writer::object();
    out.text("id", &message.lossy("id"));
    out.text("object", "chat.completion");
    out.number("created", created);
    out.text("model", &message.lossy("model"));
    out.field("choices", &choices.finish());
    out.field("usage", told.usage().as_deref().unwrap_or("null"));
    *served = told.served;
    Some(out.finish().into_bytes())
}
