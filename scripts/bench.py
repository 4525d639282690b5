"""Shunt against plain Envoy, side by side on this machine, and what a vendor's form, a failover, a growing body and time add.

    bench.py               everything, about eleven minutes
    bench.py --quick       a tenth of the requests, about five minutes
    bench.py --json FILE   the numbers as JSON, too
    bench.py --trap        what a trap of the filter costs (builds another wasm, with the feature test-trap)

A is the shipped configuration with Shunt, B the same listener and cluster without the filter: same buffers, access log,
retries and upstream. C is A with a filter in Shunt's places that decides nothing (tests/load/floor): what no filter there can
do without. One worker each. Blocks of requests alternate between the two, because a machine's speed drifts by
more than a filter costs. CPU is that of the whole Envoy process. Where valgrind is installed, instructions are counted, too
(instructions.py, five minutes more).

Exit status 0 if every request was answered, whatever the numbers; 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import http.client
import itertools
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Iterator, Optional

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "gateway"))

import instructions  # noqa: E402
from load import Json, LoadUpstream, Problem, build, build_load, load_upstream, progress, run_load  # noqa: E402
from support import BASE, CHAT, Gateway, Upstream, ask, chat, config, fake, wait_for  # noqa: E402

WASM = ROOT / "dist" / "shunt.wasm"
FLOOR_WASM = ROOT / "target" / "floor" / "wasm32-wasip1" / "release" / "shunt_floor.wasm"
TRAP_WASM = ROOT / "target" / "trap" / "wasm32-wasip1" / "release" / "shunt.wasm"

#: Nothing but the filter's work may limit a request here. The breaker never opens: what is measured is a failover, and
#: with an open breaker there is none.
SETTINGS = config(
    {
        "limits": {"first_token": "15s", "answer": "60s"},
        "breaker": {"consecutive_failures": 65535, "error_rate": 1.0, "minimum_requests": 4294967295},
    }
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `requests` are for each side, `block` of them in a row."""

    name: str
    body_bytes: int
    stream: bool
    connections: int
    requests: int
    block: int
    #: Whose form the upstream's answers have.
    vendor: str = "openai"
    #: The client asks for the usage of a stream. The filter always does, and takes the answer's out if the client did not.
    include_usage: bool = False
    #: Between the events of a stream. Without one Envoy reads most of them together, which no model is fast enough for.
    event_gap: str = "0s"

    @property
    def upstream(self) -> tuple[str, ...]:
        """Who answers, as options of `shunt-load upstream`."""
        return ("--vendor", self.vendor, "--event-gap", self.event_gap)

    @property
    def request(self) -> list[str]:
        """What to ask, as options of `shunt-load run`."""
        options = ["--body-bytes", str(self.body_bytes), "--connections", str(self.connections)]
        options += ["--stream"] if self.stream else []
        return options + (["--include-usage"] if self.include_usage else [])


#: What a request costs. With one connection p50 is what a caller waits, and every request wakes every process; with 16
#: the worker is never idle, so that CPU per request is what a core can serve, and p50 is mostly queueing.
ROWS = [
    Row("1 KB, whole", 1_000, False, 1, 20_000, 1_000),
    Row("1 KB, whole, 16 callers", 1_000, False, 16, 40_000, 1_000),
    Row("100 KB, whole", 100_000, False, 1, 8_000, 500),
    Row("1 MB, whole", 1_000_000, False, 1, 1_500, 100),
    Row("1 KB, streamed, 50 events", 1_000, True, 1, 8_000, 500),
]

#: Those that have a bound.
FLOOR_ROWS = ROWS[:2]

#: What it costs that all answers are OpenAI's: nothing to change, a little in some places, everything. Plain Envoy passes
#: on what the vendor sent.
VENDOR_ROWS = [
    row
    for name in ("OpenAI", "DeepSeek", "Anthropic")
    for row in (
        Row(f"{name}, whole", 1_000, False, 1, 8_000, 500, name.lower()),
        Row(f"{name}, 50 events", 1_000, True, 1, 8_000, 500, name.lower(), True),
        Row(f"{name}, 50 events apart", 1_000, True, 16, 1_000, 50, name.lower(), True, "1ms"),
    )
]

