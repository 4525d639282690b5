use super::record::LENGTH;
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

const LEASE: Duration = Duration::from_secs(20);

fn policy() -> Policy {
    Policy {
        consecutive_failures: 3,
        error_rate: 0.5,
        minimum_requests: 10,
        window: Duration::from_secs(30),
        open: Duration::from_secs(10),
        max_open: Duration::from_secs(60),
        probes: 1,
    }
}

fn holds() -> HoldPolicy {
    HoldPolicy {
        rate_limited: Duration::from_secs(5),
        out_of_quota: Duration::from_secs(600),
        bad_key: Duration::from_secs(300),
        no_such_model: Duration::from_secs(60),
        max: Duration::from_secs(900),
    }
}

fn at(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

/// Reports without jitter.
fn report(record: &mut Record, outcome: Outcome, permit: Permit, now: Timestamp) {
    report_asking(record, outcome, permit, None, now);
}

fn report_asking(record: &mut Record, outcome: Outcome, permit: Permit, asked: Option<u64>, now: Timestamp) {
    let report =
        Report { outcome, permit, retry_after: asked.map(Duration::from_secs), model: 7, refusal: None };
    record.report(report, now, 0.0, Rules { breaker: &policy(), holds: &holds() });
}

fn opened() -> Record {
    let mut record = Record::new(1);
    for _ in 0..3 {
        report(&mut record, Outcome::ServerError, Permit::Free, NOW);
    }
    assert_eq!(record.state, State::Open { until: at(10), trips: 1 });
    record
}

fn until(record: &Record) -> Timestamp {
    match record.state {
        State::Open { until, .. } => until,
        state => panic!("not open: {state:?}"),
    }
}

#[test]
fn failures_in_a_row_open_it() {
    assert_eq!(opened().exclusion(7, at(9)).map(|e| e.reason), Some(Reason::Open));
    assert_eq!(opened().exclusion(7, at(10)), None);
}

#[test]
fn a_success_between_failures_keeps_it_closed() {
    let mut record = Record::new(1);
    for outcome in
        [Outcome::Truncated, Outcome::TooSlow, Outcome::Answered, Outcome::Overloaded, Outcome::Unreachable]
    {
        report(&mut record, outcome, Permit::Free, NOW);
    }
    assert_eq!(record.exclusion(7, NOW), None);
}

#[test]
fn a_rate_of_failures_opens_it_once_there_are_enough_requests() {
    let mut record = Record::new(1);
    for n in 0..9 {
        let outcome = if n % 2 == 0 { Outcome::ServerError } else { Outcome::Answered };
        report(&mut record, outcome, Permit::Free, NOW);
    }
    assert!(matches!(record.state, State::Closed { .. }));
    report(&mut record, Outcome::ServerError, Permit::Free, NOW);
    assert!(matches!(record.state, State::Open { .. }));
}

#[test]
fn only_one_probe_has_the_permit_until_it_lapses() {
    let mut record = opened();
    assert_eq!(record.admit(11, LEASE, at(10)), Permit::Probe(11));
    assert!(record.exclusion(7, at(11)).is_some());
    assert_eq!(record.exclusion(7, at(30)), None, "a probe that never came back");
    assert_eq!(record.admit(12, LEASE, at(30)), Permit::Probe(12));
    report(&mut record, Outcome::Answered, Permit::Probe(11), at(31));
    assert!(matches!(record.state, State::HalfOpen { permit: 12, .. }), "a lapsed probe decides nothing");
}

#[test]
fn a_successful_probe_closes_it() {
    let mut record = opened();
    let permit = record.admit(11, LEASE, at(10));
    report(&mut record, Outcome::Answered, permit, at(11));
    assert!(matches!(record.state, State::Closed { consecutive: 0, .. }));
}

#[test]
fn a_failed_probe_doubles_the_open_time_up_to_the_longest() {
    let mut record = opened();
    let mut now = at(10);
    for seconds in [20, 40, 60, 60] {
        let permit = record.admit(11, LEASE, now);
        report(&mut record, Outcome::ServerError, permit, now);
        assert_eq!(until(&record), now.after(Duration::from_secs(seconds)));
        now = until(&record);
    }
}

#[test]
fn trips_are_forgiven_after_a_long_time_without_one() {
    for (later, seconds) in [(20, 20), (3600, 10)] {
        let mut record = opened();
        let permit = record.admit(11, LEASE, at(10));
        report(&mut record, Outcome::Answered, permit, at(11));
        let now = at(11 + later);
        for _ in 0..3 {
            report(&mut record, Outcome::ServerError, Permit::Free, now);
        }
        assert_eq!(until(&record), now.after(Duration::from_secs(seconds)));
    }
}

#[test]
fn several_probes_can_be_asked_for() {
    let policy = Policy { probes: 2, ..policy() };
    let rules = Rules { breaker: &policy, holds: &holds() };
    let mut record = opened();
    for (permit, closed) in [(11, false), (12, true)] {
        assert_eq!(record.exclusion(7, at(12)), None);
        let permit = record.admit(permit, LEASE, at(12));
        let report =
            Report { outcome: Outcome::Answered, permit, retry_after: None, model: 7, refusal: None };
        record.report(report, at(12), 0.0, rules);
        assert_eq!(matches!(record.state, State::Closed { .. }), closed);
    }
}

#[test]
fn a_client_that_leaves_a_probe_gives_the_permit_back() {
    let mut record = opened();
    let permit = record.admit(11, LEASE, at(10));
    report(&mut record, Outcome::ClientGone, permit, at(11));
    assert_eq!(record.exclusion(7, at(11)), None);
    assert_eq!(record.admit(12, LEASE, at(11)), Permit::Probe(12));
}

#[test]
fn late_failures_do_not_lengthen_the_open_time() {
    let mut record = opened();
    let before = record;
    report(&mut record, Outcome::ServerError, Permit::Free, at(5));
    report(&mut record, Outcome::ServerError, Permit::Forced, at(5));
    report(&mut record, Outcome::Answered, Permit::Free, at(5));
    assert_eq!(record, before);
}

#[test]
fn a_forced_attempt_that_works_closes_it() {
    let mut record = opened();
    report(&mut record, Outcome::Answered, Permit::Forced, at(5));
    assert!(matches!(record.state, State::Closed { .. }));
}

#[test]
fn the_open_time_is_stretched_by_a_tenth_at_most() {
    for (jitter, millis) in [(0.0, 10_000), (1.0, 11_000), (7.0, 11_000), (f64::NAN, 10_000)] {
        let mut record = Record::new(1);
        for _ in 0..3 {
            let report = Report {
                outcome: Outcome::ServerError,
                permit: Permit::Free,
                retry_after: None,
                model: 7,
                refusal: None,
            };
            let jitter = if jitter.is_nan() { 0.0 } else { jitter };
            record.report(report, NOW, jitter, Rules { breaker: &policy(), holds: &holds() });
        }
        assert_eq!(until(&record).since(NOW).as_millis(), millis);
    }
}

#[test]
fn a_hold_lasts_as_long_as_the_provider_asks() {
    let mut record = Record::new(1);
    report_asking(&mut record, Outcome::RateLimited, Permit::Free, Some(30), NOW);
    assert_eq!(
        record.exclusion(7, NOW).unwrap(),
        Exclusion { until: at(30), reason: Reason::Held(HoldReason::RateLimited) }
    );
    assert_eq!(record.exclusion(7, at(30)), None);
    assert!(matches!(record.state, State::Closed { consecutive: 0, .. }), "a hold is no failure");
}

#[test]
fn a_hold_is_never_shortened_and_never_longer_than_the_cap() {
    let mut record = Record::new(1);
    report_asking(&mut record, Outcome::RateLimited, Permit::Free, Some(30), NOW);
    report_asking(&mut record, Outcome::RateLimited, Permit::Free, Some(1), at(1));
    assert_eq!(record.exclusion(7, at(2)).unwrap().until, at(30));
    report_asking(&mut record, Outcome::RateLimited, Permit::Free, Some(1_000_000), at(2));
    assert_eq!(record.exclusion(7, at(2)).unwrap().until, at(902));
}

#[test]
fn a_hold_without_a_time_grows_while_it_repeats_and_starts_anew_after_a_success() {
    let mut record = Record::new(1);
    let mut now = NOW;
    for seconds in [5, 10, 20] {
        report(&mut record, Outcome::RateLimited, Permit::Free, now);
        // At the same time, so it is the same event.
        report(&mut record, Outcome::RateLimited, Permit::Free, now);
        let until = record.exclusion(7, now).unwrap().until;
        assert_eq!(until, now.after(Duration::from_secs(seconds)));
        now = until;
    }
    report(&mut record, Outcome::Answered, Permit::Free, now);
    report(&mut record, Outcome::RateLimited, Permit::Free, now);
    assert_eq!(record.exclusion(7, now).unwrap().until, now.after(Duration::from_secs(5)));
}

#[test]
fn quota_and_key_holds_ignore_retry_after() {
    for (outcome, seconds) in [(Outcome::OutOfQuota, 600), (Outcome::BadKey, 300)] {
        let mut record = Record::new(1);
        report_asking(&mut record, outcome, Permit::Free, Some(1), NOW);
        assert_eq!(record.exclusion(7, NOW).unwrap().until, at(seconds));
    }
}

#[test]
fn a_missing_model_holds_that_model_only() {
    let mut record = Record::new(1);
    report(&mut record, Outcome::NoSuchModel, Permit::Free, NOW);
    assert_eq!(record.exclusion(7, NOW).unwrap().reason, Reason::ModelHeld(ModelHoldReason::NoSuchModel));
    assert_eq!(record.exclusion(8, NOW), None);
}

#[test]
fn a_missing_model_is_held_for_longer_only_if_it_is_missed_again_afterwards() {
    let mut record = Record::new(1);
    let mut now = NOW;
    for seconds in [60, 120, 240] {
        report(&mut record, Outcome::NoSuchModel, Permit::Free, now);
        // At the same time, so it is the same event.
        report(&mut record, Outcome::NoSuchModel, Permit::Free, now);
        let until = record.exclusion(7, now).unwrap().until;
        assert_eq!(until, now.after(Duration::from_secs(seconds)));
        now = until;
    }
}

#[test]
fn a_shorter_hold_for_another_reason_takes_nothing_from_the_longer_one() {
    let mut record = Record::new(1);
    report(&mut record, Outcome::OutOfQuota, Permit::Free, NOW);
    let again = record.exclusion(7, NOW).unwrap().until;
    report(&mut record, Outcome::OutOfQuota, Permit::Free, again);
    let held = record.hold;
    report(&mut record, Outcome::RateLimited, Permit::Free, again);
    assert_eq!((record.hold, held.unwrap().streak), (held, 2));
}

#[test]
fn many_missing_models_use_a_fixed_number_of_slots() {
    let mut record = Record::new(1);
    for model in 1..100 {
        let report = Report {
            outcome: Outcome::NoSuchModel,
            permit: Permit::Free,
            retry_after: None,
            model,
            refusal: None,
        };
        record.report(report, at(model), 0.0, Rules { breaker: &policy(), holds: &holds() });
        assert!(record.exclusion(model, at(model)).is_some());
    }
    assert_eq!(record.encode().len(), LENGTH);
}

#[test]
fn every_record_survives_its_encoding() {
    let mut half_open = opened();
    half_open.admit(u32::MAX, LEASE, at(10));
    let mut held = Record::new(u64::MAX);
    report(&mut held, Outcome::BadKey, Permit::Free, NOW);
    report(&mut held, Outcome::NoSuchModel, Permit::Free, NOW);
    report(&mut held, Outcome::ServerError, Permit::Free, NOW);
    for record in [Record::new(1), opened(), half_open, held] {
        let bytes = record.encode();
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(Record::decode(&bytes), Some(record));
    }
}

#[test]
fn a_damaged_foreign_or_older_record_reads_as_new() {
    let bytes = opened().encode();
    assert_eq!(Record::read(&bytes, 1), opened());
    assert_eq!(Record::read(&bytes, 2), Record::new(2));
    assert_eq!(Record::read(&[], 1), Record::new(1));
    for cut in 0..bytes.len() {
        assert_eq!(Record::read(&bytes[..cut], 1), Record::new(1));
    }
    let mut older = bytes;
    older[0] = 0;
    assert_eq!(Record::read(&older, 1), Record::new(1));
}

#[test]
fn a_success_that_began_before_a_hold_does_not_lift_it() {
    let mut record = Record::new(1);
    report_asking(&mut record, Outcome::RateLimited, Permit::Free, Some(60), NOW);
    report(&mut record, Outcome::NoSuchModel, Permit::Free, NOW);
    report(&mut record, Outcome::Answered, Permit::Free, at(5));
    assert_eq!(record.exclusion(8, at(5)).unwrap().until, at(60));
    assert_eq!(record.exclusion(7, at(5)).unwrap().until, at(60));
    report(&mut record, Outcome::Answered, Permit::Forced, at(6));
    assert_eq!(record.exclusion(7, at(6)), None);
}

// Evidence.

const CHAT: u64 = 7;
const OTHER: u64 = 8;

fn refusal(id: u32, body: u32) -> Refusal {
    Refusal { id, body }
}

fn refuse(record: &mut Record, outcome: Outcome, model: u64, refusal: Refusal, now: Timestamp) {
    let report = Report { outcome, permit: Permit::Free, retry_after: None, model, refusal: Some(refusal) };
    record.report(report, now, 0.0, Rules { breaker: &policy(), holds: &holds() });
}

fn answer(record: &mut Record, model: u64) {
    let report =
        Report { outcome: Outcome::Answered, permit: Permit::Free, retry_after: None, model, refusal: None };
    record.report(report, NOW, 0.0, Rules { breaker: &policy(), holds: &holds() });
}

fn disproved(record: &mut Record, id: u32, body: u32) {
    record.note_opinion(CHAT, refusal(id, body), true, NOW, Rules { breaker: &policy(), holds: &holds() });
}

#[test]
fn three_requests_in_a_row_with_other_bodies_hold_what_the_refusal_is_about() {
    for (outcome, others) in
        [(Outcome::BadKey, true), (Outcome::NoSuchModel, false), (Outcome::Unwilling, false)]
    {
        let mut record = Record::new(1);
        for body in [1, 1, 2, 2, 1] {
            refuse(&mut record, outcome, CHAT, refusal(5, body), NOW);
            assert_eq!(record.exclusion(CHAT, NOW), None, "{outcome:?}");
        }
        assert!(matches!(record.state, State::Closed { consecutive: 0, .. }), "no failure");
        refuse(&mut record, outcome, CHAT, refusal(5, 3), NOW);
        assert_eq!(record.exclusion(CHAT, NOW).map(|found| found.reason.name()), Some(outcome.name()));
        assert_eq!(record.exclusion(OTHER, NOW).is_some(), others, "{outcome:?}");
    }
}

#[test]
fn another_refusal_or_an_answer_begins_the_row_anew() {
    let between: [&dyn Fn(&mut Record); 3] = [
        &|record| answer(record, CHAT),
        &|record| refuse(record, Outcome::NoSuchModel, CHAT, refusal(6, 9), NOW),
        &|record| disproved(record, 6, 9),
    ];
    for between in between {
        let mut record = Record::new(1);
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 1), NOW);
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 2), NOW);
        between(&mut record);
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 3), NOW);
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 4), NOW);
        assert_eq!(record.exclusion(CHAT, NOW), None);
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 5), NOW);
        assert!(record.exclusion(CHAT, NOW).is_some());
    }
}

