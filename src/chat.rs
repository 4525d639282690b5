//! What a chat answer holds, read without building a tree: content, a finish reason, or an error.
//!
//! One reader serves whole answers and the chunks of a stream, since both are an object with `choices`. Vendors add
//! fields and leave others out, so everything is optional and unknown fields are skipped.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::outcome::ErrorBody;

/// What one body or chunk said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// A choice has a non-empty `content`, `reasoning_content`, `tool_calls`, `refusal` or `audio`.
    pub content: bool,
    /// The choices seen, as a bit per `index` (0 to 63).
    pub seen: u64,
    /// The choices that have a finish reason, as bits.
    pub finished: u64,
    /// An error in place of, or beside, an answer.
    pub error: Option<ErrorBody>,
}

/// Text that is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

/// DeepSeek ends a choice with this word when it ran out of machines in the middle: the answer is not finished.
const NOT_A_FINISH: &str = "insufficient_system_resource";

impl Glance {
    /// Reads a whole answer or one chunk.
    ///
    /// # Errors
    /// [`NotAnObject`] if the bytes are not one complete JSON object.
    pub fn read(json: &[u8]) -> Result<Self, NotAnObject> {
        // A derived reader would take a list of the fields, too.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(NotAnObject);
        }
        let mut body: Body<'_> = serde_json::from_slice(json).map_err(|_| NotAnObject)?;
        let mut glance = std::mem::take(&mut body.choices.0);
        let broken = body.error.is_some_and(|error| error.get() != "null") || body.is_error();
        if broken {
            glance.error = Some(ErrorBody::from_json(json).unwrap_or_default());
        }
        Ok(glance)
    }

    /// Adds what a later chunk said.
    pub fn add(&mut self, later: Self) {
        self.content |= later.content;
        self.seen |= later.seen;
        self.finished |= later.finished;
        if self.error.is_none() {
            self.error = later.error;
        }
    }

    /// Whether an answer has begun: some content, or a finish without any.
    pub fn has_begun(&self) -> bool {
        self.content || self.finished != 0
    }

    /// Whether every choice that was seen has a finish reason.
    pub fn is_finished(&self) -> bool {
        self.seen != 0 && self.seen == self.finished
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    choices: Choices,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    object: Word,
    #[serde(default)]
    message: Filled,
    #[serde(default)]
    detail: Filled,
}

impl Body<'_> {
    /// The forms without an `error` key: vLLM's `{"object": "error"}`, a bare `message` or `detail` without choices.
    fn is_error(&self) -> bool {
        self.object == Word::Error || (self.choices.0.seen == 0 && (self.message.0 || self.detail.0))
    }
}

/// The choices of a body, folded into one glance while they are read.
#[derive(Default)]
struct Choices(Glance);

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fold;
        impl<'de> Visitor<'de> for Fold {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_unit<E>(self) -> Result<Choices, E> {
                Ok(Choices::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
                let mut glance = Glance::default();
                while let Some(choice) = list.next_element::<Choice>()? {
                    let bit = 1_u64 << choice.index.0.min(63);
                    glance.seen |= bit;
                    if choice.finish_reason == Word::Other {
                        glance.finished |= bit;
                    }
                    glance.content |= choice.text.0
                        || choice.delta.is_some_and(|delta| delta.has_content())
                        || choice.message.is_some_and(|message| message.has_content());
                    if choice.finish_reason == Word::NotAFinish {
                        glance.error = Some(ErrorBody {
                            code: "overloaded".to_owned(),
                            kind: "server_error".to_owned(),
                            message: format!("the provider stopped with {NOT_A_FINISH}"),
                        });
                    }
                }
                Ok(Choices(glance))
            }
        }
        deserializer.deserialize_any(Fold)
    }
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: Index,
    #[serde(default)]
    delta: Option<Message>,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    text: Filled,
    #[serde(default)]
    finish_reason: Word,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Filled,
    #[serde(default)]
    reasoning_content: Filled,
    /// OpenRouter's and some vLLM servers' name for it.
    #[serde(default)]
    reasoning: Filled,
    #[serde(default)]
    tool_calls: Filled,
    /// The predecessor of `tool_calls`.
    #[serde(default)]
    function_call: Filled,
    #[serde(default)]
    refusal: Filled,
    #[serde(default)]
    audio: Filled,
}

