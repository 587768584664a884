"""A model that is published with the code that builds it: what is saved, and what of it another model takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubtune import Export, ModelError

CODE = Path(__file__).with_name("modeling_hubtune_adapters.py")
KEY = "hubtune_adapters"
"""Key of `config.json` under which adapters are recorded, which the code beside the weights reads."""


def with_code(export: Export, auto: str, recorded: Mapping[str, Any]) -> Export:
    """Add to an export the code that builds it, and the record of its adapters.

    Args:
        auto: The `Auto` class that loads it.
        recorded: Values of `config.json` that the code reads to put the adapters in.
    """
    if export.root is not None:
        recorded = fitted(export.root, recorded)
    return dataclasses.replace(
        export, loads_with="code", files={**export.files, CODE.name: CODE.read_text(encoding="utf-8")},
        config={**export.config, "auto_map": {auto: f"{CODE.stem}.Adapted"}, KEY: recorded},
    )


def fitted(model: Any, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of adapters with the names that their layers have in a model, which may be of another class."""
    import transformers

    before = getattr(getattr(transformers, str(recorded["model"]), None), "base_model_prefix", "")
    names = {name for name, _ in model.named_modules()}

    def name_in_model(name: str) -> str:
        bare = name.removeprefix(f"{before}.")
        for known in (name, bare, f"{model.base_model_prefix}.{bare}"):
            if known in names:
                return known
        raise ModelError(f"it has an adapter behind '{name}', which {type(model).__name__} does not have.")

    layers = {name_in_model(name): sizes for name, sizes in recorded["layers"].items()}
    return {**recorded, "model": type(model).__name__, "layers": layers}


def adapter_parameters(model: Any, recorded: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters of a model's recorded adapters."""
    inside = tuple(f"{name}.adapter." for name in fitted(model, recorded)["layers"])
    return {name for name, _ in model.named_parameters() if name.startswith(inside)}
