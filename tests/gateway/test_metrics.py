"""What a monitoring system reads is what the records say: from Envoy's own page, and from a real Prometheus that scrapes it."""

from __future__ import annotations

import collections
import contextlib
import json
import random
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from decimal import Decimal
from typing import Any, Callable, Iterator

import httpx
import pytest

from accounts import KINDS, PROSE, SAID, TENANT, leaving, named, records
from gateway import free_port, release_port
from support import Gateway, Json, World, ask, chat, raw_exchange, wait_for
from traffic import ask_at_once

#: Whole nano-dollars per token, so that sums are exact.
PRICE: Json = {"input": 0.25, "cached_input": 0.025, "output": 2, "request": 0.000003}
CHANGES: Json = {
    "tenant": {"header": TENANT, "known": ["team-a", "team-b"]},
    "prices": {"*": {"gpt-5.4-mini": PRICE, "deepseek-flash": {"input": 0.1, "output": 0.4}}},
    "breaker": {"consecutive_failures": 65535, "minimum_requests": 1_000_000},
    "limits": {"first_token": "20s", "answer": "20s"},
}
#: Why these scenarios have an Envoy of their own.
SERIES = "the series of other scenarios stay on Envoy's page"
Labels = tuple[tuple[str, str], ...]
Sums = dict[str, "collections.Counter[Labels]"]
LINE = re.compile(r"^([a-z_]+)\{(.*)\} ([0-9.e+]+)$")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
COUNTERS = ("shunt_requests", "shunt_attempts", "shunt_tokens", "shunt_cost_nano_usd", "shunt_unpriced", "shunt_malformed_events", "shunt_second_opinions")
HISTOGRAMS = (
    "gen_ai_client_operation_duration_milliseconds",
    "gen_ai_server_time_to_first_token_milliseconds",
    "gen_ai_client_token_usage",
)


def labels(**values: str) -> Labels:
    return tuple(sorted((name, value) for name, value in values.items() if value))


def scraped(gateway: Gateway) -> dict[str, dict[Labels, float]]:
    """Envoy's page: the value of every series of the filter's, by name and labels."""
    found: dict[str, dict[Labels, float]] = collections.defaultdict(dict)
    for line in gateway.admin("/stats/prometheus").decode().splitlines():
        match = LINE.match(line)
        if match and match[1].startswith(("shunt_", "gen_ai_")) and 'le="' not in line:
            found[match[1]][labels(**dict(LABEL.findall(match[2])))] = float(match[3])
    return found


def expected(found: list[Json], known_models: set[str]) -> Sums:
    """The sums over records, as the metrics should have them."""
    sums: Sums = collections.defaultdict(collections.Counter)
    for record in found:
        tenant = record.get("tenant", "none")
        common = {
            "gen_ai_operation_name": record.get("operation", "none"),
            "shunt_route": record.get("route", "none"),
            "shunt_tenant": tenant if tenant in ("none", "team-a", "team-b") else "other",
        }
        known = lambda model: model if model in known_models or model == "none" else "other"  # noqa: E731
        about = labels(
            **common,
            gen_ai_provider_name=record.get("provider", "none"),
            gen_ai_request_model=known(record.get("response_model", "none")),
            shunt_outcome=record["outcome"],
        )
        sums["shunt_requests"][about] += 1
        sums["gen_ai_client_operation_duration_milliseconds_count"][about] += 1
        sums["gen_ai_server_time_to_first_token_milliseconds_count"][about] += "first_token_ms" in record
        sums["shunt_malformed_events"][about] += record.get("malformed_events", 0)
        for attempt in record["attempts"]:
            names = {
                **common,
                "gen_ai_provider_name": attempt["provider"],
                "gen_ai_request_model": known(attempt["model"]),
                "shunt_outcome": attempt["outcome"],
            }
            sums["shunt_attempts"][labels(**names)] += 1
            if "second_opinion" in record and attempt is record["attempts"][0]:
                sums["shunt_second_opinions"][labels(**names, shunt_opinion=record["second_opinion"])] += 1
            usage = attempt.get("usage")
            if usage is None:
                continue
            for kind in KINDS:
                series = labels(**names, gen_ai_token_type=kind, shunt_usage_source=usage["source"])
                sums["shunt_tokens"][series] += usage[kind]
            for kind in ("input", "output"):
                series = labels(**names, gen_ai_token_type=kind)
                sums["gen_ai_client_token_usage_count"][series] += 1
                sums["gen_ai_client_token_usage_sum"][series] += usage[kind]
            if "cost_usd" in attempt:
                nano = Decimal(attempt["cost_usd"]) * 10**9
                assert nano == int(nano)
                sums["shunt_cost_nano_usd"][labels(**names)] += int(nano)
            sums["shunt_unpriced"][labels(**names)] += attempt.get("unpriced", False)
    # A series begins with its first count.
    return {name: collections.Counter({key: value for key, value in each.items() if value}) for name, each in sums.items()}


