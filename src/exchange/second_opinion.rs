//! Second opinions: a refusal that no list explains is asked of the next candidate, because only another provider can tell whether the
//! request or the refusing provider is at fault.
//!
//! Two more kinds of refusals are asked about: one that is known to be about what this provider takes, such as its longest answer; and
//! every one that comes after another candidate has failed, or was skipped for its health or its budget. The conversation may have been
//! made for that one, and who refuses its history is not the last who can continue it. `retry.second_opinion` does not switch these two
//! off, and a refusal after a failure holds nobody.
//!
//! An answer disproves the refusal. A refusal confirms it, and the client gets the first one, which is kept until then. A failure is no
//! opinion: the candidate after it is asked. If nobody is left, the client gets the first refusal, too. The attempts for a second
//! opinion count among `retry.attempts`, and no candidate is tried for one that its breaker or a hold excludes.
//!
//! The refusal of a conversation that is too long for its candidate is kept in the same way, without being asked about.

use super::candidates::CandidateId;
use super::{Exchange, Next, Phase};
use crate::client_api::errors::{error_envelope, is_envelope, json_type, Reply};
use crate::client_api::request::Endpoint;
use crate::health::breaker::Refusal;
use crate::health::outcome::{ErrorBody, Outcome, Verdict};
use crate::record::audit::Opinion;
use crate::selection::plan::{self, Env};

/// The most bytes of a refusal that are kept until the request is over.
const LONGEST_KEPT: usize = 64 << 10;

/// What is known of the first refusal of a request, and of what others said about it.
#[derive(Debug, Default)]
pub(super) struct SecondOpinion {
    /// Another candidate may be asked about a refusal that no list explains.
    is_allowed: bool,
    /// The gateway cannot keep a refusal until others were asked: the one that came last goes out, and only refusals that are not a
    /// matter of opinion are asked about.
    cannot_keep: bool,
    first: Option<FirstRefusal>,
    /// The opinion, and the place of the attempt that it is about.
    given: Option<(usize, Opinion)>,
}

/// A refusal after which another candidate was asked.
#[derive(Debug)]
struct FirstRefusal {
    /// How many attempts there were before it.
    place: usize,
    candidate: CandidateId,
    why: Why,
    /// What the client gets if nobody answers.
    reply: Option<Reply>,
}

/// Why others were tried after a refusal.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// The request was only too long for this candidate.
    TooLong,
    /// They are asked about the refusal. What they say is evidence about this one, unless the refusal is explained without it.
    Asked(Option<Refusal>),
}

/// The response with a refusal, as the gateway has it.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The provider's status.
    pub status: u16,
    /// The body of the response, as far as it was read.
    pub body: &'a [u8],
    /// The error in it.
    pub error: &'a ErrorBody,
    /// The provider's id of the request.
    pub request_id: Option<String>,
}

impl SecondOpinion {
    /// `is_allowed`: another candidate may be asked about a refusal that no list explains.
    pub(super) const fn new(is_allowed: bool) -> Self {
        Self { is_allowed, cannot_keep: false, first: None, given: None }
    }

    /// The gateway cannot keep a refusal until others were asked.
    pub(super) fn never_keep(&mut self) {
        self.cannot_keep = true;
    }

    /// Whether other candidates are asked about a refusal.
    pub(super) fn is_sought(&self) -> bool {
        self.first.as_ref().is_some_and(|first| matches!(first.why, Why::Asked(_)))
    }

    /// The opinion, and the place of the attempt that it is about.
    pub(super) const fn given(&self) -> Option<(usize, Opinion)> {
        self.given
    }
}

impl Exchange {
    /// A candidate has refused the request. Others are asked about the refusal, or the client gets it.
    pub(super) fn after_refusal(
        &mut self,
        candidate: CandidateId,
        verdict: &Verdict,
        env: &mut Env<'_>,
    ) -> Next {
        if self.second_opinion.is_sought() {
            // A conflict at this provider, or a tool server that failed, says nothing about the request.
            let may_go_on = !self.second_opinion.cannot_keep;
            if may_go_on
                && verdict.outcome == Outcome::BadRequest
                && matches!(verdict.status, Some(409 | 424))
            {
                return self.next(env);
            }
            self.note_opinion(Opinion::Confirmed, env);
            if self.second_opinion.cannot_keep {
                return self.deliver(candidate, env);
            }
            self.attempts.finish(false);
            return Next::Fail;
        }
        if let Some(evidence) = self.questionable(candidate, verdict, env) {
            let earlier = self.second_opinion.first.take();
            self.keep_first(candidate, Why::Asked(evidence));
            match self.next(env) {
                Next::Fail => self.second_opinion.first = earlier,
                next => return next,
            }
        }
        self.deliver(candidate, env)
    }

