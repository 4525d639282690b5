//! The quality score of a model.

use std::fmt;

/// How good a model is, from 0 to 1. Stored in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u32);

const MILLION: u32 = 1_000_000;

impl Score {
    /// A score from millionths; values above 1 become 1.
    pub fn from_millionths(millionths: u32) -> Self {
        Self(millionths.min(MILLION))
    }

    /// A score from a number as in the configuration; values outside 0 to 1 become the nearest bound.
    pub fn new(score: f64) -> Self {
        Self((score.clamp(0.0, 1.0) * f64::from(MILLION) + 0.5) as u32)
    }

    /// The score in millionths.
    pub const fn as_millionths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Score {
    /// As a decimal number without trailing zeros: `0.86`, `1`, `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 || self.0 == MILLION {
            return f.write_str(if self.0 == 0 { "0" } else { "1" });
        }
        let decimals = format!("{:06}", self.0);
        write!(f, "0.{}", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_written_as_it_was_read() {
        for (number, text) in [(0.0, "0"), (1.0, "1"), (0.86, "0.86"), (0.1, "0.1"), (0.000_001, "0.000001")]
        {
            assert_eq!(Score::new(number).to_string(), text);
        }
        assert_eq!((Score::new(-1.0), Score::new(7.0)), (Score::new(0.0), Score::new(1.0)));
        assert_eq!(Score::new(f64::NAN), Score::new(0.0));
    }
}
