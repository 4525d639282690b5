//! Golden files of what clients get for the answers of every vendor.
//!
//! `tests/golden/answers/<vendor>/<case>.<extension>` is what a provider sends, `<case>.expected.json` or `.expected.sse` is what
//! the client gets, and `outcomes.txt` has the outcome of each case. The name of a case says the rest: `error_<status>` for the
//! status, `completion`, `embeddings` or `response` for the endpoint (otherwise it is a chat), and `unasked` if the client does
//! not request the usage. `SHUNT_BLESS=1` rewrites what is expected. `tests/scripts/test_golden_types.py` checks it against
//! OpenAI's own types.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use shunt::client_api::errors::{error_envelope, is_envelope};
use shunt::client_api::request::{Endpoint, Input};
use shunt::config::Release;
use shunt::dialects::dialect::Wire;
use shunt::dialects::schema::Defaults;
use shunt::health::outcome::{ErrorBody, Outcome};
use shunt::response::answer::{Head, Step, Watch};
use shunt::response::asked::Asked;
use shunt::routing::provider::ApiKey;
use shunt::spend::usage::Tally;

const KEY: &str = "0123456789abcdef";
const VENDORS: [&str; 7] = ["anthropic", "compatible", "deepseek", "gemini", "mistral", "openai", "vllm"];

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn is_blessing() -> bool {
    std::env::var("SHUNT_BLESS").is_ok_and(|value| value == "1")
}

/// One answer of one vendor.
struct Case {
    name: String,
    stream: bool,
    status: u16,
    asked: Asked,
    sent: Vec<u8>,
    /// The file with what the client should get.
    expected: PathBuf,
}

fn folder(vendor: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/answers").join(vendor)
}

fn cases(vendor: &str) -> Vec<Case> {
    let files = fs::read_dir(folder(vendor)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            !name.contains(".expected.") && name != "outcomes.txt"
        })
        .collect();
    files.sort();
    files.into_iter().map(|path| case(vendor, &path)).collect()
}

fn case(vendor: &str, path: &Path) -> Case {
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let stream = path.extension().unwrap() == "sse";
    let endpoint = match name.split('_').next().unwrap() {
        "completion" => Endpoint::Completions,
        "embeddings" => Endpoint::Embeddings,
        "response" => Endpoint::Responses,
        _ => Endpoint::Chat,
    };
    let status = name.strip_prefix("error_").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(200);
    let asked = Asked {
        endpoint,
        stream,
        usage: !name.ends_with("_unasked"),
        release: Release::FirstToken,
        wire: if vendor == "anthropic" { Wire::Anthropic } else { Wire::OpenAi },
        defaults: Defaults {
            id: "chatcmpl-shunt".to_owned(),
            created: 1_790_000_001,
            model: "asked-for".to_owned(),
            input: Rc::new(Input::with_tokens(11)),
            ..Defaults::default()
        },
        key: ApiKey::new("Bearer ", KEY).unwrap(),
    };
    let expected = path.with_extension(if stream { "expected.sse" } else { "expected.json" });
    Case { name, stream, status, asked, sent: fs::read(path).unwrap(), expected }
}

/// What the client gets for a response, and what is known about the response.
#[derive(Clone, Debug, PartialEq)]
struct Received {
    /// The bytes for the client. There are none if a stream failed while it was withheld.
    sent: Vec<u8>,
    outcome: Outcome,
    error: Option<ErrorBody>,
    tally: Tally,
}

fn head(case: &Case) -> Head {
    Head { status: case.status, retry_after: None }
}

