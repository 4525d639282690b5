//! Property tests of everything that reads bytes from the network, the configuration or the store.
//!
//! A failure prints its input and its seed. `SHUNT_FUZZ=1000` runs a thousand times as many cases (`make fuzz`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, Index};
use serde_json::Value;
use shunt::base::clock::{parse_duration, Timestamp};
use shunt::base::store::{Memory, Store, Swap, Version};
use shunt::bytes::headers::{HeaderWriter, Headers};
use shunt::bytes::sse::Reader;
use shunt::client_api::request::{Body, Endpoint, Head as RequestHead, LongestAnswer};
use shunt::config::{Config, Release};
use shunt::dialects::anthropic::{self, Translator};
use shunt::dialects::dialect::{Dialect, Reasoning, Vendor, Wire};
use shunt::dialects::schema::chat::{ChunkSummary, Form, Reading};
use shunt::dialects::schema::{self, Defaults};
use shunt::exchange::{End, Exchange, Next};
use shunt::health::breaker::{
    Evidence, EvidenceKind, Evidences, Hold, ModelHold, ModelHoldReason, Refusal, EVIDENCE_SLOTS, REFUSALS,
};
use shunt::health::breaker::{HoldPolicy, Permit, Policy, Record, Report, Rules, State, Window, MODEL_SLOTS};
use shunt::health::outcome::{
    judge, judge_in_answer, of_status, Effect, ErrorBody, HoldReason, Outcome, Verdict,
};
use shunt::record::audit::{AttemptFacts, Facts};
use shunt::record::bill::Bill;
use shunt::response::answer::{Head, Step, Wants, Watch};
use shunt::response::asked::Asked;
use shunt::routing::provider::ApiKey;
use shunt::selection::ledger::Ledger;
use shunt::selection::plan::Env;
use shunt::spend::budget::{
    Action, Budget, Period, Reservation, Scope, Select, Standing, State as Room, Subject,
};
use shunt::spend::cost::{Money, Part, Parts};
use shunt::spend::tokens::Estimator;
use shunt::spend::usage::{Calls, Details, Served, Source, Tally, Usage};

/// Runs `base` cases, times `SHUNT_FUZZ`. Failures are not written to disk, because each gets a test of its own.
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn cases(base: u32) -> ProptestConfig {
    let times = std::env::var("SHUNT_FUZZ").ok().and_then(|times| times.parse().ok()).unwrap_or(1_u32);
    ProptestConfig {
        cases: base.saturating_mul(times),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

// Generators of the inputs.

/// Bytes that are printed as text when a test fails.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes)
}

/// JSON of any form. Most of its keys are those that the code under test looks for.
fn json(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let key = move || prop_oneof![3 => select(keys).prop_map(str::to_owned), 1 => ".{0,4}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[0-9]{0,3}(ms|s|m|h)".prop_map(Value::from),
        key().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A change to a text: bytes are replaced, inserted or removed, or a part is doubled.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Double(Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let structural: Vec<u8> = b"{}[]\":,\\ \r\n\0tfn0-9.eE$*/\xEF\xFF".to_vec();
    let byte = prop_oneof![3 => select(structural), 1 => any::<u8>()];
    let change = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (any::<Index>(), prop::collection::vec(byte, 1..4)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..20_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<Index>(), 1..30_usize).prop_map(|(at, len)| Change::Double(at, len)),
    ];
    prop::collection::vec(change, 0..5)
}

fn changed(text: &[u8], changes: Vec<Change>) -> Bytes {
    let mut text = text.to_vec();
    for change in changes {
        let place = |at: Index, len: usize| at.index(len + 1);
        match change {
            Change::Replace(at, byte) if !text.is_empty() => {
                let at = at.index(text.len());
                text[at] = byte;
            }
            Change::Replace(..) => {}
            Change::Insert(at, bytes) => {
                let at = place(at, text.len());
                text.splice(at..at, bytes);
            }
            Change::Remove(at, len) => {
                let at = place(at, text.len());
                text.drain(at..(at + len).min(text.len()));
            }
            Change::Double(at, len) => {
                let at = place(at, text.len());
                let part = text[at..(at + len).min(text.len())].to_vec();
                text.splice(at..at, part);
            }
        }
    }
    Bytes(text)
}

/// Cuts bytes into pieces.
fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..8)
}

/// A stream of pieces that providers send, and of pieces that are broken.
fn stream() -> impl Strategy<Value = Bytes> {
    const PARTS: [&str; 22] = [
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"[DONE]\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\r",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"insufficient_system_resource\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{}}\n\n",
        "data: [DONE]\n\n",
        "data:[DONE]\r\n\r\n",
        "data: [DONE]\ndata:\n\n",
        "data\ndata: [DONE] \n\n",
        "event: error\ndata: {\"error\":{\"message\":\"m\"}}\n\n",
        "data: {\"error\":\"m\"}\n\n",
        ": comment\n\n",
        "event: x\n",
        "\u{FEFF}",
        "\r",
        "\n",
        "data: ",
        "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}",
        "{\"error\":{\"code\":\"slow_down\"}}",
    ];
    let part = prop_oneof![
        8 => select(PARTS.to_vec()).prop_map(|part| part.as_bytes().to_vec()),
        1 => bytes(6).prop_map(|bytes| bytes.0),
    ];
    (prop::collection::vec(part, 0..12), changes()).prop_map(|(parts, changes)| {
        // Half of the streams stay unchanged.
        let text = parts.concat();
        if changes.len() < 2 {
            Bytes(text)
        } else {
            changed(&text, changes)
        }
    })
}

/// A stream of events as Anthropic sends them.
fn messages_stream() -> impl Strategy<Value = Bytes> {
    const PARTS: [&str; 14] = [
        r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":9,"cache_read_input_tokens":18446744073709551615}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\nb"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"explanation":"no"}}}"#,
        r#"{"type":"message_stop"}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        r#"{"type":"something_new","x":[]}"#,
        "<html>",
    ];
    let event = prop_oneof![
        8 => select(PARTS.to_vec()).prop_map(|data| format!("event: x\ndata: {data}\n\n").into_bytes()),
        1 => Just(b"event: error\ndata: no\n\n".to_vec()),
        1 => bytes(6).prop_map(|bytes| bytes.0),
    ];
    (prop::collection::vec(event, 0..12), changes()).prop_map(|(parts, changes)| {
        let text = parts.concat();
        if changes.len() < 3 {
            Bytes(text)
        } else {
            changed(&text, changes)
        }
    })
}

fn any_stream() -> impl Strategy<Value = Bytes> {
    prop_oneof![2 => stream(), 1 => messages_stream()]
}

// Requests.

/// Dialects that rename, drop and set parameters. Some parameters are changed in several ways at once.
fn dialects() -> impl Strategy<Value = Dialect> {
    let name = || select(PARAMETERS).prop_map(str::to_owned);
    let names = || prop::collection::vec(name(), 0..3);
    let one = || select(PARAMETERS[1..].to_vec()).prop_map(str::to_owned);
    let renamed = prop::collection::vec((one(), one()), 0..3);
    let set = prop::collection::vec((name(), json(PARAMETERS).prop_map(|json| json.to_string())), 0..3);
    let reasoning = select(vec![Reasoning::Keep, Reasoning::Drop, Reasoning::Needed]);
    let fixes = (reasoning, any::<bool>());
    (renamed, names(), set, fixes).prop_map(|(rename, drop, mut set, (reasoning, renames_developer))| {
        set.sort_by(|(one, _), (other, _)| one.cmp(other));
        set.dedup_by(|(one, _), (other, _)| one == other);
        Dialect { rename, drop, set, reasoning, renames_developer, ..Dialect::of(Vendor::OpenAi) }
    })
}

const PARAMETERS: &[&str] =
    &["stream_options", "temperature", "tools", "max_tokens", "max_completion_tokens", "store"];

