//! The redaction of keys in what providers say.
//!
//! A word is taken for a key if it begins as the vendors' keys do and a part of it looks random. The parts are what stands between
//! hyphens, underscores and dots. A part looks random if it is a longer mix of letters and digits, a long number, or longer than
//! words are: names and words that people choose (`sk-learn-helper`, `key-value-lookup`, `xai-grok-4-fast-reasoning`) have no such
//! part, and keys have at least twenty random characters in a row. A part that the vendor has masked with stars is a key, too.

use crate::bytes::ascii;

/// A shorter key is a placeholder and might be a word of an ordinary text, so it is not searched for.
const MIN_KEY_LEN: usize = 8;

/// The shortest word that is taken for a key.
const MIN_WORD_LEN: usize = 12;

/// How the keys begin of OpenAI, Anthropic, OpenRouter, DeepSeek and most others, Groq, xAI, Google (an API key, a token), NVIDIA,
/// Fireworks, Replicate, Hugging Face, Perplexity, Cerebras, Together, GitHub and Amazon; and a signed token (MiniMax).
const PREFIXES: [&str; 20] = [
    "sk-",
    "sk_",
    "pk-",
    "rk-",
    "key-",
    "gsk_",
    "xai-",
    "AIza",
    "ya29.",
    "nvapi-",
    "fw_",
    "r8_",
    "hf_",
    "pplx-",
    "csk-",
    "tgp_",
    "ghp_",
    "github_pat_",
    "ABSK",
    "eyJ",
];

/// Whether these bytes contain a provider's `key`.
pub fn contains_key(bytes: &[u8], key: &str) -> bool {
    key.len() >= MIN_KEY_LEN && bytes.windows(key.len()).any(|part| part == key.as_bytes())
}

