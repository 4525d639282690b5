//! Responses in the background (`background` of the Responses API): their provider accepts them and writes them later. The client reads
//! them elsewhere, so that their usage is not known when the request ends.

use std::rc::Rc;

use super::candidates::CandidateId;
use super::Exchange;
use crate::client_api::errors::{Rejection, Reply};
use crate::health::outcome::Outcome;
use crate::spend::budget::Budget;
use crate::spend::usage::Tally;

impl Exchange {
    /// Rules out the candidates whose budgets refuse responses in the background, if this is one.
    ///
    /// # Errors
    /// The reply if no candidate is left.
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
