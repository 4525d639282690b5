//! Time as a value: a [`Timestamp`] is an argument of whatever needs to know the time. Durations are read from text with units, and
//! all dates are in UTC.
//!
//! The core never reads a clock. Timestamps are wall time, not monotonic time, because those in shared data are compared by other
//! workers, and by the same gateway after a restart of its VM.

use std::fmt;
use std::time::Duration;

/// A moment, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch, which is earlier than every moment that a gateway can see.
    pub const ZERO: Self = Self(0);

    /// The moment this many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `duration` later, at most the last one that can be represented.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long after `earlier` this is; zero if the clock went backwards in between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole days since the Unix epoch, in UTC.
    pub const fn day(self) -> u64 {
        self.0 / MILLIS_OF_DAY
    }

    /// The minute of the day in UTC: 0 at midnight, 1439 at 23:59.
    pub const fn minute_of_day(self) -> u64 {
        self.0 % MILLIS_OF_DAY / 60_000
    }

    /// The moment as RFC 3339 writes it, in UTC: `2026-11-21T10:00:00.123Z`.
    pub fn rfc3339(self) -> String {
        let mut text = String::with_capacity(24);
        self.push_rfc3339(&mut text);
        text
    }

    /// Appends the text that [`Self::rfc3339`] returns.
    pub fn push_rfc3339(self, out: &mut String) {
        self.push_seconds(out);
        let millis = self.0 % 1000;
        out.push('.');
        out.push(digit(millis / 100));
        push_two(out, millis);
        out.push('Z');
    }

    /// The same in whole seconds: `2026-11-21T10:00:00Z`.
    pub fn rfc3339_seconds(self) -> String {
        let mut text = String::with_capacity(24);
        self.push_seconds(&mut text);
        text.push('Z');
        text
    }

    fn push_seconds(self, out: &mut String) {
        let (year, month, day) = civil_from_days(self.day() as i64);
        // No year is before 1970, so every year has at least four digits.
        out.push_str(itoa::Buffer::new().format(year));
        let (minutes, seconds) = (self.minute_of_day(), self.0 % 60_000 / 1000);
        for (before, number) in [
            ('-', month.unsigned_abs()),
            ('-', day.unsigned_abs()),
            ('T', minutes / 60),
            (':', minutes % 60),
            (':', seconds),
        ] {
            out.push(before);
            push_two(out, number);
        }
    }
}

/// Appends the last two decimal digits of a number.
fn push_two(out: &mut String, number: u64) {
    out.push(digit(number / 10));
    out.push(digit(number));
}

/// The last decimal digit of a number.
const fn digit(number: u64) -> char {
    (b'0' + (number % 10) as u8) as char
}

const MILLIS_OF_DAY: u64 = 86_400_000;

/// The day of the week of a day since the Unix epoch, which was a Thursday; 0 is Monday.
pub const fn weekday(day: u64) -> u64 {
    (day % 7 + 3) % 7
}

/// Days since the Unix epoch of a date of the proleptic Gregorian calendar: Howard Hinnant's `days_from_civil`
/// (<https://howardhinnant.github.io/date_algorithms.html>). A day beyond the end of its month is a day of the next month.
pub const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_OF_ERA + day_of_era - DAYS_TO_EPOCH
}

/// Year, month and day of a day since the Unix epoch: Howard Hinnant's `civil_from_days`.
pub const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_OF_ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The years of this calculation begin in March, so that the leap day is their last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as i64, month, day)
}

/// Days of 400 years, after which the calendar repeats.
const DAYS_OF_ERA: i64 = 146_097;
/// Days from the first of March of the year 0 to the Unix epoch.
const DAYS_TO_EPOCH: i64 = 719_468;

/// Reads a date such as `2026-10-01` as its midnight in UTC. `None` if the text is no date, or one before 1970.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 || text.get(4..5)? != "-" || text.get(7..8)? != "-" {
        return None;
    }
    let (year, month, day) = (number(text.get(..4)?)?, number(text.get(5..7)?)?, number(text.get(8..)?)?);
    let days = days_from_civil(year, month, day);
    // A date that no calendar has (2026-02-30, a month 13) comes back as another one.
    let is_real = civil_from_days(days) == (year, month, day);
    let days = u64::try_from(days).ok().filter(|_| is_real)?;
    Some(Timestamp(days * MILLIS_OF_DAY))
}

/// Reads a time of day such as `09:30` as minutes since midnight; `24:00` is the end of the day.
pub fn parse_time_of_day(text: &str) -> Option<u64> {
    if text.len() != 5 || text.get(2..3)? != ":" {
        return None;
    }
    let (hour, minute) = (number(text.get(..2)?)?, number(text.get(3..)?)?);
    u64::try_from(hour * 60 + minute).ok().filter(|minutes| minute < 60 && *minutes <= 24 * 60)
}

