//! The `providers` of the configuration: the address, the key and the models of each.

use super::dialects::{dialect, features, settle_extra_content};
use super::names::{is_name, Names};
use super::prices::price;
use super::raw::{Json, Node, Object};
use crate::bytes::ascii;
use crate::dialects::dialect::{Dialect, Vendor};
use crate::routing::provider::{ApiKey, Identity, Model, Provider, Score};
use crate::routing::rewrite::is_never_forwarded;

/// Reads the providers. Returns those that have a key, and the names of all.
pub(super) fn providers<'a>(
    top: &Object<'a>,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> (Vec<Provider>, Names<'a>) {
    let Some(node) = top.required("providers", "an object of providers") else { return Default::default() };
    let entries = node.entries("an object of providers");
    if entries.is_empty() && matches!(node.json, Json::Object(_)) {
        node.report("expected at least one provider, found none");
    }
    let mut providers = Vec::new();
    let mut names = Names::default();
    for (name, node) in &entries {
        names.all.push(name);
        if !is_name(name) || name.starts_with('-') {
            node.report("expected a name of lower-case letters, digits, \"-\" and \"_\", at most 64, that does not begin with \"-\"");
        }
        let warned = warnings.len();
        providers.extend(provider(name, node, environment, warnings));
        if warnings.len() > warned {
            names.left_out.push(name);
        }
    }
    settle_extra_content(&mut providers);
    (providers, names)
}

/// Reads one provider. `None` if it is optional and has no key, or if there is a problem.
fn provider(
    name: &str,
    node: &Node<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Option<Provider> {
    const KEYS: [&str; 8] =
        ["host", "path_prefix", "api_key", "dialect", "models", "optional", "allow_headers", "region"];
    let fields = node.object(&KEYS);
    let host = fields.required("host", "a host name").and_then(host);
    let path_prefix = fields.optional("path_prefix").map_or(Some("/v1".to_owned()), path_prefix);
    let dialect = fields.optional("dialect").map_or_else(|| Dialect::of(Vendor::OpenAi), dialect);
    let models = fields.required("models", "an object of models").map(models);
    let optional = fields.optional("optional").and_then(Node::boolean).unwrap_or(false);
    let allow_headers = fields.optional("allow_headers").map(allow_headers).unwrap_or_default();
    let region = fields.optional("region").and_then(|node| node.text("the name of a region"));
    let key = fields
        .required("api_key", "the name of an environment variable, such as \"$OPENAI_API_KEY\"")
        .map(|node| api_key(node, environment, Some(optional), &dialect.key_prefix))?;
    if let Key::LeftOut(variable) = &key {
        warnings.push(format!("provider {name:?} is left out: {variable} is not set, and it is optional"));
    }
    let Key::Found(api_key) = key else { return None };
    let (host, path_prefix, models) = (host?, path_prefix?, models?);
    let identity = Identity::of(name, &host, &path_prefix, &api_key);
    Some(Provider {
        name: name.to_owned(),
        host,
        path_prefix,
        region: region.unwrap_or_default().to_owned(),
        api_key,
        models,
        prices: Vec::new(),
        dialect,
        allow_headers,
        identity,
    })
}

/// A secret that the configuration names.
pub(super) enum Key {
    Found(ApiKey),
    /// The variable with this name is not set, which is allowed.
    LeftOut(String),
    /// There is a problem, which was reported.
    Wrong,
}

/// Reads a secret from the environment. `optional` says whether its provider may be left out if it has none; `None` if it is not the
/// secret of a provider.
pub(super) fn api_key(
    node: &Node<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    optional: Option<bool>,
    prefix: &str,
) -> Key {
    let variable = match node.json {
        Json::Text(text) => text.strip_prefix('$').filter(|name| is_variable(name)),
        _ => None,
    };
    // The message does not show what was found, because it may be the key itself.
    let Some(variable) = variable else {
        node.report("expected the name of an environment variable, such as \"$OPENAI_API_KEY\", found something else (a literal key is refused)");
        return Key::Wrong;
    };
    match environment(variable).filter(|value| !value.trim().is_empty()) {
        Some(value) => match ApiKey::new(prefix, &value) {
            Ok(key) => Key::Found(key),
            Err(what) => {
                node.report(format!("the environment variable {variable} {what}"));
                Key::Wrong
            }
        },
        None if optional == Some(true) => Key::LeftOut(variable.to_owned()),
        None => {
            let or = if optional.is_some() { ", or make the provider \"optional\": true" } else { "" };
            node.report(format!(
                "the environment variable {variable} is not set (set it where the gateway starts and let it through to the filter{or})"
            ));
            Key::Wrong
        }
    }
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A host name, perhaps with a port.
pub(super) fn host(node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "a host name, with a port if it is not the default, such as \"api.openai.com\"";
    let text = node.text(WHAT)?;
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !text.bytes().all(allowed) {
        node.expected(WHAT);
        return None;
    }
    Some(text.to_owned())
}

/// The path before every request's path. `/` means that there is none.
fn path_prefix(node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "a path such as \"/v1\" or \"/\"";
    let text = node.text(WHAT)?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'\\');
    if !text.starts_with('/') || !text.bytes().all(allowed) {
        node.expected(WHAT);
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// The request headers that are forwarded to the provider. Headers that carry a client's identity or control the gateway can never
/// be among them.
fn allow_headers(node: &Node<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for node in node.list("a list of header names") {
        let Some(text) = node.text("a header name") else { continue };
        let name = ascii::lower(text);
        if !is_name(&name) {
            node.expected("a header name");
        } else if is_never_forwarded(&name) {
            node.report(format!("the header {name:?} never reaches a provider"));
        } else {
            names.push(name);
        }
    }
    names
}

fn models(node: &Node<'_>) -> Vec<Model> {
    let entries = node.entries("an object of models");
    if entries.is_empty() && matches!(node.json, Json::Object(_)) {
        node.report("expected at least one model, such as {\"*\": \"*\"}, found none");
    }
    entries.iter().filter_map(|(alias, node)| model(alias, node)).collect()
}

fn model(alias: &str, node: &Node<'_>) -> Option<Model> {
    const WHAT: &str = "the provider's name for the model, or an object with it";
    let alias = alias.to_owned();
    if let Json::Object(_) = node.json {
        let fields = node.object(&["name", "context", "max_output", "quality", "price", "lacks"]);
        let name = fields.required("name", WHAT).and_then(|node| node.text(WHAT));
        let context = fields.optional("context").and_then(|node| node.whole(1, 100_000_000));
        let max_output = fields.optional("max_output").and_then(|node| node.whole(1, 100_000_000));
        let quality = fields.optional("quality").and_then(|node| node.number(0.0, 1.0)).map(Score::new);
        let price = fields.optional("price").map(price);
        let lacks = fields.optional("lacks").map(features);
        return Some(Model { alias, name: name?.to_owned(), context, max_output, price, lacks, quality });
    }
    Some(Model {
        alias,
        name: node.text(WHAT)?.to_owned(),
        context: None,
        max_output: None,
        price: None,
        lacks: None,
        quality: None,
    })
}
