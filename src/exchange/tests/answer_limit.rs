//! The limit of an answer: who is passed over because its answers are shorter, and for whom the limit is lowered.

use super::*;

const RESPONSES: &str = "/v1/responses";
const COMPLETIONS: &str = "/v1/completions";

/// A gateway whose models give answers of 1000, 8192 and any number of tokens; `limits` is the route's.
fn world(limits: &Value, dialect: &Value) -> World {
    let provider = |max_output: Option<u64>| {
        let mut model = json!({"name": "m"});
        if let Some(most) = max_output {
            model["max_output"] = json!(most);
        }
        json!({"host": "h", "api_key": "$KEY", "models": {"assistant": model}, "dialect": dialect})
    };
    let route = |name: &str, path: &str| json!({"name": name, "match": {"path": path}, "providers": ALL, "limits": limits});
    World::with(&json!({
        "providers": {"one": provider(Some(1000)), "two": provider(Some(8192)), "three": provider(None)},
        "routes": [route("chat", PATH), route("responses", RESPONSES), route("completions", COMPLETIONS)],
    }))
}

fn skipping() -> World {
    world(&json!({}), &json!("openai"))
}

fn clamping() -> World {
    world(&json!("clamp"), &json!("openai"))
}

/// A request with this text, of which the first attempt is under way.
fn asking_text(world: &mut World, path: &str, text: &str) -> Exchange {
    let endpoint = Endpoint::of(path).unwrap();
    let head = Head { path: path.to_owned(), complete: false, policy: None };
    let body = Body::read(text, endpoint, &world.config.parameters).unwrap();
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
    exchange.keep_body(usize::MAX, false);
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || world.now).unwrap();
    exchange
}

/// Who is asked first, and what it gets.
fn sent(world: &mut World, path: &str, text: &str) -> (String, String) {
    let exchange = asking_text(world, path, text);
    let body = match exchange.translated() {
        Some(translated) => translated.to_vec(),
        None => exchange.splices().apply(text.as_bytes()).unwrap(),
    };
    (exchange.provider().unwrap().name.clone(), String::from_utf8(body).unwrap())
}

