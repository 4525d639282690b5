"""Under load: nobody fails while a provider does, one probe at a time, nothing is left behind."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import time
from typing import Iterator

import pytest

from support import Gateway, Json, World, ask, wait_for
from traffic import DEGRADED, FastProvider, Load, load_tool

CALLERS = 200
#: Half of the callers ask for streams, the other half for whole answers.
HALF = str(CALLERS // 2)
#: What a provider needs for its answer, so that all callers are under way at the same time.
ANSWER = {"do": "answer", "delay": 0.4}
OPEN_SECONDS = 1.0


@pytest.fixture(scope="session", autouse=True)
def _tool() -> None:
    load_tool()


def outage_gateway(world: World) -> Gateway:
    for provider in world.fakes.values():
        provider.script(default=ANSWER)
    changes = {
        "limits": {"first_token": "2s", "answer": "2s"},
        "breaker": {"open": f"{OPEN_SECONDS:.0f}s", "max_open": f"{OPEN_SECONDS:.0f}s"},
    }
    return world.gateway(changes, workers=4)


@contextlib.contextmanager
def mixed_load(gateway: Gateway, requests: int) -> Iterator[tuple[Load, Load]]:
    """`requests` by all callers together, half of them streams."""
    share = ("--requests", str(requests // 2), "--connections", HALF)
    with Load("run", gateway, *share) as whole, Load("run", gateway, *share, "--stream") as streams:
        yield whole, streams


def assert_none_failed(loads: tuple[Load, ...], requests: int) -> None:
    reports = [load.report() for load in loads]
    assert all(report["failed"] == 0 for report in reports), [report["errors"] for report in reports]
    assert sum(report["ok"] for report in reports) == requests


def assert_nothing_is_left(gateway: Gateway) -> None:
    """No stream is stuck, no retry was refused, and nobody was sent to the cluster for the lost."""
    wait_for(lambda: gateway.stat("http.shunt.downstream_rq_active") == 0, what="the last request to end")
    for name in gateway.upstreams:
        assert gateway.stat(f"cluster.{name}.upstream_rq_retry_overflow") == 0
        assert gateway.stat(f"cluster.{name}.upstream_rq_pending_overflow") == 0
        wait_for(lambda: gateway.stat(f"cluster.{name}.upstream_rq_active") == 0, what=f"the last request to {name}")
    assert gateway.stat("cluster.shunt_nowhere.upstream_rq_total") == 0


def wait_until_open(gateway: Gateway) -> None:
    wait_for(lambda: ask(gateway).headers.get(DEGRADED) == "openai:open", 20, "the breaker to open")


def assert_single_probes(log: list[Json]) -> None:
    """A failed probe keeps the breaker open for its time."""
    gaps = [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(log)]
    # The two clocks are the same, but the gateway's counts from the end of the probe, so the bound is safe.
    assert all(gap >= OPEN_SECONDS for gap in gaps), gaps


def test_a_healthy_primary_serves_everybody_itself(world: World) -> None:
    requests = 2_000
    gateway = outage_gateway(world)
    with mixed_load(gateway, requests) as loads:
        assert_none_failed(loads, requests)
    assert_nothing_is_left(gateway)
    assert world.counts() == {"openai": requests, "deepseek": 0, "shareai": 0}


def test_nobody_fails_while_the_primary_refuses_then_fails_then_is_silent_and_it_serves_again_afterwards(world: World) -> None:
    requests = 10_000
    gateway = outage_gateway(world)
    primary = world.fakes["openai"]
    primary.listen(False)
    with mixed_load(gateway, requests) as loads:
        wait_until_open(gateway)
        # A probe is refused, too.
        refused = gateway.stat("cluster.openai.upstream_cx_connect_fail")
        wait_for(lambda: gateway.stat("cluster.openai.upstream_cx_connect_fail") > refused, 20, "a refused probe")

        primary.script(default={"do": "status", "status": 503, "delay": 1.0})
        primary.listen(True)
        wait_for(lambda: primary.stats()["requests"] >= 2, 20, "probes that are answered 503")

        primary.script(default={"do": "silent"})
        wait_for(lambda: primary.stats()["by_step"].get("silent", 0) >= 2, 20, "probes that are not answered")
        wait_for(lambda: primary.stats()["in_flight"] == 0, 20, "the last silent probe to be given up")
        assert primary.stats()["max_in_flight"] == 1
        assert_single_probes(primary.log())

        primary.script(default=ANSWER)
        served = primary.stats()["requests"]
        wait_for(lambda: primary.stats()["requests"] > served + CALLERS, 20, "the primary to serve again")
        assert all(load.is_running() for load in loads), "the load ended before the outage"
        assert_none_failed(loads, requests)
    assert_nothing_is_left(gateway)
    assert world.fakes["deepseek"].stats()["max_in_flight"] > CALLERS / 2
    last = ask(gateway)
    assert last.attempts == ["openai:answered"] and DEGRADED not in last.headers
    counts = world.counts()
    assert counts["shareai"] == 0
    assert counts["openai"] + counts["deepseek"] >= requests


@pytest.mark.parametrize(
    "fault",
    [{"do": "status", "status": 503, "delay": 1.0}, {"do": "silent"}, {"do": "cut", "after": 0}],
    ids=["503", "silent", "cut"],
)
def test_a_fault_that_hits_all_callers_at_once_fails_none_and_is_met_once_by_each(world: World, fault: Json) -> None:
    requests = 2_000
    gateway = outage_gateway(world)
    world.fakes["openai"].script(default=fault)
    started = time.monotonic()
    with mixed_load(gateway, requests) as loads:
        assert_none_failed(loads, requests)
    seconds = time.monotonic() - started
    assert_nothing_is_left(gateway)
    touched = world.counts()["openai"]
    # Before the breaker opened every caller was there once, behind it one probe per open time.
    assert touched <= CALLERS + seconds / OPEN_SECONDS, f"{touched} in {seconds:.1f} s"
    assert world.fakes["deepseek"].stats()["max_in_flight"] > CALLERS / 2


def test_fifteen_hundred_streams_fail_over_and_stay_open_at_the_same_time(world: World) -> None:
    count = 1_500
    primary, second = world.fakes["openai"], world.fakes["deepseek"]
    primary.script(default={"do": "status", "status": 503})
    second.script(default={"do": "hold", "after": 1})
    # The breaker never opens, so that every single stream fails over.
    never = {"consecutive_failures": 65535, "minimum_requests": 1_000_000}
    gateway = world.gateway({"limits": {"first_token": "30s"}, "breaker": never}, workers=4)
    with Load("streams", gateway, "--count", str(count)) as load:
        wait_for(lambda: second.stats()["holding"] == count, 40, "all streams to be open")
        assert gateway.stat("http.shunt.downstream_rq_active") == count
        assert second.release() == count
        report = load.report()
    assert (report["ok"], report["failed"], report["errors"]) == (count, 0, {})
    assert report["max_simultaneous"] == count
    assert_nothing_is_left(gateway)
    assert world.counts() == {"openai": count, "deepseek": count, "shareai": 0}


def test_memory_does_not_grow_with_the_number_of_requests(world: World) -> None:
    def resident() -> int:
        status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    # The breaker never opens, so that every request is two attempts.
    never = {"consecutive_failures": 65535, "minimum_requests": 1_000_000}
    with FastProvider("--fail-first-status", "503") as failing, FastProvider("--events", "5") as good:
        upstreams = {"openai": failing.upstream, "deepseek": good.upstream}
        gateway = world.gateway({"breaker": never, "limits": {"first_token": "20s", "answer": "20s"}}, upstreams, workers=2)

        def load(requests: int) -> int:
            with mixed_load(gateway, requests) as loads:
                assert_none_failed(loads, requests)
            assert_nothing_is_left(gateway)
            return resident()

        few, many = load(5_000), load(20_000)
        assert [gateway.stat(f"cluster.{name}.upstream_rq_total") for name in upstreams] == [25_000, 25_000]
    assert many < 1.2 * few, f"{few} kB after 5,000 requests, {many} kB after 20,000 more"
