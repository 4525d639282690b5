"""The breaker of a provider: what opens it, what closes it, and what it spares the provider meanwhile.

Gateways of several workers share what they know of a provider, but a worker may know it some milliseconds late. So
faults here take longer than that, and what is asserted of "every worker" is asserted of answers that came from each.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from typing import Any, Iterator

import pytest

from gateway import RELOADS
from support import (
    CHAT,
    CLIENT_KEY,
    Answer,
    Gateway,
    Json,
    World,
    ask,
    chat,
    request_head,
    wait_for,
)
from traffic import DEGRADED, Traffic, ask_at_once, ask_in_turn, assert_all_served, reload_listeners

WORKERS = 4
#: Longer than any test: what is open stays open.
STAYS_OPEN: Json = {"open": "60s", "max_open": "60s"}
#: Far longer than a worker's knowledge may lag behind.
FAILS: Json = {"do": "status", "status": 503, "delay": 0.02}
ANSWERS: Json = {"do": "answer"}
#: No attempt is given up, and no probe's permit lapses, before a test is over.
PATIENT: Json = {"first_token": "60s", "answer": "60s"}


def breaker(failures: int = 5, **more: Any) -> Json:
    return {"breaker": {**STAYS_OPEN, "consecutive_failures": failures, **more}}


def requests_to(world: World, name: str) -> int:
    return int(world.fakes[name].stats()["requests"])


def trip(gateway: Gateway, world: World, failures: int, name: str = "openai") -> None:
    """Fails as often as it takes to open the breaker."""
    world.fakes[name].script(default=FAILS)
    answers = ask_in_turn(gateway, failures)
    assert_all_served(answers)
    assert [answer.attempts[0] for answer in answers] == [f"{name}:overloaded"] * failures


def ask_every_worker(gateway: Gateway) -> list[Answer]:
    """Asks over new connections until every worker has answered."""
    before, answers = gateway.connections(), []

    def all_asked() -> bool:
        answers.extend(ask_in_turn(gateway, gateway.workers))
        return all(now > then for now, then in zip(gateway.connections(), before))

    wait_for(all_asked, 30, "a connection to every worker")
    return answers


def assert_left_out(answers: list[Answer], why: str = "open") -> None:
    """Every caller was served by the second provider, and told why."""
    assert_all_served(answers)
    for answer in answers:
        assert (answer.attempts, answer.headers.get(DEGRADED)) == (["deepseek:answered"], f"openai:{why}")


def gaps(log: list[Json]) -> list[float]:
    """The seconds between requests."""
    return [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(log)]


# What opens it


@pytest.mark.parametrize("headers", [{}, {"x-shunt-stream": "complete"}], ids=["first_token", "complete"])
def test_streams_that_are_complete_never_open_the_breaker(world: World, headers: Json) -> None:
    # The gap parts `[DONE]` from the end of the body. Streams that come in one piece: test_load.py.
    world.fakes["openai"].script(default={"do": "answer", "gap": 0.005})
    gateway = world.gateway()
    for _ in range(12):
        answer = ask(gateway, stream=True, headers=headers)
        answer.assert_whole_stream()
        assert answer.attempts == ["openai:answered"] and DEGRADED not in answer.headers
    assert world.counts() == {"openai": 12, "deepseek": 0, "shareai": 0}


@pytest.mark.parametrize("failures", [1, 5])
def test_failures_in_a_row_open_it_for_every_worker_and_no_request_touches_the_provider(world: World, failures: int) -> None:
    gateway = world.gateway(breaker(failures), workers=WORKERS)
    healthy = ask_every_worker(gateway)
    assert all(answer.attempts == ["openai:answered"] for answer in healthy)

    trip(gateway, world, failures)
    world.fakes["openai"].script(default=ANSWERS)
    left_out = ask_every_worker(gateway) + ask_at_once(gateway, 40) + ask_at_once(gateway, 40, stream=True)

    assert_left_out(left_out)
    assert world.counts() == {"openai": len(healthy) + failures, "deepseek": failures + len(left_out), "shareai": 0}


def test_failures_that_several_workers_see_add_up(world: World) -> None:
    gateway = world.gateway(breaker(40, minimum_requests=1000), workers=WORKERS)
    world.fakes["openai"].script(default=FAILS)
    before = gateway.connections()
    answers = ask_in_turn(gateway, 60)
    assert_all_served(answers)
    assert all(now > then for now, then in zip(gateway.connections(), before)), "not every worker took part"
    assert [answer.headers.get(DEGRADED) for answer in answers] == [None] * 40 + ["openai:open"] * 20
    assert world.counts() == {"openai": 40, "deepseek": 60, "shareai": 0}


def test_a_share_of_failures_opens_it_when_there_are_enough_requests(world: World) -> None:
    gateway = world.gateway(breaker(65535, error_rate=0.5, minimum_requests=20))
    world.fakes["openai"].script(*[ANSWERS, FAILS] * 20)
    answers = ask_in_turn(gateway, 30)
    assert_all_served(answers)
    served = ["openai:answered"], ["openai:overloaded", "deepseek:answered"]
    assert [answer.attempts for answer in answers[:20]] == [*served] * 10
    assert_left_out(answers[20:])
    assert world.counts() == {"openai": 20, "deepseek": 20, "shareai": 0}


def test_a_smaller_share_of_failures_does_not_open_it(world: World) -> None:
    gateway = world.gateway(breaker(65535, error_rate=0.5, minimum_requests=20))
    world.fakes["openai"].script(*[ANSWERS, ANSWERS, FAILS] * 20)
    answers = ask_in_turn(gateway, 60)
    assert_all_served(answers)
    assert not any(DEGRADED in answer.headers for answer in answers)
    assert world.counts() == {"openai": 60, "deepseek": 20, "shareai": 0}


# The gap parts the first content, which is released, from what follows.
@pytest.mark.parametrize(
    "break_off",
    [{"do": "cut"}, {"do": "cut", "how": "fin"}, {"do": "clean_cut"}, {"do": "error_event_200", "after": 2}, {"do": "stall"}],
    ids=["reset", "fin", "clean", "error", "stall"],
)
def test_a_stream_that_breaks_off_after_its_release_is_one_failure(world: World, break_off: Json) -> None:
    gateway = world.gateway(breaker(2), idle=0.3)
    world.fakes["openai"].script(*[{"gap": 0.02, **break_off}] * 2, default=ANSWERS)
    # Counted twice, the first would open it; not counted, the second would not.
    broken = [ask(gateway, stream=True, http2=gateway.HTTP2) for _ in range(2)]
    for answer in broken:
        assert answer.provider == "openai" and answer.text and "[DONE]" not in answer.events
    assert_left_out([ask(gateway)])
    assert world.counts() == {"openai": 2, "deepseek": 1, "shareai": 0}


# Half-open


def test_one_probe_at_a_time_over_all_workers_and_its_success_closes_the_breaker(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway({**breaker(3, open="500ms"), "limits": PATIENT}, workers=WORKERS)
    trip(gateway, world, 3)
    primary.script(default={"do": "hold"})
    # Whole answers: the first content of a stream would close the breaker.
    with Traffic(gateway, callers=16, stream=False) as traffic:
        wait_for(lambda: primary.stats()["holding"] == 1, what="the probe")
        before = gateway.connections()
        begin = len(traffic.answers)
        traffic.wait_for_answers(200)
        assert all(now > then for now, then in zip(gateway.connections(), before)), "not every worker took part"
        meanwhile = traffic.answers[begin : begin + 200]
        assert_left_out(meanwhile)
        stats = primary.stats()
        assert (stats["requests"], stats["in_flight"], stats["max_in_flight"]) == (3 + 1, 1, 1)

        primary.script(default=ANSWERS)
        assert primary.release() == 1
        traffic.wait_for(lambda answer: answer.attempts == ["openai:answered"] and DEGRADED not in answer.headers, 50)
    assert_all_served(traffic.answers)
    assert DEGRADED not in ask(gateway).headers


def test_as_many_probes_as_configured_must_succeed_one_after_the_other(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway(breaker(3, open="300ms", probes=3), workers=WORKERS)
    trip(gateway, world, 3)
    # Slow enough that many requests arrive during each.
    primary.script(*[{"do": "answer", "delay": 0.2}] * 3, default=ANSWERS)
    with Traffic(gateway, callers=8) as traffic:
        wait_for(lambda: requests_to(world, "openai") > 3 + 3 + 20, 20, "the provider to serve again")
    assert_all_served(traffic.answers)
    probes = primary.log()[3:7]
    # Each began after the one before had ended, and the others after the last.
    assert all(gap >= 0.2 for gap in gaps(probes)), gaps(probes)
    assert DEGRADED not in ask(gateway).headers


def test_each_failed_probe_doubles_the_open_time_up_to_its_limit(world: World) -> None:
    gateway = world.gateway(breaker(3, open="200ms", max_open="800ms"), workers=WORKERS)
    trip(gateway, world, 3)
    with Traffic(gateway) as traffic:
        wait_for(lambda: requests_to(world, "openai") >= 3 + 4, 20, "four probes")
    assert_all_served(traffic.answers)
    # The gateway counts from the end of the failed attempt, so the bounds are safe.
    between = gaps(world.seen("openai")[2:7])
    assert all(gap >= least for gap, least in zip(between, [0.2, 0.4, 0.8, 0.8], strict=True)), between
    assert world.fakes["openai"].stats()["max_in_flight"] == 1


def test_a_silent_probe_opens_it_again_and_another_is_tried_later(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway(breaker(3, open="200ms", max_open="200ms"), workers=WORKERS)
    trip(gateway, world, 3)
    primary.script(default={"do": "silent"})
    with Traffic(gateway, stream=True) as traffic:
        wait_for(lambda: primary.stats()["by_step"].get("silent", 0) >= 3, 20, "three probes that are not answered")
        wait_for(lambda: primary.stats()["in_flight"] == 0, 20, "the third to be given up")
        primary.script(default=ANSWERS)
        traffic.wait_for(lambda answer: answer.attempts == ["openai:answered"], 20)
    assert_all_served(traffic.answers)
    waited = [answer for answer in traffic.answers if answer.attempts == ["openai:too_slow", "deepseek:answered"]]
    # limits.first_token; Envoy's timers may be early by what its event loop took.
    limit = 0.98
    assert len(waited) >= 3 and all(answer.seconds >= limit for answer in waited)
    assert DEGRADED not in ask(gateway).headers
    silent = [entry for entry in world.seen("openai") if entry["step"]["do"] == "silent"]
    assert len(silent) >= 3 and all(gap >= limit + 0.2 for gap in gaps(silent)), gaps(silent)


@contextlib.contextmanager
def caller_that_leaves(gateway: Gateway, stream: bool) -> Iterator[None]:
    """A request whose client is gone when the block ends."""
    body = json.dumps(chat(stream)).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        connection.sendall(request_head(len(body)) + body)
        yield


@pytest.mark.parametrize(
    ("stream", "step"),
    [(False, {"do": "silent"}), (True, {"do": "silent"}), (True, {"do": "role_only"})],
    ids=["whole", "stream", "stream-withheld"],
)
def test_a_probe_whose_client_leaves_gives_its_permit_back(world: World, stream: bool, step: Json) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway({**breaker(3, open="200ms"), "limits": PATIENT}, workers=WORKERS)
    trip(gateway, world, 3)
    world.fakes["openai"].script(default=step)

    # Until the open time is over the next provider answers; then one of the callers is the probe.
    def leave_a_probe() -> bool:
        served = requests_to(world, "deepseek")
        with caller_that_leaves(gateway, stream):
            wait_for(
                lambda: primary.stats()["in_flight"] or requests_to(world, "deepseek") > served,
                what="the probe or an answer",
            )
            return bool(primary.stats()["in_flight"])

    wait_for(leave_a_probe, 10, "a probe whose client leaves")
    primary.wait_for(in_flight=0)
    primary.script(default=ANSWERS)
    # The permit itself lapses only after a minute.
    answer = wait_for(lambda: (answer := ask(gateway)).attempts == ["openai:answered"] and answer, 10, "another probe")
    assert DEGRADED not in answer.headers
    # Nobody's failure: the breaker closed, as after any probe.
    assert all(answer.attempts == ["openai:answered"] for answer in ask_every_worker(gateway))
    assert [entry["ended"] for entry in primary.log() if entry["step"] == step] == ["aborted_by_peer"]


def test_the_first_content_of_a_stream_closes_it_and_a_cut_afterwards_is_one_failure(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway({**breaker(2, open="200ms"), "limits": PATIENT}, workers=WORKERS)
    trip(gateway, world, 2)
    # The probe is held after its first content; what comes meanwhile is answered.
    primary.script({"do": "hold", "after": 1}, default=ANSWERS)
    with Traffic(gateway, stream=True) as traffic:
        wait_for(lambda: primary.stats()["holding"] == 1, what="the probe's first content")
        traffic.wait_for(lambda answer: answer.attempts == ["openai:answered"] and DEGRADED not in answer.headers, 20)
        assert primary.stats()["holding"] == 1, "the probe ended too early"
        primary.release()
    assert_all_served(traffic.answers)


def test_a_probe_that_is_cut_after_its_first_content_counts_one_failure(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway(breaker(2, open="1s"))
    trip(gateway, world, 2)
    primary.script(default={"do": "cut", "gap": 0.02})

    def cut() -> Answer:
        # HTTP/2 hears of a break at once; over HTTP/1.1 Envoy delays the close by a second, and the breaker's time runs.
        return ask(gateway, stream=True, http2=gateway.HTTP2)

    # The probe closes the breaker and its cut is the first failure; a second opens it again.
    first = wait_for(lambda: (answer := cut()).provider == "openai" and answer, what="the probe")
    assert first.broken
    second = cut()
    assert second.provider == "openai" and second.broken and DEGRADED not in second.headers
    assert_left_out([ask(gateway)])
    assert len(world.seen("openai")) == 4


# Nobody is free


def test_when_all_are_open_the_one_that_is_free_first_serves_and_is_back(world: World) -> None:
    only = [{"name": name, "match": {"path": CHAT, "model": model}, "providers": [name]}
            for name, model in (("deepseek", "deepseek-flash"), ("openai", "gpt-5.4-mini"), ("shareai", "other"))]
    everybody = {"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek", "shareai"]}
    gateway = world.gateway({"routes": [*only, everybody], "breaker": {"open": "10s", "max_open": "10s"}}, workers=WORKERS)

    def open_by(model: str, delay: float) -> None:
        answers = ask_at_once(gateway, 5, body=chat(model=model))
        assert all(answer.status == 503 and answer.seconds >= delay for answer in answers)

    # An open time is stretched by up to a tenth, so the others must open a second after the one that is free first.
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    open_by("deepseek-flash", 0)
    for name in ("openai", "shareai"):
        world.fakes[name].script(default={"do": "status", "status": 503, "delay": 1.1})
    open_by("gpt-5.4-mini", 1.1)
    open_by("other", 1.1)

    for provider in world.fakes.values():
        provider.script(default=ANSWERS)
    first = ask(gateway)
    assert (first.status, first.attempts) == (200, ["deepseek:answered"])
    assert first.headers[DEGRADED] == "openai:open,shareai:open"
    # It worked, which is as good as a probe.
    assert_left_out(ask_every_worker(gateway))
    assert (requests_to(world, "openai"), requests_to(world, "shareai")) == (5, 5)


# Holds


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_hold_is_seen_by_every_worker_and_is_no_failure(world: World, stream: bool) -> None:
    gateway = world.gateway(breaker(1), workers=WORKERS)
    healthy = ask_every_worker(gateway)
    limited = {"do": "status", "status": 429, "headers": {"retry-after": "60"}, "delay": 0.02}
    world.fakes["openai"].script(limited, default=ANSWERS)
    answer = ask(gateway, stream=stream)
    assert_all_served([answer])
    assert answer.attempts == ["openai:rate_limited", "deepseek:answered"]
    # One failure would have opened the breaker, and "open" would be the reason.
    left_out = ask_every_worker(gateway) + ask_at_once(gateway, 40, stream=stream)
    assert_left_out(left_out, "rate_limited")
    assert world.counts() == {"openai": len(healthy) + 1, "deepseek": 1 + len(left_out), "shareai": 0}


# A new configuration


def assert_serves_under(gateway: Gateway, most: int) -> None:
    """The configuration with this `max_request_bytes` is active."""
    over = ask(gateway, chat(text="x" * most))
    assert over.status == 413, "the new configuration is not active"


def test_what_is_known_of_the_providers_survives_a_new_configuration(world: World) -> None:
    gateway = world.gateway(breaker(3), workers=WORKERS, own_process=RELOADS)
    trip(gateway, world, 3)
    world.fakes["openai"].script(default=ANSWERS)
    limited = {"do": "status", "status": 429, "headers": {"retry-after": "60"}, "delay": 0.02}
    world.fakes["deepseek"].script(limited, default=ANSWERS)
    assert ask(gateway).attempts == ["deepseek:rate_limited", "shareai:answered"]

    gateway.config["limits"].update(max_request_bytes=2048, first_token="5s")
    # Another name for a model does not make another provider.
    gateway.config["providers"]["openai"]["models"]["new"] = "gpt-5.4-mini"
    reload_listeners(gateway)
    assert_serves_under(gateway, 2048)

    answers = ask_every_worker(gateway)
    assert_all_served(answers)
    for answer in answers:
        assert answer.attempts == ["shareai:answered"]
        assert answer.headers[DEGRADED] == "openai:open,deepseek:rate_limited"
    assert world.counts() == {"openai": 3, "deepseek": 4, "shareai": 1 + len(answers)}


@pytest.mark.parametrize("change", [{"host": "eu.openai.test"}, {"api_key": "$OTHER_KEY"}, {"path_prefix": "/v2"}], ids=lambda change: next(iter(change)))
def test_a_provider_that_became_another_one_starts_anew(world: World, change: Json) -> None:
    # The variables of a running VM cannot be changed, so both are there from the start.
    keys = {"OPENAI_API_KEY": "sk-openai", "OTHER_KEY": "sk-other"}
    gateway = world.gateway(breaker(3), environment=keys, workers=WORKERS, own_process=RELOADS)
    trip(gateway, world, 3)
    before = len(world.seen("openai"))
    world.fakes["openai"].script(default=ANSWERS)
    assert_left_out(ask_every_worker(gateway))

    gateway.config["providers"]["openai"].update(change)
    reload_listeners(gateway)
    answers = ask_every_worker(gateway)
    assert_all_served(answers)
    assert all(answer.attempts == ["openai:answered"] and DEGRADED not in answer.headers for answer in answers)
    seen = world.fakes["openai"].log()[before:]
    assert len(seen) == len(answers)
    for entry in seen:
        headers = {name.lower(): value for name, value in entry["headers"]}
        expected = {"host": "api.openai.test", "api_key": "$OPENAI_API_KEY", "path_prefix": "/v1", **change}
        assert headers["host"] == expected["host"]
        assert headers["authorization"] == f"Bearer {keys[expected['api_key'].lstrip('$')]}"
        assert entry["path"] == expected["path_prefix"] + "/chat/completions"
        assert CLIENT_KEY not in json.dumps(entry)
