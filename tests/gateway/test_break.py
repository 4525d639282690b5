"""A live stream that breaks off after its release, where the route says `"on_break": "event"`: its client is told so.

Such a stream takes the detour: an internal listener of Envoy that speaks HTTP/1.0.
"""

from __future__ import annotations

import concurrent.futures
import json
import socket
from typing import Any, Callable

import httpx
import pytest

from accounts import records
from server import PLAIN
from support import CHAT, CLIENT_KEY, Answer, Json, Upstream, World, ask, asked, chat, raw_exchange, request_head, wait_for
from test_edges import CONTENT, FINISH, ONE_FAILURE_OPENS, Serve, provider, read_request, with_trailers
from test_errors import upload
from test_traces import SENT, TRACE, Collector
from vendors import client_of

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
PATHS = [CHAT, COMPLETIONS, RESPONSES]
ALL = ["openai", "deepseek", "shareai"]
#: Between the events of a stream: what comes before the fault has left the provider by then.
GAP = 0.02
EVENT: Json = {"on_break": "event"}
CUT: Json = {"do": "cut", "after": 3, "gap": GAP}
#: How many requests have taken the detour.
TAKEN = "http.shunt_detour.downstream_rq_total"


def routes(stream: Json = EVENT) -> Json:
    """One route for each path."""
    return {"routes": [{"name": path, "match": {"path": path}, "providers": ALL, "stream": stream} for path in PATHS]}


def body(path: str, stream: bool = True) -> Json:
    if path == CHAT:
        return chat(stream=stream)
    return {"model": "assistant", "prompt" if path == COMPLETIONS else "input": "hello", "stream": stream}


def said(answer: Answer, path: str) -> str:
    """The text that the client has received."""
    events = [event for event in answer.events if event != "[DONE]"]
    if path == RESPONSES:
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    choices = [choice for event in events for choice in event.get("choices", [])]
    return "".join((choice["delta"].get("content") or "") if path == CHAT else choice["text"] for choice in choices)


def assert_told(answer: Answer, path: str = CHAT) -> None:
    """The client has a part of the answer, then the error event, and then the end of its stream."""
    assert (answer.status, answer.broken) == (200, None)
    assert said(answer, path) and "Hello from openai.".startswith(said(answer, path))
    *before, last = answer.events
    assert b"[DONE]" not in answer.raw
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "stream_truncated")
    assert not any(event.get("error") for event in before)
    if path == RESPONSES:
        assert [event["sequence_number"] for event in answer.events] == list(range(len(answer.events)))
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        created = before[0]["response"]
        assert {key: last["response"][key] for key in ("id", "created_at", "model")} == {
            key: created[key] for key in ("id", "created_at", "model")
        }


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(CUT, id="reset"),
        pytest.param({**CUT, "how": "fin"}, id="fin"),
        pytest.param({"do": "stall", "after": 3, "gap": GAP}, id="stall"),
        pytest.param({"do": "clean_cut", "after": 3, "gap": GAP}, id="clean"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_a_released_stream_that_breaks_off_ends_with_an_error_event(world: World, path: str, step: Json) -> None:
    world.fakes["openai"].script(step)
    gateway = world.gateway({**routes(), **ONE_FAILURE_OPENS, "limits": {"first_token": "5s"}}, idle=1)
    assert_told(ask(gateway, body(path), path=path), path)
    assert [(entry["path"]) for entry in world.log("openai")] == [path]
    assert world.log("deepseek") == world.log("shareai") == []
    (record,) = records(gateway, 1)
    assert (record["outcome"], [attempt["outcome"] for attempt in record["attempts"]]) == ("truncated", ["truncated"])
    # It counts as a failure of the provider.
    assert ask(gateway, body(path, stream=False), path=path).headers["x-shunt-degraded"] == "openai:open"


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_that_takes_the_detour_is_the_same_as_without(world: World, path: str) -> None:
    answers = []
    for stream in (EVENT, {}):
        for fake in world.fakes.values():
            fake.reset()
        gateway = world.gateway(routes(stream))
        answers.append(ask(gateway, body(path), path=path))
        assert gateway.stat(TAKEN) == (1 if stream else 0)
        assert [record["outcome"] for record in records(gateway, 1)] == ["answered"]
        assert len(world.log("openai")) == 1

    def seen(answer: Answer) -> Any:
        """All but what the time has made."""
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        text = answer.raw.decode()
        for event in answer.events[:1]:
            text = text.replace(str(event.get("created") or event["response"]["created_at"]), "NOW")
        return answer.status, answer.broken, headers, text

    assert seen(answers[0]) == seen(answers[1])


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ({"do": "reset_before_headers"}, "unreachable"),
        ({"do": "cut", "after": 0}, "truncated"),
        ({"do": "clean_cut", "after": 0}, "truncated"),
        ({"do": "silent"}, "too_slow"),
        ({"do": "status", "status": 503}, "overloaded"),
    ],
    ids=["reset", "cut", "clean_cut", "silent", "status"],
)
def test_before_the_release_a_break_moves_on_as_without_the_detour(world: World, step: Json, outcome: str) -> None:
    found = []
    for stream in (EVENT, {}):
        for fake in world.fakes.values():
            fake.reset()
        world.fakes["openai"].script(default=step)
        gateway = world.gateway({**routes(stream), **ONE_FAILURE_OPENS})
        answer = ask(gateway, stream=True)
        answer.assert_whole_stream()
        assert (answer.provider, answer.text) == ("deepseek", "Hello from deepseek.")
        assert answer.attempts[-1] == "deepseek:answered" and answer.attempts[0] == f"openai:{outcome}"
        found.append((answer.attempts, asked(world), ask(gateway).headers["x-shunt-degraded"]))
    assert found[0] == found[1]


