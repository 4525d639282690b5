"""Every outcome of an attempt: what follows it in the same request, and what the provider is like for the next one."""

from __future__ import annotations

import email.utils
import socket
import time
from dataclasses import dataclass
from typing import Any, Optional

import httpx
import pytest

from server import PLAIN
from support import (
    CHAT,
    CLIENT_KEY,
    Answer,
    Gateway,
    Json,
    Upstream,
    World,
    ask,
    asked,
    assert_unread_view,
    chat,
    request_head,
    wait_for,
)

WHOLE, STREAM = False, True
BOTH = (WHOLE, STREAM)

#: Longer than any test: a provider that is left out stays out.
LONG = "60s"


def breaker(failures: int) -> Json:
    """A breaker that opens after exactly so many failures, and does not come back."""
    return {"breaker": {"consecutive_failures": failures, "open": LONG, "max_open": LONG}}


def status(code: int, error: Optional[str] = None, **more: Any) -> Json:
    """A step: this status with OpenAI's envelope."""
    step = {"do": "status", "status": code, **more}
    return {**step, "code": error} if error else step


@dataclass(frozen=True)
class Row:
    """One fault of the first provider and all that follows from it."""

    name: str
    step: Json
    outcome: str
    #: Why the provider is left out afterwards.
    left_out: str = "open"
    #: How often it is asked.
    times: int = 1
    forms: tuple[bool, ...] = BOTH


def rows(table: list[Row]) -> Any:
    """The table as parameters, each row whole and streamed as far as it applies."""
    return pytest.mark.parametrize(
        ("row", "stream"),
        [
            pytest.param(row, stream, id=f"{row.name}-{'stream' if stream else 'whole'}")
            for row in table
            for stream in row.forms
        ],
    )


def assert_answered_by(answer: Answer, name: str, stream: bool) -> None:
    """The caller has one good answer, all of it from one provider."""
    assert (answer.status, answer.provider) == (200, name), answer.raw[:500]
    assert answer.text == f"Hello from {name}."
    assert answer.attempts[-1] == f"{name}:answered"
    if stream:
        answer.assert_whole_stream()
    else:
        assert answer.broken is None


# Where only a status or a code differs, one row stands for all: tests/outcome.rs has the others.
SERVER_ERRORS = [
    *(Row(str(code), status(code), "server_error", times=2) for code in (500, 408)),
    Row("redirect", {"do": "redirect"}, "server_error", times=2),
    Row("html_502", {"do": "html"}, "server_error", times=2),
    Row("html_200", {"do": "html", "status": 200}, "server_error", times=2),
    Row("empty_200", {"do": "empty_200"}, "server_error", times=2),
    Row("empty_stream", {"do": "empty_stream"}, "server_error", times=2),
    Row("garbage", {"do": "garbage"}, "server_error", times=2),
    Row("gzip", {"do": "gzip"}, "server_error", times=2),
    Row("error_json_200", {"do": "error_json_200"}, "server_error", times=2),
    Row("error_event_200", {"do": "error_event_200"}, "server_error", times=2),
    Row("error_event_200_named", {"do": "error_event_200", "event": True, "done": True}, "server_error", times=2),
    Row("error_event_200_role", {"do": "error_event_200", "role": True}, "server_error", times=2),
    Row("whole_for_stream", {"do": "whole_for_stream"}, "server_error", times=2, forms=(STREAM,)),
    Row("stream_for_whole", {"do": "stream_for_whole"}, "server_error", times=2, forms=(WHOLE,)),
    Row("done_only", {"do": "done_only"}, "server_error", times=2),
    # Half a document that HTTP calls complete is a 2xx that is not JSON.
    Row("half_a_document", {"do": "clean_cut"}, "garbled", forms=(WHOLE,)),
]

OVERLOADED = [
    Row("503", status(503), "overloaded"),
    Row("500_server_is_overloaded", status(500, "server_is_overloaded"), "overloaded"),
    Row("429_slow_down", status(429, "slow_down"), "overloaded"),
    Row("json_200_overloaded", {"do": "error_json_200", "code": "overloaded"}, "overloaded"),
    Row("event_200_overloaded", {"do": "error_event_200", "code": "overloaded"}, "overloaded", forms=(STREAM,)),
    Row(
        "out_of_machines",
        {"do": "finish_reason", "reason": "insufficient_system_resource", "text": ""},
        "overloaded",
    ),
]

