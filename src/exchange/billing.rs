//! The money of one request: what is reserved in which budgets, and what takes its place when it is spent.

use std::rc::Rc;

use super::candidates::{CandidateId, Candidates};
use super::{client_headers, Exchange};
use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::Contended;
use crate::client_api::errors::{envelope, json_type, Rejection, Reply};
use crate::health::outcome::Outcome;
use crate::record::audit::Bill;
use crate::routing::policy::cost::Caps;
use crate::selection::plan::Env;
use crate::spend::budget::{Action, Budget, Reservation, Standing, State, Subject};
use crate::spend::cost::Money;
use crate::spend::usage::Tally;

/// How many tokens are reserved for an answer if the request sets no limit.
pub(super) const USUAL_OUTPUT: u64 = 1000;

/// How many tokens are reserved for an answer at most, whatever limit the request sets. Without this bound one request could
/// reserve a whole budget.
pub(super) const MOST_OUTPUT: u64 = 128_000;

/// The reservations of one request. Each stands beside the place of its budget in the configuration. What was reserved is settled
/// once: for an attempt when it is over, for the request when the request is.
#[derive(Debug, Default)]
pub(super) struct Billing {
    /// Reserved for the whole request, in budgets that do not depend on who serves it.
    for_request: Vec<(usize, Reservation)>,
    /// Reserved for the attempt that is chosen or under way, in budgets of its provider or model.
    for_attempt: Vec<(usize, Reservation)>,
    /// What is spent and left of the request's budgets, for the client's header. Beside the place of each budget, as above.
    standings: Vec<(usize, Standing)>,
    /// What the operator should read in the log.
    notes: Vec<String>,
}

/// Whether an attempt may still be refused for want of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charge {
    /// The attempt has not been sent: a budget that blocks refuses it.
    IfAdmitted,
    /// The gateway has sent it already: every budget counts it.
    Always,
}

impl Billing {
    /// Reserves for the whole request in every budget that does not depend on who serves it. Returns whether one of them has the
    /// request go to the cheapest candidate.
    ///
    /// # Errors
    /// The budget that refuses the request, by its place, and how it stands. Nothing is reserved then.
    fn admit(
        &mut self,
        budgets: &[Budget],
        subject: Subject<'_>,
        estimate: Money,
        env: &mut Env<'_>,
    ) -> Result<bool, (usize, Standing)> {
        let mut cheapest = false;
        for (place, budget) in budgets.iter().enumerate().filter(|(_, budget)| !budget.is_about_candidates())
        {
            let Some(owner) = budget.owner(subject) else { continue };
            let admitted = match budget.action {
                Action::Block => budget.admit(owner, estimate.as_pico(), env.now, env.store),
                Action::Alert | Action::Cheapest | Action::Skip => {
                    budget.reserve(owner, estimate.as_pico(), env.now, env.store)
                }
            };
            let Ok(admission) = admitted else {
                self.note_lost_reservation(budget);
                continue;
            };
            self.note(budget, &admission.standing);
            self.standings.push((place, admission.standing));
            cheapest |= budget.action == Action::Cheapest && admission.standing.state == State::Spent;
            let Some(reservation) = admission.reservation else {
                self.settle_request(budgets, Money::ZERO, env);
                return Err((place, admission.standing));
            };
            self.for_request.push((place, reservation));
        }
        Ok(cheapest)
    }

    /// Reserves for an attempt in every budget of its provider or model; false, and nothing is reserved, if one refuses.
    fn reserve(
        &mut self,
        budgets: &[Budget],
        subject: Subject<'_>,
        estimate: Money,
        charge: Charge,
        env: &mut Env<'_>,
    ) -> bool {
        for (place, budget) in budgets.iter().enumerate().filter(|(_, budget)| budget.is_about_candidates()) {
            let Some(owner) = budget.owner(subject) else { continue };
            let admitted = match (budget.action, charge) {
                (Action::Skip | Action::Block, Charge::IfAdmitted) => {
                    budget.admit(owner, estimate.as_pico(), env.now, env.store)
                }
                _ => budget.reserve(owner, estimate.as_pico(), env.now, env.store),
            };
            let Ok(admission) = admitted else {
                self.note_lost_reservation(budget);
                continue;
            };
            self.note(budget, &admission.standing);
            let Some(reservation) = admission.reservation else {
                self.settle_attempt(budgets, Money::ZERO, env);
                return false;
            };
            self.for_attempt.push((place, reservation));
        }
        true
    }

