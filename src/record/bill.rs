//! What an attempt, or a response that was read later, used and cost, and how the audit record tells it.

use super::audit::short;
use crate::bytes::json::Writer;
use crate::spend::cost::{Money, Parts};
use crate::spend::queued::Queued;
use crate::spend::reported::Reconciled;
use crate::spend::usage::{Calls, Served, Source, Usage};

/// What an attempt used and cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The tokens.
    pub usage: Usage,
    /// What the provider says about who answered, and on which terms.
    pub served: Served,
    /// How the tokens are known.
    pub source: Source,
    /// How the provider's counts were reconciled, if they did not fit together.
    pub reconciled: Option<Reconciled>,
    /// The cost; `None` if no price of the model is known.
    pub cost: Option<Money>,
    /// What was told and has no price, so that the cost is not the whole one.
    pub unpriced: Parts,
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

impl Correction {
    pub(super) fn write(&self, record: &mut Writer) {
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
    /// The sum of two attempts. It is an estimate if one of them is, and has no cost if one of them has none.
    #[must_use]
    pub(super) fn plus(self, later: Self) -> Self {
        let (a, b) = (self.usage, later.usage);
        Self {
            usage: Usage {
                input: a.input.saturating_add(b.input),
                cached: a.cached.saturating_add(b.cached),
                cache_write: a.cache_write.saturating_add(b.cache_write),
                output: a.output.saturating_add(b.output),
                reasoning: a.reasoning.saturating_add(b.reasoning),
                details: a.details.plus(b.details),
            },
            served: later.served,
            reconciled: self.reconciled.or(later.reconciled),
            source: if self.source == Source::Estimated { self.source } else { later.source },
            cost: self.cost.zip(later.cost).map(|(a, b)| a.plus(b)),
            unpriced: self.unpriced.plus(later.unpriced),
        }
    }

    #[inline(never)]
    pub(super) fn write(&self, record: &mut Writer) {
        let Usage { input, cached, cache_write, output, reasoning, .. } = self.usage;
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
        self.write_details(record);
        record.close_object();
        match self.cost {
            // The cost is a string, because many JSON readers would round a number.
            Some(cost) => {
                record.name("cost_usd");
                record.plain(|out| cost.push_to(out));
                self.write_unpriced(record);
            }
            None => record.boolean("unpriced", true),
        }
    }

    /// The counts that only some price lists tell apart, where there are any.
    fn write_details(&self, record: &mut Writer) {
        let told = self.usage.details;
        for (name, tokens) in [
            ("cache_write_1h", told.cache_write_1h),
            ("audio_input", told.audio_input),
            ("audio_output", told.audio_output),
        ] {
            if tokens > 0 {
                record.number(name, tokens);
            }
        }
        if told.calls == Calls::default() {
            return;
        }
        record.name("calls");
        record.open_object();
        for (name, count) in Calls::NAMES.into_iter().zip(told.calls.counts()) {
            if count > 0 {
                record.number(name, count.into());
            }
        }
        record.close_object();
    }

    /// What the cost is not the whole one for.
    fn write_unpriced(&self, record: &mut Writer) {
        if self.unpriced.is_empty() {
            return;
        }
        record.boolean("unpriced", true);
        record.name("unpriced_parts");
        record.open_list();
        self.unpriced.iter().for_each(|part| record.string(part.name()));
        record.close_list();
    }
}
