//! Objects that one provider keeps and a request names: no other provider could serve it.

use super::Endpoint;
use crate::bytes::json::fields;

/// The keys whose value, a text or a list of texts, names such objects.
const KEYS: [&str; 7] = [
    "file_id",
    "file_ids",
    "vector_store_id",
    "vector_store_ids",
    "container",
    "container_id",
    "approval_request_id",
];

/// The type of an item that stands for one that the provider keeps.
const REFERENCE: &str = "item_reference";

/// Whether a request names a file, a store, a container, a template of a prompt, or an earlier item. `body` is valid JSON. In doubt it does.
pub fn names_kept_object(body: &str, endpoint: Endpoint) -> bool {
    // The first letters of the names that are looked for.
    let is_possible = |at: usize| matches!(body.as_bytes().get(at), Some(b'a' | b'c' | b'f' | b'i' | b'v'));
    let behind = |(at, _): (usize, &str)| if is_possible(at + 1) { body.get(at + 1..) } else { None };
    if body.match_indices('"').filter_map(behind).any(is_name) {
        return true;
    }
    let has_template = || {
        let [prompt] = fields(body, &["prompt"]);
        prompt.is_filled()
    };
    endpoint == Endpoint::Responses && has_template()
}

/// Whether the text behind a quotation mark is the key of a kept object, or the type of a reference to one.
fn is_name(text: &str) -> bool {
    let after = |word: &str| text.strip_prefix(word)?.strip_prefix('"');
    // A tool may have a parameter with such a name. In its schema the value is an object.
    let is_value = |rest: &str| {
        let value = rest.trim_start().strip_prefix(':').map(str::trim_start);
        value.is_some_and(|value| value.starts_with(['"', '[']))
    };
    // An earlier answer in audio is named by its id; what is asked for has a voice and a format instead.
    let is_audio = |rest: &str| {
        let object = rest.trim_start().strip_prefix(':').and_then(|rest| rest.trim_start().strip_prefix('{'));
        object.is_some_and(|object| object.trim_start().starts_with("\"id\""))
    };
    after(REFERENCE).is_some()
        || KEYS.iter().any(|key| after(key).is_some_and(is_value))
        || after("audio").is_some_and(is_audio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_one_provider_keeps_are_found_wherever_they_stand() {
        for body in [
            r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#,
            r#"{"messages":[{"content":[{"type":"file","file":{"file_id" : "file-1"}}]}]}"#,
            r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#,
            r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["f"]}}]}"#,
            r#"{"tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#,
            r#"{"prompt":{"id":"pmpt_1"}}"#,
            r#"{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#,
            r#"{"input":[{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":true}]}"#,
            r#"{"input":[{"type":"code_interpreter_call","container_id":"cntr_1"}]}"#,
        ] {
            assert!(names_kept_object(body, Endpoint::Responses), "{body}");
        }
    }

    #[test]
    fn words_and_parameters_of_tools_are_no_objects() {
        for body in [
            r#"{"messages":[{"content":"say \"file_id\": \"x\" and item_reference"}]}"#,
            r#"{"tools":[{"function":{"parameters":{"properties":{"file_id":{"type":"string"}},"required":["file_id"]}}}]}"#,
            r#"{"prompt":"once upon a time"}"#,
            r#"{"file":null}"#,
            r#"{"modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"}}"#,
        ] {
            assert!(!names_kept_object(body, Endpoint::Completions), "{body}");
        }
        assert!(!names_kept_object(r#"{"prompt":null,"input":"x"}"#, Endpoint::Responses));
    }
}
