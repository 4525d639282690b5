//! Refusals of a conversation that has moved from one provider to another, and refusals that another provider would not make.

use super::second_opinion::{asking_body, doubted, first_of, judge, once, over, refused, run, saying, BODY};
use super::*;
use crate::health::outcome::{Doubt, ErrorBody};
use crate::record::audit::Opinion;

const FOUR: [&str; 4] = ["one", "two", "three", "four"];

/// The base world with a fourth provider, a second opinion on nothing, or both.
fn world(second_opinion: bool) -> World {
    let provider = json!({"host": "h", "api_key": "$KEY", "models": {"assistant": "m"}});
    let providers: serde_json::Map<String, Value> =
        FOUR.iter().map(|name| ((*name).to_owned(), provider.clone())).collect();
    World::with(&json!({
        "providers": providers,
        "routes": [{"name": "chat", "match": {"path": PATH}, "providers": FOUR}],
        "retry": {"second_opinion": second_opinion},
    }))
}

/// A refusal of the answer's limit or of the history, as the words of a vendor name it.
fn particular() -> Verdict {
    let doubt = Some(Doubt { code: "invalid_request_error".to_owned(), others_may_accept: true });
    Verdict { doubt, ..Verdict::certain(Outcome::BadRequest, Some(400)) }
}

fn conflict() -> Verdict {
    Verdict::certain(Outcome::BadRequest, Some(409))
}

/// Makes `two` believed: it refuses what others refuse, too.
fn believe(world: &mut World) {
    world.open("one");
    for text in ["x", "y", "z"] {
        let mut exchange = saying(world, text);
        run(world, &mut exchange, &[refused(), refused()]);
    }
    world.advance(Duration::from_secs(11));
    let mut exchange = saying(world, "back");
    run(world, &mut exchange, &[verdict(Outcome::Answered)]);
}

#[test]
fn after_a_failure_a_refusal_is_asked_of_who_remains_whatever_explains_it() {
    for failure in [
        Outcome::Overloaded,
        Outcome::TooSlow,
        Outcome::RateLimited,
        Outcome::BadKey,
        Outcome::NoSuchModel,
        Outcome::Unwilling,
        Outcome::TooLong,
    ] {
        for refusal in [
            refused(),
            particular(),
            verdict(Outcome::BadRequest),
            Verdict::certain(Outcome::BadRequest, Some(424)),
        ] {
            for second_opinion in [true, false] {
                let mut world = world(second_opinion);
                believe(&mut world);
                let mut exchange = saying(&mut world, "a");
                let next = run(&mut world, &mut exchange, &[verdict(failure), refusal.clone()]);
                assert_eq!(next, retry("three", 0), "{failure:?} {refusal:?} {second_opinion}");
                let headers = delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
                let attempts = ["one:", failure.name(), ",two:bad_request,three:answered"].concat();
                assert_eq!(header(&headers, client_headers::ATTEMPTS), Some(attempts.as_str()));
                assert_eq!(
                    over(&mut world, &mut exchange),
                    ("answered", Some(Opinion::Disproved), Some("three".to_owned()))
                );
            }
        }
    }
}

#[test]
fn one_more_refusal_ends_it_and_the_client_gets_the_first_one() {
    for more in [verdict(Outcome::BadRequest), refused(), particular(), verdict(Outcome::Refused)] {
        let mut world = world(true);
        let mut exchange = saying(&mut world, "a");
        let next = run(&mut world, &mut exchange, &[verdict(Outcome::Overloaded), refused(), more]);
        assert_eq!(next, Next::Fail, "the fourth is not asked");
        let reply = exchange.failure(&mut world.env());
        assert_eq!((reply.status, reply.body.as_slice()), (400, BODY));
        assert_eq!(header(&reply.headers, client_headers::PROVIDER), Some("two"));
        assert_eq!(
            header(&reply.headers, client_headers::ATTEMPTS).map(|all| all.split(',').count()),
            Some(3)
        );
        assert_eq!(
            over(&mut world, &mut exchange),
            ("bad_request", Some(Opinion::Confirmed), Some("two".to_owned()))
        );
    }
}

#[test]
fn if_nobody_answers_the_client_gets_the_first_refusal() {
    let mut world = world(true);
    let mut exchange = saying(&mut world, "a");
    let overloaded = || verdict(Outcome::Overloaded);
    let next = run(&mut world, &mut exchange, &[overloaded(), refused(), overloaded(), overloaded()]);
    assert_eq!(next, Next::Fail);
    let reply = exchange.failure(&mut world.env());
    assert_eq!((reply.status, reply.body.as_slice()), (400, BODY));
    assert_eq!(over(&mut world, &mut exchange), ("bad_request", None, Some("two".to_owned())));
}

#[test]
fn a_conflict_after_a_failure_is_repeated_and_then_asked_of_who_remains() {
    let mut world = world(true);
    let mut exchange = saying(&mut world, "a");
    let next = run(&mut world, &mut exchange, &[verdict(Outcome::Overloaded), conflict()]);
    assert_eq!(next, retry("two", 0));
    assert_eq!(judge(&mut world, &mut exchange, conflict()), retry("three", 0));
    delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
}

