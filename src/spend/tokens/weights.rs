//! What letters and signs cost, in 1/64 of a token.
//!
//! `STEPS` and `PAIRS` are fitted to OpenAI's `o200k_base` by `scripts/fit-tokens.py`, which reads the texts of
//! published packages (prose and messages in 19 languages, Python, JavaScript and HTML), writes both, and prints the
//! errors by kind of text. On texts that the fit has not seen the estimate is off by 4.7 % in the mean. Without the
//! pairs it would be 8.7 %, and a quarter to a third in languages that have few tokens of their own, such as Czech,
//! Polish or Turkish: the pairs are what tells languages apart. The other numbers here and in the estimator come from an
//! earlier fit of the same kind; the script measures what they do, too, but does not fit them.

/// One token.
pub(super) const TOKEN: i64 = 64;

/// What a word's first, second, … letter adds; the last one stands for all that follow.
static STEPS: [i8; 13] = [70, 6, 8, 16, 20, 20, 18, 21, 26, 20, 23, 19, 29];

/// What a pair of neighbouring letters adds: how likely a token ends between them, or is rare. Rows are the first
/// letter, columns the second; a to z, then every Latin letter that is not ASCII.
#[rustfmt::skip]
static PAIRS: [i8; 27 * 27] = [
    0, -22, -14, -27, 27, 3, -14, -14, -11, 34, -17, -15, -12, -19, -33, -15, 37, -20, -12, -20, -15, -11, 16, -28, -27, 11, 22,
    -11, 30, 24, 0, -22, -4, 11, -18, 13, -18, 7, -8, -16, 16, -15, 5, 1, 9, -34, -4, -15, 13, -4, -1, -23, -6, -5,
    -5, 21, -9, -30, -18, 8, 3, -16, 14, 45, -17, -14, 3, 9, -24, 3, 14, -36, -13, -14, 3, 53, 0, 0, -52, 103, -2,
    -14, -15, -76, -6, -15, 46, 5, 17, 0, -39, 5, -3, -4, 20, -21, 71, 3, 10, -1, -4, -10, -20, -29, 60, -29, 28, 10,
    -1, -30, -25, -22, -6, -16, 8, 15, 17, -8, 22, -4, -9, -14, 5, -15, -23, -16, -18, -3, 30, -15, -1, -7, -15, 0, 19,
    -17, 5, 42, 2, -6, -47, 20, 7, 8, 29, 18, 7, -47, 3, -11, 2, 0, -12, 23, 11, -6, 15, 3, -5, -30, -3, -4,
    9, -38, 1, 33, -17, 47, 1, -6, 9, 43, -10, -22, 35, -48, -9, 28, 0, -23, -9, 25, -10, -13, 1, 0, 24, -11, 21,
    -5, 7, -49, 22, -14, 19, -29, 24, 0, 31, -10, -4, -57, -40, -22, -5, 3, -21, -12, -22, 11, -3, -20, 0, -28, -2, 3,
    -20, -56, -37, -46, -43, -17, -27, -13, 66, -28, -20, -12, -14, -30, -61, -38, -53, -33, -29, -20, 64, -34, 47, -26, 73, -60, -17,
    7, 11, 11, 14, -11, 21, -35, -8, 5, 6, -64, 12, 1, -35, -14, -12, 0, -17, 0, 44, -30, 7, -23, 0, 0, -20, 41,
    -5, -25, 32, -4, -6, -12, -56, -19, 18, 67, 51, -3, 16, -34, 32, 4, 0, 48, -4, -24, -8, 70, -5, 0, 58, 5, 12,
    -16, -10, 49, -21, -24, -17, 19, -44, 10, 30, 20, -7, -9, 23, -16, -23, -2, 9, -9, -26, 9, -19, -12, 12, -37, 7, 37,
    -15, -16, 23, 31, -25, 23, -31, 31, -10, 1, 32, -11, -21, 0, -22, -36, 0, -13, -12, 22, -9, 32, -9, 0, 0, 1, 7,
    2, 37, -20, -9, -17, -28, -23, -23, 22, 35, -23, -2, -15, 0, -9, 2, 14, -20, -22, -19, 4, -13, 11, 9, 15, 22, 26,
    21, -2, -7, -4, -17, -22, 4, 31, 14, -2, -1, 1, -9, -6, -9, -27, 16, -15, -17, -5, -22, 8, -4, -7, -4, 16, 23,
    -20, 52, 5, 4, -4, -1, 24, -31, 30, 26, 4, -1, -10, 35, -14, -17, 0, -11, -1, 4, 6, 6, -1, -23, -14, 14, 12,
    28, 0, 0, 3, 8, 0, 0, 0, 0, 0, 0, -38, 0, 2, 0, 0, 0, 0, -3, 3, 3, 0, 64, 0, 0, 0, 20,
    -7, -10, -8, -10, -10, -20, 12, -3, 16, 58, -5, 11, -12, -24, -21, -13, -10, -5, -13, 7, 19, 4, -31, 43, -27, 22, 19,
    1, 15, 6, 14, -16, -18, 14, -22, 14, 41, 32, -1, 7, -5, -8, -26, -9, 43, -19, -9, -17, 23, -13, -4, -24, 54, 42,
    -4, -11, -9, -18, -18, 33, 26, -16, -1, 73, 6, -8, 33, 39, -15, -7, 6, -18, -21, -7, -9, 28, -32, 97, -43, -4, 10,
    -12, -21, -25, -14, -41, -51, -22, 22, -18, 50, 1, 5, -26, -13, 26, -33, -3, -27, -12, -28, 37, -38, 2, -50, -79, -8, 23,
    -5, -14, 5, -29, -21, -6, 43, 19, 5, 2, 9, 20, 37, 66, -17, 0, 0, -22, 40, 51, 28, 85, 0, 0, 42, 5, 14,
    -28, -2, -15, 13, -29, -2, -6, -19, -13, 0, 50, 14, 51, -8, -29, 11, 0, -3, -11, 47, 4, 1, 9, 0, -3, -6, -41,
    21, -2, -39, 5, 5, -13, 0, -3, -3, 0, 3, 18, -27, 0, 43, -56, -9, 0, 8, -13, -20, 5, 0, 14, -36, 0, 80,
    -13, 1, 87, 16, 8, 65, -33, 54, 13, -11, 12, 90, 12, 38, 2, 21, 0, 67, -20, 24, 9, 7, -11, 0, 79, -11, 51,
    23, 48, 23, 12, -11, 3, 58, 10, 50, 13, -20, 7, 102, 1, -20, 12, -3, 47, 18, -16, -14, 16, -24, 0, -25, 30, 61,
    -12, 5, -34, 2, 18, -2, -13, 20, 59, 35, 33, 14, -22, -18, -45, -17, -22, 12, 9, -6, -11, -3, 78, 15, -87, 9, -13,
];

