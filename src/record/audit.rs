//! The record of one request: who was asked, who answered, what it used and cost. One line of JSON, never a prompt, an
//! answer or a key.

use std::time::Duration;

use crate::base::clock::{millis, Timestamp};
use crate::bytes::digits;
use crate::bytes::json::quoted;
use crate::health::outcome::Outcome;
use crate::spend::cost::Money;
use crate::spend::usage::{Source, Usage};

/// What an attempt is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Its tokens.
    pub usage: Usage,
    /// How they are known.
    pub source: Source,
    /// What they cost; `None`: nobody knows the model's price.
    pub cost: Option<Money>,
}

/// All that is told of one request.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// When it was planned.
    pub time: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// The gateway's number of it.
    pub request_id: String,
    /// The route's name; empty if it had none.
    pub route: &'a str,
    /// The policy.
    pub policy: &'static str,
    /// What was asked for, in OpenTelemetry's words.
    pub operation: &'static str,
    /// The tenant; empty if none was named.
    pub tenant: &'a str,
    /// The tenant, if the configuration knows it.
    pub tenant_label: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
    /// A stream.
    pub stream: bool,
    /// How it ended.
    pub outcome: &'static str,
    /// The status that the client saw, if it saw one.
    pub status: Option<u16>,
    /// An answer of a provider went to the client.
    pub answered: bool,
    /// The candidates, in their order.
    pub plan: Vec<&'a str>,
    /// Candidates that were left out, and why.
    pub left_out: Vec<(&'a str, &'static str)>,
    /// Why each candidate stands where it does, if the policy says.
    pub why: Vec<(&'a str, &'a str)>,
    /// The candidate that the policy drew.
    pub arm: Option<&'a str>,
    /// The provider that got a copy of it.
    pub shadowed: Option<&'a str>,
    /// It is a copy itself: no client has its answer.
    pub is_shadow: bool,
    /// Every attempt; the last one answered, if any did.
    pub attempts: Vec<AttemptFacts<'a>>,
    /// From the plan to the first content of a stream.
    pub first_token: Option<Duration>,
    /// Events that could not be read.
    pub malformed: u32,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct AttemptFacts<'a> {
    /// The provider.
    pub provider: &'a str,
    /// Its name for the model.
    pub model: &'a str,
    /// The same, if the configuration knows it.
    pub model_label: &'a str,
    /// What it came to.
    pub outcome: Outcome,
    /// The provider's status.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// What it is billed.
    pub bill: Option<Bill>,
}

impl<'a> Facts<'a> {
    /// A request that the filter never saw: it is counted, and has no record of the filter's.
    pub const fn not_read(time: Timestamp) -> Self {
        Self::unplanned(time, String::new(), None, "not_read")
    }

    /// A request that was answered by the gateway itself before it was planned: rejected, unless the reply is a success
    /// (the list of models).
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
            plan: Vec::new(),
            left_out: Vec::new(),
            why: Vec::new(),
            arm: None,
            shadowed: None,
            is_shadow: false,
            attempts: Vec::new(),
            first_token: None,
            malformed: 0,
        }
    }

    /// The attempt whose answer the client got.
    pub fn served(&self) -> Option<&AttemptFacts<'a>> {
        self.attempts.last().filter(|_| self.answered)
    }

    /// All attempts' bills together; estimated if any of them is, without a cost if any has none.
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
                source: if sum.source == Source::Estimated { sum.source } else { bill.source },
                cost: sum.cost.zip(bill.cost).map(|(a, b)| a.plus(b)),
            }
        }))
    }

    /// The record: one line of JSON.
    pub fn record(&self) -> String {
        let mut record = Writer(String::with_capacity(1024));
        record.open();
        record.text("time", &self.time.rfc3339());
        record.text("request_id", &self.request_id);
        record.text("outcome", self.outcome);
        if let Some(status) = self.status {
            record.number("status", status.into());
        }
        record.number("ms", millis(self.took));
        for (name, text) in [
            ("route", self.route),
            ("policy", self.policy),
            ("operation", if self.operation == "none" { "" } else { self.operation }),
            ("tenant", self.tenant),
            ("model", self.model),
        ] {
            if !text.is_empty() {
                record.text(name, text);
            }
        }
        record.truth("stream", self.stream);
        if let Some(served) = self.served() {
            record.text("provider", served.provider);
            record.text("response_model", served.model);
        }
        if let Some(first_token) = self.first_token {
            record.number("first_token_ms", millis(first_token));
        }
        if !self.plan.is_empty() {
            record.name("plan");
            record.open_list();
            self.plan.iter().for_each(|name| record.string(name));
            record.close_list();
        }
        if let Some(arm) = self.arm {
            record.text("arm", arm);
        }
        if let Some(shadowed) = self.shadowed {
            record.text("mirrored_to", shadowed);
        }
        if self.is_shadow {
            record.truth("shadow", true);
        }
        record.reasons("why", self.why.iter().copied());
        record.reasons("left_out", self.left_out.iter().copied());
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
        record.close();
        record.0
    }
}

