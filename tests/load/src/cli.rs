//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use lexopt::prelude::*;

use crate::vendor::Vendor;
use crate::Error;

pub const USAGE: &str = "\
Usage:
  shunt-load upstream [--listen 127.0.0.1:0] [--status-listen ADDR] [--threads 1]
                      [--vendor openai|deepseek|anthropic]
                      [--answer-delay 0s] [--events 50] [--event-gap 0s] [--answer-bytes 600]
                      [--fail-first-status STATUS] [--exit-with-parent]
  shunt-load run      --target HOST:PORT --requests N [--connections 1] [--body-bytes 1000]
                      [--stream [--include-usage]]
                      [--path /v1/chat/completions] [--model assistant] [--model-first]
                      [--rate REQUESTS_PER_SECOND] [--expect-status 200] [--timeout 30s]
                      [--warmup REQUESTS_PER_CONNECTION] [--pid-a PID]
                      [--target2 HOST:PORT [--interleave K] [--pid-b PID] [--vendor2 openai]]
  shunt-load streams  --target HOST:PORT [--count 1500] [--hold 0s] [--body-bytes 1000]
                      [--path /v1/chat/completions] [--model assistant] [--model-first]
                      [--timeout 60s]

Durations are 3s, 250ms or a bare number of seconds. With --target2, --requests is per target, and
--interleave K alternates blocks of K requests between the two (default: one block each). Answers must
be in OpenAI's form; --vendor2 names another one for those of --target2.";

pub enum Command {
    Help,
    Upstream(UpstreamOptions),
    Run(RunOptions),
    Streams(StreamsOptions),
}

pub struct UpstreamOptions {
    pub listen: SocketAddr,
    /// A second address that answers the same, for reading `/stats` away from the loaded one.
    pub status_listen: Option<SocketAddr>,
    pub threads: usize,
    /// Whose form the answers have.
    pub vendor: Vendor,
    /// How long every answer is waited for.
    pub answer_delay: Duration,
    /// How many events with content a stream has.
    pub events: usize,
    pub event_gap: Duration,
    /// The size of a whole answer's JSON.
    pub answer_bytes: usize,
    /// Answer this status to everything.
    pub fail_status: Option<u16>,
    pub exit_with_parent: bool,
}

/// A server to load.
#[derive(Clone)]
pub struct Target {
    /// As it was given; it is also the `host` header.
    pub name: String,
    pub address: SocketAddr,
}

/// What to ask.
pub struct RequestOptions {
    pub path: String,
    pub model: String,
    /// Put `model` before `messages`, for comparison: OpenAI's own client puts it behind them.
    pub model_first: bool,
    pub body_bytes: usize,
    pub stream: bool,
    /// Ask for the usage of a stream.
    pub include_usage: bool,
    pub timeout: Duration,
}

pub struct RunOptions {
    pub target: Target,
    pub target2: Option<Target>,
    /// Whose form the answers of `target2` have.
    pub vendor2: Vendor,
    pub pid_a: Option<u32>,
    pub pid_b: Option<u32>,
    pub request: RequestOptions,
    pub expect_status: u16,
    /// For each target.
    pub requests: usize,
    pub connections: usize,
    /// Requests on each connection that are sent first and not counted.
    pub warmup: usize,
    pub interleave: Option<usize>,
    pub rate: Option<f64>,
}

