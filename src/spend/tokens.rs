//! How many tokens a text or a request has, about, without any vocabulary: for when a provider reports no usage, and
//! for what must be reserved before it can.
//!
//! The measure is OpenAI's `o200k_base`; the vocabularies of other vendors differ from it by 10 to 20 % anyway. Nothing
//! here fails, decodes or allocates: the JSON is taken to be valid, so one pass over its bytes finds the texts in it.
//! However large a request is, at most about 64 KiB of its text are read closely; the rest counts by its bytes.

mod decoder;
mod estimator;
mod weights;

use memchr::memchr2;

use crate::bytes::json::{members, Cursor};
pub use estimator::Estimator;
use estimator::SOUND_BYTES;

/// Bytes of one text that are read closely; of a longer one, as many in windows.
const TEXT_SCAN: usize = 8 << 10;

/// Bytes of one window.
const WINDOW: usize = 512;

/// Bytes of all texts of a request that are read closely.
const REQUEST_SCAN: usize = 64 << 10;

/// Of these, what is spent as it comes; the other half is spread evenly over all that follows.
const FIRST_SCAN: usize = REQUEST_SCAN / 2;
const SECOND_SCAN: u64 = (REQUEST_SCAN - FIRST_SCAN) as u64;

/// Values nested deeper than this count by their length.
const DEEPEST: u8 = 12;

/// Bytes of a token where nothing better is known.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Around every message: three for its frame and one for its role (OpenAI's cookbook, "How to count tokens").
const MESSAGE: u64 = 4;

/// A message with a name has one more.
const NAME: u64 = 1;

/// Every answer is primed with the start of a message.
const PRIMING: u64 = 3;

/// Around the name and the arguments of a call.
const CALL: u64 = 4;

/// A picture: 85 and four tiles of 170, which is 1024 by 1024 at high detail on GPT-4o. Files and videos count as one.
const PICTURE: u64 = 765;

/// Around all tools, a tool, its properties, one property with its type, and one value of an enumeration: the cookbook's
/// numbers for GPT-4o. Vendors that show the model the JSON itself use up to twice as many tokens.
const TOOLS: u64 = 12;
const TOOL: u64 = 7;
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3 + 3;
const ENUM_VALUE: u64 = 3;

/// The tokens of one text: the raw content of a JSON string, without its quotes.
///
/// Of more than 8 KiB, windows are read that are spread evenly, so the cost has a bound.
pub fn of_text(raw: &[u8]) -> u64 {
    if raw.len() <= TEXT_SCAN {
        whole(raw)
    } else {
        sampled(raw, TEXT_SCAN)
    }
}

/// The tokens of `messages`, with what frames them and primes the answer; none if there are none.
pub fn of_messages(messages: &str) -> u64 {
    if messages.is_empty() {
        return 0;
    }
    let mut walk = Walk::new(messages);
    walk.value(&mut Cursor(messages.as_bytes()), Place::Top, 0);
    walk.total().saturating_add(PRIMING)
}

/// The tokens of a `prompt` or an `input`: a text, token numbers, a list of either, or a list of items like messages.
/// Only items have a frame; a single text has none, though the Responses API makes a message of it.
pub fn of_input(input: &str) -> u64 {
    let mut walk = Walk::new(input);
    walk.value(&mut Cursor(input.as_bytes()), Place::Top, 0);
    let priming = if walk.framed { PRIMING } else { 0 };
    walk.total().saturating_add(priming)
}

/// The tokens of `tools` (or of the older `functions`): names, descriptions, and the properties of the parameters.
pub fn of_tools(tools: &str) -> u64 {
    let mut walk = Walk::new(tools);
    walk.value(&mut Cursor(tools.as_bytes()), Place::Schema, 0);
    let frame = if walk.framed { TOOLS } else { 0 };
    walk.total().saturating_add(frame)
}

fn whole(raw: &[u8]) -> u64 {
    let mut estimator = Estimator::default();
    estimator.add(raw);
    estimator.tokens()
}

