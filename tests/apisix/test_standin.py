"""The stand-in for APISIX itself, with a guest instead of the filter: it must be as unforgiving as the real host."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
from typing import Any, Optional

import httpx
import pytest

from server import PLAIN, free_port, release_port, wait_for
from standin import GUEST, Standin, standin_binary

CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}], "model": "assistant"})


def ask(standin: Standin, told: str = "", body: str = BODY, method: str = "POST", **headers: str) -> httpx.Response:
    """One request; underscores in the names of headers stand for hyphens. The plan names both providers."""
    sent = {"x-guest": told, "x-shunt-plan": "openai,deepseek"}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    return httpx.request(method, standin.url + CHAT, content=body, headers=sent, trust_env=False, timeout=20, verify=PLAIN)


def only(provider: Any) -> dict[str, Any]:
    [seen] = provider.log()
    return seen


def headers_of(seen: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in seen["headers"]}


def ends(standin: Standin) -> Optional[int]:
    wait_for(lambda: standin.status() is not None, 10, "the stand-in to end")
    return standin.status()


# It must never trap.


def test_a_trap_in_a_warm_vm_ends_the_worker(guest: Any) -> None:
    standin = guest()
    assert ask(standin).status_code == 200
    with pytest.raises(httpx.HTTPError):
        ask(standin, "trap")
    assert ends(standin) == 71
    assert "FATAL: a trap in a warm VM" in standin.log()


def test_a_trap_in_a_cold_vm_leaves_503_for_every_route(guest: Any) -> None:
    standin = guest("trap")
    for _ in range(2):
        answer = ask(standin)
        assert answer.status_code == 503 and "<h1>503 " in answer.text
    assert standin.log().count("TRAP (cold)") == 1
    assert standin.status() is None


@pytest.mark.parametrize("told", ["pause", "body-pause"])
def test_a_pause_without_a_call_or_a_response_ends_the_worker(guest: Any, told: str) -> None:
    standin = guest()
    with pytest.raises(httpx.HTTPError):
        ask(standin, told)
    assert ends(standin) == 70
    assert "FATAL: Pause" in standin.log()


@pytest.mark.parametrize("told", ["authority", "pairs"])
def test_authority_of_a_request_without_host_ends_the_worker(guest: Any, told: str) -> None:
    standin = guest()
    with socket.create_connection(("127.0.0.1", standin.port), 10) as connection:
        connection.sendall(f"GET {CHAT} HTTP/1.0\r\nx-guest: {told}\r\n\r\n".encode())
        assert connection.recv(1) == b""
    assert ends(standin) == 70


def test_a_request_without_host_that_is_not_asked_about_is_served(guest: Any, fakes: Any) -> None:
    standin = guest()
    with socket.create_connection(("127.0.0.1", standin.port), 10) as connection:
        connection.sendall(f"GET {CHAT} HTTP/1.0\r\nx-guest: answer\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()) == (201, b"made here")
    assert standin.status() is None


def test_a_filter_with_an_import_that_is_not_there_does_not_load(guest: Any) -> None:
    standin = guest(wasm="examples/unknown_import.wasm")
    answer = ask(standin)
    # Its plugin configs are refused, and so each of their routes is a page of nginx.
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "proxy_get_log_level" in standin.log()


#: What is in a module, and why it is refused: `return_call 0` in a function, a global that is `i32.add` of two constants.
NEWER = {
    "tail-call": ("0061736d01000000 010401600000 03020100 0a0601040012000b", "tail calls support is not enabled"),
    "extended-constant": ("0061736d01000000 0609017f00410141026a0b", "constant expression required"),
}


@pytest.mark.parametrize(("module", "why"), NEWER.values(), ids=NEWER)
def test_a_filter_that_needs_newer_wasm_than_the_hosts_does_not_load(guest: Any, tmp_path: pathlib.Path, module: str, why: str) -> None:
    (tmp_path / "newer.wasm").write_bytes(bytes.fromhex(module))
    standin = guest(wasm=str(tmp_path / "newer.wasm"))
    assert ask(standin).status_code == 503
    assert "failed to load plugin [shunt]" in standin.log() and why in standin.log()


def test_a_refused_configuration_is_503_for_each_request_and_asked_again(guest: Any) -> None:
    standin = guest("refuse")
    assert [ask(standin).status_code for _ in range(2)] == [503, 503]
    # Once for the request and once for its response.
    assert standin.log().count("failed to configure") == 4


# The filter is compiled once, and found by the stand-ins that start later.


@pytest.fixture
def compiled(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where compiled filters are kept by the stand-ins of this test alone: beside their binary."""
    monkeypatch.setenv("STANDIN", shutil.copy(standin_binary(), tmp_path))
    return tmp_path / "compiled"