/// Judges a body that is withheld as a whole. For an error, the result is what the client gets if no other provider answers.
fn whole(case: &Case) -> Received {
    let mut watch = Watch::new(&head(case), case.asked.clone());
    let judged = watch.judge(&case.sent, true);
    let sent = if judged.verdict.outcome == Outcome::Answered {
        judged.body.unwrap_or_else(|| case.sent.clone())
    } else if watch.is_error() && is_envelope(&case.sent, KEY) {
        case.sent.clone()
    } else {
        let status = if watch.is_error() { case.status } else { 400 };
        error_envelope(&judged.error.clone().unwrap_or_default(), status, KEY)
    };
    Received { sent, outcome: judged.verdict.outcome, error: judged.error, tally: watch.tally() }
}

/// Withholds, judges, releases and relays a stream that comes in these pieces, as the host does. The range is from the number of
/// bytes that had come when it was released to the number when its end was known.
fn streamed(case: &Case, release: Release, pieces: &[&[u8]]) -> (Received, Range<usize>) {
    let mut watch = Watch::new(&head(case), Asked { release, ..case.asked.clone() });
    let (mut withheld, mut sent) = (Vec::new(), Vec::new());
    let (mut outcome, mut error, mut released, mut ended_at) = (None, None, None, 0);
    for (number, piece) in pieces.iter().enumerate() {
        let end = number + 1 == pieces.len();
        ended_at += if outcome.is_none() { piece.len() } else { 0 };
        if released.is_some() {
            let relay = watch.relay(piece, end, "acme");
            sent.extend(relay.replace.unwrap_or_else(|| piece.to_vec()));
            if let Some(ended) = relay.ended {
                assert_eq!(outcome.replace(ended), None, "{}: the end is reported once", case.name);
            }
            continue;
        }
        withheld.extend_from_slice(piece);
        let Step::Judged(judged) = watch.withhold(piece, end, withheld.len(), usize::MAX) else { continue };
        error = judged.error;
        if judged.verdict.outcome != Outcome::Answered {
            outcome = Some(judged.verdict.outcome);
            break;
        }
        sent.extend(watch.release(end, "acme").unwrap_or_else(|| withheld.clone()));
        released = Some(withheld.len());
        if end || watch.is_closed() {
            outcome = Some(Outcome::Answered);
        }
    }
    let outcome = outcome.unwrap();
    (Received { sent, outcome, error, tally: watch.tally() }, released.unwrap_or(ended_at)..ended_at)
}

/// A stream that comes byte by byte. No two events come together, so each is judged before anything is known of the next.
fn byte_by_byte(case: &Case) -> (Received, Range<usize>) {
    let end: &[u8] = b"";
    streamed(case, Release::FirstToken, &case.sent.chunks(1).chain([end]).collect::<Vec<_>>())
}

fn received(case: &Case) -> Received {
    if case.stream {
        byte_by_byte(case).0
    } else {
        whole(case)
    }
}

/// The line of `outcomes.txt` for a case.
fn line(case: &Case, received: &Received) -> String {
    let mut line = format!("{}: {}", case.name, received.outcome.name());
    let Tally { usage, uncounted, estimated_output, malformed, .. } = received.tally;
    match usage {
        Some(usage) => write!(
            line,
            ", {} tokens in ({} cached, {} written), {} out ({} reasoning)",
            usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning
        ),
        None => write!(line, ", about {estimated_output} tokens out"),
    }
    .unwrap();
    if uncounted && usage.is_some() {
        write!(line, " before content of about {estimated_output}").unwrap();
    }
    if malformed > 0 {
        write!(line, ", {malformed} events left out").unwrap();
    }
    if let Some(error) = &received.error {
        write!(line, ", code {:?}, type {:?}", error.code, error.kind).unwrap();
    }
    line + "\n"
}

