//! Who is sent a reasoning item of the Responses API, which only the account that made it can read.

use super::*;
use crate::dialects::schema::responses;
use crate::spend::tokens::Estimator;
use crate::spend::usage::{Marks, Served};

const RESPONSES: &str = "/v1/responses";

/// `one` and `two` have accounts of their own; `three` is that of `one`, with other models.
fn world() -> World {
    let provider = |host: &str| json!({"host": host, "api_key": "$KEY", "models": {"assistant": "m"}});
    World::with(&json!({
        "providers": {"one": provider("a"), "two": provider("b"), "three": provider("a")},
        "routes": [{"name": "r", "match": {"path": RESPONSES}, "providers": ALL}],
    }))
}

fn thought(encrypted: &str) -> Value {
    json!({"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": encrypted})
}

fn user() -> Value {
    json!({"role": "user", "content": "u"})
}

impl World {
    fn body_with(&self, input: &Value) -> Body {
        let body = json!({"model": "assistant", "input": input}).to_string();
        Body::read(body.as_bytes(), Endpoint::Responses, &self.config.parameters).unwrap()
    }

    fn asking_for(&mut self, input: &Value) -> Exchange {
        let head = Head { path: RESPONSES.to_owned(), complete: false, policy: None };
        let body = self.body_with(input);
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true).unwrap();
        exchange.start(&mut self.env()).unwrap();
        exchange
    }

    /// What each of the providers is sent, if those before it fail.
    fn sends(&mut self, input: &Value) -> Vec<Value> {
        let mut exchange = self.asking_for(input);
        // What a long body has in it is known after it was dropped.
        exchange.keep_body(0, false);
        exchange.begin("one", || NOW).unwrap();
        let mut sent = Vec::new();
        for next in ["two", "three", ""] {
            sent.push(changed(&exchange, input));
            if !next.is_empty() {
                assert_eq!(self.judge(&mut exchange, verdict(Outcome::Overloaded)), retry(next, 0));
            }
        }
        sent
    }

    /// One of the providers answers with reasoning.
    fn thought_by(&mut self, provider: &str, thoughts: Marks) {
        let mut exchange = self.asking_for(&json!([user()]));
        exchange.begin("one", || NOW).unwrap();
        for name in ALL {
            if name == provider {
                exchange.progress(Tally { begun: true, thoughts, ..Tally::default() }, || NOW);
                self.judge(&mut exchange, verdict(Outcome::Answered));
                break;
            }
            self.judge(&mut exchange, verdict(Outcome::Overloaded));
        }
        exchange.finish(End { gone: false, replied: None }, &mut self.env());
    }
}

/// The input that the provider of the attempt under way is sent.
fn changed(exchange: &Exchange, input: &Value) -> Value {
    let text = json!({"model": "assistant", "input": input}).to_string();
    let sent = exchange.splices().apply(text.as_bytes()).unwrap();
    serde_json::from_slice::<Value>(&sent).unwrap()["input"].clone()
}

/// The marks of an answer, read whole and as a stream.
fn marks(output: &[Value]) -> Marks {
    let response = json!({"id": "resp_1", "status": "completed", "output": output});
    let whole = responses::read(response.to_string().as_bytes()).tally.thoughts;
    let mut streamed = Marks::default();
    for item in output {
        let event = json!({"type": "response.output_item.done", "output_index": 0, "item": item}).to_string();
        streamed.add(
            responses::event(event.as_bytes(), &mut Estimator::default(), &mut Served::default())
                .unwrap()
                .0
                .thought,
        );
    }
    assert_eq!(whole, streamed);
    whole
}

#[test]
fn thoughts_of_an_unknown_maker_go_to_the_first_candidates_account_alone() {
    let input = json!([user(), thought("gAAAA1"), user()]);
    let bare = json!([user(), user()]);
    assert_eq!(world().sends(&input), [input.clone(), bare.clone(), input.clone()]);
    let stored = json!([user(), {"type": "reasoning", "id": "rs_1", "summary": []}, user()]);
    assert_eq!(world().sends(&stored), [stored.clone(), bare, stored]);
    assert_eq!(world().sends(&json!("rs_1")), ["rs_1", "rs_1", "rs_1"]);
}

#[test]
fn thoughts_in_a_body_that_is_dropped_before_the_request_starts_go_to_who_made_them() {
    let mut world = world();
    world.thought_by("two", marks(&[thought("gAAAA1")]));
    let input = json!([user(), thought("gAAAA1"), user()]);
    let head = Head { path: RESPONSES.to_owned(), complete: false, policy: None };
    let body = world.body_with(&input);
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
    exchange.keep_body(0, false);
    exchange.start(&mut world.env()).unwrap();
    assert_eq!(exchange.told_makers().as_deref(), Some("2"));
    exchange.begin("one", || NOW).unwrap();
    assert_eq!(changed(&exchange, &input), json!([user(), user()]));
}

