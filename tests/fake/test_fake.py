"""Proves on the wire that the fake provider does what its vocabulary promises.

One table of expectations is checked over HTTP/1.1 and over HTTP/2. The clients
here are as bare as possible, since a proper HTTP library hides the very faults
that are to be seen.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from behaviour import REGISTRY
from client import PROGRAM, ControlError, FakeProvider, start

h2_connection = pytest.importorskip("h2.connection")
h2_config = pytest.importorskip("h2.config")
h2_events = pytest.importorskip("h2.events")

COMPLETE, RESET, FIN, OPEN = "complete", "reset", "fin", "open"
LOGGED = {
    COMPLETE: "complete",
    RESET: "fault",
    FIN: "fault",
    OPEN: "aborted_by_peer",
}
PATIENCE = 5.0  # for what has to happen
SHORT = 0.1  # for what must not happen

CHAT = "/v1/chat/completions"
HELLO = "Hello from openai."
MESSAGES = [{"role": "user", "content": "How are you?"}]


# What a client sees. ---------------------------------------------------------


@dataclass
class Seen:
    """A response, and how it ended."""

    status: Optional[int] = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: int = 0
    outcome: str = OPEN

    def header(self, name: str) -> Optional[str]:
        return next((v for k, v in self.headers if k.lower() == name), None)

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The JSON of a document or of all complete events."""
        plain = self.body
        if self.header("content-encoding") == "gzip":
            plain = zlib.decompress(plain, zlib.MAX_WBITS | 16)
        if "event-stream" not in (self.header("content-type") or ""):
            return [json.loads(plain)]
        return [
            json.loads(data)
            for data in (
                event.partition(b"data: ")[2]
                for event in plain.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]
            )
            if data and data != b"[DONE]"
        ]

    def facts(self) -> dict[str, Any]:
        """What the answer says, the same for a document and for a stream."""
        facts: dict[str, Any] = {
            "text": "",
            "reasoning": "",
            "refusal": "",
            "deltas": 0,
        }
        facts["done"] = self.body.rstrip().endswith(b"data: [DONE]")
        for document in self.documents:
            if document.get("usage"):
                facts["usage"] = document["usage"]
            if "error" in document:
                facts["error"] = document["error"]["code"]
            for choice in document.get("choices", []):
                said = choice.get("delta") or choice.get("message") or choice
                text = said.get("content") or said.get("text") or ""
                facts["text"] += text
                facts["deltas"] += bool(text)
                facts["reasoning"] += said.get("reasoning_content") or ""
                facts["refusal"] += said.get("refusal") or ""
                for call in said.get("tool_calls", []):
                    more = call["function"].get("arguments") or ""
                    facts["arguments"] = facts.get("arguments", "") + more
                    facts["tool"] = call["function"].get("name") or facts.get("tool")
                if choice["finish_reason"]:
                    facts["finish"] = choice["finish_reason"]
        return facts


