"""What a hostile client or provider may try: the gateway lives, nobody else pays for it, and nothing goes where it must not."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from accounts import records
from support import CHAT, CLIENT_KEY, Gateway, Json, Upstream, World, ask, assert_no_trap, chat, wait_for
from test_edges import CONTENT, FINISH, ONE_FAILURE_OPENS, Serve, provider, read_request, with_trailers
from vendors import Vendors, asked, record_of

MIB = 1 << 20
ANTHROPIC: Json = {"host": "api.anthropic.test", "api_key": "$ANTHROPIC_API_KEY", "dialect": "anthropic"}
FILES: list[Json] = [{"path": "/v1/files*", "provider": "shareai"}]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def document(body: Json, status: bytes = b"200 OK") -> bytes:
    """A whole HTTP/1.1 response."""
    text = json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(text), text)


def completion(text: str, **more: Any) -> Json:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}


def values(entry: Json, name: str) -> list[str]:
    """Every value of one header that a provider got."""
    return [value for key, value in entry["headers"] if key.lower() == name]


# Memory


def test_many_large_chats_that_wait_for_a_translation_do_not_end_the_gateway(vendors: Vendors) -> None:
    """The first provider holds all of them and fails; what is kept for the second, who speaks Anthropic, has a limit."""
    clients, body = 14, json.dumps(chat(text="a" * (18 * MIB))).encode()
    go, lock, count = threading.Event(), threading.Lock(), {"openai": 0, "anthropic": 0, "shareai": 0}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "stop_reason": "end_turn"}
    message |= {"content": [{"type": "text", "text": "from anthropic"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
    responses = {
        "openai": document({}, b"503 Unavailable"),
        "anthropic": document(message),
        "shareai": document(completion("from shareai")),
    }

    def serving(name: str) -> Serve:
        def serve(connection: socket.socket) -> None:
            while True:
                skip_request(connection)
                with lock:
                    count[name] += 1
                if name == "openai":
                    assert go.wait(60)
                connection.sendall(responses[name])

        return serve

    providers = {"anthropic": {**ANTHROPIC, "models": {"assistant": "claude-sonnet-4-6"}}}
    limits = {"first_token": "60s", "answer": "60s"}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(provider(serving(name))) for name in responses}
        stack.callback(go.set)
        routes = [{"name": "it", "match": {"path": CHAT}, "providers": list(ports)}]
        breaker = {"consecutive_failures": 1000}
        gateway = vendors.gateway(
            {"providers": providers, "routes": routes, "limits": limits, "breaker": breaker},
            {name: Upstream(port) for name, port in ports.items()},
        )
        with ThreadPoolExecutor(clients) as pool:
            futures = [pool.submit(ask, gateway, body, timeout=60) for _ in range(clients)]
            wait_for(lambda: count["openai"] == clients, 60, "the first provider to hold all of them")
            assert_no_trap(gateway)
            go.set()
            answers = [future.result() for future in futures]
        assert [answer.status for answer in answers] == [200] * clients, [answer.raw[:300] for answer in answers]
        assert {answer.text for answer in answers} == {"from anthropic", "from shareai"}
        by = {name: sum(answer.provider == name for answer in answers) for name in ("anthropic", "shareai")}
        assert count == {"openai": clients, **by}
        for answer in answers:
            assert answer.attempts == ["openai:overloaded", f"{answer.provider}:answered"]
        # They are over, and what they kept is free again.
        again = ask(gateway, body, timeout=60)
        assert (again.text, again.attempts) == ("from anthropic", ["openai:overloaded", "anthropic:answered"])
    assert_no_trap(gateway)


def skip_request(connection: socket.socket) -> None:
    """Reads one request as `read_request` does, and keeps nothing of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("closed")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    left = length - len(body)
    while left > 0:
        piece = connection.recv(min(left, MIB))
        if not piece:
            raise OSError("closed")
        left -= len(piece)


def test_a_long_id_is_not_repeated_in_every_chunk_that_lacks_one(world: World) -> None:
    chunks = 2000
    first = {"id": "a" * MIB, "object": "chat.completion.chunk", "created": 1, "model": "m"}
    first["choices"] = [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]
    begin = b"data: %s\n\n" % json.dumps(first).encode()
    bare = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD + begin + bare * chunks + FINISH + b"data: [DONE]\n\n")

    with provider(serve) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True)
        again = ask(gateway, stream=True)
    for one in (answer, again):
        one.assert_whole_stream()
        assert one.attempts == ["openai:answered"]
        assert one.text == "hi" + "x" * chunks
        assert len(one.raw) < 5 * MIB
    assert_no_trap(gateway)


