//! The order in which the candidates of a request are tried, by the route's policy, and the reasons for it.

use std::rc::Rc;

use super::candidates::{CandidateId, Candidates};
use super::{Current, Exchange, Phase};
use crate::base::clock::Timestamp;
use crate::base::store::fingerprint;
use crate::client_api::errors::{Rejection, Reply};
use crate::config::{Config, Route};
use crate::routing::policy::weighted::Sticky;
use crate::routing::policy::{balanced, cost, latency, quality, weighted, Kind, Policy, Ranked};
use crate::routing::provider::{Provider, ProviderId, Score};
use crate::selection::ledger::Series;
use crate::selection::plan::{Candidate, Env};
use crate::selection::stored;
use crate::spend::cost::Money;

/// How the candidates are ordered, and with what result.
#[derive(Debug)]
pub(super) struct Ranking {
    policy: Rc<Policy>,
    /// The policy of this request.
    kind: Kind,
    /// The value of the request header that the policy is `sticky` to.
    header: Option<Vec<u8>>,
    /// The reason for the place of each candidate; empty if the order of the configuration was kept.
    why: Vec<(ProviderId, String)>,
    /// The providers whose price is above a cap, with the reason.
    refused: Vec<(ProviderId, &'static str)>,
    /// The provider that the policy `weighted` has drawn.
    arm: Option<ProviderId>,
    /// Whether the time that the client waited was noted.
    measured: bool,
}

impl Ranking {
    pub(super) const fn new(policy: Rc<Policy>, kind: Kind) -> Self {
        Self { policy, kind, header: None, why: Vec::new(), refused: Vec::new(), arm: None, measured: false }
    }

    /// Whether the policy of this request looks at what it is `sticky` to.
    const fn is_sticky(&self) -> bool {
        matches!(self.kind, Kind::Weighted | Kind::Latency | Kind::Balanced)
    }

    /// Whether a policy of the route needs to know how long its answers take.
    fn is_timed(&self) -> bool {
        self.policy.may_be(Kind::Latency) || self.policy.may_be(Kind::Balanced)
    }

    /// The policy's name.
    pub(super) const fn name(&self) -> &'static str {
        self.kind.name()
    }
}

/// The providers of a route that have the model, as far as the gateway can reach them.
pub(super) fn serving(
    config: &Config,
    route: &Route,
    model: &str,
    usable: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let resolve = |id: &ProviderId| {
        let provider = config.provider(*id).filter(|provider| usable(&provider.name))?;
        Some(Candidate { provider: *id, model: provider.resolve(model)? })
    };
    route.providers.iter().filter_map(resolve).collect()
}

impl Exchange {
    /// The request header that the policy is `sticky` to. If there is one, [`Self::stick_to`] should be called.
    pub fn sticky_header(&self) -> Option<String> {
        match &self.ranking.policy.weighted.sticky {
            Sticky::Header(name) if self.ranking.is_sticky() => Some(name.clone()),
            Sticky::Header(_) | Sticky::Tenant | Sticky::No => None,
        }
    }

    /// Sets the value of that header.
    pub fn stick_to(&mut self, value: Option<Vec<u8>>) {
        self.ranking.header = value;
    }

    /// A request that continues a stored response has one candidate: the provider that stores the response, or the first one if
    /// that is not known. No other provider could continue it.
    pub(super) fn keep_stored(&mut self, env: &mut Env<'_>) {
        let Some(id) = &self.body.said.stored else { return };
        let names = self.candidates.ids().map(|id| self.name_of(id));
        let keeper = stored::find(id, names, env.store);
        let kept = keeper.and_then(|keeper| self.candidate_named(keeper)).unwrap_or(Candidates::FIRST);
        self.candidates.arrange(std::iter::once(kept));
    }

    /// Puts the candidates into the order of the policy.
    ///
    /// # Errors
    /// The reply if all of them are above the policy's `max_price`.
    pub(super) fn order(&mut self, env: &mut Env<'_>) -> Result<(), Box<Reply>> {
        let policy = Rc::clone(&self.ranking.policy);
        let has_floor = matches!(self.ranking.kind, Kind::Cost | Kind::Latency | Kind::Balanced);
        let floor = policy.min_quality.filter(|_| has_floor);
        let below = floor.map_or_else(Vec::new, |floor| self.below(floor, env));
        match self.ranking.kind {
            Kind::Priority => {}
            Kind::Cost => self.order_by_cost(&policy.cost, env.now),
            // With a single candidate there is nothing to order, and nothing to learn from its being first.
            Kind::Latency | Kind::Weighted | Kind::Quality | Kind::Balanced if self.candidates.len() < 2 => {}
            Kind::Latency => self.order_by_latency(&policy.latency, None, &below, env),
            Kind::Balanced => {
                let known: Vec<balanced::CostAndQuality> =
                    self.candidates.ids().map(|id| self.balance(id, &below, env)).collect();
                let handicaps = balanced::handicaps(&known, policy.balance);
                self.order_by_latency(&policy.latency, Some(&handicaps), &below, env);
            }
            Kind::Weighted => self.order_by_weight(&policy.weighted, env),
            Kind::Quality => self.order_by_quality(env),
        }
        if let Some(floor) = floor.filter(|_| !below.is_empty()) {
            self.put_last(floor, &below);
        }
        if self.candidates.is_empty() {
            return Err(Box::new(Rejection::price_cap().reply()));
        }
        Ok(())
    }