/// A number of at most four digits and nothing else.
fn number(text: &str) -> Option<i64> {
    text.bytes()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// The whole milliseconds of a duration, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The seconds of a duration, rounded up, so that a client which waits for them does not come back too early.
pub fn seconds_up(duration: Duration) -> u64 {
    millis(duration).div_ceil(1000)
}

/// The error for a text that is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADuration;

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"250ms\", \"30s\" or \"5m\"")
    }
}

/// Reads a duration: one or more numbers, each with a unit of `ms`, `s`, `m` or `h`.
///
/// This is the form of the configuration (`"250ms"`) and of OpenAI's reset headers (`1m3s`, `12ms`, `0.5s`). A number without a
/// unit is refused, so that nobody has to remember which unit it would have.
///
/// # Errors
/// [`NotADuration`] for anything else, and for a number with its unit beyond 10,000 hours.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(NotADuration);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(NotADuration)?;
        let (number, tail) = rest.split_at_checked(digits).ok_or(NotADuration)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at_checked(letters).ok_or(NotADuration)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(NotADuration),
        };
        let value = serde_json::from_str::<f64>(number).map_err(|_| NotADuration)? * seconds;
        if !(0.0..=LONGEST_SECONDS).contains(&value) {
            return Err(NotADuration);
        }
        total = total.saturating_add(Duration::from_secs_f64(value));
        rest = next;
    }
    Ok(total)
}

/// 10,000 hours: longer than any sensible setting, and far from every overflow.
const LONGEST_SECONDS: f64 = 36_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m3s", 63_000),
            ("0.5s", 500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "5", "s", "5 s", "-1s", "1d", "1s5", "..s", "99999999h", "5ms ", "٣s"] {
            assert_eq!(parse_duration(text), Err(NotADuration), "{text:?}");
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_yields_zero() {
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
    }

    #[test]
    fn a_moment_is_written_as_rfc_3339_does() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_000_000_000_123, "2001-09-09T01:46:40.123Z"),
            (1_795_255_200_007, "2026-11-21T10:00:00.007Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).rfc3339(), text);
            let seconds = Timestamp::from_millis(millis).rfc3339_seconds();
            assert_eq!(seconds.strip_suffix('Z'), text.split_once('.').map(|(seconds, _)| seconds));
        }
        assert!(Timestamp::from_millis(u64::MAX).rfc3339().ends_with('Z'), "and nothing panics");
    }

    /// More than four hundred years, so that every kind of leap year is among them, counted day by day.
    #[test]
    fn dates_and_days_are_each_others_inverse() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..54_000 {
            assert_eq!(days_from_civil(year, month, day), days, "{year}-{month}-{day}");
            assert_eq!(civil_from_days(days), (year, month, day), "{days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                4 | 6 | 9 | 11 => 30,
                2 if leap => 29,
                2 => 28,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_date_is_midnight_in_utc_and_knows_its_weekday() {
        const SUNDAY: u64 = 6;
        for (text, day) in [("1970-01-01", 3), ("2000-02-29", 1), ("2026-10-01", 3), ("2026-11-22", SUNDAY)] {
            let date = parse_date(text).unwrap();
            assert_eq!(date.rfc3339(), format!("{text}T00:00:00.000Z"));
            assert_eq!(weekday(date.day()), day, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_refused() {
        for text in [
            "",
            "2026",
            "2026-10",
            "2026-10-1",
            "26-10-01",
            "2026-13-01",
            "2026-00-10",
            "2026-02-29",
            "2026-04-31",
            "2026-10-00",
            "1969-12-31",
            "2026-10-01T00:00:00Z",
            "2026-+1-01",
            "2026/10/01",
            "2026-10-99999999999999999999",
        ] {
            assert_eq!(parse_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_of_day_has_hours_and_minutes() {
        for (text, minutes) in [("00:00", 0), ("01:05", 65), ("23:59", 1439), ("24:00", 1440)] {
            assert_eq!(parse_time_of_day(text), Some(minutes), "{text}");
        }
        for text in [
            "",
            "1:00",
            "24:01",
            "25:00",
            "10:60",
            "10",
            "10:00:00",
            "10:99999999999999999999",
            "-1:00",
            "10:0a",
            " 10:00",
        ] {
            assert_eq!(parse_time_of_day(text), None, "{text:?}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(seconds_up(Duration::from_millis(1001)), 2);
        assert_eq!(seconds_up(Duration::ZERO), 0);
    }
}
