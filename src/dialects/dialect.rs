//! The differences between vendors as data: paths, the header of the key, constant headers, and parameters that are renamed,
//! dropped or set. A vendor with another wire format has a module of its own, chosen by [`Wire`].

use crate::bytes::json::quoted;
use crate::bytes::splice::Splices;
use crate::client_api::request::{Body, Endpoint, Entry, Feature, Features};
use crate::dialects::anthropic;
use crate::dialects::history::{self, CallIds, Rules};

/// The format of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI's, which most vendors use.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
}

/// How the API of one vendor differs from OpenAI's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The format.
    pub wire: Wire,
    /// Endpoints with another path than OpenAI's, and that path.
    pub paths: Vec<(Endpoint, String)>,
    /// The header that carries the key, in lower case.
    pub key_header: String,
    /// The prefix of the key in its header: `Bearer ` or nothing.
    pub key_prefix: String,
    /// Headers that are added to every request, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Parameters that the vendor names differently: OpenAI's name and the vendor's.
    pub rename: Vec<(String, String)>,
    /// Parameters that are removed because the vendor does not accept them.
    pub drop: Vec<String>,
    /// Parameters that are set to a fixed JSON value in every request.
    pub set: Vec<(String, String)>,
    /// Features that all models of the vendor lack, unless a model's entry says otherwise.
    pub lacks: Features,
    /// How the reasoning in a conversation's history is handled.
    pub reasoning: Reasoning,
    /// How Google's `extra_content` in a conversation's history is handled; `None` if the configuration does not say.
    pub extra_content: Option<ExtraContent>,
    /// Which ids of tool calls in a conversation's history the vendor takes, if not all.
    pub call_ids: Option<CallIds>,
    /// The role `developer` is sent as `system`.
    pub renames_developer: bool,
}

/// How a model's thoughts in the messages of a conversation are handled for a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// They are sent unchanged.
    Keep,
    /// They are removed under each name that they have, because the vendor refuses messages that have them.
    Drop,
    /// They are sent unchanged, and the vendor refuses tool calls of a thinking model that lack `reasoning_content`. If the conversation
    /// has such calls, because it began at another vendor, it is continued with thinking turned off.
    Needed,
}

/// How `extra_content` in the messages of a conversation and in their tool calls is handled for a vendor. Google's models put their
/// thought signatures there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraContent {
    /// It is sent unchanged.
    Keep,
    /// It is removed, because the vendor refuses messages that have it.
    Drop,
    /// It is sent unchanged. The first call of a message that has no signature, because another vendor's model made it, gets the words
    /// with which Google's models from Gemini 3 on take it.
    Needed,
}

/// The vendors that have a built-in dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// OpenAI, and every vendor with the same API.
    OpenAi,
    /// DeepSeek.
    DeepSeek,
    /// Anthropic.
    Anthropic,
    /// Mistral.
    Mistral,
    /// Google's Gemini at its OpenAI-compatible endpoint.
    Google,
}

impl Dialect {
    /// The built-in dialect of a vendor.
    pub fn of(vendor: Vendor) -> Self {
        let openai = Self {
            wire: Wire::OpenAi,
            paths: Vec::new(),
            key_header: "authorization".to_owned(),
            key_prefix: "Bearer ".to_owned(),
            headers: Vec::new(),
            rename: Vec::new(),
            drop: Vec::new(),
            set: Vec::new(),
            lacks: Features::default(),
            reasoning: Reasoning::Keep,
            extra_content: None,
            call_ids: None,
            renames_developer: false,
        };
        match vendor {
            Vendor::OpenAi => openai,
            // From api-docs.deepseek.com (autumn 2026): only the older name of the output limit exists; the role `developer`
            // does not; prefill works only on the beta path and with a flag of its own; no model takes audio.
            Vendor::DeepSeek => Self {
                rename: pairs(&[("max_completion_tokens", "max_tokens")]),
                lacks: Features::default().with(Feature::Audio).with(Feature::Prefill),
                reasoning: Reasoning::Needed,
                renames_developer: true,
                ..openai
            },
            Vendor::Anthropic => Self {
                wire: Wire::Anthropic,
                paths: vec![(Endpoint::Chat, "/messages".to_owned())],
                key_header: anthropic::KEY_HEADER.to_owned(),
                key_prefix: String::new(),
                headers: pairs(&[anthropic::VERSION]),
                ..openai
            },
            // From docs.mistral.ai and the errors of its API (autumn 2026): every field that it does not know is refused, also within
            // messages and calls. It tells the usage of a stream unasked. The last message is the assistant's only with a flag of its own.
            Vendor::Mistral => Self {
                rename: pairs(&[("max_completion_tokens", "max_tokens"), ("seed", "random_seed")]),
                drop: ["store", "user", "safety_identifier", "service_tier", STREAM_OPTIONS]
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect(),
                lacks: Features::default().with(Feature::Prefill),
                reasoning: Reasoning::Drop,
                extra_content: Some(ExtraContent::Drop),
                call_ids: Some(CallIds::Exactly(9)),
                renames_developer: true,
                ..openai
            },
            // From ai.google.dev/gemini-api/docs/thought-signatures (autumn 2026).
            Vendor::Google => {
                Self { reasoning: Reasoning::Drop, extra_content: Some(ExtraContent::Needed), ..openai }
            }
        }
    }

