"""The policy `quality`, scores that come in at run time, and `min_quality`: caller, providers and record agree."""

from __future__ import annotations

import time
from typing import Any

import pytest

from accounts import records
from gateway import RELOADS
from support import CHAT, Answer, Gateway, Json, World, ask, chat, wait_for
from traffic import ask_in_turn

POLICY = "x-shunt-policy"
PATH = "/v1/shunt/quality"
TOKEN = "t0p-secret"
SCORES = {"openai": 0.7, "deepseek": 0.86}
MODELS = {"openai": "gpt-5.4-mini", "deepseek": "deepseek-flash"}
#: So long after an answer to scores every worker knows of them; a little more, for clocks in milliseconds.
KNOWN = 1.05
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def serve(world: World, policy: Json, workers: int = 2, evaluations: bool = True, own_process: str = "", **changes: Any) -> Gateway:
    models = {name: {"models": {"assistant": {"name": MODELS[name], "quality": score}}} for name, score in SCORES.items()}
    route = {"name": "chat", "match": {"path": CHAT}, "providers": list(world.fakes), "policy": policy}
    taken = {"evaluations": {"path": PATH, "token": "$SHUNT_TOKEN"}} if evaluations else {}
    settings = {"providers": models, "routes": [route], **taken, **changes}
    return world.gateway(settings, workers=workers, environment={"SHUNT_TOKEN": TOKEN}, own_process=own_process)


def scores(gateway: Gateway, body: Any = None, token: str = TOKEN, method: str = "POST") -> Answer:
    """Asks for the scores, or replaces some."""
    headers = {"authorization": f"Bearer {token}"}
    content = b"" if body is None and method == "GET" else body
    return ask(gateway, content, path=PATH, method=method, headers=headers)


def new(**found: Any) -> Json:
    return {"scores": [{"provider": name, "model": MODELS[name], "quality": score} for name, score in found.items()]}


def by_provider(told: Answer) -> dict[str, Json]:
    return {score["provider"]: score for score in told.json["scores"]}


@BOTH
def test_the_best_is_asked_first_and_the_record_says_why(world: World, stream: bool) -> None:
    gateway = serve(world, {"type": "quality"})
    answer = ask(gateway, stream=stream)
    assert (answer.status, answer.provider, answer.headers[POLICY]) == (200, "deepseek", "quality")
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    assert ask(gateway, stream=stream).attempts == ["deepseek:overloaded", "openai:answered"]
    for record in records(gateway, 2):
        assert record["plan"] == ["deepseek", "openai", "shareai"] and record["policy"] == "quality"
        assert record["why"] == {"deepseek": "quality 0.86", "openai": "quality 0.7", "shareai": "no score"}
    assert world.counts() == {"openai": 1, "deepseek": 2, "shareai": 0}


def test_a_breaker_is_stronger_than_a_score(world: World) -> None:
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    gateway = serve(world, {"type": "quality"}, breaker={"consecutive_failures": 1, "open": "60s", "max_open": "60s"})
    assert ask(gateway).attempts == ["deepseek:overloaded", "openai:answered"]
    wait_for(lambda: all(ask(gateway).attempts == ["openai:answered"] for _ in range(8)), what="every worker to know")
    before = world.counts()
    answers = [ask(gateway) for _ in range(10)]
    assert {(answer.provider, answer.headers["x-shunt-degraded"]) for answer in answers} == {("openai", "deepseek:open")}
    assert world.counts() == {**before, "openai": before["openai"] + 10}

    def says_why(record: Json) -> bool:
        return record["why"]["deepseek"] == "quality 0.86" and record.get("left_out") == {"deepseek": "open"}

    # These, and the eight that told that every worker knows.
    wait_for(lambda: len([record for record in gateway.access_log() if says_why(record)]) >= 18, what="their records")


