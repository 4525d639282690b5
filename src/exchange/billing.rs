//! The money of one request: what is reserved in which budgets, and what takes its place when it is spent.

use std::rc::Rc;

use super::attempts::Attempt;
use super::candidates::CandidateId;
use super::{client_headers, Exchange};
use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::Contended;
use crate::client_api::errors::{envelope, json_type, Rejection, Reply};
use crate::client_api::request::Endpoint;
use crate::health::outcome::Outcome;
use crate::record::bill::{Bill, Correction};
use crate::routing::policy::cost::Caps;
use crate::selection::plan::Env;
use crate::spend::budget::{Action, Admission, Budget, Owner, Reservation, Standing, State, Subject};
use crate::spend::cost::Money;
use crate::spend::usage::{Source, Tally, MOST_OUTPUT};

/// How many tokens are reserved for an answer if the request sets no limit.
const USUAL_OUTPUT: u64 = 1000;

/// The reservations of one request. Each stands beside the place of its budget in the configuration. What was reserved is settled
/// once: for an attempt when it is over, for the request when the request is.
#[derive(Debug, Default)]
pub(super) struct Billing {
    /// Budgets that do not depend on who serves the request count this one. Where an attempt has an exchange of its own, only that of
    /// the router counts.
    counts_request: bool,
    /// Reserved for the whole request, in those budgets.
    for_request: Vec<(usize, Reservation)>,
    /// The budget that refused the request before its first attempt, and how it stood.
    refused: Option<(usize, Standing)>,
    /// Reserved for the attempt that is chosen or under way, in budgets of its provider or model.
    for_attempt: Vec<(usize, Reservation)>,
    /// What is spent and left of the request's budgets, for the client's header. Beside the place of each budget, as above.
    standings: Vec<(usize, Standing)>,
    /// What a response in the background has cost that this request has read.
    pub(super) correction: Option<Correction>,
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
    /// Reserves for an attempt: its own cost (`estimate`) in every budget of its provider or model, and that of the whole request,
    /// with what earlier attempts have cost (`earlier`; `None` before the first one), in the others. What was reserved for the
    /// request before is changed to that. False if a budget refuses; then nothing is reserved for the attempt.
    fn reserve(
        &mut self,
        budgets: &[Budget],
        subject: Subject<'_>,
        (estimate, earlier): (Money, Option<Money>),
        charge: Charge,
        env: &mut Env<'_>,
    ) -> bool {
        for (place, budget) in budgets.iter().enumerate() {
            let Some(owner) = budget.owner(subject) else { continue };
            let always =
                charge == Charge::Always || matches!(budget.action, Action::Alert | Action::Cheapest);
            if budget.is_about_candidates() {
                let reserved = self.reserve_new(budget, owner, estimate, always, env);
                let Some(Admission { reservation, .. }) = reserved else { continue };
                let Some(reservation) = reservation else {
                    self.settle_attempt(budgets, Money::ZERO, env);
                    return false;
                };
                self.for_attempt.push((place, reservation));
            } else if self.counts_request {
                let costs = (earlier.unwrap_or_default(), estimate);
                let Some(standing) = self.reserve_request((place, budget), owner, costs, always, env) else {
                    continue;
                };
                self.settle_attempt(budgets, Money::ZERO, env);
                if earlier.is_none() {
                    self.settle_request(budgets, Money::ZERO, env);
                    self.refused = Some((place, standing));
                }
                return false;
            }
        }
        true
    }

    /// Reserves in a budget in which nothing is reserved. `None` if that was lost.
    fn reserve_new(
        &mut self,
        budget: &Budget,
        owner: Owner,
        estimate: Money,
        always: bool,
        env: &mut Env<'_>,
    ) -> Option<Admission> {
        let reserved = match always {
            true => budget.reserve(owner, estimate.as_pico(), env.now, env.store),
            false => budget.admit(owner, estimate.as_pico(), env.now, env.store),
        };
        match reserved {
            Ok(admission) => {
                self.note(budget, &admission.standing);
                Some(admission)
            }
            Err(Contended) => {
                self.note_lost_reservation(budget);
                None
            }
        }
    }

