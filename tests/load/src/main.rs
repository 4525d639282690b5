//! `shunt-load`: what `make bench` and the load tests use to put load on Shunt.
//!
//! - `upstream` is a fast fake of OpenAI's `/chat/completions`, or of another vendor's answers, so that a
//!   benchmark measures the proxy and not the thing behind it;
//! - `run` is a closed-loop load generator that checks every answer, and can compare two targets;
//! - `streams` opens many streamed requests at once and reads all of them to their ends.
//!
//! Each prints one JSON line on stdout, for a script to read. A failed *request* is a number in that
//! line and not an error of this tool: the exit code is 0 whenever a report was printed, 2 for a wrong
//! command line, and 1 for anything else that kept it from working.

mod cli;
mod client;
mod http;
mod payload;
mod procfs;
mod report;
mod run;
mod search;
mod sse;
mod streams;
mod upstream;
mod vendor;

use std::fmt;
use std::io;
use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    match execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Usage(problem)) => {
            eprintln!("shunt-load: {problem}\n\n{}", cli::USAGE);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("shunt-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute() -> Result<(), Error> {
    match cli::parse(lexopt::Parser::from_env())? {
        Command::Help => {
            println!("{}", cli::USAGE);
            Ok(())
        }
        Command::Upstream(options) => runtime(options.threads)?.block_on(upstream::serve(options)),
        Command::Run(options) => {
            let report = runtime(1)?.block_on(run::run(options))?;
            println!("{report}");
            Ok(())
        }
        Command::Streams(options) => {
            let report = runtime(1)?.block_on(streams::run(options))?;
            println!("{report}");
            Ok(())
        }
    }
}

/// A load generator or fake that spreads over every core takes them from the proxy it measures, so one
/// thread means exactly that: tokio's current-thread runtime.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(Error::io("cannot start the runtime"))
}

/// Why the tool could not do its work.
#[derive(Debug)]
enum Error {
    Usage(String),
    Io { doing: String, source: io::Error },
    Failed(String),
}

impl Error {
    /// For `map_err`: an I/O error with what was being done.
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(problem) | Self::Failed(problem) => f.write_str(problem),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}
