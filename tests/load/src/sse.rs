//! Checking a streamed answer while it comes in.

use memchr::{memchr_iter, memmem};

use crate::vendor::Vendor;

/// Reads a stream of server-sent events in whatever pieces it arrives and keeps only what the verdict
/// needs. The events are searched and not parsed: JSON is the larger part of the cost, and a quote
/// inside a JSON string is always escaped, so that a key with its quotes cannot be met in one.
#[derive(Default)]
pub struct StreamCheck {
    vendor: Vendor,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    content: bool,
    finish_reason: bool,
    done: bool,
    behind_done: bool,
}

/// What a stream that ended lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    NoContent,
    NoFinishReason,
    NoDone,
    DataBehindDone,
}

impl StreamCheck {
    /// For a stream in the form of this vendor.
    pub fn of(vendor: Vendor) -> Self {
        Self { vendor, ..Self::default() }
    }

    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = 0;
        for end in memchr_iter(b'\n', piece) {
            if self.partial.is_empty() {
                self.line(&piece[rest..end]);
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&piece[rest..end]);
                self.line(&line);
                line.clear();
                // Taken back for its capacity.
                self.partial = line;
            }
            rest = end + 1;
        }
        self.partial.extend_from_slice(&piece[rest..]);
    }

    /// Whether an event with some text of the answer has come.
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// The verdict at the end of the body.
    pub fn finish(&self) -> Result<(), Defect> {
        if !self.content {
            Err(Defect::NoContent)
        } else if !self.finish_reason {
            Err(Defect::NoFinishReason)
        } else if !self.done {
            Err(Defect::NoDone)
        } else if self.behind_done || !self.partial.is_empty() {
            Err(Defect::DataBehindDone)
        } else {
            Ok(())
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        let (done, content, finish_reason): (_, &[u8], &[u8]) = match self.vendor {
            Vendor::OpenAi | Vendor::DeepSeek => {
                (data.trim_ascii() == b"[DONE]", b"\"content\":", b"\"finish_reason\":")
            }
            Vendor::Anthropic => {
                let stop = memmem::find(data, b"\"type\":\"message_stop\"").is_some();
                (stop, b"\"text\":", b"\"stop_reason\":")
            }
        };
        if self.done {
            self.behind_done = true;
        } else if done {
            self.done = true;
        } else {
            self.content = self.content || has_text(data, content);
            self.finish_reason = self.finish_reason || has_text(data, finish_reason);
        }
    }
}

/// Whether `key` (with its quotes and colon) is there with a string that is not empty.
fn has_text(data: &[u8], key: &[u8]) -> bool {
    memmem::find_iter(data, key).any(|at| match data[at + key.len()..].trim_ascii_start() {
        [b'"', next, ..] => *next != b'"',
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
    const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\": \"a\"},\"finish_reason\":null}]}\n\n";
    const STOP: &str =
        ": a comment\r\ndata:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn verdict(events: &[&str]) -> Result<(), Defect> {
        let mut check = StreamCheck::default();
        events.iter().for_each(|event| check.push(event.as_bytes()));
        check.finish()
    }

    #[test]
    fn a_whole_stream_is_good_however_it_is_cut() {
        let stream = [ROLE, TEXT, STOP, DONE].concat();
        for cut in 0..=stream.len() {
            assert_eq!(verdict(&[&stream[..cut], &stream[cut..]]), Ok(()), "{cut}");
        }
        let bytes: Vec<&str> = stream.split("").collect();
        assert_eq!(verdict(&bytes), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(verdict(&[ROLE, STOP, DONE]), Err(Defect::NoContent));
        assert_eq!(verdict(&[ROLE, TEXT, DONE]), Err(Defect::NoFinishReason));
        assert_eq!(verdict(&[ROLE, TEXT, STOP]), Err(Defect::NoDone));
        assert_eq!(verdict(&[ROLE, TEXT, STOP, "data: [DONE]"]), Err(Defect::NoDone));
        assert_eq!(verdict(&[TEXT, STOP, DONE, TEXT]), Err(Defect::DataBehindDone));
    }

    #[test]
    fn a_messages_stream_is_judged_by_its_own_events() {
        const START: &str =
            "event: content_block_start\ndata: {\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
        const TEXT: &str = "data: {\"delta\":{\"text\":\"a\",\"type\":\"text_delta\"}}\n\n";
        const DELTA: &str = "data: {\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
        const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        for (events, expected) in [
            (&[START, TEXT, DELTA, STOP][..], Ok(())),
            (&[START, DELTA, STOP], Err(Defect::NoContent)),
            (&[START, TEXT, STOP], Err(Defect::NoFinishReason)),
            (&[START, TEXT, DELTA, DONE], Err(Defect::NoDone)),
            (&[START, TEXT, DELTA, STOP, DONE], Err(Defect::DataBehindDone)),
        ] {
            let mut check = StreamCheck::of(Vendor::Anthropic);
            events.iter().for_each(|event| check.push(event.as_bytes()));
            assert_eq!(check.finish(), expected, "{events:?}");
        }
    }

    #[test]
    fn the_first_content_is_the_first_text_and_not_the_role() {
        let mut check = StreamCheck::default();
        check.push(ROLE.as_bytes());
        assert!(!check.has_content());
        check.push(TEXT.as_bytes());
        assert!(check.has_content());
    }
}