def test_every_provider_that_failed_is_named_to_the_client(world: World) -> None:
    for fake in world.fakes.values():
        fake.script(default={"do": "status", "status": 503})
    gateway = world.gateway(routes())
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.error["code"]) == (503, "all_providers_failed")
    assert answer.attempts == ["openai:overloaded", "deepseek:overloaded", "shareai:overloaded"]
    assert gateway.stat(TAKEN) == 1


def test_the_error_of_a_provider_reaches_the_client_whole(world: World) -> None:
    world.fakes["openai"].script({"do": "status", "status": 400, "code": "content_filter", "message": "max_tokens is too large: " + "9" * 5000})
    answer = ask(world.gateway(routes()), stream=True)
    assert (answer.status, answer.broken, asked(world)) == (400, None, ["openai"])
    assert answer.error["message"].endswith("9" * 5000)


@pytest.mark.parametrize("http2", [False, True], ids=["client_h1", "client_h2"])
@pytest.mark.parametrize("connection", [False, True], ids=["stream", "connection"])
def test_a_stream_of_http_2_that_breaks_off_is_told_in_every_version(world2: World, connection: bool, http2: bool) -> None:
    world2.fakes["openai"].script({**CUT, "connection": connection})
    gateway = world2.gateway(routes())
    assert_told(ask(gateway, stream=True, http2=http2))
    assert [record["outcome"] for record in records(gateway, 1)] == ["truncated"]
    assert asked(world2) == ["openai"]


def test_a_client_of_http_1_0_is_told_as_well(world: World) -> None:
    world.fakes["openai"].script(CUT)
    content = json.dumps(chat(stream=True)).encode()
    status, _, raw = raw_exchange(world.gateway(routes()), request_head(len(content), version="1.0") + content)
    assert status == 200 and b"[DONE]" not in raw
    assert json.loads(raw.strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]["code"] == "stream_truncated"


@pytest.mark.parametrize("path", PATHS)
def test_the_official_client_raises_with_the_reason(world: World, path: str) -> None:
    from openai import APIError

    world.fakes["openai"].script(CUT)
    gateway = world.gateway(routes())
    received = 0
    with client_of(gateway) as client, pytest.raises(APIError) as caught:
        events: Any = {
            CHAT: lambda: client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "hi"}], stream=True),
            COMPLETIONS: lambda: client.completions.create(model="assistant", prompt="hi", stream=True),
            RESPONSES: lambda: client.responses.create(model="assistant", input="hi", stream=True),
        }[path]()
        for _ in events:
            received += 1
    assert (caught.value.code, "openai broke off" in caught.value.message) == ("stream_truncated", True)
    assert received >= 3


