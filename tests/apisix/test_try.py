"""`scripts/try-apisix.py` against the stand-in with the files that it writes: what holds, and that each fault is told."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any, Callable, Iterator

import pytest
from installed import Installed

from server import ROOT, free_port, release_port

PROGRAM = ROOT / "scripts" / "try-apisix.py"

#: Changes config.yaml and apisix.yaml.
Edit = Callable[[str, str], tuple[str, str]]


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)


class Tried:
    """The folder that `--write` wrote, and an APISIX that runs with it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "try"
        self.apisix = Installed(folder / "apisix")
        written = run("--write", self.folder)
        assert written.returncode == 0, written.stderr
        self.told = written.stdout
        self.move_fakes()

    def move_fakes(self) -> None:
        """Other tests run on this machine: the fakes get ports that nobody else takes."""
        providers = json.loads((self.folder / "fakes.json").read_text())
        routes = (self.folder / "apisix.yaml").read_text()
        self.ports = [free_port() for _ in providers]
        for provider, port in zip(providers, self.ports):
            assert routes.count(f"port: {provider['port']},") == 1
            routes = routes.replace(f"port: {provider['port']},", f"port: {port},")
            provider["port"] = port
        (self.folder / "apisix.yaml").write_text(routes)
        (self.folder / "fakes.json").write_text(json.dumps(providers))

    def keys(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / "keys.env").read_text().splitlines())

    def start(self, edit: Edit | None = None, keys: dict[str, str] | None = None) -> None:
        config, routes = ((self.folder / name).read_text() for name in ("config.yaml", "apisix.yaml"))
        if edit:
            changed = edit(config, routes)
            assert changed != (config, routes)
            config, routes = changed
        (self.apisix.conf / "config.yaml").write_text(config)
        (self.apisix.conf / "apisix.yaml").write_text(routes)
        self.apisix.start(self.keys() if keys is None else keys)

    def tries(self, *more: object) -> "subprocess.CompletedProcess[str]":
        return run("--fakes", self.folder, self.apisix.url, "--control", self.apisix.control, "--logs", self.apisix.logs, *more)

    def remove(self) -> None:
        self.apisix.remove()
        for port in self.ports:
            release_port(port)


@pytest.fixture
def tried(tmp_path: pathlib.Path) -> Iterator[Tried]:
    made = Tried(tmp_path)
    yield made
    made.remove()


def lines(result: "subprocess.CompletedProcess[str]", begin: str) -> list[str]:
    return [line[6:] for line in result.stdout.splitlines() if line.startswith(begin)]


def test_with_the_shipped_files_everything_holds(tried: Tried) -> None:
    tried.start()
    result = tried.tries()
    print(result.stdout)
    assert (lines(result, "FAIL"), lines(result, "--"), result.stderr) == ([], [], ""), result.stdout
    assert result.returncode == 0