def test_a_compiled_filter_is_used_by_the_next_start(guest: Any, compiled: pathlib.Path) -> None:
    assert ask(guest(), "answer").text == "made here"
    [file] = compiled.glob("*.cwasm")
    before = file.stat()
    assert ask(guest(), "answer").text == "made here"
    [file] = compiled.glob("*.cwasm")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_filter_is_compiled_by_itself(guest: Any, compiled: pathlib.Path) -> None:
    guest()
    guest(wasm="examples/unknown_import.wasm")
    assert len(list(compiled.glob("*.cwasm"))) == 2


def test_a_compiled_filter_that_cannot_be_used_is_compiled_again(guest: Any, compiled: pathlib.Path) -> None:
    guest()
    [file] = compiled.glob("*.cwasm")
    whole = file.stat().st_size
    # Not written in place: the stand-in above has the file mapped.
    file.unlink()
    file.write_bytes(b"no machine code")
    assert ask(guest(), "answer").text == "made here"
    assert file.stat().st_size == whole


def test_stand_ins_that_start_together_keep_one_compiled_filter(compiled: pathlib.Path) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        for entry in routes["plugin_configs"]:
            entry["plugins"]["shunt"]["conf"] = "guest"

    standins = [Standin({}, {}, wasm=GUEST / "shunt_guest.wasm", edit=edit) for _ in range(3)]
    try:
        for standin in standins:
            standin.start(wait=False)
        for standin in standins:
            wait_for(standin.is_serving, 30, "the stand-in to serve")
            assert ask(standin, "answer").text == "made here"
            assert "cannot be kept" not in standin.log()
    finally:
        for standin in standins:
            standin.stop()
    [file] = [file for file in compiled.iterdir() if file.name != "lock"]
    assert file.suffix == ".cwasm"


def test_a_folder_that_cannot_be_written_costs_only_the_time(guest: Any, compiled: pathlib.Path) -> None:
    compiled.write_text("a file where the folder should be")
    standin = guest()
    assert ask(standin, "answer").text == "made here"
    assert "cannot be kept" in standin.log()


# Host calls.


def test_host_calls_answer_as_the_real_ones(guest: Any) -> None:
    # Time, set buffer; a variable that is not there, one that is built in; an absent header as a variable, one that is
    # there; a buffer of which there is none; a call to a URL.
    assert ask(guest(), "statuses").json() == [12, 12, 1, 10, 1, 0, 1, 2]


def test_the_environment_is_what_nginx_lets_through(guest: Any) -> None:
    def hide(settings: Any, _routes: Any) -> None:
        settings["nginx_config"]["envs"].remove("GUEST_OTHER")

    standin = guest(environment={"GUEST_KEY": "one", "GUEST_OTHER": "two"}, edit=hide)
    answer = ask(standin)
    assert (answer.headers["x-guest-key"], answer.headers["x-guest-other"]) == ("one", "none")


def test_a_configuration_that_is_an_object_arrives_as_compact_json(guest: Any) -> None:
    answer = ask(guest(conf={"b": [1, {"c": "/v1"}], "a": True}))
    conf = answer.headers["x-guest-conf"]
    assert json.loads(conf) == {"b": [1, {"c": "/v1"}], "a": True}
    assert " " not in conf and "\\/v1" in conf


def test_an_edit_of_the_routes_configures_anew_and_keeps_the_vm(guest: Any) -> None:
    conf = ["first"]

    def edit(_settings: Any, routes: Any) -> None:
        for entry in routes["plugin_configs"]:
            entry["plugins"]["shunt"]["conf"] = conf[0]

    standin = guest(edit=edit)
    before = ask(standin, "answer").headers
    assert (before["x-guest-conf"], before["x-guest-configured"]) == ("first", "1")
    conf[0] = "second"
    standin.write()
    after = ask(standin, "answer").headers
    # What the guest counts is in a static.
    assert (after["x-guest-conf"], after["x-guest-configured"]) == ("second", "2")


