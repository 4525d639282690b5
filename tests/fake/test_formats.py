"""Proves what the fake says in each vendor's format, and what it refuses.

The official clients judge the formats, where they are installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from client import FakeProvider, start

httpx = pytest.importorskip("httpx")

MESSAGES = [{"role": "user", "content": "How are you?"}]
CLAUDE = {"model": "claude-x", "max_tokens": 100, "messages": MESSAGES}
KEY = {"x-api-key": "k", "anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, FakeProvider]]:
    with start("openai", strict=True) as openai, start(
        "claude", dialect="anthropic"
    ) as claude, start("deepseek", dialect="deepseek", strict=True) as deepseek:
        yield {"openai": openai, "claude": claude, "deepseek": deepseek}


@pytest.fixture
def openai(running: dict[str, FakeProvider]) -> FakeProvider:
    running["openai"].reset()
    return running["openai"]


@pytest.fixture
def claude(running: dict[str, FakeProvider]) -> FakeProvider:
    running["claude"].reset()
    return running["claude"]


@pytest.fixture
def deepseek(running: dict[str, FakeProvider]) -> FakeProvider:
    running["deepseek"].reset()
    return running["deepseek"]


def post(
    fake: FakeProvider,
    path: str,
    body: Any,
    headers: Optional[dict[str, str]] = None,
) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{fake.port}/v1{path}"
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.post(url, content=content, headers=headers or {})


def message(fake: FakeProvider, headers: Any = None, **changes: Any) -> Any:
    body = {**CLAUDE, **changes}
    return post(fake, "/messages", body, KEY if headers is None else headers)


def chat(fake: FakeProvider, **more: Any) -> Any:
    body = {"model": "m", "messages": MESSAGES, **more}
    return post(fake, "/chat/completions", body)


def respond(fake: FakeProvider, **more: Any) -> Any:
    return post(fake, "/responses", {"model": "m", "input": "How are you?", **more})


def events(answer: Any) -> list[dict[str, Any]]:
    """The JSON of all events; an ``event`` line has to repeat the type."""
    found = []
    for block in answer.text.split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            name = line[7:] if line.startswith("event: ") else name
            data = line[6:] if line.startswith("data: ") else data
        if data is None or data == "[DONE]":
            continue
        found.append(json.loads(data))
        assert name is None or name == found[-1]["type"]
    return found


def sizes(spent: dict[str, Any]) -> tuple[int, int]:
    assert spent["total_tokens"] == spent["prompt_tokens"] + spent["completion_tokens"]
    return spent["prompt_tokens"], spent["completion_tokens"]


STREAM = {"stream": True, "stream_options": {"include_usage": True}}

# Anthropic. ------------------------------------------------------------------


def test_a_message_and_its_stream_say_the_same(claude: FakeProvider) -> None:
    claude.script(default={"do": "reasoning", "chunks": 2})
    whole = message(claude).json()
    assert whole["type"] == "message" and whole["stop_reason"] == "end_turn"
    assert [block["type"] for block in whole["content"]] == ["thinking", "text"]
    told = events(message(claude, stream=True))
    assert [event["type"] for event in told] == [
        "message_start", "content_block_start", "ping", "content_block_delta",
        "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    deltas = [e["delta"] for e in told if e["type"] == "content_block_delta"]
    assert "".join(d.get("text", "") for d in deltas) == "Hello from claude."
    assert [d["type"] for d in deltas].count("signature_delta") == 1
    assert told[-2]["usage"] == whole["usage"]
    assert told[-2]["delta"]["stop_reason"] == "end_turn"
    first, second = claude.log()
    assert first["id"] == whole["id"]
    assert second["id"] == told[0]["message"]["id"] != first["id"]
    assert first["usage"] == second["usage"] == whole["usage"]
    assert sizes(first["spent"]) == sizes(second["spent"]) == (3, 11)


def test_a_tool_use_comes_in_fragments(claude: FakeProvider) -> None:
    claude.script(default={"do": "tool_call"})
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    block = message(claude, tools=tools).json()["content"][0]
    assert (block["name"], block["input"]) == ("look", {"city": "Paris"})
    told = events(message(claude, tools=tools, stream=True))
    (start_,) = [e for e in told if e["type"] == "content_block_start"]
    assert start_["content_block"]["input"] == {}
    parts = [e["delta"] for e in told if e["type"] == "content_block_delta"]
    assert {part["type"] for part in parts} == {"input_json_delta"}
    assert len(parts) == 6 and parts[0]["partial_json"] == ""
    joined = "".join(part["partial_json"] for part in parts)
    assert json.loads(joined) == {"city": "Paris"}
    assert told[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    "step, stop_reason",
    [
        ({"do": "finish_reason"}, "max_tokens"),
        ({"do": "finish_reason", "reason": "pause_turn"}, "pause_turn"),
        ({"do": "refusal"}, "refusal"),
        ({"do": "empty_finish"}, "end_turn"),
    ],
)
def test_stop_reasons(
    claude: FakeProvider, step: dict[str, Any], stop_reason: str
) -> None:
    claude.script(default=step)
    assert message(claude).json()["stop_reason"] == stop_reason
    told = events(message(claude, stream=True))
    assert told[-2]["delta"]["stop_reason"] == stop_reason


def test_cached_tokens_are_counted_apart(claude: FakeProvider) -> None:
    claude.script({"do": "answer", "cached": 1, "cache_written": 1})
    usage = message(claude).json()["usage"]
    assert usage == {
        "input_tokens": 1,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 1,
        "output_tokens": 5,
    }
    spent = claude.log()[0]["spent"]
    assert sizes(spent) == (3, 5)
    assert (spent["cached_tokens"], spent["cache_written_tokens"]) == (1, 1)


def test_nothing_is_cached_unless_it_was_asked_for(claude: FakeProvider) -> None:
    text = {"type": "text", "text": "x" * 1000}
    marked = {**text, "cache_control": {"type": "ephemeral"}}
    for block, cached in ((text, 0), (marked, 192)):
        usage = message(claude, system=[block]).json()["usage"]
        assert usage["cache_read_input_tokens"] == cached
        assert usage["input_tokens"] + cached == 253


def test_errors_in_the_words_of_anthropic(claude: FakeProvider) -> None:
    claude.script({"do": "status", "status": 529}, {"do": "error_event_200"})
    answer = message(claude)
    assert (answer.status_code, answer.json()) == (
        529,
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"},
            "request_id": answer.headers["request-id"],
        },
    )
    (told,) = events(message(claude, stream=True))
    assert told == {
        "type": "error",
        "error": {"type": "api_error", "message": "The server had an error."},
    }


CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}


def turns(*contents: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"max_completion_tokens": 5}, "max_completion_tokens: Extra inputs"),
        ({"stream_options": {}}, "stream_options: Extra inputs"),
        ({"n": 1}, "n: Extra inputs"),
        ({"messages": []}, "at least one message"),
        ({"messages": turns("a")[:0] + [{"role": "assistant", "content": "a"}]},
         'first message must use the "user" role'),
        ({"messages": [{"role": "system", "content": "a"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]},
         "messages.0.name: Extra inputs"),
        ({"messages": turns("")}, "must have non-empty content"),
        ({"messages": turns([{"type": "text", "text": ""}])},
         "text content blocks must be non-empty"),
        ({"system": [{"type": "text", "text": ""}]},
         "text content blocks must be non-empty"),
        ({"messages": turns([{"type": "image_url", "image_url": {}}])},
         "Input tag 'image_url'"),
        ({"messages": turns("a", "b", [RESULT])}, "unexpected `tool_use_id`"),
        ({"messages": turns("a", [CALL], "b")}, "without `tool_result` blocks"),
        ({"messages": turns("a", [CALL])}, "without `tool_result` blocks"),
        ({"messages": turns("a", [{**CALL, "input": "{}"}], [RESULT])},
         "tool_use.input: Input should be a valid dictionary"),
        ({"tools": [{"type": "function", "function": {}}]}, "Input tag 'function'"),
        ({"tools": [{"name": "f"}]}, "input_schema: Field required"),
        ({"tool_choice": "auto"}, "tool_choice: Input should be a valid dictionary"),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "`max_tokens` must"),
    ],
)  # fmt: skip
def test_what_anthropic_would_not_accept(
    claude: FakeProvider, changes: dict[str, Any], complaint: str
) -> None:
    answer = message(claude, **changes)
    assert (answer.status_code, answer.json()["error"]["type"]) == (
        400,
        "invalid_request_error",
    )
    assert complaint in answer.json()["error"]["message"]
    (record,) = claude.log()
    assert record["refused"] == answer.json()["error"]["message"]
    assert (record["spent"], record["usage"], record["id"]) == (None, None, None)


def test_missing_fields_are_named(claude: FakeProvider) -> None:
    for key in CLAUDE:
        body = {k: v for k, v in CLAUDE.items() if k != key}
        answer = post(claude, "/messages", body, KEY)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == f"{key}: Field required"


def test_a_conversation_with_tools_is_accepted(claude: FakeProvider) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    messages = turns("a", [thought, CALL], [RESULT, {"type": "text", "text": "b"}])
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    answer = message(
        claude,
        messages=messages,
        tools=tools,
        tool_choice={"type": "auto"},
        system="be nice",
        temperature=1,
        stop_sequences=["x"],
        metadata={"user_id": "u"},
    )
    assert answer.status_code == 200
    assert claude.log()[0]["refused"] is None


@pytest.mark.parametrize(
    "headers, status, type_",
    [
        ({}, 401, "authentication_error"),
        ({"authorization": "Bearer k"}, 401, "authentication_error"),
        ({"x-api-key": "k"}, 400, "invalid_request_error"),
        ({**KEY, "anthropic-version": "2024-01-01"}, 400, "invalid_request_error"),
        ({**KEY, "anthropic-version": "2026-10-21"}, 200, None),
        (KEY, 200, None),
    ],
)
def test_key_and_version(
    claude: FakeProvider, headers: dict[str, str], status: int, type_: Optional[str]
) -> None:
    answer = message(claude, headers)
    assert answer.status_code == status
    assert answer.json().get("error", {}).get("type") == type_


def test_the_new_version_has_no_sampling(claude: FakeProvider) -> None:
    new = {**KEY, "anthropic-version": "2026-10-21"}
    assert message(claude, new, temperature=1.0).status_code == 400
    assert message(claude, KEY, temperature=1.0).status_code == 200


def test_anthropic_has_no_chat_completions(claude: FakeProvider) -> None:
    answer = post(claude, "/chat/completions", CLAUDE, KEY)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("path", ["/messages", "/responses", "/chat/completions"])
@pytest.mark.parametrize(
    "step",
    [
        {"do": "cut", "after": 2},
        {"do": "clean_cut", "after": 2},
        {"do": "error_event_200", "after": 2},
        {"do": "response_failed", "after": 2},
    ],
)
def test_a_broken_stream_costs_what_it_said(
    openai: FakeProvider, path: str, step: dict[str, Any]
) -> None:
    openai.script({**step, "text": "Hello, world."})
    bodies: dict[str, dict[str, Any]] = {
        "/messages": CLAUDE,
        "/responses": {"model": "m", "input": "How are you?"},
        "/chat/completions": {"model": "m", "messages": MESSAGES},
    }
    url = f"http://127.0.0.1:{openai.port}/v1{path}"
    raw = b""
    try:
        with httpx.stream(
            "POST", url, json={**bodies[path], "stream": True}, headers=KEY, trust_env=False
        ) as answer:
            for piece in answer.iter_raw():
                raw += piece
    except httpx.RemoteProtocolError:
        pass
    except httpx.ReadError:
        pass
    openai.wait_for(in_flight=0)
    (record,) = openai.log()
    assert record["usage"] is None
    # "Hello, world." in five parts: "He", "llo", ...; two of them are two tokens.
    assert sizes(record["spent"]) == (3, 2)
    assert record["id"] and record["id"].encode() in raw


# Responses. ------------------------------------------------------------------


def test_a_response_and_its_stream_say_the_same(openai: FakeProvider) -> None:
    openai.script(default={"do": "reasoning"})
    whole = respond(openai).json()
    assert (whole["object"], whole["status"]) == ("response", "completed")
    answer = respond(openai, stream=True)
    assert "[DONE]" not in answer.text
    told = events(answer)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    types = [event["type"] for event in told]
    assert types[:3] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert types[-1] == "response.completed"
    final = told[-1]["response"]
    assert final["usage"] == whole["usage"]
    for one, other in zip(final["output"], whole["output"]):
        assert one["content"] == other["content"]
    said = [e["delta"] for e in told if e["type"] == "response.output_text.delta"]
    assert "".join(said) == "Hello from openai." and len(said) == 5
    first, second = openai.log()
    assert (first["id"], second["id"]) == (whole["id"], final["id"])
    assert first["spent"] == second["spent"]


def test_a_previous_response_has_to_be_known(openai: FakeProvider) -> None:
    first = respond(openai).json()
    second = respond(openai, previous_response_id=first["id"])
    assert second.status_code == 200
    assert second.json()["previous_response_id"] == first["id"]
    # The context is paid again: 3 tokens asked, 5 answered, 3 asked now.
    assert second.json()["usage"]["input_tokens"] == 11
    unknown = respond(openai, previous_response_id="resp_other_1")
    assert unknown.status_code == 400
    assert unknown.json()["error"]["code"] == "previous_response_not_found"
    assert "resp_other_1" in unknown.json()["error"]["message"]


def test_a_response_that_is_not_kept_cannot_be_continued(openai: FakeProvider) -> None:
    openai.script({"do": "answer"}, {"do": "clean_cut"}, {"do": "response_failed"})
    unkept = respond(openai, store=False).json()["id"]
    cut = events(respond(openai, stream=True))[0]["response"]["id"]
    failed = events(respond(openai, stream=True))[0]["response"]["id"]
    for id_ in (unkept, cut, failed):
        assert respond(openai, previous_response_id=id_).status_code == 400


def test_another_process_does_not_know_the_id(openai: FakeProvider) -> None:
    id_ = respond(openai).json()["id"]
    with start("openai") as twin:
        respond(twin)
        assert respond(twin, previous_response_id=id_).status_code == 400


def test_failures_of_a_response(openai: FakeProvider) -> None:
    openai.script(
        {"do": "response_failed", "after": 1, "code": "rate_limit_exceeded"},
        {"do": "response_failed"},
        {"do": "error_event_200", "after": 1},
        {"do": "error_event_200", "nested": True},
        {"do": "finish_reason"},
    )
    failed = events(respond(openai, stream=True))[-1]
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 5)
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "rate_limit_exceeded"
    assert respond(openai).json()["error"]["code"] == "server_error"
    error = events(respond(openai, stream=True))[-1]
    assert (error["type"], error["code"]) == ("error", "server_error")
    assert error["sequence_number"] == 5
    (nested,) = events(respond(openai, stream=True))
    assert nested["error"]["code"] == "server_error"
    assert nested["sequence_number"] == 0
    incomplete = events(respond(openai, stream=True))[-1]
    assert incomplete["type"] == "response.incomplete"
    details = incomplete["response"]["incomplete_details"]
    assert details == {"reason": "max_output_tokens"}


# Usage. ----------------------------------------------------------------------


def test_usage_may_never_be_told(openai: FakeProvider) -> None:
    openai.script(default={"do": "answer", "usage": "none"})
    assert "usage" not in chat(openai).json()
    assert not any("usage" in event for event in events(chat(openai, **STREAM)))
    assert respond(openai).json()["usage"] is None
    for record in openai.log():
        assert record["usage"] is None and sizes(record["spent"]) == (3, 5)


def test_usage_may_be_zero(openai: FakeProvider) -> None:
    openai.script(default={"do": "answer", "usage": "zero"})
    usages = [chat(openai).json()["usage"], events(chat(openai, **STREAM))[-1]["usage"]]
    usages.append(respond(openai).json()["usage"])
    for usage, record in zip(usages, openai.log()):
        assert usage["total_tokens"] == 0 and record["usage"] == usage
        assert sizes(record["spent"]) == (3, 5)


def test_usage_may_come_with_the_finish_reason(openai: FakeProvider) -> None:
    openai.script(default={"do": "answer", "usage": "in_last_chunk"})
    for more in ({"stream": True}, STREAM):
        told = events(chat(openai, **more))
        assert [event for event in told if not event["choices"]] == []
        assert told[-1]["choices"][0]["finish_reason"] == "stop"
        assert told[-1]["usage"]["completion_tokens"] == 5
        assert "usage" not in told[0]
        assert openai.log()[-1]["usage"] == told[-1]["usage"]


def test_usage_may_grow_from_chunk_to_chunk(openai: FakeProvider) -> None:
    openai.script(
        {"do": "answer", "usage": "every_chunk"},
        {"do": "clean_cut", "usage": "every_chunk"},
    )
    told = events(chat(openai, stream=True))
    counts = [event["usage"]["completion_tokens"] for event in told]
    assert counts == [0, 1, 2, 3, 4, 5, 5]
    cut = events(chat(openai, stream=True))
    record = openai.log()[-1]
    assert record["usage"] == cut[-1]["usage"]
    assert record["spent"]["completion_tokens"] == 2


def test_usage_in_words_of_deepseek_only(openai: FakeProvider) -> None:
    openai.script({"do": "answer", "usage": "deepseek_only", "cached": 2})
    usage = chat(openai).json()["usage"]
    assert "prompt_tokens_details" not in usage
    assert usage["prompt_cache_hit_tokens"] == 2
    assert usage["prompt_cache_miss_tokens"] == 1


def test_usage_may_be_partial(openai: FakeProvider, claude: FakeProvider) -> None:
    for fake in (openai, claude):
        fake.script(default={"do": "answer", "usage": "partial"})
    assert "total_tokens" not in chat(openai).json()["usage"]
    assert "total_tokens" not in respond(openai).json()["usage"]
    told = events(message(claude, stream=True))
    assert told[0]["message"]["usage"] == {"input_tokens": 3, "output_tokens": 1}
    assert told[-2]["usage"] == {"output_tokens": 5}


# Spent. ----------------------------------------------------------------------


def test_a_client_that_leaves_has_to_pay(openai: FakeProvider) -> None:
    openai.script({"do": "stall", "after": 3}, {"do": "silent"})
    url = f"http://127.0.0.1:{openai.port}/v1/chat/completions"
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    with httpx.Client(trust_env=False) as client:
        with client.stream("POST", url, json=body) as answer:
            seen = b""
            for piece in answer.iter_raw():
                seen += piece
                if seen.count(b"data: ") == 4:
                    break
        openai.wait_for(in_flight=0)
        with pytest.raises(httpx.ReadTimeout):
            client.post(url, json=body, timeout=0.2)
    openai.wait_for(in_flight=0)
    first, second = openai.log()
    assert first["ended"] == second["ended"] == "aborted_by_peer"
    assert (first["usage"], sizes(first["spent"])) == (None, (3, 3))
    assert (second["usage"], second["spent"]) == (None, None)


def test_half_a_document_costs_all_of_it(openai: FakeProvider) -> None:
    openai.script({"do": "clean_cut"})
    chat(openai)
    (record,) = openai.log()
    assert (record["usage"], sizes(record["spent"])) == (None, (3, 5))


def test_embeddings_cost_their_prompt(openai: FakeProvider) -> None:
    post(openai, "/embeddings", {"model": "e", "input": ["abcd", "efgh"]})
    (record,) = openai.log()
    assert record["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert (record["id"], sizes(record["spent"])) == (None, (2, 0))


# Sloppy vendors. -------------------------------------------------------------


def sloppy(fake: FakeProvider, *miss: str, stream: bool = False, **more: Any) -> Any:
    fake.script({"do": "sloppy", "miss": list(miss), **more})
    if stream:
        return events(chat(fake, **STREAM))
    return chat(fake).json()


def test_fields_are_left_out(openai: FakeProvider) -> None:
    top = ("id", "object", "created", "model", "system_fingerprint")
    choice = ("index", "logprobs", "finish_reason")
    whole = sloppy(openai, *top, *choice, "role", "content")
    assert whole.keys() == {"choices", "usage"}
    (only,) = whole["choices"]
    message_ = {"content": "Hello from openai.", "refusal": None}
    assert only == {"message": message_}
    told = sloppy(openai, *top, *choice, "role", "content", stream=True)
    for event in told[:-1]:
        assert event.keys() == {"choices", "usage"}
        assert event["choices"][0].keys() == {"delta"}
    assert told[0]["choices"][0]["delta"] == {"refusal": None}
    assert openai.log()[-1]["id"] is None


def test_finish_reasons_are_bent(openai: FakeProvider) -> None:
    def reasons(*miss: str, **more: Any) -> list[Any]:
        told = sloppy(openai, *miss, stream=True, chunks=1, **more)
        return [event["choices"][0]["finish_reason"] for event in told[:-1]]

    assert reasons("finish_reason_null_at_end") == [None, None, None]
    assert reasons("finish_reason_empty") == ["", "", "stop"]
    assert reasons(finish="end_turn") == [None, None, "end_turn"]
    assert sloppy(openai, finish="STOP")["choices"][0]["finish_reason"] == "STOP"


def test_tool_calls_are_bent(openai: FakeProvider) -> None:
    miss = ("tool_type", "tool_id", "tool_index", "arguments_object", "content")
    whole = sloppy(openai, *miss, tool=True)["choices"][0]["message"]
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    assert whole["tool_calls"] == [call] and "content" not in whole
    told = sloppy(openai, *miss, tool=True, stream=True)
    calls = [e["choices"][0]["delta"].get("tool_calls") for e in told[:-1]]
    assert [one for one in calls if one] == [[call]]
    record = openai.log()[-1]
    assert record["spent"]["completion_tokens"] == record["usage"]["completion_tokens"]


def test_other_bent_fields(openai: FakeProvider) -> None:
    miss = ("created_float", "service_tier", "reasoning", "role_everywhere")
    whole = sloppy(openai, *miss, "choices_null", reasoning="Hm.")
    assert isinstance(whole["created"], float)
    assert whole["service_tier"] == {"name": "on_demand"}
    said = whole["choices"][0]["message"]
    assert said["reasoning"] == "Hm." and "reasoning_content" not in said
    told = sloppy(openai, *miss, "choices_null", reasoning="Hm.", stream=True)
    assert told[-1]["choices"] is None
    roles = [event["choices"][0]["delta"].get("role") for event in told[:-1]]
    assert set(roles) == {"assistant"}


def test_legacy_completions_are_never_chat(openai: FakeProvider) -> None:
    body = {"model": "m", "prompt": "x", **STREAM}
    told = events(post(openai, "/completions", body))
    assert {event["object"] for event in told} == {"text_completion"}
    assert "".join(event["choices"][0]["text"] for event in told[:-1])
    assert told[-1]["choices"] == [] and told[-1]["usage"]["total_tokens"] == 6


# What is refused. ------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai", "claude", "deepseek"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","messages":[{"role":"user","content":"x","role":"user"}]}',
    ],
)
def test_no_key_may_occur_twice(
    running: dict[str, FakeProvider], name: str, body: bytes
) -> None:
    fake = running[name]
    fake.reset()
    path = "/messages" if name == "claude" else "/chat/completions"
    answer = post(fake, path, body, KEY)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "occurs twice" in answer.json()["error"]["message"]
    assert fake.log()[0]["refused"] == answer.json()["error"]["message"]


def test_no_key_may_occur_twice_even_if_nothing_else_is_checked() -> None:
    with start("lax") as lax:
        assert post(lax, "/chat/completions", b'{"a":1,"a":1}').status_code == 400
        assert post(lax, "/chat/completions", b'{"a":1,"b":1}').status_code == 200
        assert post(lax, "/chat/completions", b"no JSON").status_code == 200


@pytest.mark.parametrize(
    "more, param",
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": True}, "stream_options"),
        ({"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
        ({"stream": True, "stream_options": {"include_usage": 1}},
         "stream_options.include_usage"),
        ({"max_output_tokens": 5}, "max_output_tokens"),
    ],
)  # fmt: skip
def test_what_openai_would_not_accept(
    openai: FakeProvider, more: dict[str, Any], param: str
) -> None:
    answer = chat(openai, **more)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_responses_report_usage_without_being_asked(openai: FakeProvider) -> None:
    answer = respond(openai, **STREAM)
    assert answer.json()["error"]["param"] == "stream_options.include_usage"
    assert respond(openai, stream=True).status_code == 200


def test_what_deepseek_would_not_accept(deepseek: FakeProvider) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    used = {"role": "assistant", "content": None, "tool_calls": [call]}
    thought = {**used, "reasoning_content": "hm"}
    off = {"thinking": {"type": "disabled"}}
    accepted: list[tuple[dict[str, Any], bool]] = [
        ({"max_tokens": 0}, False),
        ({"max_tokens": 1}, True),
        ({"max_completion_tokens": 1, "whatever": 1}, True),
        ({"messages": [{"role": "developer", "content": "x"}]}, False),
        ({"messages": [*MESSAGES, used]}, False),
        ({"messages": [*MESSAGES, used], **off}, True),
        ({"messages": [*MESSAGES, thought]}, True),
    ]
    for more, good in accepted:
        assert chat(deepseek, **more).status_code == (200 if good else 400), more


# The tokenizer. --------------------------------------------------------------


def test_a_real_vocabulary_counts_words() -> None:
    pytest.importorskip("rs_bpe")
    with start("openai", tokenizer="bpe") as fake:
        fake.script({"do": "answer", "text": "Hello from openai."})
        usage = chat(fake).json()["usage"]
        # "How are you?" and "Hello from openai." in o200k_base.
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 5)
        assert sizes(fake.log()[0]["spent"]) == (4, 5)


# The official clients. -------------------------------------------------------


def test_the_client_of_openai_understands(openai: FakeProvider) -> None:
    sdk = pytest.importorskip("openai")
    client = sdk.OpenAI(
        base_url=f"http://127.0.0.1:{openai.port}/v1",
        api_key="k",
        max_retries=0,
        http_client=httpx.Client(trust_env=False),
    )
    steps = [{"do": name} for name in ("answer", "reasoning", "tool_call", "refusal")]
    openai.script(*steps)
    kinds = []
    for _ in steps:
        with client.responses.stream(model="m", input="x") as stream:
            for _event in stream:
                pass
            final = stream.get_final_response()
        assert final.usage.total_tokens > 0
        kinds.append([item.type for item in final.output])
    assert kinds == [["message"], ["reasoning", "message"], ["function_call"], ["message"]]
    answer = client.responses.create(model="m", input="x")
    assert answer.output_text == "Hello from openai."
    with pytest.raises(sdk.BadRequestError) as refused:
        client.responses.create(model="m", input="x", previous_response_id="resp_no")
    assert refused.value.code == "previous_response_not_found"
    legacy = client.completions.create(model="m", prompt="x", stream=True)
    assert "".join(c.choices[0].text for c in legacy) == "Hello from openai."
    with client.chat.completions.stream(model="m", messages=MESSAGES) as chat_stream:
        final_chat = chat_stream.get_final_completion()
    assert final_chat.choices[0].message.content == "Hello from openai."


def test_the_client_of_anthropic_understands(claude: FakeProvider) -> None:
    sdk = pytest.importorskip("anthropic")
    # Newer clients send the key as a bearer token; the fake wants x-api-key.
    client = sdk.Anthropic(
        base_url=f"http://127.0.0.1:{claude.port}",
        api_key="k",
        max_retries=0,
        default_headers={"x-api-key": "k"},
    )
    steps = [{"do": name} for name in ("answer", "reasoning", "tool_call")]
    claude.script(*steps, {"do": "error_event_200", "after": 1})
    kinds = []
    for _ in steps:
        with client.messages.stream(**CLAUDE) as stream:
            final = stream.get_final_message()
        assert final.usage.input_tokens == 3 and final.usage.output_tokens > 1
        kinds.append([block.type for block in final.content])
    assert kinds == [["text"], ["thinking", "text"], ["tool_use"]]
    with pytest.raises(sdk.APIStatusError):
        with client.messages.stream(**CLAUDE) as stream:
            stream.get_final_message()
    whole = client.messages.create(**CLAUDE)
    assert whole.content[0].text == "Hello from claude."
