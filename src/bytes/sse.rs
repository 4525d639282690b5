//! An incremental reader of event streams (WHATWG HTML, 9.2). However the bytes are split into chunks, the events are the same.
//!
//! The reader reports whole events and holds at most one unfinished event. It returns the unfinished bytes after each chunk, so
//! that the caller can forward whole events only, and can take over an event that is too long to be held.

use memchr::memchr2;

/// The most bytes of an unfinished event that are held, if the bound on what may be withheld is not larger. An image or audio delta in
/// base64 has a few MiB.
pub const LONGEST_EVENT: usize = 8 << 20;

/// One block of lines up to a blank line: an event, or only comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The last `event:` field; empty if there was none.
    pub name: &'a str,
    /// The `data:` lines, joined by line feeds; `None` if there are none, and so no event. They are bytes, because a provider may send
    /// what is not UTF-8.
    pub data: Option<&'a [u8]>,
    /// The lines that are no fields of an event stream but look like a part of a document or of a damaged event; empty if there are none.
    pub stray: &'a [u8],
    /// Whether it has a byte order mark, or a line other than its data that is no UTF-8. Then it must not be forwarded as it is.
    pub foul: bool,
    /// The whole block as it came, the blank line included.
    pub raw: &'a [u8],
}

/// The reader of one stream.
#[derive(Debug, Default)]
pub struct Reader {
    /// The unfinished event: what came after the last blank line.
    pending: Vec<u8>,
    /// The place in `pending` from which the search for a line end continues.
    scanned: usize,
    /// Whether the byte at `scanned` is within a line.
    mid_line: bool,
}

impl Reader {
    /// Reads the next chunk, calls `on_block` for every block that it completes, and returns the unfinished rest. Everything
    /// before that rest belongs to finished events.
    pub fn feed(&mut self, chunk: &[u8], mut on_block: impl FnMut(Block<'_>)) -> &[u8] {
        self.pending.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(end) = self.next_block() {
            if let Some(block) = self.pending.get(start..end) {
                read_block(block, &mut on_block);
            }
            start = end;
        }
        self.pending.drain(..start.min(self.pending.len()));
        // The search has gone at least as far as the end of the last block.
        self.scanned -= start;
        &self.pending
    }

    /// The unfinished event.
    pub fn rest(&self) -> &[u8] {
        &self.pending
    }

    /// Takes the beginning of an event that is longer than this, so that it is not held any more; `None` if it is not that long. The
    /// next bytes that are fed must be those behind the event.
    pub fn take_longer_than(&mut self, most: usize) -> Option<Vec<u8>> {
        (self.pending.len() > most).then(|| std::mem::take(self).pending)
    }

    /// The end of the next block, which is behind a blank line. The CR of a blank line is taken as its end at once. If the LF of that
    /// CR comes with the next chunk, it is a blank line of its own, which means nothing.
    fn next_block(&mut self) -> Option<usize> {
        loop {
            let rest = self.pending.get(self.scanned..)?;
            if !self.mid_line {
                match rest {
                    [b'\r', b'\n', ..] => {
                        self.scanned += 2;
                        return Some(self.scanned);
                    }
                    [b'\r' | b'\n', ..] => {
                        self.scanned += 1;
                        return Some(self.scanned);
                    }
                    [] => return None,
                    _ => self.mid_line = true,
                }
            }
            let Some(at) = memchr2(b'\r', b'\n', rest) else {
                self.scanned = self.pending.len();
                return None;
            };
            match rest.get(at..) {
                // The last byte so far may be the first half of CR LF. Without waiting, the LF would look like a blank line.
                Some([b'\r']) => {
                    self.scanned += at;
                    return None;
                }
                Some([b'\r', b'\n', ..]) => self.scanned += at + 2,
                _ => self.scanned += at + 1,
            }
            self.mid_line = false;
        }
    }
}

/// Reads the lines of one block and reports it.
fn read_block(raw: &[u8], on_block: &mut impl FnMut(Block<'_>)) {
    let block = raw.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(raw);
    let mut foul = block.len() != raw.len();
    let mut name: &[u8] = b"";
    let mut first: Option<&[u8]> = None;
    let mut joined: Option<Vec<u8>> = None;
    let mut stray = Vec::new();
    let mut rest = block;
    let mut before: &[u8] = b"";
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..end).unwrap_or_default();
        rest = rest.get(end + 1..).unwrap_or_default();
        let before = std::mem::replace(&mut before, line);
        if let Some(value) = field(line, b"data") {
            match (first, &mut joined) {
                (None, _) => first = Some(value),
                (Some(_), Some(all)) => {
                    all.push(b'\n');
                    all.extend_from_slice(value);
                }
                (Some(first), None) => joined = Some([first, b"\n", value].concat()),
            }
            continue;
        }
        if !line.is_empty() {
            foul |= std::str::from_utf8(line).is_err();
            if is_stray(line, before, !stray.is_empty()) {
                stray.extend_from_slice(line);
                stray.push(b'\n');
                continue;
            }
        }
        if let Some(value) = field(line, b"event") {
            name = value;
        }
    }
    let name = std::str::from_utf8(name).unwrap_or_default();
    on_block(Block { name, data: joined.as_deref().or(first), stray: &stray, foul, raw });
}