#[test]
fn who_gives_only_shorter_answers_is_passed_over_whatever_the_limit_is_called() {
    for (path, limit, first) in [
        (PATH, "", "one"),
        (PATH, r#","max_tokens":1000"#, "one"),
        (PATH, r#","max_tokens":1001"#, "two"),
        (PATH, r#","max_completion_tokens":8192"#, "two"),
        (PATH, r#","max_completion_tokens":8193"#, "three"),
        (PATH, r#","max_tokens":"2000""#, "two"),
        (PATH, r#","max_tokens":1e9"#, "three"),
        (PATH, r#","max_tokens":null"#, "one"),
        (PATH, r#","max_tokens":-5"#, "one"),
        // Each choice has the limit for itself, and the larger one of two names counts, wherever it stands.
        (PATH, r#","max_tokens":900,"n":4"#, "one"),
        (PATH, r#","max_tokens":9000,"max_completion_tokens":10"#, "three"),
        (PATH, r#","max_tokens":10,"max_completion_tokens":9000"#, "three"),
        (PATH, r#","max_tokens":9000,"max_tokens":10"#, "three"),
        (RESPONSES, r#","max_output_tokens":5000"#, "two"),
        (COMPLETIONS, r#","max_tokens":5000"#, "two"),
        // It is no parameter of the request if it stands within another one.
        (PATH, r#","metadata":{"max_tokens":"9000"}"#, "one"),
    ] {
        let text = [r#"{"model":"m""#, limit, "}"].concat();
        let mut world = skipping();
        let (asked, body) = sent(&mut world, path, &text);
        assert_eq!((asked.as_str(), body.as_str()), (first, text.as_str()), "{path} {limit}");
    }
}

#[test]
fn the_reason_is_told_and_holds_after_a_failure_too() {
    let mut world = skipping();
    let mut exchange = asking_text(&mut world, PATH, r#"{"model":"m","max_tokens":2000}"#);
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), retry("three", 0));
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::DEGRADED), Some("one:max_output"));
    assert_eq!(header(&headers, client_headers::ADAPTED), None);
}

#[test]
fn if_nobody_gives_so_long_an_answer_all_are_tried_with_the_limit_as_it_came() {
    let mut world = World::with(&json!({
        "providers": {"one": {"host": "h", "api_key": "$KEY", "models": {"assistant": {"name": "m", "max_output": 10}}}},
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["one"]}],
    }));
    let text = r#"{"model":"m","max_tokens":2000}"#;
    assert_eq!(sent(&mut world, PATH, text), ("one".to_owned(), text.to_owned()));
}

#[test]
fn a_route_may_lower_the_limit_under_each_of_its_names() {
    for (path, before, after, told) in [
        (PATH, r#","max_tokens":9000"#, r#","max_tokens":1000"#, Some("max_tokens=1000")),
        (
            PATH,
            r#", "max_completion_tokens" : 1e5 "#,
            r#", "max_completion_tokens" : 1000 "#,
            Some("max_completion_tokens=1000"),
        ),
        (PATH, r#","max_tokens":"9000""#, r#","max_tokens":1000"#, Some("max_tokens=1000")),
        (
            PATH,
            r#","max_tokens":9000,"x":[],"max_completion_tokens":7000"#,
            r#","max_tokens":1000,"x":[],"max_completion_tokens":1000"#,
            Some("max_tokens=1000,max_completion_tokens=1000"),
        ),
        (
            PATH,
            r#","max_tokens":10,"max_completion_tokens":7000"#,
            r#","max_tokens":10,"max_completion_tokens":1000"#,
            Some("max_completion_tokens=1000"),
        ),
        (
            RESPONSES,
            r#","max_output_tokens":1001"#,
            r#","max_output_tokens":1000"#,
            Some("max_output_tokens=1000"),
        ),
        (COMPLETIONS, r#","max_tokens":1001"#, r#","max_tokens":1000"#, Some("max_tokens=1000")),
        (PATH, r#","max_tokens":1000"#, r#","max_tokens":1000"#, None),
        (PATH, "", "", None),
    ] {
        let [before, after] = [before, after].map(|limit| [r#"{"model":"m""#, limit, "}"].concat());
        let mut world = clamping();
        let mut exchange = asking_text(&mut world, path, &before);
        assert_eq!(exchange.splices().apply(before.as_bytes()).unwrap(), after.as_bytes(), "{before}");
        let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
        assert_eq!(header(&headers, client_headers::PROVIDER), Some("one"));
        assert_eq!(header(&headers, client_headers::ADAPTED), told, "{before}");
        let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
        assert_eq!(facts.adapted.as_deref(), told);
    }
}

#[test]
fn each_candidate_gets_a_limit_of_its_own_also_after_a_failure() {
    let mut world = clamping();
    // Longer than what is kept of a body.
    let text = [r#"{"max_tokens":20000,"model":"m","x":""#, &"x".repeat(3 << 20), "\"}"].concat();
    let mut exchange = asking_text(&mut world, PATH, &text);
    assert!(exchange.body().is_empty());
    for (limit, told, outcome) in [
        (Some("1000"), None, Outcome::Overloaded),
        (Some("8192"), None, Outcome::Overloaded),
        (None, None::<&str>, Outcome::Answered),
    ] {
        let splices = exchange.splices();
        assert_eq!(splices.is_empty(), limit.is_none());
        let start = splices.apply(&text.as_bytes()[..40]).unwrap();
        let expected = [r#"{"max_tokens":"#, limit.unwrap_or("20000"), ","].concat();
        assert!(start.starts_with(expected.as_bytes()), "{expected}");
        if let Next::Deliver(headers) = world.judge(&mut exchange, verdict(outcome)) {
            assert_eq!(header(&headers, client_headers::ADAPTED), told, "the third gives any length");
        }
    }
}

#[test]
fn what_a_dialect_sets_drops_or_renames_is_as_the_dialect_says() {
    let parameters = |parameters: &Value| json!({"parameters": parameters});
    for (dialect, before, after) in [
        (json!({"set": {"max_tokens": 50}}), r#""max_tokens":9000"#, r#""max_tokens":50"#),
        (json!({"drop": ["max_tokens"]}), r#""x":1,"max_tokens":9000"#, r#""x":1"#),
        (
            json!({"rename": {"max_completion_tokens": "max_tokens"}}),
            r#""max_completion_tokens":9000"#,
            r#""max_tokens":1000"#,
        ),
        (
            json!({"rename": {"max_completion_tokens": "max_tokens"}}),
            r#""max_tokens":9000,"max_completion_tokens":9000"#,
            r#""max_tokens":1000"#,
        ),
    ] {
        let mut world = world(&json!("clamp"), &parameters(&dialect));
        let [before, after] = [before, after].map(|limit| [r#"{"model":"m","#, limit, "}"].concat());
        assert_eq!(sent(&mut world, PATH, &before), ("one".to_owned(), after), "{dialect}");
    }
    // A limit that is not sent is no reason to pass over anybody, and not told as lowered.
    for dialect in [
        json!({"set": {"max_tokens": 50}}),
        json!({"drop": ["max_tokens"]}),
        json!({"rename": {"max_tokens": "most"}, "set": {"most": 50}}),
    ] {
        let text = r#"{"model":"m","max_tokens":9000}"#;
        assert_eq!(sent(&mut world(&json!({}), &parameters(&dialect)), PATH, text).0, "one");
        let mut world = world(&json!("clamp"), &parameters(&dialect));
        let mut exchange = asking_text(&mut world, PATH, text);
        let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
        assert_eq!(header(&headers, client_headers::ADAPTED), None);
    }
}

#[test]
fn a_translation_keeps_to_the_longest_answer_also_where_the_request_names_no_limit() {
    for (limits, limit, tokens) in [
        (json!({}), "", 500),
        (json!({}), r#""max_tokens":400,"#, 400),
        (json!({}), r#""max_tokens":9000,"#, 9000),
        (json!("clamp"), r#""max_tokens":9000,"#, 500),
        (json!("clamp"), r#""max_completion_tokens":9000,"#, 500),
        (json!("clamp"), "", 500),
    ] {
        let mut world = World::with(&json!({
            "providers": {"one": {"host": "h", "api_key": "$KEY", "dialect": "anthropic",
                "models": {"assistant": {"name": "claude-sonnet-4-5", "max_output": 500}}}},
            "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["one"], "limits": limits}],
        }));
        let text =
            [r#"{"model":"assistant","#, limit, r#""messages":[{"role":"user","content":"a"}]}"#].concat();
        let (_, body) = sent(&mut world, PATH, &text);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["max_tokens"], json!(tokens), "{limits} {limit}");
    }
}

#[test]
fn a_lowered_limit_needs_less_room_in_a_context() {
    let model = |max_output: u64| json!({"models": {"assistant": {"name": "m", "context": 2000, "max_output": max_output}}, "host": "h", "api_key": "$KEY"});
    for (limits, first) in
        [(json!({}), "two"), (json!({"max_output": "clamp"}), "one"), (json!({"max_output": "skip"}), "two")]
    {
        let mut world = World::with(&json!({
            "providers": {"one": model(1000), "two": {"models": {"*": "*"}, "host": "h", "api_key": "$KEY"}},
            "routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["one", "two"], "limits": limits}],
        }));
        let text = r#"{"model":"assistant","max_tokens":9000}"#;
        assert_eq!(sent(&mut world, PATH, text).0, first, "{limits}");
    }
}

#[test]
fn where_no_longest_answer_is_configured_no_limit_is_read() {
    let world = World::new();
    let body = Body::read(
        br#"{"model":"m","max_tokens":9000}"#.as_slice(),
        Endpoint::Chat,
        &world.config.parameters,
    )
    .unwrap();
    assert_eq!((body.limits, body.entries), (vec![], vec![]));
}
