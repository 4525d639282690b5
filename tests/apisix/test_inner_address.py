"""`inner` of the configuration names the first inner listener. If it does not, the gateway says so."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import pytest

from server import free_port, release_port
from standin import Standin, Upstream
from support import PROVIDERS, Json, ask, config, fake
from test_outcomes import breaker, status


@pytest.fixture
def fakes() -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(fake.start(name)) for name in PROVIDERS}


@contextlib.contextmanager
def started(fakes: dict[str, Any], inner: str = "", changes: Json | None = None, workers: int = 1) -> Iterator[Standin]:
    """A stand-in whose `inner` is this one; without it, the right one."""
    conf = config({**breaker(1), **(changes or {}), **({"inner": inner} if inner else {})})
    upstreams = {name: Upstream(provider.port) for name, provider in fakes.items()}
    with Standin(conf, upstreams, tell_inner=not inner, workers=workers) as running:
        yield running
        assert running.status() is None, running.log()


@pytest.fixture
def nobody() -> Iterator[str]:
    port = free_port()
    yield f"127.0.0.1:{port}"
    release_port(port)


def seen(fakes: dict[str, Any]) -> list[str]:
    return [name for name, provider in fakes.items() for _ in provider.log()]


WHOLE: list[Json] = [{"stream": False}, {"stream": True, "headers": {"x-shunt-stream": "complete"}}]


@pytest.mark.parametrize("asked", WHOLE, ids=["whole", "complete"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_answer_says_that_nobody_is_at_inner(fakes: Any, nobody: str, asked: Json, workers: int) -> None:
    with started(fakes, nobody, workers=workers) as gateway:
        for _ in range(3):
            answer = ask(gateway, **asked)
            assert (answer.status, answer.error["code"], answer.error["type"]) == (500, "gateway_misconfigured", "server_error")
            assert "inner" in answer.error["message"] and nobody not in answer.raw.decode()
        assert f"whole answers are sent to {nobody}, the `inner` of the configuration, but nobody answers there" in gateway.log()
        # No provider is blamed for it.
        assert "is skipped for" not in gateway.log()
    assert seen(fakes) == []


def test_a_stream_is_served_and_its_try_says_that_inner_is_another_port(fakes: Any, nobody: str) -> None:
    with started(fakes, nobody) as gateway:
        for _ in range(3):
            answer = ask(gateway, stream=True)
            assert (answer.status, answer.attempts) == (200, ["openai:answered"])
        said = f"to {nobody}, the `inner` of the configuration, but the try of a stream has come in on port {gateway.inner[0]}"
        assert gateway.log().count(said) == 1
        assert ask(gateway).status == 500
        assert "nobody answers there" in gateway.log()


def test_nothing_is_said_where_inner_is_right(fakes: Any) -> None:
    fakes["openai"].script(default=status(503))
    with started(fakes) as gateway:
        for stream in (True, False, True):
            assert ask(gateway, stream=stream).status == 200
        assert "`inner`" not in gateway.log()


@pytest.mark.parametrize("step", [{"do": "cut", "after": 0}, {"do": "cut", "after": 1}, {"do": "cut", "after": 0, "how": "fin"}], ids=["reset", "later", "fin"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_provider_that_breaks_its_answer_off_is_still_the_one_that_failed(fakes: Any, step: Json, workers: int) -> None:
    """Also as the first answer that a worker hears of, when it has not called anybody yet."""
    fakes["openai"].script(default=step)
    with started(fakes, workers=workers) as gateway:
        answer = ask(gateway)
        assert (answer.status, answer.attempts[-1]) == (200, "deepseek:answered")
        assert answer.attempts[0] in ("openai:truncated", "openai:unreachable")
        assert "`inner`" not in gateway.log()
    assert seen(fakes) == ["openai", "deepseek"]


def test_all_providers_that_break_their_answers_off_have_failed(fakes: Any) -> None:
    for provider in fakes.values():
        provider.script(default={"do": "cut", "after": 1})
    with started(fakes) as gateway:
        answer = ask(gateway)
        assert (answer.status, answer.error["code"]) == (502, "all_providers_failed")
        assert answer.attempts == [f"{name}:truncated" for name in PROVIDERS]
    assert sorted(seen(fakes)) == sorted(PROVIDERS)


def test_an_error_that_cannot_be_read_for_a_wrong_inner_blames_nobody_and_moves_on(fakes: Any, nobody: str) -> None:
    fakes["openai"].script(default=status(400, "invalid_api_key"))
    with started(fakes, nobody) as gateway:
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.attempts[-1]) == (200, "deepseek:answered")
        assert f"whole answers are sent to {nobody}, the `inner` of the configuration, but nobody answers there" in gateway.log()
        assert "is skipped for" not in gateway.log()
    assert seen(fakes) == ["openai", "deepseek"]


def test_a_call_that_comes_back_to_the_clients_listener_ends_there(fakes: Any) -> None:
    with started(fakes, "placeholder:1") as gateway:
        gateway.config["inner"] = f"127.0.0.1:{gateway.port}"
        gateway.reload_listeners()
        answer = ask(gateway)
        assert (answer.status, answer.error["code"]) == (503, "all_providers_failed")
        assert "a call to it has come back on a listener for clients" in gateway.log()
        answer = ask(gateway, stream=True, headers={"x-shunt-stream": "complete"})
        assert (answer.status, answer.error["code"]) == (503, "all_providers_failed")
    assert seen(fakes) == []


def test_a_call_of_a_stream_that_comes_back_to_the_clients_listener_ends_there(fakes: Any) -> None:
    """The body of an error is read by a call, which itself asks for a stream."""
    fakes["openai"].script(default=status(400, "invalid_api_key"))
    with started(fakes, "placeholder:1") as gateway:
        gateway.config["inner"] = f"127.0.0.1:{gateway.port}"
        gateway.reload_listeners()
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.attempts[-1]) == (200, "deepseek:answered")
        assert "a call to it has come back on a listener for clients" in gateway.log()
    assert seen(fakes) == ["openai", "deepseek"]
