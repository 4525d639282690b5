mod answer_limit;
mod detour;
mod errors;
mod history;
mod limits;
mod moved;
mod passthrough;
mod policies;
mod portability;
mod quality;
mod relayed;
mod repeats;
mod second_opinion;
mod shadow;
mod shapes;
mod sharing;
mod thoughts;

use fastrand::Rng;
use serde_json::{json, Value};

use super::client_headers;
use super::*;
use crate::base::store::{Memory, Store};
use crate::bytes::splice::Splices;
use crate::dialects::dialect::Wire;
use crate::health::breaker::{Permit, Record, Report, State};
use crate::health::outcome::HoldReason;
use crate::selection::ledger::Ledger;
use crate::selection::plan;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PATH: &str = "/v1/chat/completions";
const ALL: [&str; 3] = ["one", "two", "three"];

/// A gateway with three providers (contexts of 1000, 100,000 and unknown), its records and its clock.
struct World {
    config: Rc<Config>,
    store: Memory,
    random: Rng,
    ledger: Ledger,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    /// The base configuration with the given top-level keys in place of its own.
    fn with(changes: &Value) -> Self {
        let provider = |context: Option<u64>| {
            let model = context.map_or(json!("m"), |context| json!({"name": "m", "context": context}));
            json!({"host": "h", "api_key": "$KEY", "models": {"assistant": model, "*": "*"}})
        };
        let mut document = json!({
            "providers": {"one": provider(Some(1000)), "two": provider(Some(100_000)), "three": provider(None)},
            "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ALL}],
            "limits": {"first_token": "10s", "answer": "60s"},
            "breaker": {"consecutive_failures": 3, "open": "10s", "max_open": "40s"},
        });
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned())).unwrap();
        Self {
            config: Rc::new(config),
            store: Memory::default(),
            random: Rng::with_seed(1),
            ledger: Ledger::default(),
            now: NOW,
        }
    }

    /// The environment of the one worker there is.
    fn env(&mut self) -> Env<'_> {
        Env { now: self.now, store: &mut self.store, random: &mut self.random, ledger: &mut self.ledger }
    }

    fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    fn plan(&self, stream: bool) -> Exchange {
        self.plan_for("assistant", stream, false).unwrap()
    }

    fn plan_for(&self, model: &str, stream: bool, complete: bool) -> Result<Exchange, Rejection> {
        let body = json!({"model": model, "stream": stream, "messages": []}).to_string();
        let head = Head { path: PATH.to_owned(), complete, policy: None };
        let body = Body::read(body.as_bytes(), Endpoint::Chat, &self.config.parameters).unwrap();
        Exchange::new(Rc::clone(&self.config), &head, body, |_| true)
    }

    /// A request whose first attempt is under way at the named provider.
    fn asking(&mut self, stream: bool) -> (Exchange, String) {
        let mut exchange = self.plan(stream);
        let start = exchange.start(&mut self.env()).unwrap();
        exchange.begin(&start.provider, || self.now).unwrap();
        (exchange, start.provider)
    }

    fn judge(&mut self, exchange: &mut Exchange, verdict: Verdict) -> Next {
        let over = !(exchange.stream() && verdict.outcome == Outcome::Answered);
        let next = exchange.judge(verdict, false, over, &mut self.env()).unwrap().next;
        if let Next::Retry { provider, .. } = &next {
            exchange.begin(provider, || self.now).unwrap();
        }
        next
    }

    /// The outcomes one after the other; the providers that were asked, and what came last.
    fn run(&mut self, outcomes: &[Outcome]) -> (Vec<String>, Next, Exchange) {
        let (mut exchange, first) = self.asking(false);
        let mut asked = vec![first];
        let mut last = Next::Drop;
        for outcome in outcomes {
            last = self.judge(&mut exchange, verdict(*outcome));
            match &last {
                Next::Retry { provider, .. } => asked.push(provider.clone()),
                _ => break,
            }
        }
        (asked, last, exchange)
    }

    fn record(&mut self, provider: &str) -> Record {
        let bytes = self.store.load(&format!("shunt.provider.{provider}")).0;
        if bytes.is_empty() {
            Record::new(0)
        } else {
            Record::decode(&bytes).unwrap()
        }
    }

    /// Successes and failures in the window of a closed breaker, those included that are noted and not yet written.
    fn counted(&mut self, provider: &str) -> (u64, u64) {
        let now = self.now;
        let window = self.config.breaker.window;
        let config = Rc::clone(&self.config);
        let id = &config.providers.iter().find(|known| known.name == provider).unwrap().identity;
        let mut record = Record::read(&self.store.load(&id.record).0, id.fingerprint);
        let (noted, since) = self.ledger.take_successes(id);
        record.count_successes(noted, since, window);
        let (_, version) = self.store.load(&id.record);
        self.store.compare_and_swap(&id.record, &record.encode(), version);
        match record.state {
            State::Closed { window: results, .. } => {
                let tally = results.tally(now, window);
                (tally.successes, tally.failures)
            }
            state => panic!("not closed: {state:?}"),
        }
    }

    /// Lets the breaker of a provider open.
    fn open(&mut self, provider: &str) {
        let config = Rc::clone(&self.config);
        let provider = config.providers.iter().find(|known| known.name == provider).unwrap();
        for _ in 0..3 {
            let report = Report {
                outcome: Outcome::Overloaded,
                permit: Permit::Free,
                retry_after: None,
                model: 1,
                refusal: None,
            };
            plan::report(&config, provider, report, &mut self.env()).unwrap();
        }
        assert!(!plan::is_closed(provider, &mut self.env()));
    }

    fn is_open(&mut self, provider: &str) -> bool {
        self.record(provider).needs_permit()
    }
}

fn verdict(outcome: Outcome) -> Verdict {
    Verdict::certain(outcome, Some(500))
}

