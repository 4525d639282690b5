"""Every request has exactly one record, which says what became of it, what it used and what it cost."""

from __future__ import annotations

import datetime
import json
import re
from decimal import Decimal
from typing import Any, Optional

import httpx
import pytest

from accounts import (
    KINDS,
    PROSE,
    SAID,
    TENANT,
    assert_estimate,
    cost,
    leaving,
    named,
    only_record,
    records,
    reported,
    resetting,
    tokens,
)
from support import CHAT, CLIENT_KEY, Json, World, ask, chat, raw_exchange, request_head, wait_for

ANSWER = {"do": "answer"}
BUSY = {"do": "status", "status": 503}
TENANTS = {"tenant": {"header": TENANT, "known": ["team-a"]}}
#: Nothing is left out in a test of records, and nobody waits for a limit.
CALM: Json = {
    **TENANTS,
    "breaker": {"consecutive_failures": 65535, "minimum_requests": 1_000_000},
    "limits": {"first_token": "20s", "answer": "20s"},
}
BOTH = [False, True]
#: All that a record may have, with the type of its value.
FIELDS: dict[str, Any] = {
    "time": str, "request_id": str, "outcome": str, "status": int, "ms": int, "route": str, "policy": str, "operation": str,
    "tenant": str, "model": str, "stream": bool, "provider": str, "response_model": str, "first_token_ms": int, "plan": list,
    "left_out": dict, "attempts": list, "usage": dict, "cost_usd": str, "unpriced": bool, "malformed_events": int,
    "unpriced_parts": list, "served_model": str, "service_tier": str,
}
#: What a usage has where it is not 0.
DETAILS = {"cache_write_1h", "audio_input", "audio_output", "calls"}
ATTEMPT_FIELDS = {
    "provider", "model", "outcome", "status", "ms", "usage", "cost_usd", "unpriced", "unpriced_parts", "served_model", "service_tier",
}
#: As Envoy or nginx draw it.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


def assert_well_formed(record: Json) -> None:
    for name, value in record.items():
        assert isinstance(value, FIELDS[name]), (name, value)
    assert UUID.fullmatch(record["request_id"]), record
    begun = datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
    age = datetime.datetime.now(datetime.timezone.utc) - begun
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    for attempt in record["attempts"]:
        assert set(attempt) <= ATTEMPT_FIELDS, attempt
        assert attempt["ms"] <= record["ms"] + 1
        # A usage comes with what it costs, or says that nobody knows, or knows a part.
        is_known = "cost_usd" in attempt and "unpriced_parts" not in attempt
        assert ("usage" in attempt) == (is_known != (attempt.get("unpriced") is True)), attempt
        if "usage" in attempt:
            assert set(attempt["usage"]) - {"reconciled", *DETAILS} == {"source", *KINDS}
    for kind in KINDS:
        assert record.get("usage", {}).get(kind, 0) == sum(one.get("usage", {}).get(kind, 0) for one in record["attempts"])


def told(record: Json) -> list[tuple[str, str, Optional[int]]]:
    """Provider, outcome and status of each attempt."""
    return [(one["provider"], one["outcome"], one.get("status")) for one in record["attempts"]]


# One record for each request


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_an_answered_request_is_told_with_its_plan_and_its_only_attempt(counting: World, stream: bool) -> None:
    gateway = counting.gateway(CALM)
    answer = ask(gateway, **named("team-a", stream=stream))
    assert answer.status == 200
    record = only_record(gateway)
    assert_well_formed(record)
    expected = {
        "outcome": "answered", "status": 200, "route": "chat", "policy": "priority", "operation": "chat", "tenant": "team-a",
        "model": "assistant", "stream": stream, "provider": "openai", "response_model": "gpt-5.4-mini",
        "plan": ["openai", "deepseek", "shareai"], "unpriced": True,
    }
    assert {name: record.get(name) for name in expected} == expected
    assert ("first_token_ms" in record) == stream
    (seen,) = counting.seen("openai")
    (attempt,) = record["attempts"]
    assert (attempt["provider"], attempt["model"], attempt["outcome"], attempt["status"]) == ("openai", "gpt-5.4-mini", "answered", 200)
    assert attempt["usage"]["source"] == "reported"
    assert tokens(attempt["usage"]) == reported(seen["usage"]) == tokens(record["usage"])
    if not stream:
        assert reported(answer.json["usage"]) == reported(seen["usage"])


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_every_attempt_of_a_failover_is_told_and_only_the_one_that_answered_is_billed(counting: World, stream: bool) -> None:
    counting.fakes["openai"].script(BUSY)
    counting.fakes["deepseek"].script({"do": "cut", "after": 0, "how": "fin"})
    gateway = counting.gateway(CALM)
    answer = ask(gateway, **named("failing", stream=stream))
    assert answer.attempts == ["openai:overloaded", "deepseek:truncated", "shareai:answered"]
    record = only_record(gateway)
    assert_well_formed(record)
    cut = None if record["attempts"][1].get("status") is None else 200
    assert told(record) == [("openai", "overloaded", 503), ("deepseek", "truncated", cut), ("shareai", "answered", 200)]
    assert [one["model"] for one in record["attempts"]] == ["gpt-5.4-mini", "deepseek-flash", "assistant"]
    assert ["usage" in one for one in record["attempts"]] == [False, False, True]
    assert (record["outcome"], record["status"], record["provider"]) == ("answered", 200, "shareai")
    (seen,) = counting.seen("shareai")
    assert tokens(record["usage"]) == reported(seen["usage"])


