//! Translates the events of a Messages stream to the chunks of a chat completion stream.

use super::{finish_reason, refusal, Told, KNOWN};
use crate::bytes::json::{lossy, split_half, Fields, Raw, Writer};
use crate::client_api::errors::envelope;
use crate::spend::reported::Reported;
use crate::spend::usage::Served;

/// Translates one stream, event by event.
///
/// A complete stream ends with a chunk that reports usage, if the provider reported any, and with `[DONE]`. If the client did not
/// request usage, the caller removes that chunk (the one with empty `choices`). Nothing follows after the end or an error.
#[derive(Debug)]
pub struct Translator {
    created: u64,
    /// The beginning of every chunk, up to the list of choices.
    head: String,
    /// The tool calls so far; the position is the index in `tool_calls`.
    calls: Vec<Call>,
    told: Told,
    /// No content came after the output was told.
    counted: bool,
    /// The client was told why the answer ended.
    finished: bool,
    /// The first half of a letter that was torn apart between two deltas.
    half: Option<Half>,
    over: bool,
}

/// The first half of a letter at the end of a delta, as an escape.
#[derive(Debug)]
struct Half {
    escape: String,
    /// The index of its content block.
    block: u64,
    /// The field of the delta in which it goes on.
    field: &'static str,
}

/// The field of OpenAI's delta in which the arguments of a tool call stand.
const ARGUMENTS: &str = "arguments";

#[derive(Debug)]
struct Call {
    /// The index of its content block.
    block: u64,
    /// Some of its arguments have arrived.
    begun: bool,
}

/// The longest `id` or `model`, in bytes, that is repeated in every chunk.
const MAX_REPEATED_LEN: usize = 256;

impl Translator {
    /// Begins a stream. `created` is in seconds since 1970.
    pub fn new(created: u64) -> Self {
        let mut translator = Self {
            created,
            head: String::new(),
            calls: Vec::new(),
            told: Told::default(),
            counted: true,
            finished: false,
            half: None,
            over: false,
        };
        translator.begin("", "");
        translator
    }

    /// Translates one event and appends the result: no event, one or several, each complete. `name` is the `event` field, `data`
    /// the joined `data` lines. Returns whether the event could be read. Of one that could not, nothing is translated.
    pub fn event(&mut self, name: &str, data: &[u8], out: &mut Vec<u8>) -> bool {
        if self.over {
            return true;
        }
        let event = Fields::read(data).and_then(|event| event.plausible(&KNOWN));
        let read = event.and_then(|event| self.read(name, &event, out)).is_some();
        if name == "error" && !self.over {
            self.fail("", "", out);
        }
        read
    }

