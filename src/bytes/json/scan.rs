//! A reader of JSON that keeps nothing of it: it takes a text in pieces of any size, and says whether it can still become JSON.

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value. `or_end`: or the end of an empty list.
    Value { or_end: bool },
    /// The name of a field. `or_end`: or the end of an empty object.
    Key { or_end: bool },
    /// The colon behind a name.
    Colon,
    /// A comma or the end of the object or list; white space if the whole text is complete.
    Behind,
    /// The inside of a string.
    Text { key: bool },
    /// What stands behind a backslash.
    Escape { key: bool },
    /// Digits of a `\u` escape, of which so many are missing.
    Hex { key: bool, left: u8 },
    /// Bytes of a letter in UTF-8, of which so many are missing. The next one lies in this range.
    Letter { key: bool, left: u8, low: u8, high: u8 },
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// A number.
    Number(Number),
    /// No text that begins in this way is JSON.
    Broken,
}

/// How far a number has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    /// The sign was read.
    Sign,
    /// A zero was read, which no digit may follow.
    Zero,
    /// Digits were read.
    Digits,
    /// The point was read.
    Point,
    /// Digits behind the point were read.
    Fraction,
    /// The `e` was read.
    Exponent,
    /// The sign of the exponent was read.
    ExponentSign,
    /// Digits of the exponent were read.
    ExponentDigits,
}

impl Number {
    /// The number with one more byte; `None` if the byte does not belong to it.
    const fn then(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Sign, b'0') => Self::Zero,
            (Self::Sign | Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Self::ExponentDigits,
            _ => return None,
        })
    }

    const fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits)
    }
}

/// Objects and lists within each other that are read; what is deeper is refused, as by the readers of most clients.
const DEEPEST: usize = 500;

/// The reader of one text.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    /// What is open: true for an object, false for a list.
    open: Vec<bool>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Value { or_end: false }, open: Vec::new() }
    }
}

impl Scanner {
    /// Reads the next bytes. Returns false if the text is no JSON, whatever follows.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.state = self.after(*byte);
        }
        self.state != State::Broken
    }

    /// Whether the text so far is complete JSON.
    pub fn is_complete(&self) -> bool {
        let ended = match self.state {
            State::Behind => true,
            State::Number(number) => number.may_end(),
            _ => false,
        };
        ended && self.open.is_empty()
    }

    /// Whether a value may begin here.
    pub fn expects_value(&self) -> bool {
        matches!(self.state, State::Value { .. })
    }

    /// Whether a byte of a string may stand here: `Some(true)` in the name of a field, `Some(false)` in a value.
    pub fn in_text(&self) -> Option<bool> {
        match self.state {
            State::Text { key } => Some(key),
            _ => None,
        }
    }

    /// How many objects and lists are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    fn after(&mut self, byte: u8) -> State {
        match self.state {
            State::Text { key } => text(byte, key),
            State::Escape { key } => match byte {
                b'u' => State::Hex { key, left: 4 },
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text { key },
                _ => State::Broken,
            },
            State::Hex { key, left } => match (byte.is_ascii_hexdigit(), left) {
                (false, _) => State::Broken,
                (true, 2..) => State::Hex { key, left: left - 1 },
                (true, _) => State::Text { key },
            },
            State::Letter { key, left, low, high } => match (low <= byte && byte <= high, left) {
                (false, _) => State::Broken,
                (true, 2..) => State::Letter { key, left: left - 1, low: 0x80, high: 0xBF },
                (true, _) => State::Text { key },
            },
            State::Word(rest) => match rest {
                [next, rest @ ..] if *next == byte => match rest {
                    [] => State::Behind,
                    _ => State::Word(rest),
                },
                _ => State::Broken,
            },
            State::Number(number) => match number.then(byte) {
                Some(number) => State::Number(number),
                None if number.may_end() => self.behind(byte),
                None => State::Broken,
            },
            state if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => state,
            State::Value { or_end } => self.value(byte, or_end),
            State::Key { or_end } => match byte {
                b'"' => State::Text { key: true },
                b'}' if or_end => self.close(true),
                _ => State::Broken,
            },
            State::Colon if byte == b':' => State::Value { or_end: false },
            State::Behind => self.behind(byte),
            State::Colon | State::Broken => State::Broken,
        }
    }

    fn value(&mut self, byte: u8, or_end: bool) -> State {
        match byte {
            b'"' => State::Text { key: false },
            b'{' | b'[' if self.open.len() >= DEEPEST => State::Broken,
            b'{' => {
                self.open.push(true);
                State::Key { or_end: true }
            }
            b'[' => {
                self.open.push(false);
                State::Value { or_end: true }
            }
            b']' if or_end => self.close(false),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Sign),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => State::Broken,
        }
    }

    /// The byte behind a value.
    fn behind(&mut self, byte: u8) -> State {
        match (byte, self.open.last()) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => State::Behind,
            (b',', Some(true)) => State::Key { or_end: false },
            (b',', Some(false)) => State::Value { or_end: false },
            (b'}', _) => self.close(true),
            (b']', _) => self.close(false),
            _ => State::Broken,
        }
    }

    fn close(&mut self, object: bool) -> State {
        if self.open.pop() == Some(object) {
            State::Behind
        } else {
            State::Broken
        }
    }
}

