"""Everything at once: callers of every kind, and providers of every kind that misbehave at random while one of them is well.

`SHUNT_CHAOS=100` runs so many rounds instead of three; the number of a round is its seed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
from typing import Any, Iterator

import httpx
import pytest

from accounts import records
from server import PLAIN
from support import CHAT, CLIENT_KEY, PROVIDERS, Answer, Gateway, Json, Upstream, ask, assert_no_trap, config, fake

ROUNDS = int(os.environ.get("SHUNT_CHAOS", "3"))
#: Requests of one round, of which so many are under way at a time.
REQUESTS, CALLERS = 120, 16
COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/completions", "/v1/embeddings", "/v1/responses"

WELL: list[Json] = [
    {"do": "answer"}, {"do": "answer", "usage": "none"}, {"do": "answer", "usage": "every_chunk"}, {"do": "answer", "gap": 0.02},
    {"do": "answer", "delay": 0.2}, {"do": "tool_call"}, {"do": "reasoning", "reasoning": "Hmm."}, {"do": "empty_finish"},
    {"do": "finish_reason"}, {"do": "split", "size": 3}, {"do": "split", "size": 7, "crlf": True}, {"do": "bad_headers"},
    {"do": "leading_blank"}, {"do": "big", "bytes": 300_000}, {"do": "split_event"}, {"do": "split_event", "after": 0, "times": 3},
    {"do": "sloppy", "miss": ["tool_id_first"], "tool": True}, {"do": "sloppy", "miss": ["usage_twice"]},
]  # fmt: skip
#: What every request must survive.
FAULTS: list[Json] = [
    *({"do": "status", "status": status} for status in (401, 402, 404, 408, 429, 500, 502, 503, 529)),
    *({"do": "status", "status": status} for status in (409, 410, 412, 413, 498, 499)),
    {"do": "status", "status": 503, "headers": {"retry-after": "1"}}, {"do": "status", "status": 500, "headers": {"retry-after": "60"}},
    {"do": "error_json_200", "code": "invalid_api_key"}, {"do": "error_json_200", "code": "429"},
    {"do": "error_event_200", "code": "rate_limit_exceeded"}, {"do": "error_event_200", "role": True, "code": "503"},
    {"do": "malformed_event", "after": 0}, {"do": "malformed_event", "after": 0, "data": '{"choices":[{"delta":{"content":"Not "}'},
    {"do": "html"}, {"do": "html", "status": 403}, {"do": "redirect"}, {"do": "early"}, {"do": "garbage"}, {"do": "http_garbage"}, {"do": "gzip"},
    {"do": "error_json_200", "code": "overloaded"}, {"do": "error_event_200"}, {"do": "error_event_200", "role": True},
    {"do": "empty_200"}, {"do": "empty_stream"}, {"do": "done_only"}, {"do": "clean_cut", "after": 0},
    {"do": "silent", "for": 5}, {"do": "headers_only", "for": 5}, {"do": "comments", "for": 5}, {"do": "role_only", "for": 5},
    {"do": "stall", "after": 0, "for": 5}, {"do": "cut", "after": 0}, {"do": "cut", "after": 0, "how": "fin"},
    {"do": "reset_before_headers"}, {"do": "reset_at_once"}, {"do": "close_before_headers"}, {"do": "reset_reused"},
]  # fmt: skip
#: What a stream that was released cannot survive, and everything else must.
LATE: list[Json] = [
    {"do": "stall", "after": 2, "for": 5}, {"do": "cut", "after": 2}, {"do": "cut", "after": 3, "how": "fin"},
    {"do": "clean_cut", "after": 2}, {"do": "error_event_200", "after": 2, "code": "overloaded"},
    {"do": "malformed_event", "after": 2}, {"do": "malformed_event", "after": 2, "data": '{"choices":[{"delta":{"content":"Not "}'},
]  # fmt: skip

PRICED = {"price": {"input": 1, "output": 2}}
#: Whoever fails is asked again soon, or the chaos would be over after a moment.
SETTINGS = config(
    {
        "limits": {"first_token": "2s", "answer": "4s"},
        "breaker": {"open": "100ms", "max_open": "200ms"},
        "holds": {**dict.fromkeys(("rate_limited", "out_of_quota", "bad_key", "no_such_model"), "100ms"), "max": "200ms"},
        "retry": {"attempts": 8},
        "tenant": {"header": "x-tenant"},
        "budgets": [
            {"name": "tenants", "match": {"tenant": "*"}, "limit": 100_000, "per": "day"},
            {"name": "openai", "match": {"provider": "openai"}, "limit": 100_000, "per": "day"},
        ],
        "providers": {
            "openai": {"models": {"assistant": {"name": "gpt-5.4-mini", **PRICED}}},
            "deepseek": {"dialect": "deepseek", "models": {"assistant": {"name": "deepseek-flash", **PRICED}}},
            "shareai": {"dialect": "anthropic", "models": {"assistant": {"name": "claude-sonnet-4-5", **PRICED}}},
        },
        "routes": [
            {"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepseek", "shareai"],
             "policy": {"type": "priority", "allow": ["latency", "cost", "balanced"]}},
            *({"name": path, "match": {"path": path}, "providers": ["openai", "deepseek"]} for path in (COMPLETIONS, EMBEDDINGS, RESPONSES)),
        ],
    }
)  # fmt: skip
# A request that is too long for one must not be known to be too long for the one that is well.
for _provider in SETTINGS["providers"].values():
    for _model in filter(lambda model: isinstance(model, dict), _provider["models"].values()):
        _model.pop("context", None)


@pytest.fixture
def fakes() -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        yield {
            "openai": stack.enter_context(fake.start("openai")),
            "deepseek": stack.enter_context(fake.start("deepseek", dialect="deepseek", http2=True)),
            "shareai": stack.enter_context(fake.start("shareai", dialect="anthropic")),
        }


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_who_asks_is_answered_as_long_as_one_provider_is_well(fakes: dict[str, Any], seed: int) -> None:
    chance = random.Random(seed)
    # The one that speaks every format.
    well = chance.choice(["openai", "deepseek"])
    for name, provider in fakes.items():
        steps = WELL if name == well else 3 * FAULTS + 2 * LATE + WELL
        provider.script(*chance.choices(steps, k=4 * REQUESTS), default=WELL[0])
        provider.listen(name == well or chance.random() > 0.2)
    upstreams = {name: Upstream(provider.port, http2=name == "deepseek") for name, provider in fakes.items()}
    # Every other round, streams that break off say so.
    told = seed % 2 == 0
    stream = {"on_break": "event" if told else "reset"}
    settings = {**SETTINGS, "routes": [{**route, "stream": stream} for route in SETTINGS["routes"]]}
    gateway = Gateway(settings, upstreams, workers=2).start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
            seeds = [chance.random() for _ in range(REQUESTS)]
            list(pool.map(lambda each: call(gateway, random.Random(each), told), seeds))
        # One record for each request, also of those who left.
        assert len({record["request_id"] for record in records(gateway, REQUESTS)}) == REQUESTS
        for name, provider in fakes.items():
            assert_no_secret_of_another(name, provider.log())
        assert_no_trap(gateway)
    finally:
        gateway.stop()


def assert_no_secret_of_another(name: str, log: list[Json]) -> None:
    """Each request came with the provider's own key, and with no other."""
    for seen in log:
        headers = dict(map(tuple, seen["headers"]))
        assert f"sk-{name}" in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer ")), seen
        everything = json.dumps(seen)
        assert not any(secret in everything for secret in (CLIENT_KEY, *(f"sk-{other}" for other in PROVIDERS if other != name))), seen


