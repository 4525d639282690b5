"""Budgets over four workers: who may go on, who may not, and that every cent is counted once."""

from __future__ import annotations

import datetime
import json
import re
from decimal import Decimal
from typing import Any, Optional, Sequence

import pytest

from accounts import TENANT, records
from gateway import RELOADS
from support import CHAT, Answer, Gateway, Json, World, ask, chat, wait_for
from traffic import DEGRADED, Traffic, ask_at_once, ask_in_turn, reload_listeners

WORKERS = 4
BUDGET = "x-shunt-budget"
#: Every request costs one cent, wherever it is served: an estimate is exact then.
CENT: Json = {"input": 0, "output": 0, "request": 0.01}
MODELS = {"openai": "gpt-5.4-mini", "deepseek": "deepseek-flash", "shareai": "assistant"}


def budget_gateway(world: World, *budgets: Json, prices: Optional[Json] = None, own_process: str = "", **more: Any) -> Gateway:
    every = {"*": dict.fromkeys(MODELS.values(), CENT)}
    named = [{"name": f"budget-{place}", "per": "month", **budget} for place, budget in enumerate(budgets)]
    changes = {"tenant": {"header": TENANT}, "prices": prices or every, "budgets": named, **more}
    return world.gateway(changes, workers=WORKERS, own_process=own_process)


def of(tenant: str) -> Json:
    return {"headers": {TENANT: tenant}}


def standing(answer: Answer) -> dict[str, str]:
    """The fields of the header that tells how one budget stands, its name included."""
    name, *fields = answer.headers[BUDGET].split(";")
    return {"name": name, **dict(field.split("=", 1) for field in fields)}


def assert_refused(answer: Answer, budget: str = "budget-0") -> None:
    assert answer.status == 429, answer.raw
    error = answer.error
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert budget in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    left = standing(answer)
    assert left["name"] == budget and Decimal(left["remaining"]) == 0
    # The period's end: no client that waits comes back before that.
    assert abs(int(answer.headers["retry-after"]) - int(left["reset"])) <= 1
    now = datetime.datetime.now(datetime.timezone.utc)
    month = datetime.timedelta(days=31).total_seconds()
    assert 1 <= int(left["reset"]) <= month
    end = now + datetime.timedelta(seconds=int(left["reset"]))
    # Within a few seconds of the first of a month.
    assert (end + datetime.timedelta(seconds=30)).day == 1 or end.day == 1
    assert not answer.attempts and "x-shunt-provider" not in answer.headers


def settled(gateway: Gateway, count: int) -> list[Json]:
    """All requests are over, and their money is counted."""
    return records(gateway, count)


# Blocked


def test_a_tenant_is_refused_when_its_budget_is_spent_whichever_worker_it_meets_and_nobody_else_is(world: World) -> None:
    gateway = budget_gateway(world, {"match": {"tenant": "team-a"}, "limit": 0.05})
    served = ask_in_turn(gateway, 5, **of("team-a"))
    assert [answer.status for answer in served] == [200] * 5
    # What is reserved for a request of one cent is one cent, so the header is exact while it runs, too.
    assert [Decimal(standing(answer)["remaining"]) for answer in served] == [Decimal(cents) / 100 for cents in (4, 3, 2, 1, 0)]
    begun = datetime.datetime.fromisoformat(standing(served[0])["counting_since"].replace("Z", "+00:00"))
    assert abs(datetime.datetime.now(datetime.timezone.utc) - begun) < datetime.timedelta(minutes=2)
    assert len({standing(answer)["counting_since"] for answer in served}) == 1
    assert {standing(answer)["limit"] for answer in served} == {"0.05"}

    for stream in (False, True):
        for answer in ask_in_turn(gateway, WORKERS, stream=stream, **of("team-a")):
            assert_refused(answer)
    assert world.counts()["openai"] == 5
    others = [*ask_in_turn(gateway, 4, **of("team-b")), ask(gateway)]
    assert [answer.status for answer in others] == [200] * 5
    assert not any(BUDGET in answer.headers for answer in others)
    refused = [record for record in settled(gateway, 18) if record["status"] == 429]
    assert len(refused) == 8
    for record in refused:
        assert (record["outcome"], record["tenant"], record["attempts"]) == ("rejected", "team-a", [])
        assert "cost_usd" not in record


