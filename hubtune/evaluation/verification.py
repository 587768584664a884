"""Verify that a saved model answers as the trained one, in a clean process without hubtune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hubtune import temporary
from hubtune.contract import Base, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.devices.clean_python import CleanPython
from hubtune.errors import ProofError
from hubtune.evaluation import clean_process, user_calls
from hubtune.evaluation.batches import batch_indices, evaluation_mode, make_batch
from hubtune.evaluation.clean_process import compared_outputs, thinned
from hubtune.evaluation.equivalence import spread_by_size
from hubtune.models.heads import choice

if TYPE_CHECKING:
    from torch.nn import Module

SCRIPT = Path(clean_process.__file__)
EXAMPLES = 64
"""The most examples that are compared: the shortest, the longest and others evenly between."""
EXAMPLES_PER_BATCH = 16
TOLERANCE = 1e-4
"""The largest difference, relative to the largest output; merged LoRA weights round at 1e-6."""
EXPORT_HINT = (
    "The saved files were changed, or the strategy's export is at fault: put the files back or "
    "train again; if that does not help, please report it."
)


@dataclass(frozen=True)
class SavedModel:
    """A saved model, how it loads, and the outputs that it has to give.

    model_class: of transformers. recorded: a file of `record_outputs`, if
    there is one. base, config: with
    loads_with="peft", the folder of the base model, and configuration such as the labels. calls: a
    folder of `record_answers`, with the class of the processor and the tag of the pipeline.
    """

    folder: Path
    model_class: str
    loads_with: str
    recorded: Path | None
    base: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    calls: Path | None = None
    processor: str = "AutoTokenizer"
    tag: str = ""


def record_outputs(
    model: Module, task: Task[Any], base: Base, encoded: EncodedDataset, path: Path, uniform: bool
) -> None:
    """Write inputs and outputs of the trained model: `in.0.input_ids`, `out.0.logits`."""
    chosen = spread_by_size(encoded, EXAMPLES)
    sizes = [int(encoded.sizes[item]) for item in chosen]
    tensors: dict[str, torch.Tensor] = {}
    with evaluation_mode(model):
        for number, places in enumerate(
            batch_indices(model, sizes, uniform, max_examples=EXAMPLES_PER_BATCH)
        ):
            batch = make_batch(
                model, task, [encoded.examples[chosen[place]] for place in places], base
            )
            inputs = {
                name: value
                for name, value in batch.inputs.items()
                if isinstance(value, torch.Tensor)
            }
            outputs = compared_outputs(model(**inputs))
            tensors |= {f"in.{number}.{name}": value.cpu() for name, value in inputs.items()}
            tensors |= {f"out.{number}.{name}": value for name, value in outputs.items()}
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def modules_of(base: Base, loads_with: str) -> list[str]:
    """Return the modules that a clean process imports to load a model and ask it."""
    family = type(choice.pretrained_config(base.config)).__module__.replace(".configuration_", ".modeling_")
    own = [family] if family.startswith("transformers.") else []
    adapters = ["peft"] if loads_with == "peft" else []
    return ["torch", "safetensors.torch", "transformers.pipelines", *own, *adapters]


def verify_model(saved: SavedModel, process: CleanPython | None = None) -> dict[str, Any]:
    """Load a saved model in a clean process, and compare its outputs with those recorded.

    Args:
        process: one of `SCRIPT` that may have been started before; it ends with this.

    Raises:
        ProofError: the outputs differ.
    """
    with Verification([saved], process) as running:
        return running.result(saved)


def verify_models(models: Sequence[SavedModel]) -> list[dict[str, Any] | ProofError]:
    """Verify many saved models in one clean process; returns differences or an error."""
    with Verification(models) as running:
        return running.results(models)


class Verification:
    """A clean process that loads saved models and asks them, while this process does other things.

    It needs the recorded inputs and calls when it begins; the outputs and answers of the trained
    model are needed for the results alone.
    """

    def __init__(
        self, models: Sequence[SavedModel], process: CleanPython | None = None,
        shares_threads: bool = False,
    ) -> None:
        """Begin.

        Args:
            process: one of `SCRIPT` that may have been started before.
            shares_threads: each of both processes computes with half of the threads until `with`
                ends, since more threads than cores wait for each other.
        """
        self.folder = temporary.Folder()
        self.clean = process or CleanPython(SCRIPT)
        self.threads = threads = torch.get_num_threads()
        if shares_threads:
            threads = max(1, threads // 2)
            torch.set_num_threads(threads)
        path = self.folder.path
        try:
            self.jobs = [write_job(saved, path, number) | {"threads": threads}
                         for number, saved in enumerate(models)]
            (path / "jobs.json").write_text(json.dumps(self.jobs), encoding="utf-8")
            self.clean.send(path / "jobs.json")
        except BaseException:  # such as of a full disk: `with` has not begun
            self.__exit__()
            raise

    def __enter__(self) -> Verification:
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.threads)
        self.clean.stop()
        self.folder.remove()

    def results(self, models: Sequence[SavedModel]) -> list[dict[str, Any] | ProofError]:
        """Wait for all jobs; returns differences or an error for each model."""
        last_line = self.clean.wait()
        return [compare(saved, Path(job["outputs"]), last_line)
                for saved, job in zip(models, self.jobs, strict=True)]

    def result(self, saved: SavedModel) -> dict[str, Any]:
        """Wait for the only job; returns the differences.

        Raises:
            ProofError: the outputs differ.
        """
        (result,) = self.results([saved])
        if isinstance(result, ProofError):
            raise result
        return result


def load_recorded(path: Path) -> dict[str, torch.Tensor]:
    """Read the inputs and outputs that `record_outputs` wrote.

    Raises:
        ProofError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ProofError(f"the trained model's outputs cannot be read: {error}.", where=str(path),
                         hint="Restore the file from a copy, or train again.") from error


