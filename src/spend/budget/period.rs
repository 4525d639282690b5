//! The periods of a budget: calendar hours, days and months, in UTC.

use crate::base::clock::{civil_from_days, days_from_civil, Timestamp};

/// The period that a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A full hour of the clock, such as 10:00 to 11:00.
    Hour,
    /// A day, from midnight UTC.
    Day,
    /// A calendar month, from its first midnight UTC.
    Month,
}

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

impl Period {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The first moment of the period that `at` lies in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        let millis = at.as_millis();
        Timestamp::from_millis(match self {
            Self::Hour => millis - millis % HOUR,
            Self::Day => millis - millis % DAY,
            Self::Month => {
                let (year, month) = month(millis);
                midnight(year, month)
            }
        })
    }

    /// The first moment after the period that `at` lies in.
    pub fn end(self, at: Timestamp) -> Timestamp {
        let start = self.start(at).as_millis();
        Timestamp::from_millis(match self {
            Self::Hour => start.saturating_add(HOUR),
            Self::Day => start.saturating_add(DAY),
            Self::Month => match month(start) {
                (year, 12) => midnight(year + 1, 1),
                (year, month) => midnight(year, month + 1),
            },
        })
    }
}

/// The first moment of a month, in milliseconds since the epoch; at most `u64::MAX`.
fn midnight(year: i64, month: i64) -> u64 {
    u64::try_from(days_from_civil(year, month, 1)).unwrap_or_default().saturating_mul(DAY)
}

/// The year and the month of a moment.
fn month(millis: u64) -> (i64, i64) {
    let (year, month, _) = civil_from_days(i64::try_from(millis / DAY).unwrap_or(i64::MAX));
    (year, month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(at: Timestamp) -> String {
        at.rfc3339_seconds()
    }

    /// Moments are checked against `date -u -d … +%s`.
    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_period_is_an_hour_a_day_or_a_month_of_the_calendar() {
        // 2026-11-21T10:34:56Z
        let now = at(1_795_257_296);
        assert_eq!(utc(now), "2026-11-21T10:34:56Z");
        for (period, start, end) in [
            (Period::Hour, "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"),
            (Period::Day, "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            (Period::Month, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ] {
            assert_eq!((utc(period.start(now)), utc(period.end(now))), (start.to_owned(), end.to_owned()));
        }
    }

    #[test]
    fn a_month_is_as_long_as_the_calendar_says() {
        for (inside, start, end) in [
            // A leap day, a century without one, a century with one, and the end of a year.
            (1_709_164_800, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (1_772_323_199, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"),
            (951_782_400, "2000-02-01T00:00:00Z", "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (0, "1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z"),
        ] {
            let now = at(inside);
            assert_eq!(utc(Period::Month.start(now)), start);
            assert_eq!(utc(Period::Month.end(now)), end);
        }
    }

    #[test]
    fn every_moment_lies_in_its_period_and_each_period_begins_where_the_last_one_ends() {
        let mut month = Timestamp::ZERO;
        // 800 years of months, day by day.
        for day in 0..292_194 {
            let now = Timestamp::from_millis(day * DAY + day * 997 % DAY);
            for period in [Period::Hour, Period::Day, Period::Month] {
                let (start, end) = (period.start(now), period.end(now));
                assert!(start <= now && now < end, "{period:?} of {}", utc(now));
                assert_eq!(period.start(end), end);
                let last = Timestamp::from_millis(end.as_millis() - 1);
                assert_eq!(period.start(last), start);
            }
            let start = Period::Month.start(now);
            assert!(start == month || start == Period::Month.end(month), "{}", utc(now));
            month = start;
        }
    }

    #[test]
    fn the_largest_timestamp_does_not_panic() {
        let end = Timestamp::from_millis(u64::MAX);
        for period in [Period::Hour, Period::Day, Period::Month] {
            assert!(period.start(end) <= end && period.end(end) > period.start(end));
        }
        assert!(utc(end).ends_with('Z'));
    }
}
