"""Runs the stand-in with a folder of files as a user has them: `conf`, `logs`, and the environment of `apisix start`.

Only the ports differ from what is written there, because other tests run on this machine, and where the filter lies. As a
program, `installed.py FOLDER start|stop|reload|restart`, it does what the command `apisix` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gateway")]

from server import free_port, release_port, wait_for  # noqa: E402
from standin import INNER, standin_binary  # noqa: E402

#: The listener for clients as shipped, and APISIX's control API.
PUBLIC, CONTROL = 9080, 9090
#: Where APISIX is installed, as README.md and config.yaml say.
PREFIX = "/usr/local/apisix"


class Installed:
    """An APISIX of one's own, in a folder instead of `/usr/local/apisix`."""

    def __init__(self, folder: pathlib.Path, ports: dict[int, int] | None = None) -> None:
        self.folder = folder
        self.conf = folder / "conf"
        self.logs = folder / "logs"
        #: Where config.yaml expects the filter.
        self.wasm = folder / "shunt" / "shunt.wasm"
        for path in (self.conf, self.logs, folder / "run"):
            path.mkdir(parents=True, exist_ok=True)
        self.ports = ports or {port: free_port() for port in (PUBLIC, CONTROL, *INNER)}
        #: Tells the filter that the inner listeners are at other ports here.
        self.tell_inner = True
        (folder / "ports.json").write_text(json.dumps(self.ports))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[PUBLIC]}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.ports[CONTROL]}"

    def moved(self, text: str) -> str:
        """A text of the files or of README.md with the ports and the place of this one."""
        every = "(?:" + "|".join(str(self.ports[port]) for port in INNER) + ")"
        text = text.replace("908[1-6]", every).replace(PREFIX, str(self.folder))
        return re.sub(r"\b(?:908[0-6]|9090)\b", lambda found: str(self.ports[int(found.group())]), text)

    def take_over(self) -> None:
        """Hands the stand-in what is in `conf` now; while it runs, it reads the routes anew."""
        config, routes = (self.moved((self.conf / name).read_text()) for name in ("config.yaml", "apisix.yaml"))
        if self.tell_inner:
            first = f"          inner: 127.0.0.1:{self.ports[INNER[0]]}\n"
            routes = re.sub(r"(?m)^ +conf: &shunt\n", lambda found: found.group() + first, routes)
        # As shipped, the control API is at APISIX's default.
        control = f"  control: {{ip: 127.0.0.1, port: {self.ports[CONTROL]}}}\n"
        config = re.sub(r"(?m)^apisix:\n", lambda found: found.group() + control, config)
        for name, text in (("config.yaml", config), ("apisix.yaml", routes)):
            path, temporary = self.folder / "run" / name, self.folder / "run" / f".{name}"
            temporary.write_text(text)
            # APISIX compares whole seconds, and a person edits more slowly than a test.
            edited = max(int(time.time()), int(path.stat().st_mtime) + 1 if path.exists() else 0)
            os.utime(temporary, (edited, edited))
            temporary.replace(path)

    def types(self, text: str, folder: pathlib.Path) -> "subprocess.CompletedProcess[str]":
        """Runs commands as they are printed somewhere; `sudo` and `apisix` are those of this one."""
        bin = self.folder / "bin"
        bin.mkdir(exist_ok=True)
        for name, does in (("sudo", "exec"), ("apisix", f"exec {sys.executable} {HERE / 'installed.py'} {self.folder}")):
            (bin / name).write_text(f'#!/bin/sh\n{does} "$@"\n')
            (bin / name).chmod(0o755)
        path = {name: os.environ[name] for name in ("STANDIN",) if name in os.environ}
        path["PATH"] = f"{bin}:{os.environ['PATH']}"
        return subprocess.run(["bash", "-c", self.moved(text)], cwd=folder, env=path, capture_output=True, text=True, timeout=180)

    # What the command `apisix` does

    def start(self, environment: dict[str, str], workers: int = 1) -> None:
        if self.pid() is not None:
            # As the real one does, and that is all.
            print("APISIX is running...")
            return
        self.take_over()
        run = self.folder / "run"
        command = [
            *(standin_binary(), "--config", str(run / "config.yaml"), "--routes", str(run / "apisix.yaml")),
            *("--access-log", str(self.logs / "access.log"), "--workers", str(workers)),
        ]
        (run / "environment.json").write_text(json.dumps(environment))
        with open(self.logs / "error.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        (self.logs / "nginx.pid").write_text(str(process.pid))

        def serves() -> bool:
            if process.poll() is not None:
                (self.logs / "nginx.pid").unlink()
                raise RuntimeError(f"the stand-in ended with status {process.returncode}:\n{self.error_log()[-4000:]}")
            return self.listens()

        wait_for(serves, 30, "the stand-in to serve")

    def stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        wait_for(lambda: not self.listens(), 10, "the stand-in to end")
        (self.logs / "nginx.pid").unlink()

    def reload(self) -> None:
        """New workers with the new config.yaml; their environment is that of the start."""
        environment = json.loads((self.folder / "run" / "environment.json").read_text())
        self.stop()
        self.start(environment)

    def pid(self) -> int | None:
        path = self.logs / "nginx.pid"
        return int(path.read_text()) if path.exists() else None

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.ports[PUBLIC]), 1).close()
            return True
        except OSError:
            return False

    def error_log(self) -> str:
        path = self.logs / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def remove(self) -> None:
        self.stop()
        for port in self.ports.values():
            release_port(port)


def main() -> None:
    folder, command = pathlib.Path(sys.argv[1]), sys.argv[2]
    ports = {int(port): at for port, at in json.loads((folder / "ports.json").read_text()).items()}
    apisix = Installed(folder, ports)
    if command == "reload":
        apisix.reload()
        return
    if command in ("stop", "restart"):
        apisix.stop()
    if command in ("start", "restart"):
        apisix.start(dict(os.environ))


if __name__ == "__main__":
    main()