@BOTH
def test_a_request_may_ask_for_the_best_where_its_route_allows(world: World, stream: bool) -> None:
    gateway = serve(world, {"allow": ["quality", "balanced"]})
    assert (ask(gateway, stream=stream).provider, world.counts()["openai"]) == ("openai", 1)
    answer = ask(gateway, stream=stream, headers={POLICY: "quality"})
    assert (answer.provider, answer.headers[POLICY], world.counts()["deepseek"]) == ("deepseek", "quality", 1)
    answer = ask(gateway, stream=stream, headers={POLICY: "balanced"})
    assert (answer.status, answer.headers[POLICY]) == (200, "balanced")
    for name in ("latency", "Quality"):
        answer = ask(gateway, stream=stream, headers={POLICY: name})
        assert (answer.status, answer.error["code"]) == (400, "invalid_option")
    assert sum(world.counts().values()) == 3


@BOTH
def test_an_evaluation_changes_who_is_first_for_every_worker(world: World, stream: bool) -> None:
    gateway = serve(world, {"type": "quality"}, workers=4)
    assert ask(gateway, stream=stream).provider == "deepseek"
    told = scores(gateway, new(openai=0.95))
    assert told.status == 200, told.raw
    openai, deepseek = (by_provider(told)[name] for name in MODELS)
    assert (openai["quality"], openai["source"], openai["provider"]) == (0.95, "evaluated", "openai") and openai["since"]
    assert deepseek == {"provider": "deepseek", "model": "deepseek-flash", "quality": 0.86, "source": "configured"}
    assert told.json["scope"] == ("gateway" if world.kind.SHARES else "worker")

    assert told.json["until"] == "restart"

    def asked_later(since: float) -> set[str | None]:
        """Who answers requests that come when every worker should know, each on a connection of its own, so that all are met."""
        found = []
        while len(found) < 30:
            asked = time.monotonic()
            answer = ask(gateway, stream=stream)
            found += [answer.provider] if asked > since + KNOWN else []
        return set(found)

    assert asked_later(time.monotonic()) == {"openai"}
    before = world.counts()
    assert ask(gateway, stream=stream).provider == "openai"
    assert world.counts() == {**before, "openai": before["openai"] + 1}
    whys = lambda: [line["why"]["openai"] for line in gateway.access_log() if "why" in line]  # noqa: E731
    wait_for(lambda: "quality 0.95, evaluated" in whys(), what="a record that says why")
    assert scores(gateway, new(openai=None)).status == 200
    assert asked_later(time.monotonic()) == {"deepseek"}
    assert by_provider(scores(gateway, method="GET"))["openai"]["source"] == "configured"


def test_who_has_not_the_token_changes_and_reads_nothing(world: World) -> None:
    gateway = serve(world, {"type": "quality"})
    for token in ("x", "wrong", TOKEN[:-1], TOKEN + "x"):
        for method in ("GET", "POST"):
            answer = scores(gateway, new(openai=1), token=token, method=method)
            assert answer.status == 401 and answer.error["code"] == "invalid_api_key", answer.raw
            assert TOKEN not in answer.raw.decode()
    assert ask(gateway).provider == "deepseek"
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}
    assert TOKEN not in gateway.log()


@pytest.mark.parametrize("body, told", [
    (b"", "no body"),
    (b"{", "EOF"),
    ({"scores": [{"provider": "openai", "model": "gpt-5.4-mini", "quality": 1.5}]}, "scores[0].quality: expected a number from 0 to 1, or null, found 1.5"),
    (
        {"scores": [{"provider": "openai", "model": "gpt-5.4-mini", "quality": 1}, {"provider": "opennai", "model": "x", "quality": 1}]},
        "scores[1].provider: unknown \"opennai\"; did you mean \"openai\"?",
    ),
    ({"scores": [{"provider": "shareai", "model": "any", "quality": 1}]}, "scores[0].model: unknown \"any\""),
    ({"scores": [{"provider": "openai", "model": name, "quality": 1} for name in ("gpt-5.4-mini", "assistant")]}, "scores[1]: there is a score of this model already"),
])  # fmt: skip
def test_scores_with_a_mistake_change_nothing(world: World, body: Any, told: str) -> None:
    gateway = serve(world, {"type": "quality"})
    answer = scores(gateway, body)
    assert answer.status == 400 and told in answer.error["message"], answer.raw
    assert [one["source"] for one in scores(gateway, method="GET").json["scores"]] == ["configured", "configured"]
    assert ask(gateway).provider == "deepseek"
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}


