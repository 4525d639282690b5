//! The metrics for a monitoring system: their names, their labels, and the sums of one worker.
//!
//! Counters are added up here and handed to the host once a second ([`Book::flush`]), so that they cost a request no call to
//! the host. Values of histograms are recorded at once. The names are those of OpenTelemetry's GenAI conventions where these
//! have one. Every label comes from the configuration, so the number of series does not grow with traffic.

use hashbrown::HashMap;

use crate::base::clock::millis;
use crate::base::store::fingerprint;
use crate::record::audit::{Facts, Opinion};
use crate::record::bill::Bill;
use crate::spend::usage::Source;

/// The kind of a metric: how the host combines its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sum of all values.
    Counter,
    /// The distribution of the values.
    Histogram,
}

/// The host, as the receiver of metrics.
pub trait Sink {
    /// The host's number for the metric with this name, labels included; `None` if the host has no metrics.
    fn define(&mut self, kind: Kind, name: &str) -> Option<u32>;
    /// Adds to a counter.
    fn add(&mut self, id: u32, by: u64);
    /// Adds a value to a histogram.
    fn record(&mut self, id: u32, value: u64);
}

/// Separates a metric's name and its labels. The configuration of Envoy (`envoy/envoy.yaml`) extracts the labels from the name.
const SEPARATOR: char = '|';

/// Declares all metrics, each with its kind, its name and its own label in one row, so that the three cannot get out of step.
macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal $label:literal,)*) => {
        /// A metric. Its series carry the labels of their [`Cell`] and the metric's own label.
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Metric {
            $($metric,)*
        }

        impl Metric {
            const ALL: [Self; [$($name),*].len()] = [$(Self::$metric),*];

            /// The kind, the name, and the metric's own label, which may be empty.
            const fn definition(self) -> (Kind, &'static str, &'static str) {
                match self {
                    $(Self::$metric => (Kind::$kind, $name, $label),)*
                }
            }
        }
    };
}

metrics! {
    Requests: Counter "shunt.requests" "",
    MalformedEvents: Counter "shunt.malformed_events" "",
    Duration: Histogram "gen_ai.client.operation.duration_milliseconds" "",
    FirstToken: Histogram "gen_ai.server.time_to_first_token_milliseconds" "",
    Attempts: Counter "shunt.attempts" "",
    Cost: Counter "shunt.cost_nano_usd" "",
    Unpriced: Counter "shunt.unpriced" "",
    InputUsage: Histogram "gen_ai.client.token.usage" "gen_ai.token.type=input",
    OutputUsage: Histogram "gen_ai.client.token.usage" "gen_ai.token.type=output",
    ReportedInput: Counter "shunt.tokens" "gen_ai.token.type=input|shunt.usage.source=reported",
    ReportedCached: Counter "shunt.tokens" "gen_ai.token.type=cached|shunt.usage.source=reported",
    ReportedCacheWrite: Counter "shunt.tokens" "gen_ai.token.type=cache_write|shunt.usage.source=reported",
    ReportedOutput: Counter "shunt.tokens" "gen_ai.token.type=output|shunt.usage.source=reported",
    ReportedReasoning: Counter "shunt.tokens" "gen_ai.token.type=reasoning|shunt.usage.source=reported",
    EstimatedInput: Counter "shunt.tokens" "gen_ai.token.type=input|shunt.usage.source=estimated",
    EstimatedCached: Counter "shunt.tokens" "gen_ai.token.type=cached|shunt.usage.source=estimated",
    EstimatedCacheWrite: Counter "shunt.tokens" "gen_ai.token.type=cache_write|shunt.usage.source=estimated",
    EstimatedOutput: Counter "shunt.tokens" "gen_ai.token.type=output|shunt.usage.source=estimated",
    EstimatedReasoning: Counter "shunt.tokens" "gen_ai.token.type=reasoning|shunt.usage.source=estimated",
    Confirmed: Counter "shunt.second_opinions" "shunt.opinion=confirmed",
    Disproved: Counter "shunt.second_opinions" "shunt.opinion=disproved",
    ShadowRequests: Counter "shunt.shadow.requests" "",
    ShadowCost: Counter "shunt.shadow.cost_nano_usd" "",
    ShadowDuration: Histogram "shunt.shadow.duration_milliseconds" "",
}

impl Metric {
    /// The counters of tokens from one source, in the order input, cached, cache write, output, reasoning.
    const fn tokens(source: Source) -> [Self; 5] {
        match source {
            Source::Reported => [
                Self::ReportedInput,
                Self::ReportedCached,
                Self::ReportedCacheWrite,
                Self::ReportedOutput,
                Self::ReportedReasoning,
            ],
            Source::Estimated => [
                Self::EstimatedInput,
                Self::EstimatedCached,
                Self::EstimatedCacheWrite,
                Self::EstimatedOutput,
                Self::EstimatedReasoning,
            ],
        }
    }

