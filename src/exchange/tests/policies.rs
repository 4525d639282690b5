//! Requests in the order of their policy: who is asked, what the client and the record are told, and what is kept of it.

use super::*;
use crate::base::store::{Swap, Version};
use crate::spend::usage::Tally;

/// 2026-11-21T10:34:56Z, a Saturday.
pub(super) const TEN: Timestamp = Timestamp::from_millis(1_795_257_296_000);
const STAYED: End = End { gone: false, replied: None };

/// A world whose route has this policy, and whose providers have these prices (none: unknown).
fn world(policy: &Value, prices: [Value; 3]) -> World {
    let model =
        |price: Value| if price.is_null() { json!("m") } else { json!({"name": "m", "price": price}) };
    world_of(policy, prices.map(model))
}

/// A world whose route has this policy, and whose providers have these models.
pub(super) fn world_of(policy: &Value, models: [Value; 3]) -> World {
    let mut providers = json!({});
    for (name, model) in ALL.into_iter().zip(models) {
        providers[name] =
            json!({"host": "h", "api_key": "$KEY", "region": name, "models": {"assistant": model, "*": "*"}});
    }
    let route = json!({"name": "chat", "match": {"path": PATH}, "providers": ALL, "policy": policy});
    let mut world = World::with(&json!({
        "providers": providers, "routes": [route], "tenant": {"header": "x-tenant"},
        "evaluations": {"path": "/v1/scores", "token": "$KEY"},
    }));
    world.now = TEN;
    world
}

fn unpriced() -> [Value; 3] {
    [Value::Null, Value::Null, Value::Null]
}

/// Costs so much for a million tokens, whatever they are.
fn flat(usd: f64) -> Value {
    json!({"input": usd, "output": usd})
}

impl World {
    fn plan_with(&self, policy: Option<&str>, body: &Value) -> Result<Exchange, Rejection> {
        let body = body.to_string();
        let head = Head { path: PATH.to_owned(), complete: false, policy: policy.map(str::to_owned) };
        let body = Body::read(body.as_bytes(), Endpoint::Chat, &self.config.parameters).unwrap();
        Exchange::new(Rc::clone(&self.config), &head, body, |_| true)
    }

    pub(super) fn asked_for(&self, policy: Option<&str>, stream: bool) -> Exchange {
        self.plan_with(
            policy,
            &json!({"model": "assistant", "stream": stream, "max_tokens": 1000, "messages": []}),
        )
        .unwrap()
    }

    /// The record of a request that is answered by whoever is asked first, after so many milliseconds.
    fn answered(&mut self, exchange: Exchange, after: u64) -> Value {
        self.answered_by(exchange, |_| after)
    }

    /// The same, if each provider takes its time.
    pub(super) fn answered_by(&mut self, mut exchange: Exchange, speed: impl Fn(&str) -> u64) -> Value {
        let start = exchange.start(&mut self.env()).unwrap();
        exchange.begin(&start.provider, || self.now).unwrap();
        self.advance(Duration::from_millis(speed(&start.provider)));
        let tally = Tally { begun: true, estimated_output: 3, ..Tally::default() };
        exchange.progress(tally, || self.now);
        self.judge(&mut exchange, verdict(Outcome::Answered));
        if !exchange.is_over() {
            exchange.ended(Outcome::Answered, &mut self.env()).unwrap();
        }
        serde_json::from_str(&exchange.finish(STAYED, &mut self.env()).record()).unwrap()
    }

    /// The plan of a request that asks for nothing particular.
    fn order(&mut self) -> Vec<String> {
        let exchange = self.asked_for(None, true);
        let record = self.answered(exchange, 100);
        names(&record["plan"])
    }
}

pub(super) fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_cheapest_candidate_is_tried_first_and_the_record_says_why() {
    let mut world = world(&json!({"type": "cost"}), [flat(3.0), Value::Null, flat(1.0)]);
    let exchange = world.asked_for(None, true);
    let record = world.answered(exchange, 100);
    assert_eq!(record["policy"], "cost");
    assert_eq!(names(&record["plan"]), ["three", "one", "two"]);
    let why = &record["why"];
    assert_eq!(why["two"], "unpriced");
    let usd = |name: &str| why[name].as_str().unwrap().strip_suffix(" USD").unwrap().parse::<f64>().unwrap();
    assert!((usd("one") / usd("three") - 3.0).abs() < 1e-9 && usd("three") > 0.001, "{why}");
}

