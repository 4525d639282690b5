"""Runs the stand-in with a folder of files as a user has them: `conf`, `logs`, and the environment of `apisix start`.

Only the ports differ from what is written there, because other tests run on this machine, and where the filter lies.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from standin import INNER, end, free_port, release_port, standin_binary, wait_for  # noqa: E402

from server import WASM  # noqa: E402

#: The listener for clients as shipped, and APISIX's control API.
PUBLIC, CONTROL = 9080, 9090


class Installed:
    """An APISIX of one's own. What is in `conf` when it starts is what it runs with."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.conf = folder / "conf"
        self.logs = folder / "logs"
        for path in (self.conf, self.logs, folder / "run"):
            path.mkdir(parents=True)
        self.wasm = folder / "shunt.wasm"
        shutil.copy(WASM, self.wasm)
        self.ports = {port: free_port() for port in (PUBLIC, CONTROL, *INNER)}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[PUBLIC]}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.ports[CONTROL]}"

    def moved(self, text: str) -> str:
        """A text of the files or of README.md with the ports of this test."""
        every = "(?:" + "|".join(str(self.ports[port]) for port in INNER) + ")"
        text = text.replace("908[1-6]", every)
        return re.sub(r"\b(?:908[0-6]|9090)\b", lambda found: str(self.ports[int(found.group())]), text)

    def start(self, environment: dict[str, str]) -> None:
        """`apisix start` with these variables."""
        self.take_over()
        command = [
            standin_binary(),
            *("--config", str(self.folder / "run" / "config.yaml"), "--routes", str(self.folder / "run" / "apisix.yaml")),
            *("--access-log", str(self.logs / "access.log")),
        ]
        given = {"PATH": os.environ.get("PATH", ""), **environment}
        with open(self.logs / "error.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=given)
        wait_for(self.serves, 30, f"the stand-in to serve: {self.error_log()[-2000:]}")

    def take_over(self) -> None:
        """What APISIX does when a file in `conf` has changed."""
        config = (self.conf / "config.yaml").read_text()
        routes = (self.conf / "apisix.yaml").read_text()
        filter_there = pathlib.Path("/usr/local/apisix/shunt/shunt.wasm")
        config = self.moved(config).replace(str(filter_there), str(self.wasm))
        # The inner listeners are at other ports here, which the filter has to be told.
        first = f"          inner: 127.0.0.1:{self.ports[INNER[0]]}\n"
        routes = self.moved(re.sub(r"(?m)^ +conf: &shunt\n", lambda found: found.group() + first, routes))
        for name, text in (("config.yaml", config), ("apisix.yaml", routes)):
            (self.folder / "run" / name).write_text(text)

    def serves(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the stand-in ended with status {self.process.returncode}:\n{self.error_log()[-4000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.ports[PUBLIC]), 1).close()
            return True
        except OSError:
            return False

    def error_log(self) -> str:
        path = self.logs / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """`apisix stop`"""
        if self.process is not None:
            end(self.process)
            self.process = None

    def remove(self) -> None:
        self.stop()
        for port in self.ports.values():
            release_port(port)
