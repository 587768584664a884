"""Weights of a model with a head of ours: of a plain pretrained model, or of one that was published with such a head."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.models import compat
from hubtune.models.heads.choice import PREFIX

if TYPE_CHECKING:
    from torch.nn import Module

QUANTIZED = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "hf_quantizer",
             "quantization_method")
"""Attributes that a quantized model has, which its wrapper takes on."""


def has_head(names: Collection[str]) -> bool:
    """Tell whether the tensors of a checkpoint are of a model with a head of ours."""
    return any(name.startswith(PREFIX) for name in names)


def load(
    kind: type[Any], config: Any, place: Path | None, names: Collection[str],
    arguments: Mapping[str, Any],
) -> tuple[Module, Mapping[str, Any]]:
    """Load weights into a class of ours; returns the model and transformers' loading report.

    A plain checkpoint is loaded by the library's own class, so that names are converted and tied
    as there, and the head is put on the part that is used.

    Args:
        place: a folder; None for tensors in `arguments`.
        names: of the checkpoint's tensors.
        arguments: of `from_pretrained`.
    """
    import torch

    from hubtune.models.heads.modeling import without_pooler

    arguments = {**arguments, "config": config}
    if has_head(names):
        loaded: tuple[Module, Mapping[str, Any]] = kind.from_pretrained(place, **arguments)
        return loaded
    inner = config.backbone_config
    arguments |= {"config": inner, **without_pooler(inner)}
    whole, report = base_class(inner).from_pretrained(place, **arguments)
    with torch.device("meta"):
        model: Any = kind(copy.deepcopy(config))
    model.pretrained = whole.get_submodule(config.part)
    model.classifier = torch.nn.Linear(
        config.width, kind.num_outputs(config), device=next(whole.parameters()).device)
    if place is not None:
        torch.nn.init.normal_(model.classifier.weight, std=0.02)
        torch.nn.init.zeros_(model.classifier.bias)
    if hasattr(whole.config, "quantization_config"):
        model.config.quantization_config = whole.config.quantization_config
    for name in QUANTIZED:
        if hasattr(whole, name):
            setattr(model, name, getattr(whole, name))
    model.eval()
    return model, {**report, **renamed(report, whole, config.part)}


def base_class(config: Any) -> Any:
    """Return the class of a model without a head."""
    kind = compat.model_class("AutoModel", config)
    assert kind is not None, "a head was put on a model without a base class"
    return kind


def renamed(report: Mapping[str, Any], whole: Any, part: str) -> dict[str, Any]:
    """Return the names in a loading report as those of the model with the head.

    Those of parts that are not used are left out.
    """
    prefix = f"{whole.base_model_prefix}."
    inside = f"{part}." if part else ""

    def name_of(name: str) -> str | None:
        name = name.removeprefix(prefix)
        return PREFIX + name.removeprefix(inside) if name.startswith(inside) else None

    missing = {name_of(str(name)) for name in report["missing_keys"]}
    mismatched = [(name_of(str(item[0])), *item[1:]) if isinstance(item, tuple) else name_of(item)
                  for item in report["mismatched_keys"]]
    return {
        "missing_keys": {*(missing - {None}), *(f"classifier.{name}" for name in ("weight", "bias"))},
        "mismatched_keys": [item for item in mismatched
                            if (item[0] if isinstance(item, tuple) else item) is not None],
        "unexpected_keys": {found for name in report["unexpected_keys"]
                            if (found := name_of(str(name)))},
    }
