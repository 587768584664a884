"""Train a model again from its record, and compare weights and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.devices import device
from hubtune.errors import DataError, ModelError, RecipeError
from hubtune.hub.origin import locate, pinned_address, read_run_record
from hubtune.recipe import PublishConfig, Recipe, TrainConfig, build
from hubtune.record import versions
from hubtune.runs import run, seal
from hubtune.runs.proofs.verify import is_seal

ABSENT = "none"
"""The version of a package that is not installed."""


@dataclass(frozen=True)
class Recorded:
    """What is reproduced: the recipe, and what came of it.

    fingerprint: of the data, or its beginning. hashes: sha256 of the weights by file. results:
    metrics by split.
    """

    recipe: Recipe
    versions: Mapping[str, str]
    fingerprint: str
    hashes: Mapping[str, str]
    results: Mapping[str, Mapping[str, float | None]]


def reproduce(
    model: str, data: Any, out: str | Path | None, trusted: tuple[str, ...], callbacks: Callbacks
) -> dict[str, Any]:
    """Train again in a new folder, and compare; see `hubtune.reproduce`.

    Raises:
        RecipeError, ModelError: the record does not say where the data or the base model is.
        DataError: the data has other rows than those of the record.
    """
    folder = Path(model).expanduser()
    is_run = (folder / "run.json").is_file()
    recorded = from_run(folder, callbacks) if is_run else from_published(model)
    others = changed(recorded.versions, versions(), ABSENT)
    for name, (then, now) in others.items():
        callbacks.on_warning(f"{name} {now} is installed; the model was trained with {then}.")
    recipe, source = with_data(replace(recorded.recipe, trusted=trusted), data)
    described = run.check(recipe, out=out, source=source, callbacks=callbacks)
    found = described["data"]["fingerprint"]
    if not found.startswith(recorded.fingerprint):
        raise DataError(
            f"the rows are not those that the model was trained on: {found[:16]} instead of "
            f"{recorded.fingerprint[:16]}.", hint="Name the original data with --data.")
    made = run.train(recipe, out=out, source=source, callbacks=callbacks)
    weights = changed(recorded.hashes, weight_hashes(made.folder / seal.MODEL), ABSENT)
    scores = changed(flat(recorded.results), flat(seal.finite(made.record["metrics"])), None)
    return {"equal": not weights and not scores, "run": str(made.folder), "versions": others,
            "weights": weights, "metrics": scores}


def from_run(folder: Path, callbacks: Callbacks) -> Recorded:
    """Read what is reproduced from a finished run, whose plan divides the steps again as it did.

    Where this machine cannot compute by that plan, it makes its own, and says so.
    """
    record = run.Run(folder).record
    recipe, data = build(record["recipe"]), record["data"]
    base = record["base"].get("adapter", record["base"])
    source = f"{data['name']}@{data['commit']}" if data["repo"] else recipe.data.source
    plan: str | None = str(folder)
    try:
        device.load_plan(str(folder), record["settings"]["precision"])
    except RecipeError as error:
        callbacks.on_warning(f"{error.message} The weights may differ in their last bits.")
        plan = None
    settings = {**record["settings"], "plan": plan}
    return Recorded(
        replace(recipe, model=recipe.model if base["local"] else pinned_address(base),
                data=replace(recipe.data, source=source), train=TrainConfig(**settings),
                publish=PublishConfig()),
        record["versions"], record["data"]["fingerprint"], weight_hashes(folder / seal.MODEL),
        seal.finite(record["metrics"]))


def from_published(model: str) -> Recorded:
    """Read what is reproduced from the `hubtune.json` of a model.

    Raises:
        ModelError: it has no recipe, or its base model was a local folder.
    """
    origin = locate(model)
    record = read_run_record(origin)
    proof = record.get("seal")
    if not is_seal(proof) or not all(
        isinstance(record.get(name), Mapping) for name in ("recipe", "versions", "base")):
        raise ModelError("it has no recipe: an earlier version of hubtune tuned it, or none.",
                         where=origin.repo, hint="Reproduce it from its run's folder.")
    if record["base"]["local"]:
        raise ModelError(
            "its base model was a local folder, which nothing but its hash is known of: "
            f"{record['base']['repo']}, {record['base']['commit'][:19]}.", where=origin.repo,
            hint="Reproduce it from its run's folder, on the machine that has the base model.")
    hashes = {name: digest for name, digest in proof["files"].items() if is_weights(name)}
    return Recorded(build(record["recipe"]), record["versions"], record["data"], hashes,
                    proof["results"])


def with_data(recipe: Recipe, data: Any) -> tuple[Recipe, Any]:
    """Return the recipe with the data that the user named, and rows from Python.

    Raises:
        RecipeError: the record does not say where the rows are, and the user does not either.
    """
    if data is not None and not isinstance(data, str | Path):
        return recipe, data
    source = str(data) if data is not None else recipe.data.source
    if source is None or (data is None and not Path(source).expanduser().exists()
                          and "@" not in source):
        raise RecipeError(
            "its data is not here" + (f": there is no '{source}'." if source else
                                      ": the rows came from Python."),
            hint="Name a copy of it: --data SOURCE")
    return replace(recipe, data=replace(recipe.data, source=source)), None


def weight_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of weights in a folder, by its path."""
    return {name: digest for name, digest in seal.hash_folder(folder).items() if is_weights(name)}


def is_weights(name: str) -> bool:
    """Tell whether a file holds weights."""
    return name.endswith(".safetensors")


def flat(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return metrics by names such as `validation accuracy`."""
    return {f"{split} {name}": value for split, found in results.items()
            for name, value in found.items()}


def changed(then: Mapping[str, Any], now: Mapping[str, Any], absent: Any) -> dict[str, list[Any]]:
    """Return the entries that differ, each as what it was and what it is."""
    return {name: [then.get(name, absent), now.get(name, absent)]
            for name in {**then, **now} if then.get(name, absent) != now.get(name, absent)}
