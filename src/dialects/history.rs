//! Makes the history of a conversation fit for the vendor that is asked next, where another vendor's model made a part of it: thoughts
//! under their many names, Google's `extra_content`, and the ids of tool calls.
//!
//! The messages are walked where they stand, and only what must change is spliced.

use std::borrow::Cow;
use std::ops::Range;

use super::dialect::ExtraContent;
use crate::base::store::fingerprint;
use crate::bytes::json::{elements, fields, members, place, quoted, Raw};
use crate::bytes::splice::Splices;

/// The names under which vendors, gateways and client libraries put a model's thoughts, and what belongs to them: beside the content of
/// a message, in a tool call or in its function, and as the type of a part of a content.
const THOUGHTS: [&str; 16] = [
    // DeepSeek, and what Shunt fills from the others; then OpenRouter, vLLM, Groq, Cerebras.
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "reasoning_details",
    // Models and gateways with names of their own.
    "reasoning_items",
    "reasoning_signature",
    "reasoning_opaque",
    "thinking",
    "redacted_thinking",
    "thinking_blocks",
    "thinking_signature",
    "thought",
    "thoughts",
    "thought_signature",
    "thought_signatures",
    // LiteLLM puts signatures into it.
    "provider_specific_fields",
];

/// The field in which Google's vendors put what OpenAI's schema has no name for.
const EXTRA_CONTENT: &str = "extra_content";

/// What stands in the place of a signature beside a call that another model made. Google documents these words: they skip the check.
const UNSIGNED: &str = r#"{"google":{"thought_signature":"skip_thought_signature_validator"}}"#;

/// A limit on the memory for changes, above what real conversations need. What stands behind it stays as it is.
const MOST_CHANGES: usize = 16_384;

/// Which ids of tool calls a vendor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallIds {
    /// Letters and digits, exactly this many.
    Exactly(usize),
    /// Any characters, but not more than this many.
    AtMost(usize),
    /// Letters, digits, underscores and hyphens.
    Words,
}

impl CallIds {
    /// Whether the vendor takes an id as it is.
    fn take(self, id: &str) -> bool {
        match self {
            Self::Exactly(length) => {
                id.len() == length && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            }
            Self::AtMost(most) => (1..=most).contains(&id.len()),
            Self::Words => !id.is_empty() && id.chars().all(is_wordy),
        }
    }

    /// An id that the vendor takes in place of `old`. Each `attempt` gives another one; `turn` counts the uses of the id.
    fn instead_of(self, old: &str, turn: u64, attempt: u64) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let length = match self {
            Self::Exactly(length) => length,
            Self::AtMost(most) => most.min(24),
            // Whoever reads it should recognise it.
            Self::Words if turn == 0 && attempt == 0 && !old.is_empty() => {
                return old.chars().map(|letter| if is_wordy(letter) { letter } else { '_' }).collect();
            }
            Self::Words => 24,
        };
        let mut state = fingerprint([old])
            ^ turn.wrapping_mul(0xd1b5_4a32_d192_ed03)
            ^ attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let digit = |_| {
            // Knuth's generator. Its high bits are the good ones.
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            DIGITS.get(((state >> 33) % 62) as usize).map(|digit| char::from(*digit))
        };
        (0..length).filter_map(digit).collect()
    }
}

fn is_wordy(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')
}

/// What a vendor needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Thoughts are removed.
    pub(super) drops_thoughts: bool,
    /// What happens to `extra_content`.
    pub(super) extra_content: ExtraContent,
    /// The ids of tool calls that it takes, if not all.
    pub(super) ids: Option<CallIds>,
}

impl Rules {
    fn drops(&self, name: &[u8]) -> bool {
        (self.drops_thoughts && is_thought(name))
            || (self.extra_content == ExtraContent::Drop && name == EXTRA_CONTENT.as_bytes())
    }
}

impl Rules {
    /// Only the ids of tool calls are changed.
    const fn ids(ids: CallIds) -> Self {
        Self { drops_thoughts: false, extra_content: ExtraContent::Keep, ids: Some(ids) }
    }
}

