//! Copies for a route's shadow: which requests have one, and that nothing follows from it.

use super::*;

/// "two" is the shadow of a route to "one", and serves a route of its own.
fn world(shadow: &Value) -> World {
    let provider =
        |more: Value| json!({"host": "h", "api_key": "$KEY", "models": {"assistant": more, "other": "m"}});
    let price = json!({"input": 1, "output": 1});
    let mut settings = json!({"provider": "two", "share": 1, "limit": 1, "per": "day"});
    for (key, value) in shadow.as_object().unwrap() {
        settings[key] = value.clone();
    }
    World::with(&json!({
        "providers": {
            "one": provider(json!({"name": "m", "price": price})),
            "two": provider(json!({"name": "m2", "price": price, "lacks": ["tools"]})),
            "three": provider(json!("m3")),
        },
        "routes": [
            {"name": "own", "match": {"path": PATH, "model": "other"}, "providers": ["two"]},
            {"name": "chat", "match": {"path": PATH}, "providers": ["one", "three"], "shadow": settings},
        ],
        "budgets": [{"name": "all", "limit": 100, "per": "day"}],
    }))
}

impl World {
    /// Whether a request has a copy.
    fn samples_shadow(&mut self) -> bool {
        let mut exchange = self.plan(false);
        exchange.start(&mut self.env()).unwrap();
        let shadowed = exchange.sample_shadow(&mut Shadows::default(), &mut self.env());
        assert_eq!(exchange.shadow.is_some(), shadowed);
        shadowed
    }

    /// The world as the copies' listener has it.
    fn for_shadow(mut self) -> Self {
        self.config = Rc::new(self.config.for_shadow());
        self
    }
}

#[test]
fn the_shadow_gets_a_share_of_the_requests_while_its_budget_lasts() {
    for (shadow, expected) in [
        (json!({}), 1000),
        (json!({"share": 0}), 0),
        (json!({"share": 0.1}), 100),
        (json!({"limit": 0}), 0),
        (json!({"provider": "one"}), 0),
        // Its price is not known.
        (json!({"provider": "three"}), 0),
    ] {
        let mut world = world(&shadow);
        let found = (0..1000).filter(|_| world.samples_shadow()).count();
        assert!(usize::abs_diff(found, expected) < 50, "{shadow}: {found}");
    }
}

#[test]
fn an_excluded_provider_gets_no_shadow_request() {
    let mut world = world(&json!({}));
    assert!(world.samples_shadow());
    world.open("two");
    assert!(!world.samples_shadow());
    world.advance(Duration::from_secs(11));
    assert!(!world.samples_shadow(), "a probe is for those who wait");
}

#[test]
fn a_provider_that_lacks_a_feature_gets_no_shadow_request() {
    let mut world = world(&json!({}));
    let body = json!({"model": "assistant", "messages": [], "tools": [{}]}).to_string();
    let head = Head { path: PATH.to_owned(), complete: false, policy: None };
    let body = Body::read(body.as_bytes(), Endpoint::Chat, &[]).unwrap();
    let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
    exchange.start(&mut world.env()).unwrap();
    assert!(!exchange.sample_shadow(&mut Shadows::default(), &mut world.env()));
}

#[test]
fn a_request_that_continues_a_stored_response_is_never_shadowed() {
    let mut world = world(&json!({}));
    for (stored, expected) in [(None, true), (Some("conv_1".to_owned()), false)] {
        let mut exchange = world.plan(false);
        exchange.body.said.stored = stored;
        exchange.start(&mut world.env()).unwrap();
        assert_eq!(exchange.sample_shadow(&mut Shadows::default(), &mut world.env()), expected);
    }
}

