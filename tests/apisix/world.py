"""The scenarios' world with the stand-in in place of Envoy."""

from __future__ import annotations

from typing import Any, Optional

from standin import Json, Standin, Upstream
from support import World, assert_no_trap, config


class ApisixWorld(World):
    """The fakes and the stand-ins of one test."""

    def gateway(  # type: ignore[override]
        self, changes: Optional[Json] = None, upstreams: Optional[dict[str, Upstream]] = None, **more: Any
    ) -> Standin:
        """Starts a stand-in on the base configuration with `changes`; `more` are fields of `Standin`."""
        settings = config(changes)
        targets = {name: Upstream(self.fakes[name].port) for name in settings["providers"] if name in self.fakes}
        targets.update(upstreams or {})
        standin = Standin(settings, targets, **more)
        self.gateways.append(standin)  # type: ignore[arg-type]
        return standin.start()

    def close(self) -> None:
        for standin in self.gateways:
            try:
                assert_no_complaint(standin)  # type: ignore[arg-type]
            finally:
                standin.stop()


def assert_no_complaint(standin: Standin) -> None:
    """The worker runs, no VM has trapped, and the host has nothing to say against the filter."""
    log = standin.log()
    for word in ("FATAL", "TRAP", "failed to mark context"):
        assert word not in log, log[-3000:]
    assert_no_trap(standin)  # type: ignore[arg-type]
