//! Converts OpenAI's list of messages to Anthropic's system prompt and alternating turns.

use super::unsupported::Unsupported;
use crate::bytes::ascii;
use crate::bytes::json::{elements, quoted, Fields, Writer};
use crate::dialects::history::{is_thought, with_words_as_ids};

/// The user's message that is put before a leading message of the assistant, such as a greeting. OpenAI allows these, but
/// Anthropic's conversations must begin with the user.
const OPENING: &str = "Hello.";

/// A conversation in Anthropic's form.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    system: Vec<Block>,
    turns: Vec<Turn>,
    /// The names of the tools that the conversation calls.
    pub(super) called: Vec<String>,
}

/// Consecutive messages of the same role.
#[derive(Debug)]
struct Turn {
    role: &'static str,
    blocks: Vec<Block>,
    /// Results of tools, which must come before all other blocks.
    results: Vec<Block>,
}

/// A piece of content.
#[derive(Debug)]
enum Block {
    /// Plain text. It is never blank, because Anthropic refuses blank texts.
    Plain(String),
    /// Text with `cache_control`, in JSON.
    CacheMarked(String),
    /// The result of a tool, in JSON.
    Result(String),
    /// Anything else, in JSON.
    Other(String),
}

/// OpenAI's limit on the number of tools.
const MAX_TOOLS: usize = 128;

impl Turn {
    fn add(&mut self, block: Block) {
        if matches!(block, Block::Result(_)) {
            self.results.push(block);
        } else {
            self.blocks.push(block);
        }
    }
}

impl Conversation {
    /// Reads the value of `messages`.
    pub(super) fn read(messages: &str) -> Result<Self, Unsupported> {
        let mut conversation = Self::default();
        // The history may have calls of other vendors, whose ids have more characters (`functions.search:0`) or come again.
        let messages = &*with_words_as_ids(messages);
        for message in elements(messages).ok_or_else(|| unsupported("a value that is not a list"))? {
            let message = Fields::of(message);
            conversation.message(&message.ok_or_else(|| unsupported("a message that is not an object"))?)?;
        }
        conversation.complete();
        if conversation.turns.is_empty() {
            return Err(unsupported("no content"));
        }
        Ok(conversation)
    }

    #[inline(never)]
    fn message(&mut self, message: &Fields<'_>) -> Result<(), Unsupported> {
        let blocks = blocks(message)?;
        match text(message, "role")?.as_str() {
            "system" | "developer" => {
                if !blocks.iter().all(|block| matches!(block, Block::Plain(_) | Block::CacheMarked(_))) {
                    return Err(unsupported("a system message that has other content than text"));
                }
                self.system.extend(blocks);
            }
            "user" => self.extend("user", blocks),
            "assistant" => {
                if message.get("function_call").is_some() {
                    return Err(unsupported("a function_call"));
                }
                self.extend("assistant", blocks);
                // A refusal is part of the assistant's message.
                if let Some(refusal) = text_block(text(message, "refusal")?, None) {
                    self.add("assistant", refusal);
                }
                let calls = message.get("tool_calls").unwrap_or("[]");
                for call in elements(calls).ok_or_else(|| unsupported("tool_calls that are not a list"))? {
                    self.call(call)?;
                }
            }
            "tool" => {
                let mut result = Writer::object();
                result.text("type", "tool_result");
                result.text("tool_use_id", &identifier(text(message, "tool_call_id")?));
                if !blocks.is_empty() {
                    result.field("content", &joined(&blocks));
                }
                self.add("user", Block::Result(result.finish()));
            }
            _ => return Err(unsupported("an unknown role")),
        }
        Ok(())
    }

