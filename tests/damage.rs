//! Damaged bytes: an answer whose structure was damaged on its way ends with the whole text, as a failure of the attempt, with a typed error
//! or with a broken connection. It never ends well with a hole, nor with what a strict client cannot read.
//!
//! A failure prints the damaged answer and its seed. `SHUNT_FUZZ=1000` runs a thousand times as many cases (`make fuzz`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use serde_json::Value;
use shunt::client_api::request::Endpoint;
use shunt::config::Release;
use shunt::dialects::dialect::Wire;
use shunt::dialects::schema::Defaults;
use shunt::health::outcome::Outcome;
use shunt::response::answer::{Head, Step, Watch};
use shunt::response::asked::Asked;
use shunt::routing::provider::ApiKey;

/// The text of every answer, in the pieces in which it is sent.
const PIECES: [&str; 5] = ["The dose ", "is ", "NOT ", "safe, \u{e9}t\u{e9} \u{1f600}", "."];
/// The calls of every answer with tools: id, name and the pieces of the arguments.
const CALLS: [(&str, &str, [&str; 3]); 2] = [
    ("call_a", "dose", [r#"{\"mg\""#, ": 5, ", r#"\"of\": \"x\"}"#]),
    ("call_b", "stop", [r#"{\"now\":"#, " true", "}"]),
];

/// What kind of answer is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Tools,
    Completions,
    Responses,
    Anthropic,
    AnthropicTools,
}

const KINDS: [Kind; 6] =
    [Kind::Chat, Kind::Tools, Kind::Completions, Kind::Responses, Kind::Anthropic, Kind::AnthropicTools];

impl Kind {
    fn asked(self, stream: bool, release: Release) -> Asked {
        Asked {
            endpoint: match self {
                Self::Completions => Endpoint::Completions,
                Self::Responses => Endpoint::Responses,
                _ => Endpoint::Chat,
            },
            stream,
            usage: true,
            release,
            wire: match self {
                Self::Anthropic | Self::AnthropicTools => Wire::Anthropic,
                _ => Wire::OpenAi,
            },
            defaults: Defaults {
                id: "id".to_owned(),
                created: 1,
                model: "m".to_owned(),
                ..Defaults::default()
            },
            key: ApiKey::new("", "sk-secret").unwrap(),
        }
    }

    fn stream(self) -> String {
        match self {
            Self::Chat => {
                chat_stream(PIECES.map(|text| format!(r#"{{"content":"{text}"}}"#)).to_vec(), "stop")
            }
            Self::Tools => chat_stream(call_deltas(), "tool_calls"),
            Self::Completions => completion_stream(),
            Self::Responses => response_stream(),
            Self::Anthropic => message_stream(vec![("text", "text", PIECES.to_vec())], "end_turn"),
            Self::AnthropicTools => message_stream(
                CALLS.iter().map(|(id, name, pieces)| (*id, *name, pieces.to_vec())).collect(),
                "tool_use",
            ),
        }
    }

    fn whole(self) -> String {
        let text = PIECES.concat();
        let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}"#;
        let calls = |form: &dyn Fn(&str, &str, String) -> String| {
            CALLS.map(|(id, name, pieces)| form(id, name, pieces.concat())).join(",")
        };
        let chat = |message: String, finish: &str| {
            format!(
                r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant",{message},"refusal":null}},"logprobs":null,"finish_reason":"{finish}"}}],{usage}}}"#
            )
        };
        let message = |content: String, stop: &str| {
            format!(
                r#"{{"id":"m","type":"message","role":"assistant","model":"c","content":[{content}],"stop_reason":"{stop}","usage":{{"input_tokens":3,"output_tokens":5}}}}"#
            )
        };
        match self {
            Self::Chat => chat(format!(r#""content":"{text}""#), "stop"),
            Self::Tools => chat(
                format!(
                    r#""content":null,"tool_calls":[{}]"#,
                    calls(&|id, name, arguments| format!(
                        r#"{{"id":"{id}","type":"function","function":{{"name":"{name}","arguments":"{arguments}"}}}}"#
                    ))
                ),
                "tool_calls",
            ),
            Self::Completions => format!(
                r#"{{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"stop"}}],{usage}}}"#
            ),
            Self::Responses => format!(
                r#"{{"id":"r","object":"response","status":"completed","error":null,"output":[{{"type":"message","id":"i","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}],"usage":{{"input_tokens":3,"output_tokens":5,"total_tokens":8}}}}"#
            ),
            Self::Anthropic => message(format!(r#"{{"type":"text","text":"{text}"}}"#), "end_turn"),
            Self::AnthropicTools => message(
                calls(&|id, name, arguments| {
                    format!(
                        r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{}}}"#,
                        arguments.replace('\\', "")
                    )
                }),
                "tool_use",
            ),
        }
    }

    /// What a client must have read when the answer ended well.
    fn expected(self) -> String {
        match self {
            Self::Tools | Self::AnthropicTools => CALLS
                .map(|(id, name, pieces)| format!("{id} {name} {};", pieces.concat().replace('\\', "")))
                .concat(),
            _ => PIECES.concat(),
        }
    }
}

fn chunk(choices: &str, rest: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choices}]{rest}}}\n\n"
    )
}

fn chat_stream(deltas: Vec<String>, finish: &str) -> String {
    let choice = |delta: &str, finish: &str| {
        format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#)
    };
    let mut all = vec![chunk(&choice(r#"{"role":"assistant","content":""}"#, "null"), "")];
    all.extend(deltas.iter().map(|delta| chunk(&choice(delta, "null"), "")));
    all.insert(3, ": waiting\n\n".to_owned());
    all.push(chunk(&choice("{}", &format!("\"{finish}\"")), ""));
    all.push(chunk("", r#","usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}"#));
    all.concat() + "data: [DONE]\n\n"
}

fn call_deltas() -> Vec<String> {
    let mut all = Vec::new();
    for (index, (id, name, pieces)) in CALLS.iter().enumerate() {
        all.push(format!(
            r#"{{"tool_calls":[{{"index":{index},"id":"{id}","type":"function","function":{{"name":"{name}","arguments":""}}}}]}}"#
        ));
        for piece in pieces {
            all.push(format!(
                r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":"{piece}"}}}}]}}"#
            ));
        }
    }
    all
}

fn completion_stream() -> String {
    let event = |text: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    PIECES.map(|text| event(text, "null")).concat() + &event("", "\"stop\"") + "data: [DONE]\n\n"
}

fn typed(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n")
}

fn response_stream() -> String {
    let deltas = PIECES.iter().enumerate().map(|(number, text)| {
        typed(
            "response.output_text.delta",
            &format!(r#""sequence_number":{},"item_id":"i","output_index":0,"delta":"{text}""#, number + 1),
        )
    });
    let head = r#""sequence_number":0,"response":{"id":"r","status":"in_progress","output":[]}"#;
    let end = r#""sequence_number":9,"response":{"id":"r","status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":5}}"#;
    typed("response.created", head) + &deltas.collect::<String>() + &typed("response.completed", end)
}

fn message_stream(blocks: Vec<(&str, &str, Vec<&str>)>, stop: &str) -> String {
    let mut all = vec![typed(
        "message_start",
        r#""message":{"id":"m","type":"message","role":"assistant","model":"c","content":[],"usage":{"input_tokens":3,"output_tokens":1}}"#,
    )];
    for (index, (id, name, pieces)) in blocks.iter().enumerate() {
        let (begin, kind, field) = if *id == "text" {
            (r#"{"type":"text","text":""}"#.to_owned(), "text_delta", "text")
        } else {
            (
                format!(r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{{}}}}"#),
                "input_json_delta",
                "partial_json",
            )
        };
        all.push(typed("content_block_start", &format!(r#""index":{index},"content_block":{begin}"#)));
        all.push(typed("ping", "\"x\":1"));
        for piece in pieces {
            let delta = format!(r#""index":{index},"delta":{{"type":"{kind}","{field}":"{piece}"}}"#);
            all.push(typed("content_block_delta", &delta));
        }
        all.push(typed("content_block_stop", &format!(r#""index":{index}"#)));
    }
    let delta = format!(r#""delta":{{"stop_reason":"{stop}"}},"usage":{{"output_tokens":5}}"#);
    all.push(typed("message_delta", &delta));
    all.concat() + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
}

/// A random number (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % most as u64).unwrap()
    }
}

const STRUCTURE: &[u8] = b"{}[]\":,\n";

/// The places of an answer's structure: what stands outside the texts, and the quotes around them.
fn structure(text: &[u8]) -> Vec<usize> {
    let (mut inside, mut escaped) = (false, false);
    let mut places = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        let is_quote = *byte == b'"' && !escaped;
        if (is_quote || !inside) && STRUCTURE.contains(byte) {
            places.push(at);
        }
        escaped = inside && *byte == b'\\' && !escaped;
        inside ^= is_quote;
    }
    places
}

/// Damages an answer at one to three places, never a letter of its text.
fn damage(text: &str, chance: &mut Chance) -> Vec<u8> {
    let places = structure(text.as_bytes());
    let mut damages: Vec<(usize, usize)> = (0..=chance.below(3))
        .map(|_| match chance.below(6) {
            kind @ 0..4 => (places[chance.below(places.len())], kind),
            kind => (chance.below(text.len()), kind),
        })
        .collect();
    // From the end to the beginning, so that the places stay right; each place once.
    damages.sort_unstable();
    damages.dedup_by_key(|(at, _)| *at);
    let mut bytes = text.as_bytes().to_vec();
    for (at, kind) in damages.into_iter().rev() {
        match kind {
            0 | 1 => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, bytes[at]),
            3 => bytes[at] = STRUCTURE[chance.below(STRUCTURE.len())],
            4 => bytes.insert(at, u8::try_from(chance.below(0x20)).unwrap()),
            _ => {
                bytes.splice(at..at, *b"\n\n");
            }
        }
    }
    bytes
}

/// What a strict client reads: what was said, whether the answer ended well, and whether it was told an error.
#[derive(Debug, Default)]
struct Client {
    text: String,
    calls: Vec<[String; 3]>,
    finished: bool,
    ended: bool,
    error: bool,
}

impl Client {
    /// Reads an event stream as the strictest client would; an error says what it could not read.
    fn read(kind: Kind, sent: &[u8]) -> Result<Self, String> {
        let sent = std::str::from_utf8(sent).map_err(|error| error.to_string())?;
        let sent = sent.replace("\r\n", "\n").replace('\r', "\n");
        let mut client = Self::default();
        for block in sent.split("\n\n") {
            let data: Vec<&str> = block
                .split('\n')
                .filter_map(|line| {
                    line.strip_prefix("data:").map(|data| data.strip_prefix(' ').unwrap_or(data))
                })
                .collect();
            match data.join("\n").as_str() {
                "" => {}
                "[DONE]" => client.ended = true,
                data => client.event(kind, &strict(data.as_bytes())?),
            }
        }
        Ok(client)
    }

    fn event(&mut self, kind: Kind, event: &Value) {
        self.error |= event["error"].is_object() || event["type"] == "error";
        if kind == Kind::Responses {
            if event["type"] == "response.output_text.delta" {
                self.text.push_str(event["delta"].as_str().unwrap_or_default());
            }
            self.ended |= event["type"] == "response.completed";
            return;
        }
        for choice in event["choices"].as_array().into_iter().flatten() {
            self.finished |= choice["finish_reason"].is_string();
            self.message(&choice["delta"]);
            self.text.push_str(choice["text"].as_str().unwrap_or_default());
        }
    }

    fn message(&mut self, message: &Value) {
        self.text.push_str(message["content"].as_str().unwrap_or_default());
        for (place, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().map_or(place, |index| usize::try_from(index).unwrap());
            if self.calls.len() <= index {
                self.calls.resize(index + 1, Default::default());
            }
            let parts = [&call["id"], &call["function"]["name"], &call["function"]["arguments"]];
            for (known, part) in self.calls[index].iter_mut().zip(parts) {
                known.push_str(part.as_str().unwrap_or_default());
            }
        }
    }

    /// What was said, without the control characters that were put in.
    fn said(&self) -> String {
        let calls = self.calls.iter().map(|[id, name, arguments]| format!("{id} {name} {arguments};"));
        let said = calls.collect::<String>() + &self.text;
        said.chars().filter(|letter| !letter.is_control()).collect()
    }
}

fn strict(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Passes a stream through the core as a host does: what the client gets, the outcome, and whether its stream is reset.
fn pass(asked: &Asked, bytes: &[u8], chance: &mut Chance) -> (Vec<u8>, Outcome, bool) {
    let head = Head { status: 200, retry_after: None };
    let mut watch = Watch::new(&head, asked.clone());
    let (mut held, mut sent, mut released, mut at) = (Vec::new(), Vec::new(), false, 0);
    loop {
        let size = 1 + chance.below(200);
        let piece = &bytes[at..(at + size).min(bytes.len())];
        at += piece.len();
        let end = at == bytes.len();
        if released {
            let relay = watch.relay(piece, end, "p");
            sent.extend_from_slice(relay.replace.as_deref().unwrap_or(piece));
            if let Some(outcome) = relay.ended {
                return (sent, outcome, watch.is_torn());
            }
            assert!(!end, "the end is told");
            continue;
        }
        held.extend_from_slice(piece);
        let Step::Judged(judged) = watch.withhold(piece, end, held.len(), 1 << 20) else {
            assert!(!end, "the end must be judged");
            continue;
        };
        if judged.verdict.outcome != Outcome::Answered {
            return (Vec::new(), judged.verdict.outcome, false);
        }
        sent = watch.release(end, "p").unwrap_or_else(|| held.clone());
        released = true;
        if end || watch.is_closed() {
            return (sent, Outcome::Answered, false);
        }
    }
}

/// How many cases run, for each kind of answer.
fn cases() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let times = std::env::var("SHUNT_FUZZ").ok().and_then(|times| times.parse::<u64>().ok());
    1000 * times.unwrap_or(1).min(100)
}

fn check_stream(kind: Kind, release: Release, bytes: &[u8], chance: &mut Chance) -> Result<(), String> {
    let (sent, outcome, torn) = pass(&kind.asked(true, release), bytes, chance);
    if sent.is_empty() {
        // Nothing is at the client: another provider is asked.
        return if outcome == Outcome::Answered { Err("nothing is an answer".to_owned()) } else { Ok(()) };
    }
    let client = Client::read(kind, &sent)?;
    let says = |what: &str| Err(format!("{what} {outcome:?} {}", String::from_utf8_lossy(&sent)));
    if client.ended && client.said() != kind.expected() {
        return says(&format!("a hole: {:?}", client.said()));
    }
    match (outcome, client.ended, client.error) {
        (Outcome::Answered, true, false) => Ok(()),
        (Outcome::Answered, ..) => says("an answer that did not end well"),
        (_, false, true) => Ok(()),
        (_, false, false) if torn => Ok(()),
        // What came after the end of a response was damaged.
        (_, true, true) if kind == Kind::Responses => Ok(()),
        _ => says("a failure that looks like an end"),
    }
}

#[test]
fn a_damaged_stream_has_no_hole() {
    for kind in KINDS {
        for release in [Release::FirstToken, Release::Complete] {
            let good = kind.stream();
            let mut chance = Chance(0);
            check_stream(kind, release, good.as_bytes(), &mut chance).unwrap();
            assert_eq!(pass(&kind.asked(true, release), good.as_bytes(), &mut chance).1, Outcome::Answered);
            for seed in 0..cases() {
                let mut chance = Chance(seed);
                let bytes = damage(&good, &mut chance);
                if let Err(fault) = check_stream(kind, release, &bytes, &mut chance) {
                    panic!(
                        "{kind:?} {release:?} seed {seed}: {fault}\n\nof\n{}",
                        String::from_utf8_lossy(&bytes)
                    );
                }
            }
        }
    }
}

fn said_in_whole(kind: Kind, body: &Value) -> String {
    let mut client = Client::default();
    if kind == Kind::Responses {
        for part in body["output"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|item| item["content"].as_array())
            .flatten()
            // A client looks for its text by these words.
            .filter(|part| part["type"] == "output_text" && body["status"] == "completed")
        {
            client.text.push_str(part["text"].as_str().unwrap_or_default());
        }
    }
    for choice in body["choices"].as_array().into_iter().flatten() {
        client.message(&choice["message"]);
        client.text.push_str(choice["text"].as_str().unwrap_or_default());
    }
    client.said()
}

#[test]
fn a_damaged_whole_answer_has_no_hole() {
    let head = Head { status: 200, retry_after: None };
    for kind in KINDS {
        let good = kind.whole();
        let check = |bytes: &[u8]| -> Result<bool, String> {
            let judged = Watch::new(&head, kind.asked(false, Release::FirstToken)).judge(bytes, true);
            if judged.verdict.outcome != Outcome::Answered {
                return Ok(false);
            }
            let body = judged.body.unwrap_or_else(|| bytes.to_vec());
            let said = said_in_whole(kind, &strict(&body)?);
            // What was put in between the parts of an argument may be told there as an escape.
            let arguments = |said: &str| {
                let mut said = said.replace(' ', "");
                for byte in 0..0x20 {
                    said = said.replace(&format!("\\u{byte:04x}"), "");
                }
                ["\\n", "\\t", "\\r"].iter().fold(said, |said, escape| said.replace(escape, ""))
            };
            if arguments(&said) == arguments(&kind.expected()) {
                Ok(true)
            } else {
                Err(format!("a hole: {said:?}"))
            }
        };
        assert_eq!(check(good.as_bytes()), Ok(true), "{kind:?}");
        for seed in 0..2 * cases() {
            let bytes = damage(&good, &mut Chance(seed));
            if let Err(fault) = check(&bytes) {
                panic!("{kind:?} seed {seed}: {fault}\n\nof\n{}", String::from_utf8_lossy(&bytes));
            }
        }
    }
}
