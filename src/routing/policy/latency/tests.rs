//! Which candidate is first, when that changes, and which candidates are tried.

use super::settled::Settled;
use super::*;
use crate::base::clock::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A random number by which no candidate is tried.
const NO: u64 = u64::MAX;
/// A random number by which the candidate with this number, among those with few samples, is tried.
const fn try_(number: u32) -> u64 {
    number as u64
}

/// A candidate with so many samples, whose settled time is that of its first interval.
fn few_of(millis: u64, samples: u32) -> Candidate {
    let settled = Settled::default().next(samples, millis, (0, None), NOW).unwrap_or_default();
    let p95 = Duration::from_millis(millis);
    let measured = Measured { samples, p95, median: p95, settled, load: Load::default() };
    Candidate { measured, ..Candidate::default() }
}

fn measured(millis: u64) -> Candidate {
    few_of(millis, 50)
}

/// A candidate whose times have changed a little since they were settled.
fn settled_at(settled: u32, millis: u64) -> Candidate {
    let settled = Settled { time: settled, latest: settled, ..Settled::default() };
    Candidate { measured: Measured { settled, ..measured(millis).measured }, ..measured(millis) }
}

/// The order if nobody shares the load.
fn ordered(candidates: &[Candidate], explore: u32, random: u64) -> Vec<Ranked> {
    let rules = Rules { explore, band: 0, ..Rules::default() };
    order(candidates, &rules, Chance { random, sticky: None, now: NOW })
}

fn places(candidates: &[Candidate], draw: u64) -> Vec<usize> {
    ordered(candidates, EXPLORE, draw).iter().map(|ranked| ranked.place).collect()
}

fn whys(candidates: &[Candidate], draw: u64) -> Vec<String> {
    ordered(candidates, EXPLORE, draw).into_iter().map(|ranked| ranked.why).collect()
}

#[test]
fn the_quickest_is_first_and_equals_keep_their_order() {
    let candidates = [measured(900), measured(300), measured(600), measured(300)];
    assert_eq!(places(&candidates, NO), [1, 3, 2, 0]);
    assert_eq!(whys(&candidates, NO), ["p95 300 ms", "p95 300 ms", "p95 600 ms", "p95 900 ms"]);
}

#[test]
fn the_settled_time_decides_and_the_record_shows_both() {
    let candidates = [settled_at(500, 600), settled_at(520, 430)];
    assert_eq!(places(&candidates, NO), [0, 1]);
    assert_eq!(whys(&candidates, NO), ["p95 600 ms, ordered as 500 ms", "p95 430 ms, ordered as 520 ms"]);
}

#[test]
fn with_few_samples_in_all_each_candidate_is_tried_in_turn() {
    let candidates = [few_of(100, 0), few_of(900, 9), few_of(500, 3)];
    for number in 0..9 {
        let order = places(&candidates, NO - u64::from(u32::MAX) + number);
        assert_eq!(order[0], number as usize % 3);
    }
    let ordered = ordered(&candidates, 0, try_(1));
    let why = "tried, p95 900 ms of 9, ordered as 1395 ms";
    assert_eq!((ordered[0].place, ordered[0].why.as_str()), (1, why));
}

#[test]
fn candidates_with_few_samples_are_tried_with_a_share_of_the_requests() {
    let candidates = [measured(500), few_of(401, 15), few_of(9000, 0)];
    assert_eq!(places(&candidates, NO), [0, 1, 2]);
    assert_eq!(places(&candidates, try_(0)), [1, 0, 2]);
    assert_eq!(places(&candidates, try_(1)), [2, 0, 1]);
    let reasons = ["tried, 0 times", "p95 500 ms", "p95 401 ms of 15, ordered as 501 ms"];
    assert_eq!(whys(&candidates, try_(1)), reasons);
    let mut random = fastrand::Rng::with_seed(7);
    let mut firsts = [0; 3];
    for _ in 0..10_000 {
        firsts[places(&candidates, random.u64(..))[0]] += 1;
    }
    assert!((9300..9700).contains(&firsts[0]), "{firsts:?}");
    assert!(firsts[1].min(firsts[2]) > 150, "{firsts:?}");
    for draw in 0..1000 {
        let ordered = ordered(&candidates, 0, draw);
        assert_eq!(ordered[0].place, 0, "no request is used for trials");
    }
}

#[test]
fn the_first_one_is_not_tried_because_it_is_measured_anyway() {
    let candidates = [few_of(100, 19), measured(5000)];
    for draw in 0..100 {
        assert_eq!(whys(&candidates, draw)[0], "p95 100 ms of 19, ordered as 105 ms");
    }
}

#[test]
fn the_fewer_samples_a_candidate_has_the_quicker_it_must_be() {
    for (samples, p95, first) in [
        (4, 16, 0),
        (5, 571, 1),
        (5, 572, 0),
        (10, 666, 1),
        (10, 667, 0),
        (19, 952, 1),
        (19, 953, 0),
        (20, 999, 1),
    ] {
        assert_eq!(places(&[measured(1000), few_of(p95, samples)], NO)[0], first, "{samples} {p95}");
    }
}

#[test]
fn a_preferred_candidate_comes_first_however_slow() {
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates = [measured(10), preferred(measured(900)), preferred(measured(500)), few_of(1, 0)];
    assert_eq!(places(&candidates, try_(0)), [2, 1, 3, 0]);
    assert_eq!(places(&[measured(10), preferred(few_of(5, 0))], NO), [1, 0], "with few samples, too");
}