/// The messages with ids of tool calls that are [`CallIds::Words`].
pub(super) fn with_words_as_ids(messages: &str) -> Cow<'_, str> {
    let mut splices = Splices::default();
    adapt(messages, 0, Rules::ids(CallIds::Words), &mut splices);
    let new = if splices.is_empty() { None } else { splices.apply(messages.as_bytes()) };
    let new = new.and_then(|new| String::from_utf8(new).ok());
    new.map_or(Cow::Borrowed(messages), Cow::Owned)
}

/// Adds the changes that a vendor needs in `messages`, a list in valid JSON that stands at `start` in the body.
pub(super) fn adapt(messages: &str, start: usize, rules: Rules, splices: &mut Splices) {
    let mut history = History { text: messages, start, rules, changes: 0, read: 0, ids: Vec::new(), splices };
    for message in elements(messages).unwrap_or_default() {
        history.message(message);
        history.read = history.read.saturating_add(1);
    }
    history.rewrite_ids();
}

/// A field of an object: its name, its place in the object, and its value.
type Field<'a> = (&'a [u8], Range<usize>, &'a str);

/// The fields of an object. Never inlined: the copies would be the largest part of this code.
#[inline(never)]
fn fields_of(object: &str) -> Vec<Field<'_>> {
    members(object).collect()
}

struct History<'a, 'b> {
    text: &'a str,
    start: usize,
    rules: Rules,
    /// The number of changes so far.
    changes: usize,
    /// The number of messages so far.
    read: usize,
    /// The ids of calls and of their results.
    ids: Vec<Id<'a>>,
    splices: &'b mut Splices,
}

/// An id of a tool call.
struct Id<'a> {
    place: Range<usize>,
    id: Cow<'a, str>,
    /// The number of the message in which it makes a call; `None` in a result.
    called_in: Option<usize>,
}

