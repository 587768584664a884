"""What a training says before each thing that takes seconds, so that nobody wonders whether it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hubtune

STARTED = """
import json, sys
import hubtune

class Stop(BaseException):
    pass

class Heard(hubtune.Callbacks):
    def on_info(self, text):
        print(json.dumps([text, [name for name in ("datasets", "torch", "transformers.modeling_utils") if name in sys.modules]]), flush=True)
        if text == "Importing transformers":
            raise Stop

try:
    hubtune.train("text-classification", model=sys.argv[1], data=sys.argv[2], out=sys.argv[3], callbacks=Heard())
except Stop:
    pass
"""


def test_a_training_speaks_before_it_imports_libraries(tiny_model: Any, reviews: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STARTED, str(tiny_model("bert")), str(reviews), str(tmp_path / "run")],
                          capture_output=True, text=True, check=True)
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    assert next(iter(said.items())) == (f"Reading {reviews}", [])
    assert "torch" not in said["Importing torch"]
    assert said["Importing transformers"][-1] == "torch"


class Lines(hubtune.Callbacks):
    """What a training says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_info(self, text: str) -> None:
        self.said.append(text)

    def on_progress_start(self, description: str, total: int) -> None:
        self.said.append(description)


def test_every_long_phase_is_announced_in_order(tiny_model: Any, tmp_path: Path) -> None:
    heard = Lines()
    rows = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
    hubtune.train("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                  set={"train.max_steps": 1}, callbacks=heard)
    phases = ["Reading rows", "encoding train", "Loading the weights", "training", "Saving the model",
              "Verifying the saved model in a clean process (transformers only)", "Comparing its outputs with those of the trained model"]
    assert [line for line in heard.said if line in phases and line] == phases
    assert heard.said.index(f"Opening {tiny_model('bert').name}") < heard.said.index("encoding train")
