"""Clients of the stand-in that speak HTTP/2 without TLS, as nginx lets them on every listener. What the filter does with their
requests is in the scenarios."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import defaultdict
from typing import Any, Callable, Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from server import Json, wait_for
from standin import Standin
from test_standin import BODY, CHAT, ask, headers_of, only

WINDOW = 65535


class Client:
    """One connection. What comes is kept by stream."""

    def __init__(self, standin: Standin, settings: dict[int, int] | None = None) -> None:
        self.wire = socket.create_connection(("127.0.0.1", standin.port), 20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8", normalize_inbound_headers=False))
        self.h2.local_settings.update(settings or {})
        self.h2.initiate_connection()
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: defaultdict[int, bytearray] = defaultdict(bytearray)
        #: How a stream ended: its error code, 0 for a clean end.
        self.ends: dict[int, int] = {}
        self.interim = 0
        self.gone = False
        #: Whether what was read makes room for more.
        self.reads = True

    def ask(self, told: str = "", body: str | None = BODY, ends: bool = True, length: bool = True, method: str = "POST", path: str = CHAT, **headers: str) -> int:
        """Sends a request; its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "gateway.test")]
        head += [("x-guest", told), ("x-shunt-plan", "openai,deepseek")]
        head += [(name.replace("_", "-"), value) for name, value in headers.items()]
        if body is not None and length:
            head += [("content-length", str(len(body)))]
        self.h2.send_headers(stream, head, end_stream=body is None)
        if body:
            self.h2.send_data(stream, body.encode(), end_stream=ends)
        self.flush()
        return stream

    def flush(self) -> None:
        self.wire.sendall(self.h2.data_to_send())

    def reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.flush()

    def until(self, done: Callable[[], bool]) -> None:
        """Takes what comes until `done`."""
        while not done():
            data = self.wire.recv(65536)
            assert data, "the connection was closed"
            for event in self.h2.receive_data(data):
                self.take(event)
            # Who has closed the connection may have said why before: that is read next.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.flush()

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.interim += 1
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ends[event.stream_id] = 0
        elif isinstance(event, h2.events.StreamReset):
            self.ends[event.stream_id] = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone = True

    def answer(self, stream: int) -> tuple[str, bytes]:
        """The status and the body of a stream that ends cleanly."""
        self.until(lambda: stream in self.ends)
        assert self.ends[stream] == 0
        return self.heads[stream][":status"], bytes(self.bodies[stream])


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def start(standin: Standin, settings: dict[int, int] | None = None) -> Client:
        clients.append(Client(standin, settings))
        return clients[-1]

    yield start
    for client in clients:
        client.wire.close()


STREAM = json.dumps({"messages": [{"role": "user", "content": "hello"}], "model": "assistant", "stream": True})


def test_streams_of_one_connection_are_served_at_once(guest: Any, fakes: Any, connect: Any) -> None:
    fakes["openai"].script({"do": "hold", "after": 2})
    client = connect(guest(workers=1))
    first = client.ask(body=STREAM)
    client.until(lambda: b"data:" in client.bodies[first])
    others = [client.ask("answer"), client.ask(), client.ask("answer")]
    assert [client.answer(other)[0] for other in others] == ["201", "200", "201"]
    assert first not in client.ends
    fakes["openai"].release()
    status, body = client.answer(first)
    assert status == "200" and body.endswith(b"data: [DONE]\n\n")
    assert len(fakes["openai"].log()) == 2


@pytest.mark.parametrize("after", [0, 2], ids=["before-the-head", "in-the-middle"])
def test_a_client_that_resets_its_stream_has_left_it_alone(guest: Any, fakes: Any, connect: Any, after: int) -> None:
    fakes["openai"].script({"do": "hold", "after": after})
    standin = guest()
    client = connect(standin)
    stream, other = client.ask(body=STREAM), None
    fakes["openai"].wait_for(holding=1)
    if after:
        client.until(lambda: b"data:" in client.bodies[stream])
    client.reset(stream)
    wait_for(lambda: only(fakes["openai"])["ended"] == "aborted_by_peer", 10, "the provider to be told")
    wait_for(lambda: standin.active() == 0, 10, "the request's end")
    other = client.ask("answer")
    assert client.answer(other) == ("201", b"made here")


def test_a_client_that_closes_its_connection_has_left_every_stream_of_it(guest: Any, fakes: Any, connect: Any) -> None:
    fakes["openai"].script(default={"do": "silent"})
    standin = guest()
    client = connect(standin)
    for _ in range(3):
        client.ask(body=STREAM)
    fakes["openai"].wait_for(in_flight=3)
    client.wire.close()
    wait_for(lambda: [one["ended"] for one in fakes["openai"].log()] == ["aborted_by_peer"] * 3, 10, "the provider to be told")
    wait_for(lambda: standin.active() == 0, 10, "the requests' end")