def test_workers_share_nothing(guest: Any) -> None:
    standin = guest(workers=2)
    # Each connection is the next worker's.
    assert [ask(standin, "answer").headers["x-guest-configured"] for _ in range(4)] == ["1"] * 4


# The request phase.


def test_a_response_of_the_filter_reaches_the_client_and_nobody_else(guest: Any, fakes: Any) -> None:
    answer = ask(guest(), "answer")
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (201, "made here", "yes")
    assert fakes["openai"].log() == []


def test_headers_path_and_host_reach_the_upstream(guest: Any, fakes: Any) -> None:
    assert ask(guest(), "rewrite", authorization="old", x_drop="1").status_code == 200
    seen = only(fakes["openai"])
    headers = headers_of(seen)
    assert (seen["path"], headers["host"], headers["authorization"]) == ("/elsewhere?x=1", "other.test", "new")
    assert headers["x-set"] == "1" and "x-drop" not in headers


def test_the_body_is_read_and_replaced_with_its_length(guest: Any, fakes: Any) -> None:
    ask(guest(), "body", body="abc")
    seen = only(fakes["openai"])
    headers = headers_of(seen)
    assert headers["x-seen-body"].startswith("3 1 abc") and headers["content-length"] == "5"
    assert seen["body_length"] == 5


def test_a_body_read_without_a_size_is_refused(guest: Any, fakes: Any) -> None:
    ask(guest(), "body-max", body="abc")
    assert headers_of(only(fakes["openai"]))["x-seen-body"] == "3 1 status 2"


def test_a_request_without_a_body_finds_the_body_of_another(guest: Any, fakes: Any) -> None:
    standin = guest()
    ask(standin, "body", body="abc")
    fakes["openai"].reset()
    ask(standin, "body-stale", body="")
    assert headers_of(only(fakes["openai"]))["x-seen-body"].startswith("0 1 ")
    assert "status" not in headers_of(only(fakes["openai"]))["x-seen-body"]


def test_a_body_in_chunks_and_one_that_waits_for_100_are_whole(guest: Any, fakes: Any) -> None:
    standin = guest()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-guest: body\r\nx-shunt-plan: openai\r\nconnection: close\r\n"
    with socket.create_connection(("127.0.0.1", standin.port), 10) as connection:
        connection.sendall(f"{head}expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        while connection.recv(65536):
            pass
    assert headers_of(only(fakes["openai"]))["x-seen-body"].startswith("3 1 abc")


def test_the_request_map_is_cut_at_100_headers(guest: Any, fakes: Any) -> None:
    ask(guest(), "pairs", **{f"x_{number}": "1" for number in range(110)})
    # And the four pseudo-headers.
    assert headers_of(only(fakes["openai"]))["x-seen-count"] == "104"


# Calls.


def test_a_call_is_answered_whole(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "status", "status": 418})
    answer = ask(guest(), "call", x_call=f"127.0.0.1:{fakes['openai'].port}")
    assert answer.text.startswith("token 0,") and ":status 418" in answer.text
    seen = only(fakes["openai"])
    assert (seen["method"], seen["path"], headers_of(seen)["host"]) == ("POST", "/v1/called", "called")


def test_what_a_call_does_not_say_is_taken_from_the_call_before(guest: Any, fakes: Any) -> None:
    answer = ask(guest(), "calls", x_call=f"127.0.0.1:{fakes['openai'].port}")
    assert answer.text.startswith("token 1,")
    seen = fakes["openai"].log()
    assert [(one["method"], one["path"]) for one in seen] == [("POST", "/v1/called"), ("POST", "/v1/again")]


def test_one_call_at_a_time(guest: Any, fakes: Any) -> None:
    answer = ask(guest(), "twice", x_call=f"127.0.0.1:{fakes['openai'].port}")
    # The call comes before the response that was sent with it.
    assert answer.text.startswith("token 0,")
    assert len(fakes["openai"].log()) == 1


@pytest.mark.parametrize("how", ["refused", "closed", "silent"])
def test_a_failed_call_has_no_headers_and_no_body(guest: Any, fakes: Any, how: str) -> None:
    port = free_port()
    if how != "refused":
        fakes["openai"].script({"do": "reset_before_headers"} if how == "closed" else {"do": "silent"})
        address = f"127.0.0.1:{fakes['openai'].port}"
    else:
        address = f"127.0.0.1:{port}"
    answer = ask(guest(), "call", x_call=address)
    release_port(port)
    assert answer.text == "token 0, 0 headers, :status status 1, 0 bytes: status 1"


