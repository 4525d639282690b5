"""One request and the playing of its step, whatever the HTTP version."""

from __future__ import annotations

import asyncio
from typing import Optional, Protocol

from actions import (
    Actions,
    AwaitRelease,
    Began,
    Data,
    End,
    Fin,
    Head,
    Issued,
    Raw,
    Reported,
    Reset,
    Said,
    Sleep,
)
from behaviour import Step
from checks import Parsed, Refusal, Request, parse, refusal
from documents import Ask, Document, encode, prompt_text
from journal import ABORTED, COMPLETE, FAULT, RequestHead
from telling import JSON, refuse
from vendor import Vendor


class Wire(Protocol):
    """What a transport must be able to do for one exchange."""

    async def head(self, head: Head) -> None: ...

    async def data(self, payload: bytes) -> None: ...

    async def end(self) -> None: ...

    async def reset(self, connection: bool) -> None: ...

    async def fin(self) -> None: ...

    async def raw(self, payload: bytes) -> None: ...


class Exchange:
    """One request, from the arrival of its headers to the end of its answer.

    The transport appends to ``body`` and then awaits ``play``. It cancels that
    when the peer leaves, so nothing here has to watch the connection.
    """

    def __init__(
        self, vendor: Vendor, connection: int, first: bool, head: RequestHead
    ) -> None:
        self._vendor = vendor
        self._first = first
        self._health = _health_resource(head)
        self._step: Optional[Step] = None
        self.body = bytearray()
        if self._health:
            self.record = vendor.journal.open_health(connection, head)
        else:
            self.record = vendor.journal.open(connection, head)
            step = vendor.script.before_body()
            if step:
                self._choose(step)

    @property
    def before_body(self) -> bool:
        """Whether to play at once instead of reading the request body."""
        return self._step is not None and self._step.before_body

    def abandon(self, ended: str = ABORTED) -> None:
        """The exchange is over without the step having been played to its end."""
        self._vendor.journal.close(self.record, ended)

    async def play(self, wire: Wire) -> None:
        """Do all that the step says."""
        ended = FAULT
        try:
            for action in self._actions():
                if isinstance(action, Data):
                    self.record.bytes_sent += len(action.payload)
                    await wire.data(action.payload)
                elif isinstance(action, Sleep):
                    await asyncio.sleep(action.seconds)
                elif isinstance(action, Head):
                    await wire.head(action)
                elif isinstance(action, End):
                    await wire.end()
                    ended = COMPLETE
                elif isinstance(action, Reported):
                    self.record.usage = action.usage
                elif isinstance(action, Began):
                    self.record.began(action.id, action.counts)
                elif isinstance(action, Said):
                    self.record.told(action.said, action.thought)
                elif isinstance(action, Issued):
                    self._vendor.issue(action.id, action.tokens)
                elif isinstance(action, AwaitRelease):
                    await self._vendor.gate.wait()
                elif isinstance(action, Reset):
                    await wire.reset(action.connection)
                elif isinstance(action, Fin):
                    await wire.fin()
                elif isinstance(action, Raw):
                    self.record.bytes_sent += len(action.payload)
                    await wire.raw(action.payload)
        except asyncio.CancelledError:
            ended = ABORTED
            raise
        finally:
            self._vendor.journal.close(self.record, ended)

    def _choose(self, step: Step) -> None:
        self._step = step
        self._vendor.journal.chosen(self.record, step.name, step.spec)

    def _actions(self) -> Actions:
        body = bytes(self.body)
        if self._health:
            return self._health_actions(self._health)
        parsed = parse(body)
        document = self.record.take_body(body, parsed)
        if self._step is None:
            self._choose(self._vendor.script.after_body(body))
        assert self._step is not None
        ask = self._ask(document)
        if not self._step.before_body:
            refused = self._refusal(parsed)
            if refused is not None:
                self.record.refused = refused.message
                return refuse(ask, refused)
        return self._step.actions(ask)

    def _refusal(self, body: Parsed) -> Optional[Refusal]:
        vendor, head = self._vendor, self.record.head
        prompt = prompt_text(body) if isinstance(body, dict) else ""
        return vendor.lacks.refusal(body, prompt, vendor.count) or refusal(
            Request(
                vendor.dialect,
                vendor.strict,
                head.path,
                head.headers,
                body,
                vendor.issued,
            )
        )

    def _ask(self, document: Document) -> Ask:
        head = self.record.head
        host = next(
            (v for k, v in head.headers if k.lower() in ("host", ":authority")), ""
        )
        return Ask(
            n=self.record.n,
            provider=self._vendor.name,
            dialect=self._vendor.dialect,
            base_url=f"{self._vendor.scheme}://{host}",
            path=head.path,
            body=document,
            first_on_connection=self._first,
            token=self._vendor.token,
            context_tokens=self._context_tokens(document),
            count=self._vendor.count,
        )

    def _context_tokens(self, document: Document) -> int:
        previous = document.get("previous_response_id")
        if not isinstance(previous, str):
            return 0
        return self._vendor.issued.get(previous, 0)

    def _health_actions(self, resource: str) -> Actions:
        name = self._vendor.name
        if resource == "models":
            status = 200
            model = {"id": f"{name}-model", "object": "model", "owned_by": name}
            document: Document = {"object": "list", "data": [model]}
        else:
            status = self._vendor.health_status
            document = {"status": "ok" if status == 200 else "failing"}
        payload = encode(document)
        yield Head(status, [("content-type", JSON)], len(payload))
        yield Data(payload)
        yield End()


def _health_resource(head: RequestHead) -> Optional[str]:
    """Which of the two unscripted resources is asked for, if any."""
    resource = head.path.partition("?")[0].rpartition("/")[2]
    if head.method == "GET" and resource in ("health", "models"):
        return resource
    return None
