//! An exchange whose tries the gateway makes by itself: what the router plans, what an attempt makes of it, and what the
//! router learns.

use super::*;
use crate::relay::{FinishedTry, Try};

pub(super) fn told(provider: &str, outcome: Outcome, status: u16, next: Option<&str>) -> Try {
    let verdict = Verdict::certain(outcome, Some(status));
    Try { provider: provider.to_owned(), verdict, next: next.map(str::to_owned) }
}

/// A try that is over, told by its attempt.
fn done(provider: &str, verdict: Verdict, took: Duration) -> FinishedTry {
    let told = Try { provider: provider.to_owned(), verdict, next: None };
    FinishedTry { report: told, took, is_reported: true, is_misrouted: false }
}

fn head() -> Head {
    Head { path: PATH.to_owned(), complete: false, policy: None }
}

fn body(world: &World) -> Body {
    let body = json!({"model": "assistant", "stream": true, "messages": []}).to_string();
    Body::read(body.as_bytes(), Endpoint::Chat, &world.config.parameters).unwrap()
}

pub(super) fn resumed(world: &World, plan: &str, tries: &[Try], asked: &str) -> Result<Exchange, Rejection> {
    let turn = Turn { plan, tries, asked, now: world.now, deadline: None, makers: None };
    Exchange::resume(Rc::clone(&world.config), &head(), body(world), turn)
}

/// A streamed request that was planned, and its plan.
pub(super) fn planned(world: &mut World) -> (Exchange, Vec<String>) {
    let mut exchange = world.plan(true);
    exchange.never_wait();
    exchange.start(&mut world.env()).unwrap();
    let plan = exchange.line_up(&mut world.env());
    (exchange, plan)
}

#[test]
fn available_candidates_come_first_and_then_those_whose_exclusion_ends_first() {
    let mut world = World::new();
    assert_eq!(planned(&mut world).1, ALL);
    world.open("one");
    assert_eq!(planned(&mut world).1, ["two", "three", "one"]);
    world.advance(Duration::from_secs(5));
    world.open("two");
    assert_eq!(planned(&mut world).1, ["three", "one", "two"]);
}

#[test]
fn a_probe_goes_first_and_only_once() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let (_probing, plan) = planned(&mut world);
    assert_eq!(plan, ALL);
    assert_eq!(planned(&mut world).1, ["two", "three", "one"], "the permit is taken");
}

#[test]
fn an_attempt_names_the_same_next_provider_as_the_exchange_itself() {
    use Outcome::{
        BadKey, NoSuchModel, OutOfQuota, Overloaded, RateLimited, ServerError, TooSlow, Unreachable,
    };
    let world = World::new();
    for (outcome, next) in [
        (ServerError, "one"),
        (Overloaded, "two"),
        (Unreachable, "two"),
        (TooSlow, "two"),
        (RateLimited, "two"),
        (OutOfQuota, "two"),
        (BadKey, "two"),
        (NoSuchModel, "two"),
    ] {
        let mut exchange = resumed(&world, "one,two,three", &[], "one").unwrap();
        let mut env = World::new();
        assert_eq!(
            exchange.steer(&mut verdict(outcome), &mut env.env()),
            Ok(Steering { next: Some(next.to_owned()), delivers: false }),
            "{outcome:?}"
        );
    }
}

#[test]
fn if_a_try_reported_nothing_the_plan_says_which_provider_is_due() {
    let world = World::new();
    let silent = Try {
        verdict: Verdict::without_response(Outcome::TooSlow),
        ..told("one", Outcome::TooSlow, 504, None)
    };
    let before = [told("one", Outcome::ServerError, 500, Some("one")), silent];
    let third = resumed(&world, "one,two,three", &before, "three").unwrap();
    assert_eq!(third.due(None).as_deref(), Some("two"));
    assert_eq!(third.due(Some("one")).as_deref(), Some("one"), "once more, if the last one says so");
    let all = ["one", "two", "three"].map(|name| told(name, Outcome::TooSlow, 504, None));
    assert_eq!(resumed(&world, "one,two,three", &all, "one").unwrap().due(None), None, "nobody is left");
}

