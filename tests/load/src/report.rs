//! Counting outcomes, and putting them as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{json, Map, Value};

use crate::client::{Failure, Timing};

/// What became of the requests to one target.
pub struct Tally {
    ok: u64,
    errors: BTreeMap<Failure, u64>,
    /// Times of the good answers only: a fast refusal must not make a proxy look fast.
    end: Histogram<u64>,
    first_byte: Histogram<u64>,
    first_content: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            ok: 0,
            errors: BTreeMap::new(),
            end: histogram(),
            first_byte: histogram(),
            first_content: histogram(),
        }
    }

    pub fn add(&mut self, result: Result<Timing, Failure>) {
        match result {
            Ok(timing) => {
                self.ok += 1;
                record(&mut self.end, timing.end);
                record(&mut self.first_byte, timing.first_byte);
                if let Some(time) = timing.first_content {
                    record(&mut self.first_content, time);
                }
            }
            Err(failure) => *self.errors.entry(failure).or_default() += 1,
        }
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn requests(&self) -> u64 {
        self.ok + self.failed()
    }

    /// `ok`, `failed` and `errors`.
    pub fn outcome(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("ok".to_owned(), json!(self.ok));
        object.insert("failed".to_owned(), json!(self.failed()));
        let errors = self.errors.iter().map(|(failure, count)| (failure.to_string(), json!(count)));
        object.insert("errors".to_owned(), Value::Object(errors.collect()));
        object
    }

    /// The outcome with rates and times, for requests that took `time` together.
    pub fn report(&self, time: Duration) -> Map<String, Value> {
        let mut object = self.outcome();
        let seconds = time.as_secs_f64();
        let rps = if seconds > 0.0 { self.requests() as f64 / seconds } else { 0.0 };
        object.insert("requests".to_owned(), json!(self.requests()));
        object.insert("seconds".to_owned(), json!(rounded(seconds)));
        object.insert("rps".to_owned(), json!(rounded(rps)));
        let mut put = |name: &str, histogram: &Histogram<u64>, quantile: f64| {
            object.insert(name.to_owned(), microseconds(histogram, quantile));
        };
        put("p50_us", &self.end, 0.5);
        put("p90_us", &self.end, 0.9);
        put("p99_us", &self.end, 0.99);
        put("max_us", &self.end, 1.0);
        put("first_byte_p50_us", &self.first_byte, 0.5);
        put("first_byte_p99_us", &self.first_byte, 0.99);
        if !self.first_content.is_empty() {
            put("ttft_p50_us", &self.first_content, 0.5);
            put("ttft_p99_us", &self.first_content, 0.99);
        }
        object
    }
}

/// Three decimals, which is more than any of these numbers is good for.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Microseconds up to an hour, within a thousandth.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constants and valid")
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// `null` where there is nothing to measure, as a 0 would read as very fast.
fn microseconds(histogram: &Histogram<u64>, quantile: f64) -> Value {
    if histogram.is_empty() {
        Value::Null
    } else {
        json!(histogram.value_at_quantile(quantile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_and_only_good_ones_timed() {
        let mut tally = Tally::new();
        for end in 1..=100 {
            tally.add(Ok(Timing {
                first_byte: Duration::from_micros(end),
                first_content: None,
                end: Duration::from_micros(end * 10),
            }));
        }
        tally.add(Err(Failure::Status(503)));
        tally.add(Err(Failure::Status(503)));
        tally.add(Err(Failure::Timeout));
        let report = Value::Object(tally.report(Duration::from_secs(2)));
        assert_eq!(report["requests"], 103);
        assert_eq!((&report["ok"], &report["failed"]), (&json!(100), &json!(3)));
        assert_eq!(report["errors"], json!({"status 503": 2, "timeout": 1}));
        assert_eq!(report["rps"], 51.5);
        assert_eq!(report["p50_us"], 500);
        assert_eq!(report["max_us"], 1000);
        assert_eq!(report["first_byte_p99_us"], 99);
        assert!(report.get("ttft_p50_us").is_none());
    }

    #[test]
    fn nothing_measured_is_null() {
        let report = Value::Object(Tally::new().report(Duration::ZERO));
        assert_eq!(report["p99_us"], Value::Null);
        assert_eq!(report["rps"], 0.0);
    }
}
