"""What the caller and the providers see where APISIX differs from Envoy: the other half of differences.py."""

from __future__ import annotations

import json
import pathlib
import re
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest

from accounts import TENANT, only_record
from differences import ROWS, difference
from support import CHAT, CLIENT_KEY, PLAIN, Answer, Json, Upstream, World, ask, asked, chat, raw_exchange, request_head, wait_for
from test_edges import CONTENT, provider
from test_endpoints import RESPONSES
from test_errors import HANDSHAKE, error_of
from test_long import BEGIN, BROKEN, DOCUMENT, SMALL, Pace, paced, play_stream
from test_outcomes import LONG, breaker, status
from traffic import reload_listeners
from vendors import Vendors

GATEWAY = pathlib.Path(__file__).resolve().parents[1] / "gateway"


def test_every_row_names_a_scenario_that_is_there() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(GATEWAY)]
    collected = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    tests = re.findall(r"test_(\w+)\.py::(.+)", collected)
    assert len(tests) > 500, collected[-2000:]
    met = {difference(file, name) for file, name in tests}
    assert [row for row in ROWS if row not in met] == []


def assert_failed_over(answer: Answer, *attempts: str) -> None:
    assert (answer.status, answer.attempts) == (200, list(attempts)), answer.raw[:500]
    answer.assert_whole_stream()
    assert answer.text == f"Hello from {attempts[-1].partition(':')[0]}."


def assert_told_in_an_event(answer: Answer) -> None:
    """The head had left: the stream ends with an error, and never looks finished."""
    assert (answer.status, answer.provider) == (200, "openai")
    assert set(answer.events[-1]["error"]) == {"message", "type", "param", "code"}
    assert b"[DONE]" not in answer.raw and not answer.text


# The chain sees a head alone.


@pytest.mark.parametrize(
    "step",
    [
        {"do": "empty_stream"},
        {"do": "done_only"},
        {"do": "garbage"},
        {"do": "error_event_200"},
        {"do": "error_event_200", "role": True},
        {"do": "finish_reason", "reason": "insufficient_system_resource", "text": ""},
        {"do": "clean_cut", "after": 0},
        {"do": "clean_cut", "after": 0, "done": True},
    ],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_a_stream_that_fails_behind_its_head_is_told_in_an_event_and_counts_as_a_failure(world: World, step: Json) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    assert answer.broken is None
    assert_told_in_an_event(answer)
    assert asked(world) == ["openai"]
    after = ask(gateway, stream=True)
    assert after.headers["x-shunt-degraded"] == "openai:open"
    assert_failed_over(after, "deepseek:answered")


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_stream_that_is_refused_behind_its_head_is_told_in_an_event_and_is_nobodys_failure(
    vendors: Vendors, path: str
) -> None:
    vendors.fakes["openai"].script(default={"do": "response_failed", "code": "invalid_prompt"})
    gateway = vendors.serve("openai", "shareai", path=path, changes=breaker(1))
    for request in (1, 2):
        body = {"model": "assistant", "input": "hello", "stream": True} if path == RESPONSES else chat(stream=True)
        answer = ask(gateway, body, path=path)
        assert (answer.status, answer.broken, answer.provider) == (200, None, "openai")
        assert "invalid_prompt" in json.dumps(answer.events[-1]) and b"[DONE]" not in answer.raw
        assert "x-shunt-degraded" not in answer.headers
        assert asked(vendors) == ["openai"] * request


@pytest.mark.parametrize(
    "step",
    [{"do": "headers_only"}, {"do": "stall", "after": 0}, {"do": "cut", "after": 0}, {"do": "cut", "after": 0, "how": "fin"}],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_a_stream_that_dies_behind_its_head_breaks_and_counts_as_a_failure(world: World, step: Json) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.provider) == (200, "openai") and answer.broken
    assert b"[DONE]" not in answer.raw and not answer.text
    assert asked(world) == ["openai"]
    after = ask(gateway, stream=True)
    assert after.headers["x-shunt-degraded"] == "openai:open"


@pytest.mark.parametrize("code", ["429", "overloaded", "insufficient_quota", "content_filter"])
def test_a_document_for_a_stream_moves_on_whatever_it_says(world: World, code: str) -> None:
    world.fakes["openai"].script(default={"do": "error_json_200", "code": code})
    answer = ask(world.gateway(), stream=True)
    assert_failed_over(answer, "openai:server_error", "openai:server_error", "deepseek:answered")
    assert asked(world) == ["openai", "openai", "deepseek"]


@pytest.mark.parametrize(
    ("step", "outcome", "times"),
    [
        (status(429, "insufficient_quota"), "rate_limited", 1),
        (status(429, "billing_hard_limit_reached"), "rate_limited", 1),
        (status(429, "slow_down"), "rate_limited", 1),
        (status(500, "server_is_overloaded"), "server_error", 2),
        (status(500, type="overloaded_error"), "server_error", 2),
    ],
    ids=["quota", "billing", "slow_down", "500_code", "500_type"],
)
def test_a_stream_fails_over_by_the_status_whatever_the_error_says(world: World, step: Json, outcome: str, times: int) -> None:
    world.fakes["openai"].script(default=step)
    answer = ask(world.gateway(), stream=True)
    assert_failed_over(answer, *[f"openai:{outcome}"] * times, "deepseek:answered")
    assert asked(world) == ["openai"] * times + ["deepseek"]


def test_a_404_to_a_stream_holds_the_model_only_once_several_requests_got_it(world: World) -> None:
    world.fakes["openai"].script(default=status(404, "model_not_found"))
    gateway = world.gateway()
    for text in ("a", "b", "c"):
        assert_failed_over(ask(gateway, chat(True, text=text), stream=True), "openai:no_such_model", "deepseek:answered")
    answer = ask(gateway, chat(True, text="d"), stream=True)
    assert answer.headers["x-shunt-degraded"] == "openai:no_such_model"


# A 400 is asked once more.


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (status(403, "account_deactivated"), "bad_key"),
        (status(403, "billing_not_active"), "out_of_quota"),
        (status(400, "invalid_api_key"), "bad_key"),
        (status(400, "model_not_found"), "no_such_model"),
        (status(400, "Arrearage"), "out_of_quota"),
    ],
    ids=["403", "403_billing", "400_key", "400_model", "400_arrearage"],
)
def test_what_a_400_means_is_heard_at_the_second_time_and_the_next_one_answers(world: World, step: Json, outcome: str) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    assert_failed_over(answer, f"openai:{outcome}", "deepseek:answered")
    assert asked(world) == ["openai", "openai", "deepseek"]
    assert ask(gateway, stream=True).headers["x-shunt-degraded"] == f"openai:{outcome}"