def test_a_request_that_every_provider_failed_is_told_as_failed_with_the_clients_status(counting: World) -> None:
    counting.fakes["openai"].script(BUSY)
    counting.fakes["deepseek"].script({"do": "status", "status": 429})
    counting.fakes["shareai"].script(default={"do": "status", "status": 500})
    gateway = counting.gateway(CALM)
    answer = ask(gateway, **named("nobody"))
    record = only_record(gateway)
    assert_well_formed(record)
    assert (record["outcome"], record["status"]) == ("failed", answer.status) == ("failed", 500)
    assert told(record) == [
        ("openai", "overloaded", 503), ("deepseek", "rate_limited", 429),
        ("shareai", "server_error", 500), ("shareai", "server_error", 500),
    ]
    assert not {"usage", "provider", "cost_usd", "unpriced"} & set(record)


def test_a_passed_on_error_is_told_with_the_providers_status(counting: World) -> None:
    for name, status in (("openai", 422), ("deepseek", 400)):
        counting.fakes[name].script({"do": "status", "status": status})
    gateway = counting.gateway(CALM)
    assert ask(gateway, **named("wrong")).status == 422
    record = only_record(gateway)
    assert (record["outcome"], record["status"], record["provider"]) == ("bad_request", 422, "openai")
    assert told(record) == [("openai", "bad_request", 422), ("deepseek", "bad_request", 400)]
    assert record["second_opinion"] == "confirmed" and "usage" not in record


def test_left_out_providers_are_told_with_the_reason(counting: World) -> None:
    counting.fakes["openai"].script(BUSY)
    gateway = counting.gateway({**CALM, "breaker": {"consecutive_failures": 1, "open": "30s", "max_open": "30s"}})
    ask(gateway)
    ask(gateway)
    _, second = records(gateway, 2)
    assert second["left_out"] == {"openai": "open"}
    assert told(second) == [("deepseek", "answered", 200)]


REJECTED = {
    "bad-json": ({"body": b'{"model": "assistant", '}, 400),
    "unknown-model": ({"body": chat(model="nobody-has-it"), "path": "/v1/embeddings"}, 404),
    "too-large": ({"body": chat(text="x" * 5000)}, 413),
    "wrong-path": ({"path": "/v1/elsewhere"}, 404),
    "no-body": ({"body": b""}, 400),
    "wrong-method": ({"method": "PUT"}, 405),
    "no-model": ({"body": {"messages": []}}, 400),
}


def test_rejected_requests_are_told_as_rejected_with_their_status_and_no_attempt(counting: World) -> None:
    gateway = counting.gateway({**CALM, "limits": {**CALM["limits"], "max_request_bytes": 2048}})
    for place, (name, (request_, status)) in enumerate(REJECTED.items()):
        assert ask(gateway, **request_).status == status
        # The answer may be there before the record is.
        record = records(gateway, place + 1)[place]
        assert_well_formed(record)
        assert (record["outcome"], record["status"], record["attempts"]) == ("rejected", status, []), name
    assert counting.counts() == {"openai": 0, "deepseek": 0, "shareai": 0}


