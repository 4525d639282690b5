use super::*;
use crate::base::store::{Memory, Swap, Version};
use crate::health::breaker::{ModelHoldReason, State};
use crate::health::outcome::{HoldReason, Outcome};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LEASE: Duration = Duration::from_secs(20);
const CONFIG: &str = r#"{
    "providers": {
        "one":   {"host": "h", "api_key": "$KEY", "models": {"a": "m"}},
        "two":   {"host": "h", "api_key": "$KEY", "models": {"a": "m"}},
        "three": {"host": "h", "api_key": "$KEY", "models": {"a": "m"}}
    },
    "routes": [{"name": "r", "match": {"path": "/chat/completions"}, "providers": ["one", "two", "three"]}],
    "breaker": {"consecutive_failures": 2, "open": "10s"}
}"#;

fn config() -> Config {
    Config::parse(CONFIG, &|_| Some("sk-test".to_owned())).unwrap()
}

fn candidates() -> Vec<Candidate> {
    let model = Resolved {
        name: "m".to_owned(),
        entry: 0,
        context: None,
        max_output: None,
        price: None,
        lacks: crate::client_api::request::Features::default(),
    };
    (0..3).map(|place| Candidate { provider: ProviderId(place), model: model.clone() }).collect()
}

fn at(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

fn choose_any(store: &mut dyn Store, now: Timestamp) -> Choice<usize> {
    choose_among(store, now, |_| true).unwrap()
}

fn choose_among(
    store: &mut dyn Store,
    now: Timestamp,
    eligible: impl Fn(usize) -> bool,
) -> Option<Choice<usize>> {
    choose_by(&mut Ledger::default(), store, now, eligible)
}

/// Chooses as a worker with this memory.
fn choose_by(
    ledger: &mut Ledger,
    store: &mut dyn Store,
    now: Timestamp,
    eligible: impl Fn(usize) -> bool,
) -> Option<Choice<usize>> {
    let mut random = Rng::with_seed(now.as_millis());
    let candidates = candidates();
    let eligible = candidates.iter().enumerate().filter(|(place, _)| eligible(*place));
    let need = Need { endpoint: Endpoint::Chat, lease: LEASE, forced: true };
    choose(&config(), eligible, need, &mut Env { now, store, random: &mut random, ledger })
}

fn report_once(
    store: &mut dyn Store,
    place: usize,
    outcome: Outcome,
    permit: Permit,
    now: Timestamp,
) -> Result<Change, Contended> {
    report_by(&mut Ledger::default(), store, place, outcome, permit, now)
}

/// Reports as a worker with this memory.
fn report_by(
    ledger: &mut Ledger,
    store: &mut dyn Store,
    place: usize,
    outcome: Outcome,
    permit: Permit,
    now: Timestamp,
) -> Result<Change, Contended> {
    let config = config();
    let report =
        Report { outcome, permit, retry_after: None, model: model_key("m", Endpoint::Chat), refusal: None };
    let mut random = Rng::with_seed(3);
    super::report(
        &config,
        &config.providers[place],
        report,
        &mut Env { now, store, random: &mut random, ledger },
    )
}

fn open(store: &mut dyn Store, place: usize, now: Timestamp) {
    for _ in 0..2 {
        report_once(store, place, Outcome::Overloaded, Permit::Free, now).unwrap();
    }
}

fn choice(candidate: usize, permit: Permit, passed_over: &[usize]) -> Choice<usize> {
    Choice {
        candidate,
        permit,
        passed_over: passed_over.iter().map(|place| (*place, Reason::Open)).collect(),
    }
}

/// A store that counts its calls. The first `losses` writes fail, because another worker wrote before.
#[derive(Default)]
struct Watched {
    inner: Memory,
    losses: usize,
    loads: usize,
    writes: usize,
}

impl Store for Watched {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.loads += 1;
        self.inner.load(key)
    }

    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        if self.losses > 0 {
            self.losses -= 1;
            return Swap::Lost;
        }
        self.writes += 1;
        self.inner.compare_and_swap(key, value, version)
    }
}

/// The work of another worker.
type Work<'a> = Box<dyn FnOnce(&mut Memory) + 'a>;

/// A store in which another worker does its work between this worker's first read and its first write.
struct Raced<'a> {
    inner: &'a mut Memory,
    other: Option<Work<'a>>,
}

impl Store for Raced<'_> {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.inner.load(key)
    }

    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        if let Some(other) = self.other.take() {
            other(self.inner);
        }
        self.inner.compare_and_swap(key, value, version)
    }
}

#[test]
fn a_healthy_first_candidate_costs_one_read_and_no_write() {
    let mut store = Watched::default();
    assert_eq!(choose_any(&mut store, NOW), choice(0, Permit::Free, &[]));
    assert_eq!((store.loads, store.writes), (1, 0));
}

