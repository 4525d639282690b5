//! The sum of the budgets is the sum of the records, to the pico-dollar, whatever providers tell and however requests end.
//!
//! Each world has a random configuration (prices, budgets, policies) and random requests, several of which are under way at once. Every
//! request ends in a random way. Then each budget must have spent what the records say of the attempts that it covers, and nothing may
//! be reserved. `SHUNT_FUZZ=1000` runs a thousand times as many requests (`make fuzz`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{json, Map, Value};
use shunt::base::clock::Timestamp;
use shunt::base::store::{fingerprint, Memory};
use shunt::client_api::request::{Body, Endpoint, Head};
use shunt::config::Config;
use shunt::exchange::{End, Exchange, Next, NotBegun, Pass, Refused};
use shunt::health::outcome::{Doubt, ErrorBody, Outcome, Verdict};
use shunt::relay::{FinishedTry, Try};
use shunt::selection::ledger::Ledger;
use shunt::selection::plan::Env;
use shunt::spend::budget::{Budget, Owner, Subject};
use shunt::spend::usage::{Calls, Details, Served, Source, Tally, Usage};

/// How many requests `cargo test` sends.
const REQUESTS: usize = 3000;
/// How many requests a world gets.
const IN_A_WORLD: usize = 60;
/// The most requests that are under way at once.
const AT_ONCE: usize = 8;

/// 2026-11-16T00:00:00Z, a Monday. The requests of a world are over on the same day.
const START: Timestamp = Timestamp::from_millis(1_794_787_200_000);
const HOUR: u64 = 3_600_000;

const PROVIDERS: [&str; 4] = ["a", "b", "c", "d"];
const TENANTS: [&str; 4] = ["", "team-a", "team-b", "team-c"];
const ROUTES: [(&str, &str, Endpoint); 4] = [
    ("chat", "/v1/chat/completions", Endpoint::Chat),
    ("text", "/v1/completions", Endpoint::Completions),
    ("responses", "/v1/responses", Endpoint::Responses),
    ("embeddings", "/v1/embeddings", Endpoint::Embeddings),
];

// The configuration.

fn one_of<'a, T>(random: &mut Rng, all: &'a [T]) -> &'a T {
    &all[random.usize(..all.len())]
}

/// A price with six decimals, now and then with all of them.
fn rate(random: &mut Rng, most: u64) -> Value {
    json!(random.u64(..most * 1_000_000) as f64 / 1e6)
}

fn rates(random: &mut Rng) -> Map<String, Value> {
    let mut rates = Map::new();
    for key in ["input", "output"] {
        rates.insert(key.to_owned(), rate(random, 200));
    }
    for key in ["cached_input", "cache_write", "reasoning", "cache_write_1h", "audio_input", "audio_output"] {
        if random.bool() {
            rates.insert(key.to_owned(), rate(random, 200));
        }
    }
    rates
}

fn price(random: &mut Rng) -> Value {
    let mut price = rates(random);
    if random.u8(..3) == 0 {
        price.insert("request".to_owned(), json!(random.u64(..1_000_000) as f64 / 1e12));
    }
    if random.bool() {
        let mut tier = rates(random);
        tier.insert("tokens".to_owned(), json!(random.u64(1..100_000)));
        price.insert("above".to_owned(), json!([tier]));
    }
    if random.u8(..3) == 0 {
        let (from, multiply) = (random.u8(..23), random.u64(..3_000_000) as f64 / 1e6);
        let window = json!({"from": format!("{from:02}:00"), "to": format!("{:02}:30", from + 1), "multiply": multiply});
        price.insert("windows".to_owned(), json!([window]));
    }
    if random.bool() {
        let fee = random.u64(..1_000_000) as f64 / 1e6;
        price.insert("calls".to_owned(), json!({"web_search": fee, "file_search": fee / 2.0}));
        price.insert("service_tiers".to_owned(), json!({"flex": 0.5, "priority": 2}));
    }
    if random.u8(..8) == 0 {
        price.insert("from".to_owned(), json!("2026-11-17"));
    }
    Value::Object(price)
}

