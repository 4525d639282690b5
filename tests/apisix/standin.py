"""Runs the stand-in for APISIX on the shipped configuration, pointed at fake providers on loopback.

What is tested is `apisix/*.yaml` itself: it is loaded, and only what must differ here is changed (ports, addresses, TLS
where the fakes are plain, the configuration document, times that would make a test wait). `host/` is the stand-in;
`make standin` builds it.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import ClassVar

import httpx
import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gateway"))

from server import Json, Server, Upstream, end, free_port, release_port, shipped, wait_for  # noqa: E402

#: Where `make standin` puts the guest that the stand-in is tested with.
GUEST = HERE / "guest" / "target" / "wasm32-wasip1" / "release"
#: The inner listeners as shipped.
INNER = (9081, 9082, 9083, 9084, 9085, 9086)
#: What nginx tells every upstream about whom it serves; for a provider, that is an inner listener.
FORWARDED = ("x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")


def standin_binary() -> str:
    """What `make standin` built; `STANDIN` in the environment names another one."""
    binary = pathlib.Path(os.environ.get("STANDIN", HERE / "host" / "target" / "release" / "standin"))
    if not binary.exists():
        raise RuntimeError(f"the stand-in is not built ({binary}): run `make standin`")
    return str(binary)


def seconds(text: str) -> float:
    """A duration of the configuration."""
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


class Quoted(yaml.SafeDumper):
    """Writes every text in quotes: APISIX reads `01:00` as a number, for which PyYAML sees no need of quotes."""


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@dataclass
class Standin(Server):
    """One stand-in for APISIX: a process for each scenario. `edit` changes config.yaml and apisix.yaml, in this order."""

    #: Rows of the stand-in's fault table.
    faults: tuple[str, ...] = ()
    #: The filter's contexts survive the move to another location that proxy-buffering makes.
    keep_contexts: bool = False
    #: Notes what is done for each request, for `counts`.
    count: bool = False
    #: How long the outer route waits for a piece of a stream, in seconds; as shipped, that is `limits.first_token`.
    outer_read: float | None = None
    #: How long an inner route waits for its provider, in seconds; as shipped, longer than `limits.answer`.
    inner_read: float | None = None
    #: Tells the filter where its calls go; without it, that is port 9081.
    tell_inner: bool = True

    #: Each worker learns alone: a test about what they know together has one worker.
    SHARES: ClassVar[bool] = False
    #: What its log says when a VM has trapped, or the host has something to say against the filter.
    TRAPS: ClassVar[tuple[str, ...]] = ("FATAL", "TRAP", "failed to mark context")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inner = tuple(free_port() for _ in INNER)
        self.control = free_port()
        #: When the files were edited last, in whole seconds.
        self.edited = 0
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shunt-standin-"))
        self.log_path = self.folder / "error.log"
        self.access_log_path = self.folder / "access.log"
        self.counts_path = self.folder / "counts"

    # Starting and stopping

    def start(self, wait: bool = True) -> "Standin":
        # Its own copy, so that it stays while it is built anew.
        self.wasm = pathlib.Path(shutil.copy(self.wasm, self.folder / "shunt.wasm"))
        self.write()
        command = [
            standin_binary(),
            *("--config", str(self.folder / "config.yaml"), "--routes", str(self.folder / "apisix.yaml")),
            *("--workers", str(self.workers), "--access-log", str(self.access_log_path)),
            *("--active", str(self.folder / "active")),
            *(word for fault in self.faults for word in ("--fault", fault)),
            *(["--counts", str(self.counts_path)] if self.count else []),
            *(["--keep-contexts"] if self.keep_contexts else []),
        ]
        environment = {"PATH": os.environ.get("PATH", ""), **self.keys(), **self.environment}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        if wait:
            try:
                wait_for(self.is_serving, 30, "the stand-in to serve")
            except BaseException:
                log_text = self.log()
                self.stop()
                raise RuntimeError(f"the stand-in did not start:\n{log_text[-4000:]}") from None
        return self

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None
        for port in (self.port, *self.inner, self.control):
            release_port(port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_serving(self) -> bool:
        status = self.status()
        if status is not None:
            raise RuntimeError(f"the stand-in ended with status {status}")
        try:
            for port in (self.port, *self.inner):
                socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def status(self) -> int | None:
        """The exit status; `None` while it runs."""
        return self.process.poll() if self.process is not None else None

    # What a test looks at

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _access_lines(self) -> str:
        return self.access_log_path.read_text(errors="replace") if self.access_log_path.exists() else ""

    def connections(self) -> list[int]:
        """How many requests the only worker has had: each is on a connection of its own."""
        assert self.workers == 1
        return [self.access_log_path.read_bytes().count(b"\n")]

    @staticmethod
    def adds(name: str, value: str) -> bool:
        """Whether a provider gets this header from APISIX's nginx, about the gateway's loopback address alone."""
        return name.lower() in FORWARDED and re.fullmatch(r"http|\d+|127\.0\.0\.1", value) is not None

    def checks(self) -> dict[str, list[Json]]:
        """What APISIX's control API says of the upstreams that have checks: their nodes, or none before their first use."""
        answer = httpx.get(f"http://127.0.0.1:{self.control}/v1/healthcheck", trust_env=False, timeout=10)
        # Lua's empty table is written as an object, in a list's place, too.
        return {entry["name"]: entry["nodes"] or [] for entry in answer.json() or []}

    def active(self) -> int:
        """How many requests of clients are under way."""
        return int.from_bytes((self.folder / "active").read_bytes(), "little")

    def counts(self) -> list[Json]:
        """What was done for each request that is over, the inner ones included."""
        # What follows the last line's end is still being written.
        whole, _, _ = self.counts_path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    # Writing the configuration

    def write(self) -> None:
        """Writes config.yaml and apisix.yaml; while the stand-in runs, it takes the routes from there."""
        settings, routes = self._config(), self._routes()
        if self.edit:
            self.edit(settings, routes)
        for name, document, last in (("config.yaml", settings, ""), ("apisix.yaml", routes, "#END\n")):
            self.write_text(name, yaml.dump(document, Dumper=Quoted, sort_keys=False, width=1000) + last)

    def write_text(self, name: str, text: str) -> None:
        """Moves a file into its place, edited a second after the last one: APISIX compares whole seconds, and an edit
        within the second of the one before is missed."""
        self.edited = max(int(time.time()), self.edited + 1)
        temporary = self.folder / f".{name}"
        temporary.write_text(text)
        os.utime(temporary, (self.edited, self.edited))
        temporary.replace(self.folder / name)

    def reload_listeners(self) -> None:
        """Writes both files anew. The next request finds what they say: routes are read again when their file was edited."""
        self.write()

    reload_clusters = reload_listeners

    def _config(self) -> Json:
        settings = shipped("apisix/config.yaml")
        settings["apisix"]["node_listen"] = [{"ip": "127.0.0.1", "port": port} for port in (self.port, *self.inner)]
        settings["apisix"]["control"] = {"ip": "127.0.0.1", "port": self.control}
        settings["wasm"]["plugins"][0]["file"] = str(self.wasm)
        nginx = settings["nginx_config"]
        nginx["envs"] = self.variables()
        every = "(?:" + "|".join(map(str, self.inner)) + ")"
        ports = dict(zip(map(str, INNER), map(str, self.inner)))
        nginx["http_configuration_snippet"] = re.sub(
            r"908\[1-6\]|\b908[1-6]\b",
            lambda found: ports.get(found.group(), every),
            nginx["http_configuration_snippet"],
        )
        return settings

    def _routes(self) -> Json:
        document = shipped("apisix/apisix.yaml")
        conf = {**self.config, "inner": f"127.0.0.1:{self.inner[0]}"} if self.tell_inner else self.config
        for entry in document["plugin_configs"]:
            entry["plugins"]["shunt"]["conf"] = copy.deepcopy(conf)
        if self.idle is not None:
            for entry in document["plugin_configs"]:
                entry["plugins"]["shunt"]["conf"].setdefault("limits", {})["first_token"] = f"{self.idle}s"
        limits = self.config.get("limits", {})
        outer, provider = document["routes"][:2]
        assert (outer["id"], provider["id"]) == ("shunt", "openai")
        for node in outer["upstream"]["nodes"]:
            node["port"] = self._port(node["port"])
        outer["upstream"]["timeout"]["read"] = self.outer_read or self.idle or seconds(limits.get("first_token", "15s"))
        names = [name for name in self.upstreams if name not in self.unmapped]
        routes = [{**provider, "id": name, "upstream_id": name, "vars": [["shunt_hop", "==", name]]} for name in names]
        document["routes"] = [outer, *routes]
        settings = document["upstreams"][0]
        assert settings["id"] == provider["upstream_id"] == "openai"
        document["upstreams"] = [self._provider(copy.deepcopy(settings), name, self.upstreams[name]) for name in names]
        return document

    def _provider(self, settings: Json, name: str, upstream: Upstream) -> Json:
        assert upstream.ca is None and not upstream.http2, "the stand-in speaks plain HTTP/1.1 to providers"
        settings["id"] = name
        settings["scheme"] = "http"
        limits = self.config.get("limits", {})
        settings["timeout"]["read"] = self.inner_read or seconds(limits.get("answer", "5m")) + 1
        live, last = settings["nodes"]
        live.update(host=upstream.host, port=upstream.port)
        last["port"] = self._port(last["port"])
        if upstream.health_check is None:
            del settings["checks"]
        else:
            for kind, changes in upstream.health_check.items():
                settings["checks"][kind] = {**settings["checks"][kind], **changes}
        return settings

    def _port(self, shipped: int) -> int:
        return self.inner[INNER.index(shipped)]
