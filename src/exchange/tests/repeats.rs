//! When the same provider is asked again: after a conflict, and after a failure of which it says when it is back.

use super::*;

fn conflict() -> Verdict {
    Verdict::certain(Outcome::BadRequest, Some(409))
}

/// A 503 that asks for a wait.
fn back_in(millis: u64) -> Verdict {
    let retry_after = Some(Duration::from_millis(millis));
    Verdict { retry_after, ..Verdict::certain(Outcome::Overloaded, Some(503)) }
}

fn one_provider(changes: &Value) -> World {
    let mut document = json!({"routes": [{"name": "chat", "match": {"path": PATH}, "providers": ["one"]}]});
    for (key, value) in changes.as_object().unwrap() {
        document[key] = value.clone();
    }
    World::with(&document)
}

// Conflicts.

#[test]
fn a_conflict_is_tried_once_more_and_then_it_is_the_clients_answer() {
    for attempts in [2, 3, 31] {
        let mut world = World::with(&json!({"retry": {"attempts": attempts}}));
        let (mut exchange, _) = world.asking(false);
        assert_eq!(world.judge(&mut exchange, conflict()), retry("one", 0), "{attempts}");
        delivered(world.judge(&mut exchange, conflict()));
        assert_eq!(world.counted("one"), (0, 0), "a conflict says nothing about the provider");
    }
}

#[test]
fn a_conflict_is_no_reason_to_ask_another_provider_and_a_failure_after_it_is() {
    let mut world = World::with(&json!({"retry": {"attempts": 8}}));
    let (mut exchange, _) = world.asking(false);
    assert_eq!(world.judge(&mut exchange, conflict()), retry("one", 0));
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), retry("two", 0));
    assert_eq!(world.judge(&mut exchange, conflict()), retry("two", 0), "each has its own conflicts");
    assert_eq!(world.judge(&mut exchange, conflict()), retry("three", 0), "after a failure it is no end");
}

#[test]
fn a_conflict_is_not_repeated_when_no_attempt_is_left() {
    let mut world = World::with(&json!({"retry": {"attempts": 1}}));
    let (mut exchange, _) = world.asking(false);
    delivered(world.judge(&mut exchange, conflict()));
}

#[test]
fn a_conflict_that_names_a_short_wait_is_repeated_after_it_and_one_with_a_long_wait_is_not() {
    for (millis, wait) in [(0, Some(0)), (900, Some(1)), (30_000, None)] {
        let mut world = World::new();
        let (mut exchange, _) = world.asking(false);
        let verdict = Verdict { retry_after: Some(Duration::from_millis(millis)), ..conflict() };
        let next = world.judge(&mut exchange, verdict);
        match wait {
            Some(wait) => assert_eq!(next, retry("one", wait)),
            None => assert!(matches!(next, Next::Deliver(_)), "{next:?}"),
        }
    }
}

#[test]
fn a_conflict_with_a_reason_that_is_known_is_judged_by_it() {
    for outcome in [Outcome::Refused, Outcome::OutOfQuota, Outcome::NoSuchModel] {
        let mut world = World::new();
        let (mut exchange, _) = world.asking(false);
        let next = world.judge(&mut exchange, Verdict::certain(outcome, Some(409)));
        assert_ne!(next, retry("one", 0), "{outcome:?}");
    }
}

// Failures with a wait.

#[test]
fn a_server_that_says_when_it_is_back_is_not_asked_again_at_once() {
    for outcome in [Outcome::ServerError, Outcome::Overloaded] {
        for millis in [0, 1, 1000, 600_000, u64::MAX] {
            let mut world = World::new();
            let (mut exchange, _) = world.asking(false);
            let verdict = Verdict { retry_after: Some(Duration::from_millis(millis)), ..verdict(outcome) };
            assert_eq!(world.judge(&mut exchange, verdict), retry("two", 0), "{outcome:?} {millis}");
        }
    }
}

