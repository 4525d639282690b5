"""Runs the real Envoy on the shipped configuration, pointed at fake providers on loopback.

What is tested is `envoy/*.yaml` itself: it is loaded, and only what must differ here is changed (addresses, ports, TLS
where the fakes are plain, the path of the `.wasm`, the `vm_id`, limits that would make a test wait). Everything else (retry
policy, cluster matcher, buffers, thresholds, the local backup) is what users run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
from dataclasses import dataclass
from typing import Callable, ClassVar, Optional

from envoys import AT_ONCE, SHARED_ENVIRONMENT, Envoy, Envoys, envoy_binary
from server import RELOADS, ROOT, WASM, Json, Server, Upstream, free_port, release_port, shipped, wait_for, write_moved

_SCENARIOS = itertools.count(1)


@dataclass
class Gateway(Server):
    """One scenario on Envoy: in a process of its own, or in one of `envoys`, which other scenarios used before."""

    #: Where to take a process from. Without, the scenario has its own.
    envoys: Optional[Envoys] = None

    TRAPS: ClassVar[tuple[str, ...]] = (
        "Uncaught RuntimeError", "in-VM backtrace", "Assertion failure", "assert failure",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.backup_port = free_port()
        self._shared = self.envoys is not None and not self._needs_its_own()
        if self._shared:
            assert self.envoys is not None
            self.envoy = self.envoys.take(self.workers)
            # Shared data and the VMs' memory are kept by this name.
            self._vm = f"shunt-{next(_SCENARIOS)}"
        else:
            environment = {**self.keys(), **self.environment}
            self.envoy = Envoy(self.workers, environment, self.wasm, self.log_level)
            self._vm = "shunt"
        self.wasm = self.envoy.wasm
        self._stopped = False
        # Where this scenario's part of the logs begins.
        self._begin = {path: path.stat().st_size for path in self._logs() if path.exists()}

    def _needs_its_own(self) -> str:
        """Why the scenario cannot run in a process that others use."""
        needed = {**self.keys(), **self.environment}
        if self.own_process:
            return self.own_process
        if any(upstream.health_check for upstream in self.upstreams.values()):
            return "its health checks would go on after its end"
        if not needed.items() <= SHARED_ENVIRONMENT.items():
            return "it needs another environment"
        if self.log_level != "warning" or self.wasm != WASM:
            return "it needs another log level or filter"
        return ""

    # Starting and stopping

    def start(self, wait: bool = True) -> "Gateway":
        if self._shared and self.envoy.is_running():
            listeners, clusters = self._documents()
            try:
                self.envoy.load(self.port, dumped(listeners), dumped(clusters))
            except BaseException as error:
                self._give_up(f"Envoy did not take the scenario over: {error}")
            self.process = self.envoy.process
            return self
        self.write_clusters()
        self.write_listeners()
        self.envoy.start(*(AT_ONCE if self._shared else ()))
        self.process = self.envoy.process
        if wait:
            try:
                wait_for(self.is_serving, 30, "Envoy to serve")
            except BaseException:
                self._give_up("Envoy did not start")
        return self

    def _give_up(self, problem: str) -> None:
        log = self.log()
        self.envoy.spoiled = "it did not start"
        self.stop()
        raise RuntimeError(f"{problem}\n{log[-4000:]}") from None

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._shared:
            assert self.envoys is not None
            if self.has_trapped():
                self.envoy.spoiled = "a VM has trapped"
            elif not self.envoy.spoiled and not self.envoy.is_quiet():
                self.envoy.spoiled = "something was still under way"
            self.envoys.give_back(self.envoy)
        else:
            self.envoy.stop()
        self.process = None
        for port in (self.port, self.backup_port):
            release_port(port)

    def is_serving(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Envoy ended with status {self.process.returncode}")
        try:
            return self.envoy.listens_on(self.port)
        except OSError:
            return False

    # What a test looks at

    @property
    def admin_port(self) -> int:
        return self.envoy.admin_port

    @property
    def folder(self) -> pathlib.Path:
        return self.envoy.folder

    @property
    def log_path(self) -> pathlib.Path:
        return self.envoy.log_path

    @property
    def access_log_path(self) -> pathlib.Path:
        return self.envoy.access_log_path

    def admin(self, path: str, method: str = "GET") -> bytes:
        return self.envoy.admin(path, method)

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

    def _logs(self) -> tuple[pathlib.Path, ...]:
        # Envoy's log, and what it wrote before its log file was open.
        return (self.access_log_path, self.log_path)

    def _read(self, path: pathlib.Path) -> str:
        if not path.exists():
            return ""
        with open(path, "rb") as file:
            file.seek(self._begin.get(path, 0))
            return file.read().decode(errors="replace")

    def log(self) -> str:
        self._wait_until_written()
        return "\n".join(map(self._read, self._logs()))

    def _wait_until_written(self) -> None:
        """Waits until Envoy has written what it has logged so far: it does so every 50 ms."""
        with contextlib.suppress(OSError, TimeoutError):
            # An Envoy that has ended has written everything.
            wait_for(lambda: self.stat("filesystem.write_total_buffered") == 0, 1.0, "the log to be written")

    def _access_lines(self) -> str:
        return self._read(self.access_log_path)

    # Writing the configuration

    def _documents(self) -> tuple[Json, Json]:
        """listeners.yaml and clusters.yaml of this scenario."""
        document = shipped("envoy/listeners.yaml")
        main, shadow, detour, backup = document["resources"]
        main["address"]["socket_address"].update(address="127.0.0.1", port_value=self.port)
        backup["address"]["socket_address"]["port_value"] = self.backup_port
        managers = [listener["filter_chains"][0]["filters"][-1]["typed_config"] for listener in (main, shadow, detour)]
        self._set_vm(detour["filter_chains"][0]["filters"][0]["typed_config"]["config"]["vm_config"])
        for manager in managers:
            self._fit(manager)
        clusters = self._clusters()
        if self.edit:
            self.edit(document, clusters)
        return document, clusters

    def write_listeners(self) -> None:
        """Writes listeners.yaml; while Envoy runs, it is loaded at once."""
        write_moved(self.folder / "listeners.yaml", dumped(self._documents()[0]))

    def write_clusters(self) -> None:
        """Writes clusters.yaml; while Envoy runs, it is loaded at once."""
        write_moved(self.folder / "clusters.yaml", dumped(self._documents()[1]))

    def _fit(self, manager: Json) -> None:
        """Gives a listener's connection manager the routes, the filter and the configuration of this test."""
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            if "inline_cluster_specifier_plugin" not in route.get("route", {}):
                continue
            matcher = route["route"]["inline_cluster_specifier_plugin"]["extension"]["typed_config"]["cluster_matcher"]
            entries = matcher["matcher_tree"]["prefix_match_map"]["map"]
            action = entries["openai/"]
            entries.clear()
            for name in self.upstreams:
                if name not in self.unmapped:
                    entries[f"{name}/"] = duplicate(action)
                    entries[f"{name}/"]["action"]["typed_config"]["cluster"] = name
        plugin = manager["http_filters"][0]["typed_config"]["config"]
        self._set_vm(plugin["vm_config"])
        if "configuration" in plugin:
            plugin["configuration"]["value"] = json.dumps(self.config)
        if self.idle is not None:
            for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
                if route["name"].startswith("live"):
                    route["route"]["idle_timeout"] = f"{self.idle}s"

    def reload_listeners(self) -> None:
        """Writes listeners.yaml anew and waits until Envoy has taken it over."""
        self._reload(self.write_listeners, "listener_manager.lds.update_success")
        wait_for(lambda: self.stat("listener_manager.total_listeners_warming") == 0, what="the listener to be warm")

    def reload_clusters(self) -> None:
        """Writes clusters.yaml anew and waits until Envoy has taken it over."""
        self._reload(self.write_clusters, "cluster_manager.cds.update_success")
        wait_for(lambda: self.stat("cluster_manager.warming_clusters") == 0, what="the clusters to be warm")

    def _reload(self, write: Callable[[], None], counter: str) -> None:
        assert not self._shared, f"own_process={RELOADS!r}"
        before = self.stat(counter)
        write()
        wait_for(lambda: self.stat(counter) > before, what=f"{counter} above {before}")

    def _clusters(self) -> Json:
        document = shipped("envoy/clusters.yaml")
        known = {cluster["name"]: cluster for cluster in document["resources"]}
        nowhere = known["shunt_nowhere"]
        nowhere["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"][
            "port_value"
        ] = self.backup_port
        clusters = [self._cluster(duplicate(known["openai"]), name, up) for name, up in self.upstreams.items()]
        clusters.append(nowhere)
        for cluster in clusters:
            options = next(iter(cluster["typed_extension_protocol_options"].values()))
            self._set_vm(options["http_filters"][0]["typed_config"]["config"]["vm_config"])
        return {"resources": [*clusters, known["shunt_shadow"], known["shunt_detour"]]}

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
        vm["vm_id"] = self._vm
        vm["code"]["local"]["filename"] = str(self.wasm)
        vm["environment_variables"]["host_env_keys"] = self.variables()


def duplicate(part: Json) -> Json:
    # Five times as fast as `copy.deepcopy`.
    copy: Json = json.loads(json.dumps(part))
    return copy


def dumped(document: Json) -> str:
    # JSON is YAML, and ten times as fast to write.
    return json.dumps(document)


__all__ = ["ROOT", "WASM", "Gateway", "Json", "RELOADS", "Upstream", "envoy_binary", "free_port", "release_port", "wait_for"]
