//! Items of the Responses API that only the account that made them can read: reasoning, which is encrypted for that account or stored
//! there. Another account refuses a request that has them, so they are removed from what it is sent.

use std::ops::Range;

use crate::base::store::fingerprint;
use crate::bytes::json::{elements, fields, place, quoted, Raw};
use crate::bytes::splice::Splices;

/// The type of an item with a model's thoughts.
const REASONING: &str = "reasoning";

/// The type of an item that stands for a stored one, and the prefix of the id of a stored reasoning.
const REFERENCE: (&str, &str) = ("item_reference", "rs_");

/// The prefixes of ids of items that the API takes with any id.
const NAMED: [&str; 3] = ["msg_", "fc_", "ctc_"];

/// A limit on the memory for items, above what real conversations have. Items beyond it stay as they are.
const MOST_ITEMS: usize = 16_384;

/// How much of the end of an encrypted text tells it from others.
const COMPARED: usize = 64;

/// The fingerprint of a reasoning item, by which its maker is remembered; 0 if nothing tells it from others. Clients send it back with
/// its encrypted text and perhaps without its id, or, if it is stored, with its id alone.
pub fn mark(item: &str) -> u64 {
    let [kind, id, encrypted] = fields(item, &["type", "id", "encrypted_content"]);
    if kind.word() == Some(REASONING) {
        mark_of(id, encrypted)
    } else {
        0
    }
}

fn mark_of(id: Raw<'_>, encrypted: Raw<'_>) -> u64 {
    let text = encrypted.text().filter(|text| !text.is_empty());
    let Some(text) = text else {
        return id.text().filter(|id| !id.is_empty()).map_or(0, |id| fingerprint([&*id]));
    };
    let end = text.get(text.len().saturating_sub(COMPARED)..);
    fingerprint([end.unwrap_or(&text)])
}

/// The private items of a request's `input`, in their order.
#[derive(Clone, Debug, Default)]
pub struct PrivateItems {
    private: Vec<Private>,
    /// The ids of other items, each with what takes its place.
    named: Vec<(Range<usize>, String)>,
}

#[derive(Clone, Debug)]
struct Private {
    mark: u64,
    /// How many of the client's items stand before it.
    answer: usize,
    /// How many items stand before it.
    number: usize,
    /// Its place in the body.
    place: Range<usize>,
    /// The end of the item before it.
    before: usize,
    /// The start of the item after it.
    next: Option<usize>,
}

impl PrivateItems {
    /// Reads an `input` in valid JSON that stands at `start` in the body.
    pub fn read(input: &str, start: usize) -> Self {
        let mut found = Self::default();
        let items = elements(input).unwrap_or_default();
        let at = |raw: &str| {
            let place = place(input.as_bytes(), raw);
            place.start.saturating_add(start)..place.end.saturating_add(start)
        };
        let (mut before, mut answer) = (0, 0_usize);
        for (number, item) in items.iter().enumerate() {
            let [kind, id, encrypted, content, role] =
                fields(item, &["type", "id", "encrypted_content", "content", "role"]);
            // What the client says or returns stands between two answers.
            let is_clients = role.word().is_some_and(|role| role != "assistant")
                || kind.word().is_some_and(|kind| kind.ends_with("_output"));
            answer = answer.saturating_add(usize::from(is_clients));
            let is_reference = kind.word() == Some(REFERENCE.0);
            let mark = match kind.word() {
                // Whoever gets thoughts that are neither encrypted nor stored can read them.
                Some(REASONING) if encrypted.is_filled() || !content.is_filled() => mark_of(id, encrypted),
                _ if is_reference && id.word().is_some_and(|id| id.starts_with(REFERENCE.1)) => {
                    mark_of(id, Raw(None))
                }
                _ => 0,
            };
            let place = at(item);
            if mark != 0 && found.private.len() < MOST_ITEMS {
                let next = items.get(number.saturating_add(1)).map(|next| at(next).start);
                found.private.push(Private { mark, answer, number, place: place.clone(), before, next });
            } else if let Some(word) = id.word().filter(|_| !is_reference && found.named.len() < MOST_ITEMS) {
                if let Some(prefix) = NAMED.iter().find(|prefix| word.starts_with(**prefix)) {
                    let new = quoted(&[prefix, fingerprint([word]).to_string().as_str()].concat());
                    found.named.push((at(id.0.unwrap_or_default()), new));
                }
            }
            before = place.end;
        }
        if found.private.is_empty() {
            found.named = Vec::new();
        }
        found
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.private.is_empty()
    }

    /// The places, among the private items, of those that the same answer has as the item at one place.
    pub fn same_answer(&self, place: usize) -> Range<usize> {
        let Some(item) = self.private.get(place) else { return 0..0 };
        // The answers are in their order.
        let start = self.private.partition_point(|other| other.answer < item.answer);
        start..self.private.partition_point(|other| other.answer <= item.answer)
    }

