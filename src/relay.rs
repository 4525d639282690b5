//! A request that the gateway itself moves from try to try, because the host cannot: nginx retries, by status alone.
//!
//! On APISIX a streamed request goes through one inner listener after another. What the filter knows travels in headers: the
//! router names the [plan](PLAN), each attempt tells its [`Try`] and names the next, and answers with a status that has
//! nginx go on or [stop](STOP). From all that the router learns afterwards what happened.

use std::time::Duration;

use crate::base::clock::millis;
use crate::base::store::fingerprint;
use crate::health::outcome::{Outcome, Verdict};

/// The request header with the order in which providers are asked: `openai,deepseek`.
pub const PLAN: &str = "x-shunt-plan";
/// The request header with what the tries so far came to: one [`Try`] after another, with commas; `-` for one that told nothing.
pub const TRIES: &str = "x-shunt-tries";
/// The request header that proves that a request comes from the router.
pub const INNER: &str = "x-shunt-inner";
/// The request header of a request that the filter sends itself, and whose answer it judges itself.
pub const WAY: &str = "x-shunt-way";
/// The value of [`WAY`].
pub const CALL: &str = "call";
/// The response header with what a try came to.
pub const TRY: &str = "x-shunt-try";

/// A value of [`TRY`]: nobody was asked, this provider is to be.
const SKIP: &str = "skip ";

/// The value of [`TRY`] of a try that landed at the wrong provider, and asked nobody; without a provider, nobody is left.
pub fn skip_to(provider: Option<&str>) -> String {
    [SKIP, provider.unwrap_or("-")].concat()
}

/// The status of an answer after which nothing is tried any more, whatever it was: none that nginx retries.
pub const STOP: u16 = 599;

/// What [`INNER`] says for a provider with this key: the same in every worker, and known to nobody who does not know a key. It
/// depends on no other provider, so that a changed configuration meets requests of the one before.
pub fn secret(key: &str) -> String {
    let part = |salt| fingerprint([salt, key]);
    format!("{:016x}{:016x}", part("shunt inner 1"), part("shunt inner 2"))
}

/// One try, as its attempt tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The provider.
    pub provider: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The provider to ask next.
    pub next: Option<String>,
}

impl Try {
    /// Whether the same provider is asked again because only the body of its error tells what it means.
    pub fn asks_why(&self) -> bool {
        self.verdict.outcome == Outcome::BadRequest && self.next.as_ref() == Some(&self.provider)
    }

    /// The value of [`TRY`]: `openai rate_limited 429 2000 deepseek`, with the milliseconds that the provider asked to be
    /// left alone, and `-` for what is not known.
    pub fn encode(&self) -> String {
        let Verdict { outcome, status, retry_after } = &self.verdict;
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let status = known(status.map(|status| status.to_string()));
        let wait = known(retry_after.map(|wait| millis(wait).to_string()));
        [&self.provider, outcome.name(), &status, &wait, self.next.as_deref().unwrap_or("-")].join(" ")
    }

    /// Reads a value of [`TRY`]; `None` if it is none.
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(' ');
        let provider = parts.next().filter(|name| !name.is_empty())?.to_owned();
        let word = parts.next()?;
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == word)?;
        let status = parts.next()?.parse().ok();
        let retry_after = parts.next()?.parse().ok().map(Duration::from_millis);
        let next = parts.next().filter(|name| *name != "-").map(str::to_owned);
        Some(Self { provider, verdict: Verdict { outcome, status, retry_after }, next })
    }
}

/// The status with which a failed try leaves, so that the next one is made.
pub const fn moving_on(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Overloaded => 503,
        Outcome::Unreachable | Outcome::Truncated => 502,
        Outcome::TooSlow => 504,
        Outcome::RateLimited => 429,
        Outcome::BadKey | Outcome::OutOfQuota => 403,
        Outcome::NoSuchModel => 404,
        Outcome::ServerError
        | Outcome::Answered
        | Outcome::TooLong
        | Outcome::Refused
        | Outcome::BadRequest
        | Outcome::ClientGone => 500,
    }
}

/// Whether nginx makes the next try after a status: `proxy_next_upstream` in `apisix/config.yaml`.
pub const fn is_retried(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504 | 429 | 403 | 404)
}

/// What a try came to that no attempt told of: nginx's own failure, or a route that is not there.
const fn untold(status: u16) -> Outcome {
    match status {
        504 => Outcome::TooSlow,
        _ => Outcome::Unreachable,
    }
}

/// What a status of [`moving_on`] stands for, where the gateway does not hand on what the tries told.
const fn of_status(status: u16) -> Outcome {
    match status {
        503 => Outcome::Overloaded,
        504 => Outcome::TooSlow,
        429 => Outcome::RateLimited,
        403 => Outcome::BadKey,
        404 => Outcome::NoSuchModel,
        500 => Outcome::ServerError,
        _ => Outcome::Unreachable,
    }
}

