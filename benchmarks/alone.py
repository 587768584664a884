"""One measurement in a process of its own, since hubtune changes how the C library keeps memory, and the next one would profit.

    python -m benchmarks.alone MODULE '{"argument": "value"}'      # calls `one` of that module; the last line is JSON
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.measures import REPO


class Failed(Exception):
    """A measurement that ended without figures."""


def ran(words: Sequence[str], threads: int) -> str:
    """What a command of this Python prints, run in the repository."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *words], cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed("\n".join(done.stderr.strip().splitlines()[-12:]))
    return done.stdout


def alone(module: str, threads: int, **arguments: Any) -> dict[str, Any]:
    """The figures of one measurement, with its arguments."""
    printed = ran(["-m", "benchmarks.alone", module, json.dumps(arguments)], threads)
    return {**arguments, "threads": threads, **json.loads(printed.strip().splitlines()[-1])}


if __name__ == "__main__":
    found = importlib.import_module(f"benchmarks.{sys.argv[1]}").one(**json.loads(sys.argv[2]))
    print("\n" + json.dumps(found))
