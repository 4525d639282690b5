"""The provider's state: what the control API sets and every exchange reads."""

from __future__ import annotations

import asyncio
import collections
import secrets
from typing import TYPE_CHECKING, Any, Optional

from behaviour import BadStep, Step, parse_step
from journal import Journal
from lacking import Lacks
from tokenizer import Count, by_length

if TYPE_CHECKING:
    from connection import Connection

ISSUED_LIMIT = 20_000

ANSWER = parse_step({"do": "answer"})


class Script:
    """Decides how each request is treated."""

    def __init__(self) -> None:
        self._when: list[tuple[bytes, Step]] = []
        self._steps: collections.deque[Step] = collections.deque()
        self._default = ANSWER

    def load(self, spec: Any) -> None:
        """Replace the script; nothing changes if any part of it is wrong."""
        if not isinstance(spec, dict):
            raise BadStep("a script must be an object")
        unknown = spec.keys() - {"steps", "default", "when"}
        if unknown:
            raise BadStep(f"unknown parts of a script: {sorted(unknown)}")
        steps = [parse_step(one) for one in _items(spec, "steps")]
        when = [_condition(one) for one in _items(spec, "when")]
        if "default" in spec:
            self._default = parse_step(spec["default"])
        self._steps = collections.deque(steps)
        self._when = when

    def before_body(self) -> Optional[Step]:
        """Choose by the headers alone, unless the choice depends on the body."""
        return None if self._when else self._next()

    def after_body(self, body: bytes) -> Step:
        for needle, step in self._when:
            if needle in body:
                return step
        return self._next()

    def _next(self) -> Step:
        return self._steps.popleft() if self._steps else self._default


def _items(spec: dict[str, Any], key: str) -> list[Any]:
    found = spec.get(key, [])
    if not isinstance(found, list):
        raise BadStep(f"{key} must be a list")
    return found


def _condition(spec: Any) -> tuple[bytes, Step]:
    if not isinstance(spec, dict) or not isinstance(spec.get("contains"), str):
        raise BadStep('an entry of "when" needs "contains" and "step"')
    return spec["contains"].encode("utf-8"), parse_step(spec.get("step"))


class Gate:
    """Where held requests wait. Opening it lets out those that are waiting now."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        self.waiting += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1

    def open(self) -> int:
        """Wake all waiting requests and return how many there were."""
        opened, self._opened = self._opened, asyncio.Event()
        opened.set()
        return self.waiting


class Vendor:
    """One fake provider. Must be created inside a running event loop."""

    def __init__(
        self,
        name: str,
        dialect: str,
        scheme: str,
        strict: bool = False,
        count: Count = by_length,
    ) -> None:
        self.name = name
        self.dialect = dialect
        self.scheme = scheme
        self.strict = strict
        self.count = count
        self.token = secrets.token_hex(4)
        self.journal = Journal(count)
        self.gate = Gate()
        self.connections: set[Connection] = set()
        self.restart()

    def restart(self) -> None:
        """Forget script and history, but not what is open at the moment."""
        self.script = Script()
        self.lacks = Lacks()
        self.health_status = 200
        self.issued: collections.OrderedDict[str, int] = collections.OrderedDict()
        self.journal.clear()

    def issue(self, id_: str, tokens: int) -> None:
        """Let requests continue the answer of this id, which has so many tokens."""
        self.issued[id_] = tokens
        if len(self.issued) > ISSUED_LIMIT:
            self.issued.popitem(last=False)