# Work


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(['"max_completion_tokens":1'] * 80_000, id="80000-times-the-same"),
        pytest.param([f'"max_completion_tokens":{n}' for n in range(300)], id="300-values"),
        pytest.param([f'"dropped_{n}":{n}' for n in range(300)], id="300-names"),
    ],
)
def test_a_parameter_that_is_repeated_without_end_is_refused_and_holds_up_nobody(vendors: Vendors, entries: list[str]) -> None:
    dialect = {"like": "deepseek", "parameters": {"drop": [f"dropped_{n}" for n in range(300)]}}
    gateway = vendors.serve("deepseek", changes={"providers": {"deepseek": {"dialect": dialect}}})
    body = '{"model":"assistant","max_tokens":1,%s,"messages":[{"role":"user","content":"a"}]}' % ",".join(entries)
    with ThreadPoolExecutor(4) as pool:
        hostile = [pool.submit(ask, gateway, body.encode()) for _ in range(3)]
        other = pool.submit(ask, gateway)
        assert other.result().attempts == ["deepseek:answered"]
        for future in hostile:
            answer = future.result()
            assert (answer.status, answer.error["code"]) == (400, "invalid_json")
            assert answer.attempts == []
    (seen,) = vendors.seen("deepseek")
    assert seen["body"]["messages"] == chat()["messages"]
    assert_no_trap(gateway)


# Translated requests


def http2_request(gateway: Gateway, body: bytes, pieces: int, told: bool) -> tuple[Json, bytes]:
    """A request over HTTP/2, in so many pieces, each of which has been received before the next; then trailers. `told`: its head
    has a content-length."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    head = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "gateway")]
    connection.send_headers(1, [*head, *([("content-length", str(len(body)))] if told else [])])
    size = -(-len(body) // pieces)
    headers: Json = {}
    answer = b""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as wire:

        def received() -> list[Any]:
            wire.sendall(connection.data_to_send())
            data = wire.recv(65536)
            assert data, "the gateway closed the connection"
            return connection.receive_data(data)

        for start in range(0, len(body), size):
            connection.send_data(1, body[start : start + size])
            connection.ping(b"received")
            while not any(isinstance(event, h2.events.PingAckReceived) for event in received()):
                pass
        connection.send_headers(1, [("x-trailer", CLIENT_KEY)], end_stream=True)
        while True:
            for event in received():
                if isinstance(event, h2.events.ResponseReceived):
                    headers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    answer += event.data
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return headers, answer


@pytest.mark.parametrize("told", [True, False], ids=["length", "no_length"])
@pytest.mark.parametrize("pieces", [1, 4], ids=["one-piece", "four-pieces"])
def test_a_request_with_trailers_is_translated_whole(vendors: Vendors, pieces: int, told: bool) -> None:
    gateway = vendors.serve("anthropic", "shareai", changes=ONE_FAILURE_OPENS)
    text = "".join(f"word {n} " for n in range(1000))
    for _ in range(3):
        headers, raw = http2_request(gateway, json.dumps(chat(text=text)).encode(), pieces, told)
        assert (headers[":status"], headers["x-shunt-attempts"]) == ("200", "anthropic:answered")
        assert json.loads(raw)["choices"][0]["message"]["content"] == "Hello from anthropic."
    bodies = vendors.bodies("anthropic")
    assert [body["messages"] for body in bodies] == [[{"role": "user", "content": text}]] * 3
    for entry in vendors.seen("anthropic"):
        assert entry["ended"] == "complete"
        assert [int(length) for length in values(entry, "content-length")] in ([], [entry["body_length"]])
    # One failure would have opened its breaker.
    answer = ask(gateway)
    assert answer.attempts == ["anthropic:answered"] and "x-shunt-degraded" not in answer.headers
    assert asked(vendors) == ["anthropic"] * 4
    assert_no_trap(gateway)


# Paths


def get(gateway: Gateway, path: str) -> int:
    """The status for a path exactly as it is written; a client would put it right."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        head = f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {CLIENT_KEY}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        status = connection.makefile("rb").readline()
    return int(status.split()[1])


