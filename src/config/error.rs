//! What is wrong with a configuration: every problem with its place, what was expected and what was found.

use std::fmt;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `routes[1].policy.type`.
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.path, self.what)
        }
    }
}

/// All problems of one configuration, in the order of the document; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in the configuration:", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known word that `found` was probably meant to be: another case, or a slip of a finger for every three letters.
pub(super) fn did_you_mean<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    let slips = (found.chars().count() / 3).clamp(1, 2);
    known
        .iter()
        .map(|word| (strsim::osa_distance(&found, word), *word))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_near_or_not_made() {
        assert_eq!(did_you_mean("prioritty", &["priority", "cost"]), Some("priority"));
        assert_eq!(did_you_mean("Modle", &["name", "model"]), Some("model"));
        assert_eq!(did_you_mean("half_open", &["max_open", "open"]), None);
        assert_eq!(did_you_mean("banana", &["priority", "cost"]), None);
    }
}
