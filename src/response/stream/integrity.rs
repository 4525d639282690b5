//! What becomes of an event that cannot be read: it is noise, or a part of one, or several in one, or a hole in the answer.
//!
//! A client that skips a hole reads an answer without that part, which may say the opposite. So nothing is skipped but what is known to
//! be noise.

use crate::bytes::json::{mend, Mended};
use crate::bytes::sse::{Block, LONGEST_EVENT};
use crate::health::outcome::ErrorBody;

pub(super) const DONE: &[u8] = b"[DONE]";

/// An event that came in more pieces is not put together.
const MOST_PIECES: u8 = 16;

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// What an event is whose data cannot be read as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of an answer: it is dropped.
    Noise,
    /// The beginning of an event that goes on in the next one; it is held until then.
    Beginning,
    /// The data of these events, each a JSON text or `[DONE]`.
    Events(Vec<Vec<u8>>),
    /// An error that is no object: Gemini's list.
    Error(Vec<u8>),
    /// A part of the answer that is lost.
    Hole,
}

/// What lines are that belong to no event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// They may belong to a document that is no event stream. The end says so.
    Unknown,
    /// An error as a bare document.
    Error,
    /// A part of the answer that is lost.
    Hole,
}

/// What is known of the events of one stream that could not be read.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    /// The beginning of an event that goes on in the next one.
    beginning: Vec<u8>,
    /// In how many events that beginning came.
    pieces: u8,
    /// An event was read.
    heard: bool,
    /// Before any event there were lines that belong to none.
    began_stray: bool,
}

impl Integrity {
    /// Whether the data of the next event belongs to that of the last one.
    pub(super) fn holds_beginning(&self) -> bool {
        !self.beginning.is_empty()
    }

    /// Whether an event was read.
    pub(super) fn has_heard(&self) -> bool {
        self.heard
    }

    /// Notes that an event was read. Returns whether a part of the answer was lost before it.
    pub(super) fn hear(&mut self) -> bool {
        self.heard = true;
        self.began_stray
    }

    /// Looks at a block with lines that belong to no event.
    #[inline(never)]
    pub(super) fn stray(&mut self, block: &Block<'_>) -> Stray {
        if ErrorBody::from_json(block.stray).is_some() {
            return Stray::Error;
        }
        if self.heard || block.data.is_some() {
            return Stray::Hole;
        }
        self.began_stray = true;
        Stray::Unknown
    }

    /// Looks at the data of an event that cannot be read as it is, or that follows the beginning of another one.
    #[inline(never)]
    pub(super) fn look_at(&mut self, data: &[u8]) -> Found {
        let data = data.strip_prefix(MARK).unwrap_or(data);
        let goes_on = self.holds_beginning();
        if !goes_on && is_noise(data) {
            return Found::Noise;
        }
        let joined =
            if goes_on { [&std::mem::take(&mut self.beginning), data].concat() } else { data.to_vec() };
        match mend(&joined) {
            Mended::Json(json) if json.first() == Some(&b'{') => {
                self.pieces = 0;
                Found::Events(vec![json])
            }
            Mended::Json(json) if !goes_on && ErrorBody::from_json(&json).is_some() => Found::Error(json),
            Mended::Beginning
                if joined.trim_ascii_start().first() == Some(&b'{')
                    && self.pieces < MOST_PIECES
                    && joined.len() <= LONGEST_EVENT
                    // What may be noise must not become a part of a text.
                    && !(goes_on && is_noise(data)) =>
            {
                // The white space at its end may be within a string.
                self.beginning = joined;
                self.pieces += 1;
                Found::Beginning
            }
            Mended::Json(_) | Mended::Beginning | Mended::Broken if goes_on => Found::Hole,
            _ => several(data).map_or(Found::Hole, Found::Events),
        }
    }
}

/// Whether data is one event or several, which may have to be put right.
pub(super) fn is_readable(data: &[u8]) -> bool {
    data.trim_ascii() == DONE || matches!(mend(data), Mended::Json(_)) || several(data).is_some()
}