#[test]
fn a_shadow_request_makes_one_attempt_and_changes_nothing_for_other_requests() {
    let mut world = world(&json!({})).for_shadow();
    world.open("two");
    let before = world.record("two");
    for outcome in [Outcome::Answered, Outcome::ServerError, Outcome::BadKey, Outcome::RateLimited] {
        let (mut exchange, asked) = world.asking(false);
        assert_eq!(asked, "two", "whatever its breaker says");
        let next = world.judge(&mut exchange, verdict(outcome));
        assert_eq!(matches!(next, Next::Deliver(_)), outcome == Outcome::Answered);
        assert!(!matches!(next, Next::Retry { .. }));
        assert_eq!(world.record("two"), before);
        let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
        assert!(facts.is_shadow && facts.record().contains(r#""shadow":true"#));
        world.advance(Duration::from_secs(60));
    }
    // What is measured is written late, with what came since.
    let written: Vec<&str> = world.store.keys().filter(|key| !key.contains("budget")).collect();
    assert_eq!(written, ["shunt.provider.two"]);
}

#[test]
fn copies_spend_their_own_money() {
    let world = world(&json!({"limit": 0.004}));
    let names: Vec<&str> = world.config.budgets.iter().map(|budget| budget.name.as_str()).collect();
    assert_eq!(names, ["all"]);
    let mut copies = world.for_shadow();
    assert_eq!(copies.config.budgets.iter().map(|budget| &budget.name).collect::<Vec<_>>(), ["shadow:chat"]);
    // Each reserves some thousand tokens of a thousandth USD.
    let mut started = 0;
    let mut under_way = Vec::new();
    for _ in 0..10 {
        let mut exchange = copies.plan(false);
        started += u32::from(exchange.start(&mut copies.env()).is_ok());
        under_way.push(exchange);
    }
    assert_eq!(started, 4);
}

#[test]
fn no_more_than_64_copies_are_under_way_in_a_worker() {
    let mut world = world(&json!({"limit": 1000}));
    let mut shadows = Shadows::default();
    let mut draw = |shadows: &mut Shadows, after: Duration| {
        let now = NOW.after(after);
        let mut drawn = |id: u32| {
            let mut exchange = world.plan(false);
            exchange.set_request_id(id.to_string());
            exchange.start(&mut world.env()).unwrap();
            let mut env = Env { now, ..world.env() };
            exchange.sample_shadow(shadows, &mut env)
        };
        (0..100).filter(|id| drawn(*id)).count()
    };
    assert_eq!(draw(&mut shadows, Duration::ZERO), 64);
    for id in 0..64 {
        shadows.arrive(&id.to_string());
    }
    assert_eq!(
        draw(&mut shadows, Duration::from_secs(60)),
        0,
        "those that have arrived last as long as they last"
    );
    for _ in 0..10 {
        shadows.end();
    }
    assert_eq!(draw(&mut shadows, Duration::from_secs(60)), 10);
    // What never arrives is given up.
    assert_eq!(draw(&mut shadows, Duration::from_secs(69)), 0);
    assert_eq!(draw(&mut shadows, Duration::from_secs(70)), 10);
    // One that was not awaited counts as well.
    shadows.end();
    shadows.arrive("elsewhere");
    assert_eq!(draw(&mut shadows, Duration::from_secs(71)), 0);
}

#[test]
fn a_request_that_was_never_sent_names_no_shadow_in_its_record() {
    for is_sent in [true, false] {
        let mut world = world(&json!({}));
        let mut exchange = world.plan(false);
        exchange.start(&mut world.env()).unwrap();
        assert!(exchange.sample_shadow(&mut Shadows::default(), &mut world.env()));
        if is_sent {
            exchange.begin("one", || NOW).unwrap();
        }
        let facts = exchange.finish(End { gone: true, replied: None }, &mut world.env());
        assert_eq!(facts.shadowed, is_sent.then_some("two"));
    }
}

#[test]
fn a_response_in_the_background_is_not_copied() {
    let mut world = world(&json!({}));
    let body = json!({"model": "assistant", "background": true, "messages": []}).to_string();
    for (endpoint, expected) in [(Endpoint::Chat, true), (Endpoint::Responses, false)] {
        let body = Body::read(body.as_bytes(), endpoint, &world.config.parameters).unwrap();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
        exchange.start(&mut world.env()).unwrap();
        assert_eq!(exchange.sample_shadow(&mut Shadows::default(), &mut world.env()), expected);
    }
}
