"""One schema: whoever answers, and however, a client of OpenAI's sees OpenAI's chat completions and errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from support import Answer, Json, ask, asked, chat
from vendors import VENDORS, Vendors, chunks_of, client_of, completion_of, record_of

HELLO: Any = [{"role": "user", "content": "hello"}]
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EVERY_VENDOR = pytest.mark.parametrize("name", VENDORS)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True)
class Said:
    """What an answer said, whole or put together from its chunks, each of which was valid."""

    text: str
    reasoning: str
    refusal: str
    finish: str
    calls: list[tuple[str, str, str]]
    usage: Any


def said(answer: Answer, stream: bool) -> Said:
    assert (answer.status, answer.broken) == (200, None), answer.raw[:500]
    if not stream:
        assert answer.headers["content-type"] == "application/json"
        answer.assert_length()
        completion = completion_of(answer.raw)
        (choice,) = completion.choices
        message = choice.message
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
        reasoning = getattr(message, "reasoning_content", None) or ""
        return Said(message.content or "", reasoning, message.refusal or "", choice.finish_reason, calls, completion.usage)
    assert answer.headers["content-type"] == "text/event-stream"
    chunks = chunks_of(answer.raw)
    text, reasoning, refusal, finish, begun, usage = "", "", "", [], {}, []
    for chunk in chunks:
        usage += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            assert choice.index == 0
            text += choice.delta.content or ""
            refusal += choice.delta.refusal or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                if call.index not in begun:
                    assert call.id and call.type == "function" and call.function and call.function.name
                    begun[call.index] = [call.id, call.function.name, ""]
                begun[call.index][2] += call.function.arguments or "" if call.function else ""
    assert len(finish) == 1 and len(usage) <= 1
    assert list(begun) == list(range(len(begun)))
    return Said(text, reasoning, refusal, finish[0], [tuple(call) for call in begun.values()], (usage or [None])[0])


# Answers.


@STREAMS
@EVERY_VENDOR
def test_an_answer_of_every_vendor_is_openais(vendors: Vendors, name: str, stream: bool) -> None:
    steps: list[Json] = [
        {"do": "answer"},
        {"do": "reasoning", "reasoning": "Hm."},
        {"do": "finish_reason", "reason": "length"},
        {"do": "finish_reason", "reason": "content_filter"},
        {"do": "empty_finish"},
    ]
    vendors.fakes[name].script(*steps)
    gateway = vendors.serve(name)
    answers = [said(ask(gateway, stream=stream), stream) for _ in steps]
    hello = f"Hello from {name}."
    assert [(one.text, one.reasoning, one.finish) for one in answers] == [
        (hello, "", "stop"),
        (hello, "Hm.", "stop"),
        (hello, "", "length"),
        (hello, "", "content_filter"),
        ("", "", "stop"),
    ]
    model, path = VENDORS[name]
    assert [entry["path"] for entry in vendors.seen(name)] == [path] * len(steps)
    assert [body["model"] for body in vendors.bodies(name)] == [model] * len(steps)


@STREAMS
@EVERY_VENDOR
def test_what_a_model_refuses_is_told_in_openais_way(vendors: Vendors, name: str, stream: bool) -> None:
    vendors.fakes[name].script({"do": "refusal", "refusal": "I cannot."})
    answer = said(ask(vendors.serve(name), stream=stream), stream)
    finish = "content_filter" if name == "anthropic" else "stop"
    # Anthropic has no place for the words of a refusal but the text.
    words = ("I cannot.", "") if name == "anthropic" else ("", "I cannot.")
    assert (answer.text, answer.refusal, answer.finish) == (*words, finish)
    assert len(vendors.bodies(name)) == 1


@EVERY_VENDOR
def test_the_official_client_reads_every_vendor(vendors: Vendors, name: str) -> None:
    with client_of(vendors.serve(name)) as client:
        completion = client.chat.completions.create(model="assistant", messages=HELLO)
        assert completion.choices[0].message.content == f"Hello from {name}."
        with client.chat.completions.stream(model="assistant", messages=HELLO) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == f"Hello from {name}."
    assert final.choices[0].finish_reason == "stop"
    assert [body.get("stream") for body in vendors.bodies(name)] == [None, True]


class City(BaseModel):
    name: str


@STREAMS
@EVERY_VENDOR
def test_an_answer_of_a_form_is_parsed_by_the_official_client(vendors: Vendors, name: str, stream: bool) -> None:
    vendors.fakes[name].script({"do": "answer", "text": '{"name":"Paris"}'})
    with client_of(vendors.serve(name)) as client:
        asked_for: Any = {"model": "assistant", "messages": HELLO, "response_format": City}
        if stream:
            with client.chat.completions.stream(**asked_for) as events:
                completion = events.get_final_completion()
        else:
            completion = client.chat.completions.parse(**asked_for)
    assert completion.choices[0].message.parsed == City(name="Paris")
    (body,) = vendors.bodies(name)
    if name == "anthropic":
        form = body["output_config"]["format"]
        assert (form["type"], form["schema"]["additionalProperties"]) == ("json_schema", False)
        assert "response_format" not in body
    else:
        assert body["response_format"]["json_schema"]["name"] == "City"


def call_tool(client: OpenAI, messages: Any, stream: bool) -> ChatCompletion:
    if not stream:
        return client.chat.completions.create(model="assistant", messages=messages, tools=[TOOL])
    with client.chat.completions.stream(model="assistant", messages=messages, tools=[TOOL]) as events:
        return events.get_final_completion()


@STREAMS
@EVERY_VENDOR
def test_a_tool_is_called_and_its_result_goes_back(vendors: Vendors, name: str, stream: bool) -> None:
    arguments = '{"city":"Paris"}'
    vendors.fakes[name].script({"do": "tool_call", "arguments": arguments}, {"do": "answer", "text": "It is sunny."})
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, *HELLO]
    with client_of(vendors.serve(name)) as client:
        first = call_tool(client, messages, stream)
        (call,) = first.choices[0].message.tool_calls or []
        assert (first.choices[0].finish_reason, call.function.name) == ("tool_calls", "get_weather")
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        # The message itself goes back, as the client's documentation has it.
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}]
        second = call_tool(client, messages, stream)
    assert second.choices[0].message.content == "It is sunny."
    _, body = vendors.bodies(name)
    if name == "anthropic":
        assert body["system"] == "Be brief."
        assert body["tools"][0]["name"] == "get_weather"
        assert body["tools"][0]["input_schema"] == TOOL["function"]["parameters"]
        user, assistant, result = body["messages"]
        assert user == {"role": "user", "content": "hello"}
        use = {"type": "tool_use", "id": call.id, "name": "get_weather", "input": {"city": "Paris"}}
        assert assistant == {"role": "assistant", "content": [use]}
        told = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
        assert result == {"role": "user", "content": [told]}
    else:
        assert body["tools"] == [TOOL]
        assert body["messages"][2]["tool_calls"][0]["id"] == call.id
        assert body["messages"][3] == messages[3]


def test_an_image_reaches_anthropic_in_its_own_form(vendors: Vendors) -> None:
    content: list[Json] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg", "detail": "low"}},
    ]
    body = {"model": "assistant", "messages": [{"role": "user", "content": content}]}
    answer = said(ask(vendors.serve("anthropic"), body), False)
    assert answer.text == "Hello from anthropic."
    assert vendors.bodies("anthropic")[0]["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}},
            ],
        }
    ]


# What careless vendors leave out or bend.

MISSES = [
    "id", "object", "created", "model", "index", "role", "content", "finish_reason", "logprobs", "system_fingerprint",
    "created_float", "finish_reason_null_at_end", "finish_reason_empty", "role_everywhere", "tool_type", "tool_id",
    "tool_index", "arguments_object", "reasoning", "service_tier", "choices_null", "tool_id_first", "tool_name_cut",
    "tool_everywhere", "tool_from_one",
]  # fmt: skip
#: What the pieces of a tool call lack or repeat in a stream.
IN_PIECES = ["tool_id_first", "tool_name_cut", "tool_everywhere", "tool_from_one"]
#: A stream without them cannot be told from one that broke off.
NEVER_FINISHES = {"finish_reason", "finish_reason_null_at_end"}


@pytest.mark.parametrize("tool", [False, True], ids=["text", "tool"])
@STREAMS
def test_what_a_careless_vendor_misses_is_put_right(vendors: Vendors, stream: bool, tool: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    each = [[miss] for miss in MISSES if not (stream and miss in NEVER_FINISHES)]
    # What contradicts another is not put beside it.
    alone = {*NEVER_FINISHES, "finish_reason_empty", "created_float", "role_everywhere", *IN_PIECES}
    each.append([miss for miss in MISSES if miss not in alone])
    steps = [{"do": "sloppy", "miss": miss, "reasoning": "Hm.", "tool": tool} for miss in each]
    vendors.fakes["shareai"].script(*steps)
    gateway = vendors.serve("shareai")
    for miss in each:
        answer = said(ask(gateway, chat(stream, **options)), stream)
        assert answer.reasoning == "Hm.", miss
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, miss
        if tool:
            ((id_, name, arguments),) = answer.calls
            assert (name, json.loads(arguments), answer.finish) == ("get_weather", {"city": "Paris"}, "tool_calls"), miss
            assert id_, miss
        else:
            assert (answer.text, answer.finish) == ("Hello from shareai.", "stop"), miss
    assert len(vendors.bodies("shareai")) == len(each)


def test_the_official_client_joins_a_tool_call_whatever_its_pieces(vendors: Vendors) -> None:
    each = [[miss] for miss in IN_PIECES]
    each += [["tool_id_first", "tool_name_cut"], ["tool_name_cut", "tool_id"], ["tool_everywhere", "role_everywhere"]]
    vendors.fakes["shareai"].script(*[{"do": "sloppy", "miss": miss, "tool": True} for miss in each])
    with client_of(vendors.serve("shareai")) as client:
        for miss in each:
            (choice,) = call_tool(client, HELLO, stream=True).choices
            (call,) = choice.message.tool_calls or []
            assert (choice.message.role, choice.finish_reason) == ("assistant", "tool_calls"), miss
            assert (call.type, call.function.name) == ("function", "get_weather"), miss
            assert json.loads(call.function.arguments) == {"city": "Paris"}, miss
            assert call.id == "call_0" if "tool_id" in miss else call.id.startswith("call_shareai_"), miss
    assert len(vendors.bodies("shareai")) == len(each)


def test_a_chunk_without_choices_reaches_only_who_asked_for_the_usage(vendors: Vendors) -> None:
    """Azure's first chunk has the results of its filters, and clients look for a choice in every chunk."""
    filters = '{"id":"","object":"","created":0,"model":"","prompt_filter_results":[],"choices":[]}'
    vendors.fakes["shareai"].script(default={"do": "malformed_event", "after": 1, "data": filters})
    gateway = vendors.serve("shareai")
    for wanted in [False, True]:
        answer = ask(gateway, chat(stream=True, stream_options={"include_usage": wanted}))
        chunks = chunks_of(answer.raw)
        bare = [chunk for chunk in chunks if not chunk.choices]
        assert [chunk.usage is not None for chunk in bare] == ([False, True] if wanted else [])
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == "Hello from shareai."
    assert len(vendors.bodies("shareai")) == 2


