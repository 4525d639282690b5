//! What the audit record and the metrics say of a request when it is over.

use std::time::Duration;

use super::attempts::{Attempt, Phase};
use super::candidates::CandidateId;
use super::Exchange;
use crate::base::clock::Timestamp;
use crate::base::store::fingerprint;
use crate::health::outcome::Outcome;
use crate::record::audit::{AttemptFacts, Facts};
use crate::record::bill::Bill;
use crate::selection::plan::Env;
use crate::selection::stored;
use crate::spend::cost::Money;
use crate::spend::usage::Tally;

/// How an attempt ended. The end of the request may decide that for the last attempt.
pub(super) struct Ended {
    pub(super) candidate: CandidateId,
    pub(super) outcome: Outcome,
    status: Option<u16>,
    took: Duration,
    pub(super) tally: Tally,
}

/// How a request ended, as the gateway saw it.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The client left.
    pub gone: bool,
    /// The status that the gateway itself answered with.
    pub replied: Option<u16>,
}

impl Exchange {
    /// The number of labels must not grow with traffic: a model that is allowed by `*` has a label of its own only if it has a price.
    fn model_label(&self, candidate: CandidateId) -> &str {
        let found = self.candidates.get(candidate).zip(self.provider_of(candidate));
        let known = found.filter(|(found, provider)| {
            let name = &found.model.name;
            provider.models.iter().any(|model| model.name == *name)
                || provider.prices.iter().any(|list| list.find(name).is_some())
        });
        known.map_or("other", |(found, _)| &found.model.name)
    }

    fn tenant_label(&self) -> &str {
        let tenant = &self.request.tenant;
        let known = self.config.tenant.iter().flat_map(|config| &config.known);
        match known.into_iter().find(|known| *known == tenant) {
            Some(known) => known,
            None if tenant.is_empty() => "none",
            None => "other",
        }
    }

    /// The request is over: settles its budgets, and returns what the record and the metrics say of it.
    pub fn finish(&mut self, end: End, env: &mut Env<'_>) -> Facts<'_> {
        let delivered = self.is_delivered();
        let before = self.attempts.all().len();
        let outcomes = self.outcomes(end, env.now);
        // Whether the last attempt is the one for which money is still reserved.
        let is_open = delivered || outcomes.len() > before;
        let delivered_here = delivered && !self.config.is_shadow;
        if let Some(ended) = outcomes.last().filter(|_| delivered_here) {
            let continued = self.body.said.stored.as_ref().map_or(0, |id| fingerprint([&**id]));
            let ids = [continued, ended.tally.stored].into_iter().chain(ended.tally.thoughts.iter());
            for id in ids.filter(|id| *id != 0) {
                stored::remember(id, self.name_of(ended.candidate), env.store);
            }
        }
        let bills = self.bills(&outcomes);
        self.remember_queued(&outcomes, &bills, env);
        let cost = |bill: &Option<Bill>| bill.as_ref().and_then(|bill| bill.cost).unwrap_or_default();
        let last = bills.last().filter(|_| is_open);
        self.settle_attempt(last.map(cost).unwrap_or_default(), env);
        self.settle_request(bills.iter().map(cost).fold(Money::ZERO, Money::plus), env);
        self.facts(end, &outcomes, bills, env.now)
    }

    /// What the audit record says if this is the last that the filter hears of the request. If no answer has begun, that means that the
    /// client has left.
    pub fn so_far(&self, now: Timestamp) -> Facts<'_> {
        let end = End { gone: self.attempts.undecided().is_some(), replied: None };
        let outcomes = self.outcomes(end, now);
        let bills = self.bills(&outcomes);
        self.facts(end, &outcomes, bills, now)
    }

