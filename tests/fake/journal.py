"""What was asked of the provider and what became of it."""

from __future__ import annotations

import collections
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Optional

from actions import Headers
from documents import Counts, Document
from tokenizer import Count, by_length

LOG_LIMIT = 20_000
BODY_LIMIT = 64 * 1024

COMPLETE = "complete"
ABORTED = "aborted_by_peer"
FAULT = "fault"


@dataclass
class RequestHead:
    """The first part of a request, as received."""

    method: str
    path: str
    version: str
    headers: Headers


class Record:
    """One request. ``counted`` is false for health checks, which stay unlogged."""

    __slots__ = (
        "n", "time", "connection", "head", "raw", "body_length", "body_sha256",
        "model", "stream", "step", "usage", "ended", "bytes_sent", "counted",
        "id", "refused", "_count", "_prompt", "_said", "_thought", "_spent",
    )  # fmt: skip

    def __init__(
        self,
        n: int,
        connection: int,
        head: RequestHead,
        counted: bool,
        count: Count = by_length,
    ) -> None:
        self.n = n
        self.time = time.time()
        self.connection = connection
        self.head = head
        self.raw: Optional[bytes] = None
        self.body_length = 0
        self.body_sha256: Optional[str] = None
        self.model: Optional[str] = None
        self.stream = False
        self.step: Optional[dict[str, Any]] = None
        self.usage: Optional[Document] = None
        self.ended: Optional[str] = None
        self.bytes_sent = 0
        self.counted = counted
        self.id: Optional[str] = None
        self.refused: Optional[str] = None
        self._count = count
        self._prompt: Optional[Counts] = None
        self._said: list[str] = []
        self._thought: list[str] = []
        self._spent: Optional[Document] = None

    def began(self, id_: Optional[str], prompt: Counts) -> None:
        """An answer begins; its prompt has to be paid from now on."""
        self.id = id_
        self._prompt = prompt

    def told(self, said: str, thought: str) -> None:
        """So much more of the answer was generated and sent."""
        if self.ended is None:
            self._said.append(said)
            self._thought.append(thought)

    @property
    def spent(self) -> Optional[Document]:
        """What the vendor would count so far, or None if no answer has begun."""
        if self._prompt is None or self._spent is not None:
            return self._spent
        reasoning = self._count("".join(self._thought))
        completion = self._count("".join(self._said)) + reasoning
        return {
            "prompt_tokens": self._prompt.prompt,
            "completion_tokens": completion,
            "total_tokens": self._prompt.prompt + completion,
            "cached_tokens": self._prompt.cached,
            "cache_written_tokens": self._prompt.written,
            "reasoning_tokens": reasoning,
        }

    def end(self, ended: str) -> None:
        """Nothing more will be said; of what was said only the numbers are kept."""
        self.ended = ended
        self._spent = self.spent
        self._said, self._thought = [], []

    def take_body(self, body: bytes, parsed: Any) -> Document:
        """Note the request body; return it as an object, empty if it is none."""
        self.body_length = len(body)
        self.body_sha256 = hashlib.sha256(body).hexdigest()
        if len(body) <= BODY_LIMIT:
            self.raw = body
        if not isinstance(parsed, dict):
            return {}
        model = parsed.get("model")
        self.model = model if isinstance(model, str) else None
        self.stream = parsed.get("stream") is True
        return parsed

    def as_json(self) -> Document:
        return {
            "n": self.n,
            "time": self.time,
            "connection": self.connection,
            "method": self.head.method,
            "path": self.head.path,
            "http_version": self.head.version,
            "headers": self.head.headers,
            # Parsed again, because keeping the object of every request costs
            # many times the memory of its bytes.
            "body": parse(self.raw) if self.raw else None,
            "raw": None if self.raw is None else self.raw.decode("utf-8", "replace"),
            "body_length": self.body_length,
            "body_sha256": self.body_sha256,
            "model": self.model,
            "stream": self.stream,
            "step": self.step,
            "usage": self.usage,
            "spent": self.spent,
            "id": self.id,
            "refused": self.refused,
            "ended": self.ended,
            "bytes_sent": self.bytes_sent,
        }


class Journal:
    """The log of the last requests and the counters over all of them."""

    def __init__(self, count: Count = by_length) -> None:
        self._count = count
        self.in_flight = 0
        self.connections_open = 0
        self._connections_ever = 0
        self.clear()

    def clear(self) -> None:
        """Forget the past. What is still open stays counted as open."""
        self._log: collections.deque[Record] = collections.deque(maxlen=LOG_LIMIT)
        self._requests = 0
        self._health = 0
        self._max_in_flight = self.in_flight
        self._connections_total = 0
        self._by_step: Counter[str] = collections.Counter()

    def connection_opened(self) -> int:
        """Count a TCP connection and return its number, which is never reused."""
        self.connections_open += 1
        self._connections_total += 1
        self._connections_ever += 1
        return self._connections_ever

    def connection_closed(self) -> None:
        self.connections_open -= 1

    def open(self, connection: int, head: RequestHead) -> Record:
        """A request has arrived, at least its headers."""
        self._requests += 1
        self.in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self.in_flight)
        record = Record(self._requests, connection, head, True, self._count)
        self._log.append(record)
        return record

    def open_health(self, connection: int, head: RequestHead) -> Record:
        """The same for a health check."""
        self._health += 1
        return Record(0, connection, head, counted=False)

    def chosen(self, record: Record, name: str, spec: dict[str, Any]) -> None:
        """It has been decided how the request is treated."""
        record.step = spec
        self._by_step[name] += 1

    def close(self, record: Record, ended: str) -> None:
        """The exchange is over. Only the first reason given counts."""
        if record.ended is None:
            record.end(ended)
            self.in_flight -= record.counted

    def log(self) -> list[Document]:
        return [record.as_json() for record in self._log]

    def stats(self) -> Document:
        return {
            "requests": self._requests,
            "health": self._health,
            "in_flight": self.in_flight,
            "max_in_flight": self._max_in_flight,
            "connections_open": self.connections_open,
            "connections_total": self._connections_total,
            "by_step": dict(self._by_step),
        }


def parse(body: bytes) -> Any:
    """JSON, or None for what is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
