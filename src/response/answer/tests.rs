#![expect(clippy::string_slice, reason = "the texts here are ASCII, and a test fails by panicking")]

mod counted;
mod integrity;
mod kinds;
mod messages;
mod told;

use super::*;
use crate::client_api::errors::broken_stream_event;
use crate::client_api::request::Endpoint;
use crate::config::Release;
use crate::dialects::schema::Defaults;
use crate::health::outcome::Doubt;
use crate::routing::provider::ApiKey;
use crate::spend::reported::Reconciled;

/// A chunk as OpenAI sends it, so that it passes as it is.
macro_rules! chunk {
    ($choices:literal) => {
        concat!(
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,",
            "\"model\":\"gpt-5.4\",\"choices\":[",
            $choices,
            "]}\n\n"
        )
    };
}

const ROLE: &str = chunk!(r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#);
const HELLO: &str = chunk!(r#"{"index":0,"delta":{"content":"Hello"},"finish_reason":null}"#);
const WORLD: &str = chunk!(r#"{"index":0,"delta":{"content":" world"},"finish_reason":null}"#);
const FINISH: &str = chunk!(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
const USAGE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-5.4\",\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":1,\"total_tokens\":3}}\n\n";
const DONE_EVENT: &str = "data: [DONE]\n\n";
const ERROR: &str = "event: error\ndata: {\"error\":{\"message\":\"m\",\"code\":\"slow_down\"}}\n\n";
const ENVELOPE: &str =
    "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"param\":null,\"code\":\"slow_down\"}}\n\n";
const COMMENT: &str = ": keep-alive\n\n";

const MAX_HELD: usize = 1 << 20;
const PROVIDER: &str = "openai";
const KEY: &str = "0123456789abcdef";
const SSE: Head = Head { status: 200, retry_after: None };

/// A chat's stream with its usage, asked of a provider that speaks as OpenAI does.
fn asked(release: Release) -> Asked {
    Asked {
        endpoint: Endpoint::Chat,
        stream: true,
        usage: true,
        release,
        wire: Wire::OpenAi,
        defaults: Defaults {
            id: "chatcmpl-shunt".to_owned(),
            created: 1_790_000_000,
            model: "m".to_owned(),
            input: std::rc::Rc::new(crate::client_api::request::Input::with_tokens(7)),
            ..Defaults::default()
        },
        key: ApiKey::new("Bearer ", KEY).unwrap(),
    }
}

fn watch(head: &Head, stream: bool, release: Release) -> Watch {
    Watch::new(head, Asked { stream, ..asked(release) })
}

fn streamed(release: Release) -> Watch {
    watch(&SSE, true, release)
}

fn broken() -> String {
    String::from_utf8(broken_stream_event(PROVIDER)).unwrap()
}

/// What came of a response.
#[derive(Clone, Debug, PartialEq)]
struct Passed {
    /// What the client got.
    sent: String,
    /// How it ended: by the verdict, if that came at the end or stopped it, else by what the relay told.
    outcome: Option<Outcome>,
}

/// Does what the host does: holds the pieces, judges, releases in one piece, relays the rest. `apart` says that the end is
/// told by an empty piece of its own.
fn pass(release: Release, pieces: &[&str], apart: bool) -> Passed {
    pass_as(&asked(release), pieces, apart).0
}

/// The same for a response that was asked for otherwise, with the tokens at its end.
fn pass_as(asked: &Asked, pieces: &[&str], apart: bool) -> (Passed, Tally) {
    let mut watch = Watch::new(&SSE, asked.clone());
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
        let Step::Judged(judged) = watch.withhold(piece, end, held.len(), MAX_HELD) else {
            assert!(!end, "the end must be judged");
            continue;
        };
        if judged.verdict.outcome != Outcome::Answered {
            outcome = Some(judged.verdict.outcome);
            break;
        }
        sent.extend(watch.release(end, PROVIDER).unwrap_or_else(|| held.clone()));
        released = true;
        if end || watch.is_closed() {
            outcome = Some(Outcome::Answered);
        }
    }
    (Passed { sent: String::from_utf8(sent).unwrap(), outcome }, watch.tally())
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
fn assert_goes_on(rest: &str, expected: &str, outcome: Outcome) {
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
    streamed(release).withhold(body.as_bytes(), true, body.len(), MAX_HELD)
}

fn outcome_of(step: Step) -> Outcome {
    match step {
        Step::Judged(judged) => judged.verdict.outcome,
        Step::Hold => panic!("still held"),
    }
}

// Which watch for which response.

#[test]
fn what_is_fed_follows_from_the_head_and_the_request() {
    let held = 77;
    for (status, stream, wants) in [
        (200, false, Wants::Everything(held)),
        (200, true, Wants::Pieces),
        (201, true, Wants::Pieces),
        (500, true, Wants::Everything(LONGEST_ERROR)),
        (302, false, Wants::Everything(LONGEST_ERROR)),
        (199, true, Wants::Everything(LONGEST_ERROR)),
        (0, true, Wants::Everything(LONGEST_ERROR)),
    ] {
        let head = Head { status, retry_after: None };
        let watch = watch(&head, stream, Release::FirstToken);
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
        let head = Head { status, retry_after: Some(Duration::from_secs(7)) };
        let judged = watch(&head, true, Release::FirstToken).judge(body.as_bytes(), true);
        let expected = Verdict {
            outcome,
            status: Some(status),
            retry_after: Some(Duration::from_secs(7)),
            doubt: matches!(status, 404 | 422).then(Doubt::default),
        };
        assert_eq!(judged.verdict, expected, "{status} {body}");
        assert_eq!(judged.body, None, "an error is put into the envelope by who delivers it");
        assert_eq!(judged.error, Some(ErrorBody::read(body.as_bytes())));
    }
}

#[test]
fn an_error_body_that_is_too_long_is_judged_by_its_status() {
    let body =
        format!(r#"{{"error":{{"code":"insufficient_quota","message":"{}"}}}}"#, "x".repeat(LONGEST_ERROR));
    let head = Head { status: 429, ..Head::default() };
    let mut watch = watch(&head, false, Release::FirstToken);
    assert_eq!(watch.judge(body.as_bytes(), true).verdict.outcome, Outcome::RateLimited);
    assert_eq!(watch.judge(&body.as_bytes()[..100], false).verdict.outcome, Outcome::RateLimited);
}

#[test]
fn a_whole_answer_is_one_only_if_it_answers() {
    let head = Head { status: 200, ..Head::default() };
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
        (r#"{"choices":[{"message":{"content":"x"}"#, Outcome::Garbled, Outcome::ServerError),
        ("<html>", Outcome::ServerError, Outcome::ServerError),
        (r#"{"error":{"code":"slow_down"}}"#, Outcome::Overloaded, Outcome::Overloaded),
        ("\u{feff} {\"error\":{\"code\":\"slow_down\"}}", Outcome::Overloaded, Outcome::Overloaded),
        (r#"{"error":{"code":429}}"#, Outcome::RateLimited, Outcome::RateLimited),
        (r#"{"error":{"message":"no"}}"#, Outcome::ServerError, Outcome::ServerError),
    ] {
        let judged = watch(&head, false, Release::FirstToken).judge(body.as_bytes(), true);
        assert_eq!(judged.verdict.outcome, asked, "{body}");
        let mut watch = watch(&head, true, Release::FirstToken);
        let outcome = outcome_of(watch.withhold(body.as_bytes(), true, body.len(), MAX_HELD));
        assert_eq!(outcome, instead, "{body}, where a stream was asked for");
    }
}

#[test]
fn an_answer_too_long_to_be_held_is_checked_while_it_is_relayed() {
    let head = Head { status: 200, ..Head::default() };
    let part = br#"{"choices":[{"message":{"content":"xxxx"#;
    for (rest, outcome) in [
        (&br#"xx"},"finish_reason":"stop"}]}"#[..], Outcome::Answered),
        (br#"xx"},"finish_reason":"stop"}]"#, Outcome::Garbled),
        (br#"xx"},"finish_reason":"stop"}]}}"#, Outcome::Garbled),
        (b"x\n\"}}]}", Outcome::Garbled),
        (b"", Outcome::Garbled),
    ] {
        let mut watch = watch(&head, false, Release::FirstToken);
        assert_eq!(watch.judge(part, false).verdict.outcome, Outcome::Answered);
        assert!(watch.goes_on() && watch.tally().unread);
        let relay = watch.relay(rest, true, PROVIDER);
        assert_eq!(relay.ended, Some(outcome), "{}", String::from_utf8_lossy(rest));
        assert_eq!(watch.is_torn(), outcome == Outcome::Garbled);
        assert_eq!(watch.is_finished(), outcome == Outcome::Answered);
    }
    let mut broken = watch(&head, false, Release::FirstToken);
    assert_eq!(
        broken.judge(br#"{"choices":[{"message" "content":"xxxx"#, false).verdict.outcome,
        Outcome::Garbled
    );
    let mut instead = watch(&head, true, Release::FirstToken);
    let step = instead.withhold(part, false, part.len(), part.len() - 1);
    assert_eq!(outcome_of(step), Outcome::ServerError, "a stream was asked for");
}

#[test]
fn an_answer_in_a_form_that_cannot_be_read_fails() {
    let zipped = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV*\n\n";
    for stream in [false, true] {
        let mut watch = watch(&SSE, stream, Release::FirstToken);
        assert_eq!(outcome_of(watch.withhold(zipped, true, zipped.len(), MAX_HELD)), Outcome::ServerError);
    }
}

#[test]
fn a_document_where_a_stream_was_asked_for_is_not_rewritten() {
    let head = Head { status: 200, ..Head::default() };
    let mut watch = watch(&head, false, Release::FirstToken);
    assert_eq!(watch.release(true, PROVIDER), None);
    assert_eq!(watch.relay(b"x", true, PROVIDER), Forward { replace: None, ended: None });
    assert!(!watch.is_closed());
}

// Withholding a stream.

#[test]
fn a_stream_is_held_until_its_first_content() {
    let mut watch = streamed(Release::FirstToken);
    for held in [
        COMMENT,
        "\n\n",
        "id: 4\n\n",
        ROLE,
        USAGE,
        "data: OK\n\n",
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
        let mut watch = streamed(Release::FirstToken);
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
        (vec!["data: <html>\n\n"], Outcome::Garbled),
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
    let mut watch = streamed(Release::FirstToken);
    assert_eq!(watch.withhold(ROLE.as_bytes(), false, 10, MAX_HELD), Step::Hold);
    assert_eq!(outcome_of(watch.withhold(ERROR.as_bytes(), false, 20, MAX_HELD)), Outcome::Overloaded);
}

#[test]
fn a_json_document_that_calls_itself_a_stream_is_judged_the_same_in_pieces_as_in_one() {
    let body = r#"{"error":{"code":"insufficient_quota","message":"m"}}"#;
    for at in 0..body.len() {
        let passed = pass(Release::FirstToken, &[&body[..at], &body[at..]], false);
        assert_eq!(passed.outcome, Some(Outcome::OutOfQuota), "split at {at}");
    }
}

#[test]
fn what_exceeds_the_bound_is_released_unjudged() {
    for release in [Release::FirstToken, Release::Complete] {
        let mut watch = streamed(release);
        let piece = [ROLE, &USAGE[..20]].concat();
        let held = piece.len();
        assert_eq!(watch.withhold(piece.as_bytes(), false, held, held), Step::Hold);
        let step = watch.withhold(&USAGE.as_bytes()[20..30], false, held + 10, held);
        assert_eq!(outcome_of(step), Outcome::Answered);
        assert_eq!(watch.release(false, PROVIDER), Some(ROLE.as_bytes().to_vec()));
        let relay = watch.relay(&USAGE.as_bytes()[30..], true, PROVIDER);
        let expected = [USAGE, &broken()].concat();
        assert_eq!(relay, Forward { replace: Some(expected.into_bytes()), ended: Some(Outcome::Truncated) });
    }
}

#[test]
fn an_endless_event_breaks_a_stream_off() {
    let mut watch = streamed(Release::FirstToken);
    let begin = [ROLE, HELLO].concat();
    assert_eq!(outcome_of(watch.withhold(begin.as_bytes(), false, begin.len(), MAX_HELD)), Outcome::Answered);
    assert_eq!(watch.release(false, PROVIDER), None);
    let piece = vec![b'x'; 1 << 20];
    let (mut sent, mut ended) = (Vec::new(), Vec::new());
    for number in 0..12 {
        let relay = watch.relay(&piece, number == 11, PROVIDER);
        sent.extend(relay.replace.unwrap());
        ended.extend(relay.ended);
    }
    assert_eq!(String::from_utf8(sent).unwrap(), broken());
    assert_eq!(ended, [Outcome::Garbled]);
}

#[test]
fn an_endless_event_before_any_content_is_no_answer_and_not_held_for_ever() {
    let piece = vec![b'x'; 9 << 20];
    for (begin, outcome) in [("", Outcome::ServerError), (ROLE, Outcome::Garbled)] {
        let mut watch = streamed(Release::Complete);
        assert_eq!(watch.withhold(begin.as_bytes(), false, begin.len(), MAX_HELD), Step::Hold);
        assert_eq!(outcome_of(watch.withhold(&piece, false, piece.len(), MAX_HELD)), outcome);
    }
}

// Releasing.

#[test]
fn only_whole_events_are_released() {
    let begin = [ROLE, HELLO].concat();
    for rest in [FINISH, DONE_EVENT, COMMENT, "event: x\ndata: y\n\n"] {
        for at in 0..rest.len() {
            let mut watch = streamed(Release::FirstToken);
            let piece = [&begin, &rest[..at]].concat();
            assert_eq!(
                outcome_of(watch.withhold(piece.as_bytes(), false, piece.len(), MAX_HELD)),
                Outcome::Answered
            );
            let whole = (at > 0).then(|| begin.clone().into_bytes());
            assert_eq!(watch.release(false, PROVIDER), whole, "{rest} cut at {at}");
        }
    }
}

#[test]
fn a_stream_is_released_in_one_piece_and_relayed_after_it() {
    let mut watch = streamed(Release::FirstToken);
    assert_eq!(watch.withhold(ROLE.as_bytes(), false, ROLE.len(), MAX_HELD), Step::Hold);
    let piece = [HELLO, &FINISH[..7]].concat();
    let held = ROLE.len() + piece.len();
    assert_eq!(outcome_of(watch.withhold(piece.as_bytes(), false, held, MAX_HELD)), Outcome::Answered);
    assert_eq!(watch.release(false, PROVIDER), Some([ROLE, HELLO].concat().into_bytes()));
    let relay = watch.relay(&FINISH.as_bytes()[7..], false, PROVIDER);
    assert_eq!(relay, Forward { replace: Some(FINISH.as_bytes().to_vec()), ended: None });
    assert_eq!(watch.relay(WORLD.as_bytes(), false, PROVIDER), Forward { replace: None, ended: None });
    assert_eq!(watch.relay(b"data", false, PROVIDER), Forward { replace: Some(Vec::new()), ended: None });
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
fn half_an_event_after_a_finished_answer_is_not_released() {
    let body = [ROLE, HELLO, FINISH, "data: {\"choi"].concat();
    let expected = [ROLE, HELLO, FINISH, DONE_EVENT].concat();
    assert_eq!(pass(Release::FirstToken, &[&body], false).sent, expected);
}

#[test]
fn complete_holds_a_stream_to_its_end() {
    let mut watch = streamed(Release::Complete);
    for event in [ROLE, HELLO, WORLD, FINISH, USAGE] {
        assert_eq!(watch.withhold(event.as_bytes(), false, 500, MAX_HELD), Step::Hold, "{event}");
    }
    assert_eq!(outcome_of(watch.withhold(b"", true, 500, MAX_HELD)), Outcome::Answered);
    let all = [ROLE, HELLO, WORLD, FINISH, USAGE, DONE_EVENT].concat();
    assert_eq!(watch.release(true, PROVIDER), Some(all.into_bytes()));
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
    let body = [COMMENT, ROLE, COMMENT, HELLO, COMMENT, FINISH, DONE_EVENT].concat();
    let sent = [ROLE, HELLO, COMMENT, FINISH, DONE_EVENT].concat();
    let expected = Passed { sent, outcome: Some(Outcome::Answered) };
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
fn a_normal_stream_is_forwarded_unchanged() {
    let rest = [WORLD, FINISH, DONE_EVENT].concat();
    assert_goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn whole_events_are_forwarded_without_a_copy() {
    let mut watch = streamed(Release::FirstToken);
    let _ = watch.withhold(HELLO.as_bytes(), false, HELLO.len(), MAX_HELD);
    let _ = watch.release(false, PROVIDER);
    for event in [WORLD, FINISH, USAGE, COMMENT] {
        assert_eq!(
            watch.relay(event.as_bytes(), false, PROVIDER),
            Forward { replace: None, ended: None },
            "{event}"
        );
    }
}

#[test]
fn a_stream_with_crlf_is_forwarded_unchanged() {
    // Its [DONE] ends with a line feed: the end of a CR LF one is the next test's.
    let rest = [&[WORLD, COMMENT, FINISH].concat().replace('\n', "\r\n"), DONE_EVENT].concat();
    assert_goes_on(&rest, &rest, Outcome::Answered);
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
fn a_stream_with_bare_cr_is_forwarded_unchanged() {
    let rest = [&[WORLD, FINISH].concat().replace('\n', "\r"), DONE_EVENT].concat();
    assert_goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn a_finished_stream_without_done_gets_it() {
    let rest = [WORLD, FINISH, USAGE].concat();
    assert_goes_on(&rest, &[&rest, DONE_EVENT].concat(), Outcome::Answered);
}

#[test]
fn a_stream_that_ends_in_the_middle_gets_a_typed_error_and_no_done() {
    assert_goes_on(WORLD, &[WORLD, &broken()].concat(), Outcome::Truncated);
    assert_goes_on(&[WORLD, USAGE].concat(), &[WORLD, USAGE, &broken()].concat(), Outcome::Truncated);
    let event: serde_json::Value = serde_json::from_str(broken()["data: ".len()..].trim()).unwrap();
    assert_eq!(event["error"]["code"], "stream_truncated");
}

#[test]
fn half_an_event_at_the_end_is_never_forwarded() {
    for at in 5..FINISH.trim_end().len() {
        let rest = [WORLD, &FINISH[..at]].concat();
        let passed = pass(Release::FirstToken, &[HELLO, &rest], false);
        let expected = Passed { sent: [HELLO, WORLD, &broken()].concat(), outcome: Some(Outcome::Truncated) };
        assert_eq!(passed, expected, "cut at {at}");
    }
    assert_goes_on(
        &[WORLD, "data: {\"choices\":[{\"ind"].concat(),
        &[WORLD, &broken()].concat(),
        Outcome::Truncated,
    );
}

#[test]
fn the_name_of_an_event_without_its_data_is_never_forwarded() {
    // Clients that hand out an event for every blank line would read an empty one, and fail to parse it.
    for half in ["event: error", "event: error\n", "id: 7\n", "retry"] {
        let passed = pass(Release::FirstToken, &[HELLO, half], false);
        assert_eq!(passed.sent, [HELLO, &broken()].concat(), "{half:?}");
    }
}

#[test]
fn a_done_in_the_middle_of_an_answer_is_replaced_by_a_typed_error() {
    assert_goes_on(&[WORLD, DONE_EVENT].concat(), &[WORLD, &broken()].concat(), Outcome::Truncated);
    assert_goes_on("data:  [DONE] \n\n", &broken(), Outcome::Truncated);
    assert_goes_on("data: [DONE]", &broken(), Outcome::Truncated);
}

#[test]
fn nothing_is_forwarded_after_a_done_in_the_middle_of_an_answer() {
    assert_goes_on(&[WORLD, DONE_EVENT, FINISH].concat(), &[WORLD, &broken()].concat(), Outcome::Truncated);
}

#[test]
fn an_error_event_becomes_the_envelope_and_nothing_follows_it() {
    assert_goes_on(&[WORLD, ERROR, DONE_EVENT].concat(), &[WORLD, ENVELOPE].concat(), Outcome::Truncated);
    assert_goes_on(&[WORLD, ERROR, WORLD].concat(), &[WORLD, ENVELOPE].concat(), Outcome::Truncated);
    assert_goes_on(&[WORLD, ERROR].concat(), &[WORLD, ENVELOPE].concat(), Outcome::Truncated);
    assert_goes_on(&[FINISH, ERROR, DONE_EVENT].concat(), &[FINISH, ENVELOPE].concat(), Outcome::Truncated);
}

#[test]
fn an_error_event_that_cannot_be_read_is_one_too() {
    let error = "event: error\ndata: it broke with 0123456789abcdef\n\n";
    let envelope = ENVELOPE.replace("\"m\"", "\"it broke with [redacted]\"").replace("\"slow_down\"", "null");
    assert_goes_on(&[error, DONE_EVENT].concat(), &envelope, Outcome::Truncated);
}

#[test]
fn a_last_event_without_its_blank_line_is_completed() {
    for (line_ends, added) in [("", "\n\n"), ("\n", "\n"), ("\r", "\n\n"), ("\r\n", "\n")] {
        let finish = [FINISH.trim_end(), line_ends].concat();
        let rest = [WORLD, &finish].concat();
        assert_goes_on(&rest, &[&rest, added, DONE_EVENT].concat(), Outcome::Answered);
    }
    let rest = [WORLD, FINISH, "data: [DONE]"].concat();
    assert_goes_on(&rest, &[&rest, "\n\n"].concat(), Outcome::Answered);
}

#[test]
fn a_stream_of_two_choices_is_finished_when_both_are() {
    let second = chunk!(r#"{"index":1,"delta":{"content":"b"},"finish_reason":null}"#);
    let finish = chunk!(r#"{"index":1,"delta":{},"finish_reason":"stop"}"#);
    let rest = [second, finish, FINISH, DONE_EVENT].concat();
    assert_goes_on(&rest, &rest, Outcome::Answered);
    let rest = [second, FINISH].concat();
    let cut = [rest.as_str(), &broken()].concat();
    assert_goes_on(&rest, &cut, Outcome::Truncated);
    assert_goes_on(&[&rest, DONE_EVENT].concat(), &cut, Outcome::Truncated);
}

#[test]
fn comments_between_events_are_forwarded() {
    let rest = [COMMENT, WORLD, COMMENT, "\n\n", FINISH, COMMENT, DONE_EVENT].concat();
    assert_goes_on(&rest, &rest, Outcome::Answered);
}

#[test]
fn nothing_is_forwarded_after_a_done() {
    let rest = [FINISH, DONE_EVENT].concat();
    for behind in [WORLD, COMMENT, "junk", "data: [DONE]\n\n"] {
        assert_goes_on(&[&rest, behind].concat(), &rest, Outcome::Answered);
    }
}

#[test]
fn half_an_error_after_a_finished_answer_changes_nothing() {
    let rest = [WORLD, FINISH, "event: error\ndata: {\"error\":{\"m"].concat();
    assert_goes_on(&rest, &[WORLD, FINISH, DONE_EVENT].concat(), Outcome::Answered);
}

// In OpenAI's schema, whatever was sent.

#[test]
fn a_whole_answer_is_forwarded_unchanged_unless_something_must_change() {
    let good = r#"{"id":"x","object":"chat.completion","created":1,"model":"y","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"}]}"#;
    let bare = r#"{"choices":[{"message":{"content":"a"}}]}"#;
    let head = Head { status: 200, ..Head::default() };
    let judge = |body: &str| watch(&head, false, Release::FirstToken).judge(body.as_bytes(), true);
    assert_eq!(judge(good).body, None);
    assert_eq!(judge(&["\n\n", good, "\n"].concat()).body, Some(good.as_bytes().to_vec()));
    let made = judge(bare);
    assert_eq!(made.verdict.outcome, Outcome::Answered);
    let made: serde_json::Value = serde_json::from_slice(&made.body.unwrap()).unwrap();
    assert_eq!(made["id"], "chatcmpl-shunt");
    assert_eq!(made["model"], "m");
}

#[test]
fn a_stream_without_heads_has_one_head_throughout() {
    let bare = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let body = [bare, WORLD, bare, FINISH].concat();
    let sent = pass(Release::FirstToken, &[&body], false).sent;
    assert_eq!(sent.matches("\"id\":\"chatcmpl-shunt\"").count(), 1, "before the provider told of its own");
    assert_eq!(sent.matches("\"id\":\"chatcmpl-1\"").count(), 3);
    assert_eq!(sent.matches("\"created\":1700000000,\"model\":\"gpt-5.4\"").count(), 3);
}

#[test]
fn the_usage_is_sent_once_and_only_if_the_client_asked_for_it() {
    let told = USAGE.split_once("\"usage\":").unwrap().1.trim_end().strip_suffix('}').unwrap();
    let with =
        |chunk: &str| [chunk.trim_end().strip_suffix('}').unwrap(), ",\"usage\":", told, "}\n\n"].concat();
    let null = |chunk: &str| with(chunk).replace(told, "null");
    let made = USAGE.to_owned();
    for (body, asked_for, unasked) in [
        // In a chunk of its own.
        (
            vec![HELLO.to_owned(), FINISH.to_owned(), USAGE.to_owned()],
            vec![HELLO.to_owned(), FINISH.to_owned(), USAGE.to_owned()],
            vec![HELLO.to_owned(), FINISH.to_owned()],
        ),
        // In the last chunk.
        (
            vec![HELLO.to_owned(), with(FINISH)],
            vec![HELLO.to_owned(), null(FINISH), made.clone()],
            vec![HELLO.to_owned(), null(FINISH)],
        ),
        // In every chunk.
        (
            vec![with(HELLO), with(FINISH)],
            vec![null(HELLO), null(FINISH), made],
            vec![null(HELLO), null(FINISH)],
        ),
        // In every chunk, and in one of its own.
        (
            vec![with(HELLO), with(FINISH), USAGE.to_owned()],
            vec![null(HELLO), null(FINISH), USAGE.to_owned()],
            vec![null(HELLO), null(FINISH)],
        ),
    ] {
        let body = body.concat() + DONE_EVENT;
        for (usage, expected) in [(true, asked_for), (false, unasked)] {
            let asked = Asked { usage, ..asked(Release::FirstToken) };
            let (passed, tally) = pass_as(&asked, &[&body], false);
            assert_eq!(passed.sent, expected.concat() + DONE_EVENT, "{usage}");
            let counted = tally.usage.map(|usage| (usage.input, usage.output));
            assert_eq!(counted, Some((2, 1)), "it counts even if it is not told");
        }
    }
}

#[test]
fn the_usage_of_the_last_chunk_is_told_as_the_provider_said_it() {
    // A total of its own, and fields that no schema has.
    let said = r#"{"prompt_tokens":20, "completion_tokens":198,"total_tokens":623,"completion_tokens_details":{"audio_tokens":3,"accepted_prediction_tokens":1},"cost":0.00012,"x":{"y":[1,2]}}"#;
    let made =
        |object: &str| USAGE.replace(r#"{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}"#, object);
    let last = FINISH.replace("]}", &["],\"usage\":", said, "}"].concat());
    let null = last.replace(said, "null");
    let (passed, tally) =
        pass_as(&asked(Release::FirstToken), &[&[HELLO, &last, DONE_EVENT].concat()], false);
    assert_eq!(passed.sent, [HELLO, &null, &made(said), DONE_EVENT].concat());
    let counted = tally.usage.map(|usage| (usage.input, usage.output, usage.reasoning));
    assert_eq!((counted, tally.reconciled), (Some((20, 603, 405)), Some(Reconciled::RestIsOutput)));
    // What the schema requires is filled in, and nothing else.
    let short = r#"{"prompt_tokens":20,"completion_tokens":198,"cost":0.5}"#;
    let (passed, _) = pass_as(
        &asked(Release::FirstToken),
        &[&[HELLO, &last.replace(said, short), DONE_EVENT].concat()],
        false,
    );
    let full = r#"{"total_tokens":218,"prompt_tokens":20,"completion_tokens":198,"cost":0.5}"#;
    assert_eq!(passed.sent, [HELLO, &null, &made(full), DONE_EVENT].concat());
}

#[test]
fn the_usage_is_told_once_however_often_the_provider_tells_it_and_the_largest_counts() {
    let zero = USAGE.replace(
        "\"prompt_tokens\":2,\"completion_tokens\":1,\"total_tokens\":3",
        "\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0",
    );
    let part = USAGE
        .replace("\"completion_tokens\":1,\"total_tokens\":3", "\"completion_tokens\":0,\"total_tokens\":2");
    let none = USAGE.replace("{\"prompt_tokens\":2,\"completion_tokens\":1,\"total_tokens\":3}", "{}");
    let said = [HELLO, FINISH];
    for (events, told) in [
        (vec![HELLO, FINISH, USAGE, USAGE, USAGE], USAGE),
        (vec![HELLO, &part, FINISH, USAGE], USAGE),
        (vec![&part, HELLO, USAGE, FINISH], USAGE),
        (vec![HELLO, USAGE, FINISH, &zero], USAGE),
        (vec![HELLO, FINISH, &zero, USAGE], USAGE),
        (vec![HELLO, FINISH, USAGE, &zero, &none], USAGE),
        (vec![HELLO, FINISH, &zero], &zero),
    ] {
        let body = events.concat() + DONE_EVENT;
        let (passed, tally) = pass_as(&asked(Release::FirstToken), &[&body], false);
        assert_eq!(passed.sent, [&said.concat(), told, DONE_EVENT].concat(), "{events:?}");
        let counted = tally.usage.map(|usage| (usage.input, usage.output));
        assert_eq!(counted, Some(if told == USAGE { (2, 1) } else { (0, 0) }), "{events:?}");
        // Nobody is told who did not ask.
        let unasked = Asked { usage: false, ..asked(Release::FirstToken) };
        assert_eq!(pass_as(&unasked, &[&body], false).0.sent, [&said.concat(), DONE_EVENT].concat());
    }
}

#[test]
fn noise_is_dropped_and_counted() {
    let junk = ["data: {}\n\n", "data: [KEEPALIVE]\n\n", "data: null\n\n", "data:\n\n"].concat();
    for body in [[&junk, ROLE, HELLO, FINISH].concat(), [ROLE, HELLO, &junk, FINISH].concat()] {
        let (passed, tally) = pass_as(&asked(Release::FirstToken), &[&body], false);
        assert_eq!(passed.sent, [ROLE, HELLO, FINISH, DONE_EVENT].concat());
        assert_eq!(tally.malformed, 4);
    }
    // Half an event at the end is a break, and no mistake.
    let body = [ROLE, HELLO, "data: {\"choices\":[{\"del"].concat();
    assert_eq!(pass_as(&asked(Release::FirstToken), &[ROLE, HELLO, &body], false).1.malformed, 0);
}

#[test]
fn an_overload_before_content_leads_to_failover_and_after_it_is_an_error() {
    let out = FINISH.replace("\"stop\"", "\"insufficient_system_resource\"");
    let first = pass(Release::FirstToken, &[ROLE, &out, DONE_EVENT], false);
    assert_eq!(first, Passed { sent: String::new(), outcome: Some(Outcome::Overloaded) });
    let later = pass(Release::FirstToken, &[ROLE, HELLO, &out, DONE_EVENT], false);
    assert_eq!(later.outcome, Some(Outcome::Truncated));
    assert!(
        later.sent.contains("\"code\":\"overloaded\"") && !later.sent.contains("[DONE]"),
        "{}",
        later.sent
    );
}

// The Responses API.

const CREATED: &str =
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\"}}\n\n";
const DELTA: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n";
const COMPLETED: &str =
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n";
const FAILED: &str = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"not 0123456789abcdef\"}}}\n\n";

#[test]
fn the_events_of_a_response_are_forwarded_unchanged_and_one_of_them_is_the_end() {
    let asked = Asked { endpoint: Endpoint::Responses, ..asked(Release::FirstToken) };
    let pass = |pieces: &[&str]| pass_as(&asked, pieces, true).0;
    let whole = [CREATED, DELTA, COMPLETED];
    assert_eq!(pass(&whole), Passed { sent: whole.concat(), outcome: Some(Outcome::Answered) });
    let cut = pass(&[CREATED, DELTA, DELTA]);
    assert_eq!(cut.outcome, Some(Outcome::Truncated));
    let last = cut.sent.strip_prefix(&[CREATED, DELTA, DELTA].concat()).unwrap();
    let last = last.strip_prefix("event: response.failed\ndata: ").unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&last["type"], &last["sequence_number"]), (&"response.failed".into(), &3.into()));
    assert_eq!(last["error"]["code"], "stream_truncated");
    let refused = pass(&[CREATED, FAILED]);
    assert_eq!(refused, Passed { sent: String::new(), outcome: Some(Outcome::RateLimited) });
    let failed = pass(&[CREATED, DELTA, FAILED]);
    let clean = FAILED.replace(KEY, "[redacted]");
    assert_eq!(failed, Passed { sent: [CREATED, DELTA, &clean].concat(), outcome: Some(Outcome::Truncated) });
}

#[test]
fn a_response_is_the_same_for_every_split() {
    let asked = Asked { endpoint: Endpoint::Responses, ..asked(Release::FirstToken) };
    let body = [CREATED, COMMENT, DELTA, COMMENT, COMPLETED].concat().replace('\n', "\r\n");
    let expected = pass_as(&asked, &[&body], false);
    assert!(expected.0.sent.ends_with("}}\r\n\r\n"));
    for [first, second, third] in piece_pairs(&body) {
        assert_eq!(pass_as(&asked, &[first, second, third], false), expected, "{first:?} {second:?}");
    }
}
