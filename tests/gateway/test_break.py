"""A live stream that breaks off after its release, where the route says `"on_break": "event"`: its client is told so."""

from __future__ import annotations

import concurrent.futures
import json
from typing import Any

import httpx
import pytest

from accounts import records
from support import CHAT, Answer, Json, World, ask, asked, chat, wait_for
from server import PLAIN

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
#: Between the events of a stream: what comes before the fault has left the provider by then.
GAP = 0.02
PATHS = [CHAT, COMPLETIONS, RESPONSES]
EVENT: Json = {"on_break": "event"}


def routes(stream: Json = EVENT, paths: list[str] = PATHS) -> Json:
    """One route for each path."""
    return {
        "routes": [
            {"name": path, "match": {"path": path, "model": "*"}, "providers": ["openai", "deepseek", "shareai"], "stream": stream}
            for path in paths
        ]
    }


def body(path: str, **more: Any) -> Json:
    """A request of this path that asks for a stream."""
    if path == CHAT:
        return chat(stream=True, **more)
    return {"model": "assistant", "prompt" if path == COMPLETIONS else "input": "hello", "stream": True, **more}


@pytest.mark.parametrize(
    "step",
    [
        pytest.param({"do": "cut", "after": 3, "gap": GAP}, id="reset"),
        pytest.param({"do": "cut", "after": 3, "gap": GAP, "how": "fin"}, id="fin"),
        pytest.param({"do": "stall", "after": 3, "gap": GAP}, id="stall"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_x(world: World, path: str, step: Json) -> None:
    world.fakes["openai"].script(step)
    gateway = world.gateway({**routes(), "limits": {"first_token": "5s"}}, idle=1)
    answer = ask(gateway, body(path), path=path)
    print(answer.status, answer.broken, answer.headers)
    print(answer.raw.decode())
    print(records(gateway, 1))
    print(gateway.log())
    assert 0
