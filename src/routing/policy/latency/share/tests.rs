//! Which candidates share the load, and who gets how much of it.

use std::time::Duration;

use super::super::{order, Rules, BAND};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A candidate with this p95, at which so many attempts have waited for so long.
fn loaded(id: u64, p95: u32, waiting: u32, waited: u64) -> Candidate {
    let began = Timestamp::from_millis(NOW.as_millis() - waited);
    let measured = Measured {
        samples: 50,
        p95: Duration::from_millis(p95.into()),
        median: Duration::from_millis(u64::from(p95) * 3 / 4),
        settled: Settled { time: p95, latest: p95, count: 100, ..Settled::default() },
        load: Load::of(&vec![began; waiting as usize]),
    };
    Candidate { id, measured, ..Candidate::default() }
}

fn idle(id: u64, p95: u32) -> Candidate {
    loaded(id, p95, 0, 0)
}

/// The whole order with these numbers.
fn ranked(all: &[Candidate], band: u32, random: u64, sticky: Option<u64>) -> Vec<(usize, String)> {
    let rules = Rules { band, ..Rules::default() };
    let ranked = order(all, &rules, Chance { random, sticky, now: NOW });
    ranked.into_iter().map(|ranked| (ranked.place, ranked.why)).collect()
}

/// How many of ten thousand requests each candidate gets.
fn shares<const N: usize>(all: [Candidate; N], band: u32) -> [usize; N] {
    let mut random = fastrand::Rng::with_seed(11);
    let mut counts = [0; N];
    for _ in 0..10_000 {
        counts[ranked(&all, band, random.u64(..), None)[0].0] += 1;
    }
    counts
}

#[test]
fn equals_get_equal_shares_and_the_record_says_so() {
    let all = [idle(1, 500), idle(2, 500)];
    let counts = shares(all, BAND);
    assert!(counts.iter().all(|count| (4800..5200).contains(count)), "{counts:?}");
    for random in 0..100_u64 {
        let ranked = ranked(&all, BAND, random << 32 | 1 << 63, None);
        assert_eq!([&*ranked[0].1, &*ranked[1].1], ["p95 500 ms, by share", "p95 500 ms"]);
    }
}

#[test]
fn who_is_a_little_slower_gets_a_little_less_and_who_is_out_of_the_band_nothing() {
    let [quick, slower, slow] = shares([idle(1, 500), idle(2, 600), idle(3, 601)], BAND);
    assert_eq!(slow, 0);
    let ratio = quick as f64 / slower as f64;
    assert!((1.1..1.3).contains(&ratio), "{ratio}");
    let alone = ranked(&[idle(1, 500), idle(2, 601)], BAND, u64::MAX, None);
    assert_eq!(alone[0], (0, "p95 500 ms".to_owned()), "one that is alone in the band has no share");
}

#[test]
fn with_a_band_of_zero_the_first_gets_everything_however_much_is_under_way_there() {
    assert_eq!(shares([loaded(1, 500, 100, 9000), idle(2, 500)], 0), [10_000, 0]);
    let wide = shares([idle(1, 500), idle(2, 900)], MILLION);
    assert!(wide[1] > 3000, "a band of 1 reaches to twice the time: {wide:?}");
}

#[test]
fn who_has_more_under_way_gets_less_at_once() {
    let [busy, other] = shares([loaded(1, 500, 3, 10), idle(2, 500)], BAND);
    assert_eq!((busy, other), (0, 10_000));
    let [busy, other] = shares([loaded(1, 500, 3, 10), loaded(2, 500, 3, 10)], BAND);
    assert!(busy.abs_diff(other) < 400, "as much at both");
    let [busy, other, third] =
        shares([loaded(1, 500, 9, 10), loaded(2, 500, 5, 10), loaded(3, 500, 5, 10)], BAND);
    assert_eq!(busy, 0);
    assert!(other.abs_diff(third) < 400, "{other} {third}");
}

#[test]
fn who_is_quicker_by_more_than_the_load_differs_keeps_its_share() {
    // 500 x 6 is less than 600 x 5 + 1.
    let [quick, slower] = shares([loaded(1, 500, 5, 10), loaded(2, 600, 4, 10)], BAND);
    assert!(quick > 5000 && slower > 4000, "{quick} {slower}");
}

