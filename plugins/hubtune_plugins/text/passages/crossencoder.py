"""Configuration keys of sentence-transformers' CrossEncoder: the function between its output and a score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hubtune import Base, ModelError

if TYPE_CHECKING:
    from torch import Tensor

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
KEY = "sentence_transformers"
SETTINGS, MODULES = "config_sentence_transformers.json", "modules.json"
"""Files of CrossEncoder's layout: its own settings, and the list of its parts."""
KNOWN = {"Sigmoid": SIGMOID, "Identity": IDENTITY}
"""Functions by the last part of their names."""


def activation_for(loss: str | None, base: Base) -> str:
    """The function for a loss; for a model that was tuned elsewhere (no loss) its own, as CrossEncoder finds it.

    Raises ModelError for a function or a layout of CrossEncoder whose scores would be others here.
    """
    said = settings_of(base)
    if loss is not None:
        return SIGMOID if loss == "binary" else IDENTITY
    name = str(said.get("activation_fn") or SIGMOID)
    if name.rpartition(".")[2] not in KNOWN:
        raise ModelError(f"its CrossEncoder makes scores by '{name}', which hubtune does not compute.", where=base.repo,
                         hint="Tune it: hubtune train reranking; training chooses the function that fits its loss.")
    return KNOWN[name.rpartition(".")[2]]


def settings_of(base: Base) -> dict[str, Any]:
    """The settings of a CrossEncoder: in its own file since sentence-transformers 5.4, before in config.json.

    Raises ModelError where its scores come from more than a classifier, or from a prompt, that would be lost.
    """
    found = dict(getattr(base.config, KEY, None) or {})
    own = read(base, SETTINGS)
    if not isinstance(own, dict) or own.get("model_type") != "CrossEncoder":
        return found
    parts = [str(part.get("type", "")).rpartition(".")[2] for part in read(base, MODULES) or [] if isinstance(part, dict)]
    lost = [part for part in parts if part != "Transformer"] + (["a prompt"] if own.get("default_prompt_name") else [])
    if lost:
        raise ModelError(f"its CrossEncoder has {', '.join(lost)} beside a classifier, which would be lost.", where=base.repo,
                         hint="Choose a CrossEncoder of one Transformer module, or a model without a CrossEncoder's files.")
    return {**found, **({"activation_fn": own["activation_fn"]} if own.get("activation_fn") else {})}


def read(base: Base, name: str) -> Any:
    """The JSON in a file beside the weights; None where there is none."""
    path = None if base.folder is None else base.folder / name
    if path is None or not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"it is no JSON: {error}.", where=f"{base.repo}/{name}", hint="Fetch the model again.") from error


def config_for(activation: str, config: Any) -> dict[str, Any]:
    """Configuration with which CrossEncoder and transformers' pipeline give the same scores as we do."""
    return {KEY: {**(getattr(config, KEY, None) or {}), "activation_fn": activation},
            "problem_type": None if activation == SIGMOID else "regression"}  # a pipeline applies the sigmoid unless told so


def activated(logits: Tensor, activation: str) -> Tensor:
    """Scores from logits of any shape."""
    return logits.sigmoid() if activation == SIGMOID else logits
