"""Corners of HTTP that a scripted provider or an ordinary client does not reach: written with sockets."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import socket
import threading
from typing import Any, Callable, Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from gateway import free_port
from support import CHAT, Gateway, Json, Upstream, World, ask, asked, chat, raw_exchange, request_head, wait_for

ONE_FAILURE_OPENS: Json = {"breaker": {"consecutive_failures": 1, "open": "60s", "max_open": "60s"}}
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def provider(serve: Serve) -> Iterator[int]:
    """A provider that plays `serve` on every connection; yields its port."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=play, args=(connection,), daemon=True).start()

    def play(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def read_request(connection: socket.socket) -> None:
    """Reads one HTTP/1.1 request with a content-length."""

    def more() -> bytes:
        piece = connection.recv(65536)
        if not piece:
            # Without this, a thread would read the end again and again.
            raise ConnectionError("the gateway has closed its connection")
        return piece

    data = b""
    while b"\r\n\r\n" not in data:
        data += more()
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += more()


def always(response: bytes) -> Serve:
    """Answers every request of a connection with these bytes."""

    def serve(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            connection.sendall(response)

    return serve


# Clients that leave over HTTP/2


@pytest.mark.parametrize("chunks", [0, 2], ids=["before-the-first-token", "in-the-middle"])
def test_an_http2_client_that_cancels_its_request_is_nobodys_failure(world: World, chunks: int) -> None:
    gateway = world.gateway({**ONE_FAILURE_OPENS, "limits": {"first_token": "60s"}})
    world.fakes["openai"].script({"do": "hold", "after": chunks})
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as wire:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        body = json.dumps(chat(True)).encode()
        head = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "gateway")]
        client.send_headers(1, [*head, ("content-length", str(len(body)))])
        client.send_data(1, body, end_stream=True)
        wire.sendall(client.data_to_send())
        world.fakes["openai"].wait_for(holding=1)
        while chunks and not any(isinstance(e, h2.events.DataReceived) for e in client.receive_data(wire.recv(65536))):
            wire.sendall(client.data_to_send())
        client.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        wire.sendall(client.data_to_send())
        wait_for(lambda: world.fakes["openai"].log()[0]["ended"], what="the attempt's end")
        # The connection lives: the gateway knows only that one request is not wanted any more.
        assert ask(gateway).attempts == ["openai:answered"]
    assert world.counts() == {"openai": 2, "deepseek": 0, "shareai": 0}


# Providers


def with_trailers(*pieces: bytes) -> Serve:
    """An HTTP/2 stream that ends with trailers; each piece is sent when the one before has been acknowledged."""

    def serve(wire: socket.socket) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        server.initiate_connection()
        wire.sendall(server.data_to_send())
        while data := wire.recv(65536):
            for event in server.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    server.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/event-stream")])
                    for piece in pieces:
                        server.send_data(event.stream_id, piece)
                        server.ping(b"received")
                        wire.sendall(server.data_to_send())
                        while not any(isinstance(e, h2.events.PingAckReceived) for e in server.receive_data(wire.recv(65536))):
                            pass
                    server.send_headers(event.stream_id, [("x-shunt-retry", "1")], end_stream=True)
            wire.sendall(server.data_to_send())

    return serve


def test_a_stream_that_breaks_off_with_trailers_never_looks_finished(world: World) -> None:
    with provider(with_trailers(CONTENT, CONTENT)) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port, http2=True)}, idle=1.5)
        answer = ask(gateway, stream=True)
    assert answer.attempts == ["openai:answered"]
    assert answer.broken, answer.raw
    assert b"[DONE]" not in answer.raw


def test_a_stream_that_is_finished_when_its_trailers_come_ends(world: World) -> None:
    with provider(with_trailers(CONTENT, CONTENT + FINISH + b"data: [DONE]\n\n")) as port:
        answer = ask(world.gateway(upstreams={"openai": Upstream(port, http2=True)}), stream=True)
    answer.assert_whole_stream()
    assert answer.text == "hihi"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("follows", ["503", "a reset"])
@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"], ids=["100", "103"])
def test_a_1xx_before_a_failure_costs_the_next_provider_nothing(world: World, status: bytes, follows: str, stream: bool) -> None:
    failure = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 2\r\n\r\n{}"
    early = b"HTTP/1.1 " + status + b"\r\n\r\n"
    responses = itertools.chain([early + (failure if follows == "503" else b"")], itertools.repeat(failure))

    def serve(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            response = next(responses)
            connection.sendall(response)
            if response == early:
                return

    with provider(serve) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port)})
        # Envoy retries nothing once it has seen a 1xx (docs/operations.md)...
        first = ask(gateway, stream=stream)
        assert (first.status, first.error["code"]) == (503, "all_providers_failed")
        # ... and that says nothing about who would have been next.
        assert ask(gateway, stream=stream).attempts == ["openai:overloaded", "deepseek:answered"]


