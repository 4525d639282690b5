//! OpenAI's Responses API. Answers and events are forwarded unchanged; this file only reads whether there is content, how the
//! answer ended, and the usage.

use super::chat::ChunkSummary;
use super::{Defaults, ToolCalls, WholeAnswer};
use crate::base::store::fingerprint;
use crate::bytes::json::{self, raw_object};
use crate::dialects::items;
use crate::dialects::usage::{hear, read as read_usage, read_tools};
use crate::health::outcome::ErrorBody;
use crate::spend::reported::Reported;
use crate::spend::tokens::Estimator;
use crate::spend::usage::{Marks, Served, Tally};

raw_object! {
    /// A response object.
    struct Response {
        id: "id",
        status: "status",
        output: "output",
        error: "error",
        usage: "usage",
        model: "model",
        service_tier: "service_tier",
        tool_usage: "tool_usage",
    }
}

impl Response<'_> {
    /// The fingerprint of its id, under which its provider is remembered.
    fn stored(&self) -> u64 {
        self.id.text().map_or(0, |id| fingerprint([&*id]))
    }

    /// The error that it reports, if any.
    fn error(&self) -> Option<ErrorBody> {
        let error = self.error.value().filter(|raw| ErrorBody::is_reported(raw));
        let error = error.map(|raw| ["{\"error\":", raw, "}"].concat());
        let error = error.and_then(|text| ErrorBody::from_json(text.as_bytes()));
        error.or_else(|| (self.status.word() == Some("failed")).then(ErrorBody::default))
    }

    /// Whether it is still to be written, or being written.
    fn is_queued(&self) -> bool {
        matches!(self.status.word(), Some("queued" | "in_progress"))
    }

    /// Whether a response without an error is an answer. A background response has no output yet: its id is the answer. A
    /// finished response may have an empty output, like a chat completion with a finish reason and no content.
    fn is_answer(&self) -> bool {
        match self.status.word() {
            _ if self.is_queued() => true,
            Some("completed" | "incomplete") => self.output.value().is_some_and(|raw| raw.starts_with('[')),
            _ => !self.output.elements().is_empty(),
        }
    }

    fn usage(&self) -> Option<Reported> {
        read_usage(self.usage.value()?)
    }

    /// The calls of tools that the provider ran.
    fn calls(&self) -> Option<Box<ToolCalls>> {
        let told = self.tool_usage.value().map(read_tools).unwrap_or_default();
        ToolCalls::of_all(&self.output.elements(), told)
    }

    /// Whether every item is an object, and its content is no object but a list of them, as it is in this API. Otherwise a bracket was
    /// lost, or a quote.
    fn is_plausible(&self) -> bool {
        let is_object = |json: &&str| json.starts_with('{');
        self.output.elements().iter().all(|item| {
            is_object(item)
                && Item::plausible(item).is_some_and(|item| {
                    let parts = item.content.elements();
                    !item.content.value().is_some_and(|content| content.starts_with('{'))
                        && parts.iter().all(|part| is_object(part) && Part::plausible(part).is_some())
                })
        })
    }

    /// The fingerprints of its reasoning items.
    fn thoughts(&self) -> Marks {
        let mut thoughts = Marks::default();
        for item in self.output.elements() {
            thoughts.add(items::mark(item));
        }
        thoughts
    }

    /// Adds the text that the model wrote: messages, summaries of reasoning, arguments of tool calls.
    fn count_text(&self, text: &mut Estimator) {
        for item in self.output.elements().into_iter().map(Item::read) {
            for field in [item.arguments, item.input, item.code] {
                text.add(field.inner());
            }
            for part in item.content.elements().into_iter().chain(item.summary.elements()).map(Part::read) {
                text.add(part.text.inner());
                text.add(part.refusal.inner());
            }
        }
    }
}

raw_object! {
    /// An item of the output.
    struct Item {
        content: "content",
        summary: "summary",
        arguments: "arguments",
        /// Of a custom tool.
        input: "input",
        /// Of an interpreter.
        code: "code",
    }
}

raw_object! {
    /// A part of an item.
    struct Part {
        text: "text",
        refusal: "refusal",
    }
}