/// The data of several events that were written into one, a line each.
fn several(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut events = Vec::new();
    for line in data.split(|byte| *byte == b'\n').filter(|line| !is_noise(line)) {
        match mend(line) {
            _ if line.trim_ascii() == DONE => events.push(DONE.to_vec()),
            Mended::Json(json) if json.first() == Some(&b'{') => events.push(json),
            _ => return None,
        }
    }
    (data.contains(&b'\n')).then_some(events)
}

/// Whether data says nothing: it is empty, `{}`, `[]`, `null`, or a single word, which may stand in brackets.
fn is_noise(data: &[u8]) -> bool {
    let data = data.trim_ascii();
    let inner = |open: u8, close: u8| match data {
        [first, inner @ .., last] if *first == open && *last == close => Some(inner.trim_ascii()),
        _ => None,
    };
    if data == DONE {
        return false;
    }
    let is_word = |text: &[u8]| {
        text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    is_word(data) || inner(b'{', b'}').is_some_and(<[u8]>::is_empty) || inner(b'[', b']').is_some_and(is_word)
}

/// Whether events with this name keep a connection alive and say nothing.
pub(super) fn is_noise_name(name: &str) -> bool {
    ["ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"]
        .iter()
        .any(|noise| name.eq_ignore_ascii_case(noise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(data: &str) -> Found {
        Integrity::default().look_at(data.as_bytes())
    }

    fn events(all: &[&str]) -> Found {
        Found::Events(all.iter().map(|json| json.as_bytes().to_vec()).collect())
    }

    #[test]
    fn noise_is_what_has_no_quote_brace_or_colon_and_empty_values() {
        for noise in
            ["", " ", "{}", "{ }", "[]", "null", "ping", "[PING]", "keep-alive", "OK", "[ heartbeat ]", "1"]
        {
            assert_eq!(look(noise), Found::Noise, "{noise}");
        }
        for hole in [
            "NOT ready",
            "\"NOT \"",
            "<html>",
            "ping:",
            "{a}",
            "[\"a\"]",
            "{\"a\":1}}",
            "{\"a\" 1}",
            "safe}",
            "[1,2]",
            "d\u{e9}j\u{e0}",
            "]",
            "}",
            "[[]]",
            "1.5, 2",
            "data: {}",
            "\u{0}",
            "{\"a\":1},",
            "{\"a\":1}{\"b\":2}",
            "[DONE]]",
            "[DONE],",
        ] {
            assert_eq!(look(hole), Found::Hole, "{hole}");
        }
    }

    #[test]
    fn several_events_in_one_are_read_one_by_one() {
        assert_eq!(look("{\"a\":1}\n{\"b\":2}"), events(&["{\"a\":1}", "{\"b\":2}"]));
        assert_eq!(look("{\"a\":1}\n[DONE]"), events(&["{\"a\":1}", "[DONE]"]));
        assert_eq!(look("ping\n{\"a\":\"\t\"}\n{}"), events(&["{\"a\":\"\\t\"}"]));
        assert_eq!(look("{\"a\":1}\n{\"b\":2"), Found::Hole);
        assert_eq!(look("{\"a\":1}\nNOT \"b\""), Found::Hole);
        assert_eq!(look("ping\npong"), events(&[]));
        assert_eq!(look("\u{feff}{\"a\":1}"), events(&["{\"a\":1}"]));
    }

    #[test]
    fn an_event_that_was_cut_is_joined_with_the_next_ones() {
        let text = "{\"a\":\"é NOT safe\",\"b\":[1]}";
        for end in 1..text.len() {
            let mut integrity = Integrity::default();
            assert_eq!(integrity.look_at(&text.as_bytes()[..end]), Found::Beginning);
            assert!(integrity.holds_beginning());
            assert_eq!(integrity.look_at(&text.as_bytes()[end..]), events(&[text]), "{end}");
            assert!(!integrity.holds_beginning());
        }
        let mut integrity = Integrity::default();
        for piece in ["{\"a\":", "\"NOT", " so safe."] {
            assert_eq!(integrity.look_at(piece.as_bytes()), Found::Beginning);
        }
        assert_eq!(
            integrity.look_at(b"ping"),
            Found::Hole,
            "it may be noise, and must not become a part of the text"
        );
        let mut integrity = Integrity::default();
        integrity.look_at(b"{\"a\":1");
        assert_eq!(integrity.look_at(b"{\"b\":2}"), Found::Hole, "the rest of the first is lost");
    }
}