def test_a_call_to_an_inner_listener_of_the_same_worker_is_served(guest: Any, fakes: Any) -> None:
    standin = guest(workers=1)
    answer = ask(standin, "call", x_call=f"127.0.0.1:{standin.inner[0]}")
    # Without a plan the inner listener is nobody's.
    assert ":status 404" in answer.text and "404 Route Not Found" in answer.text


# The response phase.


def test_the_response_is_seen_in_a_new_context_behind_proxy_buffering(guest: Any, fakes: Any) -> None:
    assert ask(guest()).headers["x-guest-saw-request"] == "no"
    assert ask(guest(keep_contexts=True)).headers["x-guest-saw-request"] == "yes"


def test_contexts_are_used_again(guest: Any) -> None:
    standin = guest()
    assert len({ask(standin, "answer").headers["x-guest-context"] for _ in range(3)}) == 1


def test_a_status_can_be_set(guest: Any) -> None:
    assert ask(guest(), "status", x_status="418").status_code == 418


def test_the_response_map_is_garbage_with_more_than_20_lines(guest: Any, fakes: Any) -> None:
    standin = guest()
    assert ask(standin, "map").headers["x-guest-map"] == "whole"
    fakes["openai"].script({"do": "answer", "headers": {f"x-{number}": "1" for number in range(30)}})
    assert ask(standin, "map").headers["x-guest-map"] == "garbage"


def test_chunks_are_replaced_and_text_is_appended_at_the_end(guest: Any) -> None:
    answer = ask(guest(), "chunks")
    assert answer.text.startswith('{"ID":') and answer.text.endswith("}(end)")
    # The inner route's pieces stay as they are: only the outer one replaces any.
    assert "(END)" not in answer.text


def test_the_audit_is_the_access_log(guest: Any) -> None:
    standin = guest()
    ask(standin, "chunks")
    # The outer request and the inner one.
    wait_for(lambda: standin.access_log() == [{"guest": True}] * 2, 10, "the access log")


# The upstream.


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 403, 404])
def test_a_status_of_the_list_moves_on(guest: Any, fakes: Any, status: int) -> None:
    fakes["openai"].script({"do": "status", "status": status})
    answer = ask(guest())
    assert answer.status_code == 200 and answer.headers["x-guest-tries"] == f"{status}, 200"
    assert (len(fakes["openai"].log()), len(fakes["deepseek"].log())) == (1, 1)


@pytest.mark.parametrize("status", [400, 401, 418, 501])
def test_any_other_status_does_not(guest: Any, fakes: Any, status: int) -> None:
    fakes["openai"].script({"do": "status", "status": status})
    answer = ask(guest())
    assert (answer.status_code, answer.headers["x-guest-tries"]) == (status, str(status))
    assert fakes["deepseek"].log() == []


def test_a_post_that_was_sent_is_not_tried_again_without_non_idempotent(guest: Any, fakes: Any) -> None:
    def edit(settings: Any, _routes: Any) -> None:
        nginx = settings["nginx_config"]
        snippet = nginx["http_configuration_snippet"]
        assert " non_idempotent" in snippet
        nginx["http_configuration_snippet"] = snippet.replace(" non_idempotent", "")

    fakes["openai"].script({"do": "status", "status": 503}, {"do": "status", "status": 503})
    standin = guest(edit=edit)
    assert ask(standin).status_code == 503
    assert fakes["deepseek"].log() == []
    assert ask(standin, method="GET", body="").headers["x-guest-tries"].startswith("503, ")


def test_a_refused_provider_moves_on(guest: Any, fakes: Any) -> None:
    fakes["openai"].listen(False)
    answer = ask(guest())
    # The inner listener answers 502 for it.
    assert answer.status_code == 200 and answer.headers["x-guest-tries"] == "502, 200"


def test_a_silent_provider_is_a_504(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "silent"})
    answer = ask(guest(outer_read=10, inner_read=0.3))
    assert answer.status_code == 200 and answer.headers["x-guest-tries"] == "504, 200"


