//! A provider as data: its address, its key, its prices, and its models with their names there.

mod score;
mod served;

use std::fmt;
use std::rc::Rc;

use crate::client_api::request::Features;
use crate::dialects::dialect::Dialect;
use crate::health::breaker::fingerprint;
use crate::spend::cost::{Price, PriceList};
pub use score::Score;

/// A key that is never printed by `Debug`. It is kept as the value of the header that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    value: Rc<str>,
    /// The length of the prefix before the key, in bytes.
    prefix: usize,
}

impl ApiKey {
    /// Takes a key and trims white space around it, such as the line end of a secret file. `prefix` is what comes before the key in
    /// its header: `Bearer ` or nothing.
    ///
    /// # Errors
    /// What is wrong with the key, without its text: it is empty or has characters that a header cannot carry.
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

    /// The key alone, to search for it where it must not appear.
    pub fn secret(&self) -> &str {
        self.value.get(self.prefix..).unwrap_or_default()
    }

    /// A hash of the key.
    fn fingerprint(&self) -> u64 {
        fingerprint([self.secret()])
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// The index of a provider in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProviderId(pub usize);

/// A vendor's endpoint.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name, as used in the configuration, in the clusters of the gateway and in headers.
    pub name: String,
    /// The `host` (`:authority`) that the provider expects.
    pub host: String,
    /// The prefix of every path: `/v1` for `/v1/chat/completions`, empty for `/chat/completions`.
    pub path_prefix: String,
    /// The region, which a policy can prefer; empty if none is configured.
    pub region: String,
    /// The key.
    pub api_key: ApiKey,
    /// The models, in the order of the configuration.
    pub models: Vec<Model>,
    /// Price lists for models without a price of their own. The first list that has the model counts.
    pub prices: Vec<Rc<PriceList>>,
    /// How its API differs from OpenAI's.
    pub dialect: Dialect,
    /// The client's headers that are forwarded to this provider, in lower case.
    pub allow_headers: Vec<String>,
    /// The key and the fingerprint under which its health record is stored.
    pub identity: Identity,
}

/// Tells a provider from an earlier one with the same name. With another host, path or key it is a different provider, to which
/// the stored health record does not apply. A new price or model changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A hash of the name, host, path and key.
    pub fingerprint: u64,
    /// The key of its health record in the [store](crate::base::store).
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
    /// The name that clients request; `*` matches every name.
    pub alias: String,
    /// The provider's name for the model; `*` means the requested name.
    pub name: String,
    /// The size of the context in tokens, if configured.
    pub context: Option<u64>,
    /// The longest answer in tokens, if configured.
    pub max_output: Option<u64>,
    /// The model's own price, if configured.
    pub price: Option<Rc<Price>>,
    /// The features that it lacks, if configured.
    pub lacks: Option<Features>,
    /// The quality score, if configured.
    pub quality: Option<Score>,
}

/// The provider's model that serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The model's name in the request to the provider.
    pub name: String,
    /// The index of its entry in [`Provider::models`].
    pub entry: usize,
    /// The size of the context in tokens, if known.
    pub context: Option<u64>,
    /// The longest answer in tokens, if known.
    pub max_output: Option<u64>,
    /// The price, if known: the model's own, or the one in the first price list that has the name.
    pub price: Option<Rc<Price>>,
    /// The features that it lacks.
    pub lacks: Features,
}

const ANY: &str = "*";

impl Provider {
    /// Whether requests to another provider reach the same account of the same vendor.
    pub fn shares_account(&self, other: &Self) -> bool {
        self.host == other.host && self.api_key.secret() == other.api_key.secret()
    }

    /// The provider's model for a name that a client requests. The name is looked up first as an alias, then as one of the
    /// provider's own names, then with `*`. `None` if the provider is no candidate for it.
    pub fn resolve(&self, requested: &str) -> Option<Resolved> {
        let alias = self.models.iter().position(|model| model.alias == requested);
        let own = || self.models.iter().position(|model| model.name == requested);
        let any = || self.models.iter().position(|model| model.alias == ANY);
        let entry = alias.or_else(own).or_else(any)?;
        let model = self.models.get(entry)?;
        let name = if model.name == ANY { requested } else { &model.name };
        let price = model.price.clone().or_else(|| self.listed(name));
        let lacks = model.lacks.unwrap_or(self.dialect.lacks);
        let Model { context, max_output, .. } = *model;
        Some(Resolved { name: name.to_owned(), entry, context, max_output, price, lacks })
    }

    /// The price in the first price list that has the model.
    pub fn listed(&self, model: &str) -> Option<Rc<Price>> {
        self.prices.iter().find_map(|list| list.find(model))
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
            max_output: None,
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
        for (requested, name) in [("assistant", "gpt"), ("gpt", "other"), ("other", "other"), ("new", "new")]
        {
            assert_eq!(provider.resolve(requested).unwrap().name, name);
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
    fn a_provider_with_another_host_path_or_key_has_another_fingerprint() {
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
