//! Scores of models that an evaluation found. They replace the configured scores while the gateway runs.
//!
//! There is one small record per provider and model that the configuration names, so their number is bounded. They do not
//! survive a restart.

use crate::base::clock::Timestamp;
use crate::base::store::{update, Store};
use crate::bytes::json::quoted;
use crate::client_api::errors::{json_type, Rejection, Reply};
use crate::config::{Config, NewScore, Problems};
use crate::routing::provider::Score;
use crate::routing::provider::{Model, Provider};

/// The longest body, in bytes: room for some thousands of scores.
pub const LONGEST: usize = 1 << 20;

/// A score that an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The score.
    pub score: Score,
    /// When it was received.
    pub since: Timestamp,
}

impl Evaluated {
    /// The format of the record.
    const VERSION: u8 = 1;
    /// The version, the provider's fingerprint, the score in millionths, and when it was received.
    const LENGTH: usize = 1 + 8 + 4 + 8;

    fn read(bytes: &[u8], fingerprint: u64) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (owner, rest) = rest.split_first_chunk::<8>()?;
        let (score, rest) = rest.split_first_chunk::<4>()?;
        let since = Timestamp::from_millis(u64::from_le_bytes(rest.try_into().ok()?));
        let is_own = *version == Self::VERSION && u64::from_le_bytes(*owner) == fingerprint;
        is_own.then_some(Self { score: Score::from_millionths(u32::from_le_bytes(*score)), since })
    }

    fn write(self, fingerprint: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH);
        bytes.push(Self::VERSION);
        bytes.extend(fingerprint.to_le_bytes());
        bytes.extend(self.score.as_millionths().to_le_bytes());
        bytes.extend(self.since.as_millis().to_le_bytes());
        bytes
    }
}

fn key(provider: &Provider, model: &str) -> String {
    ["shunt.quality.", &provider.name, ".", model].concat()
}

/// The score that an evaluation found for a provider's model. `model` is the provider's name for it.
pub fn find(provider: &Provider, model: &str, store: &mut dyn Store) -> Option<Evaluated> {
    Evaluated::read(&store.load(&key(provider, model)).0, provider.identity.fingerprint)
}

/// Checks whether a request may read and replace scores. The comparison takes the same time wherever a wrong token differs, so its
/// duration reveals nothing of the token.
///
/// # Errors
/// The rejection of a request that may not.
pub fn authorize(config: &Config, authorization: Option<&[u8]>) -> Result<(), Rejection> {
    let token = config.evaluations.as_ref().map_or("", |evaluations| evaluations.token.header()).as_bytes();
    let given = authorization.unwrap_or_default();
    let differ = token.iter().zip(given).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    if token.len() == given.len() && !token.is_empty() && differ == 0 {
        Ok(())
    } else {
        Err(Rejection::token())
    }
}

/// The reply with the scores that are in force. `scope` says who shares the evaluated ones: the whole `gateway`, or one `worker`.
/// The reply's `until` says that a restart removes them.
pub fn list(config: &Config, scope: &str, store: &mut dyn Store) -> Reply {
    let mut scores = Vec::new();
    for provider in &config.providers {
        let mut seen: Vec<&str> = Vec::new();
        for model in provider.models.iter().filter(|model| model.name != "*") {
            if seen.contains(&model.name.as_str()) {
                continue;
            }
            seen.push(&model.name);
            scores.push(score_of(provider, model, store));
        }
    }
    let body =
        ["{\"scope\":", &quoted(scope), ",\"until\":\"restart\",\"scores\":[", &scores.join(","), "]}"]
            .concat();
    Reply { status: 200, headers: vec![json_type()], body: body.into_bytes() }
}

fn score_of(provider: &Provider, model: &Model, store: &mut dyn Store) -> String {
    let names = ["{\"provider\":", &quoted(&provider.name), ",\"model\":", &quoted(&model.name)].concat();
    match (find(provider, &model.name, store), model.quality) {
        (Some(Evaluated { score, since }), _) => {
            let since = quoted(&since.rfc3339());
            [&names, ",\"quality\":", &score.to_string(), ",\"source\":\"evaluated\",\"since\":", &since, "}"]
                .concat()
        }
        (None, Some(score)) => {
            [&names, ",\"quality\":", &score.to_string(), ",\"source\":\"configured\"}"].concat()
        }
        (None, None) => [&names, ",\"quality\":null}"].concat(),
    }
}

/// Replaces the scores that are in force by those of a body, and returns the reply. A body with a mistake replaces none.
pub fn replace(config: &Config, body: &[u8], scope: &str, now: Timestamp, store: &mut dyn Store) -> Reply {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return Rejection::body(&error.to_string()).reply(),
    };
    let scores = match config.new_scores(text) {
        Ok(scores) => scores,
        Err(problems) => return refused(&problems).reply(),
    };
    for NewScore { provider, model, score } in scores {
        let Some(provider) = config.provider(provider) else { continue };
        let fingerprint = provider.identity.fingerprint;
        // A store cannot delete a key. An empty record means that there is no evaluated score.
        let record = score.map_or_else(Vec::new, |score| Evaluated { score, since: now }.write(fingerprint));
        if update(store, &key(provider, &model), |_| (Some(record.clone()), ())).is_err() {
            return Rejection::contended().reply();
        }
    }
    list(config, scope, store)
}

