//! Money: what tokens cost at a provider, in whole pico-dollars.
//!
//! A [`Price`] is the price list of one model: rates that begin on a date, other rates above a number of input tokens,
//! and factors for times of the day. The time that counts is that at which the request began: a vendor charges a request
//! at one rate, and the start is what both sides know. What a provider charged in truth is on its bill; this is what its
//! price list says.

use std::fmt;
use std::rc::Rc;

use crate::base::clock::{weekday, Timestamp};
use crate::spend::usage::Usage;

/// An amount of money in pico-dollars (1e-12 USD): a price per million tokens with six decimals is whole per token. Stops
/// at 18 million dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From pico-dollars.
    pub const fn from_pico(pico: u64) -> Self {
        Self(pico)
    }

    /// Pico-dollars.
    pub const fn as_pico(self) -> u64 {
        self.0
    }

    /// The sum; stops at the largest amount.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Adds it to a text: dollars, exactly, without zeros at the end: `0.00015`, `12.5`, `0`.
    pub fn push_to(self, out: &mut String) {
        let (dollars, pico) = (self.0 / PICO, self.0 % PICO);
        let mut buffer = itoa::Buffer::new();
        out.push_str(buffer.format(dollars));
        if pico == 0 {
            return;
        }
        out.push('.');
        // The digits behind a one, so that the zeros before the first of them are written.
        out.push_str(buffer.format(PICO + pico).get(1..).unwrap_or_default());
        out.truncate(out.trim_end_matches('0').len());
    }

    /// So many times this; stops at the largest amount.
    const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// This by a factor, rounded to the nearest pico-dollar; stops at the largest amount.
    const fn by(self, Factor(millionths): Factor) -> Self {
        let (whole, part) = (self.0 / MILLION, self.0 % MILLION);
        // Less than a million times a factor of at most a thousand millions: no overflow.
        let part = (part * millionths + MILLION / 2) / MILLION;
        Self(whole.saturating_mul(millionths).saturating_add(part))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

const MILLION: u64 = 1_000_000;
/// Pico-dollars in a dollar.
const PICO: u64 = MILLION * MILLION;

/// The price of one model at one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price(Vec<Rates>);

impl Price {
    /// From rates in any order. Of two that begin at the same moment, the later in the list counts.
    pub const fn new(rates: Vec<Rates>) -> Self {
        Self(rates)
    }

    /// What a request that began at `at` costs. `None` before the first rates: there is no price yet.
    pub fn cost(&self, usage: &Usage, at: Timestamp) -> Option<Money> {
        let (rates, tokens, factor) = self.rates(usage.input, at)?;
        Some(tokens.cost(usage).plus(rates.request).by(factor))
    }

    /// What a token of input and one of output cost in a request that began at `at` with so many of input; a price of less than a
    /// pico-dollar is rounded.
    pub fn per_token(&self, input: u64, at: Timestamp) -> Option<(Money, Money)> {
        let (_, tokens, factor) = self.rates(input, at)?;
        Some((tokens.input.by(factor), tokens.output.by(factor)))
    }

    fn rates(&self, input: u64, at: Timestamp) -> Option<(&Rates, &TokenRates, Factor)> {
        let rates = self.0.iter().filter(|rates| rates.from <= at).max_by_key(|rates| rates.from)?;
        let tier = rates.tiers.iter().filter(|tier| input > tier.above).max_by_key(|tier| tier.above);
        let tokens = tier.map_or(&rates.tokens, |tier| &tier.tokens);
        let factor =
            rates.windows.iter().find(|window| window.holds(at)).map_or(Factor::ONE, |window| window.factor);
        Some((rates, tokens, factor))
    }

    /// What a request of so many tokens would cost, with nothing cached.
    pub fn expected(&self, input: u64, output: u64, at: Timestamp) -> Option<Money> {
        self.cost(&Usage { input, output, ..Usage::default() }, at)
    }
}

/// The prices of several models, by the names that they have at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList(Vec<(String, Rc<Price>)>);

impl PriceList {
    /// Adds the price of a model, or replaces it.
    pub fn insert(&mut self, model: &str, price: Rc<Price>) {
        match self.place(model) {
            Ok(place) => self.0.get_mut(place).map_or((), |entry| entry.1 = price),
            Err(place) => self.0.insert(place, (model.to_owned(), price)),
        }
    }

    /// The price of a model.
    pub fn find(&self, model: &str) -> Option<Rc<Price>> {
        let place = self.place(model).ok()?;
        self.0.get(place).map(|(_, price)| Rc::clone(price))
    }

    fn place(&self, model: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.as_str().cmp(model))
    }
}

