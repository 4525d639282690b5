//! What is counted for a monitoring system: the names, their labels, and the sums of one worker.
//!
//! Counts are added up here and handed to the host once a second ([`Book::flush`]), so that a request costs no call to it
//! for them; distributions are recorded at once. Names are OpenTelemetry's GenAI conventions where those have one. Every
//! label comes from the configuration, so the number of series does not grow with traffic.

use hashbrown::HashMap;

use crate::base::clock::millis;
use crate::record::audit::{Bill, Facts};
use crate::spend::cost::Money;
use crate::spend::usage::Source;

/// What the host does with a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sum.
    Counter,
    /// A distribution.
    Histogram,
}

/// Where metrics go.
pub trait Sink {
    /// The host's number for a metric of this name, labels included; `None` if it has no metrics.
    fn define(&mut self, kind: Kind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn add(&mut self, id: u32, by: u64);
    /// Records a value of a histogram.
    fn record(&mut self, id: u32, value: u64);
}

/// A metric: its name, what it is, and a label of its own.
struct Metric {
    name: &'static str,
    kind: Kind,
    label: &'static str,
}

const fn counter(name: &'static str, label: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, label }
}

const fn histogram(name: &'static str, label: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, label }
}

/// Stands between a metric's name and its labels. `envoy/envoy.yaml` takes the labels out of the name.
const SEPARATOR: char = '|';

/// All metrics. Of requests and attempts, each with the labels of its [`Cell`].
const METRICS: [Metric; 22] = [
    counter("shunt.requests", ""),
    counter("shunt.malformed_events", ""),
    histogram("gen_ai.client.operation.duration_milliseconds", ""),
    histogram("gen_ai.server.time_to_first_token_milliseconds", ""),
    counter("shunt.attempts", ""),
    counter("shunt.cost_nano_usd", ""),
    counter("shunt.unpriced", ""),
    histogram("gen_ai.client.token.usage", "gen_ai.token.type=input"),
    histogram("gen_ai.client.token.usage", "gen_ai.token.type=output"),
    counter("shunt.tokens", "gen_ai.token.type=input|shunt.usage.source=reported"),
    counter("shunt.tokens", "gen_ai.token.type=cached|shunt.usage.source=reported"),
    counter("shunt.tokens", "gen_ai.token.type=cache_write|shunt.usage.source=reported"),
    counter("shunt.tokens", "gen_ai.token.type=output|shunt.usage.source=reported"),
    counter("shunt.tokens", "gen_ai.token.type=reasoning|shunt.usage.source=reported"),
    counter("shunt.tokens", "gen_ai.token.type=input|shunt.usage.source=estimated"),
    counter("shunt.tokens", "gen_ai.token.type=cached|shunt.usage.source=estimated"),
    counter("shunt.tokens", "gen_ai.token.type=cache_write|shunt.usage.source=estimated"),
    counter("shunt.tokens", "gen_ai.token.type=output|shunt.usage.source=estimated"),
    counter("shunt.tokens", "gen_ai.token.type=reasoning|shunt.usage.source=estimated"),
    counter("shunt.shadow.requests", ""),
    counter("shunt.shadow.cost_nano_usd", ""),
    histogram("shunt.shadow.duration_milliseconds", ""),
];
const REQUESTS: usize = 0;
const MALFORMED: usize = 1;
const DURATION: usize = 2;
const FIRST_TOKEN: usize = 3;
const ATTEMPTS: usize = 4;
const COST: usize = 5;
const UNPRICED: usize = 6;
const USAGE: usize = 7;
const REPORTED: usize = 9;
const ESTIMATED: usize = 14;
const SHADOWS: usize = 19;
const SHADOW_COST: usize = 20;
const SHADOW_DURATION: usize = 21;

/// Pico-dollars in a nano-dollar.
const PICO: u64 = 1000;

/// More combinations of labels than this are counted as one: a configuration with very many models and tenants.
const MOST: usize = 4096;

/// One combination of labels.
#[derive(Default)]
struct Cell {
    labels: String,
    /// Not yet handed to the host.
    pending: [u64; METRICS.len()],
    /// The host's numbers.
    ids: [Option<u32>; METRICS.len()],
}

impl Cell {
    fn add(&mut self, metric: usize, by: u64) {
        if let Some(pending) = self.pending.get_mut(metric) {
            *pending = pending.saturating_add(by);
        }
    }

