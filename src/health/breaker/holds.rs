//! Holds: for how long a provider, or one model of it at one endpoint, is skipped.

use std::time::Duration;

use super::Record;
use crate::base::clock::Timestamp;
use crate::health::outcome::{HoldReason, Outcome};

/// How long providers are held for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldPolicy {
    /// For a 429 that does not say when to come back.
    pub rate_limited: Duration,
    /// For an account without money or quota.
    pub out_of_quota: Duration,
    /// For a key that the provider refuses.
    pub bad_key: Duration,
    /// For a model that the provider does not have, or does not serve; only that model is held.
    pub no_such_model: Duration,
    /// The longest hold, whatever a header says and however often the reason repeats.
    pub max: Duration,
}

impl HoldPolicy {
    const fn base(&self, reason: HoldReason) -> Duration {
        match reason {
            HoldReason::RateLimited => self.rate_limited,
            HoldReason::OutOfQuota => self.out_of_quota,
            HoldReason::BadKey => self.bad_key,
        }
    }
}

/// The hold of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it ends.
    pub until: Timestamp,
    /// Why the provider is held.
    pub reason: HoldReason,
    /// How often it was held for this reason in succession.
    pub streak: u8,
}

/// Why a model is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelHoldReason {
    /// The provider does not have it.
    #[default]
    NoSuchModel,
    /// The provider refuses its requests, and does not say why.
    Unwilling,
    /// The provider calls its requests wrong, and other providers answer them.
    BadRequest,
}

impl ModelHoldReason {
    /// The name in headers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchModel => Outcome::NoSuchModel.name(),
            Self::Unwilling => Outcome::Unwilling.name(),
            Self::BadRequest => Outcome::BadRequest.name(),
        }
    }
}

/// The hold of one model of the provider at one endpoint. They are kept as a hash: clients choose the name of the model, and the record
/// must stay small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelHold {
    /// The model at its endpoint, as in a report; 0 if the slot is free.
    pub model: u64,
    /// When it ends.
    pub until: Timestamp,
    /// Why the model is held.
    pub reason: ModelHoldReason,
    /// How often the model was held in succession.
    pub streak: u8,
}

/// The number of models, each at one endpoint, of one provider that can be held at once. A further one replaces the hold that would end
/// first.
pub const MODEL_SLOTS: usize = 8;

impl Record {
    /// Holds the provider.
    #[inline(never)]
    pub(super) fn hold_provider(
        &mut self,
        reason: HoldReason,
        asked: Option<Duration>,
        now: Timestamp,
        holds: &HoldPolicy,
    ) {
        self.hold = Some(extended(self.hold, reason, asked, now, holds));
    }

    /// Holds a model at an endpoint.
    #[inline(never)]
    pub(super) fn hold_model(
        &mut self,
        model: u64,
        reason: ModelHoldReason,
        now: Timestamp,
        holds: &HoldPolicy,
    ) {
        let known = self.models.iter().position(|slot| slot.model == model);
        let place = known.or_else(|| {
            self.models.iter().enumerate().min_by_key(|(_, slot)| slot.until).map(|(place, _)| place)
        });
        let Some(slot) = place.and_then(|place| self.models.get_mut(place)) else { return };
        // As in [`extended`]: several requests that fail at once are one event.
        let streak = match *slot {
            ModelHold { model: held, until, streak, .. } if held == model && until > now => streak,
            ModelHold { model: held, streak, .. } if held == model => streak.saturating_add(1),
            ModelHold { .. } => 1,
        };
        let until = now.after(grow(holds.no_such_model, streak, holds.max));
        *slot = ModelHold { model, until, reason, streak };
    }
}

/// The hold after one more answer that asks for one. It lasts as long as the provider asks, or else a time that doubles with every
/// repetition; never longer than the configured maximum, and never ends before the present hold.
fn extended(
    hold: Option<Hold>,
    reason: HoldReason,
    asked: Option<Duration>,
    now: Timestamp,
    holds: &HoldPolicy,
) -> Hold {
    // Several requests that fail at once are one event, so the streak does not grow while the hold runs.
    let streak = match hold {
        Some(hold) if hold.reason == reason && hold.until > now => hold.streak,
        Some(hold) if hold.reason == reason => hold.streak.saturating_add(1),
        _ => 1,
    };
    let grown = grow(holds.base(reason), streak, holds.max);
    let length = match asked.filter(|_| reason == HoldReason::RateLimited) {
        Some(asked) => asked.min(holds.max),
        None => grown,
    };
    let until = now.after(length);
    match hold {
        // A hold that ends later stays as it is, whatever the new reason.
        Some(hold) if hold.until > until => {
            Hold { streak: if hold.reason == reason { streak } else { hold.streak }, ..hold }
        }
        _ => Hold { until, reason, streak },
    }
}

/// `base`, doubled for every time after the first, but at most `max`.
pub(super) fn grow(base: Duration, times: u8, max: Duration) -> Duration {
    let doublings = u32::from(times.saturating_sub(1)).min(20);
    base.saturating_mul(1_u32 << doublings).min(max)
}
