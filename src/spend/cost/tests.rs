use super::*;
use crate::base::clock::parse_date;

/// A price in micro-dollars per million tokens, which are as many pico-dollars per token.
fn rate(micro_usd_per_million: u64) -> Money {
    Money::from_pico(micro_usd_per_million)
}

/// Five rates, none of which is the sum of two others, so that a wrong rate is noticed.
const TOKENS: TokenRates = TokenRates {
    input: Money(1_000),
    cached_input: Money(10),
    cache_write: Money(1_250_000),
    output: Money(30_000_000),
    reasoning: Money(700_000_000),
    cache_write_1h: None,
    audio_input: None,
    audio_output: None,
};

fn flat(tokens: TokenRates) -> Price {
    Price::new(vec![Rates { tokens, ..Rates::default() }])
}

/// The moment at this hour and minute of a date such as `2026-11-21`.
fn at(date: &str, hour: u64, minute: u64) -> Timestamp {
    Timestamp::from_millis(parse_date(date).unwrap().as_millis() + (hour * 60 + minute) * 60_000)
}

fn pico(price: &Price, usage: Usage, at: Timestamp) -> Option<u64> {
    price.cost(&usage, None, at).map(|cost| cost.known.as_pico())
}

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

#[test]
fn money_is_written_in_dollars_to_the_last_digit() {
    for (pico, text) in [
        (0, "0"),
        (1, "0.000000000001"),
        (150_000_000, "0.00015"),
        (12_500_000_000_000, "12.5"),
        (1_000_000_000_000, "1"),
        (10_000_000_000_010, "10.00000000001"),
        (u64::MAX, "18446744.073709551615"),
    ] {
        assert_eq!(Money::from_pico(pico).to_string(), text);
    }
}

#[test]
fn money_stops_at_the_largest_amount() {
    let (one, most) = (Money::from_pico(1), Money::from_pico(u64::MAX));
    assert_eq!(most.plus(one), most);
    assert_eq!(Money::from_pico(u64::MAX - 1).plus(one), most);
}

#[test]
fn every_kind_of_token_has_its_own_rate() {
    let usage =
        Usage { input: 100, cached: 20, cache_write: 30, output: 9, reasoning: 4, ..Usage::default() };
    // Calculated by hand: 50 x 1,000 + 20 x 10 + 30 x 1,250,000 + 5 x 30,000,000 + 4 x 700,000,000.
    assert_eq!(
        pico(&flat(TOKENS), usage, NOW),
        Some(50_000 + 200 + 37_500_000 + 150_000_000 + 2_800_000_000)
    );
}

#[test]
fn a_real_answer_costs_what_the_vendor_would_say() {
    // gpt-5.4-mini: 0.75 in, 0.075 cached, 4.50 out. 1,000 in of which 600 cached, 200 out.
    let tokens = TokenRates {
        input: rate(750_000),
        cached_input: rate(75_000),
        cache_write: rate(750_000),
        output: rate(4_500_000),
        reasoning: rate(4_500_000),
        ..TokenRates::default()
    };
    let usage =
        Usage { input: 1000, cached: 600, cache_write: 0, output: 200, reasoning: 150, ..Usage::default() };
    // 400 x 0.75e-6 + 600 x 0.075e-6 + 200 x 4.5e-6 = 0.0003 + 0.000045 + 0.0009.
    assert_eq!(flat(tokens).cost(&usage, None, NOW).unwrap().known.to_string(), "0.001245");
}

#[test]
fn parts_that_exceed_their_whole_are_cut_to_it() {
    let all_cached =
        Usage { input: 10, cached: 999, cache_write: 999, output: 2, reasoning: 999, ..Usage::default() };
    assert_eq!(pico(&flat(TOKENS), all_cached, NOW), Some(10 * 10 + 2 * 700_000_000));
    let overlapping =
        Usage { input: 10, cached: 8, cache_write: 8, output: 0, reasoning: 1, ..Usage::default() };
    assert_eq!(pico(&flat(TOKENS), overlapping, NOW), Some(8 * 10 + 2 * 1_250_000));
}

#[test]
fn absurd_numbers_stop_at_the_largest_amount() {
    let usage = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
    assert_eq!(pico(&flat(TOKENS), usage, NOW), Some(u64::MAX));
    let mut price = flat(TOKENS);
    price.0[0].windows = vec![all_week(Factor::from_millionths(u64::MAX))];
    assert_eq!(pico(&price, usage, NOW), Some(u64::MAX));
}

#[test]
fn what_is_expected_is_priced_with_nothing_cached() {
    assert_eq!(flat(TOKENS).expected(3, 2, NOW), Some(Money::from_pico(3 * 1_000 + 2 * 30_000_000)));
}

