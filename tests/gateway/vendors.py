"""Four vendors that do not speak alike, behind one gateway: what the scenarios of one schema share."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Optional

import pytest

from support import CHAT, CLIENT_KEY, MAY_CROSS, Gateway, Json, World, asked, fake, wait_for

if TYPE_CHECKING:
    # Every scenario reads this file, few need the package, and to import it takes a second.
    from openai import OpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

#: In the order of the plan, with the model and path that each must see. `shareai` imitates OpenAI carelessly.
VENDORS = {
    "openai": ("gpt-5.4-mini", "/v1/chat/completions"),
    "deepseek": ("deepseek-flash", "/chat/completions"),
    "anthropic": ("claude-sonnet-4-6", "/v1/messages"),
    "shareai": ("assistant", "/v1/chat/completions"),
}
#: What is put beside the base configuration.
CONFIG: Json = {
    "providers": {
        "deepseek": {"dialect": "deepseek"},
        "anthropic": {
            "host": "api.anthropic.test",
            "api_key": "$ANTHROPIC_API_KEY",
            "dialect": "anthropic",
            "models": {"assistant": "claude-sonnet-4-6"},
        },
    },
}
OPTIONS: Json = {"api_key": CLIENT_KEY, "max_retries": 0, "timeout": 20}


@dataclass
class Vendors(World):
    """A world with a fourth provider, whose requests are seen in its own way."""

    def serve(self, *names: str, changes: Optional[Json] = None, path: str = CHAT) -> Gateway:
        """A gateway with one route to these providers."""
        routes = [{"name": "it", "match": {"path": path}, "providers": list(names)}]
        settings = json.loads(json.dumps(CONFIG))
        for name, provider in (changes or {}).get("providers", {}).items():
            settings["providers"].setdefault(name, {}).update(provider)
        rest = {key: value for key, value in (changes or {}).items() if key != "providers"}
        return self.gateway({**settings, "routes": routes, **rest})

    def seen(self, name: str) -> list[Json]:
        """The requests of one provider, each with its own key and with nothing of anybody else's."""
        log = self.log(name)
        for entry in log:
            self._assert_own(name, {key: value for key, value in entry.items() if key != "step"})
        return log

    def _assert_own(self, name: str, entry: Json) -> None:
        headers = {key.lower(): value for key, value in entry["headers"]}
        assert len(headers) == len(entry["headers"]), "a header twice"
        host = f"api.{name}.test"
        assert headers.get("host", headers.get(":authority")) == host
        allowed = MAY_CROSS
        if name == "anthropic":
            assert headers["x-api-key"] == "sk-anthropic"
            assert headers["anthropic-version"] == "2023-06-01"
            allowed = MAY_CROSS - {"authorization"} | {"x-api-key", "anthropic-version"}
        elif "api-key" not in headers:
            assert headers["authorization"] == f"Bearer sk-{name}"
        assert set(headers) <= allowed | self.more_headers, set(headers) - allowed
        if "content-length" in headers:
            assert int(headers["content-length"]) == entry["body_length"]
        everything = json.dumps(entry)
        for other in self.fakes:
            assert other == name or f"sk-{other}" not in everything, f"{name} received the key of {other}"
        assert CLIENT_KEY not in everything

    #: Headers that a test's own configuration adds.
    more_headers: frozenset[str] = frozenset()

    def bodies(self, name: str) -> list[Json]:
        """What one provider was asked, in order. Nobody has refused anything for its form."""
        log = self.seen(name)
        assert [entry["refused"] for entry in log] == [None] * len(log)
        return [entry["body"] for entry in log]

    def close(self) -> None:
        for gateway in self.gateways:
            assert "sk-anthropic" not in gateway.log()
        super().close()


@pytest.fixture(scope="session")
def _more_fakes() -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {
            "openai": stack.enter_context(fake.start("openai", strict=True)),
            "anthropic": stack.enter_context(fake.start("anthropic", dialect="anthropic")),
        }


@pytest.fixture
def vendors(
    _http1_fakes: dict[str, Any], _more_fakes: dict[str, Any], gateway_kind: type[Gateway]
) -> Iterator[Vendors]:
    """Four providers; that of OpenAI refuses what OpenAI would refuse."""
    fakes = {name: _more_fakes.get(name) or _http1_fakes[name] for name in VENDORS}
    for provider in fakes.values():
        provider.reset()
    world = Vendors(fakes, gateway_kind)
    try:
        yield world
    finally:
        for provider in fakes.values():
            provider.release()
        world.close()


# What a client sees.


@contextlib.contextmanager
def client_of(gateway: Gateway) -> Iterator[OpenAI]:
    from openai import OpenAI

    with OpenAI(base_url=gateway.url + "/v1", **OPTIONS) as client:
        yield client


def completion_of(raw: bytes) -> ChatCompletion:
    """A whole answer, of which every field is there and has its type."""
    from openai.types.chat import ChatCompletion

    return ChatCompletion.model_validate(json.loads(raw), strict=True)


def chunks_of(raw: bytes) -> list[ChatCompletionChunk]:
    """The chunks of a finished stream, of which every field is there and has its type."""
    from openai.types.chat import ChatCompletionChunk

    *events, end, rest = raw.decode().replace("\r\n", "\n").split("\n\n")
    assert (end, rest) == ("data: [DONE]", ""), raw[-300:]
    chunks = []
    for event in events:
        assert event.startswith("data: ") and "\n" not in event, event
        chunks.append(ChatCompletionChunk.model_validate(json.loads(event[6:]), strict=True))
    assert len({chunk.id for chunk in chunks}) == 1
    return chunks


def record_of(gateway: Gateway, number: int = 1) -> Json:
    """The audit record of the last of so many requests, once all are written."""
    wait_for(lambda: len(gateway.access_log()) >= number, what="the access log")
    lines = gateway.access_log()
    assert len(lines) == number
    line: Json = lines[-1]
    return line


__all__ = [
    "CHAT", "OPTIONS", "VENDORS", "Vendors", "_more_fakes", "asked", "chunks_of", "client_of", "completion_of", "record_of",
    "vendors",
]  # fmt: skip