    /// The path of an endpoint, without the provider's prefix.
    pub fn path(&self, endpoint: Endpoint) -> &str {
        let own = self.paths.iter().find(|(other, _)| *other == endpoint);
        own.map_or(endpoint.suffix(), |(_, path)| path)
    }

    /// Whether the vendor has the endpoint.
    pub fn supports(&self, endpoint: Endpoint) -> bool {
        self.wire == Wire::OpenAi || endpoint == Endpoint::Chat
    }

    /// The names of all parameters that [`Self::splices`] may change. The reader of a body must record their entries.
    pub fn parameter_names(&self) -> impl Iterator<Item = &str> {
        let renamed = self.rename.iter().flat_map(|(ours, theirs)| [ours, theirs]);
        let set = self.set.iter().map(|(name, _)| name);
        let thinking = (self.reasoning == Reasoning::Needed).then_some(THINKING);
        renamed.chain(&self.drop).chain(set).map(String::as_str).chain(thinking)
    }

    /// The changes of a request's body for this vendor: the model's name, the parameters, and a request for the usage of a
    /// stream, which is always added. If a parameter is repeated, each occurrence is changed, because parsers disagree on
    /// which one counts.
    pub fn splices(&self, body: &Body, endpoint: Endpoint, model: &str) -> Splices {
        let mut splices = Splices::default();
        if body.model != model {
            splices.add(body.model_span.clone(), quoted(model));
        }
        let after_model = body.model_span.end;
        let mut removed: Vec<usize> = Vec::new();
        for (ours, theirs) in &self.rename {
            // If the request has both names, the vendor's own counts; a value set by the dialect comes before either.
            let has_theirs = named(body, theirs).next().is_some() || self.sets(theirs);
            for entry in named(body, ours) {
                if has_theirs {
                    removed.push(entry.number);
                } else {
                    splices.add(entry.key.clone(), quoted(theirs));
                }
            }
        }
        let dropped = self.drop.iter().flat_map(|name| named(body, name));
        removed.extend(dropped.map(|entry| entry.number));
        self.set_parameters(body, &mut splices);
        if endpoint == Endpoint::Chat {
            self.fix_messages(body, &mut splices);
            self.fix_history(body, model, &mut splices);
        }
        let streams = body.stream && matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
        if streams && !self.drop.iter().any(|name| name == STREAM_OPTIONS) && !self.sets(STREAM_OPTIONS) {
            match &body.stream_options {
                None => splices.insert(after_model, format!(",\"{STREAM_OPTIONS}\":{USAGE}")),
                Some(_) if body.wants_usage() => {}
                Some((place, old)) => splices.add(place.clone(), with_usage(old)),
            }
        }
        // Removals are added last, because an insertion after the model must come before a removal that begins there.
        remove(body, &removed, &mut splices);
        splices
    }

    /// Whether a parameter of the client is sent, under this or another name: it is neither dropped nor set.
    pub fn sends(&self, name: &str) -> bool {
        let renamed = self.rename.iter().find(|(ours, _)| ours == name);
        !self.sets(name)
            && !renamed.is_some_and(|(_, theirs)| self.sets(theirs))
            && !self.drop.iter().any(|dropped| dropped == name)
    }

    fn sets(&self, name: &str) -> bool {
        self.set.iter().any(|(parameter, _)| parameter == name)
    }

