"""The building blocks of behaviours: replies, put on the wire in pieces.

What a stream's chunks tell is noted for the log as it goes, so that it is known
what was generated and sent even if the rest never follows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from actions import (
    Action,
    Actions,
    Began,
    Data,
    End,
    Fin,
    Head,
    Headers,
    Issued,
    Reported,
    Said,
    Sleep,
)
from chat import ChatTelling, EmbeddingTelling
from checks import Refusal
from documents import (
    EMBEDDING,
    MESSAGES,
    NORMAL,
    RESPONSES,
    Ask,
    Document,
    Part,
    Reply,
    Telling,
    complaint,
    encode,
)
from messages_api import MessagesTelling
from responses_api import ResponsesTelling

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
SHORTEST_BEAT = 0.001  # keeps an endless behaviour with "gap": 0 from spinning

HeaderValue = Union[str, list[str]]


@dataclass(frozen=True)
class Turn:
    """A request together with the parameters that every step may have."""

    ask: Ask
    text: str
    chunks: int = 5
    gap: float = 0.0
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    usage: str = NORMAL
    cached: Optional[int] = None
    cache_written: int = 0

    def head(
        self,
        content_type: str,
        length: Optional[int] = None,
        status: int = 200,
        extra: Iterable[tuple[str, str]] = (),
    ) -> Head:
        """Response headers, with those of the step replacing any of ours."""
        name = "request-id" if self.ask.kind == MESSAGES else "x-request-id"
        headers: Headers = [
            ("content-type", content_type),
            (name, self.ask.request_id),
            *extra,
        ]
        replaced = {name.lower() for name in self.headers}
        headers = [(name, value) for name, value in headers if name not in replaced]
        for name, value in self.headers.items():
            values = value if isinstance(value, list) else [value]
            headers += [(name, one) for one in values]
        return Head(status, headers, length)

    def tell(self, **changes: Any) -> Telling:
        """The answer this turn would give, with some parts changed."""
        parts: dict[str, Any] = {
            "text": self.text,
            "chunks": self.chunks,
            "usage": self.usage,
            "cached": self.cached,
            "cache_written": self.cache_written,
            **changes,
        }
        reply = Reply(self.ask, **parts)
        if self.ask.kind == EMBEDDING:
            return EmbeddingTelling(reply)
        if self.ask.kind == MESSAGES:
            return MessagesTelling(reply)
        if self.ask.kind == RESPONSES:
            return ResponsesTelling(reply)
        return ChatTelling(reply)


def event(document: Document, eol: bytes = b"\n", named: bool = False) -> bytes:
    """One server-sent event, with its type in a line of its own if it is named."""
    name = b"event: " + str(document["type"]).encode() + eol if named else b""
    return name + b"data: " + encode(document) + eol * 2


def done_event(eol: bytes = b"\n") -> bytes:
    """The event with which OpenAI ends a stream of chunks."""
    return b"data: [DONE]" + eol * 2


def say(
    turn: Turn, telling: Telling, events: Iterable[Document], eol: bytes = b"\n"
) -> Actions:
    """Send stream events, each followed by the turn's gap."""
    for one in events:
        yield Data(event(one, eol, telling.named))
        if turn.gap:
            yield Sleep(turn.gap)


def say_parts(
    turn: Turn, telling: Telling, parts: Iterable[Part], eol: bytes = b"\n"
) -> Actions:
    """Send content chunks, and note what each of them said."""
    for part in parts:
        for one in part.events:
            yield Data(event(one, eol, telling.named))
        yield Said(part.said, part.thought)
        if part.reported is not None:
            yield Reported(part.reported)
        if turn.gap:
            yield Sleep(turn.gap)


def began(telling: Telling) -> Began:
    """The vendor has read the prompt and begins to answer."""
    return Began(telling.id, telling.reply.counts_of("", ""))


def begin(
    turn: Turn, telling: Telling, after: int = 0, eol: bytes = b"\n"
) -> Actions:
    """A stream up to and including its ``after``-th content chunk."""
    yield turn.head(EVENT_STREAM)
    yield began(telling)
    yield from say(turn, telling, telling.opening(), eol)
    if after:
        yield from say_parts(turn, telling, telling.parts()[:after], eol)


