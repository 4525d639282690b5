use super::*;
use crate::spend::usage::Usage;

/// Input, cached, written into the cache, of that for an hour, output, reasoning, audio in and out.
type Row = [u64; 8];

fn row(usage: &Usage) -> Row {
    let Usage { input, cached, cache_write, output, reasoning, details } = *usage;
    let Details { cache_write_1h, audio_input, audio_output, .. } = details;
    [input, cached, cache_write, cache_write_1h, output, reasoning, audio_input, audio_output]
}

fn told(object: &str) -> (Row, Calls, Option<&'static str>) {
    let (usage, how) = read(object).unwrap().reconcile();
    (row(&usage), usage.details.calls, how.map(crate::spend::reported::Reconciled::name))
}

#[test]
fn the_words_of_each_vendor_are_read() {
    for (vendor, object, expected, reconciled) in [
        (
            "OpenAI, chat",
            r#"{"prompt_tokens":120,"completion_tokens":80,"total_tokens":200,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":30},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":25,"accepted_prediction_tokens":5,"rejected_prediction_tokens":3}}"#,
            [120, 64, 0, 0, 80, 20, 30, 25],
            None,
        ),
        (
            "OpenAI, responses",
            r#"{"input_tokens":120,"input_tokens_details":{"cached_tokens":64,"cache_write_tokens":16},"output_tokens":80,"output_tokens_details":{"reasoning_tokens":20},"total_tokens":200}"#,
            [120, 64, 16, 0, 80, 20, 0, 0],
            None,
        ),
        (
            "Anthropic",
            r#"{"input_tokens":50,"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":500,"output_tokens_details":{"thinking_tokens":70},"service_tier":"standard"}"#,
            [2098, 1800, 248, 100, 500, 70, 0, 0],
            None,
        ),
        (
            "a gateway with Claude's words, within the prompt",
            r#"{"prompt_tokens":2098,"completion_tokens":500,"total_tokens":2598,"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100}}"#,
            [2098, 1800, 248, 100, 500, 0, 0, 0],
            None,
        ),
        (
            "a gateway with Claude's words, beside the input, and a total of these two alone",
            r#"{"input_tokens":1000,"output_tokens":10,"total_tokens":1010,"cache_read_input_tokens":400}"#,
            [1400, 400, 0, 0, 10, 0, 0, 0],
            Some("total_ignored"),
        ),
        (
            "a gateway with Claude's words, beside the input, and a total of all",
            r#"{"input_tokens":1000,"output_tokens":10,"total_tokens":1410,"cache_read_input_tokens":400}"#,
            [1400, 400, 0, 0, 10, 0, 0, 0],
            None,
        ),
        (
            "a gateway with Claude's words within the details",
            r#"{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010,"prompt_tokens_details":{"cache_read_input_tokens":400,"cache_creation_input_tokens":30}}"#,
            [1000, 400, 30, 0, 10, 0, 0, 0],
            None,
        ),
        (
            "a gateway of the Responses API with Claude's words within the details",
            r#"{"input_tokens":1000,"output_tokens":10,"input_tokens_details":{"cached_tokens":0,"cache_read_input_tokens":400}}"#,
            [1000, 400, 0, 0, 10, 0, 0, 0],
            None,
        ),
        (
            "a gateway whose details say 0",
            r#"{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010,"prompt_tokens_details":{"cached_tokens":0},"cache_read_input_tokens":400}"#,
            [1000, 400, 0, 0, 10, 0, 0, 0],
            None,
        ),
        (
            "a gateway with both forms, one of them empty",
            r#"{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010,"prompt_tokens_details":{"cached_tokens":400},"input_tokens":0,"output_tokens":0,"input_tokens_details":null}"#,
            [1000, 400, 0, 0, 10, 0, 0, 0],
            None,
        ),
        (
            "a gateway with both forms, the other of them empty",
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"input_tokens":50,"output_tokens":10,"cache_read_input_tokens":400}"#,
            [450, 400, 0, 0, 10, 0, 0, 0],
            Some("total_ignored"),
        ),
        (
            "LiteLLM",
            r#"{"completion_tokens":5,"prompt_tokens":317,"total_tokens":322,"completion_tokens_details":{"reasoning_tokens":0,"text_tokens":5},"prompt_tokens_details":{"cached_tokens":100,"text_tokens":17,"cache_write_tokens":200,"cache_creation_tokens":200,"cache_creation_token_details":{"ephemeral_5m_input_tokens":80,"ephemeral_1h_input_tokens":120}},"cache_creation_input_tokens":200,"cache_read_input_tokens":100,"service_tier":"standard"}"#,
            [317, 100, 200, 120, 5, 0, 0, 0],
            None,
        ),
        (
            "OpenRouter",
            r#"{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":0},"cost":0.95,"cost_details":{"upstream_inference_cost":19},"prompt_tokens":194,"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":100,"audio_tokens":7},"total_tokens":196}"#,
            [194, 10, 100, 0, 2, 0, 7, 0],
            None,
        ),
        (
            "Alibaba",
            r#"{"prompt_tokens":2059,"completion_tokens":201,"total_tokens":2260,"prompt_tokens_details":{"text_tokens":2059,"cache_creation":{"ephemeral_5m_input_tokens":2048},"cache_creation_input_tokens":2048,"cache_type":"ephemeral","cached_tokens":0}}"#,
            [2059, 0, 2048, 0, 201, 0, 0, 0],
            None,
        ),
        (
            "Alibaba, in older answers",
            r#"{"prompt_tokens":3019,"completion_tokens":104,"total_tokens":3123,"prompt_tokens_details":{"cached_tokens":2048,"cache_creation":{"cache_creation_input_tokens":500,"cache_type":"ephemeral"}}}"#,
            [3019, 2048, 500, 0, 104, 0, 0, 0],
            None,
        ),
        (
            "DeepSeek",
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":4}"#,
            [12, 8, 0, 0, 5, 0, 0, 0],
            None,
        ),
        (
            "Moonshot",
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"cached_tokens":8}"#,
            [12, 8, 0, 0, 5, 0, 0, 0],
            None,
        ),
        (
            "Mistral",
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"num_cached_tokens":8,"prompt_audio_seconds":3,"prompt_token_details":{"cached_tokens":8}}"#,
            [12, 8, 0, 0, 5, 0, 0, 0],
            None,
        ),
        (
            "Groq, Zhipu, vLLM, Volcengine",
            r#"{"queue_time":0.1,"prompt_tokens":12,"prompt_time":0.2,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":3}}"#,
            [12, 8, 0, 0, 5, 3, 0, 0],
            None,
        ),
        (
            "SGLang",
            r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":8},"reasoning_tokens":3}"#,
            [12, 8, 0, 0, 5, 3, 0, 0],
            None,
        ),
        (
            "Gemini",
            r#"{"prompt_tokens":20,"completion_tokens":198,"total_tokens":623,"prompt_tokens_details":{"cached_tokens":4}}"#,
            [20, 4, 0, 0, 603, 405, 0, 0],
            Some("rest_is_output"),
        ),
        (
            "Perplexity",
            r#"{"prompt_tokens":19,"completion_tokens":498,"total_tokens":517,"citation_tokens":2000,"num_search_queries":21,"reasoning_tokens":73997}"#,
            [2019, 0, 0, 0, 74_495, 73_997, 0, 0],
            Some("total_ignored"),
        ),
        (
            "xAI",
            r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"prompt_tokens_details":{"text_tokens":32,"audio_tokens":0,"image_tokens":0,"cached_tokens":6},"completion_tokens_details":{"reasoning_tokens":94,"audio_tokens":0},"num_sources_used":3}"#,
            [32, 6, 0, 0, 103, 94, 0, 0],
            Some("parts_added"),
        ),
    ] {
        let (row, _, how) = told(object);
        assert_eq!((row, how), (expected, reconciled), "{vendor}");
    }
}

