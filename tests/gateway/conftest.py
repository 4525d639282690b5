"""Fixtures: three fake providers for the whole run, and a fresh world (script, log, Envoy) for every test."""

from __future__ import annotations

import contextlib
from typing import Iterator

import pytest

from accounts import TOKENIZER
from support import PROVIDERS, World, fake


@pytest.fixture(scope="session")
def _http1_fakes() -> Iterator[dict[str, object]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(fake.start(name, dialect="deepseek" if name == "deepseek" else "openai"))
            for name in PROVIDERS
        }


@pytest.fixture(scope="session")
def _http2_fakes() -> Iterator[dict[str, object]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(fake.start(name, http2=True)) for name in PROVIDERS}


def _world(fakes: dict[str, object], http2: bool) -> Iterator[World]:
    for provider in fakes.values():
        provider.reset()  # type: ignore[attr-defined]
    world = World(fakes, http2)
    try:
        yield world
    finally:
        for provider in fakes.values():
            provider.release()  # type: ignore[attr-defined]
        world.close()


@pytest.fixture
def world(_http1_fakes: dict[str, object]) -> Iterator[World]:
    """Providers that speak HTTP/1.1."""
    yield from _world(_http1_fakes, http2=False)


@pytest.fixture
def world2(_http2_fakes: dict[str, object]) -> Iterator[World]:
    """Providers that speak HTTP/2."""
    yield from _world(_http2_fakes, http2=True)


@pytest.fixture(scope="session")
def _counting_fakes() -> Iterator[dict[str, object]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                fake.start(name, dialect="deepseek" if name == "deepseek" else "openai", tokenizer=TOKENIZER)
            )
            for name in PROVIDERS
        }


@pytest.fixture
def counting(_counting_fakes: dict[str, object]) -> Iterator[World]:
    """Providers that count tokens as the vendors do."""
    yield from _world(_counting_fakes, http2=False)
