//! Evidence: refusals that no list explains, and what other providers said about them. One of them says nothing about the provider,
//! because it may be about the one request. Several in a row, of requests with different bodies, do.
//!
//! Evidence is kept by model and endpoint in a fixed number of slots. A success of that model at that endpoint clears what speaks against
//! the provider. The record has hashes only: of the model, of the refusal (its status and code), and of the bodies of the requests.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::store::fingerprint;
use crate::health::outcome::Doubt;

/// The number of refusals of one provider that are followed at once. A further one replaces the one that was seen last long ago.
pub const EVIDENCE_SLOTS: usize = 6;

/// The number of bodies that are remembered of a row of refusals. A request with one of these bodies is not counted again.
pub(super) const BODIES: usize = 4;

/// The number of requests in a row whose refusal holds a key or a model, if the status could mean that.
pub const REFUSALS: u16 = 3;

/// For so long a refusal that second opinions have confirmed often enough is not asked about again.
const BELIEVED: Duration = Duration::from_secs(60);

/// The least time between two lines in the log about the same refusal.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A refusal that no list explains, as it is compared with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A hash of its status and its code; never 0.
    pub id: u32,
    /// A hash of the body of the request that was refused.
    pub body: u32,
}

impl Refusal {
    /// The refusal of a request. `body` is a hash of the request's body.
    pub fn new(status: Option<u16>, doubt: &Doubt, body: u64) -> Self {
        let id = fingerprint([doubt.code.as_str()]) ^ u64::from(status.unwrap_or_default());
        Self { id: short(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)), body: short(body) }
    }
}

/// The upper half of a hash, never 0.
fn short(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

/// What is known of a row of refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No other provider was asked whether it agrees: the request went on as after a failure.
    #[default]
    Unasked,
    /// Another provider answered each of the requests.
    Disproved,
    /// Another provider refused each of the requests, too.
    Confirmed,
}

/// One row of equal refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The model at its endpoint, as in a report; 0 if the refusals are about the provider's key.
    pub model: u64,
    /// [`Refusal::id`]; 0 if the slot is free.
    pub refusal: u32,
    /// What is known of them.
    pub kind: Kind,
    /// The number of requests in a row. 0 if a success has ended the row.
    pub count: u16,
    /// [`Refusal::body`] of the last ones, the newest first.
    pub bodies: [u32; BODIES],
    /// When the last one was noted.
    pub at: Timestamp,
    /// When the log said something about it.
    pub logged: Timestamp,
}

impl Evidence {
    fn is_of(&self, model: u64, refusal: u32, kind: Kind) -> bool {
        (self.model, self.refusal, self.kind) == (model, refusal, kind) && refusal != 0
    }

    /// Whether it speaks against the provider.
    const fn is_against(&self) -> bool {
        self.count > 0 && !matches!(self.kind, Kind::Confirmed)
    }

    /// Whether it is about this model, or about the key.
    const fn covers(&self, model: u64) -> bool {
        self.model == model || self.model == 0
    }

    /// Counts a request with this body; false if it was counted before, and that matters for this kind.
    fn count(&mut self, body: u32, now: Timestamp) -> bool {
        self.at = now;
        let known = self.bodies.iter().take(self.count.into()).any(|known| *known == body);
        if known && self.kind != Kind::Confirmed {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.bodies.rotate_right(1);
        if let Some(newest) = self.bodies.first_mut() {
            *newest = body;
        }
        true
    }
}

/// All evidence about one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidences(pub [Evidence; EVIDENCE_SLOTS]);

impl Evidences {
    /// Notes a refusal. Returns how many requests in a row had it, if this one counts.
    #[inline(never)]
    pub(super) fn note(&mut self, model: u64, refusal: Refusal, kind: Kind, now: Timestamp) -> Option<u16> {
        let opposite = match kind {
            Kind::Unasked => None,
            Kind::Disproved => Some(Kind::Confirmed),
            Kind::Confirmed => Some(Kind::Disproved),
        };
        for known in self.0.iter_mut().filter(|known| known.model == model) {
            // Another refusal ends the row of this one, because they are not the same in a row.
            let is_other = kind != Kind::Confirmed && known.is_against() && known.refusal != refusal.id;
            let is_opposed = known.refusal == refusal.id && opposite == Some(known.kind);
            if is_other || is_opposed {
                known.count = 0;
            }
        }
        let slot = self.slot(model, refusal.id, kind)?;
        slot.count(refusal.body, now).then_some(slot.count)
    }

    /// The slot of a row of refusals; a new one takes the place of the oldest.
    fn slot(&mut self, model: u64, refusal: u32, kind: Kind) -> Option<&mut Evidence> {
        let known = self.0.iter().position(|known| known.is_of(model, refusal, kind));
        let oldest = self.0.iter().enumerate().min_by_key(|(_, slot)| slot.at).map(|(place, _)| place);
        let slot = self.0.get_mut(known.or(oldest)?)?;
        if known.is_none() {
            *slot = Evidence { model, refusal, kind, ..Evidence::default() };
        }
        Some(slot)
    }

    /// A row has held something: it takes another one to hold it again.
    pub(super) fn use_up(&mut self, model: u64, refusal: u32, kind: Kind) {
        let used = self.0.iter_mut().filter(|known| known.is_of(model, refusal, kind));
        used.for_each(|known| known.count = 0);
    }

    /// An answer of this model at this endpoint ends what speaks against the provider.
    pub(super) fn note_success(&mut self, model: u64) {
        let against = self.0.iter_mut().filter(|known| known.is_against() && known.covers(model));
        against.for_each(|known| known.count = 0);
    }

    /// Whether an answer of this model at this endpoint would change anything.
    pub(super) fn is_against(&self, model: u64) -> bool {
        self.0.iter().any(|known| known.is_against() && known.covers(model))
    }

    /// Whether second opinions have confirmed this refusal `times` in a row, the last one not long ago.
    pub(super) fn is_believed(&self, model: u64, refusal: u32, times: u16, now: Timestamp) -> bool {
        self.0.iter().any(|known| {
            known.is_of(model, refusal, Kind::Confirmed)
                && known.count >= times
                && now.since(known.at) < BELIEVED
        })
    }

    /// Whether the log should say that this refusal was disproved; then it was told so now.
    pub(super) fn is_news(&mut self, model: u64, refusal: u32, now: Timestamp) -> bool {
        let slot = self.0.iter_mut().find(|known| known.is_of(model, refusal, Kind::Disproved));
        let Some(slot) = slot.filter(|slot| now.since(slot.logged) >= LOG_EVERY) else { return false };
        slot.logged = now;
        true
    }
}
