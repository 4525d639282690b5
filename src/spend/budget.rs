//! Budgets: how much may be spent, by whom or on what, in an hour, a day or a month.
//!
//! A request's estimated cost is reserved when it is admitted; when it ends, what it did cost takes the reservation's
//! place. Both are one compare-and-swap on a small record in the [`store`](crate::base::store), so the sum is right across
//! workers. Amounts are pico-USD (10⁻¹² USD) in a `u64`: eighteen million dollars.
//!
//! # When a budget is spent
//!
//! When spent and reserved together reach the limit. A request is admitted as long as they have not, even if its own
//! estimate does not fit; so a limit can be passed by the one request that reaches it, and by what requests in flight
//! cost beyond their estimates, and by no more.
//!
//! # Which period a request counts to
//!
//! To the one in which it was admitted. When it ends after that, nothing is counted: the old period's limit has covered
//! it, and the new one begins at nothing.
//!
//! # Where it is kept
//!
//! A budget with `"*"` is one budget for every tenant (provider, model), each with a slot of its own. The number of keys
//! in the store has to be fixed, so there are [`Budget::slots`] of them and an owner is looked for in a few places that
//! follow from its name. Within a period no slot becomes free, so an owner is always found where it first was. Who finds
//! all places taken shares the overflow slot, and one limit, with all others like it.

mod period;
mod scope;
mod slot;

use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::{update, Contended, Store};
use crate::health::breaker::fingerprint;
use crate::spend::cost::Money;

pub use period::Period;
pub use scope::{Scope, Select, Subject};
use slot::{Found, Slot, COMMON};

/// One pico-USD times this is a micro-USD, which is as fine as limits are given.
pub const PICO_PER_MICRO: u64 = 1_000_000;

/// In so many places an owner is looked for. With half of the slots taken, one owner in 256 finds no room.
const PLACES: u64 = 8;

/// What happens to a request when the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on; the log was told.
    Alert,
    /// It goes to the cheapest candidate.
    Cheapest,
    /// Candidates that the budget is about are left out.
    Skip,
    /// It is refused.
    Block,
}

/// Who, of all that a budget is about, spends. From [`Budget::owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

/// A limit on spending. Made by [`Budget::new`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The name: in headers and logs, and in the keys of its slots.
    pub name: String,
    /// What it is about.
    pub scope: Scope,
    /// The limit, in pico-USD.
    pub limit_pico: u64,
    /// The log is told when so much is spent, in pico-USD.
    pub alert_pico: u64,
    /// What the limit is for.
    pub period: Period,
    /// What happens when it is spent.
    pub action: Action,
    /// How many slots it has beside the common one; 0 unless it is for each of something.
    pub slots: u16,
    /// A number that changes when what was counted does not apply any more: a new limit or action changes nothing.
    identity: u64,
}

/// Whether a budget has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has.
    Open,
    /// Spent and reserved reach the limit.
    Spent,
}

/// How a budget stands for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit, in pico-USD.
    pub limit_pico: u64,
    /// Spent in this period, in pico-USD.
    pub spent_pico: u64,
    /// Reserved by requests that are under way, in pico-USD.
    pub reserved_pico: u64,
    /// What was spent before, in this period, is not known: the state does not outlive the gateway.
    pub counting_since: Timestamp,
    /// When the period ends.
    pub resets_at: Timestamp,
    /// Whether there is room; for an [`Admission`], as the request found it.
    pub state: State,
    /// The alert is due, and this is the only time in this period that anyone is told.
    pub newly_alerted: bool,
    /// No slot was free: the limit is shared with others.
    pub overflow: bool,
    /// As `overflow`, and the first in this period: the log should be told.
    pub newly_overflow: bool,
}

/// What a request reserved; settle it once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is not settled counts for an hour or two"]
pub struct Reservation {
    key: String,
    owner: u64,
    start: Timestamp,
    lease: u64,
    amount: u64,
}

/// The answer to a request that wants to spend.
#[derive(Debug, PartialEq, Eq)]
pub struct Admission {
    /// How the budget stands, the reservation included.
    pub standing: Standing,
    /// What was reserved; `None` if the request was refused.
    pub reservation: Option<Reservation>,
}

impl Budget {
    /// A budget. `limit_pico` and `alert_pico` are pico-USD; `slots` counts only if the scope is for each of something,
    /// and is at least 1 then.
    pub fn new(
        name: &str,
        scope: Scope,
        limit_pico: u64,
        alert_pico: u64,
        period: Period,
        action: Action,
        slots: u16,
    ) -> Self {
        let slots = if scope.is_for_each() { slots.max(1) } else { 0 };
        let number = slots.to_string();
        let mut texts = vec![name, period.name(), &number];
        scope.describe(&mut texts);
        let identity = fingerprint(texts);
        Self { name: name.to_owned(), scope, limit_pico, alert_pico, period, action, slots, identity }
    }

    /// Whether it depends on who is asked, so that it can only be looked at when a candidate is known.
    pub fn is_about_candidates(&self) -> bool {
        self.scope.is_about_candidates()
    }

    /// Who spends with this attempt; `None` if the budget is not about it.
    pub fn owner(&self, subject: Subject<'_>) -> Option<Owner> {
        self.scope.owner(subject).map(Owner)
    }

    /// Reserves `estimate_pico` unless the budget is spent; check and reservation are one step. A request that is
    /// refused reserves nothing.
    ///
    /// # Errors
    /// [`Contended`]; nothing was reserved then.
    pub fn admit(
        &self,
        owner: Owner,
        estimate_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        self.take(owner, estimate_pico, false, now, store)
    }