    fn set_parameters(&self, body: &Body, splices: &mut Splices) {
        for (name, value) in &self.set {
            set(body, name, value, splices);
        }
    }

    /// Adds the changes of messages that this vendor needs, as far as they were read with the request.
    fn fix_messages(&self, body: &Body, splices: &mut Splices) {
        if self.reasoning != Reasoning::Needed && !self.renames_developer {
            return;
        }
        let needs = body.input.needs();
        let start = body.input.start();
        if self.renames_developer {
            for role in &needs.developers {
                splices.add(role.start + start..role.end + start, "\"system\"");
            }
        }
        if self.reasoning == Reasoning::Needed && needs.calls_without_reasoning && !self.sets(THINKING) {
            set(body, THINKING, r#"{"type":"disabled"}"#, splices);
        }
    }

    /// Adds the changes of a conversation's history that this vendor needs because another vendor's model may have made it. They are read
    /// from the text of the body: without it there are none.
    pub fn fix_history(&self, body: &Body, model: &str, splices: &mut Splices) {
        let keeps = |extra| {
            extra == ExtraContent::Keep || (extra == ExtraContent::Needed && !wants_signatures(model))
        };
        let extra_content = self.extra_content.filter(|extra| !keeps(*extra));
        let drops_thoughts = self.reasoning == Reasoning::Drop;
        if drops_thoughts || extra_content.is_some() || self.call_ids.is_some() {
            let extra_content = extra_content.unwrap_or(ExtraContent::Keep);
            let rules = Rules { drops_thoughts, extra_content, ids: self.call_ids };
            history::adapt(body.input.text(), body.input.start(), rules, splices);
        }
    }
}

#[inline(never)]
fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(first, second)| ((*first).to_owned(), (*second).to_owned())).collect()
}

/// Whether a model is one of Google's that check the signatures of calls: those from Gemini 3 on.
fn wants_signatures(model: &str) -> bool {
    let version = model.split_once("gemini-").map(|(_, version)| version);
    version.is_some_and(|version| !version.starts_with(['1', '2']))
}

/// Sets a parameter to this JSON value, whether or not the client sent it.
fn set(body: &Body, name: &str, value: &str, splices: &mut Splices) {
    for entry in named(body, name) {
        splices.add(entry.value.clone(), value);
    }
    if named(body, name).next().is_none() {
        splices.insert(body.model_span.end, [",", &quoted(name), ":", value].concat());
    }
}

/// The entries with a name.
fn named<'a>(body: &'a Body, name: &'a str) -> impl Iterator<Item = &'a Entry> {
    body.entries.iter().filter(move |entry| entry.name == name)
}

/// DeepSeek's parameter that turns thinking on and off.
const THINKING: &str = "thinking";

/// The parameter in which a client requests the usage of a stream.
pub const STREAM_OPTIONS: &str = "stream_options";

const USAGE: &str = r#"{"include_usage":true}"#;

/// The client's `stream_options` with `include_usage` set.
fn with_usage(options: &str) -> String {
    let Ok(serde_json::Value::Object(mut options)) = serde_json::from_str(options) else {
        return USAGE.to_owned();
    };
    options.insert("include_usage".to_owned(), true.into());
    // `to_string` of the value itself would bring two more serializers into the module.
    serde_json::to_string(&options).unwrap_or_else(|_| USAGE.to_owned())
}

