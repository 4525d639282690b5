//! Refusals that no list explains: what other candidates are asked, what the client gets, and what is held.

use super::*;
use crate::health::breaker::ModelHoldReason;
use crate::health::outcome::{Doubt, ErrorBody};
use crate::record::audit::Opinion;

pub(super) const BODY: &[u8] = br#"{"error":{"message":"first","type":"t","param":null,"code":"Arrearage"}}"#;

pub(super) fn doubted(outcome: Outcome, status: u16, code: &str) -> Verdict {
    let doubt = Some(Doubt { code: code.to_owned(), ..Doubt::default() });
    Verdict { doubt, ..Verdict::certain(outcome, Some(status)) }
}

pub(super) fn refused() -> Verdict {
    doubted(Outcome::BadRequest, 400, "Arrearage")
}

/// The first attempt of a request with this text.
pub(super) fn saying(world: &mut World, text: &str) -> Exchange {
    asking_body(world, &json!({"model": "assistant", "messages": [{"role": "user", "content": text}]}))
}

pub(super) fn asking_body(world: &mut World, body: &Value) -> Exchange {
    let mut exchange = asking_with(world, body);
    let start = exchange.start(&mut world.env()).unwrap();
    exchange.begin(&start.provider, || world.now).unwrap();
    exchange
}

/// Judges an attempt, and keeps its refusal as the host does.
pub(super) fn judge(world: &mut World, exchange: &mut Exchange, verdict: Verdict) -> Next {
    let status = verdict.status.unwrap_or_default();
    let next = world.judge(exchange, verdict);
    if exchange.wants_refusal() {
        let error = ErrorBody::read(BODY);
        let request_id = Some("req_1".to_owned());
        exchange.keep_refusal(Refused { status, body: BODY, error: &error, request_id }, "");
    }
    next
}

pub(super) fn run(world: &mut World, exchange: &mut Exchange, verdicts: &[Verdict]) -> Next {
    let mut next = Next::Drop;
    for verdict in verdicts {
        next = judge(world, exchange, verdict.clone());
    }
    next
}

/// The facts of a request that is over.
pub(super) fn over(
    world: &mut World,
    exchange: &mut Exchange,
) -> (&'static str, Option<Opinion>, Option<String>) {
    let facts = exchange.finish(End { gone: false, replied: None }, &mut world.env());
    let served = facts.served().map(|served| served.provider.to_owned());
    (facts.outcome, facts.opinion.map(|(_, opinion)| opinion), served)
}

/// One request with its own text, which the first provider refuses and the second one answers or refuses.
pub(super) fn once(world: &mut World, text: &str, first: Verdict, second: Outcome) -> Vec<String> {
    let mut exchange = saying(world, text);
    run(world, &mut exchange, &[first, verdict(second)]);
    over(world, &mut exchange);
    exchange.take_notes()
}

pub(super) fn first_of(world: &mut World, text: &str) -> String {
    let mut exchange = saying(world, text);
    let provider = exchange.provider().unwrap().name.clone();
    world.judge(&mut exchange, verdict(Outcome::ClientGone));
    provider
}

#[test]
fn an_answer_disproves_a_refusal_and_goes_out() {
    let mut world = World::new();
    let mut exchange = saying(&mut world, "a");
    assert_eq!(judge(&mut world, &mut exchange, refused()), retry("two", 0));
    let headers = delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:bad_request,two:answered"));
    assert_eq!(
        over(&mut world, &mut exchange),
        ("answered", Some(Opinion::Disproved), Some("two".to_owned()))
    );
}

#[test]
fn a_second_refusal_ends_it_and_the_client_gets_the_first_one() {
    for second in [verdict(Outcome::BadRequest), refused(), verdict(Outcome::Refused)] {
        let mut world = World::new();
        let mut exchange = saying(&mut world, "a");
        assert_eq!(run(&mut world, &mut exchange, &[refused(), second]), Next::Fail);
        assert!(!exchange.is_delivered() && exchange.is_over());
        let reply = exchange.failure(&mut world.env());
        assert_eq!((reply.status, reply.body.as_slice()), (400, BODY));
        assert_eq!(header(&reply.headers, client_headers::PROVIDER), Some("one"));
        assert_eq!(header(&reply.headers, "x-request-id"), Some("req_1"));
        assert_eq!(
            over(&mut world, &mut exchange),
            ("bad_request", Some(Opinion::Confirmed), Some("one".to_owned()))
        );
    }
}

