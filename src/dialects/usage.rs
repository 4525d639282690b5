//! What providers call the counts of a usage: one table for all formats, and the rules by which its words become a [`Reported`].
//!
//! A vendor that has another word for a count is one line of the table. A count may be told twice: the word in the details wins over
//! one beside them, and an earlier line wins over a later one, but a 0 never wins over a number. In a usage each part is contained in
//! its whole. Anthropic's words for the cache are the exception: they are contained in `prompt_tokens`, but stand beside `input_tokens`.

use std::borrow::Cow;
use std::rc::Rc;

use crate::bytes::json::{members, Raw};
use crate::spend::reported::Reported;
use crate::spend::usage::{Calls, Details, Served};

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Count {
    /// The input as OpenAI's chat completions tell it: everything is contained in it.
    Prompt,
    /// The input as OpenAI's Responses API and Anthropic tell it: Anthropic's words for the cache stand beside it.
    Input,
    /// Input that always stands beside the rest of it.
    MoreInput,
    Output,
    Total,
    Cached,
    Written,
    WrittenForMinutes,
    WrittenForAnHour,
    Reasoning,
    AudioInput,
    AudioOutput,
    WebSearch,
    OtherSearch,
    FileSearch,
    OtherFileSearch,
    CodeInterpreter,
    ImageGeneration,
}

/// How many kinds of [`Count`] there are.
const COUNTS: usize = Count::ImageGeneration as usize + 1;

