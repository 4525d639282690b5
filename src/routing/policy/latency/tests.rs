//! Who is first, who stays first, and who is tried.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A draw that tries nobody.
const NO: u64 = u64::MAX;
/// A draw that tries the unknown candidate of this number.
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
fn the_quickest_is_first_and_its_record_is_told() {
    let (ordered, risen) =
        order(&[measured(900), measured(300), measured(600), measured(300)], EXPLORE, NO, NOW);
    let told: Vec<(usize, &str)> = ordered.iter().map(|ranked| (ranked.place, &*ranked.why)).collect();
    assert_eq!(told, [(1, "p95 300 ms"), (3, "p95 300 ms"), (2, "p95 600 ms"), (0, "p95 900 ms")]);
    assert_eq!(risen, [1]);
}

#[test]
fn the_first_stays_until_another_is_quicker_by_a_fifth() {
    for (other, first) in [(1200, 0), (1000, 0), (900, 0), (800, 0), (799, 1), (100, 1)] {
        let candidates = [first_since(measured(1000), LONG), measured(other)];
        let (ordered, risen) = order(&candidates, EXPLORE, NO, NOW);
        assert_eq!(ordered[0].place, first, "{other}");
        assert_eq!(risen.is_empty(), first == 0, "{other}");
        assert_eq!(ordered[0].why.ends_with(", stays"), first == 0 && other < 1000, "{other}");
    }
}

#[test]
fn the_first_stays_for_a_time() {
    for (ago, first) in [(0, 0), (9_999, 0), (10_000, 1)] {
        let candidates = [first_since(measured(5000), Duration::from_millis(ago)), measured(100)];
        assert_eq!(places(&candidates, NO)[0], first, "{ago}");
    }
}

#[test]
fn of_two_that_were_first_the_last_counts() {
    let candidates =
        [first_since(measured(1000), LONG * 2), first_since(measured(1100), LONG), measured(990)];
    assert_eq!(places(&candidates, NO), [1, 2, 0]);
    let gone = Candidate { measured: Measured { samples: 0, ..candidates[1].measured }, ..candidates[1] };
    assert_eq!(
        places(&[candidates[0], gone, candidates[2]], NO),
        [0, 2, 1],
        "nothing is known of it any more"
    );
}

#[test]
fn with_little_known_everybody_is_first_in_turn() {
    let candidates = [few_of(100, 0), few_of(900, 9), first_since(few_of(500, 3), LONG)];
    for number in 0..9 {
        let order = places(&candidates, NO - u64::from(u32::MAX) + number);
        assert_eq!(order[0], number as usize % 3);
    }
    let (ordered, risen) = order(&candidates, 0, try_(1), NOW);
    assert_eq!((ordered[0].place, ordered[0].why.as_str()), (1, "tried, p95 900 ms of 9"));
    assert!(risen.is_empty(), "who is only tried is not the first");
}

#[test]
fn nobody_is_made_the_first_before_the_others_had_a_chance() {
    let (ordered, risen) = order(&[few_of(100, 5), few_of(900, 5), few_of(500, 15)], EXPLORE, try_(0), NOW);
    assert_eq!((ordered[0].place, risen), (0, vec![]), "25 times, where 30 are half of what is enough");
    assert_eq!(order(&[few_of(100, 5), few_of(900, 10), few_of(500, 15)], EXPLORE, NO, NOW).1, [0]);
}

