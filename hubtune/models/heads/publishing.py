"""A model with a head of ours as it is published: the code that builds it lies beside its weights."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from hubtune.contract import Export
from hubtune.files import read_json
from hubtune.hub.origin import Origin, fetch
from hubtune.hub.trust import code_files, named_code
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
        config={**export.config, "auto_map": auto_map(auto)})


def is_own_code(origin: Origin) -> bool:
    """Tell whether the only code in a model's folder is ours, of this version of hubtune."""
    if code_files(origin) != [FILE] or named_code(origin):
        return False
    folder = fetch(origin, [FILE, "config.json"])
    named = read_json(folder / "config.json", f"{origin.repo}/config.json", "").get("auto_map")
    digest = hashlib.sha256((folder / FILE).read_bytes()).digest()
    return any(named == auto_map(auto) for auto in HEADS) and digest == hashlib.sha256(
        SOURCE.read_bytes()).digest()
