//! The part of nginx's configuration language that APISIX's snippets use here: `map`, `set`, `proxy_next_upstream`, `access_log`.
//! Any other directive is an error, because the stand-in would not do what nginx does.

use std::collections::HashMap;

use regex::bytes::Regex;

/// What the snippets say.
#[derive(Default)]
pub struct Nginx {
    pub maps: HashMap<String, Map>,
    /// `set` of the location, in order: the variable and its value.
    pub sets: Vec<(String, Value)>,
    /// The words of `proxy_next_upstream`; nginx's default is `error timeout`.
    pub next_upstream: Vec<String>,
    /// Of the access log.
    pub log_format: Option<Value>,
    /// A request of which this is empty or "0" has no line in the access log.
    pub log_if: Option<Value>,
}

/// `map $source $variable { … }`
pub struct Map {
    pub source: Value,
    exact: HashMap<String, Value>,
    patterns: Vec<(Regex, Value)>,
    default: Value,
}

/// A text with variables in it.
#[derive(Clone, Default)]
pub struct Value(Vec<Part>);

#[derive(Clone)]
enum Part {
    Text(String),
    Variable(String),
}

impl Value {
    pub fn parse(text: &str) -> Value {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            parts.push(Part::Text(rest[..dollar].to_owned()));
            rest = &rest[dollar + 1..];
            let braced = rest.strip_prefix('{');
            let from = braced.unwrap_or(rest);
            let end = from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(from.len());
            parts.push(Part::Variable(from[..end].to_owned()));
            rest = if braced.is_some() { from[end..].strip_prefix('}').unwrap_or("") } else { &from[end..] };
        }
        parts.push(Part::Text(rest.to_owned()));
        Value(parts)
    }

    pub fn expand(&self, mut variable: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
        let mut all = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => all.extend_from_slice(text.as_bytes()),
                Part::Variable(name) => all.extend(variable(name)),
            }
        }
        all
    }
}

impl Map {
    /// The value for a source: exact entries first, then patterns in their order, then the default.
    pub fn look_up(&self, source: &[u8], mut variable: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
        if let Some(value) =
            std::str::from_utf8(source).ok().and_then(|text| self.exact.get(&text.to_lowercase()))
        {
            return value.expand(variable);
        }
        for (pattern, value) in &self.patterns {
            if let Some(captures) = pattern.captures(source) {
                return value.expand(|name| match captures.name(name) {
                    Some(capture) => capture.as_bytes().to_vec(),
                    None => variable(name),
                });
            }
        }
        self.default.expand(variable)
    }
}

impl Nginx {
    pub fn parse(
        http: &str,
        server: &str,
        location: &str,
        log_format: Option<&str>,
    ) -> Result<Nginx, String> {
        let mut nginx = Nginx { log_format: log_format.map(Value::parse), ..Nginx::default() };
        for directive in directives(http)? {
            match words(&directive.words).as_slice() {
                ["proxy_next_upstream", conditions @ ..] => {
                    nginx.next_upstream = conditions.iter().map(|word| (*word).to_owned()).collect();
                }
                ["map", source, name] => {
                    let map = Map::parse(source, &directive.block)?;
                    nginx.maps.insert(name.trim_start_matches('$').to_owned(), map);
                }
                other => return Err(format!("the stand-in knows no directive {other:?} at the http level")),
            }
        }
        for directive in directives(server)? {
            match words(&directive.words).as_slice() {
                ["access_log", _, "main", options @ ..] => {
                    nginx.log_if =
                        options.iter().find_map(|option| option.strip_prefix("if=")).map(Value::parse);
                }
                // Nothing here speaks TLS, and a body is kept in memory whatever its size.
                ["proxy_ssl_verify" | "proxy_ssl_verify_depth" | "client_body_buffer_size", _] => {}
                other => return Err(format!("the stand-in knows no directive {other:?} in the server")),
            }
        }
        for directive in directives(location)? {
            match words(&directive.words).as_slice() {
                ["set", name, value] => {
                    nginx.sets.push((name.trim_start_matches('$').to_owned(), Value::parse(value)));
                }
                other => return Err(format!("the stand-in knows no directive {other:?} in the location")),
            }
        }
        if nginx.next_upstream.is_empty() {
            nginx.next_upstream = vec!["error".into(), "timeout".into()];
        }
        Ok(nginx)
    }
}

