//! What a request costs: money is reserved before it, and what it did cost takes that place when it ends.

use std::rc::Rc;
use std::time::Duration;

use super::client_headers;
use super::{Attempt, Exchange, Phase};
use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::{fingerprint, Contended};
use crate::client_api::errors::{envelope, json_type, Rejection, Reply};
use crate::health::outcome::Outcome;
use crate::record::audit::{AttemptFacts, Bill, Facts};
use crate::routing::policy::cost::Caps;
use crate::selection::plan::Env;
use crate::selection::stored;
use crate::spend::budget::{Action, Budget, Reservation, Standing, State, Subject};
use crate::spend::cost::Money;
use crate::spend::usage::Tally;

/// The tokens of an answer for which nobody set a limit: what a reservation takes for it.
pub(super) const USUAL_OUTPUT: u64 = 1000;

/// The longest answer that a reservation takes for possible, whatever limit the client sets: or one request could reserve a
/// whole budget for itself.
pub(super) const MOST_OUTPUT: u64 = 128_000;

/// What is kept for the bill.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// A random number of the request.
    pub(super) number: u64,
    started: Timestamp,
    request_id: String,
    tenant: String,
    /// When the answer under way had its first content.
    pub(super) first_token: Option<Timestamp>,
    /// Reserved for the whole request, each with the place of its budget.
    for_request: Vec<(usize, Reservation)>,
    /// Reserved for the candidate that is asked.
    for_candidate: Vec<(usize, Reservation)>,
    /// How the request's budgets stand, for the client.
    standings: Vec<(usize, Standing)>,
    /// What the operator should read in the log.
    notes: Vec<String>,
}

/// What an attempt came to.
struct Ended {
    candidate: usize,
    outcome: Outcome,
    status: Option<u16>,
    took: Duration,
    tally: Tally,
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
    /// Names the tenant that the request is for.
    pub fn set_tenant(&mut self, tenant: String) {
        self.account.tenant = tenant;
    }

    /// Notes the gateway's number of the request.
    pub fn set_request_id(&mut self, id: String) {
        self.account.request_id = id;
    }

