//! One worker's memory of the scores that evaluations found. A route whose policy does not use scores reads nothing.

use std::time::Duration;

use super::Ledger;
use crate::base::clock::Timestamp;
use crate::base::store::{fingerprint, Store};
use crate::routing::provider::Provider;
use crate::routing::provider::Score;
use crate::selection::evaluations::find;

/// How long a score that was read is used. Evaluations come once in hours.
const FRESH: Duration = Duration::from_secs(1);

/// The number of models remembered. More appear only after many changes of the configuration; then the memory starts anew.
const MAX_MODELS: usize = 1024;

/// What this worker remembers of a model.
#[derive(Debug)]
pub(super) struct Scored {
    model: u64,
    score: Option<Score>,
    read: Timestamp,
}

impl Ledger {
    /// The score that an evaluation found for a provider's model. `name` is the provider's name for it.
    pub fn evaluated(
        &mut self,
        provider: &Provider,
        name: &str,
        store: &mut dyn Store,
        now: Timestamp,
    ) -> Option<Score> {
        let identity = provider.identity.fingerprint.to_string();
        let model = fingerprint([provider.name.as_str(), &identity, name]);
        let known = self.scores.iter_mut().find(|known| known.model == model);
        if let Some(known) = known.as_ref().filter(|known| known.read <= now && now.since(known.read) < FRESH)
        {
            return known.score;
        }
        let score = find(provider, name, store).map(|found| found.score);
        match known {
            Some(known) => (known.score, known.read) = (score, now),
            None => {
                if self.scores.len() >= MAX_MODELS {
                    self.scores.clear();
                }
                self.scores.push(Scored { model, score, read: now });
            }
        }
        score
    }
}

/// Replaces a provider's configured score, for the tests of modules above this one.
#[cfg(test)]
pub(crate) fn evaluate(
    config: &crate::config::Config,
    body: &str,
    store: &mut dyn Store,
    now: Timestamp,
) -> u16 {
    crate::selection::evaluations::replace(config, body.as_bytes(), "gateway", now, store).status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::store::Memory;
    use crate::config::Config;
    use crate::selection::evaluations::replace;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn a_worker_knows_a_new_score_within_a_second() {
        let text = r#"{"providers": {"p": {"host": "h", "api_key": "$K", "models": {"m": "m"}}},
            "routes": [{"name": "a", "match": {"path": "/v1/chat/completions"}, "providers": ["p"]}]}"#;
        let config = Config::parse(text, &|_| Some("k".to_owned())).unwrap();
        let provider = &config.providers[0];
        let (mut ledger, mut store) = (Ledger::default(), Memory::default());
        assert_eq!(ledger.evaluated(provider, "m", &mut store, at(0)), None);
        let body = br#"{"scores": [{"provider": "p", "model": "m", "quality": 0.7}]}"#;
        assert_eq!(replace(&config, body, "gateway", at(1), &mut store).status, 200);
        assert_eq!(
            ledger.evaluated(provider, "m", &mut store, at(999)),
            None,
            "what was read a moment ago is still used"
        );
        assert_eq!(ledger.evaluated(provider, "m", &mut store, at(1000)), Some(Score::new(0.7)));
        assert_eq!(
            ledger.evaluated(provider, "m", &mut store, at(0)),
            Some(Score::new(0.7)),
            "a clock that went back"
        );
        for number in 0..3000 {
            ledger.evaluated(provider, &number.to_string(), &mut store, at(0));
            assert!(ledger.scores.len() <= MAX_MODELS);
        }
    }
}