def test_a_listed_path_cannot_climb_out_of_what_is_listed(vendors: Vendors) -> None:
    gateway = vendors.serve("openai", "shareai", changes={"passthrough": FILES})
    hostile = [
        "/v1/files/../organization/admin_api_keys",
        "/v1/files/..",
        "/v1/files/./../x",
        "/v1/files/../../x",
        "/v1/files/%2e%2e/organization",
        "/v1/files/.%2E/organization",
        "/v1/files/..%2Forganization",
        "/v1/files%2forganization",
        "/v1/files/..\\organization",
        "/v1/files/..%5corganization",
        "/v1/files//organization",
        "/v1/files/../organization?a=b",
        "/v1/filesystem",
        "/v1/files_other/x",
    ]
    assert {path: get(gateway, path) for path in hostile} == dict.fromkeys(hostile, 404)
    assert asked(vendors) == []
    # What is behind the question mark is no path.
    vendors.fakes["shareai"].script(default={"do": "status", "status": 200, "body": {"object": "list"}})
    plain = ["/v1/files", "/v1/files/x?y=z", "/v1/files/x?y=../z%2F"]
    assert {path: get(gateway, path) for path in plain} == dict.fromkeys(plain, 200)
    assert asked(vendors) == ["shareai"] * len(plain)
    assert [entry["path"] for entry in vendors.seen("shareai")] == plain
    assert_no_trap(gateway)


def test_a_model_in_a_path_stays_one_segment(vendors: Vendors) -> None:
    dialect = {"paths": {"chat/completions": "/deployments/{model}/chat/completions"}}
    gateway = vendors.serve("shareai", changes={"providers": {"shareai": {"dialect": dialect}}})
    segments = {"..": "-", ".": "-", "../x": "..-x", "a/../b": "a-..-b", "..?": "..-", "a.b": "a.b"}
    for model in segments:
        assert ask(gateway, chat(model=model)).attempts == ["shareai:answered"]
    seen = [(entry["path"], entry["body"]["model"]) for entry in vendors.seen("shareai")]
    assert seen == [(f"/v1/deployments/{segment}/chat/completions", model) for model, segment in segments.items()]
    assert_no_trap(gateway)


# Budgets


def test_one_request_cannot_reserve_a_budget_of_all(vendors: Vendors) -> None:
    prices = {"openai": {"gpt-5.4-mini": {"input": 1, "output": 1}}}
    budgets = [{"name": "all", "limit": 10, "per": "month"}]
    limits = {"first_token": "60s", "answer": "60s"}
    gateway = vendors.serve("openai", changes={"prices": prices, "budgets": budgets, "limits": limits})
    vendors.fakes["openai"].script({"do": "hold", "after": 0}, default={"do": "answer"})
    with ThreadPoolExecutor(1) as pool:
        # A million dollars, if anybody could answer so much.
        greedy = pool.submit(ask, gateway, chat(max_tokens=10**12))
        vendors.fakes["openai"].wait_for(holding=1)
        meanwhile = ask(gateway)
        assert (meanwhile.status, meanwhile.attempts) == (200, ["openai:answered"]), meanwhile.raw
        vendors.fakes["openai"].release()
        assert greedy.result().status == 200
    assert ask(gateway).status == 200
    assert [body.get("max_tokens") for body in vendors.bodies("openai")] == [10**12, None, None]
    assert_no_trap(gateway)


# Headers


@pytest.mark.parametrize(
    ("name", "provider_name", "changes", "value"),
    [
        pytest.param("x-acme-key", "openai", {"dialect": {"key": {"header": "x-acme-key"}}}, "sk-openai", id="key"),
        pytest.param("x-acme", "openai", {"dialect": {"headers": {"x-acme": "ours"}}}, "ours", id="constant"),
        pytest.param("anthropic-version", "anthropic", {}, "2023-06-01", id="anthropic-version"),
    ],
)
def test_a_header_that_the_gateway_writes_is_never_the_clients(
    vendors: Vendors, name: str, provider_name: str, changes: Json, value: str
) -> None:
    mine = {provider_name: {**changes, "allow_headers": [name, "openai-beta"]}}
    passes = [{"path": "/v1/files*", "provider": provider_name}]
    gateway = vendors.serve(provider_name, changes={"providers": mine, "passthrough": passes})
    headers = {name: CLIENT_KEY, "openai-beta": "assistants=v2"}
    assert ask(gateway, headers=headers).attempts == [f"{provider_name}:answered"]
    ask(gateway, b"", path="/v1/files", method="GET", headers=headers)
    chatted, passed = vendors.fakes[provider_name].log()
    assert passed["path"] == "/v1/files"
    for entry in (chatted, passed):
        assert values(entry, name) == [value]
        # The list itself is in force.
        assert values(entry, "openai-beta") == ["assistants=v2"]
        assert CLIENT_KEY not in json.dumps(entry["headers"])
    assert_no_trap(gateway)


# Connections


