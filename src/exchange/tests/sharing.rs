//! Providers that are about as quick share the load: what is counted as under way there, and until when.

use super::policies::{world_of, TEN};
use super::*;
use crate::spend::usage::Tally;

fn latency(changes: &Value) -> World {
    let mut policy = json!({"type": "latency", "explore": 0.3});
    for (key, value) in changes.as_object().unwrap() {
        policy[key] = value.clone();
    }
    let mut world = world_of(&policy, [json!("m"), json!("m"), json!("m")]);
    measure(&mut world, |name| if name == "three" { 2000 } else { 500 });
    world
}

/// Lets the world learn how long each provider takes, until nobody is tried any more.
fn measure(world: &mut World, speed: impl Fn(&str) -> u64) {
    for _ in 0..300 {
        let exchange = world.asked_for(None, true);
        world.answered_by(exchange, &speed);
    }
}

impl World {
    /// A request that is under way, and its provider.
    fn begun(&mut self, stream: bool) -> (Exchange, String) {
        let mut exchange = self.asked_for(None, stream);
        let provider = exchange.start(&mut self.env()).unwrap().provider;
        exchange.begin(&provider, || self.now).unwrap();
        (exchange, provider)
    }

    /// The providers of so many requests that come at once.
    fn at_once(&mut self, count: usize) -> (Vec<Exchange>, Vec<String>) {
        (0..count).map(|_| self.begun(true)).unzip()
    }
}

fn count(providers: &[String], name: &str) -> usize {
    providers.iter().filter(|provider| *provider == name).count()
}

/// Whether nothing counts as under way: of the next two requests each of the two quick providers gets one.
fn nothing_is_left(world: &mut World, why: &str) {
    for _ in 0..8 {
        let (_held, providers) = world.at_once(2);
        assert_eq!([count(&providers, "one"), count(&providers, "two")], [1, 1], "{why}");
    }
}

#[test]
fn requests_that_come_at_once_are_shared_by_equals_and_none_goes_to_a_slow_one() {
    let mut world = latency(&json!({}));
    let (held, providers) = world.at_once(40);
    assert_eq!(["one", "two", "three"].map(|name| count(&providers, name)), [20, 20, 0]);
    let record: Value = serde_json::from_str(&held[39].so_far(world.now).record()).unwrap();
    let first = record["plan"][0].as_str().unwrap();
    assert!(record["why"][first].as_str().unwrap().ends_with(", by share"), "{record}");
}

#[test]
fn the_load_of_a_provider_with_an_open_breaker_is_shared_by_the_others() {
    for sticky in [false, true] {
        let changes = if sticky { json!({"sticky": {"header": "x-conversation"}}) } else { json!({}) };
        let mut world = latency(&changes);
        // The third one has been slow, which has left the window.
        world.advance(Duration::from_secs(3600));
        measure(&mut world, |_| 500);
        world.advance(Duration::from_secs(10));
        world.open("one");
        let (mut held, mut providers) = (Vec::new(), Vec::new());
        for conversation in 0..200 {
            let mut exchange = world.asked_for(None, true);
            if sticky {
                exchange.stick_to(Some(conversation.to_string().into_bytes()));
            }
            providers.push(exchange.start(&mut world.env()).unwrap().provider);
            held.push(exchange);
        }
        let [one, two, three] = ["one", "two", "three"].map(|name| count(&providers, name));
        assert!(one == 0 && two.abs_diff(three) < 60, "{sticky}: {two} {three}");
    }
}

#[test]
fn with_a_band_of_zero_one_gets_them_all() {
    let mut world = latency(&json!({"band": 0}));
    let (_held, providers) = world.at_once(40);
    assert_eq!(count(&providers, &providers[0]), 40);
}

#[test]
fn a_provider_that_slows_down_gets_less_before_a_single_time_was_measured() {
    let mut world = latency(&json!({}));
    let (mut held, mut later) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let (mut exchange, provider) = world.begun(true);
        if number >= 20 {
            later.push(provider.clone());
        }
        // One of the two stops answering; the other one answers within 50 ms.
        world.advance(Duration::from_millis(50));
        if provider == "one" {
            held.push(exchange);
        } else {
            exchange.progress(Tally { begun: true, ..Tally::default() }, || world.now);
            let _ = exchange.judge(verdict(Outcome::Answered), false, false, &mut world.env()).unwrap();
        }
    }
    assert_eq!(count(&later, "one"), 0, "{later:?}");
    assert!(held.len() < 4, "{}", held.len());
}

