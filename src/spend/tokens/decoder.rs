//! Escapes of JSON strings and UTF-8, cut anywhere.

/// Puts the code points together whose bytes are not themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoder {
    escape: Escape,
    /// What is known of the unfinished code point.
    point: u32,
    /// Bytes or hexadecimal digits of it that are still to come.
    missing: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    /// After a backslash.
    Begun,
    /// Within the digits of `\u`.
    Digits,
}

impl Decoder {
    /// Whether the next byte belongs to an escape, whatever it is.
    pub(super) fn is_in_escape(&self) -> bool {
        self.escape != Escape::No
    }

    /// Takes a backslash, a byte of an escape, or a byte beyond ASCII, and returns the code point that it completes.
    /// Halves of surrogate pairs are returned as they are.
    pub(super) fn push(&mut self, byte: u8) -> Option<u32> {
        match self.escape {
            Escape::No => match byte {
                b'\\' => self.escape = Escape::Begun,
                0x80..=0xBF if self.missing > 0 => {
                    self.point = (self.point << 6) | u32::from(byte & 0x3F);
                    return self.one_less();
                }
                0xC0..=0xDF => (self.point, self.missing) = (u32::from(byte & 0x1F), 1),
                0xE0..=0xEF => (self.point, self.missing) = (u32::from(byte & 0x0F), 2),
                0xF0.. => (self.point, self.missing) = (u32::from(byte & 0x07), 3),
                // The rest of a character that was cut off.
                _ => {}
            },
            Escape::Begun => {
                self.escape = Escape::No;
                return Some(u32::from(match byte {
                    b'u' => {
                        (self.escape, self.point, self.missing) = (Escape::Digits, 0, 4);
                        return None;
                    }
                    b'n' | b'r' => b'\n',
                    b't' | b'b' | b'f' => b'\t',
                    _ => byte,
                }));
            }
            Escape::Digits => {
                self.point = (self.point << 4) | char::from(byte).to_digit(16).unwrap_or(0);
                let point = self.one_less();
                if point.is_some() {
                    self.escape = Escape::No;
                }
                return point;
            }
        }
        None
    }

    fn one_less(&mut self) -> Option<u32> {
        self.missing = self.missing.saturating_sub(1);
        (self.missing == 0).then_some(self.point)
    }
}
