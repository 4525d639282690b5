//! No request costs less than what its provider said or, where it said nothing that can be final, than half of what its text has by a
//! real tokenizer.
//!
//! Random answers of the samples in `tests/golden/tokens.json`, whose tokens are known, in every format, with usages anywhere in
//! them, that end in every way. What is right is worked out from what was sent, and from nothing that the gateway read.
//! `SHUNT_FUZZ=1000` runs a thousand times as many cases (`make fuzz`). A failure prints its seed, and `SHUNT_SEED` runs that one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

use std::rc::Rc;

use serde_json::{json, Value};
use shunt::base::clock::Timestamp;
use shunt::base::store::Memory;
use shunt::client_api::request::{Body, Endpoint, Head as RequestHead, Input};
use shunt::config::{Config, Release};
use shunt::dialects::dialect::Wire;
use shunt::dialects::schema::Defaults;
use shunt::exchange::{End, Exchange};
use shunt::health::outcome::Outcome;
use shunt::response::answer::{Head, Step, Watch};
use shunt::response::asked::Asked;
use shunt::routing::provider::ApiKey;
use shunt::selection::ledger::Ledger;
use shunt::selection::plan::Env;
use shunt::spend::budget::Subject;
use shunt::spend::usage::{Served, Source};

const NOW: Timestamp = Timestamp::from_millis(1_795_257_296_000);
const MAX_HELD: usize = 1 << 20;

#[expect(clippy::disallowed_methods, reason = "a test's own switches")]
fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Sample {
    text: String,
    tokens: u64,
}

fn samples() -> Vec<Sample> {
    let file: Value = serde_json::from_str(include_str!("golden/tokens.json")).unwrap();
    let lists = ["samples", "runs"].into_iter().flat_map(|list| file[list].as_array().unwrap());
    let read = |sample: &Value| Sample {
        text: sample["text"].as_str().unwrap().to_owned(),
        tokens: sample["tokens"].as_u64().unwrap(),
    };
    lists.map(read).collect()
}

/// How a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Chat,
    Completions,
    Responses,
    Messages,
}

impl Form {
    const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Responses, Self::Messages];

    const fn endpoint(self) -> Endpoint {
        match self {
            Self::Chat | Self::Messages => Endpoint::Chat,
            Self::Completions => Endpoint::Completions,
            Self::Responses => Endpoint::Responses,
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
        }
    }
}

/// The kinds of content that a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thought,
    Refusal,
    Arguments,
}

/// What one event of a stream says.
#[derive(Clone, Debug)]
enum Said {
    /// A piece of a text, and a usage beside it.
    Piece { kind: Kind, text: String, begins: bool, usage: Option<(u64, u64)> },
    /// A usage alone.
    Usage(u64, u64),
    /// Nothing but a sign of life.
    Ping,
    /// The answer is finished, and a usage beside that.
    Finish(Option<(u64, u64)>),
}

/// A stream, and what is true of it after each event.
struct Answer {
    events: Vec<Said>,
    /// The tokens of the texts that are complete after each event.
    tokens: Vec<u64>,
}

fn pick<'a, T>(random: &mut fastrand::Rng, all: &'a [T]) -> &'a T {
    &all[random.usize(..all.len())]
}

/// A usage that somebody may tell: nothing, a beginning, or any number.
fn some_usage(random: &mut fastrand::Rng, so_far: u64) -> (u64, u64) {
    let input = [0, 1, 90, 5000][random.usize(..4)];
    (input, [0, 1, 2, so_far, so_far / 2, random.u64(..3000)][random.usize(..6)])
}

fn answer(random: &mut fastrand::Rng, samples: &[Sample], form: Form) -> Answer {
    let (mut events, mut tokens, mut so_far) = (Vec::new(), Vec::new(), 0);
    let told_by_chance = [0.0, 0.0, 0.1, 0.7][random.usize(..4)];
    if random.bool() {
        let (input, output) = some_usage(random, 0);
        events.push(Said::Usage(input, output));
        tokens.push(0);
    }
    for _ in 0..random.usize(1..6) {
        let sample = pick(random, samples);
        let kind = match form {
            Form::Completions => Kind::Text,
            Form::Messages => *pick(random, &[Kind::Text, Kind::Thought, Kind::Arguments]),
            _ => *pick(random, &[Kind::Text, Kind::Thought, Kind::Refusal, Kind::Arguments]),
        };
        let longest = [3, 20, 2000][random.usize(..3)];
        let mut rest = sample.text.as_str();
        let mut begins = true;
        while !rest.is_empty() {
            let mut at = random.usize(1..=longest).min(rest.len());
            while !rest.is_char_boundary(at) {
                at += 1;
            }
            let (text, later) = rest.split_at(at);
            rest = later;
            if rest.is_empty() {
                so_far += sample.tokens;
            }
            let usage = (random.f64() < told_by_chance).then(|| some_usage(random, so_far));
            events.push(Said::Piece { kind, text: text.to_owned(), begins, usage });
            tokens.push(so_far);
            begins = false;
            if random.f64() < 0.02 {
                let (input, output) = some_usage(random, so_far);
                events.push(if random.bool() { Said::Usage(input, output) } else { Said::Ping });
                tokens.push(so_far);
            }
        }
    }
    let last = random.bool().then(|| some_usage(random, so_far));
    let beside = random.bool();
    events.push(Said::Finish(last.filter(|_| beside)));
    tokens.push(so_far);
    if let Some((input, output)) = last.filter(|_| !beside) {
        events.push(Said::Usage(input, output));
        tokens.push(so_far);
    }
    Answer { events, tokens }
}

