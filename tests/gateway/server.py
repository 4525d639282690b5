"""What every gateway under test has: a configuration, free ports, a folder, a process, a log and an access log.

`gateway.Gateway` is the real Envoy; `standin.Standin`, in tests/apisix, stands in for APISIX.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO, Any, Callable, ClassVar

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: The filter under test; `SHUNT_WASM` in the environment names another one (`make check` builds one more quickly).
WASM = pathlib.Path(os.environ.get("SHUNT_WASM", ROOT / "dist" / "shunt.wasm")).absolute()

Json = dict[str, Any]

#: Why a scenario that changes its configuration has a process of its own.
RELOADS = "as shipped, requests under way go on at the old listener; a shared Envoy ends them"

#: For clients of plain HTTP. Without it, httpx reads all certificate authorities of the system for each client: 20 ms of CPU.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

#: Below the range from which the system takes the ports of outgoing connections: none of those can be in the way when a
#: server binds a little later.
_PORTS = itertools.cycle(random.sample(range(20000, 32000), 12000))
#: The ports that this process has taken, each with the lock that keeps other test processes off it.
_LOCKS: dict[int, IO[str]] = {}


def free_port() -> int:
    """A port that nobody listens on and no other test process is about to; kept until `release_port`."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"shunt-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in itertools.islice(_PORTS, 12000):
        lock = open(folder / str(port), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _LOCKS[port] = lock
        return port
    raise RuntimeError("no free port from 20000 to 32000")


def release_port(port: int) -> None:
    lock = _LOCKS.pop(port, None)
    if lock is not None:
        lock.close()


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, what: str = "a condition") -> Any:
    """Waits until `condition` is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to end, and insists after ten seconds."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def shipped(path: str) -> Json:
    """A YAML file of the repository. What its anchors share is separate in the result, so that each part can be changed alone."""
    document: Json = json.loads(_shipped(path))
    return document


_READ: dict[str, str] = {}


def _shipped(path: str) -> str:
    # Parsing is slow (a fifth of what a scenario costs), and the files do not change while the tests run.
    if path not in _READ:
        _READ[path] = json.dumps(yaml.load((ROOT / path).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return _READ[path]


def write_moved(path: pathlib.Path, text: str) -> None:
    """Writes a file and moves it over the old one: who watches for moves never reads half of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


@dataclass
class Upstream:
    """Where a provider's cluster points to."""

    port: int
    host: str = "127.0.0.1"
    http2: bool = False
    #: A CA file: the upstream speaks TLS and is verified against it under the name `sni`.
    ca: str | None = None
    sni: str = "localhost"
    #: Keep the shipped health check (it is left out otherwise, so that a test's own faults decide).
    health_check: Json | None = None


@dataclass
class Server:
    """A gateway under test. `config` is Shunt's configuration document, `upstreams` the providers by name."""

    config: Json
    upstreams: dict[str, Upstream]
    workers: int = 1
    #: Names that have no way to their provider in the gateway's own configuration, on purpose.
    unmapped: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    wasm: pathlib.Path = WASM
    #: Changes the two files of the gateway's own configuration after everything else.
    edit: Callable[[Json, Json], None] | None = None
    log_level: str = "warning"
    #: How long a released stream may say nothing, in seconds. As shipped, a test would wait for a minute.
    idle: float | None = None
    #: Why this scenario needs a process of its own; without a reason it may run in one that other scenarios used before.
    own_process: str = ""

    #: Whether its workers share what they know of the providers.
    SHARES: ClassVar[bool] = True
    #: Whether it speaks HTTP/2 to clients.
    HTTP2: ClassVar[bool] = True
    #: What its log says when a VM has trapped.
    TRAPS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.port = free_port()

    # To be implemented

    #: The process, while there is one.
    process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self, wait: bool = True) -> Any:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def log(self) -> str:
        """What the server has logged about this scenario."""
        raise NotImplementedError

    def _access_lines(self) -> str:
        """The lines of the access log that are about this scenario."""
        raise NotImplementedError

    # The same for all

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def access_log(self) -> list[Json]:
        """The access log's complete lines that have a record."""
        lines = self._access_lines().split("\n")
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def keys(self) -> dict[str, str]:
        """A key for every provider of the configuration, different for each."""
        variables = {name: entry["api_key"] for name, entry in self.config.get("providers", {}).items()}
        return {variable.lstrip("$"): f"sk-{name}" for name, variable in variables.items()}

    def variables(self) -> list[str]:
        """The environment variables that the filter may read."""
        return sorted({*self.keys(), *self.environment})

    def has_trapped(self) -> bool:
        log = self.log()
        return any(word in log for word in ("panicked", *self.TRAPS))
