"""The fixtures of the scenarios: fake providers for the whole run, and a fresh world (script, log, gateway) for every test.

`gateway_kind`, which a conftest.py must have, says what the scenarios run on.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

import pytest

from accounts import TOKENIZER
from envoys import ENVOYS
from support import PROVIDERS, Gateway, World, fake
from vendors import _more_fakes, vendors

Fakes = dict[str, object]


def _start(**options: object) -> Iterator[Fakes]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(fake.start(name, dialect="deepseek" if name == "deepseek" else "openai", **options))  # type: ignore[arg-type]
            for name in PROVIDERS
        }


@pytest.fixture(scope="session")
def _http1_fakes() -> Iterator[Fakes]:
    yield from _start()


@pytest.fixture(scope="session")
def _counting_fakes() -> Iterator[Fakes]:
    yield from _start(tokenizer=TOKENIZER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """What a failed test used is not used again: nobody knows what is left there."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        ENVOYS.spoil("a test has failed")
    return report


@pytest.fixture(scope="session", autouse=True)
def _envoys() -> Iterator[None]:
    """The Envoys that scenarios share end with the test process."""
    yield
    ENVOYS.close()


def in_world(world: World) -> Iterator[World]:
    """A world from its beginning to its end."""
    for provider in world.fakes.values():
        provider.reset()
    try:
        yield world
    finally:
        for provider in world.fakes.values():
            provider.release()
        world.close()


@pytest.fixture
def world(_http1_fakes: Fakes, gateway_kind: type[Gateway]) -> Iterator[World]:
    """Providers that speak HTTP/1.1."""
    yield from in_world(World(_http1_fakes, gateway_kind))


@pytest.fixture
def counting(_counting_fakes: Fakes, gateway_kind: type[Gateway]) -> Iterator[World]:
    """Providers that count tokens as the vendors do."""
    yield from in_world(World(_counting_fakes, gateway_kind))


__all__ = [
    "_counting_fakes", "_envoys", "_http1_fakes", "_more_fakes", "counting", "in_world", "pytest_runtest_makereport", "vendors", "world",
]  # fmt: skip
