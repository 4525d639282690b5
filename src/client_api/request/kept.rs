//! Objects that one provider keeps and a request names: no other provider could serve it.

use super::Endpoint;
use crate::bytes::json::fields;

/// The keys whose value, a text or a list of texts, names such objects.
const KEYS: [&str; 5] = ["file_id", "file_ids", "vector_store_id", "vector_store_ids", "container"];

/// The type of an item that stands for one that the provider keeps.
const REFERENCE: &str = "item_reference";

/// Whether a request names a file, a store, a container, a template of a prompt, or an earlier item. `body` is valid JSON. In doubt it does.
pub fn names_kept_object(body: &str, endpoint: Endpoint) -> bool {
    let at_quotes = |(at, _): (usize, &str)| body.get(at + 1..);
    let mut texts = body.match_indices('"').filter_map(at_quotes);
    let has_template = || {
        let [prompt] = fields(body, &["prompt"]);
        endpoint == Endpoint::Responses && prompt.is_filled()
    };
    texts.any(is_name) || has_template()
}

/// Whether the text behind a quotation mark is the key of a kept object, or the type of a reference to one.
fn is_name(text: &str) -> bool {
    let after = |word: &str| text.strip_prefix(word)?.strip_prefix('"');
    // A tool may have a parameter with such a name. In its schema the value is an object.
    let is_value = |rest: &str| {
        let value = rest.trim_start().strip_prefix(':').map(str::trim_start);
        value.is_some_and(|value| value.starts_with(['"', '[']))
    };
    after(REFERENCE).is_some() || KEYS.iter().any(|key| after(key).is_some_and(is_value))
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
        ] {
            assert!(!names_kept_object(body, Endpoint::Completions), "{body}");
        }
        assert!(!names_kept_object(r#"{"prompt":null,"input":"x"}"#, Endpoint::Responses));
    }
}
