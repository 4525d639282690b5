use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::base::store::{Memory, Swap, Version};

/// 2026-11-21T10:34:56Z
const NOW: Timestamp = Timestamp::from_millis(1_795_257_296_000);

/// One USD.
const USD: u64 = 1_000_000_000_000;

const HOUR: Duration = Duration::from_secs(3600);

fn each_tenant() -> Scope {
    Scope { tenant: Select::Each, ..all() }
}

fn all() -> Scope {
    Scope { tenant: Select::All, route: Select::All, provider: Select::All, model: Select::All }
}

/// A budget with a limit of 10 USD and an alert at 8 USD.
fn budget(scope: Scope, period: Period, slots: u16) -> Budget {
    Budget::new("b", scope, 10 * USD, 8 * USD, period, Action::Block, slots)
}

fn tenant(budget: &Budget, tenant: &str) -> Owner {
    budget.owner(Subject { tenant, ..Subject::default() }).unwrap()
}

fn before(moment: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_millis(moment.as_millis() - u64::try_from(duration.as_millis()).unwrap())
}

/// Reserves an amount and settles it at once.
fn spend(budget: &Budget, owner: Owner, amount: u64, now: Timestamp, store: &mut dyn Store) -> Standing {
    let admission = budget.reserve(owner, amount, now, store).unwrap();
    budget.settle(&admission.reservation.unwrap(), amount, now, store).unwrap().unwrap()
}

/// A store that remembers every key that was written.
#[derive(Default)]
struct Keys {
    inner: Memory,
    keys: BTreeSet<String>,
}

impl Store for Keys {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        self.inner.load(key)
    }
    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        self.keys.insert(key.to_owned());
        self.inner.compare_and_swap(key, value, version)
    }
}

/// A store in which every write loses the race.
struct Busy;

impl Store for Busy {
    fn load(&mut self, _key: &str) -> (Vec<u8>, Version) {
        (Vec::new(), None)
    }
    fn compare_and_swap(&mut self, _key: &str, _value: &[u8], _version: Version) -> Swap {
        Swap::Lost
    }
}

#[test]
fn what_a_request_cost_takes_the_place_of_its_estimate() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let admission = budget.admit(owner, 3 * USD, NOW, &mut store).unwrap();
    let under_way = budget.standing(owner, NOW, &mut store);
    assert_eq!((under_way.spent_pico, under_way.reserved_pico), (0, 3 * USD));
    assert_eq!(under_way, admission.standing);
    let after = budget.settle(&admission.reservation.unwrap(), 2 * USD, NOW, &mut store).unwrap().unwrap();
    assert_eq!((after.spent_pico, after.reserved_pico), (2 * USD, 0));
    assert_eq!(after, budget.standing(owner, NOW, &mut store));
}

#[test]
fn a_reservation_is_changed_in_one_step_and_a_larger_one_needs_room() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let held = budget.admit(owner, 3 * USD, NOW, &mut store).unwrap().reservation.unwrap();
    let other = budget.admit(owner, 6 * USD, NOW, &mut store).unwrap().reservation.unwrap();
    let mut change = |held: &Reservation, costs, always| {
        let changed = budget.change(held, costs, always, NOW, &mut store).unwrap().unwrap();
        (changed.standing.reserved_pico, changed.standing.state, changed.reservation)
    };
    // There is room beside the other one, though not for all of it.
    let (reserved, state, larger) = change(&held, (USD, 8 * USD), false);
    assert_eq!((reserved, state), (15 * USD, State::Open));
    let (reserved, _, held) = change(&larger.unwrap(), (0, 2 * USD), false);
    assert_eq!(reserved, 8 * USD);
    // What the request has cost is spent, and the other one's part makes the limit.
    let held = held.unwrap();
    assert_eq!(change(&held, (4 * USD, USD), false), (8 * USD, State::Spent, None));
    let (reserved, state, held) = change(&held, (4 * USD, USD), true);
    assert_eq!((reserved, state), (11 * USD, State::Spent));
    // No more than was reserved before needs no room.
    let (reserved, _, held) = change(&held.unwrap(), (4 * USD, USD / 2), false);
    assert_eq!(reserved, 10 * USD + USD / 2);
    for (reservation, left) in [(held.unwrap(), 6), (other, 0)] {
        let standing = budget.settle(&reservation, 0, NOW, &mut store).unwrap().unwrap();
        assert_eq!((standing.spent_pico, standing.reserved_pico), (0, left * USD));
    }
}

