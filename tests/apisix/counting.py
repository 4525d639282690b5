"""Counts what the gateway does for one request of each kind: on the stand-in, callbacks into the filter and calls of the host;
on nginx, its own requests and runs of Lua.

The counts are the same on every machine. For that, a provider sends each event of a stream only when the client has the one
before, so that no two arrive as one piece.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import sys
import threading
import time
from typing import Any, Iterator, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gateway")]

from nginx_gateway import Answer, Provider  # noqa: E402
from server import Json, Upstream, wait_for  # noqa: E402
from standin import Standin  # noqa: E402
from support import config  # noqa: E402

CHAT = "/v1/chat/completions"
#: How many events with content a stream has.
EVENTS = 50
#: The filter writes the audit record of a stream once in this time; a count of one that took longer is not that of another.
NOTE_EVERY = 1.0
#: The counts that are bytes.
BYTES = {"variable_bytes", "from_filter", "to_filter", "lua_bytes"}

#: What the official client sends.
HEADERS = {
    "authorization": "Bearer sk-client",
    "content-type": "application/json",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
    "user-agent": "OpenAI/Python 2.8.0",
    "x-stainless-lang": "python",
    "x-stainless-package-version": "2.8.0",
    "x-stainless-os": "Linux",
    "x-stainless-arch": "x64",
    "x-stainless-runtime": "CPython",
    "x-stainless-retry-count": "0",
}

#: What OpenAI answers with, beside the body.
ANSWERED = {
    "x-request-id": "req_0123456789abcdef0123456789abcdef",
    "openai-organization": "org-0123456789",
    "openai-processing-ms": "412",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "30000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "29999981",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "set-cookie": "__cf_bm=0123456789; path=/; HttpOnly",
    "cf-ray": "0123456789abcdef-FRA",
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=31536000",
    "alt-svc": 'h3=":443"; ma=86400',
}


class Kind(NamedTuple):
    """One kind of request."""

    name: str
    stream: bool = False
    #: The first provider answers 503, and the second one answers.
    failover: bool = False
    #: A passthrough path is asked for.
    passes: bool = False
    #: How long the text of the request is, in bytes.
    text: int = 1000

    @property
    def method(self) -> str:
        return "GET" if self.passes else "POST"

    @property
    def path(self) -> str:
        return "/v1/files" if self.passes else CHAT

    @property
    def body(self) -> bytes:
        if self.passes:
            return b""
        body = {"model": "assistant", "messages": [{"role": "user", "content": "a" * self.text}]}
        return json.dumps({**body, "stream": True} if self.stream else body).encode()


KINDS = (
    Kind("whole"),
    Kind("whole, failover", failover=True),
    Kind("whole, 100 KB asked", text=100_000),
    Kind("stream", stream=True),
    Kind("stream, failover", stream=True, failover=True),
    Kind("passthrough", passes=True),
)


class Client:
    """A client of one request, who knows how many events have come."""

    def __init__(self, port: int, kind: Kind) -> None:
        self.port, self.kind = port, kind
        self.events = 0
        self.status = 0
        #: The names of the answer's headers, in lower case.
        self.headers: set[str] = set()
        self.body = b""
        self._more = threading.Condition()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(self.kind.method, self.kind.path, self.kind.body or None, HEADERS)
            answer = connection.getresponse()
            self.status = answer.status
            self.headers = {name.lower() for name, _ in answer.getheaders()}
            while piece := answer.read1(1 << 16):
                self.body += piece
                with self._more:
                    self.events = self.body.count(b"\n\n")
                    self._more.notify_all()

    def has(self, events: int) -> bool:
        """Waits until this many events have come."""
        with self._more:
            return self._more.wait_for(lambda: self.events >= events, 20)


def chunk(choices: list[Json], **more: Json) -> bytes:
    event = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-5.4-mini"}
    return b"data: " + json.dumps({**event, "choices": choices, **more}).encode() + b"\n\n"


def delta(delta: Json, finish: str | None = None) -> list[Json]:
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


USAGE = {"prompt_tokens": 9, "completion_tokens": 50, "total_tokens": 59}


def streamed(client: Client) -> Answer:
    """A stream, one event after another."""
    # Nothing is released before the first content, so that comes with the event before it.
    first = chunk(delta({"role": "assistant", "content": ""})) + chunk(delta({"content": "word "}))
    pieces: list[object] = [first]
    for sent in range(2, EVENTS + 1):
        pieces += [lambda sent=sent: client.has(sent), chunk(delta({"content": "word "}))]
    pieces += [lambda: client.has(EVENTS + 1), chunk(delta({}, "stop"))]
    # The client has not asked for the usage.
    pieces += [lambda: client.has(EVENTS + 2), chunk([], usage=USAGE) + b"data: [DONE]\n\n"]
    pieces += [lambda: client.has(EVENTS + 3)]
    return Answer(200, {**ANSWERED, "content-type": "text/event-stream; charset=utf-8"}, tuple(pieces))


def whole() -> Answer:
    message = {"role": "assistant", "content": "word " * 200}
    answer = {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-5.4-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    return Answer(200, {**ANSWERED, "content-type": "application/json"}, (json.dumps(answer).encode(),))


OVERLOADED = Answer(503, {**ANSWERED, "content-type": "application/json"}, (b'{"error": {"message": "overloaded"}}',))
FILES = Answer(200, {**ANSWERED, "content-type": "application/json"}, (b'{"object": "list", "data": []}',))


@contextlib.contextmanager
def counted_gateway() -> Iterator[tuple[Standin, dict[str, Provider]]]:
    """A stand-in that counts, and its providers."""
    limits = {"limits": {"first_token": "15s", "answer": "1m"}, "passthrough": [{"path": "/v1/files*", "provider": "openai"}]}
    # However often the first provider fails, it is asked again.
    settings = config({**limits, "breaker": {"consecutive_failures": 65535, "error_rate": 1, "minimum_requests": 1_000_000}})
    providers = {name: Provider() for name in settings["providers"]}
    upstreams = {name: Upstream(provider.port) for name, provider in providers.items()}
    try:
        with Standin(settings, upstreams, count=True) as standin:
            yield standin, providers
    finally:
        for provider in providers.values():
            provider.close()


def ask(port: int, providers: dict[str, Provider], kind: Kind) -> Client:
    """One request, answered as its kind says."""
    client = Client(port, kind)
    good = FILES if kind.passes else streamed(client) if kind.stream else whole()
    providers["openai"].script = [OVERLOADED if kind.failover else good]
    providers["deepseek"].script = [good] if kind.failover else []
    client.run()
    assert client.status == 200, (kind.name, client.status, client.body)
    return client


def ended(standin: Standin, before: int) -> list[Json]:
    """The requests that have ended since there were `before`: each has those that it caused behind or before it."""
    lines = standin.counts()[before:]
    outer = [line for line in lines if line["route"] == "shunt"]
    return lines if outer and len(lines) == len(outer) + sum(line["loopback"] for line in lines) else []


def measure(standin: Standin, providers: dict[str, Provider], kind: Kind) -> dict[str, int]:
    """The counts of one request, its inner hops included, of a worker that has had one of this kind before.

    On a machine that was too busy, pieces of an answer arrive together, and the record of a stream is written once more. So they are
    those of two requests that agree.
    """
    counts: dict[str, int] = {}
    for _ in range(8):
        before = len(standin.counts())
        started = time.monotonic()
        ask(standin.port, providers, kind)
        lines = wait_for(lambda: ended(standin, before), what="the request's hops to end")
        last, counts = counts, {name: sum(line[name] for line in lines) for name in lines[0] if name != "route"}
        # Ids have more or fewer digits.
        differing = {name for name in counts if counts[name] != last.get(name)}
        if differing <= BYTES and time.monotonic() - started < NOTE_EVERY:
            break
    return counts


def measure_all() -> dict[str, dict[str, int]]:
    """The counts of each kind."""
    with counted_gateway() as (standin, providers):
        return {kind.name: measure(standin, providers, kind) for kind in KINDS}


def table(columns: dict[str, dict[str, Any]]) -> str:
    """The counts as a table for a terminal: a line for each count, a column for each kind."""
    names = list(dict.fromkeys(name for counts in columns.values() for name in counts))
    rows = [["", *columns], *([name, *(str(counts.get(name, "")) for counts in columns.values())] for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows)]

    def line(row: list[str]) -> str:
        return "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths)))

    return "\n".join(map(line, rows))


# The table of docs/hosts.md


class Row(NamedTuple):
    """A row of the table: the sum of these counts."""

    label: str
    names: tuple[str, ...]
    #: It is told in thousands of bytes, and differs a little from run to run: a number or a time has a digit more.
    bytes: bool = False

    def value(self, counts: dict[str, int]) -> float:
        total = sum(counts[name] for name in self.names)
        return round(total / 1000, 1) if self.bytes else total

    def agrees(self, told: float, measured: float) -> bool:
        return abs(told - measured) <= (0.2 + told * 0.03 if self.bytes else 0)


HEADERS_CHANGED = ("header_writes", "header_removals")
VARIABLES = ("variable_reads", "variable_writes")
ROWS = (
    Row("requests over the loopback", ("loopback",)),
    Row("callbacks into the filter", ("callbacks",)),
    Row("headers read by name", ("header_reads",)),
    Row("whole header maps read", ("map_reads",)),
    Row("headers written or removed", HEADERS_CHANGED),
    Row("variables read or written", VARIABLES),
    Row("bodies and pieces read", ("buffer_reads",)),
    Row("times read", ("clock_reads",)),
    Row(
        "all calls of the host",
        ("header_reads", "map_reads", *HEADERS_CHANGED, *VARIABLES, "buffer_reads", "clock_reads", "log_lines", "dispatches", "replies"),
    ),
    Row("values handed to the filter", ("blocks",)),
    Row("runs of Lua functions", ("lua_runs",)),
    Row("KB through variables", ("variable_bytes",), bytes=True),
    Row("KB copied between host and filter", ("from_filter", "to_filter"), bytes=True),
    Row("KB copied by Lua functions", ("lua_bytes",), bytes=True),
)

HOSTS = HERE.parents[1] / "docs" / "hosts.md"
#: How the first line of the table begins.
HEAD = "| per request |"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def told() -> dict[str, dict[str, tuple[float, float]]]:
    """What docs/hosts.md says: before and after, by the row's label and the kind's name."""
    lines = HOSTS.read_text().splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith(HEAD)]
    kinds = cells(lines[start])[1:]
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        label, *pairs = cells(line)
        rows[label] = {}
        for kind, pair in zip(kinds, pairs):
            before, after = pair.split(" → ")
            rows[label][kind] = (float(before), float(after))
    return rows


def written(columns: dict[str, dict[str, int]], before: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    """The lines of the table of docs/hosts.md, with the counts of `before` in front."""

    def pair(row: Row, kind: str) -> str:
        first, last = before[row.label][kind][0], row.value(columns[kind])
        return f"{first:.1f} → {last:.1f}" if row.bytes else f"{first:.0f} → {last:.0f}"

    head = [f"{HEAD} {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    return [*head, *(f"| {row.label} | {' | '.join(pair(row, kind) for kind in columns)} |" for row in ROWS)]


def write(columns: dict[str, dict[str, int]]) -> None:
    """Puts these counts into the table of docs/hosts.md; what was before stays."""
    lines = HOSTS.read_text().splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith(HEAD)]
    end = next(place for place in range(start, len(lines) + 1) if place == len(lines) or not lines[place].startswith("|"))
    lines[start:end] = written(columns, told())
    HOSTS.write_text("\n".join(lines) + "\n")
