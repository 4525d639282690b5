//! Providers that bear a number of requests per second. What is beyond it waits, so that a provider is the slower the more it gets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use fastrand::Rng;
use serde_json::{json, Map, Value};
use shunt::base::clock::Timestamp;
use shunt::config::Config;
use shunt::spend::usage::Usage;

use super::day::at;
use super::run::{run, Served};
use super::world::{log_normal, pause, random, Attempt, Fate, Request, World, FIRST_TOKEN_LIMIT};
use super::{percentile, success};

const NAMES: [&str; 3] = ["onyx", "pyrite", "quartz"];
const ROUTE: &str = "/v1/chat/completions";

/// Tokens per second after the first one.
const SPEED: u64 = 80;

/// What a provider bears.
#[derive(Clone, Copy, Debug)]
struct Bears {
    /// Requests per second.
    rate: u32,
    /// The median of the time for which a request occupies one of its servers, until its first token, in milliseconds. The tokens after
    /// it come from many requests' batches together, and occupy none.
    millis: u32,
}

/// What is sent to which providers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// The requests per second that arrive.
    rate: f64,
    providers: &'static [Bears],
    /// In the middle third of the time the first provider takes this many times as long.
    slower: f64,
    /// The answers are live streams, rather than whole answers of few tokens.
    live: bool,
}

const LARGE: Bears = Bears { rate: 80, millis: 50 };
const SMALL: Bears = Bears { rate: 40, millis: 50 };
const SLOW: Bears = Bears { rate: 100, millis: 100 };

const USUAL: Load =
    Load { name: "80 and 80", rate: 100.0, providers: &[LARGE, LARGE], slower: 1.0, live: true };

pub(crate) const LOADS: [Load; 7] = [
    USUAL,
    Load { name: "80 and 80, whole answers", live: false, ..USUAL },
    Load { name: "80, 80 and 80", rate: 150.0, providers: &[LARGE, LARGE, LARGE], ..USUAL },
    Load { name: "80 and 40", providers: &[LARGE, SMALL], ..USUAL },
    Load { name: "80, 40 and 40", providers: &[LARGE, SMALL, SMALL], ..USUAL },
    Load { name: "80 and 80, the first one 40 for a while", slower: 2.0, ..USUAL },
    Load { name: "40, and 100 in twice the time", providers: &[SMALL, SLOW], ..USUAL },
];

pub(crate) struct Capacity {
    pub(crate) load: Load,
    seed: u64,
    /// The middle third of the time.
    middle: std::ops::Range<Timestamp>,
    requests: Vec<Request>,
}

impl Capacity {
    pub(crate) fn new(load: Load, seed: u64, minutes: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let (mut requests, mut seconds) = (Vec::new(), 0.0);
        let length = (minutes * 60) as f64;
        loop {
            seconds += pause(&mut random, load.rate);
            if seconds >= length {
                let [from, to] = [1.0, 2.0].map(|thirds| at(length * thirds / 3.0 / 3600.0));
                return Self { load, seed, middle: from..to, requests };
            }
            let [input, output] = [(900.0, 0.8), (if load.live { 250.0 } else { 8.0 }, 0.7)]
                .map(|(median, spread)| log_normal(&mut random, median, spread) as u64 + 1);
            requests.push(Request {
                at: at(seconds / 3600.0),
                path: ROUTE,
                live: load.live,
                usage: Usage { input, output, ..Usage::default() },
                max_output: output.next_power_of_two().max(256),
            });
        }
    }

    fn served_by(&self, policy: &Value) -> Vec<Served> {
        let provider =
            |name: &&str| ((*name).to_owned(), json!({"host": "h", "api_key": "$KEY", "models": {"m": "m"}}));
        let providers: Map<String, Value> = self.names().iter().map(provider).collect();
        let route =
            json!({"name": "chat", "match": {"path": ROUTE}, "providers": self.names(), "policy": policy});
        let document = json!({"providers": providers, "routes": [route]});
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
        run(self, &[Rc::new(config.unwrap_or_else(|problems| panic!("{problems}")))])
    }

    pub(crate) fn by_latency(&self) -> Vec<Served> {
        self.served_by(&json!({"type": "latency"}))
    }

    /// Every provider gets the same share, whatever it bears.
    pub(crate) fn in_equal_shares(&self) -> Vec<Served> {
        self.in_shares(|_| 1)
    }

    /// Every provider gets the share that it bears.
    pub(crate) fn by_capacity(&self) -> Vec<Served> {
        self.in_shares(|bears| bears)
    }