pub struct StreamsOptions {
    pub target: Target,
    pub request: RequestOptions,
    pub count: usize,
    /// How long the upstream is asked to keep each stream open behind its first content.
    pub hold: Duration,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Command, Error> {
    match parser.next()? {
        Some(Value(name)) => match name.to_str() {
            Some("upstream") => upstream(parser),
            Some("run") => run(parser),
            Some("streams") => streams(parser),
            Some("help") => Ok(Command::Help),
            _ => Err(usage(format!("no such subcommand: {}", name.to_string_lossy()))),
        },
        Some(Long("help") | Short('h')) => Ok(Command::Help),
        Some(other) => Err(other.unexpected().into()),
        None => Err(usage("a subcommand is missing")),
    }
}

fn upstream(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let mut options = UpstreamOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        status_listen: None,
        threads: 1,
        vendor: Vendor::default(),
        answer_delay: Duration::ZERO,
        events: 50,
        event_gap: Duration::ZERO,
        answer_bytes: 600,
        fail_status: None,
        exit_with_parent: false,
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Long("listen") => options.listen = parser.value()?.parse()?,
            Long("status-listen") => options.status_listen = Some(parser.value()?.parse()?),
            Long("threads") => options.threads = positive(&mut parser, "--threads")?,
            Long("vendor") => options.vendor = parser.value()?.parse()?,
            Long("answer-delay") => options.answer_delay = parser.value()?.parse_with(duration)?,
            Long("events") => options.events = positive(&mut parser, "--events")?,
            Long("event-gap") => options.event_gap = parser.value()?.parse_with(duration)?,
            Long("answer-bytes") => options.answer_bytes = parser.value()?.parse()?,
            Long("fail-first-status") => {
                let status: u16 = parser.value()?.parse()?;
                if !(400..600).contains(&status) {
                    return Err(usage("--fail-first-status must be between 400 and 599"));
                }
                options.fail_status = Some(status);
            }
            Long("exit-with-parent") => options.exit_with_parent = true,
            Long("help") | Short('h') => return Ok(Command::Help),
            _ => return Err(arg.unexpected().into()),
        }
    }
    Ok(Command::Upstream(options))
}

