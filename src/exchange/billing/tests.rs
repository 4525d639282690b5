//! Who is billed for what, and that no money stays reserved.

mod background;
mod reservations;

use fastrand::Rng;
use serde_json::{json, Value};

use super::super::client_headers;
use super::*;
use crate::base::clock::Timestamp;
use crate::base::store::{Memory, Store, Swap, Version};
use crate::client_api::request::{Body, Endpoint, Head};
use crate::config::Config;
use crate::exchange::{End, Next};
use crate::health::outcome::Verdict;
use crate::selection::ledger::Ledger;
use crate::spend::usage::{Calls, Details, Served, Source, Usage};
use std::time::Duration;

/// 2026-11-21T10:34:56Z
const NOW: Timestamp = Timestamp::from_millis(1_795_257_296_000);
const PATH: &str = "/v1/chat/completions";

/// A dollar per million tokens is so much for one.
const PER_TOKEN: u64 = 1_000_000;

/// Three providers: 10 and 20 USD for a million tokens of input and output, 1 and 2 USD, and without a price.
struct World {
    config: Rc<Config>,
    store: Memory,
    random: Rng,
    ledger: Ledger,
    now: Timestamp,
}

impl World {
    fn new(changes: &Value) -> Self {
        let provider = |models: Value| json!({"host": "h", "api_key": "$KEY", "models": models});
        let priced = |name: &str, input: u64| json!({"assistant": {"name": name, "price": {"input": input, "output": 2 * input}}});
        let mut document = json!({
            "providers": {
                "dear": provider(priced("big", 10)),
                "cheap": provider(priced("small", 1)),
                "open": provider(json!({"*": "*"})),
            },
            "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["dear", "cheap", "open"]}],
            "tenant": {"header": "x-tenant", "known": ["team-a"]},
            "breaker": {"consecutive_failures": 100},
        });
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
        Self {
            config: Rc::new(config.unwrap_or_else(|problems| panic!("{problems}"))),
            store: Memory::default(),
            random: Rng::with_seed(1),
            ledger: Ledger::default(),
            now: NOW,
        }
    }

    fn with_budgets(budgets: Value) -> Self {
        Self::new(&json!({ "budgets": budgets }))
    }

    fn env(&mut self) -> Env<'_> {
        Env { now: self.now, store: &mut self.store, random: &mut self.random, ledger: &mut self.ledger }
    }

    /// A request of a tenant for at most 100 tokens of answer, not yet started.
    fn plan(&self, model: &str, tenant: &str) -> Exchange {
        let body = json!({"model": model, "max_tokens": 100, "stream": true,
            "messages": [{"role": "user", "content": "Hello, how are you?"}]});
        let body = body.to_string();
        let body = Body::read(body.as_bytes(), Endpoint::Chat, &self.config.parameters).unwrap();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true).unwrap();
        exchange.set_tenant(tenant.to_owned());
        exchange
    }

    /// A request whose first attempt is under way.
    fn asking(&mut self, model: &str) -> Exchange {
        let mut exchange = self.plan(model, "team-a");
        let start = exchange.start(&mut self.env()).unwrap();
        exchange.begin(&start.provider, || NOW).unwrap();
        exchange
    }

    /// An attempt ends so; the next one begins.
    fn judge(&mut self, exchange: &mut Exchange, outcome: Outcome, tally: Tally) -> Next {
        exchange.progress(tally, || self.now);
        let verdict = Verdict::certain(outcome, Some(200));
        let next =
            exchange.judge(verdict, false, outcome != Outcome::Answered, &mut self.env()).unwrap().next;
        if let Next::Retry { provider, .. } = &next {
            exchange.begin(provider, || self.now).unwrap();
        }
        next
    }

    /// What was spent on and is reserved of the first budget, for team-a and any provider that is asked.
    fn money(&mut self, place: usize) -> (u64, u64) {
        let config = Rc::clone(&self.config);
        let budget = &config.budgets[place];
        let subject = |provider| Subject { tenant: "team-a", route: "chat", provider, model: "" };
        let owner = ["dear", "cheap", "open"].iter().find_map(|name| budget.owner(subject(name))).unwrap();
        let standing = budget.standing(owner, self.now, &mut self.store);
        (standing.spent_pico, standing.reserved_pico)
    }
}

