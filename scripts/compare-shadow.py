#!/usr/bin/env python3
"""What a shadow would have made of the requests of which it got copies: both sides next to each other, from the access log.

    compare-shadow.py access.log              every route that has a shadow
    docker logs shunt | compare-shadow.py -   the same, from what a container wrote
    compare-shadow.py --json access.log       the numbers as JSON
    compare-shadow.py --route chat access.log

Each line is one request's record; a copy has `"shadow": true` and the request_id of its request. Only requests of which both records
are there are compared. Percentiles are those of answered requests; times are in milliseconds. Standard library only.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from decimal import Decimal
from typing import Any, Iterable, Iterator, Optional

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", help="the access log, or - for standard input")
    parser.add_argument("--route", help="this route only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        with sys.stdin if arguments.log == "-" else open(arguments.log, encoding="utf-8", errors="replace") as lines:
            pairs, lonely = joined(records(lines), arguments.route)
    except OSError as error:
        print(f"compare-shadow: {error}", file=sys.stderr)
        return 2
    if not pairs:
        print("compare-shadow: no request with the record of its copy; is `shadow` set on a route?", file=sys.stderr)
        return 1
    compared = [compare(*key, found) for key, found in sorted(pairs.items())]
    if arguments.json:
        print(json.dumps({"compared": compared, "copies_without_their_request": lonely}, indent=2))
        return 0
    for one in compared:
        show(one)
    if lonely:
        print(f"\n{lonely} copies are without the record of their request (or the other way round): left out.")
    return 0


def records(lines: Iterable[str]) -> Iterator[Json]:
    """The records among the lines of a log."""
    for line in lines:
        start = line.find("{")
        if start < 0:
            continue
        try:
            record = json.loads(line[start:])
        except ValueError:
            continue
        if isinstance(record, dict) and "request_id" in record and "outcome" in record:
            yield record


Pair = tuple[Json, Json]
Key = tuple[str, str]


def joined(found: Iterable[Json], route: Optional[str]) -> tuple[dict[Key, list[Pair]], int]:
    """Requests with their copies, by route and shadow; and how many are without the other."""
    requests: dict[str, Json] = {}
    copies: dict[str, Json] = {}
    for record in found:
        if route is not None and record.get("route") != route:
            continue
        if record.get("shadow"):
            copies[record["request_id"]] = record
        elif "mirrored_to" in record:
            requests[record["request_id"]] = record
    pairs: dict[Key, list[Pair]] = collections.defaultdict(list)
    for number, request in requests.items():
        if number in copies:
            pairs[request["route"], request["mirrored_to"]].append((request, copies[number]))
    return pairs, len(requests.keys() ^ copies.keys())


def compare(route: str, shadow: str, pairs: list[Pair]) -> Json:
    return {
        "route": route,
        "shadow": shadow,
        "requests": len(pairs),
        "served": side([request for request, _ in pairs]),
        "copies": side([copy for _, copy in pairs]),
    }


def side(found: list[Json]) -> Json:
    """The numbers of one side."""
    answered = [record for record in found if record["outcome"] == "answered"]
    times = sorted(record["ms"] for record in answered)
    firsts = sorted(record["first_token_ms"] for record in answered if "first_token_ms" in record)
    usages = [record["usage"] for record in answered if "usage" in record]
    costs = [Decimal(record["cost_usd"]) for record in found if "cost_usd" in record]
    outcomes = collections.Counter(record["outcome"] for record in found)
    providers = collections.Counter(record["provider"] for record in answered if "provider" in record)
    return {
        "answered": len(answered),
        "outcomes": dict(outcomes.most_common()),
        "providers": dict(providers.most_common()),
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
        "first_token_p50_ms": percentile(firsts, 50),
        "first_token_p95_ms": percentile(firsts, 95),
        "input_tokens": sum(usage["input"] for usage in usages),
        "output_tokens": sum(usage["output"] for usage in usages),
        "estimated": sum(usage["source"] == "estimated" for usage in usages),
        "cost_usd": str(sum(costs, Decimal(0))),
        "without_cost": len(found) - len(costs),
        "partly_priced": sum("unpriced_parts" in record for record in found),
    }


def percentile(ordered: list[int], percent: int) -> Optional[int]:
    """The nearest rank; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


ROWS = [
    ("answered", "answered"),
    ("p50_ms", "whole answer, p50 (ms)"),
    ("p95_ms", "whole answer, p95 (ms)"),
    ("first_token_p50_ms", "first token of streams, p50 (ms)"),
    ("first_token_p95_ms", "first token of streams, p95 (ms)"),
    ("input_tokens", "input tokens"),
    ("output_tokens", "output tokens"),
    ("estimated", "of these answers estimated"),
    ("cost_usd", "cost (USD)"),
    ("without_cost", "requests without a cost"),
    ("partly_priced", "requests with parts without a price"),
]


def show(one: Json) -> None:
    print(f"\nroute {one['route']}: {one['requests']} requests, each with a copy to {one['shadow']}\n")
    print(f"  {'':<36}{'served':>16}{'copies':>16}")
    for key, label in ROWS:
        values = [one[name][key] for name in ("served", "copies")]
        print(f"  {label:<36}" + "".join(f"{'-' if value is None else value:>16}" for value in values))
    for name in ("served", "copies"):
        told = ", ".join(f"{outcome} {count}" for outcome, count in one[name]["outcomes"].items())
        by = ", ".join(f"{provider} {count}" for provider, count in one[name]["providers"].items())
        print(f"  {name}: {told}" + (f" (by {by})" if by else ""))


if __name__ == "__main__":
    sys.exit(main())
