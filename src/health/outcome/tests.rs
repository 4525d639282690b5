use super::*;

fn error(code: &str) -> ErrorBody {
    ErrorBody { code: code.to_owned(), ..ErrorBody::default() }
}

fn read(body: &str) -> ErrorBody {
    ErrorBody::read(body.as_bytes())
}

/// OpenAI's envelope with a type and a message.
fn said(kind: &str, message: &str) -> ErrorBody {
    ErrorBody { kind: kind.to_owned(), message: message.to_owned(), ..ErrorBody::default() }
}

#[test]
fn every_status_has_the_outcome_of_the_table() {
    for (statuses, outcome) in [
        (&[500, 501, 502, 504, 520, 530, 408, 425, 301, 302, 307, 204, 599][..], Outcome::ServerError),
        (&[498, 503, 529], Outcome::Overloaded),
        (&[429], Outcome::RateLimited),
        (&[402], Outcome::OutOfQuota),
        (&[401, 403], Outcome::BadKey),
        (&[404, 405, 410], Outcome::NoSuchModel),
        (&[412, 423, 499], Outcome::Unwilling),
        (&[413], Outcome::TooLong),
        (&[400, 409, 415, 418, 422, 424], Outcome::BadRequest),
    ] {
        for status in statuses {
            assert_eq!(of_status(*status, &ErrorBody::default()), outcome, "{status}");
        }
    }
}

#[test]
fn only_a_status_that_can_mean_several_things_leaves_a_doubt() {
    for status in 0..=999 {
        let open =
            matches!(status, 400..=499) && ![401, 402, 408, 409, 413, 424, 425, 429, 498].contains(&status);
        assert_eq!(doubt(status, &ErrorBody::default()).is_some(), open, "{status}");
    }
    for status in [400, 403, 404, 405, 410, 412, 422, 423, 499] {
        assert_eq!(doubt(status, &error("a code")).unwrap().code, "acode", "{status}");
        for known in
            ["invalid_api_key", "model_not_found", "Arrearage", "content_filter", "context_length_exceeded"]
        {
            assert_eq!(doubt(status, &error(known)), None, "{status} {known}");
        }
    }
}

#[test]
fn a_404_about_a_stored_object_is_a_bad_request() {
    for (param, message, outcome) in [
        (Some("input"), "Item with id 'msg_1' not found.", Outcome::BadRequest),
        (None, "Conversation with id 'conv_1' not found.", Outcome::BadRequest),
        (Some("model"), "No model with id 'm'.", Outcome::NoSuchModel),
        (None, "Model with id 'm' not found.", Outcome::NoSuchModel),
        (Some(""), "Not Found", Outcome::NoSuchModel),
        (None, "", Outcome::NoSuchModel),
    ] {
        let param = param.map(str::to_owned);
        let error = ErrorBody { param, message: message.to_owned(), ..ErrorBody::default() };
        assert_eq!(of_status(404, &error), outcome, "{error:?}");
    }
}

#[test]
fn a_code_outweighs_its_status() {
    for (status, code, outcome) in [
        (429, "insufficient_quota", Outcome::OutOfQuota),
        (429, "project_spend_limit_exceeded", Outcome::OutOfQuota),
        (429, "rate_limit_exceeded", Outcome::RateLimited),
        (429, "slow_down", Outcome::Overloaded),
        (500, "server_is_overloaded", Outcome::Overloaded),
        (400, "context_length_exceeded", Outcome::TooLong),
        (400, "content_filter", Outcome::Refused),
        (400, "model_not_found", Outcome::NoSuchModel),
        (503, "no_healthy_upstream", Outcome::Unreachable),
        (400, "something_else", Outcome::BadRequest),
    ] {
        assert_eq!(of_status(status, &error(code)), outcome, "{status} {code}");
    }
}