#[test]
fn a_fee_per_request_comes_on_top() {
    let price = Price::new(vec![Rates { request: Money::from_pico(5_000_000_000), ..Rates::default() }]);
    assert_eq!(price.expected(0, 0, NOW).unwrap().to_string(), "0.005");
}

#[test]
fn the_latest_rates_that_have_begun_count_and_before_the_first_there_is_no_price() {
    let from = |date: &str, input: u64| Rates {
        from: parse_date(date).unwrap(),
        tokens: TokenRates { input: Money::from_pico(input), ..TokenRates::default() },
        ..Rates::default()
    };
    // The list is not sorted.
    let price = Price::new(vec![from("2026-10-01", 2), from("2027-01-01", 3), from("2026-01-01", 1)]);
    let cost = |at: Timestamp| price.expected(1, 0, at).map(Money::as_pico);
    assert_eq!(cost(at("2025-12-31", 23, 59)), None);
    assert_eq!(cost(at("2026-01-01", 0, 0)), Some(1));
    assert_eq!(cost(at("2026-09-30", 23, 59)), Some(1));
    assert_eq!(cost(at("2026-10-01", 0, 0)), Some(2));
    assert_eq!(cost(at("2031-01-01", 0, 0)), Some(3));
    assert_eq!(Price::default().expected(1, 0, NOW), None);
}

#[test]
fn above_a_bound_the_whole_request_costs_the_other_rates() {
    let tier = |above, input, output| Tier {
        above,
        tokens: TokenRates {
            input: Money::from_pico(input),
            output: Money::from_pico(output),
            ..TokenRates::default()
        },
    };
    let tokens = tier(0, 2, 10).tokens;
    // The list is not sorted.
    let tiers = vec![tier(500_000, 8, 30), tier(272_000, 4, 15)];
    let price = Price::new(vec![Rates { tokens, tiers, ..Rates::default() }]);
    let cost = |input| price.expected(input, 100, NOW).unwrap().as_pico();
    assert_eq!(cost(272_000), 272_000 * 2 + 1000);
    assert_eq!(cost(272_001), 272_001 * 4 + 1500);
    assert_eq!(cost(500_000), 500_000 * 4 + 1500);
    assert_eq!(cost(500_001), 500_001 * 8 + 3000);
}

fn days(weekdays: &[u64]) -> Days {
    weekdays.iter().fold(Days::default(), |days, day| days.with(*day))
}

fn all_week(factor: Factor) -> Window {
    Window { days: Days::ALL, from: 0, to: 24 * 60, factor }
}

/// The moments that are in the window; at these the price is doubled.
fn doubled(window: Window, moments: &[(&str, u64, u64)]) -> Vec<bool> {
    let window = Window { factor: Factor::from_millionths(2_000_000), ..window };
    let price =
        Price::new(vec![Rates { request: Money::from_pico(7), windows: vec![window], ..Rates::default() }]);
    let is_double = |(date, hour, minute): &(&str, u64, u64)| match price
        .expected(0, 0, at(date, *hour, *minute))
        .unwrap()
        .as_pico()
    {
        7 => false,
        14 => true,
        other => panic!("neither once nor twice: {other}"),
    };
    moments.iter().map(is_double).collect()
}

#[test]
fn a_window_holds_from_its_first_minute_to_its_last_on_its_days() {
    // DeepSeek's first peak. 2026-11-20 is a Friday, 23 a Monday.
    let peak = Window { days: days(&[0, 1, 2, 3, 4]), from: 60, to: 240, factor: Factor::ONE };
    let moments = [
        ("2026-11-20", 0, 59),
        ("2026-11-20", 1, 0),
        ("2026-11-20", 3, 59),
        ("2026-11-20", 4, 0),
        ("2026-11-21", 2, 0),
        ("2026-11-22", 2, 0),
        ("2026-11-23", 2, 0),
    ];
    assert_eq!(doubled(peak, &moments), [false, true, true, false, false, false, true]);
}

#[test]
fn a_window_across_midnight_belongs_to_the_day_on_which_it_begins() {
    // The window is from Sunday 22:00 to Monday 06:00.
    let night = Window { days: days(&[6]), from: 22 * 60, to: 6 * 60, factor: Factor::ONE };
    let moments = [
        ("2026-11-21", 23, 0),
        ("2026-11-22", 5, 0),
        ("2026-11-22", 21, 59),
        ("2026-11-22", 22, 0),
        ("2026-11-23", 0, 0),
        ("2026-11-23", 5, 59),
        ("2026-11-23", 6, 0),
        ("2026-11-23", 22, 0),
        ("2026-11-24", 5, 0),
    ];
    assert_eq!(doubled(night, &moments), [false, false, false, true, true, true, false, false, false]);
}

