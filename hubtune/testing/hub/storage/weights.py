"""What the Hub tells about a repo's safetensors without loading them: parameters by dtype, from the headers alone."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from hubtune.testing.hub.storage.history import Tree

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LARGEST_HEADER = 100 * 1024 * 1024


def summary(tree: Tree, path_of: Callable[[str], Path]) -> dict[str, Any] | None:
    """{"parameters": {dtype: count}, "total": count} of the model's weights; None when there are none to read."""
    counts: Counter[str] = Counter()
    for name in _weight_files(tree, path_of):
        header = _header(path_of(name)) if name in tree else None
        if header is None:
            return None
        for tensor, about in header.items():
            if tensor != "__metadata__":
                counts[about["dtype"]] += prod(about["shape"])
    return {"parameters": dict(counts), "total": sum(counts.values())} if counts else None


def _weight_files(tree: Tree, path_of: Callable[[str], Path]) -> list[str]:
    if SINGLE in tree:
        return [SINGLE]
    if INDEX not in tree:
        return []
    try:
        return sorted(set(json.loads(path_of(INDEX).read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        return []


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return dict(json.loads(file.read(length))) if length < _LARGEST_HEADER else None
    except (ValueError, struct.error):
        # Tests upload files of that name with anything inside; the Hub shows no parameters for those.
        return None
