"""Sixteen faults of the first of two providers: what reaches the client is right, or visibly is not an answer.

With `complete` every fault ends in the right answer, or in the refusal that the client has earned. A stream that is released at its
first token cannot be taken back: a fault behind that ends it with an error or by a broken connection, never as if it were whole.
Nothing is configured about the models, not even their context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from support import CHAT, Answer, Gateway, Json, World, ask, chat

#: Between the events of a stream: what comes before the fault has left the provider by then.
GAP = 0.02
RIGHT, REFUSED, BROKEN, ERROR_EVENT = "right", "refused", "broken", "error_event"


@dataclass(frozen=True)
class Fault:
    """What the first provider does, request by request, and what a live stream comes to."""

    name: str
    steps: list[Json]
    #: What it does after the steps.
    default: Json = field(default_factory=lambda: {"do": "answer"})
    live: str = RIGHT
    complete: str = RIGHT
    #: What the second provider does not take.
    lacks: tuple[str, ...] = ()
    requests: int = 1


def always(name: str, step: Json, **more: Any) -> Fault:
    return Fault(name, [], step, **more)


def status(status: int, **more: Any) -> Json:
    return {"do": "status", "status": status, **more}


FAULTS = [
    Fault("429_once", [status(429)]),
    always("429_for_good", status(429)),
    Fault("500_once", [status(500)]),
    always("503", status(503)),
    always("reset", {"do": "reset_before_headers"}),
    always("silence", {"do": "silent"}),
    always("slow_first_token", {"do": "comments", "for": 3, "then": {"do": "answer"}}),
    always("cut", {"do": "cut", "after": 3, "gap": GAP}, live=BROKEN),
    always("stall", {"do": "stall", "after": 3, "gap": GAP}, live=BROKEN),
    always("extra_broken_chunk", {"do": "malformed_event", "after": 3, "gap": GAP}, live=ERROR_EVENT),
    always("no_done", {"do": "no_done"}),
    always("context_length_exceeded", status(400, code="context_length_exceeded")),
    always("content_filter", status(400, code="content_filter", message="Not this."), live=REFUSED, complete=REFUSED),
    always("cut_and_the_fallback_refuses_a_prefill", {"do": "cut", "after": 3, "gap": GAP}, live=BROKEN, lacks=("prefill",)),
    Fault("flapping", [status(503), {"do": "answer"}, status(500), {"do": "reset_before_headers"}, {"do": "answer"}], requests=6),
    always("503_and_the_next_names_another_model", status(503)),
]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.name)
def fault(request: pytest.FixtureRequest, world: World) -> Fault:
    found: Fault = request.param
    world.fakes["openai"].script(*found.steps, default=found.default)
    world.fakes["deepseek"].lacks(*found.lacks)
    return found


def gateway_of_two(world: World) -> Gateway:
    models: Json = {
        "openai": {"models": {"assistant": "gpt-5.4-mini"}},
        "deepseek": {"models": {"assistant": "deepseek-flash"}},
    }
    route = {"name": "chat", "match": {"path": CHAT, "model": "*"}, "providers": ["openai", "deepseek"]}
    return world.gateway({"providers": models, "routes": [route], "limits": {"first_token": "1s", "answer": "1s"}}, idle=2)


def assert_ends(answer: Answer, how: str) -> None:
    """What the client got is what it may get; whatever text it has is of one provider and has no hole."""
    seen = (answer.status, answer.attempts, answer.broken, answer.raw[-600:])
    if how == REFUSED:
        assert (answer.status, answer.error["code"], answer.error["message"]) == (400, "content_filter", "Not this."), seen
        return
    assert answer.status == 200, seen
    whole = f"Hello from {answer.provider}."
    if how == RIGHT:
        answer.assert_whole_stream()
        assert answer.text == whole, seen
        return
    assert b"[DONE]" not in answer.raw, seen
    events = answer.events
    if how == ERROR_EVENT:
        assert answer.broken is None, seen
        assert set(events.pop()["error"]) == {"message", "type", "param", "code"}, seen
    else:
        assert answer.broken, seen
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))
    assert answer.provider == "openai" and text and whole.startswith(text), seen
    assert not any(choice.get("finish_reason") for event in events for choice in event.get("choices", [])), seen


def assert_seen_as_sent(world: World) -> None:
    """Each provider got the conversation of the client, with its own name for the model and nothing of an answer."""
    for name, model in (("openai", "gpt-5.4-mini"), ("deepseek", "deepseek-flash")):
        for seen in world.seen(name):
            assert (seen["body"]["model"], seen["body"]["messages"]) == (model, chat()["messages"])
    assert world.seen("shareai") == []


def test_a_stream_that_is_released_when_it_is_complete_ends_in_the_right_answer(world: World, fault: Fault) -> None:
    gateway = gateway_of_two(world)
    for _ in range(fault.requests):
        assert_ends(ask(gateway, stream=True, headers={"x-shunt-stream": "complete"}), fault.complete)
    assert_seen_as_sent(world)


def test_a_stream_that_is_released_at_its_first_token_is_right_or_visibly_is_not(world: World, fault: Fault) -> None:
    gateway = gateway_of_two(world)
    for _ in range(fault.requests):
        assert_ends(ask(gateway, stream=True), fault.live)
    assert_seen_as_sent(world)
