//! The state machine: raw JSON text in, an estimate out.

use super::decoder::Decoder;
use super::weights::{
    beyond, joined, pair, step, Beyond, CJK_START, HAN, HAN_IN_JAPANESE, HAN_TRADITIONAL, OTHER_LATIN, TOKEN,
};

/// Base64 of one token of sound: GPT-4o hears ten a second; an MP3 of 128 kbit/s has 21 300 characters a second.
pub(super) const SOUND_BYTES: i64 = 2133;

/// A word that begins without a space or a sign before it.
const BARE: i64 = 7;

/// A capital after a capital.
const CAPITALS: i64 = 6;

/// The least that a word costs.
const LEAST: i64 = 40;

/// The second half of "it's" or "don't".
const CONTRACTION: i64 = 9;

/// Signs and spaces that repeat have tokens up to about this length.
const REPEATS: u32 = 32;

/// Counts the tokens of one text that comes in pieces.
///
/// Each piece is raw JSON string content: what stands between the quotes, with its escapes. Escapes, characters and
/// words may be cut anywhere; the count is the same as that of the whole.
///
/// The text is cut as `o200k_base` cuts it before it merges (words with the space or sign before them, digits in threes,
/// runs of signs, runs of spaces, line ends), and each part is given what such a part costs on average.
#[derive(Clone, Debug)]
pub struct Estimator {
    /// What is finished, in units.
    units: i64,
    /// What the unfinished word or run of signs costs so far.
    pending: i64,
    /// What it costs at least.
    least: i64,
    kind: Kind,
    /// Characters of the unfinished part.
    length: u32,
    /// Signs that differ from the one before, in a run of signs.
    changes: u32,
    /// The last letter's number, or the last sign.
    last: u32,
    /// The last letter was a capital.
    capital: bool,
    /// What stands before a run of signs: a letter may only be joined to a sign with no space before it.
    before: Kind,
    /// What a Chinese character costs, by what was seen of the language.
    han: i64,
    decoder: Decoder,
    /// Nothing is read.
    idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    /// Latin letters.
    Word,
    /// Letters of another script.
    Script,
    Digits,
    Spaces,
    Signs,
    /// Line ends.
    Lines,
    /// Line ends that belong to the signs before them.
    SignsAndLines,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            units: 0,
            pending: 0,
            least: 0,
            kind: Kind::Nothing,
            length: 0,
            changes: 0,
            last: 0,
            capital: false,
            before: Kind::Nothing,
            han: HAN,
            decoder: Decoder::default(),
            idle: false,
        }
    }
}

impl Estimator {
    /// One that reads nothing: where nobody may need the estimate.
    pub fn idle() -> Self {
        Self { idle: true, ..Self::default() }
    }