def test_a_body_that_its_client_breaks_off_reaches_nobody(guest: Any, fakes: Any, connect: Any) -> None:
    standin = guest()
    client = connect(standin)
    stream = client.ask("body", body="half", ends=False, length=False, content_length="8")
    wait_for(lambda: standin.active() == 1, 10, "the request")
    client.reset(stream)
    wait_for(lambda: standin.active() == 0, 10, "the request's end")
    assert client.answer(client.ask("answer")) == ("201", b"made here")
    assert fakes["openai"].log() == []


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_a_stream_that_breaks_off_is_reset_behind_what_came_and_the_connection_lives(guest: Any, fakes: Any, connect: Any, how: str) -> None:
    fakes["openai"].script({"do": "cut", "after": 3, "how": how})
    client = connect(guest())
    stream = client.ask(body=STREAM)
    client.until(lambda: stream in client.ends)
    assert client.ends[stream] == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert client.heads[stream][":status"] == "200"
    # Three pieces of content, and the role before them.
    assert client.bodies[stream].count(b'"delta"') == 4 and b"[DONE]" not in client.bodies[stream]
    assert client.answer(client.ask("answer")) == ("201", b"made here")


def test_a_client_that_does_not_read_holds_the_provider_back(guest: Any, fakes: Any, connect: Any) -> None:
    size = 16 << 20
    fakes["openai"].script({"do": "big", "bytes": size})
    client = connect(guest())
    client.reads = False
    stream = client.ask()
    client.until(lambda: len(client.bodies[stream]) == WINDOW)
    # Another stream has no room either; a head needs none, and it does not wait for the first.
    other = client.ask("answer", method="HEAD", body=None)
    assert client.answer(other) == ("201", b"")
    assert (len(client.bodies[stream]), only(fakes["openai"])["ended"]) == (WINDOW, None)
    client.reads = True
    client.h2.acknowledge_received_data(WINDOW, stream)
    client.flush()
    status, body = client.answer(stream)
    assert status == "200" and len(body) > size
    assert only(fakes["openai"])["ended"] == "complete"


def test_what_the_upstream_gets_is_as_over_http_1(guest: Any, fakes: Any, connect: Any) -> None:
    client = connect(guest())
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 300_000}], "model": "assistant"})
    stream = client.h2.get_next_available_stream_id()
    head = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "gateway.test:1234")]
    head += [("x-shunt-plan", "openai"), ("cookie", "a=1"), ("cookie", "b=2"), ("content-length", str(len(body)))]
    client.h2.send_headers(stream, head)
    left = body.encode()
    while left:
        room = min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size, len(left))
        if room:
            client.h2.send_data(stream, left[:room])
            left = left[room:]
            client.flush()
        else:
            client.until(lambda: client.h2.local_flow_control_window(stream) > 0)
    client.h2.send_headers(stream, [("x-trailer", "1")], end_stream=True)
    client.flush()
    assert client.answer(stream)[0] == "200"
    seen = only(fakes["openai"])
    headers = headers_of(seen)
    assert seen["http_version"] == "HTTP/1.1" and seen["body_length"] == len(body)
    assert (headers["content-length"], headers["cookie"]) == (str(len(body)), "a=1; b=2")
    assert "x-trailer" not in headers and "transfer-encoding" not in headers


def test_a_response_has_no_header_about_one_connection(guest: Any, fakes: Any, connect: Any) -> None:
    client = connect(guest())
    for stream in (client.ask("answer"), client.ask(), client.ask(body=STREAM)):
        client.answer(stream)
        head = client.heads[stream]
        assert all(name == name.lower() for name in head)
        assert {"connection", "transfer-encoding", "keep-alive"}.isdisjoint(head)
        assert head["server"] == "APISIX/3.18.0"


