//! An OpenAI chat request as the body of a Messages request.

use super::conversation::Conversation;
use super::model::{Model, Thinking};
use super::schema;
use super::unsupported::Unsupported;
use crate::bytes::json::{elements, quoted, Fields, Writer};

/// What `response_format: json_object` becomes: there is no such mode. OpenAI's clients must ask for JSON in their own
/// words as well.
const ONLY_JSON: &str = "Answer with a single JSON object and nothing else: no code fence, no other text.";

/// Rewrites an OpenAI chat request for Anthropic's `POST /v1/messages`, to be answered by `model`.
///
/// - `max_tokens` is required there: the default is 32000 (4096 before Claude 4).
/// - Generations of Claude differ in what they accept (`model.rs`): `temperature` (at most 1) or else `top_p` are sent to
///   those that sample so; `reasoning_effort` becomes a word or a budget.
/// - `response_format: json_schema` becomes `output_config.format`; `json_object` a sentence in the system prompt.
/// - Left out without a word, since they are hints or for OpenAI's own books: `seed`, the penalties, `logit_bias`,
///   `prediction`, `store`, `metadata`, `service_tier`, `verbosity`, `prompt_cache_key`, `strict` of tools.
///
/// # Errors
/// [`Unsupported`] names the parameter that cannot be expressed.
pub fn request(body: &[u8], model: &str) -> Result<Vec<u8>, Unsupported> {
    let asked =
        Fields::read(body).ok_or_else(|| Unsupported::new("messages", "a body that is no JSON object"))?;
    refuse_the_inexpressible(&asked)?;
    let claude = Model::of(model);
    let mut conversation = Conversation::read(asked.get("messages").unwrap_or("[]"))?;
    if conversation.is_prefilled() && !claude.takes_prefill() {
        return Err(Unsupported::new("messages", "an answer that is begun already (with this model)"));
    }
    let tools = tools(&asked, &conversation.called)?;
    let choice = tool_choice(&asked, tools.is_some())?;
    let forced = matches!(choice, Choice::Any | Choice::Tool(_));
    if forced && !claude.can_be_forced() {
        return Err(Unsupported::new("tool_choice", "a tool that must be called (with this model)"));
    }
    let limit = asked.number("max_completion_tokens").or_else(|| asked.number("max_tokens"));
    let limit = limit.filter(|limit| *limit > 0).unwrap_or_else(|| claude.max_tokens());
    let effort = word(&asked, "reasoning_effort");
    let bare = conversation.is_amid_tools() || conversation.is_prefilled();
    let thought = claude.thought(&effort, forced, bare, limit);

    let mut out = Writer::object();
    out.text("model", model);
    out.number("max_tokens", limit);
    let mut output_config = Writer::object();
    if let Some(effort) = thought.effort {
        output_config.text("effort", effort);
    }
    if let Some(format) = asked.object("response_format") {
        match word(&format, "type").as_str() {
            "text" => {}
            "json_object" => conversation.instruct(ONLY_JSON),
            "json_schema" if claude.takes_schema() => {
                let schema =
                    format.object("json_schema").and_then(|named| schema::accepted(named.get("schema")?));
                let schema =
                    schema.ok_or_else(|| Unsupported::new("response_format", "an unreadable schema"))?;
                output_config.field("format", &[r#"{"type":"json_schema","schema":"#, &schema, "}"].concat());
            }
            _ => return Err(Unsupported::new("response_format", "this type (with this model)")),
        }
    }
    if let Some(system) = conversation.system() {
        out.field("system", &system);
    }
    out.field("messages", &conversation.messages());
    if let Some(tools) = tools {
        out.field("tools", &tools);
    }
    if let Some(choice) = choice.finish(asked.get("parallel_tool_calls") == Some("false")) {
        out.field("tool_choice", &choice);
    }
    match thought.thinking {
        Some(Thinking::Adaptive) => out.field("thinking", r#"{"type":"adaptive"}"#),
        Some(Thinking::Disabled) => out.field("thinking", r#"{"type":"disabled"}"#),
        Some(Thinking::Budget(tokens)) => {
            let tokens = tokens.to_string();
            out.field("thinking", &[r#"{"type":"enabled","budget_tokens":"#, &tokens, "}"].concat());
        }
        None => {}
    }
    if !output_config.is_empty() {
        out.field("output_config", &output_config.finish());
    }
    if claude.samples() && thought.thinking.is_none() {
        sampling(&asked, &mut out);
    }
    if let Some(stop) = stop_sequences(asked.get("stop").unwrap_or("[]")) {
        out.field("stop_sequences", &stop);
    }
    if let Some(user) = user(&asked) {
        out.field("metadata", &[r#"{"user_id":"#, &quoted(&user), "}"].concat());
    }
    if asked.get("stream") == Some("true") {
        out.field("stream", "true");
    }
    Ok(out.finish().into_bytes())
}

/// What the client wants to have in the answer, or asks in a way, that has no equivalent.
fn refuse_the_inexpressible(asked: &Fields<'_>) -> Result<(), Unsupported> {
    let is_set = |name| asked.get(name).is_some_and(|value| !matches!(value, "false" | "[]" | "{}"));
    for (param, what) in [
        ("functions", "a value; use tools"),
        ("function_call", "a value; use tool_choice"),
        ("logprobs", "the value true"),
        ("audio", "a value"),
        ("web_search_options", "a value"),
    ] {
        if is_set(param) {
            return Err(Unsupported::new(param, what));
        }
    }
    if asked.get("modalities").is_some_and(|list| list.contains("\"audio\"")) {
        return Err(Unsupported::new("modalities", "audio"));
    }
    if asked.get("n").is_some_and(|n| n != "1") {
        return Err(Unsupported::new("n", "another value than 1"));
    }
    Ok(())
}

/// A text; empty if it is absent or no text.
#[inline(never)]
fn word(fields: &Fields<'_>, name: &str) -> String {
    fields.text(name).unwrap_or_default()
}

/// The value of `tools`; `None` if there are none. A history with calls must define what was `called`.
fn tools(asked: &Fields<'_>, called: &[String]) -> Result<Option<String>, Unsupported> {
    const EMPTY: &str = r#"{"type":"object"}"#;
    let unsupported = || Unsupported::new("tools", "more than functions");
    let mut out = Writer::list();
    for tool in elements(asked.get("tools").unwrap_or("[]")).ok_or_else(unsupported)? {
        let tool = Fields::of(tool).ok_or_else(unsupported)?;
        let function = tool.object("function").ok_or_else(unsupported)?;
        let mut new = Writer::object();
        new.field("name", function.get("name").ok_or_else(unsupported)?);
        if let Some(description) = function.get("description") {
            new.field("description", description);
        }
        let schema = function.object("parameters");
        match (schema, function.get("parameters")) {
            (Some(schema), Some(text)) if schema.get("type").is_some() => new.field("input_schema", text),
            // The type is required, even of a schema that says everything else.
            (Some(schema), _) => {
                let mut whole = Writer::object();
                whole.text("type", "object");
                for (name, json) in schema.iter() {
                    whole.key(name);
                    whole.value(json);
                }
                new.field("input_schema", &whole.finish());
            }
            (None, _) => new.field("input_schema", EMPTY),
        }
        if let Some(mark) = tool.get("cache_control").or_else(|| function.get("cache_control")) {
            new.field("cache_control", mark);
        }
        out.value(&new.finish());
    }
    if out.is_empty() {
        for name in called {
            let mut new = Writer::object();
            new.text("name", name);
            new.field("input_schema", EMPTY);
            out.value(&new.finish());
        }
    }
    Ok((!out.is_empty()).then(|| out.finish()))
}

/// Which tools are to be called.
enum Choice {
    /// Nothing is said.
    Unsaid,
    Auto,
    None,
    Any,
    Tool(String),
}

/// Reads `tool_choice`. `defined`: there are tools; without any, nothing may be said of a choice.
fn tool_choice(asked: &Fields<'_>, defined: bool) -> Result<Choice, Unsupported> {
    if !defined {
        return Ok(Choice::Unsaid);
    }
    // Only those of the history: they must be defined, but the client did not offer them.
    if asked.get("tools").is_none_or(|tools| elements(tools).is_none_or(|tools| tools.is_empty())) {
        return Ok(Choice::None);
    }
    let Some(choice) = asked.get("tool_choice") else { return Ok(Choice::Unsaid) };
    match choice {
        r#""auto""# => Ok(Choice::Auto),
        r#""none""# => Ok(Choice::None),
        r#""required""# => Ok(Choice::Any),
        _ => {
            let function = asked.object("tool_choice").and_then(|choice| choice.object("function"));
            let name = function.map(|function| word(&function, "name")).filter(|name| !name.is_empty());
            name.map(Choice::Tool)
                .ok_or_else(|| Unsupported::new("tool_choice", "something other than a function"))
        }
    }
}

impl Choice {
    /// The value of `tool_choice`. `single`: at most one call in an answer.
    fn finish(&self, single: bool) -> Option<String> {
        let kind = match self {
            Self::Unsaid if !single => return None,
            Self::Unsaid | Self::Auto => "auto",
            Self::None => "none",
            Self::Any => "any",
            Self::Tool(_) => "tool",
        };
        let mut out = Writer::object();
        out.text("type", kind);
        if let Self::Tool(name) = self {
            out.text("name", name);
        }
        if single && !matches!(self, Self::None) {
            out.field("disable_parallel_tool_use", "true");
        }
        Some(out.finish())
    }
}

/// `temperature`, which ends at 1 there, or else `top_p`: since 4.1, both together are refused.
fn sampling(asked: &Fields<'_>, out: &mut Writer) {
    let number =
        |name| asked.get(name).and_then(|json| Some((json, serde_json::from_str::<f64>(json).ok()?)));
    if let Some((json, temperature)) = number("temperature") {
        out.field("temperature", if temperature > 1.0 { "1" } else { json });
    } else if let Some((top_p, _)) = number("top_p") {
        out.field("top_p", top_p);
    }
}

/// A text or a list of texts. Blank ones are refused there.
fn stop_sequences(stop: &str) -> Option<String> {
    let list = if stop.starts_with('"') { ["[", stop, "]"].concat() } else { stop.to_owned() };
    let mut out = Writer::list();
    for sequence in elements(&list)? {
        let text: String = serde_json::from_str(sequence).unwrap_or_default();
        if !text.trim().is_empty() {
            out.value(sequence);
        }
    }
    (!out.is_empty()).then(|| out.finish())
}

/// Who asks, in the client's words. What looks like an address or a telephone number is refused there.
fn user(asked: &Fields<'_>) -> Option<String> {
    const LONGEST: usize = 256;
    let user = ["user", "safety_identifier"]
        .map(|name| word(asked, name))
        .into_iter()
        .find(|user| !user.is_empty())?;
    let opaque =
        user.len() <= LONGEST && !user.contains('@') && user.contains(|c: char| c.is_ascii_alphabetic());
    opaque.then_some(user)
}
