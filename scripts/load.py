"""What the measurements share: the load generator of tests/load, as a fast provider and as the callers."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import urllib.request
from typing import Any, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOAD = ROOT / "target" / "load" / "release" / "shunt-load"

Json = dict[str, Any]


class Problem(Exception):
    """The measurement cannot go on."""


def progress(what: str) -> None:
    print(f"  .. {what}", flush=True)


def build(what: str, manifest: str, folder: str, *more: str) -> None:
    progress(f"building {what}")
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest]
    if subprocess.run([*command, "--target-dir", folder, *more], cwd=ROOT).returncode:
        raise Problem(f"{what} could not be built")


def build_load() -> None:
    build("shunt-load", "tests/load/Cargo.toml", "target/load")


class LoadUpstream:
    """`shunt-load upstream`; its statistics are read on a second port, away from the load."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [str(LOAD), "upstream", "--status-listen", "127.0.0.1:0", "--exit-with-parent", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Problem("shunt-load upstream did not start")
        ready = json.loads(line)
        self.port, self.status_port = ready["port"], ready["status_port"]

    def stats(self) -> Json:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/stats", timeout=5) as response:
            return dict(json.load(response))

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)


@contextlib.contextmanager
def load_upstream(*options: str) -> Iterator[LoadUpstream]:
    upstream = LoadUpstream(*options)
    try:
        yield upstream
    finally:
        upstream.stop()


def run_load(*options: str) -> Json:
    """`shunt-load run`: puts load on a gateway and returns the report."""
    done = subprocess.run([str(LOAD), "run", *options], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Problem(f"shunt-load run {' '.join(options)} ended with status {done.returncode}: {done.stderr}")
    return dict(json.loads(done.stdout))
