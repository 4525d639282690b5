"""What is on the wire between nginx and others: providers that do not speak HTTP, and keys that clients send in the query."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from typing import Any, Callable, Iterator, Union

import pytest

from accounts import records
from standin import Standin, Upstream
from support import CHAT, Answer, Json, World, ask, asked, chat, wait_for
from test_errors import error_of
from test_outcomes import assert_answered_by, breaker

# Providers that do not speak HTTP.

Piece = Union[bytes, Callable[[], None]]

#: What comes in the place of a status line. nginx takes all of it for an answer of HTTP/0.9, but for the last ones.
NOT_HTTP: dict[str, tuple[Piece, ...]] = {
    "tls_alert": (b"\x15\x03\x01\x00\x02\x02\x46",),
    "ssh_banner": (b"SSH-2.0-OpenSSH_9.2p1\r\n",),
    "http2_settings": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",),
    "html": (b"<html><body>hello</body></html>",),
    "events": (b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\ndata: [DONE]\n\n',),
    "blank_line_first": (b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",),
    "no_minor_version": (b"HTTP/2 200\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n",),
    "no_number": (b"HTTP/1.1 abc\r\n\r\nx",),
    "icy": (b"ICY 200 OK\r\n\r\nx",),
    "in_two_pieces": (b"HTT", lambda: time.sleep(0.05), b"X what comes later"),
    "long_line": (b"x" * (1 << 20),),
    "looks_like_a_status_in_its_place": (b"xxxxx1.1 200 OK\r\ncontent-length: 0\r\n\r\n",),
    "no_such_status": (b"HTTP/1.1 000 None\r\ncontent-length: 0\r\n\r\n",),
    "no_bytes": (),
    "half_a_status_line": (b"HTTP/1.1 20",),
    "long_status_line": (b"HTTP/1.1 200 " + b"x" * (1 << 20) + b"\r\n\r\n",),
}


@contextlib.contextmanager
def speaking(pieces: tuple[Piece, ...], stays: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Somebody who answers every request with these bytes and closes, or stays silent until the other side closes. Gives the port,
    and the heads of the requests that came."""
    heads: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(20)
            text = b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in text:
                    more = self.request.recv(65536)
                    if not more:
                        return
                    text += more
                heads.append(text.partition(b"\r\n\r\n")[0])
                for piece in pieces:
                    piece() if callable(piece) else self.request.sendall(piece)
                while stays and self.request.recv(65536):
                    pass

    class Tcp(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Tcp(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1], heads
        server.shutdown()


@pytest.mark.parametrize("stream", [True, False], ids=["chain", "calls"])
@pytest.mark.parametrize("pieces", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_answered_by_the_next_provider_and_is_a_failure(world: World, pieces: tuple[Piece, ...], stream: bool) -> None:
    with speaking(pieces) as (port, heads):
        gateway = world.gateway(breaker(1), {"openai": Upstream(port)})
        answer = ask(gateway, stream=stream)
        assert_answered_by(answer, "deepseek", stream)
        assert answer.attempts == ["openai:unreachable", "deepseek:answered"]
        assert (len(heads), asked(world)) == (1, ["deepseek"])
        after = ask(gateway, stream=stream)
        assert after.headers["x-shunt-degraded"] == "openai:open"
        assert (len(heads), asked(world)) == (1, ["deepseek"] * 2)


@pytest.mark.parametrize("stream", [True, False], ids=["chain", "calls"])
def test_what_is_not_http_and_does_not_end_holds_up_nobody(world: World, stream: bool) -> None:
    with speaking(NOT_HTTP["ssh_banner"], stays=True) as (port, heads):
        gateway = world.gateway({"limits": {"first_token": "15s", "answer": "15s"}}, {"openai": Upstream(port)})
        answer = ask(gateway, stream=stream)
        assert_answered_by(answer, "deepseek", stream)
        # Not the end of a limit: that would be a `too_slow`.
        assert answer.attempts == ["openai:unreachable", "deepseek:answered"]
        assert len(heads) == 1
        wait_for(lambda: gateway.active() == 0, what="the requests to be over")


@pytest.mark.parametrize("stream", [True, False], ids=["chain", "calls"])
def test_if_no_provider_speaks_http_the_client_gets_an_error_with_its_head(world: World, stream: bool) -> None:
    with speaking(NOT_HTTP["html"]) as (port, heads):
        gateway = world.gateway(upstreams={name: Upstream(port) for name in world.fakes})
        answer = ask(gateway, stream=stream)
        assert answer.status == 503 and error_of(answer.raw)["code"] == "all_providers_failed"
        assert answer.attempts == [f"{name}:unreachable" for name in ("openai", "deepseek", "shareai")]
        assert (len(heads), asked(world)) == (3, [])


@pytest.mark.parametrize("pieces", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_on_a_passthrough_path_is_an_error_and_asked_for_once(world: World, pieces: tuple[Piece, ...]) -> None:
    passes = {"passthrough": [{"path": "/v1/files*", "provider": "openai"}]}
    with speaking(pieces) as (port, heads):
        gateway = world.gateway(passes, {"openai": Upstream(port)})
        answer = ask(gateway, b"{}", path="/v1/files")
        assert answer.status == 503 and error_of(answer.raw)["code"] == "all_providers_failed"
        assert (len(heads), asked(world)) == (1, [])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_passthrough_path_whose_provider_is_silent_is_asked_for_once(world: World, method: str) -> None:
    world.fakes["openai"].script(*[{"do": "silent"}] * 6)
    passes = {"passthrough": [{"path": "/v1/files*", "provider": "openai"}]}
    answer = ask(world.gateway(passes, outer_read=0.3), b"" if method == "GET" else b"{}", path="/v1/files", method=method)
    assert answer.status == 504 and error_of(answer.raw)["code"] == "all_providers_failed"
    assert [len(fake.log()) for fake in (world.fakes["openai"], world.fakes["deepseek"])] == [1, 0]


def test_an_answer_whose_head_is_a_status_line_alone_is_an_answer(world: World) -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
    events = f"data: {json.dumps({'id': 'a', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm', **event})}\n\ndata: [DONE]\n\n"
    for line in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200\r\n\r\n"):
        with speaking((line[:7], lambda: time.sleep(0.05), line[7:], events.encode())) as (port, heads):
            answer = ask(world.gateway(upstreams={"openai": Upstream(port)}), stream=True)
            assert (answer.status, answer.attempts, answer.text) == (200, ["openai:answered"], "Hello")
            assert (len(heads), asked(world)) == (1, [])


# Keys in the query.

KEY = "sk-a-secret-of-the-client"

#: However the name is written.
QUERIES = [
    f"key={KEY}", f"api_key={KEY}", f"api-key={KEY}", f"token={KEY}", f"access_token={KEY}", f"KEY={KEY}", f"Api_Key={KEY}",
    f"%6bey={KEY}", f"api%5Fkey={KEY}", f"api%5fKEY={KEY}", f"a=b&key={KEY}", f"a=b;token={KEY}", f"key=&key={KEY}", f"key={KEY}&key",
    f"apikey={KEY}", f"x-api-key={KEY}", f"jwt={KEY}", f"key%3D{KEY}", f"key[]={KEY}", f"&&;key={KEY}",
]  # fmt: skip
#: Ways to be served: by the chain, by calls, unchanged, by the gateway itself, and not at all.
WAYS: dict[str, Json] = {
    "live": {"body": chat(stream=True)},
    "whole": {"body": chat()},
    "passthrough": {"body": b"", "path": "/v1/files", "method": "GET"},
    "upload": {"body": b"{}", "path": "/v1/files"},
    "models": {"body": b"", "path": "/v1/models", "method": "GET"},
    "nowhere": {"body": b"{}", "path": "/v1/nowhere"},
    "wrong_method": {"body": b"", "path": CHAT, "method": "GET"},
}


def passing(world: World, **more: Any) -> Standin:
    """A gateway whose first provider refuses every connection, so that nginx logs."""
    world.fakes["openai"].listen(False)
    gateway = world.gateway({"passthrough": [{"path": "/v1/files*", "provider": "openai"}]}, **more)
    assert isinstance(gateway, Standin)
    return gateway


def send(gateway: Standin, query: str, body: Any, path: str = CHAT, method: str = "POST") -> Answer:
    return ask(gateway, body, path=f"{path}?{query}" if query else path, method=method)


def everything_written(gateway: Standin) -> str:
    return gateway.log() + gateway._access_lines()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_key_in_the_query_is_refused_and_written_nowhere(world: World, way: Json) -> None:
    gateway = passing(world)
    before = gateway.log()
    for query in QUERIES:
        answer = send(gateway, query, **way)
        error = error_of(answer.raw)
        assert (answer.status, error["type"], error["code"]) == (400, "invalid_request_error", "api_key_in_query"), query
        assert "authorization" in error["message"] and KEY.encode() not in answer.raw
    assert gateway.log() == before and asked(world) == []
    found = records(gateway, len(QUERIES))
    assert {(record["outcome"], record["status"]) for record in found} == {("rejected", 400)}
    assert KEY not in everything_written(gateway)


@pytest.mark.parametrize("way", ["live", "whole"])
def test_every_other_query_of_a_completion_is_dropped(world: World, way: str) -> None:
    gateway = passing(world)
    answer = send(gateway, "note=private&version=2", **WAYS[way])
    assert (answer.status, answer.attempts) == (200, ["openai:unreachable", "deepseek:answered"])
    assert [seen["path"] for seen in world.log("deepseek")] == ["/chat/completions"]
    # The line that nginx writes for the inner hop.
    (line,) = [line for line in gateway.log().splitlines() if "connect() failed" in line and f'host: "127.0.0.1:{gateway.inner[0]}"' in line]
    assert f'request: "POST {CHAT} HTTP/1.1"' in line
    assert "private" not in everything_written(gateway)


def test_a_passthrough_path_keeps_its_query(world: World) -> None:
    gateway = passing(world)
    world.fakes["openai"].listen(True)
    query = "after=key&limit=2&include[]=token&max_tokens=1&page_token=x"
    assert send(gateway, query, **WAYS["passthrough"]).status == 200
    assert [seen["path"] for seen in world.log("openai")] == [f"/v1/files?{query}"]


def test_a_key_in_the_query_is_logged_by_nobody_although_nginx_lacks_the_variables(world: World) -> None:
    gateway = passing(world, faults=("variables=undefined",))
    assert send(gateway, f"key={KEY}", **WAYS["live"]).status == 500
    assert KEY not in everything_written(gateway)
    assert send(gateway, "", **WAYS["live"]).status == 500 and "nginx lacks the variables" in gateway.log()