fn budget(random: &mut Rng, place: usize) -> Value {
    let mut matching = Map::new();
    let mut choose = |key: &str, values: &[&str], random: &mut Rng| {
        if random.u8(..3) == 0 {
            matching.insert(key.to_owned(), json!(one_of(random, values)));
        }
    };
    choose("tenant", &["*", "team-a", "team-b"], random);
    choose("route", &["*", "chat", "responses"], random);
    choose("provider", &["*", "a", "b"], random);
    choose("model", &["*", "m-a", "m-*"], random);
    let is_about_candidates = matching.contains_key("provider") || matching.contains_key("model");
    let actions: &[&str] = if is_about_candidates {
        &["block", "skip", "cheapest", "alert"]
    } else {
        &["block", "cheapest", "alert"]
    };
    let limit = one_of(random, &[0.0, 0.000_001, 0.01, 1.0, 50.0, 10_000.0]);
    let mut budget = json!({
        "name": format!("b{place}"),
        "match": matching,
        "limit": limit,
        "per": one_of(random, &["day", "month"]),
        "when_spent": one_of(random, actions),
        "background": if random.u8(..6) == 0 { "refuse" } else { "allow" },
    });
    if matching_each(&budget) && random.bool() {
        budget["slots"] = json!(random.u64(1..20));
    }
    budget
}

fn matching_each(budget: &Value) -> bool {
    budget["match"].as_object().unwrap().values().any(|value| value == "*")
}

fn config(random: &mut Rng) -> Config {
    let mut providers = Map::new();
    for name in PROVIDERS {
        let mut model = json!({"name": format!("m-{name}")});
        if random.u8(..5) > 0 {
            model["price"] = price(random);
        }
        providers
            .insert(name.to_owned(), json!({"host": "h", "api_key": "$KEY", "models": {"assistant": model}}));
    }
    let mut routes = Vec::new();
    for (name, path, endpoint) in ROUTES {
        let mut order = PROVIDERS.to_vec();
        random.shuffle(&mut order);
        order.truncate(random.usize(1..=4));
        let policy = one_of(random, &["priority", "cost", "latency", "balanced", "weighted"]);
        let policy = if *policy == "weighted" {
            let weights: Map<String, Value> =
                order.iter().map(|name| ((*name).to_owned(), json!(random.u32(1..9)))).collect();
            json!({"type": "weighted", "weights": weights})
        } else {
            json!({"type": policy})
        };
        let mut route = json!({"name": name, "match": {"path": path}, "providers": order, "policy": policy});
        if endpoint == Endpoint::Chat {
            let limit = one_of(random, &[0.000_001, 1.0, 1000.0]);
            route["shadow"] =
                json!({"provider": one_of(random, &PROVIDERS), "share": 0.5, "limit": limit, "per": "day"});
        }
        routes.push(route);
    }
    let document = json!({
        "providers": providers,
        "routes": routes,
        "tenant": {"header": "x-tenant"},
        "breaker": {"consecutive_failures": random.u32(1..20), "open": "100ms"},
        "retry": {"attempts": random.u32(1..6), "same_provider": random.u32(..3)},
        "budgets": (0..random.usize(..7)).map(|place| budget(random, place)).collect::<Vec<Value>>(),
    });
    let parsed = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
    parsed.unwrap_or_else(|problems| panic!("{problems}\n{document}"))
}

// What providers tell.

fn count(random: &mut Rng) -> u64 {
    let most = *one_of(random, &[2, 50, 5000, 2_000_000]);
    random.u64(..most)
}

fn tally(random: &mut Rng) -> Tally {
    let [input, cached, cache_write, output, reasoning] = [(); 5].map(|()| count(random));
    let [cache_write_1h, audio_input, audio_output] = [(); 3].map(|()| count(random));
    let calls = Calls {
        web_search: random.u32(..3),
        file_search: random.u32(..3),
        code_interpreter: 0,
        image_generation: random.u32(..2),
    };
    let details = if random.bool() {
        Details { cache_write_1h, audio_input, audio_output, calls }
    } else {
        Details::default()
    };
    let usage = Usage { input, cached, cache_write, output, reasoning, details };
    let mut name = |names: &[&str]| random.bool().then(|| Rc::from(*one_of(random, names)));
    let served =
        Served { model: name(&["m-a", "m-b", "m-other"]), tier: name(&["flex", "default", "unheard-of"]) };
    let estimated_output = count(random);
    Tally {
        usage: random.bool().then_some(usage),
        estimated_output,
        begun: estimated_output > 0,
        stored: if random.bool() { fingerprint([&*format!("resp_{}", random.u8(..4))]) } else { 0 },
        queued: random.u8(..10) == 0,
        uncounted: random.u8(..4) == 0,
        calls,
        served,
        ..Tally::default()
    }
}

