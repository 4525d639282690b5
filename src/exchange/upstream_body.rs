//! The body of a request, and what an attempt makes of it for its provider.

use std::rc::Rc;

use super::thoughts::Thoughts;
use crate::base::store::fingerprint;
use crate::bytes::headers::Headers;
use crate::bytes::splice::Splices;
use crate::client_api::request::{names_kept_object, Body, Endpoint, LongestAnswer};
use crate::dialects::anthropic;
use crate::dialects::dialect::{Dialect, Wire};
use crate::routing::provider::ProviderId;

/// A longer body, in bytes, is kept only if it may be translated, or until the filter itself has sent it.
pub(super) const LONGEST_KEPT: usize = 2 << 20;

/// The most bytes at the beginning and at the end of a body by which it is told from others.
const COMPARED: usize = 32 << 10;

/// A body that may be translated counts as this many times its length: the body, its translation, and what the translator needs.
const TRANSLATED: usize = 3;

/// The client's body with everything that is sent in its place. At most one translation is kept: that of the candidate that was
/// [prepared](Self::prepare) last.
#[derive(Debug, Default)]
pub(super) struct UpstreamBody {
    /// What was read from the client's body.
    pub(super) said: Body,
    /// The text is kept, and there is room for it in another format.
    translates: bool,
    /// The whole body in the format of the candidate that was prepared last, if that is not OpenAI's.
    translated: Option<Vec<u8>>,
    /// The client's headers, if a candidate may receive any of them.
    headers: Headers,
    /// What is still to be known of a text that was dropped.
    dropped: Option<Dropped>,
    /// The changes of the history that providers need in a text that was dropped.
    changes: Vec<(ProviderId, Splices)>,
    /// The reasoning items in it.
    pub(super) thoughts: Thoughts,
}

/// What is known of a text that was dropped.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    fingerprint: u64,
    names_kept_object: bool,
}

impl UpstreamBody {
    pub(super) fn new(said: Body) -> Self {
        Self { said, ..Self::default() }
    }

    /// Keeps the client's headers.
    pub(super) fn keep_headers(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// The client's headers, as far as they were kept.
    pub(super) const fn headers(&self) -> &Headers {
        &self.headers
    }

    // What is kept

    /// Says whether any candidate needs a translation, and how many bytes may be kept for one.
    pub(super) fn allow_translation(&mut self, needed: bool, room: usize) {
        self.translates = needed && self.said.len.saturating_mul(TRANSLATED) <= room;
    }

    /// Whether [`Self::drop_beyond`] will drop the text.
    pub(super) fn is_beyond(&self, room: usize) -> bool {
        self.dropped.is_none() && !self.translates && self.said.len > room.min(LONGEST_KEPT)
    }

    /// Keeps the changes of the history that a provider needs in a text that is about to be dropped.
    pub(super) fn keep_changes(&mut self, provider: ProviderId, dialect: &Dialect, model: &str) {
        let mut changes = Splices::default();
        dialect.fix_history(&self.said, model, &mut changes);
        if !changes.is_empty() {
            self.changes.push((provider, changes));
        }
    }

    /// Drops a text that is longer than `room`, unless it may still be translated. What was read from it stays known. `asking` is the
    /// endpoint, if other candidates may be asked about a refusal.
    pub(super) fn drop_beyond(&mut self, room: usize, asking: Option<Endpoint>) {
        if !self.translates && self.said.len > room.min(LONGEST_KEPT) {
            if self.dropped.is_none() {
                let names_kept_object = asking.is_none_or(|endpoint| self.names_kept_object(endpoint));
                self.dropped = Some(Dropped { fingerprint: self.fingerprint(), names_kept_object });
            }
            self.said.drop_text();
        }
    }

    /// A hash by which this body is told from others. Of a long one only the beginning, the end and the length count.
    pub(super) fn fingerprint(&self) -> u64 {
        if let Some(dropped) = self.dropped {
            return dropped.fingerprint;
        }
        let text = self.said.input.body();
        let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let start = boundary(COMPARED).unwrap_or_default();
        let end = boundary(text.len().saturating_sub(COMPARED)).unwrap_or_default().max(start);
        let parts = [text.get(..start), text.get(end..)].map(Option::unwrap_or_default);
        fingerprint(parts) ^ self.said.len as u64
    }

    /// Whether the request names an object that one provider keeps.
    pub(super) fn names_kept_object(&self, endpoint: Endpoint) -> bool {
        match self.dropped {
            Some(dropped) => dropped.names_kept_object,
            None => names_kept_object(self.said.input.body(), endpoint),
        }
    }

    /// Drops the text of a request that is over.
    pub(super) fn drop_text(&mut self) {
        self.said.input = Rc::default();
    }

    /// The client's body; empty if it was dropped.
    pub(super) fn text(&self) -> &[u8] {
        self.said.input.body().as_bytes()
    }

    /// The bytes that are kept until the request is over.
    pub(super) fn kept(&self) -> usize {
        self.text().len().saturating_mul(if self.translates { TRANSLATED } else { 1 })
    }

    // What is sent

    /// Prepares the body for a provider that speaks `wire`, and whose model gives answers of at most `longest`.
    ///
    /// # Errors
    /// Why its API cannot express the request, or why the body cannot be translated.
    pub(super) fn prepare(&mut self, wire: Wire, model: &str, longest: LongestAnswer) -> Result<(), String> {
        // First of all, so that there are never two, and none is left if this one fails.
        self.translated = None;
        self.translated = match wire {
            Wire::OpenAi => None,
            Wire::Anthropic if !self.translates => return Err("the request was not kept".to_owned()),
            Wire::Anthropic => {
                Some(anthropic::request(self.text(), model, longest).map_err(|error| error.message)?)
            }
        };
        Ok(())
    }

    /// Forgets the translation.
    pub(super) fn unprepare(&mut self) {
        self.translated = None;
    }

    /// The whole body for the prepared provider, if its format is not OpenAI's.
    pub(super) fn translated(&self) -> Option<&[u8]> {
        self.translated.as_deref()
    }

    /// The changes of the client's body that a provider needs.
    pub(super) fn splices(
        &self,
        provider: ProviderId,
        dialect: &Dialect,
        endpoint: Endpoint,
        model: &str,
        longest: LongestAnswer,
    ) -> Splices {
        if self.translated.is_some() {
            return Splices::default();
        }
        let mut splices = dialect.splices(&self.said, endpoint, model);
        if let Some((_, changes)) = self.changes.iter().find(|(other, _)| *other == provider) {
            splices.extend(changes);
        }
        for limit in &self.said.limits {
            // Added last, so that it does not take the place of a value that the dialect sets or removes.
            if let Some(tokens) = longest.lowered(limit.tokens) {
                splices.add(limit.place.clone(), tokens.to_string());
            }
        }
        splices
    }

    /// The length of what is sent, in bytes. `splices` are the changes of the client's body.
    pub(super) fn sent_len(&self, splices: &Splices) -> usize {
        match &self.translated {
            Some(body) => body.len(),
            None => splices.len_after(self.said.len),
        }
    }
}
