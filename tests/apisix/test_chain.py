"""What reaches the client of a live stream on the chain, where its head has left before its body can be read."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import only_record, records
from support import Json, Upstream, World, ask, asked
from test_edges import CONTENT, FINISH, provider, read_request
from test_long import Pace, paced
from test_outcomes import breaker, route, status
from test_schema import TOLD, assert_told

DONE = b"data: [DONE]\n\n"
ERROR = b'event: error\ndata: {"error":{"message":"odd","type":"server_error","code":"odd"}}\n\n'


# The content type.


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", 'Text/Event-Stream;Charset="UTF-8"', "text/event-stream", "text/plain; charset=latin1"])
def test_a_live_stream_has_one_content_type_whatever_the_provider_calls_it(world: World, kind: str) -> None:
    with provider(paced(kind, [(CONTENT + FINISH + DONE, 0)], Pace())) as port:
        answer = ask(world.gateway(upstreams={"openai": Upstream(port)}), stream=True)
    assert (answer.status, answer.headers["content-type"], answer.attempts) == (200, "text/event-stream", ["openai:answered"])
    answer.assert_whole_stream()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("code", [400, 404, 422, 503])
def test_an_error_has_one_content_type_whatever_the_provider_calls_it(world: World, code: int, stream: bool) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(code, headers={"content-type": "application/json; charset=utf-8"}))
    answer = ask(world.gateway(), stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (code, "application/json")
    assert answer.error


# An error in the piece that has the first content.


@pytest.mark.parametrize(
    "pieces",
    [
        [CONTENT + CONTENT + ERROR],
        [CONTENT, CONTENT + ERROR],
        [CONTENT + CONTENT, ERROR],
        [CONTENT + CONTENT + ERROR[:30], ERROR[30:]],
        [CONTENT[:30], CONTENT[30:] + CONTENT + ERROR[:-1], ERROR[-1:]],
    ],
    ids=["one", "behind", "apart", "cut", "cut_twice"],
)
def test_what_came_before_an_error_event_reaches_the_client(world: World, pieces: list[bytes]) -> None:
    with provider(paced("text/event-stream", [(piece, 0) for piece in pieces], Pace())) as port:
        gateway = world.gateway(breaker(1), upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.broken, answer.provider) == (200, None, "openai")
        *tokens, error = answer.events
        assert [event["choices"][0]["delta"]["content"] for event in tokens] == ["hi", "hi"]
        assert (error["error"]["message"], error["error"]["code"]) == ("odd", "odd")
        assert ask(gateway, stream=True).headers["x-shunt-degraded"] == "openai:open"
    assert asked(world) == ["deepseek"]


# An error behind which no candidate is left is asked for once. Its meaning is in its body, which is read on its way to the client.

ALONE: Json = {"routes": [route("openai")]}
MODERATION: Json = {"error": {"code": 403, "message": "Your input was flagged.", "metadata": {"reasons": ["violence"], "flagged_input": "x"}}}


@pytest.mark.parametrize(
    ("step", "outcome", "by_status"),
    [
        (status(400, "content_filter"), "refused", "bad_request"),
        (status(400, "context_length_exceeded"), "too_long", "bad_request"),
        (status(400, "odd"), "bad_request", "bad_request"),
        (status(422, message="not like this"), "bad_request", "bad_request"),
        (status(424, "content_filter"), "refused", "bad_request"),
        (status(403, body=MODERATION), "refused", "bad_key"),
        (status(412, "context_length_exceeded"), "too_long", "unwilling"),
        (status(413, "rate_limit_exceeded"), "too_long", "too_long"),
    ],
    ids=["content", "length", "400", "422", "424", "403", "412", "413"],
)
def test_an_error_about_the_request_is_asked_for_once_if_nobody_is_left(world: World, step: Json, outcome: str, by_status: str) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway({**breaker(1), **ALONE})
    for request in (1, 2):
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.headers["content-type"]) == (step["status"], "application/json")
        assert answer.error["message"] and answer.error["code"] != "all_providers_failed"
        assert answer.error["code"] == (step["code"] if "code" in step else answer.error["code"])
        # The headers leave before the body is read.
        assert answer.attempts == [f"openai:{by_status}"]
        assert "x-shunt-degraded" not in answer.headers
        assert asked(world) == ["openai"] * request
    for record in records(gateway, 2):
        assert (record["outcome"], record["status"]) == (outcome, step["status"])
        (attempt,) = record["attempts"]
        assert (attempt["provider"], attempt["outcome"], attempt["status"]) == ("openai", outcome, step["status"])


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (status(403, "account_deactivated"), "bad_key"),
        (status(403, message="Incorrect API key provided: sk-openai."), "bad_key"),
        (status(400, "invalid_api_key", message="Incorrect API key provided: sk-openai."), "bad_key"),
        (status(400, "Arrearage"), "out_of_quota"),
        (status(400, "model_not_found"), "no_such_model"),
        (status(422, "rate_limit_exceeded"), "rate_limited"),
        (status(412), "unwilling"),
    ],
    ids=["403", "403_words", "400_key", "400_arrearage", "400_model", "422_rate", "412"],
)
def test_an_error_about_the_account_is_asked_for_once_and_not_told_to_the_client(world: World, step: Json, outcome: str) -> None:
    world.fakes["openai"].script(default=step)
    gateway = world.gateway({**breaker(1), **ALONE})
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.error["code"]) == (step["status"], "all_providers_failed")
    assert f"openai: {outcome} ({step['status']})" in answer.error["message"]
    assert b"sk-openai" not in answer.raw
    assert asked(world) == ["openai"]
    record = only_record(gateway)
    assert (record["outcome"], record["status"]) == ("failed", step["status"])
    assert [attempt["outcome"] for attempt in record["attempts"]] == [outcome]
    # What the body has said is remembered. Only an outcome that needs evidence holds nobody yet.
    held = "provider openai is skipped for" in gateway.log()
    assert held == (outcome != "unwilling" and "message" not in step or "code" in step)


def test_who_is_left_over_is_asked_once(world: World) -> None:
    for name, step in (("openai", status(503)), ("deepseek", status(503)), ("shareai", status(400, "content_filter"))):
        world.fakes[name].script(default=step)
    answer = ask(world.gateway(), stream=True)
    assert (answer.status, answer.error["code"], answer.provider) == (400, "content_filter", "shareai")
    assert answer.attempts == ["openai:overloaded", "deepseek:overloaded", "shareai:bad_request"]
    assert asked(world) == ["openai", "deepseek", "shareai"]


def test_who_is_too_small_as_the_last_one_is_asked_once(world: World) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(400, "context_length_exceeded", message=f"too long for {name}"))
    gateway = world.gateway(breaker(1))
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.error["message"]) == (400, "too long for shareai")
    assert asked(world) == ["openai", "openai", "deepseek", "deepseek", "shareai"]
    assert [attempt["outcome"] for attempt in only_record(gateway)["attempts"]] == ["too_long"] * 3


def test_an_error_of_any_form_is_told_in_the_envelope_on_its_way(world: World) -> None:
    for code in (400, 422):
        world.fakes["openai"].script(*({**case.step, "status": code} for case in TOLD))
        gateway = world.gateway({**ALONE, "breaker": {"consecutive_failures": 65535}})
        for case in TOLD:
            assert_told(ask(gateway, stream=True), case, code)
    assert len(world.seen("openai")) == 2 * len(TOLD)


@pytest.mark.parametrize("code", [400, 403, 409, 422])
def test_a_request_with_one_attempt_asks_once(world: World, code: int) -> None:
    world.fakes["openai"].script(default=status(code, "content_filter"))
    answer = ask(world.gateway({"retry": {"attempts": 1}}), stream=True)
    assert (answer.status, answer.error["code"]) == (code, "content_filter")
    assert asked(world) == ["openai"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(401, "bad_key"), (402, "out_of_quota"), (404, "no_such_model"), (405, "no_such_model"), (410, "no_such_model"), (429, "rate_limited"), (498, "overloaded")],
)
def test_a_status_that_says_enough_is_asked_for_once(world: World, code: int, outcome: str) -> None:
    world.fakes["openai"].script(default=status(code))
    answer = ask(world.gateway(), stream=True)
    assert (answer.status, answer.attempts) == (200, [f"openai:{outcome}", "deepseek:answered"])
    assert asked(world) == ["openai", "deepseek"]


def test_a_conflict_is_tried_once_more_although_nobody_is_left(world: World) -> None:
    world.fakes["openai"].script(status(409))
    answer = ask(world.gateway(ALONE), stream=True)
    assert (answer.status, answer.attempts, answer.text) == (200, ["openai:answered"], "Hello from openai.")
    assert asked(world) == ["openai", "openai"]


def test_an_error_that_nginx_cannot_ask_for_again_is_forwarded_and_judged(world: World) -> None:
    """The six tries are used up when the body would have to be read."""
    world.fakes["openai"].script(default=status(500))
    world.fakes["deepseek"].script(default=status(400, "content_filter", message="not this"))
    gateway = world.gateway({**breaker(100), "retry": {"attempts": 10, "same_provider": 4}})
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.error["code"], answer.error["message"]) == (400, "content_filter", "not this")
    assert asked(world) == ["openai"] * 5 + ["deepseek"]
    assert (only_record(gateway)["outcome"], only_record(gateway)["attempts"][-1]["outcome"]) == ("refused", "refused")


@pytest.mark.parametrize("code", [403, 412])
def test_an_error_about_the_provider_whose_body_breaks_off_is_no_answer(world: World, code: int) -> None:
    def serve(connection: Any) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 %d X\r\ncontent-length: 1000\r\n\r\n{" % code)

    with provider(serve) as port:
        gateway = world.gateway({**breaker(1), **ALONE}, upstreams={"openai": Upstream(port)})
        assert ask(gateway, stream=True).status == code
        record = only_record(gateway)
        assert record["outcome"] == "failed" and "provider" not in record


@pytest.mark.parametrize("how", ["cut", "endless"])
def test_an_error_whose_body_never_ends_is_told_and_no_failure(world: World, how: str) -> None:
    def serve(connection: Any) -> None:
        read_request(connection)
        body = b'{"error":{"message":"odd","type":"t"}}'
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1000000\r\n\r\n" + body[:20])
        while how == "endless":
            connection.sendall(b"x" * 10_000)

    with provider(serve) as port:
        gateway = world.gateway({**breaker(1), **ALONE}, upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.attempts) == (400, ["openai:bad_request"])
        record = only_record(gateway)
        assert (record["outcome"], [attempt["outcome"] for attempt in record["attempts"]]) == ("bad_request", ["bad_request"])
        assert "cost" not in record["attempts"][0] or not record["attempts"][0]["cost"]
        assert "x-shunt-degraded" not in ask(gateway, stream=True).headers


# What is asked for twice is one attempt, recorded and billed once.


def test_an_error_that_is_asked_for_twice_is_one_attempt_that_costs_nothing(world: World) -> None:
    world.fakes["openai"].script(default=status(400, "context_length_exceeded"))
    gateway = world.gateway()
    answer = ask(gateway, stream=True)
    assert answer.attempts == ["openai:too_long", "deepseek:answered"]
    assert asked(world) == ["openai", "openai", "deepseek"]
    first, second = only_record(gateway)["attempts"]
    assert (first["provider"], first["outcome"], first["status"]) == ("openai", "too_long", 400)
    assert "usage" not in first and second["usage"]["source"] == "reported"


def test_an_error_that_has_gone_when_it_is_asked_for_again_is_an_answer_that_is_billed_once(world: World) -> None:
    world.fakes["openai"].script(status(400))
    gateway = world.gateway()
    answer = ask(gateway, stream=True)
    assert (answer.status, answer.attempts, answer.text) == (200, ["openai:answered"], "Hello from openai.")
    (attempt,) = only_record(gateway)["attempts"]
    assert (attempt["outcome"], attempt["usage"]["source"]) == ("answered", "reported")
