#![expect(clippy::string_slice, reason = "the texts here are ASCII, and a test fails by panicking")]

use std::path::{Path, PathBuf};

use super::*;
use crate::spend::budget::{Action, Period, Scope, Select, Subject};

/// A configuration with three providers that gives every default explicitly.
const EXAMPLE: &str = r#"{
  "providers": {
    "openai":   {"host": "api.openai.com",   "path_prefix": "/v1", "api_key": "$OPENAI_API_KEY",   "models": {"assistant": "gpt-5.4-mini"}},
    "deepseek": {"host": "api.deepseek.com", "path_prefix": "/",   "api_key": "$DEEPSEEK_API_KEY", "dialect": "deepseek",
                 "models": {"assistant": {"name": "deepseek-flash", "context": 131072, "quality": 0.86,
                            "price": {"input": 0.15, "cached_input": 0.003, "output": 0.60}}}},
    "shareai":  {"host": "api.shareai.now", "path_prefix": "/v1", "api_key": "$SHAREAI_API_KEY", "models": {"*": "*"}}
  },
  "routes": [
    {"name": "chat", "match": {"path": "/v1/chat/completions", "model": "*"}, "providers": ["openai", "deepseek", "shareai"],
     "policy": {"type": "priority"}, "stream": {"release": "first_token"}}
  ],
  "limits":  {"first_token": "15s", "answer": "5m", "max_request_bytes": 20971520, "max_held_bytes": 8388608},
  "breaker": {"consecutive_failures": 5, "error_rate": 0.5, "minimum_requests": 20, "window": "30s", "open": "10s", "max_open": "5m", "probes": 1},
  "retry":   {"attempts": 4, "same_provider": 1, "wait": "3s"}
}"#;

/// The smallest valid configuration.
const LEAST: &str = r#"{
  "providers": {"p": {"host": "h", "api_key": "$OPENAI_API_KEY", "models": {"*": "*"}}},
  "routes": [{"name": "r", "match": {"path": "/v1/chat/completions"}, "providers": ["p"]}]
}"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The environment variables of all tests here.
fn environment(name: &str) -> Option<String> {
    let value = match name {
        "OPENAI_API_KEY" | "DEEPSEEK_API_KEY" | "SHAREAI_API_KEY" => "sk-from-environment",
        "EMPTY_KEY" => " \n",
        "SPLIT_KEY" => "sk-from environment",
        _ => return None,
    };
    Some(value.to_owned())
}