fn failure(random: &mut Rng) -> Verdict {
    let outcomes: Vec<Outcome> =
        Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Answered).collect();
    let outcome = *one_of(random, &outcomes);
    let status = *one_of(random, &[None, Some(200), Some(400), Some(409), Some(429), Some(503)]);
    let doubt = (outcome == Outcome::BadRequest && random.bool())
        .then(|| Doubt { code: "odd".to_owned(), others_may_accept: random.bool() });
    let retry_after = (random.u8(..4) == 0).then(|| Duration::from_millis(random.u64(..2000)));
    Verdict { doubt, retry_after, ..Verdict::certain(outcome, status) }
}

const ANSWERED: Verdict = Verdict::certain(Outcome::Answered, Some(200));

// One request.

/// Who moves the request from one provider to the next.
enum Way {
    /// Envoy, or the filter itself.
    Asked,
    /// nginx, through this plan.
    Moved(Vec<String>),
}

struct Live {
    exchange: Exchange,
    way: Way,
    tenant: &'static str,
    route: &'static str,
}

/// The amounts of the records, by what the attempts were for. Shadows have budgets of their own.
type Billed = BTreeMap<(bool, &'static str, &'static str, String, String), i128>;

struct World {
    config: Rc<Config>,
    shadow: Rc<Config>,
    store: Memory,
    ledger: Ledger,
    random: Rng,
    now: Timestamp,
    billed: Billed,
    /// How many requests of each kind of end there were.
    ends: BTreeMap<String, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let config = config(&mut random);
        Self {
            shadow: Rc::new(config.for_shadow()),
            config: Rc::new(config),
            store: Memory::default(),
            ledger: Ledger::default(),
            random,
            now: START,
            billed: Billed::new(),
            ends: BTreeMap::new(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Env<'_>, &mut Rng) -> T) -> T {
        let mut draws = self.random.fork();
        let (store, ledger) = (&mut self.store, &mut self.ledger);
        work(&mut Env { now: self.now, store, random: &mut draws, ledger }, &mut self.random)
    }

    fn body(random: &mut Rng, endpoint: Endpoint) -> Value {
        let mut body = json!({"model": "assistant", "stream": random.bool()});
        let prompts = [json!("a"), json!(["a", "b", "c"]), json!([1, 2])];
        match endpoint {
            Endpoint::Chat => body["messages"] = json!([{"role": "user", "content": "Hello, how are you?"}]),
            Endpoint::Completions => body["prompt"] = one_of(random, &prompts).clone(),
            Endpoint::Responses => {
                body["input"] = json!("hi");
                body["background"] = json!(random.bool());
            }
            Endpoint::Embeddings => body["input"] = json!(["a", "b"]),
        }
        for key in ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"] {
            if random.u8(..4) == 0 {
                body[key] = json!(count(random));
            }
        }
        body
    }

    /// A request that has begun, unless the gateway has answered it.
    fn begin(&mut self) -> Option<Live> {
        let (route, path, endpoint) = *one_of(&mut self.random, &ROUTES);
        let tenant = *one_of(&mut self.random, &TENANTS);
        let is_shadow = endpoint == Endpoint::Chat && self.random.u8(..4) == 0;
        let config = Rc::clone(if is_shadow { &self.shadow } else { &self.config });
        let (mut exchange, route) = if !is_shadow && self.random.u8(..4) == 0 {
            // Now and then it reads a response that was written in the background.
            let path = format!("/v1/responses/resp_{}", self.random.u8(..4));
            let pass = Pass { method: "GET".to_owned(), path };
            (Exchange::passing(config, self.config.routes[0].providers[0], pass), "passthrough")
        } else {
            let body = Self::body(&mut self.random, endpoint).to_string();
            let body = Body::read(body.into_bytes(), endpoint, &config.parameters).unwrap();
            let head = Head { path: path.to_owned(), complete: self.random.bool(), policy: None };
            (Exchange::new(config, &head, body, |_| true).unwrap(), route)
        };
        exchange.set_tenant(tenant.to_owned());
        let is_moved = self.random.u8(..3) == 0;
        if is_moved {
            exchange.never_wait();
        }
        let started = self.with(|env, _| exchange.start(env).map_err(|reply| reply.status));
        let way = if is_moved { Way::Moved(self.with(|env, _| exchange.line_up(env))) } else { Way::Asked };
        let live = Live { exchange, way, tenant, route };
        match started {
            Ok(_) => Some(live),
            Err(status) => {
                self.finish(live, End { gone: false, replied: Some(status) });
                None
            }
        }
    }

