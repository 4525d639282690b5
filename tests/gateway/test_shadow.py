"""Shadow traffic: a copy goes to another provider as well. The caller sees nothing of it, and nothing follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import TENANT
from support import CHAT, Gateway, Json, World, ask, chat, wait_for
from traffic import ask_at_once

PRICES: Json = {"*": {name: {"input": 1, "output": 1} for name in ("gpt-5.4-mini", "deepseek-flash", "assistant")}}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def serve(world: World, shadow: Json, route: Any = None, **more: Any) -> Gateway:
    """A route to openai alone, with a shadow."""
    shadow = {"provider": "deepseek", "share": 1, "limit": 5, "per": "day", **shadow}
    routes = [{"name": "chat", "match": {"path": CHAT}, "providers": ["openai"], "shadow": shadow, **(route or {})}]
    return world.gateway({"routes": routes, "prices": PRICES, **more.pop("changes", {})}, **more)


def both(gateway: Gateway, count: int = 1) -> tuple[list[Json], list[Json]]:
    """The records of so many requests and as many copies, in the order of the requests."""
    wait_for(lambda: len(gateway.access_log()) >= 2 * count, what="the records")
    lines = gateway.access_log()
    assert len(lines) == 2 * count
    copies = {line["request_id"]: line for line in lines if line.get("shadow")}
    served = [line for line in lines if not line.get("shadow")]
    assert len(copies) == len(served) == count
    return served, [copies[line["request_id"]] for line in served]


@BOTH
def test_a_copy_goes_to_the_shadow_and_both_are_recorded(world: World, stream: bool) -> None:
    world.fakes["deepseek"].script(default={"do": "answer", "text": "from the shadow"})
    gateway = serve(world, {}, changes={"tenant": {"header": TENANT}})
    answer = ask(gateway, stream=stream, headers={TENANT: "team-a"})
    assert answer.status == 200 and answer.provider == "openai" and answer.attempts == ["openai:answered"]
    assert b"shadow" not in answer.raw and not any("mirror" in name for name in answer.headers)
    (served,), (copy,) = both(gateway)
    assert world.counts() == {"openai": 1, "deepseek": 1, "shareai": 0}
    (main,), (shadow,) = world.seen("openai"), world.seen("deepseek")
    assert {**main["body"], "model": ""} == {**shadow["body"], "model": ""}
    assert served["mirrored_to"] == "deepseek" and served["provider"] == "openai" and "shadow" not in served
    assert (copy["provider"], copy["outcome"], copy["route"], copy["tenant"]) == ("deepseek", "answered", "chat", "team-a")
    assert copy["usage"]["source"] == "reported" and float(copy["cost_usd"]) > 0
    assert ("first_token_ms" in copy) == stream
    # The copy has a different answer and its own bill.
    assert copy["usage"]["output"] != served["usage"]["output"]


FAULTS: list[Any] = [
    pytest.param({"do": "status", "status": 503}, "overloaded", id="503"),
    pytest.param({"do": "status", "status": 401}, "bad_key", id="401"),
    pytest.param({"do": "silent"}, "too_slow", id="silent"),
    pytest.param({"do": "refuse"}, "unreachable", id="refused"),
]


@BOTH
@pytest.mark.parametrize("fault, outcome", FAULTS)
def test_a_shadow_that_fails_is_nobodys_failure(world: World, fault: Json, outcome: str, stream: bool) -> None:
    if fault["do"] == "refuse":
        world.fakes["deepseek"].listen(False)
    else:
        world.fakes["deepseek"].script(default=fault)
    # The next request of the route would meet what was learnt of the shadow.
    breaker = {"consecutive_failures": 1, "open": "60s", "max_open": "60s"}
    gateway = serve(world, {}, {"providers": ["openai", "deepseek"]}, changes={"breaker": breaker})
    for _ in range(3):
        answer = ask(gateway, stream=stream)
        assert answer.status == 200 and answer.provider == "openai" and answer.seconds < 1
    served, copies = both(gateway, 3)
    for copy in copies:
        (attempt,) = copy["attempts"]
        assert attempt["outcome"] == outcome and "cost_usd" not in copy
    # It is in the plan all the same, and no breaker has opened.
    world.fakes["deepseek"].listen(True)
    world.fakes["deepseek"].script(default={"do": "answer"})
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    answer = ask(gateway, stream=stream)
    assert answer.attempts == ["openai:overloaded", "deepseek:answered"]
    assert "x-shunt-degraded" not in answer.headers


def test_what_the_main_traffic_learnt_of_the_shadow_spares_it(world: World) -> None:
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    routes = [
        {"name": "other", "match": {"path": CHAT, "model": "other"}, "providers": ["deepseek"]},
        {"name": "chat", "match": {"path": CHAT}, "providers": ["openai"], "shadow": {"provider": "deepseek", "share": 1, "limit": 5, "per": "day"}},
    ]
    models = {"deepseek": {"models": {"*": "deepseek-flash"}}}
    gateway = world.gateway(
        {"routes": routes, "providers": models, "prices": PRICES, "breaker": {"consecutive_failures": 1, "open": "60s", "max_open": "60s"}}
    )
    assert ask(gateway, chat(model="other")).status == 503
    assert ask(gateway).provider == "openai"
    wait_for(lambda: len(gateway.access_log()) == 2, what="both records")
    assert "mirrored_to" not in gateway.access_log()[1]
    assert world.counts()["deepseek"] == 1


def test_the_shadow_has_a_budget_of_its_own(world: World) -> None:
    limit = 0.00001
    gateway = serve(world, {"limit": limit}, changes={"budgets": [{"name": "all", "limit": 1000, "per": "day"}]})
    body = chat(max_tokens=600)
    answers = []
    for _ in range(8):
        answers.append(ask(gateway, body))
        wait_for(lambda: gateway.stat("http.shunt_shadow.downstream_rq_active") == 0, what="the copy to end")
    assert all(answer.status == 200 for answer in answers)

    def spent() -> list[Json]:
        return [line for line in gateway.access_log() if line.get("shadow") and line["outcome"] == "answered"]

    wait_for(lambda: len(spent()) == world.counts()["deepseek"], what="the records of the copies")
    costs = [float(line["cost_usd"]) for line in spent()]
    # The one that reaches the limit passes it, and is the last.
    assert sum(costs[:-1]) < limit <= sum(costs) and len(costs) < 8, costs
    assert world.counts() == {"openai": 8, "deepseek": len(costs), "shareai": 0}
    # What copies cost is not the budgets' of the document.
    main = [line for line in gateway.access_log() if not line.get("shadow")]
    told = answers[-1].headers["x-shunt-budget"]
    left = float(told.split("remaining=")[1].split(";")[0])
    assert 1000 - left < sum(float(line["cost_usd"]) for line in main) + 0.001


def test_nothing_is_copied_when_the_budget_is_spent_or_no_share_is_due(world: World) -> None:
    for shadow in ({"limit": 0}, {"share": 0}):
        gateway = serve(world, shadow)
        for stream in (False, True):
            assert ask(gateway, stream=stream).provider == "openai"
        wait_for(lambda: len(gateway.access_log()) == 2, what="the records")
        assert all("mirrored_to" not in line for line in gateway.access_log())
    assert world.counts()["deepseek"] == 0


def test_a_share_of_the_requests_is_copied(world: World) -> None:
    gateway = serve(world, {"share": 0.3}, workers=2)
    for _ in range(100):
        assert ask(gateway).status == 200
    # Five deviations.
    wait_for(lambda: len(gateway.access_log()) == 100 + world.fakes["deepseek"].stats()["requests"], what="the records")
    assert 7 <= world.counts()["deepseek"] <= 53
    mirrored = [line["request_id"] for line in gateway.access_log() if "mirrored_to" in line]
    assert sorted(mirrored) == sorted(line["request_id"] for line in gateway.access_log() if line.get("shadow"))


@BOTH
def test_who_serves_has_no_shadow_of_itself(world: World, stream: bool) -> None:
    gateway = serve(world, {"provider": "openai"})
    assert ask(gateway, stream=stream).provider == "openai"
    assert world.counts() == {"openai": 1, "deepseek": 0, "shareai": 0}


@BOTH
def test_no_client_can_have_a_copy_made(world: World, stream: bool) -> None:
    gateway = serve(world, {"share": 0})
    for name in ("x-shunt-mirror", "x-shunt-next", "x-shunt-shadow"):
        answer = ask(gateway, stream=stream, headers={name: "live_mirrored"})
        assert answer.status == 200 and answer.provider == "openai"
    wait_for(lambda: len(gateway.access_log()) == 3, what="the records")
    assert world.counts() == {"openai": 3, "deepseek": 0, "shareai": 0}


def test_a_slow_shadow_delays_nobody(world: World) -> None:
    world.fakes["deepseek"].script(default={"do": "hold"})
    gateway = serve(world, {}, changes={"limits": {"answer": "20s"}})
    answers = [ask(gateway) for _ in range(5)]
    assert all(answer.status == 200 for answer in answers)
    # They were answered while every copy still waits.
    assert world.fakes["deepseek"].wait_for(holding=5)["in_flight"] == 5
    world.fakes["deepseek"].release()
    served, copies = both(gateway, 5)
    assert all(copy["outcome"] == "answered" for copy in copies)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_than_64_copies_are_under_way_in_a_worker_and_only_their_requests_name_the_shadow(world: World, workers: int) -> None:
    world.fakes["deepseek"].script(default={"do": "hold"})
    gateway = serve(world, {"limit": 1000}, workers=workers, changes={"limits": {"answer": "60s"}})
    answers = ask_at_once(gateway, 300)
    assert {answer.status for answer in answers} == {200}
    wait_for(lambda: len(gateway.access_log()) == 300, what="the records of the requests")
    mirrored = [line["request_id"] for line in gateway.access_log() if "mirrored_to" in line]
    assert 0 < len(mirrored) <= 64 * workers
    # Another copy that waits for one of these to end would be recorded as well.
    world.fakes["deepseek"].wait_for(holding=len(mirrored))
    world.fakes["deepseek"].release()
    wait_for(lambda: len(gateway.access_log()) == 300 + len(mirrored), what="the records of the copies")
    copies = [line for line in gateway.access_log() if line.get("shadow")]
    assert sorted(line["request_id"] for line in copies) == sorted(mirrored)
    assert {line["outcome"] for line in copies} == {"answered"}
    assert world.counts()["deepseek"] == len(mirrored)


def test_a_failover_is_not_copied_twice(world: World) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    gateway = serve(world, {"provider": "shareai"}, {"providers": ["openai", "deepseek"]})
    assert ask(gateway).attempts == ["openai:overloaded", "deepseek:answered"]
    (served,), (copy,) = both(gateway)
    assert served["mirrored_to"] == "shareai" == copy["provider"]
    assert world.counts() == {"openai": 1, "deepseek": 1, "shareai": 1}


def test_metrics_keep_copies_apart(world: World) -> None:
    gateway = serve(world, {}, own_process="what is counted after the end of other scenarios would be counted here")
    for _ in range(3):
        assert ask(gateway).status == 200
    both(gateway, 3)

    def counted(name: str) -> int:
        lines = gateway.admin(f"/stats?filter={name}").decode().splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"wasmcustom.{name}|"))

    wait_for(lambda: counted("shunt.shadow.requests") == 3 and counted("shunt.requests") == 3, what="the counts")
    assert counted("shunt.attempts") == 3
