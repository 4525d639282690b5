//! Which candidate leads, when the leader changes, and which candidates are tried.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A random number by which no candidate is tried.
const NO: u64 = u64::MAX;
/// A random number by which the candidate with this number, among those with few samples, is tried.
const fn try_(number: u32) -> u64 {
    number as u64
}

fn measured(millis: u64) -> Candidate {
    let p95 = Duration::from_millis(millis);
    Candidate {
        measured: Measured { samples: 50, p95, first_since: Timestamp::ZERO },
        preferred: false,
        below: false,
        handicap: None,
    }
}

fn first_since(candidate: Candidate, ago: Duration) -> Candidate {
    let first_since = Timestamp::from_millis(NOW.as_millis() - millis(ago));
    Candidate { measured: Measured { first_since, ..candidate.measured }, ..candidate }
}

fn few_of(millis: u64, samples: u32) -> Candidate {
    Candidate {
        measured: Measured { samples, ..measured(millis).measured },
        preferred: false,
        below: false,
        handicap: None,
    }
}

fn places(candidates: &[Candidate], draw: u64) -> Vec<usize> {
    order(candidates, EXPLORE, draw, NOW).0.iter().map(|ranked| ranked.place).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_quickest_is_first_and_reported_as_the_new_leader() {
    let (ordered, new_leaders) =
        order(&[measured(900), measured(300), measured(600), measured(300)], EXPLORE, NO, NOW);
    let reasons: Vec<(usize, &str)> = ordered.iter().map(|ranked| (ranked.place, &*ranked.why)).collect();
    assert_eq!(reasons, [(1, "p95 300 ms"), (3, "p95 300 ms"), (2, "p95 600 ms"), (0, "p95 900 ms")]);
    assert_eq!(new_leaders, [1]);
}

#[test]
fn the_leader_stays_until_another_is_quicker_by_a_fifth() {
    for (other, first) in [(1200, 0), (1000, 0), (900, 0), (800, 0), (799, 1), (100, 1)] {
        let candidates = [first_since(measured(1000), LONG), measured(other)];
        let (ordered, new_leaders) = order(&candidates, EXPLORE, NO, NOW);
        assert_eq!(ordered[0].place, first, "{other}");
        assert_eq!(new_leaders.is_empty(), first == 0, "{other}");
        assert_eq!(ordered[0].why.ends_with(", stays"), first == 0 && other < 1000, "{other}");
    }
}

#[test]
fn the_leader_stays_for_ten_seconds_however_slow_it_becomes() {
    for (ago, first) in [(0, 0), (9_999, 0), (10_000, 1)] {
        let candidates = [first_since(measured(5000), Duration::from_millis(ago)), measured(100)];
        assert_eq!(places(&candidates, NO)[0], first, "{ago}");
    }
}

#[test]
fn of_two_former_leaders_the_later_one_is_the_leader_while_it_has_samples() {
    let candidates =
        [first_since(measured(1000), LONG * 2), first_since(measured(1100), LONG), measured(990)];
    assert_eq!(places(&candidates, NO), [1, 2, 0]);
    let gone = Candidate { measured: Measured { samples: 0, ..candidates[1].measured }, ..candidates[1] };
    assert_eq!(
        places(&[candidates[0], gone, candidates[2]], NO),
        [0, 2, 1],
        "a former leader without samples is no leader"
    );
}

#[test]
fn with_few_samples_in_all_each_candidate_is_tried_in_turn() {
    let candidates = [few_of(100, 0), few_of(900, 9), first_since(few_of(500, 3), LONG)];
    for number in 0..9 {
        let order = places(&candidates, NO - u64::from(u32::MAX) + number);
        assert_eq!(order[0], number as usize % 3);
    }
    let (ordered, new_leaders) = order(&candidates, 0, try_(1), NOW);
    assert_eq!((ordered[0].place, ordered[0].why.as_str()), (1, "tried, p95 900 ms of 9"));
    assert!(new_leaders.is_empty(), "a candidate that is only tried is not the leader");
}

#[test]
fn no_candidate_becomes_the_leader_before_the_others_are_measured() {
    let (ordered, new_leaders) =
        order(&[few_of(100, 5), few_of(900, 5), few_of(500, 15)], EXPLORE, try_(0), NOW);
    assert_eq!((ordered[0].place, new_leaders), (0, vec![]), "25 times, where 30 are half of what is enough");
    assert_eq!(order(&[few_of(100, 5), few_of(900, 10), few_of(500, 15)], EXPLORE, NO, NOW).1, [0]);
}

#[test]
fn candidates_with_few_samples_are_tried_with_a_share_of_the_requests() {
    let candidates = [first_since(measured(500), LONG), few_of(401, 15), few_of(9000, 0)];
    assert_eq!(places(&candidates, NO), [0, 1, 2]);
    assert_eq!(places(&candidates, try_(0)), [1, 0, 2]);
    assert_eq!(places(&candidates, try_(1)), [2, 0, 1]);
    let reasons: Vec<String> =
        order(&candidates, EXPLORE, try_(1), NOW).0.into_iter().map(|ranked| ranked.why).collect();
    assert_eq!(reasons, ["tried, 0 times", "p95 500 ms", "p95 401 ms of 15"]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut firsts = [0; 3];
    for _ in 0..10_000 {
        firsts[places(&candidates, random.u64(..))[0]] += 1;
    }
    assert!((9300..9700).contains(&firsts[0]), "{firsts:?}");
    assert!(firsts[1].min(firsts[2]) > 150, "{firsts:?}");
    for draw in 0..1000 {
        let ordered = order(&candidates, 0, draw, NOW).0;
        assert_eq!(ordered[0].place, 0, "no request is used for trials");
    }
}

#[test]
fn the_leaders_time_counts_from_a_single_sample() {
    let candidates = [first_since(few_of(700, 1), LONG), few_of(20, 4), measured(600), measured(650)];
    assert_eq!(places(&candidates, NO), [0, 2, 3, 1]);
    assert_eq!(places(&[first_since(few_of(700, 1), LONG), measured(500)], NO), [1, 0]);
}

#[test]
fn the_fewer_samples_a_candidate_has_the_quicker_it_must_be() {
    for (samples, p95, first) in [
        (4, 16, 0),
        (5, 456, 1),
        (5, 458, 0),
        (10, 533, 1),
        (10, 534, 0),
        (19, 761, 1),
        (19, 763, 0),
        (20, 799, 1),
        (20, 800, 0),
    ] {
        let candidates = [first_since(measured(1000), LONG), few_of(p95, samples)];
        assert_eq!(places(&candidates, NO)[0], first, "{samples} {p95}");
    }
}

/// Two providers with the same distribution of times, like that of real ones: one gets all the requests, the other only trials.
#[test]
fn two_equal_providers_seldom_change_places_by_chance() {
    let mut random = fastrand::Rng::with_seed(6);
    // Log-normal about 500 ms; its 95th percentile is 1.6 times that.
    let mut draw = || {
        let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        (500.0 * (0.3 * normal).exp()) as u64
    };
    let mut changed = 0;
    for _ in 0..2000 {
        let mut p95 = |samples: usize| {
            let mut times: Vec<u64> = (0..samples).map(|_| draw()).collect();
            times.sort_unstable();
            times[(samples * 19).div_ceil(20) - 1]
        };
        let samples = 5 + (changed + p95(1) as usize) % 20;
        let candidates = [first_since(measured(p95(200)), LONG), few_of(p95(samples), samples as u32)];
        changed += places(&candidates, NO)[0];
    }
    assert!(changed < 40, "{changed} of 2000");
}

#[test]
fn a_preferred_candidate_comes_first_however_slow() {
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates = [measured(10), preferred(measured(900)), preferred(measured(500)), few_of(1, 0)];
    let (ordered, new_leaders) = order(&candidates, EXPLORE, try_(0), NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [2, 1, 3, 0]);
    assert_eq!(new_leaders, [2, 0], "each of the two groups has a leader");
    assert_eq!(places(&[measured(10), preferred(few_of(5, 0))], NO), [1, 0], "with few samples, too");
}

#[test]
fn a_candidate_below_the_minimum_quality_comes_last_however_quick_or_preferred() {
    let below = |candidate| Candidate { below: true, ..candidate };
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates =
        [below(preferred(measured(10))), below(measured(5)), measured(900), preferred(measured(950))];
    let (ordered, new_leaders) = order(&candidates, EXPLORE, NO, NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [3, 2, 0, 1]);
    assert_eq!(new_leaders, [3, 2, 0, 1], "each of the groups has a leader");
}

#[test]
fn a_candidate_below_the_minimum_quality_is_not_tried_first_and_does_not_count_as_the_leader() {
    let below = |candidate| Candidate { below: true, ..candidate };
    // Most candidates have no samples, but the group of the two good ones has enough.
    let candidates =
        [measured(900), measured(500), below(few_of(1, 0)), below(few_of(1, 0)), below(few_of(1, 0))];
    let (ordered, new_leaders) = order(&candidates, MILLION / 2, try_(0), NOW);
    assert_eq!((ordered[0].place, new_leaders), (1, vec![1]));
    // The last one became the leader later than the first one, while its score was still high enough.
    let candidates =
        [first_since(measured(500), LONG), measured(450), below(first_since(measured(50), LONG / 2))];
    let (ordered, new_leaders) = order(&candidates, EXPLORE, NO, NOW);
    assert_eq!((ordered[0].place, ordered[0].why.as_str(), new_leaders), (0, "p95 500 ms, stays", vec![]));
}

#[test]
fn times_are_compared_after_they_are_multiplied_by_the_handicap() {
    let times = |millis: u64, handicap: u32| Candidate { handicap: Some(handicap), ..measured(millis) };
    let (ordered, new_leaders) =
        order(&[times(300, 4000), times(900, 1000), times(500, 1514)], EXPLORE, NO, NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(new_leaders, [2]);
    let whys: Vec<&str> = ordered.iter().map(|ranked| ranked.why.as_str()).collect();
    assert_eq!(whys, ["p95 500 ms x 1.51", "p95 900 ms x 1.00", "p95 300 ms x 4.00"]);
    // The leader stays until another is better by a fifth, including the handicaps.
    let leader = first_since(times(500, 2000), MIN_LEAD);
    assert_eq!(places(&[leader, times(900, 1000)], NO), [0, 1]);
    assert_eq!(places(&[leader, times(790, 1000)], NO), [1, 0]);
}

/// Orders two providers once a second, noting new leaders as the gateway does. Returns each change of the first place, and the times at it.
fn simulate(times: impl Iterator<Item = [u64; 2]>) -> (Vec<(u64, usize)>, Vec<[u64; 2]>) {
    let mut since = [Timestamp::ZERO; 2];
    let (mut firsts, mut seen) = (Vec::new(), Vec::new());
    for (second, times) in times.enumerate() {
        let now = NOW.after(Duration::from_secs(second as u64));
        let candidate = |place: usize| Candidate {
            measured: Measured { first_since: since[place], ..measured(times[place]).measured },
            preferred: false,
            below: false,
            handicap: None,
        };
        let (ordered, new_leaders) = order(&[candidate(0), candidate(1)], EXPLORE, NO, now);
        new_leaders.iter().for_each(|place| since[*place] = now);
        if firsts.last().is_none_or(|(_, first)| *first != ordered[0].place) {
            firsts.push((second as u64, ordered[0].place));
            seen.push(times);
        }
    }
    (firsts, seen)
}

#[test]
fn two_equal_providers_do_not_flap_when_their_times_jitter() {
    let mut random = fastrand::Rng::with_seed(3);
    // Times vary by a tenth up or down.
    let (firsts, _) = simulate((0..100_000).map(|_| [(); 2].map(|()| random.u64(900..1100))));
    assert_eq!(firsts.len(), 1, "{firsts:?}");
}

#[test]
fn the_first_place_changes_at_most_every_ten_seconds_whatever_is_measured() {
    let mut random = fastrand::Rng::with_seed(4);
    let (firsts, seen) = simulate((0..100_000).map(|_| [(); 2].map(|()| random.u64(16..60_000))));
    assert!(firsts.len() > 100);
    for pair in firsts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= MIN_LEAD.as_secs(), "{pair:?}");
    }
    // At each change the new leader was quicker by a fifth, so between two changes the ratio changed by at least 25/16.
    for ((_, first), times) in firsts.iter().zip(&seen).skip(1) {
        assert!(times[*first] * 5 < times[1 - *first] * 4);
    }
}

#[test]
fn an_order_always_contains_every_candidate_once() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let candidates: Vec<Candidate> = (0..random.usize(0..7))
            .map(|_| Candidate {
                measured: Measured {
                    samples: random.u32(0..30),
                    p95: Duration::from_millis(random.u64(0..5)),
                    first_since: Timestamp::from_millis(random.u64(0..3)),
                },
                preferred: random.bool(),
                below: random.bool(),
                handicap: Some(random.u32(1000..9000)).filter(|_| random.bool()),
            })
            .collect();
        let mut all: Vec<usize> = places(&candidates, random.u64(..));
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..candidates.len()), "{all:?}");
    }
}