/// Writes the events of a stream as a provider sends them.
struct Writer {
    form: Form,
    /// The index of the call, or of the content block.
    index: u64,
    begun: bool,
}

impl Writer {
    fn write(&mut self, said: &Said) -> String {
        match self.form {
            Form::Chat | Form::Completions => self.chunk(said),
            Form::Responses => response_event(said),
            Form::Messages => self.message_event(said),
        }
    }

    fn chunk(&mut self, said: &Said) -> String {
        let usage = |told: &Option<(u64, u64)>| {
            told.map(|(input, output)| json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}))
        };
        let choice = |delta: Value, finish: Option<&str>| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        let (choices, usage) = match said {
            Said::Ping => return ": ping\n\n".to_owned(),
            Said::Usage(input, output) => (json!([]), usage(&Some((*input, *output)))),
            Said::Finish(told) if self.form == Form::Completions => {
                (json!([{"index": 0, "text": "", "finish_reason": "stop"}]), usage(told))
            }
            Said::Finish(told) => (choice(json!({}), Some("stop")), usage(told)),
            Said::Piece { text, usage: told, .. } if self.form == Form::Completions => {
                (json!([{"index": 0, "text": text, "finish_reason": null}]), usage(told))
            }
            Said::Piece { kind, text, begins, usage: told } => {
                let delta = match kind {
                    Kind::Text => json!({"content": text}),
                    Kind::Thought => json!({"reasoning_content": text}),
                    Kind::Refusal => json!({"refusal": text}),
                    Kind::Arguments => self.call(text, *begins),
                };
                (choice(delta, None), usage(told))
            }
        };
        let object = if self.form == Form::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = json!({"id": "c", "object": object, "created": 1, "model": "m", "choices": choices});
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    }

    /// A piece of the input of a custom tool, which is any text.
    fn call(&mut self, text: &str, begins: bool) -> Value {
        if begins {
            self.index += 1;
            let call = json!({"index": self.index - 1, "id": format!("call_{}", self.index), "type": "custom", "custom": {"name": "f", "input": text}});
            return json!({"tool_calls": [call]});
        }
        json!({"tool_calls": [{"index": self.index - 1, "custom": {"input": text}}]})
    }

    fn message_event(&mut self, said: &Said) -> String {
        let mut out = String::new();
        let mut event = |kind: &str, mut fields: Value| {
            fields["type"] = kind.into();
            out += &format!("event: {kind}\ndata: {fields}\n\n");
        };
        let told = |(input, output): (u64, u64)| json!({"input_tokens": input, "output_tokens": output});
        if !std::mem::replace(&mut self.begun, true) {
            let usage =
                if let Said::Usage(input, output) = said { told((*input, *output)) } else { json!({}) };
            event("message_start", json!({"message": {"id": "m", "model": "c", "usage": usage}}));
            if matches!(said, Said::Usage(..)) {
                return out;
            }
        }
        match said {
            Said::Ping => event("ping", json!({})),
            Said::Usage(input, output) => event("message_delta", json!({"usage": told((*input, *output))})),
            Said::Finish(usage) => {
                let mut end = json!({"delta": {"stop_reason": "end_turn"}});
                if let Some(usage) = usage {
                    end["usage"] = told(*usage);
                }
                event("message_delta", end);
            }
            Said::Piece { kind, text, begins, .. } => {
                if *begins {
                    self.index += 1;
                    let block = match kind {
                        Kind::Thought => json!({"type": "thinking", "thinking": ""}),
                        Kind::Arguments => {
                            json!({"type": "tool_use", "id": format!("t{}", self.index), "name": "f", "input": {}})
                        }
                        _ => json!({"type": "text", "text": ""}),
                    };
                    event("content_block_start", json!({"index": self.index, "content_block": block}));
                }
                let delta = match kind {
                    Kind::Thought => json!({"type": "thinking_delta", "thinking": text}),
                    Kind::Arguments => json!({"type": "input_json_delta", "partial_json": text}),
                    _ => json!({"type": "text_delta", "text": text}),
                };
                event("content_block_delta", json!({"index": self.index, "delta": delta}));
            }
        }
        out
    }
}

