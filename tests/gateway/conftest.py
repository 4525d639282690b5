"""The scenarios run on Envoy here."""

from __future__ import annotations

import contextlib
from typing import Iterator

import pytest

from support import PROVIDERS, Gateway, World, fake
from worlds import *  # noqa: F403
from worlds import Fakes, in_world


@pytest.fixture(scope="session")
def gateway_kind() -> type[Gateway]:
    return Gateway


@pytest.fixture(scope="session")
def _http2_fakes() -> Iterator[Fakes]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(fake.start(name, http2=True)) for name in PROVIDERS}


@pytest.fixture
def world2(_http2_fakes: Fakes) -> Iterator[World]:
    """Providers that speak HTTP/2."""
    yield from in_world(World(_http2_fakes, http2=True))
