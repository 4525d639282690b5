//! The `usage` object: reads every vendor's form, and adds the fields that OpenAI's clients expect.

use std::ops::Range;

use super::shape::Shape;
use super::{Body, Choice, Form};
use crate::bytes::json::{raw_object, Raw};
use crate::bytes::splice::Splices;
use crate::dialects::usage::{read, Counts};
use crate::spend::reported::Reported;

raw_object! {
    /// The fields that OpenAI's schema requires, and the details in which the client looks for cached tokens.
    struct Fields {
        prompt_tokens: "prompt_tokens",
        completion_tokens: "completion_tokens",
        total_tokens: "total_tokens",
        prompt_tokens_details: "prompt_tokens_details",
        input_tokens_details: "input_tokens_details",
    }
}

raw_object! {
    /// An object that contains a usage: Groq's `x_groq`.
    struct Wrapper {
        usage: "usage",
    }
}

raw_object! {
    struct InputDetails {
        cached_tokens: "cached_tokens",
    }
}

impl Shape<'_> {
    /// Reads every usage that a body or chunk reports: in its own field, in a choice (Moonshot) or in `x_groq` (Groq). The client
    /// gets one in the field `usage` of a whole answer, or of a chunk without choices. All others in a stream become null.
    /// `open` is the position after the opening brace.
    pub(super) fn usages<'a>(&mut self, body: &Body<'a>, choices: &[Choice<'a>], open: usize) -> Told<'a> {
        let is_chunk = self.form.is_chunk();
        // In a stream, usage belongs in one chunk at the end, and only if the client requested it.
        let stays = choices.is_empty() || !is_chunk;
        let mut told = Told::default();
        let own = body.usage.value();
        if let Some(raw) = own {
            let (counts, tier) = Counts::read(raw);
            told.tier = tier;
            told.reported = counts.reported();
            if let Some(reported) = told.reported.filter(|_| stays && !counts.is_openais()) {
                self.complete(raw, &reported);
            }
        }
        told.place = own.filter(|_| told.reported.is_some()).map(|raw| self.place(raw));
        let groq = body.x_groq.value().map(|raw| Wrapper::read(raw).usage);
        let mut other = None;
        for raw in choices.iter().map(|choice| choice.usage).chain(groq).filter_map(|raw| raw.value()) {
            let (counts, tier) = Counts::read(raw);
            let Some(reported) = counts.reported() else { continue };
            told.tier = tier.value().map_or(told.tier, |tier| Raw(Some(tier)));
            other = other.or(Some(raw));
            told.reported = Some(told.reported.map_or(reported, |known| known.and(reported)));
            if is_chunk {
                self.splices.add(self.place(raw), "null");
            }
        }
        if told.place.is_none() {
            told.place = other.map(|raw| self.place(raw));
            match other.filter(|_| stays && (is_chunk || body.has_choices())).and_then(completed) {
                Some(object) => self.set_usage(body, open, &object),
                None if own.is_some() => self.set_usage(body, open, "null"),
                None => {}
            }
        } else if !stays {
            self.set_usage(body, open, "null");
        }
        told.is_there = own.or(other).is_some();
        told
    }

    fn set_usage(&mut self, body: &Body<'_>, open: usize, value: &str) {
        match body.usage.0 {
            Some(old) => self.splices.add(self.place(old), value),
            None => self.splices.insert(open, ["\"usage\":", value, ","].concat()),
        }
    }

    /// Adds the fields that a usage object lacks in OpenAI's schema.
    fn complete(&mut self, raw: &str, usage: &Reported) {
        let fields = Fields::read(raw);
        let open = self.place(raw).start + 1;
        let mut missing = String::new();
        for (raw, name, value) in [
            (&fields.prompt_tokens, "prompt_tokens", usage.input),
            (&fields.completion_tokens, "completion_tokens", usage.output),
            (&fields.total_tokens, "total_tokens", usage.input.saturating_add(usage.output)),
        ] {
            match raw.0 {
                Some(_) if raw.is_whole() => {}
                Some(old) => self.splices.add(self.place(old), value.to_string()),
                None => missing.extend(["\"", name, "\":", &value.to_string(), ","]),
            }
        }
        // Most vendors with words of their own report cached tokens outside the details.
        if usage.cached > 0 && !fields.tells_cached() {
            let number = usage.cached.to_string();
            let cached = ["\"cached_tokens\":", &number].concat();
            let details = &fields.prompt_tokens_details;
            let unreadable = details.value().and_then(|raw| InputDetails::read(raw).cached_tokens.0);
            match (details.0, details.value().and_then(|raw| raw.strip_prefix('{')), unreadable) {
                // Null, or no number. A name must not stand twice.
                (_, _, Some(old)) => self.splices.add(self.place(old), number),
                (_, Some(rest), None) => {
                    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
                    self.splices.insert(self.place(rest).start, [&cached, comma].concat());
                }
                (Some(old), None, None) => self.splices.add(self.place(old), ["{", &cached, "}"].concat()),
                (None, None, None) => missing.extend(["\"prompt_tokens_details\":{", &cached, "},"]),
            }
        }
        if !missing.is_empty() {
            // The object has at least one field, since a usage was read, so a comma must follow.
            self.splices.insert(open, missing);
        }
    }
}