impl<'a> History<'a, '_> {
    fn message(&mut self, message: &'a str) {
        let mut parts = Vec::new();
        for (name, at, value) in fields_of(message) {
            match name {
                b"tool_calls" => {
                    let calls = elements(value).unwrap_or_default();
                    calls.into_iter().enumerate().for_each(|(number, call)| self.call(call, number == 0));
                }
                b"tool_call_id" => self.note_id(value, None),
                b"content" if self.rules.drops_thoughts => self.content(value),
                _ => {}
            }
            parts.push((at, self.rules.drops(name)));
        }
        self.prune(message, &parts);
    }

    /// One tool call. Google's signature stands beside the first call of a message.
    fn call(&mut self, call: &'a str, is_first: bool) {
        let mut parts = Vec::new();
        let mut unsigned = is_first && self.rules.extra_content == ExtraContent::Needed;
        for (name, at, value) in fields_of(call) {
            match name {
                b"id" => self.note_id(value, Some(self.read)),
                b"function" => {
                    let inner = fields_of(value).into_iter();
                    let inner: Vec<_> = inner.map(|(name, at, _)| (at, self.rules.drops(name))).collect();
                    self.prune(value, &inner);
                }
                b"extra_content" if unsigned => {
                    unsigned = false;
                    if !is_signed(value) {
                        self.change(place(self.text.as_bytes(), value), UNSIGNED);
                    }
                }
                _ => {}
            }
            parts.push((at, self.rules.drops(name)));
        }
        if unsigned && call.starts_with('{') {
            let stays = parts.iter().any(|(_, removed)| !removed);
            let field = ["\"", EXTRA_CONTENT, "\":", UNSIGNED, if stays { "," } else { "" }].concat();
            let at = place(self.text.as_bytes(), call).start.saturating_add(1);
            self.change(at..at, &field);
        }
        self.prune(call, &parts);
    }

    /// The content of a message: the parts of a list that are thoughts are removed. If nothing else is in it, it becomes an empty text,
    /// because vendors refuse an empty list.
    fn content(&mut self, content: &'a str) {
        let is_thought = |part: &&str| {
            let [kind] = fields(part, &["type"]);
            kind.word().is_some_and(|kind| is_thought(kind.as_bytes()))
        };
        let Some(parts) = elements(content) else { return };
        let text = content.as_bytes();
        let parts: Vec<_> = parts.iter().map(|part| (place(text, part), is_thought(part))).collect();
        if !parts.is_empty() && parts.iter().all(|(_, removed)| *removed) {
            self.change(place(self.text.as_bytes(), content), "\"\"");
        } else {
            self.prune(content, &parts);
        }
    }

    /// Removes fields of an object, or elements of a list, each with one comma: the one before it or, if nothing that stays comes before
    /// it, the one after it. `parts` are the places of all of them in `whole`, and whether they are removed.
    fn prune(&mut self, whole: &str, parts: &[(Range<usize>, bool)]) {
        let at = place(self.text.as_bytes(), whole).start;
        let mut parts = parts.iter().peekable();
        // The end of the part before this one, if one before it stays.
        let mut before = None;
        while let Some((part, removed)) = parts.next() {
            if *removed {
                let next = parts.peek().map_or(part.end, |(next, _)| next.start);
                let gone = before.map_or(part.start..next, |before| before..part.end);
                self.change(gone.start.saturating_add(at)..gone.end.saturating_add(at), "");
            }
            before = if *removed && before.is_none() { None } else { Some(part.end) };
        }
    }

    fn note_id(&mut self, value: &'a str, called_in: Option<usize>) {
        if self.rules.ids.is_some() && self.ids.len() < MOST_CHANGES {
            if let Some(id) = Raw(Some(value)).text() {
                self.ids.push(Id { place: place(self.text.as_bytes(), value), id, called_in });
            }
        }
    }

    /// Gives each id that the vendor does not take another one: the same for a call and its result, and the same in the next request of
    /// the conversation. Two ids never become one. An id that a later call has again (some vendors count from 0 in each answer) is
    /// another one there.
    fn rewrite_ids(&mut self) {
        let Some(rule) = self.rules.ids else { return };
        let ids = std::mem::take(&mut self.ids);
        // By the new id: the old one that it stands for, and the number of its call.
        let mut owners = Table::new(ids.len());
        for known in ids.iter().filter(|known| rule.take(&known.id)) {
            let id = fingerprint([&*known.id]);
            owners.entry(id, [id, 0, 0]);
        }
        // By the old id: how often it was used.
        let mut uses = Table::new(ids.len());
        for Id { place, id, called_in } in &ids {
            let old = fingerprint([&**id]);
            let turn = uses.entry(old, [0; 3]).map_or(0, |uses| turn(uses, *called_in));
            if turn == 0 && rule.take(id) {
                continue;
            }
            for attempt in 0..=ids.len() as u64 {
                let new = rule.instead_of(id, turn, attempt);
                let owner = [old, turn, 0];
                if owners.entry(fingerprint([new.as_str()]), owner).is_some_and(|found| *found == owner) {
                    self.change(place.clone(), &quoted(&new));
                    break;
                }
            }
        }
    }

    fn change(&mut self, place: Range<usize>, text: &str) {
        if self.changes < MOST_CHANGES {
            self.changes += 1;
            let moved = place.start.saturating_add(self.start)..place.end.saturating_add(self.start);
            self.splices.add(moved, text);
        }
    }
}

/// Whether a field with this name, or a part of a content with this type, is a thought.
#[inline(never)]
pub(super) fn is_thought(name: &[u8]) -> bool {
    THOUGHTS.iter().any(|thought| thought.as_bytes() == name)
}

/// Whether `extra_content` has a signature of Google's.
fn is_signed(extra_content: &str) -> bool {
    let [google] = fields(extra_content, &["google"]);
    let [signature] = fields(google.value().unwrap_or_default(), &["thought_signature"]);
    signature.is_filled()
}

/// The number of the call that has an id at its next use, or whose result does, from 0. `uses` are how often calls and results had it so
/// far, and the message of the last call; `called_in` is the message of a call.
fn turn(uses: &mut [u64; 3], called_in: Option<usize>) -> u64 {
    let [calls, results, message] = uses;
    let count = if let Some(called_in) = called_in.map(|number| number.saturating_add(1) as u64) {
        if *message != called_in {
            // Earlier calls that have no result so far get none any more.
            *results = *calls;
            *message = called_in;
        }
        *calls = calls.saturating_add(1);
        calls
    } else {
        *results = results.saturating_add(1).min(*calls);
        results
    };
    count.saturating_sub(1)
}