fn reported(input: u64, output: u64) -> Tally {
    let usage = Usage { input, output, ..Usage::default() };
    Tally { usage: Some(usage), estimated_output: 7, begun: true, ..Tally::default() }
}

fn said(tokens: u64) -> Tally {
    Tally { estimated_output: tokens, begun: tokens > 0, ..Tally::default() }
}

const STAYED: End = End { gone: false, replied: None };
const LEFT: End = End { gone: true, replied: None };

fn budget(name: &str, matching: Value, limit: f64, when_spent: &str) -> Value {
    json!({"name": name, "match": matching, "limit": limit, "per": "day", "when_spent": when_spent})
}

fn everything(when_spent: &str) -> Value {
    budget("all", json!({}), 1.0, when_spent)
}

fn of_provider(provider: &str, when_spent: &str) -> Value {
    budget(provider, json!({"provider": provider}), 1.0, when_spent)
}

/// Spends what one dollar buys of a provider's output.
fn spend_a_dollar(world: &mut World, provider: &str) {
    let mut exchange = world.asking("assistant");
    while exchange.provider().unwrap().name != provider {
        world.judge(&mut exchange, Outcome::Overloaded, Tally::default());
    }
    world.judge(&mut exchange, Outcome::Answered, reported(1_000_000, 0));
    exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    exchange.finish(STAYED, &mut world.env());
}

fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

// The bill.

#[test]
fn a_failed_attempt_is_billed_what_its_provider_reported_and_nothing_else() {
    for (tally, cost) in [(reported(10, 5), Some("0.0002")), (said(5), None), (Tally::default(), None)] {
        let mut world = World::new(&json!({}));
        let mut exchange = world.asking("assistant");
        world.judge(&mut exchange, Outcome::Truncated, tally.clone());
        world.judge(&mut exchange, Outcome::Answered, reported(100, 50));
        exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
        let facts = exchange.finish(STAYED, &mut world.env());
        let bills: Vec<Option<String>> =
            facts.attempts.iter().map(|attempt| Some(attempt.bill.as_ref()?.cost?.to_string())).collect();
        assert_eq!(bills, [cost.map(str::to_owned), Some("0.0002".to_owned())], "{tally:?}");
    }
}

