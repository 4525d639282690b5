//! The codes of the gateway's own errors are in the list of `docs/schema.md`, and the list has no other.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use shunt::client_api::errors::of_gateway;

/// The answer of Envoy's spare endpoint, by which the filter knows that no host is healthy. No client gets it.
const FOR_THE_FILTER: &str = "no_healthy_upstream";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between `before` and the next quote or backquote, everywhere in a text.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(['"', '`']).next())
}

/// The source of the core and the shells, without their tests.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
}

/// The codes that the source writes into an envelope.
fn written() -> BTreeSet<String> {
    let mut texts = Vec::new();
    sources(&root().join("src"), &mut texts);
    let mut codes = BTreeSet::new();
    for text in &texts {
        for start in [" envelope(", "Self::invalid(", "code: Some("] {
            for (at, _) in text.match_indices(start) {
                let rest = text.get(at..).unwrap_or_default();
                // The call ends with its statement, or with the block whose value it is.
                let call = rest.split(';').next().unwrap_or_default();
                let call = call.split("\n    }").next().unwrap_or_default();
                codes.extend(quoted(call, "Some(\"").map(str::to_owned));
            }
        }
    }
    for status in 400..600 {
        let body: Value = serde_json::from_slice(&of_gateway(status).body).unwrap();
        codes.insert(body["error"]["code"].as_str().unwrap().to_owned());
    }
    let listeners = fs::read_to_string(root().join("envoy/listeners.yaml")).unwrap();
    codes.extend(quoted(&listeners, "\"code\":\"").map(str::to_owned));
    codes.remove(FOR_THE_FILTER);
    codes.into_iter().map(|code| code.replace("gateway_%RESPONSE_CODE%", "gateway_400")).collect()
}

/// The codes of the list.
fn listed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/schema.md")).unwrap();
    let list = text.split("**Errors of the gateway itself** have these codes:").nth(1).unwrap();
    let list = list.split("\n## ").next().unwrap();
    let cells = list.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let cells: Vec<String> = cells.map(|cell| format!("`{cell}")).collect();
    let codes = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
    codes.map(str::to_owned).collect()
}

#[test]
fn every_code_of_the_gateways_own_errors_is_listed_and_no_other() {
    let (written, listed) = (written(), listed());
    assert!(written.contains("price_cap_exceeded") && written.contains("upgrade_not_supported"));
    assert!(written.contains("budget_exceeded") && written.contains("stream_truncated"));
    let missing: Vec<&String> = written.difference(&listed).collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/schema.md lacks these codes");
    let unknown: Vec<&String> = listed.difference(&written).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "nothing writes these codes");
}
