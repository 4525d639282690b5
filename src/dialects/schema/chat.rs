//! Reads a chat or text completion without building a tree: content, finish reasons, usage, an error, and the changes that make
//! it follow OpenAI's schema.
//!
//! One reader serves whole answers and the chunks of a stream, since both are an object with `choices`. Vendors add
//! fields and leave others out, so every field is optional and unknown fields are skipped. An answer that needs no change is
//! not copied.

mod calls;
mod delta;
mod piece;
mod shape;
mod summary;
mod usage;
mod written;

use std::borrow::Cow;
use std::ops::Range;

use super::{Defaults, ToolCalls};
use crate::bytes::json::{self, raw_object, Raw, Writer};
use crate::bytes::splice::Splices;
use crate::dialects::usage::newly_served;
use crate::health::outcome::ErrorBody;
use crate::spend::tokens::Estimator;
pub use calls::Calls;
use shape::{Finish, Shape};
pub use summary::ChunkSummary;

/// The object that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `chat.completion`.
    Chat,
    /// `chat.completion.chunk`.
    ChatChunk,
    /// `text_completion`, as a whole answer.
    Text,
    /// `text_completion`, as a chunk of a stream.
    TextChunk,
}

impl Form {
    const fn is_chunk(self) -> bool {
        matches!(self, Self::ChatChunk | Self::TextChunk)
    }

    const fn is_chat(self) -> bool {
        matches!(self, Self::Chat | Self::ChatChunk)
    }

    /// The event with the chunk that reports a stream's usage. `object` is the usage as the provider told it in another chunk. It gets
    /// the fields that it lacks, and otherwise stays as it is. `None` if it is no usage.
    pub fn usage_chunk(self, defaults: &Defaults, object: &str) -> Option<Vec<u8>> {
        let usage = usage::completed(object)?;
        let mut chunk = Writer::object();
        chunk.text("id", &defaults.id);
        chunk.text("object", self.object());
        chunk.number("created", defaults.created);
        chunk.text("model", &defaults.model);
        chunk.field("choices", "[]");
        // A line feed would end the data line. Between the tokens of JSON a space means the same.
        chunk.field("usage", &usage.replace('\n', " "));
        Some(["data: ", &chunk.finish(), "\n\n"].concat().into_bytes())
    }

    /// The value of the field `object`.
    pub const fn object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::ChatChunk => "chat.completion.chunk",
            Self::Text | Self::TextChunk => "text_completion",
        }
    }
}

/// A body or chunk and the changes that it needs.
#[derive(Debug, Default)]
pub struct Reading {
    /// What was read from it.
    pub summary: ChunkSummary,
    /// The changes that make it follow OpenAI's schema.
    pub splices: Splices,
    /// It has a usage object.
    pub has_usage_object: bool,
    /// Where its usage object stands, in the text that was read. `None` if it has none that can be read.
    pub usage_place: Option<Range<usize>>,
    /// It has no choices. In a stream this is a chunk that carries only usage, or nothing.
    pub has_no_choices: bool,
    /// The defaults for later chunks with the provider's `id`, `created` and `model` and who answered; `None` if these do not differ.
    pub stream_fields: Option<Box<Defaults>>,
    /// The events that the client gets before this chunk: tool calls that begin for it only now.
    pub earlier: Vec<u8>,
    /// Nothing of this chunk is forwarded now. What it says of tool calls is kept.
    pub is_kept: bool,
}

/// The longest `id` or `model`, in bytes, that is repeated in later chunks.
const MAX_REPEATED_LEN: usize = 256;

/// No client asks for more choices in one chunk. The changes of each take longer, the more there are.
const MOST_CHOICES: usize = 1024;

/// The error for text that is not one complete JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

impl Reading {
    /// Reads a whole answer or one chunk. Its content is added to `text`.
    ///
    /// # Errors
    /// [`NotAnObject`] if the bytes are not one complete JSON object, or one that cannot be meant so.
    pub fn new(
        json: &[u8],
        form: Form,
        defaults: &Defaults,
        text: &mut Estimator,
    ) -> Result<Self, NotAnObject> {
        Self::after(&mut Calls::default(), json, form, defaults, text)
    }