UNREACHABLE = [
    Row("reset_before_headers", {"do": "reset_before_headers"}, "unreachable"),
    Row("close_before_headers", {"do": "close_before_headers"}, "unreachable"),
    Row("http_garbage", {"do": "http_garbage"}, "unreachable"),
]

TOO_SLOW = [
    Row("silent", {"do": "silent"}, "too_slow"),
    Row("headers_only", {"do": "headers_only"}, "too_slow"),
    Row("comments", {"do": "comments"}, "too_slow"),
    Row("role_only", {"do": "role_only"}, "too_slow"),
    Row("drip", {"do": "drip"}, "too_slow"),
    Row("stall_before_content", {"do": "stall", "after": 0}, "too_slow"),
    Row("late", {"do": "answer", "delay": 5}, "too_slow"),
]

TRUNCATED = [
    Row("clean_cut_before_content", {"do": "clean_cut", "after": 0}, "truncated", forms=(STREAM,)),
    Row("done_before_content", {"do": "clean_cut", "after": 0, "done": True}, "truncated", forms=(STREAM,)),
    Row("reset_before_content", {"do": "cut", "after": 0}, "truncated"),
    Row("fin_before_content", {"do": "cut", "after": 0, "how": "fin"}, "truncated"),
]

OUT_OF_QUOTA = [
    Row("402", status(402), "out_of_quota", "out_of_quota"),
    Row("429_insufficient_quota", status(429, "insufficient_quota"), "out_of_quota", "out_of_quota"),
    Row("403_billing", status(403, "billing_not_active"), "out_of_quota", "out_of_quota"),
    Row("json_200_quota", {"do": "error_json_200", "code": "insufficient_quota"}, "out_of_quota", "out_of_quota"),
    # It is no matter of waiting: a Retry-After that says so is not believed.
    Row(
        "429_quota_with_retry_after",
        status(429, "insufficient_quota", headers={"retry-after-ms": "1"}),
        "out_of_quota",
        "out_of_quota",
    ),
]

BAD_KEY = [
    Row("401", status(401), "bad_key", "bad_key"),
    Row("403_account_deactivated", status(403, "account_deactivated"), "bad_key", "bad_key"),
    Row("400_invalid_api_key", status(400, "invalid_api_key"), "bad_key", "bad_key"),
]

NO_SUCH_MODEL = [
    # The fake says `model_not_found`, as OpenAI does.
    Row("404", status(404), "no_such_model", "no_such_model"),
    Row("400_model_not_found", status(400, "model_not_found"), "no_such_model", "no_such_model"),
]

RATE_LIMITED = [
    Row("429", status(429), "rate_limited", "rate_limited"),
    Row("429_html", {"do": "html", "status": 429}, "rate_limited", "rate_limited"),
    Row("json_200_429", {"do": "error_json_200", "code": "429"}, "rate_limited", "rate_limited"),
    # 1.5 times 3 s is beyond retry.wait; no caller waits for it.
    Row("429_long_wait", status(429, headers={"retry-after": "3"}), "rate_limited", "rate_limited"),
]


# With a breaker that opens at exactly these failures, a failure too many would cut the attempts short, one too few would
# leave the provider in use, and a hold that counts as a failure would be told as "open".
@rows(
    SERVER_ERRORS + OVERLOADED + UNREACHABLE + TOO_SLOW + TRUNCATED
    + OUT_OF_QUOTA + BAD_KEY + NO_SUCH_MODEL + RATE_LIMITED
)
def test_a_fault_is_answered_by_the_next_provider_and_remembered(world: World, row: Row, stream: bool) -> None:
    world.fakes["openai"].script(default=row.step)
    gateway = world.gateway({**breaker(row.times), "limits": {"first_token": "1s", "answer": "1s"}})

    first = ask(gateway, stream=stream)
    assert_answered_by(first, "deepseek", stream)
    assert first.attempts == [f"openai:{row.outcome}"] * row.times + ["deepseek:answered"]
    assert "x-shunt-degraded" not in first.headers
    assert asked(world) == ["openai"] * row.times + ["deepseek"]

    second = ask(gateway, stream=stream)
    assert_answered_by(second, "deepseek", stream)
    assert second.attempts == ["deepseek:answered"]
    assert second.headers["x-shunt-degraded"] == f"openai:{row.left_out}"
    assert asked(world) == ["openai"] * row.times + ["deepseek"] * 2


# Answered.

