"""Many requests at once: from threads that see every answer, and from `shunt-load`, which only counts them; and changing
the configuration while they flow."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import subprocess
import threading
from types import TracebackType
from typing import Any, Callable, Iterable, Optional

import httpx

from server import PLAIN, ROOT
from support import Answer, Gateway, Json, Upstream, ask, wait_for

DEGRADED = "x-shunt-degraded"


# From threads


def new_client(timeout: float = 20.0) -> httpx.Client:
    """A client that opens a connection for every request, so that each may reach another worker."""
    return httpx.Client(timeout=timeout, trust_env=False, verify=PLAIN, limits=httpx.Limits(max_keepalive_connections=0))


def ask_at_once(gateway: Gateway, count: int, **request: Any) -> list[Answer]:
    """`count` requests at the same time, each on a connection of its own."""
    gate = threading.Barrier(count)

    def one(_: int) -> Answer:
        with new_client() as client:
            gate.wait()
            return ask(gateway, client=client, **request)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def ask_in_turn(gateway: Gateway, count: int, **request: Any) -> list[Answer]:
    """`count` requests one after the other, each on a new connection."""
    with new_client() as client:
        return [ask(gateway, client=client, **request) for _ in range(count)]


def assert_all_served(answers: Iterable[Answer]) -> None:
    """Every answer is a good one: a whole document, or a stream with its end."""
    for answer in answers:
        assert answer.status == 200 and answer.broken is None, (answer.status, answer.broken, answer.raw[:500])
        assert answer.text.startswith("Hello from "), answer.raw[:500]
        if "text/event-stream" in answer.headers["content-type"]:
            answer.assert_whole_stream()


class Traffic:
    """Callers that ask again and again until the `with` block ends, streams and whole answers in turn.

    Every request goes over a new connection unless `keep` is set. An exception of a caller is raised at the end.
    """

    def __init__(self, gateway: Gateway, callers: int = 4, keep: bool = False, **request: Any) -> None:
        self.answers: list[Answer] = []
        self._gateway = gateway
        self._keep = keep
        self._request = request
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call) for _ in range(callers)]

    def _call(self) -> None:
        client = httpx.Client(timeout=20.0, trust_env=False, verify=PLAIN) if self._keep else new_client()
        with client:
            stream = False
            while not self._stop.is_set():
                self.answers.append(ask(self._gateway, client=client, **{"stream": stream, **self._request}))
                stream = not stream

    def wait_for(self, wanted: Callable[[Answer], bool], count: int = 1, seconds: float = 20.0) -> None:
        """Waits until `count` more answers are as `wanted`."""
        begin = len(self.answers)
        found = lambda: sum(map(wanted, self.answers[begin:])) >= count  # noqa: E731
        wait_for(lambda: found() or any(caller.done() for caller in self._callers), seconds, "answers of the traffic")

    def wait_for_answers(self, count: int) -> None:
        self.wait_for(lambda _: True, count)

    def __enter__(self) -> "Traffic":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self._stop.set()
        self._pool.shutdown()
        for caller in self._callers:
            caller.result()


# Changing the configuration


def reload_listeners(gateway: Gateway) -> None:
    """Has the gateway take over its configuration document and its routes."""
    gateway.reload_listeners()


def reload_clusters(gateway: Gateway) -> None:
    """Has the gateway take over its upstreams."""
    gateway.reload_clusters()


# From shunt-load


@functools.cache
def load_tool() -> str:
    """Builds `shunt-load` (a no-op if nothing changed) and returns its path."""
    target = ROOT / "target" / "load"
    manifest = ROOT / "tests" / "load" / "Cargo.toml"
    build = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", str(manifest), "--target-dir", str(target)]
    try:
        subprocess.run(build, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("shunt-load cannot be built: cargo is not on the PATH") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"shunt-load cannot be built:\n{error.stderr}") from None
    return str(target / "release" / "shunt-load")


class Load:
    """A `shunt-load run` (or `streams`) under way; `report()` waits for its end."""

    def __init__(self, command: str, gateway: Gateway, *options: str) -> None:
        arguments = [load_tool(), command, "--target", f"127.0.0.1:{gateway.port}", *options]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._report: Optional[Json] = None

    def wait_until_all_are_open(self) -> None:
        """Waits until this client of `streams` has read the beginning of every one."""
        assert self._process.stderr is not None
        assert self._process.stderr.readline() == "all streams are open\n", "shunt-load has ended before"

    def is_running(self) -> bool:
        return self._process.poll() is None

    def report(self, seconds: float = 60.0) -> Json:
        if self._report is None:
            text, errors = self._process.communicate(timeout=seconds)
            assert self._process.returncode == 0, f"shunt-load has failed: {errors}"
            self._report = json.loads(text)
        return self._report

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self._process.kill()
        self._process.communicate()


class FastProvider:
    """`shunt-load upstream`: a provider that only answers, but much faster than the scripted fake."""

    def __init__(self, *options: str) -> None:
        arguments = [load_tool(), "upstream", "--exit-with-parent", *options]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.upstream = Upstream(json.loads(self._process.stdout.readline())["port"])

    def __enter__(self) -> "FastProvider":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()