fn run(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let (mut target_a, mut target_b, mut vendor_b) = (None, None, None);
    let (mut pid_a, mut pid_b) = (None, None);
    let (mut requests, mut connections) = (None, 1);
    let (mut warmup, mut interleave, mut rate) = (None, None, None);
    let mut expect_status = 200;
    let mut request = RequestOptions::new(Duration::from_secs(30));
    while let Some(arg) = parser.next()? {
        match arg {
            Long("target") => target_a = Some(target(&mut parser)?),
            Long("target2") => target_b = Some(target(&mut parser)?),
            Long("vendor2") => vendor_b = Some(parser.value()?.parse()?),
            Long("pid-a") => pid_a = Some(parser.value()?.parse()?),
            Long("pid-b") => pid_b = Some(parser.value()?.parse()?),
            Long("requests") => requests = Some(positive(&mut parser, "--requests")?),
            Long("connections") => connections = positive(&mut parser, "--connections")?,
            Long("warmup") => warmup = Some(parser.value()?.parse()?),
            Long("interleave") => interleave = Some(positive(&mut parser, "--interleave")?),
            Long("rate") => {
                let value: f64 = parser.value()?.parse()?;
                // So slow that a request might be due beyond what a clock can tell.
                if !(value.is_finite() && value >= 0.001) {
                    return Err(usage("--rate must be at least 0.001"));
                }
                rate = Some(value);
            }
            Long("expect-status") => expect_status = parser.value()?.parse()?,
            Long("stream") => request.stream = true,
            Long("include-usage") => request.include_usage = true,
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(name) if RequestOptions::NAMES.contains(&name) => {
                let name = name.to_owned();
                request.set(&name, &mut parser)?;
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if target_b.is_none() && (interleave.is_some() || pid_b.is_some() || vendor_b.is_some()) {
        return Err(usage("--interleave, --pid-b and --vendor2 need --target2"));
    }
    if request.include_usage && !request.stream {
        return Err(usage("--include-usage needs --stream"));
    }
    Ok(Command::Run(RunOptions {
        target: target_a.ok_or_else(|| usage("--target is missing"))?,
        requests: requests.ok_or_else(|| usage("--requests is missing"))?,
        // A comparison must not charge one side for opening connections. A plain run sends exactly
        // what it was asked to, so that a test can count what arrives.
        warmup: warmup.unwrap_or(if target_b.is_some() { 2 } else { 0 }),
        target2: target_b,
        vendor2: vendor_b.unwrap_or_default(),
        pid_a,
        pid_b,
        request,
        expect_status,
        connections,
        interleave,
        rate,
    }))
}

fn streams(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let mut target_a = None;
    let mut count = 1500;
    let mut hold = Duration::ZERO;
    let mut request = RequestOptions::new(Duration::from_secs(60));
    request.stream = true;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("target") => target_a = Some(target(&mut parser)?),
            Long("count") => count = positive(&mut parser, "--count")?,
            Long("hold") => hold = parser.value()?.parse_with(duration)?,
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(name) if RequestOptions::NAMES.contains(&name) => {
                let name = name.to_owned();
                request.set(&name, &mut parser)?;
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if hold >= request.timeout {
        return Err(usage("--hold must be below --timeout"));
    }
    Ok(Command::Streams(StreamsOptions {
        target: target_a.ok_or_else(|| usage("--target is missing"))?,
        request,
        count,
        hold,
    }))
}

impl RequestOptions {
    /// The options that `run` and `streams` share.
    const NAMES: [&'static str; 5] = ["path", "model", "model-first", "body-bytes", "timeout"];

    fn new(timeout: Duration) -> Self {
        Self {
            path: "/v1/chat/completions".to_owned(),
            model: "assistant".to_owned(),
            model_first: false,
            body_bytes: 1000,
            stream: false,
            include_usage: false,
            timeout,
        }
    }

    /// Takes the value of one of [`Self::NAMES`].
    fn set(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Error> {
        match name {
            "path" => self.path = parser.value()?.string()?,
            "model" => self.model = parser.value()?.string()?,
            "model-first" => self.model_first = true,
            "body-bytes" => self.body_bytes = parser.value()?.parse()?,
            "timeout" => self.timeout = parser.value()?.parse_with(duration)?,
            _ => return Err(usage(format!("invalid option '--{name}'"))),
        }
        Ok(())
    }
}

/// Resolved once, here: a load generator must not measure a name server.
fn target(parser: &mut lexopt::Parser) -> Result<Target, Error> {
    let name = parser.value()?.string()?;
    let address = name
        .to_socket_addrs()
        .map_err(|error| usage(format!("cannot resolve {name:?}: {error}")))?
        .next()
        .ok_or_else(|| usage(format!("{name:?} has no address")))?;
    Ok(Target { name, address })
}

fn positive(parser: &mut lexopt::Parser, name: &str) -> Result<usize, Error> {
    match parser.value()?.parse()? {
        0 => Err(usage(format!("{name} must be above 0"))),
        value => Ok(value),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, scale) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|value| Duration::try_from_secs_f64(value * scale).ok())
        .ok_or_else(|| "not a duration such as 3s or 250ms".to_owned())
}

fn usage(problem: impl Into<String>) -> Error {
    Error::Usage(problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Error> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn durations() {
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "-1s", "3m", "NaN"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_run_needs_a_target_and_a_number_of_requests() {
        for wrong in [
            "",
            "walk",
            "run --requests 1",
            "run --target 127.0.0.1:1",
            "run --target 127.0.0.1:1 --requests 0",
            "run --target 127.0.0.1:1 --requests 1 --interleave 5",
            "run --target 127.0.0.1:1 --requests 1 --vendor2 anthropic",
            "run --target 127.0.0.1:1 --requests 1 --include-usage",
            "run --target 127.0.0.1:1 --requests 1 --rate 0",
            "run --target 127.0.0.1:1 --requests 1 --nonsense",
            "streams --target 127.0.0.1:1 --hold 60s",
            "upstream --vendor nobody",
        ] {
            assert!(matches!(parsed(wrong), Err(Error::Usage(_))), "{wrong:?}");
        }
        let Ok(Command::Run(options)) = parsed("run --target 127.0.0.1:1 --requests 7 --model-first") else {
            panic!("a plain run was refused");
        };
        assert_eq!((options.requests, options.warmup), (7, 0));
        assert!(options.request.model_first);
    }
}