def test_the_spans_of_the_attempts_are_in_the_trace_if_the_detour_has_the_tracer_too(world: World) -> None:
    collector = Collector()

    def edit(listeners: Json, clusters: Json) -> None:
        collector.edit(listeners, clusters)
        first, detour = (
            next(one for one in listeners["resources"] if one["name"] == name)["filter_chains"][0]["filters"][-1]["typed_config"]
            for name in ("shunt", "shunt_detour")
        )
        detour["tracing"] = first["tracing"]

    try:
        world.fakes["openai"].script({"do": "status", "status": 503})
        gateway = world.gateway(routes(), edit=edit)
        assert ask(gateway, stream=True, headers=SENT).provider == "deepseek"
        spans = {span["id"]: span for span in collector.wait_for(5)}
    finally:
        collector.stop()
    assert {span["traceId"] for span in spans.values()} == {TRACE}
    attempts = {span["tags"]["upstream_cluster.name"]: span for span in spans.values() if span["kind"] == "CLIENT"}
    assert set(attempts) == {"shunt_detour", "openai", "deepseek"}
    for name in ("openai", "deepseek"):
        assert spans[spans[attempts[name]["parentId"]]["parentId"]] == attempts["shunt_detour"]
        # The provider's parent is the span of the very attempt.
        (headers,) = [dict(entry["headers"]) for entry in world.seen(name)]
        assert headers["traceparent"] == f"00-{TRACE}-{attempts[name]['id']}-01"


# What never takes the detour.

HALF = b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"The do'


def cut_whole(head: bytes, piece: bytes = HALF) -> Serve:
    """Half of a whole answer, and then the end of the connection."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + head + b"\r\n" + piece)

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(cut_whole(b"content-length: 900000\r\n"), id="content_length"),
        pytest.param(cut_whole(b"transfer-encoding: chunked\r\n", b"%x\r\n" % 900_000 + HALF), id="chunked"),
        pytest.param(cut_whole(b"connection: close\r\n"), id="close"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_whole_answer_that_is_cut_never_looks_whole(world: World, serve: Serve, stream: bool) -> None:
    with provider(serve) as port:
        gateway = world.gateway(routes(), upstreams={"openai": Upstream(port)})
        answer = ask(gateway, chat(stream))
    assert (answer.status, answer.text, answer.provider) == (200, "Hello from deepseek.", "deepseek")
    assert answer.attempts[0].split(":")[0] == "openai" and answer.attempts[0] != "openai:answered"
    assert gateway.stat(TAKEN) == (1 if stream else 0)


def test_a_whole_answer_beyond_what_is_held_is_still_reset_when_it_is_cut(world: World) -> None:
    world.fakes["openai"].script({**CUT, "after": 4, "text": "x" * 20_000})
    gateway = world.gateway({**routes(), "limits": {"max_held_bytes": 1024}})
    answer = ask(gateway)
    assert (answer.status, answer.broken, gateway.stat(TAKEN)) == (200, "RemoteProtocolError", 0)


@pytest.mark.parametrize("by", ["route", "request"])
def test_a_stream_that_is_released_when_it_is_complete_takes_no_detour(world: World, by: str) -> None:
    world.fakes["openai"].script(CUT)
    gateway = world.gateway(routes({**EVENT, **({"release": "complete"} if by == "route" else {})}))
    answer = ask(gateway, stream=True, headers={"x-shunt-stream": "complete"} if by == "request" else {})
    answer.assert_whole_stream()
    assert (answer.attempts, gateway.stat(TAKEN)) == (["openai:truncated", "deepseek:answered"], 0)


def test_what_is_passed_through_takes_no_detour(world: World) -> None:
    world.fakes["openai"].script(CUT)
    gateway = world.gateway({**routes(), "passthrough": [{"path": "/v1/threads*", "provider": "openai"}]})
    answer = ask(gateway, stream=True, path="/v1/threads/runs")
    assert gateway.stat(TAKEN) == 0
    assert b"stream_truncated" not in answer.raw


def test_a_shadow_request_takes_no_detour(world: World) -> None:
    (route, *_) = routes()["routes"]
    route = {**route, "providers": ["openai"], "shadow": {"provider": "deepseek", "share": 1, "limit": 9, "per": "day"}}
    world.fakes["openai"].script(CUT)
    world.fakes["deepseek"].script(CUT)
    prices = {"*": {model: {"input": 1, "output": 1} for model in ("gpt-5.4-mini", "deepseek-flash")}}
    gateway = world.gateway({"routes": [route], "prices": prices})
    assert_told(ask(gateway, stream=True))
    assert [record["outcome"] for record in records(gateway, 2)] == ["truncated"] * 2
    assert gateway.stat(TAKEN) == 1
    assert sorted(asked(world)) == ["deepseek", "openai"]


def test_no_header_of_a_client_leads_onto_the_detour(world: World) -> None:
    gateway = world.gateway(routes())
    forged = {"x-shunt-detour": "live/1", "transfer-encoding": "chunked", "x-envoy-upstream-rq-per-try-timeout-ms": "1"}
    assert ask(gateway, headers={"x-shunt-detour": "live/1"}).provider == "openai"
    assert gateway.stat(TAKEN) == 0
    del forged["transfer-encoding"]
    answer = ask(gateway, stream=True, headers=forged)
    answer.assert_whole_stream()
    assert "x-shunt-detour" not in json.dumps(world.seen("openai")) and gateway.stat(TAKEN) == 1


# Streams that end in the middle of something.


def pieces(*parts: bytes) -> Serve:
    """A chunked stream of these pieces, and then a reset of the connection."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))

    return serve