    /// Reads a chunk of a stream in which earlier chunks have begun these tool `calls`, and notes in them what it says of them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn after(
        calls: &mut Calls,
        json: &[u8],
        form: Form,
        defaults: &Defaults,
        text: &mut Estimator,
    ) -> Result<Self, NotAnObject> {
        let text_of_object = json::object(json).ok_or(NotAnObject)?;
        // An empty object has nothing to repair.
        if form.is_chunk() && text_of_object.get(1..).is_some_and(|rest| rest.trim_start() == "}") {
            return Err(NotAnObject);
        }
        let body = Body::plausible(text_of_object).ok_or(NotAnObject)?;
        let choices = body.choices()?;
        if form.is_chunk() && choices.len() > MOST_CHOICES {
            return Err(NotAnObject);
        }
        let mut reading = Self { has_no_choices: choices.is_empty(), ..Self::default() };
        if body.is_error() {
            reading.summary.error = Some(ErrorBody::from_json(json).unwrap_or_default());
        }
        let mut shape = Shape::new(json, form);
        let open = shape.place(text_of_object).start + 1;
        shape.body(&body, open, defaults);
        if form.is_chunk() && body.choices.value().is_none() {
            shape.no_choices(&body, open);
        }
        // The choices that have tool calls or a finish reason, and their tool calls.
        let mut deltas = Vec::new();
        for (place, choice) in choices.iter().enumerate() {
            let message = choice.message(form)?;
            let list = message.as_ref().and_then(|message| message.tool_calls.value());
            if form == Form::ChatChunk && (list.is_some() || choice.finish_reason.value().is_some()) {
                deltas.push((choice.number(place), choice, list.unwrap_or_default()));
            }
            if !reading.summary.read_choice(choice, place, message.as_ref(), text) {
                return Err(NotAnObject);
            }
            shape.choice(choice, place, message.as_ref(), calls);
        }
        let told = shape.usages(&body, &choices, open);
        // Gateways in front of Anthropic keep its tier in the usage.
        let tier = if body.service_tier.value().is_some() { body.service_tier } else { told.tier };
        reading.stream_fields = body.stream_fields(defaults, &tier);
        if let Some(now) = reading.stream_fields.as_ref().filter(|_| form.is_chat()) {
            reading.summary.calls = ToolCalls::of_model(&defaults.served, &now.served);
        }
        reading.has_usage_object = told.is_there;
        reading.summary.usage = told.reported;
        reading.usage_place = told.place;
        if !deltas.is_empty() {
            let is_only = choices.len() == 1;
            reading.tell_calls(calls, &deltas, is_only.then_some(text_of_object), &mut shape, defaults);
        }
        reading.splices = shape.splices;
        Ok(reading)
    }
}

impl ChunkSummary {
    /// Returns whether its tool calls are plausible.
    fn read_choice(
        &mut self,
        choice: &Choice<'_>,
        place: usize,
        message: Option<&Message<'_>>,
        text: &mut Estimator,
    ) -> bool {
        let mut plausible = true;
        let bit = 1_u64 << choice.number(place).min(63);
        self.seen |= bit;
        match Finish::of(&choice.finish_reason) {
            Finish::None => {}
            Finish::OpenAi | Finish::Vendor(_) => self.finished |= bit,
            Finish::Broken => {
                let word = choice.finish_reason.text().unwrap_or_default();
                self.error = Some(ErrorBody {
                    code: "overloaded".to_owned(),
                    kind: "server_error".to_owned(),
                    message: format!("the provider stopped with {word}"),
                    ..ErrorBody::default()
                });
            }
        }
        self.content |= written::add(&choice.text, text);
        if let Some(message) = message {
            let [first, others @ ..] = message.texts();
            self.content |= written::add(first, text);
            for value in others {
                self.content |= written::add(value, text);
            }
            for call in message.tool_calls.elements() {
                let is_good = |call: &Call<'_>| {
                    !call.function.is_filled() || call.function.0.is_some_and(|raw| raw.starts_with('{'))
                };
                let call = Call::plausible(call).filter(is_good);
                let function =
                    call.and_then(|call| Function::plausible(call.function.value().unwrap_or_default()));
                plausible &= function.is_some();
                let function = function.unwrap_or_default();
                text.add(function.name.inner());
                text.add(function.arguments.inner());
                if let Some(custom) = call.and_then(|call| call.custom.value()) {
                    written::add_call(custom, text);
                }
            }
            self.content |= message.tool_calls.is_filled();
            if message.function_call.is_filled() || message.audio.is_filled() {
                self.content = true;
                written::add_call(message.function_call.value().unwrap_or_default(), text);
                written::add_audio(&message.audio, text);
            }
        }
        plausible
    }
}

raw_object! {
    struct Body {
        id: "id",
        object: "object",
        created: "created",
        model: "model",
        choices: "choices",
        usage: "usage",
        x_groq: "x_groq",
        system_fingerprint: "system_fingerprint",
        service_tier: "service_tier",
        error: "error",
        message: "message",
        detail: "detail",
    }
}