def test_what_a_client_says_opens_no_inner_route(guest: Any, fakes: Any) -> None:
    standin = guest()
    answer = ask(standin, host=f"127.0.0.1:{standin.inner[0]}", x_shunt_tries="deepseek")
    assert answer.status_code == 200
    # It went by the outer route to the first slot, which is the plan's first provider.
    assert answer.headers["x-guest-tries"] == "200"
    assert (len(fakes["openai"].log()), len(fakes["deepseek"].log())) == (1, 0)


def test_a_broken_stream_cuts_the_client_off(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "cut", "after": 2})
    with pytest.raises(httpx.RemoteProtocolError):
        ask(guest(), body=BODY[:-1] + ', "stream": true}')


def test_events_reach_the_client_as_they_come(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "hold", "after": 1})
    body, sent = BODY[:-1] + ', "stream": true}', {"x-guest": "chunks", "x-shunt-plan": "openai"}
    with httpx.stream("POST", guest().url + CHAT, content=body, headers=sent, trust_env=False, timeout=20, verify=PLAIN) as answer:
        pieces = answer.iter_text()
        seen = next(pieces)
        # The provider goes on only now.
        assert fakes["openai"].release() == 1
        assert "[DONE]" not in seen and "[DONE]" in "".join(pieces)


def test_a_connection_is_used_again(guest: Any) -> None:
    standin = guest(workers=2)
    with httpx.Client(trust_env=False) as client:
        for told, status in (("answer", 201), ("", 200), ("status", 200), ("answer", 201)):
            sent = {"x-guest": told, "x-status": "200", "x-shunt-plan": "openai"}
            answer = client.post(standin.url + CHAT, content=BODY, headers=sent)
            # Another connection would be the other worker's, whose guest was not configured yet.
            assert answer.status_code == status
        assert answer.headers["x-guest-context"] != "1"
        assert client.post(standin.url + "/nowhere").json() == {"error_msg": "404 Route Not Found"}


def test_the_vm_is_free_while_a_call_waits(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "hold"})
    standin = guest(workers=1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, standin, "call", BODY, "POST", x_call=f"127.0.0.1:{fakes['openai'].port}")
        fakes["openai"].wait_for(in_flight=1)
        assert ask(standin, "answer").text == "made here"
        assert not waiting.done()
        fakes["openai"].release()
        assert ":status 200" in waiting.result(20).text


