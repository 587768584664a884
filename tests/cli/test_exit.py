"""The end of the command line's process."""

from __future__ import annotations

import subprocess
import sys


def test_the_garbage_collector_leaves_the_libraries_alone_at_the_end() -> None:
    """With torch and transformers imported, its last collection took a second of each command."""
    code = ("import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); from hubtune.cli.commands import main; "
            "main(['--version'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
