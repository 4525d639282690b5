//! Conversations: whether the provider that answers a turn has the earlier turns in its cache, and what it costs if it does not.

use std::time::Duration;

use fastrand::Rng;
use shunt::base::clock::Timestamp;

use super::day::{Day, NAMES};
use super::run::Served;

/// Vendors cache a prompt's prefix for five minutes to an hour after its last use.
const CACHE: Duration = Duration::from_secs(600);
/// The share of the turns that continue a conversation.
const CONTINUES: f64 = 0.75;
/// The share of such a turn's input that was in the turn before.
const SHARE: f64 = 0.8;
/// The discount for a cached token.
const SAVING: f64 = 0.9;

/// The turns that continued a conversation, those of them that moved to another provider, and how much less the moved ones would have
/// cost at a provider that still had the conversation in its cache.
pub(crate) struct Moves {
    pub(crate) turns: usize,
    pub(crate) moved: usize,
    pub(crate) usd: f64,
}

/// Assigns the turns to conversations, which are the same for every policy.
pub(crate) fn moves(day: &Day, served: &[Served]) -> Moves {
    let mut random = Rng::with_seed(5);
    let config = Day::config(&serde_json::json!({}), &NAMES);
    let mut conversations: Vec<(Timestamp, Option<usize>)> = Vec::new();
    let mut moves = Moves { turns: 0, moved: 0, usd: 0.0 };
    for (one, request) in served.iter().zip(&day.requests) {
        conversations.retain(|(last, _)| one.at.since(*last) < CACHE);
        if conversations.is_empty() || random.f64() >= CONTINUES {
            conversations.push((one.at, one.provider));
            continue;
        }
        let place = random.usize(..conversations.len());
        let before = std::mem::replace(&mut conversations[place], (one.at, one.provider)).1;
        moves.turns += 1;
        let Some(provider) = one.provider.filter(|provider| Some(*provider) != before) else { continue };
        moves.moved += 1;
        let found = config.providers.iter().find(|known| known.name == NAMES[provider]).unwrap();
        let price = found.models[0].price.as_ref().unwrap();
        let (input, _) = price.per_token(request.usage.input, one.at).unwrap();
        moves.usd += input.as_pico() as f64 / 1e12 * request.usage.input as f64 * SHARE * SAVING;
    }
    moves
}