/// Checks that the model is found where it stands, and that the request is changed as the dialect says and in no other way.
fn check_request(text: &[u8], name: &str, dialect: &Dialect) -> Result<(), TestCaseError> {
    let names: Vec<String> = dialect.parameter_names().map(str::to_owned).collect();
    let Ok(body) = Body::read(text, Endpoint::Chat, &names) else { return Ok(()) };
    let place: Range<usize> = body.model_span.clone();
    let found: String = serde_json::from_slice(&text[place.clone()])
        .map_err(|error| TestCaseError::fail(format!("the place {place:?} holds no text: {error}")))?;
    prop_assert_eq!(&found, &body.model);
    prop_assert_eq!(body.len, text.len());
    let splices = dialect.splices(&body, Endpoint::Chat, name);
    let mut new = splices.apply(&text[..splices.prefix_len()]).unwrap();
    new.extend_from_slice(&text[splices.prefix_len()..]);
    prop_assert_eq!(new.len(), splices.len_after(text.len()));
    let shown = String::from_utf8_lossy(&new).into_owned();
    let Ok(again) = Body::read(new.clone(), Endpoint::Chat, &names) else {
        return Err(TestCaseError::fail(format!("cannot be read: {shown}")));
    };
    prop_assert_eq!(again.model.as_str(), name);
    prop_assert_eq!(again.stream, body.stream);
    for (set, value) in &dialect.set {
        let is_renamed = dialect.rename.iter().any(|(ours, theirs)| ours == set || theirs == set);
        let found: Vec<&str> = again
            .entries
            .iter()
            .filter(|entry| entry.name == *set)
            .map(|entry| std::str::from_utf8(&new[entry.value.clone()]).unwrap())
            .collect();
        prop_assert!(is_renamed || !found.is_empty(), "{} is not set: {}", set, shown);
        prop_assert!(is_renamed || found.iter().all(|found| found == value), "{}", shown);
    }
    for dropped in dialect.drop.iter().filter(|name| !dialect.set.iter().any(|(set, _)| set == *name)) {
        let is_renamed = dialect.rename.iter().any(|(ours, theirs)| ours == dropped || theirs == dropped);
        let is_left = again.entries.iter().any(|entry| entry.name == *dropped);
        prop_assert!(is_renamed || !is_left, "{} is left: {}", dropped, shown);
    }
    // A stricter JSON parser refuses some texts (a number that is too large for a float, a lone surrogate). They have no value to
    // compare.
    if let Ok(mut before) = serde_json::from_slice::<Value>(text) {
        let mut after: Value = serde_json::from_slice(&new).unwrap();
        before["model"] = Value::from(name);
        fix_messages(&mut before, dialect);
        for json in [&mut before, &mut after] {
            let entries = json.as_object_mut().unwrap();
            entries.remove("stream_options");
            names.iter().for_each(|name| drop(entries.remove(name)));
        }
        prop_assert_eq!(before, after);
        if body.stream && !names.iter().any(|name| name == "stream_options") {
            prop_assert!(again.wants_usage(), "{}", shown);
        }
    }
    Ok(())
}

/// Changes the messages of a conversation as a dialect must.
fn fix_messages(request: &mut Value, dialect: &Dialect) {
    let messages = request.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten();
    for message in messages.filter_map(Value::as_object_mut) {
        if dialect.reasoning == Reasoning::Drop {
            message.remove("reasoning_content");
        }
        if dialect.renames_developer && message.get("role").is_some_and(|role| role == "developer") {
            message.insert("role".to_owned(), "system".into());
        }
    }
}

const REQUEST_KEYS: &[&str] = &[
    "model",
    "stream",
    "messages",
    "tool_calls",
    "reasoning_content",
    "developer",
    "role",
    "content",
    "tools",
    "temperature",
    "max_tokens",
    "stream_options",
];

const MESSAGE_KEYS: &[&str] = &["role", "reasoning_content", "tool_calls", "content", "developer"];

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_request_of_any_bytes_is_read_or_refused(text in bytes(200), name in ".{1,10}", dialect in dialects()) {
        check_request(&text, &name, &dialect)?;
    }

    #[test]
    fn splices_change_what_the_dialect_says_and_nothing_else(
        mut request in json(REQUEST_KEYS).prop_filter("an object", Value::is_object),
        model in ".{1,12}", stream in any::<bool>(), name in ".{1,12}", pretty in any::<bool>(), dialect in dialects(),
    ) {
        request["model"] = Value::from(model.as_str());
        request["stream"] = Value::from(stream);
        let text = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) }.unwrap();
        let body = Body::read(text.clone(), Endpoint::Chat, &[]).unwrap();
        prop_assert_eq!((body.model.as_str(), body.stream), (model.as_str(), stream));
        check_request(&text, &name, &dialect)?;
    }

    #[test]
    fn a_conversation_is_changed_wherever_its_fields_are(
        messages in prop::collection::vec(json(MESSAGE_KEYS), 0..6),
        model in ".{1,12}", pretty in any::<bool>(), dialect in dialects(),
    ) {
        let request = serde_json::json!({"messages": messages, "model": model, "tools": [], "z": messages});
        let text = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) }.unwrap();
        check_request(&text, "b", &dialect)?;
    }

    #[test]
    fn a_damaged_request_is_read_correctly_or_refused(
        mut request in json(REQUEST_KEYS).prop_filter("an object", Value::is_object),
        model in ".{1,12}", name in ".{1,12}", changes in changes(), dialect in dialects(),
    ) {
        request["model"] = Value::from(model.as_str());
        check_request(&changed(&serde_json::to_vec(&request).unwrap(), changes), &name, &dialect)?;
    }

    #[test]
    fn parameters_in_any_order_and_number_are_changed_within_valid_json(
        before in prop::collection::vec((select(PARAMETERS), json(PARAMETERS)), 0..4),
        after in prop::collection::vec((select(PARAMETERS), json(PARAMETERS)), 0..4),
        stream in any::<bool>(), space in select(vec!["", " ", "\n\t"]), dialect in dialects(),
    ) {
        let entry = |(name, value): &(&str, Value)| format!("\"{name}\"{space}:{space}{value}{space}");
        let mut entries: Vec<String> = before.iter().map(entry).collect();
        entries.push(format!("\"model\":\"a\"{space}"));
        entries.push(format!("\"stream\":{stream}"));
        entries.extend(after.iter().map(entry));
        check_request(format!("{{{space}{}}}", entries.join(",")).as_bytes(), "b", &dialect)?;
    }
}

// Streams and answers.

/// The names and the data of events, and the rest that is not yet an event.
type Events = (Vec<(String, Vec<u8>)>, Vec<u8>);

fn events(pieces: &[&[u8]]) -> Events {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for piece in pieces {
        reader.feed(piece, |block| {
            events.extend(block.data.map(|data| (block.name.to_owned(), data.to_vec())));
        });
    }
    (events, reader.rest().to_vec())
}

fn asked(endpoint: Endpoint, stream: bool, release: Release, wire: Wire) -> Asked {
    let key = ApiKey::new("", "sk-secret").unwrap();
    Asked { endpoint, stream, usage: false, release, wire, defaults: Defaults::default(), key }
}

/// Passes a response through the core as the host does. Returns what the client gets of a released stream, and the outcome.
fn watch(head: &Head, asked: Asked, pieces: &[&[u8]], max_held: usize) -> (Vec<u8>, Option<Outcome>) {
    let mut watch = Watch::new(head, asked);
    let whole = pieces.concat();
    if watch.wants(max_held) != Wants::Pieces {
        let cut = match watch.wants(max_held) {
            Wants::Everything(most) => most.saturating_add(1).min(whole.len()),
            Wants::Pieces => 0,
        };
        let judged = watch.judge(&whole[..cut], cut == whole.len());
        let is_json = |body: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        assert!(judged.body.as_ref().is_none_or(is_json), "{judged:?}");
        assert_eq!(watch.release(true, "p"), None);
        return (Vec::new(), Some(judged.verdict.outcome));
    }
    let (mut held, mut sent, mut outcome, mut released) = (Vec::new(), Vec::new(), None, false);
    for (place, piece) in pieces.iter().enumerate() {
        let end = place + 1 == pieces.len();
        if released {
            let relay = watch.relay(piece, end, "p");
            sent.extend_from_slice(relay.replace.as_deref().unwrap_or(piece));
            assert!(outcome.is_none() || relay.ended.is_none(), "the end is reported once");
            outcome = outcome.or(relay.ended);
            continue;
        }
        held.extend_from_slice(piece);
        let Step::Judged(judged) = watch.withhold(piece, end, held.len(), max_held) else {
            assert!(!end, "the end must be judged");
            continue;
        };
        if judged.verdict.outcome != Outcome::Answered {
            return (Vec::new(), Some(judged.verdict.outcome));
        }
        sent = watch.release(end, "p").unwrap_or_else(|| held.clone());
        released = true;
        if end || watch.is_closed() {
            outcome = Some(Outcome::Answered);
        }
    }
    (sent, outcome)
}

/// The summary of a chunk of a stream; `None` if it cannot be read.
fn summary(data: &[u8]) -> Option<ChunkSummary> {
    let mut text = Estimator::default();
    Some(Reading::new(data, Form::ChatChunk, &Defaults::default(), &mut text).ok()?.summary)
}

/// Whether every `[DONE]` event follows a finished answer without an error.
fn done_is_true(sent: &[u8]) -> bool {
    let (mut said, mut holds) = (ChunkSummary::default(), true);
    for (_, data) in events(&[sent]).0 {
        if data.trim_ascii() == b"[DONE]" {
            holds &= said.is_finished() && said.error.is_none();
        } else if let Some(chunk) = summary(&data) {
            said.add(chunk);
        }
    }
    holds
}

