//! The binary form of a [`Record`]. It has a version, and always the same length, so that shared data does not grow with traffic.
//!
//! All numbers are little endian. A gateway that reads a version it does not know starts with a new record: to lose the record
//! in an upgrade costs a few failed attempts, while to misread it could exclude a healthy provider for hours.

use super::window::{Counts, Window, PARTS};
use super::{Hold, ModelHold, Record, State, MODEL_SLOTS};
use crate::base::clock::Timestamp;
use crate::base::window::{Part, Window as Ring};
use crate::health::outcome::HoldReason;

/// Changes whenever the layout does.
const VERSION: u8 = 1;

/// The sum of: version, fingerprint, state (tag, two bytes, u32, time), window, hold (tag, streak, time), holds of models.
pub(super) const LENGTH: usize =
    1 + 8 + (1 + 2 + 4 + 8) + PARTS * (4 + 4 + 4) + (1 + 1 + 8) + MODEL_SLOTS * (8 + 8 + 1);

impl Record {
    /// The bytes of the record, always `LENGTH` of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.push(VERSION);
        out.extend(self.fingerprint.to_le_bytes());
        let (tag, small, number, time, window) = match self.state {
            State::Closed { consecutive, window, trips, since } => {
                (0, [trips, 0], u32::from(consecutive), since, window)
            }
            State::Open { until, trips } => (1, [trips, 0], 0, until, Window::default()),
            State::HalfOpen { permit, lapses, trips, successes } => {
                (2, [trips, successes], permit, lapses, Window::default())
            }
        };
        out.push(tag);
        out.extend(small);
        out.extend(number.to_le_bytes());
        out.extend(time.as_millis().to_le_bytes());
        for part in window.0.parts() {
            out.extend(part.epoch.to_le_bytes());
            out.extend(part.counts.successes.to_le_bytes());
            out.extend(part.counts.failures.to_le_bytes());
        }
        let (tag, streak, until) = match self.hold {
            None => (0, 0, Timestamp::ZERO),
            Some(hold) => (hold_tag(hold.reason), hold.streak, hold.until),
        };
        out.push(tag);
        out.push(streak);
        out.extend(until.as_millis().to_le_bytes());
        for slot in self.models {
            out.extend(slot.model.to_le_bytes());
            out.extend(slot.until.as_millis().to_le_bytes());
            out.push(slot.streak);
        }
        out
    }

    /// Reads a record; `None` for another length, another version, or a tag that does not exist.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        if bytes.len() != LENGTH || input.u8()? != VERSION {
            return None;
        }
        let fingerprint = input.u64()?;
        let tag = input.u8()?;
        let (trips, successes) = (input.u8()?, input.u8()?);
        let number = input.u32()?;
        let time = input.time()?;
        let mut parts = [Part::default(); PARTS];
        for part in &mut parts {
            let (epoch, successes, failures) = (input.u32()?, input.u32()?, input.u32()?);
            *part = Part { epoch, counts: Counts { successes, failures } };
        }
        let window = Window(Ring::of_parts(parts));
        let state = match tag {
            0 => {
                let consecutive = u16::try_from(number).ok()?;
                State::Closed { consecutive, window, trips, since: time }
            }
            1 => State::Open { until: time, trips },
            2 => State::HalfOpen { permit: number, lapses: time, trips, successes },
            _ => return None,
        };
        let (tag, streak, until) = (input.u8()?, input.u8()?, input.time()?);
        let hold = match tag {
            0 => None,
            tag => Some(Hold { until, reason: hold_reason(tag)?, streak }),
        };
        let mut models = [ModelHold::default(); MODEL_SLOTS];
        for slot in &mut models {
            *slot = ModelHold { model: input.u64()?, until: input.time()?, streak: input.u8()? };
        }
        Some(Self { fingerprint, state, hold, models })
    }
}

const fn hold_tag(reason: HoldReason) -> u8 {
    match reason {
        HoldReason::RateLimited => 1,
        HoldReason::OutOfQuota => 2,
        HoldReason::BadKey => 3,
    }
}

const fn hold_reason(tag: u8) -> Option<HoldReason> {
    match tag {
        1 => Some(HoldReason::RateLimited),
        2 => Some(HoldReason::OutOfQuota),
        3 => Some(HoldReason::BadKey),
        _ => None,
    }
}

/// The bytes that are still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp::from_millis)
    }
}
