//! Runs the requests of a world through the gateway's code. Requests overlap, so events are taken from a queue in the order of their times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use shunt::base::clock::Timestamp;
use shunt::base::store::Memory;
use shunt::client_api::request::{Body, Head, Input};
use shunt::config::Config;
use shunt::exchange::{End, Exchange, Next};
use shunt::health::outcome::{Outcome, Verdict};
use shunt::selection::ledger::Ledger;
use shunt::selection::plan::Env;
use shunt::spend::usage::Tally;

use super::world::{Attempt, Fate, World};

/// How a request was served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) at: Timestamp,
    /// The provider that answered it.
    pub(crate) provider: Option<usize>,
    /// How long its client waited for the first token, in milliseconds; `None` if none came.
    pub(crate) first_token: Option<u64>,
    pub(crate) usd: f64,
    pub(crate) attempts: usize,
    /// The provider that the policy `weighted` drew for it.
    pub(crate) arm: Option<usize>,
    /// Whether it explored a provider of which too few latencies were known.
    pub(crate) tried: bool,
}

impl Served {
    /// Answered by the first provider that was asked, which no policy of the gateway chose.
    pub(crate) fn answered(at: Timestamp, provider: usize, first_token: u64, usd: f64) -> Self {
        let (provider, first_token) = (Some(provider), Some(first_token));
        Self { at, provider, first_token, usd, attempts: 1, arm: None, tried: false }
    }

