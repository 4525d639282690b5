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

/// The stream of a response.
fn responses() -> Committed {
    stream_of(Endpoint::Responses, Wire::OpenAi)
}

fn stream_of(endpoint: Endpoint, wire: Wire) -> Committed {
    let head = Head { status: 200, retry_after: None };
    let asked = Asked {
        endpoint,
        stream: true,
        usage: true,
        release: Release::FirstToken,
        wire,
        defaults: Defaults { id: "x".to_owned(), created: 1, model: "m".to_owned(), ..Defaults::default() },
        key: ApiKey::new("Bearer ", KEY).unwrap(),
    };
    Committed::new(Watch::new(&head, asked), 1 << 16, "openai", KEY.to_owned(), 200)
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

/// A stream of chat completions that ends in one of the ways in which a stream can end badly.
fn bad_ends() -> Vec<(&'static str, Outcome)> {
    vec![
        ("data: {\"error\":{\"message\":\"m\",\"code\":\"server_is_overloaded\"}}\n\n", Outcome::Truncated),
        ("event: error\ndata: {\"message\":\"m\",\"type\":\"t\"}\n\n", Outcome::Truncated),
        ("event: error\ndata: not JSON\n\n", Outcome::Truncated),
        ("{\"error\":{\"message\":\"m\",\"code\":\"content_filter\"}}\n\n", Outcome::Refused),
        ("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":,}}]}\n\n", Outcome::Garbled),
        ("data: [DONE]\n\n", Outcome::Truncated),
        ("data: {\"choices\":[{\"index\":0,\"delta\":{\"con", Outcome::Truncated),
        ("", Outcome::Truncated),
    ]
}

#[test]
fn what_came_before_a_bad_end_reaches_the_client_however_the_bytes_are_cut() {
    for (bad, outcome) in bad_ends() {
        for rest in ["", FINISH] {
            let begin = [ROLE, HELLO, HELLO].concat();
            let all = [&*begin, bad, if bad.ends_with("\n\n") { rest } else { "" }].concat();
            let (whole, ended) = through(&mut late(200, true), &[&all], true);
            assert_eq!(ended, Some(outcome), "{bad}");
            let told = whole.strip_prefix(&begin).unwrap_or_else(|| panic!("{bad}: {whole}"));
            assert!(told.starts_with("data: {\"error\":{") && told.ends_with("}\n\n"), "{told}");
            assert_eq!((told.matches("data:").count(), told.contains("[DONE]")), (1, false), "{told}");
            for cut in 0..=all.len() {
                let (one, two) = all.split_at(cut);
                let cut_once = through(&mut late(200, true), &[one, two], true);
                assert_eq!(cut_once, (whole.clone(), Some(outcome)), "{bad} {cut}");
            }
            let bytes: Vec<&str> = all.split_inclusive(|_| true).collect();
            assert_eq!(through(&mut late(200, true), &bytes, true), (whole, Some(outcome)), "{bad}");
        }
    }
}

#[test]
fn what_anthropic_said_before_an_error_reaches_the_client_however_the_bytes_are_cut() {
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n";
    let all = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        delta,
        delta,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
    ]
    .concat();
    let whole = through(&mut stream_of(Endpoint::Chat, Wire::Anthropic), &[&all], true);
    assert_eq!((whole.0.matches("\"Hello\"").count(), whole.1), (2, Some(Outcome::Truncated)), "{}", whole.0);
    assert!(
        whole.0.trim_end().ends_with("}}") && whole.0.contains("Overloaded") && !whole.0.contains("[DONE]")
    );
    for cut in 0..=all.len() {
        let (one, two) = all.split_at(cut);
        let cut_once = through(&mut stream_of(Endpoint::Chat, Wire::Anthropic), &[one, two], true);
        assert_eq!(cut_once, whole, "{cut}");
    }
}

#[test]
fn content_in_the_last_piece_reaches_the_client_if_the_answer_ends_there() {
    let mut late = late(200, true);
    let piece = [ROLE, HELLO].concat();
    let Forward { replace, ended } = late.take(piece.as_bytes(), true);
    let sent = String::from_utf8(replace.unwrap()).unwrap();
    assert!(sent.starts_with(&piece) && sent.contains("stream_truncated"), "{sent}");
    assert_eq!(ended, Some(Outcome::Truncated));
}

#[test]
fn an_error_before_any_content_is_all_that_the_client_gets() {
    let error = "data: {\"error\":{\"message\":\"m\",\"code\":\"rate_limit_exceeded\"}}\n\n";
    for pieces in
        [&[ROLE, error][..], &[&[ROLE, error].concat()], &[&[": hello\n\n", ROLE, error, HELLO].concat()]]
    {
        let (out, ended) = through(&mut late(200, true), pieces, true);
        assert!(out.starts_with("data: {\"error\":{") && out.matches("data:").count() == 1, "{out}");
        assert_eq!(ended, Some(Outcome::RateLimited));
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
fn a_long_event_that_breaks_in_the_piece_that_began_it_takes_nothing_before_it_along() {
    let begin = ["data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", &"x".repeat(9 << 20)].concat();
    let piece = [ROLE, HELLO, &*begin].concat();
    for pieces in [&[&*piece, "x\"x", "\"}}]}\n\n", FINISH][..], &[ROLE, HELLO, &begin, "x\"x", FINISH]] {
        let mut late = late(200, true);
        let (out, ended) = through(&mut late, pieces, false);
        assert_eq!((ended, late.is_torn()), (Some(Outcome::Garbled), true));
        assert!(out.starts_with(&[ROLE, HELLO].concat()) && !out.contains("[DONE]"));
        let (_, told) = out.rsplit_once("xxx\n\n").unwrap();
        assert!(told.starts_with("data: {\"error\":{") && told.contains("stream_truncated"), "{told}");
    }
}

#[test]
fn a_response_that_fails_after_content_keeps_it_however_the_bytes_are_cut() {
    let created = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"created_at\":1,\"model\":\"m\",\"status\":\"in_progress\",\"output\":[]}}\n\n";
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"Hello\"}\n\n";
    for bad in [
        "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\",\"sequence_number\":2}\n\n",
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":2,\"response\":{\"id\":\"r\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"m\"}}}\n\n",
        "{\"error\":{\"message\":\"m\",\"code\":\"server_error\"}}\n\n",
        "data: {\"type\":,}\n\n",
        "",
    ] {
        let begin = [created, delta, delta].concat();
        let all = [&*begin, bad].concat();
        let whole = through(&mut responses(), &[&all], true);
        let told = whole.0.strip_prefix(&begin).unwrap_or_else(|| panic!("{bad}: {}", whole.0));
        assert_eq!((told.matches("data:").count(), whole.1), (1, whole.1.filter(|end| *end != Outcome::Answered)), "{told}");
        for cut in 0..=all.len() {
            let (one, two) = all.split_at(cut);
            assert_eq!(through(&mut responses(), &[one, two], true), whole, "{bad} {cut}");
        }
    }
}

#[test]
fn a_response_with_a_hole_before_its_release_fails_as_its_api_says() {
    for pieces in [
        &["data: {\"type\":\"response.created\"}\n\n", "data: {\"type\":,}\n\n"][..],
        &["data: {\"type\":,}\n\n"],
        &[],
    ] {
        let (sent, ended) = through(&mut responses(), pieces, true);
        assert!(sent.starts_with("event: response.failed\ndata: {\"type\":\"response.failed\","), "{sent}");
        assert_ne!(ended, Some(Outcome::Answered));
    }
}