#[test]
fn what_was_not_reported_is_estimated_for_an_answer_that_came_and_for_no_other() {
    for outcome in Outcome::ALL {
        let mut world = World::new(&json!({"retry": {"attempts": 1}}));
        let mut exchange = world.asking("assistant");
        world.judge(&mut exchange, outcome, said(5));
        let facts = exchange.finish(STAYED, &mut world.env());
        let bill = facts.attempts[0].bill.clone();
        let is_billed = matches!(outcome, Outcome::Answered | Outcome::ClientGone);
        assert_eq!(bill.is_some(), is_billed, "{outcome:?}");
        if let Some(bill) = bill {
            assert_eq!((bill.usage.output, bill.source), (5, Source::Estimated));
            assert!((5..20).contains(&bill.usage.input), "{bill:?}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_or_left_is_billed_what_was_said_until_then() {
    // Whether somebody tells the end, and what is told of the answer in between.
    for (told, end, outcome) in [
        (Some(Outcome::Truncated), STAYED, "truncated"),
        (Some(Outcome::ClientGone), STAYED, "client_gone"),
        (None, STAYED, "truncated"),
        (None, LEFT, "client_gone"),
    ] {
        for later in [None, Some(said(9))] {
            let mut world = World::with_budgets(json!([everything("block"), of_provider("dear", "skip")]));
            let mut exchange = world.asking("assistant");
            world.judge(&mut exchange, Outcome::Answered, said(5));
            if let Some(tally) = later.clone() {
                exchange.progress(tally, || NOW);
            }
            if let Some(outcome) = told {
                exchange.ended(outcome, &mut world.env()).unwrap();
            }
            let facts = exchange.finish(end, &mut world.env());
            assert_eq!((facts.outcome, facts.answered), (outcome, true));
            let bill = facts.bill().unwrap();
            let said = if later.is_some() { 9 } else { 5 };
            assert_eq!((bill.usage.output, bill.source), (said, Source::Estimated), "{told:?}");
            let cost = bill.cost.unwrap().as_pico();
            assert_eq!(cost, (bill.usage.input * 10 + said * 20) * PER_TOKEN);
            assert_eq!([world.money(0), world.money(1)], [(cost, 0), (cost, 0)]);
        }
    }
}

#[test]
fn a_client_that_leaves_before_any_answer_is_billed_its_input_whoever_hears_of_it_first() {
    for record_first in [true, false] {
        let mut world = World::with_budgets(json!([everything("block"), of_provider("dear", "skip")]));
        let mut exchange = world.asking("assistant");
        if !record_first {
            assert_eq!(world.judge(&mut exchange, Outcome::ClientGone, Tally::default()), Next::Drop);
        }
        let end = End { gone: record_first, replied: None };
        let facts = exchange.finish(end, &mut world.env());
        assert_eq!((facts.outcome, facts.answered, facts.attempts.len()), ("client_gone", false, 1));
        let cost = facts.bill().unwrap().cost.unwrap().as_pico();
        assert!(cost > 0);
        assert_eq!([world.money(0), world.money(1)], [(cost, 0), (cost, 0)], "{record_first}");
        if record_first {
            world.judge(&mut exchange, Outcome::ClientGone, Tally::default());
            assert_eq!([world.money(0), world.money(1)], [(cost, 0), (cost, 0)], "counted once");
        }
    }
}

#[test]
fn a_reported_zero_stays_zero() {
    let mut world = World::with_budgets(json!([everything("block")]));
    let mut exchange = world.asking("assistant");
    world.judge(&mut exchange, Outcome::Answered, reported(0, 0));
    let facts = exchange.finish(STAYED, &mut world.env());
    let bill = facts.bill().unwrap();
    assert_eq!((bill.usage, bill.source, bill.cost), (Usage::default(), Source::Reported, Some(Money::ZERO)));
    assert_eq!(world.money(0), (0, 0));
}

#[test]
fn an_attempt_without_a_price_is_seen_to_have_none() {
    let mut world = World::with_budgets(json!([everything("block")]));
    let mut exchange = world.asking("other-model");
    assert_eq!(exchange.provider().unwrap().name, "open");
    world.judge(&mut exchange, Outcome::Answered, reported(10, 5));
    let facts = exchange.finish(STAYED, &mut world.env());
    assert_eq!(facts.bill().unwrap().cost, None);
    let record: Value = serde_json::from_str(&facts.record()).unwrap();
    assert_eq!((&record["unpriced"], &record["cost_usd"]), (&json!(true), &Value::Null));
    assert_eq!(world.money(0), (0, 0), "nobody knows what it cost");
}

/// A report of a provider that searched the web, in a service tier, with another model than was asked.
fn apart(web_search: u32, tier: Option<&str>, model: Option<&str>) -> Tally {
    let calls = Calls { web_search, ..Calls::default() };
    let details = Details { calls, ..Details::default() };
    let usage = Usage { input: 1000, output: 100, details, ..Usage::default() };
    let served = Served { model: model.map(Rc::from), tier: tier.map(Rc::from) };
    Tally { usage: Some(usage), served, begun: true, ..Tally::default() }
}

#[test]
fn what_is_told_and_has_no_price_is_named_and_the_budget_counts_the_rest() {
    let models = json!({"assistant": {"name": "big", "price": {"input": 10, "output": 20,
        "calls": {"web_search": 0.01}, "service_tiers": {"flex": 0.5}}}});
    let changes = json!({
        "providers": {"dear": {"host": "h", "api_key": "$KEY", "models": models}},
        "prices": {"dear": {"huge": {"input": 100, "output": 200}}},
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["dear"]}],
        "budgets": [everything("block"), of_provider("dear", "skip")],
    });
    for (tally, cost, parts) in [
        (apart(0, None, None), "0.012", json!(null)),
        (apart(2, None, None), "0.032", json!(null)),
        (apart(2, Some("flex"), None), "0.026", json!(null)),
        (apart(0, Some("default"), Some("big-2026-01-01")), "0.012", json!(null)),
        (apart(0, Some("priority"), None), "0.012", json!(["service_tier"])),
        (apart(0, None, Some("other")), "0.012", json!(["model"])),
        (apart(0, None, Some("huge")), "0.12", json!(null)),
        (apart(1, None, Some("huge")), "0.12", json!(["web_search"])),
    ] {
        let mut world = World::new(&changes);
        let mut exchange = world.asking("assistant");
        world.judge(&mut exchange, Outcome::Answered, tally.clone());
        exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
        let facts = exchange.finish(STAYED, &mut world.env());
        let record: Value = serde_json::from_str(&facts.record()).unwrap();
        let known = facts.bill().unwrap().cost.unwrap().as_pico();
        for place in [&record, &record["attempts"][0]] {
            assert_eq!((&place["cost_usd"], &place["unpriced_parts"]), (&json!(cost), &parts), "{tally:?}");
            assert_eq!(place["unpriced"].is_null(), parts.is_null(), "{tally:?}");
        }
        assert_eq!(record["response_model"], "big");
        assert_eq!([world.money(0), world.money(1)], [(known, 0), (known, 0)], "{tally:?}");
    }
}

#[test]
fn each_attempt_has_the_price_of_what_served_it() {
    let budgets = [everything("block"), of_provider("dear", "skip"), of_provider("cheap", "skip")];
    let mut world = World::with_budgets(json!(budgets));
    let mut exchange = world.asking("assistant");
    world.judge(&mut exchange, Outcome::Truncated, apart(1, Some("priority"), None));
    world.judge(&mut exchange, Outcome::Answered, apart(0, Some("default"), Some("small-001")));
    exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    let facts = exchange.finish(STAYED, &mut world.env());
    let record: Value = serde_json::from_str(&facts.record()).unwrap();
    assert_eq!((&record["cost_usd"], &record["unpriced"]), (&json!("0.0132"), &json!(true)));
    assert_eq!(record["unpriced_parts"], json!(["web_search", "service_tier"]));
    assert_eq!((&record["served_model"], &record["service_tier"]), (&json!("small-001"), &json!("default")));
    let [first, second] = [0, 1].map(|place| &record["attempts"][place]);
    assert_eq!((&first["cost_usd"], &first["service_tier"]), (&json!("0.012"), &json!("priority")));
    assert_eq!((&second["cost_usd"], &second["unpriced"]), (&json!("0.0012"), &Value::Null));
    assert_eq!(world.money(0), (13_200_000_000, 0));
    assert_eq!([world.money(1), world.money(2)], [(12_000_000_000, 0), (1_200_000_000, 0)]);
}

#[test]
fn the_price_is_that_of_the_moment_at_which_the_request_began() {
    let price = json!([{"input": 1, "output": 1}, {"input": 5, "output": 5, "from": "2026-11-22"}]);
    let midnight = crate::base::clock::parse_date("2026-11-22").unwrap();
    for (start, cost) in [(midnight.as_millis() - 1, "1"), (midnight.as_millis(), "5")] {
        let mut world = World::new(&json!({"prices": {"open": {"m": price}}}));
        world.now = Timestamp::from_millis(start);
        let mut exchange = world.asking("m");
        world.now = midnight.after(Duration::from_secs(60));
        world.judge(&mut exchange, Outcome::Answered, reported(1_000_000, 0));
        let facts = exchange.finish(STAYED, &mut world.env());
        assert_eq!(facts.bill().unwrap().cost.unwrap().to_string(), cost);
    }
}

// Budgets.

#[test]
fn a_spent_budget_that_blocks_refuses_and_says_until_when() {
    let mut world = World::with_budgets(json!([everything("block")]));
    spend_a_dollar(&mut world, "cheap");
    let mut exchange = world.plan("assistant", "team-a");
    let reply = *exchange.start(&mut world.env()).unwrap_err();
    assert_eq!(reply.status, 429);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["error"]["type"]),
        (&json!("budget_exceeded"), &json!("insufficient_quota"))
    );
    // Until midnight: 13:25:04.
    assert_eq!(header(&reply.headers, "retry-after"), Some("48304"));
    assert_eq!(header(&reply.headers, "x-should-retry"), Some("false"));
    let told = header(&reply.headers, client_headers::BUDGET).unwrap();
    assert!(told.starts_with("all;remaining=0;limit=1;reset=48304;"), "{told}");
    let facts = exchange.finish(End { replied: Some(429), ..STAYED }, &mut world.env());
    assert_eq!((facts.outcome, facts.status, facts.attempts.len()), ("rejected", Some(429), 0));
    assert_eq!(facts.bill(), None);
    assert_eq!(world.money(0), (1_000_000 * PER_TOKEN, 0));
    world.now = world.now.after(Duration::from_secs(48_304));
    assert!(world.plan("assistant", "team-a").start(&mut world.env()).is_ok(), "a new day");
}

