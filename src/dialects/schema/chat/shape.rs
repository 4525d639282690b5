//! The changes that make an answer follow OpenAI's schema: required fields are added, wrong types and values are replaced.
//!
//! Each rule looks at one field and adds a change only if the field does not follow the schema. Fields that the schema does not
//! contain are kept.

use std::ops::Range;

use super::super::Defaults;
use super::piece::{substance, Piece};
use super::{Body, Call, Calls, Choice, Form, Function, Message};
use crate::bytes::ascii;
use crate::bytes::json::{self, elements, fields, lossy, members, quoted, Raw};
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
            // Some vendors write null as a text.
            None | Some("" | "null") => Self::None,
            Some(word) if OPENAI_REASONS.contains(&word) => Self::OpenAi,
            Some(word) if BROKEN_REASONS.iter().any(|broken| ascii::is_same(word, broken)) => Self::Broken,
            Some(word) => {
                let same = |other: &str| ascii::is_same(word, other);
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
    /// The chunk tells the role of a choice for the first time.
    pub(super) tells_role: bool,
}

impl<'a> Shape<'a> {
    /// No changes.
    pub(super) fn new(base: &'a [u8], form: Form) -> Self {
        Self { base, form, splices: Splices::default(), tells_role: false }
    }
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

    /// Drops those items of a list, or fields of an object, that are marked. Whatever is inserted where a dropped item begins or ends
    /// must be inserted before.
    pub(super) fn drop_items(&mut self, items: &[(Range<usize>, bool)]) {
        // Where the items that stay, and those that are dropped behind them, end.
        let mut done = None;
        for (number, (place, drops)) in items.iter().enumerate() {
            if *drops {
                // One comma goes with each item: the one before it, or the one behind it if nothing before it stays.
                let next = items.get(number + 1).map(|(next, _)| next.start);
                let range = match (done, next) {
                    (Some(before), _) => before..place.end,
                    (None, Some(next)) => place.start..next,
                    (None, None) => place.clone(),
                };
                self.splices.add(range, "");
            }
            if !drops || done.is_some() {
                done = Some(place.end);
            }
        }
    }

