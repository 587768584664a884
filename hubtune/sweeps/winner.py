"""The winner of a sweep, trained as `hubtune train` does, in `best/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubtune import files
from hubtune.callbacks import Callbacks
from hubtune.recipe import Recipe
from hubtune.runs import run as runs
from hubtune.sweeps import report
from hubtune.sweeps.trials import Trial


def train(
    recipe: Recipe, folder: Path, best: Trial, metric: str, source: Any, callbacks: Callbacks
) -> runs.Run:
    """Train the winner's recipe, go on with a training that was stopped, or take the run that is there."""
    place, marker = folder / "best", folder / "best.json"
    wanted = json.dumps(report.command(recipe))
    same = marker.exists() and marker.read_text(encoding="utf-8") == wanted and (place / "run.json").exists()
    state = json.loads((place / "run.json").read_text(encoding="utf-8"))["state"] if same else ""
    if state in ("trained", "published"):
        return runs.Run(place, trust_code=place)
    if state == "started":
        return runs.resume(place, source=source, trusted=recipe.trusted, callbacks=callbacks)
    callbacks.on_info(f"training the winner, trial {best.number}, into {place}")
    files.write_atomically(marker, wanted)
    return runs.train(recipe, out=place, overwrite=place.exists(), source=source, callbacks=callbacks,
                      known=report.cross_validation(best, metric))
