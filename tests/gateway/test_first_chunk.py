"""A stream whose first chunk has the role and begins a call, as OpenAI sends it."""

from __future__ import annotations

import json
import socket
import time
from typing import Optional

import pytest

from support import Json, Upstream, World, ask
from test_edges import Serve, provider, read_request

DONE = b"data: [DONE]\n\n"
FORMS = pytest.mark.parametrize("form", ["live", "complete"])


def chunk(delta: Json, finish: Optional[str] = None) -> bytes:
    fields = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1790000000, "model": "gpt-5.4-mini", "system_fingerprint": None}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return f"data: {json.dumps({**fields, 'choices': [choice]}, separators=(',', ':'))}\n\n".encode()


def arguments(piece: str) -> bytes:
    return chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})


CALL = {"index": 0, "id": "call_x", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
FIRST = chunk({"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None})
REST = [arguments('{"city"'), arguments(": "), arguments('"Paris"}'), chunk({}, "tool_calls"), DONE]


def in_pieces(pieces: list[bytes], pause: float = 0, end: bool = True) -> Serve:
    """An event stream, piece by piece, with a pause after the first one. Without `end` the connection is closed where the stream ends."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, piece in enumerate(pieces):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(0.01 if number else pause)
        if end:
            connection.sendall(b"0\r\n\r\n")
            connection.recv(1)

    return serve


@FORMS
@pytest.mark.parametrize(
    ("pieces", "pause"),
    [([FIRST, *REST], 0.01), ([FIRST, *REST], 0.4), ([b"".join([FIRST, *REST])], 0), ([FIRST[:200], FIRST[200:], *REST], 0.05)],
    ids=["each", "pause", "at_once", "torn"],
)
def test_a_call_that_begins_with_the_role_arrives_byte_for_byte(world: World, form: str, pieces: list[bytes], pause: float) -> None:
    with provider(in_pieces(pieces, pause)) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True, headers={"x-shunt-stream": "complete"} if form == "complete" else {})
    assert (answer.status, answer.attempts, answer.broken) == (200, ["openai:answered"], None)
    assert answer.raw == b"".join([FIRST, *REST])


@FORMS
@pytest.mark.parametrize("end", [True, False], ids=["clean", "cut"])
@pytest.mark.parametrize("pause", [0, 0.3], ids=["at_once", "pause"])
def test_a_call_that_is_cut_after_its_beginning_never_looks_whole(world: World, form: str, end: bool, pause: float) -> None:
    with provider(in_pieces([FIRST], pause, end)) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True, headers={"x-shunt-stream": "complete"} if form == "complete" else {})
    if answer.provider == "deepseek":
        answer.assert_whole_stream()
        assert (answer.text, answer.attempts) == ("Hello from deepseek.", ["openai:truncated", "deepseek:answered"])
        return
    # The call's beginning counts as content, so that it was released.
    assert form == "live" and answer.status == 200
    assert b"[DONE]" not in answer.raw and b'"finish_reason":"' not in answer.raw
    if not answer.broken:
        assert answer.events[-1]["error"]["code"] == "stream_truncated"