fn wires() -> impl Strategy<Value = Wire> {
    select(vec![Wire::OpenAi, Wire::Anthropic])
}

fn releases() -> impl Strategy<Value = Release> {
    select(vec![Release::FirstToken, Release::Complete])
}

const SSE: Head = Head { status: 200, retry_after: None };

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut(
        text in prop_oneof![stream(), bytes(60), "[\r\n:da tevnx]{0,60}".prop_map(|text| Bytes(text.into_bytes()))], cuts in cuts(),
    ) {
        prop_assert_eq!(events(&cut(&text, &cuts)), events(&[&text]));
    }

    #[test]
    fn a_done_is_never_relayed_without_a_finish_reason(
        text in any_stream(), cuts in cuts(), release in releases(), max_held in select(vec![0_usize, 10, 1 << 20]),
        wire in wires(),
    ) {
        let (sent, _) = watch(&SSE, asked(Endpoint::Chat, true, release, wire), &cut(&text, &cuts), max_held);
        prop_assert!(done_is_true(&sent), "{}", String::from_utf8_lossy(&sent));
    }

    #[test]
    fn a_relayed_answer_ends_with_done_or_an_error(
        text in any_stream(), cuts in cuts(), release in releases(), wire in wires(),
    ) {
        let (sent, outcome) = watch(&SSE, asked(Endpoint::Chat, true, release, wire), &cut(&text, &cuts), 1 << 20);
        let (events, rest) = events(&[&sent]);
        if !sent.is_empty() {
            prop_assert_eq!(rest, b"".to_vec(), "only whole events are relayed");
            let done = events.iter().any(|(_, data)| data.trim_ascii() == b"[DONE]");
            let error = events.iter().any(|(name, data)| {
                name == "error" || summary(data).is_some_and(|chunk| chunk.error.is_some())
            });
            prop_assert!(done != error, "{}", String::from_utf8_lossy(&sent));
            if let Some(outcome) = outcome {
                prop_assert_eq!(outcome == Outcome::Answered, done);
            }
        }
    }

    #[test]
    fn any_response_is_judged(
        status in prop_oneof![Just(200_u16), any::<u16>()],
        stream in any::<bool>(), endpoint in select(Endpoint::ALL.to_vec()), wire in wires(),
        text in prop_oneof![any_stream(), bytes(100), json(ANSWER_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes()))],
        cuts in cuts(), release in releases(), max_held in select(vec![0_usize, 10, 1 << 20]),
    ) {
        let head = Head { status, retry_after: None };
        let (sent, outcome) = watch(&head, asked(endpoint, stream, release, wire), &cut(&text, &cuts), max_held);
        prop_assert!(sent.is_empty() || (200..300).contains(&status));
        if !(200..300).contains(&status) {
            prop_assert!(outcome.is_some_and(|outcome| outcome != Outcome::Answered), "{:?}", outcome);
        }
    }

    #[test]
    fn a_summary_is_made_of_any_json_object_and_of_nothing_else(
        text in prop_oneof![
            json(ANSWER_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes())),
            (json(ANSWER_KEYS), changes()).prop_map(|(json, changes)| changed(json.to_string().as_bytes(), changes)),
            bytes(100),
        ],
    ) {
        // A list may contain an error envelope.
        let is_object = serde_json::from_slice::<Value>(&text)
            .is_ok_and(|json| json.is_object() || json.get(0).is_some_and(|first| first["error"].is_object()));
        if let Some(summary) = summary(&text) {
            // The text need not be valid JSON: the reader skips numbers that a parser refuses because they are too large for a float.
            prop_assert_eq!(text.trim_ascii().first(), Some(&b'{'));
            prop_assert_eq!(summary.finished & !summary.seen, 0);
            prop_assert!(!summary.content || summary.seen != 0);
        }
        prop_assert!(ErrorBody::from_json(&text).is_none() || is_object);
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn a_whole_answer_of_any_json_is_replaced_by_json_or_not_at_all(
        text in prop_oneof![
            4 => json(ANSWER_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes())),
            4 => json(ANSWER_KEYS).prop_map(|json| Bytes(serde_json::to_vec_pretty(&json).unwrap())),
            2 => (json(ANSWER_KEYS), changes()).prop_map(|(json, changes)| changed(json.to_string().as_bytes(), changes)),
            1 => bytes(100),
        ],
        before in select(vec!["", " ", "\n\n"]), endpoint in select(Endpoint::ALL.to_vec()), model in ".{1,5}",
    ) {
        let text = [before.as_bytes(), &text].concat();
        let defaults = Defaults { id: "id".to_owned(), model, ..Defaults::default() };
        let whole = schema::read(&text, endpoint, &defaults);
        prop_assert!(!(whole.answered && whole.error.is_some()));
        if let Some(body) = &whole.body {
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(body);
            prop_assert!(read.is_ok(), "{}", String::from_utf8_lossy(body));
            // A corrected answer needs no second correction.
            let again = schema::read(body, endpoint, &defaults);
            prop_assert_eq!(again.answered, whole.answered);
            let again = again.body.map(|body| String::from_utf8_lossy(&body).into_owned());
            prop_assert_eq!(again, None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn any_bytes_are_translated_to_and_from_anthropics_format_or_refused(
        text in prop_oneof![
            json(MESSAGES_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes())),
            (json(MESSAGES_KEYS), changes()).prop_map(|(json, changes)| changed(json.to_string().as_bytes(), changes)),
            bytes(100),
        ],
        messages in json(MESSAGES_KEYS), model in prop_oneof![".{0,6}", select(vec!["claude-opus-4-8", "claude-3-5-haiku"]).prop_map(str::to_owned)],
    ) {
        let whole = serde_json::json!({"model": "m", "messages": messages, "tools": messages}).to_string();
        for text in [&*text, whole.as_bytes()] {
            if let Ok(new) = anthropic::request(text, &model, LongestAnswer::default()) {
                let new: Value = serde_json::from_slice(&new).unwrap();
                prop_assert_eq!(new["model"].as_str(), Some(model.as_str()));
                prop_assert!(new["max_tokens"].as_u64().is_some_and(|most| most > 0));
            }
            if let Some(answer) = anthropic::answer(text, 7, &mut Served::default()) {
                prop_assert!(serde_json::from_slice::<Value>(&answer).is_ok(), "{}", String::from_utf8_lossy(&answer));
            }
        }
    }

    #[test]
    fn a_translated_stream_has_only_whole_events_of_json(
        events_in in prop::collection::vec((select(vec!["", "error", "message_start", "message_stop"]), prop_oneof![
            json(MESSAGES_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes())),
            bytes(20),
        ]), 0..6),
        text in messages_stream(),
    ) {
        let mut translator = Translator::new(7);
        let mut out = Vec::new();
        let known: Vec<(String, Vec<u8>)> = events(&[&text]).0;
        let random = events_in.iter().map(|(name, data)| (*name, &**data));
        for (name, data) in known.iter().map(|(name, data)| (name.as_str(), data.as_slice())).chain(random) {
            let (before, was_over) = (out.len(), translator.is_over());
            translator.event(name, data, &mut out);
            prop_assert!(!was_over || out.len() == before, "nothing follows the end");
        }
        let (events, rest) = events(&[&out]);
        prop_assert_eq!(rest, b"".to_vec());
        prop_assert_eq!(events.iter().filter(|(_, data)| data == b"[DONE]").count() <= 1, true);
        for (name, data) in &events {
            prop_assert!(name.is_empty());
            let is_read = data == b"[DONE]" || serde_json::from_slice::<Value>(data).is_ok_and(|json| json.is_object());
            prop_assert!(is_read, "{}", String::from_utf8_lossy(data));
        }
    }
}

const MESSAGES_KEYS: &[&str] = &[
    "messages",
    "role",
    "user",
    "assistant",
    "tool",
    "system",
    "content",
    "text",
    "type",
    "tool_calls",
    "tool_use",
    "id",
    "function",
    "name",
    "arguments",
    "tools",
    "tool_choice",
    "image_url",
    "url",
    "input",
    "index",
    "delta",
    "message",
    "usage",
    "stop_reason",
    "error",
    "content_block",
    "thinking",
    "response_format",
    "json_schema",
    "message_start",
    "message_delta",
    "content_block_delta",
    "text_delta",
    "data:image/png;base64,AA==",
    "stop",
];

