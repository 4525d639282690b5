//! Anthropic's Messages API behind OpenAI's chat completions: requests there, answers and streams back.
//!
//! Pure functions on bytes. What OpenAI's form says and Anthropic's cannot is [`Unsupported`], so that another provider
//! is asked; what is only a hint (a seed, a penalty, a cache key) is left out. A request that Anthropic would refuse for
//! its form alone never leaves, since its 400 would be taken for the client's mistake.
//!
//! Sources: Anthropic's API reference and migration guides (autumn 2026), and the types of its Python SDK 2.12.

mod answer;
mod conversation;
mod model;
mod request;
mod schema;
mod stream;
mod unsupported;

use crate::bytes::json::{Fields, Writer};

pub use answer::answer;
pub use request::request;
pub use stream::Translator;
pub use unsupported::Unsupported;

/// The header that carries the key, as it is, in place of `authorization`.
pub const KEY_HEADER: &str = "x-api-key";
/// The header that every request must carry, and the version that is spoken here.
pub const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// OpenAI's word for a `stop_reason`. A refusal is a content filter's: clients know that word, and no answer follows.
fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "tool_use" => "tool_calls",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "refusal" => "content_filter",
        // end_turn, stop_sequence, pause_turn, and what may come.
        _ => "stop",
    }
}

/// Why a model refused, as JSON: words for a person, if it said so.
fn refusal<'a>(message: &Fields<'a>) -> Option<&'a str> {
    message.object("stop_details")?.get("explanation").filter(|words| words.starts_with('"'))
}

/// Anthropic's counts of tokens. Its input does not contain what was read from or written to the cache.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    fresh: u64,
    cached: u64,
    written: u64,
    output: u64,
    thinking: u64,
    /// The provider said how many, be it of one kind alone.
    told: bool,
}

impl Tokens {
    /// Takes over what a `usage` says. Counts in a stream are cumulative: a later one replaces the earlier.
    fn read(&mut self, message: &Fields<'_>) {
        let Some(usage) = message.object("usage") else { return };
        for (count, name) in [
            (&mut self.fresh, "input_tokens"),
            (&mut self.cached, "cache_read_input_tokens"),
            (&mut self.written, "cache_creation_input_tokens"),
            (&mut self.output, "output_tokens"),
        ] {
            let number = usage.number(name);
            self.told |= number.is_some();
            *count = number.unwrap_or(*count);
        }
        let details = usage.object("output_tokens_details");
        self.thinking =
            details.and_then(|details| details.number("thinking_tokens")).unwrap_or(self.thinking);
    }

    /// OpenAI's `usage`: the prompt contains its cached and written parts. `None` if there was none: nothing is invented.
    fn usage(&self) -> Option<String> {
        if !self.told {
            return None;
        }
        let prompt = self.fresh.saturating_add(self.cached).saturating_add(self.written);
        let (mut usage, mut input, mut output) = (Writer::object(), Writer::object(), Writer::object());
        input.number("cached_tokens", self.cached);
        input.number("cache_write_tokens", self.written);
        output.number("reasoning_tokens", self.thinking);
        usage.number("prompt_tokens", prompt);
        usage.number("completion_tokens", self.output);
        usage.number("total_tokens", prompt.saturating_add(self.output));
        usage.field("prompt_tokens_details", &input.finish());
        usage.field("completion_tokens_details", &output.finish());
        Some(usage.finish())
    }
}

#[cfg(test)]
mod tests;
