//! The audit record of one request: which providers were tried, which one answered, what the request used and cost. It is one line
//! of JSON, and never contains a prompt, an answer or a key.

use std::time::Duration;

use crate::base::clock::{millis, Timestamp};
use crate::bytes::json::Writer;
use crate::health::outcome::Outcome;
use crate::spend::cost::Money;
use crate::spend::queued::Queued;
use crate::spend::reported::Reconciled;
use crate::spend::usage::{Source, Usage};

/// What an attempt used and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The tokens.
    pub usage: Usage,
    /// How the tokens are known.
    pub source: Source,
    /// How the provider's counts were reconciled, if they did not fit together.
    pub reconciled: Option<Reconciled>,
    /// The cost; `None` if no price of the model is known.
    pub cost: Option<Money>,
}

/// What a response in the background cost, which was learnt when the client read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// What was billed before, and for whom.
    pub queued: Queued,
    /// The model's name at the provider.
    pub model: String,
    /// What it used and cost.
    pub bill: Bill,
}

/// What another provider said about a refusal that no list explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It refused the request, too.
    Confirmed,
    /// It answered the request.
    Disproved,
}

impl Opinion {
    /// The name in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Disproved => "disproved",
        }
    }
}

/// Everything that the audit record and the metrics contain of one request.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// When the request was planned.
    pub time: Timestamp,
    /// The time from then to its end.
    pub took: Duration,
    /// The gateway's id of the request.
    pub request_id: String,
    /// The route's name; empty if the route has none.
    pub route: &'a str,
    /// The policy's name.
    pub policy: &'static str,
    /// The operation, by its name in OpenTelemetry's GenAI conventions.
    pub operation: &'static str,
    /// The tenant; empty if the request named none.
    pub tenant: &'a str,
    /// The tenant as the label of a metric: only tenants that the configuration names have one of their own.
    pub tenant_label: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// How the request ended.
    pub outcome: &'static str,
    /// The status that the client received, if it received one.
    pub status: Option<u16>,
    /// Whether the client received an answer of a provider.
    pub answered: bool,
    /// The place of the attempt whose refusal the client received, if others were tried after it.
    pub refused_at: Option<usize>,
    /// What another provider said about a refusal, and the place of the attempt that was refused.
    pub opinion: Option<(usize, Opinion)>,
    /// The candidates in their order.
    pub plan: Vec<&'a str>,
    /// The candidates that were excluded, each with the reason.
    pub left_out: Vec<(&'a str, &'static str)>,
    /// The reason for the place of each candidate, if the policy gives one.
    pub why: Vec<(&'a str, &'a str)>,
    /// The candidate that a policy with random choice drew.
    pub arm: Option<&'a str>,
    /// The provider that received a shadow request, a copy of this one.
    pub shadowed: Option<&'a str>,
    /// Whether this is a shadow request, whose answer no client receives.
    pub is_shadow: bool,
    /// What the client has read a response in the background to have cost.
    pub correction: Option<&'a Correction>,
    /// Every attempt. If any of them answered, it is the last one.
    pub attempts: Vec<AttemptFacts<'a>>,
    /// The time from the plan to the first content of a stream.
    pub first_token: Option<Duration>,
    /// The number of events that could not be read.
    pub malformed: u32,
    /// Whether the answer was too long to be read, and only checked.
    pub unread: bool,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct AttemptFacts<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The model's name at the provider.
    pub model: &'a str,
    /// The model as the label of a metric: only models that the configuration names have one of their own.
    pub model_label: &'a str,
    /// The outcome.
    pub outcome: Outcome,
    /// The status of the provider's response, if there was one.
    pub status: Option<u16>,
    /// How long the attempt took.
    pub took: Duration,
    /// What it used and cost, if that is known.
    pub bill: Option<Bill>,
}

impl<'a> Facts<'a> {
    /// A request that the filter never read. It is counted, but has no audit record.
    pub const fn not_read(time: Timestamp) -> Self {
        Self::unplanned(time, String::new(), None, "not_read")
    }

    /// A request that the gateway itself answered before it was planned. It counts as rejected, unless the reply is a success (the
    /// list of models) or the client is gone.
    pub const fn rejected(time: Timestamp, request_id: String, status: Option<u16>, gone: bool) -> Self {
        let outcome = match status {
            _ if gone => Outcome::ClientGone,
            Some(200..=299) => Outcome::Answered,
            _ => return Self::unplanned(time, request_id, status, "rejected"),
        };
        Self::unplanned(time, request_id, status, outcome.name())
    }

    const fn unplanned(
        time: Timestamp,
        request_id: String,
        status: Option<u16>,
        outcome: &'static str,
    ) -> Self {
        Facts {
            time,
            took: Duration::ZERO,
            request_id,
            route: "",
            policy: "",
            operation: "none",
            tenant: "",
            tenant_label: "none",
            model: "",
            stream: false,
            outcome,
            status,
            answered: false,
            refused_at: None,
            opinion: None,
            plan: Vec::new(),
            left_out: Vec::new(),
            why: Vec::new(),
            arm: None,
            shadowed: None,
            is_shadow: false,
            correction: None,
            attempts: Vec::new(),
            first_token: None,
            malformed: 0,
            unread: false,
        }
    }