#[test]
fn a_gateway_that_cannot_wait_tries_the_next_provider_at_once() {
    let mut world = World::new();
    let mut exchange = resumed(&world, "one,two", &[], "one").unwrap();
    assert_eq!(exchange.steer(&mut limited(1000), &mut world.env()).unwrap().next.as_deref(), Some("two"));
}

#[test]
fn a_server_error_is_tried_again_there_once_in_the_whole_chain() {
    let mut world = World::new();
    let before = [told("one", Outcome::ServerError, 500, Some("one"))];
    let mut exchange = resumed(&world, "one,two,three", &before, "one").unwrap();
    assert_eq!(
        exchange.steer(&mut verdict(Outcome::ServerError), &mut world.env()).unwrap().next.as_deref(),
        Some("two")
    );
}

#[test]
fn after_the_last_candidate_no_next_provider_is_named() {
    let mut world = World::new();
    let before = [
        told("one", Outcome::Overloaded, 503, Some("two")),
        told("two", Outcome::TooSlow, 504, Some("three")),
    ];
    let mut exchange = resumed(&world, "one,two,three", &before, "three").unwrap();
    assert_eq!(
        exchange.steer(&mut verdict(Outcome::Overloaded), &mut world.env()),
        Ok(Steering { next: None, delivers: false })
    );
}

#[test]
fn an_error_that_only_its_body_explains_is_requested_again_and_blames_no_provider_before() {
    let mut world = World::new();
    for status in [400, 403, 422] {
        let mut bad = Verdict::certain(Outcome::BadKey, Some(status));
        let mut exchange = resumed(&world, "one,two,three", &[], "one").unwrap();
        assert_eq!(
            exchange.steer(&mut bad, &mut world.env()),
            Ok(Steering { next: Some("one".to_owned()), delivers: false }),
            "{status}"
        );
        assert_eq!(bad.outcome, Outcome::BadRequest);
    }
    let before = [told("one", Outcome::BadRequest, 400, Some("one"))];
    let mut again = resumed(&world, "one,two,three", &before, "one").unwrap();
    let too_long = Verdict::certain(Outcome::TooLong, Some(400));
    assert_eq!(again.judge(too_long, false, true, &mut world.env()).unwrap().next, retry("two", 0));
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let world = World::new();
    for (plan, asked) in [("one,two", "three"), ("", "one"), ("nobody", "nobody")] {
        let refused = resumed(&world, plan, &[], asked).err().map(|rejection| rejection.code);
        assert_eq!(refused, Some(Some("gateway_misconfigured")), "{plan:?} {asked:?}");
    }
}

#[test]
fn what_an_attempt_sees_is_not_reported_twice() {
    let mut world = World::new();
    let mut exchange = resumed(&world, "one,two", &[], "one").unwrap();
    let mut elsewhere = World::new();
    exchange.steer(&mut verdict(Outcome::Overloaded), &mut elsewhere.env()).unwrap();
    let (mut router, _) = planned(&mut world);
    let took = Duration::from_millis(100);
    router.tried_by_gateway(done("one", verdict(Outcome::Overloaded), took), &mut world.env());
    assert_eq!(world.counted("one"), (0, 1));
}

#[test]
fn the_router_learns_of_each_try_and_the_client_reads_them_in_a_header() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    let took = Duration::from_millis(120);
    exchange.tried_by_gateway(done("one", verdict(Outcome::ServerError), took), &mut world.env());
    exchange.tried_by_gateway(done("one", verdict(Outcome::ServerError), took), &mut world.env());
    assert!(exchange.taken_up("two", took, &mut world.env()));
    assert_eq!(exchange.asked().unwrap().key.secret(), "sk-test");
    let answered = Verdict::certain(Outcome::Answered, Some(200));
    let headers = delivered(exchange.judge(answered, false, false, &mut world.env()).unwrap().next);
    assert_eq!(
        header(&headers, client_headers::ATTEMPTS),
        Some("one:server_error,one:server_error,two:answered")
    );
    assert_eq!(header(&headers, client_headers::PROVIDER), Some("two"));
    assert_eq!(exchange.attempts.all()[0].took, took);
    exchange.ended(Outcome::Truncated, &mut world.env()).unwrap();
    assert_eq!((world.counted("one"), world.counted("two")), ((0, 2), (0, 1)));
}

