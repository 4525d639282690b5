//! An event that is too long to be held: it passes in pieces, and is only checked.

use memchr::memchr2;

use crate::bytes::json::Scanner;

/// What stands in a line.
#[derive(Debug)]
enum Line {
    /// The beginning of a line, as far as it may be the name of a field with data.
    Begins(Vec<u8>),
    /// Data. `first`: the next byte may be the space that belongs to the colon.
    Data { first: bool },
    /// Another field.
    Other,
}

/// How far the event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on.
    GoesOn,
    /// It has ended behind so many bytes of the piece, and is whole.
    Whole(usize),
    /// It is no JSON.
    Broken,
}

/// The reader of one such event. It keeps nothing of it but its last few bytes.
#[derive(Debug)]
pub(super) struct Passing {
    line: Line,
    after_cr: bool,
    has_data: bool,
    scanner: Scanner,
    /// Whether its beginning says that it finishes the answer.
    finishes: bool,
    /// Its last bytes.
    tail: Vec<u8>,
}

/// So many bytes at the beginning and the end of an event are searched for what it says.
const SEARCHED: usize = 512;

impl Passing {
    /// Begins with what has come of the event; `None` if it is no event.
    pub(super) fn new(begin: &[u8]) -> Option<Self> {
        let begin = begin.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(begin);
        if ![&b"data:"[..], b"event:", b"id:", b"retry:", b":"].iter().any(|field| begin.starts_with(field)) {
            return None;
        }
        let head = begin.get(..begin.len().min(SEARCHED)).unwrap_or_default();
        let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
        Some(Self {
            line: Line::Begins(Vec::new()),
            after_cr: false,
            has_data: false,
            scanner: Scanner::default(),
            finishes: has(b"response.completed") || has(b"response.incomplete"),
            tail: Vec::new(),
        })
    }

    /// Whether the event says that the answer is finished.
    pub(super) fn finishes(&self) -> bool {
        const REASON: &[u8] = b"\"finish_reason\":\"";
        let tail: Vec<u8> = self.tail.iter().copied().filter(|byte| *byte != b' ').collect();
        self.finishes || tail.windows(REASON.len()).any(|window| window == REASON)
    }

    /// Reads the next piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(byte) = piece.get(at).copied() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                at += 1;
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                at += 1;
                if matches!(&self.line, Line::Begins(name) if name.is_empty()) {
                    return if self.scanner.is_complete() { Progress::Whole(at) } else { Progress::Broken };
                }
                self.after_cr = byte == b'\r';
                self.line = Line::Begins(Vec::new());
                continue;
            }
            match &mut self.line {
                Line::Begins(name) => {
                    name.push(byte);
                    at += 1;
                    if name == b"data:" {
                        self.line = Line::Data { first: true };
                        if std::mem::replace(&mut self.has_data, true) && !self.scanner.feed(b"\n") {
                            return Progress::Broken;
                        }
                    } else if !b"data:".starts_with(name) {
                        self.line = Line::Other;
                    }
                }
                Line::Data { first: first @ true } => {
                    *first = false;
                    at += usize::from(byte == b' ');
                }
                Line::Data { .. } | Line::Other => {
                    let rest = piece.get(at..).unwrap_or_default();
                    let text =
                        rest.get(..memchr2(b'\r', b'\n', rest).unwrap_or(rest.len())).unwrap_or_default();
                    at += text.len();
                    if matches!(self.line, Line::Data { .. }) {
                        if !self.scanner.feed(text) {
                            return Progress::Broken;
                        }
                        self.keep_tail(text);
                    }
                }
            }
        }
        Progress::GoesOn
    }

    fn keep_tail(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text.get(text.len().saturating_sub(SEARCHED)..).unwrap_or_default());
        let spare = self.tail.len().saturating_sub(SEARCHED);
        self.tail.drain(..spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str, size: usize) -> (Progress, bool) {
        let mut passing = Passing::new(text.as_bytes()).unwrap();
        let mut before = 0;
        for piece in text.as_bytes().chunks(size) {
            match passing.take(piece) {
                Progress::GoesOn => before += piece.len(),
                Progress::Whole(at) => return (Progress::Whole(before + at), passing.finishes()),
                Progress::Broken => return (Progress::Broken, passing.finishes()),
            }
        }
        (Progress::GoesOn, passing.finishes())
    }

    #[test]
    fn an_event_is_the_same_however_it_is_cut() {
        for (text, progress, finishes) in [
            ("data: {\"a\":[1,\"x\"]}\n\nrest", Progress::Whole(21), false),
            ("event: x\r\ndata:{\"a\":\r\ndata: 1}\r\n\r\n", Progress::Whole(33), false),
            ("data: {\"finish_reason\": \"stop\"}\r\rdata", Progress::Whole(33), true),
            ("event: response.completed\ndata: {}\n\n", Progress::Whole(36), true),
            ("data: {\"a\":1", Progress::GoesOn, false),
            ("data: {\"a\":1\n\n", Progress::Broken, false),
            ("data: {\"a\"1}\n\n", Progress::Broken, false),
            ("id: 7\n\n", Progress::Broken, false),
        ] {
            for size in 1..=text.len() {
                let (found, is_end) = pass(text, size);
                // The line feed behind the carriage return of a blank line belongs to what follows.
                assert_eq!((found, is_end), (progress, finishes), "{text:?} in pieces of {size}");
            }
        }
        assert!(Passing::new(b"{\"a\":1").is_none());
        assert!(Passing::new(b"\xEF\xBB\xBFdata: ").is_some());
    }
}
