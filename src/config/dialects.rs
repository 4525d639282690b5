//! The `dialect` of a provider: the name of a vendor, or an object with the differences from a vendor.

use super::raw::{Json, Node, Object};
use crate::bytes::ascii;
use crate::client_api::request::{Endpoint, Feature, Features};
use crate::dialects::dialect::{Dialect, Reasoning, Vendor, Wire, STREAM_OPTIONS};

const VENDORS: [(&str, Vendor); 3] =
    [("openai", Vendor::OpenAi), ("deepseek", Vendor::DeepSeek), ("anthropic", Vendor::Anthropic)];

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
        messages(&node.object(&["reasoning", "developer"]), &mut dialect);
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
    if let Some(reasoning) = fields.optional("reasoning").and_then(|node| node.word(&REASONING)) {
        dialect.reasoning = reasoning;
    }
    let renames =
        fields.optional("developer").and_then(|node| node.word(&[("keep", false), ("system", true)]));
    dialect.renames_developer = renames.unwrap_or(dialect.renames_developer);
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