#[test]
fn a_reservation_that_expired_or_whose_period_is_over_gives_nothing_back_when_it_is_changed() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let held = budget.admit(owner, 3 * USD, NOW, &mut store).unwrap().reservation.unwrap();
    let later = NOW.after(HOUR * 2);
    let other = budget.admit(owner, USD, later, &mut store).unwrap().reservation.unwrap();
    let changed = budget.change(&held, (0, 2 * USD), false, later, &mut store).unwrap().unwrap();
    assert_eq!(changed.standing.reserved_pico, 3 * USD, "it is reserved anew");
    assert_eq!(budget.change(&held, (0, USD), false, later, &mut Busy), Err(Contended));
    let tomorrow = NOW.after(HOUR * 24);
    assert_eq!(budget.change(&other, (0, 2 * USD), false, tomorrow, &mut store), Ok(None));
    assert_eq!(budget.standing(owner, tomorrow, &mut store).reserved_pico, 0);
}

#[test]
fn a_budget_is_spent_when_spent_and_reserved_reach_the_limit() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    spend(&budget, owner, 6 * USD, NOW, &mut store);
    let last = budget.admit(owner, 7 * USD, NOW, &mut store).unwrap();
    assert_eq!(last.standing.state, State::Open, "there was room, though not for all of it");
    let refused = budget.admit(owner, 1, NOW, &mut store).unwrap();
    assert_eq!((refused.standing.state, refused.reservation), (State::Spent, None));
    assert_eq!(refused.standing.reserved_pico, 7 * USD, "a refused request reserves nothing");
    budget.settle(&last.reservation.unwrap(), 4 * USD - 1, NOW, &mut store).unwrap();
    assert_eq!(budget.standing(owner, NOW, &mut store).state, State::Open);
    let exactly = budget.admit(owner, 1, NOW, &mut store).unwrap();
    assert_eq!(exactly.standing.state, State::Open);
    assert_eq!(budget.standing(owner, NOW, &mut store).state, State::Spent);
}

#[test]
fn a_request_that_continues_although_the_budget_is_spent_is_counted_beyond_the_limit() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    assert_eq!(spend(&budget, owner, 10 * USD, NOW, &mut store).state, State::Spent);
    let beyond = budget.reserve(owner, USD, NOW, &mut store).unwrap();
    assert_eq!(beyond.standing.state, State::Spent);
    let after = budget.settle(&beyond.reservation.unwrap(), 2 * USD, NOW, &mut store).unwrap().unwrap();
    assert_eq!(after.spent_pico, 12 * USD);
}

#[test]
fn a_limit_of_nothing_admits_nobody_and_writes_nothing() {
    let budget = Budget::new("b", each_tenant(), 0, 0, Period::Day, Action::Block, 4);
    let mut store = Keys::default();
    for name in ["a", "b", "c"] {
        let admission = budget.admit(tenant(&budget, name), 0, NOW, &mut store).unwrap();
        assert_eq!((admission.standing.state, admission.reservation), (State::Spent, None));
    }
    assert_eq!(store.keys, BTreeSet::new());
}

#[test]
fn the_alert_is_given_once_per_period_and_owner() {
    let (budget, mut store) = (budget(each_tenant(), Period::Hour, 16), Memory::default());
    for now in [NOW, NOW.after(HOUR)] {
        for name in ["a", "b"] {
            let owner = tenant(&budget, name);
            let alerts: Vec<bool> = [7 * USD, USD - 1, 1, 1, 5 * USD]
                .into_iter()
                .map(|amount| spend(&budget, owner, amount, now, &mut store).newly_alerted)
                .collect();
            assert_eq!(alerts, [false, false, true, false, false], "{name}");
            assert!(!budget.standing(owner, now, &mut store).newly_alerted);
        }
    }
}

#[test]
fn a_lower_limit_keeps_what_was_counted_and_alerts_even_who_is_refused() {
    let (old, mut store) = (budget(all(), Period::Month, 0), Memory::default());
    spend(&old, tenant(&old, ""), 5 * USD, NOW, &mut store);
    let new = Budget::new("b", all(), 4 * USD, 3 * USD, Period::Month, Action::Skip, 0);
    let owner = tenant(&new, "");
    let alerts: Vec<bool> = (0..3)
        .map(|_| {
            let refused = new.admit(owner, 1, NOW, &mut store).unwrap();
            assert_eq!((refused.standing.spent_pico, refused.reservation), (5 * USD, None));
            refused.standing.newly_alerted
        })
        .collect();
    assert_eq!(alerts, [true, false, false]);
}