@pytest.mark.parametrize(
    ("code", "error", "outcome"),
    [
        *((code, None, "bad_request") for code in (400, 409, 422)),
        *((code, "content_filter", "refused") for code in (400, 403, 409, 422)),
    ],
)
def test_a_request_that_is_wrong_is_told_so_at_the_second_time(world: World, code: int, error: Any, outcome: str) -> None:
    world.fakes["openai"].script(default=status(code, error, message="not like this"))
    gateway = world.gateway(breaker(1))
    for request in (1, 2):
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.error["code"], answer.error["message"]) == (code, error, "not like this")
        assert answer.attempts == [f"openai:{outcome}"]
        assert "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai", "openai"] * request


def test_a_stream_that_is_too_long_goes_to_a_larger_context_at_the_second_time(world: World) -> None:
    world.fakes["openai"].script(default=status(400, "context_length_exceeded"))
    answer = ask(world.gateway(), stream=True)
    assert_failed_over(answer, "openai:too_long", "deepseek:answered")
    assert asked(world) == ["openai", "openai", "deepseek"]


def test_a_stream_that_nobody_could_serve_has_the_status_of_what_was_wrong_with_it(world: World) -> None:
    world.fakes["openai"].script(default=status(400, "context_length_exceeded"))
    for name in ("deepseek", "shareai"):
        world.fakes[name].script(default=status(503))
    answer = ask(world.gateway(), stream=True)
    assert (answer.status, answer.error["code"]) == (400, "all_providers_failed")
    assert answer.attempts == ["openai:too_long", "deepseek:overloaded", "shareai:overloaded"]


def test_a_stream_that_has_moved_ends_with_the_last_refusal(world: World) -> None:
    world.fakes["openai"].script(default=status(503))
    for name in ("deepseek", "shareai"):
        world.fakes[name].script(default=status(400, f"odd_{name}", message=f"{name} does not like this"))
    gateway = world.gateway()
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.provider, answer.error["code"]) == (400, "shareai", "odd_shareai")
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:bad_request"]
    record = only_record(gateway)
    assert (record["outcome"], record["status"], record["second_opinion"]) == ("bad_request", 400, "confirmed")


def test_a_stream_that_has_moved_and_finds_nobody_has_the_status_of_the_first_refusal(world: World) -> None:
    for name, step in (("openai", status(503)), ("deepseek", status(422)), ("shareai", status(503))):
        world.fakes[name].script(default=step)
    answer = ask(world.gateway(), stream=True)
    assert (answer.status, answer.error["code"]) == (422, "all_providers_failed")
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:overloaded"]


def test_a_conflict_is_tried_once_more_within_the_same_attempt(world: World) -> None:
    world.fakes["openai"].script(status(409))
    answer = ask(world.gateway(), stream=True)
    assert (answer.status, answer.attempts, answer.text) == (200, ["openai:answered"], "Hello from openai.")
    assert asked(world) == ["openai", "openai"]