const ANSWER_KEYS: &[&str] = &[
    "choices",
    "index",
    "delta",
    "message",
    "content",
    "finish_reason",
    "error",
    "code",
    "type",
    "object",
    "detail",
    "stop",
    "429",
    "rate_limit_exceeded",
    "tool_calls",
    "text",
    "usage",
    "prompt_tokens",
    "id",
    "created",
    "model",
    "object",
    "data",
    "embedding",
    "response",
];

#[test]
fn every_status_has_an_outcome_and_none_is_an_answer() {
    for status in 0..=u16::MAX {
        let outcome = of_status(status, &ErrorBody::default());
        assert_ne!(outcome, Outcome::Answered, "{status}");
        assert_ne!(outcome, Outcome::ClientGone, "{status}");
        if !(400..500).contains(&status) {
            assert!(matches!(outcome, Outcome::ServerError | Outcome::Overloaded), "{status}: {outcome:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn an_error_of_any_body_has_an_outcome(
        status in any::<u16>(),
        body in prop_oneof![bytes(80), json(ERROR_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes()))],
        code in prop_oneof![select(ERROR_KEYS).prop_map(str::to_owned), ".{0,10}"], kind in ".{0,10}", message in ".{0,20}",
    ) {
        let read = ErrorBody::from_json(&body).unwrap_or_default();
        for error in [read, ErrorBody { code, kind, message, ..ErrorBody::default() }] {
            for (outcome, doubt) in [judge(status, &error), judge_in_answer(&error)] {
                prop_assert!(outcome != Outcome::Answered && outcome != Outcome::ClientGone);
                prop_assert!(Outcome::ALL.contains(&outcome));
                prop_assert!(doubt.is_none() || outcome.effect() != Effect::Failure, "a failure is no refusal");
            }
        }
    }

    #[test]
    fn a_retry_after_of_any_text_is_read_or_ignored(
        retry_after in prop::option::of(prop_oneof![".{0,20}", "-?[0-9]{0,30}(\\.[0-9]{0,5})?(e[0-9]{1,4})?", date()]),
        retry_after_ms in prop::option::of(prop_oneof![".{0,10}", "[0-9]{0,30}"]),
        reset in prop::option::of(prop_oneof![".{0,10}", "([0-9.]{0,12}(ms|s|m|h)){0,4}"]),
        now in any::<u64>(),
    ) {
        let header = |name: &str| match name {
            "retry-after" => retry_after.clone(),
            "retry-after-ms" => retry_after_ms.clone(),
            _ => reset.clone(),
        };
        let now = Timestamp::from_millis(now);
        if let Some(wait) = shunt::health::outcome::retry_after(&header, now) {
            prop_assert!(now.after(wait) >= now);
        }
    }

    #[test]
    fn a_duration_of_any_text_is_read_or_refused(text in prop_oneof![".{0,20}", "([0-9.]{0,12}(ms|s|m|h|d)){0,4}"]) {
        if parse_duration(&text).is_ok() {
            prop_assert!(text.ends_with(['s', 'm', 'h']), "no unit: {text}");
        }
    }

    #[test]
    fn a_written_duration_is_read_back(millis in 0..1_000_000_000_u64) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format!("{millis}ms")), Ok(duration));
        let (seconds, rest) = (millis / 1000, millis % 1000);
        prop_assert_eq!(parse_duration(&format!("{}m{}s{rest}ms", seconds / 60, seconds % 60)), Ok(duration));
    }

    #[test]
    fn headers_of_any_bytes_are_read_within_their_bounds(
        block in prop_oneof![bytes(120), (0..4_u32, bytes(100)).prop_map(|(count, rest)| Bytes([&count.to_le_bytes()[..], &rest].concat()))],
        name in ".{0,5}",
    ) {
        let length = block.len();
        let headers = Headers::new(block.0);
        let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        prop_assert!(size <= length);
        prop_assert_eq!(headers.value(&name).is_some(), headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())));
        let _ = headers.text(&name);
    }

    #[test]
    fn headers_that_are_written_are_read_back_or_left_out_whole(
        pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 0..6)), 0..6),
        changes in changes(),
    ) {
        let mut writer = HeaderWriter::default();
        writer.extend(pairs.iter().map(|(name, value)| (name, value)));
        let block = writer.finish();
        let expected: Vec<(&[u8], &[u8])> = pairs
            .iter()
            .filter(|(_, value)| !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')))
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect();
        let headers = Headers::new(block.clone());
        prop_assert_eq!(headers.iter().collect::<Vec<_>>(), expected);
        let _ = Headers::new(changed(&block, changes).0).iter().count();
    }
}

const ERROR_KEYS: &[&str] = &[
    "error",
    "code",
    "type",
    "message",
    "detail",
    "object",
    "choices",
    "insufficient_quota",
    "slow_down",
    "rate_limit_exceeded",
    "context_length_exceeded",
    "content_filter",
    "invalid_api_key",
    "model_not_found",
    "no_healthy_upstream",
    "429",
    "400",
    "503",
];

fn date() -> impl Strategy<Value = String> {
    "[A-Z][a-z]{2}, [0-9]{1,2} (Jan|Feb|Jun|Dec|Xxx) [0-9]{1,5} [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2} (GMT|CET)"
}

// Configurations.

const CONFIG: &str = r#"{
  "providers": {
    "openai": {"host": "api.openai.com", "path_prefix": "/v1", "api_key": "$OPENAI_API_KEY", "models": {"assistant": "gpt-5.4-mini"}},
    "deepseek": {"host": "api.deepseek.com", "path_prefix": "/", "api_key": "$DEEPSEEK_API_KEY", "dialect": "deepseek", "optional": true,
      "allow_headers": ["openai-beta"], "models": {"assistant": {"name": "deepseek-flash", "context": 131072, "quality": 0.86,
      "price": {"input": 0.15, "cached_input": 0.003, "output": 0.60}}, "*": "*"}}
  },
  "routes": [{"name": "chat", "match": {"path": "/v1/chat/completions", "model": "*"}, "providers": ["openai", "deepseek"],
    "policy": {"type": "latency", "allow": ["cost", "weighted"], "window": "5m", "explore": 0.1, "prefer": {"providers": ["openai"]},
      "max_price": {"input": 1, "output": 2.5, "request": 0.01}, "weights": {"openai": 9, "deepseek": 1}, "sticky": "tenant"},
    "stream": {"release": "first_token"}, "limits": {"first_token": "1s"}}],
  "limits": {"first_token": "15s", "answer": "5m", "max_request_bytes": 20971520, "max_held_bytes": 8388608},
  "breaker": {"consecutive_failures": 5, "error_rate": 0.5, "minimum_requests": 20, "window": "30s", "open": "10s", "max_open": "5m", "probes": 1},
  "retry": {"attempts": 4, "same_provider": 1, "wait": "3s"},
  "holds": {"rate_limited": "5s", "max": "1h"},
  "tenant": {"header": "x-tenant", "known": ["team-a"]},
  "budgets": [
    {"name": "one", "match": {"tenant": "team-a", "route": "chat", "provider": "deepseek", "model": "gpt-*"}, "limit": 100,
      "per": "month", "when_spent": "skip", "alert_at": 0.5},
    {"name": "each", "match": {"tenant": "*"}, "limit": 0.5, "per": "day", "when_spent": "cheapest", "slots": 8}
  ]
}"#;

const CONFIG_KEYS: &[&str] = &[
    "providers",
    "routes",
    "limits",
    "breaker",
    "retry",
    "holds",
    "host",
    "path_prefix",
    "api_key",
    "dialect",
    "models",
    "optional",
    "allow_headers",
    "name",
    "context",
    "match",
    "path",
    "model",
    "policy",
    "type",
    "stream",
    "release",
    "first_token",
    "answer",
    "open",
    "max_open",
    "window",
    "attempts",
    "wait",
    "openai",
    "*",
    "$OPENAI_API_KEY",
    "priority",
    "allow",
    "max_price",
    "explore",
    "prefer",
    "weights",
    "sticky",
    "weighted",
    "/v1/chat/completions",
    "complete",
    "probes",
    "error_rate",
    "tenant",
    "header",
    "budgets",
    "limit",
    "per",
    "day",
    "when_spent",
    "skip",
    "slots",
];

fn environment(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| "sk-from-environment".to_owned())
}