def test_a_limit_of_nothing_is_spent_from_the_start(world: World) -> None:
    gateway = budget_gateway(world, {"limit": 0})
    assert_refused(ask(gateway))
    assert world.counts()["openai"] == 0


def test_a_route_is_refused_when_its_budget_is_spent_and_other_routes_are_not(world: World) -> None:
    routes = [
        {"name": "small", "match": {"path": CHAT, "model": "assistant"}, "providers": ["openai"]},
        {"name": "other", "match": {"path": CHAT, "model": "*"}, "providers": ["shareai"]},
    ]
    gateway = budget_gateway(world, {"match": {"route": "small"}, "limit": 0.02}, routes=routes)
    assert [answer.status for answer in ask_in_turn(gateway, 2)] == [200, 200]
    assert_refused(ask(gateway))
    assert ask(gateway, chat(model="another")).provider == "shareai"


@pytest.mark.parametrize("match", [{"provider": "openai"}, {"model": "gpt-*"}], ids=["provider", "model"])
@pytest.mark.parametrize("when_spent", ["skip", "block"])
def test_a_provider_or_model_whose_budget_is_spent_is_left_out_for_the_next_one(
    world: World, match: Json, when_spent: str
) -> None:
    gateway = budget_gateway(world, {"match": match, "limit": 0.03, "when_spent": when_spent})
    assert [answer.provider for answer in ask_in_turn(gateway, 3)] == ["openai"] * 3
    after = ask_in_turn(gateway, WORKERS)
    assert [answer.attempts for answer in after] == [["deepseek:answered"]] * WORKERS
    assert {answer.headers[DEGRADED] for answer in after} == {"openai:budget_spent"}
    assert world.counts() == {"openai": 3, "deepseek": WORKERS, "shareai": 0}
    assert settled(gateway, 3 + WORKERS)[-1]["left_out"] == {"openai": "budget_spent"}


def test_a_request_for_which_every_provider_is_spent_is_refused(world: World) -> None:
    budgets = [{"match": {"provider": name}, "limit": 0.01, "when_spent": "skip"} for name in world.fakes]
    gateway = budget_gateway(world, *budgets)
    assert [answer.provider for answer in ask_in_turn(gateway, 3)] == ["openai", "deepseek", "shareai"]
    answer = ask(gateway)
    assert answer.status == 429 and answer.error["code"] == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false" and int(answer.headers["retry-after"]) >= 1
    assert world.counts() == {"openai": 1, "deepseek": 1, "shareai": 1}


def test_a_failed_attempt_gives_back_what_was_reserved_for_it(world: World) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 422})
    world.fakes["deepseek"].script(default={"do": "status", "status": 422})
    gateway = budget_gateway(world, {"match": {"tenant": "team-a"}, "limit": 0.02}, {"match": {"provider": "openai"}, "limit": 0.02, "when_spent": "skip"})
    for answer in ask_in_turn(gateway, 6, **of("team-a")):
        assert answer.status == 422
    settled(gateway, 6)
    world.fakes["openai"].script(default={"do": "answer"})
    answer = ask(gateway, **of("team-a"))
    assert answer.provider == "openai" and Decimal(standing(answer)["remaining"]) == Decimal("0.01")


# Others


def test_requests_go_to_the_cheapest_once_the_budget_is_spent(world: World) -> None:
    prices = {"*": {
        "gpt-5.4-mini": {**CENT, "request": 0.03}, "deepseek-flash": {**CENT, "request": 0.02}, "assistant": {**CENT, "request": 0.01},
    }}  # fmt: skip
    gateway = budget_gateway(world, {"match": {"tenant": "*"}, "limit": 0.06, "when_spent": "cheapest"}, prices=prices)
    assert [answer.provider for answer in ask_in_turn(gateway, 2, **of("team-a"))] == ["openai", "openai"]
    for _ in range(WORKERS):
        answer = ask(gateway, **of("team-a"))
        assert (answer.status, answer.attempts) == (200, ["shareai:answered"])
    world.fakes["shareai"].script(default={"do": "status", "status": 503})
    assert ask(gateway, **of("team-a")).attempts == ["shareai:overloaded", "deepseek:answered"]
    assert ask(gateway, **of("team-b")).provider == "openai"
    found = settled(gateway, 4 + WORKERS)
    assert [record["plan"][0] for record in found] == ["openai"] * 2 + ["shareai"] * (WORKERS + 1) + ["openai"]