/// Reads a whole answer.
pub fn read(bytes: &[u8]) -> WholeAnswer {
    let Some(object) = json::object(bytes) else { return WholeAnswer::default() };
    let Some(response) = Response::plausible(object) else { return WholeAnswer::default() };
    let (mut error, stored, usage) = (response.error(), response.stored(), response.usage());
    let answered = error.is_none() && response.is_answer() && response.is_plausible();
    if !answered {
        error = error.or_else(|| ErrorBody::from_json(bytes));
    }
    let mut text = Estimator::default();
    if answered && usage.is_none() {
        response.count_text(&mut text);
    }
    let mut served = Served::default();
    hear(&mut served, &response.model, &response.service_tier);
    let mut tally = Tally {
        estimated_output: text.tokens(),
        begun: answered,
        queued: answered && response.is_queued(),
        uncounted: response.is_queued() || usage.is_some_and(|usage| usage.lacks_output),
        served,
        stored,
        thoughts: if answered { response.thoughts() } else { Marks::default() },
        ..Tally::of(usage)
    };
    if let Some(calls) = response.calls() {
        tally.note_calls(calls.calls());
    }
    WholeAnswer { answered, error, body: None, tally }
}

raw_object! {
    /// One event.
    struct Event {
        kind: "type",
        delta: "delta",
        response: "response",
        item: "item",
    }
}

/// Reads one event; `None` if it is not a JSON object with anything in it, or its type is damaged. Returns its type, too, and notes in
/// `served` who answered.
pub fn event<'a>(
    bytes: &'a [u8],
    text: &mut Estimator,
    served: &mut Served,
) -> Option<(ChunkSummary, &'a str)> {
    let object = json::object(bytes)?;
    let event = Event::plausible(object)?;
    let kind = event.kind.word().unwrap_or_default();
    if kind.contains('\\') || (kind.is_empty() && is_empty(object)) {
        return None;
    }
    let response = event.response.value().map(Response::read);
    let mut summary = ChunkSummary { seen: 1, ..ChunkSummary::default() };
    if kind.ends_with(".delta") {
        if event.delta.is_filled() && !event.delta.0.is_some_and(|raw| raw.starts_with(['"', '{'])) {
            // The client would have no use for it, and a part of the answer would be lost.
            return None;
        }
        summary.content = event.delta.is_filled();
        match kind.ends_with("audio.delta") {
            true => text.add_sound(event.delta.inner().len()),
            false => text.add(event.delta.inner()),
        }
    }
    match kind {
        "response.completed" | "response.incomplete" => summary.finished = 1,
        "response.failed" | "error" => {
            let error = response.and_then(|response| response.error());
            summary.error = Some(error.or_else(|| ErrorBody::from_json(bytes)).unwrap_or_default());
        }
        "response.output_item.done" => {
            let item = event.item.value();
            summary.thought = item.map_or(0, items::mark);
            summary.calls = item.and_then(ToolCalls::of_item);
        }
        // Not an event of this API, but what a gateway in between writes when it fails.
        "" => summary.error = ErrorBody::from_json(bytes),
        _ => {}
    }
    if let Some(response) = response {
        hear(served, &response.model, &response.service_tier);
        summary.stored = response.stored();
        summary.usage = response.usage();
        // More of it is still to come.
        summary.uncounted = response.is_queued();
        if summary.finished != 0 || summary.error.is_some() {
            summary.calls = response.calls();
        }
    }
    Some((summary, kind))
}

