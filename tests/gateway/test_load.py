"""Under load: nobody fails while a provider does, one probe at a time, nothing is left behind.

With SHUNT_SOAK=1 (`make soak`), as many requests as it should be once in a while; otherwise a fifth of them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Iterator, Optional

import pytest

from accounts import (
    PROSE,
    SAID,
    TENANT,
    assert_estimate,
    by_tenant,
    cost,
    provider_logs,
    records,
    reported,
    tokens,
)
from support import Gateway, Json, World, ask, chat, request_head, wait_for
from traffic import DEGRADED, FastProvider, Load, load_tool

#: Why these scenarios have an Envoy of their own.
LOAD = "its memory and its counters are measured"
SOAK = os.environ.get("SHUNT_SOAK") == "1"
CALLERS = 200 if SOAK else 60
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
    return world.gateway(changes, workers=4, own_process=LOAD)


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
    wait_for(lambda: gateway.active() == 0, what="the last request to end")
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
    requests = 2_000 if SOAK else 600
    gateway = outage_gateway(world)
    with mixed_load(gateway, requests) as loads:
        assert_none_failed(loads, requests)
    assert_nothing_is_left(gateway)
    assert world.counts() == {"openai": requests, "deepseek": 0, "shareai": 0}


def test_nobody_fails_while_the_primary_refuses_then_fails_then_is_silent_and_it_serves_again_afterwards(world: World) -> None:
    # By 60 callers, 150 requests a second: the outage takes a quarter of a minute.
    requests = 10_000 if SOAK else 3_600
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
    requests = 2_000 if SOAK else 600
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


def test_many_streams_fail_over_and_stay_open_at_the_same_time(world: World) -> None:
    count = 1_500 if SOAK else 300
    primary, second = world.fakes["openai"], world.fakes["deepseek"]
    primary.script(default={"do": "status", "status": 503})
    second.script(default={"do": "hold", "after": 1})
    # The breaker never opens, so that every single stream fails over.
    never = {"consecutive_failures": 65535, "minimum_requests": 1_000_000}
    gateway = world.gateway({"limits": {"first_token": "30s"}, "breaker": never}, workers=4, own_process=LOAD)
    with Load("streams", gateway, "--count", str(count)) as load:
        wait_for(lambda: second.stats()["holding"] == count, 40, "all streams to be open")
        load.wait_until_all_are_open()
        assert gateway.active() == count
        assert second.release() == count
        report = load.report()
    assert (report["ok"], report["failed"], report["errors"]) == (count, 0, {})
    assert report["max_simultaneous"] == count
    assert_nothing_is_left(gateway)
    assert world.counts() == {"openai": count, "deepseek": count, "shareai": 0}


def test_memory_does_not_grow_with_the_number_of_requests(world: World) -> None:
    few_requests, many_requests = (5_000, 20_000) if SOAK else (2_000, 8_000)

    def resident() -> int:
        status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    # The breaker never opens, so that every request is two attempts.
    never = {"consecutive_failures": 65535, "minimum_requests": 1_000_000}
    with FastProvider("--fail-first-status", "503") as failing, FastProvider("--events", "5") as good:
        upstreams = {"openai": failing.upstream, "deepseek": good.upstream}
        gateway = world.gateway({"breaker": never, "limits": {"first_token": "20s", "answer": "20s"}}, upstreams, workers=2, own_process=LOAD)

        def load(requests: int) -> int:
            with mixed_load(gateway, requests) as loads:
                assert_none_failed(loads, requests)
            assert_nothing_is_left(gateway)
            return resident()

        few, many = load(few_requests), load(many_requests)
        total = few_requests + many_requests
        assert [gateway.stat(f"cluster.{name}.upstream_rq_total") for name in upstreams] == [total, total]
    assert many < 1.2 * few, f"{few} kB after {few_requests} requests, {many} kB after {many_requests} more"


# Every token


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: what their providers do, and for each attempt how its usage must be known (`None`: no bill)."""

    outcome: str
    attempts: tuple[tuple[str, Optional[str]], ...]
    stream: bool = True
    steps: tuple[tuple[str, str], ...] = ()
    #: The client leaves once it has read so many content chunks.
    leaves_after: Optional[int] = None


