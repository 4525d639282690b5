"""Changing the configuration while requests flow, and configurations that are wrong."""

from __future__ import annotations

import json
from typing import Any, Iterator

import httpx
import pytest

from gateway import RELOADS
from support import CHAT, CLIENT_KEY, Gateway, Json, Upstream, World, ask, chat, config, fake, wait_for
from traffic import DEGRADED, Traffic, ask_in_turn, assert_all_served, reload_clusters, reload_listeners

#: Longer than any test: what is open stays open.
STAYS_OPEN: Json = {"breaker": {"open": "60s", "max_open": "60s"}}
PASSED_OVER = 'provider "{}" is skipped'


def route(*providers: str) -> list[Json]:
    return [{"name": "chat", "match": {"path": CHAT}, "providers": list(providers)}]


@pytest.fixture
def extra() -> Iterator[Any]:
    """A fourth provider."""
    with fake.start("extra") as provider:
        yield provider


def headers_of(entry: Json) -> Json:
    return {name.lower(): value for name, value in entry["headers"]}


# Under traffic


def test_providers_are_added_changed_and_removed_without_a_failed_request(world: World, extra: Any) -> None:
    # The variable of a later provider must be there from the start.
    gateway = world.gateway(STAYS_OPEN, environment={"EXTRA_API_KEY": "sk-extra"}, workers=2, own_process=RELOADS)
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    ask_in_turn(gateway, 5)
    world.fakes["openai"].script(default={"do": "answer"})
    providers = gateway.config["providers"]

    with Traffic(gateway, callers=2) as new, Traffic(gateway, callers=2, keep=True) as kept:
        new.wait_for(lambda answer: answer.attempts == ["deepseek:answered"], 20)

        # Added: the cluster, then the line in the map and the entry in the configuration.
        gateway.upstreams["extra"] = Upstream(extra.port)
        reload_clusters(gateway)
        providers["extra"] = {"host": "api.extra.test", "api_key": "$EXTRA_API_KEY", "models": {"*": "extra-1"}}
        gateway.config["routes"] = route("openai", "extra", "deepseek", "shareai")
        reload_listeners(gateway)
        new.wait_for(lambda answer: answer.headers["x-shunt-model"] == "extra-1", 20)

        # Changed: another host, which is another cluster, and other models.
        extra.script(default={"do": "status", "status": 503})
        new.wait_for(lambda answer: answer.headers.get(DEGRADED) == "openai:open,extra:open", 20)
        gateway.upstreams["deepseek"] = Upstream(world.fakes["shareai"].port)
        reload_clusters(gateway)
        providers["deepseek"].update(host="eu.deepseek.test", models={"assistant": "deepseek-2"})
        reload_listeners(gateway)
        new.wait_for(lambda answer: answer.headers["x-shunt-model"] == "deepseek-2", 20)

        # Removed, in the other order.
        del providers["extra"], gateway.upstreams["extra"]
        gateway.config["routes"] = route("openai", "deepseek", "shareai")
        reload_listeners(gateway)
        new.wait_for(lambda answer: answer.headers.get(DEGRADED) == "openai:open", 20)
        reload_clusters(gateway)
        new.wait_for_answers(20)

    assert_all_served(new.answers + kept.answers)
    # Nothing of all that made anybody forget the first provider's breaker.
    assert all(answer.headers[DEGRADED].startswith("openai:open") for answer in new.answers + kept.answers)
    assert len(world.seen("openai")) == 5
    for entry in extra.log():
        assert headers_of(entry)["authorization"] == "Bearer sk-extra"
        assert (headers_of(entry)["host"], entry["model"]) == ("api.extra.test", "extra-1")
    moved = [entry for entry in world.fakes["shareai"].log() if entry["model"] == "deepseek-2"]
    assert len(moved) >= 20
    for entry in moved:
        assert headers_of(entry)["authorization"] == "Bearer sk-deepseek"
        assert headers_of(entry)["host"] == "eu.deepseek.test"


def test_a_stream_that_runs_while_its_provider_is_changed_is_whole(world: World) -> None:
    gateway = world.gateway({"limits": {"first_token": "60s"}}, own_process=RELOADS)
    world.fakes["openai"].script({"do": "hold", "after": 1})
    with Traffic(gateway, callers=1, stream=True) as traffic:
        wait_for(lambda: world.fakes["openai"].stats()["holding"] == 1, what="the stream")
        gateway.upstreams["openai"] = Upstream(world.fakes["shareai"].port)
        reload_clusters(gateway)
        gateway.config["providers"]["openai"]["models"] = {"assistant": "gpt-new"}
        reload_listeners(gateway)
        assert ask(gateway).headers["x-shunt-model"] == "gpt-new"
        world.fakes["openai"].release()
        traffic.wait_for_answers(5)
    assert_all_served(traffic.answers)
    first, *later = traffic.answers
    assert (first.headers["x-shunt-model"], first.text) == ("gpt-5.4-mini", "Hello from openai.")
    assert {answer.headers["x-shunt-model"] for answer in later} == {"gpt-new"}
    assert len(world.seen("openai")) == 1


