"""Scenarios share an Envoy, one after the other: nothing of one reaches the next, and one that is not as it was is used no more."""

from __future__ import annotations

import json
import socket
from typing import Iterator

import pytest

from accounts import records
from envoys import Envoys
from support import CHAT, Gateway, Json, World, ask, chat, request_head

OPENS: Json = {"breaker": {"consecutive_failures": 1, "open": "60s", "max_open": "60s"}}


@pytest.fixture
def envoys() -> Iterator[Envoys]:
    """No Envoy that any other scenario has used."""
    own = Envoys()
    yield own
    own.close()


def ended(world: World, gateway: Gateway) -> None:
    """Ends a scenario before the test does."""
    world.gateways.remove(gateway)
    gateway.stop()


def test_a_scenario_finds_nothing_of_the_one_before(envoys: Envoys, world: World) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    first = world.gateway({**OPENS, "routes": [{"name": "first", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}]}, envoys=envoys)
    assert ask(first).attempts == ["openai:overloaded", "deepseek:answered"]
    assert ask(first).headers["x-shunt-degraded"] == "openai:open"
    assert [record["route"] for record in records(first, 2)] == ["first", "first"]
    assert first.stat("cluster.openai.upstream_rq_total") == 1
    process, port = first.process, first.port
    ended(world, first)

    second = world.gateway(OPENS, envoys=envoys)
    assert second.process is process
    assert (second.access_log(), second.stat("cluster.openai.upstream_rq_total")) == ([], 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    answer = ask(second)
    # The breaker that the first scenario opened is another one's.
    assert answer.attempts == ["openai:overloaded", "deepseek:answered"] and "x-shunt-degraded" not in answer.headers
    assert [record["route"] for record in records(second, 1)] == ["chat"]
    assert second.stat("cluster.openai.upstream_rq_total") == 1


@pytest.mark.parametrize("left", ["failure", "trap", "death", "request"])
def test_an_envoy_in_which_something_was_left_is_used_no_more(envoys: Envoys, world: World, left: str) -> None:
    first = world.gateway({"limits": {"first_token": "60s"}}, envoys=envoys)
    process = first.process
    assert process is not None
    if left == "failure":
        envoys.spoil("a test has failed")
    elif left == "trap":
        with open(first.log_path, "a") as log:
            log.write("Function: proxy_on_request_headers failed: Uncaught RuntimeError: unreachable\n")
    elif left == "death":
        process.kill()
        process.wait()
    else:
        world.fakes["openai"].script({"do": "hold", "after": 0})
        body = json.dumps(chat(True)).encode()
        client = socket.create_connection(("127.0.0.1", first.port), 5)
        client.sendall(request_head(len(body)) + body)
        world.fakes["openai"].wait_for(holding=1)
    ended(world, first)
    assert process.poll() is not None
    if left == "request":
        client.close()

    second = world.gateway(envoys=envoys)
    assert second.process is not process
    assert ask(second).status == 200