    /// Translates an event that is an object; `None` if some field of it cannot be read.
    fn read(&mut self, name: &str, event: &Fields<'_>, out: &mut Vec<u8>) -> Option<()> {
        let index = event.number("index").unwrap_or_default();
        let kind = event.word("type").filter(|kind| !kind.is_empty()).unwrap_or(name);
        if kind.contains('\\') {
            // No type has an escape, so this one is damaged.
            return None;
        }
        if matches!(kind, "content_block_start" | "content_block_stop" | "message_delta" | "message_stop") {
            self.give_up_half(out);
        }
        if matches!(kind, "content_block_start" | "content_block_delta") {
            self.counted = false;
        }
        match kind {
            "message_start" => {
                let message = event.object("message")?;
                self.begin(&message.lossy("id"), &message.lossy("model"));
                self.told.read(&message);
                self.chunk(r#"{"role":"assistant","content":""}"#, None, out);
            }
            "content_block_start" => {
                self.block(index, &event.object("content_block")?.plausible(&KNOWN)?, out)?
            }
            "content_block_delta" => {
                let delta = event.object("delta")?.plausible(&KNOWN)?;
                let (name, field) = match delta.word("type").unwrap_or_default() {
                    "text_delta" => ("text", "content"),
                    "thinking_delta" => ("thinking", "reasoning_content"),
                    "input_json_delta" => ("partial_json", ARGUMENTS),
                    // Signatures, citations and unknown types. None of them has an escape.
                    kind => return (!kind.contains('\\')).then_some(()),
                };
                let text = match Raw(delta.get(name)) {
                    // Without a text it says nothing, unless a brace before the text was doubled.
                    Raw(None) if event.get(name).is_none() => "",
                    text => text.word()?,
                };
                let text = self.torn(text, index, field, out);
                if field == ARGUMENTS {
                    self.arguments(index, &text, out);
                } else {
                    self.delta(field, &text, out);
                }
            }
            // A call without arguments gets an empty object, because OpenAI's clients parse the arguments as JSON.
            "content_block_stop" if self.calls.iter().any(|call| call.block == index && !call.begun) => {
                self.arguments(index, "{}", out);
            }
            "message_delta" => {
                self.counted |= self.told.read(event);
                // Some providers tell the usage alone.
                let delta = Fields::of(event.get("delta").unwrap_or("{}"))?;
                let reason = delta.lossy("stop_reason");
                if !reason.is_empty() {
                    let mut out_delta = Writer::object();
                    if let Some(refusal) = refusal(&delta) {
                        out_delta.field("refusal", refusal);
                    }
                    self.chunk(&out_delta.finish(), Some(finish_reason(&reason)), out);
                    self.finished = true;
                }
                // The counts are final now, or grew since the end was told. `message_stop` need not follow: some providers do not send it.
                // What `message_start` tells is no usage of what came after it.
                if let Some(usage) = self.told.usage().filter(|_| self.finished && self.counted) {
                    self.write("],\"usage\":", &usage, "}\n\n", out);
                }
            }
            "message_stop" => {
                self.over = true;
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            "error" => {
                let error = event.object("error")?;
                self.fail(&error.lossy("type"), &error.lossy("message"), out);
            }
            // Pings and unknown events. A gateway in between writes an error without a type.
            _ => {
                if let Some(error) = event.object("error").filter(|_| kind.is_empty()) {
                    self.fail(&error.lossy("type"), &error.lossy("message"), out);
                }
            }
        }
        Some(())
    }

    /// The counts so far, and whether content came that they do not contain. `None` if the provider reported nothing.
    pub fn reported(&self) -> Option<(Reported, bool)> {
        Some((self.told.counts.reported()?, !self.counted))
    }

    /// Whether the stream has ended, well or with an error.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Who answered, as far as the provider has said.
    pub const fn served(&self) -> &Served {
        &self.told.served
    }

    /// Sets the head of all following chunks.
    fn begin(&mut self, id: &str, model: &str) {
        // They are repeated in every chunk, so texts that are too long are left out.
        let short =
            |text| Some(text).filter(|text: &&str| text.len() <= MAX_REPEATED_LEN).unwrap_or_default();
        let (id, model) = (short(id), short(model));
        let mut head = Writer::object();
        head.text("id", id);
        head.text("object", "chat.completion.chunk");
        head.number("created", self.created);
        head.text("model", model);
        // The list is left open here; each chunk adds its choices and closes it.
        head.name("choices");
        head.open_list();
        self.head = head.into_text();
    }

    /// Translates the beginning of a content block.
    fn block(&mut self, index: u64, block: &Fields<'_>, out: &mut Vec<u8>) -> Option<()> {
        match block.word("type").unwrap_or_default() {
            "text" => self.delta("content", &block.lossy("text"), out),
            "thinking" => self.delta("reasoning_content", &block.lossy("thinking"), out),
            "tool_use" => {
                // The input is documented to be empty here. If a provider sends the whole input here, it is used.
                let input = block.object("input").filter(|input| !input.is_empty());
                let arguments = input.and_then(|_| block.get("input")).unwrap_or_default();
                let place = self.calls.len();
                self.calls.push(Call { block: index, begun: !arguments.is_empty() });
                let (id, name) = (block.lossy("id"), block.lossy("name"));
                self.call(place, Some((&id, &name)), arguments, out);
            }
            kind if kind.contains('\\') => return None,
            // Blocks of the vendor's own tools and unknown types.
            _ => {}
        }
        Some(())
    }

    /// The text of a delta, together with the first half of a letter in the delta before it. Half of a letter at its end waits for the
    /// next delta.
    #[inline(never)]
    fn torn(&mut self, word: &str, block: u64, field: &'static str, out: &mut Vec<u8>) -> String {
        if self.half.as_ref().is_some_and(|half| (half.block, half.field) != (block, field)) {
            self.give_up_half(out);
        }
        let before = self.half.take();
        if !word.contains('\\') && before.is_none() {
            return word.to_owned();
        }
        let whole = before.map_or_else(|| word.to_owned(), |half| [&half.escape, word].concat());
        let (text, escape) = split_half(&whole);
        if !escape.is_empty() {
            self.half = Some(Half { escape: escape.to_owned(), block, field });
        }
        lossy(text)
    }

    /// The second half of a letter does not come.
    fn give_up_half(&mut self, out: &mut Vec<u8>) {
        const LOST: &str = "\u{fffd}";
        match self.half.take() {
            Some(Half { field: ARGUMENTS, block, .. }) => self.arguments(block, LOST, out),
            Some(Half { field, .. }) => self.delta(field, LOST, out),
            None => {}
        }
    }

    /// Writes a piece of text in one field of the delta.
    #[inline(never)]
    fn delta(&self, field: &'static str, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            let mut delta = Writer::object();
            delta.text(field, text);
            self.chunk(&delta.finish(), None, out);
        }
    }

    /// Writes a piece of the arguments of the tool call in this block.
    #[inline(never)]
    fn arguments(&mut self, block: u64, piece: &str, out: &mut Vec<u8>) {
        let Some(place) = self.calls.iter().rposition(|call| call.block == block) else { return };
        if piece.is_empty() {
            return;
        }
        if let Some(call) = self.calls.get_mut(place) {
            call.begun = true;
        }
        self.call(place, None, piece, out);
    }

    /// Writes a delta of one of the `tool_calls`. `named` are its id and name, for the first delta.
    fn call(&self, place: usize, named: Option<(&str, &str)>, arguments: &str, out: &mut Vec<u8>) {
        let (mut call, mut function) = (Writer::object(), Writer::object());
        call.number("index", place as u64);
        if let Some((id, name)) = named {
            call.text("id", id);
            call.text("type", "function");
            function.text("name", name);
        }
        function.text("arguments", arguments);
        call.field("function", &function.finish());
        self.chunk(&["{\"tool_calls\":[", &call.finish(), "]}"].concat(), None, out);
    }

    /// Writes a chunk with the only choice. `delta` is JSON.
    #[inline(never)]
    fn chunk(&self, delta: &str, finish_reason: Option<&str>, out: &mut Vec<u8>) {
        let mut choice = Writer::object();
        choice.number("index", 0);
        choice.field("delta", delta);
        choice.field("logprobs", "null");
        match finish_reason {
            Some(reason) => choice.text("finish_reason", reason),
            None => choice.field("finish_reason", "null"),
        }
        self.write("", &choice.finish(), "]}\n\n", out);
    }

    /// Writes an event: the head of a chunk and `json` between two texts.
    #[inline(never)]
    fn write(&self, before: &str, json: &str, after: &str, out: &mut Vec<u8>) {
        for part in ["data: ", &self.head, before, json, after] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Ends the stream with the vendor's error in OpenAI's envelope.
    #[inline(never)]
    fn fail(&mut self, kind: &str, message: &str, out: &mut Vec<u8>) {
        self.over = true;
        let kind = if kind.is_empty() { "api_error" } else { kind };
        let body = envelope(message, kind, None, None);
        out.extend_from_slice(&[b"data: ", body.as_slice(), b"\n\n"].concat());
    }
}