# The route's map and the clusters' filters


def test_a_first_provider_that_the_map_lacks_is_passed_over_and_named_in_the_log(world: World) -> None:
    gateway = world.gateway(unmapped=("openai",))
    answers = ask_in_turn(gateway, 3) + ask_in_turn(gateway, 3, stream=True)
    assert_all_served(answers)
    assert {answer.provider for answer in answers} == {"deepseek"}
    assert world.counts() == {"openai": 0, "deepseek": 6, "shareai": 0}
    wait_for(lambda: PASSED_OVER.format("openai") in gateway.log(), what="the log")
    assert gateway.log().count(PASSED_OVER.format("openai")) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("refused", [False, True], ids=["503", "refused"])
def test_a_later_provider_that_the_map_lacks_is_passed_over_and_named_in_the_log(world: World, stream: bool, refused: bool) -> None:
    # Envoy keeps the cluster of the attempt before if it finds none, so both ways of failing are of interest.
    gateway = world.gateway(unmapped=("deepseek",))
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["openai"].listen(not refused)
    answers = ask_in_turn(gateway, 3, stream=stream)
    assert_all_served(answers)
    assert {answer.provider for answer in answers} == {"shareai"}
    assert world.counts() == {"openai": 0 if refused else 3, "deepseek": 0, "shareai": 3}
    wait_for(lambda: PASSED_OVER.format("deepseek") in gateway.log(), what="the log")


def no_retries(_listeners: Json, clusters: Json) -> None:
    """The first cluster has no room for a retry."""
    first = clusters["resources"][0]
    first["circuit_breakers"] = {"thresholds": [{"max_retries": 0}]}


@pytest.mark.parametrize("refused", [False, True], ids=["503", "refused"])
def test_who_was_to_be_next_is_not_passed_over_where_envoy_has_no_room_for_a_retry(world: World, refused: bool) -> None:
    gateway = world.gateway(edit=no_retries)
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    world.fakes["openai"].listen(not refused)
    answers = ask_in_turn(gateway, 3)
    # The breaker opens in the end, and then the next one is the first.
    assert {answer.status for answer in answers} == {503}
    wait_for(lambda: ask(gateway).attempts == ["deepseek:answered"], what="the breaker to open")
    assert PASSED_OVER.format("deepseek") not in gateway.log()


@pytest.mark.parametrize("configuration", [False, True], ids=["map", "map-and-configuration"])
def test_a_provider_whose_line_comes_later_is_used_from_then_on(world: World, configuration: bool) -> None:
    gateway = world.gateway(unmapped=("openai",), own_process=RELOADS)
    assert ask(gateway).provider == "deepseek"
    gateway.unmapped = ()
    if configuration:
        gateway.config["limits"]["answer"] = "5s"
    reload_listeners(gateway)
    wait_for(lambda: ask(gateway).attempts == ["openai:answered"], 5, "the provider to be used")
    assert len(world.seen("openai")) == 1


def swap_names(_listeners: Json, clusters: Json) -> None:
    """The attempt filters of the first two clusters carry each other's name."""
    first, second = (plugin_of(cluster) for cluster in clusters["resources"][:2])
    first["name"], second["name"] = second["name"], first["name"]


def plugin_of(cluster: Json) -> Json:
    """The attempt filter's plugin in a cluster."""
    (options,) = cluster["typed_extension_protocol_options"].values()
    plugin: Json = options["http_filters"][0]["typed_config"]["config"]
    return plugin


def test_a_provider_whose_cluster_is_missing_is_passed_over_after_the_first_request(world: World) -> None:
    def without_cluster(_listeners: Json, clusters: Json) -> None:
        clusters["resources"] = [cluster for cluster in clusters["resources"] if cluster["name"] != "openai"]

    gateway = world.gateway(edit=without_cluster)
    first = ask(gateway)
    # Envoy answers itself, and asks nobody else: this one is lost, in the envelope.
    assert (first.status, first.error["code"]) == (503, "gateway_unavailable")
    second = ask(gateway)
    assert (second.status, second.attempts) == (200, ["deepseek:answered"])
    wait_for(lambda: PASSED_OVER.format("openai") in gateway.log())
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_cluster_with_another_providers_name_gets_no_key_and_nothing_of_the_request(world: World, stream: bool) -> None:
    gateway = world.gateway(edit=swap_names)
    secret = "a word that only the request has"
    answers = ask_in_turn(gateway, 3, body=chat(stream, text=secret))
    assert_all_served(answers)
    assert {answer.provider for answer in answers} == {"shareai"}
    assert len(world.seen("shareai")) == 3
    for name in ("openai", "deepseek"):
        for entry in world.fakes[name].log():
            everything = json.dumps(entry)
            for private in ("sk-", CLIENT_KEY, secret, "authorization", "assistant", "gpt", "flash"):
                assert private not in everything, (name, private)
            assert entry["body_length"] == 0
    for name in ("openai", "deepseek"):
        wait_for(lambda: PASSED_OVER.format(name) in gateway.log(), what="the log")


