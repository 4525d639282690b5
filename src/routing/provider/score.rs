//! How good a model is.

use std::fmt;

/// How good a model is, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u32);

const MILLION: u32 = 1_000_000;

impl Score {
    /// A score in millionths; what is above 1 is 1.
    pub fn from_millionths(millionths: u32) -> Self {
        Self(millionths.min(MILLION))
    }

    /// A score as the configuration has it; what is outside of 0 to 1 is the nearer of the two.
    pub fn new(score: f64) -> Self {
        Self((score.clamp(0.0, 1.0) * f64::from(MILLION) + 0.5) as u32)
    }

    /// In millionths.
    pub const fn as_millionths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Score {
    /// `0.86`, `1`, `0`: without zeros at the end.
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