fn parse(text: &str) -> Config {
    Config::parse(text, &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse(text, &environment).map(|_| ()).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn is_blessing() -> bool {
    std::env::var("SHUNT_BLESS").is_ok_and(|value| value == "1")
}

/// Every `tests/golden/config/*.json`, sorted by name, with the message for it.
fn golden() -> Vec<(PathBuf, String)> {
    let folder = root().join("tests/golden/config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let message = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let message = match Config::parse(&text, &environment) {
            Ok(config) if config.warnings.is_empty() => "valid".to_owned(),
            Ok(config) => format!("valid, with warnings:\n  {}", config.warnings.join("\n  ")),
            Err(problems) => problems.to_string(),
        };
        (path, message + "\n")
    };
    files.into_iter().map(message).collect()
}

#[test]
fn the_messages_are_the_golden_ones() {
    let mut differ = Vec::new();
    for (path, message) in golden() {
        let place = path.with_extension("txt");
        if is_blessing() {
            std::fs::write(&place, &message).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&place).unwrap_or_default();
        if message != expected {
            differ.push(format!("{}\n--- expected\n{expected}--- found\n{message}", place.display()));
        }
    }
    assert!(differ.is_empty(), "SHUNT_BLESS=1 rewrites them, if this is meant:\n{}", differ.join("\n"));
}

#[test]
fn every_golden_document_has_a_message_and_every_message_a_document() {
    let names = |extension: &str| {
        let mut names: Vec<String> = std::fs::read_dir(root().join("tests/golden/config"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("json"), names("txt"));
    assert!(names("json").len() >= 20);
}

#[test]
fn no_message_holds_a_key() {
    for (path, message) in golden() {
        assert!(!message.contains("sk-"), "{}: {message}", path.display());
    }
}

#[test]
fn the_example_parses() {
    let config = parse(EXAMPLE);
    assert_eq!(config.warnings, Vec::<String>::new());
    let names: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["openai", "deepseek", "shareai"]);
    let prefixes: Vec<&str> = config.providers.iter().map(|provider| provider.path_prefix.as_str()).collect();
    assert_eq!(prefixes, ["/v1", "", "/v1"]);
    assert_eq!(config.providers[1].models[0].context, Some(131_072));
    assert_eq!(config.routes[0].providers, [ProviderId(0), ProviderId(1), ProviderId(2)]);
    assert_eq!(
        config.retry,
        Retry { attempts: Some(4), same_provider: 1, wait: Duration::from_secs(3), second_opinion: true }
    );
}

#[test]
fn the_example_gives_the_defaults() {
    let (example, least) = (parse(EXAMPLE), parse(LEAST));
    assert_eq!(example.breaker, least.breaker);
    assert_eq!(example.sizes, least.sizes);
    assert_eq!(example.holds, least.holds);
    assert_eq!(example.routes[0].limits, least.routes[0].limits);
    assert_eq!(example.routes[0].release, least.routes[0].release);
    assert_eq!(Retry { attempts: None, ..example.retry }, least.retry);
}

#[test]
fn a_route_says_what_its_clients_see_of_a_stream_that_breaks_off() {
    for (stream, release, on_break) in [
        ("{}", Release::FirstToken, OnBreak::Reset),
        (r#"{"on_break": "reset"}"#, Release::FirstToken, OnBreak::Reset),
        (r#"{"on_break": "event"}"#, Release::FirstToken, OnBreak::Event),
        (r#"{"release": "complete", "on_break": "event"}"#, Release::Complete, OnBreak::Event),
    ] {
        let config = parse(&EXAMPLE.replace(r#"{"release": "first_token"}"#, stream));
        assert_eq!((config.routes[0].release, config.routes[0].on_break), (release, on_break), "{stream}");
    }
    assert_eq!(parse(LEAST).routes[0].on_break, OnBreak::Reset);
}

/// The block scalar behind `value: |`: all lines that are indented further than its key.
fn shipped() -> String {
    let yaml = std::fs::read_to_string(root().join("envoy/listeners.yaml")).unwrap();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines().skip_while(|line| line.trim() != "value: |");
    let key = indent(lines.next().unwrap());
    lines.take_while(|line| line.trim().is_empty() || indent(line) > key).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_configuration_parses() {
    let config = parse(&shipped());
    assert_eq!(config.providers.len(), 3);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.endpoint("/v1/chat/completions"), Some(Endpoint::Chat));
    assert_eq!(config.endpoint("/v1/other"), None);
}

#[test]
fn the_shipped_configuration_serves_with_a_single_key() {
    for (key, provider) in
        [("OPENAI_API_KEY", "openai"), ("DEEPSEEK_API_KEY", "deepseek"), ("SHAREAI_API_KEY", "shareai")]
    {
        let config = Config::parse(&shipped(), &|name| (name == key).then(|| "sk-1".to_owned())).unwrap();
        assert_eq!(config.providers.len(), 1);
        assert_eq!(config.providers[0].name, provider);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    }
    let none = Config::parse(&shipped(), &|_| None).unwrap_err();
    assert!(none.to_string().contains("none of these providers has a key"), "{none}");
}

#[test]
fn an_optional_provider_without_a_key_is_left_out_of_its_routes() {
    let text = r#"{
      "providers": {
        "gone": {"host": "h", "api_key": "$UNSET", "optional": true, "models": {"*": "*"}},
        "here": {"host": "h", "api_key": "$OPENAI_API_KEY", "optional": true, "models": {"*": "*"}}
      },
      "routes": [{"name": "r", "match": {"path": "/chat/completions"}, "providers": ["gone", "here"]}]
    }"#;
    let config = parse(text);
    assert_eq!(config.providers.len(), 1);
    assert_eq!(config.routes[0].providers, [ProviderId(0)]);
    assert_eq!(config.provider(ProviderId(0)).unwrap().name, "here");
    assert_eq!(config.warnings, ["provider \"gone\" is left out: UNSET is not set, and it is optional"]);
}

#[test]
fn a_problem_of_a_provider_is_not_reported_again_for_its_route() {
    for (good, wrong, place) in [
        ("\"host\": \"h\"", "\"host\": \"a b\"", "providers.p.host: "),
        ("$OPENAI_API_KEY", "sk-literal", "providers.p.api_key: "),
        ("\"providers\": [\"p\"]", "\"providers\": \"p\"", "routes[0].providers: expected a list"),
    ] {
        let found = problems(&LEAST.replace(good, wrong));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(place), "{found:?}");
    }
}

#[test]
fn routes_of_the_same_name_are_reported_even_if_one_has_another_problem() {
    let route = r#"{"name": "r", "match": {"path": "/v1/chat/completions"}, "providers": ["p"]}"#;
    let wrong = route.replace("\"match\"", "\"policy\": {\"type\": \"x\"}, \"match\"");
    let start = LEAST.find("\"routes\"").unwrap();
    let found = problems(&format!("{}\"routes\": [{wrong}, {route}]}}", &LEAST[..start]));
    assert!(found.iter().any(|problem| problem.contains("same name")), "{found:#?}");
}

#[test]
fn a_message_is_short_whatever_was_found() {
    let long = "x".repeat(5000);
    for part in [
        "\"limits\": {\"max_held_bytes\": 1e300}".to_owned(),
        format!("\"limits\": {{\"answer\": \"{long}\"}}"),
        format!("\"{long}\": 1"),
    ] {
        let found = problems(&LEAST.replacen('{', &format!("{{{part},"), 1));
        assert!(found.iter().all(|problem| problem.len() < 300), "{found:?}");
    }
}

#[test]
fn the_first_route_that_matches_serves() {
    let route = |name: &str, model: &str| {
        format!(
            r#"{{"name": "{name}", "match": {{"path": "/v1/chat/completions", "model": "{model}"}}, "providers": ["p"]}}"#
        )
    };
    let routes = [route("exact", "gpt-5"), route("prefix", "gpt-*"), route("other", "o*")].join(",");
    let start = LEAST.find("\"routes\"").unwrap();
    let config = parse(&format!("{}\"routes\": [{routes}]}}", &LEAST[..start]));
    for (model, name) in [
        ("gpt-5", Ok("exact")),
        ("gpt-5.4", Ok("prefix")),
        ("o", Ok("other")),
        ("claude", Err(NoRoute::Model)),
    ] {
        assert_eq!(config.route("/v1/chat/completions", model).map(|route| &*route.name), name, "{model}");
    }
    assert_eq!(config.route("/v1/completions", "gpt-5").map(|_| ()), Err(NoRoute::Path));
}

#[test]
fn each_limit_of_a_route_replaces_the_common_one() {
    let text = LEAST
        .replace("\"name\": \"r\",", "\"name\": \"r\", \"limits\": {\"answer\": \"9m\"},")
        .replacen('{', "{\"limits\": {\"first_token\": \"7s\", \"answer\": \"8s\"},", 1);
    let limits = parse(&text).routes[0].limits;
    let expected = Limits {
        first_token: Duration::from_secs(7),
        answer: Duration::from_secs(540),
        total: None,
        clamps_output: false,
    };
    assert_eq!(limits, expected);
    let total = |text: &str| parse(text).routes[0].limits.total.map(|total| total.as_secs());
    let common = LEAST.replacen('{', "{\"limits\": {\"total\": \"30s\"},", 1);
    let own =
        |text: &str| text.replace("\"name\": \"r\",", "\"name\": \"r\", \"limits\": {\"total\": \"2m\"},");
    assert_eq!(
        [LEAST, &common, &own(LEAST), &own(&common)].map(total),
        [None, Some(30), Some(120), Some(120)],
        "a request has no limit unless one is given"
    );
}

#[test]
fn one_open_time_alone_never_contradicts_the_other() {
    for (breaker, open, max_open) in
        [(r#"{"open": "1s"}"#, 1, 300), (r#"{"open": "10m"}"#, 600, 600), (r#"{"max_open": "1h"}"#, 10, 3600)]
    {
        let config = parse(&LEAST.replacen('{', &format!("{{\"breaker\": {breaker},"), 1));
        let found = (config.breaker.open.as_secs(), config.breaker.max_open.as_secs());
        assert_eq!(found, (open, max_open), "{breaker}");
    }
}

#[test]
fn a_document_that_is_nested_too_deeply_is_refused() {
    for (left, right) in [("[", "]"), ("{\"a\":", "}")] {
        let text = [left.repeat(100_000), "1".to_owned(), right.repeat(100_000)].concat();
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains("recursion limit"), "{found:?}");
    }
}

/// What the model costs that a request names `asked`, for a million tokens of input and a million of output.
fn costs(config: &Config, provider: &str, asked: &str, at: &str) -> Option<String> {
    let at = crate::base::clock::parse_date(at).unwrap();
    let provider = config.providers.iter().find(|found| found.name == provider).unwrap();
    let price = provider.resolve(asked).unwrap().price?;
    Some(price.expected(1_000_000, 1_000_000, at)?.to_string())
}

/// [`LEAST`] with these models for its provider, and with this member at the start.
fn with_prices(models: &str, member: &str) -> Config {
    let text = LEAST.replace(r#"{"*": "*"}"#, models).replacen('{', &format!("{{{member}"), 1);
    parse(&text)
}

#[test]
fn a_models_own_price_comes_before_its_providers_list_and_that_before_the_list_for_all() {
    let config = with_prices(
        r#"{"*": "*", "own": {"name": "m", "price": {"input": 1, "output": 0}}, "same": "m", "alias": "*"}"#,
        r#""prices": {"*": {"m": {"input": 4, "output": 0}, "n": {"input": 5, "output": 0}},
                      "p": {"z": {"input": 9, "output": 0}, "m": {"input": 2, "output": 0}, "alias": {"input": 3, "output": 0}}},"#,
    );
    for (asked, cost) in [
        ("own", Some("1")),
        ("same", Some("2")),
        ("alias", Some("3")),
        ("n", Some("5")),
        ("z", Some("9")),
        ("unheard-of", None),
    ] {
        assert_eq!(costs(&config, "p", asked, "2026-11-21").as_deref(), cost, "{asked}");
    }
}

#[test]
fn a_price_list_belongs_to_its_provider_alone() {
    let text = EXAMPLE.replacen(
        '{',
        r#"{"prices": {"shareai": {"m": {"input": 2, "output": 1}}, "deepseek": {"m": {"input": 3, "output": 1}}},"#,
        1,
    );
    let config = parse(&text);
    assert_eq!(costs(&config, "shareai", "m", "2026-11-21").as_deref(), Some("3"));
    assert_eq!(costs(&config, "shareai", "deepseek-flash", "2026-11-21"), None);
    assert_eq!(costs(&config, "openai", "assistant", "2026-11-21"), None);
    assert_eq!(costs(&config, "deepseek", "assistant", "2026-11-21").as_deref(), Some("0.75"));
}

#[test]
fn every_decimal_of_a_price_is_exact() {
    for (input, cost) in [
        ("0.000001", "0.000001"),
        ("0.003", "0.003"),
        ("0.1", "0.1"),
        ("0.7", "0.7"),
        ("1.005", "1.005"),
        ("0.14999999999999999", "0.15"),
        ("75e-3", "0.075"),
        ("999999.999999", "999999.999999"),
        ("1000000", "1000000"),
    ] {
        let config = with_prices(
            &format!(r#"{{"m": {{"name": "m", "price": {{"input": {input}, "output": 0}}}}}}"#),
            "",
        );
        assert_eq!(costs(&config, "p", "m", "2026-11-21").as_deref(), Some(cost), "{input}");
    }
    for (request, cost) in
        [("0.000000000001", "0.000000000001"), ("0.005", "0.005"), ("99.999999999999", "99.999999999999")]
    {
        let price = format!(
            r#"{{"m": {{"name": "m", "price": {{"input": 0, "output": 0, "request": {request}}}}}}}"#
        );
        assert_eq!(
            costs(&with_prices(&price, ""), "p", "m", "2026-11-21").as_deref(),
            Some(cost),
            "{request}"
        );
    }
}

#[test]
fn every_kind_of_token_has_its_own_price_or_that_of_the_kind_it_is_part_of() {
    use crate::spend::usage::Usage;
    let kinds = [
        Usage { input: 1, ..Usage::default() },
        Usage { input: 1, cached: 1, ..Usage::default() },
        Usage { input: 1, cache_write: 1, ..Usage::default() },
        Usage { output: 1, ..Usage::default() },
        Usage { output: 1, reasoning: 1, ..Usage::default() },
    ];
    let above = |usage: Usage| Usage { input: usage.input + 1_000_001, ..usage };
    let all = r#"{"input": 1, "cached_input": 2, "cache_write": 3, "output": 4, "reasoning": 5}"#;
    let least = r#"{"input": 1, "output": 4}"#;
    let tier = r#"{"input": 1, "cached_input": 2, "output": 4, "above": [{"tokens": 1000000, "input": 7, "reasoning": 8}]}"#;
    let at = crate::base::clock::parse_date("2026-11-21").unwrap();
    let cost = |price: &str, usage: Usage| {
        let config = with_prices(&format!(r#"{{"m": {{"name": "m", "price": {price}}}}}"#), "");
        let price = config.providers[0].resolve("m").unwrap().price.unwrap();
        price.cost(&usage, None, at).unwrap().known.as_pico()
    };
    let million = 1_000_000;
    assert_eq!(kinds.map(|usage| cost(all, usage)), [1, 2, 3, 4, 5].map(|usd| usd * million));
    assert_eq!(kinds.map(|usage| cost(least, usage)), [1, 1, 1, 4, 4].map(|usd| usd * million));
    assert_eq!(kinds.map(|usage| cost(tier, usage)), [1, 2, 1, 4, 4].map(|usd| usd * million));
    // The cost of the input that exceeds the tier's limit is subtracted. What the tier does not list costs as in the price itself.
    let more = kinds.map(|usage| cost(tier, above(usage)) - 1_000_001 * 7 * million);
    assert_eq!(more, [7, 2, 7, 4, 8].map(|usd| usd * million));
}

#[test]
fn what_is_billed_apart_has_the_price_that_the_document_gives() {
    use crate::spend::usage::{Calls, Details, Usage};
    let price = r#"{"input": 1, "output": 2, "cache_write": 3, "cache_write_1h": 5, "audio_input": 7, "audio_output": 11,
        "calls": {"web_search": 0.01, "file_search": 0.0025, "code_interpreter": 0.03, "image_generation": 0.000000000001},
        "service_tiers": {"flex": 0.5, "priority": 2}, "above": [{"tokens": 1000000, "audio_input": 13, "cache_write_1h": 17}]}"#;
    let config = with_prices(&format!(r#"{{"m": {{"name": "m", "price": {price}}}}}"#), "");
    let price = config.providers[0].resolve("m").unwrap().price.unwrap();
    let at = crate::base::clock::parse_date("2026-11-21").unwrap();
    let cost = |usage: Usage, tier: Option<&str>| {
        let cost = price.cost(&usage, tier, at).unwrap();
        assert!(cost.unpriced.is_empty(), "{cost:?}");
        cost.known.to_string()
    };
    let tokens = |input: u64, cache_write, details| Usage { input, cache_write, details, ..Usage::default() };
    let calls = |calls| Usage { details: Details { calls, ..Details::default() }, ..Usage::default() };
    let heard = Details { audio_input: 1_000_000, ..Details::default() };
    let kept = Details { cache_write_1h: 1_000_000, ..Details::default() };
    let spoken = Details { audio_output: 1_000_000, ..Details::default() };
    for (usage, tier, expected) in [
        (tokens(1_000_000, 0, heard), None, "7"),
        (tokens(1_000_000, 0, heard), Some("flex"), "3.5"),
        (tokens(1_000_001, 0, heard), None, "13.000001"),
        (tokens(1_000_000, 1_000_000, kept), None, "5"),
        (tokens(1_000_001, 1_000_001, kept), None, "17.000003"),
        (Usage { output: 1_000_000, details: spoken, ..Usage::default() }, Some("priority"), "22"),
        (calls(Calls { web_search: 3, ..Calls::default() }), Some("priority"), "0.03"),
        (calls(Calls { file_search: 3, ..Calls::default() }), None, "0.0075"),
        (calls(Calls { code_interpreter: 1, ..Calls::default() }), None, "0.03"),
        (calls(Calls { image_generation: 2, ..Calls::default() }), None, "0.000000000002"),
    ] {
        assert_eq!(cost(usage, tier), expected, "{usage:?}");
    }
}

#[test]
fn a_window_applies_on_its_days_and_at_its_times() {
    let price = r#"{"input": 1, "output": 0, "windows": [
        {"days": ["sat"], "from": "00:00", "to": "00:01", "multiply": 2},
        {"days": ["sun"], "from": "00:00", "to": "24:00", "multiply": 0.5},
        {"from": "00:00", "to": "12:00", "multiply": 3}]}"#;
    let config = with_prices(&format!(r#"{{"m": {{"name": "m", "price": {price}}}}}"#), "");
    for (date, cost) in [("2026-11-20", "3"), ("2026-11-21", "2"), ("2026-11-22", "0.5"), ("2026-11-23", "3")]
    {
        assert_eq!(costs(&config, "p", "m", date).as_deref(), Some(cost), "{date}");
    }
}

#[test]
fn each_price_applies_from_its_date_on() {
    let price = r#"[{"from": "2026-10-01", "input": 2, "output": 0}, {"from": "2026-01-01", "input": 1, "output": 0}]"#;
    let config = with_prices(&format!(r#"{{"m": {{"name": "m", "price": {price}}}}}"#), "");
    for (date, cost) in [("2025-12-31", None), ("2026-09-30", Some("1")), ("2026-10-01", Some("2"))] {
        assert_eq!(costs(&config, "p", "m", date).as_deref(), cost, "{date}");
    }
}

/// [`LEAST`] with a header that names the tenant, and with these budgets.
fn with_budgets(budgets: &str) -> String {
    let keys = format!("{{\"tenant\": {{\"header\": \"X-Tenant\"}}, \"budgets\": [{budgets}],");
    LEAST.replacen('{', &keys, 1)
}

#[test]
fn a_budget_is_read_with_its_defaults() {
    let config = parse(&with_budgets(r#"{"name": "b", "limit": 12.5, "per": "month"}"#));
    assert_eq!(config.tenant, Some(Tenant { header: "x-tenant".to_owned(), known: Vec::new() }));
    let budget = &config.budgets[0];
    let all = Scope { tenant: Select::All, route: Select::All, provider: Select::All, model: Select::All };
    assert_eq!((budget.name.as_str(), &budget.scope), ("b", &all));
    assert_eq!((budget.limit_pico, budget.alert_pico), (12_500_000_000_000, 10_000_000_000_000));
    assert_eq!((budget.period, budget.action, budget.slots), (Period::Month, Action::Block, 0));
    assert_eq!(parse(LEAST).budgets, []);
    assert_eq!(parse(LEAST).tenant, None);
}

#[test]
fn a_budget_is_for_what_its_match_says() {
    let config = parse(&with_budgets(
        r#"
        {"name": "one", "match": {"tenant": "team-a", "route": "r", "provider": "p", "model": "gpt-*"},
         "limit": 1, "per": "hour", "when_spent": "skip", "alert_at": 1},
        {"name": "each", "match": {"tenant": "*", "model": "*"}, "limit": 1, "per": "day", "when_spent": "cheapest",
         "slots": 4096},
        {"name": "few", "match": {"provider": "*"}, "limit": 1, "per": "day", "when_spent": "alert", "alert_at": 0,
         "background": "refuse"}"#,
    ));
    let only = |text: &str| Select::Only(text.to_owned());
    let scopes = [
        Scope {
            tenant: only("team-a"),
            route: only("r"),
            provider: only("p"),
            model: Select::StartsWith("gpt-".to_owned()),
        },
        Scope { tenant: Select::Each, route: Select::All, provider: Select::All, model: Select::Each },
        Scope { tenant: Select::All, route: Select::All, provider: Select::Each, model: Select::All },
    ];
    assert_eq!(config.budgets.iter().map(|budget| budget.scope.clone()).collect::<Vec<_>>(), scopes);
    let rest = |budget: &Budget| (budget.action, budget.slots, budget.alert_pico);
    let refuses = config.budgets.iter().map(|budget| budget.refuses_background);
    assert_eq!(refuses.collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(
        config.budgets.iter().map(rest).collect::<Vec<_>>(),
        [
            (Action::Skip, 0, 1_000_000_000_000),
            (Action::Cheapest, 4096, 800_000_000_000),
            (Action::Alert, 64, 0)
        ]
    );
    let subject = Subject { tenant: "team-a", route: "r", provider: "p", model: "gpt-5" };
    assert!(config.budgets.iter().all(|budget| budget.owner(subject).is_some()));
}

#[test]
fn a_limit_is_exact_to_the_micro_usd() {
    for (limit, pico) in [
        ("0", 0),
        ("0.000001", 1_000_000),
        ("0.1", 100_000_000_000),
        ("4503.599627", 4_503_599_627_000_000),
        ("9999999.999999", 9_999_999_999_999_000_000),
        ("10000000", 10_000_000_000_000_000_000),
    ] {
        let text = format!(r#"{{"name": "b", "limit": {limit}, "per": "day"}}"#);
        assert_eq!(parse(&with_budgets(&text)).budgets[0].limit_pico, pico, "{limit}");
    }
}

#[test]
fn a_budget_may_name_what_was_left_out_or_has_a_problem_of_its_own() {
    let budget = r#"{"name": "b", "match": {"route": "r", "provider": "p"}, "limit": 1, "per": "day"}"#;
    let optional = LEAST.replace("\"$OPENAI_API_KEY\"", "\"$UNSET\", \"optional\": true");
    for text in [optional, LEAST.replace("\"providers\": [\"p\"]", "\"providers\": [\"q\"]")] {
        let found = problems(&text.replacen('{', &format!("{{\"budgets\": [{budget}],"), 1));
        assert!(found.len() == 1 && found[0].starts_with("routes[0].providers"), "{found:?}");
    }
}

#[test]
fn a_header_that_carries_an_identity_does_not_name_the_tenant() {
    for name in
        ["Authorization", "cookie", "x-api-key", "x-envoy-tenant", "X-Forwarded-User", ":path", "a b", ""]
    {
        let text = with_budgets("").replace("X-Tenant", name);
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].starts_with("tenant.header: "), "{name}: {found:?}");
    }
}

#[test]
fn an_empty_object_is_an_empty_list_because_apisix_writes_one_so() {
    let with = |more: &str| LEAST.replace("\n}", &format!(",\n{more}}}"));
    let config = parse(&with(r#""passthrough": {}, "budgets": {}"#));
    assert!(config.passthrough.is_empty() && config.budgets.is_empty());
    // Where a list must have an element, it still must.
    let empty =
        |list: &str| problems(&LEAST.replace(r#""providers": ["p"]"#, &format!(r#""providers": {list}"#)));
    assert_eq!(empty("{}"), empty("[]"));
    assert!(!empty("{}").is_empty());
    assert!(problems(&with(r#""passthrough": {"a": 1}"#)).concat().contains("found an object"));
}
