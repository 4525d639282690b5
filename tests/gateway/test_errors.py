"""What the client hears from the gateway itself, always in OpenAI's envelope; and input that is hostile or just odd."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Optional

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from server import PLAIN
from support import CHAT, CLIENT_KEY, PROVIDERS, Answer, Gateway, Json, Upstream, World, ask, asked, chat, raw_exchange, request_head

INVALID = "invalid_request_error"


def error_of(body: bytes) -> Json:
    """The error in a body, which must be OpenAI's envelope and nothing else."""
    document = json.loads(body)
    assert list(document) == ["error"]
    error: Json = document["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["message"] and isinstance(error["message"], str)
    return error


def assert_error(answer: Answer, status: int, kind: str, code: Optional[str], param: Optional[str] = None) -> Json:
    assert answer.status == status, answer.raw[:500]
    assert answer.headers["content-type"] == "application/json"
    error = error_of(answer.raw)
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    return error


def assert_nobody_was_asked(world: World) -> None:
    assert world.counts() == dict.fromkeys(PROVIDERS, 0)


# Requests that no provider sees.


@dataclass(frozen=True)
class Rejected:
    name: str
    status: int
    code: Optional[str]
    body: Any = None
    param: Optional[str] = None
    headers: Any = None
    path: str = CHAT
    method: str = "POST"
    says: str = ""


REJECTED = [
    Rejected("not_json", 400, "invalid_json", b"<xml/>"),
    Rejected("cut_json", 400, "invalid_json", b'{"model":"assistant","messages":['),
    Rejected("more_than_json", 400, "invalid_json", b'{"model":"assistant"} {}'),
    Rejected("a_list", 400, "invalid_json", b"[]"),
    Rejected("a_null", 400, "invalid_json", b"null"),
    Rejected("no_body", 400, "invalid_json", b""),
    Rejected("only_spaces", 400, "invalid_json", b"   \n"),
    Rejected("model_twice", 400, "invalid_json", b'{"model":"assistant","messages":[],"model":"other"}', says="model"),
    Rejected("model_twice_escaped", 400, "invalid_json", b'{"model":"assistant","mod\\u0065l":"other"}', says="model"),
    Rejected("stream_twice", 400, "invalid_json", b'{"model":"assistant","stream":true,"stream":false}', says="stream"),
    Rejected("no_model", 400, None, b'{"messages":[]}', "model", says="model"),
    Rejected("model_null", 400, None, b'{"model":null}', "model", says="model"),
    Rejected("model_number", 400, None, b'{"model":5}', "model", says="model"),
    Rejected("model_empty", 400, None, b'{"model":""}', "model", says="model"),
    Rejected("stream_text", 400, None, b'{"model":"assistant","stream":"yes"}', "stream", says="stream"),
    Rejected("unknown_model", 404, "model_not_found", chat(model="gpt-2"), "model", says="gpt-2"),
    Rejected("hostile_model", 404, "model_not_found", chat(model="a\r\nx-evil: 1"), "model", says="a??x-evil: 1"),
    Rejected("unknown_path", 404, "unknown_url", path="/v1/other", says="/v1/other"),
    Rejected("path_below", 404, "unknown_url", path=CHAT + "/more"),
    Rejected("root", 404, "unknown_url", path="/"),
    Rejected("get", 405, "method_not_allowed", b"", method="GET"),
    Rejected("put", 405, "method_not_allowed", method="PUT"),
    Rejected("delete", 405, "method_not_allowed", b"", method="DELETE"),
    Rejected(
        "gzip",
        415,
        "unsupported_content_encoding",
        gzip.compress(json.dumps(chat()).encode()),
        headers={"content-encoding": "gzip"},
        says="gzip",
    ),
    Rejected("option", 400, "invalid_option", chat(True), headers={"x-shunt-stream": "later"}, says="later"),
]


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.name)
def test_a_request_that_cannot_be_served_is_told_why_and_costs_nothing(world: World, case: Rejected) -> None:
    routes = [{"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}]
    gateway = world.gateway({"routes": routes})
    answer = ask(gateway, case.body, path=case.path, method=case.method, headers=case.headers)
    error = assert_error(answer, case.status, INVALID, case.code, case.param)
    assert case.says in error["message"]
    assert "x-evil" not in answer.headers
    assert_nobody_was_asked(world)
    # Nor does it say anything about a provider.
    assert ask(gateway).attempts == ["openai:answered"]


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def upload(gateway: Gateway, body: Iterable[bytes]) -> Answer:
    """A chunked upload: nothing is said about its length."""
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
    with httpx.Client(timeout=30, trust_env=False, verify=PLAIN) as client:
        response = client.post(gateway.url + CHAT, content=iter(body), headers=headers)
        return Answer(response.status_code, response.headers, response.content, response.elapsed.total_seconds())


@pytest.mark.parametrize("chunked", [False, True], ids=["content_length", "chunked"])
def test_a_body_beyond_the_limit_is_refused(world: World, chunked: bool) -> None:
    gateway = world.gateway({"limits": {"max_request_bytes": 4096}})
    overhead = len(json.dumps(chat(text="")))
    fits = json.dumps(chat(text="x" * (4096 - overhead))).encode()
    beyond = json.dumps(chat(text="x" * (4097 - overhead))).encode()
    send = (lambda body: upload(gateway, pieces(body, 1000))) if chunked else (lambda body: ask(gateway, body))
    assert send(fits).status == 200
    error = assert_error(send(beyond), 413, INVALID, "request_too_large")
    assert "4096" in error["message"]
    assert asked(world) == ["openai"]


def test_a_body_beyond_what_envoy_buffers_is_refused_in_the_envelope(world: World) -> None:
    gateway = world.gateway({"limits": {"max_request_bytes": 32 << 20}})
    body = json.dumps(chat(text="x" * 34_000_000)).encode()
    assert_error(upload(gateway, pieces(body, 1 << 20)), 413, INVALID, "request_too_large")
    assert_nobody_was_asked(world)


# Every provider failed.


@dataclass(frozen=True)
class Failed:
    name: str
    #: One step for each provider, or one for all.
    steps: Any
    status: int
    kind: str
    #: What the last attempt is called.
    outcome: str
    #: A later try makes no sense.
    useless: bool = False
    retry_after: Optional[tuple[int, int]] = None


def fails(code: int, retry_after: Optional[int] = None) -> Json:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return {"do": "status", "status": code, "headers": headers}


FAILED = [
    Failed("overloaded", fails(503), 503, "server_error", "overloaded"),
    Failed("overloaded_529", fails(529), 529, "server_error", "overloaded"),
    Failed("server_error", fails(500), 500, "server_error", "server_error"),
    Failed("html", {"do": "html"}, 502, "server_error", "server_error"),
    Failed("garbage", {"do": "garbage"}, 502, "server_error", "server_error"),
    Failed("redirect", {"do": "redirect"}, 502, "server_error", "server_error"),
    Failed("reset", {"do": "reset_before_headers"}, 503, "server_error", "unreachable"),
    Failed("silent", {"do": "silent"}, 504, "server_error", "too_slow"),
    Failed("cut", {"do": "cut", "after": 0}, 502, "server_error", "truncated"),
    Failed(
        "rate_limited",
        [fails(429, 50), fails(429, 20), fails(429, 40)],
        429,
        "rate_limit_error",
        "rate_limited",
        # That of the provider which is free first.
        retry_after=(10, 20),
    ),
    Failed("bad_key", fails(401), 401, "api_error", "bad_key", useless=True, retry_after=(280, 300)),
    Failed("out_of_quota", fails(402), 402, "api_error", "out_of_quota", useless=True, retry_after=(580, 600)),
    Failed("no_such_model", fails(404), 404, "api_error", "no_such_model", useless=True, retry_after=(280, 300)),
    Failed("unwilling", fails(412), 412, "api_error", "unwilling", useless=True),
    Failed("mostly_useless", [fails(401), fails(402), fails(503)], 503, "server_error", "overloaded"),
    Failed("useless_at_last", [fails(503), fails(402), fails(401)], 401, "api_error", "bad_key"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", FAILED, ids=lambda case: case.name)
def test_when_every_provider_failed_the_client_hears_what_each_came_to(world: World, case: Failed, stream: bool) -> None:
    steps = case.steps if isinstance(case.steps, list) else [case.steps] * len(PROVIDERS)
    for name, step in zip(PROVIDERS, steps):
        world.fakes[name].script(default=step)
    # Short only where the limit is what ends an attempt: on a busy machine any answer may take half a second.
    limits = {"limits": {"first_token": "500ms", "answer": "500ms"}} if case.outcome == "too_slow" else {}
    answer = ask(world.gateway(limits), stream=stream)
    error = assert_error(answer, case.status, case.kind, "all_providers_failed")
    assert answer.attempts[-1] == f"shareai:{case.outcome}"
    assert [attempt.split(":")[0] for attempt in answer.attempts] == asked(world)
    assert set(asked(world)) == set(PROVIDERS)
    # The message tells the same story as the header, with the time that each took.
    told = re.findall(r"(\w+): (\w+)(?: \(\d+\))? after \d+ ms", error["message"])
    assert [f"{name}:{outcome}" for name, outcome in told] == answer.attempts
    assert answer.headers.get("x-should-retry") == ("false" if case.useless else None)
    if case.retry_after is None:
        assert "retry-after" not in answer.headers
    else:
        least, most = case.retry_after
        assert least <= int(answer.headers["retry-after"]) <= most
    assert "x-shunt-provider" not in answer.headers


def test_when_nobody_listens_the_client_hears_it(world: World) -> None:
    for name in PROVIDERS:
        world.fakes[name].listen(False)
    answer = ask(world.gateway())
    assert_error(answer, 503, "server_error", "all_providers_failed")
    assert answer.attempts == [f"{name}:unreachable" for name in PROVIDERS]


# What Envoy answers before any filter runs.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: many\r\n\r\n".encode(), 400, id="length"),
        pytest.param(f"POST {CHAT} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode(), 400, id="no_host"),
        pytest.param(
            f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
            400,
            id="smuggling",
        ),
        pytest.param(b"THIS IS NOT HTTP\r\n\r\n", 400, id="garbage"),
        pytest.param(request_head(2, "x-long: " + "x" * 100_000) + b"{}", 431, id="long_headers"),
        pytest.param(request_head(2, *(f"x-{n}: 1" for n in range(1000))) + b"{}", 431, id="many_headers"),
    ],
)
def test_what_envoy_itself_refuses_is_told_in_the_envelope(world: World, request_bytes: bytes, status: int) -> None:
    seen, headers, body = raw_exchange(world.gateway(), request_bytes)
    assert seen == status
    assert headers["content-type"] == "application/json"
    error = error_of(body)
    assert (error["type"], error["code"]) == (INVALID, f"gateway_{status}")
    assert_nobody_was_asked(world)


HANDSHAKE = (
    f"GET {CHAT} HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: c2h1bnQtc2h1bnQtIQ==\r\n\r\n"
).encode()


def test_a_websocket_is_refused_as_such_and_not_as_a_wrong_key(world: World) -> None:
    status, headers, body = raw_exchange(world.gateway(), HANDSHAKE)
    assert (status, headers["content-type"]) == (400, "application/json")
    error = error_of(body)
    assert (error["type"], error["code"]) == (INVALID, "upgrade_not_supported")
    assert_nobody_was_asked(world)


# Input that is large, deep or odd, and yet a request.


def assert_body_arrived(world: World, name: str, sent: bytes) -> None:
    """A provider's last request is what the client sent, to the byte, but for the model's name."""
    model, path = PROVIDERS[name]
    expected = sent.replace(b'"assistant"', json.dumps(model).encode(), 1)
    seen = world.fakes[name].log()[-1]
    assert (seen["body_length"], seen["body_sha256"]) == (len(expected), hashlib.sha256(expected).hexdigest())
    assert seen["path"] == path
    assert dict(seen["headers"])["authorization"] == f"Bearer sk-{name}"


def nested(levels: int) -> bytes:
    return b'{"messages":[],"x":' + b"[" * levels + b"]" * levels + b',"model":"assistant"}'


BODIES = {
    "10_megabytes": json.dumps(chat(text="x" * 10_000_000)).encode(),
    "10_megabytes_model_first": b'{"model":"assistant","messages":[{"role":"user","content":"' + b"x" * 10_000_000 + b'"}]}',
    "100_levels": nested(100),
    "100_000_levels": nested(100_000),
    "5_000_messages": json.dumps({**chat(), "messages": [{"role": "user", "content": f"no {n}"} for n in range(5000)]}).encode(),
    "spaces_everywhere": b' \n{ "messages" : [ ] ,\t"model" : "assistant" , "stream" : false }\r\n ',
    "model_within": b'{"messages":[{"role":"user","content":"\\"model\\":\\"x\\"","model":"y"}],"model":"assistant"}',
    "escaped_slash": b'{"metadata":{"a":"\\/\\u00e9\\ud83d"},"model":"assistant","n":1e400}',
}


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_large_deep_or_odd_body_is_answered_and_fails_over(world: World, body: bytes, http2: bool) -> None:
    world.fakes["openai"].script(fails(503))
    gateway = world.gateway({"limits": {"answer": "15s"}})
    over = ask(gateway, body, http2=http2)
    assert (over.status, over.text) == (200, "Hello from deepseek.")
    assert over.attempts == ["openai:overloaded", "deepseek:answered"]
    for name in ("openai", "deepseek"):
        assert_body_arrived(world, name, body)
    assert ask(gateway, body, http2=http2).attempts == ["openai:answered"]
    assert_body_arrived(world, "openai", body)


def test_a_body_that_is_no_text_is_told_so(world: World) -> None:
    body = b'{"messages":[{"role":"user","content":"\xff\xfe"}],"model":"assistant"}'
    answer = ask(world.gateway(), body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert world.counts() == {"openai": 0, "deepseek": 0, "shareai": 0}


def test_header_values_that_are_no_text_do_no_harm(world: World) -> None:
    body = json.dumps(chat()).encode()
    odd = ["x-odd: \xff\xfe\x80", "traceparent: \xe9", "accept: \xff", "user-agent: \xff", "content-type: \xff"]
    status, headers, answer = raw_exchange(world.gateway(), request_head(len(body), *odd) + body)
    assert (status, headers["x-shunt-attempts"]) == (200, "openai:answered")
    assert json.loads(answer)["choices"]
    assert asked(world) == ["openai"]


def test_an_option_that_is_no_text_is_refused(world: World) -> None:
    body = json.dumps(chat(True)).encode()
    status, _, answer = raw_exchange(world.gateway(), request_head(len(body), "x-shunt-stream: \xff\xfe") + body)
    assert (status, error_of(answer)["code"]) == (400, "invalid_option")
    assert_nobody_was_asked(world)


STEERING = {
    "x-envoy-max-retries": "0",
    "x-envoy-retry-on": "5xx",
    "x-envoy-retriable-status-codes": "400",
    "x-envoy-retriable-header-names": "content-type",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-upstream-alt-stat-name": "evil",
    "x-envoy-original-path": "/evil",
    "x-envoy-decorator-operation": "evil",
    "x-envoy-force-trace": "true",
    "x-shunt-mode": "live",
    "x-shunt-next": "shareai",
    "x-shunt-cluster": "shareai",
    "x-shunt-retry": "1",
    "x-shunt-wait": "60",
    "x-shunt-provider": "shareai",
    "x-shunt-attempts": "evil:answered",
    "openai-organization": "the-clients",
    "openai-project": "the-clients",
    "cookie": "session=the-clients",
    "api-key": CLIENT_KEY,
    "x-api-key": CLIENT_KEY,
    "x-forwarded-for": "192.0.2.1",
}


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_no_header_of_a_client_steers_the_gateway_or_reaches_a_provider(world: World, stream: bool, http2: bool) -> None:
    world.fakes["openai"].script({**fails(503), "delay": 0.1})
    answer = ask(world.gateway(), stream=stream, headers=STEERING, http2=http2)
    assert (answer.status, answer.text) == (200, "Hello from deepseek.")
    assert answer.attempts == ["openai:overloaded", "deepseek:answered"]
    # `seen`, in here, checks every header that a provider got.
    assert asked(world) == ["openai", "deepseek"]


def test_the_clients_query_does_not_cross(world: World) -> None:
    answer = ask(world.gateway(), path=f"{CHAT}?api-version=1&key={CLIENT_KEY}")
    assert answer.attempts == ["openai:answered"]
    assert asked(world) == ["openai"]


# Uploads of every form.


@pytest.mark.parametrize("size", [1, 7, 100_000], ids=lambda size: f"by_{size}")
def test_a_chunked_upload_is_served_and_fails_over(world: World, size: int) -> None:
    world.fakes["openai"].script(fails(503))
    body = json.dumps(chat(text="héllo" * (1 if size == 1 else 50_000))).encode()
    body = body if size > 7 else body[:-1] + b" " * 200 + b"}"
    answer = upload(world.gateway(), pieces(body, size if len(body) < 100_000 else 5_000))
    assert (answer.status, answer.text) == (200, "Hello from deepseek.")
    assert asked(world) == ["openai", "deepseek"]
    assert_body_arrived(world, "deepseek", body)


def test_trailers_of_a_chunked_upload_do_not_cross(world: World) -> None:
    body = json.dumps(chat()).encode()
    chunked = f"{len(body):x}\r\n".encode() + body + f"\r\n0\r\nx-trailer: {CLIENT_KEY}\r\n\r\n".encode()
    status, headers, _ = raw_exchange(world.gateway(), request_head(None, "transfer-encoding: chunked") + chunked)
    assert (status, headers["x-shunt-attempts"]) == (200, "openai:answered")
    assert asked(world) == ["openai"]


def http2_with_trailers(gateway: Gateway, body: bytes, told: bool = True) -> tuple[dict[str, str], bytes]:
    """A request over HTTP/2 whose body ends with trailers, which httpx cannot send. `told`: its head has a content-length."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    head = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "gateway")]
    connection.send_headers(1, [*head, *([("content-length", str(len(body)))] if told else [])])
    connection.send_data(1, body)
    connection.send_headers(1, [("x-trailer", CLIENT_KEY)], end_stream=True)
    headers: dict[str, str] = {}
    answer = b""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as wire:
        while True:
            wire.sendall(connection.data_to_send())
            for event in connection.receive_data(wire.recv(1 << 16)):
                if isinstance(event, h2.events.ResponseReceived):
                    headers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    answer += event.data
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return headers, answer


@pytest.mark.parametrize("told", [True, False], ids=["length", "no_length"])
def test_a_request_that_ends_with_trailers_is_served_and_fails_over(world: World, told: bool) -> None:
    world.fakes["openai"].script(fails(503))
    headers, body = http2_with_trailers(world.gateway(), json.dumps(chat()).encode(), told)
    assert (headers[":status"], headers["x-shunt-attempts"]) == ("200", "openai:overloaded,deepseek:answered")
    assert json.loads(body)["choices"]
    assert asked(world) == ["openai", "deepseek"]


def trailers_received_by(listener: socket.socket, into: list[tuple[str, str]]) -> None:
    """An HTTP/2 provider of one request, which notes the trailers; the fake does not look at them."""
    wire, _ = listener.accept()
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    with wire:
        while True:
            wire.sendall(connection.data_to_send())
            data = wire.recv(1 << 16)
            if not data:
                return
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived):
                    into.extend(event.headers)
                elif isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "400")], end_stream=True)


def test_no_trailer_of_a_client_reaches_a_provider(world: World) -> None:
    trailers: list[tuple[str, str]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trailers_received_by, args=(listener, trailers), daemon=True).start()
        gateway = world.gateway(upstreams={"openai": Upstream(listener.getsockname()[1], http2=True)})
        headers, _ = http2_with_trailers(gateway, json.dumps(chat()).encode())
    assert (headers[":status"], headers["x-shunt-attempts"]) == ("200", "openai:bad_request,deepseek:answered")
    assert trailers == []