#[test]
fn a_window_that_ends_when_it_begins_lasts_a_day() {
    let saturday = Window { days: days(&[5]), from: 540, to: 540, factor: Factor::ONE };
    let moments = [("2026-11-21", 8, 59), ("2026-11-21", 9, 0), ("2026-11-22", 8, 59), ("2026-11-22", 9, 0)];
    assert_eq!(doubled(saturday, &moments), [false, true, true, false]);
    let midnights = Window { from: 0, to: 24 * 60, ..saturday };
    let moments =
        [("2026-11-20", 23, 59), ("2026-11-21", 0, 0), ("2026-11-21", 23, 59), ("2026-11-22", 0, 0)];
    assert_eq!(doubled(midnights, &moments), [false, true, true, false]);
    // The same window, which ends at 00:00 of the next day instead of 24:00.
    assert_eq!(doubled(Window { to: 0, ..midnights }, &moments), [false, true, true, false]);
}

#[test]
fn the_first_window_that_holds_counts_for_tokens_tiers_and_fee() {
    let tokens = TokenRates { input: Money::from_pico(3), ..TokenRates::default() };
    let tier = Tier { above: 10, tokens: TokenRates { input: Money::from_pico(5), ..TokenRates::default() } };
    let half = all_week(Factor::from_millionths(500_000));
    let windows = vec![half, all_week(Factor::from_millionths(9_000_000))];
    let request = Money::from_pico(100);
    let price = Price::new(vec![Rates { tokens, request, tiers: vec![tier], windows, ..Rates::default() }]);
    assert_eq!(price.expected(10, 0, NOW), Some(Money::from_pico(65)));
    assert_eq!(price.expected(20, 0, NOW), Some(Money::from_pico(100)));
}

#[test]
fn a_factor_is_exact_but_for_the_last_pico_dollar_which_is_rounded() {
    let third = Factor::from_millionths(333_333);
    for (pico, expected) in
        [(1, 0), (2, 1), (3, 1), (1_000_000, 333_333), (3_000_001, 999_999), (3_000_002, 1_000_000)]
    {
        assert_eq!(Money::from_pico(pico).by(third).as_pico(), expected, "{pico}");
    }
    // The product of both numbers would not fit into 64 bits.
    let large = Money::from_pico(9_000_000_000_000_000_001);
    assert_eq!(large.by(Factor::from_millionths(2_000_000)).as_pico(), 18_000_000_000_000_000_002);
    assert_eq!(large.by(Factor::from_millionths(3_000_000)).as_pico(), u64::MAX);
    assert_eq!(large.by(Factor::from_millionths(0)), Money::ZERO);
}

// What only some price lists tell apart.

use crate::spend::usage::Details;

/// The names of the parts without a price.
fn missing(cost: Cost) -> Vec<&'static str> {
    cost.unpriced.iter().map(Part::name).collect()
}

const APART: TokenRates = TokenRates {
    cache_write_1h: Some(Money(2_000_000)),
    audio_input: Some(Money(40)),
    audio_output: Some(Money(9)),
    ..TOKENS
};

fn everything_told() -> Usage {
    let calls = Calls { web_search: 3, file_search: 2, code_interpreter: 1, image_generation: 4 };
    let details = Details { cache_write_1h: 5, audio_input: 7, audio_output: 6, calls };
    Usage { input: 100, cached: 20, cache_write: 30, output: 19, reasoning: 4, details }
}

#[test]
fn what_is_told_apart_costs_its_own_price() {
    let price = Price::new(vec![Rates {
        tokens: APART,
        calls: [1, 20, 300, 4000].map(|fee| Some(Money(fee))),
        request: Money(50_000),
        ..Rates::default()
    }]);
    let cost = price.cost(&everything_told(), None, NOW).unwrap();
    let input = 43 * 1_000 + 7 * 40 + 20 * 10 + 25 * 1_250_000 + 5 * 2_000_000;
    let output = 9 * 30_000_000 + 6 * 9 + 4 * 700_000_000;
    let fees = 3 + 2 * 20 + 300 + 4 * 4000 + 50_000;
    assert_eq!((cost.known.as_pico(), missing(cost)), (input + output + fees, Vec::new()));
}