# Time.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_short_retry_after_is_not_waited_for(world: World, stream: bool) -> None:
    world.fakes["openai"].script(status(429, headers={"retry-after": "1"}))
    answer = ask(world.gateway({"retry": {"wait": "3s"}}), stream=stream)
    assert (answer.status, answer.attempts) == (200, ["openai:rate_limited", "deepseek:answered"])
    assert asked(world) == ["openai", "deepseek"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_failed_server_that_is_back_soon_is_not_waited_for(world: World, stream: bool) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(503, headers={"retry-after": "1"}))
    answer = ask(world.gateway(), stream=stream)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert asked(world) == ["openai", "deepseek", "shareai"]


def test_the_last_try_of_a_live_stream_has_the_time_of_the_outer_route(world: World) -> None:
    """The request has half a second left for it, and it answers after eight tenths of one."""
    world.fakes["openai"].script(default={"do": "silent"})
    world.fakes["deepseek"].script(default={"do": "answer", "delay": 0.8})
    answer = ask(world.gateway({"limits": {"first_token": "1s", "answer": "1s", "total": "1500ms"}}), stream=True)
    assert_failed_over(answer, "openai:too_slow", "deepseek:answered")


def test_a_live_stream_that_is_never_silent_is_waited_for(world: World) -> None:
    world.fakes["openai"].script({"do": "comments", "for": 2.0, "then": {"do": "answer"}})
    gateway = world.gateway({"limits": {"answer": "1s"}})
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.attempts) == (200, ["openai:answered"])
    assert asked(world) == ["openai"]


# Clients that leave, and answers that break.


def test_a_call_runs_to_its_end_without_its_client(world: World) -> None:
    world.fakes["openai"].script({"do": "hold", "after": 0})
    gateway = world.gateway({**breaker(1), "limits": {"answer": LONG}})
    body = json.dumps(chat()).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(request_head(len(body)) + body)
        world.fakes["openai"].wait_for(holding=1)
    world.fakes["openai"].release()
    record = only_record(gateway)
    assert (record["outcome"], record["usage"]["source"]) == ("answered", "reported")
    wait_for(lambda: world.fakes["openai"].log()[0]["ended"] == "complete", what="the answer's end")
    assert ask(gateway).attempts == ["openai:answered"]


def test_nothing_is_billed_of_a_call_that_broke_off(world: World) -> None:
    world.fakes["openai"].script({"do": "cut", "after": 4, "usage": "every_chunk", "chunks": 6, "gap": 0.1})
    gateway = world.gateway()
    answer = ask(gateway, stream=True, headers={"x-shunt-stream": "complete"})
    assert_failed_over(answer, "openai:truncated", "deepseek:answered")
    first, second = only_record(gateway)["attempts"]
    assert "usage" not in first and second["usage"]["source"] == "reported"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "complete"])
def test_an_answer_beyond_what_envoy_would_hold_still_fails_over(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "cut", "after": 4, "text": "x" * 20_000, "gap": 0.05})
    headers = {"x-shunt-stream": "complete"} if stream else {}
    answer = ask(world.gateway({"limits": {"max_held_bytes": 4096}}), stream=stream, headers=headers)
    assert (answer.status, answer.attempts) == (200, ["openai:truncated", "deepseek:answered"])
    assert asked(world) == ["openai", "deepseek"]


@pytest.mark.parametrize("how", list(BROKEN))
def test_half_of_a_long_event_is_ended_and_the_error_follows(world: World, how: str) -> None:
    answer, record = play_stream(world, BROKEN[how])
    *_, half, told, rest = answer.raw.split(b"\n\n")
    assert (answer.status, answer.broken, rest) == (200, None, b"")
    # Whoever reads the half of the event fails.
    with pytest.raises(ValueError):
        json.loads(half.removeprefix(b"data: "))
    assert json.loads(told.removeprefix(b"data: "))["error"]["code"] == "stream_truncated"
    assert b"[DONE]" not in answer.raw and record["outcome"] == "garbled"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "complete"])
def test_a_long_answer_that_is_broken_is_heard_whole_and_fails_over(world: World, stream: bool) -> None:
    body = CONTENT + BEGIN + BROKEN["broken"] if stream else DOCUMENT + b"}"
    with provider(paced("text/event-stream" if stream else "application/json", [(body, 0)], Pace())) as port:
        gateway = world.gateway(SMALL, upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=stream, headers={"x-shunt-stream": "complete"} if stream else {})
    assert (answer.status, answer.attempts) == (200, ["openai:garbled", "deepseek:answered"])
    assert answer.text == "Hello from deepseek."


