"""Try the suite's inputs at random in large numbers, and print a table by kind.

    python -m benchmarks.fuzz                    # 20,000 inputs: half an hour and more on one core
    python -m benchmarks.fuzz --examples 40      # in each test; slow ones try fewer

The order is the same each time. A traceback is any error that is not one of hubtune's, a hang a call of more than 60 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lines import read
from benchmarks.measures import REPO

TESTS = ("tests/test_fuzz_recipe.py", "tests/data/test_fuzz_reading.py", "tests/models/test_fuzz_bases.py",
         "tests/plugins/generation/test_fuzz_conversations.py")
COUNTS = ("inputs", "tracebacks", "hangs", "seconds")


def main() -> int:
    """Run the tests, and print the table. 1: one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=650)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each kind instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *TESTS], cwd=REPO, stdout=sys.stderr,
            env={**os.environ, "HUBTUNE_FUZZ_EXAMPLES": str(given.examples), "HUBTUNE_FUZZ_REPORT": str(report)})
        found = by_kind(read(report))
    print("\n".join(map(json.dumps, found)) if given.json else table(found))
    return done.returncode


def by_kind(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of the lines of each kind, and those of all."""
    sums: dict[str, dict[str, Any]] = {}
    for kind in [*dict.fromkeys(line["kind"] for line in lines), "all"]:
        mine = [line for line in lines if kind in (line["kind"], "all")]
        sums[kind] = {"kind": kind, **{name: sum(line[name] for line in mine) for name in COUNTS},
                      "longest": max((line["longest"] for line in mine), default=0.0)}
    return list(sums.values())


def table(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the sums by kind."""
    rows = [f"| {one['kind']} | {one['inputs']:,} | {one['tracebacks']} | {one['hangs']} | {one['seconds']:.0f} | {one['longest']:.1f} |"
            for one in found]
    return "\n".join(["| kind | inputs | tracebacks | hangs | seconds | longest, seconds |", "|---|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