/// What a word means.
#[derive(Clone, Copy, Debug)]
enum Means {
    /// A count.
    Is(Count),
    /// A count that is contained in `prompt_tokens` and stands beside `input_tokens`.
    Beside(Count),
    /// An object with more words.
    Holds(&'static [Row]),
    /// The same, for counts that stand beside `input_tokens`.
    HoldsBeside(&'static [Row]),
    /// The service tier.
    Tier,
}

use Count::*;
use Means::{Beside, Holds, HoldsBeside, Is, Tier};

type Row = (&'static str, Means);

/// The words of a usage.
const USAGE: &[Row] = &[
    ("prompt_tokens", Is(Prompt)),
    ("completion_tokens", Is(Output)),
    ("total_tokens", Is(Total)),
    ("prompt_tokens_details", Holds(INPUT_DETAILS)),
    ("completion_tokens_details", Holds(OUTPUT_DETAILS)),
    // OpenAI's Responses API, and Anthropic.
    ("input_tokens", Is(Input)),
    ("output_tokens", Is(Output)),
    ("input_tokens_details", Holds(INPUT_DETAILS)),
    ("output_tokens_details", Holds(OUTPUT_DETAILS)),
    // Mistral, and some vLLM servers.
    ("prompt_token_details", Holds(INPUT_DETAILS)),
    ("num_cached_tokens", Is(Cached)),
    // DeepSeek.
    ("prompt_cache_hit_tokens", Is(Cached)),
    // Moonshot, StepFun, Together.
    ("cached_tokens", Is(Cached)),
    // Perplexity, SGLang.
    ("reasoning_tokens", Is(Reasoning)),
    // Perplexity reads what it cites beside the prompt.
    ("citation_tokens", Is(MoreInput)),
    ("num_search_queries", Is(WebSearch)),
    // xAI. Its `num_sources_used` counts pages, of which one search finds many.
    ("server_side_tool_usage_details", Holds(TOOLS)),
    // Anthropic, and gateways in front of it.
    ("cache_read_input_tokens", Beside(Cached)),
    ("cache_creation_input_tokens", Beside(Written)),
    ("cache_creation", HoldsBeside(CACHE)),
    ("server_tool_use", Holds(TOOLS)),
    ("service_tier", Tier),
];

/// The words of the details of the input.
const INPUT_DETAILS: &[Row] = &[
    ("cached_tokens", Is(Cached)),
    ("audio_tokens", Is(AudioInput)),
    // OpenAI, OpenRouter, LiteLLM.
    ("cache_write_tokens", Is(Written)),
    ("cache_creation_tokens", Is(Written)),
    ("cache_creation_token_details", Holds(CACHE)),
    ("web_search_requests", Is(WebSearch)),
    // Alibaba, and gateways that keep Anthropic's words.
    ("cache_creation_input_tokens", Is(Written)),
    ("cache_read_input_tokens", Is(Cached)),
    ("cache_creation", Holds(CACHE)),
];

/// The words of the details of the output. The tokens of a prediction are contained in it, accepted or not, and cost the same.
const OUTPUT_DETAILS: &[Row] = &[
    ("reasoning_tokens", Is(Reasoning)),
    ("audio_tokens", Is(AudioOutput)),
    // Anthropic.
    ("thinking_tokens", Is(Reasoning)),
];

/// The words of what is written into the cache.
const CACHE: &[Row] = &[
    ("ephemeral_5m_input_tokens", Is(WrittenForMinutes)),
    ("ephemeral_1h_input_tokens", Is(WrittenForAnHour)),
    // Alibaba, in older answers.
    ("cache_creation_input_tokens", Is(Written)),
];

/// The words of calls of tools that the vendor runs.
const TOOLS: &[Row] = &[
    // Anthropic, OpenRouter, LiteLLM.
    ("web_search_requests", Is(WebSearch)),
    // xAI.
    ("web_search_calls", Is(WebSearch)),
    ("x_search_calls", Is(OtherSearch)),
    ("file_search_calls", Is(FileSearch)),
    ("document_search_calls", Is(OtherFileSearch)),
    ("code_interpreter_calls", Is(CodeInterpreter)),
    ("image_generation_calls", Is(ImageGeneration)),
    // OpenAI's Responses API, beside the usage.
    ("web_search", Holds(&[("num_requests", Is(WebSearch))])),
];

/// The weight of the first word beside the details. Each further word weighs one less.
const BESIDE_DETAILS: u8 = 64;
/// The weight of the first word within the details.
const IN_DETAILS: u8 = 128;

/// The counts that a usage tells, or several reports of one answer together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    values: [u64; COUNTS],
    /// The weight of the word that told each count; 0 if none did.
    weights: [u8; COUNTS],
    /// Those that stand beside `input_tokens`, as one bit per count.
    beside: u32,
    /// Which of the first three words, which OpenAI's schema requires, have whole numbers, as one bit per word.
    whole: u8,
}

impl Default for Counts {
    fn default() -> Self {
        Self { values: [0; COUNTS], weights: [0; COUNTS], beside: 0, whole: 0 }
    }
}

impl Counts {
    /// Reads a usage object. Returns the service tier that it names, too.
    #[inline(never)]
    pub(super) fn read(object: &str) -> (Self, Raw<'_>) {
        let (mut counts, mut tier) = (Self::default(), Raw(None));
        counts.walk(object, USAGE, BESIDE_DETAILS, false, &mut tier);
        (counts, tier)
    }

    #[inline(never)]
    fn walk<'a>(&mut self, object: &'a str, rows: &[Row], most: u8, is_beside: bool, tier: &mut Raw<'a>) {
        for (name, _, value) in members(object) {
            // Most words differ in their length or their first letter already.
            let is_name = |word: &str| {
                word.len() == name.len() && word.as_bytes().first() == name.first() && word.as_bytes() == name
            };
            let row = rows.iter().enumerate().find(|(_, (word, _))| is_name(word));
            let Some((at, (_, means))) = row else { continue };
            let (count, is_beside) = match means {
                Is(count) => (count, is_beside),
                Beside(count) => (count, true),
                Holds(rows) => {
                    self.walk(value, rows, IN_DETAILS, false, tier);
                    continue;
                }
                HoldsBeside(rows) => {
                    self.walk(value, rows, IN_DETAILS, true, tier);
                    continue;
                }
                Tier => {
                    *tier = Raw(Some(value));
                    continue;
                }
            };
            if at < 3 && most == BESIDE_DETAILS {
                let bit = 1 << at;
                self.whole = if Raw(Some(value)).is_whole() { self.whole | bit } else { self.whole & !bit };
            }
            if let Some(value) = Raw(Some(value)).count() {
                let weight = most.saturating_sub(u8::try_from(at).unwrap_or(u8::MAX)).max(1);
                let known = (self.value(*count) > 0, self.weight(*count));
                if (value > 0, weight) >= known {
                    self.set(*count as usize, value, weight, is_beside);
                }
            }
        }
    }

    fn set(&mut self, at: usize, value: u64, weight: u8, is_beside: bool) {
        if let Some((known, known_weight)) = self.values.get_mut(at).zip(self.weights.get_mut(at)) {
            (*known, *known_weight) = (value, weight);
            let bit = 1 << at;
            self.beside = if is_beside { self.beside | bit } else { self.beside & !bit };
        }
    }

    /// Adds a later report of the same answer. Counts only grow: a later report may lack some of them, or tell zeros.
    #[inline(never)]
    pub(super) fn add(&mut self, later: &Self) {
        for (at, (value, weight)) in later.values.into_iter().zip(later.weights).enumerate() {
            if weight > 0 && self.values.get(at).is_some_and(|known| value >= *known) {
                self.set(at, value, weight, later.beside & (1 << at) != 0);
            }
        }
    }

    fn value(&self, count: Count) -> u64 {
        self.values.get(count as usize).copied().unwrap_or_default()
    }

    fn weight(&self, count: Count) -> u8 {
        self.weights.get(count as usize).copied().unwrap_or_default()
    }

    fn if_told(&self, count: Count) -> Option<u64> {
        (self.weight(count) > 0).then_some(self.value(count))
    }

    /// Whether the input was told as `input_tokens`, which does not contain everything.
    fn has_parts_beside(&self) -> bool {
        self.value(Prompt) == 0 && self.weight(Input) > 0
    }

    /// Whether nothing is told.
    pub(super) fn is_empty(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 0)
    }

    /// The output, if it is told.
    pub(super) fn output(&self) -> Option<u64> {
        self.if_told(Output)
    }

    /// Whether OpenAI's clients find all that they look for, where they look for it.
    pub(super) fn is_openais(&self) -> bool {
        self.whole == 0b111 && (self.value(Cached) == 0 || self.weight(Cached) == IN_DETAILS)
    }

