//! The text in an error body that a person can read, whatever the form of the body.

use crate::bytes::ascii;
use serde_json::Value;

/// FastAPI's list of validation errors as a text: each message behind the name of its field. Other elements stay JSON.
pub(super) fn details_text(details: &[Value]) -> String {
    let one = |detail: &Value| {
        let field = detail.get("loc").and_then(Value::as_array).and_then(|path| path.last()?.as_str());
        match detail.get("msg").and_then(Value::as_str) {
            Some(message) => {
                field.map_or_else(|| message.to_owned(), |field| [field, ": ", message].concat())
            }
            None => serde_json::to_string(detail).unwrap_or_default(),
        }
    };
    details.iter().take(8).map(one).collect::<Vec<_>>().join("; ")
}

/// The first 300 characters of a body's text, without its tags and with single spaces. In an HTML page that is its title. What is
/// within `style`, `script` or a comment is no text.
pub(super) fn visible_text(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let beginning = |len: usize| String::from_utf8_lossy(body.get(..body.len().min(len)).unwrap_or_default());
    let text = beginning(8 * LONGEST);
    // A whole JSON document without an error holds nothing for a person. This may also be the beginning of a longer document,
    // because some vendors repeat the whole request in their error; then its first message is what went wrong.
    if matches!(text.trim_start().chars().next(), Some('{' | '[')) {
        return first_message(&text, LONGEST).unwrap_or_default();
    }
    // A page's style may be longer than its text.
    let text = beginning(64 << 10);
    let visible = without_tags(&text, 8 * LONGEST);
    let words = visible.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// The text between the tags, until there are `enough` bytes of it.
fn without_tags(text: &str, enough: usize) -> String {
    let mut visible = String::new();
    let mut rest = text;
    while visible.len() < enough {
        let Some((shown, tag)) = rest.split_once('<') else {
            visible.push_str(rest);
            break;
        };
        visible.push_str(shown);
        if !tag.starts_with(|letter: char| letter.is_ascii_alphabetic() || matches!(letter, '/' | '!' | '?'))
        {
            // A plain text, such as "must be < 4".
            visible.push('<');
            rest = tag;
            continue;
        }
        visible.push(' ');
        let hidden = HIDDEN.iter().find(|(name, _)| starts_with_name(tag, name));
        let end = hidden.map_or(">", |(_, end)| end);
        let Some(after) = find_ignoring_case(tag, end).and_then(|at| tag.get(at..)) else { break };
        // The tag that ends a hidden part is dropped like any other.
        rest = if end.starts_with('<') { after } else { after.strip_prefix(end).unwrap_or_default() };
    }
    visible
}

/// How the parts of a page begin and end whose content is not shown.
const HIDDEN: [(&str, &str); 5] = [
    ("!--", "-->"),
    ("style", "</style"),
    ("script", "</script"),
    ("noscript", "</noscript"),
    ("svg", "</svg"),
];

/// Whether a tag has this name, and not one that only begins with it. A comment needs no end of its name.
fn starts_with_name(tag: &str, name: &str) -> bool {
    let Some((start, rest)) = tag.split_at_checked(name.len()) else { return false };
    ascii::is_same(start, name)
        && (name == "!--" || !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric()))
}

/// Where `part` begins in the text, whatever its capitals.
fn find_ignoring_case(text: &str, part: &str) -> Option<usize> {
    let fits = |window: &[u8]| ascii::is_same(window, part);
    text.as_bytes().windows(part.len()).position(fits)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_style_and_script_are_not_its_text() {
        let style = format!("<style>{}</style>", "body { color: red > blue }\n".repeat(500));
        for (page, text) in [
            (
                format!(
                    "<!DOCTYPE html><html><head>{style}<title>403 Forbidden</title></head><body><h1>No</h1>"
                ),
                "403 Forbidden No",
            ),
            ("<head><STYLE type='text/css'>a{b:c}</Style ><title>Blocked</title>".to_owned(), "Blocked"),
            ("<script>if (a < b) { alert('x') }</script>Sorry, <b>blocked</b>".to_owned(), "Sorry, blocked"),
            ("<script src=x></script><script>\"</style>\"</script>Ray ID: 1".to_owned(), "Ray ID: 1"),
            ("<!-- a > b --><p>Denied</p><noscript>Enable JavaScript</noscript>".to_owned(), "Denied"),
            ("<body><svg><text>logo</text></svg><p>Down</p>".to_owned(), "Down"),
            ("<styled>kept</styled><scripted>too</scripted>".to_owned(), "kept too"),
            ("<title>Busy</title><style>never ends".to_owned(), "Busy"),
            ("max_tokens must be < 4097 and <= n".to_owned(), "max_tokens must be < 4097 and <= n"),
            ("a\u{1}b\tc<".to_owned(), "a b c<"),
            (String::new(), ""),
        ] {
            assert_eq!(visible_text(page.as_bytes()), text, "{page}");
        }
        assert_eq!(visible_text("<p>é".repeat(5000).as_bytes()).chars().count(), 300);
    }
}
