//! The binary form of a [`Record`]. It has a version, and always the same length, so that shared data does not grow with traffic.
//!
//! All numbers are little endian. A gateway that reads a version it does not know starts with a new record: to lose the record
//! in an upgrade costs a few failed attempts, while to misread it could exclude a healthy provider for hours.

use super::evidence::BODIES;
use super::window::{Counts, Window, PARTS};
use super::{
    Evidence, EvidenceKind, Evidences, Hold, ModelHold, ModelHoldReason, Record, State, EVIDENCE_SLOTS,
    MODEL_SLOTS,
};
use crate::base::clock::Timestamp;
use crate::base::window::{Part, Window as Ring};
use crate::health::outcome::HoldReason;

/// Changes whenever the layout does.
const VERSION: u8 = 2;

/// A hold of a model: the model, the time, the streak, the reason.
const MODEL_HOLD: usize = 8 + 8 + 1 + 1;

/// One evidence: the model, the refusal, the kind, the count, the bodies, two times.
const EVIDENCE: usize = 8 + 4 + 1 + 2 + BODIES * 4 + 8 + 8;

/// The sum of: version, fingerprint, state (tag, two bytes, u32, time), window, hold (tag, streak, time), the numbers of slots that are
/// read, holds of models, evidence.
pub(super) const LENGTH: usize = 1
    + 8
    + (1 + 2 + 4 + 8)
    + PARTS * (4 + 4 + 4)
    + (1 + 1 + 8)
    + 2
    + MODEL_SLOTS * MODEL_HOLD
    + EVIDENCE_SLOTS * EVIDENCE;

impl Record {
    /// The bytes of the record, always `LENGTH` of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Vec::with_capacity(LENGTH);
        let out = &mut writer;
        out.push(VERSION);
        put(out, &self.fingerprint.to_le_bytes());
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
        put(out, &small);
        put(out, &number.to_le_bytes());
        put(out, &time.as_millis().to_le_bytes());
        for part in window.0.parts() {
            put(out, &part.epoch.to_le_bytes());
            put(out, &part.counts.successes.to_le_bytes());
            put(out, &part.counts.failures.to_le_bytes());
        }
        let (tag, streak, until) = match self.hold {
            None => (0, 0, Timestamp::ZERO),
            Some(hold) => (hold_tag(hold.reason), hold.streak, hold.until),
        };
        out.push(tag);
        out.push(streak);
        put(out, &until.as_millis().to_le_bytes());
        self.encode_slots(out);
        out.resize(LENGTH, 0);
        writer
    }

    /// Most records have neither holds of models nor evidence: then no slot is read.
    #[inline(never)]
    fn encode_slots(&self, out: &mut Vec<u8>) {
        let models = used(&self.models);
        let evidence = used(&self.evidence.0);
        out.push(models.len() as u8);
        out.push(evidence.len() as u8);
        for slot in models {
            put(out, &slot.model.to_le_bytes());
            put(out, &slot.until.as_millis().to_le_bytes());
            out.push(slot.streak);
            out.push(slot.reason as u8);
        }
        for slot in evidence {
            put(out, &slot.model.to_le_bytes());
            put(out, &slot.refusal.to_le_bytes());
            out.push(slot.kind as u8);
            put(out, &slot.count.to_le_bytes());
            slot.bodies.iter().for_each(|body| put(out, &body.to_le_bytes()));
            put(out, &slot.at.as_millis().to_le_bytes());
            put(out, &slot.logged.as_millis().to_le_bytes());
        }
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
        let mut evidence = Evidences::default();
        let (held, known) = (input.u8()?, input.u8()?);
        for slot in models.iter_mut().take(held.into()) {
            *slot = input.model_hold()?;
        }
        for slot in evidence.0.iter_mut().take(known.into()) {
            *slot = input.evidence()?;
        }
        Some(Self { fingerprint, state, hold, models, evidence })
    }
}

/// Appends a field. It is called for each of many, so it is compiled once.
#[inline(never)]
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

/// The slots up to the last one that is used.
fn used<T: Default + PartialEq>(slots: &[T]) -> &[T] {
    let len = slots.iter().rposition(|slot| *slot != T::default()).map_or(0, |last| last + 1);
    slots.get(..len).unwrap_or_default()
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

    #[inline(never)]
    fn model_hold(&mut self) -> Option<ModelHold> {
        let (model, until, streak) = (self.u64()?, self.time()?, self.u8()?);
        let reason = match self.u8()? {
            0 => ModelHoldReason::NoSuchModel,
            1 => ModelHoldReason::Unwilling,
            2 => ModelHoldReason::BadRequest,
            _ => return None,
        };
        Some(ModelHold { model, until, reason, streak })
    }

    #[inline(never)]
    fn evidence(&mut self) -> Option<Evidence> {
        let (model, refusal) = (self.u64()?, self.u32()?);
        let kind = match self.u8()? {
            0 => EvidenceKind::Unasked,
            1 => EvidenceKind::Disproved,
            2 => EvidenceKind::Confirmed,
            _ => return None,
        };
        let count = self.take().map(u16::from_le_bytes)?;
        let mut bodies = [0; BODIES];
        for body in &mut bodies {
            *body = self.u32()?;
        }
        Some(Evidence { model, refusal, kind, count, bodies, at: self.time()?, logged: self.time()? })
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