@pytest.mark.parametrize(
    ("serve", "outcome", "text"),
    [
        pytest.param(pieces(CONTENT, CONTENT, FINISH), "answered", "hihi", id="after_the_finish"),
        pytest.param(pieces(CONTENT, CONTENT, FINISH, b"data: [DONE]\n\n"), "answered", "hihi", id="after_done"),
        pytest.param(pieces(CONTENT, CONTENT, FINISH[:-1]), "answered", "hihi", id="before_a_blank_line"),
        pytest.param(pieces(CONTENT, CONTENT[:-20]), "truncated", "hi", id="in_an_event"),
        pytest.param(pieces(CONTENT, b": alive\n\n", b": al"), "truncated", "hi", id="in_a_comment"),
        pytest.param(pieces(CONTENT, b"event: err"), "truncated", "hi", id="in_a_name"),
    ],
)
def test_an_answer_that_is_finished_is_whole_however_its_connection_ends(
    world: World, serve: Serve, outcome: str, text: str
) -> None:
    with provider(serve) as port:
        gateway = world.gateway(routes(), upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True)
    assert (answer.broken, answer.text) == (None, text)
    if outcome == "answered":
        answer.assert_whole_stream()
    else:
        assert answer.events[-1]["error"]["code"] == "stream_truncated" and b"[DONE]" not in answer.raw
    assert [record["outcome"] for record in records(gateway, 1)] == [outcome]


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        pytest.param((CONTENT, CONTENT), "truncated", id="unfinished"),
        pytest.param((CONTENT, CONTENT, FINISH), "answered", id="finished"),
        pytest.param((CONTENT, CONTENT, FINISH[:-1]), "answered", id="finished_without_a_blank_line"),
    ],
)
def test_a_stream_that_ends_with_trailers_gets_its_end(world: World, parts: tuple[bytes, ...], outcome: str) -> None:
    with provider(with_trailers(*parts)) as port:
        gateway = world.gateway(routes(), upstreams={"openai": Upstream(port, http2=True)})
        answer = ask(gateway, stream=True)
    assert (answer.broken, answer.text) == (None, "hihi")
    if outcome == "answered":
        answer.assert_whole_stream()
    else:
        assert answer.events[-1]["error"]["code"] == "stream_truncated" and b"[DONE]" not in answer.raw
    assert [record["outcome"] for record in records(gateway, 1)] == [outcome]


# Clients.


@pytest.mark.parametrize("after", [0, 2], ids=["before_the_release", "in_the_middle"])
def test_a_client_that_leaves_ends_the_attempt_and_is_nobodys_failure(world: World, after: int) -> None:
    world.fakes["openai"].script({"do": "hold", "after": after})
    gateway = world.gateway({**routes(), **ONE_FAILURE_OPENS, "limits": {"first_token": "60s"}})
    content = json.dumps(chat(stream=True)).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
        client.sendall(request_head(len(content)) + content)
        world.fakes["openai"].wait_for(holding=1)
        if after:
            received = b""
            while b"Hel" not in received:
                received += client.recv(65536)
    wait_for(lambda: world.fakes["openai"].log()[0]["ended"], what="the attempt's end")
    assert [record["outcome"] for record in records(gateway, 1)] == ["client_gone"]
    assert gateway.stat("http.shunt_detour.downstream_rq_active") == 0
    assert ask(gateway).attempts == ["openai:answered"]