def test_the_log_names_the_protocol(guest: Any, fakes: Any, connect: Any) -> None:
    def edit(settings: Any, _routes: Any) -> None:
        http = settings["nginx_config"]["http"]
        http["access_log_format"] = '{"request": "$request", "protocol": "$server_protocol", "from": "$remote_addr", "to": "$server_port"}'
        settings["nginx_config"]["http_server_configuration_snippet"] = ""

    standin = guest(edit=edit)
    client = connect(standin)
    client.answer(client.ask("answer", path=f"{CHAT}?a=b"))
    ask(standin, "answer")

    def lines() -> list[Json]:
        return [json.loads(line) for line in standin.access_log_path.read_text().splitlines()]

    wait_for(lambda: len(lines()) == 2, 10, "the access log")
    ends = {"from": "127.0.0.1", "to": str(standin.port)}
    assert lines() == [
        {"request": f"POST {CHAT}?a=b HTTP/2.0", "protocol": "HTTP/2.0", **ends},
        {"request": f"POST {CHAT} HTTP/1.1", "protocol": "HTTP/1.1", **ends},
    ]


def test_no_interim_response_is_sent(guest: Any, fakes: Any, connect: Any) -> None:
    client = connect(guest())
    assert client.answer(client.ask("body", expect="100-continue"))[0] == "200"
    assert client.interim == 0


def test_a_body_whose_length_is_not_told_is_not_handed_to_the_filter(guest: Any, fakes: Any, connect: Any) -> None:
    standin = guest()
    client = connect(standin)
    status, page = client.answer(client.ask("body", length=False))
    assert status == "503" and b"<h1>503 " in page
    assert "failed to get request body: HTTP2/HTTP3 request without a Content-Length header" in standin.log()
    # Nor is one that is not there.
    assert client.answer(client.ask("body", body=None))[0] == "503"
    assert fakes["openai"].log() == []


def test_a_body_whose_length_is_not_told_reaches_the_upstream_with_it(guest: Any, fakes: Any, connect: Any) -> None:
    client = connect(guest())
    assert client.answer(client.ask(length=False))[0] == "200"
    seen = only(fakes["openai"])
    assert seen["body_length"] == len(BODY) and headers_of(seen)["content-length"] == str(len(BODY))


HEAD = {":method": "POST", ":path": CHAT, ":scheme": "http", ":authority": "gateway.test", "x-guest": "answer"}
#: What nginx takes for no request: it answers with 400, or resets the stream or the connection.
ODD = {
    "no-host": {":authority": None},
    "no-path": {":path": None},
    "star": {":method": "OPTIONS", ":path": "*"},
    "connect": {":method": "CONNECT", ":path": None, ":scheme": None},
    "length-of-nothing": {"content-length": "5"},
    "length-that-is-none": {"content-length": "five"},
    "upper-case": {"X-Upper": "1"},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD)
def test_what_is_no_request_is_refused_and_asks_nobody(guest: Any, fakes: Any, connect: Any, changes: dict[str, str | None]) -> None:
    standin = guest()
    client = connect(standin)
    client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = False
    head = [(name, value) for name, value in {**HEAD, **changes}.items() if value is not None]
    client.h2.send_headers(1, head, end_stream=True)
    client.flush()
    client.until(lambda: 1 in client.ends or client.gone)
    assert client.gone or client.ends[1] != 0 or client.heads[1][":status"] == "400"
    # Nobody else is concerned.
    other = connect(standin)
    assert other.answer(other.ask("answer")) == ("201", b"made here")
    assert fakes["openai"].log() == [] and "FATAL" not in standin.log()


def test_http_2_can_be_switched_off(guest: Any) -> None:
    def edit(settings: Any, _routes: Any) -> None:
        settings["apisix"]["enable_http2"] = False

    standin = guest(edit=edit)
    with socket.create_connection(("127.0.0.1", standin.port), 10) as wire:
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answer = b""
        while data := wire.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert ask(standin, "answer").status_code == 201


@pytest.mark.parametrize("begins", [b"P", b"PRI * HTTP/2.0\r\n\r\n"], ids=["POST", "PRI"])
def test_the_first_bytes_tell_the_protocol_however_they_are_cut(guest: Any, connect: Any, begins: bytes) -> None:
    client = connect(guest())
    whole = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-guest: answer\r\nconnection: close\r\n\r\n".encode()
    whole = whole if begins == b"P" else client.h2.data_to_send()
    assert whole.startswith(begins)
    client.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.wire.sendall(begins)
    # The other bytes are no part of the same read: what came first has been acknowledged.
    wait_for(lambda: unacknowledged(client.wire) == 0, 10, "the first bytes to arrive")
    client.wire.sendall(whole[len(begins) :])
    if begins == b"P":
        assert client.wire.recv(65536).startswith(b"HTTP/1.1 201 ")
    else:
        assert client.answer(client.ask("answer")) == ("201", b"made here")


def unacknowledged(wire: socket.socket) -> int:
    """`tcpi_unacked`: how many segments the peer has not acknowledged."""
    return int.from_bytes(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24:28], "little")
