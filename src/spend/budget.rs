//! Budgets: a limit on what a tenant, a route, a provider or a model may spend in an hour, a day or a month.
//!
//! When a request is admitted, its estimated cost is reserved; when it moves to another candidate, the reservation is changed to
//! what it is expected to cost now; when it ends, its actual cost replaces the reservation. Each step is one compare-and-swap on
//! a small record in the [`store`](crate::base::store), so the sum is right across workers.
//! Amounts are pico-USD (10⁻¹² USD) in a `u64`, which holds up to eighteen million dollars.
//!
//! # When a budget is spent
//!
//! A budget is spent when the spent and the reserved amount together reach the limit. Until then a request is admitted even
//! if its own estimate exceeds what is left. So a limit can be exceeded by the one request that reaches it and by what
//! requests in flight cost beyond their estimates, but by no more.
//!
//! # Which period a request counts to
//!
//! A request counts to the period in which it was admitted. If it ends in a later period, its cost is not counted: its
//! reservation was already held against the old period's limit, and the new period begins at zero.
//!
//! # How amounts are stored
//!
//! A budget with `"*"` is a separate budget for each tenant (or provider, or model); each of these owners has a slot of its
//! own. The number of keys in the store must be bounded, so a budget has [`Budget::slots`] of them: a hash table with open
//! addressing, in which an owner is looked for in a few slots that follow from the hash of its name. Within a period no slot
//! becomes free, so an owner stays in the slot that it first got. An owner that finds all its slots taken uses the overflow
//! slot; all owners there share one limit.

mod period;
mod scope;
mod slot;

use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::{update, Contended, Store};
use crate::health::breaker::fingerprint;
use crate::spend::cost::Money;
use crate::spend::queued::Queued;

pub use period::Period;
pub use scope::{Scope, Select, Subject};
use slot::{Found, Slot, SHARED};

/// The pico-USD in a micro-USD, which is the finest unit in which limits are configured.
pub const PICO_PER_MICRO: u64 = 1_000_000;

/// The number of slots in which an owner is looked for. With half of all slots taken, one owner in 256 finds no free one.
const PROBES: u64 = 8;

/// What happens to a request when the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It continues; only the log reports it.
    Alert,
    /// It is sent to the cheapest candidate.
    Cheapest,
    /// Candidates that the budget covers are excluded.
    Skip,
    /// It is refused.
    Block,
}

/// The tenant, provider or model (or combination of them) whose share of a budget is spent. From [`Budget::owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

/// A limit on spending. Only [`Budget::new`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The name, as it stands in headers, in logs and in the keys of its slots.
    pub name: String,
    /// The spending that it covers.
    pub scope: Scope,
    /// The limit, in pico-USD.
    pub limit_pico: u64,
    /// The spent amount at which an alert is logged, in pico-USD.
    pub alert_pico: u64,
    /// The period that the limit applies to.
    pub period: Period,
    /// What happens to requests when it is spent.
    pub action: Action,
    /// Requests for responses in the background are refused.
    pub refuses_background: bool,
    /// The number of slots beside the shared one; 0 unless a part of the scope is [`Select::Each`].
    pub slots: u16,
    /// A hash of everything that decides what was counted. If it changes, the stored amounts no longer apply. A new limit or
    /// action does not change it.
    identity: u64,
}

/// Whether a budget has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has room.
    Open,
    /// The spent and reserved amounts together have reached the limit.
    Spent,
}

/// The state of a budget for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit, in pico-USD.
    pub limit_pico: u64,
    /// The amount spent in this period, in pico-USD.
    pub spent_pico: u64,
    /// The amount reserved by requests in flight, in pico-USD.
    pub reserved_pico: u64,
    /// Since when spending is counted. What was spent earlier in this period is unknown, since the state does not survive a
    /// restart of the gateway.
    pub counting_since: Timestamp,
    /// When the period ends.
    pub resets_at: Timestamp,
    /// Whether there is room. In an [`Admission`] it is the state before the request's own reservation.
    pub state: State,
    /// The alert is due. True only once in a period, so that it is logged once.
    pub newly_alerted: bool,
    /// The owner has no slot of its own and shares the limit with others.
    pub overflow: bool,
    /// The owner is the first in the overflow slot in this period, which should be logged.
    pub newly_overflow: bool,
}

/// An amount that a request reserved; to be settled once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is not settled counts for an hour or two"]
pub struct Reservation {
    key: String,
    owner: u64,
    start: Timestamp,
    lease: u64,
    amount: u64,
}