    /// The attempt is over: its cost takes the place of what was reserved for it.
    fn settle_attempt(&mut self, budgets: &[Budget], cost: Money, env: &mut Env<'_>) {
        let reserved = std::mem::take(&mut self.for_attempt);
        self.settle(budgets, &reserved, cost, env);
    }

    /// The request is over: its cost takes the place of what was reserved for it.
    fn settle_request(&mut self, budgets: &[Budget], cost: Money, env: &mut Env<'_>) {
        let reserved = std::mem::take(&mut self.for_request);
        self.settle(budgets, &reserved, cost, env);
    }

    fn settle(
        &mut self,
        budgets: &[Budget],
        reserved: &[(usize, Reservation)],
        cost: Money,
        env: &mut Env<'_>,
    ) {
        for (place, reservation) in reserved {
            let Some(budget) = budgets.get(*place) else { continue };
            match budget.settle(reservation, cost.as_pico(), env.now, env.store) {
                Ok(Some(standing)) => self.note(budget, &standing),
                Ok(None) => {}
                Err(Contended) => {
                    self.notes.push(format!(
                        "budget {}: {cost} USD could not be counted, because too many requests write there",
                        budget.name
                    ));
                }
            }
        }
    }

    /// Notes what the operator should know of a standing.
    fn note(&mut self, budget: &Budget, standing: &Standing) {
        let name = &budget.name;
        let spent = Money::from_pico(standing.spent_pico);
        if standing.newly_alerted {
            let limit = Money::from_pico(standing.limit_pico);
            let period = budget.period.name();
            self.notes.push(format!("budget {name}: {spent} of {limit} USD are spent this {period}"));
        }
        if standing.newly_overflow {
            self.notes
                .push(format!("budget {name}: no slot is free, so owners that are new share one limit"));
        }
    }

    /// Notes a line that the operator should read.
    pub(super) fn note_line(&mut self, line: Option<String>) {
        self.notes.extend(line);
    }

    fn note_lost_reservation(&mut self, budget: &Budget) {
        self.notes.push(format!(
            "budget {}: a reservation could not be written, so the request goes on without it",
            budget.name
        ));
    }

    /// How the budgets of the request stand, as a header's value; `None` if it has none.
    fn header(&self, budgets: &[Budget], now: Timestamp) -> Option<String> {
        let each = |(place, standing): &(usize, Standing)| Some(budgets.get(*place)?.header(standing, now));
        let all: Vec<String> = self.standings.iter().filter_map(each).collect();
        (!all.is_empty()).then(|| all.join(","))
    }
}

