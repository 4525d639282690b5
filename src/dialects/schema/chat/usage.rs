//! The `usage` object: reads every vendor's form, and adds the fields that OpenAI's clients expect.

use super::shape::Shape;
use crate::bytes::json::{raw_object, Raw};
use crate::spend::usage::Usage;

raw_object! {
    struct Fields {
        prompt_tokens: "prompt_tokens",
        completion_tokens: "completion_tokens",
        total_tokens: "total_tokens",
        prompt_tokens_details: "prompt_tokens_details",
        completion_tokens_details: "completion_tokens_details",
        /// The names of the Responses API and of Anthropic.
        input_tokens: "input_tokens",
        output_tokens: "output_tokens",
        input_tokens_details: "input_tokens_details",
        output_tokens_details: "output_tokens_details",
        /// DeepSeek's name for cached tokens.
        prompt_cache_hit_tokens: "prompt_cache_hit_tokens",
        /// Moonshot's name for cached tokens.
        cached_tokens: "cached_tokens",
    }
}

raw_object! {
    struct Details {
        cached_tokens: "cached_tokens",
        /// OpenRouter's name for tokens that were written into the cache.
        cache_write_tokens: "cache_write_tokens",
        reasoning_tokens: "reasoning_tokens",
    }
}

impl<'a> Details<'a> {
    fn of(raw: Raw<'a>) -> Self {
        Self::read(raw.value().unwrap_or_default())
    }
}

impl Shape<'_> {
    /// Reads a usage object, and adds the fields that it lacks in OpenAI's schema. `None` if it has neither input nor output
    /// tokens.
    pub(super) fn usage(&mut self, raw: &str) -> Option<Usage> {
        let fields = Fields::read(raw);
        let (usage, in_details) = fields.usage()?;
        let open = self.place(raw).start + 1;
        let mut missing = String::new();
        for (raw, name, value) in [
            (&fields.prompt_tokens, "prompt_tokens", usage.input),
            (&fields.completion_tokens, "completion_tokens", usage.output),
            (&fields.total_tokens, "total_tokens", usage.input.saturating_add(usage.output)),
        ] {
            match raw.0 {
                Some(_) if raw.is_whole() => {}
                Some(old) => self.splices.add(self.place(old), value.to_string()),
                None => missing.extend(["\"", name, "\":", &value.to_string(), ","]),
            }
        }
        // DeepSeek and Moonshot report cached tokens outside the details.
        if in_details.is_none() && usage.cached > 0 {
            let cached = ["\"cached_tokens\":", &usage.cached.to_string()].concat();
            let details = &fields.prompt_tokens_details;
            match (details.0, details.value().and_then(|raw| raw.strip_prefix('{'))) {
                (_, Some(rest)) => {
                    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
                    self.splices.insert(self.place(rest).start, [&cached, comma].concat());
                }
                (Some(old), None) => self.splices.add(self.place(old), ["{", &cached, "}"].concat()),
                (None, None) => missing.extend(["\"prompt_tokens_details\":{", &cached, "},"]),
            }
        }
        if !missing.is_empty() {
            // The object has at least one field, since a usage was read, so a comma must follow.
            self.splices.insert(open, missing);
        }
        Some(usage)
    }
}

impl Fields<'_> {
    /// The usage, and the cached tokens if they are in the details.
    fn usage(&self) -> Option<(Usage, Option<u64>)> {
        let first = |raws: [&Raw<'_>; 2]| raws.into_iter().find_map(Raw::number);
        let input = first([&self.prompt_tokens, &self.input_tokens]);
        let output = first([&self.completion_tokens, &self.output_tokens]);
        if input.is_none() && output.is_none() {
            return None;
        }
        // If one of the two is missing, it follows from the total.
        let rest = |other: Option<u64>| Some(self.total_tokens.number()?.saturating_sub(other?));
        let (input, output) = (input.or_else(|| rest(output)), output.or_else(|| rest(input)));
        let prompt = [Details::of(self.prompt_tokens_details), Details::of(self.input_tokens_details)];
        let completion =
            [Details::of(self.completion_tokens_details), Details::of(self.output_tokens_details)];
        let in_details = prompt.iter().find_map(|details| details.cached_tokens.number());
        let beside = || first([&self.prompt_cache_hit_tokens, &self.cached_tokens]);
        let written = prompt.iter().find_map(|details| details.cache_write_tokens.number());
        let reasoning = completion.iter().find_map(|details| details.reasoning_tokens.number());
        let usage = Usage {
            input: input.unwrap_or(0),
            cached: in_details.or_else(beside).unwrap_or(0),
            cache_write: written.unwrap_or(0),
            output: output.unwrap_or(0),
            reasoning: reasoning.unwrap_or(0),
        };
        Some((usage, in_details))
    }
}

/// Reads a usage object of any vendor.
pub(crate) fn read(raw: &str) -> Option<Usage> {
    Fields::read(raw).usage().map(|(usage, _)| usage)
}
