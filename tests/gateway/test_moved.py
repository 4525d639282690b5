"""A conversation survives the move: who refuses what was made for a provider that is down is not the last who is asked."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import records
from support import Answer, Json, World, ask, asked, chat
from test_outcomes import BOTH, LONG, assert_answered_by, status

FORMS = pytest.mark.parametrize("form", ["whole", "stream", "complete"])
STREAMS = pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
HELD = {"breaker": {"consecutive_failures": 3, "open": LONG, "max_open": LONG}}
#: Whatever explains the refusal: nothing, a status that is about a tool server, or the words of a vendor about the history.
REFUSALS = {
    "unexplained": status(400, "odd_deepseek", message="deepseek does not like this"),
    "tool_server": status(424, "odd_deepseek", message="deepseek does not like this"),
    "ids_of_calls": status(400, "invalid_function_call", message="Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."),
}
DOWN = status(503)
HISTORY = [
    {"role": "user", "content": "What is the time?"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
]


def refuse(world: World, *names: str) -> None:
    for name in names:
        world.fakes[name].script(default=status(400, f"odd_{name}", message=f"{name} does not like this"))


def say(world: World, form: str = "whole", **changes: Any) -> tuple[Answer, Json]:
    """The conversation that was made for the first provider: the answer, and the audit record."""
    gateway = world.gateway({**HELD, **changes})
    body = {**chat(form != "whole"), "messages": HISTORY}
    headers = {"x-shunt-stream": "complete"} if form == "complete" else {}
    answer = ask(gateway, body, stream=form != "whole", headers=headers)
    (record,) = records(gateway, 1)
    return answer, record


@FORMS
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
@pytest.mark.parametrize("opinions", [True, False], ids=["on", "off"])
def test_the_first_is_down_the_second_refuses_and_the_third_answers(world: World, form: str, refusal: Json, opinions: bool) -> None:
    world.fakes["openai"].script(default=DOWN)
    world.fakes["deepseek"].script(default=refusal)
    answer, record = say(world, form, retry={"second_opinion": opinions})
    assert_answered_by(answer, "shareai", form != "whole")
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:answered"]
    assert world.seen("shareai")[-1]["body"]["messages"] == HISTORY
    assert (record["outcome"], record["provider"], record["second_opinion"]) == ("answered", "shareai", "disproved")


@STREAMS
def test_if_nobody_answers_the_client_gets_the_first_refusal(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=DOWN)
    world.fakes["deepseek"].script(default=status(422, "odd_deepseek", message="deepseek does not like this"))
    world.fakes["shareai"].script(default=DOWN)
    answer, record = say(world, "stream" if stream else "whole")
    assert (answer.status, answer.provider, answer.broken) == (422, "deepseek", None), answer.raw[:300]
    assert (answer.error["code"], answer.error["message"]) == ("odd_deepseek", "deepseek does not like this")
    answer.assert_length()
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:overloaded"]
    assert (record["outcome"], record["status"], record["provider"]) == ("bad_request", 422, "deepseek")
    assert "second_opinion" not in record


@STREAMS
def test_one_more_refusal_ends_it_and_no_other_provider_is_asked(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=DOWN)
    refuse(world, "deepseek", "shareai")
    fourth = {"host": "api.fourth.test", "api_key": "$OPENAI_API_KEY", "models": {"*": "*"}}
    routes = [{"name": "chat", "match": {"path": "/v1/chat/completions"}, "providers": ["openai", "deepseek", "shareai", "fourth"]}]
    answer, record = say(world, "stream" if stream else "whole", providers={"fourth": fourth}, routes=routes)
    assert (answer.status, answer.provider) == (400, "deepseek"), answer.raw[:300]
    assert (answer.error["code"], answer.error["message"]) == ("odd_deepseek", "deepseek does not like this")
    assert answer.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:bad_request"]
    assert (record["outcome"], record["second_opinion"]) == ("bad_request", "confirmed")


def test_who_is_skipped_for_its_health_has_failed_as_well(world: World) -> None:
    world.fakes["openai"].script(default=status(401))
    gateway = world.gateway({**HELD, "retry": {"second_opinion": False}})
    assert_answered_by(ask(gateway), "deepseek", False)
    refuse(world, "deepseek")
    answer = ask(gateway)
    assert_answered_by(answer, "shareai", False)
    assert answer.attempts == ["deepseek:bad_request", "shareai:answered"]
    assert answer.headers["x-shunt-degraded"] == "openai:bad_key"


def test_who_is_skipped_for_its_budget_may_have_made_the_conversation(world: World) -> None:
    priced = {"openai": {"models": {"assistant": {"name": "gpt-5.4-mini", "price": {"input": 1, "output": 1}}}}}
    budgets = [{"name": "b", "match": {"provider": "openai"}, "limit": 0.0000001, "per": "day", "when_spent": "skip"}]
    refuse(world, "deepseek")
    gateway = world.gateway({**HELD, "providers": priced, "budgets": budgets, "retry": {"second_opinion": False}})
    answer = ask(gateway)
    assert_answered_by(answer, "shareai", False)
    assert (answer.attempts, answer.headers["x-shunt-degraded"]) == (["deepseek:bad_request", "shareai:answered"], "openai:budget_spent")


@STREAMS
def test_a_conflict_is_not_repeated_with_the_last_attempt_of_another_provider(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default=status(500))
    world.fakes["deepseek"].script(default=status(409))
    assert_answered_by(say(world, "stream" if stream else "whole")[0], "shareai", stream)


#: Refusals of the answer's limit, and of thoughts that another account made.
PARTICULAR = {
    "limit": status(400, "integer_above_max_value", message="Invalid 'max_tokens': integer above maximum value. Expected a value <= 16384."),
    "range": status(400, "invalid_request_error", message="Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    "thoughts": status(400, "invalid_encrypted_content", message="The encrypted content gAAA...Rg== could not be verified."),
}


@FORMS
@pytest.mark.parametrize("refusal", PARTICULAR.values(), ids=list(PARTICULAR))
def test_what_another_provider_may_accept_is_asked_of_it_and_holds_nobody(world: World, form: str, refusal: Json) -> None:
    world.fakes["openai"].script(default=refusal)
    gateway = world.gateway({**HELD, "retry": {"second_opinion": False}})
    headers = {"x-shunt-stream": "complete"} if form == "complete" else {}
    stream = form != "whole"
    for text in "abcd":
        answer = ask(gateway, chat(stream, text=text, max_tokens=100_000), stream=stream, headers=headers)
        assert_answered_by(answer, "deepseek", stream)
        assert answer.attempts == ["openai:bad_request", "deepseek:answered"], text
    assert asked(world).count("deepseek") == 4
