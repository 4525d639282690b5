//! The `dialect` of a provider: the name of a vendor, or an object with the differences from a vendor.

use super::raw::{Json, Node, Object};
use crate::bytes::ascii;
use crate::client_api::request::{Endpoint, Feature, Features};
use crate::dialects::dialect::{Dialect, ExtraContent, Reasoning, Vendor, Wire, STREAM_OPTIONS};
use crate::dialects::history::CallIds;
use crate::routing::provider::Provider;

const VENDORS: [(&str, Vendor); 5] = [
    ("openai", Vendor::OpenAi),
    ("deepseek", Vendor::DeepSeek),
    ("anthropic", Vendor::Anthropic),
    ("mistral", Vendor::Mistral),
    ("google", Vendor::Google),
];

pub(super) fn dialect(node: &Node<'_>) -> Dialect {
    let vendor = |node: &Node<'_>| node.word(&VENDORS).unwrap_or(Vendor::OpenAi);
    if !matches!(node.json, Json::Object(_)) {
        return Dialect::of(vendor(node));
    }
    let fields = node.object(&["like", "paths", "key", "headers", "parameters", "messages", "lacks"]);
    let mut dialect = Dialect::of(fields.optional("like").map_or(Vendor::OpenAi, vendor));
    if let Some(node) = fields.optional("paths") {
        paths(node, &mut dialect);
    }
    if let Some(node) = fields.optional("key") {
        let fields = node.object(&["header", "prefix"]);
        if let Some(name) = fields.optional("header").and_then(header_name) {
            dialect.key_header = name;
            dialect.key_prefix = String::new();
        }
        if let Some(node) = fields.optional("prefix") {
            match node.json {
                Json::Text(text) if is_value(text) => dialect.key_prefix.clone_from(text),
                _ => node.expected("the text before the key, such as \"Bearer \""),
            }
        }
    }
    if let Some(node) = fields.optional("headers") {
        for (name, node) in node.entries("an object of headers") {
            let name = ascii::lower(name);
            let Some(value) = node.text("a header's value") else { continue };
            if !is_header(&name) || name == dialect.key_header {
                node.report("is not a request header that can be set");
            } else if is_value(value) {
                dialect.headers.retain(|(known, _)| *known != name);
                dialect.headers.push((name, value.to_owned()));
            } else {
                node.report("expected visible ASCII characters and spaces");
            }
        }
    }
    if let Some(node) = fields.optional("parameters") {
        if dialect.wire != Wire::OpenAi {
            node.report("requests to this vendor are translated, so their parameters cannot be changed");
        }
        parameters(&node.object(&["rename", "drop", "set"]), &mut dialect);
    }
    if let Some(node) = fields.optional("messages") {
        if dialect.wire != Wire::OpenAi {
            node.report("requests to this vendor are translated, so their messages cannot be changed");
        }
        messages(&node.object(&["reasoning", "developer", "extra_content", "tool_call_ids"]), &mut dialect);
    }
    if let Some(node) = fields.optional("lacks") {
        dialect.lacks = features(node);
    }
    dialect
}

/// Reads a list of features.
pub(super) fn features(node: &Node<'_>) -> Features {
    let known = Feature::ALL.map(|feature| (feature.name(), feature));
    let found = node.list("a list of features");
    found.iter().filter_map(|node| node.word(&known)).fold(Features::default(), Features::with)
}

fn messages(fields: &Object<'_>, dialect: &mut Dialect) {
    const REASONING: [(&str, Reasoning); 3] =
        [("keep", Reasoning::Keep), ("drop", Reasoning::Drop), ("needed", Reasoning::Needed)];
    const EXTRA_CONTENT: [(&str, ExtraContent); 3] =
        [("keep", ExtraContent::Keep), ("drop", ExtraContent::Drop), ("needed", ExtraContent::Needed)];
    if let Some(reasoning) = fields.optional("reasoning").and_then(|node| node.word(&REASONING)) {
        dialect.reasoning = reasoning;
    }
    let renames =
        fields.optional("developer").and_then(|node| node.word(&[("keep", false), ("system", true)]));
    dialect.renames_developer = renames.unwrap_or(dialect.renames_developer);
    let extra_content = fields.optional("extra_content").and_then(|node| node.word(&EXTRA_CONTENT));
    dialect.extra_content = extra_content.or(dialect.extra_content);
    if let Some(node) = fields.optional("tool_call_ids") {
        dialect.call_ids = call_ids(node);
    }
}

