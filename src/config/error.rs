//! The problems of a configuration. Each says where it is, what was expected and what was found.

use crate::bytes::ascii;
use std::fmt;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path in the document, such as `routes[1].policy.type`.
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

/// All problems of one configuration, at least one, in the order in which they were found.
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

/// The known word that `found` was probably meant to be. It may differ in case, and by one typing mistake for every three letters,
/// at least one and at most two.
pub(super) fn did_you_mean<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = ascii::lower(found);
    let mistakes = (found.chars().count() / 3).clamp(1, 2);
    known
        .iter()
        .map(|word| (strsim::osa_distance(&found, word), *word))
        .filter(|(distance, _)| *distance <= mistakes)
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
