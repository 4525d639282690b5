use super::*;

fn error(code: &str) -> ErrorBody {
    ErrorBody { code: code.to_owned(), ..ErrorBody::default() }
}

#[test]
fn every_status_has_the_outcome_of_the_table() {
    for (statuses, outcome) in [
        (&[500, 501, 502, 504, 520, 530, 408, 425, 301, 302, 307, 204, 599][..], Outcome::ServerError),
        (&[503, 529], Outcome::Overloaded),
        (&[429], Outcome::RateLimited),
        (&[402], Outcome::OutOfQuota),
        (&[401, 403], Outcome::BadKey),
        (&[404, 405], Outcome::NoSuchModel),
        (&[400, 409, 413, 415, 418, 422], Outcome::BadRequest),
    ] {
        for status in statuses {
            assert_eq!(of_status(*status, &ErrorBody::default()), outcome, "{status}");
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
fn an_error_inside_a_200_is_a_server_error_unless_its_code_is_known() {
    for (code, outcome) in [
        ("", Outcome::ServerError),
        ("invalid_request", Outcome::ServerError),
        ("400", Outcome::ServerError),
        ("429", Outcome::RateLimited),
        ("503", Outcome::Overloaded),
        ("insufficient_quota", Outcome::OutOfQuota),
        ("overloaded", Outcome::Overloaded),
    ] {
        assert_eq!(of_error_in_answer(&error(code)), outcome, "{code}");
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
        (400, "invalid_request_error", "no", Outcome::BadRequest, Outcome::ServerError),
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