/// Checks what every valid configuration guarantees.
fn check_config(text: &str) -> Result<(), TestCaseError> {
    match Config::parse(text, &environment) {
        Ok(config) => {
            prop_assert!(!config.providers.is_empty() && !config.routes.is_empty());
            for route in &config.routes {
                prop_assert!(!route.providers.is_empty());
                prop_assert!(route.providers.iter().all(|id| config.provider(*id).is_some()));
                prop_assert!(route.path.starts_with('/'));
                prop_assert!(!route.limits.first_token.is_zero() && !route.limits.answer.is_zero());
            }
            let breaker = &config.breaker;
            prop_assert!(
                breaker.open <= breaker.max_open && !breaker.open.is_zero() && !breaker.window.is_zero()
            );
            prop_assert!(breaker.consecutive_failures > 0 && breaker.probes > 0 && breaker.error_rate > 0.0);
            prop_assert!(config.retry.attempts != Some(0));
            for (place, budget) in config.budgets.iter().enumerate() {
                prop_assert!(budget.alert_pico <= budget.limit_pico && budget.slots <= 4096);
                prop_assert!(config.budgets[..place].iter().all(|other| other.name != budget.name));
                prop_assert!(budget.action != Action::Skip || budget.scope.is_about_candidates());
                prop_assert!(budget.scope.tenant == Select::All || config.tenant.is_some());
                prop_assert_eq!(budget.slots > 0, budget.scope.is_for_each());
            }
            let printed = format!("{config:?}");
            prop_assert!(!printed.contains("sk-from"), "a key was printed");
        }
        Err(problems) => {
            prop_assert!(problems.iter().count() > 0);
            prop_assert!(!problems.to_string().contains("sk-from"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_configuration_of_any_text_is_valid_or_refused(text in prop_oneof![".{0,80}", "[{}\\[\\]\":,a-z0-9 ]{0,80}"]) {
        check_config(&text)?;
    }

    #[test]
    fn a_configuration_of_any_json_is_valid_or_refused(json in json(CONFIG_KEYS)) {
        check_config(&json.to_string())?;
    }

    #[test]
    fn a_configuration_with_any_value_replaced_is_valid_or_refused(place in any::<Index>(), new in json(CONFIG_KEYS), remove in any::<bool>()) {
        let mut config: Value = serde_json::from_str(CONFIG).unwrap();
        let mut places = Vec::new();
        pointers(&config, "", &mut places);
        let at = &places[place.index(places.len())];
        let (parent, key) = at.rsplit_once('/').unwrap();
        match config.pointer_mut(parent).unwrap() {
            Value::Object(entries) if remove => { entries.remove(&key.replace("~1", "/")); }
            _ => *config.pointer_mut(at).unwrap() = new,
        }
        check_config(&config.to_string())?;
    }

    #[test]
    fn a_damaged_configuration_is_valid_or_refused(changes in changes()) {
        check_config(&String::from_utf8_lossy(&changed(CONFIG.as_bytes(), changes)))?;
    }
}

#[test]
fn the_configuration_that_these_tests_damage_is_valid() {
    assert_eq!(Config::parse(CONFIG, &environment).unwrap().providers.len(), 1);
}

/// The JSON pointers of every value in a document.
fn pointers(json: &Value, at: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match json {
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.replace('/', "~1"), value)).collect()
        }
        Value::Array(values) => {
            values.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in children {
        let child = format!("{at}/{key}");
        pointers(value, &child, all);
        all.push(child);
    }
}

// Breakers and holds.

fn rules() -> (Policy, HoldPolicy) {
    let seconds = Duration::from_secs;
    let breaker = Policy {
        consecutive_failures: 3,
        error_rate: 0.5,
        minimum_requests: 6,
        window: seconds(30),
        open: seconds(10),
        max_open: seconds(100),
        probes: 2,
    };
    let holds = HoldPolicy {
        rate_limited: seconds(5),
        out_of_quota: seconds(60),
        bad_key: seconds(30),
        no_such_model: seconds(20),
        max: seconds(300),
    };
    (breaker, holds)
}

const LEASE: Duration = Duration::from_secs(20);

/// An event in the life of a health record.
#[derive(Clone, Debug)]
enum Event {
    /// A request asks for permission to use this model.
    Request(u64),
    /// One of the attempts under way ends. If there is none, an attempt ends that needed no permit.
    End {
        which: Index,
        outcome: Outcome,
        retry_after: Option<u64>,
        jitter: f64,
        model: u64,
        refusal: Option<Refusal>,
    },
    /// This number of milliseconds passes.
    Wait(u64),
}

fn events_of_a_record() -> impl Strategy<Value = Vec<Event>> {
    let model = 1..7_u64;
    let failure = select(vec![Outcome::ServerError, Outcome::Overloaded, Outcome::TooSlow]);
    let refusal = prop::option::of((1..3_u32, 1..9_u32).prop_map(|(id, body)| Refusal { id, body }));
    let event = prop_oneof![
        3 => model.clone().prop_map(Event::Request),
        4 => (any::<Index>(), prop_oneof![failure, select(Outcome::ALL.to_vec())], prop::option::of(0..1000_u64), 0.0..=1.0, model, refusal)
            .prop_map(|(which, outcome, retry_after, jitter, model, refusal)| Event::End { which, outcome, retry_after, jitter, model, refusal }),
        2 => prop_oneof![0..50_u64, 0..30_000_u64, 0..200_000_u64].prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 0..80)
}

fn records() -> impl Strategy<Value = Record> {
    let time = || any::<u64>().prop_map(Timestamp::from_millis);
    let window =
        prop::collection::vec((any::<u32>(), any::<u32>(), 0..60_000_u64), 0..40).prop_map(|results| {
            let mut window = Window::default();
            for (successes, failures, at) in results {
                window.count(successes, failures, Timestamp::from_millis(at), Duration::from_secs(30));
            }
            window
        });
    let state = prop_oneof![
        (any::<u16>(), window, any::<u8>(), time()).prop_map(|(consecutive, window, trips, since)| {
            State::Closed { consecutive, window, trips, since }
        }),
        (time(), any::<u8>()).prop_map(|(until, trips)| State::Open { until, trips }),
        (any::<u32>(), time(), any::<u8>(), any::<u8>()).prop_map(|(permit, lapses, trips, successes)| {
            State::HalfOpen { permit, lapses, trips, successes }
        }),
    ];
    let reason = select(vec![HoldReason::RateLimited, HoldReason::OutOfQuota, HoldReason::BadKey]);
    let hold = prop::option::of((time(), reason, any::<u8>()).prop_map(|(until, reason, streak)| Hold {
        until,
        reason,
        streak,
    }));
    let reason =
        select(vec![ModelHoldReason::NoSuchModel, ModelHoldReason::Unwilling, ModelHoldReason::BadRequest]);
    let model = (any::<u64>(), time(), reason, any::<u8>())
        .prop_map(|(model, until, reason, streak)| ModelHold { model, until, reason, streak });
    let model = prop_oneof![Just(ModelHold::default()), model];
    let kind = select(vec![EvidenceKind::Unasked, EvidenceKind::Disproved, EvidenceKind::Confirmed]);
    let evidence = (any::<u64>(), any::<u32>(), kind, any::<u16>(), any::<[u32; 4]>(), time(), time())
        .prop_map(|(model, refusal, kind, count, bodies, at, logged)| Evidence {
            model,
            refusal,
            kind,
            count,
            bodies,
            at,
            logged,
        });
    let evidence = prop_oneof![Just(Evidence::default()), evidence];
    let slots = (prop::collection::vec(model, MODEL_SLOTS), prop::collection::vec(evidence, EVIDENCE_SLOTS));
    (any::<u64>(), state, hold, slots).prop_map(|(fingerprint, state, hold, (models, evidence))| Record {
        fingerprint,
        state,
        hold,
        models: models.try_into().unwrap(),
        evidence: Evidences(evidence.try_into().unwrap()),
    })
}

/// The longest time for which a breaker is open: `max_open`, stretched at random by up to a tenth.
fn longest_open(breaker: &Policy) -> Duration {
    breaker.max_open.mul_f64(1.1) + Duration::from_millis(1)
}

/// Checks what must be true of a record after a report, given the record before it.
fn check_report(
    before: &Record,
    after: &Record,
    report: Report,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let (breaker, holds) = rules();
    if report.outcome == Outcome::ClientGone && report.permit == Permit::Free {
        prop_assert_eq!(after, before, "a client that left changes nothing");
    }
    if let State::Open { until, .. } = after.state {
        prop_assert!(until.since(now) <= longest_open(&breaker));
    }
    let is_new = |slot: &ModelHold| slot.until > now && !before.models.contains(slot);
    let holds_anew = after.hold != before.hold || after.models.iter().any(is_new);
    let needs_proof = report.refusal.is_some() && report.outcome.needs_evidence();
    // What has held is used up, so the row is as long as it must be before its last refusal.
    let is_proved = before.evidence.0.iter().any(|known| known.count + 1 >= REFUSALS);
    prop_assert!(!needs_proof || !holds_anew || is_proved, "a single refusal holds");
    if let (Some(old), Some(new)) = (before.hold, after.hold) {
        prop_assert!(new.until >= old.until, "a hold was shortened");
    }
    prop_assert!(after.hold.is_some() || before.hold.is_none() || report.outcome == Outcome::Answered);
    for old in before.models.iter().filter(|old| old.model != 0) {
        if let Some(new) = after.models.iter().find(|new| new.model == old.model) {
            prop_assert!(new.until >= old.until, "a hold of a model was shortened");
        }
    }
    if after.hold.is_some_and(|hold| hold.until.since(now) > holds.max) {
        prop_assert_eq!(after.hold.map(|hold| hold.until), before.hold.map(|hold| hold.until));
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn a_record_is_read_back_as_it_was_written(record in records()) {
        let bytes = record.encode();
        prop_assert_eq!(bytes.len(), Record::new(1).encode().len());
        prop_assert_eq!(Record::read(&bytes, record.fingerprint), record);
        let other = record.fingerprint.wrapping_add(1);
        prop_assert_eq!(Record::read(&bytes, other), Record::new(other));
    }

    #[test]
    fn any_bytes_are_a_valid_record_or_none(
        bytes in prop_oneof![
            bytes(400),
            prop::collection::vec(any::<u8>(), Record::new(1).encode().len()).prop_map(|mut bytes| { bytes[0] = 2; bytes[9] %= 4; Bytes(bytes) }),
            (records(), changes()).prop_map(|(record, changes)| changed(&record.encode(), changes)),
        ],
        now in any::<u64>(), outcome in select(Outcome::ALL.to_vec()), jitter in any::<f64>(), asked in prop::option::of(any::<u64>()),
        refusal in prop::option::of((any::<u32>(), any::<u32>()).prop_map(|(id, body)| Refusal { id, body })),
    ) {
        let now = Timestamp::from_millis(now);
        let fingerprint = bytes.get(1..9).map_or(1, |owner| u64::from_le_bytes(owner.try_into().unwrap()));
        let mut record = Record::read(&bytes, fingerprint);
        prop_assert_eq!(Record::read(&record.encode(), fingerprint), record);
        // Whatever stands in it, it can be worked with.
        let _ = record.exclusion(1, now);
        let permit = record.admit(7, LEASE, now);
        let (breaker, holds) = rules();
        let retry_after = asked.map(Duration::from_millis);
        record.report(Report { outcome, permit, retry_after, model: 1, refusal }, now, jitter, Rules { breaker: &breaker, holds: &holds });
        prop_assert_eq!(Record::read(&record.encode(), record.fingerprint), record);
    }

    #[test]
    fn a_breaker_keeps_its_promises(events in events_of_a_record()) {
        let (breaker, holds) = rules();
        let rules = Rules { breaker: &breaker, holds: &holds };
        let mut now = Timestamp::from_millis(1_700_000_000_000);
        let mut record = Record::new(1);
        let mut running: Vec<Permit> = Vec::new();
        // The probes since the breaker was last closed, each with the time at which its permit lapses.
        let mut probes: Vec<(u32, Timestamp)> = Vec::new();
        let mut next = 0;
        for event in events {
            let before = record;
            match event {
                Event::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Event::Request(model) => {
                    if record.exclusion(model, now).is_some() {
                        running.push(Permit::Forced);
                        continue;
                    }
                    next += 1;
                    let permit = record.admit(next, LEASE, now);
                    prop_assert_eq!(permit == Permit::Free, !before.needs_permit());
                    if let Permit::Probe(number) = permit {
                        let alive = probes.iter().filter(|(_, lapses)| *lapses > now).count();
                        prop_assert_eq!(alive, 0, "another probe is under way");
                        probes.push((number, now.after(LEASE)));
                        prop_assert!(record.exclusion(model, now).is_some(), "only one probe at a time");
                    }
                    running.push(permit);
                }
                Event::End { which, outcome, retry_after, jitter, model, refusal } => {
                    let permit = if running.is_empty() { Permit::Free } else { running.swap_remove(which.index(running.len())) };
                    let retry_after = retry_after.map(Duration::from_secs);
                    let report = Report { outcome, permit, retry_after, model, refusal };
                    let changed = record.report(report, now, jitter, rules);
                    prop_assert_eq!(changed, record != before);
                    if let Permit::Probe(number) = permit {
                        probes.retain(|(known, _)| *known != number);
                    }
                    check_report(&before, &record, report, now)?;
                }
            }
            if let State::Closed { .. } = record.state {
                probes.clear();
            }
            // The provider is never excluded for ever: after the longest open time, hold and lease it is admitted for every model.
            let later = now.after(longest_open(&breaker).max(holds.max).max(LEASE));
            for model in 0..8 {
                prop_assert_eq!(record.exclusion(model, later), None);
                if let Some(exclusion) = record.exclusion(model, now) {
                    prop_assert!(exclusion.until > now && exclusion.until <= later);
                }
            }
            prop_assert_eq!(Record::read(&record.encode(), record.fingerprint), record);
        }
    }
}

// Budgets.

/// A step of a worker.
#[derive(Clone, Debug)]
enum Spending {
    /// A request of a tenant begins, with this estimate of its cost.
    Begin { tenant: u8, estimate: u64 },
    /// One of the requests under way ends, with this cost.
    End { which: Index, cost: u64 },
}

fn spending() -> impl Strategy<Value = Spending> {
    prop_oneof![
        (0..4_u8, 0..60_u64).prop_map(|(tenant, estimate)| Spending::Begin { tenant, estimate }),
        (any::<Index>(), 0..90_u64).prop_map(|(which, cost)| Spending::End { which, cost }),
    ]
}

/// Workers that share one store. Before a write of one worker, another may do a whole step, before whose writes others may do steps
/// too. So every order that compare-and-swap allows can occur.
struct Workers {
    budget: Budget,
    memory: RefCell<Memory>,
    to_do: RefCell<VecDeque<Spending>>,
    /// For each write, whether another worker does a step before it.
    between: RefCell<VecDeque<bool>>,
    answers: RefCell<Answers>,
}

/// What the budget answered the workers, which must be what the store holds.
#[derive(Default)]
struct Answers {
    under_way: Vec<(u8, u64, Reservation)>,
    /// The settled costs by tenant.
    settled: BTreeMap<u8, u64>,
    /// How far a tenant's requests under way may exceed the limit: the largest estimate, and the costs beyond estimates.
    beyond: BTreeMap<u8, (u64, u64)>,
    keys: BTreeSet<String>,
    contended: usize,
}

/// One worker's view of the store.
struct Worker<'a>(&'a Workers);

impl Store for Worker<'_> {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.0.memory.borrow_mut().load(key)
    }
    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        let between = self.0.between.borrow_mut().pop_front().unwrap_or(false);
        if between {
            self.0.step();
        }
        self.0.answers.borrow_mut().keys.insert(key.to_owned());
        self.0.memory.borrow_mut().compare_and_swap(key, value, version)
    }
}

