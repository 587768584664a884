"""Start of commands: the cost of `hubtune --help` beside `hf --help`, and the longest silences of a command.

`python -m benchmarks.starting -- train TASK --model MODEL --data DATA` prints its first word and longest silences.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measures import cpu_of

COMMANDS = {"hubtune --help": [sys.executable, "-m", "hubtune", "--help"], "hf --help": [str(Path(sys.executable).with_name("hf")), "--help"]}

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Escape sequences of a terminal: cursor movements and colours."""


def one(command: str) -> dict[str, Any]:
    """Wall and CPU milliseconds of a process from its start to its end."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(COMMANDS[command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, os.times()
    return {"wall_ms": 1e3 * wall,
            "cpu_ms": 1e3 * (after.children_user + after.children_system - before.children_user - before.children_system)}


# ------------------------------------------------------------------------------------- first word and silences


@dataclass(frozen=True)
class Word:
    """Something that a command wrote: after how many wall and CPU seconds, and its first line."""

    wall: float
    cpu: float
    text: str


def words_of(command: list[str], terminal: bool) -> list[Word]:
    """Run a command in a pseudo-terminal, or with pipes, and stamp what it writes; the last entry is its end."""
    near, far = pty.openpty() if terminal else os.pipe()
    start, found = time.monotonic(), []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=far, stderr=far) as process:
        os.close(far)
        while select.select([near], [], []):
            cpu = cpu_of(process.pid)
            try:
                given = os.read(near, 1 << 16)
            except OSError:  # how a pseudo-terminal says that nobody writes any more
                given = b""
            text = ESCAPES.sub("", given.decode(errors="replace")).strip()
            if text or not given:
                found.append(Word(time.monotonic() - start, cpu or found[-1].cpu, text.splitlines()[0] if text else "(ends)"))
            if not given:
                break
    os.close(near)
    return found


def main() -> None:
    """Print when a command says its first word, and its longest silences; for example: `-- train sentiment --model M --data D`."""
    given = argparse.ArgumentParser(description=main.__doc__)
    given.add_argument("--pipe", action="store_true", help="write into a pipe, not a pseudo-terminal")
    given.add_argument("--most", type=int, default=3, help="how many of the longest silences are printed")
    given.add_argument("arguments", nargs="+", help="arguments of hubtune")
    chosen = given.parse_args()
    words = words_of([sys.executable, "-m", "hubtune", *chosen.arguments], not chosen.pipe)
    print(f"first word after {words[0].wall:.2f} s ({words[0].cpu:.2f} s of CPU): {words[0].text}")
    for before, after in sorted(pairwise(words), key=lambda pair: pair[0].wall - pair[1].wall)[: chosen.most]:
        print(f"silent for {after.wall - before.wall:5.2f} s ({after.cpu - before.cpu:.2f} s of CPU) after: {before.text[:100]}\n"
              f"{'':30}before: {after.text[:100]}")


if __name__ == "__main__":
    main()