impl AttemptFacts<'_> {
    fn write(&self, record: &mut Writer) {
        record.open();
        record.text("provider", self.provider);
        record.text("model", self.model);
        record.text("outcome", self.outcome.name());
        if let Some(status) = self.status {
            record.number("status", status.into());
        }
        record.number("ms", millis(self.took));
        if let Some(bill) = &self.bill {
            bill.write(record);
        }
        record.close();
    }
}

impl Bill {
    fn write(&self, record: &mut Writer) {
        let Usage { input, cached, cache_write, output, reasoning } = self.usage;
        record.name("usage");
        record.open();
        record.text("source", self.source.name());
        for (name, tokens) in [
            ("input", input),
            ("cached", cached),
            ("cache_write", cache_write),
            ("output", output),
            ("reasoning", reasoning),
        ] {
            record.number(name, tokens);
        }
        record.close();
        match self.cost {
            // A decimal text: a JSON reader would make a rounded number of it.
            Some(cost) => {
                record.name("cost_usd");
                record.0.push('"');
                cost.push_to(&mut record.0);
                record.0.push('"');
            }
            None => record.truth("unpriced", true),
        }
    }
}

/// In bytes.
const LONGEST: usize = 256;

/// JSON that is being written: all of it into one text.
struct Writer(String);

impl Writer {
    /// A comma, unless a value is the first of its object or list. No value ends with an opening bracket.
    fn comma(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }

    fn open(&mut self) {
        self.comma();
        self.0.push('{');
    }

    fn close(&mut self) {
        self.0.push('}');
    }

    fn open_list(&mut self) {
        self.comma();
        self.0.push('[');
    }

    fn close_list(&mut self) {
        self.0.push(']');
    }

    /// The name of the value that follows.
    fn name(&mut self, name: &str) {
        self.comma();
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// A text, cut where it is longer than any name has to be: a client's own may be as long as its body.
    fn string(&mut self, text: &str) {
        self.comma();
        let end = if text.len() <= LONGEST {
            text.len()
        } else {
            (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default()
        };
        let text = text.get(..end).unwrap_or_default();
        // Most texts are names that need no escapes.
        let plain = |byte: u8| (0x20..0x7F).contains(&byte) && byte != b'"' && byte != b'\\';
        if text.bytes().all(plain) {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.0.push_str(&quoted(text));
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }

    fn truth(&mut self, name: &str, truth: bool) {
        self.name(name);
        self.0.push_str(if truth { "true" } else { "false" });
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        digits::push(&mut self.0, number, 1);
    }

    /// Names with a reason each, if there are any.
    fn reasons<'a>(&mut self, name: &str, reasons: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut reasons = reasons.peekable();
        if reasons.peek().is_none() {
            return;
        }
        self.name(name);
        self.open();
        reasons.for_each(|(name, why)| self.text(name, why));
        self.close();
    }
}

#[cfg(test)]
mod tests;
