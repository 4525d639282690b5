use super::*;
use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::response::answer::Head;
use crate::response::asked::Asked;
use crate::routing::provider::ApiKey;

const KEY: &str = "0123456789abcdef";
const ROLE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
const HELLO: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n";
const FINISH: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const WHOLE: &str = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}";

fn late(status: u16, stream: bool) -> Committed {
    let asked = Asked {
        endpoint: Endpoint::Chat,
        stream,
        usage: true,
        release: Release::FirstToken,
        wire: Wire::OpenAi,
        defaults: Defaults {
            id: "x".to_owned(),
            created: 1,
            model: "m".to_owned(),
            input: std::rc::Rc::new(crate::client_api::request::Input::with_tokens(7)),
            ..Defaults::default()
        },
        key: ApiKey::new("Bearer ", KEY).unwrap(),
    };
    let head = Head { status, retry_after: None };
    Committed::new(Watch::new(&head, asked), 1 << 16, "openai", KEY.to_owned(), status)
}

/// What the client gets of the pieces, and how it ended.
fn through(late: &mut Committed, pieces: &[&str], ends: bool) -> (String, Option<Outcome>) {
    let mut out = Vec::new();
    let mut ended = None;
    let last = [""].iter().filter(|_| ends);
    let count = pieces.len();
    for (place, piece) in pieces.iter().chain(last).enumerate() {
        let passed = late.take(piece.as_bytes(), place == count);
        out.extend(passed.replace.unwrap_or_else(|| piece.as_bytes().to_vec()));
        assert!(ended.is_none() || passed.ended.is_none(), "an answer ends once");
        ended = ended.or(passed.ended);
    }
    (String::from_utf8(out).unwrap(), ended)
}

#[test]
fn a_stream_is_forwarded_from_its_first_content_on() {
    let mut late = late(200, true);
    assert_eq!(late.take(ROLE.as_bytes(), false), Forward { replace: Some(Vec::new()), ended: None });
    assert_eq!(late.take(HELLO.as_bytes(), false).replace.unwrap(), [ROLE, HELLO].concat().as_bytes());
    let (rest, ended) = through(&mut late, &[FINISH, DONE], true);
    assert_eq!((rest, ended), ([FINISH, DONE].concat(), Some(Outcome::Answered)));
}

#[test]
fn a_stream_is_the_same_however_its_bytes_are_cut() {
    let all = [": hello\n\n", ROLE, HELLO, FINISH, DONE].concat();
    let whole = through(&mut late(200, true), &[&all], true);
    for cut in 1..all.len() {
        let (one, two) = all.split_at(cut);
        assert_eq!(through(&mut late(200, true), &[one, two], true), whole, "{cut}");
    }
}

#[test]
fn an_error_in_place_of_content_is_sent_to_the_client_and_is_a_failure() {
    let error =
        format!("data: {{\"error\":{{\"message\":\"no {KEY}\",\"code\":\"server_is_overloaded\"}}}}\n\n");
    let (out, ended) = through(&mut late(200, true), &[&error], true);
    assert_eq!(ended, Some(Outcome::Overloaded));
    assert!(out.starts_with("data: {\"error\":") && !out.contains(KEY) && !out.contains("[DONE]"), "{out}");
}

#[test]
fn a_stream_that_is_empty_or_breaks_off_never_looks_finished() {
    for (pieces, outcome) in [
        (&[][..], Outcome::ServerError),
        (&[": nothing\n\n"], Outcome::ServerError),
        (&[ROLE], Outcome::Truncated),
        (&[ROLE, HELLO], Outcome::Truncated),
    ] {
        let (out, ended) = through(&mut late(200, true), pieces, true);
        assert_eq!(ended, Some(outcome), "{pieces:?}");
        assert!(out.contains("stream_truncated") && !out.contains("[DONE]"), "{out}");
    }
}

#[test]
fn a_whole_answer_is_forwarded_at_its_end() {
    let (one, two) = WHOLE.split_at(40);
    let mut late = late(200, false);
    assert_eq!(late.take(one.as_bytes(), false).replace, Some(Vec::new()));
    assert_eq!(through(&mut late, &[two], true), (WHOLE.to_owned(), Some(Outcome::Answered)));
}

