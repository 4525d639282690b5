#![expect(clippy::string_slice, reason = "the texts here are ASCII, and a test fails by panicking")]

use super::*;

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const WORLD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" world\"}}]}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n";
const DONE_EVENT: &str = "data: [DONE]\n\n";
const ERROR: &str = "event: error\ndata: {\"error\":{\"message\":\"m\",\"code\":\"slow_down\"}}\n\n";
const COMMENT: &str = ": keep-alive\n\n";

const MAX_HELD: usize = 1 << 20;
const PROVIDER: &str = "openai";
const SSE: Head<'_> = Head { status: 200, content_type: "text/event-stream", retry_after: None };

fn broken() -> String {
    String::from_utf8(broken_stream_event(PROVIDER)).unwrap()
}

/// What came of a response.
#[derive(Debug, PartialEq)]
struct Passed {
    /// What the client got.
    sent: String,
    /// How it ended: by the verdict, if that came at the end or stopped it, else by what the relay told.
    outcome: Option<Outcome>,
}

/// Does what the host does: holds the pieces, judges, releases in one piece, relays the rest. `apart` says that the end is
/// told by an empty piece of its own.
fn pass(release: Release, pieces: &[&str], apart: bool) -> Passed {
    let mut watch = Watch::new(&SSE, true, release);
    let mut all: Vec<(&[u8], bool)> = pieces.iter().map(|piece| (piece.as_bytes(), false)).collect();
    if apart {
        all.push((b"", true));
    } else if let Some(last) = all.last_mut() {
        last.1 = true;
    }
    let mut held: Vec<u8> = Vec::new();
    let mut sent: Vec<u8> = Vec::new();
    let mut outcome = None;
    let mut released = false;
    for (piece, end) in all {
        if released {
            let relay = watch.relay(piece, end, PROVIDER);
            sent.extend(relay.replace.as_deref().unwrap_or(piece));
            if let Some(ended) = relay.ended {
                assert_eq!(outcome.replace(ended), None, "the end is told once");
            }
            continue;
        }
        held.extend_from_slice(piece);
        let Step::Judged(verdict) = watch.withhold(piece, end, held.len(), MAX_HELD) else {
            assert!(!end, "the end must be judged");
            continue;
        };
        if verdict.outcome != Outcome::Answered {
            outcome = Some(verdict.outcome);
            break;
        }
        let (cut, behind) = watch.release(end, PROVIDER);
        sent.extend_from_slice(&held[..held.len() - cut]);
        sent.extend(behind);
        released = true;
        if end || watch.is_closed() {
            outcome = Some(Outcome::Answered);
        }
    }
    Passed { sent: String::from_utf8(sent).unwrap(), outcome }
}

/// Every cut into two pieces, and into three with a short one (up to a CR LF CR LF and a bit) in the middle.
fn piece_pairs(text: &str) -> impl Iterator<Item = [&str; 3]> {
    const MIDDLE: usize = 6;
    (0..text.len()).flat_map(move |first| {
        let seconds = first..(first + MIDDLE).min(text.len());
        seconds.map(move |second| [&text[..first], &text[first..second], &text[second..]])
    })
}

/// A stream that begins well and goes on with `rest`: `expected` comes out for it, however it is cut into pieces.
fn goes_on(rest: &str, expected: &str, outcome: Outcome) {
    let begin = [ROLE, HELLO].concat();
    let expected = Passed { sent: [begin.as_str(), expected].concat(), outcome: Some(outcome) };
    for apart in [false, true] {
        assert_eq!(pass(Release::FirstToken, &[&begin, rest], apart), expected, "in one piece, {apart}");
        for [first, second, third] in piece_pairs(rest) {
            let pieces = [&begin, first, second, third];
            assert_eq!(pass(Release::FirstToken, &pieces, apart), expected, "{pieces:?} {apart}");
        }
        let mut bytes: Vec<&str> = vec![&begin];
        bytes.extend((0..rest.len()).map(|at| &rest[at..=at]));
        assert_eq!(pass(Release::FirstToken, &bytes, apart), expected, "byte by byte, {apart}");
    }
}

