//! What an answer comes to by its status and its code, as its body is read. The scenarios in tests/gateway have one row for each
//! outcome; the statuses and codes that come to the same are here.

use shunt::health::outcome::{of_status, ErrorBody, Outcome};

/// The fakes' envelope, which is OpenAI's.
fn envelope(kind: Option<&str>, code: Option<&str>) -> String {
    let text = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), |value| format!("\"{value}\""));
    let kind = text(kind.or(Some("invalid_request_error")));
    format!(
        r#"{{"error":{{"message":"The request is not valid.","type":{kind},"param":null,"code":{}}}}}"#,
        text(code)
    )
}

fn outcome(status: u16, body: &str) -> Outcome {
    of_status(status, &ErrorBody::read(body.as_bytes()))
}

#[test]
fn statuses_of_one_kind_come_to_the_same_with_and_without_a_body() {
    for (statuses, expected) in [
        (&[500, 501, 502, 504, 520, 530, 408, 425, 302, 308][..], Outcome::ServerError),
        (&[498, 503, 529], Outcome::Overloaded),
        (&[429], Outcome::RateLimited),
        (&[402], Outcome::OutOfQuota),
        (&[401, 403], Outcome::BadKey),
        (&[404, 405, 410], Outcome::NoSuchModel),
        (&[412, 423, 499], Outcome::Unwilling),
        (&[413], Outcome::TooLong),
        (&[400, 409, 422], Outcome::BadRequest),
    ] {
        for status in statuses {
            for body in
                [envelope(None, None), String::new(), "<html><body>Bad Gateway</body></html>".to_owned()]
            {
                assert_eq!(outcome(*status, &body), expected, "{status} {body}");
            }
        }
    }
}

#[test]
fn codes_of_one_kind_come_to_the_same() {
    for (status, kind, code, expected) in [
        (500, None, Some("server_is_overloaded"), Outcome::Overloaded),
        (500, Some("overloaded_error"), None, Outcome::Overloaded),
        (429, None, Some("slow_down"), Outcome::Overloaded),
        (429, None, Some("insufficient_quota"), Outcome::OutOfQuota),
        (429, None, Some("billing_hard_limit_reached"), Outcome::OutOfQuota),
        (403, None, Some("billing_not_active"), Outcome::OutOfQuota),
        (400, None, Some("invalid_api_key"), Outcome::BadKey),
        (400, None, Some("model_not_found"), Outcome::NoSuchModel),
        (400, None, Some("content_filter"), Outcome::Refused),
        (400, None, Some("content_policy_violation"), Outcome::Refused),
        (400, None, Some("context_length_exceeded"), Outcome::TooLong),
        (400, None, None, Outcome::BadRequest),
    ] {
        assert_eq!(outcome(status, &envelope(kind, code)), expected, "{status} {kind:?} {code:?}");
    }
}
