//! What tokens cost at a provider, in whole pico-dollars.
//!
//! A [`Price`] is the price list of one model: rates that are valid from a date, other rates above a number of input tokens,
//! fees for calls of the provider's own tools, and factors for service tiers and for times of the week. The moment at which the request
//! began decides: a vendor charges a request at one rate, and both sides know the start. The result is what the price list says; what a
//! provider really charged is on its bill. What the list has no price for is named beside the result.

mod parts;

use std::fmt;
use std::rc::Rc;

use crate::base::clock::{weekday, Timestamp};
use crate::bytes::ascii;
use crate::spend::usage::{Calls, Usage};
pub use parts::{Part, Parts};

/// An amount of money in pico-dollars (1e-12 USD), so that a price per million tokens with six decimals is a whole number per
/// token. The largest amount is 18 million dollars, and sums stop there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount of this many pico-dollars.
    pub const fn from_pico(pico: u64) -> Self {
        Self(pico)
    }

    /// The amount in pico-dollars.
    pub const fn as_pico(self) -> u64 {
        self.0
    }

    /// The sum; stops at the largest amount.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Appends the exact amount in dollars to a text, without zeros at the end: `0.00015`, `12.5`, `0`.
    pub fn push_to(self, out: &mut String) {
        let (dollars, pico) = (self.0 / PICO, self.0 % PICO);
        let mut buffer = itoa::Buffer::new();
        out.push_str(buffer.format(dollars));
        if pico == 0 {
            return;
        }
        out.push('.');
        // A one is put before the twelve decimals, so that the zeros at their beginning are written, and then left out.
        out.push_str(buffer.format(PICO + pico).get(1..).unwrap_or_default());
        out.truncate(out.trim_end_matches('0').len());
    }

    /// The product with a count; stops at the largest amount.
    const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The product with a factor, rounded to the nearest pico-dollar; stops at the largest amount.
    const fn by(self, Factor(millionths): Factor) -> Self {
        let (whole, part) = (self.0 / MILLION, self.0 % MILLION);
        // `part` is below a million and the factor at most a thousand million, so this cannot overflow.
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

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What the price list says. Tokens of a part without a price cost as much as those of the whole that they are part of, and
    /// calls without a price cost nothing.
    pub known: Money,
    /// What has no price.
    pub unpriced: Parts,
}

/// The price of one model at one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price(Vec<Rates>);

impl Price {
    /// A price of rates in any order. Of two rates that begin at the same moment, the later one in the list counts.
    pub const fn new(rates: Vec<Rates>) -> Self {
        Self(rates)
    }

    /// The cost of an answer with this usage, of this service tier, to a request that began at `at`; `None` if no rates were valid
    /// yet.
    pub fn cost(&self, usage: &Usage, tier: Option<&str>, at: Timestamp) -> Option<Cost> {
        let (rates, tokens, window) = self.rates(usage.input, at)?;
        let mut unpriced = Parts::default();
        let of_tier = tier.map_or(Some(Factor::ONE), |tier| rates.factor_of(tier));
        unpriced.add_if(of_tier.is_none(), Part::ServiceTier);
        let tokens = tokens.cost(usage, &mut unpriced).by(of_tier.unwrap_or(Factor::ONE));
        let calls = rates.calls_cost(usage.details.calls, &mut unpriced);
        Some(Cost { known: tokens.plus(calls).plus(rates.request).by(window), unpriced })
    }

    /// Whether it is known at all times what tokens cost in this service tier.
    pub fn has_tier(&self, tier: &str) -> bool {
        self.0.iter().all(|rates| rates.factor_of(tier).is_some())
    }

    /// The prices of one token of input and of one token of output, in a request that began at `at` with `input` tokens; rounded to
    /// whole pico-dollars.
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

    /// The cost of a request with these numbers of tokens, if nothing is cached.
    pub fn expected(&self, input: u64, output: u64, at: Timestamp) -> Option<Money> {
        Some(self.cost(&Usage { input, output, ..Usage::default() }, None, at)?.known)
    }
}

/// The prices of several models, by the models' names at the provider. It is sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList(Vec<(String, Rc<Price>)>);

impl PriceList {
    /// Sets the price of a model.
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

/// The rates that are valid from one moment until the next rates begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// When they begin.
    pub from: Timestamp,
    /// The prices of tokens.
    pub tokens: TokenRates,
    /// The price of a request, in addition to its tokens.
    pub request: Money,
    /// Other prices of tokens for long requests. Of the tiers whose bound a request exceeds, the one with the highest bound counts.
    pub tiers: Vec<Tier>,
    /// Factors for times of the week. The first one that holds when the request begins counts, for the whole request.
    pub windows: Vec<Window>,
    /// The fee for each call of a tool that the provider runs, in the order of [`Calls::NAMES`], where it is known.
    pub calls: [Option<Money>; 4],
    /// Factors for the prices of tokens, by service tier.
    pub service_tiers: Vec<(String, Factor)>,
}

