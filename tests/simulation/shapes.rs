//! Two kinds of requests that `balanced` should send to different providers: two shapes on one route, or two routes with other weights.

use std::rc::Rc;

use fastrand::Rng;
use serde_json::{json, Map, Value};
use shunt::config::Config;
use shunt::spend::usage::Usage;

use super::day::at;
use super::run::{run, Served};
use super::world::{log_normal, pause, random, Attempt, Fate, Request, World};
use super::{percentile, usd};

/// A provider, which never fails.
struct Provider {
    name: &'static str,
    /// USD per million tokens.
    input: f64,
    output: f64,
    /// The median time to the first token, in milliseconds.
    median: f64,
}

/// A kind of requests. Every other request is of the first kind, at random.
struct Kind {
    name: &'static str,
    path: &'static str,
    /// How much time and cost count on its route.
    latency: u32,
    cost: u32,
    /// The medians of its numbers of tokens.
    tokens: (f64, f64),
}

pub(crate) struct Shapes {
    pub(crate) name: &'static str,
    seed: u64,
    names: Vec<&'static str>,
    providers: Vec<Provider>,
    kinds: [Kind; 2],
    requests: Vec<Request>,
    /// The kind of each request.
    drawn: Vec<usize>,
}

const REQUESTS_PER_SECOND: f64 = 5.0;
/// Tokens per second of every provider.
const SPEED: u64 = 80;
const ROUTE: &str = "/v1/chat/completions";
const OTHER_ROUTE: &str = "/hasty/v1/chat/completions";

impl Shapes {
    /// Requests that read much and requests that write much, on one route. Two providers' prices of input and output are in other
    /// ratios than is usual, so that each of the two shapes is about ten times cheaper at one than at the other.
    pub(crate) fn one_route(seed: u64, minutes: u64) -> Self {
        let providers = vec![
            Provider { name: "dolomite", input: 0.2, output: 8.0, median: 500.0 },
            Provider { name: "emerald", input: 3.0, output: 0.8, median: 500.0 },
            Provider { name: "flint", input: 2.5, output: 10.0, median: 350.0 },
        ];
        let kind = |name, tokens| Kind { name, path: ROUTE, latency: 1, cost: 1, tokens };
        let kinds = [kind("reads", (10_000.0, 100.0)), kind("writes", (200.0, 3_000.0))];
        Self::new("two shapes on one route", seed, minutes, providers, kinds)
    }

    /// Requests of one shape, on a route where cost counts as much as time, and on one where it counts a quarter of that.
    pub(crate) fn two_routes(seed: u64, minutes: u64) -> Self {
        let providers = vec![
            Provider { name: "gypsum", input: 0.25, output: 1.0, median: 1500.0 },
            Provider { name: "halite", input: 0.8, output: 3.2, median: 900.0 },
            Provider { name: "jasper", input: 2.5, output: 10.0, median: 400.0 },
        ];
        let kind = |name, path, latency| Kind { name, path, latency, cost: 1, tokens: (900.0, 250.0) };
        let kinds = [kind("thrifty", ROUTE, 1), kind("hasty", OTHER_ROUTE, 4)];
        Self::new("two routes with other weights", seed, minutes, providers, kinds)
    }

    fn new(name: &'static str, seed: u64, minutes: u64, providers: Vec<Provider>, kinds: [Kind; 2]) -> Self {
        let mut random = Rng::with_seed(seed);
        let (mut requests, mut drawn, mut seconds) = (Vec::new(), Vec::new(), 0.0);
        loop {
            seconds += pause(&mut random, REQUESTS_PER_SECOND);
            if seconds >= (minutes * 60) as f64 {
                let names = providers.iter().map(|provider| provider.name).collect();
                return Self { name, seed, names, providers, kinds, requests, drawn };
            }
            let kind = random.usize(..kinds.len());
            let Kind { path, tokens: (input, output), .. } = kinds[kind];
            let [input, output] =
                [input, output].map(|median| log_normal(&mut random, median, 0.2) as u64 + 1);
            requests.push(Request {
                at: at(seconds / 3600.0),
                path,
                live: true,
                usage: Usage { input, output, ..Usage::default() },
                max_output: output.next_power_of_two().max(256),
            });
            drawn.push(kind);
        }
    }