fn limited(retry_after: u64) -> Verdict {
    let retry_after = Some(Duration::from_millis(retry_after));
    Verdict { retry_after, ..Verdict::certain(Outcome::RateLimited, Some(429)) }
}

fn retry(provider: &str, wait: u64) -> Next {
    Next::Retry { provider: provider.to_owned(), wait }
}

fn delivered(next: Next) -> Vec<(&'static str, String)> {
    match next {
        Next::Deliver(headers) => headers,
        other => panic!("not delivered: {other:?}"),
    }
}

fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

/// Whether a call out of order is refused: by a panic in a debug build, by an error in a release build.
fn is_refused<T, E>(call: impl FnOnce() -> Result<T, E>) -> bool {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.is_err() && !cfg!(debug_assertions),
        Err(_) => cfg!(debug_assertions),
    }
}

// The plan.

#[test]
fn the_gateway_is_set_up_for_what_the_request_may_do() {
    for (stream, complete, live, per_try) in [
        (true, false, true, 10),
        (true, true, false, 60),
        (false, false, false, 60),
        (false, true, false, 60),
    ] {
        let mut world = World::new();
        let mut exchange = world.plan_for("assistant", stream, complete).unwrap();
        let start = exchange.start(&mut world.env()).unwrap();
        let expected = Start { provider: "one".to_owned(), per_try: Duration::from_secs(per_try), live };
        assert_eq!(start, expected, "{stream} {complete}");
        assert_eq!(exchange.request.release == Release::Complete, complete);
    }
}

#[test]
fn the_configured_attempts_bound_the_request() {
    for (attempts, asked) in [(1, &["one"][..]), (2, &["one", "two"]), (9, &ALL)] {
        let mut world = World::with(&json!({"retry": {"attempts": attempts}}));
        let (found, next, _) = world.run(&[Outcome::Overloaded; 9]);
        assert_eq!(found, asked);
        assert_eq!(next, Next::Fail);
    }
}

#[test]
fn what_no_route_or_provider_serves_is_rejected() {
    let world = World::with(&json!({"routes": [
        {"name": "chat", "match": {"path": PATH, "model": "gpt-*"}, "providers": ALL}]}));
    let new = |path: &str, model: &str| {
        let body = Body::read(json!({"model": model}).to_string().as_bytes(), Endpoint::Chat, &[]).unwrap();
        let head = Head { path: path.to_owned(), complete: false, policy: None };
        Exchange::new(Rc::clone(&world.config), &head, body, |_| true).map(|_| ()).unwrap_err()
    };
    assert_eq!(new("/other/chat/completions", "gpt-1").code, Some("unknown_url"));
    assert_eq!(new(PATH, "claude").code, Some("model_not_found"));
}

#[test]
fn a_provider_that_the_gateway_cannot_reach_is_no_candidate() {
    let mut world = World::new();
    let body = Body::read(br#"{"model":"assistant"}"#, Endpoint::Chat, &[]).unwrap();
    let head = Head { path: PATH.to_owned(), complete: false, policy: None };
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |name| name != "one").unwrap();
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "two");
}

#[test]
fn each_attempt_asks_for_its_providers_own_model() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    let body = json!({"model": "assistant", "stream": false, "messages": []}).to_string();
    let splices = exchange.splices();
    let sent = String::from_utf8(splices.apply(body.as_bytes()).unwrap()).unwrap();
    assert_eq!(sent, body.replace("assistant", "m"));
    let ask = exchange.ask(&splices);
    assert_eq!((ask.endpoint, ask.model, ask.stream, ask.body_len), (Endpoint::Chat, "m", false, sent.len()));
    let asked = exchange.asked().unwrap();
    assert_eq!((asked.defaults.model.as_str(), asked.defaults.created), ("m", NOW.as_millis() / 1000));
    assert_eq!(exchange.provider().unwrap().name, "one");
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    assert_eq!(exchange.provider().unwrap().name, "two");
    let mut other = world.plan_for("m", false, false).unwrap();
    other.start(&mut world.env()).unwrap();
    assert!(other.splices().is_empty(), "its name is right already");
}

// What follows each outcome.

#[test]
fn every_outcome_has_its_next_step() {
    for outcome in Outcome::ALL {
        let mut world = World::new();
        let (_, next, exchange) = world.run(&[outcome]);
        match outcome {
            Outcome::Answered | Outcome::Refused | Outcome::BadRequest => {
                assert_eq!(header(&delivered(next), client_headers::PROVIDER), Some("one"), "{outcome:?}");
            }
            Outcome::ServerError => assert_eq!(next, retry("one", 0)),
            Outcome::ClientGone => assert_eq!(next, Next::Drop),
            Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::RateLimited
            | Outcome::OutOfQuota
            | Outcome::BadKey
            | Outcome::NoSuchModel
            | Outcome::Garbled
            | Outcome::Unwilling
            | Outcome::TooLong => assert_eq!(next, retry("two", 0), "{outcome:?}"),
        }
        let to_the_client = matches!(outcome, Outcome::Answered | Outcome::Refused | Outcome::BadRequest);
        assert_eq!(exchange.is_delivered(), to_the_client, "{outcome:?}");
    }
}

#[test]
fn every_outcome_does_to_the_record_what_the_table_says() {
    for outcome in Outcome::ALL {
        let mut world = World::new();
        world.run(&[outcome]);
        let record = world.record("one");
        let held = record.hold.map(|hold| hold.reason);
        let model_held = record.models.iter().any(|hold| hold.until > world.now);
        let expected = match outcome {
            Outcome::Answered => ((1, 0), None, false),
            Outcome::ServerError
            | Outcome::Overloaded
            | Outcome::Unreachable
            | Outcome::TooSlow
            | Outcome::Truncated
            | Outcome::Garbled => ((0, 1), None, false),
            Outcome::RateLimited => ((0, 0), Some(HoldReason::RateLimited), false),
            Outcome::OutOfQuota => ((0, 0), Some(HoldReason::OutOfQuota), false),
            Outcome::BadKey => ((0, 0), Some(HoldReason::BadKey), false),
            Outcome::NoSuchModel => ((0, 0), None, true),
            Outcome::TooLong
            | Outcome::Unwilling
            | Outcome::Refused
            | Outcome::BadRequest
            | Outcome::ClientGone => ((0, 0), None, false),
        };
        assert_eq!((world.counted("one"), held, model_held), expected, "{outcome:?}");
    }
}