#[test]
fn the_price_of_the_hour_counts() {
    let peak = json!({"input": 2, "output": 2, "windows": [{"from": "10:00", "to": "11:00", "multiply": 5}]});
    let mut world = world(&json!({"type": "cost"}), [peak, flat(3.0), Value::Null]);
    assert_eq!(world.order(), ["two", "one", "three"]);
    world.advance(Duration::from_secs(1800));
    assert_eq!(world.order(), ["one", "two", "three"]);
}

#[test]
fn a_candidate_above_a_cap_is_not_tried_even_if_all_others_fail() {
    let policy = json!({"type": "cost", "max_price": {"output": 2}});
    let mut world = world(&policy, [flat(3.0), flat(1.0), Value::Null]);
    let (asked, last, exchange) = world.run(&[Outcome::Overloaded]);
    assert_eq!((asked, last), (vec!["two".to_owned()], Next::Fail));
    let facts = exchange.so_far(world.now);
    assert_eq!(facts.left_out, [("one", "too_expensive"), ("three", "unpriced")]);
    assert_eq!(facts.plan, ["two"]);
}

#[test]
fn a_request_that_is_too_expensive_everywhere_is_rejected_with_that_reason() {
    let policy = json!({"type": "cost", "max_price": {"request": 0.001}});
    let mut world = world(&policy, [flat(3.0), flat(1.5), Value::Null]);
    let mut exchange = world.asked_for(None, false);
    let reply = exchange.start(&mut world.env()).unwrap_err();
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (400, &json!("price_cap_exceeded")));
    let facts = exchange.finish(End { gone: false, replied: Some(400) }, &mut world.env());
    assert_eq!((facts.outcome, facts.left_out.len(), facts.attempts.len()), ("rejected", 3, 0));
    assert_eq!(facts.time, TEN);
    let short = json!({"model": "assistant", "max_tokens": 100, "messages": []});
    assert!(world.plan_with(None, &short).unwrap().start(&mut world.env()).is_ok(), "a short one is not");
}

#[test]
fn the_fastest_candidate_is_tried_first_once_all_are_measured() {
    let mut world = world(&json!({"type": "latency"}), unpriced());
    let speed = |name: &str| match name {
        "one" => 900,
        "two" => 300,
        _ => 600,
    };
    let mut firsts: Vec<String> = Vec::new();
    let mut last = Value::Null;
    for _ in 0..400 {
        let exchange = world.asked_for(None, true);
        last = world.answered_by(exchange, speed);
        firsts.push(last["provider"].as_str().unwrap().to_owned());
    }
    for name in ALL {
        let count = firsts.iter().filter(|first| *first == name).count();
        assert!(count >= 10, "{name} was tried: {count}");
    }
    assert!(firsts[300..].iter().filter(|first| *first == "two").count() >= 80, "{firsts:?}");
    let why = last["why"]["two"].as_str().unwrap();
    let p95 = why.strip_prefix("p95 ").and_then(|why| why.split(' ').next()).unwrap().parse::<u64>().unwrap();
    assert!((225..=375).contains(&p95), "{why}");
}

#[test]
fn streams_and_whole_answers_are_measured_apart() {
    let mut world = world(&json!({"type": "latency", "explore": 0}), unpriced());
    for _ in 0..60 {
        let exchange = world.asked_for(None, true);
        world.answered_by(exchange, |name| if name == "three" { 100 } else { 5000 });
    }
    let exchange = world.asked_for(None, true);
    assert!(world.answered(exchange, 100)["why"]["three"].as_str().unwrap().starts_with("p95 "));
    let exchange = world.asked_for(None, false);
    let record = world.answered(exchange, 100);
    for name in ALL {
        assert!(record["why"][name].as_str().unwrap().ends_with("0 times"), "{record}");
    }
}

#[test]
fn a_stream_that_its_head_released_is_measured_to_its_first_content_too() {
    let mut world = world(&json!({"type": "latency"}), unpriced());
    let mut why = Value::Null;
    for _ in 0..40 {
        let mut exchange = world.asked_for(None, true);
        let start = exchange.start(&mut world.env()).unwrap();
        let facts: Value = serde_json::from_str(&exchange.so_far(world.now).record()).unwrap();
        why = facts["why"]["one"].clone();
        exchange.begin(&start.provider, || world.now).unwrap();
        let _ = exchange.judge(verdict(Outcome::Answered), false, false, &mut world.env());
        for _ in 0..3 {
            exchange.measure_late(&mut world.env());
            world.advance(Duration::from_millis(400));
            exchange.progress(Tally { begun: true, ..Tally::default() }, || world.now);
        }
        let _ = exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    }
    let p95 = why.as_str().unwrap().split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap();
    assert!((300..=500).contains(&p95), "{why}");
}

