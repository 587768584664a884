"""Measure whole commands of hubtune beside its peers, on all cores.

    python -m benchmarks.whole --rows wnut17                    # one row of the table
    python -m benchmarks.whole --rows causal-lora --only hubtune
    python -m benchmarks.whole --quick                          # all rows, few steps: five minutes
    python -m benchmarks.whole --rounds 3                       # the table of docs/performance.md

The peers are not installed with hubtune. TRL, and what is missing of the others, goes into a folder
beside torch, which must stay as it is:

    pip install --no-deps --target .venv-peers trl==1.16.0 sentence-transformers==6.2.0

Both sides of every row have been run to the end with few steps (gsm8k's peer by the script that it
shares with banking77), except hubtune's side of preference: it trained and validated, and was stopped
at 150 s. A side that fails is named and leaves no figures.

A row whose peer is missing is skipped, and named. --peers names another folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.alone import Failed
from benchmarks.measures import REPO, machine
from benchmarks.whole import data, page
from benchmarks.whole.measured import one
from benchmarks.whole.table import BY_NAME, ROWS, Row

PACKAGES = {"language_model": "trl", "preference": "trl", "similarity": "sentence_transformers"}
QUICK = 0.04


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for. 1: something could not be measured."""
    given = asked(arguments)
    if given.peers.is_dir():
        sys.path.append(str(given.peers))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(given.peers))))
    chosen = [BY_NAME[name] for name in given.rows if available(BY_NAME[name])]
    found, failed = [{"machine": machine(), "threads": given.threads}], 0
    began = time.monotonic()
    for turn in range(given.rounds):
        for row in chosen:
            # The order changes with the round.
            ways = [way for way in ("hubtune", *row.peers) if not given.only or way in given.only]
            for way in ways[turn % len(ways):] + ways[:turn % len(ways)] if ways else []:
                try:
                    found.append(one(row, way, given.threads, turn, given.scale, given.cache))
                    say(time.monotonic() - began, found[-1])
                except Failed as error:
                    failed += 1
                    print(f"failed: {row.name}, {way}\n{error}", file=sys.stderr)
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(page.table_of(found))
    return 1 if failed else 0


def asked(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(BY_NAME), default=list(BY_NAME))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="hubtune, or names of peers, such as Trainer")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows to learn from")
    parser.add_argument("--quick", action="store_true", help=f"one round of a few steps: --scale {QUICK}")
    parser.add_argument("--peers", type=Path, default=REPO / ".venv-peers", help="folder with the peers' packages")
    parser.add_argument("--cache", type=Path, default=REPO / ".bench-cache", help="folder of data and base models")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results" / "whole.json")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.scale = 1, QUICK
        if given.out == parser.get_default("out"):  # a quick run is no result
            given.out = given.cache / "quick.json"
    return given


def available(row: Row) -> bool:
    """Return whether data and peer are there; say what is missing."""
    package = PACKAGES.get(row.script)
    if not data.present(row.data):
        print(f"skipped: {row.name}, since its data are not there")
    elif package and importlib.util.find_spec(package) is None:
        print(f"skipped: {row.name}, since {package} is not installed (see --help)")
    else:
        return True
    return False


def say(seconds: float, record: dict[str, float]) -> None:
    """Print what was measured."""
    print(f"{seconds:6.0f} s  {record['row']}, {record['way']}: {record['row_ms']:.2f} ms a row, "
          f"command {record['seconds']:.1f} s, peak {record['peak_bytes'] / 2**20:.0f} MiB "
          f"(children {record['children_bytes'] / 2**20:.0f}), loss {record['loss']:.3f}, load {record['load']}", flush=True)


assert len(BY_NAME) == len(ROWS)
if __name__ == "__main__":
    sys.exit(main())