#[test]
fn providers_are_tried_in_the_order_of_the_route() {
    let (asked, next, _) = World::new().run(&[Outcome::Overloaded, Outcome::Truncated, Outcome::Unreachable]);
    assert_eq!(asked, ALL);
    assert_eq!(next, Next::Fail);
}

#[test]
fn a_provider_is_retried_once_after_a_server_error() {
    let (asked, next, _) = World::new().run(&[Outcome::ServerError; 4]);
    assert_eq!(asked, ["one", "one", "two", "three"]);
    assert_eq!(next, Next::Fail);
}

#[test]
fn a_retry_must_not_take_the_attempt_of_a_provider_that_was_not_tried() {
    for (attempts, asked) in [
        (1, &["one"][..]),
        (2, &["one", "two"]),
        (3, &["one", "two", "three"]),
        (4, &["one", "one", "two", "three"]),
        (5, &["one", "one", "two", "two", "three"]),
        (9, &["one", "one", "two", "two", "three", "three"]),
    ] {
        let mut world = World::with(&json!({"retry": {"attempts": attempts}}));
        assert_eq!(world.run(&[Outcome::ServerError; 9]).0, asked, "{attempts}");
    }
}

#[test]
fn the_number_of_retries_at_the_same_provider_is_configured() {
    for (same_provider, asked) in
        [(0, &["one", "two", "three"][..]), (2, &["one", "one", "one", "two", "three"])]
    {
        let mut world = World::with(
            &json!({"retry": {"same_provider": same_provider}, "breaker": {"consecutive_failures": 9}}),
        );
        assert_eq!(world.run(&[Outcome::ServerError; 9]).0, asked, "{same_provider}");
    }
}

#[test]
fn a_wait_and_a_stale_connection_are_no_repetitions_after_a_server_error() {
    for same_provider in [0, 1] {
        let world = || World::with(&json!({"retry": {"same_provider": same_provider}}));
        let mut limiting = world();
        let (mut exchange, _) = limiting.asking(false);
        assert_eq!(limiting.judge(&mut exchange, limited(1000)), retry("one", 1));
        let mut stale = world();
        let (mut exchange, _) = stale.asking(false);
        let reset = Verdict::without_response(Outcome::Unreachable);
        assert_eq!(exchange.judge(reset, true, true, &mut stale.env()).unwrap().next, retry("one", 0));
    }
}

#[test]
fn a_provider_whose_breaker_just_opened_is_not_retried() {
    let mut world = World::with(&json!({"breaker": {"consecutive_failures": 1}}));
    assert_eq!(world.run(&[Outcome::ServerError; 2]).0, ["one", "two", "three"]);
}

#[test]
fn a_provider_that_does_not_respond_is_never_retried() {
    let mut world = World::with(&json!({"retry": {"attempts": 9, "same_provider": 5}}));
    let (asked, next, _) = world.run(&[Outcome::TooSlow; 9]);
    assert_eq!(asked, ALL);
    assert_eq!(next, Next::Fail);
}

#[test]
fn a_reset_on_a_reused_connection_is_tried_again_once() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    let reset = Verdict::without_response(Outcome::Unreachable);
    assert_eq!(exchange.judge(reset.clone(), true, true, &mut world.env()).unwrap().next, retry("one", 0));
    assert_eq!(exchange.judge(reset, true, true, &mut world.env()).unwrap().next, retry("two", 0));
}

#[test]
fn a_short_retry_after_is_waited_for_and_a_long_one_is_not() {
    // The gateway waits up to half as long again, and 3 s is the most.
    for (millis, next) in [
        (0, retry("one", 0)),
        (1, retry("one", 1)),
        (1000, retry("one", 1)),
        (2000, retry("one", 2)),
        (2001, retry("two", 0)),
        (60_000, retry("two", 0)),
        (u64::MAX, retry("two", 0)),
    ] {
        let mut world = World::new();
        let (mut exchange, _) = world.asking(false);
        assert_eq!(world.judge(&mut exchange, limited(millis)), next, "{millis}");
    }
}

#[test]
fn half_of_a_wait_again_must_fit_into_the_bound() {
    for (bound, next) in [("4499ms", retry("two", 0)), ("4500ms", retry("one", 3))] {
        let mut world = World::with(&json!({"retry": {"wait": bound}}));
        let (mut exchange, _) = world.asking(false);
        assert_eq!(world.judge(&mut exchange, limited(3000)), next, "{bound}");
    }
}

#[test]
fn a_provider_is_waited_for_only_once() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    assert_eq!(world.judge(&mut exchange, limited(1000)), retry("one", 1));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.judge(&mut exchange, limited(1000)), retry("two", 0));
}

#[test]
fn a_wait_that_would_take_the_last_attempts_of_others_is_skipped() {
    let mut world = World::with(&json!({"retry": {"attempts": 3}}));
    let (mut exchange, _) = world.asking(false);
    assert_eq!(world.judge(&mut exchange, limited(1000)), retry("two", 0));
}

#[test]
fn a_conversation_that_is_too_long_goes_to_larger_contexts_and_then_to_unknown_ones() {
    let mut world = World::new();
    let (asked, next, exchange) = world.run(&[Outcome::TooLong, Outcome::TooLong, Outcome::TooLong]);
    assert_eq!(asked, ["one", "two", "three"]);
    assert_eq!(header(&delivered(next), client_headers::PROVIDER), Some("three"));
    assert!(exchange.is_delivered());
}

