"""`limits.total`: how long a request may take over all of its attempts."""

from __future__ import annotations

import pytest

from support import CHAT, Json, World, ask, asked

#: One attempt may take a second, and a request one and a half.
LIMITS = {"first_token": "1s", "answer": "1s"}
ROUTE = {"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": ["openai", "deepseek", "shareai"]}
LIMITED: Json = {"limits": LIMITS, "routes": [{**ROUTE, "limits": {"total": "1500ms"}}]}
COMPLETE = {"x-shunt-stream": "complete"}

FORMS = [
    pytest.param(False, {}, id="whole"),
    pytest.param(True, {}, id="first_token"),
    pytest.param(True, COMPLETE, id="complete"),
]


@pytest.mark.parametrize("stream, headers", FORMS)
def test_no_attempt_begins_after_the_requests_time_and_the_client_hears_what_each_came_to(world: World, stream: bool, headers: Json) -> None:
    for name in ("openai", "deepseek"):
        world.fakes[name].script(default={"do": "silent"})
    answer = ask(world.gateway(LIMITED), stream=stream, headers=headers)
    assert (answer.status, answer.error["code"]) == (504, "all_providers_failed"), answer.raw
    assert answer.attempts == ["openai:too_slow", "deepseek:too_slow"]
    assert [part.split(" after ")[0] for part in answer.error["message"].split(": ", 1)[1].split(", ")] == [
        "openai: too_slow",
        "deepseek: too_slow",
    ]
    assert asked(world) == ["openai", "deepseek"]


@pytest.mark.parametrize("stream, headers", FORMS)
def test_the_last_attempt_has_only_the_time_that_is_left(world: World, stream: bool, headers: Json) -> None:
    """The second provider would answer within its own limit, but not within what the first one has left of the request's."""
    world.fakes["openai"].script(default={"do": "silent"})
    world.fakes["deepseek"].script(default={"do": "answer", "delay": 0.8})
    gateway = world.gateway(LIMITED)
    answer = ask(gateway, stream=stream, headers=headers)
    assert (answer.status, answer.attempts) == (504, ["openai:too_slow", "deepseek:too_slow"]), answer.raw
    assert asked(world) == ["openai", "deepseek"]
    # The provider was not to blame, and answers the next request, which has more time for it.
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    answer = ask(gateway, stream=stream, headers=headers)
    assert (answer.status, answer.attempts) == (200, ["openai:overloaded", "deepseek:answered"])


def test_an_attempt_that_is_withheld_ends_with_the_requests_time(world: World) -> None:
    """Its head and a part of its text are here by then."""
    world.fakes["openai"].script(default={"do": "silent"})
    world.fakes["deepseek"].script(default={"do": "stall", "after": 2})
    answer = ask(world.gateway(LIMITED), stream=True, headers=COMPLETE)
    assert (answer.status, answer.attempts) == (504, ["openai:too_slow", "deepseek:too_slow"]), answer.raw
    assert b"Hello" not in answer.raw
    assert asked(world) == ["openai", "deepseek"]


def test_a_stream_that_was_released_in_time_is_not_cut(world: World) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["deepseek"].script(default={"do": "answer", "gap": 0.5})
    answer = ask(world.gateway(LIMITED), stream=True)
    assert (answer.status, answer.text) == (200, "Hello from deepseek.")
    answer.assert_whole_stream()
    assert answer.seconds > 1.5


def test_requests_with_and_without_a_limit_are_served_side_by_side(world: World) -> None:
    """A deadline of one request ends no other one."""
    for name in ("openai", "deepseek"):
        world.fakes[name].script(default={"do": "silent"})
    free = {**ROUTE, "name": "free", "match": {"path": CHAT, "model": "gpt-5.4-mini"}}
    providers: Json = {"deepseek": {"models": {"gpt-5.4-mini": "deepseek-flash"}}}
    gateway = world.gateway({**LIMITED, "routes": [free, *LIMITED["routes"]], "providers": providers})
    answer = ask(gateway, {"model": "gpt-5.4-mini", "messages": []})
    assert (answer.status, answer.attempts[-1]) == (200, "shareai:answered"), answer.raw
    assert ask(gateway).attempts == ["openai:too_slow", "deepseek:too_slow"]
