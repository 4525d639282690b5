//! Who is asked next: the first candidate that nothing excludes, or the one that will be free first.
//!
//! Records are read one by one, only as far as needed: with a healthy first candidate that is a single read.

use fastrand::Rng;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::store::{update, Contended, Store};
use crate::config::Config;
use crate::health::breaker::{fingerprint, Exclusion, Permit, Reason, Record, Report, Rules};
use crate::health::outcome::Outcome;
use crate::routing::provider::{Provider, ProviderId, Resolved};
use crate::selection::ledger::Ledger;

/// What the core needs of the world, given with every call.
pub struct Env<'a> {
    /// The time.
    pub now: Timestamp,
    /// Where records live.
    pub store: &'a mut dyn Store,
    /// For permits and jitter.
    pub random: &'a mut Rng,
    /// What this worker remembers of the records.
    pub ledger: &'a mut Ledger,
}

/// A provider that can serve the request, with its model for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The provider.
    pub provider: ProviderId,
    /// Its model.
    pub model: Resolved,
}

/// The candidate that is tried next. `Id` is how the caller names its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<Id> {
    /// The candidate.
    pub candidate: Id,
    /// The permission to send one request to it.
    pub permit: Permit,
    /// The candidates before it that were left out, each with the reason.
    pub passed_over: Vec<(Id, Reason)>,
}

/// Chooses the first of the `eligible` candidates that nothing excludes, or else the one that is free first: a guess beats a certain
/// failure. `lease` is how long a probe of a half-open breaker may take. `None` if no candidate is eligible.
pub fn choose<'a, Id: Copy + PartialEq>(
    config: &Config,
    eligible: impl Iterator<Item = (Id, &'a Candidate)>,
    lease: Duration,
    env: &mut Env<'_>,
) -> Option<Choice<Id>> {
    let mut left_out: Vec<(Id, Exclusion)> = Vec::new();
    for (id, candidate) in eligible {
        let Some(provider) = config.provider(candidate.provider) else { continue };
        match admit(provider, &candidate.model.name, lease, env) {
            Ok(permit) => {
                let passed_over = left_out.iter().map(|(id, exclusion)| (*id, exclusion.reason)).collect();
                return Some(Choice { candidate: id, permit, passed_over });
            }
            Err(exclusion) => left_out.push((id, exclusion)),
        }
    }
    let (candidate, _) = *left_out.iter().min_by_key(|(_, exclusion)| exclusion.until)?;
    let before = left_out.iter().filter(|(id, _)| *id != candidate);
    let passed_over = before.map(|(id, exclusion)| (*id, exclusion.reason)).collect();
    Some(Choice { candidate, permit: Permit::Forced, passed_over })
}

/// Asks the provider's record for leave; a half-open breaker's permit is taken by compare-and-swap.
fn admit(provider: &Provider, model: &str, lease: Duration, env: &mut Env<'_>) -> Result<Permit, Exclusion> {
    let id = &provider.identity;
    let model = fingerprint([model]);
    let now = env.now;
    let record = env.ledger.record(id, env.store, now);
    if let Some(exclusion) = record.exclusion(model, now) {
        return Err(exclusion);
    }
    if !record.needs_permit() {
        return Ok(Permit::Free);
    }
    let number = env.random.u32(1..);
    let taken = update(env.store, &id.record, |bytes| {
        let mut record = Record::read(bytes, id.fingerprint);
        match record.exclusion(model, now) {
            Some(exclusion) => (None, (record, Err(exclusion))),
            None => {
                let permit = record.admit(number, lease, now);
                (Some(record.encode()), (record, Ok(permit)))
            }
        }
    });
    match taken {
        Ok((record, leave)) => {
            env.ledger.learn(id, record, now);
            leave
        }
        Err(Contended) => Err(Exclusion { until: now, reason: Reason::Open }),
    }
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody must know.
    Nothing,
    /// The provider is set aside now, and was not before.
    Excluded(Exclusion),
    /// The breaker closed.
    Closed,
}

/// Writes the end of an attempt into the provider's record. A success that changes nothing but a count is only noted, and
/// written with the next report that has more to say.
///
/// # Errors
/// [`Contended`]: the report is lost. The next one tells the same story.
pub fn report(
    config: &Config,
    provider: &Provider,
    report: Report,
    env: &mut Env<'_>,
) -> Result<Change, Contended> {
    let id = &provider.identity;
    let now = env.now;
    if report.outcome == Outcome::Answered
        && report.permit == Permit::Free
        && env.ledger.note_success(id, report.model, env.store, now, config.breaker.window)
    {
        return Ok(Change::Nothing);
    }
    let jitter = env.random.f64();
    let rules = Rules { breaker: &config.breaker, holds: &config.holds };
    let (noted, since) = env.ledger.take_successes(id);
    let (record, change) = update(env.store, &id.record, |bytes| {
        let mut record = Record::read(bytes, id.fingerprint);
        let before = (record.exclusion(report.model, now), record.needs_permit());
        record.count_successes(noted, since, config.breaker.window);
        if !record.report(report, now, jitter, rules) && noted == 0 {
            return (None, (record, Change::Nothing));
        }
        let change = match (before, record.exclusion(report.model, now), record.needs_permit()) {
            ((None, _), Some(exclusion), _) => Change::Excluded(exclusion),
            ((_, true), _, false) => Change::Closed,
            _ => Change::Nothing,
        };
        (Some(record.encode()), (record, change))
    })?;
    env.ledger.learn(id, record, now);
    Ok(change)
}

/// Gives back the permission of an attempt that says nothing about its provider: it was never sent, the client left, or the gateway
/// itself was at fault. Only a probe's permission is written down, so for all others nothing is done.
///
/// # Errors
/// [`Contended`]: the permission was not given back. It lapses by itself when its lease ends.
pub fn release_permit(provider: &Provider, permit: Permit, env: &mut Env<'_>) -> Result<(), Contended> {
    let Permit::Probe(_) = permit else { return Ok(()) };
    let id = &provider.identity;
    let now = env.now;
    let record = update(env.store, &id.record, |bytes| {
        let mut record = Record::read(bytes, id.fingerprint);
        let changed = record.release_permit(permit, now);
        (changed.then(|| record.encode()), record)
    })?;
    env.ledger.learn(id, record, now);
    Ok(())
}

/// Why the provider is left out now, if it is.
pub fn exclusion(provider: &Provider, model: &str, env: &mut Env<'_>) -> Option<Exclusion> {
    env.ledger.record(&provider.identity, env.store, env.now).exclusion(fingerprint([model]), env.now)
}

/// Whether the provider's breaker is closed, whatever holds there are.
pub fn is_closed(provider: &Provider, env: &mut Env<'_>) -> bool {
    !env.ledger.record(&provider.identity, env.store, env.now).needs_permit()
}

#[cfg(test)]
mod tests;
