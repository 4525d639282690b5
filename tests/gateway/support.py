"""What the scenarios share: the configuration that they vary, and a caller that sees everything a client sees."""

from __future__ import annotations

import copy
import http.client
import json
import pathlib
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Iterator, Optional

import httpx

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fake"))

import client as fake  # noqa: E402
from envoys import ENVOYS  # noqa: E402
from gateway import Gateway, Upstream, wait_for  # noqa: E402
from server import PLAIN  # noqa: E402

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
CLIENT_KEY = "sk-client-secret"
#: Each provider in the order of the plan, with the model and path that it must see.
PROVIDERS = {
    "openai": ("gpt-5.4-mini", "/v1/chat/completions"),
    "deepseek": ("deepseek-flash", "/chat/completions"),
    "shareai": ("assistant", "/v1/chat/completions"),
}

BASE: Json = {
    "providers": {
        "openai": {
            "host": "api.openai.test",
            "path_prefix": "/v1",
            "api_key": "$OPENAI_API_KEY",
            # Large enough for every body of the scenarios.
            "models": {"assistant": {"name": "gpt-5.4-mini", "context": 50_000_000}},
        },
        "deepseek": {
            "host": "api.deepseek.test",
            "path_prefix": "/",
            "api_key": "$DEEPSEEK_API_KEY",
            "models": {"assistant": {"name": "deepseek-flash", "context": 100_000_000}},
        },
        "shareai": {"host": "api.shareai.test", "api_key": "$SHAREAI_API_KEY", "models": {"*": "*"}},
    },
    "routes": [
        {"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": ["openai", "deepseek", "shareai"]}
    ],
    # Short, so that a silent provider costs a test one second; longer than anything that should succeed.
    "limits": {"first_token": "1s", "answer": "2s"},
    "breaker": {"open": "1s", "max_open": "4s"},
}


def config(changes: Optional[Json] = None) -> Json:
    """The base configuration with changes: objects are merged, everything else is replaced."""

    def merge(into: Json, changes: Json) -> None:
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    result = copy.deepcopy(BASE)
    merge(result, changes or {})
    return result


def chat(stream: bool = False, model: str = "assistant", text: str = "hello", **more: Any) -> Json:
    """A request as the official client orders its keys."""
    body: Json = {"messages": [{"role": "user", "content": text}], "model": model}
    if stream:
        body["stream"] = True
    return {**body, **more}


