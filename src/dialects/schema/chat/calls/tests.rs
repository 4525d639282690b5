//! What a client joins out of the pieces of tool calls, whatever pieces the provider sends.

use std::collections::BTreeMap;

use serde_json::{json, Value};

use crate::client_api::request::{Endpoint, Input};
use crate::config::Release;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::health::outcome::Outcome;
use crate::response::answer::{Head, Step, Watch};
use crate::response::asked::Asked;
use crate::routing::provider::ApiKey;

fn asked() -> Asked {
    Asked {
        endpoint: Endpoint::Chat,
        stream: true,
        usage: false,
        release: Release::FirstToken,
        wire: Wire::OpenAi,
        defaults: Defaults {
            id: "made".to_owned(),
            created: 9,
            model: "m".to_owned(),
            input: std::rc::Rc::new(Input::with_tokens(7)),
            ..Defaults::default()
        },
        key: ApiKey::new("Bearer ", "0123456789abcdef").unwrap(),
    }
}

/// What the client gets of a stream whose events come one by one, and how it ended.
fn relayed(events: &[String]) -> (String, Outcome) {
    let head = Head { status: 200, retry_after: None };
    let mut watch = Watch::new(&head, asked());
    let (mut withheld, mut sent, mut released) = (Vec::new(), Vec::new(), false);
    for (number, event) in events.iter().enumerate() {
        let (piece, end) = (event.as_bytes(), number + 1 == events.len());
        if released {
            let forward = watch.relay(piece, end, "acme");
            sent.extend(forward.replace.unwrap_or_else(|| piece.to_vec()));
            if let Some(outcome) = forward.ended {
                return (String::from_utf8(sent).unwrap(), outcome);
            }
            continue;
        }
        withheld.extend_from_slice(piece);
        if let Step::Judged(judged) = watch.withhold(piece, end, withheld.len(), 1 << 20) {
            if judged.verdict.outcome != Outcome::Answered {
                return (String::new(), judged.verdict.outcome);
            }
            sent.extend(watch.release(end, "acme").unwrap_or_else(|| withheld.clone()));
            released = true;
        }
    }
    (String::from_utf8(sent).unwrap(), Outcome::Answered)
}

/// A chunk with this choice.
fn chunk(choice: &str) -> String {
    let head = r#""id":"x","object":"chat.completion.chunk","created":1,"model":"y""#;
    format!("data: {{{head},\"choices\":[{choice}]}}\n\n")
}

/// A chunk whose delta has these tool calls.
fn calls(list: &str) -> String {
    chunk(&format!(r#"{{"index":0,"delta":{{"tool_calls":[{list}]}},"finish_reason":null}}"#))
}

const FIRST: &str = r#"{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}"#;
const LAST: &str = r#"{"index":0,"delta":{},"finish_reason":"tool_calls"}"#;

/// A stream of these events between a role and a finish.
fn stream(events: &[String]) -> Vec<String> {
    [&[chunk(FIRST)], events, &[chunk(LAST), "data: [DONE]\n\n".to_owned()]].concat()
}

/// Joins what a client got, as the strictest client does: the first piece of a call has its id, type and name, the later ones add to
/// its arguments alone, and calls begin in the order of their indices. Returns the calls of each choice.
fn joined(sent: &str) -> Vec<Vec<(String, String, String)>> {
    let mut choices: BTreeMap<u64, Vec<(String, String, String)>> = BTreeMap::new();
    let (mut roles, mut finished) = (BTreeMap::new(), Vec::new());
    for event in sent.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" {
            continue;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&chunk["id"], &chunk["created"]), (&json!("x"), &json!(1)), "{data}");
        for choice in chunk["choices"].as_array().unwrap() {
            let number = choice["index"].as_u64().unwrap();
            assert!(!finished.contains(&number), "nothing comes after the finish: {data}");
            if let Some(role) = choice["delta"].get("role") {
                assert_eq!(roles.insert(number, role.clone()), None, "the role is told once: {data}");
            }
            let calls = choices.entry(number).or_default();
            for piece in choice["delta"]["tool_calls"].as_array().unwrap_or(&Vec::new()) {
                let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
                let function = &piece["function"];
                let arguments = function["arguments"].as_str().unwrap();
                if index == calls.len() {
                    assert_eq!(piece["type"], "function", "{data}");
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    calls.push((text(&piece["id"]), text(&function["name"]), String::new()));
                } else {
                    let names: Vec<_> = piece.as_object().unwrap().keys().collect();
                    assert!(names.iter().all(|name| !["id", "type"].contains(&name.as_str())), "{data}");
                    assert!(function.get("name").is_none(), "{data}");
                }
                calls[index].2.push_str(arguments);
            }
            if !choice["finish_reason"].is_null() {
                finished.push(number);
            }
        }
    }
    choices.into_values().collect()
}