    /// Lets the next thing happen to a request. `None`: it is over, and was recorded.
    fn step(&mut self, mut live: Live) -> Option<Live> {
        let end = match &mut live.way {
            _ if live.exchange.is_over() => Some(End { gone: false, replied: Some(503) }),
            Way::Asked => self.with(|env, random| asked(&mut live.exchange, env, random)),
            Way::Moved(plan) => self.with(|env, random| moved(&mut live.exchange, plan, env, random)),
        };
        match end {
            Some(end) => {
                self.finish(live, end);
                None
            }
            None => Some(live),
        }
    }

    /// The record of a request is written.
    fn finish(&mut self, mut live: Live, end: End) {
        let mut records = Vec::new();
        let mut sum = 0;
        let (mut corrected, mut correction) = (None, 0);
        let is_shadow;
        {
            let mut draws = self.random.fork();
            let (store, ledger) = (&mut self.store, &mut self.ledger);
            let mut env = Env { now: self.now, store, random: &mut draws, ledger };
            let facts = live.exchange.finish(end, &mut env);
            is_shadow = facts.is_shadow;
            let record: Value = serde_json::from_str(&facts.record()).unwrap();
            let attempts = record["attempts"].as_array().unwrap();
            for (attempt, told) in facts.attempts.iter().zip(attempts) {
                let cost = told["cost_usd"].as_str().map_or(0, pico);
                sum += cost;
                records.push((attempt.provider.to_owned(), attempt.model.to_owned(), cost));
                if let Some(bill) = &attempt.bill {
                    assert_eq!(bill.cost.map_or(0, |cost| i128::from(cost.as_pico())), cost);
                    assert_eq!(bill.source == Source::Reported, told["usage"]["source"] == "reported");
                }
            }
            if let Some(total) = record["cost_usd"].as_str() {
                assert_eq!(pico(total), sum, "{record}");
            }
            if let Some(told) = record.get("corrects") {
                let text = |name: &str| told[name].as_str().unwrap().to_owned();
                let more = pico(&text("cost_usd")) - pico(&text("in_place_of_usd"));
                let known = |all: &[&'static str], name| {
                    let name = text(name);
                    all.iter().copied().find(|known| *known == name).unwrap()
                };
                let (tenant, route) =
                    (known(&TENANTS, "tenant"), known(&ROUTES.map(|(name, ..)| name), "route"));
                corrected = Some((false, tenant, route, text("provider"), text("model")));
                correction = more;
                *self.ends.entry("corrected".to_owned()).or_default() += 1;
            }
            *self.ends.entry(facts.outcome.to_owned()).or_default() += 1;
        }
        if let Some(corrected) = corrected {
            *self.billed.entry(corrected).or_default() += correction;
        }
        for (provider, model, cost) in records {
            *self.billed.entry((is_shadow, live.tenant, live.route, provider, model)).or_default() += cost;
        }
    }

    /// All requests are over: each budget has spent what the records say.
    fn check(&mut self, seed: u64) {
        for (is_shadow, config) in [(false, Rc::clone(&self.config)), (true, Rc::clone(&self.shadow))] {
            for budget in &config.budgets {
                let billed = self.billed.iter().filter(|((shadow, ..), _)| *shadow == is_shadow);
                let covered = billed.filter(|((_, tenant, route, provider, model), _)| {
                    budget.owner(Subject { tenant, route, provider, model }).is_some()
                });
                let expected: i128 = covered.map(|(_, cost)| *cost).sum();
                let (spent, reserved) = self.sums(budget);
                assert_eq!(
                    (spent, reserved),
                    (expected, 0),
                    "budget {} of the world with the seed {seed}",
                    budget.name
                );
            }
        }
    }

