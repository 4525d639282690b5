//! The fields of the record, and that it is one line of JSON whatever clients send.

use serde_json::{json, Value};

use super::*;
use crate::spend::cost::{Money, Part, Parts};
use crate::spend::usage::{Calls, Details, Served, Source, Usage};

fn bill(source: Source, input: u64, cost: Option<u64>) -> Option<Bill> {
    let usage = Usage { input, cached: 4, cache_write: 3, output: 2, reasoning: 1, ..Usage::default() };
    Some(Bill {
        usage,
        served: Default::default(),
        source,
        reconciled: None,
        cost: cost.map(Money::from_pico),
        unpriced: Parts::default(),
    })
}

fn attempt<'a>(provider: &'a str, model: &'a str, outcome: Outcome, bill: Option<Bill>) -> AttemptFacts<'a> {
    let (status, took) = (Some(200), Duration::from_millis(5));
    AttemptFacts { provider, model, model_label: model, outcome, status, took, bill }
}

/// A request with every field that a record can have.
fn full() -> Facts<'static> {
    Facts {
        time: Timestamp::from_millis(1_795_257_296_007),
        took: Duration::from_millis(1500),
        request_id: "id-1".to_owned(),
        route: "chat",
        policy: "priority",
        operation: "chat",
        tenant: "team-a",
        tenant_label: "team-a",
        model: "assistant",
        stream: true,
        outcome: "answered",
        status: Some(200),
        refused_at: None,
        opinion: None,
        answered: true,
        plan: vec!["zero", "one", "two"],
        left_out: vec![("zero", "open")],
        adapted: Some("max_tokens=8192".to_owned()),
        why: vec![("one", "0.1 USD"), ("two", "0.25 USD")],
        arm: Some("one"),
        shadowed: None,
        is_shadow: false,
        correction: None,
        attempts: vec![
            AttemptFacts { status: None, ..attempt("one", "m1", Outcome::Unreachable, None) },
            attempt("two", "m2", Outcome::Answered, bill(Source::Reported, 10, Some(150_000_000))),
        ],
        first_token: Some(Duration::from_millis(700)),
        malformed: 2,
        unread: true,
    }
}

fn read(facts: &Facts<'_>) -> Value {
    let record = facts.record();
    assert!(!record.contains(['\n', '\r']), "{record}");
    serde_json::from_str(&record).unwrap_or_else(|error| panic!("{error}: {record}"))
}

#[test]
fn the_record_has_every_field() {
    let usage = json!({"source": "reported", "input": 10, "cached": 4, "cache_write": 3, "output": 2, "reasoning": 1});
    let expected = json!({
        "time": "2026-11-21T10:34:56.007Z",
        "request_id": "id-1",
        "outcome": "answered",
        "status": 200,
        "ms": 1500,
        "route": "chat",
        "policy": "priority",
        "operation": "chat",
        "tenant": "team-a",
        "model": "assistant",
        "stream": true,
        "provider": "two",
        "response_model": "m2",
        "first_token_ms": 700,
        "plan": ["zero", "one", "two"],
        "left_out": {"zero": "open"},
        "adapted": "max_tokens=8192",
        "why": {"one": "0.1 USD", "two": "0.25 USD"},
        "arm": "one",
        "attempts": [
            {"provider": "one", "model": "m1", "outcome": "unreachable", "ms": 5},
            {"provider": "two", "model": "m2", "outcome": "answered", "status": 200, "ms": 5,
                "usage": usage, "cost_usd": "0.00015"},
        ],
        "usage": usage,
        "cost_usd": "0.00015",
        "malformed_events": 2,
        "unread": true,
    });
    assert_eq!(read(&full()), expected);
}

