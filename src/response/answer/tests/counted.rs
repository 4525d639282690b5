//! Whether a usage that a stream tells counts the content of the answer.

use super::*;
use crate::spend::usage::{Source, Usage};

/// So many words come between the first chunk and the last.
const WORDS: usize = 300;

/// What the request has, by the estimate.
const INPUT: u64 = 7;

fn usage(input: u64, output: u64) -> String {
    format!(r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}"#, input + output)
}

/// A chunk with this usage beside its choices.
fn with(chunk: &str, usage: &str) -> String {
    [chunk.trim_end().strip_suffix('}').unwrap(), ",\"usage\":", usage, "}\n\n"].concat()
}

fn own(usage: &str) -> String {
    let (begin, _) = USAGE.split_once("\"usage\":").unwrap();
    [begin, "\"usage\":", usage, "}\n\n"].concat()
}

/// What is billed, and what a client that asked is told; `None` if it is told nothing.
fn billed(asked: &Asked, events: &[&str]) -> (Usage, Source, Option<u64>) {
    let (passed, tally) = pass_as(asked, &[&events.concat()], true);
    let (usage, source) = tally.settle(|| INPUT);
    let told = passed
        .sent
        .rsplit_once("\"completion_tokens\":")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
    (usage, source, told)
}

#[test]
fn a_usage_is_reported_only_if_no_content_came_after_it() {
    use Source::{Estimated, Reported};
    let words = WORLD.repeat(WORDS);
    let (about, after) = ((WORDS as u64 + 1), WORLD.repeat(2));
    let final_usage = with(FINISH, &usage(90, 280));
    let each: String = (1..=WORDS as u64).map(|word| with(WORLD, &usage(90, word))).collect();
    let never: String = (1..=WORDS).map(|_| with(WORLD, &usage(90, 0))).collect();
    let constant: String = (1..=WORDS).map(|_| with(WORLD, &usage(90, 280))).collect();
    // What the provider sends; the input, the output, the source, and the output that the client is told.
    for (name, events, input, output, source, told) in [
        (
            "first with 0",
            vec![&*with(ROLE, &usage(90, 0)), HELLO, &words, FINISH],
            90,
            about,
            Estimated,
            None,
        ),
        ("first with 1", vec![&*with(HELLO, &usage(90, 1)), &words, FINISH], 90, about, Estimated, None),
        ("first of its own", vec![&*own(&usage(90, 1)), HELLO, &words, FINISH], 90, about, Estimated, None),
        (
            "first without input",
            vec![&*own(&usage(0, 1)), HELLO, &words, FINISH],
            INPUT,
            about,
            Estimated,
            None,
        ),
        ("first, and it is cut", vec![&*with(HELLO, &usage(90, 1)), &words], 90, about, Estimated, None),
        (
            "only the input, at the end",
            vec![HELLO, &words, FINISH, &*own(r#"{"prompt_tokens":90}"#)],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "the input and all, at the end",
            vec![HELLO, &words, FINISH, &*own(r#"{"prompt_tokens":90,"total_tokens":370}"#)],
            90,
            280,
            Reported,
            Some(280),
        ),
        (
            "in the middle",
            vec![HELLO, &*with(WORLD, &usage(90, 2)), &words, FINISH],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "in the middle, and larger",
            vec![HELLO, &*own(&usage(90, 900)), &words, FINISH],
            90,
            900,
            Reported,
            None,
        ),
        (
            "first, and zeros at the end",
            vec![&*with(HELLO, &usage(90, 1)), &words, FINISH, &*own(&usage(0, 0))],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "first, and the last",
            vec![&*with(HELLO, &usage(90, 1)), &words, &final_usage],
            90,
            280,
            Reported,
            Some(280),
        ),
        (
            "the last of its own",
            vec![HELLO, &words, FINISH, &*own(&usage(90, 280))],
            90,
            280,
            Reported,
            Some(280),
        ),
        (
            "before the finish reason",
            vec![HELLO, &words, &*own(&usage(90, 280)), FINISH],
            90,
            280,
            Reported,
            Some(280),
        ),
        ("a last zero alone", vec![HELLO, &words, FINISH, &*own(&usage(90, 0))], 90, 0, Reported, Some(0)),
        ("in every chunk", vec![HELLO, &each, FINISH], 90, WORDS as u64, Reported, Some(WORDS as u64)),
        ("in every chunk, and it is cut", vec![HELLO, &each], 90, WORDS as u64, Reported, None),
        ("in every chunk, then none", vec![HELLO, &each, &after, FINISH], 90, about + 2, Estimated, None),
        ("zeros in every chunk", vec![HELLO, &never, FINISH], 90, about, Estimated, None),
        (
            "zeros in every chunk and the last",
            vec![HELLO, &never, &*with(FINISH, &usage(90, 0))],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "all of it in every chunk",
            vec![HELLO, &constant, &*with(FINISH, &usage(90, 280))],
            90,
            280,
            Reported,
            Some(280),
        ),
        ("none", vec![HELLO, &words, FINISH], INPUT, about, Estimated, None),
    ] {
        let (usage, from, tells) = billed(&asked(Release::FirstToken), &events);
        assert_eq!((usage.input, from, tells), (input, source, told), "{name}");
        let bounds = if source == Reported { output..=output } else { output * 9 / 10..=output * 11 / 10 };
        assert!(bounds.contains(&usage.output), "{name}: {usage:?}");
    }
}

#[test]
fn everything_that_the_model_writes_is_content_after_a_usage() {
    let word = r"Hello, here are six words more. ";
    let text = word.repeat(40);
    let least = 40 * 6;
    for field in [
        format!(r#"{{"content":"{text}"}}"#),
        format!(r#"{{"content":[{{"type":"text","text":"{text}"}}]}}"#),
        format!(r#"{{"content":[{{"type":"thinking","thinking":[{{"type":"text","text":"{text}"}}]}}]}}"#),
        format!(r#"{{"reasoning_content":"{text}"}}"#),
        format!(r#"{{"reasoning":"{text}"}}"#),
        format!(r#"{{"reasoning_details":[{{"type":"reasoning.text","text":"{text}"}}]}}"#),
        format!(r#"{{"refusal":"{text}"}}"#),
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":"c","type":"function","function":{{"name":"f","arguments":"{{\"a\":\"{text}\"}}"}}}}]}}"#
        ),
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":"c","type":"custom","custom":{{"name":"f","input":"{text}"}}}}]}}"#
        ),
        format!(r#"{{"function_call":{{"name":"f","arguments":"{{\"a\":\"{text}\"}}"}}}}"#),
        format!(r#"{{"audio":{{"id":"a","transcript":"{text}"}}}}"#),
    ] {
        let delta = HELLO.replace(r#"{"content":"Hello"}"#, &field);
        let events = [&with(HELLO, &usage(90, 1)), &*delta, FINISH, DONE_EVENT];
        let (usage, source, told) = billed(&asked(Release::FirstToken), &events);
        assert_eq!((usage.input, source, told), (90, Source::Estimated, None), "{field}");
        assert!((least..least * 3 / 2).contains(&usage.output), "{usage:?} {field}");
    }
    let chunk = HELLO.replace(r#""delta":{"content":"Hello"}"#, &format!(r#""text":"{text}""#));
    let completions = Asked { endpoint: Endpoint::Completions, ..asked(Release::FirstToken) };
    let end = FINISH.replace("\"delta\":{}", "\"text\":\"\"");
    let (usage, source, _) = billed(&completions, &[&own(&usage(90, 1)), &*chunk, &end, DONE_EVENT]);
    assert!(usage.output >= least && source == Source::Estimated, "{usage:?}");
}

#[test]
fn data_in_an_answer_is_no_text() {
    let data = "iVBORw0KGgoAAAANSUhEUgAAAAUA/+9k".repeat(10_000);
    for field in [
        format!(
            r#"{{"content":[{{"type":"text","text":"Hi"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}"#
        ),
        format!(
            r#"{{"content":"Hi","images":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}"#
        ),
        format!(r#"{{"reasoning_details":[{{"type":"reasoning.encrypted","data":"{data}"}}]}}"#),
        format!(r#"{{"audio":{{"id":"a","data":"{data}"}}}}"#),
    ] {
        let delta = HELLO.replace(r#"{"content":"Hello"}"#, &field);
        let (usage, ..) = billed(&asked(Release::FirstToken), &[HELLO, &delta, FINISH, DONE_EVENT]);
        assert!(usage.output <= 320_000 / 2133 + 5, "{usage:?}");
    }
    let text = HELLO.replace("Hello", &data);
    let (usage, ..) = billed(&asked(Release::FirstToken), &[&text, FINISH, DONE_EVENT]);
    assert!(usage.output > 320_000 / 3, "{usage:?}");
}

#[test]
fn a_messages_stream_is_billed_what_its_end_tells_and_not_what_its_beginning_does() {
    use Source::{Estimated, Reported};
    let asked = Asked { wire: Wire::Anthropic, ..asked(Release::FirstToken) };
    let event =
        |kind: &str, fields: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{fields}}}\n\n");
    let start = |usage: &str| {
        event("message_start", &format!(r#","message":{{"id":"m","model":"c","usage":{usage}}}"#))
    };
    let block = event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#);
    let word = event("content_block_delta", r#","index":0,"delta":{"type":"text_delta","text":" world"}"#);
    let words = block + &word.repeat(WORDS);
    let end =
        |usage: &str| event("message_delta", &format!(r#","delta":{{"stop_reason":"end_turn"}}{usage}"#));
    let stop = event("message_stop", "");
    let told = r#"{"input_tokens":20,"cache_read_input_tokens":70,"output_tokens":1}"#;
    let about = WORDS as u64;
    for (name, events, input, output, source, tells) in [
        (
            "the end tells it",
            vec![start(told), words.clone(), end(r#","usage":{"output_tokens":280}"#), stop.clone()],
            90,
            280,
            Reported,
            Some(280),
        ),
        (
            "only the beginning",
            vec![start(told), words.clone(), end(""), stop.clone()],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "the end has a zero",
            vec![start(told), words.clone(), end(r#","usage":{"output_tokens":0}"#), stop.clone()],
            90,
            about,
            Estimated,
            None,
        ),
        (
            "the end has no output",
            vec![start(told), words.clone(), end(r#","usage":{"input_tokens":20}"#), stop.clone()],
            90,
            about,
            Estimated,
            None,
        ),
        ("it is cut", vec![start(told), words.clone()], 90, about, Estimated, None),
        (
            "it fails before any content",
            vec![
                start(told),
                event("error", r#","error":{"type":"overloaded_error","message":"Overloaded"}"#),
            ],
            90,
            1,
            Reported,
            None,
        ),
        (
            "the usage comes before the end",
            vec![
                start(told),
                words.clone(),
                event("message_delta", r#","usage":{"output_tokens":280}"#),
                end(""),
            ],
            90,
            280,
            Reported,
            Some(280),
        ),
        (
            "it comes before some words",
            vec![
                start(told),
                event("message_delta", r#","usage":{"output_tokens":2}"#),
                words.clone(),
                end(""),
            ],
            90,
            about,
            Estimated,
            None,
        ),
        ("nothing", vec![start("{}"), words.clone(), end(""), stop.clone()], INPUT, about, Estimated, None),
    ] {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let (usage, from, told) = billed(&asked, &events);
        assert_eq!((usage.input, from, told), (input, source, tells), "{name}");
        assert_eq!(usage.cached, if input == 90 { 70 } else { 0 }, "{name}");
        let bounds = if source == Reported { output..=output } else { output * 9 / 10..=output * 11 / 10 };
        assert!(bounds.contains(&usage.output), "{name}: {usage:?}");
    }
}

#[test]
fn a_response_is_billed_what_its_last_event_tells_and_sound_by_its_length() {
    let asked = Asked { endpoint: Endpoint::Responses, ..asked(Release::FirstToken) };
    let event =
        |kind: &str, fields: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{fields}}}\n\n");
    let created = event(
        "response.created",
        r#""response":{"id":"r","status":"in_progress","usage":{"input_tokens":90,"output_tokens":0}}"#,
    );
    let end = |usage: &str| {
        event(
            "response.completed",
            &format!(r#""response":{{"id":"r","status":"completed","output":[]{usage}}}"#),
        )
    };
    for kind in [
        "response.output_text.delta",
        "response.reasoning_summary_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
    ] {
        let words = event(kind, r#""delta":" world""#).repeat(WORDS);
        let (usage, source, _) = billed(&asked, &[&created, &words, &end("")]);
        assert_eq!((usage.input, source), (90, Source::Estimated), "{kind}");
        assert!((270..330).contains(&usage.output), "{kind}: {usage:?}");
        let told = end(r#","usage":{"input_tokens":90,"output_tokens":280}"#);
        let (usage, source, _) = billed(&asked, &[&created, &words, &told]);
        assert_eq!((usage.output, source), (280, Source::Reported), "{kind}");
    }
    let sound =
        event("response.output_audio.delta", &format!(r#""delta":"{}""#, "Zm9v".repeat(1000))).repeat(10);
    let (usage, ..) = billed(&asked, &[&sound, &end("")]);
    assert!((15..25).contains(&usage.output), "{usage:?}");
}

#[test]
fn an_event_that_passes_unread_is_content_after_a_usage() {
    let event = HELLO.replace("Hello", &"word ".repeat(2 << 20));
    let pieces: Vec<&str> =
        event.as_bytes().chunks(1 << 20).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    let first = with(HELLO, &usage(90, 1));
    let (passed, tally) =
        pass_as(&asked(Release::FirstToken), &[&[&*first], &*pieces, &[FINISH, DONE_EVENT]].concat(), true);
    assert_eq!((passed.outcome, tally.uncounted), (Some(Outcome::Answered), true));
    assert!(!passed.sent.contains("completion_tokens"));
}

#[test]
fn an_answer_that_is_too_long_to_be_read_is_billed_by_its_usage_or_by_its_length() {
    let text = "word ".repeat(4000);
    let whole = |before: &str, after: &str| {
        format!(
            r#"{{"id":"c"{before},"choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]{after}}}"#
        )
    };
    let told = format!(r#","usage":{}"#, usage(90, 4100));
    for (body, input, output, source) in [
        (whole("", &told), 90, 4100..=4100, Source::Reported),
        (whole(&told, ""), 90, 4100..=4100, Source::Reported),
        (whole("", ""), INPUT, 4000..=6000, Source::Estimated),
        (whole("", r#","usage":null"#), INPUT, 4000..=6000, Source::Estimated),
        (whole("", r#","usage":{"prompt_tokens":90}"#), 90, 4000..=6000, Source::Estimated),
        (whole(r#","usage":{"prompt_tokens":90}"#, &told), 90, 4100..=4100, Source::Reported),
    ] {
        let mut watch = watch(&SSE, false, Release::FirstToken);
        let (held, rest) = body.split_at(1000);
        assert_eq!(watch.judge(held.as_bytes(), false).verdict.outcome, Outcome::Answered);
        for piece in rest.as_bytes().chunks(1000) {
            watch.relay(piece, false, PROVIDER);
        }
        watch.relay(b"", true, PROVIDER);
        let (usage, from) = watch.tally().settle(|| INPUT);
        assert!(usage.input == input && output.contains(&usage.output) && from == source, "{usage:?}");
    }
    let vectors = format!(r#"{{"data":[{{"embedding":[{}1]}}]}}"#, "0.5,".repeat(4000));
    let mut watch =
        Watch::new(&SSE, Asked { endpoint: Endpoint::Embeddings, stream: false, ..asked(Release::Complete) });
    watch.judge(vectors.as_bytes().get(..1000).unwrap(), false);
    watch.relay(vectors.as_bytes().get(1000..).unwrap(), true, PROVIDER);
    assert_eq!(watch.tally().settle(|| INPUT).0.output, 0);
}
