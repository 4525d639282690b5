"""What the gateway does for one request of each kind on the stand-in for APISIX: callbacks into the filter, calls of the host, bytes.

    host-calls.py                the module of this checkout (build it first; SHUNT_WASM names another one)
    host-calls.py --json FILE    the counts as JSON, too
    host-calls.py --against FILE the counts that --json wrote before stand in front of each: "61>8"
    host-calls.py --write        puts the counts into the table of docs/hosts.md

The counts are the same on every machine and in every run, unlike times. tests/apisix/test_counts.py fails if they are not those of the
table.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "apisix"))

from counting import measure_all, table, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    counts = measure_all()
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    if options.write:
        write(counts)
    before = json.loads(options.against.read_text()) if options.against else {}

    def pair(kind: str, name: str) -> str:
        return f"{before[kind].get(name, 0)}>{counts[kind][name]}" if kind in before else str(counts[kind][name])

    print(table({kind: {name: pair(kind, name) for name in counts[kind]} for kind in counts}))


if __name__ == "__main__":
    main()
