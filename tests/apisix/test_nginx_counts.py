"""What of a request's work is nginx's own, counted on nginx: requests to its own listeners, their connections, files, and runs of Lua."""

from __future__ import annotations

import pathlib
import threading
from typing import Iterator, NamedTuple

import httpx
import pytest

import nginx_gateway
from nginx_gateway import Answer, Gateway, wait_for

pytestmark = pytest.mark.skipif(nginx_gateway.missing() is not None, reason=str(nginx_gateway.missing()))

PLAN = "openai,deepseek,shareai"
PIECES = 50

#: Counts each run of a function of apisix.yaml.
COUNTED = """
        counted = {runs = 0}
        for _, route in pairs(require "routes") do
            for _, plugin in pairs(route.plugins) do
                for place, text in ipairs(plugin.functions or {}) do
                    plugin.functions[place] = "local run = (function() " .. text .. " end)()\\n"
                        .. "return function(...) counted.runs = counted.runs + 1 return run(...) end"
                end
            end
        end
    }
    log_by_lua_block {
        local file = io.open("FOLDER/counts", "a")
        file:write(ngx.var.server_port, " ", ngx.var.connection, " ", counted.runs, "\\n")
        file:close()
        counted.runs = 0
    }
"""


class Work(NamedTuple):
    """What one request has caused."""

    #: The connections of the requests on inner listeners, one for each request.
    connections: list[str]
    runs: int

    @property
    def loopback(self) -> int:
        return len(self.connections)


class Counting:
    """A gateway that counts."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.file = gateway.folder / "counts"
        #: How many events have come to the client.
        self.events = 0
        self.more = threading.Condition()

    def has(self, events: int) -> bool:
        """Waits until the client has this many events."""
        with self.more:
            return self.more.wait_for(lambda: self.events >= events, 20)

    def lines(self) -> list[list[str]]:
        text = self.file.read_text() if self.file.exists() else ""
        # What follows the last line's end is still being written.
        return [line.split() for line in text.rpartition("\n")[0].splitlines()]

    def ask(self, tries: int = 1, body: bytes = b'{"model":"m"}') -> Work:
        """A request that is expected to end after `tries` tries."""
        before = len(self.lines())
        with httpx.Client(trust_env=False, timeout=20) as client:
            headers = {"test-plan": PLAN, "test-rewrite": "1"}
            with client.stream("POST", self.gateway.url() + "/v1/chat/completions", headers=headers, content=body) as answer:
                assert answer.status_code == 200
                for piece in answer.iter_raw():
                    with self.more:
                        self.events += piece.count(b"\n\n")
                        self.more.notify_all()
        wait_for(lambda: len(self.lines()) >= before + 1 + tries, what="the request and its tries to be logged")
        lines = self.lines()[before:]
        inner = [connection for port, connection, _ in lines if int(port) in self.gateway.inner]
        return Work(inner, sum(int(runs) for _, _, runs in lines))


@pytest.fixture
def counting(tmp_path: pathlib.Path) -> Iterator[Counting]:
    gateway = Gateway(tmp_path)
    conf = tmp_path / "nginx.conf"
    told = conf.read_text()
    assert told.count('init_by_lua_block { require "resty.core" }') == 1
    counted = 'init_by_lua_block {\n        require "resty.core"' + COUNTED.replace("FOLDER", str(tmp_path))
    conf.write_text(told.replace('init_by_lua_block { require "resty.core" }', counted))
    with gateway:
        yield Counting(gateway)
        assert gateway.errors() == ""


def test_each_try_is_one_request_over_the_loopback_and_connections_are_kept(counting: Counting) -> None:
    first, second = counting.ask(), counting.ask()
    assert (first.loopback, second.loopback) == (1, 1)
    assert first.connections == second.connections


def test_a_failover_is_one_request_more(counting: Counting) -> None:
    counting.gateway.providers["openai"].script = [Answer(503)]
    work = counting.ask(tries=2)
    assert work.loopback == 2
    assert len(counting.gateway.providers["openai"].seen) == len(counting.gateway.providers["deepseek"].seen) == 1


def test_each_piece_of_a_stream_runs_one_function_in_each_hop(counting: Counting) -> None:
    """A function for the first try and one for the body of the provider's request come before them, and the stream's end is a piece."""
    pieces: list[object] = []
    for number in range(PIECES):
        # The client has the piece before, so that no two become one.
        pieces += [lambda number=number: counting.has(number), b"data: %d\n\n" % number]
    counting.gateway.providers["openai"].script = [Answer(200, {}, (*pieces, lambda: counting.has(PIECES)))]
    work = counting.ask()
    assert work.loopback == 1
    assert 2 * PIECES < work.runs <= 2 + 2 * (PIECES + 2)


def test_a_body_of_100_kb_causes_no_other_requests(counting: Counting) -> None:
    assert counting.ask(body=b"{" + b" " * 100_000 + b"}").loopback == 1