    fn id(&mut self, metric: usize, sink: &mut dyn Sink) -> Option<u32> {
        let (Metric { name, kind, label }, id) = (METRICS.get(metric)?, self.ids.get_mut(metric)?);
        if id.is_none() {
            let mut full = [name, self.labels.as_str()].concat();
            if !label.is_empty() {
                full.push(SEPARATOR);
                full.push_str(label);
            }
            *id = sink.define(*kind, &full);
        }
        *id
    }

    fn record(&mut self, metric: usize, value: u64, sink: &mut dyn Sink) {
        if let Some(id) = self.id(metric, sink) {
            sink.record(id, value);
        }
    }

    fn flush(&mut self, sink: &mut dyn Sink) {
        for metric in 0..METRICS.len() {
            let unit = if matches!(metric, COST | SHADOW_COST) { PICO } else { 1 };
            let Some(pending) = self.pending.get_mut(metric).filter(|pending| **pending >= unit) else {
                continue;
            };
            let by = *pending / unit;
            *pending %= unit;
            if let Some(id) = self.id(metric, sink) {
                sink.add(id, by);
            }
        }
    }
}

/// The sums of one worker.
#[derive(Default)]
pub struct Book {
    cells: HashMap<u64, Cell>,
}

impl Book {
    /// Counts a request that is over.
    pub fn count(&mut self, facts: &Facts<'_>, sink: &mut dyn Sink) {
        let served = facts.served();
        let (provider, model) =
            served.map_or(("none", "none"), |served| (served.provider, served.model_label));
        let route = if facts.route.is_empty() { "none" } else { facts.route };
        let about = |provider, model, outcome| {
            [
                ("gen_ai.operation.name", facts.operation),
                ("gen_ai.provider.name", provider),
                ("gen_ai.request.model", model),
                ("shunt.route", route),
                ("shunt.tenant", facts.tenant_label),
                ("shunt.outcome", outcome),
            ]
        };
        if facts.is_shadow {
            // Apart: what clients met and what it did cost is not mixed with it.
            let cell = self.cell("shadow", &about(provider, model, facts.outcome));
            cell.add(SHADOWS, 1);
            cell.record(SHADOW_DURATION, millis(facts.took), sink);
            let cost = facts.bill().and_then(|bill| bill.cost).unwrap_or_default();
            return cell.add(SHADOW_COST, cost.as_pico());
        }
        let cell = self.cell("request", &about(provider, model, facts.outcome));
        cell.add(REQUESTS, 1);
        cell.add(MALFORMED, facts.malformed.into());
        cell.record(DURATION, millis(facts.took), sink);
        if let Some(first_token) = facts.first_token {
            cell.record(FIRST_TOKEN, millis(first_token), sink);
        }
        for attempt in &facts.attempts {
            let outcome = attempt.outcome.name();
            let cell = self.cell("attempt", &about(attempt.provider, attempt.model_label, outcome));
            cell.add(ATTEMPTS, 1);
            if let Some(bill) = &attempt.bill {
                cell.bill(bill, sink);
            }
        }
    }

    /// Hands what was added up to the host.
    pub fn flush(&mut self, sink: &mut dyn Sink) {
        for cell in self.cells.values_mut() {
            cell.flush(sink);
        }
    }

    fn cell(&mut self, what: &str, labels: &[(&str, &str); 6]) -> &mut Cell {
        let parts = labels.iter().map(|(_, value)| *value);
        let mut key = crate::health::breaker::fingerprint(std::iter::once(what).chain(parts));
        let full = self.cells.len() >= MOST && !self.cells.contains_key(&key);
        if full {
            key = 0;
        }
        self.cells.entry(key).or_insert_with(|| {
            let mut text = String::new();
            for (name, value) in labels {
                let value = if full { "other" } else { value };
                text.push(SEPARATOR);
                text.extend([name, "="]);
                text.extend(value.chars().map(|letter| match letter {
                    SEPARATOR | '=' | ' ' => '_',
                    letter if letter.is_ascii_graphic() => letter,
                    _ => '_',
                }));
            }
            Cell { labels: text, ..Cell::default() }
        })
    }
}

impl Cell {
    fn bill(&mut self, bill: &Bill, sink: &mut dyn Sink) {
        let usage = &bill.usage;
        self.record(USAGE, usage.input, sink);
        self.record(USAGE + 1, usage.output, sink);
        let first = if bill.source == Source::Reported { REPORTED } else { ESTIMATED };
        let tokens = [usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning];
        for (place, tokens) in tokens.into_iter().enumerate() {
            self.add(first.saturating_add(place), tokens);
        }
        match bill.cost {
            Some(cost) => self.add(COST, Money::as_pico(cost)),
            None => self.add(UNPRICED, 1),
        }
    }
}

#[cfg(test)]
mod tests;
