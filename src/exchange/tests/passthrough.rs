//! Requests that are forwarded to one provider unchanged.

use super::*;
use crate::bytes::headers::Headers;

fn passing(world: &World, provider: ProviderId) -> Exchange {
    let pass = Pass { method: "GET".to_owned(), path: "/v1/files?limit=2".to_owned() };
    Exchange::passing(Rc::clone(&world.config), provider, pass)
}

fn provider(world: &World, name: &str) -> ProviderId {
    ProviderId(world.config.providers.iter().position(|known| known.name == name).unwrap())
}

#[test]
fn its_provider_alone_gets_it_and_whatever_it_answers_is_delivered() {
    for (status, outcome) in [(200, "two:answered"), (404, "two:no_such_model"), (500, "two:server_error")] {
        let mut world = World::new();
        let mut exchange = passing(&world, provider(&world, "two"));
        let start = exchange.start(&mut world.env()).unwrap();
        assert_eq!((start.provider.as_str(), start.live), ("two", false));
        exchange.begin("two", || NOW).unwrap();
        assert_eq!(exchange.pass().unwrap().path, "/v1/files?limit=2");
        assert_eq!(exchange.translated(), None);
        let headers = exchange.passed(status, &mut world.env()).unwrap();
        assert_eq!(header(&headers, client_headers::PROVIDER), Some("two"));
        assert_eq!(header(&headers, client_headers::ATTEMPTS), Some(outcome));
        assert!(exchange.is_delivered() && exchange.is_over());
        assert_eq!(world.counted("two"), (0, 0), "it says nothing about chats");
        let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
        assert_eq!((facts.operation, facts.attempts.len()), ("passthrough", 1));
    }
}

#[test]
fn nobody_follows_if_its_provider_cannot_be_reached_and_a_probe_gives_its_permit_back() {
    let mut world = World::new();
    world.open("two");
    world.advance(Duration::from_secs(11));
    for _ in 0..2 {
        let mut exchange = passing(&world, provider(&world, "two"));
        let start = exchange.start(&mut world.env()).unwrap();
        exchange.begin(&start.provider, || world.now).unwrap();
        let verdict = Verdict::without_response(Outcome::Unreachable);
        let decision = exchange.judge(verdict, false, true, &mut world.env()).unwrap();
        assert_eq!(decision, Decision { next: Next::Fail, log: None });
    }
    assert!(world.is_open("two"));
    assert!(matches!(world.record("two").state, State::HalfOpen { permit: 0, .. }));
}

#[test]
fn headers_of_the_client_are_kept_only_if_a_candidate_may_get_any() {
    let provider = |allowed: Value| json!({"host": "h", "api_key": "$KEY", "models": {"*": "*"}, "allow_headers": allowed});
    let document = |allowed| json!({"providers": {"one": provider(json!([])), "two": provider(allowed), "three": provider(json!([]))}});
    let none = World::with(&document(json!([])));
    assert!(!none.plan(false).wants_headers());
    let some = World::with(&document(json!(["openai-beta"])));
    let mut exchange = some.plan(false);
    assert!(exchange.wants_headers());
    let mut sent = crate::bytes::headers::HeaderWriter::default();
    sent.add("openai-beta", "x");
    exchange.keep_headers(Headers::new(sent.finish()));
    assert_eq!(exchange.client_headers().text("openai-beta"), Some("x"));
}

#[test]
fn a_call_out_of_order_says_which_and_when() {
    let error = OutOfOrder { call: "judge", state: "the request is over" };
    assert_eq!(error.to_string(), "the call \"judge\" came out of order: the request is over");
}