class Http1Client:
    """Sends one request at a time over one connection."""

    def __init__(
        self, fake: FakeProvider, tls: Optional[ssl.SSLContext] = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", fake.port), timeout=5)
        if tls:
            self.socket = tls.wrap_socket(self.socket, suppress_ragged_eofs=False)
        self._received = b""

    def ask(self, body: dict[str, Any], path: str = CHAT) -> None:
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: fake\r\nContent-Length: {len(payload)}"
        self.socket.sendall(head.encode() + b"\r\n\r\n" + payload)

    def see(self, patience: float = PATIENCE) -> Seen:
        deadline = time.monotonic() + patience
        while True:
            seen = self._parse()
            if seen.outcome == COMPLETE:
                return seen
            outcome, data = receive(self.socket, deadline)
            if outcome:
                seen.outcome = outcome
                return seen
            self._received += data

    def _parse(self) -> Seen:
        """Understand what was received so far, and remove it if it is complete."""
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank or not head.startswith(b"HTTP/1.1 "):
            return Seen()
        lines = head.decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        seen = Seen(int(lines[0].split(" ")[1]), headers)
        if seen.header("transfer-encoding") == "chunked":
            while True:
                size, line_end, after = rest.partition(b"\r\n")
                if not line_end or len(after) < int(size, 16) + 2:
                    return seen
                length = int(size, 16)
                rest = after[length + 2 :]
                if length == 0:
                    break
                seen.body += after[:length]
                seen.chunks += 1
        else:
            length = int(seen.header("content-length") or 0)
            seen.body, rest = rest[:length], rest[length:]
            if len(seen.body) < length:
                return seen
        self._received = rest
        seen.outcome = COMPLETE
        return seen

    def close(self) -> None:
        self.socket.close()


class Http2Client:
    """The same over HTTP/2, with one stream at a time."""

    def __init__(
        self, fake: FakeProvider, tls: Optional[ssl.SSLContext] = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", fake.port), timeout=5)
        if tls:
            self.socket = tls.wrap_socket(self.socket, suppress_ragged_eofs=False)
        self.h2 = h2_connection.H2Connection(
            h2_config.H2Configuration(header_encoding="latin-1")
        )
        self.h2.initiate_connection()
        self.goaway = False

    def ask(self, body: dict[str, Any], path: str = CHAT) -> int:
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "fake")]
        self.h2.send_headers(stream, [*pseudo, (":path", path)])
        payload = json.dumps(body).encode()
        for start_ in range(0, len(payload), self.h2.max_outbound_frame_size):
            self.h2.send_data(
                stream, payload[start_:][: self.h2.max_outbound_frame_size]
            )
        self.h2.end_stream(stream)
        self.socket.sendall(self.h2.data_to_send())
        return stream

    def see(self, patience: float = PATIENCE) -> Seen:
        deadline = time.monotonic() + patience
        seen = Seen()
        broken = False
        while seen.outcome == OPEN:
            outcome, data = receive(self.socket, deadline)
            if outcome:
                seen.outcome = RESET if broken else outcome
                break
            for event in self.h2.receive_data(data):
                self._take(event, seen)
            try:
                self.socket.sendall(self.h2.data_to_send())
            except OSError:
                broken = True  # but what was received before can still be read
        return seen

    def _take(self, event: Any, seen: Seen) -> None:
        if isinstance(event, h2_events.ResponseReceived):
            seen.status = int(dict(event.headers)[":status"])
            seen.headers = list(event.headers)
        elif isinstance(event, h2_events.DataReceived):
            seen.body += event.data
            seen.chunks += bool(event.data)
            length = event.flow_controlled_length
            self.h2.acknowledge_received_data(length, event.stream_id)
        elif isinstance(event, h2_events.StreamEnded):
            seen.outcome = COMPLETE
        elif isinstance(event, h2_events.StreamReset):
            seen.outcome = RESET
        elif isinstance(event, h2_events.ConnectionTerminated):
            self.goaway = True

    def close(self) -> None:
        self.socket.close()


def receive(sock: socket.socket, deadline: float) -> tuple[Optional[str], bytes]:
    """Some bytes, or what came instead of them."""
    sock.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        data = sock.recv(1 << 16)
    except (TimeoutError, ssl.SSLWantReadError):
        return OPEN, b""
    except (ConnectionError, ssl.SSLEOFError):
        return RESET, b""  # to OpenSSL a RST is an end without close_notify
    return (None, data) if data else (FIN, b"")


CLIENTS: dict[str, type[Union[Http1Client, Http2Client]]] = {"http1": Http1Client, "http2": Http2Client}


# Fixtures. -------------------------------------------------------------------


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[str, FakeProvider]]:
    with start("openai") as one, start("openai", http2=True) as two:
        yield {"http1": one, "http2": two}