/// A provider's text with every occurrence of its `key`, and every word that looks like a key, replaced by `[redacted]`. Behind
/// `Bearer` a key needs no beginning that is known.
pub fn redact(text: &str, key: &str) -> String {
    const REDACTED: &str = "[redacted]";
    let text = if key.len() >= MIN_KEY_LEN { text.replace(key, REDACTED) } else { text.to_owned() };
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '*' | '.');
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let mut is_borne = false;
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at_checked(start).unwrap_or((rest, ""));
        let end = from.find(|letter| !is_part(letter)).unwrap_or(from.len());
        let (word, after) = from.split_at_checked(end).unwrap_or((from, ""));
        let is_key = (is_borne || PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
            && word.len() >= MIN_WORD_LEN
            && looks_random(word);
        clean.extend([before, if is_key { REDACTED } else { word }]);
        is_borne = ascii::is_same(word, "bearer");
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// Whether a part of the word looks random or is masked.
fn looks_random(word: &str) -> bool {
    /// A longer mix of letters and digits, or a longer number, is no version, size or date.
    const LONGEST_MIX: usize = 9;
    /// Longer words have hyphens.
    const LONGEST_WORD: usize = 20;
    let is_random = |part: &str| {
        let has_digit = part.bytes().any(|byte| byte.is_ascii_digit());
        part.len() > if has_digit { LONGEST_MIX } else { LONGEST_WORD }
    };
    word.contains('*')
        || word.trim_end_matches('.').contains("..")
        || word.split(['-', '_', '.']).any(is_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_vendor_are_redacted() {
        for key in [
            "sk-abcdefghijklmnopqrstT3BlbkFJabcdefghijklmnopqrst",
            "sk-proj-9aB_cD3-eFgH1iJkLmNoPqRsTuVwXyZ0123456789abcdefT3BlbkFJxyz",
            "sk-svcacct-Kq8vYw3ZbN1mXcL0pRtU7sDfGhJk",
            "sk-ant-api03-Zr4-8QkPz1Lw_7xVnB2mC9sDfGhJkLqWeRtYuIoP-AbCdEfGAA",
            "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",
            "sk-0123456789abcdef0123456789abcdef",
            "gsk_Hq2LmN7pR4sT9vX1zB5cD8fG3jK6WGdyb3FYaBcDeFgHiJkL",
            "xai-Tq7LmN2pR4sT9vX1zB5cD8fG3jK6nM0qW4eR7tY1uI5oP8aS2dF6gH9",
            "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
            "nvapi-kT8xV2nB5mC9sD1fG4hJ7kL0qW3eR6tY_uI9oP2aS5dF8gH1jK4",
            "fw_3ZaBcD9eFgH1iJkLmN5oPqRs",
            "r8_Kq8vYw3ZbN1mXcL0pRtU7sDfGhJkLz2Ex",
            "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
            "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",
            "csk-4xk2m9vt8hw6r5jn3pyd7c4fx8k2m9vt6hw8r5jn3pyd7c4f",
            "tgp_v1_Zr48QkPz1Lw7xVnB2mC9sDfGhJkLqWeRtYuIoPAbCdE",
            "ya29.A0ARrdaM9kLmN2pR4sT7vX1zB5cD8fG3jK6",
            "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
            "sk-550e8400-e29b-41d4-a716-446655440000",
            "sk-proj-abc123***xyz9",
            "sk-proj-********************wxyz",
            "sk-abcd...wxyz",
            "sk-0123456789",
        ] {
            for (text, clean) in [
                (
                    format!("Incorrect API key provided: {key}. See the docs."),
                    "Incorrect API key provided: [redacted]",
                ),
                (format!("key={key}, (x)"), "key=[redacted]"),
                (format!("{{\"a\":\"{key}\"}}"), "{\"a\":\"[redacted]\"}"),
            ] {
                let made = redact(&text, "");
                assert!(made.starts_with(clean), "{text}: {made}");
            }
        }
    }

    #[test]
    fn a_key_behind_bearer_needs_no_beginning() {
        for key in
            ["0123456789abcdef0123456789abcdef", "Zx8Qw3Er5Ty7Ui9Op1As", "3f9c2b7a1e5d4c6b.Tq7LmN2pR4sT9vX1"]
        {
            assert_eq!(
                redact(&format!("Authorization: Bearer {key}"), ""),
                "Authorization: Bearer [redacted]"
            );
            assert_eq!(redact(&format!("the id {key} is unknown"), ""), format!("the id {key} is unknown"));
        }
        for text in
            ["Bearer authentication is required", "Bearer token missing", "a bearer of tidings-and-letters"]
        {
            assert_eq!(redact(text, ""), text);
        }
    }

    #[test]
    fn words_that_are_no_keys_are_spared() {
        for word in [
            "key-value-lookup",
            "sk-learn-helper",
            "sk-learn-helper-v2",
            "sk_learn_random_forest",
            "sk-hynix-a.x-4.0-light",
            "key-takeaways-summary",
            "key-press-handler-2024-08-06",
            "pk-lookup-20240718",
            "rk-numerical-integration",
            "xai-grok-4-fast-reasoning",
            "xai-grok-2-vision-1212",
            "key-performance-indicators",
            "key-internationalization",
            "hf_transformers_inference",
            "fw_mixtral-8x7b-instruct-v0.1",
            "gsk_pharmaceuticals_report",
            "eyJafjallajoekull",
            "sk-...",
            "skeleton-key-generator",
            "gpt-4o-mini-2024-07-18",
            "claude-3-5-sonnet-20241022",
            "llama-3.1-70b-instruct",
            "call_abc123def456ghi789jkl012",
            "resp_68af4030592c81938ec0a5fbab4a3e9f",
            "req_011CSHoEeqs5C35K2UUqR7Fy",
        ] {
            for text in
                [word.to_owned(), format!("Unknown function '{word}'."), format!("{{\"code\":\"{word}\"}}")]
            {
                assert_eq!(redact(&text, ""), text);
            }
        }
    }

    #[test]
    fn the_providers_own_key_is_redacted_in_any_form() {
        for (text, key, clean) in [
            ("key-value-lookup failed", "key-value-lookup", "[redacted] failed"),
            ("a secret.key!", "secret.key", "a [redacted]!"),
            ("xpasswordx", "password", "x[redacted]x"),
            ("a short one", "short", "a short one"),
        ] {
            assert_eq!(redact(text, key), clean);
        }
    }
}
