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