#[test]
fn excluded_candidates_are_passed_over_in_order() {
    let mut store = Memory::default();
    open(&mut store, 0, NOW);
    assert_eq!(choose_any(&mut store, NOW), choice(1, Permit::Free, &[0]));
    report_once(&mut store, 1, Outcome::BadKey, Permit::Free, NOW).unwrap();
    let expected = vec![(0, Reason::Open), (1, Reason::Held(HoldReason::BadKey))];
    assert_eq!(choose_any(&mut store, NOW).passed_over, expected);
}

#[test]
fn only_eligible_candidates_are_read() {
    let mut store = Watched::default();
    open(&mut store.inner, 0, NOW);
    assert_eq!(choose_among(&mut store, NOW, |place| place == 2), Some(choice(2, Permit::Free, &[])));
    assert_eq!(store.loads, 1);
    assert_eq!(choose_among(&mut store, NOW, |_| false), None);
}

#[test]
fn if_all_are_excluded_the_one_whose_exclusion_ends_first_is_chosen() {
    let mut store = Memory::default();
    open(&mut store, 1, NOW);
    open(&mut store, 0, at(2));
    open(&mut store, 2, at(4));
    assert_eq!(choose_any(&mut store, at(5)), choice(1, Permit::Forced, &[0, 2]));
    assert_eq!(choose_among(&mut store, at(5), |place| place != 1), Some(choice(0, Permit::Forced, &[2])));
}

#[test]
fn a_forced_choice_writes_nothing() {
    let mut store = Watched::default();
    for place in 0..3 {
        open(&mut store.inner, place, NOW);
    }
    choose_any(&mut store, NOW);
    assert_eq!(store.writes, 0);
}

#[test]
fn a_hold_on_a_model_excludes_that_model_only() {
    let mut store = Memory::default();
    report_once(&mut store, 0, Outcome::NoSuchModel, Permit::Free, NOW).unwrap();
    assert_eq!(
        choose_any(&mut store, NOW).passed_over,
        [(0, Reason::ModelHeld(ModelHoldReason::NoSuchModel))]
    );
    let config = config();
    let mut random = Rng::with_seed(1);
    let mut ledger = Ledger::default();
    let mut env = Env { now: NOW, store: &mut store, random: &mut random, ledger: &mut ledger };
    assert_eq!(
        exclusion(&config.providers[0], "m", Endpoint::Chat, &mut env).map(|found| found.reason),
        Some(Reason::ModelHeld(ModelHoldReason::NoSuchModel))
    );
    assert_eq!(exclusion(&config.providers[0], "other", Endpoint::Chat, &mut env), None);
}

#[test]
fn the_permit_of_a_half_open_breaker_is_taken_once() {
    let mut store = Memory::default();
    open(&mut store, 0, NOW);
    let probe = choose_any(&mut store, at(12));
    assert!(matches!(probe, Choice { candidate: 0, permit: Permit::Probe(_), .. }), "{probe:?}");
    assert_eq!(choose_any(&mut store, at(12)), choice(1, Permit::Free, &[0]));
    assert_eq!(choose_any(&mut store, at(31)), choice(1, Permit::Free, &[0]));
    let next = choose_any(&mut store, at(32));
    assert!(matches!(next, Choice { candidate: 0, permit: Permit::Probe(_), .. }), "{next:?}");
    assert_ne!(next.permit, probe.permit);
}

#[test]
fn of_two_workers_that_race_for_a_permit_one_gets_it() {
    let mut memory = Memory::default();
    open(&mut memory, 0, NOW);
    let mut winner = None;
    let loser = {
        let other = |memory: &mut Memory| winner = Some(choose_any(memory, at(13)));
        let mut store = Raced { inner: &mut memory, other: Some(Box::new(other)) };
        choose_any(&mut store, at(12))
    };
    let winner = winner.unwrap();
    assert!(matches!(winner, Choice { candidate: 0, permit: Permit::Probe(_), .. }), "{winner:?}");
    assert_eq!(loser, choice(1, Permit::Free, &[0]));
    // The permit in the record is the winner's.
    let record = Record::decode(&memory.load("shunt.provider.one").0).unwrap();
    let State::HalfOpen { permit, .. } = record.state else { panic!("not half-open") };
    assert_eq!(winner.permit, Permit::Probe(permit));
}

#[test]
fn a_worker_that_finds_the_breaker_closed_meanwhile_needs_no_permit() {
    let mut memory = Memory::default();
    open(&mut memory, 0, NOW);
    let other = |memory: &mut Memory| {
        let probe = choose_any(memory, at(13));
        assert_eq!(report_once(memory, 0, Outcome::Answered, probe.permit, at(13)), Ok(Change::Closed));
    };
    let mut store = Raced { inner: &mut memory, other: Some(Box::new(other)) };
    assert_eq!(choose_any(&mut store, at(13)), choice(0, Permit::Free, &[]));
}