/// Which ids of tool calls the vendor takes: `"keep"` (all), or their length.
fn call_ids(node: &Node<'_>) -> Option<CallIds> {
    if !matches!(node.json, Json::Object(_)) {
        node.word(&[("keep", ())]);
        return None;
    }
    let fields = node.object(&["length", "max_length"]);
    // Shorter ids could not all be told apart.
    let length = |name| fields.optional(name).and_then(|node| node.whole(8, 64));
    let exactly = length("length").map(|length| CallIds::Exactly(length as usize));
    let at_most = length("max_length").map(|most| CallIds::AtMost(most as usize));
    if exactly.is_some() && at_most.is_some() {
        node.report("\"length\" and \"max_length\" exclude each other");
    }
    exactly.or(at_most)
}

/// Says what becomes of `extra_content` at each provider whose dialect does not. Google's own hosts take it, and their newer models need
/// it. If any provider takes it, the client may have got it from there, so the others, which may be strict, are not sent it.
pub(super) fn settle_extra_content(providers: &mut [Provider]) {
    let undecided = |provider: &&mut Provider| provider.dialect.extra_content.is_none();
    for provider in providers.iter_mut().filter(undecided) {
        let host = provider.host.split(':').next().unwrap_or_default();
        if ascii::lower(host).ends_with("googleapis.com") {
            provider.dialect.extra_content = Some(ExtraContent::Needed);
        }
    }
    let takes = |provider: &Provider| {
        matches!(provider.dialect.extra_content, Some(ExtraContent::Keep | ExtraContent::Needed))
    };
    if providers.iter().any(takes) {
        for provider in providers.iter_mut().filter(undecided) {
            provider.dialect.extra_content = Some(ExtraContent::Drop);
        }
    }
}

fn paths(node: &Node<'_>, dialect: &mut Dialect) {
    const WHAT: &str = "a path such as \"/chat/completions\"";
    let names: Vec<&str> =
        Endpoint::ALL.iter().map(|endpoint| endpoint.suffix().trim_start_matches('/')).collect();
    let known = node.object(&names);
    for (endpoint, name) in Endpoint::ALL.into_iter().zip(&names) {
        let Some(node) = known.optional(name) else { continue };
        let Some(path) = node.text(WHAT) else { continue };
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            node.expected(WHAT);
            continue;
        }
        dialect.paths.retain(|(known, _)| *known != endpoint);
        dialect.paths.push((endpoint, path.to_owned()));
    }
}

/// The parameters that a dialect cannot change, because the filter writes them itself.
const FIXED: [&str; 3] = ["model", "stream", "messages"];

fn parameters(fields: &Object<'_>, dialect: &mut Dialect) {
    let can_change = |node: &Node<'_>, name: &str| {
        let can_change = !FIXED.contains(&name);
        if !can_change {
            node.report("cannot be changed by a dialect");
        }
        can_change
    };
    if let Some(node) = fields.optional("rename") {
        for (ours, node) in node.entries("an object of names") {
            let Some(theirs) = node.text("a parameter's name") else { continue };
            // The filter requests the usage of a stream under this name.
            if ours == STREAM_OPTIONS || theirs == STREAM_OPTIONS {
                node.report("cannot be renamed by a dialect");
            } else if can_change(&node, ours) && can_change(&node, theirs) {
                dialect.rename.retain(|(known, _)| known != ours);
                dialect.rename.push((ours.to_owned(), theirs.to_owned()));
            }
        }
    }
    if let Some(node) = fields.optional("drop") {
        for node in node.list("a list of parameters") {
            let Some(name) = node.text("a parameter's name") else { continue };
            if can_change(&node, name) {
                dialect.drop.push(name.to_owned());
            }
        }
    }
    if let Some(node) = fields.optional("set") {
        for (name, node) in node.entries("an object of parameters") {
            if can_change(&node, name) {
                dialect.set.push((name.to_owned(), node.json.to_json()));
            }
        }
    }
}

fn header_name(node: &Node<'_>) -> Option<String> {
    let name = ascii::lower(node.text("a header name")?);
    if !is_header(&name) {
        node.expected("a header name");
        return None;
    }
    Some(name)
}