    /// What the operator should read in the log.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.account.notes)
    }

    /// The request begins now.
    pub(super) fn open_account(&mut self, env: &mut Env<'_>) {
        self.account.started = env.now;
        self.account.number = env.random.u64(..);
    }

    /// Admits the request to the budgets that are about it, whoever serves it.
    pub(super) fn admit(&mut self, env: &mut Env<'_>) -> Result<(), Box<Reply>> {
        let config = Rc::clone(&self.config);
        if config.budgets.is_empty() {
            return Ok(());
        }
        let estimate = self.expected(0, env.now).unwrap_or_default().as_pico();
        let mut cheapest = false;
        for (place, budget) in config.budgets.iter().enumerate() {
            if budget.is_about_candidates() {
                continue;
            }
            let Some(owner) = budget.owner(self.subject(None)) else { continue };
            let admitted = match budget.action {
                Action::Block => budget.admit(owner, estimate, env.now, env.store),
                Action::Alert | Action::Cheapest | Action::Skip => {
                    budget.reserve(owner, estimate, env.now, env.store)
                }
            };
            let Ok(admission) = admitted else {
                self.account.notes.push(format!("budget {}: a reservation was lost", budget.name));
                continue;
            };
            self.note(budget, &admission.standing);
            self.account.standings.push((place, admission.standing));
            cheapest |= budget.action == Action::Cheapest && admission.standing.state == State::Spent;
            match admission.reservation {
                Some(reservation) => self.account.for_request.push((place, reservation)),
                None => {
                    let reserved = std::mem::take(&mut self.account.for_request);
                    self.settle(&reserved, Money::ZERO, env);
                    return Err(Box::new(self.exceeded(budget, &admission.standing, env.now)));
                }
            }
        }
        for budget in config.budgets.iter().filter(|budget| budget.action == Action::Cheapest) {
            let places = (0..self.candidates.len()).filter(|_| budget.is_about_candidates());
            let mut owners = places.filter_map(|place| budget.owner(self.subject(Some(place))));
            cheapest |= owners.any(|owner| budget.standing(owner, env.now, env.store).state == State::Spent);
        }
        if cheapest {
            self.order_by_cost(&Caps::default(), env.now);
        }
        Ok(())
    }

    /// Whether a candidate has no money left: a `skip` or `block` budget that is about it is spent.
    pub(super) fn spent(&self, candidate: usize, env: &mut Env<'_>) -> Option<(&Budget, Standing)> {
        let leaves_out = |budget: &&Budget| {
            budget.is_about_candidates() && matches!(budget.action, Action::Skip | Action::Block)
        };
        self.config.budgets.iter().filter(leaves_out).find_map(|budget| {
            let owner = budget.owner(self.subject(Some(candidate)))?;
            let standing = budget.standing(owner, env.now, env.store);
            (standing.state == State::Spent).then_some((budget, standing))
        })
    }

    /// Reserves for the candidate that is about to be asked; false, and nothing is reserved, if a `skip` or `block` budget
    /// has no room for it.
    pub(super) fn reserve_candidate(&mut self, candidate: usize, env: &mut Env<'_>) -> bool {
        self.reserve(candidate, false, env)
    }

    /// Reserves for a candidate that the gateway has asked already, whether or not there is room.
    pub(super) fn charge_candidate(&mut self, candidate: usize, env: &mut Env<'_>) {
        self.reserve(candidate, true, env);
    }

    fn reserve(&mut self, candidate: usize, asked: bool, env: &mut Env<'_>) -> bool {
        let config = Rc::clone(&self.config);
        for (place, budget) in config.budgets.iter().enumerate() {
            if !budget.is_about_candidates() {
                continue;
            }
            let Some(owner) = budget.owner(self.subject(Some(candidate))) else { continue };
            let estimate = self.expected(candidate, env.now).unwrap_or_default().as_pico();
            let admitted = match budget.action {
                Action::Skip | Action::Block if !asked => budget.admit(owner, estimate, env.now, env.store),
                _ => budget.reserve(owner, estimate, env.now, env.store),
            };
            let Ok(admission) = admitted else {
                self.account.notes.push(format!("budget {}: a reservation was lost", budget.name));
                continue;
            };
            self.note(budget, &admission.standing);
            match admission.reservation {
                Some(reservation) => self.account.for_candidate.push((place, reservation)),
                None => {
                    self.settle_candidate(Money::ZERO, env);
                    return false;
                }
            }
        }
        true
    }

    /// The attempt is over: what it did cost takes the place of what was reserved for its candidate.
    pub(super) fn settle_candidate(&mut self, cost: Money, env: &mut Env<'_>) {
        let reserved = std::mem::take(&mut self.account.for_candidate);
        self.settle(&reserved, cost, env);
    }

    fn settle(&mut self, reserved: &[(usize, Reservation)], cost: Money, env: &mut Env<'_>) {
        let config = Rc::clone(&self.config);
        for (place, reservation) in reserved {
            let Some(budget) = config.budgets.get(*place) else { continue };
            match budget.settle(reservation, cost.as_pico(), env.now, env.store) {
                Ok(Some(standing)) => self.note(budget, &standing),
                Ok(None) => {}
                Err(Contended) => {
                    self.account.notes.push(format!("budget {}: {cost} USD were not counted", budget.name));
                }
            }
        }
    }

    /// Takes note of what a standing has to tell the operator.
    fn note(&mut self, budget: &Budget, standing: &Standing) {
        let name = &budget.name;
        let spent = Money::from_pico(standing.spent_pico);
        if standing.newly_alerted {
            let limit = Money::from_pico(standing.limit_pico);
            let period = budget.period.name();
            self.account.notes.push(format!("budget {name}: {spent} of {limit} USD are spent this {period}"));
        }
        if standing.newly_overflow {
            self.account.notes.push(format!("budget {name}: no slot is free, others share one limit"));
        }
    }

    /// The request, as budgets see it; with a candidate, an attempt at it.
    pub(super) fn subject(&self, candidate: Option<usize>) -> Subject<'_> {
        let model =
            candidate.and_then(|place| self.candidates.get(place)).map_or("", |found| &found.model.name);
        let provider = candidate.map_or("", |place| self.name_of(place));
        Subject { tenant: &self.account.tenant, route: &self.route, provider, model }
    }

    /// The reply to a request for which there is no money.
    fn exceeded(&self, budget: &Budget, standing: &Standing, now: Timestamp) -> Reply {
        let (name, period) = (&budget.name, budget.period.name());
        let limit = Money::from_pico(standing.limit_pico);
        let message = format!("The budget {name} of {limit} USD for this {period} is spent");
        let wait = seconds_up(standing.resets_at.since(now)).max(1);
        let headers = vec![
            json_type(),
            ("retry-after", wait.to_string()),
            ("x-should-retry", "false".to_owned()),
            (client_headers::BUDGET, budget.header(standing, now)),
        ];
        let body = envelope(&message, "insufficient_quota", None, Some("budget_exceeded"));
        Reply { status: 429, headers, body }
    }

    /// The reply when no candidate can be asked at all.
    pub(super) fn nobody(&self, env: &mut Env<'_>) -> Reply {
        let spent = (0..self.candidates.len()).find_map(|place| self.spent(place, env));
        if let Some((budget, standing)) = spent {
            return self.exceeded(budget, &standing, env.now);
        }
        match self.unsuitable.first() {
            Some((_, why)) => Rejection::unsupported(why).reply(),
            None => Rejection::misconfigured("no provider could be chosen").reply(),
        }
    }

    /// The header that tells how the request's budgets stand.
    pub(super) fn budget_header(&self, now: Timestamp) -> Option<(&'static str, String)> {
        let each = |(place, standing): &(usize, Standing)| {
            self.config.budgets.get(*place).map(|budget| budget.header(standing, now))
        };
        let all: Vec<String> = self.account.standings.iter().filter_map(each).collect();
        (!all.is_empty()).then(|| (client_headers::BUDGET, all.join(",")))
    }

    /// What an attempt is billed. A failed one only if its provider reported a usage; one that was answered, or that the
    /// client or the provider left in the middle (`delivered`), what is estimated otherwise.
    pub(super) fn bill(
        &self,
        candidate: usize,
        outcome: Outcome,
        tally: &Tally,
        delivered: bool,
    ) -> Option<Bill> {
        let estimated = match outcome {
            Outcome::Answered | Outcome::ClientGone => true,
            Outcome::Truncated => delivered,
            _ => false,
        };
        if self.pass.is_some() || (tally.usage.is_none() && !estimated) {
            return None;
        }
        let (usage, source) = tally.settle(|| self.body.input.tokens());
        let price = self.candidates.get(candidate)?.model.price.as_ref();
        let cost = price.and_then(|price| price.cost(&usage, self.account.started));
        Some(Bill { usage, source, cost })
    }

    /// A label may not grow with traffic: a model that came through `*` has one only if a price list has it.
    fn model_label(&self, candidate: usize) -> &str {
        let found = self.candidates.get(candidate).zip(self.provider_of(candidate));
        let known = found.filter(|(found, provider)| {
            let name = &found.model.name;
            provider.models.iter().any(|model| model.name == *name)
                || provider.prices.iter().any(|list| list.find(name).is_some())
        });
        known.map_or("other", |(found, _)| &found.model.name)
    }

    /// The tenant; empty if none was named.
    pub(super) fn tenant(&self) -> &str {
        &self.account.tenant
    }

    fn tenant_label(&self) -> &str {
        let tenant = &self.account.tenant;
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
        let before = self.attempts.len();
        let outcomes = self.outcomes(end, env.now);
        // Whether the last attempt is the one for which money is still reserved.
        let is_open = delivered || outcomes.len() > before;
        let delivered_here = delivered && !self.config.is_shadow;
        if let Some(ended) = outcomes.last().filter(|_| delivered_here) {
            let continued = self.body.stored.as_ref().map_or(0, |id| fingerprint([&**id]));
            for id in [continued, ended.tally.stored].into_iter().filter(|id| *id != 0) {
                stored::remember(id, self.name_of(ended.candidate), env.store);
            }
        }
        let bills = self.bills(&outcomes);
        let cost = |bill: &Option<Bill>| bill.as_ref().and_then(|bill| bill.cost).unwrap_or_default();
        let last = bills.last().filter(|_| is_open);
        self.settle_candidate(last.map(cost).unwrap_or_default(), env);
        let reserved = std::mem::take(&mut self.account.for_request);
        let total = bills.iter().map(cost).fold(Money::ZERO, Money::plus);
        self.settle(&reserved, total, env);
        self.facts(end, &outcomes, bills, env.now)
    }

    /// What the record says if nothing more is heard of the request: before an answer has begun, only a client that leaves
    /// ends it in silence.
    pub fn so_far(&self, now: Timestamp) -> Facts<'_> {
        let end = End { gone: matches!(self.phase, Phase::Asking { .. }), replied: None };
        let outcomes = self.outcomes(end, now);
        let bills = self.bills(&outcomes);
        self.facts(end, &outcomes, bills, now)
    }

    /// What every attempt came to; the one under way, what it comes to if the request ends now.
    fn outcomes(&self, end: End, now: Timestamp) -> Vec<Ended> {
        let ended = |attempt: &Attempt| Ended {
            candidate: attempt.candidate,
            outcome: attempt.verdict.outcome,
            status: attempt.verdict.status,
            took: attempt.took,
            tally: attempt.tally,
        };
        let mut outcomes: Vec<Ended> = self.attempts.iter().map(ended).collect();
        match self.phase {
            // The answer was on its way, and nobody has told its end.
            Phase::Delivering { .. } => {
                if let Some(last) = outcomes.last_mut() {
                    last.outcome = if end.gone { Outcome::ClientGone } else { Outcome::Truncated };
                    if self.tally != Tally::default() {
                        last.tally = self.tally;
                    }
                }
            }
            Phase::Asking { candidate, started, begun: true, .. } if end.gone => {
                let took = now.since(started);
                let tally = self.tally;
                outcomes.push(Ended { candidate, outcome: Outcome::ClientGone, status: None, took, tally });
            }
            Phase::Asking { .. } | Phase::Over { .. } => {}
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
        let model = |place: usize| self.candidates.get(place).map_or("", |found| found.model.name.as_str());
        let last =
            outcomes.last().filter(|ended| self.is_delivered() || ended.outcome == Outcome::ClientGone);
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
                model: model(ended.candidate),
                model_label: self.model_label(ended.candidate),
                outcome: ended.outcome,
                status: ended.status,
                took: ended.took,
                bill,
            })
            .collect();
        let first_token = self.account.first_token.filter(|_| self.body.stream);
        Facts {
            time: self.account.started,
            took: now.since(self.account.started),
            request_id: self.account.request_id.clone(),
            route: &self.route,
            policy: self.ranking.name(),
            operation: if self.pass.is_some() { "passthrough" } else { self.endpoint.operation() },
            tenant: &self.account.tenant,
            tenant_label: self.tenant_label(),
            model: &self.body.model,
            stream: self.body.stream,
            outcome,
            status: end.replied.or(last.and_then(|ended| told(ended.outcome, ended.status))),
            answered: self.is_delivered(),
            plan: (0..self.candidates.len()).map(|place| self.name_of(place)).collect(),
            left_out: self.left_out().into_iter().chain(self.refused()).collect(),
            why: self.why(),
            arm: self.arm(),
            shadowed: self.shadowed.map(|id| self.provider_name(id)),
            is_shadow: self.config.is_shadow,
            attempts,
            first_token: first_token.map(|at| at.since(self.account.started)),
            malformed: outcomes.iter().fold(0, |sum, ended| sum.saturating_add(ended.tally.malformed)),
        }
    }
}

/// The status that the client saw of an answer: an error that came as a success went on as a 400.
fn told(outcome: Outcome, status: Option<u16>) -> Option<u16> {
    let good = matches!(outcome, Outcome::Answered | Outcome::Truncated | Outcome::ClientGone);
    status.map(|status| if !good && status < 300 { 400 } else { status })
}

#[cfg(test)]
mod tests;
