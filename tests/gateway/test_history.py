"""A conversation goes on at another vendor: what the models before it left in the history is made fit for who is asked next."""

from __future__ import annotations

from typing import Any, Optional

import httpx
import pytest

from support import CHAT, Answer, Gateway, Json, World, ask

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

#: What skips the check of a signature, in Google's documentation.
SKIPPED: Json = {"google": {"thought_signature": "skip_thought_signature_validator"}}
SIGNED: Json = {"google": {"thought_signature": "CrICAdHtim827fQ"}}
#: Whom another than the strict one goes to is told by what it refuses.
ALONE: Json = {"second_opinion": False}


def call(number: int, **more: Any) -> Json:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "now", "arguments": "{}"}, **more}


def result(number: int) -> Json:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": "noon"}


def history(*, extra: Optional[Json] = None, **thoughts: Any) -> Json:
    """Two steps with calls, the first of them with two at once."""
    signed = {} if extra is None else {"extra_content": extra}
    return {
        "messages": [
            {"role": "user", "content": "What time is it, and \"extra_content\"?"},
            {"role": "assistant", "content": None, **thoughts, "tool_calls": [call(1, **signed), call(2)]},
            result(1),
            result(2),
            {"role": "assistant", **thoughts, "content": "Once more.", "tool_calls": [call(3, **signed)]},
            result(3),
        ]
    }


def serve(world: World, order: list[str], providers: Json) -> Gateway:
    route = {"name": "chat", "match": {"path": CHAT}, "providers": order}
    return world.gateway({"providers": providers, "routes": [route], "retry": ALONE})


def say(gateway: Gateway, conversation: Json, stream: bool) -> Answer:
    return ask(gateway, {"model": "assistant", "stream": stream, **conversation}, stream=stream)


def sent(world: World, provider: str) -> list[Json]:
    """The messages that the provider saw last."""
    found: list[Json] = world.log(provider)[-1]["body"]["messages"]
    return found


def assert_moved(answer: Answer, first: str, second: str, stream: bool) -> None:
    assert answer.status == 200 and answer.provider == second, answer.raw[:300]
    assert answer.attempts == [f"{first}:overloaded", f"{second}:answered"]
    if stream:
        answer.assert_whole_stream()


