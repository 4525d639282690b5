//! Reads a configuration from standard input, as the gateway does: `check-config OPENAI_API_KEY < document.json`.
//!
//! The arguments are the environment variables that count as set. Prints the providers that have a key and the warnings. If there
//! are problems, prints every problem with its path, and ends with status 1.

use std::io::Read as _;
use std::process::ExitCode;

use shunt::config::Config;

fn main() -> ExitCode {
    let set: Vec<String> = std::env::args().skip(1).collect();
    let mut text = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut text) {
        eprintln!("standard input: {error}");
        return ExitCode::FAILURE;
    }
    // The values of the variables do not matter, because they are not printed.
    let environment = |name: &str| set.iter().any(|known| known == name).then(|| "set".to_owned());
    match Config::parse(&text, &environment) {
        Ok(config) => {
            for provider in &config.providers {
                println!("provider {}", provider.name);
            }
            for warning in &config.warnings {
                println!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}