#[test]
fn larger_contexts_come_before_unknown_ones_whatever_the_order_of_the_route() {
    let mut world = World::with(&json!({"routes": [
        {"name": "chat", "match": {"path": PATH}, "providers": ["one", "three", "two"]}]}));
    let (asked, ..) = world.run(&[Outcome::TooLong, Outcome::TooLong]);
    assert_eq!(asked, ["one", "two", "three"]);
    // A larger one that is excluded does not keep the request from one that is free.
    world.open("two");
    let (asked, ..) = world.run(&[Outcome::TooLong, Outcome::Overloaded]);
    assert_eq!(asked, ["one", "three", "two"]);
}

#[test]
fn without_any_known_context_what_is_too_long_goes_to_the_next_candidate() {
    let model = json!({"host": "h", "api_key": "$KEY", "models": {"assistant": "m"}});
    let mut world =
        World::with(&json!({"providers": {"one": model.clone(), "two": model.clone(), "three": model}}));
    assert_eq!(world.run(&[Outcome::TooLong, Outcome::Overloaded]).0, ALL);
}

#[test]
fn a_smaller_or_equal_context_is_not_tried_with_what_is_too_long() {
    let model = |context: u64| json!({"host": "h", "api_key": "$KEY", "models": {"assistant": {"name": "m", "context": context}}});
    let mut world = World::with(&json!({
        "providers": {"one": model(1000), "two": model(999), "three": model(1000), "four": model(1001)},
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["one", "two", "three", "four"]}],
    }));
    assert_eq!(world.run(&[Outcome::TooLong]).1, retry("four", 0));
}

#[test]
fn a_request_too_long_for_an_unknown_context_gets_the_providers_error() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::TooLong)));
    assert_eq!(
        header(&headers, client_headers::ATTEMPTS),
        Some("one:overloaded,two:overloaded,three:too_long")
    );
}

#[test]
fn refused_content_stops_at_once_even_after_a_failover() {
    let (asked, next, mut exchange) = World::new().run(&[Outcome::Overloaded, Outcome::Refused]);
    assert_eq!(asked, ["one", "two"]);
    assert_eq!(header(&delivered(next), client_headers::PROVIDER), Some("two"));
    let mut world = World::new();
    assert!(is_refused(|| exchange.judge(verdict(Outcome::Answered), false, true, &mut world.env())));
}

#[test]
fn nothing_follows_once_it_is_over() {
    let mut world = World::new();
    let (_, next, mut exchange) = world.run(&[Outcome::Overloaded; 3]);
    assert_eq!(next, Next::Fail);
    let before = world.counted("three");
    assert!(is_refused(|| exchange.judge(verdict(Outcome::Overloaded), false, true, &mut world.env())));
    assert!(is_refused(|| exchange.ended(Outcome::Truncated, &mut world.env())));
    assert!(is_refused(|| exchange.misrouted(&mut world.env())));
    assert!(is_refused(|| exchange.passed(200, &mut world.env())));
    assert!(is_refused(|| exchange.abandon(&mut world.env())));
    assert!(is_refused(|| exchange.begin("one", || NOW)));
    assert_eq!(world.counted("three"), before);
    assert_eq!(exchange.provider().map(|provider| &provider.name), None);
}

// A route that leads elsewhere.

#[test]
fn an_attempt_on_another_providers_cluster_learns_which_provider_was_chosen() {
    let mut world = World::new();
    let mut exchange = world.plan(false);
    exchange.start(&mut world.env()).unwrap();
    assert_eq!(exchange.begin("two", || NOW), Err(NotBegun::Misrouted("one".to_owned())));
    assert_eq!(exchange.begin("", || NOW), Err(NotBegun::Misrouted("one".to_owned())));
    assert_eq!(exchange.begin("one", || NOW), Ok(()));
}

#[test]
fn a_misrouted_attempt_leads_to_the_next_provider_and_is_in_no_health_record() {
    let mut world = World::new();
    let mut exchange = world.plan(false);
    exchange.start(&mut world.env()).unwrap();
    assert_eq!(exchange.misrouted(&mut world.env()).unwrap(), retry("two", 0));
    assert_eq!(exchange.misrouted(&mut world.env()).unwrap(), retry("three", 0));
    assert_eq!(exchange.misrouted(&mut world.env()).unwrap(), Next::Fail);
    for provider in ALL {
        assert_eq!(world.counted(provider), (0, 0), "{provider}");
    }
    assert_eq!(exchange.failure(&mut world.env()).status, 503);
}

#[test]
fn a_misrouted_probe_gives_its_permit_back() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let mut exchange = world.plan(false);
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "one");
    assert_eq!(world.asking(false).1, "two");
    exchange.misrouted(&mut world.env()).unwrap();
    assert_eq!(world.asking(false).1, "one");
}

// Breakers and permits.

#[test]
fn a_provider_with_an_open_breaker_is_skipped_and_named() {
    let mut world = World::new();
    world.open("one");
    let (mut exchange, asked) = world.asking(false);
    assert_eq!(asked, "two");
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("one:open"));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("two:answered"));
}

#[test]
fn when_all_are_open_the_one_that_is_free_first_serves() {
    let mut world = World::new();
    for provider in ["two", "one", "three"] {
        world.open(provider);
        world.advance(Duration::from_secs(2));
    }
    let (mut exchange, asked) = world.asking(false);
    assert_eq!(asked, "two");
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::PROVIDER), Some("two"));
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("one:open,three:open"));
    // It works, so it is back; the others are not.
    assert!(!world.is_open("two") && world.is_open("one"));
}

#[test]
fn when_all_are_open_every_one_is_tried_before_the_request_fails() {
    let mut world = World::new();
    for provider in ALL {
        world.open(provider);
    }
    let (mut asked, next, _) = world.run(&[Outcome::Overloaded; 9]);
    asked.sort();
    assert_eq!(asked, ["one", "three", "two"]);
    assert_eq!(next, Next::Fail);
}

