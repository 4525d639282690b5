//! A simulated day, request by request through the very code that runs in the gateway: providers fail, slow down, limit rates
//! and change their prices, and each policy is held against round robin and against the best choice in hindsight.
//!
//! Time is an argument and every number is drawn from a seed, so a day takes a moment and is the same each time. `make simulate`
//! prints the table and draws `docs/simulation.svg`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod day;
mod picture;
mod run;
mod talks;

use std::fmt::Write;
use std::sync::OnceLock;

use day::{Day, NAMES, QUALITY};
use run::{run, Served, Way};
use serde_json::json;
use talks::{moves, Moves};

/// What every way made of the same day.
struct Results {
    day: Day,
    hindsight: [Vec<Served>; 2],
    ways: Vec<(&'static str, Vec<Served>)>,
}

/// Basalt's answers are not.
const GOOD_ENOUGH: f64 = 0.75;

const CHEAPEST: usize = 0;
const QUICKEST: usize = 1;

impl Results {
    fn of(seed: u64) -> Self {
        let day = Day::new(seed);
        let policy = |policy| Way::Policy(policy);
        let even: serde_json::Map<String, serde_json::Value> =
            NAMES.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
        let ways = [
            ("priority", policy(json!({"type": "priority"}))),
            ("round robin", Way::RoundRobin),
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
        let ways = ways.into_iter().map(|(name, way)| (name, run(&day, &way))).collect();
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

/// The share that was answered to its end.
fn success(served: &[Served]) -> f64 {
    served.iter().filter(|one| one.first_token.is_some()).count() as f64 / served.len() as f64
}

/// A percentile of the time to the first token, in milliseconds.
fn percentile(served: &[Served], percent: usize) -> u64 {
    let mut times: Vec<u64> = served.iter().filter_map(|one| one.first_token).collect();
    times.sort_unstable();
    times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// How often the provider that answers is another than before, but for requests that try one.
fn changes(served: &[Served]) -> usize {
    let providers: Vec<Option<usize>> =
        served.iter().filter(|one| !one.tried).map(|one| one.provider).collect();
    providers.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn cost_spends_little_more_than_hindsight_and_less_than_the_others() {
    let results = results();
    let (spent, best) = (usd(results.way("cost")), usd(&results.hindsight[CHEAPEST]));
    assert!(spent < 1.15 * best, "{spent} against {best}");
    for other in ["priority", "round robin", "weighted", "latency"] {
        assert!(spent < 0.9 * usd(results.way(other)), "{spent} against {other}");
    }
}

#[test]
fn latency_is_quicker_than_the_others_where_it_hurts() {
    let results = results();
    let (p95, best) = (percentile(results.way("latency"), 95), percentile(&results.hindsight[QUICKEST], 95));
    assert!(p95 < 3 * best, "{p95} against {best}");
    for other in ["priority", "round robin", "weighted", "cost"] {
        assert!(p95 * 10 < 8 * percentile(results.way(other), 95), "{p95} against {other}");
    }
}

#[test]
fn no_policy_answers_less_than_the_order_of_the_configuration() {
    let results = results();
    let least = success(results.way("priority")) - 0.001;
    assert!(least > 0.99, "{least}");
    for (name, served) in &results.ways {
        assert!(success(served) >= least, "{name}: {}", success(served));
    }
}

#[test]
fn latency_does_not_flap() {
    let served = results().way("latency");
    // What single failures and rate limits move to the next and back, and a few changes of the first.
    let count = changes(served);
    assert!(count * 50 < served.len(), "{count} of {}", served.len());
    let tried = served.iter().filter(|one| one.tried).count();
    assert!(tried * 10 < served.len(), "{tried} of {}", served.len());
}

#[test]
fn the_best_is_bought_dear_and_good_enough_is_much_cheaper() {
    let results = results();
    let [best, enough, cheapest] = ["quality", "cost, good enough", "cost"].map(|name| results.way(name));
    assert!(quality(best) > 0.88, "{}", quality(best));
    let below =
        enough.iter().filter(|one| one.provider.is_some_and(|provider| QUALITY[provider] < GOOD_ENOUGH));
    assert!(below.count() * 20 < enough.len(), "only where nobody else answers");
    assert!(usd(enough) < 0.9 * usd(best) && usd(enough) > usd(cheapest));
}

#[test]
fn balanced_is_quicker_than_cost_and_cheaper_than_latency_and_does_not_flap() {
    let results = results();
    let [balanced, cost, latency] = ["balanced", "cost", "latency"].map(|name| results.way(name));
    assert!(usd(balanced) < 0.75 * usd(latency), "{} {}", usd(balanced), usd(latency));
    assert!(percentile(balanced, 50) < percentile(cost, 50));
    assert!(percentile(balanced, 95) < percentile(cost, 95));
    assert!(changes(balanced) * 50 < balanced.len(), "{}", changes(balanced));
}

#[test]
fn there_is_little_for_an_affinity_to_save() {
    let results = results();
    for (name, served) in &results.ways {
        let Moves { turns, moved, usd: lost } = moves(&results.day, served);
        let share = moved as f64 / turns as f64;
        if matches!(*name, "round robin" | "weighted") {
            assert!(share > 0.5, "{name}: {share}");
        } else {
            // Those that measure move the more requests because they try.
            let most = if matches!(*name, "latency" | "balanced") { 0.08 } else { 0.04 };
            assert!(share < 0.2 && lost < most * usd(served), "{name}: {share}, {lost} of {}", usd(served));
        }
    }
}

#[test]
fn weights_share_the_day() {
    let served = results().way("weighted");
    for provider in 0..NAMES.len() {
        let share =
            served.iter().filter(|one| one.arm == Some(provider)).count() as f64 / served.len() as f64;
        assert!((share - 1.0 / NAMES.len() as f64).abs() < 0.02, "{provider}: {share}");
    }
}

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

/// `SHUNT_SIMULATE=1` prints the table and draws the picture; other days with other seeds are tried as well.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn the_day_is_told_if_somebody_asks() {
    if std::env::var("SHUNT_SIMULATE").is_err() {
        return;
    }
    println!("{}", table(results()));
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulation.svg");
    std::fs::write(place, picture::draw(results())).unwrap();
    for seed in 2..5 {
        println!("seed {seed}\n{}", table(&Results::of(seed)));
    }
}

#[test]
fn the_picture_is_drawn_whole() {
    let picture = picture::draw(results());
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.matches("<polyline ").count() >= 6 && !picture.contains("NaN"));
}
