"""Data is read, checked and encoded once on a host: its first process writes what it prepared, the others map it into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.dataset import EncodedDataset
from hubtune.data.sources import DataSplits
from hubtune.devices import host_lock
from hubtune.errors import ModelError
from hubtune.hub.origin import locate
from hubtune.models import configuration
from hubtune.recipe import Recipe, TrainConfig
from hubtune.runs import preparation
from hubtune.runs.preparation import Prepared

FACTS = "prepared.json"


def prepare(recipe: Recipe, callbacks: Callbacks, source: Any = None, before: Mapping[str, Any] | None = None) -> Prepared:
    """`preparation.prepare` in the first process of a host, and what that has found in the others."""
    if not host_lock.is_shared():
        return preparation.prepare(recipe, callbacks, source, before)
    if host_lock.is_first():
        with host_lock.leading() as place:
            prepared = preparation.prepare(recipe, callbacks, source, before)
            hand_over(prepared, place)
        return prepared
    place_or_none = host_lock.follow()
    taken = take_over(recipe, place_or_none) if place_or_none else None
    return taken or preparation.prepare(recipe, Callbacks(), source, before)


def hand_over(prepared: Prepared, place: Path) -> None:
    """Write what the others need: examples, rows to score, and what was found. Nothing of a stream, which everyone reads for
    himself, and where examples have no flat form."""
    if prepared.windows is not None:
        return
    try:
        for split, encoded in prepared.encoded.items():
            encoded.save(place / "examples" / split)
    except ValueError:
        return
    for split, rows in prepared.data.splits.items():
        if split != "train":  # of which only the examples are used
            rows.save_to_disk(str(place / "rows" / split), num_proc=None)
    (place / FACTS).write_text(json.dumps({
        "facts": prepared.dataset_info, "lengths": prepared.lengths, "limit": prepared.base.max_length, "parameters": prepared.parameters,
        "settings": vars(prepared.settings), "commit": prepared.origin.commit, "local": prepared.origin.pinned is None,
        "shard": prepared.shard, "splits": list(prepared.encoded),
    }), encoding="utf-8")


def take_over(recipe: Recipe, place: Path) -> Prepared | None:
    """A preparation that another process has written; None where it could not be. Without what only the first writes down."""
    import datasets

    if not (place / FACTS).exists():
        return None
    said = json.loads((place / FACTS).read_text(encoding="utf-8"))
    plugins = registry.load()
    task, strategy = plugins.task(recipe.task), plugins.strategy(recipe.strategy)
    origin = locate(recipe.model, None if said["local"] else said["commit"])
    if origin.commit != said["commit"]:
        raise ModelError("its files are others than those that the first process of this host has found.", where=origin.repo)
    base, _ = preparation.opened(origin, task, strategy, said["facts"])
    configuration.set_length_limit(base, said["limit"])
    rows = {split: datasets.load_from_disk(str(place / "rows" / split)) for split in said["splits"] if split != "train"}
    encoded = {split: EncodedDataset.open(place / "examples" / split) for split in said["splits"]}
    return Prepared(
        recipe, task, strategy, {}, DataSplits(rows, "", ""), said["facts"], origin, replace(base, max_length=said["limit"]),
        {}, "", encoded, said["lengths"], TrainConfig(**said["settings"]), said["parameters"], warnings=[], shard=said["shard"],
    )
