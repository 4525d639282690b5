//! Simulates a day, request by request, with the code that runs in the gateway. Providers fail, slow down, limit rates and change
//! their prices. Each policy is compared with round robin and with the best choice in hindsight.
//!
//! Time is an argument and every random number comes from a seed, so a day takes moments and is the same each time. `make
//! simulate` prints the table and draws `docs/simulation.svg`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod capacity;
mod conversations;
mod day;
mod holds;
mod picture;
mod run;
mod shapes;
mod world;

use std::fmt::Write;
use std::sync::OnceLock;

use capacity::{Capacity, LOADS};
use conversations::{moves, Moves};
use day::{Day, NAMES, QUALITY};
use run::{run, Served};
use serde_json::json;
use shapes::Shapes;

/// The results of the same day for every way of choosing a provider.
struct Results {
    day: Day,
    hindsight: [Vec<Served>; 2],
    ways: Vec<(&'static str, Vec<Served>)>,
}

/// The least quality for `min_quality`. Only basalt is below it.
const GOOD_ENOUGH: f64 = 0.75;

const CHEAPEST: usize = 0;
const QUICKEST: usize = 1;

impl Results {
    fn of(seed: u64) -> Self {
        let day = Day::new(seed);
        let policy = |policy| vec![Day::config(&policy, &NAMES)];
        let even: serde_json::Map<String, serde_json::Value> =
            NAMES.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
        let ways = [
            ("priority", policy(json!({"type": "priority"}))),
            ("round robin", Day::round_robin()),
            ("weighted", policy(json!({"type": "weighted", "weights": even}))),
            ("cost", policy(json!({"type": "cost"}))),
            ("latency", policy(json!({"type": "latency"}))),
            ("quality", policy(json!({"type": "quality"}))),
            ("cost, good enough", policy(json!({"type": "cost", "min_quality": GOOD_ENOUGH}))),
            (
                "balanced",
                policy(json!({"type": "balanced", "balance": {"latency": 1, "cost": 1, "quality": 1}})),
            ),
        ];
        let ways = ways.into_iter().map(|(name, configs)| (name, run(&day, &configs))).collect();
        Self { hindsight: [day.cheapest(), day.quickest()], ways, day }
    }

    fn way(&self, name: &str) -> &[Served] {
        &self.ways.iter().find(|(known, _)| *known == name).unwrap().1
    }
}

/// One day for all tests.
fn results() -> &'static Results {
    static RESULTS: OnceLock<Results> = OnceLock::new();
    RESULTS.get_or_init(|| Results::of(1))
}

fn usd(served: &[Served]) -> f64 {
    served.iter().map(|one| one.usd).sum()
}

