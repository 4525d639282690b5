//! Which bodies are read, which are rejected, and what is read from them.

use super::*;

fn read(text: &[u8]) -> Result<Body, Rejection> {
    Body::read(text, Endpoint::Chat, &[])
}

#[test]
fn model_and_stream_are_found_wherever_they_stand() {
    for (text, model, stream) in [
        (r#"{"model":"a","messages":[]}"#, "a", false),
        (
            r#" { "messages" : [{"model":"no","stream":true}] , "model" : "a\u0062" , "stream" : true } "#,
            "ab",
            true,
        ),
        (r#"{"stream":null,"model":"é"}"#, "é", false),
        (r#"{"m\u006fdel":"escaped key","stream":false}"#, "escaped key", false),
    ] {
        let body = read(text.as_bytes()).unwrap();
        assert_eq!((body.model.as_str(), body.stream), (model, stream), "{text}");
        let span = text.get(body.model_span.clone()).unwrap();
        assert_eq!(serde_json::from_str::<String>(span).unwrap(), model, "{text}");
    }
}

#[test]
fn a_body_that_cannot_be_served_is_rejected_with_the_reason() {
    for (text, status, words) in [
        ("", 400, "EOF"),
        ("<xml>", 400, "line 1 column 1"),
        ("[]", 400, "JSON object"),
        (r#"{"model":"a""#, 400, "EOF"),
        (r#"{"model":"a"} x"#, 400, "trailing"),
        (r#"{"messages":[]}"#, 400, "model"),
        (r#"{"model":5}"#, 400, "model"),
        (r#"{"model":""}"#, 400, "model"),
        (r#"{"model":"a","model":"b"}"#, 400, "twice"),
        (r#"{"model":"a","stream":"yes"}"#, 400, "stream"),
        (r#"{"model":"a","stream":true,"stream":false}"#, 400, "twice"),
        (r#"{"model":"a","messages":[{}],"messages":[]}"#, 400, "twice"),
    ] {
        let rejection = read(text.as_bytes()).unwrap_err();
        assert_eq!(rejection.status, status, "{text}");
        assert!(rejection.message.contains(words), "{text}: {}", rejection.message);
    }
}

#[test]
fn deep_nesting_is_accepted_and_invalid_utf8_is_rejected() {
    let deep = format!(r#"{{"x":{}{},"model":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(deep.as_bytes()).unwrap().model, "a");
    let bytes = [&b"{\"messages\":\""[..], &[0xFF, 0xFE], b"\",\"model\":\"a\"}"].concat();
    assert_eq!(read(&bytes).unwrap_err().status, 400);
}

#[test]
fn only_the_endpoints_own_input_key_counts_as_input() {
    let question = "What is the capital of France? ".repeat(20);
    for (endpoint, key, other) in [
        (Endpoint::Chat, "messages", "input"),
        (Endpoint::Completions, "prompt", "messages"),
        (Endpoint::Responses, "input", "prompt"),
        (Endpoint::Embeddings, "input", "prompt"),
    ] {
        let input = if endpoint == Endpoint::Chat {
            format!(r#"[{{"role":"user","content":"{question}"}}]"#)
        } else {
            format!("{question:?}")
        };
        let read = |more: &str| {
            let body = format!(r#"{{"model":"a","{key}":{input}{more}}}"#);
            Body::read(body.as_bytes(), endpoint, &[]).unwrap().input.tokens()
        };
        assert!(read("") > 100, "{key}");
        assert_eq!(read(&format!(r#","{other}":{{"id":"x"}}"#)), read(""), "{key} and {other}");
    }
}

#[test]
fn the_limit_on_output_tokens_is_read_in_any_notation() {
    for (written, expected) in [
        ("20000", Some(20_000)),
        ("20000.0", Some(20_000)),
        ("2e4", Some(20_000)),
        ("20000.5", Some(20_000)),
        ("\"20000\"", Some(20_000)),
        ("18446744073709551616", Some(u64::MAX)),
        ("-5", None),
        ("null", None),
        ("\"many\"", None),
        ("[1]", None),
    ] {
        let body = format!(r#"{{"model":"a","max_tokens":{written}}}"#);
        let read = Body::read(body.as_bytes(), Endpoint::Chat, &[]).unwrap();
        assert_eq!(read.max_output, expected, "{written}");
    }
}

#[test]
fn only_text_completions_and_embeddings_take_batches() {
    for (endpoint, key, input, expected) in [
        (Endpoint::Embeddings, "input", r#"["a","b"]"#, true),
        (Endpoint::Embeddings, "input", r#""a""#, false),
        (Endpoint::Completions, "prompt", r#"["a"]"#, true),
        (Endpoint::Chat, "messages", r#"[{}]"#, false),
        (Endpoint::Responses, "input", r#"[{}]"#, false),
    ] {
        let body = format!(r#"{{"model":"a","{key}":{input}}}"#);
        let read = Body::read(body.as_bytes(), endpoint, &[]).unwrap();
        assert_eq!(read.input.is_batch(), expected, "{body}");
    }
}

#[test]
fn the_instructions_of_a_responses_request_count_as_input() {
    let read = |instructions: &str, endpoint| {
        let body = format!(r#"{{"model":"a","input":"hi","messages":[],"instructions":{instructions}}}"#);
        Body::read(body.as_bytes(), endpoint, &[]).unwrap().input.tokens()
    };
    let long = format!("{:?}", "Answer in one word. ".repeat(100));
    assert!(read(&long, Endpoint::Responses) > read("null", Endpoint::Responses) + 300);
    assert_eq!(read(&long, Endpoint::Chat), read("null", Endpoint::Chat));
}

#[test]
fn the_tools_of_a_request_count_as_input() {
    let read = |tools: &str| {
        let body = format!(r#"{{"model":"a","messages":[],"tools":{tools}}}"#);
        read(body.as_bytes()).unwrap().input.tokens()
    };
    let tool = r#"[{"type":"function","function":{"name":"weather","description":"Tells the weather."}}]"#;
    assert!(read(tool) > read("[]") + 10);
}

#[test]
fn only_the_responses_api_continues_a_stored_response_or_conversation() {
    let read = |more: &str, endpoint| {
        let body = format!(r#"{{"model":"a",{more}}}"#);
        Body::read(body.as_bytes(), endpoint, &[]).unwrap().stored
    };
    for (more, expected) in [
        (r#""previous_response_id":"resp_1""#, Some("resp_1")),
        (r#""conversation":"conv_1""#, Some("conv_1")),
        (r#""conversation": {"metadata":{"id":"no"},"id":"conv_1"}"#, Some("conv_1")),
        (r#""previous_response_id":null,"conversation":"conv_1""#, Some("conv_1")),
        (r#""conversation":"conv_1","previous_response_id":"resp_1""#, Some("resp_1")),
        (r#""conversation":{},"previous_response_id":"""#, None),
        (r#""conversation":[1]"#, None),
        (r#""input":"hi""#, None),
    ] {
        assert_eq!(read(more, Endpoint::Responses).as_deref(), expected, "{more}");
        assert_eq!(read(more, Endpoint::Chat), None, "{more}");
    }
}

#[test]
fn everything_read_from_a_body_is_still_known_after_its_text_is_dropped() {
    let parts =
        r#"[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url"}]}]"#;
    for (endpoint, key, input) in [
        (Endpoint::Chat, "messages", parts),
        (Endpoint::Responses, "input", r#"[{"role":"developer","content":"Be brief."}]"#),
        (Endpoint::Embeddings, "input", r#"["a cat","a dog"]"#),
    ] {
        let text = format!(
            r#"{{"model":"a","{key}":{input},"instructions":"Once upon a time","tools":[{{"type":"function","function":{{"name":"f"}}}}]}}"#
        );
        let kept = Body::read(text.as_bytes(), endpoint, &[]).unwrap();
        assert_eq!(kept.input.body(), text);
        let mut dropped = kept.clone();
        dropped.drop_text();
        assert_eq!(dropped.input.body(), "");
        let values = |body: &Body| {
            let input = &body.input;
            (input.tokens(), input.needs().clone(), input.features(), input.is_batch(), body.len)
        };
        assert_eq!(values(&dropped), values(&kept), "{text}");
        assert!(kept.input.tokens() > 3, "{text}");
    }
}

#[test]
fn invalid_utf8_is_reported_as_such_in_values_that_are_read_or_skipped() {
    for key in ["messages", "user"] {
        let bytes = [br#"{"model":"a",""#, key.as_bytes(), b"\":\"\xff\"}"].concat();
        let rejection = read(&bytes).unwrap_err();
        assert!(rejection.message.contains("UTF-8"), "{key}: {}", rejection.message);
    }
}

#[test]
fn of_several_limits_on_output_the_largest_counts_wherever_it_stands() {
    for (body, expected) in [
        (r#""max_tokens":50000,"max_completion_tokens":10"#, Some(50_000)),
        (r#""max_completion_tokens":10,"max_tokens":50000"#, Some(50_000)),
        (r#""max_tokens":50000,"max_completion_tokens":null"#, Some(50_000)),
        (r#""max_tokens":null,"max_output_tokens":7"#, Some(7)),
        (r#""max_tokens":"9","max_tokens":8"#, Some(9)),
        (r#""max_tokens":null,"max_completion_tokens":null"#, None),
        (r#""max_tokens":3,"max_output_tokens":5,"n":4"#, Some(20)),
    ] {
        let body = format!(r#"{{"model":"a",{body}}}"#);
        assert_eq!(Body::read(body.as_bytes(), Endpoint::Chat, &[]).unwrap().max_output, expected, "{body}");
    }
}

#[test]
fn every_answer_that_is_written_and_paid_counts() {
    for (endpoint, body, answers) in [
        (Endpoint::Chat, r#""n":3"#, 3),
        (Endpoint::Chat, r#""n":3.0"#, 3),
        (Endpoint::Chat, r#""n":"3""#, 3),
        (Endpoint::Chat, r#""n":null"#, 1),
        (Endpoint::Chat, r#""n":0"#, 1),
        (Endpoint::Chat, r#""n":1e9"#, 128),
        (Endpoint::Chat, r#""prompt":["a","b"],"best_of":5"#, 1),
        (Endpoint::Completions, r#""prompt":"a, b","best_of":5"#, 5),
        (Endpoint::Completions, r#""prompt":["a","b","c"]"#, 3),
        (Endpoint::Completions, r#""prompt":[ "a" , "b" ],"n":2"#, 4),
        (Endpoint::Completions, r#""prompt":["a","b"],"n":2,"best_of":10"#, 20),
        (Endpoint::Completions, r#""prompt":["a","b"],"n":4,"best_of":2"#, 8),
        (Endpoint::Completions, r#""prompt":[1,2,3]"#, 1),
        (Endpoint::Completions, r#""prompt":[[1,2,3],[4]]"#, 2),
        (Endpoint::Completions, r#""prompt":[]"#, 1),
        (Endpoint::Completions, r#""max_tokens":5"#, 1),
        (Endpoint::Responses, r#""input":[{},{}],"best_of":5"#, 1),
    ] {
        let body = format!(r#"{{"model":"a",{body}}}"#);
        assert_eq!(Body::read(body.as_bytes(), endpoint, &[]).unwrap().answers, answers, "{body}");
    }
}

#[test]
fn only_the_responses_api_has_requests_in_the_background() {
    for (endpoint, value, expected) in [
        (Endpoint::Responses, "true", true),
        (Endpoint::Responses, "false", false),
        (Endpoint::Responses, "null", false),
        (Endpoint::Responses, "\"true\"", false),
        (Endpoint::Chat, "true", false),
    ] {
        let body = format!(r#"{{"model":"a","background":{value}}}"#);
        assert_eq!(Body::read(body.as_bytes(), endpoint, &[]).unwrap().background, expected, "{body}");
    }
}
