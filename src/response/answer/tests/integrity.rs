//! What is damaged on its way is put right, or is a failure; it is never an answer with a hole.

use super::*;
use crate::bytes::sse::LONGEST_EVENT;

pub(super) const NOT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-5.4\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" NOT\"},\"finish_reason\":null}]}\n\n";

/// The text that a strict client reads of a chat's stream. It fails on what such a client cannot read.
pub(super) fn text_of(sent: &str) -> String {
    let mut text = String::new();
    for block in sent.split("\n\n").filter(|block| !block.is_empty()) {
        let data: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        if data.is_empty() || data == ["[DONE]"] {
            continue;
        }
        let chunk: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    text
}

/// A stream with `damaged` in its middle: with [`Release::Complete`] it is judged whole, and live it goes out until there.
pub(super) fn assert_hole(damaged: &str) {
    let pieces = [ROLE, HELLO, damaged, WORLD, FINISH, DONE_EVENT];
    let complete = pass(Release::Complete, &pieces, true);
    assert_eq!(complete, Passed { sent: String::new(), outcome: Some(Outcome::Garbled) }, "{damaged}");
    let live = pass(Release::FirstToken, &pieces, true);
    let expected = Passed { sent: [ROLE, HELLO, &broken()].concat(), outcome: Some(Outcome::Garbled) };
    assert_eq!(live, expected, "{damaged}");
    let first = pass(Release::FirstToken, &[damaged, ROLE, HELLO, FINISH, DONE_EVENT], true);
    assert_eq!(first.outcome, Some(Outcome::Garbled), "{damaged} before any content");
}

/// A stream with `damaged` in its middle that is put right to a whole answer with this text.
pub(super) fn assert_mended(damaged: &str, text: &str) {
    for release in [Release::Complete, Release::FirstToken] {
        let pieces = [ROLE, HELLO, damaged, WORLD, FINISH, DONE_EVENT];
        let passed = pass(release, &pieces, true);
        assert_eq!(passed.outcome, Some(Outcome::Answered), "{damaged}");
        assert_eq!(text_of(&passed.sent), ["Hello", text, " world"].concat(), "{damaged}");
        assert!(passed.sent.ends_with(DONE_EVENT));
        let whole = pieces.concat();
        let letters: Vec<&str> = whole.split_inclusive(|_: char| true).collect();
        let cut = pass(release, &letters, true);
        assert_eq!(
            (cut.outcome, text_of(&cut.sent)),
            (passed.outcome, text_of(&passed.sent)),
            "letter by letter"
        );
    }
}

#[test]
fn an_event_that_cannot_be_read_is_a_hole_whatever_it_begins_with() {
    for damaged in [
        NOT.replace("]}\n\n", "]\n\n"),
        NOT.replace("]}\n\n", "}\n\n"),
        NOT.replacen('{', "", 1),
        NOT.replacen('{', "{{", 1),
        NOT.replacen("\"id\"", "id\"", 1),
        NOT.replacen("\"id\":", "\"id\"", 1),
        NOT.replacen("\"id\":", "\"id\"::", 1),
        NOT.replacen(",\"object\"", "\"object\"", 1),
        NOT.replacen("null}", "null,}", 1),
        NOT.replacen("1700000000", "01700000000", 1),
        NOT.replacen("1700000000", "+1", 1),
        NOT.replacen("1700000000", "1.", 1),
        NOT.replacen("null}", "nul}", 1),
        NOT.replacen("content", "con\ttent", 1),
        NOT.replacen(" NOT", " \\xNOT", 1),
        NOT.replacen("data:", "data", 1),
        NOT.replacen("data:", "data::", 1),
        NOT.replacen("data:", ":", 1),
        NOT.replacen("data:", "da\n\nta:", 1),
        NOT.replacen("data:", "\u{1}data:", 1),
        NOT.replacen("\"choices\":[", "\"choices\":[\n\n", 1),
        NOT.replacen("\"choices\":[", "\"choices\":[\r", 1),
        NOT.replacen("\n\n", "", 1) + NOT,
        NOT.replacen("\n\n", ",\n\n", 1),
        "data: \"NOT \"\n\n".to_owned(),
        "data: NOT safe\n\n".to_owned(),
        "data: <html>\n\n".to_owned(),
        "data: {\"choices\":{\"delta\":{\"content\":\"NOT\"}}}\n\n".to_owned(),
        "data: {\"choices\":[\"NOT\"]}\n\n".to_owned(),
        "data: {\"choices\":\"NOT\"}\n\n".to_owned(),
        "data: [{\"choices\":[]}]\n\n".to_owned(),
        "{\"choices\":[{\"delta\":{\"content\":\"NOT\"}}]}\n\n".to_owned(),
        "event: x\n: {\"choices\":[]}\n\n".to_owned(),
    ] {
        assert_hole(&damaged);
    }
}

#[test]
fn what_a_strict_reader_refuses_is_put_right_where_it_stands() {
    assert_mended(&NOT.replacen(" NOT", " N\tO\u{1}T", 1), " N\tO\u{1}T");
    for (logprob, expected) in [("-Infinity", "-9999.0"), ("NaN", "null"), ("Infinity", "null")] {
        let chunk = NOT.replacen(
            "\"finish_reason\"",
            &format!("\"logprobs\":{{\"content\":[{{\"token\":\" NOT\",\"logprob\":{logprob}}}]}},\"finish_reason\""),
            1,
        );
        assert_mended(&chunk, " NOT");
        let sent = pass(Release::Complete, &[ROLE, HELLO, &chunk, FINISH, DONE_EVENT], true).sent;
        assert!(sent.contains(&format!("\"logprob\":{expected}}}")), "{sent}");
    }
}

#[test]
fn events_that_were_written_into_one_are_read_one_by_one() {
    assert_mended(&[NOT.trim_end(), "\n", NOT].concat(), " NOT NOT");
    assert_mended(&[NOT.trim_end(), "\ndata: ping\n", NOT].concat(), " NOT NOT");
    let one = [ROLE.trim_end(), "\n", HELLO.trim_end(), "\n", FINISH.trim_end(), "\n", DONE_EVENT].concat();
    for release in [Release::Complete, Release::FirstToken] {
        let expected =
            Passed { sent: [ROLE, HELLO, FINISH, DONE_EVENT].concat(), outcome: Some(Outcome::Answered) };
        assert_eq!(pass(release, &[&one], true), expected);
    }
}

#[test]
fn an_event_that_was_cut_into_two_is_put_together() {
    let chunk = NOT.replacen(" NOT", " NÖT", 1);
    let data = chunk.strip_prefix("data: ").unwrap();
    for (at, _) in data.char_indices().skip(1).take_while(|(at, _)| *at < data.len() - 2) {
        let (first, second) = data.split_at(at);
        // White space at the end of the first would be the client's to see; here it stays.
        for between in ["\n\ndata: ", "\n\n: comment\n\ndata: ", "\n\nevent: ping\ndata: {}\n\ndata: "] {
            assert_mended(&["data: ", first, between, second].concat(), " NÖT");
        }
    }
    assert_hole(&["data: ", &data[..60], "\n\n"].concat());
    assert_hole(&["data: ", &data[..60], "\n\ndata: ping\n\ndata: ", &data[60..]].concat());
}

#[test]
fn a_letter_that_was_cut_between_two_events_is_put_together() {
    let chunk = NOT.replacen(" NOT", " NÖT", 1);
    let at = chunk.find('Ö').unwrap() + 1;
    let bytes = [&chunk.as_bytes()[..at], b"\n\ndata: ", &chunk.as_bytes()[at..]].concat();
    let mut watch = watch(&SSE, true, Release::Complete);
    let body = [ROLE.as_bytes(), HELLO.as_bytes(), &bytes, FINISH.as_bytes()].concat();
    assert_eq!(outcome_of(watch.withhold(&body, true, body.len(), MAX_HELD)), Outcome::Answered);
    let sent = String::from_utf8(watch.release(true, PROVIDER).unwrap()).unwrap();
    assert_eq!(text_of(&sent), "Hello NÖT");
}

#[test]
fn a_beginning_without_its_end_is_a_hole() {
    let begin = &NOT[..60];
    for rest in [&[DONE_EVENT][..], &[FINISH, DONE_EVENT], &[]] {
        let pieces = [&[ROLE, HELLO, FINISH, begin, "\n\n"][..], rest].concat();
        let passed = pass(Release::Complete, &pieces, true);
        assert_eq!(passed.outcome, Some(Outcome::Garbled), "{rest:?}");
    }
}

#[test]
fn an_event_stream_is_one_however_it_is_marked() {
    let body = ["\u{feff}", ROLE, HELLO, FINISH, DONE_EVENT].concat();
    for release in [Release::Complete, Release::FirstToken] {
        let mut watch = watch(&SSE, true, release);
        assert_eq!(
            outcome_of(watch.withhold(body.as_bytes(), true, body.len(), MAX_HELD)),
            Outcome::Answered
        );
        let sent = watch.release(true, PROVIDER).unwrap();
        assert_eq!(String::from_utf8(sent).unwrap(), [ROLE, HELLO, FINISH, DONE_EVENT].concat());
    }
    // A mark in the midst would make the line a field without meaning.
    assert_mended(&["\u{feff}", NOT].concat(), " NOT");
    assert_mended(&NOT.replacen("data: ", "data: \u{feff}", 1), " NOT");
}

#[test]
fn an_error_is_read_in_whatever_form_it_comes_within_a_stream() {
    let code = r#"{"error":{"message":"m","type":"t","param":null,"code":"slow_down"}}"#;
    let pretty = "{\n  \"error\": {\n    \"code\": \"slow_down\",\n    \"message\":\n\"m\"\n  }\n}";
    for error in [
        format!("data: {code}\n\n"),
        format!("data: {}\n\n", pretty.replace('\n', "\ndata: ")),
        format!("{code}\n\n"),
        format!("{pretty}\n\n"),
        format!("{code}\n"),
        code.to_owned(),
        pretty.to_owned(),
        format!("data: [{code}]\n\n"),
        format!("\u{feff}{code}"),
    ] {
        for before in ["", ROLE] {
            let first = pass(Release::FirstToken, &[before, &error], true);
            assert_eq!(first.outcome, Some(Outcome::Overloaded), "{before}{error}");
        }
        let later = pass(Release::FirstToken, &[ROLE, HELLO, &error], true);
        assert_eq!(later.outcome, Some(Outcome::Truncated), "{error}");
        assert!(later.sent.starts_with(&[ROLE, HELLO].concat()), "{}", later.sent);
        assert!(
            later.sent.contains("\"code\":\"slow_down\"") && !later.sent.contains("[DONE]"),
            "{error} gave {}",
            later.sent
        );
        // In one block with a chunk, it is read or is a hole.
        let beside = pass(Release::FirstToken, &[ROLE, HELLO, NOT.trim_end(), "\n", &error], true);
        assert!(beside.outcome != Some(Outcome::Answered) && !beside.sent.contains("[DONE]"), "{error}");
    }
}

#[test]
fn names_that_keep_a_connection_alive_are_noise_and_never_reach_the_client() {
    for noise in [
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: heartbeat\ndata: {\"a\":\n\n",
        "event: ping\n\n",
    ] {
        let passed = pass(Release::FirstToken, &[ROLE, HELLO, noise, FINISH, DONE_EVENT], true);
        assert_eq!(passed.sent, [ROLE, HELLO, FINISH, DONE_EVENT].concat(), "{noise}");
    }
}

// The Responses API.

#[test]
fn a_response_with_a_hole_ends_with_an_error_event() {
    let asked = Asked { endpoint: Endpoint::Responses, ..asked(Release::FirstToken) };
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let created = event("response.created", ",\"response\":{\"status\":\"in_progress\"}");
    let delta = event("response.output_text.delta", ",\"delta\":\"Hi\"");
    let done = event("response.completed", ",\"response\":{\"status\":\"completed\"}");
    for damaged in [
        delta.replacen(",\"delta\"", "\"delta\"", 1),
        delta.replacen("}\n\n", "\n\n", 1),
        delta.replacen("\ndata:", "data:", 1),
        delta.replacen("text.delta\",", "text.\u{1}delta\",", 1),
        delta.replacen("data: ", "data ", 1),
    ] {
        let (passed, _) = pass_as(&asked, &[&created, &delta, &damaged, &done], true);
        assert_eq!(passed.outcome, Some(Outcome::Garbled), "{damaged}");
        assert!(passed.sent.starts_with(&[created.as_str(), &delta].concat()));
        let last = passed.sent.rsplit_once("event: ").unwrap().1;
        assert!(
            last.starts_with("response.failed\ndata: ") && last.contains("\"sequence_number\":2,"),
            "{last}"
        );
        assert!(last.ends_with("\"code\":\"stream_truncated\"}}\n\n"), "{last}");
        let (first, _) = pass_as(&asked, &[&created, &damaged], true);
        assert_eq!(first, Passed { sent: String::new(), outcome: Some(Outcome::Garbled) });
    }
    // Two events in one: each gets its own name.
    let two = [delta.trim_end(), "\n", &delta].concat();
    let (passed, _) = pass_as(&asked, &[&created, &two, &done], true);
    let expected = [created.as_str(), &delta, &delta, &done].concat();
    assert_eq!(passed, Passed { sent: expected, outcome: Some(Outcome::Answered) });
    let (mended, _) = pass_as(&asked, &[&created, &delta.replacen("Hi", "H\ti", 1), &done], true);
    assert!(mended.sent.contains("\"delta\":\"H\\ti\""), "{}", mended.sent);
}

// Whole answers.

pub(super) fn whole(endpoint: Endpoint, wire: Wire, body: &str) -> Judged {
    let asked = Asked { endpoint, wire, stream: false, ..asked(Release::FirstToken) };
    Watch::new(&SSE, asked).judge(body.as_bytes(), true)
}

#[test]
fn a_whole_answer_is_put_right_or_is_a_failure() {
    let chat = |content: &str, rest: &str| {
        format!("{{\"choices\":[{{\"message\":{{\"content\":\"{content}\"}},{rest}\"finish_reason\":\"stop\"}}]}}")
    };
    let mended = whole(
        Endpoint::Chat,
        Wire::OpenAi,
        &chat("a\tb", "\"logprobs\":{\"content\":[{\"logprob\":-Infinity,\"x\":NaN}]},"),
    );
    assert_eq!(mended.verdict.outcome, Outcome::Answered);
    let body: serde_json::Value = serde_json::from_slice(&mended.body.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "a\tb");
    assert_eq!(body["choices"][0]["logprobs"]["content"][0]["logprob"], -9999.0);
    let marked = whole(Endpoint::Chat, Wire::OpenAi, &["\u{feff}", &chat("a", "")].concat());
    assert!(serde_json::from_slice::<serde_json::Value>(&marked.body.unwrap()).is_ok());
    for (endpoint, wire, body) in [
        (Endpoint::Chat, Wire::OpenAi, chat("a", "\"x\":[1,],")),
        (Endpoint::Chat, Wire::OpenAi, chat("a", "\"x\":{\"y\" 1},")),
        (
            Endpoint::Completions,
            Wire::OpenAi,
            r#"{"choices":[{"text":"a","finish_reason":"stop"}]"#.to_owned(),
        ),
        (Endpoint::Responses, Wire::OpenAi, r#"{"status":"completed","output":[{}],"x":01}"#.to_owned()),
        (Endpoint::Embeddings, Wire::OpenAi, r#"{"data":[{"embedding":[0.1,NaN]}]}"#.to_owned()),
        (Endpoint::Embeddings, Wire::OpenAi, r#"{"data":[{"embedding":[0.1,-Infinity]}]}"#.to_owned()),
        (Endpoint::Embeddings, Wire::OpenAi, r#"{"data":[{"embedding":[0.1 0.2]}]}"#.to_owned()),
        (
            Endpoint::Chat,
            Wire::Anthropic,
            r#"{"type":"message","content":[{"type":"text","text":"a"}],"x":}"#.to_owned(),
        ),
    ] {
        assert_eq!(whole(endpoint, wire, &body).verdict.outcome, Outcome::Garbled, "{body}");
    }
    let half = r#"{"type":"message","id":"m","model":"c","stop_reason":"end_turn","content":[{"type":"text","text":"a\ud83d"},{"type":"text","text":"b\t"}]}"#;
    let half = whole(Endpoint::Chat, Wire::Anthropic, &half.replace("\\t", "\t"));
    let body: serde_json::Value = serde_json::from_slice(&half.body.unwrap()).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "a\u{fffd}b\t");
}

// Events that are too long to be held.

/// A chunk with a text of so many bytes.
fn long(bytes: usize) -> String {
    NOT.replacen(" NOT", &"x".repeat(bytes), 1)
}

fn relay_in_pieces(watch: &mut Watch, body: &str) -> (Vec<u8>, Option<Outcome>) {
    let (mut sent, mut ended) = (Vec::new(), None);
    let pieces: Vec<&[u8]> = body.as_bytes().chunks(3 << 20).collect();
    for (place, piece) in pieces.iter().enumerate() {
        let relay = watch.relay(piece, place + 1 == pieces.len(), PROVIDER);
        sent.extend_from_slice(relay.replace.as_deref().unwrap_or(piece));
        ended = ended.or(relay.ended);
        if watch.is_torn() {
            break;
        }
    }
    (sent, ended)
}

fn released(max_held: usize) -> Watch {
    let mut watch = watch(&SSE, true, Release::FirstToken);
    let begin = [ROLE, HELLO].concat();
    assert_eq!(outcome_of(watch.withhold(begin.as_bytes(), false, begin.len(), max_held)), Outcome::Answered);
    watch.release(false, PROVIDER);
    watch
}

#[test]
fn a_long_event_is_held_or_relayed_in_pieces_and_never_a_truncation() {
    let event = long(2 * LONGEST_EVENT);
    for max_held in [MAX_HELD, 3 * LONGEST_EVENT] {
        let mut watch = released(max_held);
        let (sent, ended) =
            relay_in_pieces(&mut watch, &[event.as_str(), WORLD, FINISH, DONE_EVENT].concat());
        assert_eq!(ended, Some(Outcome::Answered));
        assert!(sent == [event.as_str(), WORLD, FINISH, DONE_EVENT].concat().into_bytes());
        assert!(!watch.is_torn());
    }
}

#[test]
fn a_long_event_that_breaks_is_torn_once_a_part_of_it_is_out_and_a_hole_before() {
    let broken_event = long(2 * LONGEST_EVENT).replacen("\"},\"fin", "\",\"fin", 1);
    let body = [broken_event.as_str(), WORLD, FINISH, DONE_EVENT].concat();
    let mut passing = released(MAX_HELD);
    assert_eq!(relay_in_pieces(&mut passing, &body).1, Some(Outcome::Garbled));
    assert!(passing.is_torn());
    let mut held = released(3 * LONGEST_EVENT);
    let (sent, ended) = relay_in_pieces(&mut held, &body);
    assert_eq!((sent, ended), (broken().into_bytes(), Some(Outcome::Garbled)));
    assert!(!held.is_torn());
    // The stream ends within it.
    let mut cut = released(MAX_HELD);
    assert_eq!(
        relay_in_pieces(&mut cut, &long(2 * LONGEST_EVENT)[..LONGEST_EVENT + 50]).1,
        Some(Outcome::Garbled)
    );
    assert!(cut.is_torn());
}

#[test]
fn a_long_event_never_passes_what_is_kept_before_it() {
    let begin = r#""delta":{"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":""}}]}"#;
    let long = long(2 * LONGEST_EVENT);
    for before in
        [kinds::with_delta(begin), "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\n\n".to_owned()]
    {
        let mut watch = released(MAX_HELD);
        let (sent, ended) = relay_in_pieces(&mut watch, &[&before, &long, FINISH, DONE_EVENT].concat());
        assert!(sent == broken().into_bytes() && ended == Some(Outcome::Garbled), "{before}");
    }
}