#[test]
fn a_provider_that_was_skipped_and_tried_later_is_not_named_as_skipped() {
    let mut world = World::new();
    world.open("one");
    let (asked, next, _) = world.run(&[Outcome::Overloaded, Outcome::Overloaded, Outcome::Answered]);
    assert_eq!(asked, ["two", "three", "one"]);
    assert_eq!(header(&delivered(next), client_headers::DEGRADED), None);
}

#[test]
fn one_request_probes_and_the_others_go_elsewhere() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let (mut probe, asked) = world.asking(false);
    assert_eq!(asked, "one");
    let (mut other, asked) = world.asking(false);
    assert_eq!(asked, "two");
    let headers = delivered(world.judge(&mut other, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("one:open"));
    world.judge(&mut probe, verdict(Outcome::Answered));
    assert_eq!(world.asking(false).1, "one");
    assert_eq!(world.counted("one"), (0, 0), "the probe closed it and nothing else");
}

#[test]
fn a_failed_probe_opens_it_again_and_the_request_moves_on() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let (mut probe, _) = world.asking(false);
    // A server error is retried at the same provider, but not while its breaker is open.
    assert_eq!(world.judge(&mut probe, verdict(Outcome::ServerError)), retry("two", 0));
    assert!(world.is_open("one"));
    world.advance(Duration::from_secs(11));
    assert_eq!(world.asking(false).1, "two", "twice as long");
    world.advance(Duration::from_secs(12));
    assert_eq!(world.asking(false).1, "one");
}

#[test]
fn a_probe_closes_the_breaker_at_its_first_content() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let (mut probe, _) = world.asking(true);
    let note = probe.judge(verdict(Outcome::Answered), false, false, &mut world.env()).unwrap().log;
    assert!(note.is_some_and(|note| note.contains("one") && note.contains("back")));
    assert_eq!(world.counted("one"), (0, 0));
    probe.ended(Outcome::Truncated, &mut world.env()).unwrap();
    assert_eq!(world.counted("one"), (0, 1));
}

#[test]
fn a_probe_that_proves_nothing_gives_its_permit_back() {
    for outcome in [Outcome::ClientGone, Outcome::BadRequest, Outcome::Refused, Outcome::TooLong] {
        let mut world = World::new();
        world.open("one");
        world.advance(Duration::from_secs(11));
        let (mut probe, _) = world.asking(false);
        world.judge(&mut probe, verdict(outcome));
        assert_eq!(world.asking(false).1, "one", "{outcome:?}");
    }
}

#[test]
fn a_probe_that_never_comes_back_lapses() {
    for (stream, seconds) in [(true, 15), (false, 65)] {
        let mut world = World::new();
        world.open("one");
        world.advance(Duration::from_secs(11));
        assert_eq!(world.asking(stream).1, "one");
        world.advance(Duration::from_secs(seconds - 1));
        assert_eq!(world.asking(stream).1, "two");
        world.advance(Duration::from_secs(1));
        assert_eq!(world.asking(stream).1, "one");
    }
}

#[test]
fn a_held_provider_is_skipped_with_its_reason() {
    for (outcome, word) in [
        (Outcome::RateLimited, "rate_limited"),
        (Outcome::OutOfQuota, "out_of_quota"),
        (Outcome::BadKey, "bad_key"),
        (Outcome::NoSuchModel, "no_such_model"),
    ] {
        let mut world = World::new();
        let (_, next, _) = world.run(&[outcome, Outcome::Answered]);
        let headers = delivered(next);
        assert_eq!(
            header(&headers, client_headers::DEGRADED),
            None,
            "it was tried, so it was not passed over"
        );
        assert_eq!(
            header(&headers, client_headers::ATTEMPTS),
            Some(format!("one:{word},two:answered").as_str())
        );
        let (_, next, _) = world.run(&[Outcome::Answered]);
        assert_eq!(header(&delivered(next), client_headers::DEGRADED), Some(format!("one:{word}").as_str()));
    }
}

#[test]
fn a_model_that_a_provider_lacks_sets_only_that_model_aside() {
    let mut world = World::new();
    world.run(&[Outcome::NoSuchModel]);
    assert_eq!(world.asking(false).1, "two");
    let mut other = world.plan_for("another", false, false).unwrap();
    assert_eq!(other.start(&mut world.env()).unwrap().provider, "one");
}

// When things are counted.

#[test]
fn a_streams_success_is_counted_at_its_end() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(true);
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:answered"));
    assert!(exchange.is_delivered());
    assert_eq!(world.counted("one"), (0, 0));
    assert_eq!(exchange.ended(Outcome::Answered, &mut world.env()).unwrap(), None);
    assert_eq!(world.counted("one"), (1, 0));
    assert!(is_refused(|| exchange.ended(Outcome::Truncated, &mut world.env())));
    assert_eq!(world.counted("one"), (1, 0), "it ends once");
    assert!(exchange.is_delivered());
}

#[test]
fn a_cut_after_the_release_counts_one_failure() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(true);
    world.judge(&mut exchange, verdict(Outcome::Answered));
    exchange.ended(Outcome::Truncated, &mut world.env()).unwrap();
    assert_eq!(world.counted("one"), (0, 1));
    assert_eq!(exchange.attempts.last().unwrap().verdict.outcome, Outcome::Truncated);
}

#[test]
fn truncated_answers_in_a_row_open_the_breaker_and_are_logged() {
    let mut world = World::new();
    let mut notes = Vec::new();
    for _ in 0..3 {
        let (mut exchange, asked) = world.asking(true);
        assert_eq!(asked, "one");
        world.judge(&mut exchange, verdict(Outcome::Answered));
        notes.extend(exchange.ended(Outcome::Truncated, &mut world.env()).unwrap());
    }
    assert!(world.is_open("one"));
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("provider one is skipped for") && notes[0].contains("truncated"), "{notes:?}");
}

