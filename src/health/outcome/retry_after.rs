//! Reads from a response's headers how long a provider asks not to be called.

use std::time::Duration;

use crate::base::clock::{days_from_civil, parse_duration, Timestamp};

/// How long a provider asks not to be called; `None` if it does not say, or not in a form that can be read. `header` returns the
/// value of a response header. The first of these that can be read counts:
///
/// 1. `retry-after-ms`, which OpenAI and Azure send because it is finer than a second, also with a fraction.
/// 2. `retry-after`: seconds, also with a fraction, an HTTP date, or a duration.
/// 3. The longer one of `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens`: durations such as `1m3s` or `1d2h`, or seconds.
pub fn retry_after(header: &dyn Fn(&str) -> Option<String>, now: Timestamp) -> Option<Duration> {
    let ms = header("retry-after-ms").and_then(|text| number(text.trim()));
    if let Some(wait) = ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()) {
        return Some(wait);
    }
    if let Some(wait) = header("retry-after").and_then(|text| wait_or_date(text.trim(), now)) {
        return Some(wait);
    }
    let resets = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"].map(header);
    resets.iter().flatten().filter_map(|text| wait_or_date(text.trim(), now)).max()
}

/// The same for an error with this status. Some vendors send the resets of rate limits with every response, so these are a wait only under
/// 429.
pub fn retry_after_of(
    status: u16,
    header: &dyn Fn(&str) -> Option<String>,
    now: Timestamp,
) -> Option<Duration> {
    let is_limit = status == 429;
    retry_after(&|name| if is_limit || !name.starts_with("x-ratelimit") { header(name) } else { None }, now)
}

/// A larger number is no wait but a time, in seconds since 1970; one that is larger than this in seconds is in milliseconds.
const A_TIME: f64 = 1e9;
const MILLISECONDS: f64 = 1e11;

fn wait_or_date(text: &str, now: Timestamp) -> Option<Duration> {
    match number(text) {
        Some(time) if time >= A_TIME => {
            let seconds = if time >= MILLISECONDS { time / 1000.0 } else { time };
            let since_1970 = Duration::try_from_secs_f64(seconds).ok()?;
            Some(since_1970.saturating_sub(now.since(Timestamp::from_millis(0))))
        }
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => duration(text).or_else(|| http_date(text).map(|date| date.since(now))),
    }
}

/// A number as JSON writes it.
#[inline(never)]
fn number(text: &str) -> Option<f64> {
    serde_json::from_str(text).ok()
}

/// A duration as vendors write it: as in the configuration, and also with days before the hours.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let Some((days, rest)) = text.split_once('d') else { return parse_duration(text).ok() };
    let days = Duration::try_from_secs_f64(number(days)? * 86_400.0).ok()?;
    let rest = if rest.is_empty() { Duration::ZERO } else { parse_duration(rest).ok()? };
    days.checked_add(rest)
}

/// Reads the preferred form of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let (_weekday, day, month, year, time, zone) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let day: i64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let year: i64 = year.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = time.split(':').map(|part| part.parse::<i64>().ok().filter(|n| (0..=60).contains(n)));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds).ok().map(|seconds| Timestamp::from_millis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: &str = "retry-after";
    const REQUESTS: &str = "x-ratelimit-reset-requests";
    const TOKENS: &str = "x-ratelimit-reset-tokens";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn wait(headers: &[(&str, &str)], now: u64) -> Option<u64> {
        let header = |name: &str| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        retry_after(&header, Timestamp::from_millis(now)).map(crate::base::clock::millis)
    }

    #[test]
    fn every_form_of_a_wait_is_read() {
        let now = 784_111_770_000; // Sun, 06 Nov 1994 08:49:30 GMT
        for (headers, millis) in [
            (&[(AFTER, "2"), (TOKENS, "1ms")][..], 2000),
            (&[(AFTER, "0.25")], 250),
            (&[(AFTER, DATE)], 7000),
            (&[(AFTER, "9"), ("retry-after-ms", "300")], 300),
            (&[(REQUESTS, "1m3s"), (TOKENS, "1ms")], 63_000),
            (&[(REQUESTS, "1ms"), (TOKENS, "1m3s")], 63_000),
            (&[(AFTER, "soon"), ("retry-after-ms", "-1"), (REQUESTS, "12ms")], 12),
            (&[(AFTER, "9"), ("retry-after-ms", "1500.5")], 1500),
            (&[("retry-after-ms", " 2e3 ")], 2000),
            (&[(AFTER, "1m3s")], 63_000),
            (&[(REQUESTS, "12")], 12_000),
            (&[(REQUESTS, "12"), (TOKENS, "0.5")], 12_000),
            (&[(REQUESTS, "2d")], 172_800_000),
            (&[(REQUESTS, "1d2h"), (TOKENS, "1s")], 93_600_000),
            (&[(REQUESTS, "1.5d30m0.25s")], 131_400_250),
            (&[(REQUESTS, DATE)], 7000),
        ] {
            assert_eq!(wait(headers, now), Some(millis), "{headers:?}");
        }
        for text in
            ["", "soon", "-1", "NaN", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(wait(&[(AFTER, text)], now), None, "{text}");
        }
        for text in ["", "d", "1d2", "-1d", "1d-2h", "2days", "12 ", "9e999", "1e300d"] {
            let wait = wait(&[(REQUESTS, text)], now);
            assert_eq!(wait, (text == "12 ").then_some(12_000), "{text}");
        }
        assert_eq!(wait(&[], now), None);
    }

    #[test]
    fn a_time_in_place_of_a_wait_is_read_as_one() {
        let now = 1_764_529_200_000;
        for (text, millis) in
            [("1764529212", 12_000), ("1764529212.5", 12_500), ("1764529212000", 12_000), ("1764529000", 0)]
        {
            assert_eq!(wait(&[(REQUESTS, text)], now), Some(millis), "{text}");
            assert_eq!(wait(&[(AFTER, text)], now), Some(millis), "{text}");
        }
    }

    #[test]
    fn a_reset_of_a_rate_limit_is_no_wait_for_a_server_that_failed() {
        let header = |known: &'static str| move |name: &str| (name == known).then(|| "2".to_owned());
        let now = Timestamp::ZERO;
        for (status, name, expected) in [(503, AFTER, Some(2)), (500, "retry-after-ms", Some(0))] {
            let seconds = retry_after_of(status, &header(name), now).map(|wait| wait.as_secs());
            assert_eq!(seconds, expected, "{status} {name}");
        }
        let reset = |name: &str| (name == TOKENS).then(|| "2s".to_owned());
        assert_eq!(retry_after_of(429, &reset, now), Some(Duration::from_secs(2)));
        assert_eq!(retry_after_of(500, &reset, now), None);
    }

    #[test]
    fn a_date_in_the_past_is_a_wait_of_zero() {
        assert_eq!(wait(&[(AFTER, DATE)], 900_000_000_000), Some(0));
    }
}
