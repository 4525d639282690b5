"""When a provider is asked again by the same request: after a conflict, and after a failure of which it says when it is back."""

from __future__ import annotations

from typing import Any

import pytest

from support import CHAT, Answer, Json, World, ask, asked

FORMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def status(status: int, **more: Any) -> Json:
    return {"do": "status", "status": status, **more}


def alone(name: str = "openai") -> Json:
    return {"routes": [{"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": [name]}]}


def assert_answered_by(answer: Answer, name: str) -> None:
    assert (answer.status, answer.provider, answer.text) == (200, name, f"Hello from {name}."), answer.raw


# Conflicts.


@FORMS
def test_a_conflict_is_tried_once_more_at_the_same_provider(world: World, stream: bool) -> None:
    world.fakes["openai"].script(status(409, message="The resource is locked."))
    answer = ask(world.gateway(), stream=stream)
    assert_answered_by(answer, "openai")
    assert answer.attempts == ["openai:bad_request", "openai:answered"]
    assert asked(world) == ["openai", "openai"]


@FORMS
def test_a_conflict_that_stays_is_the_clients_and_no_other_provider_is_asked(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=status(409, message="The resource is locked.", code="conflict"))
    gateway = world.gateway({"breaker": {"consecutive_failures": 1}})
    answer = ask(gateway, stream=stream)
    assert (answer.status, answer.error["code"], answer.error["message"]) == (409, "conflict", "The resource is locked.")
    assert set(answer.attempts) == {"openai:bad_request"}
    assert asked(world) == ["openai", "openai"]
    # It is nobody's failure.
    world.fakes["openai"].script(default={"do": "answer"})
    assert ask(gateway, stream=stream).attempts == ["openai:answered"]


# Failures with a wait.


@FORMS
@pytest.mark.parametrize("code", [500, 502, 503, 529])
def test_a_server_that_says_when_it_is_back_is_not_asked_again_at_once(world: World, code: int, stream: bool) -> None:
    world.fakes["openai"].script(default=status(code, headers={"retry-after": "1"}))
    answer = ask(world.gateway(), stream=stream)
    assert_answered_by(answer, "deepseek")
    assert asked(world) == ["openai", "deepseek"]


@FORMS
def test_a_reset_of_a_rate_limit_is_no_wait_of_a_failed_server(world: World, stream: bool) -> None:
    """Some vendors send it with every response."""
    world.fakes["openai"].script(status(500, headers={"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6ms"}))
    answer = ask(world.gateway(), stream=stream)
    assert_answered_by(answer, "openai")
    assert answer.attempts == ["openai:server_error", "openai:answered"]


@FORMS
def test_it_is_waited_for_when_nobody_else_is_left(world: World, stream: bool) -> None:
    world.fakes["openai"].script(status(503, headers={"retry-after": "1"}))
    world.fakes["deepseek"].script(default=status(401))
    world.fakes["shareai"].script(default=status(401))
    answer = ask(world.gateway(), stream=stream)
    assert_answered_by(answer, "openai")
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_key", "shareai:bad_key", "openai:answered"]
    first, second = (entry["time"] for entry in world.seen("openai"))
    assert second - first >= 1.0


@FORMS
def test_a_wait_that_is_too_long_ends_the_request(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=status(503, headers={"retry-after": "30"}))
    answer = ask(world.gateway(alone()), stream=stream)
    assert (answer.status, answer.attempts) == (503, ["openai:overloaded"])
    assert (answer.headers["retry-after"], "x-should-retry" in answer.headers) == ("30", False)
    assert asked(world) == ["openai"]


@FORMS
def test_a_client_is_told_not_to_come_back_while_everybody_is_held_for_longer_than_it_would_wait(world: World, stream: bool) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(429, headers={"retry-after": "3000"}))
    gateway = world.gateway()
    for _ in range(2):
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.headers["x-should-retry"]) == (429, "false")
        assert 2990 <= int(answer.headers["retry-after"]) <= 3000
