"""Providers that Envoy itself knows to be away: unhealthy by its checks, or without an address."""

from __future__ import annotations

import pathlib
from typing import Any, Iterator

import pytest

from support import Gateway, Json, Upstream, World, ask, wait_for
from test_tls import Authority, tls_world, upstream
from traffic import DEGRADED, ask_at_once, ask_in_turn, assert_all_served

#: The shipped checks, but quicker.
CHECK: Json = {
    "interval": "0.2s", "timeout": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1,
}
#: What is tested here is Envoy's knowledge; the breaker would hide it.
NO_BREAKER: Json = {"breaker": {"consecutive_failures": 65535, "minimum_requests": 1_000_000}}
UNREACHABLE = ["openai:unreachable", "deepseek:answered"]


@pytest.fixture(params=["plain-http1", "plain-http2", "tls-http1", "tls-http2"])
def place(request: Any, tmp_path: pathlib.Path) -> Iterator[tuple[World, dict[str, Upstream]]]:
    """Providers in each way of reaching them."""
    kind, version = request.param.split("-")
    http2 = version == "http2"
    if kind == "plain":
        world = request.getfixturevalue("world2" if http2 else "world")
        yield world, {name: Upstream(world.fakes[name].port, http2=http2) for name in ("openai", "deepseek")}
    else:
        authority = Authority(tmp_path)
        with tls_world(authority, http2) as world:
            yield world, {name: upstream(world, authority, name) for name in ("openai", "deepseek")}


def wait_until_first(gateway: Gateway, attempt: str) -> None:
    """Waits until the worker (there is one) knows of the first provider's health."""
    wait_for(lambda: ask(gateway).attempts[0] == attempt, what=f"{attempt} as the first attempt")


def test_an_unhealthy_provider_is_left_alone_and_used_again_when_it_is_healthy(place: tuple[World, dict[str, Upstream]]) -> None:
    world, upstreams = place
    primary = world.fakes["openai"]
    upstreams["openai"].health_check = CHECK
    gateway = world.gateway(NO_BREAKER, upstreams)
    before = ask_in_turn(gateway, 2) + ask_in_turn(gateway, 2, stream=True)

    primary.health(500)
    wait_until_first(gateway, "openai:unreachable")
    touched = primary.stats()["requests"]
    away = ask_in_turn(gateway, 4) + ask_in_turn(gateway, 4, stream=True) + ask_at_once(gateway, 20)
    assert primary.stats()["requests"] == touched

    primary.health(200)
    wait_until_first(gateway, "openai:answered")
    after = ask_in_turn(gateway, 2) + ask_in_turn(gateway, 2, stream=True)

    assert_all_served(before + away + after)
    assert all(answer.attempts == ["openai:answered"] for answer in before + after)
    assert all(answer.attempts == UNREACHABLE for answer in away)
    assert len(world.seen("openai")) == touched + 1 + len(after)


def test_an_unhealthy_provider_opens_its_breaker_and_closes_it_when_it_is_back(world: World) -> None:
    primary = world.fakes["openai"]
    gateway = world.gateway(
        {"breaker": {"consecutive_failures": 3, "open": "300ms", "max_open": "300ms"}},
        {"openai": Upstream(primary.port, health_check=CHECK)},
    )
    primary.health(500)
    # The first failure.
    wait_until_first(gateway, "openai:unreachable")
    touched = primary.stats()["requests"]
    answers = ask_in_turn(gateway, 3)
    assert_all_served(answers)
    assert [answer.attempts for answer in answers] == [UNREACHABLE] * 2 + [["deepseek:answered"]]
    assert answers[2].headers[DEGRADED] == "openai:open"
    assert primary.stats()["requests"] == touched

    primary.health(200)
    back = wait_for(lambda: (answer := ask(gateway)).attempts == ["openai:answered"] and answer, what="the provider")
    assert DEGRADED not in back.headers


def test_a_provider_whose_name_does_not_resolve_costs_no_request(place: tuple[World, dict[str, Upstream]]) -> None:
    world, upstreams = place
    upstreams["openai"].host = "does-not-exist.invalid"
    gateway = world.gateway(NO_BREAKER, upstreams)
    answers = ask_in_turn(gateway, 3) + ask_in_turn(gateway, 3, stream=True) + ask_at_once(gateway, 20)
    assert_all_served(answers)
    assert all(answer.attempts == UNREACHABLE for answer in answers)
    assert (len(world.seen("openai")), len(world.seen("deepseek"))) == (0, len(answers))


def test_when_no_provider_has_an_address_the_client_hears_it_in_the_envelope(world: World) -> None:
    nowhere = {name: Upstream(1, host="does-not-exist.invalid") for name in world.fakes}
    gateway = world.gateway(upstreams=nowhere)
    answer = ask(gateway)
    assert answer.status == 503
    assert answer.error["code"] == "all_providers_failed"
    assert answer.attempts == ["openai:unreachable", "deepseek:unreachable", "shareai:unreachable"]
    assert world.counts() == {"openai": 0, "deepseek": 0, "shareai": 0}
