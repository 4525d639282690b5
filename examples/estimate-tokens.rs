//! Estimates the tokens of texts: a JSON array of them on stdin, a JSON array of numbers on stdout.
//! `scripts/fit-tokens.py` compares them with what a vocabulary counts.

use std::io::{stdin, Error};

use serde_json::Value;

fn main() -> Result<(), Error> {
    let texts: Vec<Value> = serde_json::from_reader(stdin())?;
    let estimates: Vec<u64> = texts.iter().map(estimate).collect();
    println!("{}", Value::from(estimates));
    Ok(())
}

fn estimate(text: &Value) -> u64 {
    let quoted = text.to_string();
    // The filter reads what stands between the quotes.
    let raw = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
    shunt::spend::tokens::of_text(raw.as_bytes())
}
