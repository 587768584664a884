"""What a command costs that only prints its help: `hubtune --help` beside `hf --help`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMANDS = {"hubtune --help": [sys.executable, "-m", "hubtune", "--help"], "hf --help": [str(Path(sys.executable).with_name("hf")), "--help"]}


def one(command: str) -> dict[str, Any]:
    """Wall and CPU milliseconds of a process from its start to its end."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(COMMANDS[command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, os.times()
    return {"wall_ms": 1e3 * wall,
            "cpu_ms": 1e3 * (after.children_user + after.children_system - before.children_user - before.children_system)}
