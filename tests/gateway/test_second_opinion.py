"""Refusals that no list explains: another provider is asked, and what holds nobody for one request holds after several."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import records
from support import CHAT, Answer, Gateway, Json, World, ask, asked, chat, wait_for
from test_outcomes import BOTH, LONG, assert_answered_by, status

STREAMS = pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])

SUSPENDED = status(400, "NotToday", message="Access denied, the secret prompt was: hello.")
HELD = {"breaker": {"consecutive_failures": 3, "open": LONG, "max_open": LONG}}


def refuse(world: World, *names: str, code: int = 400) -> None:
    """Each of the named providers refuses in its own words."""
    for name in names:
        world.fakes[name].script(default=status(code, f"odd_{name}", message=f"{name} does not like this"))


def assert_refused_by(answer: Answer, name: str, code: int = 400) -> None:
    """The client has this provider's refusal, whole and in the envelope."""
    assert (answer.status, answer.provider, answer.broken) == (code, name, None), answer.raw[:500]
    assert answer.headers["content-type"] == "application/json"
    answer.assert_length()
    assert (answer.error["code"], answer.error["message"]) == (f"odd_{name}", f"{name} does not like this")


def say(gateway: Gateway, text: str, stream: bool = False, **more: Any) -> Answer:
    return ask(gateway, chat(stream, text=text), stream=stream, **more)


@STREAMS
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(SUSPENDED, id="400"),
        pytest.param(status(418), id="418"),
        pytest.param(status(422, body={"detail": "no"}), id="422"),
        pytest.param({"do": "html", "status": 400}, id="page"),
    ],
)
def test_a_refusal_that_another_provider_disproves_is_answered_by_it(world: World, step: Json, stream: bool) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway(HELD)
    answer = ask(gateway, stream=stream)
    assert_answered_by(answer, "deepseek", stream)
    assert answer.attempts == ["openai:bad_request", "deepseek:answered"]
    assert asked(world) == ["openai", "deepseek"]
    (record,) = records(gateway, 1)
    assert (record["outcome"], record["provider"], record["second_opinion"]) == ("answered", "deepseek", "disproved")


@STREAMS
def test_a_refusal_that_another_provider_confirms_goes_to_the_client_as_it_came(world: World, stream: bool) -> None:
    refuse(world, "openai", code=422)
    refuse(world, "deepseek")
    gateway = world.gateway(HELD)
    answer = ask(gateway, stream=stream)
    assert_refused_by(answer, "openai", 422)
    assert answer.attempts == ["openai:bad_request", "deepseek:bad_request"]
    assert asked(world) == ["openai", "deepseek"]
    (record,) = records(gateway, 1)
    assert (record["outcome"], record["status"], record["second_opinion"]) == ("bad_request", 422, "confirmed")


@STREAMS
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        pytest.param(status(503), "overloaded", id="503"),
        pytest.param({"do": "reset_before_headers"}, "unreachable", id="reset"),
        pytest.param({"do": "silent"}, "too_slow", id="silent"),
        pytest.param(status(401), "bad_key", id="401"),
    ],
)
def test_a_failure_is_no_opinion_and_the_provider_after_it_is_asked(world: World, failure: Json, outcome: str, stream: bool) -> None:
    refuse(world, "openai")
    world.fakes["deepseek"].script(default=failure)
    gateway = world.gateway({**HELD, "limits": {"first_token": "500ms", "answer": "500ms"}})
    answer = ask(gateway, stream=stream)
    assert_answered_by(answer, "shareai", stream)
    assert answer.attempts == ["openai:bad_request", f"deepseek:{outcome}", "shareai:answered"]
    world.fakes["shareai"].script(default=failure)
    answer = say(gateway, "again", stream)
    assert_refused_by(answer, "openai")
    assert "second_opinion" not in records(gateway, 2)[1]


def test_if_nobody_else_can_be_reached_the_client_gets_the_refusal(world: World) -> None:
    refuse(world, "openai")
    world.fakes["deepseek"].listen(False)
    world.fakes["shareai"].listen(False)
    answer = ask(world.gateway(HELD))
    assert_refused_by(answer, "openai")
    assert answer.attempts == ["openai:bad_request", "deepseek:unreachable", "shareai:unreachable"]


@STREAMS
def test_a_provider_that_is_excluded_is_not_tried_for_an_opinion(world: World, stream: bool) -> None:
    for name in ("deepseek", "shareai"):
        world.fakes[name].script(status(429, headers={"retry-after": "60"}))
    world.fakes["openai"].script(status(503))
    gateway = world.gateway(HELD)
    assert ask(gateway).status == 429
    refuse(world, "openai")
    answer = ask(gateway, stream=stream)
    assert_refused_by(answer, "openai")
    assert answer.attempts == ["openai:bad_request"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(chat(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]), id="store"),
        pytest.param(chat(metadata={"file_id": "file-1"}), id="file"),
    ],
)
def test_what_one_provider_keeps_is_asked_of_no_other(world: World, body: Json) -> None:
    refuse(world, "openai")
    answer = ask(world.gateway(HELD), body)
    assert_refused_by(answer, "openai")
    assert asked(world) == ["openai"]


