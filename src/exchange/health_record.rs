//! What the outcome of an attempt does to the health record of its provider.

use std::time::Duration;

use super::{Current, Exchange};
use crate::base::clock::seconds_up;
use crate::base::store::{fingerprint, Contended};
use crate::health::breaker::Report;
use crate::health::outcome::Outcome;
use crate::selection::plan::{self, Change, Env};

impl Exchange {
    /// Writes the outcome of an attempt into the health record of its provider. Returns a line for the log, if there is one.
    pub(super) fn report(
        &self,
        current: Current,
        outcome: Outcome,
        retry_after: Option<Duration>,
        env: &mut Env<'_>,
    ) -> Option<String> {
        if self.config.is_shadow {
            // What happens to a shadow request must change nothing for anybody.
            return None;
        }
        let Current { candidate, permit, .. } = current;
        let provider = self.provider_of(candidate)?;
        let model = fingerprint([self.candidates.model(candidate)]);
        let report = Report { outcome, permit, retry_after, model };
        match plan::report(&self.config, provider, report, env) {
            Ok(Change::Nothing) => None,
            Ok(Change::Excluded(exclusion)) => {
                let seconds = seconds_up(exclusion.until.since(env.now));
                let (name, why) = (&provider.name, exclusion.reason.name());
                Some(format!("provider {name} is skipped for {seconds} s: {why}, after {}", outcome.name()))
            }
            Ok(Change::Closed) => {
                Some(format!("provider {} is back: its breaker is closed", provider.name))
            }
            Err(Contended) => Some(format!(
                "an outcome of {} could not be written into its health record, because too many requests write there",
                provider.name
            )),
        }
    }

    /// Gives back the permission of an attempt that says nothing about its provider. A permission that cannot be given back lapses by
    /// itself.
    pub(super) fn release_permit(&self, current: Current, env: &mut Env<'_>) {
        if let Some(provider) = self.provider_of(current.candidate).filter(|_| !self.config.is_shadow) {
            let _ = plan::release_permit(provider, current.permit, env);
        }
    }
}