#[test]
fn an_error_inside_a_200_is_judged_as_under_400_or_under_the_status_that_it_names() {
    for (body, outcome, is_open) in [
        (r#"{"error":{"message":"m"}}"#, Outcome::ServerError, false),
        (
            r#"{"error":{"message":"m","type":"server_error","code":"server_error"}}"#,
            Outcome::ServerError,
            false,
        ),
        (r#"{"error":{"message":"m","code":"strange"}}"#, Outcome::ServerError, false),
        (r#"{"error":{"message":"m","code":429}}"#, Outcome::RateLimited, false),
        (r#"{"error":{"message":"m","code":"429"}}"#, Outcome::RateLimited, false),
        (r#"{"error":{"message":"m","status":429}}"#, Outcome::RateLimited, false),
        (r#"{"error":{"message":"m","code":"503"}}"#, Outcome::Overloaded, false),
        (
            r#"{"error":{"message":"m","code":500,"type":"invalid_request_error"}}"#,
            Outcome::ServerError,
            false,
        ),
        (r#"{"error":{"message":"m","code":401}}"#, Outcome::BadKey, false),
        (r#"{"error":{"message":"m","code":403}}"#, Outcome::BadKey, true),
        (r#"{"error":{"message":"m","code":404}}"#, Outcome::NoSuchModel, true),
        (r#"{"error":{"message":"m","code":413}}"#, Outcome::TooLong, false),
        (r#"{"error":{"message":"m","code":400}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","code":"422"}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","type":"invalid_request_error"}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","status":"INVALID_ARGUMENT"}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","code":"image_parse_error"}}"#, Outcome::BadRequest, true),
        (r#"{"error":{"message":"m","code":"vector_store_timeout"}}"#, Outcome::ServerError, false),
        (r#"{"error":{"message":"m","code":"invalid_prompt"}}"#, Outcome::Refused, false),
        (r#"{"error":{"message":"m","code":"cyber_policy"}}"#, Outcome::Refused, false),
        (r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#, Outcome::RateLimited, false),
        (r#"{"error":{"message":"m","code":"insufficient_quota"}}"#, Outcome::OutOfQuota, false),
        (r#"{"error":{"message":"m","type":"overloaded"}}"#, Outcome::Overloaded, false),
        (r#"{"error":{"message":"m","status":"RESOURCE_EXHAUSTED"}}"#, Outcome::RateLimited, false),
        (r#"{"error":{"message":"m","status":"UNAVAILABLE"}}"#, Outcome::Overloaded, false),
        (r#"{"error":{"message":"m","type":"permission_error"}}"#, Outcome::BadKey, true),
        (r#"{"error":{"message":"m","type":"not_found_error"}}"#, Outcome::NoSuchModel, true),
        (
            r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#,
            Outcome::NoSuchModel,
            true,
        ),
        (r#"{"code":"Arrearage","message":"m"}"#, Outcome::OutOfQuota, false),
        (r#"{"error":"Rate limit exceeded"}"#, Outcome::ServerError, false),
        (r#"{"error":{"message":"m","code":409}}"#, Outcome::BadRequest, false),
        (r#"{"error":{"message":"m","code":412}}"#, Outcome::Unwilling, true),
        (r#"{"error":{"message":"m","code":498}}"#, Outcome::Overloaded, false),
        (r#"{"error":{"message":"m","code":200}}"#, Outcome::ServerError, false),
        (r#"{"error":{"message":"m","code":4000,"type":"api_error"}}"#, Outcome::ServerError, false),
        (r#"{"error":{"message":"m","code":"Invalid_API_Key"}}"#, Outcome::BadKey, false),
        (
            r#"{"error":{"message":"Provider returned error","code":502,"metadata":{"raw":"not JSON"}}}"#,
            Outcome::ServerError,
            false,
        ),
        (
            r#"{"error":{"message":"m","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"Content Exists Risk\"}}"}}}"#,
            Outcome::Refused,
            false,
        ),
    ] {
        let (found, doubt) = judge_in_answer(&read(body));
        assert_eq!((found, doubt.is_some()), (outcome, is_open), "{body}");
    }
}

#[test]
fn the_words_of_every_vendor_outweigh_the_status() {
    for (status, body, outcome) in [
        // Alibaba.
        (
            400,
            r#"{"code":"Arrearage","message":"Access denied, please make sure your account is in good standing.","request_id":"r"}"#,
            Outcome::OutOfQuota,
        ),
        (
            400,
            r#"{"error":{"code":"Arrearage","param":null,"message":"m","type":"Arrearage"}}"#,
            Outcome::OutOfQuota,
        ),
        (401, r#"{"code":"InvalidApiKey","message":"m"}"#, Outcome::BadKey),
        (400, r#"{"code":"InvalidApiKey","message":"m"}"#, Outcome::BadKey),
        (403, r#"{"code":"AccessDenied.Unpurchased","message":"m"}"#, Outcome::NoSuchModel),
        (
            400,
            r#"{"error":{"message":"m","type":"data_inspection_failed","code":"data_inspection_failed"}}"#,
            Outcome::Refused,
        ),
        (
            400,
            r#"{"code":"DataInspectionFailed","message":"Input data may contain inappropriate content."}"#,
            Outcome::Refused,
        ),
        (
            400,
            r#"{"error":{"message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]","code":"invalid_parameter_error"}}"#,
            Outcome::TooLong,
        ),
        (403, r#"{"code":"Throttling.RateQuota","message":"m"}"#, Outcome::RateLimited),
        // Fireworks.
        (
            412,
            r#"{"error":{"message":"Account acme is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.","code":"PRECONDITION_FAILED","type":"error"}}"#,
            Outcome::OutOfQuota,
        ),
        (412, r#"{"error":{"message":"account suspended"}}"#, Outcome::OutOfQuota),
        (
            404,
            r#"{"error":{"code":"NOT_FOUND","message":"Model not found, inaccessible, and/or not deployed"}}"#,
            Outcome::NoSuchModel,
        ),
        // Gemini.
        (
            400,
            r#"[{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}]"#,
            Outcome::BadKey,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]"#,
            Outcome::BadKey,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}]"#,
            Outcome::BadKey,
        ),
        (
            403,
            r#"[{"error":{"code":403,"message":"Permission denied: Consumer 'api_key:x' has been suspended.","status":"PERMISSION_DENIED","details":[{"reason":"CONSUMER_SUSPENDED"}]}}]"#,
            Outcome::BadKey,
        ),
        (
            429,
            r#"[{"error":{"code":429,"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}]"#,
            Outcome::OutOfQuota,
        ),
        (
            404,
            r#"[{"error":{"code":404,"message":"models/gemini-0 is not found for API version v1main, or is not supported for generateContent.","status":"NOT_FOUND"}}]"#,
            Outcome::NoSuchModel,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
            Outcome::TooLong,
        ),
        (
            400,
            r#"{"error":{"message":"The prompt was blocked: PROHIBITED_CONTENT","code":400}}"#,
            Outcome::Refused,
        ),
        (400, r#"{"error":{"message":"blocked","code":"SAFETY"}}"#, Outcome::Refused),
        (400, r#"{"error":{"message":"blocked","status":"BLOCKLIST"}}"#, Outcome::Refused),
        // Groq.
        (
            400,
            r#"{"error":{"message":"The model `m` has been decommissioned","type":"invalid_request_error","code":"model_decommissioned"}}"#,
            Outcome::NoSuchModel,
        ),
        (
            413,
            r#"{"error":{"message":"Request too large for model `m` in organization `o` on tokens per minute (TPM): Limit 6000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Outcome::TooLong,
        ),
        (413, r#"{"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#, Outcome::TooLong),
        (
            400,
            r#"{"error":{"message":"Organization has been restricted.","type":"invalid_request_error","code":"organization_restricted"}}"#,
            Outcome::BadKey,
        ),
        // NVIDIA.
        (
            402,
            r#"{"status":402,"title":"Payment Required","detail":"Account 'a': Cloud credits expired"}"#,
            Outcome::OutOfQuota,
        ),
        (
            410,
            r#"{"type":"about:blank","status":410,"title":"Gone","detail":"The model 'a/b' has reached its end of life on 2026-08-26T09:00:00Z and is no longer available."}"#,
            Outcome::NoSuchModel,
        ),
        (
            404,
            r#"{"status":404,"title":"Not Found","detail":"Function '23d4f03a': Not found for account 'x'"}"#,
            Outcome::NoSuchModel,
        ),
        // xAI.
        (
            403,
            r#"{"code":"The caller does not have permission to execute the specified operation","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}"#,
            Outcome::Refused,
        ),
        (
            403,
            r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your team fae4735c has either used all available credits or reached its monthly spending limit."}"#,
            Outcome::OutOfQuota,
        ),
        (
            429,
            r#"{"code":"Some resource has been exhausted","error":"Your team has either used all available credits or reached its monthly spending limit."}"#,
            Outcome::OutOfQuota,
        ),
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}"#,
            Outcome::TooLong,
        ),
        // OpenRouter.
        (
            403,
            r#"{"error":{"code":403,"message":"m requires moderation. Your input was flagged for \"violence\"","metadata":{"reasons":["violence"],"flagged_input":"x","provider_name":"p"}}}"#,
            Outcome::Refused,
        ),
        (
            403,
            r#"{"error":{"code":403,"message":"m","metadata":{"error_type":"content_policy_violation"}}}"#,
            Outcome::Refused,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"Provider returned error","metadata":{"provider_name":"p","raw":"{\"error\":{\"message\":\"This model's maximum context length is 8192 tokens.\",\"code\":400}}"}}}"#,
            Outcome::TooLong,
        ),
        // What the provider behind says of its own key is no matter of ours.
        (
            400,
            r#"{"error":{"code":400,"message":"Provider returned error","metadata":{"provider_name":"p","raw":"{\"error\":{\"code\":\"insufficient_quota\"}}"}}}"#,
            Outcome::BadRequest,
        ),
        // Others.
        (
            400,
            r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
            Outcome::Refused,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_ctx":4096}}"#,
            Outcome::TooLong,
        ),
        (
            400,
            r#"{"object":"error","message":"The input (9000 tokens) is longer than the model's context length (4096 tokens).","type":"BadRequestError","param":null,"code":400}"#,
            Outcome::TooLong,
        ),
        (
            400,
            r#"{"object":"error","message":"Prompt contains 39921 tokens, too large for model with 32768 maximum context length","type":"invalid_request_error","code":"3051"}"#,
            Outcome::TooLong,
        ),
        (
            400,
            r#"{"object":"error","message":"Invalid model: m","type":"invalid_model","param":null,"code":"1500"}"#,
            Outcome::NoSuchModel,
        ),
        (
            404,
            r#"{"object":"error","message":"The model `m` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
            Outcome::NoSuchModel,
        ),
        (404, r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#, Outcome::NoSuchModel),
        (
            400,
            r#"{"error":{"code":null,"message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            Outcome::Refused,
        ),
        (404, r#"{"message":"model 'command' was removed on September 15, 2025."}"#, Outcome::NoSuchModel),
        (429, r#"{"error":{"message":"m","type":"exceeded_current_quota_error"}}"#, Outcome::OutOfQuota),
        (429, r#"{"error":{"message":"m","type":"engine_overloaded_error"}}"#, Outcome::Overloaded),
        (
            429,
            r#"{"error":{"message":"Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Outcome::TooLong,
        ),
        (429, r#"{"error":{"code":"1113","message":"m"}}"#, Outcome::OutOfQuota),
        (400, r#"{"error":{"code":"1301","message":"m"}}"#, Outcome::Refused),
        (
            403,
            r#"{"error":{"code":"unsupported_country_region_territory","message":"m","param":null,"type":"request_forbidden"}}"#,
            Outcome::BadKey,
        ),
        (
            403,
            r#"{"error":{"code":"misalignment_policy_violation","message":"m","type":"invalid_request_error"}}"#,
            Outcome::Refused,
        ),
        (
            403,
            r#"{"error":{"code":"AccountOverdueError","message":"m","type":"Forbidden"}}"#,
            Outcome::OutOfQuota,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
            Outcome::BadKey,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#,
            Outcome::Refused,
        ),
    ] {
        let (found, doubt) = judge(status, &read(body));
        assert_eq!(found, outcome, "{status} {body}");
        let may_be_open = outcome == Outcome::BadRequest || outcome.needs_evidence();
        assert!(may_be_open || doubt.is_none(), "{status} {body}");
    }
}

#[test]
fn how_a_message_begins_names_the_outcome_and_holds_nobody_by_itself() {
    let key = "API key not valid";
    for (status, body, outcome, is_open) in [
        (400, format!(r#"{{"error":{{"message":"{key}. Please pass another."}}}}"#), Outcome::BadKey, true),
        (401, format!(r#"{{"error":{{"message":"{key}."}}}}"#), Outcome::BadKey, false),
        (
            400,
            format!(r#"{{"error":{{"message":"{key}.","details":[{{"reason":"API_KEY_INVALID"}}]}}}}"#),
            Outcome::BadKey,
            false,
        ),
        // The words of a client that a vendor repeats: a model, and a field that FastAPI does not know.
        (
            400,
            r#"{"error":{"message":"account suspended is not a valid model ID"}}"#.to_owned(),
            Outcome::OutOfQuota,
            true,
        ),
        (
            422,
            format!(r#"{{"detail":[{{"loc":["body","{key}"],"msg":"Extra inputs are not permitted"}}]}}"#),
            Outcome::BadRequest,
            true,
        ),
        (402, r#"{"error":{"message":"Account suspended"}}"#.to_owned(), Outcome::OutOfQuota, false),
        (412, r#"{"error":{"message":"Account suspended"}}"#.to_owned(), Outcome::OutOfQuota, true),
        // A client's own tool server.
        (424, r#"{"error":{"message":"m","code":"invalid_api_key"}}"#.to_owned(), Outcome::BadRequest, false),
        (424, r#"{"error":{"message":"m","code":"content_filter"}}"#.to_owned(), Outcome::Refused, false),
    ] {
        let (found, doubt) = judge(status, &read(&body));
        assert_eq!((found, doubt.is_some()), (outcome, is_open), "{status} {body}");
    }
}

#[test]
fn what_no_list_explains_keeps_its_outcome_with_a_doubt() {
    let page = "<html><head><style>a{}</style><title>403 Forbidden</title></head><body>Request blocked";
    for (status, body, outcome) in [
        (403, page, Outcome::BadKey),
        (
            404,
            r#"{"error":{"message":"No endpoints found that support tool use. To learn more about provider routing, visit: https://x","code":404}}"#,
            Outcome::NoSuchModel,
        ),
        (403, r#"{"type":"error","error":{"type":"permission_error","message":"m"}}"#, Outcome::BadKey),
        (
            404,
            r#"{"type":"error","error":{"type":"not_found_error","message":"file: f_1"}}"#,
            Outcome::NoSuchModel,
        ),
        (404, "404 page not found", Outcome::NoSuchModel),
        (410, "", Outcome::NoSuchModel),
        (412, "", Outcome::Unwilling),
        (
            400,
            r#"{"error":{"message":"Unsupported parameter: 'max_tokens'","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
            Outcome::BadRequest,
        ),
        (
            400,
            r#"{"object":"error","message":"m","type":"invalid_request_error","code":"1113"}"#,
            Outcome::BadRequest,
        ),
    ] {
        let (found, doubt) = judge(status, &read(body));
        assert_eq!(found, outcome, "{status} {body}");
        assert!(doubt.is_some(), "{status} {body}");
    }
}

#[test]
fn a_refusal_of_an_answers_limit_or_of_anothers_history_says_that_others_may_accept() {
    for (status, body) in [
        // OpenAI.
        (
            400,
            r#"{"error":{"message":"max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192.","type":"invalid_request_error","param":"max_tokens","code":null}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 16384, but got 100000 instead.","type":"invalid_request_error","param":"max_output_tokens","code":"integer_above_max_value"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Invalid 'max_completion_tokens': integer above maximum value. Expected a value <= 1, but got 2 instead.","code":400}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Unsupported parameter: 'max_tokens'","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"The encrypted content gAAA...DQ== could not be verified.","type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}"#,
        ),
        // Volcengine, DeepSeek, Alibaba, Anthropic.
        (
            400,
            r#"{"error":{"code":"InvalidParameter","message":"The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum value","param":"max_completion_tokens","type":"BadRequest"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Invalid max_tokens value, the valid range of max_tokens is [1, 8192]","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]","code":"invalid_parameter_error"}}"#,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 128001 > 64000, which is the maximum allowed number of output tokens for claude-opus-4-5-20251101"}}"#,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#,
        ),
        // Groq, Gemini, Amazon, Fireworks, Scaleway.
        (
            400,
            r#"{"error":{"message":"`max_tokens` must be less than or equal to `16384`","type":"invalid_request_error"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"max_tokens for `llama-3.1-8b-instant` must be less than or equal to 8000","type":"invalid_request_error"}}"#,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"Unable to submit request because it has a maxOutputTokens value of 65536 but the supported range is from 1 (inclusive) to 65536 (exclusive).","status":"INVALID_ARGUMENT"}}]"#,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"Function call is missing a thought_signature in functionCall parts.","status":"INVALID_ARGUMENT"}}]"#,
        ),
        (400, r#"{"message":"The maximum tokens you requested exceeds the model limit of 32768"}"#),
        (400, r#"{"error":{"message":"Requests with max_tokens > 4096 must have stream=true"}}"#),
        (416, r#"{"detail":"max_completion_tokens is limited for this model"}"#),
        // Mistral, with either code; a relay in front of DeepSeek; a relay that writes the message into `param`.
        (
            400,
            r#"{"object":"error","message":"Tool call id was call_0fypS1hVX but must be a-z, A-Z, 0-9, with a length of 9.","type":"invalid_function_call","param":null,"code":"3280"}"#,
        ),
        (
            422,
            r#"{"object":"error","message":"Tool call id was a but must be a-z, A-Z, 0-9, with a length of 9.","type":"invalid_request_error"}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"Invalid max_tokens value, the valid range of max_tokens is [1, 8192]\"}}"}}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Param Incorrect","param":"max_tokens is too large: 1048576.","code":"400"}}"#,
        ),
    ] {
        for found in [judge(status, &read(body)), judge_in_answer(&read(body))] {
            assert_eq!(found.0, Outcome::BadRequest, "{body}");
            assert!(found.1.is_some_and(|doubt| doubt.others_may_accept), "{body}");
        }
    }
    for (status, body) in [
        (
            400,
            r#"{"error":{"message":"Invalid 'top_logprobs': integer above maximum value.","param":"top_logprobs","code":"integer_above_max_value"}}"#,
        ),
        (400, r#"{"error":{"message":"m","type":"invalid_request_error","param":"messages"}}"#),
        (403, r#"{"error":{"message":"max_tokens is too large"}}"#),
        (409, r#"{"error":{"message":"max_tokens is too large"}}"#),
    ] {
        let doubt = judge(status, &read(body)).1;
        assert!(!doubt.is_some_and(|doubt| doubt.others_may_accept), "{body}");
    }
    // Where the conversation does not fit, a larger context is what helps.
    let both = r#"{"error":{"message":"'max_tokens' is too large: 9000. This model's maximum context length is 4096 tokens","type":"BadRequestError","param":"max_tokens","code":400}}"#;
    assert_eq!(judge(400, &read(both)), (Outcome::TooLong, None));
}

#[test]
fn words_that_a_client_may_have_written_hold_nobody() {
    for message in [
        "Invalid value: 'API key not valid'. Supported values are: 'system' and 'user'.",
        "'Your credit balance is too low' is not one of ['user', 'assistant']",
        "messages.0.content: Your team x has either used all available credits or reached its monthly spending limit",
        "tool 'Model Not Exist' is unknown",
        "Unknown function: The model `m` does not exist",
        "model 'm' has no tool 'x' not found",
        "The model `m` cannot use `f` does not exist",
    ] {
        for status in [400, 404, 422] {
            let (outcome, doubt) = judge(status, &said("invalid_request_error", message));
            let expected = if status == 404 { Outcome::NoSuchModel } else { Outcome::BadRequest };
            assert_eq!((outcome, doubt.is_some()), (expected, true), "{status} {message}");
        }
    }
    // A server that failed may say anything.
    for message in ["API key not valid", "your input was flagged", "prompt is too long"] {
        assert_eq!(judge(500, &said("", message)), (Outcome::ServerError, None), "{message}");
    }
}

#[test]
fn a_key_that_is_refused_under_400_is_a_bad_key() {
    for body in [
        r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
        r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: x."}"#,
    ] {
        let error = ErrorBody::from_json(body.as_bytes()).unwrap();
        assert_eq!(of_status(400, &error), Outcome::BadKey, "{body}");
    }
}

#[test]
fn anthropics_errors_are_recognised_by_status_and_within_a_stream() {
    let long = "prompt is too long: 214031 tokens > 200000 maximum";
    let both = "input length and `max_tokens` exceed context limit: 180000 + 32000 > 200000";
    let broke = "Your credit balance is too low to access the Anthropic API.";
    let limit = "You have reached your specified API usage limits.";
    for (status, kind, message, by_status, in_stream) in [
        (400, "invalid_request_error", "no", Outcome::BadRequest, Outcome::BadRequest),
        (400, "invalid_request_error", long, Outcome::TooLong, Outcome::TooLong),
        (400, "invalid_request_error", both, Outcome::TooLong, Outcome::TooLong),
        (400, "invalid_request_error", broke, Outcome::OutOfQuota, Outcome::OutOfQuota),
        (400, "invalid_request_error", limit, Outcome::OutOfQuota, Outcome::OutOfQuota),
        (401, "authentication_error", "x", Outcome::BadKey, Outcome::BadKey),
        (402, "billing_error", "x", Outcome::OutOfQuota, Outcome::OutOfQuota),
        (403, "permission_error", "x", Outcome::BadKey, Outcome::BadKey),
        (404, "not_found_error", "model: claude-9", Outcome::NoSuchModel, Outcome::NoSuchModel),
        (413, "request_too_large", "x", Outcome::TooLong, Outcome::TooLong),
        (429, "rate_limit_error", "x", Outcome::RateLimited, Outcome::RateLimited),
        (500, "api_error", "x", Outcome::ServerError, Outcome::ServerError),
        (504, "timeout_error", "x", Outcome::ServerError, Outcome::ServerError),
        (529, "overloaded_error", "Overloaded", Outcome::Overloaded, Outcome::Overloaded),
    ] {
        let body = format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"r"}}"#
        );
        let error = ErrorBody::from_json(body.as_bytes()).unwrap();
        assert_eq!(of_status(status, &error), by_status, "{status} {kind} {message}");
        assert_eq!(of_error_in_answer(&error), in_stream, "{kind} {message}");
    }
    let spent = br#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    assert_eq!(of_status(429, &ErrorBody::from_json(spent).unwrap()), Outcome::OutOfQuota);
}

#[test]
fn the_table_of_words_in_the_documentation_has_every_word() {
    let table = include_str!("../../../docs/outcomes.md");
    let codes = [
        words::REFUSAL_CODES,
        words::BILLING_CODES,
        words::OVERLOAD_CODES,
        words::TOO_LONG_CODES,
        words::RATE_LIMIT_CODES,
        words::KEY_CODES,
        words::MODEL_CODES,
        words::PARTICULAR_CODES,
        words::ANSWER_LIMITS,
    ];
    for code in codes.concat() {
        assert!(table.contains(&format!("`{code}`")), "{code}");
    }
    let messages = [
        words::REFUSAL_PHRASES,
        words::BILLING_OPENINGS,
        words::TOO_LONG_PHRASES,
        words::KEY_OPENINGS,
        words::MODEL_OPENINGS,
        words::PARTICULAR_PHRASES,
    ];
    for text in messages.concat() {
        assert!(table.contains(&format!("“{text}”")), "{text}");
        assert_eq!(text, text.to_lowercase(), "openings and phrases are compared in small letters");
    }
}

#[test]
fn no_word_stands_in_two_lists() {
    let lists = [
        words::REFUSAL_CODES,
        words::BILLING_CODES,
        words::OVERLOAD_CODES,
        words::TOO_LONG_CODES,
        words::RATE_LIMIT_CODES,
        words::KEY_CODES,
        words::MODEL_CODES,
        words::PARTICULAR_CODES,
        words::REQUEST_CODES,
    ];
    let mut all: Vec<String> = lists.concat().iter().map(|code| code.to_lowercase()).collect();
    all.extend(words::STATUSES.iter().map(|(code, _)| code.to_lowercase()));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}