/// What counts from one moment until the next rates begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// When they begin.
    pub from: Timestamp,
    /// Per token.
    pub tokens: TokenRates,
    /// Per request, beside its tokens.
    pub request: Money,
    /// Other rates for long requests; of those that a request exceeds, the highest counts.
    pub tiers: Vec<Tier>,
    /// Factors for times of the week; the first that holds counts, for the whole request.
    pub windows: Vec<Window>,
}

/// Prices of single tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenRates {
    /// Input that is neither read from a cache nor written into it.
    pub input: Money,
    /// Input read from the provider's cache.
    pub cached_input: Money,
    /// Input written into the provider's cache.
    pub cache_write: Money,
    /// Output without reasoning.
    pub output: Money,
    /// Reasoning.
    pub reasoning: Money,
}

impl TokenRates {
    /// A vendor's numbers need not add up: a part counts at most as much as is left of its whole.
    fn cost(&self, usage: &Usage) -> Money {
        let cached = usage.cached.min(usage.input);
        let cache_write = usage.cache_write.min(usage.input - cached);
        let reasoning = usage.reasoning.min(usage.output);
        [
            (self.input, usage.input - cached - cache_write),
            (self.cached_input, cached),
            (self.cache_write, cache_write),
            (self.output, usage.output - reasoning),
            (self.reasoning, reasoning),
        ]
        .into_iter()
        .fold(Money::ZERO, |sum, (rate, tokens)| sum.plus(rate.times(tokens)))
    }
}

/// Rates for the whole of a request whose input is longer than a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Input tokens; a request of just so many is not above.
    pub above: u64,
    /// The rates instead.
    pub tokens: TokenRates,
}

/// A time of the week at which everything costs so much more, or less. UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins.
    pub days: Days,
    /// Its first minute of the day.
    pub from: u64,
    /// The minute of the day at which it is over. If that is not after `from`, it is the next day's.
    pub to: u64,
    /// What the cost is multiplied by.
    pub factor: Factor,
}

impl Window {
    fn holds(&self, at: Timestamp) -> bool {
        let (day, minute) = (at.day(), at.minute_of_day());
        let crosses = self.to <= self.from;
        let today = minute >= self.from && (crosses || minute < self.to) && self.days.has(weekday(day));
        // The day before the epoch was a Wednesday, six days after the Thursday before it.
        let from_yesterday = crosses && minute < self.to && self.days.has(weekday(day + 6));
        today || from_yesterday
    }
}

/// Days of the week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// All seven.
    pub const ALL: Self = Self(0b111_1111);

    /// Also this one; 0 is Monday.
    #[must_use]
    pub const fn with(self, weekday: u64) -> Self {
        Self(self.0 | 1 << (weekday % 7))
    }

    const fn has(self, weekday: u64) -> bool {
        self.0 & 1 << (weekday % 7) != 0
    }
}

/// A factor from 0 to 1000, with six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(u64);

impl Factor {
    /// No change.
    const ONE: Self = Self(MILLION);
    /// A thousand times.
    pub const MOST: u32 = 1000;

    /// From millionths; stops at a thousand times.
    pub const fn from_millionths(millionths: u64) -> Self {
        let most = Self::MOST as u64 * MILLION;
        Self(if millionths > most { most } else { millionths })
    }
}

#[cfg(test)]
mod tests;
