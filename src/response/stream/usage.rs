//! The usage that the client of a stream is told: once, before the end, and only if it asked for it.

use crate::dialects::schema::chat::Form;
use crate::dialects::schema::Defaults;
use crate::spend::reported::Reported;

/// The chunk with the usage of a stream. Vendors tell the usage in the last chunk, in every chunk, or several times. The client gets the
/// last report that says no less than those before it, as the provider told it, unless content came after it.
#[derive(Debug)]
pub(super) struct UsageChunk {
    /// The client asked for it.
    asked: bool,
    /// The client asked for it, and has not received it.
    wanted: bool,
    /// How many tokens the largest report has.
    tokens: u64,
    /// The report that is kept for the end: a whole event, or a usage object. It is empty if there is none.
    kept: Vec<u8>,
    is_event: bool,
}

impl UsageChunk {
    pub(super) const fn new(asked: bool) -> Self {
        Self { asked, wanted: asked, tokens: 0, kept: Vec::new(), is_event: false }
    }

    /// Whether the client asked for it.
    pub(super) const fn is_asked_for(&self) -> bool {
        self.asked
    }

    /// Whether the client gets this report, unless a later one takes its place.
    pub(super) fn accepts(&mut self, reported: Option<Reported>) -> bool {
        // A client must not take an output that is not told for none.
        let Some(reported) = reported.filter(|reported| self.wanted && !reported.lacks_output) else {
            return false;
        };
        let tokens = reported.input.saturating_add(reported.output).max(reported.total.unwrap_or(0));
        let accepts = tokens >= self.tokens;
        self.tokens = self.tokens.max(tokens);
        accepts
    }

    /// Whether the report that was accepted last, which came in a chunk of its own, goes to the client at once. That is so when
    /// the answer `is_finished`: its counts cannot grow any more.
    pub(super) fn is_final(&mut self, is_finished: bool) -> bool {
        let is_final = is_finished && self.tokens > 0;
        if is_final {
            *self = Self { wanted: false, ..Self::new(self.asked) };
        }
        is_final
    }

    /// Keeps the report that was accepted last as the event that the client gets at the end.
    pub(super) fn keep_event(&mut self, event: Vec<u8>) {
        self.kept = event;
        self.is_event = true;
    }

    /// Keeps the report that was accepted last as a usage object, for which a chunk is made at the end.
    pub(super) fn keep_object(&mut self, object: Option<&[u8]>) {
        self.kept.clear();
        self.kept.extend_from_slice(object.unwrap_or_default());
        self.is_event = false;
    }

    /// Forgets the report that was kept.
    pub(super) fn drop_kept(&mut self) {
        self.kept.clear();
    }

    /// Writes the event that was kept, if there is one. A report without an event of its own is told of whole answers only.
    pub(super) fn write_event(&mut self, out: &mut Vec<u8>) {
        if self.is_event {
            out.append(&mut self.kept);
        }
    }

    /// Writes the event with the report that was kept, if there is one.
    pub(super) fn write(&mut self, form: Form, defaults: &Defaults, out: &mut Vec<u8>) {
        self.write_event(out);
        if let Some(object) = std::str::from_utf8(&self.kept).ok().filter(|object| !object.is_empty()) {
            out.extend(form.usage_chunk(defaults, object).unwrap_or_default());
        }
    }
}
