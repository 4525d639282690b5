//! What makes an answer OpenAI's: the fields that its schema requires, in the types and words that it allows.
//!
//! Each rule looks at one field and adds a change only if the field is not as it should be. What OpenAI's schema does not
//! know stays.

use std::ops::Range;

use super::super::Defaults;
use super::{Body, Call, Choice, Form, Function, Message};
use crate::bytes::json::{self, elements, fields, quoted, Raw};
use crate::bytes::splice::Splices;

/// A finish reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// None yet.
    None,
    /// One of OpenAI's words.
    Known,
    /// A vendor's word, with OpenAI's for it.
    Named(&'static str),
    /// The answer ended without being finished.
    Broken,
}

/// OpenAI's words.
const KNOWN: [&str; 5] = ["stop", "length", "tool_calls", "content_filter", "function_call"];
/// Words of vendors, in lower case, and OpenAI's for them.
const NAMED: [(&str, &str); 13] = [
    // Anthropic's, also sent by bridges to it.
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
/// Words for an answer that broke off: DeepSeek ran out of machines, OpenRouter and others met an error.
const BROKEN: [&str; 4] = ["insufficient_system_resource", "error", "network_error", "abort"];

impl Finish {
    /// Reads a finish reason. A word that nobody has told of ends an answer like any other.
    pub(super) fn of(raw: &Raw<'_>) -> Self {
        match raw.word() {
            None | Some("") => Self::None,
            Some(word) if KNOWN.contains(&word) => Self::Known,
            Some(word) if BROKEN.iter().any(|broken| word.eq_ignore_ascii_case(broken)) => Self::Broken,
            Some(word) => {
                let same = |known: &str| word.eq_ignore_ascii_case(known);
                let known = KNOWN.into_iter().find(|known| same(known));
                let named = NAMED.iter().find(|(theirs, _)| same(theirs)).map(|(_, ours)| *ours);
                Self::Named(known.or(named).unwrap_or("stop"))
            }
        }
    }
}

/// Collects what must change in one body.
pub(super) struct Shape<'a> {
    pub(super) base: &'a [u8],
    pub(super) form: Form,
    pub(super) splices: Splices,
}

impl Shape<'_> {
    /// Where a value stands. It borrows from the base, so its place is the distance between the two.
    pub(super) fn place(&self, raw: &str) -> Range<usize> {
        json::place(self.base, raw)
    }

    fn replace(&mut self, raw: &Raw<'_>, text: impl Into<String>) {
        if let Some(old) = raw.0 {
            self.splices.add(self.place(old), text);
        }
    }

    /// Replaces the value of a field, or puts the field behind `at`.
    fn set(&mut self, raw: &Raw<'_>, name: &str, value: &str, at: usize) {
        match raw.0 {
            Some(old) => self.splices.add(self.place(old), value),
            None => self.splices.insert(at, [",\"", name, "\":", value].concat()),
        }
    }

    /// The fields beside the choices. `open` is the place behind the opening brace.
    pub(super) fn body(&mut self, body: &Body<'_>, open: usize, defaults: &Defaults) {
        let object = self.form.object();
        let mut missing = String::new();
        let mut require = |raw: &Raw<'_>, name: &str, good: bool, value: &dyn Fn() -> String| {
            if good {
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
            // A time with a fraction, or as text, is still the provider's.
            let text = body.created.word().or(body.created.0).unwrap_or_default();
            let whole = text.split('.').next().unwrap_or_default();
            let seconds: u64 = whole.parse().unwrap_or(defaults.created);
            seconds.to_string()
        });
        require(&body.model, "model", filled(&body.model), &|| quoted(&defaults.model));
        if !self.form.is_chunk() && !body.has_choices() {
            // An error, or nothing: not an answer to be completed.
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

    /// A chunk without a list of choices, such as the usage of a vendor that writes null there: it gets an empty one.
    pub(super) fn no_choices(&mut self, body: &Body<'_>, open: usize) {
        match body.choices.0 {
            Some(old) => self.splices.add(self.place(old), "[]"),
            None => self.splices.insert(open, "\"choices\":[],"),
        }
    }

    /// One choice; `place` is its place in the list.
    pub(super) fn choice(
        &mut self,
        choice: &Choice<'_>,
        place: usize,
        message: Option<&Message<'_>>,
        calls: &mut usize,
    ) {
        let fields = [&choice.index, &choice.message, &choice.delta, &choice.text, &choice.finish_reason];
        // Behind any field that is known; a choice without one says nothing.
        let Some(at) = fields.iter().find_map(|raw| raw.0).map(|raw| self.place(raw).end) else { return };
        if !choice.index.is_whole() {
            self.set(&choice.index, "index", &place.to_string(), at);
        }
        let finish = match Finish::of(&choice.finish_reason) {
            Finish::Known | Finish::Broken => None,
            Finish::Named(word) => Some(quoted(word)),
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
                let open = self.place(text).start.saturating_add(1);
                let empty = text.get(1..).is_none_or(|rest| rest.trim_start().starts_with('}'));
                self.message(message, open, empty, calls);
            }
            _ if self.form.is_chunk() => self.set(raw, "delta", "{}", at),
            _ => self.set(raw, "message", r#"{"role":"assistant","content":null}"#, at),
        }
    }

    /// A message or delta; `open` is the place behind its opening brace.
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
            // Mistral's reasoning models answer with parts.
            let (said, thought) = parts_of(parts);
            self.replace(&message.content, quoted(&said));
            if !thought.is_empty() {
                reasoning = reasoning.or_else(|| Some(quoted(&thought)));
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
            // Gemini sends whole calls without an index, one in a chunk: a call that has a name is a new one.
            if function.name.is_filled() {
                *calls = calls.saturating_add(1);
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

    /// One call of a tool; `place` is its place among those that have begun.
    fn call(&mut self, call: &Call<'_>, function: &Function<'_>, mut place: usize) {
        let whole = !self.form.is_chunk();
        let (name, arguments) = (&function.name, &function.arguments);
        match arguments.value() {
            Some(value) if value.starts_with('"') => {}
            // The arguments are JSON in a string.
            Some(value) => self.replace(arguments, quoted(value)),
            None if whole || arguments.0.is_some() => {
                if let Some(name) = name.0 {
                    let at = self.place(name).end;
                    self.set(arguments, "arguments", if whole { "\"{}\"" } else { "\"\"" }, at);
                }
            }
            None => {}
        }
        // Behind any field that is known.
        let fields = [&call.index, &call.id, &call.kind, &call.function];
        let Some(at) = fields.iter().find_map(|raw| raw.0).map(|raw| self.place(raw).end) else { return };
        if !whole {
            match call.index.0.filter(|_| call.index.is_whole()).and_then(|raw| raw.parse().ok()) {
                Some(index) => place = index,
                None => self.set(&call.index, "index", &place.to_string(), at),
            }
            if !name.is_filled() {
                // More of a call that has its id.
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

/// The id of a call to which its provider gave none: the client sends it back with the tool's result.
fn call_id(place: usize) -> String {
    format!("call_{place}")
}

/// The text and the thoughts of a content that is a list of parts.
fn parts_of(raw: &str) -> (String, String) {
    let (mut said, mut thought) = (String::new(), String::new());
    for part in elements(raw).unwrap_or_default() {
        let [text, thinking] = fields(part, &["text", "thinking"]);
        said.push_str(&text.text().unwrap_or_default());
        thought.push_str(&thinking.text().unwrap_or_default());
        for part in thinking.elements() {
            let [text] = fields(part, &["text"]);
            thought.push_str(&text.text().unwrap_or_default());
        }
    }
    (said, thought)
}
