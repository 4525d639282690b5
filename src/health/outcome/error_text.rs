//! The text in an error body that a person can read, whatever the form of the body.

use serde_json::Value;

/// FastAPI's list of validation errors as a text: each message behind the name of its field. Other elements stay JSON.
pub(super) fn details_text(details: &[Value]) -> String {
    let one = |detail: &Value| {
        let field = detail.get("loc").and_then(Value::as_array).and_then(|path| path.last()?.as_str());
        match detail.get("msg").and_then(Value::as_str) {
            Some(message) => {
                field.map_or_else(|| message.to_owned(), |field| [field, ": ", message].concat())
            }
            None => detail.to_string(),
        }
    };
    details.iter().take(8).map(one).collect::<Vec<_>>().join("; ")
}

/// The first 300 characters of a body's text, without its tags and with single spaces. In an HTML page that is its title.
pub(super) fn visible_text(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(body.get(..body.len().min(8 * LONGEST)).unwrap_or_default());
    // A whole JSON document without an error holds nothing for a person. This may also be the beginning of a longer document,
    // because some vendors repeat the whole request in their error; then its first message is what went wrong.
    if matches!(text.trim_start().chars().next(), Some('{' | '[')) {
        return first_message(&text, LONGEST).unwrap_or_default();
    }
    let mut outside = true;
    let visible: String = text
        .chars()
        .map(|letter| {
            outside = match letter {
                '<' => false,
                '>' => true,
                _ => return if outside && !letter.is_control() { letter } else { ' ' },
            };
            ' '
        })
        .collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// The first `message` or `msg` in a JSON text that may be cut off, at most `longest` bytes of it.
fn first_message(text: &str, longest: usize) -> Option<String> {
    let keys = ["\"message\"", "\"msg\""].into_iter();
    let found = keys.filter_map(|key| text.split_once(key)).min_by_key(|(before, _)| before.len());
    let value = found?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let ends = |(at, letter): (usize, char)| {
        let ends = !escaped && (letter == '"' || at >= longest);
        escaped = !escaped && letter == '\\';
        ends.then_some(at)
    };
    let end = value.char_indices().find_map(ends)?;
    serde_json::from_str(&["\"", value.get(..end)?, "\""].concat()).ok()
}