#[test]
fn calls_of_a_vendors_tools_are_read() {
    let calls = |web_search, file_search, code_interpreter, image_generation| Calls {
        web_search,
        file_search,
        code_interpreter,
        image_generation,
    };
    for (vendor, object, expected) in [
        (
            "Anthropic",
            r#""server_tool_use":{"web_search_requests":2,"web_fetch_requests":1}"#,
            calls(2, 0, 0, 0),
        ),
        (
            "OpenRouter",
            r#""server_tool_use":{"web_search_requests":2,"tool_calls_executed":2}"#,
            calls(2, 0, 0, 0),
        ),
        ("LiteLLM", r#""prompt_tokens_details":{"web_search_requests":2}"#, calls(2, 0, 0, 0)),
        (
            "a gateway that tells them twice",
            r#""prompt_tokens_details":{"web_search_requests":2},"server_tool_use":{"web_search_requests":2}"#,
            calls(2, 0, 0, 0),
        ),
        ("Perplexity", r#""num_search_queries":21"#, calls(21, 0, 0, 0)),
        ("xAI, which used thirty pages", r#""num_sources_used":30"#, Calls::default()),
        (
            "xAI",
            r#""num_sources_used":30,"num_server_side_tools_used":13,"server_side_tool_usage_details":{"web_search_calls":0,"x_search_calls":3,"code_interpreter_calls":4,"file_search_calls":3,"mcp_calls":1,"document_search_calls":1,"image_generation_calls":1}"#,
            calls(3, 4, 4, 1),
        ),
        (
            "one that cannot be",
            r#""server_tool_use":{"web_search_requests":99999999999}"#,
            calls(u32::MAX, 0, 0, 0),
        ),
        ("none", r#""server_tool_use":null,"num_search_queries":"none""#, Calls::default()),
    ] {
        let object = format!(r#"{{"prompt_tokens":1,"completion_tokens":1,{object}}}"#);
        assert_eq!(told(&object).1, expected, "{vendor}");
    }
    assert_eq!(
        read_tools(r#"{"image_gen":{"total_tokens":3},"web_search":{"num_requests":4}}"#),
        calls(4, 0, 0, 0)
    );
}

#[test]
fn a_part_of_a_part_is_no_larger_than_it() {
    let object = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cache_write_tokens":4,"audio_tokens":99,"cache_creation":{"ephemeral_1h_input_tokens":3}},"completion_tokens_details":{"audio_tokens":9}}"#;
    assert_eq!(told(object), ([10, 0, 4, 3, 5, 0, 10, 5], Calls::default(), Some("parts_cut")));
}

#[test]
fn a_cache_that_is_told_only_by_its_time_is_written_too() {
    for (object, expected) in [
        (
            r#"{"input_tokens":10,"output_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":300}}"#,
            [310, 300],
        ),
        (
            r#"{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":300,"ephemeral_1h_input_tokens":0}}"#,
            [310, 300],
        ),
        (
            r#"{"prompt_tokens":400,"completion_tokens":5,"prompt_tokens_details":{"cache_creation":{"ephemeral_5m_input_tokens":300}}}"#,
            [400, 300],
        ),
        (
            r#"{"input_tokens":400,"output_tokens":5,"input_tokens_details":{"cache_creation":{"ephemeral_5m_input_tokens":300}}}"#,
            [400, 300],
        ),
    ] {
        let [input, _, written, ..] = told(object).0;
        assert_eq!([input, written], expected, "{object}");
    }
}

#[test]
fn reports_of_one_stream_together_keep_what_stands_beside_the_input() {
    let mut counts = Counts::default();
    for object in [
        r#"{"input_tokens":25,"output_tokens":1}"#,
        r#"{"output_tokens":15,"cache_read_input_tokens":400}"#,
        r#"{"input_tokens":0,"output_tokens":15,"cache_read_input_tokens":0}"#,
    ] {
        counts.add(&Counts::read(object).0);
    }
    let (usage, how) = counts.reported().unwrap().reconcile();
    assert_eq!((row(&usage), how), ([425, 400, 0, 0, 15, 0, 0, 0], None));
}

#[test]
fn every_word_has_a_weight_of_its_own() {
    fn count(rows: &[super::Row]) -> usize {
        let mut names: Vec<_> = rows.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len(), "a word stands twice");
        names.len()
    }
    for rows in [USAGE, INPUT_DETAILS, OUTPUT_DETAILS, CACHE, TOOLS] {
        assert!(count(rows) < usize::from(BESIDE_DETAILS.min(IN_DETAILS - BESIDE_DETAILS)));
    }
}

#[test]
fn a_name_that_no_model_has_is_not_remembered() {
    let long = format!("\"{}\"", "m".repeat(LONGEST_NAME + 1));
    let mut served = Served::default();
    for raw in ["null", "7", "\"\"", "{}", r#""a\nb""#, r#""\u0000""#, r#""\u009b31m""#, r#""\ud83d""#, &long]
    {
        hear(&mut served, &Raw(Some(raw)), &Raw(Some(raw)));
        assert_eq!(served, Served::default(), "{raw}");
    }
    hear(&mut served, &Raw(Some(r#""a\/b""#)), &Raw(None));
    hear(&mut served, &Raw(None), &Raw(Some("\"auto\"")));
    hear(&mut served, &Raw(Some("\"\"")), &Raw(Some("\"flex\"")));
    assert_eq!(served, Served { model: Some("a/b".into()), tier: Some("flex".into()) });
    assert_eq!(newly_served(&served, &Raw(Some(r#""a\/b""#)), &Raw(Some("\"flex\""))), None);
}