@STREAMS
def test_a_route_can_do_without_second_opinions(world: World, stream: bool) -> None:
    refuse(world, "openai")
    route = {"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": ["openai", "deepseek"]}
    answer = ask(world.gateway({"routes": [{**route, "retry": {"second_opinion": False}}]}), stream=stream)
    assert_refused_by(answer, "openai")
    assert asked(world) == ["openai"]


def test_one_clients_request_holds_nobody_and_different_ones_in_a_row_hold_the_model(world: World) -> None:
    world.fakes["openai"].script(default=SUSPENDED)
    gateway = world.gateway(HELD)
    # The same request again, as a client repeats it, says nothing new.
    for text in ("a", "a", "a", "a", "b", "c"):
        answer = say(gateway, text)
        assert answer.attempts == ["openai:bad_request", "deepseek:answered"], text
    answer = say(gateway, "d")
    assert answer.attempts == ["deepseek:answered"]
    assert answer.headers["x-shunt-degraded"] == "openai:bad_request"
    wait_for(lambda: "is skipped for 300 s: bad_request" in gateway.log(), what="the line in the log")
    assert '(status 400, code "NotToday")' in gateway.log()
    assert "secret prompt" not in gateway.log()


def test_an_answer_in_between_keeps_the_model_in_use(world: World) -> None:
    gateway = world.gateway(HELD)
    for text in ("a", "b", "good", "c", "d", "good", "e"):
        world.fakes["openai"].script(default={"do": "answer"} if text == "good" else SUSPENDED)
        answer = say(gateway, text)
        assert answer.attempts[0].startswith("openai:"), text


def test_what_was_confirmed_often_in_a_row_is_not_asked_again(world: World) -> None:
    refuse(world, "openai", "deepseek")
    gateway = world.gateway(HELD)
    for text in ("a", "b", "c", "d", "e"):
        assert_refused_by(say(gateway, text), "openai")
    assert world.counts() == {"openai": 5, "deepseek": 3, "shareai": 0}


# What may be about the key or the model.

DOUBTFUL = [
    pytest.param(status(403), "bad_key", id="403"),
    pytest.param({"do": "html", "status": 403}, "bad_key", id="firewall"),
    pytest.param(status(404, body={"error": {"message": "No endpoints found that support tool use", "code": 404}}), "no_such_model", id="404"),
    pytest.param(status(405), "no_such_model", id="405"),
    pytest.param(status(410), "no_such_model", id="410"),
    pytest.param(status(412, message="not under these conditions"), "unwilling", id="412"),
    pytest.param(status(423), "unwilling", id="423"),
    pytest.param(status(499), "unwilling", id="499"),
]


@STREAMS
@pytest.mark.parametrize(("step", "outcome"), DOUBTFUL)
def test_a_single_client_holds_neither_key_nor_model(world: World, step: Json, outcome: str, stream: bool) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway({"breaker": {"consecutive_failures": 1, "open": LONG, "max_open": LONG}})
    for text in ("a", "a", "b", "a", "c"):
        answer = say(gateway, text, stream)
        assert_answered_by(answer, "deepseek", stream)
        assert answer.attempts == [f"openai:{outcome}", "deepseek:answered"], text
        assert "x-shunt-degraded" not in answer.headers
    # Three requests in a row, each with another body, are evidence.
    answer = say(gateway, "d", stream)
    assert answer.attempts == ["deepseek:answered"]
    assert answer.headers["x-shunt-degraded"] == f"openai:{outcome}"


def test_an_answer_of_another_model_speaks_for_the_key(world: World) -> None:
    models = {"assistant": "gpt-5.4-mini", "writer": "gpt-5.4"}
    gateway = world.gateway({"providers": {"openai": {"models": models}, "deepseek": {"models": {"*": "deepseek-flash"}}}})
    for text in ("a", "b", "c", "d"):
        world.fakes["openai"].script(default=status(403))
        assert say(gateway, text).attempts == ["openai:bad_key", "deepseek:answered"]
        world.fakes["openai"].script(default={"do": "answer"})
        assert ask(gateway, chat(model="writer")).attempts == ["openai:answered"]


def test_an_endpoint_that_is_missing_holds_no_other(world: World) -> None:
    endpoints = {"chat": CHAT, "responses": "/v1/responses"}
    routes = [{"name": name, "match": {"path": path}, "providers": ["openai", "shareai"]} for name, path in endpoints.items()]
    gateway = world.gateway({"routes": routes})
    world.fakes["openai"].script(default=status(404, "model_not_found"))
    body = {"model": "assistant", "input": "hello"}
    for attempts in (["openai:no_such_model", "shareai:answered"], ["shareai:answered"]):
        assert ask(gateway, body, path=endpoints["responses"]).attempts == attempts
    world.fakes["openai"].script(default={"do": "answer"})
    assert ask(gateway).attempts == ["openai:answered"]


# What is too long.


@STREAMS
def test_a_refusal_of_the_input_says_more_than_a_timeout_elsewhere(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=status(400, "context_length_exceeded", message="too long for openai"))
    for name in ("deepseek", "shareai"):
        world.fakes[name].script(default={"do": "silent"})
    answer = ask(world.gateway({**HELD, "limits": {"first_token": "500ms", "answer": "500ms"}}), stream=stream)
    assert answer.status == 400
    assert (answer.error["code"], answer.error["message"]) == ("context_length_exceeded", "too long for openai")
    assert answer.attempts == ["openai:too_long", "deepseek:too_slow", "shareai:too_slow"]