@dataclass
class Answer:
    """All that a client saw of one request."""

    status: int
    headers: httpx.Headers
    raw: bytes
    seconds: float
    #: The answer's body broke off: the exception's name.
    broken: Optional[str] = None
    #: Seconds until the first byte of the body.
    first_byte: Optional[float] = None

    @property
    def json(self) -> Json:
        return json.loads(self.raw)

    @property
    def provider(self) -> Optional[str]:
        return self.headers.get("x-shunt-provider")

    @property
    def attempts(self) -> list[str]:
        """`["openai:overloaded", "deepseek:answered"]`"""
        return [attempt for attempt in self.headers.get("x-shunt-attempts", "").split(",") if attempt]

    @property
    def error(self) -> Json:
        error: Json = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        return error

    @property
    def events(self) -> list[Any]:
        """The `data` of each event: parsed, or the text `[DONE]`."""
        blocks = self.raw.decode().replace("\r\n", "\n").split("\n\n")
        datas = [line[5:].strip() for block in blocks for line in block.split("\n") if line.startswith("data:")]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    @property
    def text(self) -> str:
        """What the assistant said, streamed or not."""
        if "text/event-stream" not in self.headers.get("content-type", ""):
            return str(self.json["choices"][0]["message"]["content"])
        choices = [choice for event in self.events if event != "[DONE]" for choice in event.get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    def assert_length(self) -> None:
        """The length that was told is right; where none was, the body came in chunks."""
        told = self.headers.get("content-length")
        assert int(told) == len(self.raw) if told is not None else self.headers["transfer-encoding"] == "chunked"

    def assert_whole_stream(self) -> None:
        """A finished stream: content, a finish reason, `[DONE]` at its end and nowhere else, and no error."""
        assert self.broken is None
        events = self.events
        assert events and events[-1] == "[DONE]" and events.count("[DONE]") == 1, events[-2:]
        chunks = events[:-1]
        assert not any("error" in chunk for chunk in chunks)
        assert any(choice.get("finish_reason") for chunk in chunks for choice in chunk.get("choices", []))


def ask(
    gateway: Gateway,
    body: Any = None,
    *,
    stream: bool = False,
    headers: Optional[Json] = None,
    path: str = CHAT,
    method: str = "POST",
    http2: bool = False,
    timeout: float = 20.0,
    client: Optional[httpx.Client] = None,
) -> Answer:
    """One request through the gateway. `body`: JSON, bytes as they are, or nothing for the usual chat."""
    content = body if isinstance(body, (bytes, bytearray)) else json.dumps(body or chat(stream)).encode()
    sent = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json", **(headers or {})}
    own = client is None
    session = client or httpx.Client(http1=not http2, http2=http2, timeout=timeout, trust_env=False, verify=PLAIN)
    started = time.monotonic()
    raw, broken, first = b"", None, None
    try:
        with session.stream(method, gateway.url + path, content=bytes(content), headers=sent) as response:
            try:
                for piece in response.iter_raw():
                    first = first if first is not None else time.monotonic() - started
                    raw += piece
            except httpx.HTTPError as error:
                broken = type(error).__name__
            return Answer(response.status_code, response.headers, raw, time.monotonic() - started, broken, first)
    finally:
        if own:
            session.close()


#: Every header that may reach a provider, in lower case. Anything else is a leak.
MAY_CROSS = {
    "host",
    ":authority",
    ":method",
    ":path",
    ":scheme",
    "authorization",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "traceparent",
    "tracestate",
    "x-request-id",
    "openai-beta",
}


def assert_provider_view(name: str, seen: Json) -> None:
    """What one provider received is its own: key, host, path, model, and no header that is not on the allowlist."""
    model, path = PROVIDERS[name]
    headers = {key.lower(): value for key, value in seen["headers"]}
    assert len(headers) == len(seen["headers"]), "a header twice"
    assert headers["authorization"] == f"Bearer sk-{name}"
    assert headers.get("host", headers.get(":authority")) == BASE["providers"][name]["host"]
    assert headers["accept-encoding"] == "identity"
    assert set(headers) <= MAY_CROSS, set(headers) - MAY_CROSS
    assert seen["path"] == path
    assert seen["model"] == model
    assert int(headers["content-length"]) == seen["body_length"]
    everything = json.dumps(seen)
    for other in PROVIDERS:
        if other != name:
            assert f"sk-{other}" not in everything, f"{name} received the key of {other}"
    assert CLIENT_KEY not in everything


@dataclass
class World:
    """The fakes and the gateways of one test."""

    fakes: dict[str, Any]
    #: What starts a gateway: Envoy, or in tests/apisix the stand-in for APISIX.
    kind: type[Gateway] = Gateway
    http2: bool = False
    gateways: list[Gateway] = field(default_factory=list)

    def gateway(self, changes: Optional[Json] = None, upstreams: Optional[dict[str, Upstream]] = None, **more: Any) -> Gateway:
        """Starts a gateway on the base configuration with `changes`; `more` are fields of `Gateway`."""
        settings = config(changes)
        if not self.kind.SHARES:
            more.pop("workers", None)
        if issubclass(self.kind, Gateway):
            more.setdefault("envoys", ENVOYS)
        targets = {name: Upstream(self.fakes[name].port, http2=self.http2) for name in settings["providers"] if name in self.fakes}
        targets.update(upstreams or {})
        gateway = self.kind(settings, targets, **more)
        self.gateways.append(gateway)
        return gateway.start()

    def log(self, name: str) -> list[Json]:
        """What one provider received, without what the gateway's server adds of its own."""
        log: list[Json] = self.fakes[name].log()
        for entry in log:
            entry["headers"] = [header for header in entry["headers"] if not self.kind.adds(*header)]
        return log

    def seen(self, name: str) -> list[Json]:
        """The requests that one provider received; each is checked for leaks."""
        log = self.log(name)
        for entry in log:
            if name in PROVIDERS:
                assert_provider_view(name, entry)
        return log

    def counts(self) -> dict[str, int]:
        """How many requests each provider received."""
        return {name: len(self.seen(name)) for name in self.fakes}

    def close(self) -> None:
        for gateway in self.gateways:
            try:
                assert_no_trap(gateway)
            finally:
                gateway.stop()


def assert_no_trap(gateway: Gateway) -> None:
    """The gateway runs and no VM has trapped."""
    log = gateway.log()
    for word in ("panicked", *gateway.TRAPS):
        assert word not in log, log[-3000:]
    assert gateway.process is not None and gateway.process.poll() is None, "the gateway died\n" + log[-3000:]
    for name in ("OPENAI", "DEEPSEEK", "SHAREAI"):
        assert f"sk-{name.lower()}" not in log, "a key in the log"
    assert CLIENT_KEY not in log, "the client's key in the log"


def each(world: World) -> Iterator[tuple[str, Json]]:
    """Every request that any provider received."""
    for name in world.fakes:
        for entry in world.seen(name):
            yield name, entry


__all__ = [
    "Answer", "BASE", "CHAT", "CLIENT_KEY", "Gateway", "PROVIDERS", "Upstream", "World", "ask", "assert_no_trap",
    "assert_provider_view", "chat", "config", "each", "fake", "wait_for",
]


# What the scenarios of outcomes, release, errors and clients share.


def asked(world: World) -> list[str]:
    """The providers in the order in which they were asked; each request is checked for leaks."""
    return [name for name, _ in sorted(each(world), key=lambda one: float(one[1]["time"]))]


def assert_unread_view(name: str, seen: Json) -> None:
    """The same check for a provider that did not read the body: its key, its path, and no header too many."""
    headers = {key.lower(): value for key, value in seen["headers"]}
    assert headers["authorization"] == f"Bearer sk-{name}"
    assert seen["path"] == PROVIDERS[name][1]
    assert set(headers) <= MAY_CROSS, set(headers) - MAY_CROSS
    assert CLIENT_KEY not in json.dumps(seen)


def raw_exchange(gateway: Gateway, request: bytes, timeout: float = 20.0) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes as they are, and reads one answer: status, headers in lower case, body."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()


def request_head(length: Optional[int] = None, *more: str, version: str = "1.1") -> bytes:
    """The head of a chat request as it is on the wire; without a length nothing is said about the body."""
    lines = [f"POST {CHAT} HTTP/{version}", "host: gateway", f"authorization: Bearer {CLIENT_KEY}", *more]
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
