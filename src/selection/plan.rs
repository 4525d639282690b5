//! Chooses the provider that is tried next from candidates that are already in order (`exchange/order.rs`), and writes the outcome of
//! each attempt into the provider's health record.
//!
//! The first candidate that neither breaker nor hold excludes is chosen. If all are excluded, it is the one whose exclusion ends
//! first. Health records are read one by one and only as far as needed, so a healthy first candidate costs a single read.

use fastrand::Rng;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::store::{update, Contended, Store};
use crate::client_api::request::Endpoint;
use crate::config::Config;
use crate::health::breaker::{fingerprint, Exclusion, Permit, Reason, Record, Refusal, Report, Rules};
use crate::health::outcome::Outcome;
use crate::routing::provider::{Identity, Provider, ProviderId, Resolved};
use crate::selection::ledger::Ledger;

/// The time, the state and the randomness that the core works with. The host passes them to every call.
pub struct Env<'a> {
    /// The present moment.
    pub now: Timestamp,
    /// The store that all workers share.
    pub store: &'a mut dyn Store,
    /// The generator for permits and jitter.
    pub random: &'a mut Rng,
    /// What this worker remembers of the health records.
    pub ledger: &'a mut Ledger,
}

/// A provider that can serve the request, and the model that it serves it with.
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
    /// The candidates before it that were skipped, each with the reason. If all are excluded, these are all the others.
    pub passed_over: Vec<(Id, Reason)>,
}

/// What a candidate is needed for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The endpoint of the request.
    pub endpoint: Endpoint,
    /// How long a probe of a half-open breaker may take.
    pub lease: Duration,
    /// If all candidates are excluded, the one that is free first is tried all the same: a guess beats a certain failure.
    pub forced: bool,
}

/// The name of a model at an endpoint in a health record. A provider may serve a model at one endpoint and not at another.
pub fn model_key(model: &str, endpoint: Endpoint) -> u64 {
    fingerprint([model, endpoint.suffix()])
}

/// Chooses the first of the `eligible` candidates that nothing excludes, or else, if need be, the one that is free first. `None` if there
/// is none.
pub fn choose<'a, Id: Copy + PartialEq>(
    config: &Config,
    eligible: impl Iterator<Item = (Id, &'a Candidate)>,
    need: Need,
    env: &mut Env<'_>,
) -> Option<Choice<Id>> {
    let mut left_out: Vec<(Id, Exclusion)> = Vec::new();
    for (id, candidate) in eligible {
        let Some(provider) = config.provider(candidate.provider) else { continue };
        match request_permit(provider, model_key(&candidate.model.name, need.endpoint), need.lease, env) {
            Ok(permit) => {
                let passed_over = left_out.iter().map(|(id, exclusion)| (*id, exclusion.reason)).collect();
                return Some(Choice { candidate: id, permit, passed_over });
            }
            Err(exclusion) => left_out.push((id, exclusion)),
        }
    }
    let left_out = if need.forced { left_out } else { Vec::new() };
    let (candidate, _) = *left_out.iter().min_by_key(|(_, exclusion)| exclusion.until)?;
    let before = left_out.iter().filter(|(id, _)| *id != candidate);
    let passed_over = before.map(|(id, exclusion)| (*id, exclusion.reason)).collect();
    Some(Choice { candidate, permit: Permit::Forced, passed_over })
}

/// Asks the provider's health record for permission to send one request. The permit of a half-open breaker is taken by
/// compare-and-swap, so only one worker gets it.
fn request_permit(
    provider: &Provider,
    model: u64,
    lease: Duration,
    env: &mut Env<'_>,
) -> Result<Permit, Exclusion> {
    let id = &provider.identity;
    let now = env.now;
    let record = env.ledger.record(id, env.store, now);
    if let Some(exclusion) = record.exclusion(model, now) {
        return Err(exclusion);
    }
    if !record.needs_permit() {
        return Ok(Permit::Free);
    }
    let number = env.random.u32(1..);
    let contended = Err(Exclusion { until: now, reason: Reason::Open });
    let mut permit = contended;
    let changed = change_record(id, env, &mut |record| {
        permit = match record.exclusion(model, now) {
            Some(exclusion) => Err(exclusion),
            None => Ok(record.admit(number, lease, now)),
        };
        permit.is_ok()
    });
    changed.map_or(contended, |()| permit)
}