# The host's own.


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", f"POST {CHAT} HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n".encode()],
    ids=["garbage", "two-lengths"],
)
def test_what_is_no_http_is_refused_and_asks_nobody(world: World, request_bytes: bytes) -> None:
    answered, _, _ = raw_exchange(world.gateway(), request_bytes)
    assert answered == 400
    assert asked(world) == []


@pytest.mark.parametrize("path", ["/", "/files"])
def test_what_is_outside_of_v1_is_refused_and_asks_nobody(world: World, path: str) -> None:
    answer = ask(world.gateway(), path=path)
    assert (answer.status, answer.json) == (404, {"error_msg": "404 Route Not Found"})
    assert asked(world) == []


def test_a_websocket_is_refused_as_a_get_and_asks_nobody(world: World) -> None:
    status, headers, body = raw_exchange(world.gateway(), HANDSHAKE)
    assert (status, headers["content-type"]) == (405, "application/json")
    assert error_of(body)["code"] == "method_not_allowed"
    assert asked(world) == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_over_http_2_without_its_length_is_refused_and_asks_nobody(world: World, stream: bool) -> None:
    gateway = world.gateway()
    with httpx.Client(http1=False, http2=True, trust_env=False, verify=PLAIN) as client:

        def post(content: Any) -> httpx.Response:
            return client.post(gateway.url + CHAT, content=content, headers={"authorization": f"Bearer {CLIENT_KEY}"})

        body = json.dumps(chat(stream)).encode()
        refused = post(iter([body]))
        assert "content-length" not in refused.request.headers and refused.http_version == "HTTP/2"
        assert (refused.status_code, refused.headers["content-type"]) == (411, "application/json")
        assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("invalid_request_error", "length_required")
        record = only_record(gateway)
        assert (record["outcome"], record["status"], record["attempts"]) == ("rejected", 411, [])
        assert asked(world) == []
        assert post(body).headers["x-shunt-attempts"] == "openai:answered"
    assert asked(world) == ["openai"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_provider_without_an_inner_route_is_unreachable(world: World, stream: bool) -> None:
    gateway = world.gateway(unmapped=("openai",))
    answer = ask(gateway, stream=stream)
    assert (answer.status, answer.attempts) == (200, ["openai:unreachable", "deepseek:answered"])
    assert asked(world) == ["deepseek"]


def test_a_mistake_in_the_configuration_is_a_500_in_the_envelope_and_named_in_the_log(world: World) -> None:
    gateway = world.gateway({"limits": {"answr": "5s"}})
    for stream in (False, True):
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert 'limits.answr: unknown "answr"; did you mean "answer"?' in gateway.log()
    assert asked(world) == []
    del gateway.config["limits"]["answr"]
    reload_listeners(gateway)
    assert ask(gateway).attempts == ["openai:answered"]


def test_an_absent_key_is_named_in_the_log(world: World) -> None:
    gateway = world.gateway(environment={"OPENAI_API_KEY": ""})
    assert ask(gateway).status == 500
    assert "providers.openai.api_key: the environment variable OPENAI_API_KEY is not set" in gateway.log()
    assert asked(world) == []


# A released stream that breaks off.


def test_on_break_is_ignored_with_a_warning_and_a_broken_stream_is_still_reset(world: World) -> None:
    world.fakes["openai"].script({"do": "cut", "after": 3, "gap": 0.02}, {"do": "clean_cut", "after": 3, "gap": 0.02})
    route = {"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek"], "stream": {"on_break": "event"}}
    gateway = world.gateway({"routes": [route]})
    answer = ask(gateway, stream=True)
    assert answer.broken and b"[DONE]" not in answer.raw and b"stream_truncated" not in answer.raw
    assert "the on_break of a route is ignored" in gateway.log()
    ended = ask(gateway, stream=True)
    assert (ended.broken, ended.events[-1]["error"]["code"]) == (None, "stream_truncated")
    assert asked(world) == ["openai", "openai"]


# The record of a stream that breaks off.


def test_the_record_of_a_stream_whose_client_leaves_is_there_and_names_who_answered(world: World) -> None:
    world.fakes["openai"].script({"do": "hold", "after": 3})
    gateway = world.gateway({"tenant": {"header": TENANT}})
    with httpx.Client(trust_env=False) as client:
        headers = {"authorization": f"Bearer {CLIENT_KEY}", TENANT: "team-a"}
        with client.stream("POST", gateway.url + CHAT, json=chat(True), headers=headers) as response:
            assert next(response.iter_raw())
    record = only_record(gateway)
    assert (record["tenant"], record["provider"]) == ("team-a", "openai")
    assert [(one["provider"], one["outcome"]) for one in record["attempts"]] == [("openai", "truncated")]