ANSWERS = [
    Row("answer", {"do": "answer"}, "answered"),
    Row("empty_finish", {"do": "empty_finish"}, "answered"),
    Row("tool_call", {"do": "tool_call"}, "answered"),
    Row("reasoning", {"do": "reasoning"}, "answered"),
    Row("refusal", {"do": "refusal"}, "answered"),
    Row("finish_length", {"do": "finish_reason", "reason": "length"}, "answered"),
    Row("finish_content_filter", {"do": "finish_reason", "reason": "content_filter", "text": ""}, "answered"),
    Row("no_done", {"do": "no_done"}, "answered", forms=(STREAM,)),
    Row("comments_then_answer", {"do": "comments", "for": 0.3, "then": {"do": "answer"}}, "answered"),
    Row("bad_headers", {"do": "bad_headers"}, "answered"),
]
#: What the caller must read: the message, or the deltas put together.
MESSAGES = {
    "empty_finish": {"content": ""},
    "tool_call": {"tool_calls": [("get_weather", '{"city":"Paris"}')]},
    "reasoning": {"reasoning_content": "Let me think about it.", "content": "Hello from openai."},
    "refusal": {"refusal": "I cannot help with that."},
    "finish_content_filter": {"content": ""},
}
FINISH = {"tool_call": "tool_calls", "finish_length": "length", "finish_content_filter": "content_filter"}


def choice_of(answer: Answer, stream: bool) -> tuple[Json, str]:
    """The message without its empty parts, as far as this file looks at it, and the finish reason."""
    if stream:
        choices = [event["choices"][0] for event in answer.events if event != "[DONE]"]
        deltas = [choice["delta"] for choice in choices]
        message: Json = {
            key: "".join(delta.get(key) or "" for delta in deltas) for key in ("content", "reasoning_content", "refusal")
        }
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
        if calls:
            message["tool_calls"] = [(calls[0]["name"], "".join(call["arguments"] for call in calls))]
        finish = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        assert len(finish) == 1
        return message, finish[0]
    choice = answer.json["choices"][0]
    message = dict(choice["message"])
    if "tool_calls" in message:
        message["tool_calls"] = [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]
    return message, choice["finish_reason"]


@rows(ANSWERS)
def test_an_answer_is_delivered_and_the_provider_stays_in_use(world: World, row: Row, stream: bool) -> None:
    world.fakes["openai"].script(default=row.step)
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.provider, answer.broken) == (200, "openai", None)
        assert answer.attempts == ["openai:answered"]
        assert "x-shunt-degraded" not in answer.headers
        if stream:
            answer.assert_whole_stream()
        message, finish = choice_of(answer, stream)
        for key, value in MESSAGES.get(row.name, {"content": "Hello from openai."}).items():
            assert (message[key] or "") == value
        assert finish == FINISH.get(row.name, "stop")
        assert asked(world) == ["openai"] * request


@pytest.mark.parametrize("release", ["first_token", "complete"])
def test_a_stream_is_answered_although_its_done_comes_before_the_end_of_the_response(world: World, release: str) -> None:
    # One event per piece, and a pause after each: also between `[DONE]` and the end of the body.
    world.fakes["openai"].script(default={"do": "split", "size": 1 << 20, "gap": GAP})
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=True, headers={"x-shunt-stream": release})
        assert_answered_by(answer, "openai", STREAM)
        assert "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai"] * request


def test_an_answer_ends_a_row_of_failures(world: World) -> None:
    failing, good = status(503), {"do": "answer"}
    world.fakes["openai"].script(failing, good, failing, good, failing, failing)
    gateway = world.gateway(breaker(2))
    attempts = [ask(gateway).attempts[0] for _ in range(6)]
    assert attempts == ["openai:overloaded", "openai:answered"] * 2 + ["openai:overloaded"] * 2
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:open"


def test_one_attempt_is_one_failure(world: World) -> None:
    world.fakes["openai"].script(default=status(503))
    gateway = world.gateway(breaker(3))
    for _ in range(3):
        assert ask(gateway).attempts == ["openai:overloaded", "deepseek:answered"]
    assert ask(gateway).attempts == ["deepseek:answered"]
    assert world.counts() == {"openai": 3, "deepseek": 4, "shareai": 0}


# ServerError: the same provider once.


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_single_bad_instance_is_left_by_asking_the_same_provider_again(world: World, stream: bool) -> None:
    world.fakes["openai"].script(status(500))
    gateway = world.gateway()
    answer = ask(gateway, stream=stream)
    assert_answered_by(answer, "openai", stream)
    assert answer.attempts == ["openai:server_error", "openai:answered"]
    assert asked(world) == ["openai", "openai"]