/// The number of any Latin letter that is not ASCII.
pub(super) const OTHER_LATIN: u8 = 26;

/// What a letter adds to a word that has `before` letters already.
pub(super) fn step(before: u32) -> i64 {
    let at = (before as usize).min(STEPS.len() - 1);
    STEPS.get(at).copied().unwrap_or(0).into()
}

/// What two neighbouring letters add.
pub(super) fn pair(first: u8, second: u8) -> i64 {
    let at = usize::from(first) * 27 + usize::from(second);
    PAIRS.get(at).copied().unwrap_or(0).into()
}

/// What a single sign adds when a word follows it at once: some have tokens together with a word's beginning.
pub(super) const fn joined(sign: u32) -> i64 {
    const APOSTROPHE: u32 = 0x2019;
    match sign {
        APOSTROPHE => 6,
        0x80.. => 58,
        _ => match sign as u8 {
            b'#' => 0,
            b'_' | b'.' | b'\\' => 6,
            b'(' | b',' => 11,
            b'<' | b'/' | b'-' => 22,
            b'=' | b'\'' | b'[' | b':' => 27,
            _ => 58,
        },
    }
}

/// How a character beyond ASCII is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// A Latin letter; whether it is a capital.
    Latin(bool),
    /// A letter of another script: what a word's start and what each letter costs.
    Letter { start: i64, each: i64 },
    /// A Chinese character; whether it is frequent in traditional Chinese only. Japanese has some of these, too.
    Han(bool),
    /// Hiragana or katakana.
    Kana(i64),
    /// Belongs to the character before it.
    Mark(i64),
    /// A full stop, a quotation mark, an arrow.
    Sign,
    /// An emoji or another picture.
    Picture(i64),
    /// A space.
    Space,
}

