//! Answers of `/embeddings`: a list of vectors, never streamed.

use std::ops::Range;

use super::{Defaults, WholeAnswer};
use crate::bytes::json::{self, quoted, raw_object, Raw};
use crate::bytes::splice::Splices;
use crate::health::outcome::ErrorBody;
use crate::spend::usage::{self, Tally};

raw_object! {
    /// The whole answer.
    struct Body {
        object: "object",
        data: "data",
        model: "model",
        usage: "usage",
        error: "error",
    }
}

raw_object! {
    /// One element of `data`.
    struct Vector {
        embedding: "embedding",
        index: "index",
        object: "object",
    }
}

raw_object! {
    /// The usage.
    struct Usage {
        prompt_tokens: "prompt_tokens",
        total_tokens: "total_tokens",
    }
}

/// Reads an answer. The schema requires a usage; if the provider reports none, the estimate is filled in.
pub fn read(json: &[u8], defaults: &Defaults) -> WholeAnswer {
    let failed = || WholeAnswer { error: ErrorBody::from_json(json), ..WholeAnswer::default() };
    let Some(text) = json::object(json) else { return failed() };
    let body = Body::read(text);
    let vectors: Vec<Vector<'_>> = body.data.elements().into_iter().map(Vector::read).collect();
    if body.error.value().is_some()
        || vectors.is_empty()
        || vectors.iter().any(|vector| !vector.embedding.0.is_some_and(|raw| raw.starts_with(['[', '"'])))
    {
        return failed();
    }
    let mut shape = Shape { json, splices: Splices::default() };
    for (number, vector) in vectors.iter().enumerate() {
        let at = shape.place(vector.embedding.0.unwrap_or_default()).end;
        if !vector.index.is_whole() {
            shape.set(&vector.index, at, [",\"index\":", ""], &number.to_string());
        }
        if vector.object.word() != Some("embedding") {
            shape.set(&vector.object, at, [",\"object\":", ""], "\"embedding\"");
        }
    }
    let open = shape.place(text).start + 1;
    if body.object.word() != Some("list") {
        shape.set(&body.object, open, ["\"object\":", ","], "\"list\"");
    }
    if body.model.word().is_none_or(str::is_empty) {
        shape.set(&body.model, open, ["\"model\":", ","], &quoted(&defaults.model));
    }
    let reported = Usage::read(body.usage.value().unwrap_or_default());
    // Voyage reports only the total.
    let input = reported.prompt_tokens.number().or_else(|| reported.total_tokens.number());
    if !(reported.prompt_tokens.is_whole() && reported.total_tokens.is_whole()) {
        let tokens = input.unwrap_or_else(|| defaults.input.tokens());
        let usage = format!("{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}");
        shape.set(&body.usage, open, ["\"usage\":", ","], &usage);
    }
    let usage = input.map(|input| usage::Usage { input, ..usage::Usage::default() });
    let body = if shape.splices.is_empty() { None } else { shape.splices.apply(json) };
    WholeAnswer { answered: true, error: None, body, tally: Tally { usage, begun: true, ..Tally::default() } }
}

/// Collects the changes of an answer.
struct Shape<'a> {
    json: &'a [u8],
    splices: Splices,
}

impl Shape<'_> {
    /// The range of a value that borrows from the answer.
    fn place(&self, raw: &str) -> Range<usize> {
        json::place(self.json, raw)
    }

    /// Replaces the value of a field or, if it is missing, inserts the value at `at` with the texts `before` and `after` around it.
    fn set(&mut self, raw: &Raw<'_>, at: usize, [before, after]: [&str; 2], value: &str) {
        match raw.0 {
            Some(old) => self.splices.add(self.place(old), value),
            None => self.splices.insert(at, [before, value, after].concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(json: &str) -> String {
        let defaults = Defaults {
            model: "m".to_owned(),
            input: std::rc::Rc::new(crate::client_api::request::Input::with_tokens(7)),
            ..Defaults::default()
        };
        let whole = read(json.as_bytes(), &defaults);
        assert!(whole.answered, "{json}");
        String::from_utf8(whole.body.unwrap_or_else(|| json.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_complete_answer_is_unchanged_and_missing_fields_are_filled_in() {
        let whole = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1]}],"model":"x","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
        assert_eq!(changed(whole), whole);
        assert_eq!(
            changed(r#"{"data":[{"embedding":"AAAA"},{"embedding":[1],"index":1}]}"#),
            r#"{"object":"list","model":"m","usage":{"prompt_tokens":7,"total_tokens":7},"data":[{"embedding":"AAAA","index":0,"object":"embedding"},{"embedding":[1],"object":"embedding","index":1}]}"#
        );
    }

    #[test]
    fn null_wrong_and_incomplete_values_are_replaced_in_place() {
        assert_eq!(
            changed(
                r#"{"object":null,"data":[{"object":"vector","index":null,"embedding":[1]}],"model":"","usage":{"total_tokens":3}}"#
            ),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
        let usage =
            |json: &str| read(json.as_bytes(), &Defaults::default()).tally.usage.map(|usage| usage.input);
        assert_eq!(usage(r#"{"data":[{"embedding":[1]}],"usage":{"total_tokens":3}}"#), Some(3));
        assert_eq!(
            usage(r#"{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":0,"total_tokens":0}}"#),
            Some(0)
        );
        assert_eq!(usage(r#"{"data":[{"embedding":[1]}],"usage":{}}"#), None);
    }

    #[test]
    fn a_body_without_vectors_is_not_an_answer() {
        for json in [r#"{"data":[]}"#, r#"{}"#, "[]", "<html>", r#"{"error":{"message":"m"},"data":[]}"#] {
            assert!(!read(json.as_bytes(), &Defaults::default()).answered, "{json}");
        }
        let error = read(br#"{"error":{"message":"m"}}"#, &Defaults::default()).error;
        assert_eq!(error.unwrap().message, "m");
    }
}