    fn in_shares(&self, weight: impl Fn(u32) -> u32) -> Vec<Served> {
        let weights = self.names().iter().zip(self.load.providers);
        let weights: Map<String, Value> =
            weights.map(|(name, bears)| ((*name).to_owned(), json!(weight(bears.rate)))).collect();
        self.served_by(&json!({"type": "weighted", "weights": weights}))
    }

    /// Each request in turn goes to the provider where its first token comes earliest; all queues are known.
    pub(crate) fn hindsight(&self) -> Vec<Served> {
        let mut queues = self.begin();
        let served = |(request, Request { at, .. }): (usize, &Request)| {
            let attempt = |provider: usize| Attempt { request, provider, number: 1, at: *at };
            let wait = |provider: &usize| self.service(attempt(*provider)) + queues[*provider].wait(*at);
            let provider = (0..queues.len()).min_by_key(wait).unwrap();
            match self.attempt(&mut queues, attempt(provider)) {
                Fate::Answers { first_token, end } => {
                    Served::answered(*at, provider, if self.load.live { first_token } else { end }, 0.0)
                }
                Fate::Fails { .. } => Served::unanswered(*at),
            }
        };
        self.requests.iter().enumerate().map(served).collect()
    }

    /// For how long an attempt occupies a server, in microseconds.
    fn service(&self, attempt: Attempt) -> u64 {
        let is_slower = attempt.provider == 0 && self.middle.contains(&attempt.at);
        let factor = if is_slower { self.load.slower } else { 1.0 };
        let median = f64::from(self.load.providers[attempt.provider].millis) * factor;
        (log_normal(&mut random(self.seed, attempt), median, 0.1) * 1000.0) as u64
    }

    /// How long the clients of each way waited, as a row of a table.
    fn row(&self) -> String {
        let ways = [self.in_equal_shares(), self.by_capacity(), self.by_latency(), self.hindsight()];
        let cell = |served: &Vec<Served>| {
            let [p50, p95] = [50, 95].map(|percent| percentile(served, percent));
            let unanswered = match 1.0 - success(served) {
                0.0 => String::new(),
                share => format!(", {:.1} % unanswered", 100.0 * share),
            };
            format!("{p50} / {p95} ms{unanswered}")
        };
        let cells = ways.each_ref().map(cell).join(" | ");
        format!("| {} | {:.0} | {cells} |\n", self.load.name, self.load.rate)
    }
}

/// How long the clients of each way waited under each load.
pub(crate) fn table(seed: u64, minutes: u64) -> String {
    let mut table = String::from(
        "| | arrive per second | equal shares | by capacity | latency | hindsight |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for load in LOADS {
        table += &Capacity::new(load, seed, minutes).row();
    }
    table
}

/// When each server of a provider is free again, in microseconds.
pub(crate) struct Servers(BinaryHeap<Reverse<u64>>);

impl Servers {
    /// How long a request that comes now waits for a server, in microseconds.
    fn wait(&self, now: Timestamp) -> u64 {
        let Reverse(free) = self.0.peek().unwrap();
        free.saturating_sub(now.as_millis() * 1000)
    }

    /// The request that comes now waits for a server and occupies it for a time.
    fn occupy(&mut self, now: Timestamp, service: u64) {
        let then = now.as_millis() * 1000 + self.wait(now) + service;
        self.0.pop();
        self.0.push(Reverse(then));
    }
}

impl World for Capacity {
    type State = Vec<Servers>;

    fn names(&self) -> &[&'static str] {
        &NAMES[..self.load.providers.len()]
    }

    fn requests(&self) -> &[Request] {
        &self.requests
    }

    fn begin(&self) -> Self::State {
        let servers = |bears: &Bears| {
            let count = bears.rate * bears.millis / 1000;
            Servers((0..count).map(|_| Reverse(0)).collect())
        };
        self.load.providers.iter().map(servers).collect()
    }

    fn attempt(&self, queues: &mut Self::State, attempt: Attempt) -> Fate {
        let queue = &mut queues[attempt.provider];
        let service = self.service(attempt);
        let first_token = (queue.wait(attempt.at) + service) / 1000;
        // Who would wait for longer than the limit leaves the queue before a server is free.
        if first_token < FIRST_TOKEN_LIMIT {
            queue.occupy(attempt.at, service);
        }
        Fate::of(first_token, self.requests[attempt.request].usage.output * 1000 / SPEED)
    }
}