def call(gateway: Gateway, chance: random.Random, told: bool) -> None:
    """One request, checked. `told`: a stream that breaks off ends with an error event."""
    path = chance.choice([CHAT, CHAT, CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES])
    text = chance.choice(["hello", 'much "text" \\ é ' * chance.choice([10, 2000, 30_000])])
    body: Json = {"model": "assistant"}
    headers = {"x-tenant": chance.choice("abc")}
    if path == CHAT:
        body["messages"] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": text}]
        if chance.random() < 0.3:
            headers["x-shunt-policy"] = chance.choice(["latency", "cost", "balanced"])
    else:
        body["prompt" if path == COMPLETIONS else "input"] = text
    stream = path != EMBEDDINGS and chance.random() < 0.6
    if stream:
        body["stream"] = True
        if chance.random() < 0.3:
            headers["x-shunt-stream"] = "complete"
    http2 = chance.random() < 0.4
    if chance.random() < 0.1:
        leave(gateway, path, body, headers, http2)
    else:
        answer = ask(gateway, body, path=path, headers=headers, http2=http2)
        check(path, headers, answer)
        assert not (told and answer.broken), (path, headers, answer.attempts, answer.raw[-500:])


def leave(gateway: Gateway, path: str, body: Json, headers: Json, http2: bool) -> None:
    """A client that does not wait for its answer; it has sent its request."""
    with httpx.Client(http1=not http2, http2=http2, timeout=20, trust_env=False, verify=PLAIN) as client:
        with contextlib.suppress(httpx.HTTPError):
            with client.stream("POST", gateway.url + path, json=body, headers=headers) as response:
                next(response.iter_raw(), None)


