//! Responses in the background: their cost is not known when the request ends.

use super::*;
use crate::base::store::fingerprint;
use crate::dialects::schema::responses;
use crate::exchange::Pass;

const RESPONSES: &str = "/v1/responses";

fn world(budgets: Value) -> World {
    let route = json!([{"name": "chat", "match": {"path": RESPONSES}, "providers": ["dear", "cheap"]}]);
    World::new(&json!({"routes": route, "budgets": budgets}))
}

/// A request for at most 100,000 tokens of answer.
fn plan(world: &World, background: bool, stream: bool) -> Exchange {
    let body = json!({"model": "assistant", "background": background, "stream": stream,
        "max_output_tokens": 100_000, "input": "Hello, how are you?"});
    let body = body.to_string();
    let body = Body::read(body.as_bytes(), Endpoint::Responses, &world.config.parameters).unwrap();
    let head = Head { path: RESPONSES.to_owned(), complete: false, policy: None };
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
    exchange.set_tenant("team-a".to_owned());
    exchange
}

fn asking(world: &mut World, background: bool, stream: bool) -> Exchange {
    let mut exchange = plan(world, background, stream);
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || NOW).unwrap();
    exchange
}

fn whole(answer: Value) -> Tally {
    let read = responses::read(answer.to_string().as_bytes());
    assert!(read.answered);
    read.tally
}

/// What a stream has told of a response that was accepted.
fn accepted() -> Tally {
    Tally { stored: fingerprint(["resp_1"]), ..Tally::default() }
}