# Configurations that are wrong


class NoKey(Gateway):
    """The variable is neither set nor let through to the filter."""

    def keys(self) -> dict[str, str]:
        keys = super().keys()
        del keys["OPENAI_API_KEY"]
        return keys


def wrong(changes: Json, kind: type[Gateway] = Gateway, **more: Any) -> Gateway:
    """A gateway whose configuration should be refused."""
    return kind(config(changes), {"openai": Upstream(1)}, **more)


def refusal(gateway: Gateway) -> str:
    """Starts a gateway, waits until it has refused its configuration, and returns its log."""
    try:
        gateway.start(wait=False)
        wait_for(lambda: "in the configuration:" in gateway.log(), 20, "the problems in the log")
        wait_for(lambda: gateway.stat("listener_manager.lds.update_rejected") > 0, what="the listener to be refused")
        with pytest.raises(httpx.ConnectError):
            ask(gateway)
        return gateway.log()
    finally:
        gateway.stop()


MISSING = "providers.openai.api_key: the environment variable OPENAI_API_KEY is not set"


def test_an_absent_key_stops_the_gateway_at_its_start_by_name() -> None:
    assert MISSING in refusal(wrong({}, NoKey))


def test_an_empty_key_stops_the_gateway_at_its_start_by_name() -> None:
    assert MISSING in refusal(wrong({}, environment={"OPENAI_API_KEY": ""}))


def test_an_optional_provider_without_its_key_is_left_out_with_a_warning(world: World) -> None:
    optional = {"providers": {"openai": {"optional": True}}}
    gateway = world.gateway(optional, environment={"OPENAI_API_KEY": ""})
    answer = ask(gateway)
    assert_all_served([answer])
    assert answer.attempts == ["deepseek:answered"] and DEGRADED not in answer.headers
    assert world.counts() == {"openai": 0, "deepseek": 1, "shareai": 0}
    assert 'provider "openai" is left out: OPENAI_API_KEY is not set' in gateway.log()


def test_every_problem_of_a_configuration_is_in_the_log_with_its_path() -> None:
    log = refusal(wrong({
        "providers": {"openai": {"hots": "api.openai.test", "api_key": "sk-literal"}, "deepseek": {"models": []}},
        "routes": [{"name": "chat", "match": {"path": CHAT}, "providers": ["openai", "deepsek"], "policy": {"type": "prioritty"}}],
        "limits": {"answer": "5 minutes"},
        "retries": {},
    }))
    for problem in (
        'providers.openai.hots: unknown "hots"; did you mean "host"?',
        "providers.openai.api_key: expected the name of an environment variable",
        "providers.deepseek.models: expected an object of models, found a list",
        'routes[0].providers[1]: unknown "deepsek"; did you mean "deepseek"?',
        'routes[0].policy.type: unknown "prioritty"',
        "limits.answer: expected ",
        'retries: unknown "retries"',
    ):
        assert problem in log, log
    assert "sk-literal" not in log, "what may be a key is in the log"


def test_a_wrong_configuration_at_run_time_is_refused_and_the_old_one_goes_on_serving(world: World) -> None:
    gateway = world.gateway(STAYS_OPEN, workers=2, own_process=RELOADS)
    world.fakes["openai"].script(default={"do": "status", "status": 503})
    ask_in_turn(gateway, 5)
    with Traffic(gateway) as traffic:
        traffic.wait_for_answers(5)
        gateway.config["limits"]["answr"] = "5s"
        gateway.write_listeners()
        wait_for(lambda: gateway.stat("listener_manager.lds.update_rejected") > 0, what="the refusal")
        wait_for(lambda: 'limits.answr: unknown "answr"; did you mean "answer"?' in gateway.log(), what="the log")
        traffic.wait_for_answers(20)

        del gateway.config["limits"]["answr"]
        gateway.config["providers"]["deepseek"]["models"]["assistant"] = "deepseek-2"
        reload_listeners(gateway)
        traffic.wait_for(lambda answer: answer.headers["x-shunt-model"] == "deepseek-2", 20)
    assert_all_served(traffic.answers)
    assert all(answer.headers[DEGRADED] == "openai:open" for answer in traffic.answers)
    assert len(world.seen("openai")) == 5
