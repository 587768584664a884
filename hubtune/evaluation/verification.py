"""The proof that what was saved is what was trained: the saved files, loaded in a fresh process without
hubtune, give the outputs that the trained model gave, in fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from hubtune import temporary
from hubtune.contract import Base, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import ProofError
from hubtune.evaluation.clean_process import compared
from hubtune.evaluation.inference import batch_for, batches_of, evaluating

if TYPE_CHECKING:
    from torch.nn import Module

SCRIPT = Path(__file__).with_name("clean_process.py")
EXAMPLES = 64
"""Examples in the proof: the shortest, the longest and others evenly between."""
TOLERANCE = 1e-4
"""The largest difference of an output, relative to the largest output; merged LoRA weights round at 1e-6."""


@dataclass(frozen=True)
class Saved:
    """A saved model and how it loads. model: the transformers class. base, config: for PEFT, the folder of the base model
    and what its configuration needs, such as the labels. witness: what the trained model gave."""

    folder: Path
    model: str
    loads_with: str
    witness: Path
    base: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def witness(model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, path: Path, uniform: bool) -> None:
    """Ask the trained model, and write down inputs and outputs in a file beside the run."""
    order = encoded.sizes.argsort(kind="stable").tolist()
    chosen = [order[round(k * (len(order) - 1) / max(1, min(EXAMPLES, len(order)) - 1))] for k in
              range(min(EXAMPLES, len(order)))]
    tensors: dict[str, torch.Tensor] = {}
    with evaluating(model):
        sizes = [int(encoded.sizes[index]) for index in chosen]
        for number, items in enumerate(batches_of(model, sizes, uniform, most=16)):
            batch = batch_for(model, task, [encoded.examples[chosen[i]] for i in items], base)
            inputs = {name: value for name, value in batch.inputs.items() if isinstance(value, torch.Tensor)}
            tensors |= {f"in.{number}.{name}": value.cpu() for name, value in inputs.items()}
            tensors |= {f"out.{number}.{name}": value for name, value in compared(model(**inputs)).items()}
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def check(saved: Saved) -> dict[str, Any]:
    """Load the folder in a fresh process and compare; raises ProofError where the outputs differ."""
    (found,) = check_all([saved])
    if isinstance(found, ProofError):
        raise found
    return found


def check_all(models: Sequence[Saved]) -> list[dict[str, Any] | ProofError]:
    """Load many saved models in one fresh process: of each, how near its outputs came, or what is wrong."""
    with temporary.Folder() as place:
        jobs = []
        for number, saved in enumerate(models):
            inputs = place / f"{number}.in.safetensors"
            tensors = load_file(saved.witness)
            save_file({name[3:]: value for name, value in tensors.items() if name.startswith("in.")}, inputs)
            jobs.append({
                "folder": str(saved.folder), "model": saved.model, "loads_with": saved.loads_with,
                "base": str(saved.base) if saved.base else None, "config": dict(saved.config),
                "inputs": str(inputs), "outputs": str(place / f"{number}.out.safetensors"),
            })
        (place / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", str(SCRIPT), str(place / "jobs.json")], capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return [compare(saved, place / f"{number}.out.safetensors", said) for number, saved in enumerate(models)]


def compare(saved: Saved, outputs: Path, said: str) -> dict[str, Any] | ProofError:
    """How far a replay's outputs are from the trained model's."""
    hint = "This is a fault of the strategy's export: please report it."
    if not outputs.exists():
        reason = outputs.with_name(f"{outputs.name}.error")
        said = reason.read_text(encoding="utf-8").strip().splitlines()[0] if reason.exists() else said
        return ProofError(f"the saved model does not load with {saved.loads_with} alone: {said}", hint=hint)
    again = load_file(outputs)
    expected = {name[4:]: value for name, value in load_file(saved.witness).items() if name.startswith("out.")}
    strange = [name for name, value in expected.items() if name not in again or last(again[name], value).shape != value.shape]
    if strange:
        return ProofError(f"the saved model's outputs have another shape or are not there: {strange[0]}.", hint=hint)
    # Logits of learnt tokens stand before those of the text; only a method's own module leaves them out.
    worst = max(float((last(again[name], value) - value).abs().max()) for name, value in expected.items())
    largest = max(float(value.abs().max()) for value in expected.values())
    if not worst <= TOLERANCE * max(1.0, largest):
        return ProofError(f"the saved model differs from the trained one by {worst:.2e} in its outputs.", hint=hint)
    rows = {name.partition(".")[0]: len(value) for name, value in expected.items()}
    return {
        "examples": sum(rows.values()), "largest_difference": worst, "largest_output": largest, "tolerance": TOLERANCE,
    }


def last(found: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """As many of the last places as there were tokens."""
    return found[:, -like.shape[1]:] if found.ndim > 2 and found.shape[1] > like.shape[1] else found
