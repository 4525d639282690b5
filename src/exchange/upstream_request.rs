//! What the attempt under way sends to its provider, and what must be known to judge its answer.

use std::rc::Rc;

use super::candidates::CandidateId;
use super::upstream_body::LONGEST_KEPT;
use super::Exchange;
use crate::bytes::headers::Headers;
use crate::bytes::splice::Splices;
use crate::client_api::request::Endpoint;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::response::asked::Asked;
use crate::routing::rewrite::UpstreamRequest;
use crate::selection::plan::Candidate;
use crate::spend::usage::Served;

impl Exchange {
    /// Whether any candidate may receive headers of the client: then [`Self::keep_headers`] must be called.
    pub fn wants_headers(&self) -> bool {
        let allows = |candidate: &Candidate| {
            self.config
                .provider(candidate.provider)
                .is_some_and(|provider| !provider.allow_headers.is_empty())
        };
        self.candidates.iter().any(|(_, candidate)| allows(candidate))
    }

    /// Keeps the client's headers, because the gateway replaces them by those of the first attempt.
    pub fn keep_headers(&mut self, client: Headers) {
        self.body.keep_headers(client);
    }

    /// The client's headers, as far as they were kept.
    pub const fn client_headers(&self) -> &Headers {
        self.body.headers()
    }

    /// Keeps the client's body, or drops a long one that is not needed. `room` is how many bytes may be kept: without room for the
    /// body and its translation, providers with another format cannot be tried. `sent`: the filter itself will send the body
    /// (APISIX's calls), because the gateway does not.
    pub fn keep_body(&mut self, room: usize, sent: bool) {
        self.body.allow_translation(self.may_translate(), room);
        if !sent {
            self.drop_beyond(room);
        }
    }

    /// The body has gone out and is not sent from here again: a long one is dropped, unless it may still be translated.
    pub fn body_sent(&mut self) {
        self.drop_beyond(LONGEST_KEPT);
    }

    /// Drops a text that is longer than `room`. What the candidates need changed in its history is read before.
    fn drop_beyond(&mut self, room: usize) {
        if self.request.endpoint == Endpoint::Chat && self.body.is_beyond(room) {
            for (_, candidate) in self.candidates.iter() {
                if let Some(provider) = self.config.provider(candidate.provider) {
                    self.body.keep_changes(candidate.provider, &provider.dialect, &candidate.model.name);
                }
            }
        }
        // On APISIX the request has not started, so that nobody has read them.
        if self.attempts.current().is_none() && self.body.is_beyond(room) {
            self.read_thoughts();
        }
        self.body.drop_beyond(room, self.may_ask_others());
    }

    /// Whether any candidate has another format than OpenAI's.
    pub(super) fn may_translate(&self) -> bool {
        self.candidates.ids().any(|id| self.wire_of(id) != Wire::OpenAi)
    }

    /// Prepares the body for a candidate.
    ///
    /// # Errors
    /// Why its API cannot express the request.
    pub(super) fn prepare(&mut self, candidate: CandidateId) -> Result<(), String> {
        if self.request.pass.is_some() {
            return Ok(());
        }
        let wire = self.wire_of(candidate);
        let longest = self.longest_of(candidate);
        self.body.prepare(wire, self.candidates.model(candidate), longest)
    }

    /// No other attempt is sent: the text of the body is dropped.
    pub fn drop_body(&mut self) {
        self.body.drop_text();
    }

    /// The client's body; empty if it was dropped.
    pub fn body(&self) -> &[u8] {
        self.body.text()
    }

    /// The changes that this attempt's provider needs in the body.
    pub fn splices(&self) -> Splices {
        let Some(current) = self.attempts.undecided() else { return Splices::default() };
        let Some(candidate) = self.candidates.get(current.candidate) else { return Splices::default() };
        let Some(provider) = self.config.provider(candidate.provider) else { return Splices::default() };
        let (dialect, model) = (&provider.dialect, &candidate.model.name);
        let longest = self.longest_of(current.candidate);
        let endpoint = self.request.endpoint;
        let mut splices = self.body.splices(candidate.provider, dialect, endpoint, model, longest);
        self.hide_thoughts(provider, &mut splices);
        splices
    }

    /// The whole body for this attempt's provider, if its format is not OpenAI's.
    pub fn translated(&self) -> Option<&[u8]> {
        self.body.translated()
    }

    /// What the headers of this attempt must say. `splices` are its changes of the body.
    pub fn ask(&self, splices: &Splices) -> UpstreamRequest<'_> {
        let endpoint = self.request.endpoint;
        let Some(current) = self.attempts.undecided() else {
            return UpstreamRequest { endpoint, model: "", stream: false, body_len: 0 };
        };
        UpstreamRequest {
            endpoint,
            model: self.candidates.model(current.candidate),
            stream: self.body.said.stream,
            body_len: self.body.sent_len(splices),
        }
    }

    /// What must be known of the request to judge the answer of this attempt.
    pub fn asked(&self) -> Option<Asked> {
        let current = self.attempts.undecided()?;
        let provider = self.provider_of(current.candidate)?;
        let model = self.candidates.model(current.candidate).to_owned();
        let created = current.started.as_millis() / 1000;
        let mut id = String::with_capacity(25);
        id.push_str(if self.request.endpoint == Endpoint::Responses { "resp_" } else { "chatcmpl-" });
        // Sixteen hexadecimal digits; the formatting of the standard library costs hundreds of instructions.
        let digit = |place: u32| char::from_digit((self.request.number >> (place * 4)) as u32 & 0xF, 16);
        id.extend((0..16).rev().filter_map(digit));
        Some(Asked {
            endpoint: self.request.endpoint,
            stream: self.body.said.stream,
            usage: self.body.said.wants_usage(),
            release: self.request.release,
            wire: provider.dialect.wire,
            defaults: Defaults {
                id,
                created,
                model,
                input: Rc::clone(&self.body.said.input),
                served: Served::default(),
            },
            key: provider.api_key.clone(),
        })
    }

    /// The key of the provider that is tried, which no error may repeat.
    pub fn key(&self) -> String {
        self.provider().map_or_else(String::new, |provider| provider.api_key.secret().to_owned())
    }

    /// Whether the trace context goes to providers.
    pub fn traces(&self) -> bool {
        self.config.trace_context
    }

    /// Whether the client asked for a stream.
    pub const fn stream(&self) -> bool {
        self.body.said.stream
    }

    /// The bytes that the request keeps until it is over.
    pub fn kept(&self) -> usize {
        self.body.kept()
    }

    /// How many bytes of an answer may be withheld.
    pub fn max_held(&self) -> usize {
        self.config.sizes.max_held
    }
}
