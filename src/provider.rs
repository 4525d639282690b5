//! A provider as data: where it is, how it is paid, which models it has and what they are called there.

use std::fmt;

use crate::breaker::fingerprint;

/// A secret that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key; white space around it (a line end in a secret file) is not part of it.
    ///
    /// # Errors
    /// What is wrong with it, without its text: empty, or with characters that no header can carry.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let key = text.trim();
        if key.is_empty() {
            return Err("is empty");
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds characters that a header cannot carry");
        }
        Ok(Self(key.to_owned()))
    }

    /// The value of the `authorization` header. The only way out of this type.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A number that changes when the key does.
    fn fingerprint(&self) -> u64 {
        fingerprint([self.0.as_str()])
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// The place of a provider in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProviderId(pub usize);

/// A vendor's endpoint.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name: in the configuration, in the route's map, of the cluster's `attempt` filter, in headers.
    pub name: String,
    /// The `host` (`:authority`) that the provider expects.
    pub host: String,
    /// What stands before the endpoint's path: `/v1` for `/v1/chat/completions`, empty for `/chat/completions`.
    pub path_prefix: String,
    /// The key.
    pub api_key: ApiKey,
    /// The models, in the order of the configuration.
    pub models: Vec<Model>,
    /// Headers of the client that may reach this provider beyond those that always may.
    pub allow_headers: Vec<String>,
}

/// One entry of a provider's `models`.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The name that clients ask for; `*` stands for every name.
    pub alias: String,
    /// The provider's name for it; `*` is the name that was asked for.
    pub name: String,
    /// The context, in tokens, if it was given.
    pub context: Option<u64>,
}

/// A provider's model for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What to ask the provider for.
    pub name: String,
    /// The context, in tokens, if known.
    pub context: Option<u64>,
}

const ANY: &str = "*";

impl Provider {
    /// The provider's model for a name that a client asks for: an alias, one of the provider's own names, or whatever
    /// `*` says. `None` if the provider is no candidate for it.
    pub fn resolve(&self, asked: &str) -> Option<Resolved> {
        let alias = self.models.iter().find(|model| model.alias == asked);
        let own = || self.models.iter().find(|model| model.name == asked);
        let any = || self.models.iter().find(|model| model.alias == ANY);
        let model = alias.or_else(own).or_else(any)?;
        let name = if model.name == ANY { asked } else { &model.name };
        Some(Resolved { name: name.to_owned(), context: model.context })
    }

    /// A number that changes when the provider becomes another one: another host, path or key. What was learnt about
    /// the old one does not apply then; a new price or model changes nothing.
    pub fn fingerprint(&self) -> u64 {
        let key = self.api_key.fingerprint().to_string();
        fingerprint([self.name.as_str(), &self.host, &self.path_prefix, &key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(alias: &str, name: &str) -> Model {
        Model { alias: alias.to_owned(), name: name.to_owned(), context: None }
    }

    fn provider(models: Vec<Model>) -> Provider {
        Provider {
            name: "p".to_owned(),
            host: "h".to_owned(),
            path_prefix: "/v1".to_owned(),
            api_key: ApiKey::new("sk-secret").unwrap(),
            models,
            allow_headers: Vec::new(),
        }
    }

    #[test]
    fn a_model_is_found_by_alias_then_by_its_own_name_then_by_the_wildcard() {
        let provider = provider(vec![model("assistant", "gpt"), model("gpt", "other"), model("*", "*")]);
        for (asked, name) in [("assistant", "gpt"), ("gpt", "other"), ("other", "other"), ("new", "new")] {
            assert_eq!(provider.resolve(asked).unwrap().name, name);
        }
    }

    #[test]
    fn a_provider_without_the_model_is_no_candidate() {
        assert_eq!(provider(vec![model("assistant", "gpt")]).resolve("nothing"), None);
    }

    #[test]
    fn a_key_cannot_be_printed() {
        let printed = format!("{:?}", provider(vec![]));
        assert!(printed.contains("ApiKey(***)") && !printed.contains("sk-secret"), "{printed}");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_without_being_shown() {
        for text in ["", "  \n", "a b", "a\nb", "ключ"] {
            assert!(ApiKey::new(text).is_err(), "{text:?}");
        }
        assert_eq!(ApiKey::new(" sk-1\n").unwrap().bearer(), "Bearer sk-1");
    }

    #[test]
    fn the_fingerprint_follows_identity_and_not_models() {
        let one = provider(vec![]);
        let more = provider(vec![model("a", "b")]);
        let other = Provider { api_key: ApiKey::new("sk-other").unwrap(), ..provider(vec![]) };
        assert_eq!(one.fingerprint(), more.fingerprint());
        assert_ne!(one.fingerprint(), other.fingerprint());
    }
}