/// Changes a provider's health record, and remembers it as it is then. `change` returns whether it must be written; it runs again
/// after a lost race.
fn change_record(
    id: &Identity,
    env: &mut Env<'_>,
    change: &mut dyn FnMut(&mut Record) -> bool,
) -> Result<(), Contended> {
    let record = update(env.store, &id.record, |bytes| {
        let mut record = Record::read(bytes, id.fingerprint);
        let is_changed = change(&mut record);
        (is_changed.then(|| record.encode()), record)
    })?;
    env.ledger.learn(id, record, env.now);
    Ok(())
}

/// What a report changed for the requests that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At most a count.
    Nothing,
    /// The provider is excluded now, and was not before.
    Excluded(Exclusion),
    /// The breaker closed.
    Closed,
}

/// Writes the end of an attempt into the provider's health record. A success that only adds to a count is kept in the ledger
/// and written together with a later report.
///
/// # Errors
/// [`Contended`]: the report is lost. That does little harm, since a provider that fails goes on failing.
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
    let mut change = Change::Nothing;
    change_record(id, env, &mut |record| {
        let before = (record.exclusion(report.model, now), record.needs_permit());
        record.count_successes(noted, since, config.breaker.window);
        let is_changed = record.report(report, now, jitter, rules) || noted > 0;
        change = match (before, record.exclusion(report.model, now), record.needs_permit()) {
            ((None, _), Some(exclusion), _) => Change::Excluded(exclusion),
            ((_, true), _, false) => Change::Closed,
            _ => Change::Nothing,
        };
        is_changed
    })?;
    Ok(change)
}

/// Gives back the permission of an attempt that says nothing about its provider: it was never sent, the client left, or the gateway
/// itself was at fault. Only a probe's permission is written down, so for all others nothing is done.
///
/// # Errors
/// [`Contended`]: the permission was not given back. It lapses by itself when its lease ends.
pub fn release_permit(provider: &Provider, permit: Permit, env: &mut Env<'_>) -> Result<(), Contended> {
    let Permit::Probe(_) = permit else { return Ok(()) };
    let now = env.now;
    change_record(&provider.identity, env, &mut |record| record.release_permit(permit, now))
}

/// Why the provider is excluded now for a model at an endpoint, if it is.
pub fn exclusion(
    provider: &Provider,
    model: &str,
    endpoint: Endpoint,
    env: &mut Env<'_>,
) -> Option<Exclusion> {
    let record = env.ledger.record(&provider.identity, env.store, env.now);
    record.exclusion(model_key(model, endpoint), env.now)
}

/// What followed from a second opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The model is held at its endpoint now, and was not before.
    pub excluded: Option<Exclusion>,
    /// The log should tell that the refusal was disproved.
    pub is_news: bool,
}

/// Writes what another provider said about a request that this one has refused into this one's health record. `model` is a
/// [`model_key`].
///
/// # Errors
/// [`Contended`]: the opinion is lost.
#[inline(never)]
pub fn note_opinion(
    config: &Config,
    provider: &Provider,
    model: u64,
    refusal: Refusal,
    is_disproved: bool,
    env: &mut Env<'_>,
) -> Result<Noted, Contended> {
    let now = env.now;
    let rules = Rules { breaker: &config.breaker, holds: &config.holds };
    let mut noted = Noted { excluded: None, is_news: false };
    change_record(&provider.identity, env, &mut |record| {
        let before = (record.exclusion(model, now), *record);
        noted.is_news = record.note_opinion(model, refusal, is_disproved, now, rules);
        noted.excluded = record.exclusion(model, now).filter(|_| before.0.is_none());
        *record != before.1
    })?;
    Ok(noted)
}

/// Whether second opinions have confirmed this refusal so often that it is believed without another one.
pub fn is_believed(
    config: &Config,
    provider: &Provider,
    model: u64,
    refusal: Refusal,
    env: &mut Env<'_>,
) -> bool {
    let record = env.ledger.record(&provider.identity, env.store, env.now);
    record.is_believed(model, refusal, env.now, &config.breaker)
}

/// Whether the provider's breaker is closed. Holds do not matter here.
pub fn is_closed(provider: &Provider, env: &mut Env<'_>) -> bool {
    !env.ledger.record(&provider.identity, env.store, env.now).needs_permit()
}

#[cfg(test)]
mod tests;
