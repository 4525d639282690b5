//! Translates OpenAI chat completions to Anthropic's Messages API: requests in one direction, answers and streams in the other.
//!
//! All functions are pure and work on bytes. If a request uses something that Anthropic's API does not have, the result is
//! [`Unsupported`], so that another provider is tried. Parameters that are only hints (a seed, a penalty, a cache key) are
//! dropped. A request that Anthropic would refuse for its form alone is never sent, because its status 400 would be taken
//! for the client's mistake.
//!
//! Sources: Anthropic's API reference and migration guides (autumn 2026), and the types of its Python SDK 2.12.

mod answer;
mod conversation;
mod model;
mod request;
mod schema;
mod stream;
mod unsupported;

use crate::bytes::json::{Fields, Raw, Writer};
use crate::spend::reported::Reported;

pub use answer::answer;
pub use request::request;
pub use stream::Translator;
pub use unsupported::Unsupported;

/// The header that carries the key, without a prefix, instead of `authorization`.
pub const KEY_HEADER: &str = "x-api-key";
/// The header that every request must have, and the version of the API that this module implements.
pub const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// The fields that are read of an answer, of its blocks or of its events.
const KNOWN: [&str; 16] = [
    "type",
    "index",
    "delta",
    "content_block",
    "message",
    "content",
    "text",
    "thinking",
    "partial_json",
    "id",
    "name",
    "input",
    "stop_reason",
    "stop_details",
    "usage",
    "error",
];

/// OpenAI's finish reason for a `stop_reason`. A refusal becomes `content_filter`, which clients know as the end of an answer that
/// is withheld.
fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "tool_use" => "tool_calls",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "refusal" => "content_filter",
        // end_turn, stop_sequence, pause_turn, and unknown values.
        _ => "stop",
    }
}

/// The explanation for a refusal, as a JSON string, if there is one.
fn refusal<'a>(message: &Fields<'a>) -> Option<&'a str> {
    message.object("stop_details")?.get("explanation").filter(|json| json.starts_with('"'))
}

/// Anthropic's token counts. Its input tokens do not include those read from or written to the prompt cache.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    /// Input that was neither read from nor written to the cache.
    uncached: u64,
    cached: u64,
    cache_write: u64,
    output: u64,
    thinking: u64,
    /// The provider reported at least one of the counts.
    is_reported: bool,
}

impl Tokens {
    /// Reads a `usage`. In a stream the counts are cumulative and only grow; a later report may lack some of them, or tell zeros. Returns
    /// whether it tells the output. A zero after another report does not.
    fn read(&mut self, message: &Fields<'_>) -> bool {
        let Some(usage) = message.object("usage") else { return false };
        let is_first = !self.is_reported;
        for (count, name) in [
            (&mut self.uncached, "input_tokens"),
            (&mut self.cached, "cache_read_input_tokens"),
            (&mut self.cache_write, "cache_creation_input_tokens"),
            (&mut self.output, "output_tokens"),
        ] {
            let number = Raw(usage.get(name)).count();
            self.is_reported |= number.is_some();
            *count = (*count).max(number.unwrap_or_default());
        }
        let details = usage.object("output_tokens_details");
        let thinking = details.and_then(|details| Raw(details.get("thinking_tokens")).count());
        self.thinking = self.thinking.max(thinking.unwrap_or_default());
        Raw(usage.get("output_tokens")).count().is_some_and(|output| output > 0 || is_first)
    }

    /// The counts in OpenAI's way. `None` if the provider reported nothing.
    fn reported(&self) -> Option<Reported> {
        let Self { uncached, cached, cache_write, output, thinking: reasoning, is_reported } = *self;
        let input = uncached.saturating_add(cached).saturating_add(cache_write);
        let total = Some(input.saturating_add(output));
        is_reported.then_some(Reported { input, cached, cache_write, output, reasoning, total })
    }

    /// OpenAI's `usage`, in which the prompt tokens include those read from and written to the cache. `None` if the provider
    /// reported nothing.
    fn usage(&self) -> Option<String> {
        let Reported { input: prompt, .. } = self.reported()?;
        let (mut usage, mut input, mut output) = (Writer::object(), Writer::object(), Writer::object());
        input.number("cached_tokens", self.cached);
        input.number("cache_write_tokens", self.cache_write);
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