/// What follows a byte within a string.
fn text(byte: u8, key: bool) -> State {
    let letter = |left, low, high| State::Letter { key, left, low, high };
    match byte {
        b'"' if key => State::Colon,
        b'"' => State::Behind,
        b'\\' => State::Escape { key },
        b' '..=0x7F => State::Text { key },
        0xC2..=0xDF => letter(1, 0x80, 0xBF),
        0xE0 => letter(2, 0xA0, 0xBF),
        0xED => letter(2, 0x80, 0x9F),
        0xE1..=0xEF => letter(2, 0x80, 0xBF),
        0xF0 => letter(3, 0x90, 0xBF),
        0xF1..=0xF3 => letter(3, 0x80, 0xBF),
        0xF4 => letter(3, 0x80, 0x8F),
        _ => State::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a text is complete JSON.
    fn is_json(text: &[u8]) -> bool {
        let mut scanner = Scanner::default();
        scanner.feed(text) && scanner.is_complete()
    }

    const GOOD: [&str; 9] = [
        r#" {"a":[1,-0,0.5,1e9,-1.25E-3,true,false,null,"x\n\u00e9\"\\/",{}],"b":{"c":[]}} "#,
        "0",
        "\"é€😀\u{7f}\"",
        "[ ]",
        "{ }",
        r#"["\ud83d"]"#,
        "[[],[[]],{\"\":\"\"}]",
        "null",
        "-1",
    ];

    #[test]
    fn json_is_json_and_each_beginning_of_it_can_become_json() {
        for text in GOOD {
            assert!(is_json(text.as_bytes()), "{text}");
            for end in 0..text.len() {
                assert!(Scanner::default().feed(&text.as_bytes()[..end]), "{text} up to {end}");
            }
        }
    }

    /// The reader that this one is held against: serde_json's own.
    #[test]
    fn a_text_with_any_byte_in_any_place_is_json_where_it_is_for_every_other_reader() {
        for text in GOOD {
            for at in 0..=text.len() {
                for byte in 0..=255_u8 {
                    let (before, behind) = text.as_bytes().split_at(at);
                    for changed in [
                        [before, &[byte], behind].concat(),
                        [before, &[byte], behind.get(1..).unwrap_or_default()].concat(),
                    ] {
                        let read: Result<&serde_json::value::RawValue, _> = serde_json::from_slice(&changed);
                        assert_eq!(is_json(&changed), read.is_ok(), "{}", String::from_utf8_lossy(&changed));
                    }
                }
            }
        }
    }

    #[test]
    fn what_can_never_become_json_is_known_at_once() {
        for text in [
            "01",
            "1.x",
            "+1",
            ".5",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "\"\\x\"",
            "\"\t",
            "}",
            "{} {",
            "\"\u{1}",
            "nul,",
        ] {
            assert!(!Scanner::default().feed(text.as_bytes()), "{text}");
        }
        let deep = "[".repeat(DEEPEST + 1);
        assert!(!Scanner::default().feed(deep.as_bytes()));
    }
}