@BOTH
def test_ids_of_calls_are_made_fit_for_mistral(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["shareai"].lacks("odd_ids", "thoughts", "extra_content")
    order = ["openai", "shareai"]
    conversation = history(extra=SIGNED, reasoning_content="r", reasoning="r", reasoning_details=[{"type": "reasoning.text", "text": "r"}])
    refused = say(serve(world, order, {}), conversation, stream)
    assert refused.status == 400 and refused.attempts == ["openai:overloaded", "shareai:bad_request"]
    gateway = serve(world, order, {"shareai": {"dialect": "mistral"}})
    answers = [say(gateway, conversation, stream) for _ in range(2)]
    for answer in answers:
        assert_moved(answer, "openai", "shareai", stream)
    # Who failed has seen the history as the client sent it.
    assert sent(world, "openai") == conversation["messages"]
    assert [one["body"]["messages"] for one in world.seen("shareai")[-2:]] == [sent(world, "shareai")] * 2, "the same ids again"
    calls = [one["id"] for message in sent(world, "shareai") for one in message.get("tool_calls", [])]
    results = [one["tool_call_id"] for one in sent(world, "shareai") if one["role"] == "tool"]
    assert calls == results and len(set(calls)) == 3
    plain = history()["messages"]
    for message in plain:
        for one in message.get("tool_calls", []):
            one["id"] = calls[int(one["id"][-1]) - 1]
        if "tool_call_id" in message:
            message["tool_call_id"] = calls[int(message["tool_call_id"][-1]) - 1]
    assert sent(world, "shareai") == plain, "and nothing else changes"


@BOTH
def test_calls_of_another_model_are_signed_for_gemini(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["shareai"].lacks("unsigned_calls", "thoughts")
    gemini: Json = {"models": {"assistant": "gemini-3-pro"}}
    order = ["openai", "shareai"]
    refused = say(serve(world, order, {"shareai": gemini}), history(thinking_blocks=[]), stream)
    assert refused.status == 400 and refused.attempts == ["openai:overloaded", "shareai:bad_request"]
    gateway = serve(world, order, {"shareai": {**gemini, "dialect": "google"}})
    assert_moved(say(gateway, history(thinking_blocks=[], thought="t"), stream), "openai", "shareai", stream)
    assert sent(world, "shareai") == history(extra=SKIPPED)["messages"]
    # Its own signatures come back to it.
    assert_moved(say(gateway, history(extra=SIGNED), stream), "openai", "shareai", stream)
    assert sent(world, "shareai") == history(extra=SIGNED)["messages"]


@BOTH
def test_what_gemini_signed_does_not_go_to_who_refuses_it(world: World, stream: bool) -> None:
    world.fakes["shareai"].script(default={"do": "status", "status": 503})
    world.fakes["openai"].lacks("extra_content")
    order = ["shareai", "openai"]
    # Nobody is said to take it, so nobody is kept from it.
    refused = say(serve(world, order, {}), history(extra=SIGNED), stream)
    assert refused.status == 400 and refused.attempts == ["shareai:overloaded", "openai:bad_request"]
    for dialects in (
        {"shareai": {"dialect": "google"}},
        {"openai": {"dialect": {"messages": {"extra_content": "drop"}}}},
    ):
        assert_moved(say(serve(world, order, dialects), history(extra=SIGNED), stream), "shareai", "openai", stream)
        assert sent(world, "openai") == history()["messages"]
        assert sent(world, "shareai")[1]["tool_calls"][0]["extra_content"] == SIGNED


@BOTH
def test_a_thought_in_the_content_does_not_go_to_who_refuses_thoughts(world: World, stream: bool) -> None:
    world.fakes["openai"].lacks("thoughts")
    thought: Json = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    text: Json = {"type": "text", "text": "Noon."}
    question: Json = {"role": "user", "content": "And now?"}

    def told(*parts: Json) -> Json:
        return {"messages": [question, {"role": "assistant", "content": list(parts)}, question]}

    order = ["openai"]
    refused = say(serve(world, order, {}), told(thought, text), stream)
    assert refused.status == 400
    gateway = serve(world, order, {"openai": {"dialect": {"messages": {"reasoning": "drop"}}}})
    assert say(gateway, told(thought, text), stream).status == 200
    assert sent(world, "openai") == told(text)["messages"]


# The Responses API.

RESPONSES = "/v1/responses"
ENCRYPTED: Json = {"store": False, "include": ["reasoning.encrypted_content"]}


def serve_responses(world: World, order: list[str]) -> Gateway:
    """The model `there` has the providers in the other order."""
    routes = [
        {"name": "there", "match": {"path": RESPONSES, "model": "there"}, "providers": order[::-1]},
        {"name": "here", "match": {"path": RESPONSES}, "providers": order},
    ]
    models: Json = {"models": {"assistant": "gpt-5.4-mini", "there": "gpt-5.4-mini"}}
    return world.gateway({"providers": {"openai": models}, "routes": routes, "retry": ALONE})


def respond(gateway: Gateway, items: list[Json], stream: bool, **more: Any) -> Answer:
    return ask(gateway, {"model": "assistant", "input": items, "stream": stream, **more}, path=RESPONSES, stream=stream)


def output(answer: Answer) -> list[Json]:
    assert answer.status == 200, answer.raw[:300]
    response = answer.events[-1]["response"] if answer.events else answer.json
    found: list[Json] = response["output"]
    return found


def received(world: World, provider: str) -> list[str]:
    return [item.get("type", "message") for item in world.log(provider)[-1]["body"]["input"]]


QUESTION: Json = {"role": "user", "content": "And now?"}


@BOTH
@pytest.mark.parametrize("more", [ENCRYPTED, {}], ids=["encrypted", "stored"])
def test_thoughts_go_only_to_the_account_that_made_them(world: World, more: Json, stream: bool) -> None:
    for name in ("openai", "shareai"):
        world.fakes[name].script(default={"do": "reasoning"})
    gateway = serve_responses(world, ["openai", "shareai"])
    mine = output(respond(gateway, [QUESTION], stream, **more))
    theirs = output(respond(gateway, [QUESTION], stream, **more, model="there"))
    assert [item["type"] for item in mine + theirs] == ["reasoning", "message"] * 2
    if not more:
        # The client names what is stored, and no more of it.
        for item in (mine[0], theirs[0]):
            item.pop("content")
    history = [QUESTION, *mine, QUESTION, *theirs, QUESTION]
    for model, provider, stays in (("assistant", "openai", mine[0]), ("there", "shareai", theirs[0])):
        answer = respond(gateway, history, stream, **more, model=model)
        assert (answer.status, answer.attempts) == (200, [f"{provider}:answered"]), answer.raw[:300]
        items = world.log(provider)[-1]["body"]["input"]
        assert [item for item in items if item.get("type") == "reasoning"] == [stays]
        assert len(items) == len(history) - 1
    # Whoever goes on for another one does so without the other's thoughts.
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    moved = respond(gateway, [QUESTION, *mine, QUESTION], stream, **more)
    assert (moved.status, moved.attempts) == (200, ["openai:overloaded", "shareai:answered"]), moved.raw[:300]
    assert received(world, "openai") == ["message", "reasoning", "message", "message"]
    assert received(world, "shareai") == ["message", "message", "message"]


@BOTH
def test_thoughts_that_nobody_remembers_go_to_the_first_alone(world: World, stream: bool) -> None:
    # The conversation began without the gateway.
    first = world.fakes["openai"]
    first.script({"do": "reasoning"}, default={"do": "status", "status": 503})
    body = {"model": "gpt-5.4-mini", "input": [QUESTION], **ENCRYPTED}
    key = {"authorization": "Bearer sk-openai"}
    begun = httpx.post(f"http://127.0.0.1:{first.port}{RESPONSES}", json=body, headers=key, trust_env=False).json()["output"]
    gateway = serve_responses(world, ["openai", "shareai"])
    answer = respond(gateway, [QUESTION, *begun, QUESTION], stream, **ENCRYPTED)
    assert (answer.status, answer.attempts) == (200, ["openai:overloaded", "shareai:answered"]), answer.raw[:300]
    assert received(world, "openai") == ["message", "reasoning", "message", "message"]
    assert received(world, "shareai") == ["message", "message", "message"]