#[test]
fn a_failure_is_no_opinion_and_the_candidate_after_it_is_asked() {
    for failure in Outcome::ALL.into_iter().filter(|outcome| {
        !matches!(
            outcome,
            Outcome::Answered
                | Outcome::BadRequest
                | Outcome::Refused
                | Outcome::ServerError
                | Outcome::ClientGone
        )
    }) {
        let mut world = World::new();
        let mut exchange = saying(&mut world, "a");
        let next = run(&mut world, &mut exchange, &[refused(), verdict(failure)]);
        assert_eq!(next, retry("three", 0), "{failure:?}");
        assert_eq!(judge(&mut world, &mut exchange, verdict(Outcome::Overloaded)), Next::Fail);
        let reply = exchange.failure(&mut world.env());
        assert_eq!((reply.status, reply.body.as_slice()), (400, BODY), "{failure:?}");
        assert_eq!(over(&mut world, &mut exchange), ("bad_request", None, Some("one".to_owned())));
    }
}

#[test]
fn nobody_is_asked_who_is_excluded_or_when_no_attempt_is_left() {
    let mut world = World::new();
    world.open("two");
    world.open("three");
    let mut exchange = saying(&mut world, "a");
    let headers = delivered(judge(&mut world, &mut exchange, refused()));
    assert_eq!(header(&headers, client_headers::ATTEMPTS), Some("one:bad_request"));
    assert_eq!(over(&mut world, &mut exchange), ("bad_request", None, Some("one".to_owned())));

    let mut world = World::with(&json!({"retry": {"attempts": 1}}));
    let mut exchange = saying(&mut world, "a");
    delivered(judge(&mut world, &mut exchange, refused()));
}

#[test]
fn what_is_certain_or_switched_off_is_not_asked_about() {
    let off = json!({"routes": [{"name": "chat", "match": {"path": PATH}, "providers": ALL,
        "retry": {"second_opinion": false}}]});
    let on = json!({"retry": {"second_opinion": false}, "routes": [{"name": "chat",
        "match": {"path": PATH}, "providers": ALL, "retry": {"second_opinion": true}}]});
    for (changes, first, asks) in [
        (json!({}), verdict(Outcome::BadRequest), false),
        (json!({}), doubted(Outcome::Refused, 400, "content_filter"), false),
        (json!({"retry": {"second_opinion": false}}), refused(), false),
        (off, refused(), false),
        (on, refused(), true),
    ] {
        let mut world = World::with(&changes);
        let mut exchange = saying(&mut world, "a");
        let next = judge(&mut world, &mut exchange, first);
        assert_eq!(next == retry("two", 0), asks, "{changes}");
    }
}

