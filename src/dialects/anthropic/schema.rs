//! Rewrites a JSON schema to the subset of the language that Anthropic's structured outputs accept.

use crate::bytes::json::{elements, quoted, Fields, Writer};

/// Keywords that are kept. Most others are refused by Anthropic and moved into the description, where the model may follow them;
/// Anthropic's own SDKs do the same.
const KEPT: [&str; 7] = ["type", "required", "enum", "const", "default", "$ref", "title"];
/// Keywords whose value is an object with a schema for each name.
const NAMED: [&str; 3] = ["properties", "$defs", "definitions"];
/// The values of `format` that are accepted.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// The deepest nesting of schemas that is rewritten.
const MAX_DEPTH: usize = 64;

/// The rewritten schema, with the order of its keys kept. Every object is closed (`additionalProperties: false`), which is required,
/// and keywords that are not accepted are moved into the description. `None` if it is not a schema or too deeply nested.
pub(super) fn accepted(json: &str) -> Option<String> {
    rewrite(json, 0)
}

fn rewrite(json: &str, depth: usize) -> Option<String> {
    if depth > MAX_DEPTH {
        return None;
    }
    let fields = Fields::of(json)?;
    let mut out = Writer::object();
    let mut moved = String::new();
    for (name, value) in fields.iter() {
        if NAMED.contains(&name) {
            let mut inner = Writer::object();
            for (key, schema) in Fields::of(value)?.iter() {
                inner.key(key);
                inner.value(&rewrite(schema, depth + 1)?);
            }
            out.key(name);
            out.value(&inner.finish());
        } else if matches!(name, "anyOf" | "oneOf" | "allOf") {
            let mut inner = Writer::list();
            for schema in elements(value)? {
                inner.value(&rewrite(schema, depth + 1)?);
            }
            out.key(if name == "oneOf" { "anyOf" } else { name });
            out.value(&inner.finish());
        } else if name == "items" {
            out.key(name);
            out.value(&rewrite(value, depth + 1)?);
        } else if matches!(name, "description" | "additionalProperties" | "$schema" | "$id") {
            // The first two are written below; the others have no effect at Anthropic.
        } else if KEPT.contains(&name)
            || (name == "format" && FORMATS.iter().any(|format| quoted(format) == value))
            || (name == "minItems" && matches!(value, "0" | "1"))
        {
            out.key(name);
            out.value(value);
        } else {
            moved.push_str(if moved.is_empty() { "{" } else { ", " });
            moved.push_str(name);
            moved.push_str(": ");
            moved.push_str(value);
        }
    }
    let description = fields.get("description").and_then(|text| serde_json::from_str(text).ok());
    let mut description: String = description.unwrap_or_default();
    if !moved.is_empty() {
        description.push_str(if description.is_empty() { "" } else { "\n\n" });
        description.push_str(&moved);
        description.push('}');
    }
    if !description.is_empty() {
        out.text("description", &description);
    }
    let is_object = fields.get("type").is_some_and(|kind| kind.contains("\"object\""));
    if is_object || fields.get("properties").is_some() {
        out.field("additionalProperties", "false");
    }
    Some(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_the_order_of_properties_is_kept() {
        assert_eq!(
            accepted(
                r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":["object","null"]}}}"#
            )
            .unwrap(),
            r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":["object","null"],"additionalProperties":false}},"additionalProperties":false}"#
        );
    }

    #[test]
    fn keywords_that_are_not_accepted_are_moved_into_the_description() {
        assert_eq!(
            accepted(r#"{"type":"integer","description":"Stars","minimum":1,"maximum":5}"#).unwrap(),
            r#"{"type":"integer","description":"Stars\n\n{minimum: 1, maximum: 5}"}"#
        );
        assert_eq!(
            accepted(r#"{"oneOf":[{"type":"string","format":"date"},{"type":"string","format":"iban"}]}"#)
                .unwrap(),
            r#"{"anyOf":[{"type":"string","format":"date"},{"type":"string","description":"{format: \"iban\"}"}]}"#
        );
    }

    #[test]
    fn a_value_that_is_no_schema_or_too_deep_is_not_rewritten() {
        for text in ["true", "[]", r#"{"properties":[]}"#, r#"{"anyOf":{}}"#, r#"{"items":{"items":false}}"#]
        {
            assert_eq!(accepted(text), None, "{text}");
        }
        let deep = [r#"{"items":"#.repeat(100), "{}".to_owned(), "}".repeat(100)].concat();
        assert_eq!(accepted(&deep), None);
    }
}
