"""The stand-in with three workers. Connections go to them in turn, so that the outer and the inner half of a request meet in
different ones: nothing may depend on what a worker remembers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from standin import Standin


@dataclass
class ThreeWorkers(Standin):
    workers: int = 3


@pytest.fixture(scope="session")
def gateway_kind() -> type[Standin]:
    return ThreeWorkers


__all__ = ["gateway_kind"]
