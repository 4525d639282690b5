//! Prices: the `price` of a model entry, and the `prices` for models without one.
//!
//! The document gives USD per million tokens, as the vendors' price lists do. With six decimals that is a whole number of pico-USD
//! per token.

use std::rc::Rc;

use super::names::Names;
use super::raw::{Json, Node, Object};
use crate::base::clock::{parse_date, parse_time_of_day, Timestamp};
use crate::bytes::ascii;
use crate::routing::provider::Provider;
use crate::spend::cost::{Days, Factor, Money, Price, PriceList, Rates, Tier, TokenRates, Window};
use crate::spend::usage::Calls;

/// One USD per token. That is above every price, and small enough that a million tokens cause no overflow.
const MOST_PER_MILLION: u32 = 1_000_000;
/// In USD. That is far above every fee for a single request, and small enough that its pico-USD are exact in binary.
const MOST_PER_REQUEST: u32 = 100;
/// The days with their numbers in [`Days`].
const WEEKDAYS: [(&str, u64); 7] =
    [("mon", 0), ("tue", 1), ("wed", 2), ("thu", 3), ("fri", 4), ("sat", 5), ("sun", 6)];
/// The key of the list that is for all providers.
const ALL: &str = "*";

/// Reads `prices` and gives each provider its own list and, after that, the list for all providers.
pub(super) fn price_lists(node: Option<&Node<'_>>, names: &Names<'_>, providers: &mut [Provider]) {
    let Some(node) = node else { return };
    let keys: Vec<&str> = names.all.iter().copied().chain([ALL]).collect();
    let fields = node.object(&keys);
    for key in keys {
        let Some(node) = fields.optional(key) else { continue };
        let list = Rc::new(price_list(node));
        // The list for all comes last.
        for provider in providers.iter_mut().filter(|provider| key == ALL || provider.name == key) {
            provider.prices.push(Rc::clone(&list));
        }
    }
}

fn price_list(node: &Node<'_>) -> PriceList {
    let entries = node.entries("an object of prices, by the provider's name for the model");
    for (_, node) in entries.iter().filter(|(model, _)| *model == ALL) {
        node.report(
            "expected a model's name (a price for all models of a provider stands in its model entry \"*\")",
        );
    }
    let mut list = PriceList::default();
    for (model, node) in &entries {
        list.insert(model, price(node));
    }
    list
}

/// One price, or a list of prices that begin on different dates.
pub(super) fn price(node: &Node<'_>) -> Rc<Price> {
    let nodes = match node.json {
        Json::List(_) => node.list("a list of prices"),
        _ => vec![node.clone()],
    };
    if nodes.is_empty() {
        node.report("expected at least one price, found none");
    }
    let mut all: Vec<Rates> = Vec::new();
    for node in &nodes {
        let Some(rates) = rates(node) else { continue };
        if all.iter().any(|other| other.from == rates.from) {
            node.report("another price begins on the same date");
        }
        all.push(rates);
    }
    Rc::new(Price::new(all))
}

/// The price that the document gives for each kind of token in [`KINDS`].
type Given = [Option<Money>; 8];

const KINDS: [&str; 8] = [
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "output",
    "reasoning",
    "audio_output",
];

/// Reads the prices from one date on. `None` if the date is unknown. Every problem is in the sink.
fn rates(node: &Node<'_>) -> Option<Rates> {
    const KEYS: [&str; 6] = ["request", "calls", "service_tiers", "above", "windows", "from"];
    let fields = node.object(&[&KINDS[..], &KEYS].concat());
    for key in ["input", "output"] {
        fields.required(key, "USD per million tokens");
    }
    let given = given(&fields);
    let begin = fields.optional("from").map_or(Some(0), |node| {
        parsed(node, "a date such as \"2026-10-01\"", &|text| parse_date(text).map(Timestamp::as_millis))
    });
    let request = fields.optional("request").and_then(per_request);
    let mut rates = Rates {
        from: Timestamp::ZERO,
        tokens: token_rates(given),
        request: request.unwrap_or_default(),
        tiers: Vec::new(),
        windows: Vec::new(),
        calls: fields.optional("calls").map(calls).unwrap_or_default(),
        service_tiers: fields.optional("service_tiers").map(service_tiers).unwrap_or_default(),
    };
    if let Some(node) = fields.optional("above") {
        tiers(node, given, &mut rates.tiers);
    }
    if let Some(node) = fields.optional("windows") {
        windows(node, &mut rates.windows);
    }
    rates.from = Timestamp::from_millis(begin?);
    matches!(node.json, Json::Object(_)).then_some(rates)
}

fn given(fields: &Object<'_>) -> Given {
    KINDS.map(|key| fields.optional(key).and_then(per_million))
}

/// Reads USD per million tokens as the price of one token.
#[inline(never)]
pub(super) fn per_million(node: &Node<'_>) -> Option<Money> {
    decimal(node, MOST_PER_MILLION, 6).map(Money::from_pico)
}