#[test]
fn what_is_not_known_is_not_there() {
    let rejected = Facts::rejected(Timestamp::ZERO, String::new(), None, false);
    let expected = json!({"time": "1970-01-01T00:00:00.000Z", "request_id": "", "outcome": "rejected", "ms": 0,
        "stream": false, "attempts": []});
    assert_eq!(read(&rejected), expected);
    let gone = Facts::rejected(Timestamp::ZERO, "r".to_owned(), Some(400), true);
    assert_eq!((&read(&gone)["outcome"], &read(&gone)["status"]), (&json!("client_gone"), &json!(400)));
    let failed = Facts { answered: false, ..full() };
    assert_eq!((&read(&failed)["provider"], &read(&failed)["response_model"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_bill_of_a_request_is_the_sum_of_its_attempts() {
    let mut facts = full();
    for (first, expected) in [
        (bill(Source::Reported, 10, Some(50)), (20, Source::Reported, Some(150_000_050))),
        (bill(Source::Estimated, 10, Some(50)), (20, Source::Estimated, Some(150_000_050))),
        (bill(Source::Reported, 10, None), (20, Source::Reported, None)),
        (bill(Source::Reported, u64::MAX, Some(u64::MAX)), (u64::MAX, Source::Reported, Some(u64::MAX))),
        (None, (10, Source::Reported, Some(150_000_000))),
    ] {
        facts.attempts[0].bill = first;
        let sum = facts.bill().unwrap();
        assert_eq!((sum.usage.input, sum.source, sum.cost.map(Money::as_pico)), expected);
    }
    let record = read(&Facts {
        attempts: vec![attempt("one", "m", Outcome::Answered, bill(Source::Reported, 1, None))],
        ..full()
    });
    assert_eq!((&record["unpriced"], &record["attempts"][0]["unpriced"]), (&json!(true), &json!(true)));
    assert_eq!(Facts { attempts: Vec::new(), ..full() }.bill(), None);
}

#[test]
fn the_record_says_how_counts_were_reconciled() {
    use crate::spend::reported::Reconciled;
    let mut facts = full();
    let reconciled = bill(Source::Reported, 10, None)
        .map(|bill| Bill { reconciled: Some(Reconciled::PartsAdded), ..bill });
    facts.attempts[0].bill = reconciled;
    let record = read(&facts);
    let of = |at: &Value| at["usage"]["reconciled"].clone();
    assert_eq!((of(&record), of(&record["attempts"][0])), (json!("parts_added"), json!("parts_added")));
    assert_eq!(of(&record["attempts"][1]), Value::Null);
}

#[test]
fn a_hostile_name_is_a_text_and_nothing_more() {
    for name in
        ["\"},\"cost_usd\":\"0", "a\nb\r\u{0}", "\\", "\\\"", "\u{2028}\u{7f}é😀", "</script>", "\u{1b}[2J"]
    {
        let mut facts = Facts { model: name, tenant: name, request_id: name.to_owned(), ..full() };
        facts.attempts[1].model = name;
        let bill = facts.attempts[1].bill.as_mut().unwrap();
        bill.served = Served { model: Some([name, "x"].concat().into()), tier: Some(name.into()) };
        let record = read(&facts);
        assert_eq!(record["served_model"], [name, "x"].concat());
        for found in [
            &record["service_tier"],
            &record["model"],
            &record["tenant"],
            &record["request_id"],
            &record["response_model"],
            &record["attempts"][1]["model"],
        ] {
            assert_eq!(found, name);
        }
        assert_eq!(record["cost_usd"], "0.00015");
    }
}

#[test]
fn a_name_as_long_as_a_body_does_not_make_the_record_as_long() {
    for letter in ["x", "é", "😀", "\u{0}"] {
        let long = letter.repeat(1_000_000);
        let mut facts = Facts { model: &long, tenant: &long, request_id: long.clone(), ..full() };
        facts.attempts[1].model = &long;
        let bill = facts.attempts[1].bill.as_mut().unwrap();
        bill.served = Served { model: Some([&long, "x"].concat().into()), tier: Some(long.as_str().into()) };
        assert!(facts.record().len() < 15_000);
        let record = read(&facts);
        let kept = record["model"].as_str().unwrap();
        assert!(kept.len() > 250 && long.starts_with(kept), "{kept:?}");
    }
}

#[test]
fn a_reply_of_the_gateway_is_a_rejection_only_if_it_is_an_error() {
    let outcome = |status, gone| Facts::rejected(Timestamp::ZERO, String::new(), status, gone).outcome;
    for (status, gone, expected) in [
        (Some(200), false, "answered"),
        (Some(404), false, "rejected"),
        (Some(429), false, "rejected"),
        (None, false, "rejected"),
        (None, true, "client_gone"),
    ] {
        assert_eq!(outcome(status, gone), expected, "{status:?} {gone}");
    }
    assert_eq!(Facts::not_read(Timestamp::ZERO).outcome, "not_read");
}

fn apart(unpriced: &[Part]) -> Option<Bill> {
    let mut bill = bill(Source::Reported, 10, Some(50)).unwrap();
    let calls = Calls { web_search: 2, image_generation: 1, ..Calls::default() };
    bill.usage.details = Details { cache_write_1h: 3, audio_input: 2, audio_output: 1, calls };
    unpriced.iter().for_each(|part| bill.unpriced.add_if(true, *part));
    bill.served = Served { model: Some("m9".into()), tier: Some("flex".into()) };
    Some(bill)
}

#[test]
fn the_record_tells_what_is_billed_apart_and_what_of_it_has_no_price() {
    let mut facts = full();
    facts.attempts[0].bill = apart(&[Part::ServiceTier, Part::WebSearch]);
    facts.attempts[1].bill = apart(&[Part::Model]);
    let record = read(&facts);
    let usage = json!({"source": "reported", "input": 10, "cached": 4, "cache_write": 3, "output": 2, "reasoning": 1,
        "cache_write_1h": 3, "audio_input": 2, "audio_output": 1, "calls": {"web_search": 2, "image_generation": 1}});
    let first = json!({"provider": "one", "model": "m1", "served_model": "m9", "service_tier": "flex", "outcome": "unreachable",
        "ms": 5, "usage": usage, "cost_usd": "0.00000000005", "unpriced": true, "unpriced_parts": ["web_search", "service_tier"]});
    assert_eq!(record["attempts"][0], first);
    assert_eq!(record["attempts"][1]["unpriced_parts"], json!(["model"]));
    assert_eq!((&record["served_model"], &record["service_tier"]), (&json!("m9"), &json!("flex")));
    assert_eq!((&record["cost_usd"], &record["unpriced"]), (&json!("0.0000000001"), &json!(true)));
    assert_eq!(record["unpriced_parts"], json!(["web_search", "service_tier", "model"]));
    assert_eq!(record["usage"]["calls"], json!({"web_search": 4, "image_generation": 2}));
}

#[test]
fn the_model_that_served_is_told_only_if_it_has_another_name() {
    let mut facts = full();
    let mut same = apart(&[]).unwrap();
    same.served.model = Some("m2".into());
    facts.attempts[1].bill = Some(same);
    let record = read(&facts);
    for place in [&record, &record["attempts"][1]] {
        assert_eq!((&place["served_model"], &place["service_tier"]), (&Value::Null, &json!("flex")));
        assert_eq!((&place["unpriced"], &place["unpriced_parts"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn beside_a_model_without_a_price_parts_without_one_are_not_told() {
    let mut facts = full();
    facts.attempts[0].bill = bill(Source::Reported, 1, None);
    facts.attempts[1].bill = apart(&[Part::Model]);
    let record = read(&facts);
    assert_eq!((&record["cost_usd"], &record["unpriced"]), (&Value::Null, &json!(true)));
    assert_eq!(record["unpriced_parts"], Value::Null, "the whole cost is unknown");
}