def test_everybody_is_asked_before_the_attempts_are_used_up(world: World) -> None:
    for name in ("openai", "deepseek"):
        world.fakes[name].script(default=status(500))
    answer = ask(world.gateway())
    assert_answered_by(answer, "shareai", WHOLE)
    assert answer.attempts == ["openai:server_error"] * 2 + ["deepseek:server_error", "shareai:answered"]
    assert asked(world) == ["openai", "openai", "deepseek", "shareai"]


@pytest.mark.parametrize("attempts", [1, 2])
def test_no_more_attempts_are_made_than_configured(world: World, attempts: int) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(503))
    answer = ask(world.gateway({"retry": {"attempts": attempts}}))
    assert answer.status == 503
    assert answer.attempts == ["openai:overloaded", "deepseek:overloaded"][:attempts]
    assert asked(world) == ["openai", "deepseek"][:attempts]


def test_an_error_before_the_body_was_read_is_the_providers(world: World) -> None:
    world.fakes["openai"].script(default={"do": "early", "status": 503})
    gateway = world.gateway(breaker(1))
    answer = ask(gateway)
    assert_answered_by(answer, "deepseek", WHOLE)
    assert answer.attempts == ["openai:overloaded", "deepseek:answered"]
    (seen,) = world.log("openai")
    assert_unread_view("openai", seen)
    assert len(world.seen("deepseek")) == 1


# Unreachable.


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_provider_that_does_not_listen_is_left_out_after_its_failure(world: World, stream: bool) -> None:
    world.fakes["openai"].listen(False)
    gateway = world.gateway(breaker(1))
    first = ask(gateway, stream=stream)
    assert_answered_by(first, "deepseek", stream)
    assert first.attempts == ["openai:unreachable", "deepseek:answered"]
    world.fakes["openai"].listen(True)
    second = ask(gateway, stream=stream)
    assert second.attempts == ["deepseek:answered"]
    assert second.headers["x-shunt-degraded"] == "openai:open"
    assert asked(world) == ["deepseek", "deepseek"]


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_reset_before_the_body_was_read_goes_to_the_next_provider(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "reset_at_once"})
    gateway = world.gateway(breaker(1))
    first = ask(gateway, stream=stream)
    assert_answered_by(first, "deepseek", stream)
    assert first.attempts == ["openai:unreachable", "deepseek:answered"]
    (seen,) = world.log("openai")
    assert_unread_view("openai", seen)
    second = ask(gateway, stream=stream)
    assert second.headers["x-shunt-degraded"] == "openai:open"
    assert len(world.seen("deepseek")) == 2


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_name_that_does_not_resolve_costs_no_request(world: World, stream: bool) -> None:
    nowhere = Upstream(443, host="does-not-exist.invalid")
    gateway = world.gateway(breaker(1), upstreams={"openai": nowhere})
    first = ask(gateway, stream=stream)
    assert_answered_by(first, "deepseek", stream)
    assert first.attempts == ["openai:unreachable", "deepseek:answered"]
    second = ask(gateway, stream=stream)
    assert second.attempts == ["deepseek:answered"]
    assert second.headers["x-shunt-degraded"] == "openai:open"
    assert asked(world) == ["deepseek", "deepseek"]


def test_a_provider_without_a_healthy_host_costs_no_request(world: World) -> None:
    world.fakes["openai"].health(503)
    checked = Upstream(world.fakes["openai"].port, health_check={"interval": "0.2s", "no_traffic_interval": "0.2s"})
    gateway = world.gateway(breaker(1), upstreams={"openai": checked})
    wait_for(lambda: gateway.stat("cluster.openai.health_check.failure"), what="a failed health check")
    answer = ask(gateway)
    assert_answered_by(answer, "deepseek", WHOLE)
    assert answer.attempts == ["openai:unreachable", "deepseek:answered"]
    assert asked(world) == ["deepseek"]


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_stale_connection_is_replaced_at_the_same_provider(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "reset_reused"})
    gateway = world.gateway()
    # A connection counts as new if the pool took as long as for one, which happens where a thread has to wait for a processor.
    # Then the next provider answers.
    for _ in range(4):
        assert ask(gateway, stream=stream).attempts == ["openai:answered"]
        answer = ask(gateway, stream=stream)
        if answer.provider == "openai":
            break
        assert_answered_by(answer, "deepseek", stream)
    assert_answered_by(answer, "openai", stream)
    assert answer.attempts == ["openai:unreachable", "openai:answered"]
    warmed, stale, fresh = (entry["connection"] for entry in world.seen("openai")[-3:])
    assert warmed == stale != fresh
    assert asked(world)[-3:] == ["openai"] * 3