    /// The cheapest candidate first, and those without a known price last.
    pub(super) fn order_by_cost(&mut self, caps: &cost::Caps, at: Timestamp) {
        let offers: Vec<Option<cost::Offer>> = self.candidates.ids().map(|id| self.offer(id, at)).collect();
        let (ranked, refused) = cost::order(&offers, caps);
        let providers: Vec<ProviderId> =
            self.candidates.iter().map(|(_, candidate)| candidate.provider).collect();
        let refused = refused.into_iter().filter_map(|(place, why)| Some((*providers.get(place)?, why)));
        self.ranking.refused.extend(refused);
        self.arrange(ranked);
    }

    /// What the policy `balanced` knows of a candidate beside its times.
    fn balance(&self, id: CandidateId, below: &[ProviderId], env: &mut Env<'_>) -> balanced::CostAndQuality {
        let score = self.quality(id, env).and_then(|known| known.score);
        let is_below = |candidate: &Candidate| below.contains(&candidate.provider);
        let below = self.candidates.get(id).is_some_and(is_below);
        balanced::CostAndQuality { cost: self.expected(id, env.now), score, below }
    }

    fn order_by_latency(
        &mut self,
        rules: &latency::Rules,
        handicaps: Option<&[u32]>,
        below: &[ProviderId],
        env: &mut Env<'_>,
    ) {
        let each = self.candidates.iter().enumerate();
        let runner = each.map(|(place, (id, candidate))| latency::Candidate {
            id: self.provider_of(id).map_or(0, |provider| provider.identity.fingerprint),
            measured: self
                .series(id)
                .map(|series| env.ledger.latency(&series, env.store, env.now))
                .unwrap_or_default(),
            preferred: rules.prefer.contains(&candidate.provider),
            below: below.contains(&candidate.provider),
            handicap: handicaps.and_then(|all| all.get(place).copied()),
        });
        let runners: Vec<latency::Candidate> = runner.collect();
        let chance =
            latency::Chance { random: env.random.u64(..), sticky: self.sticky_point(), now: env.now };
        self.arrange(latency::order(&runners, rules, chance));
    }

    /// The quality of a candidate: its evaluation, or else the configured score.
    fn quality(&self, id: CandidateId, env: &mut Env<'_>) -> Option<quality::Rating> {
        let (provider, candidate) = (self.provider_of(id)?, self.candidates.get(id)?);
        let name = &candidate.model.name;
        // A model that is allowed by `*` has no score of its own.
        let model = provider.models.get(candidate.model.entry).filter(|model| model.name == *name)?;
        let evaluated = self.config.evaluations.as_ref();
        let evaluated = evaluated.and_then(|_| env.ledger.evaluated(provider, name, env.store, env.now));
        Some(quality::Rating { score: evaluated.or(model.quality), evaluated: evaluated.is_some() })
    }

    fn order_by_quality(&mut self, env: &mut Env<'_>) {
        let all: Vec<quality::Rating> =
            self.candidates.ids().map(|id| self.quality(id, env).unwrap_or_default()).collect();
        self.arrange(quality::order(&all));
    }

    /// The candidates whose quality is below a floor.
    fn below(&self, floor: Score, env: &mut Env<'_>) -> Vec<ProviderId> {
        let mut is_below =
            |id: CandidateId| quality::is_below(floor, self.quality(id, env).and_then(|known| known.score));
        let below = self.candidates.iter().filter(|(id, _)| is_below(*id));
        below.map(|(_, candidate)| candidate.provider).collect()
    }

    /// Puts the candidates `below` a floor behind all others, and changes the order in no other way. They are tried if no other can be.
    fn put_last(&mut self, floor: Score, below: &[ProviderId]) {
        let why = |place: usize| self.ranking.why.get(place).map_or("", |(_, why)| why);
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for (place, (_, candidate)) in self.candidates.iter().enumerate() {
            let why = why(place);
            if below.contains(&candidate.provider) {
                let comma = if why.is_empty() { "" } else { ", " };
                last.push(Ranked { place, why: [why, comma, "below quality ", &floor.to_string()].concat() });
            } else {
                first.push(Ranked { place, why: why.to_owned() });
            }
        }
        first.append(&mut last);
        self.arrange(first);
    }

