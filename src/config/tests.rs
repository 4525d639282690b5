#![expect(clippy::string_slice, reason = "the texts here are ASCII, and a test fails by panicking")]

use std::path::{Path, PathBuf};

use super::*;

/// DESIGN's example, with a host for shareai.
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

/// The least that is a configuration.
const LEAST: &str = r#"{
  "providers": {"p": {"host": "h", "api_key": "$OPENAI_API_KEY", "models": {"*": "*"}}},
  "routes": [{"name": "r", "match": {"path": "/v1/chat/completions"}, "providers": ["p"]}]
}"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The environment of all cases here.
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

/// Every `tests/golden/config/*.json`, by name, with the message that it gets.
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
fn every_golden_message_has_its_document_and_the_other_way_round() {
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
fn the_example_of_the_design_parses() {
    let config = parse(EXAMPLE);
    assert_eq!(config.warnings, Vec::<String>::new());
    let names: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["openai", "deepseek", "shareai"]);
    let prefixes: Vec<&str> = config.providers.iter().map(|provider| provider.path_prefix.as_str()).collect();
    assert_eq!(prefixes, ["/v1", "", "/v1"]);
    assert_eq!(config.providers[1].models[0].context, Some(131_072));
    assert_eq!(config.routes[0].providers, [ProviderId(0), ProviderId(1), ProviderId(2)]);
    assert_eq!(config.retry, Retry { attempts: Some(4), same_provider: 1, wait: Duration::from_secs(3) });
}

#[test]
fn the_example_of_the_design_says_the_defaults() {
    let (example, least) = (parse(EXAMPLE), parse(LEAST));
    assert_eq!(example.breaker, least.breaker);
    assert_eq!(example.sizes, least.sizes);
    assert_eq!(example.holds, least.holds);
    assert_eq!(example.routes[0].limits, least.routes[0].limits);
    assert_eq!(example.routes[0].release, least.routes[0].release);
    assert_eq!(Retry { attempts: None, ..example.retry }, least.retry);
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
    assert!(config.has_path("/v1/chat/completions"));
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
fn a_problem_of_a_provider_is_not_told_as_another_problem_of_its_route() {
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
fn routes_of_the_same_name_are_told_even_if_one_has_another_problem() {
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
        assert_eq!(
            config.route("/v1/chat/completions", model).map(|route| route.name.as_str()),
            name,
            "{model}"
        );
    }
    assert_eq!(config.route("/v1/completions", "gpt-5").map(|_| ()), Err(NoRoute::Path));
}

#[test]
fn limits_of_a_route_replace_the_common_ones_one_by_one() {
    let text = LEAST
        .replace("\"name\": \"r\",", "\"name\": \"r\", \"limits\": {\"answer\": \"9m\"},")
        .replacen('{', "{\"limits\": {\"first_token\": \"7s\", \"answer\": \"8s\"},", 1);
    let limits = parse(&text).routes[0].limits;
    assert_eq!(limits, Limits { first_token: Duration::from_secs(7), answer: Duration::from_secs(540) });
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
fn a_document_nested_without_end_is_refused() {
    for (left, right) in [("[", "]"), ("{\"a\":", "}")] {
        let text = [left.repeat(100_000), "1".to_owned(), right.repeat(100_000)].concat();
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains("recursion limit"), "{found:?}");
    }
}