# Truncated after the release.


#: Between the events of a stream: the first token is with the client before the fault happens.
GAP = 0.05
#: The client's own limit was not reached: the gateway broke the stream.
BROKEN_BY_GATEWAY = ("RemoteProtocolError", "ReadError")


def events_before_the_end(answer: Answer) -> tuple[list[Json], Any]:
    assert answer.broken is None
    return answer.events[:-1], answer.events[-1]


@pytest.mark.parametrize("done", [False, True], ids=["silently", "with_done"])
def test_a_released_stream_that_ends_unfinished_gets_a_typed_error_and_no_done(world: World, done: bool) -> None:
    world.fakes["openai"].script({"do": "clean_cut", "after": 3, "done": done, "gap": GAP})
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    assert answer.attempts == ["openai:answered"]
    chunks, last = events_before_the_end(answer)
    assert len([chunk for chunk in chunks if chunk["choices"][0]["delta"].get("content")]) == 3
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "stream_truncated")
    assert b"[DONE]" not in answer.raw
    assert asked(world) == ["openai"]
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:open"


@pytest.mark.parametrize("done", [False, True], ids=["silently", "with_done"])
def test_an_error_in_a_released_stream_is_passed_on_without_done(world: World, done: bool) -> None:
    world.fakes["openai"].script(
        {"do": "error_event_200", "after": 3, "message": "the provider's words", "done": done, "gap": GAP}
    )
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    chunks, last = events_before_the_end(answer)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert last["error"]["message"] == "the provider's words"
    assert not any("error" in chunk for chunk in chunks)
    assert b"[DONE]" not in answer.raw
    assert asked(world) == ["openai"]
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:open"


@pytest.mark.parametrize(
    ("step", "first_token"),
    [
        pytest.param({"do": "cut", "after": 3, "gap": GAP}, "5s", id="reset"),
        pytest.param({"do": "cut", "after": 3, "gap": GAP, "how": "fin"}, "5s", id="fin"),
        pytest.param({"do": "stall", "after": 3, "gap": GAP}, "5s", id="stall"),
        # As shipped: the idle limit is longer than the limit of the first token, which passes while the stream runs.
        pytest.param({"do": "stall", "after": 3, "gap": GAP}, "600ms", id="stall_beyond_the_first_token_limit"),
    ],
)
def test_a_released_stream_that_breaks_is_never_ended_cleanly(world: World, step: Json, first_token: str) -> None:
    world.fakes["openai"].script(step)
    gateway = world.gateway({**breaker(1), "limits": {"first_token": first_token}}, idle=1)
    answer = ask(gateway, stream=True)
    assert answer.status == 200
    assert answer.broken in BROKEN_BY_GATEWAY
    assert "Hello from openai.".startswith(answer.text) and answer.text
    assert b"[DONE]" not in answer.raw
    assert asked(world) == ["openai"]
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:open"


# RateLimited: how long, and what is waited for.


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_short_retry_after_is_waited_for_at_the_same_provider(world: World, stream: bool) -> None:
    world.fakes["openai"].script(status(429, headers={"retry-after": "1"}))
    gateway = world.gateway({**breaker(1), "retry": {"wait": "3s"}})
    answer = ask(gateway, stream=stream)
    assert_answered_by(answer, "openai", stream)
    assert answer.attempts == ["openai:rate_limited", "openai:answered"]
    refused, answered = (entry["time"] for entry in world.seen("openai"))
    assert answered - refused >= 1.0
    # The hold ended with the answer.
    assert "x-shunt-degraded" not in ask(gateway, stream=stream).headers
    assert asked(world) == ["openai"] * 3


def test_a_provider_that_is_still_limited_after_the_wait_is_left(world: World) -> None:
    world.fakes["openai"].script(default=status(429, headers={"retry-after": "1"}))
    answer = ask(world.gateway())
    assert_answered_by(answer, "deepseek", WHOLE)
    assert answer.attempts == ["openai:rate_limited", "openai:rate_limited", "deepseek:answered"]
    first, second = (entry["time"] for entry in world.seen("openai"))
    assert second - first >= 1.0
    assert asked(world) == ["openai", "openai", "deepseek"]