/// The calls of the only choice of a stream with these lists of tool calls.
fn told(lists: &[&str]) -> Vec<(String, String, String)> {
    let events: Vec<_> = lists.iter().map(|list| calls(list)).collect();
    let (sent, outcome) = relayed(&stream(&events));
    assert_eq!(outcome, Outcome::Answered, "{sent}");
    assert!(sent.ends_with("data: [DONE]\n\n"), "{sent}");
    // However the events come together, the client gets the same.
    let (at_once, _) = relayed(&[stream(&events).concat()]);
    assert_eq!(at_once, sent);
    let mut choices = joined(&sent);
    assert_eq!(choices.len(), 1, "{sent}");
    let calls = choices.remove(0);
    let ids: std::collections::BTreeSet<_> = calls.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), calls.len(), "each call has an id of its own: {sent}");
    assert!(calls.iter().all(|(id, name, _)| !id.is_empty() && !name.is_empty()), "{sent}");
    calls
}

/// What is sent, as lists of tool calls; and the id, the name and the arguments of each call that is told.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str, &'a str)]);

fn check(rows: &[Row<'_>]) {
    for (lists, expected) in rows {
        let calls = told(lists);
        let calls: Vec<_> = calls.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(calls, *expected, "{lists:?}");
    }
}

#[test]
fn a_call_begins_when_its_id_and_its_whole_name_are_known() {
    check(&[
        (
            &[
                r#"{"index":0,"id":"call_x","type":"function","function":{"arguments":""}}"#,
                r#"{"index":0,"function":{"name":"f"}}"#,
                r#"{"index":0,"function":{"arguments":"{\"a\":"}}"#,
                r#"{"index":0,"function":{"arguments":"1}"}}"#,
            ],
            &[("call_x", "f", r#"{"a":1}"#)],
        ),
        (
            &[
                r#"{"index":0,"function":{"name":"f"}}"#,
                r#"{"index":0,"id":"call_x"}"#,
                r#"{"index":0,"function":{"arguments":"{}"}}"#,
            ],
            &[("call_x", "f", "{}")],
        ),
        (
            &[
                r#"{"index":0,"id":"c","type":"function","function":{"name":"get_","arguments":""}}"#,
                r#"{"index":0,"function":{"name":"wea"}}"#,
                r#"{"index":0,"function":{"name":"ther","arguments":"{"}}"#,
                r#"{"index":0,"function":{"arguments":"}"}}"#,
            ],
            &[("c", "get_weather", "{}")],
        ),
        // The name so far, and more.
        (
            &[
                r#"{"index":0,"id":"c","function":{"name":"get_"}}"#,
                r#"{"index":0,"id":"c","function":{"name":"get_weather"}}"#,
                r#"{"index":0,"id":"c","function":{"name":"get_weather","arguments":"{}"}}"#,
            ],
            &[("c", "get_weather", "{}")],
        ),
        // The name comes after the arguments.
        (
            &[
                r#"{"index":0,"id":"c","function":{"arguments":"{\"a\""}}"#,
                r#"{"index":0,"function":{"arguments":":"}}"#,
                r#"{"index":0,"function":{"name":"f","arguments":"1}"}}"#,
            ],
            &[("c", "f", r#"{"a":1}"#)],
        ),
        // The next call and the finish end a name, too.
        (
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"no","arguments":""}}"#,
                r#"{"index":0,"function":{"name":"w"}}"#,
                r#"{"index":1,"id":"b","type":"function","function":{"name":"to","arguments":""}}"#,
                r#"{"index":1,"function":{"name":"day"}}"#,
            ],
            &[("a", "now", "{}"), ("b", "today", "{}")],
        ),
        (&[r#"{"index":0,"id":5,"function":{"name":"f","arguments":"{}"}}"#], &[("5", "f", "{}")]),
    ]);
}

#[test]
fn a_missing_id_is_made_and_is_no_other_calls_id() {
    check(&[
        (&[r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#], &[("call_0", "f", "{}")]),
        (
            &[
                r#"{"index":0,"id":"","function":{"name":"f"}}"#,
                r#"{"index":0,"id":null,"function":{"arguments":"{"}}"#,
                r#"{"index":0,"id":"late","function":{"arguments":"}"}}"#,
            ],
            &[("call_0", "f", "{}")],
        ),
        (
            &[
                r#"{"index":0,"id":"call_1","function":{"name":"f","arguments":"{}"}}"#,
                r#"{"index":1,"function":{"name":"g","arguments":"{}"}}"#,
            ],
            &[("call_1", "f", "{}"), ("call_2", "g", "{}")],
        ),
        (
            &[
                r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#,
                r#"{"index":1,"id":"call_0","function":{"name":"g","arguments":"{}"}}"#,
            ],
            &[("call_0", "f", "{}"), ("call_1", "g", "{}")],
        ),
        (
            &[
                r#"{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}"#,
                r#"{"index":1,"id":"x","function":{"name":"g","arguments":"{}"}}"#,
            ],
            &[("x", "f", "{}"), ("call_1", "g", "{}")],
        ),
        (
            &[
                r#"{"function":{"name":"f","arguments":"{}"}},{"id":"call_0","function":{"name":"g","arguments":"{}"}}"#,
            ],
            &[("call_0", "f", "{}"), ("call_1", "g", "{}")],
        ),
    ]);
}

#[test]
fn parallel_calls_are_told_apart_and_numbered_from_zero() {
    let paris = r#"{"city":"Paris"}"#;
    check(&[
        // All have the index 0, and other ids.
        (
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"city\":\"Paris\"}"}}"#,
                r#"{"index":0,"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}"#,
            ],
            &[("a", "f", paris), ("b", "f", "{}")],
        ),
        (
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{\"city\":"}}"#,
                r#"{"index":0,"function":{"arguments":"\"Paris\"}"}}"#,
                r#"{"index":0,"id":"b","type":"function","function":{"name":"g","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{"}}"#,
                r#"{"index":0,"id":"b","function":{"arguments":"}"}}"#,
            ],
            &[("a", "f", paris), ("b", "g", "{}")],
        ),
        // Their pieces come in turn, each with its id.
        (
            &[
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":"}}"#,
                r#"{"index":0,"id":"b","function":{"name":"g","arguments":"{\"y\":"}}"#,
                r#"{"index":0,"id":"a","function":{"arguments":"1}"}}"#,
                r#"{"index":0,"id":"b","function":{"arguments":"2}"}}"#,
            ],
            &[("a", "f", r#"{"x":1}"#), ("b", "g", r#"{"y":2}"#)],
        ),
        // In one chunk.
        (
            &[
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}},{"index":0,"id":"b","function":{"name":"f","arguments":""}}"#,
            ],
            &[("a", "f", "{}"), ("b", "f", "{}")],
        ),
        (
            &[
                r#"{"index":0,"function":{"name":"f","arguments":""}},{"index":0,"function":{"name":"g","arguments":""}}"#,
            ],
            &[("call_0", "f", "{}"), ("call_1", "g", "{}")],
        ),
        // The first index is 1.
        (
            &[
                r#"{"index":1,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#,
                r#"{"index":1,"function":{"arguments":"{}"}}"#,
                r#"{"index":2,"id":"b","type":"function","function":{"name":"g","arguments":""}}"#,
                r#"{"index":2,"function":{"arguments":"{}"}}"#,
            ],
            &[("a", "f", "{}"), ("b", "g", "{}")],
        ),
        // No index at all.
        (
            &[
                r#"{"id":"a","function":{"name":"f","arguments":"{"}}"#,
                r#"{"function":{"arguments":"}"}}"#,
                r#"{"id":"b","function":{"name":"f"}}"#,
                r#"{"id":"b","function":{"arguments":"{}"}}"#,
                r#"{"function":{"name":"f","arguments":{"x":1}}}"#,
                r#"{"function":{"name":"f","arguments":{"x":2}}}"#,
            ],
            &[
                ("a", "f", "{}"),
                ("b", "f", "{}"),
                ("call_2", "f", r#"{"x":1}"#),
                ("call_3", "f", r#"{"x":2}"#),
            ],
        ),
        // The index comes later, or goes.
        (
            &[
                r#"{"id":"a","function":{"name":"f","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{"}}"#,
                r#"{"function":{"arguments":"}"}}"#,
            ],
            &[("a", "f", "{}")],
        ),
        // The pieces of two calls come in turn.
        (
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}},{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}"#,
                r#"{"index":1,"function":{"arguments":"{\"y\":"}},{"index":0,"function":{"arguments":"{\"x\":"}}"#,
                r#"{"index":0,"function":{"arguments":"1}"}},{"index":1,"function":{"arguments":"2}"}}"#,
            ],
            &[("a", "f", r#"{"x":1}"#), ("b", "g", r#"{"y":2}"#)],
        ),
    ]);
}

