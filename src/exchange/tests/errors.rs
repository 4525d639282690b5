//! A provider's error of which the gateway that moves the request knows only the head: where it is asked for again, and what its body
//! changes where it is not.

use super::relayed::{planned, resumed, told};
use super::*;
use crate::health::outcome::{judge, ErrorBody};
use crate::relay::Try;

/// What follows an error with this status, of which only the head is known, after these tries.
fn steered(world: &mut World, tries: &[Try], asked: &str, status: u16) -> Steering {
    let mut exchange = resumed(world, "one,two,three", tries, asked).unwrap();
    let (outcome, doubt) = judge(status, &ErrorBody::default());
    let mut verdict = Verdict { doubt, ..Verdict::certain(outcome, Some(status)) };
    exchange.steer(&mut verdict, &mut world.env()).unwrap()
}

/// The tries after which only the candidate `three` is left.
fn only_three_is_left() -> [Try; 2] {
    [told("one", Outcome::Overloaded, 503, Some("two")), told("two", Outcome::TooSlow, 504, Some("three"))]
}

#[test]
fn no_error_is_requested_again_if_no_candidate_is_left() {
    let mut world = World::new();
    let forwarded = Steering { next: Some("three".to_owned()), delivers: true };
    for status in
        (400..500).filter(|status| ![401, 402, 404, 405, 408, 409, 410, 413, 425, 429, 498].contains(status))
    {
        assert_eq!(steered(&mut world, &only_three_is_left(), "three", status), forwarded, "{status}");
    }
    let repeated = Steering { next: Some("three".to_owned()), delivers: false };
    assert_eq!(
        steered(&mut world, &only_three_is_left(), "three", 409),
        repeated,
        "a conflict is tried once more"
    );
    world.open("three");
    assert_eq!(
        steered(&mut world, &only_three_is_left(), "three", 409),
        forwarded,
        "but not behind an open breaker"
    );
}

#[test]
fn no_error_is_requested_again_if_no_attempt_is_left() {
    let mut world = World::with(&json!({"retry": {"attempts": 1}}));
    for status in [400, 403, 409, 422] {
        let forwarded = Steering { next: Some("one".to_owned()), delivers: true };
        assert_eq!(steered(&mut world, &[], "one", status), forwarded, "{status}");
    }
}

#[test]
fn an_error_whose_status_says_enough_is_never_requested_again() {
    for status in [401, 402, 404, 405, 408, 410, 413, 425, 429, 498, 500, 503, 529] {
        let Steering { next, delivers } = steered(&mut World::new(), &[], "one", status);
        let same = matches!(status, 408 | 425 | 500);
        assert_eq!((next.as_deref(), delivers), (Some(if same { "one" } else { "two" }), false), "{status}");
    }
}

#[test]
fn a_424_is_requested_again_only_if_a_larger_context_is_left() {
    let mut world = World::new();
    for (plan, asked, asks_again) in
        [("two,one", "two", false), ("two,three", "two", true), ("one,two", "one", true)]
    {
        let mut exchange = resumed(&world, plan, &[], asked).unwrap();
        let mut verdict = Verdict::certain(Outcome::BadRequest, Some(424));
        let steering = exchange.steer(&mut verdict, &mut world.env()).unwrap();
        assert_eq!(steering, Steering { next: Some(asked.to_owned()), delivers: !asks_again }, "{plan}");
    }
}

#[test]
fn a_request_that_is_too_long_for_everybody_is_told_so_by_the_status() {
    let mut world = World::new();
    let told_so = Steering { next: None, delivers: true };
    assert_eq!(steered(&mut world, &only_three_is_left(), "three", 413), told_so);
}

#[test]
fn the_body_of_an_error_that_was_forwarded_says_what_it_is() {
    for (outcome, status, is_told) in [
        (Outcome::BadRequest, 400, true),
        (Outcome::Refused, 400, true),
        (Outcome::TooLong, 422, true),
        (Outcome::BadKey, 403, false),
        (Outcome::OutOfQuota, 400, false),
    ] {
        let mut world = World::new();
        let (mut exchange, _) = planned(&mut world);
        let by_status = Verdict::certain(Outcome::BadRequest, Some(status));
        let headers = exchange.deliver_refusal("one", by_status, Duration::ZERO, &mut world.env()).unwrap();
        assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:bad_request"));
        assert_eq!(exchange.so_far(world.now).outcome, "bad_request", "should it break off");
        let (reply, _) = exchange.refusal_read(Verdict::certain(outcome, Some(status)), &mut world.env());
        assert_eq!(reply.map(|reply| reply.status), (!is_told).then_some(status), "{outcome:?}");
        let end = End { gone: false, replied: (!is_told).then_some(status) };
        let facts = exchange.finish(end, &mut world.env());
        assert_eq!((facts.status, facts.attempts.len()), (Some(status), 1));
        assert_eq!(facts.attempts[0].outcome, outcome);
        assert_eq!(facts.outcome, if is_told { outcome.name() } else { "failed" });
        let is_held = matches!(outcome, Outcome::BadKey | Outcome::OutOfQuota);
        assert_eq!(planned(&mut world).1[0] == "two", is_held, "{outcome:?}");
    }
}

#[test]
fn an_error_that_breaks_off_on_its_way_is_judged_by_its_status() {
    for (outcome, recorded) in
        [(Outcome::Truncated, Outcome::BadRequest), (Outcome::ClientGone, Outcome::ClientGone)]
    {
        let mut world = World::new();
        let (mut exchange, _) = planned(&mut world);
        let by_status = Verdict::certain(Outcome::BadRequest, Some(400));
        exchange.deliver_refusal("one", by_status, Duration::ZERO, &mut world.env()).unwrap();
        exchange.broke_off(outcome, &mut world.env());
        assert!(exchange.is_over());
        assert_eq!(exchange.attempts.last().unwrap().verdict.outcome, recorded);
        assert_eq!(world.counted("one"), (0, 0), "it is no failure of the provider");
    }
}