def test_an_alert_is_told_once_whichever_worker_reaches_it(world: World) -> None:
    gateway = budget_gateway(world, {"match": {"tenant": "team-a"}, "limit": 0.1, "alert_at": 0.5, "when_spent": "alert"})
    alert = re.compile(r"budget budget-0: (\S+) of 0\.1 USD are spent this month")
    ask_in_turn(gateway, 4, **of("team-a"))
    settled(gateway, 4)
    assert not alert.search(gateway.log())
    answers = ask_in_turn(gateway, 16, **of("team-a"))
    assert [answer.status for answer in answers] == [200] * 16
    settled(gateway, 20)
    wait_for(lambda: alert.search(gateway.log()), what="the alert")
    assert [Decimal(spent) for spent in alert.findall(gateway.log())] == [Decimal("0.05")]


def test_each_tenant_has_a_budget_of_its_own(world: World) -> None:
    gateway = budget_gateway(world, {"match": {"tenant": "*"}, "limit": 0.02})
    tenants = [f"tenant-{number}" for number in range(12)]
    for tenant in tenants:
        assert [answer.status for answer in ask_in_turn(gateway, 2, **of(tenant))] == [200, 200]
    for tenant in tenants:
        assert_refused(ask(gateway, **of(tenant)))
    assert ask(gateway).status == 200, "no tenant is one, too"


def test_owners_beyond_the_slots_share_one_limit_and_the_log_says_so(world: World) -> None:
    gateway = budget_gateway(world, {"match": {"tenant": "*"}, "limit": 0.02, "slots": 1})
    assert ask(gateway, **of("first")).status == 200
    assert [ask(gateway, **of(f"later-{number}")).status for number in range(4)] == [200, 200, 429, 429]
    assert ask(gateway, **of("first")).status == 200
    assert gateway.log().count("no slot is free, so owners that are new share one limit") == 1


# In the background

RESPONSES = "/v1/responses"


def background_gateway(world: World, passthrough: Sequence[Json] = (), **budget: Any) -> Gateway:
    """A million tokens of output cost a dollar."""
    return budget_gateway(
        world,
        {"limit": 1, **budget},
        prices={"*": dict.fromkeys(MODELS.values(), {"input": 0, "output": 1})},
        routes=[{"name": "responses", "match": {"path": RESPONSES}, "providers": ["openai", "deepseek"]}],
        passthrough=list(passthrough),
    )


def background(**more: Any) -> Json:
    return {"model": "assistant", "input": "hello", "background": True, "max_output_tokens": 100_000, **more}


def test_a_response_that_is_only_queued_costs_what_is_reserved_for_it(world: World) -> None:
    queued = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "output": [], "error": None, "usage": None}
    world.fakes["openai"].script(default={"do": "status", "status": 200, "body": queued})
    gateway = background_gateway(world)
    answers = [ask(gateway, background(), path=RESPONSES) for _ in range(3)]
    assert [(answer.status, answer.json) for answer in answers] == [(200, queued)] * 3
    assert world.log("openai")[0]["body"]["background"] is True
    for record in settled(gateway, 3):
        assert (record["outcome"], record["usage"]["source"], record["usage"]["output"]) == ("answered", "estimated", 100_000)
        assert Decimal(record["cost_usd"]) == Decimal("0.1")
    # The last one's own reservation is in the header, too.
    assert Decimal(standing(answers[-1])["remaining"]) == Decimal("0.7")
    finished = {**queued, "status": "completed", "output": [{"type": "message", "content": []}], "usage": {"input_tokens": 1, "output_tokens": 5}}
    world.fakes["openai"].script(default={"do": "status", "status": 200, "body": finished})
    assert ask(gateway, background(), path=RESPONSES).status == 200
    assert Decimal(settled(gateway, 4)[-1]["cost_usd"]) == Decimal("0.000005")