/// The mean quality of the answers.
fn quality(served: &[Served]) -> f64 {
    let all: Vec<f64> = served.iter().filter_map(|one| Some(QUALITY[one.provider?])).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// The share of the requests that were answered to their end.
fn success(served: &[Served]) -> f64 {
    served.iter().filter(|one| one.first_token.is_some()).count() as f64 / served.len() as f64
}

/// A percentile of the time to the first token, in milliseconds.
fn percentile(served: &[Served], percent: usize) -> u64 {
    let mut times: Vec<u64> = served.iter().filter_map(|one| one.first_token).collect();
    times.sort_unstable();
    times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// How often the answering provider differs from the one of the request before. Requests that explore a provider do not count.
fn changes(served: &[Served]) -> usize {
    let providers: Vec<Option<usize>> =
        served.iter().filter(|one| !one.tried).map(|one| one.provider).collect();
    providers.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Makes each function a test on the first day. `make simulate` calls it for many other days too.
macro_rules! holds_on_any_day {
    ($($name:ident),* $(,)?) => {
        const HOLDS: &[(&str, fn(&Results))] = &[$((stringify!($name), holds::$name)),*];
        $(#[test]
        fn $name() {
            holds::$name(results());
        })*
    };
}

holds_on_any_day!(
    cost_spends_little_more_than_hindsight_and_less_than_the_others,
    latency_has_a_lower_p95_than_policies_that_do_not_measure_it,
    no_policy_answers_less_than_the_order_of_the_configuration,
    latency_does_not_flap,
    the_best_quality_is_expensive_and_good_enough_is_much_cheaper,
    balanced_is_quicker_than_cost_and_cheaper_than_latency_and_does_not_flap,
    an_affinity_to_the_last_provider_would_save_little,
    weights_set_the_shares_of_the_providers,
);

fn table(results: &Results) -> String {
    let mut table = String::from(
        "| | answered | first token p50 | p95 | p99 | spent | quality | attempts | changes | turns moved | which cost |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let hindsight = ["hindsight, cheapest", "hindsight, quickest"].into_iter().zip(&results.hindsight);
    for (name, served) in results.ways.iter().map(|(name, served)| (*name, served)).chain(hindsight) {
        let attempts = served.iter().map(|one| one.attempts).sum::<usize>() as f64 / served.len() as f64;
        let Moves { turns, moved, usd: lost } = moves(&results.day, served);
        let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(served, percent));
        writeln!(
            table,
            "| {name} | {:.2} % | {p50} ms | {p95} ms | {p99} ms | {:.2} USD | {:.3} | {attempts:.3} | {} | {:.1} % | {:.2} USD |",
            success(served) * 100.0,
            usd(served),
            quality(served),
            changes(served),
            100.0 * moved as f64 / turns as f64,
            lost,
        )
        .unwrap();
    }
    table
}

/// The seeds of other days, on which the same must hold.
const OTHER_DAYS: std::ops::Range<u64> = 2..41;
/// The seeds of the other worlds.
const SEEDS: std::ops::Range<u64> = 1..11;
/// How long the other worlds last, in minutes.
const MINUTES: u64 = 10;

fn shapes_hold(seed: u64, minutes: u64) {
    for shapes in [Shapes::one_route(seed, minutes), Shapes::two_routes(seed, minutes)] {
        holds::balanced_sends_each_kind_of_requests_to_the_best_provider_for_it(&shapes);
    }
}

fn capacity_holds(seed: u64, minutes: u64) {
    for load in LOADS {
        let capacity = Capacity::new(load, seed, minutes);
        holds::latency_is_no_worse_than_equal_shares_and_not_far_from_a_split_by_capacity(&capacity);
    }
}

#[test]
fn each_kind_of_requests_goes_where_it_is_best_under_balanced() {
    shapes_hold(1, 4);
}

#[test]
fn latency_does_not_overload_one_provider_while_others_are_idle() {
    capacity_holds(1, 1);
}

/// With `SHUNT_SIMULATE=1`, prints the tables, draws the picture, and checks other days and other seeds.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn the_tables_and_the_picture_are_written_on_request() {
    if std::env::var("SHUNT_SIMULATE").is_err() {
        return;
    }
    println!("{}", table(results()));
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulation.svg");
    std::fs::write(place, picture::draw(results())).unwrap();
    for shapes in [Shapes::one_route(1, MINUTES), Shapes::two_routes(1, MINUTES)] {
        println!("{}", shapes.table());
    }
    println!("{}", capacity::table(1, MINUTES));
    for seed in OTHER_DAYS {
        let results = Results::of(seed);
        if seed < 5 {
            println!("seed {seed}\n{}", table(&results));
        }
        for (name, holds) in HOLDS {
            println!("seed {seed}: {name}");
            holds(&results);
        }
    }
    for seed in SEEDS {
        println!("seed {seed}: two kinds of requests");
        shapes_hold(seed, MINUTES);
        println!("seed {seed}: providers of bounded capacity");
        capacity_holds(seed, MINUTES);
    }
}

/// This limit is stricter than the one of `latency_does_not_flap`, which holds on the worst of forty days too.
#[test]
fn latency_changes_the_provider_in_less_than_two_percent_of_the_first_days_requests() {
    let served = results().way("latency");
    assert!(changes(served) * 50 < served.len(), "{} of {}", changes(served), served.len());
}

#[test]
fn the_picture_is_complete() {
    let picture = picture::draw(results());
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.matches("<polyline ").count() >= 6 && !picture.contains("NaN"));
}