/// A table by hashes. One of `hashbrown` would cost several kilobytes of code.
struct Table(Vec<Option<(u64, [u64; 3])>>);

impl Table {
    /// A table for this many entries, and for as many attempts to find another key.
    fn new(entries: usize) -> Self {
        Self(vec![None; entries.saturating_mul(3).saturating_add(1)])
    }

    /// The value of a key, which is entered if it is new; `None` if the table is full.
    #[inline(never)]
    fn entry(&mut self, key: u64, new: [u64; 3]) -> Option<&mut [u64; 3]> {
        let first = usize::try_from(key % self.0.len().max(1) as u64).unwrap_or_default();
        let (before, behind) = self.0.split_at_mut_checked(first)?;
        let is_it = |slot: &&mut Option<(u64, _)>| slot.is_none_or(|(known, _)| known == key);
        let slot = match behind.iter_mut().find(is_it) {
            Some(slot) => slot,
            None => before.iter_mut().find(is_it)?,
        };
        Some(&mut slot.get_or_insert((key, new)).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    const NOTHING: Rules = Rules { drops_thoughts: false, extra_content: ExtraContent::Keep, ids: None };
    const THOUGHTLESS: Rules = Rules { drops_thoughts: true, ..NOTHING };
    const PLAIN: Rules = Rules { extra_content: ExtraContent::Drop, ..NOTHING };
    const SIGNED: Rules = Rules { extra_content: ExtraContent::Needed, ..NOTHING };
    const NINE: Rules = Rules { ids: Some(CallIds::Exactly(9)), ..NOTHING };

    /// The messages as the vendor gets them, in the text that they come in. They stand somewhere within the body.
    fn adapted_text(messages: &str, rules: Rules) -> String {
        let mut splices = Splices::default();
        adapt(messages, 3, rules, &mut splices);
        let new = String::from_utf8(splices.apply(["...", messages].concat().as_bytes()).unwrap()).unwrap();
        let new = new.strip_prefix("...").unwrap().to_owned();
        assert!(serde_json::from_str::<Value>(&new).is_ok(), "{new}");
        new
    }

    fn adapted(messages: &Value, rules: Rules) -> Value {
        serde_json::from_str(&adapted_text(&messages.to_string(), rules)).unwrap()
    }

    fn call(id: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "now", "arguments": "{\"thoughts\":1}"}})
    }

    fn with(mut value: Value, name: &str, field: Value) -> Value {
        value[name] = field;
        value
    }

    // Thoughts.

    #[test]
    fn thoughts_are_removed_under_every_name_that_they_have() {
        let plain = json!({"role": "assistant", "content": "c", "tool_calls": [call("1"), call("2")]});
        for name in THOUGHTS {
            for thought in
                [json!("t"), json!(null), json!([{"type": "reasoning.text", "text": "t"}]), json!({"a": {}})]
            {
                let mut message = with(plain.clone(), name, thought.clone());
                message["tool_calls"][0][name] = thought.clone();
                message["tool_calls"][1]["function"][name] = thought;
                let question = json!({"role": "user", "content": name});
                assert_eq!(
                    adapted(&json!([question, message]), THOUGHTLESS),
                    json!([question, plain]),
                    "{name}"
                );
                assert_eq!(adapted(&json!([message]), PLAIN), json!([message]), "nobody asked for that");
            }
        }
    }

    #[test]
    fn what_shunt_itself_hands_out_beside_a_content_is_removed() {
        let answer = json!({
            "role": "assistant", "content": "c", "refusal": null,
            "reasoning": "r", "reasoning_content": "r", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
            "reasoning_text": "r", "thinking": "r",
        });
        let plain = json!([{"role": "assistant", "content": "c", "refusal": null}]);
        assert_eq!(adapted(&json!([answer]), THOUGHTLESS), plain);
    }

    #[test]
    fn thoughts_are_removed_from_the_parts_of_a_content() {
        let text = json!({"type": "text", "text": "thinking"});
        for kind in ["thinking", "redacted_thinking", "reasoning", "reasoning_text", "thought"] {
            let thought =
                json!({"type": kind, "thinking": [{"type": "text", "text": "t"}], "signature": "s"});
            for (content, expected) in [
                (json!([thought, text]), json!([text])),
                (json!([text, thought]), json!([text])),
                (json!([thought, text, thought, thought, text, thought]), json!([text, text])),
                (json!([thought]), json!("")),
                (json!([thought, thought]), json!("")),
                (json!([]), json!([])),
                (json!("thinking"), json!("thinking")),
                (json!(null), json!(null)),
            ] {
                let messages = json!([{"role": "assistant", "content": content, "thinking": "t"}]);
                let expected = json!([{"role": "assistant", "content": expected}]);
                assert_eq!(adapted(&messages, THOUGHTLESS), expected, "{messages}");
            }
        }
    }

    #[test]
    fn removing_fields_leaves_valid_json_and_the_rest_byte_for_byte() {
        for (text, expected) in [
            (r#"[{"reasoning_content":"r"}]"#, "[{}]"),
            (r#"[{"reasoning_content":"r" , "a":1}]"#, r#"[{"a":1}]"#),
            (r#"[{"a":1,"reasoning_content":"r"}]"#, r#"[{"a":1}]"#),
            (r#"[{"a":1 , "reasoning_content":"r" ,"b":2}]"#, r#"[{"a":1 ,"b":2}]"#),
            (r#"[{"reasoning_content":1,"reasoning":{"x":[]},"b":2}]"#, r#"[{"b":2}]"#),
            (r#"[{"a":1,"reasoning_content":1,"reasoning_content":2}]"#, r#"[{"a":1}]"#),
            (r#"[{"thinking":1,"reasoning_content":2}]"#, "[{}]"),
            (r#"[{"thinking":1,"a":0,"thoughts":2 , "b":{}, "reasoning":3}]"#, r#"[{"a":0 , "b":{}}]"#),
            (r#"[{"x":{"reasoning_content":1}}]"#, r#"[{"x":{"reasoning_content":1}}]"#),
            (r#"[ "a", 1, [{"reasoning":1}], {"reasoning":1} ]"#, r#"[ "a", 1, [{"reasoning":1}], {} ]"#),
            (r#""a prompt""#, r#""a prompt""#),
            (
                r#"[{"content":[{"type":"thinking"} , {"type":"text"}]}]"#,
                r#"[{"content":[{"type":"text"}]}]"#,
            ),
        ] {
            assert_eq!(adapted_text(text, THOUGHTLESS), expected);
        }
    }

    // Google's extra content.

    const SIGNATURE: &str = "CrICAdHtim827fQ";

    fn extra(signature: &str) -> Value {
        json!({"google": {"thought_signature": signature}})
    }

    #[test]
    fn extra_content_is_removed_from_messages_and_calls() {
        let plain = json!([{"role": "assistant", "content": "c", "tool_calls": [call("1"), call("2")]}]);
        let mut signed = plain.clone();
        signed[0]["extra_content"] = extra(SIGNATURE);
        signed[0]["tool_calls"][0]["extra_content"] = extra(SIGNATURE);
        assert_eq!(adapted(&signed, PLAIN), plain);
        assert_eq!(adapted(&signed, THOUGHTLESS), signed);
        assert_eq!(adapted(&signed, SIGNED), signed, "a signature that is there is kept");
    }

    #[test]
    fn the_first_call_of_each_message_is_signed_if_it_is_not() {
        let skipped = extra("skip_thought_signature_validator");
        let assistant = |calls: &[Value]| json!({"role": "assistant", "content": null, "tool_calls": calls});
        let bare = call("1");
        let signed = |by: &Value| with(call("1"), "extra_content", by.clone());
        for (calls, expected) in [
            (vec![bare.clone()], vec![signed(&skipped)]),
            (vec![bare.clone(), call("2")], vec![signed(&skipped), call("2")]),
            (vec![signed(&extra(SIGNATURE)), call("2")], vec![signed(&extra(SIGNATURE)), call("2")]),
            // An extra content without a signature is none.
            (vec![signed(&json!(null))], vec![signed(&skipped)]),
            (vec![signed(&json!({}))], vec![signed(&skipped)]),
            (vec![signed(&json!({"google": null}))], vec![signed(&skipped)]),
            (vec![signed(&json!({"google": {"thought": true}}))], vec![signed(&skipped)]),
            (vec![signed(&extra(""))], vec![signed(&skipped)]),
            (vec![json!({})], vec![json!({"extra_content": skipped})]),
            (vec![], vec![]),
        ] {
            let user = json!({"role": "user", "content": "u"});
            let result = json!({"role": "tool", "tool_call_id": "1", "content": "r"});
            let messages = json!([user, assistant(&calls), result, assistant(&calls), result]);
            let expected = json!([user, assistant(&expected), result, assistant(&expected), result]);
            assert_eq!(adapted(&messages, SIGNED), expected, "{messages}");
        }
        // Beside a field that is removed at the same place.
        let rules = Rules { drops_thoughts: true, ..SIGNED };
        let messages =
            r#"[{"tool_calls":[{"thought_signature":"x"}]},{"tool_calls":[{"thoughts":1,"id":"a"}]}]"#;
        let expected = json!([{"tool_calls": [{"extra_content": skipped}]}, {"tool_calls": [{"extra_content": skipped, "id": "a"}]}]);
        assert_eq!(serde_json::from_str::<Value>(&adapted_text(messages, rules)).unwrap(), expected);
    }

    // Ids of calls.

    fn ids(messages: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for message in messages.as_array().unwrap() {
            found.extend(message["tool_call_id"].as_str().map(str::to_owned));
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                found.extend(call["id"].as_str().map(str::to_owned));
            }
        }
        found
    }

    fn conversation(ids: &[&str]) -> Value {
        let mut messages = Vec::new();
        for id in ids {
            messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call(id)]}));
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": "call_1"}));
        }
        Value::Array(messages)
    }

    #[test]
    fn a_call_and_its_result_get_one_id_that_the_vendor_takes() {
        let old = [
            "call_9d2f",
            "toolu_01A",
            "functions.search:0",
            "call_0",
            "12345678",
            "1234567890",
            "abcdefg-i",
            "",
            "ünïcödé",
        ];
        let messages = conversation(&old);
        let new = ids(&adapted(&messages, NINE));
        assert_eq!(new.len(), old.len() * 2);
        for pair in new.chunks(2) {
            assert_eq!(pair[0], pair[1]);
            assert!(
                pair[0].len() == 9 && pair[0].bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{}",
                pair[0]
            );
        }
        let distinct: std::collections::HashSet<_> = new.iter().collect();
        assert_eq!(distinct.len(), old.len());
        // The next request of the conversation has the same ids.
        let longer = conversation(&[&old[..], &["call_more"]].concat());
        assert_eq!(ids(&adapted(&longer, NINE))[..new.len()], new);
        // Nothing else changes.
        assert_eq!(adapted(&messages, NINE)[1]["content"], "call_1");
    }

    #[test]
    fn an_id_that_fits_is_kept_and_never_given_to_another_call() {
        let fit = ["D681PevKs", "abcdefghi", "012345678"];
        assert_eq!(adapted(&conversation(&fit), NINE), conversation(&fit));
        // The id that the other call would get is taken already, behind it and before it.
        let wanted = CallIds::Exactly(9).instead_of("call_1", 0, 0);
        for old in [["call_1", &wanted], [&wanted, "call_1"]] {
            let new = ids(&adapted(&conversation(&old), NINE));
            let at = old.iter().position(|id| *id == wanted).unwrap() * 2;
            assert_eq!((new[at].as_str(), new[at + 1].as_str()), (wanted.as_str(), wanted.as_str()));
            let other = (at + 2) % 4;
            assert_eq!(new[other], new[other + 1]);
            assert_ne!(new[other], wanted);
            assert_eq!(new[other], CallIds::Exactly(9).instead_of("call_1", 0, 1));
        }
    }

    #[test]
    fn a_thousand_ids_stay_apart_even_where_there_are_few() {
        let old: Vec<String> = (0..1000).map(|number| format!("call_{number}")).collect();
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        for length in [9, 2, 64] {
            let rules = Rules { ids: Some(CallIds::Exactly(length)), ..NOTHING };
            let new = ids(&adapted(&conversation(&old), rules));
            assert!(new.chunks(2).all(|pair| pair[0] == pair[1] && pair[0].len() == length));
            assert_eq!(new.iter().collect::<std::collections::HashSet<_>>().len(), 1000, "{length}");
        }
    }

    #[test]
    fn an_id_that_a_later_call_has_again_is_another_one_there() {
        for (id, rule) in [
            ("call_0", CallIds::Exactly(9)),
            ("D681PevKs", CallIds::Exactly(9)),
            ("call_0", CallIds::Words),
            ("functions.now:0", CallIds::Words),
            ("call_0", CallIds::AtMost(40)),
        ] {
            let new = ids(&adapted(&conversation(&[id, "other", id, id]), Rules::ids(rule)));
            assert!(new.chunks(2).all(|pair| pair[0] == pair[1]), "{new:?}");
            assert_eq!(new.iter().collect::<std::collections::HashSet<_>>().len(), 4, "{new:?}");
            assert_eq!(new[0] == id, rule.take(id), "the first one keeps its id if it can");
            assert!(new.iter().all(|id| rule.take(id)), "{new:?}");
        }
        // Two calls of one message have one id, and two results; a call that was broken off has none.
        let twice = json!({"role": "assistant", "tool_calls": [call("a"), call("a")]});
        let result = json!({"role": "tool", "tool_call_id": "a"});
        let once = json!({"role": "assistant", "tool_calls": [call("a")]});
        let new = ids(&adapted(
            &json!([twice, result, result, once, once, result, result]),
            Rules::ids(CallIds::Words),
        ));
        assert_eq!(new[..2], new[2..4]);
        assert_ne!(new[0], new[1]);
        assert_eq!((&new[5], &new[5]), (&new[6], &new[7]));
        assert_eq!(new.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        // A result without a call is nobody's.
        assert_eq!(ids(&adapted(&json!([result, result]), Rules::ids(CallIds::Words))), ["a", "a"]);
    }

    #[test]
    fn an_id_that_is_written_with_escapes_is_the_same_id() {
        let text = r#"[{"tool_calls":[{"id":"call\u005f1"}]},{"tool_call_id":"call_1"},{"tool_call_id":null},{"tool_call_id":7}]"#;
        let new: Value = serde_json::from_str(&adapted_text(text, NINE)).unwrap();
        assert_eq!(new[0]["tool_calls"][0]["id"], new[1]["tool_call_id"]);
        assert_eq!((&new[2]["tool_call_id"], &new[3]["tool_call_id"]), (&json!(null), &json!(7)));
    }

    #[test]
    fn a_vendor_may_have_a_longest_id_instead() {
        let long = "call_0123456789abcdef__thought__CrICAdHtim827fQCrICAdHtim827fQ";
        let rules = Rules { ids: Some(CallIds::AtMost(40)), ..NOTHING };
        let new = ids(&adapted(&conversation(&["call_1", long, "functions.now:0"]), rules));
        assert_eq!((new[0].as_str(), new[4].as_str()), ("call_1", "functions.now:0"));
        assert!(new[2] == new[3] && new[2].len() <= 40 && !new[2].is_empty());
    }

    #[test]
    fn reading_truncated_messages_ends_and_stays_within_the_text() {
        let rules = Rules { drops_thoughts: true, extra_content: ExtraContent::Needed, ids: NINE.ids };
        let call = r#"{"id":"a","thoughts":1,"function":{"reasoning":2},"extra_content":{"google":{}}}"#;
        let text = [
            r#"[{"content":[{"type":"thinking"}],"reasoning":"r","tool_calls":["#,
            call,
            ",",
            call,
            r#"],"tool_call_id":"a"}]"#,
        ]
        .concat();
        for end in 0..text.len() {
            let mut splices = Splices::default();
            adapt(text.get(..end).unwrap(), 0, rules, &mut splices);
            assert!(splices.prefix_len() <= end + 1, "{end}");
        }
    }
}
