//! The `evaluations` of the configuration, and the scores that evaluations send while the gateway runs.

use super::providers::{api_key, Key};
use super::raw::{Json, Node, Object, Sink};
use super::{Config, Evaluations, NewScore, Problem, Problems};
use crate::routing::provider::Score;
use crate::routing::provider::{Provider, ProviderId};

/// The text before the token in its header.
const BEARER: &str = "Bearer ";

#[inline(never)]
pub(super) fn evaluations(
    top: &Object<'_>,
    taken: &dyn Fn(&str) -> bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Evaluations> {
    const PATH: &str = "a path of its own, such as \"/v1/shunt/quality\"";
    let fields = top.optional("evaluations")?.object(&["path", "token"]);
    let path = fields.required("path", PATH).and_then(|node| {
        let text = node.text(PATH)?;
        let is_path = text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !text.contains(['?', '#']);
        if !is_path || taken(text) {
            node.expected(PATH);
            return None;
        }
        Some(text.to_owned())
    });
    let token = fields
        .required("token", "the name of an environment variable, such as \"$SHUNT_TOKEN\"")
        .map(|node| api_key(node, environment, None, BEARER));
    match (path, token) {
        (Some(path), Some(Key::Found(token))) => Some(Evaluations { path, token }),
        _ => None,
    }
}

impl Config {
    /// Reads the scores that an evaluation found.
    ///
    /// # Errors
    /// All problems, each with its path in the body.
    pub fn new_scores(&self, text: &str) -> Result<Vec<NewScore>, Problems> {
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let what = ["expected a JSON object with \"scores\": ", &error.to_string()].concat();
            Problems(vec![Problem { path: String::new(), what }])
        })?;
        let sink = Sink::default();
        let root = Node { json: &json, path: String::new(), sink: &sink };
        const LIST: &str = "a list of scores";
        let nodes = root.object(&["scores"]).required("scores", LIST).map(|node| node.list(LIST));
        let mut scores: Vec<NewScore> = Vec::new();
        for node in nodes.into_iter().flatten() {
            let Some(new) = self.new_score(&node) else { continue };
            // One entry may name the model by its alias and the other by its own name.
            if scores.iter().any(|known| (known.provider, &known.model) == (new.provider, &new.model)) {
                node.report("there is a score of this model already");
            } else {
                scores.push(new);
            }
        }
        let problems = sink.into_problems();
        if problems.is_empty() {
            Ok(scores)
        } else {
            Err(Problems(problems))
        }
    }

    fn new_score(&self, node: &Node<'_>) -> Option<NewScore> {
        const NUMBER: &str = "a number from 0 to 1, or null";
        let fields = node.object(&["provider", "model", "quality"]);
        let names: Vec<&str> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
        let place =
            fields.required("provider", "the name of a provider").and_then(|node| node.one_of(&names));
        let provider = place.and_then(|place| self.providers.get(place));
        let model = fields.required("model", "a model of the provider").zip(provider);
        let model = model.and_then(|(node, provider)| model_of(node, provider));
        let score = match fields.required("quality", NUMBER) {
            Some(Node { json: Json::Null, .. }) => Some(None),
            Some(Node { json: Json::Number(number), .. }) if (0.0..=1.0).contains(number) => {
                Some(Some(Score::new(*number)))
            }
            found => {
                found.into_iter().for_each(|node| node.expected(NUMBER));
                None
            }
        };
        Some(NewScore { provider: ProviderId(place?), model: model?, score: score? })
    }
}

/// The provider's name for a model that the configuration names, given this name or its alias.
fn model_of(node: &Node<'_>, provider: &Provider) -> Option<String> {
    let named = provider.models.iter().filter(|model| model.name != "*");
    let mut names: Vec<&str> = Vec::new();
    for name in named.clone().flat_map(|model| [model.alias.as_str(), model.name.as_str()]) {
        if name != "*" && !names.contains(&name) {
            names.push(name);
        }
    }
    let name = *names.get(node.one_of(&names)?)?;
    let found = named
        .clone()
        .find(|model| model.alias == name)
        .or_else(|| named.clone().find(|model| model.name == name));
    found.map(|model| model.name.clone())
}
