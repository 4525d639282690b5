"""What the scenarios of records, budgets and metrics share: reading records, joining them with what providers saw, working
out what a request costs, and clients that leave."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
from decimal import Decimal
from typing import Any, Callable, Iterable, Iterator, Optional

import h2.config
import h2.connection
import h2.events

from support import CHAT, CLIENT_KEY, Gateway, Json, World, chat, request_head, wait_for

#: How the fakes count: like the vendors, where the package is (see tests/requirements.txt), else by length.
TOKENIZER = "bpe" if importlib.util.find_spec("rs_bpe") else "chars"
#: How far an estimate may be off. It is made for the vendors' vocabulary; four letters are a token only more or less.
SLACK = 0.15 if TOKENIZER == "bpe" else 0.25
TENANT = "x-tenant"
MILLION = 1_000_000
KINDS = ("input", "cached", "cache_write", "output", "reasoning")

#: English prose: what both kinds of counting agree on.
PROSE = (
    "The harbour was quiet in the early morning, and the boats lay so still that the gulls could walk from one to the next. "
    "An old man came down to the water with a basket under his arm, looked at the sky for a while, and shook his head. "
    "There would be rain before noon, he said to nobody in particular, and the road over the hill would be closed again. "
)
SAID = (
    "It depends on what you want to know about the weather on that coast. In spring the wind comes from the west and brings "
    "short showers, which are over before anybody has found an umbrella. In autumn it may rain for days without an end. "
)

# Records


def records(gateway: Gateway, count: int, seconds: float = 20.0) -> list[Json]:
    """All records, once there are `count` of them, and nothing that needs one is under way."""

    def complete() -> bool:
        return gateway.active() == 0 and len(gateway.access_log()) >= count

    try:
        wait_for(complete, seconds, f"{count} records")
    except TimeoutError:
        raise AssertionError(f"{len(gateway.access_log())} records instead of {count}") from None
    found = gateway.access_log()
    assert len(found) == count, found
    return found


def only_record(gateway: Gateway) -> Json:
    (record,) = records(gateway, 1)
    return record


def tokens(usage: Json) -> dict[str, int]:
    """The tokens of a record's usage, without their source."""
    return {kind: usage[kind] for kind in KINDS}


def reported(usage: Json) -> dict[str, int]:
    """What a provider reported, in OpenAI's form, as a record has it."""
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input": usage["prompt_tokens"],
        "cached": prompt.get("cached_tokens", usage.get("prompt_cache_hit_tokens", 0)),
        "cache_write": 0,
        "output": usage["completion_tokens"],
        "reasoning": completion.get("reasoning_tokens", 0),
    }


def assert_estimate(found: Json, spent: Json) -> None:
    """Within 15 percent of what the provider counted, or three tokens where that is more."""
    for kind, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert abs(found[kind] - spent[name]) <= max(3, SLACK * spent[name]), (kind, found, spent)


# Money


def cost(price: Json, usage: Json, windows_hold: bool = False) -> Decimal:
    """What a usage costs at a price without a beginning, exactly. Written from docs/configuration.md."""
    rates = {**price}
    for tier in sorted(price.get("above", []), key=lambda tier: tier["tokens"]):
        if usage["input"] > tier["tokens"]:
            rates = {**price, **tier}
    rate = lambda kind, whole: Decimal(str(rates.get(kind, rates[whole])))  # noqa: E731
    fresh = usage["input"] - usage["cached"] - usage["cache_write"]
    total = (
        rate("input", "input") * fresh
        + rate("cached_input", "input") * usage["cached"]
        + rate("cache_write", "input") * usage["cache_write"]
        + rate("output", "output") * (usage["output"] - usage["reasoning"])
        + rate("reasoning", "output") * usage["reasoning"]
    ) / MILLION + Decimal(str(price.get("request", 0)))
    return total * Decimal(str(price["windows"][0]["multiply"])) if windows_hold else total


# Requests


def named(tenant: str, **more: Any) -> Json:
    """Arguments of `ask` for a tenant, who is named in the prompt, too: so records and providers' logs can be joined."""
    stream = more.pop("stream", False)
    text = more.pop("text", PROSE)
    return {"body": chat(stream, text=f"{tenant}: {text}", **more), "stream": stream, "headers": {TENANT: tenant}}


def by_tenant(found: Iterable[Json]) -> dict[str, Json]:
    """Records by their tenant, of which each has one."""
    result: dict[str, Json] = {}
    for record in found:
        assert record["tenant"] not in result, ("two records", result[record["tenant"]], record)
        result[record["tenant"]] = record
    return result


def provider_logs(world: World) -> dict[tuple[str, str], list[Json]]:
    """What providers saw, by provider and tenant, each in its order."""
    seen: dict[tuple[str, str], list[Json]] = {}
    for name, provider in world.fakes.items():
        for entry in provider.log():
            text = entry["body"]["messages"][0]["content"] if entry["body"] else ""
            seen.setdefault((name, text.partition(":")[0]), []).append(entry)
    return seen


# Clients that leave


@contextlib.contextmanager
def leaving(gateway: Gateway, body: Json, headers: Optional[Json] = None) -> Iterator[Callable[[], bytes]]:
    """A client of HTTP/1.1 that closes its connection when the block ends. The value reads what has come."""
    content = json.dumps(body).encode()
    more = [f"{name}: {value}" for name, value in (headers or {}).items()]
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        connection.sendall(request_head(len(content), "content-type: application/json", *more) + content)
        yield lambda: connection.recv(65536)


@contextlib.contextmanager
def resetting(gateway: Gateway, body: Json, headers: Optional[Json] = None) -> Iterator[Callable[[], bytes]]:
    """A client of HTTP/2 that resets its stream when the block ends, and keeps the connection. The value reads what has come."""
    content = json.dumps(body).encode()
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "gateway")]
    head += [("authorization", f"Bearer {CLIENT_KEY}"), ("content-type", "application/json"), *(headers or {}).items()]
    head += [("content-length", str(len(content)))]
    client.send_headers(1, head)
    client.send_data(1, content, end_stream=True)
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        connection.sendall(client.data_to_send())

        def read() -> bytes:
            while True:
                events = client.receive_data(connection.recv(65536))
                connection.sendall(client.data_to_send())
                came = b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
                if came:
                    return came

        yield read
        client.reset_stream(1, error_code=8)
        connection.sendall(client.data_to_send())
        # The gateway has the reset before it can see the connection's end.
        client.ping(b"together")
        connection.sendall(client.data_to_send())
        done = False
        while not done:
            events = client.receive_data(connection.recv(65536))
            done = any(isinstance(event, h2.events.PingAckReceived) for event in events)