@dataclass(frozen=True)
class Hint:
    """The headers of a 429, and how long the provider must be left alone at least."""

    name: str
    headers: Json
    at_least: float


HINTS = [
    Hint("seconds", {"retry-after": "1"}, 1.0),
    Hint("fraction", {"retry-after": "0.7"}, 0.7),
    Hint("milliseconds", {"retry-after-ms": "700", "retry-after": "60"}, 0.7),
    Hint("resets", {"x-ratelimit-reset-requests": "200ms", "x-ratelimit-reset-tokens": "1s200ms"}, 1.2),
    Hint("resets_swapped", {"x-ratelimit-reset-requests": "1.2s", "x-ratelimit-reset-tokens": "1ms"}, 1.2),
]


def ask_until_openai_is_back(world: World, gateway: Gateway) -> float:
    """Seconds between the first provider's last two requests, once it is asked again."""
    before = len(world.fakes["openai"].log())

    def back() -> Optional[Answer]:
        answer = ask(gateway)
        return answer if answer.attempts[0].startswith("openai:") else None

    wait_for(back, 15, "the first provider to be asked again")
    log = world.seen("openai")
    assert len(log) == before + 1
    return float(log[-1]["time"] - log[-2]["time"])


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.name)
def test_a_hold_lasts_as_long_as_the_provider_says_and_is_no_failure(world: World, hint: Hint) -> None:
    world.fakes["openai"].script(status(429, headers=hint.headers))
    # A single failure, or the default hold, would keep the provider out for longer than the test waits.
    gateway = world.gateway({**breaker(1), "retry": {"wait": "0s"}, "holds": {"rate_limited": LONG}})
    first = ask(gateway)
    assert_answered_by(first, "deepseek", WHOLE)
    assert first.attempts == ["openai:rate_limited", "deepseek:answered"]
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:rate_limited"
    assert ask_until_openai_is_back(world, gateway) >= hint.at_least


def test_a_hold_lasts_until_the_date_that_the_provider_says(world: World) -> None:
    gateway = world.gateway({**breaker(1), "retry": {"wait": "0s"}, "holds": {"rate_limited": LONG}})
    until = int(time.time()) + 3
    date = email.utils.formatdate(until, usegmt=True)
    world.fakes["openai"].script(status(429, headers={"retry-after": date}))
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    ask_until_openai_is_back(world, gateway)
    assert world.seen("openai")[-1]["time"] >= until


def test_a_limit_without_a_time_holds_for_the_default_which_grows(world: World) -> None:
    limited = status(429)
    world.fakes["openai"].script(limited, limited)
    gateway = world.gateway({**breaker(1), "holds": {"rate_limited": "1s"}})
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    assert ask_until_openai_is_back(world, gateway) >= 1.0
    assert ask_until_openai_is_back(world, gateway) >= 2.0


def test_an_unreadable_retry_after_holds_for_the_default(world: World) -> None:
    world.fakes["openai"].script(status(429, headers={"retry-after": "soon"}))
    gateway = world.gateway({"holds": {"rate_limited": "1s"}})
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    assert ask_until_openai_is_back(world, gateway) >= 1.0


def test_no_provider_can_ask_for_a_longer_hold_than_the_longest(world: World) -> None:
    world.fakes["openai"].script(status(429, headers={"retry-after": "86400"}))
    gateway = world.gateway({"holds": {"max": "1s"}})
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    assert ask_until_openai_is_back(world, gateway) >= 1.0


# OutOfQuota, BadKey, NoSuchModel: the length and the reach of a hold.


@pytest.mark.parametrize(
    ("code", "hold"),
    [(402, "out_of_quota"), (401, "bad_key"), (404, "no_such_model")],
)
def test_each_kind_of_hold_has_its_own_length(world: World, code: int, hold: str) -> None:
    world.fakes["openai"].script(status(code))
    others = {kind: LONG for kind in ("rate_limited", "out_of_quota", "bad_key", "no_such_model") if kind != hold}
    gateway = world.gateway({**breaker(1), "holds": {**others, hold: "1s"}})
    assert ask(gateway).attempts == [f"openai:{hold}", "deepseek:answered"]
    assert ask(gateway).headers["x-shunt-degraded"] == f"openai:{hold}"
    assert ask_until_openai_is_back(world, gateway) >= 1.0