#[test]
fn an_error_in_a_whole_answer_is_sent_in_the_envelope() {
    let (out, ended) = through(&mut late(200, false), &["{\"error\":{\"message\":\"m\"}}"], true);
    assert_eq!(ended, Some(Outcome::ServerError));
    assert!(out.contains("\"param\":null"), "{out}");
}

#[test]
fn an_errors_body_becomes_the_envelope_and_an_endless_one_is_cut() {
    let (out, _) = through(&mut late(422, false), &["<h1>Not ", "like this</h1>"], true);
    assert!(out.contains("Not like this") && out.contains("invalid_request_error"), "{out}");
    let mut endless = late(422, false);
    let piece = "x".repeat(40_000);
    let (out, ended) = through(&mut endless, &[&piece, &piece, &piece, &piece], true);
    assert_eq!(ended, Some(Outcome::BadRequest));
    assert!(out.len() < 10_000, "{}", out.len());
}

#[test]
fn an_answer_that_is_too_long_to_be_held_is_only_checked() {
    let big = "x".repeat(50_000);
    for (end, outcome) in
        [("end\"}", Outcome::Answered), ("end\"", Outcome::Garbled), ("end\"}}", Outcome::Garbled)]
    {
        let mut late = late(200, false);
        let (out, ended) = through(&mut late, &["{\"a\":\"", &big, &big, end], true);
        assert!(out.starts_with(&["{\"a\":\"", &big, &big].concat()));
        assert_eq!((ended, late.is_torn()), (Some(outcome), outcome == Outcome::Garbled), "{end}");
    }
}

#[test]
fn an_error_that_is_in_the_envelope_is_forwarded_byte_for_byte() {
    let ours = r#"{"error":{"message":"m","type":"t","param":null,"code":"c","metadata":{"raw":"upstream"}},"user_id":"u"}"#;
    let (body, ended) = through(&mut late(400, true), &[ours], true);
    assert_eq!((body.as_str(), ended), (ours, Some(Outcome::BadRequest)));
    let (body, _) = through(&mut late(400, true), &[r#"{"detail":"not like this"}"#], true);
    assert!(body.starts_with(r#"{"error":{"message":"not like this","type":"#), "{body}");
}

#[test]
fn half_of_a_long_event_is_ended_and_followed_by_the_error() {
    let mut late = late(200, true);
    let begin = ["data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", &"x".repeat(9 << 20)].concat();
    let (out, ended) = through(&mut late, &[ROLE, HELLO, &begin, "x\"x", "\"}}]}\n\n", FINISH], false);
    assert_eq!((ended, late.is_torn()), (Some(Outcome::Garbled), true));
    let (before, after) = out.split_at(out.len() - 200);
    assert!(before.ends_with("xxx") && !after.contains("[DONE]"), "{after}");
    let (_, told) = after.split_once("\n\n").unwrap();
    assert!(told.starts_with("data: {\"error\":{") && told.contains("stream_truncated"), "{told}");
}

#[test]
fn a_response_with_a_hole_before_its_release_fails_as_its_api_says() {
    let head = Head { status: 200, retry_after: None };
    let asked = Asked {
        endpoint: Endpoint::Responses,
        stream: true,
        usage: true,
        release: Release::FirstToken,
        wire: Wire::OpenAi,
        defaults: Defaults { id: "x".to_owned(), created: 1, model: "m".to_owned(), ..Defaults::default() },
        key: ApiKey::new("Bearer ", KEY).unwrap(),
    };
    for pieces in [
        &["data: {\"type\":\"response.created\"}\n\n", "data: {\"type\":,}\n\n"][..],
        &["data: {\"type\":,}\n\n"],
        &[],
    ] {
        let watch = Watch::new(&head, asked.clone());
        let mut late = Committed::new(watch, 1 << 16, "openai", KEY.to_owned(), 200);
        let (sent, ended) = through(&mut late, pieces, true);
        assert!(sent.starts_with("event: response.failed\ndata: {\"type\":\"response.failed\","), "{sent}");
        assert_ne!(ended, Some(Outcome::Answered));
    }
}