    fn order_by_weight(&mut self, rules: &weighted::Rules, env: &mut Env<'_>) {
        let weights: Vec<u32> =
            self.candidates.iter().map(|(_, candidate)| rules.weight(candidate.provider)).collect();
        let point = self.sticky_point().unwrap_or_else(|| env.random.u64(..));
        self.arrange(weighted::order(&weights, point));
        self.ranking.arm = self.candidates.first().map(|candidate| candidate.provider);
    }

    /// The same number for all requests that shall stay at one candidate.
    fn sticky_point(&self) -> Option<u64> {
        let value = match &self.ranking.policy.weighted.sticky {
            Sticky::No => None,
            Sticky::Tenant => Some(self.request.tenant.clone()),
            Sticky::Header(_) => {
                self.ranking.header.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
            }
        };
        // Clients without a value are not one client: each of their requests is drawn anew.
        let value = value.filter(|value| !value.is_empty())?;
        Some(fingerprint([&*self.request.route, value.as_str()]))
    }

    fn arrange(&mut self, ranked: Vec<Ranked>) {
        self.ranking.arm = None;
        self.ranking.why = self.candidates.rank(ranked);
    }

    /// What the request would cost at a candidate; `None` if its price is not known.
    pub(super) fn expected(&self, candidate: CandidateId, at: Timestamp) -> Option<Money> {
        let (input, output) = (self.body.said.input.tokens(), self.expected_output(candidate));
        self.candidates.get(candidate)?.model.price.as_ref()?.expected(input, output, at)
    }

    fn offer(&self, candidate: CandidateId, at: Timestamp) -> Option<cost::Offer> {
        let price = self.candidates.get(candidate)?.model.price.as_ref()?;
        let (input, output) = price.per_token(self.body.said.input.tokens(), at)?;
        Some(cost::Offer { cost: self.expected(candidate, at)?, input, output })
    }

    /// Under which name the times of a candidate for requests like this one are kept.
    fn series(&self, id: CandidateId) -> Option<Series> {
        let (provider, candidate) = (self.provider_of(id)?, self.candidates.get(id)?);
        let model = provider.models.get(candidate.model.entry)?;
        let (identity, window) = (provider.identity.fingerprint, self.ranking.policy.latency.window);
        Some(Series::new(&provider.name, identity, &model.name, self.live(), window))
    }

    /// Notes how long the client waited for an answer of this attempt, if a policy of the route needs it: until the first token of a live
    /// stream, and until the end of any other answer.
    pub(super) fn measure(&mut self, current: Current, over: bool, env: &mut Env<'_>) {
        if self.config.is_shadow {
            // A shadow request must not change the order for any client.
            return;
        }
        if self.ranking.measured || !self.ranking.is_timed() {
            return;
        }
        let end = if self.live() { self.attempts.first_token } else { Some(env.now).filter(|_| over) };
        let Some(end) = end else { return };
        self.ranking.measured = true;
        self.attempts.waiting = None;
        if let Some(series) = self.series(current.candidate) {
            env.ledger.note_latency(&series, end.since(current.started), env.store, env.now);
        }
    }

    /// Counts an attempt that is sent now among those that are waited for, if a policy of the route needs it.
    pub(super) fn count_waiting(&mut self, candidate: CandidateId, env: &mut Env<'_>) {
        if self.ranking.is_timed() && !self.config.is_shadow {
            let series = self.series(candidate);
            self.attempts.waiting = series.map(|series| env.ledger.wait(&series, env.store, env.now));
        }
    }

    /// More has come of an answer that was released at its head: notes the time of its first content, if that was not noted before.
    pub fn measure_late(&mut self, env: &mut Env<'_>) {
        if let Phase::Delivering(current) = self.attempts.phase() {
            self.measure(current, false, env);
        }
    }

    /// The reason for the place of each candidate, by the provider's name.
    pub(super) fn why(&self) -> Vec<(&str, &str)> {
        self.ranking.why.iter().map(|(id, why)| (self.provider_name(*id), why.as_str())).collect()
    }

    /// The providers that are no candidates because their price is above a cap, by name.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.ranking.refused.iter().map(|(id, why)| (self.provider_name(*id), *why))
    }

    /// The name of the provider that the policy `weighted` has drawn.
    pub(super) fn arm(&self) -> Option<&str> {
        self.ranking.arm.map(|id| self.provider_name(id))
    }

    pub(super) fn provider_name(&self, id: ProviderId) -> &str {
        self.config.provider(id).map_or("?", |provider: &Provider| &provider.name)
    }
}
