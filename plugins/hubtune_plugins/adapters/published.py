"""A model that is published with the code that builds it: what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import Export

if TYPE_CHECKING:
    from torch.nn import Module

CODE = Path(__file__).with_name("modeling_hubtune_adapters.py")


def export_with_code(model: Module, auto: str, said: Mapping[str, Any]) -> Export:
    """Export a model with the code that builds it.

    Args:
        auto: The `Auto` class that loads it.
        said: Values of `config.json` that the code reads to put the adapters in.
    """
    return Export(
        root=model, loads_with="code", files={CODE.name: CODE.read_text(encoding="utf-8")},
        config={"auto_map": {auto: f"{CODE.stem}.Adapted"}, "hubtune_adapters": said},
    )
