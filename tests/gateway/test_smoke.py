"""The main path, end to end: the shortest proof that the gateway works at all."""

from __future__ import annotations

import pytest

from support import World, ask


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_healthy_provider_answers(world: World, stream: bool) -> None:
    answer = ask(world.gateway(), stream=stream)
    assert answer.status == 200
    assert answer.text == "Hello from openai."
    assert answer.headers["x-shunt-provider"] == "openai"
    assert answer.headers["x-shunt-model"] == "gpt-5.4-mini"
    assert answer.headers["x-shunt-policy"] == "priority"
    assert answer.attempts == ["openai:answered"]
    assert "x-shunt-degraded" not in answer.headers
    assert world.counts() == {"openai": 1, "deepseek": 0, "shareai": 0}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_refused_provider_is_followed_by_the_next(world: World, stream: bool) -> None:
    world.fakes["openai"].listen(False)
    answer = ask(world.gateway(), stream=stream)
    assert (answer.status, answer.text) == (200, "Hello from deepseek.")
    assert answer.attempts == ["openai:unreachable", "deepseek:answered"]
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}
