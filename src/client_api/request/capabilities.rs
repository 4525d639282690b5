//! What a conversation needs from the model that continues it: features that not every model has, and parts of its history
//! that not every vendor accepts.
//!
//! It is read in one pass over the messages, and only when it is first used: most requests go to a candidate that accepts
//! everything.

use std::ops::Range;

use crate::bytes::json::{fields, Cursor, Raw};

/// A feature that a model may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Images in messages.
    Images,
    /// Audio in messages or in the answer.
    Audio,
    /// Files in messages.
    Files,
    /// Tools, or tool calls in the history.
    Tools,
    /// `response_format` of type `json_object`.
    JsonObject,
    /// `response_format` of type `json_schema`.
    JsonSchema,
    /// A last message of the assistant that the answer continues.
    Prefill,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 7] = [
        Self::Images,
        Self::Audio,
        Self::Files,
        Self::Tools,
        Self::JsonObject,
        Self::JsonSchema,
        Self::Prefill,
    ];

    /// Its name in the configuration and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Files => "files",
            Self::Tools => "tools",
            Self::JsonObject => "json_object",
            Self::JsonSchema => "json_schema",
            Self::Prefill => "prefill",
        }
    }
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// The set with one more feature.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// The union of two sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without [`Feature::Prefill`].
    #[must_use]
    pub(super) const fn without_prefill(self) -> Self {
        Self(self.0 & !(1 << Feature::Prefill as u8))
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first feature that is in both sets.
    pub fn first_in(self, other: Self) -> Option<Feature> {
        Feature::ALL.into_iter().find(|feature| self.0 & other.0 & 1 << *feature as u8 != 0)
    }
}

/// What the messages of a request need. Ranges are byte offsets into their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The features that the model must have.
    pub features: Features,
    /// A message has tool calls but not the reasoning that led to them.
    pub calls_without_reasoning: bool,
    /// The roles `developer`, which some vendors do not accept, in the order of the text.
    pub developers: Vec<Range<usize>>,
}

/// A limit on the memory for ranges, above what real conversations have. Roles beyond it are not recorded and so not changed.
const MOST_DEVELOPERS: usize = 16_384;

impl Needs {
    /// Reads `messages`, or the `input` of a response. `text` is valid JSON.
    pub fn read(text: &str) -> Self {
        let mut needs = Self::default();
        let mut last_is_assistant = false;
        let mut cursor = Cursor(text.as_bytes());
        if cursor.peek() != Some(b'[') {
            return needs;
        }
        cursor.step();
        while cursor.next(b']') {
            if cursor.peek() == Some(b'{') {
                last_is_assistant = needs.message(&mut cursor, text.len());
            } else {
                cursor.skip();
            }
        }
        if last_is_assistant {
            needs.features = needs.features.with(Feature::Prefill);
        }
        needs
    }

    fn need(&mut self, feature: Feature) {
        self.features = self.features.with(feature);
    }

    /// Reads one message and moves the cursor behind it. Returns whether it is the assistant's and has no tool calls.
    fn message(&mut self, cursor: &mut Cursor<'_>, len: usize) -> bool {
        let (mut role, mut calls, mut thinks) = (&b""[..], false, false);
        cursor.step();
        while cursor.next(b'}') {
            let key = cursor.string().unwrap_or_default();
            cursor.peek();
            cursor.step();
            let first = cursor.peek();
            let value_at = len - cursor.0.len();
            let value = cursor.0;
            match (key, first) {
                (b"role", Some(b'"')) => {
                    role = cursor.string().unwrap_or_default();
                    if role == b"developer" && self.developers.len() < MOST_DEVELOPERS {
                        self.developers.push(value_at..len - cursor.0.len());
                    }
                }
                // The result of a tool in the Responses API has the same parts as a message.
                (b"content" | b"output", Some(b'[')) => self.parts(cursor),
                (b"content" | b"output", Some(b'{')) => self.part(cursor),
                (b"type", Some(b'"')) => {
                    if cursor.string().is_some_and(is_of_tools) {
                        self.need(Feature::Tools);
                    }
                }
                _ => {
                    let value = value.get(..cursor.skip()).unwrap_or_default().trim_ascii_end();
                    calls |= matches!(key, b"tool_calls" | b"function_call") && is_filled(value);
                    thinks |= key == b"reasoning_content" && value != b"null";
                }
            }
        }
        if calls || matches!(role, b"tool" | b"function") {
            self.need(Feature::Tools);
        }
        self.calls_without_reasoning |= calls && !thinks;
        role == b"assistant" && !calls
    }

    /// Reads the parts of a message's content and moves the cursor behind them.
    fn parts(&mut self, cursor: &mut Cursor<'_>) {
        cursor.step();
        while cursor.next(b']') {
            self.part(cursor);
        }
    }