#[test]
fn a_limit_is_a_hold_for_as_long_as_it_says() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    exchange.tried_by_gateway(done("one", limited(30_000), Duration::ZERO), &mut world.env());
    assert_eq!(planned(&mut world).1, ["two", "three", "one"]);
    world.advance(Duration::from_secs(31));
    assert_eq!(planned(&mut world).1, ALL);
}

#[test]
fn a_permit_that_was_not_used_is_given_back() {
    let mut world = World::new();
    world.open("one");
    world.advance(Duration::from_secs(11));
    let (mut exchange, _) = planned(&mut world);
    exchange.tried_by_gateway(done("two", verdict(Outcome::Overloaded), Duration::ZERO), &mut world.env());
    let (_again, plan) = planned(&mut world);
    assert_eq!(plan, ALL, "somebody else may probe");
}

#[test]
fn a_provider_outside_the_plan_changes_nothing() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    assert_eq!(
        exchange
            .tried_by_gateway(done("nobody", verdict(Outcome::Overloaded), Duration::ZERO), &mut world.env()),
        None
    );
    assert!(!exchange.taken_up("nobody", Duration::ZERO, &mut world.env()));
    assert!(!exchange.was_tried());
}

#[test]
fn the_providers_own_error_reaches_the_client_with_its_name() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    let bad = Verdict::certain(Outcome::BadRequest, Some(422));
    let headers = exchange.deliver_refusal("one", bad.clone(), Duration::ZERO, &mut world.env()).unwrap();
    assert_eq!(exchange.refusal_read(bad, &mut world.env()), (None, None));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:bad_request"));
    assert!(exchange.is_delivered());
}

#[test]
fn a_record_so_far_settles_nothing() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    exchange.taken_up("one", Duration::ZERO, &mut world.env());
    let answered = Verdict::certain(Outcome::Answered, Some(200));
    exchange.judge(answered, false, false, &mut world.env()).unwrap();
    assert_eq!(exchange.so_far(world.now).outcome, "truncated");
    exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    let end = End { gone: false, replied: None };
    assert_eq!(exchange.finish(end, &mut world.env()).outcome, "answered");
}

#[test]
fn a_client_that_leaves_before_an_answer_begins_blames_no_provider() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    exchange.taken_up("one", Duration::ZERO, &mut world.env());
    assert_eq!(exchange.so_far(world.now).outcome, "client_gone");
    exchange.broke_off(Outcome::ClientGone, &mut world.env());
    assert!(exchange.is_over());
    let facts = exchange.finish(End { gone: true, replied: None }, &mut world.env());
    assert_eq!(facts.outcome, "client_gone");
    // Nothing was counted against the provider, which is asked first again.
    let (_, plan) = planned(&mut world);
    assert_eq!(plan.first().map(String::as_str), Some("one"));
}

#[test]
fn a_reply_of_the_gateway_itself_blames_no_provider() {
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    let lost =
        FinishedTry { is_misrouted: true, ..done("one", verdict(Outcome::Unreachable), Duration::ZERO) };
    exchange.tried_by_gateway(lost, &mut world.env());
    assert_eq!(world.counted("one"), (0, 0));
    assert!(exchange.was_tried());
}

#[test]
fn the_second_request_for_the_body_of_an_error_belongs_to_the_same_attempt() {
    let mut world = World::with(&json!({"retry": {"attempts": 2}}));
    let why = Try { next: Some("one".to_owned()), ..told("one", Outcome::BadRequest, 400, None) };
    let mut again = resumed(&world, "one,two,three", std::slice::from_ref(&why), "one").unwrap();
    let bad_key = Verdict::certain(Outcome::BadKey, Some(400));
    assert_eq!(again.judge(bad_key, false, true, &mut world.env()).unwrap().next, retry("two", 0));
    let (mut router, _) = planned(&mut world);
    let asked = FinishedTry { report: why, took: Duration::ZERO, is_reported: true, is_misrouted: false };
    router.tried_by_gateway(asked, &mut world.env());
    assert!(!router.was_tried());
}