def test_the_real_cost_of_a_queued_response_takes_the_place_of_the_estimate_when_it_is_read(world: World) -> None:
    queued = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "output": [], "error": None, "usage": None}
    finished = {**queued, "status": "completed", "output": [{"type": "message", "content": []}], "usage": {"input_tokens": 1, "output_tokens": 250_000}}
    script = world.fakes["openai"].script
    gateway = background_gateway(world, passthrough=[{"path": f"{RESPONSES}*", "provider": "openai"}])

    def read(answer: Json) -> Json:
        script(default={"do": "status", "status": 200, "body": answer})
        before = len(gateway.access_log())
        got = ask(gateway, b"", path=f"{RESPONSES}/resp_1", method="GET")
        assert (got.status, got.json) == (200, answer)
        return settled(gateway, before + 1)[-1]

    script(default={"do": "status", "status": 200, "body": queued})
    assert ask(gateway, background(), path=RESPONSES).status == 200
    assert settled(gateway, 1)[0]["cost_usd"] == "0.1"
    assert "corrects" not in read({**queued, "status": "in_progress"})
    told = read(finished)["corrects"]
    assert (told["provider"], told["model"], told["route"]) == ("openai", MODELS["openai"], "responses")
    assert (told["cost_usd"], told["in_place_of_usd"], told["usage"]["output"]) == ("0.25", "0.1", 250_000)
    assert "corrects" not in read(finished), "once"
    script(default={"do": "answer"})
    left = ask(gateway, background(background=False, max_output_tokens=0), path=RESPONSES)
    assert Decimal(standing(left)["remaining"]) == Decimal("0.75")


def test_a_stream_in_the_background_that_breaks_off_is_written_on_and_costs_what_is_reserved_for_it(world: World) -> None:
    begun = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
    piece = {"type": "response.output_text.delta", "delta": "Hello"}
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (begun, piece))
    script = {"do": "status", "status": 200, "body": body, "content_type": "text/event-stream"}
    world.fakes["openai"].script(default=script)
    gateway = background_gateway(world)
    answer = ask(gateway, background(stream=True), path=RESPONSES)
    assert b"Hello" in answer.raw
    (record,) = settled(gateway, 1)
    assert (record["outcome"], record["usage"]["output"], record["cost_usd"]) == ("truncated", 100_000, "0.1")


@pytest.mark.parametrize("match", [{}, {"tenant": "team-a"}, {"provider": "*"}], ids=["all", "tenant", "provider"])
def test_a_budget_may_refuse_responses_in_the_background(world: World, match: Json) -> None:
    gateway = background_gateway(world, match=match, background="refuse")
    answer = ask(gateway, background(), path=RESPONSES, **of("team-a"))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "background_refused", "background")
    assert world.counts() == {"openai": 0, "deepseek": 0, "shareai": 0}
    assert settled(gateway, 1)[0]["outcome"] == "rejected"
    assert ask(gateway, background(background=False), path=RESPONSES, **of("team-a")).status == 200


# Many at once


def test_requests_at_once_pass_the_limit_by_nothing_that_was_estimated_right(world: World) -> None:
    world.fakes["openai"].script(default={"do": "answer", "delay": 0.2})
    gateway = budget_gateway(world, {"match": {"tenant": "team-a"}, "limit": 0.1})
    answers = ask_at_once(gateway, 40, **of("team-a"))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [429] * 30
    assert world.counts()["openai"] == 10
    found = settled(gateway, 40)
    assert sum(Decimal(record.get("cost_usd", "0")) for record in found) == Decimal("0.1")
    assert_refused(ask(gateway, **of("team-a")))


