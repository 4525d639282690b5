//! Properties of everything that reads what came from the wire, the configuration or the store.
//!
//! A failure prints its input and seed. `SHUNT_FUZZ=1000` runs a thousand times as many cases (`make fuzz`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, Index};
use serde_json::Value;
use shunt::answer::{Head, Step, Wants, Watch};
use shunt::breaker::{Hold, ModelHold};
use shunt::breaker::{HoldPolicy, Permit, Policy, Record, Report, Rules, State, Window, LENGTH, MODEL_SLOTS};
use shunt::chat::Glance;
use shunt::clock::{parse_duration, Timestamp};
use shunt::config::{Config, Release};
use shunt::headers::{HeaderWriter, Headers};
use shunt::outcome::{of_error_in_answer, of_status, ErrorBody, HoldReason, Outcome, RetryHints};
use shunt::request::Body;
use shunt::rewrite::Splice;
use shunt::sse::Reader;

/// As many cases as `base`, times `SHUNT_FUZZ`. Nothing is written to disk: a failure is kept as a test of its own.
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn cases(base: u32) -> ProptestConfig {
    let times = std::env::var("SHUNT_FUZZ").ok().and_then(|times| times.parse().ok()).unwrap_or(1_u32);
    ProptestConfig {
        cases: base.saturating_mul(times),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

// What the inputs are made of.

/// Bytes that a failure prints as text.
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

/// JSON of any form, with the keys that somebody looks for among others.
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

/// A few changes to a text: bytes replaced, put in, taken out, a part doubled.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Double(Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let telling: Vec<u8> = b"{}[]\":,\\ \r\n\0tfn0-9.eE$*/\xEF\xFF".to_vec();
    let byte = prop_oneof![3 => select(telling), 1 => any::<u8>()];
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

/// Pieces of streams as providers send them, and of what breaks them.
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
        // Half of them are left as they are.
        let text = parts.concat();
        if changes.len() < 2 {
            Bytes(text)
        } else {
            changed(&text, changes)
        }
    })
}

// Requests.

/// Whether the model's place holds the model, and the splice changes nothing else.
fn check_request(text: &[u8], name: &str) -> Result<(), TestCaseError> {
    let Ok(body) = Body::read(text) else { return Ok(()) };
    let place: Range<usize> = body.model_span.clone();
    let found: String = serde_json::from_slice(&text[place.clone()])
        .map_err(|error| TestCaseError::fail(format!("the place {place:?} holds no text: {error}")))?;
    prop_assert_eq!(&found, &body.model);
    prop_assert_eq!(body.len, text.len());
    let Some(splice) = Splice::model(&body.model, name, &place) else {
        prop_assert_eq!(&body.model, name);
        return Ok(());
    };
    let mut new = splice.apply(&text[..splice.prefix_len()]).unwrap();
    new.extend_from_slice(&text[splice.prefix_len()..]);
    prop_assert_eq!(new.len(), splice.body_len(text.len()));
    let again = Body::read(&new).unwrap();
    prop_assert_eq!(again.model.as_str(), name);
    prop_assert_eq!(again.stream, body.stream);
    // What a stricter reader refuses (a number beyond floats, a lone surrogate) has no value to compare.
    if let Ok(mut before) = serde_json::from_slice::<Value>(text) {
        before["model"] = Value::from(name);
        prop_assert_eq!(before, serde_json::from_slice::<Value>(&new).unwrap());
    }
    Ok(())
}