#[test]
fn what_is_told_apart_and_has_no_price_is_named_and_counts_as_its_whole() {
    let cost = flat(TOKENS).cost(&everything_told(), None, NOW).unwrap();
    let parts = [
        "cache_write_1h",
        "audio_input",
        "audio_output",
        "web_search",
        "file_search",
        "code_interpreter",
        "image_generation",
    ];
    assert_eq!(missing(cost), parts);
    let whole = Usage { details: Details::default(), ..everything_told() };
    let usual = flat(TOKENS).cost(&whole, None, NOW).unwrap();
    assert_eq!((cost.known, missing(usual)), (usual.known, Vec::new()));
}

#[test]
fn a_price_of_zero_is_a_price() {
    let zero = Some(Money::ZERO);
    let tokens = TokenRates { cache_write_1h: zero, audio_input: zero, audio_output: zero, ..TOKENS };
    let price = Price::new(vec![Rates { tokens, calls: [zero; 4], ..Rates::default() }]);
    assert_eq!(missing(price.cost(&everything_told(), None, NOW).unwrap()), Vec::<&str>::new());
}

#[test]
fn a_part_that_its_whole_cannot_contain_is_cut_and_named() {
    let price = flat(APART);
    let of = |usage: Usage| price.cost(&usage, None, NOW).unwrap();
    // The cached part of the audio has no price of its own.
    let details = Details { audio_input: 8, ..Details::default() };
    let overlapping = of(Usage { input: 10, cached: 6, details, ..Usage::default() });
    assert_eq!((overlapping.known.as_pico(), missing(overlapping)), (6 * 10 + 4 * 40, vec!["audio_input"]));
    let details = Details { audio_output: u64::MAX, cache_write_1h: 9, ..Details::default() };
    let absurd = of(Usage { output: 2, details, ..Usage::default() });
    assert_eq!((absurd.known.as_pico(), missing(absurd)), (18, vec!["cache_write_1h", "audio_output"]));
}

#[test]
fn a_service_tier_changes_the_price_of_tokens_and_not_the_fees() {
    let price = Price::new(vec![Rates {
        tokens: TokenRates { input: Money(10), ..TokenRates::default() },
        request: Money(100),
        calls: [Some(Money(1000)), None, None, None],
        tiers: vec![Tier { above: 50, tokens: TokenRates { input: Money(20), ..TokenRates::default() } }],
        windows: vec![all_week(Factor::from_millionths(3_000_000))],
        service_tiers: vec![
            ("flex".to_owned(), Factor::from_millionths(500_000)),
            ("default".to_owned(), Factor::from_millionths(1_100_000)),
        ],
        ..Rates::default()
    }]);
    let details = Details { calls: Calls { web_search: 2, ..Calls::default() }, ..Details::default() };
    let of = |tier, input| price.cost(&Usage { input, details, ..Usage::default() }, tier, NOW).unwrap();
    let fees = 2100;
    for (tier, input, tokens, named) in [
        (None, 4, 40, vec![]),
        (Some("flex"), 4, 20, vec![]),
        (Some("FLEX"), 4, 20, vec![]),
        (Some("flex"), 51, 510, vec![]),
        (Some("default"), 10, 110, vec![]),
        (Some("standard"), 4, 40, vec![]),
        (Some("auto"), 4, 40, vec![]),
        (Some("on_demand"), 4, 40, vec![]),
        (Some(""), 4, 40, vec![]),
        (Some("priority"), 4, 40, vec!["service_tier"]),
        (Some("flexible"), 4, 40, vec!["service_tier"]),
    ] {
        let cost = of(tier, input);
        assert_eq!((cost.known.as_pico(), missing(cost)), ((tokens + fees) * 3, named), "{tier:?} {input}");
    }
}