def test_many_streams_at_once_each_get_their_own_end(world: World) -> None:
    """Half of them break off."""
    world.fakes["openai"].script(*[step for _ in range(40) for step in (CUT, {"do": "answer", "gap": GAP})])
    settings = {**routes(), "breaker": {"consecutive_failures": 1000, "minimum_requests": 1000}}
    gateway = world.gateway({**settings, "limits": {"first_token": "20s"}}, workers=2)
    with httpx.Client(trust_env=False, verify=PLAIN, timeout=30, limits=httpx.Limits(max_connections=40)) as client:
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: ask(gateway, stream=True, client=client), range(80)))
    broken = [answer for answer in answers if b"[DONE]" not in answer.raw]
    for answer in answers:
        if answer in broken:
            assert_told(answer)
        else:
            answer.assert_whole_stream()
            assert answer.text == "Hello from openai."
    assert len(broken) == 40
    found = [record["outcome"] for record in records(gateway, 80)]
    assert (found.count("truncated"), found.count("answered")) == (40, 40)
    assert gateway.stat("cluster.shunt_detour.upstream_cx_active") == 0


@pytest.mark.parametrize("form", ["length", "chunked", "http2"])
def test_a_large_request_takes_the_detour_and_fails_over(world: World, form: str) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    request = chat(stream=True, text="x" * 5_000_000)
    gateway = world.gateway({**routes(), "limits": {"first_token": "15s"}})
    send: Callable[[], Answer] = {
        "length": lambda: ask(gateway, request),
        "http2": lambda: ask(gateway, request, http2=True),
        "chunked": lambda: upload(gateway, (json.dumps(request).encode(),)),
    }[form]
    answer = send()
    assert (answer.status, answer.attempts) == (200, ["openai:overloaded", "deepseek:answered"])
    assert gateway.stat(TAKEN) == 1
    assert len({entry["body_length"] for entry in world.seen("openai") + world.seen("deepseek")}) == 2


# A configuration of Envoy that lacks a part.


def without_route(listeners: Json, _: Json) -> None:
    for listener in listeners["resources"]:
        manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
        host = manager["route_config"]["virtual_hosts"][0]
        host["routes"] = [route for route in host["routes"] if route.get("name") != "detour"]


def without_listener(listeners: Json, _: Json) -> None:
    listeners["resources"] = [one for one in listeners["resources"] if one["name"] != "shunt_detour"]


def without_room(_: Json, clusters: Json) -> None:
    (cluster,) = (one for one in clusters["resources"] if one["name"] == "shunt_detour")
    cluster["circuit_breakers"]["thresholds"][0].update(max_requests=0, max_pending_requests=0)


@pytest.mark.parametrize(
    ("edit", "status", "code"),
    [
        pytest.param(without_route, 500, "gateway_misconfigured", id="route"),
        pytest.param(without_listener, 503, "gateway_unavailable", id="listener"),
        pytest.param(without_room, 503, "gateway_unavailable", id="room"),
    ],
)
def test_what_envoys_configuration_lacks_is_named_in_the_log_and_blames_nobody(
    world: World, edit: Any, status: int, code: str
) -> None:
    gateway = world.gateway({**routes(), **ONE_FAILURE_OPENS}, edit=edit)
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert "detour" in gateway.log()
    assert asked(world) == []
    whole = ask(gateway)
    assert (whole.provider, "x-shunt-degraded" in whole.headers) == ("openai", False)


def test_nobody_but_the_router_is_served_on_the_detour(world: World) -> None:
    """A listener that hands its requests on to the detour, as no configuration should."""

    def bypass(listeners: Json, _: Json) -> None:
        manager = listeners["resources"][0]["filter_chains"][0]["filters"][-1]["typed_config"]
        manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] != "shunt"]
        manager["route_config"]["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "shunt_detour"}}]

    gateway = world.gateway(routes(), edit=bypass)
    # A worker may serve the first listener a moment before it has the internal one.
    wait_for(lambda: ask(gateway, stream=True).status != 503, what="the internal listener")
    for number in ("live/1", "live/x", "openai/live/4294967297", ""):
        answer = ask(gateway, stream=True, headers={"x-shunt-detour": number, "authorization": f"Bearer {CLIENT_KEY}"})
        assert (answer.status, answer.error["code"]) == (500, "gateway_misconfigured")
    assert asked(world) == []
