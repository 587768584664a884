"""The names that contract 2 changed, for the one message that a plugin of contract 1 gets."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hubtune.contract.plugin import CONTRACT
from hubtune.errors import ContractMismatch, listing

GUIDE = "docs/plugins.md, \"From contract 1 to contract 2\""
RENAMED: Mapping[str, str] = {
    "Setup": "ModelSetup", "Draw": "ExampleRNG",
    "inspect": "validate_data", "configure": "model_config", "metric_of": "select_metric", "size": "num_tokens",
    "group": "sampling_key (of SamplingTask)", "annotate": "reference_outputs (of ReferenceTask)",
    "predict": "predict (of GenerativeTask)", "additive": "the base class ContrastiveTask",
    "represent": "embed (of ContrastiveTask)", "loss_over": "contrastive_loss (of ContrastiveTask)",
    "count": "counts of Batch", "judge": "postprocess", "resamples": "bootstrap_samples", "needs": "requires",
    "sample": "sample of the test class", "gold": "gold of the test class",
    "load": "from_pretrained_kwargs", "positions": "num_virtual_tokens", "enter": "start_phase", "groups": "param_groups",
    "penalty": "regularization (of StepStrategy)", "after_step": "after_step (of StepStrategy)",
    "optimizer": "optimizer (of OptimizerStrategy)",
}
"""The types that a module imports, then the members of tasks, then those of strategies."""


def mismatch(label: str, version: object, names: Iterable[str]) -> ContractMismatch:
    """Build the error for a class of another contract. names: what its author defined or imported."""
    names = set(names)
    renamed = [f"{old} is now {new}" for old, new in RENAMED.items() if old in names]
    message = f"{label} speaks contract {version}; this hubtune speaks {CONTRACT}."
    if version != 1:
        return ContractMismatch(message)
    if renamed:
        message = f"{message[:-1]}: {listing(renamed, len(renamed))}."
    return ContractMismatch(message, hint=f"How to port it: {GUIDE}.")


def mismatch_of_class(kind: type[Any], parent: type[Any]) -> ContractMismatch:
    """Build the error for a class that was imported."""
    own = {name for cls in kind.__mro__ if not issubclass(parent, cls) for name in vars(cls)}
    return mismatch(kind.__qualname__, getattr(kind, "contract", None), own)


def mismatch_of_import(error: ImportError) -> ContractMismatch | None:
    """Build the error for a module whose import of a renamed type failed; None where that is not the reason."""
    failed = traceback.extract_tb(error.__traceback__)[-1].filename
    if error.name not in ("hubtune", "hubtune.contract") or not Path(failed).is_file():
        return None
    tree = ast.parse(Path(failed).read_text(encoding="utf-8"))
    imported = {item.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for item in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (names := members(node)).get("contract") == 1:
            return mismatch(node.name, 1, imported | names.keys())
    return None


def members(node: ast.ClassDef) -> dict[str, Any]:
    """List what a class body defines: each name, with its value where that is a constant."""
    found: dict[str, Any] = {item.name: None for item in node.body if isinstance(item, ast.FunctionDef)}
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found[item.targets[0].id] = getattr(item.value, "value", None)
    return found
