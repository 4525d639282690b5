//! What the attempt under way sends to its provider, and what its answer is held against.

use std::rc::Rc;

use super::{Exchange, Phase};
use crate::bytes::digits;
use crate::bytes::headers::Headers;
use crate::bytes::splice::Splices;
use crate::dialects::dialect::Wire;
use crate::dialects::schema::Defaults;
use crate::response::asked::Asked;
use crate::routing::rewrite::UpstreamRequest;
use crate::selection::plan::Candidate;

/// A longer body is kept only for those who get it from here.
const LONGEST_KEPT: usize = 2 << 20;

/// A body that may be translated takes so many times its length, with its translation and what that is made of.
const TRANSLATED: usize = 3;

impl Exchange {
    /// Whether any candidate may receive headers of the client: then [`Self::keep_headers`] must be called.
    pub fn wants_headers(&self) -> bool {
        let allows = |candidate: &Candidate| {
            self.config
                .provider(candidate.provider)
                .is_some_and(|provider| !provider.allow_headers.is_empty())
        };
        self.candidates.iter().any(allows)
    }

    /// Keeps the client's headers: after the first attempt the gateway's map holds only what that one sent.
    pub fn keep_headers(&mut self, client: Headers) {
        self.client = client;
    }

    /// The client's headers, as far as they were kept.
    pub const fn client_headers(&self) -> &Headers {
        &self.client
    }

    /// Keeps the client's body, or lets go of one that is long and that nobody needs: it is counted then. `room` is how many
    /// bytes may be kept; without room for the body and its translation, who speaks another format cannot be asked. `sent`:
    /// the gateway itself has no copy that it could send.
    pub fn keep_body(&mut self, room: usize, sent: bool) {
        self.translates = self.may_translate() && self.body.len.saturating_mul(TRANSLATED) <= room;
        if !sent {
            self.let_go_beyond(room);
        }
    }

    /// The body has gone out and is not sent from here again: a long one is let go of, unless it may still be translated.
    pub fn body_sent(&mut self) {
        self.let_go_beyond(LONGEST_KEPT);
    }

    fn let_go_beyond(&mut self, room: usize) {
        if !self.translates && self.body.len > room.min(LONGEST_KEPT) {
            self.body.drop_text();
        }
    }

    /// Whether a candidate speaks another format.
    pub(super) fn may_translate(&self) -> bool {
        (0..self.candidates.len()).any(|place| self.wire_of(place) != Wire::OpenAi)
    }

    /// Nobody is asked any more.
    pub fn drop_body(&mut self) {
        self.body.input = Rc::default();
    }

    /// The client's body; empty if it was let go of.
    pub fn body(&self) -> &[u8] {
        self.body.input.body().as_bytes()
    }

    /// The changes that this attempt's provider needs in the body.
    pub fn splices(&self) -> Splices {
        let Phase::Asking { candidate, .. } = self.phase else { return Splices::default() };
        let found = self.candidates.get(candidate).zip(self.provider_of(candidate));
        let Some((found, provider)) = found.filter(|_| self.translated.is_none()) else {
            return Splices::default();
        };
        provider.dialect.splices(&self.body, self.endpoint, &found.model.name)
    }

    /// The whole body for this attempt's provider, if it speaks another format.
    pub fn translated(&self) -> Option<&[u8]> {
        self.translated.as_deref()
    }

    /// What this attempt asks for. `splices` are its changes of the body.
    pub fn ask(&self, splices: &Splices) -> UpstreamRequest<'_> {
        let Phase::Asking { candidate, .. } = self.phase else {
            return UpstreamRequest { endpoint: self.endpoint, model: "", stream: false, body_len: 0 };
        };
        let body_len = match &self.translated {
            Some(body) => body.len(),
            None => splices.len_after(self.body.len),
        };
        let model = self.candidates.get(candidate).map_or("", |candidate| &candidate.model.name);
        UpstreamRequest { endpoint: self.endpoint, model, stream: self.body.stream, body_len }
    }

    /// What the answer of this attempt is held against.
    pub fn asked(&self) -> Option<Asked> {
        let Phase::Asking { candidate, started, .. } = self.phase else { return None };
        let provider = self.provider_of(candidate)?;
        let model = self.candidates.get(candidate)?.model.name.clone();
        let created = started.as_millis() / 1000;
        let mut id = String::with_capacity(25);
        id.push_str("chatcmpl-");
        digits::push_hex(&mut id, self.account.number);
        Some(Asked {
            endpoint: self.endpoint,
            stream: self.body.stream,
            usage: self.body.wants_usage(),
            release: self.release,
            wire: provider.dialect.wire,
            defaults: Defaults { id, created, model, input: Rc::clone(&self.body.input) },
            key: provider.api_key.clone(),
        })
    }

    /// The key of the provider that is asked, which no error may echo.
    pub fn key(&self) -> String {
        self.provider().map_or_else(String::new, |provider| provider.api_key.secret().to_owned())
    }

    /// Whether the trace context goes to providers.
    pub fn traces(&self) -> bool {
        self.config.trace_context
    }

    /// Whether the client asked for a stream.
    pub const fn stream(&self) -> bool {
        self.body.stream
    }

    /// The bytes that the request keeps until it is over.
    pub fn kept(&self) -> usize {
        self.body().len().saturating_mul(if self.translates { TRANSLATED } else { 1 })
    }

    /// How much of an answer may be held back, in bytes.
    pub fn max_held(&self) -> usize {
        self.config.sizes.max_held
    }
}