#[test]
fn another_budget_of_the_same_name_counts_anew() {
    let only = Scope { tenant: Select::Only("a".to_owned()), ..all() };
    for (one, other) in [(all(), only.clone()), (only, all())] {
        let (one, other) = (budget(one, Period::Month, 0), budget(other, Period::Month, 0));
        let (owner, mut store) = (tenant(&other, "a"), Memory::default());
        let reservation = one.reserve(tenant(&one, "a"), USD, NOW, &mut store).unwrap().reservation.unwrap();
        assert_eq!(other.standing(owner, NOW, &mut store).reserved_pico, 0);
        let spent = spend(&other, owner, 2 * USD, NOW, &mut store);
        assert_eq!((spent.spent_pico, spent.reserved_pico), (2 * USD, 0));
        assert_eq!(one.settle(&reservation, USD, NOW, &mut store), Ok(None));
        assert_eq!(other.standing(owner, NOW, &mut store), spent, "what the old one spent is not its own");
    }
}

#[test]
fn a_new_period_begins_at_zero_and_late_costs_of_the_last_one_are_not_counted() {
    for period in [Period::Hour, Period::Day, Period::Month] {
        let (budget, mut store) = (budget(all(), period, 0), Memory::default());
        let owner = tenant(&budget, "");
        let old = budget.admit(owner, 9 * USD, NOW, &mut store).unwrap();
        let end = old.standing.resets_at;
        assert_eq!(end, period.end(NOW));
        let last = before(end, Duration::from_millis(1));
        assert_eq!(spend(&budget, owner, 2 * USD, last, &mut store).spent_pico, 2 * USD);
        let new = budget.standing(owner, end, &mut store);
        assert_eq!((new.spent_pico, new.reserved_pico, new.state), (0, 0, State::Open));
        let late = old.reservation.unwrap();
        assert_eq!(budget.settle(&late, 9 * USD, end, &mut store), Ok(None), "nothing was counted since");
        spend(&budget, owner, USD, end, &mut store);
        assert_eq!(budget.settle(&late, 9 * USD, end, &mut store), Ok(None), "the new period has begun");
        assert_eq!(budget.standing(owner, end, &mut store).spent_pico, USD);
    }
}

#[test]
fn counting_since_is_the_first_request_or_the_start_of_the_period_if_the_slot_existed_before() {
    let (budget, mut store) = (budget(each_tenant(), Period::Day, 1), Memory::default());
    let (a, b) = (tenant(&budget, "a"), tenant(&budget, "b"));
    let later = NOW.after(HOUR);
    assert_eq!(budget.standing(a, NOW, &mut store).counting_since, NOW);
    assert_eq!(spend(&budget, a, USD, NOW, &mut store).counting_since, NOW);
    assert_eq!(spend(&budget, a, USD, later, &mut store).counting_since, NOW);
    let tomorrow = later.after(HOUR * 24);
    let start = Period::Day.start(tomorrow);
    // The slot shows that counting never stopped, whoever owned it yesterday.
    assert_eq!(budget.standing(b, tomorrow, &mut store).counting_since, start);
    assert_eq!(spend(&budget, b, USD, tomorrow, &mut store).counting_since, start);
}

#[test]
fn after_the_clock_is_put_back_a_little_counting_continues_in_the_period_that_had_begun() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let midnight = Period::Day.end(NOW);
    let admission = budget.admit(owner, 4 * USD, midnight, &mut store).unwrap();
    let back = before(midnight, Duration::from_secs(30));
    let standing = spend(&budget, owner, USD, back, &mut store);
    assert_eq!((standing.spent_pico, standing.reserved_pico), (USD, 4 * USD));
    assert_eq!(standing.resets_at, Period::Day.end(midnight));
    budget.settle(&admission.reservation.unwrap(), 4 * USD, back, &mut store).unwrap().unwrap();
    let standing = budget.standing(owner, midnight, &mut store);
    assert_eq!((standing.spent_pico, standing.reserved_pico), (5 * USD, 0));
}