    /// The input and the total, as far as they are told.
    pub(super) fn input_and_total(&self) -> [Option<u64>; 2] {
        [if self.has_parts_beside() { Input } else { Prompt }, Total].map(|count| self.if_told(count))
    }

    /// The counts; `None` if neither the input nor the output is told.
    #[inline(never)]
    pub(super) fn reported(&self) -> Option<Reported> {
        let [input, total] = self.input_and_total();
        let output = self.if_told(Output);
        if input.is_none() && output.is_none() {
            return None;
        }
        // If one of the two is missing, it follows from the total.
        let rest = |other: Option<u64>| Some(total?.saturating_sub(other?));
        let (input, output) = (input.or_else(|| rest(output)), output.or_else(|| rest(input)));
        // What was written into the cache may be told as a whole, or only for each time that it is kept.
        let for_times = self.value(WrittenForMinutes).saturating_add(self.value(WrittenForAnHour));
        let (cached, written) = (self.value(Cached), self.value(Written).max(for_times));
        let mut reported = Reported {
            input: input.unwrap_or(0).saturating_add(self.value(MoreInput)),
            cached,
            cache_write: written,
            output: output.unwrap_or(0),
            reasoning: self.value(Reasoning),
            total,
            details: self.details(),
            lacks_output: output.is_none(),
        };
        let bits = |counts: &[Count]| counts.iter().fold(0, |bits, count| bits | 1 << *count as u32);
        let writes = if self.value(Written) < written {
            bits(&[WrittenForMinutes, WrittenForAnHour])
        } else {
            bits(&[Written])
        };
        for (value, bits) in [(cached, bits(&[Cached])), (written, writes)] {
            if self.has_parts_beside() && self.beside & bits != 0 {
                reported.input = reported.input.saturating_add(value);
            }
        }
        Some(reported)
    }

    /// The counts that only some price lists tell apart.
    pub(super) fn details(&self) -> Details {
        Details {
            cache_write_1h: self.value(WrittenForAnHour),
            audio_input: self.value(AudioInput),
            audio_output: self.value(AudioOutput),
            calls: self.calls(),
        }
    }

    /// The calls of tools that the vendor runs.
    #[inline(never)]
    pub(super) fn calls(&self) -> Calls {
        let sum =
            |one, other| u32::try_from(self.value(one).saturating_add(self.value(other))).unwrap_or(u32::MAX);
        Calls {
            web_search: sum(WebSearch, OtherSearch),
            file_search: sum(FileSearch, OtherFileSearch),
            code_interpreter: u32::try_from(self.value(CodeInterpreter)).unwrap_or(u32::MAX),
            image_generation: u32::try_from(self.value(ImageGeneration)).unwrap_or(u32::MAX),
        }
    }
}

/// Reads a usage object of any vendor.
pub(crate) fn read(object: &str) -> Option<Reported> {
    Counts::read(object).0.reported()
}

/// Reads the calls of tools that OpenAI tells beside the usage (`tool_usage`).
pub(super) fn read_tools(object: &str) -> Calls {
    let mut counts = Counts::default();
    counts.walk(object, TOOLS, IN_DETAILS, false, &mut Raw(None));
    counts.calls()
}

/// The longest name of a model or a tier that is remembered, in bytes.
const LONGEST_NAME: usize = 256;

/// What is known of who answered, if an answer's `model` and `service_tier` say something new of it. A name that is too long or has
/// control characters says nothing.
#[inline]
pub(super) fn newly_served(known: &Served, model: &Raw<'_>, tier: &Raw<'_>) -> Option<Served> {
    let is_same =
        |known: &Option<Rc<str>>, raw: &Raw<'_>| raw.word().is_none_or(|word| known.as_deref() == Some(word));
    // Every chunk of a stream says the same again.
    if is_same(&known.model, model) && is_same(&known.tier, tier) {
        return None;
    }
    let mut served = known.clone();
    take_down(&mut served, model, tier).then_some(served)
}

/// Notes what an answer says of who answered; false if that is known.
#[inline(never)]
fn take_down(served: &mut Served, model: &Raw<'_>, tier: &Raw<'_>) -> bool {
    let mut is_news = false;
    for (known, raw) in [(&mut served.model, model), (&mut served.tier, tier)] {
        if let Some(name) = name(raw).filter(|name| known.as_deref() != Some(name)) {
            *known = Some(Rc::from(name));
            is_news = true;
        }
    }
    is_news
}

fn name<'a>(raw: &Raw<'a>) -> Option<Cow<'a, str>> {
    let has_controls = |text: &str| match text.is_ascii() {
        true => text.bytes().any(|byte| byte.is_ascii_control()),
        false => text.chars().any(char::is_control),
    };
    let is_name = |text: &Cow<'_, str>| !text.is_empty() && text.len() <= LONGEST_NAME && !has_controls(text);
    raw.text().filter(is_name)
}

/// Notes what an answer says of who answered.
pub(super) fn hear(served: &mut Served, model: &Raw<'_>, tier: &Raw<'_>) {
    take_down(served, model, tier);
}

#[cfg(test)]
mod tests;