#[test]
fn a_client_that_leaves_counts_nothing() {
    let mut world = World::new();
    let (mut before, _) = world.asking(true);
    assert_eq!(world.judge(&mut before, Verdict::without_response(Outcome::ClientGone)), Next::Drop);
    let (mut after, _) = world.asking(true);
    world.judge(&mut after, verdict(Outcome::Answered));
    assert_eq!(after.ended(Outcome::ClientGone, &mut world.env()).unwrap(), None);
    assert_eq!(world.counted("one"), (0, 0));
    assert!(!before.is_delivered() && before.was_tried());
}

#[test]
fn every_failed_attempt_counts_once() {
    let mut world = World::new();
    world.run(&[Outcome::ServerError, Outcome::ServerError, Outcome::TooSlow, Outcome::Answered]);
    assert_eq!(world.counted("one"), (0, 2));
    assert_eq!(world.counted("two"), (0, 1));
    assert_eq!(world.counted("three"), (1, 0));
}

#[test]
fn an_attempt_without_an_end_is_judged_by_its_time_and_its_headers() {
    let mut world = World::new();
    let (exchange, _) = world.asking(true);
    let after = |seconds: f64| NOW.after(Duration::from_secs_f64(seconds));
    for (heard, seconds, outcome) in [
        (false, 0.0, Outcome::Unreachable),
        (false, 9.7, Outcome::Unreachable),
        (true, 0.0, Outcome::Truncated),
        (true, 9.7, Outcome::Truncated),
        (false, 9.9, Outcome::TooSlow),
        (true, 10.1, Outcome::TooSlow),
    ] {
        assert_eq!(exchange.silence(heard, after(seconds)), outcome, "{heard} {seconds}");
    }
}

#[test]
fn an_attempt_is_timed_from_its_own_beginning() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(true);
    world.advance(Duration::from_secs(9));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.advance(Duration::from_secs(3));
    assert_eq!(exchange.silence(false, world.now), Outcome::Unreachable);
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    let took: Vec<u64> = exchange.attempts.all().iter().map(|attempt| attempt.took.as_secs()).collect();
    assert_eq!(took, [9, 3]);
}

#[test]
fn a_wait_before_an_attempt_is_not_part_of_it() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    assert_eq!(exchange.judge(limited(2000), false, true, &mut world.env()).unwrap().next, retry("one", 2));
    world.advance(Duration::from_secs(3));
    exchange.begin("one", || world.now).unwrap();
    world.advance(Duration::from_secs(1));
    world.judge(&mut exchange, verdict(Outcome::Answered));
    assert_eq!(exchange.attempts.last().unwrap().took, Duration::from_secs(1));
}

// What the client sees.

#[test]
fn the_headers_name_the_provider_that_answered_and_those_that_did_not() {
    let (_, next, _) = World::new().run(&[Outcome::ServerError, Outcome::ServerError, Outcome::Answered]);
    let expected = [
        (client_headers::PROVIDER, "two"),
        (client_headers::MODEL, "m"),
        (client_headers::ATTEMPTS, "one:server_error,one:server_error,two:answered"),
        (client_headers::POLICY, "priority"),
    ];
    assert_eq!(delivered(next), expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn a_hostile_model_name_is_made_harmless_in_the_header() {
    let mut world = World::new();
    let mut exchange = world.plan_for("x\r\nset-cookie: a=b\u{0}é", false, false).unwrap();
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || NOW).unwrap();
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::MODEL), Some("x??set-cookie: a=b??"));
}

#[test]
fn the_clients_status_is_the_last_failures() {
    for (status, outcome, expected) in [
        (Some(500), Outcome::ServerError, 500),
        (Some(529), Outcome::Overloaded, 529),
        (Some(429), Outcome::RateLimited, 429),
        (Some(401), Outcome::BadKey, 401),
        (Some(404), Outcome::NoSuchModel, 404),
        (Some(200), Outcome::ServerError, 502),
        (Some(302), Outcome::ServerError, 502),
        (Some(200), Outcome::Truncated, 502),
        (Some(200), Outcome::RateLimited, 429),
        (Some(200), Outcome::OutOfQuota, 429),
        (Some(200), Outcome::Overloaded, 503),
        (Some(200), Outcome::TooSlow, 504),
        (None, Outcome::TooSlow, 504),
        (None, Outcome::Unreachable, 503),
        (None, Outcome::Truncated, 502),
        (Some(600), Outcome::ServerError, 502),
    ] {
        let mut world = World::with(&json!({"retry": {"attempts": 1}}));
        let (mut exchange, _) = world.asking(false);
        let last = Verdict::certain(outcome, status);
        assert_eq!(world.judge(&mut exchange, last), Next::Fail, "{outcome:?}");
        let reply = exchange.failure(&mut world.env());
        assert_eq!(reply.status, expected, "{status:?} {outcome:?}");
    }
}

#[test]
fn the_reply_to_a_failed_request_names_every_attempt_in_the_envelope() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    world.advance(Duration::from_millis(12));
    world.judge(&mut exchange, Verdict::certain(Outcome::Overloaded, Some(503)));
    world.judge(&mut exchange, Verdict::without_response(Outcome::Unreachable));
    world.judge(&mut exchange, verdict(Outcome::Truncated));
    let reply = exchange.failure(&mut world.env());
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = json!({"error": {
        "message": "Every provider failed: one: overloaded (503) after 12 ms, two: unreachable after 0 ms, \
                    three: truncated (500) after 0 ms",
        "type": "server_error",
        "param": null,
        "code": "all_providers_failed",
    }});
    assert_eq!(body, expected);
    assert_eq!(header(&reply.headers, "content-type"), Some("application/json"));
    assert_eq!(
        header(&reply.headers, client_headers::ATTEMPTS),
        Some("one:overloaded,two:unreachable,three:truncated")
    );
    assert_eq!(header(&reply.headers, "x-should-retry"), None);
    assert_eq!(header(&reply.headers, "retry-after"), None);
    assert_eq!(header(&reply.headers, client_headers::PROVIDER), None);
}

