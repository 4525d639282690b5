//! What an answer tells of who answered, and of the tools that the provider ran.

use super::*;
use crate::spend::usage::{Calls, Source};

const NO_CALLS: Calls = Calls { web_search: 0, file_search: 0, code_interpreter: 0, image_generation: 0 };

fn whole(endpoint: Endpoint, wire: Wire, body: &str) -> Tally {
    let asked = Asked { endpoint, wire, stream: false, ..asked(Release::Complete) };
    let mut watch = Watch::new(&Head { status: 200, ..Head::default() }, asked);
    let judged = watch.judge(body.as_bytes(), true);
    assert_eq!(judged.verdict.outcome, Outcome::Answered, "{body}");
    if wire == Wire::OpenAi {
        assert_eq!(judged.body, None, "what is told changes nothing for the client");
    }
    watch.tally()
}

fn stream(endpoint: Endpoint, wire: Wire, events: &[&str]) -> Tally {
    let asked = Asked { endpoint, wire, ..asked(Release::FirstToken) };
    let events: Vec<String> = events.iter().map(|data| format!("data: {data}\n\n")).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (passed, tally) = pass_as(&asked, &events, true);
    if wire == Wire::OpenAi && passed.outcome == Some(Outcome::Answered) {
        assert_eq!(passed.sent, events.concat(), "what is told changes nothing for the client");
    }
    tally
}

fn served(tally: &Tally) -> (Option<&str>, Option<&str>) {
    (tally.served.model.as_deref(), tally.served.tier.as_deref())
}