@STREAMS
def test_a_vendors_own_finish_reason_is_told_in_openais_word(vendors: Vendors, stream: bool) -> None:
    words = {
        "eos": "stop", "STOP": "stop", "end_turn": "stop", "max_tokens": "length", "MAX_TOKENS": "length",
        "tool_use": "tool_calls", "SAFETY": "content_filter", "model_length": "length", "unheard_of": "stop",
    }  # fmt: skip
    vendors.fakes["shareai"].script(*({"do": "sloppy", "finish": word} for word in words))
    gateway = vendors.serve("shareai")
    assert {word: said(ask(gateway, stream=stream), stream).finish for word in words} == words


@STREAMS
@pytest.mark.parametrize("usage", ["normal", "deepseek_only"])
def test_cached_tokens_are_where_openais_clients_look(vendors: Vendors, usage: str, stream: bool) -> None:
    vendors.fakes["deepseek"].script({"do": "answer", "cached": 2, "usage": usage})
    gateway = vendors.serve("deepseek")
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = said(ask(gateway, chat(stream, text="hello " * 9, **options)), stream)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert record_of(gateway)["usage"]["cached"] == 2


@STREAMS
def test_anthropics_cached_tokens_are_part_of_the_prompt(vendors: Vendors, stream: bool) -> None:
    vendors.fakes["anthropic"].script({"do": "answer", "cached": 4, "cache_written": 3})
    gateway = vendors.serve("anthropic")
    options = {"stream_options": {"include_usage": True}} if stream else {}
    usage = said(ask(gateway, chat(stream, text="hello " * 9, **options)), stream).usage
    (seen,) = vendors.seen("anthropic")
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == tuple(
        seen["spent"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    assert usage.prompt_tokens_details.cached_tokens == 4
    told = record_of(gateway)["usage"]
    assert (told["input"], told["cached"], told["cache_write"]) == (usage.prompt_tokens, 4, 3)


# Streams.

#: How a provider tells the usage, and whether that is believed.
USAGES = {
    "normal": True,
    "none": False,
    "zero": None,
    "in_last_chunk": True,
    "every_chunk": True,
}


@pytest.mark.parametrize("asks", [False, True], ids=["silent", "asks"])
@pytest.mark.parametrize("name", ["openai", "deepseek", "shareai"])
def test_the_usage_of_a_stream_is_always_asked_for_and_told_once_to_who_asked(
    vendors: Vendors, name: str, asks: bool
) -> None:
    vendors.fakes[name].script(*({"do": "answer", "usage": usage} for usage in USAGES))
    gateway = vendors.serve(name)
    options = {"stream_options": {"include_usage": True}} if asks else {}
    for number, (usage, reported) in enumerate(USAGES.items(), 1):
        answer = ask(gateway, chat(True, **options))
        chunks = chunks_of(answer.raw)
        told = [chunk for chunk in chunks if chunk.usage]
        spent = vendors.seen(name)[-1]["spent"]
        record = record_of(gateway, number)["usage"]
        if reported:
            assert record["source"] == "reported"
            assert (record["input"], record["output"]) == (spent["prompt_tokens"], spent["completion_tokens"])
        elif reported is False:
            assert record["source"] == "estimated" and record["input"] and record["output"]
        if asks and reported:
            (last,) = told
            assert last is chunks[-1] and last.choices == [], usage
            assert last.usage.prompt_tokens == spent["prompt_tokens"]
            assert last.usage.completion_tokens == spent["completion_tokens"]
        elif not asks:
            assert not told and all(chunk.choices for chunk in chunks), usage
    for body in vendors.bodies(name):
        assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("asks", [False, True], ids=["silent", "asks"])
def test_anthropics_usage_is_told_once_to_who_asked(vendors: Vendors, asks: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks else {}
    answer = ask(vendors.serve("anthropic"), chat(True, **options))
    chunks = chunks_of(answer.raw)
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - asks) + [True] * asks
    assert all(chunk.choices or chunk.usage for chunk in chunks)
    assert "stream_options" not in vendors.bodies("anthropic")[0]


@pytest.mark.parametrize("form", ["first_token", "complete"])
@EVERY_VENDOR
def test_noise_is_left_out_and_counted(vendors: Vendors, name: str, form: str) -> None:
    vendors.fakes[name].script({"do": "malformed_event", "after": 2, "data": "[KEEPALIVE]", "gap": 0.02})
    gateway = vendors.serve(name)
    answer = ask(gateway, stream=True, headers={"x-shunt-stream": form})
    assert said(answer, True).text == f"Hello from {name}."
    record = record_of(gateway)
    assert (record["malformed_events"], record["outcome"]) == (1, "answered")
    assert vendors.seen(name)[0]["ended"] == "complete"


@EVERY_VENDOR
def test_a_hole_after_the_release_is_an_error_and_no_end(vendors: Vendors, name: str) -> None:
    vendors.fakes[name].script({"do": "malformed_event", "after": 2, "data": '"NOT "', "gap": 0.05})
    gateway = vendors.serve(name)
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.broken) == (200, None)
    assert answer.events[-1]["error"]["code"] == "stream_truncated" and b"[DONE]" not in answer.raw
    record = record_of(gateway)
    assert (record["malformed_events"], record["outcome"]) == (1, "garbled")


@EVERY_VENDOR
def test_comments_and_blank_lines_before_an_answer_do_not_reach_the_client(vendors: Vendors, name: str) -> None:
    comments = {"do": "comments", "gap": 0.02, "for": 0.1, "then": {"do": "answer"}}
    blanks = {"do": "leading_blank"}
    vendors.fakes[name].script(comments, blanks, comments, blanks)
    gateway = vendors.serve(name)
    for stream in (True, True, False, False):
        answer = ask(gateway, stream=stream)
        assert said(answer, stream).text == f"Hello from {name}."
        assert answer.raw.startswith(b"data: {" if stream else b"{")
    assert len(vendors.bodies(name)) == 4


@EVERY_VENDOR
def test_done_stands_behind_a_finished_stream_and_no_other(vendors: Vendors, name: str) -> None:
    finished: list[Json] = [{"do": "answer"}, {"do": "no_done"}]
    unfinished: list[Json] = [
        # Far enough apart that the first is released before the end comes.
        {"do": "clean_cut", "after": 3, "gap": 0.1},
        {"do": "error_event_200", "after": 3, "gap": 0.1, "message": "Overloaded", "type": "server_error"},
        {"do": "error_event_200", "after": 3, "gap": 0.1, "event": True, "done": True},
    ]
    vendors.fakes[name].script(*finished, *unfinished)
    gateway = vendors.serve(name)
    for _ in finished:
        ask(gateway, stream=True).assert_whole_stream()
    for step in unfinished:
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.broken, answer.raw.count(b"[DONE]")) == (200, None, 0), step
        *chunks, last = answer.events
        assert answer.raw.endswith(b"\n\n")
        assert chunks and not any("error" in chunk for chunk in chunks)
        assert list(last) == ["error"] and set(last["error"]) == {"message", "type", "param", "code"}
        assert last["error"]["message"] and last["error"]["type"]
        if "message" in step:
            assert last["error"]["message"] == "Overloaded"
    assert len(vendors.bodies(name)) == 5