    /// Reads one part of a content and moves the cursor behind it.
    fn part(&mut self, cursor: &mut Cursor<'_>) {
        let start = cursor.0;
        let part = start.get(..cursor.skip()).and_then(|part| std::str::from_utf8(part).ok());
        let [kind] = part.map_or([Raw(None)], |part| fields(part, &["type"]));
        match kind.word() {
            Some("image_url" | "input_image" | "computer_screenshot") => self.need(Feature::Images),
            Some("input_audio") => self.need(Feature::Audio),
            Some("file" | "input_file") => self.need(Feature::Files),
            _ => {}
        }
    }
}

/// Whether an item of this type in the Responses API belongs to a tool: a call, its result, or what comes from an MCP server or from a search
/// for tools.
fn is_of_tools(kind: &[u8]) -> bool {
    kind.ends_with(b"_call")
        || kind.ends_with(b"_call_output")
        || kind.starts_with(b"mcp_")
        || kind == b"tool_search_output"
}

/// Whether a value is neither empty nor null.
fn is_filled(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| Raw(Some(value)).is_filled())
}

/// The features that a request's options need: `response_format` (`text` in the Responses API), `modalities` and `tools`.
pub(super) fn features_of_options(
    format: Option<&str>,
    modalities: Option<&str>,
    tools: Option<&str>,
) -> Features {
    let mut features = Features::default();
    if let Some(format) = format {
        let [kind, inner] = fields(format, &["type", "format"]);
        let [inner] = fields(inner.value().unwrap_or_default(), &["type"]);
        match kind.word().or(inner.word()) {
            Some("json_object") => features = features.with(Feature::JsonObject),
            Some("json_schema") => features = features.with(Feature::JsonSchema),
            _ => {}
        }
    }
    if Raw(modalities).elements().contains(&"\"audio\"") {
        features = features.with(Feature::Audio);
    }
    if Raw(tools).is_filled() {
        features = features.with(Feature::Tools);
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(all: &[Feature]) -> Features {
        all.iter().fold(Features::default(), |features, feature| features.with(*feature))
    }

    #[test]
    fn each_feature_is_found_in_the_messages_that_need_it() {
        use Feature::{Audio, Files, Images, Prefill, Tools};
        let part = |kind: &str| {
            format!(
                r#"[{{"role":"user","content":[{{"type":"text","text":"\"]"}}, {{"x":{{"type":"no"}},"type":"{kind}"}}]}}]"#
            )
        };
        for (text, expected) in [
            (r#"[{"role":"user","content":"image_url"}]"#.to_owned(), vec![]),
            ("\"a prompt\"".to_owned(), vec![]),
            ("[]".to_owned(), vec![]),
            ("[1, \"a\", [{}]]".to_owned(), vec![]),
            (part("text"), vec![]),
            (part("image_url"), vec![Images]),
            (part("input_image"), vec![Images]),
            (part("input_audio"), vec![Audio]),
            (part("file"), vec![Files]),
            (part("input_file"), vec![Files]),
            (r#"[{"role":"assistant","content":"Once"}]"#.to_owned(), vec![Prefill]),
            (r#"[{"role":"assistant","content":"a"},{"role":"user","content":"b"}]"#.to_owned(), vec![]),
            (r#"[{"role":"assistant","tool_calls":[{"id":"1"}]}]"#.to_owned(), vec![Tools]),
            (r#"[{"tool_calls":[],"role":"assistant"},{"role":"user"}]"#.to_owned(), vec![]),
            (
                r#"[{"role":"assistant","function_call":{"name":"f"}},{"role":"user"}]"#.to_owned(),
                vec![Tools],
            ),
            (r#"[{"role":"tool","content":"1"}]"#.to_owned(), vec![Tools]),
            (r#"[{"type":"function_call_output","output":"1"}]"#.to_owned(), vec![Tools]),
            (r#"[{"role":"tool","content":{"type":"image_url"}}]"#.to_owned(), vec![Images, Tools]),
        ] {
            assert_eq!(Needs::read(&text).features, features(&expected), "{text}");
        }
    }

    #[test]
    fn the_result_of_a_tool_is_read_as_a_content_is() {
        use Feature::{Audio, Files, Images, Tools};
        let item =
            |kind: &str, output: &str| format!(r#"[{{"call_id":"1","output": {output} ,"type":"{kind}"}}]"#);
        for (text, expected) in [
            (item("function_call_output", r#""{\"type\":\"input_image\"}""#), vec![Tools]),
            (item("function_call_output", "[]"), vec![Tools]),
            (item("function_call_output", r#"[{"type":"input_text","text":"input_image"}]"#), vec![Tools]),
            (
                item(
                    "function_call_output",
                    r#"[{"type":"input_text"}, {"image_url":"x","type":"input_image"}]"#,
                ),
                vec![Images, Tools],
            ),
            (item("function_call_output", r#"[{"type":"input_file","file_id":"f"}]"#), vec![Files, Tools]),
            (item("function_call_output", r#"{"type":"input_image","image_url":"x"}"#), vec![Images, Tools]),
            (item("function_call_output", r#"{"temperature":5,"unit":{"type":"input_image"}}"#), vec![Tools]),
            (
                item("custom_tool_call_output", r#"[{"type":"input_file"},{"type":"input_audio"}]"#),
                vec![Audio, Files, Tools],
            ),
            (
                item("computer_call_output", r#"{"type":"computer_screenshot","image_url":"x"}"#),
                vec![Images, Tools],
            ),
            (
                item("shell_call_output", r#"[{"stdout":"input_image","outcome":{"type":"exit"}}]"#),
                vec![Tools],
            ),
        ] {
            assert_eq!(Needs::read(&text).features, features(&expected), "{text}");
        }
    }

    #[test]
    fn a_history_with_any_call_of_a_tool_needs_tools() {
        for kind in [
            "function_call",
            "custom_tool_call",
            "custom_tool_call_output",
            "computer_call",
            "web_search_call",
            "file_search_call",
            "code_interpreter_call",
            "image_generation_call",
            "local_shell_call",
            "local_shell_call_output",
            "shell_call",
            "apply_patch_call",
            "apply_patch_call_output",
            "tool_search_call",
            "tool_search_output",
            "mcp_call",
            "mcp_list_tools",
            "mcp_approval_request",
            "mcp_approval_response",
            "a_call_of_next_year_call",
        ] {
            let text = format!(r#"[{{"id":"1","type":"{kind}"}},{{"role":"user","content":"a"}}]"#);
            assert_eq!(Needs::read(&text).features, features(&[Feature::Tools]), "{kind}");
        }
        for kind in ["message", "reasoning", "item_reference", "compaction", "recall", "output"] {
            let text = format!(r#"[{{"id":"1","type":"{kind}"}},{{"role":"user","content":"a_call"}}]"#);
            assert_eq!(Needs::read(&text).features, features(&[]), "{kind}");
        }
    }

    #[test]
    fn options_need_features_too() {
        use Feature::{Audio, JsonObject, JsonSchema, Tools};
        for (format, modalities, tools, expected) in [
            (None, None, None, vec![]),
            (Some(r#"{"type":"text"}"#), Some(r#"["text"]"#), Some("[]"), vec![]),
            (Some(r#"{"type":"json_object"}"#), None, Some("null"), vec![JsonObject]),
            (Some(r#"{"json_schema":{},"type":"json_schema"}"#), None, None, vec![JsonSchema]),
            (Some(r#"{"format":{"type":"json_schema"},"verbosity":"low"}"#), None, None, vec![JsonSchema]),
            (None, Some(r#"["text", "audio"]"#), Some(r#"[{"type":"function"}]"#), vec![Audio, Tools]),
        ] {
            assert_eq!(features_of_options(format, modalities, tools), features(&expected), "{format:?}");
        }
    }

    #[test]
    fn a_tool_call_without_its_reasoning_is_noticed() {
        for (text, expected) in [
            (r#"[{"role":"assistant","tool_calls":[{}]}]"#, true),
            (r#"[{"role":"assistant","reasoning_content":null,"tool_calls":[{}]}]"#, true),
            (r#"[{"role":"assistant","reasoning_content":"","tool_calls":[{}]}]"#, false),
            (r#"[{"role":"assistant","reasoning_content":"r","content":"c"}]"#, false),
            (r#"[{"tool_calls":[{}],"reasoning_content":"r"},{"tool_calls":[{}]}]"#, true),
        ] {
            assert_eq!(Needs::read(text).calls_without_reasoning, expected, "{text}");
        }
    }

    #[test]
    fn the_role_developer_is_found_with_its_range() {
        let text = r#"[{"role" : "developer"},{"content":"developer","role":"user"}]"#;
        let developers = Needs::read(text).developers;
        let found: Vec<_> = developers.iter().map(|place| text.get(place.clone()).unwrap()).collect();
        assert_eq!(found, ["\"developer\""]);
    }

    #[test]
    fn reading_truncated_messages_ends_and_stays_within_the_text() {
        let text = r#"[{"role":"developer","content":[{"type":"image_url"}],"reasoning_content":"r","tool_calls":[{}]}]"#;
        for end in 0..text.len() {
            let needs = Needs::read(text.get(..end).unwrap());
            assert!(needs.developers.iter().all(|place| place.end <= end + 1));
        }
    }

    #[test]
    fn the_number_of_developers_is_bounded_and_their_order_is_that_of_the_text() {
        let text = format!("[{}]", vec![r#"{"role":"developer"}"#; MOST_DEVELOPERS + 1].join(","));
        let developers = Needs::read(&text).developers;
        assert_eq!(developers.len(), MOST_DEVELOPERS);
        assert!(developers.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}