    /// The conversation was too long for a candidate. Others with more room are tried, or the client gets the provider's error.
    pub(super) fn after_too_long(
        &mut self,
        candidate: CandidateId,
        verdict: &Verdict,
        env: &mut Env<'_>,
    ) -> Next {
        self.candidates.note_outcome(candidate, Outcome::TooLong);
        match self.next_or_wait(verdict, env) {
            Next::Fail if self.second_opinion.is_sought() && !self.second_opinion.cannot_keep => Next::Fail,
            Next::Fail => self.deliver(candidate, env),
            next => {
                if self.second_opinion.first.is_none() {
                    self.keep_first(candidate, Why::TooLong);
                }
                next
            }
        }
    }

    /// The endpoint, if other candidates may be asked about a refusal of this request.
    pub(super) fn may_ask_others(&self) -> Option<Endpoint> {
        let may = !self.config.is_shadow && self.candidates.len() > 1;
        may.then_some(self.request.endpoint)
    }

    fn keep_first(&mut self, candidate: CandidateId, why: Why) {
        let place = self.attempts.all().len().saturating_sub(1);
        self.second_opinion.first = Some(FirstRefusal { place, candidate, why, reply: None });
    }

    /// The gateway itself has gone on to another candidate after this attempt. If it was refused, the others are asked about that.
    pub(super) fn note_refusal_before(&mut self, candidate: CandidateId, verdict: &Verdict) {
        if verdict.outcome == Outcome::BadRequest && !self.second_opinion.is_sought() {
            self.keep_first(candidate, Why::Asked(None));
        }
    }

    /// The gateway itself delivers the error of the attempt that has just ended.
    pub(super) fn note_refusal_after(&mut self, verdict: &Verdict, env: &mut Env<'_>) {
        if self.second_opinion.is_sought()
            && matches!(verdict.outcome, Outcome::BadRequest | Outcome::Refused)
        {
            self.note_opinion(Opinion::Confirmed, env);
        }
    }

    /// Whether another candidate was tried before this one. As long as no refusal is asked about, each of them has failed.
    pub(super) fn has_failed_before(&self, candidate: CandidateId) -> bool {
        self.attempts.all().iter().any(|earlier| earlier.candidate != candidate)
    }

    /// Whether another candidate should be asked about a refusal and, within, of what the answer is evidence.
    #[inline(never)]
    #[expect(clippy::option_option, reason = "the outer says whether to ask, the inner what to write down")]
    fn questionable(
        &self,
        candidate: CandidateId,
        verdict: &Verdict,
        env: &mut Env<'_>,
    ) -> Option<Option<Refusal>> {
        if verdict.outcome != Outcome::BadRequest || self.may_ask_others().is_none() {
            return None;
        }
        let doubt = verdict.doubt.as_ref();
        let has_failed = self.has_failed_before(candidate);
        let unexplained = doubt.filter(|doubt| !has_failed && !doubt.others_may_accept);
        let refusal = unexplained.map(|doubt| self.refusal(verdict.status, doubt));
        if has_failed || self.candidates.was_passed_over() {
            return Some(refusal);
        }
        let may_be_elsewhere =
            self.body.said.stored.is_none() && !self.body.names_kept_object(self.request.endpoint);
        if doubt.is_none() || !may_be_elsewhere {
            return None;
        }
        let Some(refusal) = refusal else { return Some(None) };
        if !self.second_opinion.is_allowed || self.second_opinion.cannot_keep {
            return None;
        }
        let believed = plan::is_believed(
            &self.config,
            self.provider_of(candidate)?,
            self.model_key(candidate),
            refusal,
            env,
        );
        (!believed).then_some(Some(refusal))
    }