#[test]
fn a_refusal_of_one_model_says_nothing_about_another() {
    let mut record = Record::new(1);
    for (model, body) in [(CHAT, 1), (OTHER, 2), (CHAT, 3), (OTHER, 4)] {
        refuse(&mut record, Outcome::Unwilling, model, refusal(5, body), NOW);
    }
    answer(&mut record, OTHER);
    refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 5), NOW);
    assert!(record.exclusion(CHAT, NOW).is_some(), "another model's answer is none of this one");
    assert_eq!(record.exclusion(OTHER, NOW), None);
}

#[test]
fn a_record_with_evidence_is_not_calm_until_an_answer_has_cleared_it() {
    let mut record = Record::new(1);
    refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 1), NOW);
    assert!(!record.is_calm(CHAT) && record.is_calm(OTHER));
    answer(&mut record, CHAT);
    assert!(record.is_calm(CHAT));
    refuse(&mut record, Outcome::BadKey, CHAT, refusal(5, 1), NOW);
    assert!(!record.is_calm(OTHER), "a key is that of all models");
    answer(&mut record, OTHER);
    assert!(record.is_calm(CHAT));
    record.note_opinion(CHAT, refusal(5, 1), false, NOW, Rules { breaker: &policy(), holds: &holds() });
    assert!(record.is_calm(CHAT), "a confirmed refusal is nothing against the provider");
}