/// Reads `bytes` of the text in windows, and counts the rest like them.
fn sampled(raw: &[u8], bytes: usize) -> u64 {
    let windows = (bytes / WINDOW).max(1);
    let stride = raw.len() / windows;
    let (mut tokens, mut read) = (0_u64, 0_usize);
    for number in 0..windows {
        // Not at the same place of every stride: a text may have pages, with the same at the beginning of each.
        let shift = number.wrapping_mul(40_503) % stride.saturating_sub(WINDOW).max(1);
        let start = number.saturating_mul(stride).saturating_add(shift);
        let Some(window) = raw.get(start..start.saturating_add(WINDOW).min(raw.len())) else { continue };
        // Not in the middle of a word or an escape, if its end is near.
        let near = window.get(..32).unwrap_or_default();
        let skipped = if start == 0 { 0 } else { memchr2(b' ', b'\\', near).unwrap_or(0) };
        let window = window.get(skipped..).unwrap_or_default();
        let mut estimator = Estimator::default();
        estimator.add(window);
        read = read.saturating_add(window.len());
        tokens = tokens.saturating_add(estimator.tokens());
    }
    scaled(tokens, raw.len() as u64, read as u64)
}

/// `tokens`, found in `read` bytes, for all `bytes`.
fn scaled(tokens: u64, bytes: u64, read: u64) -> u64 {
    tokens.saturating_mul(bytes).checked_div(read).unwrap_or(bytes / BYTES_PER_TOKEN)
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The list of messages or texts itself.
    Top,
    /// Within a message.
    Inside,
    /// Within a tool's definition.
    Schema,
    /// The properties of an object: their names are the model's to read.
    Properties,
    /// The values that a property may have.
    Enum,
}

/// One pass over the texts of a request.
struct Walk {
    /// What does not depend on text.
    fixed: u64,
    /// What was read of texts, in tokens.
    text: u64,
    /// Bytes of the texts that were passed over.
    skipped: u64,
    /// Bytes of all texts so far.
    seen: u64,
    /// Bytes that were read closely.
    scanned: usize,
    /// What was read behind the first texts, where some are passed over, for those: tokens, and the bytes that have them.
    late: (u64, u64),
    /// Bytes of the request.
    size: usize,
    /// There was a message, an item or a tool: something with a frame.
    framed: bool,
}

impl Walk {
    fn new(json: &str) -> Self {
        Self {
            fixed: 0,
            text: 0,
            skipped: 0,
            seen: 0,
            scanned: 0,
            late: (0, 0),
            size: json.len(),
            framed: false,
        }
    }

    fn total(&self) -> u64 {
        // What was passed over counts as what was read around it.
        let (tokens, bytes) = self.late;
        let skipped = scaled(tokens, self.skipped, bytes);
        self.fixed.saturating_add(self.text).saturating_add(skipped)
    }

    fn fixed(&mut self, tokens: u64) {
        self.fixed = self.fixed.saturating_add(tokens);
    }

    fn by_length(&mut self, bytes: usize) {
        self.fixed((bytes as u64).div_ceil(BYTES_PER_TOKEN));
    }

    /// A text gets the share of the scan that its bytes are of the request.
    fn text(&mut self, raw: &[u8]) {
        let bytes = raw.len() as u64;
        self.seen = self.seen.saturating_add(bytes);
        let more = SECOND_SCAN.saturating_mul(self.seen) / (self.size as u64).max(1);
        let due = usize::try_from(more).unwrap_or(usize::MAX).saturating_add(FIRST_SCAN);
        let is_late = self.scanned >= FIRST_SCAN;
        let allowed = due.saturating_sub(self.scanned).min(TEXT_SCAN);
        let (tokens, scanned) = if raw.len() <= allowed {
            (whole(raw), raw.len())
        } else if allowed >= WINDOW {
            (sampled(raw, allowed), allowed)
        } else {
            self.skipped = self.skipped.saturating_add(bytes);
            return;
        };
        self.text = self.text.saturating_add(tokens);
        self.scanned = self.scanned.saturating_add(scanned);
        if is_late {
            // So many bytes of the request are read for each that is read closely. Those beyond the text itself were passed over.
            let stands_for = (scanned as u64).saturating_mul(self.size as u64) / SECOND_SCAN;
            let others = stands_for.saturating_sub(bytes);
            self.late.0 = self.late.0.saturating_add(scaled(tokens, others, bytes));
            self.late.1 = self.late.1.saturating_add(others);
        }
    }

