//! A whole Messages answer as a chat completion.

use super::{finish_reason, refusal, Tokens};
use crate::bytes::json::{elements, Fields, Writer};

/// Rewrites a whole answer as OpenAI's `chat.completion`. `created` is in seconds since 1970, which the answer lacks.
/// `None` if it is no message.
///
/// Texts are joined; thinking becomes `reasoning_content`; blocks of the vendor's own tools are left out. What the model
/// refused ends with `content_filter`.
pub fn answer(body: &[u8], created: u64) -> Option<Vec<u8>> {
    let message = Fields::read(body)?;
    if message.text("type")? != "message" {
        return None;
    }
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Writer::list());
    for block in elements(message.get("content")?)? {
        let block = Fields::of(block)?;
        match block.text("type")?.as_str() {
            "text" => content.push_str(&block.text("text")?),
            "thinking" => reasoning.push_str(&block.text("thinking")?),
            "tool_use" => {
                let mut function = Writer::object();
                function.text("name", &block.text("name")?);
                function.text("arguments", block.get("input").unwrap_or("{}"));
                let mut call = Writer::object();
                call.text("id", &block.text("id")?);
                call.text("type", "function");
                call.field("function", &function.finish());
                calls.value(&call.finish());
            }
            _ => {}
        }
    }
    let mut said = Writer::object();
    said.text("role", "assistant");
    let refusal = refusal(&message);
    // Null where something else stands for it; clients take it for text otherwise.
    if content.is_empty() && (refusal.is_some() || !calls.is_empty()) {
        said.field("content", "null");
    } else {
        said.text("content", &content);
    }
    said.field("refusal", refusal.unwrap_or("null"));
    if !reasoning.is_empty() {
        said.text("reasoning_content", &reasoning);
    }
    if !calls.is_empty() {
        said.field("tool_calls", &calls.finish());
    }
    let mut choice = Writer::object();
    choice.number("index", 0);
    choice.field("message", &said.finish());
    choice.field("logprobs", "null");
    choice.text("finish_reason", finish_reason(&message.text("stop_reason")?));
    let mut choices = Writer::list();
    choices.value(&choice.finish());
    let mut tokens = Tokens::default();
    tokens.read(&message);
    let mut out = Writer::object();
    out.text("id", &message.text("id")?);
    out.text("object", "chat.completion");
    out.number("created", created);
    out.text("model", &message.text("model")?);
    out.field("choices", &choices.finish());
    out.field("usage", tokens.usage().as_deref().unwrap_or("null"));
    Some(out.finish().into_bytes())
}
