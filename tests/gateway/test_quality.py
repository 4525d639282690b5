"""The policy `quality`, scores that come in at run time, and `min_quality`: caller, providers and record agree."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import records
from support import CHAT, Answer, Gateway, Json, World, ask, chat, wait_for

POLICY = "x-shunt-policy"
PATH = "/v1/shunt/quality"
TOKEN = "t0p-secret"
SCORES = {"openai": 0.7, "deepseek": 0.86}
MODELS = {"openai": "gpt-5.4-mini", "deepseek": "deepseek-flash"}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def serve(world: World, policy: Json, workers: int = 2, evaluations: bool = True, **changes: Any) -> Gateway:
    models = {name: {"models": {"assistant": {"name": MODELS[name], "quality": score}}} for name, score in SCORES.items()}
    route = {"name": "chat", "match": {"path": CHAT}, "providers": list(world.fakes), "policy": policy}
    taken = {"evaluations": {"path": PATH, "token": "$SHUNT_TOKEN"}} if evaluations else {}
    settings = {"providers": models, "routes": [route], **taken, **changes}
    return world.gateway(settings, workers=workers, environment={"SHUNT_TOKEN": TOKEN})


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
    wait_for(lambda: ask(gateway).attempts == ["openai:answered"], what="every worker to know")
    assert ask(gateway).headers["x-shunt-degraded"] == "deepseek:open"


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

    def everywhere(provider: str) -> bool:
        # Each request on a connection of its own, so that all workers are met.
        return all(ask(gateway, stream=stream).provider == provider for _ in range(20))

    wait_for(lambda: everywhere("openai"), 10, "all workers to know")
    (record,) = records(gateway, len(gateway.access_log()))[-1:]
    assert record["why"]["openai"] == "quality 0.95, evaluated"
    assert scores(gateway, new(openai=None)).status == 200
    wait_for(lambda: everywhere("deepseek"), 10, "the configured score to be back")
    assert by_provider(scores(gateway, method="GET"))["openai"]["source"] == "configured"


def test_who_has_not_the_token_changes_and_reads_nothing(world: World) -> None:
    gateway = serve(world, {"type": "quality"})
    for token in ("x", "wrong", TOKEN[:-1], TOKEN + "x"):
        for method in ("GET", "POST"):
            answer = scores(gateway, new(openai=1), token=token, method=method)
            assert answer.status == 401 and answer.error["code"] == "invalid_api_key", answer.raw
            assert TOKEN not in answer.raw.decode()
    assert ask(gateway).provider == "deepseek"
    assert TOKEN not in gateway.log()


@pytest.mark.parametrize("body, told", [
    (b"", "no body"),
    (b"{", "EOF"),
    ({"scores": [{"provider": "openai", "model": "gpt-5.4-mini", "quality": 1.5}]}, "scores[0].quality: expected a number from 0 to 1, or null, found 1.5"),
    ({"scores": [{"provider": "openai", "model": "gpt-5.4-mini", "quality": 1}, {"provider": "opennai", "model": "x", "quality": 1}]}, "scores[1].provider: unknown \"opennai\"; did you mean \"openai\"?"),
    ({"scores": [{"provider": "shareai", "model": "any", "quality": 1}]}, "scores[0].model: unknown \"any\""),
])  # fmt: skip
def test_scores_with_a_mistake_change_nothing(world: World, body: Any, told: str) -> None:
    gateway = serve(world, {"type": "quality"})
    answer = scores(gateway, body)
    assert answer.status == 400 and told in answer.error["message"], answer.raw
    assert [one["source"] for one in scores(gateway, method="GET").json["scores"]] == ["configured", "configured"]
    assert ask(gateway).provider == "deepseek"


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
    gateway = serve(world, {"type": "quality"}, workers=1)
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