    /// Reads the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        if self.idle {
            return;
        }
        let mut bytes = piece.iter();
        while let Some(byte) = bytes.next().copied() {
            let is_plain = byte < 0x80 && byte != b'\\' && !self.decoder.is_in_escape();
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' if is_plain => {
                    self.ascii(byte);
                    let rest = bytes.as_slice();
                    bytes = rest.get(self.small_letters(rest)..).unwrap_or_default().iter();
                }
                _ if is_plain => self.ascii(byte),
                _ => match self.decoder.push(byte) {
                    None => {}
                    Some(point) => match u8::try_from(point) {
                        Ok(ascii @ ..0x80) => self.ascii(ascii),
                        _ => self.character(point),
                    },
                },
            }
        }
    }

    /// Adds sound, by the length of its base64.
    pub fn add_sound(&mut self, bytes: usize) {
        if !self.idle {
            let units = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(TOKEN) / SOUND_BYTES;
            self.units = self.units.saturating_add(units);
        }
    }

    /// The estimate for what was read so far.
    pub fn tokens(&self) -> u64 {
        let mut whole = self.clone();
        whole.finish(Kind::Nothing);
        u64::try_from(whole.units.saturating_add(TOKEN / 2) / TOKEN).unwrap_or(0)
    }

    fn ascii(&mut self, byte: u8) {
        match byte {
            b'a'..=b'z' => self.letter(byte - b'a', false),
            b'A'..=b'Z' => self.letter(byte - b'A', true),
            b'0'..=b'9' => self.digit(),
            b' ' | b'\t' => self.space(),
            b'\n' | b'\r' => self.line(),
            _ => self.sign(u32::from(byte)),
        }
    }

    fn character(&mut self, point: u32) {
        match beyond(point) {
            Beyond::Latin(capital) => self.letter(OTHER_LATIN, capital),
            Beyond::Letter { start, each } => self.script(start, each),
            Beyond::Han(traditional) => {
                if traditional && self.han == HAN {
                    self.han = HAN_TRADITIONAL;
                }
                self.script(CJK_START, self.han);
            }
            Beyond::Kana(each) => {
                self.han = HAN_IN_JAPANESE;
                self.script(CJK_START, each);
            }
            Beyond::Mark(units) => self.units = self.units.saturating_add(units),
            Beyond::Sign => self.sign(point),
            Beyond::Picture(units) => self.picture(point, units),
            Beyond::Space => self.space(),
        }
    }

    /// A Latin letter, by its number in the alphabet.
    fn letter(&mut self, letter: u8, capital: bool) {
        // A capital after a small letter begins a word: camelCase.
        if self.kind == Kind::Word && (self.capital || !capital) {
            let last = u8::try_from(self.last).unwrap_or(OTHER_LATIN);
            let capitals = if self.capital && capital { CAPITALS } else { 0 };
            self.pending = self.pending.saturating_add(pair(last, letter) + step(self.length) + capitals);
        } else if self.is_contraction(letter) {
            self.start(Kind::Word, CONTRACTION);
            self.least = 0;
        } else {
            let bare = if self.kind == Kind::Spaces || self.is_lone_sign() { 0 } else { BARE };
            self.finish(Kind::Word);
            self.start(Kind::Word, step(0) + bare);
            self.least = LEAST;
        }
        self.length = self.length.saturating_add(1);
        self.last = u32::from(letter);
        self.capital = capital;
    }

    /// Reads on to the end of the small letters, as [`Self::letter`] would: most of most texts. How many there were.
    fn small_letters(&mut self, rest: &[u8]) -> usize {
        let mut last = u8::try_from(self.last).unwrap_or(OTHER_LATIN);
        let (mut pending, mut read) = (self.pending, 0_u32);
        for byte in rest {
            let letter = byte.wrapping_sub(b'a');
            if letter >= OTHER_LATIN {
                break;
            }
            pending += pair(last, letter) + step(self.length.saturating_add(read));
            last = letter;
            read = read.saturating_add(1);
        }
        if read > 0 {
            self.pending = pending;
            self.length = self.length.saturating_add(read);
            self.last = u32::from(last);
            self.capital = false;
        }
        usize::try_from(read).unwrap_or(0)
    }

    /// A letter of another script.
    fn script(&mut self, start: i64, each: i64) {
        if self.kind != Kind::Script {
            self.finish(Kind::Script);
            self.start(Kind::Script, 0);
            self.units = self.units.saturating_add(start);
        }
        self.units = self.units.saturating_add(each);
    }

    /// Digits are cut in threes.
    fn digit(&mut self) {
        if self.kind != Kind::Digits {
            self.finish(Kind::Digits);
            self.start(Kind::Digits, 0);
        }
        if self.length % 3 == 0 {
            self.units = self.units.saturating_add(TOKEN);
        }
        self.length = self.length.saturating_add(1);
    }

    fn space(&mut self) {
        if self.kind != Kind::Spaces {
            self.finish(Kind::Spaces);
            self.start(Kind::Spaces, 0);
        }
        self.length = self.length.saturating_add(1);
    }

    /// A line end joins the signs and the spaces before it.
    fn line(&mut self) {
        match self.kind {
            Kind::Lines | Kind::SignsAndLines => {}
            Kind::Signs => {
                self.finish(Kind::Lines);
                self.start(Kind::SignsAndLines, 0);
            }
            _ => {
                self.finish(Kind::Lines);
                self.start(Kind::Lines, 0);
                self.units = self.units.saturating_add(TOKEN);
            }
        }
    }

    fn sign(&mut self, sign: u32) {
        if self.kind == Kind::Signs {
            let more = if sign == self.last {
                if self.length % REPEATS == 0 {
                    TOKEN
                } else {
                    0
                }
            } else {
                self.changes = self.changes.saturating_add(1);
                match self.changes {
                    _ if sign >= 0x80 => 60,
                    1 => 3,
                    2 => 11,
                    _ => 20,
                }
            };
            self.pending = self.pending.saturating_add(more);
        } else {
            self.start_signs(TOKEN);
        }
        self.length = self.length.saturating_add(1);
        self.last = sign;
    }

    fn picture(&mut self, point: u32, units: i64) {
        if self.kind == Kind::Signs {
            self.pending = self.pending.saturating_add(units);
        } else {
            self.start_signs(units);
        }
        self.length = self.length.saturating_add(1);
        self.last = point;
    }

    fn start_signs(&mut self, units: i64) {
        let before = self.kind;
        self.finish(Kind::Signs);
        self.start(Kind::Signs, units);
        self.before = before;
    }

    fn start(&mut self, kind: Kind, pending: i64) {
        self.kind = kind;
        self.pending = pending;
        self.least = 0;
        self.length = 0;
        self.changes = 0;
    }

    /// One sign with no space before it, which belongs to the word that follows.
    fn is_lone_sign(&self) -> bool {
        self.kind == Kind::Signs && self.length == 1 && self.before != Kind::Spaces
    }

    /// Whether a letter comes after the apostrophe of 's, 't, 'm, 'd, 're, 've or 'll.
    fn is_contraction(&self, letter: u8) -> bool {
        self.is_lone_sign()
            && self.last == u32::from(b'\'')
            && self.before == Kind::Word
            && matches!(letter + b'a', b's' | b't' | b'm' | b'd' | b'r' | b'v' | b'l')
    }

    /// Counts the unfinished part, now that it is known what comes next.
    fn finish(&mut self, next: Kind) {
        let letters = matches!(next, Kind::Word | Kind::Script);
        let units = match self.kind {
            Kind::Word => {
                let most = i64::from(self.length).saturating_add(1).saturating_mul(TOKEN / 2);
                self.pending.min(most).max(self.least)
            }
            Kind::Signs if letters && self.is_lone_sign() => joined(self.last),
            Kind::Signs => self.pending,
            Kind::Spaces => {
                // One of them belongs to the word or the signs that follow; digits take none, line ends all.
                let alone = match next {
                    Kind::Word | Kind::Script | Kind::Signs => i64::from(self.length > 1),
                    Kind::Digits => 1 + i64::from(self.length > 1),
                    Kind::Lines => 0,
                    _ => 1,
                };
                (alone + i64::from(self.length / (3 * REPEATS))).saturating_mul(TOKEN)
            }
            _ => 0,
        };
        self.units = self.units.saturating_add(units);
        self.pending = 0;
    }
}
