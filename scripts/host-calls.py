"""What the gateway does for one request of each kind on the stand-in for APISIX: callbacks into the filter, calls of the host, bytes.

    host-calls.py                the module of this checkout (build it first; SHUNT_WASM names another one)
    host-calls.py --json FILE    the counts as JSON, too
    host-calls.py --against FILE the counts that --json wrote before stand in front of each: "61>8"

The counts are the same on every machine and in every run, unlike times. `tests/apisix/test_counts.py` asserts them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "apisix"))

from counting import measure_all, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    options = parser.parse_args()
    counts = measure_all()
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    before = json.loads(options.against.read_text()) if options.against else {}
    shown = {
        kind: {name: f"{before[kind].get(name, 0)}>{count}" if kind in before else count for name, count in counts[kind].items()} for kind in counts
    }
    print(table(shown))


if __name__ == "__main__":
    main()
