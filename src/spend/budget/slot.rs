//! One slot: what one owner of a budget has spent and reserved in one period, and its binary form.
//!
//! # Reservations that nobody settles
//!
//! A worker that dies takes its reservations with it. So they are counted in two numbers, by the clock's [`LEASE`] in
//! which they were made: this one's and the last one's. When a new lease begins, the older number is forgotten. A
//! reservation thus counts for one lease at least and two at most, unless it is settled before, or its period ends.
//! One that is settled after it was forgotten still adds what it cost: only the time in between is not covered.

use super::period::Period;
use crate::base::clock::Timestamp;

/// Changes whenever the layout does.
const VERSION: u8 = 1;

/// version, eight numbers of 64 bits, alerted.
const LENGTH: usize = 1 + 8 * 8 + 1;

/// One hour, in milliseconds: longer than any request that a person waits for.
const LEASE: u64 = 3_600_000;

/// One hour: a clock that is put back by less than that keeps counting in the period that has begun, so that a period's
/// spending is not forgotten by a correction around its end. A slot from further ahead is from a clock that was wrong.
const SKEW: std::time::Duration = std::time::Duration::from_secs(3600);

/// The owner of the slot that all share: the only one of a budget without `"*"`, the overflow of one with it.
pub(super) const COMMON: u64 = 0;

/// The record. Amounts are pico-USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Of the budget: what another budget of the same name counted does not apply.
    pub(super) identity: u64,
    /// Whose slot it is.
    pub(super) owner: u64,
    /// The first moment of its period.
    pub(super) start: Timestamp,
    /// All that was spent in the period from this moment on is in it.
    pub(super) since: Timestamp,
    /// What was settled.
    pub(super) spent: u64,
    /// The lease of `fresh`.
    pub(super) lease: u64,
    /// Reserved in `lease`.
    pub(super) fresh: u64,
    /// Reserved in the lease before.
    pub(super) older: u64,
    /// The alert of this period was given.
    pub(super) alerted: bool,
}

/// What a key holds, seen by one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The owner's slot of this period.
    Ours(Slot),
    /// Nobody's in this period: what it would be if it were taken now.
    Free(Slot),
    /// Another owner's in this period.
    Taken,
}

impl Slot {
    /// A slot in which nothing was counted yet.
    pub(super) fn new(identity: u64, owner: u64, period: Period, now: Timestamp) -> Self {
        Self {
            identity,
            owner,
            start: period.start(now),
            since: now,
            spent: 0,
            lease: lease(now),
            fresh: 0,
            older: 0,
            alerted: false,
        }
    }

    /// Looks at a key's bytes. What is absent, damaged, of another version or of another budget is free, and so is
    /// what is left of another period.
    pub(super) fn find(bytes: &[u8], identity: u64, owner: u64, period: Period, now: Timestamp) -> Found {
        let start = period.start(now);
        let new = |since| Self { since, ..Self::new(identity, owner, period, now) };
        let known = Self::decode(bytes).filter(|slot| slot.identity == identity);
        let Some(mut slot) = known else { return Found::Free(new(now)) };
        if slot.start < start {
            // The budget was counted before this period began, so nothing of it was missed, whoever had the slot then.
            return Found::Free(new(slot.since.max(start).min(now)));
        }
        if slot.start > now.after(SKEW) {
            return Found::Free(new(now));
        }
        if slot.owner == owner {
            slot.roll(now);
            return Found::Ours(slot);
        }
        // Nobody else writes to the common slot: these are somebody else's bytes.
        if owner == COMMON {
            Found::Free(new(now))
        } else {
            Found::Taken
        }
    }

    /// Forgets reservations whose lease is over.
    fn roll(&mut self, now: Timestamp) {
        let current = lease(now);
        if current == self.lease.saturating_add(1) {
            self.older = self.fresh;
            self.fresh = 0;
        } else if current > self.lease {
            self.older = 0;
            self.fresh = 0;
        } else if current.saturating_add(1) >= self.lease {
            // The same, or a clock that was put back a little: the later lease goes on.
            return;
        }
        self.lease = current;
    }

    /// All that is reserved.
    pub(super) const fn reserved(&self) -> u64 {
        self.fresh.saturating_add(self.older)
    }

    /// All that counts against the limit.
    pub(super) const fn committed(&self) -> u64 {
        self.spent.saturating_add(self.reserved())
    }

    /// Reserves an amount; returns what was reserved, which is less only at the end of numbers.
    pub(super) fn reserve(&mut self, amount: u64) -> u64 {
        let amount = amount.min(u64::MAX - self.fresh);
        self.fresh = self.fresh.saturating_add(amount);
        amount
    }

    /// Takes back what was reserved in a lease, if it still counts, and adds what was spent.
    pub(super) fn settle(&mut self, lease: u64, reserved: u64, actual: u64) {
        if lease == self.lease {
            self.fresh = self.fresh.saturating_sub(reserved);
        } else if lease.saturating_add(1) == self.lease {
            self.older = self.older.saturating_sub(reserved);
        }
        self.spent = self.spent.saturating_add(actual);
    }

    /// Notes that the alert is due; true the first time.
    pub(super) fn alert(&mut self, at: u64) -> bool {
        let first = !self.alerted && self.spent > 0 && self.spent >= at;
        self.alerted |= first;
        first
    }

    /// The bytes, [`LENGTH`] of them, little endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.push(VERSION);
        for number in [
            self.identity,
            self.owner,
            self.start.as_millis(),
            self.since.as_millis(),
            self.spent,
            self.lease,
            self.fresh,
            self.older,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.push(self.alerted.into());
        out
    }

    /// Reads a slot; `None` for another length or version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [VERSION, rest @ .., alerted @ (0 | 1)] = bytes else { return None };
        let mut rest = rest;
        let mut next = || {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let slot = Self {
            identity: next()?,
            owner: next()?,
            start: Timestamp::from_millis(next()?),
            since: Timestamp::from_millis(next()?),
            spent: next()?,
            lease: next()?,
            fresh: next()?,
            older: next()?,
            alerted: *alerted == 1,
        };
        rest.is_empty().then_some(slot)
    }
}

/// The number of the lease that a moment lies in.
const fn lease(at: Timestamp) -> u64 {
    at.as_millis() / LEASE
}