const REQUEST_KEYS: &[&str] = &["model", "stream", "messages", "role", "content", "tools", "temperature"];

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_request_of_any_bytes_is_read_or_refused(text in bytes(200), name in ".{1,10}") {
        check_request(&text, &name)?;
    }

    #[test]
    fn a_splice_changes_the_model_and_nothing_else(
        mut request in json(REQUEST_KEYS).prop_filter("an object", Value::is_object),
        model in ".{1,12}", stream in any::<bool>(), name in ".{1,12}", pretty in any::<bool>(),
    ) {
        request["model"] = Value::from(model.as_str());
        request["stream"] = Value::from(stream);
        let text = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) }.unwrap();
        let body = Body::read(&text).unwrap();
        prop_assert_eq!((body.model.as_str(), body.stream), (model.as_str(), stream));
        check_request(&text, &name)?;
    }

    #[test]
    fn a_damaged_request_is_read_rightly_or_refused(
        mut request in json(REQUEST_KEYS).prop_filter("an object", Value::is_object),
        model in ".{1,12}", name in ".{1,12}", changes in changes(),
    ) {
        request["model"] = Value::from(model.as_str());
        check_request(&changed(&serde_json::to_vec(&request).unwrap(), changes), &name)?;
    }
}

// Streams and answers.

/// The events' names and data, what is held at the end, and whether an event was too long.
type Events = (Vec<(String, Vec<u8>)>, Vec<u8>);

fn events(pieces: &[&[u8]]) -> Events {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for piece in pieces {
        reader.feed(piece, |event| events.push((event.name.to_owned(), event.data.to_vec())));
    }
    (events, reader.rest().to_vec())
}

/// Does what the host does with a response; what the client gets of a stream that is released, and its end.
fn watch(
    head: &Head<'_>,
    stream: bool,
    release: Release,
    pieces: &[&[u8]],
    max_held: usize,
) -> (Vec<u8>, Option<Outcome>) {
    let mut watch = Watch::new(head, stream, release);
    let whole = pieces.concat();
    if watch.wants(max_held) != Wants::Pieces {
        let cut = match watch.wants(max_held) {
            Wants::Everything(most) => most.saturating_add(1).min(whole.len()),
            Wants::Pieces => 0,
        };
        let outcome = watch.judge(&whole[..cut], cut == whole.len()).outcome;
        assert_eq!(watch.release(true, "p"), (0, Vec::new()));
        return (Vec::new(), Some(outcome));
    }
    let (mut held, mut sent, mut outcome, mut released) = (Vec::new(), Vec::new(), None, false);
    for (place, piece) in pieces.iter().enumerate() {
        let end = place + 1 == pieces.len();
        if released {
            let relay = watch.relay(piece, end, "p");
            sent.extend_from_slice(relay.replace.as_deref().unwrap_or(piece));
            assert!(outcome.is_none() || relay.ended.is_none(), "it ends once");
            outcome = outcome.or(relay.ended);
            continue;
        }
        held.extend_from_slice(piece);
        let Step::Judged(verdict) = watch.withhold(piece, end, held.len(), max_held) else {
            assert!(!end, "the end must be judged");
            continue;
        };
        if verdict.outcome != Outcome::Answered {
            return (Vec::new(), Some(verdict.outcome));
        }
        let (cut, behind) = watch.release(end, "p");
        assert!(cut <= held.len());
        sent.extend_from_slice(&held[..held.len() - cut]);
        sent.extend(behind);
        released = true;
        if end || watch.is_closed() {
            outcome = Some(Outcome::Answered);
        }
    }
    (sent, outcome)
}

/// Whether every `[DONE]` event stands behind a finished answer without an error.
fn done_is_true(sent: &[u8]) -> bool {
    let (mut said, mut holds) = (Glance::default(), true);
    Reader::default().feed(sent, |event| {
        if event.data.trim_ascii() == b"[DONE]" {
            holds &= said.is_finished() && said.error.is_none();
        } else if let Ok(chunk) = Glance::read(event.data) {
            said.add(chunk);
        }
    });
    holds
}

fn releases() -> impl Strategy<Value = Release> {
    select(vec![Release::FirstToken, Release::Complete])
}

