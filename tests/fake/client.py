"""Start fake providers and talk to their control API. Standard library only.

with start("openai") as openai:
    openai.script({"do": "status", "status": 503})
    ...
    assert openai.log()[0]["ended"] == "complete"
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

Step = dict[str, Any]

PROGRAM = Path(__file__).with_name("provider.py")

# Without this, a proxy configured in the environment would get our calls.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ControlError(Exception):
    """The control API refused a call; the message is what it said."""


class FakeProvider:
    """A running provider, seen through its control API."""

    def __init__(
        self,
        name: str,
        port: int,
        control_port: int,
        process: Optional["subprocess.Popen[bytes]"] = None,
    ) -> None:
        self.name = name
        self.port = port
        self.control_port = control_port
        self.process = process

    def script(
        self,
        *steps: Step,
        default: Optional[Step] = None,
        when: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Replace the script. Without ``default`` the old default stays."""
        spec: dict[str, Any] = {"steps": list(steps), "when": list(when)}
        if default is not None:
            spec["default"] = default
        self.call("POST", "/script", spec)

    def log(self) -> list[dict[str, Any]]:
        """All requests since the last reset, oldest first."""
        log: list[dict[str, Any]] = self.call("GET", "/log")
        return log

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.call("GET", "/stats")
        return stats

    def reset(self) -> None:
        """Back to the state after the start, but for what is still open."""
        self.call("POST", "/reset")

    def listen(self, on: bool) -> None:
        """Play dead, or come back to life on the same port."""
        self.call("POST", "/listen", {"on": on})

    def release(self) -> int:
        """Let all held requests go on; returns how many there were."""
        return int(self.call("POST", "/release")["released"])

    def health(self, status: int) -> None:
        """Set what ``GET /health`` answers."""
        self.call("POST", "/health", {"status": status})

    def lacks(self, *features: str, context: Optional[int] = None) -> None:
        """Refuse conversations with these features, or with more tokens than ``context``."""
        self.call("POST", "/lacks", {"features": list(features), "context": context})

    def wait_for(self, timeout: float = 5.0, **wanted: int) -> dict[str, Any]:
        """Wait until the stats have the given values, such as ``in_flight=0``."""
        deadline = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if all(stats[key] == value for key, value in wanted.items()):
                return stats
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: waited for {wanted}, have {stats}")
            time.sleep(0.005)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make any call of the control API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode("utf-8"),
            headers={"content-type": "application/json"},
        )
        try:
            with _opener.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ControlError(error.read().decode("utf-8")) from None

    def stop(self) -> None:
        """End the process, if it was started by :func:`start`."""
        if self.process is None:
            return
        self.process.terminate()
        self.process.communicate(timeout=10)

    def __enter__(self) -> "FakeProvider":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    name: str = "openai",
    *,
    port: int = 0,
    control_port: int = 0,
    host: str = "127.0.0.1",
    dialect: str = "openai",
    http2: bool = False,
    strict: bool = False,
    tokenizer: str = "chars",
    tls: Optional[tuple[str, str]] = None,
    python: str = sys.executable,
) -> FakeProvider:
    """Run a provider in a process of its own and return once it listens.

    ``tls`` is a pair of files, certificate and key. The process ends with this
    one, however this one ends.
    """
    command = [python, str(PROGRAM), "--exit-with-parent", "--name", name]
    command += ["--port", str(port), "--control-port", str(control_port)]
    command += ["--host", host, "--dialect", dialect]
    command += ["--tokenizer", tokenizer]
    if strict:
        command.append("--strict")
    if http2:
        command.append("--http2")
    if tls is not None:
        command += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])]
    # In a session of its own: Ctrl-C is for the parent, whose end ends it.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.communicate()
        raise RuntimeError(f"{name} did not start, exit status {process.returncode}")
    ready = json.loads(line)
    return FakeProvider(name, ready["port"], ready["control_port"], process)