@pytest.fixture(params=["http1", "http2"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fake(fakes: dict[str, FakeProvider], protocol: str) -> FakeProvider:
    fakes[protocol].reset()
    return fakes[protocol]


@pytest.fixture
def http1(fakes: dict[str, FakeProvider]) -> FakeProvider:
    fakes["http1"].reset()
    return fakes["http1"]


@pytest.fixture
def http2(fakes: dict[str, FakeProvider]) -> FakeProvider:
    fakes["http2"].reset()
    return fakes["http2"]


def chat(stream: bool = False, **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-x", "messages": MESSAGES, **more}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    return body


def exchange(
    fake: FakeProvider,
    protocol: str,
    body: dict[str, Any],
    path: str = CHAT,
    patience: float = PATIENCE,
) -> Seen:
    """One request on a connection of its own."""
    client = CLIENTS[protocol](fake)
    try:
        client.ask(body, path)
        return client.see(patience)
    finally:
        client.close()


# The table. ------------------------------------------------------------------

# fmt: off
Row = tuple[dict[str, Any], bool, str, dict[str, Any]]
ROWS: list[Row] = []
STREAM, WHOLE = True, False


def row(
    stream: bool, outcome: str, do: str, expected: dict[str, Any], **step: Any
) -> None:
    """A request with or without ``stream``, its fate, and what is received."""
    ROWS.append(({"do": do, **step}, stream, outcome, expected))


GOOD_STREAM = {
    "status": 200, "text": HELLO, "finish": "stop", "done": True, "deltas": 5
}
GOOD_WHOLE = {"status": 200, "text": HELLO, "finish": "stop", "done": False}
NOTHING = {"status": None, "body": b""}

row(STREAM, COMPLETE, "answer", {**GOOD_STREAM, "has_usage": True})
row(WHOLE, COMPLETE, "answer", {**GOOD_WHOLE, "has_usage": True})
row(STREAM, COMPLETE, "answer", {"deltas": 200}, chunks=200)
row(STREAM, COMPLETE, "answer", {"text": "Tschüß", "deltas": 2},
    text="Tschüß", chunks=2)
row(STREAM, COMPLETE, "tool_call",
    {"finish": "tool_calls", "tool": "get_weather", "arguments": '{"city":"Paris"}'})
row(WHOLE, COMPLETE, "tool_call",
    {"finish": "tool_calls", "tool": "get_weather", "arguments": '{"city":"Paris"}'})
row(STREAM, COMPLETE, "reasoning",
    {**GOOD_STREAM, "reasoning": "Let me think about it."})
row(WHOLE, COMPLETE, "reasoning",
    {**GOOD_WHOLE, "reasoning": "Let me think about it."})
row(STREAM, COMPLETE, "refusal",
    {"finish": "stop", "text": "", "refusal": "I cannot help with that."})
row(WHOLE, COMPLETE, "refusal",
    {"finish": "stop", "text": "", "refusal": "I cannot help with that."})
row(STREAM, COMPLETE, "empty_finish", {"text": "", "finish": "stop", "done": True})
row(WHOLE, COMPLETE, "empty_finish", {"text": "", "finish": "stop"})
row(STREAM, COMPLETE, "finish_reason", {"finish": "content_filter", "done": True},
    reason="content_filter")
row(WHOLE, COMPLETE, "finish_reason", {"finish": "length"})
row(STREAM, COMPLETE, "big", {"text_length": 300_000, "deltas": 5}, bytes=300_000)
row(WHOLE, COMPLETE, "big", {"text_length": 300_000}, bytes=300_000)
row(STREAM, OPEN, "hold", {"deltas": 1, "done": False})
row(WHOLE, OPEN, "hold", NOTHING)
row(STREAM, COMPLETE, "drip", {**GOOD_STREAM, "one_by_one": True}, gap=0)
row(WHOLE, COMPLETE, "drip", GOOD_WHOLE, gap=0)
row(WHOLE, OPEN, "drip", {"status": 200, "few_bytes": True})
row(STREAM, COMPLETE, "split", {**GOOD_STREAM, "one_by_one": True})
row(STREAM, COMPLETE, "split", {**GOOD_STREAM, "contains": b"\r\n\r\ndata"},
    size=7, crlf=True)
row(STREAM, COMPLETE, "gzip", {**GOOD_STREAM, "done": False, "starts": b"\x1f\x8b"})
row(WHOLE, COMPLETE, "gzip", {**GOOD_WHOLE, "starts": b"\x1f\x8b"})
row(STREAM, COMPLETE, "whole_for_stream", {**GOOD_WHOLE, "type": "application/json"})
row(WHOLE, COMPLETE, "stream_for_whole",
    {**GOOD_STREAM, "type": "text/event-stream; charset=utf-8"})
row(STREAM, COMPLETE, "bad_headers", {**GOOD_STREAM, "forged": True})
row(WHOLE, COMPLETE, "bad_headers", {**GOOD_WHOLE, "forged": True})
row(STREAM, COMPLETE, "no_done", {**GOOD_STREAM, "done": False})
row(STREAM, COMPLETE, "status",
    {"status": 429, "error": "slow_down", "retry-after": "1"},
    status=429, code="slow_down", headers={"retry-after": "1"})
row(WHOLE, COMPLETE, "status", {"status": 503, "error": None}, status=503)
row(WHOLE, COMPLETE, "status", {"status": 500, "body": b"oops"}, body="oops")
row(WHOLE, COMPLETE, "status", {"status": 400, "body": b'{"a":[1]}'},
    status=400, body={"a": [1]})
row(STREAM, COMPLETE, "html",
    {"status": 502, "starts": b"<!DOCTYPE html>", "type": "text/html; charset=utf-8"})
row(WHOLE, COMPLETE, "redirect",
    {"status": 302, "location": "http://fake/elsewhere", "body": b""})
row(STREAM, COMPLETE, "error_json_200",
    {"status": 200, "error": "quota", "type": "application/json"}, code="quota")
row(STREAM, COMPLETE, "error_event_200",
    {"status": 200, "error": "overload", "chunks": 1, "done": False}, code="overload")
row(STREAM, COMPLETE, "error_event_200",
    {"deltas": 2, "error": "server_error", "contains": b"event: error\ndata: ",
     "done": True}, after=2, event=True, done=True)
row(STREAM, COMPLETE, "error_event_200", {"deltas": 0, "chunks": 2}, role=True)
row(STREAM, COMPLETE, "response_failed",
    {"status": 200, "deltas": 1, "error": "overload", "done": False},
    after=1, code="overload")
row(WHOLE, COMPLETE, "response_failed", {"status": 200, "error": "server_error"})
row(STREAM, COMPLETE, "sloppy", {**GOOD_STREAM, "finish": "eos"}, finish="eos")
row(WHOLE, COMPLETE, "sloppy", {**GOOD_WHOLE, "finish": "MAX_TOKENS"},
    finish="MAX_TOKENS")
row(STREAM, COMPLETE, "malformed_event",
    {"broken": True, "contains": b'\n\ndata: {"choices":[{"delta":\n\n'})
row(STREAM, COMPLETE, "split_event", {"broken": True, "contains": b"\n\ndata: :"})
row(WHOLE, COMPLETE, "split_event", GOOD_WHOLE)
row(STREAM, COMPLETE, "sloppy", {"finish": "tool_calls", "done": True,
    "contains": b'"function":{"arguments":""}}'},
    tool=True, miss=["tool_id_first"])
row(STREAM, COMPLETE, "leading_blank", {**GOOD_STREAM, "starts": b"\n\n"})
row(WHOLE, COMPLETE, "leading_blank", {**GOOD_WHOLE, "starts": b" \n\t{"},
    blank=" \n\t")
row(WHOLE, COMPLETE, "early", {"status": 500, "error": None})
row(STREAM, COMPLETE, "garbage",
    {"status": 200, "length": 512, "type": "text/event-stream; charset=utf-8"})
row(WHOLE, COMPLETE, "garbage",
    {"status": 200, "length": 512, "type": "application/json"})
row(STREAM, COMPLETE, "empty_200", {"status": 200, "body": b"", "content-length": "0"})
row(STREAM, COMPLETE, "empty_stream",
    {"status": 200, "body": b"", "content-length": None})
row(STREAM, COMPLETE, "done_only", {"status": 200, "body": b"data: [DONE]\n\n"})
row(WHOLE, FIN, "http_garbage", NOTHING)
row(STREAM, OPEN, "silent", NOTHING)
row(STREAM, FIN, "silent", NOTHING, **{"for": 0.02})
row(STREAM, OPEN, "headers_only",
    {"status": 200, "body": b"", "type": "text/event-stream; charset=utf-8"})
row(WHOLE, OPEN, "headers_only",
    {"status": 200, "body": b"", "type": "application/json", "content-length": None})
row(STREAM, OPEN, "comments", {"status": 200, "starts": b": keep-alive\n\n" * 2},
    gap=0.02)
row(WHOLE, OPEN, "comments", {"status": 200, "starts": b"\n\n"}, gap=0.02)
row(STREAM, COMPLETE, "comments", {"starts": b": keep-alive\n\n", "done": True},
    gap=0.02, then={"do": "answer"}, **{"for": 0.03})
row(WHOLE, COMPLETE, "comments", {**GOOD_WHOLE, "starts": b"\n\n{"},
    gap=0.02, then={"do": "answer"}, **{"for": 0.03})
row(STREAM, FIN, "comments", {"status": 200}, **{"for": 0.02})
row(STREAM, OPEN, "role_only", {"deltas": 0, "finish": None, "contains": b"\n\ndata: "},
    gap=0.02)
row(STREAM, OPEN, "stall", {"deltas": 2, "done": False, "finish": None})
row(WHOLE, OPEN, "stall", {"status": 200, "starts": b'{"id"'})
row(STREAM, RESET, "cut", {"deltas": 2, "finish": None})
row(STREAM, RESET, "cut", {"deltas": 0, "chunks": 1}, after=0)
row(STREAM, FIN, "cut", {"deltas": 1, "chunks": 2}, after=1, how="fin")
row(WHOLE, RESET, "cut", {"status": 200, "starts": b'{"id"'})
row(WHOLE, FIN, "cut", {"status": 200, "starts": b'{"id"'}, how="fin")
row(STREAM, COMPLETE, "clean_cut", {"deltas": 2, "finish": None, "done": False})
row(STREAM, COMPLETE, "clean_cut", {"deltas": 1, "finish": None, "done": True},
    after=1, done=True)
row(WHOLE, COMPLETE, "clean_cut", {"status": 200, "starts": b'{"id"', "broken": True})
row(WHOLE, RESET, "reset_before_headers", NOTHING)
row(WHOLE, RESET, "reset_at_once", NOTHING)
row(WHOLE, COMPLETE, "reset_reused", GOOD_WHOLE)
row(WHOLE, FIN, "close_before_headers", NOTHING)
# fmt: on


def observe(seen: Seen, fact: str) -> Any:
    """One fact of the table, found in what was received."""
    plain = {"status": seen.status, "body": seen.body, "chunks": seen.chunks,
             "length": len(seen.body), "type": seen.header("content-type")}  # fmt: skip
    if fact in plain:
        return plain[fact]
    if fact in ("retry-after", "location", "content-length"):
        return seen.header(fact)
    if fact == "one_by_one":
        return seen.chunks == len(seen.body)
    if fact == "few_bytes":
        return 0 < len(seen.body) <= 2 + SHORT / 0.05
    if fact == "forged":
        cookies = [k for k, _ in seen.headers if k == "set-cookie"]
        return seen.header("x-shunt-provider") == "forged" and len(cookies) == 2
    if fact == "broken":
        with pytest.raises(ValueError):
            seen.facts()
        return True
    if fact == "has_usage":
        return seen.facts()["usage"]["completion_tokens"] == 5
    if fact == "text_length":
        return len(seen.facts()["text"])
    return seen.facts().get(fact)


@pytest.mark.parametrize(
    "step, stream, outcome, expected",
    ROWS,
    ids=[f"{r[0]['do']}-{'stream' if r[1] else 'whole'}-{r[2]}" for r in ROWS],
)
def test_behaviour(
    fake: FakeProvider,
    protocol: str,
    step: dict[str, Any],
    stream: bool,
    outcome: str,
    expected: dict[str, Any],
) -> None:
    fake.script(step)
    patience = SHORT if outcome == OPEN else PATIENCE
    seen = exchange(fake, protocol, chat(stream), patience=patience)
    assert seen.outcome == outcome
    for fact, value in expected.items():
        if fact in ("starts", "contains"):
            assert value in seen.body
            assert fact == "contains" or seen.body.startswith(value)
        else:
            assert observe(seen, fact) == value, fact

    fake.wait_for(in_flight=0)
    (record,) = fake.log()
    assert record["step"] == step
    assert record["ended"] == LOGGED[outcome]
    if record["usage"] and "broken" not in expected:
        assert record["usage"] == seen.facts()["usage"]


def test_the_table_covers_the_vocabulary() -> None:
    assert {step["do"] for step, *_ in ROWS} == set(REGISTRY)


def test_the_readme_names_the_vocabulary() -> None:
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    assert [name for name in REGISTRY if f"`{name}`" not in readme] == []


# Connections. ----------------------------------------------------------------


def test_connections_are_kept(fake: FakeProvider, protocol: str) -> None:
    client = CLIENTS[protocol](fake)
    for _ in range(3):
        client.ask(chat())
        assert client.see().facts()["text"] == HELLO
    client.close()
    assert len({record["connection"] for record in fake.log()}) == 1
    assert fake.stats()["connections_total"] == 1
    fake.wait_for(connections_open=0)


def test_reset_reused(fake: FakeProvider, protocol: str) -> None:
    fake.script(default={"do": "reset_reused"})
    client = CLIENTS[protocol](fake)
    client.ask(chat())
    assert client.see().outcome == COMPLETE
    client.ask(chat())
    seen = client.see()
    assert (seen.outcome, seen.status) == (RESET, None)
    client.close()
    assert exchange(fake, protocol, chat()).outcome == COMPLETE


@pytest.mark.parametrize("whole_connection", [False, True])
def test_http2_resets_the_stream_or_the_connection(
    http2: FakeProvider, whole_connection: bool
) -> None:
    http2.script({"do": "cut", "connection": whole_connection})
    client = Http2Client(http2)
    client.ask(chat(stream=True))
    seen = client.see()
    assert (seen.outcome, seen.facts()["deltas"]) == (RESET, 2)
    assert client.goaway == whole_connection
    if not whole_connection:
        client.ask(chat())
        assert client.see().facts()["text"] == HELLO
    client.close()


def test_http2_streams_share_a_connection_that_breaks(http2: FakeProvider) -> None:
    http2.script({"do": "silent"}, {"do": "close_before_headers"})
    client = Http2Client(http2)
    client.ask(chat())
    client.ask(chat())
    assert client.see().outcome == FIN
    client.close()
    assert [record["ended"] for record in http2.log()] == ["fault", "fault"]


def test_http2_window_is_respected(http2: FakeProvider) -> None:
    """The peer's window is 64 KiB; nothing more may come before it is opened."""
    http2.script({"do": "big", "bytes": 200_000})
    client = Http2Client(http2)
    client.h2.acknowledge_received_data = lambda *_: None
    client.ask(chat())
    seen = client.see(SHORT)
    assert (seen.outcome, len(seen.body)) == (OPEN, 65_535)
    client.close()


def test_http2_request_taken_back_at_once(http2: FakeProvider) -> None:
    """Request and RST_STREAM in one segment, before there is time to answer."""
    client = Http2Client(http2)
    client.h2.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "fake"),
            (":path", CHAT),
        ],
        end_stream=True,
    )
    client.h2.reset_stream(1)
    client.socket.sendall(client.h2.data_to_send())
    http2.wait_for(requests=1, in_flight=0)
    assert http2.log()[0]["ended"] == "aborted_by_peer"
    client.close()


