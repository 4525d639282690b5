//! Failover by nginx: on APISIX the filter cannot retry a streamed request itself, and nginx can, but by status alone.
//!
//! So the request goes through one inner listener after another. Each pass is a *try*; the listener's place and the earlier tries say
//! which provider it is for. The filter behind the inner listener is the attempt. What the attempts know travels in headers:
//!
//! 1. The router sends the order of the providers, the [plan](PLAN).
//! 2. Each attempt adds a [`Try`] to its response: its outcome, and the provider to try next.
//! 3. The status of that response makes nginx try the next inner listener ([`failover_status`]) or [stop](STOP).
//! 4. The router reads afterwards from nginx's variables what happened ([`tries`]).

use std::time::Duration;

use crate::base::clock::{millis, Timestamp};
use crate::base::store::fingerprint;
use crate::bytes::ascii;
use crate::health::outcome::{Doubt, Outcome, Verdict};

/// The request header with the order in which the providers are tried: `openai,deepseek`.
pub const PLAN: &str = "x-shunt-plan";
/// The request header with the tries so far: one [`Try`] after another with commas between, and `-` for one without a report.
pub const TRIES: &str = "x-shunt-tries";
/// The request header that proves that a request comes from the router. Its value is the provider's [`secret`], or a [`call_proof`].
pub const INNER: &str = "x-shunt-inner";
/// The request header with the time at which the request fails if no answer has been released by then, in milliseconds since 1970. Only
/// requests with such a time have it.
pub const DEADLINE: &str = "x-shunt-deadline";
/// The request header with who made the reasoning items of the request, in their order: `0` for the first provider of the configuration,
/// `1` for the second one, and `-` for nobody known here. Only requests with such items have it.
pub const MAKERS: &str = "x-shunt-makers";
/// The response header with the report of a try: a [`Try`], or [`skip_to`].
pub const TRY: &str = "x-shunt-try";

/// The start of a value of [`TRY`]: no provider was contacted; contact this one next.
const SKIP: &str = "skip ";

/// Stands before the code of a refusal that no list explains.
const DOUBT: char = '?';

/// The value of [`TRY`] of a try that nginx sent to the wrong provider, which was not contacted. `provider` is the right one;
/// `None` if no candidate is left.
pub fn skip_to(provider: Option<&str>) -> String {
    [SKIP, provider.unwrap_or("-")].concat()
}

/// The status after which nginx tries nothing more. It replaces a status that nginx would retry.
pub const STOP: u16 = 599;

/// The value of [`INNER`] for a provider with this key. Every worker computes the same value, and nobody can who does not know
/// the key. It depends on no other provider, so that requests under way survive a change of the configuration.
pub fn secret(key: &str) -> String {
    let part = |salt| fingerprint([salt, key]);
    format!("{:016x}{:016x}", part("shunt inner 1"), part("shunt inner 2"))
}

/// The value of [`INNER`] in a request that the filter sends as a call of its own: the [`secret`], and the time at which the call ends.
pub fn call_proof(key: &str, ends: Timestamp) -> String {
    format!("{} {}", secret(key), ends.as_millis())
}

/// Reads a value of [`INNER`]: the secret, and, if it is that of a call, the time at which the call ends.
pub fn read_proof(proof: &str) -> (&str, Option<Timestamp>) {
    // A secret has 32 digits.
    let (secret, ends) = proof.split_at_checked(32).unwrap_or((proof, ""));
    let ends = ends.strip_prefix(' ').map(|ends| Timestamp::from_millis(ascii::whole(ends).unwrap_or(0)));
    (secret, ends)
}

/// One try, as its attempt reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The provider.
    pub provider: String,
    /// Its outcome.
    pub verdict: Verdict,
    /// The provider to try next.
    pub next: Option<String>,
}

impl Try {
    /// Whether the outcome is unknown without the body of the provider's error. The same provider is tried again to read it; or, if this
    /// is the last try, whoever forwards the body reads it.
    pub fn is_error_lookup(&self) -> bool {
        self.verdict.outcome == Outcome::BadRequest && self.next.as_ref() == Some(&self.provider)
    }

    /// The value of [`TRY`], such as `openai rate_limited 429 2000 deepseek`: provider, outcome, status, the milliseconds that
    /// the provider asks not to be called, and the next provider. `-` stands for what is unknown. If no list explains the refusal, the
    /// status is followed by a question mark and the code: `403?forbidden`.
    pub fn encode(&self) -> String {
        let Verdict { outcome, status, retry_after, doubt } = &self.verdict;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let mut status = or_dash(status.map(|status| status.to_string()));
        if let Some(doubt) = doubt {
            status.push(DOUBT);
            // A comma would end the report.
            status.extend(doubt.code.chars().map(|letter| if letter == ',' { ';' } else { letter }));
        }
        let wait = or_dash(retry_after.map(|wait| millis(wait).to_string()));
        [&self.provider, outcome.name(), &status, &wait, self.next.as_deref().unwrap_or("-")].join(" ")
    }