#[test]
fn spending_counted_by_a_clock_years_ahead_is_ignored_when_the_clock_is_right_again() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let wrong = NOW.after(HOUR * 24 * 3650);
    let lost = budget.admit(owner, 10 * USD, wrong, &mut store).unwrap();
    let standing = budget.standing(owner, NOW, &mut store);
    assert_eq!((standing.state, standing.counting_since), (State::Open, NOW));
    assert_eq!(budget.settle(&lost.reservation.unwrap(), USD, NOW, &mut store), Ok(None));
    assert_eq!(spend(&budget, owner, USD, NOW, &mut store).spent_pico, USD);
}

#[test]
fn a_reservation_that_is_never_settled_counts_for_at_least_one_and_at_most_two_leases() {
    let (budget, mut store) = (budget(all(), Period::Month, 0), Memory::default());
    let owner = tenant(&budget, "");
    let next = Period::Hour.end(NOW);
    for made in [Period::Hour.start(NOW), before(next, Duration::from_millis(1))] {
        let mut store = Memory::default();
        let lost = budget.admit(owner, 10 * USD, made, &mut store).unwrap();
        let state = |at, store: &mut Memory| budget.standing(owner, at, store).state;
        assert_eq!(state(before(made.after(HOUR), Duration::from_millis(1)), &mut store), State::Spent);
        assert_eq!(state(made.after(HOUR * 2), &mut store), State::Open);
        let late = budget.settle(&lost.reservation.unwrap(), 3 * USD, made.after(HOUR * 5), &mut store);
        let late = late.unwrap().unwrap();
        assert_eq!(
            (late.spent_pico, late.reserved_pico),
            (3 * USD, 0),
            "a late settlement still adds the cost"
        );
    }
    // The same if the slot is not read while the second lease ends.
    let mut quiet = Memory::default();
    budget.admit(owner, 4 * USD, NOW, &mut quiet).unwrap();
    budget.admit(owner, USD, NOW.after(HOUR), &mut quiet).unwrap();
    assert_eq!(budget.standing(owner, NOW.after(HOUR * 2), &mut quiet).reserved_pico, USD);
    assert_eq!(budget.standing(owner, NOW.after(HOUR * 3), &mut quiet).reserved_pico, 0);
    // Settling an expired reservation does not return what others reserved since.
    let early = budget.admit(owner, 4 * USD, NOW, &mut store).unwrap().reservation.unwrap();
    let middle = budget.admit(owner, 3 * USD, NOW.after(HOUR), &mut store).unwrap().reservation.unwrap();
    let late = budget.admit(owner, 2 * USD, NOW.after(HOUR * 2), &mut store).unwrap().reservation.unwrap();
    let now = NOW.after(HOUR * 2);
    for (reservation, left) in [(early, 5), (middle, 2), (late, 0)] {
        let standing = budget.settle(&reservation, 0, now, &mut store).unwrap().unwrap();
        assert_eq!(standing.reserved_pico, left * USD);
    }
}

#[test]
fn a_clock_that_jitters_around_the_end_of_a_lease_drops_no_reservation() {
    let (budget, mut store) = (budget(all(), Period::Month, 0), Memory::default());
    let owner = tenant(&budget, "");
    let next = Period::Hour.end(NOW);
    let lost = budget.admit(owner, 4 * USD, NOW, &mut store).unwrap().reservation.unwrap();
    for _ in 0..4 {
        for at in [next, before(next, Duration::from_millis(5))] {
            assert_eq!(spend(&budget, owner, 0, at, &mut store).reserved_pico, 4 * USD);
        }
    }
    assert_eq!(budget.settle(&lost, 0, next, &mut store).unwrap().unwrap().reserved_pico, 0);
    // A lease number from years ahead does not keep reservations for years.
    budget.admit(owner, 4 * USD, next, &mut store).unwrap();
    let (bytes, version) = store.load("shunt.budget.b");
    let slot = Slot::decode(&bytes).unwrap();
    let ahead = Slot { lease: slot.lease + 10_000, ..slot };
    store.compare_and_swap("shunt.budget.b", &ahead.encode(), version);
    spend(&budget, owner, 0, next, &mut store);
    assert_eq!(budget.standing(owner, next.after(HOUR * 2), &mut store).reserved_pico, 0);
}

#[test]
fn each_tenant_has_a_budget_of_its_own() {
    let (budget, mut store) = (budget(each_tenant(), Period::Day, 256), Keys::default());
    let names: Vec<String> = (0..100).map(|number| format!("team-{number}")).collect();
    for (amount, name) in (1..).zip(&names) {
        assert!(!spend(&budget, tenant(&budget, name), amount, NOW, &mut store).overflow, "{name}");
    }
    for (amount, name) in (1..).zip(&names) {
        assert_eq!(budget.standing(tenant(&budget, name), NOW, &mut store).spent_pico, amount, "{name}");
    }
    assert_eq!(store.keys.len(), names.len());
}