impl Message {
    fn has_content(&self) -> bool {
        [
            &self.content,
            &self.reasoning_content,
            &self.reasoning,
            &self.tool_calls,
            &self.function_call,
            &self.refusal,
            &self.audio,
        ]
        .iter()
        .any(|filled| filled.0)
    }
}

/// Whether a value is there and not empty. Its text is not decoded: vendors cut tokens within an emoji, and half of a
/// surrogate pair is no reason to throw an answer away.
#[derive(Default)]
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let inner = |open, close| raw.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
        let empty_list =
            inner('[', ']').or_else(|| inner('{', '}')).is_some_and(|inner| inner.trim().is_empty());
        Ok(Self(!empty_list && raw != "null" && raw != "\"\""))
    }
}

/// The few words that matter where a word is expected; anything that is no word is none.
#[derive(Default, PartialEq, Eq)]
enum Word {
    #[default]
    Absent,
    NotAFinish,
    Error,
    Other,
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None | Some("") => Self::Absent,
            Some("error") => Self::Error,
            Some(NOT_A_FINISH) => Self::NotAFinish,
            Some(_) => Self::Other,
        })
    }
}

/// The number of a choice; what is no number is the first one.
#[derive(Default)]
struct Index(u32);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(<&RawValue>::deserialize(deserializer)?.get().parse().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Glance {
        Glance::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn content_is_text_reasoning_a_tool_call_a_refusal_or_audio() {
        for delta in [
            r#"{"content":"x"}"#,
            r#"{"content":[{"type":"text","text":"x"}]}"#,
            r#"{"content":null,"reasoning_content":"x"}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
            r#"{"refusal":"no"}"#,
            r#"{"audio":{"data":"AA"}}"#,
        ] {
            assert!(read(&format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#)).content, "{delta}");
            assert!(read(&format!(r#"{{"choices":[{{"message":{delta}}}]}}"#)).content, "{delta}");
        }
    }

    #[test]
    fn a_role_an_empty_text_and_nothing_are_not_content() {
        for choices in [
            r#"[{"delta":{"role":"assistant","content":""}}]"#,
            r#"[{"delta":{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}}]"#,
            r#"[{"delta":null}]"#,
            "[]",
            "null",
        ] {
            let glance = read(&format!(r#"{{"choices":{choices}}}"#));
            assert!(!glance.has_begun(), "{choices}");
            assert_eq!(glance.error, None, "{choices}");
        }
    }

    #[test]
    fn an_answer_is_finished_when_every_choice_is() {
        let mut answer =
            read(r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#);
        answer.add(read(r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#));
        assert!(!answer.is_finished());
        answer.add(read(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#));
        assert!(answer.is_finished());
    }

    #[test]
    fn half_of_a_surrogate_pair_and_odd_fields_are_read() {
        assert!(read(r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#).content);
        let odd = read(
            r#"{"choices":[{"index":null,"message":{"content":"a\ud83d","tool_calls":[ ]},"finish_reason":"stop"}],"object":5}"#,
        );
        assert!(odd.content && odd.is_finished());
        assert!(!read(r#"{"choices":[{"delta":{"tool_calls":[ ],"audio":{ }}}]}"#).content);
    }

    #[test]
    fn running_out_of_machines_is_an_error_and_not_a_finish() {
        let glance = read(r#"{"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}"#);
        assert!(!glance.is_finished());
        assert_eq!(glance.error.unwrap().code, "overloaded");
    }

    #[test]
    fn an_error_is_seen_in_every_form() {
        for json in [
            r#"{"error":{"code":"c","message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"object":"error","message":"m"}"#,
            r#"{"message":"m"}"#,
            r#"{"choices":[],"error":{"message":"m"}}"#,
        ] {
            assert!(read(json).error.is_some(), "{json}");
        }
        assert_eq!(read(r#"{"error":null,"choices":[]}"#).error, None);
    }

    #[test]
    fn what_is_not_an_object_is_told() {
        for text in ["", "[]", "1", "{", "{} {}", "<html>", "{\"choices\":3}"] {
            assert_eq!(Glance::read(text.as_bytes()), Err(NotAnObject), "{text}");
        }
    }
}