def write_job(saved: SavedModel, folder: Path, number: int) -> dict[str, Any]:
    """Write the recorded inputs for the clean process, and return its job."""
    inputs = folder / f"{number}.in.safetensors"
    if saved.recorded is not None:
        recorded = load_recorded(saved.recorded)
        save_file(
            {name[3:]: value for name, value in recorded.items() if name.startswith("in.")}, inputs
        )
    return {
        "folder": str(saved.folder),
        "model": saved.model_class,
        "loads_with": saved.loads_with,
        "base": str(saved.base) if saved.base else None,
        "config": dict(saved.config),
        "inputs": None if saved.recorded is None else str(inputs),
        "outputs": str(folder / f"{number}.out.safetensors"),
        "calls": str(saved.calls) if saved.calls else None,
        "processor": saved.processor,
        "tag": saved.tag,
    }


def compare(saved: SavedModel, outputs: Path, last_line: str) -> dict[str, Any] | ProofError:
    """Compare outputs with those recorded. last_line: of stderr, if there are none."""
    if not outputs.exists():
        error = outputs.with_name(f"{outputs.name}.error")
        reason = (
            error.read_text(encoding="utf-8").strip().splitlines()[0]
            if error.exists()
            else last_line
        )
        return not_loading(saved, reason)
    proof = {} if saved.recorded is None else compare_outputs(load_file(outputs), saved.recorded)
    if isinstance(proof, ProofError):
        return proof
    asked = None
    if saved.calls is not None:
        answers = json.loads(Path(f"{outputs}.answers").read_text(encoding="utf-8"))
        if "error" in answers:
            return not_loading(saved, answers["error"])
        asked, problem = user_calls.compare_answers(saved.calls, answers)
        if problem is not None:
            return ProofError(f"asked as its users ask it, {problem}.", hint=EXPORT_HINT)
    return {**proof, "asked": asked}


def not_loading(saved: SavedModel, reason: str) -> ProofError:
    """Return the error of a model that does not load, or whose processor does not."""
    return ProofError(f"the saved model does not load with {saved.loads_with} alone: {reason}",
                      hint=EXPORT_HINT)


def compare_outputs(
    found: Mapping[str, torch.Tensor], path: Path
) -> dict[str, Any] | ProofError:
    """Compare outputs with those recorded in a file; returns the differences."""
    recorded = load_recorded(path)
    # Runs of earlier versions have all values.
    expected = {name[4:]: thinned(value) for name, value in recorded.items() if name.startswith("out.")}
    different = [
        name
        for name, value in expected.items()
        if name not in found or last_positions(found[name], value).shape != value.shape
    ]
    if different:
        return ProofError(
            f"the saved model's output '{different[0]}' is missing or has another shape.",
            hint=EXPORT_HINT,
        )
    largest = max(float(value.abs().max()) for value in expected.values())
    difference = max(
        float((last_positions(found[name], value) - value).abs().max())
        for name, value in expected.items()
    )
    if not difference <= TOLERANCE * max(1.0, largest):
        return ProofError(
            f"the saved model differs from the trained one by {difference:.2e} in its outputs.",
            hint=EXPORT_HINT,
        )
    rows = {name.partition(".")[0]: len(value) for name, value in expected.items()}
    return {
        "examples": sum(rows.values()),
        "largest_difference": difference,
        "largest_output": largest,
        "tolerance": TOLERANCE,
    }


def last_positions(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Drop leading positions that `expected` lacks: those of virtual tokens."""
    has_more = found.ndim > 2 and found.shape[1] > expected.shape[1]
    return found[:, -expected.shape[1] :] if has_more else found
