"""HTTP/1.1, spoken byte by byte so that it can be spoken wrongly on purpose."""

from __future__ import annotations

import asyncio
from http.client import responses
from typing import Optional, Protocol

from actions import Head, Headers
from connection import Connection
from exchange import Exchange
from journal import FAULT, RequestHead

HEAD_LIMIT = 256 * 1024
BODY_LIMIT = 64 * 1024 * 1024


class BadRequest(Exception):
    """A request that cannot be read; the arguments are status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BodyReader(Protocol):
    """Moves a request body from the connection's buffer to the exchange."""

    def read(self, source: bytearray, target: bytearray) -> bool:
        """Take what is there; return whether the body is complete."""


class SizedBody:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._missing = length

    def read(self, source: bytearray, target: bytearray) -> bool:
        taken = source[: self._missing]
        target += taken
        del source[: len(taken)]
        self._missing -= len(taken)
        return self._missing == 0


class ChunkedBody:
    """A body in chunks. Extensions and trailers are read and ignored."""

    def __init__(self) -> None:
        self._chunk = SizedBody(0)
        self._in_chunk = False
        self._in_trailers = False

    def read(self, source: bytearray, target: bytearray) -> bool:
        while True:
            if self._in_chunk:
                if not self._chunk.read(source, target) or len(source) < 2:
                    return False
                if source[:2] != b"\r\n":
                    raise BadRequest(400, "a chunk is longer than its size")
                del source[:2]
                self._in_chunk = False
            line = _take_line(source)
            if line is None:
                return False
            if self._in_trailers:
                if not line:
                    return True
                continue
            size = _chunk_size(line)
            if len(target) + size > BODY_LIMIT:
                raise BadRequest(413, "the body is too long")
            self._in_trailers = size == 0
            self._in_chunk = size > 0
            self._chunk = SizedBody(size)


def _take_line(source: bytearray) -> Optional[bytes]:
    end = source.find(b"\r\n")
    if end < 0:
        if len(source) > HEAD_LIMIT:
            raise BadRequest(400, "a line is too long")
        return None
    line = bytes(source[:end])
    del source[: end + 2]
    return line


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadRequest(400, "a chunk size is not a number")
    return int(digits, 16)


def take_head(source: bytearray) -> Optional[RequestHead]:
    """Take a request head from the buffer, or return None until it is complete."""
    end = source.find(b"\r\n\r\n")
    if max(end, len(source) if end < 0 else 0) > HEAD_LIMIT:
        raise BadRequest(431, "the request headers are too long")
    if end < 0:
        return None
    lines = source[:end].decode("latin-1").split("\r\n")
    del source[: end + 4]
    try:
        method, path, version = lines[0].split(" ")
    except ValueError:
        raise BadRequest(400, "the request line is malformed") from None
    if version != "HTTP/1.1":
        raise BadRequest(505, "only HTTP/1.1 is spoken here")
    headers: Headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400, "a header is malformed")
        headers.append((name, value.strip(" \t")))
    return RequestHead(method, path, version, headers)


def body_reader(head: RequestHead) -> BodyReader:
    """Decide how the body is delimited, and refuse what leaves room for doubt."""
    lengths = set(_values(head, "content-length"))
    codings = _values(head, "transfer-encoding")
    if codings:
        if lengths or [coding.lower() for coding in codings] != ["chunked"]:
            raise BadRequest(400, "the body is delimited ambiguously")
        return ChunkedBody()
    if not lengths:
        return SizedBody(0)
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "the body is delimited ambiguously")
    if int(length) > BODY_LIMIT:
        raise BadRequest(413, "the body is too long")
    return SizedBody(int(length))


def _values(head: RequestHead, wanted: str) -> list[str]:
    return [value for name, value in head.headers if name.lower() == wanted]


def _has_token(head: RequestHead, name: str, token: str) -> bool:
    listed = ",".join(_values(head, name)).lower().split(",")
    return token in (item.strip() for item in listed)


class Http1Connection(Connection):
    """One connection; at most one exchange at a time, the rest waits its turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._buffer = bytearray()
        self._exchange: Optional[Exchange] = None
        self._body: BodyReader = SizedBody(0)
        self._playing = False
        self._requests = 0
        self._deaf = False
        self._close_after = False
        self._chunked = False

    def connection_lost(self, exc: Optional[Exception]) -> None:
        super().connection_lost(exc)
        if self._exchange:
            self._exchange.abandon()

    def shut(self) -> None:
        if self._exchange:
            self._exchange.abandon(FAULT)
        super().shut()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._buffer += data
        if not self._playing:
            self._advance()

    def _advance(self) -> None:
        """Read on, and start to play when there is enough to do so."""
        try:
            if self._exchange is None:
                head = take_head(self._buffer)
                if head is None:
                    return
                self._begin(head)
            assert self._exchange is not None
            if self._exchange.before_body:
                self._deaf = self._close_after = True
            elif not self._body.read(self._buffer, self._exchange.body):
                return
        except BadRequest as error:
            self._refuse(error)
            return
        self._playing = True
        self.start_task(self._play(self._exchange))

    def _begin(self, head: RequestHead) -> None:
        self._body = body_reader(head)
        self._requests += 1
        first = self._requests == 1
        self._exchange = Exchange(self.vendor, self.number, first, head)
        self._close_after = _has_token(head, "connection", "close")
        if _has_token(head, "expect", "100-continue"):
            if not self._exchange.before_body:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _play(self, exchange: Exchange) -> None:
        await exchange.play(self)
        self._playing = False
        self._exchange = None
        if not self.transport.is_closing() and not self._deaf:
            self._advance()

    def _refuse(self, error: BadRequest) -> None:
        """Answer what is no proper request. There is no exchange to be logged."""
        if self._exchange:
            self._exchange.abandon()
        self._deaf = True
        reason = f"{error}\n".encode("ascii")
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (error.status, _phrase(error.status), len(reason), reason)
        )
        self.fin_tcp()

    # What the exchange asks for.

    async def head(self, head: Head) -> None:
        self._chunked = head.length is None
        lines = [f"HTTP/1.1 {head.status} {_phrase(head.status).decode()}"]
        lines += [f"{name}: {value}" for name, value in head.headers]
        if head.length is None:
            lines.append("transfer-encoding: chunked")
        else:
            lines.append(f"content-length: {head.length}")
        if self._close_after:
            lines.append("connection: close")
        lines.append("\r\n")
        await self.raw("\r\n".join(lines).encode("utf-8"))

    async def data(self, payload: bytes) -> None:
        if self._chunked:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        await self.raw(payload)

    async def end(self) -> None:
        if self._chunked:
            await self.raw(b"0\r\n\r\n")
        if self._close_after:
            await self.fin()

    async def reset(self, connection: bool) -> None:
        await self.reset_tcp()

    async def fin(self) -> None:
        self._deaf = True
        self.fin_tcp()

    async def raw(self, payload: bytes) -> None:
        self.transport.write(payload)
        await self.drain()


def _phrase(status: int) -> bytes:
    return responses.get(status, "Unknown").encode("ascii")