def test_the_list_of_models_is_told_as_answered(counting: World) -> None:
    gateway = counting.gateway(CALM)
    assert httpx.get(gateway.url + "/v1/models", trust_env=False).status_code == 200
    assert httpx.get(gateway.url + "/v1/models/nobody-has-it", trust_env=False).status_code == 404
    listed, unknown = records(gateway, 2)
    assert_well_formed(listed)
    assert (listed["outcome"], listed["status"], listed["attempts"]) == ("answered", 200, [])
    assert (unknown["outcome"], unknown["status"]) == ("rejected", 404)


CLIENTS = {"http1-close": leaving, "http2-reset": resetting}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_client_that_leaves_before_the_headers_is_told_as_gone_and_its_prompt_is_estimated(
    counting: World, stream: bool, client: Any
) -> None:
    provider = counting.fakes["openai"]
    provider.script({"do": "silent"})
    gateway = counting.gateway(CALM)
    with client(gateway, chat(stream, text=PROSE), {TENANT: "team-a"}):
        provider.wait_for(in_flight=1)
    record = only_record(gateway)
    assert_well_formed(record)
    assert (record["outcome"], record["tenant"], record["stream"]) == ("client_gone", "team-a", stream)
    assert told(record) == [("openai", "client_gone", None)]
    assert record["usage"]["source"] == "estimated" and record["usage"]["output"] == 0
    wait_for(lambda: provider.log()[0]["ended"] == "aborted_by_peer", what="the provider to be told")
    assert counting.counts() == {"openai": 1, "deepseek": 0, "shareai": 0}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_a_client_that_leaves_in_the_middle_of_a_stream_is_told_as_gone_and_what_was_said_is_estimated(
    counting: World, client: Any
) -> None:
    provider = counting.fakes["openai"]
    provider.script({"do": "hold", "after": 3, "chunks": 6, "text": SAID * 4})
    gateway = counting.gateway(CALM)
    with client(gateway, chat(True, text=PROSE), {TENANT: "team-a"}) as read:
        provider.wait_for(holding=1)
        came = b""
        # Three content chunks and the role: all that the provider has sent.
        while came.count(b'"delta"') < 4:
            came += read()
    record = only_record(gateway)
    assert_well_formed(record)
    assert told(record) in ([("openai", "client_gone", 200)], [("openai", "client_gone", None)])
    assert record["outcome"] == "client_gone" and "first_token_ms" in record
    assert record["usage"]["source"] == "estimated"
    wait_for(lambda: provider.log()[0]["ended"] == "aborted_by_peer", what="the provider to be told")
    assert_estimate(record["usage"], provider.log()[0]["spent"])


@pytest.mark.parametrize(
    "step",
    [{"do": "cut"}, {"do": "cut", "how": "fin"}, {"do": "clean_cut"}, {"do": "error_event_200"}],
    ids=["reset", "fin", "clean", "error-event"],
)
def test_a_stream_that_its_provider_breaks_off_is_told_and_what_was_said_is_estimated(counting: World, step: Json) -> None:
    # With a pause after each chunk: the first one is at the client before the stream breaks.
    counting.fakes["openai"].script({**step, "after": 3, "text": SAID * 4, "chunks": 6, "gap": 0.2})
    gateway = counting.gateway(CALM)
    answer = ask(gateway, **named("cut", stream=True))
    assert answer.provider == "openai"
    record = only_record(gateway)
    assert_well_formed(record)
    assert record["outcome"] == "truncated" and told(record) == [("openai", "truncated", 200)]
    (seen,) = counting.seen("openai")
    assert seen["usage"] is None
    assert record["usage"]["source"] == "estimated"
    assert_estimate(record["usage"], seen["spent"])
    assert counting.counts()["deepseek"] == 0


def test_a_stream_that_stalls_is_told_once_the_idle_limit_ends_it(counting: World) -> None:
    counting.fakes["openai"].script({"do": "stall", "after": 3, "text": SAID * 4, "chunks": 6})
    gateway = counting.gateway(CALM, idle=1)
    ask(gateway, **named("stalled", stream=True))
    record = only_record(gateway)
    assert_well_formed(record)
    assert told(record)[0][:2] == ("openai", "truncated")
    assert record["usage"]["source"] == "estimated"
    wait_for(lambda: counting.seen("openai")[0]["ended"], what="the provider to be told")
    assert_estimate(record["usage"], counting.seen("openai")[0]["spent"])


def deny(listeners: Json, _clusters: Json) -> None:
    """Something in front of Shunt that lets nobody in who says so."""
    manager = listeners["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    rule = {"permissions": [{"header": {"name": "x-deny", "present_match": True}}], "principals": [{"any": True}]}
    rbac = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"denied": rule}},
    }
    manager["http_filters"].insert(0, {"name": "rbac", "typed_config": rbac})