    /// The [marks](mark) of the items.
    pub fn marks(&self) -> impl Iterator<Item = u64> + '_ {
        self.private.iter().map(|item| item.mark)
    }

    /// Adds the removal of the items that an account cannot read. `readable` says for each item, in their order, whether it can. If any
    /// is removed, messages and calls get other ids: OpenAI remembers that a reasoning belongs before them, and refuses them without it.
    pub fn splices(&self, readable: impl Iterator<Item = bool>, splices: &mut Splices) {
        let mut removed = 0;
        for (item, readable) in self.private.iter().zip(readable) {
            if readable {
                continue;
            }
            // With one comma: the one before it or, if no item that stays comes before it, the one after it.
            let place = if removed == item.number {
                item.place.start..item.next.unwrap_or(item.place.end)
            } else {
                item.before..item.place.end
            };
            splices.add(place, "");
            removed = removed.saturating_add(1);
        }
        if removed > 0 {
            for (place, new) in &self.named {
                splices.add(place.clone(), new.as_str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    fn reasoning(id: &str, encrypted: &str) -> Value {
        json!({"type": "reasoning", "id": id, "summary": [], "encrypted_content": encrypted})
    }

    fn without(input: &Value, readable: &[bool]) -> Value {
        let text = input.to_string();
        let items = PrivateItems::read(&text, 2);
        assert_eq!(items.marks().count(), readable.len(), "{text}");
        let mut splices = Splices::default();
        items.splices(readable.iter().copied(), &mut splices);
        let new = splices.apply(["  ", &text].concat().as_bytes()).unwrap();
        serde_json::from_slice(&new).unwrap()
    }

    #[test]
    fn what_an_account_cannot_read_is_removed_wherever_it_stands() {
        let (one, two) = (reasoning("rs_1", "gAAAA1"), reasoning("rs_2", "gAAAA2"));
        let user = json!({"role": "user", "content": "rs_1"});
        for (input, readable, expected) in [
            (json!([user, one, two]), vec![false, false], json!([user])),
            (json!([one, user, two]), vec![false, false], json!([user])),
            (json!([one, two, user]), vec![false, false], json!([user])),
            (json!([one, two]), vec![false, false], json!([])),
            (json!([one, two, user]), vec![true, false], json!([one, user])),
            (json!([one, two, user]), vec![false, true], json!([two, user])),
            (json!([user, one, user, two, user]), vec![false, true], json!([user, user, two, user])),
            (json!([user, one, two]), vec![true, true], json!([user, one, two])),
            (json!([user]), vec![], json!([user])),
            (json!("rs_1"), vec![], json!("rs_1")),
            (json!([1, "a", [one]]), vec![], json!([1, "a", [one]])),
        ] {
            assert_eq!(without(&input, &readable), expected, "{input} {readable:?}");
        }
    }

    #[test]
    fn reasoning_is_private_if_it_is_encrypted_or_stored() {
        let said = json!([{"type": "reasoning_text", "text": "Hm."}]);
        for (item, private) in [
            (reasoning("rs_1", "gAAAA"), true),
            (json!({"type": "reasoning", "encrypted_content": "gAAAA", "summary": []}), true),
            (
                json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}),
                true,
            ),
            (json!({"type": "reasoning", "id": "rs_1", "encrypted_content": null}), true),
            (json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAA", "content": said}), true),
            (json!({"type": "item_reference", "id": "rs_1"}), true),
            // What everybody can read, or what there is nothing of.
            (json!({"type": "reasoning", "id": "rs_1", "content": said}), false),
            (json!({"type": "reasoning", "summary": []}), false),
            (json!({"type": "item_reference", "id": "msg_1"}), false),
            (json!({"type": "message", "id": "msg_1", "content": "gAAAA"}), false),
            (json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}), false),
        ] {
            let text = json!([item]).to_string();
            assert_eq!(PrivateItems::read(&text, 0).marks().count(), usize::from(private), "{item}");
        }
    }

    #[test]
    fn an_item_is_known_by_its_encrypted_text_or_else_by_its_id() {
        let (text, other) = ("gAAAA".repeat(100), "gAAAA".repeat(99) + "gAAAB");
        let made = mark(&reasoning("rs_1", &text).to_string());
        assert_ne!(made, 0);
        for (item, same) in [
            (reasoning("rs_2", &text), true),
            (json!({"encrypted_content": text, "type": "reasoning"}), true),
            (reasoning("rs_1", &other), false),
            (reasoning("rs_1", ""), false),
            (json!({"type": "reasoning", "id": "rs_1"}), false),
        ] {
            let text = json!([item]).to_string();
            assert_eq!(PrivateItems::read(&text, 0).marks().collect::<Vec<_>>() == [made], same, "{item}");
        }
        let bare = mark(r#"{"type":"reasoning","id":"rs_1","summary":[]}"#);
        assert_eq!(
            PrivateItems::read(r#"[{"type":"item_reference","id":"rs_1"}]"#, 0).marks().next(),
            Some(bare)
        );
        assert_eq!(mark(r#"{"type":"message","id":"msg_1"}"#), 0);
    }

    #[test]
    fn what_belonged_to_a_removed_reasoning_gets_another_id() {
        let call = |id: &str| json!({"type": "function_call", "id": id, "call_id": "call_1", "name": "f", "arguments": "{}"});
        let result =
            json!({"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "fc_1"});
        let input = json!([reasoning("rs_1", "g"), call("fc_1"), result, {"type": "message", "id": "msg_1", "role": "assistant", "content": []}]);
        assert_eq!(without(&input, &[true]), input);
        let moved = without(&input, &[false]);
        let new = moved[0]["id"].as_str().unwrap();
        assert!(new.starts_with("fc_") && new != "fc_1" && new.len() <= 64);
        assert_eq!(moved[0], call(new), "the call itself keeps its `call_id`");
        assert_eq!(moved[1], result);
        assert!(moved[2]["id"].as_str().unwrap().starts_with("msg_") && moved[2]["id"] != "msg_1");
        let bare = json!([call("fc_1"), result]);
        assert_eq!(without(&bare, &[]), bare);
    }

    #[test]
    fn reading_a_truncated_input_ends_and_stays_within_the_text() {
        let text =
            json!([reasoning("rs_1", "g"), {"type": "message", "id": "msg_1"}, reasoning("rs_2", "g")])
                .to_string();
        for end in 0..text.len() {
            let items = PrivateItems::read(text.get(..end).unwrap(), 0);
            let mut splices = Splices::default();
            items.splices(std::iter::repeat(false), &mut splices);
            assert!(splices.prefix_len() <= end + 1);
        }
    }
}
