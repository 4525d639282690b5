//! Damage of Anthropic's streams, which are translated.

use super::integrity::text_of;
use super::*;

/// The events of a Messages stream, with these between its beginning and its end.
fn messages(deltas: &str) -> String {
    [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{\"input_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        deltas,
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ]
    .concat()
}

fn delta(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

fn translated(deltas: &str, release: Release) -> Passed {
    let asked = Asked { wire: Wire::Anthropic, usage: false, ..asked(release) };
    let all = messages(deltas);
    pass_as(&asked, &all.split_inclusive("\n\n").collect::<Vec<_>>(), true).0
}

#[test]
fn a_letter_that_is_torn_between_two_deltas_is_one_and_a_lone_half_is_a_replacement() {
    for (deltas, text) in [
        (delta("a\\ud83d") + &delta("\\ude00b"), "a😀b"),
        (delta("a\\ud83d") + "event: ping\ndata: {\"type\":\"ping\"}\n\n" + &delta("\\ude00"), "a😀"),
        (delta("\\ud83d") + &delta("b"), "\u{fffd}b"),
        (delta("a\\ud83d"), "a\u{fffd}"),
        (delta("\\ude00b"), "\u{fffd}b"),
        (delta("a\\ud83d\\ud83d") + &delta("\\ude00"), "a\u{fffd}😀"),
        (delta("\\\\ud83d") + &delta("b"), "\\ud83db"),
    ] {
        for release in [Release::FirstToken, Release::Complete] {
            let passed = translated(&deltas, release);
            assert_eq!(
                (text_of(&passed.sent).as_str(), passed.outcome),
                (text, Some(Outcome::Answered)),
                "{deltas}"
            );
        }
    }
}

#[test]
fn a_messages_stream_with_a_hole_is_no_answer() {
    let not = delta(" NOT");
    for damaged in [
        not.replacen("}}\n\n", "}\n\n", 1),
        not.replacen("\ndata:", "data:", 1),
        not.replacen("data: ", "data ", 1),
        not.replacen("\"index\":0,", "\"index\":0", 1),
        not.replacen("text_delta", "text_\u{1}delta", 1),
        not.replacen("content_block_delta\",", "content_block\t_delta\",", 1),
        not.replacen(
            "\"type\":\"text_delta\",\"text\":\" NOT\"}",
            "\"type\":\"text_delta\"},\"text\":\" NOT\"",
            1,
        ),
        not.replacen("\" NOT\"", "[\" NOT\"]", 1),
        not.replacen(
            "{\"type\":\"text_delta\",\"text\":\" NOT\"}",
            "[\"type\",\"text_delta\",\"text\",\" NOT\"]",
            1,
        ),
        not.replacen("\"index\":0", "\"index\":0,\"index\":1", 1),
        not.replacen("\"index\":0", "\"x:index\":0", 1),
    ] {
        let deltas = [delta("safe"), damaged, delta(".")].concat();
        let complete = translated(&deltas, Release::Complete);
        assert_eq!(complete, Passed { sent: String::new(), outcome: Some(Outcome::Garbled) }, "{deltas}");
        let live = translated(&deltas, Release::FirstToken);
        assert_eq!(
            (text_of(&live.sent).as_str(), live.outcome),
            ("safe", Some(Outcome::Garbled)),
            "{deltas}"
        );
        assert!(live.sent.ends_with(&broken()));
    }
    let two = [not.trim_end(), "\n", &not].concat();
    assert_eq!(text_of(&translated(&two, Release::Complete).sent), " NOT NOT");
    let cut = not.replacen("{\"type\":\"text", "{\"type\":\n\ndata: \"text", 1);
    assert_eq!(text_of(&translated(&cut, Release::Complete).sent), " NOT");
    let bare = [
        delta("safe"),
        "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n".to_owned(),
    ]
    .concat();
    assert!(translated(&bare, Release::FirstToken).sent.contains("overloaded_error"));
}

#[test]
fn what_says_nothing_in_a_messages_stream_is_no_hole() {
    let not = delta(" NOT");
    for (nothing, text) in [
        (not.replacen(",\"text\":\" NOT\"", "", 1), ""),
        (not.replacen("\" NOT\"", "null", 1), ""),
        (not.replacen("\"index\":0", "\"index\":0,\"index\":0", 1), " NOT"),
        (not.replacen("\"index\":0", "\"index\":0,\"x\":1,\"x\":2", 1), " NOT"),
        ("data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\n".to_owned(), ""),
        (
            "data: {\"type\":\"message_delta\",\"delta\":null,\"usage\":{\"output_tokens\":1}}\n\n"
                .to_owned(),
            "",
        ),
    ] {
        for release in [Release::FirstToken, Release::Complete] {
            let passed = translated(&[delta("a"), nothing.clone(), delta("b")].concat(), release);
            assert_eq!(
                (text_of(&passed.sent), passed.outcome),
                (["a", text, "b"].concat(), Some(Outcome::Answered)),
                "{nothing}"
            );
        }
    }
}

#[test]
fn openais_end_is_no_hole_in_a_messages_stream() {
    let asked = Asked { wire: Wire::Anthropic, usage: false, ..asked(Release::Complete) };
    let all = messages(&delta("a"));
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for (all, outcome) in [
        (all.replace(stop, DONE_EVENT), Outcome::Answered),
        ([all.as_str(), DONE_EVENT].concat(), Outcome::Answered),
        (all.replace(stop, &[DONE_EVENT, stop].concat()), Outcome::Answered),
        (
            all.replace("\"stop_reason\":\"end_turn\"", "\"stop_reason\":null").replace(stop, DONE_EVENT),
            Outcome::Truncated,
        ),
        (all.replace(stop, &["data: {\"type\":\n\n", DONE_EVENT].concat()), Outcome::Garbled),
    ] {
        let passed = pass_as(&asked, &all.split_inclusive("\n\n").collect::<Vec<_>>(), true).0;
        assert_eq!(passed.outcome, Some(outcome), "{all}");
    }
}

#[test]
fn an_event_with_very_many_fields_is_read_in_time() {
    let fields: String = (0..200_000).map(|number| format!("\"a{number}\":1,")).collect();
    let event = format!("event: x\ndata: {{{fields}\"type\":\"ping\"}}\n\n");
    assert_eq!(translated(&event, Release::FirstToken).outcome, Some(Outcome::Answered));
}

#[test]
fn an_error_within_a_cut_event_is_read_in_a_messages_stream() {
    let cut = "data: {\"type\":\"content_block_delta\",\"index\":0,\n\n";
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    let live = translated(&[&delta("safe"), cut, error].concat(), Release::FirstToken);
    assert!(
        live.sent.contains("overloaded_error") && live.outcome != Some(Outcome::Answered),
        "{}",
        live.sent
    );
    assert_eq!(
        translated(&[&delta("safe"), cut, error].concat(), Release::Complete).outcome,
        Some(Outcome::Overloaded)
    );
}