#[test]
fn reports_of_two_workers_are_both_counted() {
    let mut memory = Memory::default();
    let other = |memory: &mut Memory| {
        report_once(memory, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    };
    let mut store = Raced { inner: &mut memory, other: Some(Box::new(other)) };
    let change = report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    assert!(matches!(change, Change::Excluded(Exclusion { reason: Reason::Open, .. })), "{change:?}");
}

#[test]
fn a_permit_is_taken_after_a_few_lost_races() {
    let mut store = Watched { losses: 5, ..Watched::default() };
    open(&mut store.inner, 0, NOW);
    assert!(matches!(choose_any(&mut store, at(12)).permit, Permit::Probe(_)));
    assert_eq!(store.writes, 1);
}

#[test]
fn a_provider_whose_permit_cannot_be_taken_is_passed_over() {
    let mut store = Watched { losses: usize::MAX, ..Watched::default() };
    open(&mut store.inner, 0, NOW);
    assert_eq!(choose_any(&mut store, at(12)), choice(1, Permit::Free, &[0]));
    // It is chosen nevertheless if it is the only one.
    assert_eq!(choose_among(&mut store, at(12), |place| place == 0), Some(choice(0, Permit::Forced, &[])));
}

#[test]
fn a_report_that_loses_every_race_is_an_error() {
    let mut store = Watched { losses: usize::MAX, ..Watched::default() };
    assert_eq!(report_once(&mut store, 0, Outcome::Overloaded, Permit::Free, NOW), Err(Contended));
    assert_eq!(store.inner.load("shunt.provider.one"), (Vec::new(), None));
    store.losses = 3;
    assert_eq!(report_once(&mut store, 0, Outcome::Overloaded, Permit::Free, NOW), Ok(Change::Nothing));
}

#[test]
fn a_report_that_changes_nothing_is_not_written() {
    let mut store = Watched::default();
    for outcome in [Outcome::ClientGone, Outcome::BadRequest, Outcome::Refused, Outcome::TooLong] {
        assert_eq!(report_once(&mut store, 0, outcome, Permit::Free, NOW), Ok(Change::Nothing));
    }
    assert_eq!(store.writes, 0);
}

#[test]
fn a_report_says_when_a_provider_is_excluded_and_when_its_breaker_closes() {
    let mut store = Memory::default();
    assert_eq!(report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, NOW), Ok(Change::Nothing));
    let Ok(Change::Excluded(open)) = report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, NOW) else {
        panic!("not excluded")
    };
    assert_eq!(open.reason, Reason::Open);
    assert!((at(10)..=at(11)).contains(&open.until), "{open:?}");
    // A failure that comes late changes nothing.
    assert_eq!(report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, at(1)), Ok(Change::Nothing));
    let probe = choose_any(&mut store, at(12)).permit;
    assert_eq!(report_once(&mut store, 0, Outcome::Answered, probe, at(13)), Ok(Change::Closed));
    assert_eq!(report_once(&mut store, 0, Outcome::Answered, Permit::Free, at(13)), Ok(Change::Nothing));
}

#[test]
fn a_success_of_a_forced_attempt_closes_the_breaker() {
    let mut store = Memory::default();
    for place in 0..3 {
        open(&mut store, place, NOW);
    }
    let choice = choose_any(&mut store, at(1));
    assert_eq!(choice.permit, Permit::Forced);
    assert_eq!(
        report_once(&mut store, choice.candidate, Outcome::Answered, Permit::Forced, at(2)),
        Ok(Change::Closed)
    );
    assert_eq!(choose_any(&mut store, at(2)).permit, Permit::Free);
}

#[test]
fn a_held_provider_may_have_a_closed_breaker() {
    let mut store = Memory::default();
    report_once(&mut store, 0, Outcome::RateLimited, Permit::Free, NOW).unwrap();
    open(&mut store, 1, NOW);
    let config = config();
    let mut random = Rng::with_seed(1);
    let mut ledger = Ledger::default();
    let mut env = Env { now: NOW, store: &mut store, random: &mut random, ledger: &mut ledger };
    assert!(is_closed(&config.providers[0], &mut env));
    assert!(!is_closed(&config.providers[1], &mut env));
}