#[test]
fn a_client_learns_not_to_retry_an_error_that_lasts() {
    for (outcomes, expected) in [
        ([Outcome::BadKey, Outcome::OutOfQuota, Outcome::NoSuchModel], Some("false")),
        ([Outcome::BadKey, Outcome::Overloaded, Outcome::NoSuchModel], None),
        ([Outcome::RateLimited, Outcome::RateLimited, Outcome::RateLimited], None),
    ] {
        let mut world = World::new();
        let (_, next, exchange) = world.run(&outcomes);
        assert_eq!(next, Next::Fail);
        let reply = exchange.failure(&mut world.env());
        assert_eq!(header(&reply.headers, "x-should-retry"), expected, "{outcomes:?}");
    }
}

#[test]
fn the_client_hears_when_the_first_provider_is_free_again() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    for seconds in [90, 31, 60] {
        world.judge(&mut exchange, limited(seconds * 1000));
    }
    world.advance(Duration::from_millis(500));
    let reply = exchange.failure(&mut world.env());
    assert_eq!(header(&reply.headers, "retry-after"), Some("31"), "31 s less 500 ms, rounded up");
    assert_eq!(reply.status, 429);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["error"]["type"], "rate_limit_error");
}

#[test]
fn the_client_gets_the_last_retry_after_if_a_candidate_is_available() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, limited(20_000));
    let reply = exchange.failure(&mut world.env());
    assert_eq!(header(&reply.headers, "retry-after"), Some("20"));
}

#[test]
fn a_wait_in_a_reply_is_never_zero() {
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, Verdict { retry_after: Some(Duration::ZERO), ..verdict(Outcome::Overloaded) });
    let reply = exchange.failure(&mut world.env());
    assert_eq!(header(&reply.headers, "retry-after"), Some("1"));
}

#[test]
fn the_reply_to_a_failed_request_names_the_skipped_providers() {
    let mut world = World::with(&json!({"retry": {"attempts": 1}}));
    world.open("one");
    let (_, next, exchange) = world.run(&[Outcome::Overloaded]);
    assert_eq!(next, Next::Fail);
    let reply = exchange.failure(&mut world.env());
    assert_eq!(header(&reply.headers, client_headers::DEGRADED), Some("one:open"));
    assert_eq!(header(&reply.headers, client_headers::ATTEMPTS), Some("two:overloaded"));
}

#[test]
fn a_report_that_is_lost_is_logged_and_changes_nothing_else() {
    struct Lost;
    impl Store for Lost {
        fn load(&mut self, _: &str) -> (Vec<u8>, crate::base::store::Version) {
            (Vec::new(), None)
        }
        fn compare_and_swap(
            &mut self,
            _: &str,
            _: &[u8],
            _: crate::base::store::Version,
        ) -> crate::base::store::Swap {
            crate::base::store::Swap::Lost
        }
    }
    let world = World::new();
    let mut random = Rng::with_seed(1);
    let mut ledger = Ledger::default();
    let mut env = Env { now: NOW, store: &mut Lost, random: &mut random, ledger: &mut ledger };
    let mut exchange = world.plan(false);
    exchange.start(&mut env).unwrap();
    let Decision { next, log: note } =
        exchange.judge(verdict(Outcome::Overloaded), false, true, &mut env).unwrap();
    assert_eq!(next, retry("two", 0));
    assert!(note.is_some_and(|note| note.contains("could not be written")));
}

#[test]
fn a_provider_that_cannot_be_reached_is_skipped_unless_there_is_no_other() {
    let world = World::new();
    let first = |usable: &dyn Fn(&str) -> bool| {
        let body = Body::read(br#"{"model": "assistant"}"#, Endpoint::Chat, &[]).unwrap();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let (mut store, mut random, mut ledger) = (Memory::default(), Rng::with_seed(1), Ledger::default());
        let mut env = Env { now: NOW, store: &mut store, random: &mut random, ledger: &mut ledger };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, usable).unwrap();
        exchange.start(&mut env).unwrap().provider
    };
    assert_eq!(first(&|provider| provider != "one"), "two");
    assert_eq!(first(&|_| false), "one");
}

#[test]
fn a_probe_whose_attempt_never_begins_gives_its_permit_back() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(20));
    let mut exchange = world.plan(false);
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "one");
    assert_eq!(exchange.awaited(), Some("one"));
    exchange.abandon(&mut world.env()).unwrap();
    let mut next = world.plan(false);
    assert_eq!(next.start(&mut world.env()).unwrap().provider, "one");
}

#[test]
fn no_candidate_with_a_smaller_context_is_tried_after_a_request_was_too_long() {
    let mut world = World::with(&json!({"routes": [
        {"name": "chat", "match": {"path": PATH}, "providers": ["two", "one", "three"]}]}));
    let (found, next, _) = world.run(&[Outcome::TooLong, Outcome::Overloaded, Outcome::Answered]);
    assert_eq!(found, ["two", "three"]);
    assert_eq!(next, Next::Fail);
}

// Candidates that speak another format.

/// Two providers, the first of which speaks Anthropic's format; `second` is the other one's name for its format.
fn translating(second: &str) -> World {
    let provider = |dialect: &str| json!({"host": "h", "api_key": "$KEY", "dialect": dialect, "models": {"assistant": "m"}});
    World::with(&json!({
        "providers": {"claude": provider("anthropic"), "other": provider(second)},
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["claude", "other"]}],
    }))
}

