//! Which model's price counts.

use std::rc::Rc;

use super::*;
use crate::dialects::dialect::{Dialect, Vendor};
use crate::routing::provider::{ApiKey, Identity, Model};
use crate::spend::cost::{Money, Price, PriceList, Rates, TokenRates};

fn price(input: u64) -> Rc<Price> {
    let tokens = TokenRates { input: Money::from_pico(input), ..TokenRates::default() };
    Rc::new(Price::new(vec![Rates { tokens, ..Rates::default() }]))
}

/// A provider with models (alias, name, price of its own) and a price list.
fn provider(models: &[(&str, &str, Option<u64>)], listed: &[(&str, u64)]) -> Provider {
    let model = |(alias, name, own): &(&str, &str, Option<u64>)| Model {
        alias: (*alias).to_owned(),
        name: (*name).to_owned(),
        context: None,
        max_output: None,
        price: own.map(price),
        lacks: None,
        quality: None,
    };
    let mut list = PriceList::default();
    listed.iter().for_each(|(name, input)| list.insert(name, price(*input)));
    let api_key = ApiKey::new("Bearer ", "sk-secret").unwrap();
    Provider {
        name: "p".to_owned(),
        host: "h".to_owned(),
        path_prefix: "/v1".to_owned(),
        region: String::new(),
        identity: Identity::of("p", "h", "/v1", &api_key),
        api_key,
        models: models.iter().map(model).collect(),
        prices: vec![Rc::new(list)],
        dialect: Dialect::of(Vendor::OpenAi),
        allow_headers: Vec::new(),
    }
}

/// What a token of input costs if this model was asked and that one told, and whether the model has no price.
fn cost(provider: &Provider, asked: &str, told: Option<&str>) -> Option<(u64, bool)> {
    let asked = provider.resolve(asked).unwrap();
    let served = Served { model: told.map(Rc::from), tier: None };
    let usage = Usage { input: 1, ..Usage::default() };
    let cost = provider.cost(&asked, &usage, &served, Timestamp::ZERO)?;
    let parts: Vec<&str> = cost.unpriced.iter().map(Part::name).collect();
    assert!(parts.is_empty() || parts == ["model"]);
    Some((cost.known.as_pico(), !parts.is_empty()))
}

#[test]
fn the_model_that_served_has_its_own_price_or_is_named_as_having_none() {
    let provider = provider(
        &[("assistant", "gpt-5", Some(10)), ("small", "gpt-5-mini", Some(3)), ("free", "gpt-5-nano", None)],
        &[("gpt-5-2024-02-02", 12), ("gpt-5-pro", 50), ("claude-sonnet-4-5", 7)],
    );
    for (told, expected) in [
        (None, (10, false)),
        (Some(""), (10, false)),
        (Some("gpt-5"), (10, false)),
        // Another spelling of the model that was asked.
        (Some("gpt-5-2026-01-01"), (10, false)),
        (Some("openai/gpt-5"), (10, false)),
        (Some("OpenAI/GPT-5"), (10, false)),
        (Some("accounts/openai/models/gpt-5-20260101"), (10, false)),
        (Some("gpt-5-latest"), (10, false)),
        (Some("gpt-5@20260101"), (10, false)),
        (Some("gpt-5-0613"), (10, false)),
        (Some("gpt-5-001"), (10, false)),
        (Some("gpt-5-05-06"), (10, false)),
        (Some("gpt-5-09-2025"), (10, false)),
        (Some("gpt-5:free"), (10, false)),
        (Some("gpt-5-0"), (10, false)),
        (Some("us.openai.gpt-5-20260101-v1:0"), (10, false)),
        (Some("bedrock/global.openai.gpt-5-v2:0"), (10, false)),
        // A release with a price of its own.
        (Some("gpt-5-2024-02-02"), (12, false)),
        // Another model with a price, which may stand in a model entry or in a list.
        (Some("gpt-5-mini"), (3, false)),
        (Some("gpt-5-pro"), (50, false)),
        (Some("gpt-5-pro-2026-01-01"), (50, false)),
        (Some("openai/gpt-5-mini"), (3, false)),
        (Some("anthropic/claude-sonnet-4-5-20250929"), (7, false)),
        // Another model without one.
        (Some("gpt-5-nano"), (10, true)),
        (Some("gpt-5.4"), (10, true)),
        (Some("us.openai.gpt-5.4-v1:0"), (10, true)),
        (Some("gpt-4.gpt-5"), (10, true)),
        (Some(":"), (10, true)),
        (Some("a."), (10, true)),
        (Some("gpt-5-4"), (10, true)),
        (Some("gpt-50"), (10, true)),
        (Some("gpt"), (10, true)),
        (Some("claude-sonnet-4"), (10, true)),
        (Some("claude-sonnet-4-6-20250929"), (10, true)),
        (Some("assistant"), (10, true)),
        (Some("*"), (10, true)),
        (Some("-2026"), (10, true)),
        (Some("/"), (10, true)),
    ] {
        assert_eq!(cost(&provider, "assistant", told), Some(expected), "{told:?}");
    }
}

