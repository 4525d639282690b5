"""Through the eyes of real clients: the official `openai` package, and HTTP/2 on either side of the gateway."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from support import CHAT, CLIENT_KEY, Gateway, Json, World, ask, asked

MESSAGES: Any = [{"role": "user", "content": "hello"}]
OPTIONS: Json = {"api_key": CLIENT_KEY, "max_retries": 0, "timeout": 20}


@pytest.fixture
def gateway(world: World) -> Gateway:
    routes = [{"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}]
    return world.gateway({"routes": routes})


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.url + "/v1", **OPTIONS) as client:
        yield client


def fails(status: int, **more: Any) -> Json:
    return {"do": "status", "status": status, **more}


#: The first provider's behaviour, and who answers.
FIRST = [
    pytest.param({"do": "answer"}, "openai", id="healthy"),
    pytest.param(fails(503), "deepseek", id="overloaded"),
    pytest.param({"do": "error_json_200", "code": "overloaded"}, "deepseek", id="error_in_200"),
    pytest.param({"do": "silent"}, "deepseek", id="silent"),
]


@pytest.mark.parametrize(("step", "answerer"), FIRST)
def test_the_sync_client_gets_an_answer(world: World, client: OpenAI, step: Json, answerer: str) -> None:
    world.fakes["openai"].script(step)
    raw = client.chat.completions.with_raw_response.create(model="assistant", messages=MESSAGES)
    completion = raw.parse()
    assert completion.choices[0].message.content == f"Hello from {answerer}."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage and completion.usage.total_tokens
    assert raw.headers["x-shunt-provider"] == answerer
    assert asked(world) == list(dict.fromkeys(["openai", answerer]))


@pytest.mark.parametrize(("step", "answerer"), FIRST)
def test_the_sync_client_gets_a_stream(world: World, client: OpenAI, step: Json, answerer: str) -> None:
    world.fakes["openai"].script(step)
    stream = client.chat.completions.create(
        model="assistant", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == f"Hello from {answerer}."
    assert chunks[-1].usage and chunks[-1].usage.total_tokens
    assert asked(world) == list(dict.fromkeys(["openai", answerer]))


@pytest.mark.parametrize(("step", "answerer"), FIRST)
def test_the_stream_helper_puts_the_answer_together(world: World, client: OpenAI, step: Json, answerer: str) -> None:
    world.fakes["openai"].script(step)
    with client.chat.completions.stream(model="assistant", messages=MESSAGES) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == f"Hello from {answerer}."
    assert "".join(deltas) == f"Hello from {answerer}."
    assert asked(world) == list(dict.fromkeys(["openai", answerer]))


def test_the_stream_helper_puts_a_tool_call_together(world: World, client: OpenAI) -> None:
    class Weather(BaseModel):
        city: str

    world.fakes["openai"].script(fails(503))
    world.fakes["deepseek"].script({"do": "tool_call"})
    tool = openai.pydantic_function_tool(Weather, name="get_weather")
    with client.chat.completions.stream(model="assistant", messages=MESSAGES, tools=[tool]) as stream:
        completion = stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Weather(city="Paris")
    assert asked(world) == ["openai", "deepseek"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("step", "answerer"), FIRST)
def test_the_async_client_gets_an_answer(
    world: World, gateway: Gateway, step: Json, answerer: str, stream: bool
) -> None:
    world.fakes["openai"].script(step)

    async def text() -> str:
        async with AsyncOpenAI(base_url=gateway.url + "/v1", **OPTIONS) as client:
            if not stream:
                completion = await client.chat.completions.create(model="assistant", messages=MESSAGES)
                return completion.choices[0].message.content or ""
            chunks = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
            deltas = [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
            return "".join(deltas)

    assert asyncio.run(text()) == f"Hello from {answerer}."
    assert asked(world) == list(dict.fromkeys(["openai", answerer]))


# Errors are the package's own exceptions.


@dataclass(frozen=True)
class Raised:
    name: str
    step: Json
    error: type[openai.APIStatusError]
    code: Any
    model: str = "assistant"
    asked: tuple[str, ...] = ("openai", "deepseek")


RAISED = [
    Raised("unknown_model", {"do": "answer"}, openai.NotFoundError, "model_not_found", "gpt-2", ()),
    Raised("rate_limited", fails(429), openai.RateLimitError, "all_providers_failed"),
    Raised("overloaded", fails(503), openai.InternalServerError, "all_providers_failed"),
    Raised("bad_key", fails(401), openai.AuthenticationError, "all_providers_failed"),
    Raised("bad_request", fails(400, code="invalid_value"), openai.BadRequestError, "invalid_value"),
    Raised("unprocessable", fails(422, code="odd"), openai.UnprocessableEntityError, "odd"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", RAISED, ids=lambda case: case.name)
def test_an_error_is_the_packages_own_exception(world: World, client: OpenAI, case: Raised, stream: bool) -> None:
    for name in ("openai", "deepseek"):
        world.fakes[name].script(default=case.step)
    with pytest.raises(case.error) as caught:
        client.chat.completions.create(model=case.model, messages=MESSAGES, stream=stream)
    assert (type(caught.value), caught.value.code) == (case.error, case.code)
    assert tuple(asked(world)) == case.asked


def test_a_stream_that_ends_unfinished_raises_in_the_client(world: World, client: OpenAI) -> None:
    world.fakes["openai"].script({"do": "clean_cut", "after": 3, "gap": 0.05})
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert caught.value.code == "stream_truncated"
    assert text and "Hello from openai.".startswith(text)
    assert asked(world) == ["openai"]


# HTTP/1.1 and HTTP/2, on both sides.

BEFORE_RELEASE = [
    pytest.param({"do": "answer"}, ["openai:answered"], id="healthy"),
    pytest.param(fails(503), ["openai:overloaded", "deepseek:answered"], id="overloaded"),
    pytest.param(fails(500), ["openai:server_error"] * 2 + ["deepseek:answered"], id="server_error"),
    pytest.param({"do": "reset_before_headers"}, ["openai:unreachable", "deepseek:answered"], id="reset"),
    pytest.param({"do": "silent"}, ["openai:too_slow", "deepseek:answered"], id="silent"),
    pytest.param({"do": "error_json_200"}, ["openai:server_error"] * 2 + ["deepseek:answered"], id="error_in_200"),
    pytest.param({"do": "cut", "after": 0}, ["openai:truncated", "deepseek:answered"], id="cut"),
]


@pytest.fixture(params=["provider_h1", "provider_h2"])
def any_world(request: pytest.FixtureRequest) -> World:
    """A world whose providers speak HTTP/1.1, and one whose providers speak HTTP/2."""
    name = {"provider_h1": "world", "provider_h2": "world2"}[request.param]
    world: World = request.getfixturevalue(name)
    return world


def assert_protocol(world: World) -> None:
    for name in world.fakes:
        for entry in world.fakes[name].log():
            assert entry["http_version"] == ("HTTP/2" if world.http2 else "HTTP/1.1")


@pytest.mark.parametrize("http2", [False, True], ids=["client_h1", "client_h2"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("step", "attempts"), BEFORE_RELEASE)
def test_a_fault_before_the_release_never_reaches_the_client(
    any_world: World, step: Json, attempts: list[str], stream: bool, http2: bool
) -> None:
    any_world.fakes["openai"].script(default=step)
    gateway = any_world.gateway({"limits": {"answer": "1s"}})
    answer = ask(gateway, stream=stream, http2=http2)
    assert (answer.status, answer.broken, answer.attempts) == (200, None, attempts)
    assert answer.text == f"Hello from {attempts[-1].split(':')[0]}."
    if stream:
        answer.assert_whole_stream()
    assert asked(any_world) == [attempt.split(":")[0] for attempt in attempts]
    assert_protocol(any_world)


@pytest.mark.parametrize("http2", [False, True], ids=["client_h1", "client_h2"])
@pytest.mark.parametrize("connection", [False, True], ids=["stream", "connection"])
def test_a_reset_after_the_release_breaks_the_clients_stream(any_world: World, connection: bool, http2: bool) -> None:
    any_world.fakes["openai"].script(default={"do": "cut", "after": 3, "gap": 0.05, "connection": connection})
    answer = ask(any_world.gateway(), stream=True, http2=http2)
    assert (answer.status, answer.attempts) == (200, ["openai:answered"])
    assert answer.broken == "RemoteProtocolError"
    assert answer.text and "Hello from openai.".startswith(answer.text)
    assert b"[DONE]" not in answer.raw
    assert asked(any_world) == ["openai"]
    assert_protocol(any_world)


@pytest.mark.parametrize("http2", [False, True], ids=["client_h1", "client_h2"])
@pytest.mark.parametrize("step", [{"do": "error_event_200", "after": 3}, {"do": "clean_cut", "after": 3}], ids=["told", "cut"])
def test_an_unfinished_stream_ends_with_an_error_event(any_world: World, step: Json, http2: bool) -> None:
    any_world.fakes["openai"].script(default={**step, "gap": 0.05})
    answer = ask(any_world.gateway(), stream=True, http2=http2)
    assert (answer.status, answer.broken, answer.attempts) == (200, None, ["openai:answered"])
    assert set(answer.events[-1]["error"]) == {"message", "type", "param", "code"}
    assert not any("error" in event for event in answer.events[:-1])
    assert b"[DONE]" not in answer.raw
    assert asked(any_world) == ["openai"]
    assert_protocol(any_world)
