"""What vendors say when they refuse, as they say it: who is asked then, and who is left out. tests/outcome.rs and
src/health/outcome/tests.rs have the words of every vendor; here is one for each thing that follows."""

from __future__ import annotations

from typing import Any

import pytest

from support import Json, World, ask, asked, chat
from test_endpoints import RESPONSES
from test_outcomes import BOTH, GAP, LONG, WHOLE, ask_until_openai_is_back, assert_answered_by, breaker, status
from vendors import Vendors, record_of

STREAMS = pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])


def body(code_: int, /, **said: Any) -> Json:
    """A step: this status with this document."""
    return {"do": "status", "status": code_, "body": said}


FLAGGED: Json = {
    "code": 403,
    "message": "m requires moderation on P. Your input was flagged for \"violence\".",
    "metadata": {"reasons": ["violence"], "flagged_input": "hello", "provider_name": "P"},
}
#: A refusal of the content, and the status with which the client hears of it.
REFUSALS = [
    pytest.param(body(403, error=FLAGGED), 403, id="403_moderation"),
    pytest.param(body(403, code="x", error="Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"), 403, id="403_text"),
    pytest.param(status(400, message="Content Exists Risk"), 400, id="400_words"),
]
REFUSALS_IN_200 = [
    pytest.param({"code": "data_inspection_failed"}, id="code"),
    pytest.param({"code": None, "message": "Content Exists Risk"}, id="words"),
]


@STREAMS
@pytest.mark.parametrize(("step", "code"), REFUSALS)
def test_content_that_is_refused_is_told_so_and_holds_nobody(world: World, step: Json, code: int, stream: bool) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.provider, answer.attempts) == (code, "openai", ["openai:refused"])
        assert answer.error["message"] and "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai"] * request


@STREAMS
@pytest.mark.parametrize("said", REFUSALS_IN_200)
def test_content_that_is_refused_within_a_200_is_a_400_and_no_failure(world: World, said: Json, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "error_event_200" if stream else "error_json_200", **said})
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.attempts) == (400, ["openai:refused"])
        assert answer.error["message"] == said.get("message", "The server had an error.")
        assert "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai"] * request


@STREAMS
def test_a_response_that_failed_for_its_prompt_is_nobodys_failure(vendors: Vendors, stream: bool) -> None:
    vendors.fakes["openai"].script(
        default={"do": "response_failed", "code": "invalid_prompt", "message": "not with this prompt"}
    )
    gateway = vendors.serve("openai", "shareai", path=RESPONSES, changes=breaker(1))
    for request in (1, 2):
        answer = ask(gateway, {"model": "assistant", "input": "hello", "stream": stream}, path=RESPONSES)
        assert (answer.status, answer.attempts) == (400, ["openai:refused"])
        assert (answer.error["code"], answer.error["message"]) == ("invalid_prompt", "not with this prompt")
        assert asked(vendors) == ["openai"] * request
    assert record_of(gateway, 2)["status"] == 400


def test_a_stream_that_is_refused_in_its_middle_breaks_off_and_is_nobodys_failure(vendors: Vendors) -> None:
    vendors.fakes["openai"].script(
        default={"do": "error_event_200", "after": 3, "gap": GAP, "code": "content_filter", "message": "no further"}
    )
    gateway = vendors.serve("openai", "deepseek", changes=breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=True)
        assert answer.attempts == ["openai:answered"]
        assert answer.events[-1]["error"]["message"] == "no further"
        assert b"[DONE]" not in answer.raw
        assert asked(vendors) == ["openai"] * request
        record = record_of(gateway, request)
        assert (record["outcome"], record["status"], record["usage"]["source"]) == ("truncated", 200, "estimated")


#: What is said of the account, the key or the model: the outcome, by which the provider is left out afterwards.
HOLDS = [
    pytest.param(body(400, code="Arrearage", message="Access denied.", request_id="r"), "out_of_quota", id="400_arrearage"),
    pytest.param(status(400, "model_decommissioned"), "no_such_model", id="400_decommissioned"),
]


@STREAMS
@pytest.mark.parametrize(("step", "outcome"), HOLDS)
def test_a_400_about_the_account_goes_to_the_next_provider_and_holds(
    world: World, step: Json, outcome: str, stream: bool
) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    first, second = ask(gateway, stream=stream), ask(gateway, stream=stream)
    assert_answered_by(first, "deepseek", stream)
    assert first.attempts == [f"openai:{outcome}", "deepseek:answered"]
    assert second.attempts == ["deepseek:answered"]
    assert second.headers["x-shunt-degraded"] == f"openai:{outcome}"
    assert asked(world) == ["openai", "deepseek", "deepseek"]


#: The same, said by nothing but how the message begins, where a client's own words may stand.
OPENINGS = [
    pytest.param(status(412, message="Account acme is suspended, possibly due to reaching the monthly spending limit."), "out_of_quota", id="412_suspended"),
    pytest.param(status(400, message="API key expired. Please renew the API key."), "bad_key", id="400_expired"),
]


@STREAMS
@pytest.mark.parametrize(("step", "outcome"), OPENINGS)
def test_how_a_message_begins_moves_on_and_holds_only_after_three_requests(
    world: World, step: Json, outcome: str, stream: bool
) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    for text in ("a", "a", "b", "c"):
        answer = ask(gateway, chat(stream, text=text), stream=stream)
        assert_answered_by(answer, "deepseek", stream)
        assert answer.attempts == [f"openai:{outcome}", "deepseek:answered"], text
    answer = ask(gateway, chat(stream, text="d"), stream=stream)
    assert answer.attempts == ["deepseek:answered"]
    assert answer.headers["x-shunt-degraded"] == f"openai:{outcome}"


def test_words_of_a_client_in_an_error_hold_nobody(world: World) -> None:
    quoted = "Invalid value: 'API key not valid'. Supported values are: 'system' and 'user'."
    world.fakes["openai"].script(status(400, message=quoted))
    gateway = world.gateway({**breaker(2), "holds": {"bad_key": LONG}})
    assert "bad_key" not in ask(gateway).attempts[0]
    again = ask(gateway)
    assert_answered_by(again, "openai", WHOLE)
    assert "x-shunt-degraded" not in again.headers


def test_a_hold_lasts_as_long_as_the_body_of_gemini_says(world: World) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.2s"}
    error = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    world.fakes["openai"].script(body(429, error=error))
    gateway = world.gateway({**breaker(1), "retry": {"wait": "0s"}, "holds": {"rate_limited": LONG}})
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    assert ask_until_openai_is_back(world, gateway) >= 1.2


def test_an_error_keeps_the_names_that_are_no_keys(world: World) -> None:
    message = "Unknown tool 'key-value-lookup', try sk-learn-helper; not sk-proj-9aBcD3eFgH1iJkLmNoPqRsTuV."
    world.fakes["openai"].script(status(400, "content_filter", message=message))
    told = ask(world.gateway()).error["message"]
    assert told == "Unknown tool 'key-value-lookup', try sk-learn-helper; not [redacted]"
