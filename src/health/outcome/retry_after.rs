//! Reads from a response's headers how long a provider asks not to be called.

use std::time::Duration;

use crate::base::clock::{days_from_civil, parse_duration, Timestamp};

/// How long a provider asks not to be called; `None` if it does not say, or not in a form that can be read. `header` returns the
/// value of a response header. The first of these that can be read counts:
///
/// 1. `retry-after-ms`, which OpenAI and Azure send because it is finer than a second.
/// 2. `retry-after`: seconds, also with a fraction, or an HTTP date.
/// 3. The longer one of `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens`, which are durations such as `1m3s`.
pub fn retry_after(header: &dyn Fn(&str) -> Option<String>, now: Timestamp) -> Option<Duration> {
    if let Some(ms) = header("retry-after-ms").and_then(|text| text.trim().parse::<u64>().ok()) {
        return Some(Duration::from_millis(ms));
    }
    if let Some(wait) = header("retry-after").and_then(|text| seconds_or_date(text.trim(), now)) {
        return Some(wait);
    }
    let resets = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"].map(header);
    resets.iter().flatten().filter_map(|text| parse_duration(text.trim()).ok()).max()
}

fn seconds_or_date(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = serde_json::from_str::<f64>(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    http_date(text).map(|date| date.since(now))
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
        ] {
            assert_eq!(wait(headers, now), Some(millis), "{headers:?}");
        }
        for text in
            ["", "soon", "-1", "NaN", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(wait(&[(AFTER, text)], now), None, "{text}");
        }
        assert_eq!(wait(&[], now), None);
    }

    #[test]
    fn a_date_in_the_past_is_a_wait_of_zero() {
        assert_eq!(wait(&[(AFTER, DATE)], 900_000_000_000), Some(0));
    }
}
