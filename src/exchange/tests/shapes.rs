//! Requests of several shapes, and routes with several weights, under the policy `balanced`: each goes to the provider that is best for
//! it, whatever the others do.

use super::policies::{names, TEN};
use super::*;

/// A request of which the input is nearly everything that costs, and one of which the output is.
const SHAPES: [(usize, u64); 2] = [(40_000, 10), (10, 4000)];

/// Two providers: for the first the input is cheap, for the second the output is. The routes `/a/…` and `/b/…` have the given policies.
fn world(policies: [Value; 2], qualities: [f64; 2]) -> World {
    let model = |input: f64, output: f64, quality: f64| json!({"name": "m", "price": {"input": input, "output": output}, "quality": quality});
    let provider = |model: Value| json!({"host": "h", "api_key": "$KEY", "models": {"assistant": model}});
    let route = |name: &str, policy: &Value| json!({"name": name, "match": {"path": format!("/{name}{PATH}")}, "providers": ["one", "two"], "policy": policy});
    let mut world = World::with(&json!({
        "providers": {
            "one": provider(model(0.2, 20.0, qualities[0])),
            "two": provider(model(2.0, 2.0, qualities[1])),
        },
        "routes": [route("a", &policies[0]), route("b", &policies[1])],
    }));
    world.now = TEN;
    world
}

impl World {
    /// Who answers a request of this shape on this route. Both providers take about half a second, a tenth up or down.
    fn serve(&mut self, route: &str, (letters, max_tokens): (usize, u64)) -> (String, Value) {
        let content = "word ".repeat(letters / 5);
        let body = json!({"model": "assistant", "stream": true, "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": content}]});
        let head = Head { path: format!("/{route}{PATH}"), complete: false, policy: None };
        let body = Body::read(body.to_string().as_bytes(), Endpoint::Chat, &self.config.parameters).unwrap();
        let exchange = Exchange::new(Rc::clone(&self.config), &head, body, |_| true).unwrap();
        let took = self.random.u64(450..550);
        let record = self.answered_by(exchange, |_| took);
        (names(&record["plan"])[0].clone(), record)
    }
}

fn is_trial(record: &Value) -> bool {
    let first = record["plan"][0].as_str().unwrap();
    record["why"][first].as_str().unwrap().starts_with("tried")
}

#[test]
fn each_shape_of_request_stays_with_the_provider_at_which_it_is_cheap() {
    let policy = json!({"type": "balanced", "balance": {"cost": 1}});
    let mut world = world([policy.clone(), policy], [1.0; 2]);
    let mut settled = 0;
    // Ten minutes, with two requests a second.
    for number in 0..1200 {
        let shape = number % 2;
        let (first, record) = world.serve("a", SHAPES[shape]);
        if number >= 60 && !is_trial(&record) {
            assert_eq!(first, ["one", "two"][shape], "{number}: {record}");
            settled += 1;
        }
    }
    assert!(settled > 1000, "{settled}");
}

#[test]
fn each_route_follows_its_own_weights() {
    // The first provider is worse, and costs a tenth for this shape.
    let [cheap, good] = [json!({"cost": 1}), json!({"quality": 1})]
        .map(|balance| json!({"type": "balanced", "balance": balance}));
    let mut world = world([cheap, good], [0.4, 0.9]);
    let mut settled = 0;
    for number in 0..1200 {
        let (route, expected) = [("a", "one"), ("b", "two")][number % 2];
        let (first, record) = world.serve(route, SHAPES[0]);
        if number >= 60 && !is_trial(&record) {
            assert_eq!(first, expected, "{number}: {record}");
            settled += 1;
        }
    }
    assert!(settled > 1000, "{settled}");
}

#[test]
fn a_request_that_chooses_the_policy_for_itself_disturbs_no_other() {
    let [latency, priority] = [json!({"type": "latency", "allow": ["balanced"]}), json!({})];
    let mut world = world([latency, priority], [1.0; 2]);
    let mut firsts = [Vec::new(), Vec::new()];
    for number in 0..800 {
        let body =
            json!({"model": "assistant", "stream": true, "max_tokens": 4000, "messages": []}).to_string();
        let policy = Some("balanced".to_owned()).filter(|_| number % 2 == 0);
        let head = Head { path: format!("/a{PATH}"), complete: false, policy };
        let body = Body::read(body.as_bytes(), Endpoint::Chat, &world.config.parameters).unwrap();
        let exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
        // The first provider is twice as quick, and ten times dearer for this shape.
        let record = world.answered_by(exchange, |name| if name == "one" { 300 } else { 600 });
        if number >= 60 && !is_trial(&record) {
            firsts[number % 2].push(names(&record["plan"])[0].clone());
        }
    }
    for (seen, expected) in firsts.iter().zip(["two", "one"]) {
        assert!(seen.len() > 300 && seen.iter().all(|first| first == expected), "{expected}: {seen:?}");
    }
}