    /// What a sum is divided by before the host gets it: costs are added up in pico-dollars and reported in nano-dollars.
    const fn unit(self) -> u64 {
        match self {
            Self::Cost | Self::ShadowCost => 1000,
            _ => 1,
        }
    }
}

/// The number of combinations of labels that are counted separately; all further ones are counted together as `other`. It
/// bounds the memory for a configuration with very many models and tenants.
const MOST: usize = 4096;

/// The metrics with one combination of labels.
#[derive(Default)]
struct Cell {
    labels: String,
    /// The part of each counter that the host does not have yet, by [`Metric`].
    pending: [u64; Metric::ALL.len()],
    /// The host's numbers for the metrics, once they are defined there, by [`Metric`].
    ids: [Option<u32>; Metric::ALL.len()],
}

impl Cell {
    fn add(&mut self, metric: Metric, by: u64) {
        if let Some(pending) = self.pending.get_mut(metric as usize) {
            *pending = pending.saturating_add(by);
        }
    }

    fn id(&mut self, metric: Metric, sink: &mut dyn Sink) -> Option<u32> {
        let id = self.ids.get_mut(metric as usize)?;
        if id.is_none() {
            let (kind, name, label) = metric.definition();
            let mut full = [name, self.labels.as_str()].concat();
            if !label.is_empty() {
                full.push(SEPARATOR);
                full.push_str(label);
            }
            *id = sink.define(kind, &full);
        }
        *id
    }

    fn record(&mut self, metric: Metric, value: u64, sink: &mut dyn Sink) {
        if let Some(id) = self.id(metric, sink) {
            sink.record(id, value);
        }
    }

    fn bill(&mut self, bill: &Bill, sink: &mut dyn Sink) {
        let usage = &bill.usage;
        self.record(Metric::InputUsage, usage.input, sink);
        self.record(Metric::OutputUsage, usage.output, sink);
        let tokens = [usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning];
        for (metric, tokens) in Metric::tokens(bill.source).into_iter().zip(tokens) {
            self.add(metric, tokens);
        }
        self.add(Metric::Cost, bill.cost.unwrap_or_default().as_pico());
        self.add(Metric::Unpriced, u64::from(bill.cost.is_none() || !bill.unpriced.is_empty()));
    }

    fn flush(&mut self, sink: &mut dyn Sink) {
        for metric in Metric::ALL {
            let unit = metric.unit();
            let Some(pending) = self.pending.get_mut(metric as usize).filter(|pending| **pending >= unit)
            else {
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

/// The metrics of one worker.
#[derive(Default)]
pub struct Book {
    cells: HashMap<u64, Cell>,
}

impl Book {
    /// Counts a finished request.
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
            // Shadow requests have metrics of their own: they must not change what is measured of the clients' requests.
            let cell = self.cell("shadow", &about(provider, model, facts.outcome));
            cell.add(Metric::ShadowRequests, 1);
            cell.record(Metric::ShadowDuration, millis(facts.took), sink);
            let cost = facts.bill().and_then(|bill| bill.cost).unwrap_or_default();
            return cell.add(Metric::ShadowCost, cost.as_pico());
        }
        let cell = self.cell("request", &about(provider, model, facts.outcome));
        cell.add(Metric::Requests, 1);
        cell.add(Metric::MalformedEvents, facts.malformed.into());
        cell.record(Metric::Duration, millis(facts.took), sink);
        if let Some(first_token) = facts.first_token {
            cell.record(Metric::FirstToken, millis(first_token), sink);
        }
        for (place, attempt) in facts.attempts.iter().enumerate() {
            let outcome = attempt.outcome.name();
            let cell = self.cell("attempt", &about(attempt.provider, attempt.model_label, outcome));
            cell.add(Metric::Attempts, 1);
            match facts.opinion.filter(|(about, _)| *about == place) {
                Some((_, Opinion::Confirmed)) => cell.add(Metric::Confirmed, 1),
                Some((_, Opinion::Disproved)) => cell.add(Metric::Disproved, 1),
                None => {}
            }
            if let Some(bill) = &attempt.bill {
                cell.bill(bill, sink);
            }
        }
    }

    /// Hands the sums since the last call to the host.
    pub fn flush(&mut self, sink: &mut dyn Sink) {
        for cell in self.cells.values_mut() {
            cell.flush(sink);
        }
    }

    fn cell(&mut self, what: &str, labels: &[(&str, &str); 6]) -> &mut Cell {
        let parts = labels.iter().map(|(_, value)| *value);
        let mut key = fingerprint(std::iter::once(what).chain(parts));
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

#[cfg(test)]
mod tests;