/// Whether a line that is no data is a part of something else than an event stream: of a bare document, or of an event whose field lost
/// its name or colon. `before` is the line before it. `follows`: it follows such a line. Comments, and fields that no client knows, mean
/// nothing (WHATWG HTML, 9.2.6), unless a part of an answer stands in them.
#[inline(never)]
fn is_stray(line: &[u8], before: &[u8], follows: bool) -> bool {
    const CONTENT: [&[u8]; 6] =
        [b"\"choices", b"choices\"", b"\"delta", b"delta\"", b"\"response.", b"content_block"];
    let is_json = line.iter().any(|byte| matches!(byte, b'{' | b'}' | b'[' | b']' | b'"'));
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let end = line.iter().position(|byte| !is_of_name(byte)).unwrap_or(line.len());
    let (name, value) = line.split_at(end);
    if value.first() != Some(&b':') || (follows && !name.is_empty()) {
        return follows || is_json;
    }
    // What lost its line feed, and what begins or ends within the name.
    let is_part_of_data = match name {
        b"" => before == b"data",
        b"event" | b"id" | b"retry" => has(line, b"data"),
        name => b"data".ends_with(name),
    };
    is_json && (is_part_of_data || CONTENT.into_iter().any(|part| has(line, part)))
}

#[inline(never)]
fn has(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// The value of the field `name`, if the line is that field. One space after the colon is not part of the value, and a line
/// that is only the name has an empty value.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<(String, String)>, Vec<u8>) {
        let mut reader = Reader::default();
        let (mut events, mut raw) = (Vec::new(), Vec::new());
        for chunk in chunks {
            reader.feed(chunk, |block| {
                raw.extend_from_slice(block.raw);
                if let Some(data) = block.data {
                    events.push((block.name.to_owned(), String::from_utf8_lossy(data).into_owned()));
                }
            });
        }
        raw.extend_from_slice(reader.rest());
        assert_eq!(raw, chunks.concat(), "every byte is in a block or held");
        (events, reader.rest().to_vec())
    }

    const STREAM: &[u8] = b": hello\n\n\n\ndata: one\r\n\r\nevent: error\rdata:two\rdata: three\r\rdata\n\nid: 4\n\ndata: four\n\ndata: half";

    #[test]
    fn events_are_the_same_for_every_split() {
        let whole = read(&[STREAM]);
        let named = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(
            whole.0,
            [named("", "one"), named("error", "two\nthree"), named("", ""), named("", "four")]
        );
        assert_eq!(whole.1, b"data: half");
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let parts = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(read(&parts), whole, "split at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn an_event_that_is_too_long_can_be_taken_and_is_not_kept() {
        let mut reader = Reader::default();
        reader.feed(b"data: one\n\ndata: long", |_| ());
        assert_eq!(reader.take_longer_than(10), None);
        assert_eq!(reader.take_longer_than(9).unwrap(), b"data: long");
        let mut found = Vec::new();
        assert_eq!(
            reader.feed(b"data: two\n\nd", |block| found.extend(block.data.map(<[u8]>::to_vec))),
            b"d"
        );
        assert_eq!(found, [b"two"]);
    }

    #[test]
    fn lines_of_documents_and_of_damaged_events_are_told_from_lines_that_mean_nothing() {
        let stray = |text: &str| {
            let mut found = Vec::new();
            Reader::default().feed(text.as_bytes(), |block| found.extend_from_slice(block.stray));
            String::from_utf8(found).unwrap()
        };
        for text in [
            "data {\"a\":1}\n\n",
            "data, {\"a\":1}\n\n",
            "ta: {\"a\":1}\n\n",
            ": {\"choices\":[]}\n\n",
            ": wait data: {\"choices\":[]}\n\n",
            "event: xdata: {\"a\":1}\n\n",
            "meta: {\"choices\":[]}\n\n",
            "data\n: {\"a\":1}\n\n",
            ": {\"type\":\"response.output_text.done\"}\n\n",
            ": {\"type\":\"content_block_stop\"}\n\n",
            "event X: {\"a\":1}\n\n",
            "{\nmeta: 1\n}\n\n",
            "id: 1data: {}\n\n",
            "{\n  \"error\": {\n    \"code\":\n7\n}}\n\n",
            "data: {}\n\u{1}data: {}\n\n",
            "}\n\n",
            "\"\n\n",
        ] {
            assert!(!stray(text).is_empty(), "{text}");
        }
        for text in [
            "data: {}\n\n",
            "event: ping\n\n",
            ": OPENROUTER PROCESSING\n\n",
            ": {\"queue\":3}\n\n",
            ": {\"type\":\"ping\"}\n\n",
            ": {\"event\":\"keepalive\",\"type\":\"heartbeat\"}\n\n",
            ": 'delta' \"x\"\n\n",
            "data\n: ping\n\n",
            "id: {\"a\"}\n\n",
            "meta: {\"a\":1}\n\n",
            "metadata: {\"a\":[\"b\"]}\n\n",
            "trace-id: \"7\"\n\n",
            "unknown: 5\n\n",
            "retry: 3000\nid: 7-a\n\n",
            "text\n\n",
        ] {
            assert_eq!(stray(text), "", "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read(&[b"\xEF\xBB\xBFdata: x\n\n"]).0, [(String::new(), "x".to_owned())]);
        let mut foul = Vec::new();
        let text = b"\xEF\xBB\xBFdata: x\n\ndata: \xff\n\n: \xff\n\ndata: y\nid: 7\n\n";
        Reader::default().feed(text, |block| foul.push(block.foul));
        assert_eq!(foul, [true, false, true, false]);
    }
}