def most_at_once(found: list[Json]) -> int:
    """The most requests that the gateway had in flight at a time. (Its provider may have answered one that is not settled
    yet, and not have heard of one that is admitted.)"""
    begun = [datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00")) for record in found]
    # Both are in whole milliseconds.
    ended = [at + datetime.timedelta(milliseconds=record["ms"] + 1) for at, record in zip(begun, found)]
    return max(sum(start <= at <= end for start, end in zip(begun, ended)) for at in begun)


def test_requests_at_once_pass_the_limit_by_no_more_than_what_was_in_flight_cost_beyond_its_estimate(world: World) -> None:
    world.fakes["openai"].script(default={"do": "answer", "delay": 0.2, "text": "word " * 400})
    price = {"input": 0, "output": 100, "request": 0.001}
    limit = Decimal("0.05")
    gateway = budget_gateway(world, {"limit": float(limit)}, prices={"*": dict.fromkeys(MODELS.values(), price)})
    # One token is allowed, so one is expected; this provider says more.
    for _ in range(3):
        ask_at_once(gateway, 30, body=chat(max_tokens=1))
    found = settled(gateway, 90)
    billed = [record for record in found if "cost_usd" in record]
    costs = [Decimal(record["cost_usd"]) for record in billed]
    peak = most_at_once(billed)
    assert len(costs) == world.counts()["openai"] < 90
    assert sum(costs) >= limit
    assert sum(costs) - limit <= peak * max(costs), (sum(costs), peak, max(costs))
    assert_refused(ask(gateway))


def test_requests_that_move_to_a_dear_provider_at_once_pass_the_limit_by_no_more_than_one_of_them(world: World) -> None:
    """The first provider costs a hundredth of the second, and fails when all of them wait for it."""
    world.fakes["openai"].script(default={"do": "status", "status": 503, "delay": 1})
    gateway = budget_gateway(
        world,
        {"match": {"tenant": "team-a"}, "limit": 0.1},
        prices={"*": {MODELS["openai"]: {**CENT, "request": 0.0001}, MODELS["deepseek"]: CENT}},
        routes=[{"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}],
        breaker={"consecutive_failures": 200},
    )
    answers = ask_at_once(gateway, 60, **of("team-a"))
    served = [answer for answer in answers if answer.status == 200]
    assert {answer.provider for answer in served} == {"deepseek"}
    assert len(served) == world.counts()["deepseek"]
    passed = [answer for answer in answers if answer.status == 503]
    assert len(passed) > 30
    for answer in passed:
        # The failure of the provider that was asked, and why the other one was not.
        assert answer.error["code"] == "all_providers_failed"
        assert set(answer.attempts) == {"openai:overloaded"} and answer.headers[DEGRADED] == "deepseek:budget_spent"
    found = settled(gateway, 60)
    spent = sum(Decimal(record.get("cost_usd", "0")) for record in found)
    assert spent == len(served) * Decimal("0.01")
    # What others have reserved, at the price of the first one, is not there for those that move.
    assert Decimal("0.05") < spent <= Decimal("0.1") + Decimal("0.01")
    assert sum(record.get("left_out") == {"deepseek": "budget_spent"} for record in found) == len(passed)


def test_what_was_spent_survives_a_change_of_the_configuration_under_traffic(world: World) -> None:
    gateway = budget_gateway(world, {"match": {"tenant": "team-a"}, "limit": 1000}, own_process=RELOADS)

    def spent() -> Decimal:
        left = standing(ask(gateway, **of("team-a")))
        return Decimal(left["limit"]) - Decimal(left["remaining"])

    before = standing(ask(gateway, **of("team-a")))
    with Traffic(gateway, callers=4, **of("team-a")) as traffic:
        traffic.wait_for_answers(40)
        for limit in (2000, 3000):
            gateway.config["budgets"][0]["limit"] = limit
            gateway.config["budgets"][0]["when_spent"] = "alert"
            reload_listeners(gateway)
            traffic.wait_for(lambda answer: standing(answer)["limit"] == str(limit), 20)
    assert {answer.status for answer in traffic.answers} == {200}
    count = 1 + len(traffic.answers)
    settled(gateway, count)
    assert spent() == Decimal(count + 1) / 100
    assert standing(ask(gateway, **of("team-a")))["counting_since"] == before["counting_since"]
    # A new limit applies to what was spent already.
    settled(gateway, count + 2)
    gateway.config["budgets"][0].update(limit=0.5, when_spent="block")
    reload_listeners(gateway)
    wait_for(lambda: ask(gateway, **of("team-a")).status == 429, what="the new limit")
    assert ask(gateway).status == 200
