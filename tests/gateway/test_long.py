"""An event or a whole answer that is too long to be held, and that turns out to be broken when a part of it is at the client.

Half an event cannot be followed by an error event, and half a document by nothing at all: the client's stream is reset.
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import httpx
import pytest

from accounts import only_record
from server import PLAIN
from support import CHAT, Answer, Json, Upstream, World, chat
from test_edges import CONTENT, FINISH, Serve, provider, read_request

COMPLETE = {"x-shunt-stream": "complete"}
DONE = b"data: [DONE]\n\n"
#: An event is held up to 8 MiB, however small `max_held_bytes` is.
SMALL: Json = {"limits": {"max_held_bytes": 4096, "answer": "20s", "first_token": "10s"}}
HTTP = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


class Pace:
    """How much of an answer its client has. The provider says more when that is enough."""

    def __init__(self) -> None:
        self.received = 0
        self._changed = threading.Condition()

    def add(self, size: int) -> None:
        with self._changed:
            self.received += size
            self._changed.notify_all()

    def wait(self, size: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.received >= size, 20), (self.received, size)


def paced(content_type: str, pieces: list[tuple[bytes, int]], pace: Pace) -> Serve:
    """A response that ends well, as far as HTTP goes. After each piece, the provider waits until the client has so many bytes."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for piece, received in pieces:
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            pace.wait(received)
        connection.sendall(b"0\r\n\r\n")
        # The gateway closes the connection, or uses it no more.
        connection.recv(1)

    return serve


#: So much of a long event, or of a long answer, is at the client before the rest comes.
BEFORE = 8_700_000
BEGIN = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * (BEFORE + 100_000)
REST = b"y" * 100_000 + b'"},"finish_reason":null}]}\n\n' + FINISH + DONE
#: A quote too many, and the same without a word of JSON behind the event.
BROKEN = {"broken": b'"' + REST, "cut": b'"\n\n' + FINISH + DONE, "end": b"", "control": b"\x01" + REST}

DOCUMENT = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 200_000, "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
}).encode()  # fmt: skip


def play(world: World, kind: str, pieces: list[tuple[bytes, int]], on_break: str = "reset", http2: bool = False, **asked: Any) -> tuple[Answer, Json]:
    """Asks a provider that sends these pieces. Returns what the client got, and the record."""
    route = {"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek"], "stream": {"on_break": on_break}}
    pace, raw, broken = Pace(), bytearray(), None
    with provider(paced(kind, pieces, pace)) as port:
        gateway = world.gateway({**SMALL, "routes": [route]}, upstreams={"openai": Upstream(port)})
        with httpx.Client(http1=not http2, http2=http2, timeout=30, trust_env=False, verify=PLAIN) as client:
            with client.stream("POST", gateway.url + CHAT, **asked) as response:
                try:
                    for piece in response.iter_raw():
                        raw += piece
                        pace.add(len(piece))
                except httpx.HTTPError as error:
                    broken = type(error).__name__
        record = only_record(gateway)
    assert world.log("deepseek") == []
    return Answer(response.status_code, response.headers, bytes(raw), 0.0, broken), record


def play_stream(world: World, rest: bytes, *, first: tuple[bytes, int] = (CONTENT, 1), **more: Any) -> tuple[Answer, Json]:
    return play(world, "text/event-stream", [first, (BEGIN, BEFORE), (rest, 0)], json=chat(stream=True), **more)


def play_whole(world: World, body: bytes, **more: Any) -> tuple[Answer, Json]:
    return play(world, "application/json", [(body[:100_000], 90_000), (body[100_000:], 0)], json=chat(), **more)


def assert_torn(answer: Answer, record: Json) -> None:
    assert answer.status == 200 and answer.raw
    assert answer.broken, answer.raw[-200:]
    assert b"[DONE]" not in answer.raw
    assert (record["outcome"], [attempt["outcome"] for attempt in record["attempts"]]) == ("garbled", ["garbled"])


@HTTP
@pytest.mark.parametrize("on_break", ["reset", "event"])
def test_a_stream_is_reset_if_an_event_that_is_too_long_to_be_held_breaks(world: World, on_break: str, http2: bool) -> None:
    assert_torn(*play_stream(world, BROKEN["broken"], on_break=on_break, http2=http2))


@pytest.mark.parametrize("how", ["cut", "end", "control"])
def test_a_stream_is_reset_however_such_an_event_breaks(world: World, how: str) -> None:
    assert_torn(*play_stream(world, BROKEN[how], on_break="event" if how == "end" else "reset"))


@HTTP
@pytest.mark.parametrize("on_break", ["reset", "event"])
def test_an_event_that_is_too_long_to_be_held_passes_if_it_is_whole(world: World, on_break: str, http2: bool) -> None:
    answer, record = play_stream(world, REST, on_break=on_break, http2=http2)
    answer.assert_whole_stream()
    assert len(answer.text) == len("hi") + BEFORE + 200_000
    assert record["outcome"] == "answered"


@HTTP
def test_a_complete_stream_beyond_what_is_held_is_reset_if_such_an_event_breaks(world: World, http2: bool) -> None:
    assert_torn(*play_stream(world, BROKEN["broken"], first=(CONTENT * 100, 4096), http2=http2, headers=COMPLETE))


@HTTP
@pytest.mark.parametrize("body", [DOCUMENT[:-150] + b'"' + DOCUMENT[-150:], DOCUMENT[:-1], DOCUMENT + b"}"], ids=["broken", "end", "more"])
def test_a_whole_answer_that_is_too_long_to_be_held_is_reset_if_it_breaks(world: World, body: bytes, http2: bool) -> None:
    answer, record = play_whole(world, body, http2=http2)
    assert_torn(answer, record)
    assert record["unread"] is True


@HTTP
def test_a_whole_answer_that_is_too_long_to_be_held_passes_if_it_is_whole(world: World, http2: bool) -> None:
    answer, record = play_whole(world, DOCUMENT, http2=http2)
    assert (answer.status, answer.broken, len(answer.text)) == (200, None, 200_000)
    assert (record["outcome"], record["unread"]) == ("answered", True)
