//! YAML as APISIX reads it: libyaml finds the structure, and a plain text becomes what YAML 1.1 says it is. So `yes` is true,
//! `010` is 8, and `01:00` is 60.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;

use serde_json::{Map, Value as Json};
use unsafe_libyaml as unsafe_lib;

/// The first document of a text. A key that stands twice counts as it stands last.
pub fn load(text: &str) -> Result<Json, String> {
    let mut reader = Reader { events: events(text)?.into_iter(), anchors: HashMap::new() };
    match reader.next()? {
        Some(value) => Ok(value),
        None => Ok(Json::Null),
    }
}

enum Event {
    /// Its text, whether it was written plainly, its tag and its anchor.
    Scalar {
        text: String,
        plain: bool,
        tag: Option<String>,
        anchor: Option<String>,
    },
    Mapping(Option<String>),
    Sequence(Option<String>),
    Alias(String),
    End,
}

struct Reader {
    events: std::vec::IntoIter<Event>,
    anchors: HashMap<String, Json>,
}

impl Reader {
    /// The next value; `None` at the end of what holds it.
    fn next(&mut self) -> Result<Option<Json>, String> {
        let (value, anchor) = match self.events.next() {
            None | Some(Event::End) => return Ok(None),
            Some(Event::Alias(name)) => {
                let value = self.anchors.get(&name).cloned();
                return value.map(Some).ok_or(format!("the anchor {name} is not known"));
            }
            Some(Event::Scalar { text, plain, tag, anchor }) => {
                let value = match tag.as_deref() {
                    None if plain => scalar(&text),
                    None | Some("tag:yaml.org,2002:str" | "!") => Json::String(text),
                    Some(tag) => return Err(format!("the stand-in does not know the tag {tag}")),
                };
                (value, anchor)
            }
            Some(Event::Mapping(anchor)) => (self.mapping()?, anchor),
            Some(Event::Sequence(anchor)) => {
                let mut all = Vec::new();
                while let Some(value) = self.next()? {
                    all.push(value);
                }
                (Json::Array(all), anchor)
            }
        };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(Some(value))
    }

    fn mapping(&mut self) -> Result<Json, String> {
        let mut all = Map::new();
        while let Some(key) = self.next()? {
            let Json::String(key) = key else {
                return Err(format!("the key {key} is no text: it needs quotes"));
            };
            let value = self.next()?.ok_or(format!("{key} has no value"))?;
            if key != "<<" {
                all.insert(key, value);
                continue;
            }
            let Json::Object(merged) = value else {
                return Err("the stand-in merges one mapping at a time".to_owned());
            };
            for (key, value) in merged {
                all.entry(key).or_insert(value);
            }
        }
        Ok(Json::Object(all))
    }
}

/// What a plain text means.
fn scalar(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Json::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Json::Bool(false),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match whole(digits).map(|number| number as f64).or_else(|| fraction(digits)) {
        Some(number) => json_number(if negative { -number } else { number }),
        None => Json::String(text.to_owned()),
    }
}

/// A number without its sign: octal, decimal, hexadecimal, binary or to the base 60.
fn whole(digits: &str) -> Option<i64> {
    let first_is_digit = digits.starts_with(|c: char| c.is_ascii_digit());
    let only = |text: &str, allowed: &str| !text.is_empty() && text.chars().all(|c| allowed.contains(c));
    let radix = |text: &str, radix| i64::from_str_radix(&text.replace('_', ""), radix).ok();
    if !first_is_digit {
        return None;
    }
    if let Some(rest) = digits.strip_prefix("0x").filter(|rest| only(rest, "0123456789abcdefABCDEF_")) {
        return radix(rest, 16);
    }
    if let Some(rest) = digits.strip_prefix("0b").filter(|rest| only(rest, "01_")) {
        return radix(rest, 2);
    }
    if let Some(rest) = digits.strip_prefix('0').filter(|rest| only(rest, "01234567_")) {
        return radix(rest, 8);
    }
    if only(digits, "0123456789_") {
        return radix(digits, 10);
    }
    sixties(digits)
}

/// Hours and minutes, or degrees: each part after the first is below 60.
fn sixties(digits: &str) -> Option<i64> {
    let mut parts = digits.split(':');
    let mut number: i64 = parts.next()?.parse().ok()?;
    let mut more = false;
    for part in parts {
        let value: i64 = part.parse().ok().filter(|_| part.len() <= 2 && !part.starts_with('+'))?;
        if value >= 60 {
            return None;
        }
        number = number.checked_mul(60)?.checked_add(value)?;
        more = true;
    }
    more.then_some(number)
}

fn fraction(digits: &str) -> Option<f64> {
    let digits = digits.replace('_', "");
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || ".eE+-".contains(c));
    if let Some((whole, part)) = digits.split_once('.').filter(|(whole, _)| whole.contains(':')) {
        let part: f64 = format!("0.{part}").parse().ok()?;
        return sixties(whole).map(|whole| whole as f64 + part);
    }
    let is_one = digits.contains(['.', 'e', 'E']) && digits.contains(|c: char| c.is_ascii_digit());
    (is_one && number(&digits)).then(|| digits.parse().ok()).flatten()
}

