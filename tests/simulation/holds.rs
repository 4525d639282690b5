//! What must hold on every simulated day, and in the other worlds with every seed.

use super::capacity::Capacity;
use super::conversations::{moves, Moves};
use super::day::{NAMES, QUALITY};
use super::shapes::Shapes;
use super::{changes, percentile, quality, success, usd, Results, CHEAPEST, GOOD_ENOUGH, QUICKEST};

pub(crate) fn cost_spends_little_more_than_hindsight_and_less_than_the_others(results: &Results) {
    let (spent, best) = (usd(results.way("cost")), usd(&results.hindsight[CHEAPEST]));
    assert!(spent < 1.15 * best, "{spent} against {best}");
    for other in ["priority", "round robin", "weighted", "latency"] {
        assert!(spent < 0.9 * usd(results.way(other)), "{spent} against {other}");
    }
}

pub(crate) fn latency_has_a_lower_p95_than_policies_that_do_not_measure_it(results: &Results) {
    let (p95, best) = (percentile(results.way("latency"), 95), percentile(&results.hindsight[QUICKEST], 95));
    assert!(p95 < 3 * best, "{p95} against {best}");
    for other in ["priority", "round robin", "weighted", "cost"] {
        assert!(p95 * 10 < 8 * percentile(results.way(other), 95), "{p95} against {other}");
    }
}

pub(crate) fn no_policy_answers_less_than_the_order_of_the_configuration(results: &Results) {
    let least = success(results.way("priority")) - 0.001;
    assert!(least > 0.99, "{least}");
    for (name, served) in &results.ways {
        assert!(success(served) >= least, "{name}: {}", success(served));
    }
}

pub(crate) fn latency_does_not_flap(results: &Results) {
    let served = results.way("latency");
    // Single failures and rate limits move requests to the next provider and back, the first provider changes a few times, and two that
    // are about as quick share the load while there is some.
    let count = changes(served);
    // On the worst of forty days this is 2.21 percent.
    assert!(count * 42 < served.len(), "{count} of {}", served.len());
    let tried = served.iter().filter(|one| one.tried).count();
    assert!(tried * 10 < served.len(), "{tried} of {}", served.len());
}

pub(crate) fn the_best_quality_is_expensive_and_good_enough_is_much_cheaper(results: &Results) {
    let [best, enough, cheapest] = ["quality", "cost, good enough", "cost"].map(|name| results.way(name));
    assert!(quality(best) > 0.88, "{}", quality(best));
    let below =
        enough.iter().filter(|one| one.provider.is_some_and(|provider| QUALITY[provider] < GOOD_ENOUGH));
    assert!(below.count() * 20 < enough.len(), "only if no other provider answers");
    assert!(usd(enough) < 0.9 * usd(best) && usd(enough) > usd(cheapest));
    assert!(quality(enough) < quality(best) && quality(enough) > quality(cheapest) + 0.03);
}

pub(crate) fn balanced_is_quicker_than_cost_and_cheaper_than_latency_and_does_not_flap(results: &Results) {
    let [balanced, cost, latency] = ["balanced", "cost", "latency"].map(|name| results.way(name));
    assert!(usd(balanced) < 0.75 * usd(latency), "{} {}", usd(balanced), usd(latency));
    assert!(percentile(balanced, 50) < percentile(cost, 50));
    assert!(percentile(balanced, 95) < percentile(cost, 95));
    // On the worst of forty days this is 2.84 percent.
    assert!(changes(balanced) * 33 < balanced.len(), "{}", changes(balanced));
}

pub(crate) fn an_affinity_to_the_last_provider_would_save_little(results: &Results) {
    for (name, served) in &results.ways {
        let Moves { turns, moved, usd: lost } = moves(&results.day, served);
        let share = moved as f64 / turns as f64;
        if matches!(*name, "round robin" | "weighted") {
            assert!(share > 0.5, "{name}: {share}");
        } else {
            // The policies that measure latencies move more requests, because they explore.
            let most = if matches!(*name, "latency" | "balanced") { 0.08 } else { 0.05 };
            assert!(share < 0.2 && lost < most * usd(served), "{name}: {share}, {lost} of {}", usd(served));
        }
    }
}

pub(crate) fn weights_set_the_shares_of_the_providers(results: &Results) {
    let served = results.way("weighted");
    for provider in 0..NAMES.len() {
        let share =
            served.iter().filter(|one| one.arm == Some(provider)).count() as f64 / served.len() as f64;
        assert!((share - 1.0 / NAMES.len() as f64).abs() < 0.02, "{provider}: {share}");
    }
}

/// What explores a provider of which too little is known goes elsewhere, which is a few requests in a hundred of a short run.
pub(crate) fn balanced_sends_each_kind_of_requests_to_the_best_provider_for_it(shapes: &Shapes) {
    let (balanced, hindsight) = (shapes.served_by("balanced"), shapes.hindsight());
    for kind in 0..2 {
        let share = shapes.at_the_best(&balanced, kind);
        assert!(share > 0.93, "{}, {kind}: {share}", shapes.name);
    }
    let [spent, best] = [usd(&balanced), usd(&hindsight)];
    assert!(spent < 1.3 * best, "{}: {spent} against {best}", shapes.name);
}

/// Equal shares are what somebody would configure who knows nothing. Where the providers do not bear the same, they overload one, and
/// being no worse is not enough: there the split by what each one bears is the measure, though nobody tells it to the policy.
pub(crate) fn latency_is_no_worse_than_equal_shares_and_not_far_from_a_split_by_capacity(
    capacity: &Capacity,
) {
    let name = capacity.load.name;
    let latency = capacity.by_latency();
    assert!(success(&latency) > 0.9999, "{name}: {}", success(&latency));
    let [latency, equal, by_capacity] =
        [latency, capacity.in_equal_shares(), capacity.by_capacity()].map(|served| percentile(&served, 95));
    // Where the number of the tokens decides how long it takes, all ways are the same but for chance.
    assert!(latency * 100 <= equal * 102, "{name}: {latency} ms against {equal} ms");
    assert!(latency <= 3 * by_capacity, "{name}: {latency} ms against {by_capacity} ms");
}