#[test]
fn others_come_into_the_band_when_what_is_under_way_at_the_first_has_waited_for_long() {
    // The median of the other one is 675 ms.
    let other = idle(2, 900);
    for (waiting, waited, shares_it) in [
        (0, 0, false),
        (1, 500, false),
        (1, 562, false),
        (1, 563, true),
        (20, 250, false),
        (20, 290, false),
        (20, 296, true),
        (20, 2000, true),
    ] {
        let counts = shares([loaded(1, 500, waiting, waited), other], BAND);
        assert_eq!(counts[1] > 0, shares_it, "{waiting} {waited}: {counts:?}");
    }
    let ranked = ranked(&[loaded(1, 500, 20, 1000), other], BAND, u64::MAX, None);
    let whys = ["p95 900 ms, ordered as 675 ms, by share", "p95 500 ms, ordered as 375 ms"];
    assert_eq!([&*ranked[0].1, &*ranked[1].1], whys);
}

#[test]
fn one_who_is_overloaded_and_those_who_help_share_by_what_is_under_way() {
    let counts = shares([loaded(1, 500, 20, 1000), idle(2, 700), idle(3, 5000)], BAND);
    assert_eq!(counts, [0, 10_000, 0], "the slow one takes longer even so");
    let counts = shares([loaded(1, 500, 20, 1000), loaded(2, 550, 1, 200), idle(3, 1200)], BAND);
    assert_eq!(counts, [0, 10_000, 0], "550 x 2 is less than 1200");
    let counts = shares([loaded(1, 500, 20, 1000), loaded(2, 550, 20, 1000), idle(3, 1200)], BAND);
    assert_eq!(counts, [0, 0, 10_000]);
    let counts = shares([loaded(1, 500, 5, 1000), loaded(2, 700, 5, 700)], BAND);
    assert_eq!(counts, [10_000, 0], "it gets more itself, while the others have as much to do");
}

#[test]
fn the_p95_that_another_one_had_under_load_does_not_keep_it_out_of_an_overload() {
    let stale = Candidate {
        measured: Measured { median: Duration::from_millis(60), ..idle(2, 9000).measured },
        ..idle(2, 9000)
    };
    assert_eq!(shares([loaded(1, 80, 2, 10), stale], BAND)[1], 0);
    assert!(shares([loaded(1, 80, 10, 100), stale], BAND)[1] > 9000);
}

#[test]
fn while_less_than_one_is_under_way_the_best_gets_what_finds_nothing_under_way() {
    let quiet = |candidate: Candidate, count| {
        let settled = Settled { count, ..candidate.measured.settled };
        Candidate { measured: Measured { settled, ..candidate.measured }, ..candidate }
    };
    // Medians of 375 and 382 ms: in ten seconds, 26 requests are less than one all the time, and 27 are more, wherever they are.
    let [best, other] = shares([quiet(idle(1, 500), 13), quiet(idle(2, 510), 13)], BAND);
    assert!(best == 10_000 && other == 0, "{best} {other}");
    for counts in [[27, 0], [14, 13], [0, 27]] {
        let [best, other] = shares([quiet(idle(1, 500), counts[0]), quiet(idle(2, 510), counts[1])], BAND);
        assert!(best > 4800 && other > 4800, "{counts:?}: {best} {other}");
    }
    let [best, other] = shares([quiet(loaded(1, 500, 1, 10), 2), quiet(idle(2, 510), 2)], BAND);
    assert_eq!((best, other), (0, 10_000), "what is under way still counts");
    let record = ranked(&[quiet(idle(1, 500), 2), quiet(idle(2, 510), 2)], BAND, u64::MAX, None);
    assert_eq!(record[0].1, "p95 500 ms, by share");
}

#[test]
fn sticky_requests_stay_whatever_is_under_way() {
    let mut of = [0; 3];
    for sticky in 0..3000 {
        let first = |all: &[Candidate], random: u64| ranked(all, BAND, random | 1 << 63, Some(sticky))[0].0;
        let all = [idle(1, 500), idle(2, 520), idle(3, 540)];
        let place = first(&all, 0);
        let busy = [loaded(1, 510, 50, 9000), loaded(2, 490, 0, 0), loaded(3, 530, 7, 100)];
        assert!((0..20).all(|random| first(&busy, random) == place));
        // One that is slow loses its own, and nobody else's move.
        let without = [idle(1, 500), idle(2, 900), idle(3, 540)];
        assert!(place == 1 || first(&without, 5) == place);
        of[place] += 1;
    }
    assert!(of.iter().all(|count| (850..1150).contains(count)), "{of:?}");
}

/// Of ten thousand requests: how many get each candidate first among those that are left when `gone` cannot be tried.
fn shares_without<const N: usize>(all: [Candidate; N], gone: usize, sticky: bool) -> [usize; N] {
    let mut random = fastrand::Rng::with_seed(13);
    let mut counts = [0; N];
    for number in 0..10_000 {
        let ranked = ranked(&all, BAND, random.u64(..), Some(number).filter(|_| sticky));
        let first = ranked.iter().map(|(place, _)| *place).find(|place| *place != gone);
        counts[first.unwrap()] += 1;
    }
    counts
}