const SSE: Head<'_> = Head { status: 200, content_type: "text/event-stream", retry_after: None };

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut(
        text in prop_oneof![stream(), bytes(60), "[\r\n:da tevnx]{0,60}".prop_map(|text| Bytes(text.into_bytes()))], cuts in cuts(),
    ) {
        prop_assert_eq!(events(&cut(&text, &cuts)), events(&[&text]));
    }

    #[test]
    fn a_done_is_never_passed_on_without_a_finish(
        text in stream(), cuts in cuts(), release in releases(), max_held in select(vec![0_usize, 10, 1 << 20]),
    ) {
        let (sent, _) = watch(&SSE, true, release, &cut(&text, &cuts), max_held);
        prop_assert!(done_is_true(&sent), "{}", String::from_utf8_lossy(&sent));
    }

    #[test]
    fn what_is_relayed_of_an_answer_ends_with_done_or_an_error(text in stream(), cuts in cuts(), release in releases()) {
        let (sent, outcome) = watch(&SSE, true, release, &cut(&text, &cuts), 1 << 20);
        let (events, rest) = events(&[&sent]);
        if !sent.is_empty() {
            prop_assert_eq!(rest, b"".to_vec(), "only whole events pass");
            let done = events.iter().any(|(_, data)| data.trim_ascii() == b"[DONE]");
            let error = events.iter().any(|(name, data)| {
                name == "error" || Glance::read(data).is_ok_and(|chunk| chunk.error.is_some())
            });
            prop_assert!(done != error, "{}", String::from_utf8_lossy(&sent));
            if let Some(outcome) = outcome {
                prop_assert_eq!(outcome == Outcome::Answered, done);
            }
        }
    }

    #[test]
    fn any_response_is_judged(
        status in prop_oneof![Just(200_u16), any::<u16>()], content_type in prop_oneof![Just("application/json".to_owned()), ".{0,12}"],
        asked in any::<bool>(),
        text in prop_oneof![stream(), bytes(100), json(ANSWER_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes()))],
        cuts in cuts(), release in releases(), max_held in select(vec![0_usize, 10, 1 << 20]),
    ) {
        let head = Head { status, content_type: &content_type, retry_after: None };
        let (sent, outcome) = watch(&head, asked, release, &cut(&text, &cuts), max_held);
        prop_assert!(sent.is_empty() || (200..300).contains(&status));
        if !(200..300).contains(&status) {
            prop_assert!(outcome.is_some_and(|outcome| outcome != Outcome::Answered), "{:?}", outcome);
        }
    }

    #[test]
    fn a_glance_reads_any_json_object_and_refuses_the_rest(
        text in prop_oneof![
            json(ANSWER_KEYS).prop_map(|json| Bytes(json.to_string().into_bytes())),
            (json(ANSWER_KEYS), changes()).prop_map(|(json, changes)| changed(json.to_string().as_bytes(), changes)),
            bytes(100),
        ],
    ) {
        let is_object = serde_json::from_slice::<Value>(&text).is_ok_and(|json| json.is_object());
        if let Ok(glance) = Glance::read(&text) {
            // Numbers beyond floats are skipped unread, and refused by a reader that keeps them.
            prop_assert_eq!(text.trim_ascii().first(), Some(&b'{'));
            prop_assert_eq!(glance.finished & !glance.seen, 0);
            prop_assert!(!glance.content || glance.seen != 0);
        }
        prop_assert!(ErrorBody::from_json(&text).is_none() || is_object);
    }
}

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
        for error in [read, ErrorBody { code, kind, message }] {
            for outcome in [of_status(status, &error), of_error_in_answer(&error)] {
                prop_assert!(outcome != Outcome::Answered && outcome != Outcome::ClientGone);
                prop_assert!(Outcome::ALL.contains(&outcome));
            }
            prop_assert_ne!(of_error_in_answer(&error), Outcome::BadRequest, "the status said that it is good");
        }
    }

    #[test]
    fn a_retry_hint_of_any_text_is_read_or_ignored(
        retry_after in prop::option::of(prop_oneof![".{0,20}", "-?[0-9]{0,30}(\\.[0-9]{0,5})?(e[0-9]{1,4})?", date()]),
        retry_after_ms in prop::option::of(prop_oneof![".{0,10}", "[0-9]{0,30}"]),
        reset in prop::option::of(prop_oneof![".{0,10}", "([0-9.]{0,12}(ms|s|m|h)){0,4}"]),
        now in any::<u64>(),
    ) {
        let hints = RetryHints {
            retry_after: retry_after.as_deref(),
            retry_after_ms: retry_after_ms.as_deref(),
            resets: [reset.as_deref(), None],
        };
        let now = Timestamp::from_millis(now);
        if let Some(wait) = hints.wait(now) {
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
    "policy": {"type": "priority"}, "stream": {"release": "first_token"}, "limits": {"first_token": "1s"}}],
  "limits": {"first_token": "15s", "answer": "5m", "max_request_bytes": 20971520, "max_held_bytes": 8388608},
  "breaker": {"consecutive_failures": 5, "error_rate": 0.5, "minimum_requests": 20, "window": "30s", "open": "10s", "max_open": "5m", "probes": 1},
  "retry": {"attempts": 4, "same_provider": 1, "wait": "3s"},
  "holds": {"rate_limited": "5s", "max": "1h"}
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
    "/v1/chat/completions",
    "complete",
    "probes",
    "error_rate",
];

