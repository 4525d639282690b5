//! What a simulated world is: requests, and providers that answer each of them in their own time or let it fail.

use fastrand::Rng;
use shunt::base::clock::Timestamp;
use shunt::health::outcome::Outcome;
use shunt::spend::usage::Usage;

/// The limit for the first content of an attempt, in milliseconds.
pub(crate) const FIRST_TOKEN_LIMIT: u64 = 15_000;

pub(crate) struct Request {
    pub(crate) at: Timestamp,
    /// By which its route is found.
    pub(crate) path: &'static str,
    /// The client gets a live stream, rather than an answer that is whole.
    pub(crate) live: bool,
    pub(crate) usage: Usage,
    /// The client's limit of output tokens.
    pub(crate) max_output: u64,
}

/// An attempt that starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The request's place in [`World::requests`].
    pub(crate) request: usize,
    /// The provider's place in [`World::names`].
    pub(crate) provider: usize,
    /// 1 for the first attempt of its request.
    pub(crate) number: usize,
    pub(crate) at: Timestamp,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It has its first token and its end after these numbers of milliseconds.
    Answers { first_token: u64, end: u64 },
    /// It fails with this outcome and status, after this number of milliseconds.
    Fails { outcome: Outcome, status: Option<u16>, after: u64 },
}

impl Fate {
    /// An answer, or a failure if its first token would come too late.
    pub(crate) fn of(first_token: u64, output: u64) -> Self {
        if first_token >= FIRST_TOKEN_LIMIT {
            return Self::Fails { outcome: Outcome::TooSlow, status: None, after: FIRST_TOKEN_LIMIT };
        }
        Self::Answers { first_token, end: first_token + output }
    }
}

pub(crate) trait World {
    /// What changes at the providers with every attempt, such as their queues.
    type State;

    /// The names of the providers.
    fn names(&self) -> &[&'static str];

    /// The requests, in the order in which they arrive.
    fn requests(&self) -> &[Request];

    /// The providers before the first request.
    fn begin(&self) -> Self::State;

    /// How an attempt that starts now will end. Whatever is random about it is the same for every policy.
    fn attempt(&self, state: &mut Self::State, attempt: Attempt) -> Fate;
}

/// A generator for one attempt of a request at a provider, the same for every policy.
pub(crate) fn random(seed: u64, attempt: Attempt) -> Rng {
    let number = (attempt.request * 16 + attempt.provider * 4 + attempt.number.min(3)) as u64;
    Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A log-normal random number, given its median and the standard deviation of its logarithm.
pub(crate) fn log_normal(random: &mut Rng, median: f64, spread: f64) -> f64 {
    let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    median * (spread * normal).exp()
}

/// The time until the next request, in the unit in which the rate is given.
pub(crate) fn pause(random: &mut Rng, rate: f64) -> f64 {
    -(1.0 - random.f64()).ln() / rate
}