def test_other_methods_and_long_bodies_are_refused(world: World) -> None:
    gateway = serve(world, {"type": "quality"})
    assert scores(gateway, b"{}", method="PUT").status == 405
    answer = scores(gateway, b" " * (2 << 20))
    assert answer.status == 413 and answer.error["code"] == "request_too_large"
    assert scores(gateway, new(openai=1)).status == 200


def test_without_evaluations_the_path_is_none(world: World) -> None:
    gateway = serve(world, {"type": "quality"}, evaluations=False)
    assert scores(gateway, new(openai=1)).status == 404


def test_scores_survive_a_changed_configuration(world: World) -> None:
    gateway = serve(world, {"type": "quality"}, workers=1, own_process=RELOADS)
    assert scores(gateway, new(openai=0.95)).status == 200
    gateway.config["routes"][0]["policy"] = {"type": "quality", "allow": ["priority"]}
    gateway.reload_listeners()
    wait_for(lambda: ask(gateway, headers={POLICY: "priority"}).status == 200, what="the new configuration")
    assert ask(gateway).provider == "openai"
    assert by_provider(scores(gateway, method="GET"))["openai"]["source"] == "evaluated"


# The cheapest that is good enough.


def flat(usd: float) -> Json:
    return {"input": usd, "output": usd}


@BOTH
def test_the_cheapest_that_is_good_enough_is_asked(world: World, stream: bool) -> None:
    prices = {"openai": {"gpt-5.4-mini": flat(1)}, "deepseek": {"deepseek-flash": flat(2)}, "shareai": {"assistant": flat(0.5)}}
    gateway = serve(world, {"type": "cost", "min_quality": 0.8}, prices=prices)
    body = chat(stream, max_tokens=1000)
    answer = ask(gateway, body, stream=stream)
    assert (answer.provider, answer.headers[POLICY]) == ("deepseek", "cost")
    # Nobody who is good enough answers: one who is not is better than none.
    world.fakes["deepseek"].script(default={"do": "status", "status": 503})
    assert ask(gateway, body, stream=stream).attempts == ["deepseek:overloaded", "shareai:answered"]
    for record in records(gateway, 2):
        assert record["plan"] == ["deepseek", "shareai", "openai"]
        assert record["why"]["openai"].endswith(" USD, below quality 0.8")
        assert "below" not in record["why"]["deepseek"]
    # An evaluation lifts the cheaper one.
    assert scores(gateway, new(openai=0.9)).status == 200
    wait_for(lambda: ask(gateway, body, stream=stream).provider == "openai", what="the new score")


@BOTH
def test_the_quickest_that_is_good_enough_is_asked_and_nobody_else_is_tried(world: World, stream: bool) -> None:
    for name, delay in {"openai": 0.02, "deepseek": 0.2, "shareai": 0.0}.items():
        world.fakes[name].script(default={"do": "answer", "delay": delay})
    gateway = serve(world, {"type": "latency", "min_quality": 0.5, "explore": 0.5}, workers=1)
    answers: list[Answer] = []

    def is_settled() -> bool:
        answers.extend(ask_in_turn(gateway, 10, stream=stream))
        return {answer.provider for answer in answers[-10:]} == {"openai"} and len(answers) >= 60

    # Both that are good enough are tried until they are known. The third is quicker than either, and nobody asks it.
    wait_for(is_settled, 60, "the quickest to be the first")
    assert all(answer.status == 200 and answer.headers[POLICY] == "latency" for answer in answers)
    counts = world.counts()
    assert counts["shareai"] == 0 and counts["deepseek"] >= 10, counts
    for name in ("openai", "deepseek"):
        world.fakes[name].script(default={"do": "status", "status": 503})
    assert ask(gateway, stream=stream).attempts == ["openai:overloaded", "deepseek:overloaded", "shareai:answered"]
    for record in records(gateway, len(answers) + 1):
        assert record["plan"][2] == "shareai" and record["why"]["shareai"].endswith(", below quality 0.5"), record