fn asking_with(world: &World, body: &Value) -> Exchange {
    let text = body.to_string();
    let read = Body::read(text.as_bytes(), Endpoint::Chat, &world.config.parameters).unwrap();
    let head = Head { path: PATH.to_owned(), complete: false, policy: None };
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, read, |_| true).unwrap();
    exchange.keep_body(usize::MAX, false);
    exchange
}

#[test]
fn a_body_is_kept_where_it_is_short_translated_or_sent_from_here() {
    let same = World::new();
    let other = translating("openai");
    let long = "x".repeat(3 << 20);
    for (world, content, room, sent, kept) in [
        (&same, "hi", usize::MAX, false, 1),
        (&same, "hi", 10, false, 0),
        (&same, "hi", 10, true, 1),
        (&same, &long, usize::MAX, false, 0),
        (&same, &long, usize::MAX, true, 1),
        (&other, "hi", usize::MAX, false, 3),
        // No room for the translation, but for the body.
        (&other, "hi", 150, false, 1),
        (&other, "hi", 10, false, 0),
        (&other, &long, usize::MAX, false, 3),
        (&other, &long, 8 << 20, false, 0),
        (&other, &long, 8 << 20, true, 1),
    ] {
        let text =
            json!({"model": "assistant", "messages": [{"role": "user", "content": content}]}).to_string();
        let read = Body::read(text.as_bytes(), Endpoint::Chat, &[]).unwrap();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, read, |_| true).unwrap();
        exchange.keep_body(room, sent);
        assert_eq!(exchange.kept(), kept * text.len(), "{} bytes, room {room}, sent {sent}", text.len());
        assert_eq!(exchange.body().len(), if kept == 0 { 0 } else { text.len() });
        // What somebody may still need in another form stays, and what is short.
        let stays = kept == 3 || (kept == 1 && content.len() < 1000);
        exchange.body_sent();
        assert_eq!(!exchange.body().is_empty(), stays, "{} bytes, room {room}, sent {sent}", text.len());
    }
}

#[test]
fn what_lining_up_the_candidates_translated_is_not_what_the_first_one_gets() {
    let mut world = translating("anthropic");
    let body = json!({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]});
    let mut exchange = asking_with(&world, &body);
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "claude");
    assert!(exchange.translated().is_some());
    assert_eq!(exchange.line_up(&mut world.env()), ["claude", "other"]);
    assert_eq!(exchange.translated(), None);
}

#[test]
fn a_candidate_that_speaks_another_format_gets_the_request_in_it_and_the_next_one_as_it_came() {
    let mut world = translating("deepseek");
    let body = json!({"model": "assistant", "max_completion_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let mut exchange = asking_with(&world, &body);
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "claude");
    exchange.begin("claude", || NOW).unwrap();
    let translated: Value = serde_json::from_slice(exchange.translated().unwrap()).unwrap();
    assert_eq!((&translated["model"], &translated["max_tokens"]), (&json!("m"), &json!(5)));
    assert!(exchange.splices().is_empty());
    assert_eq!(exchange.ask(&Splices::default()).body_len, exchange.translated().unwrap().len());
    assert_eq!(exchange.asked().unwrap().wire, Wire::Anthropic);
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), retry("other", 0));
    assert_eq!((exchange.translated(), exchange.asked().unwrap().wire), (None, Wire::OpenAi));
    let sent = exchange.splices().apply(body.to_string().as_bytes()).unwrap();
    let expected = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), expected);
}

#[test]
fn the_same_provider_again_gets_the_translation_again() {
    let mut world = translating("openai");
    let mut exchange = asking_with(&world, &sayable());
    exchange.start(&mut world.env()).unwrap();
    exchange.begin("claude", || NOW).unwrap();
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::ServerError)), retry("claude", 0));
    assert!(exchange.translated().is_some());
}

fn sayable() -> Value {
    json!({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]})
}

/// What Anthropic has no words for.
fn unsayable() -> Value {
    json!({"model": "assistant", "n": 2, "messages": [{"role": "user", "content": "hi"}]})
}

#[test]
fn a_candidate_whose_api_cannot_express_the_request_is_skipped_and_named() {
    let mut world = translating("openai");
    let mut exchange = asking_with(&world, &unsayable());
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "other");
    exchange.begin("other", || NOW).unwrap();
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("claude:unsupported"));
    let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
    assert_eq!(facts.left_out, [("claude", "unsupported")]);
    assert_eq!(world.counted("claude"), (0, 0), "nobody's failure");
}

#[test]
fn a_request_that_no_candidates_api_can_express_is_rejected() {
    let mut world = translating("anthropic");
    let mut exchange = asking_with(&world, &unsayable());
    let reply = *exchange.start(&mut world.env()).unwrap_err();
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (400, &json!("unsupported_parameter")));
    assert!(body["error"]["message"].as_str().unwrap().contains(" n "), "{body}");
    let facts = exchange.finish(End { gone: false, replied: Some(400) }, &mut world.env());
    assert_eq!((facts.outcome, facts.left_out.len()), ("rejected", 2));
}

#[test]
fn a_probe_whose_api_cannot_express_the_request_gives_its_permit_back() {
    let mut world = translating("openai");
    world.open("claude");
    world.advance(Duration::from_secs(11));
    let mut unsaid = asking_with(&world, &unsayable());
    assert_eq!(unsaid.start(&mut world.env()).unwrap().provider, "other");
    let mut said = asking_with(&world, &sayable());
    assert_eq!(said.start(&mut world.env()).unwrap().provider, "claude");
}

#[test]
fn a_passthrough_request_goes_to_a_provider_of_any_format() {
    let mut world = translating("openai");
    for (place, name) in ["claude", "other"].into_iter().enumerate() {
        let pass = Pass { method: "GET".to_owned(), path: "/v1/files".to_owned() };
        let mut exchange = Exchange::passing(Rc::clone(&world.config), ProviderId(place), pass);
        assert_eq!(exchange.start(&mut world.env()).unwrap().provider, name);
        assert_eq!(exchange.translated(), None);
    }
}