    /// Reads a value of [`TRY`]; `None` if it is not a report.
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(' ');
        let provider = parts.next().filter(|name| !name.is_empty())?.to_owned();
        let name = parts.next()?;
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)?;
        let status = parts.next()?;
        let (status, code) =
            status.split_once(DOUBT).map_or((status, None), |(status, code)| (status, Some(code)));
        let (status, doubt) =
            (ascii::whole(status), code.map(|code| Doubt { code: code.to_owned(), ..Doubt::default() }));
        let retry_after = ascii::whole(parts.next()?).map(Duration::from_millis);
        let next = parts.next().filter(|name| *name != "-").map(str::to_owned);
        Some(Self { provider, verdict: Verdict { outcome, status, retry_after, doubt }, next })
    }
}

/// The status of a failed try's response that makes nginx try the next provider.
pub const fn failover_status(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Overloaded => 503,
        Outcome::Unreachable | Outcome::Truncated | Outcome::Garbled => 502,
        Outcome::TooSlow => 504,
        Outcome::RateLimited => 429,
        Outcome::BadKey | Outcome::OutOfQuota => 403,
        Outcome::NoSuchModel => 404,
        Outcome::ServerError
        | Outcome::Answered
        | Outcome::TooLong
        | Outcome::Unwilling
        | Outcome::Refused
        | Outcome::BadRequest
        | Outcome::ClientGone => 500,
    }
}

/// Whether nginx tries the next provider after a status: `proxy_next_upstream` in `apisix/config.yaml`.
pub const fn is_retried(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504 | 429 | 403 | 404)
}

/// The outcome of a try that no attempt reported: nginx itself failed, or the inner route does not exist.
const fn unreported(status: u16) -> Outcome {
    match status {
        504 => Outcome::TooSlow,
        _ => Outcome::Unreachable,
    }
}

/// The outcome behind a status of [`failover_status`], for a gateway that does not keep the reports of the tries.
const fn outcome_behind(status: u16) -> Outcome {
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

/// A try that has ended, as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTry {
    /// What the attempt reported; without a report, what its status and its place in the plan say.
    pub report: Try,
    /// How long it took; where the same provider was asked once more to read its error, both together.
    pub took: Duration,
    /// Whether the attempt itself reported it.
    pub is_reported: bool,
    /// Whether the gateway answered in the attempt's place: no attempt reported it, and no connection failed.
    pub is_misrouted: bool,
}

/// What nginx knows of a request's tries. Its variables are lists with one element per try.
#[derive(Clone, Copy, Debug, Default)]
pub struct NginxLists<'a> {
    /// The plan, as in [`PLAN`].
    pub plan: &'a str,
    /// The reports of all tries but the last, as in [`TRIES`].
    pub tries: &'a str,
    /// `$upstream_status`: the status of each try.
    pub statuses: &'a str,
    /// `$upstream_response_time`: the seconds that each try took; `-` for one that has not ended.
    pub times: &'a str,
    /// `$upstream_header_time`: the seconds until the response headers of each try.
    pub heads: &'a str,
    /// The report of the last try.
    pub last: Option<&'a str>,
}