def test_a_request_that_never_reached_the_filter_has_a_line_of_envoys_own(counting: World) -> None:
    gateway = counting.gateway(CALM, edit=deny)
    broken = [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nnot a header\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n\r\n",
        request_head(0, "x-long: " + "x" * 70_000),
    ]
    statuses = [raw_exchange(gateway, one)[0] for one in broken]
    assert statuses == [400, 400, 431]
    assert ask(gateway, headers={"x-deny": "1"}).status == 403
    found = records(gateway, 4)
    assert [(one["outcome"], one["status"]) for one in found] == [("not_read", status) for status in (*statuses, 403)]
    assert all({"time", "flags", "ms"} <= set(one) for one in found)
    # One that a filter in front has answered has its number.
    assert UUID.fullmatch(found[3]["request_id"])


def test_every_request_has_a_number_of_its_own_whatever_the_client_says(counting: World) -> None:
    gateway = counting.gateway(CALM, workers=4)
    for number in range(20):
        ask(gateway, stream=number % 2 == 0, headers={"x-request-id": "chosen-by-the-client"})
    numbers = [record["request_id"] for record in records(gateway, 20)]
    assert len(set(numbers)) == 20 and "chosen-by-the-client" not in numbers
    assert all(map(UUID.fullmatch, numbers))


def test_a_client_that_leaves_a_withheld_stream_is_billed_what_was_said_behind_its_back(counting: World) -> None:
    provider = counting.fakes["openai"]
    provider.script({"do": "hold", "after": 3, "chunks": 6, "text": SAID * 4})
    gateway = counting.gateway(CALM)
    with leaving(gateway, chat(True, text=PROSE), {TENANT: "team-a", "x-shunt-stream": "complete"}):
        provider.wait_for(holding=1)
        sent = provider.log()[0]["bytes_sent"]
        wait_for(lambda: gateway.stat("cluster.openai.upstream_cx_rx_bytes_total") > sent, what="all of it")
    record = only_record(gateway)
    assert_well_formed(record)
    assert record["outcome"] == "client_gone" and record["usage"]["source"] == "estimated"
    wait_for(lambda: provider.log()[0]["ended"] == "aborted_by_peer", what="the provider to be told")
    assert_estimate(record["usage"], provider.log()[0]["spent"])


# Nothing that was said


def test_no_prompt_no_answer_and_no_key_is_in_any_log(counting: World) -> None:
    marks = {"prompt": "xyzzy-prompt-7741", "answer": "xyzzy-answer-7742", "thought": "xyzzy-thought-7743", "tool": "xyzzy-tool-7744",
             "error": "xyzzy-error-7745", "junk": "xyzzy-junk-7746", "event": "xyzzy-event-7747"}  # fmt: skip
    text = f"{marks['answer']} {SAID}"
    steps: list[Json] = [
        {**ANSWER, "text": text},
        {"do": "cut", "after": 3, "text": text},
        {"do": "reasoning", "reasoning": marks["thought"], "text": text},
        {"do": "tool_call", "arguments": json.dumps({"place": marks["tool"]})},
        {"do": "status", "status": 400, "message": marks["error"]},
        {"do": "status", "status": 500, "message": marks["error"]},
        {"do": "error_event_200", "after": 2, "message": marks["error"], "text": text},
        {"do": "malformed_event", "after": 2, "data": '{"choices": [' + marks["event"], "text": text},
        {"do": "html"},
        {"do": "garbage"},
    ]
    gateway = counting.gateway(CALM, log_level="info")
    tool = {"type": "function", "function": {"name": "place", "description": marks["tool"], "parameters": {"type": "object"}}}
    count = 0
    for step in steps:
        for stream in BOTH:
            counting.fakes["openai"].script(step)
            ask(gateway, chat(stream, text=marks["prompt"], tools=[tool], user=marks["prompt"]))
            count += 1
    ask(gateway, b'{"messages": "' + marks["junk"].encode() + b'", ')
    ask(gateway, b'{"model": 5, "messages": "' + marks["junk"].encode() + b'"}')
    ask(gateway, path=f"{CHAT}?api_key={CLIENT_KEY}")
    counting.fakes["openai"].script({"do": "hold", "after": 1, "text": text})
    with leaving(gateway, chat(True, text=marks["prompt"])) as read:
        read()
    everything = json.dumps(records(gateway, count + 4)) + gateway.log()
    for kind, mark in marks.items():
        assert mark not in everything, kind
    for key in ("sk-openai", "sk-deepseek", "sk-shareai", CLIENT_KEY):
        assert key not in everything


