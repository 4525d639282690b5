//! What a budget is about: whose requests, on which route, to whom, for which model.

use crate::health::breaker::fingerprint;

/// Which values of one property a budget is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All of them together.
    All,
    /// Each of them, by itself.
    Each,
    /// This one.
    Only(String),
    /// Those that begin so, together.
    StartsWith(String),
}

impl Select {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::All | Self::Each => true,
            Self::Only(name) => name == value,
            Self::StartsWith(start) => value.starts_with(start.as_str()),
        }
    }

    /// Two texts that no other selection has.
    fn texts(&self) -> [&str; 2] {
        match self {
            Self::All => ["all", ""],
            Self::Each => ["each", ""],
            Self::Only(name) => ["only", name],
            Self::StartsWith(start) => ["starts with", start],
        }
    }
}

/// Which spending a budget is about: what all four select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The tenant.
    pub tenant: Select,
    /// The route's name.
    pub route: Select,
    /// The provider's name.
    pub provider: Select,
    /// The provider's name for the model: that is what costs, and what an alias stands for may change.
    pub model: Select,
}

impl Scope {
    const fn parts(&self) -> [&Select; 4] {
        [&self.tenant, &self.route, &self.provider, &self.model]
    }

    /// Whether it is about each of something by itself.
    pub fn is_for_each(&self) -> bool {
        self.parts().contains(&&Select::Each)
    }

    /// Whether it depends on who is asked for what.
    pub fn is_about_candidates(&self) -> bool {
        self.provider != Select::All || self.model != Select::All
    }

    /// A number for what the subject is by itself here; `None` if the scope is not about it.
    pub(super) fn owner(&self, subject: Subject<'_>) -> Option<u64> {
        let values = [subject.tenant, subject.route, subject.provider, subject.model];
        let parts = || self.parts().into_iter().zip(values);
        if !parts().all(|(select, value)| select.matches(value)) {
            return None;
        }
        let own = parts().filter(|(select, _)| **select == Select::Each).map(|(_, value)| value);
        Some(fingerprint(own))
    }

    /// Adds texts that no other scope adds.
    pub(super) fn describe<'a>(&'a self, texts: &mut Vec<&'a str>) {
        for select in self.parts() {
            texts.extend(select.texts());
        }
    }
}

/// One attempt, as budgets see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The tenant; empty for requests that name none, which are one tenant.
    pub tenant: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The provider's name. Not looked at unless [`Scope::is_about_candidates`].
    pub provider: &'a str,
    /// The provider's name for the model. Not looked at unless [`Scope::is_about_candidates`].
    pub model: &'a str,
}