/// All tries of a request in order, the last one included.
pub fn tries(seen: &NginxLists<'_>) -> Vec<FinishedTry> {
    let plan: Vec<&str> = seen.plan.split(',').filter(|name| !name.is_empty()).collect();
    let statuses: Vec<u16> = list(seen.statuses).map(|status| ascii::whole(status).unwrap_or(502)).collect();
    let reports: Vec<&str> = seen.tries.split(',').filter(|report| !report.is_empty()).collect();
    let (mut times, mut heads) = (list(seen.times), list(seen.heads));
    let mut all: Vec<FinishedTry> = Vec::with_capacity(statuses.len());
    let mut skipped_to: Option<&str> = None;
    for (place, status) in statuses.iter().enumerate() {
        let is_last = place + 1 == statuses.len();
        let text = if is_last { seen.last } else { reports.get(place).copied() };
        let (whole, head) = (times.next().and_then(seconds), heads.next().and_then(seconds));
        let took = whole.or(head).unwrap_or_default();
        if let Some(provider) = text.and_then(|text| text.strip_prefix(SKIP)) {
            skipped_to = Some(provider);
            continue;
        }
        let report = text.and_then(Try::decode);
        // If a try sent no headers, nginx may still have the report of the try before. Its status shows that.
        let report = report.filter(|report| is_last || failover_status(report.verdict.outcome) == *status);
        let is_reported = report.is_some();
        let is_misrouted = !is_reported && (text.is_some() || is_last) && !matches!(*status, 502 | 504);
        let skipped_to = skipped_to.take().map(str::to_owned);
        let report = report.or_else(|| {
            let named = skipped_to.or_else(|| all.last().and_then(|before| before.report.next.clone()));
            let provider = named.or_else(|| plan.get(place).map(|name| (*name).to_owned()))?;
            let outcome =
                if text.is_some() || is_last { unreported(*status) } else { outcome_behind(*status) };
            // Without its report it is not known whether the refusal was certain.
            let doubt = outcome.needs_evidence().then(Doubt::default);
            let verdict = Verdict { doubt, ..Verdict::without_response(outcome) };
            Some(Try { provider, verdict, next: None })
        });
        let Some(report) = report else { continue };
        // A provider that was asked once more, to read its error, has had the request all that time.
        let first = all.last().filter(|before| before.report.is_error_lookup());
        let first = first.filter(|before| before.report.provider == report.provider);
        let took = first.map_or(Duration::ZERO, |before| before.took).saturating_add(took);
        all.push(FinishedTry { report, took, is_reported, is_misrouted });
    }
    all
}

/// The provider that the last try named as the next, if it named one.
pub fn next_provider(tries: &str) -> Option<&str> {
    let (_, name) = tries.rsplit(',').next()?.rsplit_once(' ')?;
    (name != "-").then_some(name)
}

/// The tries so far, as an attempt finds them in [`TRIES`].
pub fn earlier_tries(plan: &str, tries: &str) -> Vec<Try> {
    // All of them have ended, each with the status that its report implies.
    let status = |report: &str| {
        Try::decode(report).map_or(502, |report| failover_status(report.verdict.outcome)).to_string()
    };
    let statuses: Vec<String> = tries.split(',').filter(|report| !report.is_empty()).map(status).collect();
    let statuses = statuses.join(",");
    let last = tries.rsplit(',').next();
    let seen = NginxLists { plan, tries, statuses: &statuses, last, ..NginxLists::default() };
    self::tries(&seen).into_iter().map(|done| done.report).collect()
}

/// The elements of one of nginx's lists. Commas separate them, and colons where nginx went on to another group of servers.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ':']).map(str::trim).filter(|part| !part.is_empty())
}