impl Map {
    fn parse(source: &str, block: &[Directive]) -> Result<Map, String> {
        let mut map = Map {
            source: Value::parse(source),
            exact: HashMap::new(),
            patterns: Vec::new(),
            default: Value::default(),
        };
        for entry in block {
            let [key, value] = entry.words.as_slice() else {
                return Err(format!("map: {:?} is not a key and a value", entry.words));
            };
            let value = Value::parse(value);
            if key == "default" {
                map.default = value;
            } else if let Some(pattern) = key.strip_prefix('~') {
                let pattern = match pattern.strip_prefix('*') {
                    Some(pattern) => format!("(?i){pattern}"),
                    None => pattern.to_owned(),
                };
                map.patterns.push((Regex::new(&pattern).map_err(|error| error.to_string())?, value));
            } else {
                map.exact.insert(key.to_lowercase(), value);
            }
        }
        Ok(map)
    }
}

struct Directive {
    words: Vec<String>,
    block: Vec<Directive>,
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn directives(text: &str) -> Result<Vec<Directive>, String> {
    let mut tokens = tokens(text)?.into_iter();
    let all = block(&mut tokens, false)?;
    Ok(all)
}

fn block(tokens: &mut impl Iterator<Item = Token>, inner: bool) -> Result<Vec<Directive>, String> {
    let mut all = Vec::new();
    let mut words = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => all.push(Directive { words: std::mem::take(&mut words), block: Vec::new() }),
            Token::Open => {
                all.push(Directive { words: std::mem::take(&mut words), block: block(tokens, true)? });
            }
            Token::Close if inner && words.is_empty() => return Ok(all),
            Token::Close => return Err("unexpected \"}\"".to_owned()),
        }
    }
    if inner || !words.is_empty() {
        return Err(format!("unexpected end of a snippet after {words:?}"));
    }
    Ok(all)
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => tokens.push(Token::End),
            '{' => tokens.push(Token::Open),
            '}' => tokens.push(Token::Close),
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        end if end == c => break,
                        // A backslash is kept unless it is before a quote or a backslash, as nginx does.
                        '\\' => match chars.next().ok_or("a quote is not closed")? {
                            next if next == c || next == '\\' => word.push(next),
                            next => word.extend(['\\', next]),
                        },
                        next => word.push(next),
                    }
                }
                tokens.push(Token::Word(word));
            }
            c => {
                let mut word = String::from(c);
                let mut braces = 0;
                // `${name}` is part of a word; any other brace ends it.
                while let Some(next) = chars.peek().copied() {
                    match next {
                        '{' if word.ends_with('$') => braces += 1,
                        '}' if braces > 0 => braces -= 1,
                        '{' | '}' | ';' => break,
                        next if next.is_whitespace() => break,
                        _ => {}
                    }
                    word.push(next);
                    chars.next();
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"
        proxy_next_upstream error http_503 non_idempotent; # a comment; with "signs"
        map "$a:$b $c" $hop {
            default "-";
            "~^1:2 (?<named>[a-z]+)$" $named;
            "~^1:2 " "!";
        }"#;

    fn hop(c: &str) -> String {
        let nginx = Nginx::parse(MAP, "", "set $x \"\";", None).unwrap();
        let variable = |name: &str| match name {
            "a" => b"1".to_vec(),
            "b" => b"2".to_vec(),
            "c" => c.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let map = &nginx.maps["hop"];
        String::from_utf8(map.look_up(&map.source.expand(variable), variable)).unwrap()
    }

    #[test]
    fn a_capture_is_the_value_of_a_map() {
        assert_eq!(hop("openai"), "openai");
    }

    #[test]
    fn patterns_are_tried_in_their_order() {
        assert_eq!(hop("OPENAI"), "!");
    }

    #[test]
    fn an_unknown_directive_is_an_error() {
        assert!(Nginx::parse("proxy_pass http://x;", "", "", None).is_err());
        assert!(Nginx::parse("", "proxy_pass http://x;", "", None).is_err());
        assert!(Nginx::parse("map $a $b {", "", "", None).is_err());
    }
}