#[test]
fn a_stream_is_measured_to_its_first_content_and_a_whole_answer_to_its_end() {
    for (stream, expected) in [(true, 400), (false, 3000)] {
        let mut world = world(&json!({"type": "latency"}), unpriced());
        let mut why = Value::Null;
        for _ in 0..40 {
            let mut exchange = world.asked_for(None, stream);
            let start = exchange.start(&mut world.env()).unwrap();
            let facts: Value = serde_json::from_str(&exchange.so_far(world.now).record()).unwrap();
            why = facts["why"]["one"].clone();
            exchange.begin(&start.provider, || world.now).unwrap();
            world.advance(Duration::from_millis(400));
            exchange.progress(Tally { begun: true, ..Tally::default() }, || world.now);
            world.advance(Duration::from_millis(2600));
            world.judge(&mut exchange, verdict(Outcome::Answered));
        }
        let p95 = why.as_str().unwrap().split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap();
        assert!((expected * 3 / 4..=expected * 5 / 4).contains(&p95), "{stream}: {why}");
    }
}

#[test]
fn the_preferred_region_comes_first_however_slow() {
    let policy = json!({"type": "latency", "prefer": {"regions": ["three"], "providers": ["two"]}});
    let mut world = world(&policy, unpriced());
    for _ in 0..50 {
        let order = world.order();
        assert_eq!(order[2], "one");
    }
}

/// Counts what is asked of it, by the beginning of the key.
#[derive(Default)]
struct Watched {
    inner: Memory,
    latency: usize,
}

impl Store for Watched {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.latency += usize::from(key.starts_with("shunt.latency."));
        self.inner.load(key)
    }
    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        self.latency += usize::from(key.starts_with("shunt.latency."));
        self.inner.compare_and_swap(key, value, version)
    }
}

#[test]
fn times_are_kept_only_where_a_request_may_ask_for_them_and_seldom() {
    for (policy, least, most) in [
        (json!({}), 0, 0),
        (json!({"type": "cost"}), 0, 0),
        (json!({"allow": ["latency"]}), 40, 300),
        (json!({"type": "latency"}), 40, 600),
    ] {
        let mut world = world(&policy, unpriced());
        let mut store = Watched::default();
        for _ in 0..1000 {
            let mut exchange = world.asked_for(None, true);
            let mut env = Env {
                now: world.now,
                store: &mut store,
                random: &mut world.random,
                ledger: &mut world.ledger,
            };
            let provider = exchange.start(&mut env).unwrap().provider;
            exchange.begin(&provider, || world.now).unwrap();
            // A hundred requests a second.
            world.now = world.now.after(Duration::from_millis(10));
            env.now = world.now;
            exchange.progress(Tally { begun: true, ..Tally::default() }, || world.now);
            exchange.judge(verdict(Outcome::Answered), false, false, &mut env).unwrap();
            exchange.ended(Outcome::Answered, &mut env).unwrap();
        }
        assert!((least..=most).contains(&store.latency), "{policy}: {}", store.latency);
    }
}

#[test]
fn a_failed_attempt_is_no_time() {
    let mut world = world(&json!({"type": "latency"}), unpriced());
    let (_, last, mut exchange) = world.run(&[Outcome::Overloaded, Outcome::Overloaded, Outcome::Overloaded]);
    assert_eq!(last, Next::Fail);
    exchange.finish(STAYED, &mut world.env());
    let exchange = world.asked_for(None, false);
    let record = world.answered(exchange, 1);
    for name in ALL {
        assert!(record["why"][name].as_str().unwrap().ends_with("0 times"), "{record}");
    }
}

