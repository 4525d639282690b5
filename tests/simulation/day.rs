//! The simulated day: its requests, and how each provider would answer each of them at any moment.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{json, Value};
use shunt::base::clock::Timestamp;
use shunt::config::Config;
use shunt::health::outcome::Outcome;
use shunt::spend::cost::Price;
use shunt::spend::usage::Usage;

use super::run::Served;

pub(crate) const NAMES: [&str; 3] = ["amber", "basalt", "cobalt"];

/// Midnight of a Tuesday, 2026-11-24, in UTC.
const MIDNIGHT: u64 = 1_795_478_400_000;
const HOUR: u64 = 3_600_000;

/// The limit for the first content of an attempt, in milliseconds.
pub(crate) const FIRST_TOKEN_LIMIT: u64 = 15_000;

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

pub(crate) struct Request {
    pub(crate) at: Timestamp,
    pub(crate) usage: Usage,
    /// The client's limit of output tokens.
    pub(crate) max_output: u64,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It has its first token and its end after these numbers of milliseconds.
    Answers { first_token: u64, end: u64 },
    /// It fails with this outcome and status, after this number of milliseconds.
    Fails { outcome: Outcome, status: Option<u16>, after: u64 },
}

pub(crate) struct Day {
    seed: u64,
    pub(crate) requests: Vec<Request>,
}

/// A log-normal random number, given its median and the standard deviation of its logarithm.
fn log_normal(random: &mut Rng, median: f64, spread: f64) -> f64 {
    let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    median * (spread * normal).exp()
}

impl Day {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut requests = Vec::new();
        let mut hour = 0.0;
        loop {
            // The rate rises from 200 per hour at four in the morning to 1400 in the afternoon.
            let rate = 800.0 - 600.0 * ((hour - 4.0) / 24.0 * std::f64::consts::TAU).cos();
            hour -= (1.0 - random.f64()).ln() / rate;
            if hour >= 24.0 {
                return Self { seed, requests };
            }
            let [input, output] = [(900.0, 0.8), (250.0, 0.7)]
                .map(|(median, spread)| log_normal(&mut random, median, spread) as u64 + 1);
            let max_output = output.next_power_of_two().max(256);
            requests.push(Request {
                at: at(hour),
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
            "routes": [{"name": "chat", "match": {"path": "/v1/chat/completions"}, "providers": providers, "policy": policy}],
        });
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
        Rc::new(config.unwrap_or_else(|problems| panic!("{problems}")))
    }

    /// How an attempt of a request ends at a provider, without its rate limit. It is the same for every policy.
    pub(crate) fn fate(&self, request: usize, provider: usize, attempt: usize, now: Timestamp) -> Fate {
        let number = (request * 16 + provider * 4 + attempt.min(3)) as u64;
        let mut random = Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let now = hour(now);
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
        if first_token >= FIRST_TOKEN_LIMIT {
            return Fate::Fails { outcome: Outcome::TooSlow, status: None, after: FIRST_TOKEN_LIMIT };
        }
        let output = self.requests[request].usage.output;
        Fate::Answers { first_token, end: first_token + output * 1000 / SPEED[provider] }
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
            let Fate::Answers { first_token, .. } = self.fate(request, provider, 0, *at) else { return None };
            let usd = prices[provider].cost(usage, None, *at).unwrap().known.as_pico() as f64 / 1e12;
            Some(Served {
                at: *at,
                provider: Some(provider),
                first_token: Some(first_token),
                usd,
                attempts: 1,
                arm: None,
                tried: false,
            })
        };
        let best = |request: usize| {
            let all = (0..NAMES.len()).filter_map(|provider| served(request, provider));
            all.min_by_key(|one| measure(one)).unwrap_or(Served {
                at: self.requests[request].at,
                provider: None,
                first_token: None,
                usd: 0.0,
                attempts: 1,
                arm: None,
                tried: false,
            })
        };
        (0..self.requests.len()).map(best).collect()
    }
}

/// A token bucket: the number of requests that a provider still admits.
pub(crate) struct Bucket {
    left: f64,
    since: Timestamp,
}

impl Bucket {
    pub(crate) fn all() -> [Self; 3] {
        PER_MINUTE.map(|left| Self { left, since: at(0.0) })
    }

    /// Admits a request, or says how long to wait.
    pub(crate) fn admit(&mut self, provider: usize, now: Timestamp) -> Result<(), Duration> {
        let most = PER_MINUTE[provider];
        self.left = (self.left + now.since(self.since).as_secs_f64() * most / 60.0).min(most);
        self.since = now;
        if self.left < 1.0 {
            return Err(Duration::from_secs(15));
        }
        self.left -= 1.0;
        Ok(())
    }
}
