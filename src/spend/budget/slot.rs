//! One slot of a budget in the store: what one owner has spent and reserved in one period, and the binary format.
//!
//! # Reservations that are never settled
//!
//! A worker that dies never settles its reservations, so every reservation expires. Time is divided into leases of
//! [`LEASE`]; the slot has one sum for reservations made in the current lease and one for those made in the lease before.
//! When a new lease begins, the older sum is dropped. So a reservation counts for at least one and at most two leases,
//! unless it is settled or its period ends before. A reservation that is settled after it expired still adds its cost;
//! only in between does it not count against the limit.

use super::period::Period;
use crate::base::clock::Timestamp;

/// The version of the binary format; to be increased with every change of the layout.
const VERSION: u8 = 1;

/// The length of an encoded slot: the version, eight 64-bit numbers, and the flag `alerted`.
const LENGTH: usize = 1 + 8 * 8 + 1;

/// One hour, in milliseconds, which is longer than any request that a person waits for.
const LEASE: u64 = 3_600_000;

/// One hour. If the clock is put back by less than this, counting continues in the period that had already begun, so that a
/// correction of the clock around the end of a period does not discard its spending. A slot from further in the future was
/// written with a wrong clock and is ignored.
const SKEW: std::time::Duration = std::time::Duration::from_secs(3600);

/// The owner number of the shared slot: the only slot of a budget without `"*"`, the overflow slot of a budget with it.
pub(super) const SHARED: u64 = 0;

/// The record. Amounts are pico-USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The budget's identity. Amounts that another budget of the same name counted do not apply.
    pub(super) identity: u64,
    /// The owner of the slot.
    pub(super) owner: u64,
    /// The first moment of its period.
    pub(super) start: Timestamp,
    /// The moment since when all spending of the period has been counted.
    pub(super) since: Timestamp,
    /// The sum of settled costs.
    pub(super) spent: u64,
    /// The number of the current lease, to which `fresh` belongs.
    pub(super) lease: u64,
    /// The amount reserved in `lease`.
    pub(super) fresh: u64,
    /// The amount reserved in the lease before.
    pub(super) older: u64,
    /// The alert of this period was already logged.
    pub(super) alerted: bool,
}

/// What a key of the store means for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It holds the owner's slot of this period.
    Ours(Slot),
    /// No owner uses it in this period. The value is the new slot that the owner may write.
    Free(Slot),
    /// Another owner uses it in this period.
    Taken,
}

impl Slot {
    /// A slot in which nothing has been counted yet.
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

    /// Reads a key's bytes. The key is free if its bytes are missing, damaged, or of another version, budget or period.
    pub(super) fn find(bytes: &[u8], identity: u64, owner: u64, period: Period, now: Timestamp) -> Found {
        let start = period.start(now);
        let new = |since| Self { since, ..Self::new(identity, owner, period, now) };
        let decoded = Self::decode(bytes).filter(|slot| slot.identity == identity);
        let Some(mut slot) = decoded else { return Found::Free(new(now)) };
        if slot.start < start {
            // Counting was already running when this period began, whoever owned the slot, so nothing of it was missed.
            return Found::Free(new(slot.since.max(start).min(now)));
        }
        if slot.start > now.after(SKEW) {
            return Found::Free(new(now));
        }
        if slot.owner == owner {
            slot.roll(now);
            return Found::Ours(slot);
        }
        // Every owner uses the shared slot under the same number, so a different one there means foreign bytes.
        if owner == SHARED {
            Found::Free(new(now))
        } else {
            Found::Taken
        }
    }

    /// Drops reservations that have expired.
    fn roll(&mut self, now: Timestamp) {
        let current = lease(now);
        if current == self.lease.saturating_add(1) {
            self.older = self.fresh;
            self.fresh = 0;
        } else if current > self.lease {
            self.older = 0;
            self.fresh = 0;
        } else if current.saturating_add(1) >= self.lease {
            // The same lease, or the clock was put back a little: the later lease continues.
            return;
        }
        self.lease = current;
    }

    /// The sum of all reservations that have not expired.
    pub(super) const fn reserved(&self) -> u64 {
        self.fresh.saturating_add(self.older)
    }

    /// The amount that counts against the limit: spent and reserved.
    pub(super) const fn committed(&self) -> u64 {
        self.spent.saturating_add(self.reserved())
    }

    /// Reserves an amount. Returns what was reserved, which is less only if the sum would exceed `u64::MAX`.
    pub(super) fn reserve(&mut self, amount: u64) -> u64 {
        let amount = amount.min(u64::MAX - self.fresh);
        self.fresh += amount;
        amount
    }

    /// Removes an amount that was reserved in `lease`, if that has not expired, and adds the actual cost.
    pub(super) fn settle(&mut self, lease: u64, reserved: u64, actual: u64) {
        if lease == self.lease {
            self.fresh = self.fresh.saturating_sub(reserved);
        } else if lease.saturating_add(1) == self.lease {
            self.older = self.older.saturating_sub(reserved);
        }
        self.spent = self.spent.saturating_add(actual);
    }

    /// Marks the alert as logged if it is due. Returns true the first time.
    pub(super) fn alert(&mut self, at: u64) -> bool {
        let first = !self.alerted && self.spent > 0 && self.spent >= at;
        self.alerted |= first;
        first
    }

    /// The binary form: [`LENGTH`] bytes, numbers in little endian.
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

    /// Reads the binary form; `None` if the length or the version differs.
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
