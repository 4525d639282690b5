//! Which requests a budget covers: by tenant, route, provider and model.

use crate::health::breaker::fingerprint;

/// Which values of one property (such as the tenant) a budget covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All values; they share one limit.
    All,
    /// All values; each has a limit of its own.
    Each,
    /// This value.
    Only(String),
    /// All values with this prefix; they share one limit.
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

    /// Two texts that differ from those of every other selection, for a hash.
    fn texts(&self) -> [&str; 2] {
        match self {
            Self::All => ["all", ""],
            Self::Each => ["each", ""],
            Self::Only(name) => ["only", name],
            Self::StartsWith(start) => ["starts with", start],
        }
    }
}

/// The spending that a budget covers: attempts that all four properties select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The tenant.
    pub tenant: Select,
    /// The route's name.
    pub route: Select,
    /// The provider's name.
    pub provider: Select,
    /// The provider's name for the model. It is not the client's alias, because the price belongs to the provider's model and
    /// an alias may later mean another one.
    pub model: Select,
}

impl Scope {
    const fn parts(&self) -> [&Select; 4] {
        [&self.tenant, &self.route, &self.provider, &self.model]
    }

    /// Whether one of the properties is [`Select::Each`].
    pub fn is_for_each(&self) -> bool {
        self.parts().contains(&&Select::Each)
    }

    /// Whether it depends on the candidate, that is on the provider or the model.
    pub fn is_about_candidates(&self) -> bool {
        self.provider != Select::All || self.model != Select::All
    }

    /// Whether it can cover attempts of a route at a provider's model, for some tenant. The model `*` stands for any name.
    pub fn may_cover(&self, route: &str, provider: &str, model: &str) -> bool {
        let is_any = model == "*" && !matches!(self.model, Select::Only(_));
        self.route.matches(route) && self.provider.matches(provider) && (is_any || self.model.matches(model))
    }

    /// A hash of the subject's values of all [`Select::Each`] properties; `None` if the scope does not cover the subject.
    pub(super) fn owner(&self, subject: Subject<'_>) -> Option<u64> {
        let values = [subject.tenant, subject.route, subject.provider, subject.model];
        let parts = || self.parts().into_iter().zip(values);
        if !parts().all(|(select, value)| select.matches(value)) {
            return None;
        }
        let own = parts().filter(|(select, _)| **select == Select::Each).map(|(_, value)| value);
        Some(fingerprint(own))
    }

    /// Appends texts that differ from those of every other scope, for a hash.
    pub(super) fn describe<'a>(&'a self, texts: &mut Vec<&'a str>) {
        for select in self.parts() {
            texts.extend(select.texts());
        }
    }
}

/// The properties of one attempt that decide which budgets cover it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The tenant. It is empty for requests that name none; all of these count as one tenant.
    pub tenant: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The provider's name. Ignored unless [`Scope::is_about_candidates`].
    pub provider: &'a str,
    /// The provider's name for the model. Ignored unless [`Scope::is_about_candidates`].
    pub model: &'a str,
}
