//! What is read from answers, and what is changed in them.

use super::*;
use crate::spend::usage::Usage;

fn reading(form: Form, json: &str) -> Reading {
    let defaults = Defaults {
        id: "i".to_owned(),
        created: 9,
        model: "m".to_owned(),
        input: std::rc::Rc::new(crate::client_api::request::Input::with_tokens(7)),
        ..Defaults::default()
    };
    Reading::new(json.as_bytes(), form, &defaults, &mut Estimator::default()).unwrap()
}

fn read(json: &str) -> ChunkSummary {
    reading(Form::ChatChunk, json).summary
}

#[test]
fn content_is_text_reasoning_a_tool_call_a_refusal_or_audio() {
    for delta in [
        r#"{"content":"x"}"#,
        r#"{"content":[{"type":"text","text":"x"}]}"#,
        r#"{"content":null,"reasoning_content":"x"}"#,
        r#"{"content":"","reasoning":"x"}"#,
        r#"{"content":"","reasoning_text":"x"}"#,
        r#"{"thinking":"x"}"#,
        r#"{"thinking":{"content":"x"}}"#,
        r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"AA"}]}"#,
        r#"{"tool_calls":[{"index":0}]}"#,
        r#"{"refusal":"no"}"#,
        r#"{"audio":{"data":"AA"}}"#,
    ] {
        assert!(read(&format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#)).content, "{delta}");
        let whole = format!(r#"{{"choices":[{{"message":{delta}}}]}}"#);
        assert!(reading(Form::Chat, &whole).summary.content, "{delta}");
        assert!(!read(&whole).content, "a chunk has no message");
    }
}

#[test]
fn a_role_an_empty_text_or_an_empty_delta_is_not_content() {
    for choices in [
        r#"[{"delta":{"role":"assistant","content":""}}]"#,
        r#"[{"delta":{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}}]"#,
        r#"[{"delta":{"reasoning_details":[],"reasoning_text":"","thinking":null,"reasoning":""}}]"#,
        r#"[{"delta":null}]"#,
        "[]",
        "null",
    ] {
        let summary = read(&format!(r#"{{"choices":{choices}}}"#));
        assert!(!summary.has_begun(), "{choices}");
        assert_eq!(summary.error, None, "{choices}");
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

/// The body that a client gets.
fn repaired(form: Form, json: &str) -> String {
    String::from_utf8(reading(form, json).splices.apply(json.as_bytes()).unwrap()).unwrap()
}

/// A chat completion with one choice.
fn whole(choice: &str) -> String {
    format!(r#"{{"id":"x","object":"chat.completion","created":1,"model":"y","choices":[{choice}]}}"#)
}

/// A chunk with one choice.
fn chunk(choice: &str) -> String {
    format!(r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"y","choices":[{choice}]}}"#)
}

#[test]
fn an_answer_as_openai_sends_it_is_not_changed() {
    for (form, json) in [
        (Form::Chat, whole(r#"{"index":0,"message":{"role":"assistant","content":"a","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}"#)),
        (Form::Chat, whole(r#"{"index":0,"logprobs":null,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}"#)),
        (Form::Chat, whole(r#"{"index":0,"logprobs":null,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c","type":"custom","custom":{"name":"f","input":"x"}}]},"finish_reason":"tool_calls"}"#)),
        (Form::ChatChunk, chunk(r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#)),
        (Form::ChatChunk, chunk(r#"{"index":1,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}"#)),
        (Form::ChatChunk, chunk(r#"{"index":0,"delta":{"tool_calls":[{"index":3,"function":{"arguments":"{"}}]},"finish_reason":null}"#)),
        (Form::ChatChunk, chunk(r#"{"index":0,"delta":{},"finish_reason":"length"}"#)),
        (Form::Text, r#"{"id":"x","object":"text_completion","created":1,"model":"y","choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":"stop"}]}"#.to_owned()),
        (Form::TextChunk, r#"{"id":"x","object":"text_completion","created":1,"model":"y","choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]}"#.to_owned()),
    ] {
        assert!(reading(form, &json).splices.is_empty(), "{json}");
    }
}

#[test]
fn fields_that_are_missing_beside_the_choices_are_filled_in() {
    let choices = r#""choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]"#;
    let head = r#""id":"i","object":"chat.completion.chunk","created":9,"model":"m""#;
    let with = |fields: &str| repaired(Form::ChatChunk, &format!("{{{fields}{choices}}}"));
    assert_eq!(with(""), format!("{{{head},{choices}}}"));
    assert_eq!(with(r#""id":null,"object":"","created":null,"model":"","#), format!("{{{head},{choices}}}"));
    assert_eq!(
        with(r#""id":17,"object":"chat.completion","created":"1700000000","model":5,"#),
        format!(
            r#"{{"id":"17","object":"chat.completion.chunk","created":1700000000,"model":"m",{choices}}}"#
        )
    );
    assert!(with(r#""created":1700000000.25,"#).contains(r#""created":1700000000,"#));
    assert!(with(r#""service_tier":"on_demand","system_fingerprint":{},"#)
        .contains(r#""service_tier":null,"system_fingerprint":null,"#));
    assert!(with(r#""service_tier":"default","system_fingerprint":"f","x":1,"#)
        .ends_with(&format!(r#""service_tier":"default","system_fingerprint":"f","x":1,{choices}}}"#)));
}

#[test]
fn a_time_in_any_form_of_number_is_in_whole_seconds_in_all_chunks() {
    let defaults = |created| Defaults { created, ..Defaults::default() };
    for (given, expected) in [
        ("1700000000", 1_700_000_000),
        ("0", 0),
        ("1700000000.9", 1_700_000_000),
        ("1.7e9", 1_700_000_000),
        ("1.7E+09", 1_700_000_000),
        ("1700000000123", 1_700_000_000),
        ("1.700000000123e12", 1_700_000_000),
        ("1700000000123456", 1_700_000_000),
        ("1700000000123456789", 1_700_000_000),
        ("\"1700000000\"", 1_700_000_000),
        ("\" 1700000000.5 \"", 1_700_000_000),
        ("\"1.7e12\"", 1_700_000_000),
        ("-1", 9),
        ("\"now\"", 9),
        ("\"\"", 9),
        ("\"2026-11-30T00:00:00Z\"", 9),
        ("true", 9),
        ("null", 9),
        ("[1]", 9),
    ] {
        let choice = r#"{"index":0,"delta":{},"finish_reason":null}"#;
        let first = chunk(choice).replace("\"created\":1", &format!("\"created\":{given}"));
        let whole = chunk(choice).replace("\"created\":1", &format!("\"created\":{expected}"));
        let read = |json: &str, defaults: &Defaults| {
            Reading::new(json.as_bytes(), Form::ChatChunk, defaults, &mut Estimator::default()).unwrap()
        };
        let reading = read(&first, &defaults(9));
        assert_eq!(reading.splices.apply(first.as_bytes()).unwrap(), whole.as_bytes(), "{given}");
        assert_eq!(reading.splices.is_empty(), first == whole, "{given}");
        // A later chunk without a time has the same one.
        let defaults = reading.stream_fields.map_or_else(|| defaults(9), |fields| *fields);
        let later = first.replace(&format!("\"created\":{given},"), "");
        let reading = read(&later, &defaults);
        let later = String::from_utf8(reading.splices.apply(later.as_bytes()).unwrap()).unwrap();
        assert!(later.contains(&format!("\"created\":{expected},")), "{given}: {later}");
    }
}

#[test]
fn fields_that_are_missing_in_a_choice_are_filled_in() {
    for (given, expected) in [
        (
            r#"{"message":{"content":"a"}}"#,
            r#"{"message":{"role":"assistant","refusal":null,"content":"a"},"index":0,"finish_reason":"stop","logprobs":null}"#,
        ),
        (
            r#"{"index":0,"message":{},"finish_reason":"stop"}"#,
            r#"{"index":0,"logprobs":null,"message":{"role":"assistant","content":null,"refusal":null},"finish_reason":"stop"}"#,
        ),
        (
            r#"{"index":"0","message":{"role":"model","content":"a"},"finish_reason":""}"#,
            r#"{"index":0,"logprobs":null,"message":{"refusal":null,"role":"assistant","content":"a"},"finish_reason":"stop"}"#,
        ),
        (
            r#"{"index":0,"message":{"role":null,"content":"a"},"finish_reason":null}"#,
            r#"{"index":0,"logprobs":null,"message":{"refusal":null,"role":"assistant","content":"a"},"finish_reason":"stop"}"#,
        ),
        (
            r#"{"index":0,"finish_reason":"stop"}"#,
            r#"{"index":0,"logprobs":null,"message":{"role":"assistant","content":null,"refusal":null},"finish_reason":"stop"}"#,
        ),
    ] {
        assert_eq!(repaired(Form::Chat, &whole(given)), whole(expected));
    }
    for (given, expected) in [
        (r#"{"delta":{"content":"a"}}"#, r#"{"delta":{"content":"a"},"index":0,"finish_reason":null}"#),
        (
            r#"{"index":0,"delta":null,"finish_reason":"stop"}"#,
            r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
        ),
        (r#"{"index":0,"finish_reason":"stop"}"#, r#"{"index":0,"delta":{},"finish_reason":"stop"}"#),
        (
            r#"{"index":0,"delta":{"role":"","content":"a"},"finish_reason":""}"#,
            r#"{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}"#,
        ),
    ] {
        assert_eq!(repaired(Form::ChatChunk, &chunk(given)), chunk(expected));
    }
}

#[test]
fn a_vendors_finish_reason_becomes_openais() {
    for (theirs, ours) in [
        ("end_turn", "stop"),
        ("eos", "stop"),
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("tool_use", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("sensitive", "content_filter"),
        ("a word of tomorrow", "stop"),
    ] {
        let choice = |word: &str| {
            format!(
                r#"{{"index":0,"message":{{"role":"assistant","content":"a","refusal":null}},"logprobs":null,"finish_reason":"{word}"}}"#
            )
        };
        assert_eq!(repaired(Form::Chat, &whole(&choice(theirs))), whole(&choice(ours)), "{theirs}");
        let choice = |word: &str| format!(r#"{{"index":0,"delta":{{}},"finish_reason":"{word}"}}"#);
        assert_eq!(repaired(Form::ChatChunk, &chunk(&choice(theirs))), chunk(&choice(ours)), "{theirs}");
        assert!(read(&chunk(&choice(theirs))).is_finished(), "{theirs}");
    }
}

#[test]
fn fields_that_are_missing_in_a_tool_call_are_filled_in() {
    let choice = |call: &str| {
        format!(
            r#"{{"index":0,"message":{{"role":"assistant","content":null,"refusal":null,"tool_calls":[{call}]}},"logprobs":null,"finish_reason":"tool_calls"}}"#
        )
    };
    for (given, expected) in [
        (
            r#"{"function":{"name":"f","arguments":"{}"}}"#,
            r#"{"function":{"name":"f","arguments":"{}"},"id":"call_0","type":"function"}"#,
        ),
        (
            r#"{"id":"","function":{"name":"f","arguments":"{}"},"type":null}"#,
            r#"{"id":"call_0","function":{"name":"f","arguments":"{}"},"type":"function"}"#,
        ),
        (
            r#"{"id":"c","type":"function","function":{"name":"f","arguments":{"a": "b"}}}"#,
            r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\": \"b\"}"}}"#,
        ),
        (
            r#"{"id":"c","type":"function","function":{"name":"f"}}"#,
            r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}"#,
        ),
        (
            r#"{"id":"c","type":"function","function":{"arguments":null,"name":"f"}}"#,
            r#"{"id":"c","type":"function","function":{"arguments":"{}","name":"f"}}"#,
        ),
        (
            r#"{"extra":{"{":"{"},"function":{"name":"f","arguments":"{}"}},{"id":"c","type":"function","function":null}"#,
            r#"{"extra":{"{":"{"},"function":{"name":"f","arguments":"{}"},"id":"call_0","type":"function"},{"id":"c","type":"function","function":null}"#,
        ),
        (
            r#"{"function":{"name":"f","arguments":"{}"}},{"function":{"arguments":{},"name":"g"}}"#,
            r#"{"function":{"name":"f","arguments":"{}"},"id":"call_0","type":"function"},{"function":{"arguments":"{}","name":"g"},"id":"call_1","type":"function"}"#,
        ),
    ] {
        assert_eq!(repaired(Form::Chat, &whole(&choice(given))), whole(&choice(expected)));
    }
    let unfinished = r#"{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}}"#;
    assert!(repaired(Form::Chat, &whole(unfinished)).contains(r#""finish_reason":"tool_calls""#));
}

#[test]
fn a_whole_answers_calls_have_ids_of_their_own_and_arguments_that_are_json() {
    let choice = |calls: &str| {
        format!(
            r#"{{"index":0,"message":{{"role":"assistant","content":null,"refusal":null,"tool_calls":[{calls}]}},"logprobs":null,"finish_reason":"tool_calls"}}"#
        )
    };
    let call = |id: &str, arguments: &str| {
        format!(r#"{{"id":{id},"type":"function","function":{{"name":"f","arguments":"{arguments}"}}}}"#)
    };
    for (given, expected) in [
        (
            [call("\"x\"", "{}"), call("\"x\"", ""), call("\"call_1\"", " \\n")],
            [call("\"x\"", "{}"), call("\"call_2\"", "{}"), call("\"call_1\"", "{}")],
        ),
        (
            [call("7", "{}"), call("null", "[1]"), call("\"call_1\"", "1")],
            [call("\"7\"", "{}"), call("\"call_2\"", "[1]"), call("\"call_1\"", "1")],
        ),
    ] {
        let (given, expected) = (choice(&given.join(",")), choice(&expected.join(",")));
        assert_eq!(repaired(Form::Chat, &whole(&given)), whole(&expected));
    }
    // Each choice numbers its own, and no two calls of one answer have the same id.
    let two = choice(&call("null", "{}"));
    let json = repaired(Form::Chat, &whole(&format!("{two},{two}")));
    assert!(json.contains(r#""id":"call_0""#) && json.contains(r#""id":"call_1""#), "{json}");
}

#[test]
fn reasoning_gets_openais_name_and_content_in_parts_becomes_one_text() {
    let delta = |fields: &str| chunk(&format!(r#"{{"index":0,"delta":{{{fields}}},"finish_reason":null}}"#));
    for (given, expected) in [
        (r#""content":"","reasoning":"a\n""#, r#""reasoning_content":"a\n","content":"","reasoning":"a\n""#),
        (r#""reasoning_content":null,"reasoning":"a""#, r#""reasoning_content":"a","reasoning":"a""#),
        (r#""reasoning_content":"b","reasoning":"a""#, r#""reasoning_content":"b","reasoning":"a""#),
        (r#""reasoning":null,"content":"a""#, r#""reasoning":null,"content":"a""#),
        (r#""reasoning_text":"a""#, r#""reasoning_content":"a","reasoning_text":"a""#),
        (r#""reasoning":"","thinking":"a""#, r#""reasoning_content":"a","reasoning":"","thinking":"a""#),
        (r#""thinking":{"content":"a"}"#, r#""thinking":{"content":"a"}"#),
        (
            r#""reasoning_details":[{"type":"reasoning.text","text":"a"}]"#,
            r#""reasoning_details":[{"type":"reasoning.text","text":"a"}]"#,
        ),
        (r#""content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#, r#""content":"ab""#),
        (
            r#""content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"a"}]"#,
            r#""reasoning_content":"t","content":"a""#,
        ),
    ] {
        assert_eq!(repaired(Form::ChatChunk, &delta(given)), delta(expected));
    }
}

/// A chat completion with this usage.
fn with_usage(usage: &str) -> String {
    let choice = r#"{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"}"#;
    let answer = whole(choice);
    format!(r#"{},"usage":{usage}}}"#, answer.strip_suffix('}').unwrap())
}

fn tokens(input: u64, cached: u64, output: u64, reasoning: u64) -> Usage {
    Usage { input, cached, output, reasoning, ..Usage::default() }
}

/// The usage that a record has of an answer's counts.
fn recorded(form: Form, json: &str) -> Option<Usage> {
    reading(form, json).summary.usage.map(|reported| reported.reconcile().0)
}

/// Checks, for each row, the usage that is read from an object and the object that the client gets.
fn check_usages(rows: &[(&str, &str, Usage)]) {
    for (given, expected, usage) in rows {
        let json = with_usage(given);
        assert_eq!(recorded(Form::Chat, &json), Some(*usage), "{given}");
        assert_eq!(repaired(Form::Chat, &json), with_usage(expected));
    }
}

#[test]
fn a_usage_in_openais_form_is_read_and_completed() {
    check_usages(&[
        (
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            tokens(0, 0, 0, 0),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            tokens(9, 4, 5, 2),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":5}"#,
            r#"{"total_tokens":14,"prompt_tokens":9,"completion_tokens":5}"#,
            tokens(9, 0, 5, 0),
        ),
        (
            r#"{"prompt_tokens":9,"total_tokens":9,"completion_tokens":null}"#,
            r#"{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}"#,
            tokens(9, 0, 0, 0),
        ),
        (
            r#"{"prompt_tokens":9.0,"completion_tokens":5,"total_tokens":14}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}"#,
            tokens(9, 0, 5, 0),
        ),
        (
            r#"{"completion_tokens":5,"total_tokens":14}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}"#,
            tokens(9, 0, 5, 0),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":"5","total_tokens":14}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}"#,
            tokens(9, 0, 5, 0),
        ),
    ]);
}

#[test]
fn a_usage_in_a_vendors_form_is_read_and_gets_openais_fields() {
    check_usages(&[
        (
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":3}"#,
            r#"{"prompt_tokens_details":{"cached_tokens":6},"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":3}"#,
            tokens(9, 6, 5, 0),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"cached_tokens":6,"prompt_tokens_details":null}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"cached_tokens":6,"prompt_tokens_details":{"cached_tokens":6}}"#,
            tokens(9, 6, 5, 0),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"cached_tokens":6,"prompt_tokens_details":{"audio_tokens":0}}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"cached_tokens":6,"prompt_tokens_details":{"cached_tokens":6,"audio_tokens":0}}"#,
            tokens(9, 6, 5, 0),
        ),
        (
            r#"{"input_tokens":9,"output_tokens":5}"#,
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"input_tokens":9,"output_tokens":5}"#,
            tokens(9, 0, 5, 0),
        ),
    ]);
}

#[test]
fn a_usage_without_any_tokens_becomes_null() {
    for usage in ["{}", "[1,2,3]", r#"{"total_tokens":14}"#, r#"{"prompt_tokens":"many"}"#, "[]", "7"] {
        let json = with_usage(usage);
        assert_eq!(reading(Form::Chat, &json).summary.usage, None, "{usage}");
        assert_eq!(repaired(Form::Chat, &json), with_usage("null"), "{usage}");
    }
}

#[test]
fn an_answer_with_half_a_surrogate_pair_or_fields_of_wrong_types_is_read() {
    assert!(read(r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#).content);
    let odd = r#"{"choices":[{"index":null,"message":{"content":"a\ud83d","tool_calls":[ ]},"finish_reason":"stop"}],"object":5}"#;
    let odd = reading(Form::Chat, odd).summary;
    assert!(odd.content && odd.is_finished());
    assert!(!read(r#"{"choices":[{"delta":{"tool_calls":[ ],"audio":{ }}}]}"#).content);
}

#[test]
fn a_finish_reason_for_lack_of_capacity_is_an_error() {
    let summary = read(r#"{"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}"#);
    assert!(!summary.is_finished());
    assert_eq!(summary.error.unwrap().code, "overloaded");
}

#[test]
fn an_error_is_recognised_in_every_form() {
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
fn a_body_that_is_not_an_object_is_an_error() {
    for text in ["", "[]", "1", "{", "{} {}", "<html>", "{\"choices\":3}", "[\"x\"]", "{\"choices\":[[0]]}"] {
        assert_eq!(
            Reading::new(text.as_bytes(), Form::Chat, &Defaults::default(), &mut Estimator::default()).err(),
            Some(NotAnObject),
            "{text}"
        );
    }
}

#[test]
fn a_chunk_without_a_list_of_choices_gets_an_empty_one() {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#;
    let head = r#""id":"x","object":"chat.completion.chunk","created":1,"model":"y""#;
    let good = format!(r#"{{{head},"choices":[],{usage}}}"#);
    assert!(reading(Form::ChatChunk, &good).splices.is_empty());
    assert_eq!(repaired(Form::ChatChunk, &good.replace("[]", "null")), good);
    assert_eq!(
        repaired(Form::ChatChunk, &format!("{{{head},{usage}}}")),
        format!(r#"{{"choices":[],{head},{usage}}}"#)
    );
    // A whole body without choices is not an answer, so it is not repaired.
    assert!(reading(
        Form::Chat,
        r#"{"id":"x","object":"chat.completion","created":1,"model":"y","choices":null}"#
    )
    .splices
    .is_empty());
}

#[test]
fn an_empty_object_is_not_a_chunk() {
    let read = |json: &str, form| {
        Reading::new(json.as_bytes(), form, &Defaults::default(), &mut Estimator::default()).map(|_| ())
    };
    for json in ["{}", " { \n} "] {
        assert_eq!(read(json, Form::ChatChunk), Err(NotAnObject), "{json:?}");
        assert_eq!(read(json, Form::Chat), Ok(()), "{json:?}");
    }
}

#[test]
fn the_tool_calls_of_each_choice_are_numbered_separately() {
    let call = r#"{"tool_calls":[{"function":{"name":"f","arguments":"[]"}}]}"#;
    let json = format!(
        r#"{{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{call},"finish_reason":null}},{{"index":1,"delta":{call},"finish_reason":null}}]}}"#
    );
    let mut text = Estimator::default();
    let reading = Reading::new(json.as_bytes(), Form::ChatChunk, &Defaults::default(), &mut text).unwrap();
    let fixed: serde_json::Value =
        serde_json::from_slice(&reading.splices.apply(json.as_bytes()).unwrap()).unwrap();
    for choice in 0..2 {
        assert_eq!(fixed["choices"][choice]["delta"]["tool_calls"][0]["index"], 0, "{fixed}");
    }
}