#[test]
fn a_budget_about_a_provider_counts_what_the_gateway_moved_there() {
    let price = json!({"name": "m", "price": {"input": 1_000_000, "output": 1_000_000}});
    let provider = json!({"host": "h", "api_key": "$KEY", "models": {"assistant": price}});
    let budget = json!([{"name": "two", "match": {"provider": "two"}, "limit": 1, "per": "day", "when_spent": "skip"}]);
    let mut world = World::with(
        &json!({"providers": {"one": provider, "two": provider, "three": provider}, "budgets": budget}),
    );
    let (mut exchange, plan) = planned(&mut world);
    assert_eq!(plan, ALL);
    exchange.tried_by_gateway(done("one", verdict(Outcome::Overloaded), Duration::ZERO), &mut world.env());
    exchange.taken_up("two", Duration::ZERO, &mut world.env());
    let answered = Verdict::certain(Outcome::Answered, Some(200));
    exchange.judge(answered, false, false, &mut world.env()).unwrap();
    exchange.ended(Outcome::Answered, &mut world.env()).unwrap();
    exchange.finish(End { gone: false, replied: None }, &mut world.env());
    assert_eq!(planned(&mut world).1, ["one", "three"], "its money is spent");
}

#[test]
fn a_budget_of_requests_reserves_at_the_price_of_the_provider_to_which_the_gateway_moved() {
    let provider = |price: u64| {
        let price = json!({"name": "m", "price": {"input": 0, "output": price}});
        json!({"host": "h", "api_key": "$KEY", "models": {"assistant": price}})
    };
    let mut world = World::with(&json!({
        "providers": {"one": provider(1), "two": provider(100), "three": provider(10)},
        "budgets": [{"name": "all", "limit": 0.001, "per": "day", "when_spent": "block"}],
    }));
    let reserved = |world: &mut World| {
        let budget = &world.config.budgets[0];
        let owner = budget.owner(Default::default()).unwrap();
        budget.standing(owner, NOW, &mut world.store).reserved_pico
    };
    // A thousand tokens for a dollar a million.
    let each = 1_000_000_000;
    let (mut exchange, _) = planned(&mut world);
    assert_eq!(reserved(&mut world), each);
    let mut elsewhere = resumed(&world, "one,two,three", &[], "one").unwrap();
    elsewhere.judge(verdict(Outcome::Overloaded), false, true, &mut world.env()).unwrap();
    assert_eq!(reserved(&mut world), each, "only the router counts");
    exchange.tried_by_gateway(done("one", verdict(Outcome::Overloaded), Duration::ZERO), &mut world.env());
    // The gateway has moved it already, so that it is counted although there is no room.
    exchange.taken_up("two", Duration::ZERO, &mut world.env());
    assert_eq!(reserved(&mut world), 100 * each);
    exchange.tried_by_gateway(done("two", verdict(Outcome::Overloaded), Duration::ZERO), &mut world.env());
    exchange.taken_up("three", Duration::ZERO, &mut world.env());
    assert_eq!(reserved(&mut world), 10 * each);
    exchange.broke_off(Outcome::ClientGone, &mut world.env());
    exchange.finish(End { gone: true, replied: None }, &mut world.env());
    assert_eq!(reserved(&mut world), 0);
}

#[test]
fn an_attempt_that_was_taken_up_knows_when_it_began() {
    let world = World::new();
    let exchange = resumed(&world, "one,two", &[], "one").unwrap();
    assert_eq!(exchange.silence(false, world.now), Outcome::Unreachable);
    assert_eq!(exchange.silence(true, world.now), Outcome::Truncated);
    assert_eq!(exchange.silence(true, world.now.after(Duration::from_secs(10))), Outcome::TooSlow);
}