#[test]
fn what_one_budget_reserved_is_given_back_when_the_next_refuses() {
    let mut world = World::with_budgets(json!([
        budget("wide", json!({}), 100.0, "block"),
        budget("told", json!({"route": "chat"}), 100.0, "alert"),
        budget("narrow", json!({"tenant": "team-a"}), 0.0, "block"),
    ]));
    let mut exchange = world.plan("assistant", "team-a");
    assert_eq!(exchange.start(&mut world.env()).unwrap_err().status, 429);
    assert_eq!([0, 1, 2].map(|place| world.money(place)), [(0, 0); 3]);
    assert!(world.plan("assistant", "team-b").start(&mut world.env()).is_ok(), "it is not about others");
}

#[test]
fn while_a_request_is_under_way_its_estimate_is_reserved_for_it_and_for_its_candidate() {
    let mut world = World::with_budgets(json!([
        everything("block"),
        of_provider("dear", "skip"),
        of_provider("cheap", "skip")
    ]));
    let mut exchange = world.asking("assistant");
    let estimate = world.money(0).1;
    // 100 tokens of answer and some twenty of the question.
    assert!((2000..2200).contains(&(estimate / PER_TOKEN)), "{estimate}");
    assert_eq!([world.money(1), world.money(2)], [(0, estimate), (0, 0)]);
    world.judge(&mut exchange, Outcome::Overloaded, Tally::default());
    assert_eq!([world.money(0), world.money(1)], [(0, estimate / 10), (0, 0)]);
    assert_eq!(world.money(2), (0, estimate / 10));
}