#[test]
fn those_who_are_left_share_the_load_of_one_that_cannot_be_tried() {
    let equals = [idle(1, 500), idle(2, 500), idle(3, 500)];
    for sticky in [false, true] {
        for gone in 0..3 {
            let counts = shares_without(equals, gone, sticky);
            let left = |(place, count): (usize, usize)| place == gone || (4700..5300).contains(&count);
            assert!(counts.into_iter().enumerate().all(left), "{gone} {sticky}: {counts:?}");
        }
    }
    // Nothing is under way at one that is on hold, and it would be the best one to help.
    let overloaded = loaded(1, 500, 20, 1000);
    assert_eq!(shares_without([overloaded, idle(2, 510), idle(3, 700)], 1, false), [0, 0, 10_000]);
    // The quickest one by what was measured is gone, and nothing is under way there.
    assert_eq!(shares_without([idle(1, 100), overloaded, idle(3, 700)], 0, false), [0, 0, 10_000]);
}

#[test]
fn those_who_are_left_share_the_load_while_one_is_tried_that_cannot_be_tried() {
    let unknown = |id| Candidate { id, ..Candidate::default() };
    // Three are broken for longer than the window, so all requests are trials.
    let all = [unknown(1), unknown(2), unknown(3), idle(4, 500), idle(5, 500)];
    let mut random = fastrand::Rng::with_seed(14);
    let mut counts = [0_usize; 5];
    for _ in 0..10_000 {
        let ranked = ranked(&all, BAND, random.u64(..), None);
        assert!(ranked[0].1.starts_with("tried, "));
        counts[ranked.iter().map(|(place, _)| *place).find(|place| *place > 2).unwrap()] += 1;
    }
    assert!(counts[3].abs_diff(counts[4]) < 600, "{counts:?}");
}

#[test]
fn one_that_is_tried_is_not_first_by_its_share_and_an_unknown_one_has_none() {
    let unknown = Candidate { id: 3, ..Candidate::default() };
    let all = [idle(1, 500), idle(2, 500), unknown];
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..2000 {
        let ranked = ranked(&all, BAND, random.u64(..), None);
        let (first, why) = &ranked[0];
        assert_eq!(*first == 2, why == "tried, 0 times", "{ranked:?}");
        assert_eq!(*first != 2, why == "p95 500 ms, by share", "{ranked:?}");
    }
}

#[test]
fn under_balanced_those_whose_scores_are_alike_share_the_load() {
    let with = |candidate, handicap| Candidate { handicap: Some(handicap), ..candidate };
    let [slow, quick, dear] =
        shares([with(idle(1, 900), 1000), with(idle(2, 300), 2900), with(idle(3, 300), 4000)], BAND);
    assert!(slow > 4500 && quick > 4500 && dear == 0, "{slow} {quick} {dear}");
}

#[test]
fn one_attempt_that_waits_for_long_makes_nobody_slow() {
    let ago = |millis: u64| Timestamp::from_millis(NOW.as_millis() - millis);
    let healthy = |number: u64| (1..number).rev().map(move |age| ago(age * 450 / number));
    for (number, waits) in [(3, 60_000), (10, 60_000), (40, 600_000)] {
        let begun: Vec<Timestamp> = std::iter::once(ago(waits)).chain(healthy(number)).collect();
        let mut one = idle(1, 500);
        one.measured.load = Load::of(&begun);
        assert_eq!(shares([one, idle(2, 700)], BAND), [10_000, 0], "{number}");
        assert_eq!(shares([one, idle(2, 5000)], BAND), [10_000, 0], "{number}");
    }
}

#[test]
fn a_load_tells_how_many_there_are_and_how_slow_most_of_them_are() {
    let at = |millis: u64| Timestamp::from_millis(NOW.as_millis() - millis);
    assert_eq!(Load::of(&[]), Load::default());
    for (begun, slowness) in [
        (&[at(300)][..], 300),
        (&[at(300), at(90)], 2 * 2 * 90 / 3),
        (&[at(9000), at(90), at(30)], 2 * 3 * 90 / 4),
        (&[], 0),
    ] {
        assert_eq!(Load::of(begun).waiting as usize, begun.len());
        assert_eq!(Load::of(begun).slowness(NOW), slowness, "{begun:?}");
        assert_eq!(Load::of(begun).slowness(Timestamp::ZERO), 0, "a clock that was put back");
    }
    assert!(Load::of(&[Timestamp::ZERO; 9]).slowness(NOW) > 0);
}