/// Lua has one kind of number, and writes a whole one without a fraction.
fn json_number(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return Json::from(number as i64);
    }
    serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// What libyaml finds in the first document.
fn events(text: &str) -> Result<Vec<Event>, String> {
    let mut parser = MaybeUninit::<unsafe_lib::yaml_parser_t>::uninit();
    let parser = parser.as_mut_ptr();
    let mut all = Vec::new();
    // SAFETY: as libyaml's documentation asks, the parser is initialized before its use and deleted after it, each event
    // that was parsed is deleted once, and `text` outlives both.
    unsafe {
        if unsafe_lib::yaml_parser_initialize(parser).fail {
            return Err("libyaml has no memory".to_owned());
        }
        unsafe_lib::yaml_parser_set_input_string(parser, text.as_ptr(), text.len() as u64);
        let result = loop {
            let mut event = MaybeUninit::<unsafe_lib::yaml_event_t>::uninit();
            let event = event.as_mut_ptr();
            if unsafe_lib::yaml_parser_parse(parser, event).fail {
                let failed = &*parser;
                let why =
                    if failed.problem.is_null() { "no YAML".into() } else { string(failed.problem.cast()) };
                break Err(format!("line {}: {why}", failed.problem_mark.line + 1));
            }
            let kind = (*event).type_;
            all.extend(taken(&*event));
            unsafe_lib::yaml_event_delete(event);
            if matches!(kind, unsafe_lib::YAML_DOCUMENT_END_EVENT | unsafe_lib::YAML_STREAM_END_EVENT) {
                break Ok(());
            }
        };
        unsafe_lib::yaml_parser_delete(parser);
        result.map(|()| all)
    }
}

/// A copy of what an event says.
///
/// # Safety
///
/// The event comes from libyaml and was not deleted: its kind says which of its data is there.
unsafe fn taken(event: &unsafe_lib::yaml_event_t) -> Option<Event> {
    let named = |name: *mut u8| (!name.is_null()).then(|| unsafe { string(name.cast()) });
    let data = &event.data;
    unsafe {
        Some(match event.type_ {
            unsafe_lib::YAML_SCALAR_EVENT => {
                let bytes = std::slice::from_raw_parts(data.scalar.value, data.scalar.length as usize);
                Event::Scalar {
                    text: String::from_utf8_lossy(bytes).into_owned(),
                    plain: data.scalar.style == unsafe_lib::YAML_PLAIN_SCALAR_STYLE,
                    tag: named(data.scalar.tag),
                    anchor: named(data.scalar.anchor),
                }
            }
            unsafe_lib::YAML_MAPPING_START_EVENT => Event::Mapping(named(data.mapping_start.anchor)),
            unsafe_lib::YAML_SEQUENCE_START_EVENT => Event::Sequence(named(data.sequence_start.anchor)),
            unsafe_lib::YAML_ALIAS_EVENT => Event::Alias(string(data.alias.anchor.cast())),
            unsafe_lib::YAML_MAPPING_END_EVENT | unsafe_lib::YAML_SEQUENCE_END_EVENT => Event::End,
            _ => return None,
        })
    }
}

/// # Safety
///
/// `text` is one that libyaml ended with a zero.
unsafe fn string(text: *const std::ffi::c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_text_is_what_yaml_1_1_says() {
        for (text, value) in [
            ("01:00", json!(60)),
            ("-1:30", json!(-90)),
            ("1:01:01", json!(3661)),
            ("1:30.5", json!(90.5)),
            ("9:60", json!("9:60")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("010", json!(8)),
            ("08", json!(8)),
            ("0", json!(0)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("0o17", json!("0o17")),
            ("1_000", json!(1000)),
            ("1e3", json!(1000)),
            ("0.15", json!(0.15)),
            ("1.0", json!(1)),
            ("~", Json::Null),
            ("", Json::Null),
            ("5m", json!("5m")),
            ("v1", json!("v1")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("127.0.0.1:9081", json!("127.0.0.1:9081")),
            ("gpt-5.4-mini", json!("gpt-5.4-mini")),
            ("-", json!("-")),
            ("e", json!("e")),
        ] {
            assert_eq!(scalar(text), value, "{text}");
        }
    }

    #[test]
    fn what_is_quoted_stays_a_text() {
        assert_eq!(
            load("a: \"01:00\"\nb: '010'\nc: !!str no").unwrap(),
            json!({"a": "01:00", "b": "010", "c": "no"})
        );
    }

    #[test]
    fn anchors_and_merges_are_resolved() {
        let text = "a: &x {b: [1, two], c: 3}\nd: *x\ne: {<<: *x, c: 4}\n";
        let x = json!({"b": [1, "two"], "c": 3});
        assert_eq!(load(text).unwrap(), json!({"a": x, "d": x, "e": {"b": [1, "two"], "c": 4}}));
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_line() {
        assert!(load("a: b\n c: [").unwrap_err().starts_with("line 2"));
        assert!(load("a: *b").unwrap_err().contains("anchor b"));
        assert!(load("on: 1").unwrap_err().contains("no text"));
    }
}
