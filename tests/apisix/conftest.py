"""Fixtures: the scenarios of tests/gateway run on the stand-in here; and for the stand-in's own tests, fake providers and
stand-ins with the guest, which are stopped after each test."""

from __future__ import annotations

import pathlib
import sys
from typing import Any, Callable, Iterator

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gateway"), str(HERE.parent / "fake")]

import client as fake  # noqa: E402
from differences import difference  # noqa: E402
from standin import GUEST, Standin, Upstream  # noqa: E402
from worlds import *  # noqa: E402, F403


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the scenarios that differ here."""

    def differs(item: pytest.Item) -> bool:
        _, _, scenarios = item.path.stem.removeprefix("test_").partition("_")
        return item.path.stem.startswith(("test_scenarios_", "test_workers_")) and difference(scenarios, item.name) is not None

    left_out = {item for item in items if differs(item)}
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def gateway_kind() -> type[Standin]:
    """What the scenarios run on."""
    return Standin


@pytest.fixture(scope="session")
def _fakes() -> Iterator[dict[str, Any]]:
    with fake.start("openai") as openai, fake.start("deepseek") as deepseek:
        yield {"openai": openai, "deepseek": deepseek}


@pytest.fixture
def fakes(_fakes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for provider in _fakes.values():
        provider.reset()
    yield _fakes
    for provider in _fakes.values():
        provider.listen(True)
        provider.release()


@pytest.fixture
def guest(fakes: dict[str, Any]) -> Iterator[Callable[..., Standin]]:
    """Starts a stand-in whose filter is the guest; `conf` is what the guest is configured with."""
    running: list[Standin] = []

    def start(conf: str = "guest", wasm: str = "shunt_guest.wasm", edit: Any = None, **more: Any) -> Standin:
        def change(settings: Any, routes: Any) -> None:
            for entry in routes["plugin_configs"]:
                entry["plugins"]["shunt"]["conf"] = conf
            if edit:
                edit(settings, routes)

        upstreams = {name: Upstream(provider.port) for name, provider in fakes.items()}
        running.append(Standin({}, upstreams, wasm=GUEST / wasm, edit=change, **more))
        return running[-1].start()

    yield start
    for standin in running:
        standin.stop()
