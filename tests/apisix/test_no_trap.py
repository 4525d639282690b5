"""Nothing that the host answers can trap the filter, or have it pause when that would end the worker.

Each row of the stand-in's fault table (`standin --faults` says what it stands for) runs against the real filter, with requests
of every kind. What the clients get under such faults is not the point: the worker lives, and nobody gets another's key.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import subprocess
from typing import Any, Iterator

import pytest

from standin import Standin, Upstream, standin_binary
from support import CHAT, CLIENT_KEY, PROVIDERS, Json, chat, config, fake

#: A body that every answer of a fake provider can be asked with.
PASS = "/v1/files/f1"


@functools.cache
def faults() -> list[str]:
    try:
        listed = subprocess.run([standin_binary(), "--faults"], capture_output=True, text=True, check=True, timeout=20)
    except RuntimeError:
        return []
    return [line.split("\t")[0] for line in listed.stdout.splitlines()]


def key_auth(_settings: Json, routes: Json) -> None:
    """Client authentication in front: who is not let in has response callbacks and no request callbacks."""
    routes["routes"][0]["plugins"] = {"key-auth": {"header": "apikey"}}
    routes["consumers"] = [{"username": "team", "plugins": {"key-auth": {"key": "let-me-in"}}}]


def requests() -> list[bytes]:
    """Requests as they are on the wire: good and bad, whole, streamed, complete, passed on, told by the gateway itself."""

    def post(body: bytes, *more: str, path: str = CHAT, version: str = "1.1", host: str = "host: gateway") -> bytes:
        lines = [f"POST {path} HTTP/{version}", host, "apikey: let-me-in", f"authorization: Bearer {CLIENT_KEY}"]
        lines += ["connection: close", "content-type: application/json", f"content-length: {len(body)}", *more]
        return ("\r\n".join(line for line in lines if line) + "\r\n\r\n").encode() + body

    def get(path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nhost: gateway\r\napikey: let-me-in\r\nconnection: close\r\n\r\n".encode()

    whole, stream = json.dumps(chat()).encode(), json.dumps(chat(True)).encode()
    many = [f"x-header-{number}: x" for number in range(130)]
    return [
        post(whole),
        post(stream),
        post(stream, "x-shunt-stream: complete"),
        post(stream, "x-shunt-stream: nonsense"),
        post(whole, *many),
        post(stream, *many),
        post(whole, version="1.0", host=""),
        post(stream, version="1.0", host=""),
        post(b""),
        post(b"{"),
        post(whole, path="/v1/nowhere"),
        get("/v1/models"),
        get(CHAT),
        get(PASS),
        # Not let in.
        post(stream).replace(b"let-me-in", b"nobody"),
    ]


def send(standin: Standin, request: bytes) -> bytes:
    """The answer, however far it comes."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", standin.port), 5) as connection:
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
    except OSError:
        pass
    return answer


#: What the first provider does, so that every way through the filter is taken: it answers; moves on; is asked why; breaks.
STEPS: list[Json] = [
    {"do": "answer"},
    {"do": "status", "status": 503},
    {"do": "status", "status": 400, "code": "invalid_api_key"},
    {"do": "cut", "after": 3},
]


def drive(world: Any, *fault: str) -> None:
    changes: Json = {
        "passthrough": [{"path": "/v1/files*", "provider": "openai"}],
        "tenant": {"header": "x-consumer-username", "known": ["team"]},
        "budgets": [{"name": "each", "match": {"tenant": "*"}, "limit": 5, "per": "day"}],
        "breaker": {"consecutive_failures": 1000},
        "holds": {"bad_key": "100ms", "rate_limited": "100ms"},
    }
    settings = config(changes)
    targets = {name: Upstream(world[name].port) for name in PROVIDERS}
    with Standin(settings, targets, faults=fault, edit=key_auth) as standin:
        for step in STEPS:
            world["openai"].script(default=step)
            for request in requests():
                answer = send(standin, request)
                assert standin.status() is None, f"the worker died:\n{standin.log()[-2000:]}"
                assert b"sk-" not in answer.replace(CLIENT_KEY.encode(), b""), "a key in an answer"
        log = standin.log()
        for word in ("FATAL", "TRAP", "panicked"):
            assert word not in log, log[-3000:]
        assert "sk-openai" not in log and CLIENT_KEY not in log
    for name in PROVIDERS:
        for seen in world[name].log():
            told = json.dumps(seen)
            assert CLIENT_KEY not in told, f"{name} received the client's key under {fault}"
            assert not any(f"sk-{other}" in told for other in PROVIDERS if other != name), f"{name} received another's key"


@pytest.fixture(scope="module")
def _three() -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(fake.start(name, dialect="deepseek" if name == "deepseek" else "openai"))
            for name in PROVIDERS
        }


@pytest.fixture
def three(_three: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The three fake providers."""
    for provider in _three.values():
        provider.reset()
    yield _three
    for provider in _three.values():
        provider.release()


def test_the_requests_reach_every_way_through_the_filter(three: Any) -> None:
    drive(three)
    paths = {seen["path"] for name in PROVIDERS for seen in three[name].log()}
    assert {PASS, "/v1/chat/completions", "/chat/completions"} <= paths


@pytest.mark.parametrize("fault", faults())
def test_no_answer_of_the_host_traps(three: Any, fault: str) -> None:
    drive(three, fault)