#[test]
fn a_spent_budget_may_send_requests_to_the_cheapest() {
    for matching in [json!({}), json!({"provider": "dear"})] {
        let mut world = World::with_budgets(json!([budget("b", matching, 1.0, "cheapest")]));
        assert_eq!(world.plan("assistant", "").start(&mut world.env()).unwrap().provider, "dear");
        spend_a_dollar(&mut world, "dear");
        let mut exchange = world.plan("assistant", "");
        assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "cheap");
        let plan = exchange.finish(LEFT, &mut world.env()).plan;
        assert_eq!(plan, ["cheap", "dear", "open"], "whose price nobody knows, last");
    }
}

#[test]
fn candidates_of_a_spent_budget_are_skipped_and_named() {
    let mut world = World::with_budgets(json!([of_provider("dear", "skip")]));
    spend_a_dollar(&mut world, "dear");
    let mut exchange = world.asking("assistant");
    assert_eq!(exchange.provider().unwrap().name, "cheap");
    let Next::Deliver(headers) = world.judge(&mut exchange, Outcome::Answered, reported(1, 1)) else {
        panic!("not delivered");
    };
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("dear:budget_spent"));
    let facts = exchange.finish(STAYED, &mut world.env());
    assert_eq!(facts.left_out, [("dear", "budget_spent")]);
}

#[test]
fn a_provider_whose_budget_its_own_failure_has_spent_is_not_retried() {
    let mut world = World::with_budgets(json!([of_provider("dear", "skip")]));
    let mut exchange = world.asking("assistant");
    let next = world.judge(&mut exchange, Outcome::ServerError, reported(1_000_000, 0));
    assert_eq!(next, Next::Retry { provider: "cheap".to_owned(), wait: 0 });
}

#[test]
fn when_every_candidates_budget_is_spent_the_client_hears_of_the_money() {
    let mut world = World::with_budgets(json!([budget("each", json!({"provider": "*"}), 0.0, "skip")]));
    let mut exchange = world.plan("assistant", "");
    let reply = *exchange.start(&mut world.env()).unwrap_err();
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (429, &json!("budget_exceeded")));
}

#[test]
fn an_alert_is_logged_once_with_the_amounts() {
    let mut world = World::with_budgets(json!([everything("alert")]));
    spend_a_dollar(&mut world, "cheap");
    let mut notes = Vec::new();
    for _ in 0..3 {
        let mut exchange = world.asking("assistant");
        world.judge(&mut exchange, Outcome::Answered, reported(90_000, 0));
        exchange.finish(STAYED, &mut world.env());
        notes.extend(exchange.take_notes());
        assert_eq!(exchange.take_notes(), Vec::<String>::new());
    }
    assert_eq!(notes, Vec::<String>::new(), "the request that spent the dollar told it");
    let mut world = World::with_budgets(json!([everything("alert")]));
    let mut exchange = world.asking("assistant");
    world.judge(&mut exchange, Outcome::Answered, reported(90_000, 0));
    exchange.finish(STAYED, &mut world.env());
    assert_eq!(exchange.take_notes(), ["budget all: 0.9 of 1 USD are spent this day"]);
}