    /// A request that no provider would answer.
    pub(crate) fn unanswered(at: Timestamp) -> Self {
        Self { at, provider: None, first_token: None, usd: 0.0, attempts: 1, arm: None, tried: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// The wait before an attempt is over.
    StartsAttempt(usize),
    FirstToken {
        end: u64,
    },
    Ends,
    /// An answer that is not streamed has come.
    Answers,
    Fails(usize),
}

/// The ways in which attempts fail. An event holds the index.
const FAILURES: [(Outcome, Option<u16>, Option<Duration>); 4] = [
    (Outcome::Overloaded, Some(503), None),
    (Outcome::Unreachable, None, None),
    (Outcome::TooSlow, None, None),
    (Outcome::RateLimited, Some(429), Some(Duration::from_secs(15))),
];

/// Two workers, as a gateway has several. Each has a memory of its own, and both write into one store.
const WORKERS: usize = 2;

struct Run<'a, W: World> {
    world: &'a W,
    state: W::State,
    store: Memory,
    ledgers: [Ledger; WORKERS],
    random: Rng,
    queue: BinaryHeap<Reverse<(Timestamp, usize, Event)>>,
    exchanges: Vec<Option<Exchange>>,
    first_tokens: Vec<Option<u64>>,
    served: Vec<Option<Served>>,
}

/// Serves all requests of a world. The gateway has one configuration, or several ones that it takes in turn.
pub(crate) fn run<W: World>(world: &W, configs: &[Rc<Config>]) -> Vec<Served> {
    let count = world.requests().len();
    let arrivals = world.requests().iter().enumerate();
    let mut run = Run {
        world,
        state: world.begin(),
        store: Memory::default(),
        ledgers: Default::default(),
        random: Rng::with_seed(99),
        queue: arrivals.map(|(number, request)| Reverse((request.at, number, Event::Arrives))).collect(),
        exchanges: (0..count).map(|_| None).collect(),
        first_tokens: vec![None; count],
        served: vec![None; count],
    };
    while let Some(Reverse((now, number, event))) = run.queue.pop() {
        run.happens(now, number, event, &configs[number % configs.len()]);
    }
    run.served.into_iter().map(|served| served.unwrap()).collect()
}

fn provider_of(world: &impl World, name: &str) -> usize {
    world.names().iter().position(|known| *known == name).unwrap()
}

impl<W: World> Run<'_, W> {
    /// Calls a function with an exchange and its environment.
    fn with<T>(
        &mut self,
        number: usize,
        now: Timestamp,
        work: impl FnOnce(&mut Exchange, &mut Env<'_>) -> T,
    ) -> T {
        let mut env = Env {
            now,
            store: &mut self.store,
            random: &mut self.random,
            ledger: &mut self.ledgers[number / 3 % WORKERS],
        };
        work(self.exchanges[number].as_mut().unwrap(), &mut env)
    }

    fn happens(&mut self, now: Timestamp, number: usize, event: Event, config: &Rc<Config>) {
        match event {
            Event::Arrives => {
                let request = &self.world.requests()[number];
                let body = Body {
                    model: "m".to_owned(),
                    stream: request.live,
                    max_output: Some(request.max_output),
                    input: Rc::new(Input::with_tokens(request.usage.input)),
                    ..Body::default()
                };
                let head = Head { path: request.path.to_owned(), complete: false, policy: None };
                let exchange = Exchange::new(Rc::clone(config), &head, body, |_| true).unwrap();
                self.exchanges[number] = Some(exchange);
                let start = self.with(number, now, |exchange, env| exchange.start(env)).unwrap();
                self.start_attempt(number, provider_of(self.world, &start.provider), now);
            }
            Event::StartsAttempt(provider) => self.start_attempt(number, provider, now),
            Event::FirstToken { end } => {
                let tally = Tally { begun: true, estimated_output: 1, ..Tally::default() };
                let verdict = Verdict::certain(Outcome::Answered, Some(200));
                let next = self.with(number, now, |exchange, env| {
                    exchange.progress(tally, || now);
                    exchange.judge(verdict, false, false, env).unwrap().next
                });
                assert!(matches!(next, Next::Deliver(_)));
                self.note_waited(number, now);
                self.queue.push(Reverse((now.after(Duration::from_millis(end)), number, Event::Ends)));
            }
            Event::Ends => {
                let usage = Some(self.world.requests()[number].usage);
                self.with(number, now, |exchange, env| {
                    exchange.progress(Tally { usage, begun: true, ..Tally::default() }, || now);
                    exchange.ended(Outcome::Answered, env).unwrap();
                });
                self.finish(number, now);
            }
            Event::Answers => {
                let usage = Some(self.world.requests()[number].usage);
                let verdict = Verdict::certain(Outcome::Answered, Some(200));
                let next = self.with(number, now, |exchange, env| {
                    exchange.progress(Tally { usage, begun: true, ..Tally::default() }, || now);
                    exchange.judge(verdict, false, true, env).unwrap().next
                });
                assert!(matches!(next, Next::Deliver(_)));
                self.note_waited(number, now);
                self.finish(number, now);
            }
            Event::Fails(why) => {
                let (outcome, status, retry_after) = FAILURES[why];
                let verdict = Verdict { retry_after, ..Verdict::certain(outcome, status) };
                let judged = self.with(number, now, |exchange, env| {
                    exchange.judge(verdict, false, true, env).unwrap().next
                });
                match judged {
                    Next::Retry { provider, wait } => {
                        let then = now.after(Duration::from_millis(wait * 1250 + 1));
                        self.queue.push(Reverse((
                            then,
                            number,
                            Event::StartsAttempt(provider_of(self.world, &provider)),
                        )));
                    }
                    Next::Fail => self.finish(number, now),
                    next => panic!("{next:?}"),
                }
            }
        }
    }

    fn note_waited(&mut self, number: usize, now: Timestamp) {
        let waited = now.since(self.world.requests()[number].at);
        self.first_tokens[number] = Some(u64::try_from(waited.as_millis()).unwrap());
    }

    fn start_attempt(&mut self, number: usize, provider: usize, now: Timestamp) {
        let name = self.world.names()[provider];
        self.with(number, now, |exchange, _| exchange.begin(name, || now)).unwrap();
        let attempts = self.with(number, now, |exchange, _| exchange.so_far(now).attempts.len());
        let attempt = Attempt { request: number, provider, number: attempts, at: now };
        let (after, event) = match self.world.attempt(&mut self.state, attempt) {
            Fate::Answers { end, .. } if !self.world.requests()[number].live => (end, Event::Answers),
            Fate::Answers { first_token, end } => (first_token, Event::FirstToken { end: end - first_token }),
            Fate::Fails { outcome, status, after } => {
                let why = FAILURES.iter().position(|(known, code, _)| *known == outcome && *code == status);
                (after, Event::Fails(why.unwrap()))
            }
        };
        self.queue.push(Reverse((now.after(Duration::from_millis(after)), number, event)));
    }

    fn finish(&mut self, number: usize, now: Timestamp) {
        let at = self.world.requests()[number].at;
        let first_token = self.first_tokens[number];
        let end = End { gone: false, replied: None };
        let world = self.world;
        let served = self.with(number, now, |exchange, env| {
            let facts = exchange.finish(end, env);
            Served {
                at,
                provider: facts.served().map(|attempt| provider_of(world, attempt.provider)),
                first_token,
                usd: facts.bill().and_then(|bill| bill.cost).unwrap_or_default().as_pico() as f64 / 1e12,
                attempts: facts.attempts.len(),
                arm: facts.arm.map(|arm| provider_of(world, arm)),
                tried: facts.why.first().is_some_and(|(_, why)| why.starts_with("tried")),
            }
        });
        self.served[number] = Some(served);
        self.exchanges[number] = None;
    }
}