    fn value(&mut self, json: &mut Cursor<'_>, place: Place, depth: u8) {
        match json.peek() {
            _ if depth > DEEPEST => {
                let bytes = json.skip();
                self.by_length(bytes);
            }
            Some(b'"') => {
                if let Some(raw) = json.string() {
                    self.text(raw);
                }
            }
            Some(b'[') => {
                json.step();
                while json.next(b']') {
                    match (place, json.peek()) {
                        (Place::Top, Some(b'{')) => {
                            self.framed = true;
                            self.fixed(MESSAGE);
                        }
                        (Place::Enum, _) => self.fixed(ENUM_VALUE),
                        _ => {}
                    }
                    self.value(json, place, depth.saturating_add(1));
                }
            }
            Some(b'{') => {
                json.step();
                while json.next(b'}') {
                    let key = json.string().unwrap_or_default();
                    json.peek();
                    json.step();
                    match place {
                        Place::Top | Place::Inside => self.of_message(json, key, depth),
                        _ => self.of_schema(json, key, place, depth),
                    }
                }
            }
            Some(b'n') => {
                json.skip();
            }
            // The number of a token, usually.
            Some(_) => {
                json.skip();
                self.fixed(1);
            }
            None => {}
        }
    }

    /// The value of a key of a message, of a part of its content, or of a call.
    fn of_message(&mut self, json: &mut Cursor<'_>, key: &[u8], depth: u8) {
        match key {
            b"name" => self.fixed(NAME),
            b"arguments" | b"input" | b"output" => {
                self.fixed(if key == b"arguments" { CALL } else { 0 });
                if json.peek() == Some(b'{') {
                    self.object(json);
                    return;
                }
            }
            b"content" | b"text" | b"reasoning_content" | b"reasoning" | b"reasoning_text" | b"thinking"
            | b"refusal" | b"tool_calls" | b"function" | b"function_call" | b"custom" | b"summary"
            | b"code" | b"outputs" | b"logs" | b"stdout" | b"stderr" | b"operation" | b"diff" => {}
            // Data, or where it is.
            b"image_url" | b"video_url" | b"file" | b"file_data" | b"file_url" | b"file_id" | b"source" => {
                let is_there = json.peek() != Some(b'n');
                self.fixed(if is_there { PICTURE } else { 0 });
                json.skip();
                return;
            }
            b"input_audio" => {
                let bytes = json.skip() as u64;
                self.fixed(bytes / SOUND_BYTES.unsigned_abs());
                return;
            }
            // Roles, types and identifiers: none, or within the frame.
            _ => {
                json.skip();
                return;
            }
        }
        self.value(json, Place::Inside, depth.saturating_add(1));
    }

    /// The arguments or the result of a tool as an object, which the model reads as it stands; or a screenshot.
    fn object(&mut self, json: &mut Cursor<'_>) {
        let all = json.0;
        let bytes = json.skip();
        let object = all.get(..bytes).unwrap_or_default();
        let mut members = members(std::str::from_utf8(object).unwrap_or_default());
        if members.any(|(name, ..)| matches!(name, b"image_url" | b"file_id")) {
            self.fixed(PICTURE);
        } else {
            self.text(object);
        }
    }

    /// The value of a key of a tool's definition or of its schema.
    fn of_schema(&mut self, json: &mut Cursor<'_>, key: &[u8], place: Place, depth: u8) {
        let place = match key {
            _ if place == Place::Properties => {
                self.fixed(PROPERTY);
                self.text(key);
                Place::Schema
            }
            b"name" => {
                self.framed = true;
                self.fixed(TOOL);
                Place::Schema
            }
            b"properties" => {
                self.fixed(PROPERTIES);
                Place::Properties
            }
            b"enum" => Place::Enum,
            b"description"
            | b"function"
            | b"custom"
            | b"parameters"
            | b"items"
            | b"anyOf"
            | b"oneOf"
            | b"allOf"
            | b"additionalProperties" => Place::Schema,
            b"$defs" | b"definitions" => Place::Properties,
            _ => {
                json.skip();
                return;
            }
        };
        self.value(json, place, depth.saturating_add(1));
    }
}

#[cfg(test)]
mod tests;
