//! Finding a short text in a body that comes in pieces and is not kept.

use memchr::memmem::Finder;

/// Texts to look for, prepared once and searched many times.
pub struct Needles {
    finders: Vec<Finder<'static>>,
    longest: usize,
}

impl Needles {
    pub fn new(texts: &[&'static str]) -> Self {
        Self {
            finders: texts.iter().map(|text| Finder::new(*text)).collect(),
            longest: texts.iter().map(|text| text.len()).max().unwrap_or(0),
        }
    }

    fn any_in(&self, hay: &[u8]) -> bool {
        self.finders.iter().any(|finder| finder.find(hay).is_some())
    }
}

/// One search through one body.
pub struct Search<'a> {
    needles: &'a Needles,
    /// The end of what came so far: less than the longest needle, where one may have begun.
    tail: Vec<u8>,
    found: bool,
}

impl<'a> Search<'a> {
    pub fn new(needles: &'a Needles) -> Self {
        Self { needles, tail: Vec::new(), found: false }
    }

    pub fn push(&mut self, piece: &[u8]) {
        if self.found {
            return;
        }
        let overlap = self.needles.longest.saturating_sub(1);
        if self.needles.any_in(piece) {
            self.found = true;
        } else if piece.len() >= overlap && self.tail.is_empty() {
            self.tail.extend_from_slice(&piece[piece.len() - overlap..]);
        } else {
            // Only the first bytes of the piece can complete a needle from before it.
            self.tail.extend_from_slice(&piece[..piece.len().min(overlap)]);
            self.found = self.needles.any_in(&self.tail);
            if piece.len() > overlap {
                self.tail.clear();
                self.tail.extend_from_slice(&piece[piece.len() - overlap..]);
            } else {
                self.tail.drain(..self.tail.len().saturating_sub(overlap));
            }
        }
    }

    pub fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(needles: &Needles, pieces: &[&str]) -> bool {
        let mut search = Search::new(needles);
        for piece in pieces {
            search.push(piece.as_bytes());
        }
        search.found()
    }

    #[test]
    fn a_needle_is_found_wherever_it_is_split() {
        let needles = Needles::new(&["\"stream\":true", "\"stream\": true"]);
        let text = r#"{"messages":[],"model":"m","stream":true,"n":1}"#;
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert!(found(&needles, &pieces), "{first} {second}");
            }
        }
        let bytes: Vec<&str> = text.split("").collect();
        assert!(found(&needles, &bytes));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let needles = Needles::new(&["\"stream\":true", "\"stream\": true"]);
        assert!(!found(&needles, &[]));
        assert!(!found(&needles, &["\"stream\":", "x", "true"]));
        // Inside a JSON string the quotes are escaped, so that it is no needle.
        assert!(!found(&needles, &[r#"{"content":"{\"stream\":true}","stream":false}"#]));
    }
}