#[test]
fn tenants_without_a_slot_share_one_limit_and_the_number_of_keys_is_as_configured() {
    for slots in [1, 2, 7, 8, 9, 64] {
        let (budget, mut store) = (budget(each_tenant(), Period::Day, slots), Keys::default());
        let mut shared = 0;
        for day in 0..3_u32 {
            let now = NOW.after(HOUR * 24 * day);
            shared = 0;
            for number in 0..500 {
                let owner = tenant(&budget, &format!("team-{number}"));
                let standing = spend(&budget, owner, 1, now, &mut store);
                shared += u64::from(standing.overflow);
                let again = budget.reserve(owner, 1, now, &mut store).unwrap();
                assert_eq!(again.standing.overflow, standing.overflow, "an owner stays where it is");
                let after = budget.settle(&again.reservation.unwrap(), 1, now, &mut store).unwrap().unwrap();
                assert_eq!(after.spent_pico, if standing.overflow { shared * 2 } else { 2 });
            }
        }
        assert!(shared >= 500 - u64::from(slots), "{slots} slots, {shared} shared");
        assert!(store.keys.len() <= usize::from(slots) + 1, "{:?}", store.keys);
    }
}

#[test]
fn the_first_owner_in_the_overflow_slot_is_reported_once_a_period() {
    let (budget, mut store) = (budget(each_tenant(), Period::Day, 1), Memory::default());
    for day in 0..2_u32 {
        let now = NOW.after(HOUR * 24 * day);
        let overflows: Vec<(bool, bool)> = ["a", "b", "c", "b"]
            .into_iter()
            .map(|name| budget.reserve(tenant(&budget, name), 1, now, &mut store).unwrap().standing)
            .map(|standing| (standing.overflow, standing.newly_overflow))
            .collect();
        assert_eq!(overflows, [(false, false), (true, true), (true, false), (true, false)]);
    }
    let spent = budget.admit(tenant(&budget, "d"), 10 * USD, NOW.after(HOUR * 24), &mut store).unwrap();
    assert_eq!(spent.standing.state, State::Open);
    for name in ["b", "e"] {
        let refused = budget.admit(tenant(&budget, name), 1, NOW.after(HOUR * 24), &mut store).unwrap();
        assert_eq!(refused.standing.state, State::Spent, "{name} shares the limit");
    }
    assert!(budget
        .admit(tenant(&budget, "a"), 1, NOW.after(HOUR * 24), &mut store)
        .unwrap()
        .reservation
        .is_some());
}

#[test]
fn damaged_bytes_are_read_as_a_slot_in_which_nothing_was_counted() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let good = {
        spend(&budget, owner, 9 * USD, NOW, &mut store);
        store.load("shunt.budget.b").0
    };
    let other_version = [&[9], &good[1..]].concat();
    let other_flag = [&good[..good.len() - 1], &[2]].concat();
    for bytes in [&b""[..], b"x", &good[1..], &[&good[..], b"x"].concat(), &other_version, &other_flag] {
        let mut store = Memory::default();
        let reservation = budget.reserve(owner, USD, NOW, &mut store).unwrap().reservation.unwrap();
        let (_, version) = store.load("shunt.budget.b");
        store.compare_and_swap("shunt.budget.b", bytes, version);
        assert_eq!(budget.standing(owner, NOW, &mut store).spent_pico, 0);
        // The cost of the request in flight belongs to this period and is recorded nowhere else, so it is counted.
        let settled = budget.settle(&reservation, USD, NOW, &mut store).unwrap().unwrap();
        assert_eq!((settled.spent_pico, settled.reserved_pico), (USD, 0));
        assert_eq!(spend(&budget, owner, USD, NOW, &mut store).spent_pico, 2 * USD);
    }
}

#[test]
fn a_slot_is_read_as_it_was_written() {
    let slot = Slot {
        identity: 1,
        owner: 2,
        start: Timestamp::from_millis(3),
        since: Timestamp::from_millis(4),
        spent: 5,
        lease: 6,
        fresh: 7,
        older: u64::MAX,
        alerted: true,
    };
    assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    assert_eq!(
        Slot::decode(&Slot { alerted: false, ..slot }.encode()),
        Some(Slot { alerted: false, ..slot })
    );
}

