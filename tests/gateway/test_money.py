"""What vendors tell of their tokens is reconciled for the record and the budgets, and reaches the client as it was told."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest

from accounts import KINDS, only_record, records
from support import CHAT, Answer, Gateway, Json, World, ask, chat

EMBEDDINGS = "/v1/embeddings"
MODEL = "gpt-5.4-mini"
#: Nothing is reserved for what is expected, so that the budget's header is exact.
PRICE: Json = {"input": 0, "output": 0, "cached_input": 5, "reasoning": 3}
BUDGET: Json = {"name": "all", "limit": 1, "per": "month"}
MILLION = 1_000_000
#: What a client sends that wants the usage of a stream.
ASKING: Json = {"stream_options": {"include_usage": True}}

#: How vendors tell what they used, and what the record has of it: input, cached, cache_write, output, reasoning.
VENDORS: dict[str, tuple[Json, list[int], str]] = {
    "xai": (
        {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135, "prompt_tokens_details": {"text_tokens": 32, "cached_tokens": 6},
         "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0, "accepted_prediction_tokens": 0}, "num_sources_used": 0},
        [32, 6, 0, 103, 94],
        "parts_added",
    ),
    "gemini": ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, [20, 0, 0, 603, 405], "rest_is_output"),
    "relay": (
        {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 4008, "prompt_tokens_details": {"cached_tokens": 4000}, "cost": 0.0123},
        [4003, 4000, 0, 5, 0],
        "parts_added",
    ),
    # A gateway in front of Claude: the 0 in the details does not hide what stands beside it.
    "claude": (
        {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 4008, "prompt_tokens_details": {"cached_tokens": 0},
         "cache_read_input_tokens": 4000},
        [4003, 4000, 0, 5, 0],
        "parts_added",
    ),
    "small_total": ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 13}, [9, 0, 0, 5, 0], "total_ignored"),
}


def gateway_of(world: World, path: str = CHAT, **more: Any) -> Gateway:
    prices = {"openai": {MODEL: PRICE}}
    routes = [{"name": "it", "match": {"path": path}, "providers": ["openai"]}]
    return world.gateway({"prices": prices, "budgets": [BUDGET], "routes": routes, **more})


def event(**fields: Any) -> str:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": MODEL, **fields}
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def stream_of(*usages: Json, last: Json, choice: Json) -> str:
    """A stream that tells a usage in its last chunk with a choice, and each of these in a chunk of its own."""
    begin = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}])
    end = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", **choice}], **last)
    own = "".join(event(choices=[], usage=usage) for usage in usages)
    return begin + end + own + "data: [DONE]\n\n"


def streams(body: str) -> Json:
    return {"do": "status", "status": 200, "body": body, "content_type": "text/event-stream"}


def answers(document: Json) -> Json:
    return {"do": "status", "status": 200, "body": document}


def assert_recorded(record: Json, counts: list[int], how: str | None) -> None:
    usage = record["usage"]
    assert [usage[kind] for kind in KINDS] == counts
    assert (usage["source"], usage.get("reconciled")) == ("reported", how)
    assert usage == record["attempts"][0]["usage"]
    assert Decimal(record["cost_usd"]) == Decimal(counts[1] * 5 + counts[4] * 3) / MILLION


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("form", ["whole", "last_chunk", "own_chunk"])
def test_counts_that_do_not_fit_together_are_reconciled_for_the_record_and_the_budget_alone(
    world: World, vendor: str, form: str
) -> None:
    usage, counts, how = VENDORS[vendor]
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": None}, "logprobs": None, "finish_reason": "stop"}
    document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
    script = {
        "whole": answers(document),
        "last_chunk": streams(stream_of(last={"usage": usage}, choice={})),
        "own_chunk": streams(stream_of(usage, last={"usage": None}, choice={})),
    }
    world.fakes["openai"].script(default=script[form])
    gateway = gateway_of(world)
    stream = form != "whole"
    answer = ask(gateway, chat(stream, **(ASKING if stream else {})))
    assert answer.status == 200
    if stream:
        chunks = [json.loads(line[6:]) for line in answer.raw.decode().split("\n\n") if line.startswith("data: {")]
        assert [chunk.get("usage") for chunk in chunks] == [None, None, usage]
        assert chunks[-1]["choices"] == []
        # Byte for byte.
        assert json.dumps(usage, separators=(",", ":")).encode() in answer.raw
    else:
        assert answer.json == document
    record = only_record(gateway)
    assert_recorded(record, counts, how)
    left = ask(gateway, chat()).headers["x-shunt-budget"]
    assert f"remaining={(1 - Decimal(record['cost_usd'])).normalize():f};" in left


@pytest.mark.parametrize("asks", [False, True], ids=["silent", "asks"])
@pytest.mark.parametrize("place", ["choice", "x_groq", "choice_and_own", "x_groq_and_own", "three_times"])
def test_a_usage_in_another_place_or_told_again_is_reported_and_told_once(world: World, place: str, asks: bool) -> None:
    usage = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "queue_time": 0.037}
    groq = {"x_groq": {"id": "req_1", "usage": usage}}
    body = {
        "choice": stream_of(last={}, choice={"usage": usage}),
        "x_groq": stream_of(last=groq, choice={}),
        "choice_and_own": stream_of(usage, last={}, choice={"usage": usage}),
        "x_groq_and_own": stream_of(usage, last=groq, choice={}),
        "three_times": stream_of(usage, usage, usage, last={}, choice={}),
    }[place]
    world.fakes["openai"].script(default=streams(body))
    gateway = gateway_of(world)
    answer = ask(gateway, chat(True, **(ASKING if asks else {})))
    answer.assert_whole_stream()
    chunks = [json.loads(line[6:]) for line in answer.raw.decode().split("\n\n") if line.startswith("data: {")]
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [usage] * asks
    assert answer.raw.count(b'"prompt_tokens"') == asks, "it is told nowhere else"
    assert all(chunk["choices"] for chunk in chunks[: len(chunks) - asks])
    assert_recorded(only_record(gateway), [19, 0, 0, 13, 0], None)


def test_the_usage_of_an_embeddings_answer_that_is_too_long_to_be_held_is_read_from_its_end(world: World) -> None:
    vector = [place / 7919 for place in range(20_000)]
    document = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": MODEL,
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    world.fakes["openai"].script(default=answers(document))
    gateway = gateway_of(world, EMBEDDINGS, limits={"max_held_bytes": 1024})
    answer = ask(gateway, {"model": "assistant", "input": "a"}, path=EMBEDDINGS)
    assert (answer.status, answer.broken, answer.json) == (200, None, document)
    assert_recorded(only_record(gateway), [8, 0, 0, 0, 0], None)


def test_a_later_zero_of_anthropic_replaces_no_count(world: World) -> None:
    events: list[Json] = [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
                                              "usage": {"input_tokens": 25, "cache_read_input_tokens": 7, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 12}},
        {"type": "message_stop"},
    ]  # fmt: skip
    body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
    world.fakes["openai"].script(default=streams(body))
    gateway = gateway_of(world, providers={"openai": {"dialect": "anthropic"}})
    answer = ask(gateway, chat(True, **ASKING))
    answer.assert_whole_stream()
    assert (b'"prompt_tokens":32,"completion_tokens":12,"total_tokens":44') in answer.raw
    assert_recorded(only_record(gateway), [32, 7, 0, 12, 0], None)


def remaining(answer: Answer) -> Decimal:
    found = re.search(r"remaining=([0-9.]+)", answer.headers["x-shunt-budget"])
    assert found
    return Decimal(found[1])


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("end", ["well", "cut", "counted"])
def test_a_usage_that_was_told_before_the_content_is_not_billed_as_the_whole(world: World, told: int, end: str) -> None:
    early = {"prompt_tokens": 90, "completion_tokens": told, "total_tokens": 90 + told}
    final = {"prompt_tokens": 90, "completion_tokens": 4100, "total_tokens": 4190}
    begin = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], usage=early)
    word = event(choices=[{"index": 0, "delta": {"content": "the harbour of the town was quiet at night, "}, "finish_reason": None}])
    finish = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    last = {"well": finish + "data: [DONE]\n\n", "cut": "", "counted": finish + event(choices=[], usage=final) + "data: [DONE]\n\n"}[end]
    world.fakes["openai"].script(default=streams(begin + word * 417 + last))
    prices = {"openai": {MODEL: {"input": 2, "output": 8}}}
    gateway = gateway_of(world, prices=prices)
    first, second = (ask(gateway, chat(True, **ASKING)) for _ in range(2))
    assert first.raw.count(b"harbour") == 417
    # The client is told what counts the answer, or nothing.
    assert first.raw.count(b'"completion_tokens"') == (end == "counted")
    assert (b"4190" in first.raw) == (end == "counted")
    record = records(gateway, 2)[0]
    assert record["outcome"] == ("truncated" if end == "cut" else "answered")
    usage = record["usage"]
    assert (usage["source"], usage["input"]) == ("reported" if end == "counted" else "estimated", 90)
    # 417 times nine words and a comma.
    assert usage["output"] == 4100 if end == "counted" else 0.9 * 4170 < usage["output"] < 1.1 * 4170
    cost = Decimal(90 * 2 + usage["output"] * 8) / MILLION
    assert Decimal(record["cost_usd"]) == cost
    assert remaining(first) - remaining(second) == cost, "the budget has it too"


def test_a_usage_that_was_told_before_the_content_is_billed_if_the_attempt_comes_to_nothing(world: World) -> None:
    world.fakes["openai"].script(default={"do": "stall", "after": 0, "usage": "every_chunk"})
    routes = [{"name": "it", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}]
    gateway = gateway_of(world, routes=routes, limits={"first_token": "500ms", "answer": "500ms"})
    answer = ask(gateway, chat(True, **ASKING))
    assert answer.attempts == ["openai:too_slow", "deepseek:answered"]
    told = world.log("openai")[0]["spent"]["prompt_tokens"]
    assert records(gateway, 1)[0]["attempts"][0]["usage"]["input"] == told > 0


@pytest.mark.parametrize("kind", ["text", "arguments", "result"])
def test_a_long_run_without_a_space_is_not_sent_to_a_model_that_it_is_too_long_for(world: World, kind: str) -> None:
    run = "iVBORw0KGgoAAAANSUhEUgAAAAUA/+9k" * 2500
    call = {"id": "call_1", "type": "function", "function": {"name": "see", "arguments": json.dumps({"picture": run if kind == "arguments" else "a"})}}
    messages: list[Json] = [
        {"role": "user", "content": f"data:image/png;base64,{run}" if kind == "text" else "Go on."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": run if kind == "result" else "noon"},
    ]
    contexts = {"openai": (MODEL, 4000), "deepseek": ("deepseek-flash", 1_000_000)}
    models = {name: {"models": {"assistant": {"name": model, "context": context}}} for name, (model, context) in contexts.items()}
    route = {"name": "it", "match": {"path": CHAT}, "providers": ["openai", "deepseek"]}
    gateway = world.gateway({"providers": models, "routes": [route]})
    answer = ask(gateway, {"model": "assistant", "messages": messages})
    assert (answer.status, answer.headers["x-shunt-provider"], answer.headers["x-shunt-degraded"]) == (200, "deepseek", "openai:context")
    assert not world.seen("openai")
    (seen,) = world.seen("deepseek")
    assert seen["body_length"] > len(run)
    # A picture in its own field is data, however long it is.
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{run}"}}
    answer = ask(gateway, {"model": "assistant", "messages": [{"role": "user", "content": [picture]}]})
    assert (answer.status, answer.headers["x-shunt-provider"]) == (200, "openai")


def test_a_budget_that_meets_a_model_without_a_price_is_warned_of(world: World) -> None:
    gateway = world.gateway({"budgets": [BUDGET]})
    assert ask(gateway).status == 200
    assert "unpriced" in records(gateway, 1)[0]
    assert 'budget "all" does not count what these models cost, because they have no price: openai/gpt-5.4-mini' in gateway.log()


#: A price with a word for everything that is billed apart, and what it costs without them. Nothing is reserved for what is expected.
APART: Json = {
    "input": 0, "output": 0, "cached_input": 5, "cache_write": 4, "cache_write_1h": 8, "audio_input": 40, "audio_output": 80,
    "calls": {"web_search": 0.01}, "service_tiers": {"flex": 0.5},
}
WITHOUT: Json = {name: value for name, value in APART.items() if name in ("input", "output", "cached_input", "cache_write")}
USAGE: Json = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "prompt_tokens_details": {"cached_tokens": 200}}
HOUR: Json = {"cache_creation_input_tokens": 300, "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}}
AUDIO: Json = {
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 30}, "completion_tokens_details": {"audio_tokens": 20},
}
#: What an answer tells, what it costs in millionths of a dollar with the words and without them, and what has no price then.
TOLD: dict[str, tuple[Json, Json, int, int, list[str]]] = {
    "usual": ({}, {"service_tier": "default"}, 1000, 1000, []),
    "hour": (HOUR, {}, 1000 + 400 + 1600, 1000 + 300 * 4, ["cache_write_1h"]),
    "audio": (AUDIO, {}, 1000 + 30 * 40 + 20 * 80, 1000, ["audio_input", "audio_output"]),
    "searches": ({"server_tool_use": {"web_search_requests": 2}}, {}, 1000 + 20_000, 1000, ["web_search"]),
    "tier": ({"server_tool_use": {"web_search_requests": 1}}, {"service_tier": "flex"}, 500 + 10_000, 1000, ["web_search", "service_tier"]),
    "release": ({}, {"model": f"{MODEL}-2026-03-17"}, 1000, 1000, []),
    "priced_model": ({}, {"model": "gpt-5.4"}, 200 * 50, 200 * 50, []),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("told", TOLD)
def test_what_is_billed_apart_is_priced_or_named_and_the_budget_counts_what_the_record_says(
    world: World, told: str, stream: bool
) -> None:
    usage, fields, priced, known, parts = TOLD[told]
    usage = {**USAGE, **usage}
    message = {"index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": None}, "logprobs": None, "finish_reason": "stop"}
    document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, **fields, "choices": [message], "usage": usage}
    begin = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [event(**fields, choices=[begin]), event(**fields, choices=[end]), event(**fields, choices=[], usage=usage)]
    script = streams("".join(chunks) + "data: [DONE]\n\n") if stream else answers(document)
    for price, cost, missing in [(APART, priced, []), (WITHOUT, known, parts)]:
        world.fakes["openai"].script(default=script)
        gateway = gateway_of(world, prices={"openai": {MODEL: price, "gpt-5.4": {**price, "cached_input": 50}}})
        answer = ask(gateway, chat(stream, **(ASKING if stream else {})))
        assert answer.status == 200
        record = only_record(gateway)
        for place in (record, record["attempts"][0]):
            assert Decimal(place["cost_usd"]) == Decimal(cost) / MILLION
            assert (place.get("unpriced", False), place.get("unpriced_parts", [])) == (bool(missing), missing)
            assert (place.get("service_tier"), place.get("served_model")) == (fields.get("service_tier"), fields.get("model"))
        left = ask(gateway, chat()).headers["x-shunt-budget"]
        assert f"remaining={(1 - Decimal(record['cost_usd'])).normalize():f};" in left


def test_a_model_that_was_not_asked_and_has_no_price_makes_no_cost_that_looks_exact(world: World) -> None:
    document = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5.4-nano",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }  # fmt: skip
    world.fakes["openai"].script(default=answers(document))
    gateway = gateway_of(world)
    answer = ask(gateway, chat())
    assert answer.json == document
    (seen,) = world.seen("openai")
    assert seen["model"] == MODEL
    record = only_record(gateway)
    assert (record["response_model"], record["served_model"]) == (MODEL, "gpt-5.4-nano")
    assert (record["cost_usd"], record["unpriced_parts"]) == ("0.001", ["model"])