#[test]
fn what_is_repeated_in_each_piece_is_told_once() {
    check(&[
        (
            &[
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}"#,
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":"}}"#,
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"1}"}}"#,
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}"#,
            ],
            &[("c", "f", r#"{"a":1}"#)],
        ),
        (
            &[
                r#"{"function":{"name":"f","arguments":"{\"a\":"},"type":"function","id":"c"}"#,
                r#"{"function":{"name":"f","arguments":"1"},"type":"function","id":"c"}"#,
                r#"{"type":null,"function":{"arguments":"}","name":null},"id":null}"#,
            ],
            &[("c", "f", r#"{"a":1}"#)],
        ),
        // Without an id.
        (
            &[
                r#"{"index":0,"function":{"name":"f","arguments":"{\"a\":"}}"#,
                r#"{"index":0,"function":{"name":"f","arguments":"1}"}}"#,
            ],
            &[("call_0", "f", r#"{"a":1}"#)],
        ),
        // vLLM: another id in each piece.
        (
            &[
                r#"{"index":0,"id":"r1","type":"function","function":{"name":"f"}}"#,
                r#"{"index":0,"id":"r2","type":"function","function":{"arguments":"{\"a\":"}}"#,
                r#"{"index":0,"id":"r3","type":"function","function":{"arguments":""}}"#,
                r#"{"index":0,"id":"r4","type":"function","function":{"arguments":"1}"}}"#,
            ],
            &[("r1", "f", r#"{"a":1}"#)],
        ),
        // All calls once more at the end, with an id and without.
        (
            &[
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"a\":1}"}}"#,
                r#"{"index":1,"id":"b","function":{"name":"g","arguments":""}}"#,
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"a\":1}"}},{"index":1,"id":"b","function":{"name":"g"}}"#,
            ],
            &[("a", "f", r#"{"a":1}"#), ("b", "g", "{}")],
        ),
        // A cut within a text of the arguments.
        (
            &[
                r#"{"index":0,"function":{"name":"f","arguments":"{\"a\":\"}"}}"#,
                r#"{"index":0,"function":{"name":"f","arguments":"{\"}"}}"#,
            ],
            &[("call_0", "f", r#"{"a":"}{"}"#)],
        ),
        // The indices count the pieces.
        (
            &[
                r#"{"index":0,"id":"c","function":{"name":"f","arguments":""}}"#,
                r#"{"index":1,"id":"c","function":{"arguments":"{"}}"#,
                r#"{"index":2,"id":"c","function":{"arguments":"}"}}"#,
            ],
            &[("c", "f", "{}")],
        ),
    ]);
}

#[test]
fn arguments_that_are_blank_to_the_end_are_an_empty_object() {
    for pieces in [
        &[r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}"#][..],
        &[r#"{"index":0,"id":"c","type":"function","function":{"name":"f"}}"#],
        &[r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":null}}"#],
        &[r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":{}}}"#],
        &[
            r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"function":{"arguments":" \n"}}"#,
            r#"{"index":0,"function":{"arguments":""}}"#,
        ],
    ] {
        check(&[(pieces, &[("c", "f", "{}")])]);
    }
    check(&[
        // An empty object only announces the arguments, as an object or as text.
        (
            &[
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}"#,
                r#"{"index":0,"function":{"arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{\"a\":1}"}}"#,
            ],
            &[("c", "f", r#"{"a":1}"#)],
        ),
        (
            &[
                r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":{}}}"#,
                r#"{"index":0,"function":{"arguments":"{\"a\":1}"}}"#,
            ],
            &[("c", "f", r#"{"a":1}"#)],
        ),
        (
            &[r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":{"a": [1]}}}"#],
            &[("c", "f", r#"{"a": [1]}"#)],
        ),
    ]);
}

#[test]
fn the_finish_comes_after_what_was_kept_even_in_the_same_chunk() {
    let last = |list: &str, reason: &str| {
        chunk(&format!(
            r#"{{"index":0,"delta":{{"role":"assistant","tool_calls":[{list}]}},"finish_reason":"{reason}"}}"#
        ))
    };
    let kept = r#"{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}"#;
    let whole = r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}"#;
    for (list, reason, expected) in [
        (kept.to_owned(), "tool_calls", &["b"][..]),
        (format!("{whole},{kept}"), "TOOL_CALLS", &["a", "b"]),
        (format!("{kept},{whole}"), "stop", &["b", "a"]),
    ] {
        let (sent, outcome) = relayed(&[last(&list, reason), "data: [DONE]\n\n".to_owned()]);
        assert_eq!(outcome, Outcome::Answered);
        let choices = joined(&sent);
        let ids: Vec<_> =
            choices[0].iter().map(|(id, _, arguments)| (id.as_str(), arguments.as_str())).collect();
        assert_eq!(ids, expected.iter().map(|id| (*id, "{}")).collect::<Vec<_>>(), "{sent}");
    }
}

#[test]
fn what_is_no_call_is_dropped_and_what_is_beside_a_call_stays() {
    let delta = |fields: &str, rest: &str| chunk(&format!(r#"{{"index":0,"delta":{{{fields}}},{rest}}}"#));
    let running = r#""finish_reason":null"#;
    let (sent, outcome) = relayed(&[
        delta(r#""role":"assistant","tool_calls":[null]"#, running),
        delta(r#""content":"a","tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]"#, running),
        delta(r#""content":"b","tool_calls":[]"#, running),
        delta(r#""content":"","x":1,"tool_calls":[{"index":0,"function":{"name":"oo"}}]"#, running),
        delta(r#""tool_calls":[{"index":0,"function":{"arguments":"{}"}}]"#, r#""finish_reason":"stop""#),
        "data: [DONE]\n\n".to_owned(),
    ]);
    assert_eq!(outcome, Outcome::Answered);
    let call = r#"{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"foo","arguments":""}}]},"logprobs":null,"finish_reason":null}"#;
    let expected = [
        delta(r#""role":"assistant","tool_calls":[]"#, running),
        delta(r#""content":"a","tool_calls":[]"#, running),
        delta(r#""content":"b","tool_calls":[]"#, running),
        delta(r#""content":"","x":1,"tool_calls":[]"#, running),
        chunk(call),
        delta(r#""tool_calls":[{"index":0,"function":{"arguments":"{}"}}]"#, r#""finish_reason":"stop""#),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(sent, expected.concat());
}

#[test]
fn each_choice_has_calls_of_its_own() {
    let of = |number: u8, list: &str| {
        format!(r#"{{"index":{number},"delta":{{"tool_calls":[{list}]}},"finish_reason":null}}"#)
    };
    let last = |number: u8| format!(r#"{{"index":{number},"delta":{{}},"finish_reason":"tool_calls"}}"#);
    let first = r#"{"index":0,"id":"ID","type":"function","function":{"name":"f","arguments":""}}"#;
    let rest = r#"{"index":0,"function":{"name":"oo","arguments":"{}"}}"#;
    let events = [
        chunk(&[of(0, &first.replace("ID", "a")), of(1, &first.replace("ID", ""))].join(",")),
        chunk(&of(1, rest)),
        chunk(&of(0, rest)),
        chunk(&last(1)),
        chunk(&last(0)),
        "data: [DONE]\n\n".to_owned(),
    ];
    let (sent, outcome) = relayed(&events);
    assert_eq!(outcome, Outcome::Answered);
    let call = |id: &str| vec![(id.to_owned(), "foo".to_owned(), "{}".to_owned())];
    assert_eq!(joined(&sent), [call("a"), call("call_0")], "{sent}");
}

#[test]
fn a_stream_as_openai_sends_it_passes_byte_for_byte() {
    let events = stream(&[
        calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""},"x":1}"#),
        calls(r#"{"index":0,"function":{"arguments":"{\"a\":"}}"#),
        calls(r#"{"index":0,"function":{"arguments":"1}"}}"#),
        calls(r#"{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}"#),
        calls(r#"{"index":1,"function":{"arguments":"{}"}}"#),
        calls(r#"{"index":2,"id":"c","type":"function","function":{"name":"h","arguments":"{}"}}"#),
        calls(r#"{"index":3,"id":"d","type":"function","function":{"name":"i","arguments":"[1]"}}"#),
    ]);
    assert_eq!(relayed(&events), (events.concat(), Outcome::Answered));
    assert_eq!(relayed(&[events.concat()]), (events.concat(), Outcome::Answered));
}

#[test]
fn a_stream_whose_first_chunk_begins_a_call_passes_byte_for_byte() {
    let first = r#"{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}],"refusal":null},"finish_reason":null}"#;
    let events = [
        chunk(first),
        calls(r#"{"index":0,"function":{"arguments":"{}"}}"#),
        chunk(LAST),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(relayed(&events), (events.concat(), Outcome::Answered));
    // Its role stays with it if its name must be changed.
    let (sent, _) =
        relayed(&[&events[..1], &[calls(r#"{"index":0,"function":{"name":"oo"}}"#)], &events[1..]].concat());
    assert_eq!(sent, events.concat().replace(r#""name":"f""#, r#""name":"foo""#));
}

#[test]
fn fields_that_the_schema_does_not_have_stay_with_their_call() {
    let (sent, _) = relayed(&stream(&[
        calls(
            r#"{"id":"a","function":{"name":"f","y":[2]},"extra_content":{"google":{"thought_signature":"s"}}}"#,
        ),
        calls(r#"{"id":"a","function":{"arguments":"{}","z":1},"w":3}"#),
    ]));
    assert!(sent.contains(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"","y":[2]},"extra_content":{"google":{"thought_signature":"s"}}}"#), "{sent}");
    assert!(sent.contains(r#"{"function":{"arguments":"{}","z":1},"index":0,"w":3}"#), "{sent}");
}

#[test]
fn a_call_of_a_custom_tool_gets_no_arguments() {
    let events = stream(&[
        calls(r#"{"index":0,"id":"a","type":"custom","custom":{"name":"sh","input":""}}"#),
        calls(r#"{"index":0,"custom":{"input":" ls"}}"#),
        calls(r#"{"index":1,"id":"b","type":"custom","custom":{"name":"sh","input":""}}"#),
    ]);
    assert_eq!(relayed(&events), (events.concat(), Outcome::Answered));
}

#[test]
fn a_role_in_each_delta_is_told_once() {
    let delta = |fields: &str| chunk(&format!(r#"{{"index":0,"delta":{{{fields}}},"finish_reason":null}}"#));
    let (sent, _) = relayed(&[
        delta(r#""role":"assistant","content":"a""#),
        delta(r#""role":"assistant","content":"b""#),
        delta(r#""content":"c" , "role" : "assistant""#),
        delta(r#""x":1,"role":"","reasoning":"t","y":2"#),
        chunk(r#"{"index":0,"delta":{"role":"assistant"},"finish_reason":"stop"}"#),
        "data: [DONE]\n\n".to_owned(),
    ]);
    assert_eq!(
        sent,
        [
            delta(r#""role":"assistant","content":"a""#),
            delta(r#""content":"b""#),
            delta(r#""content":"c""#),
            delta(r#""reasoning_content":"t","x":1,"reasoning":"t","y":2"#),
            chunk(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#),
            "data: [DONE]\n\n".to_owned(),
        ]
        .concat()
    );
}

#[test]
fn what_was_kept_is_dropped_if_the_stream_breaks() {
    let begun = calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#);
    let (sent, outcome) = relayed(&[chunk(FIRST), begun, String::new()]);
    assert_eq!(outcome, Outcome::Truncated);
    assert!(!sent.contains("tool_calls") && sent.contains("stream_truncated"), "{sent}");
}

#[test]
fn a_call_without_a_name_is_an_error_and_one_without_anything_is_none() {
    let nameless = calls(r#"{"index":0,"id":"a","function":{"arguments":"{}"}}"#);
    let (sent, outcome) = relayed(&stream(&[nameless]));
    assert_eq!(outcome, Outcome::Truncated);
    assert!(sent.contains("without a name") && !sent.contains("[DONE]"), "{sent}");
    assert_eq!(told(&[r#"{"index":0,"id":"a","type":"function","function":{"arguments":""}}"#]), []);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut lists: Vec<_> = (0..256)
        .map(|index| {
            calls(&format!(
                r#"{{"index":{index},"id":"c{index}","function":{{"name":"f","arguments":"{{}}"}}}}"#
            ))
        })
        .collect();
    assert_eq!(relayed(&stream(&lists)).1, Outcome::Answered);
    lists.push(calls(r#"{"index":256,"id":"c","function":{"name":"f","arguments":"{}"}}"#));
    assert_eq!(relayed(&stream(&lists)).1, Outcome::Truncated);
    let piece = calls(&format!(r#"{{"index":0,"function":{{"name":"{}"}}}}"#, "ab".repeat(4000)));
    let endless: Vec<_> = (0..20).map(|n| piece.replacen("abab", &format!("x{n}"), 1)).collect();
    assert_eq!(relayed(&stream(&endless)).1, Outcome::Truncated);
}

#[test]
fn a_call_that_was_begun_after_the_finish_reason_is_no_whole_answer() {
    let late = calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#);
    let done = "data: [DONE]\n\n".to_owned();
    let nothing = calls(r#"{"index":0,"function":{}}"#);
    for (events, outcome) in [
        (vec![chunk(FIRST), chunk(LAST), late.clone(), done.clone()], Outcome::Truncated),
        (vec![chunk(FIRST), chunk(LAST), late.clone()], Outcome::Truncated),
        (vec![chunk(FIRST), late.clone(), chunk(LAST), done.clone()], Outcome::Answered),
        (vec![chunk(FIRST), chunk(LAST), late, chunk(LAST), done.clone()], Outcome::Answered),
        (vec![chunk(FIRST), chunk(LAST), nothing, done], Outcome::Answered),
    ] {
        let (sent, ended) = relayed(&events);
        assert_eq!(ended, outcome, "{events:?} gave {sent}");
        assert_eq!(sent.contains("[DONE]"), outcome == Outcome::Answered, "{sent}");
    }
}

#[test]
fn the_word_null_is_no_finish_reason() {
    let begin = calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#)
        .replace("\"finish_reason\":null", "\"finish_reason\":\"null\"");
    let more = calls(r#"{"index":0,"function":{"arguments":"{\"a\":1}"}}"#);
    let (sent, outcome) = relayed(&stream(&[begin.clone(), more]));
    assert_eq!(outcome, Outcome::Answered);
    assert!(!sent.contains("\"arguments\":\"{}\""), "nothing was finished before: {sent}");
    assert_eq!(relayed(&[chunk(FIRST), begin, "data: [DONE]\n\n".to_owned()]).1, Outcome::Truncated);
}

#[test]
fn calls_without_arguments_and_ids_at_one_index_stay_two() {
    let call =
        |name: &str| calls(&format!(r#"{{"index":0,"function":{{"name":"{name}","arguments":"{{}}"}}}}"#));
    let (sent, outcome) = relayed(&stream(&[call("alpha"), call("beta")]));
    assert_eq!(outcome, Outcome::Answered);
    assert!(sent.contains("\"alpha\"") && sent.contains("\"beta\""), "{sent}");
}

#[test]
fn a_later_piece_with_nothing_but_a_vendors_own_fields_passes() {
    let call = |rest: &str| calls(&format!("{{\"index\":1,{rest}}}"));
    let begin = call(r#""id":"a","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}"#);
    let own = r#""extra_content":{"google":{"thought_signature":"sig"}}"#;
    for (piece, expected) in [
        (call(own), format!(r#"[{{"index":0,{own}}}]"#)),
        (calls(&format!(r#"{{"id":"a",{own}}}"#)), format!(r#"[{{{own},"index":0}}]"#)),
        (calls(&format!(r#"{{{own},"id":"a"}}"#)), format!(r#"[{{{own},"index":0}}]"#)),
    ] {
        let (sent, outcome) = relayed(&stream(&[begin.clone(), piece.clone()]));
        assert_eq!(outcome, Outcome::Answered);
        assert!(sent.contains(&expected), "{piece} gave {sent}");
    }
    let (sent, _) = relayed(&stream(&[begin, call(r#""id":"a","type":"function""#)]));
    assert_eq!(sent.matches("tool_calls\":[{").count(), 1, "{sent}");
}
