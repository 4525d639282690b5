//! Answers `GET /v1/models`: the gateway itself lists the models that the configuration names.

use crate::bytes::json::quoted;
use crate::client_api::errors::{json_type, Rejection, Reply};
use crate::config::Config;

const MODELS: &str = "/models";

/// The reply to a request for the list or for one model; `None` if the path is neither.
pub fn reply(config: &Config, path: &str) -> Option<Reply> {
    config.routes.iter().find_map(|route| {
        let base = route.path.strip_suffix(route.endpoint.suffix())?;
        let rest = path.strip_prefix(base)?.strip_prefix(MODELS)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| reply_on(config, base, rest))
    })
}

/// The reply to a request for what is behind `/models` on a base path.
fn reply_on(config: &Config, base: &str, rest: &str) -> Reply {
    let models = models(config, base);
    let body = if rest.is_empty() {
        let each: Vec<String> = models.iter().map(|(name, owner)| object(name, owner)).collect();
        format!("{{\"object\":\"list\",\"data\":[{}]}}", each.join(","))
    } else {
        let sent = rest.strip_prefix('/').unwrap_or(rest);
        // Clients send a name that cannot be decoded, such as `50%`, as it is.
        let wanted = decoded(sent).unwrap_or_else(|| sent.to_owned());
        let found = models.iter().find(|(name, _)| *name == wanted);
        let Some((name, owner)) = found else { return Rejection::model(&wanted).reply() };
        object(name, owner)
    };
    Reply { status: 200, headers: vec![json_type()], body: body.into_bytes() }
}

/// The text behind the percent-encoding of a path; `None` if an escape is not valid, or if what it stands for is not UTF-8. A slash is a
/// slash, encoded or not: many names of models have one.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
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
    fn a_name_may_be_encoded_and_may_have_slashes() {
        let text = r#"{"providers": {"one": {"host": "h", "api_key": "$K", "models": {
            "deepseek-ai/DeepSeek-V3": "x", "ft:gpt:é": "x", "a/models/b": "x", "50%": "x", "%41": "x", "a+b": "x"}}},
          "routes": [{"name": "a", "match": {"path": "/models/v1/chat/completions"}, "providers": ["one"]}]}"#;
        let config = Config::parse(text, &|_| Some("k".to_owned())).unwrap();
        let get = |name: &str| {
            let reply = reply(&config, &format!("/models/v1/models/{name}")).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            (reply.status, json["id"].as_str().map(str::to_owned), json["error"]["message"].to_string())
        };
        for (name, found) in [
            ("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3"),
            ("deepseek-ai%2FDeepSeek-V3", "deepseek-ai/DeepSeek-V3"),
            ("deepseek-ai%2fDeepSeek%2DV3", "deepseek-ai/DeepSeek-V3"),
            ("ft%3Agpt%3A%C3%A9", "ft:gpt:é"),
            ("ft:gpt:é", "ft:gpt:é"),
            ("a/models/b", "a/models/b"),
            ("50%25", "50%"),
            ("50%", "50%"),
            ("%2541", "%41"),
            ("a+b", "a+b"),
        ] {
            let (status, id, _) = get(name);
            assert_eq!((status, id.as_deref()), (200, Some(found)), "{name}");
        }
        for name in
            ["51%", "%4", "%zz", "%+1", "%C3", "%FF", "%00", "%E9", "deepseek-ai%252FDeepSeek-V3", "%41", "é"]
        {
            let (status, id, message) = get(name);
            assert_eq!((status, id), (404, None), "{name}");
            assert!(message.contains("does not exist"), "{name}: {message}");
        }
        assert_eq!(reply(&config, "/models/v1/modelsx"), None);
        assert_eq!(reply(&config, "/models/v1"), None, "its base is not that of a route");
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