def test_what_a_client_puts_into_names_cannot_break_the_line(counting: World) -> None:
    gateway = counting.gateway(CALM)
    model = 'evil"}\n{"outcome": "forged\u2028\u0007' + "long" * 500
    assert ask(gateway, chat(model=model), headers={TENANT: 'a"b\\c'}).status == 200
    record = only_record(gateway)
    assert_well_formed(record)
    assert record["tenant"] == 'a"b\\c'
    assert len(record["model"]) <= 256 and model.startswith(record["model"])


# Money

PRICE: Json = {"input": 0.25, "cached_input": 0.025, "output": 2, "reasoning": 3, "request": 0.000125}
#: Every day and all of it: it covers now whenever the test runs.
ALL_DAY = {"from": "00:00", "to": "24:00", "multiply": 2.5}
PRICED = {
    "plain": ({"input": 0.25, "output": 2}, {}, False),
    "cached-input": (PRICE, {"cached": 64}, False),
    "below-the-tier": ({**PRICE, "above": [{"tokens": 10_000, "input": 4, "output": 15}]}, {}, False),
    "above-the-tier": ({**PRICE, "above": [{"tokens": 50, "input": 4, "cached_input": 0.4, "output": 15}]}, {"cached": 30}, False),
    "in-a-window": ({**PRICE, "windows": [ALL_DAY]}, {"cached": 30}, True),
    "only-per-request": ({"input": 0, "output": 0, "request": 0.00000325}, {}, False),
}


@pytest.mark.parametrize(("price", "step", "window"), PRICED.values(), ids=list(PRICED))
def test_the_cost_is_that_of_the_reported_tokens_to_the_last_digit(
    counting: World, price: Json, step: Json, window: bool
) -> None:
    counting.fakes["openai"].script(default={**ANSWER, "text": SAID, **step})
    gateway = counting.gateway({**CALM, "prices": {"openai": {"gpt-5.4-mini": price}}})
    for stream in BOTH:
        ask(gateway, **named("payer", stream=stream))
    for record, seen in zip(records(gateway, 2), counting.seen("openai")):
        usage = reported(seen["usage"])
        assert usage["input"] > 50 and usage["cached"] == step.get("cached", usage["cached"])
        expected = cost(price, usage, window)
        assert expected > 0
        assert Decimal(record["cost_usd"]) == expected == Decimal(record["attempts"][0]["cost_usd"])
        assert "e" not in record["cost_usd"].lower() and "unpriced" not in record


def test_reasoning_has_its_own_price(counting: World) -> None:
    counting.fakes["openai"].script({"do": "reasoning", "reasoning": PROSE, "text": SAID})
    gateway = counting.gateway({**CALM, "prices": {"*": {"gpt-5.4-mini": PRICE}}})
    ask(gateway, **named("thinker"))
    record = only_record(gateway)
    assert record["usage"]["reasoning"] > 0
    assert Decimal(record["cost_usd"]) == cost(PRICE, record["usage"])


def test_a_model_without_a_price_is_told_as_unpriced_and_makes_the_whole_request_so(counting: World) -> None:
    # The first attempt has a price and a usage, the second only a usage.
    counting.fakes["openai"].script({"do": "cut", "after": 4, "usage": "every_chunk", "text": SAID, "chunks": 6, "gap": 0.1})
    gateway = counting.gateway({**CALM, "prices": {"openai": {"gpt-5.4-mini": PRICE}}})
    request_ = named("unknown", stream=True)
    request_["headers"]["x-shunt-stream"] = "complete"
    assert ask(gateway, **request_).attempts == ["openai:truncated", "deepseek:answered"]
    record = only_record(gateway)
    first, second = record["attempts"]
    assert Decimal(first["cost_usd"]) == cost(PRICE, first["usage"]) and "unpriced" not in first
    for unknown in (second, record):
        assert unknown["unpriced"] is True and "cost_usd" not in unknown


# Usage that survives


QUIET: list[tuple[bool, Json]] = [
    (False, {**ANSWER, "text": SAID}),
    (True, {**ANSWER, "text": SAID}),
    (False, {**ANSWER, "text": SAID * 40}),
    (True, {**ANSWER, "text": SAID * 40, "chunks": 30}),
    (True, {"do": "no_done", "text": SAID}),
]