fn withheld(body: &str, release: Release) -> Step {
    Watch::new(&SSE, true, release).withhold(body.as_bytes(), true, body.len(), MAX_HELD)
}

fn outcome_of(step: Step) -> Outcome {
    match step {
        Step::Judged(verdict) => verdict.outcome,
        Step::Hold => panic!("still held"),
    }
}

// Which watch for which response.

#[test]
fn what_is_fed_follows_from_the_head_and_the_request() {
    let held = 77;
    for (status, content_type, stream, wants) in [
        (200, "application/json", false, Wants::Everything(held)),
        (200, "", false, Wants::Everything(held)),
        (200, "text/event-stream", false, Wants::Everything(held)),
        (200, "application/json; charset=utf-8", true, Wants::Everything(held)),
        (200, " Application/JSON", true, Wants::Everything(held)),
        (200, "text/event-stream", true, Wants::Pieces),
        (201, "text/plain", true, Wants::Pieces),
        (200, "", true, Wants::Pieces),
        (500, "application/json", true, Wants::Everything(LONGEST_ERROR)),
        (302, "", false, Wants::Everything(LONGEST_ERROR)),
        (199, "", true, Wants::Everything(LONGEST_ERROR)),
        (0, "", true, Wants::Everything(LONGEST_ERROR)),
    ] {
        let head = Head { status, content_type, retry_after: None };
        let watch = Watch::new(&head, stream, Release::FirstToken);
        assert_eq!(watch.wants(held), wants, "{head:?} {stream}");
    }
}

// Judging what is held whole.

