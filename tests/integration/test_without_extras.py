"""Without a package of the extras, a text task is trained, proven, evaluated and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXTRAS = ["bitsandbytes", "cleanlab", "jiwer", "matplotlib", "openpyxl", "peft", "PIL", "pycocotools", "sacrebleu", "soundfile", "soxr", "torchmetrics",
          "trackio", "wandb"]
PROGRAM = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None  # which then is not found
from hubtune.cli import commands
sys.exit(commands.main(sys.argv[2:]))
"""


def said(*arguments: str) -> Any:
    """What a command prints with --json in a process that has no extra."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(EXTRAS), *arguments, "--json"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_text_task_needs_no_extra(tiny_model: Callable[..., Path], reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said("train", "text-classification", "--model", str(tiny_model("bert")), "--data", str(reviews), "--strategy", "full",
         "--set", "train.epochs=1", "--set", "data.limit=60", "--out", str(run))
    proof = json.loads((run / "run.json").read_text(encoding="utf-8"))["proof"]
    assert proof["examples"] == 6
    assert proof["asked"]["rows"] == 6
    assert said("evaluate", str(run), "--data", str(reviews))["rows"] == 480
    assert len(said("predict", str(run), "What a lovely day")["predictions"]) == 1