    /// The configuration of the gateway, in which all routes have one policy.
    fn config(&self, policy: &str) -> Rc<Config> {
        let provider = |provider: &Provider| {
            let price = json!({"input": provider.input, "output": provider.output});
            let model = json!({"m": {"name": "m", "price": price}});
            (provider.name.to_owned(), json!({"host": "h", "api_key": "$KEY", "models": model}))
        };
        let providers: Map<String, Value> = self.providers.iter().map(provider).collect();
        let mut routes: Vec<Value> = Vec::new();
        for kind in &self.kinds {
            let mut settings = json!({"type": policy});
            if policy == "balanced" {
                settings["balance"] = json!({"latency": kind.latency, "cost": kind.cost});
            }
            routes.push(json!({
                "name": kind.path, "match": {"path": kind.path}, "providers": self.names, "policy": settings,
            }));
        }
        routes.dedup_by(|one, other| one["name"] == other["name"]);
        let document = json!({"providers": providers, "routes": routes});
        let config = Config::parse(&document.to_string(), &|_| Some("sk-test".to_owned()));
        Rc::new(config.unwrap_or_else(|problems| panic!("{problems}")))
    }

    /// Serves the requests by a policy.
    pub(crate) fn served_by(&self, policy: &str) -> Vec<Served> {
        run(self, &[self.config(policy)])
    }

    /// What a request costs at a provider, in USD.
    fn price(&self, provider: usize, input: u64, output: u64) -> f64 {
        let Provider { input: per_input, output: per_output, .. } = self.providers[provider];
        (input as f64 * per_input + output as f64 * per_output) / 1e6
    }

    /// The provider with the best score for a request: with the lowest product of its time and the power of its expected cost. All
    /// providers' times are spread alike, so that their medians are in the same ratio as their 95th percentiles.
    fn best(&self, request: usize) -> usize {
        let Request { usage, max_output, .. } = &self.requests[request];
        let Kind { latency, cost, .. } = self.kinds[self.drawn[request]];
        let exponent = f64::from(cost) / f64::from(latency);
        let score = |provider: &usize| {
            self.providers[*provider].median * self.price(*provider, usage.input, *max_output).powf(exponent)
        };
        (0..self.providers.len()).min_by(|one, other| score(one).total_cmp(&score(other))).unwrap()
    }

    /// Every request served by the provider with the best score for it, whose times are known beforehand.
    pub(crate) fn hindsight(&self) -> Vec<Served> {
        let served = |request: usize| {
            let Request { at, usage, .. } = &self.requests[request];
            let provider = self.best(request);
            let fate = self.attempt(&mut (), Attempt { request, provider, number: 1, at: *at });
            let Fate::Answers { first_token, .. } = fate else { panic!("{fate:?}") };
            Served::answered(*at, provider, first_token, self.price(provider, usage.input, usage.output))
        };
        (0..self.requests.len()).map(served).collect()
    }

    /// The requests of a kind that were served by the best provider for them, as a share of all of this kind.
    pub(crate) fn at_the_best(&self, served: &[Served], kind: usize) -> f64 {
        let of_kind = || (0..served.len()).filter(|request| self.drawn[*request] == kind);
        let best = of_kind().filter(|request| served[*request].provider == Some(self.best(*request)));
        best.count() as f64 / of_kind().count() as f64
    }

    /// What each policy made of each kind of requests, as a table.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("| {} ", self.name);
        for Kind { name, .. } in &self.kinds {
            table += &format!("| *{name}* at their best | spent | p95 ");
        }
        table += "|\n| --- | --- | --- | --- | --- | --- | --- |\n";
        let policies = ["balanced", "cost", "latency"].map(|policy| (policy, self.served_by(policy)));
        for (name, served) in policies.into_iter().chain([("hindsight", self.hindsight())]) {
            table += &format!("| {name} ");
            for kind in 0..self.kinds.len() {
                let of_kind = served.iter().zip(&self.drawn).filter(|(_, drawn)| **drawn == kind);
                let of_kind: Vec<Served> = of_kind.map(|(one, _)| one.clone()).collect();
                let (best, usd) = (100.0 * self.at_the_best(&served, kind), usd(&of_kind));
                table += &format!("| {best:.1} % | {usd:.2} USD | {} ms ", percentile(&of_kind, 95));
            }
            table += "|\n";
        }
        table
    }
}

impl World for Shapes {
    type State = ();

    fn names(&self) -> &[&'static str] {
        &self.names
    }

    fn requests(&self) -> &[Request] {
        &self.requests
    }

    fn begin(&self) -> Self::State {}

    fn attempt(&self, (): &mut Self::State, attempt: Attempt) -> Fate {
        let median = self.providers[attempt.provider].median;
        let first_token = log_normal(&mut random(self.seed, attempt), median, 0.35) as u64;
        Fate::of(first_token, self.requests[attempt.request].usage.output * 1000 / SPEED)
    }
}