@pytest.mark.parametrize("content", [b"a\\ud83d", b"\\udc00"], ids=["high", "low"])
def test_half_of_a_surrogate_pair_is_an_answer(world: World, content: bytes) -> None:
    body = (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"logprobs":null,"message":'
        b'{"role":"assistant","refusal":null,"content":"%s"},"finish_reason":"length"}]}' % content
    )
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with provider(always(head + body)) as port:
        answer = ask(world.gateway(upstreams={"openai": Upstream(port)}))
    assert answer.attempts == ["openai:answered"]
    assert answer.raw == body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_refusal_that_comes_as_a_success_reaches_the_client_as_an_error(world: World, stream: bool) -> None:
    world.fakes["openai"].script({"do": "error_json_200", "code": "content_filter"})
    answer = ask(world.gateway(), stream=stream)
    assert (answer.status, answer.error["code"]) == (400, "content_filter")
    assert answer.attempts == ["openai:refused"]
    assert world.counts() == {"openai": 1, "deepseek": 0, "shareai": 0}


def test_a_header_that_only_the_second_provider_may_see_crosses_after_a_failover(world: World) -> None:
    gateway = world.gateway({"providers": {"deepseek": {"allow_headers": ["openai-beta"]}}})
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    answer = ask(gateway, headers={"openai-beta": "assistants=v2", "x-other": "secret"})
    assert answer.attempts == ["openai:overloaded", "deepseek:answered"]
    (asked,) = world.seen("deepseek")
    assert [value for name, value in asked["headers"] if name.lower() == "openai-beta"] == ["assistants=v2"]
    assert "openai-beta" not in json.dumps(world.seen("openai"))


def test_a_stream_that_began_before_a_hold_does_not_lift_it(world: World) -> None:
    limited = {"do": "status", "status": 429, "headers": {"retry-after": "60"}}
    world.fakes["openai"].script({"do": "hold", "after": 2}, limited)
    gateway = world.gateway()
    answers: list[Any] = []
    stream = threading.Thread(target=lambda: answers.append(ask(gateway, stream=True)))
    stream.start()
    world.fakes["openai"].wait_for(holding=1)
    assert ask(gateway).attempts == ["openai:rate_limited", "deepseek:answered"]
    world.fakes["openai"].release()
    stream.join()
    assert answers[0].attempts == ["openai:answered"]
    assert ask(gateway).headers["x-shunt-degraded"] == "openai:rate_limited"


# HTTP/1.0: what nginx in front speaks unless it is told otherwise


def old_request(stream: bool) -> bytes:
    body = json.dumps(chat(stream)).encode()
    return request_head(len(body), version="1.0") + body


@pytest.mark.parametrize("host", [b"host: gateway\r\n", b""], ids=["host", "no_host"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_speaks_http_1_0_is_served_and_fails_over(world: World, stream: bool, host: bytes) -> None:
    world.fakes["openai"].script({"do": "status", "status": 503})
    request = old_request(stream).replace(b"host: gateway\r\n", host)
    status, headers, body = raw_exchange(world.gateway(), request)
    assert (status, headers["x-shunt-attempts"]) == (200, "openai:overloaded,deepseek:answered")
    # It knows no chunks.
    assert "transfer-encoding" not in headers
    if stream:
        assert body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(body)["object"] == "chat.completion"
    assert asked(world) == ["openai", "deepseek"]


def test_a_stream_that_breaks_off_is_told_to_an_http_1_0_client(world: World) -> None:
    world.fakes["openai"].script({"do": "clean_cut", "after": 2, "gap": 0.05})
    status, _, body = raw_exchange(world.gateway(), old_request(True))
    assert status == 200 and b"[DONE]" not in body
    last = json.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "stream_truncated"
    assert asked(world) == ["openai"]


# Hosts and health checks

CHECK: Json = {"interval": "0.2s", "no_traffic_interval": "0.2s", "timeout": "0.5s"}


def healthy_hosts(gateway: Gateway) -> int:
    return gateway.stat("cluster.openai.membership_healthy")


def test_one_unhealthy_address_of_two_sends_nobody_to_the_backup(world: World) -> None:
    def second_address(_listeners: Json, clusters: Json) -> None:
        hosts = clusters["resources"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        hosts.append(copy.deepcopy(hosts[0]))
        hosts[1]["endpoint"]["address"]["socket_address"]["port_value"] = free_port()

    upstreams = {"openai": Upstream(world.fakes["openai"].port, health_check=CHECK)}
    gateway = world.gateway(upstreams=upstreams, edit=second_address)
    wait_for(lambda: healthy_hosts(gateway) == 2, what="one of two to be unhealthy, beside the backup")
    assert {ask(gateway).attempts[0] for _ in range(40)} == {"openai:answered"}


def test_one_bad_health_check_takes_nobody_out(world: World) -> None:
    check = {**CHECK, "interval": "2s", "no_traffic_interval": "2s"}
    gateway = world.gateway(upstreams={"openai": Upstream(world.fakes["openai"].port, health_check=check)})
    wait_for(lambda: healthy_hosts(gateway) == 2, what="the provider and the backup")
    world.fakes["openai"].health(502)
    wait_for(lambda: gateway.stat("cluster.openai.health_check.failure") == 1, what="a failed check")
    assert healthy_hosts(gateway) == 2
    assert ask(gateway).attempts == ["openai:answered"]
