//! What is reserved for a request while it moves from one candidate to the next.

use super::*;

/// The providers of the base configuration in another order.
fn in_order(providers: &[&str], budgets: Value) -> World {
    let route = json!([{"name": "chat", "match": {"path": PATH}, "providers": providers}]);
    World::new(&json!({"routes": route, "budgets": budgets, "retry": {"attempts": 9, "same_provider": 0}}))
}

/// What one request of [`World::plan`] is expected to cost at a provider.
fn expected(provider: &str) -> u64 {
    let mut world = in_order(&[provider], json!([everything("block")]));
    let exchange = world.asking("assistant");
    let (_, reserved) = world.money(0);
    drop(exchange);
    assert!(reserved > 0);
    reserved
}

/// The answer to an attempt that is under way, and the end of its request.
fn answer(world: &mut World, mut exchange: Exchange, tally: Tally) -> Vec<(String, &'static str)> {
    world.judge(&mut exchange, Outcome::Answered, tally);
    let facts = exchange.finish(STAYED, &mut world.env());
    facts.left_out.iter().map(|(name, why)| ((*name).to_owned(), *why)).collect()
}

#[test]
fn sixty_requests_that_move_to_a_dear_provider_at_once_keep_within_the_limit_and_one_request() {
    let dear = expected("dear");
    let limit = 10 * dear;
    let all = budget("all", json!({}), limit as f64 / 1e12, "block");
    let mut world = in_order(&["cheap", "dear"], json!([all]));
    let mut under_way: Vec<Exchange> = (0..60).map(|_| world.asking("assistant")).collect();
    let mut asked_the_dear_one = Vec::new();
    for mut exchange in under_way.drain(..) {
        match world.judge(&mut exchange, Outcome::Overloaded, Tally::default()) {
            Next::Retry { provider, .. } => {
                assert_eq!(provider, "dear");
                asked_the_dear_one.push(exchange);
            }
            Next::Fail => {
                // The failure of the provider that was asked: it may be well when the client comes back.
                assert_eq!(exchange.failure(&mut world.env()).status, 503);
                let facts = exchange.finish(STAYED, &mut world.env());
                assert_eq!((facts.outcome, &facts.left_out[..]), ("failed", &[("dear", "budget_spent")][..]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=10).contains(&asked_the_dear_one.len()), "{}", asked_the_dear_one.len());
    for exchange in asked_the_dear_one {
        answer(&mut world, exchange, reported(10, 100));
    }
    let (spent, reserved) = world.money(0);
    assert!(spent <= limit + dear, "{spent} of {limit}");
    assert_eq!(reserved, 0);
}

#[test]
fn a_request_reserves_at_the_price_of_the_candidate_that_is_chosen_although_another_comes_first() {
    let mut world = in_order(&["cheap", "dear"], json!([everything("block")]));
    let config = Rc::clone(&world.config);
    for _ in 0..100 {
        // The breaker of the first candidate opens.
        let mut exchange = world.plan("assistant", "team-b");
        let start = exchange.start(&mut world.env()).unwrap();
        if start.provider == "dear" {
            break;
        }
        exchange.begin(&start.provider, || NOW).unwrap();
        world.judge(&mut exchange, Outcome::Overloaded, Tally::default());
        exchange.finish(LEFT, &mut world.env());
    }
    drop(config);
    let mut world = World { store: std::mem::take(&mut world.store), ..world };
    let before = world.money(0).1;
    let exchange = world.asking("assistant");
    assert_eq!(exchange.provider().unwrap().name, "dear");
    assert_eq!(world.money(0).1 - before, expected("dear"));
}

#[test]
fn a_reservation_grows_and_shrinks_with_each_move_by_what_earlier_attempts_have_cost() {
    let (dear, cheap) = (expected("dear"), expected("cheap"));
    let mut world = in_order(&["cheap", "dear", "open"], json!([everything("block"), everything_else()]));
    let mut exchange = world.asking("assistant");
    assert_eq!([world.money(0), world.money(1)], [(0, cheap), (0, cheap)]);
    world.judge(&mut exchange, Outcome::Truncated, reported(10, 5));
    let first = 20 * PER_TOKEN;
    assert_eq!([world.money(0), world.money(1)], [(0, first + dear), (0, first + dear)]);
    world.judge(&mut exchange, Outcome::Truncated, reported(10, 5));
    // The last provider has no price, so that nothing is expected of it.
    let second = 200 * PER_TOKEN;
    assert_eq!([world.money(0), world.money(1)], [(0, first + second), (0, first + second)]);
    answer(&mut world, exchange, reported(10, 5));
    assert_eq!([world.money(0), world.money(1)], [(first + second, 0), (first + second, 0)]);
}

fn everything_else() -> Value {
    budget("told", json!({"route": "chat"}), 0.000_001, "alert")
}

#[test]
fn a_candidate_for_which_there_is_no_room_is_passed_over_and_a_cheaper_one_is_asked() {
    let (dear, cheap) = (expected("dear"), expected("cheap"));
    assert!(dear > 5 * cheap);
    let all = budget("all", json!({}), 2.5 * cheap as f64 / 1e12, "block");
    let mut world = in_order(&["cheap", "dear", "open"], json!([all]));
    let mut one = world.asking("assistant");
    let other = world.asking("assistant");
    // This one costs more than was expected, and spends the budget.
    answer(&mut world, other, reported(2000, 0));
    let next = world.judge(&mut one, Outcome::Overloaded, Tally::default());
    assert_eq!(next, Next::Retry { provider: "open".to_owned(), wait: 0 });
    assert_eq!(answer(&mut world, one, reported(10, 5)), [("dear".to_owned(), "budget_spent")]);
    assert_eq!(world.money(0), (2000 * PER_TOKEN, 0));
}

#[test]
fn what_an_earlier_attempt_has_cost_counts_when_the_next_one_is_chosen() {
    let all = budget("all", json!({}), 0.001, "block");
    for (cost, next) in [(999, Next::Retry { provider: "dear".to_owned(), wait: 0 }), (1000, Next::Fail)] {
        let mut world = in_order(&["cheap", "dear"], json!([all]));
        let mut exchange = world.asking("assistant");
        assert_eq!(world.judge(&mut exchange, Outcome::Truncated, reported(cost, 0)), next);
        exchange.finish(End { replied: Some(502), ..STAYED }, &mut world.env());
        assert_eq!(world.money(0), (cost * PER_TOKEN, 0));
    }
}

#[test]
fn a_budget_that_only_tells_or_orders_stops_no_move_and_counts_it() {
    for action in ["alert", "cheapest"] {
        let dear = expected("dear");
        let all = budget("all", json!({}), 0.000_001, action);
        let mut world = in_order(&["cheap", "dear"], json!([all]));
        let mut under_way: Vec<Exchange> = (0..5).map(|_| world.asking("assistant")).collect();
        for exchange in &mut under_way {
            let next = world.judge(exchange, Outcome::Overloaded, Tally::default());
            assert_eq!(next, Next::Retry { provider: "dear".to_owned(), wait: 0 });
        }
        assert_eq!(world.money(0), (0, 5 * dear), "{action}");
    }
}

/// A store that counts what is written.
#[derive(Default)]
struct Counted {
    memory: Memory,
    writes: Vec<String>,
}

impl Store for Counted {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.memory.load(key)
    }
    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        if key.starts_with("shunt.budget.") {
            self.writes.push(key.to_owned());
        }
        self.memory.compare_and_swap(key, value, version)
    }
}

#[test]
fn one_reservation_is_written_for_the_first_candidate_and_none_for_another_attempt_at_the_same_price() {
    let mut world =
        World::new(&json!({"budgets": [everything("block")], "retry": {"attempts": 9, "same_provider": 2}}));
    let mut store = Counted::default();
    let mut exchange = world.plan("assistant", "team-a");
    let mut env = Env { store: &mut store, ..world.env() };
    exchange.start(&mut env).unwrap();
    exchange.begin("dear", || NOW).unwrap();
    let verdict = Verdict::certain(Outcome::ServerError, Some(500));
    exchange.judge(verdict, false, true, &mut env).unwrap();
    exchange.begin("dear", || NOW).unwrap();
    assert_eq!(store.writes, ["shunt.budget.all"]);
    let mut env = Env { store: &mut store, ..world.env() };
    exchange.finish(LEFT, &mut env);
    assert_eq!(store.writes, ["shunt.budget.all"; 2]);
}

#[test]
fn a_request_that_is_refused_asks_no_other_candidate_and_names_none_as_left_out() {
    let mut world = World::with_budgets(json!([
        of_provider("dear", "skip"),
        budget("all", json!({}), 0.0, "block"),
        of_provider("cheap", "skip"),
    ]));
    let mut exchange = world.plan("assistant", "team-a");
    let reply = *exchange.start(&mut world.env()).unwrap_err();
    assert_eq!(reply.status, 429);
    assert!(String::from_utf8(reply.body).unwrap().contains("The budget all of 0 USD"));
    let facts = exchange.finish(End { replied: Some(429), ..STAYED }, &mut world.env());
    assert_eq!((facts.outcome, facts.left_out.len()), ("rejected", 0));
    assert_eq!([0, 1, 2].map(|place| world.money(place)), [(0, 0); 3]);
}

#[test]
fn what_is_reserved_in_a_period_that_is_over_is_neither_changed_nor_counted_in_the_next() {
    let hourly = json!({"name": "b", "limit": 0.000_001, "per": "hour", "when_spent": "block"});
    let mut world = in_order(&["cheap", "dear"], json!([hourly]));
    let mut exchange = world.asking("assistant");
    world.now = world.now.after(Duration::from_secs(3600));
    let next = world.judge(&mut exchange, Outcome::Overloaded, Tally::default());
    assert_eq!(next, Next::Retry { provider: "dear".to_owned(), wait: 0 });
    answer(&mut world, exchange, reported(10, 5));
    assert_eq!(world.money(0), (0, 0));
}

#[test]
fn all_the_answers_that_are_paid_are_reserved() {
    let completions = "/v1/completions";
    let model = json!({"assistant": {"name": "m", "price": {"input": 0, "output": 1}}});
    let world = || {
        World::new(&json!({
            "providers": {"one": {"host": "h", "api_key": "$KEY", "models": model}},
            "routes": [
                {"name": "chat", "match": {"path": PATH}, "providers": ["one"]},
                {"name": "text", "match": {"path": completions}, "providers": ["one"]},
            ],
            "budgets": [everything("block")],
        }))
    };
    for (path, endpoint, body, tokens) in [
        (PATH, Endpoint::Chat, r#""max_tokens":10,"max_completion_tokens":5000"#, 5000),
        (PATH, Endpoint::Chat, r#""max_completion_tokens":5000,"max_tokens":10,"n":4"#, 20_000),
        (PATH, Endpoint::Chat, r#""n":4"#, 4000),
        (PATH, Endpoint::Chat, r#""max_tokens":1000000,"n":4"#, 4 * 128_000),
        (completions, Endpoint::Completions, r#""prompt":["a","b"],"best_of":5,"max_tokens":100"#, 1000),
        (completions, Endpoint::Completions, r#""prompt":["a","b"]"#, 2000),
    ] {
        let mut world = world();
        let body = format!(r#"{{"model":"assistant",{body}}}"#);
        let read = Body::read(body.as_bytes(), endpoint, &world.config.parameters).unwrap();
        let head = Head { path: path.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, read, |_| true).unwrap();
        exchange.start(&mut world.env()).unwrap();
        let budget = &world.config.budgets[0];
        let subject = Subject { tenant: "", route: "", provider: "", model: "" };
        let standing = budget.standing(budget.owner(subject).unwrap(), NOW, &mut world.store);
        assert_eq!(standing.reserved_pico, tokens * PER_TOKEN, "{body}");
    }
}