#[test]
fn it_is_waited_for_once_when_nobody_else_is_left() {
    for (millis, wait) in [(0, 0), (1, 1), (2000, 2)] {
        let mut world = one_provider(&json!({"retry": {"attempts": 4}}));
        let (mut exchange, _) = world.asking(false);
        assert_eq!(world.judge(&mut exchange, back_in(millis)), retry("one", wait), "{millis}");
        assert_eq!(world.judge(&mut exchange, back_in(millis)), Next::Fail, "only once");
    }
    for millis in [2001, 60_000] {
        let mut world = one_provider(&json!({}));
        let (mut exchange, _) = world.asking(false);
        assert_eq!(world.judge(&mut exchange, back_in(millis)), Next::Fail, "{millis} is too long");
        assert!(exchange.is_over());
    }
}

#[test]
fn of_several_the_one_that_is_back_first_is_waited_for_and_time_that_has_passed_counts() {
    let mut world = World::with(&json!({"retry": {"attempts": 9}, "limits": {"answer": "60s"}}));
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, back_in(2000));
    world.advance(Duration::from_secs(1));
    world.judge(&mut exchange, back_in(2000));
    world.advance(Duration::from_millis(500));
    // 1.5 s after the first 503.
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::BadKey)), retry("one", 1));
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), retry("two", 2));
    assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), Next::Fail);
}

#[test]
fn the_client_gets_the_answer_of_the_one_that_was_waited_for() {
    let mut world = one_provider(&json!({}));
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, back_in(1000));
    world.advance(Duration::from_secs(1));
    let headers = delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:overloaded,one:answered"));
}

#[test]
fn nobody_is_waited_for_where_the_gateway_cannot_wait() {
    // There is no response to which the wait could be added.
    let mut world = World::with(&json!({"retry": {"attempts": 9}}));
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, back_in(1000));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    assert_eq!(world.judge(&mut exchange, Verdict::without_response(Outcome::TooSlow)), Next::Fail);
    // The gateway makes no pauses.
    for (millis, next) in [(1000, Next::Fail), (0, retry("one", 0))] {
        let mut world = one_provider(&json!({}));
        let mut exchange = world.plan(false);
        exchange.never_wait();
        exchange.start(&mut world.env()).unwrap();
        exchange.begin("one", || NOW).unwrap();
        assert_eq!(world.judge(&mut exchange, back_in(millis)), next, "{millis}");
    }
}

#[test]
fn a_provider_whose_breaker_has_opened_is_not_waited_for() {
    let mut world = one_provider(&json!({"breaker": {"consecutive_failures": 1}}));
    let (mut exchange, _) = world.asking(false);
    assert_eq!(world.judge(&mut exchange, back_in(1000)), Next::Fail);
}

#[test]
fn a_provider_that_is_waited_for_gets_the_request_in_its_own_format() {
    let mut world = translating("openai");
    let mut exchange = asking_with(&world, &sayable());
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || NOW).unwrap();
    while let Next::Retry { provider, .. } = world.judge(&mut exchange, back_in(0)) {
        let is_translated = exchange.translated().is_some();
        let wire = world.config.providers.iter().find(|known| known.name == provider).unwrap().dialect.wire;
        assert_eq!(is_translated, wire == Wire::Anthropic, "{provider}");
    }
    assert!(exchange.attempts.all().len() > 2, "one of them was waited for");
}

// What the client learns.

#[test]
fn a_client_is_told_not_to_come_back_while_every_provider_is_held_for_longer_than_it_would_wait() {
    for (seconds, expected) in [(20, None), (60, None), (61, Some("false")), (3000, Some("false"))] {
        let mut world = World::new();
        let (mut exchange, _) = world.asking(false);
        for more in [0, 5, 9] {
            world.judge(&mut exchange, limited((seconds + more) * 1000));
        }
        let reply = exchange.failure(&mut world.env());
        assert_eq!(header(&reply.headers, "x-should-retry"), expected, "{seconds}");
        assert_eq!(header(&reply.headers, "retry-after"), Some(seconds.to_string().as_str()));
    }
    let mut world = World::new();
    let (mut exchange, _) = world.asking(false);
    world.judge(&mut exchange, limited(600_000));
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, limited(600_000));
    let reply = exchange.failure(&mut world.env());
    assert_eq!(header(&reply.headers, "x-should-retry"), None, "the second one may be asked at once");
}