fn response_event(said: &Said) -> String {
    let usage = |(input, output): (u64, u64)| json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    let (kind, mut fields) = match said {
        Said::Ping => ("response.output_text.done", json!({"text": ""})),
        Said::Usage(input, output) => (
            "response.in_progress",
            json!({"response": {"id": "r", "status": "in_progress", "usage": usage((*input, *output))}}),
        ),
        Said::Finish(told) => (
            "response.completed",
            json!({"response": {"id": "r", "status": "completed", "output": [], "usage": told.map(usage)}}),
        ),
        Said::Piece { kind, text, .. } => {
            let kind = match kind {
                Kind::Text => "response.output_text.delta",
                Kind::Thought => "response.reasoning_text.delta",
                Kind::Refusal => "response.refusal.delta",
                Kind::Arguments => "response.function_call_arguments.delta",
            };
            (kind, json!({"delta": text}))
        }
    };
    fields["type"] = kind.into();
    format!("event: {kind}\ndata: {fields}\n\n")
}

/// What is certain of the bill of what was sent.
#[derive(Debug, Default)]
struct Certain {
    /// The largest counts that were told.
    input: u64,
    output: u64,
    any: bool,
    /// What was told last came after all content, and nothing that was told before was more.
    is_final: bool,
    /// Some content came.
    content: bool,
}

impl Certain {
    fn of(events: &[Said], form: Form) -> Self {
        let mut certain = Self::default();
        for said in events {
            let told = match said {
                Said::Usage(input, output) => Some((*input, *output)),
                Said::Finish(usage) => *usage,
                // In these formats nothing is told beside content.
                Said::Piece { usage, .. } if matches!(form, Form::Chat | Form::Completions) => *usage,
                Said::Piece { .. } | Said::Ping => None,
            };
            let before = certain.output;
            if matches!(said, Said::Piece { .. }) {
                certain.content = true;
                // It counts the content beside it if it is more than what was told without it.
                certain.is_final = told.is_some_and(|(_, output)| output > before);
            } else if let Some((_, output)) = told {
                let is_counted = output > 0 || !certain.any || !certain.content;
                // A response that is in progress says itself that more is to come.
                let goes_on = form == Form::Responses && matches!(said, Said::Usage(..));
                certain.is_final = !goes_on && (certain.is_final || is_counted);
            }
            if let Some((input, output)) = told {
                certain.any = true;
                certain.input = certain.input.max(input);
                certain.output = certain.output.max(output);
            }
        }
        certain
    }
}

fn config() -> Rc<Config> {
    let config = json!({
        "providers": {"p": {"host": "h", "api_key": "$KEY", "models": {"*": {"name": "*", "price": {"input": 1, "output": 3}}}}},
        "routes": [
            {"name": "chat", "match": {"path": "/v1/chat/completions"}, "providers": ["p"]},
            {"name": "text", "match": {"path": "/v1/completions"}, "providers": ["p"]},
            {"name": "responses", "match": {"path": "/v1/responses"}, "providers": ["p"]},
        ],
        "budgets": [{"name": "all", "match": {}, "limit": 1_000_000, "per": "day"}],
    });
    let key = |_: &str| Some("sk-key".to_owned());
    Rc::new(Config::parse(&config.to_string(), &key).unwrap_or_else(|problems| panic!("{problems}")))
}

fn asked(random: &mut fastrand::Rng, form: Form, stream: bool) -> Asked {
    Asked {
        endpoint: form.endpoint(),
        stream,
        usage: random.bool(),
        release: Release::FirstToken,
        wire: if form == Form::Messages { Wire::Anthropic } else { Wire::OpenAi },
        defaults: Defaults {
            served: Served::default(),
            id: "i".to_owned(),
            created: 1,
            model: "m".to_owned(),
            input: Rc::new(Input::with_tokens(7)),
        },
        key: ApiKey::new("Bearer ", "0123456789abcdef").unwrap(),
    }
}

fn request(form: Form, text: &str) -> Vec<u8> {
    let body = match form {
        Form::Chat | Form::Messages => {
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]})
        }
        Form::Completions => json!({"model": "m", "stream": true, "prompt": text}),
        Form::Responses => json!({"model": "m", "stream": true, "input": text}),
    };
    body.to_string().into_bytes()
}

