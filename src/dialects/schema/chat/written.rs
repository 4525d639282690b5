//! What the model wrote in a field, for the estimate: its text, without the names and the data around it.

use crate::bytes::json::{raw_object, Raw};
use crate::spend::tokens::Estimator;

/// Parts within parts are read so deep: Mistral's thoughts are a list of texts in a part of the content.
const DEEPEST: u8 = 4;

raw_object! {
    /// A part of a content, or one of OpenRouter's thoughts. A picture in it or an encrypted thought is data, and no text.
    struct Part {
        text: "text",
        thinking: "thinking",
        summary: "summary",
        refusal: "refusal",
    }
}

raw_object! {
    /// The call of a function or of a custom tool.
    struct Called {
        name: "name",
        arguments: "arguments",
        input: "input",
    }
}

raw_object! {
    /// Spoken words.
    struct Audio {
        transcript: "transcript",
        data: "data",
    }
}

/// Adds a value: a text, a list of parts, or anything else as its JSON. Returns whether anything is in it.
pub(super) fn add(value: &Raw<'_>, text: &mut Estimator) -> bool {
    match value.0 {
        Some(list) if list.starts_with('[') => add_parts(value, text, DEEPEST),
        _ => text.add(value.inner()),
    }
    value.is_filled()
}

#[inline(never)]
fn add_parts(list: &Raw<'_>, text: &mut Estimator, depth: u8) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for part in list.elements() {
        if part.starts_with('"') {
            text.add(Raw(Some(part)).inner());
            continue;
        }
        let Part { text: written, thinking, summary, refusal } = Part::read(part);
        for field in [written, thinking, summary, refusal] {
            match field.word() {
                Some(word) => text.add(word.as_bytes()),
                None => add_parts(&field, text, depth),
            }
        }
    }
}

/// Adds the name and the arguments of a call.
#[inline(never)]
pub(super) fn add_call(call: &str, text: &mut Estimator) {
    let Called { name, arguments, input } = Called::read(call);
    for field in [name, arguments, input] {
        text.add(field.inner());
    }
}

/// Adds the words and the sound of an answer that is spoken.
#[inline(never)]
pub(super) fn add_audio(audio: &Raw<'_>, text: &mut Estimator) {
    let Audio { transcript, data } = Audio::read(audio.value().unwrap_or_default());
    text.add(transcript.inner());
    text.add_sound(data.inner().len());
}
