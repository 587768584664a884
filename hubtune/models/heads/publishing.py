"""Models that hubtune builds as they are published: the code that builds them lies beside their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubtune.contract import Export
from hubtune.files import read_json
from hubtune.hub.origin import Origin, fetch
from hubtune.hub.trust import HEAD_TYPE, added_by, code_files, named_code
from hubtune.models.heads.choice import HEADS

SOURCE = Path(__file__).with_name("modeling.py")
FILE = "modeling_hubtune_head.py"
"""Name of the code in a published model; it is `modeling.py` word for word."""


def auto_map(auto: str) -> dict[str, str]:
    """Return what config.json says of the code. auto: the class of transformers that loads it."""
    stem = FILE.removesuffix(".py")
    return {"AutoConfig": f"{stem}.HubtuneHeadConfig", auto: f"{stem}.{HEADS[auto][0]}"}


def with_code(export: Export, auto: str) -> Export:
    """Return an export with the code that builds the model."""
    text = SOURCE.read_text(encoding="utf-8")
    return dataclasses.replace(
        export, loads_with="code", files={**export.files, FILE: text},
        config={**export.config, "auto_map": {**auto_map(auto), **export.config.get("auto_map", {})}})


def is_own_code(origin: Origin) -> bool:
    """Tell whether the only code in a model's folder is what this version of hubtune, or of the strategy, publishes with it."""
    folder = fetch(origin, [*code_files(origin), "config.json"])
    config = read_json(folder / "config.json", f"{origin.repo}/config.json", "")
    named = config.get("auto_map")
    if named_code(origin) or not isinstance(named, dict):
        return False
    return any(is_as_published(origin, folder, config, published(config, auto)) for auto in named if auto != "AutoConfig")


def published(config: Mapping[str, Any], auto: str) -> Export:
    """Return the files and the configuration that are published with a model that hubtune builds."""
    export, strategy = Export(root=None), added_by(config)
    if strategy is not None:
        export = strategy.with_code(export, auto, config[strategy.config_key])
    return with_code(export, auto) if config.get("model_type") == HEAD_TYPE and auto in HEADS else export


def is_as_published(origin: Origin, folder: Path, config: Mapping[str, Any], export: Export) -> bool:
    """Tell whether the code beside a model's weights is that of an export, and nothing else."""
    return bool(export.files) and code_files(origin) == sorted(export.files) and all(
        (folder / name).read_text(encoding="utf-8") == text for name, text in export.files.items()
    ) and config["auto_map"] == export.config["auto_map"]