    /// Drops the fields of an object that have one of these names.
    fn drop_fields(&mut self, object: &str, names: &[&str]) {
        let start = self.place(object).start;
        let field = |(name, place, _): (&[u8], Range<usize>, _)| {
            let drops = names.iter().any(|other| other.as_bytes() == name);
            (start + place.start..start + place.end, drops)
        };
        let items: Vec<_> = members(object).map(field).collect();
        self.drop_items(&items);
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
        let created = body.created();
        let is_whole = body.created.is_whole() && created.is_some_and(|(_, is_exact)| is_exact);
        require(&body.created, "created", is_whole, &|| {
            created.map_or(defaults.created, |(seconds, _)| seconds).to_string()
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
        calls: &mut Calls,
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
        if !self.form.is_chunk() && choice.logprobs.0.is_none() {
            self.set(&choice.logprobs, "logprobs", "null", at);
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
                self.message(message, text, choice.number(place), calls);
            }
            _ if self.form.is_chunk() => self.set(raw, "delta", "{}", at),
            _ => self.set(raw, "message", r#"{"role":"assistant","content":null,"refusal":null}"#, at),
        }
    }

    /// Repairs the message or delta `object`. `number` is that of its choice, and `calls` are the tool calls of the answer so far.
    fn message(&mut self, message: &Message<'_>, object: &str, number: usize, calls: &mut Calls) {
        let open = self.place(object).start + 1;
        let empty = object.get(1..).is_none_or(|rest| rest.trim_start().starts_with('}'));
        let repeats_role = self.form.is_chunk() && message.role.value().is_some() && {
            let was_told = calls.tell_role(number);
            self.tells_role |= !was_told;
            was_told
        };
        let mut missing: Vec<String> = Vec::new();
        let role = message.role.word();
        let whole = !self.form.is_chunk();
        match (role, message.role.0) {
            _ if repeats_role => {}
            (Some("assistant" | "tool"), _) | (None, None) if !whole => {}
            (Some("assistant"), _) => {}
            (_, Some(_)) if !whole && message.role.value().is_none() => {}
            (_, Some(_)) => self.replace(&message.role, "\"assistant\""),
            (_, None) => missing.push("\"role\":\"assistant\"".to_owned()),
        }
        if message.content.0.is_none() && whole {
            missing.push("\"content\":null".to_owned());
        }
        if message.refusal.0.is_none() && whole {
            missing.push("\"refusal\":null".to_owned());
        }
        let is_text = |raw: &&str| raw.starts_with('"');
        let mut reasoning = (!message.reasoning_content.is_filled())
            .then(|| message.reasoning().value().filter(is_text))
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
        if whole && message.tool_calls.is_filled() {
            self.whole_calls(&message.tool_calls.elements(), calls);
        }
        if !missing.is_empty() {
            let mut text = missing.join(",");
            if !empty {
                text.push(',');
            }
            self.splices.insert(open, text);
        }
        if repeats_role {
            // Some clients join the roles of all deltas.
            self.drop_fields(object, &["role"]);
        }
    }

    /// Repairs the tool calls of one choice in a whole answer.
    fn whole_calls(&mut self, list: &[&str], calls: &mut Calls) {
        let list: Vec<_> = list.iter().map(|raw| Piece::read(raw)).collect();
        let own: Vec<_> = list.iter().map(|call| call.id).collect();
        let ids = calls.ids_in_place_of(&own);
        for (place, (call, id)) in list.iter().zip(&ids).enumerate() {
            // A number becomes text.
            let number = Some(call.id).filter(|_| call.call.id.word().is_none());
            self.call(&call.call, &call.function, place, id.as_deref().or(number));
        }
    }

    /// Repairs one whole tool call, or the first piece of one in a stream. `place` is its place among those of its choice, and `id` the
    /// id that it gets in place of its own.
    pub(super) fn call(&mut self, call: &Call<'_>, function: &Function<'_>, place: usize, id: Option<&str>) {
        let (arguments, is_whole) = (&function.arguments, !self.form.is_chunk());
        match (arguments.value(), arguments.word()) {
            (_, Some(text)) if !is_whole || !substance(text).is_empty() => {}
            // Clients read the text as JSON, and nothing is no JSON.
            (None, _) | (_, Some(_)) => {
                if let Some(name) = function.name.0 {
                    let at = self.place(name).end;
                    self.set(arguments, "arguments", if is_whole { "\"{}\"" } else { "\"\"" }, at);
                }
            }
            // The schema wants the JSON of the arguments inside a string.
            (Some(value), None) => self.replace(arguments, quoted(value)),
        }
        // Missing fields are inserted after an existing one.
        let fields = [&call.index, &call.id, &call.kind, &call.function, &call.custom];
        let Some(at) = fields.iter().find_map(|raw| raw.0).map(|raw| self.place(raw).end) else { return };
        if !is_whole {
            self.index(&call.index, place, at);
        }
        if let Some(id) = id {
            self.set(&call.id, "id", &quoted(id), at);
        }
        if !matches!(call.kind.word(), Some("function" | "custom")) {
            self.set(&call.kind, "type", "\"function\"", at);
        }
    }

    /// Sets the index of a tool call, if it has another one.
    fn index(&mut self, index: &Raw<'_>, place: usize, at: usize) {
        let place = place.to_string();
        if index.0 != Some(place.as_str()) {
            self.set(index, "index", &place, at);
        }
    }

    /// Repairs a piece of a tool call whose first piece the client has: it only adds to the arguments. Returns whether anything of it
    /// is left.
    pub(super) fn later_piece(&mut self, piece: &Piece<'_>, place: usize) -> bool {
        let (call, body) = (&piece.call, piece.body().value());
        let names = [&call.id, &call.kind, &piece.name_field];
        if piece.index == Some(place as u64)
            && piece.text.word().is_some()
            && names.iter().all(|raw| raw.0.is_none())
        {
            return true;
        }
        let repeats = call.id.0.is_some() || call.kind.0.is_some() || !piece.name.is_empty();
        let says_more = body.is_some() && (!piece.arguments.is_empty() || !repeats);
        // Some vendors send what only they have in a piece of its own.
        if !says_more && piece.others().iter().all(String::is_empty) {
            return false;
        }
        let at = body.map_or(self.place(piece.raw).end - 1, |body| self.place(body).end);
        self.index(&call.index, place, at);
        if piece.text.0.is_some() && piece.text.word().is_none() {
            self.replace(&piece.text, ["\"", &piece.arguments, "\""].concat());
        }
        self.drop_fields(piece.raw, &["id", "type"]);
        if let Some(body) = body {
            self.drop_fields(body, &["name"]);
        }
        true
    }
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