#[test]
fn a_whole_answer_of_every_format_says_who_answered() {
    let choices = r#""choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"}]"#;
    let usage = r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}"#;
    let chat = |more: &str| {
        format!(
            r#"{{"id":"i","object":"chat.completion","created":1,"model":"gpt-5.4-2026-03-05",{choices}{more}}}"#
        )
    };
    let of_litellm = usage.replace('}', r#","service_tier":"standard"}"#);
    for (endpoint, body, tier) in [
        (Endpoint::Chat, chat(&format!(r#","usage":{usage},"service_tier":"priority""#)), Some("priority")),
        (Endpoint::Chat, chat(&format!(r#","usage":{of_litellm}"#)), Some("standard")),
        (Endpoint::Chat, chat(&format!(r#","usage":{of_litellm},"service_tier":"flex""#)), Some("flex")),
        (Endpoint::Chat, chat(&format!(r#","usage":{usage},"service_tier":null"#)), None),
        (Endpoint::Chat, chat(""), None),
        (
            Endpoint::Completions,
            format!(
                r#"{{"id":"i","object":"text_completion","created":1,"model":"gpt-5.4-2026-03-05","choices":[{{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}}],"usage":{usage},"service_tier":"default"}}"#
            ),
            Some("default"),
        ),
        (
            Endpoint::Embeddings,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]}],"model":"gpt-5.4-2026-03-05","usage":{"prompt_tokens":1,"total_tokens":1}}"#.to_owned(),
            None,
        ),
        (
            Endpoint::Responses,
            r#"{"id":"r","status":"completed","model":"gpt-5.4-2026-03-05","output":[{"type":"message"}],"service_tier":"flex","usage":{"input_tokens":1,"output_tokens":1}}"#.to_owned(),
            Some("flex"),
        ),
    ] {
        let tally = whole(endpoint, Wire::OpenAi, &body);
        assert_eq!(served(&tally), (Some("gpt-5.4-2026-03-05"), tier), "{body}");
        assert_eq!(tally.calls, NO_CALLS);
    }
    let unnamed = chat("").replace(r#""model":"gpt-5.4-2026-03-05","#, "");
    let asked = Asked { stream: false, ..asked(Release::Complete) };
    let mut watch = Watch::new(&Head { status: 200, ..Head::default() }, asked);
    watch.judge(unnamed.as_bytes(), true);
    assert_eq!(served(&watch.tally()), (None, None), "the model that was asked is not one that was told");
}

#[test]
fn a_streams_last_word_on_who_answered_counts() {
    let chunk = |model: &str, tier: &str, choice: &str| {
        format!(
            r#"{{"id":"i","object":"chat.completion.chunk","created":1,"model":"{model}",{tier}"choices":[{choice}]}}"#
        )
    };
    let content = r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#;
    let finish = r#"{"index":0,"delta":{},"finish_reason":"stop"}"#;
    let [auto, real] = [r#""service_tier":"auto","#, r#""service_tier":"default","#];
    for (tiers, expected) in [
        ([auto, auto, real], Some("default")),
        (["", "", real], Some("default")),
        ([real, "", ""], Some("default")),
        ([real, r#""service_tier":null,"#, ""], Some("default")),
        ([auto, auto, auto], Some("auto")),
        (["", "", ""], None),
    ] {
        let [one, two, three] = tiers;
        let events = [chunk("m-1", one, content), chunk("m-1", two, content), chunk("m-1", three, finish)];
        let [one, two, three] = &events;
        let tally = stream(Endpoint::Chat, Wire::OpenAi, &[one, two, three, "[DONE]"]);
        assert_eq!(served(&tally), (Some("m-1"), expected), "{events:?}");
    }
    let text = |tier: &str| {
        format!(
            r#"{{"id":"i","object":"text_completion","created":1,"model":"m-1",{tier}"choices":[{{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}}]}}"#
        )
    };
    let tally = stream(Endpoint::Completions, Wire::OpenAi, &[&text(real), "[DONE]"]);
    assert_eq!(served(&tally), (Some("m-1"), Some("default")));
}

#[test]
fn a_model_that_is_told_late_or_only_in_the_chunk_with_the_usage_is_known() {
    let bare = r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"model":""}"#;
    let end = r#"{"choices":[],"model":"m-2","usage":{"prompt_tokens":1,"completion_tokens":1,"service_tier":"priority"}}"#;
    let asked = asked(Release::FirstToken);
    let events = [bare, r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, end]
        .map(|data| format!("data: {data}\n\n"));
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let tally = pass_as(&asked, &events, true).1;
    assert_eq!(served(&tally), (Some("m-2"), Some("priority")));
}

const CREATED: &str = r#"{"type":"response.created","response":{"id":"r","created_at":1,"model":"gpt-5.4","status":"in_progress","service_tier":"auto","output":[],"tool_usage":{"web_search":{"num_requests":0}}}}"#;
const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"Hi"}"#;

fn completed(items: &[&str], more: &str) -> String {
    format!(
        r#"{{"type":"response.completed","response":{{"id":"r","created_at":1,"model":"gpt-5.4-2026-03-05","status":"completed","service_tier":"default","output":[{}],"usage":{{"input_tokens":10,"output_tokens":5,"total_tokens":15}}{more}}}}}"#,
        items.join(",")
    )
}

fn done(item: &str) -> String {
    format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#)
}

const SEARCH: &str = r#"{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q","queries":["q","r"]}}"#;
const OPEN: &str =
    r#"{"id":"ws_2","type":"web_search_call","status":"completed","action":{"type":"open_page","url":"u"}}"#;
const OLD_SEARCH: &str = r#"{"id":"ws_3","type":"web_search_call","status":"completed"}"#;
const FAILED_SEARCH: &str =
    r#"{"id":"ws_4","type":"web_search_call","status":"failed","action":{"type":"search","query":"q"}}"#;
const FILES: &str =
    r#"{"id":"fs_1","type":"file_search_call","status":"completed","queries":["a"],"results":null}"#;
const PICTURE: &str = r#"{"id":"ig_1","type":"image_generation_call","status":"completed","result":"QUJD"}"#;
const CODE: &str =
    r#"{"id":"ci_1","type":"code_interpreter_call","status":"completed","container_id":"cntr_1","code":"1"}"#;
const MORE_CODE: &str =
    r#"{"id":"ci_2","type":"code_interpreter_call","status":"failed","container_id":"cntr_1","code":"2"}"#;
const OTHER_CODE: &str =
    r#"{"id":"ci_3","type":"code_interpreter_call","status":"completed","container_id":"cntr_2","code":"3"}"#;
const OWN_TOOL: &str =
    r#"{"id":"fc_1","type":"function_call","status":"completed","name":"web_search_call","arguments":"{}"}"#;
const ITEMS: [&str; 10] =
    [SEARCH, OPEN, OLD_SEARCH, FAILED_SEARCH, FILES, PICTURE, CODE, MORE_CODE, OTHER_CODE, OWN_TOOL];
const CALLS: Calls = Calls { web_search: 2, file_search: 1, code_interpreter: 2, image_generation: 1 };

#[test]
fn the_calls_of_a_providers_tools_are_counted_once_for_each_item() {
    let whole_answer = |more: &str| {
        let event = completed(&ITEMS, more);
        let (_, response) = event.split_once("\"response\":").unwrap();
        whole(Endpoint::Responses, Wire::OpenAi, response.strip_suffix('}').unwrap())
    };
    let each: Vec<String> = ITEMS.iter().map(|item| done(item)).collect();
    let streamed = |last: &str| {
        let mut events = vec![CREATED, DELTA];
        events.extend(each.iter().map(String::as_str));
        events.push(last);
        stream(Endpoint::Responses, Wire::OpenAi, &events)
    };
    let tallies = [whole_answer(""), streamed(&completed(&ITEMS, "")), streamed(&completed(&[], ""))];
    let all = stream(Endpoint::Responses, Wire::OpenAi, &[CREATED, DELTA, &completed(&ITEMS, "")]);
    let mut twice = vec![CREATED, DELTA];
    twice.extend(each.iter().flat_map(|item| [item.as_str(), item.as_str()]));
    let last = completed(&[], "");
    twice.push(&last);
    let twice = stream(Endpoint::Responses, Wire::OpenAi, &twice);
    for tally in tallies.into_iter().chain([all, twice]) {
        assert_eq!(tally.calls, CALLS);
        assert_eq!(served(&tally), (Some("gpt-5.4-2026-03-05"), Some("default")));
        let (usage, source) = tally.settle(|| 0);
        assert_eq!((usage.input, usage.output, source), (10, 5, Source::Reported));
        assert_eq!(usage.details.calls, CALLS);
    }
    // The provider's own count is the one that it charges.
    let told = r#","tool_usage":{"image_gen":{"total_tokens":0},"web_search":{"num_requests":1}}"#;
    for tally in [whole_answer(told), streamed(&completed(&ITEMS, told))] {
        assert_eq!(tally.calls, Calls { web_search: 1, ..CALLS });
    }
}

#[test]
fn the_calls_in_a_stream_that_breaks_off_are_part_of_the_estimate() {
    let each: Vec<String> = ITEMS.iter().map(|item| done(item)).collect();
    let mut events = vec![CREATED, DELTA];
    events.extend(each.iter().map(String::as_str));
    let tally = stream(Endpoint::Responses, Wire::OpenAi, &events);
    assert_eq!(served(&tally), (Some("gpt-5.4"), Some("auto")));
    let (usage, source) = tally.settle(|| 3);
    assert_eq!((usage.input, source, usage.details.calls), (3, Source::Estimated, CALLS));
}

#[test]
fn a_search_model_searches_once_for_each_request() {
    let chunk = |choice: &str| {
        format!(
            r#"{{"id":"i","object":"chat.completion.chunk","created":1,"model":"gpt-4o-search-preview-2025-03-11","choices":[{choice}]}}"#
        )
    };
    let content = chunk(r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#);
    let finish = chunk(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
    let tally = stream(Endpoint::Chat, Wire::OpenAi, &[&content, &content, &finish, "[DONE]"]);
    assert_eq!(tally.calls, Calls { web_search: 1, ..NO_CALLS });
    let body = |model: &str, usage: &str| {
        format!(
            r#"{{"id":"i","object":"chat.completion","created":1,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"a","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2{usage}}}}}"#
        )
    };
    let told = r#","server_tool_use":{"web_search_requests":3}"#;
    for (model, usage, expected) in [
        ("openai/gpt-5-search-api-2025-10-14", "", 1),
        ("gpt-4o-mini-search-preview", told, 3),
        ("sonar-pro", "", 0),
        ("sonar-pro", r#","num_search_queries":2"#, 2),
    ] {
        let tally = whole(Endpoint::Chat, Wire::OpenAi, &body(model, usage));
        assert_eq!(tally.usage.unwrap().details.calls, Calls { web_search: expected, ..NO_CALLS }, "{model}");
    }
}

#[test]
fn an_answer_of_the_messages_api_says_who_answered_and_what_is_charged_apart() {
    let usage = r#"{"input_tokens":50,"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":500,"server_tool_use":{"web_search_requests":2},"service_tier":"priority"}"#;
    let message = |content: &str, stop: &str, usage: &str| {
        format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5-20260901","content":[{content}],"stop_reason":{stop},"stop_sequence":null,"usage":{usage}}}"#
        )
    };
    let text = r#"{"type":"text","text":"Hi"}"#;
    let start = usage.replace("\"output_tokens\":500", "\"output_tokens\":1");
    let start = format!(
        r#"{{"type":"message_start","message":{}}}"#,
        message("", "null", &start.replace("requests\":2", "requests\":0"))
    );
    let events = [
        &start,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":500,"server_tool_use":{"web_search_requests":2}}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    for tally in [
        whole(Endpoint::Chat, Wire::Anthropic, &message(text, "\"end_turn\"", usage)),
        stream(Endpoint::Chat, Wire::Anthropic, &events),
    ] {
        assert_eq!(served(&tally), (Some("claude-sonnet-5-5-20260901"), Some("priority")));
        let usage = tally.usage.unwrap();
        assert_eq!((usage.input, usage.cached, usage.cache_write, usage.output), (2098, 1800, 248, 500));
        assert_eq!(usage.details.cache_write_1h, 100);
        assert_eq!(usage.details.calls, Calls { web_search: 2, ..NO_CALLS });
    }
}