#[test]
fn a_damaged_or_foreign_record_is_a_new_one() {
    let mut store = Memory::default();
    open(&mut store, 0, NOW);
    let (mut bytes, version) = store.load("shunt.provider.one");
    bytes[1] ^= 1;
    store.compare_and_swap("shunt.provider.one", &bytes, version);
    store.compare_and_swap("shunt.provider.two", b"junk", None);
    assert_eq!(choose_any(&mut store, NOW), choice(0, Permit::Free, &[]));
    assert_eq!(report_once(&mut store, 1, Outcome::Answered, Permit::Free, NOW), Ok(Change::Nothing));
    assert_eq!(choose_among(&mut store, NOW, |place| place == 1), Some(choice(1, Permit::Free, &[])));
}

/// Successes and failures in the first provider's record.
fn counted(store: &mut dyn Store, now: Timestamp) -> (u64, u64) {
    match Record::decode(&store.load("shunt.provider.one").0).unwrap().state {
        State::Closed { window, .. } => {
            let tally = window.tally(now, config().breaker.window);
            (tally.successes, tally.failures)
        }
        state => panic!("not closed: {state:?}"),
    }
}

#[test]
fn a_worker_that_has_just_read_a_record_does_not_read_it_again() {
    let (mut ledger, mut store) = (Ledger::default(), Watched::default());
    for _ in 0..10 {
        assert_eq!(choose_by(&mut ledger, &mut store, NOW, |_| true), Some(choice(0, Permit::Free, &[])));
        report_by(&mut ledger, &mut store, 0, Outcome::Answered, Permit::Free, NOW).unwrap();
    }
    assert_eq!((store.loads, store.writes), (1, 0));
}

#[test]
fn a_worker_soon_sees_what_another_one_wrote() {
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    assert_eq!(choose_by(&mut ledger, &mut store, NOW, |_| true), Some(choice(0, Permit::Free, &[])));
    open(&mut store, 0, NOW);
    let soon = NOW.after(Duration::from_millis(10));
    assert_eq!(choose_by(&mut ledger, &mut store, soon, |_| true), Some(choice(1, Permit::Free, &[0])));
}

#[test]
fn a_worker_sees_at_once_what_it_wrote_itself() {
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    assert_eq!(choose_by(&mut ledger, &mut store, NOW, |_| true), Some(choice(0, Permit::Free, &[])));
    for _ in 0..2 {
        report_by(&mut ledger, &mut store, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    }
    assert_eq!(choose_by(&mut ledger, &mut store, NOW, |_| true), Some(choice(1, Permit::Free, &[0])));
    let probe = choose_by(&mut ledger, &mut store, at(12), |_| true).unwrap().permit;
    assert!(matches!(probe, Permit::Probe(_)));
    assert_eq!(choose_by(&mut ledger, &mut store, at(12), |_| true), Some(choice(1, Permit::Free, &[0])));
}

#[test]
fn successes_that_were_noted_are_written_with_the_next_failure() {
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    choose_by(&mut ledger, &mut store, NOW, |_| true);
    for _ in 0..7 {
        report_by(&mut ledger, &mut store, 0, Outcome::Answered, Permit::Free, NOW).unwrap();
    }
    assert_eq!(store.load("shunt.provider.one"), (Vec::new(), None));
    report_by(&mut ledger, &mut store, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    assert_eq!(counted(&mut store, NOW), (7, 1));
}

#[test]
fn old_successes_are_not_counted_as_new_ones() {
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    choose_by(&mut ledger, &mut store, NOW, |_| true);
    for _ in 0..7 {
        report_by(&mut ledger, &mut store, 0, Outcome::Answered, Permit::Free, NOW).unwrap();
    }
    let later = at(3600);
    report_by(&mut ledger, &mut store, 0, Outcome::TooSlow, Permit::Free, later).unwrap();
    assert_eq!(counted(&mut store, later), (0, 1));
}

#[test]
fn a_success_after_a_failure_is_written_at_once() {
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    report_by(&mut ledger, &mut store, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    report_by(&mut ledger, &mut store, 0, Outcome::Answered, Permit::Free, NOW).unwrap();
    assert_eq!(counted(&mut store, NOW), (1, 1));
    report_by(&mut ledger, &mut store, 0, Outcome::TooSlow, Permit::Free, NOW).unwrap();
    assert_eq!(counted(&mut store, NOW), (1, 2), "the failures were not in a row");
}

#[test]
fn a_success_ends_a_run_of_failures_that_another_worker_has_begun() {
    // A whole stream may pass between a worker's last read and the success that it reports.
    let (mut ledger, mut store) = (Ledger::default(), Memory::default());
    choose_by(&mut ledger, &mut store, NOW, |_| true);
    report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, at(1)).unwrap();
    report_by(&mut ledger, &mut store, 0, Outcome::Answered, Permit::Free, at(2)).unwrap();
    report_once(&mut store, 0, Outcome::TooSlow, Permit::Free, at(2)).unwrap();
    assert_eq!(choose_any(&mut store, at(2)), choice(0, Permit::Free, &[]), "the failures were not in a row");
}
