//! The changes that make an answer follow OpenAI's schema: required fields are added, wrong types and values are replaced.
//!
//! Each rule looks at one field and adds a change only if the field does not follow the schema. Fields that the schema does not
//! contain are kept.

use std::ops::Range;

use super::super::Defaults;
use super::{Body, Call, Choice, Form, Function, Message};
use crate::bytes::json::{self, elements, fields, lossy, quoted, Raw};
use crate::bytes::splice::Splices;

/// A finish reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// There is none yet.
    None,
    /// One of OpenAI's values.
    OpenAi,
    /// A vendor's value; the text is OpenAI's value for it.
    Vendor(&'static str),
    /// The answer broke off before it was finished.
    Broken,
}

/// OpenAI's finish reasons.
const OPENAI_REASONS: [&str; 5] = ["stop", "length", "tool_calls", "content_filter", "function_call"];
/// Finish reasons of vendors, in lower case, and OpenAI's value for each.
const VENDOR_REASONS: [(&str, &str); 13] = [
    // Anthropic, and gateways in front of it.
    ("max_tokens", "length"),
    ("tool_use", "tool_calls"),
    // Mistral, Cohere, Hugging Face.
    ("model_length", "length"),
    ("max_length", "length"),
    ("error_limit", "length"),
    ("error_toxic", "content_filter"),
    ("tool_call", "tool_calls"),
    // Gemini, Zhipu, Azure's legacy interface.
    ("safety", "content_filter"),
    ("recitation", "content_filter"),
    ("prohibited_content", "content_filter"),
    ("blocklist", "content_filter"),
    ("sensitive", "content_filter"),
    ("content-filter", "content_filter"),
];
/// Finish reasons of answers that broke off, because DeepSeek had no capacity left or OpenRouter and others met an error.
const BROKEN_REASONS: [&str; 4] = ["insufficient_system_resource", "error", "network_error", "abort"];

impl Finish {
    /// Reads a finish reason. An unknown value counts as `stop`.
    pub(super) fn of(raw: &Raw<'_>) -> Self {
        match raw.word() {
            None | Some("") => Self::None,
            Some(word) if OPENAI_REASONS.contains(&word) => Self::OpenAi,
            Some(word) if BROKEN_REASONS.iter().any(|broken| word.eq_ignore_ascii_case(broken)) => {
                Self::Broken
            }
            Some(word) => {
                let same = |other: &str| word.eq_ignore_ascii_case(other);
                let openai = OPENAI_REASONS.into_iter().find(|reason| same(reason));
                let vendor = VENDOR_REASONS.iter().find(|(theirs, _)| same(theirs)).map(|(_, ours)| *ours);
                Self::Vendor(openai.or(vendor).unwrap_or("stop"))
            }
        }
    }
}

/// Collects the changes of one body.
pub(super) struct Shape<'a> {
    pub(super) base: &'a [u8],
    pub(super) form: Form,
    pub(super) splices: Splices,
}

