"""Main process first: one process of a host prepares the data, the others map it into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.dataset import EncodedDataset
from hubtune.devices import host_lock
from hubtune.errors import ModelError
from hubtune.hub import trust
from hubtune.hub.origin import locate
from hubtune.models import configuration
from hubtune.recipe import Recipe, TrainConfig
from hubtune.runs import functions, preparation
from hubtune.runs.preparation import Prepared
from hubtune.runs.prepared_data import PreparedData, Record

MANIFEST = "prepared.json"
ROW_NUMBERS = "row_numbers.npy"


def prepare(
    recipe: Recipe, callbacks: Callbacks, source: Any = None, resumed: Record | None = None,
    data_loaded: Callable[[], None] = lambda: None,
) -> tuple[Prepared, dict[str, Any]]:
    """Prepare as `preparation.prepare` does, for all processes of the host if others are there."""
    if not (host_lock.is_shared() and host_lock.is_first()):
        return preparation.prepare(recipe, callbacks, source, resumed, data_loaded=data_loaded)
    with host_lock.prepare_shared() as folder:
        prepared, record = preparation.prepare(
            recipe, callbacks, source, resumed, data_loaded=data_loaded)
        save(prepared, record["facts"], folder)
    return prepared, record


def follow(recipe: Recipe, source: Any = None, resumed: Record | None = None) -> Prepared:
    """Prepare in a process that writes no record: load what the host's main process has saved.

    Where that is not possible, the process prepares by itself.
    """
    if host_lock.is_shared() and not host_lock.is_first():
        folder = host_lock.wait_for_shared()
        prepared = load(recipe, folder, resumed) if folder else None
        if prepared:
            return prepared
    prepared, _ = prepare(recipe, Callbacks(), source, resumed)
    return prepared


def save(prepared: Prepared, dataset_info: Mapping[str, Any], folder: Path) -> None:
    """Write examples, rows and settings for the other processes.

    Nothing is written of a stream, which each process reads by itself, nor of examples that have no
    form in Arrow.
    """
    data = prepared.data
    if data.windows is not None:
        return
    try:
        for split, encoded in data.encoded.items():
            encoded.save(folder / "examples" / split)
    except ValueError:
        return
    for split, rows in data.rows.items():
        rows.save_to_disk(str(folder / "rows" / split), num_proc=None)  # type: ignore[attr-defined]
    np.save(folder / ROW_NUMBERS, np.asarray(data.row_numbers))
    (folder / MANIFEST).write_text(json.dumps({  # written last: with it, everything is there
        "splits": list(data.encoded), "dataset_info": dataset_info,
        "max_length": prepared.base.max_length, "num_parameters": prepared.num_parameters,
        "settings": vars(prepared.settings), "commit": prepared.origin.commit,
        "local": prepared.origin.pinned is None, "shard": prepared.shard,
        "num_embeddings": prepared.num_embeddings,
    }), encoding="utf-8")


def load(recipe: Recipe, folder: Path, resumed: Record | None = None) -> Prepared | None:
    """Load what another process has saved; None where it has saved nothing.

    Raises:
        ModelError: the files of the local base model differ from those of the main process.
    """
    if not (folder / MANIFEST).exists():
        return None
    saved = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    plugins = registry.load()
    task, strategy = plugins.task(recipe.task), plugins.strategy(recipe.strategy)
    functions.choose(plugins, task, recipe, {})
    origin = locate(recipe.model, None if saved["local"] else saved["commit"])
    origin = trust.base_with_code(origin, recipe.trusted, recipe.model_config.library_class)
    if origin.commit != saved["commit"]:
        raise ModelError("its files differ from those that the first process of this host has "
                         "read.", where=origin.repo)
    task, base, _ = preparation.open_base(origin, task, strategy, saved["dataset_info"], recipe.model_config)
    functions.fit(task, saved["dataset_info"], base, resumed)
    base = replace(base, max_length=saved["max_length"])
    configuration.set_length_limit(base, base.max_length)
    return Prepared(task, strategy, base, origin, load_data(folder, saved["splits"]),
                    TrainConfig(**saved["settings"]), saved["num_parameters"], saved["shard"],
                    saved["num_embeddings"])


def load_data(folder: Path, splits: list[str]) -> PreparedData:
    """Map examples and rows into memory."""
    import datasets

    encoded = {split: EncodedDataset.open(folder / "examples" / split) for split in splits}
    rows = {split: datasets.load_from_disk(str(folder / "rows" / split))
            for split in splits if split != "train"}
    return PreparedData(encoded, rows, np.load(folder / ROW_NUMBERS, mmap_mode="r"))
