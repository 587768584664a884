"""The proof that what was saved is what was trained: the saved files, loaded in a fresh process without
hubtune, give the outputs that the trained model gave, in fp32."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from hubtune.batching import by_size
from hubtune.contract import Base, Task
from hubtune.encoding import Encoded
from hubtune.errors import ProofError
from hubtune.evaluate import LIMIT, batch_on, evaluating

if TYPE_CHECKING:
    from torch.nn import Module

SCRIPT = Path(__file__).with_name("replay.py")
EXAMPLES = 64
"""Examples in the proof: the shortest, the longest and others evenly between."""
TOLERANCE = 1e-4
"""The largest difference of an output, relative to the largest output; merged LoRA weights round at 1e-6."""


def witness(model: Module, task: Task[Any], base: Base, encoded: Encoded, path: Path, uniform: bool) -> None:
    """Ask the trained model, and write down inputs and outputs in a file beside the run."""
    order = sorted(range(len(encoded.examples)), key=lambda index: int(encoded.sizes[index]))
    chosen = [order[round(k * (len(order) - 1) / max(1, min(EXAMPLES, len(order)) - 1))] for k in
              range(min(EXAMPLES, len(order)))]
    device = next(model.parameters()).device
    tensors: dict[str, torch.Tensor] = {}
    with evaluating(model):
        sizes = [int(encoded.sizes[index]) for index in chosen]
        for number, items in enumerate(by_size(sizes, LIMIT, 16, uniform)):
            batch = batch_on(task, [encoded.examples[chosen[i]] for i in items], base, None, device)
            logits = model(**batch.inputs).logits
            tensors |= {f"in.{number}.{k}": v.cpu() for k, v in batch.inputs.items() if isinstance(v, torch.Tensor)}
            tensors[f"out.{number}.logits"] = logits.float().cpu()
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def check(folder: Path, auto_class: str, witness: Path) -> dict[str, Any]:
    """Load the folder in a fresh process and compare; raises ProofError where the outputs differ."""
    tensors = load_file(witness)
    with tempfile.TemporaryDirectory() as place:
        inputs, outputs = Path(place) / "inputs.safetensors", Path(place) / "outputs.safetensors"
        save_file({name[3:]: value for name, value in tensors.items() if name.startswith("in.")}, inputs)
        run_replay([str(folder), auto_class, str(inputs), str(outputs)])
        again = load_file(outputs)
    expected = {name[4:]: value for name, value in tensors.items() if name.startswith("out.")}
    worst = max(float((again[name] - value).abs().max()) for name, value in expected.items())
    largest = max(float(value.abs().max()) for value in expected.values())
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ProofError(
            f"the saved model differs from the trained one by {worst:.2e} in its outputs.",
            hint="This is a fault of the strategy's export: please report it.",
        )
    return {"examples": sum(len(value) for value in expected.values()), "largest_difference": worst, "largest_output": largest, "tolerance": TOLERANCE}


def run_replay(arguments: Sequence[str]) -> None:
    """Start the fresh process, and say what it said when it fails."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ProofError(f"the saved model does not load with transformers alone: {said}",
                         hint="This is a fault of the strategy's export: please report it.")