/// An event of the Responses API, whose name is its type.
pub fn block(kind: &str, data: &[u8]) -> Vec<u8> {
    let mut block = match kind {
        "" => Vec::new(),
        kind => ["event: ", kind, "\n"].concat().into_bytes(),
    };
    block.extend_from_slice(b"data: ");
    block.extend(data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
    block.extend_from_slice(b"\n\n");
    block
}

/// Whether an object has no fields.
fn is_empty(object: &str) -> bool {
    object.get(1..).is_some_and(|rest| rest.trim_start() == "}")
}

raw_object! {
    /// What names a response.
    struct Name {
        id: "id",
        created: "created_at",
        model: "model",
    }
}

/// Takes the name of the response from an event that has it.
pub fn name(bytes: &[u8], known: &mut Defaults) {
    let response = json::object(bytes).and_then(|event| Event::read(event).response.value());
    let Some(Name { id, created, model }) = response.map(Name::read) else { return };
    if let Some(id) = id.text() {
        known.id = id.into_owned();
    }
    if let Some(model) = model.text() {
        known.model = model.into_owned();
    }
    if let Some(created) = created.value().and_then(|number| number.parse().ok()) {
        known.created = created;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_an_answer_if_it_has_output_is_finished_or_runs_in_the_background() {
        for (json, answered) in [
            (r#"{"status":"completed","output":[{"type":"message"}],"error":null}"#, true),
            (r#"{"status":"queued","output":[]}"#, true),
            (r#"{"status":"completed","output":[]}"#, true),
            (r#"{"status":"incomplete","output":[]}"#, true),
            (r#"{"status":"completed"}"#, false),
            (r#"{"output":[{"type":"message"}]}"#, true),
            (r#"{"status":"completed","output":[{"type":"message"}],"error":{}}"#, true),
            (r#"{"status":"completed","output":[{"type":"message"}],"error":""}"#, true),
            (r#"{"status":"completed","output":[],"error":{"code":null,"message":""}}"#, true),
            (r#"{"status":"queued","error":{}}"#, true),
            (r#"{"status":"failed","output":[{"type":"message"}],"error":{}}"#, false),
            (r#"{"output":[]}"#, false),
            (r#"{"status":"failed","output":[],"error":{"code":"server_error","message":"m"}}"#, false),
            ("{}", false),
            ("[]", false),
        ] {
            assert_eq!(read(json.as_bytes()).answered, answered, "{json}");
        }
        let usage = r#"{"status":"completed","output":[{}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1}}}"#;
        let usage = read(usage.as_bytes()).tally.usage.unwrap();
        assert_eq!((usage.input, usage.cached, usage.output, usage.reasoning), (5, 2, 3, 1));
    }

    #[test]
    fn a_response_without_content_has_no_estimated_output() {
        let failed = br#"{"status":"failed","output":[],"error":{"code":"server_error","message":"m"}}"#;
        assert_eq!(read(failed).tally.estimated_output, 0);
        assert_eq!(
            read(br#"{"status":"completed","output":[{"type":"message"}]}"#).tally.estimated_output,
            0
        );
    }

    #[test]
    fn only_the_text_that_the_model_wrote_is_counted() {
        let tokens = |item: &str| {
            let padding = r#""id":"resp_0123456789abcdef0123456789abcdef","metadata":{"a":"a long text that is no answer"}"#;
            read(format!(r#"{{{padding},"status":"completed","output":[{item}]}}"#).as_bytes())
                .tally
                .estimated_output
        };
        assert_eq!(
            tokens(
                r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"good"}]}"#
            ),
            1
        );
        let arguments =
            tokens(r#"{"type":"function_call","arguments":"{\"city\":\"Paris\"}","name":"weather"}"#);
        assert!((3..10).contains(&arguments), "{arguments}");
        assert_eq!(tokens(r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"good"}]}"#), 1);
    }

    #[test]
    fn content_the_end_and_errors_are_read_from_events() {
        let mut text = Estimator::default();
        let mut read = |json: &str| event(json.as_bytes(), &mut text, &mut Served::default()).unwrap().0;
        assert!(!read(r#"{"type":"response.created","response":{"status":"in_progress","output":[]}}"#)
            .has_begun());
        assert!(read(r#"{"type":"response.output_text.delta","delta":"Hi"}"#).content);
        assert!(read(
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#
        )
        .is_finished());
        let failed = read(
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
        );
        assert_eq!(failed.error.unwrap().code, "rate_limit_exceeded");
        assert_eq!(read(r#"{"type":"error","code":"c","message":"m"}"#).error.unwrap().message, "m");
        assert_eq!(event(b"{", &mut Estimator::default(), &mut Served::default()), None);
    }
}
