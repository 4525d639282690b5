"""HTTP/2, with the ``h2`` package for framing and flow control."""

from __future__ import annotations

import asyncio
from typing import Optional

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from actions import Head
from connection import Connection
from exchange import Exchange
from journal import FAULT, RequestHead

MAX_STREAMS = 10_000
RECEIVE_WINDOW = 1 << 20


class Http2Stream:
    """One exchange on an HTTP/2 connection."""

    def __init__(
        self, connection: "Http2Connection", stream_id: int, exchange: Exchange
    ) -> None:
        self._connection = connection
        self._h2 = connection.h2
        self._id = stream_id
        self.exchange = exchange
        self.task: Optional["asyncio.Task[None]"] = None
        self.body_read = False

    def leave(self) -> None:
        """Stop, because the stream or the connection is gone."""
        self.exchange.abandon()  # a task cancelled before it began cannot do it
        if self.task is not None:
            self.task.cancel()

    async def play(self) -> None:
        try:
            await self.exchange.play(self)
        finally:
            self._connection.forget(self._id)

    # What the exchange asks for.

    async def head(self, head: Head) -> None:
        headers = [(":status", str(head.status)), *head.headers]
        if head.length is not None:
            headers.append(("content-length", str(head.length)))
        self._h2.send_headers(self._id, headers)
        await self._connection.flush()

    async def data(self, payload: bytes) -> None:
        while payload:
            room = min(
                self._h2.local_flow_control_window(self._id),
                self._h2.max_outbound_frame_size,
            )
            if room <= 0:
                await self._connection.window_change()
                continue
            self._h2.send_data(self._id, payload[:room])
            payload = payload[room:]
            await self._connection.flush()

    async def end(self) -> None:
        self._h2.end_stream(self._id)
        if not self.body_read:
            # RFC 9113, 8.1: "stop sending, the answer is already complete".
            self._h2.reset_stream(self._id, h2.errors.ErrorCodes.NO_ERROR)
        await self._connection.flush()

    async def reset(self, connection: bool) -> None:
        if connection:
            self._connection.fail_all()
            self._h2.close_connection(h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._connection.flush()
            await self._connection.reset_tcp()
        else:
            self._h2.reset_stream(self._id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            await self._connection.flush()

    async def fin(self) -> None:
        """Close the TCP connection, and with it all streams it carries."""
        self._connection.fail_all()
        self._connection.deaf = True
        self._connection.fin_tcp()

    async def raw(self, payload: bytes) -> None:
        self._connection.transport.write(payload)
        await self._connection.drain()


class Http2Connection(Connection):
    """One connection with any number of streams."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Outbound headers go unchecked: what is sent may be wrong on purpose.
        config = h2.config.H2Configuration(
            client_side=False, header_encoding=None, validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self._streams: dict[int, Http2Stream] = {}
        self.deaf = False
        self._requests = 0
        self._window_changed = asyncio.Event()
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: self.h2.DEFAULT_MAX_HEADER_LIST_SIZE,
            },
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(16 * RECEIVE_WINDOW)
        self._write()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        super().connection_lost(exc)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.leave()

    def shut(self) -> None:
        self.fail_all()
        super().shut()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._write()  # h2 has prepared the GOAWAY that tells why
            self.fin_tcp()
            return
        for event in events:
            self._handle(event)
        self._write()

    def fail_all(self) -> None:
        """Note that it is not the peers' doing if the streams end now."""
        for stream in self._streams.values():
            stream.exchange.abandon(FAULT)

    def forget(self, stream_id: int) -> None:
        """The exchange on this stream is over."""
        self._streams.pop(stream_id, None)

    async def flush(self) -> None:
        """Put what h2 has framed on the wire."""
        self._write()
        await self.drain()

    async def window_change(self) -> None:
        """Wait until some flow control window has grown, not necessarily ours."""
        self._window_changed.clear()
        await self._window_changed.wait()

    def _write(self) -> None:
        framed = self.h2.data_to_send()
        if framed:
            self.transport.write(framed)

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event.stream_id, event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id
            )
            stream = self._streams.get(event.stream_id)
            if stream is not None and stream.task is None:
                stream.exchange.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.body_read = True
                self._start(stream)
        elif isinstance(event, h2.events.StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                self.forget(event.stream_id)
                stream.leave()
        elif isinstance(
            event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)
        ):
            self._window_changed.set()
        elif isinstance(event, h2.events.ConnectionTerminated):
            # After a GOAWAY h2 refuses to go on even with streams under way.
            self.transport.close()

    def _begin(self, stream_id: int, raw: list[tuple[bytes, bytes]]) -> None:
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in raw]
        pseudo = dict(header for header in headers if header[0].startswith(":"))
        head = RequestHead(
            pseudo.get(":method", ""), pseudo.get(":path", ""), "HTTP/2", headers
        )
        self._requests += 1
        exchange = Exchange(self.vendor, self.number, self._requests == 1, head)
        stream = Http2Stream(self, stream_id, exchange)
        self._streams[stream_id] = stream
        if exchange.before_body:
            self._start(stream)

    def _start(self, stream: Http2Stream) -> None:
        if stream.task is None:
            stream.task = self.start_task(stream.play())