    #[inline(never)]
    fn call(&mut self, call: &str) -> Result<(), Unsupported> {
        let call = Fields::of(call);
        let Some((call, function)) =
            call.and_then(|call| call.object("function").map(|function| (call, function)))
        else {
            return Err(unsupported("a tool call that is not a function call"));
        };
        let name = text(&function, "name")?;
        let arguments = text(&function, "arguments")?;
        // The arguments may be any text, because a model wrote them. Anthropic only accepts an object.
        let is_object = Fields::read(arguments.as_bytes()).is_some();
        let mut block = Writer::object();
        block.text("type", "tool_use");
        block.text("id", &identifier(text(&call, "id")?));
        block.text("name", &name);
        block.field("input", if is_object { &arguments } else { "{}" });
        self.add("assistant", Block::Other(block.finish()));
        if !self.called.contains(&name) {
            if self.called.len() >= MAX_TOOLS {
                return Err(unsupported("calls of more than 128 different tools"));
            }
            self.called.push(name);
        }
        Ok(())
    }

    #[inline(never)]
    fn extend(&mut self, role: &'static str, blocks: Vec<Block>) {
        for block in blocks {
            self.add(role, block);
        }
    }

    /// Adds a block to the last turn, if it is this role's, or to a new one.
    #[inline(never)]
    fn add(&mut self, role: &'static str, block: Block) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.add(block),
            _ => {
                let mut turn = Turn { role, blocks: Vec::new(), results: Vec::new() };
                turn.add(block);
                self.turns.push(turn);
            }
        }
    }

    /// Applies Anthropic's rules for the first and last turn: system messages alone become the user's message, the first turn is
    /// the user's, and a last turn of the assistant does not end with white space.
    fn complete(&mut self) {
        if self.turns.is_empty() {
            let system = std::mem::take(&mut self.system);
            self.extend("user", system);
        }
        if let Some(last) = self.turns.last_mut().filter(|turn| turn.role == "assistant") {
            if let Some(Block::Plain(text)) = last.blocks.last_mut() {
                text.truncate(text.trim_end().len());
            }
        }
        if self.turns.first().is_some_and(|turn| turn.role == "assistant") {
            let blocks = vec![Block::Plain(OPENING.to_owned())];
            self.turns.insert(0, Turn { role: "user", blocks, results: Vec::new() });
        }
    }

    /// Adds an instruction to the system prompt.
    pub(super) fn instruct(&mut self, instruction: &str) {
        self.system.push(Block::Plain(instruction.to_owned()));
    }

    /// Whether the client has begun the answer (prefill).
    pub(super) fn is_prefilled(&self) -> bool {
        self.turns.last().is_some_and(|turn| turn.role == "assistant")
    }

    /// Whether the answer continues after results of tools.
    pub(super) fn ends_with_tool_results(&self) -> bool {
        self.turns.last().is_some_and(|turn| !turn.results.is_empty())
    }

    /// The value of `system`, if there is a system prompt.
    pub(super) fn system(&self) -> Option<String> {
        (!self.system.is_empty()).then(|| joined(&self.system))
    }

    /// The value of `messages`.
    pub(super) fn messages(&self) -> String {
        let mut out = Writer::list();
        for turn in &self.turns {
            let mut message = Writer::object();
            message.text("role", turn.role);
            match (turn.results.as_slice(), turn.blocks.as_slice()) {
                ([], [Block::Plain(text)]) => message.text("content", text),
                (results, blocks) => message.field("content", &list(results.iter().chain(blocks))),
            }
            out.value(&message.finish());
        }
        out.finish()
    }
}

#[inline(never)]
fn unsupported(what: &str) -> Unsupported {
    Unsupported::new("messages", what)
}

/// The text of a field; empty if the field is missing.
#[inline(never)]
fn text(fields: &Fields<'_>, name: &str) -> Result<String, Unsupported> {
    fields.text(name).ok_or_else(|| unsupported("a text that cannot be read"))
}

/// The blocks as a value of `content`: one string with line feeds if all are plain text, otherwise a list.
#[inline(never)]
fn joined(blocks: &[Block]) -> String {
    let mut all = String::new();
    for block in blocks {
        let Block::Plain(text) = block else { return list(blocks) };
        if !all.is_empty() {
            all.push('\n');
        }
        all.push_str(text);
    }
    quoted(&all)
}

