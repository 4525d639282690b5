"""When a stream goes to the client: at its first token, or as a whole; and what that protects the client from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import behaviour
from support import CHAT, Answer, Json, World, ask, asked, chat

#: `ask` with this header gets its stream as a whole.
COMPLETE = {"x-shunt-stream": "complete"}


@dataclass(frozen=True)
class Fault:
    """One way to fail, as a step of the fake provider."""

    name: str
    step: Json
    #: It strikes only after content: a stream that was released at its first token is lost.
    after_content: bool = False
    #: The provider acts before it has read the body, so its log does not have it.
    unread: bool = False


#: Between the events of a stream: what comes before the fault has left the provider by then.
GAP = 0.02

FAULTS = [
    Fault("status_500", {"do": "status", "status": 500}),
    Fault("status_503", {"do": "status", "status": 503}),
    Fault("status_429", {"do": "status", "status": 429}),
    Fault("status_401", {"do": "status", "status": 401}),
    Fault("status_404", {"do": "status", "status": 404}),
    Fault("html", {"do": "html"}),
    Fault("redirect", {"do": "redirect"}),
    Fault("early", {"do": "early"}, unread=True),
    Fault("error_json_200", {"do": "error_json_200"}),
    Fault("error_event_200", {"do": "error_event_200"}),
    Fault("error_event_200_after_3", {"do": "error_event_200", "after": 3, "gap": GAP}, after_content=True),
    Fault("error_event_200_done", {"do": "error_event_200", "after": 3, "done": True, "gap": GAP}, after_content=True),
    Fault("gzip", {"do": "gzip"}),
    Fault("whole_for_stream", {"do": "whole_for_stream"}),
    Fault("garbage", {"do": "garbage"}),
    Fault("empty_200", {"do": "empty_200"}),
    Fault("empty_stream", {"do": "empty_stream"}),
    Fault("done_only", {"do": "done_only"}),
    Fault("http_garbage", {"do": "http_garbage"}),
    Fault("silent", {"do": "silent"}),
    Fault("headers_only", {"do": "headers_only"}),
    Fault("comments", {"do": "comments"}),
    Fault("role_only", {"do": "role_only"}),
    Fault("drip", {"do": "drip"}),
    Fault("slow_answer", {"do": "answer", "gap": 0.6}, after_content=True),
    Fault("hold_after_3", {"do": "hold", "after": 3}, after_content=True),
    Fault("stall_after_0", {"do": "stall", "after": 0}),
    Fault("stall_after_3", {"do": "stall", "after": 3, "gap": GAP}, after_content=True),
    Fault("cut_after_0", {"do": "cut", "after": 0}),
    Fault("cut_after_3", {"do": "cut", "after": 3, "gap": GAP}, after_content=True),
    Fault("cut_after_3_fin", {"do": "cut", "after": 3, "how": "fin", "gap": GAP}, after_content=True),
    Fault("cut_before_finish", {"do": "cut", "after": 5, "gap": GAP}, after_content=True),
    Fault("clean_cut_after_0", {"do": "clean_cut", "after": 0}),
    Fault("clean_cut_after_3", {"do": "clean_cut", "after": 3, "gap": GAP}, after_content=True),
    Fault("clean_cut_after_3_done", {"do": "clean_cut", "after": 3, "done": True, "gap": GAP}, after_content=True),
    Fault("out_of_machines", {"do": "finish_reason", "reason": "insufficient_system_resource", "gap": GAP}, after_content=True),
    Fault("malformed_event", {"do": "malformed_event", "after": 2, "gap": GAP}, after_content=True),
    Fault("reset_before_headers", {"do": "reset_before_headers"}),
    Fault("reset_at_once", {"do": "reset_at_once"}, unread=True),
    Fault("close_before_headers", {"do": "close_before_headers"}),
]
#: Behaviours that are no fault of a stream, or one that needs a connection with a past (`test_outcomes.py` has it).
NO_FAULT = {
    "answer", "tool_call", "reasoning", "refusal", "empty_finish", "big", "split", "stream_for_whole", "bad_headers",
    "no_done", "reset_reused", "sloppy", "split_event", "leading_blank", "response_failed",
}  # fmt: skip


def test_the_table_has_every_fault_of_the_fake() -> None:
    assert {fault.step["do"] for fault in FAULTS} | NO_FAULT == set(behaviour.REGISTRY)


def assert_whole_from_one(answer: Answer, name: str) -> None:
    """One whole stream, and not a byte of it from anybody else."""
    assert (answer.status, answer.provider) == (200, name), answer.raw[:500]
    answer.assert_whole_stream()
    assert answer.text == f"Hello from {name}."
    assert {event["id"].split("-")[1] for event in answer.events if event != "[DONE]"} == {name}


def assert_openai_failed_and_deepseek_answered(world: World, answer: Answer, fault: Fault) -> None:
    assert_whole_from_one(answer, "deepseek")
    first = world.fakes["openai"].log() if fault.unread else world.seen("openai")
    # The answer says how often each was asked, and each must agree.
    assert [attempt.split(":")[0] for attempt in answer.attempts] == ["openai"] * len(first) + ["deepseek"]
    assert "openai:answered" not in answer.attempts
    assert (len(first) in (1, 2), len(world.seen("deepseek")), len(world.seen("shareai"))) == (True, 1, 0)


def complete_route(**more: Any) -> Json:
    return {
        "name": "chat",
        "match": {"path": CHAT, "model": "*"},
        "providers": ["openai", "deepseek", "shareai"],
        "stream": {"release": "complete"},
        **more,
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_fault_reaches_a_stream_that_is_released_when_it_is_complete(world: World, fault: Fault) -> None:
    world.fakes["openai"].script(default=fault.step)
    gateway = world.gateway({"routes": [complete_route()], "limits": {"answer": "1s"}})
    assert_openai_failed_and_deepseek_answered(world, ask(gateway, stream=True), fault)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.after_content], ids=lambda fault: fault.name)
def test_no_fault_reaches_a_request_that_asks_for_its_stream_when_it_is_complete(world: World, fault: Fault) -> None:
    world.fakes["openai"].script(default=fault.step)
    gateway = world.gateway({"limits": {"answer": "1s"}})
    assert_openai_failed_and_deepseek_answered(world, ask(gateway, stream=True, headers=COMPLETE), fault)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.after_content], ids=lambda fault: fault.name)
def test_no_fault_before_the_first_token_reaches_the_client(world: World, fault: Fault) -> None:
    world.fakes["openai"].script(default=fault.step)
    assert_openai_failed_and_deepseek_answered(world, ask(world.gateway(), stream=True), fault)


def test_several_providers_may_break_off_before_one_stream_is_whole(world: World) -> None:
    world.fakes["openai"].script(default={"do": "cut", "after": 3})
    world.fakes["deepseek"].script(default={"do": "clean_cut", "after": 4})
    answer = ask(world.gateway(), stream=True, headers=COMPLETE)
    assert_whole_from_one(answer, "shareai")
    assert answer.attempts == ["openai:truncated", "deepseek:truncated", "shareai:answered"]
    assert asked(world) == ["openai", "deepseek", "shareai"]


def test_a_request_cannot_undo_the_routes_protection(world: World) -> None:
    """A provider that pauses after its first tokens: with `first_token` the client would have them by now."""
    world.fakes["openai"].script({"do": "hold", "after": 2})
    gateway = world.gateway({"routes": [complete_route()], "limits": {"answer": "1s"}})
    answer = ask(gateway, stream=True, headers={"x-shunt-stream": "first_token"})
    assert_whole_from_one(answer, "deepseek")
    assert answer.attempts == ["openai:too_slow", "deepseek:answered"]
    assert asked(world) == ["openai", "deepseek"]


def test_the_first_token_is_with_the_client_while_the_provider_still_speaks(world: World) -> None:
    world.fakes["openai"].script({"do": "hold", "after": 2})
    # The client gives up on the rest; what it has by then was released at the first token.
    answer = ask(world.gateway(idle=60), stream=True, timeout=2)
    assert (answer.attempts, answer.broken) == (["openai:answered"], "ReadTimeout")
    assert answer.text and "Hello from openai.".startswith(answer.text)
    assert asked(world) == ["openai"]


# Any split of the bytes.

SPLITS = [
    pytest.param({"do": "split", "size": size, "crlf": crlf}, id=f"{size}-{'crlf' if crlf else 'lf'}")
    for size in (1, 2, 7, 100)
    for crlf in (False, True)
]


@pytest.mark.parametrize("step", SPLITS)
@pytest.mark.parametrize("form", ["whole", "first_token", "complete"])
def test_an_answer_is_delivered_whole_however_its_bytes_are_split(world: World, step: Json, form: str) -> None:
    world.fakes["openai"].script(default=step)
    stream = form != "whole"
    headers = {"x-shunt-stream": form} if stream else {}
    answer = ask(world.gateway(), chat(stream, text="héllo"), headers=headers)
    assert (answer.status, answer.text) == (200, "Hello from openai.")
    assert answer.attempts == ["openai:answered"]
    if stream:
        assert_whole_from_one(answer, "openai")
        # Every byte as it came: line ends included.
        assert (b"\r\n\r\n" in answer.raw) == step["crlf"]
    assert asked(world) == ["openai"]


# What is too long to be held.

SMALL = {"max_held_bytes": 1024}


@pytest.mark.parametrize("form", ["whole", "first_token", "complete"])
@pytest.mark.parametrize("size", [2_000, 300_000])
def test_an_answer_beyond_what_is_held_is_released_instead_of_failing(world: World, form: str, size: int) -> None:
    world.fakes["openai"].script(default={"do": "big", "bytes": size})
    stream = form != "whole"
    headers = {"x-shunt-stream": form} if stream else {}
    answer = ask(world.gateway({"limits": SMALL}), stream=stream, headers=headers)
    assert (answer.status, answer.broken, len(answer.text)) == (200, None, size)
    assert answer.attempts == ["openai:answered"]
    if stream:
        answer.assert_whole_stream()
    assert asked(world) == ["openai"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_that_breaks_off_beyond_what_is_held_is_never_ended_cleanly(world: World, stream: bool) -> None:
    step = {"do": "cut", "after": 4, "text": "x" * 20_000, "gap": GAP}
    world.fakes["openai"].script(default=step)
    answer = ask(world.gateway({"limits": SMALL}), stream=stream, headers=COMPLETE if stream else {})
    assert (answer.status, answer.attempts) == (200, ["openai:answered"])
    assert answer.broken == "RemoteProtocolError"
    assert b"[DONE]" not in answer.raw
    assert asked(world) == ["openai"]


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_of_megabytes_is_held_and_fails_over(world: World, stream: bool, http2: bool) -> None:
    """Beyond Envoy's own default of 1 MiB for what it buffers, and beyond a usual window of HTTP/2."""
    world.fakes["openai"].script(default={"do": "cut", "after": 4, "text": "x" * 5_000_000})
    world.fakes["deepseek"].script(default={"do": "big", "bytes": 5_000_000})
    gateway = world.gateway({"limits": {"answer": "15s"}})
    answer = ask(gateway, stream=stream, headers=COMPLETE if stream else {}, http2=http2)
    assert (answer.status, answer.broken, answer.provider) == (200, None, "deepseek")
    assert len(answer.text) == 5_000_000 and "x" not in answer.text
    assert answer.attempts == ["openai:truncated", "deepseek:answered"]
    assert asked(world) == ["openai", "deepseek"]