# One conversation, several vendors.

CUT = {"do": "cut", "after": 0}
#: Before each turn: what the vendors ahead of the one who answers do, and who that is.
TURNS: list[tuple[dict[str, Json], str]] = [
    ({}, "openai"),
    ({"openai": {"do": "status", "status": 503}}, "deepseek"),
    ({"openai": CUT, "deepseek": {"do": "reset_before_headers"}}, "anthropic"),
    ({"openai": {"do": "silent"}, "deepseek": {"do": "error_json_200"}, "anthropic": CUT}, "shareai"),
    ({"openai": {"do": "error_event_200", "role": True}, "deepseek": {"do": "empty_200"}}, "anthropic"),
    ({"openai": {"do": "html"}}, "deepseek"),
    ({}, "openai"),
]


@STREAMS
def test_a_conversation_moves_from_vendor_to_vendor_and_stays_one(vendors: Vendors, stream: bool) -> None:
    limits = {"first_token": "500ms", "answer": "500ms"}
    never = {"consecutive_failures": 1000, "minimum_requests": 1000}
    gateway = vendors.serve(*VENDORS, changes={"limits": limits, "breaker": never})
    messages: list[Json] = [{"role": "system", "content": "Be brief."}]
    for number, (faults, answerer) in enumerate(TURNS):
        for name in VENDORS:
            fine = {"do": "answer", "text": f"Answer {number} by {name}."}
            if name == "shareai":
                fine = {"do": "sloppy", "miss": ["id", "created", "role", "index", "logprobs"], "text": fine["text"]}
            vendors.fakes[name].script(default=faults.get(name, fine))
        messages.append({"role": "user", "content": f"Question {number}?"})
        body: Json = {"model": "assistant", "messages": messages, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        answer = ask(gateway, body)
        one = said(answer, stream)
        assert (answer.provider, one.text) == (answerer, f"Answer {number} by {answerer}.")
        assert [attempt.partition(":")[0] for attempt in answer.attempts][-1] == answerer
        assert (one.finish, one.usage.prompt_tokens > 0) == ("stop", True)
        # Whoever answers has heard all of it, in the words of the others.
        heard = vendors.bodies(answerer)[-1]
        history = messages if answerer != "anthropic" else messages[1:]
        assert [(turn["role"], turn["content"]) for turn in heard["messages"]] == [
            (turn["role"], turn["content"]) for turn in history
        ]
        assert answerer != "anthropic" or heard["system"] == "Be brief."
        messages.append({"role": "assistant", "content": one.text})


@STREAMS
def test_a_tool_is_called_by_one_vendor_and_its_result_is_read_by_another(vendors: Vendors, stream: bool) -> None:
    """Each calls, and the next one down reads the call, with the id that another vendor gave it."""
    gateway = vendors.serve("openai", "anthropic", "shareai")
    fails = {"do": "status", "status": 503}
    call = {"do": "tool_call"}
    for caller, reader in [("openai", "anthropic"), ("anthropic", "shareai"), ("shareai", "anthropic")]:
        sloppy = {"do": "sloppy", "tool": True, "miss": ["tool_id", "tool_type", "tool_index"]}
        behave = dict.fromkeys(("openai", "anthropic", "shareai"), fails)
        for name in behave:
            vendors.fakes[name].reset()
            vendors.fakes[name].script(default=fails)
        with client_of(vendors.serve(caller, reader)) as client:
            messages: list[Any] = list(HELLO)
            vendors.fakes[caller].script(sloppy if caller == "shareai" else call)
            first = call_tool(client, messages, stream)
            (made,) = first.choices[0].message.tool_calls or []
            messages += [first.choices[0].message, {"role": "tool", "tool_call_id": made.id, "content": "22 degrees"}]
            vendors.fakes[reader].script(default={"do": "answer", "text": "It is sunny."})
            second = call_tool(client, messages, stream)
        assert second.choices[0].message.content == "It is sunny."
        heard = vendors.bodies(reader)[-1]["messages"]
        if reader == "anthropic":
            use, result = heard[1]["content"][0], heard[2]["content"][0]
            assert (use["type"], use["input"], result["type"]) == ("tool_use", {"city": "Paris"}, "tool_result")
            assert use["id"] == result["tool_use_id"]
        else:
            assert heard[1]["tool_calls"][0]["id"] == heard[2]["tool_call_id"] == made.id
    assert gateway.is_serving()


# Errors that stop.

SECRET = "sk-proj-0123456789abcdef"


@dataclass(frozen=True)
class Told:
    """An error as a vendor tells it, and what of it the client must hear."""

    name: str
    step: Json
    says: Optional[str]
    code: Optional[str] = None
    param: Optional[str] = None
    kind: str = "invalid_request_error"


def body(content: Any, content_type: Optional[str] = None) -> Json:
    step = {"do": "status", "status": 400, "body": content}
    return step if content_type is None else {**step, "content_type": content_type}


TOLD = [
    Told(
        "openai",
        body({"error": {"message": "Bad value.", "type": "invalid_request_error", "param": "top_p", "code": "invalid_value"}}),
        "Bad value.",
        "invalid_value",
        "top_p",
    ),
    Told("envelope_in_part", body({"error": {"message": "Bad value.", "type": "odd"}}), "Bad value.", kind="odd"),
    Told("number_as_code", body({"error": {"message": "Bad value.", "code": 40012}}), "Bad value.", "40012"),
    Told("text_as_error", body({"error": "Bad value."}), "Bad value."),
    Told("detail", body({"detail": "Bad value."}), "Bad value."),
    Told("details", body({"detail": [{"loc": ["body", "top_p"], "msg": "Field required", "type": "missing"}]}), "Field required"),
    Told("object", body({"object": "error", "message": "Bad value.", "type": "BadRequestError", "code": 400}), "Bad value.", "400", kind="BadRequestError"),
    Told("list", body([{"error": {"code": 400, "message": "Bad value.", "status": "INVALID_ARGUMENT"}}]), "Bad value.", "400"),
    Told(
        "anthropic",
        body({"type": "error", "error": {"type": "invalid_request_error", "message": "top_p: bad value"}, "request_id": "r"}),
        "top_p: bad value",
    ),
    Told("html", {"do": "html", "status": 400}, None),
    Told("text", body("Bad value\n", "text/plain"), "Bad value"),
    Told("empty", body("", "text/plain"), "status 400"),
    Told("not_json", body("{", "application/json"), None),
    Told("huge", body({"error": {"message": "Bad value. " + "x" * 100_000, "type": "odd"}}), "Bad value."),
    Told("huge_text", body("Bad value. " + "x" * 100_000, "text/plain"), "Bad value."),
    Told("echo", body({"error": {"message": f"Not with the key {SECRET}.", "type": "odd", "param": None, "code": None}}), "Not with the key", kind="odd"),
    Told("echo_in_text", body(f"denied: {SECRET}", "text/plain"), "denied"),
    Told("echo_in_param", body({"error": {"message": "no", "type": "odd", "param": SECRET, "code": SECRET}}), "no", kind="odd"),
]  # fmt: skip


def assert_told(answer: Answer, case: Told, status: int) -> None:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json"), case.name
    answer.assert_length()
    assert list(answer.json) == ["error"], case.name
    error = answer.error
    assert error["message"] and error["type"], case.name
    assert case.says is None or case.says.replace("400", str(status)) in error["message"], (case.name, error)
    assert "<" not in error["message"] and len(answer.raw) < 80_000
    assert "0123456789" not in answer.raw.decode(), case.name
    if "echo" not in case.name:
        assert (error["code"], error["param"]) == (case.code, case.param), case.name
    if not case.name.startswith("huge"):
        assert error["type"] == case.kind, case.name


@STREAMS
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_an_error_of_any_form_is_told_in_the_envelope(vendors: Vendors, name: str, status: int, stream: bool) -> None:
    vendors.fakes[name].script(*({**case.step, "status": status} for case in TOLD))
    # The other one refuses, too, so that the client gets the first refusal, which was kept until then.
    vendors.fakes["shareai"].script(default={"do": "status", "status": 400, "message": "another refusal"})
    gateway = vendors.serve(name, "shareai", changes={"breaker": {"consecutive_failures": 65535}})
    for case in TOLD:
        answer = ask(gateway, stream=stream)
        assert_told(answer, case, status)
        assert answer.attempts == [f"{name}:bad_request", "shareai:bad_request"], case.name
    assert len(vendors.seen(name)) == len(vendors.seen("shareai")) == len(TOLD)
    assert SECRET not in gateway.log()


def test_a_key_that_is_refused_under_400_is_the_gateways_matter(vendors: Vendors) -> None:
    message = f"Incorrect API key provided: {SECRET}. You can find your key at https://example.com."
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    for name in ("openai", "shareai"):
        vendors.fakes[name].script(default=body({"error": error}))
    gateway = vendors.serve("openai", "shareai")
    answer = ask(gateway)
    assert answer.attempts == ["openai:bad_key", "shareai:bad_key"]
    assert answer.error["code"] == "all_providers_failed"
    assert SECRET not in answer.raw.decode() and SECRET not in gateway.log()
    assert asked(vendors) == ["openai", "shareai"]


@EVERY_VENDOR
def test_a_key_in_an_error_of_a_stream_is_taken_out(vendors: Vendors, name: str) -> None:
    message = f"Not with the key {SECRET} or sk-{name}."
    vendors.fakes[name].script({"do": "error_event_200", "after": 3, "gap": 0.1, "message": message})
    answer = ask(vendors.serve(name), stream=True)
    last = answer.events[-1]["error"]
    assert last["message"].startswith("Not with the key") and set(last) == {"message", "type", "param", "code"}
    assert b"0123456789" not in answer.raw and f"sk-{name}" not in answer.raw.decode()
    assert len(vendors.bodies(name)) == 1


# What a vendor cannot be asked.

UNSUPPORTED: list[tuple[Json, str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"functions": [{"name": "f", "parameters": {}}]}, "functions"),
    ({"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "audio"),
]


@STREAMS
@pytest.mark.parametrize(("more", "word"), UNSUPPORTED, ids=[word for _, word in UNSUPPORTED])
def test_a_vendor_that_cannot_be_asked_this_is_passed_over(vendors: Vendors, more: Json, word: str, stream: bool) -> None:
    gateway = vendors.serve("anthropic", "openai")
    answer = ask(gateway, chat(stream, **more))
    assert (answer.status, answer.attempts) == (200, ["openai:answered"])
    assert answer.headers["x-shunt-degraded"] == "anthropic:unsupported"
    sent = vendors.bodies("openai")[0]
    assert {key: sent[key] for key in more} == more
    assert asked(vendors) == ["openai"]
    # And it is asked the next thing that it can be.
    assert ask(gateway, chat(stream)).attempts == ["anthropic:answered"]


@STREAMS
def test_a_request_that_nobody_can_be_asked_is_refused(vendors: Vendors, stream: bool) -> None:
    answer = ask(vendors.serve("anthropic"), chat(stream, n=2))
    assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter")
    assert answer.error["type"] == "invalid_request_error" and " n " in answer.error["message"]
    assert asked(vendors) == []
