//! Time as a value: a [`Timestamp`] comes in as an argument, durations are read from text with units.
//!
//! The core never reads a clock. Wall time is used, not monotonic time, because a timestamp in shared data is
//! compared by other workers, and by the same gateway after a restart of its VM.

use std::fmt;
use std::time::Duration;

/// A moment, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch: earlier than every moment a gateway can see.
    pub const ZERO: Self = Self(0);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; stops at the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long after `earlier` this is; zero if the clock went backwards in between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds of a duration, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up: what a header in seconds must say so that nobody comes back too early.
pub fn seconds_up(duration: Duration) -> u64 {
    millis(duration).div_ceil(1000)
}

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADuration;

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"250ms\", \"30s\" or \"5m\"")
    }
}

/// Reads a duration: one or more numbers, each with a unit of `ms`, `s`, `m` or `h`.
///
/// The form is that of the configuration (`"250ms"`) and of OpenAI's reset headers (`1m3s`, `12ms`, `0.5s`). A number
/// without a unit is refused, so that nobody has to remember what it meant.
///
/// # Errors
/// [`NotADuration`] for anything else, and for values beyond 10,000 hours.
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
        let value = number.parse::<f64>().map_err(|_| NotADuration)? * seconds;
        if !(0.0..=LONGEST_SECONDS).contains(&value) {
            return Err(NotADuration);
        }
        total = total.saturating_add(Duration::from_secs_f64(value));
        rest = next;
    }
    Ok(total)
}

/// Longer than any sensible setting, and far from every overflow.
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
    fn seconds_are_rounded_up() {
        assert_eq!(seconds_up(Duration::from_millis(1001)), 2);
        assert_eq!(seconds_up(Duration::ZERO), 0);
    }
}