#[test]
fn every_vendors_answers_become_the_golden_ones() {
    let mut differ = String::new();
    let mut hold = |place: &Path, found: &[u8]| {
        if is_blessing() {
            fs::write(place, found).unwrap();
            return;
        }
        let expected = fs::read(place).unwrap_or_default();
        if expected != found {
            let [expected, found] = [&expected[..], found].map(String::from_utf8_lossy);
            write!(differ, "\n{}\n--- expected\n{expected}\n--- found\n{found}\n", place.display()).unwrap();
        }
    };
    for vendor in VENDORS {
        let mut outcomes = String::new();
        for case in cases(vendor) {
            let received = received(&case);
            outcomes += &line(&case, &received);
            hold(&case.expected, &received.sent);
        }
        hold(&folder(vendor).join("outcomes.txt"), outcomes.as_bytes());
    }
    assert!(differ.is_empty(), "SHUNT_BLESS=1 rewrites them, if this is meant:\n{differ}");
}

#[test]
fn every_golden_file_belongs_to_a_case() {
    for vendor in VENDORS {
        let files = fs::read_dir(folder(vendor)).unwrap().count();
        assert_eq!(files, 2 * cases(vendor).len() + 1, "{vendor}: a case was renamed or removed");
    }
    assert_eq!(fs::read_dir(folder("")).unwrap().count(), VENDORS.len());
}

#[test]
fn a_stream_has_the_same_result_however_it_is_cut() {
    for case in VENDORS.into_iter().flat_map(cases).filter(|case| case.stream) {
        let (expected, released) = byte_by_byte(&case);
        for at in 0..=case.sent.len() {
            let (first, second) = case.sent.split_at(at);
            let (found, _) = streamed(&case, Release::FirstToken, &[first, second]);
            if found == expected {
                continue;
            }
            // Content that comes together with a failure is not released, because another provider can still be tried.
            let spared = found.sent.is_empty() && found.outcome != Outcome::Answered;
            assert!(
                spared && !released.contains(&at) && expected.outcome != Outcome::Answered,
                "{} cut at {at}: {found:?}\nand not {expected:?}\n{}",
                case.name,
                String::from_utf8_lossy(&found.sent),
            );
        }
    }
}

#[test]
fn a_stream_that_is_withheld_to_its_end_is_released_whole_or_not_at_all() {
    for case in VENDORS.into_iter().flat_map(cases).filter(|case| case.stream) {
        let (expected, _) = byte_by_byte(&case);
        let (whole, _) = streamed(&case, Release::Complete, &[&case.sent]);
        for at in 0..=case.sent.len() {
            let (first, second) = case.sent.split_at(at);
            let (found, _) = streamed(&case, Release::Complete, &[first, second]);
            assert_eq!(found, whole, "{} cut at {at}", case.name);
        }
        if expected.outcome == Outcome::Answered {
            assert_eq!(whole, expected, "{}", case.name);
        } else {
            assert!(whole.sent.is_empty() && whole.outcome != Outcome::Answered, "{}", case.name);
        }
    }
}

#[test]
fn a_done_ends_finished_answers_and_no_others() {
    let mut finished = 0;
    for case in VENDORS.into_iter().flat_map(cases).filter(|case| case.stream) {
        let (received, _) = byte_by_byte(&case);
        let text = String::from_utf8(received.sent).unwrap();
        let good = received.outcome == Outcome::Answered && case.asked.endpoint != Endpoint::Responses;
        assert_eq!(text.matches("data: [DONE]").count(), usize::from(good), "{}\n{text}", case.name);
        assert_eq!(text.ends_with("data: [DONE]\n\n"), good, "{}", case.name);
        if case.asked.endpoint == Endpoint::Responses {
            continue;
        }
        let usage = text.matches("\"usage\":{").count();
        let has_usage = good && case.asked.usage && received.tally.usage.is_some();
        assert_eq!(usage, usize::from(has_usage), "{}: the usage is reported once\n{text}", case.name);
        finished += usize::from(good);
    }
    assert!(finished > 20);
}

#[test]
fn no_error_contains_a_key() {
    for case in VENDORS.into_iter().flat_map(cases) {
        let text = String::from_utf8(received(&case).sent).unwrap();
        assert!(!text.contains(KEY) && !text.contains("sk-proj-"), "{}\n{text}", case.name);
    }
}
