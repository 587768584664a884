"""Check hubtune on a GPU and measure it beside its peers, in eight minutes, without a network or an installation.

    make gpu                        # on a machine with one NVIDIA GPU, with that machine's own Python
    make gpu GPU=cpu                # the same in a tiny form, to try it where there is none
    python -m benchmarks.gpu --only checks

Results are written after each measurement, as JSON and as a page, so that a run that is cut short leaves
what it had. What does not fit into --minutes is named. TRL is measured where it is installed or lies in
.venv-peers (see `python -m benchmarks.whole --help`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.alone import Failed
from benchmarks.gpu import made, page, table, tree
from benchmarks.gpu.checks import CHECKS
from benchmarks.measures import REPO, machine
from benchmarks.whole.measured import measure

SECONDS = 120
"""Most seconds of a check, and of a way to train."""


class Session:
    """One run of everything: what was found so far, and the time that is left."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.ends = time.monotonic() + 60 * given.minutes
        self.environment = tree.environment(folder)
        if given.device == "cpu":
            self.environment["CUDA_VISIBLE_DEVICES"] = ""
        if given.peers.is_dir():
            self.environment["PYTHONPATH"] += os.pathsep + str(given.peers)
        self.found: dict[str, Any] = {"machine": machine() | self.device(), "checks": {}, "bench": [], "not_run": []}

    def device(self) -> dict[str, Any]:
        """Return the name of the device."""
        script = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu', torch.version.cuda)"
        done = subprocess.run([sys.executable, "-c", script], env=self.environment, capture_output=True, text=True)
        return {"device": done.stdout.strip() or done.stderr.strip()[-200:]}

    def left(self, name: str) -> float:
        """Return the seconds that are left; note what is not run where there are none."""
        seconds = self.ends - time.monotonic()
        if seconds < 15:
            self.found["not_run"].append(name)
        return seconds

    def write(self) -> None:
        """Write the results and their page."""
        self.given.out.mkdir(parents=True, exist_ok=True)
        (self.given.out / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        (self.given.out / "gpu.md").write_text(page.page(self.found), encoding="utf-8")

    def check(self, name: str) -> None:
        """Run a check in a process of its own."""
        if (left := self.left(name)) < 15:
            return
        command = [sys.executable, "-m", "benchmarks.gpu.checks", name, str(self.folder)]
        start = time.monotonic()
        try:
            done = subprocess.run(command, cwd=REPO, env=self.environment, capture_output=True, text=True,
                                  timeout=min(left, SECONDS))
            lines = done.stdout.strip().splitlines()
            found = json.loads(lines[-1]) if done.returncode == 0 and lines else {
                "result": "failed", "words": f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"}
        except subprocess.TimeoutExpired:
            found = {"result": "failed", "words": f"no end within {min(left, SECONDS):.0f} s"}
        self.found["checks"][name] = found | {"seconds": round(time.monotonic() - start, 1)}
        print(f"{name}: {found['result']}, {found['words']}", flush=True)
        self.write()

    def bench(self, row: table.Row, way: str, turn: int) -> None:
        """Measure a way of a row."""
        if (left := self.left(f"{row.name}, {way}")) < 15:
            return
        inputs = table.data(row, self.folder), made.base(row.base, self.folder)
        try:
            record = measure(row, way, row.rows, inputs, self.given.threads, turn, self.environment,
                             min(left, SECONDS))
            record |= page.work(row, *inputs)
            self.found["bench"].append(record)
            print(f"{row.name}, {way}: {record['row_ms']:.2f} ms a row, loss {record['loss']:.3f}", flush=True)
        except Failed as error:
            self.found["bench"].append({"row": row.name, "way": way, "failed": str(error).splitlines()[-1][:300]})
            print(f"{row.name}, {way}: failed\n{error}", file=sys.stderr, flush=True)
        self.write()


def main(arguments: list[str] | None = None) -> int:
    """Check and measure. 1: a check failed, or a side could not be measured; 2: this machine lacks what is needed."""
    given = asked(arguments)
    if lacking := tree.missing():
        print(f"hubtune needs packages that this Python lacks: {', '.join(lacking)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="hubtune-gpu-") as folder:
        session = Session(given, Path(folder))
        if given.device == "cuda" and session.found["machine"]["device"].startswith("cpu"):
            print("PyTorch sees no NVIDIA GPU here. To try it on the CPU: make gpu GPU=cpu", file=sys.stderr)
            return 2
        if given.only != "bench":
            for name in given.checks:
                session.check(name)
        if given.only != "checks":
            rows = table.rows(given.device)
            for turn in range(given.rounds):
                # hubtune and the first peer of all rows before the other peers, should time run out
                for chosen in (slice(0, 2), slice(2, None)):
                    for row in rows:
                        for way in ["hubtune", *row.peers][chosen]:
                            session.bench(row, way, turn)
        session.write()
        print(page.page(session.found))
    bad = [name for name, found in session.found["checks"].items() if found["result"] == "failed"]
    bad += [record["row"] for record in session.found["bench"] if "failed" in record and record["way"] == "hubtune"]
    return 1 if bad else 0


def asked(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=("checks", "bench"))
    parser.add_argument("--checks", nargs="+", choices=list(CHECKS), default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing is started after them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", type=Path, default=REPO / ".venv-peers", help="folder with the peers' packages")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results" / "gpu")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