const SPENDING_NOW: Timestamp = Timestamp::from_millis(1_795_257_296_000);

const LIMIT: u64 = 200;

impl Workers {
    fn new(slots: u16, to_do: Vec<Spending>, between: Vec<bool>) -> Self {
        let all = || Select::All;
        let scope = Scope { tenant: Select::Each, route: all(), provider: all(), model: all() };
        Self {
            budget: Budget::new("b", scope, LIMIT, LIMIT, Period::Day, Action::Block, slots),
            memory: RefCell::default(),
            to_do: RefCell::new(to_do.into()),
            between: RefCell::new(between.into()),
            answers: RefCell::default(),
        }
    }

    /// Does the next step. Returns whether there was one.
    fn step(&self) -> bool {
        let next = self.to_do.borrow_mut().pop_front();
        match next {
            None => return false,
            Some(Spending::Begin { tenant, estimate }) => self.begin(tenant, estimate),
            Some(Spending::End { which, cost }) => {
                let taken = {
                    let under_way = &mut self.answers.borrow_mut().under_way;
                    (!under_way.is_empty()).then(|| under_way.swap_remove(which.index(under_way.len())))
                };
                if let Some((tenant, estimate, reservation)) = taken {
                    self.end(tenant, estimate, reservation, cost);
                }
            }
        }
        true
    }

    fn begin(&self, tenant: u8, estimate: u64) {
        let name = tenant.to_string();
        let owner = self.budget.owner(Subject { tenant: &name, ..Subject::default() }).unwrap();
        let admission = self.budget.admit(owner, estimate, SPENDING_NOW, &mut Worker(self));
        let mut answers = self.answers.borrow_mut();
        let Ok(admission) = admission else {
            answers.contended += 1;
            return;
        };
        let standing = admission.standing;
        match admission.reservation {
            Some(reservation) => {
                assert_eq!(standing.state, Room::Open);
                let before = standing.spent_pico + standing.reserved_pico - estimate;
                assert!(before < LIMIT, "admitted at {before}");
                let beyond = answers.beyond.entry(tenant).or_default();
                beyond.0 = beyond.0.max(estimate);
                answers.under_way.push((tenant, estimate, reservation));
            }
            None => assert!(standing.spent_pico + standing.reserved_pico >= LIMIT, "refused below the limit"),
        }
    }

