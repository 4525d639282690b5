"""A fake OpenAI-compatible provider that misbehaves on request.

Run ``python provider.py --help``. When ready it prints one line of JSON with
its ports, and nothing ever after. See README.md for what it can do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import ssl
import sys
import threading
from typing import Callable, Optional

from connection import Connection
from control import Control
from documents import ANTHROPIC, DEEPSEEK, OPENAI
from http1 import Http1Connection
from tokenizer import BPE, CHARS, tokenizer
from vendor import Vendor

BACKLOG = 4096
DIALECTS = (OPENAI, DEEPSEEK, ANTHROPIC)


class Listener:
    """The API port, which can be closed and opened again."""

    def __init__(
        self,
        vendor: Vendor,
        factory: Callable[[], Connection],
        host: str,
        port: int,
        tls: Optional[ssl.SSLContext],
    ) -> None:
        self._vendor = vendor
        self._factory = factory
        self._host = host
        self._tls = tls
        self._server: Optional[asyncio.AbstractServer] = None
        self.port = port

    async def listen(self, on: bool) -> None:
        """Open the port, or close it together with all its connections."""
        if on and self._server is None:
            server = await asyncio.get_running_loop().create_server(
                self._factory, self._host, self.port, ssl=self._tls, backlog=BACKLOG
            )
            self.port = server.sockets[0].getsockname()[1]
            self._server = server
        elif not on and self._server is not None:
            self._server.close()
            self._server = None
            for connection in list(self._vendor.connections):
                connection.shut()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="openai", help="told in every answer")
    parser.add_argument("--dialect", choices=DIALECTS, default="openai")
    parser.add_argument(
        "--strict", action="store_true", help="refuse what the vendor would refuse"
    )
    parser.add_argument(
        "--tokenizer", choices=(CHARS, BPE), default=CHARS, help="bpe needs rs-bpe"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--http2", action="store_true", help="instead of HTTP/1.1")
    parser.add_argument("--tls-cert", metavar="FILE")
    parser.add_argument("--tls-key", metavar="FILE")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="exit when stdin ends"
    )
    arguments = parser.parse_args()
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    return arguments


def tls_context(arguments: argparse.Namespace) -> Optional[ssl.SSLContext]:
    if not arguments.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    context.set_alpn_protocols(["h2" if arguments.http2 else "http/1.1"])
    return context


def connection_factory(vendor: Vendor, http2: bool) -> Callable[[], Connection]:
    if http2:
        # Imported late: only this needs a package outside the standard library.
        from http2 import Http2Connection

        return lambda: Http2Connection(vendor)
    return lambda: Http1Connection(vendor)


def allow_many_connections() -> None:
    """Lift the soft limit on open files, which is far too low for load tests."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` at the end of stdin, which comes even if the parent is killed."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        # Not sys.stdin.read: its lock would be held when the interpreter ends.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=watch, daemon=True).start()


async def main(arguments: argparse.Namespace) -> None:
    tls = tls_context(arguments)
    vendor = Vendor(
        arguments.name,
        arguments.dialect,
        "https" if tls else "http",
        strict=arguments.strict,
        count=tokenizer(arguments.tokenizer),
    )
    factory = connection_factory(vendor, arguments.http2)
    listener = Listener(vendor, factory, arguments.host, arguments.port, tls)
    await listener.listen(True)
    control = await asyncio.start_server(
        Control(vendor, listener.listen).serve, "127.0.0.1", arguments.control_port
    )

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if arguments.exit_with_parent:
        stop_with_parent(stopped.set)

    control_port = control.sockets[0].getsockname()[1]
    ready = {"port": listener.port, "control_port": control_port}
    print(json.dumps(ready), flush=True)
    await stopped.wait()
    # What is cancelled now is cut short on purpose; asyncio before 3.12 would
    # print a traceback for each open control connection.
    loop.set_exception_handler(lambda *_: None)


if __name__ == "__main__":
    allow_many_connections()
    asyncio.run(main(parse_arguments()))
