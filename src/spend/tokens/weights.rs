//! What letters and signs cost, in 1/64 of a token.
//!
//! Fitted to OpenAI's `o200k_base` by least squares of the relative error over pieces of 40 words: English prose,
//! Markdown, HTML, Python, Rust, JavaScript, C, and the message catalogues of common programs in 25 languages.

/// One token.
pub(super) const TOKEN: i64 = 64;

/// What a word's first, second, … letter adds; the last one stands for all that follow.
static STEPS: [i8; 13] = [60, 7, 9, 7, 19, 10, 10, 24, 15, 18, 18, 19, 26];

/// What a pair of neighbouring letters adds: how likely a token ends between them, or is rare. Rows are the first
/// letter, columns the second; a to z, then every Latin letter that is not ASCII.
#[rustfmt::skip]
static PAIRS: [i8; 27 * 27] = [
    31, -17, -17, -15, 10, -15, -28, 0, -12, 0, 2, -26, -21, -14, -14, -24, 6, -23, -14, -25, -6, 16, -6, -14, -15, 25, 7,
    -2, 47, 2, -5, -15, 0, 13, 19, 6, -24, 7, -24, 32, 4, -6, 19, 0, 0, -1, -11, -25, 13, 5, 5, -17, 15, -1,
    -1, -3, 14, 20, -17, 15, 23, -2, -10, 26, -12, -20, 24, 19, -11, 11, 5, -18, 12, -23, -13, 4, 15, -7, -14, 22, -17,
    1, 19, 23, -9, -12, 28, -8, 9, 5, 3, 15, -14, 3, 17, -1, 37, 4, 4, -5, 11, 0, 21, 11, -1, 3, 11, 32,
    -7, -14, -8, -17, -5, -12, 1, 10, 18, 1, 36, -4, -5, -5, -15, 1, -5, -10, -16, -8, 15, -12, -15, -9, -12, 20, 34,
    -8, 19, 22, 3, -10, -4, -25, 2, 1, 5, 11, -6, -6, -2, -9, 16, 6, 0, 12, -21, 2, 12, 8, 0, -7, 6, 21,
    26, 22, 15, 16, -11, 5, 34, -4, 17, 9, -3, 10, 8, 3, 9, 38, 4, -3, 13, 3, -4, 0, 12, 6, 9, -4, 32,
    8, -4, 14, 17, -7, 9, 2, 19, -5, 18, 12, 10, 1, -32, -9, 2, 1, -22, 7, -31, 2, 0, 15, 0, 14, -4, -10,
    -5, -12, -16, -20, -14, -16, -22, -10, 13, -3, -4, -9, -3, -10, -25, -22, -7, -6, -14, -18, 69, -11, 15, 0, 23, -40, -5,
    19, 4, 3, 8, 10, 9, -6, 2, 17, 0, -25, 21, 16, -6, -3, -1, 0, 3, -36, 19, 10, -11, 2, 1, 0, -12, 50,
    21, 1, 17, 14, -17, -17, -16, -5, 16, 4, 33, 21, 17, 23, 47, 28, -2, 43, -4, 12, 34, 23, -9, 1, 31, -2, 35,
    3, 1, 2, -13, -7, -12, 7, 15, -4, 27, 17, 6, 8, 31, 7, -4, 4, 21, -5, 5, -3, -32, 0, 11, -28, 21, 25,
    0, -9, 18, -32, -15, 16, 13, 2, 5, 23, 15, -13, -5, 31, -4, -16, 1, 35, 1, -9, 4, 33, 7, 10, 18, 1, 8,
    1, 31, -18, -10, -7, -14, -27, -10, 11, 1, -3, 11, -6, -7, 1, -5, 22, 21, -16, -19, 3, -4, 7, 4, -5, 25, 29,
    -5, -9, -10, -10, 3, -17, -23, 50, 0, 5, -7, -9, -5, -12, -6, -7, 6, -21, -9, -13, -3, 14, -16, -8, 12, 20, 25,
    6, 13, 11, 1, -11, 24, 33, 0, 15, -1, 31, -24, -1, 26, -4, 22, -32, -15, 0, -18, 8, 0, 1, 3, -5, 32, 36,
    0, -1, 4, 7, 2, 0, 0, 0, 6, 0, 0, -10, 9, 5, 2, 1, 0, -23, -3, 13, -18, 0, 47, 0, 1, 0, 0,
    6, 5, 0, -8, -6, -21, -1, 6, 3, 17, 8, -2, -12, -14, -10, 4, 18, -8, -10, -9, 0, -2, -3, -8, -13, 29, 27,
    29, 18, -3, 22, -8, -15, 12, -11, 8, 21, 15, 18, 7, 9, 7, -5, -16, 1, -11, -9, -8, -13, 7, 13, -15, 28, 25,
    10, 35, -9, 2, -8, 21, 3, -16, 1, 35, -5, -1, 2, 15, 2, -14, -1, -13, -6, 29, 3, 27, -28, 8, -32, -6, 20,
    2, 9, -6, -1, -19, 6, 6, 16, 3, 30, 23, -18, -13, -6, 46, -16, 8, -21, -16, -20, 52, 4, 13, 15, -1, 4, 15,
    7, 11, 16, 11, -19, 18, -46, 15, -1, 0, 2, 28, 22, 20, 2, 6, 0, 10, 35, 22, 44, 25, -28, 9, 39, 7, 40,
    1, 40, 14, 24, -4, 8, 6, -18, -6, 5, -4, 2, -1, -8, -5, -9, 0, -15, -9, -2, 4, 2, -20, -33, 34, 18, 9,
    16, -5, 1, 23, 9, 2, 2, -3, -2, 0, 8, 16, -29, 15, -2, -12, 1, 15, 14, -4, -14, 3, 2, -10, -15, 3, 13,
    20, 22, 39, 27, 29, 20, 22, 33, 14, 28, 27, 3, 19, 14, -9, 19, 0, -3, 0, 14, -1, 15, 0, 2, 28, -26, 29,
    17, 25, 7, 18, 6, 1, 7, 11, 67, 4, 22, 19, 28, 22, 39, 9, -3, 5, 18, -9, -4, 5, 29, 0, 15, 39, 25,
    -6, 30, -5, 4, 4, 2, 5, 10, -7, 31, 29, 13, 11, -10, -55, 0, 15, 20, 18, 8, -10, 7, 23, -7, 11, 30, 39,
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