def test_a_missing_model_is_held_and_the_providers_other_models_are_not(world: World) -> None:
    world.fakes["openai"].script(status(404))
    models = {"assistant": "gpt-5.4-mini", "writer": "gpt-5.4"}
    gateway = world.gateway({"providers": {"openai": {"models": models}, "deepseek": {"models": {"*": "deepseek-flash"}}}})
    assert ask(gateway).attempts == ["openai:no_such_model", "deepseek:answered"]
    other = ask(gateway, chat(model="writer"))
    assert other.attempts == ["openai:answered"]
    assert other.headers["x-shunt-model"] == "gpt-5.4"
    again = ask(gateway)
    assert again.attempts == ["deepseek:answered"]
    assert again.headers["x-shunt-degraded"] == "openai:no_such_model"
    assert [entry["model"] for entry in world.fakes["openai"].log()] == ["gpt-5.4-mini", "gpt-5.4"]
    assert len(world.seen("deepseek")) == 2


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_when_everybody_is_set_aside_the_one_that_is_free_first_serves(world: World, stream: bool) -> None:
    for name, seconds in (("openai", "50"), ("deepseek", "20"), ("shareai", "40")):
        world.fakes[name].script(status(429, headers={"retry-after": seconds}))
    gateway = world.gateway()
    assert ask(gateway, stream=stream).status == 429
    answer = ask(gateway, stream=stream)
    assert_answered_by(answer, "deepseek", stream)
    assert answer.attempts == ["deepseek:answered"]
    assert answer.headers["x-shunt-degraded"] == "openai:rate_limited,shareai:rate_limited"
    assert asked(world) == ["openai", "deepseek", "shareai", "deepseek"]


# TooLong.

TOO_LONG = [
    pytest.param(status(400, "context_length_exceeded"), id="code"),
    pytest.param(status(400, message="This model's maximum context length is 1000 tokens."), id="words"),
    # Groq's: this request alone is more than the tokens of a minute.
    pytest.param(status(413, "rate_limit_exceeded", headers={"retry-after": "30"}), id="413"),
]


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
@pytest.mark.parametrize("step", TOO_LONG)
def test_a_conversation_that_is_too_long_goes_to_a_larger_context(world: World, step: Json, stream: bool) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway({**breaker(1), "routes": [route("openai", "shareai", "deepseek")]})
    for request in (1, 2):
        # Not to the second candidate, of whose context nothing is known, while one is known to be larger; and nobody is left out for it.
        answer = ask(gateway, stream=stream)
        assert_answered_by(answer, "deepseek", stream)
        assert answer.attempts == ["openai:too_long", "deepseek:answered"]
        assert "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai", "deepseek"] * request


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_conversation_that_is_too_long_for_everybody_is_told_in_the_providers_words(
    world: World, stream: bool
) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(400, "context_length_exceeded", message=f"too long for {name}"))
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=stream)
        assert answer.status == 400
        assert (answer.error["code"], answer.error["message"]) == ("context_length_exceeded", "too long for shareai")
        assert answer.attempts == ["openai:too_long", "deepseek:too_long", "shareai:too_long"]
        assert asked(world) == ["openai", "deepseek", "shareai"] * request


def route(*providers: str, **more: Any) -> Json:
    return {"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": list(providers), **more}


# Refused and BadRequest. What no list explains is asked of one more provider: test_second_opinion.py has that.

STOPS = [
    Row("424", status(424), "bad_request"),
    Row("424_detail", status(424, body={"detail": [{"loc": ["body"], "msg": "field required"}]}), "bad_request"),
    Row("400_content_filter", status(400, "content_filter"), "refused"),
]


@rows(STOPS)
def test_a_request_that_is_wrong_or_refused_is_told_so_by_the_first_provider(
    world: World, row: Row, stream: bool
) -> None:
    world.fakes["openai"].script(default=row.step)
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=stream)
        assert answer.status == row.step["status"]
        assert answer.provider == "openai"
        assert answer.attempts == [f"openai:{row.outcome}"]
        assert "x-shunt-degraded" not in answer.headers
        # Whatever the vendor's form: the envelope, with the vendor's words.
        message = "body: field required" if "body" in row.step else row.step.get("message", "The request is not valid.")
        assert answer.error["code"] == row.step.get("code")
        assert answer.error["message"] == message
        assert asked(world) == ["openai"] * request


# ClientGone.


