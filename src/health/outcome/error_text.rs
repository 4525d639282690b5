//! What a person can read in an error, whatever its form.

use serde_json::Value;

/// FastAPI's list of what is wrong, each with its place; other lists as they are.
pub(super) fn details_text(details: &[Value]) -> String {
    let one = |detail: &Value| {
        let place = detail.get("loc").and_then(Value::as_array).and_then(|place| place.last()?.as_str());
        match detail.get("msg").and_then(Value::as_str) {
            Some(message) => {
                place.map_or_else(|| message.to_owned(), |place| [place, ": ", message].concat())
            }
            None => detail.to_string(),
        }
    };
    details.iter().take(8).map(one).collect::<Vec<_>>().join("; ")
}

/// The beginning of a body's text without its tags and with single spaces: an HTML page's title comes first.
pub(super) fn visible_text(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(body.get(..body.len().min(8 * LONGEST)).unwrap_or_default());
    // A JSON document without an error says nothing that a person could read, unless it is the beginning of a longer one:
    // some vendors repeat the whole request in their error.
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

/// The first message in the beginning of a JSON text, and of it the first `longest` bytes.
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