#: Each measurement is split, and the median of the parts is told.
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write the numbers there, too")
    parser.add_argument("--trap", action="store_true", help="measure what a trap costs, and nothing else")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = trap() if arguments.trap else bench(10 if arguments.quick else 1)
    except Problem as problem:
        print(f"\nbench: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 130
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
        print(f"\nThe numbers are in {arguments.json}.")
    if results.get("failed_requests"):
        print(f"\n{results['failed_requests']} requests FAILED: the numbers above are not to be trusted.")
        return 1
    return 0


# --- The benchmark


def bench(divisor: int) -> Json:
    started = time.monotonic()
    build_load()
    build("the filter that decides nothing", "tests/load/floor/Cargo.toml", "target/floor", "--target", "wasm32-wasip1")
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > 0.5:
        print(f"  note: other work runs on this machine (load average {busy:.1f} on {cores} cores); it disturbs the numbers")
    results: Json = {"rows": [], "failed_requests": 0, "quick": divisor > 1}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(load_upstream())
        failing = stack.enter_context(load_upstream("--fail-first-status", "503"))
        progress("starting Envoy with Shunt (A), plain Envoy (B), one with Shunt and a failing primary, and the floor (C)")
        a = stack.enter_context(gateway(upstream))
        b = stack.enter_context(gateway(upstream, edit=strip))
        failover = stack.enter_context(gateway(upstream, primary=failing))
        floor = stack.enter_context(gateway(upstream, wasm=FLOOR_WASM))

        for row in ROWS:
            results["rows"].append(compare(results, row, a, b, upstream, divisor))
        print_rows(results["rows"])
        results["floor_rows"] = [compare(results, row, floor, b, upstream, divisor) for row in FLOOR_ROWS]
        print_rows(results["floor_rows"], "C: decides nothing, B: plain", "C")
        results["vendor_rows"] = measure_vendors(results, divisor)
        print_rows(results["vendor_rows"])
        results["growth"] = growth(results["rows"])
        results["failover"] = measure_failover(results, failover, a, failing, 10_000 // divisor)
        results["host_calls"] = host_calls()
        with gateway(upstream) as fresh:
            results["memory"] = measure_memory(results, fresh, 20_000 // divisor)
    results["instructions"] = count_instructions()
    results["wasm_bytes"] = WASM.stat().st_size
    results["seconds"] = round(time.monotonic() - started, 1)
    print_bounds(results)
    return results


def compare(results: Json, row: Row, a: Gateway, b: Gateway, upstream: LoadUpstream, divisor: int) -> Json:
    requests = row.requests // divisor
    progress(f"{row.name}: {requests:,} requests to each")
    before = upstream.stats()
    report = side_by_side(results, a, b, requests, row.block, *row.request, "--vendor2", row.vendor)
    after = upstream.stats()
    answered = after["requests"] - before["requests"]
    return {
        "name": row.name,
        "vendor": row.vendor,
        "body_bytes": row.body_bytes,
        "stream": row.stream,
        "connections": row.connections,
        "requests": requests,
        "shunt": report["a"],
        "plain": report["b"],
        "cpu_ratio": report["ratios"]["cpu_us_per_request"][1],
        "cpu_ratio_range": [report["ratios"]["cpu_us_per_request"][0], report["ratios"]["cpu_us_per_request"][2]],
        "p50_ratio": report["ratios"]["p50_us"][1],
        "p99_ratio": report["ratios"]["p99_us"][1],
        "upstream_us_per_request": round((after["busy_ns"] - before["busy_ns"]) / 1000 / max(1, answered), 1),
    }


def measure_vendors(results: Json, divisor: int) -> list[Json]:
    """The answers of each vendor, through a pair of Envoys of its own."""
    measured = []
    for options, rows in itertools.groupby(VENDOR_ROWS, lambda row: row.upstream):
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(load_upstream(*options))
            of_group = list(rows)
            a = stack.enter_context(gateway(upstream, settings=speaking(of_group[0].vendor)))
            b = stack.enter_context(gateway(upstream, edit=strip))
            for row in of_group:
                check_form(row, a, b)
                measured.append(compare(results, row, a, b, upstream, divisor))
    return measured


def check_form(row: Row, a: Gateway, b: Gateway) -> None:
    """What is compared is what the row says: an answer of OpenAI's is not touched, one of another vendor becomes OpenAI's."""
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if row.include_usage else {}
    # As the upstream looks for it.
    body = json.dumps(chat(row.stream, **more), separators=(",", ":")).encode()
    ours, theirs = ask(a, body), ask(b, body)
    if (ours.status, theirs.status) != (200, 200):
        raise Problem(f"{row.name}: Shunt answered {ours.status}, plain Envoy {theirs.status}: {ours.raw[:200]!r}")
    if (ours.raw == theirs.raw) != (row.vendor == "openai"):
        raise Problem(f"{row.name}: the answer was {'not ' * (ours.raw == theirs.raw)}changed: {ours.raw[:500]!r}")


def side_by_side(results: Json, a: Gateway, b: Gateway, requests: int, block: int, *options: str) -> Json:
    """Medians of a few rounds: one round in which the machine was busy elsewhere does not count for much."""
    each = max(1, requests // ROUNDS)
    runs = [
        load(
            results,
            a,
            each,
            *("--target2", address(b), "--pid-b", str(b.pid), "--interleave", str(max(1, min(block, each // 2)))),
            *options,
        )
        for _ in range(ROUNDS)
    ]
    keys = ("cpu_us_per_request", "p50_us", "p99_us")
    report: Json = {side: {key: statistics.median(run[side][key] for run in runs) for key in keys} for side in ("a", "b")}
    report["ratios"] = {}
    for key in keys:
        ratios = sorted(ratio(run, key) for run in runs)
        report["ratios"][key] = [ratios[0], statistics.median(ratios), ratios[-1]]
    report["cpu_clock"] = runs[0]["a"]["cpu_clock"]
    return report


def print_rows(rows: list[Json], sides: str = "A: with Shunt, B: plain Envoy", one: str = "A") -> None:
    print()
    ratio_of = f"{one}/B"
    title = f"{sides:<29}{'CPU per request (µs)':^33}{'p50 (µs)':^26}{'p99 (µs)':^26}"
    print(f"{title}upstream   {ratio_of} of CPU")
    columns = f"{one:>8}{'B':>8}{ratio_of:>8}  "
    print(f"{'':<28}{one:>8}{'B':>8}{one + '-B':>8}{ratio_of:>8}  {columns}{columns}  (µs)   in each round")
    for row in rows:
        line = f"{row['name']:<28}"
        for key in ("cpu", "p50", "p99"):
            field = "cpu_us_per_request" if key == "cpu" else f"{key}_us"
            a, b = row["shunt"][field], row["plain"][field]
            added = f"{a - b:>8,.0f}" if key == "cpu" else ""
            line += f"{a:>8,.0f}{b:>8,.0f}{added}{row[f'{key}_ratio']:>8.2f}  "
        least, most = row["cpu_ratio_range"]
        print(f"{line}{row['upstream_us_per_request']:>6.1f}   {least:.2f} to {most:.2f}", flush=True)
    print(f"Medians of {ROUNDS} rounds. upstream: its own time for writing one answer, part of p50 on both sides.")


def growth(rows: list[Json]) -> Json:
    """Whether the filter's cost grows in line with the body: what each further kilobyte adds, small and large."""
    added = {row["body_bytes"]: row["shunt"]["cpu_us_per_request"] - row["plain"]["cpu_us_per_request"] for row in rows
             if row["connections"] == 1 and not row["stream"]}
    (small, least), (middle, more), (large, most) = sorted(added.items())
    first = (more - least) / ((middle - small) / 1000)
    second = (most - more) / ((large - middle) / 1000)
    print("\nCPU that Shunt adds, by body size: is it linear?")
    for size, cost in sorted(added.items()):
        print(f"  {size / 1000:>6,.0f} KB  {cost:>8,.0f} µs per request")
    print(f"  each further KB adds {first:.3f} µs from {small // 1000} to {middle // 1000} KB, "
          f"and {second:.3f} µs from {middle // 1000} KB to {large // 1000:,} KB")
    return {"added_us": {str(size): round(cost, 1) for size, cost in added.items()},
            "us_per_kb_small": round(first, 4), "us_per_kb_large": round(second, 4)}


def measure_failover(
    results: Json, failover: Gateway, plain: Gateway, failing: LoadUpstream, requests: int
) -> Json:
    progress(f"failover: {requests:,} requests whose primary answers 503 at once, and as many without")
    report = side_by_side(results, failover, plain, requests, 500)
    seen = failing.stats()["requests"]
    if seen < requests // ROUNDS * ROUNDS:
        raise Problem(f"the failing primary was asked {seen} times by {requests} requests: nothing was measured")
    # The failing primary alone, asked without any gateway: what the failed attempt itself takes.
    progress("failover: the failing primary alone")
    own = run_load("--target", f"127.0.0.1:{failing.port}", "--requests", str(requests), "--expect-status", "503",
                   "--warmup", "10")
    results["failed_requests"] += own["failed"]
    added = {key: report["a"][f"{key}_us"] - report["b"][f"{key}_us"] for key in ("p50", "p99")}
    cpu = report["a"]["cpu_us_per_request"] - report["b"]["cpu_us_per_request"]
    print("\nWhat a failover adds (1 KB, one caller; the primary answers 503 at once, the next provider answers)")
    print(f"  {'':<22}{'p50 (µs)':>10}{'p99 (µs)':>10}{'CPU (µs)':>10}")
    for label, side in (("with a failover", report["a"]), ("without", report["b"])):
        print(f"  {label:<22}{side['p50_us']:>10,.0f}{side['p99_us']:>10,.0f}{side['cpu_us_per_request']:>10,.0f}")
    print(f"  {'added':<22}{added['p50']:>10,.0f}{added['p99']:>10,.0f}{cpu:>10,.0f}")
    print(f"  of the added p50 the failed attempt itself, asked without a gateway, takes {own['p50_us']:,} µs", flush=True)
    return {"with": report["a"], "without": report["b"], "added_p50_us": added["p50"], "added_p99_us": added["p99"],
            "added_cpu_us": round(cpu, 1), "failed_attempt_p50_us": own["p50_us"]}


def host_calls() -> Json:
    """Calls between VM and host of one request, counted in Envoy's own trace log, which names each."""
    requests = 100
    counts: Json = {}
    for row in VENDOR_ROWS:
        progress(f"host calls: {row.name}")
        with load_upstream(*row.upstream) as upstream, gateway(upstream, settings=speaking(row.vendor)) as traced:
            run_load("--target", address(traced), "--requests", "20", *row.request)
            traced.admin("/logging?wasm=trace", "POST")
            run_load("--target", address(traced), "--requests", str(requests), *row.request)
            # Envoy writes its log in blocks; the end writes the rest.
            assert traced.process is not None
            traced.process.send_signal(signal.SIGTERM)
            traced.process.wait(10)
            log = traced.log()
        calls = collections.Counter(re.findall(r"\[vm->host\] (?:\w+\.)?(?:proxy_)?(\w+)\(", log))
        callbacks = collections.Counter(re.findall(r"\[host->vm\] (?:proxy_)?(\w+)\(", log))
        counts[row.name] = {
            "calls": {call: count / requests for call, count in calls.most_common()},
            "calls_per_request": sum(calls.values()) / requests,
            "callbacks_per_request": sum(callbacks.values()) / requests,
        }
    print("\nHost calls per request (from Envoy's trace log of the wasm component)")
    for name, count in counts.items():
        print(f"  {name}: {count['calls_per_request']:.1f} calls, {count['callbacks_per_request']:.1f} callbacks into the VM")
        print("    " + ", ".join(f"{call} {number:g}" for call, number in count["calls"].items()), flush=True)
    return counts


def measure_memory(results: Json, target: Gateway, few: int) -> Json:
    """Of an Envoy that has served nothing else, so that its first requests are in the comparison."""
    many = few * 10
    sizes = {}
    sent = 0
    for goal in (few, many):
        progress(f"memory: {goal - sent:,} more requests")
        report = load(results, target, goal - sent, "--connections", "16")
        sizes[goal] = report["rss_kb"]
        sent = goal
    growth_ratio = round(sizes[many] / sizes[few], 3)
    print("\nMemory of Envoy with Shunt (RSS)")
    for goal, size in sizes.items():
        print(f"  after {goal:>8,} requests: {size / 1024:>7.1f} MiB")
    print(f"  ratio: {growth_ratio:.3f}", flush=True)
    return {"few": few, "few_rss_kb": sizes[few], "many": many, "many_rss_kb": sizes[many], "ratio": growth_ratio}


def count_instructions() -> Optional[Json]:
    if not instructions.is_available():
        progress("instructions are not counted: valgrind is not installed")
        return None
    counts = instructions.measure(ROOT)
    instructions.print_rows(counts)
    return counts


def print_bounds(results: Json) -> None:
    small, busy = results["rows"][:2]
    floor = [row["cpu_ratio"] for row in results["floor_rows"]]
    added = results["failover"]["added_p50_us"] / 1000
    size = results["wasm_bytes"] / 1000
    memory = results["memory"]["ratio"]
    bounds = [
        (f"CPU at 1 KB, one caller: {small['cpu_ratio']:.2f} times plain Envoy (bound 1.40; deciding nothing: {floor[0]:.2f})", small["cpu_ratio"] <= 1.40),
        (f"CPU at 1 KB, 16 callers: {busy['cpu_ratio']:.2f} times plain Envoy (bound 1.40; deciding nothing: {floor[1]:.2f})", busy["cpu_ratio"] <= 1.40),
        (f"a failover adds {added:.2f} ms at p50 (bound 2 ms)", added < 2),
        (f"memory: {memory:.3f} times as much after ten times the requests (bound 1.05)", memory <= 1.05),
        (f"shunt.wasm: {size:.0f} KB (bound 500 KB)", size < 500),
    ]
    print(f"\nBounds ({'QUICK run: indicative only; ' if results['quick'] else ''}{results['seconds']:.0f} s)")
    for text, held in bounds:
        print(f"  {'held    ' if held else 'NOT HELD'}  {text}")
    results["bounds"] = [{"bound": text, "held": held} for text, held in bounds]


# --- Gateways, upstreams and load


def strip(document: Json, clusters: Json) -> None:
    """Leaves of the shipped configuration what plain Envoy would have: the same but for the filters and their routing."""
    wasm = "envoy.extensions.filters.http.wasm.v3.Wasm"

    def without(filters: list[Json]) -> list[Json]:
        return [each for each in filters if not each["typed_config"]["@type"].endswith(wasm)]

    manager = document["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = without(manager["http_filters"])
    host = manager["route_config"]["virtual_hosts"][0]
    # The route of whole answers; its limit of one attempt is what the filter would have set.
    route = next(route for route in host["routes"] if route["name"] == "whole")["route"]
    route.pop("inline_cluster_specifier_plugin")
    route["retry_policy"].pop("refresh_cluster_on_retry")
    route["cluster"] = "openai"
    host["routes"] = [{"name": "plain", "match": {"prefix": "/"}, "route": route}]
    for cluster in clusters["resources"]:
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            options["http_filters"] = without(options["http_filters"])


def speaking(vendor: str) -> Json:
    """The settings with one provider in the route, which is spoken to as this vendor."""
    settings = copy.deepcopy(SETTINGS)
    settings["providers"]["openai"]["dialect"] = vendor
    settings["routes"][0]["providers"] = ["openai"]
    return settings


@contextlib.contextmanager
def gateway(
    upstream: LoadUpstream, primary: Optional[LoadUpstream] = None, settings: Json = SETTINGS, **more: Any
) -> Iterator[Gateway]:
    """One worker; every provider is the load upstream, or the first of them another one."""
    ports = dict.fromkeys(settings["providers"], upstream.port)
    if primary:
        ports["openai"] = primary.port
    running = Gateway(settings, {name: Upstream(port) for name, port in ports.items()}, workers=1, **more)
    try:
        yield running.start()
    finally:
        running.stop()


def load(results: Json, target: Gateway, requests: int, *options: str) -> Json:
    """Puts load on one gateway, or on two with `--target2`, and counts what failed."""
    report = run_load("--target", address(target), "--requests", str(requests), "--pid-a", str(target.pid), *options)
    for side in ("a", "b") if "a" in report else ("",):
        part = report[side] if side else report
        results["failed_requests"] += part["failed"]
        if part["failed"]:
            print(f"  {part['failed']} of {part['requests']} requests FAILED: {part['errors']}", flush=True)
    return report


def address(target: Gateway) -> str:
    return f"127.0.0.1:{target.port}"


def ratio(report: Json, key: str) -> float:
    if not report["a"][key] or not report["b"][key]:
        raise Problem(f"no {key} was measured: {report}")
    return round(report["a"][key] / report["b"][key], 3)


# --- What a trap costs


class Caller:
    """One connection to the gateway that is kept, on a known worker."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.connect()
        # A connection that ends must not silently become another one, perhaps of another worker.
        self.connection.auto_open = 0

    def ask(self, stream: bool = False, **headers: str) -> tuple[int, str]:
        """Status (0: the connection broke) and what more there is to say."""
        sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            self.connection.request("POST", CHAT, json.dumps(chat(stream)), sent)
            response = self.connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return 0, type(error).__name__
        if stream and not body.rstrip().endswith(b"[DONE]"):
            return 0, "the stream ended early"
        return response.status, response.headers.get("x-shunt-attempts") or body.decode(errors="replace")[:200]

    @property
    def is_open(self) -> bool:
        return self.connection.sock is not None

    def close(self) -> None:
        self.connection.close()


def trap() -> Json:
    """Two workers, streams in flight on both; then one request traps the VM of one worker."""
    progress("building the filter with the feature test-trap")
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--lib", "--target", "wasm32-wasip1"]
    if subprocess.run([*command, "--features", "test-trap", "--target-dir", "target/trap"], cwd=ROOT).returncode:
        raise Problem("the filter with the feature test-trap could not be built")
    settings = config({"limits": {"first_token": "15s"}, "breaker": {"open": "60s", "max_open": "60s"}})
    rounds = []
    for number in range(1, 4):
        progress(f"round {number} of 3")
        with contextlib.ExitStack() as stack:
            fakes = {name: stack.enter_context(fake.start(name)) for name in BASE["providers"]}
            upstreams = {name: Upstream(provider.port) for name, provider in fakes.items()}
            target = Gateway(settings, upstreams, workers=2, wasm=TRAP_WASM)
            stack.callback(target.stop)
            target.start()
            rounds.append(measure_trap(target, fakes))
    for key, when in (("first_trap", "a first trap"), ("trap_after_reload", "a trap of a VM that was just reloaded")):
        times = [each[key]["seconds"] for each in rounds if each[key]["seconds"] is not None]
        if times:
            print(f"{'' if key != 'first_trap' else chr(10)}In {len(rounds)} rounds, new requests failed for {min(times):.2f} to {max(times):.2f} s after {when}.")
    return {"rounds": rounds}


def connect(target: Gateway, each: int) -> dict[int, list[Caller]]:
    """At least so many connections on each worker. Which worker took one is told by the listener's own counters."""

    def accepted() -> dict[int, int]:
        lines = target.admin("/stats?filter=worker_.*downstream_cx_total").decode().splitlines()
        found = (re.search(rf"listener\.127\.0\.0\.1_{target.port}\.worker_(\d+)\.downstream_cx_total: (\d+)", line) for line in lines)
        return {int(match[1]): int(match[2]) for match in found if match}

    callers: dict[int, list[Caller]] = collections.defaultdict(list)
    for _ in range(each * 10):
        before = accepted()
        caller = Caller(target.port)
        wait_for(lambda: sum(accepted().values()) > sum(before.values()), 5, "a worker to take the connection")
        after = accepted()
        callers[next(worker for worker in after if after[worker] > before.get(worker, 0))].append(caller)
        if len(callers) >= 2 and all(len(of_worker) >= each for of_worker in callers.values()):
            return callers
    raise Problem(f"the kernel gave one worker too few connections: { {worker: len(c) for worker, c in callers.items()} }")


def measure_trap(target: Gateway, fakes: dict[str, Any]) -> Json:
    in_flight = 8
    progress("opening connections to both workers")
    callers = connect(target, in_flight + 120)
    hurt, other = sorted(callers)[:2]

    progress("opening the breaker of openai, which is state in shared data")
    fakes["openai"].script(default={"do": "status", "status": 503})
    for _ in range(5):
        status, told = callers[other][-1].ask()
        if status != 200:
            raise Problem(f"a request before the trap failed: {status} {told}")
    asked = fakes["openai"].stats()["requests"]
    fakes["deepseek"].script(default={"do": "answer"}, when=[{"contains": '"stream"', "step": {"do": "hold", "after": 1}}])

    progress(f"{in_flight} streams in flight on each worker")
    ends: dict[int, list[tuple[int, str]]] = {hurt: [], other: []}

    def stream(worker: int, caller: Caller) -> None:
        ends[worker].append(caller.ask(stream=True))

    streams = [
        threading.Thread(target=stream, args=(worker, callers[worker].pop(0)), daemon=True)
        for worker in (hurt, other)
        for _ in range(in_flight)
    ]
    for thread in streams:
        thread.start()
    fakes["deepseek"].wait_for(holding=2 * in_flight)

    # New requests on both workers, one every few milliseconds, until well after the trap.
    samples: dict[int, list[tuple[float, int, str]]] = {hurt: [], other: []}
    over = threading.Event()

    def probe(worker: int) -> None:
        spare = callers[worker]
        caller = spare.pop(0)
        while not over.is_set():
            began = time.monotonic()
            status, told = caller.ask()
            samples[worker].append((began, status, told))
            if not caller.is_open:
                # Replaced by a connection that was opened before: a new one might go to the other worker.
                if not spare:
                    return
                caller = spare.pop(0)
            time.sleep(0.005 if status == 200 else 0.02)

    probes = [threading.Thread(target=probe, args=(worker,), daemon=True) for worker in (hurt, other)]
    for thread in probes:
        thread.start()
    time.sleep(0.5)
    progress(f"a trap on worker {hurt}")
    first = time.monotonic()
    trap_answer = callers[hurt].pop(0).ask(x_shunt_trap="1")
    time.sleep(3)
    progress("one more, and another as soon as the VM is back: a request that traps is sent again by its caller")
    callers[hurt].pop(0).ask(x_shunt_trap="1")
    reloaded = time.monotonic()
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: any(at > reloaded and status == 200 for at, status, _ in samples[hurt]), 5, "the VM")
    again = time.monotonic()
    callers[hurt].pop(0).ask(x_shunt_trap="1")
    time.sleep(4)
    over.set()
    for thread in probes:
        thread.join(25)
    fakes["deepseek"].release()
    for thread in streams:
        thread.join(25)
    for of_worker in callers.values():
        for caller in of_worker:
            caller.close()

    dead = {worker: sum(status != 200 for status, _ in ends[worker]) for worker in ends}
    once = outage(samples[hurt], first, reloaded - 0.1)
    twice = outage(samples[hurt], again, None)
    elsewhere = sum(status != 200 for _, status, _ in samples[other])
    asked_more = fakes["openai"].stats()["requests"] - asked
    attempts_after = {told for at, status, told in samples[hurt] if status == 200 and at > first}
    survived = asked_more == 0 and attempts_after == {"deepseek:answered"}
    runs = target.process is not None and target.process.poll() is None
    print("\nWhat a trap costs (2 workers, failure_policy FAIL_RELOAD)")
    print(f"  the request that trapped:      {trap_answer[0] or 'connection broken'} {trap_answer[1]}".rstrip())
    print(f"  streams in flight that died:   {dead[hurt]} of {in_flight} on the trapped worker, "
          f"{dead[other]} of {in_flight} on the other")
    print(f"  new requests, trapped worker:  {tell_outage(once)} after a first trap")
    print(f"                                 {tell_outage(twice)} after a trap of a VM that was just reloaded")
    print(f"  new requests, other worker:    {elsewhere} of {len(samples[other])} failed")
    print("  breaker state in shared data:  "
          + ("survived: openai, whose breaker is open, is still not asked" if survived
             else f"NOT as before: openai was asked {asked_more} times more; attempts since: {attempts_after or 'none'}"))
    print(f"  Envoy itself:                  {'runs' if runs else 'DIED'}", flush=True)
    return {
        "trap_answer": list(trap_answer),
        "in_flight": in_flight,
        "died_on_trapped_worker": dead[hurt],
        "died_on_other_worker": dead[other],
        "first_trap": once,
        "trap_after_reload": twice,
        "probes_failed_on_other_worker": elsewhere,
        "probes_on_other_worker": len(samples[other]),
        "shared_data_survived": survived,
        "envoy_survived": runs,
    }


def outage(samples: list[tuple[float, int, str]], since: float, until: Optional[float]) -> Json:
    """How many requests of a time failed, and when the first was answered behind which none failed."""
    seen = [(at, status) for at, status, _ in samples if at > since and (until is None or at < until)]
    failed = [at for at, status in seen if status != 200]
    back = [at for at, status in seen if status == 200 and (not failed or at > failed[-1])]
    return {
        "requests": len(seen),
        "failed": len(failed),
        "seconds": round(back[0] - since, 3) if failed and back else None if failed or not seen else 0.0,
    }


def tell_outage(part: Json) -> str:
    if part["seconds"] is None:
        return f"NOT served again while it was watched ({part['failed']} of {part['requests']} failed)"
    if not part["failed"]:
        return f"0 of {part['requests']} failed"
    return f"{part['failed']} failed, for {part['seconds']:.2f} s,"


if __name__ == "__main__":
    sys.exit(main())