#[test]
fn a_conflict_whose_error_was_read_in_a_second_try_is_not_tried_a_third_time() {
    let mut world = World::new();
    let lookup = told("one", Outcome::BadRequest, 409, Some("one"));
    for (tries, next) in [(&[][..], Some("one")), (&[lookup][..], None)] {
        let mut exchange = resumed(&world, "one,two,three", tries, "one").unwrap();
        let verdict = Verdict::certain(Outcome::BadRequest, Some(409));
        let found = exchange.judge(verdict, false, true, &mut world.env()).unwrap().next;
        assert_eq!(
            matches!(&found, Next::Retry { provider, .. } if Some(provider.as_str()) == next),
            next.is_some()
        );
        assert_eq!(exchange.is_delivered(), next.is_none());
    }
}

#[test]
fn a_resumed_request_has_the_time_that_its_router_has_left_it() {
    let world = World::with(&json!({"limits": {"first_token": "10s", "total": "20s"}}));
    let at = |deadline: Option<Duration>| {
        let deadline = deadline.map(|left| NOW.after(left));
        let turn = Turn { plan: "one,two,three", tries: &[], asked: "one", now: NOW, deadline, makers: None };
        Exchange::resume(Rc::clone(&world.config), &head(), body(&world), turn).unwrap()
    };
    for (left, limit, is_late) in
        [(15_000, 10_000, false), (4_000, 4_000, false), (100, 100, true), (0, 0, true)]
    {
        let exchange = at(Some(Duration::from_millis(left)));
        assert_eq!(exchange.limit(), Duration::from_millis(limit), "{left}");
        assert_eq!(exchange.is_late(NOW), is_late, "{left}");
        assert_eq!(exchange.deadline(), Some(NOW.after(Duration::from_millis(left))));
    }
    assert_eq!((at(None).limit(), at(None).deadline()), (Duration::from_secs(10), None));
}

#[test]
fn after_a_failure_a_refusal_moves_on_and_the_last_one_goes_out() {
    let world = World::new();
    let refused = || Verdict::certain(Outcome::BadRequest, Some(400));
    let down = told("one", Outcome::Overloaded, 503, Some("two"));
    let lookup = told("two", Outcome::BadRequest, 400, Some("two"));
    let mut second = resumed(&world, "one,two,three", &[down.clone(), lookup.clone()], "two").unwrap();
    let mut env = World::new();
    assert_eq!(env.judge_alone(&mut second, refused()), retry("three", 0));
    let moved = told("two", Outcome::BadRequest, 400, Some("three"));
    let before = [down.clone(), lookup.clone(), moved.clone()];
    let mut third = resumed(&world, "one,two,three", &before, "three").unwrap();
    delivered(env.judge_alone(&mut third, refused()));
    let mut third = resumed(&world, "one,two,three", &before, "three").unwrap();
    assert_eq!(env.judge_alone(&mut third, verdict(Outcome::Overloaded)), Next::Fail);
    // Without a failure the first refusal is the client's.
    let lookup = told("one", Outcome::BadRequest, 400, Some("one"));
    let mut first = resumed(&world, "one,two,three", &[lookup], "one").unwrap();
    delivered(env.judge_alone(&mut first, refused()));

    // What the router makes of the reports.
    let mut world = World::new();
    let (mut exchange, _) = planned(&mut world);
    for one in [down, moved] {
        exchange.tried_by_gateway(done(&one.provider, one.verdict, Duration::ZERO), &mut world.env());
    }
    exchange.deliver_refusal("three", refused(), Duration::ZERO, &mut world.env());
    exchange.refusal_read(refused(), &mut world.env());
    let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
    assert_eq!(facts.opinion, Some((1, crate::record::audit::Opinion::Confirmed)));
    assert_eq!(facts.outcome, "bad_request");
}

impl World {
    /// Judges an attempt of an exchange that another hop goes on with.
    fn judge_alone(&mut self, exchange: &mut Exchange, verdict: Verdict) -> Next {
        exchange.judge(verdict, false, true, &mut self.env()).unwrap().next
    }
}