#[test]
fn the_header_of_an_answer_says_how_the_requests_budgets_stand() {
    let mut world = World::with_budgets(json!([everything("block"), of_provider("dear", "skip")]));
    let mut exchange = world.asking("assistant");
    let Next::Deliver(headers) = world.judge(&mut exchange, Outcome::Answered, said(1)) else {
        panic!("not delivered");
    };
    let told = header(&headers, client_headers::BUDGET).unwrap();
    assert!(told.starts_with("all;remaining=0.99") && !told.contains(','), "{told}");
}

/// How a request leaves; each way ends with the record.
type Way = (&'static str, fn(&mut World, &mut Exchange) -> End);

fn retry_from_a_bill(world: &mut World, exchange: &mut Exchange) {
    exchange.begin("dear", || NOW).unwrap();
    exchange.progress(reported(100, 50), || NOW);
    let verdict = Verdict::certain(Outcome::Truncated, Some(200));
    let next = exchange.judge(verdict, false, true, &mut world.env()).unwrap().next;
    assert_eq!(next, Next::Retry { provider: "cheap".to_owned(), wait: 0 });
}

const WAYS: [Way; 10] = [
    ("the attempt never began", |_, _| STAYED),
    ("abandoned", |world, exchange| {
        exchange.abandon(&mut world.env()).unwrap();
        LEFT
    }),
    ("left before the attempt began", |_, _| LEFT),
    ("left before the second attempt began", |world, exchange| {
        retry_from_a_bill(world, exchange);
        LEFT
    }),
    ("abandoned before the second attempt began", |world, exchange| {
        retry_from_a_bill(world, exchange);
        exchange.abandon(&mut world.env()).unwrap();
        LEFT
    }),
    ("the gateway answered amid the second attempt", |world, exchange| {
        retry_from_a_bill(world, exchange);
        exchange.begin("cheap", || NOW).unwrap();
        End { gone: false, replied: Some(504) }
    }),
    ("misrouted", |world, exchange| {
        exchange.begin("dear", || NOW).unwrap();
        exchange.misrouted(&mut world.env()).unwrap();
        exchange.misrouted(&mut world.env()).unwrap();
        exchange.misrouted(&mut world.env()).unwrap();
        STAYED
    }),
    ("everybody failed", |world, exchange| {
        exchange.begin("dear", || NOW).unwrap();
        while world.judge(exchange, Outcome::Overloaded, Tally::default()) != Next::Fail {}
        STAYED
    }),
    ("the same provider twice", |world, exchange| {
        exchange.begin("dear", || NOW).unwrap();
        world.judge(exchange, Outcome::ServerError, Tally::default());
        assert_eq!(exchange.provider().unwrap().name, "dear");
        assert!(world.money(1).1 > 0, "the second attempt has its reservation");
        world.judge(exchange, Outcome::Answered, reported(100, 50));
        STAYED
    }),
    ("the client's own mistake", |world, exchange| {
        exchange.begin("dear", || NOW).unwrap();
        world.judge(exchange, Outcome::BadRequest, Tally::default());
        STAYED
    }),
];

#[test]
fn nothing_stays_reserved_on_any_way_out() {
    for (way, leave) in WAYS {
        let mut world = World::with_budgets(json!([
            everything("block"),
            of_provider("dear", "skip"),
            of_provider("cheap", "cheapest"),
            of_provider("open", "alert"),
        ]));
        let mut exchange = world.plan("assistant", "team-a");
        exchange.start(&mut world.env()).unwrap();
        let end = leave(&mut world, &mut exchange);
        let facts = exchange.finish(end, &mut world.env());
        let billed = |provider: &str| {
            let of = facts.attempts.iter().filter(|attempt| attempt.provider == provider);
            of.filter_map(|attempt| attempt.bill.as_ref()?.cost).map(Money::as_pico).sum::<u64>()
        };
        let billed = ["dear", "cheap", "open"].map(billed);
        let expected = [(billed.iter().sum(), 0), (billed[0], 0), (billed[1], 0), (billed[2], 0)];
        assert_eq!([0, 1, 2, 3].map(|place| world.money(place)), expected, "{way}");
    }
}

#[test]
fn a_reservation_that_is_lost_is_logged_and_stops_no_request() {
    struct Lost;
    impl Store for Lost {
        fn load(&mut self, _: &str) -> (Vec<u8>, Version) {
            (Vec::new(), None)
        }
        fn compare_and_swap(&mut self, _: &str, _: &[u8], _: Version) -> Swap {
            Swap::Lost
        }
    }
    let mut world = World::with_budgets(json!([everything("block"), of_provider("dear", "skip")]));
    let mut exchange = world.plan("assistant", "");
    let mut env = Env { store: &mut Lost, ..world.env() };
    assert_eq!(exchange.start(&mut env).unwrap().provider, "dear");
    assert_eq!(
        exchange.take_notes(),
        [
            "budget all: a reservation could not be written, so the request goes on without it",
            "budget dear: a reservation could not be written, so the request goes on without it"
        ]
    );
}

// Labels.

#[test]
fn a_label_comes_from_the_configuration_whatever_clients_ask_for() {
    let any = json!({"name": "*", "price": {"input": 1, "output": 1}});
    let world = json!({
        "providers": {"p": {"host": "h", "api_key": "$KEY", "models": {"alias": "own", "*": any}}},
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["p"]}],
        "prices": {"*": {"listed": {"input": 1, "output": 1}}},
    });
    for (asked, name, label) in [
        ("alias", "own", "own"),
        ("own", "own", "own"),
        ("listed", "listed", "listed"),
        ("x-1", "x-1", "other"),
    ] {
        let mut world = World::new(&world);
        let mut exchange = world.asking(asked);
        world.judge(&mut exchange, Outcome::Answered, reported(1, 1));
        let facts = exchange.finish(STAYED, &mut world.env());
        assert_eq!((facts.attempts[0].model, facts.attempts[0].model_label), (name, label), "{asked}");
    }
    for (tenant, label) in [("team-a", "team-a"), ("team-b", "other"), ("", "none")] {
        let mut world = World::new(&json!({}));
        let mut exchange = world.plan("assistant", tenant);
        exchange.start(&mut world.env()).unwrap();
        let facts = exchange.finish(LEFT, &mut world.env());
        assert_eq!((facts.tenant, facts.tenant_label), (tenant, label));
    }
}