#[test]
fn a_response_that_is_only_queued_stays_at_its_reservation() {
    for answer in [
        json!({"id": "resp_1", "status": "queued", "output": [], "usage": null}),
        json!({"id": "resp_1", "status": "in_progress", "output": []}),
        // What is told before the end is not what it costs.
        json!({"id": "resp_1", "status": "queued", "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}}),
        json!({"id": "resp_1", "status": "in_progress", "usage": {"input_tokens": 6, "output_tokens": 1}}),
    ] {
        // The provider queues it, whoever asked for that.
        for background in [true, false] {
            let mut world = world(json!([everything("block"), of_provider("dear", "skip")]));
            let mut exchange = asking(&mut world, background, false);
            let reserved = world.money(0).1;
            assert!(reserved > 2_000_000 * PER_TOKEN);
            world.judge(&mut exchange, Outcome::Answered, whole(answer.clone()));
            let facts = exchange.finish(STAYED, &mut world.env());
            let bill = facts.bill().unwrap();
            assert_eq!((bill.usage.output, bill.source), (100_000, Source::Estimated), "{answer}");
            assert_eq!(bill.cost.unwrap().as_pico(), reserved);
            assert_eq!([world.money(0), world.money(1)], [(reserved, 0), (reserved, 0)]);
        }
    }
}

#[test]
fn a_response_that_is_finished_costs_what_it_used_although_it_was_to_be_written_in_the_background() {
    let answer = json!({"id": "resp_1", "status": "completed", "output": [{"type": "message"}],
        "usage": {"input_tokens": 10, "output_tokens": 5}});
    let mut world = world(json!([everything("block")]));
    let mut exchange = asking(&mut world, true, false);
    world.judge(&mut exchange, Outcome::Answered, whole(answer));
    exchange.finish(STAYED, &mut world.env());
    assert_eq!(world.money(0), (200 * PER_TOKEN, 0));
}

#[test]
fn a_background_stream_that_ends_early_is_written_on_and_one_that_ends_well_costs_what_it_used() {
    let content = || Tally { begun: true, estimated_output: 7, ..accepted() };
    for (tally, end, told, output) in [
        (content(), STAYED, Some(Outcome::Truncated), 100_000),
        (content(), STAYED, Some(Outcome::ClientGone), 100_000),
        (content(), LEFT, None, 100_000),
        (Tally { estimated_output: 200_000, ..content() }, LEFT, None, 200_000),
        (Tally { usage: reported(1, 5).usage, ..content() }, STAYED, Some(Outcome::Answered), 5),
    ] {
        let mut world = world(json!([everything("block")]));
        let mut exchange = asking(&mut world, true, true);
        world.judge(&mut exchange, Outcome::Answered, content());
        exchange.progress(tally.clone(), || NOW);
        if let Some(outcome) = told {
            exchange.ended(outcome, &mut world.env()).unwrap();
        }
        let facts = exchange.finish(end, &mut world.env());
        let bill = facts.bill().unwrap();
        assert_eq!(bill.usage.output, output, "{tally:?}");
        let cost = bill.cost.unwrap().as_pico();
        assert_eq!(world.money(0), (cost, 0));
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_has_started_a_response_all_the_same() {
    for background in [true, false] {
        let mut world = world(json!([everything("block")]));
        let mut exchange = asking(&mut world, background, false);
        let facts = exchange.finish(LEFT, &mut world.env());
        assert_eq!(facts.bill().unwrap().usage.output, if background { 100_000 } else { 0 });
    }
}

#[test]
fn an_attempt_that_was_accepted_and_given_up_is_paid_beside_the_next_one() {
    for (outcome, tally, is_paid) in [
        (Outcome::Truncated, accepted(), true),
        (Outcome::TooSlow, accepted(), true),
        (Outcome::Garbled, accepted(), true),
        (Outcome::TooSlow, Tally::default(), false),
        // The provider itself has ended it.
        (Outcome::ServerError, accepted(), false),
        (Outcome::RateLimited, accepted(), false),
    ] {
        let mut world = world(json!([budget("all", json!({}), 10.0, "block")]));
        let mut exchange = asking(&mut world, true, true);
        let first = world.money(0).1;
        while exchange.provider().unwrap().name == "dear" {
            world.judge(&mut exchange, outcome, tally.clone());
        }
        let paid = if is_paid { first } else { 0 };
        assert_eq!(world.money(0), (0, paid + first / 10), "{outcome:?}");
        world.judge(&mut exchange, Outcome::Answered, reported(10, 5));
        exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
        exchange.finish(STAYED, &mut world.env());
        assert_eq!(world.money(0), (paid + 20 * PER_TOKEN, 0), "{outcome:?}");
    }
}

fn refusing(matching: Value) -> Value {
    json!([{"name": "b", "match": matching, "limit": 100, "per": "day", "background": "refuse"}])
}

#[test]
fn a_budget_may_refuse_what_is_written_in_the_background() {
    for (matching, is_refused) in [
        (json!({}), true),
        (json!({"tenant": "team-a"}), true),
        (json!({"tenant": "*"}), true),
        (json!({"provider": "*"}), true),
        (json!({"tenant": "team-b"}), false),
        (json!({"model": "gpt-*"}), false),
    ] {
        let mut world = world(refusing(matching.clone()));
        let mut exchange = plan(&world, true, false);
        let started = exchange.start(&mut world.env());
        assert_eq!(started.is_err(), is_refused, "{matching}");
        if let Err(reply) = started {
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            let error = &body["error"];
            assert_eq!(
                (reply.status, &error["code"], &error["param"], &error["type"]),
                (400, &json!("background_refused"), &json!("background"), &json!("invalid_request_error"))
            );
            assert!(error["message"].as_str().unwrap().starts_with("The budget b takes no background"));
            let facts = exchange.finish(End { replied: Some(400), ..STAYED }, &mut world.env());
            assert_eq!((facts.outcome, facts.attempts.len()), ("rejected", 0));
        }
        assert!(plan(&world, false, false).start(&mut world.env()).is_ok(), "{matching}");
    }
}

#[test]
fn a_candidate_whose_budget_refuses_it_is_left_out_while_another_takes_it() {
    let mut world = world(refusing(json!({"provider": "dear"})));
    let mut exchange = plan(&world, true, false);
    assert_eq!(exchange.start(&mut world.env()).unwrap().provider, "cheap");
    exchange.begin("cheap", || NOW).unwrap();
    world.judge(&mut exchange, Outcome::Overloaded, Tally::default());
    let facts = exchange.finish(STAYED, &mut world.env());
    assert_eq!(facts.left_out, [("dear", "unsupported")]);
    assert!(facts.attempts.iter().all(|attempt| attempt.provider == "cheap"));
}

/// A request of a passthrough path that gets this answer.
fn read(world: &mut World, path: &str, answer: &Value) -> Option<(String, String)> {
    let pass = Pass { method: "GET".to_owned(), path: path.to_owned() };
    let provider = world.config.routes[0].providers[0];
    let mut exchange = Exchange::passing(Rc::clone(&world.config), provider, pass);
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || NOW).unwrap();
    exchange.passed(200, &mut world.env()).unwrap();
    if exchange.reads_queued(&mut world.env()) {
        exchange.read_response(answer.to_string().as_bytes(), &mut world.env());
    }
    let facts = exchange.finish(STAYED, &mut world.env());
    let record: Value = serde_json::from_str(&facts.record()).unwrap();
    let correction = facts.correction?;
    assert_eq!(record["corrects"]["cost_usd"], correction.bill.cost.unwrap().to_string());
    assert_eq!(record["corrects"]["in_place_of_usd"], correction.queued.billed.to_string());
    assert_eq!(record["corrects"]["usage"]["source"], "reported");
    assert_eq!(
        (&record["corrects"]["provider"], &record["corrects"]["model"]),
        (&json!("dear"), &json!("big"))
    );
    Some((correction.bill.cost?.to_string(), correction.queued.billed.to_string()))
}

fn finished(output: u64) -> Value {
    json!({"id": "resp_1", "status": "completed", "output": [], "usage": {"input_tokens": 10, "output_tokens": output}})
}

/// A response that was queued under the id `resp_1`. Returns what was billed for it.
fn queue(world: &mut World) -> u64 {
    let mut exchange = asking(world, true, false);
    world.judge(&mut exchange, Outcome::Answered, whole(json!({"id": "resp_1", "status": "queued"})));
    exchange.finish(STAYED, &mut world.env());
    world.money(0).0
}

#[test]
fn what_a_response_has_cost_takes_the_place_of_what_was_expected_once_it_is_read() {
    for path in ["/v1/responses/resp_1", "/v1/responses/resp_1?include=x", "/v1/responses/resp_1/cancel"] {
        let each = budget("each", json!({"provider": "*"}), 100.0, "skip");
        let mut world = world(json!([budget("all", json!({}), 100.0, "block"), each]));
        let billed = queue(&mut world);
        let running =
            json!({"id": "resp_1", "status": "in_progress", "output": [], "usage": {"output_tokens": 1}});
        assert_eq!(read(&mut world, path, &running), None);
        assert_eq!(read(&mut world, "/v1/responses/resp_2", &finished(1)), None);
        assert_eq!(world.money(0), (billed, 0));
        let cost = (100 + 150_000 * 20) * PER_TOKEN;
        let told = (Money::from_pico(cost).to_string(), Money::from_pico(billed).to_string());
        assert_eq!(read(&mut world, path, &finished(150_000)), Some(told));
        assert_eq!([world.money(0), world.money(1)], [(cost, 0), (cost, 0)]);
        assert_eq!(read(&mut world, path, &finished(7)), None, "once");
        assert_eq!(world.money(0), (cost, 0));
    }
}

#[test]
fn what_is_read_in_the_next_period_changes_neither_of_them() {
    let mut world = world(json!([everything("block")]));
    queue(&mut world);
    world.now = world.now.after(Duration::from_secs(86_400));
    assert!(read(&mut world, "/v1/responses/resp_1", &finished(5)).is_some(), "the record tells it");
    assert_eq!(world.money(0), (0, 0));
}

#[test]
fn other_requests_and_gateways_without_budgets_look_nothing_up() {
    struct Unread;
    impl Store for Unread {
        fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
            panic!("{key} is read")
        }
        fn compare_and_swap(&mut self, _: &str, _: &[u8], _: Version) -> Swap {
            Swap::Done
        }
    }
    for (budgets, path) in [
        (json!([]), "/v1/responses/resp_1"),
        (json!([everything("block")]), "/v1/files/resp_1"),
        (json!([everything("block")]), "/v1/responses/"),
        (json!([everything("block")]), "/v1/responses"),
    ] {
        let mut world = world(budgets);
        let pass = Pass { method: "GET".to_owned(), path: path.to_owned() };
        let provider = world.config.routes[0].providers[0];
        let exchange = Exchange::passing(Rc::clone(&world.config), provider, pass);
        assert!(!exchange.reads_queued(&mut Env { store: &mut Unread, ..world.env() }), "{path}");
    }
}

#[test]
fn a_limit_that_is_lowered_for_a_candidate_is_what_is_reserved_and_billed_there() {
    let model = json!({"name": "big", "max_output": 8000, "price": {"input": 10, "output": 20}});
    let providers = json!({"dear": {"host": "h", "api_key": "$KEY", "models": {"assistant": model}}});
    let route =
        json!([{"name": "chat", "match": {"path": RESPONSES}, "providers": ["dear"], "limits": "clamp"}]);
    let budgets = json!([everything("block")]);
    let mut world = World::new(&json!({"providers": providers, "routes": route, "budgets": budgets}));
    let mut exchange = asking(&mut world, true, false);
    let reserved = world.money(0).1;
    assert!((160_000 * PER_TOKEN..161_000 * PER_TOKEN).contains(&reserved), "{reserved}");
    world.judge(&mut exchange, Outcome::Answered, whole(json!({"id": "resp_1", "status": "queued"})));
    let bill = exchange.finish(STAYED, &mut world.env()).bill().unwrap();
    assert_eq!((bill.usage.output, bill.cost.unwrap().as_pico()), (8000, reserved));
}