SHORT = {"text": SAID, "chunks": 6}
BUSY = {"do": "status", "status": 503}
STEPS: dict[str, Json] = {
    "answer": {"do": "answer", **SHORT},
    "quiet": {"do": "answer", "usage": "none", **SHORT},
    "thought": {"do": "reasoning", "reasoning": PROSE, **SHORT},
    "cached": {"do": "answer", "cached": 20, **SHORT},
    "busy": BUSY,
    "cut_at_once": {"do": "cut", "after": 0, **SHORT},
    "cut": {"do": "cut", "after": 3, "how": "fin", **SHORT},
    "cut_told": {"do": "cut", "after": 3, "how": "fin", "usage": "every_chunk", **SHORT},
    "hold": {"do": "hold", "after": 3, **SHORT},
}
FIRST, SECOND, THIRD = "openai", "deepseek", "shareai"
KINDS_OF_REQUESTS = {
    "whole": Kind("answered", ((FIRST, "reported"),), stream=False),
    "stream": Kind("answered", ((FIRST, "reported"),)),
    "thinking": Kind("answered", ((FIRST, "reported"),), steps=((FIRST, "thought"),)),
    "cached": Kind("answered", ((FIRST, "reported"),), stream=False, steps=((FIRST, "cached"),)),
    "quiet-whole": Kind("answered", ((FIRST, "estimated"),), stream=False, steps=((FIRST, "quiet"),)),
    "quiet-stream": Kind("answered", ((FIRST, "estimated"),), steps=((FIRST, "quiet"),)),
    "over": Kind("answered", ((FIRST, None), (SECOND, "reported")), steps=((FIRST, "busy"),)),
    "over-whole": Kind("answered", ((FIRST, None), (SECOND, "reported")), stream=False, steps=((FIRST, "busy"),)),
    "over-quiet": Kind("answered", ((FIRST, None), (SECOND, "estimated")), steps=((FIRST, "busy"), (SECOND, "quiet"))),
    "over-twice": Kind(
        "answered", ((FIRST, None), (SECOND, None), (THIRD, "reported")), steps=((FIRST, "cut_at_once"), (SECOND, "busy"))
    ),
    "cut": Kind("truncated", ((FIRST, "estimated"),), steps=((FIRST, "cut"),)),
    "cut-told": Kind("truncated", ((FIRST, "reported"),), steps=((FIRST, "cut_told"),)),
    "leaves": Kind("client_gone", ((FIRST, "estimated"),), steps=((FIRST, "hold"),), leaves_after=3),
}
#: Whose client leaves at once: everything but the number of records is a matter of luck.
HASTY = "hasty"


async def call(gateway: Gateway, tenant: str, kind: Optional[Kind]) -> str:
    """One request on a connection of its own; without a kind, of a client that leaves at once. Returns what came."""
    stream = kind is None or kind.stream
    body = json.dumps(chat(stream, text=f"{tenant}: {PROSE}")).encode()
    head = request_head(len(body), "content-type: application/json", "connection: close", f"{TENANT}: {tenant}")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    came = b""
    try:
        writer.write(head + body)
        await writer.drain()
        if kind is None:
            await asyncio.sleep(random.uniform(0, 0.05))
            return ""
        while piece := await asyncio.wait_for(reader.read(65536), 60):
            came += piece
            if kind.leaves_after is not None and came.count(b'"content":') > kind.leaves_after:
                break
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return came.decode()


def assert_client_saw(name: str, kind: Kind, answer: str) -> None:
    assert answer.startswith("HTTP/1.1 200"), (name, answer[:500])
    whole = "data: [DONE]" in answer if kind.stream else answer.endswith("}")
    assert whole == (kind.outcome == "answered"), (name, answer[-300:])