/// Whether a text is the name of a header that the filter does not write itself.
fn is_header(name: &str) -> bool {
    const WRITTEN: [&str; 7] = [
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "connection",
        "transfer-encoding",
    ];
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !name.is_empty()
        && name.bytes().all(allowed)
        && !WRITTEN.contains(&name)
        && !name.starts_with("x-shunt-")
        && !name.starts_with("x-envoy-")
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The dialects of the configured providers, which are given by host and dialect; or what is wrong.
    fn dialects(providers: &[(&str, &str)]) -> Result<Vec<Dialect>, String> {
        let provider = |(number, (host, dialect)): (usize, &(&str, &str))| {
            let dialect =
                if dialect.is_empty() { String::new() } else { format!(r#""dialect": {dialect},"#) };
            format!(
                r#""p{number}": {{"host": "{host}", "api_key": "$KEY", {dialect} "models": {{"*": "*"}}}}"#
            )
        };
        let providers: Vec<String> = providers.iter().enumerate().map(provider).collect();
        let text = format!(
            r#"{{"providers": {{{}}}, "routes": [{{"name": "r", "match": {{"path": "/v1/chat/completions"}}, "providers": ["p0"]}}]}}"#,
            providers.join(",")
        );
        let config = Config::parse(&text, &|_| Some("sk-test".to_owned()));
        let config = config.map_err(|error| error.to_string())?;
        Ok(config.providers.iter().map(|provider| provider.dialect.clone()).collect())
    }

    #[test]
    fn extra_content_is_dropped_for_others_where_one_provider_takes_it() {
        use ExtraContent::{Drop, Keep, Needed};
        const GOOGLE: &str = "generativelanguage.googleapis.com";
        for (providers, expected) in [
            (vec![("h", ""), ("h", r#""deepseek""#)], vec![None, None]),
            (vec![("h", ""), ("h", r#""mistral""#)], vec![None, Some(Drop)]),
            (vec![("h", ""), ("h", r#""google""#)], vec![Some(Drop), Some(Needed)]),
            // Google's own hosts need no dialect.
            (vec![(GOOGLE, ""), ("h", r#""deepseek""#)], vec![Some(Needed), Some(Drop)]),
            (vec![("h", ""), ("Aiplatform.googleapis.com:443", "{}")], vec![Some(Drop), Some(Needed)]),
            (
                vec![("h", ""), (GOOGLE, r#"{"messages": {"extra_content": "keep"}}"#)],
                vec![Some(Drop), Some(Keep)],
            ),
            // What a dialect says, counts.
            (
                vec![("h", r#"{"messages": {"extra_content": "keep"}}"#), ("i", "")],
                vec![Some(Keep), Some(Drop)],
            ),
            (vec![(GOOGLE, r#"{"messages": {"extra_content": "drop"}}"#), ("i", "")], vec![Some(Drop), None]),
            (vec![("h", r#"{"like": "google", "messages": {"reasoning": "keep"}}"#)], vec![Some(Needed)]),
        ] {
            let found: Vec<_> =
                dialects(&providers).unwrap().iter().map(|dialect| dialect.extra_content).collect();
            assert_eq!(found, expected, "{providers:?}");
        }
    }

    #[test]
    fn ids_of_calls_have_a_length_or_a_longest_one() {
        for (ids, expected) in [
            (r#"{"length": 9}"#, Some(CallIds::Exactly(9))),
            (r#"{"max_length": 40}"#, Some(CallIds::AtMost(40))),
            ("{}", None),
            (r#""keep""#, None),
        ] {
            for like in ["openai", "google"] {
                let dialect = format!(r#"{{"like": "{like}", "messages": {{"tool_call_ids": {ids}}}}}"#);
                assert_eq!(dialects(&[("h", &dialect)]).unwrap()[0].call_ids, expected, "{ids}");
            }
        }
        assert_eq!(dialects(&[("h", r#""mistral""#)]).unwrap()[0].call_ids, Some(CallIds::Exactly(9)));
        let kept = r#"{"like": "mistral", "messages": {"tool_call_ids": "keep"}}"#;
        assert_eq!(dialects(&[("h", kept)]).unwrap()[0].call_ids, None);
    }

    #[test]
    fn a_wrong_rule_for_messages_is_reported_at_its_place() {
        for (messages, place) in [
            (r#"{"tool_call_ids": {"length": 7}}"#, "messages.tool_call_ids.length"),
            (r#"{"tool_call_ids": {"length": 9, "max_length": 40}}"#, "messages.tool_call_ids"),
            (r#"{"tool_call_ids": {"min_length": 40}}"#, "messages.tool_call_ids"),
            (r#"{"tool_call_ids": "nine"}"#, "messages.tool_call_ids"),
            (r#"{"tool_call_ids": 9}"#, "messages.tool_call_ids"),
            (r#"{"extra_content": "sign"}"#, "messages.extra_content"),
        ] {
            let error = dialects(&[("h", &format!(r#"{{"messages": {messages}}}"#))]).unwrap_err();
            assert!(error.contains(&["providers.p0.dialect.", place].concat()), "{error}");
        }
    }
}