/// The blocks as a list.
#[inline(never)]
fn list<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> String {
    let mut out = Writer::list();
    for block in blocks {
        match block {
            Block::Plain(text) => out.value(&[r#"{"type":"text","text":"#, &quoted(text), "}"].concat()),
            Block::CacheMarked(json) | Block::Result(json) | Block::Other(json) => out.value(json),
        }
    }
    out.finish()
}

/// The id of a tool call, which Anthropic requires. A call or a result without one has none that could be replaced before.
fn identifier(id: String) -> String {
    if id.is_empty() {
        "_".to_owned()
    } else {
        id
    }
}

/// The value of `cache_control`, as JSON. Many clients of OpenAI's API send it for Anthropic's prompt cache.
#[inline(never)]
fn cache_control<'a>(part: &Fields<'a>) -> Option<&'a str> {
    part.get("cache_control").filter(|json| json.starts_with('{'))
}

/// A text block; `None` if the text is blank.
#[inline(never)]
fn text_block(text: String, cache_control: Option<&str>) -> Option<Block> {
    let end = text.trim_end().len();
    if end == 0 {
        return None;
    }
    let Some(cache_control) = cache_control else { return Some(Block::Plain(text)) };
    let mut block = Writer::object();
    block.text("type", "text");
    // White space at its end would be refused if this is the last block of the conversation.
    block.text("text", text.get(..end).unwrap_or(&text));
    block.field("cache_control", cache_control);
    Some(Block::CacheMarked(block.finish()))
}

/// The content of a message as blocks.
#[inline(never)]
fn blocks(message: &Fields<'_>) -> Result<Vec<Block>, Unsupported> {
    let mut blocks = Vec::new();
    match message.get("content") {
        None => {}
        Some(content) if content.starts_with('"') => {
            blocks.extend(text_block(text(message, "content")?, cache_control(message)));
        }
        Some(content) => {
            let parts = elements(content);
            for part in
                parts.ok_or_else(|| unsupported("a content that is neither a text nor a list of parts"))?
            {
                let part = Fields::of(part);
                blocks.extend(block(&part.ok_or_else(|| unsupported("a part that is not an object"))?)?);
            }
        }
    }
    Ok(blocks)
}

/// One part of a message's content as a block; `None` for a blank text.
#[inline(never)]
fn block(part: &Fields<'_>) -> Result<Option<Block>, Unsupported> {
    let kind = text(part, "type")?;
    let (new, field, types): (_, _, &[&str]) = match kind.as_str() {
        "text" | "refusal" => return Ok(text_block(text(part, &kind)?, cache_control(part))),
        // Anthropic takes only its own model's thoughts, with their signature, and needs none.
        kind if is_thought(kind.as_bytes()) => return Ok(None),
        "image_url" => ("image", "url", &["image/jpeg", "image/png", "image/gif", "image/webp"]),
        "file" => ("document", "file_data", &["application/pdf"]),
        _ => return Err(unsupported("a part that is not a text, an image or a file")),
    };
    let unknown = || unsupported("an image or a file in an unsupported form");
    let inner = part.object(&kind).ok_or_else(unknown)?;
    let mut block = Writer::object();
    block.text("type", new);
    block.field("source", &source(&text(&inner, field)?, types).ok_or_else(unknown)?);
    if let Some(title) = inner.get("filename") {
        block.field("title", title);
    }
    if let Some(json) = cache_control(part) {
        block.field("cache_control", json);
    }
    Ok(Some(Block::Other(block.finish())))
}

/// The source of an image or a document: a `data:` URL in base64 of one of the types, or a web address.
fn source(url: &str, types: &[&str]) -> Option<String> {
    let mut source = Writer::object();
    if url.starts_with("https://") || url.starts_with("http://") {
        source.text("type", "url");
        source.text("url", url);
        return Some(source.finish());
    }
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    // There may be other parameters between the type and the encoding; they are ignored.
    let given = head.strip_suffix(";base64")?;
    let given = ascii::lower(given.split_once(';').map_or(given, |(given, _)| given));
    let given = if given == "image/jpg" { "image/jpeg" } else { given.as_str() };
    source.text("type", "base64");
    source.text("media_type", types.iter().find(|accepted| **accepted == given)?);
    source.text("data", data);
    Some(source.finish())
}