#[test]
fn weights_share_the_requests_and_a_tenant_stays() {
    let policy = json!({"type": "weighted", "weights": {"one": 3, "two": 1}, "sticky": "tenant"});
    let mut world = world(&policy, unpriced());
    let mut counts = [0; 3];
    for number in 0..400 {
        let tenant = format!("team-{number}");
        let mut arms = Vec::new();
        for _ in 0..2 {
            let mut exchange = world.asked_for(None, true);
            exchange.set_tenant(tenant.clone());
            let record = world.answered(exchange, 1);
            assert_eq!(record["arm"], record["plan"][0]);
            assert_eq!(names(&record["plan"])[2], "three", "without a weight");
            arms.push(record["arm"].as_str().unwrap().to_owned());
        }
        assert_eq!(arms[0], arms[1]);
        counts[ALL.iter().position(|name| *name == arms[0]).unwrap()] += 1;
    }
    assert!((270..330).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    // Without a tenant each request is drawn for itself.
    let firsts: Vec<Vec<String>> = (0..100).map(|_| world.order()).collect();
    assert!(firsts.iter().any(|order| *order != firsts[0]));
}

#[test]
fn clients_with_the_same_header_stay_and_the_arm_is_the_candidate_that_was_drawn() {
    let policy = json!({"type": "weighted", "weights": {"one": 1, "two": 1}, "sticky": {"header": "X-User"}});
    let mut world = world(&policy, unpriced());
    let arm = |world: &mut World, user: &str| {
        let mut exchange = world.asked_for(None, true);
        assert_eq!(exchange.sticky_header().as_deref(), Some("x-user"));
        exchange.stick_to(Some(user.as_bytes().to_vec()));
        world.answered(exchange, 1)
    };
    let record = arm(&mut world, "ada");
    let drawn = record["arm"].as_str().unwrap().to_owned();
    for _ in 0..20 {
        assert_eq!(arm(&mut world, "ada")["arm"], drawn.as_str());
    }
    let others: Vec<Value> = (0..20).map(|user| arm(&mut world, &user.to_string())["arm"].clone()).collect();
    assert!(others.iter().any(|other| *other != drawn.as_str()));
    world.open(&drawn);
    let record = arm(&mut world, "ada");
    assert_eq!(record["arm"], drawn.as_str());
    assert_ne!(record["provider"], drawn.as_str());
    assert_eq!(record["left_out"][&drawn], "open");
}

#[test]
fn a_request_names_a_policy_that_its_route_allows_and_no_other() {
    let mut world = world(&json!({"allow": ["cost"]}), [flat(3.0), flat(1.0), flat(2.0)]);
    for (asked, policy, first) in
        [(None, "priority", "one"), (Some("priority"), "priority", "one"), (Some("cost"), "cost", "two")]
    {
        let mut exchange = world.asked_for(asked, false);
        let provider = exchange.start(&mut world.env()).unwrap().provider;
        exchange.begin(&provider, || TEN).unwrap();
        let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
        assert_eq!(header(&headers, client_headers::POLICY), Some(policy));
        assert_eq!(header(&headers, client_headers::PROVIDER), Some(first));
    }
    for asked in ["latency", "COST", "", "cheapest\r\nx: y"] {
        let body = json!({"model": "assistant", "messages": []});
        let rejection = world.plan_with(Some(asked), &body).unwrap_err();
        assert_eq!((rejection.status, rejection.code), (400, Some("invalid_option")), "{asked:?}");
        assert!(rejection.message.contains("x-shunt-policy") && !rejection.message.contains('\n'));
    }
}

#[test]
fn whatever_the_policy_a_plan_has_every_candidate_once() {
    for policy in [
        json!({}),
        json!({"type": "cost"}),
        json!({"type": "latency"}),
        json!({"type": "weighted", "weights": {"two": 5, "three": 1}}),
        json!({"type": "quality"}),
        json!({"type": "balanced"}),
        json!({"type": "cost", "min_quality": 0.5}),
        json!({"type": "balanced", "min_quality": 0.5, "prefer": {"providers": ["three"]}}),
    ] {
        let mut world = world(&policy, [flat(3.0), flat(1.0), Value::Null]);
        for number in 0..60 {
            let stream = number % 3 == 0;
            let exchange = world.asked_for(None, stream);
            let record = world.answered(exchange, number * 7 % 50);
            let mut plan = names(&record["plan"]);
            let why = record["why"].as_object().map_or(0, |why| why.len());
            assert_eq!(why, if policy == json!({}) { 0 } else { 3 }, "{record}");
            plan.sort();
            assert_eq!(plan, ["one", "three", "two"], "{policy}");
        }
    }
}

#[test]
fn the_policy_never_picks_what_the_breaker_excludes() {
    let mut world = world(&json!({"type": "latency"}), unpriced());
    for _ in 0..60 {
        let exchange = world.asked_for(None, true);
        world.answered_by(exchange, |name| if name == "two" { 100 } else { 900 });
    }
    world.open("two");
    for _ in 0..30 {
        let mut exchange = world.asked_for(None, true);
        assert_ne!(exchange.start(&mut world.env()).unwrap().provider, "two");
        exchange.abandon(&mut world.env()).unwrap();
    }
}