    /// Reserves for the whole request, or changes what is reserved for it. Returns how the budget stands if it refuses.
    fn reserve_request(
        &mut self,
        (place, budget): (usize, &Budget),
        owner: Owner,
        (earlier, estimate): (Money, Money),
        always: bool,
        env: &mut Env<'_>,
    ) -> Option<Standing> {
        let expected = earlier.plus(estimate);
        let Some(at) = self.for_request.iter().position(|(known, _)| *known == place) else {
            let Admission { standing, reservation } =
                self.reserve_new(budget, owner, expected, always, env)?;
            self.standings.push((place, standing));
            let Some(reservation) = reservation else { return Some(standing) };
            self.for_request.push((place, reservation));
            return None;
        };
        let (_, held) = self.for_request.get_mut(at)?;
        if held.amount() == expected.as_pico() {
            return None;
        }
        let costs = (earlier.as_pico(), estimate.as_pico());
        match budget.change(held, costs, always, env.now, env.store) {
            Ok(None) => None,
            Ok(Some(Admission { standing, reservation: None })) => Some(standing),
            Ok(Some(Admission { standing, reservation: Some(changed) })) => {
                *held = changed;
                let told = self.standings.iter_mut().filter(|(known, _)| *known == place);
                told.for_each(|(_, known)| *known = standing);
                None
            }
            Err(Contended) => {
                self.note_lost_reservation(budget);
                None
            }
        }
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
                Err(Contended) => self.note_contended(budget, cost),
            }
        }
    }

    /// Notes what the operator should know of a standing.
    pub(super) fn note(&mut self, budget: &Budget, standing: &Standing) {
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

    /// Notes that a cost is not counted.
    #[inline(never)]
    pub(super) fn note_contended(&mut self, budget: &Budget, cost: Money) {
        self.notes.push(format!(
            "budget {}: {cost} USD could not be counted, because too many requests write there",
            budget.name
        ));
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

    /// The request is counted in budgets from now on. Those that are spent may have it go to the cheapest candidate.
    pub(super) fn admit(&mut self, env: &mut Env<'_>) {
        self.billing.counts_request = true;
        let config = Rc::clone(&self.config);
        let is_spent = |budget: &Budget| {
            // Of a budget that does not depend on the candidate each of them has the same owner.
            let most = if budget.is_about_candidates() { usize::MAX } else { 1 };
            let mut owners =
                self.candidates.ids().take(most).filter_map(|id| budget.owner(self.subject(Some(id))));
            owners.any(|owner| budget.standing(owner, env.now, env.store).state == State::Spent)
        };
        let mut cheapest = config.budgets.iter().filter(|budget| budget.action == Action::Cheapest);
        if cheapest.any(is_spent) {
            self.order_by_cost(&Caps::default(), env.now);
        }
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

    /// Reserves for the candidate that is tried next; false, and nothing is reserved for it, if a `skip` or `block` budget has no room
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
        let earlier = (!self.attempts.all().is_empty()).then(|| self.cost_so_far());
        let mut billing = std::mem::take(&mut self.billing);
        let subject = self.subject(Some(candidate));
        let reserved = billing.reserve(&config.budgets, subject, (estimate, earlier), charge, env);
        self.billing = billing;
        reserved
    }

    /// Whether a budget refused the request as a whole, whoever would serve it.
    pub(super) const fn is_refused(&self) -> bool {
        self.billing.refused.is_some()
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
        let refused = self.billing.refused;
        let refused = refused.and_then(|(place, standing)| Some((self.config.budgets.get(place)?, standing)));
        let spent = refused.or_else(|| self.candidates.ids().find_map(|id| self.spent(id, env)));
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

    /// How many tokens of output are expected at most of a candidate.
    pub(super) fn expected_output(&self, candidate: CandidateId) -> u64 {
        let said = &self.body.said;
        if self.request.endpoint == Endpoint::Embeddings {
            return 0;
        }
        let each = said.max_output.map_or(USUAL_OUTPUT, |all| all / said.choices.max(1));
        let each = self.longest_of(candidate).lowered(each).unwrap_or(each);
        each.min(MOST_OUTPUT).saturating_mul(said.answers.max(1))
    }

    /// What an attempt is billed: the usage that its provider reported. Without one, an attempt is billed an estimate if it was answered,
    /// if the client left, or if its answer broke off after the release (`delivered`); any other is billed nothing. A response that its
    /// provider goes on writing is billed what was expected of it.
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
        let runs_on = self.runs_on(outcome, tally);
        if self.request.pass.is_some() || (tally.usage.is_none() && !estimated && !runs_on) {
            return None;
        }
        let (mut usage, mut source) = tally.settle(|| self.body.said.input.tokens());
        if runs_on {
            usage.output = usage.output.max(self.expected_output(candidate));
            source = Source::Estimated;
        }
        let (model, served) = (&self.candidates.get(candidate)?.model, tally.served.clone());
        let provider = self.provider_of(candidate)?;
        let cost = provider.cost(model, &usage, &served, self.request.started);
        let unpriced = cost.map(|cost| cost.unpriced).unwrap_or_default();
        let cost = cost.map(|cost| cost.known);
        Some(Bill { usage, served, source, reconciled: tally.reconciled, cost, unpriced })
    }

    /// What the attempt that has just failed is billed.
    pub(super) fn last_cost(&self) -> Money {
        self.attempts.last().map_or(Money::ZERO, |last| self.cost_of(last))
    }

    /// What the attempts that are over, and failed, are billed.
    fn cost_so_far(&self) -> Money {
        self.attempts.all().iter().map(|attempt| self.cost_of(attempt)).fold(Money::ZERO, Money::plus)
    }

    fn cost_of(&self, attempt: &Attempt) -> Money {
        let bill = self.bill(attempt.candidate, attempt.verdict.outcome, &attempt.tally, false);
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