fn refused(problems: &Problems) -> Rejection {
    let each: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Rejection::scores(&each.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;
    use crate::base::store::Memory;

    const NOW: Timestamp = Timestamp::from_millis(1_795_257_296_000);

    fn config() -> Config {
        let text = r#"{
          "evaluations": {"path": "/v1/scores", "token": "$TOKEN"},
          "providers": {
            "one": {"host": "h", "api_key": "$K", "models": {"assistant": {"name": "gpt", "quality": 0.5}, "gpt": "gpt", "*": "*"}},
            "two": {"host": "h", "api_key": "$K", "models": {"assistant": "m2"}}},
          "routes": [{"name": "a", "match": {"path": "/v1/chat/completions"}, "providers": ["one", "two"]}]}"#;
        Config::parse(text, &|name| Some(if name == "TOKEN" { "t0ken" } else { "sk-1" }.to_owned())).unwrap()
    }

    fn read(reply: &Reply) -> Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn post(body: &Value, store: &mut Memory) -> Reply {
        replace(&config(), body.to_string().as_bytes(), "gateway", NOW, store)
    }

    #[test]
    fn scores_are_replaced_and_restored() {
        let mut store = Memory::default();
        let configured = json!({"scope": "gateway", "until": "restart", "scores": [
            {"provider": "one", "model": "gpt", "quality": 0.5, "source": "configured"},
            {"provider": "two", "model": "m2", "quality": null}]});
        assert_eq!(read(&list(&config(), "gateway", &mut store)), configured);
        let reply = post(
            &json!({"scores": [{"provider": "one", "model": "assistant", "quality": 0.25}, {"provider": "two", "model": "m2", "quality": 1}]}),
            &mut store,
        );
        assert_eq!(reply.status, 200);
        let since = "2026-11-21T10:34:56.000Z";
        assert_eq!(
            read(&reply)["scores"],
            json!([
                {"provider": "one", "model": "gpt", "quality": 0.25, "source": "evaluated", "since": since},
                {"provider": "two", "model": "m2", "quality": 1, "source": "evaluated", "since": since}])
        );
        let back = json!({"scores": [{"provider": "one", "model": "gpt", "quality": null}, {"provider": "two", "model": "assistant", "quality": null}]});
        assert_eq!(read(&post(&back, &mut store)), configured);
    }

    #[test]
    fn a_body_with_one_mistake_changes_nothing() {
        let mut store = Memory::default();
        let reply = post(
            &json!({"scores": [
                {"provider": "one", "model": "gpt", "quality": 0.9},
                {"provider": "on", "model": "gpt", "quality": 2},
                {"provider": "two", "model": "gpt", "quality": 0.1},
                {"provider": "two", "model": "m2"},
                {"provider": "one", "model": "assistant", "quality": 0.1}], "more": 1}),
            &mut store,
        );
        assert_eq!(reply.status, 400);
        let message = read(&reply)["error"]["message"].as_str().unwrap().to_owned();
        for part in [
            "more: unknown \"more\"",
            "scores[1].provider: unknown \"on\"; did you mean \"one\"?",
            "scores[1].quality: expected a number from 0 to 1, or null, found 2",
            "scores[2].model: unknown \"gpt\"; expected one of \"assistant\", \"m2\"",
            "scores[3].quality: expected a number from 0 to 1, or null, found nothing",
            "scores[4]: there is a score of this model already",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(find(&config().providers[0], "gpt", &mut store), None);
        for body in ["", "{", "[]", "{\"scores\":5}", "\u{0}"] {
            assert_eq!(replace(&config(), body.as_bytes(), "gateway", NOW, &mut store).status, 400, "{body}");
        }
        assert_eq!(replace(&config(), &[0xFF], "gateway", NOW, &mut store).status, 400);
    }

    #[test]
    fn only_the_token_authorizes() {
        for (given, status) in [
            (Some("Bearer t0ken"), None),
            (None, Some(401)),
            (Some(""), Some(401)),
            (Some("Bearer "), Some(401)),
            (Some("Bearer t0kem"), Some(401)),
            (Some("Bearer t0ken "), Some(401)),
            (Some("t0ken"), Some(401)),
        ] {
            let authorized = authorize(&config(), given.map(str::as_bytes));
            assert_eq!(authorized.err().map(|rejection| rejection.status), status, "{given:?}");
        }
        let without = Config { evaluations: None, ..config() };
        assert!(authorize(&without, Some(b"")).is_err());
    }

    #[test]
    fn a_score_of_another_provider_with_the_same_name_does_not_count() {
        let mut store = Memory::default();
        post(&json!({"scores": [{"provider": "two", "model": "m2", "quality": 1}]}), &mut store);
        let mut provider = config().providers[1].clone();
        assert!(find(&provider, "m2", &mut store).is_some());
        provider.identity.fingerprint ^= 1;
        assert_eq!(find(&provider, "m2", &mut store), None);
        for bytes in
            [&[][..], &[1], &[2; Evaluated::LENGTH], &[1; Evaluated::LENGTH - 1], &[1; Evaluated::LENGTH + 1]]
        {
            assert_eq!(Evaluated::read(bytes, 0), None);
        }
    }
}
