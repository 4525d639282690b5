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
use crate::dialects::usage::{hear, Counts};
use crate::spend::reported::Reported;
use crate::spend::usage::Served;

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

/// What the answer of a message tells of its usage and of who answered.
#[derive(Clone, Debug, Default)]
struct Told {
    counts: Counts,
    served: Served,
}

impl Told {
    /// Reads a message or an event with a `usage`. In a stream the counts are cumulative and only grow; a later report may lack some of
    /// them, or tell zeros. Returns whether it tells the output. A zero after another report does not.
    fn read(&mut self, message: &Fields<'_>) -> bool {
        let (counts, tier) = Counts::read(message.get("usage").unwrap_or_default());
        let is_first = self.counts.is_empty();
        let tells_output = counts.output().is_some_and(|output| output > 0 || is_first);
        self.counts.add(&counts);
        hear(&mut self.served, &Raw(message.get("model")), &tier);
        tells_output
    }

    /// OpenAI's `usage`, in which the prompt tokens include those read from and written to the prompt cache. `None` if the provider
    /// reported nothing.
    fn usage(&self) -> Option<String> {
        let Reported { input: prompt, cached, cache_write, output, reasoning, details, .. } =
            self.counts.reported()?;
        let (mut usage, mut of_input, mut of_output) = (Writer::object(), Writer::object(), Writer::object());
        of_input.number("cached_tokens", cached);
        of_input.number("cache_write_tokens", cache_write);
        if details.cache_write_1h > 0 {
            let mut kept = Writer::object();
            kept.number("ephemeral_1h_input_tokens", details.cache_write_1h);
            of_input.field("cache_creation", &kept.finish());
        }
        of_output.number("reasoning_tokens", reasoning);
        usage.number("prompt_tokens", prompt);
        usage.number("completion_tokens", output);
        usage.number("total_tokens", prompt.saturating_add(output));
        usage.field("prompt_tokens_details", &of_input.finish());
        usage.field("completion_tokens_details", &of_output.finish());
        if details.calls.web_search > 0 {
            let mut tools = Writer::object();
            tools.number("web_search_requests", u64::from(details.calls.web_search));
            usage.field("server_tool_use", &tools.finish());
        }
        Some(usage.finish())
    }
}

#[cfg(test)]
mod tests;