def conclude(
    turn: Turn,
    telling: Telling,
    after: int = 0,
    eol: bytes = b"\n",
    done: bool = True,
) -> Actions:
    """The rest of a stream whose first ``after`` content chunks were sent.

    Without ``done`` it lacks its mark of the end: ``data: [DONE]``, or where
    the format has none, the last event.
    """
    yield from say_parts(turn, telling, telling.parts()[after:], eol)
    closing = telling.closing()
    if done or telling.done:
        yield from say(turn, telling, closing, eol)
        yield from issued(telling)
    else:
        yield from say(turn, telling, closing[:-1], eol)
    if telling.reports() and (done or telling.reply.ask.kind != RESPONSES):
        yield Reported(telling.usage)
    if done and telling.done:
        yield Data(done_event(eol))
    yield End()


def issued(telling: Telling) -> Actions:
    """From now on a request may refer to this answer, if the vendor keeps it."""
    ask = telling.reply.ask
    if ask.kind == RESPONSES and telling.id and ask.body.get("store") is not False:
        counts = telling.reply.counts
        yield Issued(telling.id, counts.prompt + counts.completion)
    if isinstance(telling, ResponsesTelling):
        for thought in telling.thoughts():
            yield Issued(thought, 0)


def as_stream(
    turn: Turn, telling: Telling, eol: bytes = b"\n", done: bool = True
) -> Actions:
    """A whole stream."""
    yield from begin(turn, telling, eol=eol)
    yield from conclude(turn, telling, eol=eol, done=done)


def as_document(turn: Turn, telling: Telling, before: bytes = b"") -> Actions:
    """The answer as one JSON document, with ``before`` in front of it."""
    payload = before + encode(telling.whole())
    yield turn.head(JSON, len(payload))
    yield from generated(telling)
    yield Data(payload)
    yield End()
    yield from issued(telling)
    if telling.usage is not None:
        yield Reported(telling.usage)


def generated(telling: Telling) -> Actions:
    """Note that an answer exists in full: a document is sent when it is complete."""
    reply = telling.reply
    yield began(telling)
    if reply.ask.kind != EMBEDDING:
        tool = reply.tool.name + reply.tool.arguments if reply.tool else ""
        yield Said(reply.text + (reply.refusal or "") + tool, reply.reasoning)


def as_asked(turn: Turn, telling: Telling) -> Actions:
    """The answer in the form in which the client wants it."""
    return as_stream(turn, telling) if turn.ask.stream else as_document(turn, telling)


def whole_body(
    turn: Turn,
    payload: bytes,
    content_type: str = JSON,
    status: int = 200,
    extra: Iterable[tuple[str, str]] = (),
) -> Actions:
    """A complete response with the given body."""
    yield turn.head(content_type, len(payload), status, extra)
    if payload:
        yield Data(payload)
    yield End()


def refuse(ask: Ask, refused: Refusal) -> Actions:
    """The vendor's answer to a request that it does not accept."""
    document = complaint(
        ask,
        refused.status,
        refused.message,
        refused.type,
        refused.code,
        refused.param,
    )
    return whole_body(Turn(ask, ""), encode(document), status=refused.status)


def silence(seconds: float) -> Actions:
    """Say nothing until the peer leaves; close when it never does."""
    yield Sleep(seconds)
    yield Fin()


def in_pieces(actions: Actions, size: int, gap: float) -> Actions:
    """The same actions with all data cut into pieces of at most ``size`` bytes."""
    for action in actions:
        if not isinstance(action, Data):
            yield action
            continue
        for start in range(0, len(action.payload), size):
            yield Data(action.payload[start : start + size])
            yield Sleep(gap)


def compressed(actions: Actions) -> Actions:
    """The same actions with the body gzipped, flushed after every event."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for action in actions:
        if isinstance(action, Head):
            headers = [*action.headers, ("content-encoding", "gzip")]
            yield Head(action.status, headers)
        elif isinstance(action, Data):
            packed = packer.compress(action.payload)
            yield Data(packed + packer.flush(zlib.Z_SYNC_FLUSH))
        elif isinstance(action, End):
            yield Data(packer.flush())
            yield action
        else:
            yield action


def without_head(actions: Actions) -> Actions:
    """The same actions for a response whose headers have already been sent."""
    return (action for action in actions if not isinstance(action, Head))


def beats(action: Action, gap: float, seconds: Optional[float]) -> Iterator[Action]:
    """Repeat an action every ``gap`` seconds, for ``seconds`` or for ever."""
    gap = max(gap, SHORTEST_BEAT)
    spent = 0.0
    while seconds is None or spent < seconds:
        yield action
        yield Sleep(gap)
        spent += gap