#[test]
fn a_model_without_a_price_costs_what_the_one_that_served_costs_if_that_is_known() {
    let provider = provider(&[("*", "*", None)], &[("gpt-5", 10)]);
    for (asked, told, expected) in [
        ("gpt-5-2026-01-01", "gpt-5", Some((10, false))),
        ("openai/gpt-5", "gpt-5-2026-01-01", Some((10, false))),
        ("openai/gpt-5", "openai/gpt-5", None),
        ("other", "gpt-5", Some((10, false))),
        ("other", "another", None),
        ("gpt-5", "another", Some((10, true))),
    ] {
        assert_eq!(cost(&provider, asked, Some(told)), expected, "{asked} {told}");
    }
}

#[test]
fn a_price_of_all_models_is_that_of_whichever_served_and_that_of_one_alias_is_not() {
    let of_all = provider(&[("*", "*", Some(4)), ("own", "gpt-5", Some(9))], &[("listed", 5)]);
    assert_eq!(cost(&of_all, "own", Some("another")), Some((4, false)));
    assert_eq!(cost(&of_all, "x", Some("another")), Some((4, false)));
    assert_eq!(cost(&of_all, "x", Some("listed")), Some((5, false)));
    let of_one = provider(&[("gpt-5", "*", Some(4)), ("gpt-6", "*", Some(6))], &[]);
    assert_eq!(cost(&of_one, "gpt-5", Some("another")), Some((4, true)));
    assert_eq!(cost(&of_one, "gpt-5", Some("gpt-6")), Some((6, false)));
}

#[test]
fn the_model_behind_a_deployment_is_no_other_model() {
    let mut azure = provider(&[("assistant", "prod-chat", Some(10))], &[("gpt-5-pro", 50)]);
    assert_eq!(cost(&azure, "assistant", Some("gpt-5-2026-01-01")), Some((10, true)));
    let path = "/openai/deployments/{model}/chat/completions".to_owned();
    azure.dialect.paths = vec![(crate::client_api::request::Endpoint::Chat, path)];
    assert_eq!(cost(&azure, "assistant", Some("gpt-5-2026-01-01")), Some((10, false)));
    assert_eq!(cost(&azure, "assistant", Some("gpt-5-pro")), Some((50, false)));
}

#[test]
fn a_price_that_has_not_begun_is_none_yet() {
    let mut provider = provider(&[("a", "gpt-5", Some(10))], &[]);
    let tokens = TokenRates { input: Money::from_pico(3), ..TokenRates::default() };
    let later = Rates { tokens, from: Timestamp::from_millis(1), ..Rates::default() };
    let mut list = PriceList::default();
    list.insert("gpt-5-mini", Rc::new(Price::new(vec![later])));
    provider.prices = vec![Rc::new(list)];
    assert_eq!(cost(&provider, "a", Some("gpt-5-mini")), Some((10, true)));
}
