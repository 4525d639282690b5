use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::bytes::sse::Reader;
use crate::client_api::request::LongestAnswer;
use crate::dialects::schema::chat::{Calls, ChunkSummary, Form, Reading};
use crate::dialects::schema::Defaults;
use crate::health::outcome::{of_error_in_answer, ErrorBody, Outcome};
use crate::spend::tokens::Estimator;

const CREATED: u64 = 1_790_000_000;

#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not of the filter")]
fn is_blessing() -> bool {
    std::env::var("SHUNT_BLESS").is_ok_and(|value| value == "1")
}

/// The paths and contents of all inputs of a kind.
fn inputs(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/anthropic").join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_str().unwrap().contains(".expected."))
        .collect();
    files.sort();
    assert!(files.len() > 5, "{} holds no inputs", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Compares the result for every input of a kind with the file `*.expected.*` beside it.
fn check(kind: &str, found: impl Fn(&str) -> String) {
    let mut differ = Vec::new();
    for (path, input) in inputs(kind) {
        let found = found(&input);
        let extension = path.extension().unwrap().to_str().unwrap();
        let place = path.with_extension(format!("expected.{extension}"));
        if is_blessing() {
            std::fs::write(&place, &found).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&place).unwrap_or_default();
        if found != expected {
            differ.push(format!("{}\n--- expected\n{expected}--- found\n{found}", place.display()));
        }
    }
    assert!(differ.is_empty(), "SHUNT_BLESS=1 rewrites them, if this is meant:\n{}", differ.join("\n"));
}

fn pretty(json: &[u8]) -> String {
    let tree: Value = serde_json::from_slice(json).unwrap();
    serde_json::to_string_pretty(&tree).unwrap() + "\n"
}

fn translated_request(body: &str) -> Result<Value, Unsupported> {
    let tree: Value = serde_json::from_str(body).unwrap();
    let new = request(
        body.as_bytes(),
        tree["model"].as_str().unwrap_or("claude-haiku-4-5"),
        LongestAnswer::default(),
    )?;
    Ok(serde_json::from_slice(&new).unwrap())
}

/// A stream that is translated in these pieces, and the number of events that could not be read.
fn translated_stream(pieces: &[&[u8]]) -> (String, usize) {
    let (mut reader, mut translator) = (Reader::default(), Translator::new(CREATED));
    let (mut out, mut unread) = (Vec::new(), 0);
    for piece in pieces {
        reader.feed(piece, |event| {
            let Some(data) = event.data else { return };
            unread += usize::from(!translator.event(event.name, data, &mut out));
        });
    }
    (String::from_utf8(out).unwrap(), unread)
}

#[test]
fn requests_become_the_golden_ones() {
    check("requests", |input| match translated_request(input) {
        Ok(body) => pretty(body.to_string().as_bytes()),
        Err(problem) => {
            let mut error = Writer::object();
            error.text("unsupported", problem.param);
            error.text("message", &problem.message);
            pretty(error.finish().as_bytes())
        }
    });
}

#[test]
fn answers_become_the_golden_ones() {
    check("answers", |input| {
        answer(input.as_bytes(), CREATED, &mut Served::default())
            .map_or_else(|| "null\n".to_owned(), |body| pretty(&body))
    });
}

#[test]
fn streams_become_the_golden_ones() {
    check("streams", |input| translated_stream(&[input.as_bytes()]).0);
}

#[test]
fn a_stream_is_translated_the_same_however_it_is_cut() {
    for (path, input) in inputs("streams") {
        let whole = translated_stream(&[input.as_bytes()]);
        for at in 0..=input.len() {
            let (first, second) = input.as_bytes().split_at(at);
            assert_eq!(translated_stream(&[first, second]), whole, "{} at {at}", path.display());
        }
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(translated_stream(&bytes), whole, "{}", path.display());
    }
}

#[test]
fn an_unsupported_request_is_refused_with_the_name_of_its_parameter() {
    let mut refused = 0;
    for (path, input) in inputs("requests") {
        let expected = path.file_name().unwrap().to_str().unwrap().starts_with("unsupported_");
        let found = translated_request(&input);
        assert_eq!(found.is_err(), expected, "{}", path.display());
        if let Err(problem) = found {
            let tree: Value = serde_json::from_str(&input).unwrap();
            assert!(tree.get(problem.param).is_some(), "{}: {}", path.display(), problem.param);
            refused += 1;
        }
    }
    assert!(refused > 10);
}

#[test]
fn every_translated_request_keeps_anthropics_rules() {
    for (path, input) in inputs("requests") {
        let Ok(body) = translated_request(&input) else { continue };
        let name = path.display();
        assert!(body["max_tokens"].as_u64().unwrap() >= 1, "{name}");
        let messages = body["messages"].as_array().unwrap();
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(message["role"], ["user", "assistant"][at % 2], "{name}: turns alternate");
            let blocks = message["content"].as_array().cloned().unwrap_or_default();
            let is_result: Vec<bool> = blocks.iter().map(|block| block["type"] == "tool_result").collect();
            assert!(is_result.is_sorted_by(|before, after| before >= after), "{name}: results come first");
            for block in blocks.iter().filter(|block| block["type"] == "text") {
                assert!(!block["text"].as_str().unwrap().trim().is_empty(), "{name}: a blank text");
            }
        }
        let budget = body["thinking"]["budget_tokens"].as_u64().unwrap_or(0);
        assert!(budget < body["max_tokens"].as_u64().unwrap(), "{name}: the budget is below the limit");
        let samples = [&body["temperature"], &body["top_p"]].iter().filter(|value| !value.is_null()).count();
        assert!(samples <= usize::from(body["thinking"].is_null()), "{name}: {samples} sampling parameters");
        assert!(body["tool_choice"].is_null() || !body["tools"].is_null(), "{name}: a choice of no tools");
    }
}

#[test]
fn a_call_without_an_id_and_its_result_get_one_that_anthropic_takes() {
    for id in [r#""id":"","#, r#""id":null,"#, ""] {
        let messages = [
            r#"[{"role":"user","content":"u"},{"role":"assistant","tool_calls":[{"#,
            id,
            r#""function":{"name":"f","arguments":"{}"}}]},{"#,
            &id.replace("id", "tool_call_id"),
            r#""role":"tool","content":"r"}]"#,
        ]
        .concat();
        let new = translated_request(&[r#"{"model":"m","messages":"#, &messages, "}"].concat()).unwrap();
        let [call, result] =
            [&new["messages"][1]["content"][0]["id"], &new["messages"][2]["content"][0]["tool_use_id"]];
        assert!(call == result && call.as_str().is_some_and(|id| !id.is_empty()), "{id}: {new}");
    }
}

#[test]
fn a_schema_keeps_the_order_of_its_properties() {
    let ordered = r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"string"}}}"#;
    let tool = [r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":"#, ordered, "}}]}"].concat();
    let format = [r#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"f","schema":"#, ordered, "}}}"].concat();
    for body in [tool, format] {
        let new =
            String::from_utf8(request(body.as_bytes(), "claude-sonnet-5", LongestAnswer::default()).unwrap())
                .unwrap();
        assert!(new.find("\"z\"").unwrap() < new.find("\"a\"").unwrap(), "{new}");
    }
}

#[test]
fn a_body_that_is_no_valid_request_is_unsupported() {
    for body in [
        "",
        "[]",
        "{}",
        "{",
        r#"{"messages":3}"#,
        r#"{"messages":["x"]}"#,
        r#"{"messages":[{"content":"no role"}]}"#,
        r#"{"messages":[{"role":"user","content":5}]}"#,
        r#"{"messages":[{"role":"user","content":["x"]}]}"#,
        r#"{"messages":[{"role":"user","content":"\ud83d"}]}"#,
        r#"{"messages":[{"role":"system","content":" "},{"role":"user","content":[]}]}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"tools":{"a":1}}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"tools":[3]}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"grammar"}}"#,
    ] {
        assert!(request(body.as_bytes(), "claude-haiku-4-5", LongestAnswer::default()).is_err(), "{body}");
    }
}

#[test]
fn truncated_or_invalid_bytes_never_panic_and_are_never_taken_for_an_answer() {
    for (_, input) in inputs("requests") {
        for at in (0..input.len()).step_by(7) {
            let _ = request(&input.as_bytes()[..at], "claude-haiku-4-5", LongestAnswer::default());
        }
    }
    for (path, input) in inputs("answers") {
        for at in 0..input.trim_end().len() {
            assert_eq!(
                answer(&input.as_bytes()[..at], CREATED, &mut Served::default()),
                None,
                "{} at {at}",
                path.display()
            );
        }
    }
    for body in ["", "3", "[]", "{}", r#"{"type":"message"}"#, r#"{"type":"message","content":"x"}"#] {
        assert_eq!(answer(body.as_bytes(), CREATED, &mut Served::default()), None, "{body}");
    }
    for data in ["", "3", "[]", "<html>", "\u{0}"] {
        let mut out = Vec::new();
        assert!(!Translator::new(CREATED).event("message_start", data.as_bytes(), &mut out), "{data}");
        assert!(out.is_empty(), "{data}");
    }
}

/// What the gateway's reader of chat streams finds in a translated stream, and whether it ends with `[DONE]`.
fn summary(stream: &str) -> (ChunkSummary, bool) {
    let mut all = ChunkSummary::default();
    let mut done = false;
    let mut calls = Calls::new(true);
    Reader::default().feed(stream.as_bytes(), |event| {
        assert!(!done, "something follows [DONE]");
        let data = event.data.unwrap();
        done = data == b"[DONE]";
        if !done {
            let mut text = Estimator::default();
            let defaults = Defaults::default();
            let reading = Reading::after(&mut calls, data, Form::ChatChunk, &defaults, &mut text).unwrap();
            assert!(!reading.is_kept && reading.earlier.is_empty(), "nothing of it has to wait");
            assert!(
                reading.splices.is_empty() || reading.summary.error.is_some(),
                "it is in OpenAI's schema: {:?}",
                reading.splices
            );
            all.add(reading.summary);
        }
    });
    (all, done)
}

#[test]
fn a_translated_stream_is_read_as_finished_broken_off_or_failed() {
    for (path, input) in inputs("streams") {
        let (summary, done) = summary(&translated_stream(&[input.as_bytes()]).0);
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(summary.has_begun(), "{name}");
        let whole = !["error_midway", "cut_off"].contains(&name);
        assert_eq!((summary.is_finished(), done), (whole, whole), "{name}");
        assert_eq!(summary.error.is_some(), name == "error_midway", "{name}");
        if let Some(error) = summary.error {
            assert_eq!(of_error_in_answer(&error), Outcome::Overloaded);
        }
    }
}

#[test]
fn unreadable_events_are_reported_to_the_caller() {
    for (path, input) in inputs("streams") {
        let expected = usize::from(path.ends_with("unknown_events.sse"));
        assert_eq!(translated_stream(&[input.as_bytes()]).1, expected, "{}", path.display());
    }
}

#[test]
fn an_error_event_ends_the_stream_even_if_it_cannot_be_read() {
    let mut translator = Translator::new(CREATED);
    let mut out = Vec::new();
    assert!(!translator.event("error", b"<html>", &mut out));
    assert!(translator.is_over());
    let error = ErrorBody::from_json(out.strip_prefix(b"data: ").unwrap()).unwrap();
    assert_eq!(error.kind, "api_error");
    let before = out.len();
    assert!(translator.event("message_stop", b"{}", &mut out));
    assert_eq!(out.len(), before, "nothing follows");
}

#[test]
fn a_usage_that_is_not_reported_is_not_made_up() {
    for usage in ["", r#","usage":null"#, r#","usage":{}"#] {
        let body = format!(
            r#"{{"type":"message","id":"msg_1","model":"m","content":[{{"type":"text","text":"a"}}],"stop_reason":"end_turn"{usage}}}"#
        );
        let tree: Value =
            serde_json::from_slice(&answer(body.as_bytes(), CREATED, &mut Served::default()).unwrap())
                .unwrap();
        assert!(tree["usage"].is_null(), "{usage}: {tree}");
        let read = crate::dialects::schema::read(
            tree.to_string().as_bytes(),
            crate::client_api::request::Endpoint::Chat,
            &Defaults::default(),
        );
        assert!(read.answered && read.tally.usage.is_none());
    }
}

#[test]
fn a_reported_usage_is_translated_even_if_the_stream_ends_without_its_last_event() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"m\",\"usage\":{\"input_tokens\":10}}}\n\n";
    let text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    let finish = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":200}}\n\n";
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let [open, whole] = [[start, text, finish].concat(), [start, text, finish, stop].concat()];
    let (read, _) = summary(&translated_stream(&[open.as_bytes()]).0);
    let usage = read.usage.unwrap();
    assert_eq!((usage.input, usage.output), (10, 200));
    let (open, whole) = (translated_stream(&[open.as_bytes()]).0, translated_stream(&[whole.as_bytes()]).0);
    assert_eq!(open + "data: [DONE]\n\n", whole);
    let silent = [
        start.replace(r#","usage":{"input_tokens":10}"#, ""),
        text.to_owned(),
        finish.replace(r#","usage":{"output_tokens":200}"#, ""),
        stop.to_owned(),
    ]
    .concat();
    assert!(!translated_stream(&[silent.as_bytes()]).0.contains("usage"));
}

#[test]
fn the_counts_of_a_stream_only_grow_and_no_zero_replaces_one() {
    let event = |data: &str| format!("event: x\ndata: {data}\n\n");
    let start = |usage: &str| {
        event(&format!(
            r#"{{"type":"message_start","message":{{"id":"msg_1","model":"m","usage":{usage}}}}}"#
        ))
    };
    let delta = |reason: &str, usage: &str| {
        event(&format!(r#"{{"type":"message_delta","delta":{{"stop_reason":{reason}}},"usage":{usage}}}"#))
    };
    let text = event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#);
    let first = r#"{"input_tokens":25,"cache_read_input_tokens":7,"cache_creation_input_tokens":2,"output_tokens":1}"#;
    for (case, ends) in [
        (
            "a zero",
            vec![delta(
                r#""end_turn""#,
                r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":12}"#,
            )],
        ),
        ("nothing", vec![delta(r#""end_turn""#, r#"{"output_tokens":12}"#)]),
        ("other numbers", vec![delta(r#""end_turn""#, r#"{"input_tokens":25.0,"output_tokens":"12"}"#)]),
        (
            "a later report",
            vec![
                delta(r#""end_turn""#, r#"{"output_tokens":3}"#),
                delta("null", r#"{"input_tokens":0,"output_tokens":12}"#),
            ],
        ),
        (
            "an earlier report",
            vec![
                delta("null", r#"{"input_tokens":20,"output_tokens":12}"#),
                delta(r#""end_turn""#, r#"{"output_tokens":0}"#),
            ],
        ),
    ] {
        let body = [start(first), text.clone(), ends.concat()].concat();
        let reported = summary(&translated_stream(&[body.as_bytes()]).0).0.usage.unwrap();
        let (usage, reconciled) = reported.reconcile();
        assert_eq!((usage.input, usage.cached, usage.cache_write, usage.output), (34, 7, 2, 12), "{case}");
        assert_eq!(reconciled, None, "{case}");
    }
}