/// The cost by numbers that cannot overflow, written down from the documentation: the amount, and the names of what has no price.
fn by_hand(rates: &Rates, usage: &Usage, tier: Option<&str>) -> (u128, Vec<&'static str>) {
    let wide = |money: Money| u128::from(money.as_pico());
    let rounded = |amount: u128, factor: u128| (amount * factor + 500_000) / 1_000_000;
    let tokens = rates.tiers.iter().filter(|tier| usage.input > tier.above).max_by_key(|tier| tier.above);
    let tokens = tokens.map_or(rates.tokens, |tier| tier.tokens);
    let (mut sum, mut names) = (0, Vec::new());
    let mut left = [usage.input, usage.output];
    let mut take = |whole: usize, count: u64, rate: Money| {
        let taken = count.min(left[whole]);
        left[whole] -= taken;
        sum += u128::from(taken) * wide(rate);
        taken
    };
    take(0, usage.cached, tokens.cached_input);
    let told = usage.details;
    let hour = told.cache_write_1h.min(usage.cache_write);
    let kept = take(0, hour, tokens.cache_write_1h.unwrap_or(tokens.cache_write));
    take(0, usage.cache_write - hour, tokens.cache_write);
    take(1, usage.reasoning, tokens.reasoning);
    let heard = take(0, told.audio_input, tokens.audio_input.unwrap_or(tokens.input));
    let spoken = take(1, told.audio_output, tokens.audio_output.unwrap_or(tokens.output));
    take(0, u64::MAX, tokens.input);
    take(1, u64::MAX, tokens.output);
    for (name, told, counted, price) in [
        ("cache_write_1h", told.cache_write_1h, kept, tokens.cache_write_1h),
        ("audio_input", told.audio_input, heard, tokens.audio_input),
        ("audio_output", told.audio_output, spoken, tokens.audio_output),
    ] {
        if told > counted || (told > 0 && price.is_none()) {
            names.push(name);
        }
    }
    let mut fees = wide(rates.request);
    let calls = told.calls;
    for (place, (name, count)) in [
        ("web_search", calls.web_search),
        ("file_search", calls.file_search),
        ("code_interpreter", calls.code_interpreter),
        ("image_generation", calls.image_generation),
    ]
    .into_iter()
    .enumerate()
    {
        match rates.calls[place] {
            Some(fee) => fees += u128::from(count) * wide(fee),
            None if count > 0 => names.push(name),
            None => {}
        }
    }
    let factor = match tier.map(|tier| rates.service_tiers.iter().find(|(name, _)| name == tier)) {
        Some(Some((_, Factor(millionths)))) => u128::from(*millionths),
        Some(None) if tier == Some("priority") => {
            names.push("service_tier");
            1_000_000
        }
        _ => 1_000_000,
    };
    let window = rates.windows.first().map_or(1_000_000, |window| u128::from(window.factor.0));
    (rounded(rounded(sum, factor) + fees, window), names)
}

/// A number up to one of these bounds.
fn number(random: &mut fastrand::Rng, bounds: &[u64]) -> u64 {
    let place = random.usize(0..bounds.len());
    random.u64(0..=bounds[place])
}

fn some_rates(random: &mut fastrand::Rng) -> Rates {
    let money = |random: &mut fastrand::Rng| Money(number(random, &[0, 9, 1_000, 30_000_000]));
    let maybe = |random: &mut fastrand::Rng| random.bool().then(|| money(random));
    let factor =
        |random: &mut fastrand::Rng| Factor::from_millionths(number(random, &[1_000_000, 5_000_000]));
    let [tokens, above] = [(); 2].map(|()| TokenRates {
        input: money(random),
        cached_input: money(random),
        cache_write: money(random),
        cache_write_1h: maybe(random),
        audio_input: maybe(random),
        output: money(random),
        reasoning: money(random),
        audio_output: maybe(random),
    });
    Rates {
        from: Timestamp::ZERO,
        tokens,
        request: money(random),
        calls: [(); 4].map(|()| maybe(random)),
        tiers: vec![Tier { above: number(random, &[3, 200, 40_000]), tokens: above }],
        windows: if random.bool() { vec![all_week(factor(random))] } else { Vec::new() },
        service_tiers: vec![("flex".to_owned(), factor(random))],
    }
}

fn some_usage(random: &mut fastrand::Rng) -> Usage {
    let count = |random: &mut fastrand::Rng| number(random, &[0, 3, 200, 40_000]);
    let call = |random: &mut fastrand::Rng| random.u32(0..3);
    let details = Details {
        cache_write_1h: count(random),
        audio_input: count(random),
        audio_output: count(random),
        calls: Calls {
            web_search: call(random),
            file_search: call(random),
            code_interpreter: call(random),
            image_generation: call(random),
        },
    };
    Usage {
        input: count(random),
        cached: count(random),
        cache_write: count(random),
        output: count(random),
        reasoning: count(random),
        details,
    }
}

#[test]
fn every_cost_is_that_of_a_calculation_by_hand_to_the_pico_dollar() {
    let mut random = fastrand::Rng::with_seed(16);
    for _ in 0..100_000 {
        let (rates, usage) = (some_rates(&mut random), some_usage(&mut random));
        let tier = [None, Some("flex"), Some("priority"), Some("default")][random.usize(0..4)];
        let expected = by_hand(&rates, &usage, tier);
        let cost = Price::new(vec![rates.clone()]).cost(&usage, tier, NOW).unwrap();
        assert_eq!((u128::from(cost.known.as_pico()), missing(cost)), expected, "{usage:?} {rates:?}");
    }
}
