"""Policies: who is asked first, and that client, provider and record agree on it and on why."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from accounts import TENANT, records
from support import Answer, Gateway, Json, World, ask, chat, wait_for
from traffic import Traffic, ask_in_turn

POLICY = "x-shunt-policy"
MODELS = {"openai": "gpt-5.4-mini", "deepseek": "deepseek-flash", "shareai": "assistant"}
#: The first stays the first for so long.
SETTLE = datetime.timedelta(seconds=10)


def gateway_with(world: World, policy: Json, workers: int = 2, **changes: Any) -> Gateway:
    route = {"name": "chat", "match": {"path": "/v1/chat/completions"}, "providers": list(world.fakes), "policy": policy}
    return world.gateway({"routes": [route], **changes}, workers=workers)


def prices(**usd: Json) -> Json:
    return {name: {MODELS[name]: price} for name, price in usd.items()}


def flat(usd: float, **more: Any) -> Json:
    return {"input": usd, "output": usd, **more}


def time_of(record: Json) -> datetime.datetime:
    return datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))


def firsts(found: list[Json]) -> list[tuple[datetime.datetime, str]]:
    """When who was the first of the plan, but for requests that tried one."""
    settled = [record for record in found if not record["why"][record["plan"][0]].startswith("tried")]
    return sorted((time_of(record), record["plan"][0]) for record in settled)


# Cost


def window_around(moment: datetime.datetime, multiply: float) -> Json:
    hour = datetime.timedelta(hours=1)
    return {"from": f"{moment - hour:%H:%M}", "to": f"{moment + hour:%H:%M}", "multiply": multiply}


@pytest.mark.parametrize("named", [False, True], ids=["route", "request"])
@pytest.mark.parametrize("is_peak", [False, True], ids=["off-peak", "peak"])
def test_the_cheapest_of_this_hour_is_asked_and_the_record_says_why(world: World, is_peak: bool, named: bool) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    peak = window_around(now if is_peak else now + datetime.timedelta(hours=12), 10)
    listed = prices(openai=flat(2), deepseek=flat(1, windows=[peak]))
    gateway = gateway_with(world, {"allow": ["cost"]} if named else {"type": "cost"}, prices=listed)
    expected = ["openai", "deepseek", "shareai"] if is_peak else ["deepseek", "openai", "shareai"]
    headers = {POLICY: "cost"} if named else {}
    answers = [
        ask(gateway, chat(max_tokens=1000), headers=headers),
        ask(gateway, chat(True, max_tokens=1000), stream=True, headers=headers),
    ]
    for answer in answers:
        assert (answer.status, answer.provider, answer.headers[POLICY]) == (200, expected[0], "cost")
    assert world.counts() == {**dict.fromkeys(MODELS, 0), expected[0]: 2}
    for record in records(gateway, 2):
        assert (record["policy"], record["plan"]) == ("cost", expected)
        assert record["why"]["shareai"] == "unpriced"
        usd = {name: float(record["why"][name].removesuffix(" USD")) for name in ("openai", "deepseek")}
        ratio = usd["deepseek"] / usd["openai"]
        assert ratio == pytest.approx(5 if is_peak else 0.5), record["why"]
        # A thousand tokens of answer, and those of the request.
        assert 0.002 < usd["openai"] < 0.0022


def test_the_next_cheapest_is_asked_when_the_cheapest_fails(world: World) -> None:
    world.fakes["shareai"].script(default={"do": "status", "status": 503})
    gateway = gateway_with(world, {"type": "cost"}, prices=prices(openai=flat(3), deepseek=flat(2), shareai=flat(1)))
    assert ask(gateway).attempts == ["shareai:overloaded", "deepseek:answered"]


def test_who_is_above_a_cap_is_never_asked(world: World) -> None:
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    listed = prices(openai=flat(3), deepseek=flat(1))
    gateway = gateway_with(world, {"type": "cost", "max_price": {"output": 2}}, prices=listed)
    answer = ask(gateway)
    assert answer.status == 503 and answer.attempts == ["deepseek:overloaded"]
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}
    (record,) = records(gateway, 1)
    assert record["left_out"] == {"openai": "too_expensive", "shareai": "unpriced"} and record["plan"] == ["deepseek"]


def test_a_request_that_is_too_dear_everywhere_is_told_so(world: World) -> None:
    listed = prices(openai=flat(3), deepseek=flat(1))
    gateway = gateway_with(world, {"type": "cost", "max_price": {"request": 0.001}}, prices=listed)
    answer = ask(gateway, chat(max_tokens=2000))
    assert answer.status == 400 and answer.error["code"] == "price_cap_exceeded"
    assert sum(world.counts().values()) == 0
    assert ask(gateway, chat(max_tokens=100)).provider == "deepseek"


# Latency


def slow(world: World, **seconds: float) -> None:
    for name, delay in seconds.items():
        world.fakes[name].script(default={"do": "answer", "delay": delay})


def is_first(traffic: Traffic, name: str) -> bool:
    """Whether most of the last requests went there."""
    last = traffic.answers[-40:]
    return len(last) == 40 and [answer.provider for answer in last].count(name) > 20


def test_the_quickest_is_asked_and_another_once_it_is_slow(world: World) -> None:
    slow(world, openai=0.4, deepseek=0.02, shareai=0.4)
    gateway = gateway_with(world, {"type": "latency", "window": "10s", "explore": 0.2})

    with Traffic(gateway, callers=6, stream=True) as traffic:
        wait_for(lambda: is_first(traffic, "deepseek"), 30, "the quickest to be first")
        slow(world, openai=0.02, deepseek=0.4, shareai=0.4)
        wait_for(lambda: is_first(traffic, "openai"), 60, "the other to be first")
    assert all(answer.status == 200 and answer.headers[POLICY] == "latency" for answer in traffic.answers)
    found = records(gateway, len(traffic.answers))
    seen = [name for _, name in firsts(found)]
    assert {"deepseek", "openai"} <= set(seen)
    tried = [record for record in found if record["why"][record["plan"][0]].startswith("tried")]
    assert {record["provider"] for record in tried} == set(MODELS), "everybody was tried"
    p95 = [record["why"][record["plan"][0]] for record in found]
    assert any(why.startswith("p95 ") for why in p95), p95


def test_equals_do_not_flap_where_one_alone_is_first(world: World) -> None:
    slow(world, openai=0.03, deepseek=0.03, shareai=0.03)
    gateway = gateway_with(world, {"type": "latency", "explore": 0, "band": 0}, workers=1)
    count = 250
    assert all(answer.status == 200 for answer in ask_in_turn(gateway, count, stream=True))
    found = firsts(records(gateway, count))
    assert len(found) >= count - 60, "all but those of the beginning"
    changes = [now for (_, before), (now, name) in zip(found, found[1:]) if before != name]
    # However unsteady this machine is. The first request of an interval comes a little later than the interval begins.
    assert all(later - earlier >= SETTLE * 0.95 for earlier, later in zip(changes, changes[1:]))
    assert len(changes) <= (found[-1][0] - found[0][0]) / SETTLE + 1


def test_equals_share_the_load_and_who_slows_down_gets_less_at_once(world: World) -> None:
    # A wide band, because a busy machine makes equals unequal.
    slow(world, openai=0.1, deepseek=0.1, shareai=1.5)
    gateway = gateway_with(world, {"type": "latency", "explore": 0.3, "band": 1})

    def shares(traffic: Traffic, *names: str) -> bool:
        last = [answer.provider for answer in traffic.answers[-60:]]
        return len(last) == 60 and all(last.count(name) >= 10 for name in names) and last.count("shareai") <= 6

    with Traffic(gateway, callers=8, stream=True) as traffic:
        wait_for(lambda: shares(traffic, "openai", "deepseek"), 60, "the equals to share the load")
        # None of its answers comes any more, so that nothing can be measured.
        world.fakes["openai"].script(default={"do": "hold", "after": 0})
        traffic.wait_for(lambda answer: answer.provider == "deepseek", 60, 30)
        holding = world.fakes["openai"].stats()["holding"]
        slow(world, openai=0.1, deepseek=0.1, shareai=1.5)
        world.fakes["openai"].release()
    assert holding < 8, "not all callers wait for it"
    assert all(answer.status == 200 for answer in traffic.answers)
    found = records(gateway, len(traffic.answers))
    assert any(record["why"][record["plan"][0]].endswith(", by share") for record in found), found[-3:]


def test_whole_answers_and_streams_are_measured_apart(world: World) -> None:
    gateway = gateway_with(world, {"type": "latency", "explore": 0}, workers=1)
    ask_in_turn(gateway, 40, stream=True)
    ask(gateway)
    whole = [record for record in records(gateway, 41) if not record["stream"]]
    assert all(why.endswith("0 times") for why in whole[0]["why"].values()), whole


# Balanced


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_is_dearer_has_to_be_quicker_by_as_much(world: World, stream: bool) -> None:
    slow(world, openai=0.02, deepseek=0.05, shareai=0.4)
    # Four times the price for two and a half times the speed, and later for fifty times: on a busy machine for ten.
    listed = prices(openai=flat(4), deepseek=flat(1), shareai=flat(1))
    policy = {"type": "balanced", "balance": {"latency": 1, "cost": 1}, "window": "10s", "explore": 0.2, "allow": ["latency"]}
    gateway = gateway_with(world, policy, prices=listed)

    with Traffic(gateway, callers=6, stream=stream) as traffic:
        wait_for(lambda: is_first(traffic, "deepseek"), 30, "the balance to be found")
        slow(world, openai=0.02, deepseek=1, shareai=1)
        wait_for(lambda: is_first(traffic, "openai"), 90, "the dear one to be worth it")
    assert all(answer.status == 200 and answer.headers[POLICY] == "balanced" for answer in traffic.answers)
    found = records(gateway, len(traffic.answers))
    whys = [record["why"]["openai"] for record in found]
    assert any(" ms x 4.00" in why for why in whys), whys[-3:]


def test_each_shape_of_request_goes_where_it_is_cheap(world: World) -> None:
    slow(world, openai=0.03, deepseek=0.03, shareai=0.03)
    listed = prices(openai={"input": 0.2, "output": 20}, deepseek=flat(2))
    # The cost counts much more than any difference of times on a busy machine.
    policy = {"type": "balanced", "balance": {"latency": 1, "cost": 3}, "explore": 0}
    gateway = gateway_with(world, policy, workers=1, prices=listed)
    reads = {**chat(True, max_tokens=10), "messages": [{"role": "user", "content": "word " * 8000}]}
    writes = chat(True, max_tokens=4000)
    measured = 40
    ask_in_turn(gateway, measured, body=writes, stream=True)
    before = world.counts()
    answers = [ask(gateway, body, stream=True) for _ in range(20) for body in (reads, writes)]
    assert [answer.provider for answer in answers] == ["openai", "deepseek"] * 20
    assert {name: count - before[name] for name, count in world.counts().items()} == {"openai": 20, "deepseek": 20, "shareai": 0}
    for record in records(gateway, measured + 40)[measured:]:
        first, second = record["plan"][:2]
        assert " x 1.00" in record["why"][first] and " x 1.00" not in record["why"][second], record


# Weighted


def arms(gateway: Gateway, count: int) -> list[str]:
    found = records(gateway, count)
    for record in found:
        assert record["arm"] == record["plan"][0] and record["why"]["shareai"] == "weight 0", record
    return [record["arm"] for record in found]


def test_each_is_asked_as_often_as_its_weight_says(world: World) -> None:
    gateway = gateway_with(world, {"type": "weighted", "weights": {"openai": 3, "deepseek": 1}})
    answers = ask_in_turn(gateway, 100)
    counts = world.counts()
    # Five deviations.
    assert 53 <= counts["openai"] <= 97 and counts["shareai"] == 0, counts
    assert {answer.headers[POLICY] for answer in answers} == {"weighted"}
    assert sorted(arms(gateway, 100)) == sorted(str(answer.provider) for answer in answers)


def of(sticky: Any, who: str) -> Json:
    return {"headers": {TENANT if sticky == "tenant" else "x-user": who}}


@pytest.mark.parametrize("sticky", ["tenant", {"header": "X-User"}], ids=["tenant", "header"])
def test_who_is_the_same_stays_with_the_same_provider_on_every_worker(world: World, sticky: Any) -> None:
    policy = {"type": "weighted", "weights": {"openai": 1, "deepseek": 1}, "sticky": sticky}
    gateway = gateway_with(world, policy, workers=4, tenant={"header": TENANT})
    seen: dict[str, set[Any]] = {}
    for number in range(12):
        who = f"team-{number}"
        seen[who] = {answer.provider for answer in ask_in_turn(gateway, 4, **of(sticky, who))}
    assert all(len(providers) == 1 for providers in seen.values()), seen
    assert len({name for providers in seen.values() for name in providers}) == 2
    # A header that says where a request goes is for nobody else's eyes.
    for name in ("openai", "deepseek"):
        assert world.seen(name)
    arms(gateway, 48)


def test_the_arm_is_who_was_drawn_whoever_answers(world: World) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    gateway = gateway_with(world, {"type": "weighted", "weights": {"openai": 1}})
    answer = ask(gateway)
    assert answer.attempts[0] == "openai:overloaded" and answer.provider in ("deepseek", "shareai")
    (record,) = records(gateway, 1)
    assert (record["arm"], record["provider"]) == ("openai", answer.provider)


# All of them

CHOOSES_OPENAI: dict[str, Json] = {
    "cost": {"type": "cost"},
    "latency": {"type": "latency", "prefer": {"providers": ["openai"]}},
    "weighted": {"type": "weighted", "weights": {"openai": 1}},
    "quality": {"type": "quality"},
    "balanced": {"type": "balanced", "prefer": {"providers": ["openai"]}},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("policy", CHOOSES_OPENAI.values(), ids=list(CHOOSES_OPENAI))
def test_no_policy_picks_whom_the_breaker_excludes(world: World, policy: Json, stream: bool) -> None:
    models = {"openai": {"models": {"assistant": {"name": MODELS["openai"], "quality": 0.9}}}}
    listed = prices(openai=flat(1), deepseek=flat(2), shareai=flat(3))
    breaker = {"consecutive_failures": 1, "open": "60s", "max_open": "60s"}
    gateway = gateway_with(world, policy, workers=1, prices=listed, breaker=breaker, providers=models)
    # Its choice, until it fails; and it would answer again.
    world.fakes["openai"].script({"do": "status", "status": 503}, default={"do": "answer"})
    first = ask(gateway, stream=stream)
    assert first.status == 200 and first.attempts[0] == "openai:overloaded"
    for answer in ask_in_turn(gateway, 20, stream=stream):
        assert answer.status == 200 and answer.provider != "openai"
        assert answer.headers["x-shunt-degraded"] == "openai:open"
    assert world.counts()["openai"] == 1


# The header


def assert_refused(answer: Answer) -> None:
    assert answer.status == 400, answer.raw
    assert answer.error["code"] == "invalid_option" and POLICY in answer.error["message"]


def test_a_request_may_name_a_policy_that_its_route_allows(world: World) -> None:
    listed = prices(openai=flat(3), deepseek=flat(2), shareai=flat(1))
    gateway = gateway_with(world, {"allow": ["cost"]}, prices=listed)
    for headers, policy, provider in [
        ({}, "priority", "openai"),
        ({POLICY: "priority"}, "priority", "openai"),
        ({POLICY: "cost"}, "cost", "shareai"),
    ]:
        answer = ask(gateway, headers=headers)
        assert (answer.status, answer.headers[POLICY], answer.provider) == (200, policy, provider)
        assert world.seen(provider)
    for name in ("latency", "weighted", "Cost", "cheapest"):
        assert_refused(ask(gateway, headers={POLICY: name}))
    found = records(gateway, 7)
    assert [record["policy"] for record in found if record["outcome"] == "answered"] == ["priority", "priority", "cost"]
    assert ["why" in record for record in found if record["outcome"] == "answered"] == [False, False, True]
    assert sum(world.counts().values()) == 3


def test_where_nothing_is_allowed_every_other_policy_is_refused(world: World) -> None:
    gateway = world.gateway()
    assert ask(gateway, headers={POLICY: "priority"}).status == 200
    for stream in (False, True):
        assert_refused(ask(gateway, stream=stream, headers={POLICY: "cost"}))
    assert sum(world.counts().values()) == 1
