//! The detour: which requests take it, and what the router and the attempt tell each other there.

use super::*;

/// All routes say `on_break`.
fn world(on_break: &str) -> World {
    World::with(&json!({"routes": [
        {"name": "chat", "match": {"path": PATH}, "providers": ALL, "stream": {"on_break": on_break},
         "shadow": {"provider": "two", "share": 1.0, "limit": 1, "per": "day"}}]}))
}

#[test]
fn only_a_live_stream_of_a_route_that_asks_for_it_takes_the_detour() {
    for (on_break, stream, complete, detours) in [
        ("event", true, false, true),
        ("event", true, true, false),
        ("event", false, false, false),
        ("event", false, true, false),
        ("reset", true, false, false),
        ("reset", false, false, false),
    ] {
        let exchange = world(on_break).plan_for("assistant", stream, complete).unwrap();
        assert_eq!(exchange.detours(), detours, "{on_break} {stream} {complete}");
    }
}

#[test]
fn a_copy_for_the_shadow_and_a_passthrough_request_take_no_detour() {
    let world = world("event");
    let shadow = Rc::new(world.config.for_shadow());
    assert!(!World { config: shadow, ..world }.plan(true).detours());
    let world = World::with(&json!({"passthrough": [{"path": "/v1/files*", "provider": "one"}]}));
    let pass = Pass { path: "/v1/files".to_owned(), method: "GET".to_owned() };
    let passing = Exchange::passing(Rc::clone(&world.config), ProviderId(0), pass);
    assert!(!passing.detours());
}

#[test]
fn a_request_arrives_at_the_internal_listener_once_and_only_on_its_detour() {
    let mut world = world("event");
    let mut exchange = world.plan(true);
    exchange.start(&mut world.env()).unwrap();
    assert!(exchange.misses_detour());
    assert_eq!(exchange.reach_detour(), Some(("one", Duration::from_secs(10))));
    assert!(!exchange.misses_detour());
    assert_eq!(exchange.reach_detour(), None);
    let mut whole = world.plan(false);
    whole.start(&mut world.env()).unwrap();
    assert_eq!(whole.reach_detour(), None);
    assert!(!whole.misses_detour());
}

#[test]
fn what_the_attempt_leaves_is_sent_once() {
    let mut exchange = world("event").plan(true);
    assert_eq!(exchange.take_ending(), None);
    exchange.leave_ending(b"end".to_vec());
    assert_eq!(exchange.take_ending().as_deref(), Some(&b"end"[..]));
    assert_eq!(exchange.take_ending(), None);
}
