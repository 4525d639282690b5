//! Answers of `/embeddings`: a list of vectors, never streamed.

use std::ops::Range;

use super::{Defaults, WholeAnswer};
use crate::bytes::json::{self, quoted, raw_object, Raw};
use crate::bytes::splice::Splices;
use crate::dialects::usage::{hear, Counts};
use crate::health::outcome::ErrorBody;
use crate::spend::reported::Reconciled;
use crate::spend::usage::{self, Tally};

raw_object! {
    /// The whole answer.
    struct Body {
        object: "object",
        data: "data",
        model: "model",
        service_tier: "service_tier",
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
    /// The fields of a usage that the schema requires.
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
    if body.error.value().is_some_and(ErrorBody::is_reported)
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
    let object = body.usage.value().unwrap_or_default();
    let mut tally = usage(object);
    hear(&mut tally.served, &body.model, &body.service_tier);
    if let Some(usage) = tally.usage {
        shape.complete(&Usage::read(object), object, usage.input);
    } else {
        let tokens = defaults.input.tokens().to_string();
        let usage = ["{\"prompt_tokens\":", &tokens, ",\"total_tokens\":", &tokens, "}"].concat();
        shape.set(&body.usage, open, ["\"usage\":", ","], &usage);
    }
    let body = if shape.splices.is_empty() { None } else { shape.splices.apply(json) };
    WholeAnswer { answered: true, error: None, body, tally: Tally { begun: true, ..tally } }
}

/// Reads a usage object. There is no output, so what the total has beyond the input is input. Voyage reports only the total.
pub(super) fn usage(object: &str) -> Tally {
    let counts = Counts::read(object).0;
    let [prompt, total] = counts.input_and_total();
    let Some(input) = prompt.max(total) else { return Tally::default() };
    let reconciled = match (prompt, total) {
        (Some(prompt), Some(total)) if prompt < total => Some(Reconciled::RestIsInput),
        (Some(prompt), Some(total)) if prompt > total => Some(Reconciled::TotalIgnored),
        _ => None,
    };
    let usage = usage::Usage { input, ..Default::default() };
    Tally { usage: Some(usage), reconciled, ..Tally::default() }
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

    /// Fills in the fields that a usage lacks; everything else in it stays as the provider told it.
    fn complete(&mut self, usage: &Usage<'_>, object: &str, input: u64) {
        let (prompt, total) = (&usage.prompt_tokens, &usage.total_tokens);
        let open = self.place(object).start + 1;
        for (raw, name, other) in [(prompt, "prompt_tokens", total), (total, "total_tokens", prompt)] {
            if !raw.is_whole() {
                let tokens = raw.count().or(other.count()).unwrap_or(input).to_string();
                self.set(raw, open, [&["\"", name, "\":"].concat(), ","], &tokens);
            }
        }
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
    fn an_error_that_says_nothing_beside_vectors_is_none() {
        for error in ["{}", "\"\"", "null", "false", "[]", r#"{"message":"","code":null}"#] {
            let json = format!(r#"{{"data":[{{"embedding":[1]}}],"error":{error}}}"#);
            assert!(read(json.as_bytes(), &Defaults::default()).answered, "{json}");
        }
    }

    #[test]
    fn a_usage_is_completed_and_otherwise_stays_and_a_larger_total_is_input() {
        let answer = |usage: &str| {
            format!(
                r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[1]}}],"model":"m","usage":{usage}}}"#
            )
        };
        for (given, expected, input, reconciled) in [
            (
                r#"{"total_tokens":3,"cost":0.5}"#,
                r#"{"prompt_tokens":3,"total_tokens":3,"cost":0.5}"#,
                3,
                None,
            ),
            (r#"{"prompt_tokens":"3"}"#, r#"{"total_tokens":3,"prompt_tokens":3}"#, 3, None),
            (
                r#"{"prompt_tokens":0,"total_tokens":7}"#,
                r#"{"prompt_tokens":0,"total_tokens":7}"#,
                7,
                Some(Reconciled::RestIsInput),
            ),
            (
                r#"{"prompt_tokens":7,"total_tokens":0}"#,
                r#"{"prompt_tokens":7,"total_tokens":0}"#,
                7,
                Some(Reconciled::TotalIgnored),
            ),
        ] {
            assert_eq!(changed(&answer(given)), answer(expected));
            let tally = read(answer(given).as_bytes(), &Defaults::default()).tally;
            assert_eq!((tally.usage.map(|usage| usage.input), tally.reconciled), (Some(input), reconciled));
        }
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