#[test]
fn an_error_is_judged_by_its_status_and_its_body() {
    let quota = r#"{"error":{"message":"m","type":"t","param":null,"code":"insufficient_quota"}}"#;
    for (status, body, outcome) in [
        (500, "", Outcome::ServerError),
        (503, "<html>", Outcome::Overloaded),
        (429, "", Outcome::RateLimited),
        (429, quota, Outcome::OutOfQuota),
        (401, "{", Outcome::BadKey),
        (404, "{}", Outcome::NoSuchModel),
        (400, r#"{"error":{"code":"context_length_exceeded"}}"#, Outcome::TooLong),
        (400, r#"{"error":{"code":"content_filter"}}"#, Outcome::Refused),
        (422, r#"{"detail":[]}"#, Outcome::BadRequest),
        (307, quota, Outcome::ServerError),
    ] {
        let head = Head { status, retry_after: Some(Duration::from_secs(7)), ..Head::default() };
        let verdict = Watch::new(&head, true, Release::FirstToken).judge(body.as_bytes(), true);
        let expected = Verdict { outcome, status: Some(status), retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(verdict, expected, "{status} {body}");
    }
}

#[test]
fn an_error_body_that_is_too_long_is_judged_by_its_status() {
    let body =
        format!(r#"{{"error":{{"code":"insufficient_quota","message":"{}"}}}}"#, "x".repeat(LONGEST_ERROR));
    let head = Head { status: 429, ..Head::default() };
    let watch = Watch::new(&head, false, Release::FirstToken);
    assert_eq!(watch.judge(body.as_bytes(), true).outcome, Outcome::RateLimited);
    assert_eq!(watch.judge(&body.as_bytes()[..100], false).outcome, Outcome::RateLimited);
}

#[test]
fn a_whole_answer_is_one_only_if_it_answers() {
    let head = Head { status: 200, content_type: "application/json", ..Head::default() };
    for (body, asked, instead) in [
        (
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}"#,
            Outcome::Answered,
            Outcome::ServerError,
        ),
        (
            r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#,
            Outcome::Answered,
            Outcome::ServerError,
        ),
        (r#"{"choices":[{"message":{"content":""}}]}"#, Outcome::ServerError, Outcome::ServerError),
        (r#"{"choices":[]}"#, Outcome::ServerError, Outcome::ServerError),
        ("", Outcome::ServerError, Outcome::ServerError),
        ("null", Outcome::ServerError, Outcome::ServerError),
        (r#"{"choices":[{"message":{"content":"x"}"#, Outcome::ServerError, Outcome::ServerError),
        ("<html>", Outcome::ServerError, Outcome::ServerError),
        (r#"{"error":{"code":"slow_down"}}"#, Outcome::Overloaded, Outcome::Overloaded),
        (r#"{"error":{"code":429}}"#, Outcome::RateLimited, Outcome::RateLimited),
        (r#"{"error":{"message":"no"}}"#, Outcome::ServerError, Outcome::ServerError),
    ] {
        for (stream, outcome) in [(false, asked), (true, instead)] {
            let verdict = Watch::new(&head, stream, Release::FirstToken).judge(body.as_bytes(), true);
            assert_eq!(verdict.outcome, outcome, "{body} {stream}");
        }
    }
}

#[test]
fn an_answer_too_long_to_be_held_is_released_unless_a_stream_was_asked_for() {
    let head = Head { status: 200, content_type: "application/json", ..Head::default() };
    let part = br#"{"choices":[{"message":{"content":"xxxx"#;
    assert_eq!(Watch::new(&head, false, Release::FirstToken).judge(part, false).outcome, Outcome::Answered);
    assert_eq!(Watch::new(&head, true, Release::FirstToken).judge(part, false).outcome, Outcome::ServerError);
}

#[test]
fn an_answer_in_a_form_that_cannot_be_read_fails() {
    let zipped = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV*\n\n";
    for stream in [false, true] {
        let mut watch = Watch::new(&SSE, stream, Release::FirstToken);
        assert_eq!(outcome_of(watch.withhold(zipped, true, zipped.len(), MAX_HELD)), Outcome::ServerError);
    }
}

#[test]
fn what_is_no_stream_passes_untouched() {
    let head = Head { status: 200, content_type: "application/json", ..Head::default() };
    let mut watch = Watch::new(&head, false, Release::FirstToken);
    assert_eq!(watch.release(true, PROVIDER), (0, Vec::new()));
    assert_eq!(watch.relay(b"x", true, PROVIDER), Relay { replace: None, ended: None });
    assert!(!watch.is_closed());
}

// Withholding a stream.

#[test]
fn a_stream_is_held_until_its_first_content() {
    let mut watch = Watch::new(&SSE, true, Release::FirstToken);
    for held in [
        COMMENT,
        "\n\n",
        "id: 4\n\n",
        ROLE,
        USAGE,
        "data: not json\n\n",
        "data: \n\n",
        "data: {\"choices\":[{\"delta\"",
    ] {
        assert_eq!(watch.withhold(held.as_bytes(), false, 100, MAX_HELD), Step::Hold, "{held}");
    }
    let step = watch.withhold(b":{\"content\":\"x\"}}]}\n\n", false, 100, MAX_HELD);
    assert_eq!(outcome_of(step), Outcome::Answered);
}

#[test]
fn every_kind_of_content_releases_a_stream() {
    for delta in [
        r#""delta":{"content":"x"}"#,
        r#""delta":{"reasoning_content":"x"}"#,
        r#""delta":{"tool_calls":[{}]}"#,
        r#""delta":{"refusal":"x"}"#,
        r#""delta":{"audio":{"id":"x"}}"#,
        r#""delta":{},"finish_reason":"length""#,
    ] {
        let event = format!("data: {{\"choices\":[{{{delta}}}]}}\n\n");
        let mut watch = Watch::new(&SSE, true, Release::FirstToken);
        assert_eq!(
            outcome_of(watch.withhold(event.as_bytes(), false, 1, MAX_HELD)),
            Outcome::Answered,
            "{delta}"
        );
    }
}

#[test]
fn a_stream_that_ends_while_it_is_held_is_judged_by_what_it_said() {
    for (body, outcome) in [
        (vec![], Outcome::ServerError),
        (vec![COMMENT], Outcome::ServerError),
        (vec![USAGE], Outcome::ServerError),
        (vec![DONE_EVENT], Outcome::ServerError),
        (vec!["<html>"], Outcome::ServerError),
        (vec!["data: <html>\n\n"], Outcome::ServerError),
        (vec![ROLE], Outcome::Truncated),
        (vec![ROLE, DONE_EVENT], Outcome::Truncated),
        (vec![ROLE, HELLO], Outcome::Truncated),
        (vec![ROLE, HELLO, DONE_EVENT], Outcome::Truncated),
        (vec![ROLE, HELLO, DONE_EVENT, FINISH], Outcome::Truncated),
        (vec![ROLE, FINISH], Outcome::Answered),
        (vec![ROLE, HELLO, FINISH, USAGE, DONE_EVENT], Outcome::Answered),
        (vec![ERROR], Outcome::Overloaded),
        (vec![ROLE, ERROR], Outcome::Overloaded),
        (vec![ROLE, HELLO, FINISH, ERROR], Outcome::Overloaded),
        (vec!["event: error\ndata: it broke\n\n"], Outcome::ServerError),
        (vec!["event: error\ndata: {}\n\n"], Outcome::ServerError),
        (vec![r#"{"error":{"code":"insufficient_quota"}}"#], Outcome::OutOfQuota),
        (vec![r#"{"error":{"message":"no"}}"#], Outcome::ServerError),
    ] {
        let body = body.concat();
        for release in [Release::FirstToken, Release::Complete] {
            assert_eq!(outcome_of(withheld(&body, release)), outcome, "{body} {release:?}");
        }
    }
}

#[test]
fn an_error_before_content_is_judged_at_once() {
    let mut watch = Watch::new(&SSE, true, Release::FirstToken);
    assert_eq!(watch.withhold(ROLE.as_bytes(), false, 10, MAX_HELD), Step::Hold);
    assert_eq!(outcome_of(watch.withhold(ERROR.as_bytes(), false, 20, MAX_HELD)), Outcome::Overloaded);
}

#[test]
fn json_in_a_streams_clothes_tells_the_same_in_pieces_as_in_one() {
    let body = r#"{"error":{"code":"insufficient_quota","message":"m"}}"#;
    for at in 0..body.len() {
        let passed = pass(Release::FirstToken, &[&body[..at], &body[at..]], false);
        assert_eq!(passed.outcome, Some(Outcome::OutOfQuota), "split at {at}");
    }
}

#[test]
fn what_exceeds_the_bound_is_released_unjudged() {
    for release in [Release::FirstToken, Release::Complete] {
        let mut watch = Watch::new(&SSE, true, release);
        let piece = [ROLE, "data: {\"cho"].concat();
        let held = piece.len();
        assert_eq!(watch.withhold(piece.as_bytes(), false, held, held), Step::Hold);
        let step = watch.withhold(b"ices", false, held + 4, held);
        assert_eq!(outcome_of(step), Outcome::Answered);
        assert_eq!(watch.release(false, PROVIDER), ("data: {\"choices".len(), Vec::new()));
        let relay = watch.relay(b"\":[]}\n\n", true, PROVIDER);
        let expected = ["data: {\"choices\":[]}\n\n", &broken()].concat();
        assert_eq!(relay, Relay { replace: Some(expected.into_bytes()), ended: Some(Outcome::Truncated) });
    }
}

#[test]
fn an_endless_event_passes_and_ends_as_an_answer() {
    let mut watch = Watch::new(&SSE, true, Release::FirstToken);
    let begin = [ROLE, HELLO].concat();
    assert_eq!(outcome_of(watch.withhold(begin.as_bytes(), false, begin.len(), MAX_HELD)), Outcome::Answered);
    assert_eq!(watch.release(false, PROVIDER), (0, Vec::new()));
    let piece = vec![b'x'; 1 << 20];
    let mut passed = 0;
    for _ in 0..12 {
        let relay = watch.relay(&piece, false, PROVIDER);
        assert_eq!(relay.ended, None);
        passed += relay.replace.map_or(piece.len(), |bytes| bytes.len());
    }
    assert_eq!(passed, 12 << 20);
    assert_eq!(watch.relay(b"", true, PROVIDER).ended, Some(Outcome::Answered));
}

#[test]
fn an_endless_event_before_any_content_is_not_held_for_ever() {
    let mut watch = Watch::new(&SSE, true, Release::Complete);
    let piece = vec![b'x'; 9 << 20];
    assert_eq!(outcome_of(watch.withhold(&piece, false, piece.len(), usize::MAX)), Outcome::Answered);
    assert_eq!(watch.release(false, PROVIDER), (0, Vec::new()));
}

// Releasing.

#[test]
fn only_whole_events_are_released() {
    let begin = [ROLE, HELLO].concat();
    for rest in [FINISH, DONE_EVENT, COMMENT, "event: x\ndata: y\n\n"] {
        for at in 0..rest.len() {
            let mut watch = Watch::new(&SSE, true, Release::FirstToken);
            let piece = [&begin, &rest[..at]].concat();
            assert_eq!(
                outcome_of(watch.withhold(piece.as_bytes(), false, piece.len(), MAX_HELD)),
                Outcome::Answered
            );
            assert_eq!(watch.release(false, PROVIDER), (at, Vec::new()), "{rest} cut at {at}");
        }
    }
}

#[test]
fn a_stream_is_released_in_one_piece_and_relayed_after_it() {
    let mut watch = Watch::new(&SSE, true, Release::FirstToken);
    assert_eq!(watch.withhold(ROLE.as_bytes(), false, ROLE.len(), MAX_HELD), Step::Hold);
    let piece = [HELLO, "data: {"].concat();
    let held = ROLE.len() + piece.len();
    assert_eq!(outcome_of(watch.withhold(piece.as_bytes(), false, held, MAX_HELD)), Outcome::Answered);
    assert_eq!(watch.release(false, PROVIDER), (7, Vec::new()));
    let relay = watch.relay(b"\"choices\":[]}\n\n", false, PROVIDER);
    assert_eq!(relay, Relay { replace: Some(b"data: {\"choices\":[]}\n\n".to_vec()), ended: None });
    assert_eq!(watch.relay(WORLD.as_bytes(), false, PROVIDER), Relay { replace: None, ended: None });
    assert_eq!(watch.relay(b"data", false, PROVIDER), Relay { replace: Some(Vec::new()), ended: None });
}

#[test]
fn a_stream_that_is_complete_when_it_is_released_is_completed_there() {
    for (rest, behind) in [
        (vec![FINISH, DONE_EVENT], ""),
        (vec![FINISH], DONE_EVENT),
        (vec![FINISH, USAGE], DONE_EVENT),
        (vec![FINISH.trim_end()], "\n\ndata: [DONE]\n\n"),
        (vec![FINISH, "data: [DONE]"], "\n\n"),
    ] {
        for release in [Release::FirstToken, Release::Complete] {
            let body = [ROLE, HELLO, &rest.concat()].concat();
            let expected = Passed { sent: [&body, behind].concat(), outcome: Some(Outcome::Answered) };
            assert_eq!(pass(release, &[&body], false), expected, "{body} {release:?}");
        }
    }
}

#[test]
fn half_an_event_behind_a_finished_answer_is_not_released() {
    let body = [ROLE, HELLO, FINISH, "data: {\"choi"].concat();
    let expected = [ROLE, HELLO, FINISH, DONE_EVENT].concat();
    assert_eq!(pass(Release::FirstToken, &[&body], false).sent, expected);
}

#[test]
fn complete_holds_a_stream_to_its_end() {
    let mut watch = Watch::new(&SSE, true, Release::Complete);
    for event in [ROLE, HELLO, WORLD, FINISH, USAGE] {
        assert_eq!(watch.withhold(event.as_bytes(), false, 500, MAX_HELD), Step::Hold, "{event}");
    }
    assert_eq!(outcome_of(watch.withhold(b"", true, 500, MAX_HELD)), Outcome::Answered);
    assert_eq!(watch.release(true, PROVIDER), (0, DONE_EVENT.as_bytes().to_vec()));
}

#[test]
fn complete_lets_no_broken_stream_out() {
    for (rest, outcome) in
        [(ERROR, Outcome::Overloaded), (DONE_EVENT, Outcome::Truncated), ("", Outcome::Truncated)]
    {
        let body = [ROLE, HELLO, WORLD, rest].concat();
        for at in 1..body.len() {
            let passed = pass(Release::Complete, &[&body[..at], &body[at..]], false);
            assert_eq!(passed, Passed { sent: String::new(), outcome: Some(outcome) }, "split at {at}");
        }
    }
}

#[test]
fn a_good_stream_is_the_same_for_every_split_of_the_whole() {
    let body = [COMMENT, ROLE, HELLO, COMMENT, FINISH, DONE_EVENT].concat();
    let expected = Passed { sent: body.clone(), outcome: Some(Outcome::Answered) };
    for release in [Release::FirstToken, Release::Complete] {
        for [first, second, third] in piece_pairs(&body) {
            assert_eq!(
                pass(release, &[first, second, third], false),
                expected,
                "{first:?} {second:?} {third:?}"
            );
        }
    }
}

#[test]
fn a_stream_whose_done_was_read_before_its_release_is_over_then() {
    let body = [ROLE, HELLO, FINISH, DONE_EVENT].concat();
    for release in [Release::FirstToken, Release::Complete] {
        let passed = pass(release, &[&body], true);
        assert_eq!(passed.sent, body);
        assert_eq!(passed.outcome, Some(Outcome::Answered), "{release:?}");
    }
}

// Relaying: the rest of a stream that was released.

#[test]
fn a_normal_stream_passes_as_it_is() {
    let rest = [WORLD, FINISH, DONE_EVENT].concat();
    goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn whole_events_are_passed_on_without_a_copy() {
    let mut watch = Watch::new(&SSE, true, Release::FirstToken);
    let _ = watch.withhold(HELLO.as_bytes(), false, HELLO.len(), MAX_HELD);
    let _ = watch.release(false, PROVIDER);
    for event in [WORLD, FINISH, USAGE, COMMENT] {
        assert_eq!(
            watch.relay(event.as_bytes(), false, PROVIDER),
            Relay { replace: None, ended: None },
            "{event}"
        );
    }
}

#[test]
fn a_stream_with_crlf_passes_as_it_is() {
    // Its [DONE] ends with a line feed: the end of a CR LF one is the next test's.
    let rest = [&[WORLD, COMMENT, FINISH].concat().replace('\n', "\r\n"), DONE_EVENT].concat();
    goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn the_last_line_feed_of_a_done_with_crlf_is_not_lost_in_a_split() {
    let rest = [FINISH, DONE_EVENT].concat().replace('\n', "\r\n");
    let begin = [ROLE, HELLO].concat();
    for at in 0..rest.len() {
        let whole = pass(Release::FirstToken, &[&begin, &rest], false);
        let passed = pass(Release::FirstToken, &[&begin, &rest[..at], &rest[at..]], false);
        assert_eq!(passed, whole, "split at {at} of {}", rest.len());
    }
}

#[test]
fn a_stream_with_bare_cr_passes_as_it_is() {
    let rest = [&[WORLD, FINISH].concat().replace('\n', "\r"), DONE_EVENT].concat();
    goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn a_finished_stream_without_done_gets_it() {
    let rest = [WORLD, FINISH, USAGE].concat();
    goes_on(&rest, &[&rest, DONE_EVENT].concat(), Outcome::Answered);
}

#[test]
fn a_stream_that_ends_in_the_middle_gets_a_typed_error_and_no_done() {
    goes_on(WORLD, &[WORLD, &broken()].concat(), Outcome::Truncated);
    goes_on(&[WORLD, USAGE].concat(), &[WORLD, USAGE, &broken()].concat(), Outcome::Truncated);
    let event: serde_json::Value = serde_json::from_str(broken()["data: ".len()..].trim()).unwrap();
    assert_eq!(event["error"]["code"], "stream_truncated");
}

#[test]
fn half_an_event_at_the_end_never_passes() {
    for at in 5..FINISH.trim_end().len() {
        let rest = [WORLD, &FINISH[..at]].concat();
        let passed = pass(Release::FirstToken, &[HELLO, &rest], false);
        let expected = Passed { sent: [HELLO, WORLD, &broken()].concat(), outcome: Some(Outcome::Truncated) };
        assert_eq!(passed, expected, "cut at {at}");
    }
    goes_on(
        &[WORLD, "data: {\"choices\":[{\"ind"].concat(),
        &[WORLD, &broken()].concat(),
        Outcome::Truncated,
    );
}

#[test]
fn the_name_of_an_event_without_its_data_never_passes() {
    // Clients that hand out an event for every blank line would read an empty one, and fail to parse it.
    for half in ["event: error", "event: error\n", "id: 7\n", "retry"] {
        let passed = pass(Release::FirstToken, &[HELLO, half], false);
        assert_eq!(passed.sent, [HELLO, &broken()].concat(), "{half:?}");
    }
}

#[test]
fn a_done_that_lies_is_replaced_by_a_typed_error() {
    goes_on(&[WORLD, DONE_EVENT].concat(), &[WORLD, &broken()].concat(), Outcome::Truncated);
    goes_on("data:  [DONE] \n\n", &broken(), Outcome::Truncated);
    goes_on("data: [DONE]", &broken(), Outcome::Truncated);
}

#[test]
fn nothing_passes_behind_a_done_that_lies() {
    goes_on(&[WORLD, DONE_EVENT, FINISH].concat(), &[WORLD, &broken()].concat(), Outcome::Truncated);
}

#[test]
fn an_error_event_passes_and_the_done_behind_it_does_not() {
    goes_on(&[WORLD, ERROR, DONE_EVENT].concat(), &[WORLD, ERROR].concat(), Outcome::Truncated);
    goes_on(&[WORLD, ERROR].concat(), &[WORLD, ERROR].concat(), Outcome::Truncated);
    goes_on(&[FINISH, ERROR, DONE_EVENT].concat(), &[FINISH, ERROR].concat(), Outcome::Truncated);
}

#[test]
fn an_error_event_that_cannot_be_read_is_one_too() {
    let error = "event: error\ndata: it broke\n\n";
    goes_on(&[error, DONE_EVENT].concat(), error, Outcome::Truncated);
}

#[test]
fn a_last_event_without_its_blank_line_is_completed() {
    for (line_ends, added) in [("", "\n\n"), ("\n", "\n\n")] {
        let finish = [FINISH.trim_end(), line_ends].concat();
        let rest = [WORLD, &finish].concat();
        goes_on(&rest, &[&rest, added, DONE_EVENT].concat(), Outcome::Answered);
    }
    let rest = [WORLD, FINISH, "data: [DONE]"].concat();
    goes_on(&rest, &[&rest, "\n\n"].concat(), Outcome::Answered);
}

#[test]
fn a_stream_of_two_choices_is_finished_when_both_are() {
    let second = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n";
    let finish = "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let rest = [second, finish, FINISH, DONE_EVENT].concat();
    goes_on(&rest, &rest, Outcome::Answered);
    let rest = [second, FINISH].concat();
    let cut = [rest.as_str(), &broken()].concat();
    goes_on(&rest, &cut, Outcome::Truncated);
    goes_on(&[&rest, DONE_EVENT].concat(), &cut, Outcome::Truncated);
}

#[test]
fn comments_between_events_pass() {
    let rest = [COMMENT, WORLD, COMMENT, "\n\n", FINISH, COMMENT, DONE_EVENT].concat();
    goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn nothing_passes_behind_a_done() {
    let rest = [FINISH, DONE_EVENT].concat();
    for behind in [WORLD, COMMENT, "junk", "data: [DONE]\n\n"] {
        goes_on(&[&rest, behind].concat(), &rest, Outcome::Answered);
    }
}

#[test]
fn half_an_error_behind_a_finished_answer_takes_nothing_from_it() {
    let rest = [WORLD, FINISH, "event: error\ndata: {\"error\":{\"m"].concat();
    goes_on(&rest, &[WORLD, FINISH, DONE_EVENT].concat(), Outcome::Answered);
}
