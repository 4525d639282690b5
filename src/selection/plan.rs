//! Chooses the provider that is tried next, and writes the outcome of each attempt into the provider's health record.
//!
//! The first candidate that neither breaker nor hold excludes is chosen. If all are excluded, it is the one whose exclusion ends
//! first. Health records are read one by one and only as far as needed, so a healthy first candidate costs a single read.

use fastrand::Rng;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::store::{update, Contended, Store};
use crate::config::Config;
use crate::health::breaker::{fingerprint, Exclusion, Permit, Reason, Record, Report, Rules};
use crate::health::outcome::Outcome;
use crate::routing::provider::{Provider, ProviderId, Resolved};
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

/// A provider that can serve the request, and its model for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The provider.
    pub provider: ProviderId,
    /// Its model.
    pub model: Resolved,
}

/// The candidate that is tried next, and those that are not because they are excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The index in the list of candidates.
    pub candidate: usize,
    /// The permission to send it one request.
    pub permit: Permit,
    /// The other candidates that were found to be excluded, each with the reason.
    pub passed_over: Vec<(usize, Reason)>,
}

/// Chooses among the candidates whose index is `eligible`. `None` if there is none. `lease` is how long a probe may take.
pub fn choose(
    config: &Config,
    candidates: &[Candidate],
    eligible: impl Fn(usize) -> bool,
    lease: Duration,
    env: &mut Env<'_>,
) -> Option<Choice> {
    let mut excluded: Vec<(usize, Exclusion)> = Vec::new();
    for (place, candidate) in candidates.iter().enumerate().filter(|(place, _)| eligible(*place)) {
        let Some(provider) = config.provider(candidate.provider) else { continue };
        match request_permit(provider, &candidate.model.name, lease, env) {
            Ok(permit) => {
                let passed_over =
                    excluded.iter().map(|(place, exclusion)| (*place, exclusion.reason)).collect();
                return Some(Choice { candidate: place, permit, passed_over });
            }
            Err(exclusion) => excluded.push((place, exclusion)),
        }
    }
    // All are excluded. An attempt may still succeed, while a refusal here would be a certain failure.
    let (candidate, _) = *excluded.iter().min_by_key(|(_, exclusion)| exclusion.until)?;
    let before = excluded.iter().filter(|(place, _)| *place != candidate);
    let passed_over = before.map(|(place, exclusion)| (*place, exclusion.reason)).collect();
    Some(Choice { candidate, permit: Permit::Forced, passed_over })
}

/// Asks the provider's health record for permission to send one request. The permit of a half-open breaker is taken by
/// compare-and-swap, so only one worker gets it.
fn request_permit(
    provider: &Provider,
    model: &str,
    lease: Duration,
    env: &mut Env<'_>,
) -> Result<Permit, Exclusion> {
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
        Ok((record, permit)) => {
            env.ledger.learn(id, record, now);
            permit
        }
        Err(Contended) => Err(Exclusion { until: now, reason: Reason::Open }),
    }
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

/// Why the provider is excluded now, if it is.
pub fn exclusion(provider: &Provider, model: &str, env: &mut Env<'_>) -> Option<Exclusion> {
    env.ledger.record(&provider.identity, env.store, env.now).exclusion(fingerprint([model]), env.now)
}

/// Whether the provider's breaker is closed. Holds do not matter here.
pub fn is_closed(provider: &Provider, env: &mut Env<'_>) -> bool {
    !env.ledger.record(&provider.identity, env.store, env.now).needs_permit()
}

#[cfg(test)]
mod tests;