/// Among the most frequent characters, those that simplified Chinese writes otherwise: 這們來會說為對麼讓從與沒後時學國.
const fn is_traditional(point: u32) -> bool {
    matches!(point, 0x9019 | 0x5011 | 0x4F86 | 0x6703 | 0x8AAA | 0x70BA | 0x5C0D | 0x9EBC)
        || matches!(point, 0x8B93 | 0x5F9E | 0x8207 | 0x6C92 | 0x5F8C | 0x6642 | 0x5B78 | 0x570B)
}

/// The class of a character beyond ASCII (blocks of the Unicode Standard). Half a surrogate pair, which comes from an
/// escape, stands for the whole if it is the first.
pub(super) const fn beyond(point: u32) -> Beyond {
    const fn letter(start: i64, each: i64) -> Beyond {
        Beyond::Letter { start, each }
    }
    match point {
        0xA0 | 0x2000..=0x200B | 0x2028 | 0x2029 | 0x3000 => Beyond::Space,
        0xC0..=0xD6 | 0xD8..=0xDE => Beyond::Latin(true),
        0xAA | 0xBA | 0xDF..=0xF6 | 0xF8..=0xFF => Beyond::Latin(false),
        // Capitals are mostly the even ones.
        0x100..=0x24F | 0x1E00..=0x1EFF => Beyond::Latin(point & 1 == 0),
        0x250..=0x2FF => letter(0, TOKEN),
        0x300..=0x36F | 0x200C..=0x200F | 0xFE00..=0xFE0F => Beyond::Mark(48),
        0x370..=0x3FF | 0x1F00..=0x1FFF => letter(16, 23),
        // Letters of Ukrainian that Russian does not have: its words are dearer.
        0x404 | 0x406 | 0x407 | 0x454 | 0x456 | 0x457 | 0x490 | 0x491 => letter(40, 50),
        0x400..=0x52F => letter(40, 12),
        0x590..=0x5FF => letter(25, 22),
        0x60C | 0x61B | 0x61F | 0x6D4 | 0x964 | 0x965 => Beyond::Sign,
        0x600..=0x77F => letter(28, 15),
        0x900..=0xAFF => letter(16, 19),
        0xB00..=0xDFF => letter(16, 17),
        0xE00..=0xE7F => letter(18, 26),
        0x530..=0x58F | 0xE80..=0x1EFF => letter(20, 40),
        0x2600..=0x27BF => Beyond::Picture(112),
        0x3040..=0x309F => Beyond::Kana(37),
        0x30A0..=0x30FF => Beyond::Kana(41),
        0x4E00..=0x9FFF => Beyond::Han(is_traditional(point)),
        0xAC00..=0xD7A3 => letter(48, 33),
        0x3400..=0x4DBF | 0xA000..=0xABFF | 0xF900..=0xFAFF => letter(0, 128),
        0xFF21..=0xFF3A | 0xFF41..=0xFF5A | 0xFF66..=0xFFDC => letter(0, TOKEN),
        0xDC00..=0xDFFF => Beyond::Mark(0),
        0xD83C..=0xD83E | 0x1_F000..=0x1_FBFF => Beyond::Picture(118),
        0xD800..=0xDBFF | 0x1_0000.. => Beyond::Picture(192),
        _ => Beyond::Sign,
    }
}

/// What the first Chinese or Japanese character of a run adds.
pub(super) const CJK_START: i64 = 26;

/// A Chinese character in simplified Chinese.
pub(super) const HAN: i64 = 45;

/// A Chinese character in Japanese text.
pub(super) const HAN_IN_JAPANESE: i64 = 59;

/// A Chinese character in traditional Chinese.
pub(super) const HAN_TRADITIONAL: i64 = 60;