/// `0.105` as a duration, without floating point.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let thousandths: u64 = format!("{part:0<3}").get(..3).and_then(ascii::whole)?;
    let whole: u64 = ascii::whole(whole)?;
    Some(Duration::from_millis(whole.checked_mul(1000)?.checked_add(thousandths)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(provider: &str, outcome: Outcome, status: Option<u16>, next: Option<&str>) -> Try {
        let verdict = Verdict::certain(outcome, status);
        Try { provider: provider.to_owned(), verdict, next: next.map(str::to_owned) }
    }

    #[test]
    fn only_the_proof_of_a_call_says_when_it_ends() {
        let ends = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(read_proof(&call_proof("sk-a", ends)), (secret("sk-a").as_str(), Some(ends)));
        assert_eq!(read_proof(&secret("sk-a")), (secret("sk-a").as_str(), None));
        assert_eq!(read_proof(&(secret("sk-a") + " z")).1, Some(Timestamp::from_millis(0)));
        assert_eq!(read_proof("x y z"), ("x y z", None));
    }

    #[test]
    fn a_try_is_read_as_it_was_written() {
        for outcome in Outcome::ALL {
            for (status, wait, next) in [(None, None, None), (Some(429), Some(2000), Some("deepseek"))] {
                let mut one = reported("openai", outcome, status, next);
                one.verdict.retry_after = wait.map(Duration::from_millis);
                assert_eq!(Try::decode(&one.encode()), Some(one));
            }
        }
        for garbage in ["", "-", "openai", "openai nonsense 1 2 3", "openai answered", " "] {
            assert_eq!(Try::decode(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_doubt_travels_with_its_code() {
        for (code, read) in [("", ""), ("forbidden", "forbidden"), ("a,b?c", "a;b?c")] {
            let mut one = reported("openai", Outcome::BadKey, Some(403), Some("deepseek"));
            one.verdict.doubt = Some(Doubt { code: code.to_owned(), ..Doubt::default() });
            let text = one.encode();
            assert!(!text.contains(','), "{text}");
            one.verdict.doubt = Some(Doubt { code: read.to_owned(), ..Doubt::default() });
            assert_eq!(Try::decode(&text), Some(one));
            assert_eq!(next_provider(&text), Some("deepseek"));
        }
    }

    #[test]
    fn nginx_retries_every_failover_status_and_not_the_stop() {
        for outcome in Outcome::ALL {
            assert!(is_retried(failover_status(outcome)), "{outcome:?}");
        }
        assert!(!is_retried(STOP));
    }

    #[test]
    fn a_try_is_known_by_its_report_or_else_by_its_status_and_place() {
        let first = reported("openai", Outcome::ServerError, Some(500), Some("openai"));
        let last = reported("shareai", Outcome::Answered, Some(200), None);
        let seen = NginxLists {
            plan: "openai,deepseek,shareai",
            tries: &[&first.encode(), "-", "-"].join(","),
            statuses: "500, 504 : 502, 200",
            times: "0.105, 1.2, -, -",
            heads: "0.104, -, -, 0.030",
            last: Some(&last.encode()),
        };
        let all: Vec<_> = tries(&seen)
            .into_iter()
            .map(|done| {
                (done.report.provider, done.report.verdict.outcome, done.took.as_millis(), done.is_reported)
            })
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
    fn the_time_of_an_attempt_that_was_made_twice_is_that_of_both_tries() {
        let first = reported("openai", Outcome::BadRequest, Some(400), Some("openai"));
        let second = reported("openai", Outcome::TooLong, Some(400), Some("deepseek"));
        let last = reported("deepseek", Outcome::Answered, Some(200), None);
        let seen = NginxLists {
            plan: "openai,deepseek",
            tries: &[first.encode(), second.encode()].join(","),
            statuses: "500, 500, 200",
            times: "0.100, 0.250, 0.700",
            heads: "0.100, 0.250, 0.030",
            last: Some(&last.encode()),
        };
        let took: Vec<_> = tries(&seen).iter().map(|done| done.took.as_millis()).collect();
        assert_eq!(took, [100, 350, 700]);
    }

    #[test]
    fn without_reports_the_statuses_and_the_plan_say_enough() {
        let last = reported("shareai", Outcome::Answered, Some(200), None).encode();
        let seen = NginxLists {
            plan: "openai,deepseek,shareai",
            statuses: "429, 503, 200",
            last: Some(&last),
            ..NginxLists::default()
        };
        let all: Vec<_> = tries(&seen)
            .into_iter()
            .map(|done| (done.report.provider, done.report.verdict.outcome))
            .collect();
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
    fn a_try_that_contacted_no_provider_only_names_the_next_one() {
        let last = reported("b", Outcome::Answered, Some(200), None).encode();
        let seen = NginxLists {
            plan: "a,b,c",
            tries: "a overloaded 503 - c,-,skip b",
            statuses: "503, 504, 503, 200",
            times: "0.1, 0.2, 0.3, 0.4",
            last: Some(&last),
            ..NginxLists::default()
        };
        let all: Vec<_> =
            tries(&seen).into_iter().map(|done| (done.report.provider, done.took.as_millis())).collect();
        assert_eq!(all, [("a".to_owned(), 100), ("c".to_owned(), 200), ("b".to_owned(), 400)]);
        let silent = earlier_tries("a,b,c", "skip b,-");
        assert_eq!(silent[0].provider, "b", "the skip named it, and it outweighs the plan");
    }

    #[test]
    fn an_attempt_knows_the_tries_before_it() {
        let first = reported("openai", Outcome::TooLong, Some(400), Some("shareai"));
        let all = earlier_tries("openai,deepseek,shareai", &[&first.encode(), "-"].join(","));
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], first);
        assert_eq!((all[1].provider.as_str(), all[1].verdict.outcome), ("shareai", Outcome::Unreachable));
        assert_eq!(earlier_tries("openai", ""), []);
    }

    #[test]
    fn the_secret_of_a_provider_is_its_own() {
        assert_eq!(secret("a"), secret("a"));
        assert_ne!(secret("a"), secret("b"));
        assert_eq!(secret("a").len(), 32);
    }

    #[test]
    fn the_report_of_the_try_before_is_not_taken_for_that_of_a_try_without_one() {
        let first = reported("a", Outcome::Overloaded, Some(503), Some("b")).encode();
        let seen = NginxLists {
            plan: "a,b,c",
            tries: &[first.as_str(), first.as_str()].join(","),
            statuses: "503, 502, 404",
            ..NginxLists::default()
        };
        let all: Vec<_> = tries(&seen)
            .into_iter()
            .map(|done| (done.report.provider, done.report.verdict.outcome, done.is_misrouted))
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