/// What a body or chunk tells of the usage.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    /// The counts.
    pub(super) reported: Option<Reported>,
    /// Where the object stands that says most of it.
    pub(super) place: Option<Range<usize>>,
    /// There is some value, readable or not.
    pub(super) is_there: bool,
    /// The service tier that it names.
    pub(super) tier: Raw<'a>,
}

impl Fields<'_> {
    /// Whether the details tell the cached tokens.
    fn tells_cached(&self) -> bool {
        let details = [self.prompt_tokens_details, self.input_tokens_details];
        let mut details = details.iter().filter_map(Raw::value).map(InputDetails::read);
        details.any(|details| details.cached_tokens.count().is_some())
    }
}

/// A usage object with the fields that it lacks in OpenAI's schema. `None` if it has neither input nor output tokens.
pub(super) fn completed(object: &str) -> Option<String> {
    let mut shape =
        Shape { base: object.as_bytes(), form: Form::Chat, splices: Splices::default(), tells_role: false };
    shape.complete(object, &read(object)?);
    String::from_utf8(shape.splices.apply(object.as_bytes())?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::Defaults;
    use super::super::Reading;
    use super::*;
    use crate::spend::tokens::Estimator;
    use crate::spend::usage::Usage;

    const HEAD: &str = r#""id":"i","object":"chat.completion.chunk","created":1,"model":"m""#;

    fn reading(form: Form, json: &str) -> (Reading, String) {
        let reading =
            Reading::new(json.as_bytes(), form, &Defaults::default(), &mut Estimator::default()).unwrap();
        let changed = reading.splices.apply(json.as_bytes()).unwrap();
        (reading, String::from_utf8(changed).unwrap())
    }

    /// Input, cached, cache write, output, reasoning, and the total.
    fn counts(object: &str) -> Option<([u64; 5], Option<u64>)> {
        let Reported { input, cached, cache_write, output, reasoning, total, .. } = read(object)?;
        Some(([input, cached, cache_write, output, reasoning], total))
    }

    #[test]
    fn counts_are_read_wherever_a_vendor_tells_them_and_in_every_form_of_number() {
        for (object, expected) in [
            (r#"{"prompt_tokens":"12","completion_tokens":"5","total_tokens":"17"}"#, [12, 0, 0, 5, 0]),
            (r#"{"prompt_tokens":12.0,"completion_tokens":5.0,"total_tokens":17.0}"#, [12, 0, 0, 5, 0]),
            (r#"{"prompt_tokens":-1,"completion_tokens":5,"total_tokens":17}"#, [12, 0, 0, 5, 0]),
            (
                r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"reasoning_tokens":3}"#,
                [12, 0, 0, 5, 3],
            ),
            (
                r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cache_read_input_tokens":7,"cache_creation_input_tokens":2}"#,
                [12, 7, 2, 5, 0],
            ),
            (
                r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_cache_hit_tokens":"7","completion_tokens_details":{"reasoning_tokens":"2"}}"#,
                [12, 7, 0, 5, 2],
            ),
        ] {
            assert_eq!(counts(object), Some((expected, Some(17))), "{object}");
        }
        assert_eq!(counts(r#"{"prompt_tokens":-1,"completion_tokens":-5}"#), None);
        let anthropic = r#"{"input_tokens":50,"cache_read_input_tokens":40,"cache_creation_input_tokens":2,"output_tokens":5}"#;
        assert_eq!(
            counts(anthropic),
            Some(([92, 40, 2, 5, 0], None)),
            "the input does not include the cache"
        );
    }

    #[test]
    fn a_usage_in_a_choice_or_in_x_groq_is_reported_and_not_told_within_a_stream() {
        let usage = r#"{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32,"cost":0.5}"#;
        let end = r#"{"index":0,"delta":{},"finish_reason":"stop""#;
        for chunk in [
            format!(r#"{{{HEAD},"choices":[{end},"usage":{usage}}}]}}"#),
            format!(r#"{{{HEAD},"choices":[{end}}}],"x_groq":{{"id":"r","usage":{usage}}}}}"#),
            format!(r#"{{{HEAD},"choices":[{end}}}],"usage":{usage}}}"#),
            format!(
                r#"{{{HEAD},"choices":[{end},"usage":{usage}}}],"usage":{usage},"x_groq":{{"usage":{usage}}}}}"#
            ),
        ] {
            let (reading, changed) = reading(Form::ChatChunk, &chunk);
            assert_eq!(reading.summary.usage, read(usage), "{chunk}");
            assert_eq!(chunk.get(reading.usage_place.unwrap()), Some(usage), "{chunk}");
            assert_eq!(changed, chunk.replace(usage, "null"));
        }
    }

    #[test]
    fn a_whole_answer_or_a_chunk_without_choices_tells_the_usage_in_its_own_field() {
        let usage = r#"{"prompt_tokens":19,"completion_tokens":13}"#;
        let full = r#"{"total_tokens":32,"prompt_tokens":19,"completion_tokens":13}"#;
        let groq = format!(r#""x_groq":{{"usage":{usage}}}"#);
        let message = r#""logprobs":null,"message":{"role":"assistant","content":"a","refusal":null},"finish_reason":"stop""#;
        let whole = HEAD.replace(".chunk", "");
        for (form, given, expected) in [
            (
                Form::Chat,
                format!(r#"{{{whole},"choices":[{{"index":0,{message},"usage":{usage}}}],"usage":null}}"#),
                format!(r#"{{{whole},"choices":[{{"index":0,{message},"usage":{usage}}}],"usage":{full}}}"#),
            ),
            (
                Form::Chat,
                format!(r#"{{{whole},"choices":[{{"index":0,{message}}}],{groq}}}"#),
                format!(r#"{{"usage":{full},{whole},"choices":[{{"index":0,{message}}}],{groq}}}"#),
            ),
            (
                Form::ChatChunk,
                format!(r#"{{{HEAD},"choices":[],{groq}}}"#),
                format!(r#"{{"usage":{full},{HEAD},"choices":[],"x_groq":{{"usage":null}}}}"#),
            ),
            (
                Form::ChatChunk,
                format!(r#"{{{HEAD},"choices":[],"usage":{full},{groq}}}"#),
                format!(r#"{{{HEAD},"choices":[],"usage":{full},"x_groq":{{"usage":null}}}}"#),
            ),
        ] {
            let (reading, changed) = reading(form, &given);
            assert_eq!(changed, expected);
            assert!(reading.has_usage_object);
            let counts = reading.summary.usage.map(|usage| (usage.input, usage.output));
            assert_eq!(counts, Some((19, 13)), "{given}");
        }
    }

    #[test]
    fn a_client_is_told_what_the_provider_said_while_the_record_is_reconciled() {
        for (object, expected) in [
            (
                r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}"#,
                (32, 103, 94),
            ),
            (r#"{"prompt_tokens":20,"completion_tokens":198,"total_tokens":623}"#, (20, 603, 405)),
            (
                r#"{"prompt_tokens":3,"completion_tokens":5,"total_tokens":4008,"prompt_tokens_details":{"cached_tokens":4000}}"#,
                (4003, 5, 0),
            ),
            (r#"{"prompt_tokens":3,"completion_tokens":5,"total_tokens":7}"#, (3, 5, 0)),
        ] {
            assert_eq!(completed(object).as_deref(), Some(object));
            let Usage { input, output, reasoning, .. } = read(object).unwrap().reconcile().0;
            assert_eq!((input, output, reasoning), expected, "{object}");
        }
    }

    #[test]
    fn cached_tokens_that_are_null_in_the_details_are_replaced_there() {
        let given = r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_cache_hit_tokens":7,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":null}}"#;
        let expected = given.replace(r#""cached_tokens":null"#, r#""cached_tokens":7"#);
        assert_eq!(completed(given), Some(expected));
    }

    #[test]
    fn what_is_no_usage_becomes_no_usage() {
        for object in ["{}", "[]", "7", r#""x""#, r#"{"total_tokens":7}"#, r#"{"prompt_tokens":null}"#] {
            assert_eq!(completed(object), None, "{object}");
        }
    }
}
