"""The portability guard: a conversation goes to who can go on with it. Each rule has one that is refused without the guard."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from accounts import records
from support import CHAT, Answer, Gateway, Json, World, ask, asked

USER: Json = {"role": "user", "content": "Go on."}
PICTURE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOUND: Json = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
FILE: Json = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}}
TOOL: Json = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
RESULT: Json = {"role": "tool", "tool_call_id": "call_1", "content": "noon"}
SCHEMA: Json = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def talk(*messages: Json, **more: Any) -> Json:
    return {"messages": list(messages), **more}


def saying(*parts: Json) -> Json:
    return talk({"role": "user", "content": [{"type": "text", "text": "What is it? \"image_url\""}, *parts]})


#: What a model may lack, and a conversation that needs it.
CONVERSATIONS: dict[str, tuple[str, Json]] = {
    "picture": ("images", saying(PICTURE)),
    "sound": ("audio", saying(SOUND)),
    "spoken_answer": ("audio", talk(USER, modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})),
    "file": ("files", saying(FILE)),
    "tools": ("tools", talk(USER, tools=[TOOL])),
    "history_of_tools": ("tools", talk(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT)),
    "json": ("json_object", talk(USER, response_format={"type": "json_object"})),
    "schema": ("json_schema", talk(USER, response_format=SCHEMA)),
    "prefill": ("prefill", talk(USER, {"role": "assistant", "content": "Once upon"})),
}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("feature, conversation", CONVERSATIONS.values(), ids=list(CONVERSATIONS))


def model(name: str, **more: Any) -> Json:
    return {"models": {"assistant": {"name": name, **more}}}


#: What a provider refuses is told to the client, and not asked of another one: these scenarios are about what is known beforehand.
ALONE: Json = {"second_opinion": False}


def serve(
    world: World,
    providers: Optional[Json] = None,
    order: tuple[str, ...] = ("openai", "deepseek", "shareai"),
    **more: Any,
) -> Gateway:
    # The contexts of the base configuration are small.
    settings = {"openai": model("gpt-5.4-mini", context=1_000_000), "deepseek": model("deepseek-flash", context=1_000_000)}
    for name, changes in (providers or {}).items():
        for key, value in changes.items():
            old = settings[name].get("models", {}).get("assistant", {})
            settings[name][key] = {"assistant": {**old, **value["assistant"]}} if key == "models" else value
    route = {"name": "chat", "match": {"path": CHAT}, "providers": list(order), **more.pop("route", {})}
    return world.gateway({"providers": settings, "routes": [route], "retry": ALONE, **more})


def say(gateway: Gateway, conversation: Json, stream: bool = False) -> Answer:
    return ask(gateway, {"model": "assistant", "stream": stream, **conversation}, stream=stream)


def assert_answered(answer: Answer, provider: str, stream: bool) -> None:
    assert answer.status == 200 and answer.provider == provider, answer.raw[:300]
    if stream:
        answer.assert_whole_stream()
    assert answer.text


@BOTH
@EACH
def test_who_lacks_what_a_conversation_needs_is_passed_over(
    world: World, feature: str, conversation: Json, stream: bool
) -> None:
    world.fakes["openai"].lacks(feature)
    # Nothing is said of the model: it is asked, and refuses.
    refused = say(serve(world), conversation, stream)
    assert refused.status == 400 and refused.attempts == ["openai:bad_request"]
    guarded = serve(world, {"openai": model("gpt-5.4-mini", lacks=[feature])})
    answer = say(guarded, conversation, stream)
    assert_answered(answer, "deepseek", stream)
    assert answer.attempts == ["deepseek:answered"] and answer.headers["x-shunt-degraded"] == f"openai:{feature}"
    (record,) = records(guarded, 1)
    assert record["left_out"] == {"openai": feature} and record["plan"] == ["openai", "deepseek", "shareai"]
    # What it does take, it is asked.
    assert_answered(say(guarded, talk(USER), stream), "openai", stream)
    assert asked(world)[-2:] == ["deepseek", "openai"]


@EACH
def test_a_conversation_moves_past_who_cannot_go_on_with_it(world: World, feature: str, conversation: Json) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["deepseek"].lacks(feature)
    gateway = serve(world, {"deepseek": model("deepseek-flash", lacks=[feature])})
    for stream in (False, True):
        answer = say(gateway, conversation, stream)
        assert_answered(answer, "shareai", stream)
        assert answer.attempts == ["openai:overloaded", "shareai:answered"]
    assert world.counts()["deepseek"] == 0
    for record in records(gateway, 2):
        assert record["left_out"] == {"deepseek": feature}


LONG = talk({"role": "user", "content": "many words and more of them, " * 400})


@BOTH
def test_who_has_no_room_is_not_asked(world: World, stream: bool) -> None:
    for name in ("openai", "deepseek"):
        world.fakes[name].lacks(context=1000)
    contexts = {"openai": model("gpt-5.4-mini", context=1000), "deepseek": model("deepseek-flash", context=1000)}
    # Said to have room, the first is asked in vain. The second one is no larger; the third may be.
    moved = say(serve(world), LONG, stream)
    assert_answered(moved, "shareai", stream)
    assert moved.attempts == ["openai:too_long", "shareai:answered"]
    gateway = serve(world, contexts)
    answer = say(gateway, LONG, stream)
    assert_answered(answer, "shareai", stream)
    assert answer.headers["x-shunt-degraded"] == "openai:context,deepseek:context"
    # What the answer may have needs room as well.
    answer = say(gateway, talk(USER, max_tokens=1200), stream)
    assert_answered(answer, "shareai", stream)
    assert_answered(say(gateway, talk(USER, max_tokens=100), stream), "openai", stream)
    (first, second, third) = records(gateway, 3)
    assert first["left_out"] == second["left_out"] == {"openai": "context", "deepseek": "context"}
    assert "left_out" not in third


# What is put right.

HISTORY = talk(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT, tools=[TOOL])
THOUGHT = talk(
    USER, {"role": "assistant", "reasoning_content": "Let me look.", "content": None, "tool_calls": [CALL]}, RESULT, tools=[TOOL]
)


@BOTH
def test_a_tool_conversation_that_began_elsewhere_goes_on_without_thinking(world: World, stream: bool) -> None:
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["deepseek"].lacks("bare_calls")
    moved = say(serve(world), HISTORY, stream)
    assert moved.attempts == ["openai:overloaded", "deepseek:bad_request", "shareai:answered"]
    gateway = serve(world, {"deepseek": {"dialect": "deepseek"}})
    assert_answered(say(gateway, HISTORY, stream), "deepseek", stream)
    assert_answered(say(gateway, {**HISTORY, "thinking": {"type": "enabled"}}, stream), "deepseek", stream)
    # Its own conversations go on with their thoughts.
    assert_answered(say(gateway, THOUGHT, stream), "deepseek", stream)
    bodies = [entry["body"] for entry in world.seen("deepseek")][-3:]
    assert [body.get("thinking") for body in bodies] == [{"type": "disabled"}, {"type": "disabled"}, None]
    assert bodies[2]["messages"] == THOUGHT["messages"]


@BOTH
def test_thoughts_do_not_go_to_who_refuses_them(world: World, stream: bool) -> None:
    world.fakes["openai"].lacks("reasoning")
    refused = say(serve(world), THOUGHT, stream)
    assert refused.status == 400 and refused.provider == "openai"
    gateway = serve(world, {"openai": {"dialect": {"messages": {"reasoning": "drop"}}}})
    assert_answered(say(gateway, THOUGHT, stream), "openai", stream)
    entry = world.seen("openai")[-1]
    without = [{key: value for key, value in one.items() if key != "reasoning_content"} for one in THOUGHT["messages"]]
    assert entry["body"]["messages"] == without and entry["body"]["tools"] == [TOOL]


@BOTH
def test_a_developer_is_a_system_where_that_role_is_unknown(world: World, stream: bool) -> None:
    conversation = talk({"role": "developer", "content": "Be brief."}, USER)
    world.fakes["deepseek"].lacks("developer")
    order = ("deepseek", "openai")
    assert say(serve(world, order=order), conversation, stream).status == 400
    gateway = serve(world, {"deepseek": {"dialect": "deepseek"}}, order)
    assert_answered(say(gateway, conversation, stream), "deepseek", stream)
    assert [one["role"] for one in world.seen("deepseek")[-1]["body"]["messages"]] == ["system", "user"]


# A guess beats a certain failure.


@BOTH
def test_when_nobody_is_known_to_take_it_the_first_is_asked_all_the_same(world: World, stream: bool) -> None:
    lacking = {"openai": model("gpt-5.4-mini", lacks=["images"]), "deepseek": model("deepseek-flash", lacks=["images"])}
    gateway = serve(world, lacking, ("openai", "deepseek"))
    answer = say(gateway, saying(PICTURE), stream)
    assert_answered(answer, "openai", stream)
    assert "x-shunt-degraded" not in answer.headers
    world.fakes["openai"].lacks("images")
    refused = say(gateway, saying(PICTURE), stream)
    assert refused.status == 400 and "image_url" in refused.error["message"], "in the vendor's words"


@BOTH
def test_who_takes_it_is_asked_even_while_its_breaker_is_open(world: World, stream: bool) -> None:
    world.fakes["deepseek"].script({"do": "status", "status": 503}, default={"do": "answer"})
    world.fakes["openai"].lacks("images")
    gateway = serve(
        world,
        {"openai": model("gpt-5.4-mini", lacks=["images"])},
        ("openai", "deepseek"),
        breaker={"consecutive_failures": 1, "open": "60s", "max_open": "60s"},
    )
    failed = say(gateway, saying(PICTURE), stream)
    assert failed.status == 503 and failed.attempts == ["deepseek:overloaded"]
    assert_answered(say(gateway, saying(PICTURE), stream), "deepseek", stream)
    assert world.counts()["openai"] == 0


@BOTH
def test_no_policy_picks_who_cannot_go_on(world: World, stream: bool) -> None:
    usd = {"gpt-5.4-mini": {"input": 1, "output": 1}, "deepseek-flash": {"input": 2, "output": 2}, "assistant": {"input": 3, "output": 3}}
    gateway = serve(
        world, {"openai": model("gpt-5.4-mini", lacks=["images"])}, route={"policy": {"type": "cost"}}, prices={"*": usd}
    )
    assert_answered(say(gateway, talk(USER), stream), "openai", stream)
    assert_answered(say(gateway, saying(PICTURE), stream), "deepseek", stream)


# The longest answer of a model.

LONGEST = {"openai": model("gpt-5.4-mini", max_output=8192), "deepseek": model("deepseek-flash", max_output=4096)}


@BOTH
def test_who_gives_only_shorter_answers_is_passed_over(world: World, stream: bool) -> None:
    gateway = serve(world, LONGEST)
    for limits, provider, left_out in (
        ({"max_tokens": 8192}, "openai", None),
        ({"max_completion_tokens": 8193}, "shareai", "openai:max_output,deepseek:max_output"),
        ({"max_tokens": 5, "max_completion_tokens": 100_000}, "shareai", "openai:max_output,deepseek:max_output"),
        ({}, "openai", None),
    ):
        answer = say(gateway, talk(USER, **limits), stream)
        assert_answered(answer, provider, stream)
        assert answer.headers.get("x-shunt-degraded") == left_out and "x-shunt-adapted" not in answer.headers
        seen = world.seen(provider)[-1]["body"]
        assert {name: value for name, value in seen.items() if name.startswith("max_")} == limits


@BOTH
def test_a_route_may_lower_the_limit_for_whoever_is_asked(world: World, stream: bool) -> None:
    gateway = serve(world, LONGEST, route={"limits": "clamp"})
    limits = {"max_tokens": 100_000, "max_completion_tokens": 5000}
    answer = say(gateway, talk(USER, **limits), stream)
    assert_answered(answer, "openai", stream)
    assert answer.headers["x-shunt-adapted"] == "max_tokens=8192" and "x-shunt-degraded" not in answer.headers
    world.fakes["openai"].script({"do": "status", "status": 503}, default={"do": "answer"})
    moved = say(gateway, talk(USER, **limits), stream)
    assert_answered(moved, "deepseek", stream)
    assert moved.headers["x-shunt-adapted"] == "max_tokens=4096,max_completion_tokens=4096"
    # Who gives any length, or is asked for none, gets what the client sent.
    unlimited = say(gateway, talk(USER), stream)
    assert_answered(unlimited, "openai", stream)
    assert "x-shunt-adapted" not in unlimited.headers
    bodies = [entry["body"] for name in ("openai", "deepseek") for entry in world.seen(name)]
    told = [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in bodies]
    assert told == [(8192, 5000), (8192, 5000), (None, None), (4096, 4096)]
    first, second, third = records(gateway, 3)
    assert (first["adapted"], second["adapted"]) == ("max_tokens=8192", "max_tokens=4096,max_completion_tokens=4096")
    assert "adapted" not in third


def test_the_limit_of_a_response_is_lowered_too(world: World) -> None:
    routes = [{"name": "r", "match": {"path": "/v1/responses"}, "providers": ["openai"], "limits": "clamp"}]
    gateway = world.gateway({"providers": {"openai": LONGEST["openai"]}, "routes": routes})
    answer = ask(gateway, {"model": "assistant", "input": "hello", "max_output_tokens": 9000}, path="/v1/responses")
    assert answer.status == 200 and answer.headers["x-shunt-adapted"] == "max_output_tokens=8192"
    assert world.log("openai")[-1]["body"]["max_output_tokens"] == 8192


SHOT = {"type": "computer_screenshot", "image_url": "data:image/png;base64,iVBORw0KGgo="}
#: The history of a response, and what a model must have to go on with it.
ITEMS: dict[str, tuple[str, Json]] = {
    "list": ("images", {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": SHOT["image_url"]}]}),
    "file": ("files", {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_file", "file_data": "JVBERi0="}]}),
    "screenshot": ("images", {"type": "computer_call_output", "call_id": "c", "output": SHOT}),
    "search": ("tools", {"type": "web_search_call", "id": "ws_1", "status": "completed"}),
}


@pytest.mark.parametrize("feature, item", ITEMS.values(), ids=list(ITEMS))
def test_the_result_of_a_tool_goes_to_who_can_read_it(world: World, feature: str, item: Json) -> None:
    routes = [{"name": "r", "match": {"path": "/v1/responses"}, "providers": ["openai", "shareai"]}]
    gateway = world.gateway({"providers": {"openai": model("gpt-5.4-mini", lacks=[feature])}, "routes": routes})
    body = {"model": "assistant", "input": [item, {"role": "user", "content": "Go on."}]}
    answer = ask(gateway, body, path="/v1/responses")
    assert (answer.status, answer.provider, answer.headers["x-shunt-degraded"]) == (200, "shareai", f"openai:{feature}")
    assert world.log("shareai")[-1]["body"]["input"] == body["input"] and world.log("openai") == []
    assert ask(gateway, {"model": "assistant", "input": "hello"}, path="/v1/responses").provider == "openai"