def test_a_route_takes_from_its_service_and_its_plugin_config(guest: Any, fakes: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        upstream = {"id": "up", "type": "roundrobin", "nodes": {f"127.0.0.1:{fakes['deepseek'].port}": 1}}
        lua = "return function() ngx.req.set_header('x-from', '%s') end"
        plugin = {name: {"serverless-pre-function": {"phase": "access", "functions": [lua % name]}} for name in ("service", "route")}
        routes["upstreams"] = [upstream]
        routes["services"] = [{"id": "s", "upstream_id": "up", "plugins": plugin["service"]}]
        either = ["OR", ["http_x_kind", "in", ["a", "b"]], ["http_x_kind", "~~", "^c+$"]]
        routes["routes"] = [
            {"id": "1", "uris": ["/v1/*"], "service_id": "s", "vars": [either, ["arg_x", "~=", "y"]]},
            {"id": "2", "uri": CHAT, "service_id": "s", "plugins": plugin["route"], "priority": -1},
        ]

    standin = guest(edit=edit)
    for kind, query, source in (("a", "", "service"), ("ccc", "", "service"), ("d", "", "route"), ("a", "?x=y", "route")):
        fakes["deepseek"].reset()
        httpx.post(standin.url + CHAT + query, content=BODY, headers={"x-kind": kind}, trust_env=False)
        assert headers_of(only(fakes["deepseek"]))["x-from"] == source, (kind, query)


def test_a_client_that_leaves_takes_the_upstream_with_it(guest: Any, fakes: Any) -> None:
    fakes["openai"].script({"do": "silent"})
    standin = guest(outer_read=30, inner_read=30)
    with socket.create_connection(("127.0.0.1", standin.port), 10) as connection:
        connection.sendall(f"GET {CHAT} HTTP/1.1\r\nhost: a\r\nx-shunt-plan: openai\r\n\r\n".encode())
        fakes["openai"].wait_for(in_flight=1)
    fakes["openai"].wait_for(in_flight=0)
    assert standin.status() is None


# The error log.


def test_every_line_about_a_request_ends_with_what_nginx_knows_of_it(guest: Any, fakes: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        lua = "return function() ngx.log(ngx.WARN, 'from ', 'Lua') end"
        routes["plugin_configs"][0]["plugins"]["serverless-pre-function"] = {"phase": "access", "functions": [lua]}

    fakes["openai"].listen(False)
    standin = guest(edit=edit)
    with httpx.Client(trust_env=False, timeout=20) as client:
        client.post(f"{standin.url}{CHAT}?a=b", content=BODY, headers={"referer": "http://page/", "x-shunt-plan": "openai"})
        client.post(f"{standin.url}{CHAT}?c=d", content=BODY, headers={"x-guest": "call", "x-call": "127.0.0.1:1", "x-shunt-plan": "openai"})
    log = standin.log()

    def line(about: str, query: str) -> str:
        (found,) = {line for line in log.splitlines() if about in line and query in line}
        return found.partition(", client: ")[2]

    about = f'127.0.0.1, server: _, request: "POST {CHAT}?a=b HTTP/1.1"'
    own = f', host: "127.0.0.1:{standin.port}"'
    assert line("from Lua", "?a=b") == f'{about}{own}, referrer: "http://page/"'
    assert line("failed", "?c=d") == about.replace("?a=b", "?c=d") + own
    # Of a try, with what is sent to the upstream; the guest changes nothing of it.
    tried = f"connect() failed (111: Connection refused) while connecting to upstream, client: {about}"
    assert f'{tried}, upstream: "http://127.0.0.1:{fakes["openai"].port}{CHAT}?a=b"' in log


# Plugins beside the filter.


def key_auth(settings: Any, routes: Any) -> None:
    routes["routes"][0]["plugins"] = {"key-auth": {}}
    routes["consumers"] = [{"username": "anna", "plugins": {"key-auth": {"key": "secret"}}}]


def test_after_a_failed_authentication_only_the_response_is_seen(guest: Any, fakes: Any) -> None:
    answer = ask(guest(edit=key_auth), "answer")
    assert (answer.status_code, answer.json()) == (401, {"message": "Missing API key in request"})
    assert answer.headers["x-guest-saw-request"] == "no"
    assert fakes["openai"].log() == []


def test_a_known_consumer_is_told(guest: Any, fakes: Any) -> None:
    assert ask(guest(edit=key_auth), apikey="secret").status_code == 200
    assert headers_of(only(fakes["openai"]))["x-consumer-username"] == "anna"


def test_a_lua_line_that_is_not_known_ends_the_stand_in(guest: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        routes["plugin_configs"][0]["plugins"]["serverless-pre-function"] = {
            "phase": "access",
            "functions": ["return function() ngx.location.capture('/') end"],
        }

    standin = guest(edit=edit)
    with pytest.raises(httpx.HTTPError):
        ask(standin)
    assert ends(standin) == 72, standin.log()
    assert "ngx.location" in standin.log()


# Faults.


def rows() -> list[str]:
    listed = subprocess.run([standin_binary(), "--faults"], capture_output=True, text=True, check=True, timeout=20)
    return [line.split("\t")[0] for line in listed.stdout.splitlines()]


def test_every_fault_has_a_reason() -> None:
    listed = subprocess.run([standin_binary(), "--faults"], capture_output=True, text=True, check=True, timeout=20)
    lines = [line.split("\t") for line in listed.stdout.splitlines()]
    assert len(lines) > 200 and all(len(line) == 2 and line[1] for line in lines)


def test_a_fault_that_is_not_listed_is_refused() -> None:
    done = subprocess.run([standin_binary(), "--fault", "nonsense"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "nonsense" in done.stderr


def test_a_fault_answers_a_host_call(guest: Any, fakes: Any) -> None:
    ask(guest(faults=("call=proxy_get_buffer_bytes:status=10",)), "body", body="abc")
    assert headers_of(only(fakes["openai"]))["x-seen-body"] == "3 1 status 10"


def test_calls_can_be_made_to_fail(guest: Any, fakes: Any) -> None:
    answer = ask(guest(faults=("calls=fail",)), "call", x_call=f"127.0.0.1:{fakes['openai'].port}")
    assert answer.text.startswith("token 0, 0 headers, :status status 1")
    assert fakes["openai"].log() == []
