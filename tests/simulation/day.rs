//! The simulated day: its requests, and how each provider would answer each of them at any moment.

use std::rc::Rc;

use fastrand::Rng;
use serde_json::{json, Value};
use shunt::base::clock::Timestamp;
use shunt::config::Config;
use shunt::health::outcome::Outcome;
use shunt::spend::cost::Price;
use shunt::spend::usage::Usage;

use super::run::Served;
use super::world::{log_normal, pause, random, Attempt, Fate, Request, World};

pub(crate) const NAMES: [&str; 3] = ["amber", "basalt", "cobalt"];

const PATH: &str = "/v1/chat/completions";

/// Midnight of a Tuesday, 2026-11-24, in UTC.
const MIDNIGHT: u64 = 1_795_478_400_000;
const HOUR: u64 = 3_600_000;

/// An hour of the day as a moment.
pub(crate) fn at(hour: f64) -> Timestamp {
    Timestamp::from_millis(MIDNIGHT + (hour * HOUR as f64) as u64)
}

/// The hour of a moment.
pub(crate) fn hour(at: Timestamp) -> f64 {
    (at.as_millis() as f64 - MIDNIGHT as f64) / HOUR as f64
}

/// A time of the day, in hours, in which a provider does not work as usual.
pub(crate) struct Trouble {
    pub(crate) provider: usize,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// This share of the attempts is answered with 503.
    Outage(f64),
    /// No connection is accepted.
    Unreachable,
    /// First tokens take longer by this factor.
    BrownOut(f64),
}

/// Amber is fast and expensive, and slow around noon. Basalt is cheap outside its peak hours. Cobalt is in the middle and admits
/// twenty requests a minute, which is fewer than come in the afternoon.
pub(crate) const TROUBLES: [Trouble; 7] = [
    Trouble { provider: 1, from: 3.0, to: 3.7, kind: Kind::Outage(1.0) },
    Trouble { provider: 2, from: 5.0, to: 5.3, kind: Kind::Unreachable },
    Trouble { provider: 0, from: 10.0, to: 12.5, kind: Kind::BrownOut(8.0) },
    Trouble { provider: 0, from: 14.0, to: 14.4, kind: Kind::Outage(0.5) },
    Trouble { provider: 2, from: 16.0, to: 17.0, kind: Kind::BrownOut(6.0) },
    Trouble { provider: 0, from: 19.5, to: 20.2, kind: Kind::Outage(1.0) },
    Trouble { provider: 1, from: 21.0, to: 22.0, kind: Kind::BrownOut(5.0) },
];

/// The hours in which basalt costs four times as much.
pub(crate) const PEAK: (f64, f64) = (8.0, 16.0);

/// The median time to the first token, in milliseconds.
const MEDIAN: [f64; 3] = [420.0, 900.0, 640.0];
/// Tokens per second.
const SPEED: [u64; 3] = [90, 50, 70];
/// The quality of the answers.
pub(crate) const QUALITY: [f64; 3] = [0.9, 0.7, 0.8];
/// The requests per minute that a provider admits.
const PER_MINUTE: [f64; 3] = [f64::INFINITY, f64::INFINITY, 20.0];
/// The share of the attempts that fail at any time.
const FAILS: f64 = 1.0 / 300.0;

pub(crate) struct Day {
    seed: u64,
    pub(crate) requests: Vec<Request>,
}