/// Reads USD for one request.
#[inline(never)]
pub(super) fn per_request(node: &Node<'_>) -> Option<Money> {
    decimal(node, MOST_PER_REQUEST, 12).map(Money::from_pico)
}

/// A kind of token without a price costs as much as the kind that it is part of. Vendors charge several times as much for what a cache
/// keeps for an hour and for audio, so these have no price then.
fn token_rates(given: Given) -> TokenRates {
    let [input, cached_input, cache_write, cache_write_1h, audio_input, output, reasoning, audio_output] =
        given;
    let (input, output) = (input.unwrap_or_default(), output.unwrap_or_default());
    TokenRates {
        input,
        cached_input: cached_input.unwrap_or(input),
        cache_write: cache_write.unwrap_or(input),
        cache_write_1h,
        audio_input,
        output,
        reasoning: reasoning.unwrap_or(output),
        audio_output,
    }
}

/// The fee for each call of a tool, in the order of [`Calls::NAMES`].
fn calls(node: &Node<'_>) -> [Option<Money>; 4] {
    let fields = node.object(&Calls::NAMES);
    Calls::NAMES.map(|name| fields.optional(name).and_then(per_request))
}

/// Factors by the names of service tiers.
fn service_tiers(node: &Node<'_>) -> Vec<(String, Factor)> {
    let mut tiers: Vec<(String, Factor)> = Vec::new();
    for (name, node) in &node.entries("an object of factors, by the provider's name for the service tier") {
        if tiers.iter().any(|(other, _)| ascii::is_same(name, other)) {
            node.report("another factor is for the same service tier");
        }
        tiers.extend(factor(node).map(|factor| ((*name).to_owned(), factor)));
    }
    tiers
}

fn factor(node: &Node<'_>) -> Option<Factor> {
    decimal(node, Factor::MOST, 6).map(Factor::from_millionths)
}

/// A kind of token that a tier does not list costs as much as in the price that the tier belongs to.
fn tiers(node: &Node<'_>, base: Given, tiers: &mut Vec<Tier>) {
    for node in &node.list("a list of tiers") {
        let fields = node.object(&[&["tokens"], &KINDS[..]].concat());
        let mut rates = given(&fields);
        for (own, base) in rates.iter_mut().zip(base) {
            *own = own.or(base);
        }
        let tokens = fields.required("tokens", "a number of input tokens");
        let Some(above) = tokens.and_then(|node| node.whole(1, 100_000_000)) else { continue };
        if tiers.iter().any(|other| other.above == above) {
            node.report("another tier begins there");
        }
        tiers.push(Tier { above, tokens: token_rates(rates) });
    }
}

fn windows(node: &Node<'_>, windows: &mut Vec<Window>) {
    for node in &node.list("a list of windows") {
        windows.extend(window(node));
    }
}

fn window(node: &Node<'_>) -> Option<Window> {
    const TIME: &str = "a time of the day in UTC, in quotes, such as \"09:30\"";
    let fields = node.object(&["days", "from", "to", "multiply"]);
    let time = |key: &str, most: u64| {
        let node = fields.required(key, TIME)?;
        parsed(node, TIME, &|text| parse_time_of_day(text).filter(|minute| *minute <= most))
    };
    let (from, to) = (time("from", 24 * 60 - 1), time("to", 24 * 60));
    let factor = fields.required("multiply", "a factor").and_then(factor);
    let days = fields.optional("days").map_or(Days::ALL, days);
    Some(Window { days, from: from?, to: to?, factor: factor? })
}

fn days(node: &Node<'_>) -> Days {
    let nodes = node.list("a list of days");
    if nodes.is_empty() && node.is_list() {
        node.report("expected at least one day, found none");
    }
    let mut days = Days::default();
    for node in &nodes {
        days = node.word(&WEEKDAYS).map_or(days, |weekday| days.with(weekday));
    }
    days
}

fn parsed(node: &Node<'_>, what: &str, parse: &dyn Fn(&str) -> Option<u64>) -> Option<u64> {
    let value = parse(node.text(what)?);
    if value.is_none() {
        node.expected(what);
    }
    value
}

/// Reads a number with at most `decimals` decimals, in units of the last one. The JSON parser has made a binary fraction of it, so
/// the nearest whole number is what the document says.
#[inline(never)]
fn decimal(node: &Node<'_>, most: u32, decimals: u32) -> Option<u64> {
    let number = node.number(0.0, most.into())?;
    let scaled = number * 10_u64.pow(decimals) as f64;
    let nearest = (scaled + 0.5) as u64;
    // 0.05 is more than the error of a binary fraction at the largest number, and less than what one more decimal adds.
    let is_near = (nearest as f64 - scaled).abs() < 0.05 && (nearest > 0 || number == 0.0);
    if !is_near {
        node.expected(&format!("a number with at most {decimals} decimals"));
        return None;
    }
    Some(nearest)
}