    /// A candidate answers: it disproves the refusal that it was asked about.
    pub(super) fn note_answer(&mut self, env: &mut Env<'_>) {
        if self.second_opinion.is_sought() {
            self.note_opinion(Opinion::Disproved, env);
        }
        self.second_opinion.first = None;
    }

    /// Notes an opinion about the first refusal, in the health record of the provider that refused.
    #[inline(never)]
    fn note_opinion(&mut self, opinion: Opinion, env: &mut Env<'_>) {
        let Some(FirstRefusal { place, candidate, why: Why::Asked(evidence), .. }) =
            self.second_opinion.first
        else {
            return;
        };
        self.second_opinion.given = Some((place, opinion));
        let Some(refusal) = evidence else { return };
        let Some(provider) = self.provider_of(candidate) else { return };
        let is_disproved = opinion == Opinion::Disproved;
        let model = self.model_key(candidate);
        let noted = plan::note_opinion(&self.config, provider, model, refusal, is_disproved, env);
        let line = match noted {
            Ok(plan::Noted { excluded: Some(excluded), .. }) => {
                Some(self.skipped(candidate, excluded, "requests that other providers answered", env.now))
            }
            Ok(plan::Noted { is_news: true, .. }) => {
                let by = self.attempts.last().map_or("?", |last| self.name_of(last.candidate));
                Some(["provider ", &provider.name, " has refused a request that ", by, " answers"].concat())
            }
            Ok(_) => None,
            Err(_) => Some(self.not_written(candidate)),
        };
        let why = self.attempts.all().get(place).map(|attempt| described(&attempt.verdict));
        self.billing.note_line(line.map(|line| [line, why.unwrap_or_default()].concat()));
    }

    // What the client gets

    /// Whether the attempt that has just ended is a first refusal: then [`Self::keep_refusal`] must be called before its response is
    /// gone.
    pub fn wants_refusal(&self) -> bool {
        let last = self.attempts.all().len();
        self.second_opinion
            .first
            .as_ref()
            .is_some_and(|first| first.reply.is_none() && first.place + 1 == last)
    }

    /// Keeps the first refusal in the form in which the client gets it. `key` is the provider's.
    #[inline(never)]
    pub fn keep_refusal(&mut self, refused: Refused<'_>, key: &str) {
        let Refused { status, body, error, request_id } = refused;
        let came_as_error = status >= 400;
        let status = if came_as_error { status } else { 400 };
        let body = if came_as_error && body.len() <= LONGEST_KEPT && is_envelope(body, key) {
            body.to_vec()
        } else {
            let made = error_envelope(error, status, key);
            if made.len() > LONGEST_KEPT {
                error_envelope(&ErrorBody::default(), status, key)
            } else {
                made
            }
        };
        let id = request_id.map(|id| ("x-request-id", id));
        let headers = std::iter::once(json_type()).chain(id).collect();
        if let Some(first) = &mut self.second_opinion.first {
            first.reply = Some(Reply { status, headers, body });
        }
    }

    /// The place of the attempt whose refusal the client gets, or got, although others were tried after it.
    pub(super) fn refused_at(&self) -> Option<usize> {
        let first = self.second_opinion.first.as_ref().filter(|first| first.reply.is_some())?;
        matches!(self.attempts.phase(), Phase::Over { delivered: false } | Phase::Chosen(_))
            .then_some(first.place)
    }

    /// The first refusal, if that is what the client gets.
    pub(super) fn first_refusal(&self, env: &Env<'_>) -> Option<Reply> {
        self.refused_at()?;
        let first = self.second_opinion.first.as_ref()?;
        let mut reply = first.reply.clone()?;
        reply.headers.extend(self.headers(first.candidate, env.now));
        Some(reply)
    }
}

/// A refusal in the words of the log: its status and its code, and never its message, which may repeat the prompt.
#[inline(never)]
pub(super) fn described(verdict: &Verdict) -> String {
    let status = verdict.status.unwrap_or_default();
    match verdict.doubt.as_ref().map(|doubt| doubt.code.as_str()) {
        None | Some("") => format!(" (status {status}, no code)"),
        Some(code) => format!(" (status {status}, code {code:?})"),
    }
}
