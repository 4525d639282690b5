//! Answers `GET /v1/models`: the gateway itself lists the models that the configuration names.

use crate::bytes::json::quoted;
use crate::client_api::errors::{json_type, Rejection, Reply};
use crate::config::Config;

const MODELS: &str = "/models";

/// The reply to a request for the list or for one model; `None` if the path is neither.
pub fn reply(config: &Config, path: &str) -> Option<Reply> {
    let (base, rest) = path.split_once(MODELS)?;
    let mut on_base =
        config.routes.iter().filter(|route| route.path.strip_suffix(route.endpoint.suffix()) == Some(base));
    on_base.next()?;
    let models = models(config, base);
    let body = if rest.is_empty() {
        let each: Vec<String> = models.iter().map(|(name, owner)| object(name, owner)).collect();
        format!("{{\"object\":\"list\",\"data\":[{}]}}", each.join(","))
    } else {
        let wanted = rest.strip_prefix('/')?;
        let found = models.iter().find(|(name, _)| *name == wanted);
        let Some((name, owner)) = found else { return Some(Rejection::model(wanted).reply()) };
        object(name, owner)
    };
    Some(Reply { status: 200, headers: vec![json_type()], body: body.into_bytes() })
}

/// The model names that clients can use under a base path, each with the first provider that has it. Models that are only
/// served through `*` are not in the configuration, so they are not listed.
fn models<'a>(config: &'a Config, base: &str) -> Vec<(&'a str, &'a str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for route in &config.routes {
        if route.path.strip_suffix(route.endpoint.suffix()) != Some(base) {
            continue;
        }
        for provider in route.providers.iter().filter_map(|id| config.provider(*id)) {
            for model in &provider.models {
                let name = if model.alias == "*" { &model.name } else { &model.alias };
                let is_new = name != "*" && !found.iter().any(|(known, _)| known == name);
                if is_new && route.model.matches(name) {
                    found.push((name, &provider.name));
                }
            }
        }
    }
    found
}

fn object(name: &str, owner: &str) -> String {
    let (name, owner) = (quoted(name), quoted(owner));
    format!("{{\"id\":{name},\"object\":\"model\",\"created\":0,\"owned_by\":{owner}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = r#"{"providers": {
            "one": {"host": "h", "api_key": "$K", "models": {"assistant": "gpt", "*": "*"}},
            "two": {"host": "h", "api_key": "$K", "models": {"assistant": "x", "e\"": "y", "*": "fixed"}}},
          "routes": [
            {"name": "a", "match": {"path": "/v1/chat/completions"}, "providers": ["one", "two"]},
            {"name": "b", "match": {"path": "/other/embeddings", "model": "e*"}, "providers": ["two"]}]}"#;
        Config::parse(text, &|_| Some("k".to_owned())).unwrap()
    }

    fn list(path: &str) -> Vec<(String, String)> {
        let reply = reply(&config(), path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, json["object"].as_str()), (200, Some("list")));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        json["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| (text(&model["id"]), text(&model["owned_by"])))
            .collect()
    }

    #[test]
    fn every_name_is_listed_once_with_its_first_provider() {
        let pair = |name: &str, owner: &str| (name.to_owned(), owner.to_owned());
        assert_eq!(list("/v1/models"), [pair("assistant", "one"), pair("e\"", "two"), pair("fixed", "two")]);
        assert_eq!(list("/other/models"), [pair("e\"", "two")]);
    }

    #[test]
    fn one_model_can_be_requested_and_other_paths_are_not_models() {
        assert_eq!(reply(&config(), "/v1/models/assistant").unwrap().status, 200);
        assert_eq!(reply(&config(), "/v1/models/none").unwrap().status, 404);
        for path in ["/v2/models", "/v1/modelsx", "/models", "/v1/chat/completions"] {
            assert_eq!(reply(&config(), path), None, "{path}");
        }
    }
}