    /// Reserves `estimate_pico` even if the budget is spent: for a request that goes on all the same. The standing says
    /// how the request found it.
    ///
    /// # Errors
    /// [`Contended`]; nothing was reserved then.
    pub fn reserve(
        &self,
        owner: Owner,
        estimate_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        self.take(owner, estimate_pico, true, now, store)
    }

    fn take(
        &self,
        owner: Owner,
        estimate: u64,
        always: bool,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        for (key, owner) in self.places(owner) {
            let answer = update(store, &key, |bytes| {
                let (mut slot, is_new) = match Slot::find(bytes, self.identity, owner, self.period, now) {
                    Found::Ours(slot) => (slot, false),
                    Found::Free(slot) => (slot, true),
                    Found::Taken => return (None, None),
                };
                let state = self.state(&slot);
                let reserved = (always || state == State::Open).then(|| slot.reserve(estimate));
                let newly_alerted = slot.alert(self.alert_pico);
                // A refused request has nothing to write.
                let changed = reserved.is_some() || newly_alerted;
                let standing = Standing { state, newly_alerted, ..self.standing_of(&slot) };
                let newly_overflow = standing.overflow && is_new && changed;
                let standing = Standing { newly_overflow, ..standing };
                let answer = (standing, reserved, slot.start, slot.lease);
                (changed.then(|| slot.encode()), Some(answer))
            })?;
            let Some((standing, reserved, start, lease)) = answer else { continue };
            let reservation = reserved.map(|amount| Reservation { key, owner, start, lease, amount });
            return Ok(Admission { standing, reservation });
        }
        // The last place is never taken.
        Err(Contended)
    }

    /// Puts what a request did cost in the place of what it reserved; 0 gives the reservation back. `None`: its period
    /// is over, or the budget is another one by now, and nothing was counted.
    ///
    /// # Errors
    /// [`Contended`]; nothing was written, the reservation stands and can be settled later.
    pub fn settle(
        &self,
        reservation: &Reservation,
        actual_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Option<Standing>, Contended> {
        let Reservation { key, owner, start, lease, amount } = reservation;
        update(store, key, |bytes| {
            let found = Slot::find(bytes, self.identity, *owner, self.period, now);
            let mut slot = match found {
                Found::Ours(slot) => slot,
                // The record was lost, not handed on: what is spent now must not be lost with it.
                Found::Free(slot) if Slot::decode(bytes).is_none() => slot,
                Found::Free(_) | Found::Taken => return (None, None),
            };
            if slot.start != *start {
                return (None, None);
            }
            slot.settle(*lease, *amount, actual_pico);
            let newly_alerted = slot.alert(self.alert_pico);
            let standing = Standing { newly_alerted, ..self.standing_of(&slot) };
            (Some(slot.encode()), Some(standing))
        })
    }

    /// How the budget stands; nothing is written.
    pub fn standing(&self, owner: Owner, now: Timestamp, store: &mut dyn Store) -> Standing {
        for (key, owner) in self.places(owner) {
            let (bytes, _) = store.load(&key);
            match Slot::find(&bytes, self.identity, owner, self.period, now) {
                Found::Ours(slot) | Found::Free(slot) => return self.standing_of(&slot),
                Found::Taken => {}
            }
        }
        // Not reached: the last place is never taken.
        self.standing_of(&Slot::new(self.identity, COMMON, self.period, now))
    }

    /// The value of the header that tells a client how its budget stands: amounts in USD, `reset` in seconds.
    /// `team-a;remaining=12.34;limit=100;reset=3600;counting_since=2026-11-21T10:00:00Z`
    pub fn header(&self, standing: &Standing, now: Timestamp) -> String {
        let usd = |pico: u64| Money::from_pico(pico).to_string();
        let left = standing.limit_pico.saturating_sub(standing.spent_pico);
        [
            self.name.as_str(),
            ";remaining=",
            &usd(left.saturating_sub(standing.reserved_pico)),
            ";limit=",
            &usd(standing.limit_pico),
            ";reset=",
            &seconds_up(standing.resets_at.since(now)).to_string(),
            ";counting_since=",
            &standing.counting_since.rfc3339_seconds(),
        ]
        .concat()
    }

    /// Where an owner is looked for, in this order: the keys, and whose slot it is there. The last is the common one.
    fn places(&self, Owner(owner): Owner) -> impl Iterator<Item = (String, u64)> + '_ {
        let slots = u64::from(self.slots);
        // Two owners that meet in one place part in the next. The odd step visits all of a power of two.
        let step = if slots > PLACES { owner >> 32 | 1 } else { 1 };
        let own = (0..PLACES.min(slots)).filter_map(move |place| {
            let number = owner.wrapping_add(step.wrapping_mul(place)).checked_rem(slots)?;
            Some((self.key(&number.to_string()), owner))
        });
        let common = if self.slots > 0 { "overflow" } else { "" };
        own.chain(std::iter::once_with(move || (self.key(common), COMMON)))
    }

    /// The key of a slot. A name has no dot, so no two budgets have one in common.
    fn key(&self, slot: &str) -> String {
        let dot = if slot.is_empty() { "" } else { "." };
        ["shunt.budget.", &self.name, dot, slot].concat()
    }

    fn standing_of(&self, slot: &Slot) -> Standing {
        Standing {
            limit_pico: self.limit_pico,
            spent_pico: slot.spent,
            reserved_pico: slot.reserved(),
            counting_since: slot.since,
            resets_at: self.period.end(slot.start),
            state: self.state(slot),
            newly_alerted: false,
            overflow: self.slots > 0 && slot.owner == COMMON,
            newly_overflow: false,
        }
    }

    const fn state(&self, slot: &Slot) -> State {
        if slot.committed() < self.limit_pico {
            State::Open
        } else {
            State::Spent
        }
    }
}

#[cfg(test)]
mod tests;