fn environment(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| "sk-from-environment".to_owned())
}

/// What a configuration that exists promises.
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
    fn a_configuration_with_anything_in_a_place_is_valid_or_refused(place in any::<Index>(), new in json(CONFIG_KEYS), remove in any::<bool>()) {
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
fn the_configuration_that_is_damaged_here_is_valid() {
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

/// What can happen to a record.
#[derive(Clone, Debug)]
enum Event {
    /// Somebody asks for leave with this model.
    Ask(u64),
    /// An attempt ends: one of those that run (or, if none does, one that ran on nobody's advice).
    End { which: Index, outcome: Outcome, retry_after: Option<u64>, jitter: f64, model: u64 },
    /// Time passes.
    Wait(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Event>> {
    let model = 1..7_u64;
    let failure = select(vec![Outcome::ServerError, Outcome::Overloaded, Outcome::TooSlow]);
    let event = prop_oneof![
        3 => model.clone().prop_map(Event::Ask),
        4 => (any::<Index>(), prop_oneof![failure, select(Outcome::ALL.to_vec())], prop::option::of(0..1000_u64), 0.0..=1.0, model)
            .prop_map(|(which, outcome, retry_after, jitter, model)| Event::End { which, outcome, retry_after, jitter, model }),
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
    let model = (any::<u64>(), time(), any::<u8>()).prop_map(|(model, until, streak)| ModelHold {
        model,
        until,
        streak,
    });
    (any::<u64>(), state, hold, prop::collection::vec(model, MODEL_SLOTS)).prop_map(
        |(fingerprint, state, hold, models)| Record {
            fingerprint,
            state,
            hold,
            models: models.try_into().unwrap(),
        },
    )
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn a_record_is_read_back_as_it_was_written(record in records()) {
        let bytes = record.encode();
        prop_assert_eq!(bytes.len(), LENGTH);
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
        prop_assert_eq!(Record::read(&bytes, record.fingerprint), record);
        let other = record.fingerprint.wrapping_add(1);
        prop_assert_eq!(Record::read(&bytes, other), Record::new(other));
    }

    #[test]
    fn a_record_of_any_bytes_is_one_or_none(
        bytes in prop_oneof![
            bytes(400),
            prop::collection::vec(any::<u8>(), LENGTH).prop_map(|mut bytes| { bytes[0] = 1; bytes[9] %= 4; Bytes(bytes) }),
            (records(), changes()).prop_map(|(record, changes)| changed(&record.encode(), changes)),
        ],
        now in any::<u64>(), outcome in select(Outcome::ALL.to_vec()), jitter in any::<f64>(), asked in prop::option::of(any::<u64>()),
    ) {
        let now = Timestamp::from_millis(now);
        let Ok(mut record) = Record::decode(&bytes) else { return Ok(()) };
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        // Whatever stands in it, it can be worked with.
        let _ = record.exclusion(1, now);
        let permit = record.admit(7, LEASE, now);
        let (breaker, holds) = rules();
        let retry_after = asked.map(Duration::from_millis);
        record.report(Report { outcome, permit, retry_after, model: 1 }, now, jitter, Rules { breaker: &breaker, holds: &holds });
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn a_breaker_keeps_its_promises(happenings in happenings()) {
        let (breaker, holds) = rules();
        let rules = Rules { breaker: &breaker, holds: &holds };
        let longest_open = breaker.max_open.mul_f64(1.1) + Duration::from_millis(1);
        let mut now = Timestamp::from_millis(1_700_000_000_000);
        let mut record = Record::new(1);
        let mut running: Vec<Permit> = Vec::new();
        // Probes that were let through since the breaker was closed last, with the time at which each lapses.
        let mut probes: Vec<(u32, Timestamp)> = Vec::new();
        let mut next = 0;
        for event in happenings {
            let before = record;
            match event {
                Event::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Event::Ask(model) => {
                    if record.exclusion(model, now).is_some() {
                        running.push(Permit::Forced);
                        continue;
                    }
                    next += 1;
                    let permit = record.admit(next, LEASE, now);
                    prop_assert_eq!(permit == Permit::Free, !before.needs_permit());
                    if let Permit::Probe(number) = permit {
                        let alive = probes.iter().filter(|(_, lapses)| *lapses > now).count();
                        prop_assert_eq!(alive, 0, "another probe is out");
                        probes.push((number, now.after(LEASE)));
                        prop_assert!(record.exclusion(model, now).is_some(), "one at a time");
                    }
                    running.push(permit);
                }
                Event::End { which, outcome, retry_after, jitter, model } => {
                    let permit = if running.is_empty() { Permit::Free } else { running.swap_remove(which.index(running.len())) };
                    let retry_after = retry_after.map(Duration::from_secs);
                    let changed = record.report(Report { outcome, permit, retry_after, model }, now, jitter, rules);
                    prop_assert_eq!(changed, record != before);
                    if let Permit::Probe(number) = permit {
                        probes.retain(|(known, _)| *known != number);
                    }
                    if outcome == Outcome::ClientGone && permit == Permit::Free {
                        prop_assert_eq!(record, before, "nobody's failure");
                    }
                    if let State::Open { until, .. } = record.state {
                        prop_assert!(until.since(now) <= longest_open);
                    }
                    if let (Some(old), Some(new)) = (before.hold, record.hold) {
                        prop_assert!(new.until >= old.until, "a hold was shortened");
                    }
                    prop_assert!(record.hold.is_some() || before.hold.is_none() || outcome == Outcome::Answered);
                    for old in before.models.iter().filter(|old| old.model != 0) {
                        if let Some(new) = record.models.iter().find(|new| new.model == old.model) {
                            prop_assert!(new.until >= old.until, "a hold of a model was shortened");
                        }
                    }
                    if record.hold.is_some_and(|hold| hold.until.since(now) > holds.max) {
                        prop_assert_eq!(record.hold.map(|hold| hold.until), before.hold.map(|hold| hold.until));
                    }
                }
            }
            if let State::Closed { .. } = record.state {
                probes.clear();
            }
            // Never stuck: once everything that can run has run out, it is admitted, whatever the model.
            let later = now.after(longest_open.max(holds.max).max(LEASE));
            for model in 0..8 {
                prop_assert_eq!(record.exclusion(model, later), None);
                if let Some(exclusion) = record.exclusion(model, now) {
                    prop_assert!(exclusion.until > now && exclusion.until <= later);
                }
            }
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }
}