    fn end(&self, tenant: u8, estimate: u64, reservation: Reservation, cost: u64) {
        let settled = self.budget.settle(&reservation, cost, SPENDING_NOW, &mut Worker(self));
        let mut answers = self.answers.borrow_mut();
        match settled {
            Ok(standing) => {
                assert!(standing.is_some(), "its period has not ended");
                *answers.settled.entry(tenant).or_default() += cost;
                answers.beyond.entry(tenant).or_default().1 += cost.saturating_sub(estimate);
            }
            Err(_) => {
                answers.contended += 1;
                answers.under_way.push((tenant, estimate, reservation));
            }
        }
    }

    /// Ends the requests under way, one after another, each at its estimated cost.
    fn finish(&self) {
        loop {
            let next = self.answers.borrow_mut().under_way.pop();
            let Some((tenant, estimate, reservation)) = next else { break };
            self.end(tenant, estimate, reservation, estimate);
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn the_spent_amount_is_what_workers_settled_in_whatever_order_they_write(
        slots in select(vec![1_u16, 2, 8, 64]),
        to_do in prop::collection::vec(spending(), 0..60),
        between in prop::collection::vec(prop::bool::weighted(0.4), 0..120),
    ) {
        let workers = Workers::new(slots, to_do, between);
        while workers.step() {}
        workers.between.borrow_mut().clear();
        workers.finish();
        let answers = workers.answers.borrow();
        let (mut shared, mut own) = (None, 0);
        for tenant in 0..4_u8 {
            let name = tenant.to_string();
            let owner = workers.budget.owner(Subject { tenant: &name, ..Subject::default() }).unwrap();
            let standing = workers.budget.standing(owner, SPENDING_NOW, &mut Worker(&workers));
            prop_assert_eq!(standing.reserved_pico, 0, "everything was settled");
            if standing.overflow {
                shared = Some(standing.spent_pico);
                continue;
            }
            own += standing.spent_pico;
            prop_assert_eq!(standing.spent_pico, answers.settled.get(&tenant).copied().unwrap_or(0));
            let (dearest, more) = answers.beyond.get(&tenant).copied().unwrap_or_default();
            prop_assert!(standing.spent_pico < LIMIT + dearest + more, "{} spent", standing.spent_pico);
        }
        prop_assert_eq!(own + shared.unwrap_or(0), answers.settled.values().sum::<u64>());
        prop_assert!(slots < 64 || shared.is_none());
        prop_assert!(answers.keys.len() <= usize::from(slots) + 1, "{:?}", answers.keys);
    }

    #[test]
    fn a_slot_of_any_bytes_can_be_used(
        damage in changes(), any_bytes in bytes(80), damaged in any::<bool>(), spent in any::<u64>(), cost in any::<u64>(),
        now in prop_oneof![any::<u64>(), 1_795_000_000_000..1_796_000_000_000_u64], later in 0..10_000_000_u64,
        period in select(vec![Period::Hour, Period::Day, Period::Month]),
    ) {
        const KEY: &str = "shunt.budget.b";
        let all = || Select::All;
        let scope = Scope { tenant: all(), route: all(), provider: all(), model: all() };
        let budget = Budget::new("b", scope, LIMIT, LIMIT, period, Action::Alert, 0);
        let owner = budget.owner(Subject::default()).unwrap();
        let (now, mut store) = (Timestamp::from_millis(now), Memory::default());
        let first = budget.reserve(owner, spent, now, &mut store).unwrap().reservation.unwrap();
        let (written, version) = store.load(KEY);
        let bytes = if damaged { changed(&written, damage) } else { any_bytes };
        store.compare_and_swap(KEY, &bytes, version);
        let now = now.after(Duration::from_millis(later));
        let _ = budget.settle(&first, cost, now, &mut store).unwrap();
        let before = budget.standing(owner, now, &mut store);
        prop_assert!(!budget.header(&before, now).is_empty());
        let again = budget.reserve(owner, 7, now, &mut store).unwrap();
        let standing = budget.settle(&again.reservation.unwrap(), 9, now, &mut store).unwrap().unwrap();
        prop_assert_eq!(standing.spent_pico, before.spent_pico.saturating_add(9));
    }
}

// Whole requests, from the plan to the audit record.

/// An event in the life of a request.
#[derive(Clone, Debug)]
enum Fate {
    /// The attempt begins, and is judged with this outcome.
    Judged {
        outcome: Outcome,
        tally: Tally,
        over: bool,
        retry_after: Option<u64>,
    },
    /// More of the answer arrives.
    Progress(Tally),
    /// The answer ends with this outcome.
    Ended(Outcome),
    Misrouted,
    Abandoned,
    /// This number of milliseconds passes.
    Wait(u64),
}

/// What only some price lists tell apart.
fn details() -> impl Strategy<Value = Details> {
    let count = || prop_oneof![2 => Just(0), 1 => 0..2_000_000_u64];
    let call = || prop_oneof![2 => Just(0), 1 => 0..4_u32];
    let calls = (call(), call(), call(), call()).prop_map(|calls| Calls {
        web_search: calls.0,
        file_search: calls.1,
        code_interpreter: calls.2,
        image_generation: calls.3,
    });
    (count(), count(), count(), calls).prop_map(|(cache_write_1h, audio_input, audio_output, calls)| {
        Details { cache_write_1h, audio_input, audio_output, calls }
    })
}

/// Who served, some of them with a price in [`spending_config`].
fn served() -> impl Strategy<Value = Served> {
    let name = |names: Vec<&'static str>| prop::option::of(prop_oneof![select(names), Just("?")]);
    let models = name(vec!["listed", "openai/listed-2026-01-01", "-2026", "", "é/"]);
    (models, name(vec!["flex", "default", "priority"]))
        .prop_map(|(model, tier)| Served { model: model.map(Into::into), tier: tier.map(Into::into) })
}

fn tallies() -> impl Strategy<Value = Tally> {
    let count = || prop_oneof![0..50_u64, 0..2_000_000_u64];
    let usage = prop::option::of((count(), count(), details()).prop_map(|(input, output, details)| Usage {
        input,
        output,
        details,
        ..Usage::default()
    }));
    (usage, served(), count(), 0..3_u32).prop_map(|(usage, served, estimated_output, malformed)| Tally {
        usage,
        served,
        estimated_output,
        begun: estimated_output > 0,
        malformed,
        unread: malformed == 1,
        ..Tally::default()
    })
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let outcome = || select(Outcome::ALL.to_vec());
    let fate = prop_oneof![
        6 => (outcome(), tallies(), any::<bool>(), prop::option::of(0..5000_u64))
            .prop_map(|(outcome, tally, over, retry_after)| Fate::Judged { outcome, tally, over, retry_after }),
        2 => tallies().prop_map(Fate::Progress),
        1 => outcome().prop_map(Fate::Ended),
        1 => Just(Fate::Misrouted),
        1 => Just(Fate::Abandoned),
        1 => (0..5000_u64).prop_map(Fate::Wait),
    ];
    prop::collection::vec(fate, 0..10)
}

/// Three providers, one of them without a price, and budgets of every kind. `action` is the action of the first budget.
fn spending_config(action: &str) -> Config {
    let models = |price: &str| {
        format!(r#"{{"host": "h", "api_key": "$OPENAI_API_KEY", "models": {{"*": {{"name": "*"{price}}}}}}}"#)
    };
    let budget = |name: &str, matching: &str, action: &str| {
        format!(
            r#"{{"name": "{name}", "match": {matching}, "limit": 2, "per": "day", "when_spent": "{action}"}}"#
        )
    };
    let text = format!(
        r#"{{"providers": {{"a": {}, "b": {}, "c": {}}},
        "routes": [{{"name": "chat", "match": {{"path": "/v1/chat/completions"}}, "providers": ["a", "b", "c"]}}],
        "tenant": {{"header": "x-tenant"}}, "breaker": {{"consecutive_failures": 2}}, "budgets": [{}, {}, {}],
        "prices": {{"*": {{"listed": {{"input": 2, "output": 5, "cache_write_1h": 3, "audio_output": 9, "calls": {{"code_interpreter": 0.03}}}}}}}}}}"#,
        models(
            r#", "price": {"input": 1, "output": 3, "audio_input": 7, "calls": {"web_search": 0.01, "file_search": 0},
               "service_tiers": {"flex": 0.333333}}"#,
        ),
        models(r#", "price": {"input": 0.5, "output": 1, "request": 0.01}"#),
        models(""),
        budget("all", "{}", action),
        budget("team", r#"{"tenant": "*"}"#, "alert"),
        budget("each", r#"{"provider": "*"}"#, "skip"),
    );
    Config::parse(&text, &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A streamed chat request with the configuration of [`spending_config`].
fn spending_exchange(config: &Rc<Config>, tenant: &str, model: &str) -> Exchange {
    let body =
        serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": true});
    let body = Body::read(body.to_string().as_bytes(), Endpoint::Chat, &[]).unwrap();
    let head = RequestHead { path: "/v1/chat/completions".to_owned(), complete: false, policy: None };
    let mut exchange = Exchange::new(Rc::clone(config), &head, body, |_| true).unwrap();
    exchange.set_tenant(tenant.to_owned());
    exchange
}

/// Lets an event happen to a request. Returns what the gateway must do next, if the event was the end of an attempt.
///
/// An event that cannot happen now is a call out of order: it panics in a debug build, so it is left out there, and is an error that
/// changes nothing in a release build (`make fuzz`).
fn happen(exchange: &mut Exchange, fate: Fate, env: &mut Env<'_>) -> Result<Option<Next>, TestCaseError> {
    let now = env.now;
    let is_undecided = exchange.provider().is_some() && !exchange.is_delivered();
    let in_order = match &fate {
        Fate::Wait(_) | Fate::Progress(_) => true,
        Fate::Judged { .. } | Fate::Misrouted => is_undecided,
        Fate::Ended(_) => exchange.is_delivered() && !exchange.is_over(),
        Fate::Abandoned => exchange.awaited().is_some(),
    };
    if !in_order && cfg!(debug_assertions) {
        return Ok(None);
    }
    let next = match fate {
        Fate::Judged { outcome, tally, over, retry_after } => {
            exchange.progress(tally, || now);
            let retry_after = retry_after.map(Duration::from_millis);
            let verdict = Verdict { retry_after, ..Verdict::certain(outcome, None) };
            exchange.judge(verdict, false, over, env).map(|decision| Some(decision.next))
        }
        Fate::Misrouted => exchange.misrouted(env).map(Some),
        Fate::Progress(tally) => {
            exchange.progress(tally, || now);
            Ok(None)
        }
        Fate::Ended(outcome) => exchange.ended(outcome, env).map(|_| None),
        Fate::Abandoned => exchange.abandon(env).map(|()| None),
        Fate::Wait(_) => Ok(None),
    };
    prop_assert_eq!(next.is_ok(), in_order);
    Ok(next.unwrap_or_default())
}

/// Checks that nothing stays reserved and that what is spent is what was billed, by provider.
fn check_spent(
    budget: &Budget,
    standing: &Standing,
    provider: &str,
    billed: &BTreeMap<String, u64>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(standing.reserved_pico, 0, "{} {}", budget.name, provider);
    let expected = match budget.name.as_str() {
        "each" => billed.get(provider).copied().unwrap_or(0),
        _ => billed.values().sum(),
    };
    prop_assert_eq!(standing.spent_pico, expected, "{} {}", budget.name, provider);
    Ok(())
}

/// Checks that a record tells what its attempts cost, and tells no cost as exact beside a part without a price.
fn check_told(record: &Value, sum: u64) -> Result<(), TestCaseError> {
    let attempts = record["attempts"].as_array().unwrap();
    let told = |place: &Value| place["cost_usd"].as_str().map(str::to_owned);
    let billed: Vec<&Value> = attempts.iter().filter(|attempt| !attempt["usage"].is_null()).collect();
    for place in billed.iter().copied().chain([record]) {
        let is_partial = !place["unpriced_parts"].is_null();
        prop_assert_eq!(
            !place["unpriced"].is_null(),
            (told(place).is_none() || is_partial) && !billed.is_empty()
        );
        prop_assert!(!is_partial || told(place).is_some(), "{}", place);
    }
    if !billed.is_empty() && billed.iter().all(|attempt| told(attempt).is_some()) {
        prop_assert_eq!(told(record), Some(Money::from_pico(sum).to_string()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn whatever_happens_nothing_stays_reserved_and_the_billed_amount_is_spent(
        requests in prop::collection::vec((fates(), any::<bool>(), any::<bool>()), 1..4),
        action in select(vec!["alert", "cheapest", "block"]),
        tenant in ".{0,6}", model in ".{1,6}",
    ) {
        let config = Rc::new(spending_config(action));
        let (mut store, mut random, mut ledger) = (Memory::default(), fastrand::Rng::with_seed(1), Ledger::default());
        let mut now = SPENDING_NOW;
        let mut billed: BTreeMap<String, u64> = BTreeMap::new();
        for (fates, gone, in_time) in requests {
            let mut exchange = spending_exchange(&config, &tenant, &model);
            let mut env = Env { now, store: &mut store, random: &mut random, ledger: &mut ledger };
            let started = exchange.start(&mut env);
            if let Ok(start) = &started {
                if in_time {
                    exchange.begin(&start.provider, || now).unwrap();
                }
            }
            for fate in fates {
                if let Fate::Wait(millis) = fate {
                    now = now.after(Duration::from_millis(millis));
                }
                let mut env = Env { now, store: &mut store, random: &mut random, ledger: &mut ledger };
                match happen(&mut exchange, fate, &mut env)? {
                    Some(Next::Retry { provider, .. }) if in_time => exchange.begin(&provider, || now).unwrap(),
                    _ => {}
                }
            }
            let mut env = Env { now, store: &mut store, random: &mut random, ledger: &mut ledger };
            let facts = exchange.finish(End { gone, replied: None }, &mut env);
            for attempt in &facts.attempts {
                let cost = attempt.bill.as_ref().and_then(|bill| bill.cost).unwrap_or_default();
                *billed.entry(attempt.provider.to_owned()).or_default() += cost.as_pico();
            }
            let sum: u64 = facts.attempts.iter().filter_map(|attempt| attempt.bill.as_ref()?.cost).map(Money::as_pico).sum();
            let record = facts.record();
            prop_assert!(!record.contains(['\n', '\r']), "{}", record);
            check_told(&serde_json::from_str(&record).unwrap(), sum)?;
        }
        for budget in &config.budgets {
            for provider in ["a", "b", "c"] {
                let owner = budget.owner(Subject { tenant: &tenant, route: "chat", provider, model: &model }).unwrap();
                check_spent(budget, &budget.standing(owner, now, &mut store), provider, &billed)?;
            }
        }
    }

    #[test]
    fn every_audit_record_is_one_line_of_json(
        texts in prop::collection::vec(prop_oneof![".{0,300}", "[\\\\\"{}\r\n\t\u{0}-\u{1f}\u{7f}-\u{a0}\u{2028}\u{1F600}]{0,300}"], 5),
        numbers in prop::collection::vec(any::<u64>(), 7), cost in prop::option::of(any::<u64>()),
        outcome in select(Outcome::ALL.to_vec()), flag in any::<bool>(), attempts in 0..4_usize, malformed in any::<u32>(),
    ) {
        let usage = Usage { input: numbers[0], cached: numbers[1], cache_write: numbers[2], output: numbers[3], reasoning: numbers[4], ..Usage::default() };
        let source = if flag { Source::Reported } else { Source::Estimated };
        let text = |place: usize| Some(texts[place].as_str().into());
        let served = Served { model: text(2), tier: text(3) };
        let mut unpriced = Parts::default();
        unpriced.add_if(malformed % 2 == 0, Part::Model);
        let bill = flag.then_some(Bill { usage, served, source, reconciled: None, cost: cost.map(Money::from_pico), unpriced });
        let took = Duration::from_millis(numbers[5]);
        let attempt = AttemptFacts {
            provider: "p", model: &texts[0], model_label: &texts[0], outcome, status: flag.then_some(200), took, bill,
        };
        let facts = Facts {
            tenant: &texts[1],
            model: &texts[2],
            route: &texts[3],
            stream: flag,
            answered: flag,
            plan: vec!["p"; attempts],
            left_out: vec![("p", "open")],
            adapted: None,
            attempts: vec![attempt; attempts],
            first_token: cost.map(Duration::from_millis),
            took,
            malformed,
            unread: flag,
            ..Facts::rejected(Timestamp::from_millis(numbers[6]), texts[4].clone(), None, false)
        };
        let record = facts.record();
        prop_assert!(!record.contains(['\n', '\r']), "{}", record);
        prop_assert!(record.len() < 20_000);
        let read: Value = serde_json::from_str(&record).unwrap();
        prop_assert!(texts[4].starts_with(read["request_id"].as_str().unwrap()));
        prop_assert_eq!(read["attempts"].as_array().unwrap().len(), attempts);
    }
}