#: The first one's refusal is confirmed by the second one.
REFUSED_BY_ALL: Json = {"do": "status", "status": 400}


def mixed_requests(world: World, gateway: Gateway) -> list[Json]:
    """Requests of all kinds, and their records."""
    openai = world.fakes["openai"]
    steps: list[Json] = [
        {"do": "answer", "text": SAID, "cached": 10},
        {"do": "answer", "usage": "none", "text": SAID},
        {"do": "status", "status": 503},
        {"do": "status", "status": 422},
        {"do": "malformed_event", "after": 2, "data": "[KEEPALIVE]", "text": SAID},
        {"do": "cut", "after": 2, "text": SAID, "gap": 0.05},
        {"do": "reasoning", "reasoning": PROSE, "text": SAID},
        {"do": "answer", "usage": "zero"},
    ]
    count = 0
    for step in [*steps, REFUSED_BY_ALL]:
        openai.script(default=step)
        world.fakes["deepseek"].script(default=step if step is REFUSED_BY_ALL else {"do": "answer"})
        for tenant in ("team-a", "team-b", "somebody"):
            ask_at_once(gateway, 3, **named(tenant, stream=True))
            ask_at_once(gateway, 2, **named(tenant))
            count += 5
    world.fakes["deepseek"].script(default={"do": "answer"})
    for model in ("unheard-of", "another"):
        ask(gateway, chat(model=model))
    ask(gateway, b"{")
    ask(gateway, path="/v1/elsewhere")
    count += 4
    openai.script({"do": "hold", "after": 2, "text": SAID})
    with leaving(gateway, chat(True), {TENANT: "team-a"}) as read:
        openai.wait_for(holding=1)
        read()
    count += 1
    for provider in world.fakes.values():
        provider.script(default={"do": "status", "status": 500})
    ask(gateway, **named("team-a"))
    return records(gateway, count + 1)


def assert_sums(read: Callable[[], dict[str, dict[Labels, float]]], wanted: Sums, seconds: float = 30.0) -> None:
    """What is read becomes what is wanted: counts are handed over once a second, histograms every five."""
    names = [*COUNTERS, *(f"{name}_count" for name in HISTOGRAMS)]
    now: dict[str, Any] = {}

    def same() -> bool:
        found = read()
        now.update({name: {key: value for key, value in found.get(name, {}).items() if value} for name in names})
        return all(now[name] == dict(wanted[name]) for name in names)

    try:
        wait_for(same, seconds, "the metrics")
    except TimeoutError:
        for name in names:
            assert now[name] == dict(wanted[name]), name
        raise


def test_envoys_metrics_are_the_sums_over_the_records(world: World) -> None:
    gateway = world.gateway(CHANGES, workers=4, own_process=SERIES)
    found = mixed_requests(world, gateway)
    wanted = expected(found, {"gpt-5.4-mini", "deepseek-flash"})
    outcomes = {dict(key)["shunt_outcome"] for key in wanted["shunt_requests"]}
    assert outcomes == {"answered", "rejected", "failed", "client_gone", "truncated", "bad_request"}
    assert all(wanted[name] for name in COUNTERS), "every kind of metric has something to count"
    sources = {dict(key)["shunt_usage_source"] for key in wanted["shunt_tokens"]}
    assert sources == {"reported", "estimated"}
    assert_sums(lambda: scraped(gateway), wanted)
    # A histogram's sum is made of its buckets, and so about right.
    usage = scraped(gateway)["gen_ai_client_token_usage_sum"]
    for series, total in wanted["gen_ai_client_token_usage_sum"].items():
        assert 0.4 * total <= usage[series] <= 2.5 * total + 5, (series, usage[series], total)