/// The vendors' names for the service tier that the listed prices are for. `auto` is not a tier, but some tell it until one is chosen.
const USUAL_TIERS: [&str; 4] = ["default", "standard", "auto", "on_demand"];

impl Rates {
    /// What the prices of tokens are multiplied by in a service tier; `None` if that is not known.
    fn factor_of(&self, tier: &str) -> Option<Factor> {
        let is_same = |name: &str| ascii::is_same(tier, name);
        let listed = self.service_tiers.iter().find(|(name, _)| is_same(name));
        let is_usual = || tier.is_empty() || USUAL_TIERS.into_iter().any(is_same);
        listed.map(|(_, factor)| *factor).or_else(|| is_usual().then_some(Factor::ONE))
    }

    /// The fees for calls. Those without one are added to the parts.
    fn calls_cost(&self, calls: Calls, unpriced: &mut Parts) -> Money {
        let mut sum = Money::ZERO;
        for ((count, fee), part) in calls.counts().into_iter().zip(self.calls).zip(Part::CALLS) {
            unpriced.add_if(count > 0 && fee.is_none(), part);
            sum = sum.plus(fee.unwrap_or_default().times(count.into()));
        }
        sum
    }
}

/// The price of one token of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenRates {
    /// Input that is neither read from a cache nor written into it.
    pub input: Money,
    /// Input read from the provider's cache.
    pub cached_input: Money,
    /// Input written into the provider's cache.
    pub cache_write: Money,
    /// Input written into the provider's cache for an hour, if that has a price of its own.
    pub cache_write_1h: Option<Money>,
    /// Input that is audio, if that has a price of its own.
    pub audio_input: Option<Money>,
    /// Output without reasoning.
    pub output: Money,
    /// Reasoning.
    pub reasoning: Money,
    /// Output that is audio, if that has a price of its own.
    pub audio_output: Option<Money>,
}

impl TokenRates {
    /// The cost of tokens. A vendor's numbers need not add up, so a part counts at most as much as is left of its whole. Parts without a
    /// price, and parts that were cut, are added to `unpriced`.
    fn cost(&self, usage: &Usage, unpriced: &mut Parts) -> Money {
        let told = usage.details;
        let cached = usage.cached.min(usage.input);
        let written = usage.cache_write.min(usage.input - cached);
        let fresh = usage.input - cached - written;
        let reasoning = usage.reasoning.min(usage.output);
        let said = usage.output - reasoning;
        let mut sum = Money::ZERO;
        // What is told apart, with the tokens and the price of the whole that it is part of.
        for (part, count, own, all, rate) in [
            (Part::CacheWrite1h, told.cache_write_1h, self.cache_write_1h, written, self.cache_write),
            (Part::AudioInput, told.audio_input, self.audio_input, fresh, self.input),
            (Part::AudioOutput, told.audio_output, self.audio_output, said, self.output),
        ] {
            let apart = count.min(all);
            unpriced.add_if(count > 0 && (own.is_none() || apart < count), part);
            sum = sum.plus(own.unwrap_or(rate).times(apart)).plus(rate.times(all - apart));
        }
        sum.plus(self.cached_input.times(cached)).plus(self.reasoning.times(reasoning))
    }
}

/// Prices of all tokens of a request whose input is longer than a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The bound in input tokens. A request with exactly this many does not exceed it.
    pub above: u64,
    /// The prices that count instead.
    pub tokens: TokenRates,
}

/// A time of the week, in UTC, at which all prices are multiplied by a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which the window begins.
    pub days: Days,
    /// The minute of the day at which it begins.
    pub from: u64,
    /// The minute of the day at which it ends. If that is not after `from`, it is a minute of the next day.
    pub to: u64,
    /// What the cost is multiplied by.
    pub factor: Factor,
}

impl Window {
    fn holds(&self, at: Timestamp) -> bool {
        let (day, minute) = (at.day(), at.minute_of_day());
        let crosses = self.to <= self.from;
        let today = minute >= self.from && (crosses || minute < self.to) && self.days.has(weekday(day));
        // Six days later is the same day of the week as yesterday, also on the first day of the epoch.
        let from_yesterday = crosses && minute < self.to && self.days.has(weekday(day + 6));
        today || from_yesterday
    }
}

/// A set of days of the week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// All seven days.
    pub const ALL: Self = Self(0b111_1111);

    /// The set with one more day; 0 is Monday.
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
    /// The factor that changes nothing.
    const ONE: Self = Self(MILLION);
    /// The largest factor.
    pub const MOST: u32 = 1000;

    /// A factor of this many millionths, at most the largest factor.
    pub const fn from_millionths(millionths: u64) -> Self {
        let most = Self::MOST as u64 * MILLION;
        Self(if millionths > most { most } else { millionths })
    }
}

#[cfg(test)]
mod tests;