def test_dead_host(fake: FakeProvider, protocol: str) -> None:
    fake.script({"do": "silent"})
    client = CLIENTS[protocol](fake)
    client.ask(chat())
    fake.wait_for(in_flight=1)
    fake.listen(False)
    assert client.see().outcome in (FIN, RESET)
    with pytest.raises(ConnectionRefusedError):
        CLIENTS[protocol](fake)
    fake.listen(True)
    assert exchange(fake, protocol, chat()).outcome == COMPLETE
    assert [record["ended"] for record in fake.log()] == ["fault", "complete"]


def test_before_body(http1: FakeProvider) -> None:
    """``early`` and ``reset_at_once`` do not wait for a body that never comes."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"
    for step, outcome in (("early", COMPLETE), ("reset_at_once", RESET)):
        http1.script({"do": step})
        client = Http1Client(http1)
        client.socket.sendall(head)
        assert client.see().outcome == outcome
        if step == "early":
            assert receive(client.socket, time.monotonic() + PATIENCE)[0] == FIN
        client.close()


def test_early_survives_a_peer_that_keeps_sending(http1: FakeProvider) -> None:
    http1.script({"do": "early"})
    client = Http1Client(http1)
    client.ask(chat(padding="x" * 4_000_000))
    assert client.see().status == 500
    client.close()


def test_hold_and_release(fake: FakeProvider, protocol: str) -> None:
    fake.script(default={"do": "hold"})
    clients = [CLIENTS[protocol](fake) for _ in range(2)]
    for client, stream in zip(clients, (True, False)):
        client.ask(chat(stream))
    fake.wait_for(holding=2)
    assert fake.release() == 2
    for client in clients:
        seen = client.see()
        assert (seen.outcome, seen.facts()["text"]) == (COMPLETE, HELLO)
        client.close()


def test_timing(fake: FakeProvider, protocol: str) -> None:
    fake.script({"do": "answer", "delay": 0.1, "gap": 0.02})
    started = time.monotonic()
    assert exchange(fake, protocol, chat(stream=True)).outcome == COMPLETE
    assert 0.1 + 7 * 0.02 <= time.monotonic() - started < 1


# HTTP/1.1 requests. ----------------------------------------------------------


def test_chunked_request_in_small_pieces(http1: FakeProvider) -> None:
    client = Http1Client(http1)
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nX-MiXed: Case\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b'9;ext=1\r\n{"model":\r\n4\r\n"m"}\r\n0\r\nTrailer: x\r\n\r\n'
    )
    for i in range(0, len(request), 10):
        client.socket.sendall(request[i : i + 10])
        time.sleep(0.001)
    assert client.see().facts()["text"] == HELLO
    client.close()
    (record,) = http1.log()
    assert record["headers"][0] == ["X-MiXed", "Case"]
    assert (record["model"], record["body"]) == ("m", {"model": "m"})


def test_expect_continue(http1: FakeProvider) -> None:
    client = Http1Client(http1)
    client.socket.sendall(
        b"POST /v1/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.socket.sendall(b"{}")
    assert client.see().status == 200
    client.close()


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_malformed_requests(
    http1: FakeProvider, request_bytes: bytes, status: int
) -> None:
    client = Http1Client(http1)
    client.socket.sendall(request_bytes)
    assert client.see().status == status
    client.close()


def test_peers_that_leave(http1: FakeProvider) -> None:
    """In the middle of the head, the body and the answer, politely and not."""
    beginnings = (b"", b"POST / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
    http1.script(default={"do": "big", "bytes": 1 << 25})
    for beginning in beginnings:
        for linger in (0, 1):
            client = Http1Client(http1)
            client.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0)
            )
            client.socket.sendall(beginning)
            if not beginning:
                client.ask(chat())
            client.close()
    http1.wait_for(in_flight=0, connections_open=0)
    assert {record["ended"] for record in http1.log()} == {"aborted_by_peer"}


# Scripts, answers and the log. -----------------------------------------------


def test_order_of_choice(fake: FakeProvider, protocol: str) -> None:
    fake.script(
        {"do": "status", "status": 501},
        default={"do": "status", "status": 502},
        when=[{"contains": "magic", "step": {"do": "status", "status": 503}}],
    )
    asked = ("plain", "magic", "plain", "magic")
    statuses = [exchange(fake, protocol, {"x": text}).status for text in asked]
    assert statuses == [501, 503, 502, 503]
    fake.script()
    assert exchange(fake, protocol, {"x": "magic"}).status == 502
    fake.reset()
    assert exchange(fake, protocol, {"x": "magic"}).status == 200


@pytest.mark.parametrize(
    "step, complaint",
    [
        ({"do": "nonsense"}, "unknown behaviour"),
        ({"do": []}, "unknown behaviour"),
        ({"do": "cut", "aftr": 1}, "unknown parameter cut.aftr"),
        ({"do": "cut", "how": "softly"}, "cut.how cannot be"),
        ({"do": "cut", "after": True}, "cut.after cannot be"),
        ({"do": "cut", "after": -1}, "cut.after cannot be"),
        ({"do": "comments", "then": {"do": "nonsense"}}, "cannot be"),
    ],
)
def test_bad_steps_are_refused(
    http1: FakeProvider, step: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ControlError) as refused:
        http1.script(step)
    document = json.loads(str(refused.value))
    assert complaint in document["error"]
    assert document["known"] == sorted(REGISTRY)


def test_log_and_stats(fake: FakeProvider, protocol: str) -> None:
    before = time.time()
    seen = exchange(fake, protocol, chat(), CHAT + "?q=1")
    exchange(fake, protocol, chat(stream=True, padding="x" * 50_000))
    exchange(fake, protocol, chat(padding="x" * 1000))
    first, second, third = fake.log()
    assert before - 0.01 < first["time"] < time.time()
    assert (first["n"], second["n"], third["n"]) == (1, 2, 3)
    assert (first["method"], first["path"]) == ("POST", CHAT + "?q=1")
    assert first["http_version"] == {"http1": "HTTP/1.1", "http2": "HTTP/2"}[protocol]
    assert json.loads(first["raw"]) == first["body"] == chat()
    assert first["body_length"] == len(first["raw"])
    assert first["bytes_sent"] == len(seen.body)
    assert (first["model"], first["stream"]) == ("gpt-x", False)
    assert second["stream"] is True
    stats = fake.stats()
    assert (stats["requests"], stats["max_in_flight"]) == (3, 1)
    assert stats["by_step"] == {"answer": 3}


def test_long_bodies_are_not_kept(http1: FakeProvider) -> None:
    exchange(http1, "http1", chat(padding="x" * 70_000))
    (record,) = http1.log()
    assert (record["raw"], record["body"], record["model"]) == (None, None, "gpt-x")
    assert record["body_length"] > 70_000 and len(record["body_sha256"]) == 64


def test_health_is_apart(http1: FakeProvider) -> None:
    def get(path: str) -> Optional[int]:
        client = Http1Client(http1)
        client.socket.sendall(b"GET %b HTTP/1.1\r\n\r\n" % path.encode())
        seen = client.see()
        client.close()
        return seen.status

    assert (get("/health"), get("/v1/models")) == (200, 200)
    http1.health(503)
    assert (get("/health"), get("/v1/models")) == (503, 200)
    stats = http1.stats()
    assert (stats["health"], stats["requests"], http1.log()) == (4, 0, [])


def test_other_endpoints(fake: FakeProvider, protocol: str) -> None:
    body = {"model": "e", "input": ["a", "bc"], "prompt": "x", "stream": True}
    vectors = exchange(fake, protocol, body, "/v1/embeddings").documents[0]
    assert [item["index"] for item in vectors["data"]] == [0, 1]
    packed = exchange(
        fake, protocol, {**body, "encoding_format": "base64"}, "/embeddings"
    ).documents[0]
    assert isinstance(packed["data"][0]["embedding"], str)
    legacy = exchange(fake, protocol, body, "/v1/completions")
    assert legacy.documents[0]["object"] == "text_completion"
    facts = legacy.facts()
    assert (facts["text"], facts["finish"], facts["done"]) == (HELLO, "stop", True)


def test_deepseek_usage() -> None:
    with start("deepseek", dialect="deepseek") as fake:
        seen = exchange(fake, "http1", chat(padding="y"))
    usage = seen.facts()["usage"]
    cache = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    assert sum(cache) == usage["prompt_tokens"] == 3
    assert seen.facts()["text"] == "Hello from deepseek."


# The program. ----------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize("http_version", ["http1", "http2"])
def test_tls(tmp_path: Path, http_version: str) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=fake", "-days", "1"]
        + ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    files = (str(cert), str(key))
    with start("openai", http2=http_version == "http2", tls=files) as fake:
        fake.script({"do": "answer"}, {"do": "cut"}, {"do": "close_before_headers"})
        for outcome in (COMPLETE, RESET, FIN):
            client = CLIENTS[http_version](fake, context)
            assert isinstance(client.socket, ssl.SSLSocket)
            alpn = client.socket.selected_alpn_protocol()
            assert alpn == {"http1": "http/1.1", "http2": "h2"}[http_version]
            client.ask(chat(stream=True))
            assert client.see().outcome == outcome
            client.close()


@pytest.mark.parametrize("way", ["signal", "stdin"])
def test_exit_is_quiet(way: str) -> None:
    """Even with requests under way, nothing is printed but the ready line."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None and process.stdin is not None
    ready = json.loads(process.stdout.readline())
    fake = FakeProvider("openai", ready["port"], ready["control_port"])
    fake.script({"do": "silent"}, {"do": "role_only"})
    clients = [Http1Client(fake), Http1Client(fake)]
    for client in clients:
        client.ask(chat())
    fake.wait_for(in_flight=2)
    idle = socket.create_connection(("127.0.0.1", fake.control_port))
    if way == "signal":
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=5)
    else:
        output, _ = process.communicate(timeout=5)  # closes stdin
    assert (output, process.returncode) == (b"", 0)
    for client in clients:
        client.close()
    idle.close()


def test_many_streams_at_once(http1: FakeProvider) -> None:
    http1.script(default={"do": "hold"})
    clients = [Http1Client(http1) for _ in range(200)]
    for client in clients:
        client.ask(chat(stream=True))
    http1.wait_for(holding=200)
    assert http1.release() == 200
    with ThreadPoolExecutor(8) as pool:
        assert {seen.outcome for seen in pool.map(Http1Client.see, clients)} == {
            COMPLETE
        }
    for client in clients:
        client.close()
    assert http1.stats()["max_in_flight"] == 200
