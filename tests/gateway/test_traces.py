"""Traces: a client's trace goes on at the provider, and Envoy's own spans say which provider answered, and how."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Iterator

import pytest

from gateway import free_port, release_port
from support import CLIENT_KEY, Json, World, ask, chat, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"}


def headers_at(world: World, name: str, place: int = 0) -> dict[str, str]:
    return {key.lower(): value for key, value in world.seen(name)[place]["headers"]}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_clients_trace_reaches_every_provider_that_is_asked(world: World, stream: bool) -> None:
    world.fakes["openai"].script({"do": "status", "status": 503})
    assert ask(world.gateway(), stream=stream, headers=SENT).provider == "deepseek"
    for name in ("openai", "deepseek"):
        seen = headers_at(world, name)
        assert {key: seen[key] for key in SENT} == SENT


def test_a_request_without_a_trace_gets_none(world: World) -> None:
    ask(world.gateway(), headers={"tracestate": "vendor=value"})
    assert not {"traceparent", "tracestate"} & set(headers_at(world, "openai"))


def test_no_trace_reaches_a_provider_if_the_configuration_says_so(world: World) -> None:
    ask(world.gateway({"trace_context": False}), headers=SENT)
    assert not {"traceparent", "tracestate"} & set(headers_at(world, "openai"))


# Envoy's own spans


class Collector:
    """A Zipkin that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Json] = []
        self.port = free_port()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                # Envoy sends chunks.
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                collector.spans.extend(json.loads(body))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        release_port(self.port)

    def wait_for(self, count: int) -> list[Json]:
        wait_for(lambda: len(self.spans) >= count, 20, f"{count} spans")
        assert len(self.spans) == count, self.spans
        return self.spans

    def edit(self, listeners: Json, clusters: Json) -> None:
        """Gives Envoy a tracer that sends here. Each attempt is a span of its own."""
        manager = listeners["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        zipkin = {
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": "zipkin",
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": True,
            "shared_span_context": False,
            "trace_context_option": "USE_B3_WITH_W3C_PROPAGATION",
        }
        manager["tracing"] = {
            "provider": {"name": "envoy.tracers.zipkin", "typed_config": zipkin},
            "spawn_upstream_span": True,
            "custom_tags": [
                # Not the record: it is written after the span has ended.
                {"tag": f"shunt.{name}", "value": f"%RESP(x-shunt-{name})%"}
                for name in ("provider", "model", "attempts", "degraded")
            ],
        }
        endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}}}}
        clusters["resources"].append({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "zipkin", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "zipkin", "endpoints": [{"lb_endpoints": [endpoint]}]},
        })  # fmt: skip


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.stop()


def test_envoys_spans_are_one_trace_with_the_client_and_the_provider_and_say_who_answered(world: World, collector: Collector) -> None:
    world.fakes["openai"].script({"do": "status", "status": 503})
    gateway = world.gateway(edit=collector.edit)
    assert ask(gateway, stream=True, headers=SENT).provider == "deepseek"
    spans = collector.wait_for(3)
    assert {span["traceId"] for span in spans} == {TRACE}
    (server,) = [span for span in spans if span["kind"] == "SERVER"]
    assert server["parentId"] == PARENT
    expected = {"shunt.provider": "deepseek", "shunt.model": "deepseek-flash", "shunt.attempts": "openai:overloaded,deepseek:answered"}
    assert {key: server["tags"].get(key) for key in expected} == expected
    attempts = {span["tags"]["upstream_cluster.name"]: span for span in spans if span["kind"] == "CLIENT"}
    assert {name: span["tags"]["http.status_code"] for name, span in attempts.items()} == {"openai": "503", "deepseek": "200"}
    for name, span in attempts.items():
        assert span["parentId"] == server["id"]
        # The provider's parent is the span of the very attempt, and nothing else of the tracer's reaches it.
        seen = headers_at(world, name)
        assert seen["traceparent"] == f"00-{TRACE}-{span['id']}-01"
        assert seen["tracestate"] == SENT["tracestate"]


def test_spans_of_a_failed_request_say_what_every_attempt_came_to(world: World, collector: Collector) -> None:
    for provider in world.fakes.values():
        provider.script(default={"do": "status", "status": 429})
    gateway = world.gateway(edit=collector.edit)
    assert ask(gateway).status == 429
    spans = collector.wait_for(4)
    assert len({span["traceId"] for span in spans}) == 1
    (server,) = [span for span in spans if span["kind"] == "SERVER"]
    assert server["tags"]["shunt.attempts"] == "openai:rate_limited,deepseek:rate_limited,shareai:rate_limited"
    assert "shunt.provider" not in server["tags"]


def test_a_tracer_tells_providers_nothing_if_the_configuration_says_so(world: World, collector: Collector) -> None:
    gateway = world.gateway({"trace_context": False}, edit=collector.edit)
    ask(gateway, headers=SENT)
    assert {span["traceId"] for span in collector.wait_for(2)} == {TRACE}
    assert not {"traceparent", "tracestate"} & set(headers_at(world, "openai"))


def test_no_text_and_no_key_is_in_a_span(world: World, collector: Collector) -> None:
    world.fakes["openai"].script({"do": "answer", "text": "an-answer-7751"})
    gateway = world.gateway(edit=collector.edit)
    assert "an-answer-7751" in ask(gateway, chat(text="a-prompt-7752")).text
    text = json.dumps(collector.wait_for(2))
    assert not any(secret in text for secret in ("an-answer-7751", "a-prompt-7752", "sk-openai", CLIENT_KEY))