#[test]
fn who_is_not_known_is_tried_now_and_then() {
    let candidates = [first_since(measured(500), LONG), few_of(401, 15), few_of(9000, 0)];
    assert_eq!(places(&candidates, NO), [0, 1, 2]);
    assert_eq!(places(&candidates, try_(0)), [1, 0, 2]);
    assert_eq!(places(&candidates, try_(1)), [2, 0, 1]);
    let told: Vec<String> =
        order(&candidates, EXPLORE, try_(1), NOW).0.into_iter().map(|ranked| ranked.why).collect();
    assert_eq!(told, ["tried, 0 times", "p95 500 ms", "p95 401 ms of 15"]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut firsts = [0; 3];
    for _ in 0..10_000 {
        firsts[places(&candidates, random.u64(..))[0]] += 1;
    }
    assert!((9300..9700).contains(&firsts[0]), "{firsts:?}");
    assert!(firsts[1].min(firsts[2]) > 150, "{firsts:?}");
    for draw in 0..1000 {
        let ordered = order(&candidates, 0, draw, NOW).0;
        assert_eq!(ordered[0].place, 0, "a share of nothing");
    }
}

#[test]
fn the_first_is_known_by_a_single_time() {
    let candidates = [first_since(few_of(700, 1), LONG), few_of(20, 4), measured(600), measured(650)];
    assert_eq!(places(&candidates, NO), [0, 2, 3, 1]);
    assert_eq!(places(&[first_since(few_of(700, 1), LONG), measured(500)], NO), [1, 0]);
}

#[test]
fn few_times_must_be_better_by_as_much_more_as_they_are_fewer() {
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

/// What chance does to two equals: their times differ as those of real providers do, one is asked all the time, the other tried.
#[test]
fn two_equals_seldom_change_places_by_chance() {
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
fn who_is_preferred_comes_first_however_slow() {
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates = [measured(10), preferred(measured(900)), preferred(measured(500)), few_of(1, 0)];
    let (ordered, risen) = order(&candidates, EXPLORE, try_(0), NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [2, 1, 3, 0]);
    assert_eq!(risen, [2, 0], "each of the two groups has a first");
    assert_eq!(places(&[measured(10), preferred(few_of(5, 0))], NO), [1, 0], "known or not");
}

#[test]
fn who_is_not_good_enough_comes_last_however_quick_and_preferred() {
    let below = |candidate| Candidate { below: true, ..candidate };
    let preferred = |candidate| Candidate { preferred: true, ..candidate };
    let candidates =
        [below(preferred(measured(10))), below(measured(5)), measured(900), preferred(measured(950))];
    let (ordered, risen) = order(&candidates, EXPLORE, NO, NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [3, 2, 0, 1]);
    assert_eq!(risen, [3, 2, 0, 1], "each of the groups has a first");
}

#[test]
fn who_is_not_good_enough_is_tried_in_nobodys_place_and_keeps_nobody_from_staying() {
    let below = |candidate| Candidate { below: true, ..candidate };
    // Nothing is known of most of them, which does not make the others unknown.
    let candidates =
        [measured(900), measured(500), below(few_of(1, 0)), below(few_of(1, 0)), below(few_of(1, 0))];
    let (ordered, risen) = order(&candidates, MILLION / 2, try_(0), NOW);
    assert_eq!((ordered[0].place, risen), (1, vec![1]));
    // It was made the first later than any other, when its score was another.
    let candidates =
        [first_since(measured(500), LONG), measured(450), below(first_since(measured(50), LONG / 2))];
    let (ordered, risen) = order(&candidates, EXPLORE, NO, NOW);
    assert_eq!((ordered[0].place, ordered[0].why.as_str(), risen), (0, "p95 500 ms, stays", vec![]));
}

#[test]
fn a_time_that_counts_for_more_needs_to_be_shorter_by_as_much() {
    let times = |millis: u64, handicap: u32| Candidate { handicap: Some(handicap), ..measured(millis) };
    let (ordered, risen) = order(&[times(300, 4000), times(900, 1000), times(500, 1514)], EXPLORE, NO, NOW);
    assert_eq!(ordered.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(risen, [2]);
    let whys: Vec<&str> = ordered.iter().map(|ranked| ranked.why.as_str()).collect();
    assert_eq!(whys, ["p95 500 ms x 1.51", "p95 900 ms x 1.00", "p95 300 ms x 4.00"]);
    // Who is first stays until another is better by a fifth, all told.
    let present = first_since(times(500, 2000), SETTLE);
    assert_eq!(places(&[present, times(900, 1000)], NO), [0, 1]);
    assert_eq!(places(&[present, times(790, 1000)], NO), [1, 0]);
}

/// What is known of two providers, whose records are written as a gateway does.
fn follow(times: impl Iterator<Item = [u64; 2]>) -> (Vec<(u64, usize)>, Vec<[u64; 2]>) {
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
        let (ordered, risen) = order(&[candidate(0), candidate(1)], EXPLORE, NO, now);
        risen.iter().for_each(|place| since[*place] = now);
        if firsts.last().is_none_or(|(_, first)| *first != ordered[0].place) {
            firsts.push((second as u64, ordered[0].place));
            seen.push(times);
        }
    }
    (firsts, seen)
}

#[test]
fn two_equals_do_not_flap_however_they_jitter() {
    let mut random = fastrand::Rng::with_seed(3);
    // A tenth up or down: less than a fifth between them.
    let (firsts, _) = follow((0..100_000).map(|_| [(); 2].map(|()| random.u64(900..1100))));
    assert_eq!(firsts.len(), 1, "{firsts:?}");
}

#[test]
fn the_first_changes_no_more_often_than_it_may_whatever_is_met() {
    let mut random = fastrand::Rng::with_seed(4);
    let (firsts, seen) = follow((0..100_000).map(|_| [(); 2].map(|()| random.u64(16..60_000))));
    assert!(firsts.len() > 100);
    for pair in firsts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= SETTLE.as_secs(), "{pair:?}");
    }
    // At each change the new one was quicker by a fifth: so between two, the ratio changed by 25/16 at least.
    for ((_, first), times) in firsts.iter().zip(&seen).skip(1) {
        assert!(times[*first] * 5 < times[1 - *first] * 4);
    }
}

#[test]
fn an_order_always_has_all() {
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