/// The budgets of an exchange.
impl Exchange {
    /// What the operator should read in the log.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.billing.notes)
    }

    /// Admits the request to the budgets that do not depend on who serves it.
    pub(super) fn admit(&mut self, env: &mut Env<'_>) -> Result<(), Box<Reply>> {
        let config = Rc::clone(&self.config);
        let budgets = &config.budgets;
        if budgets.is_empty() {
            return Ok(());
        }
        let estimate = self.expected(Candidates::FIRST, env.now).unwrap_or_default();
        let subject =
            Subject { tenant: &self.request.tenant, route: &self.request.route, provider: "", model: "" };
        let mut cheapest =
            self.billing.admit(budgets, subject, estimate, env).map_err(|(place, standing)| {
                let exceeded = budgets.get(place).map(|budget| exceeded(budget, &standing, env.now));
                Box::new(exceeded.unwrap_or_else(|| Rejection::misconfigured("a budget is missing").reply()))
            })?;
        let by_candidate =
            |budget: &&Budget| budget.action == Action::Cheapest && budget.is_about_candidates();
        for budget in budgets.iter().filter(by_candidate) {
            let mut owners = self.candidates.ids().filter_map(|id| budget.owner(self.subject(Some(id))));
            cheapest |= owners.any(|owner| budget.standing(owner, env.now, env.store).state == State::Spent);
        }
        if cheapest {
            self.order_by_cost(&Caps::default(), env.now);
        }
        Ok(())
    }

    /// The `skip` or `block` budget of a candidate that is spent, if there is one, and how it stands.
    pub(super) fn spent(&self, candidate: CandidateId, env: &mut Env<'_>) -> Option<(&Budget, Standing)> {
        let leaves_out = |budget: &&Budget| {
            budget.is_about_candidates() && matches!(budget.action, Action::Skip | Action::Block)
        };
        self.config.budgets.iter().filter(leaves_out).find_map(|budget| {
            let owner = budget.owner(self.subject(Some(candidate)))?;
            let standing = budget.standing(owner, env.now, env.store);
            (standing.state == State::Spent).then_some((budget, standing))
        })
    }

    /// Reserves for the candidate that is tried next; false, and nothing is reserved, if a `skip` or `block` budget has no room
    /// for it.
    pub(super) fn reserve_attempt(&mut self, candidate: CandidateId, env: &mut Env<'_>) -> bool {
        self.reserve(candidate, Charge::IfAdmitted, env)
    }

    /// Reserves for a candidate that the gateway has tried already, whether or not there is room.
    pub(super) fn charge_attempt(&mut self, candidate: CandidateId, env: &mut Env<'_>) {
        self.reserve(candidate, Charge::Always, env);
    }

    fn reserve(&mut self, candidate: CandidateId, charge: Charge, env: &mut Env<'_>) -> bool {
        let config = Rc::clone(&self.config);
        if config.budgets.is_empty() {
            return true;
        }
        let estimate = self.expected(candidate, env.now).unwrap_or_default();
        let mut billing = std::mem::take(&mut self.billing);
        let reserved = billing.reserve(&config.budgets, self.subject(Some(candidate)), estimate, charge, env);
        self.billing = billing;
        reserved
    }

    /// The attempt is over: its cost takes the place of what was reserved for it.
    pub(super) fn settle_attempt(&mut self, cost: Money, env: &mut Env<'_>) {
        self.billing.settle_attempt(&self.config.budgets, cost, env);
    }

    /// The request is over: its cost takes the place of what was reserved for it.
    pub(super) fn settle_request(&mut self, cost: Money, env: &mut Env<'_>) {
        self.billing.settle_request(&self.config.budgets, cost, env);
    }

    /// The request as budgets see it; with a candidate, an attempt at it.
    pub(super) fn subject(&self, candidate: Option<CandidateId>) -> Subject<'_> {
        Subject {
            tenant: &self.request.tenant,
            route: &self.request.route,
            provider: candidate.map_or("", |id| self.name_of(id)),
            model: candidate.map_or("", |id| self.candidates.model(id)),
        }
    }

    /// The reply when no candidate can be tried at all.
    pub(super) fn no_candidate(&self, env: &mut Env<'_>) -> Reply {
        let spent = self.candidates.ids().find_map(|id| self.spent(id, env));
        if let Some((budget, standing)) = spent {
            return exceeded(budget, &standing, env.now);
        }
        match self.candidates.first_unsuitable() {
            Some(why) => Rejection::unsupported(why).reply(),
            None => Rejection::misconfigured("no provider could be chosen").reply(),
        }
    }

    /// The header that says how the request's budgets stand.
    pub(super) fn budget_header(&self, now: Timestamp) -> Option<(&'static str, String)> {
        Some((client_headers::BUDGET, self.billing.header(&self.config.budgets, now)?))
    }

    /// What an attempt is billed: the usage that its provider reported. Without one, an attempt is billed an estimate if it was answered,
    /// if the client left, or if its answer broke off after the release (`delivered`); any other is billed nothing.
    pub(super) fn bill(
        &self,
        candidate: CandidateId,
        outcome: Outcome,
        tally: &Tally,
        delivered: bool,
    ) -> Option<Bill> {
        let estimated = match outcome {
            Outcome::Answered | Outcome::ClientGone => true,
            Outcome::Truncated | Outcome::Garbled => delivered,
            _ => false,
        };
        if self.request.pass.is_some() || (tally.usage.is_none() && !estimated) {
            return None;
        }
        let (usage, source) = tally.settle(|| self.body.said.input.tokens());
        let (model, served) = (&self.candidates.get(candidate)?.model, tally.served.clone());
        let provider = self.provider_of(candidate)?;
        let cost = provider.cost(model, &usage, &served, self.request.started);
        let unpriced = cost.map(|cost| cost.unpriced).unwrap_or_default();
        let cost = cost.map(|cost| cost.known);
        Some(Bill { usage, served, source, reconciled: tally.reconciled, cost, unpriced })
    }

    /// What the attempt that has just failed is billed.
    pub(super) fn last_cost(&self) -> Money {
        let last = self.attempts.last();
        let bill = last.and_then(|last| self.bill(last.candidate, last.verdict.outcome, &last.tally, false));
        bill.and_then(|bill| bill.cost).unwrap_or_default()
    }
}

/// The reply to a request for which there is no money.
fn exceeded(budget: &Budget, standing: &Standing, now: Timestamp) -> Reply {
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

#[cfg(test)]
mod tests;
