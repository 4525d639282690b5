//! Responses in the background (`background` of the Responses API): their provider accepts them and writes them later, so that their
//! usage is not known when the request ends. The client reads them with a request of a passthrough path, and that tells their usage.

use std::rc::Rc;

use super::candidates::CandidateId;
use super::facts::Ended;
use super::{Exchange, Pass};
use crate::base::store::{fingerprint, Contended};
use crate::client_api::errors::{Rejection, Reply};
use crate::dialects::schema::responses;
use crate::health::outcome::Outcome;
use crate::record::bill::{Bill, Correction};
use crate::selection::plan::Env;
use crate::spend::budget::{Budget, Subject};
use crate::spend::queued::{self, Queued};
use crate::spend::usage::{Source, Tally};

/// The fingerprint of the id of the response that a request of a passthrough path is about.
fn response_id(pass: &Pass) -> Option<u64> {
    let (_, rest) = pass.path.split_once("/responses/")?;
    let id = rest.split(['/', '?']).next().filter(|id| !id.is_empty())?;
    Some(fingerprint([id]))
}

impl Exchange {
    /// Rules out the candidates whose budgets refuse responses in the background, if this is one.
    ///
    /// # Errors
    /// The reply if no candidate is left.
    #[inline(never)]
    pub(super) fn refuse_background(&mut self) -> Result<(), Box<Reply>> {
        if !self.body.said.background {
            return Ok(());
        }
        let config = Rc::clone(&self.config);
        let refusing = |id: CandidateId| {
            let subject = self.subject(Some(id));
            let mut budgets = config.budgets.iter().filter(|budget| budget.refuses_background);
            budgets.find(|budget| budget.owner(subject).is_some()).map(|budget| (id, budget))
        };
        let refused: Vec<(CandidateId, &Budget)> = self.candidates.ids().filter_map(refusing).collect();
        let all = refused.len() == self.candidates.len();
        if let Some((_, budget)) = refused.first().filter(|_| all) {
            return Err(Box::new(Rejection::background(&budget.name).reply()));
        }
        for (id, budget) in refused {
            self.candidates.rule_out(id, Rejection::background(&budget.name).message);
        }
        Ok(())
    }

    /// Remembers what was billed for responses that their providers go on writing.
    #[inline(never)]
    pub(super) fn remember_queued(&self, outcomes: &[Ended], bills: &[Option<Bill>], env: &mut Env<'_>) {
        // Nobody reads the response to a shadow request.
        if self.config.budgets.is_empty() || self.request.pass.is_some() || self.config.is_shadow {
            return;
        }
        for (ended, bill) in outcomes.iter().zip(bills) {
            let billed = bill.as_ref().and_then(|bill| bill.cost);
            let Some(billed) = billed.filter(|_| self.runs_on(ended.outcome, &ended.tally)) else { continue };
            if ended.tally.stored != 0 {
                let Subject { tenant, route, provider, .. } = self.subject(Some(ended.candidate));
                let texts = [tenant, route, provider, &self.body.said.model];
                let queued = Queued::new([self.request.started, env.now], billed, texts);
                queued::remember(ended.tally.stored, &queued, env.store);
            }
        }
    }

    /// Whether this request of a passthrough path reads a response whose cost is not known: then its answer, if its status is 200,
    /// must be [read](Self::read_response).
    #[inline(never)]
    pub fn reads_queued(&self, env: &mut Env<'_>) -> bool {
        let id = self.request.pass.as_ref().filter(|_| !self.config.budgets.is_empty()).and_then(response_id);
        id.is_some_and(|id| queued::is_known(id, env.store))
    }

    /// The client has read a response. If that says what it used, its cost takes the place of what was billed, once.
    #[inline(never)]
    pub fn read_response(&mut self, body: &[u8], env: &mut Env<'_>) {
        let Some(id) = self.request.pass.as_ref().and_then(response_id) else { return };
        let tally = responses::read(body).tally;
        // What a response that is still being written tells is not final.
        let Some(usage) = tally.usage.filter(|_| !tally.uncounted) else { return };
        let config = Rc::clone(&self.config);
        let Some(queued) = queued::take(id, env.store) else { return };
        let [tenant, route, provider, asked] = queued.texts();
        let found = config.providers.iter().find(|found| found.name == provider);
        let Some((found, model)) = found.zip(found.and_then(|found| found.resolve(asked))) else { return };
        let Some(cost) = found.cost(&model, &usage, &tally.served, queued.started) else { return };
        let subject = Subject { tenant, route, provider, model: &model.name };
        for budget in &config.budgets {
            let Some(owner) = budget.owner(subject) else { continue };
            match budget.correct(owner, &queued, cost.known, env.now, env.store) {
                Ok(standing) => standing.iter().for_each(|standing| self.billing.note(budget, standing)),
                Err(Contended) => self.billing.note_contended(budget, cost.known),
            }
        }
        let bill = Bill {
            usage,
            served: tally.served,
            source: Source::Reported,
            reconciled: tally.reconciled,
            cost: Some(cost.known),
            unpriced: cost.unpriced,
        };
        self.billing.correction = Some(Correction { model: model.name, bill, queued });
    }

    /// Whether the provider of an attempt that ended so goes on writing the response, so that its usage is still to come.
    pub(super) const fn runs_on(&self, outcome: Outcome, tally: &Tally) -> bool {
        let is_accepted = match outcome {
            Outcome::Answered | Outcome::ClientGone => true,
            // The first event of a stream names the response that was accepted.
            Outcome::Truncated | Outcome::Garbled | Outcome::TooSlow => tally.stored != 0,
            _ => false,
        };
        let is_final = tally.usage.is_some() && !tally.uncounted;
        !is_final && (tally.queued || (self.body.said.background && is_accepted))
    }
}
