"""What HTTP/1.1 and HTTP/2 connections have in common: TCP."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import time
from collections.abc import Coroutine
from typing import Any, Optional

from vendor import Vendor

SIOCOUTQNSD = 0x894B  # Linux: bytes the kernel has accepted but not yet sent
SETTLE_SECONDS = 1.0
LINGER_SECONDS = 2.0


class Connection(asyncio.Protocol):
    """A TCP (or TLS) connection on the API port."""

    transport: asyncio.Transport
    number: int

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self._writable = asyncio.Event()
        self._writable.set()
        self._tasks: set["asyncio.Task[None]"] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.number = self.vendor.journal.connection_opened()
        self.vendor.connections.add(self)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.vendor.journal.connection_closed()
        self.vendor.connections.discard(self)
        for task in list(self._tasks):
            task.cancel()

    def start_task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something that is to be cancelled when the peer leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self.transport.abort()
        if not isinstance(error, OSError):  # that is a peer who was quick to leave
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a request could not be played", "exception": error}
            )

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def drain(self) -> None:
        """Wait while the peer reads more slowly than we write."""
        if self.transport.is_closing():
            # The write has failed; ``connection_lost`` is about to cancel us.
            await asyncio.get_running_loop().create_future()
        if not self._writable.is_set():
            await self._writable.wait()

    async def reset_tcp(self) -> None:
        """RST, but only once all that was written before is on its way.

        A reset throws away unsent data, and a fault that takes place after
        "two chunks" has to be one after two chunks.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._unsent() and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def fin_tcp(self) -> None:
        """FIN, and a real close when the peer has closed too, or after a while.

        To close a socket on which data still arrives makes the kernel send a
        RST, which may even destroy a response that the peer has yet to read.
        TLS cannot close one direction only; there, ``close`` has to do.
        """
        if self.transport.can_write_eof():
            self.transport.write_eof()
            loop = asyncio.get_running_loop()
            loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _unsent(self) -> bool:
        if self.transport.get_write_buffer_size():
            return True
        sock = self.transport.get_extra_info("socket")
        try:
            count = fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4))
        except OSError:  # not Linux: rely on the network being quick
            return False
        return any(count)

    def shut(self) -> None:
        """The host dies: drop everything without a word of HTTP."""
        self.transport.abort()