impl Reservation {
    /// The amount, in pico-USD.
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

/// The result of asking a budget for a reservation.
#[derive(Debug, PartialEq, Eq)]
pub struct Admission {
    /// The state of the budget, including the reservation.
    pub standing: Standing,
    /// The reservation; `None` if the request was refused.
    pub reservation: Option<Reservation>,
}

impl Budget {
    /// Makes a budget. `limit_pico` and `alert_pico` are pico-USD. `slots` is only used if a part of the scope is
    /// [`Select::Each`], and is then raised to at least 1.
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
        Self {
            name: name.to_owned(),
            scope,
            limit_pico,
            alert_pico,
            period,
            action,
            refuses_background: false,
            slots,
            identity,
        }
    }

    /// Whether it depends on the provider or the model, so that it can only be evaluated per candidate.
    pub fn is_about_candidates(&self) -> bool {
        self.scope.is_about_candidates()
    }

    /// The owner that this attempt spends for; `None` if the budget does not cover the attempt.
    pub fn owner(&self, subject: Subject<'_>) -> Option<Owner> {
        self.scope.owner(subject).map(Owner)
    }

    /// Reserves `estimate_pico` unless the budget is spent. Check and reservation are one atomic step; a request that is
    /// refused reserves nothing.
    ///
    /// # Errors
    /// [`Contended`] if other workers won every race; nothing was reserved then.
    pub fn admit(
        &self,
        owner: Owner,
        estimate_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        self.try_reserve(owner, estimate_pico, false, now, store)
    }

    /// Reserves `estimate_pico` even if the budget is spent, for a request that continues all the same. The state in the
    /// standing is the one before this reservation.
    ///
    /// # Errors
    /// [`Contended`] if other workers won every race; nothing was reserved then.
    pub fn reserve(
        &self,
        owner: Owner,
        estimate_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        self.try_reserve(owner, estimate_pico, true, now, store)
    }

