//! What the outcome of an attempt does to the health record of its provider.

use super::candidates::CandidateId;
use super::second_opinion::described;
use super::{Current, Exchange};
use crate::base::clock::{seconds_up, Timestamp};
use crate::base::store::Contended;
use crate::health::breaker::{Exclusion, Refusal, Report};
use crate::health::outcome::{Doubt, Verdict};
use crate::selection::plan::{self, Change, Env};

impl Exchange {
    /// Writes the outcome of an attempt into the health record of its provider. Returns a line for the log, if there is one.
    pub(super) fn report(&self, current: Current, verdict: &Verdict, env: &mut Env<'_>) -> Option<String> {
        if self.config.is_shadow {
            // What happens to a shadow request must change nothing for anybody.
            return None;
        }
        let Current { candidate, permit, .. } = current;
        let provider = self.provider_of(candidate)?;
        let model = self.model_key(candidate);
        let Verdict { outcome, retry_after, .. } = *verdict;
        let doubt = verdict.doubt.as_ref().filter(|_| outcome.needs_evidence());
        let refusal = doubt.map(|doubt| self.refusal(verdict.status, doubt));
        let report = Report { outcome, permit, retry_after, model, refusal };
        match plan::report(&self.config, provider, report, env) {
            Ok(Change::Nothing) => None,
            Ok(Change::Excluded(exclusion)) => {
                let proof = doubt.map_or_else(String::new, |_| {
                    [" for several requests in a row", &described(verdict)].concat()
                });
                let after = [outcome.name(), &proof].concat();
                Some(self.skipped(candidate, exclusion, &after, env.now))
            }
            Ok(Change::Closed) => Some(format!("provider {} is back: its breaker is closed", provider.name)),
            Err(Contended) => Some(self.not_written(candidate)),
        }
    }

    /// The line for the log if a provider is excluded from now on.
    pub(super) fn skipped(
        &self,
        candidate: CandidateId,
        exclusion: Exclusion,
        after: &str,
        now: Timestamp,
    ) -> String {
        let seconds = seconds_up(exclusion.until.since(now));
        let (name, why) = (self.name_of(candidate), exclusion.reason.name());
        format!("provider {name} is skipped for {seconds} s: {why}, after {after}")
    }

    /// The line for the log if an outcome is lost.
    pub(super) fn not_written(&self, candidate: CandidateId) -> String {
        format!(
            "an outcome of {} could not be written into its health record, because too many requests write there",
            self.name_of(candidate)
        )
    }

    /// The name of a candidate's model at this request's endpoint in the health record of its provider.
    pub(super) fn model_key(&self, candidate: CandidateId) -> u64 {
        plan::model_key(self.candidates.model(candidate), self.request.endpoint)
    }

    /// A refusal of this request that no list explains.
    pub(super) fn refusal(&self, status: Option<u16>, doubt: &Doubt) -> Refusal {
        Refusal::new(status, doubt, self.body.fingerprint())
    }

    /// Gives back the permission of an attempt that says nothing about its provider. A permission that cannot be given back lapses by
    /// itself.
    pub(super) fn release_permit(&self, current: Current, env: &mut Env<'_>) {
        if let Some(provider) = self.provider_of(current.candidate).filter(|_| !self.config.is_shadow) {
            let _ = plan::release_permit(provider, current.permit, env);
        }
    }
}