def test_every_token_of_very_many_requests_is_counted_once_and_as_what_it_is(counting: World) -> None:
    """Records are joined with what the providers saw by the tenant, of which each request has its own.

    For every attempt it is decided beforehand whether its provider reports a usage, and the records must say the same. One
    kind is left out of that: a client that leaves at no particular moment, since a usage that its provider has sent may or
    may not have been read by then. Such a request has its one record, too, and if that says "reported", it was.
    """
    count, at_a_time = 10_000 if SOAK else 1_500, 64
    names = [*KINDS_OF_REQUESTS, HASTY]
    for provider in (FIRST, SECOND, THIRD):
        own = [
            {"contains": f"<{name}.", "step": STEPS[step]}
            for name, kind in KINDS_OF_REQUESTS.items()
            for whose, step in kind.steps
            if whose == provider
        ]
        counting.fakes[provider].script(default=STEPS["answer"], when=own)
    price = {"input": 0.25, "cached_input": 0.025, "output": 2, "request": 0.000003}
    models = {FIRST: "gpt-5.4-mini", SECOND: "deepseek-flash", THIRD: "assistant"}
    changes = {
        "tenant": {"header": TENANT},
        "prices": {"*": dict.fromkeys(models.values(), price)},
        "breaker": {"consecutive_failures": 65535, "minimum_requests": 1_000_000},
        "limits": {"first_token": "30s", "answer": "30s"},
    }
    gateway = counting.gateway(changes, workers=4, own_process=LOAD)
    tenants = [f"<{names[number % len(names)]}.{number}>" for number in range(count)]
    random.shuffle(tenants)

    async def all_of_them() -> None:
        slots = asyncio.Semaphore(at_a_time)

        async def one(tenant: str) -> None:
            async with slots:
                name = tenant[1:].partition(".")[0]
                kind = KINDS_OF_REQUESTS.get(name)
                answer = await call(gateway, tenant, kind)
                if kind is not None:
                    assert_client_saw(name, kind, answer)

        await asyncio.gather(*map(one, tenants))

    asyncio.run(all_of_them())

    found = records(gateway, count, 60)
    assert len({record["request_id"] for record in found}) == count
    by_name = by_tenant(found)
    assert set(by_name) == set(tenants)
    for provider in counting.fakes.values():
        wait_for(lambda: provider.stats()["in_flight"] == 0, 20, "the last request to end")
    logs = provider_logs(counting)

    sums: collections.Counter[str] = collections.Counter()
    told: collections.Counter[str] = collections.Counter()
    estimated, not_told = set(), set()
    for tenant, record in by_name.items():
        name = tenant[1:].partition(".")[0]
        kind = KINDS_OF_REQUESTS.get(name)
        attempts = record["attempts"]
        if kind is None:
            assert record["outcome"] in ("client_gone", "answered"), record
            for attempt in attempts:
                if "usage" in attempt and attempt["usage"]["source"] == "reported":
                    assert tokens(attempt["usage"]) == reported(logs[attempt["provider"], tenant][0]["usage"])
            continue
        sources = tuple((one["provider"], one["usage"]["source"] if "usage" in one else None) for one in attempts)
        assert (record["outcome"], sources) == (kind.outcome, kind.attempts), (tenant, record)
        for attempt in attempts:
            (entry,) = logs[attempt["provider"], tenant]
            if entry["usage"] is not None:
                told.update(reported(entry["usage"]))
            elif entry["spent"] is not None and attempt is attempts[-1]:
                not_told.add(tenant)
            if "usage" not in attempt:
                assert entry["usage"] is None
            elif attempt["usage"]["source"] == "reported":
                sums.update(tokens(attempt["usage"]))
                assert tokens(attempt["usage"]) == reported(entry["usage"]), tenant
            else:
                estimated.add(tenant)
                assert_estimate(attempt["usage"], entry["spent"])
            if "usage" in attempt:
                assert Decimal(attempt["cost_usd"]) == cost(price, attempt["usage"])
    assert sums == told
    assert estimated == not_told
    # Nobody was asked of whom no record tells, and each once. (A client may leave before its provider has a connection.)
    in_records = {(one["provider"], tenant) for tenant, record in by_name.items() for one in record["attempts"]}
    assert set(logs) <= in_records
    assert all(HASTY in tenant for _, tenant in in_records - set(logs))
    assert all(len(entries) == 1 for entries in logs.values())
