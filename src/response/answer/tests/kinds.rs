//! What is valid JSON, but of another kind than the schema says, is never dropped from an answer.

use super::integrity::{assert_hole, whole, NOT};
use super::*;

/// A chunk whose choice has this in place of its delta.
pub(super) fn with_delta(field: &str) -> String {
    NOT.replacen("\"delta\":{\"content\":\" NOT\"}", field, 1)
}

#[test]
fn what_is_of_another_kind_than_the_schema_says_is_a_hole_and_not_dropped() {
    for field in [
        r#""delta":["content"," NOT"]"#,
        r#""delta":" NOT""#,
        r#""delta":{"content":[" NOT"]}"#,
        r#""delta":{"content":{"text":" NOT"}}"#,
        r#""delta":{"content":5}"#,
        r#""delta":{"tool_calls":{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}}"#,
        r#""delta":{"tool_calls":["id","a"]}"#,
        r#""delta":{"tool_calls":[{"index":0,"id":"a","function":["name","f"]}]}"#,
    ] {
        assert_hole(&with_delta(field));
    }
    for field in [
        r#""delta":null"#,
        r#""delta":"""#,
        r#""delta":[]"#,
        r#""delta":{"content":null,"tool_calls":null}"#,
        r#""delta":{"content":[],"tool_calls":[]}"#,
        r#""delta":{"content":{},"tool_calls":""}"#,
        r#""text":{"a":1},"delta":{}"#,
    ] {
        let passed =
            pass(Release::Complete, &[ROLE, HELLO, &with_delta(field), WORLD, FINISH, DONE_EVENT], true);
        assert_eq!(passed.outcome, Some(Outcome::Answered), "{field}");
    }
    let completions = Asked { endpoint: Endpoint::Completions, ..asked(Release::Complete) };
    for (text, outcome) in [
        (r#"[" NOT"]"#, Outcome::Garbled),
        ("5", Outcome::Garbled),
        ("null", Outcome::Answered),
        (r#""""#, Outcome::Answered),
    ] {
        let chunk = |text: &str, finish: &str| {
            format!("data: {{\"choices\":[{{\"index\":0,\"text\":{text},\"finish_reason\":{finish}}}]}}\n\n")
        };
        let pieces =
            [chunk("\"a\"", "null"), chunk(text, "null"), chunk("\"b\"", "\"stop\""), DONE_EVENT.to_owned()];
        let passed = pass_as(&completions, &pieces.each_ref().map(String::as_str), true).0;
        assert_eq!(passed.outcome, Some(outcome), "{text}");
    }
    for message in
        [r#"["content","x"]"#, r#"{"content":["x"]}"#, r#"{"content":"x","tool_calls":{"id":"a"}}"#]
    {
        let body =
            format!("{{\"choices\":[{{\"index\":0,\"message\":{message},\"finish_reason\":\"stop\"}}]}}");
        assert_ne!(
            whole(Endpoint::Chat, Wire::OpenAi, &body).verdict.outcome,
            Outcome::Answered,
            "{message}"
        );
    }
}

#[test]
fn more_choices_in_a_chunk_than_anybody_asks_for_are_a_hole() {
    let many = |count: usize| {
        let choice = r#"{"delta":{},"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        NOT.replacen(
            r#"{"index":0,"delta":{"content":" NOT"},"finish_reason":null}"#,
            &vec![choice; count].join(","),
            1,
        )
    };
    assert_hole(&many(1025));
    let few = pass(Release::FirstToken, &[ROLE, HELLO, &many(1024), FINISH, DONE_EVENT], true);
    assert!(
        few.sent.contains("\"usage\":null")
            && !few.sent.contains("prompt_tokens\":1,\"completion_tokens\":1}}]")
    );
}

#[test]
fn comments_and_fields_that_no_client_knows_are_noise_unless_a_part_of_the_answer_stands_in_them() {
    for noise in [
        ": {\"type\":\"ping\"}\n\n",
        ": {\"event\":\"keepalive\",\"type\":\"heartbeat\"}\n\n",
        "meta: {\"a\":1}\n\n",
        "id: {\"a\":1}\n: x\n\n",
    ] {
        for release in [Release::FirstToken, Release::Complete] {
            let passed = pass(release, &[ROLE, HELLO, noise, WORLD, FINISH, DONE_EVENT], true);
            assert_eq!(passed.outcome, Some(Outcome::Answered), "{noise}");
            assert_eq!(super::integrity::text_of(&passed.sent), "Hello world", "{noise}");
        }
    }
    for damaged in [
        NOT.replacen("data", "data\n", 1),
        NOT.replacen("data", "", 1),
        NOT.replacen("data", "a", 1),
        NOT.replacen("data", "meta", 1),
    ] {
        assert_hole(&damaged);
    }
}

#[test]
fn a_delta_of_the_responses_api_that_is_a_list_is_a_hole() {
    let asked = Asked { endpoint: Endpoint::Responses, ..asked(Release::FirstToken) };
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let created = event("response.created", ",\"response\":{\"status\":\"in_progress\"}");
    let done = event("response.completed", ",\"response\":{\"status\":\"completed\"}");
    for (delta, outcome) in [
        ("[\"NOT\"]", Outcome::Garbled),
        ("5", Outcome::Garbled),
        ("[]", Outcome::Answered),
        ("null", Outcome::Answered),
        ("\"x\"", Outcome::Answered),
        // So were the first events with thoughts.
        ("{\"text\":\"x\"}", Outcome::Answered),
    ] {
        let delta = event("response.output_text.delta", &[",\"delta\":", delta].concat());
        let passed = pass_as(&asked, &[&created, &delta, &done], true).0;
        assert_eq!(passed.outcome, Some(outcome), "{delta}");
    }
}

#[test]
fn an_error_within_a_cut_event_is_read() {
    let cut = "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\n\n";
    let complete = pass(Release::Complete, &[ROLE, HELLO, cut, ERROR], true);
    assert_eq!(complete.outcome, Some(Outcome::Overloaded));
    let live = pass(Release::FirstToken, &[ROLE, HELLO, cut, ERROR], true);
    assert_eq!(live.sent, [ROLE, HELLO, ENVELOPE].concat());
}

#[test]
fn a_last_event_without_its_blank_line_is_split_and_put_right_as_any_other() {
    let two = [FINISH.trim_end(), "\ndata: [DONE]\n"].concat();
    let all = [ROLE.trim_end(), "\n", HELLO.trim_end(), "\n", &two].concat();
    let logprobs =
        FINISH.replace("\"delta\"", "\"logprobs\":{\"content\":[{\"logprob\":-Infinity}]},\"delta\"");
    for release in [Release::FirstToken, Release::Complete] {
        for apart in [false, true] {
            for pieces in [&[ROLE, HELLO, &two][..], &[&all], &[ROLE, HELLO, logprobs.trim_end()]] {
                let passed = pass(release, pieces, apart);
                assert_eq!(passed.outcome, Some(Outcome::Answered), "{pieces:?}");
                assert_eq!(super::integrity::text_of(&passed.sent), "Hello");
                assert!(passed.sent.ends_with(DONE_EVENT), "{}", passed.sent);
            }
            let half = [FINISH.trim_end(), "\ndata: {\"choices\""].concat();
            assert_ne!(
                pass(Release::Complete, &[ROLE, HELLO, &half], apart).outcome,
                Some(Outcome::Answered)
            );
        }
    }
}

#[test]
fn an_error_beside_choices_that_are_no_list_says_what_it_is() {
    let body = r#"{"error":{"message":"m","code":"insufficient_quota"},"choices":{}}"#;
    assert_eq!(whole(Endpoint::Chat, Wire::OpenAi, body).verdict.outcome, Outcome::OutOfQuota);
    let body = r#"{"error":null,"choices":{}}"#;
    assert_eq!(whole(Endpoint::Chat, Wire::OpenAi, body).verdict.outcome, Outcome::ServerError);
}

#[test]
fn a_long_whole_answer_may_have_a_byte_order_mark() {
    let body = "\u{feff}{\"choices\":[{\"message\":{\"content\":\"x";
    let asked = Asked { stream: false, ..asked(Release::FirstToken) };
    let mut watch = Watch::new(&SSE, asked);
    let judged = watch.judge(body.as_bytes(), false);
    assert_eq!(judged.verdict.outcome, Outcome::Answered);
    assert_eq!(judged.body, None, "it goes out as it came");
    let rest = watch.relay(b"\"}}]}", true, PROVIDER);
    assert_eq!(rest, Forward { replace: None, ended: Some(Outcome::Answered) });
}