/// Removes entries, each with one comma: the one before it or, if no entry that stays comes before it, the one after it.
fn remove(body: &Body, removed: &[usize], splices: &mut Splices) {
    // The entries are in the order of the body.
    let entries = body.entries.iter().filter(|entry| removed.contains(&entry.number));
    for (count, entry) in entries.enumerate() {
        let nothing_before = count == entry.number;
        let place = match (nothing_before, entry.comma_before, entry.comma_after) {
            (false, Some(comma), _) => comma..entry.value.end,
            (_, _, Some(comma)) => entry.key.start..comma + 1,
            (_, _, None) => entry.key.start..entry.value.end,
        };
        splices.add(place, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splice(dialect: &Dialect, text: &str) -> String {
        let names: Vec<String> = dialect.parameter_names().map(str::to_owned).collect();
        let body = Body::read(text.as_bytes(), Endpoint::Chat, &names).unwrap();
        let splices = dialect.splices(&body, Endpoint::Chat, "theirs");
        let new = String::from_utf8(splices.apply(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(new.len(), splices.len_after(text.len()));
        new
    }

    #[test]
    fn the_model_is_renamed_and_the_usage_of_a_stream_is_requested() {
        let openai = Dialect::of(Vendor::OpenAi);
        for (old, new) in [
            (r#"{"model":"a","messages":[]}"#, r#"{"model":"theirs","messages":[]}"#),
            (r#"{"model":"theirs"}"#, r#"{"model":"theirs"}"#),
            (
                r#"{"stream":true,"model":"a"}"#,
                r#"{"stream":true,"model":"theirs","stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":true,"x":1},"stream":true,"model":"a"}"#,
                r#"{"stream_options":{"include_usage":true,"x":1},"stream":true,"model":"theirs"}"#,
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":{"x":1, "include_usage":false}}"#,
                r#"{"model":"theirs","stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"model":"a","stream":true,"stream_options":null}"#,
                r#"{"model":"theirs","stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            assert_eq!(splice(&openai, old), new);
        }
    }

    #[test]
    fn parameters_are_renamed_dropped_and_set() {
        let dialect = Dialect {
            rename: vec![("max_completion_tokens".to_owned(), "max_tokens".to_owned())],
            drop: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            set: vec![("t".to_owned(), "{\"x\":1}".to_owned())],
            ..Dialect::of(Vendor::OpenAi)
        };
        for (old, new) in [
            (
                r#"{"max_completion_tokens":5,"model":"theirs","t":0}"#,
                r#"{"max_tokens":5,"model":"theirs","t":{"x":1}}"#,
            ),
            (
                r#"{"max_completion_tokens":5,"max_tokens":6,"model":"theirs"}"#,
                r#"{"max_tokens":6,"model":"theirs","t":{"x":1}}"#,
            ),
            (r#"{ "a" : [1] , "b":2, "model":"theirs" }"#, r#"{   "model":"theirs","t":{"x":1} }"#),
            (r#"{"model":"theirs", "a":1, "b":{"model":2} ,"c":3}"#, r#"{"model":"theirs","t":{"x":1}}"#),
            (r#"{"a":1,"model":"theirs","c":3,"d":4}"#, r#"{"model":"theirs","t":{"x":1},"d":4}"#),
        ] {
            let spliced = splice(&dialect, old);
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(read(&spliced), read(new), "{spliced}");
        }
    }

    #[test]
    fn an_insertion_after_the_model_and_a_removal_at_the_same_place_are_both_made() {
        let dialect = Dialect { drop: vec!["a".to_owned()], ..Dialect::of(Vendor::OpenAi) };
        assert_eq!(
            splice(&dialect, r#"{"stream":true,"model":"theirs","a":1}"#),
            r#"{"stream":true,"model":"theirs","stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn every_occurrence_of_a_repeated_parameter_is_changed() {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let dialect = Dialect {
            rename: vec![("old".to_owned(), "new".to_owned())],
            drop: texts(&["gone"]),
            set: vec![("store".to_owned(), "false".to_owned())],
            ..Dialect::of(Vendor::OpenAi)
        };
        assert_eq!(
            splice(&dialect, r#"{"gone":1,"store":true,"model":"theirs","gone":2,"store":1,"gone":3}"#),
            r#"{"store":false,"model":"theirs","store":false}"#
        );
        assert_eq!(
            splice(&dialect, r#"{"store":0,"model":"theirs","old":1}"#),
            r#"{"store":false,"model":"theirs","new":1}"#
        );
    }

    #[test]
    fn a_set_parameter_replaces_one_that_is_renamed_to_it_and_occurs_once() {
        let dialect = Dialect {
            rename: vec![("old".to_owned(), "new".to_owned())],
            set: vec![("new".to_owned(), "5".to_owned()), ("stream_options".to_owned(), "{}".to_owned())],
            ..Dialect::of(Vendor::OpenAi)
        };
        assert_eq!(
            splice(&dialect, r#"{"model":"theirs","old":1,"stream":true}"#),
            r#"{"model":"theirs","new":5,"stream_options":{},"stream":true}"#
        );
    }

    #[test]
    fn reasoning_is_removed_for_a_vendor_that_refuses_it() {
        let dialect = Dialect { reasoning: Reasoning::Drop, ..Dialect::of(Vendor::OpenAi) };
        for (old, new) in [
            (
                r#"{"messages":[{"role":"assistant","reasoning_content":"r","content":"c"}],"model":"a"}"#,
                r#"{"messages":[{"role":"assistant","content":"c"}],"model":"theirs"}"#,
            ),
            (
                r#"{"model":"a", "messages": [{"reasoning_content":"r","role":"assistant"},{"role":"user"}]}"#,
                r#"{"model":"theirs", "messages": [{"role":"assistant"},{"role":"user"}]}"#,
            ),
        ] {
            assert_eq!(splice(&dialect, old), new);
        }
    }

    #[test]
    fn thinking_is_turned_off_at_deepseek_if_tool_calls_lack_their_reasoning() {
        let deepseek = Dialect::of(Vendor::DeepSeek);
        for (old, new) in [
            (
                r#"{"model":"a","messages":[{"role":"assistant","tool_calls":[{}]}]}"#,
                r#"{"model":"theirs","thinking":{"type":"disabled"},"messages":[{"role":"assistant","tool_calls":[{}]}]}"#,
            ),
            (
                r#"{"thinking":{"type":"enabled"},"messages":[{"tool_calls":[{}]}],"model":"a"}"#,
                r#"{"thinking":{"type":"disabled"},"messages":[{"tool_calls":[{}]}],"model":"theirs"}"#,
            ),
            (
                r#"{"thinking":1,"messages":[{"reasoning_content":"r","tool_calls":[{}]}],"model":"a"}"#,
                r#"{"thinking":1,"messages":[{"reasoning_content":"r","tool_calls":[{}]}],"model":"theirs"}"#,
            ),
            (
                r#"{"messages":[{"role":"developer"},{"role":"user","content":"developer"}],"model":"theirs"}"#,
                r#"{"messages":[{"role":"system"},{"role":"user","content":"developer"}],"model":"theirs"}"#,
            ),
        ] {
            assert_eq!(splice(&deepseek, old), new);
        }
    }

    #[test]
    fn a_conversation_that_began_elsewhere_is_made_fit_for_mistral() {
        let spliced = splice(
            &Dialect::of(Vendor::Mistral),
            r#"{"messages":[{"role":"developer","content":"d"},{"role":"assistant","reasoning":"r","tool_calls":[{"id":"call_1","extra_content":{}}]},{"role":"tool","tool_call_id":"call_1"}],"store":false,"model":"a","stream":true,"stream_options":{},"seed":1,"max_completion_tokens":5}"#,
        );
        let id = spliced.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(
            spliced,
            r#"{"messages":[{"role":"system","content":"d"},{"role":"assistant","tool_calls":[{"id":"ID"}]},{"role":"tool","tool_call_id":"ID"}],"model":"theirs","stream":true,"random_seed":1,"max_tokens":5}"#
                .replace("ID", id)
        );
        assert!(id.len() == 9 && id != "call_1");
    }

    #[test]
    fn calls_of_others_are_signed_for_googles_models_that_check_it() {
        let google = Dialect::of(Vendor::Google);
        let names = google.parameter_names().map(str::to_owned).collect::<Vec<_>>();
        let text = r#"{"model":"a","messages":[{"thinking":"t","tool_calls":[{"id":"1"}]}]}"#;
        for (model, signed) in [
            ("gemini-3-pro-preview", true),
            ("google/gemini-3.1-flash", true),
            ("models/gemini-4-pro", true),
            ("gemini-flash-latest", true),
            ("gemini-2.5-flash", false),
            ("models/gemini-1.5-pro", false),
            ("gemma-3-27b-it", false),
        ] {
            let body = Body::read(text.as_bytes(), Endpoint::Chat, &names).unwrap();
            let new = google.splices(&body, Endpoint::Chat, model).apply(text.as_bytes()).unwrap();
            let new = String::from_utf8(new).unwrap();
            assert_eq!(new.contains("skip_thought_signature_validator"), signed, "{new}");
            assert!(!new.contains("thinking") && serde_json::from_str::<serde_json::Value>(&new).is_ok());
        }
    }

    #[test]
    fn a_dialect_knows_its_paths_and_supported_endpoints() {
        let anthropic = Dialect::of(Vendor::Anthropic);
        assert_eq!(anthropic.path(Endpoint::Chat), "/messages");
        assert!(!anthropic.supports(Endpoint::Embeddings));
        assert_eq!(Dialect::of(Vendor::OpenAi).path(Endpoint::Embeddings), "/embeddings");
    }
}