#[test]
fn a_candidate_below_the_minimum_quality_comes_last_however_quick_or_preferred() {
    let below = |candidate| Candidate { below: true, ..candidate };
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates =
        [below(preferred(measured(10))), below(measured(5)), measured(900), preferred(measured(950))];
    assert_eq!(places(&candidates, NO), [3, 2, 0, 1]);
}

#[test]
fn a_candidate_below_the_minimum_quality_is_not_tried_first() {
    let below = |candidate| Candidate { below: true, ..candidate };
    // Most candidates have no samples, but the group of the two good ones has enough.
    let candidates =
        [measured(900), measured(500), below(few_of(1, 0)), below(few_of(1, 0)), below(few_of(1, 0))];
    assert_eq!(ordered(&candidates, MILLION / 2, try_(0))[0].place, 1);
}

#[test]
fn times_are_compared_after_they_are_multiplied_by_the_handicap() {
    let times = |millis: u64, handicap: u32| Candidate { handicap: Some(handicap), ..measured(millis) };
    let candidates = [times(300, 4000), times(900, 1000), times(500, 1514)];
    assert_eq!(places(&candidates, NO), [2, 1, 0]);
    assert_eq!(whys(&candidates, NO), ["p95 500 ms x 1.51", "p95 900 ms x 1.00", "p95 300 ms x 4.00"]);
}

#[test]
fn a_candidate_that_is_better_for_one_request_is_not_first_for_another_one() {
    // The same times under the handicaps of two shapes of requests, or of two routes.
    let times = [measured(500), measured(510)];
    let under = |handicaps: [u32; 2]| {
        let with = |(candidate, handicap)| Candidate { handicap: Some(handicap), ..candidate };
        places(&times.into_iter().zip(handicaps).map(with).collect::<Vec<_>>(), NO)[0]
    };
    for _ in 0..10 {
        assert_eq!([under([1000, 9750]), under([9750, 1000])], [0, 1]);
    }
}

/// Orders two providers once a second, as the gateway does. Returns each change of the first place.
fn simulate(times: impl Iterator<Item = [u64; 2]>) -> Vec<(u64, usize)> {
    let mut settled = [Settled::default(); 2];
    let mut firsts: Vec<(u64, usize)> = Vec::new();
    for (second, times) in times.enumerate() {
        let now = NOW.after(Duration::from_secs(second as u64));
        for (settled, time) in settled.iter_mut().zip(times) {
            *settled = settled.next(50, time, (0, None), now).unwrap_or(*settled);
        }
        let first =
            places(&[settled_at(settled[0].time, times[0]), settled_at(settled[1].time, times[1])], NO)[0];
        if firsts.last().is_none_or(|(_, last)| *last != first) {
            firsts.push((second as u64, first));
        }
    }
    firsts
}

#[test]
fn two_equal_providers_do_not_flap_when_their_times_jitter() {
    let mut random = fastrand::Rng::with_seed(3);
    // Times vary by a tenth up or down.
    let firsts = simulate((0..100_000).map(|_| [(); 2].map(|()| random.u64(900..1100))));
    assert_eq!(firsts.len(), 1, "{firsts:?}");
}

#[test]
fn the_first_place_changes_at_most_every_ten_seconds_whatever_is_measured() {
    let mut random = fastrand::Rng::with_seed(4);
    let firsts = simulate((0..100_000).map(|_| [(); 2].map(|()| random.u64(16..60_000))));
    assert!(firsts.len() > 100);
    for pair in firsts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 10, "{pair:?}");
    }
}

/// Two providers whose times have the same distribution, like those of real ones: both are measured from a hundred new times in each interval.
#[test]
fn two_equal_providers_seldom_change_places_by_chance() {
    let mut random = fastrand::Rng::with_seed(6);
    // Log-normal about 500 ms; its 95th percentile is 1.6 times that.
    let mut p95 = || {
        let mut times: Vec<u64> = (0..100)
            .map(|_| (500.0 * (0.3 * ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0)).exp()) as u64)
            .collect();
        times.sort_unstable();
        times[94]
    };
    let firsts = simulate((0..2000).flat_map(|_| [[p95(), p95()]; 10]));
    assert!(firsts.len() < 40, "{} in 2000 intervals", firsts.len());
}

#[test]
fn an_order_always_contains_every_candidate_once() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let candidates: Vec<Candidate> = (0..random.usize(0..7))
            .map(|_| Candidate {
                id: random.u64(..),
                measured: Measured {
                    samples: random.u32(0..30),
                    p95: Duration::from_millis(random.u64(0..5)),
                    median: Duration::from_millis(random.u64(0..5)),
                    settled: Settled {
                        time: random.u32(0..5),
                        latest: random.u32(0..5),
                        ..Settled::default()
                    },
                    load: Load::of(&vec![NOW; random.usize(0..3)]),
                },
                preferred: random.bool(),
                below: random.bool(),
                handicap: Some(random.u32(1000..9000)).filter(|_| random.bool()),
            })
            .collect();
        let rules = Rules { band: random.u32(0..=MILLION), ..Rules::default() };
        let sticky = Some(random.u64(..)).filter(|_| random.bool());
        let chance = Chance { random: random.u64(..), sticky, now: NOW };
        let mut all: Vec<usize> =
            order(&candidates, &rules, chance).iter().map(|ranked| ranked.place).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..candidates.len()), "{all:?}");
    }
}