/// One request: its stream up to `until` events, and then the provider's end, or the client's.
fn check(seed: u64, samples: &[Sample], config: &Rc<Config>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let form = *pick(&mut random, &Form::ALL);
    let Answer { events, tokens } = answer(&mut random, samples, form);
    let until = if random.bool() { events.len() } else { random.usize(..=events.len()) };
    let gone = random.u8(..4) == 0;
    let prompt = pick(&mut random, samples);
    let mut writer = Writer { form, index: 0, begun: false };
    let mut bytes: Vec<u8> =
        events[..until].iter().flat_map(|said| writer.write(said).into_bytes()).collect();
    if until == events.len() && random.bool() {
        bytes.extend_from_slice(b"data: [DONE]\n\n");
    }

    let body = Body::read(request(form, &prompt.text), form.endpoint(), &[]).unwrap();
    let head = RequestHead { path: form.path().to_owned(), complete: false, policy: None };
    let mut exchange = Exchange::new(Rc::clone(config), &head, body, |_| true).unwrap();
    let (mut store, mut ledger) = (Memory::default(), Ledger::default());
    let mut own = fastrand::Rng::with_seed(1);
    let mut env = Env { now: NOW, store: &mut store, random: &mut own, ledger: &mut ledger };
    let start = exchange.start(&mut env).unwrap_or_else(|reply| panic!("{reply:?}"));
    exchange.begin(&start.provider, || NOW).unwrap();
    let mut watch = Watch::new(&Head { status: 200, retry_after: None }, asked(&mut random, form, true));
    let (mut released, mut over, mut held) = (false, false, 0);
    let size = [7, 300, 1 << 20][random.usize(..3)];
    let mut pieces: Vec<(&[u8], bool)> = bytes.chunks(size).map(|piece| (piece, false)).collect();
    if !gone {
        pieces.push((b"", true));
    }
    for (piece, end) in pieces {
        if released {
            let ended = watch.relay(piece, end, "p").ended;
            exchange.progress(watch.tally(), || NOW);
            if let Some(outcome) = ended {
                exchange.ended(outcome, &mut env).unwrap();
                over = true;
                break;
            }
            continue;
        }
        held += piece.len();
        let Step::Judged(judged) = watch.withhold(piece, end, held, MAX_HELD) else { continue };
        let is_over = end || watch.is_closed();
        exchange.progress(watch.tally(), || NOW);
        let is_answered = judged.verdict.outcome == Outcome::Answered;
        exchange.judge(judged.verdict, false, is_over, &mut env).unwrap();
        if !is_answered {
            over = true;
            break;
        }
        watch.release(end, "p");
        released = true;
        if is_over {
            over = true;
            break;
        }
    }
    let facts = exchange.finish(End { gone: gone && !over, replied: None }, &mut env);

    let certain = Certain::of(&events[..until], form);
    let about =
        || format!("seed {seed}: {form:?}, {until} of {} events, gone {gone}, {certain:?}", events.len());
    let bill = facts.attempts.last().and_then(|attempt| attempt.bill.clone());
    let written = until.checked_sub(1).map_or(0, |last| tokens[last]);
    let Some(bill) = bill else {
        assert!(!certain.content, "{}: it is billed nothing", about());
        return;
    };
    let usage = bill.usage;
    if certain.content {
        assert!(usage.input >= certain.input && usage.output >= certain.output, "{}: {usage:?}", about());
    }
    if certain.content && certain.is_final {
        assert_eq!(bill.source, Source::Reported, "{}", about());
        assert_eq!((usage.input, usage.output), (certain.input, certain.output), "{}", about());
    } else if certain.content {
        assert!(usage.output * 2 >= written, "{}: {usage:?}, but {written} were written", about());
        let input = if certain.input > 0 { certain.input } else { prompt.tokens / 2 };
        assert!(usage.input >= input, "{}: {usage:?}, but {input} were asked", about());
    }
    let cost = bill.cost.unwrap().as_pico();
    assert_eq!(cost, usage.input * 1_000_000 + usage.output * 3_000_000, "{}", about());
    let budget = &config.budgets[0];
    let owner = budget.owner(Subject::default()).unwrap();
    let standing = budget.standing(owner, NOW, &mut store);
    assert_eq!((standing.spent_pico, standing.reserved_pico), (cost, 0), "{}", about());
}

#[test]
fn no_request_costs_less_than_what_was_said_or_than_half_of_what_its_text_has() {
    let (samples, config) = (samples(), config());
    if let Some(seed) = number_of("SHUNT_SEED") {
        return check(seed, &samples, &config);
    }
    let cases = 500 * number_of("SHUNT_FUZZ").unwrap_or(1);
    (0..cases).for_each(|seed| check(seed, &samples, &config));
    println!("{cases} requests");
}