// The record.

#[test]
fn the_first_token_is_that_of_the_attempt_that_answered() {
    let mut world = World::new(&json!({}));
    let mut exchange = world.asking("assistant");
    world.now = NOW.after(Duration::from_millis(100));
    world.judge(&mut exchange, Outcome::Truncated, said(1));
    world.now = NOW.after(Duration::from_millis(350));
    world.judge(&mut exchange, Outcome::Answered, said(2));
    world.now = NOW.after(Duration::from_millis(900));
    exchange.progress(Tally { malformed: 3, ..said(9) }, || world.now);
    exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    let facts = exchange.finish(STAYED, &mut world.env());
    assert_eq!(facts.first_token, Some(Duration::from_millis(350)));
    assert_eq!((facts.took, facts.malformed), (Duration::from_millis(900), 3));
    let outcomes: Vec<Outcome> = facts.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(
        (outcomes.as_slice(), facts.outcome),
        (&[Outcome::Truncated, Outcome::Answered][..], "answered")
    );
}

#[test]
fn the_record_names_how_the_request_ended() {
    for (outcome, word) in [
        (Outcome::Answered, "answered"),
        (Outcome::Refused, "refused"),
        (Outcome::BadRequest, "bad_request"),
        (Outcome::Overloaded, "failed"),
        (Outcome::ClientGone, "client_gone"),
    ] {
        let mut world = World::new(&json!({"retry": {"attempts": 1}}));
        let mut exchange = world.asking("assistant");
        exchange.set_request_id("id-1".to_owned());
        world.judge(&mut exchange, outcome, Tally::default());
        if !exchange.is_over() {
            exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
        }
        let facts = exchange.finish(STAYED, &mut world.env());
        assert_eq!((facts.outcome, facts.request_id.as_str()), (word, "id-1"), "{outcome:?}");
        let is_told = facts.status.is_some();
        assert_eq!(
            is_told,
            outcome != Outcome::Overloaded,
            "the gateway's own status is told by the gateway"
        );
    }
}