impl<'a> Body<'a> {
    /// The choices. Null or a missing field is an empty list; any other value that is not a list of objects is an error.
    fn choices(&self) -> Result<Vec<Choice<'a>>, NotAnObject> {
        let list = self.choices.value().unwrap_or("[]");
        let elements = json::elements(list).ok_or(NotAnObject)?;
        if elements.iter().any(|element| !element.starts_with('{')) {
            return Err(NotAnObject);
        }
        elements.into_iter().map(|element| Choice::plausible(element).ok_or(NotAnObject)).collect()
    }

    /// `created` in whole seconds, and whether it says just that: vendors also send a fraction, a power of ten, a text with a number, or
    /// milliseconds and less. `None` if it is no number.
    fn created(&self) -> Option<(u64, bool)> {
        /// In seconds this is the year 5138, in milliseconds a day in 1973.
        const MOST_SECONDS: u64 = 100_000_000_000;
        let text = self.created.word().map_or(self.created.0, |text| Some(text.trim_ascii()));
        let mut seconds = match text?.parse() {
            Ok(whole) => whole,
            // More than a `u64` holds becomes the largest one.
            Err(_) => serde_json::from_str::<f64>(text?).ok().filter(|number| *number >= 0.0)? as u64,
        };
        let is_exact = seconds < MOST_SECONDS;
        while seconds >= MOST_SECONDS {
            seconds /= 1000;
        }
        Some((seconds, is_exact))
    }

    fn has_choices(&self) -> bool {
        self.choices.is_filled()
    }

    /// The defaults for the later chunks of a stream, because all chunks must have the same `id`, `created` and `model`.
    fn stream_fields(&self, defaults: &Defaults, tier: &Raw<'_>) -> Option<Box<Defaults>> {
        // Only short texts are repeated in every later chunk. Otherwise a provider could fill the gateway's memory.
        let usable = |text: &Cow<'_, str>| !text.is_empty() && text.len() <= MAX_REPEATED_LEN;
        let id = self.id.text().filter(|id| usable(id) && *id != defaults.id);
        let model = self.model.text().filter(|model| usable(model) && *model != defaults.model);
        let created =
            self.created().map(|(seconds, _)| seconds).filter(|created| *created != defaults.created);
        let told = if model.is_none() && defaults.served.model.is_some() { Raw(None) } else { self.model };
        let served = newly_served(&defaults.served, &told, tier);
        if id.is_none() && model.is_none() && created.is_none() && served.is_none() {
            return None;
        }
        Some(Box::new(Defaults {
            id: id.map_or_else(|| defaults.id.clone(), Cow::into_owned),
            created: created.unwrap_or(defaults.created),
            model: model.map_or_else(|| defaults.model.clone(), Cow::into_owned),
            input: std::rc::Rc::clone(&defaults.input),
            served: served.unwrap_or_else(|| defaults.served.clone()),
        }))
    }

    /// Whether it is an error: one in the field `error`, vLLM's `{"object": "error"}`, or a `message` or `detail` without choices.
    fn is_error(&self) -> bool {
        (self.error.is_filled() && self.error.value().is_some_and(ErrorBody::is_reported))
            || self.object.word() == Some("error")
            || (!self.has_choices() && (self.message.is_filled() || self.detail.is_filled()))
    }
}

raw_object! {
    struct Choice {
        index: "index",
        delta: "delta",
        message: "message",
        text: "text",
        finish_reason: "finish_reason",
        usage: "usage",
        logprobs: "logprobs",
    }
}

impl<'a> Choice<'a> {
    /// Its `index`; if that is not a number, its position in the list.
    fn number(&self, place: usize) -> usize {
        self.index.value().and_then(|raw| raw.parse().ok()).unwrap_or(place)
    }

    /// The message or, in a chunk, the delta.
    fn message(&self, form: Form) -> Result<Option<Message<'a>>, NotAnObject> {
        // In a chunk only the delta counts: MiniMax repeats the whole message in its last chunk.
        let raw = if form.is_chunk() { self.delta } else { self.message };
        let is_lost = |raw: &Raw<'_>| raw.is_filled() && raw.word().is_none();
        match raw.value().filter(|raw| raw.starts_with('{')) {
            Some(raw) => Message::plausible(raw).filter(Message::has_types).map(Some).ok_or(NotAnObject),
            // What is filled and of another kind would be dropped, and a part of the answer with it.
            None if raw.is_filled() || (!form.is_chat() && is_lost(&self.text)) => Err(NotAnObject),
            None => Ok(None),
        }
    }
}

raw_object! {
    struct Message {
        role: "role",
        content: "content",
        reasoning_content: "reasoning_content",
        /// The name that OpenRouter and some vLLM servers use for it.
        reasoning: "reasoning",
        /// The names of some relays for it.
        reasoning_text: "reasoning_text",
        thinking: "thinking",
        /// OpenRouter's list of thoughts, which may be encrypted.
        reasoning_details: "reasoning_details",
        tool_calls: "tool_calls",
        /// The predecessor of `tool_calls`.
        function_call: "function_call",
        refusal: "refusal",
        audio: "audio",
    }
}

impl<'a> Message<'a> {
    /// The fields with text.
    fn texts(&self) -> [&Raw<'a>; 3] {
        let reasoning = self.reasoning();
        [&self.content, reasoning, &self.refusal]
    }

    /// The field with the thoughts: the first that has some.
    fn reasoning(&self) -> &Raw<'a> {
        let names = [&self.reasoning_content, &self.reasoning, &self.reasoning_text, &self.thinking];
        names.into_iter().find(|raw| raw.is_filled()).unwrap_or(&self.reasoning_details)
    }
}

raw_object! {
    /// One element of `tool_calls`.
    struct Call {
        index: "index",
        id: "id",
        kind: "type",
        function: "function",
        custom: "custom",
    }
}

raw_object! {
    struct Function {
        name: "name",
        arguments: "arguments",
    }
}

#[cfg(test)]
mod tests;