def test_requests_that_never_reached_the_filter_are_counted_by_themselves(world: World) -> None:
    gateway = world.gateway(CHANGES, workers=2, own_process=SERIES)
    assert raw_exchange(gateway, b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nnot a header\r\n\r\n")[0] == 400
    ask(gateway)
    assert [record["outcome"] for record in records(gateway, 2)] == ["not_read", "answered"]

    def counts() -> dict[str, float]:
        return {dict(series)["shunt_outcome"]: value for series, value in scraped(gateway)["shunt_requests"].items()}

    wait_for(lambda: counts() == {"not_read": 1, "answered": 1}, what=f"both to be counted, not {counts()}")


def test_unknown_models_and_tenants_make_no_series(world: World) -> None:
    gateway = world.gateway(CHANGES, workers=2, own_process=SERIES)

    def send(count: int) -> None:
        for _ in range(count):
            model, tenant = f"model-{random.getrandbits(48)}", f"tenant-{random.getrandbits(48)}"
            assert ask(gateway, chat(model=model), headers={TENANT: tenant}, client=session).status == 200

    def total() -> float:
        return sum(scraped(gateway)["shunt_requests"].values())

    def series() -> set[tuple[str, Labels]]:
        return {(name, each) for name, values in scraped(gateway).items() for each in values}

    with httpx.Client(trust_env=False, timeout=20) as session:
        send(1)
        wait_for(lambda: total() == 1, what="the first count")
        before, lines = series(), len(gateway.admin("/stats/prometheus").splitlines())
        send(500)
    wait_for(lambda: total() == 501, what="all counts")
    assert series() == before
    # Nothing of them is anywhere else on the page either.
    page = gateway.admin("/stats/prometheus").decode()
    assert "model-" not in page and "tenant-" not in page
    assert len(page.splitlines()) <= lines + 100
    (only,) = scraped(gateway)["shunt_requests"]
    assert dict(only)["gen_ai_request_model"] == dict(only)["shunt_tenant"] == "other"


# Prometheus

PROMETHEUS = shutil.which("prometheus")


@contextlib.contextmanager
def prometheus(gateway: Gateway) -> Iterator[Callable[[str], list[Json]]]:
    """A Prometheus that scrapes the gateway's admin interface every second. The value asks it."""
    port = free_port()
    folder = gateway.folder / "prometheus"
    folder.mkdir()
    job = {
        "job_name": "shunt", "metrics_path": "/stats/prometheus", "scrape_interval": "1s", "scrape_timeout": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{gateway.admin_port}"]}],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    command = [
        str(PROMETHEUS),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def query(text: str) -> list[Json]:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        result: list[Json] = answer["data"]["result"]
        return result

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        try:
            return [one["value"][1] for one in query("up")] == ["1"]
        except OSError:
            return False

    try:
        wait_for(is_up, 30, "Prometheus to scrape")
        yield query
    finally:
        process.terminate()
        process.wait(20)
        release_port(port)


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not on the PATH; get it: apt-get install prometheus, or brew install prometheus")
def test_a_real_prometheus_has_the_numbers_of_the_records(world: World) -> None:
    gateway = world.gateway(CHANGES, workers=4, own_process=SERIES)
    with prometheus(gateway) as query:

        def read() -> dict[str, dict[Labels, float]]:
            found: dict[str, dict[Labels, float]] = collections.defaultdict(dict)
            for one in query('{__name__=~"shunt_.*|gen_ai_.*_(count|sum)"}'):
                names = dict(one["metric"])
                for own in ("job", "instance"):
                    del names[own]
                found[names.pop("__name__")][labels(**names)] = float(one["value"][1])
            return found

        found = mixed_requests(world, gateway)
        wanted = expected(found, {"gpt-5.4-mini", "deepseek-flash"})
        assert_sums(read, wanted, 60)
        # What an operator asks.
        (dollars,) = query("sum(shunt_cost_nano_usd) / 1e9")
        total = sum(Decimal(attempt.get("cost_usd", "0")) for record in found for attempt in record["attempts"])
        assert Decimal(dollars["value"][1]) == pytest.approx(total)
        by_team = query("sum by (shunt_tenant) (shunt_tokens{gen_ai_token_type='output'})")
        spoken = {one["metric"]["shunt_tenant"]: int(one["value"][1]) for one in by_team}
        assert set(spoken) == {"team-a", "team-b", "other", "none"}
        for team in ("team-a", "team-b"):
            mine = [record for record in found if record.get("tenant") == team]
            assert spoken[team] == sum(record.get("usage", {}).get("output", 0) for record in mine)
        (slow,) = query("histogram_quantile(0.95, sum by (le) (rate(gen_ai_client_operation_duration_milliseconds_bucket[1m])))")
        assert float(slow["value"][1]) >= 0