/// A try that is over, as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What it was.
    pub told: Try,
    /// How long it took.
    pub took: Duration,
    /// The attempt told it itself.
    pub certain: bool,
    /// Nobody told it, and it is no failure of a connection: the gateway answered in the attempt's place.
    pub strayed: bool,
}

/// What nginx knows of a request's tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The plan, as in [`PLAN`].
    pub plan: &'a str,
    /// What all tries but the last told, as in [`TRIES`].
    pub tries: &'a str,
    /// `$upstream_status`: the status of each try.
    pub statuses: &'a str,
    /// `$upstream_response_time`: the seconds that each try took; `-` for one that is not over.
    pub times: &'a str,
    /// `$upstream_header_time`: the seconds until each try's head came.
    pub heads: &'a str,
    /// What the last try told.
    pub last: Option<&'a str>,
}

/// All tries of a request in order, the last one included.
pub fn tries(seen: &Seen<'_>) -> Vec<Done> {
    let plan: Vec<&str> = seen.plan.split(',').filter(|name| !name.is_empty()).collect();
    let statuses: Vec<u16> = list(seen.statuses).map(|status| status.parse().unwrap_or(502)).collect();
    let told: Vec<&str> = seen.tries.split(',').filter(|told| !told.is_empty()).collect();
    let (mut times, mut heads) = (list(seen.times), list(seen.heads));
    let mut all: Vec<Done> = Vec::with_capacity(statuses.len());
    let mut skipped: Option<&str> = None;
    for (place, status) in statuses.iter().enumerate() {
        let is_last = place.saturating_add(1) == statuses.len();
        let said = if is_last { seen.last } else { told.get(place).copied() };
        let (whole, head) = (times.next().and_then(seconds), heads.next().and_then(seconds));
        let took = whole.or(head).unwrap_or_default();
        if let Some(named) = said.and_then(|said| said.strip_prefix(SKIP)) {
            skipped = Some(named);
            continue;
        }
        let heard = said.and_then(Try::decode);
        // Where no head came, nginx may still have that of the try before.
        let heard = heard.filter(|told| is_last || moving_on(told.verdict.outcome) == *status);
        let certain = heard.is_some();
        let strayed = !certain && (said.is_some() || is_last) && !matches!(*status, 502 | 504);
        let skipped = skipped.take().map(str::to_owned);
        let named = || skipped.or_else(|| all.last().and_then(|before| before.told.next.clone()));
        let planned = || plan.get(place).map(|name| (*name).to_owned());
        let outcome = if said.is_some() || is_last { untold(*status) } else { of_status(*status) };
        let heard = heard.or_else(|| {
            let provider = named().or_else(planned)?;
            Some(Try { provider, verdict: Verdict::without_response(outcome), next: None })
        });
        all.extend(heard.map(|told| Done { told, took, certain, strayed }));
    }
    all
}

/// The provider that the last try named, if it named any.
pub fn named(tries: &str) -> Option<&str> {
    let (_, name) = tries.rsplit(',').next()?.rsplit_once(' ')?;
    (name != "-").then_some(name)
}

/// What the tries so far came to, as an attempt finds them in [`TRIES`].
pub fn before(plan: &str, tries: &str) -> Vec<Try> {
    // All of them are over, each with the status that belongs to what it told.
    let status =
        |told: &str| Try::decode(told).map_or(502, |told| moving_on(told.verdict.outcome)).to_string();
    let statuses: Vec<String> = tries.split(',').filter(|told| !told.is_empty()).map(status).collect();
    let statuses = statuses.join(",");
    let last = tries.rsplit(',').next();
    let seen = Seen { plan, tries, statuses: &statuses, last, ..Seen::default() };
    self::tries(&seen).into_iter().map(|done| done.told).collect()
}

/// The parts of one of nginx's lists: with commas, and colons where it went on to another upstream.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ':']).map(str::trim).filter(|part| !part.is_empty())
}