def test_answers_without_a_usage_are_estimated_close_to_what_the_provider_counts(counting: World) -> None:
    gateway = counting.gateway(CALM)
    for stream, step in QUIET:
        counting.fakes["openai"].script({**step, "usage": "none"})
        answer = ask(gateway, **named("quiet", stream=stream, text=PROSE * 8))
        assert answer.status == 200 and answer.broken is None
    for record, seen in zip(records(gateway, len(QUIET)), counting.seen("openai")):
        assert seen["usage"] is None and record["usage"]["source"] == "estimated"
        assert_estimate(record["usage"], seen["spent"])


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "stream"])
def test_a_reported_zero_stays_zero(counting: World, stream: bool) -> None:
    counting.fakes["openai"].script({**ANSWER, "usage": "zero"})
    gateway = counting.gateway({**CALM, "prices": {"*": {"gpt-5.4-mini": {"input": 1, "output": 1}}}})
    ask(gateway, **named("free", stream=stream))
    record = only_record(gateway)
    assert record["usage"] == {"source": "reported", **dict.fromkeys(KINDS, 0)}
    assert Decimal(record["cost_usd"]) == 0


@pytest.mark.parametrize("wanted", BOTH, ids=["not-asked", "asked"])
def test_a_streams_reported_usage_is_billed_in_whatever_form_it_comes(counting: World, wanted: bool) -> None:
    gateway = counting.gateway(CALM)
    forms = ["in_last_chunk", "every_chunk", "deepseek_only", "normal"]
    for form in forms:
        counting.fakes["openai"].script({**ANSWER, "usage": form, "text": SAID})
        more = {"stream_options": {"include_usage": True}} if wanted else {}
        answer = ask(gateway, **named("forms", stream=True, **more))
        answer.assert_whole_stream()
        # Whoever asked has it, and nobody else a chunk that is about nothing else.
        own = [event for event in answer.events if event != "[DONE]" and not event.get("choices")]
        assert bool(own) == wanted, (form, own)
    for form, record, seen in zip(forms, records(gateway, len(forms)), counting.seen("openai")):
        assert record["usage"]["source"] == "reported", form
        assert tokens(record["usage"]) == reported(seen["usage"]), form


def test_a_failed_attempt_that_reported_a_usage_is_billed_and_one_that_did_not_is_not(counting: World) -> None:
    # A cut in a stream that tells its usage in every chunk, held back to its end: nothing of it reaches the client. The
    # pauses let the gateway read what came before the reset.
    counting.fakes["openai"].script({"do": "cut", "after": 4, "usage": "every_chunk", "text": SAID, "chunks": 6, "gap": 0.1})
    counting.fakes["deepseek"].script({"do": "cut", "after": 4, "text": SAID, "chunks": 6})
    prices = {"*": {name: {"input": 1, "output": 2} for name in ("gpt-5.4-mini", "deepseek-flash", "assistant")}}
    gateway = counting.gateway({**CALM, "prices": prices})
    request_ = named("twice", stream=True)
    request_["headers"]["x-shunt-stream"] = "complete"
    answer = ask(gateway, **request_)
    assert answer.attempts == ["openai:truncated", "deepseek:truncated", "shareai:answered"]
    record = only_record(gateway)
    assert_well_formed(record)
    first, second, third = record["attempts"]
    assert "usage" not in second
    for attempt, name in ((first, "openai"), (third, "shareai")):
        (seen,) = counting.seen(name)
        assert seen["usage"] and attempt["usage"]["source"] == "reported"
        assert tokens(attempt["usage"]) == reported(seen["usage"])
    price = prices["*"]["assistant"]
    assert Decimal(record["cost_usd"]) == cost(price, first["usage"]) + cost(price, third["usage"])


def test_malformed_events_are_counted_and_the_usage_after_them_is_not_lost(counting: World) -> None:
    counting.fakes["openai"].script({"do": "malformed_event", "after": 2, "data": "[KEEPALIVE]", "text": SAID})
    gateway = counting.gateway(CALM)
    ask(gateway, **named("sloppy", stream=True)).assert_whole_stream()
    record = only_record(gateway)
    assert record["malformed_events"] == 1
    assert tokens(record["usage"]) == reported(counting.seen("openai")[0]["usage"])