    /// The outcome of every attempt; for the one under way, its outcome if the request ends now.
    fn outcomes(&self, end: End, now: Timestamp) -> Vec<Ended> {
        let ended = |attempt: &Attempt| Ended {
            candidate: attempt.candidate,
            outcome: attempt.verdict.outcome,
            status: attempt.verdict.status,
            took: attempt.took,
            tally: attempt.tally.clone(),
        };
        let mut outcomes: Vec<Ended> = self.attempts.all().iter().map(ended).collect();
        match self.attempts.phase() {
            // The answer was on its way, and its end was not reported. (Of an error, the status says enough.)
            Phase::Delivering(_) => {
                let last = outcomes.last_mut();
                if let Some(last) = last.filter(|last| end.gone || last.outcome == Outcome::Answered) {
                    last.outcome = if end.gone { Outcome::ClientGone } else { Outcome::Truncated };
                    if self.attempts.tally != Tally::default() {
                        last.tally = self.attempts.tally.clone();
                    }
                }
            }
            Phase::Trying(current) if end.gone => outcomes.push(Ended {
                candidate: current.candidate,
                outcome: Outcome::ClientGone,
                status: None,
                took: now.since(current.started),
                tally: self.attempts.tally.clone(),
            }),
            Phase::NotAsking | Phase::Chosen(_) | Phase::Trying(_) | Phase::Over { .. } => {}
        }
        outcomes
    }

    fn bills(&self, outcomes: &[Ended]) -> Vec<Option<Bill>> {
        let last = outcomes.len().saturating_sub(1);
        let delivered = self.is_delivered();
        let bill = |(place, ended): (usize, &Ended)| {
            self.bill(ended.candidate, ended.outcome, &ended.tally, place == last && delivered)
        };
        outcomes.iter().enumerate().map(bill).collect()
    }

    fn facts(&self, end: End, outcomes: &[Ended], bills: Vec<Option<Bill>>, now: Timestamp) -> Facts<'_> {
        let is_gone = end.gone || outcomes.last().is_some_and(|ended| ended.outcome == Outcome::ClientGone);
        let refused_at = self.refused_at().filter(|_| !is_gone);
        let last = match refused_at {
            Some(place) => outcomes.get(place),
            None => {
                outcomes.last().filter(|ended| self.is_delivered() || ended.outcome == Outcome::ClientGone)
            }
        };
        let outcome = match last {
            Some(ended) => ended.outcome.name(),
            None if end.gone => Outcome::ClientGone.name(),
            None if outcomes.is_empty() => "rejected",
            None => "failed",
        };
        let attempts = outcomes
            .iter()
            .zip(bills)
            .map(|(ended, bill)| AttemptFacts {
                provider: self.name_of(ended.candidate),
                model: self.candidates.model(ended.candidate),
                model_label: self.model_label(ended.candidate),
                outcome: ended.outcome,
                status: ended.status,
                took: ended.took,
                bill,
            })
            .collect();
        let first_token = self.attempts.first_token.filter(|_| self.body.said.stream);
        Facts {
            time: self.request.started,
            took: now.since(self.request.started),
            request_id: self.request.id.clone(),
            route: &self.request.route,
            policy: self.ranking.name(),
            operation: if self.request.pass.is_some() {
                "passthrough"
            } else {
                self.request.endpoint.operation()
            },
            tenant: &self.request.tenant,
            tenant_label: self.tenant_label(),
            model: &self.body.said.model,
            stream: self.body.said.stream,
            outcome,
            status: end.replied.or(last.and_then(|ended| client_status(ended.outcome, ended.status))),
            answered: self.is_delivered(),
            refused_at,
            opinion: self.second_opinion.given(),
            plan: self.candidates.ids().map(|id| self.name_of(id)).collect(),
            left_out: self.left_out().chain(self.refused()).collect(),
            adapted: last.and_then(|ended| self.adapted(ended.candidate)),
            why: self.why(),
            arm: self.arm(),
            // A request that was never sent has no shadow request, either.
            shadowed: self.shadow.filter(|_| !outcomes.is_empty()).map(|id| self.provider_name(id)),
            is_shadow: self.config.is_shadow,
            correction: self.billing.correction.as_ref(),
            attempts,
            first_token: first_token.map(|at| at.since(self.request.started)),
            malformed: outcomes.iter().fold(0, |sum, ended| sum.saturating_add(ended.tally.malformed)),
            unread: outcomes.iter().any(|ended| ended.tally.unread),
        }
    }
}

/// The status that the client got with an answer: an error that came with a success status was sent on with 400.
fn client_status(outcome: Outcome, status: Option<u16>) -> Option<u16> {
    let good =
        matches!(outcome, Outcome::Answered | Outcome::Truncated | Outcome::Garbled | Outcome::ClientGone);
    status.map(|status| if !good && status < 300 { 400 } else { status })
}