    fn try_reserve(
        &self,
        owner: Owner,
        estimate: u64,
        always: bool,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Admission, Contended> {
        for (key, owner) in self.probes(owner) {
            let found = update(store, &key, |bytes| {
                let (mut slot, is_new) = match Slot::find(bytes, self.identity, owner, self.period, now) {
                    Found::Ours(slot) => (slot, false),
                    Found::Free(slot) => (slot, true),
                    Found::Taken => return (None, None),
                };
                let state = self.state(&slot);
                let reserved = (always || state == State::Open).then(|| slot.reserve(estimate));
                let newly_alerted = slot.alert(self.alert_pico);
                // A refused request changes nothing, so nothing is written for it.
                let changed = reserved.is_some() || newly_alerted;
                let standing = Standing { state, newly_alerted, ..self.standing_of(&slot) };
                let newly_overflow = standing.overflow && is_new && changed;
                let standing = Standing { newly_overflow, ..standing };
                let found = (standing, reserved, slot.start, slot.lease);
                (changed.then(|| slot.encode()), Some(found))
            })?;
            let Some((standing, reserved, start, lease)) = found else { continue };
            let reservation = reserved.map(|amount| Reservation { key, owner, start, lease, amount });
            return Ok(Admission { standing, reservation });
        }
        // Not reached: the shared slot, which is tried last, is never taken by another owner.
        Err(Contended)
    }

    /// Changes the reservation of a request that has cost `earlier_pico` so far and is expected to cost `estimate_pico` more where it
    /// moves now, in one atomic step. More than was reserved before is refused if the budget is spent without the reservation but
    /// with what the request has cost, unless it must be reserved `always`; the old reservation stands then. `None` if nothing is
    /// counted any more, because the period is over or the budget has been redefined.
    ///
    /// # Errors
    /// [`Contended`] if other workers won every race; the old reservation stands.
    pub fn change(
        &self,
        reservation: &Reservation,
        (earlier_pico, estimate_pico): (u64, u64),
        always: bool,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Option<Admission>, Contended> {
        let expected = earlier_pico.saturating_add(estimate_pico);
        let found = update(store, &reservation.key, |bytes| {
            let Some(mut slot) = self.counted_in(reservation, bytes, now) else { return (None, None) };
            let before = self.standing_of(&slot);
            slot.settle(reservation.lease, reservation.amount, 0);
            let is_spent = slot.committed().saturating_add(earlier_pico) >= self.limit_pico;
            let state = if is_spent { State::Spent } else { State::Open };
            if !always && is_spent && expected > reservation.amount {
                return (None, Some((Standing { state, ..before }, None)));
            }
            let amount = slot.reserve(expected);
            let standing = Standing { state, ..self.standing_of(&slot) };
            (Some(slot.encode()), Some((standing, Some((slot.lease, amount)))))
        })?;
        let Some((standing, changed)) = found else { return Ok(None) };
        let Reservation { key, owner, start, .. } = reservation;
        let reservation = changed.map(|(lease, amount)| Reservation {
            key: key.clone(),
            owner: *owner,
            start: *start,
            lease,
            amount,
        });
        Ok(Some(Admission { standing, reservation }))
    }

    /// The slot in which a reservation was made, if it still counts.
    fn counted_in(&self, reservation: &Reservation, bytes: &[u8], now: Timestamp) -> Option<Slot> {
        let slot = match Slot::find(bytes, self.identity, reservation.owner, self.period, now) {
            Found::Ours(slot) => slot,
            // The stored record was lost rather than given to another owner, so this cost starts a new one.
            Found::Free(slot) if Slot::decode(bytes).is_none() => slot,
            Found::Free(_) | Found::Taken => return None,
        };
        (slot.start == reservation.start).then_some(slot)
    }

    /// Replaces what a request reserved by what it cost; a cost of 0 returns the reservation. `None` if nothing was counted
    /// because the period is over or the budget has been redefined since.
    ///
    /// # Errors
    /// [`Contended`] if other workers won every race; the reservation is then unchanged and can be settled later.
    pub fn settle(
        &self,
        reservation: &Reservation,
        actual_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Option<Standing>, Contended> {
        self.replace(reservation, 0, actual_pico, now, store)
    }

    /// Replaces a reservation, and what was counted as spent for it, by what it cost.
    #[inline(never)]
    fn replace(
        &self,
        reservation: &Reservation,
        billed_pico: u64,
        actual_pico: u64,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Option<Standing>, Contended> {
        update(store, &reservation.key, |bytes| {
            let Some(mut slot) = self.counted_in(reservation, bytes, now) else { return (None, None) };
            slot.spent = slot.spent.saturating_sub(billed_pico);
            slot.settle(reservation.lease, reservation.amount, actual_pico);
            let newly_alerted = slot.alert(self.alert_pico);
            let standing = Standing { newly_alerted, ..self.standing_of(&slot) };
            (Some(slot.encode()), Some(standing))
        })
    }

    /// Replaces what was billed for a response of this owner by what it cost, because that was learnt later.
    /// `None` if that is not counted any more, because the period is over, or what was billed was not counted here.
    ///
    /// # Errors
    /// [`Contended`] if other workers won every race; nothing was changed then.
    pub fn correct(
        &self,
        owner: Owner,
        queued: &Queued,
        actual: Money,
        now: Timestamp,
        store: &mut dyn Store,
    ) -> Result<Option<Standing>, Contended> {
        let start = self.period.start(queued.started);
        for (key, owner) in self.probes(owner) {
            match Slot::find(&store.load(&key).0, self.identity, owner, self.period, now) {
                Found::Ours(slot) if slot.since <= queued.billed_at => {
                    let settled = Reservation { key, owner, start, lease: 0, amount: 0 };
                    return self.replace(&settled, queued.billed.as_pico(), actual.as_pico(), now, store);
                }
                Found::Ours(_) | Found::Free(_) => break,
                Found::Taken => {}
            }
        }
        Ok(None)
    }

    /// The current state of the budget; nothing is written.
    pub fn standing(&self, owner: Owner, now: Timestamp, store: &mut dyn Store) -> Standing {
        for (key, owner) in self.probes(owner) {
            let (bytes, _) = store.load(&key);
            match Slot::find(&bytes, self.identity, owner, self.period, now) {
                Found::Ours(slot) | Found::Free(slot) => return self.standing_of(&slot),
                Found::Taken => {}
            }
        }
        // Not reached: the shared slot, which is tried last, is never taken by another owner.
        self.standing_of(&Slot::new(self.identity, SHARED, self.period, now))
    }

    /// The value of the header that reports the budget's state to the client, with amounts in USD and `reset` in seconds:
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

    /// The slots in which an owner is looked for, in this order: the key of each, and the owner under which it is used. The
    /// last is the shared slot.
    fn probes(&self, Owner(owner): Owner) -> impl Iterator<Item = (String, u64)> + '_ {
        let slots = u64::from(self.slots);
        // Double hashing: two owners with the same first slot differ in the next. An odd step reaches every slot if their
        // number is a power of two.
        let step = if slots > PROBES { owner >> 32 | 1 } else { 1 };
        let own = (0..PROBES.min(slots)).filter_map(move |probe| {
            let number = owner.wrapping_add(step.wrapping_mul(probe)).checked_rem(slots)?;
            Some((self.key(&number.to_string()), owner))
        });
        let shared = if self.slots > 0 { "overflow" } else { "" };
        own.chain(std::iter::once_with(move || (self.key(shared), SHARED)))
    }

    /// The key of a slot in the store. Names contain no dot, so two budgets never have the same key.
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
            overflow: self.slots > 0 && slot.owner == SHARED,
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