    /// What all owners of a budget have spent and reserved.
    fn sums(&mut self, budget: &Budget) -> (i128, i128) {
        let mut owners: Vec<Owner> = Vec::new();
        for tenant in TENANTS {
            for route in ["chat", "text", "responses", "embeddings", "passthrough"] {
                for provider in PROVIDERS {
                    for model in [&format!("m-{provider}"), ""] {
                        let owner = budget.owner(Subject { tenant, route, provider, model });
                        owners.extend(owner.filter(|owner| !owners.contains(owner)));
                    }
                }
            }
        }
        let standings: Vec<_> =
            owners.into_iter().map(|owner| budget.standing(owner, self.now, &mut self.store)).collect();
        let shared = standings.iter().find(|standing| standing.overflow);
        let own = standings.iter().filter(|standing| !standing.overflow);
        own.chain(shared).fold((0, 0), |(spent, reserved), standing| {
            (spent + i128::from(standing.spent_pico), reserved + i128::from(standing.reserved_pico))
        })
    }
}

/// Where Envoy, or the filter itself, asks one provider after the other. Returns how the request ends, if it does.
fn asked(exchange: &mut Exchange, env: &mut Env<'_>, random: &mut Rng) -> Option<End> {
    let now = env.now;
    if random.u8(..40) == 0 {
        // The client leaves, or the gateway answers.
        let gone = random.bool();
        return Some(End { gone, replied: (!gone && random.bool()).then_some(504) });
    }
    if let Some(provider) = exchange.awaited().map(str::to_owned) {
        match random.u8(..20) {
            0 => exchange.abandon(env).unwrap(),
            1 => {
                let misrouted = exchange.begin("elsewhere", || now);
                assert!(matches!(misrouted, Err(NotBegun::Misrouted(_))));
                exchange.misrouted(env).unwrap();
            }
            _ => exchange.begin(&provider, || now).unwrap(),
        }
        return None;
    }
    if exchange.is_delivered() {
        return deliver(exchange, env, random);
    }
    match random.u8(..10) {
        0 => exchange.progress(tally(random), || now),
        _ if exchange.pass().is_some() => {
            exchange.passed(*one_of(random, &[200, 404, 500]), env).unwrap();
            read(exchange, env, random);
        }
        1..5 => {
            exchange.progress(tally(random), || now);
            exchange.judge(ANSWERED, false, random.bool(), env).unwrap();
        }
        _ => {
            exchange.progress(tally(random), || now);
            let next = exchange.judge(failure(random), random.bool(), true, env).unwrap().next;
            if exchange.wants_refusal() {
                let error = ErrorBody::default();
                exchange
                    .keep_refusal(Refused { status: 400, body: b"{}", error: &error, request_id: None }, "");
            }
            assert!(!matches!(next, Next::Retry { .. }) || exchange.awaited().is_some());
        }
    }
    None
}

/// The client reads a response that was written in the background, if it is finished.
fn read(exchange: &mut Exchange, env: &mut Env<'_>, random: &mut Rng) {
    if exchange.reads_queued(env) {
        let status = *one_of(random, &["completed", "incomplete", "in_progress", "cancelled"]);
        let usage = json!({"input_tokens": count(random), "output_tokens": count(random)});
        let response = json!({"status": status, "output": [], "usage": usage});
        exchange.read_response(response.to_string().as_bytes(), env);
    }
}

/// An answer is on its way to the client.
fn deliver(exchange: &mut Exchange, env: &mut Env<'_>, random: &mut Rng) -> Option<End> {
    let now = env.now;
    match random.u8(..6) {
        0 => return Some(End { gone: random.bool(), replied: None }),
        1 | 2 => exchange.progress(tally(random), || now),
        _ => {
            let outcomes = [
                Outcome::Answered,
                Outcome::Answered,
                Outcome::Truncated,
                Outcome::Garbled,
                Outcome::ClientGone,
                Outcome::Refused,
            ];
            exchange.ended(*one_of(random, &outcomes), env).unwrap();
        }
    }
    None
}

