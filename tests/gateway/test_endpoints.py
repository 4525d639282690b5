"""The other endpoints, the paths that pass as they are, and vendors that are described by data alone."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from typing import Any

import httpx
import openai
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.completion import Completion
from openai.types.responses import Response
from pydantic import BaseModel

from support import CLIENT_KEY, Answer, Gateway, Json, ask, asked, chat, raw_exchange
from vendors import Vendors, client_of, record_of

COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/completions", "/v1/embeddings", "/v1/responses"
FAILS: Json = {"do": "status", "status": 503}
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


# Legacy completions.


@STREAMS
@pytest.mark.parametrize(
    ("step", "answerer"),
    [
        pytest.param({"do": "answer"}, "openai", id="healthy"),
        pytest.param(FAILS, "deepseek", id="overloaded"),
        pytest.param({"do": "cut", "after": 0}, "deepseek", id="cut"),
        pytest.param({"do": "error_json_200"}, "deepseek", id="error_in_200"),
    ],
)
def test_a_text_is_completed_by_who_can(vendors: Vendors, step: Json, answerer: str, stream: bool) -> None:
    vendors.fakes["openai"].script(default=step)
    gateway = vendors.serve("openai", "deepseek", path=COMPLETIONS)
    with client_of(gateway) as client:
        asked_for: Any = {"model": "assistant", "prompt": "Once"}
        if stream:
            options: Any = {"stream": True, "stream_options": {"include_usage": True}}
            chunks = list(client.completions.create(**asked_for, **options))
            assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == f"Hello from {answerer}."
            assert [choice.finish_reason for choice in chunks[-2].choices] == ["stop"]
            assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert {chunk.object for chunk in chunks} == {"text_completion"}
        else:
            raw = client.completions.with_raw_response.create(**asked_for)
            completion = Completion.model_validate(json.loads(raw.content), strict=True)
            assert completion.choices[0].text == f"Hello from {answerer}."
            assert completion.usage and completion.usage.total_tokens
    path = "/v1/completions" if answerer == "openai" else "/completions"
    seen = vendors.seen(answerer)[-1]
    assert (seen["path"], seen["body"]["prompt"], seen["refused"]) == (path, "Once", None)
    assert list(dict.fromkeys(asked(vendors))) == list(dict.fromkeys(["openai", answerer]))


def test_a_stream_of_text_tells_no_usage_to_who_did_not_ask(vendors: Vendors) -> None:
    gateway = vendors.serve("openai", path=COMPLETIONS)
    answer = ask(gateway, {"model": "assistant", "prompt": "Once", "stream": True}, path=COMPLETIONS)
    *chunks, done = answer.events
    assert done == "[DONE]" and chunks
    for chunk in chunks:
        assert chunk["choices"] and not chunk.get("usage")
    (body,) = vendors.bodies("openai")
    assert body["stream_options"] == {"include_usage": True}
    assert record_of(gateway)["operation"] == "text_completion"


# Embeddings.


@pytest.mark.parametrize("form", ["float", "base64"])
def test_texts_are_embedded_by_who_can(vendors: Vendors, form: Any) -> None:
    vendors.fakes["openai"].script(default=FAILS)
    vendors.fakes["deepseek"].script(default={"do": "empty_200"})
    gateway = vendors.serve("openai", "deepseek", "shareai", path=EMBEDDINGS)
    with client_of(gateway) as client:
        raw = client.embeddings.with_raw_response.create(model="assistant", input=["a", "bc"], encoding_format=form)
        parsed = raw.parse()
    document = json.loads(raw.content)
    if form == "base64":
        assert all(base64.b64decode(one["embedding"]) for one in document["data"])
    else:
        CreateEmbeddingResponse.model_validate(document, strict=True)
    assert [one.index for one in parsed.data] == [0, 1] and parsed.usage.total_tokens
    assert raw.headers["x-shunt-provider"] == "shareai"
    (body,) = vendors.bodies("shareai")
    assert (body["input"], body["encoding_format"]) == (["a", "bc"], form)
    assert "stream_options" not in body
    record = record_of(gateway)
    assert (record["operation"], record["usage"]["input"]) == ("embeddings", parsed.usage.prompt_tokens)


@pytest.mark.parametrize("usage", ["none", "partial"])
def test_an_embedding_without_its_usage_gets_one(vendors: Vendors, usage: str) -> None:
    vendors.fakes["openai"].script({"do": "answer", "usage": usage})
    answer = ask(vendors.serve("openai", path=EMBEDDINGS), {"model": "assistant", "input": "hello"}, path=EMBEDDINGS)
    embedded = CreateEmbeddingResponse.model_validate(answer.json, strict=True)
    assert embedded.usage.prompt_tokens == embedded.usage.total_tokens > 0
    assert vendors.seen("openai")[0]["ended"] == "complete"


def test_an_embedding_with_missing_fields_is_put_right(vendors: Vendors) -> None:
    bare = {"data": [{"embedding": [0.5, 1]}, {"embedding": [1, 2]}]}
    vendors.fakes["openai"].script({"do": "status", "status": 200, "body": bare})
    answer = ask(vendors.serve("openai", path=EMBEDDINGS), {"model": "assistant", "input": ["a", "b"]}, path=EMBEDDINGS)
    embedded = CreateEmbeddingResponse.model_validate(answer.json, strict=True)
    assert [(one.index, one.embedding) for one in embedded.data] == [(0, [0.5, 1]), (1, [1, 2])]
    assert (embedded.model, embedded.object) == ("gpt-5.4-mini", "list")


# Models.


def test_the_gateway_itself_tells_which_models_there_are(vendors: Vendors) -> None:
    gateway = vendors.serve("openai", "deepseek", "anthropic")
    with client_of(gateway) as client:
        assert [(model.id, model.owned_by) for model in client.models.list()] == [("assistant", "openai")]
        model = client.models.retrieve("assistant")
        assert (model.id, model.object, type(model.created)) == ("assistant", "model", int)
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("gpt-2")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert ask(gateway, b"", path="/v1/models?limit=3", method="GET").json["object"] == "list"
    assert ask(gateway, {}, path="/v1/models").status == 404
    assert asked(vendors) == []


NAMES = ["deepseek-ai/DeepSeek-V3", "ft:gpt-5:acme:é", "50%", "a b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_models_name_may_have_slashes_and_any_letter(vendors: Vendors, name: str) -> None:
    providers = {"openai": {"models": dict.fromkeys(NAMES, "gpt-5.4-mini")}}
    gateway = vendors.serve("openai", "shareai", changes={"providers": providers})
    encoded = urllib.parse.quote(name, safe="")
    lower = re.sub("%..", lambda escape: escape[0].lower(), encoded)
    for sent in {encoded, lower, urllib.parse.quote(name, safe="/:")}:
        answer = ask(gateway, b"", path=f"/v1/models/{sent}", method="GET")
        assert (answer.status, answer.json["id"]) == (200, name), sent
    with client_of(gateway) as client:
        assert client.models.retrieve(name).id == name


@pytest.mark.parametrize("name", ["deepseek-ai%252FDeepSeek-V3", "%C3", "%FF%FE", "none%2Fof%2Fthese", "a%2Fb/../c"])
def test_a_models_name_that_nobody_has_or_that_is_no_text_is_not_found(vendors: Vendors, name: str) -> None:
    gateway = vendors.serve("openai", "shareai")
    answer = ask(gateway, b"", path=f"/v1/models/{name}", method="GET")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize("name", ["50%", "%zz", "%4"])
def test_a_models_name_with_a_broken_escape_is_not_found(vendors: Vendors, name: str) -> None:
    gateway = vendors.serve("openai", "shareai")
    request = f"GET /v1/models/{name} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode()
    status, _, body = raw_exchange(gateway, request)
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


# Responses.


def responses(world: Vendors, **more: Any) -> Gateway:
    return world.serve("openai", "shareai", path=RESPONSES, **more)


def respond(gateway: Gateway, stream: bool = False, **more: Any) -> Answer:
    body = {"model": "assistant", "input": "hello", **more}
    return ask(gateway, {**body, "stream": True} if stream else body, path=RESPONSES)


def response_of(answer: Answer) -> Json:
    """The response, whole or as the last event of a stream has it."""
    assert answer.status == 200, answer.raw[:500]
    if "event-stream" not in answer.headers["content-type"]:
        return answer.json
    assert answer.broken is None and b"[DONE]" not in answer.raw
    numbers = [event["sequence_number"] for event in answer.events]
    assert numbers == list(range(len(numbers)))
    last = answer.events[-1]
    assert last["type"] == "response.completed"
    done: Json = last["response"]
    return done


class City(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("step", "answerer"),
    [
        pytest.param({"do": "answer"}, "openai", id="healthy"),
        pytest.param(FAILS, "shareai", id="overloaded"),
        pytest.param({"do": "silent"}, "shareai", id="silent"),
        pytest.param({"do": "response_failed"}, "shareai", id="failed"),
        pytest.param({"do": "error_event_200"}, "shareai", id="error_event"),
        pytest.param({"do": "cut", "after": 0}, "shareai", id="cut"),
    ],
)
def test_a_response_comes_from_who_can_give_it(vendors: Vendors, step: Json, answerer: str) -> None:
    vendors.fakes["openai"].script(default=step)
    limits = {"first_token": "500ms", "answer": "500ms"}
    gateway = responses(vendors, changes={"limits": limits, "breaker": {"consecutive_failures": 100}})
    hello = f"Hello from {answerer}."
    with client_of(gateway) as client:
        raw = client.responses.with_raw_response.create(model="assistant", input="hello")
        Response.model_validate(json.loads(raw.content), strict=True)
        assert raw.parse().output_text == hello
        with client.responses.stream(model="assistant", input="hello") as events:
            deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
            final = events.get_final_response()
    assert "".join(deltas) == final.output_text == hello
    assert final.usage and final.usage.total_tokens
    seen = vendors.seen(answerer)
    assert [entry["path"] for entry in seen] == [RESPONSES] * len(seen)
    assert all("stream_options" not in entry["body"] for entry in seen)
    assert list(dict.fromkeys(asked(vendors))) == list(dict.fromkeys(["openai", answerer]))
    record = record_of(gateway, 2)
    assert (record["provider"], record["usage"]["source"]) == (answerer, "reported")
    assert record["usage"]["output"] == final.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_response_that_the_model_ended_without_a_word_is_an_answer(vendors: Vendors, stream: bool) -> None:
    vendors.fakes["openai"].script(default={"do": "empty_finish"})
    gateway = responses(vendors)
    with client_of(gateway) as client:
        if stream:
            with client.responses.stream(model="assistant", input="hello") as events:
                final = events.get_final_response()
        else:
            final = client.responses.create(model="assistant", input="hello")
    assert (final.status, final.output_text) == ("completed", "")
    assert asked(vendors) == ["openai"]
    assert record_of(gateway)["outcome"] == "answered"


def test_a_response_of_a_form_is_parsed_by_the_official_client(vendors: Vendors) -> None:
    vendors.fakes["openai"].script(default={"do": "answer", "text": '{"name":"Paris"}'})
    with client_of(responses(vendors)) as client:
        parsed = client.responses.parse(model="assistant", input="hello", text_format=City)
    assert parsed.output_parsed == City(name="Paris")
    assert vendors.bodies("openai")[0]["text"]["format"]["name"] == "City"


def test_a_stream_of_the_responses_api_that_breaks_off_ends_with_its_error_event(vendors: Vendors) -> None:
    steps: list[Json] = [
        {"do": "clean_cut", "after": 3, "gap": 0.1},
        {"do": "response_failed", "after": 3, "gap": 0.1, "message": "Not with sk-openai."},
    ]
    vendors.fakes["openai"].script(*steps)
    gateway = responses(vendors)
    cut, failed = respond(gateway, True), respond(gateway, True)
    for answer in (cut, failed):
        numbers = [event["sequence_number"] for event in answer.events]
        assert numbers == list(range(len(numbers)))
        assert (answer.broken, answer.raw.count(b"[DONE]"), answer.attempts) == (None, 0, ["openai:answered"])
        assert "sk-openai" not in answer.raw.decode()
    assert (cut.events[-1]["type"], cut.events[-1]["error"]["code"]) == ("response.failed", "stream_truncated")
    assert failed.events[-1]["type"] == "response.failed"
    assert asked(vendors) == ["openai", "openai"]


@STREAMS
@pytest.mark.parametrize("keeper", ["openai", "shareai"])
def test_a_response_is_continued_by_who_keeps_it(vendors: Vendors, keeper: str, stream: bool) -> None:
    if keeper == "shareai":
        vendors.fakes["openai"].script(FAILS)
    gateway = responses(vendors)
    first = respond(gateway, stream)
    assert first.provider == keeper
    second = respond(gateway, stream, previous_response_id=response_of(first)["id"])
    assert (second.provider, second.attempts) == (keeper, [f"{keeper}:answered"])
    # The third continues the second, which was itself a continuation.
    third = respond(gateway, stream, previous_response_id=response_of(second)["id"])
    assert third.attempts == [f"{keeper}:answered"]
    bodies = vendors.bodies(keeper)
    assert [body.get("previous_response_id") for body in bodies][-2:] == [response_of(first)["id"], response_of(second)["id"]]
    assert asked(vendors)[-2:] == [keeper, keeper]


@STREAMS
def test_a_response_whose_keeper_is_down_is_not_continued_by_another(vendors: Vendors, stream: bool) -> None:
    gateway = responses(vendors)
    first = response_of(respond(gateway, stream))["id"]
    vendors.fakes["openai"].script(default=FAILS)
    answer = respond(gateway, stream, previous_response_id=first)
    assert (answer.status, answer.attempts) == (503, ["openai:overloaded"])
    assert answer.error["code"] == "all_providers_failed"
    assert asked(vendors) == ["openai", "openai"]
    # What continues nothing moves.
    assert respond(gateway, stream).provider == "shareai"


#: Two routes to the same providers; the model `there` has the other one first.
BOTH_WAYS: Json = {
    "routes": [
        {"name": "there", "match": {"path": RESPONSES, "model": "there"}, "providers": ["shareai", "openai"]},
        {"name": "here", "match": {"path": RESPONSES}, "providers": ["openai", "shareai"]},
    ]
}


@pytest.mark.parametrize("named", ["conv_1", {"id": "conv_1"}], ids=["text", "object"])
def test_a_conversation_stays_with_who_keeps_it(vendors: Vendors, named: Any) -> None:
    gateway = responses(vendors, changes=BOTH_WAYS)
    # Nobody knows it yet: the first of the route is asked, and nobody else, who could not know it.
    vendors.fakes["openai"].script(FAILS)
    lost = respond(gateway, conversation=named)
    assert (lost.status, lost.attempts) == (503, ["openai:overloaded"])
    begun = respond(gateway, model="there", conversation=named)
    assert (begun.status, begun.attempts) == (200, ["shareai:answered"])
    for stream in (False, True):
        continued = respond(gateway, stream, conversation=named)
        assert (continued.status, continued.attempts) == (200, ["shareai:answered"])
    assert asked(vendors) == ["openai", "shareai", "shareai", "shareai"]
    assert [body["conversation"] for body in vendors.bodies("shareai")] == [named] * 3


def test_a_conversation_that_does_not_exist_costs_nobody_the_model(vendors: Vendors) -> None:
    words = "Conversation with id 'conv_0' not found."
    body = {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}}
    vendors.fakes["openai"].script({"do": "status", "status": 404, "body": body})
    gateway = responses(vendors, changes=BOTH_WAYS)
    unknown = respond(gateway, conversation="conv_0")
    assert (unknown.status, unknown.attempts, unknown.error["message"]) == (404, ["openai:bad_request"], words)
    assert respond(gateway).attempts == ["openai:answered"]
    # Who did not know it is not taken for its keeper.
    assert respond(gateway, model="there", conversation="conv_0").attempts == ["shareai:answered"]
    assert asked(vendors) == ["openai", "openai", "shareai"]


def test_a_response_that_nobody_remembers_is_asked_of_the_first(vendors: Vendors) -> None:
    answer = respond(responses(vendors), previous_response_id="resp_unknown")
    assert (answer.status, answer.attempts) == (400, ["openai:bad_request"])
    assert (answer.error["code"], answer.error["param"]) == ("previous_response_not_found", "previous_response_id")
    assert asked(vendors) == ["openai"]


# Paths that pass as they are.

PASSES = [
    {"path": "/v1/files*", "provider": "shareai"},
    {"path": "/v1/balance", "provider": "deepseek"},
    {"path": "/v1/messages/batches*", "provider": "anthropic"},
]


@pytest.fixture
def passing(vendors: Vendors) -> Gateway:
    return vendors.serve("shareai", "openai", changes={"passthrough": PASSES})


def test_a_listed_path_goes_to_its_provider_with_its_query(vendors: Vendors, passing: Gateway) -> None:
    answer = ask(passing, b"", path="/v1/files?limit=2&after=a%20b", method="GET", headers={"cookie": "a=b", "accept": "*/*"})
    assert (answer.status, answer.provider) == (200, "shareai")
    (seen,) = vendors.seen("shareai")
    assert (seen["method"], seen["path"]) == ("GET", "/v1/files?limit=2&after=a%20b")
    assert asked(vendors) == ["shareai"]


@pytest.mark.parametrize("query", ["key=", "limit=2&api_key=", "a;Access%5FToken=", "%6bey="])
def test_a_key_in_the_query_of_a_listed_path_is_sent_to_nobody(vendors: Vendors, passing: Gateway, query: str) -> None:
    answer = ask(passing, b"", path=f"/v1/files?{query}{CLIENT_KEY}", method="GET")
    assert answer.status == 400
    assert json.loads(answer.raw)["error"]["code"] == "api_key_in_query" and CLIENT_KEY.encode() not in answer.raw
    assert asked(vendors) == []
    assert (record_of(passing)["outcome"], record_of(passing)["status"]) == ("rejected", 400)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "POST", "PATCH"])
def test_a_listed_path_passes_with_every_method(vendors: Vendors, passing: Gateway, method: str) -> None:
    body = b'{"purpose":"x"}' if method in ("PUT", "POST", "PATCH") else b""
    answer = ask(passing, body, path="/v1/files/file-1", method=method)
    assert answer.status == 200
    (seen,) = vendors.seen("shareai")
    assert (seen["method"], seen["path"], seen["raw"] or "") == (method, "/v1/files/file-1", body.decode())


def test_a_file_is_uploaded_as_it_is(vendors: Vendors, passing: Gateway) -> None:
    content = b"a,b\r\n1,2\r\n" * 20_000
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    with httpx.Client(trust_env=False, timeout=20) as client:
        sent = client.build_request(
            "POST", passing.url + "/v1/files", files={"file": ("a.csv", content)}, data={"purpose": "x"}, headers=headers
        )
        assert client.send(sent).status_code == 200
    (seen,) = vendors.seen("shareai")
    received = {name.lower(): value for name, value in seen["headers"]}
    assert received["content-type"] == sent.headers["content-type"]
    assert seen["body_length"] == int(sent.headers["content-length"]) > len(content)
    record = record_of(passing)
    assert (record["route"], record["provider"]) == ("passthrough", "shareai")


def test_each_path_has_its_providers_key_and_prefix(vendors: Vendors, passing: Gateway) -> None:
    assert ask(passing, b"", path="/v1/balance", method="GET").provider == "deepseek"
    assert [entry["path"] for entry in vendors.seen("deepseek")] == ["/balance"]
    answer = ask(passing, b"", path="/v1/messages/batches/b1", method="GET")
    assert answer.provider == "anthropic", answer
    assert [entry["path"] for entry in vendors.seen("anthropic")] == ["/v1/messages/batches/b1"]
    assert sorted(asked(vendors)) == ["anthropic", "deepseek"]


@pytest.mark.parametrize("path", ["/v1/file", "/v1/balance/more", "/v1/fine_tuning/jobs", "/files"])
def test_a_path_that_is_not_listed_goes_nowhere(vendors: Vendors, passing: Gateway, path: str) -> None:
    for method, body in (("GET", b""), ("POST", b"{}")):
        answer = ask(passing, body, path=path, method=method)
        assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert asked(vendors) == []


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_of_a_passing_request_is_the_providers_and_ends_it(vendors: Vendors, passing: Gateway, status: int) -> None:
    told = {"error": {"message": "no such file", "type": "odd"}}
    vendors.fakes["shareai"].script({"do": "status", "status": status, "body": told})
    answer = ask(passing, b"", path="/v1/files/file-1", method="GET")
    assert (answer.status, answer.json) == (status, told)
    assert asked(vendors) == ["shareai"]
    # Nor does it say anything about chats.
    assert ask(passing).attempts == ["shareai:answered"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_passing_request_that_breaks_is_not_tried_again(vendors: Vendors, passing: Gateway, method: str) -> None:
    vendors.fakes["shareai"].script(default={"do": "reset_before_headers"})
    answer = ask(passing, b"{}" if method == "POST" else b"", path="/v1/files", method=method)
    assert answer.status == 503 and answer.error["code"] == "all_providers_failed"
    assert asked(vendors) == ["shareai"]


STORED = {"passthrough": [{"path": "/v1/chat/completions*", "provider": "shareai"}]}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_routes_own_path_passes_with_every_method_but_post(vendors: Vendors, method: str) -> None:
    gateway = vendors.serve("openai", "shareai", changes=STORED)
    answer = ask(gateway, b"", path="/v1/chat/completions?limit=2&model=a%20b", method=method)
    assert (answer.status, answer.provider) == (200, "shareai"), answer.raw
    (seen,) = vendors.seen("shareai")
    assert (seen["method"], seen["path"]) == (method, "/v1/chat/completions?limit=2&model=a%20b")
    assert record_of(gateway)["route"] == "passthrough"
    assert ask(gateway, b"", path="/v1/chat/completions/chat-1/messages", method=method).provider == "shareai"
    assert asked(vendors) == ["shareai"] * 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_post_of_such_a_path_is_still_a_chat(vendors: Vendors, stream: bool) -> None:
    vendors.fakes["openai"].script(FAILS)
    gateway = vendors.serve("openai", "shareai", changes=STORED)
    answer = ask(gateway, stream=stream)
    assert (answer.status, answer.attempts) == (200, ["openai:overloaded", "shareai:answered"])
    answer = ask(gateway, {"metadata": {}}, path="/v1/chat/completions/chat-1")
    assert (answer.provider, vendors.seen("shareai")[-1]["path"]) == ("shareai", "/v1/chat/completions/chat-1")


def test_a_routes_own_path_that_is_not_listed_takes_post_alone(vendors: Vendors, passing: Gateway) -> None:
    answer = ask(passing, b"", path="/v1/chat/completions", method="GET")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert asked(vendors) == []


# Vendors that are described by data.


def test_a_vendor_is_described_by_paths_headers_and_parameters(vendors: Vendors) -> None:
    azure = {
        "like": "openai",
        "paths": {"chat/completions": "/openai/deployments/{model}/chat/completions?api-version=2026-01-01"},
        "key": {"header": "api-key"},
        "headers": {"x-region": "eu", "x-account": "a-1"},
        "parameters": {
            "rename": {"max_completion_tokens": "max_tokens"},
            "drop": ["logit_bias", "store"],
            "set": {"safe_prompt": True, "route": {"order": ["a", 1]}},
        },
    }
    provider = {"dialect": azure, "path_prefix": "/", "models": {"assistant": "gpt-5"}}
    vendors.more_headers = frozenset({"api-key", "x-region", "x-account"})
    vendors.fakes["deepseek"].script(default=FAILS)
    gateway = vendors.serve("deepseek", "shareai", changes={"providers": {"shareai": provider}})
    more: Json = {"max_completion_tokens": 7, "logit_bias": {"1": 2}, "store": True, "safe_prompt": False, "top_p": 0.5}
    answer = ask(gateway, chat(True, **more), headers={"x-region": "us", "api-key": CLIENT_KEY})
    assert answer.provider == "shareai"
    answer.assert_whole_stream()
    (seen,) = vendors.seen("shareai")
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert (headers["api-key"], headers["x-region"], headers["x-account"]) == ("sk-shareai", "eu", "a-1")
    assert "authorization" not in headers
    assert seen["path"] == "/openai/deployments/gpt-5/chat/completions?api-version=2026-01-01"
    assert seen["body"] == {
        **chat(True, model="gpt-5"),
        "max_tokens": 7,
        "safe_prompt": True,
        "route": {"order": ["a", 1]},
        "top_p": 0.5,
        "stream_options": {"include_usage": True},
    }
    # None of it was for the other vendor.
    (first,) = vendors.seen("deepseek")
    assert "api-key" not in dict(first["headers"]) and "x-region" not in dict(first["headers"])
    kept = ("logit_bias", "store", "safe_prompt", "top_p")
    assert {key: first["body"][key] for key in kept} == {key: more[key] for key in kept} and "route" not in first["body"]


@pytest.mark.parametrize("where", ["first", "last"])
def test_deepseek_hears_of_the_longest_answer_under_its_own_name(vendors: Vendors, where: str) -> None:
    vendors.fakes["openai"].script(default=FAILS)
    limit = {"max_completion_tokens": 9}
    body = {**limit, **chat()} if where == "first" else {**chat(), **limit}
    assert ask(vendors.serve("openai", "deepseek"), body).provider == "deepseek"
    (heard,) = vendors.bodies("deepseek")
    assert heard["max_tokens"] == 9 and "max_completion_tokens" not in heard
    assert vendors.seen("openai")[0]["body"]["max_completion_tokens"] == 9


def test_a_model_cannot_leave_its_segment_of_the_path(vendors: Vendors) -> None:
    dialect = {"paths": {"chat/completions": "/m/{model}/chat/completions"}}
    gateway = vendors.serve("shareai", changes={"providers": {"shareai": {"dialect": dialect}}})
    assert ask(gateway, chat(model="../../files?a=b#c")).status == 200
    (seen,) = vendors.seen("shareai")
    assert seen["path"] == "/v1/m/..-..-files-a-b-c/chat/completions"
    assert seen["model"] == "../../files?a=b#c"