def assert_nobody_is_blamed(world: World, gateway: Gateway) -> None:
    """After the client left: the provider heard of it, and the next request finds it in use."""
    wait_for(lambda: world.fakes["openai"].log()[0]["ended"] == "aborted_by_peer", what="the provider to be told")
    wait_for(gateway.access_log, what="the end of the request")
    answer = ask(gateway)
    assert_answered_by(answer, "openai", WHOLE)
    assert "x-shunt-degraded" not in answer.headers
    assert asked(world) == ["openai", "openai"]


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_client_that_leaves_before_the_headers_is_nobodys_failure(world: World, stream: bool) -> None:
    world.fakes["openai"].script({"do": "silent"})
    gateway = world.gateway({**breaker(1), "limits": {"first_token": LONG, "answer": LONG}})
    body = httpx.Request("POST", gateway.url, json=chat(stream)).content
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(request_head(len(body)) + body)
        world.fakes["openai"].wait_for(in_flight=1)
    assert_nobody_is_blamed(world, gateway)


def test_a_client_that_leaves_before_the_first_token_is_nobodys_failure(world: World) -> None:
    world.fakes["openai"].script({"do": "hold", "after": 0})
    gateway = world.gateway({**breaker(1), "limits": {"first_token": LONG}})
    body = httpx.Request("POST", gateway.url, json=chat(True)).content
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(request_head(len(body)) + body)
        world.fakes["openai"].wait_for(holding=1)
    assert_nobody_is_blamed(world, gateway)


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_nobodys_failure(world: World) -> None:
    world.fakes["openai"].script({"do": "hold", "after": 2})
    gateway = world.gateway(breaker(1))
    with httpx.Client(trust_env=False, verify=PLAIN) as client:
        headers = {"authorization": f"Bearer {CLIENT_KEY}"}
        with client.stream("POST", gateway.url + CHAT, json=chat(True), headers=headers) as response:
            assert next(response.iter_raw())
    assert_nobody_is_blamed(world, gateway)


# Hostile headers of providers.

HOSTILE = {
    "x-envoy-ratelimited": "true",
    "x-envoy-overloaded": "true",
    "x-envoy-immediate-health-check-fail": "true",
    "x-shunt-retry": "1",
    "x-shunt-wait": "60",
    "x-shunt-provider": "forged",
    "x-shunt-attempts": "forged:answered",
    "x-shunt-degraded": "forged:open",
    "set-cookie": ["__cf_bm=tracking; path=/; HttpOnly", "_cfuvid=tracking; path=/; HttpOnly"],
    "openai-organization": "org-of-the-operator",
    "openai-project": "project-of-the-operator",
    "alt-svc": 'h3=":443"',
}


def assert_no_hostile_header(answer: Answer) -> None:
    for name in ("set-cookie", "openai-organization", "openai-project", "alt-svc", "x-shunt-retry", "x-shunt-wait"):
        assert name not in answer.headers, name
    assert not [name for name in answer.headers if name.startswith("x-envoy-")]
    assert not [value for value in answer.headers.values() if "forged" in value]
    for name in ("x-shunt-provider", "x-shunt-attempts", "x-shunt-model"):
        assert len(answer.headers.get_list(name)) <= 1


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
@pytest.mark.parametrize("code", [500, 503, 429])
def test_no_header_of_a_failing_provider_keeps_the_request_from_the_next(world: World, code: int, stream: bool) -> None:
    world.fakes["openai"].script(default=status(code, headers=HOSTILE))
    answer = ask(world.gateway(), stream=stream)
    assert_answered_by(answer, "deepseek", stream)
    assert_no_hostile_header(answer)
    assert asked(world) == ["openai"] * (2 if code == 500 else 1) + ["deepseek"]


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
@pytest.mark.parametrize("step", [{"do": "answer"}, status(400)], ids=["answer", "error"])
def test_no_hostile_header_of_a_provider_reaches_the_client(world: World, step: Json, stream: bool) -> None:
    for fake in world.fakes.values():
        fake.script(default={**step, "headers": HOSTILE})
    gateway = world.gateway()
    answer = ask(gateway, stream=stream)
    assert answer.status == step.get("status", 200)
    assert answer.provider == "openai"
    assert_no_hostile_header(answer)
    # Nor does the gateway itself believe that the host is unhealthy, or that it must ask again.
    assert ask(gateway, stream=stream).provider == "openai"
    assert asked(world) == (["openai", "deepseek"] if "status" in step else ["openai"]) * 2
