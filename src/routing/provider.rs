//! A provider as data: where it is, how it is paid, which models it has and what they are called there.

mod score;

use std::fmt;
use std::rc::Rc;

use crate::client_api::request::Features;
use crate::dialects::dialect::Dialect;
use crate::health::breaker::fingerprint;
use crate::spend::cost::{Price, PriceList};
pub use score::Score;

/// A secret that cannot be printed. Kept as the value of the header that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    value: Rc<str>,
    /// So many bytes of it stand before the key.
    prefix: usize,
}

impl ApiKey {
    /// Takes a key; white space around it (a line end in a secret file) is not part of it. `prefix` stands before it in its
    /// header: `Bearer `, or nothing.
    ///
    /// # Errors
    /// What is wrong with it, without its text: empty, or with characters that no header can carry.
    pub fn new(prefix: &str, text: &str) -> Result<Self, &'static str> {
        let key = text.trim();
        if key.is_empty() {
            return Err("is empty");
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds characters that a header cannot carry");
        }
        Ok(Self { value: [prefix, key].concat().into(), prefix: prefix.len() })
    }

    /// The value of the header that carries it.
    pub fn header(&self) -> &str {
        &self.value
    }

    /// The key alone: to find it where it must not be.
    pub fn secret(&self) -> &str {
        self.value.get(self.prefix..).unwrap_or_default()
    }

    /// A number that changes when the key does.
    fn fingerprint(&self) -> u64 {
        fingerprint([self.secret()])
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
    /// Where it is, for policies; empty if it was not given.
    pub region: String,
    /// The key.
    pub api_key: ApiKey,
    /// The models, in the order of the configuration.
    pub models: Vec<Model>,
    /// Prices of models without a price of their own; the first list that has the model counts.
    pub prices: Vec<Rc<PriceList>>,
    /// What is different in speaking to it.
    pub dialect: Dialect,
    /// Headers of the client that may reach this provider, in lower case.
    pub allow_headers: Vec<String>,
    /// Under which name, and as whom, it is remembered.
    pub identity: Identity,
}

/// What tells a provider from the one that had its name before: another host, path or key. What was learnt about the old
/// one does not apply then; a new price or model changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A number that changes when the provider becomes another one.
    pub fingerprint: u64,
    /// The key of its record in the [store](crate::base::store).
    pub record: String,
}

impl Identity {
    /// The identity of a provider of this configuration.
    pub fn of(name: &str, host: &str, path_prefix: &str, api_key: &ApiKey) -> Self {
        let key = api_key.fingerprint().to_string();
        Self {
            fingerprint: fingerprint([name, host, path_prefix, &key]),
            record: ["shunt.provider.", name].concat(),
        }
    }
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
    /// Its own price, if it was given.
    pub price: Option<Rc<Price>>,
    /// What it does not take, if that was said.
    pub lacks: Option<Features>,
    /// How good it is, if that was said.
    pub quality: Option<Score>,
}

/// A provider's model for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What to ask the provider for.
    pub name: String,
    /// The place of its entry in [`Provider::models`].
    pub entry: usize,
    /// The context, in tokens, if known.
    pub context: Option<u64>,
    /// The price, if known: its own, or that of the first price list that has the name.
    pub price: Option<Rc<Price>>,
    /// What it does not take.
    pub lacks: Features,
}

const ANY: &str = "*";

impl Provider {
    /// The provider's model for a name that a client asks for: an alias, one of the provider's own names, or whatever
    /// `*` says. `None` if the provider is no candidate for it.
    pub fn resolve(&self, asked: &str) -> Option<Resolved> {
        let alias = self.models.iter().position(|model| model.alias == asked);
        let own = || self.models.iter().position(|model| model.name == asked);
        let any = || self.models.iter().position(|model| model.alias == ANY);
        let entry = alias.or_else(own).or_else(any)?;
        let model = self.models.get(entry)?;
        let name = if model.name == ANY { asked } else { &model.name };
        let listed = || self.prices.iter().find_map(|list| list.find(name));
        let price = model.price.clone().or_else(listed);
        let lacks = model.lacks.unwrap_or(self.dialect.lacks);
        Some(Resolved { name: name.to_owned(), entry, context: model.context, price, lacks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::dialect::Vendor;

    fn model(alias: &str, name: &str) -> Model {
        Model {
            alias: alias.to_owned(),
            name: name.to_owned(),
            context: None,
            price: None,
            lacks: None,
            quality: None,
        }
    }

    fn provider(models: Vec<Model>) -> Provider {
        let api_key = ApiKey::new("Bearer ", "sk-secret").unwrap();
        Provider {
            name: "p".to_owned(),
            host: "h".to_owned(),
            path_prefix: "/v1".to_owned(),
            region: String::new(),
            identity: Identity::of("p", "h", "/v1", &api_key),
            api_key,
            models,
            prices: Vec::new(),
            dialect: Dialect::of(Vendor::OpenAi),
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
            assert!(ApiKey::new("Bearer ", text).is_err(), "{text:?}");
        }
        assert_eq!(ApiKey::new("Bearer ", " sk-1\n").unwrap().header(), "Bearer sk-1");
    }

    #[test]
    fn another_host_path_or_key_is_another_provider() {
        let key = |text| ApiKey::new("Bearer ", text).unwrap();
        let one = Identity::of("p", "h", "/v1", &key("sk-1"));
        assert_eq!(one, Identity::of("p", "h", "/v1", &key("sk-1")));
        for other in [("p", "h2", "/v1", "sk-1"), ("p", "h", "/v2", "sk-1"), ("p", "h", "/v1", "sk-2")] {
            let other = Identity::of(other.0, other.1, other.2, &key(other.3));
            assert_ne!(one.fingerprint, other.fingerprint);
            assert_eq!(one.record, other.record, "the number of keys is fixed");
        }
    }
}
