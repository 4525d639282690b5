"""The comparison of requests with their copies, run as a person runs it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any, Optional

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "compare-shadow.py"


def record(number: int, ms: int, cost: Optional[str], *, copy: bool = False, outcome: str = "answered", **more: Any) -> str:
    found: dict[str, Any] = {"request_id": f"id-{number}", "outcome": outcome, "ms": ms, "route": "chat", **more}
    if outcome == "answered":
        found["provider"] = "cheap" if copy else "dear"
        found["usage"] = {"source": "reported", "input": 100, "output": 10 * number}
    if cost is not None:
        found["cost_usd"] = cost
    found.update({"shadow": True} if copy else {"mirrored_to": "cheap"})
    return json.dumps(found)


def run(tmp_path: pathlib.Path, lines: list[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    log = tmp_path / "access.log"
    log.write_text("\n".join(lines) + "\n")
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments, str(log)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


LINES = [
    "starting",
    record(1, 100, "0.1"),
    "container | " + record(1, 300, "0.01", copy=True),
    record(2, 200, "0.2", first_token_ms=50),
    record(2, 10, None, copy=True, outcome="failed"),
    record(3, 400, "0.000000000001"),
    record(3, 100, "0.02", copy=True, first_token_ms=70, unpriced=True, unpriced_parts=["web_search"]),
    record(4, 1, "9"),
    record(5, 1, "9", copy=True),
    '{"request_id": "id-9", "outcome": "answered", "ms": 1, "route": "chat"}',
    "{broken",
]


def test_requests_are_compared_with_their_own_copies_alone(tmp_path: pathlib.Path) -> None:
    printed, _ = run(tmp_path, LINES, "--json")
    told = json.loads(printed)
    assert told["copies_without_their_request"] == 2
    (one,) = told["compared"]
    assert (one["route"], one["shadow"], one["requests"]) == ("chat", "cheap", 3)
    served, copies = one["served"], one["copies"]
    assert (served["answered"], copies["answered"]) == (3, 2)
    assert copies["outcomes"] == {"answered": 2, "failed": 1} and copies["providers"] == {"cheap": 2}
    assert (served["p50_ms"], served["p95_ms"]) == (200, 400)
    assert (copies["p50_ms"], copies["p95_ms"]) == (100, 300)
    assert (served["first_token_p50_ms"], copies["first_token_p50_ms"]) == (50, 70)
    # Exact, however small.
    assert (served["cost_usd"], copies["cost_usd"]) == ("0.300000000001", "0.03")
    assert (served["without_cost"], copies["without_cost"]) == (0, 1)
    assert (served["partly_priced"], copies["partly_priced"]) == (0, 1), "their cost is a least amount"
    assert (served["output_tokens"], copies["output_tokens"]) == (60, 40)


def test_a_person_can_read_it(tmp_path: pathlib.Path) -> None:
    printed, _ = run(tmp_path, LINES)
    assert "route chat: 3 requests, each with a copy to cheap" in printed
    assert "cost (USD)" in printed and "copies: answered 2, failed 1 (by cheap 2)" in printed


def test_a_log_without_copies_is_told_so(tmp_path: pathlib.Path) -> None:
    for arguments in ((), ("--route", "other")):
        _, said = run(tmp_path, [] if not arguments else LINES, *arguments, status=1)
        assert "no request with the record of its copy" in said
    done = subprocess.run([sys.executable, str(PROGRAM), str(tmp_path / "none")], capture_output=True, text=True)
    assert done.returncode == 2 and "none" in done.stderr
