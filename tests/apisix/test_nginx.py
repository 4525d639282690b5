"""What APISIX's files rely on nginx for, tried on nginx: how a try moves on, who is next, and what Lua hands over.

The filter's place is taken by a few lines of Lua (gateway.lua), so what is proven here is the way, not the decisions.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import signal
import socket
import threading
import time
from typing import Callable, ContextManager, Iterator, Optional

import httpx
import pytest

import nginx_gateway
from nginx_gateway import Answer, Gateway, hanging_up, nobody, silent, wait_for
from shipped import FOLDER

pytestmark = pytest.mark.skipif(nginx_gateway.missing() is not None, reason=str(nginx_gateway.missing()))

PATH = "/v1/chat/completions"
PLAN = "openai,deepseek,shareai"

#: What comes in the place of a status line.
NOT_HTTP: dict[str, tuple[object, ...]] = {
    "tls_alert": (b"\x15\x03\x01\x00\x02\x02\x46",),
    "ssh_banner": (b"SSH-2.0-OpenSSH_9.2p1\r\n",),
    "http2_settings": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",),
    "html": (b"<html><body>hello</body></html>",),
    "blank_line_first": (b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",),
    "no_minor_version": (b"HTTP/2 200\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n",),
    "no_number": (b"HTTP/1.1 abc\r\n\r\nx",),
    "icy": (b"ICY 200 OK\r\n\r\nx",),
    "in_two_pieces": (b"HTT", lambda: time.sleep(0.05), b"X what comes later"),
    "long_line": (b"x" * (1 << 20),),
    "no_such_status": (b"HTTP/1.1 000 None\r\ncontent-length: 0\r\n\r\n",),
    "nginx_takes_it_for_the_status": (b"HTTP/1.1 009 None\r\n\r\nhello",),
    "an_interim_status_alone": (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "no_bytes": (),
    "half_a_status_line": (b"HTTP/1.1 20",),
    "long_status_line": (b"HTTP/1.1 200 " + b"x" * (1 << 20) + b"\r\n\r\n",),
    "no_header_line": (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\nok",),
}

# The statuses with which the filter lets out what must move on.
MOVING = (500, 502, 503, 504, 429, 403, 404)


@contextlib.contextmanager
def running(
    folder: pathlib.Path, slots: Optional[dict[int, int]] = None, read: float = 10, seventh: bool = False
) -> Iterator[Gateway]:
    with Gateway(folder, slots, read, seventh=seventh) as gateway:
        yield gateway
        # No Lua line failed, and nginx complained about nothing.
        assert gateway.errors() == ""


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Iterator[Gateway]:
    with running(tmp_path) as gateway:
        yield gateway


def ask(gateway: Gateway, plan: str = PLAN, method: str = "POST", slot: int = 0, query: str = "", **more: object) -> httpx.Response:
    """A request to the public listener, or straight to a slot; ``headers`` come behind those of the test."""
    headers = [("test-plan", plan), *dict(more.pop("headers", {})).items()]  # type: ignore[call-overload]
    content = more.pop("content", b'{"model":"m"}')
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.request(method, gateway.url(slot) + PATH + query, headers=headers, content=content)  # type: ignore[arg-type]


def asked(gateway: Gateway) -> dict[str, int]:
    """How often each provider was asked, if it was."""
    return {name: len(provider.seen) for name, provider in gateway.providers.items() if provider.seen}


# What moves on


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("status", MOVING)
def test_a_status_of_the_list_moves_on(gateway: Gateway, status: int, method: str) -> None:
    gateway.providers["openai"].script = [Answer(status)]
    answer = ask(gateway, method=method)
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["x-test-statuses"] == f"{status}, 200"
    assert asked(gateway) == {"openai": 1, "deepseek": 1}
    assert [provider.seen[0].method for provider in (gateway.providers["openai"], gateway.providers["deepseek"])] == [method] * 2


def test_every_other_status_reaches_the_client_as_it_is(gateway: Gateway) -> None:
    others = [status for status in range(200, 600) if status not in MOVING]
    gateway.providers["openai"].script = [Answer(status) for status in others]
    with httpx.Client(trust_env=False, timeout=20) as client:
        told = [client.post(gateway.url() + PATH, headers={"test-plan": PLAN}, content=b"{}") for _ in others]
    assert [answer.status_code for answer in told] == others
    assert {answer.headers["x-shunt-try"].split()[0] for answer in told} == {"openai"}
    assert asked(gateway) == {"openai": len(others)}


def test_all_six_tries_can_be_needed_and_the_last_one_answers(gateway: Gateway) -> None:
    for provider in gateway.providers.values():
        provider.script = [Answer(500), Answer(429, pieces=(b"the last",))]
    answer = ask(gateway, plan=PLAN + "," + PLAN)
    assert (answer.status_code, answer.text) == (429, "the last")
    assert answer.headers["x-test-statuses"] == "500, 500, 500, 429, 429, 429"
    assert asked(gateway) == {"openai": 2, "deepseek": 2, "shareai": 2}


def test_a_provider_that_refuses_moves_on_with_what_the_attempt_made_of_it(gateway: Gateway) -> None:
    gateway.providers["openai"].close()
    answer = ask(gateway)
    assert answer.text == "hello"
    assert answer.headers["x-test-statuses"] == "502, 200"
    assert answer.headers["x-test-tries"] == "openai test 502 0 -"
    assert asked(gateway) == {"deepseek": 1}


def test_a_provider_that_closes_a_kept_connection_moves_on_and_is_not_asked_twice(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(), None]
    assert ask(gateway).headers["x-shunt-try"] == "openai test 200 0 -"
    # nginx would ask once more, since the connection had served before. That try goes to the backup.
    answer = ask(gateway)
    assert answer.headers["x-shunt-try"] == "deepseek test 200 0 -"
    assert answer.headers["x-test-tries"] == "openai test 502 0 -"
    assert asked(gateway) == {"openai": 2, "deepseek": 1}


def test_a_slot_that_refuses_moves_on(tmp_path: pathlib.Path) -> None:
    with nobody() as port, running(tmp_path, slots={1: port}) as gateway:
        answer = ask(gateway)
        assert answer.text == "hello"
        assert answer.headers["x-test-tries"] == "-"
        assert asked(gateway) == {"deepseek": 1}
        assert gateway.providers["deepseek"].seen[0].body == b'{"model":"m"}'


def test_a_slot_that_is_silent_moves_on(tmp_path: pathlib.Path) -> None:
    with silent() as port, running(tmp_path, slots={1: port}, read=0.3) as gateway:
        answer = ask(gateway)
        assert answer.text == "hello"
        assert answer.headers["x-test-statuses"] == "504, 200"
        assert answer.headers["x-test-tries"] == "-"
        assert asked(gateway) == {"deepseek": 1}


def test_a_slot_that_hangs_up_after_the_request_moves_on(tmp_path: pathlib.Path) -> None:
    with hanging_up() as port, running(tmp_path, slots={1: port}) as gateway:
        answer = ask(gateway)
        assert answer.text == "hello"
        assert answer.headers["x-test-statuses"] == "502, 200"
        assert asked(gateway) == {"deepseek": 1}


def test_an_answer_that_breaks_off_is_not_asked_for_again(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(pieces=(b"half", lambda: False))]
    with pytest.raises(httpx.RemoteProtocolError):
        ask(gateway)
    assert asked(gateway) == {"openai": 1}


# What the tries before told


def test_the_tries_before_are_told_in_order(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(503)]
    gateway.providers["deepseek"].script = [Answer(429)]
    answer = ask(gateway)
    tries = "openai test 503 0 -,deepseek test 429 0 -"
    assert answer.headers["x-test-tries"] == tries
    told = [gateway.providers[name].seen[0].headers.get("x-shunt-tries") for name in PLAN.split(",")]
    assert told == [None, "openai test 503 0 -", tries]


@pytest.mark.parametrize("how", [nobody, silent, hanging_up])
def test_a_try_without_a_response_is_a_dash_and_not_what_the_one_before_told(tmp_path: pathlib.Path, how: Callable[[], ContextManager[int]]) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(how())
        gateway = stack.enter_context(running(tmp_path, slots={2: port}, read=0.5))
        gateway.providers["openai"].script = [Answer(503)]
        answer = ask(gateway)
        assert answer.text == "hello"
        assert asked(gateway) == {"openai": 1, "shareai": 1}
        assert gateway.providers["shareai"].seen[0].headers["x-shunt-tries"] == "openai test 503 0 -,-"


def test_requests_on_one_connection_know_nothing_of_each_other(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(503)]
    with httpx.Client(trust_env=False, timeout=20, headers={"test-plan": PLAN}) as client:
        first, second = [client.post(gateway.url() + PATH, content=b"{}") for _ in range(2)]
    assert first.headers["x-test-tries"] == "openai test 503 0 -"
    assert "x-test-tries" not in second.headers
    assert "x-shunt-tries" not in gateway.providers["openai"].seen[1].headers


# Who is next


def test_whom_a_try_names_is_asked_next(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(503, {"test-next": "shareai"})]
    gateway.providers["shareai"].script = [Answer(500, {"test-next": "shareai"}), Answer(500, {"test-next": "deepseek"})]
    answer = ask(gateway)
    assert answer.headers["x-shunt-try"] == "deepseek test 200 0 -"
    tries = "openai test 503 0 shareai,shareai test 500 0 shareai,shareai test 500 0 deepseek"
    assert answer.headers["x-test-tries"] == tries
    assert asked(gateway) == {"openai": 1, "deepseek": 1, "shareai": 2}


def test_without_a_plan_nobody_is_asked(gateway: Gateway) -> None:
    answer = ask(gateway, plan="")
    assert (answer.status_code, answer.json()) == (404, {"error_msg": "404 Route Not Found"})
    assert answer.headers["x-test-statuses"] == "404, 404, 404, 404, 404, 404"
    assert answer.headers["x-test-tries"] == "-,-,-,-,-"
    assert asked(gateway) == {}


HOPS = [
    # slot, plan, tries, whom the request is for
    (1, "openai,deepseek,shareai", None, "openai"),
    (2, "openai,deepseek,shareai", "-", "deepseek"),
    (3, "openai,deepseek,shareai", "-,-", "shareai"),
    (4, "openai,deepseek,shareai", "-,-,-", "openai"),
    (4, "a,b,c,d", "-,-,-", "d"),
    (1, "a-b_9", None, "a-b_9"),
    (2, "a-1,b_2", "a-1 overloaded 503 0 -", "b_2"),
    # The one that the last try names, wherever it stands in the plan, or if it does not.
    (2, "a,b,c", "a overloaded 503 0 c", "c"),
    (2, "a,b,c", "a overloaded 503 1500 a", "a"),
    (3, "a,b,c", "a overloaded 503 0 c,c overloaded 500 0 b", "b"),
    (2, "a", "a overloaded 503 0 other", "other"),
    # One that an earlier try named counts no more.
    (3, "a,b,c", "a overloaded 503 0 c,-", "c"),
    (3, "a,b,d", "a overloaded 503 0 c,-", "d"),
    (3, "a,b,d", "a overloaded 503 0 c,c overloaded 500 0 -", "d"),
    # The plan is over: its first says who is left.
    (2, "a", "-", "a"),
    (2, "a", "a overloaded 503 0 -", "a"),
    (3, "a,b", "-,-", "a"),
    (2, "a,-", "-", "a"),
    # There was none.
    (1, None, None, "!"),
    (4, None, None, "!"),
    (1, "", None, "!"),
    # Nothing that could not be a provider's name.
    (1, "-", None, "!"),
    (1, "A", None, "!"),
    (1, "!", None, "!"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """For tests that leave nothing behind."""
    with running(tmp_path_factory.mktemp("nginx")) as gateway:
        yield gateway


@pytest.mark.parametrize(("slot", "plan", "tries", "hop"), HOPS)
def test_whom_a_request_on_an_inner_listener_is_for(shared: Gateway, slot: int, plan: Optional[str], tries: Optional[str], hop: str) -> None:
    given = {"x-shunt-plan": plan, "x-shunt-tries": tries}
    answer = ask(shared, slot=slot, headers={name: value for name, value in given.items() if value is not None})
    assert answer.headers["x-test-hop-attempt"] == hop
    assert "x-test-hop-router" not in answer.headers


def test_a_seventh_try_is_added_as_the_readme_says(tmp_path: pathlib.Path) -> None:
    assert "write `908[1-7]` in all three places, and add a line for `9087` below that for `9086`" in (FOLDER / "README.md").read_text()
    with running(tmp_path, seventh=True) as gateway:
        for slot, tries, hop in [
            (6, "-,-,-,-,-", "f"), (7, "-,-,-,-,-,-", "g"), (7, "a overloaded 503 0 c", "c"), (1, None, "a"), (7, None, "g"),
        ]:  # fmt: skip
            given = {"x-shunt-plan": "a,b,c,d,e,f,g", "x-shunt-tries": tries}
            answer = ask(gateway, slot=slot, headers={name: value for name, value in given.items() if value is not None})
            assert answer.headers["x-test-hop-attempt"] == hop
        assert ask(gateway, slot=7).headers["x-test-hop-attempt"] == "!"
        assert ask(gateway, slot=7, headers={"x-shunt-plan": "a"}).headers["x-test-hop-attempt"] == "a"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-shunt-plan": "shareai"},
        {"x-shunt-plan": "shareai", "x-shunt-tries": "openai overloaded 503 0 shareai"},
        {"x-shunt-tries": "openai overloaded 503 0 shareai"},
        {"x-shunt-inner": "secret", "x-shunt-plan": "shareai"},
        # To nginx, these have the same variables.
        {"x_shunt_plan": "shareai"},
        {"x_shunt_tries": "openai overloaded 503 0 shareai"},
        {"x_shunt_plan": "shareai", "X_Shunt-Tries": "openai overloaded 503 0 shareai", "x_shunt_inner": "secret"},
        {"host": "127.0.0.1:SLOT"},
        {"host": "127.0.0.1:SLOT", "x-shunt-plan": "shareai", "x-shunt-inner": "secret"},
        {"x-forwarded-host": "127.0.0.1:SLOT", "x-forwarded-port": "SLOT", "x-real-ip": "127.0.0.1"},
    ],
    ids=str,
)
def test_no_header_makes_a_clients_request_an_inner_one_or_changes_its_plan(gateway: Gateway, headers: dict[str, str]) -> None:
    mine = {name: value.replace("SLOT", str(gateway.inner[0])) for name, value in headers.items()}
    answer = ask(gateway, plan="openai,deepseek", headers=mine)
    assert answer.headers["x-test-hop-router"] == "-"
    assert answer.headers["x-test-hop-attempt"] == "openai"
    assert asked(gateway) == {"openai": 1}
    seen = gateway.providers["openai"].seen[0].headers
    steering = {name: value for name, value in seen.items() if name.replace("_", "-").startswith("x-shunt")}
    assert steering == {"x-shunt-plan": "openai,deepseek", "x-shunt-inner": "secret"}


def test_an_absolute_address_makes_no_inner_request_either(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        target = f"http://127.0.0.1:{gateway.inner[0]}{PATH}"
        connection.sendall(f"GET {target} HTTP/1.1\r\nhost: x\r\nx-shunt-plan: shareai\r\ntest-plan: openai\r\nconnection: close\r\n\r\n".encode())
        told = b"".join(iter(lambda: connection.recv(65536), b"")).lower()
    assert b"x-test-hop-router: -\r\n" in told
    assert asked(gateway) == {"openai": 1}


# What is not HTTP


@pytest.mark.parametrize("pieces", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_moves_on(gateway: Gateway, pieces: tuple[object, ...]) -> None:
    gateway.providers["openai"].script = [Answer(bare=True, pieces=pieces)]
    answer = ask(gateway)
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["x-test-statuses"] == "502, 200"
    assert answer.headers["x-test-tries"] in ("openai test - 0 -", "openai test 502 0 -")
    assert asked(gateway) == {"openai": 1, "deepseek": 1}


@pytest.mark.parametrize("pieces", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_an_answer_with_a_head_to_a_call(gateway: Gateway, pieces: tuple[object, ...]) -> None:
    gateway.providers["openai"].script = [Answer(bare=True, pieces=pieces)]
    # A call goes to an inner listener.
    answer = ask(gateway, slot=1, headers={"x-shunt-plan": "openai"})
    assert answer.status_code == 502
    assert answer.headers["x-shunt-try"] in ("openai test - 0 -", "openai test 502 0 -")
    assert asked(gateway) == {"openai": 1}


def test_what_is_not_http_and_does_not_end_moves_on_at_once(gateway: Gateway) -> None:
    go_on = threading.Event()
    gateway.providers["openai"].script = [Answer(bare=True, pieces=(b"SSH-2.0-OpenSSH_9.2p1\r\n", lambda: go_on.wait(20)))]
    try:
        answer = ask(gateway)
        # A limit of the outer route would have been a 504.
        assert (answer.text, answer.headers["x-test-statuses"]) == ("hello", "502, 200")
    finally:
        go_on.set()


def test_if_nobody_speaks_http_the_client_gets_a_head(gateway: Gateway) -> None:
    for provider in gateway.providers.values():
        provider.script = [Answer(bare=True, pieces=NOT_HTTP["html"])] * 6
    answer = ask(gateway)
    assert (answer.status_code, answer.headers["x-test-statuses"]) == (502, "502, 502, 502, 502, 502, 502")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200\r\n\r\n"])
def test_an_answer_whose_head_is_a_status_line_alone_is_an_answer(gateway: Gateway, head: bytes) -> None:
    gateway.providers["openai"].script = [Answer(bare=True, pieces=(head[:7], lambda: time.sleep(0.05), head[7:], b"ok"))]
    answer = ask(gateway)
    assert (answer.status_code, answer.text, answer.headers["x-test-statuses"]) == (200, "ok", "200")
    assert asked(gateway) == {"openai": 1}


# What the error log says of a request


def log_lines(gateway: Gateway) -> list[str]:
    log = gateway.folder / "error.log"
    return log.read_text().splitlines() if log.exists() else []


def test_the_query_of_a_completion_is_not_in_the_lines_of_an_inner_hop(gateway: Gateway) -> None:
    gateway.providers["openai"].close()
    assert ask(gateway, query="?note=private").text == "hello"
    (line,) = log_lines(gateway)
    assert f'request: "POST {PATH} HTTP/1.1", upstream: "http://127.0.0.1:{gateway.providers["openai"].port}{PATH}"' in line
    assert [provider.path for provider in gateway.providers["deepseek"].seen] == [PATH]


def test_nginx_writes_the_first_line_of_a_request_as_it_came(tmp_path: pathlib.Path) -> None:
    with nobody() as port, running(tmp_path, slots={1: port}) as gateway:
        assert ask(gateway, query="?note=private").text == "hello"
        (line,) = log_lines(gateway)
        # This is why a key is refused, and not only dropped.
        assert f'request: "POST {PATH}?note=private HTTP/1.1", upstream: "http://127.0.0.1:{port}{PATH}"' in line
        assert ask(gateway, query="?key=sk-secret").status_code == 400
        assert len(log_lines(gateway)) == 1 and "sk-secret" not in log_lines(gateway)[0]
    assert "sk-secret" not in gateway.access_log.read_text()


# Bodies


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000, 3_000_000])
def test_every_provider_gets_the_body_made_for_it_with_its_length(gateway: Gateway, size: int, chunked: bool) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    gateway.providers["openai"].script = [Answer(503)]
    content = iter([body[: size // 2], body[size // 2 :]]) if chunked else body
    answer = ask(gateway, headers={"test-rewrite": "1"}, content=content)
    assert answer.text == "hello"
    for name in ("openai", "deepseek"):
        (seen,) = gateway.providers[name].seen
        expected = name.encode() + b":" + body
        assert seen.body == expected
        assert seen.headers["content-length"] == str(len(expected))
        assert "transfer-encoding" not in seen.headers
    # On no hop, unless it is larger than config.yaml's client_body_buffer_size.
    in_a_file = "buffered to a temporary file" in (gateway.folder / "error.log").read_text()
    assert in_a_file == (size > 2 * 1024 * 1024)


def test_a_body_that_nobody_changed_goes_on_as_it_is(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(503)]
    body = b"0123456789" * 300_000
    ask(gateway, content=body)
    assert [gateway.providers[name].seen[0].body == body for name in ("openai", "deepseek")] == [True, True]


def received(answer: httpx.Response, until: bytes, pieces: Iterator[bytes]) -> bytes:
    """What has come, once it ends like that."""
    text = b""
    while not text.endswith(until):
        text += next(pieces)
    return text


@pytest.mark.parametrize("until_close", [False, True], ids=["in chunks", "until the connection ends"])
def test_events_arrive_one_by_one(gateway: Gateway, until_close: bool) -> None:
    go_on = [threading.Event() for _ in range(3)]
    events = [b"data: %d\n\n" % number for number in range(4)]
    pieces: list[object] = [events[0]]
    for event, wait in zip(events[1:], go_on):
        pieces += [lambda wait=wait: wait.wait(20), event]
    gateway.providers["openai"].script = [Answer(503)]
    gateway.providers["deepseek"].script = [Answer(200, {"content-type": "text/event-stream"}, tuple(pieces), until_close)]
    try:
        with httpx.stream("POST", gateway.url() + PATH, headers={"test-plan": PLAN}, content=b"{}", trust_env=False, timeout=10) as answer:
            coming = answer.iter_raw()
            for number, event in enumerate(events):
                # The provider says the next one only when this one has come.
                assert received(answer, event, coming) == event
                if number < len(go_on):
                    go_on[number].set()
            assert list(coming) == []
    finally:
        for wait in go_on:
            wait.set()


def test_pieces_are_replaced_while_they_stream_and_text_is_appended_at_the_end(gateway: Gateway) -> None:
    go_on = threading.Event()
    pieces = (b"[one]", lambda: go_on.wait(20), b"[two]")
    gateway.providers["openai"].script = [Answer(200, {"test-chunks": "1"}, pieces)]
    try:
        with httpx.stream("POST", gateway.url() + PATH, headers={"test-plan": PLAN}, content=b"{}", trust_env=False, timeout=10) as answer:
            coming = answer.iter_raw()
            # Only the outer route replaces.
            assert received(answer, b">", coming) == b"<one>"
            go_on.set()
            assert b"".join(coming) == b"<two>router's end"
    finally:
        go_on.set()


@pytest.mark.parametrize(
    ("attempt", "seen"),
    [("removed", "text/event-stream"), ("kept", "text/event-stream; charset=utf-8")],
)
def test_the_character_set_of_a_provider_is_gone_only_if_the_attempt_removes_its_content_type(gateway: Gateway, attempt: str, seen: str) -> None:
    headers = {"content-type": "text/event-stream; charset=utf-8", "test-type": attempt}
    gateway.providers["openai"].script = [Answer(200, headers, (b"data: 1\n\n",))]
    answer = ask(gateway)
    assert (answer.headers["content-type"], answer.text) == (seen, "data: 1\n\n")


def test_an_answer_without_an_end_is_broken_off(tmp_path: pathlib.Path) -> None:
    go_on = threading.Event()
    with Gateway(tmp_path) as gateway:
        gateway.providers["openai"].script = [Answer(200, {"test-cut": "one"}, (b"one", lambda: go_on.wait(20), b"two", b"three"))]
        try:
            with httpx.stream("POST", gateway.url() + PATH, headers={"test-plan": PLAN}, content=b"{}", trust_env=False, timeout=10) as answer:
                coming = answer.iter_raw()
                assert received(answer, b"one", coming) == b"one"
                go_on.set()
                with pytest.raises(httpx.HTTPError):
                    list(coming)
        finally:
            go_on.set()
        # And the log says why.
        assert "the answer takes too long, or is too long" in gateway.errors()


def test_pieces_stay_as_they_are_if_the_filter_does_not_ask(gateway: Gateway) -> None:
    gateway.providers["openai"].script = [Answer(pieces=(b"[one]", b"[two]"))]
    assert ask(gateway).text == "[one][two]"


def test_the_record_is_the_line_of_the_access_log(gateway: Gateway) -> None:
    ask(gateway)
    # No route leads there, and so the filter does not see it.
    assert httpx.get(f"{gateway.url()}/favicon.ico").status_code == 404
    # What is no HTTP.
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(b"THIS IS NOT HTTP\r\n\r\n")
        assert b" 400 " in connection.makefile("rb").readline()
    log = gateway.access_log
    wait_for(lambda: log.exists() and log.read_text().count("\n") == 3, 30, "a line for each request, and none for a try")
    record, *others = log.read_text().splitlines()
    assert record == '{"path":"/v1/chat/completions","said":"\\"é\\""}'
    for line, status in zip(others, (404, 400)):
        told = json.loads(line)
        assert set(told) == {"time", "outcome", "status"} and (told["outcome"], told["status"]) == ("not_read", status)
        assert datetime.datetime.fromisoformat(told["time"]).tzinfo is not None


def test_in_the_background_the_command_returns_and_the_log_survives_a_reload_and_a_move(tmp_path: pathlib.Path) -> None:
    # Starting waits until nobody can write to the command's output any more.
    with Gateway(tmp_path, daemon=True) as gateway:

        def logged(count: int, what: str) -> None:
            ask(gateway)
            log = gateway.access_log
            wait_for(lambda: log.exists() and log.read_text().count("\n") == count, 30, f"the line of a request {what}")

        logged(1, "after the start")
        master, before = gateway.master(), gateway.workers()
        assert master is not None
        os.kill(master, signal.SIGHUP)
        wait_for(lambda: not set(before) & set(gateway.workers()), 30, "the old worker to end")
        logged(2, "after a reload")
        # As logrotate does it.
        gateway.access_log.rename(tmp_path / "logs" / "access.log.1")
        os.kill(master, signal.SIGUSR1)
        wait_for(gateway.access_log.exists, 30, "the new file")
        logged(1, "in the new file")
        assert gateway.errors() == ""
