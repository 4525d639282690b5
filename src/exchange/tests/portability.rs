//! The portability guard: who is passed over, and when nobody is.

use super::*;

/// Three providers of which the models have these entries.
fn world(models: [Value; 3]) -> World {
    let mut providers = json!({});
    for (name, model) in ALL.into_iter().zip(models) {
        providers[name] = json!({"host": "h", "api_key": "$KEY", "models": {"assistant": model}});
    }
    World::with(&json!({"providers": providers}))
}

fn lacking(features: &[&str]) -> Value {
    json!({"name": "m", "lacks": features})
}

impl World {
    /// Who is asked this, if each answers so, and who is left out in the end.
    fn talk(&mut self, more: &Value, outcomes: &[Outcome]) -> (Vec<String>, Vec<(String, &'static str)>) {
        let mut body = json!({"model": "assistant", "messages": [{"role": "user", "content": "a"}]});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let text = body.to_string();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let body = Body::read(text.as_bytes(), Endpoint::Chat, &self.config.parameters).unwrap();
        let mut exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true).unwrap();
        let start = exchange.start(&mut self.env()).unwrap();
        exchange.begin(&start.provider, || self.now).unwrap();
        let mut asked = vec![start.provider];
        for outcome in outcomes {
            if let Next::Retry { provider, .. } = self.judge(&mut exchange, verdict(*outcome)) {
                asked.push(provider);
            }
        }
        let left_out = exchange.left_out().map(|(name, why)| (name.to_owned(), why)).collect();
        (asked, left_out)
    }
}

fn tools() -> Value {
    json!({"tools": [{"type": "function"}]})
}

#[test]
fn a_candidate_that_lacks_a_feature_is_skipped_also_after_a_failure() {
    let mut world = world([lacking(&["tools"]), json!("m"), lacking(&["images", "tools"])]);
    assert_eq!(world.talk(&json!({}), &[]), (vec!["one".to_owned()], vec![]));
    let (asked, left_out) = world.talk(&tools(), &[Outcome::Overloaded]);
    assert_eq!(asked, ["two"], "and nobody after it");
    assert_eq!(left_out, [("one".to_owned(), "tools")]);
}

#[test]
fn if_every_candidate_lacks_a_feature_the_order_does_not_change() {
    let mut world = world([lacking(&["tools"]), lacking(&["tools"]), lacking(&["tools"])]);
    let (asked, left_out) = world.talk(&tools(), &[Outcome::Overloaded]);
    assert_eq!((asked, left_out), (vec!["one".to_owned(), "two".to_owned()], vec![]));
}

#[test]
fn a_candidate_that_has_the_feature_is_tried_though_its_breaker_is_open() {
    let mut world = world([lacking(&["tools"]), json!("m"), lacking(&["tools"])]);
    world.open("two");
    assert_eq!(world.talk(&tools(), &[]).0, ["two"]);
    assert_eq!(world.talk(&json!({}), &[]).0, ["one"]);
}

#[test]
fn an_answer_needs_room_too_and_each_choice_its_own() {
    let room = |context: u64| json!({"name": "m", "context": context});
    let mut world = world([room(1000), room(100_000), json!("m")]);
    for (more, expected) in [
        (json!({}), "one"),
        (json!({"max_tokens": 800}), "one"),
        (json!({"max_tokens": 1000}), "two"),
        (json!({"max_tokens": 500, "n": 4}), "one"),
        (json!({"max_tokens": 200_000}), "three"),
        // Some 2000 tokens; and some 1100, which may be less than a thousand.
        (json!({"messages": [{"role": "user", "content": "word ".repeat(2000)}]}), "two"),
        (json!({"messages": [{"role": "user", "content": "word ".repeat(1100)}]}), "one"),
    ] {
        assert_eq!(world.talk(&more, &[]).0, [expected], "{more}");
    }
}

#[test]
fn a_dialect_says_what_none_of_its_models_take_and_an_entry_knows_better() {
    let provider = |models: Value, dialect: Value| json!({"host": "h", "api_key": "$KEY", "models": models, "dialect": dialect});
    let mut world = World::with(&json!({"providers": {
        "one": provider(json!({"assistant": "m"}), json!({"lacks": ["tools"]})),
        "two": provider(json!({"assistant": lacking(&[])}), json!({"lacks": ["tools"]})),
        "three": provider(json!({"assistant": "m"}), json!("openai")),
    }}));
    assert_eq!(world.talk(&tools(), &[]).0, ["two"]);
}

#[test]
fn each_input_of_a_batch_has_the_context_for_itself() {
    const EMBEDDINGS: &str = "/v1/embeddings";
    let provider = |context: u64| json!({"host": "h", "api_key": "$KEY", "models": {"assistant": {"name": "m", "context": context}}});
    let mut world = World::with(&json!({
        "providers": {"one": provider(100), "two": provider(1_000_000)},
        "routes": [{"name": "embeddings", "match": {"path": EMBEDDINGS}, "providers": ["one", "two"]}],
    }));
    let text = "What is the capital of France? ".repeat(10);
    for (input, expected) in [(json!([text, text, text]), "one"), (json!(text.repeat(3)), "two")] {
        let body = json!({"model": "assistant", "input": input}).to_string();
        let body = Body::read(body.as_bytes(), Endpoint::Embeddings, &[]).unwrap();
        let head = Head { path: EMBEDDINGS.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
        assert_eq!(exchange.start(&mut world.env()).unwrap().provider, expected);
    }
}
