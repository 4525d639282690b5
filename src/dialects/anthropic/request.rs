//! Translates an OpenAI chat request to the body of a Messages request.

use super::conversation::Conversation;
use super::model::{Model, Thinking, ThinkingParams};
use super::schema;
use super::unsupported::Unsupported;
use crate::bytes::json::{elements, quoted, Fields, Writer};
use crate::client_api::request::LongestAnswer;

/// The instruction for `response_format: json_object`, since Anthropic has no such mode. OpenAI's clients must also ask for JSON in
/// their own messages.
const ONLY_JSON: &str = "Answer with a single JSON object and nothing else: no code fence, no other text.";

/// Translates an OpenAI chat request to the body of Anthropic's `POST /v1/messages`, to be answered by `model`.
///
/// - `max_tokens` is required by Anthropic; the default is 32000 (4096 before Claude 4), or the `longest` answer of the model if that is
///   shorter.
/// - The generations of Claude accept different parameters (see `model.rs`): `temperature` (at most 1) or else `top_p` is
///   sent to those that accept it; `reasoning_effort` becomes an effort level or a thinking budget.
/// - `response_format: json_schema` becomes `output_config.format`; `json_object` becomes a sentence in the system prompt.
/// - These parameters are dropped, because they are hints or only affect OpenAI's own bookkeeping: `seed`, the penalties,
///   `logit_bias`, `prediction`, `store`, `metadata`, `service_tier`, `verbosity`, `prompt_cache_key`, `strict` of tools.
///
/// # Errors
/// [`Unsupported`] names the parameter that cannot be translated.
pub fn request(body: &[u8], model: &str, longest: LongestAnswer) -> Result<Vec<u8>, Unsupported> {
    let params =
        Fields::read(body).ok_or_else(|| Unsupported::new("messages", "a body that is not a JSON object"))?;
    refuse_unsupported(&params)?;
    let claude = Model::of(model);
    let mut conversation = Conversation::read(params.get("messages").unwrap_or("[]"))?;
    if conversation.is_prefilled() && !claude.accepts_prefill() {
        return Err(Unsupported::new(
            "messages",
            "a last message of the assistant (this model does not continue it)",
        ));
    }
    let tools = tools(&params, &conversation.called)?;
    let choice = tool_choice(&params, tools.is_some())?;
    let forced = matches!(choice, Choice::Any | Choice::Tool(_));
    if forced && !claude.accepts_forced_call() {
        return Err(Unsupported::new("tool_choice", "a forced tool call (this model does not accept one)"));
    }
    let limit = params.number("max_completion_tokens").or_else(|| params.number("max_tokens"));
    let limit = match limit.filter(|limit| *limit > 0) {
        Some(limit) => longest.lowered(limit).unwrap_or(limit),
        None => claude.max_tokens().min(longest.tokens.unwrap_or(u64::MAX)),
    };
    let effort = word(&params, "reasoning_effort");
    let mid_turn = conversation.ends_with_tool_results() || conversation.is_prefilled();
    let thinking_params = claude.thinking_params(&effort, forced, mid_turn, limit);
    let format = response_format(&params, claude, &mut conversation)?;

    let mut out = Writer::object();
    out.text("model", model);
    out.number("max_tokens", limit);
    if let Some(system) = conversation.system() {
        out.field("system", &system);
    }
    out.field("messages", &conversation.messages());
    if let Some(tools) = tools {
        out.field("tools", &tools);
    }
    if let Some(choice) = choice.finish(params.get("parallel_tool_calls") == Some("false")) {
        out.field("tool_choice", &choice);
    }
    write_thinking(&thinking_params, format, &mut out);
    if claude.accepts_sampling() && thinking_params.thinking.is_none() {
        sampling(&params, &mut out);
    }
    if let Some(stop) = stop_sequences(params.get("stop").unwrap_or("[]")) {
        out.field("stop_sequences", &stop);
    }
    if let Some(user) = user(&params) {
        out.field("metadata", &[r#"{"user_id":"#, &quoted(&user), "}"].concat());
    }
    if params.get("stream") == Some("true") {
        out.field("stream", "true");
    }
    Ok(out.finish().into_bytes())
}

/// The value of `output_config.format` for `response_format`, if it needs one. `json_object` adds an instruction to the
/// conversation instead.
fn response_format(
    params: &Fields<'_>,
    claude: Model,
    conversation: &mut Conversation,
) -> Result<Option<String>, Unsupported> {
    let Some(format) = params.object("response_format") else { return Ok(None) };
    match word(&format, "type").as_str() {
        "text" => Ok(None),
        "json_object" => {
            conversation.instruct(ONLY_JSON);
            Ok(None)
        }
        "json_schema" if claude.accepts_schema() => {
            let schema =
                format.object("json_schema").and_then(|named| schema::accepted(named.get("schema")?));
            let schema = schema.ok_or_else(|| Unsupported::new("response_format", "an unreadable schema"))?;
            Ok(Some([r#"{"type":"json_schema","schema":"#, &schema, "}"].concat()))
        }
        _ => Err(Unsupported::new("response_format", "this type (this model does not accept it)")),
    }
}

/// Writes `thinking` and `output_config`, which has the effort and the format.
fn write_thinking(params: &ThinkingParams, format: Option<String>, out: &mut Writer) {
    match params.thinking {
        Some(Thinking::Adaptive) => out.field("thinking", r#"{"type":"adaptive"}"#),
        Some(Thinking::Disabled) => out.field("thinking", r#"{"type":"disabled"}"#),
        Some(Thinking::Budget(tokens)) => {
            let tokens = tokens.to_string();
            out.field("thinking", &[r#"{"type":"enabled","budget_tokens":"#, &tokens, "}"].concat());
        }
        None => {}
    }
    let mut output_config = Writer::object();
    if let Some(effort) = params.effort {
        output_config.text("effort", effort);
    }
    if let Some(format) = format {
        output_config.field("format", &format);
    }
    if !output_config.is_empty() {
        out.field("output_config", &output_config.finish());
    }
}

/// Refuses parameters that have no equivalent in Anthropic's API and are not only hints.
fn refuse_unsupported(params: &Fields<'_>) -> Result<(), Unsupported> {
    let is_set = |name| params.get(name).is_some_and(|value| !matches!(value, "false" | "[]" | "{}"));
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
    if params.get("modalities").is_some_and(|list| list.contains("\"audio\"")) {
        return Err(Unsupported::new("modalities", "audio"));
    }
    if params.get("n").is_some_and(|n| n != "1") {
        return Err(Unsupported::new("n", "a value other than 1"));
    }
    Ok(())
}

/// The text of a field; empty if the field is missing or not a string.
#[inline(never)]
fn word(fields: &Fields<'_>, name: &str) -> String {
    fields.text(name).unwrap_or_default()
}

/// The value of `tools`; `None` if there are none. If the request defines none but the history has calls, the tools that were
/// `called` are defined without parameters, because Anthropic requires a definition of them.
fn tools(params: &Fields<'_>, called: &[String]) -> Result<Option<String>, Unsupported> {
    const EMPTY: &str = r#"{"type":"object"}"#;
    let unsupported = || Unsupported::new("tools", "a tool that is not a function");
    let mut out = Writer::list();
    for tool in elements(params.get("tools").unwrap_or("[]")).ok_or_else(unsupported)? {
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
            // Anthropic requires a type in every schema, so a missing one is added.
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
        if let Some(json) = tool.get("cache_control").or_else(|| function.get("cache_control")) {
            new.field("cache_control", json);
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

/// Whether and which tools are to be called.
enum Choice {
    /// The request does not choose.
    Unset,
    Auto,
    None,
    Any,
    Tool(String),
}

/// Reads `tool_choice`. `defined`: the request to Anthropic defines tools. If it does not, it must not contain a choice.
fn tool_choice(params: &Fields<'_>, defined: bool) -> Result<Choice, Unsupported> {
    if !defined {
        return Ok(Choice::Unset);
    }
    // Only tools of the history are defined. The client offers none of them, so none may be called.
    if params.get("tools").is_none_or(|tools| elements(tools).is_none_or(|tools| tools.is_empty())) {
        return Ok(Choice::None);
    }
    let Some(choice) = params.get("tool_choice") else { return Ok(Choice::Unset) };
    match choice {
        r#""auto""# => Ok(Choice::Auto),
        r#""none""# => Ok(Choice::None),
        r#""required""# => Ok(Choice::Any),
        _ => {
            let function = params.object("tool_choice").and_then(|choice| choice.object("function"));
            let name = function.map(|function| word(&function, "name")).filter(|name| !name.is_empty());
            name.map(Choice::Tool)
                .ok_or_else(|| Unsupported::new("tool_choice", "something other than a function"))
        }
    }
}

impl Choice {
    /// The value of `tool_choice`. `single`: an answer may have at most one call.
    fn finish(&self, single: bool) -> Option<String> {
        let kind = match self {
            Self::Unset if !single => return None,
            Self::Unset | Self::Auto => "auto",
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

/// Writes `temperature` (at most 1) or else `top_p`. Models since 4.1 refuse both together.
fn sampling(params: &Fields<'_>, out: &mut Writer) {
    let number =
        |name| params.get(name).and_then(|json| Some((json, serde_json::from_str::<f64>(json).ok()?)));
    if let Some((json, temperature)) = number("temperature") {
        out.field("temperature", if temperature > 1.0 { "1" } else { json });
    } else if let Some((top_p, _)) = number("top_p") {
        out.field("top_p", top_p);
    }
}

/// The value of `stop_sequences` for `stop`, which is a string or a list. Blank sequences are left out, since Anthropic refuses them.
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

/// The client's id of its user. One that looks like an e-mail address or a telephone number is left out, since Anthropic refuses it.
fn user(params: &Fields<'_>) -> Option<String> {
    const MAX_LEN: usize = 256;
    let user = ["user", "safety_identifier"]
        .map(|name| word(params, name))
        .into_iter()
        .find(|user| !user.is_empty())?;
    let opaque =
        user.len() <= MAX_LEN && !user.contains('@') && user.contains(|c: char| c.is_ascii_alphabetic());
    opaque.then_some(user)
}
