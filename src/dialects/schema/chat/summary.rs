//! What bodies, chunks and events say about an answer, and how several of them add up.

use crate::dialects::schema::ToolCalls;
use crate::health::outcome::ErrorBody;
use crate::spend::reported::Reported;

/// What was read from one body or chunk, or from several chunks together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSummary {
    /// A choice has a non-empty `content`, `tool_calls`, `refusal` or `audio`, or thoughts.
    pub content: bool,
    /// The choices that occurred, as one bit per `index` (0 to 63).
    pub seen: u64,
    /// The choices that have a finish reason, as one bit per `index`.
    pub finished: u64,
    /// An error in place of an answer or beside it.
    pub error: Option<ErrorBody>,
    /// The usage that was reported.
    pub usage: Option<Reported>,
    /// Content came that this usage cannot count: it was told before, or beside the content without having grown.
    pub uncounted: bool,
    /// The fingerprint of the id of a response that its provider stores; 0 if it stores none.
    pub stored: u64,
    /// The calls of tools that the provider ran.
    pub calls: Option<Box<ToolCalls>>,
    /// The fingerprint of a reasoning item that only its provider can read; 0 if there is none.
    pub thought: u64,
}

impl ChunkSummary {
    /// Adds what was read from a later chunk.
    pub fn add(&mut self, later: Self) {
        self.content |= later.content;
        self.seen |= later.seen;
        self.finished |= later.finished;
        let told = |usage: Option<Reported>| usage.map_or(0, |usage| usage.told_output());
        let (known, now) = (told(self.usage), told(later.usage));
        self.uncounted = match later.usage {
            _ if later.content => later.uncounted || now <= known,
            Some(_) if later.uncounted => true,
            // A zero after another report replaces nothing.
            Some(_) => self.uncounted && now == 0 && self.usage.is_some(),
            None => self.uncounted,
        };
        let both = self.usage.zip(later.usage).map(|(known, later)| known.and(later));
        self.usage = both.or(later.usage).or(self.usage);
        self.stored = if later.stored == 0 { self.stored } else { later.stored };
        if let Some(calls) = later.calls {
            self.calls.get_or_insert_default().add(&calls);
        }
        if self.error.is_none() {
            self.error = later.error;
        }
    }

    /// Whether content came that the reported usage does not count.
    pub fn is_uncounted(&self) -> bool {
        self.uncounted || self.usage.is_some_and(|usage| usage.lacks_output)
    }

    /// Whether an answer has begun: it has content, or a finish reason without content.
    pub const fn has_begun(&self) -> bool {
        self.content || self.finished != 0
    }

    /// Whether every choice that occurred has a finish reason.
    pub const fn is_finished(&self) -> bool {
        self.seen != 0 && self.seen == self.finished
    }
}