#[test]
fn what_is_refused_again_after_the_hold_is_held_for_longer() {
    let mut record = Record::new(1);
    for body in 1..=3 {
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, body), NOW);
    }
    assert_eq!(record.exclusion(CHAT, NOW).unwrap().until, at(60));
    assert_eq!(record.exclusion(CHAT, at(60)), None);
    for body in [3, 3, 4] {
        refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, body), at(60));
        assert_eq!(record.exclusion(CHAT, at(60)), None, "what has held once is used up");
    }
    refuse(&mut record, Outcome::Unwilling, CHAT, refusal(5, 5), at(60));
    assert_eq!(record.exclusion(CHAT, at(60)).unwrap().until, at(180));
}

#[test]
fn a_confirmation_is_believed_for_a_minute_and_a_disproof_ends_that() {
    let confirm = |record: &mut Record, now| {
        record.note_opinion(CHAT, refusal(5, 1), false, now, Rules { breaker: &policy(), holds: &holds() });
    };
    let believed = |record: &Record, now| record.is_believed(CHAT, refusal(5, 2), now, &policy());
    let mut record = Record::new(1);
    confirm(&mut record, NOW);
    confirm(&mut record, NOW);
    assert!(!believed(&record, NOW));
    confirm(&mut record, NOW);
    assert!(believed(&record, at(59)) && !believed(&record, at(60)));
    assert!(!record.is_believed(OTHER, refusal(5, 2), NOW, &policy()));
    assert!(!record.is_believed(CHAT, refusal(6, 2), NOW, &policy()));
    confirm(&mut record, at(60));
    assert!(believed(&record, at(119)), "one more confirmation is enough then");
    disproved(&mut record, 5, 1);
    assert!(!believed(&record, at(60)));
}

#[test]
fn evidence_has_a_fixed_number_of_slots_and_is_told_in_the_log_once_a_minute() {
    let mut record = Record::new(1);
    for id in 1..100 {
        refuse(&mut record, Outcome::Unwilling, id, refusal(id as u32, 1), at(id));
    }
    assert_eq!(record.encode().len(), LENGTH);
    assert_eq!(Record::decode(&record.encode()), Some(record));
    let rules = Rules { breaker: &policy(), holds: &holds() };
    let mut tell = |body, now| record.note_opinion(CHAT, refusal(5, body), true, now, rules);
    assert_eq!([tell(1, at(100)), tell(1, at(159)), tell(1, at(160))], [true, false, true]);
}
