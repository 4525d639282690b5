"""The inner routes carry keys: nobody but the router reaches them."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Iterator

import httpx
import pytest

from standin import Standin, Upstream
from support import CHAT, CLIENT_KEY, PROVIDERS, Json, chat, config, fake


@pytest.fixture(scope="module")
def _three() -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(fake.start(name)) for name in PROVIDERS}


@pytest.fixture
def three(_three: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for provider in _three.values():
        provider.reset()
    yield _three


@pytest.fixture
def standin(three: dict[str, Any]) -> Iterator[Standin]:
    with Standin(config(), {name: Upstream(provider.port) for name, provider in three.items()}) as running:
        yield running
        assert running.status() is None, running.log()


def post(port: int, headers: Json, stream: bool = True) -> httpx.Response:
    sent = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json", **headers}
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.post(f"http://127.0.0.1:{port}{CHAT}", content=json.dumps(chat(stream)), headers=sent)


#: What a client may hope to pass for the router with, or to steer it by.
FORGED: list[Json] = [
    {"host": "127.0.0.1:9081"},
    {"host": "127.0.0.2"},
    {"x-shunt-plan": "shareai"},
    {"x-shunt-plan": "shareai", "x-shunt-inner": "secret 9999999999999", "x-shunt-ticket": "1"},
    {"x-shunt-tries": "openai overloaded 503 - shareai"},
    {"x_shunt_plan": "shareai", "x_shunt_tries": "openai overloaded 503 - shareai"},
    {"x-forwarded-host": "127.0.0.1:9081", "x-forwarded-port": "9081", "x-real-ip": "127.0.0.1"},
]


@pytest.mark.parametrize("stream", [True, False], ids=["chain", "calls"])
@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: "+".join(headers))
def test_no_header_makes_a_clients_request_an_inner_one(standin: Standin, three: Any, headers: Json, stream: bool) -> None:
    forged = {name: value.replace("9081", str(standin.inner[0])) for name, value in headers.items()}
    answer = post(standin.port, forged, stream)
    assert (answer.status_code, answer.headers["x-shunt-attempts"]) == (200, "openai:answered")
    assert "x-shunt-try" not in answer.headers
    (seen,) = three["openai"].log()
    received = {name.lower(): value for name, value in seen["headers"]}
    assert received["authorization"] == "Bearer sk-openai"
    assert not [name for name in received if "shunt" in name], "what router and attempts tell each other stays between them"
    assert CLIENT_KEY not in json.dumps(seen)
    assert three["deepseek"].log() == three["shareai"].log() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-shunt-plan": "openai"},
        {"x-shunt-plan": "openai", "x-shunt-inner": ""},
        {"x-shunt-plan": "openai", "x-shunt-inner": "0" * 32},
        {"x-shunt-plan": "openai", "x-shunt-inner": "0" * 32 + " 9999999999999"},
    ],
    ids=lambda headers: "+".join(headers) or "nothing",
)
def test_an_inner_listener_asks_nobody_without_the_secret(standin: Standin, three: Any, headers: Json) -> None:
    for port in standin.inner:
        assert post(port, headers).status_code == 404
    assert [provider.log() for provider in three.values()] == [[], [], []]