#[test]
fn losing_every_race_is_returned_as_contended() {
    let budget = budget(each_tenant(), Period::Day, 4);
    let owner = tenant(&budget, "a");
    let mut store = Memory::default();
    let reservation = budget.reserve(owner, 1, NOW, &mut store).unwrap().reservation.unwrap();
    assert_eq!(budget.admit(owner, 1, NOW, &mut Busy), Err(Contended));
    assert_eq!(budget.reserve(owner, 1, NOW, &mut Busy), Err(Contended));
    assert_eq!(budget.settle(&reservation, 1, NOW, &mut Busy), Err(Contended));
    let later = budget.settle(&reservation, 1, NOW, &mut store).unwrap().unwrap();
    assert_eq!((later.spent_pico, later.reserved_pico), (1, 0), "it can be settled later");
}

#[test]
fn amounts_saturate_at_the_largest_number() {
    let (budget, mut store) = (budget(all(), Period::Day, 0), Memory::default());
    let owner = tenant(&budget, "");
    let small = budget.reserve(owner, 5, NOW, &mut store).unwrap().reservation.unwrap();
    let huge = budget.reserve(owner, u64::MAX, NOW, &mut store).unwrap().reservation.unwrap();
    let standing = budget.settle(&huge, u64::MAX, NOW, &mut store).unwrap().unwrap();
    assert_eq!((standing.spent_pico, standing.reserved_pico), (u64::MAX, 5));
    assert_eq!(budget.settle(&small, 9, NOW, &mut store).unwrap().unwrap().spent_pico, u64::MAX);
    assert_eq!(budget.standing(owner, Timestamp::from_millis(u64::MAX), &mut store).spent_pico, 0);
}

#[test]
fn a_budget_covers_attempts_that_all_its_properties_select() {
    let only = |text: &str| Select::Only(text.to_owned());
    let scope = Scope {
        tenant: only("team-a"),
        route: only("chat"),
        provider: only("openai"),
        model: Select::StartsWith("gpt-".to_owned()),
    };
    let budget = budget(scope, Period::Day, 9);
    assert_eq!(budget.slots, 0, "there is one owner");
    let subject = Subject { tenant: "team-a", route: "chat", provider: "openai", model: "gpt-5" };
    assert!(budget.owner(subject).is_some());
    assert_eq!(budget.owner(Subject { model: "gpt-4", ..subject }), budget.owner(subject));
    for other in [
        Subject { tenant: "team-b", ..subject },
        Subject { tenant: "", ..subject },
        Subject { route: "chat2", ..subject },
        Subject { provider: "deepseek", ..subject },
        Subject { model: "o3", ..subject },
    ] {
        assert_eq!(budget.owner(other), None, "{other:?}");
    }
}

#[test]
fn two_properties_that_select_each_value_give_each_pair_a_budget_of_its_own() {
    let budget = budget(Scope { model: Select::Each, ..each_tenant() }, Period::Day, 9);
    let owner =
        |tenant, model, provider| budget.owner(Subject { tenant, model, provider, route: "chat" }).unwrap();
    assert_ne!(owner("a", "b", "p"), owner("b", "a", "p"));
    assert_ne!(owner("a", "b", "p"), owner("a", "c", "p"));
    assert_eq!(owner("a", "b", "p"), owner("a", "b", "q"), "the scope does not depend on the provider");
    assert!(budget.scope.is_about_candidates() && !each_tenant().is_about_candidates());
}

#[test]
fn the_header_reports_what_is_left_in_usd() {
    let (mut budget, mut store) = (budget(all(), Period::Hour, 0), Memory::default());
    budget.name = "team-a".to_owned();
    let owner = tenant(&budget, "");
    spend(&budget, owner, 3 * USD + USD / 2, NOW, &mut store);
    let admission = budget.admit(owner, USD / 4 + 1, NOW, &mut store).unwrap();
    assert_eq!(
        budget.header(&admission.standing, NOW.after(Duration::from_millis(1))),
        "team-a;remaining=6.249999999999;limit=10;reset=1504;counting_since=2026-11-21T10:34:56Z"
    );
    spend(&budget, owner, 100 * USD, NOW, &mut store);
    let text = budget.header(&budget.standing(owner, NOW, &mut store), NOW.after(HOUR * 9));
    assert_eq!(text, "team-a;remaining=0;limit=10;reset=0;counting_since=2026-11-21T10:34:56Z");
}
