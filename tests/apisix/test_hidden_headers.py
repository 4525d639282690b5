"""What a provider's response says to the gateway alone reaches no client, also where nginx was to go on and could not."""

from __future__ import annotations

import contextlib
from typing import Iterator

import pytest

from counting import ANSWERED, KINDS, Client, Kind, Provider, Standin, Upstream, config, streamed, whole
from nginx_gateway import Answer

#: Those of `ANSWERED` that no client gets.
SECRET = set(ANSWERED) - {"x-request-id"}

World = tuple[Standin, dict[str, Provider]]


@contextlib.contextmanager
def world(names: list[str]) -> Iterator[World]:
    settings = config({"limits": {"first_token": "15s", "answer": "1m"}, "passthrough": [{"path": "/v1/files*", "provider": names[0]}]})
    entry = settings["providers"]["shareai"]
    settings["providers"] = {name: {**entry, "host": f"{name}.test", "api_key": f"${name.upper()}_KEY"} for name in names}
    settings["routes"][0]["providers"] = names
    providers = {name: Provider() for name in names}
    try:
        with Standin(settings, {name: Upstream(provider.port) for name, provider in providers.items()}) as standin:
            yield standin, providers
    finally:
        for provider in providers.values():
            provider.close()


def headers_of(standin: Standin, kind: Kind) -> tuple[int, set[str]]:
    client = Client(standin.port, kind)
    client.run()
    return client.status, client.headers


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.passes], ids=lambda kind: kind.name)
def test_no_answer_has_a_vendors_headers(kind: Kind) -> None:
    with world(["one", "two"]) as (standin, providers):
        client = Client(standin.port, kind)
        good = streamed(client) if kind.stream else whole()
        if kind.failover:
            providers["one"].script = [Answer(503, ANSWERED)] * 2
            providers["two"].script = [good]
        else:
            providers["one"].script = [good]
        client.run()
        assert client.status == 200
        assert not client.headers & SECRET


@pytest.mark.parametrize("status", [500, 503, 429, 404])
def test_a_failure_of_which_nginx_made_the_last_try_has_no_vendors_headers(status: int) -> None:
    """Eight providers are planned, and nginx makes six tries: the sixth attempt wanted a seventh."""
    names = [f"p{number}" for number in range(8)]
    stream = next(kind for kind in KINDS if kind.stream)
    with world(names) as (standin, providers):
        for provider in providers.values():
            provider.script = [Answer(status, {**ANSWERED, "content-type": "application/json"}, (b"{}",))] * 2
        answered, headers = headers_of(standin, stream)
        assert answered >= 400
        assert "x-shunt-attempts" in headers
        assert sum(len(provider.seen) for provider in providers.values()) == 6
        assert not headers & SECRET


@pytest.mark.parametrize("status", [400, 403])
def test_the_last_try_has_an_error_that_is_not_asked_for_again(status: int) -> None:
    names = [f"p{number}" for number in range(8)]
    with world(names) as (standin, providers):
        for place, provider in enumerate(providers.values()):
            answer = Answer(503 if place < 5 else status, {**ANSWERED, "content-type": "application/json"}, (b'{"error":{"code":"odd"}}',))
            provider.script = [answer] * 2
        answered, headers = headers_of(standin, next(kind for kind in KINDS if kind.stream))
        assert answered == status and "x-shunt-attempts" in headers
        assert not headers & SECRET