#[test]
fn a_conflict_is_not_repeated_with_the_attempt_that_another_candidate_needs() {
    let mut world = World::with(&json!({"retry": {"attempts": 3}}));
    let mut exchange = saying(&mut world, "a");
    let next = run(&mut world, &mut exchange, &[verdict(Outcome::Overloaded), conflict()]);
    assert_eq!(next, retry("three", 0));
    delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
}

#[test]
fn who_is_passed_over_for_its_health_has_failed_as_well() {
    for second_opinion in [true, false] {
        let mut world = world(second_opinion);
        believe(&mut world);
        world.open("one");
        let mut exchange = saying(&mut world, "a");
        assert_eq!(judge(&mut world, &mut exchange, refused()), retry("three", 0));
        let headers = delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
        assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("two:bad_request,three:answered"));
    }
}

#[test]
fn the_limits_of_attempts_and_time_hold_for_a_conversation_that_has_moved() {
    let mut world = World::with(&json!({"retry": {"attempts": 2}}));
    let mut exchange = saying(&mut world, "a");
    let next = run(&mut world, &mut exchange, &[verdict(Outcome::Overloaded), verdict(Outcome::BadRequest)]);
    assert_eq!(header(&delivered(next), client_headers::PROVIDER), Some("two"), "no attempt is left");

    let mut world = World::with(&json!({"limits": {"total": "20s"}}));
    let mut exchange = saying(&mut world, "a");
    run(&mut world, &mut exchange, &[verdict(Outcome::Overloaded)]);
    world.advance(Duration::from_secs(21));
    delivered(judge(&mut world, &mut exchange, verdict(Outcome::BadRequest)));
}

#[test]
fn a_refusal_of_a_limit_or_of_anothers_history_is_asked_about_even_where_it_came_first() {
    for second_opinion in [true, false] {
        let mut world = world(second_opinion);
        for text in ["a", "b", "c", "d", "e"] {
            let mut exchange = saying(&mut world, text);
            assert_eq!(judge(&mut world, &mut exchange, particular()), retry("two", 0), "{text}");
            delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
        }
        assert_eq!(first_of(&mut world, "f"), "one", "it is no evidence against the model");
        // However often it is confirmed, the next one is asked about again.
        for text in ["a", "b", "c", "d", "e"] {
            let mut exchange = saying(&mut world, text);
            let next = run(&mut world, &mut exchange, &[particular(), verdict(Outcome::BadRequest)]);
            assert_eq!(next, Next::Fail, "{text}");
            assert_eq!(exchange.failure(&mut world.env()).body, BODY);
        }
    }
    // What one provider keeps, no other one has.
    let mut world = world(true);
    let body = json!({"model": "assistant", "messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]});
    let mut exchange = asking_body(&mut world, &body);
    delivered(judge(&mut world, &mut exchange, particular()));
}

#[test]
fn a_refusal_after_a_failure_changes_no_breaker_and_holds_nobody() {
    let mut world = world(true);
    for text in ["a", "b", "c", "d", "e", "f"] {
        let mut exchange = saying(&mut world, text);
        run(&mut world, &mut exchange, &[verdict(Outcome::BadKey), refused(), verdict(Outcome::Answered)]);
        over(&mut world, &mut exchange);
        assert_eq!(exchange.take_notes(), Vec::<String>::new());
        world.advance(Duration::from_secs(3600));
        world.open("three");
        world.advance(Duration::from_secs(41));
    }
    assert_eq!(world.counted("two"), (0, 0));
    assert!(!world.record("two").models.iter().any(|held| held.until > world.now));
}

#[test]
fn a_provider_that_refuses_everything_is_held_although_another_one_is_on_hold() {
    let mut world = world(true);
    world.open("one");
    for text in ["a", "b", "c"] {
        once(&mut world, text, refused(), Outcome::Answered);
    }
    assert_eq!(first_of(&mut world, "d"), "three");
}

#[test]
fn a_refusal_after_a_failure_is_kept_within_its_bound() {
    let mut world = world(true);
    let mut exchange = saying(&mut world, "a");
    world.judge(&mut exchange, verdict(Outcome::Overloaded));
    world.judge(&mut exchange, verdict(Outcome::BadRequest));
    assert!(exchange.wants_refusal());
    let long = ["{\"error\":{\"message\":\"", &"x".repeat(80 << 10), "\",\"code\":\"c\"}}"].concat();
    let error = ErrorBody::read(long.as_bytes());
    exchange
        .keep_refusal(Refused { status: 422, body: long.as_bytes(), error: &error, request_id: None }, "");
    world.judge(&mut exchange, doubted(Outcome::BadRequest, 400, "other"));
    let reply = exchange.failure(&mut world.env());
    assert_eq!(reply.status, 422);
    assert!(reply.body.len() <= 64 << 10);
}
