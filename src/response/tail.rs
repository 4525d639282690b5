//! The end of an answer that is too long to be read. Its usage stands there, behind the vectors or the content; or else at its beginning.

use crate::client_api::request::Endpoint;
use crate::dialects::schema;
use crate::spend::usage::Tally;

/// How many bytes of the end are kept. A usage with all the fields that vendors add has fewer than a thousand bytes, and few other
/// fields follow it.
pub(super) const KEPT: usize = 4 << 10;

/// The last bytes of an answer, of which nothing else is kept.
#[derive(Debug)]
pub(super) struct Tail {
    endpoint: Endpoint,
    bytes: Vec<u8>,
}

impl Tail {
    pub(super) const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, bytes: Vec::new() }
    }

    /// Takes the next piece of the answer.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let piece = piece.get(piece.len().saturating_sub(KEPT)..).unwrap_or(piece);
        let surplus = self.bytes.len().saturating_add(piece.len()).saturating_sub(KEPT);
        self.bytes.drain(..surplus.min(self.bytes.len()));
        self.bytes.extend_from_slice(piece);
    }

    /// The usage that the end reports, if it does. The last one that can be read counts.
    pub(super) fn tally(&self) -> Tally {
        const NAME: &[u8] = b"\"usage\"";
        let mut rest = self.bytes.as_slice();
        while let Some(at) = rest.windows(NAME.len()).rposition(|bytes| bytes == NAME) {
            // Within a string the quotes have backslashes before them.
            let is_name = at.checked_sub(1).and_then(|before| rest.get(before)) != Some(&b'\\');
            let value =
                self.bytes.get(at.saturating_add(NAME.len())..).unwrap_or_default().trim_ascii_start();
            let object = value.strip_prefix(b":").and_then(|value| first_object(value.trim_ascii_start()));
            let tally = object.filter(|_| is_name).map(|object| schema::read_usage(object, self.endpoint));
            if let Some(tally) = tally.filter(|tally| tally.usage.is_some()) {
                return tally;
            }
            rest = rest.get(..at).unwrap_or_default();
        }
        Tally::default()
    }
}

/// The JSON object with which a text begins, up to the brace that closes it. `None` if no such brace is there.
fn first_object(text: &[u8]) -> Option<&[u8]> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return text.get(..=at).filter(|_| at > 0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(endpoint: Endpoint, body: &str, piece: usize) -> Option<(u64, u64)> {
        let mut tail = Tail::new(endpoint);
        body.as_bytes().chunks(piece).for_each(|piece| tail.feed(piece));
        assert!(tail.bytes.len() <= KEPT);
        tail.tally().usage.map(|usage| (usage.input, usage.output))
    }

    #[test]
    fn the_usage_at_the_end_is_read_however_the_answer_is_cut() {
        let vectors = "0.123456789,".repeat(2000);
        let embeddings = format!(
            r#"{{"object":"list","data":[{{"embedding":[{vectors}1]}}],"model":"m", "usage" : {{"prompt_tokens":8,"total_tokens":8,"x":{{"y":"}}\"}}"}}}} }}"#
        );
        let chat = format!(
            r#"{{"choices":[{{"message":{{"content":"{vectors}"}}}}],"usage":{{"prompt_tokens":8,"completion_tokens":5,"total_tokens":20}},"system_fingerprint":"f"}}"#
        );
        let response = format!(
            r#"{{"output":[{{"result":"{vectors}"}}],"usage":{{"input_tokens":8,"output_tokens":5,"total_tokens":13}},"user":null}}"#
        );
        for piece in [1, 7, 1000, KEPT, 1 << 20] {
            assert_eq!(usage(Endpoint::Embeddings, &embeddings, piece), Some((8, 0)), "{piece}");
            assert_eq!(
                usage(Endpoint::Chat, &chat, piece),
                Some((8, 12)),
                "{piece}: with what the total has more"
            );
            assert_eq!(usage(Endpoint::Responses, &response, piece), Some((8, 5)), "{piece}");
        }
    }

    #[test]
    fn what_is_no_usage_is_not_read() {
        for body in [
            r#"{"data":[],"usage":null}"#,
            r#"{"data":[],"usage":{}}"#,
            r#"{"data":[],"usage":{"prompt_tokens":8"#,
            r#"{"data":["usage"]}"#,
            r#"{"text":"\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}"}"#,
            r#"{"text":"\"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            r#"{"usage":]{"prompt_tokens":8}"#,
            "",
        ] {
            assert_eq!(usage(Endpoint::Embeddings, body, 5), None, "{body}");
        }
        let earlier = r#"{"usage":{"prompt_tokens":8,"total_tokens":8},"more":{"usage":null}}"#;
        assert_eq!(usage(Endpoint::Embeddings, earlier, 5), Some((8, 0)));
    }
}
