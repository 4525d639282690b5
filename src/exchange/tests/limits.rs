//! `limits.total`: the time of a request over all of its attempts.

use super::*;

/// A world whose requests may take 20 s. One attempt may take 10 s until its first content, and 60 s until its end.
fn world() -> World {
    World::with(&json!({"limits": {"first_token": "10s", "answer": "60s", "total": "20s"}}))
}

fn silent() -> Verdict {
    Verdict::without_response(Outcome::TooSlow)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn no_attempt_is_given_more_time_than_the_request_has_left() {
    for (stream, per_try, left) in [(true, 10, [10, 10, 4]), (false, 20, [20, 13, 4])] {
        let mut world = world();
        let mut exchange = world.plan(stream);
        let start = exchange.start(&mut world.env()).unwrap();
        assert_eq!(start.per_try, seconds(per_try));
        exchange.begin("one", || NOW).unwrap();
        assert_eq!((exchange.limit(), exchange.cut_at()), (seconds(left[0]), None), "Envoy's timer ends it");
        world.advance(seconds(7));
        world.judge(&mut exchange, verdict(Outcome::Overloaded));
        assert_eq!(exchange.limit(), seconds(left[1]));
        world.advance(seconds(9));
        world.judge(&mut exchange, verdict(Outcome::Overloaded));
        assert_eq!((exchange.limit(), exchange.cut_at()), (seconds(left[2]), Some(NOW.after(seconds(20)))));
    }
}

#[test]
fn no_attempt_begins_after_the_time_of_the_request() {
    for (after, begins) in [(19_599, true), (19_600, false), (20_000, false), (60_000, false)] {
        for outcome in Outcome::ALL {
            let mut world = world();
            let (mut exchange, _) = world.asking(true);
            world.advance(Duration::from_millis(after));
            let next = world.judge(&mut exchange, verdict(outcome));
            let goes_on = !matches!(next, Next::Fail | Next::Deliver(_) | Next::Drop);
            let may = exchange.is_delivered() || outcome == Outcome::ClientGone;
            assert_eq!(goes_on, begins && !may, "{outcome:?} after {after}");
        }
    }
}

#[test]
fn what_was_too_long_for_the_last_provider_is_told_in_its_words_when_there_is_no_time_for_a_larger_one() {
    let mut world = world();
    let (mut exchange, _) = world.asking(true);
    world.advance(seconds(20));
    delivered(world.judge(&mut exchange, verdict(Outcome::TooLong)));
}

#[test]
fn the_gateway_does_not_wait_beyond_the_time_of_the_request() {
    for (after, next) in [(15_000, retry("one", 2)), (17_000, retry("two", 0))] {
        let mut world = world();
        let (mut exchange, _) = world.asking(true);
        world.advance(Duration::from_millis(after));
        assert_eq!(world.judge(&mut exchange, limited(2000)), next, "{after}");
    }
}

#[test]
fn an_attempt_that_runs_out_of_the_requests_time_ends_it_and_is_named() {
    let mut world = world();
    let (mut exchange, _) = world.asking(true);
    world.advance(seconds(10));
    assert_eq!(world.judge(&mut exchange, silent()), retry("two", 0));
    world.advance(seconds(6));
    assert_eq!(world.judge(&mut exchange, silent()), retry("three", 0));
    assert!(exchange.run_out(&mut world.env()).is_none(), "there is still time");
    world.advance(seconds(4));
    let decision = exchange.run_out(&mut world.env()).unwrap();
    assert_eq!(decision.next, Next::Fail);
    assert!(exchange.is_over() && exchange.run_out(&mut world.env()).is_none());
    let reply = exchange.failure(&mut world.env());
    assert_eq!(reply.status, 504);
    let attempts = header(&reply.headers, client_headers::ATTEMPTS);
    assert_eq!(attempts, Some("one:too_slow,two:too_slow,three:too_slow"));
}

#[test]
fn a_provider_that_was_given_less_than_its_limit_is_not_blamed_for_it() {
    let mut world = world();
    let (mut exchange, _) = world.asking(true);
    world.advance(seconds(10));
    world.judge(&mut exchange, silent());
    world.advance(seconds(6));
    world.judge(&mut exchange, silent());
    world.advance(seconds(4));
    exchange.run_out(&mut world.env()).unwrap();
    let counted = ALL.map(|name| world.counted(name));
    assert_eq!(counted, [(0, 1), (0, 1), (0, 0)], "the third had four of its ten seconds");
}

#[test]
fn the_first_provider_is_blamed_even_if_the_request_has_less_time_than_one_attempt() {
    let mut world = world();
    let (mut exchange, _) = world.asking(false);
    world.advance(seconds(20));
    assert_eq!(exchange.silence(false, world.now), Outcome::TooSlow);
    assert_eq!(world.judge(&mut exchange, silent()), Next::Fail);
    assert_eq!(world.counted("one"), (0, 1), "or nobody would ever learn that it is silent");
}

#[test]
fn an_answer_that_is_being_delivered_is_not_ended() {
    let mut world = world();
    let (mut exchange, _) = world.asking(true);
    delivered(world.judge(&mut exchange, verdict(Outcome::Answered)));
    world.advance(seconds(100));
    assert!(exchange.run_out(&mut world.env()).is_none());
    assert_eq!((exchange.cut_at(), exchange.is_delivered()), (None, true));
}

#[test]
fn a_route_has_its_own_time_and_without_one_there_is_no_limit() {
    let route = |total: Option<&str>| {
        let limits = total.map_or(json!({}), |total| json!({"total": total}));
        World::with(
            &json!({"routes": [{"name": "chat", "match": {"path": PATH}, "providers": ALL, "limits": limits}]}),
        )
    };
    for (total, left) in [(Some("5s"), 5), (None, 10)] {
        let mut world = route(total);
        let (exchange, _) = world.asking(true);
        assert_eq!(exchange.limit(), seconds(left));
        assert_eq!(exchange.is_late(NOW.after(seconds(4_000))), total.is_some());
    }
}