impl Day {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut requests = Vec::new();
        let mut hour = 0.0;
        loop {
            // The rate rises from 200 per hour at four in the morning to 1400 in the afternoon.
            let rate = 800.0 - 600.0 * ((hour - 4.0) / 24.0 * std::f64::consts::TAU).cos();
            hour += pause(&mut random, rate);
            if hour >= 24.0 {
                return Self { seed, requests };
            }
            let [input, output] = [(900.0, 0.8), (250.0, 0.7)]
                .map(|(median, spread)| log_normal(&mut random, median, spread) as u64 + 1);
            let max_output = output.next_power_of_two().max(256);
            requests.push(Request {
                at: at(hour),
                path: PATH,
                live: true,
                usage: Usage { input, output, ..Usage::default() },
                max_output,
            });
        }
    }

    /// The configuration of the gateway. `policy` orders `providers`.
    pub(crate) fn config(policy: &Value, providers: &[&str]) -> Rc<Config> {
        let price = [
            json!({"input": 2.5, "output": 10}),
            json!({"input": 0.5, "output": 2, "windows": [{"from": "08:00", "to": "16:00", "multiply": 4}]}),
            json!({"input": 1, "output": 4}),
        ];
        let mut all = json!({});
        for ((name, price), quality) in NAMES.iter().zip(price).zip(QUALITY) {
            let model = json!({"name": "m", "price": price, "quality": quality});
            all[*name] = json!({"host": "h", "api_key": "$KEY", "models": {"m": model}});
        }
        let document = json!({
            "providers": all,
            "routes": [{"name": "chat", "match": {"path": PATH}, "providers": providers, "policy": policy}],
        });
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
        Rc::new(config.unwrap_or_else(|problems| panic!("{problems}")))
    }

    /// The configurations of a gateway whose providers take turns. A failed request goes to the next one, and breakers and holds count
    /// as usual.
    pub(crate) fn round_robin() -> Vec<Rc<Config>> {
        let first = |first: usize| {
            let mut names = NAMES;
            names.rotate_left(first);
            Self::config(&json!({}), &names)
        };
        (0..NAMES.len()).map(first).collect()
    }

    /// How an attempt ends if its provider has no rate limit.
    fn unlimited(&self, attempt: Attempt) -> Fate {
        let mut random = random(self.seed, attempt);
        let Attempt { request, provider, at, .. } = attempt;
        let now = hour(at);
        let trouble = TROUBLES
            .iter()
            .find(|trouble| trouble.provider == provider && (trouble.from..trouble.to).contains(&now));
        let (mut slower, mut fails) = (1.0, FAILS);
        match trouble.map(|trouble| trouble.kind) {
            Some(Kind::Outage(share)) => fails = share,
            Some(Kind::Unreachable) => {
                return Fate::Fails { outcome: Outcome::Unreachable, status: None, after: 30 }
            }
            Some(Kind::BrownOut(times)) => slower = times,
            None => {}
        }
        let first_token = log_normal(&mut random, MEDIAN[provider] * slower, 0.35) as u64;
        if random.f64() < fails {
            return Fate::Fails { outcome: Outcome::Overloaded, status: Some(503), after: 80 };
        }
        Fate::of(first_token, self.requests[request].usage.output * 1000 / SPEED[provider])
    }

    /// Every request served by the cheapest of the providers that would answer it.
    pub(crate) fn cheapest(&self) -> Vec<Served> {
        self.best(|served| (served.usd * 1e9) as u64)
    }

    /// Every request served by the provider with the earliest first token.
    pub(crate) fn quickest(&self) -> Vec<Served> {
        self.best(|served| served.first_token.unwrap_or(u64::MAX))
    }

    /// Serves every request with everything known beforehand and without rate limits. No policy can do better.
    fn best(&self, measure: impl Fn(&Served) -> u64) -> Vec<Served> {
        let config = Self::config(&json!({}), &NAMES);
        let price = |provider: usize| -> Rc<Price> {
            config.providers.iter().find(|one| one.name == NAMES[provider]).unwrap().models[0]
                .price
                .clone()
                .unwrap()
        };
        let prices: Vec<Rc<Price>> = (0..NAMES.len()).map(price).collect();
        let served = |request: usize, provider: usize| {
            let Request { at, usage, .. } = &self.requests[request];
            let attempt = Attempt { request, provider, number: 1, at: *at };
            let Fate::Answers { first_token, .. } = self.unlimited(attempt) else { return None };
            let usd = prices[provider].cost(usage, None, *at).unwrap().known.as_pico() as f64 / 1e12;
            Some(Served::answered(*at, provider, first_token, usd))
        };
        let best = |request: usize| {
            let all = (0..NAMES.len()).filter_map(|provider| served(request, provider));
            let none = Served::unanswered(self.requests[request].at);
            all.min_by_key(|one| measure(one)).unwrap_or(none)
        };
        (0..self.requests.len()).map(best).collect()
    }
}

impl World for Day {
    type State = [Bucket; 3];

    fn names(&self) -> &[&'static str] {
        &NAMES
    }

    fn requests(&self) -> &[Request] {
        &self.requests
    }

    fn begin(&self) -> Self::State {
        PER_MINUTE.map(|most| Bucket { most, left: most, since: at(0.0) })
    }

    fn attempt(&self, buckets: &mut Self::State, attempt: Attempt) -> Fate {
        if buckets[attempt.provider].admits(attempt.at) {
            self.unlimited(attempt)
        } else {
            Fate::Fails { outcome: Outcome::RateLimited, status: Some(429), after: 20 }
        }
    }
}

/// A token bucket: the number of requests that a provider still admits, and how many it admits per minute.
pub(crate) struct Bucket {
    most: f64,
    left: f64,
    since: Timestamp,
}

impl Bucket {
    fn admits(&mut self, now: Timestamp) -> bool {
        self.left = (self.left + now.since(self.since).as_secs_f64() * self.most / 60.0).min(self.most);
        self.since = now;
        let admits = self.left >= 1.0;
        if admits {
            self.left -= 1.0;
        }
        admits
    }
}
