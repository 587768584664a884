"""Run exported files: in a clean process to compare them with the trained model, and here to score them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hubtune.contract import Base, Exporter, Prediction, Task
from hubtune.errors import ProofError

RUNNER = '''

import sys

import numpy

for number in range(int(sys.argv[2])):
    with numpy.load(f"{sys.argv[1]}/{number}.in.npz") as inputs:
        found = run(dict(inputs))
    numpy.savez(f"{sys.argv[1]}/{number}.out.npz", **found)
'''
"""Appended to the usage of an exporter: runs it on inputs that are files."""


def prove(
    exporter: Exporter[Any], folder: Path, file: str, usage: str, inputs: Sequence[Mapping[str, Any]],
    expected: Sequence[Mapping[str, Any]], scratch: Path,
) -> dict[str, Any]:
    """Run a file in a clean process by the text that users are shown, and compare its outputs.

    Args:
        folder: of the file, where the process runs. scratch: an empty folder for arrays.

    Returns:
        `batches`, `shapes`, `largest_difference`, `largest_output` and `tolerance`.

    Raises:
        ProofError: the file does not run, or its outputs differ.
    """
    found = run_clean(folder, usage, inputs, scratch)
    differences, outputs = compare(found, expected, [one.get("attention_mask") for one in inputs])
    tolerance = exporter.tolerance * max(1.0, outputs)
    if not differences <= tolerance:
        raise ProofError(
            f"{file} differs from the trained model by {differences:.2e} in its outputs; {tolerance:.2e} is allowed. Nothing was kept.",
            hint="Export it in another format, or report it with the model's name.")
    return {"batches": len(inputs), "shapes": [{name: list(value.shape) for name, value in one.items()} for one in inputs],
            "largest_difference": differences, "largest_output": outputs, "tolerance": tolerance}


def run_clean(
    folder: Path, usage: str, inputs: Sequence[Mapping[str, Any]], scratch: Path
) -> list[dict[str, Any]]:
    """Run the usage of a file in a process of its own, which knows neither hubtune nor the model.

    Raises:
        ProofError: it ended with an error.
    """
    import numpy as np

    for number, arrays in enumerate(inputs):
        np.savez(scratch / f"{number}.in.npz", **arrays)
    code = "import sys\nsys.modules['hubtune'] = sys.modules['transformers'] = None\n" + usage + RUNNER
    done = subprocess.run([sys.executable, "-I", "-c", code, str(scratch.resolve()), str(len(inputs))], cwd=folder,
                          capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1][:300]
        raise ProofError(f"the exported file does not run in a clean process: {reason}. Nothing was kept.",
                         hint="Export it in another format, or report it with the model's name.")
    found = []
    for number in range(len(inputs)):
        with np.load(scratch / f"{number}.out.npz") as arrays:
            found.append(dict(arrays))
    return found


def compare(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]], masks: Sequence[Any]
) -> tuple[float, float]:
    """Return the largest difference of the outputs, and the largest output; infinite where shapes or names differ.

    masks: zeros at padding, (rows, tokens), or None. Outputs at padding are nobody's answer, and those of a token that sees no
    other, as with a sliding window, are whatever a library makes of no number at all.
    """
    import numpy as np

    difference = largest = 0.0
    for one, wanted, mask in zip(found, expected, masks, strict=True):
        for name, value in wanted.items():
            if name not in one or one[name].shape != value.shape:
                return float("inf"), largest
            gaps = np.abs(one[name].astype(np.float64) - value)
            if mask is not None and value.shape[:2] == mask.shape:
                gaps, value = gaps[mask == 1], value[mask == 1]
            gap = float(gaps.max(initial=0.0))
            difference = max(difference, gap) if gap == gap else float("inf")
            largest = max(largest, float(np.abs(value).max(initial=0.0)))
    return difference, largest


def predictions(
    folder: Path, usage: str, task: Task[Any], base: Base, config: Any, rows: Any, encoded: Any,
    names: Sequence[str],
) -> list[Prediction]:
    """Predict rows by forward passes of an exported file, with everything around them as it was."""
    import contextlib

    import torch

    from hubtune.evaluation.inference import Predictor

    space: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(usage, space)  # the exporter's own text

    class Exported(torch.nn.Module):
        """The exported file in place of the model."""

        def __init__(self) -> None:
            super().__init__()
            self.device_of = torch.nn.Parameter(torch.zeros(1))
            self.config = config

        def forward(self, **given: Any) -> Any:
            """Run the file."""
            found = space["run"]({name: given[name].numpy() for name in names})
            return SimpleNamespace(**{name: torch.from_numpy(value) for name, value in found.items()})

    return Predictor(Exported(), task, base).validate(rows, encoded).predictions