#[test]
fn an_attempt_is_under_way_until_it_is_over_however_it_ends() {
    type EndsOf = fn(&mut World, Exchange);
    let answered: EndsOf = |world, mut exchange| {
        let _ = exchange.judge(verdict(Outcome::Answered), false, true, &mut world.env()).unwrap();
    };
    let first_token: EndsOf = |world, mut exchange| {
        exchange.progress(Tally { begun: true, ..Tally::default() }, || world.now);
        let _ = exchange.judge(verdict(Outcome::Answered), false, false, &mut world.env()).unwrap();
        // The stream goes on.
        std::mem::forget(exchange);
    };
    let refused: EndsOf = |world, mut exchange| {
        let bad = Verdict { status: Some(400), ..verdict(Outcome::BadRequest) };
        let _ = exchange.judge(bad, false, true, &mut world.env()).unwrap();
        std::mem::forget(exchange);
    };
    let client_gone: EndsOf = |world, mut exchange| {
        let _ = exchange.judge(verdict(Outcome::ClientGone), false, true, &mut world.env()).unwrap();
        std::mem::forget(exchange);
    };
    let lost: EndsOf = |_, exchange| drop(exchange);
    for (name, end) in [
        ("answered", answered),
        ("first token", first_token),
        ("refused", refused),
        ("client gone", client_gone),
        ("lost", lost),
    ] {
        let mut world = latency(&json!({}));
        for _ in 0..7 {
            let (exchange, _) = world.begun(true);
            end(&mut world, exchange);
        }
        nothing_is_left(&mut world, name);
    }
    let mut world = latency(&json!({}));
    for _ in 0..7 {
        let mut exchange = world.asked_for(None, true);
        exchange.start(&mut world.env()).unwrap();
        exchange.abandon(&mut world.env()).unwrap();
        std::mem::forget(exchange);
    }
    nothing_is_left(&mut world, "abandoned");
}

#[test]
fn a_request_that_moves_on_is_under_way_where_it_is_now() {
    let mut world = latency(&json!({}));
    let (mut held, mut first) = (Vec::new(), None);
    while held.len() < 2 {
        let (mut exchange, provider) = world.begun(true);
        let from = first.get_or_insert_with(|| provider.clone()).clone();
        assert_eq!(provider, from, "it moved on, so nothing is under way there");
        let next = world.judge(&mut exchange, verdict(Outcome::TooSlow));
        assert!(matches!(next, Next::Retry { .. }));
        assert_ne!(exchange.provider().unwrap().name, from);
        held.push(exchange);
    }
}

#[test]
fn sticky_requests_stay_at_one_of_the_equals() {
    let mut world = latency(&json!({"sticky": {"header": "X-Conversation"}}));
    let mut firsts: Vec<String> = Vec::new();
    for conversation in 0..40 {
        let turns: Vec<String> = (0..5)
            .map(|_| {
                let mut exchange = world.asked_for(None, true);
                assert_eq!(exchange.sticky_header().as_deref(), Some("x-conversation"));
                exchange.stick_to(Some(conversation.to_string().into_bytes()));
                let provider = exchange.start(&mut world.env()).unwrap().provider;
                // Never answered: what is under way grows.
                exchange.begin(&provider, || world.now).unwrap();
                std::mem::forget(exchange);
                provider
            })
            .collect();
        assert!(turns.iter().all(|provider| *provider == turns[0]), "{turns:?}");
        firsts.push(turns[0].clone());
    }
    let [one, two] = ["one", "two"].map(|name| count(&firsts, name));
    assert!(one > 8 && two > 8 && one + two == 40, "{one} {two}");
}

#[test]
fn a_route_without_such_a_policy_counts_nothing() {
    let mut world = world_of(&json!({"type": "priority"}), [json!("m"), json!("m"), json!("m")]);
    let (held, _) = world.at_once(3);
    assert!(held.iter().all(|exchange| exchange.attempts.waiting.is_none()));
    let mut world = world_of(&json!({"allow": ["latency"]}), [json!("m"), json!("m"), json!("m")]);
    let (held, _) = world.at_once(3);
    assert!(held.iter().all(|exchange| exchange.attempts.waiting.is_some()), "others may ask for it");
    assert_eq!(world.now, TEN);
}