    /// The attempt whose answer, or refusal, the client received.
    pub fn served(&self) -> Option<&AttemptFacts<'a>> {
        match self.refused_at {
            Some(place) => self.attempts.get(place),
            None => self.attempts.last().filter(|_| self.answered),
        }
    }

    /// The sum of all attempts' bills. It is an estimate if any of them is, and has no cost if any of them has none.
    pub fn bill(&self) -> Option<Bill> {
        let mut bills = self.attempts.iter().filter_map(|attempt| attempt.bill);
        let first = bills.next()?;
        Some(bills.fold(first, |sum, bill| {
            let (a, b) = (sum.usage, bill.usage);
            Bill {
                usage: Usage {
                    input: a.input.saturating_add(b.input),
                    cached: a.cached.saturating_add(b.cached),
                    cache_write: a.cache_write.saturating_add(b.cache_write),
                    output: a.output.saturating_add(b.output),
                    reasoning: a.reasoning.saturating_add(b.reasoning),
                },
                reconciled: sum.reconciled.or(bill.reconciled),
                source: if sum.source == Source::Estimated { sum.source } else { bill.source },
                cost: sum.cost.zip(bill.cost).map(|(a, b)| a.plus(b)),
            }
        }))
    }

    /// The record: one line of JSON.
    pub fn record(&self) -> String {
        // More than a usual record needs, so that it is not copied while it grows.
        let mut record = Writer::with_capacity(1024);
        record.open_object();
        record.name("time");
        record.plain(|out| self.time.push_rfc3339(out));
        record.text("request_id", short(&self.request_id));
        record.text("outcome", self.outcome);
        if let Some(status) = self.status {
            record.number("status", status.into());
        }
        record.number("ms", millis(self.took));
        self.write_request(&mut record);
        self.write_plan(&mut record);
        record.name("attempts");
        record.open_list();
        self.attempts.iter().for_each(|attempt| attempt.write(&mut record));
        record.close_list();
        if let Some(bill) = self.bill() {
            bill.write(&mut record);
        }
        if self.malformed > 0 {
            record.number("malformed_events", self.malformed.into());
        }
        if self.unread {
            record.boolean("unread", true);
        }
        if let Some(correction) = self.correction {
            correction.write(&mut record);
        }
        record.close_object();
        record.into_text()
    }

    /// What was asked for, and which provider answered.
    fn write_request(&self, record: &mut Writer) {
        for (name, text) in [
            ("route", self.route),
            ("policy", self.policy),
            ("operation", if self.operation == "none" { "" } else { self.operation }),
            ("tenant", self.tenant),
            ("model", self.model),
        ] {
            if !text.is_empty() {
                record.text(name, short(text));
            }
        }
        record.boolean("stream", self.stream);
        if let Some(served) = self.served() {
            record.text("provider", short(served.provider));
            record.text("response_model", short(served.model));
        }
        if let Some((_, opinion)) = self.opinion {
            record.text("second_opinion", opinion.name());
        }
        if let Some(first_token) = self.first_token {
            record.number("first_token_ms", millis(first_token));
        }
    }

    /// The candidates in their order, and the reasons for it.
    fn write_plan(&self, record: &mut Writer) {
        if !self.plan.is_empty() {
            record.name("plan");
            record.open_list();
            self.plan.iter().for_each(|name| record.string(short(name)));
            record.close_list();
        }
        if let Some(arm) = self.arm {
            record.text("arm", short(arm));
        }
        if let Some(shadowed) = self.shadowed {
            record.text("mirrored_to", short(shadowed));
        }
        if self.is_shadow {
            record.boolean("shadow", true);
        }
        write_reasons(record, "why", &self.why);
        write_reasons(record, "left_out", &self.left_out);
    }
}

/// An object of candidates with a reason each, if there are any.
fn write_reasons(record: &mut Writer, name: &'static str, reasons: &[(&str, &str)]) {
    if reasons.is_empty() {
        return;
    }
    record.name(name);
    record.open_object();
    for (candidate, reason) in reasons {
        record.key(candidate);
        record.string(short(reason));
    }
    record.close_object();
}

impl AttemptFacts<'_> {
    fn write(&self, record: &mut Writer) {
        record.open_object();
        record.text("provider", short(self.provider));
        record.text("model", short(self.model));
        record.text("outcome", self.outcome.name());
        if let Some(status) = self.status {
            record.number("status", status.into());
        }
        record.number("ms", millis(self.took));
        if let Some(bill) = &self.bill {
            bill.write(record);
        }
        record.close_object();
    }
}

impl Correction {
    fn write(&self, record: &mut Writer) {
        record.name("corrects");
        record.open_object();
        let [tenant, route, provider, _] = self.queued.texts();
        for (name, text) in
            [("route", route), ("tenant", tenant), ("provider", provider), ("model", &*self.model)]
        {
            record.text(name, short(text));
        }
        self.bill.write(record);
        record.name("in_place_of_usd");
        record.plain(|out| self.queued.billed.push_to(out));
        record.close_object();
    }
}

impl Bill {
    fn write(&self, record: &mut Writer) {
        let Usage { input, cached, cache_write, output, reasoning } = self.usage;
        record.name("usage");
        record.open_object();
        record.text("source", self.source.name());
        if let Some(reconciled) = self.reconciled {
            record.text("reconciled", reconciled.name());
        }
        for (name, tokens) in [
            ("input", input),
            ("cached", cached),
            ("cache_write", cache_write),
            ("output", output),
            ("reasoning", reasoning),
        ] {
            record.number(name, tokens);
        }
        record.close_object();
        match self.cost {
            // The cost is a string, because many JSON readers would round a number.
            Some(cost) => {
                record.name("cost_usd");
                record.plain(|out| cost.push_to(out));
            }
            None => record.boolean("unpriced", true),
        }
    }
}

/// The longest text that a record holds, in bytes. A client may send a model's name that is as long as its body.
const LONGEST: usize = 256;

/// The text, cut where it is longer than any name has to be.
fn short(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