/// `0.105` as a duration, without floating point.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let thousandths: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    Some(Duration::from_millis(whole.checked_mul(1000)?.checked_add(thousandths)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(provider: &str, outcome: Outcome, status: Option<u16>, next: Option<&str>) -> Try {
        let verdict = Verdict { outcome, status, retry_after: None };
        Try { provider: provider.to_owned(), verdict, next: next.map(str::to_owned) }
    }

    #[test]
    fn a_try_is_read_as_it_was_written() {
        for outcome in Outcome::ALL {
            for (status, wait, next) in [(None, None, None), (Some(429), Some(2000), Some("deepseek"))] {
                let mut one = told("openai", outcome, status, next);
                one.verdict.retry_after = wait.map(Duration::from_millis);
                assert_eq!(Try::decode(&one.encode()), Some(one));
            }
        }
        for garbage in ["", "-", "openai", "openai nonsense 1 2 3", "openai answered", " "] {
            assert_eq!(Try::decode(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn only_a_status_that_nginx_retries_moves_on_and_the_stop_is_none() {
        for outcome in Outcome::ALL {
            assert!(is_retried(moving_on(outcome)), "{outcome:?}");
        }
        assert!(!is_retried(STOP));
    }

    #[test]
    fn every_try_is_known_by_what_it_told_or_else_by_its_status_and_place() {
        let first = told("openai", Outcome::ServerError, Some(500), Some("openai"));
        let last = told("shareai", Outcome::Answered, Some(200), None);
        let seen = Seen {
            plan: "openai,deepseek,shareai",
            tries: &[&first.encode(), "-", "-"].join(","),
            statuses: "500, 504 : 502, 200",
            times: "0.105, 1.2, -, -",
            heads: "0.104, -, -, 0.030",
            last: Some(&last.encode()),
        };
        let all: Vec<_> = tries(&seen)
            .into_iter()
            .map(|done| (done.told.provider, done.told.verdict.outcome, done.took.as_millis(), done.certain))
            .collect();
        assert_eq!(
            all,
            [
                ("openai".to_owned(), Outcome::ServerError, 105, true),
                ("openai".to_owned(), Outcome::TooSlow, 1200, false),
                ("shareai".to_owned(), Outcome::Unreachable, 0, false),
                ("shareai".to_owned(), Outcome::Answered, 30, true),
            ]
        );
    }

    #[test]
    fn without_what_the_tries_told_statuses_and_the_plan_say_enough() {
        let last = told("shareai", Outcome::Answered, Some(200), None).encode();
        let seen = Seen {
            plan: "openai,deepseek,shareai",
            statuses: "429, 503, 200",
            last: Some(&last),
            ..Seen::default()
        };
        let all: Vec<_> =
            tries(&seen).into_iter().map(|done| (done.told.provider, done.told.verdict.outcome)).collect();
        assert_eq!(
            all,
            [
                ("openai".to_owned(), Outcome::RateLimited),
                ("deepseek".to_owned(), Outcome::Overloaded),
                ("shareai".to_owned(), Outcome::Answered),
            ]
        );
    }

    #[test]
    fn a_try_that_asked_nobody_only_says_who_is_asked_next() {
        let last = told("b", Outcome::Answered, Some(200), None).encode();
        let seen = Seen {
            plan: "a,b,c",
            tries: "a overloaded 503 - c,-,skip b",
            statuses: "503, 504, 503, 200",
            times: "0.1, 0.2, 0.3, 0.4",
            last: Some(&last),
            ..Seen::default()
        };
        let all: Vec<_> =
            tries(&seen).into_iter().map(|done| (done.told.provider, done.took.as_millis())).collect();
        assert_eq!(all, [("a".to_owned(), 100), ("c".to_owned(), 200), ("b".to_owned(), 400)]);
        let silent = before("a,b,c", "skip b,-");
        assert_eq!(silent[0].provider, "b", "it was asked, whatever stands at this place of the plan");
    }

    #[test]
    fn an_attempt_knows_the_tries_before_it() {
        let first = told("openai", Outcome::TooLong, Some(400), Some("shareai"));
        let all = before("openai,deepseek,shareai", &[&first.encode(), "-"].join(","));
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], first);
        assert_eq!((all[1].provider.as_str(), all[1].verdict.outcome), ("shareai", Outcome::Unreachable));
        assert_eq!(before("openai", ""), []);
    }

    #[test]
    fn the_secret_of_a_provider_is_its_own() {
        assert_eq!(secret("a"), secret("a"));
        assert_ne!(secret("a"), secret("b"));
        assert_eq!(secret("a").len(), 32);
    }

    #[test]
    fn the_head_of_the_try_before_is_not_taken_for_that_of_a_try_that_had_none() {
        let first = told("a", Outcome::Overloaded, Some(503), Some("b")).encode();
        let seen = Seen {
            plan: "a,b,c",
            tries: &[first.as_str(), first.as_str()].join(","),
            statuses: "503, 502, 404",
            ..Seen::default()
        };
        let all: Vec<_> = tries(&seen)
            .into_iter()
            .map(|done| (done.told.provider, done.told.verdict.outcome, done.strayed))
            .collect();
        assert_eq!(
            all,
            [
                ("a".to_owned(), Outcome::Overloaded, false),
                ("b".to_owned(), Outcome::Unreachable, false),
                ("c".to_owned(), Outcome::Unreachable, true),
            ]
        );
    }
}