def test_comments_beyond_what_is_held_do_not_keep_the_answer_back(world: World) -> None:
    step = {"do": "comments", "gap": 0.001, "for": 0.3, "then": {"do": "answer"}}
    world.fakes["openai"].script(default=step)
    answer = ask(world.gateway({"limits": SMALL}), stream=True)
    assert_whole_from_one(answer, "openai")
    assert answer.raw.startswith(b": keep-alive")
    assert asked(world) == ["openai"]


# Limits of a route.


@pytest.mark.parametrize(
    ("limit", "form"), [("first_token", "stream"), ("answer", "whole"), ("answer", "complete")]
)
def test_a_route_may_be_more_patient_than_the_rest(world: World, limit: str, form: str) -> None:
    world.fakes["openai"].script(default={"do": "answer", "delay": 1.2})
    patient = {
        "name": "patient",
        "match": {"path": CHAT, "model": "patient"},
        "providers": ["openai", "deepseek"],
        "limits": {limit: "10s"},
    }
    usual = {"name": "usual", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}
    models = {"*": "gpt-5.4-mini"}
    gateway = world.gateway(
        {
            "providers": {"openai": {"models": models}, "deepseek": {"models": {"*": "deepseek-flash"}}},
            "routes": [patient, usual],
            "limits": {"first_token": "600ms", "answer": "600ms"},
        }
    )
    headers = COMPLETE if form == "complete" else {}
    stream = form != "whole"
    slow = ask(gateway, chat(stream, model="patient"), headers=headers)
    assert (slow.status, slow.text, slow.attempts) == (200, "Hello from openai.", ["openai:answered"])
    fast = ask(gateway, chat(stream), headers=headers)
    assert (fast.status, fast.text) == (200, "Hello from deepseek.")
    assert fast.attempts == ["openai:too_slow", "deepseek:answered"]
    assert asked(world) == ["openai", "openai", "deepseek"]