def check(path: str, headers: Json, answer: Answer) -> None:
    """A whole or complete answer is a good one; a released stream is whole, or visibly is not."""
    seen = (path, headers, answer.status, answer.attempts, answer.broken, answer.raw[-500:])
    if answer.status == 409:
        # No other provider is asked about a conflict. The same one is, once more, unless its breaker has opened in the meantime.
        conflict = f"{answer.provider}:bad_request"
        assert answer.attempts[-1] == conflict and answer.attempts.count(conflict) <= 2, seen
        return
    assert answer.status == 200 and answer.provider, seen
    if "text/event-stream" not in answer.headers["content-type"]:
        assert answer.broken is None and (answer.json.get("choices") or answer.json.get("data") or answer.json.get("output") is not None), seen
        return
    if path == RESPONSES:
        finished = answer.broken is None and any(end in answer.raw for end in (b'"response.completed"', b'"response.incomplete"'))
        failed = any(end in answer.raw.replace(b" ", b"") for end in (b'"type":"response.failed"', b'"type":"error"'))
    else:
        finished = answer.broken is None and answer.raw.rstrip().endswith(b"data: [DONE]")
        failed = answer.broken is None and any(event != "[DONE]" and "error" in event for event in answer.events)
        if finished:
            answer.assert_whole_stream()
            assert_whole_text(path, answer)
    assert finished or headers.get("x-shunt-stream") != "complete", seen
    assert finished or failed or answer.broken, seen


def assert_whole_text(path: str, answer: Answer) -> None:
    """A stream that looks whole has all of its provider's text, without a hole, and a call has one id, its name and its arguments."""
    texts, calls = [], []
    for choice in (choice for event in answer.events if event != "[DONE]" for choice in event.get("choices", [])):
        delta = {"content": choice["text"]} if path == COMPLETIONS else choice["delta"]
        texts.append(delta.get("content") or "")
        calls += delta.get("tool_calls") or []
    text = "".join(texts)
    # Every other text of the fakes is empty, or one line again and again.
    whole = text in ("", f"Hello from {answer.provider}.") or len(text) == 300_000
    assert whole, (answer.attempts, text[:200])
    if calls:
        told = [call["function"].get("name") for call in calls if call["function"].get("name")]
        ids = [call["id"] for call in calls if call.get("id")]
        arguments = "".join(call["function"].get("arguments") or "" for call in calls)
        assert (len(ids), told, arguments) == (1, ["get_weather"], '{"city":"Paris"}'), (answer.attempts, calls)