/// Where nginx moves the request through the plan, and tells of it afterwards.
fn moved(
    exchange: &mut Exchange,
    plan: &mut Vec<String>,
    env: &mut Env<'_>,
    random: &mut Rng,
) -> Option<End> {
    let now = env.now;
    if exchange.is_delivered() {
        if random.u8(..8) == 0 {
            let outcome = *one_of(random, &[Outcome::Truncated, Outcome::ClientGone]);
            exchange.broke_off(outcome, env);
            return None;
        }
        return deliver(exchange, env, random);
    }
    let took = Duration::from_millis(random.u64(..500));
    if plan.is_empty() || random.u8(..12) == 0 {
        // Whoever was tried last has failed, or the client left.
        if random.bool() {
            exchange.broke_off(Outcome::ClientGone, env);
        }
        return Some(End { gone: random.bool(), replied: None });
    }
    let provider = plan.remove(0);
    let verdict = failure(random);
    match random.u8(..4) {
        0 | 1 => {
            let report = Try { provider, verdict, next: None };
            let is_misrouted = random.u8(..8) == 0;
            exchange.tried_by_gateway(FinishedTry { report, took, is_reported: true, is_misrouted }, env);
        }
        2 => {
            exchange.taken_up(&provider, took, env);
            if exchange.pass().is_some() {
                exchange.passed(200, env).unwrap();
                read(exchange, env, random);
                return None;
            }
            exchange.progress(tally(random), || now);
            exchange.judge(ANSWERED, false, random.u8(..4) == 0, env).unwrap();
        }
        _ => {
            let outcome = *one_of(random, &[Outcome::BadRequest, Outcome::Refused, Outcome::TooLong]);
            exchange.taken_up(&provider, took, env);
            exchange.progress(tally(random), || now);
            let by_status = Verdict { outcome, ..verdict.clone() };
            exchange.deliver_refusal(&provider, by_status.clone(), took, env)?;
            match random.u8(..4) {
                0 | 1 => drop(exchange.refusal_read(by_status, env)),
                // The body says something else: it is about the account, for example.
                2 => drop(exchange.refusal_read(verdict, env)),
                _ => {
                    let outcome = *one_of(random, &[Outcome::Truncated, Outcome::ClientGone]);
                    exchange.broke_off(outcome, env);
                }
            }
        }
    }
    None
}

/// An amount in USD, as a record writes it, in pico-dollars.
fn pico(text: &str) -> i128 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    assert!(decimals.len() <= 12, "{text}");
    whole.parse::<i128>().unwrap() * 1_000_000_000_000 + format!("{decimals:0<12}").parse::<i128>().unwrap()
}

/// Sends the requests of one world, several at once. Returns how they ended.
fn run(seed: u64) -> BTreeMap<String, u64> {
    let mut world = World::new(seed);
    let mut live: Vec<Live> = Vec::new();
    let mut left = IN_A_WORLD;
    while left > 0 || !live.is_empty() {
        if left > 0 && (live.is_empty() || (live.len() < AT_ONCE && world.random.bool())) {
            left -= 1;
            live.extend(world.begin());
        } else {
            let place = world.random.usize(..live.len());
            let next = live.swap_remove(place);
            live.extend(world.step(next));
        }
        // Now and then so long that a reservation lapses, but never into the next day.
        let passes = if world.random.u16(..500) == 0 { 2 * HOUR } else { world.random.u64(..2000) };
        let later = world.now.after(Duration::from_millis(passes));
        if later.since(START) < Duration::from_millis(23 * HOUR) {
            world.now = later;
        }
    }
    world.check(seed);
    world.ends
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own switches")]
fn the_sum_of_the_budgets_is_the_sum_of_the_records() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SHUNT_SEED") {
        run(seed);
        return;
    }
    let requests = REQUESTS as u64 * number("SHUNT_FUZZ").unwrap_or(1);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..requests.div_ceil(IN_A_WORLD as u64) {
        for (end, count) in run(seed) {
            *ends.entry(end).or_default() += count;
        }
    }
    println!("{requests} requests: {ends:?}");
    for end in
        ["corrected", "answered", "failed", "truncated", "client_gone", "rejected", "bad_request", "too_long"]
    {
        assert!(ends.contains_key(end), "no request was {end}: {ends:?}");
    }
}
