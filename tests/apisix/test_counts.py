"""Nobody adds work to every request unseen: what the gateway does for one is counted, and is what docs/hosts.md says."""

from __future__ import annotations

from typing import Iterator

import pytest

from counting import HEADERS, KINDS, ROWS, Kind, Standin, counted_gateway, measure, table, told


@pytest.fixture(scope="module")
def counted() -> Iterator[tuple[Standin, dict]]:
    with counted_gateway() as world:
        yield world


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_work_for_a_request_is_what_the_documentation_says(counted: tuple[Standin, dict], kind: Kind) -> None:
    says = {row.label: told()[row.label][kind.name][1] for row in ROWS}
    # On a busy machine two pieces of a stream may come as one. What is added to a request is there each time.
    for _ in range(5):
        counts = measure(*counted, kind)
        wrong = {row.label: (says[row.label], row.value(counts)) for row in ROWS if not row.agrees(says[row.label], row.value(counts))}
        if not wrong:
            break
    assert not wrong, f"told, and counted: {wrong}; if it must be so: scripts/host-calls.py --write\n{table({kind.name: counts})}"


def test_the_table_has_every_kind_and_every_row() -> None:
    assert list(told()) == [row.label for row in ROWS]
    assert all(list(kinds) == [kind.name for kind in KINDS] for kinds in told().values())


def test_a_call_that_is_added_is_counted(counted: tuple[Standin, dict]) -> None:
    """One more header of the client is one more to remove: were it not seen, the counts would prove nothing."""
    kind = next(kind for kind in KINDS if kind.stream and not kind.failover)
    before = measure(*counted, kind)
    HEADERS["x-one-more"] = "1"
    try:
        after = measure(*counted, kind)
    finally:
        del HEADERS["x-one-more"]
    differing = {name for name in before if before[name] != after[name]}
    assert after["header_removals"] == before["header_removals"] + 1
    assert differing <= {"header_removals", "variable_bytes", "from_filter", "to_filter", "lua_bytes"}