def test_a_reset_of_what_passes_on_a_reused_connection_is_an_error_and_the_next_chat_still_goes_there(vendors: Vendors) -> None:
    gateway = vendors.serve("shareai", "openai", changes={"passthrough": FILES, "breaker": {"consecutive_failures": 1}})
    vendors.fakes["shareai"].script(default={"do": "reset_reused"})
    assert ask(gateway).attempts == ["shareai:answered"]
    # It says nothing about chats: one failure would open the breaker.
    passed = ask(gateway, b"", path="/v1/files", method="GET")
    assert passed.status in (502, 503), passed.raw
    assert passed.error
    after = ask(gateway)
    assert after.attempts == ["shareai:answered"] and "x-shunt-degraded" not in after.headers
    assert asked(vendors) == ["shareai"] * 3
    warmed, stale, fresh = (entry["connection"] for entry in vendors.seen("shareai"))
    assert warmed == stale != fresh
    lines = [(line["status"], line["outcome"], line["route"]) for line in records(gateway, 3)]
    assert lines == [(200, "answered", "it"), (passed.status, "failed", "passthrough"), (200, "answered", "it")]
    assert_no_trap(gateway)


# Bodies


def test_an_empty_previous_response_in_a_chat_keeps_the_other_providers(vendors: Vendors) -> None:
    gateway = vendors.serve("shareai", "deepseek")
    vendors.fakes["shareai"].script(default={"do": "status", "status": 503})
    for previous in ("", "resp_1"):
        answer = ask(gateway, chat(previous_response_id=previous))
        assert (answer.status, answer.provider) == (200, "deepseek")
        assert answer.attempts == ["shareai:overloaded", "deepseek:answered"]
    assert asked(vendors) == ["shareai", "deepseek"] * 2
    assert_no_trap(gateway)


@pytest.mark.parametrize("error", [{}, False, None], ids=json.dumps)
def test_an_error_that_says_nothing_beside_a_good_answer_is_an_answer(world: World, error: Any) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}], "error": error}
    stream = b"data: %s\n\n%sdata: [DONE]\n\n" % (json.dumps(chunk).encode(), FINISH)
    whole = document(completion("hi", error=error))

    responses = iter([whole, STREAM_HEAD + stream])

    def serve(connection: socket.socket) -> None:
        response = whole
        while response is whole:
            read_request(connection)
            response = next(responses)
            connection.sendall(response)

    with provider(serve) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port)})
        for streams in (False, True):
            answer = ask(gateway, stream=streams)
            assert (answer.status, answer.attempts) == (200, ["openai:answered"]), answer.raw
            assert answer.text == "hi"
    assert [line["outcome"] for line in records(gateway, 2)] == ["answered", "answered"]
    assert world.counts() == {"openai": 0, "deepseek": 0, "shareai": 0}
    assert_no_trap(gateway)


# Trailers of a provider


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_stream_that_is_finished_but_for_its_last_line_when_trailers_come_is_answered(world: World, http2: bool) -> None:
    """Every event comes through; `[DONE]` does not, since nothing can be written once there are trailers."""
    with provider(with_trailers(CONTENT, CONTENT, FINISH)) as port:
        gateway = world.gateway(ONE_FAILURE_OPENS, upstreams={"openai": Upstream(port, http2=True)})
        answers = [ask(gateway, stream=True, http2=http2) for _ in range(2)]
    for answer in answers:
        assert (answer.broken, answer.attempts) == (None, ["openai:answered"])
        assert answer.text == "hihi"
        assert answer.events[-1]["choices"][0]["finish_reason"] == "stop"
        assert b"[DONE]" not in answer.raw and b'"error"' not in answer.raw
    assert [line["outcome"] for line in records(gateway, 2)] == ["answered", "answered"]
    assert_no_trap(gateway)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("missing", [1, 2], ids=["blank-line", "end-of-line"])
def test_a_finish_that_is_lost_with_its_blank_line_when_trailers_come_is_no_clean_end(
    world: World, missing: int, http2: bool
) -> None:
    with provider(with_trailers(CONTENT, CONTENT, FINISH[:-missing])) as port:
        gateway = world.gateway(upstreams={"openai": Upstream(port, http2=True)}, idle=1.0)
        answer = ask(gateway, stream=True, http2=http2)
    assert answer.attempts == ["openai:answered"]
    assert answer.broken, answer.raw
    assert answer.text == "hihi"
    assert b"[DONE]" not in answer.raw and b"finish_reason\":\"stop" not in answer.raw
    assert record_of(gateway)["outcome"] == "truncated"
    assert_no_trap(gateway)
