"""The control API: scripts in, observations out.

Plain HTTP/1.1 with JSON, on a port of its own, so that it stays reachable
while the API port plays dead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from http.client import responses
from typing import Any, Callable

from behaviour import REGISTRY, BadStep
from lacking import Lacks
from vendor import Vendor

Listen = Callable[[bool], Awaitable[None]]
Result = tuple[int, Any]
DONE: Result = (200, {"ok": True})


class BadCall(ValueError):
    """A call of the control API that makes no sense."""


class Control:
    """Serves the control API for one vendor.

    ``listen`` opens and closes the API port.
    """

    def __init__(self, vendor: Vendor, listen: Listen) -> None:
        self._vendor = vendor
        self._listen = listen
        self._routes: dict[tuple[str, str], Callable[[Any], Awaitable[Result]]] = {
            ("POST", "/script"): self._post_script,
            ("GET", "/log"): self._get_log,
            ("GET", "/stats"): self._get_stats,
            ("POST", "/reset"): self._post_reset,
            ("POST", "/listen"): self._post_listen,
            ("POST", "/release"): self._post_release,
            ("POST", "/health"): self._post_health,
            ("POST", "/lacks"): self._post_lacks,
        }

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the calls on one connection until the caller leaves."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, document = await self._call(method, path, body)
                payload = json.dumps(document).encode("utf-8")
                writer.write(
                    b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b"
                    % (status, responses[status].encode(), len(payload), payload)
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has left
        except (ValueError, asyncio.LimitOverrunError):
            pass  # the caller does not speak HTTP
        finally:
            writer.close()

    async def _call(self, method: str, path: str, body: bytes) -> Result:
        route = self._routes.get((method, path))
        if route is None:
            known = [" ".join(known) for known in self._routes]
            return 404, {"error": f"no such call: {method} {path}", "known": known}
        try:
            return await route(json.loads(body) if body else {})
        except BadStep as error:
            return 400, {"error": str(error), "known": sorted(REGISTRY)}
        except ValueError as error:
            return 400, {"error": str(error)}
        except OSError as error:
            return 500, {"error": str(error)}

    async def _post_script(self, spec: Any) -> Result:
        self._vendor.script.load(spec)
        return DONE

    async def _get_log(self, _: Any) -> Result:
        return 200, self._vendor.journal.log()

    async def _get_stats(self, _: Any) -> Result:
        stats = self._vendor.journal.stats()
        return 200, {**stats, "holding": self._vendor.gate.waiting}

    async def _post_reset(self, _: Any) -> Result:
        self._vendor.restart()
        await self._listen(True)
        return DONE

    async def _post_listen(self, spec: Any) -> Result:
        on = spec.get("on") if isinstance(spec, dict) else None
        if not isinstance(on, bool):
            raise BadCall('"on" must be true or false')
        await self._listen(on)
        return DONE

    async def _post_release(self, _: Any) -> Result:
        return 200, {"released": self._vendor.gate.open()}

    async def _post_health(self, spec: Any) -> Result:
        status = spec.get("status") if isinstance(spec, dict) else None
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise BadCall('"status" must be a final HTTP status')
        self._vendor.health_status = status
        return DONE

    async def _post_lacks(self, spec: Any) -> Result:
        self._vendor.lacks = Lacks(spec)
        return DONE
