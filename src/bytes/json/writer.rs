//! Writing JSON into one text, and the one place where a text becomes a JSON string.

/// JSON that is being written from left to right, all of it into one text. Commas are set where they belong.
///
/// Names that stand in the code are `&'static str` and need no escapes; [`Writer::key`] takes any other name. The larger methods are never
/// inlined: translations call them from very many places.
#[derive(Debug, Default)]
pub struct Writer(String);

impl Writer {
    /// Begins with nothing, and with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Begins an object, which [`Writer::finish`] closes.
    #[inline(never)]
    pub fn object() -> Self {
        Self("{".to_owned())
    }

    /// Begins a list, which [`Writer::finish`] closes.
    #[inline(never)]
    pub fn list() -> Self {
        Self("[".to_owned())
    }

    /// Sets a comma, unless what follows is the first of its object or list, or the value of a name. No value ends with an
    /// opening bracket or a colon, so the last byte says which.
    fn comma(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }

    /// Opens an object within what is written.
    pub fn open_object(&mut self) {
        self.comma();
        self.0.push('{');
    }

    /// Closes the object that was opened last.
    pub fn close_object(&mut self) {
        self.0.push('}');
    }

    /// Opens a list within what is written.
    pub fn open_list(&mut self) {
        self.comma();
        self.0.push('[');
    }

    /// Closes the list that was opened last.
    pub fn close_list(&mut self) {
        self.0.push(']');
    }

    /// The name of the field whose value is written next.
    #[inline(never)]
    pub fn name(&mut self, name: &'static str) {
        debug_assert!(is_plain(name), "{name}");
        self.comma();
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// The name of the field whose value is written next, if the name comes from outside.
    pub fn key(&mut self, key: &str) {
        self.string(key);
        self.0.push(':');
    }

    /// A value that is JSON already.
    #[inline(never)]
    pub fn value(&mut self, json: &str) {
        self.comma();
        self.0.push_str(json);
    }

    /// A string.
    #[inline(never)]
    pub fn string(&mut self, text: &str) {
        self.comma();
        push_quoted(&mut self.0, text);
    }

    /// A string that `write` appends, which must not need escapes.
    pub fn plain(&mut self, write: impl FnOnce(&mut String)) {
        self.comma();
        self.0.push('"');
        write(&mut self.0);
        self.0.push('"');
    }

    /// A field whose value is JSON already.
    #[inline(never)]
    pub fn field(&mut self, name: &'static str, json: &str) {
        self.name(name);
        self.0.push_str(json);
    }

    /// A field that is a string.
    #[inline(never)]
    pub fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        push_quoted(&mut self.0, text);
    }

    /// A field that is a number.
    #[inline(never)]
    pub fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        self.0.push_str(itoa::Buffer::new().format(number));
    }

    /// A field that is true or false.
    pub fn boolean(&mut self, name: &'static str, boolean: bool) {
        self.field(name, if boolean { "true" } else { "false" });
    }

    /// Whether nothing but an opening bracket is written.
    pub fn is_empty(&self) -> bool {
        self.0.len() <= 1
    }

    /// The text that is written so far.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Closes the object or list that this writer began with; the whole text.
    #[inline(never)]
    pub fn finish(mut self) -> String {
        self.0.push(if self.0.starts_with('[') { ']' } else { '}' });
        self.0
    }
}

/// A text as a JSON string, with its quotes and escapes.
#[inline(never)]
pub fn quoted(text: &str) -> String {
    if is_plain(text) {
        return ["\"", text, "\""].concat();
    }
    escaped(text)
}

/// Appends a text as a JSON string, with its quotes and escapes.
fn push_quoted(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&escaped(text));
    }
}

/// Whether a text needs no escapes, as most do not: they are names.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
}

fn escaped(text: &str) -> String {
    // Writing a text into memory cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = Writer::object();
        assert!(out.is_empty());
        out.text("a", "\n");
        out.number("b", 3);
        out.key("c\"");
        out.value("[]");
        assert_eq!(out.finish(), r#"{"a":"\n","b":3,"c\"":[]}"#);
        let mut out = Writer::list();
        out.value("1");
        out.value("{}");
        assert_eq!(out.finish(), "[1,{}]");
    }

    #[test]
    fn objects_and_lists_stand_within_each_other() {
        let mut out = Writer::with_capacity(64);
        out.open_list();
        out.open_object();
        out.boolean("x", true);
        out.name("y");
        out.open_list();
        out.close_list();
        out.name("z");
        out.open_object();
        out.close_object();
        out.name("s");
        out.plain(|out| out.push_str("1.5"));
        out.close_object();
        out.string("a,[");
        out.string("b");
        out.close_list();
        assert_eq!(out.into_text(), r#"[{"x":true,"y":[],"z":{},"s":"1.5"},"a,[","b"]"#);
    }

    #[test]
    fn a_text_is_quoted_as_serde_json_quotes_it() {
        for text in ["", "plain", "a\"b\n", "\\", "\u{0}\u{1f}\u{7f}", "é😀\u{2028}", "tab\t"] {
            let expected = serde_json::to_string(text).unwrap();
            assert_eq!(quoted(text), expected);
            let mut out = Writer::default();
            out.string(text);
            assert_eq!(out.into_text(), expected);
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, u64::MAX] {
            let mut out = Writer::object();
            out.number("n", number);
            assert_eq!(out.finish(), format!("{{\"n\":{number}}}"));
        }
    }
}