#[test]
fn what_one_provider_keeps_is_not_asked_of_another() {
    let mut world = World::new();
    for body in [
        json!({"model": "assistant", "messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
        json!({"model": "assistant", "messages": [], "tools": [{"vector_store_ids": ["vs"]}]}),
    ] {
        let mut exchange = asking_body(&mut world, &body);
        delivered(judge(&mut world, &mut exchange, refused()));
    }
    // It is known of a long body, too, whose text is not kept.
    let long = |file: &str| json!({"model": "assistant", "messages": [{"content": "hi", "note": "x".repeat(3 << 20)}], file: "f"});
    for (name, asks) in [("file_id", false), ("other", true)] {
        let mut exchange = asking_with(&world, &long(name));
        exchange.keep_body(usize::MAX, false);
        assert!(exchange.body().is_empty());
        let start = exchange.start(&mut world.env()).unwrap();
        exchange.begin(&start.provider, || world.now).unwrap();
        let next = judge(&mut world, &mut exchange, refused());
        assert_eq!(next == retry("two", 0), asks, "{name}");
    }
}

#[test]
fn a_refusal_is_kept_in_the_envelope_and_never_longer_than_its_bound() {
    let long = ["{\"error\":{\"message\":\"", &"\\u0001".repeat(20_000), "\",\"code\":\"c\"}}"].concat();
    for (status, body, sent) in [
        (400, BODY.to_vec(), 400),
        (200, BODY.to_vec(), 400),
        (418, b"<html>no</html>".to_vec(), 418),
        (400, long.into_bytes(), 400),
    ] {
        let mut world = World::new();
        let mut exchange = saying(&mut world, "a");
        world.judge(&mut exchange, refused());
        let error = ErrorBody::read(&body);
        exchange.keep_refusal(Refused { status, body: &body, error: &error, request_id: None }, "");
        assert!(!exchange.wants_refusal(), "it is kept once");
        world.judge(&mut exchange, verdict(Outcome::BadRequest));
        let reply = exchange.failure(&mut world.env());
        assert_eq!(reply.status, sent);
        assert!(reply.body.len() <= 64 << 10);
        let json: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(json["error"]["message"].is_string(), "{json}");
    }
}

#[test]
fn the_first_refusal_goes_out_if_the_client_of_a_too_long_request_finds_nobody() {
    let mut world = World::new();
    let mut exchange = saying(&mut world, "a");
    let too_long = Verdict::certain(Outcome::TooLong, Some(400));
    let next = run(
        &mut world,
        &mut exchange,
        &[too_long.clone(), verdict(Outcome::TooSlow), verdict(Outcome::TooSlow)],
    );
    assert_eq!(next, Next::Fail);
    let reply = exchange.failure(&mut world.env());
    assert_eq!((reply.status, reply.body.as_slice()), (400, BODY), "it says more than a timeout elsewhere");
    assert_eq!(over(&mut world, &mut exchange), ("too_long", None, Some("one".to_owned())));
    // Without the body of the refusal its status still counts.
    let mut exchange = saying(&mut world, "b");
    for verdict in [too_long, verdict(Outcome::TooSlow), verdict(Outcome::TooSlow)] {
        world.judge(&mut exchange, verdict);
    }
    assert_eq!(exchange.failure(&mut world.env()).status, 400);
}

// What is remembered.

#[test]
fn a_refusal_changes_no_breaker_and_holds_nobody() {
    let mut world = World::new();
    for second in [Outcome::Answered, Outcome::BadRequest, Outcome::Overloaded] {
        once(&mut world, "a", refused(), second);
    }
    assert_eq!(world.counted("one"), (0, 0));
    assert_eq!(first_of(&mut world, "b"), "one");
}

#[test]
fn a_model_is_held_once_enough_different_requests_in_a_row_were_answered_elsewhere() {
    let mut world = World::new();
    let mut notes = Vec::new();
    for text in ["a", "b", "b", "a", "c"] {
        assert_eq!(first_of(&mut world, text), "one", "{text}");
        notes.extend(once(&mut world, text, refused(), Outcome::Answered));
    }
    let held = world.record("one").models.into_iter().find(|held| held.until > world.now).unwrap();
    assert_eq!(held.reason, ModelHoldReason::BadRequest);
    assert_eq!(first_of(&mut world, "d"), "two");
    assert_eq!(
        notes,
        [
            "provider one has refused a request that two answers (status 400, code \"Arrearage\")",
            "provider one is skipped for 300 s: bad_request, after requests that other providers answered \
             (status 400, code \"Arrearage\")",
        ]
    );
    world.advance(Duration::from_secs(300));
    assert_eq!(first_of(&mut world, "e"), "one", "it is tried again");
}

#[test]
fn an_answer_a_confirmation_or_another_refusal_in_between_ends_the_row() {
    let answer = |world: &mut World| {
        let mut exchange = saying(world, "x");
        run(world, &mut exchange, &[verdict(Outcome::Answered)]);
    };
    let confirm = |world: &mut World| drop(once(world, "x", refused(), Outcome::BadRequest));
    let other = |world: &mut World| {
        drop(once(world, "x", doubted(Outcome::BadRequest, 400, "other"), Outcome::Answered));
    };
    let status = |world: &mut World| {
        drop(once(world, "x", doubted(Outcome::BadRequest, 422, "Arrearage"), Outcome::Answered));
    };
    for between in [&answer as &dyn Fn(&mut World), &confirm, &other, &status] {
        let mut world = World::new();
        once(&mut world, "a", refused(), Outcome::Answered);
        once(&mut world, "b", refused(), Outcome::Answered);
        between(&mut world);
        once(&mut world, "c", refused(), Outcome::Answered);
        once(&mut world, "d", refused(), Outcome::Answered);
        assert_eq!(first_of(&mut world, "e"), "one");
        once(&mut world, "e", refused(), Outcome::Answered);
        assert_eq!(first_of(&mut world, "f"), "two");
    }
}

#[test]
fn what_was_confirmed_often_in_a_row_is_not_asked_again_for_a_minute() {
    let mut world = World::new();
    for text in ["a", "b", "c"] {
        once(&mut world, text, refused(), Outcome::BadRequest);
    }
    let asks = |world: &mut World, verdict: Verdict| {
        let mut exchange = saying(world, "d");
        let asks = judge(world, &mut exchange, verdict) == retry("two", 0);
        if asks {
            run(
                world,
                &mut exchange,
                &[super::verdict(Outcome::Overloaded), super::verdict(Outcome::Overloaded)],
            );
        }
        asks
    };
    assert!(!asks(&mut world, refused()));
    assert!(asks(&mut world, doubted(Outcome::BadRequest, 400, "other")));
    assert!(asks(&mut world, doubted(Outcome::BadRequest, 422, "Arrearage")));
    world.advance(Duration::from_secs(60));
    world.now = world.now.after(Duration::from_secs(1));
    assert!(asks(&mut world, refused()));
}

#[test]
fn a_refusal_that_may_be_about_the_key_or_the_model_needs_three_requests_in_a_row() {
    for (outcome, status, reason) in [
        (Outcome::BadKey, 403, "bad_key"),
        (Outcome::NoSuchModel, 404, "no_such_model"),
        (Outcome::NoSuchModel, 405, "no_such_model"),
        (Outcome::NoSuchModel, 410, "no_such_model"),
        (Outcome::Unwilling, 412, "unwilling"),
    ] {
        let mut world = World::new();
        for text in ["a", "a", "b", "a"] {
            let first = doubted(outcome, status, "");
            let mut exchange = saying(&mut world, text);
            assert_eq!(judge(&mut world, &mut exchange, first), retry("two", 0), "{status}");
            let headers = delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
            let attempts = [&["one:", outcome.name()].concat(), "two:answered"].join(",");
            assert_eq!(header(&headers, client_headers::ATTEMPTS), Some(attempts.as_str()));
        }
        assert_eq!(first_of(&mut world, "b"), "one", "{status}");
        let mut exchange = saying(&mut world, "c");
        let decision = exchange.judge(doubted(outcome, status, ""), false, true, &mut world.env()).unwrap();
        let line = decision.log.unwrap();
        assert!(line.contains("for several requests in a row"), "{line}");
        assert!(line.contains(&["status ", &status.to_string(), ", no code"].concat()), "{line}");
        let mut exchange = saying(&mut world, "d");
        let headers = delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
        let degraded = ["one:", reason].concat();
        assert_eq!(header(&headers, client_headers::DEGRADED), Some(degraded.as_str()));
    }
}

#[test]
fn an_answer_of_any_model_speaks_for_the_key_and_only_one_of_the_same_model_for_the_model() {
    for (outcome, status, then) in [(Outcome::BadKey, 403, "one"), (Outcome::NoSuchModel, 404, "two")] {
        let mut world = World::new();
        for text in ["a", "b"] {
            once(&mut world, text, doubted(outcome, status, "c"), Outcome::Answered);
        }
        let mut exchange = asking_body(&mut world, &json!({"model": "other", "messages": []}));
        run(&mut world, &mut exchange, &[verdict(Outcome::Answered)]);
        once(&mut world, "c", doubted(outcome, status, "c"), Outcome::Answered);
        assert_eq!(first_of(&mut world, "d"), then, "{status}");
    }
}

#[test]
fn a_status_or_a_code_of_one_meaning_holds_at_once() {
    for (outcome, status) in [(Outcome::BadKey, 401), (Outcome::OutOfQuota, 402), (Outcome::NoSuchModel, 404)]
    {
        let mut world = World::new();
        once(&mut world, "a", Verdict::certain(outcome, Some(status)), Outcome::Answered);
        assert_eq!(first_of(&mut world, "b"), "two", "{status}");
    }
}

#[test]
fn what_is_refused_at_one_endpoint_is_not_held_at_another() {
    let responses = "/v1/responses";
    let route = |name: &str, path: &str| json!({"name": name, "match": {"path": path}, "providers": ALL});
    let mut world = World::with(&json!({"routes": [route("chat", PATH), route("responses", responses)]}));
    for text in ["a", "b", "c"] {
        let body = json!({"model": "assistant", "input": text}).to_string();
        let head = Head { path: responses.to_owned(), complete: false, policy: None };
        let body = Body::read(body.as_bytes(), Endpoint::Responses, &[]).unwrap();
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, body, |_| true).unwrap();
        let start = exchange.start(&mut world.env()).unwrap();
        assert_eq!(start.provider, "one");
        exchange.begin("one", || world.now).unwrap();
        judge(&mut world, &mut exchange, doubted(Outcome::NoSuchModel, 404, ""));
        judge(&mut world, &mut exchange, verdict(Outcome::Answered));
    }
    assert!(world.record("one").models.iter().any(|held| held.until > world.now));
    assert_eq!(first_of(&mut world, "d"), "one", "chats go on");
}

// What interrupts it.

#[test]
fn nobody_is_asked_again_or_waited_for_only_to_hear_an_opinion() {
    let mut world = World::new();
    let mut exchange = saying(&mut world, "a");
    let failed = Verdict::certain(Outcome::ServerError, Some(500));
    assert_eq!(run(&mut world, &mut exchange, &[refused(), failed]), retry("three", 0));
    assert_eq!(judge(&mut world, &mut exchange, limited(1000)), Next::Fail);
    let reply = exchange.failure(&mut world.env());
    assert_eq!((reply.status, reply.body.as_slice()), (400, BODY));
    assert_eq!(over(&mut world, &mut exchange), ("bad_request", None, Some("one".to_owned())));
}

#[test]
fn a_conflict_at_the_second_or_a_tool_server_that_failed_there_is_no_opinion() {
    // A conflict is repeated once at its own provider.
    for (status, times) in [(409, 2), (424, 1)] {
        let mut world = World::new();
        let mut exchange = saying(&mut world, "a");
        let second = Verdict::certain(Outcome::BadRequest, Some(status));
        run(&mut world, &mut exchange, &[refused()]);
        let next = run(&mut world, &mut exchange, &vec![second; times]);
        assert_eq!(next, retry("three", 0), "{status}");
        delivered(judge(&mut world, &mut exchange, verdict(Outcome::Answered)));
        let end = ("answered", Some(Opinion::Disproved), Some("three".to_owned()));
        assert_eq!(over(&mut world, &mut exchange), end, "{status}");
    }
}

#[test]
fn a_client_that_leaves_while_another_is_asked_got_no_refusal() {
    let mut world = World::new();
    let mut exchange = saying(&mut world, "a");
    assert_eq!(judge(&mut world, &mut exchange, refused()), retry("two", 0));
    let facts = exchange.finish(End { gone: true, replied: None }, &mut world.env());
    assert_eq!((facts.outcome, facts.opinion.is_some()), ("client_gone", false));
    assert_eq!(world.counted("one"), (0, 0));
}

#[test]
fn a_retry_that_the_gateway_does_not_make_leaves_the_first_refusal() {
    let mut world = World::new();
    let mut exchange = saying(&mut world, "a");
    let next = exchange.judge(refused(), false, true, &mut world.env()).unwrap().next;
    assert_eq!(next, retry("two", 0));
    assert!(exchange.wants_refusal());
    let error = ErrorBody::read(BODY);
    exchange.keep_refusal(Refused { status: 400, body: BODY, error: &error, request_id: None }, "");
    // The second attempt is chosen and never begins.
    let reply = exchange.failure(&mut world.env());
    assert_eq!((reply.status, reply.body.as_slice()), (400, BODY));
    let facts = exchange.finish(End { gone: false, replied: Some(400) }, &mut world.env());
    assert_eq!((facts.outcome, facts.served().map(|served| served.provider)), ("bad_request", Some("one")));
}