impl Shape<'_> {
    /// The range of a value. The value borrows from `base`, so its position is the distance between the two.
    pub(super) fn place(&self, raw: &str) -> Range<usize> {
        json::place(self.base, raw)
    }

    fn replace(&mut self, raw: &Raw<'_>, text: impl Into<String>) {
        if let Some(old) = raw.0 {
            self.splices.add(self.place(old), text);
        }
    }

    /// Replaces the value of a field or, if it is missing, inserts the field at `at`.
    fn set(&mut self, raw: &Raw<'_>, name: &str, value: &str, at: usize) {
        match raw.0 {
            Some(old) => self.splices.add(self.place(old), value),
            None => self.splices.insert(at, [",\"", name, "\":", value].concat()),
        }
    }

    /// Repairs the fields beside the choices. `open` is the position after the opening brace.
    pub(super) fn body(&mut self, body: &Body<'_>, open: usize, defaults: &Defaults) {
        let object = self.form.object();
        let mut missing = String::new();
        let mut require = |raw: &Raw<'_>, name: &str, is_valid: bool, value: &dyn Fn() -> String| {
            if is_valid {
                return;
            }
            match raw.0 {
                Some(old) => self.splices.add(self.place(old), value()),
                None => missing.extend(["\"", name, "\":", &value(), ","]),
            }
        };
        let filled = |raw: &Raw<'_>| raw.word().is_some_and(|word| !word.is_empty());
        require(&body.id, "id", filled(&body.id), &|| match body.id.is_whole() {
            true => quoted(body.id.0.unwrap_or_default()),
            false => quoted(&defaults.id),
        });
        require(&body.object, "object", body.object.word() == Some(object), &|| quoted(object));
        require(&body.created, "created", body.created.is_whole(), &|| {
            // The provider's time is kept if it has a fraction or is a string.
            let text = body.created.word().or(body.created.0).unwrap_or_default();
            let whole = text.split('.').next().unwrap_or_default();
            let seconds: u64 = whole.parse().unwrap_or(defaults.created);
            seconds.to_string()
        });
        require(&body.model, "model", filled(&body.model), &|| quoted(&defaults.model));
        if !self.form.is_chunk() && !body.has_choices() {
            // An error or an empty body is not completed into an answer.
            return;
        }
        if !missing.is_empty() {
            self.splices.insert(open, missing);
        }
        if body.system_fingerprint.value().is_some() && body.system_fingerprint.word().is_none() {
            self.replace(&body.system_fingerprint, "null");
        }
        const TIERS: [&str; 5] = ["auto", "default", "flex", "scale", "priority"];
        if body.service_tier.value().is_some()
            && !body.service_tier.word().is_some_and(|tier| TIERS.contains(&tier))
        {
            self.replace(&body.service_tier, "null");
        }
    }

    /// Adds an empty list to a chunk without a list of choices: some vendors send null in the chunk with the usage.
    pub(super) fn no_choices(&mut self, body: &Body<'_>, open: usize) {
        match body.choices.0 {
            Some(old) => self.splices.add(self.place(old), "[]"),
            None => self.splices.insert(open, "\"choices\":[],"),
        }
    }

    /// Repairs one choice; `place` is its position in the list.
    pub(super) fn choice(
        &mut self,
        choice: &Choice<'_>,
        place: usize,
        message: Option<&Message<'_>>,
        calls: &mut usize,
    ) {
        let fields = [&choice.index, &choice.message, &choice.delta, &choice.text, &choice.finish_reason];
        // Missing fields are inserted after an existing one. A choice without any of these fields is not repaired.
        let Some(at) = fields.iter().find_map(|raw| raw.0).map(|raw| self.place(raw).end) else { return };
        if !choice.index.is_whole() {
            self.set(&choice.index, "index", &place.to_string(), at);
        }
        let finish = match Finish::of(&choice.finish_reason) {
            Finish::OpenAi | Finish::Broken => None,
            Finish::Vendor(word) => Some(quoted(word)),
            Finish::None if !self.form.is_chunk() => {
                let calls = message.is_some_and(|message| message.tool_calls.is_filled());
                Some(quoted(if calls { "tool_calls" } else { "stop" }))
            }
            Finish::None if choice.finish_reason.0 == Some("null") => None,
            Finish::None => Some("null".to_owned()),
        };
        if let Some(finish) = finish {
            self.set(&choice.finish_reason, "finish_reason", &finish, at);
        }
        if !self.form.is_chat() {
            if choice.text.word().is_none() {
                self.set(&choice.text, "text", "\"\"", at);
            }
            return;
        }
        let raw = if self.form.is_chunk() { &choice.delta } else { &choice.message };
        match (message, raw.value()) {
            (Some(message), Some(text)) => {
                let open = self.place(text).start + 1;
                let empty = text.get(1..).is_none_or(|rest| rest.trim_start().starts_with('}'));
                self.message(message, open, empty, calls);
            }
            _ if self.form.is_chunk() => self.set(raw, "delta", "{}", at),
            _ => self.set(raw, "message", r#"{"role":"assistant","content":null}"#, at),
        }
    }

    /// Repairs a message or delta. `open` is the position after its opening brace, `empty` says that it has no fields, and
    /// `calls` counts the tool calls of its choice.
    fn message(&mut self, message: &Message<'_>, open: usize, empty: bool, calls: &mut usize) {
        let mut missing: Vec<String> = Vec::new();
        let role = message.role.word();
        let whole = !self.form.is_chunk();
        match (role, message.role.0) {
            (Some("assistant" | "tool"), _) | (None, None) if !whole => {}
            (Some("assistant"), _) => {}
            (_, Some(_)) if !whole && message.role.value().is_none() => {}
            (_, Some(_)) => self.replace(&message.role, "\"assistant\""),
            (_, None) => missing.push("\"role\":\"assistant\"".to_owned()),
        }
        if message.content.0.is_none() && whole {
            missing.push("\"content\":null".to_owned());
        }
        let mut reasoning = (!message.reasoning_content.is_filled())
            .then(|| message.reasoning.value().filter(|raw| raw.starts_with('"')))
            .flatten()
            .map(str::to_owned);
        if let Some(parts) = message.content.value().filter(|raw| raw.starts_with('[')) {
            // Mistral's reasoning models send the content as a list of parts.
            let (text, thinking) = text_of_parts(parts);
            self.replace(&message.content, quoted(&text));
            if !thinking.is_empty() {
                reasoning = reasoning.or_else(|| Some(quoted(&thinking)));
            }
        }
        if let Some(reasoning) = reasoning {
            match message.reasoning_content.0 {
                Some(_) => self.replace(&message.reasoning_content, reasoning),
                None => missing.push(["\"reasoning_content\":", &reasoning].concat()),
            }
        }
        for call in message.tool_calls.elements() {
            let call = Call::read(call);
            let function = Function::read(call.function.value().unwrap_or_default());
            // Gemini sends each call in one chunk and without an index, so a call with a name counts as a new one.
            if function.name.is_filled() {
                *calls += 1;
            }
            self.call(&call, &function, calls.saturating_sub(1));
        }
        if missing.is_empty() {
            return;
        }
        let mut text = missing.join(",");
        if !empty {
            text.push(',');
        }
        self.splices.insert(open, text);
    }

    /// Repairs one tool call; `place` is its position among those that its choice has begun.
    fn call(&mut self, call: &Call<'_>, function: &Function<'_>, mut place: usize) {
        let whole = !self.form.is_chunk();
        let (name, arguments) = (&function.name, &function.arguments);
        match arguments.value() {
            Some(value) if value.starts_with('"') => {}
            // The schema wants the JSON of the arguments inside a string.
            Some(value) => self.replace(arguments, quoted(value)),
            None if whole || arguments.0.is_some() => {
                if let Some(name) = name.0 {
                    let at = self.place(name).end;
                    self.set(arguments, "arguments", if whole { "\"{}\"" } else { "\"\"" }, at);
                }
            }
            None => {}
        }
        // Missing fields are inserted after an existing one.
        let fields = [&call.index, &call.id, &call.kind, &call.function];
        let Some(at) = fields.iter().find_map(|raw| raw.0).map(|raw| self.place(raw).end) else { return };
        if !whole {
            match call.index.0.filter(|_| call.index.is_whole()).and_then(|raw| raw.parse().ok()) {
                Some(index) => place = index,
                None => self.set(&call.index, "index", &place.to_string(), at),
            }
            if !name.is_filled() {
                // A later piece of a call whose first piece had the id.
                return;
            }
        }
        if call.id.word().is_none_or(str::is_empty) {
            self.set(&call.id, "id", &quoted(&call_id(place)), at);
        }
        if !matches!(call.kind.word(), Some("function" | "custom")) {
            self.set(&call.kind, "type", "\"function\"", at);
        }
    }
}

/// The id of a tool call to which its provider gave none. The client sends it back with the tool's result.
fn call_id(place: usize) -> String {
    format!("call_{place}")
}

/// The text and the reasoning of a content that is a list of parts.
fn text_of_parts(raw: &str) -> (String, String) {
    // They are joined as they are escaped, because a letter may be torn apart between two of them.
    let (mut content, mut reasoning) = (String::new(), String::new());
    for part in elements(raw).unwrap_or_default() {
        let [text, thinking] = fields(part, &["text", "thinking"]);
        content.push_str(text.word().unwrap_or_default());
        reasoning.push_str(thinking.word().unwrap_or_default());
        for part in thinking.elements() {
            let [text] = fields(part, &["text"]);
            reasoning.push_str(text.word().unwrap_or_default());
        }
    }
    (lossy(&content), lossy(&reasoning))
}