#[test]
fn thoughts_go_to_who_made_them_wherever_that_stands_in_the_order() {
    let mut world = world();
    let stored = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let message = json!({"type": "message", "content": []});
    world.thought_by("two", marks(&[thought("gAAAA2"), message.clone(), stored.clone()]));
    world.thought_by("one", marks(&[thought("gAAAA1")]));
    world.thought_by("two", marks(&[message]));
    let input = json!([thought("gAAAA2"), stored, user(), thought("gAAAA1"), user(), thought("gAAAA?")]);
    let [two, one, unknown] = [&input[0], &input[3], &input[5]];
    assert_eq!(
        world.sends(&input),
        [
            json!([user(), one, user(), unknown]),
            json!([two, input[1], user(), user()]),
            json!([user(), one, user(), unknown]),
        ]
    );
}

#[test]
fn an_answer_with_many_thoughts_is_known_by_its_last_ones() {
    let mut world = world();
    let thoughts: Vec<Value> = (0..10).map(|number| thought(&format!("gAAAA{number}"))).collect();
    world.thought_by("two", marks(&thoughts));
    let input = json!(thoughts);
    assert_eq!(world.sends(&input), [json!([]), input, json!([])]);
    // What the client says or returns stands between two answers. Another one's thoughts are not known by these.
    let result = json!({"type": "function_call_output", "call_id": "c", "output": ""});
    for between in [result, user()] {
        // Another world, because failures are counted in this one.
        let mut world = self::world();
        world.thought_by("two", marks(&thoughts));
        let mut input = vec![thought("gAAAA?"), between.clone()];
        input.extend(thoughts.clone());
        let rest = [vec![between], thoughts.clone()].concat();
        let foreign = json!(input[..2]);
        assert_eq!(world.sends(&json!(input)), [foreign.clone(), json!(rest), foreign]);
    }
}

#[test]
fn an_attempt_that_reads_the_request_anew_hides_the_same_thoughts() {
    let mut world = world();
    world.thought_by("two", marks(&[thought("gAAAA2"), thought("gAAAA3")]));
    let input = json!([thought("gAAAA2"), thought("gAAAA3"), user(), thought("gAAAA?"), user()]);
    let sent = world.sends(&input);
    let told = world.asking_for(&input).told_makers();
    assert_eq!(told.as_deref(), Some("220"), "providers count in the order of their names here");
    let head = Head { path: RESPONSES.to_owned(), complete: false, policy: None };
    for (name, sent) in ALL.into_iter().zip(&sent) {
        // A call's plan has its own provider alone.
        for plan in ["one,two,three", name] {
            let turn =
                Turn { plan, tries: &[], asked: name, now: NOW, deadline: None, makers: told.as_deref() };
            let exchange =
                Exchange::resume(Rc::clone(&world.config), &head, world.body_with(&input), turn).unwrap();
            assert_eq!(changed(&exchange, &input), *sent, "{name} of {plan}");
        }
    }
    // What is told of fewer items than there are, or of none, hides the others.
    for (makers, expected) in [
        (Some("2"), json!([input[0], user(), user()])),
        (Some("22222"), input.clone()),
        (Some("-~é"), json!([user(), user()])),
        (Some(""), json!([user(), user()])),
        (None, input.clone()),
    ] {
        let turn = Turn { plan: "two", tries: &[], asked: "two", now: NOW, deadline: None, makers };
        let exchange =
            Exchange::resume(Rc::clone(&world.config), &head, world.body_with(&input), turn).unwrap();
        assert_eq!(changed(&exchange, &input), expected, "{makers:?}");
    }
    assert_eq!(world.asking_for(&json!([user()])).told_makers(), None);
}

#[test]
fn a_shadow_is_sent_no_thoughts_but_its_own() {
    let mut world = World::with(&json!({
        "providers": {
            "one": {"host": "a", "api_key": "$KEY", "models": {"assistant": "m"}},
            "two": {"host": "b", "api_key": "$KEY", "models": {"assistant": {"name": "m", "price": {"input": 1, "output": 1}}}},
        },
        "routes": [{"name": "r", "match": {"path": RESPONSES}, "providers": ["one"], "shadow": {"provider": "two", "share": 1, "limit": 1, "per": "day"}}],
    }));
    world.config = Rc::new(world.config.for_shadow());
    let input = json!([thought("gAAAA1"), user()]);
    let mut exchange = world.asking_for(&input);
    exchange.begin("two", || NOW).unwrap();
    assert_eq!(changed(&exchange, &input), json!([user()]));
}
